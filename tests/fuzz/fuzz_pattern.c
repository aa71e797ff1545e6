/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of regular expressions and of PEFT's patterns. The input is a JSON object of patterns
 * and numbers, a line "--", and names of modules, a line each. Whatever the patterns are, a search
 * ends soon: what it finds is a number of the object, the same every time.
 */
#include <math.h>
#include <stdio.h>

#include "adapter/peft.h"
#include "fuzz.h"

#define MAX_NAMES 8

static bool is_value(const struct ob_jv *object, double x)
{
	double value;

	for (const struct ob_jv *v = ob_json_first(object); v; v = ob_json_next(v))
		if (ob_json_num(v, &value) && (value == x || (isnan(value) && isnan(x))))
			return true;
	return false;
}

/* The value of every name: found[i] is left alone where there is none. */
static int find_all(const struct ob_jv *object, const char *names, double *found, ob_err *e)
{
	struct ob_peft_patterns p;
	char name[256];
	int rc;

	rc = ob_peft_patterns_new(&p, object, "fuzz", e);
	for (unsigned i = 0; rc == 0 && *names && i < MAX_NAMES; i++) {
		size_t n = strcspn(names, "\n");

		snprintf(name, sizeof(name), "%.*s", (int)(n < 256 ? n : 255), names);
		names += n + (names[n] != '\0');
		rc = ob_peft_patterns_find(&p, name, &found[i], e);
	}
	ob_peft_patterns_free(&p);
	return rc;
}

static void fuzz_data(const char *data, size_t size)
{
	const char *mark = memmem(data, size, "\n--\n", 4);
	double found[MAX_NAMES], again[MAX_NAMES];
	char names[1024] = "";
	struct ob_jv *object;
	ob_err e = { 0 };
	int rc;

	for (unsigned i = 0; i < MAX_NAMES; i++)
		found[i] = again[i] = -INFINITY;
	if (!mark || ob_json_parse(&object, data, (size_t)(mark - data), "fuzz", &e) != 0)
		return;
	size -= (size_t)(mark + 4 - data);
	memcpy(names, mark + 4, size < sizeof(names) ? size : sizeof(names) - 1);
	fuzz_begin();
	rc = find_all(object, names, found, &e);
	if (fuzz_end(rc, &e) && rc == 0) {
		fuzz_require(find_all(object, names, again, &e) == 0);
		for (unsigned i = 0; i < MAX_NAMES; i++) {
			fuzz_require(found[i] == again[i] || (isnan(found[i]) && isnan(again[i])));
			fuzz_require(found[i] == -INFINITY || is_value(object, found[i]));
		}
	}
	ob_json_free(object);
}
