/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors as lines of text, "NAME D D D": what fuzz targets make files and models of. */
#ifndef OB_TESTS_FUZZ_TENSOR_LINE_H
#define OB_TESTS_FUZZ_TENSOR_LINE_H

#include <string.h>

#include "base/dtype.h"
#include "base/num.h"

#define LINE_MAX_RANK 8

struct tensor_line {
	const char *name; /* not NUL-terminated */
	size_t len;
	uint64_t dim[LINE_MAX_RANK];
	struct ob_shape shape; /* of dim */
	uint64_t elems;
};

/* Reads the line at *at and moves on to the next: 1, 0 at the end, -1 when it is no such line. */
static inline int tensor_line(const char **at, const char *end, struct tensor_line *l)
{
	const char *p = *at, *stop;

	if (p >= end)
		return 0;
	stop = memchr(p, '\n', (size_t)(end - p));
	stop = stop ? stop : end;
	*at = stop < end ? stop + 1 : end;
	*l = (struct tensor_line){ .name = p, .shape.dim = l->dim };
	while (p < stop && *p != ' ')
		p++;
	l->len = (size_t)(p - l->name);
	while (p < stop && l->shape.rank < LINE_MAX_RANK) {
		uint64_t *d = &l->dim[l->shape.rank++];

		for (p++; p < stop && *p >= '0' && *p <= '9'; p++)
			if (!ob_mul_u64(*d, 10, d) || !ob_add_u64(*d, (uint64_t)(*p - '0'), d))
				return -1;
		if (p < stop && *p != ' ')
			return -1;
	}
	return ob_shape_elems(&l->shape, &l->elems) ? 1 : -1;
}

#endif
