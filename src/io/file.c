/* SPDX-License-Identifier: Apache-2.0 */
/* Input files: opening, identity, the map, and what the page cache holds of them. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "io/io.h"
#include "io/sigbus.h"

#define DIRECT_MIN (64u << 10) /* bytes; a smaller file is not worth a second descriptor */

/* One allocation: the handle changes behind a file that is const. */
struct opened {
	struct ob_file file; /* first */
	struct ob_handle handle;
};

/* Opens a regular file for reading. O_NONBLOCK keeps the open of a FIFO from waiting for a writer;
 * it must not stay, because io_uring then gives EAGAIN for data that is not cached. */
static int open_regular(const char *path, int flags, struct stat *st, ob_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags);

	if (fd < 0 && errno == ENXIO) /* a socket, or a device without a driver */
		return ob_fail(e, OB_CORRUPT, "%s is not a regular file", path);
	if (fd < 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot open %s", path);
	if (fstat(fd, st)) {
		ob_fail_sys(e, OB_IO, errno, "cannot examine %s", path);
	} else if (!S_ISREG(st->st_mode)) {
		ob_fail(e, OB_CORRUPT, "%s is %s, not a regular file", path,
			S_ISDIR(st->st_mode)	? "a folder"
			: S_ISFIFO(st->st_mode) ? "a FIFO"
						: "a device");
	} else if (fcntl(fd, F_SETFL, flags)) {
		ob_fail_sys(e, OB_IO, errno, "cannot set up %s", path);
	} else {
		return fd;
	}
	close(fd);
	return -1;
}

static struct ob_stamp stamp_of(const struct stat *st)
{
	return (struct ob_stamp){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
	};
}

static int compare_stamp(const struct ob_file *f, const struct stat *st, ob_err *e)
{
	const struct ob_stamp now = stamp_of(st);

	if (now.dev != f->stamp.dev || now.ino != f->stamp.ino)
		return ob_fail(e, OB_CHANGED, "%s was replaced while it was read", f->path);
	if (now.size != f->stamp.size)
		return ob_fail(e, OB_CHANGED,
			       "%s changed while it was read: it had %llu bytes and now has %llu",
			       f->path, (unsigned long long)f->stamp.size,
			       (unsigned long long)now.size);
	if (now.mtime_ns != f->stamp.mtime_ns)
		return ob_fail(e, OB_CHANGED, "%s was written to while it was read", f->path);
	return 0;
}

static int open_first(struct ob_handle *h, int flags, ob_err *e)
{
	struct ob_file *f = h->owner;
	struct stat st;
	int fd = open_regular(f->path, flags, &st, e);

	if (fd >= 0)
		f->stamp = stamp_of(&st);
	return fd;
}

static int open_again(struct ob_handle *h, int flags, ob_err *e)
{
	const struct ob_file *f = h->owner;
	struct stat st;
	int fd = open_regular(f->path, flags, &st, e);

	if (fd >= 0 && compare_stamp(f, &st, e)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int map_file(struct ob_file *f, ob_err *e)
{
	void *map;

	if (f->stamp.size == 0)
		return 0;
	if (f->stamp.size > SIZE_MAX)
		return ob_fail(e, OB_LIMIT, "%s is larger than this machine's address space",
			       f->path);
	map = mmap(NULL, (size_t)f->stamp.size, PROT_READ, MAP_SHARED, f->handle->fd, 0);
	if (map == MAP_FAILED)
		return ob_fail_sys(e, OB_IO, errno, "cannot map %s", f->path);
	f->map = map;
	ob_sigbus_add(f);
	return 0;
}

/* An input that is not open yet. */
static struct ob_file *new_file(const char *path, ob_err *e)
{
	const size_t len = strlen(path) + 1;
	struct opened *o = ob_alloc(sizeof(*o));
	char *copy = ob_alloc(len);
	struct ob_file *f;

	if (!o || !copy) {
		ob_free(copy);
		ob_free(o);
		ob_fail_nomem(e, "input file");
		return NULL;
	}
	f = &o->file;
	f->path = memcpy(copy, path, len);
	f->handle = &o->handle;
	ob_handle_init(f->handle, f->path, open_first, f);
	return f;
}

int ob_file_open(struct ob_file **file, const char *path, ob_err *e)
{
	struct ob_file *f = new_file(path, e);
	int ret;

	if (!f)
		return -1;
	ret = ob_handle_hold(f->handle, e);
	if (!ret) {
		f->handle->open = open_again;
		ret = map_file(f, e);
		ob_handle_drop(f->handle);
	}
	if (ret)
		ob_file_close(f);
	else
		*file = f;
	return ret;
}

int ob_file_adopt(struct ob_file **file, int fd, const char *path, ob_err *e)
{
	struct ob_file *f = new_file(path, e);
	struct stat st;

	if (!f) {
		close(fd);
		return -1;
	}
	ob_handle_adopt(f->handle, f->path, fd, f);
	if (fstat(fd, &st)) {
		ob_fail_sys(e, OB_IO, errno, "cannot examine %s", path);
	} else {
		f->stamp = stamp_of(&st);
		if (map_file(f, e) == 0) {
			*file = f;
			return 0;
		}
	}
	ob_file_close(f);
	return -1;
}

void ob_file_close(struct ob_file *f)
{
	if (!f)
		return;
	if (f->map) {
		ob_sigbus_remove(f);
		munmap((void *)(uintptr_t)f->map, (size_t)f->stamp.size);
	}
	ob_handle_close(f->handle);
	ob_free((void *)(uintptr_t)f->path);
	ob_free(f);
}

/* Some file systems take the flag and refuse the transfer. */
static bool reads_directly(int fd)
{
	_Alignas(OB_IO_ALIGN) char block[OB_IO_ALIGN];

	return pread(fd, block, sizeof(block), 0) == sizeof(block);
}

void ob_file_enable_direct(struct ob_file *f)
{
	if (f->stamp.size < DIRECT_MIN || ob_handle_hold(f->handle, NULL))
		return;
	ob_handle_enable_direct(f->handle, reads_directly);
	ob_handle_drop(f->handle);
}

/* cachestat(2), Linux 6.5: the C library knows it since glibc 2.39 only. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cachestat_range {
	uint64_t off, len;
};

struct cachestat_counts {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* For older kernels. Unlike a probing read it starts no read-ahead. */
static bool all_in_core(const struct ob_file *f, uint64_t off, uint64_t end, uint64_t page)
{
	unsigned char in[1024];
	struct stat st;

	/* The kernel calls everything resident for those who could not write the file. */
	if (fstat(f->handle->fd, &st))
		return false;
	if (st.st_uid != geteuid() && faccessat(AT_FDCWD, f->path, W_OK, AT_EACCESS))
		return false;
	while (off < end) {
		uint64_t n = ob_min_u64(end - off, sizeof(in) * page);

		if (mincore((void *)(uintptr_t)(f->map + off), (size_t)n, in))
			return false;
		for (uint64_t i = 0; i < ob_div_up(n, page); i++) {
			if (!(in[i] & 1))
				return false;
		}
		off += n;
	}
	return true;
}

bool ob_file_cached(const struct ob_file *f, uint64_t off, uint64_t len)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t end = len < f->stamp.size && off <= f->stamp.size - len ? off + len
									       : f->stamp.size;
	struct cachestat_range range;
	struct cachestat_counts counts;
	bool is_cached;

	if (off >= end || ob_handle_hold(f->handle, NULL))
		return false;
	off = ob_round_down(off, page);
	range.off = off;
	range.len = end - off;
	if (syscall(SYS_cachestat, f->handle->fd, &range, &counts, 0) == 0)
		is_cached = counts.cached >= ob_div_up(end - off, page);
	else
		is_cached = all_in_core(f, off, end, page);
	ob_handle_drop(f->handle);
	return is_cached;
}

int ob_file_read(const struct ob_file *f, void *buf, size_t len, uint64_t off, ob_err *e)
{
	int err;

	if (ob_handle_hold(f->handle, e))
		return -1;
	err = ob_io_read_all(f->handle->fd, buf, len, off);
	ob_handle_drop(f->handle);
	if (err == ENODATA)
		return ob_fail(e, OB_CHANGED,
			       "%s ends before byte %llu that was wanted: it changed while it was "
			       "read",
			       f->path, (unsigned long long)(off + len));
	if (err)
		return ob_fail_sys(e, OB_IO, err, "cannot read %zu bytes of %s at offset %llu", len,
				   f->path, (unsigned long long)off);
	return 0;
}

int ob_file_slurp(const char *path, size_t max, char **text, size_t *len, ob_err *e)
{
	struct ob_file *f;
	char *buf = NULL;
	int ret = -1;

	if (ob_file_open(&f, path, e))
		return -1;
	if (f->stamp.size > max) {
		ob_fail(e, OB_LIMIT, "%s has %llu bytes; a file of its kind may have at most %zu",
			path, (unsigned long long)f->stamp.size, max);
		goto out;
	}
	buf = ob_alloc((size_t)f->stamp.size + 1);
	if (!buf) {
		ob_fail_nomem(e, path);
		goto out;
	}
	if (ob_file_read(f, buf, (size_t)f->stamp.size, 0, e))
		goto out;
	buf[f->stamp.size] = '\0';
	*text = buf;
	*len = (size_t)f->stamp.size;
	buf = NULL;
	ret = 0;
out:
	ob_free(buf);
	ob_file_close(f);
	return ret;
}

int ob_file_check(const struct ob_file *f, ob_err *e)
{
	struct stat st;

	if (__atomic_load_n(&f->shrunk, __ATOMIC_SEQ_CST))
		return ob_fail(e, OB_CHANGED,
			       "a part of %s that was there when it was opened cannot be read any "
			       "more: it was truncated, or its device fails",
			       f->path);
	if (!f->handle->open) /* nobody else knows it */
		return 0;
	if (stat(f->path, &st)) {
		if (errno == ENOENT || errno == ENOTDIR)
			return ob_fail(e, OB_CHANGED, "%s was removed while it was read", f->path);
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", f->path);
	}
	return compare_stamp(f, &st, e);
}

#define FAULT_AROUND (64u << 10) /* the kernel's default */

static void advise(const struct ob_file *f, uint64_t off, uint64_t len, int advice)
{
	const uint64_t begin = ob_round_down(off, (uint64_t)sysconf(_SC_PAGESIZE));

	/* Only a hint: a refusal changes no result. */
	if (f->map && ob_in_file(off, len, f->stamp.size))
		madvise((void *)(uintptr_t)(f->map + begin), (size_t)(off + len - begin), advice);
}

void ob_file_will_need(const struct ob_file *f, uint64_t off, uint64_t len)
{
	advise(f, off, len, MADV_WILLNEED);
}

/* A fault maps the cached pages around it as well: those go too. Nothing is lost, they are clean. */
void ob_file_drop(const struct ob_file *f, uint64_t off, uint64_t len)
{
	uint64_t first = off > FAULT_AROUND ? off - FAULT_AROUND : 0;
	uint64_t last = ob_min_u64(f->stamp.size, off + len + FAULT_AROUND);

	advise(f, first, last - first, MADV_DONTNEED);
}

int ob_name_check(const char *name, const char *what, ob_err *e)
{
	if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || strchr(name, '/'))
		return ob_fail(e, OB_UNSAFE,
			       "%s names the file \"%s\"; only a plain name in its own folder is "
			       "allowed",
			       what, name);
	return 0;
}
