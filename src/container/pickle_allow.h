/* SPDX-License-Identifier: Apache-2.0 */
/* The callables that a pickle may name, and what the machine does for each. */
#ifndef OB_CONTAINER_PICKLE_ALLOW_H
#define OB_CONTAINER_PICKLE_ALLOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/dtype.h"

enum ob_role {
	OB_ROLE_DICT,	   /* call: an empty dict */
	OB_ROLE_TENSOR,	   /* (storage, offset, size, stride) */
	OB_ROLE_TENSOR_V2, /* (the same, requires_grad, hooks) */
	OB_ROLE_TENSOR_V3, /* (the same, dtype); offset and stride count elements of dtype */
	OB_ROLE_SAME,	   /* call: the first argument */
	OB_ROLE_FROM_TYPE, /* (function, class, arguments, state): calls again */
	OB_ROLE_OTHER,	   /* call: a value that is of no interest */
	OB_ROLE_CLASS,	   /* may be named, not called */
	OB_ROLE_STORAGE,
	OB_ROLE_UNTYPED,
	OB_ROLE_UNSUPPORTED,
};

struct ob_psymbol {
	const char *module, *name;
	enum ob_role role;
	enum ob_dtype dtype; /* of a STORAGE */
};

/* NULL when it is not allowed. */
const struct ob_psymbol *ob_psymbol_find(const char *module, size_t module_len, const char *name,
					 size_t name_len);
/* The dtype that torch.NAME stands for; OB_N_DTYPES when none. */
enum ob_dtype ob_psymbol_dtype(const char *module, size_t module_len, const char *name,
			       size_t name_len);

#endif
