/* SPDX-License-Identifier: Apache-2.0 */
/* The zip directory reader: archives of every style, and one with each contradiction. */
#include <criterion/criterion.h>

#include "../base/oom.h"
#include "container/zip.h"
#include "memfile.h"
#include "zipmaker.h"

static const struct zip_spec members[] = {
	{ "a/data.pkl", "0123456789", 10, 0 },
	{ "a/data/0", "the bytes of a storage", 22, 0 },
	{ "a/empty", "", 0, 0 },
	{ "a/packed", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 64, 1 },
};
enum { N = sizeof(members) / sizeof(*members) };

static int open_bytes(struct ob_zip *z, const void *data, size_t n, struct ob_file **f, ob_err *e)
{
	int fd = memfile_fd(data, n);
	int rc = memfile_open_fd(f, fd, e);

	close(fd);
	cr_assert_eq(rc, 0, "%s", e->msg);
	return ob_zip_open(z, *f, e);
}

Test(zip, reads_every_style)
{
	for (enum zip_style style = ZIP_TORCH; style <= ZIP_NUMPY; style++) {
		size_t size;
		uint8_t *zip = zip_make(members, N, style, &size);
		struct ob_file *f;
		struct ob_zip z;
		ob_err e = { 0 };

		cr_assert_eq(open_bytes(&z, zip, size, &f, &e), 0, "%s", e.msg);
		cr_assert_eq(z.n, N);
		for (int i = 0; i < N; i++) {
			const struct ob_zip_member *m = ob_zip_find(&z, members[i].name);
			const uint8_t *data;
			void *owned;

			cr_assert_eq(m, &z.member[i]);
			cr_expect_str_eq(m->name, members[i].name);
			cr_expect_eq(m->deflated, members[i].deflated);
			cr_assert_eq(m->size, members[i].n);
			cr_assert_eq(ob_zip_read(&z, m, 64, &data, &owned, &e), 0, "%s", e.msg);
			cr_expect_arr_eq(data, members[i].data, m->size);
			cr_expect(m->deflated || data == f->map + m->off);
			ob_free(owned);
		}
		cr_expect_null(ob_zip_find(&z, "a/data/1"));
		cr_expect_null(ob_zip_find(&z, ""));
		ob_zip_close(&z);
		ob_file_close(f);
		free(zip);
		cr_expect_eq(ob_alloc_stats().in_use, 0);
	}
}

Test(zip, empty_archive)
{
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	cr_assert_eq(open_bytes(&z, "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22, &f, &e), 0,
		     "%s", e.msg);
	cr_expect_eq(z.n, 0);
	ob_zip_close(&z);
	ob_file_close(f);
}

/* ---- contradictions ---- */

enum record { LOCAL, CENTRAL, END, END64, LOCATOR };

/* The first one of its kind. */
static uint8_t *find_record(uint8_t *zip, size_t size, enum record r)
{
	static const char *const sig[] = { "PK\3\4", "PK\1\2", "PK\5\6", "PK\6\6", "PK\6\7" };

	return memmem(zip, size, sig[r], 4);
}

/* What is wrong; the record and the offset in it; the bytes put there. */
/* clang-format off */
static const struct {
	const char *about;
	enum zip_style style;
	enum record record;
	unsigned off, n;
	const char *bytes;
	enum ob_code code;
	const char *word;
} bad[] = {
	{ "no end record", ZIP_PLAIN, END, 0, 1, "X", OB_CORRUPT, "end" },
	{ "a comment is announced", ZIP_PLAIN, END, 20, 1, "\1", OB_CORRUPT, "end" },
	{ "several disks", ZIP_PLAIN, END, 4, 1, "\1", OB_UNSUPPORTED, "parts" },
	{ "members on several disks", ZIP_PLAIN, END, 8, 1, "\1", OB_UNSUPPORTED, "parts" },
	{ "a member too many", ZIP_PLAIN, END, 8, 4, "\5\0\5\0", OB_CORRUPT, "directory" },
	{ "a member too few", ZIP_PLAIN, END, 8, 4, "\3\0\3\0", OB_CORRUPT, "longer" },
	{ "more members than fit the directory", ZIP_PLAIN, END, 8, 4, "\0\1\0\1", OB_CORRUPT,
	  "short" },
	{ "65535 members and no zip64 record", ZIP_PLAIN, END, 8, 4, "\xff\xff\xff\xff", OB_CORRUPT,
	  "short" },
	{ "directory size", ZIP_PLAIN, END, 12, 1, "\1", OB_CORRUPT, "directory" },
	{ "directory offset", ZIP_PLAIN, END, 16, 1, "\1", OB_CORRUPT, "directory" },
	{ "directory offset that wraps", ZIP_PLAIN, END, 12, 8, "\xff\xff\xff\xff\xff\xff\xff\xff",
	  OB_CORRUPT, "directory" },
	{ "the records disagree about the number", ZIP_TORCH, END, 8, 4, "\3\0\3\0", OB_CORRUPT,
	  "contradict" },
	{ "the records disagree about the size", ZIP_TORCH, END, 12, 1, "\1", OB_CORRUPT,
	  "contradict" },
	{ "the records disagree about the place", ZIP_TORCH, END, 16, 1, "\1", OB_CORRUPT,
	  "contradict" },
	{ "zip64 record on another disk", ZIP_TORCH, END64, 16, 1, "\1", OB_CORRUPT, "contradict" },
	{ "zip64 record is no record", ZIP_TORCH, END64, 0, 1, "X", OB_CORRUPT, "zip64" },
	{ "zip64 record has another length", ZIP_TORCH, END64, 4, 1, "\x2d", OB_CORRUPT, "zip64" },
	{ "zip64 record outside the file", ZIP_TORCH, LOCATOR, 8, 8,
	  "\xff\xff\xff\xff\xff\xff\xff\xff", OB_CORRUPT, "outside" },
	{ "zip64 directory that wraps", ZIP_TORCH, END64, 40, 8, "\xff\xff\xff\xff\xff\xff\xff\xff",
	  OB_CORRUPT, "contradict" },
	{ "no central header", ZIP_PLAIN, CENTRAL, 0, 1, "X", OB_CORRUPT, "directory" },
	{ "encrypted", ZIP_PLAIN, CENTRAL, 8, 1, "\1", OB_UNSUPPORTED, "encrypted" },
	{ "strong encryption", ZIP_PLAIN, CENTRAL, 8, 1, "\x40", OB_UNSUPPORTED, "unusual" },
	{ "method 9", ZIP_PLAIN, CENTRAL, 10, 1, "\x9", OB_UNSUPPORTED, "a/data.pkl" },
	{ "stored, with two sizes", ZIP_PLAIN, CENTRAL, 24, 1, "\x9", OB_CORRUPT, "sizes" },
	{ "size of all ones without zip64", ZIP_PLAIN, CENTRAL, 20, 8,
	  "\xff\xff\xff\xff\xff\xff\xff\xff", OB_CORRUPT, "sizes" },
	{ "name longer than the directory", ZIP_PLAIN, CENTRAL, 28, 2, "\xff\xff", OB_CORRUPT,
	  "cut" },
	{ "empty name", ZIP_PLAIN, CENTRAL, 28, 1, "\0", OB_CORRUPT, "name" },
	{ "NUL in a name", ZIP_PLAIN, CENTRAL, 48, 1, "\0", OB_CORRUPT, "NUL" },
	{ "member outside the file", ZIP_PLAIN, CENTRAL, 42, 4, "\0\0\0\x10", OB_CORRUPT,
	  "outside" },
	{ "member in the directory", ZIP_PLAIN, CENTRAL, 20, 8, "\0\1\0\0\0\1\0\0", OB_CORRUPT,
	  "outside" },
	{ "no local header", ZIP_PLAIN, LOCAL, 0, 1, "X", OB_CORRUPT, "contradict" },
	{ "local name", ZIP_PLAIN, LOCAL, 30, 1, "b", OB_CORRUPT, "contradict" },
	{ "local name is longer", ZIP_PLAIN, LOCAL, 26, 1, "\xb", OB_CORRUPT, "contradict" },
	{ "local name is shorter", ZIP_PLAIN, LOCAL, 26, 1, "\x9", OB_CORRUPT, "contradict" },
	{ "local extra field is cut", ZIP_PLAIN, LOCAL, 28, 1, "\x3", OB_CORRUPT, "contradict" },
	{ "local extra field past the directory", ZIP_PLAIN, LOCAL, 28, 2, "\xff\xff", OB_CORRUPT,
	  "outside" },
	{ "local method", ZIP_PLAIN, LOCAL, 8, 1, "\x8", OB_CORRUPT, "contradict" },
	{ "local flags", ZIP_PLAIN, LOCAL, 7, 1, "\x8", OB_CORRUPT, "contradict" },
	{ "local checksum", ZIP_PLAIN, LOCAL, 14, 1, "\1", OB_CORRUPT, "contradict" },
	{ "local size", ZIP_PLAIN, LOCAL, 22, 1, "\1", OB_CORRUPT, "contradict" },
	{ "local size of zero", ZIP_PLAIN, LOCAL, 18, 8, "\0\0\0\0\0\0\0\0", OB_CORRUPT,
	  "contradict" },
	{ "local stored size, with sizes behind", ZIP_TORCH, LOCAL, 18, 1, "\1", OB_CORRUPT,
	  "contradict" },
	{ "local zip64 size", ZIP_NUMPY, LOCAL, 44, 1, "\x9", OB_CORRUPT, "contradict" },
	{ "local zip64 field too short", ZIP_NUMPY, LOCAL, 42, 1, "\x8", OB_CORRUPT, "contradict" },
};
/* clang-format on */

Test(zip, refuses_contradictions)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		size_t size;
		uint8_t *zip = zip_make(members, N, bad[i].style, &size);
		struct ob_file *f;
		struct ob_zip z;
		ob_err e = { 0 };

		memcpy(find_record(zip, size, bad[i].record) + bad[i].off, bad[i].bytes, bad[i].n);
		cr_expect_eq(open_bytes(&z, zip, size, &f, &e), -1, "%s was accepted",
			     bad[i].about);
		cr_expect_eq(e.code, bad[i].code, "%s: %s", bad[i].about, e.msg);
		cr_expect(strstr(e.msg, bad[i].word), "%s: %s", bad[i].about, e.msg);
		ob_file_close(f);
		free(zip);
		cr_expect_eq(ob_alloc_stats().in_use, 0, "%s leaks", bad[i].about);
	}
}

Test(zip, something_appended)
{
	size_t size;
	uint8_t *zip = zip_make(members, N, ZIP_TORCH, &size);
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	zip = realloc(zip, size + 1);
	zip[size] = 0;
	cr_expect_eq(open_bytes(&z, zip, size + 1, &f, &e), -1);
	cr_expect_eq(e.code, OB_CORRUPT, "%s", e.msg);
	ob_file_close(f);
	free(zip);
}

/* The code that an archive of these two members gives; OB_OK when it is fine. */
static enum ob_code open_two(const char *a, const char *b)
{
	const struct zip_spec two[] = { { a, "xxxx", 4, 0 }, { b, "yyyy", 4, 0 } };
	size_t size;
	uint8_t *zip = zip_make(two, 2, ZIP_PLAIN, &size);
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	if (open_bytes(&z, zip, size, &f, &e) == 0)
		ob_zip_close(&z);
	ob_file_close(f);
	free(zip);
	return e.code;
}

Test(zip, names)
{
	cr_expect_eq(open_two("a", "b"), OB_OK);
	cr_expect_eq(open_two("a", "a"), OB_CORRUPT);
	for (const char **s = (const char *[]){ "..x", "x..", "a/..x", "a/.../b", "a/", NULL }; *s;
	     s++)
		cr_expect_eq(open_two("a", *s), OB_OK, "%s", *s);
	for (const char **s = (const char *[]){ "..", "../x", "a/..", "a/../b", "/a", "/", NULL };
	     *s; s++)
		cr_expect_eq(open_two("a", *s), OB_UNSAFE, "%s", *s);
}

Test(zip, overlap)
{
	static const struct zip_spec two[] = { { "a", "xxxx", 4, 0 }, { "b", "xxxx", 4, 0 } };
	size_t size;
	uint8_t *zip = zip_make(two, 2, ZIP_PLAIN, &size),
		*central = find_record(zip, size, CENTRAL);
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	memcpy(central + 47, central, 47);
	cr_expect_eq(open_bytes(&z, zip, size, &f, &e), -1);
	cr_expect(strstr(e.msg, "overlap"), "%s", e.msg);
	ob_file_close(f);
	free(zip);
}

/* The directory may name the members in any order. */
Test(zip, directory_out_of_order)
{
	static const struct zip_spec two[] = { { "a", "xxxx", 4, 0 }, { "b", "yyyy", 4, 0 } };
	size_t size;
	uint8_t *zip = zip_make(two, 2, ZIP_PLAIN, &size),
		*central = find_record(zip, size, CENTRAL);
	uint8_t first[47];
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	memcpy(first, central, 47);
	memmove(central, central + 47, 47);
	memcpy(central + 47, first, 47);
	cr_assert_eq(open_bytes(&z, zip, size, &f, &e), 0, "%s", e.msg);
	cr_expect_str_eq(z.member[0].name, "a");
	cr_expect_eq(ob_zip_find(&z, "b"), &z.member[1]);
	ob_zip_close(&z);
	ob_file_close(f);
	free(zip);
}

/* ---- sizes beyond 32 bits, in a file that is nearly all hole ---- */

static const uint64_t large = UINT64_C(5) << 30;

/* A stored member of `large` zero bytes, then an empty one. */
static int make_large(void)
{
	int fd = memfd_create("large", MFD_CLOEXEC);
	FILE *f = fdopen(fd, "wb");
	uint64_t dir;

	fwrite("PK\3\4", 1, 4, f);
	zip_put_common(f, ZIP_PLAIN, 0, 0, UINT32_MAX, UINT32_MAX, "a", 20);
	fputc('a', f);
	zip_put(f, 4, 0x100001);
	zip_put(f, 8, large);
	zip_put(f, 8, large);
	fseeko(f, (off_t)large, SEEK_CUR);
	fwrite("PK\3\4", 1, 4, f);
	zip_put_common(f, ZIP_PLAIN, 0, 0, 0, 0, "b", 0);
	fputc('b', f);
	dir = (uint64_t)ftello(f);
	fwrite("PK\1\2\24", 1, 6, f);
	zip_put_common(f, ZIP_PLAIN, 0, 0, UINT32_MAX, UINT32_MAX, "a", 20);
	zip_put(f, 14, 0);
	fputc('a', f);
	zip_put(f, 4, 0x100001);
	zip_put(f, 8, large);
	zip_put(f, 8, large);
	fwrite("PK\1\2\24", 1, 6, f);
	zip_put_common(f, ZIP_PLAIN, 0, 0, 0, 0, "b", 12);
	zip_put(f, 10, 0);
	zip_put(f, 4, UINT32_MAX);
	fputc('b', f);
	zip_put(f, 4, 0x80001);
	zip_put(f, 8, 51 + large);
	zip_put_end(f, 2, dir, (uint64_t)ftello(f) - dir, ZIP_TORCH);
	fflush(f);
	fd = dup(fd);
	fclose(f);
	return fd;
}

Test(zip, zip64)
{
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };
	int fd = make_large();

	cr_assert_eq(memfile_open_fd(&f, fd, &e), 0, "%s", e.msg);
	close(fd);
	cr_assert_eq(ob_zip_open(&z, f, &e), 0, "%s", e.msg);
	cr_assert_eq(z.n, 2);
	cr_expect_eq(z.member[0].off, 51);
	cr_expect_eq(z.member[0].size, large);
	cr_expect_eq(z.member[0].stored_size, large);
	cr_expect_eq(z.member[1].head, 51 + large);
	cr_expect_eq(z.member[1].size, 0);
	ob_zip_close(&z);
	ob_file_close(f);
}

/* ---- bytes ---- */

/* Reads the only member of an archive, at most `max` bytes, with its byte at `flip` changed. */
static enum ob_code read_one(const struct zip_spec *m, long flip, size_t max)
{
	size_t size;
	uint8_t *zip = zip_make(m, 1, ZIP_TORCH, &size);
	const uint8_t *data;
	struct ob_file *f;
	struct ob_zip z;
	void *owned;
	ob_err e = { 0 };

	if (flip >= 0)
		zip[30 + strlen(m->name) + (size_t)flip] ^= 1;
	cr_assert_eq(open_bytes(&z, zip, size, &f, &e), 0, "%s", e.msg);
	if (ob_zip_read(&z, z.member, max, &data, &owned, &e) == 0)
		cr_expect_arr_eq(data, m->data, m->n);
	ob_free(owned);
	ob_zip_close(&z);
	ob_file_close(f);
	free(zip);
	cr_expect_eq(ob_alloc_stats().in_use, 0);
	return e.code;
}

Test(zip, damaged_bytes)
{
	for (long i = -1; i < 10; i++)
		cr_expect_eq(read_one(&members[0], i, 10), i < 0 ? OB_OK : OB_CORRUPT);
	for (long i = -1; i < 4; i++)
		cr_expect_eq(read_one(&members[3], i, 64), i < 0 ? OB_OK : OB_CORRUPT);
}

Test(zip, limits)
{
	static uint8_t zeros[3 << 20];
	const struct zip_spec bomb = { "bomb", zeros, sizeof(zeros), 1 };
	const struct zip_spec small = { "small", zeros, 1 << 20, 1 };

	cr_expect_eq(read_one(&members[0], -1, 9), OB_LIMIT);
	cr_expect_eq(read_one(&members[3], -1, 63), OB_LIMIT);
	cr_expect_eq(read_one(&bomb, -1, sizeof(zeros)), OB_LIMIT);
	cr_expect_eq(read_one(&small, -1, sizeof(zeros)), OB_OK);
}

/* torch can be told to leave checksums out. */
Test(zip, no_checksum)
{
	size_t size;
	uint8_t *zip = zip_make(members, 1, ZIP_TORCH, &size);
	const uint8_t *data;
	struct ob_file *f;
	struct ob_zip z;
	void *owned;
	ob_err e = { 0 };

	memset(find_record(zip, size, CENTRAL) + 16, 0, 4);
	cr_assert_eq(open_bytes(&z, zip, size, &f, &e), 0, "%s", e.msg);
	cr_expect_eq(ob_zip_read(&z, z.member, 10, &data, &owned, &e), 0, "%s", e.msg);
	ob_free(owned);
	ob_zip_close(&z);
	ob_file_close(f);
	free(zip);
}

/* Where no checksum would tell. */
Test(zip, deflated_to_another_size)
{
	for (int delta = -1; delta <= 1; delta++) {
		size_t size;
		uint8_t *zip = zip_make(&members[3], 1, ZIP_TORCH, &size);
		uint8_t *central = find_record(zip, size, CENTRAL);
		const uint8_t *data;
		struct ob_file *f;
		struct ob_zip z;
		void *owned;
		ob_err e = { 0 };

		memset(central + 16, 0, 4);
		central[24] = (uint8_t)(64 + delta);
		cr_assert_eq(open_bytes(&z, zip, size, &f, &e), 0, "%s", e.msg);
		ob_zip_read(&z, z.member, 65, &data, &owned, &e);
		cr_expect_eq(e.code, delta ? OB_CORRUPT : OB_OK, "%s", e.msg);
		ob_free(owned);
		ob_zip_close(&z);
		ob_file_close(f);
		free(zip);
	}
}

Test(zip, too_many_members)
{
	/* 2^20 + 1 members */
	static const uint8_t end64[56] = {
		'P', 'K', 6, 6, 44, [24] = 1, [26] = 16, [32] = 1, [34] = 16
	};
	static const uint8_t locator[20] = { 'P', 'K', 6, 7, [16] = 1 };
	static const uint8_t end[22] = { 'P', 'K', 5, 6, [8] = 255, 255, 255, 255 };
	uint8_t zip[98];
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	memcpy(zip, end64, 56);
	memcpy(zip + 56, locator, 20);
	memcpy(zip + 76, end, 22);
	cr_expect_eq(open_bytes(&z, zip, sizeof(zip), &f, &e), -1);
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
	ob_file_close(f);
}

static int open_and_read(void *ctx, ob_err *e)
{
	const uint8_t *data;
	struct ob_zip z;
	void *owned = NULL;
	int rc;

	if (ob_zip_open(&z, ctx, e) != 0)
		return -1;
	rc = ob_zip_read(&z, &z.member[3], 64, &data, &owned, e);
	ob_free(owned);
	ob_zip_close(&z);
	return rc;
}

Test(zip, allocation_failures)
{
	size_t size;
	uint8_t *zip = zip_make(members, N, ZIP_TORCH, &size);
	struct ob_file *f;
	struct ob_zip z;
	ob_err e = { 0 };

	cr_assert_eq(open_bytes(&z, zip, size, &f, &e), 0, "%s", e.msg);
	ob_zip_close(&z);
	cr_expect_gt(oom_sweep(open_and_read, f), 3);
	ob_file_close(f);
	free(zip);
}
