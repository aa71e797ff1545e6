/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bulk I/O: one request type and one table of operations.
 *
 * A backend is driven by one thread (the engine's I/O thread). It alone resubmits short transfers,
 * EINTR, EAGAIN and ECANCELED (bounded); the caller sees a request whole or failed. After an error
 * the caller drains (reap until in_flight is 0) before it frees a buffer.
 *
 * Backends: uring (liburing), threads (pread/pwrite in a small pool), sync (at submit), fault
 * (wraps one of them; tests). Every backend gives the same bytes.
 */
#ifndef OB_IO_IO_H
#define OB_IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Of offset, length and memory of direct transfers, whatever the device says. */
#define OB_IO_ALIGN 4096u

enum ob_io_op {
	OB_IO_READ,
	OB_IO_WRITE,
	OB_IO_SYNC, /* fdatasync; buf, len, off unused */
};

struct ob_io_req {
	enum ob_io_op op;
	int fd;
	void *buf;
	uint64_t off; /* in the file, bytes */
	uint32_t len; /* bytes */
	/* A READ is complete when at least `min_len` bytes came (direct reads round up past the
	 * end of the file); bytes behind them are not promised. 0 means len. */
	uint32_t min_len;
	/* Set by the backend: */
	uint32_t done; /* bytes transferred */
	int error;     /* 0, or a positive errno; ENODATA: the file ended before min_len */
	void *user;    /* the caller's */
	bool once;     /* the caller's: these pages are not wanted in the cache afterwards */
	/* The fault backend's: so many transfers end with 0 bytes or a negative errno, whatever they did. */
	uint16_t n_disturbed;
	int16_t disturbance;
	struct ob_io_req *next; /* the backend's while in flight; links reaped requests */
	uint32_t retries;	/* the backend's */
	uint32_t first_max; /* the fault backend's: most bytes of the first transfer; 0, no limit */
};

/* Whole transfers of any length with blocking calls, under the same rules. Return 0, or a positive errno;
 * ENODATA: the file ended. */
int ob_io_read_all(int fd, void *buf, size_t len, uint64_t off);
int ob_io_write_all(int fd, const void *buf, size_t len, uint64_t off);

struct ob_io;

struct ob_io_ops {
	const char *name;
	/* Takes ownership of the request until it is reaped. Never blocks for room: depth is the
	 * caller's duty (at most the depth given to open are in flight). */
	void (*submit)(struct ob_io *io, struct ob_io_req *req);
	/* Starts what was submitted, then waits until a request is complete, wake was called, or
	 * timeout_ms passed (-1: no limit, 0: only look). Returns completed requests linked by
	 * next, NULL when none. A wake-up that arrived since the last reap counts. A signal may
	 * end the wait early. */
	struct ob_io_req *(*reap)(struct ob_io *io, int timeout_ms);
	/* From any thread, async-signal-safe: lets the current or next reap return. */
	void (*wake)(struct ob_io *io);
	void (*close)(struct ob_io *io); /* nothing is in flight */
};

/* The head of every backend's own structure. */
struct ob_io {
	const struct ob_io_ops *ops;
	unsigned in_flight;
};

/* depth: the most requests in flight. The thread that opens drives (the kernel holds a ring to it).
 * Errors: OB_UNSUPPORTED when the kernel or a container denies io_uring (the message has a hint per
 * errno), OB_NOMEM, OB_IO. */
int ob_io_open_uring(struct ob_io **io, unsigned depth, ob_err *e);
int ob_io_open_threads(struct ob_io **io, unsigned depth, unsigned threads, ob_err *e);
int ob_io_open_sync(struct ob_io **io, unsigned depth, ob_err *e);

/* Tests: fails, shortens or delays operations of `inner`, which it owns from then on.
 * The rule applies to the n-th submitted operation (1 = first) that is of `ops_mask`
 * (1 << OB_IO_READ ...), and with `sticky` to all after it; nth 0 never applies. *count, if not
 * NULL, counts the operations of ops_mask. A reap may return NULL early. */
struct ob_fault {
	uint64_t nth;
	bool sticky;
	unsigned ops_mask;
	/* Positive errno to report, or 0. EINTR, EAGAIN and ECANCELED are what the system says to three
	 * attempts in a row, or with `sticky` to every one. */
	int error;
	bool empty; /* with error 0: the first transfer moves nothing */
	/* With error 0: transfer this many bytes less at first, at least one (the backend must
	 * resubmit); on direct descriptors in whole blocks. */
	uint32_t shorten;
	unsigned delay_ms;
};
int ob_io_open_fault(struct ob_io **io, struct ob_io *inner, const struct ob_fault *fault,
		     uint64_t *count, ob_err *e);

enum ob_io_kind { OB_IO_AUTO, OB_IO_URING, OB_IO_THREADS, OB_IO_SYNC_ONLY };
/* "auto", "uring", "threads", "sync"; -1 when unknown. */
int ob_io_kind_parse(const char *name, enum ob_io_kind *kind);
/* A kind that is asked for by name and denied is OB_IO. AUTO falls from uring to threads and says why
 * in notice (one line, "" when it did not fall). */
int ob_io_open(struct ob_io **io, enum ob_io_kind kind, unsigned depth, char *notice,
	       size_t notice_size, ob_err *e);

#endif
