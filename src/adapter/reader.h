/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers of adapter formats share. Internal to this folder. */
#ifndef OB_ADAPTER_READER_H
#define OB_ADAPTER_READER_H

#include "adapter/adapter.h"

/* A name from a file, fit for a message. Lives until the end of the enclosing block. */
#define OB_SHOWN(name) ob_printable((name), (char[256]){ 0 }, 256)
#define OB_SHOWN_SHAPE(shape) ob_shape_text((shape), (char[128]){ 0 }, 128)

extern const struct ob_adapter_reader ob_reader_peft, ob_reader_mlx;

/* Types that factors may have. */
bool ob_dtype_is_factor(enum ob_dtype t);
/* The tensor as a matrix: the first dimension by the product of the others; one row when it has
 * fewer than two. Errors name the key: OB_UNSUPPORTED for a type that holds no weights and for
 * strides that no matrix has. */
int ob_view_of(const struct ob_adapter_file *f, const struct ob_stored *s, struct ob_view *v,
	       ob_err *e);
/* The transposed matrix. */
struct ob_view ob_view_transposed(const struct ob_view *v);
/* Same values, bit for bit as float32. */
bool ob_view_equal(const struct ob_view *a, const struct ob_view *b);
/* The value of a tensor of one element. OB_CORRUPT when it has another number of them. */
int ob_stored_scalar(const struct ob_adapter_file *f, const struct ob_stored *s, double *x,
		     ob_err *e);

/* Reads every weight once, in file order, and leaves nothing of it resident. zero[i] tells whether
 * all of tensor i is zero. OB_NONFINITE naming the key with a NaN or infinity. */
int ob_values_scan(const struct ob_adapter_file *f, bool *zero, ob_err *e);

/* A result that grows; room for one change, one ignored key and one note per stored tensor. */
int ob_result_init(struct ob_reader_result *out, const struct ob_adapter_file *f, ob_err *e);
int ob_result_ignore(struct ob_reader_result *out, const struct ob_adapter_file *f, const char *key,
		     const char *reason, ob_err *e);
/* The next change, filled with module, path, param, key and n_keys = 1. NULL: out of memory. */
struct ob_change *ob_result_change(struct ob_reader_result *out, const struct ob_adapter_file *f,
				   enum ob_change_kind kind, const char *path, const char *param,
				   const char *key, ob_err *e);

/* OB_UNSUPPORTED with the family's name when the adapter is of a kind that no reader takes. */
int ob_refuse(const struct ob_adapter_file *f, ob_err *e);
/* The same for files whose container tells (before it is listed). */
int ob_refuse_container(const struct ob_file *file, ob_err *e);

#endif
