/* SPDX-License-Identifier: Apache-2.0 */
/* Choice of the table, and loading, storing and rounding of stored types. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

static uint32_t bits_of(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static float of_bits(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

Test(kernels, environment_lowers_the_table)
{
	setenv("OOCBAKE_ISA", "ref", 1);
	cr_expect_str_eq(ob_kernels()->name, "ref");
	/* The first choice stays. */
	unsetenv("OOCBAKE_ISA");
	cr_expect_str_eq(ob_kernels()->name, "ref");
}

Test(kernels, widest_table)
{
	unsetenv("OOCBAKE_ISA");
	cr_expect_str_eq(ob_kernels()->name, ob_isa_name(ob_cpu_isa()));
	cr_expect_eq(ob_kernels(), ob_kernels_of(ob_cpu_isa()));
}

#define EXPECT_LOADED(type, dtype, ...)                                                            \
	do {                                                                                       \
		const type src[] = { __VA_ARGS__ };                                                \
		const size_t n = sizeof(src) / sizeof(*src);                                       \
		uint8_t moved[sizeof(src) + 1];                                                    \
		float dst[sizeof(src) / sizeof(*src)];                                             \
                                                                                                   \
		memcpy(moved + 1, src, sizeof(src));                                               \
		cr_expect(ob_load_f32(dst, moved + 1, dtype, n, 1));                               \
		for (size_t i = 0; i < n; i++)                                                     \
			cr_expect(dst[i] == (float)src[i], #dtype " element %zu is %a", i,         \
				  (double)dst[i]);                                                 \
		cr_expect(ob_load_f32(dst, moved + 1 + sizeof(src) - sizeof(type), dtype, n, -1)); \
		for (size_t i = 0; i < n; i++)                                                     \
			cr_expect(dst[n - 1 - i] == (float)src[i], #dtype " backwards");           \
	} while (0)

Test(kernels, load_numbers)
{
	EXPECT_LOADED(float, OB_F32, 0, -1.5f, FLT_MAX, FLT_TRUE_MIN, INFINITY);
	EXPECT_LOADED(double, OB_F64, 0.1, -1e-46, 3.4028235677973366e38, 1 + 0x1p-24, 1 + 0x3p-24);
	EXPECT_LOADED(int64_t, OB_I64, INT64_MIN, -1, 16777217, 16777219, INT64_MAX);
	EXPECT_LOADED(uint64_t, OB_U64, 0, 16777217, 0x8000008000000001u, UINT64_MAX);
	EXPECT_LOADED(int32_t, OB_I32, INT32_MIN, -1, 16777217, 16777219, INT32_MAX);
	EXPECT_LOADED(uint32_t, OB_U32, 0, 16777217, 16777219, UINT32_MAX);
	EXPECT_LOADED(int16_t, OB_I16, INT16_MIN, -1, INT16_MAX);
	EXPECT_LOADED(uint16_t, OB_U16, 0, 0x8000, UINT16_MAX);
	EXPECT_LOADED(int8_t, OB_I8, INT8_MIN, -1, INT8_MAX);
	EXPECT_LOADED(uint8_t, OB_U8, 0, 128, UINT8_MAX);
}

Test(kernels, load_bool)
{
	const uint8_t src[] = { 0, 1, 255 };
	float dst[3];

	cr_expect(ob_load_f32(dst, src, OB_BOOL, 3, 1));
	cr_expect(dst[0] == 0 && dst[1] == 1 && dst[2] == 1);
}

Test(kernels, load_halves_with_stride)
{
	enum { N = 700, STRIDE = 3 };
	uint8_t src[2 * N * STRIDE + 1];
	float bf16[N], f16[N];

	for (unsigned i = 0; i < N * STRIDE; i++) {
		const uint16_t h = (uint16_t)(i * 31);

		memcpy(src + 1 + 2 * i, &h, sizeof(h));
	}
	cr_expect(ob_load_f32(bf16, src + 1, OB_BF16, N, STRIDE));
	cr_expect(ob_load_f32(f16, src + 1, OB_F16, N, STRIDE));
	for (unsigned i = 0; i < N; i++) {
		const uint16_t h = (uint16_t)(i * STRIDE * 31);
		float x, y;

		ob_kernels_of(OB_ISA_REF)->bf16_to_f32(&x, &h, 1);
		ob_kernels_of(OB_ISA_REF)->f16_to_f32(&y, &h, 1);
		cr_assert(bits_of(bf16[i]) == bits_of(x) && bits_of(f16[i]) == bits_of(y),
			  "element %u", i);
	}
	/* A stride of 0 repeats one element. */
	cr_expect(ob_load_f32(f16, src + 1 + 2, OB_F16, N, 0));
	cr_expect(f16[0] == f16[N - 1] && f16[0] == 31 * 0x1p-24f);
}

Test(kernels, load_8_bit_floats)
{
	static const struct {
		enum ob_dtype type;
		uint8_t code;
		float value;
	} cases[] = {
		{ OB_F8_E4M3, 0x00, 0 },
		{ OB_F8_E4M3, 0x01, 0x1p-9f },
		{ OB_F8_E4M3, 0x08, 0x1p-6f },
		{ OB_F8_E4M3, 0xbc, -1.5f },
		{ OB_F8_E4M3, 0x7e, 448 },
		{ OB_F8_E5M2, 0x01, 0x1p-16f },
		{ OB_F8_E5M2, 0x04, 0x1p-14f },
		{ OB_F8_E5M2, 0xbe, -1.5f },
		{ OB_F8_E5M2, 0x7b, 57344 },
		{ OB_F8_E5M2, 0xfc, -INFINITY },
		{ OB_F8_E4M3FNUZ, 0x01, 0x1p-10f },
		{ OB_F8_E4M3FNUZ, 0x08, 0x1p-7f },
		{ OB_F8_E4M3FNUZ, 0xc4, -1.5f },
		{ OB_F8_E4M3FNUZ, 0x7f, 240 },
		{ OB_F8_E5M2FNUZ, 0x01, 0x1p-17f },
		{ OB_F8_E5M2FNUZ, 0x04, 0x1p-15f },
		{ OB_F8_E5M2FNUZ, 0xc2, -1.5f },
		{ OB_F8_E5M2FNUZ, 0x7f, 57344 },
		{ OB_F8_E8M0, 0x00, 0x1p-127f },
		{ OB_F8_E8M0, 0x7f, 1 },
		{ OB_F8_E8M0, 0xfe, 0x1p127f },
	};
	float x;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		cr_expect(ob_load_f32(&x, &cases[i].code, cases[i].type, 1, 1));
		cr_expect(x == cases[i].value, "%s code %02x is %a", ob_dtype_name(cases[i].type),
			  cases[i].code, (double)x);
	}
}

Test(kernels, nan_and_order_of_8_bit_floats)
{
	static const struct {
		enum ob_dtype type;
		unsigned first_nan,
			last_nan;  /* of the codes 0 to 0x7f, or 0xff where there is no sign */
		uint32_t negative; /* what 0x80 is */
	} kinds[] = {
		{ OB_F8_E4M3, 0x7f, 0x7f, 0x80000000 },
		{ OB_F8_E5M2, 0x7d, 0x7f, 0x80000000 },
		{ OB_F8_E4M3FNUZ, 0x80, 0x80, 0x7fc00000 },
		{ OB_F8_E5M2FNUZ, 0x80, 0x80, 0x7fc00000 },
		{ OB_F8_E8M0, 0xff, 0xff, 0x3f800000 + (1 << 23) },
	};
	uint8_t codes[256];
	float x[256];

	for (unsigned i = 0; i < 256; i++)
		codes[i] = (uint8_t)i;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		const bool has_sign = kinds[i].type != OB_F8_E8M0;

		cr_expect(ob_load_f32(x, codes, kinds[i].type, 256, 1));
		for (unsigned j = 1; j < kinds[i].first_nan; j++)
			cr_assert(x[j] > x[j - 1], "%s %02x", ob_dtype_name(kinds[i].type), j);
		for (unsigned j = kinds[i].first_nan; j <= kinds[i].last_nan; j++)
			cr_assert(isnan(x[j]), "%s %02x", ob_dtype_name(kinds[i].type), j);
		for (unsigned j = 1; has_sign && j < 128; j++)
			cr_assert_eq(bits_of(x[j | 0x80]), bits_of(x[j]) ^ 0x80000000);
		cr_expect_eq(bits_of(x[0x80]), kinds[i].negative);
	}
}

Test(kernels, types_without_a_float_value)
{
	static const enum ob_dtype types[] = { OB_F4, OB_F6_E2M3, OB_F6_E3M2, OB_C64 };
	const uint8_t src[32] = { 0 };
	float x[2];

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		cr_expect_not(ob_load_f32(x, src, types[i], 2, 1));
		cr_expect_not(ob_load_f32(x, src, types[i], 2, 2));
	}
}

Test(kernels, overflow_limit_is_where_storing_overflows)
{
	static const enum ob_dtype types[] = { OB_F32, OB_F16, OB_BF16 };

	for (size_t i = 0; i < 3; i++) {
		const uint32_t limit = ob_overflow_bits(types[i]);
		float x[] = { of_bits(limit - 1), of_bits(limit) }, y[2];
		uint8_t stored[8];

		ob_store_f32(stored, x, types[i], 2);
		cr_expect(ob_load_f32(y, stored, types[i], 2, 1));
		cr_expect(isfinite(y[0]) && isinf(y[1]), "%s", ob_dtype_name(types[i]));
		ob_round_to(x, types[i], 2);
		cr_expect_arr_eq(x, y, sizeof(y));
	}
}
