/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters against a model: from what they ask for to the edits of every tensor. */
#include <math.h>
#include <string.h>

#include "adapter/names.h"
#include "adapter/reader.h"
#include "adapter/resolve.h"
#include "base/num.h"

struct resolver {
	struct ob_edits *x;
	const struct ob_adapter_options *opt;
	struct ob_targets t;
	struct ob_entries list;
	/* Token rows that are taken: (tensor, row) -> adapter. */
	struct ob_map rows;
	/* The adapter at hand. */
	uint32_t adapter;
	const struct ob_adapter_file *f;
	struct ob_reader_result r;
	struct ob_hit *hit;
	struct ob_adapter_info *info;
	size_t first;	/* its first entry */
	size_t *latest; /* per target: 1 + the latest entry of any adapter; 0: none */
};

/* ---- notes ---- */

static int add_note(struct resolver *rs, const char *note, ob_err *e)
{
	struct ob_adapter_info *info = rs->info;

	if (!note)
		return -1;
	if (rs->opt->strict)
		return ob_fail(e, OB_MISMATCH, "%s: %s (--strict)", rs->f->path, note);
	info->note[info->n_notes++] = note;
	return 0;
}

/* ---- entries ---- */

static struct ob_entry *new_entry(struct resolver *rs, size_t i, enum ob_edit_kind kind, ob_err *e)
{
	const struct ob_change *c = &rs->r.change[i];
	struct ob_entry *x;

	if (ob_grow(&rs->list.entry, &rs->list.cap, rs->list.n, sizeof(*x), e) != 0)
		return NULL;
	x = &rs->list.entry[rs->list.n];
	*x = (struct ob_entry){ .target = rs->hit[i].target };
	x->edit = (struct ob_edit){ .kind = kind,
				    .adapter = rs->adapter,
				    .key = c->module,
				    .coeff = (float)c->coeff,
				    .a = c->a,
				    .b = c->b };
	return x;
}

bool ob_same_edit(const struct ob_edit *x, const struct ob_edit *y)
{
	if (x->coeff != y->coeff || !ob_view_equal(&x->b, &y->b))
		return false;
	if (x->kind == OB_EDIT_LOWRANK)
		return ob_view_equal(&x->a, &y->a);
	return x->kind != OB_EDIT_REPLACE_ROWS ||
	       !memcmp(x->index, y->index, (size_t)x->n_rows * sizeof(*x->index));
}

/* Takes the entry that was filled last into the list, unless the adapter asked for the same before
 * under another spelling. */
static int commit(struct resolver *rs, size_t i, ob_err *e)
{
	const struct ob_change *c = &rs->r.change[i];
	struct ob_entry *x = &rs->list.entry[rs->list.n];
	const struct ob_entry *y = NULL;
	size_t at = rs->latest[x->target];

	x->before = at > rs->first ? at : 0;
	for (at = x->before; at && !y; at = rs->list.entry[at - 1].before)
		if (rs->list.entry[at - 1].edit.kind == x->edit.kind)
			y = &rs->list.entry[at - 1];
	if (!y) {
		rs->latest[x->target] = ++rs->list.n;
		return 0;
	}
	if (!ob_same_edit(&x->edit, &y->edit))
		return ob_fail(e, OB_MISMATCH,
			       "%s: the keys of \"%s\" and \"%s\" change the same "
			       "tensor \"%s\" in different ways",
			       rs->f->path, OB_SHOWN(y->edit.key), OB_SHOWN(c->module),
			       OB_SHOWN(ob_target_name(&rs->t, x->target)));
	return add_note(rs,
			ob_arena_printf(&rs->x->arena, e,
					"\"%s\" is there under two names with "
					"the same values; it was used once",
					c->module),
			e);
}

static int add_lowrank(struct resolver *rs, size_t i, ob_err *e)
{
	struct ob_entry *x = new_entry(rs, i, OB_EDIT_LOWRANK, e);
	struct ob_adapter_info *info = rs->info;

	if (!x)
		return -1;
	if (rs->hit[i].fit == OB_FIT_TRANSPOSED) {
		/* (B A)^T = A^T B^T */
		struct ob_view a = x->edit.a;

		x->edit.a = ob_view_transposed(&x->edit.b);
		x->edit.b = ob_view_transposed(&a);
	}
	x->edit.n_rows = x->edit.b.rows;
	x->edit.n_cols = x->edit.a.cols;
	x->shared = rs->r.shares_tie;
	if (!info->rank_min || x->edit.a.rows < info->rank_min)
		info->rank_min = x->edit.a.rows;
	if (x->edit.a.rows > info->rank_max)
		info->rank_max = x->edit.a.rows;
	return commit(rs, i, e);
}

static int add_dense(struct resolver *rs, size_t i, enum ob_edit_kind kind, ob_err *e)
{
	struct ob_entry *x = new_entry(rs, i, kind, e);

	if (!x)
		return -1;
	x->edit.n_rows = x->edit.b.rows;
	x->edit.n_cols = x->edit.b.cols;
	x->shape = rs->r.change[i].shape;
	x->shared = rs->r.shares_tie;
	if (kind == OB_EDIT_REPLACE)
		rs->t.shape[x->target] = x->shape;
	return commit(rs, i, e);
}

/* A row may be given once, by one adapter. */
static int take_row(struct resolver *rs, const struct ob_change *c, long target, uint64_t row,
		    ob_err *e)
{
	uint64_t *key = ob_arena_alloc(&rs->x->arena, 2 * sizeof(*key), e);
	uint32_t by;
	int rc;

	if (!key)
		return -1;
	key[0] = (uint64_t)target;
	key[1] = row;
	rc = ob_map_add(&rs->rows, (const char *)key, 2 * sizeof(*key), rs->adapter, e);
	if (rc <= 0)
		return rc;
	ob_map_find(&rs->rows, (const char *)key, 2 * sizeof(*key), &by);
	return ob_fail(e, OB_MISMATCH,
		       "%s: the key \"%s\" replaces row %llu of \"%s\", which %s "
		       "replaces already",
		       rs->f->path, OB_SHOWN(c->key), (unsigned long long)row,
		       OB_SHOWN(ob_target_name(&rs->t, target)),
		       by == rs->adapter ? "the same list" : rs->x->adapter[by].path);
}

static int add_rows(struct resolver *rs, size_t i, ob_err *e)
{
	const struct ob_change *c = &rs->r.change[i];
	struct ob_entry *x = new_entry(rs, i, OB_EDIT_REPLACE_ROWS, e);
	uint64_t rows;

	if (!x)
		return -1;
	rows = rs->t.shape[x->target].dim[0];
	for (size_t j = 0; j < c->n_index; j++) {
		if (c->index[j] >= rows)
			return ob_fail(e, OB_MISMATCH,
				       "%s: the key \"%s\" replaces row %llu, but "
				       "\"%s\" has %llu rows",
				       rs->f->path, OB_SHOWN(c->key),
				       (unsigned long long)c->index[j],
				       OB_SHOWN(ob_target_name(&rs->t, x->target)),
				       (unsigned long long)rows);
		if (take_row(rs, c, x->target, c->index[j], e) != 0)
			return -1;
	}
	x->edit.n_rows = c->n_index;
	x->edit.n_cols = x->edit.b.cols;
	x->edit.index = c->index;
	x->shared = true;
	return commit(rs, i, e);
}

static int add_entry(struct resolver *rs, size_t i, ob_err *e)
{
	switch (rs->r.change[i].kind) {
	case OB_CHANGE_LINEAR:
	case OB_CHANGE_EMBEDDING:
		return add_lowrank(rs, i, e);
	case OB_CHANGE_BIAS_ADD:
		return add_dense(rs, i, OB_EDIT_ADD, e);
	case OB_CHANGE_REPLACE:
		return add_dense(rs, i, OB_EDIT_REPLACE, e);
	default:
		return add_rows(rs, i, e);
	}
}

/* ---- one adapter ---- */

/* Counts keys; an unused change of zeros is only a remark. */
static int account(struct resolver *rs, ob_err *e)
{
	struct ob_adapter_info *info = rs->info;
	size_t unused = 0;

	info->keys = rs->f->list.n_tensors;
	info->ignored = rs->r.n_ignored;
	for (size_t i = 0; i < rs->r.n_changes; i++) {
		const struct ob_change *c = &rs->r.change[i];

		if (rs->hit[i].fit) {
			info->used += c->n_keys;
			continue;
		}
		info->unused += c->n_keys;
		unused += c->zero ? 0 : c->n_keys;
	}
	if (unused && (!rs->opt->allow_unused || !info->used))
		return ob_match_fail(&rs->t, rs->f, &rs->r, rs->hit, unused, e);
	for (size_t i = 0; i < rs->r.n_changes; i++) {
		const struct ob_change *c = &rs->r.change[i];

		if (!rs->hit[i].fit &&
		    add_note(rs,
			     ob_arena_printf(&rs->x->arena, e,
					     "the key \"%s\" matches no tensor "
					     "of the model%s",
					     c->key, c->zero ? " (it would add only zeros)" : ""),
			     e))
			return -1;
	}
	return 0;
}

static int check_editable(const struct resolver *rs, size_t i, ob_err *e)
{
	const struct ob_change *c = &rs->r.change[i];
	long target = rs->hit[i].target;
	const struct ob_tensor *t;

	if (!isfinite((float)c->coeff))
		return ob_fail(e, OB_NONFINITE,
			       "%s: the scale of \"%s\" is %g, which is no finite "
			       "float32",
			       rs->f->path, OB_SHOWN(c->module), c->coeff);
	if ((size_t)target == rs->t.n)
		target = rs->t.embedding;
	t = &rs->t.model->tensor[target];
	if (t->enc.codec != &ob_codec_raw)
		return 0;
	return ob_fail(e, OB_UNSUPPORTED,
		       "%s: the key \"%s\" changes the tensor \"%s\", which is "
		       "stored as %s and cannot be changed",
		       rs->f->path, OB_SHOWN(c->key), OB_SHOWN(t->name),
		       ob_dtype_name(t->enc.dtype));
}

/* Which pass takes a change: whole tensors come first, then rows, then what is added. */
static int pass_of(const struct ob_change *c)
{
	if (c->kind == OB_CHANGE_REPLACE)
		return 0;
	return c->kind == OB_CHANGE_ROWS ? 1 : 2;
}

static int add_entries(struct resolver *rs, ob_err *e)
{
	bool replaces = false;

	for (int pass = 0; pass < 3; pass++)
		for (size_t i = 0; i < rs->r.n_changes; i++) {
			const struct ob_change *c = &rs->r.change[i];

			if (pass_of(c) != pass || c->zero || !rs->hit[i].fit)
				continue;
			if (check_editable(rs, i, e) != 0 || add_entry(rs, i, e) != 0)
				return -1;
			replaces |= pass < 2;
		}
	if (rs->list.n == rs->first)
		return ob_fail(e, OB_MISMATCH, "%s: would change nothing: %s", rs->f->path,
			       rs->r.n_changes ? "every update in it is zero (was it trained?)"
					       : "it holds no update");
	if (replaces && rs->f->scale != 1)
		return add_note(rs,
				"it replaces tensors or rows as a whole; the scale does not "
				"apply to those",
				e);
	return 0;
}

static int resolve_names(struct resolver *rs, ob_err *e)
{
	if (ob_match(&rs->t, rs->f, &rs->r, rs->hit, &rs->info->names, e) != 0 ||
	    account(rs, e) != 0)
		return -1;
	return ob_orient(&rs->t, rs->f, &rs->r, rs->hit, e);
}

static int resolve_one(struct resolver *rs, const struct ob_adapter_spec *spec, ob_err *e)
{
	struct ob_edits *x = rs->x;
	int rc;

	rs->info = &x->adapter[rs->adapter];
	if (ob_adapter_open(&x->file[rs->adapter], &x->arena, spec, e) != 0)
		return -1;
	rs->f = x->file[rs->adapter];
	*rs->info = (struct ob_adapter_info){ .path = rs->f->path, .scale = spec->scale };
	if (spec->scale == 0)
		return ob_fail(e, OB_MISMATCH, "%s: would change nothing at scale 0", rs->f->path);
	if (ob_adapter_read(rs->f, &rs->r, e) != 0)
		return -1;
	rs->info->family = rs->r.family;
	rs->info->alpha = rs->r.alpha;
	/* One note per change for its name, one for a double, and those of the reader and ours. */
	rs->info->note =
		ob_arena_alloc(&x->arena,
			       (2 * rs->r.n_changes + rs->r.n_notes + 1) * sizeof(*rs->info->note),
			       e);
	if (!rs->info->note)
		return -1;
	for (size_t i = 0; i < rs->r.n_notes; i++)
		if (add_note(rs, rs->r.note[i], e) != 0)
			return -1;
	rs->first = rs->list.n;
	rs->hit = ob_calloc(rs->r.n_changes, sizeof(*rs->hit));
	if (!rs->hit)
		return ob_fail_nomem(e, "resolving an adapter");
	rc = resolve_names(rs, e);
	if (rc == 0)
		rc = add_entries(rs, e);
	ob_free(rs->hit);
	rs->hit = NULL;
	return rc;
}

/* ---- the result ---- */

static struct ob_tensor_edits *edits_of(struct ob_edits *x, long target)
{
	return (size_t)target < x->n_tensors ? &x->of[target] : &x->extra[0].edits;
}

static int init_edits(struct ob_edits *x, struct ob_tensor_edits *of, const struct ob_shape *shape,
		      ob_err *e)
{
	of->shape = *shape;
	ob_target_matrix(shape, &of->rows, &of->cols);
	if (!of->n)
		return 0;
	of->edit = ob_arena_alloc(&x->arena, of->n * sizeof(*of->edit), e);
	of->n = 0;
	x->n_edited++;
	return of->edit ? 0 : -1;
}

/* From one list to a list per tensor, in the same order; what comes before a replacement of the
 * whole tensor has no effect and is left out. `first` is scratch: a number per target. */
static int distribute(struct ob_edits *x, const struct ob_targets *t, const struct ob_entries *list,
		      size_t *first, ob_err *e)
{
	memset(first, 0, (t->n + 1) * sizeof(*first));
	for (size_t i = 0; i < list->n; i++) {
		struct ob_tensor_edits *of = edits_of(x, list->entry[i].target);

		if (list->entry[i].edit.kind == OB_EDIT_REPLACE) {
			first[list->entry[i].target] = i;
			of->n = 0;
		}
		of->n++;
	}
	for (size_t i = 0; i < t->n + x->n_extra; i++)
		if (init_edits(x, edits_of(x, (long)i), &t->shape[i], e) != 0)
			return -1;
	for (size_t i = 0; i < list->n; i++) {
		struct ob_tensor_edits *of = edits_of(x, list->entry[i].target);

		if (i >= first[list->entry[i].target])
			of->edit[of->n++] = list->entry[i].edit;
	}
	return 0;
}

static int add_head(struct ob_edits *x, const struct ob_targets *t, ob_err *e)
{
	x->extra = ob_arena_alloc(&x->arena, sizeof(*x->extra), e);
	if (!x->extra)
		return -1;
	x->extra[0] =
		(struct ob_extra_tensor){ .name = t->head_name, .source = (uint32_t)t->embedding };
	x->n_extra = 1;
	return 0;
}

/* How many tensors each adapter edits: several edits of one tensor count once. */
static void count_modules(struct ob_edits *x, const struct ob_tensor_edits *of)
{
	for (size_t i = 0; i < of->n; i++) {
		size_t j = 0;

		while (of->edit[j].adapter != of->edit[i].adapter)
			j++;
		x->adapter[of->edit[i].adapter].modules += j == i;
	}
}

static int finish(struct resolver *rs, ob_err *e)
{
	struct ob_edits *x = rs->x;
	struct ob_targets *t = &rs->t;
	bool untied, absent = t->head == (long)t->n;

	if (ob_resolve_tied(x, t, &rs->list, &untied, e) != 0 ||
	    ob_resolve_vocabulary(x, t, t->head >= 0 && (!absent || untied), e) != 0 ||
	    (untied && absent && add_head(x, t, e) != 0) ||
	    distribute(x, t, &rs->list, rs->latest, e) != 0)
		return -1;
	for (size_t i = 0; i < t->n + x->n_extra; i++)
		count_modules(x, edits_of(x, (long)i));
	for (size_t i = 0; i < x->n_adapters; i++)
		if (!x->adapter[i].modules)
			return ob_fail(e, OB_MISMATCH,
				       "%s: would change nothing: a later adapter "
				       "replaces all that it edits",
				       x->adapter[i].path);
	return 0;
}

/* The index of a [vocabulary, width] tensor; -1 without one. */
static long find_table(const struct ob_model *m, const char *name)
{
	long i = name ? ob_model_find(m, name) : -1;

	return i >= 0 && m->tensor[i].shape.rank == 2 ? i : -1;
}

static int init_targets(struct resolver *rs, const struct ob_model *m, ob_err *e)
{
	struct ob_targets *t = &rs->t;
	const char *embedding, *head;

	*t = (struct ob_targets){ .model = m, .n = m->n_tensors, .embedding = -1, .head = -1 };
	t->shape = ob_arena_alloc(&rs->x->arena, (t->n + 1) * sizeof(*t->shape), e);
	if (!t->shape)
		return -1;
	for (size_t i = 0; i < t->n; i++)
		t->shape[i] = m->tensor[i].shape;
	ob_family_embeddings(m, &embedding, &head);
	t->embedding = find_table(m, embedding);
	if (t->embedding < 0 || !head)
		return 0;
	t->head_name = head;
	t->head = find_table(m, head);
	if (ob_model_find(m, head) < 0 && ob_family_tied(m)) {
		t->head = (long)t->n;
		t->shape[t->n] = t->shape[t->embedding];
	}
	t->tied = t->head >= 0 && ob_family_tied(m);
	return 0;
}

static int resolve_all(struct resolver *rs, const struct ob_adapter_spec *spec, size_t n, ob_err *e)
{
	struct ob_edits *x = rs->x;

	x->file = ob_arena_alloc(&x->arena, n * sizeof(*x->file), e);
	x->adapter = ob_arena_alloc(&x->arena, n * sizeof(*x->adapter), e);
	x->of = ob_arena_alloc(&x->arena, rs->t.n * sizeof(*x->of), e);
	if (!x->file || !x->adapter || !x->of)
		return -1;
	x->n_tensors = rs->t.n;
	for (; rs->adapter < n; rs->adapter++) {
		x->n_adapters = rs->adapter + 1;
		if (resolve_one(rs, &spec[rs->adapter], e) != 0)
			return -1;
	}
	return finish(rs, e);
}

int ob_edits_resolve(struct ob_edits **out, const struct ob_adapter_spec *spec, size_t n,
		     const struct ob_model *m, const struct ob_adapter_options *opt, ob_err *e)
{
	struct ob_edits *x = ob_alloc(sizeof(*x));
	struct resolver rs = { .x = x, .opt = opt };
	int rc;

	*out = NULL;
	if (!x)
		return ob_fail_nomem(e, "adapters");
	rs.latest = ob_calloc(m->n_tensors + 1, sizeof(*rs.latest));
	rc = rs.latest ? init_targets(&rs, m, e) : ob_fail_nomem(e, "adapters");
	if (rc == 0)
		rc = resolve_all(&rs, spec, n, e);
	ob_free(rs.latest);
	ob_free(rs.list.entry);
	ob_map_free(&rs.rows);
	if (rc != 0) {
		ob_edits_free(x);
		return -1;
	}
	*out = x;
	return 0;
}

void ob_edits_free(struct ob_edits *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->n_adapters; i++)
		ob_adapter_close(x->file[i]);
	ob_arena_free(&x->arena);
	ob_free(x);
}

int ob_edits_check(const struct ob_edits *x, ob_err *e)
{
	for (size_t i = 0; i < x->n_adapters; i++)
		if (ob_file_check(x->file[i]->file, e) != 0)
			return -1;
	return 0;
}
