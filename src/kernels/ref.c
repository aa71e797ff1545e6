/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The portable kernels: what every other table has to equal, bit for bit.
 *
 * Which NaN comes out of two NaNs, or of inf - inf, depends on the CPU and on the order in which a
 * compiler puts the operands of a sum. Here it is fixed: the first NaN operand, else the positive
 * quiet one.
 */
#include <math.h>
#include <string.h>

#include "kernels/tables.h"

#define INF_BITS 0x7f800000u
#define QUIET 0x00400000u /* the bit that makes a float32 NaN quiet */

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

static bool is_nan(uint32_t u)
{
	return (u & 0x7fffffffu) > INF_BITS;
}

static float bf16_value(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;

	return of_bits(is_nan(u) ? u | QUIET : u);
}

static uint16_t to_bf16(float x)
{
	uint32_t u = bits_of(x);

	if (is_nan(u))
		return (uint16_t)((u | QUIET) >> 16);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float f16_value(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16;
	uint32_t a = h & 0x7fff;

	if (a < 0x0400) /* subnormal: a multiple of 2^-24 */
		return of_bits(sign | bits_of((float)a * 0x1p-24f));
	if (a < 0x7c00)
		return of_bits(sign | ((a << 13) + (112u << 23)));
	return of_bits(sign | INF_BITS | a << 13 | (a > 0x7c00 ? QUIET : 0));
}

static uint16_t to_f16(float x)
{
	uint32_t u = bits_of(x);
	uint32_t sign = u >> 16 & 0x8000;
	uint32_t a = u & 0x7fffffffu;

	if (a > INF_BITS)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
	if (a >= 0x477ff000u) /* 65520 */
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000u) /* 2^-14: the sum has the step of the subnormals, 2^-24 */
		return (uint16_t)(sign | (bits_of(of_bits(a) + 0.5f) - bits_of(0.5f)));
	return (uint16_t)(sign | ((a - (112u << 23) + 0xfff + (a >> 13 & 1)) >> 13));
}

static float as_is(float x)
{
	return x;
}

static float round_bf16(float x)
{
	return bf16_value(to_bf16(x));
}

static float round_f16(float x)
{
	return f16_value(to_f16(x));
}

static float sum(float a, float b)
{
	float r = a + b;

	if (!is_nan(bits_of(r)))
		return r;
	if (is_nan(bits_of(a)))
		return of_bits(bits_of(a) | QUIET);
	return is_nan(bits_of(b)) ? of_bits(bits_of(b) | QUIET) : of_bits(INF_BITS | QUIET);
}

/* q is a code or a constant: only the scale can be a NaN. */
static float product(float scale, float q)
{
	float r = scale * q;

	if (!is_nan(bits_of(r)))
		return r;
	return of_bits((is_nan(bits_of(scale)) ? bits_of(scale) : INF_BITS) | QUIET);
}

void ob_ref_bf16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;

	for (size_t i = 0; i < n; i++) {
		uint16_t h;

		memcpy(&h, p + 2 * i, sizeof(h));
		dst[i] = bf16_value(h);
	}
}

void ob_ref_f16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;

	for (size_t i = 0; i < n; i++) {
		uint16_t h;

		memcpy(&h, p + 2 * i, sizeof(h));
		dst[i] = f16_value(h);
	}
}

void ob_ref_f32_to_bf16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;

	for (size_t i = 0; i < n; i++) {
		uint16_t h = to_bf16(src[i]);

		memcpy(p + 2 * i, &h, sizeof(h));
	}
}

void ob_ref_f32_to_f16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;

	for (size_t i = 0; i < n; i++) {
		uint16_t h = to_f16(src[i]);

		memcpy(p + 2 * i, &h, sizeof(h));
	}
}

void ob_ref_round_bf16(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = round_bf16(x[i]);
}

void ob_ref_round_f16(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = round_f16(x[i]);
}

uint32_t ob_ref_max_abs_bits(const float *x, size_t n)
{
	uint32_t max = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t a = bits_of(x[i]) & 0x7fffffffu;

		max = a > max ? a : max;
	}
	return max;
}

void ob_ref_add(float *w, const float *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		w[i] = sum(w[i], d[i]);
}

/* Scale and bias of one group. NaN elements do not count; the sign of a zero cannot matter, because
 * an edge of zero always ends as bias 0. */
static void mlx_affine(float *scale, float *bias, const float *w, unsigned group, float top)
{
	float hi = -INFINITY, lo = INFINITY, s, edge, q0;

	for (unsigned i = 0; i < group; i++) {
		hi = w[i] > hi ? w[i] : hi;
		lo = w[i] < lo ? w[i] : lo;
	}
	s = (hi - lo) / top;
	s = s < 1e-7f ? 1e-7f : s;
	if (fabsf(lo) > fabsf(hi)) {
		edge = lo;
	} else {
		edge = hi;
		s = -s;
	}
	q0 = rintf(edge / s);
	*bias = 0;
	if (q0 != 0) {
		s = edge / q0;
		*bias = edge;
	}
	*scale = is_nan(bits_of(s)) ? of_bits(INF_BITS | QUIET) : s;
}

void ob_ref_mlx_encode(uint8_t *codes, float *scales, float *biases, const float *src, size_t n,
		       unsigned bits, unsigned group)
{
	const float top = (float)((1u << bits) - 1);

	for (size_t i = 0; i < n; i += 8, codes += bits) {
		const size_t g = i / group;
		uint64_t stream = 0;

		if (i % group == 0)
			mlx_affine(scales + g, biases + g, src + i, group, top);
		for (unsigned j = 0; j < 8; j++) {
			float q = rintf((src[i + j] - biases[g]) / scales[g]);

			q = q > 0 ? q : 0; /* a NaN too */
			q = q < top ? q : top;
			stream |= (uint64_t)q << (j * bits);
		}
		for (unsigned j = 0; j < bits; j++)
			codes[j] = (uint8_t)(stream >> (8 * j));
	}
}

/* Eight codes are a whole number of bytes. */
static void mlx_unpack8(float q[8], const uint8_t *codes, unsigned bits)
{
	uint64_t stream = 0;

	for (unsigned j = 0; j < bits; j++)
		stream |= (uint64_t)codes[j] << (8 * j);
	for (unsigned j = 0; j < 8; j++)
		q[j] = (float)(stream >> (j * bits) & ((1u << bits) - 1));
}

static void mlx_decode(float *dst, const uint8_t *codes, const float *scales, const float *biases,
		       size_t n, unsigned bits, unsigned group, float (*rounded)(float))
{
	float q[8];

	for (size_t i = 0; i < n; i += 8, codes += bits) {
		const float s = scales[i / group], b = biases[i / group];

		mlx_unpack8(q, codes, bits);
		for (unsigned j = 0; j < 8; j++)
			dst[i + j] = rounded(sum(rounded(product(s, q[j])), b));
	}
}

void ob_ref_mlx_decode(float *dst, const uint8_t *codes, const float *scales, const float *biases,
		       size_t n, unsigned bits, unsigned group)
{
	mlx_decode(dst, codes, scales, biases, n, bits, group, as_is);
}

void ob_ref_mlx_decode_bf16(float *dst, const uint8_t *codes, const float *scales,
			    const float *biases, size_t n, unsigned bits, unsigned group)
{
	mlx_decode(dst, codes, scales, biases, n, bits, group, round_bf16);
}

void ob_ref_mlx_decode_f16(float *dst, const uint8_t *codes, const float *scales,
			   const float *biases, size_t n, unsigned bits, unsigned group)
{
	mlx_decode(dst, codes, scales, biases, n, bits, group, round_f16);
}

/* ---- blocks -------------------------------------------------------------------------------- */

void ob_ref_block_max(float *max, const float *src, size_t n, size_t block)
{
	for (size_t i = 0; i < n; i += block)
		*max++ = of_bits(ob_ref_max_abs_bits(src + i, n - i < block ? n - i : block));
}

const float ob_nf4_book[16] = {
	-0x1p+0f,	 -0x1.647362p-1f, -0x1.0cd66p-1f,  -0x1.94654p-2f,
	-0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0,
	0x1.45f5fep-4f,	 0x1.4995c6p-3f,  0x1.f809bap-3f,  0x1.5a0674p-2f,
	0x1.c3497p-2f,	 0x1.200f56p-1f,  0x1.722766p-1f,  0x1p+0f,
};

/* Half way between neighbours. */
const float ob_nf4_threshold[15] = {
	-0x1.b239bp-1f,	 -0x1.38a4ep-1f,  -0x1.d709p-2f,  -0x1.5bd4ecp-2f, -0x1.e079d8p-3f,
	-0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c4p-4f,  0x1.a0cfcp-3f,
	0x1.2b05a8p-2f,	 0x1.8ea7f2p-2f,  0x1.00da08p-1f, 0x1.491b5ep-1f,  0x1.b913b4p-1f,
};

/* The upper bit is the sign. */
const float ob_fp4_book[16] = {
	0,
	0x1.555556p-8f,
	0x1.555556p-1f,
	0x1p+0f,
	0x1.555556p-2f,
	0x1p-1f,
	0x1.555556p-3f,
	0x1p-2f,
	-0.0f,
	-0x1.555556p-8f,
	-0x1.555556p-1f,
	-0x1p+0f,
	-0x1.555556p-2f,
	-0x1p-1f,
	-0x1.555556p-3f,
	-0x1p-2f,
};

/* As the kernels of bitsandbytes spell them: a few units off the middle. */
const float ob_fp4_threshold[7] = {
	0x1.555572p-9f, 0x1.6p-4f,     0x1.aaaaaap-3f, 0x1.2aaaaap-2f,
	0x1.aaaaacp-2f, 0x1.2aaaap-1f, 0x1.aaaaaap-1f,
};

const uint8_t ob_fp4_code[8] = { 0, 1, 6, 7, 4, 5, 2, 3 };

static unsigned nf4_code(float y)
{
	unsigned code = 0;

	for (unsigned t = 0; t < 15; t++)
		code += y > ob_nf4_threshold[t];
	return code;
}

static unsigned fp4_code(float y)
{
	unsigned rank = 0;

	for (unsigned t = 0; t < 7; t++)
		rank += fabsf(y) > ob_fp4_threshold[t];
	return ob_fp4_code[rank] | (y < 0 ? 8 : 0);
}

void ob_ref_bnb4_encode(uint8_t *codes, const float *absmax, const float *src, size_t n,
			size_t block, bool fp4)
{
	for (size_t i = 0; i < n; i += 2) {
		const float a = absmax[i / block], r = a > 0 ? 1 / a : 0;
		const float y0 = src[i] * r, y1 = i + 1 < n ? src[i + 1] * r : 0;

		*codes++ = (uint8_t)(fp4 ? fp4_code(y0) << 4 | fp4_code(y1)
					 : nf4_code(y0) << 4 | nf4_code(y1));
	}
}

void ob_ref_bnb4_decode(float *dst, const uint8_t *codes, const float *absmax, size_t n,
			size_t block, bool fp4)
{
	const float *book = fp4 ? ob_fp4_book : ob_nf4_book;

	for (size_t i = 0; i < n; i++)
		dst[i] = product(absmax[i / block], book[codes[i / 2] >> (i % 2 ? 0 : 4) & 15]);
}

void ob_ref_int8_encode(int8_t *codes, const float *src, float k, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float q = src[i] * k;

		q = q > -128 ? q : -128; /* a NaN too */
		codes[i] = (int8_t)rintf(q < 127 ? q : 127);
	}
}

void ob_ref_int8_decode(float *dst, const int8_t *codes, float a, float b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = product(product(a, codes[i]), b);
}

const struct ob_kernels ob_kernels_ref = {
	.name = "ref",
	.bf16_to_f32 = ob_ref_bf16_to_f32,
	.f16_to_f32 = ob_ref_f16_to_f32,
	.f32_to_bf16 = ob_ref_f32_to_bf16,
	.f32_to_f16 = ob_ref_f32_to_f16,
	.round_bf16 = ob_ref_round_bf16,
	.round_f16 = ob_ref_round_f16,
	.max_abs_bits = ob_ref_max_abs_bits,
	.add = ob_ref_add,
	.mlx_encode = ob_ref_mlx_encode,
	.mlx_decode = ob_ref_mlx_decode,
	.mlx_decode_bf16 = ob_ref_mlx_decode_bf16,
	.mlx_decode_f16 = ob_ref_mlx_decode_f16,
	.block_max = ob_ref_block_max,
	.bnb4_encode = ob_ref_bnb4_encode,
	.bnb4_decode = ob_ref_bnb4_decode,
	.int8_encode = ob_ref_int8_encode,
	.int8_decode = ob_ref_int8_decode,
};
