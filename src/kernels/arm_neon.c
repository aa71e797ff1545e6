/* SPDX-License-Identifier: Apache-2.0 */
/* NEON kernels: conversions, sums and maxima. Those of number formats are the reference's. */
#include <arm_neon.h>

#include "kernels/tables.h"

#define QUIET 0x00400000u

static uint32x4_t nan_lanes(float32x4_t x)
{
	return vmvnq_u32(vceqq_f32(x, x));
}

static uint16x4_t load_halves(const uint8_t *p)
{
	return vreinterpret_u16_u8(vld1_u8(p));
}

/* The bfloat16 nearest to each x, in the upper half of each lane; the lower half is undefined. */
static uint32x4_t nearest_bf16(float32x4_t x)
{
	const uint32x4_t u = vreinterpretq_u32_f32(x);
	const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
	const uint32x4_t up = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));

	return vbslq_u32(nan_lanes(x), vorrq_u32(u, vdupq_n_u32(QUIET)), up);
}

static void bf16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;
	size_t i = 0;

	for (; n - i >= 4; i += 4) {
		const uint32x4_t u = vshll_n_u16(load_halves(p + 2 * i), 16);
		const uint32x4_t nan = nan_lanes(vreinterpretq_f32_u32(u));
		const uint32x4_t x = vorrq_u32(u, vandq_u32(nan, vdupq_n_u32(QUIET)));

		vst1q_f32(dst + i, vreinterpretq_f32_u32(x));
	}
	ob_ref_bf16_to_f32(dst + i, p + 2 * i, n - i);
}

static void f16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;
	size_t i = 0;

	for (; n - i >= 4; i += 4)
		vst1q_f32(dst + i, vcvt_f32_f16(vreinterpret_f16_u16(load_halves(p + 2 * i))));
	ob_ref_f16_to_f32(dst + i, p + 2 * i, n - i);
}

static void f32_to_bf16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;
	size_t i = 0;

	for (; n - i >= 4; i += 4) {
		const uint16x4_t h = vshrn_n_u32(nearest_bf16(vld1q_f32(src + i)), 16);

		vst1_u8(p + 2 * i, vreinterpret_u8_u16(h));
	}
	ob_ref_f32_to_bf16(p + 2 * i, src + i, n - i);
}

static void f32_to_f16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;
	size_t i = 0;

	for (; n - i >= 4; i += 4)
		vst1_u8(p + 2 * i, vreinterpret_u8_f16(vcvt_f16_f32(vld1q_f32(src + i))));
	ob_ref_f32_to_f16(p + 2 * i, src + i, n - i);
}

static void round_bf16(float *x, size_t n)
{
	size_t i = 0;

	for (; n - i >= 4; i += 4) {
		const uint32x4_t u = nearest_bf16(vld1q_f32(x + i));

		vst1q_f32(x + i, vreinterpretq_f32_u32(vandq_u32(u, vdupq_n_u32(0xffff0000u))));
	}
	ob_ref_round_bf16(x + i, n - i);
}

static void round_f16(float *x, size_t n)
{
	size_t i = 0;

	for (; n - i >= 4; i += 4)
		vst1q_f32(x + i, vcvt_f32_f16(vcvt_f16_f32(vld1q_f32(x + i))));
	ob_ref_round_f16(x + i, n - i);
}

static uint32_t max_abs_bits(const float *x, size_t n)
{
	uint32x4_t acc = vdupq_n_u32(0);
	uint32_t max, tail;
	size_t i = 0;

	for (; n - i >= 4; i += 4) {
		const uint32x4_t u = vreinterpretq_u32_f32(vld1q_f32(x + i));

		acc = vmaxq_u32(acc, vbicq_u32(u, vdupq_n_u32(0x80000000u)));
	}
	max = vmaxvq_u32(acc);
	tail = ob_ref_max_abs_bits(x + i, n - i);
	return tail > max ? tail : max;
}

static void add(float *w, const float *d, size_t n)
{
	size_t i = 0;

	for (; n - i >= 4; i += 4) {
		const float32x4_t r = vaddq_f32(vld1q_f32(w + i), vld1q_f32(d + i));

		if (vmaxvq_u32(nan_lanes(r)) == 0)
			vst1q_f32(w + i, r);
		else
			ob_ref_add(w + i, d + i, 4);
	}
	ob_ref_add(w + i, d + i, n - i);
}

const struct ob_kernels ob_kernels_neon = {
	.name = "neon",
	.bf16_to_f32 = bf16_to_f32,
	.f16_to_f32 = f16_to_f32,
	.f32_to_bf16 = f32_to_bf16,
	.f32_to_f16 = f32_to_f16,
	.round_bf16 = round_bf16,
	.round_f16 = round_f16,
	.max_abs_bits = max_abs_bits,
	.add = add,
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
