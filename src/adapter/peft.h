/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the PEFT reader: its keys, its configuration, its patterns. Internal to this folder. */
#ifndef OB_ADAPTER_PEFT_H
#define OB_ADAPTER_PEFT_H

#include "adapter/adapter.h"

enum ob_peft_role {
	OB_PEFT_A,
	OB_PEFT_B,
	OB_PEFT_EMBEDDING_A,
	OB_PEFT_EMBEDDING_B,
	OB_PEFT_BIAS, /* lora_B.bias: added to the bias */
	OB_PEFT_ALPHA,
	OB_PEFT_N_FACTOR_ROLES,
	OB_PEFT_ROWS = OB_PEFT_N_FACTOR_ROLES, /* final rows of an embedding */
	OB_PEFT_REPLACE,		       /* a whole parameter */
	OB_PEFT_STALE,			       /* a copy of the base that a wrapper kept */
	OB_PEFT_NESTED,			       /* factors on a parameter of a fused module */
	OB_PEFT_UNKNOWN,
};

struct ob_peft_key {
	enum ob_peft_role role;
	const char *path;    /* module path; wrappers are still there */
	const char *param;   /* of REPLACE */
	const char *adapter; /* adapter name inside the key, or NULL */
};
/* Pieces are copied to the arena. */
int ob_peft_key_parse(const char *key, struct ob_arena *a, struct ob_peft_key *out, ob_err *e);

/* {"pattern": number, ...}: the first pattern in file order that matches a module decides. */
struct ob_peft_patterns {
	struct ob_regex **re;
	const struct ob_jv *object;
	size_t n;
	const char *what; /* for messages */
};
/* object: NULL or null for none. */
int ob_peft_patterns_new(struct ob_peft_patterns *p, const struct ob_jv *object, const char *what,
			 ob_err *e);
void ob_peft_patterns_free(struct ob_peft_patterns *p);
/* *value is left alone when nothing matches. `module` is the path inside the base model. */
int ob_peft_patterns_find(const struct ob_peft_patterns *p, const char *module, double *value,
			  ob_err *e);

/* adapter_config.json with PEFT's defaults; all zero without one. */
struct ob_peft_config {
	bool present;
	double r, alpha;
	bool rslora, fan_in_fan_out, ensure_weight_tying;
	struct ob_peft_patterns rank, alphas;
	const struct ob_jv *tokens; /* trainable_token_indices, or NULL */
	const char *warning;	    /* NULL, or one sentence */
};
/* Refuses what plain LoRA arithmetic cannot bake, by name. */
int ob_peft_config_read(const struct ob_adapter_file *f, struct ob_peft_config *c, ob_err *e);
void ob_peft_config_free(struct ob_peft_config *c);
/* The scale of a module of rank r (without the user's). Checks the rank against the configuration;
 * `key` is for the message. */
int ob_peft_scale(const struct ob_adapter_file *f, const struct ob_peft_config *c,
		  const char *module, uint64_t r, const char *key, double *scale, ob_err *e);

#endif
