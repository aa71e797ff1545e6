/* SPDX-License-Identifier: Apache-2.0 */
/* A staging folder that outlives its run: what is taken over, what is made anew, what goes. */
#include <criterion/criterion.h>
#include <fcntl.h>

#include "base/alloc.h"
#include "io/stage.h"
#include "scratch.h"

TestSuite(stage_resume, .init = scratch_make, .fini = scratch_remove, .timeout = 60);

#define HIDDEN ".out.oocbake/"
#define JOURNAL 128

static struct ob_stage *take_over(const char *plan)
{
	struct ob_stage *st;
	char *found;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_resume(&st, in_scratch("out"), false, false, &found, &e), 0, "%s",
		     e.msg);
	cr_assert_eq(found != NULL, plan != NULL);
	cr_assert(!plan || !strcmp(found, plan), "%s", found);
	ob_free(found);
	return st;
}

static void write_at(struct ob_handle *h, const char *text)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_handle_hold(h, &e), 0, "%s", e.msg);
	cr_assert_eq(pwrite(h->fd, text, strlen(text), 0), (ssize_t)strlen(text));
	ob_handle_drop(h);
}

static struct ob_handle *create(struct ob_stage *st, const char *rel, uint64_t size)
{
	struct ob_handle *h;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_create(st, rel, size, &h, &e), 0, "%s", e.msg);
	return h;
}

static int open_journal(struct ob_stage *st)
{
	ob_err e = { 0 };
	int fd;

	cr_assert_eq(ob_stage_journal(st, JOURNAL, &fd, &e), 0, "%s", e.msg);
	return fd;
}

static void commit(struct ob_stage *st, const char *plan)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_commit(st, plan, &e), 0, "%s", e.msg);
}

/* What a run leaves that ends with an error. */
static void leave(void)
{
	struct ob_stage *st;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_open(&st, in_scratch("out"), false, false, &e), 0, "%s", e.msg);
	cr_assert_eq(pwrite(open_journal(st), "records", 7, 0), 7);
	write_at(create(st, "weights", 10), "0123456789");
	cr_assert_eq(ob_stage_put(st, "small", "old", 3, &e), 0, "%s", e.msg);
	commit(st, "the plan\n");
	cr_assert(ob_stage_keep(st, true));
	ob_stage_close(st);
}

static bool holds(const char *name, const char *text)
{
	char buf[256];
	int fd = open(in_scratch(name), O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	if (fd >= 0)
		close(fd);
	return n == (ssize_t)strlen(text) && !memcmp(buf, text, (size_t)n);
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(in_scratch(name), &st) == 0;
}

static void finish(struct ob_stage *st, const char *weights)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_publish(st, &e), 0, "%s", e.msg);
	cr_assert_not(ob_stage_keep(st, true), "there is nothing left to keep");
	ob_stage_close(st);
	cr_assert(holds("out/weights", weights));
	cr_assert_not(exists(HIDDEN));
}

Test(stage_resume, a_kept_stage_is_taken_over)
{
	struct ob_stage *st;
	char text[8] = "";
	ob_err e = { 0 };

	leave();
	st = take_over("the plan\n");
	cr_assert_eq(pread(open_journal(st), text, 7, 0), 7);
	cr_assert_str_eq(text, "records");
	create(st, "weights", 10);
	cr_assert_eq(ob_stage_put(st, "small", "newer", 5, &e), 0, "%s", e.msg);
	commit(st, "another text is not written");
	cr_assert(holds(HIDDEN "plan", "the plan\n"));
	finish(st, "0123456789");
	cr_assert(holds("out/small", "newer"));
}

Test(stage_resume, without_a_plan_it_is_new)
{
	static const char *const lost[] = { HIDDEN "plan", HIDDEN "out/weights" };
	struct ob_stage *st = take_over(NULL);

	ob_stage_close(st);
	cr_assert_not(exists(HIDDEN));
	leave();
	cr_assert_eq(unlink(in_scratch(lost[0])), 0);
	st = take_over(NULL);
	cr_assert_not(exists(lost[1]));
	ob_stage_close(st);
	cr_assert_not(exists(HIDDEN));
}

Test(stage_resume, a_plan_that_is_no_file_is_none)
{
	leave();
	cr_assert_eq(unlink(in_scratch(HIDDEN "plan")), 0);
	cr_assert_eq(symlink("lock", in_scratch(HIDDEN "plan")), 0);
	ob_stage_close(take_over(NULL));
	leave();
	cr_assert_eq(unlink(in_scratch(HIDDEN "plan")), 0);
	cr_assert_eq(mkfifo(in_scratch(HIDDEN "plan"), 0600), 0);
	ob_stage_close(take_over(NULL));
	cr_assert_not(exists(HIDDEN));
}

Test(stage_resume, what_cannot_be_used_stays)
{
	leave();
	/* As when the plan is that of another run. */
	ob_stage_close(take_over("the plan\n"));
	cr_assert(holds(HIDDEN "out/weights", "0123456789"));
}

Test(stage_resume, a_file_of_another_kind_is_made_anew)
{
	struct ob_stage *st;

	leave();
	st = take_over("the plan\n");
	write_at(create(st, "weights", 4), "abcd");
	finish(st, "abcd");
	scratch_remove();
	scratch_make();
	leave();
	put_file(in_scratch("theirs"), "0123456789", 10);
	cr_assert_eq(unlink(in_scratch(HIDDEN "out/weights")), 0);
	cr_assert_eq(link(in_scratch("theirs"), in_scratch(HIDDEN "out/weights")), 0);
	st = take_over("the plan\n");
	write_at(create(st, "weights", 10), "abcdefghij");
	finish(st, "abcdefghij");
	cr_assert(holds("theirs", "0123456789"));
}

Test(stage_resume, others_go)
{
	struct ob_stage *st;

	leave();
	cr_assert_eq(mkdir(in_scratch(HIDDEN "out/a"), 0700), 0);
	cr_assert_eq(mkdir(in_scratch(HIDDEN "out/a/b"), 0700), 0);
	put_file(in_scratch(HIDDEN "out/a/b/stray"), "x", 1);
	cr_assert_eq(symlink("/", in_scratch(HIDDEN "out/root")), 0);
	st = take_over("the plan\n");
	create(st, "weights", 10);
	commit(st, "");
	cr_assert_not(exists(HIDDEN "out/a"));
	cr_assert_not(exists(HIDDEN "out/root"));
	cr_assert_not(exists(HIDDEN "out/small"));
	finish(st, "0123456789");
}

Test(stage_resume, a_journal_of_another_size_is_empty)
{
	struct ob_stage *st;
	char bytes[JOURNAL], zeros[JOURNAL] = { 0 };

	leave();
	cr_assert_eq(truncate(in_scratch(HIDDEN "journal"), JOURNAL - 1), 0);
	st = take_over("the plan\n");
	cr_assert_eq(pread(open_journal(st), bytes, JOURNAL, 0), JOURNAL);
	cr_assert_arr_eq(bytes, zeros, JOURNAL);
	ob_stage_close(st);
}

Test(stage_resume, a_live_run_is_not_taken_over)
{
	struct ob_stage *st, *other;
	char *plan;
	ob_err e = { 0 };

	leave();
	st = take_over("the plan\n");
	cr_assert_eq(ob_stage_resume(&other, in_scratch("out"), false, false, &plan, &e), -1);
	cr_assert_eq(e.code, OB_LOCKED, "%s", e.msg);
	cr_assert_null(plan);
	ob_stage_close(st);
	cr_assert(holds(HIDDEN "plan", "the plan\n"));
}

Test(stage_resume, the_need_is_that_of_all)
{
	struct ob_handle *h;
	struct ob_stage *st;
	ob_err e = { 0 };

	cr_assert_eq(ob_stage_open(&st, in_scratch("out"), false, false, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_stage_need(st, 1ull << 60, &e), -1);
	cr_assert_eq(e.code, OB_NOSPC, "%s", e.msg);
	cr_assert(strstr(e.msg, "out needs 1.0 EiB"), "%s", e.msg);
	e = (ob_err){ 0 };
	cr_assert_eq(ob_stage_create(st, "weights", 1ull << 43, &h, &e), -1);
	cr_assert_eq(e.code, OB_NOSPC, "%s", e.msg);
	cr_assert(strstr(e.msg, "weights needs") && strstr(e.msg, "whole output"), "%s", e.msg);
	ob_stage_close(st);
}

/* A system that fills the disk before it says no would take the space of everybody else. */
static int refuse_at_once(void *ctx)
{
	struct ob_stage *st;
	struct ob_handle *h;
	ob_err e = { 0 };

	(void)ctx;
	if (ob_stage_open(&st, in_scratch("out"), false, false, &e))
		return 1;
	trap(SYS_fallocate, -1, SECCOMP_RET_KILL_PROCESS);
	if (!ob_stage_create(st, "weights", 1ull << 43, &h, &e) || e.code != OB_NOSPC)
		return 1;
	ob_stage_close(st);
	return 0;
}

Test(stage_resume, what_cannot_fit_takes_nothing)
{
	cr_assert_eq(in_child(refuse_at_once, NULL), 0);
}
