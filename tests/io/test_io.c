/* SPDX-License-Identifier: Apache-2.0 */
/* The rule for short transfers, the choice of a backend, and what follows a denied io_uring. */
#include <criterion/criterion.h>

#include "../base/oom.h"
#include "io/io_impl.h"
#include "scratch.h"

static _Alignas(OB_IO_ALIGN) char block[4 * OB_IO_ALIGN];

static struct ob_io_req request(enum ob_io_op op, uint64_t off, uint32_t len, uint32_t min_len)
{
	return (struct ob_io_req){
		.op = op, .buf = block, .off = off, .len = len, .min_len = min_len
	};
}

Test(io, a_full_transfer_is_over)
{
	struct ob_io_req r = request(OB_IO_WRITE, 3, 100, 0);

	cr_assert(ob_io_advance(&r, 100));
	cr_assert_eq(r.done, 100);
	cr_assert_eq(r.error, 0);
}

Test(io, a_short_transfer_goes_on_behind_it)
{
	struct ob_io_req r = request(OB_IO_READ, 3, 100, 0);

	cr_assert_not(ob_io_advance(&r, 60));
	cr_assert_eq(r.done, 60);
	cr_assert_eq(ob_io_next_len(&r), 40);
	cr_assert(ob_io_advance(&r, 40));
	cr_assert_eq(r.error, 0);
}

Test(io, an_aligned_transfer_goes_on_at_a_whole_block)
{
	struct ob_io_req r = request(OB_IO_WRITE, OB_IO_ALIGN, 3 * OB_IO_ALIGN, 0);

	cr_assert_not(ob_io_advance(&r, OB_IO_ALIGN + 512));
	cr_assert_eq(r.done, OB_IO_ALIGN);
	cr_assert_not(ob_io_advance(&r, OB_IO_ALIGN - 1));
	cr_assert_eq(r.done, OB_IO_ALIGN);
	cr_assert_eq(ob_io_next_len(&r), 2 * OB_IO_ALIGN);
	cr_assert(ob_io_advance(&r, 2 * OB_IO_ALIGN));
	cr_assert_eq(r.error, 0);
	cr_assert_eq(r.done, r.len);
}

Test(io, an_aligned_read_that_gets_no_further_is_at_the_end)
{
	struct ob_io_req r = request(OB_IO_READ, 0, 2 * OB_IO_ALIGN, 0);
	unsigned n = 0;

	while (!ob_io_advance(&r, r.done ? 904 : 5000))
		cr_assert_lt(++n, 1000);
	cr_assert_eq(r.error, ENODATA);
	cr_assert_eq(r.done, 5000);
}

Test(io, min_len_is_enough_for_a_read_only)
{
	struct ob_io_req r = request(OB_IO_READ, 0, 2 * OB_IO_ALIGN, 5000);

	cr_assert(ob_io_advance(&r, 5000));
	cr_assert_eq(r.error, 0);
	cr_assert_eq(r.done, 5000);
	r = request(OB_IO_READ, 0, 2 * OB_IO_ALIGN, 5001);
	cr_assert_not(ob_io_advance(&r, 5000));
	r = request(OB_IO_WRITE, 0, 2 * OB_IO_ALIGN, 5000);
	cr_assert_not(ob_io_advance(&r, 5000));
}

Test(io, nothing_read_means_the_end_and_nothing_written_an_error)
{
	struct ob_io_req r = request(OB_IO_READ, 1, 10, 0);

	cr_assert(ob_io_advance(&r, 0));
	cr_assert_eq(r.error, ENODATA);
	r = request(OB_IO_WRITE, 1, 10, 0);
	cr_assert(ob_io_advance(&r, 0));
	cr_assert_eq(r.error, EIO);
	r = request(OB_IO_READ, 1, 0, 0);
	cr_assert(ob_io_advance(&r, 0));
	cr_assert_eq(r.error, 0);
}

Test(io, retries_are_bounded)
{
	static const int again[] = { EAGAIN, EINTR, ECANCELED };

	for (size_t i = 0; i < 3; i++) {
		struct ob_io_req r = request(OB_IO_SYNC, 0, 0, 0);
		unsigned n = 0;

		while (!ob_io_advance(&r, -again[i]))
			n++;
		cr_assert_eq(n, 100);
		cr_assert_eq(r.error, again[i]);
		r = request(OB_IO_SYNC, 0, 0, 0);
		cr_assert_not(ob_io_advance(&r, -again[i]));
		cr_assert(ob_io_advance(&r, 0));
		cr_assert_eq(r.error, 0);
	}
}

Test(io, other_errors_are_final)
{
	struct ob_io_req r = request(OB_IO_SYNC, 0, 0, 0);

	cr_assert(ob_io_advance(&r, -EIO));
	cr_assert_eq(r.error, EIO);
}

Test(io, kinds)
{
	enum ob_io_kind kind = OB_IO_AUTO;

	cr_assert_eq(ob_io_kind_parse("uring", &kind), 0);
	cr_assert_eq(kind, OB_IO_URING);
	cr_assert_eq(ob_io_kind_parse("threads", &kind), 0);
	cr_assert_eq(kind, OB_IO_THREADS);
	cr_assert_eq(ob_io_kind_parse("sync", &kind), 0);
	cr_assert_eq(kind, OB_IO_SYNC_ONLY);
	cr_assert_eq(ob_io_kind_parse("auto", &kind), 0);
	cr_assert_eq(kind, OB_IO_AUTO);
	cr_assert_eq(ob_io_kind_parse("", &kind), -1);
	cr_assert_eq(ob_io_kind_parse("Uring", &kind), -1);
}

struct denial {
	long nr;
	int error;
	const char *word; /* expected in the message */
};

#define EXPECT(x)                                                               \
	do {                                                                    \
		if (!(x)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
			return 1;                                               \
		}                                                               \
	} while (0)

static int denied(void *ctx)
{
	const struct denial *d = ctx;
	char notice[256] = "?";
	ob_err e = { 0 };
	struct ob_io *io;

	trap(d->nr, -1, SECCOMP_RET_ERRNO | (uint32_t)d->error);
	EXPECT(ob_io_open(&io, OB_IO_URING, 8, notice, sizeof(notice), &e) == -1);
	EXPECT(e.code == OB_IO && strstr(e.msg, d->word));
	EXPECT(!*notice);

	e = (ob_err){ 0 };
	EXPECT(ob_io_open(&io, OB_IO_AUTO, 8, notice, sizeof(notice), &e) == 0);
	EXPECT(!strcmp(io->ops->name, "threads") && e.code == OB_OK);
	EXPECT(strstr(notice, d->word) && strstr(notice, "threads") && !strchr(notice, '\n'));
	io->ops->close(io);
	return 0;
}

Test(io, auto_falls_to_threads_and_says_why)
{
	struct denial all[] = {
		{ SYS_io_uring_setup, EPERM, "kernel.io_uring_disabled" },
		{ SYS_io_uring_setup, ENOSYS, "seccomp" },
		{ SYS_io_uring_setup, EACCES, "security module" },
		{ SYS_io_uring_setup, ENOMEM, "ulimit -l" },
		{ SYS_io_uring_setup, EINVAL, "older" },
		{ SYS_io_uring_enter, EPERM, "seccomp" },
		{ SYS_io_uring_register, EPERM, "seccomp" },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		cr_assert_eq(in_child(denied, &all[i]), 0, "denial %zu", i);
}

static int broken_later(void *ctx)
{
	struct ob_io_req r = request(OB_IO_READ, 0, 16, 0), *done;
	ob_err e = { 0 };
	struct ob_io *io;

	(void)ctx;
	if (ob_io_open_uring(&io, 4, &e))
		return e.code == OB_UNSUPPORTED ? 0 : 1;
	io->ops->wake(io); /* leaves the backend's own poll to be submitted again */
	EXPECT(!io->ops->reap(io, -1));
	trap(SYS_io_uring_enter, -1, SECCOMP_RET_ERRNO | EPERM);
	io->ops->submit(io, &r);
	done = io->ops->reap(io, -1);
	EXPECT(done == &r && !r.next && r.error == EPERM && io->in_flight == 0);
	io->ops->submit(io, &r); /* and stays broken, without a wait */
	done = io->ops->reap(io, 0);
	EXPECT(done == &r && r.error == EPERM);
	io->ops->wake(io);
	EXPECT(!io->ops->reap(io, -1));
	io->ops->close(io);
	return 0;
}

Test(io, a_ring_that_breaks_fails_its_requests)
{
	cr_assert_eq(in_child(broken_later, NULL), 0);
}

static int no_threads(void *ctx)
{
	ob_err e = { 0 };
	struct ob_io *io;

	(void)ctx;
	trap(SYS_clone3, -1, SECCOMP_RET_ERRNO | ENOSYS);
	trap(SYS_clone, -1, SECCOMP_RET_ERRNO | EAGAIN);
	EXPECT(ob_io_open_threads(&io, 8, 4, &e) == -1 && e.code == OB_IO && e.sys == EAGAIN);
	return 0;
}

Test(io, a_thread_that_cannot_start)
{
	cr_assert_eq(in_child(no_threads, NULL), 0);
}

static int open_kind(void *ctx, ob_err *e)
{
	struct ob_io *io;
	char notice[256];

	if (ob_io_open(&io, *(enum ob_io_kind *)ctx, 8, notice, sizeof(notice), e))
		return -1;
	io->ops->close(io);
	return 0;
}

Test(io, out_of_memory)
{
	enum ob_io_kind kind = OB_IO_AUTO;

	cr_assert_geq(oom_sweep(open_kind, &kind), 1);
	kind = OB_IO_THREADS;
	cr_assert_eq(oom_sweep(open_kind, &kind), 1);
	kind = OB_IO_SYNC_ONLY;
	cr_assert_eq(oom_sweep(open_kind, &kind), 1);
}
