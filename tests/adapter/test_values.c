/* SPDX-License-Identifier: Apache-2.0 */
/* Stored tensors as matrices, with the strides that torch files may have, and the scan. */
#include "adapter/reader.h"
#include "fixture.h"

static struct ob_file *file;

static void fini(void)
{
	ob_file_close(file);
	scratch_remove();
}

TestSuite(values, .init = scratch_make, .fini = fini);

static void put_floats(size_t n)
{
	float *x = malloc(n * sizeof(float));

	for (size_t i = 0; i < n; i++)
		x[i] = (float)i;
	put_file(in_scratch("f"), x, n * sizeof(float));
	free(x);
	works(ob_file_open(&file, in_scratch("f"), e));
}

static int view_of(uint32_t rank, const uint64_t *dim, const uint64_t *stride, struct ob_view *v,
		   ob_err *e)
{
	struct ob_adapter_file f = { .path = "adapter" };
	struct ob_stored s = { .name = "key",
			       .dtype = OB_F32,
			       .shape = { rank, dim },
			       .file = file,
			       .stride = stride };

	return ob_view_of(&f, &s, v, e);
}

Test(values, views)
{
	static const uint64_t d23[] = { 2, 3 }, d2322[] = { 2, 3, 2, 2 }, d5[] = { 5 };
	struct ob_view v;

	put_floats(64);
	works(view_of(2, d23, NULL, &v, e));
	cr_assert(v.rows == 2 && v.cols == 3 && view_at(&v, 1, 2) == 5);
	works(view_of(4, d2322, NULL, &v, e));
	cr_assert(v.rows == 2 && v.cols == 12 && view_at(&v, 1, 11) == 23);
	works(view_of(1, d5, NULL, &v, e));
	cr_assert(v.rows == 1 && v.cols == 5 && view_at(&v, 0, 4) == 4);
	works(view_of(0, NULL, NULL, &v, e));
	cr_assert(v.rows == 1 && v.cols == 1);
}

Test(values, strided_views)
{
	static const uint64_t d23[] = { 2, 3 }, d2322[] = { 2, 3, 2, 2 }, d2311[] = { 2, 3, 1, 1 };
	static const uint64_t d5[] = { 5 }, d_huge[] = { 1ull << 40, 1ull << 20 };
	static const uint64_t columns[] = { 1, 2 }, every_2nd[] = { 2 }, none[] = { 0, 0 };
	static const uint64_t planes[] = { 20, 4, 2, 1 }, channels_last[] = { 12, 1, 6, 3 };
	static const uint64_t ones[] = { 1, 2, 7, 9 };
	struct ob_view v;

	put_floats(64);
	works(view_of(2, d23, columns, &v, e));
	cr_assert(v.rows == 2 && v.cols == 3 && view_at(&v, 1, 2) == 5 && view_at(&v, 0, 1) == 2);
	works(view_of(1, d5, every_2nd, &v, e));
	cr_assert_eq(view_at(&v, 0, 4), 8);
	works(view_of(4, d2322, planes, &v, e));
	cr_assert_eq(view_at(&v, 1, 11), 31);
	/* Strides of dimensions of one element mean nothing. */
	works(view_of(4, d2311, ones, &v, e));
	cr_assert_eq(view_at(&v, 1, 2), 5);
	fails(view_of(4, d2322, channels_last, &v, e), OB_UNSUPPORTED, "contiguous");
	fails(view_of(2, d_huge, none, &v, e), OB_CORRUPT, "more than the file");
	fails(view_of(2, d_huge, NULL, &v, e), OB_CORRUPT, "more than the file");
}

Test(values, equal)
{
	static const uint64_t d[] = { 5000, 3 };
	struct ob_view a, b;

	put_floats(15001);
	works(view_of(2, d, NULL, &a, e));
	b = a;
	cr_assert(ob_view_equal(&a, &b));
	b.off = 4;
	cr_assert(!ob_view_equal(&a, &b));
	b = ob_view_transposed(&a);
	cr_assert(!ob_view_equal(&a, &b));
	b = ob_view_transposed(&b);
	cr_assert(ob_view_equal(&a, &b));
}

/* A file of three tensors: small, above the window of the scan, small. */
enum { SMALL = 10, LARGE = 3 << 20 };

static int scan(uint64_t poison, uint32_t bits, bool *zero, ob_err *e)
{
	static const uint64_t small[] = { SMALL }, large[] = { 1024, LARGE / 1024 };
	static const uint64_t columns[] = { 1, 1024 };
	struct ob_stored s[] = {
		{ "first", OB_F32, { 1, small }, NULL, 0, 4 * SMALL, NULL },
		{ "second", OB_F32, { 2, large }, NULL, 4 * SMALL, 4 * LARGE, columns },
		{ "last", OB_F32, { 1, small }, NULL, 4 * (SMALL + LARGE), 4 * SMALL, NULL },
	};
	struct ob_adapter_file f = { .path = "adapter", .list = { .tensor = s, .n_tensors = 3 } };
	int fd = open(in_scratch("s"), O_CREAT | O_TRUNC | O_RDWR, 0600);

	cr_assert_eq(ftruncate(fd, 4 * (2 * SMALL + LARGE)), 0);
	cr_assert_eq(pwrite(fd, &bits, 4, (off_t)(4 * poison)), 4);
	close(fd);
	ob_file_close(file);
	if (ob_file_open(&file, in_scratch("s"), e) != 0)
		return -1;
	f.file = s[0].file = s[1].file = s[2].file = file;
	return ob_values_scan(&f, zero, e);
}

Test(values, scan)
{
	static const uint32_t nan = 0x7fc00000, minus_inf = 0xff800000, tiny = 1;
	bool zero[3];

	works(scan(0, 0, zero, e));
	cr_assert(zero[0] && zero[1] && zero[2]);
	works(scan(SMALL - 1, tiny, zero, e));
	cr_assert(!zero[0] && zero[1] && zero[2]);
	works(scan(SMALL + LARGE - 1, tiny, zero, e));
	cr_assert(zero[0] && !zero[1] && zero[2]);
	fails(scan(SMALL - 1, nan, zero, e), OB_NONFINITE, "first");
	fails(scan(SMALL, minus_inf, zero, e), OB_NONFINITE, "second");
	fails(scan(SMALL + LARGE - 1, nan, zero, e), OB_NONFINITE, "second");
	fails(scan(SMALL + LARGE, nan, zero, e), OB_NONFINITE, "last");
}

Test(values, scalars)
{
	static const uint64_t one[] = { 1, 1 }, two[] = { 2 };
	struct ob_adapter_file f = { .path = "adapter" };
	struct ob_stored s = { .name = "x.alpha", .dtype = OB_F32, .shape = { 2, one } };
	static const double third = 1.0 / 3;
	double x;

	put_floats(4);
	s.file = file;
	s.off = 12;
	works(ob_stored_scalar(&f, &s, &x, e));
	cr_assert_eq(x, 3);
	s.shape = (struct ob_shape){ 1, two };
	fails(ob_stored_scalar(&f, &s, &x, e), OB_CORRUPT, "one number");
	ob_file_close(file);
	put_file(in_scratch("d"), &third, sizeof(third));
	works(ob_file_open(&file, in_scratch("d"), e));
	s = (struct ob_stored){ .name = "x.alpha", .dtype = OB_F64, .file = file };
	works(ob_stored_scalar(&f, &s, &x, e));
	cr_assert_eq(x, third);
	s.dtype = OB_C64;
	fails(ob_stored_scalar(&f, &s, &x, e), OB_UNSUPPORTED, "C64");
}
