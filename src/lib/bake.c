/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a plan: staging, headers, engine, small files, publication. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "io/stage.h"
#include "kernels/gemm.h"
#include "lib/job.h"

struct forward {
	oocbake_progress_fn fn;
	void *user;
	const char *phase;
};

static void forward_progress(void *user, const struct ob_progress *p)
{
	const struct forward *f = user;
	struct oocbake_progress out = {
		.phase = f->phase,
		.done = p->done,
		.total = p->total,
		.seconds = p->seconds,
		.rate = p->rate,
		.remaining = p->remaining,
		.tensor = p->tensor,
		.shard = p->file,
		.shards = p->n_files,
		.bound = p->cpu_bound ? "cpu" : "disk",
	};
	f->fn(f->user, &out);
}

int ob_job_engine(struct oocbake_job *job, const struct ob_target *target, bool verify,
		  oocbake_progress_fn fn, void *user, ob_err *e)
{
	struct forward f = { fn, user, verify ? "verify" : "bake" };
	ob_free(job->effect);
	ob_free(job->nonfinite);
	job->effect = ob_calloc(job->plan->n_outs + 1, sizeof(*job->effect));
	job->nonfinite = ob_calloc(job->plan->n_outs + 1, 1);
	if (!job->effect || !job->nonfinite)
		return ob_fail_nomem(e, "results");
	job->run = (struct ob_run){
		.plan = job->plan,
		.budget = &job->budget,
		.target = target,
		.verify = verify,
		.io = job->io,
		.cancel = &job->cancel,
		.progress = fn ? forward_progress : NULL,
		.user = &f,
		.wrap_io = job->wrap_io,
		.wrap_user = job->wrap_user,
		.effect = job->effect,
		.nonfinite = job->nonfinite,
	};
	for (size_t i = 0; i < job->model->n_files; i++)
		ob_file_enable_direct(job->model->file[i]);
	if (job->plan->edits->n_edited && ob_gemm_init(e))
		return -1;
	int rc = ob_engine_run(&job->run, e);
	job->run.target = NULL;
	job->run.user = NULL;
	if (job->run.notice[0] && ob_job_note(job, e, "%s", job->run.notice))
		return -1;
	/* An input that changed explains any other failure. */
	ob_err changed = { 0 };
	if (ob_model_check(job->model, &changed) || ob_edits_check(job->edits, &changed)) {
		*e = changed;
		return -1;
	}
	return rc;
}

struct header {
	const char *name;
	int fd;
};

static int put_header(void *ctx, const void *data, size_t n, uint64_t off, ob_err *e)
{
	const struct header *h = ctx;
	const char *p = data;
	while (n) {
		ssize_t got = pwrite(h->fd, p, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return ob_fail_sys(e, OB_IO, got ? errno : EIO,
					   "writing the header of %s failed", h->name);
		p += got;
		off += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

static int create_files(struct oocbake_job *job, struct ob_stage *st, struct ob_target *target,
			ob_err *e)
{
	const struct ob_plan *p = job->plan;
	for (size_t i = 0; i < p->n_files; i++) {
		const struct ob_out_file *f = &p->file[i];
		if (ob_stage_create(st, p->to_file ? "" : f->name, f->size, &target[i].fd,
				    &target[i].fd_direct, e))
			return -1;
		struct header h = { f->name, target[i].fd };
		if (ob_st_header_write(f->entry, f->n_entries, p->meta, p->n_meta, OB_IO_ALIGN,
				       put_header, &h, e))
			return -1;
	}
	return 0;
}

/* "a/b/c" needs the folder "a/b". */
static int make_folder_of(struct ob_stage *st, const char *rel, ob_err *e)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(rel, '/');
	if (!slash)
		return 0;
	if ((size_t)(slash - rel) >= sizeof(folder))
		return ob_fail(e, OB_LIMIT, "the path %s is too long", rel);
	memcpy(folder, rel, (size_t)(slash - rel));
	folder[slash - rel] = '\0';
	return ob_stage_mkdir(st, folder, e);
}

static int put_small_files(struct oocbake_job *job, struct ob_stage *st, ob_err *e)
{
	for (size_t i = 0; i < job->small.n; i++) {
		const struct ob_small_file *f = &job->small.file[i];
		if (make_folder_of(st, f->rel, e))
			return -1;
		int rc = f->copy_from ? ob_stage_copy(st, f->rel, f->copy_from, e)
				      : ob_stage_put(st, f->rel, f->data, f->len, e);
		if (rc)
			return -1;
	}
	return 0;
}

static int note_nonfinite(struct oocbake_job *job, ob_err *e)
{
	if (job->recipe.nonfinite != OB_NONFINITE_WARN)
		return 0;
	for (size_t i = 0; i < job->plan->n_outs; i++)
		if (job->nonfinite[i] &&
		    ob_job_note(job, e, "%s has values that are not finite in %s",
				job->plan->out[i].name, ob_dtype_name(job->plan->out[i].enc.dtype)))
			return -1;
	return 0;
}

int ob_job_bake(struct oocbake_job *job, oocbake_progress_fn fn, void *user, ob_err *e)
{
	const struct ob_plan *p = job->plan;
	struct ob_stage *st = NULL;
	struct ob_target *target = ob_calloc(p->n_files, sizeof(*target));
	int rc = -1;
	if (!target)
		return ob_fail_nomem(e, "list of output files");
	if (ob_stage_open(&st, job->output, p->to_file, job->force, e) ||
	    create_files(job, st, target, e) || ob_job_engine(job, target, false, fn, user, e) ||
	    put_small_files(job, st, e) || note_nonfinite(job, e))
		goto done;
	if (job->cancel) {
		ob_fail(e, OB_CANCELLED, "stopped on request");
		goto done;
	}
	rc = ob_stage_publish(st, e);
done:
	ob_stage_close(st);
	ob_free(target);
	return rc;
}
