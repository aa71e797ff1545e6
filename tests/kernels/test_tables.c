/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel table that this machine can run against the reference, bit for bit. Buffers end, and
 * in a second round begin, at pages that may not be touched.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/tables.h"

#define FILL 0xa5

static unsigned long n_checks, n_failures;
static uint64_t seed = 1;

/* ---- buffers ------------------------------------------------------------------------------- */

struct guarded {
	uint8_t *page, *p;
	size_t len, size;
};

/* len bytes that end (or begin) at a forbidden page; the rest of the pages holds FILL. */
static struct guarded guarded(size_t len, bool at_start)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct guarded g = { .len = len, .size = (len / page + 1) * page };
	uint8_t *all = mmap(NULL, g.size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	g.page = all + page;
	if (all == MAP_FAILED || mprotect(g.page, g.size, PROT_READ | PROT_WRITE) != 0)
		abort();
	memset(g.page, FILL, g.size);
	g.p = at_start ? g.page : g.page + g.size - len;
	return g;
}

static void release(struct guarded *g)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	munmap(g->page - page, g->size + 2 * page);
}

static bool is_intact(const struct guarded *g)
{
	for (const uint8_t *q = g->page; q < g->page + g->size; q++)
		if ((q < g->p || q >= g->p + g->len) && *q != FILL)
			return false;
	return true;
}

static void check(const char *kernel, const struct ob_kernels *k, const struct guarded *got,
		  const void *want, const char *what)
{
	size_t i = 0;

	n_checks++;
	if (is_intact(got) && memcmp(got->p, want, got->len) == 0)
		return;
	if (++n_failures > 20)
		return;
	while (i < got->len && got->p[i] == ((const uint8_t *)want)[i])
		i++;
	fprintf(stderr, "%s/%s (%s): %s at byte %zu of %zu\n", k->name, kernel, what,
		is_intact(got) ? "differs" : "writes outside", i, got->len);
}

/* ---- values -------------------------------------------------------------------------------- */

static uint32_t random32(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 32);
}

static float of_bits(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

static float uniform(void)
{
	return (float)(int32_t)random32() * 0x1p-31f;
}

/* Any pattern, or one next to where something changes. */
static uint32_t nasty(void)
{
	static const uint32_t edges[] = {
		0,	    0x00000001, 0x00400000, 0x007fffff, 0x00800000, /* subnormals */
		0x33000000, 0x33800000, 0x387fe000, 0x38800000, 0x477fe000, /* float16 */
		0x477ff000, 0x7f7f0000, 0x7f7f8000, 0x7f7fffff, 0x7f800000, /* overflow */
		0x7f800001, 0x7fa00000, 0x7fc00000, 0x7fffffff, 0x3f800000, /* NaN */
	};
	const uint32_t r = random32();

	switch (r >> 8 & 3) {
	case 0:
		return edges[r % (sizeof(edges) / sizeof(*edges))] ^ (random32() & 0x80000000u);
	case 1: /* around a tie of bfloat16 */
		return ((random32() & 0xffff0000u) | 0x8000u) + r % 3 - 1;
	case 2: /* around a tie of float16, in its range */
		return (((random32() % 0x10000000u + 0x38000000u) & 0xffffe000u) | 0x1000u) +
		       r % 3 - 1;
	default:
		return random32();
	}
}

/* ---- conversions --------------------------------------------------------------------------- */

typedef void to_float(float *dst, const void *src, size_t n);
typedef void from_float(void *dst, const float *src, size_t n);
typedef void in_place(float *x, size_t n);

static void check_to_float(const char *name, const struct ob_kernels *k, to_float *f, to_float *ref,
			   size_t n, bool at_start, unsigned odd)
{
	struct guarded src = guarded(2 * n + odd, at_start), dst = guarded(4 * n, at_start);
	float *want = calloc(n + 1, sizeof(*want));

	for (size_t i = 0; i < n; i++) {
		const uint16_t h = (uint16_t)(n == 0x10000 ? i : nasty() >> 16);

		memcpy(src.p + (at_start ? odd : 0) + 2 * i, &h, sizeof(h));
	}
	f((float *)dst.p, src.p + (at_start ? odd : 0), n);
	ref(want, src.p + (at_start ? odd : 0), n);
	check(name, k, &dst, want, "halves");
	free(want);
	release(&src);
	release(&dst);
}

static void check_from_float(const char *name, const struct ob_kernels *k, from_float *f,
			     from_float *ref, const uint32_t *bits, size_t n, bool at_start)
{
	struct guarded src = guarded(4 * n, at_start), dst = guarded(2 * n, at_start);
	uint16_t *want = calloc(n + 1, sizeof(*want));

	for (size_t i = 0; i < n; i++) {
		const uint32_t u = bits ? bits[i] : nasty();

		memcpy(src.p + 4 * i, &u, sizeof(u));
	}
	f(dst.p, (const float *)src.p, n);
	ref(want, (const float *)src.p, n);
	check(name, k, &dst, want, "floats");
	free(want);
	release(&src);
	release(&dst);
}

static void check_in_place(const char *name, const struct ob_kernels *k, in_place *f, in_place *ref,
			   const uint32_t *bits, size_t n, bool at_start)
{
	struct guarded x = guarded(4 * n, at_start);
	uint32_t *want = calloc(n + 1, sizeof(*want));

	for (size_t i = 0; i < n; i++)
		want[i] = bits ? bits[i] : nasty();
	memcpy(x.p, want, 4 * n);
	f((float *)x.p, n);
	ref((float *)want, n);
	check(name, k, &x, want, "floats");
	free(want);
	release(&x);
}

static void check_float_kernels(const struct ob_kernels *k, const uint32_t *bits, size_t n,
				bool at_start)
{
	check_from_float("f32_to_bf16", k, k->f32_to_bf16, ob_ref_f32_to_bf16, bits, n, at_start);
	check_from_float("f32_to_f16", k, k->f32_to_f16, ob_ref_f32_to_f16, bits, n, at_start);
	check_in_place("round_bf16", k, k->round_bf16, ob_ref_round_bf16, bits, n, at_start);
	check_in_place("round_f16", k, k->round_f16, ob_ref_round_f16, bits, n, at_start);
}

static void check_add(const struct ob_kernels *k, size_t n, bool at_start)
{
	struct guarded w = guarded(4 * n, at_start), d = guarded(4 * n, at_start);
	uint32_t *want = calloc(n + 1, sizeof(*want));

	for (size_t i = 0; i < n; i++) {
		const uint32_t u = random32() % 4 ? 0x3f800000 ^ (random32() & 0x80ffffff)
						  : nasty();

		want[i] = nasty();
		memcpy(d.p + 4 * i, &u, sizeof(u));
	}
	memcpy(w.p, want, 4 * n);
	k->add((float *)w.p, (const float *)d.p, n);
	ob_ref_add((float *)want, (const float *)d.p, n);
	check("add", k, &w, want, "floats");
	free(want);
	release(&w);
	release(&d);
}

static void check_max_abs_bits(const struct ob_kernels *k, size_t n, bool at_start)
{
	struct guarded x = guarded(4 * n, at_start);

	n_checks++;
	for (size_t i = 0; i < n; i++) {
		const uint32_t u = nasty() & (n % 2 ? 0xffffffffu : 0xbfffffffu);

		memcpy(x.p + 4 * i, &u, sizeof(u));
	}
	if (k->max_abs_bits((const float *)x.p, n) != ob_ref_max_abs_bits((const float *)x.p, n)) {
		n_failures++;
		fprintf(stderr, "%s/max_abs_bits differs for n = %zu\n", k->name, n);
	}
	release(&x);
}

/* Every float32 that is a bfloat16 or float16 value, half a step above one, or next to these. */
static void check_boundaries(const struct ob_kernels *k)
{
	enum { N = 0x10000 * 12 };
	uint32_t *bits = calloc(N, sizeof(*bits));
	size_t n = 0;

	for (uint32_t h = 0; h < 0x10000; h++) {
		const uint16_t half = (uint16_t)h;
		uint32_t u;
		float x;

		for (int i = -1; i <= 1; i++) {
			bits[n++] = (h << 16) + (uint32_t)i;
			bits[n++] = (h << 16 | 0x8000u) + (uint32_t)i;
		}
		ob_ref_f16_to_f32(&x, &half, 1);
		memcpy(&u, &x, sizeof(u));
		if ((h & 0x7fff) < 0x400) /* the upper neighbour, half way: exact */
			x += copysignf(0x1p-25f, x);
		else
			x = of_bits(u + 0x1000);
		for (int i = -1; i <= 1; i++) {
			bits[n++] = u + (uint32_t)i;
			memcpy(&bits[n], &x, sizeof(x));
			bits[n++] += (uint32_t)i;
		}
	}
	check_float_kernels(k, bits, n, false);
	free(bits);
}

static void check_conversions(const struct ob_kernels *k)
{
	for (size_t n = 0; n <= 131; n = n == 131 ? 0x10000 : n + 1) {
		for (unsigned round = 0; round < 4; round++) {
			const bool at_start = round & 1;
			const unsigned odd = round >> 1;

			check_to_float("bf16_to_f32", k, k->bf16_to_f32, ob_ref_bf16_to_f32, n,
				       at_start, odd);
			check_to_float("f16_to_f32", k, k->f16_to_f32, ob_ref_f16_to_f32, n,
				       at_start, odd);
			check_float_kernels(k, NULL, n, at_start);
			check_add(k, n, at_start);
			check_max_abs_bits(k, n, at_start);
		}
	}
	check_boundaries(k);
}

/* ---- MLX ----------------------------------------------------------------------------------- */

enum pattern {
	NORMAL,
	BF16_VALUES,
	F16_VALUES,
	TIES,
	CONSTANT,
	NEGATIVE,
	POSITIVE,
	ZEROS,
	SUBNORMAL,
	HUGE_RANGE,
	ONE_OUTLIER,
	SOME_NAN,
	SOME_INF,
	ALL_NAN,
	ALL_INF,
	ANY_BITS,
	NASTY,
	N_PATTERNS,
};
static const char *const pattern_name[N_PATTERNS] = {
	"normal",   "bf16 values", "f16 values", "ties",       "constant",    "negative",
	"positive", "zeros",	   "subnormal",	 "huge range", "one outlier", "some NaN",
	"some inf", "all NaN",	   "all inf",	 "any bits",   "nasty",
};

static float value(enum pattern pattern, float x)
{
	const uint32_t r = random32();

	switch (pattern) {
	case TIES: /* steps of the codes and halves of them */
		return (float)(r % 511) * 0.5f - 64;
	case CONSTANT:
		return x;
	case NEGATIVE:
		return -fabsf(uniform()) - 0.5f;
	case POSITIVE:
		return fabsf(uniform()) + 0.25f;
	case ZEROS:
		return r & 1 ? 0.0f : -0.0f;
	case SUBNORMAL:
		return of_bits(r & 0x800fffffu);
	case HUGE_RANGE:
		return uniform() * 3.4e38f;
	case ONE_OUTLIER:
		return r % 41 ? uniform() * 1e-6f : 300.0f;
	case SOME_NAN:
		return r % 7 ? uniform() : of_bits(0x7f800001u | (r & 0x807fffffu));
	case SOME_INF:
		return r % 23 ? uniform() : copysignf(INFINITY, uniform());
	case ALL_NAN:
		return of_bits(0xff800001u | (r & 0x7fffffu));
	case ALL_INF:
		return x > 0 ? INFINITY : copysignf(INFINITY, uniform());
	case ANY_BITS:
		return of_bits(r);
	case NASTY:
		return of_bits(nasty());
	default:
		return uniform() + uniform() + uniform();
	}
}

static void fill_pattern(float *x, size_t n, enum pattern pattern, unsigned group)
{
	float constant = 0;

	for (size_t i = 0; i < n; i++) {
		if (i % group == 0)
			constant = of_bits(nasty());
		x[i] = value(pattern, constant);
	}
	if (pattern == BF16_VALUES)
		ob_ref_round_bf16(x, n);
	if (pattern == F16_VALUES)
		ob_ref_round_f16(x, n);
}

struct shape {
	size_t groups;
	unsigned bits, group;
	bool at_start;
};

static void check_mlx_encode(const struct ob_kernels *k, const struct shape *s,
			     enum pattern pattern)
{
	const size_t n = s->groups * s->group, n_codes = n * s->bits / 8;
	struct guarded src = guarded(4 * n, s->at_start), codes = guarded(n_codes, s->at_start);
	struct guarded scales = guarded(4 * s->groups, s->at_start);
	struct guarded biases = guarded(4 * s->groups, s->at_start);
	uint8_t *want = calloc(n_codes, 1);
	float *want_scales = calloc(s->groups, 4), *want_biases = calloc(s->groups, 4);

	fill_pattern((float *)src.p, n, pattern, s->group);
	k->mlx_encode(codes.p, (float *)scales.p, (float *)biases.p, (const float *)src.p, n,
		      s->bits, s->group);
	ob_ref_mlx_encode(want, want_scales, want_biases, (const float *)src.p, n, s->bits,
			  s->group);
	check("mlx_encode scales", k, &scales, want_scales, pattern_name[pattern]);
	check("mlx_encode biases", k, &biases, want_biases, pattern_name[pattern]);
	check("mlx_encode codes", k, &codes, want, pattern_name[pattern]);
	free(want);
	free(want_scales);
	free(want_biases);
	release(&src);
	release(&codes);
	release(&scales);
	release(&biases);
}

typedef __typeof__(ob_ref_mlx_decode) mlx_decode;

static void check_mlx_decode(const char *name, const struct ob_kernels *k, mlx_decode *f,
			     mlx_decode *ref, const struct shape *s, enum pattern pattern)
{
	const size_t n = s->groups * s->group, n_codes = n * s->bits / 8;
	struct guarded dst = guarded(4 * n, s->at_start), codes = guarded(n_codes, s->at_start);
	struct guarded scales = guarded(4 * s->groups, s->at_start);
	struct guarded biases = guarded(4 * s->groups, s->at_start);
	float *want = calloc(n, sizeof(*want));

	for (size_t i = 0; i < n_codes; i++)
		codes.p[i] = (uint8_t)random32();
	fill_pattern((float *)scales.p, s->groups, pattern, 1);
	fill_pattern((float *)biases.p, s->groups, pattern, 1);
	f((float *)dst.p, codes.p, (const float *)scales.p, (const float *)biases.p, n, s->bits,
	  s->group);
	ref(want, codes.p, (const float *)scales.p, (const float *)biases.p, n, s->bits, s->group);
	check(name, k, &dst, want, pattern_name[pattern]);
	free(want);
	release(&dst);
	release(&codes);
	release(&scales);
	release(&biases);
}

static void check_pattern(const struct ob_kernels *k, const struct shape *s, enum pattern pattern)
{
	check_mlx_encode(k, s, pattern);
	check_mlx_decode("mlx_decode", k, k->mlx_decode, ob_ref_mlx_decode, s, pattern);
	check_mlx_decode("mlx_decode_bf16", k, k->mlx_decode_bf16, ob_ref_mlx_decode_bf16, s,
			 pattern);
	check_mlx_decode("mlx_decode_f16", k, k->mlx_decode_f16, ob_ref_mlx_decode_f16, s, pattern);
}

static void check_mlx(const struct ob_kernels *k)
{
	static const unsigned widths[] = { 2, 3, 4, 5, 6, 8 };
	static const size_t counts[] = { 0, 1, 2, 3, 8, 9, 15, 33 };

	for (unsigned w = 0; w < sizeof(widths) / sizeof(*widths); w++)
		for (unsigned group = 32; group <= 128; group *= 2)
			for (unsigned c = 0; c < sizeof(counts) / sizeof(*counts); c++)
				for (enum pattern p = 0; p < N_PATTERNS; p++)
					check_pattern(k,
						      &(struct shape){ counts[c], widths[w], group,
								       (c + p) % 2 },
						      p);
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* n elements in blocks; the last one may be short. */
struct run {
	size_t n, block;
	bool at_start;
};

static size_t n_blocks(const struct run *r)
{
	return (r->n + r->block - 1) / r->block;
}

static void check_block_max(const struct ob_kernels *k, const struct run *r, enum pattern pattern)
{
	const size_t blocks = n_blocks(r);
	struct guarded src = guarded(4 * r->n, r->at_start);
	struct guarded max = guarded(4 * blocks, r->at_start);
	float *want = calloc(blocks + 1, sizeof(*want));

	fill_pattern((float *)src.p, r->n, pattern, (unsigned)r->block);
	k->block_max((float *)max.p, (const float *)src.p, r->n, r->block);
	ob_ref_block_max(want, (const float *)src.p, r->n, r->block);
	check("block_max", k, &max, want, pattern_name[pattern]);
	free(want);
	release(&src);
	release(&max);
}

/* Thresholds, and what lies one step beside. */
static void near_thresholds(float *x, size_t n, bool fp4)
{
	for (size_t i = 0; i < n; i++) {
		const uint32_t r = random32();
		const float t = fp4 ? ob_fp4_threshold[r % 7] : ob_nf4_threshold[r % 15];
		const float to = r & 256 ? 2 : r & 512 ? -2 : t;

		x[i] = fp4 && r & 64 ? -nextafterf(t, to) : nextafterf(t, to);
	}
	if (n)
		x[0] = 1;
}

static void check_bnb4(const struct ob_kernels *k, const struct run *r, enum pattern pattern,
		       bool fp4, bool at_thresholds)
{
	const size_t blocks = n_blocks(r), bytes = (r->n + 1) / 2;
	struct guarded x = guarded(4 * r->n, r->at_start), max = guarded(4 * blocks, r->at_start);
	struct guarded codes = guarded(bytes, r->at_start);
	struct guarded values = guarded(4 * r->n, r->at_start);
	uint8_t *want_codes = calloc(bytes + 1, 1);
	float *want = calloc(r->n + 1, sizeof(*want));

	fill_pattern((float *)x.p, r->n, pattern, (unsigned)r->block);
	if (at_thresholds)
		near_thresholds((float *)x.p, r->n, fp4);
	ob_ref_block_max((float *)max.p, (const float *)x.p, r->n, r->block);
	if (at_thresholds)
		for (size_t b = 0; b < blocks; b++)
			((float *)max.p)[b] = 1;
	k->bnb4_encode(codes.p, (const float *)max.p, (const float *)x.p, r->n, r->block, fp4);
	ob_ref_bnb4_encode(want_codes, (const float *)max.p, (const float *)x.p, r->n, r->block,
			   fp4);
	check(fp4 ? "bnb4_encode fp4" : "bnb4_encode nf4", k, &codes, want_codes,
	      pattern_name[pattern]);
	for (size_t i = 0; i < bytes; i++)
		codes.p[i] = (uint8_t)random32();
	k->bnb4_decode((float *)values.p, codes.p, (const float *)max.p, r->n, r->block, fp4);
	ob_ref_bnb4_decode(want, codes.p, (const float *)max.p, r->n, r->block, fp4);
	check(fp4 ? "bnb4_decode fp4" : "bnb4_decode nf4", k, &values, want, pattern_name[pattern]);
	free(want_codes);
	free(want);
	release(&x);
	release(&max);
	release(&codes);
	release(&values);
}

static void check_int8(const struct ob_kernels *k, const struct run *r, enum pattern pattern)
{
	struct guarded x = guarded(4 * r->n, r->at_start), codes = guarded(r->n, r->at_start);
	struct guarded values = guarded(4 * r->n, r->at_start);
	int8_t *want_codes = calloc(r->n + 1, 1);
	float *want = calloc(r->n + 1, sizeof(*want)), scale[1];

	fill_pattern((float *)x.p, r->n, pattern, 64);
	fill_pattern(scale, 1, pattern, 64);
	k->int8_encode((int8_t *)codes.p, (const float *)x.p, scale[0], r->n);
	ob_ref_int8_encode(want_codes, (const float *)x.p, scale[0], r->n);
	check("int8_encode", k, &codes, want_codes, pattern_name[pattern]);
	k->int8_encode((int8_t *)codes.p, (const float *)x.p, 127, r->n);
	ob_ref_int8_encode(want_codes, (const float *)x.p, 127, r->n);
	check("int8_encode by 127", k, &codes, want_codes, pattern_name[pattern]);
	for (size_t i = 0; i < r->n; i++)
		codes.p[i] = (uint8_t)random32();
	k->int8_decode((float *)values.p, (const int8_t *)codes.p, scale[0], 0x1.020408p-7f, r->n);
	ob_ref_int8_decode(want, (const int8_t *)codes.p, scale[0], 0x1.020408p-7f, r->n);
	check("int8_decode", k, &values, want, pattern_name[pattern]);
	free(want_codes);
	free(want);
	release(&x);
	release(&codes);
	release(&values);
}

static void check_blocks(const struct ob_kernels *k)
{
	static const size_t counts[] = { 0,  1,	 2,   31,  32,	33,  63,  64,
					 65, 95, 127, 128, 160, 257, 300, 1024 };

	for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++)
		for (size_t block = 32; block <= 128; block *= 2)
			for (enum pattern p = 0; p < N_PATTERNS; p++) {
				const struct run r = { counts[c], block, (c + p) % 2 };

				check_block_max(k, &r, p);
				for (int fp4 = 0; fp4 < 2; fp4++) {
					check_bnb4(k, &r, p, fp4, false);
					check_bnb4(k, &r, p, fp4, true);
				}
				check_int8(k, &r, p);
			}
	check_block_max(k, &(struct run){ 100, 7, false }, NORMAL);
}

int main(void)
{
	for (enum ob_isa isa = OB_ISA_REF; isa <= OB_ISA_NEON; isa++) {
		const struct ob_kernels *k = ob_kernels_of(isa);

		if (!k) {
			printf("%s: not on this machine\n", ob_isa_name(isa));
			continue;
		}
		n_checks = 0;
		check_conversions(k);
		check_mlx(k);
		check_blocks(k);
		printf("%s: %lu comparisons\n", k->name, n_checks);
	}
	return n_failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
