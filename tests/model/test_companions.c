/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

static struct ob_arena arena;
static struct ob_companion *list;
static size_t n;

static void clear(void)
{
	ob_arena_free(&arena);
	scratch_remove();
}

TestSuite(companions, .init = scratch_make, .fini = clear);

static void lists(const char *const *want)
{
	works(ob_folder_companions(&arena, scratch_dir, &list, &n, e));
	for (size_t i = 0; i < n; i++) {
		cr_assert_not_null(want[i], "%s should not be listed", list[i].rel);
		cr_assert_str_eq(list[i].rel, want[i]);
		cr_assert_str_eq(list[i].path, in_scratch(want[i]));
	}
	cr_assert_null(want[n]);
}

Test(companions, everything_that_is_no_weight_file)
{
	static const char *const want[] = {
		"1_Pooling/config.json",
		"5gram.bin",
		"LICENSE",
		"additional/original/note.txt",
		"assets/deep/er/note.txt",
		"chat_template.jinja",
		"modeling_toy.py",
		"tokenizer.bin",
		"tokenizer.json",
		"tokenizer.model",
		NULL,
	};

	put_folder("assets/deep/er");
	put_folder("1_Pooling");
	put_folder("additional/original");
	for (size_t i = 0; want[i]; i++)
		put_text(want[i], "x");
	put_text("config.json", "{}"); /* edited, not copied */
	lists(want);
}

Test(companions, what_stays_behind)
{
	static const char *const names[] = {
		"model.safetensors",
		"model-00001-of-00009.safetensors",
		"pytorch_model.bin",
		"pytorch_model-00001-of-00002.bin",
		"consolidated.00.bin",
		"consolidated.pth",
		"model.gguf",
		"weights.npz",
		"tf_model.h5",
		"flax_model.msgpack",
		"model.onnx",
		"model.onnx_data",
		"rust_model.ot",
		"model.ckpt",
		"optimizer.pt",
		"model.safetensors.index.json",
		"model.safetensors.index.fp16.json",
		"pytorch_model.bin.index.json",
		"adapter_config.json",
		"adapter_model.safetensors",
		"adapter_model.bin",
		"adapters.safetensors",
		"training_args.bin",
		"events.out.tfevents.1",
		".gitattributes",
	};
	static const char *const none[] = { NULL };
	char name[256];

	put_folder("sub");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		put_text(names[i], "x");
		snprintf(name, sizeof(name), "sub/%s", names[i]);
		put_text(name, "x");
	}
	put_folder("original");
	put_text("original/params.json", "x");
	put_folder(".git");
	put_text(".git/HEAD", "x");
	put_folder("sub/.cache");
	put_text("sub/.cache/x.json", "x");
	put_folder("__pycache__");
	put_text("__pycache__/a.pyc", "x");
	lists(none);
}

/* The further modules of a sentence-transformers model are loaded from their own folders. */
Test(companions, weights_of_module_folders)
{
	static const char *const want[] = { "2_Dense/config.json", "2_Dense/model.safetensors",
					    NULL };

	put_folder("2_Dense");
	put_folder("2_Dense/old");
	put_text("2_Dense/config.json", "{}");
	put_text("2_Dense/model.safetensors", "x");
	put_text("2_Dense/model.onnx", "x");
	put_text("2_Dense/old/model.safetensors", "x");
	lists(want);
}

Test(companions, links_lead_to_files_only)
{
	static const char *const want[] = { "model/outside.txt", "model/target.txt", NULL };
	char folder[256];

	put_folder("model");
	put_text("blob", "x");
	put_text("model/target.txt", "x");
	put_link("model/outside.txt", "../blob");
	put_link("model/dangling", "nowhere");
	put_link("model/self", "self");
	put_link("model/up", "..");
	put_link("model/here", ".");
	cr_assert_eq(mkfifo(in_scratch("model/fifo"), 0600), 0);
	snprintf(folder, sizeof(folder), "%s", in_scratch("model"));
	works(ob_folder_companions(&arena, folder, &list, &n, e));
	cr_assert_eq(n, 2);
	for (size_t i = 0; i < n; i++)
		cr_assert_str_eq(list[i].path, in_scratch(want[i]));
}

Test(companions, bounded_depth)
{
	char path[256] = "d";

	for (int i = 0; i < 15; i++)
		strcat(path, "/d");
	put_folder(path);
	strcat(path, "/x");
	put_text(path, "x");
	works(ob_folder_companions(&arena, scratch_dir, &list, &n, e));
	cr_assert_eq(n, 1);
	path[strlen(path) - 1] = 'd';
	put_folder(path);
	fails(ob_folder_companions(&arena, scratch_dir, &list, &n, e), OB_LIMIT, "deep");
}
