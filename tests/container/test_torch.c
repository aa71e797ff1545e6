/* SPDX-License-Identifier: Apache-2.0 */
/* Files of torch.save: which tensors are listed, under which name, and where their bytes are. */
#include <criterion/criterion.h>

#include "../base/oom.h"
#include "base/json.h"
#include "memfile.h"
#include "pickles.h"
#include "zipmaker.h"

static const char storage[24] = "24 bytes, or 6 elements.";

static struct ob_arena arena;
static struct ob_file *file;

/* Lists a file of these bytes. Frees what the last call left. */
static int list_bytes(const void *data, size_t n, struct ob_listing *l, ob_err *e)
{
	int fd = memfile_fd(data, n), rc;

	ob_arena_free(&arena);
	ob_file_close(file);
	rc = memfile_open_fd(&file, fd, e);
	close(fd);
	cr_assert_eq(rc, 0, "%s", e->msg);
	rc = ob_container_torch.open(file, &arena, l, e);
	if (rc == 0)
		cr_expect_null(listing_broken(l), "%s", listing_broken(l));
	return rc;
}

static int list_members(const struct zip_spec *m, size_t n, struct ob_listing *l, ob_err *e)
{
	size_t size;
	uint8_t *zip = zip_make(m, n, ZIP_TORCH, &size);
	int rc = list_bytes(zip, size, l, e);

	free(zip);
	return rc;
}

/* The pickle in an archive with storages "0" and "1". */
static int list_pickle(const char *pickle, size_t n, struct ob_listing *l, ob_err *e)
{
	const struct zip_spec m[] = {
		{ "archive/data.pkl", pickle, n, 0 }, { "archive/byteorder", "little", 6, 0 },
		{ "archive/data/0", storage, 24, 0 }, { "archive/data/1", storage, 24, 0 },
		{ "archive/version", "3\n", 2, 0 },
	};

	return list_members(m, 5, l, e);
}

static void free_last(void)
{
	ob_arena_free(&arena);
	ob_file_close(file);
	file = NULL;
	cr_expect_eq(ob_alloc_stats().in_use, 0);
}

/* name|dtype|shape|offset in the storages|bytes|strides, one line for each tensor. */
static char *listing_text(const struct ob_listing *l)
{
	const uint8_t *base = memmem(file->map, file->stamp.size, storage, sizeof(storage));
	static char text[4096];
	size_t n = 0;

	text[0] = '\0';
	for (size_t i = 0; i < l->n_tensors; i++) {
		const struct ob_stored *t = &l->tensor[i];
		const struct ob_shape stride = { t->shape.rank, t->stride };
		uint64_t off = t->off - (uint64_t)(base - file->map);
		char a[256], b[256] = "";

		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s|%s|%s|%lu|%lu|%s\n", t->name,
				      ob_dtype_name(t->dtype),
				      ob_shape_text(&t->shape, a, sizeof(a)), off, t->len,
				      t->stride ? ob_shape_text(&stride, b, sizeof(b)) : b);
	}
	return text;
}

#define P_VALUE(off, size, stride) P_TENSOR("FloatStorage", "0", "K\6", off, size, stride)
/* {"a": {"b": ..., 7: ...}, "c": ...} */
#define P_NESTED "}(" P_STR("\1", "a") "}(" P_NAMED("b") "K\7" P_SMALL "u" P_NAMED("c") "u."

/* clang-format off */
static const struct {
	const char *about, *pickle;
	size_t n;
	const char *want;
} good[] = {
	{ "a matrix", P_BYTES(P_DICT(P_SMALL)), "w|F32|[2, 3]|0|24|\n" },
	{ "its transpose", P_BYTES(P_DICT(P_VALUE("K\0", "K\3K\2\x86", "K\1K\3\x86"))),
	  "w|F32|[3, 2]|0|24|[1, 3]\n" },
	{ "a row", P_BYTES(P_DICT(P_VALUE("K\3", "K\3\x85", "K\1\x85"))), "w|F32|[3]|12|12|\n" },
	{ "a column", P_BYTES(P_DICT(P_VALUE("K\1", "K\2\x85", "K\3\x85"))),
	  "w|F32|[2]|4|16|[3]\n" },
	{ "a repeated row", P_BYTES(P_DICT(P_VALUE("K\3", "K\x9K\3\x86", "K\0K\1\x86"))),
	  "w|F32|[9, 3]|12|12|[0, 1]\n" },
	{ "a scalar", P_BYTES(P_DICT(P_VALUE("K\5", ")", ")"))), "w|F32|[]|20|4|\n" },
	{ "strides of dimensions of 1 do not matter",
	  P_BYTES(P_DICT(P_VALUE("K\0", "K\2K\1K\3\x87", "K\3M\x99\x99K\1\x87"))),
	  "w|F32|[2, 1, 3]|0|24|\n" },
	{ "no elements, wherever", P_BYTES(P_DICT(P_VALUE("K\x63", "K\2K\0\x86", "K\1K\1\x86"))),
	  "w|F32|[2, 0]|0|0|\n" },
	{ "two types over storages of the same bytes",
	  P_BYTES(P_DICT2(P_STR("\1", "v"),
			  P_TENSOR("HalfStorage", "0", "K\x0c", "K\2", "K\4\x85", "K\1\x85"))),
	  "w|F32|[2, 3]|0|24|\nv|F16|[4]|4|8|\n" },
	{ "one tensor with two names", P_BYTES("}(" P_NAMED("w") "q\0" P_STR("\1", "a") "h\0u."),
	  "a|F32|[2, 3]|0|24|\nw|F32|[2, 3]|0|24|\n" },
	{ "a storage of bytes",
	  P_BYTES(P_DICT("ctorch._utils\n_rebuild_tensor_v3\n("
			 P_STORAGE("torch.storage", "UntypedStorage", "0", "K\x18")
			 "K\4K\2\x85K\1\x85\x89" P_ORDERED_DICT "ctorch\nuint32\ntR")),
	  "w|U32|[2]|16|8|\n" },
	{ "dicts in dicts, and numbers as keys", P_BYTES(P_NESTED),
	  "a.7|F32|[2, 3]|0|24|\na.b|F32|[2, 3]|0|24|\nc|F32|[2, 3]|0|24|\n" },
	{ "what is no tensor is left out",
	  P_BYTES("}(" P_STR("\1", "a") "K\1" P_STR("\1", "b") "](" P_SMALL "e"
		  P_NAMED("w") ")K\1u."),
	  "w|F32|[2, 3]|0|24|\n" },
	{ "no tensors", P_BYTES("}."), "" },
	{ "a state dict in a training checkpoint",
	  P_BYTES("}(" P_STR("\5", "epoch") "K\3"
		  P_STR("\4", "best") P_VALUE("K\0", ")", ")")
		  P_STR("\12", "state_dict") P_ORDERED_DICT "(" P_NAMED("w") "u"
		  "}(" P_STR("\11", "_metadata") P_ORDERED_DICT "ub"
		  P_STR("\11", "optimizer") "}(" P_NAMED("m") "uu."),
	  "w|F32|[2, 3]|0|24|\n" },
	{ "params_ema before params",
	  P_BYTES("}(" P_STR("\6", "params") "}" P_NAMED("a") "s"
		  P_STR("\12", "params_ema") "}" P_NAMED("b") "su."),
	  "b|F32|[2, 3]|0|24|\n" },
	{ "a wrapper in a wrapper",
	  P_BYTES("}" P_STR("\5", "model") "}" P_STR("\6", "module") "}" P_NAMED("w") "sss."),
	  "w|F32|[2, 3]|0|24|\n" },
	{ "a module that is called like a wrapper",
	  P_BYTES("}(" P_STR("\5", "model") "}" P_NAMED("a") "s" P_NAMED("h") "u."),
	  "h|F32|[2, 3]|0|24|\nmodel.a|F32|[2, 3]|0|24|\n" },
	{ "a scalar alone", P_BYTES("}" P_STR("\1", "s") P_VALUE("K\0", ")", ")") "s."),
	  "s|F32|[]|0|4|\n" },
};
/* clang-format on */

Test(torch, lists)
{
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		struct ob_listing l;
		ob_err e = { 0 };

		cr_assert_eq(list_pickle(good[i].pickle, good[i].n, &l, &e), 0, "%s: %s",
			     good[i].about, e.msg);
		cr_expect_str_eq(listing_text(&l), good[i].want, "%s: %s", good[i].about,
				 listing_text(&l));
		cr_expect_eq(l.n_meta, 0);
	}
	free_last();
}

#define P_LONG(bytes) "\x8a\x8" bytes
#define P_2_62 P_LONG("\0\0\0\0\0\0\0\x40")

/* clang-format off */
static const struct {
	const char *about, *pickle;
	size_t n;
	enum ob_code code;
	const char *word;
} bad[] = {
	{ "a tensor alone", P_BYTES(P_SMALL "."), OB_UNSUPPORTED, "state_dict" },
	{ "a list of tensors", P_BYTES("](" P_SMALL "e."), OB_UNSUPPORTED, "state_dict" },
	{ "a call", P_BYTES("cposix\ngetcwd\n)R."), OB_UNSAFE, "posix.getcwd" },
	{ "a storage that is not there",
	  P_BYTES(P_DICT(P_TENSOR("FloatStorage", "2", "K\6", "K\0", "K\6\x85", "K\1\x85"))),
	  OB_CORRUPT, "\"w\"" },
	{ "a storage elsewhere",
	  P_BYTES(P_DICT(P_TENSOR("FloatStorage", "/", "K\6", "K\0", "K\6\x85", "K\1\x85"))),
	  OB_CORRUPT, "\"w\"" },
	{ "a storage larger than its member",
	  P_BYTES(P_DICT(P_TENSOR("FloatStorage", "0", "K\7", "K\0", "K\6\x85", "K\1\x85"))),
	  OB_CORRUPT, "24 bytes" },
	{ "a storage whose size overflows",
	  P_BYTES(P_DICT(P_TENSOR("FloatStorage", "0", P_2_62, "K\0", "K\6\x85", "K\1\x85"))),
	  OB_CORRUPT, "24 bytes" },
	{ "one element too many", P_BYTES(P_DICT(P_VALUE("K\0", "K\7\x85", "K\1\x85"))), OB_CORRUPT,
	  "beyond" },
	{ "an offset too large", P_BYTES(P_DICT(P_VALUE("K\1", "K\6\x85", "K\1\x85"))), OB_CORRUPT,
	  "beyond" },
	{ "a stride too large", P_BYTES(P_DICT(P_VALUE("K\0", "K\2\x85", "K\6\x85"))), OB_CORRUPT,
	  "beyond" },
	{ "a scalar behind the end", P_BYTES(P_DICT(P_VALUE("K\6", ")", ")"))), OB_CORRUPT,
	  "beyond" },
	{ "a stride that overflows", P_BYTES(P_DICT(P_VALUE("K\0", "K\5\x85", P_2_62 "\x85"))),
	  OB_CORRUPT, "beyond" },
	{ "strides whose sum overflows",
	  P_BYTES(P_DICT(P_VALUE("K\0", "K\3K\3\x86", P_2_62 P_2_62 "\x86"))), OB_CORRUPT,
	  "beyond" },
	{ "an offset that overflows", P_BYTES(P_DICT(P_VALUE(P_2_62, "K\1\x85", "K\1\x85"))),
	  OB_CORRUPT, "beyond" },
	{ "a place that overflows to 0",
	  P_BYTES(P_DICT(P_VALUE(P_LONG("\xff\xff\xff\xff\xff\xff\xff\x7f"), "K\3K\2\x86",
				 P_2_62 "K\1\x86"))), OB_CORRUPT, "beyond" },
	{ "a shape that overflows, by repetition",
	  P_BYTES(P_DICT(P_VALUE("K\0", P_2_62 "K\4\x86", "K\0K\0\x86"))), OB_CORRUPT, "2^64" },
	{ "4-bit elements",
	  P_BYTES(P_DICT("ctorch._utils\n_rebuild_tensor_v3\n("
			 P_STORAGE("torch.storage", "UntypedStorage", "0", "K\x18")
			 "K\0K\2\x85K\1\x85\x89" P_ORDERED_DICT "ctorch\nfloat4_e2m1fn_x2\ntR")),
	  OB_UNSUPPORTED, "F4" },
	{ "a name twice", P_BYTES(P_DICT2(P_STR("\1", "w"), P_SMALL)), OB_CORRUPT, "twice" },
	{ "a name twice, by nesting",
	  P_BYTES("}(" P_STR("\1", "a") "}" P_STR("\1", "b") P_SMALL "s" P_STR("\3",
	  "a.b") P_SMALL "u."), OB_CORRUPT, "\"a.b\"" },
	{ "a name that is not UTF-8", P_BYTES("}U\1\xff" P_SMALL "s."), OB_CORRUPT, "UTF-8" },
	{ "a name with NUL", P_BYTES("}U\1\0" P_SMALL "s."), OB_UNSUPPORTED, "NUL" },
	{ "a name that is a tuple", P_BYTES("})" P_SMALL "s."), OB_UNSUPPORTED, "key" },
	{ "a dict in itself", P_BYTES("}q\0" P_STR("\1", "a") "h\0s."), OB_LIMIT, "nested" },
	{ "a dict in two places",
	  P_BYTES("}(" P_STR("\1", "a") "}q\0" P_STR("\1", "w") P_SMALL "s" P_STR("\1",
	  "b") "h\0u."), OB_LIMIT, "nested" },
};
/* clang-format on */

Test(torch, refuses_by_name)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ob_listing l;
		ob_err e = { 0 };

		cr_expect_eq(list_pickle(bad[i].pickle, bad[i].n, &l, &e), -1, "%s was accepted",
			     bad[i].about);
		cr_expect_eq(e.code, bad[i].code, "%s: %s", bad[i].about, e.msg);
		cr_expect(strstr(e.msg, bad[i].word), "%s: %s", bad[i].about, e.msg);
		cr_expect_eq(strncmp(e.msg, file->path, strlen(file->path)), 0, "%s: %s",
			     bad[i].about, e.msg);
	}
	free_last();
}

/* ---- archives ---- */

#define PICKLE                                                  \
	{                                                       \
		"archive/data.pkl", P_BYTES(P_DICT(P_SMALL)), 0 \
	}
#define STORAGE                                  \
	{                                        \
		"archive/data/0", storage, 24, 0 \
	}

/* clang-format off */
static const struct {
	const char *about;
	struct zip_spec m[3];
	enum ob_code code;
	const char *word;
} archives[] = {
	{ "in any order, without a byte order", { STORAGE, PICKLE, { "archive/version", "3", 1,
	  0 } }, OB_OK, "" },
	{ "a compressed pickle",
	  { STORAGE, { "archive/data.pkl", P_BYTES(P_DICT(P_SMALL)), 1 }, { "archive/x", "", 0,
	  0 } }, OB_OK, "" },
	{ "a compressed storage", { { "archive/data/0", storage, 24, 1 }, PICKLE, { "archive/x", "",
	  0, 0 } },
	  OB_UNSUPPORTED, "compressed" },
	{ "big-endian", { STORAGE, PICKLE, { "archive/byteorder", "big", 3, 0 } }, OB_UNSUPPORTED,
	  "byte order" },
	{ "a byte order of 65 characters",
	  { STORAGE, PICKLE,
	    { "archive/byteorder",
	  "12345678901234567890123456789012345678901234567890123456789012345", 65, 0 } },
	  OB_LIMIT, "byteorder" },
	{ "a program", { STORAGE, PICKLE, { "archive/constants.pkl", "", 0, 0 } }, OB_UNSUPPORTED,
	  "TorchScript" },
	{ "no pickle", { STORAGE, { "archive/x", "", 0, 0 }, { "archive/y", "", 0, 0 } },
	  OB_UNSUPPORTED, "torch.save" },
	{ "no folder", { { "data.pkl", P_BYTES(P_DICT(P_SMALL)), 0 }, { "data/0", storage, 24, 0 },
			 { "y", "", 0, 0 } }, OB_UNSUPPORTED, "torch.save" },
	{ "arrays of numpy", { { "a.npy", "", 0, 0 }, { "b.npy", "", 0, 0 }, { "c.npy", "", 0,
	  0 } },
	  OB_UNSUPPORTED, "torch.save" },
	{ "a pickle in another folder", { { "x/data.pkl", "N.", 2, 0 }, STORAGE, PICKLE },
	  OB_UNSUPPORTED, "dict" },
};
/* clang-format on */

Test(torch, archives)
{
	for (size_t i = 0; i < sizeof(archives) / sizeof(*archives); i++) {
		struct ob_listing l;
		ob_err e = { 0 };
		int rc = list_members(archives[i].m, 3, &l, &e);

		cr_expect_eq(rc, archives[i].code == OB_OK ? 0 : -1, "%s", archives[i].about);
		cr_expect_eq(e.code, archives[i].code, "%s: %s", archives[i].about, e.msg);
		cr_expect(strstr(e.msg, archives[i].word), "%s: %s", archives[i].about, e.msg);
	}
	free_last();
}

Test(torch, no_archive)
{
	static char tar[512];
	static const struct {
		const char *data;
		size_t n;
		const char *word;
	} cases[] = {
		{ tar, 512, "before torch 1.6" },
		{ P_BYTES("\x80\2}."), "zip" },
		{ "", 0, "zip" },
		{ "PK\3", 3, "zip" },
	};

	memcpy(tar + 257, "ustar", 5);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_listing l;
		ob_err e = { 0 };

		cr_expect_eq(list_bytes(cases[i].data, cases[i].n, &l, &e), -1);
		cr_expect_eq(e.code, OB_UNSUPPORTED, "%s", e.msg);
		cr_expect(strstr(e.msg, cases[i].word), "%s", e.msg);
	}
	free_last();
}

/* ---- before torch 1.6 ---- */

#define L_MAGIC "\x80\2\x8a\12\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define L_VERSION "\x80\2M\xe9\3."
#define L_MACHINE(little) "\x80\2}" P_STR("\15", "little_endian") little "s."
#define L_STORAGE(view)                                                      \
	"(" P_STR("\7", "storage") "ctorch\nFloatStorage\n" P_STR("\1", "0") \
		P_STR("\3", "cpu") "K\6" view "tQ"
#define L_OBJECT(view) \
	P_DICT(P_REBUILD "(" L_STORAGE(view) "K\0K\2K\1\x86K\1K\1\x86\x89" P_ORDERED_DICT "tR")
#define L_KEYS "\x80\2]" P_STR("\1", "0") "a."
#define L_HEAD L_MAGIC L_VERSION L_MACHINE("\x88")
#define L_SIX "\6\0\0\0\0\0\0\0"
#define L_DATA "24 bytes, or 6 elements."

Test(torch, legacy)
{
	static const char whole[] = L_HEAD L_OBJECT("N") L_KEYS L_SIX L_DATA;
	static const char view[] = L_HEAD L_OBJECT("(" P_STR("\1", "9") "K\3K\2t")
		L_KEYS L_SIX L_DATA;
	struct ob_listing l;
	ob_err e = { 0 };

	cr_assert_eq(list_bytes(whole, sizeof(whole) - 1, &l, &e), 0, "%s", e.msg);
	cr_assert_eq(l.n_tensors, 1);
	cr_expect_str_eq(l.tensor[0].name, "w");
	cr_expect_eq(l.tensor[0].dtype, OB_F32);
	cr_expect_eq(l.tensor[0].off, sizeof(whole) - 1 - 24);
	cr_expect_eq(l.tensor[0].len, 8);
	cr_assert_eq(list_bytes(view, sizeof(view) - 1, &l, &e), 0, "%s", e.msg);
	cr_expect_eq(l.tensor[0].off, sizeof(view) - 1 - 24 + 12);
	free_last();
}

Test(torch, damaged_legacy)
{
	static const struct {
		const char *data;
		size_t n;
		enum ob_code code;
		const char *word;
	} cases[] = {
		{ P_BYTES(L_MAGIC "K\1."), OB_CORRUPT, "pickle" },
		{ P_BYTES(L_MAGIC "K\1." L_MACHINE("\x88")), OB_UNSUPPORTED, "version" },
		{ P_BYTES(L_MAGIC L_VERSION L_MACHINE("\x89")), OB_UNSUPPORTED, "byte order" },
		{ P_BYTES(L_MAGIC L_VERSION "}."), OB_UNSUPPORTED, "byte order" },
		{ P_BYTES(L_HEAD "cposix\nsystem\n."), OB_UNSAFE, "posix.system" },
		{ P_BYTES(L_HEAD L_OBJECT("N") "}."), OB_CORRUPT, "list its storages" },
		{ P_BYTES(L_HEAD L_OBJECT("N") L_KEYS), OB_CORRUPT, "ends before" },
		{ P_BYTES(L_HEAD L_OBJECT("N") L_KEYS L_SIX "short"), OB_CORRUPT, "beyond" },
		{ P_BYTES(L_HEAD L_OBJECT("N") L_KEYS "\377\377\377\377\377\377\377\377" L_DATA),
		  OB_CORRUPT, "beyond" },
		{ P_BYTES(L_HEAD L_OBJECT("N") "]."), OB_CORRUPT, "does not have" },
		{ P_BYTES(L_HEAD L_OBJECT("N") "]" P_STR("\1", "1") "a." L_SIX L_DATA), OB_CORRUPT,
		  "belongs to nothing" },
		{ P_BYTES(L_HEAD L_OBJECT("N") "](" P_STR("\1", "0")
				  P_STR("\1", "0") "e."
						   "\1\0\0\0\0\0\0\0"
						   "abcd"
						   "\1\0\0\0\0\0\0\0"
						   "abcd"),
		  OB_CORRUPT, "twice" },
		{ P_BYTES(L_HEAD L_OBJECT("(" P_STR("\1", "9") "K\5K\2t") L_KEYS L_SIX L_DATA),
		  OB_CORRUPT, "storage of 7 elements" },
		{ P_BYTES(L_HEAD L_OBJECT("K\1") L_KEYS L_SIX L_DATA), OB_CORRUPT, "view" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ob_listing l;
		ob_err e = { 0 };

		cr_expect_eq(list_bytes(cases[i].data, cases[i].n, &l, &e), -1, "%zu", i);
		cr_expect_eq(e.code, cases[i].code, "%zu: %s", i, e.msg);
		cr_expect(strstr(e.msg, cases[i].word), "%zu: %s", i, e.msg);
	}
	free_last();
}

/* ---- limits ---- */

/* A pickle of `depth` dicts, each under a key of `len` bytes, with a tensor inside. */
static enum ob_code list_nested(unsigned depth, size_t len)
{
	static const char small[] = P_STR("\1", "w") P_SMALL "s";
	struct ob_text p = { 0 };
	struct ob_listing l;
	ob_err e = { 0 };

	ob_text_add(&p, "}", 1);
	for (unsigned i = 0; i < depth; i++) {
		ob_text_add(&p, "X", 1);
		for (int shift = 0; shift < 32; shift += 8)
			ob_text_printf(&p, "%c", (int)(len >> shift & 0xff));
		for (size_t k = 0; k < len; k++)
			ob_text_add(&p, "k", 1);
		ob_text_add(&p, "}", 1);
	}
	ob_text_add(&p, small, sizeof(small) - 1);
	for (unsigned i = 0; i < depth; i++)
		ob_text_add(&p, "s", 1);
	ob_text_add(&p, ".", 1);
	list_pickle(p.data, p.len, &l, &e);
	ob_text_free(&p);
	return e.code;
}

Test(torch, nesting)
{
	cr_expect_eq(list_nested(63, 3), OB_OK);
	cr_expect_eq(list_nested(64, 3), OB_LIMIT);
	cr_expect_eq(list_nested(10000, 3), OB_LIMIT);
	cr_expect_eq(list_nested(60, 1000), OB_OK);
	cr_expect_eq(list_nested(60, 1200), OB_LIMIT);
	free_last();
}

/* The name of one dict may not be paid for by each of its members. */
Test(torch, names_cannot_fill_memory)
{
	struct ob_text p = { 0 };
	struct ob_listing l;
	ob_err e = { 0 };

	ob_text_printf(&p, "}(X%c\xea%c%c", 0x60, 0, 0);
	for (int i = 0; i < 60000; i++)
		ob_text_add(&p, "k", 1);
	ob_text_add(&p, P_BYTES("}(K\0" P_SMALL "q\0"));
	for (int i = 1; i < 20000; i++)
		ob_text_printf(&p, "M%c%ch%c", i & 0xff, i >> 8, 0);
	ob_text_add(&p, "uu.", 3);
	cr_expect_eq(list_pickle(p.data, p.len, &l, &e), -1);
	cr_expect_eq(e.code, OB_LIMIT, "%s", e.msg);
	cr_expect(strstr(e.msg, "names"), "%s", e.msg);
	cr_expect_lt(ob_alloc_stats().peak, 4 * 24 * p.len);
	ob_text_free(&p);
	free_last();
}

static int list_again(void *ctx, ob_err *e)
{
	struct ob_arena a = { 0 };
	struct ob_listing l;
	int rc = ob_container_torch.open(ctx, &a, &l, e);

	ob_arena_free(&a);
	return rc;
}

Test(torch, allocation_failures)
{
	struct ob_listing l;
	ob_err e = { 0 };

	cr_assert_eq(list_pickle(P_BYTES(P_NESTED), &l, &e), 0, "%s", e.msg);
	cr_expect_gt(oom_sweep(list_again, file), 8);
	free_last();
}
