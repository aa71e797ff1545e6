/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON wall. Two readers, both strict (UTF-8, no duplicate keys, nothing after the value):
 *
 *  - a tree for small files (configs), over cJSON, which no other file includes;
 *  - a pull reader in constant memory for large ones (safetensors headers, index files).
 *
 * And a text editor that changes single members of an object and leaves every other byte alone.
 */
#ifndef OB_BASE_JSON_H
#define OB_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* ---- tree ---------------------------------------------------------------------------------- */

#define OB_JSON_TREE_MAX (1u << 20) /* bytes of text: a tree takes up to 40 times as much */
#define OB_JSON_DEPTH_MAX 128

struct ob_jv; /* a value inside a tree; lives as long as the tree */

/* `what` names the file in errors. Python's NaN, Infinity and -Infinity are accepted (configs have
 * them); a NUL character in a key is not. The root is owned by the caller: ob_json_free. Errors:
 * OB_CORRUPT, OB_LIMIT, OB_NOMEM. */
int ob_json_parse(struct ob_jv **root, const char *text, size_t len, const char *what, ob_err *e);
void ob_json_free(struct ob_jv *root);

enum ob_json_type {
	OB_JSON_NULL,
	OB_JSON_BOOL,
	OB_JSON_NUMBER,
	OB_JSON_STRING,
	OB_JSON_ARRAY,
	OB_JSON_OBJECT
};
enum ob_json_type ob_json_type(const struct ob_jv *v);
/* Member by exact (case-sensitive) key; NULL when absent or v is no object or NULL. */
const struct ob_jv *ob_json_get(const struct ob_jv *v, const char *key);
/* Children of an array or object in file order; NULL at the end. */
const struct ob_jv *ob_json_first(const struct ob_jv *v);
const struct ob_jv *ob_json_next(const struct ob_jv *v);
const char *ob_json_key(const struct ob_jv *v);
/* NULL when v is NULL, no string, or a string that holds a NUL character. */
const char *ob_json_str(const struct ob_jv *v);
/* false when v is NULL, of another type, or (int) no integer below 2^53 in magnitude. */
bool ob_json_int(const struct ob_jv *v, int64_t *n);
bool ob_json_num(const struct ob_jv *v, double *x);
bool ob_json_bool(const struct ob_jv *v, bool *b);
/* True for JSON true only. */
bool ob_json_is_true(const struct ob_jv *v);

/* ---- pull ---------------------------------------------------------------------------------- */

enum ob_jp_tok {
	OB_JP_ERROR, /* *e is filled */
	OB_JP_OBJECT,
	OB_JP_END_OBJECT,
	OB_JP_ARRAY,
	OB_JP_END_ARRAY,
	OB_JP_KEY,
	OB_JP_STRING,
	OB_JP_NUMBER,
	OB_JP_TRUE,
	OB_JP_FALSE,
	OB_JP_NULL,
	OB_JP_END, /* the value is complete and only white space followed */
};

/* Reads up to n bytes of the text into buf; returns how many (0: end), or -1 with *e filled. */
typedef long (*ob_jp_read)(void *ctx, char *buf, size_t n, ob_err *e);

struct ob_jp;
/* `what` is borrowed. `max_string`: decoded bytes of the longest key or string that is accepted.
 * Nesting deeper than OB_JSON_DEPTH_MAX is an error. Duplicate keys are the caller's to find (it
 * knows which objects are small). */
int ob_jp_new(struct ob_jp **jp, ob_jp_read read, void *ctx, size_t max_string, const char *what,
	      ob_err *e);
void ob_jp_free(struct ob_jp *jp);
enum ob_jp_tok ob_jp_next(struct ob_jp *jp, ob_err *e);
/* Text of the last KEY or STRING (decoded, NUL-terminated, may hold NUL inside) or NUMBER (as
 * spelled). Valid until the next call. */
const char *ob_jp_text(const struct ob_jp *jp, size_t *len);
/* The last NUMBER as a non-negative integer: digits only, fits 64 bits. */
bool ob_jp_u64(const struct ob_jp *jp, uint64_t *n);
/* Skips the value whose first token is the next one. */
int ob_jp_skip(struct ob_jp *jp, ob_err *e);

/* ---- text ---------------------------------------------------------------------------------- */

/* A growing text. data is NUL-terminated once something was added, be it nothing. When memory runs
 * out `failed` is set and later calls do nothing; check once at the end. */
struct ob_text {
	char *data;
	size_t len, cap;
	bool failed;
};
void ob_text_add(struct ob_text *t, const char *s, size_t n);
/* Numbers come out as in the C locale. */
void ob_text_printf(struct ob_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* s as a JSON string with quotes; control characters, quotes and backslashes escaped, what is no
 * UTF-8 replaced by U+FFFD. */
void ob_text_json(struct ob_text *t, const char *s, size_t n);
void ob_text_free(struct ob_text *t);

/* Sets member `key` of the object reached by `path` (keys separated by '\x1f'; "" is the root) to
 * the JSON text `value`, or removes it when value is NULL. Every other byte of *text stays: numbers
 * keep their spelling, members their order; a new member is added at the end in the indentation of
 * its neighbours, or on the line of the braces when there are none. Setting where `path` does not
 * exist, and removing what is absent, changes nothing. Errors: OB_CORRUPT when the text is no JSON
 * object or has `key` twice, OB_NOMEM; the text is then as it was. */
int ob_json_edit(struct ob_text *text, const char *path, const char *key, const char *value,
		 const char *what, ob_err *e);

#endif
