/* SPDX-License-Identifier: Apache-2.0 */
#include "adapter/names.h"

#include <string.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

static size_t component_length(const char *s)
{
	return strcspn(s, ".");
}

static bool is_component(const char *s, size_t n, const char *name)
{
	return n == strlen(name) && !memcmp(s, name, n);
}

const char *ob_name_component(const char *path, const char *name)
{
	const char *found = NULL;

	for (const char *s = path;; s++) {
		size_t n = component_length(s);

		if (is_component(s, n, name))
			found = s;
		s += n;
		if (!*s)
			return found;
	}
}

/* ---- wrappers ---- */

static const char *const wrapper_prefixes[] = { "base_model.model.", "base_model.", "module." };
/* Modules that hold the wrapped one as their only child; their names may stand anywhere. */
static const char *const wrapper_components[] = {
	"_orig_mod",		      /* torch.compile */
	"_fsdp_wrapped_module",	      /* torch FSDP */
	"_checkpoint_wrapped_module", /* torch activation checkpointing */
};

const char *ob_name_unwrapped(const char *path)
{
	return path + (ob_has_prefix(path, wrapper_prefixes[0]) ? strlen(wrapper_prefixes[0]) : 0);
}

static bool is_wrapper_component(const char *s, size_t n)
{
	for (size_t i = 0; i < N(wrapper_components); i++)
		if (is_component(s, n, wrapper_components[i]))
			return true;
	return false;
}

static const char *skip_wrapper_prefix(const char *s)
{
	for (size_t i = 0; i < N(wrapper_prefixes); i++)
		if (ob_has_prefix(s, wrapper_prefixes[i]))
			return s + strlen(wrapper_prefixes[i]);
	return NULL;
}

const char *ob_name_stripped(const char *path, struct ob_arena *a, ob_err *e)
{
	char *out = ob_arena_strndup(a, path, strlen(path), e);
	size_t len = 0;

	if (!out)
		return NULL;
	for (const char *s = path, *rest, *behind; *s;) {
		size_t n = component_length(s);

		rest = s + n + (s[n] == '.');
		if (is_wrapper_component(s, n)) {
			s = rest;
			continue;
		}
		/* Prefixes are those of the path so far without wrapping components. */
		behind = len ? NULL : skip_wrapper_prefix(s);
		if (behind) {
			s = behind;
			continue;
		}
		if (len)
			out[len++] = '.';
		memcpy(out + len, s, n);
		len += n;
		s = rest;
	}
	out[len] = '\0';
	return out;
}

/* ---- parts and aliases ---- */

static const char *const heads[] = { "lm_head", "embed_out", "score", "classifier" };
static const char *const towers[] = {
	"visual",
	"vision_tower",
	"vision_model",
	"vision_embed_tokens",
	"multi_modal_projector",
	"image_newline",
	"audio_tower",
	"embed_vision",
	"embed_audio",
};

/* Towers stand at the top, below at most two wrappers of the language model. */
static bool in_tower(const char *module)
{
	for (int depth = 0; depth < 3; depth++) {
		size_t n = component_length(module);

		for (size_t i = 0; i < N(towers); i++)
			if (is_component(module, n, towers[i]))
				return true;
		if (!module[n])
			return false;
		module += n + 1;
	}
	return false;
}

enum ob_name_part ob_name_part(const char *module)
{
	const char *dot = strrchr(module, '.');
	const char *last = dot ? dot + 1 : module;

	if (in_tower(module))
		return OB_PART_TOWER;
	for (size_t i = 0; i < N(heads); i++)
		if (!strcmp(last, heads[i]))
			return OB_PART_HEAD;
	return OB_PART_TEXT;
}

/* Prefixes of one set stand for each other, in both directions. */
static const struct {
	enum ob_name_part part;
	const char *prefix[6];
	unsigned n;
} alias_sets[] = {
	/* Causal models; the bare model; vision-language models on disk before transformers 4.52,
	 * and in memory and on disk since; Idefics; models wrapped twice. */
	{ OB_PART_TEXT,
	  { "model.", "", "language_model.model.", "model.language_model.", "model.text_model.",
	    "model.model." },
	  6 },
	{ OB_PART_TEXT, { "", "transformer." }, 2 },
	{ OB_PART_TEXT, { "", "bert." }, 2 },
	{ OB_PART_TEXT, { "", "roberta." }, 2 },
	{ OB_PART_TEXT, { "", "distilbert." }, 2 },
	{ OB_PART_TEXT, { "", "electra." }, 2 },
	{ OB_PART_TEXT, { "", "deberta." }, 2 },
	{ OB_PART_TEXT, { "", "albert." }, 2 },
	{ OB_PART_TEXT, { "", "gpt_neox." }, 2 },
	{ OB_PART_TEXT, { "", "backbone." }, 2 },
	{ OB_PART_TEXT, { "", "text_model." }, 2 },
	{ OB_PART_TEXT, { "", "model.decoder." }, 2 },
	/* Omni models: speech and thought are not each other's alias. */
	{ OB_PART_TEXT, { "", "thinker." }, 2 },
	{ OB_PART_TEXT, { "", "talker." }, 2 },
	{ OB_PART_HEAD, { "", "language_model.", "model.", "model.language_model." }, 4 },
	{ OB_PART_TOWER, { "", "model." }, 2 },
};

bool ob_name_rule(enum ob_name_part part, unsigned i, struct ob_name_rule *rule)
{
	*rule = (struct ob_name_rule){ .from = "", .to = "" };
	if (i <= OB_NAME_STRIPPED) {
		rule->kind = i;
		return true;
	}
	rule->kind = OB_NAME_ALIAS;
	i -= OB_NAME_ALIAS;
	for (size_t s = 0; s < N(alias_sets); s++) {
		unsigned n = alias_sets[s].n, pairs = n * (n - 1), to;

		if (alias_sets[s].part != part)
			continue;
		if (i < pairs) {
			to = i % (n - 1);
			rule->from = alias_sets[s].prefix[i / (n - 1)];
			rule->to = alias_sets[s].prefix[to + (to >= i / (n - 1))];
			return true;
		}
		i -= pairs;
	}
	return false;
}

const char *ob_name_apply(const struct ob_name_rule *rule, const char *path, const char *module,
			  char *buf)
{
	const char *rest = module;
	size_t n = strlen(rule->to);

	if (rule->kind == OB_NAME_RAW)
		rest = path;
	else if (rule->kind == OB_NAME_UNWRAPPED)
		rest = ob_name_unwrapped(path);
	else if (!ob_has_prefix(module, rule->from))
		return NULL;
	else
		rest += strlen(rule->from);
	memcpy(buf, rule->to, n);
	memcpy(buf + n, rest, strlen(rest) + 1);
	return buf;
}

/* ---- the nearest name ---- */

#define MAX_COMPONENTS 24

struct components {
	const char *at[MAX_COMPONENTS];
	size_t len[MAX_COMPONENTS];
	unsigned n;
};

/* The last ones: what a name is about stands at its end. */
static void split(const char *name, struct components *c)
{
	c->n = 0;
	for (const char *s = name;; s++) {
		if (c->n == MAX_COMPONENTS) {
			memmove(c->at, c->at + 1, sizeof(c->at) - sizeof(c->at[0]));
			memmove(c->len, c->len + 1, sizeof(c->len) - sizeof(c->len[0]));
			c->n--;
		}
		c->at[c->n] = s;
		c->len[c->n] = component_length(s);
		s += c->len[c->n++];
		if (!*s)
			return;
	}
}

/* Components to insert, remove or exchange. */
static unsigned distance(const struct components *a, const struct components *b)
{
	unsigned row[MAX_COMPONENTS + 1];

	for (unsigned j = 0; j <= b->n; j++)
		row[j] = j;
	for (unsigned i = 0; i < a->n; i++) {
		unsigned diagonal = row[0];

		row[0] = i + 1;
		for (unsigned j = 0; j < b->n; j++) {
			bool same = a->len[i] == b->len[j] &&
				    !memcmp(a->at[i], b->at[j], a->len[i]);
			unsigned best = diagonal + !same;

			diagonal = row[j + 1];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (diagonal + 1 < best)
				best = diagonal + 1;
			row[j + 1] = best;
		}
	}
	return row[b->n];
}

const char *ob_name_nearest(const struct ob_model *m, const char *module, const char *param)
{
	struct components want, have;
	const char *nearest = NULL;
	unsigned best = 0;

	split(module, &want);
	if (want.n < MAX_COMPONENTS) {
		want.at[want.n] = param;
		want.len[want.n++] = strlen(param);
	}
	for (size_t i = 0; i < m->n_tensors; i++) {
		unsigned d;

		split(m->tensor[i].name, &have);
		d = distance(&want, &have);
		if (!nearest || d < best) {
			nearest = m->tensor[i].name;
			best = d;
		}
	}
	return nearest;
}
