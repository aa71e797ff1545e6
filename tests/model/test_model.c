/* SPDX-License-Identifier: Apache-2.0 */
#include "../base/oom.h"
#include "build.h"

static struct ob_model *m;

static void clear(void)
{
	ob_model_close(m);
	m = NULL;
	scratch_remove();
}

TestSuite(model, .init = scratch_make, .fini = clear);

static int reopen(const char *path, ob_err *e)
{
	ob_model_close(m);
	m = NULL;
	return ob_model_open(&m, path, e);
}

static void names_are(const char *const *want, size_t n)
{
	cr_assert_eq(m->n_tensors, n);
	for (size_t i = 0; i < n; i++) {
		cr_assert_str_eq(m->tensor[i].name, want[i]);
		cr_assert_eq(ob_model_find(m, want[i]), (long)i);
	}
}

#define INDEX(map) "{\"metadata\": {\"total_size\": 5}, \"weight_map\": {" map "}}"
#define ONE "model-00001-of-00002.safetensors"
#define TWO "model-00002-of-00002.safetensors"

static void put_two_shards(void)
{
	put_weights(ONE, "b", "a", NULL);
	put_weights(TWO, "c", NULL);
	put_text("model.safetensors.index.json",
		 INDEX("\"a\": \"" ONE "\", \"c\": \"" TWO "\", \"b\": \"" ONE "\""));
}

Test(model, folder_with_index)
{
	static const char *const names[] = { "b", "a", "c" };

	put_two_shards();
	put_text("config.json", "{\"model_type\": \"toy\"}");
	put_text("tokenizer.json", "{}");
	put_weights("model.safetensors", "stale", NULL);
	put_weights("model-00001-of-00009.safetensors", "a", NULL);
	works(reopen(scratch_dir, e));
	names_are(names, 3);
	cr_assert(m->had_index && !m->is_file);
	cr_assert_eq(m->n_files, 2);
	cr_assert_eq(m->bytes, 48);
	cr_assert_eq(m->params, 12);
	cr_assert_null(m->quant);
	cr_assert_str_eq(m->weights_prefix, "model");
	cr_assert_str_eq(m->config_text, "{\"model_type\": \"toy\"}");
	cr_assert_str_eq(ob_json_str(ob_json_get(m->config, "model_type")), "toy");
	cr_assert_eq(m->n_companions, 1);
	cr_assert_str_eq(m->companion[0].rel, "tokenizer.json");
	cr_assert_eq(ob_model_find(m, "stale"), -1);
}

Test(model, single_file)
{
	static const char *const names[] = { "x", "y" };

	put_weights("my.safetensors", "x", "y", NULL);
	put_text("config.json", "{}");
	works(reopen(in_scratch("my.safetensors"), e));
	names_are(names, 2);
	cr_assert(m->is_file && !m->had_index);
	cr_assert_null(m->config);
	cr_assert_eq(m->n_companions, 0);
	cr_assert_str_eq(m->weights_prefix, "model");
}

Test(model, cache_snapshot_of_links)
{
	put_folder("blobs");
	put_folder("snapshots/abc");
	put_weights("blobs/0001", "w", NULL);
	put_text("blobs/0002", "{}");
	put_link("snapshots/abc/model.safetensors", "../../blobs/0001");
	put_link("snapshots/abc/config.json", "../../blobs/0002");
	works(reopen(in_scratch("snapshots/abc"), e));
	cr_assert_eq(m->n_tensors, 1);
	cr_assert_not_null(m->config);
	/* A blob by itself has no suffix. */
	works(reopen(in_scratch("blobs/0001"), e));
	cr_assert_eq(m->n_tensors, 1);
}

Test(model, names_of_files_without_a_known_one)
{
	put_weights("wan.safetensors", "w", NULL);
	works(reopen(scratch_dir, e));
	cr_assert_str_eq(m->weights_prefix, "model");
	put_text("config.json", "{\"_class_name\": \"WanTransformer3DModel\"}");
	works(reopen(scratch_dir, e));
	cr_assert_str_eq(m->weights_prefix, "diffusion_pytorch_model");
}

Test(model, empty_shard)
{
	static const char *const names[] = { "w" };

	put_weights(ONE, NULL);
	put_weights(TWO, "w", NULL);
	works(reopen(scratch_dir, e));
	names_are(names, 1);
	cr_assert_eq(m->n_files, 2);
}

Test(model, metadata_of_all_files)
{
	put_tensors(ONE, "\"format\":\"pt\",\"a\":\"1\"", NULL, 0);
	put_tensors(TWO, "\"a\":\"2\",\"b\":\"3\"", NULL, 0);
	works(reopen(scratch_dir, e));
	cr_assert_eq(m->n_meta, 3);
	cr_assert_str_eq(m->meta[1].value, "1");
	cr_assert_str_eq(m->meta[2].key, "b");
}

Test(model, index_and_shards_disagree)
{
	put_two_shards();
	put_text("model.safetensors.index.json",
		 INDEX("\"a\": \"" ONE "\", \"b\": \"" ONE "\", \"c\": \"" TWO
		       "\", \"ghost\": \"" ONE "\""));
	fails(reopen(scratch_dir, e), OB_MISMATCH, "\"ghost\"");
	put_text("model.safetensors.index.json",
		 INDEX("\"a\": \"" ONE "\", \"b\": \"" TWO "\", \"c\": \"" TWO "\""));
	fails(reopen(scratch_dir, e), OB_MISMATCH, "\"b\", but it is in " ONE);
	put_text("model.safetensors.index.json", INDEX("\"a\": \"" ONE "\", \"c\": \"" TWO "\""));
	fails(reopen(scratch_dir, e), OB_MISMATCH, "\"b\", which");
	put_text("model.safetensors.index.json",
		 INDEX("\"a\": \"" ONE "\", \"b\": \"" ONE "\", \"c\": \"" TWO "\", \"a\": \"" ONE
		       "\""));
	fails(reopen(scratch_dir, e), OB_CORRUPT, "\"a\" twice");
}

Test(model, tensor_in_two_files)
{
	put_two_shards();
	put_weights(TWO, "c", "a", NULL);
	fails(reopen(scratch_dir, e), OB_MISMATCH, "\"a\" is in two files");
	remove(in_scratch("model.safetensors.index.json"));
	fails(reopen(scratch_dir, e), OB_MISMATCH, TWO);
}

Test(model, shard_missing)
{
	put_two_shards();
	remove(in_scratch(TWO));
	fails(reopen(scratch_dir, e), OB_MISMATCH, TWO);
	put_link(TWO, "../blobs/gone");
	fails(reopen(scratch_dir, e), OB_MISMATCH, TWO);
	remove(in_scratch(TWO));
	cr_assert_eq(mkfifo(in_scratch(TWO), 0600), 0);
	fails(reopen(scratch_dir, e), OB_CORRUPT, "FIFO");
}

Test(model, index_that_leads_outside)
{
	put_folder("model");
	put_weights("secret.safetensors", "w", NULL);
	put_text("model/model.safetensors.index.json", INDEX("\"w\": \"../secret.safetensors\""));
	fails(reopen(in_scratch("model"), e), OB_UNSAFE, "../secret.safetensors");
}

Test(model, other_containers)
{
	put_text("m.gguf", "GGUF");
	fails(reopen(in_scratch("m.gguf"), e), OB_UNSUPPORTED, "GGUF");
	put_text("pytorch_model.bin", "PK");
	fails(reopen(in_scratch("pytorch_model.bin"), e), OB_UNSUPPORTED, "torch.save");
	put_text("weights.npz", "PK");
	fails(reopen(in_scratch("weights.npz"), e), OB_CORRUPT, "zip archive");
	put_text("notes", "hello");
	fails(reopen(in_scratch("notes"), e), OB_UNSUPPORTED, "none of the tensor file formats");
	fails(reopen("/dev/null", e), OB_CORRUPT, "device");
	fails(reopen(in_scratch("nothing"), e), OB_IO, "nothing");
}

Test(model, bad_config)
{
	put_weights("model.safetensors", "w", NULL);
	put_text("config.json", "{");
	fails(reopen(scratch_dir, e), OB_CORRUPT, "config.json");
	put_text("config.json", "[]");
	fails(reopen(scratch_dir, e), OB_CORRUPT, "no JSON object");
	remove(in_scratch("config.json"));
	put_link("config.json", "gone");
	fails(reopen(scratch_dir, e), OB_IO, "config.json");
}

Test(model, change_is_noticed)
{
	put_weights("model.safetensors", "w", NULL);
	works(reopen(scratch_dir, e));
	works(ob_model_check(m, e));
	cr_assert_eq(truncate(in_scratch("model.safetensors"), 3), 0);
	fails(ob_model_check(m, e), OB_CHANGED, "model.safetensors");
}

static int step(void *ctx, ob_err *e)
{
	struct ob_model *x = NULL;
	int rc = ob_model_open(&x, ctx, e);

	ob_model_close(x);
	return rc;
}

Test(model, out_of_memory)
{
	put_two_shards();
	put_text("config.json", "{\"a\": [1, 2]}");
	put_text("tokenizer.json", "{}");
	cr_assert_gt(oom_sweep(step, scratch_dir), 30);
}
