/* SPDX-License-Identifier: Apache-2.0 */
#include "calls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static struct calls *rule;

void calls_rule(struct calls *r)
{
	rule = r;
}

/* Counts a call; true when it is one of those that fail. */
static bool is_hit(const char *name)
{
	const char *none = NULL;
	uint64_t at = atomic_fetch_add(&rule->count, 1) + 1;

	if (!rule->nth || at < rule->nth || at - rule->nth >= rule->n)
		return false;
	if (rule->kills) {
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
	atomic_compare_exchange_strong(&rule->first, &none, name);
	return true;
}

static bool fails(const char *name)
{
	if (!rule || rule->is_short || !is_hit(name))
		return false;
	errno = rule->error;
	return true;
}

/* How many bytes it may move; 0 when it fails, with errno 0 when it moves none. */
static size_t allowed(const char *name, int fd, size_t n)
{
	const size_t least = fcntl(fd, F_GETFL) & O_DIRECT ? 4096 : 1;

	if (!rule || !is_hit(name))
		return n;
	errno = rule->is_short ? 0 : rule->error;
	if (!rule->is_short || rule->less == UINT32_MAX)
		return 0;
	return n > rule->less + least ? (n - rule->less) / least * least : least;
}

/* The linker turns a call of NAME into one of __wrap_NAME, and __real_NAME into NAME. */
#define CALL(type, failure, name, parameters, arguments)                 \
	type __real_##name parameters;                                   \
	type __wrap_##name parameters;                                   \
	type __wrap_##name parameters                                    \
	{                                                                \
		return fails(#name) ? failure : __real_##name arguments; \
	}

CALL(FILE *, NULL, fopen, (const char *path, const char *mode), (path, mode))
CALL(DIR *, NULL, opendir, (const char *path), (path))
CALL(DIR *, NULL, fdopendir, (int fd), (fd))
CALL(struct dirent *, NULL, readdir, (DIR * d), (d))
CALL(char *, NULL, realpath, (const char *path, char *to), (path, to))
CALL(char *, NULL, __realpath_chk, (const char *path, char *to, size_t n), (path, to, n))
CALL(int, -1, stat, (const char *path, struct stat *st), (path, st))
CALL(int, -1, lstat, (const char *path, struct stat *st), (path, st))
CALL(int, -1, fstat, (int fd, struct stat *st), (fd, st))
CALL(int, -1, fstatat, (int fd, const char *path, struct stat *st, int flags),
     (fd, path, st, flags))
CALL(int, -1, fstatvfs, (int fd, struct statvfs *v), (fd, v))
CALL(int, -1, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags))
CALL(int, -1, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
CALL(int, -1, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
CALL(int, -1, flock, (int fd, int operation), (fd, operation))
CALL(int, -1, ftruncate, (int fd, off_t size), (fd, size))
CALL(int, -1, fdatasync, (int fd), (fd))
CALL(int, -1, sync_file_range, (int fd, off_t off, off_t n, unsigned flags), (fd, off, n, flags))
CALL(int, -1, renameat, (int from, const char *old, int to, const char *path),
     (from, old, to, path))
CALL(int, -1, eventfd, (unsigned value, int flags), (value, flags))
CALL(int, errno, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg),
     (thread, attr, start, arg))
CALL(int, -errno, io_uring_queue_init, (unsigned entries, struct io_uring *ring, unsigned flags),
     (entries, ring, flags))
CALL(int, -errno, io_uring_submit, (struct io_uring * ring), (ring))

static int refuse(int error)
{
	errno = error;
	return -1;
}

/* Those of an old file system fail before they count. */
#define CALL_UNLESS_OLD(condition, error, name, parameters, arguments) \
	int __real_##name parameters;                                  \
	int __wrap_##name parameters;                                  \
	int __wrap_##name parameters                                   \
	{                                                              \
		if (rule && rule->is_old && (condition))               \
			return refuse(error);                          \
		return fails(#name) ? -1 : __real_##name arguments;    \
	}

static bool is_folder(int fd)
{
	return fcntl(fd, F_GETFL) & O_DIRECTORY;
}

CALL_UNLESS_OLD(is_folder(fd), EINVAL, fsync, (int fd), (fd))
CALL_UNLESS_OLD(true, EOPNOTSUPP, fallocate, (int fd, int mode, off_t off, off_t n),
		(fd, mode, off, n))
CALL_UNLESS_OLD(flags != 0, EINVAL, renameat2,
		(int from, const char *old, int to, const char *path, unsigned flags),
		(from, old, to, path, flags))
CALL_UNLESS_OLD(flags &O_DIRECT, EINVAL, __open_2, (const char *path, int flags), (path, flags))
CALL_UNLESS_OLD(flags &O_DIRECT, EINVAL, __openat_2, (int dir, const char *path, int flags),
		(dir, path, flags))

/* With a mode, given or not. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);

static mode_t mode_of(int flags, va_list ap)
{
	return flags & O_CREAT ? va_arg(ap, mode_t) : 0;
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	if (rule && rule->is_old && flags & O_DIRECT)
		return refuse(EINVAL);
	return fails("open") ? -1 : __real_open(path, flags, mode);
}

int __wrap_openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	if (rule && rule->is_old && flags & O_DIRECT)
		return refuse(EINVAL);
	return fails("openat") ? -1 : __real_openat(dir, path, flags, mode);
}

int __real_close(int fd);
int __wrap_close(int fd);

int __wrap_close(int fd)
{
	int rc = __real_close(fd);

	return fails("close") ? -1 : rc;
}

void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t off);

/* Without a file it is an allocation. */
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t off)
{
	if (fd >= 0 && fails("mmap"))
		return MAP_FAILED;
	return __real_mmap(at, n, protection, flags, fd, off);
}

ssize_t __real_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off);

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off)
{
	size_t m = allowed("pread", fd, n);

	return m ? __real_pread(fd, buf, m, off) : errno ? -1 : 0;
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off)
{
	size_t m = allowed("pwrite", fd, n);

	return m ? __real_pwrite(fd, buf, m, off) : errno ? -1 : 0;
}
