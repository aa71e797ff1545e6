/* SPDX-License-Identifier: Apache-2.0 */
#include "../model/outcome.h"
#include "adapter/peft.h"
#include "base/alloc.h"

static const struct {
	const char *key;
	enum ob_peft_role role;
	const char *path, *param, *adapter;
} rows[] = {
	{ "a.b.lora_A.weight", OB_PEFT_A, "a.b", NULL, NULL },
	{ "a.b.lora_B.weight", OB_PEFT_B, "a.b", NULL, NULL },
	{ "a.b.lora_A", OB_PEFT_A, "a.b", NULL, NULL },
	{ "lora_A.weight", OB_PEFT_A, "", NULL, NULL },
	{ "a.lora_A.default.weight", OB_PEFT_A, "a", NULL, "default" },
	{ "a.lora_B.style", OB_PEFT_B, "a", NULL, "style" },
	{ "a.lora_A.weight.weight", OB_PEFT_A, "a", NULL, "weight" },
	{ "a.lora_B.bias", OB_PEFT_BIAS, "a", NULL, NULL },
	{ "a.lora_B.x.bias", OB_PEFT_BIAS, "a", NULL, "x" },
	{ "a.lora_A.bias", OB_PEFT_UNKNOWN, "a", NULL, NULL },
	{ "a.lora_A.x.y", OB_PEFT_UNKNOWN, "a", NULL, "x" },
	{ "a.lora_A.x.y.weight", OB_PEFT_UNKNOWN, "a", NULL, NULL },
	{ "a.lora_embedding_A", OB_PEFT_EMBEDDING_A, "a", NULL, NULL },
	{ "a.lora_embedding_B.default", OB_PEFT_EMBEDDING_B, "a", NULL, "default" },
	{ "a.alpha", OB_PEFT_ALPHA, "a", NULL, NULL },
	{ "base_model.model.a.base_layer.weight", OB_PEFT_REPLACE, "base_model.model.a", "weight",
	  NULL },
	{ "a.base_layer.bias", OB_PEFT_REPLACE, "a", "bias", NULL },
	{ "a.bias", OB_PEFT_REPLACE, "a", "bias", NULL },
	{ "cls_token", OB_PEFT_REPLACE, "", "cls_token", NULL },
	{ "a.base_layer.out_proj.lora_A.weight", OB_PEFT_A, "a.out_proj", NULL, NULL },
	{ "m.experts.base_layer.lora_A.weight", OB_PEFT_NESTED, NULL, NULL, NULL },
	{ "a.token_adapter.trainable_tokens_delta", OB_PEFT_ROWS, "a", NULL, NULL },
	{ "a.trainable_tokens_delta.default", OB_PEFT_ROWS, "a", NULL, "default" },
	{ "a.token_adapter.base_layer.weight", OB_PEFT_REPLACE, "a", "weight", NULL },
	{ "c.modules_to_save.default.weight", OB_PEFT_REPLACE, "c", "weight", NULL },
	{ "c.modules_to_save.bias", OB_PEFT_REPLACE, "c", "bias", NULL },
	{ "c.modules_to_save.default.dense.weight", OB_PEFT_REPLACE, "c.dense", "weight", NULL },
	{ "c.modules_to_save.dense.weight", OB_PEFT_REPLACE, "c.dense", "weight", NULL },
	{ "c.original_module.weight", OB_PEFT_STALE, NULL, NULL, NULL },
	/* Names that only look like roles. */
	{ "a.lora_Ab.weight", OB_PEFT_REPLACE, "a.lora_Ab", "weight", NULL },
	{ "a.my_base_layer.weight", OB_PEFT_REPLACE, "a.my_base_layer", "weight", NULL },
	{ "", OB_PEFT_REPLACE, "", "", NULL },
	{ "..", OB_PEFT_REPLACE, NULL, "", NULL },
};

static bool same(const char *want, const char *is)
{
	return !want || (is && !strcmp(want, is));
}

Test(peft_key, table)
{
	struct ob_arena arena = { 0 };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ob_peft_key k;

		works(ob_peft_key_parse(rows[i].key, &arena, &k, e));
		cr_expect_eq(k.role, rows[i].role, "%s: role %d", rows[i].key, (int)k.role);
		cr_expect(same(rows[i].path, k.path), "%s: path %s", rows[i].key, k.path);
		cr_expect(same(rows[i].param, k.param), "%s: param %s", rows[i].key, k.param);
		cr_expect(same(rows[i].adapter, k.adapter) && !k.adapter == !rows[i].adapter,
			  "%s: adapter %s", rows[i].key, k.adapter ? k.adapter : "none");
	}
	ob_arena_free(&arena);
}
