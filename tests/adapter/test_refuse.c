/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of adapter that is not read is refused by its name. */
#include "fixture.h"

static void init(void)
{
	scratch_make();
	put_model(NULL, "model.q.weight[2,2]");
}

TestSuite(refuse, .init = init, .fini = adapter_fini);

Test(refuse, by_keys)
{
	static const char *const rows[][2] = {
		{ "lora_controlnet[1]", "ControlNet" },
		{ "q.lora_magnitude_vector[2]", "DoRA" },
		{ "q.lora_magnitude_vector.default.weight[2]", "DoRA" },
		{ "lora_unet_x.dora_scale[2,1]", "DoRA" },
		{ "x.magnitude[2]", "DoRA" },
		{ "q.hada_w1_a[2,2]", "LoHa" },
		{ "lycoris_q.lokr_w1[2,2]", "LoKr" },
		{ "q.lokr_w1_a[2,2]", "LoKr" },
		{ "lora_unet_x.oft_blocks[1,2,2]", "OFT" },
		{ "q.oft_R.weight[1,2]", "OFT" },
		{ "q.boft_R[1,1,2,2]", "BOFT" },
		{ "q.ia3_l[2,1]", "IA3" },
		{ "lycoris_q.on_input[1]", "IA3" },
		{ "q.vera_lambda_b[2]", "VeRA" },
		{ "q.lora_E[2,1]", "AdaLoRA" },
		{ "lora_unet_x.b2.weight[2,2]", "GLoRA" },
		{ "lora_unet_x.lora_mid.weight[2,2,3,3]", "Tucker" },
		{ "lora_unet_x.diff[2,2]", "dense" },
		{ "diffusion_model.x.diff_b[2]", "dense" },
		{ "lycoris_norm.w_norm[2]", "dense" },
		{ "n.ln_tuning_layers.weight[2]", "LN tuning" },
		{ "lora_unet_q.lora_down.weight[2,2]", "kohya" },
		{ "lora_te1_q.lora_down.weight[2,2]", "kohya" },
		{ "lora_transformer_q.lora_down.weight[2,2]", "OneTrainer" },
		{ "lycoris_q.lora_down.weight[2,2]", "LyCORIS" },
		{ "double_blocks.0.processor.qkv_lora1.down.weight[2,2]", "XLabs" },
		{ "double_blocks.0.img_attn.qkv.lora_B.bias[2]", "FLUX control" },
		{ "unet.q.lora_A.weight[2,2]", "diffusers" },
		{ "text_encoder.q.lora_A.weight[2,2]", "diffusers" },
		{ "transformer.transformer_blocks.0.q.lora_A.weight[2,2]", "diffusers" },
		{ "x.to_q_lora.down.weight[2,2]", "diffusers" },
		{ "x.q.lora.down.weight[2,2]", "diffusers" },
		{ "x.q.lora_linear_layer.down.weight[2,2]", "diffusers" },
		{ "diffusion_model.q.lora_A.weight[2,2]", "ComfyUI" },
		{ "blocks.0.q.lora_down.weight[2,2]", "lora_down" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		put_tensors("a", rows[i][0]);
		fails(resolve("a", e), OB_UNSUPPORTED, rows[i][1]);
		fails(resolve("a", e), OB_UNSUPPORTED, in_scratch("a"));
	}
}

Test(refuse, by_peft_type)
{
	static const char *const never[] = { "PROMPT_TUNING",
					     "P_TUNING",
					     "PREFIX_TUNING",
					     "CPT",
					     "MULTITASK_PROMPT_TUNING",
					     "ADAPTION_PROMPT",
					     "XLORA",
					     "POLY",
					     "CARTRIDGE" };
	static const char *const later[] = { "LOHA",
					     "LOKR",
					     "ADALORA",
					     "IA3",
					     "OFT",
					     "BOFT",
					     "VERA",
					     "HRA",
					     "FOURIERFT",
					     "LN_TUNING",
					     "TRAINABLE_TOKENS",
					     "FROM_THE_FUTURE" };
	char config[128];

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
		snprintf(config, sizeof(config), "{\"peft_type\":\"%s\"}", never[i]);
		put_peft("a", config, "prompt_embeddings[2,2]");
		fails(resolve("a", e), OB_UNSUPPORTED, never[i]);
		fails(resolve("a", e), OB_UNSUPPORTED, "cannot be baked");
	}
	for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
		snprintf(config, sizeof(config), "{\"peft_type\":\"%s\"}", later[i]);
		put_peft("a", config, "x[2,2]");
		fails(resolve("a", e), OB_UNSUPPORTED, later[i]);
		fails(resolve("a", e), OB_UNSUPPORTED, "not supported");
	}
}

Test(refuse, other_files)
{
	static const char meta[] = "{\"__metadata__\":{\"lora_adapter_metadata\":\"{}\"},"
				   "\"q.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1],"
				   "\"data_offsets\":[0,4]}}";
	char file[256] = { 0 };
	uint64_t size = sizeof(meta) - 1;

	put_file(in_scratch("a.gguf"), "GGUF\3\0\0\0", 8);
	fails(resolve("a.gguf", e), OB_UNSUPPORTED, "GGUF");
	memcpy(file, &size, 8);
	memcpy(file + 8, meta, size);
	put_file(in_scratch("a"), file, 8 + size + 4);
	fails(resolve("a", e), OB_UNSUPPORTED, "diffusers");
	put_tensors("a", "model.q.weight[2,2] model.k.weight[2,2]");
	fails(resolve("a", e), OB_UNSUPPORTED, "no adapter");
	put_tensors("a", "");
	fails(resolve("a", e), OB_UNSUPPORTED, "no adapter");
}

/* Keys of two formats in one file: the reader that takes it finds no tensor for the other's. */
Test(refuse, mixed_formats)
{
	put_folder("a");
	put_text("a/adapter_config.json", "{}");
	put_tensors("a/adapters.safetensors",
		    "model.q.lora_A.weight[2,2] model.q.lora_a[2,2] model.q.lora_b[2,2]");
	fails(resolve("a", e), OB_MISMATCH, "lora_A");
}
