/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The staging folder of an output: lock, files with reserved space, publication by rename.
 *
 * Everything happens below descriptors of the parent and the staging folder, so a folder that is
 * moved or replaced under way cannot redirect a write.
 */
#include "io/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/num.h"
#include "base/util.h"
#include "io/file.h"
#include "io/io.h"
#include "io/tree.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define COPY_BLOCK (1u << 20)
/* The kernel holds files of a killed process, and so its lock, until its transfers end. */
#define LOCK_PATIENCE 1.0 /* seconds */

struct stage_file {
	char *path; /* for messages: where it will be */
	uint64_t size;
	int fd; /* -1 once it is synced and closed */
	int fd_direct;
};

struct ob_stage {
	char *path;			/* the final path as given, without slashes at its end */
	char *dir;			/* its folder */
	const char *name;		/* its last component */
	char *hidden;			/* name of the staging folder */
	int parent, staging, out, lock; /* descriptors or -1 */
	bool is_file, force, published;
	struct stage_file *file;
	size_t n_files, cap_files;
};

/* ---- open ---------------------------------------------------------------------------------- */

static int split_path(struct ob_stage *st, const char *final_path, ob_err *e)
{
	size_t len = strlen(final_path);
	size_t cut, hidden_size;

	while (len > 1 && final_path[len - 1] == '/')
		len--;
	for (cut = len; cut && final_path[cut - 1] != '/';)
		cut--;
	st->path = ob_alloc(len + 1);
	st->dir = ob_alloc(cut + 2);
	hidden_size = len - cut + sizeof("..oocbake");
	st->hidden = ob_alloc(hidden_size);
	if (!st->path || !st->dir || !st->hidden)
		return ob_fail_nomem(e, "output path");
	memcpy(st->path, final_path, len);
	st->name = st->path + cut;
	if (!*st->name || !strcmp(st->name, ".") || !strcmp(st->name, ".."))
		return ob_fail(e, OB_USAGE, "the output \"%s\" is not the name of a file or folder",
			       final_path);
	memcpy(st->dir, cut ? final_path : ".", cut ? cut : 1);
	while (cut > 1 && st->dir[cut - 1] == '/')
		st->dir[--cut] = '\0';
	snprintf(st->hidden, hidden_size, ".%s.oocbake", st->name);
	return 0;
}

static int open_parent(struct ob_stage *st, ob_err *e)
{
	st->parent = open(st->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (st->parent >= 0)
		return 0;
	if (errno == ENOENT)
		return ob_fail(e, OB_IO,
			       "the folder %s, where %s is to go, does not exist; create it",
			       st->dir, st->name);
	return ob_fail_sys(e, OB_IO, errno, "cannot open the folder %s, where %s is to go", st->dir,
			   st->name);
}

/* May the final name be taken? */
static int check_final(const struct ob_stage *st, ob_err *e)
{
	struct stat s;
	int empty;

	if (fstatat(st->parent, st->name, &s, AT_SYMLINK_NOFOLLOW)) {
		if (errno == ENOENT)
			return 0;
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", st->path);
	}
	if (st->force)
		return 0;
	empty = st->is_file ? 0 : ob_tree_is_empty(st->parent, st->name);
	if (empty < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot read the folder %s", st->path);
	if (!empty)
		return ob_fail(e, OB_EXISTS, "%s exists; choose another name or use --force",
			       st->path);
	return 0;
}

/* What ob_stage_open and ob_stage_check share: all that writes nothing. */
static int prepare(struct ob_stage **stage, const char *final_path, bool is_file, bool force,
		   ob_err *e)
{
	struct ob_stage *st = ob_alloc(sizeof(*st));

	if (!st)
		return ob_fail_nomem(e, "output");
	st->parent = st->staging = st->out = st->lock = -1;
	st->is_file = is_file;
	st->force = force;
	ob_file_raise_limit();
	if (split_path(st, final_path, e) || open_parent(st, e) || check_final(st, e)) {
		ob_stage_close(st);
		return -1;
	}
	*stage = st;
	return 0;
}

static int fail_foreign(const struct ob_stage *st, const char *what, ob_err *e)
{
	return ob_fail(e, OB_UNSAFE, "%s/%s, where %s is to be staged, %s; remove it", st->dir,
		       st->hidden, st->name, what);
}

static int fail_locked(const struct ob_stage *st, ob_err *e)
{
	return ob_fail(e, OB_LOCKED,
		       "another run is writing %s (it holds %s/%s/lock); wait for it or choose "
		       "another name",
		       st->path, st->dir, st->hidden);
}

/* *fd is -1 when there is none. `found`: it was not made by this run. */
static int open_staging(const struct ob_stage *st, bool found, int *fd, ob_err *e)
{
	struct stat s;

	*fd = openat(st->parent, st->hidden, DIR_FLAGS);
	if (*fd < 0 && errno == ENOENT)
		return 0;
	if (*fd < 0 && (errno == ENOTDIR || errno == ELOOP))
		return fail_foreign(st, "is a link or a file", e);
	if (*fd < 0 || fstat(*fd, &s))
		return ob_fail_sys(e, OB_IO, errno, "cannot open %s/%s", st->dir, st->hidden);
	/* In a shared folder its owner could swap the files that are written. */
	if (found && s.st_uid != geteuid())
		return fail_foreign(st, "belongs to another user", e);
	return 0;
}

/* Is `fd` still what `name` in `dir` leads to? */
static bool is_linked(int dir, const char *name, int fd)
{
	struct stat a, b;

	return !fstatat(dir, name, &a, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &b) &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* One attempt: 0 locked; 1 another process holds or just removed it; -1. */
static int try_lock(struct ob_stage *st, ob_err *e)
{
	const bool found = mkdirat(st->parent, st->hidden, 0700) != 0;

	if (found && errno != EEXIST)
		return ob_fail_sys(e, OB_IO, errno, "cannot create %s/%s", st->dir, st->hidden);
	if (open_staging(st, found, &st->staging, e))
		return -1;
	if (st->staging < 0)
		return 1;
	st->lock = openat(st->staging, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (st->lock < 0 && errno == ENOENT)
		return 1;
	if (st->lock < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot create %s/%s/lock", st->dir,
				   st->hidden);
	if (flock(st->lock, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK || errno == EINTR)
			return 1;
		return ob_fail_sys(e, OB_IO, errno, "cannot lock %s/%s/lock", st->dir, st->hidden);
	}
	return !is_linked(st->parent, st->hidden, st->staging) ||
	       !is_linked(st->staging, "lock", st->lock);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int acquire(struct ob_stage *st, ob_err *e)
{
	const double deadline = ob_now() + LOCK_PATIENCE;
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };

	for (;;) {
		int ret = try_lock(st, e);

		if (ret == 0)
			return 0;
		close_fd(&st->lock); /* not ours: nothing of it may be removed */
		close_fd(&st->staging);
		if (ret < 0)
			return -1;
		if (ob_now() > deadline)
			return fail_locked(st, e);
		nanosleep(&pause, NULL);
	}
}

int ob_stage_open(struct ob_stage **stage, const char *final_path, bool is_file, bool force,
		  ob_err *e)
{
	struct ob_stage *st;

	if (prepare(&st, final_path, is_file, force, e))
		return -1;
	if (acquire(st, e))
		goto fail;
	if (ob_tree_clear(st->staging, "lock")) {
		ob_fail_sys(e, OB_IO, errno, "cannot remove what an earlier run left in %s/%s",
			    st->dir, st->hidden);
		goto fail;
	}
	if (!mkdirat(st->staging, "out", 0777))
		st->out = openat(st->staging, "out", DIR_FLAGS);
	if (st->out < 0) {
		ob_fail_sys(e, OB_IO, errno, "cannot create %s/%s/out", st->dir, st->hidden);
		goto fail;
	}
	*stage = st;
	return 0;
fail:
	ob_stage_close(st);
	return -1;
}

int ob_stage_check(const char *final_path, bool is_file, bool force, ob_err *e)
{
	struct ob_stage *st;
	int staging = -1, lock = -1, ret;

	if (prepare(&st, final_path, is_file, force, e))
		return -1;
	if (faccessat(st->parent, ".", W_OK | X_OK, AT_EACCESS))
		ret = ob_fail_sys(e, OB_IO, errno, "cannot write into the folder %s", st->dir);
	else
		ret = open_staging(st, true, &staging, e);
	if (staging >= 0)
		lock = openat(staging, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (lock >= 0 && flock(lock, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK)
		ret = fail_locked(st, e);
	close_fd(&lock);
	close_fd(&staging);
	ob_stage_close(st);
	return ret;
}

/* ---- files --------------------------------------------------------------------------------- */

static int check_rel(const struct ob_stage *st, const char *rel, ob_err *e)
{
	for (const char *s = rel;;) {
		size_t n = strcspn(s, "/");

		if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return ob_fail(e, OB_UNSAFE,
				       "the name \"%s\" for a file in %s does not stay inside it",
				       rel, st->path);
		if (!s[n])
			return 0;
		s += n + 1;
	}
}

int ob_stage_mkdir(struct ob_stage *st, const char *rel, ob_err *e)
{
	int fd;

	if (st->is_file)
		return ob_fail(e, OB_INTERNAL, "%s is one file and cannot hold the folder %s",
			       st->path, rel);
	if (check_rel(st, rel, e))
		return -1;
	fd = ob_tree_open(st->out, rel, strlen(rel), true);
	if (fd < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot create the folder %s/%s", st->path,
				   rel);
	close(fd);
	return 0;
}

/* Bytes that files without reserved space will still take. */
static uint64_t outstanding(const struct ob_stage *st)
{
	uint64_t sum = 0;
	struct stat s;

	for (size_t i = 0; i < st->n_files; i++) {
		const struct stage_file *f = &st->file[i];

		if (f->fd >= 0 && !fstat(f->fd, &s) && (uint64_t)s.st_blocks * 512 < f->size)
			sum += f->size - (uint64_t)s.st_blocks * 512;
	}
	return sum;
}

static int fail_space(const struct ob_stage *st, const struct stage_file *f, uint64_t taken,
		      ob_err *e)
{
	struct statvfs v;
	uint64_t space = 0;
	char need_text[32], free_text[32];

	if (!fstatvfs(st->staging, &v))
		space = (uint64_t)v.f_bavail * v.f_frsize;
	space -= ob_min_u64(taken, space);
	return ob_fail(e, OB_NOSPC, "%s needs %s, %s are free on %s; make room", f->path,
		       ob_size_text(f->size, need_text, sizeof(need_text)),
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
	if (ftruncate(f->fd, (off_t)f->size))
		return ob_fail_sys(e, OB_IO, errno, "cannot set the size of %s", f->path);
	return 0;
}

static int reserve(const struct ob_stage *st, const struct stage_file *f, ob_err *e)
{
	struct rlimit limit;
	char need_text[32], limit_text[32];
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
		err = fallocate(f->fd, 0, 0, (off_t)f->size) ? errno : 0;
	} while (err == EINTR);
	switch (err) {
	case 0:
		return 0;
	case ENOSPC:
	case EDQUOT:
		return fail_space(st, f, 0, e);
	case EOPNOTSUPP:
	case ENOSYS:
		return reserve_loosely(st, f, e);
	default:
		return ob_fail_sys(e, OB_IO, err, "cannot reserve %llu bytes for %s",
				   (unsigned long long)f->size, f->path);
	}
}

/* A second descriptor, for direct transfers, after one that proves that they work. */
static int open_direct(int dir, const char *name, uint64_t size)
{
	_Alignas(OB_IO_ALIGN) char zeros[OB_IO_ALIGN] = { 0 };
	int fd;

	if (size < sizeof(zeros))
		return -1;
	fd = openat(dir, name, O_RDWR | O_DIRECT | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && pwrite(fd, zeros, sizeof(zeros), 0) != sizeof(zeros))
		close_fd(&fd);
	return fd;
}

/* path + "/" + rel, or the path of an output that is one file. */
static char *join(const struct ob_stage *st, const char *rel)
{
	size_t n = strlen(st->path), m = strlen(rel);
	char *s = ob_alloc(n + m + 2);

	if (s) {
		memcpy(s, st->path, n);
		s[n] = m ? '/' : '\0';
		memcpy(s + n + 1, rel, m);
	}
	return s;
}

/* Creates `name` in the folder `dir` and reserves its space. */
static int create_in(struct ob_stage *st, int dir, const char *name, struct stage_file *f,
		     bool direct, ob_err *e)
{
	f->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (f->fd < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot create %s", f->path);
	if (reserve(st, f, e)) {
		unlinkat(dir, name, 0); /* a refusal may leave part of the space taken */
		close_fd(&f->fd);
		return -1;
	}
	if (direct)
		f->fd_direct = open_direct(dir, name, f->size);
	return 0;
}

static struct stage_file *create(struct ob_stage *st, const char *rel, uint64_t size, bool direct,
				 ob_err *e)
{
	struct stage_file f = { .size = size, .fd = -1, .fd_direct = -1 };
	const char *inside = st->is_file ? st->name : rel;
	const char *slash = strrchr(inside, '/');
	int dir, ret;

	if (st->is_file != !*rel) {
		ob_fail(e, OB_INTERNAL, "\"%s\" is no name for a file of %s", rel, st->path);
		return NULL;
	}
	if (check_rel(st, inside, e) ||
	    ob_grow(&st->file, &st->cap_files, st->n_files, sizeof(f), e))
		return NULL;
	f.path = join(st, rel);
	if (!f.path) {
		ob_fail_nomem(e, "output file");
		return NULL;
	}
	dir = ob_tree_open(st->out, inside, slash ? (size_t)(slash - inside) : 0, false);
	if (dir < 0) {
		ret = ob_fail_sys(e, OB_IO, errno, "cannot open the folder of %s", f.path);
	} else {
		ret = create_in(st, dir, slash ? slash + 1 : inside, &f, direct, e);
		close(dir);
	}
	if (ret) {
		ob_free(f.path);
		return NULL;
	}
	st->file[st->n_files] = f;
	return &st->file[st->n_files++];
}

int ob_stage_create(struct ob_stage *st, const char *rel, uint64_t size, int *fd, int *fd_direct,
		    ob_err *e)
{
	struct stage_file *f = create(st, rel, size, true, e);

	if (!f)
		return -1;
	*fd = f->fd;
	*fd_direct = f->fd_direct;
	return 0;
}

static int write_all(const struct stage_file *f, const void *data, size_t n, uint64_t off,
		     ob_err *e)
{
	size_t done = 0;

	while (done < n) {
		ssize_t k = pwrite(f->fd, (const char *)data + done, n - done, (off_t)(off + done));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return ob_fail_sys(e, OB_IO, k ? errno : EIO,
					   "cannot write %s at offset %llu", f->path,
					   (unsigned long long)(off + done));
		done += (size_t)k;
	}
	return 0;
}

/* Ends the writing of a file. An error of fdatasync is final: the kernel may have dropped the data
 * and would call a second attempt a success. */
static int seal(struct stage_file *f, ob_err *e)
{
	struct stat s;

	if (f->fd < 0)
		return 0;
	if (fdatasync(f->fd))
		return ob_fail_sys(e, OB_IO, errno, "cannot bring %s to the disk", f->path);
	if (fstat(f->fd, &s))
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", f->path);
	if ((uint64_t)s.st_size != f->size)
		return ob_fail(e, OB_IO,
			       "%s has %lld bytes instead of %llu; something else wrote to it",
			       f->path, (long long)s.st_size, (unsigned long long)f->size);
	close_fd(&f->fd);
	close_fd(&f->fd_direct);
	return 0;
}

int ob_stage_put(struct ob_stage *st, const char *rel, const void *data, size_t n, ob_err *e)
{
	struct stage_file *f = create(st, rel, n, false, e);

	if (!f || write_all(f, data, n, 0, e))
		return -1;
	return seal(f, e);
}

int ob_stage_copy(struct ob_stage *st, const char *rel, const char *from, ob_err *e)
{
	struct stage_file *f;
	struct ob_file *in;
	void *buf = NULL;
	int ret = -1;

	if (ob_file_open(&in, from, e))
		return -1;
	f = create(st, rel, in->stamp.size, false, e);
	if (!f)
		goto out;
	buf = ob_alloc(COPY_BLOCK);
	if (!buf) {
		ob_fail_nomem(e, from);
		goto out;
	}
	for (uint64_t off = 0; off < f->size; off += COPY_BLOCK) {
		size_t n = (size_t)ob_min_u64(f->size - off, COPY_BLOCK);

		if (ob_file_read(in, buf, n, off, e) || write_all(f, buf, n, off, e))
			goto out;
	}
	if (!ob_file_check(in, e))
		ret = seal(f, e);
out:
	ob_free(buf);
	ob_file_close(in);
	return ret;
}

/* ---- publication --------------------------------------------------------------------------- */

/* Exchanges `from`/`name`, the output, with the old one under the final name. */
static int exchange(struct ob_stage *st, int from, const char *name, ob_err *e)
{
	if (!renameat2(from, name, st->parent, st->name, RENAME_EXCHANGE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return ob_fail_sys(e, OB_IO, errno, "cannot replace %s", st->path);
	/* A file system that cannot exchange: for a moment there is no output. */
	if (renameat(st->parent, st->name, st->staging, "old"))
		return ob_fail_sys(e, OB_IO, errno, "cannot move the old %s away", st->path);
	if (renameat(from, name, st->parent, st->name)) {
		ob_fail_sys(e, OB_IO, errno, "cannot give the output its name %s", st->path);
		renameat(st->staging, "old", st->parent, st->name);
		return -1;
	}
	return 0;
}

/* Gives the output its final name. A rename of a folder replaces nothing but an empty folder; that
 * of a file has to be told not to replace. */
static int reveal(struct ob_stage *st, ob_err *e)
{
	const int from = st->is_file ? st->out : st->staging;
	const char *name = st->is_file ? st->name : "out";
	const bool keep = st->is_file && !st->force;
	const unsigned flags = keep ? RENAME_NOREPLACE : 0;
	int err = renameat2(from, name, st->parent, st->name, flags) ? errno : 0;

	if (keep && (err == EINVAL || err == ENOSYS)) {
		/* No such rename on this file system: look, then rename. */
		if (check_final(st, e))
			return -1;
		err = renameat(from, name, st->parent, st->name) ? errno : 0;
	}
	switch (err) {
	case 0:
		return 0;
	case EEXIST:
	case ENOTEMPTY:
	case ENOTDIR:
	case EISDIR:
		if (st->force)
			return exchange(st, from, name, e);
		return ob_fail(e, OB_EXISTS, "%s appeared while the output was made; move it away",
			       st->path);
	default:
		return ob_fail_sys(e, OB_IO, err, "cannot give the output its name %s", st->path);
	}
}

/* Under the lock; the lock goes last, so that whoever waits for it finds it gone. */
static void remove_staging(struct ob_stage *st)
{
	/* What cannot be removed stays for the next run to this output. */
	if (ob_tree_clear(st->staging, "lock") || unlinkat(st->staging, "lock", 0))
		return;
	unlinkat(st->parent, st->hidden, AT_REMOVEDIR);
}

int ob_stage_publish(struct ob_stage *st, ob_err *e)
{
	for (size_t i = 0; i < st->n_files; i++) {
		if (seal(&st->file[i], e))
			return -1;
	}
	if (ob_tree_sync(st->staging))
		return ob_fail_sys(e, OB_IO, errno, "cannot bring the folders of %s to the disk",
				   st->path);
	if (reveal(st, e))
		return -1;
	st->published = true;
	if (fsync(st->parent) && errno != EINVAL)
		return ob_fail_sys(e, OB_IO, errno,
				   "%s is complete, but its name may not outlast a power loss: "
				   "cannot sync the folder %s",
				   st->path, st->dir);
	remove_staging(st);
	return 0;
}

void ob_stage_close(struct ob_stage *st)
{
	if (!st)
		return;
	for (size_t i = 0; i < st->n_files; i++) {
		close_fd(&st->file[i].fd);
		close_fd(&st->file[i].fd_direct);
		ob_free(st->file[i].path);
	}
	if (st->lock >= 0 && !st->published)
		remove_staging(st);
	close_fd(&st->out);
	close_fd(&st->lock);
	close_fd(&st->staging);
	close_fd(&st->parent);
	ob_free(st->file);
	ob_free(st->path);
	ob_free(st->dir);
	ob_free(st->hidden);
	ob_free(st);
}
