/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a plan: staging, headers, small files, engine, publication; and goes on where a run ended. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "engine/journal.h"
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

int ob_job_engine(struct oocbake_job *job, struct ob_run *run, const char *phase,
		  oocbake_progress_fn fn, void *user, ob_err *e)
{
	struct forward f = { fn, user, phase };
	run->plan = job->plan;
	run->budget = &job->budget;
	run->io = job->io;
	run->cancel = &job->cancel;
	run->progress = fn ? forward_progress : NULL;
	run->user = &f;
	run->wrap_io = job->wrap_io;
	run->wrap_user = job->wrap_user;
	for (size_t i = 0; i < job->model->n_files; i++)
		ob_file_enable_direct(job->model->file[i]);
	int rc = ob_engine_run(run, e);
	run->target = NULL;
	run->journal = NULL;
	run->user = NULL;
	/* An input that changed explains any other failure. */
	ob_err changed = { 0 };
	if (ob_model_check(job->model, &changed) || ob_edits_check(job->edits, &changed)) {
		*e = changed;
		return -1;
	}
	return rc;
}

int ob_job_main_run(struct oocbake_job *job, struct ob_run run, oocbake_progress_fn fn, void *user,
		    ob_err *e)
{
	ob_free(job->effect);
	ob_free(job->nonfinite);
	job->effect = ob_calloc(job->plan->n_outs + 1, sizeof(*job->effect));
	job->nonfinite = ob_calloc(job->plan->n_outs + 1, 1);
	if (!job->effect || !job->nonfinite)
		return ob_fail_nomem(e, "results");
	job->run = run;
	job->run.effect = job->effect;
	job->run.nonfinite = job->nonfinite;
	int rc = ob_job_engine(job, &job->run, run.verify ? "verify" : "bake", fn, user, e);
	if (job->run.notice[0] && ob_job_note(job, e, "%s", job->run.notice))
		return -1;
	return rc;
}

static int put_header(void *ctx, const void *data, size_t n, uint64_t off, ob_err *e)
{
	return ob_stage_write(ctx, data, n, off, e);
}

int ob_job_put_header(const struct oocbake_job *job, const struct ob_target *target, size_t i,
		      ob_err *e)
{
	const struct ob_plan *p = job->plan;
	const struct ob_out_file *f = &p->file[i];
	return ob_st_header_write(f->entry, f->n_entries, p->meta, p->n_meta, f->header_size,
				  put_header, target[i].handle, e);
}

static int create_files(struct oocbake_job *job, struct ob_stage *st, struct ob_target *target,
			ob_err *e)
{
	const struct ob_plan *p = job->plan;
	for (size_t i = 0; i < p->n_files; i++) {
		const struct ob_out_file *f = &p->file[i];
		if (ob_stage_create(st, p->to_file ? "" : f->name, f->size, &target[i].handle, e) ||
		    ob_job_put_header(job, target, i, e))
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

/* Those that tell the sizes of the weight files wait until the run has told them. */
static int put_small_files(struct oocbake_job *job, struct ob_stage *st, bool is_settled, ob_err *e)
{
	for (size_t i = 0; i < job->small.n; i++) {
		const struct ob_small_file *f = &job->small.file[i];
		if (is_settled != (job->plan->n_late && !f->copy_from))
			continue;
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

/* ---- the steps of a bake ------------------------------------------------------------------- */

struct bake {
	struct oocbake_job *job;
	oocbake_progress_fn fn;
	void *user;
	struct ob_stage *st;
	struct ob_target *target;   /* per output file */
	struct ob_text facts;	    /* of this run */
	char *earlier;		    /* those of the run that is resumed, NULL: none */
	struct ob_journal *journal; /* from when the stage can be resumed */
	uint64_t size;		    /* bytes of the weight files */
};

/* An earlier run that cannot be resumed keeps what it left. */
static int open_stage(struct bake *b, ob_err *e)
{
	struct oocbake_job *job = b->job;
	bool to_file = job->plan->to_file;
	if (!job->resume)
		return ob_stage_open(&b->st, job->output, to_file, job->force, e);
	if (ob_stage_resume(&b->st, job->output, to_file, job->force, &b->earlier, e))
		return -1;
	const char *where = ob_stage_where(b->st);
	if (!where)
		return ob_fail_nomem(e, "output path");
	if (!b->earlier)
		return ob_job_note(job, e, "there is nothing to resume in %s; this is a new run",
				   where);
	return ob_job_compare_facts(b->earlier, b->facts.data, where, e);
}

static int open_journal(struct bake *b, ob_err *e)
{
	const struct ob_plan *p = b->job->plan;
	const char *where = ob_stage_where(b->st);
	const char *facts = b->earlier ? b->earlier : b->facts.data;
	struct ob_journal *j;
	int fd;
	if (!where)
		return ob_fail_nomem(e, "output path");
	if (ob_journal_new(&j, p, e))
		return -1;
	if (ob_stage_journal(b->st, ob_journal_size(p), &fd, e) ||
	    ob_journal_open(j, fd, where, ob_hash64(facts, strlen(facts), 0), b->job->batch_bytes,
			    e)) {
		ob_journal_free(j);
		return -1;
	}
	b->journal = j;
	return 0;
}

/* Room for everything is taken here, before the first weight is read. */
static int fill_stage(struct bake *b, ob_err *e)
{
	const struct ob_plan *p = b->job->plan;
	for (size_t i = 0; i < p->n_files; i++)
		b->size += p->file[i].size;
	if (ob_stage_need(b->st, b->size, e) || create_files(b->job, b->st, b->target, e) ||
	    put_small_files(b->job, b->st, false, e))
		return -1;
	return ob_stage_commit(b->st, b->facts.data, e);
}

static int confine(const struct bake *b, ob_err *e)
{
	unsigned checks = ob_journal_kept(b->journal) ? 1 : 0;
	unsigned rereads = b->job->verify != OB_DEPTH_NONE;
	return ob_job_confine(b->job, b->st, b->target, checks + 1 + rereads, e);
}

static int reread(struct bake *b, const char *phase, struct ob_run *run, ob_err *e)
{
	*run = (struct ob_run){ .target = b->target, .journal = b->journal, .reread = true };
	return ob_job_engine(b->job, run, phase, b->fn, b->user, e);
}

/* What an earlier run recorded counts when it is still there. */
static int check_kept(struct bake *b, ob_err *e)
{
	struct ob_run run;
	char kept[32], size[32];
	if (!ob_journal_kept(b->journal))
		return 0;
	if (reread(b, "check", &run, e))
		return -1;
	if (run.n_differ &&
	    ob_job_note(
		    b->job, e,
		    "%zu pieces that the earlier run had finished were damaged; they are made again",
		    run.n_differ))
		return -1;
	return ob_job_note(b->job, e, "%s of %s were there from the earlier run",
			   ob_size_text(ob_journal_kept(b->journal), kept, sizeof(kept)),
			   ob_size_text(b->size, size, sizeof(size)));
}

/* Compares what the disk gives with what was computed. */
static int verify_written(struct bake *b, ob_err *e)
{
	struct ob_run run;
	if (b->job->verify == OB_DEPTH_NONE)
		return 0;
	ob_journal_suspect(b->journal, b->job->verify == OB_DEPTH_FULL);
	if (ob_stage_flush(b->st, e) || reread(b, "verify", &run, e))
		return -1;
	if (!run.n_differ)
		return 0;
	return ob_fail(
		e, OB_VERIFY,
		"%s: %zu pieces, one of them in %s, read back from the disk are not what was written; the disk or the memory of this machine is at fault",
		b->job->output, run.n_differ, run.differs->name);
}

static int bake(struct bake *b, ob_err *e)
{
	struct oocbake_job *job = b->job;
	struct ob_run run = { .target = b->target };
	if ((job->plan->edits->n_edited && ob_gemm_init(e)) || ob_job_facts(job, &b->facts, e) ||
	    open_stage(b, e) || open_journal(b, e) || fill_stage(b, e) || confine(b, e) ||
	    check_kept(b, e))
		return -1;
	run.journal = b->journal;
	if (ob_job_main_run(job, run, b->fn, b->user, e) || note_nonfinite(job, e) ||
	    verify_written(b, e))
		return -1;
	if (job->cancel)
		return ob_fail(e, OB_CANCELLED, "stopped on request");
	if (ob_job_settle(job, b->st, b->target, e) || put_small_files(job, b->st, true, e))
		return -1;
	return ob_stage_publish(b->st, e);
}

/* Can a later run get over it with what there is now? */
static bool is_passing(enum ob_code code)
{
	return code == OB_IO || code == OB_NOSPC || code == OB_NOMEM || code == OB_CANCELLED ||
	       code == OB_EXISTS;
}

/* What a failed run leaves is kept if something of it is of use, and the user is told. */
static void keep_what_is_done(struct bake *b, ob_err *e)
{
	char kept[32], size[32];
	size_t n = strlen(e->msg);
	uint64_t done = is_passing(e->code) ? ob_journal_kept(b->journal) : 0;
	if (ob_stage_keep(b->st, done > 0))
		snprintf(
			e->msg + n, sizeof(e->msg) - n,
			"; %s of %s are done and stay in %s: the same command with --resume goes on",
			ob_size_text(done, kept, sizeof(kept)),
			ob_size_text(b->size, size, sizeof(size)), ob_stage_where(b->st));
}

int ob_job_bake(struct oocbake_job *job, oocbake_progress_fn fn, void *user, ob_err *e)
{
	struct bake b = { .job = job, .fn = fn, .user = user };
	b.target = ob_calloc(job->plan->n_files, sizeof(*b.target));
	int rc = b.target ? bake(&b, e) : ob_fail_nomem(e, "list of output files");
	if (rc && b.journal)
		keep_what_is_done(&b, e);
	ob_stage_close(b.st);
	ob_journal_free(b.journal);
	ob_text_free(&b.facts);
	ob_free(b.earlier);
	ob_free(b.target);
	return rc;
}
