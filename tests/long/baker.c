/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker OPTION=VALUE...: a bake that records what it has done every 32 MiB, so that a model of a
 * gigabyte has as many resume points as one of 32 has for users.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "lib/job.h"

static oocbake_job *volatile running;

static void stop(int sig)
{
	(void)sig;
	oocbake_cancel(running);
}

int main(int argc, char **argv)
{
	oocbake_job *job = oocbake_job_new();
	int rc = job ? 0 : OOCBAKE_FAILED;

	for (int i = 1; !rc && i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (value)
			*value++ = '\0';
		rc = oocbake_job_set(job, argv[i], value);
	}
	if (!rc) {
		job->batch_bytes = 32u << 20;
		running = job;
		signal(SIGTERM, stop);
		rc = oocbake_run(job, NULL, NULL);
	}
	for (unsigned i = 0; job && oocbake_note(job, i); i++)
		fprintf(stderr, "%s\n", oocbake_note(job, i));
	if (rc)
		fprintf(stderr, "%s\n", job ? oocbake_error(job) : "out of memory");
	oocbake_job_free(job);
	return rc;
}
