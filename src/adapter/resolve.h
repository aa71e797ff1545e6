/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of the resolver: names, orientation, tied embeddings. Internal to this folder. */
#ifndef OB_ADAPTER_RESOLVE_H
#define OB_ADAPTER_RESOLVE_H

#include "adapter/adapter.h"

/* What edits may go to: the model's tensors and, behind them, the head that a tied model lacks. */
struct ob_targets {
	const struct ob_model *model;
	size_t n;		/* tensors of the model */
	struct ob_shape *shape; /* n + 1; of the result so far */
	long embedding, head;	/* -1: none; head == n: absent because it is tied */
	const char *head_name;
	bool tied;
};

const char *ob_target_name(const struct ob_targets *t, long target);
/* The matrix that edits of a tensor use: the first dimension by the product of the others; a tensor
 * with fewer than two dimensions is one row. */
void ob_target_matrix(const struct ob_shape *s, uint64_t *rows, uint64_t *cols);

/* How the shapes of a change and a tensor agree. */
enum { OB_FIT_NONE = 0, OB_FIT_NORMAL = 1, OB_FIT_TRANSPOSED = 2 };

/* Where one change goes. */
struct ob_hit {
	long target;  /* -1: no tensor of that name */
	unsigned fit; /* NONE: the name is there, but the shape differs */
};

/* Finds the tensors of all changes of one adapter, by one change of names for each part of the
 * model. *names describes it. OB_MISMATCH when two ways fit different tensors, or a tensor has
 * another shape; a change without a tensor is the caller's to judge. */
int ob_match(const struct ob_targets *t, const struct ob_adapter_file *f,
	     const struct ob_reader_result *r, struct ob_hit *hit, const char **names, ob_err *e);
/* OB_MISMATCH that lists the keys without a tensor and names that are near. */
int ob_match_fail(const struct ob_targets *t, const struct ob_adapter_file *f,
		  const struct ob_reader_result *r, const struct ob_hit *hit, size_t unused,
		  ob_err *e);

/* Decides for every LINEAR change whether the tensor stores [out, in] or [in, out]: leaves one bit
 * of hit[i].fit. OB_MISMATCH when nothing decides. */
int ob_orient(const struct ob_targets *t, const struct ob_adapter_file *f,
	      const struct ob_reader_result *r, struct ob_hit *hit, ob_err *e);

/* An edit on its way into the result, in the order of the adapters and of the passes over each. */
struct ob_entry {
	long target;
	struct ob_edit edit;
	struct ob_shape shape; /* REPLACE: of the result */
	bool shared;	       /* of the embedding: meant for a tied head too */
	bool dropped;	       /* of a tied head: an edit of the embedding stands for it */
	size_t before;	       /* 1 + the entry before it of the same target and adapter; 0: none */
};
struct ob_entries {
	struct ob_entry *entry;
	size_t n, cap;
};
bool ob_same_edit(const struct ob_edit *x, const struct ob_edit *y);

/* Where the edits of a tied embedding or head let the two differ, unties them: *untied, and what
 * config.json must say. Rewrites the list so that its entries of the head are what the head gets.
 * OB_MISMATCH without a config.json. */
int ob_resolve_tied(struct ob_edits *x, struct ob_targets *t, struct ob_entries *list, bool *untied,
		    ob_err *e);
/* The size of the vocabulary after all edits, for config.json. OB_MISMATCH when embedding and head
 * end with different sizes. */
int ob_resolve_vocabulary(struct ob_edits *x, const struct ob_targets *t, bool has_head, ob_err *e);

#endif
