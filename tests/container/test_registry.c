/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a container: by suffix first, else by content. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container/container.h"

static const char empty_safetensors[] = "\x08\0\0\0\0\0\0\0{}      ";
static const char zip_start[] = "PK\3\4................";

/* Lists a file called `name` with these bytes; 0 or -1. */
static int list(const char *name, const void *data, size_t n, ob_err *e)
{
	char dir[] = "/tmp/registry-XXXXXX", path[128];
	struct ob_arena a = { 0 };
	struct ob_listing l;
	struct ob_file *f;
	FILE *out;
	int rc;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	out = fopen(path, "wb");
	fwrite(data, 1, n, out);
	fclose(out);
	cr_assert_eq(ob_file_open(&f, path, e), 0, "%s", e->msg);
	rc = ob_container_list(f, &a, &l, e);
	ob_arena_free(&a);
	ob_file_close(f);
	unlink(path);
	rmdir(dir);
	return rc;
}

Test(registry, every_container_is_complete)
{
	cr_assert_not_null(ob_containers[0]);
	for (const struct ob_container *const *c = ob_containers; *c; c++) {
		cr_expect((*c)->name && (*c)->suffix && (*c)->suffix[0] && (*c)->probe &&
			  (*c)->open);
		for (const struct ob_container *const *d = ob_containers; d < c; d++)
			cr_expect_str_neq((*c)->name, (*d)->name);
	}
}

Test(registry, suffix_decides)
{
	ob_err e = { 0 };

	cr_expect_eq(list("a.safetensors", empty_safetensors, 16, &e), 0, "%s", e.msg);
	cr_expect_eq(list("a.safetensors", zip_start, 20, &e), -1);
	cr_expect(strstr(e.msg, "safetensors file"), "%s", e.msg);
	e = (ob_err){ 0 };
	cr_expect_eq(list("a.npz", empty_safetensors, 16, &e), -1);
	cr_expect(strstr(e.msg, "zip archive"), "%s", e.msg);
	for (const char **s = (const char *[]){ "a.bin", "a.pt", "a.pth", "a.ckpt", NULL }; *s;
	     s++) {
		e = (ob_err){ 0 };
		cr_expect_eq(list(*s, empty_safetensors, 16, &e), -1);
		cr_expect_eq(e.code, OB_UNSUPPORTED, "%s", e.msg);
		cr_expect(strstr(e.msg, "torch.save"), "%s", e.msg);
	}
}

Test(registry, content_decides_without_a_suffix)
{
	ob_err e = { 0 };

	cr_expect_eq(list("0a1b2c", empty_safetensors, 16, &e), 0, "%s", e.msg);
	cr_expect_eq(list("0a1b2c", zip_start, 20, &e), -1);
	cr_expect(strstr(e.msg, "zip"), "%s", e.msg);
}

Test(registry, nobody_takes_it)
{
	static const char *const data[] = { "", "x", "\x08\0\0\0\0\0\0\0[]      ", "{\"a\":1}    ",
					    "\x02\0\0\0\0\0\0\0" };

	for (size_t i = 0; i < sizeof(data) / sizeof(*data); i++) {
		ob_err e = { 0 };

		cr_expect_eq(list("a.txt", data[i],
				  i == 2   ? 16
				  : i == 4 ? 8
					   : strlen(data[i]),
				  &e),
			     -1);
		cr_expect_eq(e.code, OB_UNSUPPORTED, "%s", e.msg);
		cr_expect(strstr(e.msg, "/a.txt"), "%s", e.msg);
	}
}
