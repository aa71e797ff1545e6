/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors stored value by value: float types, which can be edited, and everything else, which is
 * only copied.
 *
 * F64 is decoded (rounded to float32) and copied but never encoded: no model is computed in it, and
 * edits are float32.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "codec/codec.h"
#include "kernels/kernels.h"

static const enum ob_dtype float_types[] = { OB_F32, OB_F16, OB_BF16 };
#define N_FLOAT_TYPES (sizeof(float_types) / sizeof(float_types[0]))

/* Pieces of a row begin at multiples of this: 32 bytes of a 16-bit type. */
#define PIECE_COLS 16

static int fill(const struct ob_stored *s, const struct ob_codec *codec, struct ob_recognised *r)
{
	*r = (struct ob_recognised){
		.name = s->name,
		.enc = { .codec = codec, .dtype = s->dtype },
		.shape = s->shape,
		.part = { s },
	};
	return 1;
}

static int float_recognise(const struct ob_stored *s, const struct ob_lookup *l,
			   struct ob_recognised *r, ob_err *e)
{
	(void)l, (void)e;
	if (!ob_dtype_is_float(s->dtype) && s->dtype != OB_F64)
		return 0;
	return fill(s, &ob_codec_float, r);
}

static int raw_recognise(const struct ob_stored *s, const struct ob_lookup *l,
			 struct ob_recognised *r, ob_err *e)
{
	(void)l, (void)e;
	return fill(s, &ob_codec_raw, r);
}

static int parse(struct ob_encoding *enc, const char *scheme, ob_err *e)
{
	for (size_t i = 0; i < N_FLOAT_TYPES; i++) {
		const char *options = ob_scheme_options(scheme, ob_dtype_name(float_types[i]));

		if (!options)
			continue;
		if (*options)
			return ob_fail(e, OB_USAGE,
				       "number format '%s': a float type takes no options", scheme);
		*enc = (struct ob_encoding){ .codec = &ob_codec_float, .dtype = float_types[i] };
		return 1;
	}
	return 0;
}

static char *describe(const struct ob_encoding *enc, char *buf, size_t size)
{
	snprintf(buf, size, "%s", ob_dtype_name(enc->dtype));
	for (char *p = buf; size && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return buf;
}

static bool float_accepts(const struct ob_encoding *enc, const struct ob_shape *shape,
			  const char **why)
{
	(void)shape;
	*why = "only f32, f16 and bf16 values are written";
	return ob_dtype_is_float(enc->dtype);
}

static bool raw_accepts(const struct ob_encoding *enc, const struct ob_shape *shape,
			const char **why)
{
	(void)enc, (void)shape;
	*why = "its type can only be copied";
	return false;
}

static int layout(const struct ob_encoding *enc, const struct ob_shape *shape, struct ob_arena *a,
		  struct ob_parts *out, ob_err *e)
{
	uint64_t n;
	char text[128];

	(void)a;
	if (!ob_shape_elems(shape, &n) || !ob_mul_u64(n, ob_dtype_bits(enc->dtype), &n))
		return ob_fail(e, OB_LIMIT, "a tensor of %s %s values is larger than any file",
			       ob_shape_text(shape, text, sizeof(text)), ob_dtype_name(enc->dtype));
	*out = (struct ob_parts){
		.part = { { .dtype = enc->dtype, .shape = *shape, .len = ob_div_up(n, 8) } },
		.n = 1,
	};
	return 0;
}

/* Rows of 4 and 6-bit types need not end at a byte; then tiles begin where one does. */
static void granularity(const struct ob_encoding *enc, const struct ob_shape *shape, uint32_t *rows,
			uint32_t *cols)
{
	uint64_t n_rows, n_cols, odd;

	ob_codec_rows(enc, shape, &n_rows, &n_cols);
	odd = n_cols * ob_dtype_bits(enc->dtype) % 8;
	*rows = odd == 0 ? 1 : odd == 4 ? 2 : 4;
	*cols = odd == 0 ? PIECE_COLS : 0;
}

static unsigned ranges(const struct ob_encoding *enc, const struct ob_shape *shape, unsigned part,
		       struct ob_elems tile, struct ob_range *out)
{
	uint64_t bits = ob_dtype_bits(enc->dtype);
	uint64_t begin = tile.e0 * bits / 8;

	(void)shape, (void)part;
	out[0] = (struct ob_range){ .off = begin, .len = ob_div_up(tile.e1 * bits, 8) - begin };
	return 1;
}

static uint8_t *first_byte(const struct ob_encoding *enc, const struct ob_span *span,
			   struct ob_elems tile, struct ob_elems at)
{
	return span[0].p + (at.e0 - tile.e0) * ob_dtype_bits(enc->dtype) / 8;
}

static void decode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		   enum ob_decode_mode mode, float *dst, float *scratch)
{
	(void)shape, (void)mode, (void)scratch;
	ob_load_f32(dst, first_byte(enc, span, tile, at), enc->dtype, at.e1 - at.e0, 1);
}

static void encode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at, float *src,
		   float *scratch, const double *stats)
{
	(void)shape, (void)scratch, (void)stats;
	ob_store_f32(first_byte(enc, span, tile, at), src, enc->dtype, at.e1 - at.e0);
}

static size_t scratch_floats(const struct ob_encoding *enc, size_t n)
{
	(void)enc, (void)n;
	return 0;
}

static bool default_target(const struct ob_encoding *enc, const char *name,
			   const struct ob_shape *shape, enum ob_use use,
			   const struct ob_jv *config)
{
	(void)enc, (void)name, (void)shape, (void)use, (void)config;
	return true;
}

static const char *const float_schemes[] = { "f32", "f16", "bf16", NULL };

const struct ob_codec ob_codec_float = {
	.name = "float",
	.summary = "32-bit and 16-bit floating point",
	.schemes = float_schemes,
	.recognise = float_recognise,
	.parse = parse,
	.describe = describe,
	.accepts = float_accepts,
	.layout = layout,
	.granularity = granularity,
	.ranges = ranges,
	.decode = decode,
	.encode = encode,
	.scratch_floats = scratch_floats,
	.default_target = default_target,
};

static const char *const raw_schemes[] = { NULL };

const struct ob_codec ob_codec_raw = {
	.name = "raw",
	.summary = "any other type, copied as it is",
	.schemes = raw_schemes,
	.recognise = raw_recognise,
	.describe = describe,
	.accepts = raw_accepts,
	.layout = layout,
	.granularity = granularity,
	.ranges = ranges,
	.scratch_floats = scratch_floats,
};
