/* SPDX-License-Identifier: Apache-2.0 */
/* The growing listing. */
#include "container/lister.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef ob_lister_fail /* see lister.h */

static int check_name(const struct ob_lister *l, const char *name, size_t len, ob_err *e)
{
	const char *path = l->file->path;

	if (len > OB_MAX_NAME)
		return ob_fail(e, OB_LIMIT,
			       "%s: a tensor has a name of %zu bytes; at most %u are accepted",
			       path, len, OB_MAX_NAME);
	if (memchr(name, '\0', len))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s: a tensor has a NUL character in its name, "
			       "which is not supported",
			       path);
	if (!ob_utf8_valid(name, len))
		return ob_fail(e, OB_CORRUPT, "%s: a tensor has a name that is not UTF-8", path);
	return 0;
}

struct ob_stored *ob_lister_add(struct ob_lister *l, const char *name, size_t len, ob_err *e)
{
	struct ob_stored *t;
	char *copy;
	int rc;

	if (check_name(l, name, len, e) != 0)
		return NULL;
	if (l->n == OB_MAX_TENSORS) {
		ob_fail(e, OB_LIMIT, "%s holds more than %u tensors", l->file->path,
			OB_MAX_TENSORS);
		return NULL;
	}
	if (ob_grow(&l->tensor, &l->cap, l->n, sizeof(*l->tensor), e) != 0)
		return NULL;
	copy = ob_arena_strndup(l->arena, name, len, e);
	if (!copy)
		return NULL;
	rc = ob_map_add(&l->names, copy, len, 0, e);
	if (rc > 0)
		ob_lister_fail(l, copy, e, OB_CORRUPT, "is there twice");
	if (rc != 0)
		return NULL;
	t = &l->tensor[l->n++];
	*t = (struct ob_stored){ .name = copy, .file = l->file };
	return t;
}

int ob_lister_fail(const struct ob_lister *l, const char *name, ob_err *e, enum ob_code code,
		   const char *fmt, ...)
{
	char what[512], shown[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return ob_fail(e, code, "%s: tensor \"%s\" %s", l->file->path,
		       ob_printable(name, shown, sizeof(shown)), what);
}

static int compare(const void *pa, const void *pb)
{
	const struct ob_stored *a = pa, *b = pb;

	if (a->off != b->off)
		return a->off < b->off ? -1 : 1;
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	return strcmp(a->name, b->name);
}

void ob_lister_sort(struct ob_lister *l)
{
	/* Nearly every file is in order; qsort would take memory of its own. */
	for (size_t i = 1; i < l->n; i++) {
		if (compare(&l->tensor[i - 1], &l->tensor[i]) > 0) {
			qsort(l->tensor, l->n, sizeof(*l->tensor), compare);
			break;
		}
	}
}

int ob_lister_finish(struct ob_lister *l, struct ob_listing *out, ob_err *e)
{
	size_t bytes = l->n * sizeof(*l->tensor);

	out->tensor = ob_arena_alloc(l->arena, bytes, e);
	if (!out->tensor)
		return -1;
	if (bytes)
		memcpy(out->tensor, l->tensor, bytes);
	out->n_tensors = l->n;
	return 0;
}

void ob_lister_free(struct ob_lister *l)
{
	ob_map_free(&l->names);
	ob_free(l->tensor);
}
