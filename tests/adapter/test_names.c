/* SPDX-License-Identifier: Apache-2.0 */
#include "../model/outcome.h"
#include "adapter/names.h"

Test(names, components)
{
	const char *path = "a.lora_A.b.lora_A.weight";

	cr_assert_eq(ob_name_component(path, "lora_A"), path + 11);
	cr_assert_eq(ob_name_component(path, "weight"), path + 18);
	cr_assert_eq(ob_name_component(path, "a"), path);
	cr_assert_null(ob_name_component(path, "lora"));
	cr_assert_null(ob_name_component("", "a"));
}

Test(names, wrappers)
{
	static const char *const rows[][2] = {
		{ "base_model.model.model.layers.0.q", "model.layers.0.q" },
		{ "base_model.model.base_model.model.model.x", "model.x" },
		{ "base_model.x", "x" },
		{ "module.base_model.model.x", "x" },
		{ "_orig_mod.model.x", "model.x" },
		{ "base_model.model._orig_mod.model.x", "model.x" },
		{ "_orig_mod.module.x", "x" },
		{ "model._orig_mod.layers.0._checkpoint_wrapped_module.q", "model.layers.0.q" },
		{ "model.layers.0._fsdp_wrapped_module.q", "model.layers.0.q" },
		{ "model.module.x", "model.module.x" }, /* not in front */
		{ "modules.x", "modules.x" },
		{ "base_model.model", "model" },
		{ "base_model", "base_model" },
		{ "a.._orig_mod", "a." },
		{ "", "" },
	};
	struct ob_arena arena = { 0 };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		works(strcmp(ob_name_stripped(rows[i][0], &arena, e), rows[i][1])
			      ? ob_fail(e, OB_INTERNAL, "%s", rows[i][0])
			      : 0);
	cr_assert_str_eq(ob_name_unwrapped("base_model.model.module.x"), "module.x");
	cr_assert_str_eq(ob_name_unwrapped("module.x"), "module.x");
	ob_arena_free(&arena);
}

Test(names, parts)
{
	static const struct {
		const char *module;
		enum ob_name_part part;
	} rows[] = {
		{ "model.layers.0.self_attn.q_proj", OB_PART_TEXT },
		{ "lm_head", OB_PART_HEAD },
		{ "language_model.lm_head", OB_PART_HEAD },
		{ "score", OB_PART_HEAD },
		{ "model.visual.blocks.0.attn.qkv", OB_PART_TOWER },
		{ "vision_tower.encoder.layers.0.q_proj", OB_PART_TOWER },
		{ "model.model.vision_tower.x", OB_PART_TOWER },
		{ "multi_modal_projector.linear_1", OB_PART_TOWER },
		{ "model.layers.0.visual", OB_PART_TEXT }, /* too deep for a tower */
		{ "", OB_PART_TEXT },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		cr_expect_eq(ob_name_part(rows[i].module), rows[i].part, "%s", rows[i].module);
}

/* Some rule of the part turns one into the other. */
static bool leads(enum ob_name_part part, const char *from, const char *to)
{
	struct ob_name_rule rule;
	char buf[256];

	for (unsigned i = 0; ob_name_rule(part, i, &rule); i++) {
		const char *s = ob_name_apply(&rule, from, from, buf);

		if (s && !strcmp(s, to))
			return true;
	}
	return false;
}

Test(names, aliases)
{
	static const char *const text[] = {
		"model.layers.0.q",
		"layers.0.q",
		"language_model.model.layers.0.q",
		"model.language_model.layers.0.q",
		"model.text_model.layers.0.q",
		"model.model.layers.0.q",
	};

	for (size_t i = 0; i < 6; i++)
		for (size_t j = 0; j < 6; j++)
			cr_expect(leads(OB_PART_TEXT, text[i], text[j]), "%s to %s", text[i],
				  text[j]);
	cr_assert(leads(OB_PART_TEXT, "h.0.attn", "transformer.h.0.attn"));
	cr_assert(leads(OB_PART_TEXT, "bert.encoder.x", "encoder.x"));
	cr_assert(leads(OB_PART_TEXT, "model.layers.0.q", "thinker.model.layers.0.q"));
	cr_assert(!leads(OB_PART_TEXT, "thinker.model.layers.0.q", "talker.model.layers.0.q"));
	cr_assert(!leads(OB_PART_TEXT, "layers.0.q", "vision_tower.layers.0.q"));
	cr_assert(leads(OB_PART_HEAD, "lm_head", "language_model.lm_head"));
	cr_assert(leads(OB_PART_TOWER, "model.visual.x", "visual.x"));
	cr_assert(!leads(OB_PART_TOWER, "visual.x", "language_model.model.visual.x"));
}

Test(names, names_as_they_are_come_first)
{
	struct ob_name_rule rule;
	char buf[64];

	cr_assert(ob_name_rule(OB_PART_TEXT, 0, &rule));
	cr_assert_str_eq(ob_name_apply(&rule, "base_model.model.module.x", "x", buf),
			 "base_model.model.module.x");
	cr_assert(ob_name_rule(OB_PART_TEXT, 1, &rule));
	cr_assert_str_eq(ob_name_apply(&rule, "base_model.model.module.x", "x", buf), "module.x");
	cr_assert(ob_name_rule(OB_PART_TEXT, 2, &rule));
	cr_assert_str_eq(ob_name_apply(&rule, "base_model.model.module.x", "x", buf), "x");
}

Test(names, nearest)
{
	struct ob_tensor t[] = {
		{ .name = "model.layers.0.self_attn.q_proj.weight" },
		{ .name = "model.layers.1.self_attn.q_proj.weight" },
		{ .name = "model.layers.1.mlp.up_proj.weight" },
		{ .name = "lm_head.weight" },
	};
	struct ob_model m = { .tensor = t, .n_tensors = 4 };
	struct ob_model empty = { 0 };
	char longest[4096];

	cr_assert_eq(ob_name_nearest(&m, "model.layers.1.mlp.gate_proj", "weight"), t[2].name);
	cr_assert_eq(ob_name_nearest(&m, "layers.1.self_attn.q_proj", "weight"), t[1].name);
	cr_assert_eq(ob_name_nearest(&m, "head", "weight"), t[3].name);
	cr_assert_null(ob_name_nearest(&empty, "a", "weight"));
	memset(longest, '.', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_not_null(ob_name_nearest(&m, longest, "weight"));
}
