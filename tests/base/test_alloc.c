/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"

#define MIB (1u << 20)

static uint64_t in_use(void)
{
	return ob_alloc_stats().in_use;
}

Test(alloc, counts_what_is_in_use)
{
	uint64_t before = in_use();
	char *p = ob_alloc(1000), *q = ob_calloc(10, 100);

	for (size_t i = 0; i < 1000; i++)
		cr_assert(p[i] == 0 && q[i] == 0);
	cr_assert_geq(in_use(), before + 2000);
	cr_assert_lt(in_use(), before + 2200);
	p = ob_realloc(p, 100000);
	cr_assert_geq(in_use(), before + 101000);
	p = ob_realloc(p, 10);
	cr_assert_lt(in_use(), before + 2000);
	ob_free(p);
	ob_free(q);
	ob_free(NULL);
	cr_assert_eq(in_use(), before);
	cr_assert_geq(ob_alloc_stats().peak, before + 101000);
}

Test(alloc, nothing_is_a_unique_pointer)
{
	void *p = ob_alloc(0), *q = ob_calloc(0, 8), *r = ob_realloc(NULL, 0);

	cr_assert(p && q && r && p != q && q != r);
	ob_free(p);
	ob_free(q);
	ob_free(r);
}

Test(alloc, overflow_is_refused)
{
	cr_assert_null(ob_calloc(SIZE_MAX / 2, 3));
	cr_assert_null(ob_alloc(SIZE_MAX));
	cr_assert_null(ob_alloc_pages(SIZE_MAX));
	cr_assert_null(ob_alloc_pages(SIZE_MAX / 2));
}

Test(alloc, pages)
{
	static const size_t sizes[] = { 0, 1, 4096, MIB, 2 * MIB, 5 * MIB + 1 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t before = in_use();
		char *p = ob_alloc_pages(sizes[i]);

		cr_assert_not_null(p);
		cr_assert_eq((uintptr_t)p % (sizes[i] < 2 * MIB ? 4096 : 2 * MIB), 0);
		for (size_t k = 0; k < sizes[i]; k++)
			cr_assert(p[k] == 0);
		memset(p, 1, sizes[i]);
		cr_assert_geq(in_use(), before + sizes[i]);
		ob_free_pages(p, sizes[i]);
		cr_assert_eq(in_use(), before);
	}
	ob_free_pages(NULL, 1);
}

Test(alloc, poison_is_in_all_that_is_not_promised_to_be_zero)
{
	unsigned char *p, *q;

	ob_alloc_poison(0xa5);
	p = ob_alloc(100);
	for (size_t i = 0; i < 100; i++)
		cr_assert_eq(p[i], 0);
	p = ob_realloc(p, 5000);
	cr_assert_eq(p[99], 0);
	for (size_t i = 200; i < 5000; i++)
		cr_assert_eq(p[i], 0xa5);
	q = ob_alloc_pages(3 * MIB);
	for (size_t i = 0; i < 3 * MIB; i++)
		cr_assert_eq(q[i], 0xa5);
	ob_alloc_poison(0);
	ob_free(p);
	ob_free_pages(q, 3 * MIB);
}

Test(alloc, fails_once)
{
	void *p, *q;

	ob_alloc_fail_at(2, false);
	p = ob_alloc(1);
	cr_assert_not_null(p);
	cr_assert_null(ob_alloc(1));
	q = ob_alloc(1);
	cr_assert_not_null(q);
	ob_free(p);
	ob_free(q);
}

Test(alloc, fails_from_then_on)
{
	struct ob_arena a = { 0 };
	ob_err e = { 0 };
	void *p = ob_alloc(8);

	ob_alloc_fail_at(1, true);
	cr_assert_null(ob_alloc(1));
	cr_assert_null(ob_calloc(1, 1));
	cr_assert_null(ob_realloc(p, 100000));
	cr_assert_null(ob_alloc_pages(1));
	cr_assert_null(ob_arena_alloc(&a, 1, &e));
	cr_assert_eq(e.code, OB_NOMEM);
	ob_alloc_fail_at(0, false);
	p = ob_realloc(p, 100000);
	cr_assert_not_null(p);
	ob_free(p);
}

Test(alloc, seal_counts_calls)
{
	uint64_t before = ob_alloc_sealed_calls();

	ob_free(ob_alloc(1));
	cr_assert_eq(ob_alloc_sealed_calls(), before);
	ob_alloc_seal(true);
	ob_free(ob_alloc(1));
	ob_free_pages(ob_alloc_pages(1), 1);
	ob_alloc_seal(false);
	ob_free(ob_alloc(1));
	cr_assert_eq(ob_alloc_sealed_calls(), before + 2);
}

static void *churn(void *arg)
{
	for (size_t i = 1; i < 20000; i++)
		ob_free(ob_realloc(ob_alloc(i % 97), i % 1013));
	return arg;
}

Test(alloc, threads)
{
	uint64_t before = in_use(), calls = ob_alloc_stats().calls;
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, churn, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(in_use(), before);
	cr_assert_eq(ob_alloc_stats().calls, calls + 4 * 2 * 19999);
}

Test(arena, objects_are_zero_aligned_and_apart)
{
	static unsigned char *object[3000];
	struct ob_arena a = { 0 };
	uint64_t before = in_use();

	for (size_t i = 0; i < 3000; i++) {
		object[i] = ob_arena_alloc(&a, i, NULL);
		cr_assert_not_null(object[i]);
		cr_assert_eq((uintptr_t)object[i] % 16, 0);
		for (size_t k = 0; k < i; k++)
			cr_assert(object[i][k] == 0);
		memset(object[i], (int)(i % 251), i);
	}
	for (size_t i = 0; i < 3000; i++)
		for (size_t k = 0; k < i; k++)
			cr_assert(object[i][k] == i % 251);
	/* Blocks stop growing at 1 MiB. */
	cr_assert_lt(in_use() - before, 3000 * 1500 + 2 * MIB);
	ob_arena_free(&a);
	cr_assert_eq(in_use(), before);
	cr_assert_null(a.head);
}

Test(arena, starts_small_and_shares_blocks)
{
	struct ob_arena a = { 0 };
	uint64_t before = in_use(), calls;
	char *p, *q;

	p = ob_arena_alloc(&a, 10, NULL);
	cr_assert_leq(in_use() - before, 4096 + 64);
	calls = ob_alloc_stats().calls;
	/* A large object gets a block of its own and leaves the rest of the other usable. */
	cr_assert_not_null(ob_arena_alloc(&a, 3 * MIB, NULL));
	q = ob_arena_alloc(&a, 10, NULL);
	cr_assert_eq(ob_alloc_stats().calls, calls + 1);
	cr_assert_eq(q - p, 16);
	ob_arena_free(&a);
	cr_assert_eq(in_use(), before);
}

Test(arena, too_large)
{
	struct ob_arena a = { 0 };
	ob_err e = { 0 };

	cr_assert_null(ob_arena_alloc(&a, SIZE_MAX, &e));
	cr_assert_eq(e.code, OB_NOMEM);
	ob_arena_free(&a);
}

Test(arena, strings)
{
	struct ob_arena a = { 0 };
	char *s = ob_arena_strndup(&a, "abc", 2, NULL);
	char *empty = ob_arena_strndup(&a, NULL, 0, NULL);
	char *f = ob_arena_printf(&a, NULL, "%s-%05d-of-%05d", "model", 1, 12);

	cr_assert_str_eq(s, "ab");
	cr_assert_str_eq(empty, "");
	cr_assert_str_eq(f, "model-00001-of-00012");
	ob_arena_free(&a);
}

Test(grow, doubles_and_keeps)
{
	uint32_t *array = NULL;
	size_t cap = 0;
	ob_err e = { 0 };

	for (uint32_t i = 0; i < 1000; i++) {
		cr_assert_eq(ob_grow(&array, &cap, i, sizeof(*array), &e), 0);
		cr_assert_gt(cap, i);
		array[i] = i;
	}
	for (uint32_t i = 0; i < 1000; i++)
		cr_assert_eq(array[i], i);
	ob_alloc_fail_at(1, false);
	cr_assert_eq(ob_grow(&array, &cap, cap, sizeof(*array), &e), -1);
	cr_assert_eq(e.code, OB_NOMEM);
	cr_assert_eq(array[999], 999);
	ob_free(array);
}

Test(grow, overflow)
{
	char *array = NULL;
	size_t cap = SIZE_MAX / 2 + 1;
	ob_err e = { 0 };

	cr_assert_eq(ob_grow(&array, &cap, cap, 1, &e), -1);
	cr_assert_eq(e.code, OB_NOMEM);
	cap = SIZE_MAX / 4;
	cr_assert_eq(ob_grow(&array, &cap, cap, 64, &e), -1);
	cr_assert_null(array);
}
