/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a sharded output, laid out as transformers writes it: sorted, indented by 2. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "export/internal.h"

struct line {
	const char *tensor, *file;
};

static int by_tensor(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->tensor, ((const struct line *)b)->tensor);
}

static struct line *sorted_lines(const struct ob_plan *p, size_t *n, ob_err *e)
{
	struct line *line;
	size_t total = 0;

	for (size_t i = 0; i < p->n_files; i++)
		total += p->file[i].n_entries;
	line = ob_calloc(total, sizeof(*line));
	if (!line) {
		ob_fail_nomem(e, "index");
		return NULL;
	}
	*n = 0;
	for (size_t i = 0; i < p->n_files; i++) {
		const struct ob_out_file *f = &p->file[i];

		for (size_t k = 0; k < f->n_entries; k++)
			line[(*n)++] = (struct line){ f->entry[k].name, f->name };
	}
	if (*n)
		qsort(line, *n, sizeof(*line), by_tensor);
	return line;
}

/* "model-00001-of-00002.safetensors" and "model.safetensors" -> "model" */
static size_t prefix_length(const struct ob_plan *p)
{
	const char *numbers = p->n_files > 1 ? "-00001-of-00001.safetensors" : ".safetensors";

	return strlen(p->file[0].name) - strlen(numbers);
}

int ob_export_index(const struct ob_plan *p, struct ob_arena *a, const char **name,
		    struct ob_text *out, ob_err *e)
{
	uint64_t bytes = 0;
	struct line *line;
	size_t n;

	*name = ob_arena_printf(a, e, "%.*s.safetensors.index.json", (int)prefix_length(p),
				p->file[0].name);
	if (!*name)
		return -1;
	line = sorted_lines(p, &n, e);
	if (!line)
		return -1;
	for (size_t i = 0; i < p->n_files; i++)
		bytes += p->file[i].data_bytes;
	ob_text_printf(out,
		       "{\n  \"metadata\": {\n    \"total_parameters\": %llu,\n"
		       "    \"total_size\": %llu\n  },\n  \"weight_map\": {",
		       (unsigned long long)p->params, (unsigned long long)bytes);
	for (size_t i = 0; i < n; i++) {
		ob_text_printf(out, "%s\n    ", i ? "," : "");
		ob_text_json(out, line[i].tensor, strlen(line[i].tensor));
		ob_text_add(out, ": ", 2);
		ob_text_json(out, line[i].file, strlen(line[i].file));
	}
	ob_text_printf(out, "%s}\n}\n", n ? "\n  " : "");
	ob_free(line);
	return out->failed ? ob_fail_nomem(e, "index") : 0;
}
