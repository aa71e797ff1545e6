/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "base/num.h"

Test(num, checked)
{
	uint64_t r;

	cr_assert(ob_add_u64(1, UINT64_MAX - 1, &r));
	cr_assert_eq(r, UINT64_MAX);
	cr_assert_not(ob_add_u64(1, UINT64_MAX, &r));
	cr_assert(ob_mul_u64(1ull << 32, (1ull << 32) - 1, &r));
	cr_assert_eq(r, 0xffffffff00000000ull);
	cr_assert_not(ob_mul_u64(1ull << 32, 1ull << 32, &r));
}

Test(num, in_file)
{
	cr_assert(ob_in_file(0, 0, 0));
	cr_assert(ob_in_file(4, 6, 10));
	cr_assert_not(ob_in_file(4, 7, 10));
	cr_assert_not(ob_in_file(11, 0, 10));
	cr_assert_not(ob_in_file(UINT64_MAX, 2, 10));
	cr_assert_not(ob_in_file(2, UINT64_MAX, 10));
}

Test(num, rounding)
{
	cr_assert_eq(ob_round_up(0, 8), 0);
	cr_assert_eq(ob_round_up(1, 8), 8);
	cr_assert_eq(ob_round_up(8, 8), 8);
	cr_assert_eq(ob_round_down(15, 8), 8);
	cr_assert_eq(ob_div_up(0, 3), 0);
	cr_assert_eq(ob_div_up(7, 3), 3);
	cr_assert_eq(ob_div_up(UINT64_MAX, 1), UINT64_MAX);
	cr_assert_eq(ob_min_u64(1, 2), 1);
	cr_assert_eq(ob_max_u64(1, 2), 2);
}
