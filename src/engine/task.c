/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a tile: from file ranges to slot addresses and requests.
 *
 * In a slot every range begins at a multiple of 4096 plus its skew, its file offset modulo 4096, so
 * that a direct transfer of the whole blocks around it needs no shift. A direct read rounds out to whole
 * blocks. A direct write covers the whole blocks inside; the partial blocks at the edges, which
 * neighbours share, go through the page cache.
 */
#include "engine/task.h"

#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "engine/journal.h"

#define DIRECT_MIN (32u << 10) /* smaller transfers gain nothing from going around the cache */

static const struct ob_stored *stored_part(const struct ob_task *t, unsigned k)
{
	return t->input.tensor->part[k];
}

/* Puts the next range of `len` bytes with file offset `off` into a slot. */
static uint8_t *put(uint8_t *slot, uint64_t *cursor, uint64_t off, uint64_t len)
{
	uint64_t skew = off % OB_IO_ALIGN;
	uint8_t *p = slot + *cursor + skew;
	*cursor += ob_round_up(skew + len, OB_IO_ALIGN);
	return p;
}

static struct ob_io_req *new_request(struct ob_task *t, enum ob_io_op op, int fd, void *buf,
				     uint64_t off, uint64_t len)
{
	struct ob_io_req *r = &t->req[t->n_req++];
	*r = (struct ob_io_req){
		.op = op, .fd = fd, .buf = buf, .off = off, .len = (uint32_t)len, .user = t
	};
	return r;
}

static int hold(struct ob_task *t, struct ob_handle *h, ob_err *e)
{
	if (ob_handle_hold(h, e))
		return -1;
	t->held[t->n_held++] = h;
	return 0;
}

void ob_task_drop(struct ob_task *t)
{
	while (t->n_held)
		ob_handle_drop(t->held[--t->n_held]);
}

int ob_task_hold(const struct ob_run *run, struct ob_task *t, ob_err *e)
{
	const struct ob_out *o = &run->plan->out[t->tile->out];
	int rc = 0;
	t->n_held = 0;
	if (run->reread)
		t->input.tensor = NULL;
	else
		ob_tile_input(run->plan, t->tile, &t->input);
	for (unsigned k = 0; !rc && t->input.tensor && k < t->input.tensor->n_parts; k++)
		if (t->input.n_ranges[k])
			rc = hold(t, stored_part(t, k)->file->handle, e);
	t->n_read = t->n_held;
	for (unsigned k = 0; !rc && !t->tile->measure && k < o->part.n; k++) {
		const struct ob_target *to = &run->target[o->part_file[k]];
		if (!o->copy || k == t->tile->part)
			rc = hold(t, run->verify ? to->reference->handle : to->handle, e);
	}
	if (rc)
		ob_task_drop(t);
	return rc;
}

static void read_range(struct ob_task *t, const struct ob_run *run, const struct ob_handle *from,
		       bool is_cached, uint8_t *p, uint64_t off, uint64_t len, bool *direct)
{
	if (!len)
		return;
	if (run->no_direct || from->fd_direct < 0 || len < DIRECT_MIN || is_cached) {
		struct ob_io_req *r = new_request(t, OB_IO_READ, from->fd, p, off, len);
		r->once = !is_cached && len >= DIRECT_MIN;
		return;
	}
	uint64_t skew = off % OB_IO_ALIGN;
	struct ob_io_req *r = new_request(t, OB_IO_READ, from->fd_direct, p - skew, off - skew,
					  ob_round_up(skew + len, OB_IO_ALIGN));
	r->min_len = (uint32_t)(skew + len);
	*direct = true;
}

static void read_input(struct ob_task *t, const struct ob_run *run, const struct ob_file *f,
		       uint8_t *p, uint64_t off, uint64_t len, bool *direct)
{
	read_range(t, run, f->handle, ob_file_cached(f, off, len), p, off, len, direct);
}

/* A part that belongs to the tensor as a whole is the same in every tile; the first one writes it. */
static bool writes_part(const struct ob_tile *t, const struct ob_out *o, unsigned k)
{
	return o->copy || !o->part.part[k].whole || t->e0 == 0;
}

/* Where the output's ranges lie in the slot, and (verify) the same of the file that is compared. */
static void output_spans(const struct ob_run *run, struct ob_task *t, bool *direct)
{
	const struct ob_out *o = &run->plan->out[t->tile->out];
	struct ob_elems tile = { t->tile->e0, t->tile->e1 };
	uint64_t cursor = 0, ref_cursor = 0;
	t->bytes_out = 0;
	for (unsigned k = 0; k < o->part.n; k++) {
		struct ob_range r[OB_MAX_RANGES] = { { t->tile->e0, t->tile->e1 - t->tile->e0 } };
		unsigned n = 1;
		if (o->copy && k != t->tile->part)
			continue;
		if (run->reread && !writes_part(t->tile, o, k))
			continue;
		if (!o->copy)
			n = o->enc.codec->ranges(&o->enc, &o->shape, k, tile, r);
		for (unsigned i = 0; i < n; i++) {
			unsigned s = k * OB_MAX_RANGES + i;
			uint64_t off = o->part_off[k] + r[i].off;
			t->out_span[s] =
				(struct ob_span){ put(t->out, &cursor, off, r[i].len), r[i].len };
			if (writes_part(t->tile, o, k))
				t->bytes_out += r[i].len;
			if (run->reread) {
				read_range(t, run, run->target[o->part_file[k]].handle, false,
					   t->out_span[s].p, off, r[i].len, direct);
				t->bytes_in += r[i].len;
			}
			if (!run->verify)
				continue;
			/* A text without its padding. */
			uint64_t len = o->part.part[k].padded ? o->part.part[k].len : r[i].len;
			t->ref_span[s] =
				(struct ob_span){ put(t->ref, &ref_cursor, off, len), len };
			read_input(t, run, run->target[o->part_file[k]].reference, t->ref_span[s].p,
				   off, len, direct);
		}
	}
}

unsigned ob_task_reads(const struct ob_run *run, struct ob_task *t, bool *direct)
{
	uint64_t cursor = 0;
	t->n_req = 0;
	t->bytes_in = 0;
	memset(t->in_span, 0, sizeof(t->in_span));
	memset(t->out_span, 0, sizeof(t->out_span));
	memset(t->ref_span, 0, sizeof(t->ref_span));
	for (unsigned k = 0; t->input.tensor && k < t->input.tensor->n_parts; k++) {
		const struct ob_stored *part = stored_part(t, k);
		for (unsigned i = 0; i < t->input.n_ranges[k]; i++) {
			unsigned s = k * OB_MAX_RANGES + i;
			const struct ob_range *r = &t->input.range[s];
			uint64_t off = part->off + r->off;
			t->in_span[s] =
				(struct ob_span){ put(t->in, &cursor, off, r->len), r->len };
			t->bytes_in += r->len;
			read_input(t, run, part->file, t->in_span[s].p, off, r->len, direct);
		}
	}
	if (!t->tile->measure)
		output_spans(run, t, direct);
	return t->n_req;
}

bool ob_task_shares_slot(const struct ob_run *run, const struct ob_tile *t)
{
	return run->plan->out[t->out].copy || t->measure || run->reread;
}

unsigned ob_task_demand(const struct ob_run *run, const struct ob_tile *t)
{
	unsigned n = ob_task_shares_slot(run, t) ? 1 : 2;
	return n + (run->verify && !t->measure);
}

static bool wants_hash(const struct ob_run *run)
{
	return run->reread || (run->journal && ob_journal_has_file(run->journal));
}

bool ob_task_needs_worker(const struct ob_run *run, const struct ob_task *t)
{
	unsigned s = t->tile->part * OB_MAX_RANGES;
	return !run->plan->out[t->tile->out].copy || run->verify || wants_hash(run) ||
	       t->in_span[s].p != t->out_span[s].p;
}

static void write_range(struct ob_task *t, const struct ob_handle *to, bool no_direct, uint8_t *p,
			uint64_t off, uint64_t len, bool *direct)
{
	uint64_t first = ob_round_up(off, OB_IO_ALIGN),
		 last = ob_round_down(off + len, OB_IO_ALIGN);
	if (!len)
		return;
	if (no_direct || to->fd_direct < 0 || last <= first || last - first < DIRECT_MIN) {
		new_request(t, OB_IO_WRITE, to->fd, p, off, len)->once = len >= DIRECT_MIN;
		return;
	}
	if (first > off)
		new_request(t, OB_IO_WRITE, to->fd, p, off, first - off);
	new_request(t, OB_IO_WRITE, to->fd_direct, p + (first - off), first, last - first);
	if (off + len > last)
		new_request(t, OB_IO_WRITE, to->fd, p + (last - off), last, off + len - last);
	*direct = true;
}

unsigned ob_task_writes(const struct ob_run *run, struct ob_task *t, bool *direct)
{
	const struct ob_out *o = &run->plan->out[t->tile->out];
	t->n_req = 0;
	for (unsigned s = 0; s < OB_MAX_SPANS; s++) {
		unsigned k = s / OB_MAX_RANGES;
		struct ob_elems tile = { t->tile->e0, t->tile->e1 };
		struct ob_range r[OB_MAX_RANGES] = { { t->tile->e0, 0 } };
		if (!t->out_span[s].p || !writes_part(t->tile, o, k))
			continue;
		if (!o->copy)
			o->enc.codec->ranges(&o->enc, &o->shape, k, tile, r);
		write_range(t, run->target[o->part_file[k]].handle, run->no_direct,
			    t->out_span[s].p, o->part_off[k] + r[s % OB_MAX_RANGES].off,
			    t->out_span[s].len, direct);
	}
	return t->n_req;
}

static void compare(const struct ob_run *run, struct ob_task *t)
{
	const struct ob_out *o = &run->plan->out[t->tile->out];
	struct ob_elems tile = { t->tile->e0, t->tile->e1 };
	struct ob_range r[OB_MAX_RANGES] = { { t->tile->e0, 0 } };
	for (unsigned s = 0; s < OB_MAX_SPANS; s++) {
		const struct ob_span *a = &t->out_span[s], *b = &t->ref_span[s];
		if (!a->p)
			continue;
		unsigned k = s / OB_MAX_RANGES;
		uint64_t len = o->part.part[k].padded ? ob_trimmed(a->p, a->len) : a->len;
		if (len == b->len && !memcmp(a->p, b->p, len))
			continue;
		uint64_t i = 0, n = ob_min_u64(len, b->len);
		while (i < n && a->p[i] == b->p[i])
			i++;
		t->differs = true;
		t->differs_part = k;
		if (!o->copy)
			o->enc.codec->ranges(&o->enc, &o->shape, t->differs_part, tile, r);
		t->differs_at = r[s % OB_MAX_RANGES].off + i;
		return;
	}
}

static uint64_t hash_output(const struct ob_run *run, const struct ob_task *t)
{
	const struct ob_out *o = &run->plan->out[t->tile->out];
	uint64_t h = 0;
	for (unsigned s = 0; s < OB_MAX_SPANS; s++)
		if (t->out_span[s].p && writes_part(t->tile, o, s / OB_MAX_RANGES))
			h = ob_hash64(t->out_span[s].p, t->out_span[s].len, h);
	return h;
}

static void make(const struct ob_run *run, struct ob_task *t,
		 const struct ob_scratch_layout *layout, float *scratch)
{
	if (run->plan->out[t->tile->out].copy) {
		unsigned s = t->tile->part * OB_MAX_RANGES;
		memmove(t->out_span[s].p, t->in_span[s].p, t->out_span[s].len);
		return;
	}
	struct ob_bake b = {
		.plan = run->plan,
		.tile = t->tile,
		.input = &t->input,
		.in = t->in_span,
		.out = t->out_span,
		.stats = t->stats,
		.measure = t->measure,
		.kept_factors = run->budget->kept_factors,
	};
	ob_bake_tile(&b, layout, scratch, &t->result);
}

void ob_task_compute(const struct ob_run *run, struct ob_task *t,
		     const struct ob_scratch_layout *layout, float *scratch)
{
	t->result = (struct ob_bake_result){ 0 };
	t->differs = false;
	if (!run->reread)
		make(run, t, layout, scratch);
	if (wants_hash(run))
		t->hash = hash_output(run, t);
	if (run->verify && !t->tile->measure)
		compare(run, t);
}
