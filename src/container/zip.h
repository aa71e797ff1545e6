/* SPDX-License-Identifier: Apache-2.0 */
/* Zip archives as numpy and torch write them: the directory, and the bytes of small members. */
#ifndef OB_CONTAINER_ZIP_H
#define OB_CONTAINER_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/err.h"
#include "base/util.h"
#include "io/file.h"

struct ob_zip_member {
	const char *name;     /* NUL-terminated, holds no NUL; not checked to be UTF-8 */
	uint64_t head;	      /* offset of the local header */
	uint64_t off;	      /* of the first byte, in the file */
	uint64_t stored_size; /* bytes in the file; all inside it (checked) */
	uint64_t size;	      /* bytes when unpacked; stored_size unless deflated */
	uint32_t crc;	      /* 0: not computed by the writer */
	bool deflated;
};

struct ob_zip {
	const struct ob_file *file;
	struct ob_zip_member *member; /* by offset; members do not overlap */
	size_t n;
	struct ob_map by_name;
	struct ob_arena arena;
};

/* Reads the directory of f, which must outlive z. Stricter than unzip where readers could disagree
 * about what an archive holds: the directory lies at the very end, without a comment, and says the
 * same as the local headers. Errors: OB_CORRUPT, OB_UNSUPPORTED (encryption, other methods),
 * OB_UNSAFE (a name that leaves the folder), OB_LIMIT, OB_NOMEM. On failure z is empty. */
int ob_zip_open(struct ob_zip *z, const struct ob_file *f, ob_err *e);
void ob_zip_close(struct ob_zip *z); /* an empty one is fine */
/* NULL when absent. */
const struct ob_zip_member *ob_zip_find(const struct ob_zip *z, const char *name);
/* The bytes of a member of at most `max` bytes (OB_LIMIT), checked against its CRC. *data points
 * into the map, or into *owned, which the caller frees in either case. */
int ob_zip_read(const struct ob_zip *z, const struct ob_zip_member *m, size_t max,
		const uint8_t **data, void **owned, ob_err *e);

/* Hands out the bytes of a deflated member in pieces, in order. Memory does not depend on its size. The
 * checksum is compared at the end. */
typedef int (*ob_zip_sink)(void *ctx, const void *data, size_t n, ob_err *e);
int ob_zip_stream(const struct ob_zip *z, const struct ob_zip_member *m, ob_zip_sink sink,
		  void *ctx, ob_err *e);

#endif
