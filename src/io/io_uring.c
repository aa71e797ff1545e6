/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The uring backend: one ring, owned by the thread that opened it.
 *
 * A request has at most one entry in the ring, and so has the poll of the wake-up descriptor: with
 * depth + 1 entries the submission queue always has room.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "io/io_impl.h"

#define MAX_REFUSALS 100 /* of the submission queue in a row, one millisecond apart */

struct uring_io {
	struct ob_io io;
	struct io_uring ring;
	struct ob_wake wake;
	struct ob_io_req poll;	  /* stands for the wake-up descriptor */
	struct ob_io_list queued; /* in the submission queue, not seen by the kernel */
	struct ob_io_list done;
	unsigned refusals;
	int broken; /* errno: the kernel takes no more entries */
};

static void fail(struct uring_io *u, struct ob_io_req *req, int error)
{
	if (req == &u->poll)
		return; /* collect looks at a broken ring often enough to see a wake-up */
	req->error = error;
	ob_io_list_add(&u->done, req);
}

static void queue(struct uring_io *u, struct ob_io_req *req)
{
	struct io_uring_sqe *sqe = u->broken ? NULL : io_uring_get_sqe(&u->ring);
	char *buf = ob_io_next_buf(req);
	const uint64_t off = req->off + req->done;

	if (!sqe) {
		fail(u, req, u->broken ? u->broken : EBUSY);
		return;
	}
	if (req == &u->poll)
		io_uring_prep_poll_add(sqe, u->wake.fd, POLLIN);
	else if (req->op == OB_IO_READ)
		io_uring_prep_read(sqe, req->fd, buf, ob_io_next_len(req), off);
	else if (req->op == OB_IO_WRITE)
		io_uring_prep_write(sqe, req->fd, buf, ob_io_next_len(req), off);
	else
		io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, req);
	ob_io_list_add(&u->queued, req);
}

/* Hands the submission queue to the kernel. What it refuses stays for the next call; when it
 * goes on refusing, those requests fail. */
static void push(struct uring_io *u)
{
	while (u->queued.head && !u->broken) {
		int n = io_uring_submit(&u->ring);

		if (n <= 0) {
			if (++u->refusals > MAX_REFUSALS)
				u->broken = n ? -n : EAGAIN;
			break;
		}
		u->refusals = 0;
		while (n--)
			ob_io_list_pop(&u->queued);
	}
	while (u->broken && u->queued.head)
		fail(u, ob_io_list_pop(&u->queued), u->broken);
}

static void take(struct uring_io *u, struct ob_io_req *req, int result)
{
	if (req == &u->poll) {
		ob_wake_drain(&u->wake);
		queue(u, req);
	} else if (ob_io_advance(req, result)) {
		ob_io_list_add(&u->done, req);
	} else {
		queue(u, req);
	}
}

/* Waits for completions and takes them; false at the deadline or after a signal. */
static bool collect(struct uring_io *u, int64_t deadline)
{
	/* What the kernel refused is offered again soon. */
	const bool soon = u->queued.head || u->broken;
	const int left = ob_io_ms_left(deadline);
	const int ms = soon && left ? 1 : left;
	struct __kernel_timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000LL };
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	/* A wait that finds a completion does not ask for the ones that the kernel still holds. */
	if (io_uring_cq_ready(&u->ring))
		io_uring_get_events(&u->ring);
	if (io_uring_wait_cqe_timeout(&u->ring, &cqe, ms < 0 ? NULL : &ts))
		return soon && left;
	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		take(u, io_uring_cqe_get_data(cqe), cqe->res);
		n++;
	}
	io_uring_cq_advance(&u->ring, n);
	return true;
}

static void uring_submit(struct ob_io *io, struct ob_io_req *req)
{
	ob_io_begin(io, req);
	queue((struct uring_io *)io, req);
}

static struct ob_io_req *uring_reap(struct ob_io *io, int timeout_ms)
{
	struct uring_io *u = (struct uring_io *)io;
	const int64_t deadline = ob_io_deadline(timeout_ms);
	bool ready, more;

	do {
		push(u);
		/* Also after a wake-up: frequent ones must not starve the completions. */
		ready = ob_wake_take(&u->wake) || u->done.head;
		more = collect(u, ready ? 0 : deadline);
	} while (more && !ready && !u->done.head);
	return ob_io_give(io, &u->done);
}

static void uring_wake(struct ob_io *io)
{
	ob_wake_set(&((struct uring_io *)io)->wake);
}

static void uring_close(struct ob_io *io)
{
	struct uring_io *u = (struct uring_io *)io;

	/* Ends the poll as well, which has no buffer that could be written to later. */
	io_uring_queue_exit(&u->ring);
	ob_wake_close(&u->wake);
	ob_free(u);
}

static const struct ob_io_ops uring_ops = {
	.name = "uring",
	.submit = uring_submit,
	.reap = uring_reap,
	.wake = uring_wake,
	.close = uring_close,
};

static int refused(int error, ob_err *e)
{
	const char *hint;

	switch (error) {
	case ENOSYS:
		hint = "ENOSYS: this kernel has none, or a container's seccomp profile hides it";
		break;
	case EPERM:
		hint = "EPERM: sysctl kernel.io_uring_disabled or a container's seccomp profile "
		       "forbids it";
		break;
	case EACCES:
		hint = "EACCES: a security module such as SELinux forbids it";
		break;
	case ENOMEM:
		hint = "ENOMEM: the limit of locked memory (ulimit -l) or the memory of this "
		       "container is too small for it";
		break;
	case EINVAL:
		hint = "EINVAL: this kernel's is older than Linux 5.11";
		break;
	default:
		return ob_fail_sys(e, OB_IO, error, "cannot set up io_uring");
	}
	return ob_fail(e, OB_UNSUPPORTED, "io_uring is not available (%s)", hint);
}

/* What a seccomp filter cannot see: this ring will never do anything else. */
static int restrict_ring(struct io_uring *ring)
{
	struct io_uring_restriction only[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD },
	};
	const unsigned n = sizeof(only) / sizeof(only[0]);

	/* The functions for it are missing from the shared liburing before 2.4. */
	if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, only, n) ||
	    syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return -errno;
	return 0;
}

/* Newer kernels complete requests only when this thread asks, which saves interrupts. */
static int setup(struct io_uring *ring, unsigned entries)
{
	static const unsigned flags[] = {
		IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER, /* Linux 6.1 */
		IORING_SETUP_COOP_TASKRUN,				 /* Linux 5.19 */
		0,
	};
	int err = -EINVAL;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]) && err == -EINVAL; i++)
		err = io_uring_queue_init(entries, ring, flags[i] | IORING_SETUP_R_DISABLED);
	if (err)
		return -err;
	/* Waiting with a timeout needs no queue entry since Linux 5.11. */
	err = ring->features & IORING_FEAT_EXT_ARG ? restrict_ring(ring) : -EINVAL;
	if (err)
		io_uring_queue_exit(ring);
	return -err;
}

int ob_io_open_uring(struct ob_io **io, unsigned depth, ob_err *e)
{
	struct uring_io *u = ob_alloc(sizeof(*u));
	int err;

	if (!u)
		return ob_fail_nomem(e, "io_uring");
	if (ob_wake_open(&u->wake, e))
		goto free;
	err = setup(&u->ring, depth + 1);
	if (err) {
		refused(err, e);
		goto wake;
	}
	/* The poll goes in now: a profile may allow the set-up and forbid the use. */
	queue(u, &u->poll);
	err = io_uring_submit(&u->ring);
	if (err < 0) {
		refused(-err, e);
		goto ring;
	}
	ob_io_list_pop(&u->queued);
	u->io.ops = &uring_ops;
	*io = &u->io;
	return 0;

ring:
	io_uring_queue_exit(&u->ring);
wake:
	ob_wake_close(&u->wake);
free:
	ob_free(u);
	return -1;
}
