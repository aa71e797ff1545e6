/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors whose elements do not lie row by row in their file: transposed and sliced views that
 * PyTorch saved, arrays in Fortran order. The engine reads runs of bytes, so these are laid out in a
 * temporary file first. Models have few of them.
 */
#include <inttypes.h>

#include "base/num.h"
#include "io/temp.h"
#include "model/internal.h"

#define GROWTH_MAX 4u /* times the file; a view may repeat its elements without end */

/* Writes the elements of dimension d and those below, from the element at p on. */
static int write_rows(struct ob_temp *to, const struct ob_stored *s, uint32_t d, const uint8_t *p,
		      size_t item, ob_err *e)
{
	uint64_t n = s->shape.dim[d];
	size_t step = (size_t)s->stride[d] * item;
	bool is_last = d + 1 == s->shape.rank;

	if (is_last && step == item)
		return ob_temp_write(to, p, (size_t)n * item, e);
	for (uint64_t i = 0; i < n; i++, p += step) {
		int rc = is_last ? ob_temp_write(to, p, item, e)
				 : write_rows(to, s, d + 1, p, item, e);

		if (rc != 0)
			return -1;
	}
	return 0;
}

static uint64_t bytes_of(const struct ob_stored *s)
{
	uint64_t n;

	/* No overflow: the reader made sure. */
	ob_shape_elems(&s->shape, &n);
	return n * (ob_dtype_bits(s->dtype) / 8);
}

static int check_size(const char *path, const struct ob_listing *l, ob_err *e)
{
	uint64_t total = 0;

	for (size_t i = 0; i < l->n_tensors; i++) {
		const struct ob_stored *s = &l->tensor[i];

		if (s->stride && (!ob_add_u64(total, bytes_of(s), &total) ||
				  total / GROWTH_MAX > s->file->stamp.size))
			return ob_fail(e, OB_LIMIT,
				       "%s: tensor %s and the views before it would take more than "
				       "%u times the %" PRIu64 " bytes that they lie in",
				       path, s->name, GROWTH_MAX, s->file->stamp.size);
	}
	return 0;
}

static int write_all(struct ob_temp *to, struct ob_listing *l, ob_err *e)
{
	for (size_t i = 0; i < l->n_tensors; i++) {
		const struct ob_stored *s = &l->tensor[i];

		if (!s->stride)
			continue;
		if (write_rows(to, s, 0, s->file->map + s->off, ob_dtype_bits(s->dtype) / 8, e) !=
		    0)
			return -1;
		ob_file_drop(s->file, s->off, s->len);
	}
	return 0;
}

int ob_make_dense(const char *path, struct ob_listing *l, struct ob_file **file, ob_err *e)
{
	struct ob_temp temp;
	uint64_t at = 0;
	size_t first = 0;

	while (first < l->n_tensors && !l->tensor[first].stride)
		first++;
	if (first == l->n_tensors)
		return 0;
	if (check_size(path, l, e) != 0 || ob_temp_open(&temp, e) != 0)
		return -1;
	if (write_all(&temp, l, e) != 0) {
		ob_temp_close(&temp);
		return -1;
	}
	if (ob_temp_finish(&temp, file, path, e) != 0)
		return -1;
	for (size_t i = first; i < l->n_tensors; i++) {
		struct ob_stored *s = &l->tensor[i];

		if (!s->stride)
			continue;
		s->file = *file;
		s->off = at;
		s->len = bytes_of(s);
		s->stride = NULL;
		at += s->len;
	}
	return 0;
}
