/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "oom.h"

Test(text, grows)
{
	struct ob_text t = { 0 };
	char want[8000];
	size_t n = 0;

	ob_text_add(&t, "", 0);
	cr_assert_str_eq(t.data, "");
	for (int i = 0; i < 1000; i++) {
		ob_text_printf(&t, "%d,", i);
		n += (size_t)snprintf(want + n, sizeof(want) - n, "%d,", i);
	}
	ob_text_add(&t, "end", 3);
	cr_assert_not(t.failed);
	cr_assert_eq(t.len, n + 3);
	cr_assert_eq(memcmp(t.data, want, n), 0);
	cr_assert_str_eq(t.data + n, "end");
	ob_text_free(&t);
	cr_assert_null(t.data);
}

Test(text, failure_is_kept)
{
	struct ob_text t = { 0 };

	ob_text_add(&t, "abc", 3);
	ob_text_add(&t, "x", SIZE_MAX - 1);
	cr_assert(t.failed);
	ob_text_add(&t, "x", 1);
	ob_text_printf(&t, "x");
	ob_text_json(&t, "x", 1);
	cr_assert_str_eq(t.data, "abc");
	ob_text_free(&t);
	cr_assert_not(t.failed);
}

Test(text, json_strings)
{
	static const struct {
		const char *in;
		size_t n;
		const char *out;
	} cases[] = {
		{ "", 0, "\"\"" },
		{ "a\"b\\c/", 6, "\"a\\\"b\\\\c/\"" },
		{ "\n\t\x01\x1f\x7f", 5, "\"\\n\\u0009\\u0001\\u001f\x7f\"" },
		{ "a\0b", 3, "\"a\\u0000b\"" },
		{ "\xc3\xa4\xf0\x9f\x98\x80", 6, "\"\xc3\xa4\xf0\x9f\x98\x80\"" },
		{ "\xff"
		  "a\xc3",
		  3,
		  "\"\xef\xbf\xbd"
		  "a\xef\xbf\xbd\"" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_text t = { 0 };

		ob_text_json(&t, cases[i].in, cases[i].n);
		cr_assert_str_eq(t.data, cases[i].out);
		ob_text_free(&t);
	}
}

Test(text, numbers_know_no_locale)
{
	static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8" };
	struct ob_text t = { 0 };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (setlocale(LC_ALL, names[i]))
			break;
	ob_text_printf(&t, "%g", 1.5);
	cr_assert_str_eq(t.data, "1.5");
	ob_text_free(&t);
}

/* path, key, value as for ob_json_edit; NULL in `after` means that nothing changes. */
struct edit {
	const char *before, *path, *key, *value, *after;
};

static void check(const struct edit *c)
{
	uint64_t in_use = ob_alloc_stats().in_use;
	struct ob_text t = { 0 };
	struct ob_jv *root;
	ob_err e = { 0 };

	ob_text_add(&t, c->before, strlen(c->before));
	cr_assert_eq(ob_json_edit(&t, c->path, c->key, c->value, "test.json", &e), 0, "%s: %s",
		     c->before, e.msg);
	cr_assert_str_eq(t.data, c->after ? c->after : c->before);
	cr_assert_eq(t.len, strlen(t.data));
	cr_assert_eq(ob_json_parse(&root, t.data, t.len, "test.json", &e), 0, "%s: %s", t.data,
		     e.msg);
	ob_json_free(root);
	ob_text_free(&t);
	cr_assert_eq(ob_alloc_stats().in_use, in_use);
}

static void check_all(const struct edit *c, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check(&c[i]);
}

#define CHECK(cases) check_all(cases, sizeof(cases) / sizeof(*(cases)))

Test(edit, replaces)
{
	static const struct edit cases[] = {
		{ "{\"a\":1}", "", "a", "2", "{\"a\":2}" },
		{ " {\"a\" : 1.50 , \"b\":1E5}\n", "", "a", "\"x\"",
		  " {\"a\" : \"x\" , \"b\":1E5}\n" },
		{ "{\"a\": [1,\n 2] ,\"b\": 3}", "", "a", "null", "{\"a\": null ,\"b\": 3}" },
		{ "{\"a\": {\"a\": 1}, \"b\": {\"a\": 2}}", "", "a", "0",
		  "{\"a\": 0, \"b\": {\"a\": 2}}" },
		{ "{\"a\": {\"a\": 1}, \"b\": {\"a\": 2}}", "b", "a", "0",
		  "{\"a\": {\"a\": 1}, \"b\": {\"a\": 0}}" },
		{ "{\"x\": {\"y\": {\"z\": 1, \"w\": 2}}, \"z\": 3}", "x\x1fy", "z", "9",
		  "{\"x\": {\"y\": {\"z\": 9, \"w\": 2}}, \"z\": 3}" },
		{ "{\"\\u0061\": 1}", "", "a", "2", "{\"\\u0061\": 2}" },
		{ "{\"\": 1}", "", "", "2", "{\"\": 2}" },
		{ "{\"a\": 1.0000000000000000001, \"b\": 12345678901234567890}", "", "a", "1",
		  "{\"a\": 1, \"b\": 12345678901234567890}" },
	};

	CHECK(cases);
}

Test(edit, adds_in_the_style_of_the_neighbours)
{
	static const struct edit cases[] = {
		{ "{\n  \"a\": 1,\n  \"b\": 2\n}\n", "", "c", "3",
		  "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}\n" },
		{ "{\n    \"a\": 1\n}", "", "c", "3", "{\n    \"a\": 1,\n    \"c\": 3\n}" },
		{ "{\r\n\t\"a\" : 1\r\n}\r\n", "", "c", "3",
		  "{\r\n\t\"a\" : 1,\r\n\t\"c\" : 3\r\n}\r\n" },
		{ "{\"a\":1}", "", "c", "3", "{\"a\":1,\"c\":3}" },
		{ "{\"a\": 1}", "", "c", "3", "{\"a\": 1, \"c\": 3}" },
		{ "{ \"a\": 1 }", "", "c", "3", "{ \"a\": 1, \"c\": 3 }" },
		{ "{\"a\": 1, \"b\": 2}", "", "c", "3", "{\"a\": 1, \"b\": 2, \"c\": 3}" },
		{ "{\"a\": 1,\"b\": 2}", "", "c", "3", "{\"a\": 1,\"b\": 2,\"c\": 3}" },
		{ "{\n \"o\": {\n  \"a\": []\n },\n \"p\": 1\n}", "o", "c", "[1, 2]",
		  "{\n \"o\": {\n  \"a\": [],\n  \"c\": [1, 2]\n },\n \"p\": 1\n}" },
		{ "{\"a\":1}", "", "q\"\n", "3", "{\"a\":1,\"q\\\"\\n\":3}" },
	};

	CHECK(cases);
}

Test(edit, adds_to_empty_objects)
{
	static const struct edit cases[] = {
		{ "{}", "", "a", "1", "{\"a\": 1}" },
		{ "{ }\n", "", "a", "1", "{\"a\": 1}\n" },
		{ "{\n}", "", "a", "{}", "{\"a\": {}}" },
		{ "{\n  \"o\": {},\n  \"p\": 1\n}", "o", "a", "1",
		  "{\n  \"o\": {\"a\": 1},\n  \"p\": 1\n}" },
	};

	CHECK(cases);
}

Test(edit, removes)
{
	static const struct edit cases[] = {
		{ "{\"a\":1}", "", "a", NULL, "{}" },
		{ "{\n  \"a\": 1\n}\n", "", "a", NULL, "{}\n" },
		{ "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}", "", "a", NULL,
		  "{\n  \"b\": 2,\n  \"c\": 3\n}" },
		{ "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}", "", "b", NULL,
		  "{\n  \"a\": 1,\n  \"c\": 3\n}" },
		{ "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}", "", "c", NULL,
		  "{\n  \"a\": 1,\n  \"b\": 2\n}" },
		{ "{\"a\":1 , \"b\":[{\"b\":1}] }", "", "b", NULL, "{\"a\":1  }" },
		{ "{\"a\":1 , \"b\":2 }", "", "a", NULL, "{\"b\":2 }" },
		{ "{\"o\": {\"a\": 1, \"b\": 2}, \"a\": 3}", "o", "a", NULL,
		  "{\"o\": {\"b\": 2}, \"a\": 3}" },
	};

	CHECK(cases);
}

Test(edit, changes_nothing)
{
	static const struct edit cases[] = {
		{ "{\"a\": 1}", "", "b", NULL, NULL },
		{ "{}", "", "b", NULL, NULL },
		{ "{\"a\": 1}", "x", "b", "1", NULL },
		{ "{\"a\": 1}", "a", "b", "1", NULL },
		{ "{\"a\": [{\"b\": 1}]}", "a", "b", "2", NULL },
		{ "{\"a\": {\"b\": 1}}", "a\x1fx", "b", "2", NULL },
		{ "{\"a\": {\"b\": 1}, \"c\": {\"x\": {}}}", "a\x1fx", "b", "2", NULL },
		{ "{\"A\": 1}", "", "a", NULL, NULL },
	};

	CHECK(cases);
}

Test(edit, refused)
{
	static const char *const cases[] = { "",
					     "[]",
					     "1",
					     "{",
					     "{\"a\":1,}",
					     "{\"a\":1} x",
					     "{\"b\": {\"a\": 01}}",
					     "{\"a\":1,\"a\":2}" };

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_text t = { 0 };
		ob_err e = { 0 };

		if (*cases[i])
			ob_text_add(&t, cases[i], strlen(cases[i]));
		cr_assert_eq(ob_json_edit(&t, "", "a", "1", "test.json", &e), -1, "%s", cases[i]);
		cr_assert_eq(e.code, OB_CORRUPT);
		if (*cases[i])
			cr_assert_str_eq(t.data, cases[i]);
		ob_text_free(&t);
	}
}

/* Adding and then removing gives the text back, whatever the style. */
Test(edit, round_trip)
{
	static const char *const texts[] = {
		"{\"a\":1}",
		"{\n  \"a\": 1\n}",
		"{ \"a\" : 1 , \"b\" : [ ] }",
		"{\"a\": {}, \"b\": {}}",
		"{\r\n\t\"a\": 1,\r\n\t\"b\": {\r\n\t\t\"c\": 1\r\n\t}\r\n}\r\n",
		"{}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct ob_text t = { 0 };

		ob_text_add(&t, texts[i], strlen(texts[i]));
		cr_assert_eq(ob_json_edit(&t, "", "new", "{\"x\": 1}", "test.json", NULL), 0);
		cr_assert_str_neq(t.data, texts[i]);
		cr_assert_eq(ob_json_edit(&t, "", "new", NULL, "test.json", NULL), 0);
		cr_assert_str_eq(t.data, texts[i]);
		ob_text_free(&t);
	}
}

static int edit_once(void *ctx, ob_err *e)
{
	struct ob_text t = { 0 };
	int rc;

	ob_text_add(&t, ctx, strlen(ctx));
	if (t.failed) {
		ob_text_free(&t);
		return ob_fail_nomem(e, "test");
	}
	rc = ob_json_edit(&t, "o", "new", "1", "test.json", e);
	if (rc != 0)
		cr_assert_str_eq(t.data, ctx);
	ob_text_free(&t);
	return rc;
}

Test(edit, every_allocation_fails)
{
	char text[] =
		"{\"o\": {\"a\": 1}, \"long\": \"................................................"
		"........................................................................\"}";

	cr_assert_geq(oom_sweep(edit_once, text), 4);
}
