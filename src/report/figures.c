/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/internal.h"

struct ob_survival ob_survival_of(const struct ob_effect *f)
{
	struct ob_survival s = { 0 };
	if (!f->n || !(f->dd > 0))
		return s;
	s.has = true;
	s.kept = f->da / f->dd;
	s.correlation = f->aa > 0 ? f->da / sqrt(f->dd * f->aa) : 0;
	s.changed = (double)f->changed / (double)f->n;
	return s;
}

struct ob_survival ob_survival_model(const struct ob_outcome *o, struct ob_survival *worst,
				     unsigned *n_worst)
{
	struct ob_effect all = { 0 };
	*n_worst = 0;
	for (uint32_t i = 0; o->run && o->run->effect && i < o->plan->n_outs; i++) {
		const struct ob_effect *f = &o->run->effect[i];
		struct ob_survival s = ob_survival_of(f);
		if (!s.has)
			continue;
		all.dd += f->dd;
		all.aa += f->aa;
		all.da += f->da;
		all.n += f->n;
		all.changed += f->changed;
		s.out = i;
		unsigned at = *n_worst < OB_WORST ? (*n_worst)++ : OB_WORST;
		while (at > 0 && worst[at - 1].correlation > s.correlation) {
			if (at < OB_WORST)
				worst[at] = worst[at - 1];
			at--;
		}
		if (at < OB_WORST)
			worst[at] = s;
	}
	return ob_survival_of(&all);
}

double ob_bits_per_weight(uint64_t bytes, uint64_t params)
{
	return params ? 8.0 * (double)bytes / (double)params : 0;
}

char *ob_count_text(uint64_t n, char *buf, size_t size)
{
	if (n >= 1000000000)
		snprintf(buf, size, "%.2f B", (double)n / 1e9);
	else if (n >= 1000000)
		snprintf(buf, size, "%.1f M", (double)n / 1e6);
	else
		snprintf(buf, size, "%llu", (unsigned long long)n);
	return buf;
}

double ob_expected_seconds(const struct ob_plan *p)
{
	return (double)(p->read_bytes + p->out_bytes) / OB_ASSUMED_DISK_RATE;
}

char *ob_encoding_text(const struct ob_encoding *enc, char *buf, size_t size)
{
	if (enc->codec == &ob_codec_float || enc->codec == &ob_codec_raw) {
		snprintf(buf, size, "%s", ob_dtype_name(enc->dtype));
		for (char *c = buf; *c; c++)
			if (*c >= 'A' && *c <= 'Z')
				*c = (char)(*c + 'a' - 'A');
		return buf;
	}
	return enc->codec->describe(enc, buf, size);
}

void ob_json_member(struct ob_text *t, const char *key, const char *value)
{
	ob_text_printf(t, "\"%s\": ", key);
	if (value)
		ob_text_json(t, value, strlen(value));
	else
		ob_text_add(t, "null", 4);
}

int ob_text_done(const struct ob_text *t, ob_err *e)
{
	return t->failed ? ob_fail_nomem(e, "report") : 0;
}

int ob_report_outcome(const struct ob_outcome *o, enum ob_report_format f, struct ob_text *out,
		      ob_err *e)
{
	switch (f) {
	case OB_REPORT_JSON:
		return ob_outcome_json(o, out, e);
	case OB_REPORT_HTML:
		return ob_outcome_html(o, out, e);
	case OB_REPORT_TEXT:
		break;
	}
	return ob_outcome_text(o, out, e);
}
