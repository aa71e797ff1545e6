/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laws that every number format obeys, run over every scheme of every registered codec and over a
 * format made up here that uses what the registered ones do not (blocks that cross rows, statistics
 * of the whole tensor, a part that is not cut by tiles).
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "codec/codec.h"
#include "flat_codec.h"
#include "kernels/kernels.h"

#define GUARD 64
#define GUARD_BYTE 0xc5
#define MAX_SHAPE_RANK 3
#define N_SPANS (OB_MAX_PARTS * OB_MAX_RANGES)

struct subject {
	struct ob_encoding enc;
	struct ob_shape shape;
	struct ob_parts parts;
	uint64_t n, rows, cols;
	uint32_t unit_rows, unit_cols;
	struct ob_arena arena;
};

static unsigned failures, checks;

static void __attribute__((format(printf, 3, 4)))
check(bool holds, const struct subject *s, const char *fmt, ...)
{
	char enc[64] = "", shape[64] = "";
	va_list ap;

	checks++;
	if (holds)
		return;
	if (++failures > 50)
		exit(1);
	if (s) {
		s->enc.codec->describe(&s->enc, enc, sizeof(enc));
		ob_shape_text(&s->shape, shape, sizeof(shape));
		printf("FAIL %s %s %s: ", enc, ob_dtype_name(s->enc.dtype), shape);
	}
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static uint64_t rng_state = 1;

static uint64_t below(uint64_t n)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state % n;
}

/* ---- memory with guards -------------------------------------------------------------------- */

static void *guarded(size_t n, int fill)
{
	uint8_t *p = malloc(n + 2 * GUARD);

	if (!p)
		abort();
	memset(p, GUARD_BYTE, n + 2 * GUARD);
	memset(p + GUARD, fill, n);
	return p + GUARD;
}

static void release(const struct subject *s, void *p, size_t n, const char *what)
{
	const uint8_t *q = p;
	bool whole = true;

	for (size_t i = 1; i <= GUARD; i++)
		whole &= *(q - i) == GUARD_BYTE && q[n + i - 1] == GUARD_BYTE;
	check(whole, s, "bytes outside of %s were written", what);
	free((uint8_t *)p - GUARD);
}

/* ---- cuts ---------------------------------------------------------------------------------- */

/* The end of a tile of the tensor, or of a strip of a tile, that begins at e: whole rows or a piece
 * of a row, on the granularity. */
static uint64_t cut(const struct subject *s, struct ob_elems in, uint64_t e)
{
	uint64_t row = e / s->cols, rows = e % s->cols ? 0 : (in.e1 - e) / s->cols, left, end;

	if (rows > 0 && row % s->unit_rows == 0 && (s->unit_cols == 0 || below(2))) {
		end = e + s->cols * s->unit_rows * (1 + below(rows / s->unit_rows + 1));
		return end < in.e1 ? end : e + rows * s->cols;
	}
	end = (row + 1) * s->cols < in.e1 ? (row + 1) * s->cols : in.e1;
	left = (end - e) / s->unit_cols;
	e += s->unit_cols * (1 + below(left + 1));
	return e < end ? e : end;
}

/* One way to work through a tensor. */
struct way {
	bool cuts; /* into random tiles and strips; else as one */
	int fill;  /* byte that memory holds before */
};

static const struct way ways[] = {
	{ false, 0 }, { false, 0xff }, { true, 0 }, { true, 0xff }, { true, 0x5a }
};
#define N_WAYS (sizeof(ways) / sizeof(ways[0]))

static uint64_t next(const struct subject *s, struct way w, struct ob_elems in, uint64_t e)
{
	return w.cuts ? cut(s, in, e) : in.e1;
}

/* ---- running a codec ----------------------------------------------------------------------- */

struct stored {
	uint8_t *part[OB_MAX_PARTS];
};

static struct stored new_stored(const struct subject *s)
{
	struct stored st = { 0 };

	for (unsigned k = 0; k < s->parts.n; k++) {
		st.part[k] = calloc(1, s->parts.part[k].len + 1);
		if (!st.part[k])
			abort();
	}
	return st;
}

static void free_stored(struct stored *st)
{
	for (unsigned k = 0; k < OB_MAX_PARTS; k++)
		free(st->part[k]);
}

/* Ranges of a tile: inside the part; a whole part whole. Their bytes are counted in `seen`. */
static unsigned tile_ranges(const struct subject *s, unsigned k, struct ob_elems tile,
			    struct ob_range *r, const struct stored *seen)
{
	const struct ob_part *p = &s->parts.part[k];
	unsigned n = s->enc.codec->ranges(&s->enc, &s->shape, k, tile, r);

	check(n <= OB_MAX_RANGES, s, "%u ranges", n);
	if (p->whole)
		check(n == 1 && r[0].off == 0 && r[0].len == p->len, s, "part %u is cut", k);
	for (unsigned i = 0; i < n; i++) {
		check(r[i].off <= p->len && r[i].len <= p->len - r[i].off, s,
		      "range %u of part %u ends at %llu of %llu", i, k,
		      (unsigned long long)(r[i].off + r[i].len), (unsigned long long)p->len);
		for (uint64_t b = 0; seen && b < r[i].len; b++)
			seen->part[k][r[i].off + b]++;
	}
	return n;
}

static void open_tile(const struct subject *s, struct ob_elems tile, int fill,
		      const struct stored *from, const struct stored *seen, struct ob_span *span)
{
	struct ob_range r[OB_MAX_RANGES];

	memset(span, 0, N_SPANS * sizeof(*span));
	for (unsigned k = 0; k < s->parts.n; k++) {
		unsigned n = tile_ranges(s, k, tile, r, seen);

		for (unsigned i = 0; i < n; i++) {
			struct ob_span *sp = &span[k * OB_MAX_RANGES + i];

			*sp = (struct ob_span){ guarded(r[i].len, fill), r[i].len };
			if (from)
				memcpy(sp->p, from->part[k] + r[i].off, r[i].len);
		}
	}
}

static void close_tile(const struct subject *s, struct ob_elems tile, struct ob_span *span,
		       struct stored *to)
{
	struct ob_range r[OB_MAX_RANGES];

	for (unsigned k = 0; k < s->parts.n; k++) {
		unsigned n = tile_ranges(s, k, tile, r, NULL);

		for (unsigned i = 0; i < n; i++) {
			struct ob_span *sp = &span[k * OB_MAX_RANGES + i];
			uint8_t *at = to ? to->part[k] + r[i].off : NULL;

			if (to && s->parts.part[k].whole && tile.e0 > 0)
				check(!memcmp(at, sp->p, sp->len), s, "tiles disagree on part %u",
				      k);
			if (to)
				memcpy(at, sp->p, sp->len);
			release(s, sp->p, sp->len, "a span");
		}
	}
}

static double *new_stats(const struct subject *s, struct ob_elems at)
{
	double *p = calloc(ob_codec_stats(&s->enc, &s->shape, at) + 1, sizeof(*p));

	if (!p)
		abort();
	return p;
}

static void measure(const struct subject *s, struct way w, const float *x, double *total)
{
	const struct ob_codec *c = s->enc.codec;

	for (struct ob_elems t = { 0, 0 }; t.e0 < s->n; t.e0 = t.e1) {
		double *tile_stats;

		t.e1 = next(s, w, (struct ob_elems){ 0, s->n }, t.e0);
		tile_stats = new_stats(s, t);
		for (struct ob_elems at = { t.e0, t.e0 }; at.e0 < t.e1; at.e0 = at.e1) {
			at.e1 = next(s, w, t, at.e0);
			size_t n = at.e1 - at.e0, n_scratch = c->scratch_floats(&s->enc, n);
			float *src = guarded(n * sizeof(float), 0);
			float *scratch = guarded(n_scratch * sizeof(float), w.fill);

			memcpy(src, x + at.e0, n * sizeof(float));
			c->measure(&s->enc, &s->shape, t, at, src, scratch, tile_stats);
			release(s, src, n * sizeof(float), "src");
			release(s, scratch, n_scratch * sizeof(float), "scratch");
		}
		c->reduce(&s->enc, &s->shape, total, t, tile_stats);
		free(tile_stats);
	}
}

static void encode(const struct subject *s, struct way w, const float *x, struct stored *out)
{
	const struct ob_codec *c = s->enc.codec;
	struct stored seen = new_stored(s);
	struct ob_span span[N_SPANS];
	struct ob_elems all = { 0, s->n };
	double *stats = ob_codec_stats(&s->enc, &s->shape, all) ? new_stats(s, all) : NULL;

	if (stats)
		measure(s, w, x, stats);
	for (struct ob_elems t = { 0, 0 }; t.e0 < s->n; t.e0 = t.e1) {
		t.e1 = next(s, w, (struct ob_elems){ 0, s->n }, t.e0);
		open_tile(s, t, w.fill, NULL, &seen, span);
		for (struct ob_elems at = { t.e0, t.e0 }; at.e0 < t.e1; at.e0 = at.e1) {
			at.e1 = next(s, w, t, at.e0);
			size_t n = at.e1 - at.e0, n_scratch = c->scratch_floats(&s->enc, n);
			float *src = guarded(n * sizeof(float), 0);
			float *scratch = guarded(n_scratch * sizeof(float), w.fill);

			memcpy(src, x + at.e0, n * sizeof(float));
			c->encode(&s->enc, &s->shape, span, t, at, src, scratch, stats);
			release(s, src, n * sizeof(float), "src");
			release(s, scratch, n_scratch * sizeof(float), "scratch");
		}
		close_tile(s, t, span, out);
	}
	for (unsigned k = 0; k < s->parts.n; k++)
		for (uint64_t b = 0; b < s->parts.part[k].len && !s->parts.part[k].whole; b++)
			if (seen.part[k][b] != 1) {
				check(false, s, "byte %llu of part %u is in %u tiles",
				      (unsigned long long)b, k, seen.part[k][b]);
				break;
			}
	free_stored(&seen);
	free(stats);
}

static void decode(const struct subject *s, struct way w, const struct stored *in,
		   enum ob_decode_mode mode, float *x)
{
	const struct ob_codec *c = s->enc.codec;
	struct ob_span span[N_SPANS];

	for (struct ob_elems t = { 0, 0 }; t.e0 < s->n; t.e0 = t.e1) {
		t.e1 = next(s, w, (struct ob_elems){ 0, s->n }, t.e0);
		open_tile(s, t, 0, in, NULL, span);
		for (struct ob_elems at = { t.e0, t.e0 }; at.e0 < t.e1; at.e0 = at.e1) {
			at.e1 = next(s, w, t, at.e0);
			size_t n = at.e1 - at.e0, n_scratch = c->scratch_floats(&s->enc, n);
			float *dst = guarded(n * sizeof(float), w.fill);
			float *scratch = guarded(n_scratch * sizeof(float), w.fill);

			c->decode(&s->enc, &s->shape, span, t, at, mode, dst, scratch);
			memcpy(x + at.e0, dst, n * sizeof(float));
			release(s, dst, n * sizeof(float), "dst");
			release(s, scratch, n_scratch * sizeof(float), "scratch");
		}
		close_tile(s, t, span, NULL);
	}
}

static bool same(const struct subject *s, const struct stored *a, const struct stored *b)
{
	for (unsigned k = 0; k < s->parts.n; k++)
		if (memcmp(a->part[k], b->part[k], s->parts.part[k].len) != 0)
			return false;
	return true;
}

/* ---- how far decode(encode(x)) may be from x, x rounded to the carrier --------------------- */

static double exact(const struct subject *s, const float *x, uint64_t i)
{
	(void)s, (void)x, (void)i;
	return 0;
}

/*
 * Half a step of the codes; up to one at the far end of the group, where the step that makes the
 * edge a whole number of steps may fall short; and the roundings of scale, product and sum.
 */
static double mlx_bound(const struct subject *s, const float *x, uint64_t i)
{
	const float *g = x + i / s->enc.group * s->enc.group;
	double lo = g[0], hi = g[0], most, step, top = (1u << s->enc.bits) - 1;
	double ulp = s->enc.dtype == OB_F32 ? 0x1p-24 : s->enc.dtype == OB_F16 ? 0x1p-11 : 0x1p-8;

	for (uint32_t j = 1; j < s->enc.group; j++) {
		lo = g[j] < lo ? g[j] : lo;
		hi = g[j] > hi ? g[j] : hi;
	}
	most = fmax(fabs(lo), fabs(hi));
	step = fmax((hi - lo) / top, 1e-7);
	return 1.001 * step + 8 * ulp * most + (s->enc.dtype == OB_F16 ? top * 0x1p-24 : 0);
}

/*
 * Half a step of the codes, at most a sixth of the block's largest value; that value itself when it
 * goes through 8 bits with all others, as far off as the coarsest step of the map is wide.
 */
static double bnb_bound(const struct subject *s, const float *x, uint64_t i)
{
	uint64_t begin = i / s->enc.group * s->enc.group;
	double block = 0, least = HUGE_VAL, most = 0, ulp;

	ulp = s->enc.dtype == OB_F32 ? 0x1p-24 : s->enc.dtype == OB_F16 ? 0x1p-11 : 0x1p-8;
	for (uint64_t j = begin; j < s->n && j < begin + s->enc.group; j++)
		block = fmax(block, fabs((double)x[j]));
	if (s->enc.variant & 2) /* nested */
		for (uint64_t b = 0; b < s->n; b += s->enc.group) {
			double a = 0;

			for (uint64_t j = b; j < s->n && j < b + s->enc.group; j++)
				a = fmax(a, fabs((double)x[j]));
			least = fmin(least, a);
			most = fmax(most, a);
		}
	return block / 5.9 + (most > 0 ? (most - least) * 0.0073 : 0) + 2 * ulp * block;
}

/* Half a step, after a rounding to float16. */
static double int8_bound(const struct subject *s, const float *x, uint64_t i)
{
	double row = 0;

	for (uint64_t j = i / s->cols * s->cols; j < (i / s->cols + 1) * s->cols; j++)
		row = fmax(row, fabs((double)x[j]));
	return row * (0.5005 / 127 + 0x1p-10) + (s->enc.dtype == OB_BF16 ? 0x1p-8 * row : 0) +
	       0x1p-24;
}

static double flat_bound(const struct subject *s, const float *x, uint64_t i)
{
	double most = 0, block = 0;

	for (uint64_t j = 0; j < s->n; j++) {
		most = fmax(most, fabs((double)x[j]));
		if (j / OB_FLAT_BLOCK == i / OB_FLAT_BLOCK)
			block = fmax(block, fabs((double)x[j]));
	}
	return 1.001 * (block + most / 255) / 14;
}

static const struct promise {
	const char *codec;
	double (*bound)(const struct subject *s, const float *x, uint64_t i);
	bool stable; /* encode(decode(y)) == y for every y that encode makes */
} promises[] = {
	{ "float", exact, true },      { "mlx", mlx_bound, false },
	{ "bnb", bnb_bound, false },   { "bnb-int8", int8_bound, false },
	{ "flat", flat_bound, false },
};

static const struct promise *promise_of(const struct subject *s)
{
	for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++)
		if (!strcmp(promises[i].codec, s->enc.codec->name))
			return &promises[i];
	check(false, s, "this test does not know how exact the format is; tell it");
	exit(1);
}

/* ---- laws ---------------------------------------------------------------------------------- */

/* Groups of many kinds: equal, zero, one sign, outliers, tiny, wide range. All fit float16. */
static void make_values(float *x, uint64_t n)
{
	unsigned kind = 0;

	for (uint64_t i = 0; i < n; i++) {
		double u = (double)below(1u << 20) / (1 << 20) - 0.5;

		if (i % 32 == 0)
			kind = (unsigned)below(9);
		switch (kind) {
		case 0:
			u = 0.25;
			break;
		case 1:
			u = -0.25;
			break;
		case 2:
			u = 0;
			break;
		case 3:
			u = -fabs(u) - 0.01;
			break;
		case 4:
			u = i % 32 == 5 ? 900 * u : u;
			break;
		case 5:
			u *= 1e-6;
			break;
		case 6:
			u = ldexp(u, (int)below(30) - 20);
			break;
		default:
			break;
		}
		x[i] = (float)u;
	}
}

static void law_layout(const struct subject *s)
{
	uint64_t sum = 0;

	check(s->parts.n >= 1 && s->parts.n <= OB_MAX_PARTS, s, "%u parts", s->parts.n);
	for (unsigned k = 0; k < s->parts.n; k++) {
		const struct ob_part *p = &s->parts.part[k];
		uint64_t n;

		check(ob_shape_elems(&p->shape, &n) && p->len == n * ob_dtype_bits(p->dtype) / 8, s,
		      "part %u has %llu bytes", k, (unsigned long long)p->len);
		sum += p->len;
	}
	check(ob_parts_bytes(&s->parts) == sum, s, "the sum of bytes is wrong");
	check(s->rows * s->cols == s->n, s, "%llu x %llu is not the number of elements",
	      (unsigned long long)s->rows, (unsigned long long)s->cols);
}

static void law_values(const struct subject *s)
{
	const struct promise *p = promise_of(s);
	float *x = malloc(4 * s->n * sizeof(float)), *round = x + s->n, *y = round + s->n;
	float *z = y + s->n;
	struct stored first = new_stored(s), other = new_stored(s);

	if (!x)
		abort();
	make_values(x, s->n);
	memcpy(round, x, s->n * sizeof(float));
	ob_round_to(round, s->enc.dtype, s->n);
	encode(s, ways[0], x, &first);
	encode(s, ways[0], round, &other);
	check(same(s, &first, &other), s, "values are not rounded to the carrier first");
	for (size_t i = 1; i < N_WAYS; i++) {
		encode(s, ways[i], x, &other);
		check(same(s, &first, &other), s, "way %zu gives other bytes", i);
	}
	for (enum ob_decode_mode mode = OB_DECODE_F32; mode <= OB_DECODE_EXACT; mode++) {
		decode(s, ways[0], &first, mode, y);
		for (size_t i = 1; i < N_WAYS; i++) {
			decode(s, ways[i], &first, mode, z);
			check(!memcmp(y, z, s->n * sizeof(float)), s, "way %zu, other values", i);
		}
		for (uint64_t i = 0; i < s->n; i++) {
			double error = fabs((double)y[i] - round[i]), most = p->bound(s, round, i);

			if (!(error <= most)) {
				check(false, s, "mode %d: %g became %g, off by %g, not %g", mode,
				      round[i], y[i], error, most);
				break;
			}
		}
	}
	if (p->stable) {
		encode(s, ways[0], y, &other);
		check(same(s, &first, &other), s, "encoding again gives other bytes");
	}
	free_stored(&first);
	free_stored(&other);
	free(x);
}

/* ---- recognition --------------------------------------------------------------------------- */

#define LEAD "model.layers.3.x.weight"

struct folder {
	struct ob_lookup lookup;
	struct ob_stored t[OB_MAX_PARTS];
	char name[OB_MAX_PARTS][64];
	struct ob_file file[OB_MAX_PARTS]; /* whole parts may be looked into */
	uint64_t late;			   /* length of a padded part without its padding */
	unsigned n, missing;
};

static const struct ob_stored *find(const struct ob_lookup *l, const char *name)
{
	const struct folder *f = (const struct folder *)(const void *)l;

	for (unsigned k = 0; k < f->n; k++)
		if (k != f->missing && !strcmp(name, f->name[k]))
			return &f->t[k];
	return NULL;
}

/* bytes: what an encode left. */
static void fill_folder(const struct subject *s, struct folder *f, struct ob_jv *config,
			const struct stored *bytes)
{
	struct ob_arena *arena = f->lookup.arena;

	*f = (struct folder){ .lookup = { find, config, arena },
			      .n = s->parts.n,
			      .missing = s->parts.n };
	for (unsigned k = 0; k < f->n; k++) {
		const struct ob_part *p = &s->parts.part[k];

		if (p->suffix)
			snprintf(f->name[k], sizeof(f->name[k]), "model.layers.3.x%s%s",
				 p->on_name ? ".weight" : "", p->suffix);
		else
			snprintf(f->name[k], sizeof(f->name[k]), LEAD);
		f->file[k] = (struct ob_file){ .map = bytes->part[k], .stamp.size = p->len };
		f->t[k] = (struct ob_stored){ .name = f->name[k],
					      .dtype = p->dtype,
					      .shape = p->shape,
					      .file = &f->file[k],
					      .len = p->len };
		if (!p->padded)
			continue;
		for (f->late = p->len; bytes->part[k][f->late - 1] == ' '; f->late--)
			;
		f->t[k].len = f->late;
		f->t[k].shape = (struct ob_shape){ 1, &f->late };
	}
}

/* Does a container give such a tensor? It makes sure of the length. */
static bool is_possible(const struct ob_stored *t)
{
	uint64_t n;

	return ob_shape_elems(&t->shape, &n) && ob_mul_u64(n, ob_dtype_bits(t->dtype), &n) &&
	       n % 8 == 0 && n / 8 == t->len;
}

static struct ob_jv *config_of(const struct subject *s)
{
	struct ob_text text = { 0 };
	struct ob_jv *config;
	const char *const *key = s->enc.codec->config_keys;
	ob_err e = { 0 };

	ob_text_printf(&text, "{\"model_type\": \"llama\", \"dtype\": \"%s\"",
		       ob_dtype_torch_name(s->enc.dtype));
	for (; key && *key; key++) {
		ob_text_printf(&text, ", \"%s\": ", *key);
		if (s->enc.codec->config_block(&s->enc, &text, &e) < 0)
			abort();
	}
	ob_text_printf(&text, "}");
	if (ob_json_parse(&config, text.data, text.len, "config.json", &e) < 0)
		abort();
	ob_text_free(&text);
	return config;
}

/* Recognised means that the layout is what is stored; an error names the tensor. */
static int recognise(const struct subject *s, const struct folder *f, struct ob_recognised *r,
		     ob_err *e)
{
	int got = 0;
	struct ob_parts parts;
	ob_err e2 = { 0 };

	*e = (ob_err){ 0 };
	for (size_t i = 0; ob_codecs[i] && got == 0; i++)
		got = ob_codecs[i]->recognise(&f->t[0], &f->lookup, r, e);
	check(got != 0, s, "no codec takes the tensor");
	if (got < 0) {
		check(strstr(e->msg, LEAD) != NULL, s, "the error does not name it: %s", e->msg);
		check(e->code == OB_CORRUPT || e->code == OB_MISMATCH ||
			      e->code == OB_UNSUPPORTED || e->code == OB_LIMIT,
		      s, "error code %s", ob_code_name(e->code));
		return got;
	}
	if (r->enc.codec->layout(&r->enc, &r->shape, f->lookup.arena, &parts, &e2) < 0) {
		check(e2.code == OB_LIMIT, s, "layout fails: %s", e2.msg);
		return got;
	}
	for (unsigned k = 0; k < parts.n; k++) {
		uint64_t have = 0, want = 1;

		check(r->part[k] && r->part[k]->dtype == parts.part[k].dtype &&
			      ob_shape_elems(&r->part[k]->shape, &have) &&
			      ob_shape_elems(&parts.part[k].shape, &want) &&
			      (have == want || parts.part[k].padded),
		      s, "recognised part %u is not what the layout says", k);
	}
	return got;
}

static void law_malformed(const struct subject *s, struct folder *f, struct ob_jv *config,
			  const struct stored *bytes)
{
	static const uint64_t odd[] = { 0, 1, 3, 1ull << 32, 1ull << 59, UINT64_MAX };
	struct ob_recognised r;
	ob_err e;

	for (unsigned k = 1; k < f->n; k++) {
		f->missing = k;
		if (recognise(s, f, &r, &e) > 0)
			check(!ob_encoding_equal(&r.enc, &s->enc), s, "recognised without part %u",
			      k);
		else
			check(strstr(e.msg, f->name[k]) != NULL, s,
			      "does not name what is missing: %s", e.msg);
	}
	for (unsigned k = 0; k < s->parts.n; k++) {
		for (enum ob_dtype t = 0; t < OB_N_DTYPES; t++) {
			fill_folder(s, f, config, bytes);
			f->t[k].dtype = t;
			recognise(s, f, &r, &e);
		}
		for (uint32_t d = 0; d < s->parts.part[k].shape.rank; d++)
			for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
				uint64_t dim[OB_MAX_RANK];
				const struct ob_shape *shape = &s->parts.part[k].shape;

				fill_folder(s, f, config, bytes);
				memcpy(dim, shape->dim, shape->rank * sizeof(*dim));
				dim[d] = odd[i];
				f->t[k].shape.dim = dim;
				if (!s->parts.part[k].whole || is_possible(&f->t[k]))
					recognise(s, f, &r, &e);
				f->t[k].shape.rank = d;
				if (!s->parts.part[k].whole || is_possible(&f->t[k]))
					recognise(s, f, &r, &e);
			}
	}
}

static void law_recognition(const struct subject *s)
{
	struct ob_arena arena = { 0 };
	struct folder f = { .lookup.arena = &arena };
	struct ob_jv *config = config_of(s);
	struct stored bytes = new_stored(s);
	struct ob_recognised r;
	float *x = malloc(s->n * sizeof(*x));
	ob_err e;

	if (!x)
		abort();
	make_values(x, s->n);
	encode(s, ways[0], x, &bytes);
	free(x);
	fill_folder(s, &f, config, &bytes);
	if (recognise(s, &f, &r, &e) > 0) {
		check(ob_encoding_equal(&r.enc, &s->enc), s, "recognised as another encoding");
		check(ob_shape_equal(&r.shape, &s->shape), s, "recognised with another shape");
		check(!strcmp(r.name, LEAD), s, "recognised as %s", r.name);
	} else {
		check(false, s, "not recognised: %s", e.msg);
	}
	law_malformed(s, &f, config, &bytes);
	free_stored(&bytes);
	ob_json_free(config);
	ob_arena_free(&arena);
}

/* ---- what the laws run over ---------------------------------------------------------------- */

static const struct {
	uint32_t rank;
	uint64_t dim[MAX_SHAPE_RANK];
} shapes[] = {
	{ 2, { 1, 32 } },     { 2, { 1, 64 } },	    { 2, { 3, 96 } },	{ 2, { 5, 128 } },
	{ 2, { 7, 160 } },    { 3, { 2, 3, 384 } }, { 2, { 33, 64 } },	{ 0, { 0 } },
	{ 1, { 1 } },	      { 1, { 33 } },	    { 1, { 1000 } },	{ 2, { 13, 17 } },
	{ 2, { 1, 257 } },    { 2, { 99, 1 } },	    { 3, { 3, 5, 7 } }, { 2, { 70, 24 } },
	{ 3, { 1, 9, 128 } },
};

static unsigned run_shapes(const struct ob_encoding *enc, bool is_registered)
{
	unsigned n_taken = 0;
	const char *why;
	ob_err e = { 0 };

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct subject s = { .enc = *enc, .shape = { shapes[i].rank, shapes[i].dim } };

		if (!enc->codec->accepts(enc, &s.shape, &why))
			continue;
		n_taken++;
		if (enc->codec->layout(enc, &s.shape, &s.arena, &s.parts, &e) < 0)
			abort();
		ob_shape_elems(&s.shape, &s.n);
		ob_codec_rows(enc, &s.shape, &s.rows, &s.cols);
		enc->codec->granularity(enc, &s.shape, &s.unit_rows, &s.unit_cols);
		law_layout(&s);
		law_values(&s);
		if (is_registered)
			law_recognition(&s);
		ob_arena_free(&s.arena);
	}
	return n_taken;
}

static void run_scheme(const struct ob_codec *codec, const char *scheme)
{
	static const enum ob_dtype carriers[] = { OB_F32, OB_F16, OB_BF16 };
	struct ob_encoding enc, again;
	char text[64];
	ob_err e = { 0 };

	if (ob_encoding_parse(&enc, scheme, &e) < 0) {
		check(false, NULL, "%s does not parse: %s", scheme, e.msg);
		return;
	}
	check(enc.codec == codec, NULL, "%s is of another codec", scheme);
	codec->describe(&enc, text, sizeof(text));
	check(ob_encoding_parse(&again, text, &e) == 0 && ob_encoding_equal(&enc, &again), NULL,
	      "%s is described as %s, which is another", scheme, text);
	if (ob_dtype_is_float(enc.dtype)) {
		check(run_shapes(&enc, true) > 0, NULL, "%s takes no shape", scheme);
		return;
	}
	for (size_t i = 0; i < sizeof(carriers) / sizeof(carriers[0]); i++) {
		enc.dtype = carriers[i];
		check(run_shapes(&enc, true) > 0, NULL, "%s takes no shape", scheme);
	}
}

/* Runs every scheme that a spelling like "a:1|2[,b=3|4]" stands for. done: what is decided. */
static void run_spellings(const struct ob_codec *codec, const char *done, const char *rest)
{
	static const char ends[] = "|:,=[]";
	char text[128];
	size_t n = strcspn(rest, ends);

	if (*rest == '[') {
		const char *close = strchr(rest, ']');

		snprintf(text, sizeof(text), "%.*s%s", (int)(close - rest - 1), rest + 1,
			 close + 1);
		run_spellings(codec, done, text);
		run_spellings(codec, done, close + 1);
		return;
	}
	for (const char *choice = rest; n > 0;) {
		size_t len = strcspn(choice, ends), all = len;

		while (choice[all] == '|')
			all += 1 + strcspn(choice + all + 1, ends);
		snprintf(text, sizeof(text), "%s%.*s", done, (int)len, choice);
		run_spellings(codec, text, choice + all);
		if (all == len)
			return;
		choice += len + 1;
	}
	if (*rest == '\0') {
		run_scheme(codec, done);
		return;
	}
	snprintf(text, sizeof(text), "%s%c", done, *rest);
	run_spellings(codec, text, rest + 1);
}

int main(void)
{
	const struct ob_encoding flat = { .codec = &ob_codec_flat, .dtype = OB_F32 };

	for (size_t i = 0; ob_codecs[i]; i++)
		for (size_t k = 0; ob_codecs[i]->encode && ob_codecs[i]->schemes[k]; k++)
			run_spellings(ob_codecs[i], "", ob_codecs[i]->schemes[k]);
	check(run_shapes(&flat, false) > 10, NULL, "too few shapes");
	printf("%u checks, %u failures\n", checks, failures);
	return failures > 0;
}
