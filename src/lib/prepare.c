/* SPDX-License-Identifier: Apache-2.0 */
/* From options to a plan: opens the inputs, resolves, lays out, fits the budget. Reads no weights. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "io/stage.h"
#include "lib/job.h"

/* Is `inner` the folder `outer` or below it? Both are absolute. */
static bool is_below(const char *inner, const char *outer)
{
	size_t n = strlen(outer);
	return !strncmp(inner, outer, n) && (inner[n] == '/' || !inner[n] || !strcmp(outer, "/"));
}

/* The absolute path of the output: itself if it exists, else its parent's with the name behind. */
static int output_path(const char *out, char *path, ob_err *e)
{
	char parent[PATH_MAX];
	if (realpath(out, path))
		return 0;
	const char *slash = strrchr(out, '/'), *name = slash ? slash + 1 : out;
	size_t n = slash ? (size_t)(slash - out) : 0;
	if (n >= sizeof(parent) || strlen(name) > NAME_MAX)
		return ob_fail(e, OB_USAGE, "the output path %s is too long", out);
	memcpy(parent, out, n);
	parent[n] = '\0';
	if (!realpath(!slash ? "." : n ? parent : "/", path))
		return ob_fail_sys(e, OB_IO, errno, "the folder of the output %s cannot be used",
				   out);
	n = strlen(path);
	if (n + strlen(name) + 2 > PATH_MAX)
		return ob_fail(e, OB_USAGE, "the output path %s is too long", out);
	path[n] = '/';
	strcpy(path + n + (n > 1), name);
	return 0;
}

static int keep_apart(const char *out, const char *in, const char *what, bool in_is_file, ob_err *e)
{
	char a[PATH_MAX], b[PATH_MAX];
	if (output_path(out, a, e))
		return -1;
	if (!realpath(in, b))
		return ob_fail_sys(e, OB_IO, errno, "%s %s cannot be used", what, in);
	if (!in_is_file && is_below(a, b))
		return ob_fail(
			e, OB_USAGE,
			"the output %s lies inside the %s folder %s; inputs are never written to",
			out, what, in);
	if (is_below(b, a))
		return ob_fail(e, OB_USAGE,
			       "the %s %s is the output %s or lies inside it; it would be replaced",
			       what, in, out);
	return 0;
}

/* No input may be written to: not the folders, and not a file that is an input under another name. */
static int check_places(struct oocbake_job *job, ob_err *e)
{
	struct stat st;
	if (keep_apart(job->output, job->model->path, "model", job->model->is_file, e))
		return -1;
	for (size_t i = 0; i < job->n_lora; i++) {
		bool is_file = !stat(job->lora[i].path, &st) && S_ISREG(st.st_mode);
		if (keep_apart(job->output, job->lora[i].path, "adapter", is_file, e) ||
		    keep_apart(job->output, job->edits->file[i]->file->path, "adapter file", true,
			       e))
			return -1;
	}
	/* A download cache keeps the files elsewhere than the folder that links to them. */
	for (size_t i = 0; i < job->model->n_files; i++)
		if (keep_apart(job->output, job->model->file[i]->path, "model file", true, e))
			return -1;
	if (stat(job->output, &st))
		return 0;
	for (size_t i = 0; i < job->model->n_files; i++)
		if (job->model->file[i]->stamp.dev == st.st_dev &&
		    job->model->file[i]->stamp.ino == st.st_ino)
			return ob_fail(e, OB_USAGE,
				       "the output %s is the input file %s under another name",
				       job->output, job->model->file[i]->path);
	return 0;
}

/* --force removes the old output. A folder without any weights was no output: a mistyped path must not
 * cost somebody their files. */
static int check_replaced(const struct oocbake_job *job, ob_err *e)
{
	struct dirent *ent;
	bool is_empty = true, has_weights = false;
	if (!job->force)
		return 0;
	DIR *d = opendir(job->output);
	if (!d && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	while (d && (errno = 0, ent = readdir(d))) {
		is_empty &= !strcmp(ent->d_name, ".") || !strcmp(ent->d_name, "..");
		has_weights |= ob_has_suffix(ent->d_name, ".safetensors");
	}
	int rc = errno ? ob_fail_sys(e, OB_IO, errno, "cannot read the folder %s", job->output) : 0;
	if (d)
		closedir(d);
	if (rc || is_empty || has_weights)
		return rc;
	return ob_fail(
		e, OB_EXISTS,
		"%s holds files but no .safetensors file, so it is no earlier output and --force does not remove it; remove it yourself or choose another name",
		job->output);
}

static uint64_t memory_limit(const struct oocbake_job *job)
{
	if (job->memory_share > 0)
		return (uint64_t)(job->memory_share * (double)ob_memory_limit());
	return job->memory;
}

static int collect_notes(struct oocbake_job *job, ob_err *e)
{
	for (size_t i = 0; i < job->edits->n_adapters; i++)
		for (size_t k = 0; k < job->edits->adapter[i].n_notes; k++)
			if (ob_job_note(job, e, "%s: %s", job->edits->adapter[i].path,
					job->edits->adapter[i].note[k]))
				return -1;
	for (size_t i = 0; i < job->plan->n_notes; i++)
		if (ob_job_note(job, e, "%s", job->plan->note[i]))
			return -1;
	return 0;
}

int ob_job_export(struct oocbake_job *job, ob_err *e)
{
	ob_small_files_free(&job->small);
	return ob_export_files(job->plan, &job->small, e);
}

int ob_job_prepare(struct oocbake_job *job, bool for_verify, ob_err *e)
{
	ob_job_unprepare(job);
	if (ob_job_finish_options(job, e))
		return -1;
	bool to_file = ob_has_suffix(job->output, ".safetensors");
	if (!for_verify && ob_stage_check(job->output, to_file, job->force, e))
		return -1;
	if (!for_verify && check_replaced(job, e))
		return -1;
	if (ob_model_open(&job->model, job->model_path, e) ||
	    ob_edits_resolve(&job->edits, job->lora, job->n_lora, job->model, &job->adapter_options,
			     e) ||
	    check_places(job, e) ||
	    ob_plan_build(&job->plan, job->model, job->edits, &job->recipe, e) ||
	    ob_export_files(job->plan, &job->small, e) ||
	    ob_budget_fit(&job->budget, job->plan, memory_limit(job), job->threads, for_verify,
			  e) ||
	    collect_notes(job, e)) {
		ob_job_unprepare(job);
		return -1;
	}
	job->is_prepared = true;
	return 0;
}

void ob_job_unprepare(struct oocbake_job *job)
{
	ob_free(job->effect);
	ob_free(job->nonfinite);
	ob_small_files_free(&job->small);
	ob_plan_free(job->plan);
	ob_edits_free(job->edits);
	ob_model_close(job->model);
	job->effect = NULL;
	job->nonfinite = NULL;
	job->small = (struct ob_small_files){ 0 };
	job->plan = NULL;
	job->edits = NULL;
	job->model = NULL;
	job->is_prepared = job->has_run = false;
	job->n_notes = 0;
}
