/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker OPTION=VALUE...: a bake that records what it has done every 32 MiB (batch=BYTES), so that a model
 * of a gigabyte has as many resume points as one of 32 has for users.
 *
 * fault=WHAT:NTH:N:ERROR:LESS breaks the NTH operation, call or allocation and those after it, N in all: they end with
 * errno ERROR, or with ERROR 0 move LESS bytes too few. The last line says how many of each there were.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/calls.h"
#include "base/alloc.h"
#include "lib/job.h"

static oocbake_job *volatile running;
static struct ob_fault operation = { .ops_mask = ~0u };
static uint64_t operations, allocation, batch = 32u << 20;
static struct calls call;

static void stop(int sig)
{
	(void)sig;
	oocbake_cancel(running);
}

static int wrap(void *user, struct ob_io **io, ob_err *e)
{
	(void)user;
	return ob_io_open_fault(io, *io, &operation, &operations, e);
}

static int set_fault(const char *text)
{
	unsigned long long nth, n;
	unsigned less;
	char what[16];
	int error;

	if (sscanf(text, "%15[a-z]:%llu:%llu:%d:%u", what, &nth, &n, &error, &less) != 5)
		return OOCBAKE_USAGE;
	if (!strcmp(what, "operation")) {
		operation.nth = nth;
		operation.sticky = n > 3;
		operation.error = error;
		operation.shorten = less;
		operation.empty = !error && less == UINT32_MAX;
	} else if (!strcmp(what, "call")) {
		call = (struct calls){
			.nth = nth, .n = n, .error = error, .is_short = !error, .less = less
		};
	} else {
		allocation = nth;
	}
	call.n = n;
	return 0;
}

static int run(oocbake_job *job)
{
	uint64_t before = ob_alloc_stats().calls;
	int rc;

	job->batch_bytes = batch;
	job->wrap_io = wrap;
	running = job;
	signal(SIGTERM, stop);
	calls_rule(&call);
	ob_alloc_fail_at(allocation, call.n > 1);
	rc = oocbake_run(job, NULL, NULL);
	ob_alloc_fail_at(0, false);
	calls_rule(NULL);
	printf("operation %ju call %ju allocation %ju\n", (uintmax_t)operations,
	       (uintmax_t)call.count, (uintmax_t)(ob_alloc_stats().calls - before));
	return rc;
}

int main(int argc, char **argv)
{
	oocbake_job *job = oocbake_job_new();
	int rc = job ? 0 : OOCBAKE_FAILED;

	for (int i = 1; !rc && i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (value)
			*value++ = '\0';
		if (value && !strcmp(argv[i], "fault"))
			rc = set_fault(value);
		else if (value && !strcmp(argv[i], "batch"))
			batch = strtoull(value, NULL, 10);
		else
			rc = oocbake_job_set(job, argv[i], value);
	}
	if (!rc)
		rc = run(job);
	for (unsigned i = 0; job && oocbake_note(job, i); i++)
		fprintf(stderr, "%s\n", oocbake_note(job, i));
	if (rc)
		fprintf(stderr, "%s\n", job ? oocbake_error(job) : "out of memory");
	oocbake_job_free(job);
	return rc;
}
