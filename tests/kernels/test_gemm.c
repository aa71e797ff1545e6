/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The low-rank update: equal to the fma chain, independent of tiles and threads, within the memory
 * that it announces. Each part runs in a process of its own, because BLIS chooses its kernels once.
 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "kernels/gemm.h"

#if defined(__has_feature)
#define MEASURES_MEMORY !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEASURES_MEMORY false /* the resident set holds what the sanitizer notes */
#else
#define MEASURES_MEMORY true
#endif

#define CHECK(cond)                                                                          \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #cond); \
			exit(EXIT_FAILURE);                                                  \
		}                                                                            \
	} while (0)

enum { MAX_M = 64, MAX_N = 520, MAX_K = 600 };

static float a[MAX_M * MAX_K], b[MAX_K * MAX_N], c[MAX_M * MAX_N], want[MAX_M * MAX_N];

static void fill(float *x, size_t n, uint32_t s)
{
	for (size_t i = 0; i < n; i++) {
		s = s * 1664525 + 1013904223;
		x[i] = ((float)(s >> 8) * 0x1p-24f - 0.5f) * (s & 64 ? 1.0f : 0x1p-7f);
	}
}

static void start(void)
{
	ob_err e = { 0 };

	CHECK(ob_gemm_init(&e) == 0);
	CHECK(ob_gemm_init(&e) == 0); /* a second call changes nothing */
	fill(a, MAX_M * MAX_K, 1);
	fill(b, MAX_K * MAX_N, 2);
}

static void expect_equal(const float *got, size_t ld, size_t m, size_t n)
{
	for (size_t i = 0; i < m; i++)
		CHECK(memcmp(got + i * ld, want + i * n, n * sizeof(*got)) == 0);
}

/* ---- values -------------------------------------------------------------------------------- */

/* want = chain over k, added to what c holds when `accumulate`. */
static void chain(size_t m, size_t n, size_t k, bool accumulate)
{
	for (size_t i = 0; i < m; i++) {
		for (size_t j = 0; j < n; j++) {
			float x = 0;

			for (size_t l = 0; l < k; l++)
				x = fmaf(a[i * MAX_K + l], b[l * MAX_N + j], x);
			want[i * n + j] = accumulate ? c[i * MAX_N + j] + x : x;
		}
	}
}

static void part_equals_the_fma_chain(void)
{
	static const struct {
		size_t m, n, k;
	} shapes[] = {
		{ 1, 1, 1 },   { 1, 520, 16 }, { 64, 1, 16 },  { 6, 16, 4 },	 { 7, 17, 5 },
		{ 12, 32, 8 }, { 33, 65, 64 }, { 64, 500, 3 }, { 13, 520, 256 }, { 64, 128, 255 },
	};

	start();
	if (!ob_gemm_is_fma()) {
		printf("%s has no fused multiply-add: left out\n", ob_gemm_arch());
		return;
	}
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		const size_t m = shapes[i].m, n = shapes[i].n, k = shapes[i].k;

		/* What C held does not matter, and what lies beside it stays. */
		for (size_t j = 0; j < MAX_M * MAX_N; j++)
			c[j] = NAN;
		chain(m, n, k, false);
		ob_gemm(c, MAX_N, a, MAX_K, b, MAX_N, m, n, k, false);
		expect_equal(c, MAX_N, m, n);
		for (size_t j = 0; j < MAX_M * MAX_N; j++)
			CHECK((j / MAX_N < m && j % MAX_N < n) || isnan(c[j]));
		fill(c, MAX_M * MAX_N, 3);
		chain(m, n, k, true);
		ob_gemm(c, MAX_N, a, MAX_K, b, MAX_N, m, n, k, true);
		expect_equal(c, MAX_N, m, n);
	}
}

static void part_empty_products(void)
{
	start();
	fill(c, MAX_M * MAX_N, 3);
	memcpy(want, c, sizeof(c));
	ob_gemm(c, MAX_N, a, MAX_K, b, MAX_N, 0, 8, 8, false);
	ob_gemm(c, MAX_N, a, MAX_K, b, MAX_N, 8, 0, 8, false);
	ob_gemm(c, MAX_N, a, MAX_K, b, MAX_N, 8, 8, 0, true);
	CHECK(memcmp(c, want, sizeof(c)) == 0);
	ob_gemm(c, MAX_N, a, MAX_K, b, MAX_N, 1, 8, 0, false);
	for (unsigned i = 0; i < 8; i++)
		CHECK(c[i] == 0);
	CHECK(c[8] == want[8]);
}

/* C += A B in pieces of rows x cols, k in chunks. */
static void in_pieces(size_t rows, size_t cols, size_t m, size_t n, size_t k)
{
	memset(c, 0, sizeof(c));
	for (size_t i = 0; i < m; i += rows) {
		for (size_t j = 0; j < n; j += cols) {
			for (size_t l = 0; l < k; l += OB_GEMM_K_MAX) {
				const size_t mi = m - i < rows ? m - i : rows;
				const size_t nj = n - j < cols ? n - j : cols;
				const size_t kl = k - l < OB_GEMM_K_MAX ? k - l : OB_GEMM_K_MAX;

				ob_gemm(c + i * n + j, n, a + i * MAX_K + l, MAX_K,
					b + l * MAX_N + j, MAX_N, mi, nj, kl, true);
			}
		}
	}
}

static void part_independent_of_tiles(void)
{
	static const size_t ranks[] = { 8, 64, 128, MAX_K },
			    widths[] = { 1, 7, 16, 96, 256, MAX_N };

	start();
	for (size_t r = 0; r < sizeof(ranks) / sizeof(*ranks); r++) {
		in_pieces(MAX_M, MAX_N, MAX_M, MAX_N, ranks[r]);
		memcpy(want, c, sizeof(c));
		for (size_t rows = 1; rows <= MAX_M; rows += rows < 16 ? 1 : 7) {
			in_pieces(rows, MAX_N, MAX_M, MAX_N, ranks[r]);
			expect_equal(c, MAX_N, MAX_M, MAX_N);
		}
		for (size_t w = 0; w < sizeof(widths) / sizeof(*widths); w++) {
			in_pieces(24, widths[w], MAX_M, MAX_N, ranks[r]);
			expect_equal(c, MAX_N, MAX_M, MAX_N);
		}
	}
}

/* ---- threads and memory -------------------------------------------------------------------- */

enum { WORKERS = 3, ROWS = 256, COLS = 1024 };

static unsigned n_tasks(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/task");

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2; /* . and .. */
}

struct worker {
	pthread_t id;
	float *c;
	unsigned tasks_before, tasks_after;
};
static pthread_barrier_t all_ready, all_done;

static void *work(void *arg)
{
	struct worker *w = arg;

	pthread_barrier_wait(&all_ready);
	w->tasks_before = n_tasks();
	ob_gemm_warm_up(MAX_M, MAX_N, OB_GEMM_K_MAX);
	for (unsigned i = 0; i < 20; i++)
		ob_gemm(w->c, MAX_N, a, MAX_K, b, MAX_N, MAX_M, MAX_N, 128, false);
	w->tasks_after = n_tasks();
	pthread_barrier_wait(&all_done);
	return NULL;
}

static void part_threads(void)
{
	struct worker w[WORKERS];

	start();
	ob_gemm(want, MAX_N, a, MAX_K, b, MAX_N, MAX_M, MAX_N, 128, false);
	pthread_barrier_init(&all_ready, NULL, WORKERS);
	pthread_barrier_init(&all_done, NULL, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i].c = calloc(MAX_M * MAX_N, sizeof(float));
		CHECK(w[i].c);
		CHECK(pthread_create(&w[i].id, NULL, work, &w[i]) == 0);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		CHECK(pthread_join(w[i].id, NULL) == 0);
		expect_equal(w[i].c, MAX_N, MAX_M, MAX_N);
		CHECK(w[i].tasks_after == w[i].tasks_before);
		free(w[i].c);
	}
}

/* What BLIS has taken so far stays below what is announced for the largest shape so far; products
 * take nothing that warming up did not. */
static void expect_memory(size_t m, size_t n, size_t k)
{
	static uint64_t taken;
	float *x = calloc(m * k, sizeof(*x)), *y = calloc(k * n, sizeof(*y));
	float *z = calloc(m * n, sizeof(*z));
	uint64_t before, warm, after;

	CHECK(x && y && z);
	fill(x, m * k, 1);
	fill(y, k * n, 2);
	fill(z, m * n, 3);
	before = ob_rss_now();
	ob_gemm_warm_up(m, n, k);
	warm = ob_rss_now();
	ob_gemm(z, n, x, k, y, n, m, n, k, true);
	after = ob_rss_now();
	taken += after - before;
	printf("%zu x %zu x %zu: %llu KiB taken, %llu KiB announced\n", m, n, k,
	       (unsigned long long)taken >> 10, (unsigned long long)ob_gemm_memory(m, n, k) >> 10);
	CHECK(taken <= ob_gemm_memory(m, n, k));
	CHECK(after - warm <= 64 << 10);
	free(x);
	free(y);
	free(z);
}

static void part_memory(void)
{
	start();
	if (!MEASURES_MEMORY)
		return;
	expect_memory(3, 5, 16);
	expect_memory(64, 256, 16);
	expect_memory(128, 1024, 64);
	expect_memory(ROWS, COLS, OB_GEMM_K_MAX);
	expect_memory(ROWS, 4 * COLS, OB_GEMM_K_MAX);
}

/* ---- choice of the kernels ----------------------------------------------------------------- */

static void part_leaves_nothing_behind(void)
{
	unsetenv("BLIS_ARCH_TYPE");
	start();
	CHECK(!getenv("BLIS_ARCH_TYPE"));
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	CHECK(ob_gemm_version()[0] != '\0');
	printf("BLIS %s, %s\n", ob_gemm_version(), ob_gemm_arch());
#if defined(__x86_64__)
	CHECK(ob_gemm_is_fma() || !ob_cpu_has(OB_ISA_AVX2));
#endif
}

static void part_keeps_the_choice_of_the_user(void)
{
#if defined(__x86_64__)
	if (!ob_cpu_has(OB_ISA_AVX2))
		return;
	setenv("BLIS_ARCH_TYPE", "3", 1); /* in every version so far */
	start();
	CHECK(strcmp(ob_gemm_arch(), "haswell") == 0);
	CHECK(strcmp(getenv("BLIS_ARCH_TYPE"), "3") == 0);
#endif
}

static void part_refuses_a_wrong_choice(void)
{
	ob_err e = { 0 };

	setenv("BLIS_ARCH_TYPE", "999", 1);
	CHECK(ob_gemm_init(&e) == -1);
	CHECK(e.code == OB_USAGE);
	CHECK(strstr(e.msg, "BLIS_ARCH_TYPE 999"));
}

/* ---- main ---------------------------------------------------------------------------------- */

static void run(void (*part)(void), const char *name, int *failures)
{
	int status = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		part();
		exit(EXIT_SUCCESS);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
		fprintf(stderr, "%s failed\n", name);
		++*failures;
	}
}

int main(void)
{
	int failures = 0;

	run(part_leaves_nothing_behind, "leaves nothing behind", &failures);
	run(part_keeps_the_choice_of_the_user, "keeps the choice of the user", &failures);
	run(part_refuses_a_wrong_choice, "refuses a wrong choice", &failures);
	run(part_equals_the_fma_chain, "equals the fma chain", &failures);
	run(part_empty_products, "empty products", &failures);
	run(part_independent_of_tiles, "independent of tiles", &failures);
	run(part_threads, "threads", &failures);
	run(part_memory, "memory", &failures);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
