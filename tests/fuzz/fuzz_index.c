/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the index reader. For any bytes:
 *  - it gives the same entries however the input is cut into pieces;
 *  - every shard that it gives is a plain file name;
 *  - what it accepts is what the JSON tree holds, but for duplicate keys and keys with a NUL, which
 *    the tree refuses.
 */
#include "base/util.h"
#include "fuzz.h"
#include "model/internal.h"

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
	fuzz_require(len <= OB_MAX_NAME && tensor[len] == '\0');
	fuzz_require(*shard && strlen(shard) < 256 && !strchr(shard, '/'));
	fuzz_require(strcmp(shard, ".") != 0 && strcmp(shard, "..") != 0);
	add(ctx, tensor, len, shard);
	return 0;
}

static int pull(const char *text, size_t len, size_t piece, struct entries *s, ob_err *e)
{
	struct fuzz_source source = { text, len, piece };

	*s = (struct entries){ 0 };
	return ob_index_read(fuzz_give, &source, "fuzz", each, s, e);
}

static void compare_with_tree(const char *text, size_t len, const struct entries *want)
{
	struct entries s = { 0 };
	const struct ob_jv *v;
	struct ob_jv *root;
	ob_err e = { 0 };

	if (ob_json_parse(&root, text, len, "fuzz", &e) != 0)
		return;
	for (v = ob_json_first(ob_json_get(root, "weight_map")); v; v = ob_json_next(v))
		add(&s, ob_json_key(v), strlen(ob_json_key(v)), ob_json_str(v));
	fuzz_require(s.n == want->n && s.hash == want->hash);
	ob_json_free(root);
}

static void fuzz_data(const char *text, size_t len)
{
	struct entries whole, pieces;
	ob_err e = { 0 }, again = { 0 };
	int rc;

	fuzz_begin();
	rc = pull(text, len, SIZE_MAX, &whole, &e);
	if (!fuzz_end(rc, &e))
		return;
	fuzz_require(pull(text, len, 1 + len % 7, &pieces, &again) == rc);
	fuzz_require(whole.n == pieces.n && whole.hash == pieces.hash && e.code == again.code);
	if (rc == 0)
		compare_with_tree(text, len, &whole);
}
