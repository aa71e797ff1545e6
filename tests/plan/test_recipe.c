/* SPDX-License-Identifier: Apache-2.0 */
/* Which encoding a tensor gets, and what the model is then called. */
#include <criterion/criterion.h>
#include <string.h>

#include "../support/world.h"
#include "base/util.h"

static struct world w;
static struct ob_rule rules[4];

static void init(void)
{
	world_begin(&w);
	memset(rules, 0, sizeof(rules));
	w.recipe.rule = rules;
}

static void fini(void)
{
	for (size_t i = 0; i < w.recipe.n_rules; i++)
		ob_regex_free(rules[i].re);
	world_end(&w);
}

TestSuite(recipe, .init = init, .fini = fini);

static struct ob_encoding none(void)
{
	return world_float(OB_N_DTYPES);
}

static void rule(const char *pattern, bool skip, struct ob_encoding enc)
{
	struct ob_rule *r = &rules[w.recipe.n_rules++];
	ob_err e = { 0 };

	*r = (struct ob_rule){ .text = pattern, .skip = skip, .enc = enc };
	cr_assert_eq(ob_regex_new(&r->re, pattern, "test", &e), 0, "%s", e.msg);
}

static void quant_to(unsigned bits, unsigned group)
{
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = world_mlx(bits, group, OB_N_DTYPES);
}

static void expect(size_t i, struct ob_encoding enc, bool copy)
{
	struct ob_plan *p = world_plan(&w);

	cr_assert(ob_encoding_equal(&p->out[i].enc, &enc), "%s became %s %s %u,%u", p->out[i].name,
		  p->out[i].enc.codec->name, ob_dtype_name(p->out[i].enc.dtype), p->out[i].enc.bits,
		  p->out[i].enc.group);
	cr_assert_eq(p->out[i].copy, copy);
	ob_plan_free(p);
}

static void expect_failure(enum ob_code code, const char *names)
{
	struct ob_plan *p = NULL;
	ob_err e = { 0 };

	cr_assert_eq(ob_plan_build(&p, &w.model, &w.edits, &w.recipe, &e), -1);
	cr_assert_eq(e.code, code, "%s", e.msg);
	cr_assert(strstr(e.msg, names), "%s does not name %s", e.msg, names);
}

static void matrix(const char *name, struct ob_encoding enc)
{
	world_matrix(&w, name, enc, 128, 256);
}

Test(recipe, keep_keeps)
{
	matrix("a.weight", world_float(OB_BF16));
	matrix("b.weight", world_mlx(4, 64, OB_F16));
	matrix("c", (struct ob_encoding){ &ob_codec_raw, OB_I64, 0, 0, 0 });
	matrix("d", world_float(OB_F64));
	for (unsigned i = 0; i < 4; i++)
		expect(i, w.tensor[i].enc, true);
}

Test(recipe, dtype_changes_floats_only)
{
	matrix("a.weight", world_float(OB_BF16));
	matrix("b.weight", world_mlx(4, 64, OB_BF16));
	matrix("c", (struct ob_encoding){ &ob_codec_raw, OB_I64, 0, 0, 0 });
	matrix("d", world_float(OB_F64));
	matrix("e", world_float(OB_F16));
	w.recipe.dtype = OB_F16;
	expect(0, world_float(OB_F16), false);
	expect(1, w.tensor[1].enc, true);
	expect(2, w.tensor[2].enc, true);
	expect(3, world_float(OB_F16), false);
	expect(4, world_float(OB_F16), true);
}

Test(recipe, none_dequantizes_to_the_carrier)
{
	matrix("a.weight", world_mlx(4, 64, OB_BF16));
	matrix("b.weight", world_float(OB_F32));
	w.recipe.quant = OB_QUANT_NONE;
	expect(0, world_float(OB_BF16), false);
	expect(1, world_float(OB_F32), true);
	w.recipe.dtype = OB_F16;
	expect(0, world_float(OB_F16), false);
}

Test(recipe, a_scheme_takes_what_its_tools_take)
{
	struct ob_plan *p;

	matrix("a.weight", world_float(OB_BF16));
	matrix("a.bias", world_float(OB_BF16));
	world_matrix(&w, "norm.weight", world_float(OB_F32), 0, 256);
	matrix("b.weight", world_mlx(8, 32, OB_F16));
	matrix("c.weight", world_mlx(4, 64, OB_BF16));
	matrix("d.weight", (struct ob_encoding){ &ob_codec_raw, OB_I32, 0, 0, 0 });
	world_matrix(&w, "odd.weight", world_float(OB_BF16), 128, 100);
	matrix("f64.weight", world_float(OB_F64));
	world_matrix(&w, "odder.weight", world_float(OB_BF16), 64, 100);
	quant_to(4, 64);
	expect(0, world_mlx(4, 64, OB_BF16), false);
	expect(1, world_float(OB_BF16), true);
	expect(2, world_float(OB_F32), true);
	expect(3, world_mlx(4, 64, OB_F16), false);
	expect(4, world_mlx(4, 64, OB_BF16), true);
	expect(5, w.tensor[5].enc, true);
	expect(6, world_float(OB_BF16), true);
	expect(7, world_mlx(4, 64, OB_F32), false);
	p = world_plan(&w);
	cr_assert_eq(p->n_notes, 1);
	cr_assert(strstr(p->note[0], "odd.weight and 1 more stay BF16"), "%s", p->note[0]);
	cr_assert(strstr(p->note[0], "100"), "%s", p->note[0]);
	cr_assert_eq(p->n_converted, 3);
	cr_assert_eq(p->n_copied, 6);
	ob_plan_free(p);
	w.recipe.dtype = OB_F16;
	expect(0, world_mlx(4, 64, OB_F16), false);
	expect(6, world_float(OB_F16), false);
}

Test(recipe, an_edit_needs_float32_or_less)
{
	matrix("a.weight", world_float(OB_F64));
	matrix("b.weight", world_float(OB_F64));
	world_lowrank(&w, 0, 2, 1);
	expect(0, world_float(OB_F32), false);
	expect(1, world_float(OB_F64), true);
	rule("^a", true, none());
	expect(0, world_float(OB_F32), false);
}

Test(recipe, what_is_no_float_cannot_be_edited)
{
	matrix("a.weight", (struct ob_encoding){ &ob_codec_raw, OB_I8, 0, 0, 0 });
	world_lowrank(&w, 0, 2, 1);
	expect_failure(OB_UNSUPPORTED, "a.weight");
}

Test(recipe, the_first_rule_that_matches_wins)
{
	matrix("model.layers.0.a.weight", world_float(OB_BF16));
	matrix("model.layers.1.a.weight", world_float(OB_BF16));
	matrix("model.layers.2.a.weight", world_mlx(8, 32, OB_F16));
	matrix("other.weight", world_float(OB_F32));
	quant_to(4, 64);
	rule("layers\\.1\\.", true, none());
	rule("layers\\.[01]\\.", false, world_mlx(6, 128, OB_N_DTYPES));
	rule("layers", false, world_float(OB_F32));
	expect(0, world_mlx(6, 128, OB_BF16), false);
	expect(1, world_float(OB_BF16), true);
	expect(2, world_float(OB_F32), false);
	expect(3, world_mlx(4, 64, OB_F32), false);
}

Test(recipe, skip_also_keeps_a_quantized_tensor)
{
	matrix("a.weight", world_mlx(8, 32, OB_BF16));
	w.recipe.quant = OB_QUANT_NONE;
	rule("a", true, none());
	expect(0, w.tensor[0].enc, true);
}

Test(recipe, a_rule_of_none_dequantizes)
{
	matrix("a.weight", world_mlx(8, 32, OB_BF16));
	rule("a", false, none());
	expect(0, world_float(OB_BF16), false);
}

Test(recipe, a_rule_that_cannot_be_followed_is_an_error)
{
	world_matrix(&w, "a.weight", world_float(OB_BF16), 10, 100);
	rule("a.weight", false, world_mlx(4, 64, OB_N_DTYPES));
	expect_failure(OB_MISMATCH, "a.weight");
}

Test(recipe, a_rule_cannot_quantize_integers)
{
	matrix("a.weight", (struct ob_encoding){ &ob_codec_raw, OB_I32, 0, 0, 0 });
	rule("a.weight", false, world_mlx(4, 64, OB_N_DTYPES));
	expect_failure(OB_MISMATCH, "a.weight");
	/* A float rule leaves them as they are. */
	rules[0].enc = world_float(OB_F16);
	expect(0, w.tensor[0].enc, true);
}

Test(recipe, a_new_part_may_not_hide_a_tensor)
{
	matrix("a.weight", world_float(OB_BF16));
	matrix("a.scales", world_float(OB_BF16));
	quant_to(4, 64);
	expect_failure(OB_MISMATCH, "a.scales");
}

Test(recipe, an_edit_must_see_the_matrix_that_is_quantized)
{
	const uint64_t dim[] = { 64, 32, 64 };

	world_tensor(&w, "a.experts.weight", world_float(OB_BF16), 3, dim);
	world_lowrank(&w, 0, 2, 1);
	quant_to(4, 64);
	expect_failure(OB_UNSUPPORTED, "a.experts.weight");
}

/* ---- the model as a whole ------------------------------------------------------------------ */

static void expect_format(const char *format, enum ob_layout layout, const char *quant)
{
	struct ob_plan *p = world_plan(&w);
	char text[64];

	cr_assert_str_eq(p->meta[0].key, "format");
	cr_assert_str_eq(p->meta[0].value, format);
	cr_assert_eq(p->layout, layout);
	cr_assert_eq(p->quant != NULL, quant != NULL);
	if (quant)
		cr_assert_str_eq(p->quant->codec->describe(p->quant, text, sizeof(text)), quant);
	ob_plan_free(p);
}

static void meta(const char *key, const char *value)
{
	w.model.meta = ob_arena_alloc(&w.arena, 2 * sizeof(*w.model.meta), NULL);
	w.model.meta[0] = (struct ob_meta_entry){ "zzz", "kept" };
	w.model.meta[1] = (struct ob_meta_entry){ key, value };
	w.model.n_meta = 2;
}

Test(recipe, format_of_floats)
{
	struct ob_plan *p;

	matrix("a.weight", world_float(OB_BF16));
	expect_format("pt", OB_LAYOUT_HF, NULL);
	meta("format", "mlx");
	expect_format("mlx", OB_LAYOUT_MLX, NULL);
	w.recipe.layout = OB_LAYOUT_HF;
	expect_format("pt", OB_LAYOUT_HF, NULL);
	w.recipe.layout = OB_LAYOUT_MLX;
	meta("format", "something");
	expect_format("mlx", OB_LAYOUT_MLX, NULL);
	w.recipe.layout = OB_LAYOUT_AUTO;
	expect_format("pt", OB_LAYOUT_HF, NULL);
	p = world_plan(&w);
	cr_assert_eq(p->n_meta, 2);
	cr_assert_str_eq(p->meta[1].value, "kept");
	ob_plan_free(p);
}

Test(recipe, format_of_what_is_quantized)
{
	matrix("a.weight", world_float(OB_BF16));
	matrix("b.weight", world_float(OB_BF16));
	world_matrix(&w, "c.weight", world_float(OB_BF16), 4096, 256);
	quant_to(4, 64);
	expect_format("mlx", OB_LAYOUT_MLX, "mlx:4,group=64");
	/* The scheme that was asked for names the model, not the one that most weights have. */
	rule("c", false, world_mlx(8, 32, OB_N_DTYPES));
	expect_format("mlx", OB_LAYOUT_MLX, "mlx:4,group=64");
	w.recipe.quant = OB_QUANT_KEEP;
	expect_format("mlx", OB_LAYOUT_MLX, "mlx:8,group=32");
}

/* ---- fingerprint --------------------------------------------------------------------------- */

static uint64_t print(void)
{
	struct ob_plan *p = world_plan(&w);
	uint64_t h = p->fingerprint;

	cr_assert_neq(h, 0);
	ob_plan_free(p);
	return h;
}

Test(recipe, the_fingerprint_sees_every_change)
{
	static const uint64_t turned[] = { 256, 128 }, rows[] = { 1, 2 }, others[] = { 1, 3 };
	uint64_t seen[32];
	size_t n = 0;

	matrix("a.weight", world_float(OB_BF16));
	matrix("b.weight", world_float(OB_F32));
	world_lowrank(&w, 0, 4, 1);
	world_edit(&w, 1,
		   (struct ob_edit){ .kind = OB_EDIT_REPLACE_ROWS,
				     .n_rows = 2,
				     .n_cols = 256,
				     .index = rows,
				     .b = world_factor(&w, OB_F32, 2, 256, false) });
	seen[n++] = print();
	cr_assert_eq(seen[0], print());

	w.file[0].stamp.size++;
	seen[n++] = print();
	w.file[0].stamp.mtime_ns++;
	seen[n++] = print();
	w.file[1].stamp.ino++;
	seen[n++] = print();
	w.of[0].edit[0].coeff = 1.0000001f;
	seen[n++] = print();
	w.of[0].edit[0].a.off += 4;
	seen[n++] = print();
	w.of[0].edit[0].b.row_stride++;
	seen[n++] = print();
	w.of[0].edit[0].row0 = 1;
	seen[n++] = print();
	w.of[1].edit[0].index = others;
	seen[n++] = print();
	w.of[0].edit[0].kind = OB_EDIT_ADD;
	seen[n++] = print();
	w.tensor[0].name = "c.weight";
	seen[n++] = print();
	w.recipe.dtype = OB_F16;
	seen[n++] = print();
	w.recipe.nonfinite = OB_NONFINITE_KEEP;
	seen[n++] = print();
	w.recipe.max_shard = 100000;
	seen[n++] = print();
	w.recipe.layout = OB_LAYOUT_MLX; /* the same offsets, another header */
	seen[n++] = print();
	meta("key", "value");
	seen[n++] = print();
	meta("key", "eulav");
	seen[n++] = print();
	w.edits.n_edited = 0;
	w.of[0].n = w.of[1].n = 0;
	seen[n++] = print();
	w.recipe.out = "one.safetensors";
	seen[n++] = print();
	w.tensor[0].shape.dim = turned;
	seen[n++] = print();
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = world_mlx(4, 64, OB_N_DTYPES);
	seen[n++] = print();
	w.recipe.to.group = 32;
	seen[n++] = print();
	w.tensor[1].enc.group = 64; /* of what is read: config.json may decide it */
	seen[n++] = print();
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < i; k++)
			cr_assert_neq(seen[i], seen[k], "changes %zu and %zu look the same", i, k);
}

/* What the output does not depend on. */
Test(recipe, the_fingerprint_sees_nothing_else)
{
	uint64_t h;

	matrix("a.weight", world_float(OB_BF16));
	h = print();
	w.recipe.out = "another";
	w.model.path = "elsewhere";
	cr_assert_eq(print(), h);
}

/* ---- untied heads -------------------------------------------------------------------------- */

Test(recipe, an_extra_tensor_follows_its_source)
{
	struct ob_extra_tensor extra = { .name = "lm_head.weight", .source = 0 };
	struct ob_plan *p;

	matrix("embed.weight", world_mlx(4, 64, OB_BF16));
	matrix("z.weight", world_float(OB_BF16));
	w.edits.extra = &extra;
	w.edits.n_extra = 1;
	world_lowrank(&w, 0, 2, 1);
	p = world_plan(&w);
	cr_assert_eq(p->n_outs, 3);
	cr_assert_str_eq(p->out[1].name, "lm_head.weight");
	cr_assert(p->out[1].copy);
	cr_assert_str_eq(p->out[1].part_name[1], "lm_head.scales");
	cr_assert_str_eq(p->out[2].name, "z.weight");
	cr_assert_eq(p->n_edited, 1);
	ob_plan_free(p);
}

/* ---- what config.json says ------------------------------------------------------------------ */

static void config(const char *text)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_json_parse(&w.model.config, text, strlen(text), "config.json", &e), 0);
}

static void forget_config(void)
{
	ob_json_free(w.model.config);
	w.model.config = NULL;
}

Test(recipe, a_config_that_the_tensors_contradict)
{
	struct ob_plan *p;

	config("{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", "
	       "\"load_in_8bit\": true}}");
	matrix("a.weight", world_float(OB_BF16));
	w.recipe.dtype = OB_F32;
	p = world_plan(&w);
	cr_assert_eq(p->n_notes, 1);
	cr_expect_str_eq(p->note[0], "config.json says bnb-int8, but the tensors are plain floats: "
				     "they decide");
	ob_plan_free(p);
	forget_config();
}

Test(recipe, another_method_is_not_known)
{
	config("{\"quantization_config\": {\"quant_method\": \"gptq\"}}");
	matrix("a.weight", world_float(OB_BF16));
	w.recipe.dtype = OB_F32;
	expect_failure(OB_UNSUPPORTED, "gptq");
	forget_config();
}

/* bitsandbytes' tools transpose GPT-2's layers. */
Test(recipe, conv1d_and_bitsandbytes)
{
	config("{\"model_type\": \"gpt2\"}");
	matrix("h.0.attn.c_attn.weight", world_float(OB_BF16));
	w.recipe.quant = OB_QUANT_TO;
	w.recipe.to = (struct ob_encoding){ .codec = &ob_codec_bnb, .bits = 4, .group = 64 };
	expect_failure(OB_UNSUPPORTED, "c_attn");
	forget_config();
}
