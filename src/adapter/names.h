/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Module names: what training scripts wrap around them, and the prefixes under which versions of a
 * library and its checkpoints know the same module. Internal to this folder.
 */
#ifndef OB_ADAPTER_NAMES_H
#define OB_ADAPTER_NAMES_H

#include "model/model.h"

/* Is `name` one of the dot-separated components of path? NULL, or where it begins (the last). */
const char *ob_name_component(const char *path, const char *name);

/* Behind PEFT's own wrapper ("base_model.model."), if it is there. */
const char *ob_name_unwrapped(const char *path);
/* Without any wrapper, in front or between; in the arena. NULL: out of memory. */
const char *ob_name_stripped(const char *path, struct ob_arena *a, ob_err *e);

/* Parts of a model whose names may be changed independently of each other. */
enum ob_name_part { OB_PART_TEXT, OB_PART_HEAD, OB_PART_TOWER, OB_N_PARTS };
enum ob_name_part ob_name_part(const char *module);

/* One way to turn a module path of an adapter into one of the model. */
struct ob_name_rule {
	enum { OB_NAME_RAW, OB_NAME_UNWRAPPED, OB_NAME_STRIPPED, OB_NAME_ALIAS } kind;
	const char *from, *to; /* ALIAS: prefixes, with their dots; may be "" */
};
/* The i-th rule for a part, in order of preference (names as they are come first); false behind the
 * last. */
bool ob_name_rule(enum ob_name_part part, unsigned i, struct ob_name_rule *rule);
/* The path by a rule, to buf of size strlen(path) + OB_NAME_GROWTH or more. NULL when the rule does
 * not apply. `path` is raw, `module` stripped. */
const char *ob_name_apply(const struct ob_name_rule *rule, const char *path, const char *module,
			  char *buf);
#define OB_NAME_GROWTH 64

/* The tensor whose name is most like that of a parameter; NULL when the model has none. */
const char *ob_name_nearest(const struct ob_model *m, const char *module, const char *param);

#endif
