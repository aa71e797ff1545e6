/* SPDX-License-Identifier: Apache-2.0 */
/* The index reader alone; what it means for a folder is in test_model.c. */
#include "../base/oom.h"
#include "build.h"

struct source {
	const char *p;
	size_t left;
};

/* In small pieces, so that every token is cut somewhere. */
static long give(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct source *s = ctx;

	(void)e;
	n = n < 3 ? n : 3;
	n = n < s->left ? n : s->left;
	memcpy(buf, s->p, n);
	s->p += n;
	s->left -= n;
	return (long)n;
}

/* Every entry as "tensor=shard;". */
static int keep(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	struct ob_text *t = ctx;

	(void)e;
	ob_text_add(t, tensor, len);
	ob_text_printf(t, "=%s;", shard);
	return 0;
}

static int read_text(const char *text, size_t len, struct ob_text *out, ob_err *e)
{
	struct source s = { text, len };

	return ob_index_read(give, &s, "x.index.json", keep, out, e);
}

static void reads(const char *text, const char *want)
{
	struct ob_text out = { 0 };

	works(read_text(text, strlen(text), &out, e));
	cr_assert_str_eq(out.data, want);
	ob_text_free(&out);
}

static void refuses(const char *text, enum ob_code code, const char *word)
{
	struct ob_text out = { 0 };

	fails(read_text(text, strlen(text), &out, e), code, word);
	ob_text_free(&out);
}

Test(index, entries_in_file_order)
{
	reads("{\"metadata\": {\"total_size\": 1e99, \"x\": [{}]}, \"weight_map\":"
	      "{\"b\": \"2.safetensors\", \"a\\u0020\": \"1.safetensors\"}, \"more\": null}",
	      "b=2.safetensors;a =1.safetensors;");
}

Test(index, names_of_tensors_are_bytes)
{
	struct ob_text out = { 0 };
	static const char text[] = "{\"weight_map\":{\"a\\u0000b\":\"s\"}}";

	works(read_text(text, sizeof(text) - 1, &out, e));
	cr_assert_eq(out.len, 6);
	cr_assert_arr_eq(out.data, "a\0b=s;", 6);
	ob_text_free(&out);
}

Test(index, shape)
{
	refuses("", OB_CORRUPT, "x.index.json");
	refuses("[]", OB_CORRUPT, "no JSON object");
	refuses("{}", OB_CORRUPT, "no weight_map");
	refuses("{\"weight_map\": {}}", OB_CORRUPT, "empty weight_map");
	refuses("{\"weight_map\": []}", OB_CORRUPT, "weight_map is no JSON object");
	refuses("{\"weight_map\": {\"a\": 1}}", OB_CORRUPT, "\"a\"");
	refuses("{\"weight_map\": {\"a\": \"s\"}, \"weight_map\": {\"a\": \"s\"}}", OB_CORRUPT,
		"twice");
	refuses("{\"weight_map\": {\"a\": \"s\"}", OB_CORRUPT, "x.index.json");
	refuses("{\"weight_map\": {\"a\": \"s\"}} {}", OB_CORRUPT, "x.index.json");
}

Test(index, shards_are_plain_names)
{
	refuses("{\"weight_map\": {\"a\": \"\"}}", OB_UNSAFE, "plain name");
	refuses("{\"weight_map\": {\"a\": \"..\"}}", OB_UNSAFE, "plain name");
	refuses("{\"weight_map\": {\"a\": \"/etc/passwd\"}}", OB_UNSAFE, "/etc/passwd");
	refuses("{\"weight_map\": {\"a\": \"../x.safetensors\"}}", OB_UNSAFE, "../x");
	refuses("{\"weight_map\": {\"a\": \"sub/x.safetensors\"}}", OB_UNSAFE, "sub/x");
	refuses("{\"weight_map\": {\"a\": \"x\\u0000y\"}}", OB_UNSAFE, "NUL");
}

Test(index, long_names)
{
	const size_t n = OB_MAX_NAME + 100;
	char *text = malloc(n + 100);
	struct ob_text out = { 0 };
	int len;

	len = sprintf(text, "{\"weight_map\":{\"%0*d\":\"s\"}}", (int)OB_MAX_NAME, 7);
	works(read_text(text, (size_t)len, &out, e));
	len = sprintf(text, "{\"weight_map\":{\"%0*d\":\"s\"}}", (int)OB_MAX_NAME + 1, 7);
	fails(read_text(text, (size_t)len, &out, e), OB_LIMIT, "x.index.json");
	len = sprintf(text, "{\"weight_map\":{\"a\":\"%0*d\"}}", 256, 7);
	fails(read_text(text, (size_t)len, &out, e), OB_CORRUPT, "256 characters");
	ob_text_free(&out);
	free(text);
}

static int refuse(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	(void)ctx, (void)tensor, (void)len;
	return ob_fail(e, OB_INTERNAL, "not %s", shard);
}

Test(index, callback_ends_it)
{
	struct source s = { "{\"weight_map\":{\"a\":\"s\"}}", 24 };

	fails(ob_index_read(give, &s, "x", refuse, NULL, e), OB_INTERNAL, "not s");
}

static int nothing(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e)
{
	(void)ctx, (void)tensor, (void)len, (void)shard, (void)e;
	return 0;
}

static int step(void *ctx, ob_err *e)
{
	struct source s = { "{\"weight_map\":{\"a\":\"s\"}}", 24 };

	(void)ctx;
	return ob_index_read(give, &s, "x", nothing, NULL, e);
}

Test(index, out_of_memory)
{
	cr_assert_gt(oom_sweep(step, NULL), 2);
}
