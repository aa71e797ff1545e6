/* SPDX-License-Identifier: Apache-2.0 */
/* The staging folder: what refuses, what appears when, and what a kill leaves at every step. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <ucontext.h>

#include "../base/oom.h"
#include "base/util.h"
#include "io/stage.h"
#include "io/tree.h"
#include "scratch.h"

TestSuite(stage, .init = scratch_make, .fini = scratch_remove, .timeout = 60);

#define EXPECT(x)                                                               \
	do {                                                                    \
		if (!(x)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
			return 1;                                               \
		}                                                               \
	} while (0)

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static unsigned count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	for (struct dirent *ent; d && (ent = readdir(d));)
		n += strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..");
	if (d)
		closedir(d);
	return n;
}

static bool holds(const char *path, const char *text)
{
	char buf[256];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	if (fd >= 0)
		close(fd);
	return n == (ssize_t)strlen(text) && !memcmp(buf, text, (size_t)n);
}

static struct ob_stage *open_stage(const char *path, bool is_file, bool force)
{
	struct ob_stage *st;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_check(path, is_file, force, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_open(&st, path, is_file, force, &e), 0, "%s", e.msg);
	return st;
}

static void refuse(const char *path, bool is_file, bool force, enum ob_code code)
{
	struct ob_stage *st;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_check(path, is_file, force, &e), -1, "%s", path);
	cr_assert_eq(e.code, code, "%s", e.msg);
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_open(&st, path, is_file, force, &e), -1, "%s", path);
	cr_assert_eq(e.code, code, "%s", e.msg);
}

static void put(struct ob_stage *st, const char *rel, const char *text)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_put(st, rel, text, strlen(text), &e), 0, "%s", e.msg);
}

static void publish(struct ob_stage *st)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_publish(st, &e), 0, "%s", e.msg);
	ob_stage_close(st);
}

/* One file of text under path, published. */
static void bake(const char *path, bool is_file, bool force, const char *text)
{
	struct ob_stage *st = open_stage(path, is_file, force);

	put(st, is_file ? "" : "file", text);
	publish(st);
}

/* ---- the plain course ---------------------------------------------------------------------- */

Test(stage, a_folder_appears_at_once_and_whole)
{
	const char *out = in_scratch("out");
	struct ob_stage *st = open_stage(out, false, false);
	static char data[20000];
	struct ob_handle *h = NULL;
	struct stat s;
	ob_err e = { 0 };

	memset(data, 'x', sizeof(data));
	cr_assert_eq(ob_stage_mkdir(st, "a/b", &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_mkdir(st, "a/c", &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_create(st, "a/b/big", sizeof(data), &h, &e), 0);
	cr_assert_eq(fstat(h->fd, &s), 0);
	cr_assert_eq(s.st_size, sizeof(data));
	cr_assert_geq((size_t)s.st_blocks * 512, sizeof(data), "space is not reserved");
	cr_assert_eq(pwrite(h->fd, data, sizeof(data), 0), sizeof(data));
	put(st, "note", "hello");
	put(st, "empty", "");
	put_file(in_scratch("source"), data, sizeof(data));
	cr_assert_eq(ob_stage_copy(st, "a/copy", in_scratch("source"), &e), 0, "%s", e.msg);
	cr_assert_not(exists(out));
	publish(st);

	cr_assert(holds(in_scratch("out/note"), "hello"));
	cr_assert(holds(in_scratch("out/empty"), ""));
	cr_assert_eq(stat(in_scratch("out/a/b/big"), &s), 0);
	cr_assert_eq(s.st_size, sizeof(data));
	cr_assert_eq(stat(in_scratch("out/a/copy"), &s), 0);
	cr_assert_eq(s.st_size, sizeof(data));
	cr_assert(exists(in_scratch("out/a/c")));
	cr_assert_eq(count_entries(out), 3);
	cr_assert_eq(count_entries(scratch_dir), 2, "the staging folder is left");
}

Test(stage, a_file_may_shrink)
{
	struct ob_stage *st = open_stage(in_scratch("out"), false, false);
	struct ob_handle *other = NULL, *file = NULL;
	char text[8] = "";
	struct stat s;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_create(st, "other", 10, &other, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_create(st, "file", 20000, &file, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_write(file, "a text", 6, 12339, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_read(file, text, 6, 12339, &e), 0, "%s", e.msg);
	cr_assert_str_eq(text, "a text");
	cr_assert_eq(ob_stage_shrink(file, 12345, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_read(file, text, 1, 12345, &e), -1);
	cr_assert_eq(e.code, OB_IO);
	publish(st);
	cr_assert_eq(stat(in_scratch("out/file"), &s), 0);
	cr_assert_eq(s.st_size, 12345);
	cr_assert_eq(stat(in_scratch("out/other"), &s), 0);
	cr_assert_eq(s.st_size, 10);
}

Test(stage, a_file_appears_at_once_and_whole)
{
	const char *out = in_scratch("out.gguf");
	struct ob_stage *st = open_stage(out, true, false);

	put(st, "", "whole");
	cr_assert_not(exists(out));
	publish(st);
	cr_assert(holds(out, "whole"));
	cr_assert_eq(count_entries(scratch_dir), 1);
}

Test(stage, a_relative_path_with_slashes_at_its_end)
{
	cr_assert_eq(chdir(scratch_dir), 0);
	bake("out//", false, false, "x");
	bake("./other/", false, false, "x");
	cr_assert(holds("out/file", "x"));
	cr_assert(holds("other/file", "x"));
}

Test(stage, direct_writes)
{
	_Alignas(4096) static char block[8192];
	struct ob_stage *st = open_stage(in_scratch("out"), false, false);
	struct ob_handle *h;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_create(st, "small", 4095, &h, &e), 0, "%s", e.msg);
	cr_assert_eq(h->fd_direct, -1);
	cr_assert_eq(ob_stage_create(st, "big", sizeof(block), &h, &e), 0, "%s", e.msg);
	if (h->fd_direct >= 0) {
		memset(block, 'd', sizeof(block));
		cr_assert(fcntl(h->fd_direct, F_GETFL) & O_DIRECT);
		cr_assert_eq(pwrite(h->fd_direct, block, sizeof(block), 0), sizeof(block));
		memset(block, 0, sizeof(block));
		cr_assert_eq(pread(h->fd, block, sizeof(block), 0), sizeof(block));
		cr_assert_eq(block[0], 'd');
		cr_assert_eq(block[8191], 'd');
	} else {
		cr_log_info("no direct writes on %s", scratch_dir);
	}
	publish(st);
}

Test(stage, closing_without_publication_leaves_nothing)
{
	struct ob_stage *st = open_stage(in_scratch("out"), false, false);
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_mkdir(st, "a/b/c", &e), 0);
	put(st, "a/b/c/file", "x");
	ob_stage_close(st);
	ob_stage_close(NULL);
	cr_assert_eq(count_entries(scratch_dir), 0);
}

Test(stage, modes_follow_umask)
{
	struct stat s;
	ob_err e = { 0 };
	struct ob_stage *st;

	put_file(in_scratch("source"), "x", 1); /* mode 0600 */
	umask(027);
	st = open_stage(in_scratch("out"), false, false);
	cr_assert_eq(ob_stage_mkdir(st, "dir", &e), 0);
	put(st, "file", "x");
	cr_assert_eq(ob_stage_copy(st, "copy", in_scratch("source"), &e), 0);
	publish(st);
	cr_assert_eq(stat(in_scratch("out"), &s), 0);
	cr_assert_eq(s.st_mode & 0777, 0750);
	cr_assert_eq(stat(in_scratch("out/dir"), &s), 0);
	cr_assert_eq(s.st_mode & 0777, 0750);
	cr_assert_eq(stat(in_scratch("out/file"), &s), 0);
	cr_assert_eq(s.st_mode & 0777, 0640);
	cr_assert_eq(stat(in_scratch("out/copy"), &s), 0);
	cr_assert_eq(s.st_mode & 0777, 0640);
}

/* ---- refusals ------------------------------------------------------------------------------ */

Test(stage, what_exists_is_kept)
{
	mkdir(in_scratch("full"), 0700);
	put_file(in_scratch("full/x"), "x", 1);
	put_file(in_scratch("file"), "x", 1);
	mkdir(in_scratch("empty"), 0700);
	cr_assert_eq(symlink("nowhere", in_scratch("link")), 0);
	refuse(in_scratch("full"), false, false, OB_EXISTS);
	refuse(in_scratch("file"), false, false, OB_EXISTS);
	refuse(in_scratch("link"), false, false, OB_EXISTS);
	refuse(in_scratch("file"), true, false, OB_EXISTS);
	refuse(in_scratch("link"), true, false, OB_EXISTS);
	refuse(in_scratch("empty"), true, false, OB_EXISTS);
	cr_assert_eq(count_entries(scratch_dir), 4);
	bake(in_scratch("empty"), false, false, "new");
	cr_assert(holds(in_scratch("empty/file"), "new"));
}

Test(stage, paths_that_name_nothing)
{
	refuse("", false, false, OB_USAGE);
	refuse("/", false, false, OB_USAGE);
	refuse("//", false, true, OB_USAGE);
	refuse(".", false, true, OB_USAGE);
	refuse(in_scratch(".."), false, true, OB_USAGE);
	refuse(in_scratch("absent/out"), false, false, OB_IO);
	put_file(in_scratch("file"), "x", 1);
	refuse(in_scratch("file/out"), false, false, OB_IO);
}

Test(stage, a_missing_parent_is_named)
{
	ob_err e = { 0 };

	ob_stage_check(in_scratch("absent/out"), false, false, &e);
	cr_assert(strstr(e.msg, in_scratch("absent")), "%s", e.msg);
	cr_assert(strstr(e.msg, "does not exist"), "%s", e.msg);
}

Test(stage, a_planted_link_is_refused)
{
	mkdir(in_scratch("victim"), 0700);
	put_file(in_scratch("victim/precious"), "x", 1);
	cr_assert_eq(symlink("victim", in_scratch(".out.oocbake")), 0);
	refuse(in_scratch("out"), false, true, OB_UNSAFE);
	cr_assert(exists(in_scratch("victim/precious")));
	unlink(in_scratch(".out.oocbake"));
	put_file(in_scratch(".out.oocbake"), "", 0);
	refuse(in_scratch("out"), false, true, OB_UNSAFE);
}

Test(stage, a_link_inside_is_not_followed)
{
	struct ob_stage *st;
	ob_err e = { 0 };

	mkdir(in_scratch("victim"), 0700);
	put_file(in_scratch("victim/precious"), "x", 1);
	st = open_stage(in_scratch("out"), false, false);
	cr_assert_eq(symlink(in_scratch("victim"), in_scratch(".out.oocbake/out/dir")), 0);
	cr_assert_eq(symlink(in_scratch("victim/precious"), in_scratch(".out.oocbake/out/f")), 0);
	cr_assert_eq(ob_stage_mkdir(st, "dir/sub", &e), -1);
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_put(st, "dir/file", "y", 1, &e), -1);
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_put(st, "f", "y", 1, &e), -1);
	ob_stage_close(st); /* removes the links, not what they lead to */
	cr_assert(holds(in_scratch("victim/precious"), "x"));
	cr_assert_eq(count_entries(in_scratch("victim")), 1);
	cr_assert_eq(count_entries(scratch_dir), 1);
}

Test(stage, names_stay_inside)
{
	static const char *const bad[] = { "..", ".", "../x", "/x", "a/../x", "a//x", "a/", "a/." };
	struct ob_stage *st = open_stage(in_scratch("out"), false, false), *file;
	ob_err e = { 0 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e = (ob_err){ 0 };
		cr_assert_eq(ob_stage_put(st, bad[i], "x", 1, &e), -1, "%s", bad[i]);
		cr_assert_eq(e.code, OB_UNSAFE, "%s", e.msg);
		e = (ob_err){ 0 };
		cr_assert_eq(ob_stage_mkdir(st, bad[i], &e), -1, "%s", bad[i]);
		cr_assert_eq(e.code, OB_UNSAFE, "%s", e.msg);
	}
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_put(st, "", "x", 1, &e), -1);
	cr_assert_eq(e.code, OB_INTERNAL);
	put(st, "twice", "x");
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_put(st, "twice", "x", 1, &e), -1);
	ob_stage_close(st);

	file = open_stage(in_scratch("one"), true, false);
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_put(file, "x", "x", 1, &e), -1);
	cr_assert_eq(e.code, OB_INTERNAL);
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_mkdir(file, "x", &e), -1);
	cr_assert_eq(e.code, OB_INTERNAL);
	ob_stage_close(file);
}

static int foreign_staging(void *ctx)
{
	struct ob_stage *st;
	ob_err e = { 0 };

	(void)ctx;
	EXPECT(!chmod(scratch_dir, 0777) && !mkdir(in_scratch(".out.oocbake"), 0777));
	EXPECT(!setgid(65534) && !setuid(65534));
	EXPECT(ob_stage_open(&st, in_scratch("out"), false, false, &e) == -1);
	EXPECT(e.code == OB_UNSAFE);
	e = (ob_err){ 0 };
	EXPECT(ob_stage_check(in_scratch("out"), false, false, &e) == -1);
	EXPECT(e.code == OB_UNSAFE);
	return 0;
}

Test(stage, a_staging_folder_of_another_user_is_refused)
{
	if (geteuid() == 0)
		cr_assert_eq(in_child(foreign_staging, NULL), 0);
	else
		cr_log_info("only root can become another user");
}

/* ---- force --------------------------------------------------------------------------------- */

static void put_old(void)
{
	mkdir(in_scratch("full"), 0700);
	mkdir(in_scratch("full/sub"), 0700);
	put_file(in_scratch("full/sub/x"), "old", 3);
	put_file(in_scratch("plain"), "old", 3);
	mkdir(in_scratch("victim"), 0700);
	put_file(in_scratch("victim/x"), "x", 1);
	cr_assert_eq(symlink("victim", in_scratch("link")), 0);
}

static void replace_all(void)
{
	const unsigned before = count_entries(scratch_dir);

	bake(in_scratch("full"), false, true, "new");
	cr_assert_eq(count_entries(in_scratch("full")), 1);
	cr_assert(holds(in_scratch("full/file"), "new"));
	bake(in_scratch("full"), true, true, "new");
	cr_assert(holds(in_scratch("full"), "new"));
	bake(in_scratch("plain"), true, true, "new");
	cr_assert(holds(in_scratch("plain"), "new"));
	bake(in_scratch("plain"), false, true, "new");
	cr_assert(holds(in_scratch("plain/file"), "new"));
	bake(in_scratch("link"), false, true, "new");
	cr_assert(holds(in_scratch("link/file"), "new"));
	cr_assert(holds(in_scratch("victim/x"), "x"), "the link was followed");
	cr_assert_eq(count_entries(scratch_dir), before);
}

Test(stage, force_replaces)
{
	put_old();
	replace_all();
	bake(in_scratch("absent"), false, true, "new");
	cr_assert(holds(in_scratch("absent/file"), "new"));
}

Test(stage, force_replaces_where_names_cannot_be_exchanged)
{
	put_old();
	trap(SYS_renameat2, 4, SECCOMP_RET_ERRNO | EINVAL);
	replace_all();
	bake(in_scratch("one"), true, false, "new"); /* the rename that must not replace, too */
	cr_assert(holds(in_scratch("one"), "new"));
}

Test(stage, force_keeps_the_old_one_until_the_end)
{
	struct ob_stage *st;

	put_old();
	st = open_stage(in_scratch("full"), false, true);
	put(st, "file", "new");
	cr_assert(holds(in_scratch("full/sub/x"), "old"));
	ob_stage_close(st);
	cr_assert(holds(in_scratch("full/sub/x"), "old"));
}

static void appear_meanwhile(bool is_file, bool as_file)
{
	const char *out = in_scratch("out");
	struct ob_stage *st = open_stage(out, is_file, false);
	ob_err e = { 0 };

	put(st, is_file ? "" : "file", "new");
	if (as_file) {
		put_file(out, "theirs", 6);
	} else {
		mkdir(out, 0700);
		put_file(in_scratch("out/x"), "theirs", 6);
	}
	cr_assert_eq(ob_stage_publish(st, &e), -1);
	cr_assert_eq(e.code, OB_EXISTS, "%s", e.msg);
	ob_stage_close(st);
	cr_assert(holds(as_file ? out : in_scratch("out/x"), "theirs"));
	unlink(in_scratch("out/x"));
	remove(out);
	cr_assert_eq(count_entries(scratch_dir), 0);
}

Test(stage, what_appeared_meanwhile_is_kept)
{
	appear_meanwhile(false, false);
	appear_meanwhile(false, true);
	appear_meanwhile(true, false);
	appear_meanwhile(true, true);
	trap(SYS_renameat2, 4, SECCOMP_RET_ERRNO | EINVAL);
	appear_meanwhile(true, false);
	appear_meanwhile(true, true);
}

/* ---- lock ---------------------------------------------------------------------------------- */

/* Opens the stage, writes a file, reports through the pipe, and holds until it is killed. */
static pid_t hold_stage(const char *path)
{
	int ready[2];
	char byte;
	pid_t pid;

	cr_assert_eq(pipe(ready), 0);
	pid = fork_child();
	if (pid == 0) {
		struct ob_stage *st;

		close(ready[0]);
		if (ob_stage_open(&st, path, false, false, NULL) ||
		    ob_stage_put(st, "left", "x", 1, NULL) || write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

Test(stage, a_live_run_is_respected_and_a_dead_one_replaced)
{
	const char *out = in_scratch("out");
	pid_t pid = hold_stage(out);
	struct ob_stage *st;
	ob_err e = { 0 };

	refuse(out, false, true, OB_LOCKED);
	ob_stage_check(out, false, false, &e);
	cr_assert(strstr(e.msg, out), "%s", e.msg);
	cr_assert(exists(in_scratch(".out.oocbake/out/left")));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	cr_assert_not(exists(out));
	cr_assert(exists(in_scratch(".out.oocbake/out/left")));
	st = open_stage(out, false, false);
	cr_assert_eq(count_entries(in_scratch(".out.oocbake/out")), 0);
	put(st, "file", "x");
	publish(st);
	cr_assert_eq(count_entries(out), 1);
	cr_assert_eq(count_entries(scratch_dir), 1);
}

/* Holds what it got until the pipe is closed at the other end. */
static int compete(const char *out, const int hold[2])
{
	struct ob_stage *st;
	ob_err e = { 0 };
	char byte;

	close(hold[1]);
	if (ob_stage_open(&st, out, false, false, &e))
		return e.code == OB_LOCKED ? 2 : 1;
	if (read(hold[0], &byte, 1) != 0)
		return 1;
	ob_stage_close(st);
	return 0;
}

Test(stage, of_many_runs_one_proceeds)
{
	const char *out = in_scratch("out");
	int hold[2], status;

	cr_assert_eq(pipe(hold), 0);
	for (int i = 0; i < 6; i++) {
		if (fork_child() == 0)
			_exit(compete(out, hold));
	}
	for (int i = 0; i < 5; i++) {
		cr_assert_gt(wait(&status), 0);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 2);
	}
	close(hold[0]);
	close(hold[1]);
	cr_assert_gt(wait(&status), 0);
	cr_assert_eq(status, 0);
	cr_assert_eq(count_entries(scratch_dir), 0);
}

/* The other one may hold the stage for longer than an open waits, on a disk that is slow to sync. */
static int open_and_close(void *ctx)
{
	for (int i = 0; i < 30; i++) {
		struct ob_stage *st;
		ob_err e = { 0 };

		while (ob_stage_open(&st, ctx, false, false, &e)) {
			if (e.code != OB_LOCKED) {
				fprintf(stderr, "turn %d: %s\n", i, e.msg);
				return 1;
			}
			e = (ob_err){ 0 };
		}
		EXPECT(!ob_stage_put(st, "file", "x", 1, NULL));
		ob_stage_close(st);
	}
	return 0;
}

Test(stage, the_lock_holds_while_folders_come_and_go)
{
	void *out = (void *)(uintptr_t)in_scratch("out");
	pid_t pid = fork_child();
	int status;

	if (pid == 0)
		_exit(open_and_close(out));
	status = open_and_close(out);
	cr_assert_eq(status, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

#ifdef __x86_64__
#define CALL_RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define CALL_RESULT(context) ((context)->uc_mcontext.regs[0])
#endif

#ifdef CALL_RESULT
/* In place of flock: granted, but before the first grant the folder goes, as if its owner had
 * finished between our open and our lock. */
static void grant_late(int sig, siginfo_t *info, void *context)
{
	static int calls;

	(void)sig, (void)info;
	if (calls++ == 0) {
		unlink(in_scratch(".out.oocbake/lock"));
		rmdir(in_scratch(".out.oocbake"));
	}
	CALL_RESULT((ucontext_t *)context) = 0;
}

static int late_lock(void *ctx)
{
	struct sigaction act = { .sa_sigaction = grant_late, .sa_flags = SA_SIGINFO };
	struct ob_stage *st;
	ob_err e = { 0 };

	(void)ctx;
	sigaction(SIGSYS, &act, NULL);
	trap(SYS_flock, -1, SECCOMP_RET_TRAP);
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, &e));
	EXPECT(!ob_stage_put(st, "file", "x", 1, &e));
	EXPECT(!ob_stage_publish(st, &e));
	ob_stage_close(st);
	return 0;
}

Test(stage, a_lock_on_a_folder_that_is_gone_does_not_count)
{
	cr_assert_eq(in_child(late_lock, NULL), 0);
	cr_assert(holds(in_scratch("out/file"), "x"));
}
#endif

/* ---- kill ---------------------------------------------------------------------------------- */

struct death {
	long nr;
	bool is_file;
	bool renamed; /* the final name exists by then */
};

static int die_in_publish(void *ctx)
{
	const struct death *d = ctx;
	struct ob_stage *st;
	struct ob_handle *h;

	EXPECT(!ob_stage_open(&st, in_scratch("out"), d->is_file, false, NULL));
	EXPECT(!ob_stage_create(st, d->is_file ? "" : "file", 3, &h, NULL));
	EXPECT(pwrite(h->fd, "new", 3, 0) == 3);
	trap(d->nr, -1, SECCOMP_RET_KILL_PROCESS);
#ifdef SYS_renameat
	if (d->nr == SYS_renameat2)
		trap(SYS_renameat, -1, SECCOMP_RET_KILL_PROCESS);
#endif
	ob_stage_publish(st, NULL);
	return 1; /* not reached */
}

Test(stage, a_kill_leaves_nothing_or_the_whole)
{
	static struct death all[] = {
		{ SYS_fdatasync, false, false }, { SYS_fdatasync, true, false },
		{ SYS_fsync, false, false },	 { SYS_fsync, true, false },
		{ SYS_renameat2, false, false }, { SYS_renameat2, true, false },
		{ SYS_unlinkat, false, true },	 { SYS_unlinkat, true, true },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		const char *out = in_scratch("out");
		int status = in_child(die_in_publish, &all[i]);

		cr_assert(WIFSIGNALED(status), "%zu: %x", i, (unsigned)status);
		cr_assert_eq(exists(out), all[i].renamed, "%zu", i);
		if (all[i].renamed)
			cr_assert(holds(all[i].is_file ? out : in_scratch("out/file"), "new"));
		/* What is left is in no one's way. */
		bake(out, all[i].is_file, all[i].renamed, "newer");
		cr_assert(holds(all[i].is_file ? out : in_scratch("out/file"), "newer"));
		unlink(in_scratch("out/file"));
		remove(out);
		cr_assert_eq(count_entries(scratch_dir), 0, "%zu", i);
	}
}

static int fail_in_publish(void *ctx)
{
	const struct death *d = ctx;
	struct ob_stage *st;
	ob_err e = { 0 };

	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, NULL));
	EXPECT(!ob_stage_mkdir(st, "a", NULL));
	trap(d->nr, -1, SECCOMP_RET_ERRNO | EIO);
	if (d->nr == SYS_fdatasync) {
		EXPECT(ob_stage_put(st, "a/file", "new", 3, &e) == -1);
		EXPECT(strstr(e.msg, "a/file"));
		e = (ob_err){ 0 };
	}
	EXPECT(ob_stage_publish(st, &e) == -1 && e.code == OB_IO && e.sys == EIO);
	EXPECT(!exists(in_scratch("out")));
	ob_stage_close(st);
	EXPECT(count_entries(scratch_dir) == 0);
	return 0;
}

Test(stage, a_failed_sync_is_final)
{
	struct death all[] = { { .nr = SYS_fdatasync }, { .nr = SYS_fsync } };

	cr_assert_eq(in_child(fail_in_publish, &all[0]), 0);
	cr_assert_eq(in_child(fail_in_publish, &all[1]), 0);
}

Test(stage, a_file_of_another_size_is_not_published)
{
	struct ob_stage *st = open_stage(in_scratch("out"), false, false);
	struct ob_handle *h;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_create(st, "file", 100, &h, &e), 0);
	cr_assert_eq(ftruncate(h->fd, 99), 0);
	cr_assert_eq(ob_stage_publish(st, &e), -1);
	cr_assert_eq(e.code, OB_IO);
	cr_assert(strstr(e.msg, "out/file") && strstr(e.msg, "99") && strstr(e.msg, "100"));
	ob_stage_close(st);
	cr_assert_eq(count_entries(scratch_dir), 0);
}

/* ---- space --------------------------------------------------------------------------------- */

static int create_too_large(uint64_t size, const char *word)
{
	struct ob_stage *st;
	struct ob_handle *h;
	ob_err e = { 0 };

	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, &e));
	EXPECT(!ob_stage_create(st, "first", 5000, &h, &e));
	EXPECT(ob_stage_create(st, "second", size, &h, &e) == -1);
	EXPECT(e.code == OB_NOSPC && strstr(e.msg, "out/second") && strstr(e.msg, word));
	EXPECT(!exists(in_scratch(".out.oocbake/out/second")));
	ob_stage_close(st);
	EXPECT(count_entries(scratch_dir) == 0);
	return 0;
}

static int limited_size(void *ctx)
{
	const struct rlimit limit = { 6000, 6000 };

	(void)ctx;
	setrlimit(RLIMIT_FSIZE, &limit); /* SIGXFSZ is not ignored: it must not come */
	return create_too_large(6001, "ulimit -f");
}

Test(stage, a_limit_of_file_size_is_named)
{
	cr_assert_eq(in_child(limited_size, NULL), 0);
}

/* A disk with room for others only. */
static int exceed_quota(void *ctx)
{
	struct ob_stage *st;
	struct ob_handle *h;
	ob_err e = { 0 };

	(void)ctx;
	trap(SYS_fallocate, -1, SECCOMP_RET_ERRNO | EDQUOT);
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, NULL));
	EXPECT(ob_stage_create(st, "file", 3 << 20, &h, &e) == -1);
	EXPECT(e.code == OB_NOSPC && e.sys == EDQUOT);
	EXPECT(strstr(e.msg, "out/file") && strstr(e.msg, "3.0 MiB") && strstr(e.msg, "uota"));
	ob_stage_close(st);
	EXPECT(count_entries(scratch_dir) == 0);
	return 0;
}

Test(stage, a_quota_is_named)
{
	cr_assert_eq(in_child(exceed_quota, NULL), 0);
}

/* Where nothing can be reserved, free space is looked at: no test fills a disk. */
static int no_reservation(void *ctx)
{
	struct statvfs v;
	struct ob_stage *st;
	struct ob_handle *h;
	struct stat s;

	(void)ctx;
	trap(SYS_fallocate, -1, SECCOMP_RET_ERRNO | EOPNOTSUPP);
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, NULL));
	EXPECT(!ob_stage_create(st, "sparse", 1 << 20, &h, NULL));
	EXPECT(!fstat(h->fd, &s) && s.st_size == 1 << 20);
	ob_stage_close(st);
	EXPECT(!statvfs(scratch_dir, &v));
	return create_too_large((uint64_t)v.f_blocks * v.f_frsize + 1, "free on");
}

Test(stage, without_reservation_free_space_counts)
{
	cr_assert_eq(in_child(no_reservation, NULL), 0);
}

/* Files whose space is promised but not taken count as well. */
static int promises_add_up(void *ctx)
{
	struct statvfs v;
	struct ob_stage *st;
	uint64_t half;
	struct ob_handle *h;
	ob_err e = { 0 };

	(void)ctx;
	trap(SYS_fallocate, -1, SECCOMP_RET_ERRNO | EOPNOTSUPP);
	EXPECT(!statvfs(scratch_dir, &v));
	half = (uint64_t)v.f_bavail * v.f_frsize / 8 * 5;
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, NULL));
	EXPECT(!ob_stage_create(st, "first", half, &h, &e));
	EXPECT(ob_stage_create(st, "second", half, &h, &e) == -1 && e.code == OB_NOSPC);
	ob_stage_close(st);
	return 0;
}

Test(stage, promises_of_space_add_up)
{
	cr_assert_eq(in_child(promises_add_up, NULL), 0);
}

static void put_map(const char *path, unsigned id)
{
	char line[32];
	int n = snprintf(line, sizeof(line), "0 %u 1", id);

	put_file(path, line, (size_t)n);
}

/* Mounts for this process alone: as root, or as root of a user namespace. */
static bool may_mount(void)
{
	const unsigned uid = geteuid(), gid = getegid();

	if (!unshare(CLONE_NEWNS))
		return true;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return false;
	put_file("/proc/self/setgroups", "deny", 4);
	put_map("/proc/self/uid_map", uid);
	put_map("/proc/self/gid_map", gid);
	return true;
}

/* 0 done, 1 wrong, 2 where nobody may mount anything. */
static int small_disk(void *ctx)
{
	struct ob_stage *st;
	struct ob_handle *h;

	(void)ctx;
	if (!may_mount())
		return 2;
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", scratch_dir, "tmpfs", 0, "size=1m"))
		return 2;
	EXPECT(!create_too_large(2 << 20, "KiB are free on"));
	EXPECT(!ob_stage_open(&st, in_scratch("out"), false, false, NULL));
	EXPECT(!ob_stage_create(st, "fits", 1000 << 10, &h, NULL));
	EXPECT(!ob_stage_publish(st, NULL));
	ob_stage_close(st);
	return 0;
}

Test(stage, a_full_disk_is_refused_before_anything_is_written)
{
	int status = in_child(small_disk, NULL);

	if (WEXITSTATUS(status) == 2)
		cr_log_info("no mounts allowed: only the file size limit and statvfs were tested");
	else
		cr_assert_eq(status, 0);
}

/* ---- rest ---------------------------------------------------------------------------------- */

static int whole_course(void *ctx, ob_err *e)
{
	struct ob_stage *st;
	int ret = -1;

	(void)ctx;
	if (ob_stage_open(&st, in_scratch("out"), false, false, e))
		return -1;
	if (!ob_stage_mkdir(st, "a", e) && !ob_stage_put(st, "a/file", "x", 1, e) &&
	    !ob_stage_copy(st, "copy", in_scratch("source"), e) && !ob_stage_publish(st, e))
		ret = 0;
	ob_stage_close(st);
	if (ret)
		cr_assert_not(exists(in_scratch("out")));
	cr_assert_not(exists(in_scratch(".out.oocbake")));
	return ret;
}

Test(stage, out_of_memory)
{
	put_file(in_scratch("source"), "source", 6);
	cr_assert_geq(oom_sweep(whole_course, NULL), 6);
}

Test(stage, trees_have_a_bounded_depth)
{
	char rel[300];
	int root, deep;

	memset(rel, 'd', sizeof(rel));
	for (size_t i = 1; i < sizeof(rel); i += 2)
		rel[i] = '/';
	mkdir(in_scratch("root"), 0700);
	root = open(in_scratch("root"), O_RDONLY | O_DIRECTORY);
	deep = ob_tree_open(root, rel, 199, true); /* 100 folders */
	cr_assert_geq(deep, 0);
	cr_assert_eq(ob_tree_sync(root), -1);
	cr_assert_eq(errno, ELOOP);
	cr_assert_eq(ob_tree_clear(root, NULL), -1);
	cr_assert_eq(errno, ELOOP);
	close(deep);
	deep = ob_tree_open(root, rel, 99, false);
	cr_assert_geq(deep, 0);
	cr_assert_eq(ob_tree_clear(deep, NULL), 0);
	cr_assert_eq(ob_tree_clear(root, NULL), 0);
	cr_assert_eq(count_entries(in_scratch("root")), 0);
	memset(rel, 'd', sizeof(rel));
	cr_assert_eq(ob_tree_open(root, rel, 255, false), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert_eq(ob_tree_open(root, rel, 256, true), -1);
	cr_assert_eq(errno, ENAMETOOLONG);
	close(deep);
	close(root);
}
