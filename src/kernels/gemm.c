/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The low-rank update over BLIS, and the choice of the BLIS sub-config.
 *
 * BLIS reads BLIS_ARCH_TYPE once, at its first call, and takes a number (0.9 reads a name as 0).
 * Left alone it runs slow kernels on CPUs that are newer than its tables; told wrongly it aborts or
 * dies of SIGILL. So every candidate is tried in a child process first.
 */
#include "kernels/gemm.h"

#include <blis.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/num.h"
#include "base/util.h"

/* Against a child that hangs: a healthy one needs 5 to 50 ms, on a loaded machine seconds. */
#define PROBE_MS 30000

/* Sub-configs that beat BLIS's own choice on some CPU. What cannot run dies in its child. */
static const char *const candidates[] = {
#if defined(__x86_64__)
	"skx",
	"zen3",
	"haswell",
#elif defined(__aarch64__)
	"firestorm",
	"thunderx2",
	"cortexa57",
#endif
};

struct probe {
	int id;		/* what BLIS runs; -1: the child died */
	bool fma;	/* results are the fma chain */
	double seconds; /* of the same work */
};

static struct probe chosen = { .id = -1 };

/* ---- products ------------------------------------------------------------------------------ */

void ob_gemm(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t m,
	     size_t n, size_t k, bool accumulate)
{
	rntm_t rntm = BLIS_RNTM_INITIALIZER;
	float one = 1, beta = accumulate ? 1 : 0;

	bli_rntm_set_num_threads(1, &rntm);
	/* The small-matrix kernels round differently for different tile shapes. */
	bli_rntm_disable_l3_sup(&rntm);
	bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, (dim_t)m, (dim_t)n, (dim_t)k, &one,
		     (float *)a, (inc_t)lda, 1, (float *)b, (inc_t)ldb, 1, &beta, c, (inc_t)ldc, 1,
		     NULL, &rntm);
}

/* ---- memory -------------------------------------------------------------------------------- */

#define THREAD_BYTES (128u << 10) /* small blocks, an OpenMP team of one, its malloc arena */
#define REGISTER_BLOCK 32u /* packed operands are padded to it; no sub-config has a larger one */

static uint64_t page; /* what one touched byte makes resident */

static void find_page(void)
{
	char text[64] = "";
	const int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0 && strstr(text, "[always]"))
		page = 2u << 20;
	close(fd);
}

/* Of a packed operand, in a block that may begin anywhere in a page. */
static uint64_t packed_bytes(size_t length, size_t k)
{
	const uint64_t bytes = (uint64_t)(length + REGISTER_BLOCK) * (k + 1) * sizeof(float);

	return ob_round_up(bytes, page) + page;
}

uint64_t ob_gemm_memory(size_t m, size_t n, size_t k)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find_page);
	return packed_bytes(m, k) + packed_bytes(n, k) + THREAD_BYTES;
}

void ob_gemm_warm_up(size_t m, size_t n, size_t k)
{
	/* A strip as wide as the largest product and one as high touch what that would touch. Their
	 * factors are zeros that were never written, which take no memory. */
	const size_t rows = m < 8 ? m : 8, cols = n < 8 ? n : 8;
	const size_t strip = m * cols > rows * n ? m * cols : rows * n;
	const size_t size = (strip + k * (m > n ? m : n)) * sizeof(float);
	float *c = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (c == MAP_FAILED)
		return;
	madvise(c, size, MADV_NOHUGEPAGE);
	ob_gemm(c, n, c + strip, k, c + strip, n, rows, n, k, false);
	ob_gemm(c, cols, c + strip, k, c + strip, cols, m, cols, k, false);
	munmap(c, size);
}

/* ---- trying a sub-config ------------------------------------------------------------------- */

enum { M = 128, N = 1024, K = 64 }; /* a tile of the engine, with a high rank */

/* Deterministic values that need rounding when they are multiplied and added. */
static void fill(float *x, size_t n)
{
	uint32_t s = 1;

	for (size_t i = 0; i < n; i++) {
		s = s * 1664525 + 1013904223;
		x[i] = (float)(s >> 8) * 0x1p-24f - 0.5f;
	}
}

static bool equals_fma_chain(float *c, const float *a, const float *b)
{
	enum { ROWS = 8, COLS = 40 };

	ob_gemm(c, COLS, a, K, b, COLS, ROWS, COLS, K, false);
	for (unsigned i = 0; i < ROWS; i++) {
		for (unsigned j = 0; j < COLS; j++) {
			float x = 0;

			for (unsigned k = 0; k < K; k++)
				x = fmaf(a[i * K + k], b[k * COLS + j], x);
			if (c[i * COLS + j] != x)
				return false;
		}
	}
	return true;
}

/* Shortest of a few runs, without what other processes take; of one where all is slow (valgrind). */
static double seconds_of(float *c, const float *a, const float *b, size_t k)
{
	double best = INFINITY, sum = 0;

	for (unsigned i = 0; i < 12 && sum < 0.02; i++) {
		const double start = ob_cpu_seconds();
		double t;

		ob_gemm(c, N, a, k, b, N, M, N, k, false);
		t = ob_cpu_seconds() - start;
		best = fmin(best, t);
		sum += t;
	}
	return best;
}

/* In the child: nothing that BLIS prints, and no core file, may reach the user. */
static void isolate(void)
{
	static const int fatal[] = { SIGABRT, SIGILL, SIGSEGV, SIGBUS, SIGFPE };
	const int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	for (unsigned i = 0; i < sizeof(fatal) / sizeof(*fatal); i++)
		signal(fatal[i], SIG_DFL);
	if (null >= 0) {
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
}

static _Noreturn void probe_child(int out, const char *arch_type)
{
	struct probe r = { .id = -1 };
	float *a, *b, *c;

	isolate();
	a = ob_calloc(M * K, sizeof(*a));
	b = ob_calloc(N * K, sizeof(*b));
	c = ob_calloc(M * N, sizeof(*c));
	if (!a || !b || !c || (arch_type && setenv("BLIS_ARCH_TYPE", arch_type, 1) != 0))
		_exit(1);
	fill(a, M * K);
	fill(b, N * K);
	bli_init();
	r.id = (int)bli_arch_query_id();
	r.fma = equals_fma_chain(c, a, b);
	r.seconds = seconds_of(c, a, b, K) + 4 * seconds_of(c, a, b, K / 4);
	_exit(write(out, &r, sizeof(r)) == sizeof(r) ? 0 : 1);
}

/* Runs BLIS in a child with this BLIS_ARCH_TYPE (NULL: as the environment is). */
static int probe(struct probe *r, const char *arch_type, ob_err *e)
{
	struct pollfd in;
	int fd[2], ready;
	pid_t child;

	*r = (struct probe){ .id = -1 };
	if (pipe2(fd, O_CLOEXEC) != 0)
		return ob_fail_sys(e, OB_IO, errno,
				   "cannot make a pipe to try BLIS in a child process");
	child = fork();
	if (child == 0)
		probe_child(fd[1], arch_type);
	if (child < 0) {
		ob_fail_sys(e, OB_IO, errno, "cannot start a child process to try BLIS in");
		close(fd[0]);
		close(fd[1]);
		return -1;
	}
	close(fd[1]);
	in = (struct pollfd){ .fd = fd[0], .events = POLLIN };
	do
		ready = poll(&in, 1, PROBE_MS);
	while (ready < 0 && errno == EINTR);
	if (ready != 1 || read(fd[0], r, sizeof(*r)) != sizeof(*r))
		r->id = -1;
	kill(child, SIGKILL);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	close(fd[0]);
	return 0;
}

/* ---- start --------------------------------------------------------------------------------- */

/* A sub-config that fuses is better than any that does not: its results are those of other CPUs. */
static bool is_better(const struct probe *r, const struct probe *than)
{
	if (r->id < 0 || than->id < 0)
		return r->id >= 0;
	if (r->fma != than->fma)
		return r->fma;
	return r->seconds < than->seconds;
}

static int choose(struct probe *best, ob_err *e)
{
	struct probe own, r;
	char number[16];

	if (probe(&own, NULL, e) != 0)
		return -1;
	*best = own;
	for (unsigned i = 0; i < sizeof(candidates) / sizeof(*candidates); i++) {
		int id = 0;

		while (id < BLIS_NUM_ARCHS &&
		       strcmp(bli_arch_string((arch_t)id), candidates[i]) != 0)
			id++;
		if (id == BLIS_NUM_ARCHS || id == own.id)
			continue;
		snprintf(number, sizeof(number), "%d", id);
		if (probe(&r, number, e) != 0)
			return -1;
		if (is_better(&r, best))
			*best = r;
	}
	return 0;
}

/* Initialises BLIS, which now reads BLIS_ARCH_TYPE. One product makes its code resident: part of
 * what the process takes before memory is planned. */
static void start_blis(void)
{
	float a = 1, b = 1, c;

	bli_init();
	ob_gemm(&c, 1, &a, 1, &b, 1, 1, 1, 1, false);
}

int ob_gemm_init(ob_err *e)
{
	const char *wish = getenv("BLIS_ARCH_TYPE");
	struct probe best;
	char number[16];

	if (chosen.id >= 0)
		return 0;
	if ((wish ? probe(&best, NULL, e) : choose(&best, e)) != 0)
		return -1;
	if (best.id < 0)
		return ob_fail(e, wish ? OB_USAGE : OB_INTERNAL,
			       "BLIS %s does not run on this CPU with BLIS_ARCH_TYPE %s; set it to "
			       "the number of a sub-configuration that does",
			       ob_gemm_version(), wish ? wish : "unset");
	snprintf(number, sizeof(number), "%d", best.id);
	if (!wish && setenv("BLIS_ARCH_TYPE", number, 1) != 0)
		return ob_fail_nomem(e, "environment for BLIS");
	start_blis();
	if (!wish)
		unsetenv("BLIS_ARCH_TYPE");
	chosen = best;
	return 0;
}

const char *ob_gemm_arch(void)
{
	return chosen.id < 0 ? NULL : bli_arch_string((arch_t)chosen.id);
}

const char *ob_gemm_version(void)
{
	return bli_info_get_version_str();
}

bool ob_gemm_is_fma(void)
{
	return chosen.fma;
}
