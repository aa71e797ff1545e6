/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the index reader. For any bytes:
 *  - it gives the same entries however the input is cut into pieces;
 *  - every shard that it gives is a plain file name;
 *  - what it accepts is what the JSON tree holds, but for duplicate keys and keys with a NUL, which
 *    the tree refuses;
 *  - it leaks nothing, also where an allocation fails.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
	const char *p;
	size_t left, chunk;
};

static long give(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct source *s = ctx;

	(void)e;
	n = n < s->chunk ? n : s->chunk;
	n = n < s->left ? n : s->left;
	if (n)
		memcpy(buf, s->p, n);
	s->p += n;
	s->left -= n;
	return (long)n;
}

static void require(bool ok)
{
	if (!ok)
		abort();
}

struct entries {
	uint64_t hash;
	size_t n;
};

static void add(struct entries *s, const char *tensor, size_t len, const char *shard)
{
	s->hash = ob_hash64(tensor, len, s->hash);
	s->hash = ob_hash64(shard, strlen(shard), s->hash);
	s->n++;
}

static int each(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	(void)e;
	require(len <= OB_MAX_NAME && tensor[len] == '\0');
	require(*shard && strlen(shard) < 256 && !strchr(shard, '/'));
	require(strcmp(shard, ".") != 0 && strcmp(shard, "..") != 0);
	add(ctx, tensor, len, shard);
	return 0;
}

static int pull(const uint8_t *data, size_t size, size_t chunk, struct entries *s, ob_err *e)
{
	struct source source = { (const char *)data, size, chunk };

	*s = (struct entries){ 0 };
	return ob_index_read(give, &source, "fuzz", each, s, e);
}

static void compare_with_tree(const uint8_t *data, size_t size, const struct entries *want)
{
	struct entries s = { 0 };
	const struct ob_jv *v;
	struct ob_jv *root;
	ob_err e = { 0 };

	if (ob_json_parse(&root, (const char *)data, size, "fuzz", &e) != 0)
		return;
	for (v = ob_json_first(ob_json_get(root, "weight_map")); v; v = ob_json_next(v))
		add(&s, ob_json_key(v), strlen(ob_json_key(v)), ob_json_str(v));
	require(s.n == want->n && s.hash == want->hash);
	ob_json_free(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t in_use = ob_alloc_stats().in_use;
	ob_err e = { 0 }, again = { 0 }, failed = { 0 };
	struct entries whole, pieces;
	int rc = pull(data, size, SIZE_MAX, &whole, &e);

	require((rc == 0) == (e.code == OB_OK));
	require(pull(data, size, 1 + size % 7, &pieces, &again) == rc);
	require(whole.n == pieces.n && whole.hash == pieces.hash && e.code == again.code);
	if (rc == 0)
		compare_with_tree(data, size, &whole);
	ob_alloc_fail_at(1 + size % 5, true);
	pull(data, size, SIZE_MAX, &whole, &failed);
	ob_alloc_fail_at(0, false);
	require(ob_alloc_stats().in_use == in_use);
	return 0;
}
