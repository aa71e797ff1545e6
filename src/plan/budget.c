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

#define STACK_BYTES (256u << 10)    /* of a worker's stack that is ever touched */
#define KEPT_FACTORS (32u << 20)    /* of one tensor, where memory is plenty */
#define PASSING_FACTORS (16u << 20) /* the most that the system maps around 256 rows of a factor */
#define FIXED_BYTES (4u << 20) /* ring, queues, small files, pages of libraries not yet touched */
#define TILE_BYTES 64u	       /* per tile, allocated for the journal */
#define IO_SLOTS 16u	       /* enough to keep a disk busy while workers hold the others */
#define SLOTS_PER_WORKER 3u

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Parts that every encoded sample has all of. */
static uint64_t whole_bytes(const struct ob_out *o)
{
	uint64_t n = 0;
	for (unsigned k = 0; k < o->part.n; k++)
		n += o->part.part[k].whole ? o->part.part[k].len : 0;
	return n;
}

struct ob_stats_need ob_stats_need(const struct ob_plan *p)
{
	struct ob_stats_need need = { 1, 1 };
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		struct ob_elems all = { 0, o->rows * o->cols };
		size_t tiles = 0;
		for (uint32_t k = 0; o->two_pass && k < o->n_tiles / 2; k++) {
			const struct ob_tile *t = &p->tile[o->first_tile + k];
			tiles += ob_codec_stats(&o->enc, &o->shape,
						(struct ob_elems){ t->e0, t->e1 });
		}
		need.tiles = max_size(need.tiles, tiles);
		if (o->two_pass)
			need.total = max_size(need.total, ob_codec_stats(&o->enc, &o->shape, all));
	}
	return need;
}

void ob_scratch_layout(const struct ob_plan *p, struct ob_scratch_layout *s)
{
	size_t codec = 0;
	uint64_t whole = 0;
	bool has_edits = false, has_work = false;
	for (size_t i = 0; i < p->n_outs; i++) {
		const struct ob_out *o = &p->out[i];
		if (o->copy)
			continue;
		has_work = true;
		if (o->n_edits)
			whole = ob_max_u64(whole, whole_bytes(o));
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
	s->total = s->encoded;
	if (has_edits)
		s->total += OB_SAMPLE_ELEMS + 4096 + (size_t)ob_div_up(whole, sizeof(float));
}

static bool has_edits(const struct ob_plan *p)
{
	return p->edits->n_edited > 0;
}

/* Pages of factors in the resident set while a worker is at one tensor. */
static uint64_t factor_bytes(const struct ob_plan *p, uint64_t kept)
{
	uint64_t most = 0;
	for (size_t i = 0; i < p->n_outs; i++) {
		uint64_t n = ob_edits_bytes(p->out[i].edit, p->out[i].n_edits);
		most = ob_max_u64(most, n <= kept ? n : PASSING_FACTORS);
	}
	return most;
}

static uint64_t need(const struct ob_budget *b, const struct ob_plan *p, uint64_t base)
{
	uint64_t worker = b->scratch + STACK_BYTES;
	if (has_edits(p))
		worker += ob_gemm_memory(OB_RECT_ROWS, OB_PANEL_COLS, OB_GEMM_K_MAX) +
			  factor_bytes(p, b->kept_factors);
	struct ob_stats_need stats = ob_stats_need(p);
	return base + (uint64_t)b->slots * (p->slot_bytes + OB_TASK_BYTES) + b->workers * worker +
	       p->n_tiles * TILE_BYTES + (stats.tiles + 2 * stats.total) * sizeof(double) +
	       FIXED_BYTES;
}

/* Slots down to what keeps every worker fed, then the kept factors, then workers; the last worker gets
 * along with the bare minimum of slots. The minimum is known to fit. */
static void fit(struct ob_budget *b, const struct ob_plan *p, uint64_t base, uint64_t limit,
		unsigned demand, unsigned want)
{
	static const uint64_t kept[] = { KEPT_FACTORS, PASSING_FACTORS };
	const unsigned few = 2 * demand;
	for (b->workers = want; b->workers; b->workers--)
		for (unsigned k = 0; k < 2; k++) {
			unsigned least = b->workers == 1 ? few : (b->workers + 1) * demand;
			b->kept_factors = kept[k];
			b->slots = (unsigned)ob_max_u64(IO_SLOTS + SLOTS_PER_WORKER * b->workers,
							least);
			while (b->slots > least && need(b, p, base) > limit)
				b->slots--;
			b->need = need(b, p, base);
			if (b->need <= limit)
				return;
		}
}

int ob_budget_fit(struct ob_budget *b, const struct ob_plan *p, uint64_t limit, unsigned threads,
		  bool verify, ob_err *e)
{
	char have[32], least[32];
	struct ob_scratch_layout s;
	ob_scratch_layout(p, &s);
	uint64_t base = ob_rss_now();
	/* Two tiles in hand keep reading and computing apart; each has an input and an output slot. */
	unsigned demand = verify ? 3 : 2;
	if (!limit)
		limit = ob_min_u64(ob_memory_available() / 4, 2ull << 30);
	*b = (struct ob_budget){ .workers = 1,
				 .slots = 2 * demand,
				 .scratch = s.total * sizeof(float),
				 .kept_factors = PASSING_FACTORS };
	b->minimum = need(b, p, base);
	if (b->minimum > limit)
		return ob_fail(
			e, OB_BUDGET,
			"%s of memory do not suffice: this run needs at least %s (%llu bytes; --memory sets the limit)",
			ob_size_text(limit, have, sizeof(have)),
			ob_size_text(b->minimum, least, sizeof(least)),
			(unsigned long long)b->minimum);
	fit(b, p, base, limit, demand, threads ? threads : ob_cpu_count());
	return 0;
}
