/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index files: which shard holds which tensor. Read twice in constant memory, once for the names of
 * the shards and once to compare, so that the names of a million tensors are not held twice.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "model/internal.h"

#define INDEX_MAX (256u << 20) /* bytes: OB_MAX_TENSORS entries of 256 */
#define SHARDS_MAX 10000u      /* all are open at once; the largest models have a few hundred */

struct reader {
	struct ob_jp *jp;
	const char *what;
	ob_index_fn each;
	void *ctx;
	struct ob_text tensor; /* the key, while its value is read */
	size_t n;
};

/* The value of an entry: the name of a file beside the index. */
static const char *read_shard(struct reader *r, ob_err *e)
{
	const char *shard;
	char shown[160];
	size_t len;

	if (ob_jp_next(r->jp, e) != OB_JP_STRING) {
		ob_fail(e, OB_CORRUPT, "%s: its weight_map gives no file name for tensor \"%s\"",
			r->what, ob_printable(r->tensor.data, shown, sizeof(shown)));
		return NULL;
	}
	shard = ob_jp_text(r->jp, &len);
	if (strlen(shard) != len) {
		ob_fail(e, OB_UNSAFE, "%s names a file with a NUL character", r->what);
		return NULL;
	}
	if (len > NAME_MAX) {
		ob_fail(e, OB_CORRUPT,
			"%s names a file with %zu characters; file names have at "
			"most %d",
			r->what, len, NAME_MAX);
		return NULL;
	}
	return ob_name_check(shard, r->what, e) == 0 ? shard : NULL;
}

static int read_map(struct reader *r, ob_err *e)
{
	enum ob_jp_tok tok = ob_jp_next(r->jp, e);

	if (tok != OB_JP_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s: its weight_map is no JSON object", r->what);
	while ((tok = ob_jp_next(r->jp, e)) == OB_JP_KEY) {
		const char *text, *shard;
		size_t len;

		if (r->n++ == OB_MAX_TENSORS)
			return ob_fail(e, OB_LIMIT, "%s names more than %u tensors", r->what,
				       OB_MAX_TENSORS);
		text = ob_jp_text(r->jp, &len);
		r->tensor.len = 0;
		ob_text_add(&r->tensor, text, len);
		if (r->tensor.failed)
			return ob_fail_nomem(e, "name of a tensor");
		shard = read_shard(r, e);
		if (!shard || r->each(r->ctx, r->tensor.data, len, shard, e) != 0)
			return -1;
	}
	return tok == OB_JP_END_OBJECT ? 0 : -1;
}

static int read_root(struct reader *r, ob_err *e)
{
	static const char key[] = "weight_map";
	bool has_map = false;
	enum ob_jp_tok tok;

	if (ob_jp_next(r->jp, e) != OB_JP_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s: the index is no JSON object", r->what);
	while ((tok = ob_jp_next(r->jp, e)) == OB_JP_KEY) {
		size_t len;
		const char *text = ob_jp_text(r->jp, &len);

		if (len != sizeof(key) - 1 || memcmp(text, key, len) != 0) {
			if (ob_jp_skip(r->jp, e) != 0)
				return -1;
			continue;
		}
		if (has_map)
			return ob_fail(e, OB_CORRUPT, "%s has a weight_map twice", r->what);
		has_map = true;
		if (read_map(r, e) != 0)
			return -1;
	}
	if (tok != OB_JP_END_OBJECT || ob_jp_next(r->jp, e) != OB_JP_END)
		return -1;
	if (r->n == 0)
		return ob_fail(e, OB_CORRUPT, "%s has %s", r->what,
			       has_map ? "an empty weight_map" : "no weight_map");
	return 0;
}

int ob_index_read(ob_jp_read read, void *source, const char *what, ob_index_fn each, void *ctx,
		  ob_err *e)
{
	struct reader r = { .what = what, .each = each, .ctx = ctx };
	int rc;

	if (ob_jp_new(&r.jp, read, source, OB_MAX_NAME, what, e) != 0)
		return -1;
	rc = read_root(&r, e);
	ob_text_free(&r.tensor);
	ob_jp_free(r.jp);
	return rc;
}

struct source {
	const struct ob_file *file;
	uint64_t pos;
};

static long read_file(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct source *s = ctx;

	n = ob_min_u64(n, s->file->stamp.size - s->pos);
	if (n > 0 && ob_file_read(s->file, buf, n, s->pos, e) != 0)
		return -1;
	s->pos += n;
	return (long)n;
}

static int read_path(const char *path, ob_index_fn each, void *ctx, ob_err *e)
{
	struct source s = { 0 };
	struct ob_file *f;
	int rc;

	if (ob_file_open(&f, path, e) != 0)
		return -1;
	s.file = f;
	if (f->stamp.size > INDEX_MAX)
		rc = ob_fail(e, OB_LIMIT, "%s has %llu bytes; an index may have at most %u", path,
			     (unsigned long long)f->stamp.size, INDEX_MAX);
	else
		rc = ob_index_read(read_file, &s, path, each, ctx, e);
	ob_file_close(f);
	return rc;
}

struct shards {
	const char *path;
	struct ob_arena *arena;
	struct ob_map seen;
	const char **name;
	size_t n, cap;
};

static int add_shard(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	struct shards *s = ctx;
	size_t n = strlen(shard);
	uint32_t at;
	char *copy;

	(void)tensor, (void)len;
	if (ob_map_find(&s->seen, shard, n, &at))
		return 0;
	if (s->n == SHARDS_MAX)
		return ob_fail(e, OB_LIMIT, "%s names more than %u shards", s->path, SHARDS_MAX);
	copy = ob_arena_strndup(s->arena, shard, n, e);
	if (!copy || ob_grow(&s->name, &s->cap, s->n, sizeof(*s->name), e) != 0 ||
	    ob_map_add(&s->seen, copy, n, 0, e) < 0)
		return -1;
	s->name[s->n++] = copy;
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int ob_index_shards(const char *path, struct ob_arena *a, const char ***name, size_t *n, ob_err *e)
{
	struct shards s = { .path = path, .arena = a };
	int rc = -1;

	if (read_path(path, add_shard, &s, e) != 0)
		goto out;
	*name = ob_arena_alloc(a, s.n * sizeof(**name), e);
	if (!*name)
		goto out;
	memcpy(*name, s.name, s.n * sizeof(**name));
	qsort(*name, s.n, sizeof(**name), by_bytes);
	*n = s.n;
	rc = 0;
out:
	ob_map_free(&s.seen);
	ob_free(s.name);
	return rc;
}

struct comparison {
	const char *path;
	const struct ob_stored_set *set;
	bool *named; /* per stored tensor */
};

static const char *base_name(const struct ob_file *f)
{
	return strrchr(f->path, '/') + 1;
}

static int compare_entry(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	struct comparison *c = ctx;
	const struct ob_stored *s;
	char shown[160];
	uint32_t at;

	s = ob_stored_find(c->set, tensor, len, &at);
	ob_printable(tensor, shown, sizeof(shown));
	if (!s)
		return ob_fail(e, OB_MISMATCH,
			       "%s says that %s holds tensor \"%s\", but no shard "
			       "does; is the download complete?",
			       c->path, shard, shown);
	if (strcmp(base_name(s->file), shard) != 0)
		return ob_fail(e, OB_MISMATCH,
			       "%s says that %s holds tensor \"%s\", but it is in "
			       "%s",
			       c->path, shard, shown, base_name(s->file));
	if (c->named[at])
		return ob_fail(e, OB_CORRUPT, "%s names tensor \"%s\" twice", c->path, shown);
	c->named[at] = true;
	return 0;
}

int ob_index_check(const char *path, const struct ob_stored_set *set, ob_err *e)
{
	struct comparison c = { .path = path, .set = set };
	char shown[160];
	int rc;

	c.named = ob_calloc(set->n, sizeof(*c.named));
	if (!c.named)
		return ob_fail_nomem(e, "list of tensors");
	rc = read_path(path, compare_entry, &c, e);
	for (size_t i = 0; i < set->n && rc == 0; i++) {
		if (c.named[i])
			continue;
		/* Some loaders would take it and some would not. */
		rc = ob_fail(e, OB_MISMATCH, "%s holds tensor \"%s\", which %s does not name",
			     set->item[i]->file->path,
			     ob_printable(set->item[i]->name, shown, sizeof(shown)), path);
	}
	ob_free(c.named);
	return rc;
}
