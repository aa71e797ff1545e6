/* SPDX-License-Identifier: Apache-2.0 */
/* The body of the fuzz targets of containers. */
#ifndef OB_TESTS_CONTAINER_FUZZ_H
#define OB_TESTS_CONTAINER_FUZZ_H

#include "../container/memfile.h"
#include "fuzz.h"

/* For any file: an error that names it or a sound listing, and memory in proportion to its size.
 * shares: tensors may lie in each other. */
static inline void fuzz_container(const struct ob_container *c, bool shares, const void *data,
				  size_t size)
{
	static size_t largest;
	static int fd = -1;
	struct ob_listing l = { 0 };
	struct ob_arena a = { 0 };
	struct ob_file *f;
	ob_err e = { 0 };
	int rc;

	if (fd < 0)
		fd = memfile_fd("", 0);
	fuzz_require(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	fuzz_require(memfile_open_fd(&f, fd, &e) == 0);
	c->probe(f);
	fuzz_begin();
	rc = c->open(f, &a, &l, &e);
	if (fuzz_end(rc, &e) && rc != 0)
		fuzz_require(ob_exit_status(e.code) == 3 && strstr(e.msg, f->path));
	if (rc == 0)
		fuzz_require(!listing_broken(&l));
	for (size_t i = 1; rc == 0 && !shares && i < l.n_tensors; i++)
		fuzz_require(l.tensor[i].off >= l.tensor[i - 1].off + l.tensor[i - 1].len);
	ob_file_close(l.unpacked);
	ob_arena_free(&a);
	ob_file_close(f);
	largest = size > largest ? size : largest;
	fuzz_require(ob_alloc_stats().peak < (1 << 18) + 100 * largest);
}

#endif
