/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of LoRA adapters as PEFT 0.21 saves them: pairs of factors on linear layers, convolutions
 * and embeddings, updates of biases, and whole parameters or rows that replace those of the base.
 */
#include "adapter/peft.h"

#include <math.h>
#include <string.h>

#include "adapter/names.h"
#include "adapter/reader.h"

/* Everything that the file holds for one module path. */
struct group {
	const char *path;
	const char *module; /* inside the base model: what patterns are matched against */
	size_t tensor[OB_PEFT_N_FACTOR_ROLES]; /* 1 + index of the stored tensor; 0: none */
};

struct reading {
	const struct ob_adapter_file *f;
	struct ob_reader_result *out;
	struct ob_peft_config config;
	struct ob_peft_key *key; /* per stored tensor */
	bool *zero;		 /* per stored tensor */
	struct group *group;
	size_t n_groups;
	struct ob_map by_path;
	bool alphas; /* the file has .alpha tensors */
};

static const char *name_of(const struct reading *rd, size_t i)
{
	return rd->f->list.tensor[i].name;
}

/* ---- keys ---- */

/* PEFT files hold one adapter; other files may hold several under different names. */
static int check_adapter_name(const struct reading *rd, const struct ob_peft_key *k,
			      const char **name, ob_err *e)
{
	if (!k->adapter)
		return 0;
	if (*name && strcmp(*name, k->adapter))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: holds more than one adapter (\"%s\" and "
			       "\"%s\"); save each in a file of its own",
			       rd->f->path, OB_SHOWN(*name), OB_SHOWN(k->adapter));
	*name = k->adapter;
	return 0;
}

static int add_to_group(struct reading *rd, size_t i, ob_err *e)
{
	const struct ob_peft_key *k = &rd->key[i];
	uint32_t g = (uint32_t)rd->n_groups;
	size_t *slot;
	int rc = ob_map_add(&rd->by_path, k->path, strlen(k->path), g, e);

	if (rc < 0)
		return -1;
	if (rc == 0)
		rd->group[rd->n_groups++] =
			(struct group){ .path = k->path, .module = ob_name_unwrapped(k->path) };
	else
		ob_map_find(&rd->by_path, k->path, strlen(k->path), &g);
	slot = &rd->group[g].tensor[k->role];
	if (*slot)
		return ob_fail(e, OB_MISMATCH, "%s: the keys \"%s\" and \"%s\" are the same factor",
			       rd->f->path, OB_SHOWN(name_of(rd, *slot - 1)),
			       OB_SHOWN(name_of(rd, i)));
	*slot = i + 1;
	rd->alphas |= k->role == OB_PEFT_ALPHA;
	return 0;
}

static int parse_keys(struct reading *rd, ob_err *e)
{
	const char *adapter = NULL;

	for (size_t i = 0; i < rd->f->list.n_tensors; i++) {
		struct ob_peft_key *k = &rd->key[i];

		if (ob_peft_key_parse(name_of(rd, i), rd->f->arena, k, e) != 0 ||
		    check_adapter_name(rd, k, &adapter, e) != 0)
			return -1;
		if (k->role == OB_PEFT_NESTED)
			return ob_fail(e, OB_UNSUPPORTED,
				       "%s: the key \"%s\" belongs to LoRA on "
				       "fused expert parameters, which is not supported by this "
				       "version",
				       rd->f->path, OB_SHOWN(name_of(rd, i)));
		if (k->role == OB_PEFT_UNKNOWN)
			return ob_fail(e, OB_UNSUPPORTED,
				       "%s: the key \"%s\" is no part of a LoRA "
				       "that is known",
				       rd->f->path, OB_SHOWN(name_of(rd, i)));
		if (k->role < OB_PEFT_N_FACTOR_ROLES && add_to_group(rd, i, e) != 0)
			return -1;
	}
	return 0;
}

/* ---- factors ---- */

static int scale_of(const struct reading *rd, const struct group *g, uint64_t r, const char *key,
		    double *coeff, ob_err *e)
{
	size_t alpha = g->tensor[OB_PEFT_ALPHA];

	if (ob_peft_scale(rd->f, &rd->config, g->module, r, key, coeff, e) != 0)
		return -1;
	if (alpha) {
		if (ob_stored_scalar(rd->f, &rd->f->list.tensor[alpha - 1], coeff, e) != 0)
			return -1;
		*coeff /= (double)r;
	}
	*coeff *= rd->f->scale;
	return 0;
}

/* b [O, r] and a [r, I] as they are stored. */
static int check_pair(const struct reading *rd, const struct group *g, size_t ia, size_t ib,
		      ob_err *e)
{
	const struct ob_stored *a, *b;

	if (!ia || !ib)
		return ob_fail(e, OB_CORRUPT,
			       "%s: the key \"%s\" has no partner lora_%c for the "
			       "same module",
			       rd->f->path, OB_SHOWN(name_of(rd, ia + ib - 1)), ia ? 'B' : 'A');
	a = &rd->f->list.tensor[ia - 1];
	b = &rd->f->list.tensor[ib - 1];
	if (a->shape.rank < 2 || b->shape.rank < 2)
		return ob_fail(e, OB_CORRUPT,
			       "%s: the factors of \"%s\" have the shapes %s and %s, "
			       "which are no matrices",
			       rd->f->path, OB_SHOWN(g->module), OB_SHOWN_SHAPE(&a->shape),
			       OB_SHOWN_SHAPE(&b->shape));
	return 0;
}

static int add_pair(struct reading *rd, const struct group *g, enum ob_peft_role role_a,
		    enum ob_peft_role role_b, double *coeff, ob_err *e)
{
	size_t ia = g->tensor[role_a], ib = g->tensor[role_b];
	const struct ob_stored *a, *b;
	struct ob_change *c;

	if (check_pair(rd, g, ia, ib, e) != 0)
		return -1;
	a = &rd->f->list.tensor[ia - 1];
	b = &rd->f->list.tensor[ib - 1];
	c = ob_result_change(rd->out, rd->f, OB_CHANGE_LINEAR, g->path, "weight", a->name, e);
	if (!c || ob_view_of(rd->f, a, &c->a, e) != 0 || ob_view_of(rd->f, b, &c->b, e) != 0)
		return -1;
	if (c->a.rows != c->b.cols || !c->a.rows)
		return ob_fail(e, OB_MISMATCH,
			       "%s: the factors of \"%s\" have the shapes %s and %s, "
			       "which are no pair of one rank above 0",
			       rd->f->path, OB_SHOWN(g->module), OB_SHOWN_SHAPE(&a->shape),
			       OB_SHOWN_SHAPE(&b->shape));
	if (scale_of(rd, g, c->a.rows, a->name, coeff, e) != 0)
		return -1;
	c->shape = a->shape;
	c->coeff = *coeff;
	c->zero = rd->zero[ia - 1] || rd->zero[ib - 1] || (float)*coeff == 0;
	c->n_keys = 2;
	if (role_a == OB_PEFT_EMBEDDING_A) {
		/* Stored as [r, V] and [D, r]; the table is [V, D]. */
		struct ob_view v = c->a;

		c->kind = OB_CHANGE_EMBEDDING;
		c->a = ob_view_transposed(&c->b);
		c->b = ob_view_transposed(&v);
	}
	return 0;
}

static int add_bias(struct reading *rd, const struct group *g, double coeff, ob_err *e)
{
	size_t i = g->tensor[OB_PEFT_BIAS];
	const struct ob_stored *s = &rd->f->list.tensor[i - 1];
	struct ob_change *c;

	if (!g->tensor[OB_PEFT_B])
		return ob_fail(e, OB_CORRUPT, "%s: the key \"%s\" has no factors beside it",
			       rd->f->path, OB_SHOWN(s->name));
	c = ob_result_change(rd->out, rd->f, OB_CHANGE_BIAS_ADD, g->path, "bias", s->name, e);
	if (!c || ob_view_of(rd->f, s, &c->b, e) != 0)
		return -1;
	c->shape = s->shape;
	c->coeff = coeff;
	c->zero = rd->zero[i - 1] || (float)coeff == 0;
	return 0;
}

static int add_group(struct reading *rd, const struct group *g, ob_err *e)
{
	const size_t *t = g->tensor;
	size_t first = rd->out->n_changes;
	double coeff = 0;

	if ((t[OB_PEFT_A] || t[OB_PEFT_B]) && add_pair(rd, g, OB_PEFT_A, OB_PEFT_B, &coeff, e) != 0)
		return -1;
	if (t[OB_PEFT_BIAS] && add_bias(rd, g, coeff, e) != 0)
		return -1;
	if ((t[OB_PEFT_EMBEDDING_A] || t[OB_PEFT_EMBEDDING_B]) &&
	    add_pair(rd, g, OB_PEFT_EMBEDDING_A, OB_PEFT_EMBEDDING_B, &coeff, e) != 0)
		return -1;
	if (!t[OB_PEFT_ALPHA])
		return 0;
	if (rd->out->n_changes == first)
		return ob_result_ignore(rd->out, rd->f, name_of(rd, t[OB_PEFT_ALPHA] - 1),
					"alpha without factors", e);
	rd->out->change[first].n_keys++;
	return 0;
}

/* ---- whole parameters and rows ---- */

static int add_replacement(struct reading *rd, size_t i, ob_err *e)
{
	const struct ob_stored *s = &rd->f->list.tensor[i];
	const struct ob_peft_key *k = &rd->key[i];
	struct ob_change *c =
		ob_result_change(rd->out, rd->f, OB_CHANGE_REPLACE, k->path, k->param, s->name, e);

	if (!c || ob_view_of(rd->f, s, &c->b, e) != 0)
		return -1;
	c->shape = s->shape;
	return 0;
}

/* The token list for a module: one for all, or by the last components of its path. */
static const struct ob_jv *token_list(const struct ob_jv *tokens, const char *module)
{
	if (!tokens || ob_json_type(tokens) == OB_JSON_ARRAY)
		return tokens;
	for (const struct ob_jv *v = ob_json_first(tokens); v; v = ob_json_next(v)) {
		const char *suffix = ob_json_key(v);
		size_t n = strlen(module), ns = suffix ? strlen(suffix) : 0;

		if (suffix && ns <= n && !strcmp(module + n - ns, suffix) &&
		    (ns == n || module[n - ns - 1] == '.'))
			return v;
	}
	return NULL;
}

static int read_indices(const struct reading *rd, const struct ob_jv *list, struct ob_change *c,
			ob_err *e)
{
	uint64_t *index;
	size_t n = 0;

	for (const struct ob_jv *v = ob_json_first(list); v; v = ob_json_next(v))
		n++;
	if (n != c->b.rows)
		return ob_fail(e, OB_MISMATCH,
			       "%s: the key \"%s\" has %llu rows, but %s lists %zu "
			       "trainable tokens",
			       rd->f->path, OB_SHOWN(c->key), (unsigned long long)c->b.rows,
			       rd->f->config_path, n);
	index = ob_arena_alloc(rd->f->arena, n * sizeof(*index), e);
	if (!index)
		return -1;
	c->index = index;
	c->n_index = n;
	for (const struct ob_jv *v = ob_json_first(list); v; v = ob_json_next(v)) {
		int64_t token;

		if (!ob_json_int(v, &token) || token < 0)
			return ob_fail(e, OB_CORRUPT,
				       "%s: a trainable token index is no integer "
				       "from 0 on",
				       rd->f->config_path);
		*index++ = (uint64_t)token;
	}
	return 0;
}

static int add_rows(struct reading *rd, size_t i, ob_err *e)
{
	const struct ob_stored *s = &rd->f->list.tensor[i];
	const struct ob_peft_key *k = &rd->key[i];
	const struct ob_jv *list = token_list(rd->config.tokens, ob_name_unwrapped(k->path));
	struct ob_change *c;

	if (s->shape.rank != 2)
		return ob_fail(e, OB_CORRUPT,
			       "%s: the key \"%s\" has the shape %s where rows of an "
			       "embedding are expected",
			       rd->f->path, OB_SHOWN(s->name), OB_SHOWN_SHAPE(&s->shape));
	if (!list || ob_json_type(list) != OB_JSON_ARRAY)
		return ob_fail(e, OB_MISMATCH,
			       "%s: the key \"%s\" holds rows of an embedding, but "
			       "no trainable_token_indices in an adapter_config.json say which",
			       rd->f->path, OB_SHOWN(s->name));
	c = ob_result_change(rd->out, rd->f, OB_CHANGE_ROWS, k->path, "weight", s->name, e);
	if (!c || ob_view_of(rd->f, s, &c->b, e) != 0)
		return -1;
	c->zero = !c->b.rows;
	return read_indices(rd, list, c, e);
}

/* ---- the reader ---- */

static int add_changes(struct reading *rd, ob_err *e)
{
	for (size_t i = 0; i < rd->n_groups; i++)
		if (add_group(rd, &rd->group[i], e) != 0)
			return -1;
	for (size_t i = 0; i < rd->f->list.n_tensors; i++) {
		int rc = 0;

		if (rd->key[i].role == OB_PEFT_REPLACE)
			rc = add_replacement(rd, i, e);
		else if (rd->key[i].role == OB_PEFT_ROWS)
			rc = add_rows(rd, i, e);
		else if (rd->key[i].role == OB_PEFT_STALE)
			rc = ob_result_ignore(rd->out, rd->f, name_of(rd, i),
					      "the base's own values before training", e);
		if (rc != 0)
			return -1;
	}
	return 0;
}

static void describe(struct reading *rd)
{
	struct ob_reader_result *out = rd->out;
	const struct ob_peft_config *c = &rd->config;

	out->family = c->rslora ? "PEFT rsLoRA" : "PEFT LoRA";
	out->fan_in_fan_out = c->fan_in_fan_out;
	out->shares_tie = c->ensure_weight_tying;
	if (c->present && !c->alphas.n && !rd->alphas)
		out->alpha = c->alpha;
	if (c->warning)
		out->note[out->n_notes++] = c->warning;
	else if (!c->present && !rd->alphas && rd->n_groups)
		out->note[out->n_notes++] = "it has neither an adapter_config.json nor alpha "
					    "values: its scale is taken as 1";
}

static int read_peft(const struct ob_adapter_file *f, struct ob_reader_result *out, ob_err *e)
{
	size_t n = f->list.n_tensors;
	struct reading rd = { .f = f, .out = out };
	int rc;

	rd.key = ob_arena_alloc(f->arena, n * sizeof(*rd.key), e);
	rd.zero = ob_arena_alloc(f->arena, n * sizeof(*rd.zero), e);
	rd.group = ob_arena_alloc(f->arena, n * sizeof(*rd.group), e);
	if (!rd.key || !rd.zero || !rd.group || ob_peft_config_read(f, &rd.config, e) != 0)
		return -1;
	rc = parse_keys(&rd, e);
	if (rc == 0)
		rc = ob_values_scan(f, rd.zero, e);
	if (rc == 0)
		rc = add_changes(&rd, e);
	if (rc == 0)
		describe(&rd);
	ob_map_free(&rd.by_path);
	ob_peft_config_free(&rd.config);
	return rc;
}

static int bid(const struct ob_adapter_file *f)
{
	if (ob_json_str(ob_json_get(f->config, "peft_type")))
		return 60;
	for (size_t i = 0; i < f->list.n_tensors; i++)
		if (ob_name_component(f->list.tensor[i].name, "lora_A") ||
		    ob_name_component(f->list.tensor[i].name, "lora_embedding_A"))
			return 50;
	return 0;
}

const struct ob_adapter_reader ob_reader_peft = {
	.name = "peft",
	.summary =
		"PEFT LoRA and rsLoRA: adapter_config.json and adapter_model.safetensors or .bin",
	.bid = bid,
	.read = read_peft,
};
