/* SPDX-License-Identifier: Apache-2.0 */
/* The options of every command: one table, which parsing and --help both read. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* Options above 255 have no letter. */
enum { OWN_DRY_RUN = 1, OWN_JSON, OWN_VERBOSE, OWN_PROGRESS, OWN_REPORT, OWN_HELP };

#define WORK (CMD_BAKE | CMD_PLAN | CMD_VERIFY)
#define ALL (WORK | CMD_INSPECT | CMD_FORMATS)

struct option_row {
	const char *name;
	char letter;
	const char *arg; /* NULL: a switch */
	int own;	 /* 0: passed on to the job under its name */
	unsigned cmds;
	const char *help; /* lines after the first are indented by the printer */
};

static const struct option_row rows[] = {
	{ "model", 'm', "MODEL", 0, WORK,
	  "a Hugging Face or MLX folder, one weight file, or\norg/name found in the local Hugging Face cache" },
	{ "lora", 'l', "PATH[:SCALE]", 0, WORK,
	  "an adapter folder or file, repeatable; applied in order" },
	{ "output", 'o', "OUT", 0, CMD_BAKE | CMD_PLAN, "a folder, or one .safetensors file" },
	{ "bits", 'q', "BITS", 0, WORK, "the same as --quant mlx:BITS" },
	{ "q-group-size", 0, "N", 0, WORK, "group size that goes with -q (default 64)" },
	{ "quant", 0, "SCHEME", 0, WORK,
	  "keep: each tensor in the scheme it came in (default);\nnone: dequantize; or a scheme, see oocbake formats" },
	{ "dtype", 0, "TYPE", 0, WORK,
	  "float type of what is not quantized: auto (each tensor's\nown, default), f32, f16 or bf16" },
	{ "tensor-type", 0, "REGEX=SCHEME", 0, WORK,
	  "scheme of the tensors whose name matches; repeatable,\nthe first match wins" },
	{ "skip", 0, "REGEX", 0, WORK, "leave matching tensors in the format they have" },
	{ "layout", 0, "LAYOUT", 0, WORK, "auto (the input's own, default), hf or mlx" },
	{ "max-shard-size", 0, "SIZE", 0, WORK, "most tensor data in one file (default 5GB)" },
	{ "nonfinite", 0, "WHAT", 0, WORK,
	  "fail (default), warn or keep when a value becomes\ninfinite or NaN" },
	{ "allow-unused", 0, NULL, 0, WORK, "adapter keys that match nothing become notes" },
	{ "strict", 0, NULL, 0, WORK, "notes about adapters become errors" },
	{ "memory", 0, "SIZE", 0, WORK,
	  "resident memory of the process, never exceeded: 2GiB,\n50% or 0.75 (default: a quarter of what is free, at most 2GiB)" },
	{ "threads", 't', "N", 0, WORK, "workers (default: one per processor)" },
	{ "io", 0, "KIND", 0, WORK, "auto (default), uring, threads or sync" },
	{ "sandbox", 0, "WHEN", 0, WORK,
	  "give up what the run does not need: auto (default: as far\nas the kernel offers it), on (or fail) or off" },
	{ "force", 0, NULL, 0, CMD_BAKE | CMD_PLAN, "replace an existing output as a whole" },
	{ "resume", 0, NULL, 0, CMD_BAKE | CMD_PLAN, "go on where a run that ended early stopped" },
	{ "verify", 0, "DEPTH", 0, CMD_BAKE,
	  "none (default), sample or full: read back what was\nwritten before the output gets its name" },
	{ "depth", 0, "DEPTH", 0, CMD_VERIFY,
	  "headers, sample (some of every tensor) or full (default)" },
	{ "dry-run", 'n', NULL, OWN_DRY_RUN, CMD_BAKE,
	  "show the plan and stop (same as oocbake plan)" },
	{ "progress", 0, "MODE", OWN_PROGRESS, CMD_BAKE | CMD_VERIFY,
	  "auto (default), bar, plain, json or none" },
	{ "report", 0, "FILE", OWN_REPORT, CMD_BAKE | CMD_VERIFY,
	  "also write the report to FILE.json or FILE.html" },
	{ "json", 0, NULL, OWN_JSON, ALL, "print JSON instead of text" },
	{ "verbose", 'v', NULL, OWN_VERBOSE, WORK,
	  "say what it runs on: instruction set, BLIS, I/O, sandbox" },
	{ "help", 'h', NULL, OWN_HELP, ALL, "show this help" },
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static const struct {
	enum command cmd;
	const char *synopsis, *what;
} texts[] = {
	{ CMD_BAKE, "bake -m MODEL [--lora PATH[:SCALE]]... -o OUT [options]",
	  "Bakes adapters into a model, or converts it, in one pass in fixed memory." },
	{ CMD_PLAN, "plan -m MODEL [--lora PATH[:SCALE]]... -o OUT [options]",
	  "Shows what bake would write: files, sizes, memory, time. Reads no weights." },
	{ CMD_VERIFY, "verify OUT -m MODEL [--lora PATH[:SCALE]]... [options]",
	  "Recomputes a bake, given the same options, and compares every byte of OUT." },
	{ CMD_INSPECT, "inspect PATH [--json]",
	  "Shows the tensors of a model, or what an adapter changes." },
	{ CMD_FORMATS, "formats [--json]",
	  "Lists the containers, number formats and adapters that can be read and written." },
};

void cli_usage(FILE *to)
{
	fputs("oocbake bakes LoRA adapters into the weights of large models and changes their number format,\n"
	      "tensor by tensor, in one streaming pass in a fixed amount of memory.\n\n",
	      to);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		fprintf(to, "  oocbake %s\n      %s\n", texts[i].synopsis, texts[i].what);
	fputs("\noocbake COMMAND --help lists the options of a command; oocbake --version says what it runs on.\n"
	      "Exit status: 0 done, 1 run failed, 2 usage, 3 bad input, 4 does not fit the memory limit,\n"
	      "5 verification failed, 6 the output exists or is locked; a signal ends it as that signal.\n",
	      to);
}

void cli_help(FILE *to, enum command cmd)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].cmd == cmd)
			fprintf(to, "Usage: oocbake %s\n\n%s\n\n", texts[i].synopsis,
				texts[i].what);
	for (size_t i = 0; i < N_ROWS; i++) {
		char left[64];
		if (!(rows[i].cmds & cmd))
			continue;
		snprintf(left, sizeof(left), "%c%c%s --%s%s%s", rows[i].letter ? '-' : ' ',
			 rows[i].letter ? rows[i].letter : ' ', rows[i].letter ? "," : " ",
			 rows[i].name, rows[i].arg ? " " : "", rows[i].arg ? rows[i].arg : "");
		const char *line = rows[i].help, *end;
		while ((end = strchr(line, '\n'))) {
			fprintf(to, "  %-32s %.*s\n", left, (int)(end - line), line);
			left[0] = '\0';
			line = end + 1;
		}
		fprintf(to, "  %-32s %s\n", left, line);
	}
}

static int usage_error(const struct cli *c, enum command cmd, const char *what, const char *word)
{
	char text[512], shown[256];
	const char *name = "";
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].cmd == cmd)
			name = texts[i].synopsis;
	cli_escape(shown, sizeof(shown), word, 200);
	snprintf(text, sizeof(text), "%s %s; see oocbake %.*s --help", what, shown,
		 (int)strcspn(name, " "), name);
	cli_error(c, "usage", text);
	return OOCBAKE_USAGE;
}

static int parse_progress(struct cli *c, const char *v)
{
	static const char *const name[] = { "auto", "bar", "plain", "json", "none" };
	for (unsigned i = 0; i < 5; i++)
		if (!strcmp(v, name[i])) {
			c->progress = (enum progress_mode)i;
			return 0;
		}
	return -1;
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && !strcmp(s + n - m, suffix);
}

/* An option that is the program's own, not the job's. */
static int own_option(struct cli *c, enum command cmd, const struct option_row *row, const char *v)
{
	switch (row->own) {
	case OWN_DRY_RUN:
		c->dry_run = true;
		return 0;
	case OWN_JSON:
		c->json = true;
		return 0;
	case OWN_VERBOSE:
		c->verbose = true;
		return 0;
	case OWN_PROGRESS:
		return parse_progress(c, v)
			       ? usage_error(c, cmd,
					     "--progress is auto, bar, plain, json or none, not", v)
			       : 0;
	case OWN_REPORT:
		c->report = v;
		if (has_suffix(v, ".json") || has_suffix(v, ".html"))
			return 0;
		return usage_error(c, cmd, "--report takes a name that ends in .json or .html, not",
				   v);
	default:
		cli_help(stdout, cmd);
		return cli_print("") ? OOCBAKE_FAILED : -1;
	}
}

/* Tables for getopt_long: the rows of this command. */
static void make_tables(enum command cmd, struct option *longs, char *letters)
{
	*letters++ = ':';
	for (size_t i = 0; i < N_ROWS; i++) {
		if (!(rows[i].cmds & cmd))
			continue;
		*longs++ = (struct option){ rows[i].name,
					    rows[i].arg ? required_argument : no_argument, NULL,
					    256 + (int)i };
		if (!rows[i].letter)
			continue;
		*letters++ = rows[i].letter;
		if (rows[i].arg)
			*letters++ = ':';
	}
	*letters = '\0';
	*longs = (struct option){ 0 };
}

static const struct option_row *find_row(int got, enum command cmd)
{
	if (got >= 256)
		return &rows[got - 256];
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].letter == got && (rows[i].cmds & cmd))
			return &rows[i];
	return NULL;
}

/* An option of the job. */
static int set_option(const struct cli *c, const char *name, const char *v)
{
	int rc = oocbake_job_set(c->job, name, v);
	if (rc)
		cli_error(c, oocbake_error_kind(c->job), oocbake_error(c->job));
	return rc;
}

static int take_operand(struct cli *c, enum command cmd, int argc, char **argv)
{
	bool wants = cmd == CMD_VERIFY || cmd == CMD_INSPECT;
	if (optind < argc && wants)
		c->operand = argv[optind++];
	if (optind < argc)
		return usage_error(c, cmd, "unexpected argument", argv[optind]);
	if (wants && !c->operand)
		return usage_error(c, cmd, "no path is given to",
				   cmd == CMD_VERIFY ? "verify" : "inspect");
	return cmd == CMD_VERIFY ? set_option(c, "output", c->operand) : 0;
}

int cli_parse(struct cli *c, enum command cmd, int argc, char **argv)
{
	struct option longs[N_ROWS + 1];
	char letters[2 * N_ROWS + 2];
	int got;
	make_tables(cmd, longs, letters);
	opterr = 0;
	optind = 0; /* forgets where an earlier call stopped */
	while ((got = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (got == ':')
			return usage_error(c, cmd, "a value is missing after", argv[optind - 1]);
		const struct option_row *row = got == '?' ? NULL : find_row(got, cmd);
		if (!row)
			return usage_error(c, cmd, "unknown option", argv[optind - 1]);
		int rc = row->own ? own_option(c, cmd, row, optarg)
				  : set_option(c, row->name, row->arg ? optarg : "1");
		if (rc)
			return rc;
	}
	return take_operand(c, cmd, argc, argv);
}
