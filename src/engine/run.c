/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run from the caller's side: everything is allocated and every thread started before the first read;
 * then this thread waits, reports, and folds the results.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "base/util.h"
#include "engine/internal.h"
#include "kernels/gemm.h"

/* ---- workers ------------------------------------------------------------------------------- */

static void *work(void *arg)
{
	struct ob_worker *w = arg;
	struct ob_engine *en = w->en;
	if (en->plan->edits->n_edited)
		ob_gemm_warm_up(OB_RECT_ROWS, OB_PANEL_COLS, OB_GEMM_K_MAX);
	pthread_mutex_lock(&en->lock);
	en->n_warm++;
	pthread_cond_broadcast(&en->changed);
	pthread_mutex_unlock(&en->lock);
	struct ob_task *t;
	while ((t = ob_queue_pop(&en->ready))) {
		uint64_t begin = ob_now_ns();
		ob_task_compute(en->run, t, &en->layout, w->scratch);
		/* Before it takes another tensor: no more of them are in hand than there are workers. */
		if (atomic_fetch_sub(&en->tiles_left[t->tile->out], 1) == 1)
			ob_edits_drop(en->plan->out[t->tile->out].edit,
				      en->plan->out[t->tile->out].n_edits);
		atomic_fetch_add(&en->busy_ns, ob_now_ns() - begin);
		ob_queue_push(&en->done, t);
		en->io->ops->wake(en->io);
	}
	return NULL;
}

/* ---- setting up ---------------------------------------------------------------------------- */

/* What the journal leaves to be done, in tiles of each tensor and in bytes. */
static void count_work(struct ob_engine *en)
{
	const struct ob_plan *p = en->plan;
	const struct ob_run *run = en->run;
	en->bytes_total = run->reread	? ob_journal_suspected(en->journal)
			  : run->verify ? p->read_bytes
					: p->read_bytes + p->out_bytes;
	/* Backwards: measuring tiles come before the ones that they are for. */
	for (size_t i = p->n_tiles; i-- && !run->reread;) {
		const struct ob_tile *t = &p->tile[i];
		bool is_kept = ob_journal_tile(en->journal, i)->state == OB_TILE_KEPT;
		if (t->measure ? en->tiles_left[t->out] : !is_kept)
			en->tiles_left[t->out]++;
		else
			en->bytes_total -= ob_tile_in_bytes(p, t) +
					   (run->verify ? 0 : ob_tile_out_bytes(p, t));
	}
}

static int allocate(struct ob_engine *en, ob_err *e)
{
	const struct ob_plan *p = en->plan;
	const struct ob_budget *b = en->run->budget;
	struct ob_stats_need stats = ob_stats_need(p);
	_Static_assert(sizeof(struct ob_task) <= OB_TASK_BYTES, "the budget counts it");
	en->n_workers = b->workers;
	en->n_tasks = b->slots;
	en->slab_bytes = (size_t)(b->slots * p->slot_bytes);
	en->scratch_bytes = ob_round_up(en->layout.total * sizeof(float), 4096) * en->n_workers;
	en->slab = ob_alloc_pages(en->slab_bytes);
	en->scratch = en->scratch_bytes ? ob_alloc_pages(en->scratch_bytes) : NULL;
	en->free_slot = ob_calloc(b->slots, sizeof(*en->free_slot));
	en->task = ob_calloc(en->n_tasks, sizeof(*en->task));
	en->stats = ob_calloc(stats.tiles, sizeof(double));
	for (unsigned i = 0; i < 2; i++) {
		en->folded[i].total = ob_calloc(stats.total, sizeof(double));
		en->folded[i].owner = UINT32_MAX;
	}
	en->tiles_left = ob_calloc(p->n_outs + 1, sizeof(*en->tiles_left));
	en->worker = ob_calloc(en->n_workers, sizeof(*en->worker));
	en->journal = en->run->journal;
	if (!en->journal) {
		if (ob_journal_new(&en->own, p, e))
			return -1;
		en->journal = en->own;
	}
	if (!en->slab || (en->scratch_bytes && !en->scratch) || !en->free_slot || !en->task ||
	    !en->stats || !en->folded[0].total || !en->folded[1].total || !en->tiles_left ||
	    !en->worker)
		return ob_fail_nomem(e, "slots and scratch of the engine");
	for (unsigned i = 0; i < b->slots; i++)
		en->free_slot[en->n_free++] = b->slots - 1 - i;
	count_work(en);
	if (ob_queue_init(&en->ready, en->n_tasks, e) || ob_queue_init(&en->done, en->n_tasks, e))
		return -1;
	return 0;
}

static void release_all(struct ob_engine *en)
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
	ob_free(en->folded[0].total);
	ob_free(en->folded[1].total);
	ob_free(en->stats);
	ob_free(en->tiles_left);
	ob_journal_free(en->own);
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

static int start_workers(struct ob_engine *en, ob_err *e)
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

static void wait_and_report(struct ob_engine *en, double start)
{
	struct ob_meter w = { 0 };
	pthread_mutex_lock(&en->lock);
	while (!en->is_over) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += OB_REPORT_MS * 1000000L;
		t.tv_sec += t.tv_nsec / 1000000000L;
		t.tv_nsec %= 1000000000L;
		pthread_cond_timedwait(&en->changed, &en->lock, &t);
		if (!en->run->progress || en->is_over)
			continue;
		pthread_mutex_unlock(&en->lock);
		ob_meter_report(&w, en, start);
		pthread_mutex_lock(&en->lock);
	}
	pthread_mutex_unlock(&en->lock);
}

static void fold_results(struct ob_engine *en)
{
	for (size_t i = 0; i < en->plan->n_tiles; i++) {
		const struct ob_tile_record *t = ob_journal_tile(en->journal, i);
		uint32_t out = en->plan->tile[i].out;
		if (en->run->nonfinite && t->nonfinite)
			en->run->nonfinite[out] = 1;
		if (!en->run->effect)
			continue;
		struct ob_effect *o = &en->run->effect[out];
		o->dd += t->effect.dd;
		o->aa += t->effect.aa;
		o->da += t->effect.da;
		o->n += t->effect.n;
		o->changed += t->effect.changed;
	}
}

int ob_engine_run(struct ob_run *run, ob_err *e)
{
	struct ob_engine *en = ob_alloc(sizeof(*en));
	if (!en)
		return ob_fail_nomem(e, "engine");
	en->run = run;
	en->plan = run->plan;
	en->measuring = en->hinted = UINT32_MAX;
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
		rc = start_thread(&io, ob_io_thread, en, e);
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
		fold_results(en);
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
