/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine offers to this process: instruction sets, processors, memory, time. */
#include "base/util.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/num.h"

static const char *const isa_names[] = {
	[OB_ISA_REF] = "ref",
	[OB_ISA_AVX2] = "avx2",
	[OB_ISA_AVX512] = "avx512",
	[OB_ISA_NEON] = "neon",
};

#if defined(__x86_64__)

#include <cpuid.h>

#define XCR0_YMM 0x06u /* SSE and AVX state */
#define XCR0_ZMM 0xe6u /* that, mask registers and both halves of the ZMM state */

/* The register states that the system saves. */
static uint32_t xcr0(void)
{
	uint32_t lo, hi;

	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo;
}

static enum ob_isa widest(void)
{
	const unsigned leaf1 = bit_FMA | bit_F16C | bit_AVX | bit_OSXSAVE;
	const unsigned avx2 = bit_AVX2 | bit_BMI2;
	const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
	unsigned a, b, c, d, have;
	uint32_t state;

	if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1) != leaf1)
		return OB_ISA_REF;
	if (!__get_cpuid_count(7, 0, &a, &have, &c, &d))
		return OB_ISA_REF;
	state = xcr0();
	if ((have & avx2) != avx2 || (state & XCR0_YMM) != XCR0_YMM)
		return OB_ISA_REF;
	if ((have & avx512) != avx512 || (state & XCR0_ZMM) != XCR0_ZMM)
		return OB_ISA_AVX2;
	return OB_ISA_AVX512;
}

bool ob_cpu_has(enum ob_isa isa)
{
	return isa <= widest();
}

#else

static enum ob_isa widest(void)
{
#if defined(__aarch64__)
	return OB_ISA_NEON; /* part of the base instruction set */
#else
	return OB_ISA_REF;
#endif
}

bool ob_cpu_has(enum ob_isa isa)
{
	return isa == OB_ISA_REF || isa == widest();
}

#endif

enum ob_isa ob_cpu_isa(void)
{
	const char *wish = getenv("OOCBAKE_ISA");

	for (enum ob_isa isa = OB_ISA_REF; wish && isa <= OB_ISA_NEON; isa++)
		if (strcmp(wish, isa_names[isa]) == 0 && ob_cpu_has(isa))
			return isa;
	return widest();
}

const char *ob_isa_name(enum ob_isa isa)
{
	return isa_names[isa];
}

unsigned ob_cpu_count(void)
{
	cpu_set_t set[16]; /* one holds 1024 processors */
	uint64_t n = 1;

	if (sched_getaffinity(0, sizeof(set), set) == 0)
		n = (uint64_t)CPU_COUNT_S(sizeof(set), set);
	n = ob_min_u64(n, ob_cgroup_cpus(""));
	return (unsigned)ob_max_u64(n, 1);
}

/* The N-th number of /proc/self/statm, in bytes; 0: whole address space, 1: resident. */
static uint64_t statm(int which)
{
	unsigned long long size = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%llu %llu", &size, &resident) != 2)
		size = resident = 0;
	fclose(f);
	return (which == 0 ? size : resident) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t address_space_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_AS, &r) != 0 || r.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return r.rlim_cur;
}

uint64_t ob_memory_limit(void)
{
	uint64_t limit, left;

	ob_cgroup_memory("", &limit, &left);
	limit = ob_min_u64(limit, ob_meminfo("", "MemTotal:"));
	return ob_min_u64(limit, address_space_limit());
}

uint64_t ob_memory_available(void)
{
	uint64_t limit, left;
	uint64_t space = address_space_limit();

	ob_cgroup_memory("", &limit, &left);
	left = ob_min_u64(left, ob_meminfo("", "MemAvailable:"));
	return ob_min_u64(left, space - ob_min_u64(space, statm(0)));
}

uint64_t ob_rss_now(void)
{
	return statm(1);
}

uint64_t ob_rss_peak(void)
{
	/* Not ru_maxrss: that survives exec, so it may tell of the program that started this one. */
	char line[256];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/status", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
			break;
	fclose(f);
	return (uint64_t)kib << 10;
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double ob_cpu_seconds(void)
{
	return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

double ob_now(void)
{
	return seconds(CLOCK_MONOTONIC);
}
