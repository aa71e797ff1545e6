/* SPDX-License-Identifier: Apache-2.0 */
/* Models and adapters as tables. */
#include <math.h>
#include <string.h>

#include "base/util.h"
#include "report/internal.h"

#define NAME 300
#define U(x) ((unsigned long long)(x))

static int no_html(ob_err *e)
{
	return ob_fail(e, OB_USAGE, "this report is text or json");
}

static void json_shape(struct ob_text *t, const struct ob_shape *s)
{
	ob_text_printf(t, "[");
	for (uint32_t i = 0; i < s->rank; i++)
		ob_text_printf(t, "%s%llu", i ? ", " : "", U(s->dim[i]));
	ob_text_printf(t, "]");
}

static uint64_t tensor_bytes(const struct ob_tensor *x)
{
	uint64_t n = 0;
	for (unsigned k = 0; k < x->n_parts; k++)
		n += x->part[k]->len;
	return n;
}

static void model_text(const struct ob_model *m, struct ob_text *t)
{
	char name[NAME], shape[128], enc[96], size[32], count[32];
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct ob_tensor *x = &m->tensor[i];
		ob_text_printf(t, "%-16s %-20s %12llu  %s\n",
			       ob_encoding_text(&x->enc, enc, sizeof(enc)),
			       ob_shape_text(&x->shape, shape, sizeof(shape)), U(tensor_bytes(x)),
			       ob_printable(x->name, name, sizeof(name)));
	}
	ob_text_printf(t, "%zu tensors, %s weights, %s in %zu file%s, %.2f bits per weight%s%s\n",
		       m->n_tensors, ob_count_text(m->params, count, sizeof(count)),
		       ob_size_text(m->bytes, size, sizeof(size)), m->n_files,
		       m->n_files == 1 ? "" : "s", ob_bits_per_weight(m->bytes, m->params),
		       m->quant ? ", " : "",
		       m->quant ? ob_encoding_text(m->quant, enc, sizeof(enc)) : "");
}

static void model_json(const struct ob_model *m, struct ob_text *t)
{
	char enc[96];
	ob_text_printf(t, "{\n  \"kind\": \"model\",\n  ");
	ob_json_member(t, "path", m->path);
	ob_text_printf(
		t,
		",\n  \"parameters\": %llu,\n  \"bytes\": %llu,\n  \"bits_per_weight\": %.4f,\n  ",
		U(m->params), U(m->bytes), ob_bits_per_weight(m->bytes, m->params));
	ob_json_member(t, "format", m->quant ? ob_encoding_text(m->quant, enc, sizeof(enc)) : NULL);
	ob_text_printf(t, ",\n  \"files\": [");
	for (size_t i = 0; i < m->n_files; i++) {
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "path", m->file[i]->path);
		ob_text_printf(t, ", \"bytes\": %llu}", U(m->file[i]->stamp.size));
	}
	ob_text_printf(t, "\n  ],\n  \"metadata\": {");
	for (size_t i = 0; i < m->n_meta; i++) {
		ob_text_printf(t, "%s", i ? ", " : "");
		ob_text_json(t, m->meta[i].key, strlen(m->meta[i].key));
		ob_text_printf(t, ": ");
		ob_text_json(t, m->meta[i].value, strlen(m->meta[i].value));
	}
	ob_text_printf(t, "},\n  \"tensors\": [");
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct ob_tensor *x = &m->tensor[i];
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "name", x->name);
		ob_text_printf(t, ", \"shape\": ");
		json_shape(t, &x->shape);
		ob_text_printf(t, ", ");
		ob_json_member(t, "format", ob_encoding_text(&x->enc, enc, sizeof(enc)));
		ob_text_printf(t, ", \"bytes\": %llu}", U(tensor_bytes(x)));
	}
	ob_text_printf(t, "\n  ]\n}\n");
}

int ob_report_model(const struct ob_model *m, enum ob_report_format f, struct ob_text *out,
		    ob_err *e)
{
	if (f == OB_REPORT_HTML)
		return no_html(e);
	if (f == OB_REPORT_JSON)
		model_json(m, out);
	else
		model_text(m, out);
	return ob_text_done(out, e);
}

static const char *change_name(const struct ob_change *c)
{
	switch (c->kind) {
	case OB_CHANGE_LINEAR:
		return "low-rank";
	case OB_CHANGE_EMBEDDING:
		return "low-rank embedding";
	case OB_CHANGE_BIAS_ADD:
		return "bias";
	case OB_CHANGE_REPLACE:
		return "replacement";
	case OB_CHANGE_ROWS:
		return "rows";
	}
	return "";
}

static uint64_t rank_of(const struct ob_change *c)
{
	return c->kind == OB_CHANGE_LINEAR || c->kind == OB_CHANGE_EMBEDDING ? c->b.cols : 0;
}

static uint64_t columns(const struct ob_change *c)
{
	return rank_of(c) ? c->a.cols : c->b.cols;
}

static void adapter_text(const struct ob_adapter_file *f, const struct ob_reader_result *r,
			 struct ob_text *t)
{
	char name[NAME], path[NAME];
	for (size_t i = 0; i < r->n_changes; i++) {
		const struct ob_change *c = &r->change[i];
		ob_text_printf(t, "%-18s %8llu x %-8llu", change_name(c), U(c->b.rows),
			       U(columns(c)));
		if (rank_of(c))
			ob_text_printf(t, " rank %-5llu", U(rank_of(c)));
		else
			ob_text_printf(t, "           ");
		ob_text_printf(t, " x %-10.6g %s.%s\n", c->coeff,
			       ob_printable(c->module, name, sizeof(name)), c->param);
	}
	for (size_t i = 0; i < r->n_ignored; i++)
		ob_text_printf(t, "ignored            %s\n",
			       ob_printable(r->ignored[i], name, sizeof(name)));
	ob_text_printf(t, "%s: %s, %zu keys, %zu changes",
		       ob_printable(f->path, path, sizeof(path)), r->family, f->list.n_tensors,
		       r->n_changes);
	if (!isnan(r->alpha))
		ob_text_printf(t, ", alpha %g", r->alpha);
	ob_text_printf(t, "\n");
}

static void adapter_json(const struct ob_adapter_file *f, const struct ob_reader_result *r,
			 struct ob_text *t)
{
	ob_text_printf(t, "{\n  \"kind\": \"adapter\",\n  ");
	ob_json_member(t, "path", f->path);
	ob_text_printf(t, ",\n  ");
	ob_json_member(t, "family", r->family);
	ob_text_printf(t, ",\n  \"keys\": %zu,\n  \"alpha\": ", f->list.n_tensors);
	if (isnan(r->alpha))
		ob_text_printf(t, "null");
	else
		ob_text_printf(t, "%.9g", r->alpha);
	ob_text_printf(t, ",\n  \"ignored\": [");
	for (size_t i = 0; i < r->n_ignored; i++) {
		ob_text_printf(t, "%s", i ? ", " : "");
		ob_text_json(t, r->ignored[i], strlen(r->ignored[i]));
	}
	ob_text_printf(t, "],\n  \"changes\": [");
	for (size_t i = 0; i < r->n_changes; i++) {
		const struct ob_change *c = &r->change[i];
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "module", c->module);
		ob_text_printf(t, ", ");
		ob_json_member(t, "parameter", c->param);
		ob_text_printf(t, ", ");
		ob_json_member(t, "kind", change_name(c));
		ob_text_printf(
			t,
			", \"rows\": %llu, \"columns\": %llu, \"rank\": %llu, \"coefficient\": %.9g}",
			U(c->b.rows), U(columns(c)), U(rank_of(c)), c->coeff);
	}
	ob_text_printf(t, "\n  ]\n}\n");
}

int ob_report_adapter(const struct ob_adapter_file *f, const struct ob_reader_result *r,
		      enum ob_report_format fmt, struct ob_text *out, ob_err *e)
{
	if (fmt == OB_REPORT_HTML)
		return no_html(e);
	if (fmt == OB_REPORT_JSON)
		adapter_json(f, r, out);
	else
		adapter_text(f, r, out);
	return ob_text_done(out, e);
}
