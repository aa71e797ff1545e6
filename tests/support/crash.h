/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An I/O backend that kills the process at its n-th operation, and before that, for a loss of power,
 * does to what was written and not synced what a disk may do: each block is there, or is zero, or is
 * something else.
 */
#ifndef OB_TESTS_SUPPORT_CRASH_H
#define OB_TESTS_SUPPORT_CRASH_H

#include "io/io.h"

struct crash {
	uint64_t nth; /* 0: never */
	bool power;
	uint64_t count; /* operations so far */
};

/* Has the form of struct ob_run's wrap_io; user: a struct crash. */
int crash_wrap(void *user, struct ob_io **io, ob_err *e);

#endif
