/* SPDX-License-Identifier: Apache-2.0 */
/* The small files, one function each. */
#ifndef OB_EXPORT_INTERNAL_H
#define OB_EXPORT_INTERNAL_H

#include <stdbool.h>

#include "base/json.h"
#include "export/export.h"

/* index.c: the index of the output's shards. `name` gets its file name. */
int ob_export_index(const struct ob_plan *p, struct ob_arena *a, const char **name,
		    struct ob_text *out, ob_err *e);

/* config.c: `out` holds the model's config.json and gets the output's. */
int ob_export_config(const struct ob_plan *p, struct ob_text *out, ob_err *e);
/* Is any tensor quantized in another way than in the model? Its float type does not count: loaders
 * take that from the tensors. */
bool ob_export_requantizes(const struct ob_plan *p);

#endif
