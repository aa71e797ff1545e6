/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget: how much memory a run takes, and how many slots and workers fit a limit. Separate from
 * the plan, because nothing here may change the output.
 */
#ifndef OB_PLAN_BUDGET_H
#define OB_PLAN_BUDGET_H

#include "plan/plan.h"

struct ob_budget {
	unsigned workers;
	unsigned slots;	  /* of the plan's slot_bytes */
	uint64_t scratch; /* bytes per worker */
	/* Factors of a tensor up to this many bytes stay in the resident set until the tensor is done;
	 * larger ones are read again, from the page cache, for every rectangle. */
	uint64_t kept_factors;
	uint64_t need;	  /* resident bytes of the whole process at its peak */
	uint64_t minimum; /* the least that would do */
};

/* limit: bytes (--memory), 0: the default, min(a quarter of what the machine has free, 2 GiB).
 * threads: 0: one worker per processor. verify: room to hold the output that is compared.
 * Errors: OB_BUDGET naming the minimum. */
int ob_budget_fit(struct ob_budget *b, const struct ob_plan *p, uint64_t limit, unsigned threads,
		  bool verify, ob_err *e);

/* What the engine keeps for each slot besides its bytes. */
#define OB_TASK_BYTES (24u << 10)

/* Elements of a tile that are looked at to see what the format kept of its edits. */
#define OB_SAMPLE_ELEMS (16u * 1024u)

/* Doubles that the engine keeps for formats with statistics: those of the tiles of one tensor, and of
 * one tensor as a whole (twice). */
struct ob_stats_need {
	size_t tiles, total;
};
struct ob_stats_need ob_stats_need(const struct ob_plan *p);

/* Floats of scratch of one worker, and where the parts of it begin (engine/bake.c uses them). */
struct ob_scratch_layout {
	size_t weights, edits, codec, sample, encoded; /* offsets in floats */
	size_t total;
};
void ob_scratch_layout(const struct ob_plan *p, struct ob_scratch_layout *s);

#endif
