/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Staging: an output grows in ".<name>.oocbake" beside its final place and appears under the final
 * name only when it is complete, by rename. The folder holds a lock file and, later, the journal,
 * so that a dead run is told from a live one.
 *
 *   .NAME.oocbake/lock       flock'd by the owner
 *   .NAME.oocbake/out/...    the files; renamed to NAME (a folder output: the folder `out` itself;
 *                            a file output: the one file in it)
 *
 * States a kill can leave: nothing; staging (replaced by the next run); final output.
 */
#ifndef OB_IO_STAGE_H
#define OB_IO_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct ob_stage;

/* final_path: the output folder, or with is_file the output file; its parent must exist. Checks,
 * creates and locks. A dead run's staging is removed first.
 * Errors: OB_USAGE when it is no name; OB_EXISTS when it exists and !force (for a folder output an
 * existing empty folder counts as absent); OB_LOCKED when another run holds it for more than a
 * second; OB_UNSAFE when a link, a file or another user's folder is in the place of the staging
 * folder; OB_IO. */
int ob_stage_open(struct ob_stage **st, const char *final_path, bool is_file, bool force,
		  ob_err *e);

/* Creates sub-folder `rel` ("a/b", parents included) inside the output. */
int ob_stage_mkdir(struct ob_stage *st, const char *rel, ob_err *e);
/* Creates file `rel` (for is_file outputs: "") of exactly `size` bytes with the space reserved
 * (fallocate; where unsupported ftruncate after a statvfs check). *fd is buffered, *fd_direct is
 * O_DIRECT or -1; both belong to the stage. Errors: OB_NOSPC naming path, need and free space. */
int ob_stage_create(struct ob_stage *st, const char *rel, uint64_t size, int *fd, int *fd_direct,
		    ob_err *e);
/* Writes a small file in one go. */
int ob_stage_put(struct ob_stage *st, const char *rel, const void *data, size_t n, ob_err *e);
/* Copies a file byte for byte through a bounded buffer; the mode follows umask. */
int ob_stage_copy(struct ob_stage *st, const char *rel, const char *from, ob_err *e);

/* Syncs every file and folder, checks each size, renames to the final name (with force: exchanges
 * and removes the old one) and syncs the parent. The one call that makes the output visible; it
 * closes the descriptors of the files. Errors: OB_EXISTS when the final name was taken meanwhile,
 * OB_IO. */
int ob_stage_publish(struct ob_stage *st, ob_err *e);
/* Closes; removes the staging folder unless published. NULL is fine. */
void ob_stage_close(struct ob_stage *st);

/* Would ob_stage_open refuse? For --dry-run: writes nothing. */
int ob_stage_check(const char *final_path, bool is_file, bool force, ob_err *e);

#endif
