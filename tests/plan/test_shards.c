/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "../support/world.h"
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

TestSuite(shards, .init = init, .fini = fini);

static const char *const names[] = { "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7" };

static void add_bytes(unsigned i, uint64_t bytes)
{
	world_matrix(&w, names[i], (struct ob_encoding){ &ob_codec_raw, OB_U8, 0, 0, 0 }, 0, bytes);
}

/* Digits: the shard of each tensor in turn. */
static void expect_shards(const char *digits)
{
	struct ob_plan *p = world_plan(&w);

	cr_assert_eq(p->n_outs, strlen(digits));
	for (size_t i = 0; i < p->n_outs; i++)
		cr_assert_eq(p->out[i].part_file[0], (uint32_t)(digits[i] - '0'),
			     "%s is in shard %u", names[i], p->out[i].part_file[0]);
	ob_plan_free(p);
}

Test(shards, what_just_fits_stays_together)
{
	w.recipe.max_shard = 100;
	add_bytes(0, 40);
	add_bytes(1, 60);
	add_bytes(2, 1);
	add_bytes(3, 99);
	add_bytes(4, 1);
	expect_shards("00112");
}

Test(shards, a_tensor_above_the_limit_is_alone_and_closes_nothing)
{
	w.recipe.max_shard = 100;
	add_bytes(0, 30);
	add_bytes(1, 101);
	add_bytes(2, 30);
	add_bytes(3, 500);
	add_bytes(4, 40);
	add_bytes(5, 1);
	expect_shards("010203");
}

Test(shards, the_first_may_be_too_large)
{
	w.recipe.max_shard = 100;
	add_bytes(0, 101);
	add_bytes(1, 102);
	add_bytes(2, 1);
	expect_shards("012");
}

Test(shards, above_2_GiB_a_tensor_is_alone_whatever_the_limit)
{
	w.recipe.max_shard = 50ull << 30;
	add_bytes(0, 1);
	add_bytes(1, (2ull << 30) + 1);
	add_bytes(2, 2ull << 30);
	add_bytes(3, 1);
	expect_shards("0100");
}

Test(shards, tensors_without_bytes_start_no_shard_of_their_own)
{
	w.recipe.max_shard = 100;
	add_bytes(0, 100);
	add_bytes(1, 0);
	add_bytes(2, 100);
	add_bytes(3, 0);
	expect_shards("0011");
}

Test(shards, none_is_empty_and_their_names_count)
{
	struct ob_plan *p;

	w.recipe.max_shard = 1000;
	for (unsigned i = 0; i < 8; i++)
		add_bytes(i, i % 3 ? 700 : 1500);
	p = world_plan(&w);
	for (size_t i = 0; i < p->n_files; i++) {
		char name[64];

		snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", i + 1, p->n_files);
		cr_assert_str_eq(p->file[i].name, name);
		cr_assert_gt(p->file[i].n_entries, 0);
		cr_assert_gt(p->file[i].data_bytes, 0);
	}
	ob_plan_free(p);
}

Test(shards, one_has_no_number)
{
	struct ob_plan *p;

	add_bytes(0, 10);
	w.model.weights_prefix = "diffusion_pytorch_model";
	p = world_plan(&w);
	cr_assert_eq(p->n_files, 1);
	cr_assert_str_eq(p->file[0].name, "diffusion_pytorch_model.safetensors");
	ob_plan_free(p);
	w.recipe.layout = OB_LAYOUT_MLX;
	p = world_plan(&w);
	cr_assert_str_eq(p->file[0].name, "model.safetensors");
	ob_plan_free(p);
}

Test(shards, a_single_file_takes_everything)
{
	struct ob_plan *p;

	w.recipe.out = "some/where/baked.safetensors";
	w.recipe.max_shard = 10;
	add_bytes(0, 11);
	add_bytes(1, 3ull << 30);
	add_bytes(2, 5);
	p = world_plan(&w);
	cr_assert_eq(p->n_files, 1);
	cr_assert(p->to_file);
	cr_assert_str_eq(p->file[0].name, "baked.safetensors");
	cr_assert_eq(p->file[0].n_entries, 3);
	ob_plan_free(p);
}

Test(shards, parts_of_a_tensor_stay_together_where_they_fit)
{
	struct ob_plan *p;

	/* 4 bits and groups of 64: 512 + 32 + 32 bytes. */
	w.recipe.max_shard = 600;
	world_matrix(&w, "a.weight", world_mlx(4, 64, OB_BF16), 16, 64);
	world_matrix(&w, "b.weight", world_mlx(4, 64, OB_BF16), 16, 64);
	p = world_plan(&w);
	cr_assert_eq(p->n_files, 2);
	for (unsigned i = 0; i < 2; i++)
		for (unsigned k = 0; k < 3; k++)
			cr_assert_eq(p->out[i].part_file[k], i);
	ob_plan_free(p);
	/* Where they do not, they fill shards like tensors. */
	w.recipe.max_shard = 560;
	p = world_plan(&w);
	cr_assert_eq(p->out[0].part_file[0], 0);
	cr_assert_eq(p->out[0].part_file[1], 0);
	cr_assert_eq(p->out[0].part_file[2], 1);
	cr_assert_eq(p->out[1].part_file[0], 1);
	ob_plan_free(p);
}

/* Whole blocks first, then by falling element size: every tensor is naturally aligned and nearly
 * all bytes are on block borders of the file. */
Test(shards, order_inside_a_file_aligns_every_tensor)
{
	static const struct {
		enum ob_dtype t;
		uint64_t n;
	} odd[] = { { OB_U8, 5 },    { OB_F32, 3 }, { OB_BF16, 7 },   { OB_F64, 3 },
		    { OB_U8, 4096 }, { OB_I64, 1 }, { OB_F16, 2048 }, { OB_BOOL, 3 } };
	struct ob_plan *p;
	bool seen_odd = false;
	unsigned bits = 64;
	uint64_t pos = 0;

	for (unsigned i = 0; i < 8; i++)
		world_matrix(&w, names[i], (struct ob_encoding){ &ob_codec_raw, odd[i].t, 0, 0, 0 },
			     0, odd[i].n);
	p = world_plan(&w);
	cr_assert_eq(p->file[0].header_size % OB_IO_ALIGN, 0);
	for (size_t i = 0; i < p->file[0].n_entries; i++) {
		const struct ob_st_entry *t = &p->file[0].entry[i];
		bool is_odd = (t->end - t->begin) % OB_IO_ALIGN != 0;

		cr_assert_eq(t->begin, pos, "there is a hole before %s", t->name);
		cr_assert_eq(t->begin % (ob_dtype_bits(t->dtype) / 8), 0, "%s is not aligned",
			     t->name);
		cr_assert(is_odd || !seen_odd, "%s is behind a tensor of another kind", t->name);
		if (is_odd)
			cr_assert_leq(ob_dtype_bits(t->dtype), bits, "%s", t->name);
		bits = is_odd ? ob_dtype_bits(t->dtype) : bits;
		seen_odd = is_odd;
		pos = t->end;
	}
	cr_assert_eq(pos, p->file[0].data_bytes);
	cr_assert_eq(p->file[0].size, p->file[0].header_size + pos);
	for (size_t i = 0; i < p->n_outs; i++)
		cr_assert_geq(p->out[i].part_off[0], p->file[0].header_size);
	ob_plan_free(p);
}

Test(shards, what_no_file_can_hold_is_refused)
{
	const uint64_t dim[] = { 1ull << 60 };
	struct ob_plan *p = NULL;
	ob_err e = { 0 };
	char name[17][8];

	for (unsigned i = 0; i < 17; i++) {
		snprintf(name[i], sizeof(name[i]), "u%u", i);
		world_tensor(&w, name[i], (struct ob_encoding){ &ob_codec_raw, OB_U8, 0, 0, 0 }, 1,
			     dim);
	}
	w.recipe.out = "one.safetensors";
	cr_assert_eq(ob_plan_build(&p, &w.model, &w.edits, &w.recipe, &e), -1);
	cr_assert_eq(e.code, OB_LIMIT, "%s", e.msg);
}

/* ---- parts whose length only the run tells -------------------------------------------------- */

static struct ob_encoding nested(void)
{
	return (struct ob_encoding){
		.codec = &ob_codec_bnb, .dtype = OB_BF16, .bits = 4, .group = 64, .variant = 2
	};
}

Test(shards, late_texts_close_the_gaps)
{
	static const uint64_t late[3] = { 100, 0, 120 };
	struct ob_plan *p;
	const struct ob_out_file *f;
	uint64_t header, bytes;
	ob_err e = { 0 };

	world_matrix(&w, names[0], world_float(OB_BF16), 64, 64);
	world_matrix(&w, names[1], world_float(OB_BF16), 0, 7);
	world_matrix(&w, names[2], world_float(OB_BF16), 128, 64);
	w.recipe.quant = OB_QUANT_NONE;
	w.recipe.rule = &(struct ob_rule){ .enc = nested(), .text = "all" };
	w.recipe.n_rules = 1;
	cr_assert_eq(ob_regex_new(&w.recipe.rule->re, "t[02]", "test", &e), 0);
	p = world_plan(&w);
	f = &p->file[0];
	cr_assert_eq(p->n_late, 2);
	cr_assert_eq(f->n_late, 2);
	for (size_t i = 0; i < 2; i++)
		cr_expect(strstr(f->entry[f->n_entries - 2 + i].name, "quant_state"));
	header = f->header_size;
	bytes = f->data_bytes;
	cr_assert_eq(ob_plan_finish(p, late, &e), 0, "%s", e.msg);
	cr_expect_eq(f->header_size, header);
	cr_expect_lt(f->data_bytes, bytes);
	cr_expect_eq(f->size, header + f->data_bytes);
	cr_expect_eq(p->out_bytes, f->data_bytes);
	bytes = 0;
	for (size_t i = 0; i < f->n_entries; i++) {
		cr_expect_eq(f->entry[i].begin, bytes, "%s", f->entry[i].name);
		bytes = f->entry[i].end;
	}
	cr_expect_eq(f->entry[f->n_entries - 1].shape.dim[0], 120);
	cr_expect_eq(p->out[2].part_off[3], header + bytes - 120);
	cr_expect_eq(p->out[0].part_off[3], header + bytes - 220);
	ob_regex_free(w.recipe.rule->re);
	w.recipe.n_rules = 0;
	ob_plan_free(p);
}
