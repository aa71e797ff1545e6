/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

Test(err, first_error_stays)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_fail(&e, OB_CORRUPT, "a %d", 1), -1);
	cr_assert_eq(ob_fail(&e, OB_IO, "b"), -1);
	cr_assert_eq(ob_fail_sys(&e, OB_IO, EIO, "c"), -1);
	cr_assert_eq(e.code, OB_CORRUPT);
	cr_assert_eq(e.sys, 0);
	cr_assert_str_eq(e.msg, "a 1");
	cr_assert_eq(ob_fail(NULL, OB_IO, "b"), -1);
	cr_assert_eq(ob_fail_sys(NULL, OB_IO, EIO, "b"), -1);
}

Test(err, system_calls)
{
	static const struct {
		int sys;
		enum ob_code code;
	} cases[] = { { EIO, OB_IO },
		      { ENOSPC, OB_NOSPC },
		      { EDQUOT, OB_NOSPC },
		      { EFBIG, OB_NOSPC },
		      { ENOMEM, OB_NOMEM } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ob_err e = { 0 };
		char want[200];

		ob_fail_sys(&e, OB_IO, cases[i].sys, "writing %s", "x");
		snprintf(want, sizeof(want), "writing x: %s", strerror(cases[i].sys));
		cr_assert_eq(e.code, cases[i].code);
		cr_assert_eq(e.sys, cases[i].sys);
		cr_assert_str_eq(e.msg, want);
	}
}

Test(err, nomem)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_fail_nomem(&e, "plan"), -1);
	cr_assert_eq(e.code, OB_NOMEM);
	cr_assert_str_eq(e.msg, "out of memory (plan)");
}

Test(err, long_messages_are_cut)
{
	static char text[3000];
	ob_err e = { 0 };

	memset(text, 'x', sizeof(text) - 1);
	ob_fail_sys(&e, OB_IO, EIO, "%s", text);
	cr_assert_eq(strlen(e.msg), sizeof(e.msg) - 1);
	cr_assert_str_eq(e.msg + sizeof(e.msg) - 5, "x...");
}

Test(err, every_code_has_name_and_status)
{
	for (enum ob_code c = OB_OK; c <= OB_INTERNAL; c++)
		cr_assert_not_null(ob_code_name(c));
	cr_assert_str_eq(ob_code_name(OB_CORRUPT), "corrupt");
	cr_assert_eq(ob_exit_status(OB_OK), 0);
	cr_assert_eq(ob_exit_status(OB_IO), 1);
	cr_assert_eq(ob_exit_status(OB_NOMEM), 1);
	cr_assert_eq(ob_exit_status(OB_CHANGED), 1);
	cr_assert_eq(ob_exit_status(OB_USAGE), 2);
	cr_assert_eq(ob_exit_status(OB_CORRUPT), 3);
	cr_assert_eq(ob_exit_status(OB_MISMATCH), 3);
	cr_assert_eq(ob_exit_status(OB_UNSAFE), 3);
	cr_assert_eq(ob_exit_status(OB_BUDGET), 4);
	cr_assert_eq(ob_exit_status(OB_VERIFY), 5);
	cr_assert_eq(ob_exit_status(OB_EXISTS), 6);
	cr_assert_eq(ob_exit_status(OB_LOCKED), 6);
}
