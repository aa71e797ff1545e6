/* SPDX-License-Identifier: Apache-2.0 */
/* Model folders written by hand into a scratch folder. Names are relative to it. */
#ifndef OB_TESTS_MODEL_BUILD_H
#define OB_TESTS_MODEL_BUILD_H

#include <stdarg.h>

#include "../io/scratch.h"
#include "model/internal.h"
#include "outcome.h"

static inline void put_text(const char *name, const char *text)
{
	put_file(in_scratch(name), text, strlen(text));
}

/* With the folders above it. */
static inline void put_folder(const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s", in_scratch(name));
	for (char *s = path + strlen(scratch_dir) + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		mkdir(path, 0700);
		*s = '/';
	}
	if (mkdir(path, 0700) && errno != EEXIST)
		abort();
}

static inline void put_link(const char *name, const char *target)
{
	if (symlink(target, in_scratch(name)))
		abort();
}

struct stored {
	const char *name, *dtype;
	unsigned bytes, rows, cols; /* bytes: of one element */
};

/* A safetensors file full of zeros. meta: members of __metadata__, as JSON. */
static inline void put_tensors(const char *name, const char *meta, const struct stored *t, size_t n)
{
	static const char zero[1 << 16];
	char header[8192];
	uint64_t size;
	size_t len, pos = 0;
	FILE *f = fopen(in_scratch(name), "wb");

	if (!f)
		abort();
	len = (size_t)snprintf(header, sizeof(header), "{\"__metadata__\":{%s}", meta);
	for (size_t i = 0; i < n; i++) {
		size_t end = pos + (size_t)t[i].bytes * t[i].rows * t[i].cols;

		len += (size_t)snprintf(header + len, sizeof(header) - len,
					",\"%s\":{\"dtype\":\"%s\",\"shape\":[%u,%u],"
					"\"data_offsets\":[%zu,%zu]}",
					t[i].name, t[i].dtype, t[i].rows, t[i].cols, pos, end);
		pos = end;
	}
	len += (size_t)snprintf(header + len, sizeof(header) - len, "}");
	size = len;
	if (len >= sizeof(header) || pos > sizeof(zero) || fwrite(&size, 8, 1, f) != 1 ||
	    fwrite(header, len, 1, f) != 1 || fwrite(zero, 1, pos, f) != pos || fclose(f))
		abort();
}

/* One with these tensors of F32 [2, 2]; the list ends with NULL. */
static inline void put_weights(const char *name, ...)
{
	struct stored t[16];
	size_t n = 0;
	va_list ap;

	va_start(ap, name);
	while ((t[n].name = va_arg(ap, const char *)) != NULL) {
		t[n].dtype = "F32";
		t[n].bytes = 4;
		t[n].rows = t[n].cols = 2;
		n++;
	}
	va_end(ap);
	put_tensors(name, "\"format\":\"pt\"", t, n);
}

#endif
