/* SPDX-License-Identifier: Apache-2.0 */
/* The allocator: malloc and mmap with accounting, injected failures and the seal. */
#include "base/alloc.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HUGE_PAGE (2u << 20)

static _Atomic uint64_t in_use, peak, calls, sealed_calls;
static _Atomic uint64_t fail_call; /* number of the call that fails; 0: none */
static atomic_bool fail_sticky, sealed_now;
static _Atomic unsigned char poison;

/* Counts one allocation; true when no object may be that large or a test wants it to fail. */
static bool refused(size_t n)
{
	uint64_t call = atomic_fetch_add(&calls, 1) + 1;
	uint64_t fail = atomic_load(&fail_call);

	if (atomic_load(&sealed_now))
		atomic_fetch_add(&sealed_calls, 1);
	return n > PTRDIFF_MAX / 2 ||
	       (fail != 0 && (call == fail || (call > fail && atomic_load(&fail_sticky))));
}

static void count_gain(uint64_t n)
{
	uint64_t now = atomic_fetch_add(&in_use, n) + n;
	uint64_t high = atomic_load(&peak);

	while (now > high && !atomic_compare_exchange_weak(&peak, &high, now))
		;
}

static void count_loss(uint64_t n)
{
	atomic_fetch_sub(&in_use, n);
}

void *ob_alloc(size_t n)
{
	void *p = refused(n) ? NULL : calloc(1, n ? n : 1);

	if (p)
		count_gain(malloc_usable_size(p));
	return p;
}

void *ob_calloc(size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total))
		total = SIZE_MAX; /* refused */
	return ob_alloc(total);
}

void *ob_realloc(void *p, size_t n)
{
	size_t before = malloc_usable_size(p);
	void *q = refused(n) ? NULL : realloc(p, n ? n : 1);
	size_t after = q ? malloc_usable_size(q) : 0;

	if (q) {
		count_gain(after);
		count_loss(before);
	}
	if (after > before && atomic_load(&poison))
		memset((char *)q + before, atomic_load(&poison), after - before);
	return q;
}

void ob_free(void *p)
{
	count_loss(malloc_usable_size(p));
	free(p);
}

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* What a request for n bytes takes from the system. */
static size_t page_bytes(size_t n)
{
	return ob_round_up(n ? n : 1, page_size()); /* n <= PTRDIFF_MAX / 2 */
}

static void *map_aligned(size_t bytes)
{
	size_t slack = bytes >= HUGE_PAGE ? HUGE_PAGE : 0;
	char *p = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	char *start;

	if (p == MAP_FAILED)
		return NULL;
	if (!slack)
		return p;
	start = (char *)ob_round_up((uintptr_t)p, HUGE_PAGE);
	if (start > p)
		munmap(p, (size_t)(start - p));
	if (start < p + slack)
		munmap(start + bytes, (size_t)(p + slack - start));
	/* Refused where huge pages are off; small ones do as well, only slower. */
	madvise(start, bytes, MADV_HUGEPAGE);
	return start;
}

void *ob_alloc_pages(size_t n)
{
	size_t bytes;
	char *p;

	if (refused(n))
		return NULL;
	bytes = page_bytes(n);
	p = map_aligned(bytes);
	if (!p)
		return NULL;
	if (madvise(p, bytes, MADV_POPULATE_WRITE) != 0) {
		if (errno == ENOMEM) {
			munmap(p, bytes);
			return NULL;
		}
		/* An older kernel. */
		for (size_t i = 0; i < bytes; i += page_size())
			*(volatile char *)(p + i) = 0;
	}
	if (atomic_load(&poison))
		memset(p, atomic_load(&poison), bytes);
	count_gain(bytes);
	return p;
}

void ob_free_pages(void *p, size_t n)
{
	if (!p)
		return;
	munmap(p, page_bytes(n));
	count_loss(page_bytes(n));
}

struct ob_alloc_stats ob_alloc_stats(void)
{
	return (struct ob_alloc_stats){
		.in_use = atomic_load(&in_use),
		.peak = atomic_load(&peak),
		.calls = atomic_load(&calls),
	};
}

void ob_alloc_fail_at(uint64_t n, bool sticky)
{
	atomic_store(&fail_sticky, sticky);
	atomic_store(&fail_call, n ? atomic_load(&calls) + n : 0);
}

void ob_alloc_poison(unsigned char byte)
{
	atomic_store(&poison, byte);
}

void ob_alloc_seal(bool sealed)
{
	atomic_store(&sealed_now, sealed);
}

uint64_t ob_alloc_sealed_calls(void)
{
	return atomic_load(&sealed_calls);
}

/* Blocks double from small to large, so that a tiny arena stays tiny. */
#define BLOCK_MIN (4u << 10)
#define BLOCK_MAX (1u << 20)

struct ob_arena_block {
	struct ob_arena_block *next;
	size_t size, used; /* of data */
	_Alignas(16) unsigned char data[];
};

static struct ob_arena_block *block_new(struct ob_arena *a, size_t n)
{
	struct ob_arena_block *head = a->head;
	size_t total = head ? ob_min_u64(2 * (head->size + sizeof(*head)), BLOCK_MAX) : BLOCK_MIN;
	bool own = n > total - sizeof(*head); /* too large to share a block */
	struct ob_arena_block *b;

	if (own && !ob_add_u64(n, sizeof(*b), &total))
		return NULL;
	b = ob_alloc(total);
	if (!b)
		return NULL;
	b->size = total - sizeof(*b);
	if (own && head) {
		/* Behind the head, whose rest stays usable. */
		b->next = head->next;
		head->next = b;
	} else {
		b->next = head;
		a->head = b;
	}
	return b;
}

void *ob_arena_alloc(struct ob_arena *a, size_t n, ob_err *e)
{
	struct ob_arena_block *b = a->head;
	void *p;

	n = ob_round_up(ob_min_u64(ob_max_u64(n, 1), PTRDIFF_MAX), 16);
	if (!b || n > b->size - b->used)
		b = block_new(a, n);
	if (!b) {
		ob_fail_nomem(e, "arena");
		return NULL;
	}
	p = b->data + b->used;
	b->used += n;
	return p;
}

char *ob_arena_strndup(struct ob_arena *a, const char *s, size_t n, ob_err *e)
{
	char *copy = ob_arena_alloc(a, n + 1, e);

	if (copy && n)
		memcpy(copy, s, n);
	return copy;
}

char *ob_arena_printf(struct ob_arena *a, ob_err *e, const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n >= 0)
		s = ob_arena_alloc(a, (size_t)n + 1, e);
	else
		ob_fail(e, OB_INTERNAL, "a text of more than 2 GiB was asked for");
	if (!s)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(s, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return s;
}

void ob_arena_free(struct ob_arena *a)
{
	struct ob_arena_block *b = a->head;

	while (b) {
		struct ob_arena_block *next = b->next;

		ob_free(b);
		b = next;
	}
	a->head = NULL;
}

int ob_grow(void *p, size_t *cap, size_t n, size_t elem_size, ob_err *e)
{
	size_t want = *cap ? *cap : 4;
	size_t bytes;
	void *array;

	if (n < *cap)
		return 0;
	if (__builtin_mul_overflow(want, 2, &want) ||
	    __builtin_mul_overflow(want, elem_size, &bytes))
		return ob_fail_nomem(e, "array");
	/* p points to a pointer of any type: only memcpy may read it as void *. */
	memcpy(&array, p, sizeof(array));
	array = ob_realloc(array, bytes);
	if (!array)
		return ob_fail_nomem(e, "array");
	memcpy(p, &array, sizeof(array));
	*cap = want;
	return 0;
}
