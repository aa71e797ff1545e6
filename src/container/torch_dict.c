/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensors of a pickled state dict. What lies beside the state dict, and what is no tensor or
 * lies in a list, is left out.
 */
#include "container/torch_dict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"

#define DEPTH_MAX 64u	/* of dicts in dicts */
#define WRAPPERS_MAX 3u /* of dicts around the state dict */

struct reader {
	struct ob_lister *list;
	ob_torch_find find;
	void *ctx;
	struct ob_text name; /* of the dict that is being read: "model.layers." */
	uint64_t left;	     /* of the memory that names and shapes may use */
};

/* ---- places ---- */

/* Row-major without gaps? Where a dimension is 1 the stride does not matter. */
static bool is_contiguous(const struct ob_shape *s, const uint64_t *stride)
{
	uint64_t want = 1;

	for (uint32_t i = s->rank; i-- > 0; want *= s->dim[i])
		if (s->dim[i] != 1 && stride[i] != want)
			return false;
	return true;
}

/* The index of the last element, from the first one; false when it overflows. */
static bool span_of(const struct ob_shape *s, const uint64_t *stride, uint64_t *last)
{
	uint64_t step;

	*last = 0;
	for (uint32_t i = 0; i < s->rank; i++)
		if (!ob_mul_u64(s->dim[i] - 1, stride[i], &step) || !ob_add_u64(*last, step, last))
			return false;
	return true;
}

/* Shape and stride of t, in the arena. */
static int copy_dims(struct reader *r, const struct ob_ptensor *from, struct ob_stored *t,
		     uint64_t **stride, ob_err *e)
{
	uint32_t rank = from->size.n;
	uint64_t *dim = ob_arena_alloc(r->list->arena, 2 * rank * sizeof(*dim), e);

	if (!dim)
		return -1;
	*stride = dim + rank;
	for (uint32_t i = 0; i < rank; i++) {
		dim[i] = (uint64_t)from->size.item[i].i;
		(*stride)[i] = (uint64_t)from->stride.item[i].i;
	}
	t->shape = (struct ob_shape){ .rank = rank, .dim = dim };
	return 0;
}

/* Finds the bytes of t and checks that they are there. */
static int place(struct reader *r, const struct ob_ptensor *from, struct ob_stored *t, ob_err *e)
{
	const struct ob_pstorage *s = from->storage;
	struct ob_torch_place in;
	unsigned bits = ob_dtype_bits(from->dtype), item = bits / 8;
	uint64_t *stride, elems, end, bytes, first;

	if (r->find(r->ctx, r->list, t->name, s, &in, e) != 0 ||
	    copy_dims(r, from, t, &stride, e) != 0)
		return -1;
	if (bits % 8 != 0)
		return ob_lister_fail(r->list, t->name, e, OB_UNSUPPORTED,
				      "is %s, which is not read from torch files",
				      ob_dtype_name(from->dtype));
	if (!ob_mul_u64(s->n, s->untyped ? 1 : item, &bytes) ||
	    !ob_mul_u64(s->first, s->untyped ? 1 : item, &first) ||
	    !ob_in_file(first, bytes, in.size))
		return ob_lister_fail(r->list, t->name, e, OB_CORRUPT,
				      "is in a storage of %" PRIu64
				      " elements, but the file has only %" PRIu64 " bytes of it",
				      s->first + s->n, in.size);
	if (!ob_shape_elems(&t->shape, &elems) || !ob_mul_u64(elems, item, &end))
		return ob_lister_fail(r->list, t->name, e, OB_CORRUPT,
				      "has a shape of more than 2^64 bytes");
	t->dtype = from->dtype;
	t->off = in.off + first;
	if (elems == 0)
		return 0;
	if (!span_of(&t->shape, stride, &end) || !ob_add_u64(end, from->offset, &end) ||
	    !ob_add_u64(end, 1, &end) || !ob_mul_u64(end, item, &end) || end > bytes)
		return ob_lister_fail(r->list, t->name, e, OB_CORRUPT,
				      "reaches beyond its storage of %" PRIu64 " bytes", bytes);
	t->off += from->offset * item;
	t->len = end - from->offset * item;
	t->stride = is_contiguous(&t->shape, stride) ? NULL : stride;
	return 0;
}

/* ---- the state dict ---- */

/* Is there a tensor of this rank or more among the members? */
static bool holds_tensor(const struct ob_pdict *d, uint32_t rank)
{
	const struct ob_pentry *i = d->first;

	while (i && (i->value.kind != OB_P_TENSOR || i->value.tensor->size.n < rank))
		i = i->next;
	return i != NULL;
}

static struct ob_pdict *member(const struct ob_pdict *d, const char *key)
{
	size_t n = strlen(key);

	for (const struct ob_pentry *i = d->first; i; i = i->next)
		if (i->value.kind == OB_P_DICT && i->key.kind == OB_P_STR && i->key.n == n &&
		    memcmp(i->key.str, key, n) == 0)
			return i->value.dict;
	return NULL;
}

/* The dict with tensors that training tools wrap in others, or NULL. A scalar beside a known
 * wrapper is a figure of the training, such as the best loss. */
static struct ob_pdict *find_state_dict(struct ob_pdict *d, unsigned depth)
{
	static const char *const wrappers[] = {
		"state_dict", "model_state_dict", "model", "module", "params_ema", "params",
		"ema",	      "generator",	  "net",
	};

	if (depth == WRAPPERS_MAX || holds_tensor(d, 1))
		return d;
	for (size_t i = 0; i < sizeof(wrappers) / sizeof(*wrappers); i++) {
		struct ob_pdict *inner = member(d, wrappers[i]);
		struct ob_pdict *found = inner ? find_state_dict(inner, depth + 1) : NULL;

		if (found)
			return found;
	}
	return holds_tensor(d, 0) ? d : NULL;
}

static int append_name(struct reader *r, const char *s, size_t n, ob_err *e)
{
	ob_text_add(&r->name, s, n);
	if (r->name.failed)
		return ob_fail_nomem(e, "tensor name");
	if (r->name.len > OB_MAX_NAME)
		return ob_fail(e, OB_LIMIT,
			       "%s: a tensor has a name of %zu bytes; at most %u are accepted",
			       r->list->file->path, r->name.len, OB_MAX_NAME);
	return 0;
}

static int append_key(struct reader *r, const struct ob_pval *key, ob_err *e)
{
	char number[24];

	if (key->kind == OB_P_STR)
		return append_name(r, key->str, key->n, e);
	if (key->kind != OB_P_INT)
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: its state dict has a key that is neither a string nor a number",
			       r->list->file->path);
	snprintf(number, sizeof(number), "%" PRId64, key->i);
	return append_name(r, number, strlen(number), e);
}

static int add_tensor(struct reader *r, const struct ob_ptensor *from, ob_err *e)
{
	uint64_t cost = sizeof(struct ob_stored) + r->name.len + 16 * (uint64_t)from->size.n;
	struct ob_stored *t;

	/* A long name of a dict, or a shape, may serve many tensors. */
	if (cost > r->left)
		return ob_fail(e, OB_LIMIT,
			       "%s: its tensor names take too much memory for its size",
			       r->list->file->path);
	r->left -= cost;
	t = ob_lister_add(r->list, r->name.data, r->name.len, e);
	return t ? place(r, from, t, e) : -1;
}

/* Adds the tensors of d, named by its keys behind what r->name holds. */
static int add_dict(struct reader *r, struct ob_pdict *d, unsigned depth, ob_err *e)
{
	size_t base = r->name.len;

	OB_KNOWN(d); /* a value of this kind has one */
	/* Sharing would let a small file list without end. */
	if (depth == DEPTH_MAX || d->seen)
		return ob_fail(e, OB_LIMIT,
			       "%s: the dicts in its state dict are nested too deeply, or one is "
			       "in two places",
			       r->list->file->path);
	d->seen = d->first != NULL;
	for (const struct ob_pentry *i = d->first; i; i = i->next) {
		int rc = append_key(r, &i->key, e);

		if (rc == 0 && i->value.kind == OB_P_TENSOR)
			rc = add_tensor(r, i->value.tensor, e);
		if (rc == 0 && i->value.kind == OB_P_DICT)
			rc = append_name(r, ".", 1, e);
		if (rc == 0 && i->value.kind == OB_P_DICT)
			rc = add_dict(r, i->value.dict, depth + 1, e);
		if (rc != 0)
			return -1;
		r->name.len = base;
	}
	return 0;
}

int ob_torch_list(struct ob_lister *list, const struct ob_pval *root, size_t pickle,
		  ob_torch_find find, void *ctx, ob_err *e)
{
	struct reader r = {
		.list = list, .find = find, .ctx = ctx, .left = OB_PICKLE_MEMORY(pickle)
	};
	struct ob_pdict *dict;
	int rc;

	if (root->kind != OB_P_DICT)
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s holds no dict of tensors; save model.state_dict()",
			       list->file->path);
	dict = find_state_dict(root->dict, 0);
	rc = add_dict(&r, dict ? dict : root->dict, 0, e);
	ob_text_free(&r.name);
	return rc;
}
