/* SPDX-License-Identifier: Apache-2.0 */
/* The space of the files of an output: reserved before a byte is written, or looked for. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/dtype.h"
#include "base/num.h"
#include "base/util.h"
#include "io/stage_impl.h"

#define MAX_ATTEMPTS 100 /* while signals come */

/* Bytes that a file will still take. */
static uint64_t missing(const struct stage_file *f)
{
	struct stat s;

	if (f->is_sealed || fstatat(f->st->out, f->rel, &s, AT_SYMLINK_NOFOLLOW))
		return 0;
	return f->size - ob_min_u64((uint64_t)s.st_blocks * 512, f->size);
}

/* Bytes that files without reserved space will still take. */
static uint64_t outstanding(const struct ob_stage *st)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < st->n_files; i++)
		sum += missing(st->file[i]);
	return sum;
}

static int fail_space(const struct ob_stage *st, const struct stage_file *f, uint64_t space,
		      ob_err *e)
{
	uint64_t total = ob_max_u64(st->total, f->size);
	char total_text[32], need_text[32], free_text[32];

	return ob_fail(e, OB_NOSPC,
		       "%s needs %s of the %s of the whole output, %s are free on %s; make room",
		       f->path, ob_size_text(f->size, need_text, sizeof(need_text)),
		       ob_size_text(total, total_text, sizeof(total_text)),
		       ob_size_text(space, free_text, sizeof(free_text)), st->dir);
}

/* Bytes that are free, without what a system keeps for root; all there can be when that is not known. */
static uint64_t free_space(const struct ob_stage *st)
{
	struct statvfs v;

	if (fstatvfs(st->staging, &v))
		return UINT64_MAX;
	return (uint64_t)v.f_bavail * v.f_frsize;
}

int ob_stage_need(struct ob_stage *st, uint64_t total, ob_err *e)
{
	const uint64_t space = free_space(st);
	char total_text[32], free_text[32];

	st->total = total;
	/* What an earlier run reserved is not free, and ours. */
	if (total <= space || st->taken_over)
		return 0;
	return ob_fail(e, OB_NOSPC, "%s needs %s, %s are free on %s; make room", st->path,
		       ob_size_text(total, total_text, sizeof(total_text)),
		       ob_size_text(space, free_text, sizeof(free_text)), st->dir);
}

/* Where the file system cannot reserve: sets the size, after a look at what is free. */
static int reserve_loosely(const struct ob_stage *st, const struct stage_file *f, ob_err *e)
{
	uint64_t space = free_space(st);

	space -= ob_min_u64(outstanding(st), space);
	if (f->size > space)
		return fail_space(st, f, space, e);
	if (ftruncate(f->handle.fd, (off_t)f->size))
		return ob_fail_sys(e, OB_IO, errno, "cannot set the size of %s", f->path);
	return 0;
}

int ob_stage_reserve(const struct stage_file *f, ob_err *e)
{
	const struct ob_stage *st = f->st;
	struct rlimit limit;
	char need_text[32], limit_text[32];
	unsigned attempts = 0;
	int err;

	if (f->size == 0)
		return 0;
	/* Beyond this limit the system would send SIGXFSZ. */
	if (!getrlimit(RLIMIT_FSIZE, &limit) && f->size > limit.rlim_cur)
		return ob_fail(e, OB_NOSPC,
			       "%s needs %s, the limit of a file's size (ulimit -f) is %s", f->path,
			       ob_size_text(f->size, need_text, sizeof(need_text)),
			       ob_size_text(limit.rlim_cur, limit_text, sizeof(limit_text)));
	/* What does not fit would take all space of others until it fails. */
	if (missing(f) > free_space(st))
		return fail_space(st, f, free_space(st), e);
	do {
		err = fallocate(f->handle.fd, 0, 0, (off_t)f->size) ? errno : 0;
	} while (err == EINTR && ++attempts < MAX_ATTEMPTS);
	switch (err) {
	case 0:
		return 0;
	case ENOSPC:
		return fail_space(st, f, free_space(st), e);
	case EOPNOTSUPP:
	case ENOSYS:
		return reserve_loosely(st, f, e);
	default:
		return ob_fail_sys(e, OB_IO, err, "cannot reserve %s for %s on %s",
				   ob_size_text(f->size, need_text, sizeof(need_text)), f->path,
				   st->dir);
	}
}
