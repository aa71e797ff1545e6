/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of torch.save before torch 1.6: pickles of a magic number, a version, a dict about the
 * machine, the object, and a list of storage keys; then for each key the number of elements and the
 * bytes. How large an element is stands with the storage in the object's pickle.
 */
#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "base/num.h"
#include "base/util.h"
#include "container/torch_dict.h"

#define VERSION 1001

static const uint8_t magic[] = {
	0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.',
};

struct legacy {
	struct ob_lister *list;
	const struct ob_file *file;
	uint64_t at; /* of what is read next */
	struct ob_arena values;
	struct ob_map keys; /* -> index of place */
	struct ob_torch_place *place;
	size_t n, cap;
};

bool ob_torch_is_legacy(const struct ob_file *f)
{
	return f->stamp.size >= sizeof(magic) && memcmp(f->map, magic, sizeof(magic)) == 0;
}

static int next_pickle(struct legacy *l, struct ob_pval *root, size_t *used,
		       const struct ob_pstorage **storages, ob_err *e)
{
	uint64_t left = ob_min_u64(l->file->stamp.size - l->at, OB_TORCH_PICKLE_MAX);

	if (ob_pickle_read_one(l->file->map + l->at, (size_t)left, &l->values, l->file->path, root,
			       used, storages, e) != 0)
		return -1;
	l->at += *used;
	return 0;
}

/* Version and machine. */
static int read_preamble(struct legacy *l, ob_err *e)
{
	const struct ob_pstorage *storages;
	struct ob_pval version, machine;
	size_t used;

	l->at = sizeof(magic);
	if (next_pickle(l, &version, &used, &storages, e) != 0 ||
	    next_pickle(l, &machine, &used, &storages, e) != 0)
		return -1;
	if (version.kind != OB_P_INT || version.i != VERSION || machine.kind != OB_P_DICT)
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is of an unknown version of the format before torch 1.6",
			       l->file->path);
	for (const struct ob_pentry *i = machine.dict->first; i; i = i->next)
		if (i->key.kind == OB_P_STR && i->key.n == strlen("little_endian") &&
		    memcmp(i->key.str, "little_endian", i->key.n) == 0 &&
		    i->value.kind == OB_P_BOOL && i->value.i)
			return 0;
	return ob_fail(e, OB_UNSUPPORTED,
		       "%s was saved on a machine whose byte order is not little-endian",
		       l->file->path);
}

/* Bytes of an element, by the storages of the object. */
static int item_sizes(struct ob_map *sizes, const struct ob_pstorage *storages, ob_err *e)
{
	for (const struct ob_pstorage *s = storages; s; s = s->next)
		if (ob_map_add(sizes, s->key.str, s->key.n,
			       s->untyped ? 1 : ob_dtype_bits(s->dtype) / 8, e) < 0)
			return -1;
	return 0;
}

/* The storage that begins here. */
static int add_storage(struct legacy *l, const struct ob_pval *key, const struct ob_map *sizes,
		       ob_err *e)
{
	uint64_t n, bytes, size = l->file->stamp.size;
	uint32_t item;
	int known;

	if (!ob_map_find(sizes, key->str, key->n, &item))
		return ob_fail(e, OB_CORRUPT, "%s has a storage that belongs to nothing",
			       l->file->path);
	if (!ob_in_file(l->at, sizeof(n), size))
		return ob_fail(e, OB_CORRUPT, "%s ends before its storages", l->file->path);
	memcpy(&n, l->file->map + l->at, sizeof(n));
	l->at += sizeof(n);
	if (!ob_mul_u64(le64toh(n), item, &bytes) || !ob_in_file(l->at, bytes, size))
		return ob_fail(e, OB_CORRUPT,
			       "%s: a storage of %" PRIu64 " elements at byte %" PRIu64
			       " reaches beyond the end of the file",
			       l->file->path, (uint64_t)le64toh(n), l->at);
	if (ob_grow(&l->place, &l->cap, l->n, sizeof(*l->place), e) != 0)
		return -1;
	known = ob_map_add(&l->keys, key->str, key->n, (uint32_t)l->n, e);
	if (known > 0)
		return ob_fail(e, OB_CORRUPT, "%s has a storage twice", l->file->path);
	l->place[l->n++] = (struct ob_torch_place){ l->at, bytes };
	l->at += bytes;
	return known;
}

static int find_storage(void *ctx, const struct ob_lister *list, const char *name,
			const struct ob_pstorage *s, struct ob_torch_place *at, ob_err *e)
{
	const struct legacy *l = ctx;
	uint32_t i;

	if (!ob_map_find(&l->keys, s->key.str, s->key.n, &i))
		return ob_lister_fail(list, name, e, OB_CORRUPT,
				      "is in a storage that the file does not have");
	*at = l->place[i];
	return 0;
}

static int read_file(struct legacy *l, struct ob_map *sizes, ob_err *e)
{
	const struct ob_pstorage *storages, *none;
	struct ob_pval root, keys;
	size_t pickle, used;

	if (read_preamble(l, e) != 0 || next_pickle(l, &root, &pickle, &storages, e) != 0 ||
	    next_pickle(l, &keys, &used, &none, e) != 0)
		return -1;
	if (keys.kind != OB_P_LIST)
		return ob_fail(e, OB_CORRUPT, "%s does not list its storages", l->file->path);
	if (item_sizes(sizes, storages, e) != 0)
		return -1;
	for (const struct ob_pentry *i = keys.dict ? keys.dict->first : NULL; i; i = i->next)
		if (add_storage(l, &i->value, sizes, e) != 0)
			return -1;
	return ob_torch_list(l->list, &root, pickle, find_storage, l, e);
}

int ob_torch_legacy_list(struct ob_lister *list, ob_err *e)
{
	struct legacy l = { .list = list, .file = list->file };
	struct ob_map sizes = { 0 };
	int rc = read_file(&l, &sizes, e);

	ob_map_free(&sizes);
	ob_map_free(&l.keys);
	ob_free(l.place);
	ob_arena_free(&l.values);
	return rc;
}
