/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Edits: what adapters do to one tensor, as data, and the arithmetic that applies them to a
 * rectangle of it in float32. The engine knows nothing else of adapters.
 *
 * A tensor with edits is a matrix of rows x cols (row-major, flat). All additive edits are summed
 * in float32 before they are added to the weight, once; replacements come where they stand in the
 * list.
 */
#ifndef OB_ADAPTER_EDIT_H
#define OB_ADAPTER_EDIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"
#include "io/file.h"

/* A stored matrix, read through the map of its file; strides in elements, so that a transposed
 * factor is a view with its strides exchanged. */
struct ob_view {
	const struct ob_file *file;
	uint64_t off; /* of element [0,0] in the file */
	enum ob_dtype dtype;
	uint64_t rows, cols;
	uint64_t row_stride, col_stride;
};

enum ob_edit_kind {
	OB_EDIT_LOWRANK,      /* W[row0.., col0..] += coeff * B A; b: [n_rows, r], a: [r, n_cols] */
	OB_EDIT_ADD,	      /* W[row0.., col0..] += coeff * b; b is [n_rows, n_cols] */
	OB_EDIT_REPLACE,      /* W = b */
	OB_EDIT_REPLACE_ROWS, /* W[index[j], :] = b[j, :] */
};

struct ob_edit {
	enum ob_edit_kind kind;
	uint32_t adapter;      /* which one, for reports */
	const char *key;       /* the adapter's module path, for messages */
	float coeff;	       /* user scale x alpha / rank..., computed in double, rounded once */
	uint64_t row0, n_rows; /* window of the target */
	uint64_t col0, n_cols;
	struct ob_view a, b;
	const uint64_t *index; /* REPLACE_ROWS: n_rows row numbers, any order, no duplicates */
};

/* A rectangle of the target; w[r * ld + c] is element (row + r, col + c). */
struct ob_rect {
	uint64_t row, col;
	uint32_t rows, cols;
};

/* Limits of a rectangle that ob_edits_apply is given. */
#define OB_RECT_ROWS 256u
#define OB_RECT_COLS 2048u
#define OB_RECT_ELEMS (256u * 1024u)
#define OB_PANEL_COLS 1024u /* gemm works on this many columns at a time */

/* Floats of scratch that ob_edits_apply needs for any rectangle within the limits. */
size_t ob_edit_scratch_floats(void);

/* Applies edits in list order to w (float32). drops_factors: the pages of factors leave the resident set
 * at once; else they stay until ob_edits_drop. Re-entrant; no allocation. The result of an element does
 * not depend on the rectangle it was computed in. */
void ob_edits_apply(const struct ob_edit *edit, size_t n, struct ob_rect at, bool drops_factors,
		    float *w, size_t ld, float *scratch);

/* Bytes of all factors in their files; asking for them ahead; letting their pages go. */
uint64_t ob_edits_bytes(const struct ob_edit *edit, size_t n);
void ob_edits_will_need(const struct ob_edit *edit, size_t n);
void ob_edits_drop(const struct ob_edit *edit, size_t n);

/* Loads view rows [r, r+nr) x cols [c, c+nc) as float32 to dst[i * ld + j], times coeff. */
void ob_view_load(const struct ob_view *v, uint64_t r, uint64_t nr, uint64_t c, uint64_t nc,
		  float coeff, float *dst, size_t ld);
/* Bytes of file that the view spans. */
uint64_t ob_view_bytes(const struct ob_view *v);

#endif
