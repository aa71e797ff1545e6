/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share. An input begins with two bytes, little-endian: in the low 15 bits
 * the number of the allocation that fails (0: none), in the highest one whether all after it fail
 * too. The rest is data, for the target's fuzz_data().
 */
#ifndef OB_TESTS_FUZZ_H
#define OB_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/err.h"

/* Nothing that a parser does to an input of some kilobytes takes more. */
#define FUZZ_MEMORY_MAX (64u << 20)

static void fuzz_data(const char *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_require(bool holds)
{
	if (!holds)
		abort();
}

/* ---- failing allocations ------------------------------------------------------------------- */

static struct {
	uint64_t number; /* 0: none */
	bool sticky;
	uint64_t calls; /* when it was armed */
} fuzz_fail;

/* The code under test begins... */
static inline void fuzz_begin(void)
{
	fuzz_fail.calls = ob_alloc_stats().calls;
	ob_alloc_fail_at(fuzz_fail.number, fuzz_fail.sticky);
}

/* ...and is over with this result. True when it may be looked at further: it succeeded, or it
 * failed for another reason than memory. */
static inline bool fuzz_end(int rc, const ob_err *e)
{
	bool failed = fuzz_fail.number &&
		      ob_alloc_stats().calls - fuzz_fail.calls >= fuzz_fail.number;

	ob_alloc_fail_at(0, false);
	fuzz_require((rc >= 0) == (e->code == OB_OK));
	fuzz_require((e->code == OB_NOMEM) == failed && e->code != OB_INTERNAL);
	fuzz_require(rc >= 0 || (e->msg[0] && strlen(e->msg) < sizeof(e->msg)));
	return !failed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t in_use = ob_alloc_stats().in_use;
	uint8_t *copy;

	if (size < 2)
		return 0;
	fuzz_fail.number = data[0] | (data[1] & 0x7fu) << 8;
	fuzz_fail.sticky = data[1] & 0x80;
	/* A block of its own, for alignment and so that a sanitizer sees a byte too few. */
	copy = malloc(size - 2);
	fuzz_require(copy || size == 2);
	if (size > 2)
		memcpy(copy, data + 2, size - 2);
	fuzz_data((const char *)copy, size - 2);
	free(copy);
	fuzz_require(ob_alloc_stats().in_use == in_use);
	fuzz_require(ob_alloc_stats().peak <= FUZZ_MEMORY_MAX);
	return 0;
}

/* ---- a text that comes in pieces ----------------------------------------------------------- */

struct fuzz_source {
	const char *p;
	size_t left, piece; /* at most so many bytes at once */
};

/* An ob_jp_read. */
static inline long fuzz_give(void *ctx, char *buf, size_t n, ob_err *e)
{
	struct fuzz_source *s = ctx;

	(void)e;
	n = n < s->piece ? n : s->piece;
	n = n < s->left ? n : s->left;
	if (n)
		memcpy(buf, s->p, n);
	s->p += n;
	s->left -= n;
	return (long)n;
}

#endif
