/* SPDX-License-Identifier: Apache-2.0 */
/* Finding an adapter's files in what the user named, and opening them. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "adapter/reader.h"

#define CONFIG "adapter_config.json"

/* Names that trainers give the weights, in the order of preference. Those of PEFT and mlx-lm have
 * their configuration beside them even when the file itself is named. */
static const struct {
	const char *name;
	bool has_config;
} known[] = {
	{ "adapter_model.safetensors", true },
	{ "adapter_model.bin", true },
	{ "adapters.safetensors", true },
	{ "adapters.npz", true },
	{ "pytorch_lora_weights.safetensors", false },
	{ "pytorch_lora_weights.bin", false },
};
#define N_KNOWN (sizeof(known) / sizeof(known[0]))

/* 1, 0, or -1 when that cannot be known: a configuration that cannot be read is not one that is not there. */
static int exists(const char *path, ob_err *e)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return ob_fail_sys(e, OB_IO, errno, "cannot examine %s", path);
}

/* The only *.safetensors of a folder. */
static int find_only(struct ob_arena *a, const char *folder, const char **path, ob_err *e)
{
	DIR *dir = opendir(folder);
	const struct dirent *d;
	size_t n = 0;
	int rc = 0;

	if (!dir)
		return ob_fail_sys(e, OB_IO, errno, "%s: cannot be listed", folder);
	while (!rc && (errno = 0, d = readdir(dir))) {
		if (d->d_name[0] == '.' || !ob_has_suffix(d->d_name, ".safetensors"))
			continue;
		if (n++)
			continue;
		*path = ob_arena_printf(a, e, "%s/%s", folder, d->d_name);
		rc = *path ? 0 : -1;
	}
	if (!rc && errno)
		rc = ob_fail_sys(e, OB_IO, errno, "%s: cannot be listed", folder);
	closedir(dir);
	if (rc || n == 1)
		return rc;
	if (n)
		return ob_fail(e, OB_MISMATCH,
			       "%s: holds %zu .safetensors files and none is called "
			       "%s; name the one that is meant",
			       folder, n, known[0].name);
	return ob_fail(e, OB_MISMATCH,
		       "%s: holds no adapter (%s, %s, ... or one other .safetensors "
		       "file)",
		       folder, known[0].name, known[2].name);
}

static int find_in_folder(struct ob_arena *a, const char *folder, const char **path,
			  const char **config, ob_err *e)
{
	int found;

	*config = ob_arena_printf(a, e, "%s/" CONFIG, folder);
	if (!*config)
		return -1;
	for (size_t i = 0; i < N_KNOWN; i++) {
		*path = ob_arena_printf(a, e, "%s/%s", folder, known[i].name);
		if (!*path)
			return -1;
		found = exists(*path, e);
		if (found)
			return found < 0 ? -1 : 0;
	}
	*path = NULL;
	return find_only(a, folder, path, e);
}

static int find_beside_file(struct ob_arena *a, const char *file, const char **config, ob_err *e)
{
	const char *slash = strrchr(file, '/');
	const char *name = slash ? slash + 1 : file;

	for (size_t i = 0; i < N_KNOWN; i++)
		if (known[i].has_config && !strcmp(name, known[i].name)) {
			*config = ob_arena_printf(a, e, "%.*s" CONFIG, (int)(name - file), file);
			return *config ? 0 : -1;
		}
	return 0;
}

static int read_config(struct ob_adapter_file *f, const char *path, ob_err *e)
{
	char *text;
	size_t len;
	int rc;

	rc = path ? exists(path, e) : 0;
	if (rc <= 0)
		return rc;
	if (ob_file_slurp(path, OB_JSON_TREE_MAX, &text, &len, e) != 0)
		return -1;
	rc = ob_json_parse(&f->config, text, len, path, e);
	ob_free(text);
	if (rc != 0)
		return -1;
	if (ob_json_type(f->config) != OB_JSON_OBJECT)
		return ob_fail(e, OB_CORRUPT, "%s: is no JSON object", path);
	f->config_path = path;
	return 0;
}

static int open_files(struct ob_adapter_file *f, ob_err *e)
{
	const char *weights = f->path, *config = NULL;
	struct stat st;
	int rc;

	if (stat(f->path, &st) != 0)
		return ob_fail_sys(e, OB_IO, errno, "%s: the adapter cannot be opened", f->path);
	rc = S_ISDIR(st.st_mode) ? find_in_folder(f->arena, f->path, &weights, &config, e)
				 : find_beside_file(f->arena, f->path, &config, e);
	if (rc != 0 || read_config(f, config, e) != 0 || ob_file_open(&f->file, weights, e) != 0 ||
	    ob_refuse_container(f->file, e) != 0)
		return -1;
	return ob_container_list(f->file, f->arena, &f->list, e);
}

int ob_adapter_open(struct ob_adapter_file **out, struct ob_arena *a,
		    const struct ob_adapter_spec *spec, ob_err *e)
{
	struct ob_adapter_file *f = ob_arena_alloc(a, sizeof(*f), e);

	*out = NULL;
	if (!f)
		return -1;
	f->arena = a;
	f->scale = spec->scale;
	f->path = ob_arena_strndup(a, spec->path, strlen(spec->path), e);
	if (!f->path)
		return -1;
	if (!isfinite(spec->scale))
		return ob_fail(e, OB_USAGE, "%s: the scale of an adapter must be a finite number",
			       f->path);
	if (open_files(f, e) != 0) {
		ob_adapter_close(f);
		return -1;
	}
	*out = f;
	return 0;
}

void ob_adapter_close(struct ob_adapter_file *f)
{
	if (!f)
		return;
	ob_file_close(f->file);
	ob_file_close(f->list.unpacked);
	ob_json_free(f->config);
	f->file = NULL;
	f->list.unpacked = NULL;
	f->config = NULL;
}
