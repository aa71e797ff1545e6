/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

TestSuite(config, .init = plan_start, .fini = plan_end);

static void becomes(const char *text, const char *want)
{
	struct ob_text out = { 0 };

	set_config(text);
	ob_text_add(&out, text, strlen(text));
	works(ob_export_config(&plan, &out, e));
	cr_assert_str_eq(out.data, want);
	ob_text_free(&out);
}

Test(config, nothing_to_change)
{
	static const char text[] = "{ \"torch_dtype\" :\"float32\",\"eps\": 1e-06,\n"
				   "\t\"big\": 9223372036854775811, \"quantization\": {\"x\": 1} }";

	add("a.weight", 2, 2, &f32, &f32);
	add("b.weight", 2, 2, &toy4, &toy4);
	plan.quant = &toy4;
	becomes(text, text);
}

Test(config, another_carrier_is_the_same_format)
{
	static const struct ob_encoding toy4_f16 = { .codec = &toy, .dtype = OB_F16, .bits = 4 };
	static const char text[] = "{\"quantization\": {\"bits\": 4, \"more\": true}}";

	add("b.weight", 2, 2, &toy4, &toy4_f16);
	plan.quant = &toy4_f16;
	becomes(text, text);
}

Test(config, dtype_asked_for)
{
	add("a.weight", 2, 2, &f32, &bf16);
	recipe.dtype = OB_BF16;
	becomes("{\"torch_dtype\": \"float32\", \"dtype\": null,\n"
		" \"text_config\": {\"dtype\": \"float32\"},"
		" \"thinker_config\": {\"text_config\": {\"torch_dtype\": \"float16\"}}}",
		"{\"torch_dtype\": \"bfloat16\", \"dtype\": \"bfloat16\",\n"
		" \"text_config\": {\"dtype\": \"bfloat16\"},"
		" \"thinker_config\": {\"text_config\": {\"torch_dtype\": \"bfloat16\"}}}");
}

Test(config, dtype_is_already_so)
{
	static const char text[] = "{\"torch_dtype\": \"bfl\\u006fat16\"}";

	add("a.weight", 2, 2, &bf16, &bf16);
	recipe.dtype = OB_BF16;
	becomes(text, text);
}

Test(config, dtype_without_a_member)
{
	add("a.weight", 2, 2, &f32, &bf16);
	recipe.dtype = OB_BF16;
	becomes("{\n  \"a\": 1\n}\n", "{\n  \"a\": 1,\n  \"torch_dtype\": \"bfloat16\"\n}\n");
}

Test(config, diffusers_names_no_dtype)
{
	static const char text[] = "{\"_class_name\": \"FluxTransformer2DModel\"}";

	add("a.weight", 2, 2, &f32, &bf16);
	recipe.dtype = OB_BF16;
	becomes(text, text);
}

Test(config, dequantized)
{
	add("a.weight", 2, 2, &toy4, &bf16);
	add("b.weight", 64, 2, &f32, &f32);
	becomes("{\n  \"quantization_config\": {\"bits\": 4},\n  \"vocab_size\": 7,\n"
		"  \"text_config\": {\"quantization_config\": {}, \"a\": 1},\n"
		"  \"vision_config\": {\"quantization\": {}},\n  \"compression_config\": null,\n"
		"  \"quantization\": {\"bits\": 4},\n  \"torch_dtype\": \"float16\"\n}",
		"{\n  \"vocab_size\": 7,\n  \"text_config\": {\"a\": 1},\n"
		"  \"vision_config\": {},\n  \"torch_dtype\": \"bfloat16\"\n}");
}

Test(config, dequantized_without_dtype_gets_none)
{
	add("a.weight", 2, 2, &toy4, &bf16);
	becomes("{\"a\": 1}", "{\"a\": 1}");
}

Test(config, dtype_of_most_dequantized_elements)
{
	add("a.weight", 2, 2, &toy4, &f32);
	add("b.weight", 9, 2, &toy4, &bf16);
	add("c.weight", 2, 2, &toy4, &f32);
	becomes("{\"dtype\": \"float16\"}", "{\"dtype\": \"bfloat16\"}");
}

Test(config, quantized_with_overrides)
{
	add("a.weight", 2, 2, &bf16, &toy4);
	add("b.\"x\".weight", 2, 2, &bf16, &toy8);
	add("lm_head", 2, 2, &bf16, &bf16);
	add("norm.weight", 0, 2, &bf16, &bf16);
	plan.quant = &toy4;
	becomes("{\n  \"dtype\": \"bfloat16\"\n}",
		"{\n  \"dtype\": \"bfloat16\",\n"
		"  \"quantization\": {\"bits\": 4,\n    \"b.\\\"x\\\"\": {\"bits\": 8},\n"
		"    \"lm_head\": false},\n"
		"  \"quantization_config\": {\"bits\": 4,\n    \"b.\\\"x\\\"\": {\"bits\": 8},\n"
		"    \"lm_head\": false}\n}");
}

Test(config, quantized_otherwise)
{
	add("a.weight", 2, 2, &toy8, &toy4);
	plan.quant = &toy4;
	becomes("{\"quantization\": {\"bits\": 8}, \"text_config\": {\"quantization_config\": 1}, "
		"\"compression_config\": 1}",
		"{\"quantization\": {\"bits\": 4}, \"text_config\": {}, "
		"\"quantization_config\": {\"bits\": 4}}");
}

Test(config, format_without_configuration)
{
	add("a.weight", 2, 2, &toy4, &other);
	plan.quant = &other;
	becomes("{\"quantization\": {\"bits\": 4}, \"x\": 1}", "{\"x\": 1}");
}

Test(config, two_formats_at_once)
{
	struct ob_text out = { 0 };

	add("a.weight", 2, 2, &bf16, &toy4);
	add("b.weight", 2, 2, &bf16, &other);
	plan.quant = &toy4;
	set_config("{}");
	ob_text_add(&out, "{}", 2);
	fails(ob_export_config(&plan, &out, e), OB_UNSUPPORTED, "b.weight");
	ob_text_free(&out);
}

Test(config, block_of_a_format_that_is_not_known_stays)
{
	static const char text[] = "{\"quantization_config\": {\"quant_method\": \"new\"}}";
	static const struct ob_encoding raw = { .codec = &ob_codec_raw, .dtype = OB_I32 };

	add("a.qweight", 2, 2, &raw, &raw);
	recipe.quant = OB_QUANT_NONE;
	becomes(text, text);
}

Test(config, changes_of_the_edits)
{
	struct ob_config_change change[] = {
		{ "", "tie_word_embeddings", "false" },
		{ "text_config", "vocab_size", "42" },
		{ "absent", "vocab_size", "43" },
	};

	add("embed.weight", 2, 2, &bf16, &bf16);
	add("lm_head.weight", 2, 2, NULL, &bf16);
	edits.config = change;
	edits.n_config = 3;
	becomes("{\"tie_word_embeddings\": true, \"text_config\": {\"vocab_size\": 40}}",
		"{\"tie_word_embeddings\": false, \"text_config\": {\"vocab_size\": 42}}");
}

Test(config, untied_head_of_a_quantized_model)
{
	add("embed.weight", 2, 2, &bf16, &bf16);
	add("a.weight", 2, 2, &toy4, &toy4);
	cr_assert_not(ob_export_requantizes(&plan));
	plan.quant = &toy4;
	add("lm_head.weight", 2, 2, NULL, &bf16);
	cr_assert(ob_export_requantizes(&plan));
}

/* ---- layers left in float, and configurations that are not true ---------------------------- */

static int listing_block(const struct ob_encoding *enc, struct ob_text *out, ob_err *e)
{
	(void)enc;
	ob_text_printf(out, "{\"skipped\": []}");
	return out->failed ? ob_fail_nomem(e, "block") : 0;
}

static const char *const listing_keys[] = { "quantization_config", NULL };
static const struct ob_codec listing = {
	.name = "listing",
	.config_keys = listing_keys,
	.config_block = listing_block,
	.skip_key = "skipped",
};
static const struct ob_encoding listed = { .codec = &listing, .dtype = OB_BF16 };

Test(config, layers_left_in_float_are_listed)
{
	add("model.embed_tokens.weight", 2, 2, &bf16, &bf16);
	add("model.norm.weight", 0, 2, &bf16, &bf16);
	add("a.weight", 2, 2, &bf16, &listed);
	add("b.gate.weight", 2, 2, &bf16, &bf16);
	add("b.bias", 2, 2, &bf16, &bf16);
	add("lm_head.weight", 2, 2, &bf16, &bf16);
	plan.quant = &listed;
	becomes("{\"a\": 1}", "{\"a\": 1, \"quantization_config\": "
			      "{\"skipped\": [\"b.gate\", \"lm_head\"]}}");
}

Test(config, a_tied_head_is_listed_too)
{
	add("model.embed_tokens.weight", 2, 2, &bf16, &bf16);
	add("a.weight", 2, 2, &bf16, &listed);
	plan.quant = &listed;
	becomes("{\"tie_word_embeddings\": true}",
		"{\"tie_word_embeddings\": true, \"quantization_config\": "
		"{\"skipped\": [\"lm_head\"]}}");
}

Test(config, two_formats_that_no_block_can_name)
{
	struct ob_text out = { 0 };

	add("a.weight", 2, 2, &bf16, &listed);
	add("b.weight", 2, 2, &bf16, &toy4);
	plan.quant = &listed;
	set_config("{}");
	ob_text_add(&out, "{}", 2);
	fails(ob_export_config(&plan, &out, e), OB_UNSUPPORTED, "b.weight");
	ob_text_free(&out);
}

Test(config, what_is_not_true_of_the_tensors_goes)
{
	add("a.weight", 2, 2, &bf16, &bf16);
	plan.config_says = "toy";
	becomes("{\"quantization_config\": {\"bits\": 4}, \"a\": 1}", "{\"a\": 1}");
}
