/* SPDX-License-Identifier: Apache-2.0 */
/* Which files are an adapter. */
#include "../base/oom.h"
#include "fixture.h"

static struct ob_arena arena;
static struct ob_adapter_file *f;

static void close_adapter(void)
{
	ob_adapter_close(f);
	ob_arena_free(&arena);
	f = NULL;
}

static void init(void)
{
	scratch_make();
	put_folder("a");
}

static void fini(void)
{
	close_adapter();
	scratch_remove();
}

TestSuite(open_adapter, .init = init, .fini = fini);

static int open_path(const char *name, ob_err *e)
{
	struct ob_adapter_spec spec = { in_scratch(name), 1 };

	close_adapter();
	return ob_adapter_open(&f, &arena, &spec, e);
}

static const char *opened(void)
{
	const char *slash = strrchr(f->file->path, '/');

	return slash + 1;
}

#define PAIR "q.lora_A.weight[2,2] q.lora_B.weight[2,2]"

Test(open_adapter, order_of_names)
{
	static const char *const names[] = { "other.safetensors",
					     "pytorch_lora_weights.safetensors",
					     "adapters.safetensors", "adapter_model.safetensors" };

	for (size_t i = 0; i < 4; i++) {
		char path[128];

		snprintf(path, sizeof(path), "a/%s", names[i]);
		put_tensors(path, PAIR);
		works(open_path("a", e));
		cr_assert_str_eq(opened(), names[i]);
		cr_assert_null(f->config);
		cr_assert_eq(f->list.n_tensors, 2);
	}
}

Test(open_adapter, a_folder_has_its_config)
{
	put_tensors("a/style.safetensors", PAIR);
	put_text("a/adapter_config.json", "{\"peft_type\":\"LORA\"}");
	works(open_path("a", e));
	cr_assert_not_null(f->config);
	cr_assert_str_eq(f->config_path, in_scratch("a/adapter_config.json"));
	cr_assert_str_eq(f->path, in_scratch("a"));
}

/* The config beside a file belongs to it only under the names that PEFT and mlx-lm write. */
Test(open_adapter, a_file_and_its_config)
{
	put_text("a/adapter_config.json", "{\"peft_type\":\"LORA\"}");
	put_tensors("a/adapter_model.safetensors", PAIR);
	put_tensors("a/adapters.safetensors", PAIR);
	put_tensors("a/style.safetensors", PAIR);
	put_tensors("a/pytorch_lora_weights.safetensors", PAIR);
	works(open_path("a/adapter_model.safetensors", e));
	cr_assert_not_null(f->config);
	works(open_path("a/adapters.safetensors", e));
	cr_assert_not_null(f->config);
	works(open_path("a/style.safetensors", e));
	cr_assert_null(f->config);
	works(open_path("a/pytorch_lora_weights.safetensors", e));
	cr_assert_null(f->config);
}

Test(open_adapter, nothing_to_open)
{
	fails(open_path("a", e), OB_MISMATCH, "no adapter");
	put_tensors("a/.hidden.safetensors", PAIR);
	fails(open_path("a", e), OB_MISMATCH, "no adapter");
	put_tensors("a/x.safetensors", PAIR);
	put_tensors("a/y.safetensors", PAIR);
	fails(open_path("a", e), OB_MISMATCH, "2 .safetensors");
	fails(open_path("b", e), OB_IO, in_scratch("b"));
	put_file(in_scratch("a/adapter_model.safetensors"), "x", 1);
	fails(open_path("a", e), OB_CORRUPT, "adapter_model.safetensors");
}

Test(open_adapter, bad_configs)
{
	char *large = malloc(OB_JSON_TREE_MAX + 2);

	put_tensors("a/adapter_model.safetensors", PAIR);
	put_text("a/adapter_config.json", "{\"r\": 1");
	fails(open_path("a", e), OB_CORRUPT, "adapter_config.json");
	put_text("a/adapter_config.json", "3");
	fails(open_path("a", e), OB_CORRUPT, "adapter_config.json");
	put_text("a/adapter_config.json", "{\"r\":1,\"r\":2}");
	fails(open_path("a", e), OB_CORRUPT, "adapter_config.json");
	memset(large, ' ', OB_JSON_TREE_MAX + 1);
	large[0] = '{';
	large[OB_JSON_TREE_MAX] = '}';
	put_file(in_scratch("a/adapter_config.json"), large, OB_JSON_TREE_MAX + 1);
	fails(open_path("a", e), OB_LIMIT, "adapter_config.json");
	free(large);
}

Test(open_adapter, scales)
{
	struct ob_adapter_spec spec = { in_scratch("a"), (double)NAN };
	ob_err err = { 0 };

	put_tensors("a/adapter_model.safetensors", PAIR);
	cr_assert_eq(ob_adapter_open(&f, &arena, &spec, &err), -1);
	cr_assert_eq(err.code, OB_USAGE);
}

static int step(void *ctx, ob_err *e)
{
	(void)ctx;
	if (open_path("a", e) == 0) {
		close_adapter();
		return 0;
	}
	close_adapter();
	return -1;
}

Test(open_adapter, out_of_memory)
{
	put_tensors("a/style.safetensors", PAIR);
	put_text("a/adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":2}");
	cr_assert_gt(oom_sweep(step, NULL), 10);
}
