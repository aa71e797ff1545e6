/* SPDX-License-Identifier: Apache-2.0 */
/* Filling errors, and what each code means to the shell and to reports. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Here they are defined: see the end of err.h. */
#undef ob_fail
#undef ob_fail_sys
#undef ob_fail_nomem

/* Appends at most what fits; a cut message ends in "...". */
__attribute__((format(printf, 2, 0))) static void append(ob_err *e, const char *fmt, va_list ap)
{
	size_t used = strlen(e->msg);
	size_t room = sizeof(e->msg) - used;
	int n = vsnprintf(e->msg + used, room, fmt, ap);

	if (n < 0)
		e->msg[used] = '\0';
	else if ((size_t)n >= room)
		memcpy(e->msg + sizeof(e->msg) - 4, "...", 4);
}

__attribute__((format(printf, 2, 3))) static void appendf(ob_err *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	append(e, fmt, ap);
	va_end(ap);
}

/* Claims *e for a first error. */
static int claim(ob_err *e, enum ob_code code, int sys)
{
	if (!e || e->code != OB_OK)
		return 0;
	e->code = code;
	e->sys = sys;
	e->msg[0] = '\0';
	return 1;
}

int ob_fail(ob_err *e, enum ob_code code, const char *fmt, ...)
{
	va_list ap;

	if (!claim(e, code, 0))
		return -1;
	va_start(ap, fmt);
	append(e, fmt, ap);
	va_end(ap);
	return -1;
}

int ob_fail_sys(ob_err *e, enum ob_code code, int sys, const char *fmt, ...)
{
	va_list ap;

	if (sys == ENOSPC || sys == EDQUOT || sys == EFBIG)
		code = OB_NOSPC;
	else if (sys == ENOMEM)
		code = OB_NOMEM;
	if (!claim(e, code, sys))
		return -1;
	va_start(ap, fmt);
	append(e, fmt, ap);
	va_end(ap);
	appendf(e, ": %s", strerror(sys));
	return -1;
}

int ob_fail_nomem(ob_err *e, const char *what)
{
	return ob_fail(e, OB_NOMEM, "out of memory (%s)", what);
}

static const struct {
	const char *name;
	int exit_status;
} codes[] = {
	[OB_OK] = { "ok", 0 },
	[OB_USAGE] = { "usage", 2 },
	[OB_CORRUPT] = { "corrupt", 3 },
	[OB_UNSUPPORTED] = { "unsupported", 3 },
	[OB_LIMIT] = { "limit", 3 },
	[OB_UNSAFE] = { "unsafe", 3 },
	[OB_MISMATCH] = { "mismatch", 3 },
	[OB_NONFINITE] = { "nonfinite", 3 },
	[OB_CHANGED] = { "changed", 1 },
	[OB_NOMEM] = { "nomem", 1 },
	[OB_BUDGET] = { "budget", 4 },
	[OB_NOSPC] = { "nospc", 1 },
	[OB_IO] = { "io", 1 },
	[OB_EXISTS] = { "exists", 6 },
	[OB_LOCKED] = { "locked", 6 },
	[OB_VERIFY] = { "verify", 5 },
	[OB_CANCELLED] = { "cancelled", 1 },
	[OB_INTERNAL] = { "internal", 1 },
};

int ob_exit_status(enum ob_code code)
{
	return codes[code].exit_status;
}

const char *ob_code_name(enum ob_code code)
{
	return codes[code].name;
}
