/* SPDX-License-Identifier: Apache-2.0 */
/* Names and sizes of element types, shapes, and sizes as users write them. */
#include "base/dtype.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/num.h"
#include "base/util.h"

static const struct {
	const char *name, *torch;
	unsigned bits;
} types[OB_N_DTYPES] = {
	[OB_BOOL] = { "BOOL", "bool", 8 },
	[OB_F4] = { "F4", "float4_e2m1fn_x2", 4 },
	[OB_F6_E2M3] = { "F6_E2M3", NULL, 6 },
	[OB_F6_E3M2] = { "F6_E3M2", NULL, 6 },
	[OB_U8] = { "U8", "uint8", 8 },
	[OB_I8] = { "I8", "int8", 8 },
	[OB_F8_E5M2] = { "F8_E5M2", "float8_e5m2", 8 },
	[OB_F8_E4M3] = { "F8_E4M3", "float8_e4m3fn", 8 },
	[OB_F8_E8M0] = { "F8_E8M0", "float8_e8m0fnu", 8 },
	[OB_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", "float8_e4m3fnuz", 8 },
	[OB_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", "float8_e5m2fnuz", 8 },
	[OB_I16] = { "I16", "int16", 16 },
	[OB_U16] = { "U16", "uint16", 16 },
	[OB_F16] = { "F16", "float16", 16 },
	[OB_BF16] = { "BF16", "bfloat16", 16 },
	[OB_I32] = { "I32", "int32", 32 },
	[OB_U32] = { "U32", "uint32", 32 },
	[OB_F32] = { "F32", "float32", 32 },
	[OB_C64] = { "C64", "complex64", 64 },
	[OB_F64] = { "F64", "float64", 64 },
	[OB_I64] = { "I64", "int64", 64 },
	[OB_U64] = { "U64", "uint64", 64 },
};

unsigned ob_dtype_bits(enum ob_dtype t)
{
	return types[t].bits;
}

const char *ob_dtype_name(enum ob_dtype t)
{
	return types[t].name;
}

enum ob_dtype ob_dtype_by_name(const char *name, size_t len)
{
	enum ob_dtype t = 0;

	while (t < OB_N_DTYPES &&
	       (strlen(types[t].name) != len || memcmp(types[t].name, name, len) != 0))
		t++;
	return t;
}

bool ob_dtype_is_float(enum ob_dtype t)
{
	return t == OB_F32 || t == OB_F16 || t == OB_BF16;
}

const char *ob_dtype_torch_name(enum ob_dtype t)
{
	return types[t].torch;
}

bool ob_shape_elems(const struct ob_shape *s, uint64_t *n)
{
	uint64_t product = 1;

	for (uint32_t i = 0; i < s->rank; i++)
		if (!ob_mul_u64(product, s->dim[i], &product))
			return false;
	*n = product;
	return true;
}

bool ob_shape_equal(const struct ob_shape *a, const struct ob_shape *b)
{
	if (a->rank != b->rank)
		return false;
	for (uint32_t i = 0; i < a->rank; i++)
		if (a->dim[i] != b->dim[i])
			return false;
	return true;
}

char *ob_shape_text(const struct ob_shape *s, char *buf, size_t size)
{
	char text[OB_MAX_RANK * 22 + 3] = "["; /* 20 digits and ", " each */
	size_t n = 1;

	for (uint32_t i = 0; i < s->rank && i < OB_MAX_RANK; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%llu", i ? ", " : "",
				      (unsigned long long)s->dim[i]);
	text[n] = ']';
	text[n + 1] = '\0';
	return ob_printable(text, buf, size);
}

/* Digits with at most one point, at least one digit. Returns the end, or NULL. */
static const char *number_end(const char *s)
{
	size_t whole = strspn(s, "0123456789");
	size_t part = 0;

	s += whole;
	if (*s == '.') {
		part = strspn(++s, "0123456789");
		s += part;
	}
	return whole + part ? s : NULL;
}

static double unit_bytes(const char *unit)
{
	static const struct {
		const char *name;
		double bytes;
	} units[] = {
		{ "", 1 },	   { "B", 1 },	      { "K", 1e3 },	 { "KB", 1e3 },
		{ "KiB", 0x1p10 }, { "M", 1e6 },      { "MB", 1e6 },	 { "MiB", 0x1p20 },
		{ "G", 1e9 },	   { "GB", 1e9 },     { "GiB", 0x1p30 }, { "T", 1e12 },
		{ "TB", 1e12 },	   { "TiB", 0x1p40 },
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (strcasecmp(unit, units[i].name) == 0)
			return units[i].bytes;
	return 0;
}

int ob_parse_size(const char *text, uint64_t *bytes)
{
	const char *end = number_end(text);
	double x;

	if (!end)
		return -1;
	/* One product in double and truncation, as huggingface_hub computes max_shard_size. */
	x = ob_strtod(text);
	x *= unit_bytes(end + (*end == ' '));
	if (!(x >= 1 && x < 0x1p64))
		return -1;
	*bytes = (uint64_t)x;
	return 0;
}

char *ob_size_text(uint64_t bytes, char *buf, size_t size)
{
	static const char units[] = "KMGTPE";
	double x = (double)bytes;
	int unit = -1;

	/* What would be printed as 1024.0 is 1.0 of the next unit. */
	while (x >= (unit < 0 ? 1024 : 1023.95)) {
		x /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(buf, size, "%llu B", (unsigned long long)bytes);
	else
		snprintf(buf, size, "%.1f %ciB", x, units[unit]);
	return buf;
}
