/* SPDX-License-Identifier: Apache-2.0 */
/* For programs without Criterion and for helpers: says what does not hold, and ends the process. */
#ifndef OB_TESTS_SUPPORT_CHECK_H
#define OB_TESTS_SUPPORT_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition, ...)                                                           \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
			fprintf(stderr, __VA_ARGS__);                                   \
			fputc('\n', stderr);                                            \
			exit(1);                                                        \
		}                                                                       \
	} while (0)

#endif
