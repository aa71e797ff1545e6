/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX-512 kernels (F, BW, DQ, VL). Bodies take whole vectors; tails go to the reference.
 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/tables.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define QUIET 0x00400000

ALWAYS_INLINE __mmask16 nan_lanes(__m512 x)
{
	return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
}

/* The bfloat16 nearest to each x, in the upper half of each lane; the lower half is undefined.
 * x is no NaN. */
ALWAYS_INLINE __m512i nearest_bf16(__m512 x)
{
	const __m512i u = _mm512_castps_si512(x);
	const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));

	return _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

/* The same for any x. */
ALWAYS_INLINE __m512i nearest_or_nan(__m512 x)
{
	const __m512i quiet = _mm512_set1_epi32(QUIET);

	return _mm512_mask_or_epi32(nearest_bf16(x), nan_lanes(x), _mm512_castps_si512(x), quiet);
}

ALWAYS_INLINE __m512 upper_halves(__m512i u)
{
	return _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000u)));
}

ALWAYS_INLINE __m512 rounded_f16(__m512 x)
{
	return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static void bf16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;
	size_t i = 0;

	for (; n - i >= 16; i += 16) {
		const __m512i h =
			_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p + 2 * i)));
		__m512i u = _mm512_slli_epi32(h, 16);

		u = _mm512_mask_or_epi32(u, nan_lanes(_mm512_castsi512_ps(u)), u,
					 _mm512_set1_epi32(QUIET));
		_mm512_storeu_si512(dst + i, u);
	}
	ob_ref_bf16_to_f32(dst + i, p + 2 * i, n - i);
}

static void f16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;
	size_t i = 0;

	for (; n - i >= 16; i += 16) {
		const __m256i h = _mm256_loadu_si256((const void *)(p + 2 * i));

		_mm512_storeu_ps(dst + i, _mm512_cvtph_ps(h));
	}
	ob_ref_f16_to_f32(dst + i, p + 2 * i, n - i);
}

static void f32_to_bf16(void *dst, const float *src, size_t n)
{
	const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
	uint8_t *p = dst;
	size_t i = 0;

	for (; n - i >= 32; i += 32) {
		const __m512i a = _mm512_srli_epi32(nearest_or_nan(_mm512_loadu_ps(src + i)), 16);
		const __m512i b =
			_mm512_srli_epi32(nearest_or_nan(_mm512_loadu_ps(src + i + 16)), 16);
		const __m512i h = _mm512_permutexvar_epi64(order, _mm512_packus_epi32(a, b));

		_mm512_storeu_si512(p + 2 * i, h);
	}
	ob_ref_f32_to_bf16(p + 2 * i, src + i, n - i);
}

static void f32_to_f16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;
	size_t i = 0;

	for (; n - i >= 16; i += 16) {
		const __m512 x = _mm512_loadu_ps(src + i);

		_mm256_storeu_si256((void *)(p + 2 * i),
				    _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
	}
	ob_ref_f32_to_f16(p + 2 * i, src + i, n - i);
}

static void round_bf16(float *x, size_t n)
{
	size_t i = 0;

	for (; n - i >= 16; i += 16)
		_mm512_storeu_ps(x + i, upper_halves(nearest_or_nan(_mm512_loadu_ps(x + i))));
	ob_ref_round_bf16(x + i, n - i);
}

static void round_f16(float *x, size_t n)
{
	size_t i = 0;

	for (; n - i >= 16; i += 16)
		_mm512_storeu_ps(x + i, rounded_f16(_mm512_loadu_ps(x + i)));
	ob_ref_round_f16(x + i, n - i);
}

static uint32_t max_abs_bits(const float *x, size_t n)
{
	const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
	__m512i acc = _mm512_setzero_si512();
	uint32_t max, tail;
	size_t i = 0;

	for (; n - i >= 16; i += 16)
		acc = _mm512_max_epu32(acc, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
	max = _mm512_reduce_max_epu32(acc);
	tail = ob_ref_max_abs_bits(x + i, n - i);
	return tail > max ? tail : max;
}

static void add(float *w, const float *d, size_t n)
{
	size_t i = 0;

	for (; n - i >= 16; i += 16) {
		const __m512 r = _mm512_add_ps(_mm512_loadu_ps(w + i), _mm512_loadu_ps(d + i));

		if (nan_lanes(r) == 0)
			_mm512_storeu_ps(w + i, r);
		else
			ob_ref_add(w + i, d + i, 16);
	}
	ob_ref_add(w + i, d + i, n - i);
}

/* ---- MLX affine ---------------------------------------------------------------------------- */

#define CHUNK 16 /* groups whose scales are computed together */

/* maxps and minps give their second operand when one is a NaN: NaN elements do not count. */
ALWAYS_INLINE void mlx_limits(float *hi, float *lo, const float *w, unsigned group)
{
	__m512 max = _mm512_set1_ps(-INFINITY), min = _mm512_set1_ps(INFINITY);

	for (unsigned i = 0; i < group; i += 16) {
		const __m512 x = _mm512_loadu_ps(w + i);

		max = _mm512_max_ps(x, max);
		min = _mm512_min_ps(x, min);
	}
	*hi = _mm512_reduce_max_ps(max);
	*lo = _mm512_reduce_min_ps(min);
}

/* The steps of mlx_affine() in ref.c, for a chunk of groups. */
ALWAYS_INLINE void mlx_affine(float *scale, float *bias, __m512 hi, __m512 lo, __m512 top)
{
	__m512 s, edge, q0;
	__mmask16 side, some;

	s = _mm512_max_ps(_mm512_set1_ps(1e-7f), _mm512_div_ps(_mm512_sub_ps(hi, lo), top));
	side = _mm512_cmp_ps_mask(_mm512_abs_ps(lo), _mm512_abs_ps(hi), _CMP_GT_OQ);
	edge = _mm512_mask_blend_ps(side, hi, lo);
	s = _mm512_mask_blend_ps(side, _mm512_xor_ps(s, _mm512_set1_ps(-0.0f)), s);
	q0 = _mm512_roundscale_ps(_mm512_div_ps(edge, s), _MM_FROUND_TO_NEAREST_INT);
	some = _mm512_cmp_ps_mask(q0, _mm512_setzero_ps(), _CMP_NEQ_UQ);
	s = _mm512_mask_div_ps(s, some, edge, q0);
	s = _mm512_mask_blend_ps(nan_lanes(s), s, _mm512_set1_ps(NAN));
	_mm512_storeu_ps(scale, s);
	_mm512_storeu_ps(bias, _mm512_maskz_mov_ps(some, edge));
}

ALWAYS_INLINE __m512i mlx_quantize(const float *w, float s, float b, __m512 top)
{
	__m512 q = _mm512_sub_ps(_mm512_loadu_ps(w), _mm512_set1_ps(b));

	q = _mm512_div_ps(q, _mm512_set1_ps(s));
	q = _mm512_max_ps(q, _mm512_setzero_ps()); /* a NaN becomes 0 */
	return _mm512_cvtps_epi32(_mm512_min_ps(q, top));
}

/* Constants that pack 64 codes of one byte into a stream of `bits` bits each. */
struct packer {
	unsigned bits;
	__mmask32 used;	    /* 16-bit words of the stream */
	__m512i pair, quad; /* multipliers that put neighbours side by side: 2, then 4 codes */
	__m512i lift;	    /* pushes the even quads against the odd ones: 8 codes */
	__m128i drop;	    /* shift to the lower end of each qword */
	__m512i close;	    /* leaves no gap between the two qwords of a lane */
	__m512i gather;	    /* leaves no gap between the lanes */
};

static struct packer packer(unsigned bits)
{
	const int b = (int)bits;
	const __m128i at = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m128i second = _mm_cmpgt_epi8(at, _mm_set1_epi8((char)(b - 1)));
	const __m128i outside = _mm_cmpgt_epi8(at, _mm_set1_epi8((char)(2 * b - 1)));
	const __m128i skip = _mm_and_si128(second, _mm_set1_epi8((char)(8 - b)));
	const __m128i close = _mm_or_si128(_mm_add_epi8(at, skip), outside);
	uint16_t gather[32];

	for (int i = 0; i < 32; i++)
		gather[i] = (uint16_t)(i / b * 8 + i % b);
	return (struct packer){
		.bits = bits,
		.used = (__mmask32)((1ull << 4 * b) - 1),
		.pair = _mm512_set1_epi16((short)(1 | 1 << (8 + b))),
		.quad = _mm512_set1_epi32((int)(1 | 1ll << (16 + 2 * b))),
		.lift = _mm512_set1_epi64(32 - 4 * b),
		.drop = _mm_cvtsi32_si128(32 - 4 * b),
		.close = _mm512_broadcast_i32x4(close),
		.gather = _mm512_loadu_si512(gather),
	};
}

/* 64 codes, 16 in each v, to 8 * bits bytes. */
ALWAYS_INLINE void mlx_pack(uint8_t *codes, __m512i v0, __m512i v1, __m512i v2, __m512i v3,
			    const struct packer *p)
{
	const __m512i order =
		_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	const __m512i words0 = _mm512_packus_epi32(v0, v1), words1 = _mm512_packus_epi32(v2, v3);
	__m512i x = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words0, words1));

	if (p->bits < 8) {
		x = _mm512_madd_epi16(_mm512_maddubs_epi16(x, p->pair), p->quad);
		x = _mm512_srl_epi64(_mm512_sllv_epi32(x, p->lift), p->drop);
		x = _mm512_permutexvar_epi16(p->gather, _mm512_shuffle_epi8(x, p->close));
	}
	_mm512_mask_storeu_epi16(codes, p->used, x);
}

static void mlx_encode(uint8_t *codes, float *scales, float *biases, const float *src, size_t n,
		       unsigned bits, unsigned group)
{
	const struct packer p = packer(bits);
	const __m512 top = _mm512_set1_ps((float)((1 << bits) - 1));
	const size_t whole = n / 64 * 64, n_groups = whole / group;

	for (size_t g = 0; g < n_groups; g += CHUNK) {
		const size_t m = n_groups - g < CHUNK ? n_groups - g : CHUNK;
		float hi[CHUNK] = { 0 }, lo[CHUNK] = { 0 }, s[CHUNK], b[CHUNK];

		for (size_t i = 0; i < m; i++)
			mlx_limits(hi + i, lo + i, src + (g + i) * group, group);
		mlx_affine(s, b, _mm512_loadu_ps(hi), _mm512_loadu_ps(lo), top);
		memcpy(scales + g, s, m * sizeof(*s));
		memcpy(biases + g, b, m * sizeof(*b));
		for (size_t i = 0; i < m * group; i += 64) {
			const float *w = src + g * group + i;
			const size_t first = i / group, second = (i + 32) / group;

			mlx_pack(codes, mlx_quantize(w, s[first], b[first], top),
				 mlx_quantize(w + 16, s[first], b[first], top),
				 mlx_quantize(w + 32, s[second], b[second], top),
				 mlx_quantize(w + 48, s[second], b[second], top), &p);
			codes += 8 * bits;
		}
	}
	/* An odd group of 32. */
	ob_ref_mlx_encode(codes, scales + n_groups, biases + n_groups, src + whole, n - whole, bits,
			  group);
}

ALWAYS_INLINE __m512 as_is(__m512 x)
{
	return x;
}

ALWAYS_INLINE __m512 rounded_bf16(__m512 x)
{
	return upper_halves(nearest_bf16(x));
}

/* Inlined three times, with `rounded` known. Finite scales and biases give no NaN. */
ALWAYS_INLINE void mlx_decode_as(float *dst, const uint8_t *codes, const float *scales,
				 const float *biases, size_t n, unsigned bits, unsigned group,
				 __m512 (*rounded)(__m512), __typeof__(ob_ref_mlx_decode) *ref)
{
	const __m512i lane =
		_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m512i bit = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)bits));
	const __m512i byte = _mm512_srli_epi32(bit, 3);
	/* The byte with the first bit of the code and the one after it. */
	const __m512i from = _mm512_add_epi32(_mm512_mullo_epi32(byte, _mm512_set1_epi32(0x0101)),
					      _mm512_set1_epi32((int)0x80800100u));
	const __m512i down = _mm512_and_si512(bit, _mm512_set1_epi32(7));
	const __m512i mask = _mm512_set1_epi32((1 << bits) - 1);
	const __mmask16 used = (__mmask16)((1u << 2 * bits) - 1);

	for (size_t i = 0; i < n; i += group, scales++, biases++) {
		const __m512 s = _mm512_set1_ps(*scales), b = _mm512_set1_ps(*biases);

		if (!isfinite(*scales) || !isfinite(*biases)) {
			ref(dst + i, codes, scales, biases, group, bits, group);
			codes += group / 8 * bits;
			continue;
		}
		for (unsigned j = 0; j < group; j += 16, codes += 2 * bits) {
			const __m128i stream = _mm_maskz_loadu_epi8(used, codes);
			__m512i q = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(stream), from);
			__m512 p;

			q = _mm512_and_si512(_mm512_srlv_epi32(q, down), mask);
			p = rounded(_mm512_mul_ps(s, _mm512_cvtepi32_ps(q)));
			_mm512_storeu_ps(dst + i + j, rounded(_mm512_add_ps(p, b)));
		}
	}
}

static void mlx_decode(float *dst, const uint8_t *codes, const float *scales, const float *biases,
		       size_t n, unsigned bits, unsigned group)
{
	mlx_decode_as(dst, codes, scales, biases, n, bits, group, as_is, ob_ref_mlx_decode);
}

static void mlx_decode_bf16(float *dst, const uint8_t *codes, const float *scales,
			    const float *biases, size_t n, unsigned bits, unsigned group)
{
	mlx_decode_as(dst, codes, scales, biases, n, bits, group, rounded_bf16,
		      ob_ref_mlx_decode_bf16);
}

static void mlx_decode_f16(float *dst, const uint8_t *codes, const float *scales,
			   const float *biases, size_t n, unsigned bits, unsigned group)
{
	mlx_decode_as(dst, codes, scales, biases, n, bits, group, rounded_f16,
		      ob_ref_mlx_decode_f16);
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* n is a multiple of 32. */
ALWAYS_INLINE uint32_t max_abs_bits32(const float *x, size_t n)
{
	const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
	__m512i a = _mm512_setzero_si512(), b = a;

	for (size_t i = 0; i < n; i += 32) {
		const __m512i x0 = _mm512_loadu_si512(x + i), x1 = _mm512_loadu_si512(x + i + 16);

		a = _mm512_max_epu32(a, _mm512_and_si512(x0, magnitude));
		b = _mm512_max_epu32(b, _mm512_and_si512(x1, magnitude));
	}
	return _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
}

static void block_max(float *max, const float *src, size_t n, size_t block)
{
	for (size_t i = 0; i < n; i += block) {
		const size_t m = n - i < block ? n - i : block;
		const uint32_t bits = m % 32 == 0 ? max_abs_bits32(src + i, m)
						  : max_abs_bits(src + i, m);

		memcpy(max++, &bits, sizeof(bits));
	}
}

/* The number of thresholds below y, by halves; rows of `t` beyond the last are not asked for. */
ALWAYS_INLINE __m512i rank_of(__m512 y, __m512 t, int half)
{
	__m512i rank = _mm512_setzero_si512();

#pragma GCC unroll 4
	for (; half > 0; half /= 2) {
		const __m512i at = _mm512_add_epi32(rank, _mm512_set1_epi32(half - 1));
		const __mmask16 above =
			_mm512_cmp_ps_mask(y, _mm512_permutexvar_ps(at, t), _CMP_GT_OQ);

		rank = _mm512_mask_add_epi32(rank, above, rank, _mm512_set1_epi32(half));
	}
	return rank;
}

ALWAYS_INLINE __m512i bnb4_code(__m512 y, __m512 t, __m512i fp4_codes, bool fp4)
{
	__m512i code;

	if (!fp4)
		return rank_of(y, t, 8);
	code = _mm512_permutexvar_epi32(rank_of(_mm512_abs_ps(y), t, 4), fp4_codes);
	return _mm512_mask_or_epi32(code, _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_LT_OQ),
				    code, _mm512_set1_epi32(8));
}

ALWAYS_INLINE void bnb4_encode_as(uint8_t *codes, const float *absmax, const float *src, size_t n,
				  size_t block, bool fp4)
{
	const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
	const __m512i join = _mm512_set1_epi32(1 << 16 | 16);
	const __m512i fp4_codes = _mm512_cvtepu8_epi32(_mm_loadl_epi64((const void *)ob_fp4_code));
	const __m512 t = fp4 ? _mm512_maskz_loadu_ps(0x7f, ob_fp4_threshold)
			     : _mm512_maskz_loadu_ps(0x7fff, ob_nf4_threshold);

	for (size_t i = 0; i < n; i += block, absmax++) {
		const size_t m = n - i < block ? n - i : block;
		const __m512 r = _mm512_set1_ps(*absmax > 0 ? 1 / *absmax : 0);
		size_t j = 0;

		for (; m - j >= 32; j += 32, codes += 16) {
			const __m512 x0 = _mm512_loadu_ps(src + i + j);
			const __m512 x1 = _mm512_loadu_ps(src + i + j + 16);
			const __m512i c0 = bnb4_code(_mm512_mul_ps(x0, r), t, fp4_codes, fp4);
			const __m512i c1 = bnb4_code(_mm512_mul_ps(x1, r), t, fp4_codes, fp4);
			const __m512i c =
				_mm512_permutexvar_epi64(order, _mm512_packus_epi32(c0, c1));

			_mm_storeu_si128((void *)codes,
					 _mm512_cvtepi32_epi8(_mm512_madd_epi16(c, join)));
		}
		if (j < m)
			ob_ref_bnb4_encode(codes, absmax, src + i + j, m - j, block, fp4);
	}
}

static void bnb4_encode(uint8_t *codes, const float *absmax, const float *src, size_t n,
			size_t block, bool fp4)
{
	if (fp4)
		bnb4_encode_as(codes, absmax, src, n, block, true);
	else
		bnb4_encode_as(codes, absmax, src, n, block, false);
}

static void bnb4_decode(float *dst, const uint8_t *codes, const float *absmax, size_t n,
			size_t block, bool fp4)
{
	const __m512 book = _mm512_loadu_ps(fp4 ? ob_fp4_book : ob_nf4_book);
	const __m128i nibble = _mm_set1_epi8(15);

	for (size_t i = 0; i < n; i += block, absmax++) {
		const size_t m = n - i < block ? n - i : block;
		const __m512 a = _mm512_set1_ps(*absmax);
		size_t j = 0;

		for (; m - j >= 32 && isfinite(*absmax); j += 32) {
			const __m128i b = _mm_loadu_si128((const void *)(codes + (i + j) / 2));
			const __m128i up = _mm_and_si128(_mm_srli_epi16(b, 4), nibble);
			const __m128i low = _mm_and_si128(b, nibble);
			const __m512i c0 = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(up, low));
			const __m512i c1 = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(up, low));

			_mm512_storeu_ps(dst + i + j,
					 _mm512_mul_ps(a, _mm512_permutexvar_ps(c0, book)));
			_mm512_storeu_ps(dst + i + j + 16,
					 _mm512_mul_ps(a, _mm512_permutexvar_ps(c1, book)));
		}
		if (j < m)
			ob_ref_bnb4_decode(dst + i + j, codes + (i + j) / 2, absmax, m - j, block,
					   fp4);
	}
}

static void int8_encode(int8_t *codes, const float *src, float k, size_t n)
{
	const __m512 least = _mm512_set1_ps(-128), most = _mm512_set1_ps(127);
	size_t i = 0;

	for (; n - i >= 16; i += 16) {
		__m512 q = _mm512_mul_ps(_mm512_loadu_ps(src + i), _mm512_set1_ps(k));

		/* maxps gives its second operand for a NaN. */
		q = _mm512_min_ps(_mm512_max_ps(q, least), most);
		_mm_storeu_si128((void *)(codes + i), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(q)));
	}
	ob_ref_int8_encode(codes + i, src + i, k, n - i);
}

static void int8_decode(float *dst, const int8_t *codes, float a, float b, size_t n)
{
	size_t i = 0;

	for (; n - i >= 16 && isfinite(a); i += 16) {
		const __m128i q = _mm_loadu_si128((const void *)(codes + i));
		const __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));

		_mm512_storeu_ps(dst + i, _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(a)),
							_mm512_set1_ps(b)));
	}
	ob_ref_int8_decode(dst + i, codes + i, a, b, n - i);
}

const struct ob_kernels ob_kernels_avx512 = {
	.name = "avx512",
	.bf16_to_f32 = bf16_to_f32,
	.f16_to_f32 = f16_to_f32,
	.f32_to_bf16 = f32_to_bf16,
	.f32_to_f16 = f32_to_f16,
	.round_bf16 = round_bf16,
	.round_f16 = round_f16,
	.max_abs_bits = max_abs_bits,
	.add = add,
	.mlx_encode = mlx_encode,
	.mlx_decode = mlx_decode,
	.mlx_decode_bf16 = mlx_decode_bf16,
	.mlx_decode_f16 = mlx_decode_f16,
	.block_max = block_max,
	.bnb4_encode = bnb4_encode,
	.bnb4_decode = bnb4_decode,
	.int8_encode = int8_encode,
	.int8_decode = int8_decode,
};
