/* SPDX-License-Identifier: Apache-2.0 */
/* Element types of stored tensors, and shapes. */
#ifndef OB_BASE_DTYPE_H
#define OB_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ob_dtype {
	OB_BOOL,
	OB_F4,
	OB_F6_E2M3,
	OB_F6_E3M2,
	OB_U8,
	OB_I8,
	OB_F8_E5M2,
	OB_F8_E4M3,
	OB_F8_E8M0,
	OB_F8_E4M3FNUZ,
	OB_F8_E5M2FNUZ,
	OB_I16,
	OB_U16,
	OB_F16,
	OB_BF16,
	OB_I32,
	OB_U32,
	OB_F32,
	OB_C64,
	OB_F64,
	OB_I64,
	OB_U64,
	OB_N_DTYPES,
};

/* Bits of one element. */
unsigned ob_dtype_bits(enum ob_dtype t);
/* Spelling in safetensors headers, e.g. "BF16". */
const char *ob_dtype_name(enum ob_dtype t);
/* By that spelling; OB_N_DTYPES when unknown. */
enum ob_dtype ob_dtype_by_name(const char *name, size_t len);
/* F32, F16 or BF16: the types that bakes compute on and --dtype may name. */
bool ob_dtype_is_float(enum ob_dtype t);
/* torch's name ("bfloat16"), NULL where it has none. */
const char *ob_dtype_torch_name(enum ob_dtype t);

#define OB_MAX_RANK 64 /* safetensors readers take more than any framework makes */

/* Dimensions, slowest first. `dim` belongs to an arena. Rank 0 is a scalar: one element. */
struct ob_shape {
	uint32_t rank;
	const uint64_t *dim;
};

/* Product of the dimensions; false on overflow. */
bool ob_shape_elems(const struct ob_shape *s, uint64_t *n);
bool ob_shape_equal(const struct ob_shape *a, const struct ob_shape *b);
/* "[4096, 11008]" into buf, truncated with "..." when it does not fit; returns buf. */
char *ob_shape_text(const struct ob_shape *s, char *buf, size_t size);

/* "5GB", "5GiB", "64MiB", "1000" (decimal and binary units, fractions allowed) to bytes.
 * Returns 0, or -1 when it is no size, is 0, or does not fit. */
int ob_parse_size(const char *text, uint64_t *bytes);
/* "4.1 GiB" into buf; returns buf. */
char *ob_size_text(uint64_t bytes, char *buf, size_t size);

#endif
