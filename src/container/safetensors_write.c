/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors header writer: compact JSON, metadata first, padded with spaces. The text is made
 * piece by piece, twice: to know its length, and to hand it out.
 */
#include "container/container.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"

#define PIECE 65536u
#define HEADER_MAX 100000000u /* readers take no more; the hub's takes 25,000,000 */

struct writer {
	struct ob_text text; /* made, but not handed out */
	uint64_t off;	     /* of text.data, in the file */
	ob_put put;	     /* NULL: only count */
	void *ctx;
};

static int flush(struct writer *w, ob_err *e)
{
	if (w->text.failed)
		return ob_fail_nomem(e, "safetensors header");
	for (size_t i = 0; w->put && i < w->text.len; i += PIECE) {
		size_t n = ob_min_u64(w->text.len - i, PIECE);

		if (w->put(w->ctx, w->text.data + i, n, w->off + i, e) != 0)
			return -1;
	}
	w->off += w->text.len;
	w->text.len = 0;
	return 0;
}

static int flush_full(struct writer *w, ob_err *e)
{
	return w->text.len < PIECE && !w->text.failed ? 0 : flush(w, e);
}

static void add_string(struct writer *w, const char *s)
{
	ob_text_json(&w->text, s, strlen(s));
}

static int add_meta(struct writer *w, const struct ob_meta_entry *meta, size_t n, ob_err *e)
{
	const char *before = "\"__metadata__\":{";

	/* Old readers look at "format" alone, and people at what comes first. */
	for (int first = 1; first >= 0; first--) {
		for (size_t i = 0; i < n; i++) {
			if ((strcmp(meta[i].key, "format") == 0) != first)
				continue;
			ob_text_add(&w->text, before, strlen(before));
			add_string(w, meta[i].key);
			ob_text_add(&w->text, ":", 1);
			add_string(w, meta[i].value);
			before = ",";
			if (flush_full(w, e) != 0)
				return -1;
		}
	}
	if (n > 0)
		ob_text_add(&w->text, "}", 1);
	return 0;
}

static int add_tensor(struct writer *w, const struct ob_st_entry *t, ob_err *e)
{
	if (strcmp(t->name, "__metadata__") == 0)
		return ob_fail(e, OB_UNSUPPORTED,
			       "a tensor is called \"__metadata__\", a name that safetensors "
			       "reserves; rename it");
	add_string(w, t->name);
	ob_text_printf(&w->text, ":{\"dtype\":\"%s\",\"shape\":[", ob_dtype_name(t->dtype));
	for (uint32_t i = 0; i < t->shape.rank; i++)
		ob_text_printf(&w->text, "%s%" PRIu64, i ? "," : "", t->shape.dim[i]);
	ob_text_printf(&w->text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->begin, t->end);
	return flush_full(w, e);
}

/* The JSON text, without padding. */
static int add_header(struct writer *w, const struct ob_st_entry *t, size_t n,
		      const struct ob_meta_entry *meta, size_t n_meta, ob_err *e)
{
	ob_text_add(&w->text, "{", 1);
	if (add_meta(w, meta, n_meta, e) != 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (i > 0 || n_meta > 0)
			ob_text_add(&w->text, ",", 1);
		if (add_tensor(w, &t[i], e) != 0)
			return -1;
	}
	ob_text_add(&w->text, "}", 1);
	return flush(w, e);
}

int ob_st_header_size(const struct ob_st_entry *t, size_t n, const struct ob_meta_entry *meta,
		      size_t n_meta, uint64_t align, uint64_t *size, ob_err *e)
{
	struct writer w = { .off = 8 };
	int rc = add_header(&w, t, n, meta, n_meta, e);

	ob_text_free(&w.text);
	if (rc != 0)
		return -1;
	*size = ob_round_up(w.off, align);
	if (*size - 8 > HEADER_MAX)
		return ob_fail(e, OB_LIMIT,
			       "%zu tensors need a safetensors header of %" PRIu64
			       " bytes, but readers take at most %u; use smaller shards",
			       n, *size - 8, HEADER_MAX);
	return 0;
}

int ob_st_header_write(const struct ob_st_entry *t, size_t n, const struct ob_meta_entry *meta,
		       size_t n_meta, uint64_t size, ob_put put, void *ctx, ob_err *e)
{
	static const char spaces[] = "                ";
	struct writer w = { .put = put, .ctx = ctx };
	int rc;

	for (int shift = 0; shift < 64; shift += 8) {
		char byte = (char)((size - 8) >> shift);

		ob_text_add(&w.text, &byte, 1);
	}
	rc = add_header(&w, t, n, meta, n_meta, e);
	while (rc == 0 && w.off + w.text.len < size) {
		uint64_t left = size - w.off - w.text.len;

		ob_text_add(&w.text, spaces, ob_min_u64(left, sizeof(spaces) - 1));
		rc = flush_full(&w, e);
	}
	if (rc == 0)
		rc = flush(&w, e);
	ob_text_free(&w.text);
	return rc;
}
