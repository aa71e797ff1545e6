/* SPDX-License-Identifier: Apache-2.0 */
/* What every backend must do, run on each of them, buffered and direct, alone and under faults. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/util.h"
#include "io/io_impl.h"
#include "scratch.h"

TestSuite(io_laws, .init = scratch_make, .fini = scratch_remove);

#define DEPTH 8u
#define FILE_SIZE (1u << 20)
#define CHUNK (16u << 10)
#define N_CHUNKS (FILE_SIZE / CHUNK)

static int open_threads_1(struct ob_io **io, unsigned depth, ob_err *e)
{
	return ob_io_open_threads(io, depth, 1, e);
}

static int open_threads_4(struct ob_io **io, unsigned depth, ob_err *e)
{
	return ob_io_open_threads(io, depth, 4, e);
}

static int open_quiet_fault(struct ob_io **io, unsigned depth, ob_err *e)
{
	const struct ob_fault none = { .ops_mask = ~0u };
	struct ob_io *inner;

	return ob_io_open_sync(&inner, depth, e) || ob_io_open_fault(io, inner, &none, NULL, e);
}

#define N_REAL 4u /* the first backends; the last one wraps another */
#define N_BACKENDS (N_REAL + 1)

static const struct backend {
	const char *name;
	int (*open)(struct ob_io **io, unsigned depth, ob_err *e);
} backends[N_BACKENDS] = {
	{ "uring", ob_io_open_uring },	   { "threads (1)", open_threads_1 },
	{ "threads (4)", open_threads_4 }, { "sync", ob_io_open_sync },
	{ "fault", open_quiet_fault },
};

/* NULL where the system denies the backend; the test says so and goes on with the others. */
static struct ob_io *open_backend(const struct backend *b)
{
	ob_err e = { 0 };
	struct ob_io *io;

	if (!b->open(&io, DEPTH, &e))
		return io;
	cr_assert_eq(e.code, OB_UNSUPPORTED, "%s: %s", b->name, e.msg);
	cr_log_info("%s is not tested here: %s", b->name, e.msg);
	return NULL;
}

#define EACH_BACKEND(b, io)                                                      \
	for (const struct backend *b = backends; b < backends + N_BACKENDS; b++) \
		for (struct ob_io *io = open_backend(b); io; io->ops->close(io), io = NULL)

static uint32_t random_state = 1;

static uint32_t random_u32(void)
{
	random_state = random_state * 1664525u + 1013904223u;
	return random_state >> 8;
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 131 + (off >> 8) * 31 + (off >> 16));
}

static struct {
	_Alignas(OB_IO_ALIGN) uint8_t byte[FILE_SIZE];
} pattern, room;

static void fill_pattern(void)
{
	for (uint32_t i = 0; i < FILE_SIZE; i++)
		pattern.byte[i] = byte_at(i);
}

static int open_test_file(int flags)
{
	int fd = open(in_scratch("data"), O_RDWR | O_CREAT | flags, 0600);

	if (fd < 0 && (flags & O_DIRECT)) {
		cr_log_info("no direct transfers on %s: TMPDIR chooses another place", scratch_dir);
		return open_test_file(flags & ~O_DIRECT);
	}
	cr_assert_geq(fd, 0, "%s", strerror(errno));
	return fd;
}

/* Submits all requests, at most DEPTH at a time, and reaps each exactly once. */
static void run_all(struct ob_io *io, struct ob_io_req *req, size_t n)
{
	size_t next = 0, done = 0;

	while (done < n) {
		while (next < n && io->in_flight < DEPTH)
			io->ops->submit(io, &req[next++]);
		for (struct ob_io_req *r = io->ops->reap(io, 10000), *after; r; r = after) {
			after = r->next;
			cr_assert_geq(r, req);
			cr_assert_lt(r, req + n);
			cr_assert_eq(r->user, io, "reaped twice");
			r->user = NULL;
			done++;
		}
		cr_assert_eq(io->in_flight, next - done);
	}
	cr_assert_null(io->ops->reap(io, 0));
}

/* One request per chunk of the file, shuffled. */
static void make_chunks(struct ob_io_req req[N_CHUNKS], struct ob_io *io, enum ob_io_op op, int fd,
			uint8_t *mem)
{
	for (uint32_t i = 0; i < N_CHUNKS; i++) {
		uint32_t j = random_u32() % (i + 1);

		req[i] = req[j];
		req[j] = (struct ob_io_req){
			.op = op,
			.fd = fd,
			.buf = mem + i * CHUNK,
			.off = i * CHUNK,
			.len = CHUNK,
			.user = io,
			.done = 7,
			.error = EIO,
			.retries = 99 /* of an earlier use */
		};
	}
}

static void expect_no_errors(const char *name, const struct ob_io_req *req, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		cr_assert_eq(req[i].error, 0, "%s: %s", name, strerror(req[i].error));
		cr_assert_eq(req[i].done, req[i].len, "%s", name);
	}
}

/* Writes the pattern, syncs, reads it back. */
static void round_trip(struct ob_io *io, const char *name, int flags)
{
	static struct ob_io_req req[N_CHUNKS];
	struct ob_io_req sync = { .op = OB_IO_SYNC, .user = io };
	int fd = open_test_file(flags | O_TRUNC);

	make_chunks(req, io, OB_IO_WRITE, fd, pattern.byte);
	run_all(io, req, N_CHUNKS);
	expect_no_errors(name, req, N_CHUNKS);
	sync.fd = fd;
	run_all(io, &sync, 1);
	expect_no_errors(name, &sync, 1);
	memset(room.byte, 0, FILE_SIZE);
	make_chunks(req, io, OB_IO_READ, fd, room.byte);
	run_all(io, req, N_CHUNKS);
	expect_no_errors(name, req, N_CHUNKS);
	cr_assert_arr_eq(room.byte, pattern.byte, FILE_SIZE, "%s", name);
	close(fd);
}

Test(io_laws, what_is_written_is_read)
{
	fill_pattern();
	EACH_BACKEND(b, io)
	{
		round_trip(io, b->name, 0);
		round_trip(io, b->name, O_DIRECT);
	}
}

Test(io_laws, any_offset_and_length)
{
	fill_pattern();
	put_file(in_scratch("data"), pattern.byte, FILE_SIZE);
	EACH_BACKEND(b, io)
	{
		struct ob_io_req req[100];
		uint32_t used = 0;
		int fd = open_test_file(0);

		for (size_t i = 0; i < 100; i++) {
			uint32_t len = random_u32() % 9000;

			req[i] = (struct ob_io_req){ .op = OB_IO_READ,
						     .fd = fd,
						     .len = len,
						     .off = random_u32() % (FILE_SIZE - len),
						     .buf = room.byte + used,
						     .user = io };
			used += len;
		}
		run_all(io, req, 100);
		expect_no_errors(b->name, req, 100);
		for (size_t i = 0; i < 100; i++) {
			cr_assert_eq(req[i].done, req[i].len);
			cr_assert_arr_eq((uint8_t *)req[i].buf, pattern.byte + req[i].off,
					 req[i].len, "%s", b->name);
		}
		close(fd);
	}
}

static void read_end(struct ob_io *io, const char *name, int flags, uint32_t off, uint32_t len,
		     uint32_t min_len, int error)
{
	struct ob_io_req req = { .op = OB_IO_READ,
				 .off = off,
				 .len = len,
				 .min_len = min_len,
				 .buf = room.byte,
				 .user = io };

	req.fd = open_test_file(flags);
	run_all(io, &req, 1);
	cr_assert_eq(req.error, error, "%s %x: %u+%u/%u: %s", name, (unsigned)flags, off, len,
		     min_len, strerror(req.error));
	if (!error)
		cr_assert_arr_eq(room.byte, pattern.byte + off, req.done, "%s", name);
	close(req.fd);
}

Test(io_laws, the_end_of_the_file)
{
	fill_pattern();
	put_file(in_scratch("data"), pattern.byte, 10000);
	EACH_BACKEND(b, io)
	{
		read_end(io, b->name, 0, 9000, 1000, 0, 0);
		read_end(io, b->name, 0, 9000, 1001, 0, ENODATA);
		read_end(io, b->name, 0, 9000, 2000, 1000, 0);
		read_end(io, b->name, 0, 9000, 2000, 1001, ENODATA);
		read_end(io, b->name, 0, 10000, 1, 0, ENODATA);
		read_end(io, b->name, 0, 20000, 8, 0, ENODATA);
		read_end(io, b->name, O_DIRECT, 0, 12288, 10000, 0);
		read_end(io, b->name, O_DIRECT, 8192, 4096, 1808, 0);
		read_end(io, b->name, O_DIRECT, 8192, 4096, 1809, ENODATA);
		read_end(io, b->name, O_DIRECT, 0, 16384, 0, ENODATA);
		read_end(io, b->name, O_DIRECT, 12288, 4096, 0, ENODATA);
	}
}

Test(io_laws, errors_are_reported)
{
	EACH_BACKEND(b, io)
	{
		int dir = open(scratch_dir, O_RDONLY), fd;
		struct ob_io_req req[] = {
			{ .op = OB_IO_READ, .fd = -1, .buf = room.byte, .len = 8, .user = io },
			{ .op = OB_IO_WRITE, .fd = -1, .buf = room.byte, .len = 8, .user = io },
			{ .op = OB_IO_SYNC, .fd = -1, .user = io },
			{ .op = OB_IO_READ, .fd = dir, .buf = room.byte, .len = 8, .user = io },
			{ .op = OB_IO_WRITE, .buf = room.byte, .len = 8, .user = io },
		};

		close(open_test_file(0));
		req[4].fd = fd = open(in_scratch("data"), O_RDONLY);
		run_all(io, req, 5);
		for (size_t i = 0; i < 5; i++)
			cr_assert_eq(req[i].error, i == 3 ? EISDIR : EBADF, "%s, request %zu: %s",
				     b->name, i, strerror(req[i].error));
		close(fd);
		close(dir);
	}
}

/* A file size limit makes the kernel itself cut a write short, and refuse the rest. */
static int short_write(void *ctx)
{
	const struct rlimit limit = { 5000, 5000 };
	struct ob_io *io = open_backend(ctx);
	struct ob_io_req req = {
		.op = OB_IO_WRITE, .off = 1, .len = 8000, .buf = pattern.byte, .user = io
	};

	if (!io)
		return 0;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	req.fd = open_test_file(O_TRUNC);
	run_all(io, &req, 1);
	io->ops->close(io);
	return req.error == EFBIG && req.done == 4999 ? 0 : 1;
}

Test(io_laws, a_cut_write_is_continued)
{
	for (size_t i = 0; i < N_BACKENDS; i++)
		cr_assert_eq(in_child(short_write, (void *)(uintptr_t)&backends[i]), 0, "%s",
			     backends[i].name);
}

/* ---- waiting ------------------------------------------------------------------------------- */

Test(io_laws, reap_waits_for_its_timeout)
{
	EACH_BACKEND(b, io)
	{
		double start = ob_now();

		cr_assert_null(io->ops->reap(io, 0), "%s", b->name);
		cr_assert_lt(ob_now() - start, 0.5, "%s", b->name);
		cr_assert_null(io->ops->reap(io, 50), "%s", b->name);
		cr_assert_geq(ob_now() - start, 0.045, "%s", b->name);
	}
}

Test(io_laws, a_wake_counts_once)
{
	EACH_BACKEND(b, io)
	{
		double start = ob_now();

		io->ops->wake(io);
		io->ops->wake(io);
		cr_assert_null(io->ops->reap(io, -1), "%s", b->name);
		cr_assert_lt(ob_now() - start, 5, "%s", b->name);
		start = ob_now();
		cr_assert_null(io->ops->reap(io, 50), "%s", b->name);
		cr_assert_geq(ob_now() - start, 0.045, "%s", b->name);
	}
}

static void *wake_later(void *arg)
{
	struct ob_io *io = arg;

	usleep(20000);
	io->ops->wake(io);
	return NULL;
}

Test(io_laws, a_wake_from_another_thread_ends_the_wait, .timeout = 20)
{
	EACH_BACKEND(b, io)
	{
		for (int i = 0; i < 3; i++) {
			pthread_t t;

			pthread_create(&t, NULL, wake_later, io);
			cr_assert_null(io->ops->reap(io, -1), "%s", b->name);
			pthread_join(t, NULL);
		}
	}
}

static struct ob_io *to_wake;

static void on_alarm(int sig)
{
	(void)sig;
	to_wake->ops->wake(to_wake);
}

Test(io_laws, a_wake_from_a_signal_handler_ends_the_wait, .timeout = 20)
{
	struct sigaction act = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };

	sigaction(SIGALRM, &act, NULL);
	EACH_BACKEND(b, io)
	{
		to_wake = io;
		ualarm(20000, 0);
		cr_assert_null(io->ops->reap(io, -1), "%s", b->name);
		io->ops->reap(io, 0); /* the signal may have ended the wait before the wake did */
	}
}

Test(io_laws, frequent_wakes_do_not_starve_completions, .timeout = 20)
{
	fill_pattern();
	put_file(in_scratch("data"), pattern.byte, FILE_SIZE);
	EACH_BACKEND(b, io)
	{
		struct ob_io_req req = { .op = OB_IO_READ, .len = CHUNK, .buf = room.byte };
		struct ob_io_req *done = NULL;

		req.fd = open_test_file(0);
		io->ops->submit(io, &req);
		while (!done) {
			io->ops->wake(io);
			done = io->ops->reap(io, -1);
		}
		cr_assert_eq(done, &req);
		cr_assert_eq(req.done, CHUNK);
		close(req.fd);
	}
}

/* ---- faults -------------------------------------------------------------------------------- */

/* A backend under a rule. */
static struct ob_io *open_faulty(const struct backend *b, const struct ob_fault *rule,
				 uint64_t *count)
{
	struct ob_io *inner = open_backend(b), *io = NULL;
	ob_err e = { 0 };

	*count = 0;
	if (inner)
		cr_assert_eq(ob_io_open_fault(&io, inner, rule, count, &e), 0, "%s", e.msg);
	return io;
}

Test(io_laws, short_transfers_heal)
{
	static const uint32_t less[] = { 1, 512, 4096, CHUNK / 2, CHUNK - 1, CHUNK };

	fill_pattern();
	for (size_t i = 0; i < N_REAL; i++) {
		for (size_t k = 0; k < sizeof(less) / sizeof(less[0]); k++) {
			struct ob_fault rule = {
				.nth = 1, .sticky = true, .ops_mask = ~0u, .shorten = less[k]
			};
			uint64_t count;
			struct ob_io *io = open_faulty(&backends[i], &rule, &count);

			if (!io)
				continue;
			round_trip(io, backends[i].name, 0);
			round_trip(io, backends[i].name, O_DIRECT);
			cr_assert_eq(count, 2 * (2 * N_CHUNKS + 1));
			io->ops->close(io);
		}
	}
}

/* An inner backend that notes how many bytes the first system call for a request may move. */
static struct spy {
	struct ob_io io;
	struct ob_io_list done;
	uint32_t first[8];
	unsigned n;
} spy;

static void spy_submit(struct ob_io *io, struct ob_io_req *req)
{
	ob_io_begin(io, req);
	spy.first[spy.n++] = ob_io_next_len(req);
	ob_io_perform(req);
	ob_io_list_add(&spy.done, req);
}

static struct ob_io_req *spy_reap(struct ob_io *io, int timeout_ms)
{
	(void)timeout_ms;
	return ob_io_give(io, &spy.done);
}

static void spy_close(struct ob_io *io)
{
	cr_assert_eq(io->in_flight, 0);
}

Test(io_laws, a_shortened_transfer_is_really_short)
{
	static const struct ob_io_ops ops = { .submit = spy_submit,
					      .reap = spy_reap,
					      .close = spy_close };
	const struct ob_fault rule = {
		.nth = 2, .sticky = true, .ops_mask = 1u << OB_IO_WRITE, .shorten = 99
	};
	struct ob_io_req req[] = {
		{ .op = OB_IO_WRITE, .len = 8192 }, /* before the second one */
		{ .op = OB_IO_SYNC },		    /* not of the rule */
		{ .op = OB_IO_WRITE, .len = 8192 },
		{ .op = OB_IO_WRITE, .len = 50 },
		{ .op = OB_IO_WRITE, .len = 1 },
		{ .op = OB_IO_WRITE, .len = 8192 }, /* direct */
		{ .op = OB_IO_WRITE, .len = 4096 }, /* direct */
	};
	static const uint32_t first[] = { 8192, 0, 8093, 1, 1, 4096, 4096 };
	int fd = open_test_file(O_TRUNC), direct = open_test_file(O_DIRECT);
	struct ob_io *io;
	ob_err e = { 0 };

	spy.io.ops = &ops;
	cr_assert_eq(ob_io_open_fault(&io, &spy.io, &rule, NULL, &e), 0);
	for (size_t i = 0; i < 7; i++) {
		req[i].fd = i < 5 ? fd : direct;
		req[i].buf = pattern.byte;
		req[i].user = io;
	}
	run_all(io, req, 7);
	expect_no_errors("spy", req, 7);
	cr_assert_arr_eq(spy.first, first, sizeof(first));
	io->ops->close(io);
	close(direct);
	close(fd);
}

/* Every n-th operation fails once, or from then on. */
static void fail_at(const struct backend *b, uint64_t nth, bool sticky, int error)
{
	static struct ob_io_req req[N_CHUNKS];
	struct ob_fault rule = {
		.nth = nth, .sticky = sticky, .ops_mask = 1u << OB_IO_WRITE, .error = error
	};
	uint64_t count;
	struct ob_io *io = open_faulty(b, &rule, &count);
	size_t failed = 0;
	int fd;

	if (!io)
		return;
	fd = open_test_file(O_TRUNC);
	make_chunks(req, io, OB_IO_WRITE, fd, pattern.byte);
	run_all(io, req, N_CHUNKS);
	for (size_t i = 0; i < N_CHUNKS; i++) {
		cr_assert(req[i].error == 0 || req[i].error == error);
		failed += req[i].error != 0;
	}
	cr_assert_eq(count, N_CHUNKS);
	cr_assert_eq(failed, sticky ? N_CHUNKS - nth + 1 : 1, "%s, n = %d", b->name, (int)nth);
	close(fd);
	io->ops->close(io);
}

Test(io_laws, an_error_surfaces_once_and_the_rest_drains)
{
	fill_pattern();
	for (size_t i = 0; i < N_REAL; i++) {
		for (uint64_t nth = 1; nth <= N_CHUNKS; nth += 7) {
			fail_at(&backends[i], nth, false, EIO);
			fail_at(&backends[i], nth, true, ENOSPC);
		}
	}
}

Test(io_laws, a_delayed_request_is_overtaken)
{
	fill_pattern();
	put_file(in_scratch("data"), pattern.byte, FILE_SIZE);
	for (size_t i = 0; i < N_REAL; i++) {
		struct ob_fault rule = { .nth = 1, .ops_mask = ~0u, .delay_ms = 60 };
		uint64_t count;
		struct ob_io *io = open_faulty(&backends[i], &rule, &count);
		struct ob_io_req slow = { .op = OB_IO_READ, .len = 64, .buf = room.byte };
		struct ob_io_req fast = slow;
		double start = ob_now(), slow_time = 0, fast_time = 0;

		if (!io)
			continue;
		slow.fd = fast.fd = open_test_file(0);
		io->ops->submit(io, &slow);
		io->ops->submit(io, &fast);
		while (io->in_flight) {
			struct ob_io_req *r = io->ops->reap(io, -1);
			double now = ob_now() - start;

			for (; r; r = r->next)
				*(r == &slow ? &slow_time : &fast_time) = now;
		}
		cr_assert_eq(slow.done, 64);
		cr_assert_eq(fast.done, 64);
		cr_assert_geq(slow_time, 0.055);
		cr_assert_leq(fast_time, slow_time); /* on a busy machine both come in one reap */
		close(slow.fd);
		io->ops->close(io);
	}
}
