/* SPDX-License-Identifier: Apache-2.0 */
/* Stored tensors of adapters as matrices of numbers: views, comparison, and the scan for values
 * that cannot be baked. */
#include <string.h>

#include "adapter/reader.h"
#include "base/num.h"
#include "kernels/kernels.h"

#define CHUNK 2048	  /* floats at a time, on the stack */
#define WINDOW (8u << 20) /* bytes of the map that the scan leaves resident */
#define NONFINITE 0x7f800000u

bool ob_dtype_is_factor(enum ob_dtype t)
{
	return ob_dtype_is_float(t) || t == OB_F64 || t == OB_F8_E4M3 || t == OB_F8_E5M2;
}

/* Stride of dimensions 1.. seen as one, or false when no single stride serves. */
static bool merged_stride(const struct ob_stored *s, uint64_t *stride)
{
	uint64_t next = 0; /* what the stride of the dimension to the left must be */
	bool any = false;

	*stride = 1;
	for (uint32_t i = s->shape.rank; i-- > 1;) {
		if (s->shape.dim[i] == 1)
			continue;
		if (!any)
			*stride = s->stride[i];
		else if (s->stride[i] != next)
			return false;
		if (!ob_mul_u64(s->stride[i], s->shape.dim[i], &next))
			return false;
		any = true;
	}
	return true;
}

int ob_view_of(const struct ob_adapter_file *f, const struct ob_stored *s, struct ob_view *v,
	       ob_err *e)
{
	const uint64_t *dim = s->shape.dim;
	uint64_t n;

	if (!ob_dtype_is_factor(s->dtype))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: the key \"%s\" has the type %s, which is no "
			       "type of weights",
			       f->path, OB_SHOWN(s->name), ob_dtype_name(s->dtype));
	/* Strides of 0 would make work without end out of a small file. */
	if (!ob_shape_elems(&s->shape, &n) || n > s->file->stamp.size)
		return ob_fail(e, OB_CORRUPT,
			       "%s: the key \"%s\" has the shape %s, which is more "
			       "than the file holds",
			       f->path, OB_SHOWN(s->name), OB_SHOWN_SHAPE(&s->shape));
	*v = (struct ob_view){ s->file, s->off, s->dtype, 1, n, n, 1 };
	if (s->shape.rank >= 2) {
		v->rows = dim[0];
		v->cols = dim[0] ? n / dim[0] : 0;
		v->row_stride = v->cols;
	}
	if (!s->stride || !s->shape.rank)
		return 0;
	if (s->shape.rank == 1) {
		v->col_stride = s->stride[0];
		return 0;
	}
	v->row_stride = s->stride[0];
	if (!merged_stride(s, &v->col_stride))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: the key \"%s\" is stored with strides that "
			       "do not form a matrix; save it contiguous",
			       f->path, OB_SHOWN(s->name));
	return 0;
}

struct ob_view ob_view_transposed(const struct ob_view *v)
{
	return (struct ob_view){ v->file, v->off,	 v->dtype,     v->cols,
				 v->rows, v->col_stride, v->row_stride };
}

bool ob_view_equal(const struct ob_view *a, const struct ob_view *b)
{
	float x[CHUNK], y[CHUNK];

	if (a->rows != b->rows || a->cols != b->cols)
		return false;
	for (uint64_t r = 0; r < a->rows; r++)
		for (uint64_t c = 0; c < a->cols; c += CHUNK) {
			uint64_t n = ob_min_u64(CHUNK, a->cols - c);

			ob_view_load(a, r, 1, c, n, 1.0f, x, (size_t)n);
			ob_view_load(b, r, 1, c, n, 1.0f, y, (size_t)n);
			if (memcmp(x, y, (size_t)n * sizeof(float)))
				return false;
		}
	return true;
}

int ob_stored_scalar(const struct ob_adapter_file *f, const struct ob_stored *s, double *x,
		     ob_err *e)
{
	uint64_t n;
	float v;

	if (!ob_shape_elems(&s->shape, &n) || n != 1)
		return ob_fail(e, OB_CORRUPT,
			       "%s: the key \"%s\" has the shape %s where one number "
			       "is expected",
			       f->path, OB_SHOWN(s->name), OB_SHOWN_SHAPE(&s->shape));
	if (s->dtype == OB_F64) {
		memcpy(x, s->file->map + s->off, sizeof(*x));
		return 0;
	}
	if (!ob_load_f32(&v, s->file->map + s->off, s->dtype, 1, 1))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: the key \"%s\" has the type %s, which is no "
			       "number",
			       f->path, OB_SHOWN(s->name), ob_dtype_name(s->dtype));
	*x = (double)v;
	return 0;
}

/* Where the scan is: bytes before `dropped` have left the resident set. */
struct progress {
	const struct ob_file *file;
	uint64_t dropped, asked;
};

static void advance(struct progress *p, uint64_t at)
{
	if (at >= p->dropped + WINDOW) {
		ob_file_drop(p->file, p->dropped, at - p->dropped);
		p->dropped = at;
	}
	if (at + WINDOW > p->asked && p->asked < p->file->stamp.size) {
		uint64_t from = ob_max_u64(p->asked, at);
		uint64_t n = ob_min_u64(2 * WINDOW, p->file->stamp.size - from);

		ob_file_will_need(p->file, from, n);
		p->asked = from + n;
	}
}

/* In the order of the file: the meaning of rows and columns does not matter here. */
static void linearise(struct ob_view *v)
{
	if (v->row_stride < v->col_stride)
		*v = ob_view_transposed(v);
	if (v->col_stride == 1 && v->row_stride == v->cols) {
		v->cols *= v->rows;
		v->row_stride = v->cols;
		v->rows = 1;
	}
}

/* Largest bit pattern of any magnitude, or NONFINITE and above as soon as one is met. */
static uint32_t scan_view(struct progress *p, const struct ob_view *v)
{
	const uint64_t size = ob_dtype_bits(v->dtype) / 8;
	uint32_t largest = 0;
	float x[CHUNK];

	for (uint64_t r = 0; r < v->rows; r++)
		for (uint64_t c = 0; c < v->cols; c += CHUNK) {
			uint64_t n = ob_min_u64(CHUNK, v->cols - c);
			uint32_t bits;

			advance(p, v->off + (r * v->row_stride + c * v->col_stride) * size);
			ob_view_load(v, r, 1, c, n, 1.0f, x, (size_t)n);
			bits = ob_kernels()->max_abs_bits(x, (size_t)n);
			if (bits > largest)
				largest = bits;
			if (largest >= NONFINITE)
				return largest;
		}
	return largest;
}

int ob_values_scan(const struct ob_adapter_file *f, bool *zero, ob_err *e)
{
	struct progress p = { .file = f->file };

	for (size_t i = 0; i < f->list.n_tensors; i++) {
		const struct ob_stored *s = &f->list.tensor[i];
		struct ob_view v;
		uint32_t largest;

		if (!ob_dtype_is_factor(s->dtype))
			continue;
		if (ob_view_of(f, s, &v, e) != 0)
			return -1;
		linearise(&v);
		largest = scan_view(&p, &v);
		if (largest >= NONFINITE)
			return ob_fail(e, OB_NONFINITE,
				       "%s: the key \"%s\" holds a NaN or an "
				       "infinity; nothing can be baked from it",
				       f->path, OB_SHOWN(s->name));
		zero[i] = largest == 0;
	}
	ob_file_drop(f->file, p.dropped, f->file->stamp.size - p.dropped);
	return ob_file_check(f->file, e);
}
