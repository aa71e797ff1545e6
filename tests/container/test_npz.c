/* SPDX-License-Identifier: Apache-2.0 */
/* Archives of numpy.savez: what is listed, where its bytes are, and what is refused. */
#include <criterion/criterion.h>

#include "../base/oom.h"
#include "memfile.h"
#include "zipmaker.h"

static struct ob_arena arena;
static struct ob_file *file;
static struct ob_listing list;

static void clear(void)
{
	ob_file_close(list.unpacked);
	ob_file_close(file);
	ob_arena_free(&arena);
	list = (struct ob_listing){ 0 };
	file = NULL;
}

static int open_zip(const struct zip_spec *m, size_t n, ob_err *e)
{
	size_t size;
	uint8_t *zip = zip_make(m, n, ZIP_NUMPY, &size);
	int fd = memfile_fd(zip, size), rc;

	clear();
	cr_assert_eq(memfile_open_fd(&file, fd, e), 0, "%s", e->msg);
	close(fd);
	free(zip);
	rc = ob_container_npz.open(file, &arena, &list, e);
	if (rc == 0)
		cr_expect_null(listing_broken(&list), "%s", listing_broken(&list));
	return rc;
}

/* An npy of version 1 (the header below 256 bytes) in a static buffer. */
static struct zip_spec npy(const char *name, const char *header, const void *data, size_t n,
			   int deflated)
{
	static uint8_t buf[8][512];
	static unsigned next;
	uint8_t *p = buf[next++ % 8];
	size_t len = strlen(header);

	memcpy(p, "\x93NUMPY\1\0", 8);
	p[8] = (uint8_t)len;
	p[9] = 0;
	memcpy(p + 10, header, len);
	if (n)
		memcpy(p + 10 + len, data, n);
	return (struct zip_spec){ name, p, 10 + len + n, deflated };
}

#define HEADER(descr, fortran, shape) \
	"{'descr': '" descr "', 'fortran_order': " fortran ", 'shape': " shape ", }   \n"

TestSuite(npz, .fini = clear);

Test(npz, arrays)
{
	static const float x[6] = { 1, 2, 3, 4, 5, 6 };
	const struct zip_spec m[] = {
		npy("w.npy", HEADER("<f4", "False", "(2, 3)"), x, 24, 0),
		npy("deflated.npy", HEADER("<f4", "False", "(6,)"), x, 24, 1),
		npy("t.npy", HEADER("<f4", "True", "(2, 3)"), x, 24, 0),
		npy("bf16.npy", HEADER("|V2", "False", "(3, 2)"), x, 12, 0),
		npy("scalar.npy", HEADER("<i8", "False", "()"), x, 8, 0),
		npy("empty.npy", HEADER("=f2", "True", "(0, 4)"), x, 0, 0),
		{ "notes.txt", "no array", 8, 1 },
	};
	unsigned seen = 0;
	ob_err e = { 0 };

	cr_assert_eq(open_zip(m, 7, &e), 0, "%s", e.msg);
	cr_assert_eq(list.n_tensors, 6);
	for (size_t i = 0; i < list.n_tensors; i++) {
		const struct ob_stored *t = &list.tensor[i];
		const uint8_t *p = t->file->map + t->off;

		if (!strcmp(t->name, "w") || !strcmp(t->name, "deflated")) {
			cr_expect_arr_eq(p, x, 24);
			cr_expect_eq(t->file == file, !strcmp(t->name, "w"));
			cr_expect_eq(t->dtype, OB_F32);
			cr_expect_null(t->stride);
			seen++;
		} else if (!strcmp(t->name, "t")) {
			cr_assert_not_null(t->stride);
			cr_expect_eq(t->stride[0], 1);
			cr_expect_eq(t->stride[1], 2);
			cr_expect_eq(t->len, 24);
			seen++;
		} else if (!strcmp(t->name, "bf16")) {
			cr_expect_eq(t->dtype, OB_BF16);
			cr_expect_eq(t->shape.dim[0], 3);
			seen++;
		} else if (!strcmp(t->name, "scalar")) {
			cr_expect_eq(t->dtype, OB_I64);
			cr_expect_eq(t->shape.rank, 0);
			seen++;
		} else if (!strcmp(t->name, "empty")) {
			cr_expect_eq(t->len, 0);
			cr_expect_null(t->stride);
			seen++;
		}
	}
	cr_expect_eq(seen, 6);
}

Test(npz, refused_arrays)
{
	static const struct {
		const char *header;
		enum ob_code code;
		const char *word;
	} cases[] = {
		{ HEADER("|O", "False", "(1,)"), OB_UNSUPPORTED, "type" },
		{ HEADER(">f4", "False", "(1,)"), OB_UNSUPPORTED, "little-endian" },
		{ HEADER("<f4", "False", "(2,)"), OB_CORRUPT, "4 bytes" },
		{ HEADER("<f4", "False", "(-1,)"), OB_CORRUPT, "header" },
		{ HEADER("<f4", "False", "(4294967296, 4294967297, 1)"), OB_CORRUPT, "4 bytes" },
		{ HEADER("<f4", "False", "(18446744073709551616,)"), OB_CORRUPT, "header" },
		{ HEADER("<f4", "Maybe", "(1,)"), OB_CORRUPT, "header" },
		{ "{'descr': '<f4', 'shape': (1,)}", OB_CORRUPT, "header" },
		{ "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
		  OB_CORRUPT, "header" },
		{ "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", OB_CORRUPT,
		  "header" },
		{ HEADER("<f4", "False", "(1,)") "x", OB_CORRUPT, "header" },
		{ "", OB_CORRUPT, "header" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (int deflated = 0; deflated < 2; deflated++) {
			const struct zip_spec m[] = { npy("bad.npy", cases[i].header, "1234", 4,
							  deflated) };
			ob_err e = { 0 };

			cr_expect_eq(open_zip(m, 1, &e), -1, "%s", cases[i].header);
			cr_expect_eq(e.code, cases[i].code, "%s", e.msg);
			cr_expect(strstr(e.msg, "\"bad\"") && strstr(e.msg, cases[i].word), "%s",
				  e.msg);
		}
}

Test(npz, no_arrays)
{
	const struct zip_spec text = { "a.txt", "x", 1, 0 }, torn = { "a.npy", "\x93NUM", 4, 0 };
	const struct zip_spec old = { "a.npy", "\x93NUMPY\0\0\0\0\0\0", 12, 0 };
	ob_err e = { 0 };

	cr_expect_eq(open_zip(&text, 1, &e), -1);
	cr_expect_eq(e.code, OB_UNSUPPORTED, "%s", e.msg);
	e = (ob_err){ 0 };
	cr_expect_eq(open_zip(&torn, 1, &e), -1);
	cr_expect_eq(e.code, OB_CORRUPT, "%s", e.msg);
	e = (ob_err){ 0 };
	cr_expect_eq(open_zip(&old, 1, &e), -1);
	cr_expect_eq(e.code, OB_CORRUPT, "%s", e.msg);
}

/* What unpacks to far more than it takes is refused before it fills a disk. */
Test(npz, bomb)
{
	static uint8_t zeros[8 << 20];
	const struct zip_spec m = { "a.npy", zeros, sizeof(zeros), 1 };
	ob_err e = { 0 };

	cr_expect_eq(open_zip(&m, 1, &e), -1);
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
}

Test(npz, temporary_folder_that_is_not_there)
{
	const struct zip_spec m[] = { npy("w.npy", HEADER("<f4", "False", "(1,)"), "1234", 4, 1) };
	ob_err e = { 0 };

	setenv("TMPDIR", "/nowhere", 1);
	cr_expect_eq(open_zip(m, 1, &e), -1);
	cr_expect_eq(e.code, OB_IO, "%s", e.msg);
	cr_expect(strstr(e.msg, "/nowhere"), "%s", e.msg);
}

static int list_again(void *unused, ob_err *e)
{
	struct ob_arena a = { 0 };
	struct ob_listing l = { 0 };
	int rc = ob_container_npz.open(file, &a, &l, e);

	(void)unused;
	ob_file_close(l.unpacked);
	ob_arena_free(&a);
	return rc;
}

Test(npz, without_memory)
{
	const struct zip_spec m[] = {
		npy("w.npy", HEADER("<f4", "False", "(1,)"), "1234", 4, 1),
		npy("x.npy", HEADER("<f4", "True", "(1, 1)"), "1234", 4, 0),
	};
	ob_err e = { 0 };

	cr_assert_eq(open_zip(m, 2, &e), 0, "%s", e.msg);
	cr_expect_gt(oom_sweep(list_again, NULL), 5);
}
