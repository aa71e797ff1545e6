/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of edits on one rectangle of a tensor, and loading of factor tiles. */
#include "adapter/edit.h"

#include "base/num.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

/* Part of the scratch: the sum of additive edits, then a tile of B, then a tile of A (or of a dense
 * edit, which is no larger). */
/* Rows of the tiles are not a power of two apart, which would put them all into one set of the
 * first-level cache. */
#define LD (OB_PANEL_COLS + 16u)
#define SUM_FLOATS ((size_t)OB_RECT_ROWS * LD)
#define B_FLOATS ((size_t)OB_RECT_ROWS * OB_GEMM_K_MAX)
#define A_FLOATS ((size_t)OB_GEMM_K_MAX * LD)
_Static_assert(A_FLOATS >= SUM_FLOATS, "a dense edit is loaded into the tile of A");

size_t ob_edit_scratch_floats(void)
{
	return SUM_FLOATS + B_FLOATS + A_FLOATS;
}

static uint64_t elem_size(const struct ob_view *v)
{
	return ob_dtype_bits(v->dtype) / 8;
}

static const uint8_t *elem(const struct ob_view *v, uint64_t r, uint64_t c)
{
	return v->file->map + v->off + (r * v->row_stride + c * v->col_stride) * elem_size(v);
}

/* Bytes from element [0,0] to behind the last of nr x nc elements. */
static uint64_t span_bytes(const struct ob_view *v, uint64_t nr, uint64_t nc)
{
	if (!nr || !nc)
		return 0;
	return ((nr - 1) * v->row_stride + (nc - 1) * v->col_stride + 1) * elem_size(v);
}

uint64_t ob_view_bytes(const struct ob_view *v)
{
	return span_bytes(v, v->rows, v->cols);
}

/* Columns lie contiguous in the file: a block of runs at a time, turned in a buffer that stays in
 * the first-level cache. */
static void load_columns(const struct ob_view *v, uint64_t r, uint64_t nr, uint64_t c, uint64_t nc,
			 float *dst, size_t ld)
{
	enum { RUN = 64, RUNS = 16 };
	float block[RUNS][RUN];

	for (uint64_t i0 = 0; i0 < nr; i0 += RUN) {
		size_t ni = (size_t)ob_min_u64(RUN, nr - i0);

		for (uint64_t j0 = 0; j0 < nc; j0 += RUNS) {
			size_t nj = (size_t)ob_min_u64(RUNS, nc - j0);

			for (size_t j = 0; j < nj; j++)
				ob_load_f32(block[j], elem(v, r + i0, c + j0 + j), v->dtype, ni, 1);
			for (size_t i = 0; i < ni; i++)
				for (size_t j = 0; j < nj; j++)
					dst[(i0 + i) * ld + j0 + j] = block[j][i];
		}
	}
}

void ob_view_load(const struct ob_view *v, uint64_t r, uint64_t nr, uint64_t c, uint64_t nc,
		  float coeff, float *dst, size_t ld)
{
	if (v->row_stride == 1 && (v->col_stride != 1 || nc == 1))
		load_columns(v, r, nr, c, nc, dst, ld);
	else
		for (uint64_t i = 0; i < nr; i++)
			ob_load_f32(dst + i * ld, elem(v, r + i, c), v->dtype, (size_t)nc,
				    (int64_t)v->col_stride);
	if (coeff == 1.0f)
		return;
	for (uint64_t i = 0; i < nr; i++)
		for (uint64_t j = 0; j < nc; j++)
			dst[i * ld + j] *= coeff;
}

/* One panel on its way: the weights, and the sum of the additive edits, which holds nothing before the
 * first one. */
struct panel {
	float *w;
	size_t ld;
	float *sum; /* [rows, LD] */
	float *tile_b, *tile_a;
	uint32_t rows, cols;
	bool is_summing;
	bool drops_factors;
};

/* Loads a part of a view; where factors are many, its pages leave the resident set at once. */
static void load(const struct panel *p, const struct ob_view *v, const struct ob_rect *part,
		 float coeff, float *dst, size_t ld)
{
	ob_view_load(v, part->row, part->rows, part->col, part->cols, coeff, dst, ld);
	if (p->drops_factors)
		ob_file_drop(v->file, (uint64_t)(elem(v, part->row, part->col) - v->file->map),
			     span_bytes(v, part->rows, part->cols));
}

/* The part of an edit's window that lies in a panel. */
struct overlap {
	struct ob_rect in; /* in the coordinates of the window (of b and a) */
	size_t row, col;   /* of its corner in the panel */
};

static bool overlap(const struct ob_edit *x, const struct ob_rect *at, struct overlap *o)
{
	uint64_t r0 = ob_max_u64(at->row, x->row0);
	uint64_t r1 = ob_min_u64(at->row + at->rows, x->row0 + x->n_rows);
	uint64_t c0 = ob_max_u64(at->col, x->col0);
	uint64_t c1 = ob_min_u64(at->col + at->cols, x->col0 + x->n_cols);

	if (r0 >= r1 || c0 >= c1)
		return false;
	o->in = (struct ob_rect){ r0 - x->row0, c0 - x->col0, (uint32_t)(r1 - r0),
				  (uint32_t)(c1 - c0) };
	o->row = (size_t)(r0 - at->row);
	o->col = (size_t)(c0 - at->col);
	return true;
}

/* Minus zero is what changes no float when it is added, minus zero included: an element outside
 * every window keeps its bits. An edit that covers the panel needs no such ground. */
static bool begin(struct panel *p, const struct overlap *o)
{
	bool is_first = !p->is_summing;

	p->is_summing = true;
	if (is_first && o->in.rows == p->rows && o->in.cols == p->cols)
		return true;
	for (size_t i = 0; is_first && i < p->rows * LD; i++)
		p->sum[i] = -0.0f;
	return false;
}

/* sum += (coeff * B) A */
static void add_lowrank(struct panel *p, const struct ob_edit *x, const struct overlap *o)
{
	bool is_ground = begin(p, o);
	float *c = p->sum + o->row * LD + o->col;

	for (uint64_t k = 0; k < x->b.cols; k += OB_GEMM_K_MAX) {
		uint32_t nk = (uint32_t)ob_min_u64(OB_GEMM_K_MAX, x->b.cols - k);
		struct ob_rect part_b = { o->in.row, k, o->in.rows, nk };
		struct ob_rect part_a = { k, o->in.col, nk, o->in.cols };

		load(p, &x->b, &part_b, x->coeff, p->tile_b, OB_GEMM_K_MAX);
		load(p, &x->a, &part_a, 1.0f, p->tile_a, LD);
		ob_gemm(c, LD, p->tile_b, OB_GEMM_K_MAX, p->tile_a, LD, o->in.rows, o->in.cols, nk,
			k > 0 || !is_ground);
	}
}

/* sum += coeff * b */
static void add_dense(struct panel *p, const struct ob_edit *x, const struct overlap *o)
{
	if (begin(p, o)) {
		load(p, &x->b, &o->in, x->coeff, p->sum, LD);
		return;
	}
	load(p, &x->b, &o->in, x->coeff, p->tile_a, LD);
	for (uint32_t r = 0; r < o->in.rows; r++)
		ob_kernels()->add(p->sum + (o->row + r) * LD + o->col, p->tile_a + (size_t)r * LD,
				  o->in.cols);
}

static void replace_rows(const struct panel *p, const struct ob_edit *x, const struct ob_rect *at)
{
	for (uint64_t j = 0; j < x->n_rows; j++) {
		struct ob_rect row = { j, at->col, 1, at->cols };

		if (x->index[j] >= at->row && x->index[j] - at->row < at->rows)
			load(p, &x->b, &row, 1.0f, p->w + (x->index[j] - at->row) * p->ld, p->ld);
	}
}

static void flush(struct panel *p)
{
	for (uint32_t r = 0; p->is_summing && r < p->rows; r++)
		ob_kernels()->add(p->w + r * p->ld, p->sum + (size_t)r * LD, p->cols);
	p->is_summing = false;
}

static void apply(struct panel *p, const struct ob_edit *x, const struct ob_rect *at)
{
	bool is_additive = x->kind == OB_EDIT_LOWRANK || x->kind == OB_EDIT_ADD;
	struct overlap o;

	/* In every panel alike, overlap or not: the sums must not depend on the rectangle. */
	if (!is_additive)
		flush(p);
	if (x->kind != OB_EDIT_REPLACE_ROWS && !overlap(x, at, &o))
		return;
	switch (x->kind) {
	case OB_EDIT_LOWRANK:
		add_lowrank(p, x, &o);
		break;
	case OB_EDIT_ADD:
		add_dense(p, x, &o);
		break;
	case OB_EDIT_REPLACE:
		load(p, &x->b, &o.in, 1.0f, p->w + o.row * p->ld + o.col, p->ld);
		break;
	case OB_EDIT_REPLACE_ROWS:
		replace_rows(p, x, at);
		break;
	}
}

uint64_t ob_edits_bytes(const struct ob_edit *edit, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ob_view_bytes(&edit[i].b) + ob_view_bytes(&edit[i].a);
	return sum;
}

static void advise(const struct ob_view *v, void (*how)(const struct ob_file *, uint64_t, uint64_t))
{
	if (v->file)
		how(v->file, v->off, ob_view_bytes(v));
}

void ob_edits_will_need(const struct ob_edit *edit, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		advise(&edit[i].a, ob_file_will_need);
		advise(&edit[i].b, ob_file_will_need);
	}
}

void ob_edits_drop(const struct ob_edit *edit, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		advise(&edit[i].a, ob_file_drop);
		advise(&edit[i].b, ob_file_drop);
	}
}

void ob_edits_apply(const struct ob_edit *edit, size_t n, struct ob_rect at, bool drops_factors,
		    float *w, size_t ld, float *scratch)
{
	struct panel p = {
		.ld = ld,
		.sum = scratch,
		.tile_b = scratch + SUM_FLOATS,
		.tile_a = scratch + SUM_FLOATS + B_FLOATS,
		.rows = at.rows,
		.drops_factors = drops_factors,
	};

	for (uint32_t c = 0; c < at.cols; c += OB_PANEL_COLS) {
		struct ob_rect panel = { at.row, at.col + c, at.rows,
					 (uint32_t)ob_min_u64(OB_PANEL_COLS, at.cols - c) };

		p.w = w + c;
		p.cols = panel.cols;
		for (size_t i = 0; i < n; i++)
			apply(&p, &edit[i], &panel);
		flush(&p);
	}
}
