/* SPDX-License-Identifier: Apache-2.0 */
/* Figures that every form of the report shows. */
#ifndef OB_REPORT_INTERNAL_H
#define OB_REPORT_INTERNAL_H

#include "report/report.h"

#define OB_WORST 10 /* tensors listed by how little of their edits survived */

/* How much of the edits a format kept: the share of the intended change that is there (1: all), the
 * correlation of the applied with the intended change, the share of values that differ from the bake
 * without adapters. has: something was measured. */
struct ob_survival {
	bool has;
	double kept, correlation, changed;
	uint32_t out; /* in lists */
};
struct ob_survival ob_survival_of(const struct ob_effect *f);
/* Over the model; worst[] gets up to OB_WORST tensors, least correlation first. */
struct ob_survival ob_survival_model(const struct ob_outcome *o, struct ob_survival *worst,
				     unsigned *n_worst);

double ob_bits_per_weight(uint64_t bytes, uint64_t params);
/* "1.24 B", "7.1 M" */
char *ob_count_text(uint64_t n, char *buf, size_t size);
/* What a run is expected to take with `rate` bytes a second of reading and writing together. */
#define OB_ASSUMED_DISK_RATE 2e9
double ob_expected_seconds(const struct ob_plan *p);

/* Name and parameters of an encoding: "bf16", "mlx:4,group=64". */
char *ob_encoding_text(const struct ob_encoding *enc, char *buf, size_t size);

int ob_outcome_text(const struct ob_outcome *o, struct ob_text *t, ob_err *e);
int ob_outcome_json(const struct ob_outcome *o, struct ob_text *t, ob_err *e);
int ob_outcome_html(const struct ob_outcome *o, struct ob_text *t, ob_err *e);

/* Appends a key and a string value (NULL: null) to a JSON object. */
void ob_json_member(struct ob_text *t, const char *key, const char *value);
/* 0, or OB_NOMEM when the text could not grow. */
int ob_text_done(const struct ob_text *t, ob_err *e);

#endif
