/* SPDX-License-Identifier: Apache-2.0 */
/* Choice of the kernel table, and conversion between float32 and every stored type. */
#include "kernels/kernels.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "kernels/tables.h"

const struct ob_kernels *ob_kernels_of(enum ob_isa isa)
{
	if (!ob_cpu_has(isa))
		return NULL;
	switch (isa) {
	case OB_ISA_REF:
		return &ob_kernels_ref;
#if defined(__x86_64__)
	case OB_ISA_AVX2:
		return &ob_kernels_avx2;
	case OB_ISA_AVX512:
		return &ob_kernels_avx512;
#elif defined(__aarch64__)
	case OB_ISA_NEON:
		return &ob_kernels_neon;
#endif
	default:
		return NULL;
	}
}

static const struct ob_kernels *chosen;

static void choose(void)
{
	chosen = ob_kernels_of(ob_cpu_isa());
}

const struct ob_kernels *ob_kernels(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, choose);
	return chosen;
}

/* ---- 8-bit floats -------------------------------------------------------------------------- */

static float f8_value[OB_F8_E5M2FNUZ + 1][256];

/* A finite code: sign, exponent, `mantissa` bits. */
static float f8_finite(unsigned code, int mantissa, int bias)
{
	const int exponent = (int)(code & 0x7f) >> mantissa;
	const int m = (int)code & ((1 << mantissa) - 1);
	const float x = exponent ? ldexpf((float)(m + (1 << mantissa)), exponent - bias - mantissa)
				 : ldexpf((float)m, 1 - bias - mantissa);

	return code & 0x80 ? -x : x;
}

static void make_f8(void)
{
	for (unsigned i = 0; i < 256; i++) {
		const uint16_t upper_half_of_f16 = (uint16_t)(i << 8);

		ob_ref_f16_to_f32(&f8_value[OB_F8_E5M2][i], &upper_half_of_f16, 1);
		f8_value[OB_F8_E4M3][i] = (i & 0x7f) == 0x7f ? NAN : f8_finite(i, 3, 7);
		f8_value[OB_F8_E4M3FNUZ][i] = i == 0x80 ? NAN : f8_finite(i, 3, 8);
		f8_value[OB_F8_E5M2FNUZ][i] = i == 0x80 ? NAN : f8_finite(i, 2, 16);
		f8_value[OB_F8_E8M0][i] = i == 0xff ? NAN : ldexpf(1, (int)i - 127);
	}
	f8_value[OB_F8_E4M3][0xff] = -NAN;
}

static void load_f8(float *dst, const uint8_t *src, enum ob_dtype t, size_t n)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_f8);
	for (size_t i = 0; i < n; i++)
		dst[i] = f8_value[t][src[i]];
}

/* ---- stored types -------------------------------------------------------------------------- */

#define LOAD_AS(type)                                     \
	for (size_t i = 0; i < n; i++) {                  \
		type v;                                   \
                                                          \
		memcpy(&v, p + i * sizeof(v), sizeof(v)); \
		dst[i] = (float)v;                        \
	}                                                 \
	return true

static bool load_contiguous(float *dst, const uint8_t *p, enum ob_dtype t, size_t n)
{
	switch (t) {
	case OB_F32:
		memcpy(dst, p, n * sizeof(*dst));
		return true;
	case OB_BF16:
		ob_kernels()->bf16_to_f32(dst, p, n);
		return true;
	case OB_F16:
		ob_kernels()->f16_to_f32(dst, p, n);
		return true;
	case OB_F8_E4M3:
	case OB_F8_E5M2:
	case OB_F8_E4M3FNUZ:
	case OB_F8_E5M2FNUZ:
	case OB_F8_E8M0:
		load_f8(dst, p, t, n);
		return true;
	case OB_BOOL:
		for (size_t i = 0; i < n; i++)
			dst[i] = p[i] != 0;
		return true;
	case OB_F64:
		LOAD_AS(double);
	case OB_I64:
		LOAD_AS(int64_t);
	case OB_U64:
		LOAD_AS(uint64_t);
	case OB_I32:
		LOAD_AS(int32_t);
	case OB_U32:
		LOAD_AS(uint32_t);
	case OB_I16:
		LOAD_AS(int16_t);
	case OB_U16:
		LOAD_AS(uint16_t);
	case OB_I8:
		LOAD_AS(int8_t);
	case OB_U8:
		LOAD_AS(uint8_t);
	default:
		return false;
	}
}

bool ob_load_f32(float *dst, const void *src, enum ob_dtype t, size_t n, int64_t stride)
{
	enum { BLOCK = 256 };
	const size_t size = ob_dtype_bits(t) / 8;
	const uint8_t *p = src;
	uint8_t block[BLOCK * sizeof(double)];

	if (stride == 1)
		return load_contiguous(dst, p, t, n);
	if (size == 0 || size > sizeof(double))
		return false;
	for (size_t i = 0; i < n; i += BLOCK) {
		const size_t m = n - i < BLOCK ? n - i : BLOCK;

		for (size_t j = 0; j < m; j++)
			memcpy(block + j * size, p + (int64_t)(i + j) * stride * (int64_t)size,
			       size);
		if (!load_contiguous(dst + i, block, t, m))
			return false;
	}
	return true;
}

void ob_store_f32(void *dst, const float *src, enum ob_dtype t, size_t n)
{
	if (t == OB_BF16)
		ob_kernels()->f32_to_bf16(dst, src, n);
	else if (t == OB_F16)
		ob_kernels()->f32_to_f16(dst, src, n);
	else
		memcpy(dst, src, n * sizeof(*src));
}

void ob_round_to(float *x, enum ob_dtype t, size_t n)
{
	if (t == OB_BF16)
		ob_kernels()->round_bf16(x, n);
	else if (t == OB_F16)
		ob_kernels()->round_f16(x, n);
}

uint32_t ob_overflow_bits(enum ob_dtype t)
{
	if (t == OB_BF16)
		return 0x7f7f8000u; /* half a step above the largest: rounds up */
	return t == OB_F16 ? 0x477ff000u : 0x7f800000u;
}
