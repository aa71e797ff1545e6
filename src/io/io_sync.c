/* SPDX-License-Identifier: Apache-2.0 */
/* The sync backend: every request is carried out inside submit, by the caller's own thread. */
#include "base/alloc.h"
#include "io/io_impl.h"

struct sync_io {
	struct ob_io io;
	struct ob_io_list done;
	struct ob_wake wake;
};

static void sync_submit(struct ob_io *io, struct ob_io_req *req)
{
	struct sync_io *s = (struct sync_io *)io;

	ob_io_begin(io, req);
	ob_io_perform(req);
	ob_io_list_add(&s->done, req);
}

static struct ob_io_req *sync_reap(struct ob_io *io, int timeout_ms)
{
	struct sync_io *s = (struct sync_io *)io;
	const int64_t deadline = ob_io_deadline(timeout_ms);

	while (!ob_wake_take(&s->wake) && !s->done.head && ob_wake_wait(&s->wake, deadline))
		;
	return ob_io_give(io, &s->done);
}

static void sync_wake(struct ob_io *io)
{
	ob_wake_set(&((struct sync_io *)io)->wake);
}

static void sync_close(struct ob_io *io)
{
	struct sync_io *s = (struct sync_io *)io;

	ob_wake_close(&s->wake);
	ob_free(s);
}

static const struct ob_io_ops sync_ops = {
	.name = "sync",
	.submit = sync_submit,
	.reap = sync_reap,
	.wake = sync_wake,
	.close = sync_close,
};

int ob_io_open_sync(struct ob_io **io, unsigned depth, ob_err *e)
{
	struct sync_io *s = ob_alloc(sizeof(*s));

	(void)depth; /* nothing is ever under way between two calls */
	if (!s)
		return ob_fail_nomem(e, "sync I/O");
	if (ob_wake_open(&s->wake, e)) {
		ob_free(s);
		return -1;
	}
	s->io.ops = &sync_ops;
	*io = &s->io;
	return 0;
}
