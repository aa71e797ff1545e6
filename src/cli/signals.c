/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stddef.h>

#include "cli/cli.h"

static oocbake_job *volatile running;
static volatile sig_atomic_t caught;
static bool stopped;

static void on_signal(int sig)
{
	/* The second one does not wait. */
	if (caught) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	caught = sig;
	if (running)
		oocbake_cancel(running);
}

void signals_install(oocbake_job *job)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal }, old;
	running = job;
	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++) {
		/* nohup and background shells ignore some: leave that so. */
		if (!sigaction(sigs[i], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaction(sigs[i], &sa, NULL);
	}
	/* A reader of our output that goes away, or a file size limit, is an error to report, not a death. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}

void signals_done(bool failed)
{
	running = NULL;
	stopped = failed && caught;
}

void signals_reraise(void)
{
	if (!stopped)
		return;
	signal(caught, SIG_DFL);
	raise(caught);
}
