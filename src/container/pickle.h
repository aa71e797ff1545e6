/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What torch.save pickles, read as data. A pickle is a program; this machine knows only the
 * operations and the callables that state dicts need, builds plain values for them, and refuses all
 * else. Nothing in it can run anything.
 */
#ifndef OB_CONTAINER_PICKLE_H
#define OB_CONTAINER_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/err.h"

enum ob_pkind {
	OB_P_OTHER, /* a legal value that no tensor needs: a float, bytes, a device, ... */
	OB_P_INT,
	OB_P_BOOL, /* i: 0 or 1 */
	OB_P_STR,
	OB_P_TUPLE,
	OB_P_LIST, /* or set; dict: its strings, as values without keys; NULL: none */
	OB_P_DICT,
	OB_P_DTYPE,
	OB_P_SYMBOL, /* a class or function */
	OB_P_STORAGE,
	OB_P_TENSOR,
	OB_P_MARK, /* on the stack only */
};

struct ob_pval {
	enum ob_pkind kind;
	uint32_t n; /* STR: bytes, TUPLE: items */
	union {
		int64_t i;
		const char *str; /* into the pickle, not NUL-terminated */
		const struct ob_pval *item;
		struct ob_pdict *dict;
		enum ob_dtype dtype;
		const struct ob_psymbol *symbol;
		const struct ob_pstorage *storage;
		const struct ob_ptensor *tensor;
	};
};

/* Members whose value is a tensor, a dict or a bool, in the order of the file; the others are left
 * out. */
struct ob_pdict {
	struct ob_pentry *first, *last;
	bool seen; /* for who walks the result */
};
struct ob_pentry {
	struct ob_pval key, value;
	struct ob_pentry *next;
};

struct ob_pstorage {
	bool untyped; /* n counts bytes, and dtype is unset */
	enum ob_dtype dtype;
	struct ob_pval key; /* STR */
	uint64_t n;	    /* elements */
	uint64_t first;	    /* of them, in the storage that the key names: a view has its own */
	const struct ob_pstorage *next;
};

/* Nothing here is checked against the storage. */
struct ob_ptensor {
	const struct ob_pstorage *storage;
	enum ob_dtype dtype;
	uint64_t offset; /* elements */
	/* Tuples of the same length, at most OB_MAX_RANK; items are INT, not negative. */
	struct ob_pval size, stride;
};

/* Runs the pickle; *root is its result, in arena a, with pointers into `data`. Memory is bounded by
 * OB_PICKLE_MEMORY(n). `what` names the file in errors: OB_UNSAFE (asks for something that is not
 * allowed), OB_UNSUPPORTED (a tensor of a kind that is not read), OB_CORRUPT, OB_LIMIT, OB_NOMEM.
 */
int ob_pickle_read(const uint8_t *data, size_t n, struct ob_arena *a, const char *what,
		   struct ob_pval *root, ob_err *e);
/* The same for a pickle with something behind it. *used: its bytes; *storages: all that it names,
 * the last one first. */
int ob_pickle_read_one(const uint8_t *data, size_t n, struct ob_arena *a, const char *what,
		       struct ob_pval *root, size_t *used, const struct ob_pstorage **storages,
		       ob_err *e);

/* Bytes of memory that n bytes of pickle may lead to. A state dict needs about 6 for each byte; a
 * pickle made for it could reach thousands. */
#define OB_PICKLE_MEMORY(n) (24 * (uint64_t)(n) + 65536)

#endif
