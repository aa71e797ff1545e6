/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX2 and F16C kernels. Bodies take whole vectors; tails go to the reference.
 *
 * No pext or pdep: on the first two Zen generations they take some 250 cycles. Codes are packed and
 * unpacked with multiply-adds, shuffles and variable shifts instead.
 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/tables.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define QUIET 0x00400000

ALWAYS_INLINE __m256i load(const void *p)
{
	return _mm256_loadu_si256(p);
}

ALWAYS_INLINE __m256i nan_lanes(__m256 x)
{
	return _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

/* The bfloat16 nearest to each x, in the upper half of each lane; the lower half is undefined.
 * x is no NaN. */
ALWAYS_INLINE __m256i nearest_bf16(__m256 x)
{
	const __m256i u = _mm256_castps_si256(x);
	const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));

	return _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}

/* The same for any x. */
ALWAYS_INLINE __m256i nearest_or_nan(__m256 x)
{
	const __m256i nan = _mm256_or_si256(_mm256_castps_si256(x), _mm256_set1_epi32(QUIET));

	return _mm256_blendv_epi8(nearest_bf16(x), nan, nan_lanes(x));
}

ALWAYS_INLINE __m256 upper_halves(__m256i u)
{
	return _mm256_castsi256_ps(_mm256_and_si256(u, _mm256_set1_epi32((int)0xffff0000u)));
}

ALWAYS_INLINE __m256 rounded_f16(__m256 x)
{
	return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static void bf16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;
	const __m256i quiet = _mm256_set1_epi32(QUIET);
	size_t i = 0;

	for (; n - i >= 8; i += 8) {
		const __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p + 2 * i)));
		const __m256i u = _mm256_slli_epi32(h, 16);
		const __m256i nan = nan_lanes(_mm256_castsi256_ps(u));
		const __m256i x = _mm256_or_si256(u, _mm256_and_si256(nan, quiet));

		_mm256_storeu_si256((void *)(dst + i), x);
	}
	ob_ref_bf16_to_f32(dst + i, p + 2 * i, n - i);
}

static void f16_to_f32(float *dst, const void *src, size_t n)
{
	const uint8_t *p = src;
	size_t i = 0;

	for (; n - i >= 8; i += 8)
		_mm256_storeu_ps(dst + i,
				 _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 2 * i))));
	ob_ref_f16_to_f32(dst + i, p + 2 * i, n - i);
}

static void f32_to_bf16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;
	size_t i = 0;

	for (; n - i >= 16; i += 16) {
		const __m256i a = _mm256_srli_epi32(nearest_or_nan(_mm256_loadu_ps(src + i)), 16);
		const __m256i b =
			_mm256_srli_epi32(nearest_or_nan(_mm256_loadu_ps(src + i + 8)), 16);
		const __m256i h = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);

		_mm256_storeu_si256((void *)(p + 2 * i), h);
	}
	ob_ref_f32_to_bf16(p + 2 * i, src + i, n - i);
}

static void f32_to_f16(void *dst, const float *src, size_t n)
{
	uint8_t *p = dst;
	size_t i = 0;

	for (; n - i >= 8; i += 8) {
		const __m256 x = _mm256_loadu_ps(src + i);

		_mm_storeu_si128((void *)(p + 2 * i),
				 _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
	}
	ob_ref_f32_to_f16(p + 2 * i, src + i, n - i);
}

static void round_bf16(float *x, size_t n)
{
	size_t i = 0;

	for (; n - i >= 8; i += 8)
		_mm256_storeu_ps(x + i, upper_halves(nearest_or_nan(_mm256_loadu_ps(x + i))));
	ob_ref_round_bf16(x + i, n - i);
}

static void round_f16(float *x, size_t n)
{
	size_t i = 0;

	for (; n - i >= 8; i += 8)
		_mm256_storeu_ps(x + i, rounded_f16(_mm256_loadu_ps(x + i)));
	ob_ref_round_f16(x + i, n - i);
}

static uint32_t max_abs_bits(const float *x, size_t n)
{
	const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
	__m256i acc = _mm256_setzero_si256();
	uint32_t lane[8], max;
	size_t i = 0;

	for (; n - i >= 8; i += 8)
		acc = _mm256_max_epu32(acc, _mm256_and_si256(load(x + i), magnitude));
	max = ob_ref_max_abs_bits(x + i, n - i);
	_mm256_storeu_si256((void *)lane, acc);
	for (unsigned j = 0; j < 8; j++)
		max = lane[j] > max ? lane[j] : max;
	return max;
}

static void add(float *w, const float *d, size_t n)
{
	size_t i = 0;

	for (; n - i >= 8; i += 8) {
		const __m256 r = _mm256_add_ps(_mm256_loadu_ps(w + i), _mm256_loadu_ps(d + i));

		if (_mm256_testz_si256(nan_lanes(r), nan_lanes(r)))
			_mm256_storeu_ps(w + i, r);
		else
			ob_ref_add(w + i, d + i, 8);
	}
	ob_ref_add(w + i, d + i, n - i);
}

/* ---- MLX affine ---------------------------------------------------------------------------- */

#define CHUNK 8 /* groups whose scales are computed together */

static float largest(__m256 x)
{
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static float smallest(__m256 x)
{
	__m128 m = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	m = _mm_min_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}

/* maxps and minps give their second operand when one is a NaN: NaN elements do not count. */
ALWAYS_INLINE void mlx_limits(float *hi, float *lo, const float *w, unsigned group)
{
	__m256 max = _mm256_set1_ps(-INFINITY), min = _mm256_set1_ps(INFINITY);

	for (unsigned i = 0; i < group; i += 8) {
		const __m256 x = _mm256_loadu_ps(w + i);

		max = _mm256_max_ps(x, max);
		min = _mm256_min_ps(x, min);
	}
	*hi = largest(max);
	*lo = smallest(min);
}

/* The steps of mlx_affine() in ref.c, for a chunk of groups. */
ALWAYS_INLINE void mlx_affine(float *scale, float *bias, __m256 hi, __m256 lo, __m256 top)
{
	const __m256 sign = _mm256_set1_ps(-0.0f), zero = _mm256_setzero_ps();
	__m256 s, side, edge, q0, some;

	s = _mm256_max_ps(_mm256_set1_ps(1e-7f), _mm256_div_ps(_mm256_sub_ps(hi, lo), top));
	side = _mm256_cmp_ps(_mm256_andnot_ps(sign, lo), _mm256_andnot_ps(sign, hi), _CMP_GT_OQ);
	edge = _mm256_blendv_ps(hi, lo, side);
	s = _mm256_xor_ps(s, _mm256_andnot_ps(side, sign));
	q0 = _mm256_round_ps(_mm256_div_ps(edge, s), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	some = _mm256_cmp_ps(q0, zero, _CMP_NEQ_UQ);
	s = _mm256_blendv_ps(s, _mm256_div_ps(edge, q0), some);
	s = _mm256_blendv_ps(s, _mm256_set1_ps(NAN), _mm256_cmp_ps(s, s, _CMP_UNORD_Q));
	_mm256_storeu_ps(scale, s);
	_mm256_storeu_ps(bias, _mm256_and_ps(edge, some));
}

ALWAYS_INLINE __m256i mlx_quantize(const float *w, __m256 s, __m256 b, __m256 top)
{
	__m256 q = _mm256_div_ps(_mm256_sub_ps(_mm256_loadu_ps(w), b), s);

	q = _mm256_max_ps(q, _mm256_setzero_ps()); /* a NaN becomes 0 */
	return _mm256_cvtps_epi32(_mm256_min_ps(q, top));
}

/* Constants that pack 32 codes of one byte into a stream of `bits` bits each. */
struct packer {
	unsigned bits;
	__m256i pair, quad;	/* multipliers that put neighbours side by side: 2, then 4 codes */
	__m256i lift;		/* pushes the even quads against the odd ones: 8 codes */
	__m128i drop;		/* shift to the lower end of each qword */
	__m256i close;		/* leaves no gap between the two qwords of a lane */
	__m128i upper0, upper1; /* what the upper lane adds to the first and second 16 bytes */
};

static struct packer packer(unsigned bits)
{
	const int b = (int)bits;
	const __m128i at = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m128i second = _mm_cmpgt_epi8(at, _mm_set1_epi8((char)(b - 1)));
	const __m128i outside = _mm_cmpgt_epi8(at, _mm_set1_epi8((char)(2 * b - 1)));
	const __m128i skip = _mm_and_si128(second, _mm_set1_epi8((char)(8 - b)));
	const __m128i close = _mm_or_si128(_mm_add_epi8(at, skip), outside);

	return (struct packer){
		.bits = bits,
		.pair = _mm256_set1_epi16((short)(1 | 1 << (8 + b))),
		.quad = _mm256_set1_epi32((int)(1 | 1ll << (16 + 2 * b))),
		.lift = _mm256_set1_epi64x(32 - 4 * b),
		.drop = _mm_cvtsi32_si128(32 - 4 * b),
		.close = _mm256_broadcastsi128_si256(close),
		.upper0 = _mm_sub_epi8(at, _mm_set1_epi8((char)(2 * b))),
		.upper1 = _mm_add_epi8(at, _mm_set1_epi8((char)(16 - 2 * b))),
	};
}

/* 32 codes, 8 in each v, to 4 * bits bytes. May write up to 32 bytes when `end` allows: what is too
 * much is overwritten by the codes that follow. */
ALWAYS_INLINE void mlx_pack(uint8_t *codes, const uint8_t *end, __m256i v0, __m256i v1, __m256i v2,
			    __m256i v3, const struct packer *p)
{
	const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
	const __m256i words0 = _mm256_packus_epi32(v0, v1), words1 = _mm256_packus_epi32(v2, v3);
	__m256i x = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words0, words1), order);

	if (p->bits < 8) {
		__m128i upper;

		x = _mm256_madd_epi16(_mm256_maddubs_epi16(x, p->pair), p->quad);
		x = _mm256_srl_epi64(_mm256_sllv_epi32(x, p->lift), p->drop);
		x = _mm256_shuffle_epi8(x, p->close);
		upper = _mm256_extracti128_si256(x, 1);
		x = _mm256_inserti128_si256(x, _mm_shuffle_epi8(upper, p->upper1), 1);
		upper = _mm_shuffle_epi8(upper, p->upper0);
		x = _mm256_or_si256(x, _mm256_zextsi128_si256(upper));
	}
	if (end - codes >= 32) {
		_mm256_storeu_si256((void *)codes, x);
	} else {
		uint8_t last[32];

		_mm256_storeu_si256((void *)last, x);
		memcpy(codes, last, 4 * p->bits);
	}
}

static void mlx_encode(uint8_t *codes, float *scales, float *biases, const float *src, size_t n,
		       unsigned bits, unsigned group)
{
	const struct packer p = packer(bits);
	const __m256 top = _mm256_set1_ps((float)((1 << bits) - 1));
	const uint8_t *end = codes + n / 8 * bits;
	const size_t n_groups = n / group;

	for (size_t g = 0; g < n_groups; g += CHUNK) {
		const size_t m = n_groups - g < CHUNK ? n_groups - g : CHUNK;
		float hi[CHUNK] = { 0 }, lo[CHUNK] = { 0 }, s[CHUNK], b[CHUNK];

		for (size_t i = 0; i < m; i++)
			mlx_limits(hi + i, lo + i, src + i * group, group);
		mlx_affine(s, b, _mm256_loadu_ps(hi), _mm256_loadu_ps(lo), top);
		memcpy(scales + g, s, m * sizeof(*s));
		memcpy(biases + g, b, m * sizeof(*b));
		for (size_t i = 0; i < m * group; i += 32, src += 32, codes += 4 * bits) {
			const __m256 si = _mm256_set1_ps(s[i / group]);
			const __m256 bi = _mm256_set1_ps(b[i / group]);

			mlx_pack(codes, end, mlx_quantize(src, si, bi, top),
				 mlx_quantize(src + 8, si, bi, top),
				 mlx_quantize(src + 16, si, bi, top),
				 mlx_quantize(src + 24, si, bi, top), &p);
		}
	}
}

/* The next 8 codes. Reads 8 bytes unless that goes beyond the end. */
ALWAYS_INLINE uint64_t mlx_codes8(const uint8_t *codes, const uint8_t *end, unsigned bits)
{
	uint64_t stream = 0;

	if (end - codes >= 8)
		memcpy(&stream, codes, 8);
	else
		memcpy(&stream, codes, bits);
	return stream;
}

ALWAYS_INLINE __m256 as_is(__m256 x)
{
	return x;
}

ALWAYS_INLINE __m256 rounded_bf16(__m256 x)
{
	return upper_halves(nearest_bf16(x));
}

/* Inlined three times, with `rounded` known. Finite scales and biases give no NaN. */
ALWAYS_INLINE void mlx_decode_as(float *dst, const uint8_t *codes, const float *scales,
				 const float *biases, size_t n, unsigned bits, unsigned group,
				 __m256 (*rounded)(__m256), __typeof__(ob_ref_mlx_decode) *ref)
{
	const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	const __m256i bit = _mm256_mullo_epi32(lane, _mm256_set1_epi32((int)bits));
	const __m256i byte = _mm256_srli_epi32(bit, 3);
	/* The byte with the first bit of the code and the one after it. */
	const __m256i from = _mm256_add_epi32(_mm256_mullo_epi32(byte, _mm256_set1_epi32(0x0101)),
					      _mm256_set1_epi32((int)0x80800100u));
	const __m256i down = _mm256_and_si256(bit, _mm256_set1_epi32(7));
	const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
	const uint8_t *end = codes + n / 8 * bits;

	for (size_t i = 0; i < n; i += group, scales++, biases++) {
		const __m256 s = _mm256_set1_ps(*scales), b = _mm256_set1_ps(*biases);

		if (!isfinite(*scales) || !isfinite(*biases)) {
			ref(dst + i, codes, scales, biases, group, bits, group);
			codes += group / 8 * bits;
			continue;
		}
		for (unsigned j = 0; j < group; j += 8, codes += bits) {
			const long long stream = (long long)mlx_codes8(codes, end, bits);
			__m256i q = _mm256_shuffle_epi8(_mm256_set1_epi64x(stream), from);
			__m256 p;

			q = _mm256_and_si256(_mm256_srlv_epi32(q, down), mask);
			p = rounded(_mm256_mul_ps(s, _mm256_cvtepi32_ps(q)));
			_mm256_storeu_ps(dst + i + j, rounded(_mm256_add_ps(p, b)));
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
	const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
	__m256i a = _mm256_setzero_si256(), b = a;
	__m128i m;

	for (size_t i = 0; i < n; i += 16) {
		a = _mm256_max_epu32(a, _mm256_and_si256(load(x + i), magnitude));
		b = _mm256_max_epu32(b, _mm256_and_si256(load(x + i + 8), magnitude));
	}
	a = _mm256_max_epu32(a, b);
	m = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
	m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
	m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
	return (uint32_t)_mm_cvtsi128_si32(m);
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

/* A row of 16 by 4-bit index: the upper bit of the index chooses the half. */
ALWAYS_INLINE __m256 choose16(__m256 low, __m256 high, __m256i at)
{
	return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, at),
				_mm256_permutevar8x32_ps(high, at),
				_mm256_castsi256_ps(_mm256_slli_epi32(at, 28)));
}

/* The number of thresholds below y. Comparing with each is faster than a search by permutation. */
ALWAYS_INLINE __m256i rank_of(__m256 y, const float *threshold, int n)
{
	__m256i rank = _mm256_setzero_si256();

#pragma GCC unroll 15
	for (int i = 0; i < n; i++) {
		const __m256 t = _mm256_broadcast_ss(threshold + i);

		rank = _mm256_sub_epi32(rank, _mm256_castps_si256(_mm256_cmp_ps(y, t, _CMP_GT_OQ)));
	}
	return rank;
}

ALWAYS_INLINE __m256i bnb4_code(__m256 y, __m256i fp4_codes, bool fp4)
{
	const __m256 sign = _mm256_set1_ps(-0.0f);
	__m256i code, negative;

	if (!fp4)
		return rank_of(y, ob_nf4_threshold, 15);
	code = rank_of(_mm256_andnot_ps(sign, y), ob_fp4_threshold, 7);
	code = _mm256_permutevar8x32_epi32(fp4_codes, code);
	negative = _mm256_castps_si256(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_LT_OQ));
	return _mm256_or_si256(code, _mm256_and_si256(negative, _mm256_set1_epi32(8)));
}

/* 32 codes, 8 in each v, to 16 bytes. */
ALWAYS_INLINE void bnb4_pack(uint8_t *codes, __m256i v0, __m256i v1, __m256i v2, __m256i v3)
{
	const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
	const __m256i words0 = _mm256_packus_epi32(v0, v1), words1 = _mm256_packus_epi32(v2, v3);
	__m256i x = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words0, words1), order);

	x = _mm256_maddubs_epi16(x, _mm256_set1_epi16(1 << 8 | 16));
	x = _mm256_permute4x64_epi64(_mm256_packus_epi16(x, x), 0x08);
	_mm_storeu_si128((void *)codes, _mm256_castsi256_si128(x));
}

ALWAYS_INLINE void bnb4_encode_as(uint8_t *codes, const float *absmax, const float *src, size_t n,
				  size_t block, bool fp4)
{
	const __m256i fp4_codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)ob_fp4_code));

	for (size_t i = 0; i < n; i += block, absmax++) {
		const size_t m = n - i < block ? n - i : block;
		const __m256 r = _mm256_set1_ps(*absmax > 0 ? 1 / *absmax : 0);
		size_t j = 0;

		for (; m - j >= 32; j += 32, codes += 16) {
			__m256i c[4];

#pragma GCC unroll 4
			for (unsigned k = 0; k < 4; k++) {
				const __m256 x = _mm256_loadu_ps(src + i + j + 8 * k);

				c[k] = bnb4_code(_mm256_mul_ps(x, r), fp4_codes, fp4);
			}
			bnb4_pack(codes, c[0], c[1], c[2], c[3]);
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

/* 8 values of the codes in the lower 8 bytes of c. */
ALWAYS_INLINE __m256 bnb4_values(__m128i c, __m256 low, __m256 high, __m256 a)
{
	return _mm256_mul_ps(a, choose16(low, high, _mm256_cvtepu8_epi32(c)));
}

static void bnb4_decode(float *dst, const uint8_t *codes, const float *absmax, size_t n,
			size_t block, bool fp4)
{
	const float *book = fp4 ? ob_fp4_book : ob_nf4_book;
	const __m256 low = _mm256_loadu_ps(book), high = _mm256_loadu_ps(book + 8);
	const __m128i nibble = _mm_set1_epi8(15);

	for (size_t i = 0; i < n; i += block, absmax++) {
		const size_t m = n - i < block ? n - i : block;
		const __m256 a = _mm256_set1_ps(*absmax);
		size_t j = 0;

		for (; m - j >= 32 && isfinite(*absmax); j += 32) {
			const __m128i b = _mm_loadu_si128((const void *)(codes + (i + j) / 2));
			const __m128i up = _mm_and_si128(_mm_srli_epi16(b, 4), nibble);
			const __m128i c0 = _mm_unpacklo_epi8(up, _mm_and_si128(b, nibble));
			const __m128i c1 = _mm_unpackhi_epi8(up, _mm_and_si128(b, nibble));
			float *to = dst + i + j;

			_mm256_storeu_ps(to, bnb4_values(c0, low, high, a));
			_mm256_storeu_ps(to + 8, bnb4_values(_mm_srli_si128(c0, 8), low, high, a));
			_mm256_storeu_ps(to + 16, bnb4_values(c1, low, high, a));
			_mm256_storeu_ps(to + 24, bnb4_values(_mm_srli_si128(c1, 8), low, high, a));
		}
		if (j < m)
			ob_ref_bnb4_decode(dst + i + j, codes + (i + j) / 2, absmax, m - j, block,
					   fp4);
	}
}

/* maxps gives its second operand for a NaN. */
ALWAYS_INLINE __m256i int8_quantize(const float *src, __m256 k)
{
	__m256 q = _mm256_mul_ps(_mm256_loadu_ps(src), k);

	q = _mm256_min_ps(_mm256_max_ps(q, _mm256_set1_ps(-128)), _mm256_set1_ps(127));
	return _mm256_cvtps_epi32(q);
}

static void int8_encode(int8_t *codes, const float *src, float k, size_t n)
{
	const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
	const __m256 kk = _mm256_set1_ps(k);
	size_t i = 0;

	for (; n - i >= 32; i += 32) {
		const __m256i a = _mm256_packs_epi32(int8_quantize(src + i, kk),
						     int8_quantize(src + i + 8, kk));
		const __m256i b = _mm256_packs_epi32(int8_quantize(src + i + 16, kk),
						     int8_quantize(src + i + 24, kk));

		_mm256_storeu_si256((void *)(codes + i),
				    _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order));
	}
	ob_ref_int8_encode(codes + i, src + i, k, n - i);
}

static void int8_decode(float *dst, const int8_t *codes, float a, float b, size_t n)
{
	const __m256 aa = _mm256_set1_ps(a), bb = _mm256_set1_ps(b);
	size_t i = 0;

	for (; n - i >= 8 && isfinite(a); i += 8) {
		const __m128i q = _mm_loadl_epi64((const void *)(codes + i));
		const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));

		_mm256_storeu_ps(dst + i, _mm256_mul_ps(_mm256_mul_ps(x, aa), bb));
	}
	ob_ref_int8_decode(dst + i, codes + i, a, b, n - i);
}

const struct ob_kernels ob_kernels_avx2 = {
	.name = "avx2",
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
