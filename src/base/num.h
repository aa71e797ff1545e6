/* SPDX-License-Identifier: Apache-2.0 */
/* Checked arithmetic: the only arithmetic allowed on sizes that come from a file. */
#ifndef OB_BASE_NUM_H
#define OB_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* true when the result fits and is stored. */
static inline bool ob_add_u64(uint64_t a, uint64_t b, uint64_t *r)
{
	return !__builtin_add_overflow(a, b, r);
}

static inline bool ob_mul_u64(uint64_t a, uint64_t b, uint64_t *r)
{
	return !__builtin_mul_overflow(a, b, r);
}

/* Does [off, off + len) lie inside a file of `size` bytes? */
static inline bool ob_in_file(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* For values that are known to be small: no check. `to` is a power of two. */
static inline uint64_t ob_round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static inline uint64_t ob_round_down(uint64_t n, uint64_t to)
{
	return n & ~(to - 1);
}

static inline uint64_t ob_div_up(uint64_t n, uint64_t d)
{
	return n / d + (n % d != 0);
}

static inline uint64_t ob_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t ob_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
