/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

static struct ob_arena arena;
static struct ob_text out;

static void clear(void)
{
	ob_arena_free(&arena);
	ob_text_free(&out);
	plan_end();
}

TestSuite(export_index, .init = plan_start, .fini = clear);

Test(export_index, sorted_over_all_shards)
{
	struct ob_st_entry one[] = { { .name = "b" }, { .name = "a.\xc3\xbc\"" } };
	struct ob_st_entry two[] = { { .name = "B" }, { .name = "a" } };
	struct ob_out_file file[] = {
		{ .name = "model-00001-of-00002.safetensors",
		  .data_bytes = 1ull << 40,
		  .entry = one,
		  .n_entries = 2 },
		{ .name = "model-00002-of-00002.safetensors",
		  .data_bytes = 5,
		  .entry = two,
		  .n_entries = 2 },
	};
	const char *name;

	plan.file = file;
	plan.n_files = 2;
	plan.params = 12345678901;
	works(ob_export_index(&plan, &arena, &name, &out, e));
	cr_assert_str_eq(name, "model.safetensors.index.json");
	cr_assert_str_eq(out.data, "{\n  \"metadata\": {\n    \"total_parameters\": 12345678901,\n"
				   "    \"total_size\": 1099511627781\n  },\n  \"weight_map\": {\n"
				   "    \"B\": \"model-00002-of-00002.safetensors\",\n"
				   "    \"a\": \"model-00002-of-00002.safetensors\",\n"
				   "    \"a.\xc3\xbc\\\"\": \"model-00001-of-00002.safetensors\",\n"
				   "    \"b\": \"model-00001-of-00002.safetensors\"\n  }\n}\n");
}

Test(export_index, of_one_file)
{
	struct ob_out_file file = { .name = "diffusion_pytorch_model.safetensors" };
	const char *name;

	plan.file = &file;
	plan.n_files = 1;
	works(ob_export_index(&plan, &arena, &name, &out, e));
	cr_assert_str_eq(name, "diffusion_pytorch_model.safetensors.index.json");
	cr_assert_str_eq(out.data, "{\n  \"metadata\": {\n    \"total_parameters\": 0,\n"
				   "    \"total_size\": 0\n  },\n  \"weight_map\": {}\n}\n");
}
