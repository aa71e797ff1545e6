/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target of the description that lies beside a staged output: what an earlier run left (the
 * input) against that of this run. Which of the two is the earlier one makes no difference to
 * whether they agree, and a text agrees with itself.
 */
#include "fuzz.h"
#include "lib/job.h"

static const char now[] =
	"program oocbake 0.1.0\njournal 1\nsums fused\n"
	"input size=1234 mtime=1700000000123456789 inode=77 ends=deadbeef01234567 /m/a b.safetensors\n"
	"input size=99 mtime=-5 inode=78 ends=0 /lora/adapter_model.safetensors\n"
	"plan 0123456789abcdef\n";

static int compare(const char *was, const char *is, ob_err *e)
{
	int rc = ob_job_compare_facts(was, is, "fuzz", e);

	fuzz_require((rc == 0) == (e->code == OB_OK));
	fuzz_require(rc == 0 || (e->code == OB_MISMATCH && strstr(e->msg, "fuzz")));
	return rc;
}

static void fuzz_data(const char *data, size_t size)
{
	ob_err e = { 0 }, turned = { 0 }, itself = { 0 };
	char *was = malloc(size + 1);

	fuzz_require(was);
	if (size)
		memcpy(was, data, size);
	was[size] = '\0';
	fuzz_require(compare(was, now, &e) == compare(now, was, &turned));
	fuzz_require(compare(was, was, &itself) == 0);
	free(was);
}
