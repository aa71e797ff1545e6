/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault floor: every I/O operation and every allocation of whole runs fails in turn. Each time
 * the error must be the right one, inputs and an old output must be untouched, no memory or descriptor
 * may leak, what is left behind must be announced, and the run that resumes must give the right bytes
 * and leave nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "../support/check.h"
#include "../support/toy.h"
#include "base/util.h"
#include "kernels/gemm.h"
#include "lib/job.h"

/* Beyond what the process holds: as few slots as do, since thousands of runs fault them in. */
#define MEMORY (46u << 20)

/* The race detector slows everything down and looks for other defects. */
#ifdef __SANITIZE_THREAD__
#define STEP 4
#else
#define STEP 1
#endif

static char dir[256];

enum { VERIFIES = 1, HAS_OLD = 2 /* output before the run */, RESUMES = 4 /* a part of one */ };

struct scenario {
	const char *name;
	const char *option[7][2]; /* paths begin with "@": inside the folder of this program */
	unsigned is;
};

static const struct scenario scenarios[] = {
	{ "copy", { { "model", "@model" } }, 0 },
	{ "merge", { { "model", "@model" }, { "lora", "@lora" }, { "io", "threads" } }, 0 },
	{ "quantize",
	  { { "model", "@model" }, { "bits", "4" }, { "q-group-size", "32" }, { "io", "sync" } },
	  0 },
	{ "requantize",
	  { { "model", "@quantized" }, { "lora", "@lora:0.5" }, { "max-shard-size", "60kB" } },
	  0 },
	{ "single", { { "model", "@single.safetensors" }, { "dtype", "f16" } }, 0 },
	{ "force",
	  { { "model", "@model" }, { "lora", "@lora" }, { "quant", "mlx:8" }, { "force", NULL } },
	  HAS_OLD },
	{ "verify", { { "model", "@model" }, { "lora", "@lora" } }, VERIFIES | HAS_OLD },
	{ "resume", { { "model", "@model" }, { "lora", "@lora" }, { "resume", NULL } }, RESUMES },
};
#define N_SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

/* ---- one run ------------------------------------------------------------------------------- */

struct fault {
	struct ob_fault io;
	uint64_t io_count; /* operations so far */
	uint64_t alloc;	   /* number of the allocation that fails, 0: none */
	bool alloc_sticky;
	bool resume;
};

static int wrap(void *user, struct ob_io **io, ob_err *e)
{
	struct fault *f = user;

	return ob_io_open_fault(io, *io, &f->io, &f->io_count, e);
}

static const char *in_dir(const char *name)
{
	static char path[4][512];
	static unsigned turn;
	char *s = path[turn++ % 4];

	snprintf(s, sizeof(path[0]), "%s/%s", dir, name);
	return s;
}

static const char *output_of(const struct scenario *s)
{
	return in_dir(!strcmp(s->name, "single") ? "out/out.safetensors" : "out/out");
}

#define NO_REPORT 100 /* the run went well, the report did not */

/* Returns the exit status; kind gets the word for the error. */
static int run(const struct scenario *s, struct fault *f, char *kind, size_t size, char *what)
{
	oocbake_job *job;
	int rc = 0;

	f->io_count = 0;
	ob_alloc_fail_at(f->alloc, f->alloc_sticky);
	job = oocbake_job_new();
	if (!job) {
		ob_alloc_fail_at(0, false);
		snprintf(kind, size, "%s", ob_code_name(OB_NOMEM));
		return OOCBAKE_FAILED;
	}
	job->wrap_io = wrap;
	job->wrap_user = f;
	job->memory = ob_rss_now() + MEMORY;
	job->batch_bytes = 1;
	job->resume = f->resume;
	for (unsigned i = 0; s->option[i][0] && !rc; i++) {
		const char *v = s->option[i][1];

		rc = oocbake_job_set(job, s->option[i][0], v && *v == '@' ? in_dir(v + 1) : v);
	}
	if (!rc)
		rc = oocbake_job_set(job, "output", output_of(s));
	if (!rc)
		rc = (s->is & VERIFIES ? oocbake_verify : oocbake_run)(job, NULL, NULL);
	if (!rc && !oocbake_report(job, "html"))
		rc = NO_REPORT;
	ob_alloc_fail_at(0, false);
	snprintf(kind, size, "%s", oocbake_error_kind(job));
	snprintf(what, 1024, "%s", oocbake_error(job));
	oocbake_job_free(job);
	return rc;
}

/* ---- what a run leaves --------------------------------------------------------------------- */

struct traces {
	uint64_t inputs, out; /* hashes; out: of the folder around the output */
	uint64_t in_use;
	unsigned descriptors;
};

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static struct traces look(void)
{
	struct traces t = { .in_use = ob_alloc_stats().in_use, .descriptors = count_descriptors() };

	t.inputs = toy_hash(in_dir("model")) + toy_hash(in_dir("lora")) +
		   toy_hash(in_dir("quantized")) + toy_hash(in_dir("single.safetensors"));
	t.out = toy_hash(in_dir("out"));
	return t;
}

static void compare(const struct traces *was, const struct traces *is, const char *what)
{
	CHECK(is->inputs == was->inputs, "%s: an input changed", what);
	CHECK(is->in_use == was->in_use, "%s: %lld bytes leak", what,
	      (long long)(is->in_use - was->in_use));
	CHECK(is->descriptors == was->descriptors, "%s: %d descriptors leak", what,
	      (int)(is->descriptors - was->descriptors));
}

/* ---- sweeps -------------------------------------------------------------------------------- */

static unsigned faults, resumed;

struct sweep {
	const struct scenario *s;
	struct traces before; /* with the old output, if the scenario has one */
	uint64_t good;	      /* hash of the folder around the output after a good run */
};

static void copy(const char *from, const char *to)
{
	char command[1200];

	toy_remove(in_dir(to));
	snprintf(command, sizeof(command), "cp -a '%s' '%s'", in_dir(from), in_dir(to));
	CHECK(system(command) == 0, "%s", command);
}

/* Puts things back as they were before the run. */
static void reset(const struct sweep *w)
{
	if (w->s->is & VERIFIES)
		return;
	toy_remove(output_of(w->s));
	if (w->s->is & RESUMES)
		copy("kept", "out/.out.oocbake");
	if (w->s->is & HAS_OLD)
		toy_text(in_dir("out"), "out", "an old output\n");
}

static void expect_good(const struct sweep *w, struct fault *f, const char *what)
{
	char kind[32], message[1024];
	struct traces now;
	int rc = run(w->s, f, kind, sizeof(kind), message);

	CHECK(rc == 0, "%s: %s", what, message);
	now = look();
	compare(&w->before, &now, what);
	CHECK(now.out == w->good, "%s: the output is another", what);
	reset(w);
}

/* What a failed run left is of use or gone. */
static void resume(const struct sweep *w, const struct traces *left, const char *message,
		   const char *what)
{
	struct fault none = { .io.ops_mask = 0, .resume = true };
	bool is_kept = left->out != w->before.out;

	/* Before it has looked a run does not say what there is. */
	if (!(w->s->is & RESUMES)) {
		CHECK(is_kept == (strstr(message, "--resume") != NULL), "%s: %s", what, message);
		if (!is_kept)
			return;
	}
	resumed++;
	expect_good(w, &none, what);
}

/* A run with a fault that no retry mends. */
static void expect_failure(const struct sweep *w, struct fault *f, enum ob_code code,
			   const char *what)
{
	char kind[32], message[1024];
	struct traces now;
	int rc = run(w->s, f, kind, sizeof(kind), message);

	faults++;
	now = look();
	compare(&w->before, &now, what);
	if (rc == 0 || rc == NO_REPORT) {
		/* How many batches the journal takes is a matter of time. */
		bool came = rc == NO_REPORT || f->io_count >= f->io.nth;

		CHECK(rc == NO_REPORT || !came, "%s: the fault was hidden", what);
		CHECK(now.out == w->good, "%s: the output is another", what);
		CHECK(!came || !strcmp(kind, ob_code_name(code)), "%s: %s", what, message);
		reset(w);
		return;
	}
	CHECK(rc == ob_exit_status(code) && !strcmp(kind, ob_code_name(code)), "%s: %d, %s: %s",
	      what, rc, kind, message);
	CHECK(code == OB_NOMEM || *message, "%s: no message", what);
	resume(w, &now, message, what);
}

static const struct {
	const char *name;
	int error;
	uint32_t shorten;
	unsigned delay_ms;
	enum ob_code code;
} kinds[] = {
	{ "EIO", EIO, 0, 0, OB_IO },	     { "ENOSPC", ENOSPC, 0, 0, OB_NOSPC },
	{ "one byte less", 0, 1, 0, OB_OK }, { "half", 0, 30000, 0, OB_OK },
	{ "late", 0, 0, 3, OB_OK },
};

/* What is there before each run has to be copied. */
static unsigned step_of(const struct sweep *w)
{
	return w->s->is & RESUMES && !getenv("OOCBAKE_SOAK") ? 3 * STEP : STEP;
}

static void sweep_io(const struct sweep *w)
{
	struct fault none = { .io.ops_mask = ~0u };
	char what[128];
	uint64_t n;

	expect_good(w, &none, w->s->name);
	n = none.io_count;
	CHECK(n >= 3, "%s: only %llu operations", w->s->name, (unsigned long long)n);
	for (unsigned k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
		for (uint64_t nth = 1; nth <= n; nth += step_of(w))
			for (int sticky = 0; sticky <= 1; sticky++) {
				struct fault f = { .io = { .nth = nth,
							   .sticky = sticky,
							   .ops_mask = ~0u,
							   .error = kinds[k].error,
							   .shorten = kinds[k].shorten,
							   .delay_ms = kinds[k].delay_ms } };

				snprintf(what, sizeof(what), "%s, operation %llu%s: %s", w->s->name,
					 (unsigned long long)nth, sticky ? " and all after it" : "",
					 kinds[k].name);
				if (kinds[k].code) {
					expect_failure(w, &f, kinds[k].code, what);
					continue;
				}
				faults++;
				expect_good(w, &f, what);
			}
	expect_good(w, &none, w->s->name);
}

static void sweep_allocations(const struct sweep *w)
{
	struct fault none = { .io.ops_mask = 0 };
	uint64_t calls = ob_alloc_stats().calls, n;
	char what[128];

	expect_good(w, &none, w->s->name);
	n = ob_alloc_stats().calls - calls;
	for (uint64_t nth = 1; nth <= n; nth += step_of(w))
		for (int sticky = 0; sticky <= 1; sticky++) {
			struct fault f = { .alloc = nth, .alloc_sticky = sticky };

			snprintf(what, sizeof(what), "%s, allocation %llu of %llu%s", w->s->name,
				 (unsigned long long)nth, (unsigned long long)n,
				 sticky ? " and all after it" : "");
			expect_failure(w, &f, OB_NOMEM, what);
		}
	expect_good(w, &none, w->s->name);
}

/* Leaves what a run does that cannot write its last tile. */
static void make_part(const struct scenario *s)
{
	struct fault broken = { .io = { .nth = 1, .sticky = true, .ops_mask = ~0u } };
	char kind[32], message[1024];

	CHECK(!run(s, &broken, kind, sizeof(kind), message), "%s", message);
	toy_remove(output_of(s));
	broken.io.error = EIO;
	for (broken.io.nth = broken.io_count; broken.io.nth; broken.io.nth--)
		if (run(s, &broken, kind, sizeof(kind), message) && strstr(message, "--resume"))
			break;
		else
			toy_remove(output_of(s));
	CHECK(broken.io.nth, "no run could be resumed");
	copy("out/.out.oocbake", "kept");
}

static void sweep(const struct scenario *s)
{
	struct sweep w = { .s = s };
	struct fault none = { .io.ops_mask = 0 };
	char kind[32], message[1024];
	unsigned before = faults;
	double start = ob_now();

	if (s->is & RESUMES)
		make_part(s);
	reset(&w);
	if (s->is & VERIFIES) {
		struct scenario bake = *s;

		bake.is = 0;
		CHECK(!run(&bake, &none, kind, sizeof(kind), message), "%s", message);
	}
	w.before = look();
	CHECK(!run(s, &none, kind, sizeof(kind), message), "%s: %s", s->name, message);
	w.good = look().out;
	reset(&w);
	CHECK(look().out == w.before.out, "%s", s->name);
	sweep_io(&w);
	sweep_allocations(&w);
	toy_remove(output_of(s));
	toy_remove(in_dir("out/.out.oocbake"));
	printf("%-12s %u faults in %.1f s\n", s->name, faults - before, ob_now() - start);
	fflush(stdout);
}

/* ---- inputs -------------------------------------------------------------------------------- */

static void make_inputs(void)
{
	static const struct toy_tensor t[] = {
		{ "a.weight", OB_BF16, 101, 199 },
		{ "b.weight", OB_F32, 0, 40001 },
	};
	const struct scenario quantize = {
		"quantize", { { "model", "@model" }, { "bits", "8" }, { "q-group-size", "64" } }, 0
	};
	struct fault none = { .io.ops_mask = 0 };
	char kind[32], message[1024], path[512];

	toy_dir(dir, sizeof(dir));
	toy_model(in_dir("model"));
	toy_lora(in_dir("lora"));
	toy_safetensors(dir, "single.safetensors", t, 2);
	snprintf(path, sizeof(path), "%s", in_dir("out"));
	CHECK(!mkdir(path, 0700), "%s", path);
	CHECK(!run(&quantize, &none, kind, sizeof(kind), message), "%s", message);
	CHECK(!rename(output_of(&quantize), in_dir("quantized")), "quantized");
}

int main(void)
{
	double start = ob_now();
	ob_err e = { 0 };

	/* Once for the process, and not a part of any run. */
	CHECK(!ob_gemm_init(&e), "%s", e.msg);
	make_inputs();
	for (size_t i = 0; i < N_SCENARIOS; i++)
		sweep(&scenarios[i]);
	CHECK(ob_alloc_sealed_calls() == 0, "%llu allocations while data moves",
	      (unsigned long long)ob_alloc_sealed_calls());
	toy_remove(dir);
	printf("fault floor: %u faults, %u resumed runs, %.1f s\n", faults, resumed,
	       ob_now() - start);
	return 0;
}
