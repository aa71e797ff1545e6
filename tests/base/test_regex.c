/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "base/util.h"
#include "oom.h"

static int search(const char *pattern, const char *s)
{
	struct ob_regex *re;
	ob_err e = { 0 };
	int hit;

	cr_assert_eq(ob_regex_new(&re, pattern, "test", &e), 0, "%s", e.msg);
	hit = ob_regex_search(re, s, &e);
	ob_regex_free(re);
	return hit;
}

Test(regex, searches)
{
	cr_assert_eq(search("q_proj", "model.layers.0.self_attn.q_proj.weight"), 1);
	cr_assert_eq(search("^q_proj", "model.q_proj"), 0);
	cr_assert_eq(search("(?P<n>q|k)_proj$", "a.k_proj"), 1);
	cr_assert_eq(search(".*\\.layers\\.(?:[0-9]|1[01])\\.mlp.*", "m.layers.11.mlp.up"), 1);
	cr_assert_eq(search(".*\\.layers\\.(?:[0-9]|1[01])\\.mlp.*", "m.layers.12.mlp.up"), 0);
	cr_assert_eq(search("^(?!.*vision).*proj$", "vision.q_proj"), 0);
	cr_assert_eq(search("", ""), 1);
	cr_assert_eq(search("^\\w$", "\xc3\xa4"), 1);
	cr_assert_eq(search("^.$", "\xe4\xb8\xad"), 1);
}

Test(regex, bad_patterns)
{
	static const char *const cases[] = {
		"(", "[a", "*a", "a{2,1}", "(?P<n", "\\", "\xff", "\\C"
	};
	uint64_t before = ob_alloc_stats().in_use;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_regex *re;
		ob_err e = { 0 };

		cr_assert_eq(ob_regex_new(&re, cases[i], "adapter_config.json", &e), -1);
		cr_assert_null(re);
		cr_assert_eq(e.code, OB_CORRUPT);
		cr_assert_not_null(strstr(e.msg, "adapter_config.json"), "%s", e.msg);
	}
	cr_assert_eq(ob_alloc_stats().in_use, before);
}

Test(regex, hostile_patterns_end)
{
	static const char *const cases[] = { "(a+)+$", "(a|a)*$", "(?:a|aa)+$",
					     "^(([a-z])+.)+[A-Z]$" };
	static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		double start = ob_cpu_seconds();
		struct ob_regex *re;
		ob_err e = { 0 };

		cr_assert_eq(ob_regex_new(&re, cases[i], "test", NULL), 0);
		cr_assert_eq(ob_regex_search(re, text, &e), -1);
		cr_assert_eq(e.code, OB_LIMIT);
		cr_assert_not_null(strstr(e.msg, cases[i]), "%s", e.msg);
		cr_assert_lt(ob_cpu_seconds() - start, 5.0);
		ob_regex_free(re);
	}
}

Test(regex, deep_backtracking_is_bounded_in_memory)
{
	static char text[1 << 20];
	struct ob_regex *re;
	ob_err e = { 0 };

	memset(text, 'a', sizeof(text) - 1);
	cr_assert_eq(ob_regex_new(&re, "(?:(a)|b)*[cd]", "test", NULL), 0);
	cr_assert_eq(ob_regex_search(re, text, &e), -1);
	cr_assert_eq(e.code, OB_LIMIT);
	cr_assert_lt(ob_alloc_stats().peak, 40u << 20);
	ob_regex_free(re);
}

Test(regex, subject_that_is_no_utf8)
{
	struct ob_regex *re;
	ob_err e = { 0 };

	cr_assert_eq(ob_regex_new(&re, "a", "test", NULL), 0);
	cr_assert_eq(ob_regex_search(re, "\xff", &e), -1);
	cr_assert_eq(e.code, OB_CORRUPT);
	ob_regex_free(re);
	ob_regex_free(NULL);
}

static int use(void *ctx, ob_err *e)
{
	struct ob_regex *re;
	int hit;

	(void)ctx;
	if (ob_regex_new(&re, "^(?P<n>a|b)+\\.(c|d)*$", "test", e) != 0)
		return -1;
	hit = ob_regex_search(re, "abababab.cdcdcdcd", e);
	ob_regex_free(re);
	return hit < 0 ? -1 : 0;
}

Test(regex, every_allocation_fails)
{
	cr_assert_geq(oom_sweep(use, NULL), 6);
}
