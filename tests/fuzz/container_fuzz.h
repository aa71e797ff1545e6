/* SPDX-License-Identifier: Apache-2.0 */
/* The body of the fuzz targets of containers. */
#ifndef OB_TESTS_CONTAINER_FUZZ_H
#define OB_TESTS_CONTAINER_FUZZ_H

#include <stdlib.h>

#include "../container/memfile.h"

static inline void fuzz_require(bool ok)
{
	if (!ok)
		abort();
}

/* Lists f with allocation number `fail` failing (0: none); returns the number of allocations. */
static inline uint64_t fuzz_list(const struct ob_container *c, struct ob_file *f, uint64_t fail)
{
	struct ob_alloc_stats before = ob_alloc_stats(), after;
	struct ob_arena a = { 0 };
	struct ob_listing l = { 0 };
	ob_err e = { 0 };
	int rc;

	ob_alloc_fail_at(fail, false);
	rc = c->open(f, &a, &l, &e);
	ob_alloc_fail_at(0, false);
	fuzz_require((rc == 0) == (e.code == OB_OK));
	if (fail)
		fuzz_require(e.code == OB_NOMEM);
	else if (rc == 0)
		fuzz_require(!listing_broken(&l, f->stamp.size));
	else
		fuzz_require(ob_exit_status(e.code) == 3 && strstr(e.msg, f->path));
	ob_arena_free(&a);
	after = ob_alloc_stats();
	fuzz_require(after.in_use == before.in_use);
	return after.calls - before.calls;
}

/* For any file: an error that names it or a sound listing, memory in proportion to its size, and
 * when an allocation fails (which one depends on the bytes) OB_NOMEM without a leak. */
static inline void fuzz_container(const struct ob_container *c, const void *data, size_t size)
{
	static size_t largest;
	static int fd = -1;
	struct ob_file *f;
	uint64_t calls;
	ob_err e = { 0 };

	if (fd < 0)
		fd = memfile_fd("", 0);
	fuzz_require(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	fuzz_require(memfile_open_fd(&f, fd, &e) == 0);
	c->probe(f);
	calls = fuzz_list(c, f, 0);
	if (calls > 0)
		fuzz_list(c, f, 1 + ob_hash64(data, size, 0) % calls);
	ob_file_close(f);
	largest = size > largest ? size : largest;
	fuzz_require(ob_alloc_stats().peak < (1 << 18) + 100 * largest);
}

#endif
