/* SPDX-License-Identifier: Apache-2.0 */
#include "io/temp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "io/io.h"

#define BUFFER (64u << 10)

static const char *folder(void)
{
	const char *dir = secure_getenv("TMPDIR");

	return dir && *dir ? dir : "/var/tmp";
}

int ob_temp_open(struct ob_temp *t, ob_err *e)
{
	char path[PATH_MAX];

	*t = (struct ob_temp){ .fd = -1, .buf = ob_alloc(BUFFER) };
	if (!t->buf)
		return ob_fail_nomem(e, "temporary file");
	if (ob_handle_make_room(1, e)) {
		ob_temp_close(t);
		return -1;
	}
	t->fd = open(folder(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (t->fd < 0 && snprintf(path, sizeof(path), "%s/oocbake.XXXXXX", folder()) < PATH_MAX) {
		/* A file system without nameless files. */
		t->fd = mkostemp(path, O_CLOEXEC);
		if (t->fd >= 0)
			unlink(path);
	}
	if (t->fd >= 0)
		return 0;
	ob_fail_sys(e, OB_IO, errno, "cannot make a temporary file in %s; set TMPDIR", folder());
	ob_temp_close(t);
	return -1;
}

static int flush(struct ob_temp *t, ob_err *e)
{
	int err = ob_io_write_all(t->fd, t->buf, t->n, t->at);

	if (err)
		return ob_fail_sys(e, err == ENOSPC ? OB_NOSPC : OB_IO, err,
				   "cannot write a temporary file in %s; set TMPDIR", folder());
	t->at += t->n;
	t->n = 0;
	return 0;
}

int ob_temp_write(struct ob_temp *t, const void *data, size_t n, ob_err *e)
{
	const uint8_t *p = data;

	while (n > 0) {
		size_t m = (size_t)ob_min_u64(n, BUFFER - t->n);

		memcpy(t->buf + t->n, p, m);
		t->n += m;
		p += m;
		n -= m;
		if (t->n == BUFFER && flush(t, e) != 0)
			return -1;
	}
	return 0;
}

int ob_temp_finish(struct ob_temp *t, struct ob_file **f, const char *path, ob_err *e)
{
	int rc = flush(t, e), fd = t->fd;

	if (rc == 0) {
		t->fd = -1;
		rc = ob_file_adopt(f, fd, path, e);
	}
	ob_temp_close(t);
	return rc;
}

void ob_temp_close(struct ob_temp *t)
{
	if (t->fd >= 0)
		close(t->fd);
	ob_free(t->buf);
	*t = (struct ob_temp){ .fd = -1 };
}
