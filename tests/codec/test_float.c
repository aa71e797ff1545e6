/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "codec/codec.h"

static const uint64_t dim[] = { 3, 5, 7 };

static struct ob_parts layout(const struct ob_encoding *enc, struct ob_shape shape)
{
	struct ob_arena a = { 0 };
	struct ob_parts parts;
	ob_err e = { 0 };

	cr_assert_eq(enc->codec->layout(enc, &shape, &a, &parts, &e), 0, "%s", e.msg);
	cr_assert_eq(parts.n, 1);
	cr_assert_null(parts.part[0].suffix);
	cr_assert_eq(parts.part[0].dtype, enc->dtype);
	cr_assert(ob_shape_equal(&parts.part[0].shape, &shape));
	cr_assert_not(parts.part[0].whole);
	ob_arena_free(&a);
	return parts;
}

Test(float, every_type_is_taken_by_float_or_raw)
{
	for (enum ob_dtype t = 0; t < OB_N_DTYPES; t++) {
		bool is_float = t == OB_F32 || t == OB_F16 || t == OB_BF16 || t == OB_F64;
		struct ob_stored s = { .name = "x.scales", .dtype = t, .shape = { 3, dim } };
		struct ob_lookup l = { 0 };
		struct ob_recognised r;
		ob_err e = { 0 };

		cr_assert_eq(ob_codec_float.recognise(&s, &l, &r, &e), is_float, "%s",
			     ob_dtype_name(t));
		if (!is_float)
			cr_assert_eq(ob_codec_raw.recognise(&s, &l, &r, &e), 1);
		cr_assert_eq(r.enc.codec, is_float ? &ob_codec_float : &ob_codec_raw);
		cr_assert_eq(r.enc.dtype, t);
		cr_assert_str_eq(r.name, "x.scales");
		cr_assert_eq(r.part[0], &s);
		cr_assert(ob_shape_equal(&r.shape, &s.shape));
	}
}

Test(float, what_can_be_written)
{
	struct ob_shape shape = { 3, dim };
	const char *why = NULL;

	for (enum ob_dtype t = 0; t < OB_N_DTYPES; t++) {
		struct ob_encoding enc = { .codec = &ob_codec_float, .dtype = t };

		cr_assert_eq(ob_codec_float.accepts(&enc, &shape, &why), ob_dtype_is_float(t));
		enc.codec = &ob_codec_raw;
		cr_assert_not(ob_codec_raw.accepts(&enc, &shape, &why));
		cr_assert_not_null(why);
	}
	cr_assert_null(ob_codec_raw.decode);
	cr_assert_null(ob_codec_raw.encode);
}

Test(float, layout_of_every_type)
{
	for (enum ob_dtype t = 0; t < OB_N_DTYPES; t++) {
		struct ob_encoding enc = { .codec = &ob_codec_raw, .dtype = t };
		uint64_t bits = ob_dtype_bits(t);

		cr_assert_eq(layout(&enc, (struct ob_shape){ 2, dim }).part[0].len,
			     (15 * bits + 7) / 8);
		cr_assert_eq(layout(&enc, (struct ob_shape){ 0, NULL }).part[0].len,
			     (bits + 7) / 8);
	}
}

Test(float, layout_beyond_any_file)
{
	static const uint64_t huge[] = { 1ull << 32, 1ull << 29 };
	struct ob_encoding enc = { .codec = &ob_codec_float, .dtype = OB_F32 };
	struct ob_shape shape = { 2, huge };
	struct ob_arena a = { 0 };
	struct ob_parts parts;
	ob_err e = { 0 };

	cr_assert_eq(ob_codec_float.layout(&enc, &shape, &a, &parts, &e), -1);
	cr_assert_eq(e.code, OB_LIMIT);
	cr_assert_not_null(strstr(e.msg, "[4294967296, 536870912]"), "%s", e.msg);
}

/* Tiles of types below a byte begin where a byte does. */
Test(float, granularity_of_small_types)
{
	static const struct {
		enum ob_dtype type;
		uint64_t cols;
		uint32_t unit_rows, unit_cols;
	} cases[] = { { OB_BF16, 7, 1, 16 },  { OB_U8, 7, 1, 16 },	{ OB_F4, 8, 1, 16 },
		      { OB_F4, 7, 2, 0 },     { OB_F6_E2M3, 8, 1, 16 }, { OB_F6_E2M3, 7, 4, 0 },
		      { OB_F6_E3M2, 6, 2, 0 } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t d[] = { 4, cases[i].cols }, n = 4 * cases[i].cols;
		struct ob_encoding enc = { .codec = &ob_codec_raw, .dtype = cases[i].type };
		struct ob_shape shape = { 2, d };
		struct ob_range r;
		uint64_t bytes = 0;
		uint32_t rows, cols;

		ob_codec_raw.granularity(&enc, &shape, &rows, &cols);
		cr_assert_eq(rows, cases[i].unit_rows, "case %zu: %u", i, rows);
		cr_assert_eq(cols, cases[i].unit_cols, "case %zu: %u", i, cols);
		for (uint64_t e = 0; e < n; e += rows * cases[i].cols) {
			struct ob_elems tile = { e, e + rows * cases[i].cols };

			cr_assert_eq(ob_codec_raw.ranges(&enc, &shape, 0, tile, &r), 1);
			cr_assert_eq(r.off, bytes);
			bytes += r.len;
		}
		cr_assert_eq(bytes, n * ob_dtype_bits(cases[i].type) / 8);
	}
}

Test(float, f64_is_rounded_to_float32)
{
	static const double stored[] = { 0, 1.0 / 3, -1e-300, 1e300, 16777217, 2.5 };
	static const float want[] = { 1.0f / 3, -0.0f, INFINITY, 16777216 };
	struct ob_encoding enc = { .codec = &ob_codec_float, .dtype = OB_F64 };
	uint64_t d[] = { 1, 6 };
	struct ob_shape shape = { 2, d };
	uint8_t bytes[sizeof(stored) + 1];
	struct ob_span span = { bytes + 1, sizeof(stored) };
	float x[4];

	memcpy(bytes + 1, stored, sizeof(stored));
	ob_codec_float.decode(&enc, &shape, &span, (struct ob_elems){ 0, 6 },
			      (struct ob_elems){ 1, 5 }, OB_DECODE_EXACT, x, NULL);
	cr_assert_arr_eq(x, want, sizeof(want));
}

/* A strip of a tile that does not begin at the tensor's beginning, at odd addresses. */
Test(float, values_are_rounded_once_to_nearest_even)
{
	static const uint8_t bf16[] = { 0x80, 0x3f, 0x82, 0x3f, 0x00, 0xc0 };
	static const uint8_t f16[] = { 0x00, 0x3c, 0x02, 0x3c, 0x00, 0xc0 };
	struct ob_encoding enc = { .codec = &ob_codec_float, .dtype = OB_BF16 };
	uint64_t d[] = { 10, 10 };
	struct ob_shape shape = { 2, d };
	uint8_t bytes[64] = { 0 };
	struct ob_span span = { bytes + 1, 40 };
	struct ob_elems tile = { 20, 40 }, at = { 24, 27 };
	float x[3] = { 1 + 0x1p-8f, 1 + 0x3p-8f, -2 };

	ob_codec_float.encode(&enc, &shape, &span, tile, at, x, NULL, NULL);
	cr_assert_arr_eq(bytes + 1 + 8, bf16, sizeof(bf16));
	enc.dtype = OB_F16;
	x[0] = 1 + 0x1p-11f, x[1] = 1 + 0x3p-11f, x[2] = -2;
	ob_codec_float.encode(&enc, &shape, &span, tile, at, x, NULL, NULL);
	cr_assert_arr_eq(bytes + 1 + 8, f16, sizeof(f16));
	ob_codec_float.decode(&enc, &shape, &span, tile, at, OB_DECODE_F32, x, NULL);
	cr_assert_float_eq(x[1], 1 + 0x1p-9f, 0);
}

Test(float, texts)
{
	struct ob_encoding enc = { .codec = &ob_codec_float, .dtype = OB_BF16 };
	char buf[8];

	cr_assert_str_eq(ob_codec_float.describe(&enc, buf, sizeof(buf)), "bf16");
	enc.dtype = OB_F8_E4M3;
	cr_assert_str_eq(ob_codec_raw.describe(&enc, buf, sizeof(buf)), "f8_e4m3");
	cr_assert(ob_codec_float.default_target(&enc, "model.norm.weight", &(struct ob_shape){ 0 },
						OB_USE_OTHER, NULL));
	cr_assert_null(ob_codec_float.config_keys);
	cr_assert_null(ob_codec_float.meta_format);
}
