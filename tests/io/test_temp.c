/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "../base/oom.h"
#include "io/temp.h"
#include "scratch.h"

static void begin(void)
{
	scratch_make();
	setenv("TMPDIR", scratch_dir, 1);
}

TestSuite(temp, .init = begin, .fini = scratch_remove);

static int write_pattern(void *bytes, ob_err *e)
{
	struct ob_temp t;
	struct ob_file *f = NULL;
	size_t n = *(const size_t *)bytes;
	uint8_t piece[777];
	int rc = ob_temp_open(&t, e);

	for (size_t i = 0; i < n && rc == 0; i += sizeof(piece)) {
		size_t m = n - i < sizeof(piece) ? n - i : sizeof(piece);

		for (size_t k = 0; k < m; k++)
			piece[k] = (uint8_t)((i + k) * 31 >> 3);
		rc = ob_temp_write(&t, piece, m, e);
	}
	if (rc == 0)
		rc = ob_temp_finish(&t, &f, "the array", e);
	else
		ob_temp_close(&t);
	if (rc == 0) {
		cr_assert_eq(f->stamp.size, n);
		cr_assert_str_eq(f->path, "the array");
		for (size_t i = 0; i < n; i++)
			cr_assert_eq(f->map[i], (uint8_t)(i * 31 >> 3), "byte %zu", i);
	}
	ob_file_close(f);
	return rc;
}

Test(temp, bytes_come_back)
{
	const size_t sizes[] = { 0, 1, 65535, 65536, 65537, 300000 };
	ob_err e = { 0 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		cr_assert_eq(write_pattern((void *)(uintptr_t)&sizes[i], &e), 0, "%s", e.msg);
	cr_assert_eq(rmdir(scratch_dir), 0, "something has a name");
	unsetenv("TMPDIR");
	scratch_make();
}

Test(temp, no_folder)
{
	struct ob_temp t;
	ob_err e = { 0 };

	setenv("TMPDIR", "/nowhere", 1);
	cr_assert_eq(ob_temp_open(&t, &e), -1);
	cr_assert_eq(e.code, OB_IO);
	cr_assert_not_null(strstr(e.msg, "/nowhere"));
}

Test(temp, without_memory)
{
	size_t n = 70000;

	cr_assert_gt(oom_sweep(write_pattern, &n), 1);
}
