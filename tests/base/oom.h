/* SPDX-License-Identifier: Apache-2.0 */
/* Fails every allocation of a function in turn: each must end in OB_NOMEM and without a leak. */
#ifndef OB_TESTS_OOM_H
#define OB_TESTS_OOM_H

#include <criterion/criterion.h>

#include "base/alloc.h"

/* Does its work and frees its results; 0, or -1 with *e filled. */
typedef int (*oom_step)(void *ctx, ob_err *e);

/* Returns how many allocations the step makes. */
static inline uint64_t oom_sweep(oom_step step, void *ctx)
{
	for (uint64_t n = 1;; n++) {
		struct ob_alloc_stats before = ob_alloc_stats(), after;
		ob_err e = { 0 };
		int rc;

		ob_alloc_fail_at(n, false);
		rc = step(ctx, &e);
		ob_alloc_fail_at(0, false);
		after = ob_alloc_stats();
		cr_assert_eq(after.in_use, before.in_use, "leak when allocation %lu fails", n);
		if (after.calls - before.calls < n) {
			cr_assert_eq(rc, 0, "%s", e.msg);
			return n - 1;
		}
		cr_assert_eq(rc, -1, "failure of allocation %lu was hidden", n);
		cr_assert_eq(e.code, OB_NOMEM, "%s", e.msg);
	}
}

#endif
