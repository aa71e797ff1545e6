/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rank_pattern and alpha_pattern. PEFT's rule (peft.utils.other, get_pattern_key): the first
 * pattern p in file order for which Python's re.match(r"(.*\.)?(p)$", module) succeeds; when there
 * is none, the entry whose key is the module itself.
 */
#include <string.h>

#include "adapter/peft.h"

static int compile(struct ob_peft_patterns *p, const struct ob_jv *entry, ob_err *e)
{
	/* The groups of PEFT, so that a numbered reference in a pattern means the same. */
	char *text = NULL;
	size_t n = strlen(ob_json_key(entry)) + sizeof("^(.*\\.)?()$");
	double value;
	int rc;

	if (!ob_json_num(entry, &value))
		return ob_fail(e, OB_CORRUPT, "%s: the value of \"%s\" is no number", p->what,
			       ob_printable(ob_json_key(entry), (char[256]){ 0 }, 256));
	text = ob_alloc(n);
	if (!text)
		return ob_fail_nomem(e, "patterns");
	strcpy(text, "^(.*\\.)?(");
	strcat(text, ob_json_key(entry));
	strcat(text, ")$");
	rc = ob_regex_new(&p->re[p->n], text, p->what, e);
	ob_free(text);
	if (rc == 0)
		p->n++;
	return rc;
}

int ob_peft_patterns_new(struct ob_peft_patterns *p, const struct ob_jv *object, const char *what,
			 ob_err *e)
{
	size_t n = 0;

	*p = (struct ob_peft_patterns){ .object = object, .what = what };
	if (!object || ob_json_type(object) == OB_JSON_NULL)
		return 0;
	if (ob_json_type(object) != OB_JSON_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s is no JSON object", what);
	for (const struct ob_jv *v = ob_json_first(object); v; v = ob_json_next(v))
		n++;
	p->re = ob_calloc(n, sizeof(struct ob_regex *));
	if (!p->re)
		return ob_fail_nomem(e, "patterns");
	for (const struct ob_jv *v = ob_json_first(object); v; v = ob_json_next(v))
		if (compile(p, v, e) != 0) {
			ob_peft_patterns_free(p);
			return -1;
		}
	return 0;
}

void ob_peft_patterns_free(struct ob_peft_patterns *p)
{
	while (p->n)
		ob_regex_free(p->re[--p->n]);
	ob_free(p->re);
	p->re = NULL;
}

int ob_peft_patterns_find(const struct ob_peft_patterns *p, const char *module, double *value,
			  ob_err *e)
{
	const struct ob_jv *entry;
	size_t i = 0;

	if (!p->n)
		return 0;
	for (entry = ob_json_first(p->object); entry; entry = ob_json_next(entry)) {
		int hit = ob_regex_search(p->re[i++], module, e);

		if (hit < 0)
			return -1;
		if (hit)
			break;
	}
	if (!entry)
		entry = ob_json_get(p->object, module);
	ob_json_num(entry, value);
	return 0;
}
