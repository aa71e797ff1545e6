/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers: files that hold named tensors. A reader lists what is stored and where; it decides
 * nothing about meaning. Registered in registry.c.
 */
#ifndef OB_CONTAINER_CONTAINER_H
#define OB_CONTAINER_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/err.h"
#include "io/file.h"

#define OB_MAX_TENSORS 1000000u
#define OB_MAX_NAME 65536u /* bytes of a tensor name */

/* One stored tensor. Everything belongs to the arena given to open. */
struct ob_stored {
	const char *name; /* UTF-8, NUL-terminated, holds no NUL */
	enum ob_dtype dtype;
	struct ob_shape shape;
	struct ob_file *file;
	uint64_t off; /* of the first element, in the file */
	uint64_t
		len; /* bytes; inside the file (checked). With stride: the span from first to last element */
	const uint64_t *stride; /* per dimension, in elements; NULL: contiguous, row-major */
};

struct ob_meta_entry {
	const char *key, *value; /* NUL-terminated UTF-8 */
};

struct ob_listing {
	struct ob_stored *tensor; /* in file order (by offset) */
	size_t n_tensors;
	struct ob_meta_entry *meta; /* file metadata, in file order */
	size_t n_meta;
	/* Tensors that are compressed lie in this file instead, unpacked; NULL. The caller closes it. */
	struct ob_file *unpacked;
};

struct ob_container {
	const char *name;	   /* "safetensors" */
	const char *const *suffix; /* NULL-ended: {".safetensors", NULL} */
	/* Does the file's beginning look like this container? (f->map, f->stamp.size) */
	bool (*probe)(const struct ob_file *f);
	/* Lists f. Memory is bounded by what the file really holds. Tensors never overlap the header or
	 * lie outside the file. Errors: OB_CORRUPT, OB_UNSUPPORTED, OB_LIMIT, OB_UNSAFE, OB_NOMEM; the
	 * message names file and tensor. */
	int (*open)(struct ob_file *f, struct ob_arena *a, struct ob_listing *out, ob_err *e);
};

extern const struct ob_container ob_container_safetensors, ob_container_torch, ob_container_npz;
extern const struct ob_container *const ob_containers[]; /* NULL-ended */
/* By suffix, then by probe; OB_UNSUPPORTED naming the file when none takes it. */
int ob_container_list(struct ob_file *f, struct ob_arena *a, struct ob_listing *out, ob_err *e);

/*
 * Writing safetensors: the header of a file whose tensors are all known.
 */
struct ob_st_entry {
	const char *name;
	enum ob_dtype dtype;
	struct ob_shape shape;
	uint64_t begin, end; /* in the data buffer; ascending, no holes */
};
/* Bytes of 8 + header, padded with spaces to a multiple of `align` (a power of two >= 8).
 * metadata: "format" comes first, then the others in the order given. OB_LIMIT above 100 MB;
 * OB_UNSUPPORTED for a tensor named "__metadata__". */
int ob_st_header_size(const struct ob_st_entry *t, size_t n, const struct ob_meta_entry *meta,
		      size_t n_meta, uint64_t align, uint64_t *size, ob_err *e);
/* The bytes themselves, padded to `size` (as ob_st_header_size says, or more, a multiple of 8), in
 * pieces of at most 64 KiB, through put(ctx, data, n, offset). */
typedef int (*ob_put)(void *ctx, const void *data, size_t n, uint64_t off, ob_err *e);
int ob_st_header_write(const struct ob_st_entry *t, size_t n, const struct ob_meta_entry *meta,
		       size_t n_meta, uint64_t size, ob_put put, void *ctx, ob_err *e);

#endif
