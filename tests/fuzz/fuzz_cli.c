/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the command line: a word a line, the first one being the command. For any words:
 *  - the result is one of four, and a failure says why;
 *  - what is printed is UTF-8 without anything that steers a terminal, with --json valid JSON;
 *  - options that are accepted are within their limits.
 */
#include <getopt.h>
#include <stdio.h>

#include "base/util.h"
#include "cli/cli.h"
#include "fuzz.h"
#include "lib/job.h"

#define MAX_WORDS 64

struct words {
	char text[4096];
	char *v[MAX_WORDS + 1];
	int n;
};

static void split(struct words *w, const char *data, size_t size)
{
	size = size < sizeof(w->text) ? size : sizeof(w->text) - 1;
	memcpy(w->text, data, size);
	w->text[size] = '\0';
	w->n = 0;
	for (char *p = w->text; p && w->n < MAX_WORDS;)
		w->v[w->n++] = strsep(&p, "\n");
	w->v[w->n] = NULL;
}

static enum command find_command(const char *name)
{
	static const struct {
		const char *name;
		enum command cmd;
	} all[] = { { "bake", CMD_BAKE },
		    { "plan", CMD_PLAN },
		    { "verify", CMD_VERIFY },
		    { "inspect", CMD_INSPECT },
		    { "formats", CMD_FORMATS } };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(name, all[i].name))
			return all[i].cmd;
	return 0;
}

/* What the program prints goes to memory meanwhile. */
struct printed {
	FILE *real_out, *real_err;
	char *out, *err;
	size_t out_len, err_len;
};

static void redirect(struct printed *p)
{
	p->real_out = stdout;
	p->real_err = stderr;
	stdout = open_memstream(&p->out, &p->out_len);
	stderr = open_memstream(&p->err, &p->err_len);
	fuzz_require(stdout && stderr);
}

static void redirect_back(const struct printed *p)
{
	fclose(stdout);
	fclose(stderr);
	stdout = p->real_out;
	stderr = p->real_err;
}

static void check_text(const char *s, size_t n)
{
	fuzz_require(ob_utf8_valid(s, n));
	for (size_t i = 0; i < n; i++)
		fuzz_require((s[i] & 0xe0) || s[i] == '\n');
}

static void check_printed(const struct printed *p, const struct cli *c, int rc)
{
	struct ob_jv *json;
	ob_err e = { 0 };

	check_text(p->out, p->out_len);
	check_text(p->err, p->err_len);
	fuzz_require((rc > 0) == (p->err_len > 0));
	if (rc <= 0 || !c->json)
		return;
	fuzz_require(ob_json_parse(&json, p->out, p->out_len, "fuzz", &e) == 0);
	ob_json_free(json);
}

static int parse(struct cli *c, enum command cmd, struct words *w, ob_err *e)
{
	int rc;

	c->job = oocbake_job_new();
	if (!c->job) {
		ob_fail_nomem(e, "job");
		return -1;
	}
	rc = cli_parse(c, cmd, w->n, w->v);
	fuzz_require(rc == 0 || rc == -1 || rc == OOCBAKE_USAGE || rc == OOCBAKE_FAILED);
	fuzz_require((rc == OOCBAKE_FAILED) == (c->job->err.code == OB_NOMEM));
	return rc;
}

/* Options by themselves and together, and the rules on a name. */
static void check_job(struct oocbake_job *job)
{
	ob_err e = { 0 };
	int rc;

	fuzz_require(job->bits >= 0 && job->bits <= 64 && job->group >= 0 && job->threads <= 1024);
	fuzz_require(job->memory_share >= 0 && job->memory_share <= 1 && job->recipe.max_shard);
	for (size_t i = 0; i < job->n_lora; i++)
		fuzz_require(__builtin_isfinite(job->lora[i].scale));
	fuzz_begin();
	rc = ob_job_finish_options(job, &e);
	if (fuzz_end(rc, &e))
		fuzz_require(rc == 0 ? job->model_path && job->output : e.code == OB_USAGE);
	if (rc == 0 && job->recipe.quant == OB_QUANT_TO)
		fuzz_require(job->recipe.to.codec);
	for (size_t i = 0; i < job->recipe.n_rules; i++) {
		e.code = OB_OK;
		fuzz_begin();
		rc = ob_regex_search(job->recipe.rule[i].re, "model.layers.0.mlp.up_proj.weight",
				     &e);
		fuzz_end(rc, &e);
		fuzz_require(job->recipe.rule[i].skip || job->recipe.rule[i].enc.codec);
	}
}

static void fuzz_data(const char *data, size_t size)
{
	struct printed printed = { 0 };
	struct cli c = { 0 };
	struct words w;
	ob_err e = { 0 };
	enum command cmd;
	int rc;

	split(&w, data, size);
	cmd = find_command(w.v[0]);
	if (!cmd)
		return;
	redirect(&printed);
	fuzz_begin();
	rc = parse(&c, cmd, &w, &e);
	if (rc == OOCBAKE_FAILED)
		e = c.job->err;
	fuzz_end(e.code ? -1 : 0, &e);
	redirect_back(&printed);
	if (c.job)
		check_printed(&printed, &c, rc);
	if (rc == 0)
		check_job(c.job);
	oocbake_job_free(c.job);
	free(printed.out);
	free(printed.err);
}
