/* SPDX-License-Identifier: Apache-2.0 */
/* What this build reads and writes, from the registries themselves. */
#include <string.h>

#include "report/internal.h"

static void formats_text(struct ob_text *t)
{
	ob_text_printf(t, "Containers\n");
	for (size_t i = 0; ob_containers[i]; i++) {
		ob_text_printf(t, "  %-12s", ob_containers[i]->name);
		for (size_t k = 0; ob_containers[i]->suffix[k]; k++)
			ob_text_printf(t, " %s", ob_containers[i]->suffix[k]);
		ob_text_printf(t, "\n");
	}
	ob_text_printf(t, "\nNumber formats (--quant SCHEME)\n");
	for (size_t i = 0; ob_codecs[i]; i++) {
		const struct ob_codec *c = ob_codecs[i];
		ob_text_printf(t, "  %-12s %s\n", c->name, c->summary);
		for (size_t k = 0; c->schemes && c->schemes[k]; k++)
			ob_text_printf(t, "  %-12s   %s\n", "", c->schemes[k]);
	}
	ob_text_printf(t, "\nAdapters\n");
	for (size_t i = 0; ob_adapter_readers[i]; i++)
		ob_text_printf(t, "  %-12s %s\n", ob_adapter_readers[i]->name,
			       ob_adapter_readers[i]->summary);
}

static void formats_json(struct ob_text *t)
{
	ob_text_printf(t, "{\n  \"containers\": [");
	for (size_t i = 0; ob_containers[i]; i++) {
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "name", ob_containers[i]->name);
		ob_text_printf(t, "}");
	}
	ob_text_printf(t, "\n  ],\n  \"number_formats\": [");
	for (size_t i = 0; ob_codecs[i]; i++) {
		const struct ob_codec *c = ob_codecs[i];
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "name", c->name);
		ob_text_printf(t, ", ");
		ob_json_member(t, "summary", c->summary);
		ob_text_printf(t, ", \"schemes\": [");
		for (size_t k = 0; c->schemes && c->schemes[k]; k++) {
			ob_text_printf(t, "%s", k ? ", " : "");
			ob_text_json(t, c->schemes[k], strlen(c->schemes[k]));
		}
		ob_text_printf(t, "]}");
	}
	ob_text_printf(t, "\n  ],\n  \"adapters\": [");
	for (size_t i = 0; ob_adapter_readers[i]; i++) {
		ob_text_printf(t, "%s\n    {", i ? "," : "");
		ob_json_member(t, "name", ob_adapter_readers[i]->name);
		ob_text_printf(t, ", ");
		ob_json_member(t, "summary", ob_adapter_readers[i]->summary);
		ob_text_printf(t, "}");
	}
	ob_text_printf(t, "\n  ]\n}\n");
}

int ob_report_formats(enum ob_report_format f, struct ob_text *out, ob_err *e)
{
	if (f == OB_REPORT_HTML)
		return ob_fail(e, OB_USAGE, "this report is text or json");
	if (f == OB_REPORT_JSON)
		formats_json(out);
	else
		formats_text(out);
	return ob_text_done(out, e);
}
