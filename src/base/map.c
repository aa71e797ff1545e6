/* SPDX-License-Identifier: Apache-2.0 */
/* The hash map: open addressing, linear probing. */
#include "base/util.h"

#include <string.h>
#include <sys/auxv.h>
#include <xxhash.h>

struct ob_map_slot {
	const char *key; /* NULL: free */
	size_t len;
	uint32_t hash, value;
};

/* Slots are found by 32 bits of the hash. */
#define CAP_MIN 16u
#define CAP_MAX (1ull << 32)

uint64_t ob_hash64(const void *p, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(p, n, seed);
}

/* Keys come from files: seeded with what the kernel gave this process, so that nobody can choose
 * keys that collide. The order of slots is never visible. */
static uint32_t key_hash(const char *key, size_t len)
{
	uint64_t seed;

	memcpy(&seed, (const void *)getauxval(AT_RANDOM), sizeof(seed));
	return (uint32_t)ob_hash64(key, len, seed);
}

/* The slot that holds the key, or the free one where it belongs. cap > 0. */
static struct ob_map_slot *locate(const struct ob_map *m, const char *key, size_t len,
				  uint32_t hash)
{
	size_t i = hash & (m->cap - 1);
	struct ob_map_slot *s;

	for (; (s = &m->slot[i])->key; i = (i + 1) & (m->cap - 1))
		if (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0)
			break;
	return s;
}

static int grow(struct ob_map *m, ob_err *e)
{
	struct ob_map wider = { .n = m->n, .cap = m->cap ? 2 * m->cap : CAP_MIN };

	if (wider.cap > CAP_MAX)
		return ob_fail(e, OB_LIMIT, "a table of more than %zu names was asked for", m->n);
	wider.slot = ob_calloc(wider.cap, sizeof(*wider.slot));
	if (!wider.slot)
		return ob_fail_nomem(e, "table of names");
	for (size_t i = 0; i < m->cap; i++) {
		const struct ob_map_slot *s = &m->slot[i];

		if (s->key)
			*locate(&wider, s->key, s->len, s->hash) = *s;
	}
	ob_free(m->slot);
	*m = wider;
	return 0;
}

int ob_map_add(struct ob_map *m, const char *key, size_t len, uint32_t value, ob_err *e)
{
	uint32_t hash = key_hash(key, len);
	struct ob_map_slot *s;

	if ((m->n + 1) * 10 > m->cap * 7 && grow(m, e) != 0)
		return -1;
	s = locate(m, key, len, hash);
	if (s->key)
		return 1;
	*s = (struct ob_map_slot){ .key = key, .len = len, .hash = hash, .value = value };
	m->n++;
	return 0;
}

bool ob_map_find(const struct ob_map *m, const char *key, size_t len, uint32_t *value)
{
	const struct ob_map_slot *s;

	if (m->cap == 0)
		return false;
	s = locate(m, key, len, key_hash(key, len));
	if (s->key)
		*value = s->value;
	return s->key != NULL;
}

void ob_map_free(struct ob_map *m)
{
	ob_free(m->slot);
	*m = (struct ob_map){ 0 };
}
