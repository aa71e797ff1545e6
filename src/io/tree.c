/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, emptying and syncing folders below a descriptor. */
#include "io/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define DEPTH_MAX 64 /* folders inside folders; each level holds a descriptor */

static void close_quietly(int fd)
{
	const int saved = errno;

	close(fd);
	errno = saved;
}

int ob_tree_open(int root, const char *rel, size_t len, bool create)
{
	int fd = openat(root, ".", DIR_FLAGS);

	while (fd >= 0 && len) {
		const char *slash = memchr(rel, '/', len);
		size_t n = slash ? (size_t)(slash - rel) : len;
		char name[NAME_MAX + 1];
		int next = -1;

		if (n > NAME_MAX) {
			errno = ENAMETOOLONG;
		} else {
			memcpy(name, rel, n);
			name[n] = '\0';
			if (!create || !mkdirat(fd, name, 0777) || errno == EEXIST)
				next = openat(fd, name, DIR_FLAGS);
		}
		close_quietly(fd);
		fd = next;
		rel += slash ? n + 1 : n;
		len -= slash ? n + 1 : n;
	}
	return fd;
}

/* The next entry that is not "." or ".."; NULL with errno 0 at the end. */
static const char *next_name(DIR *d)
{
	struct dirent *ent;

	do {
		errno = 0;
		ent = readdir(d);
	} while (ent && (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, "..")));
	return ent ? ent->d_name : NULL;
}

/* A stream with a descriptor and a position of its own. */
static DIR *open_stream(int dir, const char *name, unsigned depth)
{
	DIR *d;
	int fd;

	if (depth > DEPTH_MAX) {
		errno = ELOOP;
		return NULL;
	}
	fd = openat(dir, name, DIR_FLAGS);
	if (fd < 0)
		return NULL;
	d = fdopendir(fd);
	if (!d)
		close_quietly(fd);
	return d;
}

static void close_stream(DIR *d)
{
	const int saved = errno;

	closedir(d);
	errno = saved;
}

int ob_tree_is_empty(int dir, const char *name)
{
	DIR *d = open_stream(dir, name, 0);
	int ret;

	if (!d)
		return errno == ENOTDIR || errno == ELOOP ? 0 : -1;
	if (next_name(d))
		ret = 0;
	else
		ret = errno ? -1 : 1;
	close_stream(d);
	return ret;
}

static int clear(int dir, const char *name, const char *keep, unsigned depth);

static int remove_entry(int dir, const char *name, unsigned depth)
{
	if (!unlinkat(dir, name, 0))
		return 0;
	if (errno != EISDIR && errno != EPERM) /* POSIX says EPERM for a folder */
		return errno;
	int err = clear(dir, name, NULL, depth + 1);
	return unlinkat(dir, name, AT_REMOVEDIR) && !err ? errno : err;
}

/* Returns 0 or the first errno. */
static int clear(int dir, const char *name, const char *keep, unsigned depth)
{
	DIR *d = open_stream(dir, name, depth);
	const char *entry;
	int first = 0;

	if (!d)
		return errno;
	while ((entry = next_name(d))) {
		int err = keep && !strcmp(entry, keep) ? 0 : remove_entry(dirfd(d), entry, depth);

		if (!first)
			first = err;
	}
	if (!first)
		first = errno;
	closedir(d);
	return first;
}

int ob_tree_clear(int dir, const char *keep)
{
	errno = clear(dir, ".", keep, 0);
	return errno ? -1 : 0;
}

struct prune {
	bool (*keep)(const void *ctx, const char *rel);
	const void *ctx;
	char rel[PATH_MAX];
};

static int prune(struct prune *p, int dir, const char *name, size_t len, unsigned depth)
{
	DIR *d = open_stream(dir, name, depth);
	const char *entry;
	struct stat st;
	int err = 0;

	if (!d)
		return -1;
	while (!err && (entry = next_name(d))) {
		int n = snprintf(p->rel + len, sizeof(p->rel) - len, "%s%s", len ? "/" : "", entry);

		if (n < 0 || (size_t)n >= sizeof(p->rel) - len) {
			errno = ENAMETOOLONG;
			err = -1;
		} else if (fstatat(dirfd(d), entry, &st, AT_SYMLINK_NOFOLLOW)) {
			err = -1;
		} else if (S_ISDIR(st.st_mode)) {
			err = prune(p, dirfd(d), entry, len + (size_t)n, depth + 1);
			if (!err && unlinkat(dirfd(d), entry, AT_REMOVEDIR) && errno != ENOTEMPTY &&
			    errno != EEXIST)
				err = -1;
		} else if (!p->keep(p->ctx, p->rel)) {
			err = unlinkat(dirfd(d), entry, 0);
		}
	}
	if (!err && errno)
		err = -1;
	close_stream(d);
	return err;
}

int ob_tree_prune(int dir, bool (*keep)(const void *ctx, const char *rel), const void *ctx)
{
	struct prune p = { .keep = keep, .ctx = ctx };

	return prune(&p, dir, ".", 0, 0);
}

static int sync_below(int dir, const char *name, unsigned depth)
{
	DIR *d = open_stream(dir, name, depth);
	const char *entry;
	struct stat st;
	int err = 0;

	if (!d)
		return -1;
	while (!err && (entry = next_name(d))) {
		err = fstatat(dirfd(d), entry, &st, AT_SYMLINK_NOFOLLOW);
		if (!err && S_ISDIR(st.st_mode))
			err = sync_below(dirfd(d), entry, depth + 1);
	}
	if (!err && errno)
		err = -1;
	/* EINVAL: a file system that does not know fsync of folders. */
	if (!err && fsync(dirfd(d)) && errno != EINVAL)
		err = -1;
	close_stream(d);
	return err;
}

int ob_tree_sync(int dir)
{
	return sync_below(dir, ".", 0);
}
