/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of torch.save since torch 1.6: a zip archive with one pickle, which says how the tensors lie
 * in the other members. Lists the tensors of the state dict in it; what lies beside the state dict,
 * and what is no tensor or lies in a list, is left out. Reads nothing but the directory and the
 * pickle.
 */
#include "container/container.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"
#include "base/util.h"
#include "container/lister.h"
#include "container/pickle.h"
#include "container/zip.h"

#define PICKLE_MAX (64u << 20) /* 500,000 tensors */
#define DEPTH_MAX 64u	       /* of dicts in dicts */
#define WRAPPERS_MAX 3u	       /* of dicts around the state dict */

struct reader {
	struct ob_lister list;
	struct ob_zip zip;
	char prefix[256];    /* of all members: "archive/" */
	struct ob_text name; /* of the dict that is being read: "model.layers." */
	uint64_t left;	     /* of the memory that names and shapes may use */
};

/* ---- places ---- */

/* The member with the bytes of t's storage. */
static const struct ob_zip_member *find_storage(const struct reader *r, const char *name,
						const struct ob_pstorage *s, ob_err *e)
{
	const struct ob_zip_member *m = NULL;
	char member[600];

	/* Keys are numbers. */
	if (s->key.n < 256 && !memchr(s->key.str, '/', s->key.n)) {
		snprintf(member, sizeof(member), "%sdata/%.*s", r->prefix, (int)s->key.n,
			 s->key.str);
		m = ob_zip_find(&r->zip, member);
	}
	if (!m)
		ob_lister_fail(&r->list, name, e, OB_CORRUPT,
			       "is in a storage that the archive does not have");
	else if (!m->deflated)
		return m;
	else
		ob_lister_fail(&r->list, name, e, OB_UNSUPPORTED,
			       "is in a compressed storage, which torch does not write; "
			       "repack the archive without compression");
	return NULL;
}

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
	uint64_t *dim = ob_arena_alloc(r->list.arena, 2 * rank * sizeof(*dim), e);

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
	const struct ob_zip_member *m = find_storage(r, t->name, s, e);
	unsigned bits = ob_dtype_bits(from->dtype), item = bits / 8;
	uint64_t *stride, elems, end, bytes;

	if (!m || copy_dims(r, from, t, &stride, e) != 0)
		return -1;
	if (bits % 8 != 0)
		return ob_lister_fail(&r->list, t->name, e, OB_UNSUPPORTED,
				      "is %s, which is not read from torch files",
				      ob_dtype_name(from->dtype));
	if (!ob_mul_u64(s->n, s->untyped ? 1 : item, &bytes) || bytes > m->size)
		return ob_lister_fail(&r->list, t->name, e, OB_CORRUPT,
				      "is in a storage of %" PRIu64
				      " elements, but its member has only %" PRIu64 " bytes",
				      s->n, m->size);
	if (!ob_shape_elems(&t->shape, &elems) || !ob_mul_u64(elems, item, &end))
		return ob_lister_fail(&r->list, t->name, e, OB_CORRUPT,
				      "has a shape of more than 2^64 bytes");
	t->dtype = from->dtype;
	t->off = m->off;
	if (elems == 0)
		return 0;
	if (!span_of(&t->shape, stride, &end) || !ob_add_u64(end, from->offset, &end) ||
	    !ob_add_u64(end, 1, &end) || !ob_mul_u64(end, item, &end) || end > bytes)
		return ob_lister_fail(&r->list, t->name, e, OB_CORRUPT,
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
			       r->list.file->path, r->name.len, OB_MAX_NAME);
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
			       r->list.file->path);
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
			       r->list.file->path);
	r->left -= cost;
	t = ob_lister_add(&r->list, r->name.data, r->name.len, e);
	return t ? place(r, from, t, e) : -1;
}

/* Adds the tensors of d, named by its keys behind what r->name holds. */
static int add_dict(struct reader *r, struct ob_pdict *d, unsigned depth, ob_err *e)
{
	size_t base = r->name.len;

	/* Sharing would let a small file list without end. */
	if (depth == DEPTH_MAX || d->seen)
		return ob_fail(e, OB_LIMIT,
			       "%s: the dicts in its state dict are nested too deeply, or one is "
			       "in two places",
			       r->list.file->path);
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

static int list_tensors(struct reader *r, const struct ob_zip_member *m, ob_err *e)
{
	struct ob_file *f = r->list.file;
	struct ob_arena values = { 0 };
	struct ob_pval root;
	struct ob_pdict *dict;
	const uint8_t *data;
	void *owned;
	int rc = ob_zip_read(&r->zip, m, PICKLE_MAX, &data, &owned, e);

	if (rc == 0)
		rc = ob_pickle_read(data, m->size, &values, f->path, &root, e);
	if (rc == 0 && root.kind != OB_P_DICT)
		rc = ob_fail(e, OB_UNSUPPORTED,
			     "%s holds no dict of tensors; save model.state_dict()", f->path);
	if (rc == 0) {
		OB_KNOWN(root.dict);
		r->left = OB_PICKLE_MEMORY(m->size);
		dict = find_state_dict(root.dict, 0);
		rc = add_dict(r, dict ? dict : root.dict, 0, e);
	}
	ob_text_free(&r->name);
	ob_arena_free(&values);
	ob_free(owned);
	return rc;
}

/* ---- the archive ---- */

static const struct ob_zip_member *find(const struct reader *r, const char *name)
{
	char full[sizeof(r->prefix) + 32];

	snprintf(full, sizeof(full), "%s%s", r->prefix, name);
	return ob_zip_find(&r->zip, full);
}

/* All members lie in one folder; its name is that of the file when it was saved. */
static int find_prefix(struct reader *r)
{
	const char *name = r->zip.n > 0 ? r->zip.member[0].name : "";
	size_t n = strcspn(name, "/") + 1;

	if (n > strlen(name) || n >= sizeof(r->prefix))
		return -1;
	memcpy(r->prefix, name, n);
	r->prefix[n] = '\0';
	return 0;
}

static int check_byte_order(struct reader *r, ob_err *e)
{
	const struct ob_zip_member *m = find(r, "byteorder"); /* absent before torch 2.1 */
	const uint8_t *data;
	void *owned;
	int rc = 0;

	if (!m)
		return 0;
	if (ob_zip_read(&r->zip, m, 64, &data, &owned, e) != 0)
		return -1;
	if (m->size != 6 || memcmp(data, "little", 6) != 0)
		rc = ob_fail(e, OB_UNSUPPORTED,
			     "%s was saved on a machine whose byte order is not little-endian",
			     r->list.file->path);
	ob_free(owned);
	return rc;
}

static int read_archive(struct reader *r, ob_err *e)
{
	const char *path = r->list.file->path;
	const struct ob_zip_member *pickle = NULL;

	if (find_prefix(r) == 0)
		pickle = find(r, "data.pkl");
	if (!pickle)
		return ob_fail(e, OB_UNSUPPORTED, "%s is a zip archive, but not one of torch.save",
			       path);
	if (find(r, "constants.pkl"))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is a TorchScript program; save model.state_dict()", path);
	return check_byte_order(r, e) != 0 ? -1 : list_tensors(r, pickle, e);
}

/* Says what the file is, if it is no zip archive. */
static int check_magic(const struct ob_file *f, ob_err *e)
{
	static const uint8_t legacy[] = {
		0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.',
	};
	uint64_t size = f->stamp.size;

	if (size >= 4 && memcmp(f->map, "PK\3\4", 4) == 0)
		return 0;
	if ((size >= sizeof(legacy) && memcmp(f->map, legacy, sizeof(legacy)) == 0) ||
	    (size >= 262 && memcmp(f->map + 257, "ustar", 5) == 0))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is in the format that torch wrote before 1.6; load and save it "
			       "with a newer torch, or convert it to .safetensors",
			       f->path);
	return ob_fail(e, OB_UNSUPPORTED,
		       "%s is no file of torch.save: it does not begin like a zip archive",
		       f->path);
}

static int torch_open(struct ob_file *f, struct ob_arena *a, struct ob_listing *out, ob_err *e)
{
	struct reader r = { .list = { .file = f, .arena = a } };
	int rc;

	if (check_magic(f, e) != 0 || ob_zip_open(&r.zip, f, e) != 0)
		return -1;
	rc = read_archive(&r, e);
	ob_lister_sort(&r.list);
	if (rc == 0) {
		out->meta = NULL;
		out->n_meta = 0;
		rc = ob_lister_finish(&r.list, out, e);
	}
	ob_lister_free(&r.list);
	ob_zip_close(&r.zip);
	return rc;
}

static bool torch_probe(const struct ob_file *f)
{
	return check_magic(f, NULL) == 0;
}

static const char *const suffixes[] = { ".bin", ".pt", ".pth", ".ckpt", NULL };

const struct ob_container ob_container_torch = {
	.name = "torch",
	.suffix = suffixes,
	.probe = torch_probe,
	.open = torch_open,
};
