/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process gives up, for good, what it does not need to finish: Landlock leaves it the files
 * that are named here and no TCP; a seccomp filter takes programs, sockets, other processes and
 * the administration of the system.
 *
 * For a program that has one job left, never for the host of a library. Landlock holds for the calling
 * thread and those that it starts later, the filter for all threads.
 */
#ifndef OB_IO_SANDBOX_H
#define OB_IO_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum ob_sandbox_mode { OB_SANDBOX_OFF, OB_SANDBOX_AUTO, OB_SANDBOX_ON };

/* Rights to a file, or to a folder and all below; all that one thing is given add up. */
enum ob_may {
	OB_MAY_READ,
	OB_MAY_CHANGE,	       /* read, write, create, remove and rename */
	OB_MAY_RECEIVE_FILE,   /* a file is renamed into it; an empty folder goes */
	OB_MAY_RECEIVE_FOLDER, /* a folder is renamed into it; an empty folder goes */
	OB_MAY_LOSE_FILE,      /* a file in it is replaced */
};

struct ob_sandbox {
	int landlock;  /* its ABI, 0: without */
	bool filter;   /* seccomp's */
	uint64_t fs;   /* rights that this Landlock knows */
	int ruleset;   /* descriptor or -1 */
	char why[256]; /* it is without Landlock */
};

/* What the kernel offers. */
void ob_sandbox_offer(struct ob_sandbox *s);

/* begin, any number of allow, enter; what fails is known, and said, by enter. */
void ob_sandbox_begin(struct ob_sandbox *s);
/* `path` below the folder `dir` (or AT_FDCWD); followed if it is a link, unless to change it. */
void ob_sandbox_allow(struct ob_sandbox *s, int dir, const char *path, enum ob_may may);
/* Without `required` it takes as much as can be had, possibly nothing. `rings`: how many I/O backends
 * are still to be opened; later there is no io_uring, into which a filter does not see. Errors:
 * OB_IO. */
int ob_sandbox_enter(struct ob_sandbox *s, bool required, unsigned rings, ob_err *e);
/* One was opened. */
int ob_sandbox_io_opened(ob_err *e);

/* "Landlock 5, seccomp" or "none". */
void ob_sandbox_text(const struct ob_sandbox *s, char *text, size_t size);

#endif
