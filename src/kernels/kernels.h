/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic kernels. ref.c is the truth in portable C; the AVX2, AVX-512 and NEON tables equal it
 * bit for bit (tests/kernels proves it for every table that the machine can run).
 *
 * Pointers to void and bytes may be unaligned; n counts elements; no overlap between input and
 * output. Re-entrant. NaN inputs: quiet NaN out, sign kept, payload bits that fit kept.
 */
#ifndef OB_KERNELS_KERNELS_H
#define OB_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/util.h"

struct ob_kernels {
	const char *name;

	/* Stored float types to float32 (exact) and back (nearest, ties to even, subnormals kept,
	 * overflow to infinity). */
	void (*bf16_to_f32)(float *dst, const void *src, size_t n);
	void (*f16_to_f32)(float *dst, const void *src, size_t n);
	void (*f32_to_bf16)(void *dst, const float *src, size_t n);
	void (*f32_to_f16)(void *dst, const float *src, size_t n);

	/* Rounds in place to what bf16 or f16 can hold. */
	void (*round_bf16)(float *x, size_t n);
	void (*round_f16)(float *x, size_t n);

	/* Largest bit pattern of |x| (as an integer): >= 0x7f800000 means a NaN or infinity is there. */
	uint32_t (*max_abs_bits)(const float *x, size_t n);

	/* w[i] += d[i] */
	void (*add)(float *w, const float *d, size_t n);

	/*
	 * MLX affine quantization (CPU rule of mlx 0.32: ties to even, group maximum starts at -inf).
	 * A NaN element counts for nothing and gets code 0; a scale that is a NaN is the positive one.
	 * n is a multiple of group; group is 32, 64 or 128; bits is 2, 3, 4, 5, 6 or 8.
	 * codes: n * bits / 8 bytes, one LSB-first bit stream; scales, biases: n / group float32,
	 * unrounded (the caller rounds them to the carrier type).
	 */
	void (*mlx_encode)(uint8_t *codes, float *scales, float *biases, const float *src, size_t n,
			   unsigned bits, unsigned group);
	/* dst = f32(f32(scale * q) + bias): two roundings in float32. */
	void (*mlx_decode)(float *dst, const uint8_t *codes, const float *scales,
			   const float *biases, size_t n, unsigned bits, unsigned group);
	/* dst = T(T(scale * q) + bias) with T = bf16 or f16, as mx.dequantize on the CPU. */
	void (*mlx_decode_bf16)(float *dst, const uint8_t *codes, const float *scales,
				const float *biases, size_t n, unsigned bits, unsigned group);
	void (*mlx_decode_f16)(float *dst, const uint8_t *codes, const float *scales,
			       const float *biases, size_t n, unsigned bits, unsigned group);

	/* max[b] = largest |x| of block b, by bit pattern: a NaN counts as more than infinity. The
	 * last block may be short. */
	void (*block_max)(float *max, const float *src, size_t n, size_t block);

	/*
	 * bitsandbytes' 4-bit code books (fp4: FP4, else NF4), by the rule of its CUDA kernels with
	 * an exact reciprocal: x / absmax against fixed thresholds, a tie to the lower code. Two codes
	 * a byte, the first in the upper half; behind an odd last one comes the code of zero. absmax:
	 * one per block; block is a multiple of 32, the last one may be short.
	 */
	void (*bnb4_encode)(uint8_t *codes, const float *absmax, const float *src, size_t n,
			    size_t block, bool fp4);
	/* dst = f32(book[code] * absmax) */
	void (*bnb4_decode)(float *dst, const uint8_t *codes, const float *absmax, size_t n,
			    size_t block, bool fp4);

	/* codes = rint(f32(x * k)), ties to even, from -128 to 127; a NaN becomes -128. */
	void (*int8_encode)(int8_t *codes, const float *src, float k, size_t n);
	/* dst = f32(f32(code * a) * b) */
	void (*int8_decode)(float *dst, const int8_t *codes, float a, float b, size_t n);
};

/* Values by code of bitsandbytes' 4-bit formats. */
extern const float ob_nf4_book[16], ob_fp4_book[16];

/* The table for ob_cpu_isa(), chosen at the first call; thread-safe. */
const struct ob_kernels *ob_kernels(void);
/* The table of one level, NULL when it is not built in or the CPU lacks it: tests, benchmarks. */
const struct ob_kernels *ob_kernels_of(enum ob_isa isa);

/* Any stored type that has a float value (F64, F32, F16, BF16, F8 kinds, integers, BOOL) to
 * float32, `stride` elements apart (1: contiguous). false when the type has none. */
bool ob_load_f32(float *dst, const void *src, enum ob_dtype t, size_t n, int64_t stride);
/* float32 to F32, F16 or BF16. */
void ob_store_f32(void *dst, const float *src, enum ob_dtype t, size_t n);
/* Rounds in place to F32 (nothing), F16 or BF16. */
void ob_round_to(float *x, enum ob_dtype t, size_t n);
/* Magnitude bits from which on a float32 is infinite or a NaN as t (F32, F16 or BF16). */
uint32_t ob_overflow_bits(enum ob_dtype t);

#endif
