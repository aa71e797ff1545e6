/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job: options, and what was built from them, in the order of the data flow. The public API is
 * a thin skin over the layers; this header is what its files share.
 */
#ifndef OB_LIB_JOB_H
#define OB_LIB_JOB_H

#include <stdatomic.h>
#include <stdbool.h>

#include "adapter/adapter.h"
#include "engine/engine.h"
#include "export/export.h"
#include "io/sandbox.h"
#include "model/model.h"
#include "oocbake/oocbake.h"
#include "plan/budget.h"
#include "plan/plan.h"
#include "report/report.h"

struct ob_stage;

enum ob_depth { OB_DEPTH_NONE, OB_DEPTH_HEADERS, OB_DEPTH_SAMPLE, OB_DEPTH_FULL };

struct oocbake_job {
	/* Options. */
	char *model_path, *output;
	struct ob_adapter_spec *lora;
	size_t n_lora;
	struct ob_adapter_options adapter_options;
	struct ob_recipe recipe;
	char *quant;	     /* --quant as given */
	int64_t bits, group; /* -q, --q-group-size; 0: not given */
	uint64_t memory;
	double memory_share; /* 0: not given */
	unsigned threads;
	enum ob_io_kind io;
	enum ob_sandbox_mode sandbox;
	bool force, resume;
	enum ob_depth verify; /* of the read-back after a bake */
	enum ob_depth depth;  /* of a verification */
	struct ob_arena strings;

	/* Built by prepare, each from those above it. */
	struct ob_model *model;
	struct ob_edits *edits;
	struct ob_plan *plan;
	struct ob_small_files small;
	struct ob_budget budget;
	bool is_prepared;

	/* Filled by a run. */
	struct ob_run run;
	struct ob_effect *effect;
	uint8_t *nonfinite;
	bool has_run;
	char confined[48]; /* the sandbox, as reports name it */
	double started, seconds, cpu_seconds;

	/* Tests: see struct ob_run. */
	int (*wrap_io)(void *user, struct ob_io **io, ob_err *e);
	void *wrap_user;
	uint64_t batch_bytes; /* see ob_journal_open */

	atomic_int cancel;
	ob_err err;
	struct ob_text text; /* the last string given out */
	const char **note;
	size_t n_notes, notes_cap;
};

/* prepare.c: inputs -> plan. for_verify: the output is expected to exist. */
int ob_job_prepare(struct oocbake_job *job, bool for_verify, ob_err *e);
void ob_job_unprepare(struct oocbake_job *job);
/* options.c */
int ob_job_option(struct oocbake_job *job, const char *name, const char *value, ob_err *e);
void ob_job_free_options(struct oocbake_job *job);
int ob_job_finish_options(struct oocbake_job *job, ob_err *e);
/* bake.c, verify.c */
int ob_job_bake(struct oocbake_job *job, oocbake_progress_fn fn, void *user, ob_err *e);
int ob_job_verify(struct oocbake_job *job, oocbake_progress_fn fn, void *user, ob_err *e);
/* job.c: a remark for oocbake_note. */
int ob_job_note(struct oocbake_job *job, ob_err *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* prepare.c: the small files of the plan as it is now. */
int ob_job_export(struct oocbake_job *job, ob_err *e);
/* late.c: texts whose length only the run told get their places in the plan and in the staged files... */
int ob_job_settle(struct oocbake_job *job, struct ob_stage *st, const struct ob_target *target,
		  ob_err *e);
/* ...or, for verification, the places that an output gives them. */
int ob_job_adopt_lengths(struct oocbake_job *job, struct ob_file *const *output, ob_err *e);
/* confine.c: what is left are `runs` of the engine over the targets and, with a stage, its publication. Enters
 * the sandbox, if that is wanted. */
int ob_job_confine(struct oocbake_job *job, const struct ob_stage *st,
		   const struct ob_target *target, unsigned runs, ob_err *e);
/* bake.c: writes the header of output file i. */
int ob_job_put_header(const struct oocbake_job *job, const struct ob_target *target, size_t i,
		      ob_err *e);
/* bake.c: the engine over the job's plan; `run` says the targets and what to do with them. */
int ob_job_engine(struct oocbake_job *job, struct ob_run *run, const char *phase,
		  oocbake_progress_fn fn, void *user, ob_err *e);
/* The same for the run whose results the job keeps. */
int ob_job_main_run(struct oocbake_job *job, struct ob_run run, oocbake_progress_fn fn, void *user,
		    ob_err *e);
/* facts.c: what decides the output, as text; and (one sentence) how two of them differ. */
int ob_job_facts(const struct oocbake_job *job, struct ob_text *t, ob_err *e);
int ob_job_compare_facts(const char *was, const char *is, const char *where, ob_err *e);

#endif
