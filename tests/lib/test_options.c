/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/job.h"

static oocbake_job *job;

static void init(void)
{
	job = oocbake_job_new();
	cr_assert(job);
}

static void fini(void)
{
	oocbake_job_free(job);
}

TestSuite(options, .init = init, .fini = fini);

static void set(const char *name, const char *value)
{
	cr_assert_eq(oocbake_job_set(job, name, value), 0, "%s", oocbake_error(job));
	cr_assert_str_eq(oocbake_error(job), "");
}

/* With one sentence. */
static void refuse(const char *name, const char *value)
{
	cr_assert_eq(oocbake_job_set(job, name, value), OOCBAKE_USAGE, "--%s %s is accepted", name,
		     value ? value : "");
	cr_assert_str_eq(oocbake_error_kind(job), "usage");
	cr_assert(*oocbake_error(job) && !strchr(oocbake_error(job), '\n'));
}

static int finish(void)
{
	ob_err e = { 0 };

	return ob_job_finish_options(job, &e) ? (int)e.code : 0;
}

Test(options, values_that_are_wrong)
{
	static const char *const wrong[][2] = {
		{ "output", "" },
		{ "threads", "0" },
		{ "threads", "1025" },
		{ "threads", "2x" },
		{ "threads", "" },
		{ "threads", "-1" },
		{ "bits", "0" },
		{ "bits", "65" },
		{ "bits", "four" },
		{ "q-group-size", "0" },
		{ "memory", "0" },
		{ "memory", "-1GiB" },
		{ "memory", "150%" },
		{ "memory", "-5%" },
		{ "memory", "x" },
		{ "memory", "nan" },
		{ "memory", "" },
		{ "max-shard-size", "5XB" },
		{ "max-shard-size", "0" },
		{ "io", "aio" },
		{ "sandbox", "yes" },
		{ "resume", "perhaps" },
		{ "verify", "headers" },
		{ "verify", "all" },
		{ "depth", "none" },
		{ "depth", "" },
		{ "layout", "gguf" },
		{ "dtype", "f64" },
		{ "nonfinite", "ignore" },
		{ "skip", "(" },
		{ "tensor-type", "abc" },
		{ "tensor-type", "a=nope" },
		{ "tensor-type", "(=f16" },
		{ "lora", "/nonexistent:x" },
		{ "lora", "/nonexistent:inf" },
		{ "lora", "/nonexistent:1,5" },
		{ "force", "yes" },
		{ "strict", "2" },
		{ "no-such-option", "1" },
		{ "", "" },
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		refuse(wrong[i][0], wrong[i][1]);
	refuse("model", NULL);
	refuse("memory", NULL);
}

Test(options, memory)
{
	set("memory", "64MiB");
	cr_assert_eq(job->memory, 64u << 20);
	cr_assert_eq(job->memory_share, 0);
	set("memory", "50%");
	cr_assert_eq(job->memory, 0);
	cr_assert_float_eq(job->memory_share, 0.5, 1e-9);
	set("memory", "0.75");
	cr_assert_float_eq(job->memory_share, 0.75, 1e-9);
	set("memory", "1.5GB");
	cr_assert_eq(job->memory, 1500000000);
	cr_assert_eq(job->memory_share, 0);
	set("memory", "1");
	cr_assert_eq(job->memory, 1);
}

Test(options, adapters_and_scales)
{
	set("lora", "/nonexistent/a");
	set("lora", "/nonexistent/a:0.5");
	set("lora", "/nonexistent/a:b:-2e-1");
	set("lora", "/tmp");
	cr_assert_eq(job->n_lora, 4);
	cr_assert_str_eq(job->lora[0].path, "/nonexistent/a");
	cr_assert_eq(job->lora[0].scale, 1);
	cr_assert_str_eq(job->lora[1].path, "/nonexistent/a");
	cr_assert_float_eq(job->lora[1].scale, 0.5, 0);
	cr_assert_str_eq(job->lora[2].path, "/nonexistent/a:b");
	cr_assert_float_eq(job->lora[2].scale, -0.2, 1e-15);
	cr_assert_eq(job->lora[3].scale, 1);
}

/* A program around the library may have set a locale in which a comma separates decimals. */
Test(options, numbers_do_not_depend_on_the_locale)
{
	char folder[] = "/tmp/oocbake-locale-XXXXXX", command[256];

	/* None may be installed, so one is made. */
	cr_assert_not_null(mkdtemp(folder));
	snprintf(command, sizeof(command), "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8", folder);
	cr_assert_eq(system(command), 0, "localedef needs the package locales");
	setenv("LOCPATH", folder, 1);
	cr_assert_not_null(setlocale(LC_ALL, "de_DE.UTF-8"));
	snprintf(command, sizeof(command), "rm -r %s", folder);
	cr_assert_eq(system(command), 0);
	cr_assert_str_eq(localeconv()->decimal_point, ",");
	set("lora", "/nonexistent/a:0.5");
	cr_assert_float_eq(job->lora[0].scale, 0.5, 0);
	set("memory", "0.75");
	cr_assert_float_eq(job->memory_share, 0.75, 1e-9);
}

Test(options, an_output_folder_may_end_in_slashes)
{
	set("output", "a/b//");
	cr_assert_str_eq(job->output, "a/b");
	set("output", "/");
	cr_assert_str_eq(job->output, "/");
}

Test(options, rules_keep_their_order)
{
	set("skip", "lm_head");
	set("tensor-type", "a=b.*=mlx:8,group=32");
	set("tensor-type", "x=none");
	set("tensor-type", "y=F16");
	cr_assert_eq(job->recipe.n_rules, 4);
	cr_assert(job->recipe.rule[0].skip);
	cr_assert_eq(job->recipe.rule[1].enc.codec, &ob_codec_mlx);
	cr_assert_eq(job->recipe.rule[1].enc.group, 32);
	cr_assert_eq(ob_regex_search(job->recipe.rule[1].re, "a=bcd", NULL), 1);
	cr_assert_eq(ob_regex_search(job->recipe.rule[1].re, "a", NULL), 0);
	cr_assert_eq(job->recipe.rule[2].enc.dtype, OB_N_DTYPES);
	cr_assert_eq(job->recipe.rule[3].enc.dtype, OB_F16);
}

Test(options, switches)
{
	set("force", NULL);
	cr_assert(job->force);
	set("force", "0");
	cr_assert(!job->force);
	set("allow-unused", "1");
	cr_assert(job->adapter_options.allow_unused);
}

Test(options, what_goes_together)
{
	cr_assert_eq(finish(), OB_USAGE, "no model");
	set("model", "m");
	cr_assert_eq(finish(), OB_USAGE, "no output");
	set("output", "o");
	cr_assert_eq(finish(), 0);
	cr_assert_eq(job->recipe.quant, OB_QUANT_KEEP);

	set("quant", "none");
	cr_assert_eq(finish(), 0);
	cr_assert_eq(job->recipe.quant, OB_QUANT_NONE);
	set("quant", "KEEP");
	cr_assert_eq(finish(), 0);
	cr_assert_eq(job->recipe.quant, OB_QUANT_KEEP);
	set("quant", "mlx:3,group=128");
	cr_assert_eq(finish(), 0);
	cr_assert_eq(job->recipe.quant, OB_QUANT_TO);
	cr_assert_eq(job->recipe.to.bits, 3);
	set("quant", "f16");
	cr_assert_eq(finish(), OB_USAGE, "that is --dtype");
	set("quant", "mlx:7");
	cr_assert_eq(finish(), OB_USAGE);
	set("quant", "nonsense");
	cr_assert_eq(finish(), OB_USAGE);

	set("quant", "mlx");
	set("q-group-size", "32");
	cr_assert_eq(finish(), OB_USAGE, "the group size goes with -q");
	set("bits", "4");
	cr_assert_eq(finish(), OB_USAGE, "two schemes");
}

Test(options, bits_are_mlx)
{
	set("model", "m");
	set("output", "o");
	set("bits", "8");
	cr_assert_eq(finish(), 0);
	cr_assert_eq(job->recipe.to.codec, &ob_codec_mlx);
	cr_assert_eq(job->recipe.to.bits, 8);
	cr_assert_eq(job->recipe.to.group, 64);
	set("q-group-size", "128");
	cr_assert_eq(finish(), 0);
	cr_assert_eq(job->recipe.to.group, 128);
	set("q-group-size", "48");
	cr_assert_eq(finish(), OB_USAGE);
	set("q-group-size", "64");
	set("bits", "7");
	cr_assert_eq(finish(), OB_USAGE);
}
