/* SPDX-License-Identifier: Apache-2.0 */
/* Reports over values that files could hold: names that break out of JSON, HTML and terminals. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../support/world.h"
#include "report/internal.h"

#define HOSTILE "a\"b\\c\x1b[31m<script>&\n\xe2\x80\xae\xf0\x9f\x98\x80.weight"

static struct world w;
static struct ob_plan *plan;
static struct ob_small_files small;
static struct ob_small_file small_file[2];
static struct ob_budget budget = { .workers = 2, .slots = 8, .need = 100 << 20, .minimum = 1 };
static struct ob_run run;
static struct ob_effect effect[3];
static uint8_t nonfinite[3] = { 0, 1, 0 };
static struct ob_adapter_info adapter[2];
static const char *note = HOSTILE;
static struct ob_text text;

static void init(void)
{
	world_begin(&w);
	w.model.path = "model/" HOSTILE;
	world_matrix(&w, HOSTILE, world_float(OB_BF16), 64, 64);
	world_matrix(&w, "b.weight", world_float(OB_BF16), 64, 64);
	world_matrix(&w, "c.weight", world_mlx(4, 64, OB_BF16), 64, 64);
	world_lowrank(&w, 0, 2, 1);
	plan = world_plan(&w);
	adapter[0] = (struct ob_adapter_info){ .path = HOSTILE,
					       .family = "PEFT LoRA",
					       .scale = 1,
					       .keys = 2,
					       .used = 2,
					       .modules = 1,
					       .rank_min = 2,
					       .rank_max = 4,
					       .alpha = NAN,
					       .note = &note,
					       .n_notes = 1,
					       .names = HOSTILE };
	adapter[1] = (struct ob_adapter_info){ .path = "l", .family = "PEFT LoRA", .alpha = 4 };
	w.edits.adapter = adapter;
	/* file[] is for the fingerprint: see with_adapters. */
	small_file[0] = (struct ob_small_file){ .rel = HOSTILE, .copy_from = HOSTILE };
	small_file[1] =
		(struct ob_small_file){ .rel = "config.json", .data = (char[]){ "{}" }, .len = 2 };
	small = (struct ob_small_files){ .file = small_file, .n = 2 };
	effect[0] = (struct ob_effect){ .dd = 4, .aa = 4, .da = 4, .n = 100, .changed = 50 };
	run = (struct ob_run){ .effect = effect,
			       .nonfinite = nonfinite,
			       .seconds = 1,
			       .busy = 1,
			       .disk_busy = 0.5,
			       .bytes_read = 1000,
			       .bytes_written = 1000,
			       .backend = "uring" };
}

static void fini(void)
{
	ob_text_free(&text);
	ob_plan_free(plan);
	world_end(&w);
}

TestSuite(report, .init = init, .fini = fini);

static struct ob_outcome outcome(bool has_run)
{
	static struct ob_file file = { .path = "l" };
	static struct ob_adapter_file adapter_file = { .file = &file };
	static struct ob_adapter_file *files[] = { &adapter_file, &adapter_file };

	w.edits.file = files;
	w.edits.n_adapters = 2;
	return (struct ob_outcome){ .plan = plan,
				    .budget = &budget,
				    .small = &small,
				    .run = has_run ? &run : NULL,
				    .output = "out/" HOSTILE,
				    .seconds = 1,
				    .peak_rss = 1 << 20,
				    .isa = "ref",
				    .sandbox = "seccomp" };
}

static const char *render(const struct ob_outcome *o, enum ob_report_format f)
{
	ob_err e = { 0 };

	ob_text_free(&text);
	text = (struct ob_text){ 0 };
	cr_assert_eq(ob_report_outcome(o, f, &text, &e), 0, "%s", e.msg);
	return text.data;
}

static struct ob_jv *parse(const char *json)
{
	struct ob_jv *root = NULL;
	ob_err e = { 0 };

	cr_assert_eq(ob_json_parse(&root, json, strlen(json), "report", &e), 0, "%s\n%s", e.msg,
		     json);
	return root;
}

Test(report, json_is_json)
{
	for (int has_run = 0; has_run <= 1; has_run++) {
		struct ob_outcome o = outcome(has_run);
		struct ob_jv *v = parse(render(&o, OB_REPORT_JSON));

		cr_assert_str_eq(ob_json_str(ob_json_get(v, "model")), "model/" HOSTILE);
		cr_assert_eq(ob_json_get(v, "result") != NULL, has_run);
		const struct ob_jv *a = ob_json_first(ob_json_get(v, "adapters"));
		cr_assert_str_eq(ob_json_str(ob_json_get(a, "names")), HOSTILE);
		cr_assert_eq(ob_json_type(ob_json_get(a, "alpha")), OB_JSON_NULL);
		const struct ob_jv *r = ob_json_get(v, "result");
		if (has_run) {
			cr_assert_str_eq(ob_json_str(ob_json_first(ob_json_get(r, "nonfinite"))),
					 "b.weight");
			cr_assert_str_eq(ob_json_str(ob_json_get(r, "sandbox")), "seccomp");
		}
		ob_json_free(v);
	}
}

/* Whatever a file is called, the terminal is not steered. */
static void expect_plain(const char *s)
{
	for (; *s; s++)
		cr_assert((unsigned char)*s >= 0x20 || *s == '\n', "control character in %s", s);
}

Test(report, text_is_plain)
{
	for (int has_run = 0; has_run <= 1; has_run++) {
		struct ob_outcome o = outcome(has_run);
		const char *s = render(&o, OB_REPORT_TEXT);

		expect_plain(s);
		cr_assert_null(strstr(s, "\xe2\x80\xae"), "text is turned around");
		cr_assert(strstr(s, "2/2 keys matched"));
		cr_assert_eq(s[strlen(s) - 1], '\n');
	}
}

Test(report, html_holds_no_markup_of_others)
{
	struct ob_outcome o = outcome(true);
	const char *s = render(&o, OB_REPORT_HTML);

	cr_assert_null(strstr(s, "<script"));
	cr_assert(strstr(s, "&lt;script&gt;"));
	cr_assert(strstr(s, "not finite"));
	cr_assert(strstr(s, "</html>"));
}

/* ---- figures ------------------------------------------------------------------------------- */

Test(report, survival)
{
	struct ob_effect all = { .dd = 9, .aa = 9, .da = 9, .n = 10, .changed = 10 };
	struct ob_effect half = { .dd = 4, .aa = 1, .da = 2, .n = 10, .changed = 5 };
	struct ob_effect gone = { .dd = 4, .n = 10 };
	struct ob_effect none = { .n = 10 };
	struct ob_survival s = ob_survival_of(&all);

	cr_assert(s.has && s.kept == 1 && s.correlation == 1 && s.changed == 1);
	s = ob_survival_of(&half);
	cr_assert(s.has && s.kept == 0.5 && s.correlation == 1 && s.changed == 0.5);
	s = ob_survival_of(&gone);
	cr_assert(s.has && s.kept == 0 && s.correlation == 0);
	cr_assert(!ob_survival_of(&none).has);
	cr_assert(!ob_survival_of(&(struct ob_effect){ 0 }).has);
}

Test(report, the_worst_come_first)
{
	enum { N = 3 * OB_WORST };
	struct ob_effect many[N];
	struct ob_survival worst[OB_WORST];
	struct ob_out outs[N] = { 0 };
	struct ob_plan p = { .out = outs, .n_outs = N };
	struct ob_run r = { .effect = many };
	struct ob_outcome o = { .plan = &p, .run = &r };
	unsigned n;

	for (unsigned i = 0; i < N; i++) {
		double c = (i * 7 % N) / (double)N;

		many[i] = (struct ob_effect){ .dd = 1, .aa = 1, .da = c, .n = 1, .changed = 1 };
	}
	many[4].n = 0;
	cr_assert(ob_survival_model(&o, worst, &n).has);
	cr_assert_eq(n, OB_WORST);
	for (unsigned i = 1; i < n; i++)
		cr_assert_leq(worst[i - 1].correlation, worst[i].correlation);
	cr_assert_eq(worst[0].out, 0);
	for (unsigned i = 0; i < N; i++) {
		bool listed = false;

		for (unsigned k = 0; k < n; k++)
			listed |= worst[k].out == i;
		if (i != 4 && !listed)
			cr_assert_geq(many[i].da, worst[n - 1].correlation);
	}
}

Test(report, numbers_for_people)
{
	char s[32];

	cr_assert_str_eq(ob_count_text(999999, s, sizeof(s)), "999999");
	cr_assert_str_eq(ob_count_text(7100000, s, sizeof(s)), "7.1 M");
	cr_assert_str_eq(ob_count_text(1240000000, s, sizeof(s)), "1.24 B");
	cr_assert_eq(ob_bits_per_weight(100, 0), 0);
	cr_assert_eq(ob_bits_per_weight(100, 200), 4);
	cr_assert_str_eq(ob_encoding_text(&w.tensor[2].enc, s, sizeof(s)), "mlx:4,group=64");
	cr_assert_str_eq(ob_encoding_text(&w.tensor[1].enc, s, sizeof(s)), "bf16");
}

/* ---- tables -------------------------------------------------------------------------------- */

Test(report, models)
{
	ob_err e = { 0 };
	struct ob_jv *v;

	cr_assert_eq(ob_report_model(&w.model, OB_REPORT_JSON, &text, &e), 0, "%s", e.msg);
	v = parse(text.data);
	cr_assert_str_eq(ob_json_str(ob_json_get(ob_json_first(ob_json_get(v, "tensors")), "name")),
			 HOSTILE);
	ob_json_free(v);
	ob_text_free(&text);
	text = (struct ob_text){ 0 };
	cr_assert_eq(ob_report_model(&w.model, OB_REPORT_TEXT, &text, &e), 0, "%s", e.msg);
	expect_plain(text.data);
	cr_assert_eq(ob_report_model(&w.model, OB_REPORT_HTML, &text, &e), -1);
	cr_assert_eq(e.code, OB_USAGE);
}

Test(report, adapters)
{
	struct ob_change change[2] = {
		{ .kind = OB_CHANGE_LINEAR,
		  .path = HOSTILE,
		  .module = HOSTILE,
		  .param = "weight",
		  .b = { .rows = 8, .cols = 2 },
		  .a = { .rows = 2, .cols = 16 },
		  .coeff = 0.5 },
		{ .kind = OB_CHANGE_REPLACE,
		  .module = "x",
		  .param = "bias",
		  .b = { .rows = 1, .cols = 8 },
		  .coeff = 1 },
	};
	const char *ignored = HOSTILE;
	struct ob_reader_result r = { .family = "PEFT LoRA",
				      .change = change,
				      .n_changes = 2,
				      .ignored = &ignored,
				      .n_ignored = 1,
				      .alpha = NAN };
	struct ob_adapter_file f = { .path = HOSTILE };
	ob_err e = { 0 };
	struct ob_jv *v;

	cr_assert_eq(ob_report_adapter(&f, &r, OB_REPORT_JSON, &text, &e), 0, "%s", e.msg);
	v = parse(text.data);
	cr_assert_str_eq(ob_json_str(
				 ob_json_get(ob_json_first(ob_json_get(v, "changes")), "module")),
			 HOSTILE);
	ob_json_free(v);
	ob_text_free(&text);
	text = (struct ob_text){ 0 };
	cr_assert_eq(ob_report_adapter(&f, &r, OB_REPORT_TEXT, &text, &e), 0, "%s", e.msg);
	expect_plain(text.data);
	cr_assert(strstr(text.data, "8 x 16"));
	cr_assert(strstr(text.data, "rank 2"));
}

Test(report, formats)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_report_formats(OB_REPORT_JSON, &text, &e), 0, "%s", e.msg);
	ob_json_free(parse(text.data));
	ob_text_free(&text);
	text = (struct ob_text){ 0 };
	cr_assert_eq(ob_report_formats(OB_REPORT_TEXT, &text, &e), 0, "%s", e.msg);
	for (size_t i = 0; ob_codecs[i]; i++)
		cr_assert(strstr(text.data, ob_codecs[i]->name));
	for (size_t i = 0; ob_adapter_readers[i]; i++)
		cr_assert(strstr(text.data, ob_adapter_readers[i]->name));
}
