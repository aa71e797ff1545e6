/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/util.h"

#define NONE UINT64_MAX

/* A made-up system below a temporary folder. */
static char root[64];

static void in_root(const char *path, char *buf, size_t size)
{
	snprintf(buf, size, "%s%s", root, path);
}

static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	in_root(path, full, sizeof(full));
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		cr_assert(mkdir(full, 0755) == 0 || errno == EEXIST);
		*p = '/';
	}
	f = fopen(full, "w");
	cr_assert_not_null(f);
	fputs(text, f);
	fclose(f);
}

static void make_root(void)
{
	snprintf(root, sizeof(root), "%s", "/tmp/test_cpu.XXXXXX");
	cr_assert_not_null(mkdtemp(root));
}

static void drop_root(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", root);
	cr_assert_eq(system(command), 0);
}

TestSuite(cgroup, .init = make_root, .fini = drop_root);

#define MOUNT_V2 "30 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNT_MEMORY \
	"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
#define MOUNT_CPU "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_NO_LIMIT "9223372036854771712\n"

static void expect_memory(uint64_t want_limit, uint64_t want_left)
{
	uint64_t limit, left;

	ob_cgroup_memory(root, &limit, &left);
	cr_assert_eq(limit, want_limit, "limit is %lu", limit);
	cr_assert_eq(left, want_left, "left is %lu", left);
}

Test(cgroup, nothing_to_read)
{
	expect_memory(NONE, NONE);
	cr_assert_eq(ob_cgroup_cpus(root), NONE);
	cr_assert_eq(ob_meminfo(root, "MemTotal:"), NONE);
}

Test(cgroup, v2_is_walked_to_the_root)
{
	put("/proc/self/cgroup", "0::/user.slice/job\n");
	put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" MOUNT_V2);
	put("/sys/fs/cgroup/user.slice/job/memory.max", "max\n");
	put("/sys/fs/cgroup/user.slice/job/memory.high", "3000000\n");
	put("/sys/fs/cgroup/user.slice/job/memory.current", "1000000\n");
	put("/sys/fs/cgroup/user.slice/job/memory.stat",
	    "anon 5\nactive_file 7\ninactive_file 400000\n");
	put("/sys/fs/cgroup/user.slice/memory.max", "4000000\n");
	put("/sys/fs/cgroup/user.slice/memory.current", "3500000\n");
	put("/sys/fs/cgroup/user.slice/memory.stat", "inactive_file 600000\n");
	put("/sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n");
	put("/sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
	put("/sys/fs/cgroup/cpu.max", "900000 100000\n");
	expect_memory(3000000, 1100000);
	cr_assert_eq(ob_cgroup_cpus(root), 3);
}

Test(cgroup, v2_unlimited)
{
	put("/proc/self/cgroup", "0::/a\n");
	put("/proc/self/mountinfo", MOUNT_V2);
	put("/sys/fs/cgroup/a/memory.max", "max\n");
	put("/sys/fs/cgroup/a/memory.high", "max\n");
	put("/sys/fs/cgroup/a/memory.current", "1000\n");
	put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
	expect_memory(NONE, NONE);
	cr_assert_eq(ob_cgroup_cpus(root), NONE);
}

Test(cgroup, v1)
{
	put("/proc/self/cgroup",
	    "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/\n");
	put("/proc/self/mountinfo", MOUNT_MEMORY MOUNT_CPU);
	put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", V1_NO_LIMIT);
	put("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "100\n");
	put("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "67108864\n");
	put("/sys/fs/cgroup/memory/docker/memory.usage_in_bytes", "60000000\n");
	put("/sys/fs/cgroup/memory/docker/memory.stat",
	    "inactive_file 1\ntotal_inactive_file 20000000\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", V1_NO_LIMIT);
	put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "150000\n");
	put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
	put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
	put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
	expect_memory(67108864, 27108864);
	cr_assert_eq(ob_cgroup_cpus(root), 2);
}

/* All controllers in v1, and still a line and a mount of v2. */
Test(cgroup, hybrid)
{
	put("/proc/self/cgroup", "4:memory:/job\n1:cpu:/\n0::/\n");
	put("/proc/self/mountinfo",
	    MOUNT_MEMORY MOUNT_CPU "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
	put("/sys/fs/cgroup/unified/cgroup.procs", "1\n");
	put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n");
	put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "2000000\n");
	expect_memory(1000000, 0);
	cr_assert_eq(ob_cgroup_cpus(root), NONE);
}

/* A container without a namespace: the path is that of the host, the mount shows a part of it. */
Test(cgroup, mount_of_a_subtree)
{
	put("/proc/self/cgroup", "0::/docker/abc/sub\n");
	put("/proc/self/mountinfo",
	    "30 23 0:28 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
	    "31 23 0:28 /docker/abc /mnt/with\\040blank rw - cgroup2 cgroup2 rw\n");
	put("/mnt/with blank/sub/memory.max", "max\n");
	put("/mnt/with blank/memory.max", "5000\n");
	put("/mnt/with blank/memory.current", "4000\n");
	put("/mnt/other/memory.max", "1\n");
	expect_memory(5000, 1000);
}

Test(cgroup, path_outside_the_mount)
{
	put("/proc/self/cgroup", "0::/../../elsewhere\n");
	put("/proc/self/mountinfo", MOUNT_V2);
	put("/sys/fs/cgroup/memory.max", "5000\n");
	put("/sys/memory.max", "1\n");
	expect_memory(5000, 5000);
}

Test(cgroup, damaged_files_limit_nothing)
{
	put("/proc/self/cgroup", "0::/a\nnonsense\n:\n::\n");
	put("/proc/self/mountinfo", "1 2 3 - cgroup2\n - \n30 23 0:28 / - cgroup2 x rw\n" MOUNT_V2);
	put("/sys/fs/cgroup/a/memory.max", "\n");
	put("/sys/fs/cgroup/a/memory.high", "lots\n");
	put("/sys/fs/cgroup/a/cpu.max", "100000\n");
	put("/sys/fs/cgroup/cpu.max", "100000 0\n");
	expect_memory(NONE, NONE);
	cr_assert_eq(ob_cgroup_cpus(root), NONE);
}

Test(cgroup, meminfo)
{
	put("/proc/meminfo",
	    "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n");
	cr_assert_eq(ob_meminfo(root, "MemTotal:"), 24000000ull << 10);
	cr_assert_eq(ob_meminfo(root, "MemAvailable:"), 20000000ull << 10);
	cr_assert_eq(ob_meminfo(root, "SwapFree:"), NONE);
}

Test(cpu, wish_lowers_only)
{
	enum ob_isa widest;

	unsetenv("OOCBAKE_ISA");
	widest = ob_cpu_isa();
	cr_assert(ob_cpu_has(OB_ISA_REF));
	cr_assert(ob_cpu_has(widest));
	for (enum ob_isa isa = OB_ISA_REF; isa <= OB_ISA_NEON; isa++) {
		setenv("OOCBAKE_ISA", ob_isa_name(isa), 1);
		cr_assert_eq(ob_cpu_isa(), ob_cpu_has(isa) ? isa : widest);
	}
	setenv("OOCBAKE_ISA", "sse9", 1);
	cr_assert_eq(ob_cpu_isa(), widest);
#if defined(__x86_64__)
	cr_assert_not(ob_cpu_has(OB_ISA_NEON));
	cr_assert(ob_cpu_has(OB_ISA_AVX2) || !ob_cpu_has(OB_ISA_AVX512));
	if (ob_cpu_has(OB_ISA_AVX2))
		cr_assert(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
}

Test(cpu, count)
{
	cr_assert_geq(ob_cpu_count(), 1);
	cr_assert_leq(ob_cpu_count(), (unsigned)sysconf(_SC_NPROCESSORS_CONF));
}

Test(memory, limit_and_available)
{
	uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	cr_assert_gt(ob_memory_available(), 0);
	cr_assert_leq(ob_memory_available(), ob_memory_limit());
	cr_assert_leq(ob_memory_limit(), physical + physical / 8);
}

Test(memory, address_space_limit)
{
	const uint64_t room = 100 << 20;
	struct rlimit r = { .rlim_max = RLIM_INFINITY };
	unsigned long pages;
	FILE *f = fopen("/proc/self/statm", "re");

	/* On top of what is taken: sanitizers take terabytes. */
	cr_assert_eq(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	r.rlim_cur = pages * (uint64_t)sysconf(_SC_PAGESIZE) + room;
	cr_assert_eq(setrlimit(RLIMIT_AS, &r), 0);
	cr_assert_leq(ob_memory_limit(), r.rlim_cur);
	cr_assert_leq(ob_memory_available(), room);
}

Test(memory, resident_set)
{
	const size_t n = 32 << 20;
	uint64_t before = ob_rss_now();
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	memset(p, 1, n);
	cr_assert_geq(ob_rss_now(), before + n / 2);
	munmap(p, n);
	cr_assert_lt(ob_rss_now(), before + n / 2);
	cr_assert_geq(ob_rss_peak(), before + n / 2);
}

Test(time, moves_forward)
{
	double wall = ob_now(), cpu = ob_cpu_seconds();

	while (ob_cpu_seconds() < cpu + 0.01)
		;
	cr_assert_geq(ob_now(), wall + 0.001);
	cr_assert_lt(ob_now(), wall + 1000);
}
