/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitsandbytes' LLM.int8: a matrix of codes, and the largest magnitude of each row, SCB, so that
 * w = code * SCB / 127. Values pass through float16 before they are quantized, whatever their type.
 * (Outlier columns exist for activations only: no file has them.)
 */
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "codec/bnb.h"
#include "kernels/kernels.h"

/* enc->variant: old files lack weight_format. */
#define NO_FORMAT 1u

/* 1/127 as the kernels have it. */
#define STEP 0x1.020408p-7f

enum { CODES, SCB, FORMAT, N_PARTS };

static const char *const suffix[N_PARTS] = { ".weight", ".SCB", ".weight_format" };

static unsigned n_parts(const struct ob_encoding *enc)
{
	return enc->variant & NO_FORMAT ? FORMAT : N_PARTS;
}

/* ---- recognition --------------------------------------------------------------------------- */

/* The type that the values had: bitsandbytes does not store it. */
static enum ob_dtype carrier(const struct ob_lookup *l, const char *name, size_t stem)
{
	static const char *const keys[] = { "dtype", "torch_dtype" };
	static const enum ob_dtype types[] = { OB_F32, OB_F16, OB_BF16 };
	const struct ob_stored *bias = ob_bnb_part(l, name, stem, ".bias");

	for (size_t i = 0; i < 2; i++) {
		const char *says = ob_json_str(ob_json_get(l->config, keys[i]));

		for (size_t k = 0; says && k < sizeof(types) / sizeof(*types); k++)
			if (strcmp(says, ob_dtype_torch_name(types[k])) == 0)
				return types[k];
	}
	return bias && ob_dtype_is_float(bias->dtype) ? bias->dtype : OB_F16;
}

/* Rows in the order of their numbers are format 0; the others were made for GPUs of their time. */
static int check_format(const struct ob_stored *s, const struct ob_stored *format, ob_err *e)
{
	uint64_t n;

	if (format->dtype != OB_U8 || !ob_shape_elems(&format->shape, &n) || n != 1 ||
	    format->shape.rank > 0)
		return ob_fail(e, OB_CORRUPT, "tensor %s: its part %s is no scalar of type U8",
			       s->name, format->name);
	if (format->file->map[format->off] != 0)
		return ob_fail(e, OB_UNSUPPORTED,
			       "tensor %s: its part %s says layout %u; only 0, row by row, is read",
			       s->name, format->name, format->file->map[format->off]);
	return 0;
}

static int check_parts(const struct ob_stored *s, const struct ob_stored *scb, ob_err *e)
{
	char shape[128], other[128];

	ob_shape_text(&s->shape, shape, sizeof(shape));
	if (s->shape.rank != 2 || s->shape.dim[0] == 0 || s->shape.dim[1] == 0 || s->stride)
		return ob_fail(e, OB_MISMATCH, "tensor %s %s has %s, but is no matrix", s->name,
			       shape, scb->name);
	if (scb->dtype != OB_F32 || scb->shape.rank != 1 || scb->shape.dim[0] != s->shape.dim[0] ||
	    scb->stride)
		return ob_fail(e, OB_MISMATCH,
			       "tensor %s %s: its part %s is %s %s, expected one F32 for each row",
			       s->name, shape, scb->name, ob_dtype_name(scb->dtype),
			       ob_shape_text(&scb->shape, other, sizeof(other)));
	return 0;
}

static int recognise(const struct ob_stored *s, const struct ob_lookup *l, struct ob_recognised *r,
		     ob_err *e)
{
	const struct ob_stored *scb, *format;
	size_t stem;

	if (!ob_has_suffix(s->name, ".weight") || s->dtype != OB_I8)
		return 0;
	stem = strlen(s->name) - strlen(".weight");
	scb = ob_bnb_part(l, s->name, stem, suffix[SCB]);
	format = ob_bnb_part(l, s->name, stem, suffix[FORMAT]);
	if (!scb && (format || ob_bnb_config_says(l->config, false)))
		return ob_fail(e, OB_CORRUPT,
			       "tensor %s is I8 and %s, but its part %.*s.SCB is missing", s->name,
			       format ? "has a weight_format" : "config.json says load_in_8bit",
			       (int)stem, s->name);
	if (!scb)
		return 0;
	if (check_parts(s, scb, e) != 0 || (format && check_format(s, format, e) != 0))
		return -1;
	*r = (struct ob_recognised){
		.name = s->name,
		.enc = { .codec = &ob_codec_bnb_int8,
			 .dtype = carrier(l, s->name, stem),
			 .bits = 8,
			 .variant = format ? 0 : NO_FORMAT },
		.shape = s->shape,
		.part = { s, scb, format },
	};
	return 1;
}

/* ---- schemes ------------------------------------------------------------------------------- */

static int parse(struct ob_encoding *enc, const char *scheme, ob_err *e)
{
	const char *p = ob_scheme_options(scheme, "bnb-int8");

	if (!p)
		return 0;
	if (*p)
		return ob_fail(e, OB_USAGE, "number format '%s': bnb-int8 takes no options",
			       scheme);
	*enc = (struct ob_encoding){ .codec = &ob_codec_bnb_int8, .bits = 8 };
	return 1;
}

static char *describe(const struct ob_encoding *enc, char *buf, size_t size)
{
	(void)enc;
	snprintf(buf, size, "bnb-int8");
	return buf;
}

static bool accepts(const struct ob_encoding *enc, const struct ob_shape *shape, const char **why)
{
	*why = NULL;
	if (!ob_dtype_is_float(enc->dtype))
		*why = "its values are no floats of 16 or 32 bits";
	else if (shape->rank != 2 || shape->dim[0] == 0 || shape->dim[1] == 0)
		*why = "it is no matrix";
	else if (shape->dim[1] > OB_UNIT_ELEMS)
		*why = "its rows are too long for a scale each";
	return *why == NULL;
}

/* ---- layout -------------------------------------------------------------------------------- */

static int layout(const struct ob_encoding *enc, const struct ob_shape *shape, struct ob_arena *a,
		  struct ob_parts *out, ob_err *e)
{
	uint64_t n;
	char text[128];

	(void)a;
	if (!ob_shape_elems(shape, &n))
		return ob_fail(e, OB_LIMIT, "a tensor of %s values is larger than any file",
			       ob_shape_text(shape, text, sizeof(text)));
	*out = (struct ob_parts){
		.part = { { .suffix = suffix[CODES], .dtype = OB_I8, .shape = *shape, .len = n },
			  { .suffix = suffix[SCB],
			    .dtype = OB_F32,
			    .shape = { 1, shape->dim },
			    .len = shape->dim[0] * sizeof(float) },
			  { .suffix = suffix[FORMAT], .dtype = OB_U8, .len = 1, .whole = true } },
		.n = n_parts(enc),
	};
	return 0;
}

static void granularity(const struct ob_encoding *enc, const struct ob_shape *shape, uint32_t *rows,
			uint32_t *cols)
{
	(void)enc, (void)shape;
	*rows = 1;
	*cols = 0;
}

static unsigned ranges(const struct ob_encoding *enc, const struct ob_shape *shape, unsigned part,
		       struct ob_elems tile, struct ob_range *out)
{
	uint64_t cols = shape->dim[1];

	(void)enc;
	out[0] = (struct ob_range){ 0, 1 };
	if (part == CODES)
		out[0] = (struct ob_range){ tile.e0, tile.e1 - tile.e0 };
	else if (part == SCB)
		out[0] = (struct ob_range){ tile.e0 / cols * sizeof(float),
					    (tile.e1 - tile.e0) / cols * sizeof(float) };
	return 1;
}

/* ---- values -------------------------------------------------------------------------------- */

static void decode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		   enum ob_decode_mode mode, float *dst, float *scratch)
{
	size_t cols = shape->dim[1], n = at.e1 - at.e0;
	const int8_t *codes = (const int8_t *)span[CODES * OB_MAX_RANGES].p + (at.e0 - tile.e0);
	const uint8_t *scb = span[SCB * OB_MAX_RANGES].p + (at.e0 - tile.e0) / cols * sizeof(float);

	(void)scratch;
	for (size_t i = 0; i < n; i += cols, scb += sizeof(float)) {
		float scale;

		memcpy(&scale, scb, sizeof(scale));
		ob_kernels()->int8_decode(dst + i, codes + i, scale, STEP, cols);
	}
	if (mode == OB_DECODE_EXACT)
		ob_round_to(dst, enc->dtype, n);
}

static void encode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at, float *src,
		   float *scratch, const double *stats)
{
	size_t cols = shape->dim[1], n = at.e1 - at.e0;
	int8_t *codes = (int8_t *)span[CODES * OB_MAX_RANGES].p + (at.e0 - tile.e0);
	uint8_t *scb = span[SCB * OB_MAX_RANGES].p + (at.e0 - tile.e0) / cols * sizeof(float);

	(void)scratch, (void)stats;
	for (size_t i = 0; i < n; i += cols, scb += sizeof(float)) {
		float scale, k;

		ob_round_to(src + i, enc->dtype, cols);
		ob_round_to(src + i, OB_F16, cols);
		ob_kernels()->block_max(&scale, src + i, cols, cols);
		/* Two roundings, as in torch; on a GPU the division is an approximate one. */
		k = scale > 0 ? 1 / scale * 127 : 0;
		ob_kernels()->int8_encode(codes + i, src + i, k, cols);
		memcpy(scb, &scale, sizeof(scale));
	}
	if (!(enc->variant & NO_FORMAT) && at.e0 == tile.e0)
		*span[FORMAT * OB_MAX_RANGES].p = 0;
}

static size_t scratch_floats(const struct ob_encoding *enc, size_t n)
{
	(void)enc, (void)n;
	return 0;
}

static uint32_t overflow_bits(const struct ob_encoding *enc)
{
	(void)enc;
	return ob_overflow_bits(OB_F16); /* the narrowest that the values pass through */
}

static const char *const schemes[] = { "bnb-int8", NULL };

const struct ob_codec ob_codec_bnb_int8 = {
	.name = "bnb-int8",
	.summary = "bitsandbytes LLM.int8, one scale a row",
	.schemes = schemes,
	.recognise = recognise,
	.parse = parse,
	.describe = describe,
	.accepts = accepts,
	.layout = layout,
	.granularity = granularity,
	.ranges = ranges,
	.decode = decode,
	.encode = encode,
	.scratch_floats = scratch_floats,
	.overflow_bits = overflow_bits,
	.config_keys = ob_bnb_config_keys,
	.config_block = ob_bnb_config_block,
	.skip_key = "llm_int8_skip_modules",
	.config_differs = ob_bnb_config_differs,
	.default_target = ob_bnb_default_target,
	.meta_format = "pt",
	.turns_conv1d = true,
};
