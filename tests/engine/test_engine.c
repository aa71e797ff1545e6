/* SPDX-License-Identifier: Apache-2.0 */
/* Runs plans over files and compares every byte with a computation that knows neither tiles nor
 * threads. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../laws/flat_codec.h"
#include "../support/world.h"
#include "kernels/gemm.h"
#include "plan/internal.h"

#define U32                                             \
	(struct ob_encoding)                            \
	{                                               \
		.codec = &ob_codec_raw, .dtype = OB_U32 \
	}
#define U8                                             \
	(struct ob_encoding)                           \
	{                                              \
		.codec = &ob_codec_raw, .dtype = OB_U8 \
	}
#define FLAT                                              \
	(struct ob_encoding)                              \
	{                                                 \
		.codec = &ob_codec_flat, .dtype = OB_BF16 \
	}

static struct world w;

static void init(void)
{
	world_begin(&w);
}

static void fini(void)
{
	world_end(&w);
}

TestSuite(engine, .init = init, .fini = fini);

/* ---- one plan on many machines ------------------------------------------------------------- */

static const struct setting {
	unsigned workers, slots;
	enum ob_io_kind io;
	bool no_direct;
} settings[] = {
	{ 1, 2, OB_IO_SYNC_ONLY, false }, { 1, 4, OB_IO_URING, false },
	{ 2, 4, OB_IO_THREADS, false },	  { 3, 7, OB_IO_URING, true },
	{ 4, 20, OB_IO_URING, false },	  { 4, 24, OB_IO_THREADS, true },
	{ 2, 5, OB_IO_SYNC_ONLY, true },  { 4, 13, OB_IO_SYNC_ONLY, false },
};
#define N_SETTINGS (sizeof(settings) / sizeof(*settings))

static bool io_is_missing(enum ob_io_kind kind)
{
	char notice[256];
	struct ob_io *io;
	ob_err e = { 0 };

	if (ob_io_open(&io, kind, 1, notice, sizeof(notice), &e))
		return true;
	io->ops->close(io);
	return false;
}

static uint64_t bytes_to_read(const struct ob_plan *p)
{
	struct ob_tile_input in;
	uint64_t sum = 0;

	for (size_t i = 0; i < p->n_tiles; i++) {
		ob_tile_input(p, &p->tile[i], &in);
		for (unsigned k = 0; in.tensor && k < in.tensor->n_parts; k++)
			for (unsigned r = 0; r < in.n_ranges[k]; r++)
				sum += in.range[k * OB_MAX_RANGES + r].len;
	}
	return sum;
}

/* Same bytes, same measurements and whole accounts wherever the plan runs. */
static void run_everywhere(const struct ob_plan *p)
{
	struct world_bytes *want = world_expect(&w, p);
	struct ob_effect first[WORLD_TENSORS] = { 0 };

	for (size_t i = 0; i < N_SETTINGS; i++) {
		const struct setting *s = &settings[i];
		struct ob_effect effect[WORLD_TENSORS] = { 0 };
		struct ob_run run = { .io = s->io, .no_direct = s->no_direct, .effect = effect };
		uint64_t sealed = ob_alloc_sealed_calls();
		ob_err e = { 0 };
		char what[32];

		if (io_is_missing(s->io))
			continue;
		snprintf(what, sizeof(what), "setting %zu", i);
		cr_assert_eq(world_run(&w, p, &run, s->workers, s->slots, &e), 0, "%s: %s", what,
			     e.msg);
		world_compare(&w, p, want, what);
		cr_assert_eq(run.bytes_read, bytes_to_read(p), "%s", what);
		cr_assert_eq(ob_alloc_sealed_calls(), sealed, "%s allocates while it runs", what);
		for (size_t k = 0; k < p->n_outs; k++)
			if (p->out[k].unit_rows > 1)
				cr_assert_eq(effect[k].n % (p->out[k].unit_rows * p->out[k].cols),
					     0, "%s measures parts of blocks", what);
		if (i == 0)
			memcpy(first, effect, sizeof(first));
		cr_assert_arr_eq(first, effect, sizeof(first), "%s measures differently", what);
	}
	world_bytes_free(p, want);
}

static void run_built(void)
{
	struct ob_plan *p = world_plan(&w);

	run_everywhere(p);
	ob_plan_free(p);
}

static void run_hand_made(struct ob_plan *p)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_layout_files(p, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_make_tiles(p, &e), 0, "%s", e.msg);
	run_everywhere(p);
	ob_plan_free(p);
}

static void need_gemm(void)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_gemm_init(&e), 0, "%s", e.msg);
}

/* ---- copies -------------------------------------------------------------------------------- */

Test(engine, copies_whatever_the_skew)
{
	static const uint64_t lengths[] = { 1,	  2,	 3,	4095,  4096,   4097,
					    8192, 12289, 70000, 65536, 131072, 200001 };
	char name[WORLD_TENSORS][16];

	for (unsigned i = 0; i < 48; i++) {
		snprintf(name[i], sizeof(name[i]), "t%u", i);
		w.pad = i * 331 % 4096;
		w.place = i % 2;
		world_matrix(&w, name[i], U8, 0, lengths[i % 12] + i / 12);
	}
	w.pad = 13;
	world_matrix(&w, "large", U8, 3, 4300001); /* several tiles, all skewed */
	w.pad = 0;
	world_matrix(&w, "scalar", world_float(OB_F64), 0, 1);
	world_matrix(&w, "empty", world_float(OB_F32), 7, 0);
	w.recipe.max_shard = 2000000;
	world_commit(&w);
	run_built();
}

/* Whole blocks go around the page cache; one byte before or behind them must not be lost. */
Test(engine, copies_single_bytes_beside_whole_blocks)
{
	world_matrix(&w, "ends_with_one", U8, 0, 65536 + 1);
	world_matrix(&w, "between", U8, 0, 65536 - 2);
	world_matrix(&w, "begins_with_one", U8, 0, 1 + 65536);
	w.pad = 4095;
	world_matrix(&w, "both", U8, 0, 65536 + 1);
	world_commit(&w);
	run_built();
}

Test(engine, copies_a_quantized_tensor_part_by_part)
{
	w.pad = 5;
	world_matrix(&w, "a.weight", world_mlx(4, 64, OB_BF16), 700, 16384);
	w.place = 1;
	world_matrix(&w, "b.weight", world_mlx(3, 32, OB_F16), 96, 320);
	world_commit(&w);
	run_built();
}

/* ---- conversions --------------------------------------------------------------------------- */

Test(engine, converts_float_types)
{
	world_matrix(&w, "f32", world_float(OB_F32), 777, 3001);
	w.pad = 2;
	world_matrix(&w, "f16", world_float(OB_F16), 0, 9999);
	world_matrix(&w, "bf16", world_float(OB_BF16), 2050, 1024);
	world_matrix(&w, "raw", U32, 3, 5);
	world_matrix(&w, "empty", world_float(OB_F32), 0, 0);
	w.recipe.dtype = OB_F16;
	world_commit(&w);
	run_built();
}

Test(engine, dequantizes)
{
	w.pad = 3;
	world_matrix(&w, "a.weight", world_mlx(5, 64, OB_BF16), 900, 4096);
	world_matrix(&w, "b.weight", world_mlx(8, 32, OB_F32), 33, 96);
	w.recipe.quant = OB_QUANT_NONE;
	world_commit(&w);
	run_built();
}

Test(engine, quantizes)
{
	w.pad = 1;
	world_matrix(&w, "a.weight", world_float(OB_BF16), 1200, 4096);
	world_matrix(&w, "b.weight", world_float(OB_F32), 50, 640);
	world_matrix(&w, "c.weight", world_mlx(8, 64, OB_F16), 100, 640);
	world_matrix(&w, "norm.weight", world_float(OB_BF16), 0, 640);
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = world_mlx(4, 64, OB_N_DTYPES);
	world_commit(&w);
	run_built();
}

Test(engine, cuts_rows_that_are_wider_than_a_tile)
{
	w.pad = 7;
	world_matrix(&w, "a.weight", world_float(OB_F32), 2, 2500000);
	world_matrix(&w, "b.weight", world_mlx(4, 32, OB_BF16), 1, 64 * 50001);
	world_matrix(&w, "c.weight", world_float(OB_BF16), 3, 64 * 40000);
	w.recipe.dtype = OB_F16;
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = world_mlx(6, 64, OB_N_DTYPES);
	world_commit(&w);
	run_built();
}

/* ---- edits --------------------------------------------------------------------------------- */

Test(engine, adds_low_rank_products)
{
	need_gemm();
	w.pad = 9;
	for (unsigned i = 0; i < 3; i++)
		world_lowrank(&w,
			      world_matrix(&w,
					   i == 0   ? "a.weight"
					   : i == 1 ? "b.weight"
						    : "c",
					   world_float(i == 2 ? OB_F32 : OB_BF16),
					   i == 1 ? 1100 : 65, i == 1 ? 2048 : 1003),
			      i == 2 ? 300 : 8, 0.75f);
	/* A second one on the same tensor, turned, and in a window. */
	world_edit(&w, 1,
		   (struct ob_edit){
			   .kind = OB_EDIT_LOWRANK,
			   .coeff = -2,
			   .row0 = 100,
			   .n_rows = 900,
			   .col0 = 1000,
			   .n_cols = 777,
			   .b = world_factor(&w, OB_F32, 900, 5, true),
			   .a = world_factor(&w, OB_F16, 5, 777, true),
		   });
	world_commit(&w);
	run_built();
}

Test(engine, applies_edits_in_their_order)
{
	static const uint64_t rows[] = { 7, 0, 1499, 800 };
	uint32_t t;

	need_gemm();
	t = world_matrix(&w, "a.weight", world_float(OB_BF16), 1500, 1500);
	world_lowrank(&w, t, 4, 1);
	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_REPLACE_ROWS,
				     .n_rows = 4,
				     .n_cols = 1500,
				     .index = rows,
				     .b = world_factor(&w, OB_F32, 4, 1500, false) });
	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_ADD,
				     .coeff = 0.5f,
				     .b = world_factor(&w, OB_BF16, 1500, 1500, false) });
	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_ADD,
				     .coeff = 3,
				     .row0 = 1,
				     .n_rows = 1,
				     .col0 = 1023,
				     .n_cols = 2,
				     .b = world_factor(&w, OB_F32, 1, 2, false) });
	t = world_matrix(&w, "bias", world_float(OB_F16), 0, 3000);
	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_ADD,
				     .coeff = 1,
				     .b = world_factor(&w, OB_F32, 1, 3000, false) });
	t = world_matrix(&w, "replaced.weight", world_float(OB_BF16), 1800, 1500);
	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_REPLACE,
				     .b = world_factor(&w, OB_F16, 1800, 1500, true) });
	world_lowrank(&w, t, 3, 1);
	world_commit(&w);
	run_built();
}

Test(engine, edits_what_is_quantized)
{
	uint32_t t;

	need_gemm();
	w.pad = 11;
	t = world_matrix(&w, "a.weight", world_mlx(4, 64, OB_BF16), 1100, 4096);
	world_lowrank(&w, t, 16, 2);
	t = world_matrix(&w, "b.weight", world_mlx(8, 32, OB_F32), 64, 3 * 4096 + 32);
	world_lowrank(&w, t, 3, 2);
	world_commit(&w);
	run_built();
}

Test(engine, edits_pieces_of_wide_rows)
{
	need_gemm();
	world_lowrank(&w, world_matrix(&w, "a.weight", world_float(OB_BF16), 3, 2400000), 2, 1);
	world_commit(&w);
	run_built();
}

Test(engine, resizes_what_is_replaced)
{
	static const uint64_t dim[] = { 900, 1024 };
	uint32_t t = world_matrix(&w, "embed.weight", world_float(OB_BF16), 500, 1024);

	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_REPLACE,
				     .n_rows = 900,
				     .n_cols = 1024,
				     .b = world_factor(&w, OB_BF16, 900, 1024, false) });
	w.of[t].rows = 900;
	w.of[t].shape = (struct ob_shape){ 2, dim };
	world_commit(&w);
	run_built();
}

/* ---- assemblies ---------------------------------------------------------------------------- */

static const struct ob_rowmap straight;

Test(engine, stacks_and_permutes_rows)
{
	struct ob_plan *p = world_plan_begin(&w);
	struct ob_rowmap heads = { .block = 128, .a = 2, .stride = 1 };
	struct ob_out *o;

	w.pad = 17;
	uint32_t q = world_matrix(&w, "q", world_float(OB_BF16), 1024, 1536);
	uint32_t k = world_matrix(&w, "k", world_float(OB_BF16), 256, 1536);
	w.place = 1;
	uint32_t v = world_matrix(&w, "v", world_float(OB_BF16), 300, 1536);

	o = world_out(&w, p, "q_permuted", world_float(OB_BF16), 1024, 1536);
	world_piece(&w, o, q, 0, 1024, heads);
	o = world_out(&w, p, "qkv", world_float(OB_F16), 1580, 1536);
	world_piece(&w, o, q, 0, 1024, heads);
	world_piece(&w, o, k, 0, 256, heads);
	world_piece(&w, o, v, 0, 300, straight);
	o = world_out(&w, p, "middle", world_mlx(4, 64, OB_BF16), 517, 1536);
	world_piece(&w, o, v, 100, 5, straight);
	world_piece(&w, o, q, 500, 512, straight);
	world_commit(&w);
	run_hand_made(p);
}

Test(engine, takes_rows_at_a_stride)
{
	struct ob_plan *p = world_plan_begin(&w);
	struct ob_rowmap every_second = { .block = 1, .a = 1, .stride = 2 };
	struct ob_out *o;

	uint32_t both = world_matrix(&w, "gate_up", world_float(OB_BF16), 3000, 2048);
	o = world_out(&w, p, "gate", world_float(OB_BF16), 1500, 2048);
	world_piece(&w, o, both, 0, 1500, every_second);
	o = world_out(&w, p, "up", world_float(OB_BF16), 1500, 2048);
	world_piece(&w, o, both, 1, 1500, every_second);
	/* Again as one, the halves behind each other. */
	o = world_out(&w, p, "stacked", world_mlx(8, 64, OB_F16), 3000, 2048);
	world_piece(&w, o, both, 0, 1500, every_second);
	world_piece(&w, o, both, 1, 1500, every_second);
	world_commit(&w);
	run_hand_made(p);
}

Test(engine, joins_pieces_of_different_formats)
{
	struct ob_plan *p = world_plan_begin(&w);
	struct ob_out *o;

	uint32_t wide = world_matrix(&w, "f32", world_float(OB_F32), 1000, 2048);
	uint32_t half = world_matrix(&w, "bf16", world_float(OB_BF16), 2000, 2048);
	uint32_t four = world_matrix(&w, "mlx", world_mlx(4, 32, OB_BF16), 1000, 2048);
	o = world_out(&w, p, "narrow_first", world_float(OB_BF16), 4000, 2048);
	world_piece(&w, o, four, 0, 1000, straight);
	world_piece(&w, o, half, 0, 2000, straight);
	world_piece(&w, o, wide, 0, 1000, straight);
	world_commit(&w);
	run_hand_made(p);
}

Test(engine, edits_assemblies)
{
	struct ob_plan *p = world_plan_begin(&w);
	struct ob_edit *edit = ob_arena_alloc(&w.arena, 2 * sizeof(*edit), NULL);
	struct ob_out *o;

	need_gemm();
	uint32_t a = world_matrix(&w, "a", world_float(OB_BF16), 900, 1280);
	uint32_t b = world_matrix(&w, "b", world_mlx(8, 64, OB_BF16), 900, 1280);
	for (unsigned i = 0; i < 2; i++)
		edit[i] = (struct ob_edit){ .kind = OB_EDIT_LOWRANK,
					    .coeff = 1,
					    .row0 = 900 * i,
					    .n_rows = 900,
					    .n_cols = 1280,
					    .b = world_factor(&w, OB_F32, 900, 4, false),
					    .a = world_factor(&w, OB_F32, 4, 1280, false) };
	o = world_out(&w, p, "ab.weight", world_mlx(6, 128, OB_F16), 1800, 1280);
	world_piece(&w, o, a, 0, 900, (struct ob_rowmap){ .block = 100, .a = 4, .stride = 1 });
	world_piece(&w, o, b, 0, 900, straight);
	o->edit = edit;
	o->n_edits = 2;
	w.edits.n_edited = 1;
	world_commit(&w);
	run_hand_made(p);
}

/* ---- formats that take two passes ---------------------------------------------------------- */

/* Tensors that are cut differently: even and odd blocks, one tile and many, pieces of rows. */
static void add_flat(struct ob_plan *p, const char *name, uint64_t rows, uint64_t cols)
{
	char *source = ob_arena_printf(&w.arena, NULL, "%s.source", name);
	uint32_t t = world_matrix(&w, source, world_float(OB_F32), rows, cols);
	struct ob_out *o = world_out(&w, p, name, FLAT, rows, cols);

	world_piece(&w, o, t, 0, rows, straight);
}

Test(engine, measures_a_tensor_before_it_encodes)
{
	struct ob_plan *p = world_plan_begin(&w);

	add_flat(p, "even.weight", 1700, 2048);
	add_flat(p, "odd.weight", 5000, 100);
	add_flat(p, "short.weight", 3, 7);
	add_flat(p, "wide.weight", 2, 2200000);
	add_flat(p, "rows.weight", 130, 4500);
	world_commit(&w);
	run_hand_made(p);
}

Test(engine, measures_what_the_edits_made)
{
	struct ob_plan *p = world_plan_begin(&w);

	need_gemm();
	add_flat(p, "even.weight", 1100, 2048);
	add_flat(p, "odd.weight", 3000, 100);
	add_flat(p, "rows.weight", 130, 4500);
	for (uint32_t i = 0; i < 3; i++) {
		world_lowrank(&w, i, 3, 40);
		p->out[i].edit = w.of[i].edit;
		p->out[i].n_edits = 1;
	}
	world_commit(&w);
	run_hand_made(p);
}

/* ---- verification -------------------------------------------------------------------------- */

static void flip(const struct ob_out *o, unsigned part, uint64_t at)
{
	int fd = w.target[o->part_file[part]].handle->fd;
	off_t off = (off_t)(o->part_off[part] + at);
	uint8_t byte;

	cr_assert_eq(pread(fd, &byte, 1, off), 1);
	byte ^= 0x10;
	cr_assert_eq(pwrite(fd, &byte, 1, off), 1);
}

static void find_flip(const struct ob_plan *p, uint32_t out, unsigned part, uint64_t at)
{
	const struct ob_out *o = &p->out[out];
	struct ob_run run = { 0 };
	ob_err e = { 0 };
	char byte[32], file[16];

	flip(o, part, at);
	cr_assert_eq(world_verify(&w, p, &run, 2, 6, &e), -1);
	flip(o, part, at);
	cr_assert_eq(e.code, OB_VERIFY, "%s", e.msg);
	snprintf(byte, sizeof(byte), "byte %llu ", (unsigned long long)at);
	snprintf(file, sizeof(file), "/out%u", o->part_file[part]);
	cr_assert(strstr(e.msg, o->part_name[part]), "%s does not name %s", e.msg,
		  o->part_name[part]);
	cr_assert(strstr(e.msg, file), "%s does not name the file%s", e.msg, file);
	cr_assert(strstr(e.msg, byte), "%s does not say %s", e.msg, byte);
}

Test(engine, finds_a_flipped_bit)
{
	struct ob_run run = { 0 };
	struct ob_plan *p;
	ob_err e = { 0 };

	need_gemm();
	world_matrix(&w, "copied", U8, 3, 3000001);
	world_matrix(&w, "quantized.weight", world_mlx(8, 64, OB_BF16), 1500, 4096);
	world_lowrank(&w, 1, 4, 1);
	world_matrix(&w, "converted", world_float(OB_F32), 100, 33);
	w.recipe.dtype = OB_F16;
	w.recipe.max_shard = 2500000;
	world_commit(&w);
	p = world_plan(&w);
	cr_assert_eq(world_run(&w, p, &run, 2, 8, &e), 0, "%s", e.msg);
	for (unsigned i = 0; i < N_SETTINGS; i++) {
		struct ob_run again = { .io = settings[i].io, .no_direct = settings[i].no_direct };

		if (!io_is_missing(again.io))
			cr_assert_eq(world_verify(&w, p, &again, settings[i].workers,
						  settings[i].slots + 1, &e),
				     0, "setting %u: %s", i, e.msg);
	}
	find_flip(p, 0, 0, 0);
	find_flip(p, 0, 0, 9000002);
	find_flip(p, 1, 0, 5000000);
	find_flip(p, 1, 1, 1500 * 64 * 2 - 1);
	find_flip(p, 1, 2, 77);
	find_flip(p, 2, 0, 1);
	ob_plan_free(p);
}

/* ---- ends ---------------------------------------------------------------------------------- */

static void run_fails(const struct ob_plan *p, enum ob_code code, const char *names)
{
	for (unsigned i = 0; i < N_SETTINGS; i++) {
		struct ob_run run = { .io = settings[i].io, .no_direct = settings[i].no_direct };
		ob_err e = { 0 };

		if (io_is_missing(run.io))
			continue;
		cr_assert_eq(world_run(&w, p, &run, settings[i].workers, settings[i].slots, &e),
			     -1);
		cr_assert_eq(e.code, code, "setting %u: %s", i, e.msg);
		cr_assert(strstr(e.msg, names), "setting %u: %s does not name %s", i, e.msg, names);
	}
}

/* The parts of a tensor may lie in different files: the right one is named. */
Test(engine, names_the_input_that_became_shorter)
{
	struct ob_plan *p;
	uint32_t t;

	w.place = WORLD_MODEL_B;
	t = world_matrix(&w, "filler", U8, 0, 10000);
	w.place = WORLD_MODEL_A;
	t = world_matrix(&w, "a.weight", world_mlx(4, 64, OB_BF16), 1500, 4096);
	struct ob_stored *biases = (struct ob_stored *)(uintptr_t)w.tensor[t].part[2];
	biases->file = &w.file[WORLD_MODEL_B];
	biases->off = w.size[WORLD_MODEL_B];
	w.size[WORLD_MODEL_B] += biases->len;
	w.recipe.quant = OB_QUANT_NONE;
	world_commit(&w);
	p = world_plan(&w);
	cr_assert_eq(truncate(w.file[WORLD_MODEL_B].path, 100000), 0);
	run_fails(p, OB_CHANGED, "model-b");
	ob_plan_free(p);
}

Test(engine, names_the_tensor_that_overflows)
{
	struct ob_plan *p;
	uint8_t nonfinite[2] = { 0 };
	struct ob_run run = { .nonfinite = nonfinite };
	ob_err e = { 0 };
	uint32_t t;

	world_matrix(&w, "fine.weight", world_float(OB_F16), 100, 100);
	t = world_matrix(&w, "grows.weight", world_float(OB_F16), 1000, 1200);
	world_edit(&w, t,
		   (struct ob_edit){ .kind = OB_EDIT_ADD,
				     .coeff = 1.4e6f, /* values up to 0.05 and infinity at 65520 */
				     .row0 = 900,
				     .n_rows = 2,
				     .n_cols = 1200,
				     .b = world_factor(&w, OB_F32, 2, 1200, false) });
	world_commit(&w);
	p = world_plan(&w);
	run_fails(p, OB_NONFINITE, "grows.weight");
	w.recipe.nonfinite = OB_NONFINITE_WARN;
	cr_assert_eq(world_run(&w, p, &run, 2, 4, &e), 0, "%s", e.msg);
	cr_assert(!nonfinite[0] && nonfinite[1]);
	struct world_bytes *want = world_expect(&w, p);
	world_compare(&w, p, want, "warn");
	world_bytes_free(p, want);
	ob_plan_free(p);
}

Test(engine, stops_on_request)
{
	struct ob_plan *p;

	world_matrix(&w, "a", U8, 0, 30000000);
	world_commit(&w);
	p = world_plan(&w);
	for (unsigned i = 0; i < N_SETTINGS; i++) {
		atomic_int cancel = 1;
		struct ob_run run = { .io = settings[i].io, .cancel = &cancel };
		ob_err e = { 0 };

		if (io_is_missing(run.io))
			continue;
		cr_assert_eq(world_run(&w, p, &run, 2, 4, &e), -1);
		cr_assert_eq(e.code, OB_CANCELLED, "%s", e.msg);
	}
	ob_plan_free(p);
}

struct watched {
	unsigned calls;
	uint64_t done, total;
};

static void watch(void *user, const struct ob_progress *p)
{
	struct watched *x = user;

	cr_assert_geq(p->done, x->done);
	cr_assert_leq(p->done, p->total);
	cr_assert(p->tensor && p->file >= 1 && p->file <= p->n_files);
	x->calls++;
	x->done = p->done;
	x->total = p->total;
}

static int delay_all(void *user, struct ob_io **io, ob_err *e)
{
	const struct ob_fault slow = { .nth = 1, .sticky = true, .ops_mask = ~0u, .delay_ms = 60 };

	(void)user;
	return ob_io_open_fault(io, *io, &slow, NULL, e);
}

Test(engine, tells_how_far_it_is)
{
	struct watched x = { 0 };
	struct ob_run run = { .progress = watch, .user = &x, .wrap_io = delay_all };
	struct ob_plan *p;
	ob_err e = { 0 };

	world_matrix(&w, "a", U8, 0, 30000000);
	world_matrix(&w, "b", U8, 0, 10000000);
	world_commit(&w);
	p = world_plan(&w);
	cr_assert_eq(world_run(&w, p, &run, 1, 2, &e), 0, "%s", e.msg);
	cr_assert_geq(x.calls, 3);
	cr_assert_eq(x.total, 80000000);
	cr_assert_eq(run.bytes_written, 40000000);
	ob_plan_free(p);
}

/* Slow and fast transfers in turn bring the tiles to the workers in another order. */
static int delay_some(void *user, struct ob_io **io, ob_err *e)
{
	const struct ob_fault slow = { .nth = *(unsigned *)user, .ops_mask = ~0u, .delay_ms = 30 };

	return ob_io_open_fault(io, *io, &slow, NULL, e);
}

Test(engine, does_not_mind_the_order_of_completion)
{
	struct ob_plan *p = world_plan_begin(&w);
	struct world_bytes *want;
	ob_err e = { 0 };

	add_flat(p, "a.weight", 2500, 2048);
	add_flat(p, "b.weight", 2100, 1024);
	world_commit(&w);
	cr_assert(!ob_layout_files(p, &e) && !ob_make_tiles(p, &e), "%s", e.msg);
	want = world_expect(&w, p);
	for (unsigned nth = 1; nth < 10; nth++) {
		struct ob_run run = { .wrap_io = delay_some, .wrap_user = &nth };

		cr_assert_eq(world_run(&w, p, &run, 3, 12, &e), 0, "%s", e.msg);
		world_compare(&w, p, want, "one slow transfer");
	}
	world_bytes_free(p, want);
	ob_plan_free(p);
}
