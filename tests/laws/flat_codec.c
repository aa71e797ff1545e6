/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A number format for tests alone, with what makes formats awkward: 4-bit codes in blocks of 64
 * that run over the flattened tensor, so that they cross rows and the last one is short; the scale
 * of a block as a byte that counts in 255ths of the largest value of the tensor, which takes two
 * passes to know; and that value as a part that is not cut by tiles.
 */
#include "flat_codec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"

enum { CODES, SCALES, UNIT };

static char *describe(const struct ob_encoding *enc, char *buf, size_t size)
{
	(void)enc;
	snprintf(buf, size, "flat");
	return buf;
}

static bool accepts(const struct ob_encoding *enc, const struct ob_shape *shape, const char **why)
{
	(void)enc, (void)shape, (void)why;
	return true;
}

static int layout(const struct ob_encoding *enc, const struct ob_shape *shape, struct ob_arena *a,
		  struct ob_parts *out, ob_err *e)
{
	uint64_t n, *dim = ob_arena_alloc(a, 3 * sizeof(*dim), e);

	(void)enc;
	if (!dim || !ob_shape_elems(shape, &n))
		return -1;
	dim[CODES] = (n + 1) / 2;
	dim[SCALES] = (n + OB_FLAT_BLOCK - 1) / OB_FLAT_BLOCK;
	dim[UNIT] = 1;
	*out = (struct ob_parts){
		.part = { { .suffix = ".weight",
			    .dtype = OB_U8,
			    .shape = { 1, &dim[CODES] },
			    .len = dim[CODES] },
			  { .suffix = ".scales",
			    .dtype = OB_U8,
			    .shape = { 1, &dim[SCALES] },
			    .len = dim[SCALES] },
			  { .suffix = ".unit",
			    .dtype = OB_F32,
			    .shape = { 1, &dim[UNIT] },
			    .len = sizeof(float),
			    .whole = true } },
		.n = 3,
	};
	return 0;
}

static void granularity(const struct ob_encoding *enc, const struct ob_shape *shape, uint32_t *rows,
			uint32_t *cols)
{
	uint64_t n_rows, n_cols;

	ob_codec_rows(enc, shape, &n_rows, &n_cols);
	*rows = 1;
	while (*rows * n_cols % OB_FLAT_BLOCK != 0)
		*rows *= 2;
	*cols = *rows == 1 ? OB_FLAT_BLOCK : 0;
}

static uint64_t offset(unsigned part, uint64_t e)
{
	return part == CODES ? (e + 1) / 2 : (e + OB_FLAT_BLOCK - 1) / OB_FLAT_BLOCK;
}

static unsigned ranges(const struct ob_encoding *enc, const struct ob_shape *shape, unsigned part,
		       struct ob_elems tile, struct ob_range *out)
{
	(void)enc, (void)shape;
	if (part == UNIT) {
		out[0] = (struct ob_range){ 0, sizeof(float) };
		return 1;
	}
	out[0].off = offset(part, tile.e0);
	out[0].len = offset(part, tile.e1) - out[0].off;
	return 1;
}

static void decode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at,
		   enum ob_decode_mode mode, float *dst, float *scratch)
{
	const uint8_t *codes = span[CODES * OB_MAX_RANGES].p;
	const uint8_t *scales = span[SCALES * OB_MAX_RANGES].p;
	float unit;

	(void)enc, (void)shape, (void)mode, (void)scratch;
	memcpy(&unit, span[UNIT * OB_MAX_RANGES].p, sizeof(unit));
	for (uint64_t e = at.e0 - tile.e0; e < at.e1 - tile.e0; e++) {
		int code = codes[e / 2] >> (e % 2 * 4) & 15;

		*dst++ = (float)(code - 8) / 7 * ((float)scales[e / OB_FLAT_BLOCK] * unit);
	}
}

static void encode(const struct ob_encoding *enc, const struct ob_shape *shape,
		   const struct ob_span *span, struct ob_elems tile, struct ob_elems at, float *src,
		   float *scratch, const double *stats)
{
	uint8_t *codes = span[CODES * OB_MAX_RANGES].p, *scales = span[SCALES * OB_MAX_RANGES].p;
	uint64_t n = at.e1 - at.e0, e = at.e0 - tile.e0;
	float unit = (float)(stats[0] / 255);

	(void)shape;
	ob_round_to(src, enc->dtype, n);
	if (at.e0 == tile.e0)
		memcpy(span[UNIT * OB_MAX_RANGES].p, &unit, sizeof(unit));
	for (uint64_t i = 0; i < n; i += OB_FLAT_BLOCK) {
		uint64_t len = n - i < OB_FLAT_BLOCK ? n - i : OB_FLAT_BLOCK;

		scratch[0] = 0;
		for (uint64_t j = 0; j < len; j++)
			scratch[0] = fmaxf(scratch[0], fabsf(src[i + j]));
		scratch[0] = unit > 0 ? fminf(ceilf(scratch[0] / unit), 255) : 0;
		scales[(e + i) / OB_FLAT_BLOCK] = (uint8_t)scratch[0];
		for (uint64_t j = 0; j < len; j++) {
			float x = scratch[0] > 0 ? src[i + j] / (scratch[0] * unit) * 7 : 0;
			unsigned code = (unsigned)(8 + rintf(fmaxf(fminf(x, 7), -7)));
			uint8_t *p = &codes[(e + i + j) / 2];

			*p = (uint8_t)(j % 2 ? *p | code << 4 : code);
		}
	}
}

static size_t scratch_floats(const struct ob_encoding *enc, size_t n)
{
	(void)enc, (void)n;
	return 1;
}

static size_t n_stats(const struct ob_encoding *enc, const struct ob_shape *shape,
		      struct ob_elems at)
{
	(void)enc, (void)shape, (void)at;
	return 1;
}

static void measure(const struct ob_encoding *enc, const struct ob_shape *shape,
		    struct ob_elems tile, struct ob_elems at, float *src, float *scratch,
		    double *stats)
{
	(void)enc, (void)shape, (void)tile, (void)scratch;
	for (size_t i = 0; i < at.e1 - at.e0; i++)
		stats[0] = fmax(stats[0], fabs((double)src[i]));
}

static void reduce(const struct ob_encoding *enc, const struct ob_shape *shape, double *total,
		   struct ob_elems tile, const double *stats)
{
	(void)enc, (void)shape, (void)tile;
	total[0] = fmax(total[0], stats[0]);
}

const struct ob_codec ob_codec_flat = {
	.name = "flat",
	.describe = describe,
	.accepts = accepts,
	.layout = layout,
	.granularity = granularity,
	.ranges = ranges,
	.decode = decode,
	.encode = encode,
	.scratch_floats = scratch_floats,
	.n_stats = n_stats,
	.measure = measure,
	.reduce = reduce,
};
