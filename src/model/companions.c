/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that go along with the weights: every regular file below the model folder, but for
 * those that hold weights in any format or belong to an adapter, a training run, a version control
 * or a download tool. Links are followed to regular files (that is how the Hugging Face cache is
 * built), never to folders, so that none can lead in circles; devices, FIFOs, sockets and links to
 * nowhere are no companions.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/internal.h"

#define DEPTH_MAX 16u
#define ENTRIES_MAX 100000u /* files and folders; a model has a few dozen */

/* By the name alone, in any folder. A .bin is taken for weights where its name says so: others are
 * vocabularies and language models of a speech decoder ("5gram.bin"). */
static const char *const left_out[] = {
	"*.safetensors",
	"*.index.json",
	"*.safetensors.index.*json",
	"*.pt",
	"*.pth",
	"*.ckpt",
	"*.gguf",
	"*.npz",
	"*.h5",
	"*.msgpack",
	"*.onnx*",
	"*.ot",
	"*model*.bin",
	"*weights*.bin",
	"*ggml*.bin",
	"consolidated*.bin",
	"adapter_config.json",
	"adapter_model.*",
	"training_args.bin",
	"optimizer.bin",
	"scheduler.bin",
	"events.out.*",
	".git*",
	".cache",
	"__pycache__",
};

static const char *const module_weights[] = { "model.safetensors", "pytorch_model.bin" };

/* In the model folder itself. config.json is edited, not copied. */
static const char *const left_out_on_top[] = { "config.json", "original" };

struct walk {
	struct ob_arena *arena;
	struct ob_companion *found;
	size_t n, cap;
	size_t entries;
};

static bool matches(const char *name, const char *const *pattern, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fnmatch(pattern[i], name, 0) == 0)
			return true;
	return false;
}

/* "2_Dense": a further module of a sentence-transformers model, weights included. */
static bool is_module_folder(const char *rel)
{
	return fnmatch("[0-9]_[A-Z]*", rel, FNM_PATHNAME) == 0;
}

static bool is_left_out(const char *name, const char *rel, unsigned depth)
{
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return true;
	if (is_module_folder(rel) && matches(name, module_weights, 2))
		return false;
	if (depth == 0 &&
	    matches(name, left_out_on_top, sizeof(left_out_on_top) / sizeof(*left_out_on_top)))
		return true;
	return matches(name, left_out, sizeof(left_out) / sizeof(*left_out));
}

static int walk_folder(struct walk *w, const char *path, const char *rel, unsigned depth,
		       ob_err *e);

static int visit(struct walk *w, int dir, const char *name, const char *path, const char *rel,
		 unsigned depth, ob_err *e)
{
	struct ob_companion c;
	struct stat st;
	bool is_link;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return ob_fail_sys(e, OB_IO, errno, "cannot examine %s/%s", path, name);
	is_link = S_ISLNK(st.st_mode);
	if (is_link && fstatat(dir, name, &st, 0) != 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
			       ? 0
			       : ob_fail_sys(e, OB_IO, errno, "cannot examine %s/%s", path, name);
	if (!S_ISREG(st.st_mode) && (is_link || !S_ISDIR(st.st_mode)))
		return 0;
	if (w->entries++ == ENTRIES_MAX)
		return ob_fail(e, OB_LIMIT, "%s: there are more than %u files in the model folder",
			       path, ENTRIES_MAX);
	c.path = ob_arena_printf(w->arena, e, "%s/%s", path, name);
	c.rel = ob_arena_printf(w->arena, e, "%s%s%s", rel, *rel ? "/" : "", name);
	if (!c.path || !c.rel)
		return -1;
	if (S_ISDIR(st.st_mode))
		return walk_folder(w, c.path, c.rel, depth + 1, e);
	if (ob_grow(&w->found, &w->cap, w->n, sizeof(c), e) != 0)
		return -1;
	w->found[w->n++] = c;
	return 0;
}

static int walk_folder(struct walk *w, const char *path, const char *rel, unsigned depth, ob_err *e)
{
	struct dirent *entry;
	int rc = 0;
	DIR *d;

	if (depth > DEPTH_MAX)
		return ob_fail(e, OB_LIMIT, "%s lies more than %u folders deep in the model folder",
			       path, DEPTH_MAX);
	d = opendir(path);
	if (!d)
		return ob_fail_sys(e, OB_IO, errno, "cannot read folder %s", path);
	while (rc == 0 && (errno = 0, entry = readdir(d)) != NULL)
		if (!is_left_out(entry->d_name, rel, depth))
			rc = visit(w, dirfd(d), entry->d_name, path, rel, depth, e);
	if (rc == 0 && errno != 0)
		rc = ob_fail_sys(e, OB_IO, errno, "cannot read folder %s", path);
	closedir(d);
	return rc;
}

static int by_rel(const void *a, const void *b)
{
	return strcmp(((const struct ob_companion *)a)->rel, ((const struct ob_companion *)b)->rel);
}

int ob_folder_companions(struct ob_arena *a, const char *folder, struct ob_companion **list,
			 size_t *n, ob_err *e)
{
	struct walk w = { .arena = a };
	int rc = walk_folder(&w, folder, "", 0, e);

	if (rc == 0)
		*list = ob_arena_alloc(a, w.n * sizeof(**list), e);
	if (rc == 0 && !*list)
		rc = -1;
	if (rc == 0 && w.n) {
		qsort(w.found, w.n, sizeof(*w.found), by_rel);
		memcpy(*list, w.found, w.n * sizeof(**list));
		*n = w.n;
	}
	ob_free(w.found);
	return rc;
}
