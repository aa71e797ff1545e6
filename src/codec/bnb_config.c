/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of bitsandbytes models, as transformers writes it (diffusers and vLLM read the same),
 * and which tensors its tools quantize.
 */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "codec/bnb.h"

const char *const ob_bnb_config_keys[] = { "quantization_config", NULL };

/* llm_int8_skip_modules follows from the other tensors: see skip_key. */
int ob_bnb_config_block(const struct ob_encoding *enc, struct ob_text *out, ob_err *e)
{
	bool four = enc->codec == &ob_codec_bnb;
	enum ob_dtype storage = four ? OB_BNB_STORAGE(enc->variant) : 0;
	const char *type = four && !(enc->variant & OB_BNB_FP4) ? "nf4" : "fp4";

	ob_text_printf(out,
		       "{\n"
		       "    \"_load_in_4bit\": %s,\n"
		       "    \"_load_in_8bit\": %s,\n"
		       "    \"bnb_4bit_compute_dtype\": \"%s\",\n"
		       "    \"bnb_4bit_quant_storage\": \"%s\",\n"
		       "    \"bnb_4bit_quant_type\": \"%s\",\n"
		       "    \"bnb_4bit_use_double_quant\": %s,\n"
		       "    \"llm_int8_enable_fp32_cpu_offload\": false,\n"
		       "    \"llm_int8_has_fp16_weight\": false,\n"
		       "    \"llm_int8_skip_modules\": [],\n"
		       "    \"llm_int8_threshold\": 6.0,\n"
		       "    \"load_in_4bit\": %s,\n"
		       "    \"load_in_8bit\": %s,\n"
		       "    \"quant_method\": \"bitsandbytes\"\n"
		       "  }",
		       four ? "true" : "false", four ? "false" : "true",
		       ob_dtype_torch_name(four ? enc->dtype : OB_F32),
		       ob_dtype_torch_name(storage ? storage : OB_U8), type,
		       four && enc->variant & OB_BNB_NESTED ? "true" : "false",
		       four ? "true" : "false", four ? "false" : "true");
	return out->failed ? ob_fail_nomem(e, "quantization block") : 0;
}

/* The block; NULL when there is none or it is another method's. Old ones name no method. */
static const struct ob_jv *block_of(const struct ob_jv *config)
{
	const struct ob_jv *b = ob_json_get(config, "quantization_config");
	const char *method = ob_json_str(ob_json_get(b, "quant_method"));

	if (method ? strncmp(method, "bitsandbytes", strlen("bitsandbytes")) != 0
		   : !ob_json_get(b, "load_in_4bit") && !ob_json_get(b, "load_in_8bit"))
		return NULL;
	return b;
}

bool ob_bnb_config_says(const struct ob_jv *config, bool four)
{
	const struct ob_jv *b = block_of(config);

	return ob_json_is_true(ob_json_get(b, four ? "load_in_4bit" : "load_in_8bit"));
}

/* The block size is not in there. */
static const char *describe_block(const struct ob_jv *b, char *buf, size_t size)
{
	const char *type = ob_json_str(ob_json_get(b, "bnb_4bit_quant_type"));

	if (ob_json_is_true(ob_json_get(b, "load_in_8bit")))
		snprintf(buf, size, "bnb-int8");
	else
		snprintf(buf, size, "bnb-%s%s", type && strcmp(type, "nf4") == 0 ? "nf4" : "fp4",
			 ob_json_is_true(ob_json_get(b, "bnb_4bit_use_double_quant")) ? ",nested"
										      : "");
	return buf;
}

const char *ob_bnb_config_differs(const struct ob_encoding *enc, const struct ob_jv *config,
				  char *buf, size_t size)
{
	const struct ob_jv *b = block_of(config);
	const char *says = b ? describe_block(b, buf, size) : NULL;
	char is[32] = "bnb-int8";

	if (!enc)
		return says;
	if (!config)
		return NULL;
	if (enc->codec == &ob_codec_bnb)
		snprintf(is, sizeof(is), "bnb-%s%s", enc->variant & OB_BNB_FP4 ? "fp4" : "nf4",
			 enc->variant & OB_BNB_NESTED ? ",nested" : "");
	if (!says)
		return "nothing of bitsandbytes";
	return strcmp(says, is) == 0 ? NULL : says;
}

static bool holds(const char *s, size_t n, const char *const *words)
{
	while (*words && !memmem(s, n, *words, strlen(*words)))
		words++;
	return *words != NULL;
}

/*
 * Linear layers but for the head. transformers knows them by their class, and so does it know what
 * to load: embeddings and norms must not be among them. Routers of experts are layers in some
 * versions and not in others: left in float and listed, they load in all.
 */
bool ob_bnb_default_target(const struct ob_encoding *enc, const char *name,
			   const struct ob_shape *shape, enum ob_use use,
			   const struct ob_jv *config)
{
	static const char *const no_layers[] = { "norm",   "embeddings", "embed_",
						 "_embed", "embedding",	 "relative_attention_bias",
						 NULL };
	static const char *const others[] = { "wte",  "wpe",	"shared",    "embed", "lm_head",
					      "gate", "router", "embed_out", NULL };
	size_t end, begin;

	(void)enc, (void)config;
	if (use != OB_USE_OTHER || shape->rank != 2 || !ob_has_suffix(name, ".weight"))
		return false;
	end = strlen(name) - strlen(".weight");
	for (begin = end; begin > 0 && name[begin - 1] != '.'; begin--)
		;
	for (const char *const *w = others; *w; w++)
		if (end - begin == strlen(*w) && memcmp(name + begin, *w, end - begin) == 0)
			return false;
	return !holds(name + begin, end - begin, no_layers) ||
	       (end - begin > 8 && memcmp(name + end - 8, "embedder", 8) == 0);
}
