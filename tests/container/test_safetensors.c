/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors reader: what it accepts, and one file for each rule that it enforces. */
#include <criterion/criterion.h>
#include <endian.h>
#include <time.h>

#include "../base/oom.h"
#include "base/json.h"
#include "memfile.h"

#define READER ob_container_safetensors.open

/* Lists a file of these bytes and checks the promises; *a is the caller's. */
static int list_bytes(const void *data, size_t n, struct ob_file **f, struct ob_arena *a,
		      struct ob_listing *l, ob_err *e)
{
	int fd = memfile_fd(data, n), rc;

	cr_assert(fd >= 0);
	rc = memfile_open_fd(f, fd, e);
	close(fd);
	cr_assert_eq(rc, 0, "%s", e->msg);
	rc = READER(*f, a, l, e);
	if (rc == 0)
		cr_assert_null(listing_broken(l), "%s", listing_broken(l));
	return rc;
}

/* The same for a header with its length in front and `data` zero bytes behind. */
static int list_header(const char *json, size_t len, size_t data, struct ob_file **f,
		       struct ob_arena *a, struct ob_listing *l, ob_err *e)
{
	uint8_t *buf = calloc(1, 8 + len + data);
	uint64_t n = htole64(len);
	int rc;

	memcpy(buf, &n, 8);
	memcpy(buf + 8, json, len);
	rc = list_bytes(buf, 8 + len + data, f, a, l, e);
	free(buf);
	return rc;
}

/* ---- accepted ---- */

Test(safetensors, hand_checked_file)
{
	static const char file[] =
		"\x60\0\0\0\0\0\0\0"
		"{\"__metadata__\":{\"format\":\"pt\"},\"attn.0\":{\"dtype\":\"F32\",\"shape\":[2],"
		"\"data_offsets\":[0,8]}}      "
		"\0\0\x80\x3f\0\0\0\xc0";
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	ob_err e = { 0 };

	cr_assert_eq(list_bytes(file, sizeof(file) - 1, &f, &a, &l, &e), 0, "%s", e.msg);
	cr_assert_eq(l.n_tensors, 1);
	cr_expect_str_eq(l.tensor[0].name, "attn.0");
	cr_expect_eq(l.tensor[0].dtype, OB_F32);
	cr_expect_eq(l.tensor[0].shape.rank, 1);
	cr_expect_eq(l.tensor[0].shape.dim[0], 2);
	cr_expect_eq(l.tensor[0].off, 104);
	cr_expect_eq(l.tensor[0].len, 8);
	cr_expect_null(l.tensor[0].stride);
	cr_expect_eq(l.tensor[0].file, f);
	cr_assert_eq(l.n_meta, 1);
	cr_expect_str_eq(l.meta[0].key, "format");
	cr_expect_str_eq(l.meta[0].value, "pt");
	ob_arena_free(&a);
	ob_file_close(f);
	cr_expect_eq(ob_alloc_stats().in_use, 0);
}

/* json, bytes of data, names in the order of the listing joined by '|' */
/* clang-format off */
static const struct {
	const char *about, *json;
	size_t data;
	const char *names;
} good[] = {
	{ "no tensors", "{}", 0, "" },
	{ "padding behind", "{}      ", 0, "" },
	{ "white space before", " \t\r\n{}", 0, "" },
	{ "null metadata", "{\"__metadata__\":null}", 0, "" },
	{ "empty metadata", "{\"__metadata__\":{}}", 0, "" },
	{ "a scalar", "{\"a\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, "a" },
	{ "fields in any order, space anywhere",
	  "{ \"a\" : { \"data_offsets\" : [ 0 , 1 ] , \"shape\" : [ 1 ] , \"dtype\" : \"U8\" } }",
	  1, "a" },
	{ "unknown fields",
	  "{\"a\":{\"x\":{\"y\":[1.5,null]},\"dtype\":\"U8\",\"z\":1,\"shape\":[1],"
	  "\"data_offsets\":[0,1]}}",
	  1, "a" },
	{ "sorted by place, not by key",
	  "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
	  "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, "b|a" },
	{ "empty tensors between, before and behind",
	  "{\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]},"
	  "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
	  "\"y\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[1,1]},"
	  "\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 1, "x|a|y|z" },
	{ "4-bit elements", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[0,3]}}", 3,
	  "a" },
	{ "6-bit elements", "{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}",
	  3, "a" },
	{ "odd names",
	  "{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
	  "\"..\\/..\\/x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
	  "\"\\u001b[2J\\n\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]},"
	  "\"\\u00e9\\ud83d\\ude00\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[3,4]}}", 4,
	  "|../../x|\x1b[2J\n|\xc3\xa9\xf0\x9f\x98\x80" },
};
/* clang-format on */

Test(safetensors, accepts_what_the_reference_accepts)
{
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		char names[256] = "";
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		ob_err e = { 0 };
		int rc = list_header(good[i].json, strlen(good[i].json), good[i].data, &f, &a, &l,
				     &e);

		cr_assert_eq(rc, 0, "%s: %s", good[i].about, e.msg);
		for (size_t t = 0; t < l.n_tensors; t++) {
			strcat(names, t ? "|" : "");
			strcat(names, l.tensor[t].name);
		}
		cr_expect_str_eq(names, good[i].names, "%s: %s", good[i].about, names);
		ob_arena_free(&a);
		ob_file_close(f);
	}
}

Test(safetensors, every_dtype)
{
	for (enum ob_dtype t = 0; t < OB_N_DTYPES; t++) {
		size_t bytes = ob_dtype_bits(t);
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		ob_err e = { 0 };
		char json[128];

		snprintf(json, sizeof(json),
			 "{\"a\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%zu]}}",
			 ob_dtype_name(t), bytes);
		cr_assert_eq(list_header(json, strlen(json), bytes, &f, &a, &l, &e), 0, "%s",
			     e.msg);
		cr_expect_eq(l.tensor[0].dtype, t);
		ob_arena_free(&a);
		ob_file_close(f);
	}
}

/* ---- refused ---- */

#define A "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"
#define ENTRY(shape, offsets) \
	"{\"a\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

/* What is wrong, the header, bytes of data, the code, and what the message has to name. */
/* clang-format off */
static const struct {
	const char *about, *json;
	size_t data;
	enum ob_code code;
	const char *word;
} bad[] = {
	{ "an empty header", "", 0, OB_CORRUPT, "the end" },
	{ "one space", " ", 0, OB_CORRUPT, "the end" },
	{ "not UTF-8: byte 0xff in a name", "{\"\xff\":1}", 0, OB_CORRUPT, "UTF-8" },
	{ "a byte order mark first", "\xef\xbb\xbf{}", 0, OB_CORRUPT, "byte 0" },
	{ "the header is an array", "[]", 0, OB_CORRUPT, "object" },
	{ "the header is a string", "\"a\"", 0, OB_CORRUPT, "object" },
	{ "the header is cut", "{\"a\":{\"dtype\":\"U8\"", 0, OB_CORRUPT, "the end" },
	{ "text behind the object", "{} x", 0, OB_CORRUPT, "nothing after" },
	{ "a second object", "{}{}", 0, OB_CORRUPT, "nothing after" },
	{ "a comma too many", "{\"__metadata__\":{},}", 0, OB_CORRUPT, "a key" },
	{ "a comment", "{/**/}", 0, OB_CORRUPT, "a key" },
	{ "a lone surrogate in a name", "{\"\\ud800\":1}", 0, OB_CORRUPT, "surrogate" },
	{ "a tensor twice",
	  A ",\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, OB_CORRUPT,
	  "\"a\"" },
	{ "a tensor twice, once escaped",
	  A ",\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, OB_CORRUPT,
	  "twice" },
	{ "metadata twice", "{\"__metadata__\":null,\"__metadata__\":{}}", 0, OB_CORRUPT,
	  "__metadata__" },
	{ "a metadata key twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, OB_CORRUPT,
	  "\"k\"" },
	{ "metadata is a string", "{\"__metadata__\":\"x\"}", 0, OB_CORRUPT, "__metadata__" },
	{ "metadata has a number", "{\"__metadata__\":{\"k\":1}}", 0, OB_CORRUPT, "\"k\"" },
	{ "metadata has null", "{\"__metadata__\":{\"k\":null}}", 0, OB_CORRUPT, "\"k\"" },
	{ "NUL in metadata", "{\"__metadata__\":{\"k\":\"a\\u0000\"}}", 0, OB_UNSUPPORTED, "NUL" },
	{ "NUL in a name", "{\"a\\u0000\":{}}", 0, OB_UNSUPPORTED, "NUL" },
	{ "an entry is an array", "{\"a\":[\"U8\",[4],[0,4]]}", 4, OB_CORRUPT, "\"a\"" },
	{ "an entry is null", "{\"a\":null}", 0, OB_CORRUPT, "\"a\"" },
	{ "no dtype", "{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, OB_CORRUPT, "dtype" },
	{ "no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, OB_CORRUPT, "shape" },
	{ "no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, OB_CORRUPT, "data_offsets" },
	{ "a field twice",
	  "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
	  OB_CORRUPT, "dtype" },
	{ "an unknown dtype", "{\"a\":{\"dtype\":\"F9\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
	  OB_UNSUPPORTED, "F9" },
	{ "dtype in small letters",
	  "{\"a\":{\"dtype\":\"u8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
	  OB_UNSUPPORTED, "u8" },
	{ "dtype is a number", "{\"a\":{\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
	  OB_CORRUPT, "dtype" },
	{ "shape is a number", ENTRY("4", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "shape has a fraction", ENTRY("[4.0]", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "shape has an exponent", ENTRY("[4e0]", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "shape is negative", ENTRY("[-4]", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "shape has -0", ENTRY("[-0]", "[0,0]"), 0, OB_CORRUPT, "shape" },
	{ "shape has a string", ENTRY("[\"4\"]", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "a number begins with 0", ENTRY("[04]", "[0,4]"), 4, OB_CORRUPT, "byte" },
	{ "shape is nested", ENTRY("[[4]]", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "shape above 2^64", ENTRY("[18446744073709551620]", "[0,4]"), 4, OB_CORRUPT, "shape" },
	{ "shape product is 2^64", ENTRY("[4294967296,4294967296]", "[0,0]"), 0, OB_CORRUPT,
	  "2^64" },
	{ "shape times bits is 2^64", ENTRY("[2305843009213693952]", "[0,0]"), 0, OB_CORRUPT,
	  "2^64" },
	{ "rank 65",
	  ENTRY("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
		"1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), 1,
	  OB_LIMIT, "64" },
	{ "one offset", ENTRY("[4]", "[4]"), 4, OB_CORRUPT, "data_offsets" },
	{ "three offsets", ENTRY("[4]", "[0,4,4]"), 4, OB_CORRUPT, "data_offsets" },
	{ "offsets backwards", ENTRY("[4]", "[0,-4]"), 4, OB_CORRUPT, "data_offsets" },
	{ "end before begin",
	  A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", 8, OB_CORRUPT,
	  "[4, 0]" },
	{ "an offset above 2^64 that wraps to 4", ENTRY("[4]", "[0,18446744073709551620]"), 4,
	  OB_CORRUPT, "data_offsets" },
	{ "a hole before the first", ENTRY("[4]", "[4,8]"), 8, OB_CORRUPT, "\"a\"" },
	{ "a hole between", A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}", 9,
	  OB_CORRUPT, "\"b\"" },
	{ "an overlap", A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", 7,
	  OB_CORRUPT, "\"b\"" },
	{ "two names for the same bytes",
	  A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
	  4, OB_CORRUPT, "\"b\"" },
	{ "an empty tensor inside another",
	  A ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}",
	  4, OB_CORRUPT, "\"b\"" },
	{ "more bytes than the shape", ENTRY("[3]", "[0,4]"), 4, OB_CORRUPT, "take 3" },
	{ "fewer bytes than the shape", ENTRY("[5]", "[0,4]"), 4, OB_CORRUPT, "take 5" },
	{ "half a byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
	  OB_CORRUPT, "12 bits" },
	{ "a byte too few in the file", ENTRY("[4]", "[0,4]"), 3, OB_CORRUPT, "download" },
	{ "a byte too many in the file", ENTRY("[4]", "[0,4]"), 5, OB_CORRUPT, "1 bytes after" },
	{ "bytes behind no tensors", "{}", 1, OB_CORRUPT, "after" },
};
/* clang-format on */

Test(safetensors, refuses_by_name)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t before = ob_alloc_stats().in_use;
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		ob_err e = { 0 };
		int rc = list_header(bad[i].json, strlen(bad[i].json), bad[i].data, &f, &a, &l, &e);

		cr_assert_eq(rc, -1, "%s was accepted", bad[i].about);
		cr_expect_eq(e.code, bad[i].code, "%s: %s", bad[i].about, e.msg);
		cr_expect(strstr(e.msg, bad[i].word), "%s: %s", bad[i].about, e.msg);
		cr_expect_eq(strncmp(e.msg, f->path, strlen(f->path)), 0, "%s: %s", bad[i].about,
			     e.msg);
		ob_arena_free(&a);
		ob_file_close(f);
		cr_expect_eq(ob_alloc_stats().in_use, before, "%s leaks", bad[i].about);
	}
}

Test(safetensors, nul_padding_is_no_padding)
{
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	ob_err e = { 0 };

	cr_expect_eq(list_header("{}\0\0\0\0\0\0", 8, 0, &f, &a, &l, &e), -1);
	cr_expect_eq(e.code, OB_CORRUPT, "%s", e.msg);
	ob_arena_free(&a);
	ob_file_close(f);
}

/* The first 8 bytes, with 16 bytes in the file. */
Test(safetensors, length_field)
{
	static const struct {
		uint64_t length;
		enum ob_code code;
	} cases[] = {
		{ 0, OB_CORRUPT },
		{ 1, OB_CORRUPT },
		{ 7, OB_CORRUPT },
		{ 9, OB_CORRUPT },
		{ 100000000, OB_CORRUPT },
		{ 100000001, OB_LIMIT },
		{ UINT64_C(1) << 63, OB_LIMIT },
		{ UINT64_MAX, OB_LIMIT },
		{ UINT64_MAX - 7, OB_LIMIT },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		ob_err e = { 0 };
		uint64_t n = htole64(cases[i].length);
		char file[16] = "........{}     x";

		memcpy(file, &n, 8);
		cr_expect_eq(list_bytes(file, sizeof(file), &f, &a, &l, &e), -1);
		cr_expect_eq(e.code, cases[i].code, "%s", e.msg);
		ob_arena_free(&a);
		ob_file_close(f);
	}
}

Test(safetensors, shorter_than_the_length_field)
{
	for (size_t n = 0; n < 8; n++) {
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		ob_err e = { 0 };

		cr_expect_eq(list_bytes("\0\0\0\0\0\0\0", n, &f, &a, &l, &e), -1);
		cr_expect_eq(e.code, OB_CORRUPT, "%s", e.msg);
		ob_file_close(f);
	}
}

Test(safetensors, shrinks_while_it_is_read)
{
	static const char file[8 + 1000] = "\xe8\3\0\0\0\0\0\0{";

	for (off_t left = 0; left < 1000; left += 500) {
		int fd = memfile_fd(file, sizeof(file));
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		ob_err e = { 0 };

		cr_assert_eq(memfile_open_fd(&f, fd, &e), 0, "%s", e.msg);
		cr_assert_eq(ftruncate(fd, left), 0);
		close(fd);
		cr_expect_eq(READER(f, &a, &l, &e), -1);
		cr_expect_eq(e.code, OB_CHANGED, "%s", e.msg);
		ob_arena_free(&a);
		ob_file_close(f);
	}
}

/* A field of no interest may be nested, but not without end. */
static int list_nested(unsigned depth, ob_err *e)
{
	struct ob_text t = { 0 };
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	int rc;

	ob_text_printf(&t, "{\"a\":{\"x\":");
	for (unsigned i = 0; i < depth; i++)
		ob_text_add(&t, "[", 1);
	for (unsigned i = 0; i < depth; i++)
		ob_text_add(&t, "]", 1);
	ob_text_printf(&t, ",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
	rc = list_header(t.data, t.len, 1, &f, &a, &l, e);
	ob_text_free(&t);
	ob_arena_free(&a);
	ob_file_close(f);
	return rc;
}

Test(safetensors, nesting)
{
	ob_err e = { 0 };

	cr_expect_eq(list_nested(100, &e), 0, "%s", e.msg);
	cr_expect_eq(list_nested(60000, &e), -1);
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
}

/* A name of `len` bytes. */
static int list_name(size_t len, ob_err *e)
{
	static const char rest[] = "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
	char *json = malloc(2 + len + sizeof(rest));
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	int rc;

	memcpy(json, "{\"", 2);
	memset(json + 2, 'n', len);
	strcpy(json + 2 + len, rest);
	rc = list_header(json, strlen(json), 1, &f, &a, &l, e);
	if (rc == 0)
		cr_expect_eq(strlen(l.tensor[0].name), len);
	free(json);
	ob_arena_free(&a);
	ob_file_close(f);
	return rc;
}

Test(safetensors, long_names)
{
	ob_err e = { 0 };

	cr_expect_eq(list_name(OB_MAX_NAME, &e), 0, "%s", e.msg);
	cr_expect_eq(list_name(OB_MAX_NAME + 1, &e), -1);
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
}

Test(safetensors, metadata_of_any_length)
{
	size_t len = 300000;
	char *json = malloc(len + 64);
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	ob_err e = { 0 };
	int n = sprintf(json, "{\"__metadata__\":{\"b\":\"1\",\"a\":\"");

	memset(json + n, 'v', len);
	strcpy(json + n + len, "\"}}");
	cr_assert_eq(list_header(json, strlen(json), 0, &f, &a, &l, &e), 0, "%s", e.msg);
	cr_assert_eq(l.n_meta, 2);
	cr_expect_str_eq(l.meta[0].key, "b");
	cr_expect_eq(strlen(l.meta[1].value), len);
	free(json);
	ob_arena_free(&a);
	ob_file_close(f);
}

/* ---- memory and time ---- */

/* A header of 100 MB that says nothing. */
Test(safetensors, memory_follows_the_tensors_not_the_text)
{
	static const uint8_t head[9] = { 0x00, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{' };
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	ob_err e = { 0 };
	size_t n = 100000000;
	int fd = memfile_fd(head, sizeof(head));
	char *spaces = malloc(n);

	memset(spaces, ' ', n);
	spaces[n - 2] = '}';
	cr_assert_eq(pwrite(fd, spaces, n - 1, 9), (ssize_t)n - 1);
	free(spaces);
	cr_assert_eq(memfile_open_fd(&f, fd, &e), 0, "%s", e.msg);
	close(fd);
	cr_expect_eq(READER(f, &a, &l, &e), 0, "%s", e.msg);
	cr_expect_eq(l.n_tensors, 0);
	cr_expect_lt(ob_alloc_stats().peak, 100000);
	ob_arena_free(&a);
	ob_file_close(f);
}

static char *many_tensors(size_t n, size_t *len)
{
	char *json;
	FILE *m = open_memstream(&json, len);

	fputc('{', m);
	for (size_t i = 0; i < n; i++)
		fprintf(m,
			"%s\"model.layers.%zu.mlp.experts.%zu.gate_proj.weight\":{\"dtype\":\"U8\","
			"\"shape\":[1,1],\"data_offsets\":[%zu,%zu]}",
			i ? "," : "", i % 97, i, i, i + 1);
	fputc('}', m);
	fclose(m);
	return json;
}

Test(safetensors, many_tensors_are_quick)
{
	size_t len, n = 200000;
	char *json = many_tensors(n, &len);
	clock_t start = clock();
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	ob_err e = { 0 };

	cr_assert_eq(list_header(json, len, n, &f, &a, &l, &e), 0, "%s", e.msg);
	cr_expect_eq(l.n_tensors, n);
	/* 0.3 s; a square law would take minutes. */
	cr_expect_lt(clock() - start, 10 * CLOCKS_PER_SEC);
	cr_expect_lt(ob_alloc_stats().peak, 4 * len);
	free(json);
	ob_arena_free(&a);
	ob_file_close(f);
}

static int list_all_kinds(void *ctx, ob_err *e)
{
	struct ob_arena a = { 0 };
	struct ob_listing l;
	int rc = READER(ctx, &a, &l, e);

	ob_arena_free(&a);
	return rc;
}

Test(safetensors, allocation_failures)
{
	size_t len, n = 30;
	char *json = many_tensors(n, &len), *full;
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	ob_err e = { 0 };

	cr_assert(asprintf(&full, "{\"__metadata__\":{\"a\":\"1\",\"b\":\"2\"},%s", json + 1) > 0);
	cr_assert_eq(list_header(full, strlen(full), n, &f, &a, &l, &e), 0, "%s", e.msg);
	cr_expect_gt(oom_sweep(list_all_kinds, f), 8);
	free(json);
	free(full);
	ob_arena_free(&a);
	ob_file_close(f);
}
