/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/bake.h"

#include <string.h>

#include "base/num.h"
#include "kernels/kernels.h"

struct job {
	const struct ob_bake *b;
	const struct ob_out *o;
	const struct ob_piece *piece; /* NULL: replaced as a whole */
	uint64_t piece_row;	      /* output row at which the piece begins */
	float *w, *edits, *codec;
};

static struct ob_elems elems_of(const struct job *j, const struct ob_rect *at, uint64_t row)
{
	uint64_t e = row * j->o->cols + at->col;
	return (struct ob_elems){ e, e + at->cols };
}

static bool is_contiguous(const struct job *j, const struct ob_rect *at)
{
	return at->cols == j->o->cols || at->rows == 1;
}

static void decode(const struct job *j, const struct ob_rect *at)
{
	const struct ob_tensor *src = j->b->input->tensor;
	size_t n = (size_t)at->rows * at->cols;
	if (!j->piece) {
		memset(j->w, 0, n * sizeof(float));
		return;
	}
	enum ob_decode_mode mode = j->o->n_edits ? OB_DECODE_F32 : OB_DECODE_EXACT;
	uint64_t row = at->row - j->piece_row;
	if (is_contiguous(j, at) && !j->piece->map.block) {
		struct ob_elems e = elems_of(j, at, ob_piece_row(j->piece, row));
		e.e1 = e.e0 + n;
		src->enc.codec->decode(&src->enc, &src->shape, j->b->in, j->b->input->elems, e,
				       mode, j->w, j->codec);
		return;
	}
	for (uint32_t r = 0; r < at->rows; r++)
		src->enc.codec->decode(&src->enc, &src->shape, j->b->in, j->b->input->elems,
				       elems_of(j, at, ob_piece_row(j->piece, row + r)), mode,
				       j->w + (size_t)r * at->cols, j->codec);
}

static void encode(const struct job *j, const struct ob_rect *at)
{
	const struct ob_out *o = j->o;
	struct ob_elems tile = { j->b->tile->e0, j->b->tile->e1 };
	if (is_contiguous(j, at)) {
		struct ob_elems e = elems_of(j, at, at->row);
		e.e1 = e.e0 + (uint64_t)at->rows * at->cols;
		o->enc.codec->encode(&o->enc, &o->shape, j->b->out, tile, e, j->w, j->codec,
				     j->b->stats);
		return;
	}
	for (uint32_t r = 0; r < at->rows; r++)
		o->enc.codec->encode(&o->enc, &o->shape, j->b->out, tile,
				     elems_of(j, at, at->row + r), j->w + (size_t)r * at->cols,
				     j->codec, j->b->stats);
}

static void measure(const struct job *j, const struct ob_rect *at)
{
	const struct ob_out *o = j->o;
	struct ob_elems tile = { j->b->tile->e0, j->b->tile->e1 };
	uint32_t rows = is_contiguous(j, at) ? at->rows : 1;
	for (uint32_t r = 0; r < at->rows; r += rows) {
		struct ob_elems e = elems_of(j, at, at->row + r);
		e.e1 = e.e0 + (uint64_t)rows * at->cols;
		o->enc.codec->measure(&o->enc, &o->shape, tile, e, j->w + (size_t)r * at->cols,
				      j->codec, j->b->measure);
	}
}

/* Encodes x on its own and decodes it again in place. */
static void through_format(const struct job *j, struct ob_elems e, float *x, float *encoded)
{
	const struct ob_out *o = j->o;
	struct ob_span span[OB_MAX_PARTS * OB_MAX_RANGES] = { 0 };
	uint8_t *p = (uint8_t *)encoded;
	for (unsigned k = 0; k < o->part.n; k++) {
		struct ob_range r[OB_MAX_RANGES];
		unsigned n = o->enc.codec->ranges(&o->enc, &o->shape, k, e, r);
		for (unsigned i = 0; i < n; i++) {
			span[k * OB_MAX_RANGES + i] = (struct ob_span){ p, r[i].len };
			p += r[i].len;
		}
	}
	o->enc.codec->encode(&o->enc, &o->shape, span, e, e, x, j->codec, j->b->stats);
	o->enc.codec->decode(&o->enc, &o->shape, span, e, e, OB_DECODE_F32, x, j->codec);
}

static void add_effect(struct ob_effect *f, const float *before, const float *d, const float *after,
		       size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double a = (double)after[i] - before[i];
		f->dd += (double)d[i] * d[i];
		f->aa += a * a;
		f->da += a * d[i];
		f->changed += after[i] != before[i];
	}
	f->n += n;
}

/* Rows at the beginning of a tile that are looked at; 0 where too many belong together. */
static uint32_t sample_rows(const struct job *j, const struct ob_rect *at)
{
	uint64_t rows = OB_SAMPLE_ELEMS / at->cols;
	if (!is_contiguous(j, at))
		return 1;
	return (uint32_t)ob_min_u64(at->rows, rows - rows % j->o->unit_rows);
}

/* before: the weights without edits; j->w: with them. Leaves j->w alone: it is encoded next. */
static void sample(const struct job *j, const struct ob_rect *at, float *before, float *encoded,
		   struct ob_effect *f)
{
	size_t n = (size_t)sample_rows(j, at) * at->cols;
	struct ob_elems e = elems_of(j, at, at->row);
	float *d = before + OB_SAMPLE_ELEMS, *after = d + OB_SAMPLE_ELEMS;
	e.e1 = e.e0 + n;
	for (size_t i = 0; i < n; i++)
		d[i] = j->w[i] - before[i];
	memcpy(after, j->w, n * sizeof(float));
	through_format(j, e, before, encoded);
	through_format(j, e, after, encoded);
	add_effect(f, before, d, after, n);
}

/* The rectangles of a tile: what one pass over the cache takes, in whole units of the formats. */
static void rect_size(const struct job *j, uint64_t cols, uint64_t *w, uint64_t *h)
{
	const struct ob_out *o = j->o;
	uint64_t most = o->n_edits ? OB_RECT_COLS : OB_RECT_ELEMS;
	*w = cols;
	if (cols > most && ob_out_splits_rows(o))
		*w = ob_max_u64(most - most % o->unit_cols, o->unit_cols);
	*h = OB_RECT_ELEMS / *w;
	if (o->n_edits && *h > OB_RECT_ROWS)
		*h = OB_RECT_ROWS;
	*h -= *h % o->unit_rows;
}

void ob_bake_tile(const struct ob_bake *b, const struct ob_scratch_layout *layout, float *scratch,
		  struct ob_bake_result *r)
{
	const struct ob_out *o = &b->plan->out[b->tile->out];
	struct job j = { .b = b,
			 .o = o,
			 .w = scratch + layout->weights,
			 .edits = scratch + layout->edits,
			 .codec = scratch + layout->codec };
	float *before = scratch + layout->sample;
	*r = (struct ob_bake_result){ 0 };
	if (b->tile->piece < o->n_pieces) {
		j.piece = &o->piece[b->tile->piece];
		for (uint32_t i = 0; i < b->tile->piece; i++)
			j.piece_row += o->piece[i].n_rows;
	}
	uint32_t limit = ob_codec_overflow_bits(&o->enc);
	uint64_t n = b->tile->e1 - b->tile->e0, row0 = b->tile->e0 / o->cols,
		 col0 = b->tile->e0 % o->cols;
	uint64_t cols = ob_min_u64(o->cols, n), rows = n / cols, w, h;
	bool is_first = o->n_edits > 0 && j.piece && !b->tile->measure;
	bool drops_factors = ob_edits_bytes(o->edit, o->n_edits) > b->kept_factors;
	rect_size(&j, cols, &w, &h);
	for (uint64_t y = 0; y < rows; y += h)
		for (uint64_t x = 0; x < cols; x += w) {
			struct ob_rect at = {
				.row = row0 + y,
				.col = col0 + x,
				.rows = (uint32_t)ob_min_u64(h, rows - y),
				.cols = (uint32_t)ob_min_u64(w, cols - x),
			};
			size_t size = (size_t)at.rows * at.cols;
			decode(&j, &at);
			if (is_first)
				memcpy(before, j.w,
				       (size_t)sample_rows(&j, &at) * at.cols * sizeof(float));
			if (o->n_edits)
				ob_edits_apply(o->edit, o->n_edits, at, drops_factors, j.w, at.cols,
					       j.edits);
			if (ob_kernels()->max_abs_bits(j.w, size) >= limit)
				r->nonfinite = true;
			if (b->tile->measure) {
				measure(&j, &at);
				continue;
			}
			if (is_first && !r->nonfinite && sample_rows(&j, &at))
				sample(&j, &at, before, scratch + layout->encoded, &r->effect);
			is_first = false;
			encode(&j, &at);
		}
}
