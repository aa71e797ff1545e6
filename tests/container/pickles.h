/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of pickles as torch.save writes them, as string literals. */
#ifndef OB_TESTS_PICKLES_H
#define OB_TESTS_PICKLES_H

#define P_STR(len, s) "X" len "\0\0\0" s /* len: "\3" */
#define P_STORAGE(module, class, key, n)                                                          \
	"(" P_STR("\7", "storage") "c" module "\n" class "\n" P_STR("\1", key) P_STR("\3", "cpu") \
		n "tQ"
#define P_REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define P_ORDERED_DICT "ccollections\nOrderedDict\n)R"
/* n, off: numbers; size, stride: tuples */
#define P_TENSOR(class, key, n, off, size, stride) \
	P_REBUILD "(" P_STORAGE("torch", class, key, n) off size stride "\x89" P_ORDERED_DICT "tR"
/* 2 x 3 float32 on the first 6 elements of storage 0 */
#define P_SMALL P_TENSOR("FloatStorage", "0", "K\6", "K\0", "K\2K\3\x86", "K\3K\1\x86")
/* a key of one character, and that tensor */
#define P_NAMED(key) P_STR("\1", key) P_SMALL
/* {"w": value}, and with a second member */
#define P_DICT(value) "\x80\2}" P_STR("\1", "w") value "s."
#define P_DICT2(key, value) "\x80\2}(" P_NAMED("w") key value "u."

/* An initializer for a pointer and a length. */
#define P_BYTES(s) s, sizeof(s) - 1

#endif
