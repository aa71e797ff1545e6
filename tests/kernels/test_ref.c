/* SPDX-License-Identifier: Apache-2.0 */
/* The reference kernels against published values and against definitions. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "kernels/tables.h"

static uint32_t bits_of(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static float of_bits(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

static uint16_t to_bf16(float x)
{
	uint16_t h;

	ob_ref_f32_to_bf16(&h, &x, 1);
	return h;
}

static uint16_t to_f16(float x)
{
	uint16_t h;

	ob_ref_f32_to_f16(&h, &x, 1);
	return h;
}

static float from_bf16(uint16_t h)
{
	float x;

	ob_ref_bf16_to_f32(&x, &h, 1);
	return x;
}

static float from_f16(uint16_t h)
{
	float x;

	ob_ref_f16_to_f32(&x, &h, 1);
	return x;
}

/* ---- 16-bit floats ------------------------------------------------------------------------- */

/* Computed with rational arithmetic. */
static const struct {
	uint32_t f32;
	uint16_t bf16, f16;
} points[] = {
	{ 0x00000000, 0x0000, 0x0000 }, { 0x80000000, 0x8000, 0x8000 },
	{ 0x3f800000, 0x3f80, 0x3c00 }, { 0xbf800000, 0xbf80, 0xbc00 },
	{ 0x3dcccccd, 0x3dcd, 0x2e66 }, { 0x3eaaaaab, 0x3eab, 0x3555 },
	{ 0x3f880000, 0x3f88, 0x3c40 }, { 0x40533333, 0x4053, 0x429a },
	{ 0x4377e666, 0x4378, 0x5bbf }, { 0x43e80ccd, 0x43e8, 0x5f40 },
	{ 0x476fff00, 0x4770, 0x7b80 }, { 0x477fe000, 0x4780, 0x7bff },
	{ 0x477fefe6, 0x4780, 0x7bff }, { 0x477ff000, 0x4780, 0x7c00 },
	{ 0x38800000, 0x3880, 0x0400 }, { 0x3a8020c5, 0x3a80, 0x1401 },
	{ 0x33800000, 0x3380, 0x0001 }, { 0x33000000, 0x3300, 0x0000 },
	{ 0x7f7f0000, 0x7f7f, 0x7c00 }, { 0x7f7f7fff, 0x7f7f, 0x7c00 },
	{ 0x7f7f8000, 0x7f80, 0x7c00 }, { 0x7f800000, 0x7f80, 0x7c00 },
	{ 0xff800000, 0xff80, 0xfc00 }, { 0x7fc00000, 0x7fc0, 0x7e00 },
};

Test(ref, points)
{
	for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++) {
		const float x = of_bits(points[i].f32);

		cr_expect_eq(to_bf16(x), points[i].bf16, "%08x to bf16", points[i].f32);
		cr_expect_eq(to_f16(x), points[i].f16, "%08x to f16", points[i].f32);
	}
}

/* Value of a float with `mantissa` bits below `exponent` bits. */
static double value_of(unsigned h, int mantissa, int exponent)
{
	const int bias = (1 << (exponent - 1)) - 1;
	const int e = (int)(h >> mantissa & ((1u << exponent) - 1));
	const int m = (int)(h & ((1u << mantissa) - 1));
	const double sign = h & 0x8000 ? -1 : 1;

	if (e == (1 << exponent) - 1)
		return m ? NAN : sign * INFINITY;
	return sign * (e ? ldexp((1 << mantissa) + m, e - bias - mantissa)
			 : ldexp(m, 1 - bias - mantissa));
}

Test(ref, every_16_bit_value)
{
	for (uint32_t h = 0; h < 0x10000; h++) {
		const double b = value_of(h, 7, 8), f = value_of(h, 10, 5);
		const float x = from_bf16((uint16_t)h), y = from_f16((uint16_t)h);

		if (isnan(b))
			cr_assert_eq(bits_of(x), h << 16 | 0x400000, "bf16 %04x", h);
		else
			cr_assert(x == b && !signbit(x) == !(h & 0x8000), "bf16 %04x", h);
		if (isnan(f))
			cr_assert_eq(bits_of(y),
				     (h & 0x8000) << 16 | 0x7fc00000 | (h & 0x3ff) << 13,
				     "f16 %04x", h);
		else
			cr_assert(y == f && !signbit(y) == !(h & 0x8000), "f16 %04x", h);
	}
}

/* Is h, a finite or infinite result, the nearest to x, ties to even? The largest finite value and
 * infinity are neighbours as far apart as the exponent below says. */
static bool is_nearest(float x, unsigned h, int mantissa, int exponent)
{
	const unsigned a = h & 0x7fff, inf = ((1u << exponent) - 1) << mantissa;
	const double step =
		value_of(inf - 1, mantissa, exponent) - value_of(inf - 2, mantissa, exponent);
	double at = value_of(a, mantissa, exponent), distance, below, above;

	if (a == inf)
		at = value_of(inf - 1, mantissa, exponent) + step;
	distance = fabs(fabs((double)x) - at);
	below = a ? fabs(fabs((double)x) - value_of(a - 1, mantissa, exponent)) : INFINITY;
	above = a < inf - 1 ? fabs(fabs((double)x) - value_of(a + 1, mantissa, exponent))
			    : fabs(fabs((double)x) - (at + step));
	if (a == inf) /* everything above rounds to it */
		return fabs((double)x) >= at - step / 2;
	return (distance < below || (distance == below && !(a & 1))) &&
	       (distance < above || (distance == above && !(a & 1)));
}

Test(ref, rounds_to_nearest_even)
{
	for (uint32_t h = 0; h < 0x8000; h++) {
		const float f = from_f16((uint16_t)h);
		const float half_up = h < 0x400 ? f + 0x1p-25f : of_bits(bits_of(f) + 0x1000);

		for (uint32_t i = 0; i < 9; i++) {
			const float x = of_bits((h << 16 | (i / 3) << 14) + i % 3 - 1);
			const float y = of_bits(bits_of(i / 3 ? half_up : f) + i % 3 - 1);

			if (!isnan(x))
				cr_assert(is_nearest(x, to_bf16(x), 7, 8), "%a to bf16", (double)x);
			if (!isnan(x))
				cr_assert(is_nearest(x, to_f16(x), 10, 5), "%a to f16", (double)x);
			if (!isnan(y))
				cr_assert(is_nearest(y, to_f16(y), 10, 5), "%a to f16", (double)y);
			if (!isnan(x))
				cr_assert_eq(to_f16(-x), to_f16(x) | 0x8000);
			if (!isnan(x))
				cr_assert_eq(to_bf16(-x), to_bf16(x) | 0x8000);
		}
	}
}

Test(ref, nan_keeps_sign_and_payload)
{
	cr_expect_eq(to_bf16(of_bits(0xff812345)), 0xffc1);
	cr_expect_eq(to_bf16(of_bits(0x7f800001)), 0x7fc0);
	cr_expect_eq(to_f16(of_bits(0xffa02000)), 0xff01);
	cr_expect_eq(to_f16(of_bits(0x7f800001)), 0x7e00);
}

Test(ref, rounding_in_place)
{
	float x[] = { 1.00390625f, 65519.99f, 65520.0f, -1e-8f }, y[4];

	memcpy(y, x, sizeof(x));
	ob_ref_round_bf16(x, 4);
	cr_expect(x[0] == 1.0f && x[1] == 65536.0f && x[3] == from_bf16(0xb22c));
	ob_ref_round_f16(y, 4);
	cr_expect(y[0] == 1.00390625f && y[1] == 65504.0f && isinf(y[2]) && y[3] == 0 &&
		  signbit(y[3]));
}

Test(ref, sums)
{
	float w[] = { 1, INFINITY, of_bits(0xff800001), 2, of_bits(0x7fc00003), -0.0f };
	const float d[] = { 2, -INFINITY, of_bits(0x7fc00007), of_bits(0xffc00009), 1, -0.0f };
	const uint32_t want[] = { 0x40400000, 0x7fc00000, 0xffc00001,
				  0xffc00009, 0x7fc00003, 0x80000000 };

	ob_ref_add(w, d, 6);
	for (unsigned i = 0; i < 6; i++)
		cr_expect_eq(bits_of(w[i]), want[i], "sum %u is %08x", i, bits_of(w[i]));
}

Test(ref, max_abs_bits)
{
	const float x[] = { 1, -3, 2, -0.0f }, nan[] = { 1, of_bits(0xff800001), INFINITY };

	cr_expect_eq(ob_ref_max_abs_bits(x, 4), bits_of(3));
	cr_expect_eq(ob_ref_max_abs_bits(nan, 3), 0x7f800001);
	cr_expect_eq(ob_ref_max_abs_bits(x, 0), 0);
}

/* ---- MLX affine ---------------------------------------------------------------------------- */

/* (((37 i + 11) mod 64) - 29) / 32 */
static void example(float *v, float sign)
{
	for (int i = 0; i < 32; i++)
		v[i] = sign * (float)((37 * i + 11) % 64 - 29) / 32;
}

static const struct {
	unsigned bits;
	float scale;
	uint16_t stored; /* bfloat16 */
	uint8_t codes[32];
} known[] = {
	{ 2, -0.5f, 0xbf00, { 0x27, 0xde, 0x89, 0x37, 0xee, 0x8d, 0x77, 0xe2 } },
	{ 3,
	  -0.25f,
	  0xbe80,
	  { 0x56, 0xc1, 0xcb, 0x29, 0x76, 0x39, 0xfc, 0xac, 0x82, 0x9f, 0x53, 0xf0 } },
	{ 4,
	  -0.125f,
	  0xbe00,
	  { 0x3c, 0x1a, 0xe8, 0xc5, 0x92, 0x70, 0x4e, 0x2b, 0xf8, 0xd6, 0xa4, 0x81, 0x5e, 0x3c,
	    0x0a, 0xe7 } },
	{ 5, -0.0625f, 0xbd80, { 0xd9, 0x50, 0xf1, 0xb8, 0xc2, 0x45, 0x02, 0xb7, 0x91, 0x25,
				 0xd1, 0x33, 0x7d, 0xa8, 0x80, 0x5d, 0x61, 0x33, 0x81, 0xe3 } },
	{ 6, -0.0303030312f, 0xbcf8, { 0x74, 0x93, 0x0e, 0xdf, 0x5e, 0xc1, 0x8a, 0x09,
				       0x70, 0xb8, 0xd4, 0x1e, 0xe3, 0x9f, 0xd5, 0x8e,
				       0x4a, 0x80, 0xbc, 0x25, 0x2f, 0x67, 0xd0, 0xe5 } },
	{ 8, -0.00746268639f, 0xbbf5, { 0xd1, 0x36, 0xa8, 0x0d, 0x7e, 0xef, 0x54, 0xc5,
					0x2a, 0x9b, 0x00, 0x71, 0xe2, 0x47, 0xb8, 0x1d,
					0x8e, 0xff, 0x64, 0xd6, 0x3b, 0xac, 0x11, 0x82,
					0xf3, 0x58, 0xc9, 0x2e, 0x9f, 0x04, 0x75, 0xe6 } },
};

Test(ref, mlx_known_codes)
{
	float v[32], scale, bias;
	uint8_t codes[32];

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		example(v, 1);
		ob_ref_mlx_encode(codes, &scale, &bias, v, 32, known[i].bits, 32);
		cr_expect(scale == known[i].scale, "%u bits: scale %.9g", known[i].bits,
			  (double)scale);
		cr_expect_eq(to_bf16(scale), known[i].stored);
		cr_expect_eq(to_bf16(bias), 0x3f80);
		cr_expect_arr_eq(codes, known[i].codes, 4 * known[i].bits, "%u bits",
				 known[i].bits);
		/* The mirror image has the same codes. */
		example(v, -1);
		ob_ref_mlx_encode(codes, &scale, &bias, v, 32, known[i].bits, 32);
		cr_expect(scale == -known[i].scale && bias == -1);
		cr_expect_arr_eq(codes, known[i].codes, 4 * known[i].bits);
	}
}

Test(ref, mlx_known_values)
{
	static const float four[] = { -0.5f, 0.625f, -0.25f, 0.875f, 0, -0.75f };
	static const float six[] = { -0.578125f,  0.60546875f, -0.2421875f,
				     0.91015625f, 0.0625f,     -0.7890625f };
	float v[32], scale, bias = 1;

	scale = from_bf16(known[2].stored);
	ob_ref_mlx_decode(v, known[2].codes, &scale, &bias, 32, 4, 32);
	cr_expect_arr_eq(v, four, sizeof(four));
	scale = from_bf16(known[4].stored);
	ob_ref_mlx_decode_bf16(v, known[4].codes, &scale, &bias, 32, 6, 32);
	cr_expect_arr_eq(v, six, sizeof(six));
}

static void encode4(const float *v, float *scale, float *bias, uint8_t *codes)
{
	ob_ref_mlx_encode(codes, scale, bias, v, 32, 4, 32);
}

Test(ref, mlx_constant_groups)
{
	static const struct {
		float value, scale, bias;
	} cases[] = { { 0, -1e-7f, 0 }, { 0.5f, -1e-7f, 0.5f }, { -0.5f, -1e-7f, -0.5f } };
	static const uint8_t zeros[16];
	float v[32], scale, bias;
	uint8_t codes[16];

	for (size_t i = 0; i < 3; i++) {
		for (unsigned j = 0; j < 32; j++)
			v[j] = cases[i].value;
		encode4(v, &scale, &bias, codes);
		cr_expect(scale == cases[i].scale && bias == cases[i].bias, "scale %.9g",
			  (double)scale);
		cr_expect_arr_eq(codes, zeros, 16);
	}
}

Test(ref, mlx_negative_group_starts_at_its_maximum)
{
	static const uint8_t want[] = { 0xef, 0xde, 0xcd, 0xbc, 0xab, 0xaa, 0x99, 0x88,
					0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00 };
	float v[32], scale, bias;
	uint8_t codes[16];

	for (unsigned i = 0; i < 32; i++)
		v[i] = -(float)(32 + i) / 64;
	encode4(v, &scale, &bias, codes);
	cr_expect(scale == 0.0328124985f && bias == -0.984375f);
	cr_expect_arr_eq(codes, want, 16);
}

Test(ref, mlx_nan_elements_do_not_count)
{
	float v[32], scale, bias, scale_of_rest, bias_of_rest;
	uint8_t codes[16], rest[16];

	example(v, 1);
	v[3] = v[8] = 0.25f;
	encode4(v, &scale_of_rest, &bias_of_rest, rest);
	v[3] = of_bits(0x7fc00000);
	v[8] = of_bits(0xffc12345);
	encode4(v, &scale, &bias, codes);
	cr_expect(scale == scale_of_rest && bias == bias_of_rest);
	cr_expect_eq(codes[1] >> 4, 0);
	cr_expect_eq(codes[4] & 15, 0);
	codes[1] = (uint8_t)((codes[1] & 0x0f) | (rest[1] & 0xf0));
	codes[4] = (uint8_t)((codes[4] & 0xf0) | (rest[4] & 0x0f));
	cr_expect_arr_eq(codes, rest, 16);
}

Test(ref, mlx_infinite_group)
{
	static const uint8_t zeros[16];
	float v[32], scale, bias;
	uint8_t codes[16];

	example(v, 1);
	v[9] = INFINITY;
	encode4(v, &scale, &bias, codes);
	cr_expect_eq(bits_of(scale), 0x7fc00000);
	cr_expect(bias == INFINITY);
	cr_expect_arr_eq(codes, zeros, 16);
}

Test(ref, mlx_decode_of_non_finite_scales)
{
	static const uint8_t zeros[16];
	float v[32], scale = INFINITY, bias = 1;

	ob_ref_mlx_decode(v, zeros, &scale, &bias, 32, 4, 32);
	cr_expect_eq(bits_of(v[0]), 0x7fc00000); /* inf * 0 */
	scale = of_bits(0xff800001);
	bias = of_bits(0x7fc00009);
	ob_ref_mlx_decode(v, zeros, &scale, &bias, 32, 4, 32);
	cr_expect_eq(bits_of(v[31]), 0xffc00001);
}
