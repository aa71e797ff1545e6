/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: one value that travels up; the lowest layer that knows the object writes the sentence.
 *
 * A function returns 0, or -1 with *e filled. The first error stays: ob_fail on a filled value
 * changes nothing, so a clean-up path may fail without hiding the cause. No allocation, no globals.
 */
#ifndef OB_BASE_ERR_H
#define OB_BASE_ERR_H

enum ob_code {
	OB_OK,
	OB_USAGE,	/* the command line or the API call */
	OB_CORRUPT,	/* an input breaks the rules of its format */
	OB_UNSUPPORTED, /* a legal input that this version does not handle */
	OB_LIMIT,	/* an input above a documented limit */
	OB_UNSAFE,	/* an input that asks for something forbidden: foreign paths, code */
	OB_MISMATCH,	/* inputs that do not fit each other */
	OB_NONFINITE,	/* a NaN or infinity where none may be */
	OB_CHANGED,	/* an input changed while it was read */
	OB_NOMEM,	/* the system refused memory */
	OB_BUDGET,	/* --memory is too small; the message names the minimum */
	OB_NOSPC,	/* no space, quota or file size */
	OB_IO,		/* any other failure of the system */
	OB_EXISTS,	/* the output exists */
	OB_LOCKED,	/* another run owns the output */
	OB_VERIFY,	/* verification found a difference */
	OB_CANCELLED,	/* a signal or the caller asked to stop */
	OB_INTERNAL,	/* a defect of this program */
};

typedef struct ob_err {
	enum ob_code code;
	int sys;	/* errno that caused it, or 0 */
	char msg[1024]; /* one sentence: object, what was found, what was expected, what to do */
} ob_err;

/* Fills *e unless it is filled already (or NULL). Always returns -1. */
int ob_fail(ob_err *e, enum ob_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same for a failed system call: appends ": <text of sys>"; ENOSPC, EDQUOT and EFBIG become
 * OB_NOSPC and ENOMEM becomes OB_NOMEM whatever `code` says. */
int ob_fail_sys(ob_err *e, enum ob_code code, int sys, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Fills *e with "out of memory (<what>)". Returns -1. */
int ob_fail_nomem(ob_err *e, const char *what);

/* The exit status of the program: 0, 1 run failed, 2 usage, 3 bad input, 4 budget, 5 verify,
 * 6 exists or locked. */
int ob_exit_status(enum ob_code code);

/* A short lower-case word for JSON reports, e.g. "corrupt". */
const char *ob_code_name(enum ob_code code);

/* Static analysis (build-aux/analyze) does not look into other files: what they return, and what
 * else it cannot know. Nothing in a real build. */
#ifdef OB_ANALYZE
#define ob_fail(...) (ob_fail(__VA_ARGS__), -1)
#define ob_fail_sys(...) (ob_fail_sys(__VA_ARGS__), -1)
#define ob_fail_nomem(...) (ob_fail_nomem(__VA_ARGS__), -1)
#define OB_KNOWN(fact) ((fact) ? (void)0 : __builtin_unreachable())
#else
#define OB_KNOWN(fact) ((void)0)
#endif

#endif
