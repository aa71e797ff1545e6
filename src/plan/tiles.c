/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles: how each output tensor is cut. A tile is whole rows, or a piece of one row where a row is
 * wider than a tile; its input and its output each fit one slot. The cut depends on the tensor and its
 * formats alone, never on threads or memory.
 */
#include "base/num.h"
#include "io/io.h"
#include "plan/internal.h"

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t t = a % b;
		a = b;
		b = t;
	}
	return a;
}

static uint64_t lcm(uint64_t a, uint64_t b)
{
	OB_KNOWN(a && b);
	return a / gcd(a, b) * b;
}

uint64_t ob_piece_row(const struct ob_piece *p, uint64_t i)
{
	const struct ob_rowmap *m = &p->map;
	if (!m->block)
		return p->src_row + i;
	uint64_t in_block = i % m->block, b = m->block / m->a;
	return p->src_row + m->stride * (i - in_block + in_block % m->a * b + in_block / m->a);
}

/* First and last source row of output rows [r0, r1) of a piece, which are whole blocks if it permutes. */
static void source_rows(const struct ob_piece *p, uint64_t r0, uint64_t r1, uint64_t *s0,
			uint64_t *s1)
{
	if (!p->map.block) {
		*s0 = p->src_row + r0;
		*s1 = p->src_row + r1;
		return;
	}
	*s0 = p->src_row + p->map.stride * r0;
	*s1 = p->src_row + p->map.stride * (r1 - 1) + 1;
}

static uint64_t piece_first_row(const struct ob_out *o, uint32_t piece)
{
	uint64_t row = 0;
	for (uint32_t i = 0; i < piece; i++)
		row += o->piece[i].n_rows;
	return row;
}

void ob_tile_input(const struct ob_plan *p, const struct ob_tile *t, struct ob_tile_input *in)
{
	const struct ob_out *o = &p->out[t->out];
	*in = (struct ob_tile_input){ 0 };
	if (t->piece >= o->n_pieces)
		return;
	const struct ob_piece *pc = &o->piece[t->piece];
	const struct ob_tensor *src = &p->model->tensor[pc->tensor];
	in->tensor = src;
	if (o->copy) {
		in->n_ranges[t->part] = 1;
		in->range[t->part * OB_MAX_RANGES] = (struct ob_range){ t->e0, t->e1 - t->e0 };
		return;
	}
	uint64_t first = piece_first_row(o, t->piece), s0, s1;
	uint64_t r0 = t->e0 / o->cols, col = t->e0 % o->cols;
	if (col || t->e1 - t->e0 < o->cols) {
		uint64_t row = ob_piece_row(pc, r0 - first);
		in->elems = (struct ob_elems){ row * o->cols + col,
					       row * o->cols + col + (t->e1 - t->e0) };
	} else {
		source_rows(pc, r0 - first, t->e1 / o->cols - first, &s0, &s1);
		uint32_t g_rows, g_cols;
		src->enc.codec->granularity(&src->enc, &src->shape, &g_rows, &g_cols);
		uint64_t rows, cols;
		ob_codec_rows(&src->enc, &src->shape, &rows, &cols);
		/* Whole units of the source's own rows; the views agree unless an edit chose its own. */
		uint64_t unit = cols == o->cols ? g_rows : 1;
		uint64_t end = ob_min_u64(ob_div_up(s1, unit) * unit, rows * cols / o->cols);
		in->elems = (struct ob_elems){ s0 / unit * unit * o->cols, end * o->cols };
	}
	for (unsigned k = 0; k < src->n_parts; k++) {
		struct ob_range *r = in->range + k * OB_MAX_RANGES;
		in->n_ranges[k] = src->enc.codec->ranges(&src->enc, &src->shape, k, in->elems, r);
		if (src->whole >> k & 1)
			r[0].len = src->part[k]->len;
	}
}

/* Whole blocks, since slots begin at blocks. */
static uint64_t padded(uint64_t len)
{
	return ob_round_up(len, OB_IO_ALIGN) + 2 * OB_IO_ALIGN;
}

/* Bytes of a slot for the input of a tile and of one for its output. */
static uint64_t slot_need(const struct ob_plan *p, const struct ob_tile *t)
{
	const struct ob_out *o = &p->out[t->out];
	struct ob_tile_input in;
	ob_tile_input(p, t, &in);
	uint64_t need_in = 0, need_out = 0;
	for (unsigned k = 0; in.tensor && k < in.tensor->n_parts; k++)
		for (unsigned i = 0; i < in.n_ranges[k]; i++)
			need_in += padded(in.range[k * OB_MAX_RANGES + i].len);
	for (unsigned k = 0; k < o->part.n; k++) {
		struct ob_range r[OB_MAX_RANGES];
		unsigned n = o->enc.codec->ranges(&o->enc, &o->shape, k,
						  (struct ob_elems){ t->e0, t->e1 }, r);
		for (unsigned i = 0; i < n; i++)
			need_out += padded(r[i].len);
	}
	return ob_max_u64(need_in, need_out);
}

_Static_assert(OB_UNIT_ROWS <= OB_RECT_ROWS && OB_UNIT_ELEMS <= OB_RECT_ELEMS,
	       "what a format accepts can be computed");

struct grid {
	uint64_t rows;	    /* rows of a tile; 0: pieces of a row */
	uint64_t cols;	    /* columns of a piece of a row */
	uint64_t unit_rows; /* of the formats and of the row maps */
};

/* Elements of a tile: 2 bytes each, or less where a format takes more. A row map with a stride reads
 * what it leaves out. */
static uint64_t tile_elems(const struct ob_plan *p, const struct ob_out *o)
{
	uint64_t most = ob_max_u64(2, ob_div_up(o->out_bytes, o->rows * o->cols));
	for (uint32_t i = 0; i < o->n_pieces; i++) {
		const struct ob_tensor *src = &p->model->tensor[o->piece[i].tensor];
		uint64_t bytes = 0, rows, cols;
		for (unsigned k = 0; k < src->n_parts; k++)
			bytes += src->part[k]->len;
		ob_codec_rows(&src->enc, &src->shape, &rows, &cols);
		bytes = ob_div_up(bytes, rows * cols);
		most = ob_max_u64(most,
				  o->piece[i].map.block ? bytes * o->piece[i].map.stride : bytes);
	}
	return OB_TILE_ELEMS * 2 / most;
}

static int find_units(const struct ob_plan *p, struct ob_out *o, struct grid *g, ob_err *e)
{
	o->enc.codec->granularity(&o->enc, &o->shape, &o->unit_rows, &o->unit_cols);
	g->unit_rows = 1;
	for (uint32_t i = 0; i < o->n_pieces; i++) {
		const struct ob_tensor *src = &p->model->tensor[o->piece[i].tensor];
		uint32_t r, c;
		src->enc.codec->granularity(&src->enc, &src->shape, &r, &c);
		o->unit_rows = (uint32_t)lcm(o->unit_rows, r);
		o->unit_cols = c && o->unit_cols ? (uint32_t)lcm(o->unit_cols, c) : 0;
		if (o->piece[i].map.block)
			g->unit_rows = lcm(g->unit_rows, o->piece[i].map.block);
	}
	/* All rows are a unit of any format. */
	if (o->n_pieces == 1 && o->unit_rows > o->rows)
		o->unit_rows = (uint32_t)o->rows;
	g->unit_rows = lcm(g->unit_rows, o->unit_rows);
	if (o->unit_rows > OB_RECT_ROWS ||
	    (ob_out_splits_rows(o) ? o->unit_cols : o->unit_rows * o->cols) > OB_RECT_ELEMS)
		return ob_fail(
			e, OB_UNSUPPORTED,
			"%s cannot be cut: its format computes on %u rows of %llu columns at a time, which is more than %u values",
			o->name, o->unit_rows, (unsigned long long)o->cols, OB_RECT_ELEMS);
	return 0;
}

static void take_slot(struct ob_plan *p, uint64_t need)
{
	p->slot_bytes = ob_max_u64(p->slot_bytes, need);
}

/* Do all pieces fit? The first tile of each is as large as any. */
static int check_grid(struct ob_plan *p, uint32_t out, const struct grid *g, ob_err *e)
{
	const struct ob_out *o = &p->out[out];
	uint64_t row = 0;
	for (uint32_t i = 0; i == 0 || i < o->n_pieces; i++) {
		uint64_t n = o->n_pieces ? o->piece[i].n_rows : o->rows;
		struct ob_tile t = { .out = out, .piece = i, .e0 = row * o->cols };
		t.e1 = t.e0 +
		       (g->rows ? ob_min_u64(g->rows, n) * o->cols : ob_min_u64(g->cols, o->cols));
		uint64_t need = slot_need(p, &t);
		if (need > OB_SLOT_BYTES)
			return ob_fail(
				e, OB_UNSUPPORTED,
				"%s cannot be cut: %llu rows of %llu columns belong together in its format, which is more than a tile of %u bytes",
				o->name, (unsigned long long)g->unit_rows,
				(unsigned long long)o->cols, OB_TILE_BYTES);
		take_slot(p, need);
		row += n;
	}
	return 0;
}

static int find_grid(struct ob_plan *p, uint32_t out, struct grid *g, ob_err *e)
{
	struct ob_out *o = &p->out[out];
	if (find_units(p, o, g, e))
		return -1;
	uint64_t most = tile_elems(p, o);
	OB_KNOWN(o->cols);
	g->cols = o->cols;
	g->rows = most / o->cols;
	if (g->rows > 32)
		g->rows -= g->rows % 32;
	if (g->rows >= g->unit_rows) {
		g->rows -= g->rows % g->unit_rows;
	} else if (g->rows >= 1 || !ob_out_splits_rows(o)) {
		g->rows = g->unit_rows;
	} else {
		uint64_t unit = lcm(o->unit_cols, OB_IO_ALIGN);
		if (unit > most)
			unit = o->unit_cols;
		g->rows = 0;
		g->cols = most / unit * unit;
		if (!g->cols)
			g->cols = unit;
	}
	return check_grid(p, out, g, e);
}

static int add_tile(struct ob_plan *p, size_t *cap, struct ob_tile t, ob_err *e)
{
	if (ob_grow(&p->tile, cap, p->n_tiles, sizeof(t), e))
		return -1;
	p->tile[p->n_tiles++] = t;
	return 0;
}

static int tile_copy(struct ob_plan *p, uint32_t out, size_t *cap, ob_err *e)
{
	const struct ob_out *o = &p->out[out];
	for (unsigned k = 0; k < o->part.n; k++) {
		uint64_t len = o->part.part[k].len, off = o->part_off[k];
		for (uint64_t b = 0; b < len;) {
			/* Borders fall on whole blocks of the output file. */
			uint64_t end = ob_round_down(off + b + OB_TILE_BYTES, OB_IO_ALIGN) - off;
			end = ob_min_u64(end, len);
			take_slot(p, padded(end - b));
			if (add_tile(p, cap,
				     (struct ob_tile){
					     .out = out, .part = (uint8_t)k, .e0 = b, .e1 = end },
				     e))
				return -1;
			b = end;
		}
	}
	return 0;
}

static int tile_rows(struct ob_plan *p, uint32_t out, const struct grid *g, bool measure,
		     size_t *cap, ob_err *e)
{
	const struct ob_out *o = &p->out[out];
	uint64_t row = 0;
	/* A tensor that is replaced as a whole has no piece: one run of rows all the same. */
	for (uint32_t i = 0; i == 0 || i < o->n_pieces; i++) {
		uint64_t end = o->n_pieces ? row + o->piece[i].n_rows : o->rows;
		/* Rows behind the last piece (a vocabulary that grew) come from a replacement. */
		if (i + 1 >= o->n_pieces && end < o->rows && o->n_pieces)
			return ob_fail(e, OB_INTERNAL, "%s has rows that no piece fills", o->name);
		while (row < end) {
			struct ob_tile t = { .out = out, .piece = i, .measure = measure };
			if (g->rows) {
				uint64_t r1 = ob_min_u64(row + g->rows, end);
				t.e0 = row * o->cols;
				t.e1 = r1 * o->cols;
				if (add_tile(p, cap, t, e))
					return -1;
				row = r1;
				continue;
			}
			for (uint64_t c = 0; c < o->cols; c += g->cols) {
				t.e0 = row * o->cols + c;
				t.e1 = row * o->cols + ob_min_u64(c + g->cols, o->cols);
				if (add_tile(p, cap, t, e))
					return -1;
			}
			row++;
		}
	}
	return 0;
}

int ob_make_tiles(struct ob_plan *p, ob_err *e)
{
	size_t cap = 0;
	take_slot(p, padded(0)); /* a model may be empty */
	for (uint32_t i = 0; i < p->n_outs; i++) {
		struct ob_out *o = &p->out[i];
		struct grid g;
		o->first_tile = (uint32_t)p->n_tiles;
		if (o->copy) {
			if (tile_copy(p, i, &cap, e))
				return -1;
		} else if (o->rows && o->cols) {
			if (find_grid(p, i, &g, e))
				return -1;
			if (o->two_pass) {
				if (tile_rows(p, i, &g, true, &cap, e))
					return -1;
				p->read_bytes += o->in_bytes;
			}
			if (tile_rows(p, i, &g, false, &cap, e))
				return -1;
		}
		o->n_tiles = (uint32_t)(p->n_tiles - o->first_tile);
		p->in_bytes += o->in_bytes;
		p->read_bytes += o->in_bytes;
		if (p->n_tiles > UINT32_MAX)
			return ob_fail(e, OB_LIMIT, "the model needs more than 2^32 tiles");
	}
	return 0;
}

static uint64_t share(const struct ob_plan *p, const struct ob_tile *t, uint64_t bytes)
{
	const struct ob_out *o = &p->out[t->out];
	if (o->copy)
		return t->e1 - t->e0;
	return (uint64_t)((double)bytes *
			  ((double)(t->e1 - t->e0) / ((double)o->rows * (double)o->cols)));
}

uint64_t ob_tile_in_bytes(const struct ob_plan *p, const struct ob_tile *t)
{
	return share(p, t, p->out[t->out].in_bytes);
}

uint64_t ob_tile_out_bytes(const struct ob_plan *p, const struct ob_tile *t)
{
	return t->measure ? 0 : share(p, t, p->out[t->out].out_bytes);
}
