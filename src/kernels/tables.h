/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/kernels: the tables of the instruction sets, and the reference functions, which
 * the others call for tails and for the rare values that would cost them speed.
 */
#ifndef OB_KERNELS_TABLES_H
#define OB_KERNELS_TABLES_H

#include "kernels/kernels.h"

extern const struct ob_kernels ob_kernels_ref, ob_kernels_avx2, ob_kernels_avx512, ob_kernels_neon;

void ob_ref_bf16_to_f32(float *dst, const void *src, size_t n);
void ob_ref_f16_to_f32(float *dst, const void *src, size_t n);
void ob_ref_f32_to_bf16(void *dst, const float *src, size_t n);
void ob_ref_f32_to_f16(void *dst, const float *src, size_t n);
void ob_ref_round_bf16(float *x, size_t n);
void ob_ref_round_f16(float *x, size_t n);
uint32_t ob_ref_max_abs_bits(const float *x, size_t n);
void ob_ref_add(float *w, const float *d, size_t n);
void ob_ref_mlx_encode(uint8_t *codes, float *scales, float *biases, const float *src, size_t n,
		       unsigned bits, unsigned group);
void ob_ref_mlx_decode(float *dst, const uint8_t *codes, const float *scales, const float *biases,
		       size_t n, unsigned bits, unsigned group);
void ob_ref_mlx_decode_bf16(float *dst, const uint8_t *codes, const float *scales,
			    const float *biases, size_t n, unsigned bits, unsigned group);
void ob_ref_mlx_decode_f16(float *dst, const uint8_t *codes, const float *scales,
			   const float *biases, size_t n, unsigned bits, unsigned group);
void ob_ref_block_max(float *max, const float *src, size_t n, size_t block);
void ob_ref_bnb4_encode(uint8_t *codes, const float *absmax, const float *src, size_t n,
			size_t block, bool fp4);
void ob_ref_bnb4_decode(float *dst, const uint8_t *codes, const float *absmax, size_t n,
			size_t block, bool fp4);
void ob_ref_int8_encode(int8_t *codes, const float *src, float k, size_t n);
void ob_ref_int8_decode(float *dst, const int8_t *codes, float a, float b, size_t n);

/* bitsandbytes: thresholds between the sorted values (NF4's own, FP4's magnitudes); FP4's codes by
 * rank of magnitude. */
extern const float ob_nf4_threshold[15], ob_fp4_threshold[7];
extern const uint8_t ob_fp4_code[8];

#endif
