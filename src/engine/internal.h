/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the threads of a run share: the caller's thread sets up, waits and reports (run.c, meter.c), the
 * I/O thread moves bytes (loop.c), the workers compute (run.c).
 */
#ifndef OB_ENGINE_INTERNAL_H
#define OB_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "engine/journal.h"
#include "engine/queue.h"
#include "engine/task.h"

#define OB_DEPTH 64u /* requests in flight at most, one of them the journal's */
#define OB_BEHIND 8u /* buffered writes that may be unsynced before the oldest is waited for */
#define OB_REPORT_MS 100

struct ob_engine;

struct ob_worker {
	struct ob_engine *en;
	pthread_t thread;
	float *scratch;
};

struct ob_engine {
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
	struct ob_journal *journal, *own; /* own: of a run that was given none */
	_Atomic uint32_t *tiles_left;	  /* to compute, per output tensor */
	double *stats; /* of the measuring tiles of the tensor in hand, one behind the other */
	struct {
		double *total;	/* folded: what the tiles of a tensor encode with */
		uint32_t owner; /* that tensor; UINT32_MAX: none yet */
	} folded[2];		/* one tensor is measured while the one before is encoded */
	struct ob_worker *worker;
	unsigned n_workers, n_started;
	struct ob_queue ready, done;

	/* The I/O thread's own. */
	struct ob_io *io;
	struct ob_io_req *backlog, **backlog_end;
	uint32_t next_tile;
	uint32_t hinted;    /* output tensor whose factors were asked for last */
	uint32_t measuring; /* output tensor in its first pass, UINT32_MAX: none */
	uint32_t measure_left;
	size_t measure_used; /* of stats */
	struct {
		struct ob_handle *to;
		uint64_t off;
		uint32_t len;
	} behind[OB_BEHIND];
	unsigned behind_at;
	uint64_t disk_ns; /* time waited while requests were in flight */
	ob_err err;

	/* Shared. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_over;	 /* the I/O thread ended */
	unsigned n_warm; /* workers that are ready */
	_Atomic uint64_t bytes_read, bytes_written, busy_ns;
	uint64_t bytes_total; /* that will be read and written */
	_Atomic uint32_t out_in_hand;
	_Atomic bool is_direct;
};

static inline uint64_t ob_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Entry of the I/O thread. */
void *ob_io_thread(void *engine);

/* The last reports, for a rate over the last seconds. */
#define OB_WINDOW 20
struct ob_meter {
	double at[OB_WINDOW];
	uint64_t bytes[OB_WINDOW], busy[OB_WINDOW];
	unsigned n;
};
/* Calls the run's progress function; start: when the run began, as ob_now() says. */
void ob_meter_report(struct ob_meter *w, struct ob_engine *en, double start);

#endif
