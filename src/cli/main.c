/* SPDX-License-Identifier: Apache-2.0 */
/* The program: finds the command and runs it. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const struct {
	const char *name;
	enum command cmd;
	int (*run)(struct cli *c);
} commands[] = {
	{ "bake", CMD_BAKE, cli_bake },		 { "plan", CMD_PLAN, cli_plan },
	{ "verify", CMD_VERIFY, cli_verify },	 { "inspect", CMD_INSPECT, cli_inspect },
	{ "formats", CMD_FORMATS, cli_formats },
};

/* Files that are opened later must not land on a closed standard descriptor. */
static void open_standard_descriptors(void)
{
	int fd;
	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0) /* a place without devices; this one takes no bytes either */
			fd = open("/", O_RDONLY);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static int print_version(struct cli *c)
{
	const char *info = oocbake_build_info(c->job);
	printf("oocbake %s\n", oocbake_version());
	return cli_print(info ? info : "");
}

static int run_command(struct cli *c, int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		int rc = cli_parse(c, commands[i].cmd, argc - 1, argv + 1);
		if (rc)
			return rc < 0 ? OOCBAKE_OK : rc;
		return commands[i].run(c);
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		return print_version(c);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		cli_usage(stdout);
		return cli_print("");
	}
	fprintf(stderr, "oocbake: there is no command of that name; see oocbake --help\n");
	return OOCBAKE_USAGE;
}

int main(int argc, char **argv)
{
	open_standard_descriptors();
	if (argc < 2) {
		cli_usage(stderr);
		return OOCBAKE_USAGE;
	}
	struct cli c = { .job = oocbake_job_new() };
	/* The library leaves its host alone; this process has nothing else to do. */
	if (!c.job || oocbake_job_set(c.job, "sandbox", "auto")) {
		fprintf(stderr, "oocbake: out of memory\n");
		return OOCBAKE_FAILED;
	}
	int rc = run_command(&c, argc, argv);
	oocbake_job_free(c.job);
	signals_reraise();
	return rc;
}
