/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault floor: every I/O operation, every other system call and every allocation of whole runs
 * fails in turn, alone and with all after it. Each time the error must be the right one, inputs and an
 * old output must be untouched, no memory or descriptor may leak, what is left behind must be announced,
 * and the run that resumes must give the right bytes and leave nothing.
 *
 * With OOCBAKE_SOAK set every one of them in every way; else each in some of them.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/calls.h"
#include "../support/check.h"
#include "../support/toy.h"
#include "base/util.h"
#include "kernels/gemm.h"
#include "lib/job.h"

#define PATIENCE 60 /* seconds for a run; one that tries again for ever is shot */

/* Instrumented builds look for other defects, and are slow. */
#ifdef OB_INSTRUMENTED
#define SHARE 61
#define SLACK (8u << 20) /* what a process holds varies from run to run */
#else
#define SHARE 14
#define SLACK (1u << 20)
#endif

static char dir[256];

enum { BAKE, VERIFY, PLAN, INSPECT };
enum {
	REPLACES_FILE = 1,
	REPLACES_FOLDER = 2,
	RESUMES = 4,	/* a part of one */
	OLD_SYSTEM = 8, /* see struct calls */
	FEW_FILES = 16, /* may be open */
	TO_FILE = 32,
};

struct scenario {
	const char *name;
	const char *option[8][2]; /* paths begin with "@": inside the folder of this program */
	int action;
	unsigned is;
};

#define MERGE                   \
	{ "model", "@model" },  \
	{                       \
		"lora", "@lora" \
	}

static const struct scenario scenarios[] = {
	{ "copy", { { "model", "@model" } }, .is = 0 },
	{ "merge", { MERGE, { "io", "threads" } }, .is = 0 },
	{ "quantize",
	  { { "model", "@model" }, { "bits", "4" }, { "q-group-size", "32" }, { "io", "sync" } },
	  .is = 0 },
	{ "dequantize",
	  { { "model", "@quantized" }, { "quant", "none" }, { "dtype", "f16" } },
	  .is = 0 },
	{ "requantize",
	  { { "model", "@quantized" }, { "lora", "@lora:0.5" }, { "max-shard-size", "60kB" } },
	  .is = 0 },
	{ "one file",
	  { { "model", "@one.safetensors" }, { "lora", "@lora" }, { "dtype", "f16" } },
	  .is = TO_FILE },
	{ "few files",
	  { MERGE, { "dtype", "f32" }, { "max-shard-size", "40kB" }, { "io", "sync" } },
	  .is = FEW_FILES },
	{ "replace", { MERGE, { "quant", "mlx:8" }, { "force", NULL } }, .is = REPLACES_FILE },
	{ "old system",
	  { MERGE, { "force", NULL }, { "io", "threads" } },
	  .is = REPLACES_FOLDER | OLD_SYSTEM },
	{ "read back",
	  { MERGE, { "bits", "8" }, { "verify", "full" }, { "io", "sync" } },
	  .is = 0 },
	{ "resume", { MERGE, { "resume", NULL } }, .is = RESUMES },
	{ "verify", { MERGE }, .action = VERIFY },
	{ "sample", { MERGE, { "depth", "sample" }, { "io", "sync" } }, .action = VERIFY },
	{ "plan", { MERGE, { "bits", "4" } }, .action = PLAN },
	{ "inspect", { { "model", "@quantized" } }, .action = INSPECT },
	{ "inspect lora", { { "model", "@lora" } }, .action = INSPECT },
};
#define N_SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

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
	return in_dir(s->is & TO_FILE ? "out/out.safetensors" : "out/out");
}

static const char *staging_of(const struct scenario *s)
{
	return in_dir(s->is & TO_FILE ? "out/.out.safetensors.oocbake" : "out/.out.oocbake");
}

/* ---- one run ------------------------------------------------------------------------------- */

struct fault {
	struct ob_fault io;
	uint64_t io_count; /* operations so far */
	struct calls calls;
	uint64_t alloc; /* number of the allocation that fails, 0: none */
	bool alloc_sticky;
	bool resume;
};

struct outcome {
	int status;
	char kind[32], message[1024];
	uint64_t text; /* hash of what is shown */
};

#define NO_REPORT 100 /* the run went well, the report did not */

static char now_testing[160] = "start";

static void shoot(int sig)
{
	(void)sig;
	fprintf(stderr, "%s: no end after %d seconds\n", now_testing, PATIENCE);
	abort();
}

static int wrap(void *user, struct ob_io **io, ob_err *e)
{
	struct fault *f = user;

	return ob_io_open_fault(io, *io, &f->io, &f->io_count, e);
}

static int act(const struct scenario *s, oocbake_job *job, uint64_t *shown)
{
	const char *text = NULL;
	int rc;

	switch (s->action) {
	case BAKE:
		rc = oocbake_run(job, NULL, NULL);
		break;
	case VERIFY:
		rc = oocbake_verify(job, NULL, NULL);
		break;
	case PLAN:
		rc = oocbake_plan(job);
		break;
	default:
		rc = oocbake_inspect(job, job->model_path, "json", &text);
		*shown = rc ? 0 : ob_hash64(text, strlen(text), 0);
		return rc;
	}
	return rc ? rc : oocbake_report(job, "html") ? 0 : NO_REPORT;
}

/* What the scenario takes beyond what the process holds: as few slots as do, since thousands of runs
 * fault them in. */
static uint64_t room;

static int set_up(const struct scenario *s, const struct fault *f, uint64_t memory,
		  oocbake_job *job)
{
	int rc = oocbake_job_set(job, "output", output_of(s));

	job->wrap_io = wrap;
	job->wrap_user = (void *)(uintptr_t)f;
	job->memory = memory;
	job->batch_bytes = 1;
	job->resume = f->resume;
	for (unsigned i = 0; s->option[i][0] && !rc; i++) {
		const char *v = s->option[i][1];

		rc = oocbake_job_set(job, s->option[i][0], v && *v == '@' ? in_dir(v + 1) : v);
	}
	return rc;
}

static void begin(const struct scenario *s, struct fault *f)
{
	const struct rlimit few = { 26, 4096 };

	if (s->is & FEW_FILES)
		CHECK(!setrlimit(RLIMIT_NOFILE, &few), "setrlimit");
	alarm(PATIENCE);
	f->io_count = 0;
	f->calls.is_old = s->is & OLD_SYSTEM;
	f->calls.count = 0;
	f->calls.first = NULL;
	ob_alloc_fail_at(f->alloc, f->alloc_sticky);
	calls_rule(&f->calls);
}

static void end(const struct scenario *s)
{
	const struct rlimit many = { 4096, 4096 };

	calls_rule(NULL);
	ob_alloc_fail_at(0, false);
	alarm(0);
	if (s->is & FEW_FILES)
		CHECK(!setrlimit(RLIMIT_NOFILE, &many), "setrlimit");
}

static void find_room(const struct scenario *s)
{
	struct fault none = { 0 };
	oocbake_job *job = oocbake_job_new();

	CHECK(job && !set_up(s, &none, ob_rss_now(), job), "%s", s->name);
	CHECK(s->action == INSPECT || ob_job_prepare(job, s->action == VERIFY, &job->err), "%s",
	      s->name);
	if (s->action != INSPECT)
		room = job->budget.minimum - ob_rss_now() + SLACK;
	oocbake_job_free(job);
}

static struct outcome run(const struct scenario *s, struct fault *f)
{
	const uint64_t memory = ob_rss_now() + room;
	struct outcome o = { 0 };
	oocbake_job *job;

	begin(s, f);
	job = oocbake_job_new();
	if (job) {
		o.status = set_up(s, f, memory, job);
		if (!o.status)
			o.status = act(s, job, &o.text);
		snprintf(o.kind, sizeof(o.kind), "%s", oocbake_error_kind(job));
		snprintf(o.message, sizeof(o.message), "%s", oocbake_error(job));
		oocbake_job_free(job);
	} else {
		o.status = OOCBAKE_FAILED;
		snprintf(o.kind, sizeof(o.kind), "%s", ob_code_name(OB_NOMEM));
	}
	end(s);
	return o;
}

/* ---- what a run leaves --------------------------------------------------------------------- */

struct traces {
	uint64_t inputs, around, output; /* hashes; around: of the folder that holds the output */
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

static struct traces look(const struct scenario *s)
{
	struct traces t = { .in_use = ob_alloc_stats().in_use, .descriptors = count_descriptors() };

	t.inputs = toy_hash(in_dir("model")) + toy_hash(in_dir("lora")) +
		   toy_hash(in_dir("quantized")) + toy_hash(in_dir("one.safetensors"));
	t.around = toy_hash(in_dir("out"));
	t.output = toy_hash(output_of(s));
	return t;
}

static void compare(const struct traces *was, const struct traces *is)
{
	CHECK(is->inputs == was->inputs, "%s: an input changed", now_testing);
	CHECK(is->in_use == was->in_use, "%s: %lld bytes leak", now_testing,
	      (long long)(is->in_use - was->in_use));
	CHECK(is->descriptors == was->descriptors, "%s: %d descriptors leak", now_testing,
	      (int)(is->descriptors - was->descriptors));
}

/* ---- expectations -------------------------------------------------------------------------- */

static unsigned n_io, n_calls, n_allocations, n_resumed, n_survived;

struct sweep {
	const struct scenario *s;
	struct traces before; /* with what is there before a run */
	struct traces good;   /* after a good run */
	uint64_t text;	      /* that it showed */
};

static void copy(const char *from, const char *to)
{
	char command[1200];

	toy_remove(to);
	snprintf(command, sizeof(command), "cp -a '%s' '%s'", from, to);
	CHECK(system(command) == 0, "%s", command);
}

/* Puts things back as they were before the run. */
static void reset(const struct scenario *s)
{
	const char *out = output_of(s);

	if (s->action != BAKE)
		return;
	toy_remove(out);
	toy_remove(staging_of(s));
	if (s->is & RESUMES && !access(in_dir("kept"), F_OK))
		copy(in_dir("kept"), staging_of(s));
	if (s->is & REPLACES_FILE)
		toy_text(in_dir("out"), "out", "an old output\n");
	if (s->is & REPLACES_FOLDER) {
		CHECK(!mkdir(out, 0700), "%s", out);
		toy_text(out, "old.safetensors", "an old output\n");
	}
}

static void check_good(const struct sweep *w, const struct outcome *o)
{
	struct traces now = look(w->s);

	CHECK(o->status == 0, "%s: %s", now_testing, o->message);
	compare(&w->before, &now);
	CHECK(now.around == w->good.around, "%s: the output is another", now_testing);
	CHECK(o->text == w->text, "%s: other words", now_testing);
	reset(w->s);
}

static void expect_good(const struct sweep *w, struct fault *f)
{
	struct outcome o = run(w->s, f);

	check_good(w, &o);
}

static void resume(const struct sweep *w)
{
	struct fault none = { .resume = true };

	n_resumed++;
	expect_good(w, &none);
}

/* What a failed run left is of use or gone. */
static void check_left(const struct sweep *w, const struct traces *left, const char *message)
{
	bool is_kept = left->around != w->before.around;

	/* Before it has looked a run does not say what there is. */
	if (!(w->s->is & RESUMES)) {
		CHECK(is_kept == (strstr(message, "--resume") != NULL), "%s: %s", now_testing,
		      message);
		if (!is_kept)
			return;
	}
	resume(w);
}

/* A run with a fault of an operation or an allocation that no retry mends. `other`: what it is called
 * when another file is hit, or OB_OK. */
static void expect_failure(const struct sweep *w, struct fault *f, enum ob_code code,
			   enum ob_code other)
{
	struct outcome o = run(w->s, f);
	struct traces now = look(w->s);

	compare(&w->before, &now);
	if (o.status == 0 || o.status == NO_REPORT) {
		/* How many batches the journal takes is a matter of time. */
		bool came = o.status == NO_REPORT || f->io_count >= f->io.nth;

		CHECK(o.status == NO_REPORT || !came, "%s: the fault was hidden", now_testing);
		CHECK(now.around == w->good.around, "%s: the output is another", now_testing);
		CHECK(!came || !strcmp(o.kind, ob_code_name(code)), "%s: %s", now_testing,
		      o.message);
		reset(w->s);
		return;
	}
	if (other && !strcmp(o.kind, ob_code_name(other)))
		code = other;
	CHECK(o.status == ob_exit_status(code) && !strcmp(o.kind, ob_code_name(code)),
	      "%s: %d, %s: %s", now_testing, o.status, o.kind, o.message);
	CHECK(code == OB_NOMEM || *o.message, "%s: no message", now_testing);
	check_left(w, &now, o.message);
}

static bool is_one_of(const char *name, const char *const *list)
{
	while (*list && strcmp(*list, name))
		list++;
	return *list;
}

static bool is_transient(int error)
{
	return error == EINTR || error == EAGAIN || error == ECANCELED;
}

/* No run goes well in which one of these failed. */
static bool is_vital(const struct calls *c)
{
	static const char *const vital[] = { "fsync",	"fdatasync", "fallocate",
					     "mkdirat", "renameat2", NULL };

	return c->first && !is_transient(c->error) && is_one_of(c->first, vital);
}

/* The status of a run that could not do without it. */
static bool is_right(const struct calls *c, int status)
{
	/* Only another run says so for long. */
	if (is_transient(c->error) && !strcmp(c->first, "flock") && status == OOCBAKE_EXISTS)
		return true;
	/* A read that never comes to its last byte is one of a file that is too short. */
	if (c->is_short && status == OOCBAKE_VERIFY)
		return true;
	return status == OOCBAKE_FAILED;
}

/* A run with a system call that failed gives the right bytes, or an error and no output. Only what it
 * can neither remove nor name for that reason may stay, until the next run. */
static void expect_either(const struct sweep *w, struct fault *f)
{
	struct outcome o = run(w->s, f);
	struct traces now = look(w->s);
	const char *call = f->calls.first;

	compare(&w->before, &now);
	if (o.status == 0) {
		CHECK(!is_vital(&f->calls), "%s: %s was hidden", now_testing, call);
		CHECK(now.output == w->good.output, "%s: the output is another after %s",
		      now_testing, call);
		CHECK(o.text == w->text, "%s: other words after %s", now_testing, call);
		n_survived += call != NULL;
		reset(w->s);
		return;
	}
	CHECK(call && is_right(&f->calls, o.status) && *o.message, "%s: %s fails: %d, %s: %s",
	      now_testing, call, o.status, o.kind, o.message);
	if (now.output == w->good.output && now.output != w->before.output) {
		CHECK(strstr(o.message, "is complete"), "%s: %s", now_testing, o.message);
		reset(w->s);
		return;
	}
	CHECK(now.output == w->before.output ||
		      (w->s->is & OLD_SYSTEM && !now.output && strstr(o.message, "/old")),
	      "%s: %s fails, and there is an output: %s", now_testing, call, o.message);
	const bool is_left = now.around != w->before.around || w->s->is & RESUMES;

	CHECK(is_left || !strstr(o.message, "--resume"), "%s: %s", now_testing, o.message);
	if (is_left)
		resume(w);
}

/* ---- sweeps -------------------------------------------------------------------------------- */

#define READS (1u << OB_IO_READ)
#define WRITES (1u << OB_IO_WRITE)

static const struct {
	const char *name;
	unsigned ops;
	int error;
	uint32_t shorten;
	unsigned delay_ms;
	bool empty;
	enum ob_code code, other; /* OB_OK: no error but a sticky one, which is `other` */
} kinds[] = {
	{ "EIO", ~0u, EIO, .code = OB_IO },
	{ "ENOSPC", ~0u, ENOSPC, .code = OB_NOSPC },
	{ "EDQUOT", ~0u, EDQUOT, .code = OB_NOSPC },
	{ "EROFS", ~0u, EROFS, .code = OB_IO },
	{ "EINTR", ~0u, EINTR, .other = OB_IO },
	{ "EAGAIN", ~0u, EAGAIN, .other = OB_IO },
	{ "ECANCELED", ~0u, ECANCELED, .other = OB_IO },
	{ "one byte less", READS | WRITES, .shorten = 1 },
	{ "half", READS | WRITES, .shorten = 30000 },
	{ "nothing written", WRITES, .empty = true, .code = OB_IO },
	{ "nothing read", READS, .empty = true, .code = OB_CHANGED, .other = OB_VERIFY },
	{ "late", ~0u, .delay_ms = 3 },
};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

/* One in so many ways to fail is tried; with at most 14, what kinds there are for all calls, alone and with all
 * after it, each call fails in one of them. Operations are fewer. */
static unsigned share, share_io;

static bool is_due(unsigned of, unsigned kind, uint64_t nth, bool sticky)
{
	return (nth + 2 * kind + sticky) % of == 0;
}

static void say(const struct sweep *w, const char *what, uint64_t nth, bool sticky, const char *how)
{
	snprintf(now_testing, sizeof(now_testing), "%s, %s %llu%s: %s", w->s->name, what,
		 (unsigned long long)nth, sticky ? " and all after it" : "", how);
}

static void fault_io(const struct sweep *w, unsigned k, uint64_t nth, bool sticky)
{
	struct fault f = { .io = { .nth = nth,
				   .sticky = sticky,
				   .ops_mask = kinds[k].ops,
				   .error = kinds[k].error,
				   .shorten = kinds[k].shorten,
				   .empty = kinds[k].empty,
				   .delay_ms = kinds[k].delay_ms } };

	say(w, "operation", nth, sticky, kinds[k].name);
	n_io++;
	if (kinds[k].code)
		expect_failure(w, &f, kinds[k].code, kinds[k].other);
	else if (sticky && kinds[k].other)
		expect_failure(w, &f, kinds[k].other, OB_OK);
	else
		expect_good(w, &f);
}

static void sweep_io(const struct sweep *w)
{
	struct fault all = { .io.ops_mask = ~0u };

	if (w->s->action == PLAN || w->s->action == INSPECT)
		return;
	expect_good(w, &all);
	CHECK(all.io_count >= 3, "%s: only %llu operations", w->s->name,
	      (unsigned long long)all.io_count);
	for (unsigned k = 0; k < N_KINDS; k++) {
		struct fault some = { .io.ops_mask = kinds[k].ops };

		expect_good(w, &some);
		for (uint64_t i = 0; i < 2 * some.io_count; i++)
			if (is_due(share_io, k, 1 + i / 2, i % 2))
				fault_io(w, k, 1 + i / 2, i % 2);
	}
	expect_good(w, &all);
}

static void fault_call(const struct sweep *w, unsigned k, uint64_t nth, bool sticky)
{
	const uint64_t in_a_row = is_transient(kinds[k].error) ? 3 : 1;
	struct fault f = { .calls = { .nth = nth,
				      .n = sticky ? UINT64_MAX : in_a_row,
				      .error = kinds[k].error,
				      .is_short = !kinds[k].error,
				      .less = kinds[k].empty ? UINT32_MAX : kinds[k].shorten } };

	say(w, kinds[k].error ? "call" : "transfer", nth, sticky, kinds[k].name);
	n_calls++;
	expect_either(w, &f);
}

static void sweep_calls(const struct sweep *w)
{
	for (unsigned k = 0; k < N_KINDS; k++) {
		struct fault count = { .calls.is_short = !kinds[k].error };

		if (kinds[k].delay_ms || (kinds[k].empty && kinds[k].ops == READS))
			continue;
		expect_good(w, &count);
		for (uint64_t i = 0; i < 2 * count.calls.count; i++)
			if (is_due(share, k, 1 + i / 2, i % 2))
				fault_call(w, k, 1 + i / 2, i % 2);
	}
}

static void sweep_allocations(const struct sweep *w)
{
	struct fault none = { .io.ops_mask = 0 };
	uint64_t calls = ob_alloc_stats().calls, n;

	expect_good(w, &none);
	n = ob_alloc_stats().calls - calls;
	for (uint64_t i = 0; i < 2 * n; i++) {
		struct fault f = { .alloc = 1 + i / 2, .alloc_sticky = i % 2 };

		if (share > 1 && (i / 2 + i % 2) % 2)
			continue; /* the one or the other */
		say(w, "allocation", f.alloc, f.alloc_sticky, "no memory");
		n_allocations++;
		expect_failure(w, &f, OB_NOMEM, OB_OK);
	}
	expect_good(w, &none);
}

/* Leaves what a run does that cannot write its last tile. */
static void make_part(const struct scenario *s)
{
	struct fault broken = { .io = { .nth = 1, .sticky = true, .ops_mask = ~0u } };
	struct outcome o = run(s, &broken);

	CHECK(!o.status, "%s", o.message);
	toy_remove(output_of(s));
	broken.io.error = EIO;
	for (broken.io.nth = broken.io_count; broken.io.nth; broken.io.nth--) {
		o = run(s, &broken);
		if (o.status && strstr(o.message, "--resume"))
			break;
		toy_remove(output_of(s));
	}
	CHECK(broken.io.nth, "no run could be resumed");
	copy(staging_of(s), in_dir("kept"));
}

static void sweep(const struct scenario *s)
{
	unsigned io = n_io, calls = n_calls, allocations = n_allocations;
	struct sweep w = { .s = s };
	struct fault none = { .io.ops_mask = 0 };
	struct outcome o;
	double start = ob_now();

	snprintf(now_testing, sizeof(now_testing), "%s", s->name);
	reset(s);
	find_room(s);
	if (s->is & RESUMES)
		make_part(s);
	reset(s);
	if (s->action == VERIFY) {
		o = run(&scenarios[1], &none);
		CHECK(!o.status, "%s", o.message);
	}
	w.before = look(s);
	o = run(s, &none);
	CHECK(!o.status, "%s: %s", s->name, o.message);
	w.good = look(s);
	w.text = o.text;
	reset(s);
	CHECK(look(s).around == w.before.around, "%s", s->name);
	sweep_io(&w);
	sweep_calls(&w);
	sweep_allocations(&w);
	toy_remove(output_of(s));
	toy_remove(staging_of(s));
	printf("%-12s %u operations, %u calls, %u allocations in %.1f s\n", s->name, n_io - io,
	       n_calls - calls, n_allocations - allocations, ob_now() - start);
	fflush(stdout);
}

/* ---- inputs -------------------------------------------------------------------------------- */

static void make_inputs(void)
{
	static const struct toy_tensor t[] = {
		{ "model.layers.0.self_attn.q_proj.weight", OB_BF16, 192, 192 },
		{ "model.layers.0.mlp.up_proj.weight", OB_F32, 256, 192 },
		{ "model.layers.0.mlp.down_proj.weight", OB_F16, 192, 256 },
		{ "model.norm.weight", OB_F32, 0, 40001 },
	};
	const struct scenario quantize = {
		"inputs",
		{ { "model", "@model" }, { "bits", "8" }, { "q-group-size", "64" } },
		.is = 0
	};
	struct fault none = { .io.ops_mask = 0 };
	struct outcome o;

	toy_dir(dir, sizeof(dir));
	toy_model(in_dir("model"));
	toy_lora(in_dir("lora"));
	toy_safetensors(dir, "one.safetensors", t, 4);
	CHECK(!mkdir(in_dir("out"), 0700), "out");
	find_room(&quantize);
	o = run(&quantize, &none);
	CHECK(!o.status, "%s", o.message);
	CHECK(!rename(output_of(&quantize), in_dir("quantized")), "quantized");
}

/* Of the scenarios, those whose names are given; none: all. */
int main(int argc, char **argv)
{
	double start = ob_now();
	ob_err e = { 0 };

	share = getenv("OOCBAKE_SOAK") ? 1 : SHARE;
	share_io = (share + 1) / 2;
	signal(SIGALRM, shoot);
	/* Once for the process, and not a part of any run. */
	CHECK(!ob_gemm_init(&e), "%s", e.msg);
	make_inputs();
	for (size_t i = 0; i < N_SCENARIOS; i++)
		if (argc < 2 || is_one_of(scenarios[i].name, (const char *const *)argv + 1))
			sweep(&scenarios[i]);
	CHECK(ob_alloc_sealed_calls() == 0, "%llu allocations while data moves",
	      (unsigned long long)ob_alloc_sealed_calls());
	toy_remove(dir);
	printf("fault floor: %u operations, %u system calls (%u survived), %u allocations; "
	       "%u resumed runs; %.1f s\n",
	       n_io, n_calls, n_survived, n_allocations, n_resumed, ob_now() - start);
	return 0;
}
