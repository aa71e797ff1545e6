/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only allocator: counts what is in use, can be told to fail, and can be sealed.
 *
 * All heap memory of the program (cJSON and zlib included) comes from here, so that the memory
 * promise can be checked and every allocation can be failed by a test. Thread-safe.
 */
#ifndef OB_BASE_ALLOC_H
#define OB_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Zeroed memory, or NULL. n == 0 gives a unique pointer. */
void *ob_alloc(size_t n);
/* n elements of size bytes, checked for overflow; zeroed. */
void *ob_calloc(size_t n, size_t size);
/* Grown bytes are not zeroed. NULL leaves p as it is. */
void *ob_realloc(void *p, size_t n);
void ob_free(void *p);

/* Whole pages straight from the system, with no promise of what is in them; huge pages asked for
 * when n >= 2 MiB, every page faulted in before it returns. Counted like ob_alloc. Aligned to 2 MiB
 * when n >= 2 MiB. */
void *ob_alloc_pages(size_t n);
void ob_free_pages(void *p, size_t n);

struct ob_alloc_stats {
	uint64_t in_use; /* bytes */
	uint64_t peak;	 /* bytes, since start */
	uint64_t calls;	 /* allocations so far, failed ones included */
};
struct ob_alloc_stats ob_alloc_stats(void);

/* Tests: the n-th allocation from now (1 = next) returns NULL; sticky: all after it too. 0: off. */
void ob_alloc_fail_at(uint64_t n, bool sticky);
/* Tests: all memory that is not promised to be zero begins with this byte. */
void ob_alloc_poison(unsigned char byte);

/* While sealed an allocation is counted as a defect (see ob_alloc_sealed_calls). The engine seals
 * before the first read. */
void ob_alloc_seal(bool sealed);
uint64_t ob_alloc_sealed_calls(void);

/*
 * Arena: many small objects that are freed together. Not thread-safe.
 */
struct ob_arena {
	struct ob_arena_block *head;
};
void *ob_arena_alloc(struct ob_arena *a, size_t n, ob_err *e); /* zeroed, 16-byte aligned */
char *ob_arena_strndup(struct ob_arena *a, const char *s, size_t n, ob_err *e);
char *ob_arena_printf(struct ob_arena *a, ob_err *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void ob_arena_free(struct ob_arena *a);

/* Makes room for one more element in a growing array: *p has *cap elements of which n are used.
 * Returns 0, or -1 with *e filled and the array unchanged. */
int ob_grow(void *p, size_t *cap, size_t n, size_t elem_size, ob_err *e);

#endif
