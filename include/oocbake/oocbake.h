/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liboocbake: bakes LoRA-family adapters into the weights of large models and changes their number
 * format, tensor by tensor, in one streaming pass in a fixed amount of memory.
 *
 *	oocbake_job *job = oocbake_job_new();
 *	if (oocbake_job_set(job, "model", "llama/") || oocbake_job_set(job, "lora", "style/:0.8") ||
 *	    oocbake_job_set(job, "output", "baked/") || oocbake_run(job, NULL, NULL))
 *		fprintf(stderr, "%s\n", oocbake_error(job));
 *	oocbake_job_free(job);
 *
 * Functions return 0, or the exit status that the program would end with (oocbake_status names it);
 * oocbake_error then holds one sentence. A job is used by one thread at a time; oocbake_cancel alone may
 * be called from any thread or signal handler. Strings that a job returns live until its next call.
 * The BLIS sub-configuration is probed in child processes at the first bake; call it before the program
 * starts threads that hold locks.
 */
#ifndef OOCBAKE_OOCBAKE_H
#define OOCBAKE_OOCBAKE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define OOCBAKE_API __attribute__((visibility("default")))
#else
#define OOCBAKE_API
#endif

typedef struct oocbake_job oocbake_job;

enum oocbake_status {
	OOCBAKE_OK = 0,
	OOCBAKE_FAILED = 1, /* I/O, space, memory, input changed, cancelled */
	OOCBAKE_USAGE = 2,
	OOCBAKE_BAD_INPUT = 3,
	OOCBAKE_BUDGET = 4, /* cannot fit the memory limit; the message names the minimum */
	OOCBAKE_VERIFY = 5, /* verification found a difference */
	OOCBAKE_EXISTS = 6, /* the output exists or is locked */
};

/* NULL when there is no memory. */
OOCBAKE_API oocbake_job *oocbake_job_new(void);
OOCBAKE_API void oocbake_job_free(oocbake_job *job);

/*
 * Sets an option by the name of its long command-line form without dashes: "model", "output", "lora"
 * (PATH or PATH:SCALE; repeatable), "layout", "dtype", "quant", "bits", "q-group-size", "tensor-type"
 * (repeatable), "skip" (repeatable), "allow-unused", "strict", "max-shard-size", "memory", "threads",
 * "io", "force", "nonfinite", "sandbox", "resume", "verify" (of oocbake_run), "depth" (of oocbake_verify). Values are copied. Switches take "1" or NULL for on and "0" for
 * off. Errors: OOCBAKE_USAGE.
 *
 * "sandbox" is "off" unless it is set. With "auto" or "on" oocbake_run and oocbake_verify restrict the
 * whole process, for good: afterwards it can do nothing but finish that job and end. It is for programs
 * that exist for one job, as the command line's, which sets "auto".
 */
OOCBAKE_API int oocbake_job_set(oocbake_job *job, const char *option, const char *value);

/* Opens the inputs, resolves the adapters and lays out the output. Reads no weights, writes nothing. */
OOCBAKE_API int oocbake_plan(oocbake_job *job);

struct oocbake_progress {
	const char *phase;    /* "check" (of what is resumed), "bake", "verify" */
	uint64_t done, total; /* bytes read and written */
	double seconds;	      /* since the start */
	double rate;	      /* bytes per second, over the last seconds */
	double remaining;     /* seconds; negative while unknown */
	const char *tensor;   /* in hand; any bytes but NUL: escape before printing */
	unsigned shard, shards;
	const char *bound; /* "disk" or "cpu": which limit binds */
};
typedef void (*oocbake_progress_fn)(void *user, const struct oocbake_progress *progress);

/* Plans if that was not done, bakes, publishes. progress may be NULL; it is called about ten times a
 * second from the calling thread. On failure no output is visible and the inputs are untouched; what is done
 * may stay in a folder beside the output, which the error then names, for a run with "resume". */
OOCBAKE_API int oocbake_run(oocbake_job *job, oocbake_progress_fn progress, void *user);

/* Recomputes what oocbake_run would write and compares it with the output that is there. */
OOCBAKE_API int oocbake_verify(oocbake_job *job, oocbake_progress_fn progress, void *user);

/* Makes a running call stop soon and fail. Async-signal-safe. */
OOCBAKE_API void oocbake_cancel(oocbake_job *job);

/* What was planned or done: "text", "json" or "html". NULL when there is no memory or no plan. */
OOCBAKE_API const char *oocbake_report(oocbake_job *job, const char *format);

/* Remarks that a user should see although nothing failed: one line each, NULL behind the last. */
OOCBAKE_API const char *oocbake_note(const oocbake_job *job, unsigned index);

/* Describes the model or adapter at `path`, "text" or "json". */
OOCBAKE_API int oocbake_inspect(oocbake_job *job, const char *path, const char *format,
				const char **result);

/* The formats that can be read and written, "text" or "json". */
OOCBAKE_API const char *oocbake_formats(oocbake_job *job, const char *format);

/* The sentence of the last failure, "" when there was none. */
OOCBAKE_API const char *oocbake_error(const oocbake_job *job);
/* A word for it: "corrupt", "mismatch", "nospc" ... */
OOCBAKE_API const char *oocbake_error_kind(const oocbake_job *job);

/* Version, and what it runs on: instruction set, BLIS, I/O backends, sandbox. */
OOCBAKE_API const char *oocbake_version(void);
OOCBAKE_API const char *oocbake_build_info(oocbake_job *job);

#ifdef __cplusplus
}
#endif
#endif
