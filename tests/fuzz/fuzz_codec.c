/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the number formats. The input is a line "SCHEME TYPE D D D", as --quant takes it
 * or "float" or "raw", and the bytes of the stored parts, repeated where they are too few. For any:
 *  - the parts are as large as laid out, and their ranges make them up;
 *  - tile by tile gives the values, and from these the bytes, that the whole gives at once;
 *  - nothing outside of a tile's bytes is touched (each is a block of its own).
 */
#include "codec/codec.h"
#include "fuzz.h"
#include "tensor_line.h"

#define MAX_ELEMS 4096
#define N_SPANS (OB_MAX_PARTS * OB_MAX_RANGES)

struct subject {
	struct ob_encoding enc;
	struct ob_shape shape;
	struct ob_parts parts;
	uint64_t n, tile; /* elements: of the tensor, of the smallest tile */
	uint8_t *part[OB_MAX_PARTS];
};

static void *block(size_t n)
{
	void *p = malloc(n ? n : 1);

	fuzz_require(p);
	return p;
}

/* The spans of a tile: copies of the parts' bytes. */
static void open_tile(const struct subject *s, struct ob_elems tile, struct ob_span *span)
{
	struct ob_range r[OB_MAX_RANGES];

	memset(span, 0, N_SPANS * sizeof(*span));
	for (unsigned k = 0; k < s->parts.n; k++) {
		unsigned n = s->enc.codec->ranges(&s->enc, &s->shape, k, tile, r);

		fuzz_require(n <= OB_MAX_RANGES);
		for (unsigned i = 0; i < n; i++) {
			fuzz_require(ob_in_file(r[i].off, r[i].len, s->parts.part[k].len));
			span[k * OB_MAX_RANGES + i] = (struct ob_span){ block(r[i].len), r[i].len };
			memcpy(span[k * OB_MAX_RANGES + i].p, s->part[k] + r[i].off, r[i].len);
		}
	}
}

/* With `to`, the bytes go to these parts. */
static void close_tile(const struct subject *s, struct ob_elems tile, struct ob_span *span,
		       uint8_t *const *to)
{
	struct ob_range r[OB_MAX_RANGES];

	for (unsigned k = 0; k < s->parts.n; k++) {
		s->enc.codec->ranges(&s->enc, &s->shape, k, tile, r);
		for (unsigned i = 0; i < OB_MAX_RANGES; i++) {
			struct ob_span *sp = &span[k * OB_MAX_RANGES + i];

			if (to && sp->p)
				memcpy(to[k] + r[i].off, sp->p, sp->len);
			free(sp->p);
		}
	}
}

static void decode(const struct subject *s, uint64_t step, enum ob_decode_mode mode, float *x)
{
	const struct ob_codec *c = s->enc.codec;
	struct ob_span span[N_SPANS];

	for (uint64_t e = 0; e < s->n; e += step) {
		struct ob_elems t = { e, e + step < s->n ? e + step : s->n };
		size_t n = t.e1 - t.e0;
		float *dst = block(n * sizeof(float));
		float *scratch = block(c->scratch_floats(&s->enc, n) * sizeof(float));

		open_tile(s, t, span);
		c->decode(&s->enc, &s->shape, span, t, t, mode, dst, scratch);
		memcpy(x + e, dst, n * sizeof(float));
		close_tile(s, t, span, NULL);
		free(dst);
		free(scratch);
	}
}

static void encode(const struct subject *s, uint64_t step, const float *x, uint8_t *const *out)
{
	const struct ob_codec *c = s->enc.codec;
	struct ob_span span[N_SPANS];

	for (uint64_t e = 0; e < s->n; e += step) {
		struct ob_elems t = { e, e + step < s->n ? e + step : s->n };
		size_t n = t.e1 - t.e0;
		float *src = block(n * sizeof(float));
		float *scratch = block(c->scratch_floats(&s->enc, n) * sizeof(float));

		open_tile(s, t, span);
		memcpy(src, x + e, n * sizeof(float));
		c->encode(&s->enc, &s->shape, span, t, t, src, scratch, NULL);
		close_tile(s, t, span, out);
		free(src);
		free(scratch);
	}
}

static void check_encode(const struct subject *s, const float *x)
{
	uint8_t *whole[OB_MAX_PARTS], *tiles[OB_MAX_PARTS];
	const char *why;

	if (!s->enc.codec->encode || s->enc.codec->n_stats ||
	    !s->enc.codec->accepts(&s->enc, &s->shape, &why))
		return;
	for (unsigned k = 0; k < s->parts.n; k++) {
		whole[k] = block(s->parts.part[k].len);
		tiles[k] = block(s->parts.part[k].len);
	}
	encode(s, s->n, x, whole);
	encode(s, s->tile, x, tiles);
	for (unsigned k = 0; k < s->parts.n; k++) {
		fuzz_require(!memcmp(whole[k], tiles[k], s->parts.part[k].len));
		free(whole[k]);
		free(tiles[k]);
	}
}

static void check_values(const struct subject *s)
{
	float *x = block(s->n * sizeof(float)), *y = block(s->n * sizeof(float));

	for (enum ob_decode_mode mode = OB_DECODE_F32; mode <= OB_DECODE_EXACT; mode++) {
		decode(s, s->n, mode, x);
		decode(s, s->tile, mode, y);
		fuzz_require(!memcmp(x, y, s->n * sizeof(float)));
	}
	check_encode(s, x);
	free(x);
	free(y);
}

static int parse_encoding(const char *word, size_t n, struct ob_encoding *enc, ob_err *e)
{
	char scheme[64];

	if (n >= sizeof(scheme) || memchr(word, '\0', n))
		return -1;
	memcpy(scheme, word, n);
	scheme[n] = '\0';
	*enc = (struct ob_encoding){ 0 };
	if (!strcmp(scheme, "raw"))
		enc->codec = &ob_codec_raw;
	else if (!strcmp(scheme, "float"))
		enc->codec = &ob_codec_float;
	else
		return ob_encoding_parse(enc, scheme, e);
	return 0;
}

/* Can a tensor be stored so? What is only read has been stored by others. */
static bool is_possible(const struct subject *s)
{
	const char *why;
	uint64_t bits;

	if (s->enc.codec == &ob_codec_raw)
		return ob_mul_u64(s->n, ob_dtype_bits(s->enc.dtype), &bits) && bits % 8 == 0;
	if (s->enc.codec == &ob_codec_float)
		return ob_dtype_is_float(s->enc.dtype) || s->enc.dtype == OB_F64;
	return s->enc.codec->accepts(&s->enc, &s->shape, &why);
}

static void fill_parts(struct subject *s, const char *data, size_t size)
{
	size_t at = 0;

	for (unsigned k = 0; k < s->parts.n; k++) {
		s->part[k] = block(s->parts.part[k].len);
		for (uint64_t i = 0; i < s->parts.part[k].len; i++)
			s->part[k][i] = size ? (uint8_t)data[at++ % size] : 0;
	}
}

static void check_subject(struct subject *s, const char *data, size_t size, struct ob_arena *a)
{
	uint64_t rows, cols;
	uint32_t unit_rows, unit_cols;
	ob_err e = { 0 };
	int rc;

	fuzz_begin();
	rc = s->enc.codec->layout(&s->enc, &s->shape, a, &s->parts, &e);
	if (fuzz_end(rc, &e))
		fuzz_require(rc == 0 || e.code == OB_LIMIT);
	if (rc != 0 || s->n == 0 || s->n > MAX_ELEMS || !s->enc.codec->decode)
		return;
	s->enc.codec->granularity(&s->enc, &s->shape, &unit_rows, &unit_cols);
	ob_codec_rows(&s->enc, &s->shape, &rows, &cols);
	s->tile = unit_cols && cols % unit_cols == 0 ? unit_cols : unit_rows * cols;
	fill_parts(s, data, size);
	check_values(s);
	for (unsigned k = 0; k < s->parts.n; k++)
		free(s->part[k]);
}

static void fuzz_data(const char *data, size_t size)
{
	const char *end = memchr(data, '\n', size), *space, *at;
	struct ob_arena a = { 0 };
	struct subject s = { 0 };
	struct tensor_line l;
	ob_err e = { 0 };

	if (!end)
		return;
	space = memchr(data, ' ', (size_t)(end - data));
	at = space ? space + 1 : end;
	if (!space || parse_encoding(data, (size_t)(space - data), &s.enc, &e) != 0 ||
	    tensor_line(&at, end, &l) != 1)
		return;
	s.enc.dtype = ob_dtype_by_name(l.name, l.len);
	s.shape = l.shape;
	s.n = l.elems;
	if (s.enc.dtype != OB_N_DTYPES && is_possible(&s))
		check_subject(&s, end + 1, size - (size_t)(end + 1 - data), &a);
	ob_arena_free(&a);
}
