/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of one tile: decode, edit, encode, in rectangles that fit the cache. */
#ifndef OB_ENGINE_BAKE_H
#define OB_ENGINE_BAKE_H

#include "engine/engine.h"

struct ob_bake {
	const struct ob_plan *plan;
	const struct ob_tile *tile;
	const struct ob_tile_input *input;
	const struct ob_span *in;  /* part * OB_MAX_RANGES + i: what input->range says */
	const struct ob_span *out; /* the same for the output */
	const double *stats;	   /* of the whole tensor, for a format with statistics */
	double *measure;	   /* where a measuring tile leaves its own */
	uint64_t kept_factors;	   /* see struct ob_budget */
};

struct ob_bake_result {
	bool nonfinite;
	struct ob_effect effect;
};

/* No I/O, no allocation, re-entrant. scratch: as ob_scratch_layout says. */
void ob_bake_tile(const struct ob_bake *b, const struct ob_scratch_layout *layout, float *scratch,
		  struct ob_bake_result *r);

#endif
