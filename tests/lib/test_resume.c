/* SPDX-License-Identifier: Apache-2.0 */
/* What a run that is resumed accepts, refuses and says; and the read-back before an output gets its name. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/toy.h"
#include "lib/job.h"

static char dir[256];
static oocbake_job *job;

static const char *in_dir(const char *name)
{
	static char path[8][512];
	static unsigned turn;
	char *s = path[turn++ % 8];

	snprintf(s, sizeof(path[0]), "%s/%s", dir, name);
	return s;
}

static void init(void)
{
	toy_dir(dir, sizeof(dir));
	toy_model(in_dir("model"));
	toy_lora(in_dir("lora"));
	cr_assert_eq(mkdir(in_dir("out"), 0700), 0);
}

static void fini(void)
{
	oocbake_job_free(job);
	toy_remove(dir);
}

TestSuite(resume, .init = init, .fini = fini, .timeout = 60);

static void set(const char *name, const char *value)
{
	cr_assert_eq(oocbake_job_set(job, name, value), 0, "%s", oocbake_error(job));
}

static void begin(bool resume)
{
	oocbake_job_free(job);
	job = oocbake_job_new();
	job->batch_bytes = 1;
	set("model", in_dir("model"));
	set("lora", in_dir("lora"));
	set("output", in_dir("out/out"));
	set("io", "sync");
	set("threads", "1");
	set("resume", resume ? "1" : "0");
}

struct broken {
	uint64_t nth;
	int error;
};

static int break_writes(void *user, struct ob_io **io, ob_err *e)
{
	const struct broken *b = user;
	const struct ob_fault f = {
		.nth = b->nth, .sticky = true, .ops_mask = 1u << OB_IO_WRITE, .error = b->error
	};

	return ob_io_open_fault(io, *io, &f, NULL, e);
}

/* Leaves as much of the output as a failed run can. */
static void run_into(int error)
{
	struct broken b = { 60, error };

	for (;; b.nth--) {
		begin(false);
		job->wrap_io = break_writes;
		job->wrap_user = &b;
		if (oocbake_run(job, NULL, NULL) == OOCBAKE_FAILED)
			break;
		toy_remove(in_dir("out/out"));
	}
	cr_assert(strstr(oocbake_error(job), "--resume"), "%s", oocbake_error(job));
	cr_assert(strstr(oocbake_error(job), "/out/.out.oocbake"), "%s", oocbake_error(job));
	cr_assert_neq(toy_hash(in_dir("out/.out.oocbake")), 0);
}

static uint64_t undisturbed(void)
{
	uint64_t hash;

	begin(false);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	hash = toy_hash(in_dir("out"));
	toy_remove(in_dir("out/out"));
	return hash;
}

static bool has_note(const char *words)
{
	for (unsigned i = 0; oocbake_note(job, i); i++)
		if (strstr(oocbake_note(job, i), words))
			return true;
	return false;
}

/* ---- going on ------------------------------------------------------------------------------ */

Test(resume, goes_on_after_errors_that_pass)
{
	static const int errors[] = { EIO, ENOSPC, EDQUOT, EFBIG };
	uint64_t good = undisturbed();

	for (unsigned i = 0; i < 4; i++) {
		run_into(errors[i]);
		begin(true);
		cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
		cr_assert(has_note("were there from the earlier run"));
		cr_assert_eq(toy_hash(in_dir("out")), good);
		toy_remove(in_dir("out/out"));
	}
}

static int take_the_name(void *user, struct ob_io **io, ob_err *e)
{
	(void)user, (void)io, (void)e;
	return mkdir(in_dir("out/out"), 0700) || mkdir(in_dir("out/out/full"), 0700);
}

/* The texts of nested statistics have moved to their final places then. */
Test(resume, goes_on_after_everything_is_settled)
{
	uint64_t good, hash;

	begin(false);
	set("quant", "bnb-nf4,nested");
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	good = toy_hash(in_dir("out"));
	toy_remove(in_dir("out/out"));
	begin(false);
	set("quant", "bnb-nf4,nested");
	job->wrap_io = take_the_name;
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_EXISTS, "%s", oocbake_error(job));
	toy_remove(in_dir("out/out"));
	begin(true);
	set("quant", "bnb-nf4,nested");
	set("verify", "full");
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	hash = toy_hash(in_dir("out"));
	cr_assert_eq(hash, good);
}

Test(resume, the_report_is_that_of_one_run)
{
	char first[8192], *effect, *end;

	begin(false);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0);
	effect = strstr(oocbake_report(job, "json"), "\"effect\"");
	end = strstr(effect, "\"result\"");
	cr_assert(effect && end && end - effect < (long)sizeof(first));
	memcpy(first, effect, (size_t)(end - effect));
	first[end - effect] = '\0';
	toy_remove(in_dir("out/out"));
	run_into(EIO);
	begin(true);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert(strstr(oocbake_report(job, "json"), first));
}

Test(resume, without_it_an_earlier_part_is_replaced)
{
	uint64_t good = undisturbed();

	run_into(EIO);
	begin(false);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert_eq(toy_hash(in_dir("out")), good);
}

Test(resume, begins_where_nothing_is)
{
	uint64_t good = undisturbed();

	begin(true);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert(has_note("nothing to resume"));
	cr_assert_eq(toy_hash(in_dir("out")), good);
}

Test(resume, a_cancelled_run_that_wrote_nothing_leaves_nothing)
{
	uint64_t before = toy_hash(in_dir("out"));

	begin(false);
	oocbake_cancel(job);
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_FAILED);
	cr_assert_eq(toy_hash(in_dir("out")), before);
}

/* ---- what lies there ----------------------------------------------------------------------- */

static void flip(const char *path, long at)
{
	FILE *f = fopen(path, "r+b");
	int byte;

	cr_assert(f && !fseek(f, at, SEEK_SET), "%s", path);
	byte = fgetc(f);
	cr_assert(!fseek(f, at, SEEK_SET) && fputc(byte ^ 1, f) != EOF && !fclose(f), "%s", path);
}

static void expect_good(uint64_t good, const char *note)
{
	begin(true);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert(!note || has_note(note), "%s", note);
	cr_assert_eq(toy_hash(in_dir("out")), good);
	toy_remove(in_dir("out/out"));
}

#define STAGED "out/.out.oocbake/"

Test(resume, damage_is_made_good)
{
	uint64_t good = undisturbed();

	run_into(EIO);
	flip(in_dir(STAGED "out/model.safetensors"), 5000);
	expect_good(good, "damaged");
	run_into(EIO);
	flip(in_dir(STAGED "out/model.safetensors"), 3);
	expect_good(good, "were there");
	run_into(EIO);
	cr_assert_eq(truncate(in_dir(STAGED "out/model.safetensors"), 20000), 0);
	expect_good(good, "damaged");
	run_into(EIO);
	cr_assert_eq(unlink(in_dir(STAGED "out/model.safetensors")), 0);
	expect_good(good, "damaged");
	run_into(EIO);
	cr_assert_eq(unlink(in_dir(STAGED "journal")), 0);
	expect_good(good, NULL);
	run_into(EIO);
	cr_assert_eq(unlink(in_dir(STAGED "plan")), 0);
	expect_good(good, "nothing to resume");
	run_into(EIO);
	toy_remove(in_dir(STAGED "out"));
	expect_good(good, "nothing to resume");
}

Test(resume, strangers_do_not_get_into_the_output)
{
	uint64_t good = undisturbed();

	run_into(EIO);
	toy_text(in_dir(STAGED "out"), "stray.safetensors", "x");
	toy_text(in_dir(STAGED "out"), "config.json", "{}");
	cr_assert_eq(mkdir(in_dir(STAGED "out/deep"), 0700), 0);
	toy_text(in_dir(STAGED "out/deep"), "stray", "x");
	cr_assert_eq(symlink("/etc/passwd", in_dir(STAGED "out/link")), 0);
	expect_good(good, "were there");
}

Test(resume, a_file_that_has_another_name_is_not_written_to)
{
	uint64_t good = undisturbed(), theirs;
	char staged[512];

	snprintf(staged, sizeof(staged), "%s", in_dir(STAGED "out/model.safetensors"));
	run_into(EIO);
	flip(staged, 5000);
	cr_assert_eq(link(staged, in_dir("theirs")), 0);
	theirs = toy_hash(in_dir("theirs"));
	expect_good(good, NULL);
	cr_assert_eq(toy_hash(in_dir("theirs")), theirs);
	run_into(EIO);
	cr_assert_eq(unlink(staged), 0);
	cr_assert_eq(symlink(in_dir("theirs"), staged), 0);
	expect_good(good, NULL);
	cr_assert_eq(toy_hash(in_dir("theirs")), theirs);
}

/* ---- another run --------------------------------------------------------------------------- */

static void refuse(const char *words)
{
	uint64_t before = toy_hash(in_dir("out"));

	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_BAD_INPUT, "%s", oocbake_error(job));
	cr_assert_str_eq(oocbake_error_kind(job), "mismatch");
	cr_assert(strstr(oocbake_error(job), words), "%s does not say %s", oocbake_error(job),
		  words);
	cr_assert_eq(toy_hash(in_dir("out")), before, "what there was is gone");
}

Test(resume, other_options_are_refused)
{
	uint64_t good = undisturbed();

	run_into(EIO);
	begin(true);
	set("dtype", "f16");
	refuse("options");
	begin(true);
	set("lora", in_dir("lora"));
	refuse("did not read");
	set("lora", in_dir("lora"));
	expect_good(good, "were there");
}

Test(resume, fewer_inputs_are_refused)
{
	run_into(EIO);
	oocbake_job_free(job);
	job = oocbake_job_new();
	set("model", in_dir("model"));
	set("output", in_dir("out/out"));
	set("resume", NULL);
	refuse("adapter_model.safetensors, too");
}

static void edit_plan(const char *from, const char *to)
{
	char text[8192], *at;
	FILE *f = fopen(in_dir(STAGED "plan"), "r+");
	size_t n;

	cr_assert(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	at = strstr(text, from);
	cr_assert(at, "%s", text);
	rewind(f);
	cr_assert(!ftruncate(fileno(f), 0));
	fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	cr_assert(!fclose(f));
}

Test(resume, another_program_is_refused)
{
	run_into(EIO);
	edit_plan("program oocbake ", "program oocbake 99.");
	begin(true);
	refuse("oocbake 99.");
	edit_plan("program oocbake 99.", "program oocbake ");
	edit_plan("journal 1", "journal 2");
	begin(true);
	refuse("journal 2");
}

Test(resume, another_plan_file_is_refused)
{
	static const char *const garbage[] = {
		"", "\n", "x", "input size=", "plan", "program oocbake\n\n\ninput \n"
	};

	for (unsigned i = 0; i < sizeof(garbage) / sizeof(*garbage); i++) {
		run_into(EIO);
		toy_text(dir, STAGED "plan", garbage[i]);
		begin(true);
		refuse("cannot be resumed");
	}
}

#define SHARD "model/model-00002-of-00002.safetensors"

/* Gives the shard the time that it had. */
static void restore_time(const struct stat *was)
{
	const struct timespec t[] = { was->st_atim, was->st_mtim };

	cr_assert_eq(utimensat(AT_FDCWD, in_dir(SHARD), t, 0), 0);
}

Test(resume, a_changed_input_is_named)
{
	struct stat was;
	FILE *f;

	run_into(EIO);
	cr_assert_eq(stat(in_dir(SHARD), &was), 0);
	flip(in_dir(SHARD), was.st_size - 1);
	restore_time(&was);
	begin(true);
	refuse("model-00002-of-00002.safetensors has other contents");
	flip(in_dir(SHARD), was.st_size - 1);
	cr_assert_eq(utimensat(AT_FDCWD, in_dir(SHARD), NULL, 0), 0);
	begin(true);
	refuse("model-00002-of-00002.safetensors was written to");
	cr_assert_eq(rename(in_dir(SHARD), in_dir("shard")), 0);
	cr_assert_eq(link(in_dir("shard"), in_dir("keep")), 0);
	f = fopen(in_dir(SHARD), "wb");
	for (int fd = open(in_dir("shard"), O_RDONLY), n = 1; n > 0;) {
		char buf[4096];

		n = (int)read(fd, buf, sizeof(buf));
		cr_assert(n <= 0 || fwrite(buf, (size_t)n, 1, f) == 1);
	}
	cr_assert(!fclose(f));
	restore_time(&was);
	begin(true);
	refuse("model-00002-of-00002.safetensors is another file");
}

Test(resume, a_path_may_be_another)
{
	uint64_t good = undisturbed();

	run_into(EIO);
	cr_assert_eq(rename(in_dir("lora"), in_dir("moved")), 0);
	cr_assert_eq(symlink("moved", in_dir("lora")), 0);
	expect_good(good, "were there");
}

/* ---- reading back -------------------------------------------------------------------------- */

/* Writes go through; the reads of the read-back find another bit. */
struct lying {
	struct ob_io io;
	struct ob_io *inner;
	bool wrote;
};

static void lie(struct ob_io *io, struct ob_io_req *r)
{
	struct lying *l = (struct lying *)io;

	l->wrote |= r->op == OB_IO_WRITE;
	l->inner->ops->submit(l->inner, r);
	io->in_flight = l->inner->in_flight;
}

static struct ob_io_req *lying_reap(struct ob_io *io, int ms)
{
	struct lying *l = (struct lying *)io;
	struct ob_io_req *list = l->inner->ops->reap(l->inner, ms);

	for (struct ob_io_req *r = list; r; r = r->next)
		if (!l->wrote && r->op == OB_IO_READ && r->len > 300)
			((char *)r->buf)[r->len / 2] ^= 1;
	io->in_flight = l->inner->in_flight;
	return list;
}

static void lying_wake(struct ob_io *io)
{
	struct lying *l = (struct lying *)io;

	l->inner->ops->wake(l->inner);
}

static void lying_close(struct ob_io *io)
{
	struct lying *l = (struct lying *)io;

	l->inner->ops->close(l->inner);
	free(l);
}

static const struct ob_io_ops lying_ops = { "lying", lie, lying_reap, lying_wake, lying_close };

/* The second run of a job is the read-back. */
static int wrap_second(void *user, struct ob_io **io, ob_err *e)
{
	struct lying *l;

	(void)e;
	if (!(*(int *)user)++)
		return 0;
	l = calloc(1, sizeof(*l));
	cr_assert(l);
	l->io.ops = &lying_ops;
	l->inner = *io;
	*io = &l->io;
	return 0;
}

Test(resume, a_disk_that_lies_is_found_before_the_output_appears)
{
	static const char *const depths[] = { "sample", "full" };
	uint64_t before = toy_hash(in_dir("out"));

	for (unsigned i = 0; i < 2; i++) {
		int runs = 0;

		begin(false);
		set("verify", depths[i]);
		job->wrap_io = wrap_second;
		job->wrap_user = &runs;
		cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_VERIFY, "%s",
			     oocbake_error(job));
		cr_assert_eq(runs, 2);
		cr_assert_eq(toy_hash(in_dir("out")), before);
		begin(false);
		set("verify", depths[i]);
		cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
		cr_assert(strstr(oocbake_report(job, "text"), "read back"));
		toy_remove(in_dir("out/out"));
	}
}

Test(resume, verify_looks_as_deep_as_it_is_told)
{
	const char *weights = in_dir("out/out/model.safetensors");

	begin(false);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	for (unsigned i = 0; i < 3; i++) {
		static const char *const depths[] = { "headers", "sample", "full" };

		set("depth", depths[i]);
		cr_assert_eq(oocbake_verify(job, NULL, NULL), 0, "%s", oocbake_error(job));
		cr_assert(strstr(oocbake_report(job, "text"), "verified"));
	}
	flip(weights, 20);
	set("depth", "headers");
	cr_assert_eq(oocbake_verify(job, NULL, NULL), OOCBAKE_VERIFY);
	flip(weights, 20);
	flip(weights, 9000);
	cr_assert_eq(oocbake_verify(job, NULL, NULL), 0, "%s", oocbake_error(job));
	set("depth", "sample");
	cr_assert_eq(oocbake_verify(job, NULL, NULL), OOCBAKE_VERIFY);
	cr_assert_eq(oocbake_job_set(job, "depth", "none"), OOCBAKE_USAGE);
	cr_assert_eq(oocbake_job_set(job, "verify", "headers"), OOCBAKE_USAGE);
}
