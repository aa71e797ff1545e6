/* SPDX-License-Identifier: Apache-2.0 */
#include "../base/oom.h"
#include "plan.h"

static struct ob_small_files files;
static struct ob_st_entry entry = { .name = "a.weight" };
static struct ob_out_file shards[] = {
	{ .name = "model-00001-of-00002.safetensors", .entry = &entry, .n_entries = 1 },
	{ .name = "model-00002-of-00002.safetensors" },
};
static struct ob_companion companions[] = {
	{ "assets/quantize_config.json", "/in/assets/quantize_config.json" },
	{ "quantize_config.json", "/in/quantize_config.json" },
	{ "tokenizer.json", "/in/tokenizer.json" },
};

static void start(void)
{
	plan_start();
	plan.file = shards;
	plan.n_files = 1;
	model.companion = companions;
	model.n_companions = 3;
	set_config("{\"torch_dtype\": \"float32\"}");
}

static void clear(void)
{
	ob_small_files_free(&files);
	plan_end();
}

TestSuite(files, .init = start, .fini = clear);

static void lists(const char *const *want)
{
	ob_small_files_free(&files);
	works(ob_export_files(&plan, &files, e));
	for (size_t i = 0; i < files.n; i++) {
		cr_assert_not_null(want[i], "%s should not be listed", files.file[i].rel);
		cr_assert_str_eq(files.file[i].rel, want[i]);
	}
	cr_assert_null(want[files.n]);
}

Test(files, folder_of_one_file)
{
	static const char *const want[] = { "config.json", "assets/quantize_config.json",
					    "quantize_config.json", "tokenizer.json", NULL };

	add("a.weight", 2, 2, &f32, &f32);
	lists(want);
	cr_assert_null(files.file[0].copy_from);
	cr_assert_eq(files.file[0].len, model.config_len);
	cr_assert_arr_eq(files.file[0].data, model.config_text, model.config_len);
	cr_assert_str_eq(files.file[3].copy_from, "/in/tokenizer.json");
}

Test(files, index_of_shards_and_of_mlx)
{
	static const char *const want[] = { "config.json",
					    "model.safetensors.index.json",
					    "assets/quantize_config.json",
					    "quantize_config.json",
					    "tokenizer.json",
					    NULL };

	add("a.weight", 2, 2, &f32, &f32);
	plan.n_files = 2;
	lists(want);
	cr_assert_not_null(strstr(files.file[1].data, "\"a.weight\": \"model-00001-of-00002"));
	cr_assert_eq(strlen(files.file[1].data), files.file[1].len);
	shards[0].name = "model.safetensors";
	plan.n_files = 1;
	plan.layout = OB_LAYOUT_MLX;
	lists(want);
}

Test(files, stale_quantization_files)
{
	static const char *const want[] = { "config.json", "assets/quantize_config.json",
					    "tokenizer.json", NULL };

	add("a.weight", 2, 2, &toy4, &f32);
	lists(want);
}

Test(files, model_without_config)
{
	static const char *const want[] = { "assets/quantize_config.json", "tokenizer.json", NULL };

	model.config_text = NULL;
	add("a.weight", 2, 2, &f32, &toy4);
	plan.quant = &toy4;
	lists(want);
}

Test(files, output_is_a_file)
{
	static const char *const none[] = { NULL };

	plan.to_file = true;
	lists(none);
}

static int step(void *ctx, ob_err *e)
{
	struct ob_small_files f;
	int rc = ob_export_files(&plan, &f, e);

	(void)ctx;
	if (rc == 0)
		ob_small_files_free(&f);
	return rc;
}

Test(files, out_of_memory)
{
	add("a.weight", 2, 2, &f32, &toy4);
	add("b.weight", 2, 2, &f32, &toy8);
	plan.quant = &toy4;
	plan.n_files = 2;
	recipe.dtype = OB_BF16;
	cr_assert_gt(oom_sweep(step, NULL), 20);
}
