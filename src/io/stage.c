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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/num.h"
#include "base/util.h"
#include "io/file.h"
#include "io/io.h"
#include "io/sandbox.h"
#include "io/stage_impl.h"
#include "io/tree.h"

#define COPY_BLOCK (1u << 20)
/* Descriptors that a run needs beside its inputs and files: folders, lock, ring. With fewer it does
 * not begin, because it could not clean up. */
#define ROOM 16
#define CLEANER 4 /* of them to remove the staging folder */
/* The kernel holds files of a killed process, and so its lock, until its transfers end. */
#define LOCK_PATIENCE 1.0 /* seconds */

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
	st->parent = st->staging = st->out = st->lock = st->journal = -1;
	st->is_file = is_file;
	st->force = force;
	if (split_path(st, final_path, e) || ob_handle_make_room(ROOM, e) || open_parent(st, e) ||
	    check_final(st, e)) {
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

/* Is `fd` still what `name` in `dir` leads to? 1, 0, or -1 with errno set. */
static int is_linked(int dir, const char *name, int fd)
{
	struct stat a, b;

	if (fstatat(dir, name, &a, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -1;
	if (fstat(fd, &b))
		return -1;
	return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
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
	int linked = is_linked(st->parent, st->hidden, st->staging);
	if (linked > 0)
		linked = is_linked(st->staging, "lock", st->lock);
	if (linked < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s/%s", st->dir, st->hidden);
	return !linked;
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

int ob_stage_lock(struct ob_stage **stage, const char *final_path, bool is_file, bool force,
		  ob_err *e)
{
	struct ob_stage *st;

	if (prepare(&st, final_path, is_file, force, e))
		return -1;
	if (acquire(st, e)) {
		ob_stage_close(st);
		return -1;
	}
	*stage = st;
	return 0;
}

int ob_stage_renew(struct ob_stage *st, ob_err *e)
{
	if (ob_tree_clear(st->staging, "lock"))
		return ob_fail_sys(e, OB_IO, errno,
				   "cannot remove what an earlier run left in %s/%s", st->dir,
				   st->hidden);
	if (!mkdirat(st->staging, "out", 0777))
		st->out = openat(st->staging, "out", DIR_FLAGS);
	if (st->out < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot create %s/%s/out", st->dir, st->hidden);
	return 0;
}

int ob_stage_open(struct ob_stage **stage, const char *final_path, bool is_file, bool force,
		  ob_err *e)
{
	struct ob_stage *st;

	if (ob_stage_lock(&st, final_path, is_file, force, e))
		return -1;
	if (ob_stage_renew(st, e)) {
		ob_stage_close(st);
		return -1;
	}
	*stage = st;
	return 0;
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

/* The handle's way to open a file: the first time it creates it. */
static int open_file(struct ob_handle *h, int flags, ob_err *e)
{
	struct stage_file *f = h->owner;
	const char *slash = strrchr(f->rel, '/');
	int dir = ob_tree_open(f->st->out, f->rel, slash ? (size_t)(slash - f->rel) : 0, false);
	struct stat s = { 0 };
	int fd;

	if (dir < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot open the folder of %s", f->path);
	flags |= O_RDWR | O_NOFOLLOW | O_CLOEXEC | (f->ino ? 0 : O_CREAT | O_EXCL);
	fd = openat(dir, slash ? slash + 1 : f->rel, flags, 0666);
	if (fd < 0 || fstat(fd, &s))
		ob_fail_sys(e, OB_IO, errno, "cannot %s %s", f->ino ? "open" : "create", f->path);
	close(dir);
	if (!f->ino)
		f->ino = s.st_ino;
	if (fd >= 0 && f->ino != s.st_ino) {
		ob_fail(e, OB_IO, "%s was replaced while it was written", f->path);
		close_fd(&fd);
	}
	return fd;
}

static bool writes_directly(int fd)
{
	_Alignas(OB_IO_ALIGN) char zeros[OB_IO_ALIGN] = { 0 };

	return pwrite(fd, zeros, sizeof(zeros), 0) == sizeof(zeros);
}

static void free_file(struct stage_file *f)
{
	ob_handle_close(&f->handle);
	ob_free(f->path);
	ob_free(f);
}

/* Of a file that does not exist yet. */
static struct stage_file *new_file(struct ob_stage *st, const char *rel, uint64_t size, ob_err *e)
{
	const size_t n = strlen(st->path), m = strlen(rel);
	struct stage_file *f = ob_alloc(sizeof(*f));
	char *path = ob_alloc(n + m + 2);

	if (!f || !path) {
		ob_free(f);
		ob_free(path);
		ob_fail_nomem(e, "output file");
		return NULL;
	}
	memcpy(path, st->path, n);
	path[n] = m ? '/' : '\0';
	memcpy(path + n + 1, rel, m);
	*f = (struct stage_file){ .st = st, .path = path, .size = size };
	f->rel = m ? path + n + 1 : path + (st->name - st->path);
	ob_handle_init(&f->handle, f->path, open_file, f);
	return f;
}

/* Creates it or takes the one that is there, reserves its space, and leaves it held. */
static int create_file(struct stage_file *f, bool direct, ob_err *e)
{
	bool adopted = f->st->taken_over && ob_stage_adopt(f, direct);

	if (ob_handle_hold(&f->handle, e))
		return -1;
	if (ob_stage_reserve(f, e)) {
		if (!adopted) /* a refusal may leave part of the space taken */
			unlinkat(f->st->out, f->rel, 0);
		ob_handle_drop(&f->handle);
		return -1;
	}
	f->handle.is_written = true;
	if (direct && f->size >= OB_IO_ALIGN)
		ob_handle_enable_direct(&f->handle, writes_directly);
	return 0;
}

/* Gives a file that is held. */
static struct stage_file *create(struct ob_stage *st, const char *rel, uint64_t size, bool direct,
				 ob_err *e)
{
	struct stage_file *f;

	if (st->is_file != !*rel) {
		ob_fail(e, OB_INTERNAL, "\"%s\" is no name for a file of %s", rel, st->path);
		return NULL;
	}
	if (check_rel(st, st->is_file ? st->name : rel, e) ||
	    ob_grow(&st->file, &st->cap_files, st->n_files, sizeof(struct stage_file *), e))
		return NULL;
	f = new_file(st, rel, size, e);
	if (f && create_file(f, direct, e)) {
		free_file(f);
		f = NULL;
	}
	if (f)
		st->file[st->n_files++] = f;
	return f;
}

int ob_stage_create(struct ob_stage *st, const char *rel, uint64_t size, struct ob_handle **handle,
		    ob_err *e)
{
	struct stage_file *f = create(st, rel, size, true, e);

	if (!f)
		return -1;
	ob_handle_drop(&f->handle);
	*handle = &f->handle;
	return 0;
}

static int write_all(const struct stage_file *f, const void *data, size_t n, uint64_t off,
		     ob_err *e)
{
	int err = ob_io_write_all(f->handle.fd, data, n, off);

	if (err)
		return ob_fail_sys(e, OB_IO, err, "cannot write %zu bytes of %s at offset %llu", n,
				   f->path, (unsigned long long)off);
	return 0;
}

int ob_stage_write(struct ob_handle *h, const void *data, size_t n, uint64_t off, ob_err *e)
{
	int ret = ob_handle_hold(h, e);

	if (ret)
		return ret;
	ret = write_all(h->owner, data, n, off, e);
	ob_handle_drop(h);
	return ret;
}

int ob_stage_read(struct ob_handle *h, void *buf, size_t n, uint64_t off, ob_err *e)
{
	int ret = ob_handle_hold(h, e), err;

	if (ret)
		return ret;
	err = ob_io_read_all(h->fd, buf, n, off);
	ob_handle_drop(h);
	return err ? ob_fail_sys(e, OB_IO, err, "cannot read %zu bytes of %s at offset %llu", n,
				 h->path, (unsigned long long)off)
		   : 0;
}

int ob_stage_shrink(struct ob_handle *h, uint64_t size, ob_err *e)
{
	struct stage_file *f = h->owner;
	int ret = ob_handle_hold(h, e);

	if (ret)
		return ret;
	if (ftruncate(h->fd, (off_t)size))
		ret = ob_fail_sys(e, OB_IO, errno, "cannot set the size of %s", f->path);
	else
		f->size = size;
	ob_handle_drop(h);
	return ret;
}

/* Of a file that is held. An error of fdatasync is final: the kernel may have dropped the data and
 * would call a second attempt a success. */
static int finish(const struct stage_file *f, ob_err *e)
{
	struct stat s;

	if (fdatasync(f->handle.fd))
		return ob_fail_sys(e, OB_IO, errno, "cannot bring %s to the disk", f->path);
	if (fstat(f->handle.fd, &s))
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", f->path);
	if ((uint64_t)s.st_size != f->size)
		return ob_fail(e, OB_IO,
			       "%s has %lld bytes instead of %llu; something else wrote to it",
			       f->path, (long long)s.st_size, (unsigned long long)f->size);
	return 0;
}

/* Drops a file that is held; with ret 0 ends its writing. */
static int seal(struct stage_file *f, int ret, ob_err *e)
{
	if (!ret)
		ret = finish(f, e);
	ob_handle_drop(&f->handle);
	if (!ret) {
		ob_handle_close(&f->handle);
		f->is_sealed = true;
	}
	return ret;
}

int ob_stage_put(struct ob_stage *st, const char *rel, const void *data, size_t n, ob_err *e)
{
	struct stage_file *f = create(st, rel, n, false, e);

	return f ? seal(f, write_all(f, data, n, 0, e), e) : -1;
}

static int copy_all(const struct stage_file *f, const struct ob_file *in, ob_err *e)
{
	void *buf = ob_alloc(COPY_BLOCK);
	int ret = buf ? 0 : ob_fail_nomem(e, in->path);

	for (uint64_t off = 0; !ret && off < f->size; off += COPY_BLOCK) {
		size_t n = (size_t)ob_min_u64(f->size - off, COPY_BLOCK);

		ret = ob_file_read(in, buf, n, off, e) || write_all(f, buf, n, off, e) ? -1 : 0;
	}
	ob_free(buf);
	return ret ? ret : ob_file_check(in, e);
}

int ob_stage_copy(struct ob_stage *st, const char *rel, const char *from, ob_err *e)
{
	struct stage_file *f;
	struct ob_file *in;
	int ret = -1;

	if (ob_file_open(&in, from, e))
		return -1;
	f = create(st, rel, in->stamp.size, false, e);
	if (f)
		ret = seal(f, copy_all(f, in, e), e);
	ob_file_close(in);
	return ret;
}

/* ---- sandbox ------------------------------------------------------------------------------- */

void ob_stage_allow(const struct ob_stage *st, struct ob_sandbox *s)
{
	struct stat old;

	ob_sandbox_allow(s, st->staging, ".", OB_MAY_CHANGE);
	ob_sandbox_allow(s, st->parent, ".",
			 st->is_file ? OB_MAY_RECEIVE_FILE : OB_MAY_RECEIVE_FOLDER);
	if (!st->force || fstatat(st->parent, st->name, &old, AT_SYMLINK_NOFOLLOW))
		return;
	if (!S_ISDIR(old.st_mode))
		ob_sandbox_allow(s, st->parent, ".", OB_MAY_LOSE_FILE);
	/* Exchanged, it comes into the staging folder, and nothing may gain rights by a rename. */
	if (!st->is_file || S_ISDIR(old.st_mode))
		ob_sandbox_allow(s, st->parent, st->name, OB_MAY_CHANGE);
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
	if (!renameat(from, name, st->parent, st->name))
		return 0;
	const int err = errno;
	if (!renameat(st->staging, "old", st->parent, st->name))
		return ob_fail_sys(e, OB_IO, err, "cannot give the output its name %s", st->path);
	st->has_old = true;
	return ob_fail_sys(e, OB_IO, err,
			   "cannot give the output its name %s, and not put back the old one, "
			   "which stays in %s/%s/old",
			   st->path, st->dir, st->hidden);
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
		struct stage_file *f = st->file[i];

		if (!f->is_sealed && (ob_handle_hold(&f->handle, e) || seal(f, 0, e)))
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
	for (size_t i = 0; i < st->n_files; i++)
		free_file(st->file[i]);
	if (st->lock >= 0 && !st->published && !st->keep && !st->has_old) {
		ob_handle_make_room(CLEANER, NULL);
		remove_staging(st);
	}
	close_fd(&st->journal);
	close_fd(&st->out);
	close_fd(&st->lock);
	close_fd(&st->staging);
	close_fd(&st->parent);
	ob_free(st->file);
	ob_free(st->where);
	ob_free(st->path);
	ob_free(st->dir);
	ob_free(st->hidden);
	ob_free(st);
}
