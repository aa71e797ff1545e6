/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the adapter readers and the resolver. The input is an adapter_config.json, a line
 * "--", and a line per tensor: its name and its dimensions. For any input that resolves:
 *  - every key is used, ignored or reported as unused;
 *  - every view lies inside the file, and every edit inside its tensor.
 */
#include "../io/scratch.h"
#include "adapter/adapter.h"
#include "base/num.h"
#include "fuzz.h"
#include "tensor_line.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MAX_TENSORS 64
#define MAX_ELEMS 1024
#define WEIGHTS "adapter/adapter_model.safetensors"
#define CONFIG "adapter/adapter_config.json"

static struct ob_model *model;

/* A safetensors file of ones; the header's text ends behind its last tensor. */
static void put_tensors(const char *name, struct ob_text *header, size_t floats)
{
	static const float one = 1;
	FILE *f = fopen(in_scratch(name), "wb");
	uint64_t len;

	ob_text_add(header, "}", 1);
	fuzz_require(f && !header->failed);
	len = header->len;
	fuzz_require(fwrite(&len, 8, 1, f) == 1 && fwrite(header->data, len, 1, f) == 1);
	for (size_t i = 0; i < floats; i++)
		fuzz_require(fwrite(&one, 4, 1, f) == 1);
	fuzz_require(fclose(f) == 0);
}

static void add_tensor(struct ob_text *header, const struct tensor_line *l, size_t *floats)
{
	ob_text_add(header, header->len ? "," : "{", 1);
	ob_text_json(header, l->name, l->len);
	ob_text_printf(header, ":{\"dtype\":\"F32\",\"shape\":[");
	for (uint32_t i = 0; i < l->shape.rank; i++)
		ob_text_printf(header, "%s%llu", i ? "," : "", (unsigned long long)l->dim[i]);
	ob_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", *floats * 4,
		       (*floats + (size_t)l->elems) * 4);
	*floats += (size_t)l->elems;
}

static void make_model(void)
{
	static const char text[] = "{\"model_type\":\"toy\",\"tie_word_embeddings\":true,"
				   "\"vocab_size\":5}";
	static const char lines[] = "model.embed_tokens.weight 5 3\n"
				    "model.norm.weight 3\n"
				    "model.layers.0.self_attn.q_proj.weight 4 3\n"
				    "model.layers.0.self_attn.q_proj.bias 4\n"
				    "model.layers.0.self_attn.o_proj.weight 3 3\n"
				    "model.layers.1.self_attn.q_proj.weight 4 3\n"
				    "conv.weight 4 3 2 2\n"
				    "vision_tower.layers.0.self_attn.q_proj.weight 4 3\n"
				    "attn.in_proj_weight 9 3\n";
	const char *at = lines;
	struct tensor_line l;
	struct ob_text header = { 0 };
	size_t floats = 0;
	ob_err e = { 0 };

	fuzz_require(mkdir(in_scratch("model"), 0700) == 0);
	put_file(in_scratch("model/config.json"), text, strlen(text));
	while (tensor_line(&at, lines + strlen(lines), &l) == 1)
		add_tensor(&header, &l, &floats);
	put_tensors("model/model.safetensors", &header, floats);
	ob_text_free(&header);
	fuzz_require(ob_model_open(&model, in_scratch("model"), &e) == 0);
}

static void clean_up(void)
{
	ob_model_close(model);
	scratch_remove();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	scratch_make();
	atexit(clean_up);
	make_model();
	fuzz_require(mkdir(in_scratch("adapter"), 0700) == 0);
	return 0;
}

/* Writes the adapter; false when the input is no description of one. */
static bool put_adapter(const char *data, size_t size)
{
	const char *mark = memmem(data, size, "\n--\n", 4);
	const char *at = mark ? mark + 4 : data + size;
	struct ob_text header = { 0 };
	struct tensor_line l;
	size_t floats = 0, n = 0;
	int got = 0;

	for (; n < MAX_TENSORS && (got = tensor_line(&at, data + size, &l)) == 1; n++) {
		if (l.elems > MAX_ELEMS) {
			got = -1;
			break;
		}
		add_tensor(&header, &l, &floats);
	}
	if (got >= 0 && n) {
		put_tensors(WEIGHTS, &header, floats);
		unlink(in_scratch(CONFIG));
		if (mark > data)
			put_file(in_scratch(CONFIG), data, (size_t)(mark - data));
	}
	ob_text_free(&header);
	return got >= 0 && n;
}

static void check_view(const struct ob_view *v)
{
	fuzz_require(v->rows && v->cols);
	fuzz_require(ob_in_file(v->off, ob_view_bytes(v), v->file->stamp.size));
}

static void check_edit(const struct ob_tensor_edits *of, const struct ob_edit *x)
{
	check_view(&x->b);
	if (x->kind == OB_EDIT_LOWRANK) {
		check_view(&x->a);
		fuzz_require(x->a.rows == x->b.cols && x->a.cols == x->n_cols);
	}
	fuzz_require(x->b.rows == x->n_rows);
	fuzz_require(x->col0 + x->n_cols <= of->cols);
	if (x->kind != OB_EDIT_REPLACE_ROWS) {
		fuzz_require(x->row0 + x->n_rows <= of->rows);
		return;
	}
	for (uint64_t i = 0; i < x->n_rows; i++)
		fuzz_require(x->index[i] < of->rows);
}

static void check(const struct ob_edits *x)
{
	const struct ob_adapter_info *a = &x->adapter[0];
	size_t edited = 0;

	fuzz_require(a->used + a->ignored + a->unused == a->keys && a->used && a->modules);
	for (size_t i = 0; i < x->n_tensors + x->n_extra; i++) {
		const struct ob_tensor_edits *of = i < x->n_tensors ? &x->of[i]
								    : &x->extra[0].edits;

		edited += of->n > 0;
		for (size_t k = 0; k < of->n; k++)
			check_edit(of, &of->edit[k]);
	}
	fuzz_require(edited == x->n_edited && edited);
}

static void resolve(bool allow_unused)
{
	struct ob_adapter_options options = { .allow_unused = allow_unused };
	struct ob_adapter_spec spec = { .path = in_scratch("adapter"), .scale = 1 };
	struct ob_edits *x;
	ob_err e = { 0 };
	int rc;

	fuzz_begin();
	rc = ob_edits_resolve(&x, &spec, 1, model, &options, &e);
	fuzz_end(rc, &e);
	if (rc == 0)
		check(x);
	ob_edits_free(x);
}

static void fuzz_data(const char *data, size_t size)
{
	if (!put_adapter(data, size))
		return;
	resolve(false);
	resolve(true);
}
