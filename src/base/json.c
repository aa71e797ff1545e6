/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON tree: cJSON nodes, put together from the tokens of the pull reader.
 *
 * cJSON's own parser is not used: it takes texts that are no JSON, keeps duplicate keys and cuts
 * strings at a NUL.
 */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_internal.h"
#include "base/util.h"

static void init_cjson(void)
{
	cJSON_InitHooks(&(cJSON_Hooks){ .malloc_fn = ob_alloc, .free_fn = ob_free });
}

struct builder {
	struct ob_jp *jp;
	const char *what;
	cJSON *root;
	cJSON *open[OB_JSON_DEPTH_MAX]; /* containers that are not closed yet */
	unsigned depth;
	struct ob_text key; /* of the member that comes */
};

/* A scalar or an empty container for the token; NULL when memory runs out. */
static cJSON *make_item(enum ob_jp_tok tok, const char *text, size_t len)
{
	cJSON *item;

	switch (tok) {
	case OB_JP_OBJECT:
		return cJSON_CreateObject();
	case OB_JP_ARRAY:
		return cJSON_CreateArray();
	case OB_JP_TRUE:
		return cJSON_CreateTrue();
	case OB_JP_FALSE:
		return cJSON_CreateFalse();
	case OB_JP_NUMBER:
		/* cJSON would convert the value to int, which NaN has none. */
		item = cJSON_CreateNumber(0);
		if (item)
			item->valuedouble = ob_strtod(text);
		return item;
	case OB_JP_STRING:
		item = cJSON_CreateString(text);
		if (item && strlen(text) != len) {
			/* No C string: absent rather than cut. */
			cJSON_free(item->valuestring);
			item->valuestring = NULL;
		}
		return item;
	default:
		return cJSON_CreateNull();
	}
}

static int add_value(struct builder *b, enum ob_jp_tok tok, ob_err *e)
{
	cJSON *parent = b->depth ? b->open[b->depth - 1] : NULL;
	size_t len;
	const char *text = ob_jp_text(b->jp, &len);
	cJSON *item = make_item(tok, text, len);
	cJSON_bool added = item != NULL;

	if (!parent)
		b->root = item;
	else if (cJSON_IsObject(parent))
		added = item && cJSON_AddItemToObject(parent, b->key.data, item);
	else
		added = cJSON_AddItemToArray(parent, item);
	if (!added) {
		cJSON_Delete(item);
		return ob_fail_nomem(e, "JSON tree");
	}
	if (tok == OB_JP_OBJECT || tok == OB_JP_ARRAY)
		b->open[b->depth++] = item;
	return 0;
}

static int take_key(struct builder *b, ob_err *e)
{
	size_t len;
	const char *text = ob_jp_text(b->jp, &len);

	if (strlen(text) != len)
		return ob_fail(e, OB_CORRUPT, "%s: the key at byte %llu holds a NUL character",
			       b->what, (unsigned long long)ob_jp_begin(b->jp));
	b->key.len = 0;
	ob_text_add(&b->key, text, len);
	return b->key.failed ? ob_fail_nomem(e, "JSON key") : 0;
}

static int check_duplicates(const cJSON *object, const char *what, ob_err *e)
{
	struct ob_map keys = { 0 };
	const cJSON *c;
	int rc = 0;

	cJSON_ArrayForEach(c, object)
	{
		rc = ob_map_add(&keys, c->string, strlen(c->string), 0, e);
		if (rc == 1) {
			char shown[200];

			ob_fail(e, OB_CORRUPT, "%s: the key \"%s\" is there twice in one object",
				what, ob_printable(c->string, shown, sizeof(shown)));
		}
		if (rc != 0)
			break;
	}
	ob_map_free(&keys);
	return rc ? -1 : 0;
}

static int build(struct builder *b, ob_err *e)
{
	for (;;) {
		enum ob_jp_tok tok = ob_jp_next(b->jp, e);
		int rc = 0;

		switch (tok) {
		case OB_JP_ERROR:
			return -1;
		case OB_JP_END:
			return 0;
		case OB_JP_KEY:
			rc = take_key(b, e);
			break;
		case OB_JP_END_OBJECT:
			rc = check_duplicates(b->open[--b->depth], b->what, e);
			break;
		case OB_JP_END_ARRAY:
			b->depth--;
			break;
		default:
			rc = add_value(b, tok, e);
		}
		if (rc != 0)
			return -1;
	}
}

int ob_json_parse(struct ob_jv **root, const char *text, size_t len, const char *what, ob_err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct ob_jp_memory source = { .p = text, .left = len };
	struct builder b = { .what = what };
	int rc;

	*root = NULL;
	if (len > OB_JSON_TREE_MAX)
		return ob_fail(e, OB_LIMIT, "%s has %zu bytes of JSON: more than %u are not read",
			       what, len, OB_JSON_TREE_MAX);
	pthread_once(&once, init_cjson);
	if (ob_jp_new(&b.jp, ob_jp_read_memory, &source, len, what, e) != 0)
		return -1;
	ob_jp_allow_nonfinite(b.jp);
	rc = build(&b, e);
	ob_jp_free(b.jp);
	ob_text_free(&b.key);
	if (rc == 0)
		*root = (struct ob_jv *)b.root;
	else
		cJSON_Delete(b.root);
	return rc;
}

void ob_json_free(struct ob_jv *root)
{
	cJSON_Delete((cJSON *)root);
}

static const cJSON *node(const struct ob_jv *v)
{
	return (const cJSON *)v;
}

static const struct ob_jv *handle(const cJSON *c)
{
	return (const struct ob_jv *)c;
}

enum ob_json_type ob_json_type(const struct ob_jv *v)
{
	const cJSON *c = node(v);

	if (cJSON_IsObject(c))
		return OB_JSON_OBJECT;
	if (cJSON_IsArray(c))
		return OB_JSON_ARRAY;
	if (cJSON_IsString(c))
		return OB_JSON_STRING;
	if (cJSON_IsNumber(c))
		return OB_JSON_NUMBER;
	return cJSON_IsBool(c) ? OB_JSON_BOOL : OB_JSON_NULL;
}

const struct ob_jv *ob_json_get(const struct ob_jv *v, const char *key)
{
	if (!cJSON_IsObject(node(v)))
		return NULL;
	return handle(cJSON_GetObjectItemCaseSensitive(node(v), key));
}

const struct ob_jv *ob_json_first(const struct ob_jv *v)
{
	return v ? handle(node(v)->child) : NULL;
}

const struct ob_jv *ob_json_next(const struct ob_jv *v)
{
	return handle(node(v)->next);
}

const char *ob_json_key(const struct ob_jv *v)
{
	return node(v)->string;
}

const char *ob_json_str(const struct ob_jv *v)
{
	return cJSON_IsString(node(v)) ? node(v)->valuestring : NULL;
}

bool ob_json_int(const struct ob_jv *v, int64_t *n)
{
	double x;

	/* From 2^53 on a double no longer tells which integer was written. */
	if (!ob_json_num(v, &x) || !(fabs(x) < 0x1p53) || x != trunc(x))
		return false;
	*n = (int64_t)x;
	return true;
}

bool ob_json_num(const struct ob_jv *v, double *x)
{
	if (!cJSON_IsNumber(node(v)))
		return false;
	*x = node(v)->valuedouble;
	return true;
}

bool ob_json_bool(const struct ob_jv *v, bool *b)
{
	if (!cJSON_IsBool(node(v)))
		return false;
	*b = cJSON_IsTrue(node(v));
	return true;
}

bool ob_json_is_true(const struct ob_jv *v)
{
	return cJSON_IsTrue(node(v));
}
