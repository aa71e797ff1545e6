/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model: its files, its configuration and what the files list. */
#include "model/model.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "model/internal.h"

const struct ob_stored *ob_stored_find(const struct ob_stored_set *set, const char *name,
				       size_t len, uint32_t *at)
{
	return ob_map_find(&set->by_name, name, len, at) ? set->item[*at] : NULL;
}

/* ---- configuration ---- */

static int read_config(struct ob_model *m, ob_err *e)
{
	char *path = ob_arena_printf(&m->arena, e, "%s/config.json", m->path);
	struct stat st;

	if (!path)
		return -1;
	/* A link to nowhere is an incomplete download, not a model without configuration. */
	if (lstat(path, &st) != 0 && errno == ENOENT)
		return 0;
	if (ob_file_slurp(path, OB_JSON_TREE_MAX, &m->config_text, &m->config_len, e) != 0 ||
	    ob_json_parse(&m->config, m->config_text, m->config_len, path, e) != 0)
		return -1;
	if (ob_json_type(m->config) != OB_JSON_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s is no JSON object", path);
	return 0;
}

/* ---- files ---- */

static int add_tensors(struct ob_stored_set *set, const struct ob_listing *l, ob_err *e)
{
	char shown[160];

	if (l->n_tensors > OB_MAX_TENSORS - set->n)
		return ob_fail(e, OB_LIMIT, "%s: the model holds more than %u tensors",
			       l->tensor[0].file->path, OB_MAX_TENSORS);
	for (size_t i = 0; i < l->n_tensors; i++) {
		const struct ob_stored *s = &l->tensor[i];
		uint32_t at = (uint32_t)set->n;
		int known;

		if (ob_grow(&set->item, &set->cap, set->n, sizeof(*set->item), e) != 0)
			return -1;
		known = ob_map_add(&set->by_name, s->name, strlen(s->name), at, e);
		if (known < 0)
			return -1;
		if (known) {
			ob_stored_find(set, s->name, strlen(s->name), &at);
			return ob_fail(e, OB_MISMATCH, "tensor \"%s\" is in two files, %s and %s",
				       ob_printable(s->name, shown, sizeof(shown)),
				       set->item[at]->file->path, s->file->path);
		}
		set->item[set->n++] = s;
	}
	return 0;
}

/* The files' metadata as one; what an earlier file says stays. */
struct meta {
	struct ob_meta_entry *entry;
	size_t n, cap;
	struct ob_map keys;
};

static int add_meta(struct meta *meta, const struct ob_listing *l, ob_err *e)
{
	for (size_t i = 0; i < l->n_meta; i++) {
		const char *key = l->meta[i].key;
		int known;

		if (ob_grow(&meta->entry, &meta->cap, meta->n, sizeof(*meta->entry), e) != 0)
			return -1;
		known = ob_map_add(&meta->keys, key, strlen(key), 0, e);
		if (known < 0)
			return -1;
		if (!known)
			meta->entry[meta->n++] = l->meta[i];
	}
	return 0;
}

/* A file that the user named may be anything. */
static int check_container(const struct ob_file *f, ob_err *e)
{
	const char *slash = strrchr(f->path, '/');
	const char *container = ob_foreign_weights(slash ? slash + 1 : f->path);

	if (!container)
		return 0;
	return ob_fail(e, OB_UNSUPPORTED, "%s is a %s file, which this version does not read",
		       f->path, container);
}

/* The tensors of a file, each in one piece. */
static int list_file(struct ob_model *m, struct ob_file *f, struct ob_listing *l, ob_err *e)
{
	struct ob_file *dense = NULL;

	if (ob_container_list(f, &m->arena, l, e) != 0)
		return -1;
	if (l->unpacked)
		m->temp[m->n_temps++] = l->unpacked;
	if (ob_make_dense(f->path, l, &dense, e) != 0)
		return -1;
	if (dense)
		m->temp[m->n_temps++] = dense;
	return 0;
}

static int open_file(struct ob_model *m, const char *path, struct ob_stored_set *set,
		     struct meta *meta, ob_err *e)
{
	struct ob_listing l = { 0 };
	struct ob_file *f;

	if (ob_file_open(&f, path, e) != 0)
		return -1;
	m->file[m->n_files++] = f;
	if ((m->is_file && check_container(f, e) != 0) || list_file(m, f, &l, e) != 0 ||
	    add_meta(meta, &l, e) != 0)
		return -1;
	return add_tensors(set, &l, e);
}

static int open_shards(struct ob_model *m, const struct ob_weights *w, struct ob_stored_set *set,
		       struct meta *meta, ob_err *e)
{
	OB_KNOWN(!w->n || w->name);
	for (size_t i = 0; i < w->n; i++) {
		char *path = ob_arena_printf(&m->arena, e, "%s/%s", m->path, w->name[i]);
		struct stat st;

		if (!path)
			return -1;
		if (w->index && stat(path, &st) != 0 && errno == ENOENT)
			return ob_fail(e, OB_MISMATCH,
				       "%s names the shard %s, which does not "
				       "exist; is the download complete?",
				       w->index, w->name[i]);
		if (open_file(m, path, set, meta, e) != 0)
			return -1;
	}
	return w->index ? ob_index_check(w->index, set, e) : 0;
}

static int find_weights(struct ob_model *m, struct ob_weights *w, ob_err *e)
{
	struct stat st;

	if (stat(m->path, &st) != 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", m->path);
	m->is_file = !S_ISDIR(st.st_mode);
	*w = (struct ob_weights){ .n = 1 };
	if (m->is_file)
		return 0;
	return read_config(m, e) != 0 ? -1 : ob_folder_weights(&m->arena, m->path, w, e);
}

static int open_weights(struct ob_model *m, struct ob_stored_set *set, struct meta *meta, ob_err *e)
{
	struct ob_weights w;

	if (find_weights(m, &w, e) != 0)
		return -1;
	m->had_index = w.index != NULL;
	m->weights_prefix = w.prefix;
	if (!w.prefix)
		m->weights_prefix =
			ob_json_get(m->config, "_class_name") ? "diffusion_pytorch_model" : "model";
	m->file = ob_arena_alloc(&m->arena, w.n * sizeof(*m->file), e);
	m->temp = ob_arena_alloc(&m->arena, 2 * w.n * sizeof(*m->temp), e);
	if (!m->file || !m->temp)
		return -1;
	if (m->is_file)
		return open_file(m, m->path, set, meta, e);
	return open_shards(m, &w, set, meta, e);
}

static int keep_meta(struct ob_model *m, const struct meta *meta, ob_err *e)
{
	m->meta = ob_arena_alloc(&m->arena, meta->n * sizeof(*m->meta), e);
	if (!m->meta)
		return -1;
	if (meta->n)
		memcpy(m->meta, meta->entry, meta->n * sizeof(*m->meta));
	m->n_meta = meta->n;
	return 0;
}

int ob_model_open(struct ob_model **out, const char *path, ob_err *e)
{
	struct ob_model *m = ob_alloc(sizeof(*m));
	struct ob_stored_set set = { 0 };
	struct meta meta = { 0 };
	int rc = -1;

	if (!m)
		return ob_fail_nomem(e, "model");
	if (ob_locate_model(&m->arena, path, &m->path, e) == 0 &&
	    open_weights(m, &set, &meta, e) == 0 && keep_meta(m, &meta, e) == 0 &&
	    ob_group_tensors(m, &set, e) == 0)
		rc = m->is_file ? 0
				: ob_folder_companions(&m->arena, m->path, &m->companion,
						       &m->n_companions, e);
	ob_map_free(&set.by_name);
	ob_map_free(&meta.keys);
	ob_free(set.item);
	ob_free(meta.entry);
	if (rc == 0)
		*out = m;
	else
		ob_model_close(m);
	return rc;
}

void ob_model_close(struct ob_model *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_files; i++)
		ob_file_close(m->file[i]);
	for (size_t i = 0; i < m->n_temps; i++)
		ob_file_close(m->temp[i]);
	ob_map_free(&m->by_name);
	ob_json_free(m->config);
	ob_free(m->config_text);
	ob_arena_free(&m->arena);
	ob_free(m);
}

int ob_model_check(const struct ob_model *m, ob_err *e)
{
	for (size_t i = 0; i < m->n_files; i++)
		if (ob_file_check(m->file[i], e) != 0)
			return -1;
	for (size_t i = 0; i < m->n_temps; i++)
		if (ob_file_check(m->temp[i], e) != 0)
			return -1;
	return 0;
}

long ob_model_find(const struct ob_model *m, const char *name)
{
	uint32_t at;

	return ob_map_find(&m->by_name, name, strlen(name), &at) ? (long)at : -1;
}
