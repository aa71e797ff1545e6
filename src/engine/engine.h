/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: runs a plan. One I/O thread admits tiles in plan order, each with all the slots that it
 * needs, reads them, hands them to W workers and writes what they give back at fixed offsets. Workers do
 * no I/O and allocate nothing; everything is allocated and faulted in before the first read.
 *
 * An admitted tile never asks for more, and a write needs no slot of its own, so every admitted tile
 * can finish: there is no deadlock. "No free slots, no admission" is all the back-pressure there is.
 */
#ifndef OB_ENGINE_ENGINE_H
#define OB_ENGINE_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "io/io.h"
#include "plan/budget.h"
#include "plan/plan.h"

struct ob_journal;

/* Where an output file is written, or (verify) what is compared with the plan. */
struct ob_target {
	struct ob_handle *handle;	 /* held while a tile is written to it */
	const struct ob_file *reference; /* verify: the file that must hold these bytes */
};

struct ob_progress {
	uint64_t done, total;	/* bytes read and written (verify: read) */
	double seconds, rate;	/* since the start; bytes per second over the last seconds */
	double remaining;	/* seconds, negative while unknown */
	const char *tensor;	/* in hand */
	uint32_t file, n_files; /* output file in hand, from 1 */
	bool cpu_bound;		/* arithmetic is the limit, else the disk */
};

/* How much of the edits a tensor's format kept, measured on a fixed sample of its rows. With d the
 * intended change and a the difference between the baked tensor and the unbaked one in the same format. */
struct ob_effect {
	double dd, aa, da;   /* sums of d*d, a*a, d*a */
	uint64_t n, changed; /* values looked at; values that differ */
};

struct ob_run {
	const struct ob_plan *plan;
	const struct ob_budget *budget;
	const struct ob_target *target; /* one per output file */
	bool verify;			/* compare instead of write */
	/* Only reads suspect tiles back from the targets, around the page cache. One that has another hash than
	 * the journal says counts in n_differ and becomes open again. */
	bool reread;
	/* Tiles that it keeps are not made again; with a file, what is done is recorded. May be NULL. */
	struct ob_journal *journal;
	enum ob_io_kind io;
	bool no_direct;		  /* tests: buffered descriptors only */
	const atomic_int *cancel; /* becomes non-zero: stop, drain, OB_CANCELLED. May be NULL */
	/* Called about ten times a second from the thread that called ob_engine_run. May be NULL. */
	void (*progress)(void *user, const struct ob_progress *p);
	void *user;
	/* Tests: wraps the I/O backend. May be NULL. */
	int (*wrap_io)(void *user, struct ob_io **io, ob_err *e);
	void *wrap_user;

	/* Results. */
	struct ob_effect *effect; /* one per output tensor; the caller's array or NULL */
	uint8_t *
		nonfinite; /* one per output tensor: non-zero when values are not finite; or NULL */
	char notice[256];  /* "" or why a slower I/O path was taken */
	const char *backend;	/* name of the I/O backend */
	bool is_direct;		/* some bulk transfers went around the page cache */
	double seconds;		/* wall time */
	double busy, disk_busy; /* worker seconds spent computing; seconds with I/O in flight */
	uint64_t bytes_read, bytes_written;
	size_t n_differ;	      /* reread: tiles */
	const struct ob_out *differs; /* the tensor of one of them */
};

/* Errors: OB_IO, OB_NOSPC, OB_CHANGED, OB_NONFINITE, OB_VERIFY, OB_CANCELLED, OB_NOMEM. On any error all
 * I/O has ended before it returns. A run that is cancelled records what it has written. */
int ob_engine_run(struct ob_run *run, ob_err *e);

#endif
