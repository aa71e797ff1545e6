/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of mlx-lm adapters: <module path>.lora_a [I, r] and .lora_b [r, O] (the other way round
 * than PEFT's), and plain parameters that replace those of the base (fine_tune_type full).
 */
#include <math.h>
#include <string.h>

#include "adapter/names.h"
#include "adapter/reader.h"

/* Defaults of mlx-lm; those of early 2024, with alpha, make the same 20. */
#define DEFAULT_SCALE 20
#define OLD_SCALE 10
#define OLD_RANK 8

struct pair {
	const char *path;
	size_t a, b; /* 1 + index of the stored tensor; 0: none */
};

struct reading {
	const struct ob_adapter_file *f;
	struct ob_reader_result *out;
	double scale;
	double rank; /* by the configuration; 0: it does not say */
	bool *zero;
	struct pair *pair;
	size_t n_pairs;
	struct ob_map by_path;
};

/* ---- configuration ---- */

static int check_type(const struct ob_adapter_file *f, ob_err *e)
{
	const char *type = ob_json_str(ob_json_get(f->config, "fine_tune_type"));

	if (!type || !strcmp(type, "lora") || !strcmp(type, "full"))
		return 0;
	return ob_fail(e, OB_UNSUPPORTED,
		       "%s: fine_tune_type is \"%s\"; MLX adapters of that type "
		       "are not supported by this version",
		       f->config_path, OB_SHOWN(type));
}

static int number(const struct ob_adapter_file *f, const char *field, double *x, ob_err *e)
{
	const struct ob_jv *v = ob_json_get(ob_json_get(f->config, "lora_parameters"), field);

	if (!v || ob_json_type(v) == OB_JSON_NULL)
		return 0;
	if (!ob_json_num(v, x) || !isfinite(*x))
		return ob_fail(e, OB_CORRUPT, "%s: \"%s\" of lora_parameters is no finite number",
			       f->config_path, field);
	return 0;
}

static int read_config(struct reading *rd, ob_err *e)
{
	const struct ob_adapter_file *f = rd->f;
	const struct ob_jv *parameters = ob_json_get(f->config, "lora_parameters");
	bool old = ob_json_get(parameters, "alpha") && !ob_json_get(f->config, "fine_tune_type");
	double alpha = 0;

	if (check_type(f, e) != 0)
		return -1;
	rd->scale = old ? OLD_SCALE : DEFAULT_SCALE;
	rd->rank = old ? OLD_RANK : 0;
	if (number(f, "scale", &rd->scale, e) != 0 || number(f, "rank", &rd->rank, e) != 0 ||
	    number(f, "alpha", &alpha, e) != 0)
		return -1;
	if (old)
		rd->scale *= alpha / rd->rank;
	rd->scale *= f->scale;
	return 0;
}

/* ---- keys ---- */

static int add_replacement(struct reading *rd, const struct ob_stored *s, const char *path,
			   const char *param, ob_err *e)
{
	struct ob_change *c =
		ob_result_change(rd->out, rd->f, OB_CHANGE_REPLACE, path, param, s->name, e);

	if (!c || ob_view_of(rd->f, s, &c->b, e) != 0)
		return -1;
	c->shape = s->shape;
	return 0;
}

static int add_factor(struct reading *rd, size_t i, const char *path, bool is_b, ob_err *e)
{
	uint32_t p = (uint32_t)rd->n_pairs;
	int rc = ob_map_add(&rd->by_path, path, strlen(path), p, e);

	if (rc < 0)
		return -1;
	if (rc == 0)
		rd->pair[rd->n_pairs++].path = path;
	else
		ob_map_find(&rd->by_path, path, strlen(path), &p);
	*(is_b ? &rd->pair[p].b : &rd->pair[p].a) = i + 1;
	return 0;
}

static int read_key(struct reading *rd, size_t i, ob_err *e)
{
	const struct ob_stored *s = &rd->f->list.tensor[i];
	const char *dot = strrchr(s->name, '.');
	const char *leaf = dot ? dot + 1 : s->name;
	const char *path =
		ob_arena_strndup(rd->f->arena, s->name, dot ? (size_t)(dot - s->name) : 0, e);

	if (!path)
		return -1;
	if (!strcmp(leaf, "lora_a") || !strcmp(leaf, "lora_b"))
		return add_factor(rd, i, path, leaf[5] == 'b', e);
	if (!strcmp(leaf, "m"))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: the key \"%s\" is the magnitude of a DoRA "
			       "layer; DoRA adapters are not supported by this version",
			       rd->f->path, OB_SHOWN(s->name));
	return add_replacement(rd, s, path, leaf, e);
}

/* ---- pairs ---- */

/* mlx-lm makes another kind of layer of an embedding, with the factors in the table's own order. */
static bool is_embedding(const char *path)
{
	static const char *const names[] = { "embed_tokens", "tok_embeddings",	"wte",
					     "wpe",	     "word_embeddings", "embed_in",
					     "embedding",    "embeddings" };
	const char *dot = strrchr(path, '.');

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(dot ? dot + 1 : path, names[i]))
			return true;
	return false;
}

static int add_pair(struct reading *rd, const struct pair *p, ob_err *e)
{
	const struct ob_adapter_file *f = rd->f;
	const struct ob_stored *a, *b;
	struct ob_view va, vb;
	struct ob_change *c;

	if (!p->a || !p->b)
		return ob_fail(e, OB_CORRUPT, "%s: the key \"%s\" has no partner lora_%c", f->path,
			       OB_SHOWN(f->list.tensor[p->a + p->b - 1].name), p->a ? 'b' : 'a');
	a = &f->list.tensor[p->a - 1];
	b = &f->list.tensor[p->b - 1];
	if (a->shape.rank == 3 || b->shape.rank == 3)
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: the key \"%s\" is a factor of stacked "
			       "experts, which are not supported by this version",
			       f->path, OB_SHOWN(b->shape.rank == 3 ? b->name : a->name));
	if (a->shape.rank != 2 || b->shape.rank != 2 || a->shape.dim[1] != b->shape.dim[0] ||
	    !a->shape.dim[1])
		return ob_fail(e, OB_MISMATCH,
			       "%s: the factors of \"%s\" have the shapes %s and %s, "
			       "which are no pair of one rank above 0",
			       f->path, OB_SHOWN(p->path), OB_SHOWN_SHAPE(&a->shape),
			       OB_SHOWN_SHAPE(&b->shape));
	if (rd->rank != 0 && rd->rank != (double)a->shape.dim[1])
		return ob_fail(e, OB_MISMATCH, "%s: the key \"%s\" has rank %llu, but %s says %g",
			       f->path, OB_SHOWN(a->name), (unsigned long long)a->shape.dim[1],
			       f->config_path, rd->rank);
	c = ob_result_change(rd->out, f, OB_CHANGE_LINEAR, p->path, "weight", a->name, e);
	if (!c || ob_view_of(f, a, &va, e) != 0 || ob_view_of(f, b, &vb, e) != 0)
		return -1;
	if (is_embedding(p->path)) {
		c->kind = OB_CHANGE_EMBEDDING;
		c->b = va;
		c->a = vb;
	} else {
		c->b = ob_view_transposed(&vb);
		c->a = ob_view_transposed(&va);
	}
	c->shape = a->shape;
	c->coeff = rd->scale;
	c->zero = rd->zero[p->a - 1] || rd->zero[p->b - 1] || (float)rd->scale == 0;
	c->n_keys = 2;
	return 0;
}

/* ---- the reader ---- */

static int read_keys(struct reading *rd, ob_err *e)
{
	const struct ob_adapter_file *f = rd->f;

	for (size_t i = 0; i < f->list.n_tensors; i++)
		if (read_key(rd, i, e) != 0)
			return -1;
	if (rd->n_pairs && !f->config)
		return ob_fail(
			e, OB_UNSUPPORTED,
			"%s: an MLX adapter whose scale is unknown; it "
			"stands in the adapter_config.json of its folder, so name the folder",
			f->path);
	if (ob_values_scan(f, rd->zero, e) != 0)
		return -1;
	for (size_t i = 0; i < rd->n_pairs; i++)
		if (add_pair(rd, &rd->pair[i], e) != 0)
			return -1;
	return 0;
}

static int read_mlx(const struct ob_adapter_file *f, struct ob_reader_result *out, ob_err *e)
{
	size_t n = f->list.n_tensors;
	struct reading rd = { .f = f, .out = out };
	int rc;

	rd.zero = ob_arena_alloc(f->arena, n * sizeof(*rd.zero), e);
	rd.pair = ob_arena_alloc(f->arena, n * sizeof(*rd.pair), e);
	if (!rd.zero || !rd.pair || read_config(&rd, e) != 0)
		return -1;
	rc = read_keys(&rd, e);
	ob_map_free(&rd.by_path);
	out->family = rd.n_pairs ? "MLX LoRA" : "MLX full fine-tune";
	/* The layer that mlx-lm makes of an embedding serves as the tied head as well. */
	out->shares_tie = true;
	return rc;
}

static int bid(const struct ob_adapter_file *f)
{
	if (ob_json_get(f->config, "fine_tune_type") || ob_json_get(f->config, "lora_parameters"))
		return 70;
	for (size_t i = 0; i < f->list.n_tensors; i++)
		if (ob_has_suffix(f->list.tensor[i].name, ".lora_a"))
			return 55;
	return 0;
}

const struct ob_adapter_reader ob_reader_mlx = {
	.name = "mlx",
	.summary = "mlx-lm LoRA and full fine-tunes: adapter_config.json and adapters.safetensors",
	.bid = bid,
	.read = read_mlx,
};
