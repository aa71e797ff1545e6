/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the JSON wall. For any bytes:
 *  - the pull reader gives the same tokens however the input is cut into pieces;
 *  - the tree accepts what the pull reader accepts, but for duplicate keys, keys with a NUL, and
 *    Python's NaN and Infinity;
 *  - an edit of an accepted object gives an accepted object that holds the new member.
 */
#include "base/json.h"
#include "base/util.h"
#include "fuzz.h"

/* What the pull reader says of a text. */
struct verdict {
	bool accepted;
	bool bad_keys;	 /* twice in one object, or with a NUL */
	uint64_t tokens; /* hash of all */
};

static struct verdict pull(const char *text, size_t len, size_t piece)
{
	struct fuzz_source s = { .p = text, .left = len, .piece = piece };
	struct ob_map keys[OB_JSON_DEPTH_MAX] = { 0 };
	struct ob_arena names = { 0 };
	struct verdict v = { 0 };
	size_t depth = 0;
	enum ob_jp_tok tok;
	struct ob_jp *jp;
	ob_err e = { 0 };

	fuzz_require(ob_jp_new(&jp, fuzz_give, &s, len, "fuzz", &e) == 0);
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

			fuzz_require(name != NULL);
			if (ob_map_add(&keys[depth - 1], name, n, 0, &e) != 0 || strlen(name) != n)
				v.bad_keys = true;
		}
	} while (tok != OB_JP_END && tok != OB_JP_ERROR);
	v.accepted = tok == OB_JP_END;
	fuzz_require(v.accepted == (e.code == OB_OK));
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
	fuzz_require(ob_json_edit(&t, "", key, value, "fuzz", &e) == 0);
	fuzz_require(ob_json_parse(&root, t.data, t.len, "fuzz", &e) == 0);
	if (value)
		fuzz_require(ob_json_is_true(ob_json_get(root, key)));
	else
		fuzz_require(!ob_json_get(root, key));
	ob_json_free(root);
	ob_text_free(&t);
}

/* What both readers say of the text agrees. */
static void compare(const char *text, size_t len, struct ob_jv *root)
{
	struct verdict whole = pull(text, len, SIZE_MAX), pieces = pull(text, len, 1 + len % 7);

	fuzz_require(whole.accepted == pieces.accepted && whole.tokens == pieces.tokens);
	if (!root)
		fuzz_require(!whole.accepted || whole.bad_keys);
	else if (!whole.accepted)
		fuzz_require(has(text, len, "NaN") || has(text, len, "Infinity"));
	else
		fuzz_require(!whole.bad_keys);
	if (root && whole.accepted && ob_json_type(root) == OB_JSON_OBJECT) {
		edit(text, len, "true");
		edit(text, len, NULL);
	}
}

/* Reads all tokens; memory may run out. */
static int read_all(const char *text, size_t len, ob_err *e)
{
	struct fuzz_source s = { .p = text, .left = len, .piece = SIZE_MAX };
	enum ob_jp_tok tok;
	struct ob_jp *jp;

	if (ob_jp_new(&jp, fuzz_give, &s, len, "fuzz", e) != 0)
		return -1;
	do
		tok = ob_jp_next(jp, e);
	while (tok != OB_JP_END && tok != OB_JP_ERROR);
	ob_jp_free(jp);
	return tok == OB_JP_END ? 0 : -1;
}

static void fuzz_data(const char *text, size_t len)
{
	struct ob_text edited = { 0 };
	struct ob_jv *root = NULL;
	ob_err e = { 0 };
	int rc;

	if (len > OB_JSON_TREE_MAX / 2) /* an edit may add some */
		return;
	fuzz_begin();
	rc = ob_json_parse(&root, text, len, "fuzz", &e);
	if (fuzz_end(rc, &e))
		compare(text, len, rc == 0 ? root : NULL);
	if (rc == 0)
		ob_json_free(root);

	e.code = OB_OK;
	fuzz_begin();
	rc = read_all(text, len, &e);
	fuzz_end(rc, &e);

	ob_text_add(&edited, text, len);
	e.code = OB_OK;
	fuzz_begin();
	rc = ob_json_edit(&edited, "a", "b", "[1]", "fuzz", &e);
	fuzz_end(rc, &e);
	fuzz_require(rc == 0 || (edited.len == len && !memcmp(edited.data, text, len)));
	ob_text_free(&edited);
}
