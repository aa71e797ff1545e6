/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

static struct ob_arena arena;
static struct ob_weights w;

static void clear(void)
{
	ob_arena_free(&arena);
	scratch_remove();
}

TestSuite(folder, .init = scratch_make, .fini = clear);

static int look(ob_err *e)
{
	return ob_folder_weights(&arena, scratch_dir, &w, e);
}

static void finds(const char *prefix, const char *first, size_t n)
{
	works(look(e));
	cr_assert_eq(w.n, n);
	cr_assert_str_eq(w.name[0], first);
	if (prefix)
		cr_assert_str_eq(w.prefix, prefix);
	else
		cr_assert_null(w.prefix);
}

Test(folder, index_before_all_else)
{
	put_text("model-00001-of-00002.safetensors", "");
	put_text("model-00002-of-00002.safetensors", "");
	put_text("model.safetensors", "");
	put_text("consolidated.safetensors", "");
	put_text("model.safetensors.index.json",
		 "{\"weight_map\": {\"b\": \"z.safetensors\", \"a\": \"y.safetensors\","
		 "\"c\": \"z.safetensors\"}}");
	finds("model", "y.safetensors", 2);
	cr_assert_str_eq(w.name[1], "z.safetensors");
	cr_assert_str_eq(w.index, in_scratch("model.safetensors.index.json"));
}

Test(folder, index_of_another_prefix)
{
	static const char name[] = "diffusion_pytorch_model.safetensors.index.json";

	put_text(name, "{\"weight_map\": {\"a\": \"x\"}}");
	put_text("adapter_model.safetensors.index.json", "{\"weight_map\": {\"a\": \"l\"}}");
	finds("diffusion_pytorch_model", "x", 1);
	put_text("other.safetensors.index.json", "{\"weight_map\": {\"a\": \"o\"}}");
	fails(look(e), OB_MISMATCH, "two indexes");
	put_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"m\"}}");
	finds("model", "m", 1);
}

Test(folder, usual_single_files)
{
	put_text("diffusion_pytorch_model.safetensors", "");
	put_text("flux.safetensors", "");
	put_text("model-00001-of-00009.safetensors", "");
	finds("diffusion_pytorch_model", "diffusion_pytorch_model.safetensors", 1);
	put_text("model.safetensors", "");
	finds("model", "model.safetensors", 1);
	cr_assert_null(w.index);
}

Test(folder, complete_set_of_shards)
{
	put_text("model-00001-of-00003.safetensors", "");
	put_text("model-00003-of-00003.safetensors", "");
	put_text("consolidated.safetensors", "");
	fails(look(e), OB_MISMATCH, "model-00002-of-00003.safetensors");
	put_text("model-00002-of-00003.safetensors", "");
	put_text("model-00001-of-00009.safetensors", ""); /* left over from another set */
	finds("model", "model-00001-of-00003.safetensors", 3);
	cr_assert_str_eq(w.name[2], "model-00003-of-00003.safetensors");
	put_text("model-00001-of-00001.safetensors", "");
	fails(look(e), OB_MISMATCH, "two sets");
}

Test(folder, shards_without_the_first)
{
	put_text("model-00002-of-00002.safetensors", "");
	fails(look(e), OB_MISMATCH, "lacks model-00001-of-00002.safetensors");
}

Test(folder, what_is_no_shard_name)
{
	put_text("model-00003-of-00002.safetensors", "");
	finds("model", "model-00003-of-00002.safetensors", 1);
	put_text("model-1-of-2.safetensors", "");
	fails(look(e), OB_MISMATCH, "several");
}

Test(folder, variants_and_names_of_their_own)
{
	put_text("model.fp16-00001-of-00001.safetensors", "");
	finds("model", "model.fp16-00001-of-00001.safetensors", 1);
	remove(in_scratch("model.fp16-00001-of-00001.safetensors"));
	put_text("adapters.safetensors", "");
	put_text("0000100_adapters.safetensors", "");
	put_text("pytorch_lora_weights.safetensors", "");
	put_text("flux1-dev.safetensors", "");
	put_text("README.md", "");
	finds(NULL, "flux1-dev.safetensors", 1);
	put_text("other.safetensors", "");
	fails(look(e), OB_MISMATCH, "flux1-dev.safetensors, other.safetensors");
}

Test(folder, only_regular_files)
{
	put_folder("model.safetensors");
	cr_assert_eq(mkfifo(in_scratch("a.safetensors"), 0600), 0);
	put_link("b.safetensors", "nowhere");
	put_text("c.data", "");
	put_link("d.safetensors", "c.data");
	finds(NULL, "d.safetensors", 1);
}

Test(folder, says_what_is_there_instead)
{
	fails(look(e), OB_MISMATCH, "no weight files");
	put_text("adapter_model.bin", "");
	put_text("adapter_model.safetensors", "");
	fails(look(e), OB_MISMATCH, "--lora");
	put_text("m.gguf", "");
	fails(look(e), OB_UNSUPPORTED, "GGUF weights (m.gguf)");
	put_text("model_index.json", "{}");
	fails(look(e), OB_UNSUPPORTED, "pipeline");
}

Test(folder, pytorch_files)
{
	put_text("tokenizer.bin", "");
	put_text("training_args.bin", "");
	put_text("optimizer.pt", "");
	put_text("adapter_model.bin", "");
	fails(look(e), OB_MISMATCH, "--lora");
	put_text("weights.pth", "");
	finds(NULL, "weights.pth", 1);
	put_text("pytorch_model-00001-of-00002.bin", "");
	put_text("pytorch_model-00002-of-00002.bin", "");
	finds("model", "pytorch_model-00001-of-00002.bin", 2);
	put_text("pytorch_model.bin", "");
	finds("model", "pytorch_model.bin", 1);
	put_text("pytorch_model.bin.index.json", "{\"weight_map\": {\"a\": \"x.bin\"}}");
	finds("model", "x.bin", 1);
	put_text("diffusion_pytorch_model.safetensors", "");
	finds("diffusion_pytorch_model", "diffusion_pytorch_model.safetensors", 1);
}

Test(folder, numpy_files)
{
	put_text("adapters.npz", "");
	put_text("weights.01.npz", "");
	put_text("weights.00.npz", "");
	finds("model", "weights.00.npz", 2);
	cr_assert_str_eq(w.name[1], "weights.01.npz");
	put_text("weights.npz", "");
	finds("model", "weights.npz", 1);
}

Test(folder, unreadable)
{
	fails(ob_folder_weights(&arena, in_scratch("nowhere"), &w, e), OB_IO, "nowhere");
}
