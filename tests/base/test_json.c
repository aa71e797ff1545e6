/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "oom.h"

static struct ob_jv *parse(const char *text)
{
	struct ob_jv *root;
	ob_err e = { 0 };

	cr_assert_eq(ob_json_parse(&root, text, strlen(text), "test.json", &e), 0, "%s: %s", text,
		     e.msg);
	return root;
}

static void refuse(const char *text, size_t len, enum ob_code code)
{
	uint64_t before = ob_alloc_stats().in_use;
	struct ob_jv *root;
	ob_err e = { 0 };

	cr_assert_eq(ob_json_parse(&root, text, len, "test.json", &e), -1, "%s", text);
	cr_assert_null(root);
	cr_assert_eq(e.code, code, "%s", e.msg);
	cr_assert_eq(ob_alloc_stats().in_use, before);
}

Test(json, getters)
{
	struct ob_jv *root =
		parse("{\"r\": 16, \"alpha\": 0.5, \"name\": \"x\\u00e4\", \"on\": true,"
		      "\"off\": false, \"none\": null, \"list\": [1, \"a\"], \"o\": {}}");
	const struct ob_jv *v;
	int64_t n;
	double x;
	bool b;

	cr_assert_eq(ob_json_type(root), OB_JSON_OBJECT);
	cr_assert(ob_json_int(ob_json_get(root, "r"), &n) && n == 16);
	cr_assert(ob_json_num(ob_json_get(root, "r"), &x) && x == 16);
	cr_assert(ob_json_num(ob_json_get(root, "alpha"), &x) && x == 0.5);
	cr_assert_not(ob_json_int(ob_json_get(root, "alpha"), &n));
	cr_assert_str_eq(ob_json_str(ob_json_get(root, "name")), "x\xc3\xa4");
	cr_assert(ob_json_bool(ob_json_get(root, "on"), &b) && b);
	cr_assert(ob_json_bool(ob_json_get(root, "off"), &b) && !b);
	cr_assert(ob_json_is_true(ob_json_get(root, "on")));
	cr_assert_not(ob_json_is_true(ob_json_get(root, "off")));
	cr_assert_not(ob_json_is_true(ob_json_get(root, "r")));
	cr_assert_eq(ob_json_type(ob_json_get(root, "none")), OB_JSON_NULL);
	cr_assert_eq(ob_json_type(ob_json_get(root, "on")), OB_JSON_BOOL);
	cr_assert_eq(ob_json_type(ob_json_get(root, "r")), OB_JSON_NUMBER);
	cr_assert_eq(ob_json_type(ob_json_get(root, "name")), OB_JSON_STRING);
	cr_assert_eq(ob_json_type(ob_json_get(root, "list")), OB_JSON_ARRAY);

	v = ob_json_first(ob_json_get(root, "list"));
	cr_assert(ob_json_int(v, &n) && n == 1);
	v = ob_json_next(v);
	cr_assert_str_eq(ob_json_str(v), "a");
	cr_assert_null(ob_json_next(v));
	cr_assert_null(ob_json_first(ob_json_get(root, "o")));
	cr_assert_str_eq(ob_json_key(ob_json_first(root)), "r");

	/* Absent and of another type. */
	cr_assert_null(ob_json_get(root, "R"));
	cr_assert_null(ob_json_get(NULL, "r"));
	cr_assert_null(ob_json_get(ob_json_get(root, "list"), "r"));
	cr_assert_null(ob_json_str(NULL));
	cr_assert_null(ob_json_str(ob_json_get(root, "r")));
	cr_assert_null(ob_json_first(NULL));
	cr_assert_null(ob_json_first(ob_json_get(root, "name")));
	cr_assert_not(ob_json_int(NULL, &n) || ob_json_num(NULL, &x) || ob_json_bool(NULL, &b));
	cr_assert_not(ob_json_is_true(NULL));
	cr_assert_not(ob_json_num(ob_json_get(root, "name"), &x));
	cr_assert_not(ob_json_bool(ob_json_get(root, "r"), &b));
	ob_json_free(root);
	ob_json_free(NULL);
}

Test(json, file_order)
{
	struct ob_jv *root = parse("{\"z\":1,\"a\":2,\"A\":3,\"\":4}");
	static const char *const keys[] = { "z", "a", "A", "" };
	const struct ob_jv *v = ob_json_first(root);

	for (size_t i = 0; i < 4; i++, v = ob_json_next(v))
		cr_assert_str_eq(ob_json_key(v), keys[i]);
	cr_assert_null(v);
	cr_assert_not_null(ob_json_get(root, ""));
	ob_json_free(root);
}

Test(json, integers)
{
	static const struct {
		const char *text;
		bool ok;
		int64_t n;
	} cases[] = {
		{ "0", true, 0 },
		{ "-0", true, 0 },
		{ "-7", true, -7 },
		{ "16.0", true, 16 },
		{ "1e3", true, 1000 },
		{ "3000000000", true, 3000000000 },
		{ "9007199254740991", true, 9007199254740991 },
		{ "-9007199254740991", true, -9007199254740991 },
		{ "9007199254740993", false, 0 },
		{ "-9007199254740993", false, 0 },
		{ "18446744073709551615", false, 0 },
		{ "1e400", false, 0 },
		{ "0.5", false, 0 },
		{ "NaN", false, 0 },
		{ "Infinity", false, 0 },
		{ "\"1\"", false, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_jv *root = parse(cases[i].text);
		int64_t n = 0;

		cr_assert_eq(ob_json_int(root, &n), cases[i].ok, "%s", cases[i].text);
		cr_assert_eq(n, cases[i].n);
		ob_json_free(root);
	}
}

Test(json, numbers_of_python)
{
	struct ob_jv *root = parse("[NaN, Infinity, -Infinity, 0.1, 1e-400]");
	const struct ob_jv *v = ob_json_first(root);
	double x;

	cr_assert(ob_json_num(v, &x) && isnan(x));
	v = ob_json_next(v);
	cr_assert(ob_json_num(v, &x) && x == INFINITY);
	v = ob_json_next(v);
	cr_assert(ob_json_num(v, &x) && x == -INFINITY);
	v = ob_json_next(v);
	cr_assert(ob_json_num(v, &x) && x == 0.1);
	v = ob_json_next(v);
	cr_assert(ob_json_num(v, &x) && x == 0);
	ob_json_free(root);
	refuse("nan", 3, OB_CORRUPT);
	refuse("+Infinity", 9, OB_CORRUPT);
	refuse("-NaN", 4, OB_CORRUPT);
	refuse("Inf", 3, OB_CORRUPT);
	refuse("Infinityx", 9, OB_CORRUPT);
}

Test(json, long_numbers_are_read_whole)
{
	char text[200];
	struct ob_jv *root;
	double x;

	memset(text, '0', sizeof(text));
	text[1] = '.';
	strcpy(text + 150, "1e150");
	root = parse(text);
	cr_assert(ob_json_num(root, &x) && x == 10);
	ob_json_free(root);
}

Test(json, refused)
{
	static const char *const cases[] = {
		"",
		"{",
		"{} x",
		"{\"a\":1,}",
		"[01]",
		"\"\xff\"",
		"\"\\ud800\"",
		"\xef\xbb\xbf{}",
		"{\"a\":1,\"a\":1}",
		"[{\"b\":{\"a\":1,\"c\":2,\"\\u0061\":3}}]",
		"{\"\":1,\"\":2}",
		"{\"a\\u0000\":1}",
		"{\"a\":[1,{\"b\":2}",
		"{\"a\":{\"x\":1,\"x\":2",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		refuse(cases[i], strlen(cases[i]), OB_CORRUPT);
}

Test(json, strings_with_nul_have_no_text)
{
	struct ob_jv *root = parse("[\"a\\u0000b\", \"c\"]");
	const struct ob_jv *v = ob_json_first(root);

	cr_assert_eq(ob_json_type(v), OB_JSON_STRING);
	cr_assert_null(ob_json_str(v));
	cr_assert_str_eq(ob_json_str(ob_json_next(v)), "c");
	ob_json_free(root);
}

Test(json, limits)
{
	char deep[2 * (OB_JSON_DEPTH_MAX + 1)];
	char *large = malloc(OB_JSON_TREE_MAX + 1);
	struct ob_jv *root;

	memset(deep, '[', OB_JSON_DEPTH_MAX + 1);
	memset(deep + OB_JSON_DEPTH_MAX + 1, ']', OB_JSON_DEPTH_MAX + 1);
	refuse(deep, sizeof(deep), OB_LIMIT);
	cr_assert_eq(ob_json_parse(&root, deep + 1, sizeof(deep) - 2, "test.json", NULL), 0);
	ob_json_free(root);

	memset(large, ' ', OB_JSON_TREE_MAX + 1);
	large[0] = '1';
	refuse(large, OB_JSON_TREE_MAX + 1, OB_LIMIT);
	cr_assert_eq(ob_json_parse(&root, large, OB_JSON_TREE_MAX, "test.json", NULL), 0);
	ob_json_free(root);
	free(large);
}

static int parse_and_free(void *ctx, ob_err *e)
{
	struct ob_jv *root;

	if (ob_json_parse(&root, ctx, strlen(ctx), "test.json", e) != 0)
		return -1;
	ob_json_free(root);
	return 0;
}

Test(json, every_allocation_fails)
{
	char text[] = "{\"a\": [1, true, false, null, \"s\", \"\\u0000\", {\"b\": {}}], \"c\": []}";

	cr_assert_geq(oom_sweep(parse_and_free, text), 20);
}
