/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "base/dtype.h"

Test(dtype, names_are_found_again)
{
	for (enum ob_dtype t = 0; t < OB_N_DTYPES; t++) {
		const char *name = ob_dtype_name(t);

		cr_assert_eq(ob_dtype_by_name(name, strlen(name)), t);
		cr_assert_gt(ob_dtype_bits(t), 0);
	}
	cr_assert_eq(ob_dtype_by_name("bf16", 4), OB_N_DTYPES);
	cr_assert_eq(ob_dtype_by_name("F16X", 3), OB_F16);
	cr_assert_eq(ob_dtype_by_name("F1", 2), OB_N_DTYPES);
	cr_assert_eq(ob_dtype_by_name("", 0), OB_N_DTYPES);
}

Test(dtype, facts)
{
	cr_assert_eq(ob_dtype_bits(OB_F4), 4);
	cr_assert_eq(ob_dtype_bits(OB_F6_E3M2), 6);
	cr_assert_eq(ob_dtype_bits(OB_BOOL), 8);
	cr_assert_eq(ob_dtype_bits(OB_BF16), 16);
	cr_assert_eq(ob_dtype_bits(OB_C64), 64);
	cr_assert_str_eq(ob_dtype_torch_name(OB_BF16), "bfloat16");
	cr_assert_str_eq(ob_dtype_torch_name(OB_F8_E4M3), "float8_e4m3fn");
	cr_assert_null(ob_dtype_torch_name(OB_F6_E2M3));
	cr_assert(ob_dtype_is_float(OB_F32) && ob_dtype_is_float(OB_F16) &&
		  ob_dtype_is_float(OB_BF16));
	cr_assert_not(ob_dtype_is_float(OB_F64) || ob_dtype_is_float(OB_F8_E4M3));
}

static struct ob_shape shape(uint32_t rank, const uint64_t *dim)
{
	return (struct ob_shape){ .rank = rank, .dim = dim };
}

Test(shape, elements)
{
	uint64_t n;
	struct ob_shape scalar = { 0 };
	struct ob_shape matrix = shape(2, (uint64_t[]){ 4096, 11008 });
	struct ob_shape fits = shape(2, (uint64_t[]){ 1ull << 32, (1ull << 32) - 1 });
	struct ob_shape huge = shape(2, (uint64_t[]){ 1ull << 32, 1ull << 32 });
	struct ob_shape none = shape(2, (uint64_t[]){ 0, UINT64_MAX });

	cr_assert(ob_shape_elems(&scalar, &n) && n == 1);
	cr_assert(ob_shape_elems(&matrix, &n) && n == 45088768);
	cr_assert(ob_shape_elems(&fits, &n) && n == 0xffffffff00000000ull);
	cr_assert_not(ob_shape_elems(&huge, &n));
	cr_assert(ob_shape_elems(&none, &n) && n == 0);
}

Test(shape, equal)
{
	struct ob_shape a = shape(2, (uint64_t[]){ 2, 3 });
	struct ob_shape b = shape(2, (uint64_t[]){ 2, 3 });
	struct ob_shape c = shape(2, (uint64_t[]){ 3, 2 });
	struct ob_shape d = shape(3, (uint64_t[]){ 2, 3, 1 });

	cr_assert(ob_shape_equal(&a, &b));
	cr_assert_not(ob_shape_equal(&a, &c));
	cr_assert_not(ob_shape_equal(&a, &d));
}

Test(shape, text)
{
	char buf[32], wide[2000];
	uint64_t dim[OB_MAX_RANK];
	struct ob_shape scalar = { 0 };
	struct ob_shape matrix = shape(2, (uint64_t[]){ 4096, 11008 });
	struct ob_shape deep = shape(OB_MAX_RANK, dim);

	cr_assert_str_eq(ob_shape_text(&scalar, buf, sizeof(buf)), "[]");
	cr_assert_str_eq(ob_shape_text(&matrix, buf, sizeof(buf)), "[4096, 11008]");
	cr_assert_str_eq(ob_shape_text(&matrix, buf, 10), "[4096,...");
	for (size_t i = 0; i < OB_MAX_RANK; i++)
		dim[i] = UINT64_MAX;
	cr_assert_eq(strlen(ob_shape_text(&deep, wide, sizeof(wide))), OB_MAX_RANK * 22);
}

Test(size, parsed)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{ "1", 1 },
		{ "1000", 1000 },
		{ "5GB", 5000000000 },
		{ "5gb", 5000000000 },
		{ "5G", 5000000000 },
		{ "5 GB", 5000000000 },
		{ "5GiB", 5ull << 30 },
		{ "64MiB", 64 << 20 },
		{ "2KiB", 2048 },
		{ "7K", 7000 },
		{ "7KB", 7000 },
		{ "3M", 3000000 },
		{ "2TiB", 2ull << 40 },
		{ "2TB", 2000000000000 },
		{ "2T", 2000000000000 },
		{ "12B", 12 },
		{ "0.5GB", 500000000 },
		{ ".5KiB", 512 },
		{ "1.KiB", 1024 },
		{ "4.1GB", 4100000000 - (4.1 * 1e9 < 4.1e9) },
		{ "1.0000001KB", 1000 },
		{ "16777215TiB", 16777215ull << 40 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t n = 0;

		cr_assert_eq(ob_parse_size(cases[i].text, &n), 0, "%s", cases[i].text);
		cr_assert_eq(n, cases[i].bytes, "%s is %lu", cases[i].text, n);
	}
}

Test(size, refused)
{
	static const char *const cases[] = {
		"",
		" ",
		"B",
		"GB",
		".",
		".GB",
		"-1",
		"+1",
		"0",
		"0GB",
		"0.0001",
		"0.5B",
		"nan",
		"inf",
		"1e3",
		"0x10",
		"1..2",
		"1.2.3",
		"5 GBx",
		"5GBB",
		"5GiBB",
		"5  GB",
		"5 GB ",
		" 5",
		"5Gi",
		"5PB",
		"16777216TiB",
		"18446744073709551616",
		"99999999999999999999TB",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t n;

		cr_assert_eq(ob_parse_size(cases[i], &n), -1, "%s", cases[i]);
	}
}

Test(size, text)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 1024, "1.0 KiB" },
		{ 1536, "1.5 KiB" },
		{ 4402341478, "4.1 GiB" },
		{ (1 << 20) - 1, "1.0 MiB" },
		{ UINT64_MAX, "16.0 EiB" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char buf[16];

		cr_assert_str_eq(ob_size_text(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
	}
}
