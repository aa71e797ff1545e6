/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

static struct ob_file *source, *dense;

static void clear(void)
{
	ob_file_close(source);
	ob_file_close(dense);
	scratch_remove();
}

TestSuite(dense, .init = scratch_make, .fini = clear);

static struct ob_stored tensor(const char *name, uint32_t rank, const uint64_t *dim,
			       const uint64_t *stride, uint64_t off, uint64_t len)
{
	return (struct ob_stored){ .name = name,
				   .dtype = OB_U16,
				   .shape = { rank, dim },
				   .file = source,
				   .off = off,
				   .len = len,
				   .stride = stride };
}

Test(dense, rows_are_laid_out)
{
	static const uint64_t dim[] = { 2, 3 }, turned[] = { 1, 2 }, every[] = { 6, 2 };
	static const uint64_t cube[] = { 2, 1, 2 }, steps[] = { 1, 9, 4 }, again[] = { 0, 1 };
	static const uint16_t want[] = { 0,  2, 4, 1, 3, 5, 1, 3, 5, 7, 9,
					 11, 2, 6, 3, 7, 4, 5, 6, 4, 5, 6 };
	uint16_t data[16];
	struct ob_stored t[5];
	struct ob_listing l = { .tensor = t, .n_tensors = 5 };

	for (uint16_t i = 0; i < 16; i++)
		data[i] = i;
	put_file(in_scratch("x"), data, sizeof(data));
	works(ob_file_open(&source, in_scratch("x"), e));
	t[0] = tensor("plain", 2, dim, NULL, 0, 12);
	t[1] = tensor("turned", 2, dim, turned, 0, 12);
	t[2] = tensor("every other", 2, dim, every, 2, 22);
	t[3] = tensor("cube", 3, cube, steps, 4, 12);
	t[4] = tensor("repeated", 2, dim, again, 8, 6);
	works(ob_make_dense("x", &l, &dense, e));
	cr_assert_not_null(dense);
	cr_expect_eq(t[0].file, source);
	cr_assert_eq(dense->stamp.size, sizeof(want));
	cr_expect_arr_eq(dense->map, want, sizeof(want));
	for (int i = 1; i < 5; i++) {
		cr_expect_eq(t[i].file, dense);
		cr_expect_null(t[i].stride);
	}
	cr_expect_eq(t[2].off, 12);
	cr_expect_eq(t[4].off, 32);
	cr_expect_eq(t[4].len, 12);
}

Test(dense, nothing_to_do)
{
	static const uint64_t dim[] = { 3 };
	struct ob_stored t = tensor("plain", 1, dim, NULL, 0, 6);
	struct ob_listing l = { .tensor = &t, .n_tensors = 1 };

	works(ob_make_dense("x", &l, &dense, e));
	cr_expect_null(dense);
}

/* A few bytes, a thousand million times. */
Test(dense, views_without_end)
{
	static const uint64_t dim[] = { 1 << 30, 8 }, again[] = { 0, 1 };
	struct ob_stored t;
	struct ob_listing l = { .tensor = &t, .n_tensors = 1 };
	ob_err err = { 0 };

	put_file(in_scratch("x"), "0123456789abcdef", 16);
	works(ob_file_open(&source, in_scratch("x"), e));
	t = tensor("much", 2, dim, again, 0, 16);
	cr_assert_eq(ob_make_dense("x", &l, &dense, &err), -1);
	cr_expect_eq(err.code, OB_LIMIT);
	cr_expect(strstr(err.msg, "much"), "%s", err.msg);
	cr_expect_null(dense);
}
