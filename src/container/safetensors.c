/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors reader. Accepts what the reference implementation (safetensors 0.8) accepts,
 * checked in the same order, with three exceptions: a key that occurs twice, an entry that is an
 * array, and text that holds NUL are refused.
 *
 * The header is pulled from the file in pieces: memory grows with the tensors, not with the text.
 */
#include "container/container.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"
#include "base/util.h"
#include "container/lister.h"

#define HEADER_MAX 100000000u /* the reference's limit */

struct parser {
	struct ob_jp *jp;
	struct ob_file *file;
	uint64_t pos, end;     /* of the header text that was not read yet, in the file */
	struct ob_lister list; /* off and len hold begin and end until check_extents */
	bool has_meta;
	struct ob_meta_entry *meta;
	size_t n_meta, cap_meta;
	struct ob_map keys; /* of meta */
};

static long read_header(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct parser *p = ctx;

	n = ob_min_u64(n, p->end - p->pos);
	if (n > 0 && ob_file_read(p->file, buf, n, p->pos, e) != 0)
		return -1;
	p->pos += n;
	return (long)n;
}

static bool text_is(const struct parser *p, const char *s)
{
	size_t len;
	const char *text = ob_jp_text(p->jp, &len);

	return len == strlen(s) && memcmp(text, s, len) == 0;
}

/* ---- metadata ---- */

/* Copies the last key or string to the arena. */
static const char *keep_text(struct parser *p, ob_err *e)
{
	size_t len;
	const char *text = ob_jp_text(p->jp, &len);

	if (memchr(text, '\0', len)) {
		ob_fail(e, OB_UNSUPPORTED,
			"%s: its metadata has a NUL character, which is not supported",
			p->file->path);
		return NULL;
	}
	return ob_arena_strndup(p->list.arena, text, len, e);
}

/* A key, which was the last token, and its value. */
static int read_meta_entry(struct parser *p, ob_err *e)
{
	struct ob_meta_entry *m;
	char shown[160];
	int rc;

	if (ob_grow(&p->meta, &p->cap_meta, p->n_meta, sizeof(*p->meta), e) != 0)
		return -1;
	m = &p->meta[p->n_meta];
	m->key = keep_text(p, e);
	if (!m->key)
		return -1;
	ob_printable(m->key, shown, sizeof(shown));
	rc = ob_map_add(&p->keys, m->key, strlen(m->key), 0, e);
	if (rc > 0)
		ob_fail(e, OB_CORRUPT, "%s: its metadata has \"%s\" twice", p->file->path, shown);
	if (rc != 0)
		return -1;
	if (ob_jp_next(p->jp, e) != OB_JP_STRING)
		return ob_fail(e, OB_CORRUPT,
			       "%s: the value of \"%s\" in its metadata is no string",
			       p->file->path, shown);
	m->value = keep_text(p, e);
	if (!m->value)
		return -1;
	p->n_meta++;
	return 0;
}

static int read_meta(struct parser *p, ob_err *e)
{
	enum ob_jp_tok tok;

	if (p->has_meta)
		return ob_fail(e, OB_CORRUPT, "%s: its header has \"__metadata__\" twice",
			       p->file->path);
	p->has_meta = true;
	tok = ob_jp_next(p->jp, e);
	if (tok == OB_JP_NULL)
		return 0;
	if (tok != OB_JP_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s: its \"__metadata__\" is no JSON object",
			       p->file->path);
	while ((tok = ob_jp_next(p->jp, e)) == OB_JP_KEY)
		if (read_meta_entry(p, e) != 0)
			return -1;
	return tok == OB_JP_END_OBJECT ? 0 : -1;
}

/* ---- tensors ---- */

/* An array of at most `max` integers. */
static int read_numbers(struct parser *p, const struct ob_stored *t, const char *field,
			uint64_t *out, uint32_t max, uint32_t *n, ob_err *e)
{
	enum ob_jp_tok tok = ob_jp_next(p->jp, e);

	if (tok != OB_JP_ARRAY)
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has a %s that is no JSON array", field);
	for (*n = 0; (tok = ob_jp_next(p->jp, e)) != OB_JP_END_ARRAY; ++*n) {
		if (tok == OB_JP_ERROR)
			return -1;
		if (*n == max)
			return ob_lister_fail(&p->list, t->name, e,
					      max == OB_MAX_RANK ? OB_LIMIT : OB_CORRUPT,
					      "has more than %" PRIu32 " numbers in its %s", max,
					      field);
		if (tok != OB_JP_NUMBER || !ob_jp_u64(p->jp, &out[*n]))
			return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
					      "has a %s with something that is no integer "
					      "from 0 to 2^64 - 1",
					      field);
	}
	return 0;
}

static int read_dtype(struct parser *p, struct ob_stored *t, ob_err *e)
{
	const char *text;
	char shown[64];
	size_t len;

	if (ob_jp_next(p->jp, e) != OB_JP_STRING)
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has a dtype that is no string");
	text = ob_jp_text(p->jp, &len);
	t->dtype = ob_dtype_by_name(text, len);
	if (t->dtype == OB_N_DTYPES)
		return ob_lister_fail(&p->list, t->name, e, OB_UNSUPPORTED,
				      "has the unknown dtype \"%s\"",
				      ob_printable(text, shown, sizeof(shown)));
	return 0;
}

static int read_shape(struct parser *p, struct ob_stored *t, ob_err *e)
{
	uint64_t dim[OB_MAX_RANK], *copy;

	if (read_numbers(p, t, "shape", dim, OB_MAX_RANK, &t->shape.rank, e) != 0)
		return -1;
	copy = ob_arena_alloc(p->list.arena, t->shape.rank * sizeof(*dim), e);
	if (!copy)
		return -1;
	memcpy(copy, dim, t->shape.rank * sizeof(*dim));
	t->shape.dim = copy;
	return 0;
}

static int read_offsets(struct parser *p, struct ob_stored *t, ob_err *e)
{
	uint64_t at[2];
	uint32_t n;

	if (read_numbers(p, t, "data_offsets", at, 2, &n, e) != 0)
		return -1;
	if (n != 2)
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has %" PRIu32 " data_offsets, not 2", n);
	t->off = at[0];
	t->len = at[1];
	return 0;
}

static const struct {
	const char *name;
	int (*read)(struct parser *p, struct ob_stored *t, ob_err *e);
} fields[] = {
	{ "dtype", read_dtype },
	{ "shape", read_shape },
	{ "data_offsets", read_offsets },
};

#define N_FIELDS (sizeof(fields) / sizeof(*fields))

/* A tensor whose name was the last token. */
static int read_tensor(struct parser *p, ob_err *e)
{
	bool seen[N_FIELDS] = { false };
	enum ob_jp_tok tok;
	struct ob_stored *t;
	size_t len, i;
	const char *name = ob_jp_text(p->jp, &len);

	t = ob_lister_add(&p->list, name, len, e);
	if (!t)
		return -1;
	if (ob_jp_next(p->jp, e) != OB_JP_OBJECT)
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has an entry that is no JSON object");
	while ((tok = ob_jp_next(p->jp, e)) == OB_JP_KEY) {
		for (i = 0; i < N_FIELDS && !text_is(p, fields[i].name); i++)
			;
		if (i < N_FIELDS && seen[i])
			return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT, "has \"%s\" twice",
					      fields[i].name);
		/* The reference ignores fields that it does not know. */
		if ((i < N_FIELDS ? fields[i].read(p, t, e) : ob_jp_skip(p->jp, e)) != 0)
			return -1;
		if (i < N_FIELDS)
			seen[i] = true;
	}
	if (tok != OB_JP_END_OBJECT)
		return -1;
	for (i = 0; i < N_FIELDS; i++)
		if (!seen[i])
			return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT, "has no \"%s\"",
					      fields[i].name);
	return 0;
}

static int read_all(struct parser *p, ob_err *e)
{
	enum ob_jp_tok tok;

	if (ob_jp_next(p->jp, e) != OB_JP_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s: its header is no JSON object", p->file->path);
	while ((tok = ob_jp_next(p->jp, e)) == OB_JP_KEY)
		if ((text_is(p, "__metadata__") ? read_meta(p, e) : read_tensor(p, e)) != 0)
			return -1;
	return tok == OB_JP_END_OBJECT && ob_jp_next(p->jp, e) == OB_JP_END ? 0 : -1;
}

/* The bytes that shape and dtype take, which must be those from begin to end. */
static int check_size(struct parser *p, const struct ob_stored *t, uint64_t have, ob_err *e)
{
	uint64_t bits;

	if (!ob_shape_elems(&t->shape, &bits) || !ob_mul_u64(bits, ob_dtype_bits(t->dtype), &bits))
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has a shape of more than 2^64 bits");
	if (bits % 8 != 0)
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has %" PRIu64 " bits, which does not make whole bytes",
				      bits);
	if (have != bits / 8)
		return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
				      "has %" PRIu64
				      " bytes, but its shape and dtype take %" PRIu64,
				      have, bits / 8);
	return 0;
}

/* Turns (begin, end) into places in the file, whose data starts at `data`: no gaps, no overlaps,
 * nothing behind the last one. */
static int check_extents(struct parser *p, uint64_t data, ob_err *e)
{
	uint64_t at = 0, room = p->file->stamp.size - data;

	ob_lister_sort(&p->list);
	for (size_t i = 0; i < p->list.n; i++) {
		struct ob_stored *t = &p->list.tensor[i];
		uint64_t begin = t->off, end = t->len;

		if (begin != at || end < begin)
			return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
					      "has the data_offsets [%" PRIu64 ", %" PRIu64
					      "]; they should ascend from %" PRIu64
					      ", where the data before it ends",
					      begin, end, at);
		if (check_size(p, t, end - begin, e) != 0)
			return -1;
		if (end > room)
			return ob_lister_fail(&p->list, t->name, e, OB_CORRUPT,
					      "ends at byte %" PRIu64
					      " of the data, of which the file has only %" PRIu64
					      "; is it a partial download?",
					      end, room);
		t->off = data + begin;
		t->len = end - begin;
		at = end;
	}
	if (at != room)
		return ob_fail(e, OB_CORRUPT, "%s has %" PRIu64 " bytes after the last tensor",
			       p->file->path, room - at);
	return 0;
}

/* ---- the file ---- */

/* The length that the file begins with, checked against the file. */
static int header_length(const struct ob_file *f, uint64_t *n, ob_err *e)
{
	unsigned char raw[8];

	if (f->stamp.size < sizeof(raw))
		return ob_fail(e, OB_CORRUPT,
			       "%s has %" PRIu64 " bytes; a safetensors file has at least 8",
			       f->path, f->stamp.size);
	if (ob_file_read(f, raw, sizeof(raw), 0, e) != 0)
		return -1;
	*n = 0;
	for (int i = 7; i >= 0; i--)
		*n = *n << 8 | raw[i];
	if (*n > HEADER_MAX)
		return ob_fail(e, OB_LIMIT,
			       "%s begins with a header length of %" PRIu64
			       "; at most %u is accepted; is it a safetensors file?",
			       f->path, *n, HEADER_MAX);
	if (*n > f->stamp.size - sizeof(raw))
		return ob_fail(e, OB_CORRUPT,
			       "%s begins with a header length of %" PRIu64
			       ", but has only %" PRIu64 " bytes; is it a partial download?",
			       f->path, *n, f->stamp.size);
	return 0;
}

static int hand_over(struct parser *p, struct ob_listing *out, ob_err *e)
{
	size_t bytes = p->n_meta * sizeof(*p->meta);

	out->meta = ob_arena_alloc(p->list.arena, bytes, e);
	if (!out->meta)
		return -1;
	if (bytes)
		memcpy(out->meta, p->meta, bytes);
	out->n_meta = p->n_meta;
	return ob_lister_finish(&p->list, out, e);
}

static int safetensors_open(struct ob_file *f, struct ob_arena *a, struct ob_listing *out,
			    ob_err *e)
{
	struct parser p = { .file = f, .pos = 8, .list = { .file = f, .arena = a } };
	uint64_t n;
	int rc = -1;

	if (header_length(f, &n, e) != 0)
		return -1;
	p.end = 8 + n;
	/* Metadata may be one long text: as long as the header. */
	if (ob_jp_new(&p.jp, read_header, &p, n, f->path, e) == 0 && read_all(&p, e) == 0 &&
	    check_extents(&p, p.end, e) == 0)
		rc = hand_over(&p, out, e);
	ob_jp_free(p.jp);
	ob_lister_free(&p.list);
	ob_map_free(&p.keys);
	ob_free(p.meta);
	return rc;
}

static bool safetensors_probe(const struct ob_file *f)
{
	uint64_t i = 8, n;

	if (header_length(f, &n, NULL) != 0)
		return false;
	while (i < 8 + n && f->map[i] != '\0' && strchr(" \t\r\n", f->map[i]))
		i++;
	return i < 8 + n && f->map[i] == '{';
}

static const char *const suffixes[] = { ".safetensors", NULL };

const struct ob_container ob_container_safetensors = {
	.name = "safetensors",
	.suffix = suffixes,
	.probe = safetensors_probe,
	.open = safetensors_open,
};
