/* SPDX-License-Identifier: Apache-2.0 */
/* Plan and result for programs. */
#include <math.h>
#include <string.h>

#include "report/internal.h"

#define U(x) ((unsigned long long)(x))

static void number(struct ob_text *t, const char *key, double x)
{
	if (isfinite(x))
		ob_text_printf(t, "\"%s\": %.9g", key, x);
	else
		ob_text_printf(t, "\"%s\": null", key);
}

static void adapters(const struct ob_plan *p, struct ob_text *t)
{
	ob_text_printf(t, "  \"adapters\": [");
	for (size_t i = 0; i < p->edits->n_adapters; i++) {
		const struct ob_adapter_info *a = &p->edits->adapter[i];
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "path", a->path);
		ob_text_printf(t, ", ");
		ob_json_member(t, "family", a->family);
		ob_text_printf(t, ", ");
		number(t, "scale", a->scale);
		ob_text_printf(
			t,
			", \"keys\": %zu, \"used\": %zu, \"ignored\": %zu, \"unused\": %zu, \"tensors\": %zu, \"rank_min\": %llu, \"rank_max\": %llu, ",
			a->keys, a->used, a->ignored, a->unused, a->modules, U(a->rank_min),
			U(a->rank_max));
		number(t, "alpha", a->alpha);
		ob_text_printf(t, ", ");
		ob_json_member(t, "names", a->names);
		ob_text_printf(t, ", \"notes\": [");
		for (size_t k = 0; k < a->n_notes; k++) {
			ob_text_printf(t, "%s", k ? ", " : "");
			ob_text_json(t, a->note[k], strlen(a->note[k]));
		}
		ob_text_printf(t, "]}");
	}
	ob_text_printf(t, "%s],\n", p->edits->n_adapters ? "\n  " : "");
}

static void files(const struct ob_outcome *o, struct ob_text *t)
{
	const struct ob_plan *p = o->plan;
	ob_text_printf(t, "  \"files\": [");
	for (size_t i = 0; i < p->n_files; i++) {
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "name", p->file[i].name);
		ob_text_printf(t, ", \"bytes\": %llu, \"data_bytes\": %llu, \"tensors\": %zu}",
			       U(p->file[i].size), U(p->file[i].data_bytes), p->file[i].n_entries);
	}
	ob_text_printf(t, "\n  ],\n  \"other_files\": [");
	for (size_t i = 0; i < o->small->n; i++) {
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "name", o->small->file[i].rel);
		ob_text_printf(t, ", ");
		ob_json_member(t, "copied_from", o->small->file[i].copy_from);
		ob_text_printf(t, "}");
	}
	ob_text_printf(t, "%s],\n", o->small->n ? "\n  " : "");
}

static void sizes(const struct ob_outcome *o, struct ob_text *t)
{
	const struct ob_plan *p = o->plan;
	char enc[96];
	ob_text_printf(
		t,
		"  \"tensors\": {\"input\": %zu, \"output\": %zu, \"edited\": %zu, \"converted\": %zu, \"copied\": %zu},\n",
		p->model->n_tensors, p->n_outs, p->n_edited, p->n_converted, p->n_copied);
	ob_text_printf(t, "  \"size\": {\"parameters\": %llu, \"before\": %llu, \"after\": %llu, ",
		       U(p->params), U(p->model->bytes), U(p->out_bytes));
	number(t, "bits_per_weight_before", ob_bits_per_weight(p->model->bytes, p->model->params));
	ob_text_printf(t, ", ");
	number(t, "bits_per_weight_after", ob_bits_per_weight(p->out_bytes, p->params));
	ob_text_printf(t, ", ");
	ob_json_member(t, "format", p->quant ? ob_encoding_text(p->quant, enc, sizeof(enc)) : NULL);
	ob_text_printf(
		t,
		"},\n  \"memory\": {\"need\": %llu, \"minimum\": %llu, \"workers\": %u, \"slots\": %u},\n",
		U(o->budget->need), U(o->budget->minimum), o->budget->workers, o->budget->slots);
	ob_text_printf(
		t, "  \"expected_seconds\": %.3f,\n  \"assumed_disk_bytes_per_second\": %.0f,\n",
		ob_expected_seconds(p), OB_ASSUMED_DISK_RATE);
}

static void survival_members(const struct ob_survival *s, struct ob_text *t)
{
	number(t, "kept", s->kept);
	ob_text_printf(t, ", ");
	number(t, "correlation", s->correlation);
	ob_text_printf(t, ", ");
	number(t, "changed", s->changed);
}

static void effect(const struct ob_outcome *o, struct ob_text *t)
{
	struct ob_survival worst[OB_WORST], all;
	unsigned n;
	all = ob_survival_model(o, worst, &n);
	if (!all.has) {
		ob_text_printf(t, "  \"effect\": null,\n");
		return;
	}
	ob_text_printf(t, "  \"effect\": {");
	survival_members(&all, t);
	ob_text_printf(t, ", \"worst\": [");
	for (unsigned i = 0; i < n; i++) {
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "tensor", o->plan->out[worst[i].out].name);
		ob_text_printf(t, ", ");
		survival_members(&worst[i], t);
		ob_text_printf(t, "}");
	}
	ob_text_printf(t, "\n  ]},\n");
}

static void result(const struct ob_outcome *o, struct ob_text *t)
{
	const struct ob_run *r = o->run;
	ob_text_printf(t, "  \"result\": {");
	number(t, "seconds", o->seconds);
	ob_text_printf(t, ", ");
	number(t, "engine_seconds", r->seconds);
	ob_text_printf(t, ", ");
	number(t, "cpu_seconds", o->cpu_seconds);
	ob_text_printf(t, ", ");
	number(t, "workers_busy_seconds", r->busy);
	ob_text_printf(t, ", ");
	number(t, "disk_busy_seconds", r->disk_busy);
	ob_text_printf(
		t,
		", \"bytes_read\": %llu, \"bytes_written\": %llu, \"peak_rss\": %llu, \"direct\": %s, \"verified\": %s, ",
		U(r->bytes_read), U(r->bytes_written), U(o->peak_rss),
		r->is_direct ? "true" : "false", o->depth ? "true" : "false");
	ob_json_member(t, "depth", o->depth);
	ob_text_printf(t, ", ");
	ob_json_member(t, "io", r->backend);
	ob_text_printf(t, ", ");
	ob_json_member(t, "isa", o->isa);
	ob_text_printf(t, ", ");
	ob_json_member(t, "blis", o->blis);
	ob_text_printf(t, ", ");
	ob_json_member(t, "sandbox", o->sandbox);
	ob_text_printf(t, ", \"nonfinite\": [");
	bool any = false;
	for (size_t i = 0; r->nonfinite && i < o->plan->n_outs; i++)
		if (r->nonfinite[i]) {
			ob_text_printf(t, "%s", any ? ", " : "");
			ob_text_json(t, o->plan->out[i].name, strlen(o->plan->out[i].name));
			any = true;
		}
	ob_text_printf(t, "]},\n");
}

int ob_outcome_json(const struct ob_outcome *o, struct ob_text *t, ob_err *e)
{
	ob_text_printf(t, "{\n  ");
	ob_json_member(t, "model", o->plan->model->path);
	ob_text_printf(t, ",\n  ");
	ob_json_member(t, "output", o->output);
	ob_text_printf(t, ",\n");
	adapters(o->plan, t);
	files(o, t);
	sizes(o, t);
	if (o->run) {
		effect(o, t);
		result(o, t);
	}
	ob_text_printf(t, "  \"fingerprint\": \"%016llx\"\n}\n", U(o->plan->fingerprint));
	return ob_text_done(t, e);
}
