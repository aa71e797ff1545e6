/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of architectures, as tables. Names are those of transformers' checkpoints. */
#include <string.h>

#include "model/internal.h"

/* model_type of config.json: projections are transformers' Conv1D, weights stored [in, out]. */
static const char *const conv1d_types[] = {
	"gpt2", "openai-gpt", "imagegpt", "decision_transformer", NULL,
};

/* Projections are nn.Linear, weights stored [out, in]. */
static const char *const linear_types[] = {
	"afmoe",
	"albert",
	"apertus",
	"arcee",
	"aria",
	"aya_vision",
	"baichuan",
	"bamba",
	"bart",
	"beit",
	"bert",
	"bitnet",
	"blenderbot",
	"blip",
	"blip-2",
	"bloom",
	"camembert",
	"chameleon",
	"chatglm",
	"clip",
	"clip_text_model",
	"clip_vision_model",
	"codegen",
	"cohere",
	"cohere2",
	"dbrx",
	"deberta",
	"deberta-v2",
	"deepseek",
	"deepseek_v2",
	"deepseek_v3",
	"deit",
	"dinov2",
	"distilbert",
	"dots1",
	"electra",
	"ernie4_5",
	"ernie4_5_moe",
	"exaone",
	"exaone4",
	"falcon",
	"falcon_h1",
	"falcon_mamba",
	"florence2",
	"gemma",
	"gemma2",
	"gemma3",
	"gemma3_text",
	"gemma3n",
	"gemma3n_text",
	"glm",
	"glm4",
	"glm4_moe",
	"glm4v",
	"glm4v_moe",
	"gpt_bigcode",
	"gpt_neo",
	"gpt_neox",
	"gpt_oss",
	"gptj",
	"granite",
	"granitemoe",
	"granitemoehybrid",
	"granitemoeshared",
	"hubert",
	"hunyuan_v1_dense",
	"hunyuan_v1_moe",
	"idefics",
	"idefics2",
	"idefics3",
	"internlm",
	"internlm2",
	"internvl",
	"jamba",
	"jetmoe",
	"kimi_k2",
	"kimi_linear",
	"lfm2",
	"lfm2_moe",
	"llama",
	"llama4",
	"llama4_text",
	"llava",
	"llava_next",
	"llava_onevision",
	"longcat_flash",
	"mamba",
	"mamba2",
	"marian",
	"mbart",
	"mimo",
	"minicpm",
	"minicpm3",
	"minicpmv",
	"minimax",
	"minimax_m2",
	"ministral",
	"mistral",
	"mistral3",
	"mixtral",
	"mllama",
	"modernbert",
	"moonshine",
	"mpnet",
	"mpt",
	"mt5",
	"nemotron",
	"nemotron_h",
	"olmo",
	"olmo2",
	"olmo3",
	"olmoe",
	"opt",
	"ovis2",
	"paligemma",
	"pegasus",
	"persimmon",
	"phi",
	"phi3",
	"phi3_v",
	"phi4_multimodal",
	"phimoe",
	"pixtral",
	"plamo2",
	"qwen",
	"qwen2",
	"qwen2_5_omni",
	"qwen2_5_vl",
	"qwen2_audio",
	"qwen2_moe",
	"qwen2_vl",
	"qwen3",
	"qwen3_moe",
	"qwen3_next",
	"qwen3_omni_moe",
	"qwen3_vl",
	"qwen3_vl_moe",
	"recurrent_gemma",
	"resnet",
	"roberta",
	"seed_oss",
	"siglip",
	"siglip_text_model",
	"siglip_vision_model",
	"smollm3",
	"smolvlm",
	"stablelm",
	"starcoder2",
	"swin",
	"t5",
	"t5gemma",
	"umt5",
	"vaultgemma",
	"vit",
	"voxtral",
	"wav2vec2",
	"wavlm",
	"whisper",
	"xglm",
	"xlm-roberta",
	"zamba",
	"zamba2",
	NULL,
};

/* The token embedding and the output head that belongs to it; no head: an encoder. */
static const struct {
	const char *embedding, *head;
	const char *type; /* only for this model_type */
} vocabularies[] = {
	{ "model.decoder.embed_tokens.weight", "proj_out.weight", "whisper" },
	{ "model.embed_tokens.weight", "lm_head.weight", NULL },
	{ "model.language_model.embed_tokens.weight", "lm_head.weight", NULL },
	{ "language_model.model.embed_tokens.weight", "language_model.lm_head.weight", NULL },
	{ "model.text_model.embed_tokens.weight", "lm_head.weight", NULL },
	{ "thinker.model.embed_tokens.weight", "thinker.lm_head.weight", NULL },
	{ "llm.model.embed_tokens.weight", "llm.lm_head.weight", NULL },
	{ "model.decoder.embed_tokens.weight", "lm_head.weight", NULL },
	{ "decoder.embed_tokens.weight", "lm_head.weight", NULL },
	{ "transformer.wte.weight", "lm_head.weight", NULL },
	{ "wte.weight", "lm_head.weight", NULL },
	{ "transformer.tokens_embed.weight", "lm_head.weight", NULL },
	{ "tokens_embed.weight", "lm_head.weight", NULL },
	{ "gpt_neox.embed_in.weight", "embed_out.weight", NULL },
	{ "embed_in.weight", "embed_out.weight", NULL },
	{ "transformer.word_embeddings.weight", "lm_head.weight", NULL },
	{ "word_embeddings.weight", "lm_head.weight", NULL },
	{ "transformer.embedding.word_embeddings.weight", "transformer.output_layer.weight", NULL },
	{ "backbone.embeddings.weight", "lm_head.weight", NULL },
	{ "backbone.embedding.weight", "lm_head.weight", NULL },
	{ "model.shared.weight", "lm_head.weight", NULL },
	{ "shared.weight", "lm_head.weight", NULL },
	{ "model.tok_embeddings.weight", "output.weight", NULL },
	{ "language_model.model.tok_embeddings.weight", "language_model.output.weight", NULL },
	{ "tok_embeddings.weight", "output.weight", NULL },
	{ "model.embeddings.tok_embeddings.weight", "decoder.weight", NULL },
	{ "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", NULL },
	{ "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight", NULL },
	{ "deberta.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", NULL },
	{ "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight", NULL },
	{ "albert.embeddings.word_embeddings.weight", "predictions.decoder.weight", NULL },
	{ "electra.embeddings.word_embeddings.weight", NULL, NULL },
	{ "embed_tokens.weight", NULL, NULL },
	{ "language_model.embed_tokens.weight", NULL, NULL },
	{ "embeddings.word_embeddings.weight", NULL, NULL },
	{ "text_model.embeddings.token_embedding.weight", NULL, NULL },
	{ "embeddings.tok_embeddings.weight", NULL, NULL },
};
enum { N_VOCABULARIES = sizeof(vocabularies) / sizeof(*vocabularies) };

static const char *model_type(const struct ob_model *m)
{
	const char *type = ob_json_str(ob_json_get(m->config, "model_type"));

	return type ? type : "";
}

static bool is_in(const char *const *list, const char *s)
{
	while (*list && strcmp(*list, s) != 0)
		list++;
	return *list != NULL;
}

bool ob_family_conv1d(const struct ob_model *m)
{
	return is_in(conv1d_types, model_type(m));
}

bool ob_family_known(const struct ob_model *m)
{
	/* All of diffusers' models are. */
	return is_in(linear_types, model_type(m)) || ob_json_get(m->config, "_class_name");
}

/* Classes of transformers whose output is no vocabulary: they keep the tie flag of their family,
 * but have no head that it could speak of. */
static bool is_headless(const struct ob_model *m)
{
	static const char *const marks[] = {
		"Classification", "QuestionAnswering", "Embedding", "Reward", "Encoder",
	};
	const char *class = ob_json_str(ob_json_first(ob_json_get(m->config, "architectures")));

	if (!class)
		return false;
	for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++)
		if (strstr(class, marks[i]))
			return true;
	return ob_has_suffix(class, "Model") && !ob_has_suffix(class, "HeadModel") &&
	       !ob_has_suffix(class, "HeadsModel");
}

void ob_family_embeddings(const struct ob_model *m, const char **embedding, const char **head)
{
	*embedding = NULL;
	*head = NULL;
	for (int i = 0; i < N_VOCABULARIES; i++) {
		const char *type = vocabularies[i].type;

		if ((type && strcmp(type, model_type(m)) != 0) ||
		    ob_model_find(m, vocabularies[i].embedding) < 0)
			continue;
		*embedding = vocabularies[i].embedding;
		*head = vocabularies[i].head;
		break;
	}
	if (*head && ob_model_find(m, *head) < 0 && is_headless(m))
		*head = NULL;
}

enum ob_use ob_family_use(const struct ob_model *m, const char *name)
{
	const char *embedding, *head;

	ob_family_embeddings(m, &embedding, &head);
	if (embedding && strcmp(name, embedding) == 0)
		return OB_USE_EMBEDDING;
	return head && strcmp(name, head) == 0 ? OB_USE_HEAD : OB_USE_OTHER;
}

static bool is_flagged_tied(const struct ob_model *m)
{
	static const char key[] = "tie_word_embeddings";

	return ob_json_is_true(ob_json_get(m->config, key)) ||
	       ob_json_is_true(ob_json_get(ob_json_get(m->config, "text_config"), key));
}

bool ob_family_tied(const struct ob_model *m)
{
	const char *embedding, *head;

	ob_family_embeddings(m, &embedding, &head);
	if (!embedding)
		return is_flagged_tied(m);
	return head && (is_flagged_tied(m) || ob_model_find(m, head) < 0);
}
