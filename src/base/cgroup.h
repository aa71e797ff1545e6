/* SPDX-License-Identifier: Apache-2.0 */
/* Limits that control groups, v1 and v2, set for this process. */
#ifndef OB_BASE_CGROUP_H
#define OB_BASE_CGROUP_H

#include <stdint.h>

/* `root` is put before every path: "" is the running system, tests give a folder with proc/ and
 * the mount points. What cannot be read limits nothing. */

/* The tightest limit from the group up to the root of the hierarchy, and the least that is left
 * below one of them; UINT64_MAX when there is none. Reclaimable page cache counts as left. */
void ob_cgroup_memory(const char *root, uint64_t *limit, uint64_t *left);
/* Processors by quota, rounded up; UINT64_MAX when there is none. */
uint64_t ob_cgroup_cpus(const char *root);

/* The value, in bytes, of a line "NAME: N kB" of proc/meminfo; UINT64_MAX when it is absent. */
uint64_t ob_meminfo(const char *root, const char *name);

#endif
