/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "oom.h"

#define N 20000

static char names[N][24];

static void make_names(void)
{
	for (int i = 0; i < N; i++)
		snprintf(names[i], sizeof(names[i]), "model.layers.%d.w", i);
}

Test(map, finds_what_was_added)
{
	struct ob_map m = { 0 };
	uint64_t before = ob_alloc_stats().in_use;
	uint32_t v;

	make_names();
	cr_assert_not(ob_map_find(&m, "x", 1, &v));
	for (uint32_t i = 0; i < N; i++) {
		cr_assert_eq(ob_map_add(&m, names[i], strlen(names[i]), i, NULL), 0);
		cr_assert_leq(m.n * 10, m.cap * 7);
	}
	cr_assert_eq(m.n, N);
	for (uint32_t i = 0; i < N; i++) {
		cr_assert(ob_map_find(&m, names[i], strlen(names[i]), &v));
		cr_assert_eq(v, i);
		cr_assert_not(ob_map_find(&m, names[i], strlen(names[i]) - 1, &v));
	}
	ob_map_free(&m);
	cr_assert_eq(ob_alloc_stats().in_use, before);
	cr_assert_not(ob_map_find(&m, "x", 1, &v));
}

Test(map, first_value_stays)
{
	struct ob_map m = { 0 };
	uint32_t v;

	cr_assert_eq(ob_map_add(&m, "a", 1, 1, NULL), 0);
	cr_assert_eq(ob_map_add(&m, "a", 1, 2, NULL), 1);
	cr_assert(ob_map_find(&m, "a", 1, &v) && v == 1);
	cr_assert_eq(m.n, 1);
	ob_map_free(&m);
}

Test(map, keys_are_bytes)
{
	struct ob_map m = { 0 };
	uint32_t v;

	cr_assert_eq(ob_map_add(&m, "", 0, 1, NULL), 0);
	cr_assert_eq(ob_map_add(&m, "a\0b", 3, 2, NULL), 0);
	cr_assert_eq(ob_map_add(&m, "a\0c", 3, 3, NULL), 0);
	cr_assert(ob_map_find(&m, "", 0, &v) && v == 1);
	cr_assert(ob_map_find(&m, "a\0c", 3, &v) && v == 3);
	cr_assert_not(ob_map_find(&m, "a", 1, &v));
	ob_map_free(&m);
}

static int fill(void *ctx, ob_err *e)
{
	struct ob_map m = { 0 };
	int rc = 0;

	(void)ctx;
	for (uint32_t i = 0; i < 1000 && rc == 0; i++)
		rc = ob_map_add(&m, names[i], strlen(names[i]), i, e);
	ob_map_free(&m);
	return rc;
}

Test(map, every_allocation_fails)
{
	make_names();
	cr_assert_eq(oom_sweep(fill, NULL), 8); /* 16 slots, doubled seven times */
}

Test(map, stays_usable_when_growing_fails)
{
	struct ob_map m = { 0 };
	ob_err e = { 0 };
	uint32_t i, v;

	make_names();
	cr_assert_eq(ob_map_add(&m, names[0], strlen(names[0]), 0, NULL), 0);
	ob_alloc_fail_at(1, true);
	for (i = 1; ob_map_add(&m, names[i], strlen(names[i]), i, &e) == 0; i++)
		;
	cr_assert_eq(e.code, OB_NOMEM);
	ob_alloc_fail_at(0, false);
	cr_assert_eq(m.n, i);
	while (i-- > 0)
		cr_assert(ob_map_find(&m, names[i], strlen(names[i]), &v) && v == i);
	ob_map_free(&m);
}

Test(hash, xxh3)
{
	/* Published value of XXH3_64bits for the empty input. */
	cr_assert_eq(ob_hash64("", 0, 0), 0x2d06800538d394c2ull);
	cr_assert_neq(ob_hash64("a", 1, 0), ob_hash64("a", 1, 1));
	cr_assert_neq(ob_hash64("a", 1, 0), ob_hash64("b", 1, 0));
}
