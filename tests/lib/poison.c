/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No byte of an output comes from memory that nobody wrote: with slots, scratch and buffers full of
 * one pattern or another the outputs are the same, headers, padding and tails of files included.
 */
#include <malloc.h>
#include <string.h>
#include <sys/stat.h>

#include "../support/check.h"
#include "../support/toy.h"
#include "base/alloc.h"
#include "lib/job.h"

static const struct {
	const char *name;
	const char *option[6][2]; /* paths begin with "@": inside the folder of this program */
} scenarios[] = {
	{ "copy", { { "model", "@model" } } },
	{ "bf16 to f16", { { "model", "@model" }, { "dtype", "f16" } } },
	{ "lora", { { "model", "@model" }, { "lora", "@lora" } } },
	{ "one file", { { "model", "@single.safetensors" }, { "dtype", "bf16" } } },
	{ "small files",
	  { { "model", "@model" }, { "lora", "@lora" }, { "max-shard-size", "60kB" } } },
	{ "quantize", { { "model", "@model" }, { "bits", "4" }, { "q-group-size", "32" } } },
	{ "three bits", { { "model", "@model" }, { "lora", "@lora" }, { "bits", "3" } } },
	{ "dequantize", { { "model", "@quantized" }, { "quant", "none" }, { "dtype", "f32" } } },
	{ "requantize", { { "model", "@quantized" }, { "lora", "@lora" }, { "bits", "6" } } },
	{ "quantized copy", { { "model", "@quantized" }, { "max-shard-size", "30kB" } } },
};
#define N_SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

static const unsigned char patterns[] = { 0x00, 0x5a, 0xa5, 0xff };

static char dir[256];

static const char *in_dir(const char *name)
{
	static char path[4][512];
	static unsigned turn;
	char *s = path[turn++ % 4];

	snprintf(s, sizeof(path[0]), "%s/%s", dir, name);
	return s;
}

static void bake(const char *const option[][2], const char *io, const char *output)
{
	oocbake_job *job = oocbake_job_new();
	int rc;

	CHECK(job, "no job");
	CHECK(!oocbake_job_set(job, "io", io), "%s", oocbake_error(job));
	CHECK(!oocbake_job_set(job, "output", output), "%s", oocbake_error(job));
	for (unsigned i = 0; option[i][0]; i++) {
		const char *v = option[i][1];

		rc = oocbake_job_set(job, option[i][0], *v == '@' ? in_dir(v + 1) : v);
		CHECK(!rc, "%s", oocbake_error(job));
	}
	rc = oocbake_run(job, NULL, NULL);
	CHECK(!rc, "%s", oocbake_error(job));
	oocbake_job_free(job);
}

static void make_inputs(void)
{
	static const struct toy_tensor t[] = {
		{ "a.weight", OB_F32, 101, 199 },
		{ "b.weight", OB_F32, 0, 40001 },
	};
	static const char *const quantize[][2] = {
		{ "model", "@model" }, { "bits", "8" }, { "q-group-size", "64" }, { NULL, NULL }
	};

	toy_dir(dir, sizeof(dir));
	toy_model(in_dir("model"));
	toy_lora(in_dir("lora"));
	toy_safetensors(dir, "single.safetensors", t, 2);
	CHECK(!mkdir(in_dir("out"), 0700), "out");
	bake(quantize, "auto", in_dir("quantized"));
}

/* The hook does what the test is built on. */
static void check_poison(unsigned char byte)
{
	unsigned char *p = ob_alloc_pages(5 << 20);
	unsigned char *q = ob_realloc(ob_alloc(1), 5000);

	CHECK(p && q, "no memory");
	for (size_t i = 0; i < 5 << 20; i++)
		CHECK(p[i] == byte, "byte %zu is %02x", i, p[i]);
	CHECK(!byte || q[4999] == byte, "%02x", q[4999]);
	ob_free_pages(p, 5 << 20);
	ob_free(q);
}

int main(void)
{
	static const char *const io[] = { "auto", "sync" };

	make_inputs();
	for (size_t s = 0; s < N_SCENARIOS; s++) {
		uint64_t want = 0;

		for (size_t i = 0; i < 2 * sizeof(patterns); i++) {
			unsigned char byte = patterns[i / 2];
			const char *output = in_dir(!strcmp(scenarios[s].name, "one file")
							    ? "out/x.safetensors"
							    : "out/x");
			uint64_t have;

			ob_alloc_poison(byte);
			mallopt(M_PERTURB, byte); /* libraries */
			check_poison(byte);
			bake(scenarios[s].option, io[i % 2], output);
			ob_alloc_poison(0);
			have = toy_hash(in_dir("out"));
			want = i ? want : have;
			CHECK(have == want, "%s: bytes of memory that held %02x are in the output",
			      scenarios[s].name, byte);
			toy_remove(output);
		}
	}
	toy_remove(dir);
	printf("%zu scenarios, %zu patterns\n", N_SCENARIOS, sizeof(patterns));
	return 0;
}
