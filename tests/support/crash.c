/* SPDX-License-Identifier: Apache-2.0 */
#include "crash.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/num.h"
#include "base/util.h"
#include "check.h"

#define MOST 4096 /* writes between two syncs */
#define BLOCK 512u

struct write {
	int fd;
	dev_t dev;
	ino_t ino;
	uint64_t off, len;
	const struct ob_io_req *req;
	uint64_t done; /* when it was reaped, 0: it is in flight */
};

struct crash_io {
	struct ob_io io;
	struct ob_io *inner;
	struct crash *rule;
	struct write unsynced[MOST];
	size_t n;
	uint64_t now;	  /* counts what was reaped */
	uint64_t sync_at; /* when the sync in flight was submitted */
};

/* A direct descriptor takes whole blocks only, so what a block becomes is put together in memory. */
static void spoil(const struct write *w, uint64_t seed)
{
	static _Alignas(OB_IO_ALIGN) uint8_t buf[1 << 20];

	for (uint64_t at = 0; at < w->len; at += sizeof(buf)) {
		uint64_t n = ob_min_u64(w->len - at, sizeof(buf));
		ssize_t got = pread(w->fd, buf, n, (off_t)(w->off + at));

		for (uint64_t i = 0; i < n; i += BLOCK) {
			uint64_t place[] = { w->ino, w->off + at + i };
			uint64_t fate = ob_hash64(place, sizeof(place), seed) % 3;

			if (got < (ssize_t)n || fate)
				memset(buf + i, fate == 1 ? 0 : 0xa5, ob_min_u64(n - i, BLOCK));
		}
		CHECK(pwrite(w->fd, buf, n, (off_t)(w->off + at)) == (ssize_t)n, "spoiling");
	}
}

static void note_write(struct crash_io *c, const struct ob_io_req *req)
{
	struct stat st;

	CHECK(c->n < MOST && !fstat(req->fd, &st), "too many writes");
	c->unsynced[c->n++] =
		(struct write){ req->fd, st.st_dev, st.st_ino, req->off, req->len, req, 0 };
}

static void submit(struct ob_io *io, struct ob_io_req *req)
{
	struct crash_io *c = (struct crash_io *)io;

	if (++c->rule->count == c->rule->nth) {
		for (size_t i = 0; c->rule->power && i < c->n; i++)
			spoil(&c->unsynced[i], c->rule->nth);
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
	if (req->op == OB_IO_WRITE)
		note_write(c, req);
	if (req->op == OB_IO_SYNC)
		c->sync_at = c->now;
	c->io.in_flight++;
	c->inner->ops->submit(c->inner, req);
}

/* Only what was complete when the sync began is safe. */
static void forget_synced(struct crash_io *c, int fd)
{
	struct stat st;
	size_t n = 0;

	CHECK(!fstat(fd, &st), "sync");
	for (size_t i = 0; i < c->n; i++) {
		const struct write *w = &c->unsynced[i];

		if (w->ino != st.st_ino || w->dev != st.st_dev || !w->done || w->done > c->sync_at)
			c->unsynced[n++] = *w;
	}
	c->n = n;
}

static void note_done(struct crash_io *c, const struct ob_io_req *req)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->unsynced[i].req == req && !c->unsynced[i].done)
			c->unsynced[i].done = c->now;
}

static struct ob_io_req *reap(struct ob_io *io, int timeout_ms)
{
	struct crash_io *c = (struct crash_io *)io;
	struct ob_io_req *list = c->inner->ops->reap(c->inner, timeout_ms);

	for (struct ob_io_req *r = list; r; r = r->next) {
		c->io.in_flight--;
		c->now++;
		if (r->op == OB_IO_WRITE)
			note_done(c, r);
		if (r->op == OB_IO_SYNC && !r->error)
			forget_synced(c, r->fd);
	}
	return list;
}

static void wake(struct ob_io *io)
{
	struct crash_io *c = (struct crash_io *)io;

	c->inner->ops->wake(c->inner);
}

static void close_crash(struct ob_io *io)
{
	struct crash_io *c = (struct crash_io *)io;

	c->inner->ops->close(c->inner);
	ob_free(c);
}

static const struct ob_io_ops ops = {
	.name = "crash",
	.submit = submit,
	.reap = reap,
	.wake = wake,
	.close = close_crash,
};

int crash_wrap(void *user, struct ob_io **io, ob_err *e)
{
	struct crash_io *c = ob_alloc(sizeof(*c));

	if (!c)
		return ob_fail_nomem(e, "crash");
	c->io.ops = &ops;
	c->inner = *io;
	c->rule = user;
	*io = &c->io;
	return 0;
}
