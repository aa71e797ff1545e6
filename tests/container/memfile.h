/* SPDX-License-Identifier: Apache-2.0 */
/* Input files that live in memory, and what every listing of one must obey. */
#ifndef OB_TESTS_MEMFILE_H
#define OB_TESTS_MEMFILE_H

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "base/util.h"
#include "container/container.h"

/* A file in memory with these bytes; -1 when the system refuses. */
static inline int memfile_fd(const void *data, size_t n)
{
	int fd = memfd_create("memfile", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, data, n) != (ssize_t)n) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static inline int memfile_open_fd(struct ob_file **f, int fd, ob_err *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return ob_file_open(f, path, e);
}

/* What of the listing of a file breaks a promise of container.h, or NULL. */
static inline const char *listing_broken(const struct ob_listing *l)
{
	for (size_t i = 0; i < l->n_tensors; i++) {
		const struct ob_stored *t = &l->tensor[i];
		uint64_t elems, bits, last = 0;

		if (!t->name || strlen(t->name) > OB_MAX_NAME ||
		    !ob_utf8_valid(t->name, strlen(t->name)))
			return "name";
		if (t->dtype >= OB_N_DTYPES || t->shape.rank > OB_MAX_RANK || !t->file)
			return "dtype, rank or file";
		if (!ob_in_file(t->off, t->len, t->file->stamp.size))
			return "outside the file";
		if (i > 0 && t->off < t[-1].off)
			return "order";
		if (!ob_shape_elems(&t->shape, &elems) ||
		    !ob_mul_u64(elems, ob_dtype_bits(t->dtype), &bits))
			return "shape";
		for (uint32_t d = 0; t->stride && d < t->shape.rank; d++)
			last += (t->shape.dim[d] - 1) * t->stride[d];
		if (t->stride)
			bits = (last + 1) * ob_dtype_bits(t->dtype);
		if (bits % 8 != 0 || bits / 8 != t->len)
			return "length";
	}
	for (size_t i = 0; i < l->n_meta; i++)
		if (!l->meta[i].key || !l->meta[i].value)
			return "metadata";
	return NULL;
}

#endif
