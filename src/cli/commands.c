/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

static int failed(const struct cli *c, int rc)
{
	cli_notes(c);
	cli_error(c, oocbake_error_kind(c->job), oocbake_error(c->job));
	return rc;
}

static int print_report(const struct cli *c)
{
	const char *text = oocbake_report(c->job, c->json ? "json" : "text");
	return text ? cli_print(text) : failed(c, OOCBAKE_FAILED);
}

static int write_report(const struct cli *c)
{
	if (!c->report)
		return OOCBAKE_OK;
	const char *text =
		oocbake_report(c->job, !strcmp(strrchr(c->report, '.'), ".html") ? "html" : "json");
	if (!text)
		return failed(c, OOCBAKE_FAILED);
	FILE *f = fopen(c->report, "we");
	bool ok = f && fputs(text, f) >= 0;
	if (f)
		ok = !fclose(f) && ok;
	if (ok)
		return OOCBAKE_OK;
	char sentence[1024], path[512];
	cli_escape(path, sizeof(path), c->report, sizeof(path));
	snprintf(sentence, sizeof(sentence),
		 "the work is done, but the report %s cannot be written: %s", path,
		 strerror(errno));
	cli_error(c, "io", sentence);
	return OOCBAKE_FAILED;
}

static void say_what_it_runs_on(const struct cli *c)
{
	const char *info = c->verbose ? oocbake_build_info(c->job) : NULL;
	if (info)
		fputs(info, stderr);
}

int cli_plan(struct cli *c)
{
	say_what_it_runs_on(c);
	int rc = oocbake_plan(c->job);
	if (rc)
		return failed(c, rc);
	cli_notes(c);
	return print_report(c);
}

static int run(struct cli *c, int (*fn)(oocbake_job *job, oocbake_progress_fn f, void *user))
{
	struct progress p;
	say_what_it_runs_on(c);
	signals_install(c->job);
	progress_begin(&p, c->progress);
	int rc = fn(c->job, progress_show, &p);
	progress_end(&p);
	signals_done(rc != OOCBAKE_OK);
	if (rc)
		return failed(c, rc);
	cli_notes(c);
	rc = write_report(c);
	int printed = print_report(c);
	return rc ? rc : printed;
}

int cli_bake(struct cli *c)
{
	return c->dry_run ? cli_plan(c) : run(c, oocbake_run);
}

int cli_verify(struct cli *c)
{
	return run(c, oocbake_verify);
}

int cli_inspect(struct cli *c)
{
	const char *text;
	int rc = oocbake_inspect(c->job, c->operand, c->json ? "json" : "text", &text);
	return rc ? failed(c, rc) : cli_print(text);
}

int cli_formats(struct cli *c)
{
	const char *text = oocbake_formats(c->job, c->json ? "json" : "text");
	return text ? cli_print(text) : failed(c, OOCBAKE_FAILED);
}
