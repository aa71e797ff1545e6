/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small files beside the weights: index, config.json, companions. Known in full before the run,
 * so that verify can compare them as well.
 */
#ifndef OB_EXPORT_EXPORT_H
#define OB_EXPORT_EXPORT_H

#include <stddef.h>

#include "base/alloc.h"
#include "base/err.h"
#include "plan/plan.h"

struct ob_small_file {
	const char *rel;       /* below the output folder */
	const char *copy_from; /* a companion to copy byte for byte, or NULL */
	char *data;	       /* the bytes, when not copied; from the arena */
	size_t len;
};

struct ob_small_files {
	struct ob_small_file *file;
	size_t n;
	struct ob_arena arena;
};

/* Nothing for an output that is one file. Companions that an output must not have (old weights, index
 * files, adapter files, stale quantization side files when the format changed) are not in the list. */
int ob_export_files(const struct ob_plan *p, struct ob_small_files *out, ob_err *e);
void ob_small_files_free(struct ob_small_files *f);

#endif
