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

/* Bytes that files without reserved space will still take. */
static uint64_t outstanding(const struct ob_stage *st)
{
	uint64_t sum = 0;
	struct stat s;

	for (size_t i = 0; i < st->n_files; i++) {
		const struct stage_file *f = st->file[i];

		if (!f->is_sealed && !fstatat(st->out, f->rel, &s, AT_SYMLINK_NOFOLLOW) &&
		    (uint64_t)s.st_blocks * 512 < f->size)
			sum += f->size - (uint64_t)s.st_blocks * 512;
	}
	return sum;
}

static int fail_space(const struct ob_stage *st, const struct stage_file *f, uint64_t taken,
		      ob_err *e)
{
	struct statvfs v;
	uint64_t space = 0, total = ob_max_u64(st->total, f->size);
	char total_text[32], need_text[32], free_text[32];

	if (!fstatvfs(st->staging, &v))
		space = (uint64_t)v.f_bavail * v.f_frsize;
	space -= ob_min_u64(taken, space);
	return ob_fail(e, OB_NOSPC,
		       "%s needs %s of the %s of the whole output, %s are free on %s; make room",
		       f->path, ob_size_text(f->size, need_text, sizeof(need_text)),
		       ob_size_text(total, total_text, sizeof(total_text)),
		       ob_size_text(space, free_text, sizeof(free_text)), st->dir);
}

/* Where the file system cannot reserve: sets the size, after a look at what is free. */
static int reserve_loosely(const struct ob_stage *st, const struct stage_file *f, ob_err *e)
{
	const uint64_t taken = outstanding(st);
	struct statvfs v;

	if (!fstatvfs(st->staging, &v) &&
	    !ob_in_file(taken, f->size, (uint64_t)v.f_bavail * v.f_frsize))
		return fail_space(st, f, taken, e);
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
	do {
		err = fallocate(f->handle.fd, 0, 0, (off_t)f->size) ? errno : 0;
	} while (err == EINTR && ++attempts < MAX_ATTEMPTS);
	switch (err) {
	case 0:
		return 0;
	case ENOSPC:
		return fail_space(st, f, 0, e);
	case EOPNOTSUPP:
	case ENOSYS:
		return reserve_loosely(st, f, e);
	default:
		return ob_fail_sys(e, OB_IO, err, "cannot reserve %s for %s on %s",
				   ob_size_text(f->size, need_text, sizeof(need_text)), f->path,
				   st->dir);
	}
}
