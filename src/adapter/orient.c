/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a tensor store [out, in] or [in, out]? Factors are always named by input and output, so a
 * square tensor does not tell. PEFT goes by the class of the layer; we have the family, the shapes
 * of the other layers, and last the adapter's own word.
 */
#include "adapter/names.h"
#include "adapter/reader.h"
#include "adapter/resolve.h"

/* What the layers say that fit in one way only; heads and embeddings are their own class. */
struct evidence {
	bool normal, transposed;
};

static bool is_open(const struct ob_hit *h, const struct ob_change *c)
{
	return c->kind == OB_CHANGE_LINEAR && h->target >= 0 && h->fit != OB_FIT_NONE;
}

static struct evidence collect(const struct ob_reader_result *r, const struct ob_hit *hit)
{
	struct evidence v = { false, false };

	for (size_t i = 0; i < r->n_changes; i++) {
		if (!is_open(&hit[i], &r->change[i]) ||
		    ob_name_part(r->change[i].module) == OB_PART_HEAD)
			continue;
		v.normal |= hit[i].fit == OB_FIT_NORMAL;
		v.transposed |= hit[i].fit == OB_FIT_TRANSPOSED;
	}
	return v;
}

/* Both ways fit. NONE: undecided. */
static unsigned decide(const struct ob_targets *t, const struct ob_reader_result *r,
		       const struct evidence *v, const struct ob_change *c)
{
	if (ob_family_known(t->model) || ob_name_part(c->module) == OB_PART_HEAD)
		return OB_FIT_NORMAL;
	/* Before the family: MLX stores the layers of GPT-2 the other way round. */
	if (v->normal != v->transposed)
		return v->normal ? OB_FIT_NORMAL : OB_FIT_TRANSPOSED;
	if (ob_family_conv1d(t->model))
		return OB_FIT_TRANSPOSED;
	if (r->fan_in_fan_out)
		return OB_FIT_TRANSPOSED;
	return v->normal ? OB_FIT_NONE : OB_FIT_NORMAL;
}

int ob_orient(const struct ob_targets *t, const struct ob_adapter_file *f,
	      const struct ob_reader_result *r, struct ob_hit *hit, ob_err *e)
{
	const unsigned both = OB_FIT_NORMAL | OB_FIT_TRANSPOSED;
	const struct evidence v = collect(r, hit);
	bool linear = ob_family_known(t->model);

	for (size_t i = 0; i < r->n_changes; i++) {
		const struct ob_change *c = &r->change[i];

		if (!is_open(&hit[i], c))
			continue;
		if (hit[i].fit == both)
			hit[i].fit = decide(t, r, &v, c);
		if (hit[i].fit == OB_FIT_TRANSPOSED && linear)
			return ob_fail(e, OB_MISMATCH,
				       "%s: the key \"%s\" fits the tensor \"%s\" %s "
				       "only transposed, but layers of this model store [out, in]; "
				       "the adapter belongs to another model",
				       f->path, OB_SHOWN(c->key),
				       OB_SHOWN(ob_target_name(t, hit[i].target)),
				       OB_SHOWN_SHAPE(&t->shape[hit[i].target]));
		if (hit[i].fit == OB_FIT_NONE)
			return ob_fail(e, OB_MISMATCH,
				       "%s: the key \"%s\" fits the square tensor "
				       "\"%s\" as [out, in] and as [in, out], and the other layers "
				       "of the model are of both kinds; set fan_in_fan_out in the "
				       "adapter_config.json",
				       f->path, OB_SHOWN(c->key),
				       OB_SHOWN(ob_target_name(t, hit[i].target)));
	}
	return 0;
}
