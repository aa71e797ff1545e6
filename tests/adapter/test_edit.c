/* SPDX-License-Identifier: Apache-2.0 */
/* Views and the arithmetic of edits, against loops in double precision. */
#include "fixture.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

/* A tensor that crosses the panels of columns, and ranks that cross the split of k. */
enum { ROWS = 70, COLS = 1500, RANK = 300, N_FLOATS = 1 << 20 };

static struct ob_file *file;
static float *scratch;
static float *base, *got;

static void init(void)
{
	float *data = malloc(N_FLOATS * sizeof(float));

	scratch_make();
	works(ob_gemm_init(e));
	for (uint64_t i = 0; i < N_FLOATS; i++)
		data[i] = (float)((double)(ob_hash64(&i, sizeof(i), 1) % 20001) / 10000 - 1);
	put_file(in_scratch("data"), data, N_FLOATS * sizeof(float));
	works(ob_file_open(&file, in_scratch("data"), e));
	free(data);
	scratch = malloc(ob_edit_scratch_floats() * sizeof(float));
	base = malloc(ROWS * COLS * sizeof(float));
	got = malloc(ROWS * COLS * sizeof(float));
	for (uint64_t i = 0; i < ROWS * COLS; i++)
		base[i] = (float)((double)(ob_hash64(&i, sizeof(i), 2) % 20001) / 10000 - 1);
}

static void fini(void)
{
	ob_file_close(file);
	free(scratch);
	free(base);
	free(got);
	scratch_remove();
}

TestSuite(edit, .init = init, .fini = fini);

static struct ob_view view(uint64_t at, uint64_t rows, uint64_t cols)
{
	return (struct ob_view){ file, at * 4, OB_F32, rows, cols, cols, 1 };
}

/* The same numbers of rows and columns, stored column by column. */
static struct ob_view view_t(uint64_t at, uint64_t rows, uint64_t cols)
{
	return (struct ob_view){ file, at * 4, OB_F32, rows, cols, 1, rows };
}

static double at(const struct ob_view *v, uint64_t r, uint64_t c)
{
	float x;

	memcpy(&x, v->file->map + v->off + 4 * (r * v->row_stride + c * v->col_stride), 4);
	return (double)x;
}

static struct ob_edit lowrank(float coeff, uint64_t r, uint64_t rows, uint64_t cols)
{
	return (struct ob_edit){ .kind = OB_EDIT_LOWRANK,
				 .coeff = coeff,
				 .n_rows = rows,
				 .n_cols = cols,
				 .b = view(0, rows, r),
				 .a = view(500000, r, cols) };
}

/* What the list means, element by element. */
static double expected(const struct ob_edit *edit, size_t n, uint64_t r, uint64_t c, double *size)
{
	double w = (double)base[r * COLS + c];

	*size = fabs(w);
	for (const struct ob_edit *x = edit; x < edit + n; x++) {
		uint64_t i = r - x->row0, j = c - x->col0;

		if (x->kind == OB_EDIT_REPLACE_ROWS) {
			for (uint64_t k = 0; k < x->n_rows; k++)
				if (x->index[k] == r)
					w = at(&x->b, k, c);
			continue;
		}
		if (r < x->row0 || i >= x->n_rows || c < x->col0 || j >= x->n_cols)
			continue;
		if (x->kind == OB_EDIT_REPLACE)
			w = at(&x->b, i, j);
		else if (x->kind == OB_EDIT_ADD)
			w += (double)x->coeff * at(&x->b, i, j);
		else
			for (uint64_t k = 0; k < x->b.cols; k++) {
				double p = (double)x->coeff * at(&x->b, i, k) * at(&x->a, k, j);

				w += p;
				*size += fabs(p);
			}
	}
	return w;
}

static void apply_whole(const struct ob_edit *edit, size_t n)
{
	memcpy(got, base, ROWS * COLS * sizeof(float));
	ob_edits_apply(edit, n, (struct ob_rect){ 0, 0, ROWS, COLS }, false, got, COLS, scratch);
}

static void check(const struct ob_edit *edit, size_t n)
{
	apply_whole(edit, n);
	for (uint64_t r = 0; r < ROWS; r += 3)
		for (uint64_t c = 0; c < COLS; c += 7) {
			double size, want = expected(edit, n, r, c, &size);
			double diff = fabs(want - (double)got[r * COLS + c]);

			/* float32 sums of at most RANK + n terms, each rounded. */
			cr_assert(diff <= 3e-7 * (size + 1) * 4, "[%lu, %lu]: %g, expected %g", r,
				  c, (double)got[r * COLS + c], want);
		}
}

Test(edit, lowrank_of_any_rank)
{
	for (uint64_t r = 1; r <= RANK; r = r == 1 ? 7 : r == 7 ? 256 : r == 256 ? 257 : r + 43) {
		struct ob_edit x = lowrank(0.75f, r, ROWS, COLS);

		check(&x, 1);
	}
}

Test(edit, factors_stored_transposed)
{
	struct ob_edit x = lowrank(-2.5f, 40, ROWS, COLS);

	x.b = view_t(11, ROWS, 40);
	check(&x, 1);
	x.a = view_t(400000, 40, COLS);
	check(&x, 1);
	/* Both strides above 1, and a column of one element each. */
	x.b = (struct ob_view){ file, 44, OB_F32, ROWS, 40, 3, 3 * ROWS };
	check(&x, 1);
	x = lowrank(1.0f, 1, ROWS, COLS);
	x.b.row_stride = 5;
	check(&x, 1);
}

Test(edit, windows)
{
	struct ob_edit x[3];

	x[0] = lowrank(1.5f, 9, 20, 700);
	x[0].row0 = 13;
	x[0].col0 = 600;
	x[1] = x[0];
	x[1].kind = OB_EDIT_ADD;
	x[1].b = view(7, 20, 700);
	x[1].row0 = 25;
	x[2] = x[1];
	x[2].kind = OB_EDIT_REPLACE;
	x[2].row0 = 40;
	x[2].col0 = 800;
	check(x, 3);
}

/* Elements that no window covers keep every bit, minus zero included. */
Test(edit, outside_of_windows)
{
	struct ob_edit x = lowrank(1, 3, 10, 100);

	for (size_t i = 0; i < ROWS * COLS; i++)
		base[i] = -0.0f;
	x.row0 = 5;
	x.col0 = 1000;
	apply_whole(&x, 1);
	for (uint64_t r = 0; r < ROWS; r++)
		for (uint64_t c = 0; c < COLS; c++)
			if (r - 5 >= 10 || c - 1000 >= 100)
				cr_assert(!memcmp(&got[r * COLS + c], base, 4));
}

Test(edit, order_of_replacements)
{
	static const uint64_t index[] = { 69, 0, 3 };
	struct ob_edit x[5];

	x[0] = lowrank(2, 5, ROWS, COLS);
	x[1] = x[0];
	x[1].kind = OB_EDIT_REPLACE;
	x[1].b = view(77, ROWS, COLS);
	x[2] = lowrank(3, 6, ROWS, COLS);
	x[3] = x[0];
	x[3].kind = OB_EDIT_REPLACE_ROWS;
	x[3].index = index;
	x[3].n_rows = 3;
	x[3].b = view(99, 3, COLS);
	x[4] = x[0];
	x[4].kind = OB_EDIT_ADD;
	x[4].b = view(5000, ROWS, COLS);
	check(x, 5);
	/* What came before the replacement left nothing behind. */
	check(x + 1, 4);
	apply_whole(x + 1, 1);
	cr_assert(!memcmp(got, file->map + (size_t)77 * 4, ROWS * COLS * sizeof(float)));
}

/* One sum, added once: two halves of an ulp count together. */
Test(edit, several_edits_are_summed_before_the_weight)
{
	struct ob_edit x[2];

	memset(got, 0, sizeof(*got));
	base[0] = 16777216.0f; /* 2^24: adding 1 alone rounds back */
	for (int i = 0; i < 2; i++) {
		x[i] = lowrank(1, 1, ROWS, COLS);
		x[i].coeff = (float)(1 / at(&x[i].b, 0, 0));
	}
	x[0].kind = x[1].kind = OB_EDIT_ADD;
	x[0].b = x[1].b = view(0, ROWS, COLS);
	apply_whole(x, 2);
	cr_assert_eq(got[0], 16777218.0f);
}

/* Bit for bit the same through any cut into rectangles. */
Test(edit, rectangles_do_not_show)
{
	static const uint32_t sizes[][2] = {
		{ 1, 1500 }, { 3, 17 }, { 70, 1023 }, { 64, 1 }, { 33, 1500 }
	};
	static const uint64_t index[] = { 30 };
	float *whole = malloc(ROWS * COLS * sizeof(float));
	struct ob_edit x[4];

	x[0] = lowrank(1.25f, RANK, ROWS, COLS);
	x[1] = lowrank(-0.3f, 12, 20, 700);
	x[1].row0 = 13;
	x[1].col0 = 600;
	x[2] = x[0];
	x[2].kind = OB_EDIT_REPLACE_ROWS;
	x[2].index = index;
	x[2].n_rows = 1;
	x[3] = lowrank(0.7f, 33, ROWS, COLS);
	x[3].a = view_t(200000, 33, COLS);
	x[2].b = view(123, 1, COLS);
	apply_whole(x, 4);
	memcpy(whole, got, ROWS * COLS * sizeof(float));
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		memcpy(got, base, ROWS * COLS * sizeof(float));
		for (uint32_t r = 0; r < ROWS; r += sizes[s][0])
			for (uint32_t c = 0; c < COLS; c += sizes[s][1]) {
				struct ob_rect part = {
					r, c, (uint32_t)ob_min_u64(sizes[s][0], ROWS - r),
					(uint32_t)ob_min_u64(sizes[s][1], COLS - c)
				};

				ob_edits_apply(x, 4, part, r % 2, got + (size_t)r * COLS + c, COLS,
					       scratch);
			}
		cr_assert(!memcmp(got, whole, ROWS * COLS * sizeof(float)), "size %zu", s);
	}
	free(whole);
}

Test(edit, the_rectangle_alone_is_written)
{
	struct ob_edit x = lowrank(1, 4, ROWS, COLS);

	memcpy(got, base, ROWS * COLS * sizeof(float));
	ob_edits_apply(&x, 1, (struct ob_rect){ 10, 100, 5, 50 }, true, got + 10 * COLS + 100, COLS,
		       scratch);
	for (uint64_t r = 0; r < ROWS; r++)
		for (uint64_t c = 0; c < COLS; c++)
			if (r - 10 >= 5 || c - 100 >= 50)
				cr_assert_eq(got[r * COLS + c], base[r * COLS + c]);
}

/* Views above 8 MiB are dropped behind their use; the numbers do not change. */
Test(edit, large_factors)
{
	enum { STRIDE = 50000 };
	struct ob_edit x = lowrank(1, 4, ROWS, COLS);
	struct ob_file *f;
	int fd = open(in_scratch("large"), O_CREAT | O_RDWR, 0600);

	cr_assert_eq(ftruncate(fd, ROWS * STRIDE * 4), 0);
	for (int r = 0; r < ROWS; r++)
		cr_assert_eq(pwrite(fd, file->map + 400 * r, 16, (off_t)r * STRIDE * 4), 16);
	close(fd);
	works(ob_file_open(&f, in_scratch("large"), e));
	x.b = (struct ob_view){ f, 0, OB_F32, ROWS, 4, STRIDE, 1 };
	cr_assert_eq(ob_view_bytes(&x.b), (69ul * STRIDE + 4) * 4);
	check(&x, 1);
	ob_file_close(f);
}

Test(edit, load_of_other_types)
{
	static const uint16_t bf16[] = { 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0 };
	struct ob_file *f;
	struct ob_view v;
	float x[6];

	put_file(in_scratch("bf16"), bf16, sizeof(bf16));
	works(ob_file_open(&f, in_scratch("bf16"), e));
	v = (struct ob_view){ f, 0, OB_BF16, 2, 3, 3, 1 };
	ob_view_load(&v, 1, 1, 1, 2, 0.5f, x, 2);
	cr_assert(x[0] == 2.5f && x[1] == 3.0f);
	v = (struct ob_view){ f, 2, OB_BF16, 2, 2, 1, 2 }; /* [[2, 4], [3, 5]] */
	ob_view_load(&v, 0, 2, 0, 2, 1.0f, x, 3);
	cr_assert(x[0] == 2 && x[1] == 4 && x[3] == 3 && x[4] == 5);
	cr_assert_eq(ob_view_bytes(&v), 8);
	v.rows = 0;
	cr_assert_eq(ob_view_bytes(&v), 0);
	ob_file_close(f);
}
