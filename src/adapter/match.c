/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the module paths of an adapter to the tensors of a model.
 *
 * The way names are changed is chosen once for all keys of a part of the model, by how many of them
 * find a tensor whose shape fits. A path is never matched by its end alone: towers for images and
 * sound have layers of the same names.
 */
#include <string.h>

#include "adapter/names.h"
#include "adapter/reader.h"
#include "adapter/resolve.h"
#include "base/num.h"

struct matching {
	const struct ob_targets *t;
	const struct ob_adapter_file *f;
	const struct ob_reader_result *r;
	/* Per change: the shape that a replacement of the parameter gives it first, or NULL. */
	const struct ob_shape **replaced;
	struct ob_hit *trial;
	char *name; /* room for any name that is tried */
};

const char *ob_target_name(const struct ob_targets *t, long target)
{
	return (size_t)target < t->n ? t->model->tensor[target].name : t->head_name;
}

void ob_target_matrix(const struct ob_shape *s, uint64_t *rows, uint64_t *cols)
{
	*rows = s->rank < 2 ? 1 : s->dim[0];
	*cols = 1;
	for (uint32_t i = s->rank < 2 ? 0 : 1; i < s->rank; i++)
		*cols *= s->dim[i];
}

/* ---- shapes ---- */

/* Kernels of two convolutions: everything behind the first dimension is the same. */
static bool same_kernel(const struct ob_shape *a, const struct ob_shape *s)
{
	if (a->rank < 3 || s->rank != a->rank)
		return true;
	for (uint32_t i = 1; i < s->rank; i++)
		if (a->dim[i] != s->dim[i])
			return false;
	return true;
}

static unsigned fit_linear(const struct ob_change *c, const struct ob_shape *s)
{
	uint64_t rows, cols;
	unsigned fit = OB_FIT_NONE;

	if (s->rank < 2)
		return OB_FIT_NONE;
	ob_target_matrix(s, &rows, &cols);
	if (c->b.rows == rows && c->a.cols == cols && same_kernel(&c->shape, s))
		fit |= OB_FIT_NORMAL;
	if (s->rank == 2 && c->b.rows == cols && c->a.cols == rows)
		fit |= OB_FIT_TRANSPOSED;
	return fit;
}

/* A vocabulary may change its size. */
static bool fits_replaced(const struct ob_targets *t, const struct ob_change *c, long target,
			  const struct ob_shape *s)
{
	if (ob_shape_equal(&c->shape, s))
		return true;
	return (target == t->embedding || target == t->head) && s->rank == 2 &&
	       c->shape.rank == 2 && c->shape.dim[1] == s->dim[1] && c->shape.dim[0];
}

static unsigned fit(const struct matching *mt, size_t i, long target)
{
	const struct ob_change *c = &mt->r->change[i];
	const struct ob_shape *s = &mt->t->shape[target];
	bool fits = false;

	if (mt->replaced[i] && c->kind != OB_CHANGE_REPLACE)
		s = mt->replaced[i];
	switch (c->kind) {
	case OB_CHANGE_LINEAR:
		return fit_linear(c, s);
	case OB_CHANGE_EMBEDDING:
		fits = s->rank == 2 && c->b.rows == s->dim[0] && c->a.cols == s->dim[1];
		break;
	case OB_CHANGE_ROWS:
		fits = s->rank == 2 && c->b.cols == s->dim[1];
		break;
	case OB_CHANGE_BIAS_ADD:
		fits = ob_shape_equal(&c->shape, s);
		break;
	case OB_CHANGE_REPLACE:
		fits = fits_replaced(mt->t, c, target, s);
		break;
	}
	return fits ? OB_FIT_NORMAL : OB_FIT_NONE;
}

/* ---- names ---- */

/* What may follow a module path for a parameter; a parameter may also be the path itself, and
 * torch's MultiheadAttention calls its own otherwise. */
static const char *const weight_endings[] = { ".weight", "", ".in_proj_weight", NULL };
static const char *const bias_endings[] = { ".bias", ".in_proj_bias", NULL };

static long find_target(const struct ob_targets *t, const char *name)
{
	if (t->head == (long)t->n && !strcmp(name, t->head_name))
		return t->head;
	return ob_model_find(t->model, name);
}

static struct ob_hit look_up(const struct matching *mt, size_t i, const struct ob_name_rule *rule)
{
	const struct ob_change *c = &mt->r->change[i];
	struct ob_hit named = { -1, OB_FIT_NONE };
	const char *const *ending = c->kind == OB_CHANGE_BIAS_ADD ? bias_endings : weight_endings;
	char *end;

	if (!ob_name_apply(rule, c->path, c->module, mt->name))
		return named;
	end = mt->name + strlen(mt->name);
	if (c->kind == OB_CHANGE_REPLACE) {
		if (end > mt->name)
			*end++ = '.';
		memcpy(end, c->param, strlen(c->param) + 1);
		named.target = find_target(mt->t, mt->name);
		if (named.target >= 0)
			named.fit = fit(mt, i, named.target);
		return named;
	}
	for (; *ending; ending++) {
		struct ob_hit hit;

		memcpy(end, *ending, strlen(*ending) + 1);
		hit.target = find_target(mt->t, mt->name);
		if (hit.target < 0)
			continue;
		hit.fit = fit(mt, i, hit.target);
		if (hit.fit)
			return hit;
		if (named.target < 0)
			named = hit;
	}
	return named;
}

/* ---- the choice of a rule for one part ---- */

struct score {
	size_t fits, named;
};

static struct score try_rule(struct matching *mt, enum ob_name_part part,
			     const struct ob_name_rule *rule)
{
	struct score s = { 0, 0 };

	for (size_t i = 0; i < mt->r->n_changes; i++) {
		if (ob_name_part(mt->r->change[i].module) != part)
			continue;
		mt->trial[i] = look_up(mt, i, rule);
		s.fits += mt->trial[i].fit != OB_FIT_NONE;
		s.named += mt->trial[i].target >= 0;
	}
	return s;
}

/* Does the rule that was tried last lead to other tensors than the best one? Then *at is a change
 * for which it does. */
static bool leads_elsewhere(const struct matching *mt, enum ob_name_part part,
			    const struct ob_hit *best, size_t *at)
{
	for (*at = 0; *at < mt->r->n_changes; ++*at)
		if (ob_name_part(mt->r->change[*at].module) == part && mt->trial[*at].fit &&
		    best[*at].target != mt->trial[*at].target)
			return true;
	return false;
}

static void keep_trial(const struct matching *mt, enum ob_name_part part, struct ob_hit *best)
{
	for (size_t i = 0; i < mt->r->n_changes; i++)
		if (ob_name_part(mt->r->change[i].module) == part)
			best[i] = mt->trial[i];
}

static int choose_rule(struct matching *mt, enum ob_name_part part, size_t total,
		       struct ob_hit *hit, struct ob_name_rule *chosen, ob_err *e)
{
	struct score top = { 0, 0 };
	struct ob_name_rule rule;
	long rival = -1;
	size_t at = 0;

	for (unsigned i = 0; ob_name_rule(part, i, &rule); i++) {
		struct score s = try_rule(mt, part, &rule);

		if (i == 0 || s.fits > top.fits || (s.fits == top.fits && s.named > top.named)) {
			keep_trial(mt, part, hit);
			top = s;
			*chosen = rule;
			rival = -1;
		} else if (s.fits && s.fits == top.fits && rival < 0 &&
			   chosen->kind == OB_NAME_ALIAS && leads_elsewhere(mt, part, hit, &at)) {
			rival = mt->trial[at].target;
		}
		if (rule.kind != OB_NAME_ALIAS && top.fits == total)
			return 0;
	}
	if (rival < 0)
		return 0;
	return ob_fail(e, OB_MISMATCH,
		       "%s: the key \"%s\" may mean the tensor \"%s\" or \"%s\" of "
		       "the model; rename the keys",
		       mt->f->path, OB_SHOWN(mt->r->change[at].key),
		       OB_SHOWN(hit[at].target < 0 ? "" : ob_target_name(mt->t, hit[at].target)),
		       OB_SHOWN(ob_target_name(mt->t, rival)));
}

/* ---- an adapter ---- */

/* Which changes act on a parameter that the same adapter replaces? */
static int find_replaced(struct matching *mt, ob_err *e)
{
	struct ob_map replaced = { 0 };
	uint32_t j;
	int rc = 0;

	for (size_t i = 0; i < mt->r->n_changes && rc >= 0; i++) {
		const struct ob_change *c = &mt->r->change[i];

		if (c->kind == OB_CHANGE_REPLACE && !strcmp(c->param, "weight"))
			rc = ob_map_add(&replaced, c->path, strlen(c->path), (uint32_t)i, e);
	}
	for (size_t i = 0; i < mt->r->n_changes && rc >= 0; i++) {
		const struct ob_change *c = &mt->r->change[i];

		if (!strcmp(c->param, "weight") &&
		    ob_map_find(&replaced, c->path, strlen(c->path), &j))
			mt->replaced[i] = &mt->r->change[j].shape;
	}
	ob_map_free(&replaced);
	return rc < 0 ? -1 : 0;
}

/* The shape of what a change brings, for a message. */
static const char *change_shape(const struct ob_change *c, char *buf, size_t size)
{
	const uint64_t dim[] = { c->b.rows, c->kind == OB_CHANGE_ROWS ? c->b.cols : c->a.cols };
	const struct ob_shape product = { 2, dim };

	if (c->kind == OB_CHANGE_REPLACE || c->kind == OB_CHANGE_BIAS_ADD)
		return ob_shape_text(&c->shape, buf, size);
	return ob_shape_text(&product, buf, size);
}

static int check_shapes(const struct matching *mt, const struct ob_hit *hit, ob_err *e)
{
	char change[128];

	for (size_t i = 0; i < mt->r->n_changes; i++) {
		const struct ob_change *c = &mt->r->change[i];

		if (hit[i].target < 0 || hit[i].fit || c->zero)
			continue;
		return ob_fail(
			e, OB_MISMATCH,
			"%s: the key \"%s\" makes a change of shape %s, but "
			"the tensor \"%s\" of the model has the shape %s; the adapter belongs "
			"to another model",
			mt->f->path, OB_SHOWN(c->key), change_shape(c, change, sizeof(change)),
			OB_SHOWN(ob_target_name(mt->t, hit[i].target)),
			OB_SHOWN_SHAPE(&mt->t->shape[hit[i].target]));
	}
	return 0;
}

static int describe(const struct ob_adapter_file *f, const struct ob_name_rule *rule,
		    const char **names, ob_err *e)
{
	if (rule->kind != OB_NAME_ALIAS)
		return 0;
	*names = ob_arena_printf(f->arena, e, "%s%s%s* -> %s*", *names ? *names : "",
				 *names ? ", " : "", rule->from, rule->to);
	return *names ? 0 : -1;
}

static int match_parts(struct matching *mt, struct ob_hit *hit, const char **names, ob_err *e)
{
	for (enum ob_name_part part = 0; part < OB_N_PARTS; part++) {
		struct ob_name_rule rule = { 0 };
		size_t total = 0;

		for (size_t i = 0; i < mt->r->n_changes; i++)
			total += ob_name_part(mt->r->change[i].module) == part;
		if (total && (choose_rule(mt, part, total, hit, &rule, e) != 0 ||
			      describe(mt->f, &rule, names, e) != 0))
			return -1;
	}
	if (!*names)
		*names = "as they are";
	return 0;
}

int ob_match(const struct ob_targets *t, const struct ob_adapter_file *f,
	     const struct ob_reader_result *r, struct ob_hit *hit, const char **names, ob_err *e)
{
	struct matching mt = { .t = t, .f = f, .r = r };
	size_t longest = 0;
	int rc = -1;

	*names = NULL;
	for (size_t i = 0; i < r->n_changes; i++) {
		size_t n = strlen(r->change[i].path) + strlen(r->change[i].param);

		longest = n > longest ? n : longest;
	}
	mt.replaced = ob_calloc(r->n_changes, sizeof(*mt.replaced));
	mt.trial = ob_calloc(r->n_changes, sizeof(*mt.trial));
	mt.name = ob_alloc(longest + OB_NAME_GROWTH);
	if (!mt.replaced || !mt.trial || !mt.name)
		ob_fail_nomem(e, "matching an adapter");
	else if (find_replaced(&mt, e) == 0 && match_parts(&mt, hit, names, e) == 0)
		rc = check_shapes(&mt, hit, e);
	ob_free(mt.replaced);
	ob_free(mt.trial);
	ob_free(mt.name);
	return rc;
}

/* ---- keys without a tensor ---- */

#define MAX_LISTED 20
#define MAX_NEAREST 3

/* Adds up to MAX_LISTED keys to the text, the first ones with a name that is near. */
static void list_unmatched(const struct ob_targets *t, const struct ob_reader_result *r,
			   const struct ob_hit *hit, struct ob_text *list)
{
	size_t listed = 0;

	for (size_t i = 0; i < r->n_changes && listed < MAX_LISTED; i++) {
		const struct ob_change *c = &r->change[i];
		const char *nearest = NULL;

		if (hit[i].target >= 0 || c->zero)
			continue;
		ob_text_printf(list, "%s\"%s\"", listed ? ", " : "", OB_SHOWN(c->key));
		if (listed++ < MAX_NEAREST)
			nearest = ob_name_nearest(t->model, c->module, c->param);
		if (nearest)
			ob_text_printf(list, " (nearest: \"%s\")", OB_SHOWN(nearest));
	}
}

int ob_match_fail(const struct ob_targets *t, const struct ob_adapter_file *f,
		  const struct ob_reader_result *r, const struct ob_hit *hit, size_t unused,
		  ob_err *e)
{
	struct ob_text list = { 0 };

	list_unmatched(t, r, hit, &list);
	if (list.failed)
		ob_fail_nomem(e, "list of keys");
	else if (unused == f->list.n_tensors - r->n_ignored)
		ob_fail(e, OB_MISMATCH,
			"%s: none of its %zu keys matches a tensor of the model, so "
			"it belongs to another one: %s",
			f->path, unused, list.data);
	else
		ob_fail(e, OB_MISMATCH,
			"%s: %zu of %zu keys match no tensor of the model "
			"(--allow-unused bakes the others): %s",
			f->path, unused, f->list.n_tensors, list.data);
	ob_text_free(&list);
	return -1;
}
