/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tied embeddings: a model whose head is its embedding stores one table. Edits that are meant for
 * one of the two only make them differ; then both are written and config.json says so.
 */
#include <string.h>

#include "adapter/reader.h"
#include "adapter/resolve.h"

/* ---- config.json ---- */

static const char *const places[] = { "", "text_config" };
#define N_PLACES (sizeof(places) / sizeof(places[0]))

static const struct ob_jv *place(const struct ob_model *m, size_t i)
{
	return *places[i] ? ob_json_get(m->config, places[i]) : m->config;
}

/* Sets `key` wherever config.json has it. Returns how often, or -1. */
static int set_config(struct ob_edits *x, const struct ob_model *m, const char *key,
		      const char *value, ob_err *e)
{
	struct ob_config_change *c;
	int n = 0;

	if (!x->config)
		x->config = ob_arena_alloc(&x->arena, 2 * N_PLACES * sizeof(*x->config), e);
	if (!x->config || !value)
		return -1;
	for (size_t i = 0; i < N_PLACES; i++) {
		if (!ob_json_get(place(m, i), key))
			continue;
		c = &x->config[x->n_config++];
		*c = (struct ob_config_change){ places[i], key, value };
		n++;
	}
	return n;
}

static int untie_config(struct ob_edits *x, const struct ob_targets *t, const struct ob_entry *by,
			ob_err *e)
{
	static const char key[] = "tie_word_embeddings", no[] = "false";
	int n;

	if (!t->model->config)
		return ob_fail(e, OB_MISMATCH,
			       "%s: changes \"%s\" alone, but the model ties it to "
			       "\"%s\", and %s has no config.json in which to untie them",
			       x->adapter[by->edit.adapter].path,
			       OB_SHOWN(ob_target_name(t, by->target)),
			       OB_SHOWN(ob_target_name(t, by->target == t->head ? t->embedding
										: t->head)),
			       t->model->path);
	n = set_config(x, t->model, key, no, e);
	if (n < 0)
		return -1;
	/* Tied by the default of its family: say it wherever a loader may look. */
	for (size_t i = 0; n == 0 && i < N_PLACES; i++)
		if (place(t->model, i))
			x->config[x->n_config++] = (struct ob_config_change){ places[i], key, no };
	return 0;
}

/* ---- which edits are for both ---- */

static bool is_resize(const struct ob_targets *t, const struct ob_entry *x)
{
	return x->edit.kind == OB_EDIT_REPLACE &&
	       x->shape.dim[0] != t->model->tensor[t->embedding].shape.dim[0];
}

/* The edit of the head that the same adapter made of the same kind; NULL without one. */
static struct ob_entry *of_head(const struct ob_targets *t, const struct ob_entries *list,
				const struct ob_entry *x)
{
	for (struct ob_entry *y = list->entry; y < list->entry + list->n; y++)
		if (y->target == t->head && y->edit.adapter == x->edit.adapter &&
		    y->edit.kind == x->edit.kind)
			return y;
	return NULL;
}

static void mark(const struct ob_targets *t, struct ob_entries *list)
{
	for (struct ob_entry *x = list->entry; x < list->entry + list->n; x++) {
		struct ob_entry *y;

		if (x->target != t->embedding)
			continue;
		y = of_head(t, list, x);
		/* A vocabulary that grew during training grew for both. */
		if (!y)
			x->shared |= is_resize(t, x);
		else if ((x->shared && x->edit.kind == OB_EDIT_LOWRANK) ||
			 ob_same_edit(&x->edit, &y->edit))
			x->shared = y->dropped = true;
		else
			x->shared = false;
	}
}

/* The first edit after which embedding and head differ; NULL when there is none. */
static const struct ob_entry *find_difference(const struct ob_targets *t,
					      const struct ob_entries *list)
{
	for (const struct ob_entry *x = list->entry; x < list->entry + list->n; x++)
		if ((x->target == t->embedding && !x->shared) ||
		    (x->target == t->head && !x->dropped))
			return x;
	return NULL;
}

/* Leaves out what was dropped, and gives the head a copy of what is shared. */
static int rewrite(struct ob_targets *t, struct ob_entries *list, bool has_head, ob_err *e)
{
	struct ob_entries out = { 0 };

	for (size_t i = 0; i < list->n; i++) {
		const struct ob_entry *x = &list->entry[i];

		if (x->dropped)
			continue;
		for (int copy = 0; copy < 2; copy++) {
			if (copy && !(has_head && x->shared && x->target == t->embedding))
				continue;
			if (ob_grow(&out.entry, &out.cap, out.n, sizeof(*x), e) != 0) {
				ob_free(out.entry);
				return -1;
			}
			out.entry[out.n] = *x;
			if (copy)
				out.entry[out.n].target = t->head;
			if (copy && x->edit.kind == OB_EDIT_REPLACE)
				t->shape[t->head] = x->shape;
			out.n++;
		}
	}
	ob_free(list->entry);
	*list = out;
	return 0;
}

int ob_resolve_tied(struct ob_edits *x, struct ob_targets *t, struct ob_entries *list, bool *untied,
		    ob_err *e)
{
	const struct ob_entry *by;

	*untied = false;
	if (!t->tied || !list->n)
		return 0;
	mark(t, list);
	by = find_difference(t, list);
	*untied = by;
	if (by && untie_config(x, t, by, e) != 0)
		return -1;
	return rewrite(t, list, *untied || t->head < (long)t->n, e);
}

/* ---- vocabulary ---- */

int ob_resolve_vocabulary(struct ob_edits *x, const struct ob_targets *t, bool has_head, ob_err *e)
{
	const struct ob_tensor *stored = t->model->tensor;
	uint64_t before, now, head;

	if (t->embedding < 0)
		return 0;
	before = stored[t->embedding].shape.dim[0];
	now = t->shape[t->embedding].dim[0];
	head = has_head ? t->shape[t->head].dim[0] : now;
	if (has_head && now != head &&
	    (now != before ||
	     !ob_shape_equal(&t->shape[t->head],
			     &stored[t->head < (long)t->n ? t->head : t->embedding].shape)))
		return ob_fail(e, OB_MISMATCH,
			       "the adapters leave \"%s\" with %llu rows and \"%s\" "
			       "with %llu; a new size of the vocabulary must be given for both",
			       OB_SHOWN(ob_target_name(t, t->embedding)), (unsigned long long)now,
			       OB_SHOWN(t->head_name), (unsigned long long)head);
	if (now == before)
		return 0;
	return set_config(x, t->model, "vocab_size",
			  ob_arena_printf(&x->arena, e, "%llu", (unsigned long long)now), e) < 0
		       ? -1
		       : 0;
}
