/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports: plan, result and inspection as text, JSON or HTML. Pure: from finished values to a text.
 */
#ifndef OB_REPORT_REPORT_H
#define OB_REPORT_REPORT_H

#include "adapter/adapter.h"
#include "base/json.h"
#include "engine/engine.h"
#include "export/export.h"
#include "plan/budget.h"
#include "plan/plan.h"

enum ob_report_format { OB_REPORT_TEXT, OB_REPORT_JSON, OB_REPORT_HTML };

/* What there is to tell. run == NULL: only planned. */
struct ob_outcome {
	const struct ob_plan *plan;
	const struct ob_budget *budget;
	const struct ob_small_files *small; /* files beside the weights */
	const struct ob_run *run;
	const char *output; /* path */
	bool verified;	    /* the run compared instead of writing */
	/* How much was compared, or read back after writing: NULL, "headers", "sample" or "full". */
	const char *depth;
	double seconds; /* the whole call */
	double cpu_seconds;
	uint64_t peak_rss;
	const char *isa, *blis; /* what it ran on */
	const char *sandbox;	/* what it ran in, NULL: without */
};

/* A plan (files, sizes, bits per weight, memory, expected time) or a result (matched keys n/n, tensors
 * changed, sizes before and after, time, rate against the disk, peak memory, what the format did to the
 * adapters). Text ends with a newline. OB_NOMEM. */
int ob_report_outcome(const struct ob_outcome *o, enum ob_report_format f, struct ob_text *out,
		      ob_err *e);

/* A model as a table of logical tensors with a summary. */
int ob_report_model(const struct ob_model *m, enum ob_report_format f, struct ob_text *out,
		    ob_err *e);
/* An adapter: family, rank, alpha, targets; its changes as a table. */
int ob_report_adapter(const struct ob_adapter_file *f, const struct ob_reader_result *r,
		      enum ob_report_format fmt, struct ob_text *out, ob_err *e);
/* Containers, number formats with bits per weight, adapter families. */
int ob_report_formats(enum ob_report_format f, struct ob_text *out, ob_err *e);

#endif
