/* SPDX-License-Identifier: Apache-2.0 */
/* A listing that grows while a reader finds tensors: what every reader has to check and to say. */
#ifndef OB_CONTAINER_LISTER_H
#define OB_CONTAINER_LISTER_H

#include "base/util.h"
#include "container/container.h"

struct ob_lister {
	struct ob_file *file;
	struct ob_arena *arena; /* the caller's: names, shapes and the result */
	struct ob_stored *tensor;
	size_t n, cap;
	struct ob_map names;
};

/* Appends a tensor of this name (a copy), all else of it unset. The pointer lives until the next
 * call. NULL with *e filled: too many, too long (OB_LIMIT), holds NUL (OB_UNSUPPORTED), no UTF-8 or
 * there already (OB_CORRUPT), OB_NOMEM. */
struct ob_stored *ob_lister_add(struct ob_lister *l, const char *name, size_t len, ob_err *e);

/* Fails with: FILE: tensor "NAME" FMT... Returns -1. */
int ob_lister_fail(const struct ob_lister *l, const char *name, ob_err *e, enum ob_code code,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));
#ifdef OB_ANALYZE /* as in base/err.h */
#define ob_lister_fail(...) (ob_lister_fail(__VA_ARGS__), -1)
#endif

/* Sorts by (off, len, name). */
void ob_lister_sort(struct ob_lister *l);
/* Moves the tensors to the arena. */
int ob_lister_finish(struct ob_lister *l, struct ob_listing *out, ob_err *e);
void ob_lister_free(struct ob_lister *l);

#endif
