/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of ob_model_open, in the order they run. */
#ifndef OB_MODEL_INTERNAL_H
#define OB_MODEL_INTERNAL_H

#include "base/json.h"
#include "model/model.h"

/* Stored tensors of all weight files, in shard order, and where to find them by name. */
struct ob_stored_set {
	const struct ob_stored **item;
	size_t n, cap;
	struct ob_map by_name; /* -> index of item */
};
/* NULL when there is none of that name. */
const struct ob_stored *ob_stored_find(const struct ob_stored_set *set, const char *name,
				       size_t len, uint32_t *at);

/* locate.c: the folder or file that `name` means. OB_IO with the places it looked at. */
int ob_locate_model(struct ob_arena *a, const char *name, const char **path, ob_err *e);

/* folder.c: the weight files of a folder. */
struct ob_weights {
	const char **name; /* plain names, in the order of shards */
	size_t n;
	const char *index;  /* path of the index that names them; NULL */
	const char *prefix; /* NULL where the names tell nothing about the kind of model */
};
int ob_folder_weights(struct ob_arena *a, const char *folder, struct ob_weights *w, ob_err *e);
/* The container that a file's name stands for, as users call it, where it is one that is not read;
 * else NULL. */
const char *ob_foreign_weights(const char *name);

/* companions.c */
int ob_folder_companions(struct ob_arena *a, const char *folder, struct ob_companion **list,
			 size_t *n, ob_err *e);

/* index.c: gives every entry of weight_map to each() in constant memory. The text comes from
 * read(source, ...); `what` names it in errors. tensor has len bytes and may hold NUL; shard is a
 * plain file name. Errors: OB_CORRUPT, OB_UNSAFE, OB_LIMIT, OB_NOMEM, and those of each(). */
typedef int (*ob_index_fn)(void *ctx, const char *tensor, size_t len, const char *shard, ob_err *e);
int ob_index_read(ob_jp_read read, void *source, const char *what, ob_index_fn each, void *ctx,
		  ob_err *e);
/* The files that an index names, in byte order. */
int ob_index_shards(const char *path, struct ob_arena *a, const char ***name, size_t *n, ob_err *e);
/* Do the index and what the shards hold agree, tensor by tensor? OB_MISMATCH. */
int ob_index_check(const char *path, const struct ob_stored_set *set, ob_err *e);

/* dense.c: tensors with strides (views of a PyTorch file, arrays in Fortran order) are laid out row by
 * row in a temporary file, *file, and say so; NULL when there are none. */
int ob_make_dense(const char *path, struct ob_listing *l, struct ob_file **file, ob_err *e);

/* group.c: forms m->tensor and all that follows from it. */
int ob_group_tensors(struct ob_model *m, const struct ob_stored_set *set, ob_err *e);

#endif
