/* SPDX-License-Identifier: Apache-2.0 */
/* What the tree and the text editor need of the pull reader beyond its public face. */
#ifndef OB_BASE_JSON_INTERNAL_H
#define OB_BASE_JSON_INTERNAL_H

#include "base/json.h"

/* A text in memory as the source of a reader (ob_jp_read with this as ctx). */
struct ob_jp_memory {
	const char *p;
	size_t left;
};
long ob_jp_read_memory(void *ctx, char *buf, size_t n, ob_err *e);

/* From now on NaN, Infinity and -Infinity are numbers. */
void ob_jp_allow_nonfinite(struct ob_jp *jp);
/* Offsets of the last token in the text: its first byte, and the byte after it. */
uint64_t ob_jp_begin(const struct ob_jp *jp);
uint64_t ob_jp_end(const struct ob_jp *jp);

#endif
