/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "../base/oom.h"
#include "../model/outcome.h"
#include "adapter/peft.h"

/* The value that `json` gives a module, -1 when nothing matches. */
static double find(const char *json, const char *module)
{
	struct ob_peft_patterns p;
	struct ob_jv *root;
	double x = -1;

	works(ob_json_parse(&root, json, strlen(json), "test", e));
	works(ob_peft_patterns_new(&p, root, "test", e));
	works(ob_peft_patterns_find(&p, module, &x, e));
	ob_peft_patterns_free(&p);
	ob_json_free(root);
	return x;
}

#define Q "model.layers.0.self_attn.q_proj"

Test(peft_pattern, what_matches)
{
	static const struct {
		const char *pattern, *module;
		bool hit;
	} rows[] = {
		{ "q_proj", Q, true },
		{ "q_proj", "q_proj", true },
		{ "proj", Q, false }, /* components are whole */
		{ "q_proj", Q "x", false },
		{ "q_proj", Q ".x", false },
		{ "self_attn.q_proj", Q, true },
		{ "self_attn.q.proj", Q, true }, /* '.' is any character */
		{ "attn.q_proj", Q, false },
		{ "^model.layers.0.self_attn.q_proj", Q, true },
		{ "^layers.0.self_attn.q_proj", Q, false },
		{ "^model.layers.0.self_attn.q_proj", "x." Q, false },
		{ "q_proj|v_proj", Q, true },
		{ "v_proj|k_proj", Q, false },
		{ "a|self_attn\\\\.[qv]_proj", Q, true },
		{ "layers\\\\.\\\\d+\\\\.self_attn\\\\..*", Q, true },
		{ "layers\\\\.[1-9]\\\\.self_attn\\\\..*", Q, false },
		{ "(?:model|x)\\\\..*?q_proj", Q, true },
		{ "lay.*", Q, true },
		{ "(l)ayers\\\\.0\\\\.self_attn\\\\.q_proj|\\\\2x", Q, true },
		{ "q_proj$", Q, true },
		{ "", Q, false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char json[256];

		snprintf(json, sizeof(json), "{\"%s\":7}", rows[i].pattern);
		cr_expect_eq(find(json, rows[i].module), rows[i].hit ? 7 : -1, "%s on %s",
			     rows[i].pattern, rows[i].module);
	}
}

/* File order decides, not length and not the alphabet. */
Test(peft_pattern, first_in_the_file)
{
	cr_assert_eq(find("{\"q_proj\":5,\"^model.layers.0.self_attn.q_proj\":3}", Q), 5);
	cr_assert_eq(find("{\"^model.layers.0.self_attn.q_proj\":3,\"q_proj\":5}", Q), 3);
	cr_assert_eq(find("{\"k_proj\":1,\".*\":6.5,\"q_proj\":5}", Q), 6.5);
	cr_assert_eq(find("{}", Q), -1);
	cr_assert_eq(find("null", Q), -1);
}

/* A name that does not match itself as a pattern is still looked up as it is. */
Test(peft_pattern, the_module_itself)
{
	cr_assert_eq(find("{\"a+b\":4}", "a+b"), 4);
	cr_assert_eq(find("{\"a+b\":4}", "x.a+b"), -1);
	cr_assert_eq(find("{\"a+b\":4}", "x.aab"), 4);
}

static int open_patterns(const char *json, ob_err *e)
{
	struct ob_peft_patterns p = { 0 };
	struct ob_jv *root;
	int rc;

	if (ob_json_parse(&root, json, strlen(json), "test", e) != 0)
		return 0;
	rc = ob_peft_patterns_new(&p, root, "lora/adapter_config.json: \"rank_pattern\"", e);
	ob_peft_patterns_free(&p);
	ob_json_free(root);
	return rc;
}

Test(peft_pattern, refusals)
{
	fails(open_patterns("{\"a(\":1}", e), OB_CORRUPT, "rank_pattern");
	fails(open_patterns("{\"a\":1,\"b\":[true,false]}", e), OB_CORRUPT, "\"b\"");
	fails(open_patterns("[1]", e), OB_CORRUPT, "object");
}

static int step(void *ctx, ob_err *e)
{
	struct ob_peft_patterns p;
	double x = -1;

	if (ob_peft_patterns_new(&p, ctx, "test", e) != 0)
		return -1;
	if (ob_peft_patterns_find(&p, Q, &x, e) != 0) {
		ob_peft_patterns_free(&p);
		return -1;
	}
	ob_peft_patterns_free(&p);
	cr_assert_eq(x, 2);
	return 0;
}

Test(peft_pattern, out_of_memory)
{
	static const char json[] = "{\"v_proj\":1,\"q_proj\":2}";
	struct ob_jv *root;

	works(ob_json_parse(&root, json, strlen(json), "test", e));
	cr_assert_gt(oom_sweep(step, root), 4);
	ob_json_free(root);
}
