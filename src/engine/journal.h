/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: what is known of every tile, in memory and, for a run that can be resumed, in a file.
 *
 * The file is a table with one record per tile, each at its own place; it has its whole size before the
 * first read. A record is written only when the data that it vouches for is durable: sync the output
 * files, write the records, sync the table, then the next batch. A record carries a checksum over
 * itself, its place and the key of the job: one that is torn, moved or of another job is as if it were
 * not there. A tile that is made again gets the same bytes, so no record ever has to be taken back.
 *
 * The I/O thread drives it through its own backend, one request at a time, and never waits for it.
 */
#ifndef OB_ENGINE_JOURNAL_H
#define OB_ENGINE_JOURNAL_H

#include "engine/engine.h"

enum ob_tile_state {
	OB_TILE_OPEN,
	OB_TILE_WRITTEN, /* perhaps in a cache only */
	OB_TILE_SYNCING, /* in the batch under way */
	OB_TILE_KEPT,	 /* durable, and so is its record */
};

struct ob_tile_record {
	uint64_t hash; /* of the bytes written, span by span */
	struct ob_effect effect;
	uint8_t state;
	bool nonfinite;
	bool suspect; /* to be read back and compared with the hash */
};

/* Nothing is in the file yet; without one (fd -1) it is a table in memory. */
int ob_journal_new(struct ob_journal **j, const struct ob_plan *p, ob_err *e);
void ob_journal_free(struct ob_journal *j); /* NULL is fine */
struct ob_tile_record *ob_journal_tile(struct ob_journal *j, size_t index);

/* Bytes of the file. */
uint64_t ob_journal_size(const struct ob_plan *p);
/* Batches go to fd from now on; folder is for messages, both stay the caller's. The records that are there
 * become kept and suspect tiles. batch: bytes after which one begins; 0: the default. */
int ob_journal_open(struct ob_journal *j, int fd, const char *folder, uint64_t key, uint64_t batch,
		    ob_err *e);
bool ob_journal_has_file(const struct ob_journal *j);

/* Makes written tiles suspect: all, or some of every tensor, the same ones each time. */
void ob_journal_suspect(struct ob_journal *j, bool all);
/* For a verification of some tiles: the others count as kept. */
void ob_journal_keep_unsampled(struct ob_journal *j);
/* Output bytes of the tiles that are kept, and (part) of those among them that are suspect. */
uint64_t ob_journal_kept(const struct ob_journal *j);
uint64_t ob_journal_suspected(const struct ob_journal *j);

/* The I/O thread's. Before the first request: */
void ob_journal_start(struct ob_journal *j, struct ob_io *io, const struct ob_target *target);
/* The writes of a tile are complete. */
void ob_journal_written(struct ob_journal *j, uint32_t tile, uint64_t bytes);
/* Begins a batch if one is due, or (last) if there is anything to keep. */
int ob_journal_step(struct ob_journal *j, bool last, ob_err *e);
bool ob_journal_is_busy(const struct ob_journal *j);
/* Its request was reaped (the one without a user). abandon: give the batch up. */
int ob_journal_complete(struct ob_journal *j, bool abandon, ob_err *e);

#endif
