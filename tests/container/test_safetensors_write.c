/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors header writer: exact bytes, and back through the reader. */
#include <criterion/criterion.h>

#include "../base/oom.h"
#include "base/json.h"
#include "memfile.h"

/* What the writer put, which must come in order and in small pieces. */
static int collect(void *ctx, const void *data, size_t n, uint64_t off, ob_err *e)
{
	struct ob_text *t = ctx;

	(void)e;
	cr_assert_eq(off, t->len);
	cr_assert_leq(n, 65536);
	cr_assert_gt(n, 0);
	ob_text_add(t, data, n);
	return t->failed ? ob_fail_nomem(e, "test") : 0;
}

static const uint64_t two[] = { 2 }, wide[] = { 2, 0 }, three[] = { 3 };

Test(safetensors_write, hand_checked_header)
{
	static const struct ob_st_entry entry = { "attn.0", OB_F32, { 1, two }, 0, 8 };
	static const struct ob_meta_entry meta = { "format", "pt" };
	static const char want[] =
		"\x60\0\0\0\0\0\0\0"
		"{\"__metadata__\":{\"format\":\"pt\"},\"attn.0\":{\"dtype\":\"F32\",\"shape\":[2],"
		"\"data_offsets\":[0,8]}}      ";
	struct ob_text got = { 0 };
	uint64_t size;
	ob_err e = { 0 };

	cr_assert_eq(ob_st_header_size(&entry, 1, &meta, 1, 8, &size, &e), 0, "%s", e.msg);
	cr_expect_eq(size, 104);
	cr_assert_eq(ob_st_header_write(&entry, 1, &meta, 1, size, collect, &got, &e), 0, "%s",
		     e.msg);
	cr_assert_eq(got.len, sizeof(want) - 1);
	cr_expect_arr_eq(got.data, want, got.len);
	ob_text_free(&got);
}

Test(safetensors_write, empty_file)
{
	struct ob_text got = { 0 };
	ob_err e = { 0 };

	cr_assert_eq(ob_st_header_write(NULL, 0, NULL, 0, 16, collect, &got, &e), 0, "%s", e.msg);
	cr_assert_eq(got.len, 16);
	cr_expect_arr_eq(got.data, "\x08\0\0\0\0\0\0\0{}      ", 16);
	ob_text_free(&got);
}

Test(safetensors_write, format_comes_first_and_text_is_escaped)
{
	static const struct ob_meta_entry meta[] = {
		{ "b\"\\\n", "\x01\xc3\xa9" },
		{ "format", "mlx" },
		{ "a", "" },
	};
	static const char want[] =
		"{\"__metadata__\":{\"format\":\"mlx\",\"b\\\"\\\\\\n\":\"\\u0001\xc3\xa9\","
		"\"a\":\"\"}}";
	struct ob_text got = { 0 };
	ob_err e = { 0 };

	cr_assert_eq(ob_st_header_write(NULL, 0, meta, 3, 128, collect, &got, &e), 0, "%s", e.msg);
	cr_assert_gt(got.len, 8 + sizeof(want) - 1);
	cr_expect_arr_eq(got.data + 8, want, sizeof(want) - 1, "%s", got.data + 8);
	ob_text_free(&got);
}

/* Header and data as a file, through the reader. */
static void read_back(const struct ob_text *header, uint64_t data, struct ob_file **f,
		      struct ob_arena *a, struct ob_listing *l)
{
	int fd = memfile_fd(header->data, header->len);
	ob_err e = { 0 };

	cr_assert_eq(ftruncate(fd, (off_t)(header->len + data)), 0);
	cr_assert_eq(memfile_open_fd(f, fd, &e), 0, "%s", e.msg);
	close(fd);
	cr_assert_eq(ob_container_safetensors.open(*f, a, l, &e), 0, "%s", e.msg);
}

Test(safetensors_write, reads_back)
{
	static const struct ob_st_entry entry[] = {
		{ "a", OB_BF16, { 1, two }, 0, 4 },
		{ "\x1b \"/\\ \xf0\x9f\x98\x80", OB_U8, { 1, three }, 4, 7 },
		{ "z", OB_F32, { 2, wide }, 7, 7 },
		{ "s", OB_I64, { 0, NULL }, 7, 15 },
	};
	static const struct ob_meta_entry meta[] = { { "k", "v" }, { "format", "pt" } };

	for (uint64_t align = 8; align <= 65536; align *= 2) {
		struct ob_text got = { 0 };
		struct ob_arena a = { 0 };
		struct ob_listing l;
		struct ob_file *f;
		uint64_t size;
		ob_err e = { 0 };

		cr_assert_eq(ob_st_header_size(entry, 4, meta, 2, align, &size, &e), 0, "%s",
			     e.msg);
		cr_expect_eq(size % align, 0);
		cr_assert_eq(ob_st_header_write(entry, 4, meta, 2, size, collect, &got, &e), 0,
			     "%s", e.msg);
		cr_assert_eq(got.len, size);
		read_back(&got, 15, &f, &a, &l);
		cr_assert_eq(l.n_tensors, 4);
		for (int i = 0; i < 4; i++) {
			cr_expect_str_eq(l.tensor[i].name, entry[i].name);
			cr_expect_eq(l.tensor[i].dtype, entry[i].dtype);
			cr_expect(ob_shape_equal(&l.tensor[i].shape, &entry[i].shape));
			cr_expect_eq(l.tensor[i].off, size + entry[i].begin);
			cr_expect_eq(l.tensor[i].len, entry[i].end - entry[i].begin);
		}
		cr_assert_eq(l.n_meta, 2);
		cr_expect_str_eq(l.meta[0].key, "format");
		cr_expect_str_eq(l.meta[1].value, "v");
		ob_text_free(&got);
		ob_arena_free(&a);
		ob_file_close(f);
	}
}

/* Enough for several pieces, with one value that is larger than a piece. */
Test(safetensors_write, large_header)
{
	enum { N = 3000 };
	static struct ob_st_entry entry[N];
	static char name[N][32], value[200001];
	const struct ob_meta_entry meta[] = { { "format", "pt" }, { "v", value } };
	struct ob_text got = { 0 };
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	uint64_t size;
	ob_err e = { 0 };

	memset(value, 'v', sizeof(value) - 1);
	for (uint64_t i = 0; i < N; i++) {
		snprintf(name[i], sizeof(name[i]), "model.layers.%d.w", (int)i);
		entry[i] = (struct ob_st_entry){ name[i], OB_U8, { 1, two }, 2 * i, 2 * i + 2 };
	}
	cr_assert_eq(ob_st_header_size(entry, N, meta, 2, 4096, &size, &e), 0, "%s", e.msg);
	/* More than needed: spaces. */
	cr_assert_eq(ob_st_header_write(entry, N, meta, 2, size + 4096, collect, &got, &e), 0, "%s",
		     e.msg);
	cr_assert_eq(got.len, size + 4096);
	read_back(&got, 2 * N, &f, &a, &l);
	cr_assert_eq(l.n_tensors, N);
	cr_expect_str_eq(l.tensor[N - 1].name, name[N - 1]);
	cr_expect_str_eq(l.meta[1].value, value);
	ob_text_free(&got);
	ob_arena_free(&a);
	ob_file_close(f);
}

Test(safetensors_write, refuses_the_reserved_name)
{
	static const struct ob_st_entry entry = { "__metadata__", OB_F32, { 1, two }, 0, 8 };
	uint64_t size;
	ob_err e = { 0 };

	cr_expect_eq(ob_st_header_size(&entry, 1, NULL, 0, 8, &size, &e), -1);
	cr_expect_eq(e.code, OB_UNSUPPORTED, "%s", e.msg);
	cr_expect(strstr(e.msg, "__metadata__"));
}

Test(safetensors_write, refuses_what_no_reader_takes)
{
	enum { N = 1600, LEN = 65000 };
	static struct ob_st_entry entry[N];
	static char name[LEN + 1];
	uint64_t size;
	ob_err e = { 0 };

	memset(name, 'n', LEN);
	for (int i = 0; i < N; i++)
		entry[i] = (struct ob_st_entry){ name, OB_U8, { 1, two }, 0, 2 };
	cr_expect_eq(ob_st_header_size(entry, N, NULL, 0, 8, &size, &e), -1);
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
	e = (ob_err){ 0 };
	cr_expect_eq(ob_st_header_size(entry, N - 100, NULL, 0, 8, &size, &e), 0, "%s", e.msg);
	cr_expect_lt(ob_alloc_stats().peak, 1 << 20);
}

static int fail_at_second(void *ctx, const void *data, size_t n, uint64_t off, ob_err *e)
{
	(void)data;
	(void)n;
	return off == 0 ? 0 : ob_fail(e, OB_NOSPC, "full after %d", ++*(int *)ctx);
}

Test(safetensors_write, stops_at_the_first_failed_put)
{
	static char value[200001];
	const struct ob_meta_entry meta = { "v", value };
	int failures = 0;
	ob_err e = { 0 };

	memset(value, 'v', sizeof(value) - 1);
	cr_expect_eq(ob_st_header_write(NULL, 0, &meta, 1, 8, fail_at_second, &failures, &e), -1);
	cr_expect_eq(e.code, OB_NOSPC);
	cr_expect_eq(failures, 1);
}

static int write_all(void *ctx, ob_err *e)
{
	static const struct ob_st_entry entry = { "attn.0", OB_F32, { 1, two }, 0, 8 };
	static char value[100001];
	const struct ob_meta_entry meta = { "v", value };
	struct ob_text got = { 0 };
	int rc;

	(void)ctx;
	memset(value, 'v', sizeof(value) - 1);
	rc = ob_st_header_write(&entry, 1, &meta, 1, 4096, collect, &got, e);
	ob_text_free(&got);
	return rc;
}

Test(safetensors_write, allocation_failures)
{
	cr_expect_gt(oom_sweep(write_all, NULL), 3);
}
