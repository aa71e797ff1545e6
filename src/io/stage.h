/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Staging: an output grows in ".<name>.oocbake" beside its final place and appears under the final
 * name only when it is complete, by rename.
 *
 *   .NAME.oocbake/lock       flock'd by the owner: a dead run is told from a live one
 *   .NAME.oocbake/plan       what the run was to make from which inputs; from then on it can be resumed
 *   .NAME.oocbake/journal    which parts of it are durable
 *   .NAME.oocbake/out/...    the files; renamed to NAME (a folder output: the folder `out` itself;
 *                            a file output: the one file in it)
 *
 * States a kill can leave: nothing; staging without a plan (replaced by the next run); staging with a
 * plan (the same, or taken over by a run that resumes); final output.
 */
#ifndef OB_IO_STAGE_H
#define OB_IO_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "io/handle.h"

struct ob_sandbox;
struct ob_stage;

/* final_path: the output folder, or with is_file the output file; its parent must exist. Checks,
 * creates and locks. A dead run's staging is removed first.
 * Errors: OB_USAGE when it is no name; OB_EXISTS when it exists and !force (for a folder output an
 * existing empty folder counts as absent); OB_LOCKED when another run holds it for more than a
 * second; OB_UNSAFE when a link, a file or another user's folder is in the place of the staging
 * folder; OB_IO. */
int ob_stage_open(struct ob_stage **st, const char *final_path, bool is_file, bool force,
		  ob_err *e);

/* The same, but a staging folder with a plan is taken over: *plan is its text (ob_alloc), what lies in it stays when the stage is
 * closed, and ob_stage_create gives files that are there. Without one *plan is NULL and the stage new. */
int ob_stage_resume(struct ob_stage **st, const char *final_path, bool is_file, bool force,
		    char **plan, ob_err *e);
/* Creates the journal beside the output, of `size` zero bytes that have their place on the disk, or opens that of a stage that
 * was taken over. The descriptor is the stage's. */
int ob_stage_journal(struct ob_stage *st, uint64_t size, int *fd, ob_err *e);
/* Call it when all files are created: removes others that an earlier run left, writes the plan, and brings folders and
 * names to the disk. */
int ob_stage_commit(struct ob_stage *st, const char *plan, ob_err *e);
/* Whether close leaves a staging folder. Returns false when there is nothing to leave: not wanted, or the
 * output is published. */
bool ob_stage_keep(struct ob_stage *st, bool keep);
/* Its path, for messages. NULL when there is no memory. */
const char *ob_stage_where(struct ob_stage *st);
/* Says what the whole output takes, before its first file. OB_NOSPC when there can be no room: a
 * reservation that fails in the end would have taken the space of others meanwhile. */
int ob_stage_need(struct ob_stage *st, uint64_t total, ob_err *e);
/* Brings all files to the disk and lets their pages go, so that what is read next comes from there. */
int ob_stage_flush(struct ob_stage *st, ob_err *e);

/* Creates sub-folder `rel` ("a/b", parents included) inside the output. */
int ob_stage_mkdir(struct ob_stage *st, const char *rel, ob_err *e);
/* Creates file `rel` (for is_file outputs: "") of exactly `size` bytes with the space reserved
 * (fallocate; where unsupported ftruncate after a statvfs check). The handle is the stage's.
 * Errors: OB_NOSPC naming path, need and free space. */
int ob_stage_create(struct ob_stage *st, const char *rel, uint64_t size, struct ob_handle **handle,
		    ob_err *e);
/* Of a file of ob_stage_create, from any offset; and cut to fewer bytes. */
int ob_stage_write(struct ob_handle *h, const void *data, size_t n, uint64_t off, ob_err *e);
int ob_stage_read(struct ob_handle *h, void *buf, size_t n, uint64_t off, ob_err *e);
int ob_stage_shrink(struct ob_handle *h, uint64_t size, ob_err *e);
/* Writes a small file in one go. */
int ob_stage_put(struct ob_stage *st, const char *rel, const void *data, size_t n, ob_err *e);
/* Copies a file byte for byte through a bounded buffer; the mode follows umask. */
int ob_stage_copy(struct ob_stage *st, const char *rel, const char *from, ob_err *e);

/* Names to a sandbox what will still be touched once all files are created. */
void ob_stage_allow(const struct ob_stage *st, struct ob_sandbox *s);

/* Syncs every file and folder, checks each size, renames to the final name (with force: exchanges
 * and removes the old one) and syncs the parent. The one call that makes the output visible; it
 * closes the files. Errors: OB_EXISTS when the final name was taken meanwhile, OB_IO. */
int ob_stage_publish(struct ob_stage *st, ob_err *e);
/* Closes; removes the staging folder unless it is published or kept. NULL is fine. */
void ob_stage_close(struct ob_stage *st);

/* Would ob_stage_open refuse? For --dry-run: writes nothing. */
int ob_stage_check(const char *final_path, bool is_file, bool force, ob_err *e);

#endif
