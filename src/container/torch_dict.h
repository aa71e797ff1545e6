/* SPDX-License-Identifier: Apache-2.0 */
/* What the two formats of torch.save share: a pickled state dict, and storages elsewhere. */
#ifndef OB_CONTAINER_TORCH_DICT_H
#define OB_CONTAINER_TORCH_DICT_H

#include "container/lister.h"
#include "container/pickle.h"

#define OB_TORCH_PICKLE_MAX (64u << 20) /* 500,000 tensors */

/* Where the bytes of a storage are. */
struct ob_torch_place {
	uint64_t off, size;
};
/* Finds the storage s of the tensor `name`; errors name it. */
typedef int (*ob_torch_find)(void *ctx, const struct ob_lister *list, const char *name,
			     const struct ob_pstorage *s, struct ob_torch_place *at, ob_err *e);

/* Adds the tensors of the state dict in `root`, which came from `pickle` bytes. */
int ob_torch_list(struct ob_lister *list, const struct ob_pval *root, size_t pickle,
		  ob_torch_find find, void *ctx, ob_err *e);

/* torch_legacy.c: what torch.save wrote before 1.6, several pickles and the storages behind them. */
bool ob_torch_is_legacy(const struct ob_file *f);
int ob_torch_legacy_list(struct ob_lister *list, ob_err *e);

#endif
