/* SPDX-License-Identifier: Apache-2.0 */
/* Models and adapters written by hand into a scratch folder, in one line each. */
#ifndef OB_TESTS_ADAPTER_FIXTURE_H
#define OB_TESTS_ADAPTER_FIXTURE_H

#include <math.h>

#include "../io/scratch.h"
#include "../model/outcome.h"
#include "adapter/adapter.h"
#include "base/num.h"

static inline void put_folder(const char *name)
{
	if (mkdir(in_scratch(name), 0700) && errno != EEXIST)
		abort();
}

static inline void put_text(const char *name, const char *text)
{
	put_file(in_scratch(name), text, strlen(text));
}

/* Value i of a tensor: exact in every type, never 0, different from tensor to tensor. */
static inline float value_of(const char *name, uint64_t i)
{
	uint64_t h = ob_hash64(name, strlen(name), i) % 30;

	return ((float)h - 14.5f) / 8;
}

/*
 * A safetensors file of F32 tensors: "name[4,3] other[5]=0 third[2,2]=1;2;3;4". Without "=" the
 * values are those of value_of; with it the numbers, again and again. "name[4]:I64": another type,
 * zeros.
 */
static inline void fill(float *x, uint64_t n, const char *name, const char *numbers)
{
	const char *s = numbers;

	for (uint64_t i = 0; i < n; i++) {
		char *end;

		x[i] = numbers ? strtof(s, &end) : value_of(name, i);
		s = numbers && *end == ';' ? end + 1 : numbers;
	}
}

static inline void put_tensors(const char *name, const char *list)
{
	static char header[1 << 16];
	static float data[1 << 16];
	char *text = strdup(list), *save = NULL;
	size_t len = 1, pos = 0;
	uint64_t size;
	FILE *f = fopen(in_scratch(name), "wb");

	header[0] = '{';
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		char *shape = strchr(t, '['), *end = strchr(t, ']');
		const char *type = end[1] == ':' ? end + 2 : "F32";
		uint64_t n = 1, bytes;

		*shape++ = '\0';
		*end++ = '\0';
		for (char *d = shape; *d; d += strcspn(d, ","), d += *d == ',')
			n *= strtoull(d, NULL, 10);
		bytes = n * (strcmp(type, "F32") ? 8 : 4);
		if (pos + bytes > sizeof(data))
			abort();
		fill(data + pos / 4, bytes / 4, t, *end == '=' ? end + 1 : *end ? "0" : NULL);
		len += (size_t)snprintf(header + len, sizeof(header) - len,
					"%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],"
					"\"data_offsets\":[%zu,%zu]}",
					len > 1 ? "," : "", t, type, shape, pos,
					pos + (size_t)bytes);
		pos += (size_t)bytes;
	}
	header[len++] = '}';
	while (len % 8)
		header[len++] = ' ';
	size = len;
	if (!f || len >= sizeof(header) || fwrite(&size, 8, 1, f) != 1 ||
	    fwrite(header, len, 1, f) != 1 || fwrite(data, 1, pos, f) != pos || fclose(f))
		abort();
	free(text);
}

/* The folder "model"; config may be NULL. */
static inline void put_model(const char *config, const char *tensors)
{
	put_folder("model");
	unlink(in_scratch("model/config.json"));
	if (config)
		put_text("model/config.json", config);
	put_tensors("model/model.safetensors", tensors);
}

/* A folder as PEFT writes it; config may be NULL. */
static inline void put_peft(const char *folder, const char *config, const char *tensors)
{
	char path[256];

	put_folder(folder);
	snprintf(path, sizeof(path), "%s/adapter_config.json", folder);
	unlink(in_scratch(path));
	if (config)
		put_text(path, config);
	snprintf(path, sizeof(path), "%s/adapter_model.safetensors", folder);
	put_tensors(path, tensors);
}

static struct ob_model *model;
static struct ob_edits *edits;
static struct ob_adapter_options options;

static inline void close_all(void)
{
	ob_edits_free(edits);
	ob_model_close(model);
	edits = NULL;
	model = NULL;
}

/* The adapters "a", "b", ... (names in one text) on the folder "model", or on the path `on`. */
static inline int resolve_on(const char *on, const char *names, const double *scale, ob_err *e)
{
	struct ob_adapter_spec spec[4];
	char *text = strdup(names), *save = NULL;
	size_t n = 0;
	int rc;

	close_all();
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save), n++)
		spec[n] = (struct ob_adapter_spec){ in_scratch(t), scale ? scale[n] : 1 };
	free(text);
	rc = ob_model_open(&model, in_scratch(on), e);
	if (rc == 0)
		rc = ob_edits_resolve(&edits, spec, n, model, &options, e);
	return rc;
}

static inline int resolve(const char *names, ob_err *e)
{
	return resolve_on("model", names, NULL, e);
}

static inline struct ob_tensor_edits *edits_of(const char *name)
{
	long i = ob_model_find(model, name);

	for (size_t k = 0; i < 0 && k < edits->n_extra; k++)
		if (!strcmp(edits->extra[k].name, name))
			return &edits->extra[k].edits;
	cr_assert(i >= 0, "no tensor %s", name);
	return &edits->of[i];
}

/* The names of all edited tensors, in order, with a space behind each. */
static inline const char *edited_names(void)
{
	static char text[4096];
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < edits->n_tensors; i++)
		if (edits->of[i].n)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s ",
						model->tensor[i].name);
	for (size_t i = 0; i < edits->n_extra; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s ",
					edits->extra[i].name);
	return text;
}

/* Element of a view. */
static inline float view_at(const struct ob_view *v, uint64_t r, uint64_t c)
{
	float x;

	ob_view_load(v, r, 1, c, 1, 1.0f, &x, 1);
	return x;
}

/* coeff * (B A) of a low-rank edit at one place, in double. */
static inline double delta_at(const struct ob_edit *x, uint64_t r, uint64_t c)
{
	double sum = 0;

	for (uint64_t k = 0; k < x->a.rows; k++)
		sum += (double)view_at(&x->b, r, k) * (double)view_at(&x->a, k, c);
	return (double)x->coeff * sum;
}

static inline bool has_note(const struct ob_adapter_info *info, const char *word)
{
	for (size_t i = 0; i < info->n_notes; i++)
		if (strstr(info->note[i], word))
			return true;
	return false;
}

static inline void adapter_fini(void)
{
	close_all();
	scratch_remove();
}

#endif
