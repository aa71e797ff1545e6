/* SPDX-License-Identifier: Apache-2.0 */
/* Which files are open: an account of descriptors, and the idle ones in the order of their use. */
#include "io/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

/* Descriptors for all that is not a handle: standard streams, the folders and the lock of the
 * output, the ring. Handles get the rest, but not less than one tensor may need. */
#define OTHERS 16
#define LEAST 6

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ob_handle idle = { .prev = &idle, .next = &idle };
static unsigned n_open; /* descriptors of all handles */

static void raise_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r); /* when refused, there are fewer to lend */
	}
}

static unsigned limit(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct rlimit r;

	pthread_once(&once, raise_limit);
	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur > UINT_MAX)
		return UINT_MAX;
	return (unsigned)r.rlim_cur;
}

/* The most descriptors of handles. */
static unsigned most(void)
{
	const unsigned n = limit();

	return n > OTHERS + LEAST ? n - OTHERS : LEAST;
}

static void close_fd(int *fd)
{
	if (*fd < 0)
		return;
	close(*fd);
	*fd = -1;
	n_open--;
}

static void take_from_idle(struct ob_handle *h)
{
	h->prev->next = h->next;
	h->next->prev = h->prev;
}

/* Closes the one that was used longest ago; false when there is none. */
static bool evict(void)
{
	struct ob_handle *h = idle.next;

	if (h == &idle)
		return false;
	take_from_idle(h);
	/* With its last descriptor an inode may leave memory, and the knowledge of a failed write
	 * with it. */
	if (h->is_written && fdatasync(h->fd) && !h->lost)
		h->lost = errno;
	close_fd(&h->fd);
	close_fd(&h->fd_direct);
	return true;
}

static bool is_exhausted(int error)
{
	return error == EMFILE || error == ENFILE;
}

static int open_one(struct ob_handle *h, int flags, ob_err *e)
{
	ob_err why = { 0 };
	int fd = -1;

	while (n_open >= most())
		if (!evict())
			return ob_fail_sys(e, OB_IO, EMFILE,
					   "cannot open %s beside all that is in use (ulimit -n)",
					   h->path);
	/* Others may have more open than was thought. */
	do {
		why.code = OB_OK;
		fd = h->open(h, flags, &why);
	} while (fd < 0 && is_exhausted(why.sys) && evict());
	if (fd >= 0)
		n_open++;
	else if (e && !e->code)
		*e = why;
	return fd;
}

static int open_both(struct ob_handle *h, ob_err *e)
{
	h->fd = open_one(h, 0, e);
	if (h->fd >= 0 && h->is_direct)
		h->fd_direct = open_one(h, O_DIRECT, e);
	if (h->fd >= 0 && (!h->is_direct || h->fd_direct >= 0))
		return 0;
	close_fd(&h->fd);
	return -1;
}

void ob_handle_init(struct ob_handle *h, const char *path,
		    int (*open)(struct ob_handle *h, int flags, ob_err *e), void *owner)
{
	*h = (struct ob_handle){
		.owner = owner, .path = path, .open = open, .fd = -1, .fd_direct = -1
	};
}

void ob_handle_adopt(struct ob_handle *h, const char *path, int fd, void *owner)
{
	ob_handle_init(h, path, NULL, owner);
	pthread_mutex_lock(&lock);
	h->fd = fd;
	h->holders = 1;
	n_open++;
	pthread_mutex_unlock(&lock);
}

int ob_handle_hold(struct ob_handle *h, ob_err *e)
{
	int ret = 0;

	pthread_mutex_lock(&lock);
	if (h->lost)
		ret = ob_fail_sys(e, OB_IO, h->lost, "cannot bring %s to the disk", h->path);
	else if (h->fd < 0)
		ret = open_both(h, e);
	else if (!h->holders)
		take_from_idle(h);
	if (!ret)
		h->holders++;
	pthread_mutex_unlock(&lock);
	return ret;
}

bool ob_handle_hold_open(struct ob_handle *h)
{
	bool is_open;

	pthread_mutex_lock(&lock);
	is_open = h->fd >= 0;
	if (is_open && !h->holders++)
		take_from_idle(h);
	pthread_mutex_unlock(&lock);
	return is_open;
}

void ob_handle_drop(struct ob_handle *h)
{
	pthread_mutex_lock(&lock);
	if (--h->holders == 0) {
		h->prev = idle.prev;
		h->next = &idle;
		h->prev->next = h->next->prev = h;
	}
	pthread_mutex_unlock(&lock);
}

void ob_handle_enable_direct(struct ob_handle *h, bool (*works)(int fd))
{
	pthread_mutex_lock(&lock);
	if (!h->is_direct && h->open) {
		h->fd_direct = open_one(h, O_DIRECT, NULL);
		h->is_direct = h->fd_direct >= 0 && works(h->fd_direct);
		if (!h->is_direct)
			close_fd(&h->fd_direct);
	}
	pthread_mutex_unlock(&lock);
}

void ob_handle_close(struct ob_handle *h)
{
	pthread_mutex_lock(&lock);
	if (h->fd >= 0 && !h->holders)
		take_from_idle(h);
	close_fd(&h->fd);
	close_fd(&h->fd_direct);
	pthread_mutex_unlock(&lock);
}

/* Can n more be opened? */
static bool has_room(unsigned n)
{
	int fd = open("/", O_PATH | O_CLOEXEC);
	bool ok = fd >= 0 && (n == 1 || has_room(n - 1));

	if (fd >= 0)
		close(fd);
	return ok;
}

int ob_handle_make_room(unsigned n, ob_err *e)
{
	bool ok;

	pthread_mutex_lock(&lock);
	do
		ok = has_room(n);
	while (!ok && evict());
	pthread_mutex_unlock(&lock);
	if (ok)
		return 0;
	return ob_fail_sys(e, OB_IO, EMFILE,
			   "%u files more cannot be opened under the limit of %u (ulimit -n)", n,
			   limit());
}
