/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

static struct ob_model m;

static void clear(void)
{
	ob_map_free(&m.by_name);
	ob_json_free(m.config);
	m.config = NULL;
}

TestSuite(family, .fini = clear);

/* A model of these tensors; config NULL: none. The list of names ends with NULL. */
static void model(const char *config, ...)
{
	const char *name;
	va_list ap;

	clear();
	if (config)
		works(ob_json_parse(&m.config, config, strlen(config), "config", e));
	va_start(ap, config);
	while ((name = va_arg(ap, const char *)) != NULL)
		works(ob_map_add(&m.by_name, name, strlen(name), 0, e));
	va_end(ap);
}

static void vocabulary(const char *want_embedding, const char *want_head, bool tied)
{
	const char *embedding, *head;

	ob_family_embeddings(&m, &embedding, &head);
	if (want_embedding)
		cr_assert_str_eq(embedding, want_embedding);
	else
		cr_assert_null(embedding);
	if (want_head)
		cr_assert_str_eq(head, want_head);
	else
		cr_assert_null(head);
	cr_assert_eq(ob_family_tied(&m), tied);
}

Test(family, storage_of_projections)
{
	model("{\"model_type\": \"gpt2\"}", NULL);
	cr_assert(ob_family_conv1d(&m) && !ob_family_known(&m));
	model("{\"model_type\": \"llama\"}", NULL);
	cr_assert(!ob_family_conv1d(&m) && ob_family_known(&m));
	model("{\"_class_name\": \"FluxTransformer2DModel\"}", NULL);
	cr_assert(!ob_family_conv1d(&m) && ob_family_known(&m));
	model("{\"model_type\": \"toy\"}", NULL);
	cr_assert(!ob_family_conv1d(&m) && !ob_family_known(&m));
	model("{\"model_type\": 7}", NULL);
	cr_assert(!ob_family_conv1d(&m) && !ob_family_known(&m));
	model(NULL, NULL);
	cr_assert(!ob_family_conv1d(&m) && !ob_family_known(&m));
}

Test(family, heads_of_their_own)
{
	model("{\"tie_word_embeddings\": false}", "model.embed_tokens.weight", "lm_head.weight",
	      NULL);
	vocabulary("model.embed_tokens.weight", "lm_head.weight", false);
	model(NULL, "language_model.model.embed_tokens.weight", "language_model.lm_head.weight",
	      NULL);
	vocabulary("language_model.model.embed_tokens.weight", "language_model.lm_head.weight",
		   false);
	model("{\"model_type\": \"gpt_neox\"}", "gpt_neox.embed_in.weight", "embed_out.weight",
	      NULL);
	vocabulary("gpt_neox.embed_in.weight", "embed_out.weight", false);
}

Test(family, tied_heads)
{
	model("{\"tie_word_embeddings\": true}", "model.embed_tokens.weight", "lm_head.weight",
	      NULL);
	vocabulary("model.embed_tokens.weight", "lm_head.weight", true);
	model("{\"text_config\": {\"tie_word_embeddings\": true}}",
	      "model.language_model.embed_tokens.weight", "lm_head.weight", NULL);
	vocabulary("model.language_model.embed_tokens.weight", "lm_head.weight", true);
	model("{\"architectures\": [\"GPT2LMHeadModel\"]}", "transformer.wte.weight", NULL);
	vocabulary("transformer.wte.weight", "lm_head.weight", true);
	model("{\"model_type\": \"whisper\"}", "model.decoder.embed_tokens.weight", NULL);
	vocabulary("model.decoder.embed_tokens.weight", "proj_out.weight", true);
	model("{\"model_type\": \"opt\"}", "model.decoder.embed_tokens.weight", NULL);
	vocabulary("model.decoder.embed_tokens.weight", "lm_head.weight", true);
	model("{\"tie_word_embeddings\": true}", "tokens", NULL);
	vocabulary(NULL, NULL, true);
}

Test(family, models_without_a_head)
{
	model("{\"tie_word_embeddings\": true, \"architectures\": [\"Qwen3Model\"]}",
	      "embed_tokens.weight", NULL);
	vocabulary("embed_tokens.weight", NULL, false);
	model("{\"architectures\": [\"LlamaForSequenceClassification\"]}",
	      "model.embed_tokens.weight", "score.weight", NULL);
	vocabulary("model.embed_tokens.weight", NULL, false);
	model("{\"architectures\": [\"T5EncoderModel\"]}", "shared.weight", NULL);
	vocabulary("shared.weight", NULL, false);
	model(NULL, "text_model.embeddings.token_embedding.weight", NULL);
	vocabulary("text_model.embeddings.token_embedding.weight", NULL, false);
	model(NULL, "blocks.0.weight", NULL);
	vocabulary(NULL, NULL, false);
}
