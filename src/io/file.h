/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input files: opened read-only, mapped, stamped. The map serves headers, small tensors and adapter
 * factors; bulk data is read through the descriptors, which are the handle's to open and close. A
 * file that shrinks under its map does not kill the process: the fault handler puts a zero page
 * there and marks the file.
 */
#ifndef OB_IO_FILE_H
#define OB_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/alloc.h"
#include "base/err.h"
#include "io/handle.h"

struct ob_stamp {
	dev_t dev;
	ino_t ino;
	uint64_t size;
	int64_t mtime_ns;
};

struct ob_file {
	const char *path;	     /* as the user would name it, for messages; owned */
	struct ob_handle *handle;    /* opening it again gives the same file or OB_CHANGED */
	struct ob_stamp stamp;	     /* at open */
	const uint8_t *map;	     /* whole file, read-only, NULL when empty */
	volatile int shrunk;	     /* set by the fault handler */
	struct ob_file *next_mapped; /* the handler's list */
};

/* Regular files only (links are followed; names from inputs pass ob_name_check first). Errors:
 * OB_IO when it cannot be opened, OB_CORRUPT for a directory, device, FIFO or socket (never blocks
 * on one). */
int ob_file_open(struct ob_file **f, const char *path, ob_err *e);
/* Takes over an open regular file without a name of its own; closes it on failure too. `path` is
 * how messages call it. */
int ob_file_adopt(struct ob_file **f, int fd, const char *path, ob_err *e);
void ob_file_close(struct ob_file *f); /* NULL is fine */

/* From now on the handle has a direct descriptor, too, if the file system takes direct reads. */
void ob_file_enable_direct(struct ob_file *f);
/* Is [off, off + len) in the page cache as a whole? False when the kernel cannot tell. */
bool ob_file_cached(const struct ob_file *f, uint64_t off, uint64_t len);
/* Reads exactly len bytes. Errors: OB_CHANGED when the file ends before, OB_IO. */
int ob_file_read(const struct ob_file *f, void *buf, size_t len, uint64_t off, ob_err *e);
/* Reads the whole file into ob_alloc memory with a NUL behind it; at most max bytes (OB_LIMIT). */
int ob_file_slurp(const char *path, size_t max, char **text, size_t *len, ob_err *e);
/* OB_CHANGED with the path when size, mtime or inode differ from the stamp, or the map shrank. */
int ob_file_check(const struct ob_file *f, ob_err *e);
/* Hints for the map: fetch soon, and give the pages back (they leave the resident set). */
void ob_file_will_need(const struct ob_file *f, uint64_t off, uint64_t len);
void ob_file_drop(const struct ob_file *f, uint64_t off, uint64_t len);

/* A name taken from an input (an index, a config): OB_UNSAFE unless it is one plain component
 * (not empty, "." or "..", no '/', no NUL). */
int ob_name_check(const char *name, const char *what, ob_err *e);

#endif
