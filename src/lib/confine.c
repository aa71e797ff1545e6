/* SPDX-License-Identifier: Apache-2.0 */
/* What the process may still touch once the inputs are open, the plan is made and BLIS is chosen. */
#include <fcntl.h>

#include "io/handle.h"
#include "io/sandbox.h"
#include "io/stage.h"
#include "lib/job.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif

/* At its end an instrumented program starts a process that traces it (leaks), or writes files
 * (coverage). */
#if defined(OB_INSTRUMENTED) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
	__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                   \
	__has_feature(memory_sanitizer)
#define IS_INSTRUMENTED true
#else
#define IS_INSTRUMENTED false
#endif

static void allow_reading(struct ob_sandbox *s, const char *path)
{
	ob_sandbox_allow(s, AT_FDCWD, path, OB_MAY_READ);
}

int ob_job_confine(struct oocbake_job *job, const struct ob_stage *st,
		   const struct ob_target *target, unsigned runs, ob_err *e)
{
	struct ob_sandbox s;
	if (job->sandbox == OB_SANDBOX_OFF || (job->sandbox == OB_SANDBOX_AUTO && IS_INSTRUMENTED))
		return 0;
	ob_handle_make_room(3,
			    NULL); /* without it there is less of a sandbox, and the run goes on */
	ob_sandbox_begin(&s);
	/* Not their folders: a download cache keeps the files elsewhere. */
	for (size_t i = 0; i < job->model->n_files; i++)
		allow_reading(&s, job->model->file[i]->path);
	for (size_t i = 0; i < job->n_lora; i++)
		allow_reading(&s, job->edits->file[i]->file->path);
	for (size_t i = 0; i < job->plan->n_files; i++)
		if (target[i].reference)
			allow_reading(&s, target[i].reference->path);
	if (st)
		ob_stage_allow(st, &s);
	if (ob_sandbox_enter(&s, job->sandbox == OB_SANDBOX_ON, runs, e))
		return -1;
	ob_sandbox_text(&s, job->confined, sizeof(job->confined));
	return 0;
}
