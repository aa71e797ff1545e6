/* SPDX-License-Identifier: Apache-2.0 */
/* The pickle machine: values of every kind, and a pickle for each thing that it refuses. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "../base/oom.h"
#include "container/pickle.h"
#include "pickles.h"

/* Runs a copy of exactly these bytes, so that a sanitizer sees one too many. */
static int run(const char *p, size_t n, struct ob_arena *a, struct ob_pval *root, ob_err *e)
{
	uint8_t *copy = malloc(n);
	int rc;

	memcpy(copy, p, n);
	rc = ob_pickle_read(copy, n, a, "x.bin", root, e);
	free(copy);
	return rc;
}

/* ---- values ---- */

/* clang-format off */
static const struct {
	const char *pickle;
	size_t n;
	enum ob_pkind kind;
	int64_t i; /* of INT; items of TUPLE */
} values[] = {
	{ P_BYTES("\x80\2N."), OB_P_OTHER, 0 },
	{ P_BYTES("\x88."), OB_P_BOOL, 1 },
	{ P_BYTES("\x89."), OB_P_BOOL, 0 },
	{ P_BYTES("K\xff."), OB_P_INT, 255 },
	{ P_BYTES("M\xff\xff."), OB_P_INT, 65535 },
	{ P_BYTES("J\xff\xff\xff\xff."), OB_P_INT, -1 },
	{ P_BYTES("J\0\0\0\x80."), OB_P_INT, INT32_MIN },
	{ P_BYTES("\x8a\0."), OB_P_INT, 0 },
	{ P_BYTES("\x8a\1\xff."), OB_P_INT, -1 },
	{ P_BYTES("\x8a\2\xff\0."), OB_P_INT, 255 },
	{ P_BYTES("\x8a\5\0\0\0\0\1."), OB_P_INT, INT64_C(1) << 32 },
	{ P_BYTES("\x8a\x8\0\0\0\0\0\0\0\x80."), OB_P_INT, INT64_MIN },
	{ P_BYTES("\x8a\x9\0\0\0\0\0\0\0\x80\0."), OB_P_OTHER, 0 },
	{ P_BYTES("G\0\0\0\0\0\0\0\0."), OB_P_OTHER, 0 },
	{ P_BYTES("U\3abc."), OB_P_STR, 0 },
	{ P_BYTES("C\3abc."), OB_P_OTHER, 0 },
	{ P_BYTES("B\3\0\0\0abc."), OB_P_OTHER, 0 },
	{ P_BYTES(")."), OB_P_TUPLE, 0 },
	{ P_BYTES("K\1\x85."), OB_P_TUPLE, 1 },
	{ P_BYTES("K\1K\2K\3\x87."), OB_P_TUPLE, 3 },
	{ P_BYTES("(K\1K\2K\3K\4t."), OB_P_TUPLE, 4 },
	{ P_BYTES("(t."), OB_P_TUPLE, 0 },
	{ P_BYTES("]K\1a."), OB_P_LIST, 0 },
	{ P_BYTES("](K\1K\2e."), OB_P_LIST, 0 },
	{ P_BYTES("\x8f(K\1\x90."), OB_P_LIST, 0 },
	{ P_BYTES("}."), OB_P_DICT, 0 },
	{ P_BYTES("ctorch\nfloat16\n."), OB_P_DTYPE, 0 },
	{ P_BYTES("ctorch\nSize\nK\2K\3\x86\x85R."), OB_P_TUPLE, 2 },
	{ P_BYTES("ctorch\ndevice\n" P_STR("\3", "cpu") "\x85R."), OB_P_OTHER, 0 },
	{ P_BYTES("c_codecs\nencode\n" P_STR("\1", "a") P_STR("\6", "latin1") "\x86R."), OB_P_OTHER,
	  0 },
	{ P_BYTES("c__builtin__\nset\n]\x85R."), OB_P_OTHER, 0 },
	{ P_BYTES("ccollections\nOrderedDict\n."), OB_P_SYMBOL, 0 },
	{ P_BYTES(P_ORDERED_DICT "}b."), OB_P_DICT, 0 },
	{ P_BYTES(P_SMALL "."), OB_P_TENSOR, 0 },
	{ P_BYTES("ctorch._utils\n_rebuild_parameter\n(" P_SMALL "\x88" P_ORDERED_DICT "tR."),
	  OB_P_TENSOR, 0 },
	{ P_BYTES("ctorch._tensor\n_rebuild_from_type_v2\n(" P_REBUILD "ctorch\nTensor\n("
		  P_STORAGE("torch", "FloatStorage", "0", "K\6") "K\0)" ")" "\x89Nt}tR}b."),
	  OB_P_TENSOR, 0 },
	{ P_BYTES("\x80\4\x95\0\0\0\0\0\0\0\0\x8c\x0b"
		  "collections\x94\x8c\x0bOrderedDict\x94\x93\x94)R."), OB_P_DICT, 0 },
	{ P_BYTES("K\7q\0N" "h\0."), OB_P_INT, 7 },
	{ P_BYTES("K\7r\0\0\0\0N" "j\0\0\0\0."), OB_P_INT, 7 },
	{ P_BYTES("K\7\x94NK\x8q\0h\0."), OB_P_INT, 8 },
	{ P_BYTES("K\1. and what follows"), OB_P_INT, 1 },
};
/* clang-format on */

Test(pickle, values)
{
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		struct ob_arena a = { 0 };
		struct ob_pval v;
		ob_err e = { 0 };

		cr_assert_eq(run(values[i].pickle, values[i].n, &a, &v, &e), 0, "%zu: %s", i,
			     e.msg);
		cr_expect_eq(v.kind, values[i].kind, "%zu", i);
		if (v.kind == OB_P_INT)
			cr_expect_eq(v.i, values[i].i, "%zu", i);
		if (v.kind == OB_P_TUPLE)
			cr_expect_eq(v.n, values[i].i, "%zu", i);
		ob_arena_free(&a);
	}
	cr_expect_eq(ob_alloc_stats().in_use, 0);
}

Test(pickle, tensor)
{
	static const char p[] =
		P_TENSOR("BFloat16Storage", "7", "M\0\1", "K\5", "K\2K\3\x86", "K\4K\1\x86") ".";
	struct ob_arena a = { 0 };
	struct ob_pval v;
	ob_err e = { 0 };

	cr_assert_eq(ob_pickle_read((const uint8_t *)p, sizeof(p) - 1, &a, "x.bin", &v, &e), 0,
		     "%s", e.msg);
	cr_assert_eq(v.kind, OB_P_TENSOR);
	cr_expect_eq(v.tensor->dtype, OB_BF16);
	cr_expect_eq(v.tensor->offset, 5);
	cr_expect_eq(v.tensor->storage->n, 256);
	cr_expect_not(v.tensor->storage->untyped);
	cr_expect_eq(v.tensor->storage->key.n, 1);
	cr_expect_eq(*v.tensor->storage->key.str, '7');
	cr_assert_eq(v.tensor->size.n, 2);
	cr_expect_eq(v.tensor->size.item[1].i, 3);
	cr_expect_eq(v.tensor->stride.item[0].i, 4);
	ob_arena_free(&a);
}

#define P_V3(storage, dtype)                           \
	"ctorch._utils\n_rebuild_tensor_v3\n(" storage \
	"K\0K\2\x85K\1\x85\x89" P_ORDERED_DICT dtype "tR."
#define P_BYTE_STORAGE P_STORAGE("torch.storage", "UntypedStorage", "0", "K\x8")

Test(pickle, tensor_without_typed_storage)
{
	static const char p[] = P_V3(P_BYTE_STORAGE, "ctorch\nfloat8_e4m3fn\n");
	struct ob_arena a = { 0 };
	struct ob_pval v;
	ob_err e = { 0 };

	cr_assert_eq(ob_pickle_read((const uint8_t *)p, sizeof(p) - 1, &a, "x.bin", &v, &e), 0,
		     "%s", e.msg);
	cr_expect_eq(v.tensor->dtype, OB_F8_E4M3);
	cr_expect(v.tensor->storage->untyped);
	ob_arena_free(&a);
}

/* Only tensors and dicts stay, in order. */
Test(pickle, dict)
{
	static const char p[] = "}(" P_STR("\1", "a") "K\1" P_STR("\1", "b") "}K\2" P_SMALL
									     "u" P_STR("\1", "c")
										     P_SMALL "s.";
	struct ob_arena a = { 0 };
	struct ob_pval v;
	const struct ob_pentry *m;
	ob_err e = { 0 };

	cr_assert_eq(ob_pickle_read((const uint8_t *)p, sizeof(p) - 1, &a, "x.bin", &v, &e), 0,
		     "%s", e.msg);
	cr_assert_eq(v.kind, OB_P_DICT);
	m = v.dict->first;
	cr_expect_eq(*m->key.str, 'b');
	cr_expect_eq(m->value.kind, OB_P_DICT);
	m = m->next;
	cr_expect_eq(m->key.kind, OB_P_INT);
	cr_expect_eq(m->value.kind, OB_P_TENSOR);
	m = m->next;
	cr_expect_eq(*m->key.str, 'c');
	cr_expect_null(m->next);
	cr_expect_eq(m, v.dict->last);
	ob_arena_free(&a);
}

/* ---- refused ---- */

/* clang-format off */
static const struct {
	const char *about, *pickle;
	size_t n;
	enum ob_code code;
	const char *word;
} bad[] = {
	{ "nothing", P_BYTES(""), OB_CORRUPT, "ends" },
	{ "no STOP", P_BYTES("N"), OB_CORRUPT, "ends" },
	{ "no result", P_BYTES("."), OB_CORRUPT, "empty" },
	{ "a mark as result", P_BYTES("(."), OB_CORRUPT, "empty" },
	{ "protocol 6", P_BYTES("\x80\6N."), OB_UNSUPPORTED, "protocol 6" },
	{ "protocol 1", P_BYTES("\x80\1N."), OB_UNSUPPORTED, "protocol 1" },
	{ "a string that is cut", P_BYTES("X\4\0\0\0abc"), OB_CORRUPT, "ends" },
	{ "a string of 4 GiB", P_BYTES("X\xff\xff\xff\xff."), OB_CORRUPT, "ends" },
	{ "a length that is cut", P_BYTES("X\1\0\0"), OB_CORRUPT, "ends" },
	{ "an integer that is cut", P_BYTES("J\0\0\0"), OB_CORRUPT, "ends" },
	{ "an integer that is not there", P_BYTES("K"), OB_CORRUPT, "ends" },
	{ "a length that is not there", P_BYTES("\x8a"), OB_CORRUPT, "ends" },
	{ "a version that is not there", P_BYTES("\x80"), OB_CORRUPT, "ends" },
	{ "a number of a memo that is not there", P_BYTES("Nq"), OB_CORRUPT, "ends" },
	{ "a number of a memo that is cut", P_BYTES("Nr\0\0"), OB_CORRUPT, "ends" },
	{ "a long integer that is cut", P_BYTES("\x8a\xff\0."), OB_CORRUPT, "ends" },
	{ "a frame that is cut", P_BYTES("\x95\0\0\0."), OB_CORRUPT, "ends" },
	{ "a name without end", P_BYTES("ctorch\nSize"), OB_CORRUPT, "name" },
	{ "a memo that is not set", P_BYTES("h\0."), OB_CORRUPT, "memo 0" },
	{ "a memo far away", P_BYTES("Nr\xff\xff\xff\xff."), OB_CORRUPT, "memo 4294967295" },
	{ "a memo of nothing", P_BYTES("q\0N."), OB_CORRUPT, "empty" },
	{ "a memo of a mark", P_BYTES("(q\0."), OB_CORRUPT, "empty" },
	{ "a tuple without a mark", P_BYTES("Nt."), OB_CORRUPT, "mark" },
	{ "a tuple from too little", P_BYTES("K\1\x86."), OB_CORRUPT, "empty" },
	{ "a tuple across a mark", P_BYTES("N(N\x86."), OB_CORRUPT, "empty" },
	{ "append to an integer", P_BYTES("K\1K\2a."), OB_CORRUPT, "list" },
	{ "append to a dict", P_BYTES("}(K\2e."), OB_CORRUPT, "list" },
	{ "append to nothing", P_BYTES("K\2a."), OB_CORRUPT, "empty" },
	{ "append without a mark", P_BYTES("]e."), OB_CORRUPT, "mark" },
	{ "set items without a mark", P_BYTES("}u."), OB_CORRUPT, "mark" },
	{ "set an item from too little", P_BYTES("K\1s."), OB_CORRUPT, "empty" },
	{ "a name from too little", P_BYTES("U\1xq\0\x93."), OB_CORRUPT, "empty" },
	{ "a persistent id of nothing", P_BYTES("Q."), OB_CORRUPT, "empty" },
	{ "a call of nothing", P_BYTES(")R."), OB_CORRUPT, "empty" },
	{ "attributes of nothing", P_BYTES("}b."), OB_CORRUPT, "empty" },
	{ "attributes from nothing", P_BYTES("b."), OB_CORRUPT, "empty" },
	{ "set an item of a list", P_BYTES("]K\1K\2s."), OB_CORRUPT, "dict" },
	{ "set items of a tensor", P_BYTES(P_SMALL "(K\1K\2u."), OB_CORRUPT, "dict" },
	{ "a key without a value", P_BYTES("}(K\1u."), OB_CORRUPT, "dict" },
	{ "set items of nothing", P_BYTES("(K\1K\2u."), OB_CORRUPT, "empty" },
	{ "os.system", P_BYTES("cposix\nsystem\n(" P_STR("\2", "ls") "tR."), OB_UNSAFE,
	  "calls posix.system;" },
	{ "a function that is only named", P_BYTES("cbuiltins\neval\n."), OB_UNSAFE,
	  "builtins.eval" },
	{ "the right name in the wrong module", P_BYTES("cos\nSize\n."), OB_UNSAFE, "os.Size" },
	{ "a dotted name", P_BYTES("ctorch\nSize.__class__\n."), OB_UNSAFE,
	  "torch.Size.__class__" },
	{ "a name by STACK_GLOBAL", P_BYTES("\x8c\2os\x8c\6system\x93."), OB_UNSAFE, "os.system" },
	{ "STACK_GLOBAL of numbers", P_BYTES("K\1K\2\x93."), OB_CORRUPT, "string" },
	{ "a nested pickle", P_BYTES("ctorch.storage\n_load_from_bytes\nC\1x\x85R."), OB_UNSAFE,
	  "_load_from_bytes" },
	{ "a name with a terminal code", P_BYTES("c\x1b[2J\nx\n."), OB_UNSAFE, "\\x1b[2J.x" },
	{ "a sparse tensor", P_BYTES("ctorch._utils\n_rebuild_sparse_tensor\n."), OB_UNSUPPORTED,
	  "_rebuild_sparse_tensor" },
	{ "complex numbers of 16 bytes", P_BYTES("ctorch\nComplexDoubleStorage\n."), OB_UNSUPPORTED,
	  "ComplexDoubleStorage" },
	{ "a call of a class", P_BYTES("ctorch\nTensor\n)R."), OB_UNSAFE, "torch.Tensor" },
	{ "a call of a storage class", P_BYTES("ctorch\nFloatStorage\n)R."), OB_UNSAFE,
	  "torch.FloatStorage" },
	{ "a call of a string", P_BYTES(P_STR("\2", "os") ")R."), OB_UNSAFE, "function" },
	{ "a call of a tensor", P_BYTES(P_SMALL ")R."), OB_UNSAFE, "function" },
	{ "arguments that are no tuple", P_BYTES("ccollections\nOrderedDict\n]R."), OB_UNSAFE,
	  "function" },
	{ "OrderedDict from a list", P_BYTES("ccollections\nOrderedDict\n]\x85R."), OB_UNSUPPORTED,
	  "OrderedDict" },
	{ "a size without a size", P_BYTES("ctorch\nSize\n)R."), OB_CORRUPT, "Size" },
	{ "a parameter without a tensor", P_BYTES("ctorch._utils\n_rebuild_parameter\nN\x85R."),
	  OB_CORRUPT, "_rebuild_parameter" },
	{ "attributes of an integer", P_BYTES("K\1}b."), OB_UNSAFE, "attributes" },
	{ "attributes of a function", P_BYTES("ccollections\nOrderedDict\n}b."), OB_UNSAFE,
	  "attributes" },
	{ "a persistent id that is no tuple", P_BYTES(P_STR("\7", "storage") "Q."), OB_CORRUPT,
	  "storage" },
	{ "a persistent id of another kind",
	  P_BYTES("(" P_STR("\7", "storagE") "ctorch\nFloatStorage\nU\1" "0NK\1tQ."), OB_CORRUPT,
	  "storage" },
	{ "a persistent id that is too short", P_BYTES("(" P_STR("\7", "storage") "tQ."),
	  OB_CORRUPT, "storage" },
	{ "a storage of a class that is none", P_BYTES(P_STORAGE("torch", "Size", "0", "K\6") "."),
	  OB_CORRUPT, "storage" },
	{ "a negative storage", P_BYTES(P_STORAGE("torch", "FloatStorage", "0",
	  "J\xff\xff\xff\xff") "."), OB_CORRUPT, "storage" },
	{ "a tensor from nothing", P_BYTES(P_REBUILD ")R."), OB_CORRUPT, "wrong things" },
	{ "a tensor with too few arguments", P_BYTES(P_REBUILD "(K\1K\2K\3K\4K\5tR."), OB_CORRUPT,
	  "wrong things" },
	{ "a tensor without a storage", P_BYTES(P_REBUILD "(NK\0))\x89NtR."), OB_CORRUPT,
	  "wrong things" },
	{ "more sizes than strides",
	  P_BYTES(P_TENSOR("FloatStorage", "0", "K\6", "K\0", "K\2K\3\x86", "K\1\x85") "."),
	  OB_CORRUPT, "wrong things" },
	{ "a negative size",
	  P_BYTES(P_TENSOR("FloatStorage", "0", "K\6", "K\0", "J\xff\xff\xff\xff\x85",
	  "K\1\x85") "."), OB_CORRUPT, "wrong things" },
	{ "a negative stride",
	  P_BYTES(P_TENSOR("FloatStorage", "0", "K\6", "K\5", "K\6\x85",
	  "J\xff\xff\xff\xff\x85") "."), OB_CORRUPT, "wrong things" },
	{ "a negative offset",
	  P_BYTES(P_TENSOR("FloatStorage", "0", "K\6", "J\xff\xff\xff\xff", "K\6\x85",
	  "K\1\x85") "."), OB_CORRUPT, "wrong things" },
	{ "a size that is a string",
	  P_BYTES(P_TENSOR("FloatStorage", "0", "K\6", "K\0", "U\1" "6\x85", "K\1\x85") "."),
	  OB_CORRUPT, "wrong things" },
	{ "a negated view",
	  P_BYTES(P_REBUILD "(" P_STORAGE("torch", "FloatStorage", "0",
	  "K\6") "K\0))\x89" P_ORDERED_DICT "}tR."), OB_UNSUPPORTED, "view" },
	{ "version 3 with a typed storage",
	  P_BYTES(P_V3(P_STORAGE("torch", "FloatStorage", "0", "K\x8"), "ctorch\nfloat32\n")),
	  OB_CORRUPT, "wrong things" },
	{ "version 3 without a dtype", P_BYTES(P_V3(P_BYTE_STORAGE, "N")), OB_CORRUPT,
	  "wrong things" },
	{ "an unknown dtype", P_BYTES(P_V3(P_BYTE_STORAGE, "ctorch\ncomplex128\n")), OB_UNSAFE,
	  "torch.complex128" },
	{ "rebuilding by rebuilding",
	  P_BYTES("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\n"
		  "ctorch\nTensor\n)}tR."), OB_CORRUPT, "wrong things" },
	{ "rebuilding of a type that is none",
	  P_BYTES("ctorch._tensor\n_rebuild_from_type_v2\n(" P_REBUILD "ctorch\nSize\n("
		  P_STORAGE("torch", "FloatStorage", "0", "K\6") "K\0)" ")" "\x89Nt}tR."),
	  OB_CORRUPT, "wrong things" },
};
/* clang-format on */

Test(pickle, refuses_by_name)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ob_arena a = { 0 };
		struct ob_pval v;
		ob_err e = { 0 };

		cr_expect_eq(run(bad[i].pickle, bad[i].n, &a, &v, &e), -1, "%s was accepted",
			     bad[i].about);
		cr_expect_eq(e.code, bad[i].code, "%s: %s", bad[i].about, e.msg);
		cr_expect(strstr(e.msg, bad[i].word), "%s: %s", bad[i].about, e.msg);
		cr_expect_eq(strncmp(e.msg, "x.bin", 5), 0, "%s: %s", bad[i].about, e.msg);
		ob_arena_free(&a);
	}
	cr_expect_eq(ob_alloc_stats().in_use, 0);
}

/* Every operation that is not in the list is refused, whatever it would find on the stack. */
Test(pickle, unknown_operations)
{
	static const char known[] =
		".NJKMGXUBC()t]aeqrhjscQRbu}\x80\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x93"
		"\x94\x95";
	size_t refused = 0;

	for (int op = 0; op < 256; op++) {
		char p[] = { '(', 'K', 1, 'K', 2, (char)op, 0, 0, 0, 0, 0, 0, 0, 0, '.' };
		struct ob_arena a = { 0 };
		struct ob_pval v;
		ob_err e = { 0 };
		int rc = run(p, sizeof(p), &a, &v, &e);

		if (!memchr(known, op, sizeof(known) - 1)) {
			cr_expect_eq(rc, -1, "0x%02x", (unsigned)op);
			cr_expect_eq(e.code, OB_UNSAFE, "0x%02x: %s", (unsigned)op, e.msg);
			refused++;
		}
		ob_arena_free(&a);
	}
	cr_expect_eq(refused, 256 - (sizeof(known) - 1));
}

/* ---- limits ---- */

/* `head`, n times `piece`, then STOP. */
static enum ob_code run_repeated(const char *head, const char *piece, size_t len, size_t n)
{
	static size_t largest;
	size_t head_len = strlen(head), size = head_len + len * n + 1;
	char *p = malloc(size);
	struct ob_arena a = { 0 };
	struct ob_pval v;
	ob_err e = { 0 };

	memcpy(p, head, head_len);
	for (size_t i = 0; i < n; i++)
		memcpy(p + head_len + i * len, piece, len);
	p[size - 1] = '.';
	run(p, size, &a, &v, &e);
	largest = size > largest ? size : largest;
	cr_expect_lt(ob_alloc_stats().peak, 3 * OB_PICKLE_MEMORY(largest));
	free(p);
	ob_arena_free(&a);
	return e.code;
}

Test(pickle, depth_costs_nothing)
{
	cr_expect_eq(run_repeated("N", P_BYTES("\x85"), 1000000), OB_OK);
	cr_expect_eq(run_repeated("", P_BYTES("]"), 99999), OB_OK);
	cr_expect_eq(run_repeated("", P_BYTES("]"), 100001), OB_LIMIT);
	cr_expect_eq(run_repeated("", P_BYTES("("), 100001), OB_LIMIT);
}

Test(pickle, memory_is_bounded)
{
	cr_expect_eq(run_repeated("N", P_BYTES("\x94"), 1000000), OB_OK);
	cr_expect_eq(run_repeated("]", P_BYTES("}a"), 100000), OB_OK);
	/* A dict takes more than one byte of pickle may cost. */
	cr_expect_eq(run_repeated("](", P_BYTES("}"), 90000), OB_LIMIT);
	/* The same with memos; this number ends in the middle of one. */
	cr_expect_eq(run_repeated("", P_BYTES("}}\x94"), 30007), OB_LIMIT);
}

static int run_small(void *ctx, ob_err *e)
{
	static const char p[] = P_DICT2(P_STR("\1", "v"), P_SMALL "q\0");
	struct ob_arena a = { 0 };
	struct ob_pval v;
	int rc = ob_pickle_read((const uint8_t *)p, sizeof(p) - 1, &a, "x.bin", &v, e);

	(void)ctx;
	ob_arena_free(&a);
	return rc;
}

Test(pickle, allocation_failures)
{
	cr_expect_gt(oom_sweep(run_small, NULL), 2);
}
