/* SPDX-License-Identifier: Apache-2.0 */
/* A plan of a few tiles, and journal files for it that were not written by the program. */
#ifndef OB_TESTS_SUPPORT_JOURNAL_FILE_H
#define OB_TESTS_SUPPORT_JOURNAL_FILE_H

#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "engine/journal.h"
#include "plan/internal.h"
#include "world.h"

#define JOURNAL_KEY 0x1234567890abcdefu
#define JOURNAL_RECORD 64u /* bytes; the last 8 are the checksum */

static inline uint64_t journal_check(const uint8_t *record, size_t index)
{
	return ob_hash64(record, JOURNAL_RECORD - 8, JOURNAL_KEY + index);
}

/* A copy, and a conversion in parts. */
static inline struct ob_plan *journal_plan(struct world *w)
{
	const struct ob_rowmap straight = { 0 };
	struct ob_plan *p;
	struct ob_out *o;
	uint32_t source;
	ob_err e = { 0 };

	world_begin(w);
	p = world_plan_begin(w);
	source = world_matrix(w, "source", world_float(OB_BF16), 3000, 4096);
	o = world_out(w, p, "quantized", world_mlx(4, 64, OB_BF16), 3000, 4096);
	world_piece(w, o, source, 0, 3000, straight);
	o = world_out(w, p, "copied", world_float(OB_BF16), 3000, 4096);
	world_piece(w, o, source, 0, 3000, straight);
	o->copy = true;
	CHECK(!ob_layout_files(p, &e) && !ob_make_tiles(p, &e), "%s", e.msg);
	return p;
}

#endif
