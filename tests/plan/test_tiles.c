/* SPDX-License-Identifier: Apache-2.0 */
/* Every element of every output is in exactly one tile, and every tile fits a slot. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "../laws/flat_codec.h"
#include "../support/world.h"
#include "base/num.h"
#include "io/io.h"
#include "plan/internal.h"

static struct world w;

static void init(void)
{
	world_begin(&w);
}

static void fini(void)
{
	world_end(&w);
}

TestSuite(tiles, .init = init, .fini = fini);

/* ---- laws ---------------------------------------------------------------------------------- */

static uint64_t in_slot(uint64_t off, uint64_t len)
{
	return ob_round_up(off % OB_IO_ALIGN + len, OB_IO_ALIGN);
}

static void check_slots(const struct ob_plan *p, const struct ob_tile *t)
{
	const struct ob_out *o = &p->out[t->out];
	struct ob_tile_input in;
	uint64_t bytes = 0;

	ob_tile_input(p, t, &in);
	for (unsigned k = 0; in.tensor && k < in.tensor->n_parts; k++)
		for (unsigned i = 0; i < in.n_ranges[k]; i++) {
			const struct ob_range *r = &in.range[k * OB_MAX_RANGES + i];

			cr_assert(ob_in_file(r->off, r->len, in.tensor->part[k]->len),
				  "%s reads outside its part", o->name);
			bytes += in_slot(in.tensor->part[k]->off + r->off, r->len);
		}
	cr_assert_leq(bytes, p->slot_bytes, "the input of a tile of %s fits no slot", o->name);
	bytes = 0;
	for (unsigned k = 0; k < o->part.n && !o->copy; k++) {
		struct ob_range r[OB_MAX_RANGES];
		unsigned n = o->enc.codec->ranges(&o->enc, &o->shape, k,
						  (struct ob_elems){ t->e0, t->e1 }, r);

		for (unsigned i = 0; i < n; i++)
			bytes += in_slot(o->part_off[k] + r[i].off, r[i].len);
	}
	cr_assert_leq(bytes, p->slot_bytes, "the output of a tile of %s fits no slot", o->name);
}

/* Do the pieces of the output cover what the tile covers? */
static void check_piece(const struct ob_out *o, const struct ob_tile *t)
{
	uint64_t first = 0;

	if (!o->n_pieces)
		return;
	for (uint32_t i = 0; i < t->piece; i++)
		first += o->piece[i].n_rows;
	cr_assert_geq(t->e0, first * o->cols);
	cr_assert_leq(t->e1, (first + o->piece[t->piece].n_rows) * o->cols);
}

/* Does the tile read every source row that it needs? */
static void check_rows(const struct ob_plan *p, const struct ob_tile *t)
{
	const struct ob_out *o = &p->out[t->out];
	struct ob_tile_input in;
	uint64_t first = 0;

	ob_tile_input(p, t, &in);
	for (uint32_t i = 0; i < t->piece; i++)
		first += o->piece[i].n_rows;
	for (uint64_t e = t->e0; in.tensor && e < t->e1; e += o->cols - e % o->cols) {
		uint64_t row = world_source_row(&o->piece[t->piece], e / o->cols - first);
		uint64_t src = row * o->cols + e % o->cols;
		uint64_t n = ob_min_u64(o->cols - e % o->cols, t->e1 - e);

		cr_assert_eq(ob_piece_row(&o->piece[t->piece], e / o->cols - first), row);
		cr_assert(src >= in.elems.e0 && src + n <= in.elems.e1, "%s: row %llu is not read",
			  o->name, (unsigned long long)row);
	}
}

/* Tiles of one pass over an output, from p->tile[*at] on. */
static void check_pass(const struct ob_plan *p, uint32_t out, bool measure, size_t *at)
{
	const struct ob_out *o = &p->out[out];
	uint64_t pos = 0;

	for (unsigned k = 0; k < (o->copy ? o->part.n : 1); k++) {
		uint64_t end = o->copy ? o->part.part[k].len : o->rows * o->cols;

		for (pos = 0; pos < end; (*at)++) {
			const struct ob_tile *t = &p->tile[*at];

			cr_assert_lt(*at, p->n_tiles, "%s is not covered", o->name);
			cr_assert(t->out == out && t->measure == measure && t->part == k);
			cr_assert_eq(t->e0, pos, "%s: a tile begins at %llu instead of %llu",
				     o->name, (unsigned long long)t->e0, (unsigned long long)pos);
			cr_assert(t->e1 > t->e0 && t->e1 <= end);
			check_slots(p, t);
			if (o->copy) {
				/* Direct writes want borders on blocks of the file. */
				cr_assert(t->e1 == end ||
					  (o->part_off[k] + t->e1) % OB_IO_ALIGN == 0);
			} else {
				/* Whole rows, or a piece of one. */
				cr_assert(t->e0 / o->cols == (t->e1 - 1) / o->cols ||
					  (t->e0 % o->cols == 0 && t->e1 % o->cols == 0));
				cr_assert_eq(t->e0 % o->cols % (o->unit_cols ? o->unit_cols : 1),
					     0);
				check_piece(o, t);
				check_rows(p, t);
			}
			pos = t->e1;
		}
	}
}

static void check_plan(const struct ob_plan *p)
{
	size_t at = 0;

	for (uint32_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];

		cr_assert_eq(o->first_tile, at);
		if (o->two_pass && o->rows)
			check_pass(p, i, true, &at);
		check_pass(p, i, false, &at);
		cr_assert_eq(o->n_tiles, at - o->first_tile);
	}
	cr_assert_eq(at, p->n_tiles);
}

static void check_built(void)
{
	struct ob_plan *p = world_plan(&w);

	check_plan(p);
	ob_plan_free(p);
}

/* ---- shapes -------------------------------------------------------------------------------- */

static const struct {
	uint32_t rank;
	uint64_t dim[3];
} shapes[] = {
	{ 0, { 0 } },
	{ 1, { 1 } },
	{ 1, { 5000001 } },
	{ 2, { 1, 1 } },
	{ 2, { 1, 4096 } },
	{ 2, { 1, 7340033 } }, /* one row, wider than three tiles */
	{ 2, { 6000000, 1 } }, /* one column */
	{ 2, { 3, 2097153 } }, /* one more than a tile */
	{ 2, { 4097, 4095 } },
	{ 2, { 32000, 4096 } },
	{ 2, { 0, 77 } },
	{ 2, { 77, 0 } },
	{ 2, { 33, 65537 } },
	{ 3, { 8, 1000, 1001 } },
	{ 3, { 1000000, 3, 7 } },
	{ 3, { 2, 3, 5000000 } },
	{ 1, { 3000000000 } },
	{ 2, { 2, 1500000000 } },
};
#define N_SHAPES (sizeof(shapes) / sizeof(*shapes))

static char name[N_SHAPES][16];

static void add_shapes(enum ob_dtype t)
{
	for (unsigned i = 0; i < N_SHAPES; i++) {
		snprintf(name[i], sizeof(name[i]), "t%u", i);
		w.pad = i * 1234567 % 8191;
		world_tensor(&w, name[i], world_float(t), shapes[i].rank, shapes[i].dim);
	}
}

Test(tiles, copies_are_cut_by_bytes)
{
	add_shapes(OB_BF16);
	check_built();
	w.recipe.max_shard = 1000000;
	check_built();
}

Test(tiles, conversions_are_cut_by_rows)
{
	add_shapes(OB_BF16);
	w.recipe.dtype = OB_F32;
	check_built();
	w.recipe.dtype = OB_F16;
	check_built();
}

Test(tiles, wide_inputs)
{
	add_shapes(OB_F64);
	w.recipe.dtype = OB_F16;
	check_built();
}

Test(tiles, quantized_in_and_out)
{
	static const unsigned bits[] = { 2, 3, 4, 5, 6, 8 }, groups[] = { 32, 64, 128 };
	static const uint64_t dims[][3] = {
		{ 1, 1, 128 },	    { 1, 4096, 11008 }, { 1, 3, 6400000 },
		{ 1, 100000, 128 }, { 8, 1408, 2048 },
	};

	for (unsigned b = 0; b < 6; b++)
		for (unsigned g = 0; g < 3; g++) {
			world_end(&w);
			world_begin(&w);
			w.pad = 8 * b + g;
			for (unsigned i = 0; i < 5; i++) {
				snprintf(name[i], sizeof(name[i]), "t%u.weight", i);
				world_tensor(&w, name[i], world_mlx(bits[b], groups[g], OB_F32),
					     i == 4 ? 3 : 2, dims[i] + (i != 4));
			}
			check_built();
			w.recipe.quant = OB_QUANT_NONE;
			check_built();
			w.recipe.quant = OB_QUANT_TO;
			w.recipe.to = world_mlx(bits[5 - b], groups[2 - g], OB_N_DTYPES);
			check_built();
		}
}

/* The matrix of an edit need not be that of the shape: a convolution [64, 3, 3, 3] as [64, 27]. */
Test(tiles, the_view_of_an_edit_counts)
{
	const uint64_t dim[] = { 4000, 512, 3 };
	struct ob_plan *p;
	uint32_t t = world_tensor(&w, "conv.weight", world_float(OB_BF16), 3, dim);

	world_lowrank(&w, t, 4, 1);
	w.of[t].rows = 4000 * 512;
	w.of[t].cols = 3;
	w.of[t].edit[0].n_rows = 4000 * 512;
	w.of[t].edit[0].n_cols = 3;
	p = world_plan(&w);
	cr_assert_eq(p->out[0].cols, 3);
	check_plan(p);
	ob_plan_free(p);
}

Test(tiles, nothing_is_read_for_what_is_replaced)
{
	struct ob_plan *p;
	struct ob_tile_input in;
	uint32_t t = world_matrix(&w, "a.weight", world_float(OB_BF16), 3000, 2048);

	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_REPLACE,
				     .b = world_factor(&w, OB_F32, 3000, 2048, false) });
	p = world_plan(&w);
	cr_assert_eq(p->in_bytes, 0);
	cr_assert_gt(p->n_tiles, 1);
	for (size_t i = 0; i < p->n_tiles; i++) {
		ob_tile_input(p, &p->tile[i], &in);
		cr_assert_null(in.tensor);
	}
	ob_plan_free(p);
}

/* ---- pieces -------------------------------------------------------------------------------- */

static void finish(struct ob_plan *p)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_layout_files(p, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_make_tiles(p, &e), 0, "%s", e.msg);
	check_plan(p);
	ob_plan_free(p);
}

/* A piece reads a permutation of its rows: each once. */
Test(tiles, row_maps_are_permutations)
{
	static const struct ob_rowmap maps[] = {
		{ 0, 0, 0 },  { 1, 1, 1 },  { 128, 2, 1 }, { 128, 64, 1 }, { 64, 64, 1 },
		{ 64, 1, 1 }, { 96, 3, 1 }, { 1, 1, 2 },   { 4, 2, 3 },
	};

	for (unsigned i = 0; i < sizeof(maps) / sizeof(*maps); i++) {
		struct ob_piece pc = { .src_row = 5, .n_rows = 768, .map = maps[i] };
		uint64_t stride = maps[i].block ? maps[i].stride : 1;
		char seen[768 * 3] = { 0 };

		for (uint64_t r = 0; r < pc.n_rows; r++) {
			uint64_t s = ob_piece_row(&pc, r);

			cr_assert_eq(s, world_source_row(&pc, r));
			cr_assert(s >= 5 && (s - 5) % stride == 0 && s - 5 < 768 * stride);
			cr_assert_eq(seen[s - 5]++, 0, "map %u reads row %llu twice", i,
				     (unsigned long long)s);
		}
	}
}

/* llama's rotary halves: output row 2 i + h of a head is source row h * 64 + i. */
Test(tiles, a_row_map_turns_halves_into_pairs)
{
	struct ob_piece pc = { .n_rows = 256, .map = { 128, 2, 1 } };

	for (uint64_t i = 0; i < 64; i++)
		for (uint64_t h = 0; h < 2; h++) {
			cr_assert_eq(ob_piece_row(&pc, 2 * i + h), h * 64 + i);
			cr_assert_eq(ob_piece_row(&pc, 128 + 2 * i + h), 128 + h * 64 + i);
		}
}

Test(tiles, assemblies_are_cut_at_their_pieces)
{
	struct ob_plan *p = world_plan_begin(&w);
	const struct ob_rowmap none = { 0 }, heads = { 128, 2, 1 }, second = { 1, 1, 2 };
	uint32_t a = world_matrix(&w, "a", world_float(OB_BF16), 5120, 4096);
	uint32_t b = world_matrix(&w, "b", world_float(OB_F32), 3001, 4096);
	uint32_t c = world_matrix(&w, "c", world_mlx(3, 64, OB_BF16), 700, 4096);
	struct ob_out *o =
		world_out(&w, p, "joined", world_float(OB_F16), 5120 + 3000 + 700 + 1500, 4096);

	world_piece(&w, o, a, 0, 5120, heads);
	world_piece(&w, o, b, 1, 3000, none);
	world_piece(&w, o, c, 0, 700, none);
	world_piece(&w, o, b, 1, 1500, second);
	o = world_out(&w, p, "quantized", world_mlx(4, 64, OB_F16), 2560, 4096);
	world_piece(&w, o, a, 1, 2560, second);
	/* A tile would be 1344 rows, but for the blocks. */
	uint32_t d = world_matrix(&w, "d", world_float(OB_BF16), 5120, 1536);
	o = world_out(&w, p, "permuted", world_float(OB_BF16), 5120, 1536);
	world_piece(&w, o, d, 0, 5120, heads);
	finish(p);
}

Test(tiles, permuted_rows_may_be_wider_than_a_tile)
{
	struct ob_plan *p = world_plan_begin(&w);
	uint32_t a = world_matrix(&w, "a", world_float(OB_BF16), 4, 5000000);
	struct ob_out *o = world_out(&w, p, "b", world_float(OB_F32), 4, 5000000);

	world_piece(&w, o, a, 0, 4, (struct ob_rowmap){ 4, 2, 1 });
	finish(p);
}

Test(tiles, two_passes_have_the_same_tiles)
{
	const struct ob_encoding flat = { .codec = &ob_codec_flat, .dtype = OB_BF16 };
	static const uint64_t dims[][2] = {
		{ 9000, 2048 }, { 70000, 100 }, { 3, 7 }, { 2, 64 * 70001 }
	};
	struct ob_plan *p = world_plan_begin(&w);
	ob_err e = { 0 };

	for (unsigned i = 0; i < 4; i++) {
		uint32_t t =
			world_matrix(&w, "source", world_float(OB_F32), dims[i][0], dims[i][1]);
		struct ob_out *o = world_out(&w, p, "t.weight", flat, dims[i][0], dims[i][1]);

		world_piece(&w, o, t, 0, dims[i][0], (struct ob_rowmap){ 0 });
	}
	cr_assert(!ob_layout_files(p, &e) && !ob_make_tiles(p, &e), "%s", e.msg);
	check_plan(p);
	cr_assert_eq(p->read_bytes, 2 * p->in_bytes);
	for (uint32_t i = 0; i < 4; i++) {
		const struct ob_out *o = &p->out[i];
		const struct ob_tile *t = &p->tile[o->first_tile];

		cr_assert_eq(o->n_tiles % 2, 0);
		for (uint32_t k = 0; k < o->n_tiles / 2; k++)
			cr_assert(t[k].e0 == t[k + o->n_tiles / 2].e0 &&
				  t[k].e1 == t[k + o->n_tiles / 2].e1);
	}
	ob_plan_free(p);
}

Test(tiles, what_cannot_be_cut_is_refused)
{
	/* 64 rows of a block format that is no multiple of 64 wide belong together. */
	const struct ob_encoding flat = { .codec = &ob_codec_flat, .dtype = OB_BF16 };
	struct ob_plan *p = world_plan_begin(&w);
	uint32_t t = world_matrix(&w, "source", world_float(OB_F32), 64, 100001);
	struct ob_out *o = world_out(&w, p, "t.weight", flat, 64, 100001);
	ob_err e = { 0 };

	world_piece(&w, o, t, 0, 64, (struct ob_rowmap){ 0 });
	cr_assert(!ob_layout_files(p, &e));
	cr_assert_eq(ob_make_tiles(p, &e), -1);
	cr_assert_eq(e.code, OB_UNSUPPORTED, "%s", e.msg);
	cr_assert(strstr(e.msg, "t.weight"), "%s", e.msg);
	ob_plan_free(p);
}

/* The cut follows from tensors and formats: the rest of the model changes nothing. */
Test(tiles, do_not_depend_on_neighbours)
{
	struct ob_tile alone[8];
	struct ob_plan *p;
	size_t n;

	world_matrix(&w, "a", world_float(OB_F32), 2000, 2048);
	w.recipe.dtype = OB_F16;
	p = world_plan(&w);
	n = p->n_tiles;
	cr_assert_leq(n, 8);
	memcpy(alone, p->tile, n * sizeof(*alone));
	ob_plan_free(p);
	world_matrix(&w, "b", world_float(OB_F32), 100, 100);
	world_lowrank(&w, 1, 300, 1);
	p = world_plan(&w);
	for (size_t i = 0; i < n; i++)
		cr_assert(p->tile[i].e0 == alone[i].e0 && p->tile[i].e1 == alone[i].e1);
	ob_plan_free(p);
}
