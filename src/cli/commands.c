/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"

static int failed(const struct cli *c, int rc)
{
	cli_notes(c);
	cli_error(c, oocbake_error_kind(c->job), oocbake_error(c->job));
	return rc;
}

static int print_report(const struct cli *c, const char *done)
{
	const char *text = oocbake_report(c->job, c->json ? "json" : "text");
	return text ? cli_print_report(c, text, done) : failed(c, OOCBAKE_FAILED);
}

static int report_failed(const struct cli *c, const char *done, const char *why)
{
	char sentence[1024], path[512];
	cli_escape(path, sizeof(path), c->report, sizeof(path));
	snprintf(sentence, sizeof(sentence), "%sthe report %s cannot be written: %s", done, path,
		 why);
	cli_error(c, "io", sentence);
	return OOCBAKE_FAILED;
}

static int write_report(const struct cli *c, FILE *f, const char *done)
{
	const char *text =
		oocbake_report(c->job, !strcmp(strrchr(c->report, '.'), ".html") ? "html" : "json");
	struct stat st;
	bool is_gone = !fstat(fileno(f), &st) && !st.st_nlink;
	bool ok = text && fputs(text, f) >= 0;
	ok = !fclose(f) && ok;
	if (!text)
		return failed(c, OOCBAKE_FAILED);
	if (ok && !is_gone)
		return OOCBAKE_OK;
	return report_failed(c, done,
			     is_gone ? "it was in the folder that was replaced" : strerror(errno));
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
	return print_report(c, "");
}

/* A report that cannot be delivered is a failure, too: whoever waits for one must not take half of it
 * for the whole. */
static int run(struct cli *c, int (*fn)(oocbake_job *job, oocbake_progress_fn f, void *user),
	       const char *done)
{
	struct progress p;
	FILE *report = NULL;
	/* In the sandbox of the run it could not be opened, and a typo need not cost an hour's work. */
	if (c->report && !(report = fopen(c->report, "we")))
		return report_failed(c, "", strerror(errno));
	signals_install(c->job);
	say_what_it_runs_on(c);
	progress_begin(&p, c->progress);
	int rc = fn(c->job, progress_show, &p);
	progress_end(&p);
	signals_done(rc != OOCBAKE_OK);
	if (rc) {
		if (report)
			fclose(report);
		return failed(c, rc);
	}
	cli_notes(c);
	if (report)
		rc = write_report(c, report, done);
	int printed = print_report(c, done);
	return rc ? rc : printed;
}

int cli_bake(struct cli *c)
{
	return c->dry_run ? cli_plan(c) : run(c, oocbake_run, "the output is complete, but ");
}

int cli_verify(struct cli *c)
{
	return run(c, oocbake_verify, "the output was verified, but ");
}

int cli_inspect(struct cli *c)
{
	const char *text;
	int rc = oocbake_inspect(c->job, c->operand, c->json ? "json" : "text", &text);
	return rc ? failed(c, rc) : cli_print_report(c, text, "");
}

int cli_formats(struct cli *c)
{
	const char *text = oocbake_formats(c->job, c->json ? "json" : "text");
	return text ? cli_print_report(c, text, "") : failed(c, OOCBAKE_FAILED);
}
