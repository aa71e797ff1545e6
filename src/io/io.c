/* SPDX-License-Identifier: Apache-2.0 */
/* The rules that all I/O backends follow, and the choice of a backend. */
#include "io/io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/num.h"
#include "base/util.h"
#include "io/io_impl.h"
#include "io/sandbox.h"

#define MAX_RETRIES 100 /* of one request; a device that still says EAGAIN will not recover */
#define MAX_TRANSFER (1u << 30) /* bytes that a length holds, in whole blocks */
#define DEFAULT_THREADS 4	/* with 4 MiB requests they keep one disk busy */

void ob_io_list_add(struct ob_io_list *l, struct ob_io_req *req)
{
	req->next = NULL;
	if (l->head)
		l->tail->next = req;
	else
		l->head = req;
	l->tail = req;
}

struct ob_io_req *ob_io_list_pop(struct ob_io_list *l)
{
	struct ob_io_req *req = l->head;

	if (req) {
		l->head = req->next;
		req->next = NULL;
	}
	return req;
}

void ob_io_begin(struct ob_io *io, struct ob_io_req *req)
{
	req->done = 0;
	req->error = 0;
	req->retries = 0;
	req->next = NULL;
	io->in_flight++;
}

struct ob_io_req *ob_io_give(struct ob_io *io, struct ob_io_list *done)
{
	struct ob_io_req *list = done->head;

	for (struct ob_io_req *r = list; r; r = r->next)
		io->in_flight--;
	done->head = NULL;
	return list;
}

uint32_t ob_io_next_len(const struct ob_io_req *req)
{
	uint32_t left = req->len - req->done;

	return req->first_max && req->first_max < left ? req->first_max : left;
}

static bool is_aligned(const struct ob_io_req *req)
{
	return ((req->off | req->len | (uintptr_t)req->buf) & (OB_IO_ALIGN - 1)) == 0;
}

static bool finish(struct ob_io_req *req, int error)
{
	req->error = error;
	return true;
}

static bool retry(struct ob_io_req *req, int error)
{
	return ++req->retries > MAX_RETRIES && finish(req, error);
}

bool ob_io_is_transient(int error)
{
	return error == EAGAIN || error == EINTR || error == ECANCELED;
}

bool ob_io_advance(struct ob_io_req *req, int64_t result)
{
	req->first_max = 0;
	if (req->n_disturbed) {
		req->n_disturbed--;
		result = req->disturbance;
	}
	if (ob_io_is_transient((int)-result))
		return retry(req, (int)-result);
	if (result < 0)
		return finish(req, (int)-result);
	if (req->op == OB_IO_SYNC)
		return true;

	const bool is_read = req->op == OB_IO_READ;
	const uint32_t had = req->done;
	const uint32_t min_len = req->min_len ? req->min_len : req->len;

	req->done += (uint32_t)result;
	if (req->done == req->len || (is_read && req->done >= min_len))
		return true;
	if (result == 0)
		return finish(req, is_read ? ENODATA : EIO);
	/* The descriptor may be a direct one, which takes only whole blocks. */
	if (is_aligned(req)) {
		uint32_t whole = (uint32_t)ob_round_down(req->done, OB_IO_ALIGN);

		if (whole == had && retry(req, is_read ? ENODATA : EIO))
			return true;
		req->done = whole;
	}
	return false;
}

void ob_io_perform(struct ob_io_req *req)
{
	int64_t n;

	do {
		char *buf = ob_io_next_buf(req);
		const off_t off = (off_t)(req->off + req->done);

		switch (req->op) {
		case OB_IO_READ:
			n = pread(req->fd, buf, ob_io_next_len(req), off);
			break;
		case OB_IO_WRITE:
			n = pwrite(req->fd, buf, ob_io_next_len(req), off);
			break;
		default:
			n = fdatasync(req->fd);
		}
	} while (!ob_io_advance(req, n < 0 ? -errno : n));
}

static int transfer_all(enum ob_io_op op, int fd, char *buf, size_t len, uint64_t off)
{
	struct ob_io_req req = { .op = op, .fd = fd };

	for (size_t at = 0; at < len && !req.error; at += req.len) {
		req.buf = buf + at;
		req.off = off + at;
		req.len = (uint32_t)ob_min_u64(len - at, MAX_TRANSFER);
		req.done = req.retries = 0;
		ob_io_perform(&req);
	}
	return req.error;
}

int ob_io_read_all(int fd, void *buf, size_t len, uint64_t off)
{
	return transfer_all(OB_IO_READ, fd, buf, len, off);
}

int ob_io_write_all(int fd, const void *buf, size_t len, uint64_t off)
{
	return transfer_all(OB_IO_WRITE, fd, (void *)(uintptr_t)buf, len, off);
}

int ob_wake_open(struct ob_wake *w, ob_err *e)
{
	atomic_init(&w->set, false);
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot create an event descriptor for I/O");
	return 0;
}

void ob_wake_close(struct ob_wake *w)
{
	close(w->fd);
}

void ob_wake_poke(struct ob_wake *w)
{
	const int saved = errno; /* a signal handler may be the caller */
	const uint64_t one = 1;

	/* Fails only when the counter is full, and then the descriptor is readable anyway. */
	if (write(w->fd, &one, sizeof(one)) < 0)
		errno = saved;
}

void ob_wake_set(struct ob_wake *w)
{
	atomic_store(&w->set, true);
	ob_wake_poke(w);
}

bool ob_wake_take(struct ob_wake *w)
{
	return atomic_exchange(&w->set, false);
}

void ob_wake_drain(struct ob_wake *w)
{
	uint64_t n;

	/* EAGAIN: it was drained before, which is what is wanted. */
	if (read(w->fd, &n, sizeof(n)) < 0)
		return;
}

bool ob_wake_wait(struct ob_wake *w, int64_t deadline)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };

	if (poll(&p, 1, ob_io_ms_left(deadline)) <= 0)
		return false;
	ob_wake_drain(w);
	return true;
}

static int64_t now_ms(void)
{
	return (int64_t)(ob_now() * 1e3);
}

int64_t ob_io_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
}

int ob_io_ms_left(int64_t deadline)
{
	if (deadline == INT64_MAX)
		return -1;
	int64_t left = deadline - now_ms();

	return left > 0 ? (int)left : 0;
}

int ob_io_kind_parse(const char *name, enum ob_io_kind *kind)
{
	static const char *const names[] = {
		[OB_IO_AUTO] = "auto",
		[OB_IO_URING] = "uring",
		[OB_IO_THREADS] = "threads",
		[OB_IO_SYNC_ONLY] = "sync",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(name, names[i])) {
			*kind = (enum ob_io_kind)i;
			return 0;
		}
	}
	return -1;
}

static int open_threads(struct ob_io **io, unsigned depth, ob_err *e)
{
	return ob_io_open_threads(io, depth, depth < DEFAULT_THREADS ? depth : DEFAULT_THREADS, e);
}

static int open_kind(struct ob_io **io, enum ob_io_kind kind, unsigned depth, char *notice,
		     size_t notice_size, ob_err *e)
{
	ob_err why = { 0 };

	if (notice_size)
		notice[0] = '\0';
	switch (kind) {
	case OB_IO_URING:
		if (ob_io_open_uring(io, depth, &why) == 0)
			return 0;
		return ob_fail(e, why.code == OB_UNSUPPORTED ? OB_IO : why.code, "%s", why.msg);
	case OB_IO_THREADS:
		return open_threads(io, depth, e);
	case OB_IO_SYNC_ONLY:
		return ob_io_open_sync(io, depth, e);
	case OB_IO_AUTO:
		break;
	}
	if (ob_io_open_uring(io, depth, &why) == 0)
		return 0;
	if (why.code != OB_UNSUPPORTED) {
		if (e && !e->code)
			*e = why;
		return -1;
	}
	if (open_threads(io, depth, e))
		return -1;
	snprintf(notice, notice_size, "%s; using I/O threads instead", why.msg);
	return 0;
}

int ob_io_open(struct ob_io **io, enum ob_io_kind kind, unsigned depth, char *notice,
	       size_t notice_size, ob_err *e)
{
	if (open_kind(io, kind, depth, notice, notice_size, e))
		return -1;
	if (!ob_sandbox_io_opened(e))
		return 0;
	(*io)->ops->close(*io);
	return -1;
}
