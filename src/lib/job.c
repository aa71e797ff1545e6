/* SPDX-License-Identifier: Apache-2.0 */
/* The public API: argument checks, error and text handling; the work is in the other files. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "kernels/gemm.h"
#include "lib/job.h"
#include "oocbake/version.h"

oocbake_job *oocbake_job_new(void)
{
	oocbake_job *job = ob_alloc(sizeof(*job));
	if (!job)
		return NULL;
	job->recipe.dtype = OB_N_DTYPES;
	job->recipe.max_shard = 5000000000u;
	job->depth = OB_DEPTH_FULL;
	return job;
}

void oocbake_job_free(oocbake_job *job)
{
	if (!job)
		return;
	ob_job_unprepare(job);
	ob_job_free_options(job);
	ob_text_free(&job->text);
	ob_free(job->note);
	ob_free(job);
}

int ob_job_note(struct oocbake_job *job, ob_err *e, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (ob_grow(&job->note, &job->notes_cap, job->n_notes, sizeof(*job->note), e))
		return -1;
	job->note[job->n_notes] = ob_arena_strndup(&job->strings, text, strlen(text), e);
	return job->note[job->n_notes++] ? 0 : -1;
}

/* Every entry point begins with a clean error and ends with an exit status. */
static int finish(oocbake_job *job, int rc)
{
	return rc ? ob_exit_status(job->err.code) : OOCBAKE_OK;
}

int oocbake_job_set(oocbake_job *job, const char *option, const char *value)
{
	job->err.code = OB_OK;
	ob_job_unprepare(job);
	return finish(job, ob_job_option(job, option, value, &job->err));
}

int oocbake_plan(oocbake_job *job)
{
	job->err.code = OB_OK;
	return finish(job, ob_job_prepare(job, false, &job->err));
}

static int run(oocbake_job *job, bool verify, oocbake_progress_fn fn, void *user)
{
	double cpu = ob_cpu_seconds();
	job->err.code = OB_OK;
	job->started = ob_now();
	int rc = job->is_prepared && !verify ? 0 : ob_job_prepare(job, verify, &job->err);
	if (!rc)
		rc = verify ? ob_job_verify(job, fn, user, &job->err)
			    : ob_job_bake(job, fn, user, &job->err);
	job->seconds = ob_now() - job->started;
	job->cpu_seconds = ob_cpu_seconds() - cpu;
	job->has_run = !rc;
	job->cancel = 0; /* it was for this run */
	return finish(job, rc);
}

int oocbake_run(oocbake_job *job, oocbake_progress_fn fn, void *user)
{
	return run(job, false, fn, user);
}

int oocbake_verify(oocbake_job *job, oocbake_progress_fn fn, void *user)
{
	return run(job, true, fn, user);
}

void oocbake_cancel(oocbake_job *job)
{
	job->cancel = 1;
}

static int parse_format(const char *name, enum ob_report_format *f, ob_err *e)
{
	static const char *const names[] = { "text", "json", "html" };
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(name, names[i])) {
			*f = (enum ob_report_format)i;
			return 0;
		}
	return ob_fail(e, OB_USAGE, "%s is no report format; it is text, json or html", name);
}

/* A fresh text for the caller to read. */
static struct ob_text *new_text(oocbake_job *job)
{
	ob_text_free(&job->text);
	job->text = (struct ob_text){ 0 };
	return &job->text;
}

static const char *depth_of(const oocbake_job *job)
{
	static const char *const name[] = { NULL, "headers", "sample", "full" };
	if (!job->has_run)
		return NULL;
	return name[job->run.verify ? job->depth : job->verify];
}

const char *oocbake_report(oocbake_job *job, const char *format)
{
	enum ob_report_format f = OB_REPORT_TEXT;
	job->err.code = OB_OK;
	if (!job->is_prepared || parse_format(format, &f, &job->err))
		return NULL;
	struct ob_outcome o = {
		.plan = job->plan,
		.budget = &job->budget,
		.small = &job->small,
		.run = job->has_run ? &job->run : NULL,
		.output = job->output,
		.verified = job->has_run && job->run.verify,
		.depth = depth_of(job),
		.seconds = job->seconds,
		.cpu_seconds = job->cpu_seconds,
		.peak_rss = ob_rss_peak(),
		.sandbox = job->has_run && job->confined[0] ? job->confined : NULL,
		.isa = ob_isa_name(ob_cpu_isa()),
		.blis = job->has_run && job->plan->edits->n_edited ? ob_gemm_arch() : NULL,
	};
	return ob_report_outcome(&o, f, new_text(job), &job->err) ? NULL : job->text.data;
}

const char *oocbake_note(const oocbake_job *job, unsigned index)
{
	return index < job->n_notes ? job->note[index] : NULL;
}

static int inspect_adapter(oocbake_job *job, const char *path, enum ob_report_format f,
			   bool *is_adapter, ob_err *e)
{
	struct ob_arena a = { 0 };
	struct ob_adapter_file *file = NULL;
	struct ob_reader_result r = { 0 };
	struct ob_adapter_spec spec = { path, 1 };
	int rc = -1;
	if (!ob_adapter_open(&file, &a, &spec, e)) {
		*is_adapter = true;
		rc = ob_adapter_read(file, &r, e) ||
				     ob_report_adapter(file, &r, f, new_text(job), e)
			     ? -1
			     : 0;
	}
	ob_adapter_close(file);
	ob_arena_free(&a);
	return rc;
}

/* It says nothing about what the file is. */
static bool is_of_system(const ob_err *e)
{
	return e->code == OB_NOMEM || e->code == OB_CHANGED ||
	       (e->sys && e->sys != ENOENT && e->sys != ENOTDIR);
}

/* A folder with config.json, or a file that no adapter reader claims, is a model. */
int oocbake_inspect(oocbake_job *job, const char *path, const char *format, const char **result)
{
	enum ob_report_format f = OB_REPORT_TEXT;
	struct ob_model *m = NULL;
	ob_err adapter = { 0 };
	bool is_adapter = false;
	int rc = -1;
	job->err.code = OB_OK;
	*result = NULL;
	if (parse_format(format, &f, &job->err))
		return finish(job, -1);
	rc = inspect_adapter(job, path, f, &is_adapter, &adapter);
	if (rc && is_of_system(&adapter))
		job->err = adapter;
	else if (rc && !ob_model_open(&m, path, &job->err))
		rc = ob_report_model(m, f, new_text(job), &job->err);
	else if (rc && is_adapter && !is_of_system(&job->err))
		job->err = adapter;
	ob_model_close(m);
	if (!rc)
		*result = job->text.data;
	return finish(job, rc);
}

const char *oocbake_formats(oocbake_job *job, const char *format)
{
	enum ob_report_format f = OB_REPORT_TEXT;
	job->err.code = OB_OK;
	if (parse_format(format, &f, &job->err) || ob_report_formats(f, new_text(job), &job->err))
		return NULL;
	return job->text.data;
}

const char *oocbake_error(const oocbake_job *job)
{
	return job->err.code ? job->err.msg : "";
}

const char *oocbake_error_kind(const oocbake_job *job)
{
	return ob_code_name(job->err.code);
}

const char *oocbake_version(void)
{
	return OOCBAKE_VERSION;
}

const char *oocbake_build_info(oocbake_job *job)
{
	struct ob_text *t = new_text(job);
	char notice[256] = "";
	struct ob_io *io = NULL;
	job->err.code = OB_OK;
	ob_text_printf(t, "instruction set: %s\n", ob_isa_name(ob_cpu_isa()));
	if (ob_gemm_init(&job->err))
		ob_text_printf(t, "BLIS: %s\n", job->err.msg);
	else
		ob_text_printf(t, "BLIS: %s, sub-configuration %s%s\n", ob_gemm_version(),
			       ob_gemm_arch(),
			       ob_gemm_is_fma()
				       ? ""
				       : " (slow; results differ from those of FMA kernels)");
	if (!ob_io_open(&io, OB_IO_AUTO, 4, notice, sizeof(notice), &job->err)) {
		ob_text_printf(t, "I/O: %s%s%s\n", io->ops->name, notice[0] ? "; " : "", notice);
		io->ops->close(io);
	}
	struct ob_sandbox offer;
	char sandbox[48];
	ob_sandbox_offer(&offer);
	ob_sandbox_text(&offer, sandbox, sizeof(sandbox));
	ob_text_printf(t, "sandbox: %s\n", sandbox);
	return t->failed ? NULL : t->data;
}
