/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions over PCRE2, which no other file includes. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/util.h"

/* Patterns may come from a downloaded adapter. Steps of one search: well below a second on the
 * name of a tensor; a pattern that means well takes a few hundred. */
#define MATCH_LIMIT 1000000u
#define HEAP_LIMIT_KIB (16u << 10)
#define PATTERN_MAX 65536u /* bytes */

struct ob_regex {
	pcre2_general_context *memory;
	pcre2_match_context *limits;
	pcre2_code *code;
	char shown[128]; /* the pattern, for messages */
};

static void *get(size_t n, void *unused)
{
	(void)unused;
	return ob_alloc(n);
}

static void put(void *p, void *unused)
{
	(void)unused;
	ob_free(p);
}

static int compile(struct ob_regex *re, const char *pattern, const char *what, ob_err *e)
{
	/* Classes such as \w are those of Unicode, and only LF ends a line, as in Python. */
	const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
	pcre2_compile_context *context = pcre2_compile_context_create(re->memory);
	PCRE2_SIZE at;
	int code;

	if (!context)
		return ob_fail_nomem(e, "regular expression");
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	pcre2_set_max_pattern_length(context, PATTERN_MAX);
	re->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &code, &at,
				 context);
	pcre2_compile_context_free(context);
	if (!re->code) {
		char reason[160];

		if (code == PCRE2_ERROR_HEAP_FAILED)
			return ob_fail_nomem(e, "regular expression");
		pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof(reason));
		return ob_fail(e, OB_CORRUPT,
			       "%s: the pattern \"%s\" is no regular expression: %s at byte %zu",
			       what, re->shown, reason, at);
	}
	return 0;
}

int ob_regex_new(struct ob_regex **out, const char *pattern, const char *what, ob_err *e)
{
	struct ob_regex *re = ob_alloc(sizeof(*re));

	*out = NULL;
	if (!re)
		return ob_fail_nomem(e, "regular expression");
	ob_printable(pattern, re->shown, sizeof(re->shown));
	re->memory = pcre2_general_context_create(get, put, NULL);
	re->limits = re->memory ? pcre2_match_context_create(re->memory) : NULL;
	if (!re->limits) {
		ob_regex_free(re);
		return ob_fail_nomem(e, "regular expression");
	}
	pcre2_set_match_limit(re->limits, MATCH_LIMIT);
	pcre2_set_heap_limit(re->limits, HEAP_LIMIT_KIB);
	if (compile(re, pattern, what, e) != 0) {
		ob_regex_free(re);
		return -1;
	}
	*out = re;
	return 0;
}

int ob_regex_search(const struct ob_regex *re, const char *s, ob_err *e)
{
	pcre2_match_data *match = pcre2_match_data_create(1, re->memory);
	char reason[160], subject[160];
	int n;

	if (!match)
		return ob_fail_nomem(e, "regular expression");
	n = pcre2_match(re->code, (PCRE2_SPTR)s, PCRE2_ZERO_TERMINATED, 0, 0, match, re->limits);
	pcre2_match_data_free(match);
	if (n >= 0)
		return 1;
	if (n == PCRE2_ERROR_NOMATCH)
		return 0;
	if (n == PCRE2_ERROR_NOMEMORY)
		return ob_fail_nomem(e, "regular expression");
	ob_printable(s, subject, sizeof(subject));
	if (n <= PCRE2_ERROR_UTF8_ERR1 && n >= PCRE2_ERROR_UTF8_ERR21)
		return ob_fail(
			e, OB_CORRUPT,
			"the name \"%s\" is not UTF-8: the pattern \"%s\" cannot be tried on it",
			subject, re->shown);
	pcre2_get_error_message(n, (PCRE2_UCHAR *)reason, sizeof(reason));
	return ob_fail(
		e, OB_LIMIT,
		"the pattern \"%s\" gave up on \"%s\" (%s): write it without nested repetition",
		re->shown, subject, reason);
}

void ob_regex_free(struct ob_regex *re)
{
	if (!re)
		return;
	pcre2_code_free(re->code);
	pcre2_match_context_free(re->limits);
	pcre2_general_context_free(re->memory);
	ob_free(re);
}
