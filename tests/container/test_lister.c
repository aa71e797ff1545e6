/* SPDX-License-Identifier: Apache-2.0 */
/* The growing listing: names that are refused, order. */
#include <criterion/criterion.h>

#include "container/lister.h"

static struct ob_file file = { .path = "dir/x.bin" };
static struct ob_arena arena;

Test(lister, refuses_names)
{
	static char name[OB_MAX_NAME + 1];
	static const struct {
		const char *name;
		size_t len;
		enum ob_code code;
	} bad[] = {
		{ name, sizeof(name), OB_LIMIT },
		{ "a\0b", 3, OB_UNSUPPORTED },
		{ "a\xff", 2, OB_CORRUPT },
		{ "twice", 5, OB_CORRUPT },
	};
	struct ob_lister l = { .file = &file, .arena = &arena };
	ob_err e = { 0 };

	memset(name, 'n', sizeof(name));
	cr_assert_not_null(ob_lister_add(&l, "twice", 5, &e));
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		e = (ob_err){ 0 };
		cr_expect_null(ob_lister_add(&l, bad[i].name, bad[i].len, &e));
		cr_expect_eq(e.code, bad[i].code, "%s", e.msg);
		cr_expect_eq(strncmp(e.msg, "dir/x.bin", 9), 0, "%s", e.msg);
	}
	cr_expect_eq(l.n, 1);
	ob_lister_free(&l);
	ob_arena_free(&arena);
}

Test(lister, counts_to_the_limit)
{
	struct ob_lister l = { .file = &file, .arena = &arena, .n = OB_MAX_TENSORS };
	ob_err e = { 0 };

	cr_expect_null(ob_lister_add(&l, "a", 1, &e));
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
}

Test(lister, sorts_by_place_then_length_then_name)
{
	static const struct {
		const char *name;
		uint64_t off, len;
	} in[] = { { "d", 8, 8 }, { "a", 16, 0 }, { "c", 8, 0 }, { "b", 8, 0 }, { "e", 0, 8 } };
	struct ob_lister l = { .file = &file, .arena = &arena };
	struct ob_listing out;
	char names[6] = "";
	ob_err e = { 0 };

	for (size_t i = 0; i < 5; i++) {
		struct ob_stored *t = ob_lister_add(&l, in[i].name, 1, &e);

		t->off = in[i].off;
		t->len = in[i].len;
	}
	ob_lister_sort(&l);
	cr_assert_eq(ob_lister_finish(&l, &out, &e), 0, "%s", e.msg);
	ob_lister_free(&l);
	cr_assert_eq(out.n_tensors, 5);
	for (size_t i = 0; i < 5; i++)
		strcat(names, out.tensor[i].name);
	cr_expect_str_eq(names, "ebcda");
	ob_arena_free(&arena);
}

Test(lister, shows_harmless_names)
{
	struct ob_lister l = { .file = &file };
	ob_err e = { 0 };

	cr_expect_eq(ob_lister_fail(&l, "a\x1b[2J", &e, OB_CORRUPT, "is %d", 1), -1);
	cr_expect_str_eq(e.msg, "dir/x.bin: tensor \"a\\x1b[2J\" is 1");
}
