/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters of kinds that no reader takes are recognised here, so that the refusal names the kind. A
 * line leaves a table when its reader arrives.
 */
#include <string.h>

#include "adapter/names.h"
#include "adapter/reader.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* peft_type in adapter_config.json. Those with a reason can never be baked. */
static const struct {
	const char *type, *reason;
} peft_types[] = {
	{ "PROMPT_TUNING", "it adds prompt tokens and changes no weight" },
	{ "MULTITASK_PROMPT_TUNING", "it adds prompt tokens and changes no weight" },
	{ "P_TUNING", "it adds prompt tokens and changes no weight" },
	{ "PREFIX_TUNING", "it adds keys and values and changes no weight" },
	{ "CPT", "it adds prompt tokens and changes no weight" },
	{ "CARTRIDGE", "it adds keys and values and changes no weight" },
	{ "ADAPTION_PROMPT", "it adds prompt tokens and changes no weight" },
	{ "XLORA", "it is routed per token, so no baked weight equals it" },
	{ "POLY", "it is routed per task, so no baked weight equals it" },
};

enum how { PREFIX, SUFFIX, COMPONENT };

/* How keys of a kind look; the first line that fits any key decides. */
static const struct {
	enum how how;
	const char *text, *family;
} kinds[] = {
	{ PREFIX, "lora_controlnet", "ControlNet" },
	{ COMPONENT, "lora_magnitude_vector", "DoRA" },
	{ COMPONENT, "dora_scale", "DoRA" },
	{ SUFFIX, ".magnitude", "DoRA" },
	{ COMPONENT, "hada_w1_a", "LoHa" },
	{ COMPONENT, "lokr_w1", "LoKr" },
	{ COMPONENT, "lokr_w1_a", "LoKr" },
	{ COMPONENT, "oft_blocks", "OFT" },
	{ COMPONENT, "oft_R", "OFT" },
	{ COMPONENT, "boft_R", "BOFT" },
	{ COMPONENT, "ia3_l", "IA3" },
	{ COMPONENT, "on_input", "IA3" },
	{ COMPONENT, "vera_lambda_b", "VeRA" },
	{ COMPONENT, "lora_E", "AdaLoRA" },
	{ SUFFIX, ".b2.weight", "GLoRA" },
	{ COMPONENT, "lora_mid", "Tucker LoRA" },
	{ SUFFIX, ".diff", "dense difference" },
	{ SUFFIX, ".diff_b", "dense difference" },
	{ SUFFIX, ".w_norm", "dense difference" },
	{ SUFFIX, ".set_weight", "dense difference" },
	{ COMPONENT, "ln_tuning_layers", "LN tuning" },
	{ PREFIX, "lora_unet_", "kohya" },
	{ PREFIX, "lora_te", "kohya" },
	{ PREFIX, "lora_prior_", "kohya" },
	{ PREFIX, "lora_transformer_", "OneTrainer" },
	{ PREFIX, "lycoris_", "LyCORIS" },
	{ SUFFIX, ".qkv_lora.down.weight", "XLabs" },
	{ SUFFIX, ".qkv_lora1.down.weight", "XLabs" },
	{ SUFFIX, ".qkv_lora2.down.weight", "XLabs" },
	{ SUFFIX, ".proj_lora.down.weight", "XLabs" },
	{ SUFFIX, ".proj_lora1.down.weight", "XLabs" },
	{ SUFFIX, ".img_attn.qkv.lora_B.bias", "FLUX control" },
	{ PREFIX, "unet.", "diffusers" },
	{ PREFIX, "text_encoder", "diffusers" },
	{ PREFIX, "transformer.transformer_blocks.", "diffusers" },
	{ PREFIX, "transformer.single_transformer_blocks.", "diffusers" },
	{ PREFIX, "diffusion_model.", "ComfyUI" },
	{ SUFFIX, "_lora.down.weight", "diffusers" },
	{ SUFFIX, ".lora.down.weight", "diffusers" },
	{ COMPONENT, "lora_linear_layer", "diffusers" },
	{ COMPONENT, "lora_down", "lora_down/lora_up" },
};

static int refuse_peft_type(const struct ob_adapter_file *f, ob_err *e)
{
	const char *type = ob_json_str(ob_json_get(f->config, "peft_type"));

	if (!type || !strcmp(type, "LORA"))
		return 0;
	for (size_t i = 0; i < N(peft_types); i++)
		if (!strcmp(type, peft_types[i].type))
			return ob_fail(e, OB_UNSUPPORTED,
				       "%s: an adapter of peft_type %s cannot be "
				       "baked: %s",
				       f->path, type, peft_types[i].reason);
	return ob_fail(e, OB_UNSUPPORTED,
		       "%s: adapters of peft_type %s are not supported by this "
		       "version (LORA is)",
		       f->path, OB_SHOWN(type));
}

static bool fits(const char *key, enum how how, const char *text)
{
	switch (how) {
	case PREFIX:
		return ob_has_prefix(key, text);
	case SUFFIX:
		return ob_has_suffix(key, text);
	default:
		return ob_name_component(key, text);
	}
}

int ob_refuse(const struct ob_adapter_file *f, ob_err *e)
{
	if (refuse_peft_type(f, e) != 0)
		return -1;
	for (size_t i = 0; i < f->list.n_meta; i++)
		if (!strcmp(f->list.meta[i].key, "lora_adapter_metadata"))
			return ob_fail(e, OB_UNSUPPORTED,
				       "%s: diffusers adapters are not supported "
				       "by this version",
				       f->path);
	for (size_t k = 0; k < N(kinds); k++)
		for (size_t i = 0; i < f->list.n_tensors; i++)
			if (fits(f->list.tensor[i].name, kinds[k].how, kinds[k].text))
				return ob_fail(e, OB_UNSUPPORTED,
					       "%s: %s adapters are not supported "
					       "by this version (seen by the key \"%s\")",
					       f->path, kinds[k].family,
					       OB_SHOWN(f->list.tensor[i].name));
	return 0;
}

int ob_refuse_container(const struct ob_file *file, ob_err *e)
{
	if (file->stamp.size >= 4 && !memcmp(file->map, "GGUF", 4))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: GGUF adapters are not supported by this "
			       "version",
			       file->path);
	return 0;
}
