/* SPDX-License-Identifier: Apache-2.0 */
/* What a run leaves for the next one: plan and journal beside the files, and how they are taken over. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/num.h"
#include "io/io.h"
#include "io/stage_impl.h"
#include "io/tree.h"

#define PLAN_MAX (64u << 20) /* bytes; 1,000 shards take 200 kB */

bool ob_stage_keep(struct ob_stage *st, bool keep)
{
	st->keep = keep && !st->published;
	return st->keep;
}

const char *ob_stage_where(struct ob_stage *st)
{
	size_t n = strlen(st->dir) + strlen(st->hidden) + 2;

	if (!st->where) {
		st->where = ob_alloc(n);
		if (st->where)
			snprintf(st->where, n, "%s/%s", st->dir, st->hidden);
	}
	return st->where;
}

static int fail(const struct ob_stage *st, const char *verb, const char *name, ob_err *e)
{
	return ob_fail_sys(e, OB_IO, errno, "cannot %s %s/%s/%s", verb, st->dir, st->hidden, name);
}

/* ---- the plan ------------------------------------------------------------------------------ */

static int set_errno(int error)
{
	errno = error;
	return error ? -1 : 0;
}

/* *plan stays NULL when there is none that this program can have written. */
static int read_plan(struct ob_stage *st, char **plan, ob_err *e)
{
	int fd = openat(st->staging, "plan", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat s;
	char *text = NULL;
	int ret = -1;

	if (fd < 0)
		return errno == ENOENT || errno == ELOOP ? 0 : fail(st, "open", "plan", e);
	if (fstat(fd, &s)) {
		fail(st, "examine", "plan", e);
	} else if (!S_ISREG(s.st_mode) || s.st_size > PLAN_MAX) {
		ret = 0;
	} else {
		text = ob_alloc((size_t)s.st_size + 1);
		if (!text)
			ob_fail_nomem(e, "plan of the earlier run");
		else if (set_errno(ob_io_read_all(fd, text, (size_t)s.st_size, 0)))
			fail(st, "read", "plan", e);
		else
			ret = 0;
	}
	close(fd);
	if (ret)
		ob_free(text);
	else
		*plan = text;
	return ret;
}

/* Under its name it is whole. */
static int write_plan(struct ob_stage *st, const char *plan, ob_err *e)
{
	int fd = openat(st->staging, "plan.new",
			O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int ret = -1;

	if (fd < 0)
		return fail(st, "create", "plan.new", e);
	if (set_errno(ob_io_write_all(fd, plan, strlen(plan), 0)))
		fail(st, "write", "plan.new", e);
	else if (fdatasync(fd))
		fail(st, "bring to the disk", "plan.new", e);
	else if (renameat(st->staging, "plan.new", st->staging, "plan"))
		fail(st, "rename", "plan.new", e);
	else
		ret = 0;
	close(fd);
	return ret;
}

int ob_stage_resume(struct ob_stage **stage, const char *final_path, bool is_file, bool force,
		    char **plan, ob_err *e)
{
	struct ob_stage *st;

	*plan = NULL;
	if (ob_stage_lock(&st, final_path, is_file, force, e))
		return -1;
	st->keep = true;
	if (read_plan(st, plan, e))
		goto fail;
	if (*plan)
		st->out = openat(st->staging, "out", DIR_FLAGS);
	if (st->out >= 0) {
		st->taken_over = true;
	} else {
		ob_free(*plan);
		*plan = NULL;
		st->keep = false;
		if (ob_stage_renew(st, e))
			goto fail;
	}
	*stage = st;
	return 0;
fail:
	ob_stage_close(st);
	return -1;
}

/* ---- files that are there ------------------------------------------------------------------ */

/* One that has another name somewhere else is not written to. */
bool ob_stage_adopt(struct stage_file *f, bool direct)
{
	struct stat s;

	if (direct && !fstatat(f->st->out, f->rel, &s, AT_SYMLINK_NOFOLLOW) && S_ISREG(s.st_mode) &&
	    s.st_nlink == 1 && (uint64_t)s.st_size == f->size) {
		f->ino = s.st_ino;
		return true;
	}
	unlinkat(f->st->out, f->rel, 0);
	return false;
}

/* As bytes, not as a promise: then no full disk can hit it later. */
static int fill(int fd, uint64_t size)
{
	static const char zeros[1 << 16];
	int err = 0;

	for (uint64_t at = 0; at < size && !err; at += sizeof(zeros))
		err = ob_io_write_all(fd, zeros, (size_t)ob_min_u64(size - at, sizeof(zeros)), at);
	return set_errno(err);
}

int ob_stage_journal(struct ob_stage *st, uint64_t size, int *fd, ob_err *e)
{
	struct stat s;

	st->journal =
		openat(st->staging, "journal", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (st->journal < 0 || fstat(st->journal, &s))
		return fail(st, "open", "journal", e);
	if ((uint64_t)s.st_size != size &&
	    (ftruncate(st->journal, 0) || fill(st->journal, size) || fdatasync(st->journal)))
		return fail(st, "write", "journal", e);
	*fd = st->journal;
	return 0;
}

static bool is_known(const void *ctx, const char *rel)
{
	const struct ob_stage *st = ctx;

	for (size_t i = 0; i < st->n_files; i++)
		if (!strcmp(st->file[i]->rel, rel))
			return true;
	return false;
}

int ob_stage_commit(struct ob_stage *st, const char *plan, ob_err *e)
{
	if (st->taken_over && ob_tree_prune(st->out, is_known, st))
		return fail(st, "remove what an earlier run left in", "out", e);
	if (!st->taken_over && write_plan(st, plan, e))
		return -1;
	if (ob_tree_sync(st->staging) || (fsync(st->parent) && errno != EINVAL))
		return ob_fail_sys(e, OB_IO, errno, "cannot bring the folders of %s to the disk",
				   st->path);
	return 0;
}

int ob_stage_flush(struct ob_stage *st, ob_err *e)
{
	for (size_t i = 0; i < st->n_files; i++) {
		struct ob_handle *h = &st->file[i]->handle;
		int ret = 0;

		if (st->file[i]->is_sealed)
			continue;
		if (ob_handle_hold(h, e))
			return -1;
		if (fdatasync(h->fd))
			ret = ob_fail_sys(e, OB_IO, errno, "cannot bring %s to the disk", h->path);
		else
			posix_fadvise(h->fd, 0, 0, POSIX_FADV_DONTNEED);
		ob_handle_drop(h);
		if (ret)
			return -1;
	}
	return 0;
}
