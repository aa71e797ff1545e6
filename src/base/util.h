/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features, hashes, limits of the machine, time, and a hash map from names to indices. */
#ifndef OB_BASE_UTIL_H
#define OB_BASE_UTIL_H

#include <locale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/err.h"

/* Instruction sets that kernels are compiled for, from narrow to wide. */
enum ob_isa { OB_ISA_REF, OB_ISA_AVX2, OB_ISA_AVX512, OB_ISA_NEON };
/* The widest that the CPU and the system allow, lowered by OOCBAKE_ISA=ref|avx2|avx512|neon. */
enum ob_isa ob_cpu_isa(void);
bool ob_cpu_has(enum ob_isa isa);
const char *ob_isa_name(enum ob_isa isa);

/* Processors that this process may use: affinity and cgroup quota, at least 1. */
unsigned ob_cpu_count(void);
/* Memory that this process may use, bytes: the tightest of physical memory, cgroup v1 and v2
 * limits (walked to the root) and RLIMIT_AS. */
uint64_t ob_memory_limit(void);
/* Memory that is free to take within that limit now, bytes. */
uint64_t ob_memory_available(void);
/* Resident set of this process: now and its high-water mark, bytes. */
uint64_t ob_rss_now(void);
uint64_t ob_rss_peak(void);
/* CPU seconds of all threads. */
double ob_cpu_seconds(void);
/* Monotonic seconds. */
double ob_now(void);

uint64_t ob_hash64(const void *p, size_t n, uint64_t seed); /* xxHash, XXH3 64 bit */

/* A map from byte strings to 32-bit values. Keys are borrowed. Zero-initialised is empty. */
struct ob_map {
	struct ob_map_slot *slot;
	size_t n, cap;
};
/* Adds; returns 1 when the key was there already (unchanged), 0 when added, -1 with *e filled. */
int ob_map_add(struct ob_map *m, const char *key, size_t len, uint32_t value, ob_err *e);
bool ob_map_find(const struct ob_map *m, const char *key, size_t len, uint32_t *value);
void ob_map_free(struct ob_map *m);

bool ob_utf8_valid(const char *s, size_t n);
/* Decodes the first character; returns its bytes, or 0 when s is empty or no UTF-8. */
size_t ob_utf8_next(const char *s, size_t n, uint32_t *cp);
/* Copies s to buf for a terminal: control characters, invalid UTF-8, bidirectional controls and what
 * is invisible become \xNN; truncated with "..." when it does not fit. Returns buf. */
char *ob_printable(const char *s, char *buf, size_t size);
bool ob_has_suffix(const char *s, const char *suffix);
bool ob_has_prefix(const char *s, const char *prefix);
size_t ob_trimmed(const void *s, size_t n); /* its length without spaces at its end */
/* What files are written and read in, whatever the program around this library has set. */
locale_t ob_c_locale(void);
double ob_strtod(const char *s); /* strtod in that locale */

/* Python-style regular expressions (PCRE2, UTF, bounded backtracking). */
struct ob_regex;
int ob_regex_new(struct ob_regex **re, const char *pattern, const char *what, ob_err *e);
/* Matches at any place in s (re.search). An exhausted match limit is an error: -1; else 0 or 1. */
int ob_regex_search(const struct ob_regex *re, const char *s, ob_err *e);
void ob_regex_free(struct ob_regex *re);

#endif
