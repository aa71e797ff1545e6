/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/file.h"
#include "io/stage.h"
#include "io/temp.h"
#include "scratch.h"

TestSuite(handle, .init = scratch_make, .fini = scratch_remove);

/* In a child: ends it with the line. */
#define EXPECT(x)                                                               \
	do {                                                                    \
		if (!(x)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
			return 1;                                               \
		}                                                               \
	} while (0)

#define MANY 200
#define FEW 40

/* Both limits: the soft one alone would be raised again. */
static void allow(unsigned n)
{
	const struct rlimit r = { n, n };

	if (setrlimit(RLIMIT_NOFILE, &r))
		abort();
}

static unsigned count_open(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static const char *name_of(unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	return in_scratch(name);
}

static int open_input(struct ob_file **f, unsigned i, ob_err *e)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "file %u", i);

	put_file(name_of(i), text, (size_t)n);
	return ob_file_open(f, name_of(i), e);
}

/* ---- inputs -------------------------------------------------------------------------------- */

static int read_many(void *limit)
{
	static struct ob_file *f[MANY];
	const unsigned before = count_open();
	ob_err e = { 0 };

	if (limit)
		allow(*(unsigned *)limit);
	for (unsigned i = 0; i < MANY; i++)
		EXPECT(!open_input(&f[i], i, &e));
	EXPECT(count_open() == (limit ? *(unsigned *)limit - 16 + before : MANY + before));
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < MANY; i++) {
			unsigned at = round == 1 ? MANY - 1 - i : i;
			char have[32] = "", want[32];
			int n = snprintf(want, sizeof(want), "file %u", at);

			EXPECT(!ob_file_read(f[at], have, (size_t)n, 0, &e));
			EXPECT(!strcmp(have, want) && !memcmp(f[at]->map, want, (size_t)n));
		}
	for (unsigned i = 0; i < MANY; i++)
		ob_file_close(f[i]);
	EXPECT(count_open() == before);
	return 0;
}

Test(handle, inputs_are_as_many_as_one_likes)
{
	unsigned limit = 64;

	cr_assert_eq(in_child(read_many, &limit), 0);
}

Test(handle, nothing_is_closed_while_there_is_room)
{
	cr_assert_eq(in_child(read_many, NULL), 0);
}

static void rewrite(const char *path)
{
	put_file(path, "File 0", 6);
}

static void grow(const char *path)
{
	put_file(path, "file 0 and more", 15);
}

static void cut(const char *path)
{
	if (truncate(path, 3))
		abort();
}

/* The same bytes and times, another file. */
static void replace(const char *path)
{
	const char *other = in_scratch("other");
	struct stat s;

	put_file(other, "file 0", 6);
	if (stat(path, &s) ||
	    utimensat(AT_FDCWD, other, (struct timespec[]){ s.st_atim, s.st_mtim }, 0) ||
	    rename(other, path))
		abort();
}

static int change_while_closed(void *ctx)
{
	void (**change)(const char *path) = ctx;
	struct ob_file *f, *other[8];
	struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 }; /* beyond the clock of files */
	ob_err e = { 0 };
	char text[8];

	allow(22);
	EXPECT(!open_input(&f, 0, &e));
	for (unsigned i = 0; i < 8; i++)
		EXPECT(!open_input(&other[i], i + 1, &e));
	EXPECT(f->handle->fd < 0);
	EXPECT(!ob_file_read(f, text, 6, 0, &e));
	for (unsigned i = 0; i < 8; i++)
		EXPECT(!ob_file_read(other[i], text, 6, 0, &e));
	EXPECT(f->handle->fd < 0);
	nanosleep(&pause, NULL);
	(*change)(f->path);
	EXPECT(ob_file_read(f, text, 3, 0, &e) == -1 && e.code == OB_CHANGED);
	EXPECT(strstr(e.msg, f->path));
	return 0;
}

Test(handle, an_input_that_is_opened_again_is_the_same)
{
	static void (*change[])(const char *path) = { rewrite, grow, cut, replace };

	for (size_t i = 0; i < sizeof(change) / sizeof(change[0]); i++)
		cr_assert_eq(in_child(change_while_closed, &change[i]), 0, "%zu", i);
}

/* ---- holding ------------------------------------------------------------------------------- */

static int hold_all(void *ctx)
{
	struct ob_file *f[8];
	ob_err e = { 0 };

	(void)ctx;
	allow(22); /* six are for handles */
	for (unsigned i = 0; i < 8; i++)
		EXPECT(!open_input(&f[i], i, &e));
	for (unsigned i = 0; i < 6; i++)
		EXPECT(!ob_handle_hold(f[i]->handle, &e));
	EXPECT(!ob_handle_hold(f[5]->handle, &e));
	EXPECT(ob_handle_hold(f[6]->handle, &e) == -1 && e.code == OB_IO && e.sys == EMFILE);
	EXPECT(strstr(e.msg, f[6]->path) && strstr(e.msg, "ulimit -n"));
	e.code = OB_OK;
	ob_handle_drop(f[5]->handle);
	EXPECT(!ob_handle_hold_open(f[6]->handle));
	EXPECT(ob_handle_hold(f[6]->handle, NULL) == -1);
	EXPECT(ob_handle_hold_open(f[3]->handle));
	ob_handle_drop(f[3]->handle);
	ob_handle_drop(f[3]->handle);
	ob_handle_drop(f[1]->handle);
	EXPECT(!ob_handle_hold(f[6]->handle, &e)); /* closes 3, which has been idle for longer */
	EXPECT(f[3]->handle->fd < 0 && f[1]->handle->fd >= 0);
	EXPECT(ob_handle_hold_open(f[1]->handle));
	EXPECT(ob_handle_hold(f[3]->handle, NULL) == -1);
	return 0;
}

Test(handle, what_is_held_stays_open)
{
	cr_assert_eq(in_child(hold_all, NULL), 0);
}

static int hold_adopted(void *ctx)
{
	struct ob_file *nameless, *f;
	struct ob_temp t;
	ob_err e = { 0 };

	(void)ctx;
	setenv("TMPDIR", scratch_dir, 1);
	EXPECT(!ob_temp_open(&t, &e) && !ob_temp_write(&t, "text", 4, &e));
	EXPECT(!ob_temp_finish(&t, &nameless, "nameless", &e));
	EXPECT(!open_input(&f, 0, &e));
	allow(count_open() + 1);
	while (open("/", O_RDONLY) >= 0)
		;
	EXPECT(!ob_handle_make_room(1, &e));
	EXPECT(f->handle->fd < 0 && nameless->handle->fd >= 0);
	EXPECT(!ob_handle_hold(nameless->handle, &e));
	ob_file_enable_direct(nameless);
	ob_handle_drop(nameless->handle);
	ob_file_close(nameless);
	ob_file_close(f);
	return 0;
}

Test(handle, what_cannot_be_opened_again_stays_open)
{
	cr_assert_eq(in_child(hold_adopted, NULL), 0);
}

static int make_room(void *ctx)
{
	static struct ob_file *f[MANY];
	ob_err e = { 0 };

	(void)ctx;
	for (unsigned i = 0; i < MANY; i++)
		EXPECT(!open_input(&f[i], i, &e));
	allow(count_open());
	EXPECT(open("/", O_RDONLY) < 0);
	EXPECT(!ob_handle_make_room(10, &e));
	for (unsigned i = 0; i < MANY; i++)
		EXPECT((f[i]->handle->fd < 0) == (i < 10));
	EXPECT(ob_handle_make_room(2 * MANY, &e) == -1 && e.code == OB_IO);
	EXPECT(strstr(e.msg, "ulimit -n"));
	/* Whoever took them: what is idle makes way. */
	for (unsigned i = 0; i < MANY; i++)
		EXPECT(f[i]->handle->fd < 0 && open("/", O_RDONLY) >= 0);
	EXPECT(ob_handle_hold(f[0]->handle, &e) == -1);
	close(20);
	EXPECT(!ob_handle_hold(f[0]->handle, NULL));
	ob_handle_drop(f[0]->handle);
	EXPECT(!ob_handle_hold(f[1]->handle, NULL));
	return 0;
}

Test(handle, room_is_made)
{
	cr_assert_eq(in_child(make_room, NULL), 0);
}

/* ---- outputs ------------------------------------------------------------------------------- */

static int write_many(void *ctx)
{
	static struct ob_handle *h[MANY];
	static char block[8192];
	struct ob_stage *st;
	ob_err e = { 0 };
	char name[32];

	(void)ctx;
	allow(64);
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, &e));
	EXPECT(!ob_stage_mkdir(st, "a/b", &e));
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%sf%u", i % 2 ? "a/b/" : "", i);
		EXPECT(!ob_stage_create(st, name, sizeof(block), &h[i], &e));
	}
	for (unsigned k = 0; k < sizeof(block); k += sizeof(block) / 2)
		for (unsigned i = 0; i < MANY; i++) {
			memset(block, (int)i, sizeof(block));
			EXPECT(!ob_handle_hold(h[i], &e));
			EXPECT(pwrite(h[i]->fd, block, sizeof(block) / 2, k) == sizeof(block) / 2);
			ob_handle_drop(h[i]);
		}
	EXPECT(!ob_stage_publish(st, &e));
	ob_stage_close(st);
	for (unsigned i = 0; i < MANY; i++) {
		int fd;

		snprintf(name, sizeof(name), "out/%sf%u", i % 2 ? "a/b/" : "", i);
		fd = open(in_scratch(name), O_RDONLY);
		EXPECT(fd >= 0 && pread(fd, block, sizeof(block), 0) == sizeof(block));
		close(fd);
		for (unsigned k = 0; k < sizeof(block); k++)
			EXPECT(block[k] == (char)i);
	}
	return 0;
}

Test(handle, outputs_are_as_many_as_one_likes)
{
	cr_assert_eq(in_child(write_many, NULL), 0);
}

/* A closed file loses its chance to hear of a failed write: that is asked for before. */
static int lose_data(void *ctx)
{
	struct ob_handle *h[FEW];
	struct ob_stage *st;
	ob_err e = { 0 };
	char name[16];

	(void)ctx;
	allow(FEW);
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, &e));
	trap(SYS_fdatasync, -1, SECCOMP_RET_ERRNO | EIO);
	for (unsigned i = 0; i < FEW; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		EXPECT(!ob_stage_create(st, name, 5, &h[i], &e));
	}
	EXPECT(!ob_handle_hold_open(h[0]));
	EXPECT(ob_handle_hold(h[0], &e) == -1 && e.code == OB_IO && e.sys == EIO);
	EXPECT(strstr(e.msg, "out/f0"));
	e.code = OB_OK;
	EXPECT(ob_stage_publish(st, &e) == -1 && e.sys == EIO);
	ob_stage_close(st);
	EXPECT(access(in_scratch("out"), F_OK) && access(in_scratch(".out.oocbake"), F_OK));
	return 0;
}

Test(handle, lost_data_is_told)
{
	cr_assert_eq(in_child(lose_data, NULL), 0);
}

static int swap_output(void *ctx)
{
	struct ob_handle *h[FEW];
	struct ob_stage *st;
	const char *path = in_scratch(".out.oocbake/out/f0");
	const bool is_link = *(const bool *)ctx;
	ob_err e = { 0 };
	char name[16];

	put_file(in_scratch("precious"), "precious", 8);
	allow(FEW);
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, &e));
	for (unsigned i = 0; i < FEW; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		EXPECT(!ob_stage_create(st, name, 5, &h[i], &e));
	}
	EXPECT(!unlink(path));
	EXPECT(!(is_link ? symlink : link)(in_scratch("precious"), path));
	EXPECT(ob_handle_hold(h[0], &e) == -1 && e.code == OB_IO && strstr(e.msg, "out/f0"));
	ob_stage_close(st);
	return 0;
}

Test(handle, an_output_that_is_opened_again_is_the_same)
{
	bool is_link[] = { false, true };

	cr_assert_eq(in_child(swap_output, &is_link[0]), 0);
	cr_assert_eq(in_child(swap_output, &is_link[1]), 0);
}

static int no_room(void *ctx)
{
	struct ob_stage *st;
	ob_err e = { 0 };

	(void)ctx;
	allow(count_open() + 12);
	EXPECT(ob_stage_open(&st, in_scratch("out"), false, false, &e) == -1);
	EXPECT(e.code == OB_IO && strstr(e.msg, "ulimit -n"));
	EXPECT(access(in_scratch(".out.oocbake"), F_OK));
	return 0;
}

Test(handle, a_run_that_could_not_clean_up_does_not_begin)
{
	cr_assert_eq(in_child(no_room, NULL), 0);
}

/* All that may be open is, and the folder goes all the same. */
static int clean_up(void *ctx)
{
	static struct ob_file *f[MANY];
	struct ob_stage *st;
	ob_err e = { 0 };

	(void)ctx;
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, &e));
	EXPECT(!ob_stage_mkdir(st, "a/b", &e));
	for (unsigned i = 0; i < MANY; i++)
		EXPECT(!open_input(&f[i], i, &e));
	allow(count_open());
	ob_stage_close(st);
	EXPECT(access(in_scratch(".out.oocbake"), F_OK));
	return 0;
}

Test(handle, cleaning_up_takes_precedence)
{
	cr_assert_eq(in_child(clean_up, NULL), 0);
}
