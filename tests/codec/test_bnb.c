/* SPDX-License-Identifier: Apache-2.0 */
/* NF4, FP4 and LLM.int8: values against vectors worked out by hand from bitsandbytes' kernels, what
 * is recognised, and what is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/oom.h"
#include "codec/bnb.h"

#define NAME "model.layers.0.mlp.up_proj.weight"
#define STATE_NAME NAME ".quant_state.bitsandbytes__nf4"

/* ---- recognition --------------------------------------------------------------------------- */

#define MAX_TENSORS 8

struct folder {
	struct ob_lookup lookup;
	struct ob_stored t[MAX_TENSORS];
	uint64_t dim[MAX_TENSORS][2];
	struct ob_file file[MAX_TENSORS];
	unsigned n;
	struct ob_arena arena;
	const char *config;
};

static const struct ob_stored *find(const struct ob_lookup *l, const char *name)
{
	const struct folder *f = (const struct folder *)(const void *)l;

	for (unsigned k = 0; k < f->n; k++)
		if (!strcmp(f->t[k].name, name))
			return &f->t[k];
	return NULL;
}

static struct ob_stored *add(struct folder *f, const char *name, enum ob_dtype t, uint32_t rank,
			     uint64_t d0, uint64_t d1, const char *bytes)
{
	unsigned k = f->n++;

	f->dim[k][0] = d0;
	f->dim[k][1] = d1;
	f->file[k].map = (const uint8_t *)bytes;
	f->t[k] = (struct ob_stored){
		.name = name,
		.dtype = t,
		.shape = { rank, f->dim[k] },
		.file = &f->file[k],
		.len = (rank ? d0 : 1) * (rank > 1 ? d1 : 1) * (ob_dtype_bits(t) / 8),
	};
	return &f->t[k];
}

static void add_state(struct folder *f, const char *text)
{
	add(f, STATE_NAME, OB_U8, 1, strlen(text), 1, text);
}

/* [8, 96] in blocks of 64: 384 bytes of codes, 12 scales. */
#define PLAIN \
	"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [8, 96]"
#define NESTED                                                                                \
	PLAIN ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\"" \
	      ": 0.5}"

static void make(struct folder *f, const char *state)
{
	*f = (struct folder){ .lookup.find = find };
	f->lookup.arena = &f->arena;
	add(f, NAME, OB_U8, 2, 384, 1, NULL);
	add(f, NAME ".absmax", OB_F32, 1, 12, 1, NULL);
	add(f, NAME ".quant_map", OB_F32, 1, 16, 1, NULL);
	add_state(f, state);
}

static void make_nested(struct folder *f, const char *state)
{
	make(f, state);
	f->t[1].dtype = OB_U8;
	f->t[1].len = 12;
	add(f, NAME ".nested_absmax", OB_F32, 1, 1, 1, NULL);
	add(f, NAME ".nested_quant_map", OB_F32, 1, 256, 1, NULL);
}

static int ask(struct folder *f, const struct ob_codec *c, struct ob_recognised *r, ob_err *e)
{
	struct ob_jv *config = NULL;
	int got;

	*e = (ob_err){ 0 };
	if (f->config && ob_json_parse(&config, f->config, strlen(f->config), "config.json", e) < 0)
		return -2;
	f->lookup.config = config;
	got = c->recognise(&f->t[0], &f->lookup, r, e);
	ob_json_free(config);
	return got;
}

static struct ob_encoding is(struct folder *f)
{
	struct ob_recognised r;
	ob_err e;

	cr_assert_eq(ask(f, &ob_codec_bnb, &r, &e), 1, "%s", e.msg);
	cr_assert_str_eq(r.name, NAME);
	for (unsigned k = 0; k < f->n; k++)
		cr_assert_eq(r.part[k], &f->t[k]);
	ob_arena_free(&f->arena);
	return r.enc;
}

/* The error names the tensor and every one of the words ("a|b"). */
static void is_wrong_in(struct folder *f, const struct ob_codec *c, enum ob_code code,
			const char *words)
{
	struct ob_recognised r;
	ob_err e;
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", words);
	cr_assert_eq(ask(f, c, &r, &e), -1, "%s", words);
	cr_assert_eq(e.code, code, "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, "up_proj.weight"), "%s", e.msg);
	for (char *w = strtok(copy, "|"); w; w = strtok(NULL, "|"))
		cr_assert_not_null(strstr(e.msg, w), "'%s' is not in: %s", w, e.msg);
	ob_arena_free(&f->arena);
}

static void is_wrong(struct folder *f, enum ob_code code, const char *words)
{
	is_wrong_in(f, &ob_codec_bnb, code, words);
}

Test(bnb, recognised)
{
	struct folder f;
	struct ob_encoding enc;

	make(&f, PLAIN "}");
	enc = is(&f);
	cr_assert_eq(enc.group, 64);
	cr_assert_eq(enc.dtype, OB_BF16);
	cr_assert_eq(enc.variant, 0);
	make_nested(&f, NESTED);
	cr_assert_eq(is(&f).variant, OB_BNB_NESTED);
	/* Codes under another type, and in the shape that vLLM writes. */
	make(&f, PLAIN "}");
	f.t[0].dtype = OB_BF16;
	f.dim[0][0] = 192;
	cr_assert_eq(OB_BNB_STORAGE(is(&f).variant), OB_BF16);
	make(&f, PLAIN "}");
	f.dim[0][0] = 8;
	f.dim[0][1] = 48;
	is(&f);
}

Test(bnb, missing_and_contradicting_parts)
{
	struct folder f;

	for (unsigned k = 1; k < 6; k++) {
		char name[128];

		make_nested(&f, NESTED);
		snprintf(name, sizeof(name), "%s", f.t[k].name);
		f.t[k].name = "elsewhere";
		is_wrong(&f, OB_CORRUPT, name);
	}
	make(&f, PLAIN "}");
	add(&f, NAME ".quant_state.bitsandbytes__fp4", OB_U8, 1, 2, 1, "{}");
	is_wrong(&f, OB_MISMATCH, "two states|__nf4|__fp4");
	make_nested(&f, PLAIN "}");
	f.t[1].dtype = OB_F32;
	is_wrong(&f, OB_MISMATCH, ".nested_absmax");
	make_nested(&f, NESTED);
	f.t[1].dtype = OB_F32;
	is_wrong(&f, OB_MISMATCH, ".absmax|F32");
	make(&f, PLAIN "}");
	f.dim[1][0] = 13;
	is_wrong(&f, OB_MISMATCH, ".absmax|[13]|12 values");
	make(&f, PLAIN "}");
	f.dim[0][0] = 383;
	is_wrong(&f, OB_MISMATCH, "[383, 1]|383 bytes|384|[8, 96]");
	make(&f, PLAIN "}");
	f.dim[0][0] = 1;
	f.dim[0][1] = 384;
	is_wrong(&f, OB_UNSUPPORTED, "[1, 384]|transposed");
	/* The state alone. */
	f = (struct folder){ .lookup.find = find };
	add_state(&f, PLAIN "}");
	is_wrong(&f, OB_CORRUPT, "is missing|" STATE_NAME);
	/* Nothing but bytes, and a config that promises more. */
	f = (struct folder){ .lookup.find = find };
	add(&f, NAME, OB_U8, 2, 384, 1, NULL);
	f.config = "{\"quantization_config\": {\"load_in_4bit\": true}}";
	is_wrong(&f, OB_MISMATCH, "load_in_4bit|" STATE_NAME);
}

Test(bnb, hostile_states)
{
	static const struct {
		const char *text, *word;
		enum ob_code code;
	} states[] = {
		{ "", "no row of bytes", OB_CORRUPT },
		{ "{", "cannot be read", OB_CORRUPT },
		{ "[]", "no JSON object", OB_CORRUPT },
		{ "{}", "quant_type nf4", OB_MISMATCH },
		{ PLAIN ", \"extra\": 1}", "extra", OB_UNSUPPORTED },
		{ "{\"quant_type\": \"fp4\"}", "quant_type nf4", OB_MISMATCH },
		{ "{\"quant_type\": \"nf4\"}", "blocksize", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 63}", "blocksize", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 0}", "blocksize", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": -64}", "blocksize", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 8192}", "blocksize", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 4294967360}", "blocksize", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int8\"}", "int8",
		  OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\"}",
		  "no shape", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", "
		  "\"shape\": null}",
		  "no shape", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", "
		  "\"shape\": [8, 0]}",
		  "sizes", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", "
		  "\"shape\": [8, \"96\"]}",
		  "sizes", OB_CORRUPT },
		{ "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", "
		  "\"shape\": [4503599627370496, 4503599627370496]}",
		  "larger than any file", OB_LIMIT },
		{ PLAIN ", \"nested_blocksize\": 256}", "nested statistics", OB_UNSUPPORTED },
		{ PLAIN ", \"nested_blocksize\": 128, \"nested_dtype\": \"float32\", "
			"\"nested_offset\": 0}",
		  "nested statistics", OB_UNSUPPORTED },
		{ PLAIN ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\"}",
		  "nested_offset", OB_CORRUPT },
		{ PLAIN ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
			"\"nested_offset\": 1e39}",
		  "nested_offset", OB_CORRUPT },
		{ PLAIN ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
			"\"nested\\u005foffset\": 0.5}",
		  "unusual", OB_UNSUPPORTED },
	};
	struct folder f;

	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		make_nested(&f, states[i].text);
		is_wrong(&f, states[i].code, states[i].word);
	}
	make(&f, PLAIN "}");
	f.t[3].dtype = OB_I8;
	is_wrong(&f, OB_CORRUPT, "no row of bytes");
}

static void make_int8(struct folder *f)
{
	*f = (struct folder){ .lookup.find = find };
	f->lookup.arena = &f->arena;
	add(f, NAME, OB_I8, 2, 4, 6, NULL);
	add(f, "model.layers.0.mlp.up_proj.SCB", OB_F32, 1, 4, 1, NULL);
	add(f, "model.layers.0.mlp.up_proj.weight_format", OB_U8, 0, 1, 1, "\0");
	f->config = "{\"dtype\": \"bfloat16\", \"quantization_config\": {\"load_in_8bit\": true}}";
}

Test(bnb, int8_recognition)
{
	const struct ob_codec *c = &ob_codec_bnb_int8;
	struct ob_recognised r;
	struct folder f;
	ob_err e;

	make_int8(&f);
	cr_assert_eq(ask(&f, c, &r, &e), 1, "%s", e.msg);
	cr_assert_eq(r.enc.dtype, OB_BF16);
	cr_assert_eq(r.part[2], &f.t[2]);
	f.n = 2; /* an old file; and nothing says the type */
	f.config = NULL;
	cr_assert_eq(ask(&f, c, &r, &e), 1, "%s", e.msg);
	cr_assert_eq(r.enc.dtype, OB_F16);
	cr_assert_null(r.part[2]);
	add(&f, "model.layers.0.mlp.up_proj.bias", OB_F32, 1, 4, 1, NULL);
	cr_assert_eq(ask(&f, c, &r, &e), 1, "%s", e.msg);
	cr_assert_eq(r.enc.dtype, OB_F32);
	f.n = 1;
	cr_assert_eq(ask(&f, c, &r, &e), 0);
	make_int8(&f);
	f.t[1].name = "elsewhere";
	is_wrong_in(&f, c, OB_CORRUPT, "weight_format|up_proj.SCB is missing");
	f.n = 1;
	is_wrong_in(&f, c, OB_CORRUPT, "load_in_8bit|up_proj.SCB is missing");
	make_int8(&f);
	f.file[2].map = (const uint8_t *)"\2";
	is_wrong_in(&f, c, OB_UNSUPPORTED, "weight_format|layout 2");
	make_int8(&f);
	f.t[2].dtype = OB_F32;
	is_wrong_in(&f, c, OB_CORRUPT, "weight_format");
	make_int8(&f);
	f.dim[1][0] = 5;
	is_wrong_in(&f, c, OB_MISMATCH, "[4, 6]|.SCB|[5]");
	make_int8(&f);
	f.t[0].shape.rank = 1;
	is_wrong_in(&f, c, OB_MISMATCH, "no matrix");
}

static int recognise_and_free(void *ctx, ob_err *e)
{
	struct folder *f = ctx;
	struct ob_recognised r;
	int got = ob_codec_bnb.recognise(&f->t[0], &f->lookup, &r, e);

	ob_arena_free(&f->arena);
	return got < 0 ? -1 : 0;
}

Test(bnb, recognition_without_memory)
{
	struct folder f;

	make_nested(&f, NESTED);
	cr_assert_gt(oom_sweep(recognise_and_free, &f), 0);
}

/* ---- values -------------------------------------------------------------------------------- */

/* A tensor encoded in one call. */
struct encoded {
	struct ob_encoding enc;
	struct ob_shape shape;
	struct ob_parts parts;
	uint8_t part[OB_MAX_PARTS][8192];
	struct ob_span span[OB_MAX_PARTS * OB_MAX_RANGES];
	struct ob_elems all;
	struct ob_arena arena;
};

static void encode(struct encoded *x, const char *scheme, enum ob_dtype dtype, uint32_t rank,
		   const uint64_t *dim, const float *values)
{
	static float src[8192], scratch[8192];
	double stats[64] = { 0 }, total[64] = { 0 };
	const struct ob_codec *c;
	ob_err e = { 0 };

	memset(x, 0, sizeof(*x));
	cr_assert_eq(ob_encoding_parse(&x->enc, scheme, &e), 0, "%s", e.msg);
	x->enc.dtype = dtype;
	x->shape = (struct ob_shape){ rank, dim };
	ob_shape_elems(&x->shape, &x->all.e1);
	c = x->enc.codec;
	cr_assert_eq(c->layout(&x->enc, &x->shape, &x->arena, &x->parts, &e), 0, "%s", e.msg);
	for (unsigned k = 0; k < x->parts.n; k++)
		x->span[k * OB_MAX_RANGES] = (struct ob_span){ x->part[k], x->parts.part[k].len };
	memcpy(src, values, x->all.e1 * sizeof(*src));
	if (ob_codec_stats(&x->enc, &x->shape, x->all)) {
		c->measure(&x->enc, &x->shape, x->all, x->all, src, scratch, stats);
		c->reduce(&x->enc, &x->shape, total, x->all, stats);
	}
	c->encode(&x->enc, &x->shape, x->span, x->all, x->all, src, scratch, total);
	ob_arena_free(&x->arena);
}

static void decode(struct encoded *x, float *dst)
{
	static float scratch[8192];

	x->enc.codec->decode(&x->enc, &x->shape, x->span, x->all, x->all, OB_DECODE_EXACT, dst,
			     scratch);
}

static uint32_t bits_of(float v)
{
	uint32_t u;

	memcpy(&u, &v, sizeof(u));
	return u;
}

static void expect_part(const struct encoded *x, unsigned k, const void *want, size_t n)
{
	cr_expect_arr_eq(x->part[k], want, n, "part %u", k);
}

/* (((37 i + 11) mod 64) - 29) / 32, then six values in a short block. */
static void vector(float v[70])
{
	static const float tail[] = { 0.25f, -0.5f, 0.125f, 0.0625f, -0.0625f, 0.375f };

	for (int i = 0; i < 64; i++)
		v[i] = (float)((37 * i + 11) % 64 - 29) / 32;
	memcpy(v + 64, tail, sizeof(tail));
}

Test(bnb, four_bits_by_hand)
{
	static const uint8_t nf4[] = {
		0x2d, 0x4e, 0x81, 0xb3, 0xe5, 0xf9, 0x1c, 0x3e, 0x60, 0xa2, 0xd4, 0xe7,
		0x1b, 0x2d, 0x5f, 0x81, 0xc3, 0xe6, 0xfa, 0x2c, 0x4e, 0x71, 0xb2, 0xd5,
		0xf8, 0x1b, 0x3e, 0x6f, 0x91, 0xc4, 0xe7, 0x1a, 0xc0, 0xa9, 0x6e,
	};
	static const uint8_t fp4[] = {
		0xd5, 0xf3, 0x1a, 0x4d, 0x2e, 0x36, 0xa5, 0xc2, 0x9b, 0x7d, 0x5f, 0x21,
		0xa4, 0xd2, 0xe3, 0x6a, 0x4c, 0x2e, 0x36, 0xa5, 0xc2, 0x0a, 0x4d, 0x2e,
		0x36, 0xa4, 0xc2, 0xe3, 0x6a, 0x5c, 0x29, 0xa7, 0x5b, 0x76, 0xe2,
	};
	static const uint32_t values[] = { 0xbf0ed1e3, 0x3f190826, 0xbe9abc72, 0x3f44a4ee,
					   0x3dad2aaf, 0xbf3d5d4c, 0x3eb7d36e, 0xbed6d5ca };
	static const float absmax[] = { 1.0625f, 0.5f };
	static const uint64_t dim[] = { 70 };
	static struct encoded x;
	float v[70], y[70];

	vector(v);
	encode(&x, "bnb-nf4", OB_F32, 1, dim, v);
	expect_part(&x, 0, nf4, sizeof(nf4));
	expect_part(&x, 1, absmax, sizeof(absmax));
	decode(&x, y);
	for (int i = 0; i < 8; i++)
		cr_expect_eq(bits_of(y[i]), values[i], "%d: %08x", i, bits_of(y[i]));
	encode(&x, "bnb-fp4", OB_BF16, 1, dim, v);
	expect_part(&x, 0, fp4, sizeof(fp4));
	expect_part(&x, 1, absmax, sizeof(absmax));
	decode(&x, y);
	cr_expect_eq(bits_of(y[4]), 0x3bb50000);
	cr_expect_eq(bits_of(y[5]), 0xbf350000);
}

/* An odd count, zeros, and a row that begins inside a block. */
Test(bnb, four_bits_at_the_edges)
{
	static const float odd[] = { 0.5f, -0.25f, 1, -1, 0.125f };
	static const float zeros[64];
	static const uint64_t five[] = { 5 }, rows[] = { 3, 33 }, block[] = { 64 };
	static struct encoded x;
	float v[99], y[99];

	encode(&x, "bnb-nf4", OB_F32, 1, five, odd);
	expect_part(&x, 0, "\xc4\xf0\x97", 3);
	encode(&x, "bnb-nf4", OB_F32, 1, block, zeros);
	for (int i = 0; i < 32; i++)
		cr_expect_eq(x.part[0][i], 0x77);
	expect_part(&x, 1, zeros, 4);
	for (int i = 0; i < 99; i++)
		v[i] = i == 40 ? 3.0f : 0.5f;
	encode(&x, "bnb-nf4,block=32", OB_F32, 2, rows, v);
	decode(&x, y);
	cr_expect_eq(y[31], 0.5f);
	cr_expect_eq(y[40], 3);
	cr_expect_eq(y[64], 0.5f);
	cr_expect_eq(y[98], 0.5f);
}

Test(bnb, nested_by_hand)
{
	static const float absmax[] = { 0.5f, 0.75f, 1.0f, 1.25f, 0.625f, 0.875f, 1.5f, 1.125f };
	static const uint8_t codes[] = { 12, 44, 185, 222, 28, 60, 255, 206 };
	static const uint32_t scales[] = { 0x3f009c00, 0x3f3f9c00, 0x3f7fd59a, 0x3fa00200,
					   0x3f201c00, 0x3f5f1c00, 0x3fc00000, 0x3f904200 };
	static const char state[] =
		"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": "
		"[8, 64], \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
		"\"nested_offset\": 0.953125}";
	static const float nested = 0.546875f;
	static const uint64_t dim[] = { 8, 64 };
	static struct encoded x;
	float v[512] = { 0 }, y[512];

	for (int i = 0; i < 8; i++)
		v[64 * i] = absmax[i];
	encode(&x, "bnb-nf4,nested", OB_F32, 2, dim, v);
	expect_part(&x, 1, codes, sizeof(codes));
	cr_expect_arr_eq(x.part[3], state, sizeof(state) - 1, "%s", (char *)x.part[3]);
	cr_expect(x.parts.part[3].padded);
	for (size_t i = sizeof(state) - 1; i < x.parts.part[3].len; i++)
		cr_expect_eq(x.part[3][i], ' ');
	expect_part(&x, 4, &nested, sizeof(nested));
	expect_part(&x, 5, ob_bnb_map, sizeof(ob_bnb_map));
	decode(&x, y);
	for (int i = 0; i < 8; i++)
		cr_expect_eq(bits_of(y[64 * i]), scales[i], "%d: %08x", i, bits_of(y[64 * i]));
}

Test(bnb, nearest_entry_of_the_map)
{
	for (unsigned k = 0; k < 256; k++) {
		cr_expect_eq(ob_bnb_nearest(ob_bnb_map[k]), k, "%u", k);
		if (k == 255)
			break;
		float middle = (ob_bnb_map[k] + ob_bnb_map[k + 1]) * 0.5f;

		cr_expect_eq(ob_bnb_nearest(middle), k + (k & 1), "%u", k);
		cr_expect_eq(ob_bnb_nearest(nextafterf(middle, -2)), k, "%u", k);
		cr_expect_eq(ob_bnb_nearest(nextafterf(middle, 2)), k + 1, "%u", k);
	}
	cr_expect_eq(ob_bnb_nearest(-2), 0);
	cr_expect_eq(ob_bnb_nearest(2), 255);
}

/* The sum does not depend on where the tensor is cut. */
Test(bnb, statistics_of_any_cut)
{
	enum { N = 1000 };
	static float a[N];
	double whole[64] = { 0 }, tile[64], total[64];

	for (int i = 0; i < N; i++)
		a[i] = ldexpf((float)(i * 7919 % 1009), i % 40 - 30);
	ob_bnb_stats_add(whole, 0, 0, a, N);
	for (uint64_t cut = 1; cut < N; cut += 37) {
		memset(total, 0, sizeof(total));
		for (uint64_t b = 0; b < N; b += cut) {
			uint64_t end = b + cut < N ? b + cut : N;

			memset(tile, 0, sizeof(tile));
			ob_bnb_stats_add(tile, b, b, a + b, end - b);
			ob_bnb_stats_fold(total, b, end, tile);
		}
		cr_assert_eq(ob_bnb_stats_mean(total, N), ob_bnb_stats_mean(whole, N));
		cr_assert_arr_eq(total + 2, whole + 2, 8 * sizeof(double));
	}
}

Test(bnb, offsets_as_python_prints_them)
{
	static const struct {
		float x;
		const char *text;
	} cases[] = {
		{ 0.5f, "0.5}" },
		{ 1, "1.0}" },
		{ 0.0413f, "0.04129999876022339}" },
		{ 1e-5f, "9.999999747378752e-06}" },
		{ 0x1p-149f, "1.401298464324817e-45}" },
		{ 16777216, "16777216.0}" },
		{ 0.1f, "0.10000000149011612}" },
	};
	const struct ob_encoding enc = {
		.codec = &ob_codec_bnb, .dtype = OB_F16, .group = 64, .variant = OB_BNB_NESTED
	};
	const uint64_t dim[] = { 2, 64 };
	const struct ob_shape shape = { 2, dim };
	char text[OB_BNB_STATE_MAX];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t n = ob_bnb_state_write(text, &enc, &shape, cases[i].x);
		const char *p = memmem(text, n, "offset\": ", 9);

		cr_assert_eq(n, ob_bnb_state_len(&enc, &shape));
		cr_expect_eq(memcmp(p + 9, cases[i].text, strlen(cases[i].text)), 0, "%.40s", p);
		cr_expect_eq(ob_bnb_state_offset(text, n), cases[i].x);
	}
}

Test(bnb, int8_by_hand)
{
	static const float v[16] = { 0.5f,    -1,	 0.25f, 0.75f,	  -0.125f, 0,
				     0.3125f, -0.6875f,	 2,	0.5f,	  -0.5f,   1.5f,
				     -1.75f,  0.015625f, -2.5f, 0.984375f };
	static const int8_t codes[16] = { 64,  -127, 32,  95, -16, 0, 40,   -87,
					  102, 25,   -25, 76, -89, 1, -127, 50 };
	static const uint32_t values[16] = { 0x3f010204, 0xbf800000, 0x3e810204, 0x3f3f7efe };
	static const float scb[] = { 1, 2.5f };
	static const uint64_t dim[] = { 2, 8 };
	static struct encoded x;
	float y[16];

	encode(&x, "bnb-int8", OB_F32, 2, dim, v);
	expect_part(&x, 0, codes, sizeof(codes));
	expect_part(&x, 1, scb, sizeof(scb));
	expect_part(&x, 2, "\0", 1);
	decode(&x, y);
	for (int i = 0; i < 4; i++)
		cr_expect_eq(bits_of(y[i]), values[i], "%d: %08x", i, bits_of(y[i]));
	cr_expect_eq(ob_codec_overflow_bits(&x.enc), bits_of(65520));
}

/* ---- schemes, configuration, targets ------------------------------------------------------- */

Test(bnb, schemes)
{
	static const char *const wrong[] = {
		"bnb-nf4:4",	    "bnb-nf4,block=",	  "bnb-nf4,block=48",
		"bnb-nf4,block=16", "bnb-fp4,block=8192", "bnb-fp4,nested=1",
		"bnb-fp4,group=64", "bnb-int8,block=64",  "bnb-nf4,block=4294967360"
	};
	struct ob_encoding enc;
	char text[64];
	ob_err e = { 0 };

	cr_assert_eq(ob_encoding_parse(&enc, "BNB-FP4,nested,block=128", &e), 0, "%s", e.msg);
	cr_expect_str_eq(enc.codec->describe(&enc, text, sizeof(text)), "bnb-fp4,block=128,nested");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		e = (ob_err){ 0 };
		cr_expect_eq(ob_encoding_parse(&enc, wrong[i], &e), -1, "%s", wrong[i]);
		cr_expect_eq(e.code, OB_USAGE);
	}
}

Test(bnb, accepts)
{
	static const uint64_t wide[] = { 512, 4304 }, odd[] = { 300, 4099 }, one[] = { 7 },
			      long_row[] = { 2, 300000 };
	const char *why = NULL;
	struct ob_encoding enc;
	ob_err e = { 0 };

	ob_encoding_parse(&enc, "bnb-nf4,nested", &e);
	enc.dtype = OB_BF16;
	cr_expect(enc.codec->accepts(&enc, &(struct ob_shape){ 2, wide }, &why), "%s", why);
	cr_expect(enc.codec->accepts(&enc, &(struct ob_shape){ 1, one }, &why), "%s", why);
	cr_expect_not(enc.codec->accepts(&enc, &(struct ob_shape){ 2, odd }, &why));
	cr_expect_str_eq(why, "rows of 4099 columns and blocks of 64 do not line up");
	ob_encoding_parse(&enc, "bnb-int8", &e);
	enc.dtype = OB_BF16;
	cr_expect(enc.codec->accepts(&enc, &(struct ob_shape){ 2, odd }, &why), "%s", why);
	cr_expect_not(enc.codec->accepts(&enc, &(struct ob_shape){ 1, one }, &why));
	cr_expect_not(enc.codec->accepts(&enc, &(struct ob_shape){ 2, long_row }, &why));
}

static bool is_target(const char *name, uint32_t rank, enum ob_use use)
{
	static const uint64_t dim[] = { 8, 64, 64 };

	return ob_codec_bnb.default_target(NULL, name, &(struct ob_shape){ rank, dim }, use, NULL);
}

Test(bnb, default_targets)
{
	cr_expect(is_target("model.layers.0.self_attn.q_proj.weight", 2, OB_USE_OTHER));
	cr_expect(is_target("model.layers.0.mlp.gate_proj.weight", 2, OB_USE_OTHER));
	cr_expect(is_target("transformer.norm_out.linear.weight", 2, OB_USE_OTHER));
	cr_expect(is_target("x_embedder.weight", 2, OB_USE_OTHER));
	cr_expect_not(is_target("lm_head.weight", 2, OB_USE_HEAD));
	cr_expect_not(is_target("output.weight", 2, OB_USE_HEAD));
	cr_expect_not(is_target("model.embed_tokens.weight", 2, OB_USE_EMBEDDING));
	cr_expect_not(is_target("bert.embeddings.position_embeddings.weight", 2, OB_USE_OTHER));
	cr_expect_not(is_target("block.0.layer.0.relative_attention_bias.weight", 2, OB_USE_OTHER));
	cr_expect_not(is_target("model.layers.0.self_attn.q_norm.weight", 2, OB_USE_OTHER));
	cr_expect_not(is_target("model.layers.0.mlp.gate.weight", 2, OB_USE_OTHER));
	cr_expect_not(is_target("model.layers.0.mlp.experts.down_proj.weight", 3, OB_USE_OTHER));
	cr_expect_not(is_target("model.layers.0.self_attn.q_proj.bias", 2, OB_USE_OTHER));
}

static void expect_block(const char *scheme, enum ob_dtype dtype, const char *const *lines)
{
	struct ob_encoding enc;
	struct ob_text text = { 0 };
	ob_err e = { 0 };

	cr_assert_eq(ob_encoding_parse(&enc, scheme, &e), 0);
	enc.dtype = dtype;
	cr_assert_eq(enc.codec->config_block(&enc, &text, &e), 0);
	for (; *lines; lines++)
		cr_expect(strstr(text.data, *lines), "%s is not in %s", *lines, text.data);
	ob_text_free(&text);
}

Test(bnb, config_blocks)
{
	expect_block("bnb-nf4,nested", OB_BF16,
		     (const char *[]){ "\"load_in_4bit\": true", "\"load_in_8bit\": false",
				       "\"bnb_4bit_quant_type\": \"nf4\"",
				       "\"bnb_4bit_use_double_quant\": true",
				       "\"bnb_4bit_compute_dtype\": \"bfloat16\"",
				       "\"bnb_4bit_quant_storage\": \"uint8\"",
				       "\"llm_int8_threshold\": 6.0",
				       "\"quant_method\": \"bitsandbytes\"", NULL });
	expect_block("bnb-int8", OB_BF16,
		     (const char *[]){ "\"load_in_4bit\": false", "\"load_in_8bit\": true",
				       "\"bnb_4bit_quant_type\": \"fp4\"",
				       "\"bnb_4bit_compute_dtype\": \"float32\"", NULL });
}

static const char *differs(const char *scheme, const char *config)
{
	static char text[64];
	struct ob_encoding enc;
	struct ob_jv *root = NULL;
	const char *says;
	ob_err e = { 0 };

	if (scheme)
		ob_encoding_parse(&enc, scheme, &e);
	cr_assert_eq(ob_json_parse(&root, config, strlen(config), "config.json", &e), 0);
	says = ob_codec_bnb.config_differs(scheme ? &enc : NULL, root, text, sizeof(text));
	ob_json_free(root);
	return says ? says : "";
}

Test(bnb, configuration_against_tensors)
{
#define BLOCK(x) "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"" x "}}"
	static const char nf4[] =
		BLOCK(", \"load_in_4bit\": true, \"bnb_4bit_quant_type\": \"nf4\"");
	static const char nested[] = BLOCK(", \"load_in_4bit\": true, \"bnb_4bit_quant_type\": "
					   "\"fp4\", \"bnb_4bit_use_double_quant\": true");
	static const char int8[] = BLOCK(", \"load_in_8bit\": true");

	cr_expect_str_eq(differs("bnb-nf4", nf4), "");
	cr_expect_str_eq(differs("bnb-nf4", nested), "bnb-fp4,nested");
	cr_expect_str_eq(differs("bnb-nf4", int8), "bnb-int8");
	cr_expect_str_eq(differs("bnb-int8", int8), "");
	cr_expect_str_eq(differs("bnb-nf4", "{}"), "nothing of bitsandbytes");
	cr_expect_str_eq(differs(NULL, nf4), "bnb-nf4");
	cr_expect_str_eq(differs(NULL, "{}"), "");
	cr_expect_str_eq(differs(NULL, "{\"quantization_config\": {\"quant_method\": \"gptq\"}}"),
			 "");
}
