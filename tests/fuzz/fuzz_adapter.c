/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the adapter readers and the resolver. The input is an adapter_config.json, a line
 * "--", and a line per tensor: its name and its dimensions. For any input that resolves:
 *  - every key is used, ignored or reported as unused;
 *  - every view lies inside the file, and every edit inside its tensor;
 *  - nothing leaks, also where an allocation fails.
 */
#include "../io/scratch.h"
#include "adapter/adapter.h"
#include "base/num.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_TENSORS 64
#define MAX_ELEMS 1024
#define WEIGHTS "adapter/adapter_model.safetensors"
#define CONFIG "adapter/adapter_config.json"

static struct ob_model *model;

static void require(bool ok)
{
	if (!ok)
		abort();
}

/* A safetensors file of ones; the header's text ends behind its last tensor. */
static void put_tensors(const char *name, struct ob_text *header, size_t floats)
{
	static const float one = 1;
	FILE *f = fopen(in_scratch(name), "wb");
	uint64_t len;

	ob_text_add(header, "}", 1);
	require(f && !header->failed);
	len = header->len;
	require(fwrite(&len, 8, 1, f) == 1 && fwrite(header->data, len, 1, f) == 1);
	for (size_t i = 0; i < floats; i++)
		require(fwrite(&one, 4, 1, f) == 1);
	require(fclose(f) == 0);
}

static void add_tensor(struct ob_text *header, const char *name, size_t len, const uint64_t *dim,
		       size_t rank, size_t *floats)
{
	size_t n = 1;

	ob_text_add(header, header->len ? "," : "{", 1);
	ob_text_json(header, name, len);
	ob_text_printf(header, ":{\"dtype\":\"F32\",\"shape\":[");
	for (size_t i = 0; i < rank; i++) {
		ob_text_printf(header, "%s%llu", i ? "," : "", (unsigned long long)dim[i]);
		n *= (size_t)dim[i];
	}
	ob_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", *floats * 4, (*floats + n) * 4);
	*floats += n;
}

/* "NAME D D D": false when it is no such line. */
static bool add_line(struct ob_text *header, const char *line, size_t len, size_t *floats)
{
	const char *space = memchr(line, ' ', len);
	uint64_t dim[8], n = 1;
	size_t rank = 0, at = space ? (size_t)(space - line) : len, name = at;

	while (at < len && rank < 8) {
		uint64_t d = 0;

		for (at++; at < len && line[at] >= '0' && line[at] <= '9' && d < MAX_ELEMS; at++)
			d = 10 * d + (uint64_t)(line[at] - '0');
		if (at < len && line[at] != ' ')
			return false;
		dim[rank++] = d;
		n *= d;
		if (n > MAX_ELEMS)
			return false;
	}
	add_tensor(header, line, name, dim, rank, floats);
	return true;
}

static void make_model(void)
{
	static const char text[] = "{\"model_type\":\"toy\",\"tie_word_embeddings\":true,"
				   "\"vocab_size\":5}";
	static const char *const lines[] = {
		"model.embed_tokens.weight 5 3",
		"model.norm.weight 3",
		"model.layers.0.self_attn.q_proj.weight 4 3",
		"model.layers.0.self_attn.q_proj.bias 4",
		"model.layers.0.self_attn.o_proj.weight 3 3",
		"model.layers.1.self_attn.q_proj.weight 4 3",
		"conv.weight 4 3 2 2",
		"vision_tower.layers.0.self_attn.q_proj.weight 4 3",
		"attn.in_proj_weight 9 3",
	};
	struct ob_text header = { 0 };
	size_t floats = 0;
	ob_err e = { 0 };

	require(mkdir(in_scratch("model"), 0700) == 0);
	put_file(in_scratch("model/config.json"), text, strlen(text));
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		require(add_line(&header, lines[i], strlen(lines[i]), &floats));
	put_tensors("model/model.safetensors", &header, floats);
	ob_text_free(&header);
	require(ob_model_open(&model, in_scratch("model"), &e) == 0);
}

static void clean_up(void)
{
	ob_model_close(model);
	scratch_remove();
}

static void set_up(void)
{
	scratch_make();
	atexit(clean_up);
	make_model();
	require(mkdir(in_scratch("adapter"), 0700) == 0);
}

/* Writes the adapter; false when the input is no description of one. */
static bool put_adapter(const char *data, size_t size)
{
	const char *mark = memmem(data, size, "\n--\n", 4);
	struct ob_text header = { 0 };
	const char *line = mark ? mark + 4 : data, *end = data + size;
	size_t floats = 0, n = 0;
	bool ok = mark;

	for (; ok && line < end && n < MAX_TENSORS; n++) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));

		stop = stop ? stop : end;
		ok = add_line(&header, line, (size_t)(stop - line), &floats);
		line = stop + 1;
	}
	if (ok && n) {
		put_tensors(WEIGHTS, &header, floats);
		unlink(in_scratch(CONFIG));
		if (mark > data)
			put_file(in_scratch(CONFIG), data, (size_t)(mark - data));
	}
	ob_text_free(&header);
	return ok && n;
}

static void check_view(const struct ob_view *v)
{
	require(v->rows && v->cols);
	require(ob_in_file(v->off, ob_view_bytes(v), v->file->stamp.size));
}

static void check_edit(const struct ob_tensor_edits *of, const struct ob_edit *x)
{
	check_view(&x->b);
	if (x->kind == OB_EDIT_LOWRANK) {
		check_view(&x->a);
		require(x->a.rows == x->b.cols && x->a.cols == x->n_cols);
	}
	require(x->b.rows == x->n_rows);
	require(x->col0 + x->n_cols <= of->cols);
	if (x->kind != OB_EDIT_REPLACE_ROWS) {
		require(x->row0 + x->n_rows <= of->rows);
		return;
	}
	for (uint64_t i = 0; i < x->n_rows; i++)
		require(x->index[i] < of->rows);
}

static void check(const struct ob_edits *x)
{
	const struct ob_adapter_info *a = &x->adapter[0];
	size_t edited = 0;

	require(a->used + a->ignored + a->unused == a->keys && a->used && a->modules);
	for (size_t i = 0; i < x->n_tensors + x->n_extra; i++) {
		const struct ob_tensor_edits *of = i < x->n_tensors ? &x->of[i]
								    : &x->extra[0].edits;

		edited += of->n > 0;
		for (size_t k = 0; k < of->n; k++)
			check_edit(of, &of->edit[k]);
	}
	require(edited == x->n_edited && edited);
}

static void resolve(bool allow_unused, bool checked)
{
	struct ob_adapter_options options = { .allow_unused = allow_unused };
	struct ob_adapter_spec spec = { .path = in_scratch("adapter"), .scale = 1 };
	struct ob_edits *x;
	ob_err e = { 0 };
	int rc;

	rc = ob_edits_resolve(&x, &spec, 1, model, &options, &e);
	require((rc == 0) == (e.code == OB_OK) && e.code != OB_INTERNAL);
	if (rc == 0 && checked)
		check(x);
	ob_edits_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t in_use;

	if (!model)
		set_up();
	if (!put_adapter((const char *)data, size))
		return 0;
	in_use = ob_alloc_stats().in_use;
	resolve(false, true);
	resolve(true, true);
	ob_alloc_fail_at(1 + size % 61, true);
	resolve(true, false);
	ob_alloc_fail_at(0, false);
	require(ob_alloc_stats().in_use == in_use);
	return 0;
}
