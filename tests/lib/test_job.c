/* SPDX-License-Identifier: Apache-2.0 */
/* The public API: where outputs may go, what calls may follow each other, and what verify finds. */
#include <criterion/criterion.h>
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
	job = oocbake_job_new();
}

static void fini(void)
{
	oocbake_job_free(job);
	toy_remove(dir);
}

TestSuite(job, .init = init, .fini = fini);

static void set(const char *name, const char *value)
{
	cr_assert_eq(oocbake_job_set(job, name, value), 0, "%s", oocbake_error(job));
}

static void start_again(void)
{
	oocbake_job_free(job);
	job = oocbake_job_new();
	set("model", in_dir("model"));
	set("lora", in_dir("lora"));
}

/* The run is refused and changes nothing. */
static void refuse_output(const char *path, int status)
{
	uint64_t before = toy_hash(dir);

	start_again();
	set("output", path);
	set("force", NULL);
	cr_assert_eq(oocbake_run(job, NULL, NULL), status, "%s: %s", path, oocbake_error(job));
	cr_assert_eq(toy_hash(dir), before, "%s", path);
}

/* ---- places -------------------------------------------------------------------------------- */

Test(job, inputs_are_never_written_to)
{
	refuse_output(in_dir("model"), OOCBAKE_USAGE);
	refuse_output(in_dir("model/new"), OOCBAKE_USAGE);
	refuse_output(in_dir("model/config.json"), OOCBAKE_USAGE);
	refuse_output(in_dir("lora"), OOCBAKE_USAGE);
	refuse_output(in_dir("lora/x.safetensors"), OOCBAKE_USAGE);
	toy_text(dir, "like-an-output.safetensors", "");
	refuse_output(dir, OOCBAKE_USAGE);
	refuse_output(in_dir("model/../model"), OOCBAKE_USAGE);
	cr_assert_eq(symlink("model", in_dir("alias")), 0);
	refuse_output(in_dir("alias"), OOCBAKE_USAGE);
	refuse_output(in_dir("alias/new"), OOCBAKE_USAGE);
	cr_assert_eq(link(in_dir("model/model-00001-of-00002.safetensors"),
			  in_dir("hard.safetensors")),
		     0);
	refuse_output(in_dir("hard.safetensors"), OOCBAKE_USAGE);
}

/* A download cache links from the folder of a snapshot to files elsewhere. */
static void move_behind_link(const char *file, const char *blob, const char *target)
{
	cr_assert_eq(rename(in_dir(file), in_dir(blob)), 0);
	cr_assert_eq(symlink(target, in_dir(file)), 0);
}

Test(job, inputs_behind_links_are_never_replaced)
{
	cr_assert_eq(mkdir(in_dir("blobs"), 0700), 0);
	cr_assert_eq(mkdir(in_dir("adapter-blobs"), 0700), 0);
	move_behind_link("model/model-00001-of-00002.safetensors", "blobs/a.safetensors",
			 "../blobs/a.safetensors");
	move_behind_link("lora/adapter_model.safetensors", "adapter-blobs/b.safetensors",
			 "../adapter-blobs/b.safetensors");
	refuse_output(in_dir("blobs"), OOCBAKE_USAGE);
	refuse_output(in_dir("adapter-blobs"), OOCBAKE_USAGE);
	start_again();
	set("output", in_dir("beside"));
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
}

Test(job, output_needs_a_folder_to_be_in)
{
	refuse_output(in_dir("missing/new"), OOCBAKE_FAILED);
	refuse_output(in_dir("lora/adapter_config.json/new"), OOCBAKE_FAILED);
	refuse_output("/", OOCBAKE_USAGE);
}

Test(job, an_output_that_exists_stays)
{
	uint64_t before;

	toy_text(dir, "out", "something\n");
	before = toy_hash(dir);
	start_again();
	set("output", in_dir("out"));
	cr_assert_eq(oocbake_plan(job), OOCBAKE_EXISTS);
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_EXISTS);
	cr_assert_eq(toy_hash(dir), before);
	set("force", "1");
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert_neq(toy_hash(in_dir("out/model.safetensors")), 0);
}

/* ---- calls --------------------------------------------------------------------------------- */

Test(job, plans_write_nothing)
{
	uint64_t before = toy_hash(dir);

	start_again();
	set("output", in_dir("out"));
	cr_assert_null(oocbake_report(job, "text"));
	cr_assert_eq(oocbake_plan(job), 0, "%s", oocbake_error(job));
	cr_assert(strstr(oocbake_report(job, "text"), "6/6 keys matched"));
	cr_assert(strstr(oocbake_report(job, "json"), "\"fingerprint\""));
	cr_assert(strstr(oocbake_report(job, "html"), "<table>"));
	cr_assert_null(oocbake_report(job, "xml"));
	cr_assert_eq(toy_hash(dir), before);
}

Test(job, a_changed_option_makes_a_new_plan)
{
	start_again();
	set("output", in_dir("out"));
	cr_assert_eq(oocbake_plan(job), 0);
	cr_assert_null(strstr(oocbake_report(job, "text"), "mlx"));
	set("bits", "4");
	cr_assert_null(oocbake_report(job, "text"));
	cr_assert_eq(oocbake_plan(job), 0);
	cr_assert(strstr(oocbake_report(job, "text"), "mlx:4"));
}

Test(job, a_cancelled_run_leaves_nothing_and_the_next_one_works)
{
	uint64_t before;

	start_again();
	set("output", in_dir("out"));
	before = toy_hash(dir);
	oocbake_cancel(job);
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_FAILED);
	cr_assert_str_eq(oocbake_error_kind(job), "cancelled");
	cr_assert_eq(toy_hash(dir), before);
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
}

Test(job, the_same_job_runs_twice)
{
	uint64_t first;

	start_again();
	set("output", in_dir("out"));
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	first = toy_hash(in_dir("out"));
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_EXISTS);
	toy_remove(in_dir("out"));
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert_eq(toy_hash(in_dir("out")), first);
	cr_assert_eq(oocbake_verify(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert(strstr(oocbake_report(job, "text"), "verified"));
}

Test(job, memory_that_is_too_little_is_named_before_anything_is_read)
{
	uint64_t before;

	start_again();
	set("output", in_dir("out"));
	set("memory", "1MiB");
	before = toy_hash(dir);
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_BUDGET);
	cr_assert(strstr(oocbake_error(job), "at least"), "%s", oocbake_error(job));
	cr_assert_eq(toy_hash(dir), before);
}

Test(job, an_input_that_is_written_to_after_the_plan_is_noticed)
{
	const char *shard = in_dir("model/model-00002-of-00002.safetensors");
	struct stat before, after;
	FILE *f;

	start_again();
	set("output", in_dir("out"));
	cr_assert_eq(oocbake_plan(job), 0);
	cr_assert_eq(stat(shard, &before), 0);
	do { /* the clock of the file system may stand still for some milliseconds */
		f = fopen(shard, "r+b");
		cr_assert(f && !fseek(f, -1, SEEK_END) && fputc('x', f) != EOF && !fclose(f));
		cr_assert_eq(stat(shard, &after), 0);
	} while (!memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)));
	cr_assert_eq(oocbake_run(job, NULL, NULL), OOCBAKE_FAILED);
	cr_assert_str_eq(oocbake_error_kind(job), "changed");
	cr_assert(strstr(oocbake_error(job), "model-00002-of-00002"), "%s", oocbake_error(job));
	cr_assert_eq(toy_hash(in_dir("out")), 0);
}

/* ---- inspect ------------------------------------------------------------------------------- */

static const char *inspect(const char *path, const char *format, int status)
{
	const char *text;

	cr_assert_eq(oocbake_inspect(job, path, format, &text), status, "%s: %s", path,
		     oocbake_error(job));
	cr_assert_eq(text == NULL, status != 0);
	return text;
}

Test(job, inspect_tells_models_from_adapters)
{
	cr_assert(strstr(inspect(in_dir("model"), "text", 0), "6 tensors"));
	cr_assert(strstr(inspect(in_dir("model"), "json", 0), "\"kind\": \"model\""));
	cr_assert(strstr(inspect(in_dir("model/model-00001-of-00002.safetensors"), "json", 0),
			 "\"kind\": \"model\""));
	cr_assert(strstr(inspect(in_dir("lora"), "json", 0), "\"kind\": \"adapter\""));
	cr_assert(strstr(inspect(in_dir("lora"), "text", 0), "rank 4"));
	inspect(in_dir("missing"), "text", OOCBAKE_FAILED);
	inspect(in_dir("model/config.json"), "text", OOCBAKE_BAD_INPUT);
	inspect(in_dir("model"), "html", OOCBAKE_USAGE);
	inspect(in_dir("model"), "xml", OOCBAKE_USAGE);
}

/* ---- verify -------------------------------------------------------------------------------- */

static void damage(const char *file, long at)
{
	FILE *f = fopen(file, "r+b");
	int byte;

	cr_assert(f && !fseek(f, at, at < 0 ? SEEK_END : SEEK_SET));
	byte = fgetc(f);
	cr_assert(!fseek(f, -1, SEEK_CUR) && fputc(byte ^ 1, f) != EOF && !fclose(f));
}

static void find(const char *what, const char *names)
{
	cr_assert_eq(oocbake_verify(job, NULL, NULL), OOCBAKE_VERIFY, "%s: %s", what,
		     oocbake_error(job));
	cr_assert(strstr(oocbake_error(job), names), "%s does not name %s", oocbake_error(job),
		  names);
}

Test(job, verify_looks_at_everything)
{
	char weights[512];

	snprintf(weights, sizeof(weights), "%s", in_dir("out/model.safetensors"));
	start_again();
	set("output", in_dir("out"));
	find("no output", "out");
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	cr_assert_eq(oocbake_verify(job, NULL, NULL), 0, "%s", oocbake_error(job));
	for (unsigned i = 0; i < 3; i++) {
		static const long at[] = { 20, -1, 200000 };

		damage(weights, at[i]);
		find("a flipped bit", "model.safetensors");
		damage(weights, at[i]);
	}
	damage(in_dir("out/config.json"), 3);
	find("a config that was edited", "config.json");
	damage(in_dir("out/config.json"), 3);
	damage(in_dir("out/extra/readme.txt"), 1);
	find("a companion that was edited", "readme.txt");
	damage(in_dir("out/extra/readme.txt"), 1);
	toy_text(in_dir("out"), "stray.safetensors", "x");
	find("a file that would be loaded, too", "stray.safetensors");
	unlink(in_dir("out/stray.safetensors"));
	cr_assert_eq(rename(in_dir("out/tokenizer.json"), in_dir("t")), 0);
	find("a file that is missing", "tokenizer.json");
	cr_assert_eq(rename(in_dir("t"), in_dir("out/tokenizer.json")), 0);
	cr_assert_eq(truncate(weights, 100000), 0);
	find("a file that is too short", "model.safetensors");
}

Test(job, verify_reads_the_options)
{
	start_again();
	set("output", in_dir("out"));
	cr_assert_eq(oocbake_run(job, NULL, NULL), 0, "%s", oocbake_error(job));
	set("dtype", "f16");
	cr_assert_eq(oocbake_verify(job, NULL, NULL), OOCBAKE_VERIFY);
	set("dtype", "auto");
	cr_assert_eq(oocbake_verify(job, NULL, NULL), 0, "%s", oocbake_error(job));
}
