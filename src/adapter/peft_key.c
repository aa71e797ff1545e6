/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of PEFT files: <module path>.<role>[.<adapter name>][.weight|.bias], where the module path
 * may go through wrapping modules (base_layer, token_adapter, modules_to_save).
 */
#include <string.h>

#include "adapter/names.h"
#include "adapter/peft.h"

static const struct {
	const char *token;
	enum ob_peft_role role;
} roles[] = {
	{ "lora_A", OB_PEFT_A },
	{ "lora_B", OB_PEFT_B },
	{ "lora_embedding_A", OB_PEFT_EMBEDDING_A },
	{ "lora_embedding_B", OB_PEFT_EMBEDDING_B },
	{ "trainable_tokens_delta", OB_PEFT_ROWS },
	{ "modules_to_save", OB_PEFT_REPLACE },
	{ "original_module", OB_PEFT_STALE },
};

/* The last role in the key; NULL without one. */
static const char *find_role(const char *key, size_t *role)
{
	const char *best = NULL;

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		const char *at = ob_name_component(key, roles[i].token);

		if (at && (!best || at > best)) {
			best = at;
			*role = i;
		}
	}
	return best;
}

static bool is_wrapping(const char *s, size_t n)
{
	static const char layer[] = "base_layer", tokens[] = "token_adapter";

	return (n == strlen(layer) && !memcmp(s, layer, n)) ||
	       (n == strlen(tokens) && !memcmp(s, tokens, n));
}

/* Removes the components that wrap a layer; what is left is a path of the base model. */
static void remove_wrapping(char *path)
{
	size_t out = 0;

	for (const char *s = path; *s;) {
		size_t n = strcspn(s, ".");
		const char *next = s + n + (s[n] == '.');

		if (!is_wrapping(s, n)) {
			if (out)
				path[out++] = '.';
			memmove(path + out, s, n);
			out += n;
		}
		s = next;
	}
	path[out] = '\0';
}

/* What follows the role of a factor: "", ".NAME", ".weight", ".NAME.weight", or with bias. */
static int parse_factor(struct ob_peft_key *k, const char *rest, struct ob_arena *a, ob_err *e)
{
	size_t n = strcspn(rest, ".");
	const char *last = rest + n + (rest[n] == '.');

	if (!*rest)
		return 0;
	if (strchr(last, '.')) {
		k->role = OB_PEFT_UNKNOWN;
		return 0;
	}
	if (!*last && (!strcmp(rest, "weight") || !strcmp(rest, "bias"))) {
		last = rest;
	} else {
		k->adapter = ob_arena_strndup(a, rest, n, e);
		if (!k->adapter)
			return -1;
	}
	if (!strcmp(last, "bias"))
		k->role = k->role == OB_PEFT_B ? OB_PEFT_BIAS : OB_PEFT_UNKNOWN;
	else if (*last && strcmp(last, "weight"))
		k->role = OB_PEFT_UNKNOWN;
	return 0;
}

/* A parameter saved whole; `rest` is what follows modules_to_save: [NAME.]PARAM, where "default" is
 * the only name that can be told from a submodule. */
static int parse_saved(struct ob_peft_key *k, const char *rest, struct ob_arena *a, ob_err *e)
{
	const char *dot;

	if (ob_has_prefix(rest, "default."))
		rest += strlen("default.");
	dot = strrchr(rest, '.');
	k->param = dot ? dot + 1 : rest;
	if (dot)
		k->path = ob_arena_printf(a, e, "%s.%.*s", k->path, (int)(dot - rest), rest);
	return k->path ? 0 : -1;
}

/* Roles that stand behind a wrapping base_layer belong to a parameter inside of it. */
static bool is_nested(const char *path)
{
	const char *last = strrchr(path, '.');

	return !strcmp(last ? last + 1 : path, "base_layer");
}

int ob_peft_key_parse(const char *key, struct ob_arena *a, struct ob_peft_key *k, ob_err *e)
{
	size_t role = 0;
	const char *at = find_role(key, &role), *rest = strrchr(key, '.');
	char *path;

	*k = (struct ob_peft_key){ .role = OB_PEFT_REPLACE, .param = "" };
	if (at) {
		k->role = roles[role].role;
		rest = at + strlen(roles[role].token);
		rest += *rest == '.';
	} else {
		at = rest = rest ? rest + 1 : key;
		if (!strcmp(rest, "alpha"))
			k->role = OB_PEFT_ALPHA;
	}
	path = ob_arena_strndup(a, key, (size_t)(at - key) - (at > key), e);
	if (!path)
		return -1;
	k->path = path;
	if (k->role <= OB_PEFT_EMBEDDING_B && is_nested(path))
		k->role = OB_PEFT_NESTED;
	remove_wrapping(path);
	if (k->role <= OB_PEFT_EMBEDDING_B)
		return parse_factor(k, rest, a, e);
	if (k->role == OB_PEFT_ROWS && *rest)
		k->adapter = rest;
	else if (k->role == OB_PEFT_REPLACE)
		return parse_saved(k, rest, a, e);
	return 0;
}
