/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: a user of the public API and of nothing else. */
#ifndef OB_CLI_CLI_H
#define OB_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "oocbake/oocbake.h"

enum progress_mode { PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_PLAIN, PROGRESS_JSON, PROGRESS_NONE };

/* What the command line says beyond the job's own options. */
struct cli {
	oocbake_job *job;
	const char *operand; /* of inspect and verify */
	bool dry_run, json, verbose;
	enum progress_mode progress;
	const char *report; /* --report FILE */
};

enum command { CMD_BAKE = 1, CMD_PLAN = 2, CMD_VERIFY = 4, CMD_INSPECT = 8, CMD_FORMATS = 16 };

/* options.c. Parses what follows the command; errors are printed. Returns 0, OOCBAKE_USAGE, or -1 when
 * help was printed and the program is done. */
int cli_parse(struct cli *c, enum command cmd, int argc, char **argv);
void cli_help(FILE *to, enum command cmd);
void cli_usage(FILE *to);

/* commands.c: each returns an exit status. */
int cli_bake(struct cli *c);
int cli_plan(struct cli *c);
int cli_verify(struct cli *c);
int cli_inspect(struct cli *c);
int cli_formats(struct cli *c);

/* output.c: everything that is printed goes through here, escaped for terminals. */
void cli_error(const struct cli *c, const char *kind, const char *sentence);
void cli_notes(const struct cli *c);
/* To stdout: 0, or OOCBAKE_FAILED when it cannot be written. done: a beginning for the sentence that
 * says so, about what is complete all the same. */
int cli_print(const char *text);
int cli_print_report(const struct cli *c, const char *text, const char *done);
void cli_escape(char *to, size_t size, const char *s, size_t columns);
void cli_json_string(FILE *to, const char *s); /* what is no UTF-8 becomes U+FFFD */

/* progress.c: user is the struct progress. */
struct progress {
	enum progress_mode mode; /* resolved: never AUTO */
	double next;		 /* plain lines: when the next one is due */
	bool is_open;		 /* a bar stands on the terminal */
};
void progress_begin(struct progress *p, enum progress_mode mode);
void progress_show(void *p, const struct oocbake_progress *now);
void progress_end(struct progress *p);

/* signals.c: SIGINT, SIGTERM and SIGHUP cancel the job; a run that failed then ends the process as by
 * that signal. One that comes when the output is complete changes nothing. */
void signals_install(oocbake_job *job);
void signals_done(bool failed); /* the run is over */
void signals_reraise(void);

#endif
