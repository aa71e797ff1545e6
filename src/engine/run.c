/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run: the I/O thread's loop, the workers, and the thread that waits and reports.
 *
 * Error handling: the first error stops admission; everything in flight is drained before the threads
 * end, so that no buffer is freed under the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "base/util.h"
#include "engine/queue.h"
#include "engine/task.h"
#include "kernels/gemm.h"

#define DEPTH 64u /* requests in flight at most */
#define BEHIND 8u /* buffered writes that may be unsynced before the oldest is waited for */
#define REPORT_MS 100
#define WINDOW 20 /* reports in the window of the rate: two seconds */

struct engine;

struct worker {
	struct engine *en;
	pthread_t thread;
	float *scratch;
};

struct engine {
	struct ob_run *run;
	const struct ob_plan *plan;
	struct ob_scratch_layout layout;

	/* Allocated before the first read. */
	uint8_t *slab;
	size_t slab_bytes;
	unsigned *free_slot;
	unsigned n_free;
	struct ob_task *task;
	unsigned n_tasks;
	float *scratch;
	size_t scratch_bytes;
	_Atomic uint32_t *tiles_left; /* to compute, per output tensor */
	struct ob_effect
		*tile_effect; /* per tile of an edited tensor, folded in order at the end */
	double *stats;	      /* per measuring tile of the tensor in hand, then folded into total */
	double *total;	      /* per task: what its tile encodes with */
	struct worker *worker;
	unsigned n_workers, n_started;
	struct ob_queue ready, done;

	/* The I/O thread's own. */
	struct ob_io *io;
	struct ob_io_req *backlog, **backlog_end;
	uint32_t next_tile, tiles_done;
	uint32_t measuring; /* output tensor in its first pass, UINT32_MAX: none */
	uint32_t measure_left;
	struct {
		int fd;
		uint64_t off;
		uint32_t len;
	} behind[BEHIND];
	unsigned behind_at;
	uint64_t disk_ns; /* time waited while requests were in flight */
	ob_err err;

	/* Shared. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_over;	 /* the I/O thread ended */
	unsigned n_warm; /* workers that are ready */
	_Atomic uint64_t bytes_read, bytes_written, busy_ns;
	_Atomic uint32_t out_in_hand;
	_Atomic bool is_direct;
};

/* ---- workers ------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Before the worker takes another tensor: no more of them are in hand than there are workers. */
static void drop_factors(const struct ob_out *o)
{
	for (uint32_t i = 0; i < o->n_edits; i++) {
		if (o->edit[i].a.file)
			ob_file_drop(o->edit[i].a.file, o->edit[i].a.off,
				     ob_view_bytes(&o->edit[i].a));
		if (o->edit[i].b.file)
			ob_file_drop(o->edit[i].b.file, o->edit[i].b.off,
				     ob_view_bytes(&o->edit[i].b));
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct engine *en = w->en;
	if (en->plan->edits->n_edited)
		ob_gemm_warm_up(OB_RECT_ROWS, OB_PANEL_COLS, OB_GEMM_K_MAX);
	pthread_mutex_lock(&en->lock);
	en->n_warm++;
	pthread_cond_broadcast(&en->changed);
	pthread_mutex_unlock(&en->lock);
	struct ob_task *t;
	while ((t = ob_queue_pop(&en->ready))) {
		uint64_t begin = now_ns();
		ob_task_compute(en->run, t, &en->layout, w->scratch);
		if (atomic_fetch_sub(&en->tiles_left[t->tile->out], 1) == 1)
			drop_factors(&en->plan->out[t->tile->out]);
		atomic_fetch_add(&en->busy_ns, now_ns() - begin);
		ob_queue_push(&en->done, t);
		en->io->ops->wake(en->io);
	}
	return NULL;
}

/* ---- the I/O thread ------------------------------------------------------------------------ */

static bool is_stopping(const struct engine *en)
{
	return en->err.code != OB_OK;
}

/* Writes go before reads: they free slots. */
static void queue_requests(struct engine *en, struct ob_task *t, bool first)
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

static void submit_backlog(struct engine *en)
{
	while (en->backlog && en->io->in_flight < DEPTH) {
		struct ob_io_req *r = en->backlog;
		en->backlog = r->next;
		if (!en->backlog)
			en->backlog_end = &en->backlog;
		r->next = NULL;
		en->io->ops->submit(en->io, r);
	}
}

static uint8_t *take_slot(struct engine *en)
{
	return en->slab + (size_t)en->free_slot[--en->n_free] * OB_SLOT_BYTES;
}

static void give_slot(struct engine *en, uint8_t *slot)
{
	if (slot)
		en->free_slot[en->n_free++] = (unsigned)((size_t)(slot - en->slab) / OB_SLOT_BYTES);
}

static struct ob_task *free_task(struct engine *en)
{
	for (unsigned i = 0; i < en->n_tasks; i++)
		if (en->task[i].state == OB_TASK_FREE)
			return &en->task[i];
	return NULL;
}

/* Asks for the factors of a tensor before its first tile is computed. */
static void prefetch_factors(const struct ob_out *o)
{
	for (uint32_t i = 0; i < o->n_edits; i++) {
		if (o->edit[i].a.file)
			ob_file_will_need(o->edit[i].a.file, o->edit[i].a.off,
					  ob_view_bytes(&o->edit[i].a));
		if (o->edit[i].b.file)
			ob_file_will_need(o->edit[i].b.file, o->edit[i].b.off,
					  ob_view_bytes(&o->edit[i].b));
	}
}

/* May the next tile start? A format with statistics encodes only after all its tiles were measured, and
 * measures one tensor at a time. */
static bool is_admissible(const struct engine *en, const struct ob_tile *t)
{
	if (en->measuring == UINT32_MAX)
		return true;
	return t->measure && t->out == en->measuring;
}

static void begin_statistics(struct engine *en, const struct ob_tile *tile, struct ob_task *t)
{
	const struct ob_out *o = &en->plan->out[tile->out];
	unsigned n = o->enc.codec->n_stats;
	double *total = en->total + (size_t)(t - en->task) * OB_MAX_STATS;
	t->stats = NULL;
	t->measure = NULL;
	if (!n)
		return;
	uint32_t nth = (uint32_t)(tile - en->plan->tile) - o->first_tile;
	if (tile->measure) {
		if (nth == 0) {
			en->measuring = tile->out;
			en->measure_left = o->n_tiles / 2;
		}
		t->measure = en->stats + (size_t)nth * n;
		memset(t->measure, 0, n * sizeof(double));
		return;
	}
	memset(total, 0, n * sizeof(double));
	for (uint32_t i = 0; i < o->n_tiles / 2; i++)
		o->enc.codec->reduce(total, en->stats + (size_t)i * n);
	t->stats = total;
}

static void reads_done(struct engine *en, struct ob_task *t);

static void admit(struct engine *en)
{
	while (!is_stopping(en) && en->next_tile < en->plan->n_tiles) {
		const struct ob_tile *tile = &en->plan->tile[en->next_tile];
		const struct ob_out *o = &en->plan->out[tile->out];
		unsigned demand = ob_task_demand(en->run, tile);
		struct ob_task *t = free_task(en);
		if (!t || demand > en->n_free || !is_admissible(en, tile))
			return;
		t->state = OB_TASK_READING;
		t->tile = tile;
		t->index = en->next_tile++;
		t->in = take_slot(en);
		t->out = o->copy || tile->measure ? t->in : take_slot(en);
		t->ref = en->run->verify && !tile->measure ? take_slot(en) : NULL;
		begin_statistics(en, tile, t);
		if (t->index == o->first_tile)
			prefetch_factors(o);
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

static void release(struct engine *en, struct ob_task *t)
{
	if (t->out != t->in)
		give_slot(en, t->out);
	give_slot(en, t->in);
	give_slot(en, t->ref);
	t->state = OB_TASK_FREE;
	if (t->tile->measure && --en->measure_left == 0)
		en->measuring = UINT32_MAX;
	en->tiles_done++;
}

static void start_writes(struct engine *en, struct ob_task *t)
{
	bool direct = false;
	t->state = OB_TASK_WRITING;
	if (t->tile->measure || en->run->verify || !ob_task_writes(en->run, t, &direct)) {
		release(en, t);
		return;
	}
	queue_requests(en, t, true);
	if (direct)
		atomic_store(&en->is_direct, true);
}

static void reads_done(struct engine *en, struct ob_task *t)
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

static const char *output_name(const struct engine *en, int fd)
{
	const struct ob_target *to = en->run->target;
	size_t i = 0;
	while (i + 1 < en->plan->n_files && to[i].fd != fd && to[i].fd_direct != fd)
		i++;
	return en->plan->file[i].name;
}

/* The parts of a tensor may lie in different files. */
static const struct ob_file *read_from(const struct engine *en, const struct ob_task *t, int fd,
				       bool *is_reference)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	const struct ob_file *f = NULL;
	*is_reference = false;
	for (unsigned k = 0; t->input.tensor && k < t->input.tensor->n_parts; k++) {
		f = t->input.tensor->part[k]->file;
		if (f->fd == fd || f->fd_direct == fd)
			return f;
	}
	*is_reference = true;
	for (unsigned k = 0; k < o->part.n; k++) {
		f = en->run->target[o->part_file[k]].reference;
		if (f->fd == fd || f->fd_direct == fd)
			break;
	}
	return f;
}

static void fail_request(struct engine *en, const struct ob_task *t, const struct ob_io_req *r)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	if (r->op == OB_IO_WRITE) {
		ob_fail_sys(&en->err, OB_IO, r->error,
			    "writing %u bytes of %s to %s at offset %llu failed", r->len, o->name,
			    output_name(en, r->fd), (unsigned long long)r->off);
		return;
	}
	bool is_reference;
	const char *path = read_from(en, t, r->fd, &is_reference)->path;
	if (r->error == ENODATA)
		ob_fail(&en->err, is_reference ? OB_VERIFY : OB_CHANGED,
			"%s ends at or before offset %llu, in the middle of %s; it became shorter while it was read",
			path, (unsigned long long)(r->off + r->len), o->name);
	else
		ob_fail_sys(&en->err, OB_IO, r->error,
			    "reading %u bytes of %s from %s at offset %llu failed", r->len, o->name,
			    path, (unsigned long long)r->off);
}

/* Buffered bulk writes must not pile up as dirty pages: start each at once, wait for the one BEHIND back,
 * then let its pages go. The wait takes an error of the device off the descriptor: the final sync would
 * no longer see it. */
static void write_behind(struct engine *en, const struct ob_io_req *r)
{
	unsigned i = en->behind_at++ % BEHIND;
	if (en->behind[i].len) {
		if (sync_file_range(en->behind[i].fd, (off_t)en->behind[i].off, en->behind[i].len,
				    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					    SYNC_FILE_RANGE_WAIT_AFTER) &&
		    errno != ENOSYS)
			ob_fail_sys(&en->err, OB_IO, errno,
				    "writing %u bytes to %s at offset %llu failed",
				    en->behind[i].len, output_name(en, en->behind[i].fd),
				    (unsigned long long)en->behind[i].off);
		posix_fadvise(en->behind[i].fd, (off_t)en->behind[i].off, en->behind[i].len,
			      POSIX_FADV_DONTNEED);
	}
	sync_file_range(r->fd, (off_t)r->off, r->len, SYNC_FILE_RANGE_WRITE);
	en->behind[i].fd = r->fd;
	en->behind[i].off = r->off;
	en->behind[i].len = r->len;
}

static void complete(struct engine *en, struct ob_io_req *r)
{
	struct ob_task *t = r->user;
	if (r->error)
		fail_request(en, t, r);
	else if (r->once && r->op == OB_IO_READ)
		posix_fadvise(r->fd, (off_t)r->off, r->len, POSIX_FADV_DONTNEED);
	else if (r->once)
		write_behind(en, r);
	if (--t->pending)
		return;
	if (t->state == OB_TASK_READING) {
		reads_done(en, t);
	} else {
		atomic_fetch_add(&en->bytes_written, t->bytes_out);
		release(en, t);
	}
}

static void report_difference(struct engine *en, const struct ob_task *t)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	unsigned k = t->differs_part;
	ob_fail(&en->err, OB_VERIFY,
		"%s: %s differs from what this bake gives at byte %llu of its data",
		en->run->target[o->part_file[k]].reference->path, o->part_name[k],
		(unsigned long long)t->differs_at);
}

static void computed(struct engine *en, struct ob_task *t)
{
	const struct ob_out *o = &en->plan->out[t->tile->out];
	if (t->differs)
		report_difference(en, t);
	if (t->result.nonfinite && en->run->nonfinite)
		en->run->nonfinite[t->tile->out] = 1;
	if (t->result.nonfinite && en->plan->recipe->nonfinite == OB_NONFINITE_FAIL)
		ob_fail(&en->err, OB_NONFINITE,
			"%s would get values that are not finite in %s; --nonfinite warn or keep writes them all the same",
			o->name, ob_dtype_name(o->enc.dtype));
	if (en->tile_effect && o->n_edits)
		en->tile_effect[t->index] = t->result.effect;
	if (is_stopping(en))
		release(en, t);
	else
		start_writes(en, t);
}

static bool has_work_in_hand(const struct engine *en)
{
	for (unsigned i = 0; i < en->n_tasks; i++)
		if (en->task[i].state != OB_TASK_FREE)
			return true;
	return false;
}

/* After an error: requests that were never submitted are given up. */
static void drop_backlog(struct engine *en)
{
	while (en->backlog) {
		struct ob_io_req *r = en->backlog;
		struct ob_task *t = r->user;
		en->backlog = r->next;
		if (--t->pending == 0)
			release(en, t);
	}
	en->backlog_end = &en->backlog;
}

static void io_loop(struct engine *en)
{
	while (en->tiles_done < en->plan->n_tiles || has_work_in_hand(en)) {
		if (en->run->cancel && *en->run->cancel)
			ob_fail(&en->err, OB_CANCELLED, "stopped on request");
		admit(en);
		if (is_stopping(en)) {
			drop_backlog(en);
			if (!has_work_in_hand(en))
				return;
		}
		submit_backlog(en);
		uint64_t begin = now_ns();
		bool is_busy = en->io->in_flight > 0;
		struct ob_io_req *r = has_work_in_hand(en) ? en->io->ops->reap(en->io, REPORT_MS)
							   : NULL;
		if (is_busy)
			en->disk_ns += now_ns() - begin;
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

static void *io_thread(void *arg)
{
	struct engine *en = arg;
	struct ob_run *run = en->run;
	if (!ob_io_open(&en->io, run->io, DEPTH, run->notice, sizeof(run->notice), &en->err)) {
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

/* ---- setting up ---------------------------------------------------------------------------- */

static int allocate(struct engine *en, ob_err *e)
{
	const struct ob_plan *p = en->plan;
	const struct ob_budget *b = en->run->budget;
	uint32_t most_measured = 0;
	unsigned n_stats = 0;
	bool has_effect = false;
	for (size_t i = 0; i < p->n_outs; i++) {
		has_effect |= p->out[i].n_edits > 0;
		if (!p->out[i].copy && p->out[i].enc.codec->n_stats) {
			most_measured = (uint32_t)ob_max_u64(most_measured, p->out[i].n_tiles / 2);
			n_stats = (unsigned)ob_max_u64(n_stats, p->out[i].enc.codec->n_stats);
		}
	}
	_Static_assert(sizeof(struct ob_task) + (OB_MAX_STATS + 4) * sizeof(double) <=
			       OB_TASK_BYTES,
		       "the budget counts it");
	en->n_workers = b->workers;
	en->n_tasks = b->slots;
	en->slab_bytes = (size_t)b->slots * OB_SLOT_BYTES;
	en->scratch_bytes = ob_round_up(en->layout.total * sizeof(float), 4096) * en->n_workers;
	en->slab = ob_alloc_pages(en->slab_bytes);
	en->scratch = en->scratch_bytes ? ob_alloc_pages(en->scratch_bytes) : NULL;
	en->free_slot = ob_calloc(b->slots, sizeof(*en->free_slot));
	en->task = ob_calloc(en->n_tasks, sizeof(*en->task));
	en->total = ob_calloc((size_t)en->n_tasks * OB_MAX_STATS, sizeof(double));
	en->stats = ob_calloc((size_t)most_measured * n_stats + 1, sizeof(double));
	en->tiles_left = ob_calloc(p->n_outs + 1, sizeof(*en->tiles_left));
	en->worker = ob_calloc(en->n_workers, sizeof(*en->worker));
	if (has_effect && en->run->effect)
		en->tile_effect = ob_calloc(p->n_tiles + 1, sizeof(*en->tile_effect));
	if (!en->slab || (en->scratch_bytes && !en->scratch) || !en->free_slot || !en->task ||
	    !en->total || !en->stats || !en->tiles_left || !en->worker ||
	    (has_effect && en->run->effect && !en->tile_effect))
		return ob_fail_nomem(e, "slots and scratch of the engine");
	for (unsigned i = 0; i < b->slots; i++)
		en->free_slot[en->n_free++] = b->slots - 1 - i;
	for (size_t i = 0; i < p->n_outs; i++)
		en->tiles_left[i] = p->out[i].n_tiles;
	if (ob_queue_init(&en->ready, en->n_tasks, e) || ob_queue_init(&en->done, en->n_tasks, e))
		return -1;
	return 0;
}

static void release_all(struct engine *en)
{
	ob_queue_fini(&en->ready);
	ob_queue_fini(&en->done);
	if (en->io)
		en->io->ops->close(en->io);
	if (en->slab)
		ob_free_pages(en->slab, en->slab_bytes);
	if (en->scratch)
		ob_free_pages(en->scratch, en->scratch_bytes);
	ob_free(en->free_slot);
	ob_free(en->task);
	ob_free(en->total);
	ob_free(en->stats);
	ob_free(en->tiles_left);
	ob_free(en->tile_effect);
	ob_free(en->worker);
	pthread_cond_destroy(&en->changed);
	pthread_mutex_destroy(&en->lock);
}

/* Threads take no signals: the main thread's handler sets the cancel flag. */
static int start_thread(pthread_t *th, void *(*fn)(void *), void *arg, ob_err *e)
{
	sigset_t all, old;
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(th, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc ? ob_fail_sys(e, OB_IO, rc, "cannot start a thread") : 0;
}

static int start_workers(struct engine *en, ob_err *e)
{
	size_t floats = ob_round_up(en->layout.total * sizeof(float), 4096) / sizeof(float);
	for (unsigned i = 0; i < en->n_workers; i++) {
		en->worker[i].en = en;
		en->worker[i].scratch = floats ? en->scratch + i * floats : NULL;
		if (start_thread(&en->worker[i].thread, work, &en->worker[i], e))
			return -1;
		en->n_started++;
	}
	pthread_mutex_lock(&en->lock);
	while (en->n_warm < en->n_workers)
		pthread_cond_wait(&en->changed, &en->lock);
	pthread_mutex_unlock(&en->lock);
	return 0;
}

/* ---- the caller's thread ------------------------------------------------------------------- */

struct window {
	double at[WINDOW];
	uint64_t bytes[WINDOW], busy[WINDOW];
	unsigned n;
};

static void report(struct engine *en, struct window *w, double start)
{
	struct ob_run *run = en->run;
	const struct ob_plan *p = en->plan;
	uint32_t out = atomic_load(&en->out_in_hand);
	uint64_t read = atomic_load(&en->bytes_read), written = atomic_load(&en->bytes_written);
	uint64_t busy = atomic_load(&en->busy_ns);
	double now = ob_now();
	unsigned at = w->n % WINDOW, oldest = w->n < WINDOW ? 0 : (w->n + 1) % WINDOW;
	w->at[at] = now;
	w->bytes[at] = read + written;
	w->busy[at] = busy;
	w->n++;
	double span = now - w->at[oldest];
	struct ob_progress pr = {
		.done = read + written,
		.total = p->read_bytes + (run->verify ? 0 : p->out_bytes),
		.seconds = now - start,
		.remaining = -1,
		.tensor = p->n_outs ? p->out[out].name : "",
		.file = p->n_outs ? p->out[out].part_file[0] + 1 : 0,
		.n_files = (uint32_t)p->n_files,
	};
	if (span > 0) {
		pr.rate = (double)(w->bytes[at] - w->bytes[oldest]) / span;
		pr.cpu_bound = (double)(w->busy[at] - w->busy[oldest]) / 1e9 >
			       0.8 * span * en->n_workers;
	}
	if (pr.rate > 0 && pr.seconds > 1)
		pr.remaining = (double)(pr.total - ob_min_u64(pr.done, pr.total)) / pr.rate;
	run->progress(run->user, &pr);
}

static void wait_and_report(struct engine *en, double start)
{
	struct window w = { 0 };
	pthread_mutex_lock(&en->lock);
	while (!en->is_over) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += REPORT_MS * 1000000L;
		t.tv_sec += t.tv_nsec / 1000000000L;
		t.tv_nsec %= 1000000000L;
		pthread_cond_timedwait(&en->changed, &en->lock, &t);
		if (!en->run->progress || en->is_over)
			continue;
		pthread_mutex_unlock(&en->lock);
		report(en, &w, start);
		pthread_mutex_lock(&en->lock);
	}
	pthread_mutex_unlock(&en->lock);
}

static void fold_effects(struct engine *en)
{
	if (!en->tile_effect)
		return;
	for (size_t i = 0; i < en->plan->n_tiles; i++) {
		const struct ob_effect *t = &en->tile_effect[i];
		struct ob_effect *o = &en->run->effect[en->plan->tile[i].out];
		o->dd += t->dd;
		o->aa += t->aa;
		o->da += t->da;
		o->n += t->n;
		o->changed += t->changed;
	}
}

int ob_engine_run(struct ob_run *run, ob_err *e)
{
	struct engine *en = ob_alloc(sizeof(*en));
	if (!en)
		return ob_fail_nomem(e, "engine");
	en->run = run;
	en->plan = run->plan;
	en->measuring = UINT32_MAX;
	en->backlog_end = &en->backlog;
	pthread_mutex_init(&en->lock, NULL);
	pthread_cond_init(&en->changed, NULL);
	ob_scratch_layout(run->plan, &en->layout);
	pthread_t io;
	double start = ob_now();
	int rc = allocate(en, e);
	if (!rc)
		rc = start_workers(en, e);
	if (!rc)
		rc = start_thread(&io, io_thread, en, e);
	if (!rc) {
		wait_and_report(en, start);
		pthread_join(io, NULL);
	}
	if (en->ready.item)
		ob_queue_close(&en->ready);
	for (unsigned i = 0; i < en->n_started; i++)
		pthread_join(en->worker[i].thread, NULL);
	if (!rc && en->err.code) {
		*e = en->err;
		rc = -1;
	}
	if (!rc)
		fold_effects(en);
	run->seconds = ob_now() - start;
	run->busy = (double)atomic_load(&en->busy_ns) / 1e9;
	run->disk_busy = (double)en->disk_ns / 1e9;
	run->bytes_read = atomic_load(&en->bytes_read);
	run->bytes_written = atomic_load(&en->bytes_written);
	run->is_direct = atomic_load(&en->is_direct);
	release_all(en);
	ob_free(en);
	return rc;
}
