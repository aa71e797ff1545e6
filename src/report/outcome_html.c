/* SPDX-License-Identifier: Apache-2.0 */
/* Plan and result as one page without scripts or outside references: the text report, and a table of
 * the tensors. */
#include <string.h>

#include "base/util.h"
#include "report/internal.h"

static void escaped(struct ob_text *t, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			ob_text_add(t, "&lt;", 4);
		else if (*s == '>')
			ob_text_add(t, "&gt;", 4);
		else if (*s == '&')
			ob_text_add(t, "&amp;", 5);
		else if (*s == '"')
			ob_text_add(t, "&quot;", 6);
		else
			ob_text_add(t, s, 1);
	}
}

static void row(const struct ob_outcome *o, uint32_t i, struct ob_text *t)
{
	const struct ob_out *out = &o->plan->out[i];
	char name[300], shape[128], enc[96];
	ob_text_printf(t, "<tr><td>");
	escaped(t, ob_printable(out->name, name, sizeof(name)));
	ob_text_printf(t, "<td>%s<td>", ob_shape_text(&out->shape, shape, sizeof(shape)));
	escaped(t, ob_encoding_text(&out->enc, enc, sizeof(enc)));
	ob_text_printf(t, "<td>%llu<td>%s%s", (unsigned long long)out->out_bytes,
		       out->copy      ? "copied"
		       : out->n_edits ? "edited"
				      : "converted",
		       o->run && o->run->nonfinite && o->run->nonfinite[i] ? ", not finite" : "");
	struct ob_survival s = o->run && o->run->effect ? ob_survival_of(&o->run->effect[i])
							: (struct ob_survival){ 0 };
	if (s.has)
		ob_text_printf(t, "<td>%.4f<td>%.1f %%", s.correlation, 100 * s.changed);
	else
		ob_text_printf(t, "<td><td>");
	ob_text_printf(t, "\n");
}

int ob_outcome_html(const struct ob_outcome *o, struct ob_text *t, ob_err *e)
{
	struct ob_text plain = { 0 };
	if (ob_outcome_text(o, &plain, e)) {
		ob_text_free(&plain);
		return -1;
	}
	ob_text_printf(
		t, "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>oocbake: ");
	escaped(t, o->output);
	ob_text_printf(
		t,
		"</title>\n<style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}"
		"td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}</style>\n<h1>oocbake</h1>\n<pre>");
	escaped(t, plain.data ? plain.data : "");
	ob_text_printf(
		t,
		"</pre>\n<table><tr><th>tensor<th>shape<th>format<th>bytes<th>work<th>correlation<th>changed\n");
	for (uint32_t i = 0; i < o->plan->n_outs; i++)
		row(o, i, t);
	ob_text_printf(t, "</table>\n</html>\n");
	ob_text_free(&plain);
	return ob_text_done(t, e);
}
