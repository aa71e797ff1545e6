/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of name resolution. The input is a line with the model's type, its tensors, a line
 * "--", and what an adapter changes: a letter for the kind of change (L, E, B, R or T), the key and
 * the dimensions of what is added. For any input that matches:
 *  - a change goes to a tensor whose shape fits and whose name holds the module's last component;
 *  - the order of the keys decides nothing.
 */
#include "adapter/names.h"
#include "adapter/peft.h"
#include "adapter/resolve.h"
#include "fuzz.h"
#include "tensor_line.h"

#define MAX_TENSORS 64
#define MAX_CHANGES 64

struct input {
	struct ob_arena arena;
	struct ob_model model;
	struct ob_tensor tensor[MAX_TENSORS];
	struct ob_targets targets;
	struct ob_shape shape[MAX_TENSORS + 1];
	struct ob_change change[MAX_CHANGES], reversed[MAX_CHANGES];
	struct ob_reader_result result;
	struct ob_adapter_file file;
};

static const struct ob_shape *keep_shape(struct input *in, const struct ob_shape *s,
					 struct ob_shape *to, ob_err *e)
{
	uint64_t *dim = ob_arena_alloc(&in->arena, LINE_MAX_RANK * sizeof(*dim), e);

	fuzz_require(dim);
	memcpy(dim, s->dim, s->rank * sizeof(*dim));
	*to = (struct ob_shape){ s->rank, dim };
	return to;
}

/* The model's type and tensors; returns what follows the mark, NULL when there is no model. */
static const char *read_model(struct input *in, const char *at, const char *end, ob_err *e)
{
	const char *stop = memchr(at, '\n', (size_t)(end - at));
	struct ob_text config = { 0 };
	struct tensor_line l;
	struct ob_model *m = &in->model;

	if (!stop)
		return NULL;
	ob_text_printf(&config, "{\"model_type\":");
	ob_text_json(&config, at, (size_t)(stop - at));
	ob_text_add(&config, "}", 1);
	if (ob_json_parse(&m->config, config.data, config.len, "fuzz", e) != 0)
		m->config = NULL; /* a NUL in the name */
	ob_text_free(&config);
	m->tensor = in->tensor;
	for (at = stop + 1; tensor_line(&at, end, &l) == 1;) {
		struct ob_tensor *t = &in->tensor[m->n_tensors];

		if (l.len == 2 && !memcmp(l.name, "--", 2))
			return at;
		if (m->n_tensors == MAX_TENSORS || memchr(l.name, '\0', l.len))
			return NULL;
		t->name = ob_arena_strndup(&in->arena, l.name, l.len, e);
		keep_shape(in, &l.shape, &t->shape, e);
		if (ob_map_add(&m->by_name, t->name, l.len, (uint32_t)m->n_tensors, e) == 0)
			m->n_tensors++;
	}
	return NULL;
}

/* As the resolver does. */
static void make_targets(struct input *in)
{
	struct ob_targets *t = &in->targets;
	const char *embedding, *head;

	*t = (struct ob_targets){ .model = &in->model, .n = in->model.n_tensors };
	t->shape = in->shape;
	t->embedding = t->head = -1;
	for (size_t i = 0; i < t->n; i++)
		t->shape[i] = in->tensor[i].shape;
	ob_family_embeddings(&in->model, &embedding, &head);
	if (embedding)
		t->embedding = ob_model_find(&in->model, embedding);
	if (t->embedding < 0 || !head)
		return;
	t->head_name = head;
	t->head = ob_model_find(&in->model, head);
	t->tied = ob_family_tied(&in->model);
	if (t->head < 0 && t->tied) {
		t->head = (long)t->n;
		t->shape[t->n] = t->shape[t->embedding];
	}
}

static bool is_twice(const struct input *in, const struct ob_change *c)
{
	for (size_t i = 0; i < in->result.n_changes; i++)
		if (in->change[i].kind == OB_CHANGE_REPLACE && !strcmp(c->path, in->change[i].path))
			return true;
	return false;
}

static bool add_change(struct input *in, const struct tensor_line *l, ob_err *e)
{
	static const char kinds[] = "LEBRT"; /* in the order of enum ob_change_kind */
	struct ob_change *c = &in->change[in->result.n_changes];
	const char *kind = l->len ? memchr(kinds, l->name[0], 5) : NULL;
	struct ob_peft_key key;
	uint64_t rows, cols;

	if (!kind || memchr(l->name, '\0', l->len) || in->result.n_changes == MAX_CHANGES)
		return false;
	*c = (struct ob_change){ .kind = (enum ob_change_kind)(kind - kinds), .n_keys = 1 };
	c->key = ob_arena_strndup(&in->arena, l->name + 1, l->len - 1, e);
	fuzz_require(ob_peft_key_parse(c->key, &in->arena, &key, e) == 0);
	fuzz_require(key.path && strlen(key.path) <= l->len);
	c->path = key.path;
	c->module = ob_name_stripped(c->path, &in->arena, e);
	c->param = c->kind == OB_CHANGE_BIAS_ADD ? "bias" : "weight";
	if (c->kind == OB_CHANGE_REPLACE && key.param)
		c->param = key.param;
	keep_shape(in, &l->shape, &c->shape, e);
	ob_target_matrix(&c->shape, &rows, &cols);
	c->b = (struct ob_view){ .rows = rows, .cols = cols };
	c->a = c->b;
	if (c->kind != OB_CHANGE_REPLACE || !is_twice(in, c))
		in->result.n_changes++;
	return true;
}

static bool read_input(struct input *in, const char *data, size_t size, ob_err *e)
{
	const char *at = read_model(in, data, data + size, e);
	struct tensor_line l;
	int got = -1;

	if (!at)
		return false;
	make_targets(in);
	in->result.change = in->change;
	while ((got = tensor_line(&at, data + size, &l)) == 1)
		if (!add_change(in, &l, e))
			return false;
	in->file = (struct ob_adapter_file){ .path = "fuzz", .arena = &in->arena };
	in->file.list.n_tensors = in->result.n_changes;
	for (size_t i = 0; i < in->result.n_changes; i++)
		in->reversed[i] = in->change[in->result.n_changes - 1 - i];
	return got == 0;
}

static int match(struct input *in, struct ob_change *change, struct ob_hit *hit, ob_err *e)
{
	const char *names;

	in->result.change = change;
	if (ob_match(&in->targets, &in->file, &in->result, hit, &names, e) != 0)
		return -1;
	return ob_orient(&in->targets, &in->file, &in->result, hit, e);
}

static void check_hit(const struct input *in, const struct ob_change *c, const struct ob_hit *h)
{
	const char *dot = strrchr(c->module, '.'), *last = dot ? dot + 1 : c->module;

	if (h->target < 0)
		return;
	fuzz_require((size_t)h->target <= in->targets.n);
	fuzz_require(h->fit == OB_FIT_NORMAL ||
		     (h->fit == OB_FIT_TRANSPOSED && c->kind == OB_CHANGE_LINEAR));
	if (*last)
		fuzz_require(ob_name_component(ob_target_name(&in->targets, h->target), last));
}

/* A message for those that match nothing. */
static void check_unmatched(struct input *in, const struct ob_hit *hit)
{
	size_t unused = 0;
	ob_err e = { 0 };
	int rc;

	for (size_t i = 0; i < in->result.n_changes; i++)
		unused += hit[i].target < 0;
	if (!unused)
		return;
	fuzz_begin();
	rc = ob_match_fail(&in->targets, &in->file, &in->result, hit, unused, &e);
	fuzz_require(rc == -1 && (!fuzz_end(rc, &e) || e.code == OB_MISMATCH));
}

static void check(struct input *in)
{
	size_t n = in->result.n_changes;
	struct ob_hit hit[MAX_CHANGES] = { 0 }, again[MAX_CHANGES] = { 0 };
	ob_err e = { 0 }, other = { 0 };
	int rc;

	fuzz_begin();
	rc = match(in, in->change, hit, &e);
	if (!fuzz_end(rc, &e))
		return;
	fuzz_require(rc == 0 || e.code == OB_MISMATCH);
	fuzz_require(match(in, in->reversed, again, &other) == rc);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		check_hit(in, &in->change[i], &hit[i]);
		fuzz_require(hit[i].target == again[n - 1 - i].target &&
			     hit[i].fit == again[n - 1 - i].fit);
	}
	in->result.change = in->change;
	if (rc == 0)
		check_unmatched(in, hit);
}

static void fuzz_data(const char *data, size_t size)
{
	struct input in = { 0 };
	ob_err e = { 0 };

	if (read_input(&in, data, size, &e))
		check(&in);
	ob_map_free(&in.model.by_name);
	ob_json_free(in.model.config);
	ob_arena_free(&in.arena);
}
