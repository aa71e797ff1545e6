/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of a folder are the model's weights. The first of these that there is:
 *
 *	an index			exactly the files that it names
 *	model.safetensors, diffusion_pytorch_model.safetensors
 *	NAME-00001-of-0000N.safetensors	all of them, of one complete set
 *	ANY.safetensors			the only one that is no shard and no adapter
 *
 * then the same of .bin, where pytorch_model is the name and a file without that name must be called
 * *model*.bin, of .pth, .pt and .ckpt, and of .npz (MLX's weights.npz, or weights.00.npz and so on).
 * Other files with weights are old copies beside these and are not looked at.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/internal.h"

#define FILES_MAX 100000u /* a folder with more is no model */

/* How transformers and diffusers call weights (the first is preferred), and how what is written
 * from them is called. */
#define N_KNOWN 2
static const struct kind {
	const char *suffix;
	const char *known[N_KNOWN];
	const char *pattern; /* of a file that may be the only one; NULL: any */
} kinds[] = {
	{ ".safetensors", { "model", "diffusion_pytorch_model" }, NULL },
	{ ".bin", { "pytorch_model", "diffusion_pytorch_model" }, "*model*.bin" },
	{ ".pth", { "model", "consolidated.00" }, NULL },
	{ ".pt", { "model", "pytorch_model" }, NULL },
	{ ".ckpt", { "model", "pytorch_model" }, NULL },
	{ ".npz", { "weights", "model" }, NULL },
};
enum { N_KINDS = sizeof(kinds) / sizeof(*kinds) };

/* Regular files of the folder (links to such included), sorted by name. */
struct files {
	const char *folder;
	const struct kind *kind; /* that is looked for */
	struct ob_arena *arena;
	const char **name;
	size_t n, cap;
};

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int add_file(struct files *f, const char *name, ob_err *e)
{
	if (f->n == FILES_MAX)
		return ob_fail(e, OB_LIMIT, "%s holds more than %u files; is it a model folder?",
			       f->folder, FILES_MAX);
	if (ob_grow(&f->name, &f->cap, f->n, sizeof(*f->name), e) != 0)
		return -1;
	f->name[f->n] = ob_arena_strndup(f->arena, name, strlen(name), e);
	return f->name[f->n++] ? 0 : -1;
}

static int list_files(struct files *f, ob_err *e)
{
	DIR *d = opendir(f->folder);
	struct dirent *entry;
	struct stat st;
	int rc = 0;

	if (!d)
		return ob_fail_sys(e, OB_IO, errno, "cannot read folder %s", f->folder);
	while (rc == 0 && (errno = 0, entry = readdir(d)) != NULL)
		if (fstatat(dirfd(d), entry->d_name, &st, 0) == 0)
			rc = S_ISREG(st.st_mode) ? add_file(f, entry->d_name, e) : 0;
		else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
			rc = ob_fail_sys(e, OB_IO, errno, "cannot examine %s/%s", f->folder,
					 entry->d_name);
	if (rc == 0 && errno != 0)
		rc = ob_fail_sys(e, OB_IO, errno, "cannot read folder %s", f->folder);
	closedir(d);
	if (f->n)
		qsort(f->name, f->n, sizeof(*f->name), by_bytes);
	return rc;
}

static const char *find_file(const struct files *f, const char *name)
{
	const char **hit = f->n ? bsearch(&name, f->name, f->n, sizeof(*f->name), by_bytes) : NULL;

	return hit ? *hit : NULL;
}

/* Files of PEFT, diffusers and mlx-lm that change a model and are none, and those of a training. */
static bool is_adapter(const char *name)
{
	static const char *const patterns[] = {
		"adapter_model*", "*adapters.safetensors",
		"*adapters.npz",  "pytorch_lora_weights*",
		"optimizer*",	  "scheduler*",
		"rng_state*",	  "training_args*",
	};

	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}

static bool is_weight_file(const struct files *f, const char *name)
{
	return ob_has_suffix(name, f->kind->suffix) && !is_adapter(name) &&
	       (!f->kind->pattern || fnmatch(f->kind->pattern, name, 0) == 0);
}

const char *ob_foreign_weights(const char *name)
{
	static const struct {
		const char *pattern, *container;
	} known[] = {
		{ "*.gguf", "GGUF" },
		{ "*.h5", "TensorFlow" },
		{ "*.msgpack", "Flax" },
		{ "*.onnx", "ONNX" },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (fnmatch(known[i].pattern, name, 0) == 0)
			return known[i].container;
	return NULL;
}

/* ---- names of shards ---- */

/* "model-00001-of-00003.safetensors" */
struct shard_name {
	size_t prefix; /* bytes before the numbers */
	size_t number, total;
};

static size_t five_digits(const char *s)
{
	size_t n = 0;

	for (int i = 0; i < 5; i++)
		n = 10 * n + (size_t)(s[i] - '0');
	return n;
}

static bool parse_shard(const char *name, const char *suffix, struct shard_name *s)
{
	static const char shape[] = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]";
	const size_t tail = strlen("-00001-of-00001");
	size_t len = strlen(name);
	char numbers[sizeof("-00001-of-00001")];

	if (!ob_has_suffix(name, suffix) || len <= strlen(suffix) + tail)
		return false;
	s->prefix = len - strlen(suffix) - tail;
	memcpy(numbers, name + s->prefix, tail);
	numbers[tail] = '\0';
	if (fnmatch(shape, numbers, 0) != 0)
		return false;
	s->number = five_digits(numbers + 1);
	s->total = five_digits(numbers + tail - 5);
	return s->number >= 1 && s->number <= s->total;
}

/* The file of a set with another number; `name` is its name, be it there or not. */
static const char *find_shard(const struct files *f, const char *first, const struct shard_name *s,
			      size_t number, char name[NAME_MAX + 1])
{
	snprintf(name, NAME_MAX + 1, "%.*s-%05zu-of-%05zu%s", (int)s->prefix, first, number,
		 s->total, f->kind->suffix);
	return find_file(f, name);
}

/* ---- the ways to find weights: 1 found, 0 not so, -1 ---- */

/* What is written is called as safetensors are. */
static const char *output_prefix(const struct files *f, const char *prefix)
{
	return strcmp(prefix, f->kind->known[0]) == 0 ? kinds[0].known[0] : prefix;
}

static int by_index(const struct files *f, struct ob_weights *w, ob_err *e)
{
	char index_suffix[64], name[128];
	const char *preferred, *found, *prefix;

	snprintf(index_suffix, sizeof(index_suffix), "%s.index.json", f->kind->suffix);
	snprintf(name, sizeof(name), "%s%s", f->kind->known[0], index_suffix);
	found = preferred = find_file(f, name);

	for (size_t i = 0; i < f->n && !preferred; i++) {
		if (!ob_has_suffix(f->name[i], index_suffix) || is_adapter(f->name[i]))
			continue;
		if (found)
			return ob_fail(e, OB_MISMATCH,
				       "%s holds two indexes, %s and %s; move one "
				       "of them away",
				       f->folder, found, f->name[i]);
		found = f->name[i];
	}
	if (!found)
		return 0;
	prefix = ob_arena_strndup(f->arena, found, strlen(found) - strlen(index_suffix), e);
	w->index = ob_arena_printf(f->arena, e, "%s/%s", f->folder, found);
	if (!prefix || !w->index || ob_index_shards(w->index, f->arena, &w->name, &w->n, e) != 0)
		return -1;
	w->prefix = output_prefix(f, prefix);
	return 1;
}

static int only_file(const struct files *f, const char *name, struct ob_weights *w, ob_err *e)
{
	w->name = ob_arena_alloc(f->arena, sizeof(*w->name), e);
	if (!w->name)
		return -1;
	w->name[0] = name;
	w->n = 1;
	return 1;
}

static int by_known_name(const struct files *f, struct ob_weights *w, ob_err *e)
{
	for (int i = 0; i < N_KNOWN; i++) {
		const char *prefix = f->kind->known[i];
		char *name = ob_arena_printf(f->arena, e, "%s%s", prefix, f->kind->suffix);
		const char *found = name ? find_file(f, name) : NULL;

		if (!name)
			return -1;
		if (!found)
			continue;
		w->prefix = output_prefix(f, prefix);
		return only_file(f, found, w, e);
	}
	return 0;
}

/* "model.fp16" is the fp16 variant of "model". */
static const char *known_prefix(const struct files *f, const char *name)
{
	for (int i = 0; i < N_KNOWN; i++) {
		const char *prefix = f->kind->known[i];
		size_t n = strlen(prefix);

		if (strncmp(name, prefix, n) == 0 && (name[n] == '-' || name[n] == '.'))
			return output_prefix(f, prefix);
	}
	return NULL;
}

/* The set that begins with `first`, which is complete. */
static int whole_set(const struct files *f, const char *first, struct ob_weights *w, ob_err *e)
{
	char name[NAME_MAX + 1];
	struct shard_name s;

	parse_shard(first, f->kind->suffix, &s);
	w->prefix = known_prefix(f, first);
	w->name = ob_arena_alloc(f->arena, s.total * sizeof(*w->name), e);
	if (!w->name)
		return -1;
	for (w->n = 0; w->n < s.total; w->n++)
		w->name[w->n] = find_shard(f, first, &s, w->n + 1, name);
	return 1;
}

static int by_set(const struct files *f, struct ob_weights *w, ob_err *e)
{
	const char *complete = NULL;
	char missing[NAME_MAX + 1] = "";

	for (size_t i = 0; i < f->n; i++) {
		char name[NAME_MAX + 1];
		struct shard_name s;
		size_t number = 1, last;

		if (is_adapter(f->name[i]) || !parse_shard(f->name[i], f->kind->suffix, &s))
			continue;
		/* The first one of a set speaks for it, the others only where it is not there. */
		last = s.number == 1 ? s.total : 1;
		while (number <= last && find_shard(f, f->name[i], &s, number, name))
			number++;
		if (number <= last)
			strcpy(missing, name);
		else if (s.number == 1 && complete)
			return ob_fail(e, OB_MISMATCH,
				       "%s holds two sets of shards, those of %s "
				       "and of %s; move one of them away",
				       f->folder, complete, f->name[i]);
		else if (s.number == 1)
			complete = f->name[i];
	}
	if (complete)
		return whole_set(f, complete, w, e);
	if (*missing)
		return ob_fail(e, OB_MISMATCH, "%s lacks %s; is the download complete?", f->folder,
			       missing);
	return 0;
}

static int by_elimination(const struct files *f, struct ob_weights *w, ob_err *e)
{
	const char *found = NULL;

	for (size_t i = 0; i < f->n; i++) {
		if (!is_weight_file(f, f->name[i]))
			continue;
		if (found)
			return ob_fail(e, OB_MISMATCH,
				       "%s holds several weight files (%s, %s) and "
				       "no index that tells which belong together; name one of "
				       "them as the model",
				       f->folder, found, f->name[i]);
		found = f->name[i];
	}
	if (!found)
		return 0;
	w->prefix = known_prefix(f, found);
	return only_file(f, found, w, e);
}

/* "weights.00.npz", "weights.01.npz", ... as MLX's converters numbered them */
static int by_number(const struct files *f, struct ob_weights *w, ob_err *e)
{
	char name[128];

	if (strcmp(f->kind->suffix, ".npz") != 0)
		return 0;
	w->name = ob_arena_alloc(f->arena, f->n * sizeof(*w->name), e);
	if (!w->name)
		return -1;
	for (w->n = 0; w->n < f->n; w->n++) {
		snprintf(name, sizeof(name), "%s.%02zu.npz", f->kind->known[0], w->n);
		w->name[w->n] = find_file(f, name);
		if (!w->name[w->n])
			break;
	}
	w->prefix = kinds[0].known[0];
	return w->n > 0;
}

/* Says what is there instead. */
static int no_weights(const struct files *f, ob_err *e)
{
	const char *adapter = NULL, *foreign = NULL;

	for (size_t i = 0; i < f->n; i++) {
		if (!foreign && ob_foreign_weights(f->name[i]) && !is_adapter(f->name[i]))
			foreign = f->name[i];
		if (!adapter && is_adapter(f->name[i]))
			adapter = f->name[i];
	}
	if (find_file(f, "model_index.json"))
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s is a diffusers pipeline; this version reads "
			       "one component at a time, such as %s/transformer",
			       f->folder, f->folder);
	if (foreign)
		return ob_fail(e, OB_UNSUPPORTED,
			       "%s holds %s weights (%s), which this version does not read; it "
			       "reads folders of safetensors, PyTorch and npz files",
			       f->folder, ob_foreign_weights(foreign), foreign);
	if (adapter)
		return ob_fail(e, OB_MISMATCH,
			       "%s holds an adapter (%s) and no model; name it "
			       "with --lora, and its base model with -m",
			       f->folder, adapter);
	return ob_fail(e, OB_MISMATCH,
		       "%s holds no weight files; a model folder has "
		       "model.safetensors, or shards with an index",
		       f->folder);
}

int ob_folder_weights(struct ob_arena *a, const char *folder, struct ob_weights *w, ob_err *e)
{
	static int (*const ways[])(const struct files *f, struct ob_weights *w, ob_err *e) = {
		by_index, by_known_name, by_number, by_set, by_elimination,
	};
	struct files f = { .folder = folder, .arena = a };
	int found = list_files(&f, e);

	*w = (struct ob_weights){ 0 };
	for (size_t k = 0; k < N_KINDS && found == 0; k++) {
		f.kind = &kinds[k];
		for (size_t i = 0; i < sizeof(ways) / sizeof(*ways) && found == 0; i++)
			found = ways[i](&f, w, e);
	}
	if (found == 0)
		found = no_weights(&f, e);
	ob_free(f.name);
	return found < 0 ? -1 : 0;
}
