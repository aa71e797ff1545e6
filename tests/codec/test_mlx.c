/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "../base/oom.h"
#include "codec/codec.h"

/* ---- recognition --------------------------------------------------------------------------- */

#define PATH "model.layers.0.mlp.up_proj"

enum { WEIGHT, SCALES, BIASES, N_PARTS };

/* A module [8, 128] in 4 bits, groups of 64, unless a test changes it. */
struct folder {
	struct ob_lookup lookup;
	struct ob_stored part[N_PARTS];
	uint64_t dim[N_PARTS][3];
	bool missing[N_PARTS];
	struct ob_arena arena;
	const char *config;
};

static const struct ob_stored *find(const struct ob_lookup *l, const char *name)
{
	const struct folder *f = (const struct folder *)(const void *)l;

	for (int k = 0; k < N_PARTS; k++)
		if (!f->missing[k] && !strcmp(f->part[k].name, name))
			return &f->part[k];
	return NULL;
}

static void set(struct folder *f, int k, const char *name, enum ob_dtype t, uint64_t cols)
{
	f->dim[k][0] = 8;
	f->dim[k][1] = cols;
	f->part[k] = (struct ob_stored){ .name = name, .dtype = t, .shape = { 2, f->dim[k] } };
}

static void make(struct folder *f)
{
	*f = (struct folder){ .lookup.find = find };
	set(f, WEIGHT, PATH ".weight", OB_U32, 16);
	set(f, SCALES, PATH ".scales", OB_BF16, 2);
	set(f, BIASES, PATH ".biases", OB_BF16, 2);
	f->lookup.arena = &f->arena;
	f->config = "{\"quantization\": {\"group_size\": 64, \"bits\": 4, \"mode\": \"affine\"}}";
}

static int recognise(struct folder *f, struct ob_recognised *r, ob_err *e)
{
	struct ob_jv *config = NULL;
	int got;

	*e = (ob_err){ 0 };
	if (f->config && ob_json_parse(&config, f->config, strlen(f->config), "config.json", e) < 0)
		return -2;
	f->lookup.config = config;
	got = ob_codec_mlx.recognise(&f->part[WEIGHT], &f->lookup, r, e);
	ob_json_free(config);
	return got;
}

static void is(struct folder *f, unsigned bits, unsigned group)
{
	struct ob_recognised r;
	ob_err e;
	uint64_t cols = f->dim[SCALES][f->part[SCALES].shape.rank - 1] * group;

	cr_assert_eq(recognise(f, &r, &e), 1, "%s", e.msg);
	cr_assert_eq(r.enc.codec, &ob_codec_mlx);
	cr_assert_eq(r.enc.bits, bits, "%u bits", r.enc.bits);
	cr_assert_eq(r.enc.group, group, "group %u", r.enc.group);
	cr_assert_eq(r.enc.dtype, f->part[SCALES].dtype);
	cr_assert_str_eq(r.name, PATH ".weight");
	cr_assert_eq(r.shape.rank, f->part[WEIGHT].shape.rank);
	cr_assert_eq(r.shape.dim[r.shape.rank - 1], cols);
	for (int k = 0; k < N_PARTS; k++)
		cr_assert_eq(r.part[k], &f->part[k]);
	ob_arena_free(&f->arena);
}

static void is_not(struct folder *f)
{
	struct ob_recognised r;
	ob_err e;

	cr_assert_eq(recognise(f, &r, &e), 0, "%s", e.msg);
	ob_arena_free(&f->arena);
}

/* The error names the tensor and every one of the words ("a|b"). */
static void is_wrong(struct folder *f, enum ob_code code, const char *words)
{
	struct ob_recognised r;
	ob_err e;
	char copy[128];

	snprintf(copy, sizeof(copy), "%s", words);
	cr_assert_eq(recognise(f, &r, &e), -1);
	cr_assert_eq(e.code, code, "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, PATH ".weight"), "%s", e.msg);
	for (char *w = strtok(copy, "|"); w; w = strtok(NULL, "|"))
		cr_assert_not_null(strstr(e.msg, w), "'%s' is not in: %s", w, e.msg);
	ob_arena_free(&f->arena);
}

Test(mlx, recognised_by_config)
{
	static const enum ob_dtype carriers[] = { OB_F32, OB_F16, OB_BF16 };
	struct folder f;

	for (int i = 0; i < 3; i++) {
		make(&f);
		f.part[SCALES].dtype = f.part[BIASES].dtype = carriers[i];
		is(&f, 4, 64);
	}
	make(&f);
	f.config = "{\"quantization_config\": {\"group_size\": 64, \"bits\": 4}}";
	is(&f, 4, 64);
	f.config = "{\"quantization\": null, \"quantization_config\": {\"group_size\": 32}}";
	is(&f, 8, 32);
	f.config = "{\"quantization\": {\"group_size\": 128, \"bits\": 2},"
		   " \"quantization_config\": {\"group_size\": 32, \"bits\": 8}}";
	is(&f, 2, 128);
}

Test(mlx, recognised_by_an_entry_of_its_own)
{
	struct folder f;

	make(&f);
	f.config = "{\"quantization\": {\"group_size\": 32, \"bits\": 3, \"" PATH "\":"
		   " {\"group_size\": 64, \"bits\": 4}}}";
	is(&f, 4, 64);
	/* What it lacks is the default, not what the block says. */
	f.config = "{\"quantization\": {\"group_size\": 32, \"bits\": 8, \"" PATH
		   "\": {\"bits\": 4}}}";
	is(&f, 4, 64);
	f.config = "{\"quantization\": {\"group_size\": 32, \"bits\": 8, \"" PATH "\": true}}";
	is(&f, 8, 32);
	f.config =
		"{\"quantization\": {\"group_size\": 32, \"bits\": 8, \"other\": {\"bits\": 4}}}";
	is(&f, 8, 32);
	f.config = "{\"quantization\": {\"group_size\": 64, \"bits\": 4, \"" PATH "\": false}}";
	is_wrong(&f, OB_MISMATCH, "not quantized");
}

Test(mlx, shapes_win_over_bits)
{
	struct folder f;

	make(&f);
	f.config = "{\"quantization\": {\"group_size\": 64, \"bits\": 8}}";
	is(&f, 4, 64);
	f.config = "{\"quantization\": {\"group_size\": 64, \"bits\": null}}";
	is(&f, 4, 64);
}

Test(mlx, without_config_only_where_shapes_leave_no_choice)
{
	static const struct {
		uint64_t words, scales;
		unsigned bits, group;
	} cases[] = { { 2, 1, 2, 32 },	 { 3, 1, 3, 32 },   { 5, 1, 5, 32 },
		      { 10, 1, 5, 64 },	 { 20, 1, 5, 128 }, { 24, 1, 6, 128 },
		      { 32, 1, 8, 128 }, { 64, 2, 8, 128 }, { 15, 3, 5, 32 } };
	struct folder f;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make(&f);
		f.dim[WEIGHT][1] = cases[i].words;
		f.dim[SCALES][1] = f.dim[BIASES][1] = cases[i].scales;
		f.config = i % 2 ? NULL : "{\"quantization_config\": {\"quant_method\": \"x\"}}";
		is(&f, cases[i].bits, cases[i].group);
	}
	make(&f);
	f.config = NULL;
	is_wrong(&f, OB_MISMATCH,
		 "[8, 16]|" PATH ".scales [8, 2]|bits x group = 256|no quantization block");
	f.dim[WEIGHT][1] = 14; /* 7 bits */
	is_wrong(&f, OB_MISMATCH, "bits x group = 224|no legal values");
}

Test(mlx, absurd_groups)
{
	static const char *const blocks[] = { "{\"group_size\": 48, \"bits\": 4}",
					      "{\"group_size\": 0, \"bits\": 4}",
					      "{\"group_size\": -64, \"bits\": 4}",
					      "{\"group_size\": 9007199254740992}",
					      "{\"group_size\": \"64\", \"bits\": 4}",
					      "{\"group_size\": 64.5}",
					      "{\"group_size\": null}",
					      "{\"group_size\": [64]}" };
	char config[128];
	struct folder f;

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
		make(&f);
		snprintf(config, sizeof(config), "{\"quantization\": %s}", blocks[i]);
		f.config = config;
		is_wrong(&f, OB_MISMATCH, "[8, 16]|[8, 2]|config.json says bits|group_size");
	}
	make(&f);
	f.dim[WEIGHT][1] = 6; /* 192: 6 x 32 or 3 x 64, not with groups of 128 */
	f.dim[SCALES][1] = f.dim[BIASES][1] = 1;
	f.config = "{\"quantization\": {\"group_size\": 128, \"bits\": 4}}";
	is_wrong(&f, OB_MISMATCH, "[8, 6]|[8, 1]|bits 4, group_size 128");
}

Test(mlx, stacked_experts)
{
	struct folder f;
	struct ob_recognised r;
	ob_err e;

	make(&f);
	for (int k = 0; k < N_PARTS; k++) {
		f.dim[k][2] = f.dim[k][1];
		f.dim[k][1] = 5;
		f.part[k].shape.rank = 3;
	}
	cr_assert_eq(recognise(&f, &r, &e), 1, "%s", e.msg);
	cr_assert_eq(r.shape.dim[0], 8);
	cr_assert_eq(r.shape.dim[1], 5);
	cr_assert_eq(r.shape.dim[2], 128);
	ob_arena_free(&f.arena);
	is(&f, 4, 64);
}

Test(mlx, other_tensors_are_not_taken)
{
	struct folder f;

	make(&f);
	f.part[WEIGHT].dtype = OB_BF16; /* scales of their own */
	is_not(&f);
	make(&f);
	f.part[WEIGHT].dtype = OB_I32;
	is_not(&f);
	make(&f);
	f.missing[SCALES] = f.missing[BIASES] = true;
	is_not(&f);
	make(&f);
	f.part[WEIGHT].name = PATH ".codes";
	is_not(&f);
	make(&f);
	f.part[WEIGHT].name = "weight";
	is_not(&f);
}

Test(mlx, missing_or_contradicting_parts)
{
	struct folder f;

	make(&f);
	f.missing[SCALES] = true;
	is_wrong(&f, OB_CORRUPT, PATH ".scales is missing");
	make(&f);
	f.missing[BIASES] = true;
	is_wrong(&f, OB_CORRUPT, PATH ".biases is missing");
	make(&f);
	f.part[SCALES].dtype = OB_F64;
	is_wrong(&f, OB_CORRUPT, PATH ".scales|F64");
	make(&f);
	f.part[BIASES].dtype = OB_F16;
	is_wrong(&f, OB_MISMATCH, PATH ".scales|BF16|" PATH ".biases|F16");
	make(&f);
	f.dim[BIASES][1] = 1;
	is_wrong(&f, OB_MISMATCH, PATH ".scales is [8, 2]|" PATH ".biases is [8, 1]");
	make(&f);
	f.dim[SCALES][0] = f.dim[BIASES][0] = 7;
	is_wrong(&f, OB_MISMATCH, "[8, 16]|" PATH ".scales [7, 2]");
	make(&f);
	f.dim[SCALES][1] = f.dim[BIASES][1] = 0;
	is_wrong(&f, OB_MISMATCH, "[8, 16]|" PATH ".scales [8, 0]");
	make(&f);
	f.dim[WEIGHT][1] = UINT64_MAX / 16;
	is_wrong(&f, OB_MISMATCH, PATH ".scales [8, 2]");
	make(&f);
	for (int k = 0; k < N_PARTS; k++)
		f.part[k].shape.rank = 1;
	is_wrong(&f, OB_MISMATCH, "[8]|" PATH ".scales");
	for (int k = 0; k < N_PARTS; k++)
		f.part[k].shape.rank = 0;
	is_wrong(&f, OB_MISMATCH, "[]|" PATH ".scales");
}

Test(mlx, modes_with_floating_point_codes_are_named)
{
	static const struct {
		uint64_t words, scales;
		const char *mode;
	} cases[] = {
		{ 16, 4, "mxfp4" }, { 32, 4, "mxfp8" },		  { 16, 8, "nvfp4" },
		{ 16, 2, "mxfp8" }, { 16, 16, "floating-point" }, { 16, 0, "floating-point" }
	};
	struct folder f;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make(&f);
		f.part[SCALES].dtype = OB_U8;
		f.dim[WEIGHT][1] = cases[i].words;
		f.dim[SCALES][1] = cases[i].scales;
		f.missing[BIASES] = true;
		is_wrong(&f, OB_UNSUPPORTED, cases[i].mode);
	}
}

static int recognise_and_free(void *ctx, ob_err *e)
{
	struct folder *f = ctx;
	struct ob_recognised r;
	int got;

	f->lookup.config = NULL;
	got = ob_codec_mlx.recognise(&f->part[WEIGHT], &f->lookup, &r, e);
	ob_arena_free(&f->arena);
	return got < 0 ? -1 : 0;
}

Test(mlx, recognition_without_memory)
{
	struct folder f;

	make(&f);
	f.dim[WEIGHT][1] = 20; /* 5 bits, groups of 64: needs no config */
	cr_assert_gt(oom_sweep(recognise_and_free, &f), 0);
}

/* ---- what is quantized, and where it is written -------------------------------------------- */

static bool takes(unsigned group, enum ob_dtype carrier, uint32_t rank, const uint64_t *dim,
		  const char *reason)
{
	struct ob_encoding enc = {
		.codec = &ob_codec_mlx, .dtype = carrier, .bits = 4, .group = group
	};
	struct ob_shape shape = { rank, dim };
	const char *why = NULL;
	bool yes = ob_codec_mlx.accepts(&enc, &shape, &why);

	if (!yes)
		cr_assert_str_eq(why, reason);
	return yes;
}

Test(mlx, accepts)
{
	static const uint64_t dim[] = { 4, 96 }, stack[] = { 2, 4, 128 }, empty[] = { 0, 64 };

	cr_assert(takes(32, OB_BF16, 2, dim, NULL));
	cr_assert(takes(128, OB_F32, 3, stack, NULL));
	cr_assert_not(takes(64, OB_BF16, 2, dim,
			    "its 96 columns are not a multiple of the group size 64"));
	cr_assert_not(takes(32, OB_BF16, 1, dim, "it is no matrix"));
	cr_assert_not(takes(32, OB_BF16, 0, NULL, "it is no matrix"));
	cr_assert_not(takes(32, OB_BF16, 2, empty, "it is empty"));
	cr_assert_not(takes(32, OB_F64, 2, dim, "scales cannot be F64"));
}

static bool is_target(const char *name, uint32_t rank, const char *config)
{
	static const uint64_t dim[] = { 8, 64, 64, 64 };
	struct ob_encoding enc = { .codec = &ob_codec_mlx, .bits = 4, .group = 64 };
	struct ob_shape shape = { rank, dim };
	struct ob_jv *root = NULL;
	ob_err e = { 0 };
	bool yes;

	if (config)
		cr_assert_eq(ob_json_parse(&root, config, strlen(config), "config.json", &e), 0);
	yes = ob_codec_mlx.default_target(&enc, name, &shape, OB_USE_OTHER, root);
	ob_json_free(root);
	return yes;
}

Test(mlx, default_targets)
{
	cr_assert(is_target("lm_head.weight", 2, NULL));
	cr_assert(is_target("model.embed_tokens.weight", 2, NULL));
	cr_assert(is_target("model.layers.0.self_attn.q_proj.weight", 2, NULL));
	cr_assert(is_target("transformer.norm_out.linear.weight", 2, NULL));
	cr_assert(is_target("model.layers.0.mlp.switch_mlp.up_proj.weight", 3, NULL));
	cr_assert(is_target("model.layers.0.mlp.experts.up_proj.weight", 3, NULL));
	cr_assert(
		is_target("model.layers.0.mlp.gate.weight", 2, "{\"model_type\": \"qwen3_moe\"}"));
	cr_assert_not(is_target("model.norm.weight", 1, NULL));
	cr_assert_not(is_target("model.layers.0.self_attn.q_norm.weight", 2, NULL));
	cr_assert_not(is_target("backbone.layers.0.mixer.conv1d.weight", 3, NULL));
	cr_assert_not(is_target("vision.patch_embed.proj.weight", 4, NULL));
	cr_assert_not(is_target("model.layers.0.mlp.gate.weight", 2, "{\"topk_group\": 4}"));
	cr_assert_not(is_target("model.layers.0.mlp.gate.weight", 2,
				"{\"text_config\": {\"topk_group\": 1}}"));
	cr_assert_not(is_target("model.layers.0.self_attn.q_proj.bias", 2, NULL));
	cr_assert_not(is_target("pos_embed", 2, NULL));
}

Test(mlx, layout)
{
	static const uint64_t dim[] = { 2, 3, 384 };
	struct ob_encoding enc = {
		.codec = &ob_codec_mlx, .dtype = OB_F16, .bits = 3, .group = 128
	};
	struct ob_shape shape = { 3, dim };
	struct ob_arena a = { 0 };
	struct ob_parts p;
	struct ob_range r;
	uint32_t rows, cols;
	ob_err e = { 0 };

	cr_assert_eq(ob_codec_mlx.layout(&enc, &shape, &a, &p, &e), 0);
	cr_assert_eq(p.n, 3);
	cr_assert_str_eq(p.part[0].suffix, ".weight");
	cr_assert_eq(p.part[0].dtype, OB_U32);
	cr_assert_eq(p.part[0].shape.dim[2], 36);
	cr_assert_eq(p.part[0].len, 6 * 36 * 4);
	cr_assert_str_eq(p.part[1].suffix, ".scales");
	cr_assert_str_eq(p.part[2].suffix, ".biases");
	for (int k = 1; k < 3; k++) {
		cr_assert_eq(p.part[k].dtype, OB_F16);
		cr_assert_eq(p.part[k].shape.dim[1], 3);
		cr_assert_eq(p.part[k].shape.dim[2], 3);
		cr_assert_eq(p.part[k].len, 6 * 3 * 2);
	}
	ob_codec_mlx.granularity(&enc, &shape, &rows, &cols);
	cr_assert_eq(rows, 1);
	cr_assert_eq(cols, 128);
	/* A piece in the middle of the fifth row. */
	cr_assert_eq(ob_codec_mlx.ranges(&enc, &shape, 0, (struct ob_elems){ 1664, 1920 }, &r), 1);
	cr_assert_eq(r.off, 1664 * 3 / 8);
	cr_assert_eq(r.len, 256 * 3 / 8);
	cr_assert_eq(ob_codec_mlx.ranges(&enc, &shape, 2, (struct ob_elems){ 1664, 1920 }, &r), 1);
	cr_assert_eq(r.off, 13 * 2);
	cr_assert_eq(r.len, 2 * 2);
	ob_arena_free(&a);
}

Test(mlx, layout_beyond_any_file)
{
	static const uint64_t huge[] = { 1ull << 40, 1ull << 40 };
	struct ob_encoding enc = {
		.codec = &ob_codec_mlx, .dtype = OB_F16, .bits = 3, .group = 128
	};
	struct ob_arena a = { 0 };
	struct ob_parts p;
	ob_err e = { 0 };

	cr_assert_eq(ob_codec_mlx.layout(&enc, &(struct ob_shape){ 2, huge }, &a, &p, &e), -1);
	cr_assert_eq(e.code, OB_LIMIT);
}

static int layout_and_free(void *ctx, ob_err *e)
{
	static const uint64_t dim[] = { 8, 64 };
	struct ob_encoding enc = {
		.codec = &ob_codec_mlx, .dtype = OB_F16, .bits = 4, .group = 64
	};
	struct ob_arena a = { 0 };
	struct ob_parts p;
	int rc;

	(void)ctx;
	rc = ob_codec_mlx.layout(&enc, &(struct ob_shape){ 2, dim }, &a, &p, e);
	ob_arena_free(&a);
	return rc;
}

static int config_and_free(void *ctx, ob_err *e)
{
	struct ob_encoding enc = {
		.codec = &ob_codec_mlx, .dtype = OB_F16, .bits = 4, .group = 64
	};
	struct ob_encoding other = {
		.codec = &ob_codec_mlx, .dtype = OB_F16, .bits = 6, .group = 64
	};
	struct ob_text t = { 0 };
	int rc;

	if (ctx)
		rc = ob_codec_mlx.config_block(&enc, &t, e);
	else
		rc = ob_codec_mlx.config_override(&enc, &other, &t, e) == 1 ? 0 : -1;
	ob_text_free(&t);
	return rc;
}

Test(mlx, layout_and_config_without_memory)
{
	static int block;

	cr_assert_gt(oom_sweep(layout_and_free, NULL), 0);
	cr_assert_gt(oom_sweep(config_and_free, &block), 0);
	cr_assert_gt(oom_sweep(config_and_free, NULL), 0);
}

Test(mlx, config)
{
	struct ob_encoding model = {
		.codec = &ob_codec_mlx, .dtype = OB_BF16, .bits = 4, .group = 64
	};
	struct ob_encoding enc = model, plain = { .codec = &ob_codec_float, .dtype = OB_BF16 };
	struct ob_text t = { 0 };
	ob_err e = { 0 };

	cr_assert_str_eq(ob_codec_mlx.config_keys[0], "quantization");
	cr_assert_str_eq(ob_codec_mlx.config_keys[1], "quantization_config");
	cr_assert_null(ob_codec_mlx.config_keys[2]);
	cr_assert_eq(ob_codec_mlx.config_block(&model, &t, &e), 0);
	cr_assert_str_eq(t.data, "{\"group_size\": 64, \"bits\": 4, \"mode\": \"affine\"}");
	ob_text_free(&t);
	enc.dtype = OB_F16;
	cr_assert_eq(ob_codec_mlx.config_override(&model, &enc, &t, &e), 0);
	cr_assert_eq(ob_codec_mlx.config_override(&model, &plain, &t, &e), 0);
	cr_assert_eq(ob_codec_mlx.config_override(&model, NULL, &t, &e), 0);
	cr_assert_eq(t.len, 0);
	enc.group = 32;
	cr_assert_eq(ob_codec_mlx.config_override(&model, &enc, &t, &e), 1);
	cr_assert_str_eq(t.data, "{\"group_size\": 32, \"bits\": 4}");
	ob_text_free(&t);
	t = (struct ob_text){ 0 };
	enc.group = 64;
	enc.bits = 8;
	cr_assert_eq(ob_codec_mlx.config_override(&model, &enc, &t, &e), 1);
	cr_assert_str_eq(t.data, "{\"group_size\": 64, \"bits\": 8}");
	ob_text_free(&t);
}

/* ---- values -------------------------------------------------------------------------------- */

/* One group of 32 in bf16, ((37 i + 11) mod 64 - 29) / 32, as mlx 0.32 on a CPU encodes it. */
static const struct {
	unsigned bits;
	uint16_t scale;
	uint8_t codes[32];
} vectors[] = {
	{ 2, 0xbf00, { 0x27, 0xde, 0x89, 0x37, 0xee, 0x8d, 0x77, 0xe2 } },
	{ 3, 0xbe80, { 0x56, 0xc1, 0xcb, 0x29, 0x76, 0x39, 0xfc, 0xac, 0x82, 0x9f, 0x53, 0xf0 } },
	{ 4,
	  0xbe00,
	  { 0x3c, 0x1a, 0xe8, 0xc5, 0x92, 0x70, 0x4e, 0x2b, 0xf8, 0xd6, 0xa4, 0x81, 0x5e, 0x3c,
	    0x0a, 0xe7 } },
	{ 5, 0xbd80, { 0xd9, 0x50, 0xf1, 0xb8, 0xc2, 0x45, 0x02, 0xb7, 0x91, 0x25,
		       0xd1, 0x33, 0x7d, 0xa8, 0x80, 0x5d, 0x61, 0x33, 0x81, 0xe3 } },
	{ 6, 0xbcf8, { 0x74, 0x93, 0x0e, 0xdf, 0x5e, 0xc1, 0x8a, 0x09, 0x70, 0xb8, 0xd4, 0x1e,
		       0xe3, 0x9f, 0xd5, 0x8e, 0x4a, 0x80, 0xbc, 0x25, 0x2f, 0x67, 0xd0, 0xe5 } },
	{ 8, 0xbbf5, { 0xd1, 0x36, 0xa8, 0x0d, 0x7e, 0xef, 0x54, 0xc5, 0x2a, 0x9b, 0x00,
		       0x71, 0xe2, 0x47, 0xb8, 0x1d, 0x8e, 0xff, 0x64, 0xd6, 0x3b, 0xac,
		       0x11, 0x82, 0xf3, 0x58, 0xc9, 0x2e, 0x9f, 0x04, 0x75, 0xe6 } },
};

Test(mlx, vectors_in_the_middle_of_a_tile)
{
	static const uint64_t dim[] = { 4, 96 };
	struct ob_shape shape = { 2, dim };
	struct ob_elems tile = { 96, 288 }, at = { 160, 192 };
	float scratch[2];

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		unsigned bits = vectors[i].bits;
		struct ob_encoding enc = { .codec = &ob_codec_mlx,
					   .dtype = OB_BF16,
					   .bits = (uint16_t)bits,
					   .group = 32 };
		uint8_t codes[192] = { 0 }, none[192] = { 0 };
		uint16_t scales[6] = { 0 }, biases[6] = { 0 };
		struct ob_span span[3 * OB_MAX_RANGES] = {
			[0] = { codes, 24 * bits },
			[OB_MAX_RANGES] = { (uint8_t *)scales, sizeof(scales) },
			[2 * OB_MAX_RANGES] = { (uint8_t *)biases, sizeof(biases) }
		};
		float x[32];

		for (int k = 0; k < 32; k++)
			x[k] = (float)((37 * k + 11) % 64 - 29) / 32;
		cr_assert_eq(ob_codec_mlx.scratch_floats(&enc, 32), 2);
		ob_codec_mlx.encode(&enc, &shape, span, tile, at, x, scratch, NULL);
		cr_assert_arr_eq(codes + 8 * bits, vectors[i].codes, 4 * bits, "%u bits", bits);
		cr_assert_arr_eq(codes, none, 8 * bits);
		cr_assert_arr_eq(codes + 12 * bits, none, 12 * bits);
		cr_assert_eq(scales[2], vectors[i].scale, "%u bits: %04x", bits, scales[2]);
		cr_assert_eq(biases[2], 0x3f80);
	}
}

/* Six bits: two roundings to bf16, one to float32 each, differ. */
Test(mlx, decodes_as_mlx_or_in_float32)
{
	static const float exact[] = { -0.578125f,  0.60546875f, -0.2421875f,
				       0.91015625f, 0.0625f,	 -0.7890625f };
	static const uint64_t dim[] = { 1, 32 };
	struct ob_encoding enc = {
		.codec = &ob_codec_mlx, .dtype = OB_BF16, .bits = 6, .group = 32
	};
	struct ob_shape shape = { 2, dim };
	struct ob_elems all = { 0, 32 };
	uint8_t codes[24];
	uint16_t scale = vectors[4].scale, bias = 0x3f80;
	struct ob_span span[3 * OB_MAX_RANGES] = { [0] = { codes, sizeof(codes) },
						   [OB_MAX_RANGES] = { (uint8_t *)&scale, 2 },
						   [2 * OB_MAX_RANGES] = { (uint8_t *)&bias, 2 } };
	float x[32], scratch[2], s;
	uint32_t scale_bits = (uint32_t)scale << 16;

	memcpy(codes, vectors[4].codes, sizeof(codes));
	memcpy(&s, &scale_bits, sizeof(s));
	ob_codec_mlx.decode(&enc, &shape, span, all, all, OB_DECODE_EXACT, x, scratch);
	cr_assert_arr_eq(x, exact, sizeof(exact));
	ob_codec_mlx.decode(&enc, &shape, span, all, all, OB_DECODE_F32, x, scratch);
	cr_assert_float_eq(x[0], s * 52 + 1, 0);
	cr_assert_float_eq(x[1], s * 13 + 1, 0);
	cr_assert_float_eq(x[3], s * 3 + 1, 0);
}
