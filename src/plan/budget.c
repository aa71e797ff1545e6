/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resident memory at the peak:
 *
 *	what the process has now (program, libraries, model, edits and plan)
 *	+ slots x slot size			the ring, faulted in before the first read
 *	+ workers x (scratch + BLIS packing + stack)
 *	+ factor pages of the tensors in hand	at most one tensor per worker
 *	+ a little per tile			statistics of the edits
 *	+ a constant for the ring, threads and small files
 */
#include "base/num.h"
#include "base/util.h"
#include "kernels/gemm.h"
#include "plan/budget.h"

#define STACK_BYTES (256u << 10) /* of a worker's stack that is ever touched */
#define KEPT_VIEW (8u << 20)	 /* factors up to this stay in the map until their tensor is done */
#define PASSING_VIEW (16u << 20) /* of a larger one: what the system maps around 256 rows of it */
#define FIXED_BYTES (8u << 20)	 /* ring, queues, small files, pages of libraries not yet touched */
#define TILE_BYTES 40u		 /* per tile, allocated by the engine */
#define IO_SLOTS 16u		 /* enough to keep a disk busy while workers hold the others */
#define SLOTS_PER_WORKER 3u

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

void ob_scratch_layout(const struct ob_plan *p, struct ob_scratch_layout *s)
{
	size_t codec = 0;
	bool has_edits = false, has_work = false;
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		if (o->copy)
			continue;
		has_work = true;
		has_edits |= o->n_edits > 0;
		codec = max_size(codec, o->enc.codec->scratch_floats(&o->enc, OB_RECT_ELEMS));
		for (uint32_t k = 0; k < o->n_pieces; k++) {
			const struct ob_encoding *src = &p->model->tensor[o->piece[k].tensor].enc;
			codec = max_size(codec, src->codec->scratch_floats(src, OB_RECT_ELEMS));
		}
	}
	size_t rect = has_work ? OB_RECT_ELEMS : 0;
	s->weights = 0;
	s->edits = rect;
	s->codec = s->edits + (has_edits ? ob_round_up(ob_edit_scratch_floats(), 16) : 0);
	s->sample = s->codec + ob_round_up(codec, 16);
	s->encoded = s->sample + (has_edits ? 3 * OB_SAMPLE_ELEMS : 0);
	s->total = s->encoded + (has_edits ? OB_SAMPLE_ELEMS + 4096 : 0);
}

static bool has_edits(const struct ob_plan *p)
{
	return p->edits->n_edited > 0;
}

/* Pages of factors in the resident set while a worker is at one tensor. */
static uint64_t factor_bytes(const struct ob_plan *p)
{
	uint64_t most = 0;
	for (size_t i = 0; i < p->n_outs; i++) {
		uint64_t kept = 0, passing = 0;
		for (uint32_t k = 0; k < 2 * p->out[i].n_edits; k++) {
			const struct ob_edit *x = &p->out[i].edit[k / 2];
			uint64_t n = ob_view_bytes(k % 2 ? &x->b : &x->a);
			if (n <= KEPT_VIEW)
				kept += n;
			else
				passing = PASSING_VIEW;
		}
		most = ob_max_u64(most, kept + passing);
	}
	return most;
}

static uint64_t need(const struct ob_budget *b, const struct ob_plan *p, uint64_t base)
{
	uint64_t worker = b->scratch + STACK_BYTES;
	if (has_edits(p))
		worker += ob_gemm_memory(OB_RECT_ROWS, OB_PANEL_COLS, OB_GEMM_K_MAX) +
			  factor_bytes(p);
	return base + (uint64_t)b->slots * (OB_SLOT_BYTES + OB_TASK_BYTES) + b->workers * worker +
	       p->n_tiles * TILE_BYTES + FIXED_BYTES;
}

int ob_budget_fit(struct ob_budget *b, const struct ob_plan *p, uint64_t limit, unsigned threads,
		  bool verify, ob_err *e)
{
	char have[32], least[32];
	struct ob_scratch_layout s;
	ob_scratch_layout(p, &s);
	uint64_t base = ob_rss_now();
	/* Two tiles in hand keep reading and computing apart; each has an input and an output slot. */
	unsigned demand = verify ? 3 : 2, few = 2 * demand;
	if (!limit)
		limit = ob_min_u64(ob_memory_available() / 4, 2ull << 30);
	*b = (struct ob_budget){ .workers = 1, .slots = few, .scratch = s.total * sizeof(float) };
	b->minimum = need(b, p, base);
	if (b->minimum > limit)
		return ob_fail(
			e, OB_BUDGET,
			"%s of memory do not suffice: this run needs at least %s (%llu bytes; --memory sets the limit)",
			ob_size_text(limit, have, sizeof(have)),
			ob_size_text(b->minimum, least, sizeof(least)),
			(unsigned long long)b->minimum);
	unsigned want = threads ? threads : ob_cpu_count();
	b->workers = want;
	b->slots = IO_SLOTS + SLOTS_PER_WORKER * want;
	if (b->slots < few)
		b->slots = few;
	while (need(b, p, base) > limit && (b->slots > few || b->workers > 1)) {
		/* Slots down to what keeps every worker fed, then workers, then slots to the bare minimum. */
		if (b->slots > few && (b->workers == 1 || b->slots > (b->workers + 1) * demand))
			b->slots--;
		else
			b->workers--;
	}
	b->need = need(b, p, base);
	return 0;
}
