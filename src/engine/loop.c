/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O thread: admits tiles in plan order, reads them, hands them to the workers, writes what they
 * give back. The first error stops admission; everything in flight is drained before the thread ends, so
 * that no buffer is freed under the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/num.h"
#include "engine/internal.h"

static bool is_stopping(const struct ob_engine *en)
{
	return en->err.code != OB_OK;
}

/* After a failure it is no longer known what reached the disk: nothing more is recorded. */
static bool is_broken(const struct ob_engine *en)
{
	return is_stopping(en) && en->err.code != OB_CANCELLED;
}

/* Writes go before reads: they free slots. */
static void queue_requests(struct ob_engine *en, struct ob_task *t, bool first)
{
	t->pending = t->n_req;
	for (unsigned i = 0; i < t->n_req; i++) {
		struct ob_io_req *r = &t->req[first ? t->n_req - 1 - i : i];
		if (first) {
			r->next = en->backlog;
			en->backlog = r;
			if (!r->next)
				en->backlog_end = &r->next;
		} else {
			r->next = NULL;
			*en->backlog_end = r;
			en->backlog_end = &r->next;
		}
	}
}

static void submit_backlog(struct ob_engine *en)
{
	while (en->backlog && en->io->in_flight < OB_DEPTH - 1) {
		struct ob_io_req *r = en->backlog;
		en->backlog = r->next;
		if (!en->backlog)
			en->backlog_end = &en->backlog;
		r->next = NULL;
		en->io->ops->submit(en->io, r);
	}
}

static uint8_t *take_slot(struct ob_engine *en)
{
	return en->slab + (size_t)en->free_slot[--en->n_free] * en->plan->slot_bytes;
}

static void give_slot(struct ob_engine *en, uint8_t *slot)
{
	if (slot)
		en->free_slot[en->n_free++] =
			(unsigned)((size_t)(slot - en->slab) / en->plan->slot_bytes);
}

static struct ob_task *free_task(struct ob_engine *en)
{
	for (unsigned i = 0; i < en->n_tasks; i++)
		if (en->task[i].state == OB_TASK_FREE)
			return &en->task[i];
	return NULL;
}

static size_t tile_stats(const struct ob_out *o, const struct ob_tile *t)
{
	return ob_codec_stats(&o->enc, &o->shape, (struct ob_elems){ t->e0, t->e1 });
}

/* May the next tile start? A format with statistics encodes only after all its tiles were measured,
 * measures one tensor at a time, and needs a place for the result that no tile encodes with. */
static bool is_admissible(const struct ob_engine *en, const struct ob_tile *t)
{
	uint32_t owner = en->folded[0].owner;
	if (en->measuring != UINT32_MAX)
		return t->measure && t->out == en->measuring;
	return !t->measure || owner == UINT32_MAX || !atomic_load(&en->tiles_left[owner]);
}

static void begin_statistics(struct ob_engine *en, const struct ob_tile *tile, struct ob_task *t)
{
	const struct ob_out *o = &en->plan->out[tile->out];
	t->stats = NULL;
	t->measure = NULL;
	if (en->run->reread)
		return;
	if (tile->measure) {
		size_t n = tile_stats(o, tile);
		if (en->measuring == UINT32_MAX) {
			en->measuring = tile->out;
			en->measure_left = o->n_tiles / 2;
			en->measure_used = 0;
		}
		t->measure = en->stats + en->measure_used;
		en->measure_used += n;
		memset(t->measure, 0, n * sizeof(double));
	} else if (o->two_pass) {
		t->stats = en->folded[1].total;
	}
}

/* The tensor's tiles are all measured. The older of the two results is that of a tensor that is done. */
static void fold_statistics(struct ob_engine *en)
{
	const struct ob_out *o = &en->plan->out[en->measuring];
	const double *from = en->stats;
	double *total = en->folded[0].total;
	memset(total, 0,
	       ob_codec_stats(&o->enc, &o->shape, (struct ob_elems){ 0, o->rows * o->cols }) *
		       sizeof(*total));
	for (uint32_t i = 0; i < o->n_tiles / 2; i++) {
		const struct ob_tile *t = &en->plan->tile[o->first_tile + i];
		o->enc.codec->reduce(&o->enc, &o->shape, total, (struct ob_elems){ t->e0, t->e1 },
				     from);
		from += tile_stats(o, t);
	}
	en->folded[0] = en->folded[1];
	en->folded[1].total = total;
	en->folded[1].owner = en->measuring;
	en->measuring = UINT32_MAX;
}

static void reads_done(struct ob_engine *en, struct ob_task *t);

static bool has_work_in_hand(const struct ob_engine *en)
{
	for (unsigned i = 0; i < en->n_tasks; i++)
		if (en->task[i].state != OB_TASK_FREE)
			return true;
	return false;
}

/* Without descriptors a tile waits as it does without slots, as long as some will be given back. */
static bool hold_files(struct ob_engine *en, struct ob_task *t)
{
	ob_err why = { 0 };
	if (!ob_task_hold(en->run, t, &why))
		return true;
	if (why.sys != EMFILE || !has_work_in_hand(en))
		en->err = why;
	return false;
}

/* Is the next tile there already? A tensor that is whole needs no measuring either. */
static bool is_skipped(struct ob_engine *en, const struct ob_tile *tile)
{
	const struct ob_tile_record *r = ob_journal_tile(en->journal, en->next_tile);
	if (en->run->reread)
		return !r->suspect;
	return tile->measure ? !atomic_load(&en->tiles_left[tile->out]) : r->state == OB_TILE_KEPT;
}

static void admit(struct ob_engine *en)
{
	while (!is_stopping(en) && en->next_tile < en->plan->n_tiles) {
		const struct ob_tile *tile = &en->plan->tile[en->next_tile];
		const struct ob_out *o = &en->plan->out[tile->out];
		if (is_skipped(en, tile)) {
			en->next_tile++;
			continue;
		}
		unsigned demand = ob_task_demand(en->run, tile);
		struct ob_task *t = free_task(en);
		if (!t || demand > en->n_free || !is_admissible(en, tile))
			return;
		t->tile = tile;
		if (!hold_files(en, t))
			return;
		t->state = OB_TASK_READING;
		t->index = en->next_tile++;
		t->in = take_slot(en);
		t->out = ob_task_shares_slot(en->run, tile) ? t->in : take_slot(en);
		t->ref = en->run->verify && !tile->measure ? take_slot(en) : NULL;
		begin_statistics(en, tile, t);
		if (en->hinted != tile->out && !en->run->reread)
			ob_edits_will_need(o->edit, o->n_edits);
		en->hinted = tile->out;
		atomic_store(&en->out_in_hand, tile->out);
		bool direct = false;
		if (ob_task_reads(en->run, t, &direct))
			queue_requests(en, t, false);
		else
			reads_done(en, t);
		if (direct)
			atomic_store(&en->is_direct, true);
	}
}

static void release(struct ob_engine *en, struct ob_task *t)
{
	if (t->out != t->in)
		give_slot(en, t->out);
	give_slot(en, t->in);
	give_slot(en, t->ref);
	ob_task_drop(t);
	t->state = OB_TASK_FREE;
	if (t->tile->measure && --en->measure_left == 0)
		fold_statistics(en);
}

static void start_writes(struct ob_engine *en, struct ob_task *t)
{
	bool direct = false;
	t->state = OB_TASK_WRITING;
	t->is_written = true;
	if (t->tile->measure || en->run->verify || !ob_task_writes(en->run, t, &direct)) {
		release(en, t);
		return;
	}
	queue_requests(en, t, true);
	if (direct)
		atomic_store(&en->is_direct, true);
}

static void reads_done(struct ob_engine *en, struct ob_task *t)
{
	atomic_fetch_add(&en->bytes_read, t->bytes_in);
	if (is_stopping(en)) {
		release(en, t);
	} else if (ob_task_needs_worker(en->run, t)) {
		t->state = OB_TASK_COMPUTING;
		ob_queue_push(&en->ready, t);
	} else {
		start_writes(en, t);
	}
}

/* Which of the files that the task holds. */
static unsigned file_of(const struct ob_task *t, int fd)
{
	unsigned i = 0;
	while (t->held[i]->fd != fd && t->held[i]->fd_direct != fd)
		i++;
	return i;
}

static void fail_request(struct ob_engine *en, const struct ob_task *t, const struct ob_io_req *r)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	unsigned i = file_of(t, r->fd);
	const char *path = t->held[i]->path;
	if (r->op == OB_IO_WRITE)
		ob_fail_sys(&en->err, OB_IO, r->error,
			    "writing %u bytes of %s to %s at offset %llu failed", r->len, o->name,
			    path, (unsigned long long)r->off);
	else if (r->error == ENODATA)
		ob_fail(&en->err, i < t->n_read ? OB_CHANGED : OB_VERIFY,
			"%s ends at or before offset %llu, in the middle of %s; it became shorter while it was read",
			path, (unsigned long long)(r->off + r->len), o->name);
	else
		ob_fail_sys(&en->err, OB_IO, r->error,
			    "reading %u bytes of %s from %s at offset %llu failed", r->len, o->name,
			    path, (unsigned long long)r->off);
}

/* Buffered bulk writes must not pile up as dirty pages: start each at once, wait for the one OB_BEHIND back,
 * then let its pages go. The wait takes an error of the device off the descriptor: the final sync would
 * no longer see it. */
static void write_behind(struct ob_engine *en, const struct ob_task *t, const struct ob_io_req *r)
{
	unsigned i = en->behind_at++ % OB_BEHIND;
	struct ob_handle *to = en->behind[i].to;
	if (to && ob_handle_hold_open(to)) {
		if (sync_file_range(to->fd, (off_t)en->behind[i].off, en->behind[i].len,
				    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					    SYNC_FILE_RANGE_WAIT_AFTER) &&
		    errno != ENOSYS)
			ob_fail_sys(&en->err, OB_IO, errno,
				    "writing %u bytes to %s at offset %llu failed",
				    en->behind[i].len, to->path,
				    (unsigned long long)en->behind[i].off);
		posix_fadvise(to->fd, (off_t)en->behind[i].off, en->behind[i].len,
			      POSIX_FADV_DONTNEED);
		ob_handle_drop(to);
	}
	sync_file_range(r->fd, (off_t)r->off, r->len, SYNC_FILE_RANGE_WRITE);
	en->behind[i].to = t->held[file_of(t, r->fd)];
	en->behind[i].off = r->off;
	en->behind[i].len = r->len;
}

static void complete(struct ob_engine *en, struct ob_io_req *r)
{
	struct ob_task *t = r->user;
	if (!t) {
		ob_journal_complete(en->journal, is_broken(en), &en->err);
		return;
	}
	t->is_written &= !r->error;
	if (r->error)
		fail_request(en, t, r);
	else if (r->once && r->op == OB_IO_READ)
		posix_fadvise(r->fd, (off_t)r->off, r->len, POSIX_FADV_DONTNEED);
	else if (r->once)
		write_behind(en, t, r);
	if (--t->pending)
		return;
	if (t->state == OB_TASK_READING) {
		reads_done(en, t);
	} else {
		atomic_fetch_add(&en->bytes_written, t->bytes_out);
		if (t->is_written)
			ob_journal_written(en->journal, t->index, t->bytes_out);
		release(en, t);
	}
}

static void report_difference(struct ob_engine *en, const struct ob_task *t)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	unsigned k = t->differs_part;
	ob_fail(&en->err, OB_VERIFY,
		"%s: %s differs from what this bake gives at byte %llu of its data",
		en->run->target[o->part_file[k]].reference->path, o->part_name[k],
		(unsigned long long)t->differs_at);
}

static void reread(struct ob_engine *en, const struct ob_task *t, struct ob_tile_record *r)
{
	r->suspect = false;
	if (t->hash == r->hash)
		return;
	r->state = OB_TILE_OPEN;
	en->run->n_differ++;
	en->run->differs = &en->plan->out[t->tile->out];
}

static void computed(struct ob_engine *en, struct ob_task *t)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	struct ob_tile_record *record = ob_journal_tile(en->journal, t->index);
	if (en->run->reread) {
		reread(en, t, record);
		release(en, t);
		return;
	}
	if (t->differs)
		report_difference(en, t);
	if (t->result.nonfinite && en->run->nonfinite)
		en->run->nonfinite[t->tile->out] = 1;
	if (t->result.nonfinite && en->plan->recipe->nonfinite == OB_NONFINITE_FAIL)
		ob_fail(&en->err, OB_NONFINITE,
			"%s would get values that are not finite in %s; --nonfinite warn or keep writes them all the same",
			o->name, ob_dtype_name(o->enc.dtype));
	record->hash = t->hash;
	record->effect = t->result.effect;
	record->nonfinite = t->result.nonfinite;
	if (is_stopping(en))
		release(en, t);
	else
		start_writes(en, t);
}

/* After an error: requests that were never submitted are given up. */
static void drop_backlog(struct ob_engine *en)
{
	while (en->backlog) {
		struct ob_io_req *r = en->backlog;
		struct ob_task *t = r->user;
		en->backlog = r->next;
		t->is_written = false;
		if (--t->pending == 0)
			release(en, t);
	}
	en->backlog_end = &en->backlog;
}

/* What was written before a request to stop is recorded when nothing is in flight any more. */
static void step_journal(struct ob_engine *en)
{
	bool last = en->err.code == OB_CANCELLED && !has_work_in_hand(en);
	if (last || !is_stopping(en))
		ob_journal_step(en->journal, last, &en->err);
}

static void io_loop(struct ob_engine *en)
{
	ob_journal_start(en->journal, en->io, en->run->target);
	for (;;) {
		if (en->run->cancel && *en->run->cancel)
			ob_fail(&en->err, OB_CANCELLED, "stopped on request");
		admit(en);
		if (is_stopping(en))
			drop_backlog(en);
		step_journal(en);
		bool has_requests = has_work_in_hand(en) || ob_journal_is_busy(en->journal);
		if (!has_requests && (is_stopping(en) || en->next_tile == en->plan->n_tiles))
			return;
		submit_backlog(en);
		uint64_t begin = ob_now_ns();
		bool is_busy = en->io->in_flight > 0;
		struct ob_io_req *r = has_requests ? en->io->ops->reap(en->io, OB_REPORT_MS) : NULL;
		if (is_busy)
			en->disk_ns += ob_now_ns() - begin;
		while (r) {
			struct ob_io_req *next = r->next;
			complete(en, r);
			r = next;
		}
		struct ob_task *t;
		while ((t = ob_queue_try_pop(&en->done)))
			computed(en, t);
	}
}

void *ob_io_thread(void *arg)
{
	struct ob_engine *en = arg;
	struct ob_run *run = en->run;
	if (!ob_io_open(&en->io, run->io, OB_DEPTH, run->notice, sizeof(run->notice), &en->err)) {
		run->backend = en->io->ops->name;
		if (!run->wrap_io || !run->wrap_io(run->wrap_user, &en->io, &en->err)) {
			ob_alloc_seal(true);
			io_loop(en);
			ob_alloc_seal(false);
		}
	}
	pthread_mutex_lock(&en->lock);
	en->is_over = true;
	pthread_cond_broadcast(&en->changed);
	pthread_mutex_unlock(&en->lock);
	return NULL;
}
