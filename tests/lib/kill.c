/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs that are killed at every I/O operation, or lose power there, or are killed at another system call,
 * and are resumed: the output is that of a run that nobody disturbed, and what the journal vouched for was
 * there. With OOCBAKE_SOAK set all scenarios in all ways, else a part of them.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/calls.h"
#include "../support/check.h"
#include "../support/crash.h"
#include "../support/toy.h"
#include "base/util.h"
#include "kernels/gemm.h"
#include "lib/job.h"

#define MEMORY (46u << 20) /* beyond what the process holds */

static char dir[256];
static bool soaks;
static unsigned kills, resumes_with_work, double_kills, kills_at_calls;

static const struct scenario {
	const char *name;
	const char *option[6][2]; /* paths begin with "@": inside the folder of this program */
} scenarios[] = {
	{ "merge", { { "model", "@model" }, { "lora", "@lora" }, { "io", "sync" } } },
	{ "shards", { { "model", "@model" }, { "lora", "@lora" }, { "max-shard-size", "60kB" } } },
	{ "copy", { { "model", "@model" }, { "io", "threads" }, { "verify", "full" } } },
	{ "quantize",
	  { { "model", "@model" }, { "lora", "@lora" }, { "bits", "4" }, { "io", "uring" } } },
	{ "statistics",
	  { { "model", "@model" }, { "lora", "@lora" }, { "quant", "bnb-nf4,nested" } } },
};

static const char *in_dir(const char *name)
{
	static char path[4][512];
	static unsigned turn;
	char *s = path[turn++ % 4];

	snprintf(s, sizeof(path[0]), "%s/%s", dir, name);
	return s;
}

static oocbake_job *job_for(const struct scenario *s, bool resume, struct crash *crash)
{
	oocbake_job *job = oocbake_job_new();

	CHECK(job, "no memory");
	job->wrap_io = crash_wrap;
	job->wrap_user = crash;
	job->batch_bytes = 1;
	job->memory = ob_rss_now() + MEMORY;
	job->resume = resume;
	for (unsigned i = 0; i < 6 && s->option[i][0]; i++) {
		const char *v = s->option[i][1];

		CHECK(!oocbake_job_set(job, s->option[i][0], *v == '@' ? in_dir(v + 1) : v), "%s",
		      oocbake_error(job));
	}
	CHECK(!oocbake_job_set(job, "output", in_dir("out/out")), "%s", oocbake_error(job));
	return job;
}

/* A whole run; returns the hash of the folder around the output. */
static uint64_t finish(const struct scenario *s, bool resume, uint64_t *operations,
		       const char *what)
{
	struct crash none = { 0 };
	oocbake_job *job = job_for(s, resume, &none);
	uint64_t hash;

	CHECK(!oocbake_run(job, NULL, NULL), "%s: %s", what, oocbake_error(job));
	for (unsigned i = 0; oocbake_note(job, i); i++) {
		const char *note = oocbake_note(job, i);

		resumes_with_work += strstr(note, "were there from the earlier run") != NULL;
		CHECK(!strstr(note, "damaged"), "%s: %s", what, note);
	}
	if (operations)
		*operations = none.count;
	oocbake_job_free(job);
	hash = toy_hash(in_dir("out"));
	toy_remove(in_dir("out/out"));
	return hash;
}

/* True when it died; a run may have come to its end with fewer operations than another. */
static bool die_at(const struct scenario *s, bool resume, struct crash crash, const char *what)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0, "fork");
	if (!pid)
		_exit(oocbake_run(job_for(s, resume, &crash), NULL, NULL) ? 9 : 0);
	CHECK(waitpid(pid, &status, 0) == pid, "wait");
	if (WIFSIGNALED(status)) {
		CHECK(WTERMSIG(status) == SIGKILL, "%s: signal %d", what, WTERMSIG(status));
		kills++;
		return true;
	}
	CHECK(status == 0, "%s: status %x", what, (unsigned)status);
	return false;
}

static void sweep(const struct scenario *s, bool power)
{
	uint64_t n, good = finish(s, false, &n, s->name);

	CHECK(n > 15, "%s: only %llu operations", s->name, (unsigned long long)n);
	for (uint64_t k = 1; k <= n; k++) {
		struct crash first = { .nth = k, .power = power };
		struct crash second = { .nth = 1 + k * 7 % 23, .power = power };
		char what[96];

		snprintf(what, sizeof(what), "%s, %s at operation %llu", s->name,
			 power ? "power lost" : "killed", (unsigned long long)k);
		if (!die_at(s, false, first, what)) {
			toy_remove(in_dir("out/out"));
			continue;
		}
		if (k % 5 == 0 && die_at(s, true, second, what))
			double_kills++;
		else if (k % 5 == 0)
			toy_remove(in_dir("out/out"));
		CHECK(finish(s, true, NULL, what) == good, "%s: the output is another", what);
	}
}

/* Returns whether it died. */
static bool die_at_call(const struct scenario *s, uint64_t nth, const char *what)
{
	struct crash none = { 0 };
	struct calls rule = { .nth = nth, .n = 1, .kills = true };
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0, "fork");
	if (!pid) {
		oocbake_job *job = job_for(s, false, &none);

		calls_rule(&rule);
		_exit(oocbake_run(job, NULL, NULL) ? 9 : 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid, "wait");
	CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : status == 0, "%s: status %x",
	      what, (unsigned)status);
	kills_at_calls += WIFSIGNALED(status);
	return WIFSIGNALED(status);
}

/* Between folders, locks, plans, renames: all states that a run can leave, the last of them a published
 * output with a lock beside it that the next run to this place removes. */
static void sweep_calls(const struct scenario *s, unsigned step)
{
	uint64_t good = finish(s, false, NULL, s->name);
	char what[96];

	for (uint64_t k = 1;; k += step) {
		snprintf(what, sizeof(what), "%s, killed at call %llu", s->name,
			 (unsigned long long)k);
		if (!die_at_call(s, k, what))
			break;
		if (toy_hash(in_dir("out/out"))) {
			toy_remove(in_dir("out/.out.oocbake"));
			CHECK(toy_hash(in_dir("out")) == good, "%s: half an output", what);
			toy_remove(in_dir("out/out"));
		} else {
			CHECK(finish(s, true, NULL, what) == good, "%s: the output is another",
			      what);
		}
	}
	toy_remove(in_dir("out/out"));
}

int main(void)
{
	double start = ob_now();
	ob_err e = { 0 };

	soaks = getenv("OOCBAKE_SOAK") != NULL;
	CHECK(!ob_gemm_init(&e), "%s", e.msg);
	toy_dir(dir, sizeof(dir));
	toy_model(in_dir("model"));
	toy_lora(in_dir("lora"));
	CHECK(!mkdir(in_dir("out"), 0700), "out");
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
		for (int power = 0; power <= 1; power++)
			if (soaks || power == (int)(i % 2))
				sweep(&scenarios[i], power);
	CHECK(resumes_with_work > kills / 4, "only %u of %u resumed runs found anything",
	      resumes_with_work, kills);
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
		if (soaks || i == 0)
			sweep_calls(&scenarios[i], soaks ? 1 : 5);
	toy_remove(dir);
	printf("%u kills at operations, %u of them while resuming, %u at system calls; %u resumed runs "
	       "went on from something; %.1f s\n",
	       kills, double_kills, kills_at_calls, resumes_with_work, ob_now() - start);
	return 0;
}
