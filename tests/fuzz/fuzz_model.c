/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the step from stored tensors to logical ones: the number formats' recognition by
 * names, shapes and configuration. The input is a config.json, a line "--", and stored tensors, a
 * line "TYPE NAME D D" each. For any model that is accepted:
 *  - every stored tensor is part of exactly one logical tensor;
 *  - the parts are those of which the format says that it stores such a tensor.
 */
#include "fuzz.h"
#include "model/internal.h"
#include "tensor_line.h"

#define MAX_TENSORS 128

struct input {
	struct ob_arena arena;
	struct ob_stored stored[MAX_TENSORS];
	const struct ob_stored *item[MAX_TENSORS];
	struct ob_stored_set set;
	struct ob_model model;
};

/* What container readers let through. */
static bool add_stored(struct input *in, enum ob_dtype dtype, const struct tensor_line *l,
		       ob_err *e)
{
	struct ob_stored *s = &in->stored[in->set.n];
	uint64_t *dim = ob_arena_alloc(&in->arena, sizeof(l->dim), e), bits;

	if (in->set.n == MAX_TENSORS || memchr(l->name, '\0', l->len) ||
	    !ob_mul_u64(l->elems, ob_dtype_bits(dtype), &bits) || bits % 8 != 0)
		return false;
	memcpy(dim, l->dim, sizeof(l->dim));
	*s = (struct ob_stored){ .dtype = dtype, .shape = { l->shape.rank, dim }, .len = bits / 8 };
	s->name = ob_arena_strndup(&in->arena, l->name, l->len, e);
	if (ob_map_add(&in->set.by_name, s->name, l->len, (uint32_t)in->set.n, e) != 0)
		return false;
	in->item[in->set.n++] = s;
	return true;
}

static bool read_input(struct input *in, const char *data, size_t size, ob_err *e)
{
	const char *mark = memmem(data, size, "\n--\n", 4), *at, *space;
	struct tensor_line l;

	if (!mark)
		return false;
	if (mark > data &&
	    ob_json_parse(&in->model.config, data, (size_t)(mark - data), "fuzz", e) != 0)
		return false;
	in->set.item = in->item;
	for (at = mark + 4; at < data + size;) {
		enum ob_dtype dtype;

		space = memchr(at, ' ', (size_t)(data + size - at));
		dtype = space ? ob_dtype_by_name(at, (size_t)(space - at)) : OB_N_DTYPES;
		if (dtype == OB_N_DTYPES)
			return false;
		at = space + 1;
		if (tensor_line(&at, data + size, &l) != 1 || !add_stored(in, dtype, &l, e))
			return false;
	}
	return true;
}

static void check_tensor(struct input *in, const struct ob_tensor *t, unsigned *seen)
{
	struct ob_parts parts;
	ob_err e = { 0 };

	fuzz_require(t->enc.codec->layout(&t->enc, &t->shape, &in->arena, &parts, &e) == 0);
	fuzz_require(parts.n == t->n_parts);
	for (unsigned k = 0; k < parts.n; k++) {
		fuzz_require(t->part[k]->dtype == parts.part[k].dtype);
		fuzz_require(ob_shape_equal(&t->part[k]->shape, &parts.part[k].shape));
		fuzz_require(t->part[k]->len == parts.part[k].len);
		seen[t->part[k] - in->stored]++;
	}
}

static void check(struct input *in)
{
	unsigned seen[MAX_TENSORS] = { 0 };
	const char *embedding, *head;

	for (size_t i = 0; i < in->model.n_tensors; i++)
		check_tensor(in, &in->model.tensor[i], seen);
	for (size_t i = 0; i < in->set.n; i++)
		fuzz_require(seen[i] == 1);
	ob_family_embeddings(&in->model, &embedding, &head);
	fuzz_require(!embedding || ob_model_find(&in->model, embedding) >= 0);
	ob_family_conv1d(&in->model);
	ob_family_known(&in->model);
	ob_family_tied(&in->model);
}

static void fuzz_data(const char *data, size_t size)
{
	struct input in = { 0 };
	ob_err e = { 0 };
	int rc;

	if (read_input(&in, data, size, &e)) {
		fuzz_begin();
		rc = ob_group_tensors(&in.model, &in.set, &e);
		if (fuzz_end(rc, &e) && rc == 0)
			check(&in);
	}
	ob_arena_free(&in.model.arena);
	ob_map_free(&in.model.by_name);
	ob_map_free(&in.set.by_name);
	ob_json_free(in.model.config);
	ob_arena_free(&in.arena);
}
