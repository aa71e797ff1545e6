/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of a call that takes `e`, the error that these macros give it. */
#ifndef OB_TESTS_MODEL_OUTCOME_H
#define OB_TESTS_MODEL_OUTCOME_H

#include <criterion/criterion.h>
#include <string.h>

#include "base/err.h"

#define works(call)                                  \
	do {                                         \
		ob_err e_ = { 0 }, *e = &e_;         \
                                                     \
		cr_assert_eq(call, 0, "%s", e->msg); \
	} while (0)

/* It fails with this code, and its message has the word. */
#define fails(call, want, word)                                                                 \
	do {                                                                                    \
		ob_err e_ = { 0 }, *e = &e_;                                                    \
                                                                                                \
		cr_assert_eq(call, -1);                                                         \
		cr_assert_eq(e->code, want, "%s: %s", ob_code_name(e->code), e->msg);           \
		cr_assert_not_null(strstr(e->msg, word), "\"%s\" has no \"%s\"", e->msg, word); \
	} while (0)

#endif
