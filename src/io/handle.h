/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors on loan. A model may have more shards than the process may have descriptors, so
 * inputs and staged outputs are open only as far as the limit (ulimit -n) allows: when another file
 * needs the room, the one that was used longest ago and that nobody holds is closed, and opened
 * again when it is held the next time. While there is room nothing is ever closed.
 *
 * The room is the process's, not a job's. All functions may be called from any thread.
 */
#ifndef OB_IO_HANDLE_H
#define OB_IO_HANDLE_H

#include <stdbool.h>

#include "base/err.h"

struct ob_handle {
	void *owner;
	const char *path; /* for messages; the owner's */
	/* Opens the file, with O_DIRECT in `flags` or without, and each time the same file. Calls
	 * nothing of this header. */
	int (*open)(struct ob_handle *h, int flags, ob_err *e);
	bool is_written; /* what was written is synced before the descriptor goes */
	/* Valid while held: */
	int fd;	       /* buffered */
	int fd_direct; /* O_DIRECT, or -1 */

	/* The pool's own. */
	bool is_direct; /* fd_direct is opened, too */
	int lost;	/* errno of a sync that failed */
	unsigned holders;
	struct ob_handle *prev, *next; /* the idle ones, used longest ago first */
};

/* Closed, and not held. */
void ob_handle_init(struct ob_handle *h, const char *path,
		    int (*open)(struct ob_handle *h, int flags, ob_err *e), void *owner);
/* The same around a descriptor that cannot be opened again: it stays open until it is closed. */
void ob_handle_adopt(struct ob_handle *h, const char *path, int fd, void *owner);
/* Until it is dropped as often as it was held, the descriptors stay. Errors: those of open; OB_IO
 * with sys EMFILE when all that may be open are held; OB_IO when data that was written is lost. */
int ob_handle_hold(struct ob_handle *h, ob_err *e);
/* The same if it is open; false when it is closed, and so synced. */
bool ob_handle_hold_open(struct ob_handle *h);
void ob_handle_drop(struct ob_handle *h);
/* Of a held one: opens fd_direct, too, if the file system takes the flag and `works` agrees. */
void ob_handle_enable_direct(struct ob_handle *h, bool (*works)(int fd));
/* For good; nobody holds it any more. Does not sync. */
void ob_handle_close(struct ob_handle *h);

/* Closes idle ones until `n` more descriptors can be opened. Errors: OB_IO. */
int ob_handle_make_room(unsigned n, ob_err *e);

#endif
