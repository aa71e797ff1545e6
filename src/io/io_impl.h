/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the I/O backends share: lists of requests, the rule that tells whether a transfer is over,
 * and the wake-up descriptor.
 */
#ifndef OB_IO_IO_IMPL_H
#define OB_IO_IO_IMPL_H

#include <stdatomic.h>

#include "io/io.h"

/* A queue of requests linked by next. Zero-initialised is empty. */
struct ob_io_list {
	struct ob_io_req *head, *tail;
};

void ob_io_list_add(struct ob_io_list *l, struct ob_io_req *req);
struct ob_io_req *ob_io_list_pop(struct ob_io_list *l); /* NULL when empty */

/* Start of every submit. */
void ob_io_begin(struct ob_io *io, struct ob_io_req *req);
/* End of every reap: empties `done` and hands its requests to the caller. */
struct ob_io_req *ob_io_give(struct ob_io *io, struct ob_io_list *done);

/* Bytes of the next system call for req; it continues at req->done. */
uint32_t ob_io_next_len(const struct ob_io_req *req);

/* Where they go; a sync has no buffer. */
static inline char *ob_io_next_buf(const struct ob_io_req *req)
{
	return req->buf ? (char *)req->buf + req->done : NULL;
}
/* Says the system only "not now"? */
bool ob_io_is_transient(int error);
/* Takes the result of one system call for req: bytes, or a negative errno. True when the request is
 * over, false when the rest must be submitted. */
bool ob_io_advance(struct ob_io_req *req, int64_t result);
/* The whole request with blocking system calls. */
void ob_io_perform(struct ob_io_req *req);

/*
 * A descriptor that becomes readable when the driving thread should look: after a completion
 * (poke), or because wake was called (set), which is remembered until it was taken.
 */
struct ob_wake {
	int fd;
	atomic_bool set;
};

int ob_wake_open(struct ob_wake *w, ob_err *e);
void ob_wake_close(struct ob_wake *w);
void ob_wake_poke(struct ob_wake *w);
void ob_wake_set(struct ob_wake *w); /* async-signal-safe */
bool ob_wake_take(struct ob_wake *w);
void ob_wake_drain(struct ob_wake *w);
/* Waits for the descriptor and drains it; false at the deadline or after a signal. */
bool ob_wake_wait(struct ob_wake *w, int64_t deadline);

/* The monotonic millisecond that is timeout_ms away; INT64_MAX for -1. */
int64_t ob_io_deadline(int timeout_ms);
/* Milliseconds until then, at least 0; -1 for INT64_MAX. */
int ob_io_ms_left(int64_t deadline);

#endif
