/* SPDX-License-Identifier: Apache-2.0 */
/* Small adapters whose result is known by heart, from the files to the numbers. */
#include "fixture.h"
#include "kernels/gemm.h"

static float *scratch;

static void init(void)
{
	scratch_make();
	options = (struct ob_adapter_options){ 0 };
	works(ob_gemm_init(e));
	scratch = malloc(ob_edit_scratch_floats() * sizeof(float));
}

static void fini(void)
{
	free(scratch);
	adapter_fini();
}

TestSuite(conformance, .init = init, .fini = fini);

/* The tensor after its edits, from `before` (which a replacement does not look at). */
static void gives(const char *name, float before, size_t n, const float *want)
{
	const struct ob_tensor_edits *of = edits_of(name);
	float w[64];

	cr_assert_eq(of->rows * of->cols, n);
	for (size_t i = 0; i < n; i++)
		w[i] = before;
	ob_edits_apply(of->edit, of->n,
		       (struct ob_rect){ 0, 0, (uint32_t)of->rows, (uint32_t)of->cols }, false, w,
		       (size_t)of->cols, scratch);
	for (size_t i = 0; i < n; i++)
		cr_expect_eq(w[i], want[i], "%s[%zu]: %g, expected %g", name, i, (double)w[i],
			     (double)want[i]);
}

#define GIVES(name, before, ...)                                              \
	gives(name, before, sizeof((float[]){ __VA_ARGS__ }) / sizeof(float), \
	      (const float[]){ __VA_ARGS__ })
#define LORA(more) "{\"peft_type\":\"LORA\"" more "}"

Test(conformance, patterns_and_rslora)
{
	put_model(NULL, "model.layers.0.self_attn.q_proj.weight[2,2] "
			"model.layers.1.self_attn.q_proj.weight[2,2]");
	put_peft("a",
		 LORA(",\"r\":4,\"lora_alpha\":8,\"use_rslora\":true,"
		      "\"rank_pattern\":{\"q_proj\":1},\"alpha_pattern\":{"
		      "\"^model.layers.0.self_attn.q_proj\":3,\"q_proj\":5}"),
		 "model.layers.0.self_attn.q_proj.lora_A.weight[1,2]=1;2 "
		 "model.layers.0.self_attn.q_proj.lora_B.weight[2,1]=1;0 "
		 "model.layers.1.self_attn.q_proj.lora_A.weight[1,2]=1;2 "
		 "model.layers.1.self_attn.q_proj.lora_B.weight[2,1]=1;0");
	works(resolve("a", e));
	GIVES("model.layers.0.self_attn.q_proj.weight", 0, 3, 6, 0, 0);
	GIVES("model.layers.1.self_attn.q_proj.weight", 0, 5, 10, 0, 0);
}

/* The same update in PEFT's and in MLX's order. */
Test(conformance, embedding)
{
	put_model(NULL, "model.embed_tokens.weight[3,2] lm_head.weight[3,2]");
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":0.5"),
		 "model.embed_tokens.lora_embedding_A[1,3]=1;2;3 "
		 "model.embed_tokens.lora_embedding_B[2,1]=10;20");
	works(resolve("a", e));
	GIVES("model.embed_tokens.weight", 0, 5, 10, 10, 20, 15, 30);
	put_folder("m");
	put_text("m/adapter_config.json", "{\"lora_parameters\":{\"scale\":0.5}}");
	put_tensors("m/adapters.safetensors", "model.embed_tokens.lora_a[3,1]=1;2;3 "
					      "model.embed_tokens.lora_b[1,2]=10;20");
	works(resolve("m", e));
	GIVES("model.embed_tokens.weight", 0, 5, 10, 10, 20, 15, 30);
}

Test(conformance, square_conv1d)
{
	static const char factors[] = "h.0.c.lora_A.weight[1,2]=1;0 h.0.c.lora_B.weight[2,1]=0;1";

	put_model(NULL, "h.0.c.weight[2,2]");
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":1,\"fan_in_fan_out\":true"), factors);
	works(resolve("a", e));
	GIVES("h.0.c.weight", 0, 0, 1, 0, 0);
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":1,\"fan_in_fan_out\":false"), factors);
	works(resolve("a", e));
	GIVES("h.0.c.weight", 0, 0, 0, 1, 0);
}

Test(conformance, mlx_linear)
{
	put_model(NULL, "q.weight[3,2]");
	put_folder("m");
	put_text("m/adapter_config.json", "{\"lora_parameters\":{\"scale\":2}}");
	put_tensors("m/adapters.safetensors", "q.lora_a[2,1]=1;10 q.lora_b[1,3]=1;2;3");
	works(resolve("m", e));
	GIVES("q.weight", 1, 3, 21, 5, 41, 7, 61);
}

Test(conformance, convolution)
{
	put_model(NULL, "c.weight[2,1,1,3]");
	put_peft("a", LORA(",\"r\":2,\"lora_alpha\":4"),
		 "c.lora_A.weight[2,1,1,3]=1;2;3;4;5;6 c.lora_B.weight[2,2,1,1]=1;0;0;1");
	works(resolve("a", e));
	GIVES("c.weight", 0, 2, 4, 6, 8, 10, 12);
}

Test(conformance, tied_head)
{
	put_model("{\"model_type\":\"llama\",\"tie_word_embeddings\":true}",
		  "model.embed_tokens.weight[2,1]");
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":1"),
		 "lm_head.lora_A.weight[1,1]=1 lm_head.lora_B.weight[2,1]=10;0");
	works(resolve("a", e));
	GIVES("lm_head.weight", 1, 11, 1);
	GIVES("model.embed_tokens.weight", 1, 1, 1);
}

Test(conformance, token_rows)
{
	put_model(NULL, "model.embed_tokens.weight[3,1]");
	put_peft("a", LORA(",\"trainable_token_indices\":[2,0]"),
		 "model.embed_tokens.token_adapter.trainable_tokens_delta[2,1]=30;10");
	works(resolve("a", e));
	GIVES("model.embed_tokens.weight", 2, 10, 2, 30);
}

Test(conformance, resized_vocabulary)
{
	put_model("{\"model_type\":\"llama\",\"tie_word_embeddings\":true}",
		  "model.embed_tokens.weight[2,1]");
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":1,\"ensure_weight_tying\":true"),
		 "model.embed_tokens.base_layer.weight[3,1]=1;2;3 "
		 "model.embed_tokens.lora_embedding_A[1,3]=1 "
		 "model.embed_tokens.lora_embedding_B[1,1]=1");
	works(resolve("a", e));
	GIVES("model.embed_tokens.weight", 9, 2, 3, 4);
}

Test(conformance, biases)
{
	put_model(NULL, "q.weight[2,1] q.bias[2] v.bias[2]");
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":3"),
		 "q.lora_A.weight[1,1]=1 q.lora_B.weight[2,1]=1 q.lora_B.bias[2]=1;2 "
		 "v.bias[2]=7;8");
	works(resolve("a", e));
	GIVES("q.bias", 1, 4, 7);
	GIVES("v.bias", 1, 7, 8);
}

Test(conformance, two_adapters)
{
	static const double scale[] = { 1, -0.5 };

	put_model(NULL, "q.weight[1,2]");
	put_peft("a", LORA(",\"r\":1,\"lora_alpha\":1"),
		 "q.lora_A.weight[1,2]=1;2 q.lora_B.weight[1,1]=4");
	put_peft("b", LORA(",\"r\":1,\"lora_alpha\":1"),
		 "q.lora_A.weight[1,2]=3;0 q.lora_B.weight[1,1]=2");
	works(resolve_on("model", "a b", scale, e));
	GIVES("q.weight", 10, 11, 18);
}
