/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that fail. In a program that is linked with $(calls_ldflags) all that libob asks of the
 * system outside its I/O backends, and what the backends do with blocking calls, goes through here.
 */
#ifndef OB_TESTS_SUPPORT_CALLS_H
#define OB_TESTS_SUPPORT_CALLS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct calls {
	uint64_t nth;  /* the first one that fails, 1: the next; 0: none */
	uint64_t n;    /* so many in a row */
	int error;     /* what they say; a close closes all the same */
	bool kills;    /* instead, the process dies there */
	bool is_short; /* instead, and of transfers alone: they move */
	uint32_t less; /* so many bytes less; UINT32_MAX: none at all */
	/* Throughout, a file system that cannot reserve space, transfer directly, sync a folder, nor
	 * rename but in the plain way. */
	bool is_old;
	atomic_uint_fast64_t count;
	_Atomic(const char *) first; /* the name of the first one that failed, NULL: none did */
};

/* From now on; NULL: all is well. */
void calls_rule(struct calls *rule);

#endif
