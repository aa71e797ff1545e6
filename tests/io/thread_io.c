/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads around the I/O layer, for the thread sanitizer: wake-ups from several threads while
 * requests fly, mapped files that fault, open and close in several threads, and files that share
 * descriptors.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "io/file.h"
#include "io/io.h"
#include "scratch.h"

#define DEPTH 8
#define ROUNDS 200
#define N_WAKERS 2
#define N_READERS 3

static void need(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "thread_io: %s\n", what);
		exit(1);
	}
}

static struct ob_io *driven;
static atomic_bool stop;

static void *waker(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		driven->ops->wake(driven);
		usleep(100);
	}
	return NULL;
}

static void drive(int fd)
{
	static uint8_t out[DEPTH][512], in[DEPTH][512];
	struct ob_io_req req[DEPTH];

	for (unsigned round = 0; round < ROUNDS; round++) {
		const bool is_write = round % 2 == 0;

		for (unsigned i = 0; i < DEPTH; i++) {
			if (is_write)
				memset(out[i], (int)(round + i), sizeof(out[i]));
			req[i] = (struct ob_io_req){ .op = is_write ? OB_IO_WRITE : OB_IO_READ,
						     .fd = fd,
						     .off = i * sizeof(out[i]),
						     .len = sizeof(out[i]),
						     .buf = is_write ? out[i] : in[i] };
			driven->ops->submit(driven, &req[i]);
		}
		while (driven->in_flight) {
			for (struct ob_io_req *r = driven->ops->reap(driven, -1); r; r = r->next)
				need(!r->error && r->done == r->len, "a request failed");
		}
		need(is_write || !memcmp(in, out, sizeof(in)), "wrong bytes");
	}
}

static void test_backend(struct ob_io *io)
{
	pthread_t t[N_WAKERS];
	int fd = open(in_scratch("data"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	driven = io;
	atomic_store(&stop, false);
	for (int i = 0; i < N_WAKERS; i++)
		pthread_create(&t[i], NULL, waker, NULL);
	drive(fd);
	atomic_store(&stop, true);
	for (int i = 0; i < N_WAKERS; i++)
		pthread_join(t[i], NULL);
	io->ops->close(io);
	close(fd);
}

/* Each reader has a file that is cut under its map, again and again. */
static void *reader(void *arg)
{
	static const char zeros[3 * 4096 + 1];
	const char *path = arg;

	for (int round = 0; round < 50; round++) {
		struct ob_file *f;
		ob_err e = { 0 };
		unsigned sum = 0;

		put_file(path, zeros, sizeof(zeros));
		need(!ob_file_open(&f, path, &e), e.msg);
		need(!truncate(path, 1), "truncate");
		for (size_t i = 0; i < sizeof(zeros); i += 1024)
			sum += f->map[i];
		need(sum == 0, "the lost pages are not zero");
		need(ob_file_check(f, &e) == -1 && e.code == OB_CHANGED, "a cut went unseen");
		ob_file_close(f);
	}
	return NULL;
}

static void test_faults(void)
{
	static char path[N_READERS][sizeof(scratch_dir) + 16];
	pthread_t t[N_READERS];

	for (int i = 0; i < N_READERS; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/map%d", scratch_dir, i);
		pthread_create(&t[i], NULL, reader, path[i]);
	}
	for (int i = 0; i < N_READERS; i++)
		pthread_join(t[i], NULL);
}

#define N_FILES 20u

static struct ob_file *shared_file[N_FILES];

/* Reads the files again and again, with fewer descriptors than files. */
static void *borrower(void *arg)
{
	unsigned at = *(unsigned *)arg;

	for (int round = 0; round < 300; round++) {
		uint32_t have = 0;

		at = (at * 7 + 3) % N_FILES;
		need(!ob_file_read(shared_file[at], &have, sizeof(have), 0, NULL), "read");
		need(have == at, "another file's bytes");
		if (ob_handle_hold_open(shared_file[at]->handle))
			ob_handle_drop(shared_file[at]->handle);
	}
	return NULL;
}

static void test_handles(void)
{
	static unsigned seed[N_READERS] = { 0, 1, 2 };
	const struct rlimit few = { 30, 30 };
	pthread_t t[N_READERS];
	ob_err e = { 0 };

	need(!setrlimit(RLIMIT_NOFILE, &few), "setrlimit");
	for (uint32_t i = 0; i < N_FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "shared%u", i);
		put_file(in_scratch(name), &i, sizeof(i));
		need(!ob_file_open(&shared_file[i], in_scratch(name), &e), e.msg);
	}
	for (int i = 0; i < N_READERS; i++)
		pthread_create(&t[i], NULL, borrower, &seed[i]);
	for (int i = 0; i < N_READERS; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 0; i < N_FILES; i++)
		ob_file_close(shared_file[i]);
}

int main(void)
{
	const struct ob_fault shorten = {
		.nth = 1, .sticky = true, .ops_mask = ~0u, .shorten = 100
	};
	struct ob_io *io, *outer;
	ob_err e = { 0 };

	scratch_make();
	if (!ob_io_open_uring(&io, DEPTH, &e))
		test_backend(io);
	else
		need(e.code == OB_UNSUPPORTED, e.msg);
	need(!ob_io_open_threads(&io, DEPTH, 4, &e), "threads");
	test_backend(io);
	need(!ob_io_open_sync(&io, DEPTH, &e), "sync");
	test_backend(io);
	need(!ob_io_open_threads(&io, DEPTH, 4, &e), "threads");
	need(!ob_io_open_fault(&outer, io, &shorten, NULL, &e), "fault");
	test_backend(outer);
	test_faults();
	test_handles();
	scratch_remove();
	return 0;
}
