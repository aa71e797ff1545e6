/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models: where a model's files are, what they hold, and the logical tensors that the stored parts
 * form. Reads headers and configuration only, never weights.
 */
#ifndef OB_MODEL_MODEL_H
#define OB_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/util.h"
#include "codec/codec.h"
#include "container/container.h"
#include "io/file.h"

/* A logical tensor: name and shape as the model's code knows them, and the stored parts. */
struct ob_tensor {
	const char *name;
	struct ob_shape shape;
	struct ob_encoding enc;
	const struct ob_stored *part[OB_MAX_PARTS]; /* in the codec's layout order */
	unsigned n_parts;
	uint32_t
		whole; /* bit k: part k is not cut by tiles, but read as a whole, as long as it is */
};

/* A file of the model folder that is no weight file and goes along with the output. */
struct ob_companion {
	const char *rel;  /* path below the folder: "assets/a.txt" */
	const char *path; /* where to read it */
};

struct ob_model {
	const char *path;      /* resolved: the folder or the file */
	bool is_file;	       /* one weight file, no folder around it */
	struct ob_file **file; /* weight files in shard order */
	size_t n_files;
	struct ob_file *
		*temp; /* nameless, with tensors that cannot be read where they are stored */
	size_t n_temps;
	struct ob_tensor *tensor; /* in shard order, within a shard by offset */
	size_t n_tensors;
	struct ob_map by_name;	    /* logical name -> index of tensor */
	struct ob_meta_entry *meta; /* union of the files' metadata, first one wins */
	size_t n_meta;
	bool had_index; /* an index file led to the shards */
	const char *
		weights_prefix; /* "model", "diffusion_pytorch_model": how weight files are called */
	char *config_text;	/* config.json as it is, NULL when there is none */
	size_t config_len;
	struct ob_jv *config; /* the same, parsed; NULL */
	const struct ob_encoding
		*quant; /* encoding of most quantized tensors; NULL when all are float */
	struct ob_companion *companion; /* without config.json; in byte order of rel */
	size_t n_companions;
	uint64_t bytes;	       /* of all stored parts */
	uint64_t params;       /* logical elements */
	struct ob_arena arena; /* owns everything above but files, config and map */
};

/*
 * path: a folder (Hugging Face, MLX; plain or a cache snapshot whose files are links), one weight
 * file, or "org/name" (optionally "@revision") found in the local Hugging Face cache (HF_HUB_CACHE,
 * HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub). An existing path wins over
 * a cache name.
 *
 * With an index, exactly the files it names are read and every name must be a plain component; the
 * tensors of a shard and the index must agree. Without one: model.safetensors, or all shards of one
 * complete NAME-xxxxx-of-yyyyy set, or the only weight file.
 * Errors: OB_IO (not found), OB_CORRUPT, OB_MISMATCH, OB_UNSAFE, OB_UNSUPPORTED, OB_LIMIT, OB_NOMEM.
 */
int ob_model_open(struct ob_model **m, const char *path, ob_err *e);
void ob_model_close(struct ob_model *m); /* NULL is fine */

/* OB_CHANGED when a weight file is no longer what was opened. */
int ob_model_check(const struct ob_model *m, ob_err *e);

/* Index of the logical tensor, or -1. */
long ob_model_find(const struct ob_model *m, const char *name);

/*
 * Knowledge of architectures (family.c), by config.json; all accept a model without config.
 */
/* Weights of linear layers are stored [in, out] (transformers' Conv1D: GPT-2 and relatives). */
bool ob_family_conv1d(const struct ob_model *m);
/* A known architecture made of nn.Linear (so that fan_in_fan_out is wrong where it says otherwise). */
bool ob_family_known(const struct ob_model *m);
/* Names of the token embedding and of the output head ("model.embed_tokens.weight",
 * "lm_head.weight"); NULL when the model has none that is known, *head also where it is no language
 * model (a classifier, an encoder). *head may name a tensor that is absent because it is tied. */
void ob_family_embeddings(const struct ob_model *m, const char **embedding, const char **head);
/* Is this the token embedding or the head? */
enum ob_use ob_family_use(const struct ob_model *m, const char *name);
/* tie_word_embeddings (text_config too), or a head that is absent beside an embedding; false for a
 * model without a head. */
bool ob_family_tied(const struct ob_model *m);

#endif
