/* SPDX-License-Identifier: Apache-2.0 */
/* The list of small files. */
#include <string.h>

#include "base/util.h"
#include "export/internal.h"

/* How the model was quantized; once it is quantized in another way they mislead loaders. */
static const char *const format_files[] = {
	"quantize_config.json",	    "quant_config.json", "hf_quant_config.json",
	"quantization_config.json", "hqq_config.json",	 "quanto_qmap.json",
	"quantization_map.json",
};

static bool is_format_file(const char *rel)
{
	for (size_t i = 0; i < sizeof(format_files) / sizeof(*format_files); i++)
		if (strcmp(format_files[i], rel) == 0)
			return true;
	return false;
}

/* Moves the text to the arena as a file. */
static int add_text(struct ob_small_files *f, const char *rel, const struct ob_text *text,
		    ob_err *e)
{
	char *data = ob_arena_strndup(&f->arena, text->data, text->len, e);

	if (!data)
		return -1;
	f->file[f->n++] = (struct ob_small_file){ .rel = rel, .data = data, .len = text->len };
	return 0;
}

static int add_config(const struct ob_plan *p, struct ob_small_files *f, ob_err *e)
{
	struct ob_text text = { 0 };
	int rc;

	ob_text_add(&text, p->model->config_text, p->model->config_len);
	rc = text.failed ? ob_fail_nomem(e, "config.json") : ob_export_config(p, &text, e);
	if (rc == 0)
		rc = add_text(f, "config.json", &text, e);
	ob_text_free(&text);
	return rc;
}

static int add_index(const struct ob_plan *p, struct ob_small_files *f, ob_err *e)
{
	struct ob_text text = { 0 };
	const char *name;
	int rc = ob_export_index(p, &f->arena, &name, &text, e);

	if (rc == 0)
		rc = add_text(f, name, &text, e);
	ob_text_free(&text);
	return rc;
}

static int list_files(const struct ob_plan *p, struct ob_small_files *f, ob_err *e)
{
	const struct ob_model *m = p->model;
	bool requantizes = ob_export_requantizes(p);

	f->file = ob_arena_alloc(&f->arena, (m->n_companions + 2) * sizeof(*f->file), e);
	if (!f->file || (m->config_text && add_config(p, f, e) != 0))
		return -1;
	/* Loaders find a single file by its name; mlx-lm writes an index all the same. */
	if ((p->n_files > 1 || p->layout == OB_LAYOUT_MLX) && add_index(p, f, e) != 0)
		return -1;
	for (size_t i = 0; i < m->n_companions; i++) {
		const struct ob_companion *c = &m->companion[i];

		if (!requantizes || !is_format_file(c->rel))
			f->file[f->n++] =
				(struct ob_small_file){ .rel = c->rel, .copy_from = c->path };
	}
	return 0;
}

int ob_export_files(const struct ob_plan *p, struct ob_small_files *out, ob_err *e)
{
	*out = (struct ob_small_files){ 0 };
	if (p->to_file || list_files(p, out, e) == 0)
		return 0;
	ob_small_files_free(out);
	return -1;
}

void ob_small_files_free(struct ob_small_files *f)
{
	ob_arena_free(&f->arena);
	*f = (struct ob_small_files){ 0 };
}
