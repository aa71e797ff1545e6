/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "oom.h"

/* Gives a text in pieces of `chunk` bytes, then fails if told to. */
struct source {
	const char *p;
	size_t left, chunk;
	bool fails;
};

static long give(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct source *s = ctx;

	if (s->left == 0 && s->fails)
		return ob_fail(e, OB_CHANGED, "gone");
	n = n < s->chunk ? n : s->chunk;
	n = n < s->left ? n : s->left;
	memcpy(buf, s->p, n);
	s->p += n;
	s->left -= n;
	return (long)n;
}

#define STRING_MAX 100u

static const char letters[] = "!{}[]ksntf0.";

/* The tokens as letters, keys and scalars followed by their text in angle brackets. */
static int run(const char *text, size_t len, size_t chunk, char *out, ob_err *e)
{
	struct source s = { .p = text, .left = len, .chunk = chunk };
	struct ob_jp *jp;
	enum ob_jp_tok tok;

	if (ob_jp_new(&jp, give, &s, STRING_MAX, "test.json", e) != 0)
		return -1;
	do {
		size_t n;
		const char *t;

		tok = ob_jp_next(jp, e);
		*out++ = letters[tok];
		t = ob_jp_text(jp, &n);
		if (tok == OB_JP_KEY || tok == OB_JP_STRING || tok == OB_JP_NUMBER) {
			cr_assert_eq(t[n], '\0');
			*out++ = '<';
			memcpy(out, t, n);
			out += n;
			*out++ = '>';
		}
	} while (tok != OB_JP_END && tok != OB_JP_ERROR);
	*out = '\0';
	ob_jp_free(jp);
	return tok == OB_JP_END ? 0 : -1;
}

Test(jsonpull, tokens)
{
	static const struct {
		const char *text, *tokens;
	} cases[] = {
		{ "{}", "{}." },
		{ " [ ] ", "[]." },
		{ "\t\r\n null\n", "0." },
		{ "true", "t." },
		{ "false", "f." },
		{ "\"\"", "s<>." },
		{ "0", "n<0>." },
		{ "-0.50e+10", "n<-0.50e+10>." },
		{ "1E9", "n<1E9>." },
		{ "[1,2 , -3]", "[n<1>n<2>n<-3>]." },
		{ "{\"a\":1}", "{k<a>n<1>}." },
		{ "{ \"a\" : [ {} , [ ] ] , \"b\":\"c\" }", "{k<a>[{}[]]k<b>s<c>}." },
		{ "{\"a\":1,\"a\":2}", "{k<a>n<1>k<a>n<2>}." },
		{ "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "s<\"\\/\b\f\n\r\t>." },
		{ "\"\\u0041\\u00e4\\u4E2d\\uD83D\\uDe00\"",
		  "s<A\xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80>." },
		{ "\"\xc3\xa4\x7f\xf4\x8f\xbf\xbf\"", "s<\xc3\xa4\x7f\xf4\x8f\xbf\xbf>." },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t chunk = 1; chunk <= strlen(cases[i].text); chunk++) {
			char out[200];
			ob_err e = { 0 };

			cr_assert_eq(run(cases[i].text, strlen(cases[i].text), chunk, out, &e), 0,
				     "%s: %s", cases[i].text, e.msg);
			cr_assert_str_eq(out, cases[i].tokens);
		}
}

/* The text and the offset that the message must name. */
static const struct {
	const char *text;
	int at;
} bad[] = {
	{ "", 0 },
	{ " ", 1 },
	{ "\xef\xbb\xbf{}", 0 },
	{ "{} {}", 3 },
	{ "{}\x0b", 2 },
	{ "1 2", 2 },
	{ "[1", 2 },
	{ "[1,]", 3 },
	{ "[,1]", 1 },
	{ "[1 2]", 3 },
	{ "[1}", 2 },
	{ "]", 0 },
	{ "}", 0 },
	{ "{\"a\"}", 4 },
	{ "{\"a\" 1}", 5 },
	{ "{\"a\":}", 5 },
	{ "{\"a\":1,}", 7 },
	{ "{\"a\":1]", 6 },
	{ "{a:1}", 1 },
	{ "{1:1}", 1 },
	{ "{,}", 1 },
	{ "{\"a\"::1}", 5 },
	{ "'a'", 0 },
	{ "tru", 3 },
	{ "True", 0 },
	{ "nulL", 3 },
	{ "truefalse", 4 },
	{ "NaN", 0 },
	{ "Infinity", 0 },
	{ "-Infinity", 1 },
	{ "01", 1 },
	{ "-01", 2 },
	{ "+1", 0 },
	{ "-", 1 },
	{ "1.", 2 },
	{ ".5", 0 },
	{ "1.e5", 2 },
	{ "1e", 2 },
	{ "1e+", 3 },
	{ "0x10", 1 },
	{ "1_000", 1 },
	{ "\"a", 2 },
	{ "\"a\nb\"", 2 },
	{ "\"a\x1f\"", 2 },
	{ "\"\\x\"", 2 },
	{ "\"\\", 2 },
	{ "\"\\u12g4\"", 5 },
	{ "\"\\u12\"", 5 },
	{ "\"\\udc00\"", 7 },
	{ "\"\\ud800\"", 7 },
	{ "\"\\ud800\\n\"", 8 },
	{ "\"\\ud800\\u0041\"", 13 },
	{ "\"\\ud800\\ud800\"", 13 },
	{ "\"\xff\"", 0 },
	{ "\"\xc0\x80\"", 0 },
	{ "\"\xed\xa0\x80\"", 0 },
	{ "\"\xc3\\u0080\"", 0 },
	{ "\xff", 0 },
	{ "{} // no", 3 },
};

Test(jsonpull, refused)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		for (size_t chunk = 1; chunk <= 4; chunk++) {
			char out[200], at[32];
			const char *named;
			ob_err e = { 0 };

			cr_assert_eq(run(bad[i].text, strlen(bad[i].text), chunk, out, &e), -1,
				     "%s", bad[i].text);
			cr_assert_eq(e.code, OB_CORRUPT);
			snprintf(at, sizeof(at), "at byte %d", bad[i].at);
			named = strstr(e.msg, at);
			cr_assert(named && !strchr("0123456789", named[strlen(at)]), "%s: %s",
				  bad[i].text, e.msg);
			cr_assert_not_null(strstr(e.msg, "test.json"));
		}
	}
}

Test(jsonpull, nul_bytes)
{
	char out[200];
	ob_err e = { 0 };

	cr_assert_eq(run("{}\0", 3, 8, out, &e), -1);
	e.code = OB_OK;
	cr_assert_eq(run("\"a\0\"", 4, 8, out, &e), -1);
	cr_assert_eq(run("\"a\\u0000b\"", 10, 8, out, &e), 0);
	cr_assert_eq(memcmp(out, "s<a\0b>.", 7), 0);
}

Test(jsonpull, depth)
{
	char text[2 * OB_JSON_DEPTH_MAX + 8], out[2 * OB_JSON_DEPTH_MAX + 8];
	ob_err e = { 0 };

	for (size_t depth = OB_JSON_DEPTH_MAX; depth <= OB_JSON_DEPTH_MAX + 1; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		cr_assert_eq(run(text, 2 * depth, 1000, out, &e),
			     depth > OB_JSON_DEPTH_MAX ? -1 : 0);
	}
	cr_assert_eq(e.code, OB_LIMIT);
}

Test(jsonpull, longest_string)
{
	char text[STRING_MAX + 8], out[STRING_MAX + 16];

	for (size_t n = STRING_MAX; n <= STRING_MAX + 1; n++) {
		ob_err e = { 0 };

		text[0] = '"';
		memset(text + 1, 'x', n);
		text[n + 1] = '"';
		cr_assert_eq(run(text, n + 2, 7, out, &e), n > STRING_MAX ? -1 : 0);
		cr_assert_eq(e.code, n > STRING_MAX ? OB_LIMIT : OB_OK);
		if (n > STRING_MAX)
			continue;
		/* An escape counts as what it stands for. */
		memcpy(text + n - 6, "\\u0041\"", 7);
		cr_assert_eq(run(text, n + 1, 7, out, &e), 0);
		cr_assert_eq(strlen(out), n - 6 + 4);
	}
}

Test(jsonpull, failed_reads_and_calls_after_errors)
{
	struct source s = { .p = "[1, 2]", .left = 6, .chunk = 3, .fails = true };
	ob_err e = { 0 }, again = { 0 };
	struct ob_jp *jp;

	cr_assert_eq(ob_jp_new(&jp, give, &s, STRING_MAX, "test.json", NULL), 0);
	cr_assert_eq(ob_jp_next(jp, &e), OB_JP_ARRAY);
	cr_assert_eq(ob_jp_next(jp, &e), OB_JP_NUMBER);
	cr_assert_eq(ob_jp_next(jp, &e), OB_JP_NUMBER);
	cr_assert_eq(ob_jp_next(jp, &e), OB_JP_END_ARRAY);
	cr_assert_eq(ob_jp_next(jp, &e), OB_JP_ERROR);
	cr_assert_eq(e.code, OB_CHANGED);
	cr_assert_eq(ob_jp_next(jp, &again), OB_JP_ERROR);
	cr_assert_eq(again.code, OB_CHANGED);
	cr_assert_str_eq(again.msg, "gone");
	cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_ERROR);
	ob_jp_free(jp);
	ob_jp_free(NULL);
}

static bool as_u64(const char *text, uint64_t *n)
{
	struct source s = { .p = text, .left = strlen(text), .chunk = 100 };
	struct ob_jp *jp;
	bool ok;

	cr_assert_eq(ob_jp_new(&jp, give, &s, STRING_MAX, "test.json", NULL), 0);
	cr_assert_neq(ob_jp_next(jp, NULL), OB_JP_ERROR);
	ok = ob_jp_u64(jp, n);
	ob_jp_free(jp);
	return ok;
}

Test(jsonpull, u64)
{
	uint64_t n = 1;

	cr_assert(as_u64("0", &n) && n == 0);
	cr_assert(as_u64("9007199254740993", &n) && n == 9007199254740993ull);
	cr_assert(as_u64("18446744073709551615", &n) && n == UINT64_MAX);
	cr_assert_not(as_u64("18446744073709551616", &n));
	cr_assert_not(as_u64("99999999999999999999999", &n));
	cr_assert_not(as_u64("-1", &n));
	cr_assert_not(as_u64("-0", &n));
	cr_assert_not(as_u64("1.0", &n));
	cr_assert_not(as_u64("1e3", &n));
	cr_assert_not(as_u64("\"1\"", &n));
	cr_assert_not(as_u64("null", &n));
}

Test(jsonpull, skip)
{
	static const char text[] = "{\"a\":{\"x\":[1,{}]},\"b\":[[],[]],\"c\":3,\"d\":4}";
	struct source s = { .p = text, .left = strlen(text), .chunk = 5 };
	struct ob_jp *jp;
	uint64_t n;

	cr_assert_eq(ob_jp_new(&jp, give, &s, STRING_MAX, "test.json", NULL), 0);
	cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_OBJECT);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_KEY);
		cr_assert_eq(ob_jp_skip(jp, NULL), 0);
	}
	cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_KEY);
	cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_NUMBER);
	cr_assert(ob_jp_u64(jp, &n) && n == 4);
	cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_END_OBJECT);
	cr_assert_eq(ob_jp_next(jp, NULL), OB_JP_END);
	ob_jp_free(jp);
}

Test(jsonpull, skip_stops_at_errors)
{
	struct source s = { .p = "[[1,]]", .left = 6, .chunk = 5 };
	struct ob_jp *jp;
	ob_err e = { 0 };

	cr_assert_eq(ob_jp_new(&jp, give, &s, STRING_MAX, "test.json", NULL), 0);
	cr_assert_eq(ob_jp_skip(jp, &e), -1);
	cr_assert_eq(e.code, OB_CORRUPT);
	ob_jp_free(jp);
}

/* Repeats "[" "0," ... without holding the text. */
static long endless(void *ctx, char *buf, size_t n, ob_err *e)
{
	size_t *given = ctx;

	(void)e;
	for (size_t i = 0; i < n; i++)
		buf[i] = *given + i == 0 ? '[' : (*given + i) % 2 ? '0' : ',';
	*given += n;
	return (long)n;
}

Test(jsonpull, memory_is_constant)
{
	size_t given = 0;
	struct ob_jp *jp;
	uint64_t high;

	cr_assert_eq(ob_jp_new(&jp, endless, &given, STRING_MAX, "test.json", NULL), 0);
	high = ob_alloc_stats().peak;
	cr_assert_lt(high, 80 << 10);
	for (int i = 0; i < 2000000; i++)
		ob_jp_next(jp, NULL);
	cr_assert_geq(given, 4000000 - 1);
	cr_assert_eq(ob_alloc_stats().peak, high);
	ob_jp_free(jp);
}

static int read_all(void *ctx, ob_err *e)
{
	char *text = ctx;
	struct source s = { .p = text, .left = strlen(text), .chunk = 100 };
	enum ob_jp_tok tok;
	struct ob_jp *jp;

	if (ob_jp_new(&jp, give, &s, 10000, "test.json", e) != 0)
		return -1;
	while ((tok = ob_jp_next(jp, e)) != OB_JP_END && tok != OB_JP_ERROR)
		;
	ob_jp_free(jp);
	return tok == OB_JP_END ? 0 : -1;
}

Test(jsonpull, every_allocation_fails)
{
	static char text[3000];

	memset(text, 'x', sizeof(text) - 1);
	text[0] = text[sizeof(text) - 2] = '"';
	/* The reader, its first text and four times the double of it. */
	cr_assert_eq(oom_sweep(read_all, text), 6);
}
