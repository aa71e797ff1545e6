/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters: readers of adapter formats (one file each, registered in registry.c) and the resolver
 * that matches what they ask for to the model's tensors. Every key is used exactly once, or the
 * run fails here, before a byte is written.
 *
 * A reader parses keys into changes to module paths (as the adapter spells them) and knows its
 * format's scale rules; it does not know the model. The resolver knows names, orientation and
 * shapes.
 */
#ifndef OB_ADAPTER_ADAPTER_H
#define OB_ADAPTER_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter/edit.h"
#include "base/alloc.h"
#include "base/json.h"
#include "model/model.h"

struct ob_adapter_spec {
	const char *path; /* folder or file */
	double scale;	  /* the user's multiplier */
};

struct ob_adapter_options {
	bool allow_unused; /* keys that match nothing are listed as notes instead of failing */
	bool strict;	   /* notes become errors */
};

/* An adapter as opened: container listing and configuration. Given to the readers. */
struct ob_adapter_file {
	const char *path; /* as given, for messages */
	struct ob_file *file;
	struct ob_listing list;
	struct ob_jv *config;	 /* adapter_config.json beside it, or NULL */
	const char *config_path; /* NULL without */
	double scale;		 /* the user's */
	struct ob_arena *arena;
};

enum ob_change_kind {
	OB_CHANGE_LINEAR,    /* delta [O, I] = b[O, r] a[r, I] for a linear, convolution or head */
	OB_CHANGE_EMBEDDING, /* delta [V, D] = b[V, r] a[r, D]; never transposed by storage */
	OB_CHANGE_BIAS_ADD,  /* bias += coeff * b */
	OB_CHANGE_REPLACE,   /* the parameter becomes b (shape of its own) */
	OB_CHANGE_ROWS,	     /* rows `index` of the parameter become b */
};

/* One thing an adapter asks for. */
struct ob_change {
	enum ob_change_kind kind;
	const char *path;      /* module path as the adapter spells it */
	const char *module;    /* the same with all wrapper prefixes removed */
	const char *param;     /* "weight", "bias" */
	const char *key;       /* one stored key it came from, for messages */
	struct ob_view a, b;   /* in the orientation named above */
	struct ob_shape shape; /* REPLACE: shape of b; LINEAR: stored shape of a (convolutions) */
	double coeff;	       /* including the user's scale */
	bool zero;	       /* a factor or the scale is zero: it asks for nothing */
	const uint64_t *index;
	size_t n_index;
	uint32_t n_keys; /* stored keys that this change uses */
};

struct ob_reader_result {
	const char *family; /* "PEFT LoRA" */
	struct ob_change *change;
	size_t n_changes;
	const char **ignored; /* keys that carry nothing to bake (with the reason in parentheses) */
	size_t n_ignored;
	const char **note; /* remarks on the adapter, one sentence each */
	size_t n_notes;
	bool fan_in_fan_out; /* the file claims [in, out] storage */
	bool shares_tie;     /* an update of the embedding is meant for a head tied to it too */
	double alpha;	     /* for inspect; NAN when per module or unknown */
};

struct ob_adapter_reader {
	const char *name;    /* "peft" */
	const char *summary; /* one line for `oocbake formats` */
	/* 0: not mine; else how sure (1..100). Two equal top bids are an error that names both. */
	int (*bid)(const struct ob_adapter_file *f);
	/* Refuses what it cannot bake, by name (OB_UNSUPPORTED). Checks pairs, ranks and that
	 * values are finite. */
	int (*read)(const struct ob_adapter_file *f, struct ob_reader_result *out, ob_err *e);
};
extern const struct ob_adapter_reader *const ob_adapter_readers[]; /* NULL-ended */

/* What one adapter did, for reports. */
struct ob_adapter_info {
	const char *path, *family;
	double scale;
	size_t keys, used, ignored, unused;
	size_t modules;		     /* tensors it edits */
	uint64_t rank_min, rank_max; /* 0 without low-rank changes */
	double alpha;
	const char **note; /* unused keys and other remarks, one sentence each */
	size_t n_notes;
	const char *names; /* how they were changed: "model.* -> *", or "as they are" */
};

struct ob_tensor_edits {
	struct ob_edit *edit;
	size_t n;
	uint64_t rows, cols;   /* matrix that the edits use; rows may differ from the model's */
	struct ob_shape shape; /* of the result (a replacement may resize a vocabulary) */
};

/* An output tensor that the model does not store: the head where embeddings become untied. */
struct ob_extra_tensor {
	const char *name;
	uint32_t source;	      /* tensor of the model */
	struct ob_tensor_edits edits; /* may be empty: a copy */
};

/* A change of config.json that the edits force. */
struct ob_config_change {
	const char *path; /* as for ob_json_edit: "" or "text_config" */
	const char *key;
	const char *value; /* JSON text */
};

struct ob_edits {
	struct ob_tensor_edits *of; /* one per tensor of the model */
	size_t n_tensors;
	struct ob_extra_tensor *extra;
	size_t n_extra;
	struct ob_config_change *config;
	size_t n_config;
	struct ob_adapter_info *adapter;
	size_t n_adapters;
	size_t n_edited;	       /* tensors (extra ones included) with at least one edit */
	struct ob_adapter_file **file; /* open until ob_edits_free: views point into their maps */
	struct ob_arena arena;
};

/* n == 0 gives an empty set. Errors: OB_CORRUPT, OB_UNSUPPORTED, OB_UNSAFE, OB_MISMATCH (names,
 * shapes, orientation; the message lists the nearest names), OB_NONFINITE, and OB_MISMATCH when
 * adapters were given and nothing would change. */
int ob_edits_resolve(struct ob_edits **out, const struct ob_adapter_spec *spec, size_t n,
		     const struct ob_model *m, const struct ob_adapter_options *opt, ob_err *e);
void ob_edits_free(struct ob_edits *x); /* NULL is fine */
/* OB_CHANGED when an adapter file is no longer what was opened. */
int ob_edits_check(const struct ob_edits *x, ob_err *e);

/* Opens an adapter (folder or file) and reads it without a model: for inspect. */
int ob_adapter_open(struct ob_adapter_file **f, struct ob_arena *a,
		    const struct ob_adapter_spec *spec, ob_err *e);
void ob_adapter_close(struct ob_adapter_file *f);
int ob_adapter_read(const struct ob_adapter_file *f, struct ob_reader_result *out, ob_err *e);

#endif
