/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the JSON wall. For any bytes:
 *  - the pull reader gives the same tokens however the input is cut into pieces;
 *  - the tree accepts what the pull reader accepts, but for duplicate keys, keys with a NUL, and
 *    Python's NaN and Infinity;
 *  - an edit of an accepted object gives an accepted object that holds the new member.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/util.h"

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

/* What the pull reader says of a text. */
struct verdict {
	bool accepted;
	bool bad_keys;	 /* twice in one object, or with a NUL */
	uint64_t tokens; /* hash of all */
};

static struct verdict pull(const char *text, size_t len, size_t chunk)
{
	struct source s = { .p = text, .left = len, .chunk = chunk };
	struct ob_map keys[OB_JSON_DEPTH_MAX] = { 0 };
	struct ob_arena names = { 0 };
	struct verdict v = { 0 };
	size_t depth = 0;
	enum ob_jp_tok tok;
	struct ob_jp *jp;
	ob_err e = { 0 };

	require(ob_jp_new(&jp, give, &s, len, "fuzz", &e) == 0);
	do {
		size_t n;
		const char *t;

		tok = ob_jp_next(jp, &e);
		t = ob_jp_text(jp, &n);
		v.tokens = ob_hash64(&tok, sizeof(tok), v.tokens);
		v.tokens = ob_hash64(t, n, v.tokens);
		if (tok == OB_JP_OBJECT || tok == OB_JP_ARRAY)
			depth++;
		if (tok == OB_JP_END_OBJECT || tok == OB_JP_END_ARRAY)
			ob_map_free(&keys[--depth]);
		if (tok == OB_JP_KEY) {
			char *name = ob_arena_strndup(&names, t, n, &e);

			require(name != NULL);
			if (ob_map_add(&keys[depth - 1], name, n, 0, &e) != 0 || strlen(name) != n)
				v.bad_keys = true;
		}
	} while (tok != OB_JP_END && tok != OB_JP_ERROR);
	v.accepted = tok == OB_JP_END;
	require(v.accepted == (e.code == OB_OK));
	while (depth > 0)
		ob_map_free(&keys[--depth]);
	ob_arena_free(&names);
	ob_jp_free(jp);
	return v;
}

static bool has(const char *text, size_t len, const char *word)
{
	return memmem(text, len, word, strlen(word)) != NULL;
}

static void edit(const char *text, size_t len, const char *value)
{
	static const char key[] = "a";
	struct ob_text t = { 0 };
	struct ob_jv *root;
	ob_err e = { 0 };

	ob_text_add(&t, text, len);
	require(ob_json_edit(&t, "", key, value, "fuzz", &e) == 0);
	require(ob_json_parse(&root, t.data, t.len, "fuzz", &e) == 0);
	if (value)
		require(ob_json_is_true(ob_json_get(root, key)));
	else
		require(!ob_json_get(root, key));
	ob_json_free(root);
	ob_text_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t in_use = ob_alloc_stats().in_use;
	const char *text = (const char *)data;
	struct verdict whole, pieces;
	struct ob_jv *root;
	ob_err e = { 0 };

	if (size > OB_JSON_TREE_MAX / 2) /* an edit may add some */
		return 0;
	whole = pull(text, size, SIZE_MAX);
	pieces = pull(text, size, 1 + size % 7);
	require(whole.accepted == pieces.accepted && whole.tokens == pieces.tokens);
	if (ob_json_parse(&root, text, size, "fuzz", &e) == 0) {
		if (!whole.accepted)
			require(has(text, size, "NaN") || has(text, size, "Infinity"));
		else
			require(!whole.bad_keys);
		if (whole.accepted && ob_json_type(root) == OB_JSON_OBJECT) {
			edit(text, size, "true");
			edit(text, size, NULL);
		}
		ob_json_free(root);
	} else {
		require(!whole.accepted || whole.bad_keys);
	}
	require(ob_alloc_stats().in_use == in_use);
	return 0;
}
