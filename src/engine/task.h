/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task is an admitted tile: its slots, where its bytes lie in them, and its I/O requests.
 *
 *	FREE -> READING -> COMPUTING -> WRITING -> FREE
 *
 * The I/O thread owns a task in every state but COMPUTING, when one worker does. A task passes from one
 * to the other through the two queues only. The state itself is always the I/O thread's.
 */
#ifndef OB_ENGINE_TASK_H
#define OB_ENGINE_TASK_H

#include "engine/bake.h"
#include "engine/engine.h"

#define OB_MAX_SPANS (OB_MAX_PARTS * OB_MAX_RANGES)
/* A write may be split in three (unaligned head and tail); a verifying tile reads twice. */
#define OB_MAX_REQUESTS (3 * OB_MAX_SPANS)

enum ob_task_state { OB_TASK_FREE, OB_TASK_READING, OB_TASK_COMPUTING, OB_TASK_WRITING };

struct ob_task {
	enum ob_task_state state;
	const struct ob_tile *tile;
	uint32_t index;		 /* of the tile in the plan */
	uint8_t *in, *out, *ref; /* slots; out == in for a copy, ref only when verifying */
	struct ob_tile_input input;
	struct ob_span in_span[OB_MAX_SPANS], out_span[OB_MAX_SPANS], ref_span[OB_MAX_SPANS];
	struct ob_handle
		*held[2 * OB_MAX_PARTS]; /* the files of its requests: what it reads first */
	unsigned n_held, n_read;
	unsigned pending; /* requests in flight */
	unsigned n_req;
	struct ob_io_req req[OB_MAX_REQUESTS];
	const double *stats;
	double *measure;
	struct ob_bake_result result;
	uint64_t hash;	 /* of the output's bytes */
	bool is_written; /* no write failed or was given up */
	bool differs;	 /* verify */
	unsigned differs_part;
	uint64_t differs_at; /* first differing byte, in the part */
	uint64_t bytes_in, bytes_out;
};

/* Finds the input of task->tile and holds the files that it will read and write: all, or none and -1. With sys
 * EMFILE some may be had when other tasks are released. */
int ob_task_hold(const struct ob_run *run, struct ob_task *t, ob_err *e);
void ob_task_drop(struct ob_task *t);
/* Fills spans and read requests of an admitted tile (task->in and friends are set). Returns the number
 * of requests; *direct is set when one of them goes around the page cache. */
unsigned ob_task_reads(const struct ob_run *run, struct ob_task *t, bool *direct);
/* The write requests of a computed tile. */
unsigned ob_task_writes(const struct ob_run *run, struct ob_task *t, bool *direct);
/* Slots that a tile takes, and whether its output lies in that of its input. */
unsigned ob_task_demand(const struct ob_run *run, const struct ob_tile *t);
bool ob_task_shares_slot(const struct ob_run *run, const struct ob_tile *t);
/* The worker's part: copy or bake, and compare when verifying. */
void ob_task_compute(const struct ob_run *run, struct ob_task *t,
		     const struct ob_scratch_layout *layout, float *scratch);
/* Is a worker needed? (A copy whose bytes already lie right is not.) */
bool ob_task_needs_worker(const struct ob_run *run, const struct ob_task *t);

#endif
