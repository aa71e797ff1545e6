/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of ob_plan_build, in the order they run. */
#ifndef OB_PLAN_INTERNAL_H
#define OB_PLAN_INTERNAL_H

#include "plan/plan.h"

/* One output tensor to decide about. */
struct ob_source {
	const char *name;
	uint32_t tensor; /* of the model */
	const struct ob_tensor_edits *edits;
};

/* Tensors that stay in float for one reason. */
struct ob_left {
	struct ob_left *next;
	const char *name, *why; /* of the first */
	enum ob_dtype dtype;
	uint64_t n;
};

/* recipe.c: p->config_says. */
int ob_compare_config(struct ob_plan *p, ob_err *e);
/* recipe.c: which encoding the tensor gets. */
int ob_choose_encoding(struct ob_plan *p, const struct ob_source *s, const struct ob_shape *shape,
		       struct ob_encoding *enc, ob_err *e);
/* recipe.c: layout, metadata, notes and the model-level encoding, once all outputs are known. */
int ob_choose_model_format(struct ob_plan *p, ob_err *e);

/* shards.c: files, order inside them, offsets, headers. */
int ob_layout_files(struct ob_plan *p, ob_err *e);

/* tiles.c */
int ob_make_tiles(struct ob_plan *p, ob_err *e);

#endif
