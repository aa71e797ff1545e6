/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nameless files for what cannot be read in place: written once from begin to end, then read like
 * any input. They lie in $TMPDIR, else in /var/tmp (on a disk, unlike /tmp on many systems), and
 * vanish with the process.
 */
#ifndef OB_IO_TEMP_H
#define OB_IO_TEMP_H

#include <stddef.h>
#include <stdint.h>

#include "io/file.h"

struct ob_temp {
	int fd;
	uint64_t at; /* bytes in the file */
	uint8_t *buf;
	size_t n; /* bytes in the buffer */
};

int ob_temp_open(struct ob_temp *t, ob_err *e);
int ob_temp_write(struct ob_temp *t, const void *data, size_t n, ob_err *e);
/* Ends the writing: *f holds the bytes, and messages call it `path`. t is closed in either case. */
int ob_temp_finish(struct ob_temp *t, struct ob_file **f, const char *path, ob_err *e);
void ob_temp_close(struct ob_temp *t);

#endif
