/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From stored parts to logical tensors. Quantized formats look at all tensors first, because their
 * companions (".scales") are plain float tensors by themselves and may lie before their codes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "model/internal.h"

struct quantized {
	uint32_t leader; /* in the set */
	struct ob_recognised r;
};

struct group {
	struct ob_model *m;
	const struct ob_stored_set *set;
	struct ob_lookup lookup;
	bool *used;		 /* per stored tensor: belongs to a logical one */
	struct quantized *found; /* in stored order of the leading part */
	size_t n_found, cap_found;
};

static const struct ob_stored *find(const struct ob_lookup *l, const char *name)
{
	const struct group *g =
		(const struct group *)((const char *)l - offsetof(struct group, lookup));
	uint32_t at;

	return ob_stored_find(g->set, name, strlen(name), &at);
}

static bool is_plain(const struct ob_codec *c)
{
	return c == &ob_codec_float || c == &ob_codec_raw;
}

/* Asks the codecs that are plain, or those that are not: 1 *r is filled, 0, or -1. */
static int ask(const struct group *g, const struct ob_stored *s, bool plain,
	       struct ob_recognised *r, ob_err *e)
{
	for (size_t i = 0; ob_codecs[i]; i++) {
		int got = 0;

		if (is_plain(ob_codecs[i]) == plain)
			got = ob_codecs[i]->recognise(s, &g->lookup, r, e);
		if (got)
			return got;
	}
	return 0;
}

/* Marks the parts of a tensor; each belongs to one only. */
static int take(struct group *g, const struct ob_recognised *r, ob_err *e)
{
	char shown[160];

	for (unsigned i = 0; i < OB_MAX_PARTS && r->part[i]; i++) {
		const char *name = r->part[i]->name;
		uint32_t at = 0;

		if (!ob_stored_find(g->set, name, strlen(name), &at) || g->used[at])
			return ob_fail(e, OB_INTERNAL,
				       "tensor %s was taken for a part of two "
				       "tensors",
				       ob_printable(name, shown, sizeof(shown)));
		g->used[at] = true;
	}
	return 0;
}

static int find_quantized(struct group *g, ob_err *e)
{
	for (size_t i = 0; i < g->set->n; i++) {
		struct quantized q = { .leader = (uint32_t)i };
		int got;

		if (g->used[i])
			continue;
		got = ask(g, g->set->item[i], false, &q.r, e);
		if (got == 0)
			continue;
		if (got < 0 || take(g, &q.r, e) != 0 ||
		    ob_grow(&g->found, &g->cap_found, g->n_found, sizeof(*g->found), e) != 0)
			return -1;
		g->found[g->n_found++] = q;
	}
	return 0;
}

static int find_whole(struct ob_model *m, struct ob_tensor *t, ob_err *e)
{
	struct ob_parts parts;

	if (t->enc.codec->layout(&t->enc, &t->shape, &m->arena, &parts, e) != 0)
		return -1;
	for (unsigned k = 0; k < parts.n; k++)
		t->whole |= (uint32_t)parts.part[k].whole << k;
	return 0;
}

static int add_tensor(struct ob_model *m, const struct ob_recognised *r, ob_err *e)
{
	struct ob_tensor *t = &m->tensor[m->n_tensors];
	char shown[160];
	uint64_t elems;
	int known;

	*t = (struct ob_tensor){ .name = r->name, .shape = r->shape, .enc = r->enc };
	for (unsigned i = 0; i < OB_MAX_PARTS && r->part[i]; i++) {
		t->part[t->n_parts++] = r->part[i];
		m->bytes += r->part[i]->len;
	}
	if (!is_plain(r->enc.codec) && find_whole(m, t, e) != 0)
		return -1;
	/* Codecs check their parts' sizes against the shape. */
	if (!ob_shape_elems(&t->shape, &elems) || !ob_add_u64(m->params, elems, &m->params))
		return ob_fail(e, OB_LIMIT, "tensor %s: the model has more than 2^64 elements",
			       ob_printable(t->name, shown, sizeof(shown)));
	known = ob_map_add(&m->by_name, t->name, strlen(t->name), (uint32_t)m->n_tensors, e);
	if (known > 0)
		return ob_fail(e, OB_MISMATCH,
			       "the model holds tensor %s twice, in two number "
			       "formats",
			       ob_printable(t->name, shown, sizeof(shown)));
	m->n_tensors++;
	return known;
}

/* Quantized and plain tensors in one list, in stored order. */
static int list_tensors(struct group *g, ob_err *e)
{
	struct ob_model *m = g->m;
	size_t n = g->n_found, q = 0;

	for (size_t i = 0; i < g->set->n; i++)
		n += !g->used[i];
	m->tensor = ob_arena_alloc(&m->arena, n * sizeof(*m->tensor), e);
	if (!m->tensor)
		return -1;
	for (size_t i = 0; i < g->set->n; i++) {
		struct ob_recognised r = { 0 };
		int got = 1;

		if (q < g->n_found && g->found[q].leader == i)
			r = g->found[q++].r;
		else if (g->used[i])
			continue;
		else
			got = ask(g, g->set->item[i], true, &r, e);
		if (got == 0)
			ob_fail(e, OB_INTERNAL, "tensor %s fits no number format",
				g->set->item[i]->name);
		if (got <= 0 || add_tensor(m, &r, e) != 0)
			return -1;
	}
	return 0;
}

/* A mixture has two or three encodings; what is beyond the table is rare and names no model. */
#define KINDS_MAX 64u

static const struct ob_encoding *main_encoding(const struct ob_model *m)
{
	struct {
		const struct ob_encoding *enc;
		uint64_t elems;
	} kind[KINDS_MAX];
	const struct ob_encoding *best = NULL;
	uint64_t most = 0, elems;
	size_t n = 0;

	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct ob_tensor *t = &m->tensor[i];
		size_t k = 0;

		if (is_plain(t->enc.codec))
			continue;
		while (k < n && !ob_encoding_equal(kind[k].enc, &t->enc))
			k++;
		if (k == KINDS_MAX)
			continue;
		if (k == n) {
			kind[n].enc = &t->enc;
			kind[n++].elems = 0;
		}
		ob_shape_elems(&t->shape, &elems);
		kind[k].elems += elems;
		if (kind[k].elems > most) {
			most = kind[k].elems;
			best = kind[k].enc;
		}
	}
	return best;
}

int ob_group_tensors(struct ob_model *m, const struct ob_stored_set *set, ob_err *e)
{
	struct group g = {
		.m = m,
		.set = set,
		.lookup = { .find = find, .config = m->config, .arena = &m->arena },
		.used = ob_calloc(set->n, sizeof(*g.used)),
	};
	int rc = -1;

	if (!g.used)
		return ob_fail_nomem(e, "list of tensors");
	if (find_quantized(&g, e) == 0 && list_tensors(&g, e) == 0) {
		m->quant = main_encoding(m);
		rc = 0;
	}
	ob_free(g.used);
	ob_free(g.found);
	return rc;
}
