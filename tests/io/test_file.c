/* SPDX-License-Identifier: Apache-2.0 */
/* Input files: what may be opened, what happens when one changes, the cache query, the map. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "../base/oom.h"
#include "io/file.h"
#include "io/io.h"
#include "scratch.h"

TestSuite(file, .init = scratch_make, .fini = scratch_remove, .timeout = 30);

#define EXPECT(x)                                                               \
	do {                                                                    \
		if (!(x)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
			return 1;                                               \
		}                                                               \
	} while (0)

/* A file "f" of n bytes, each its offset modulo 251. */
static const char *make_file(size_t n)
{
	uint8_t *data = ob_alloc(n);

	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(i % 251);
	put_file(in_scratch("f"), data, n);
	ob_free(data);
	return in_scratch("f");
}

static struct ob_file *open_file(const char *path)
{
	struct ob_file *f;
	ob_err e = { 0 };

	cr_assert_eq(ob_file_open(&f, path, &e), 0, "%s", e.msg);
	return f;
}

static void refuse(const char *path, enum ob_code code)
{
	struct ob_file *f;
	ob_err e = { 0 };

	cr_assert_eq(ob_file_open(&f, path, &e), -1, "%s", path);
	cr_assert_eq(e.code, code, "%s", e.msg);
	cr_assert(strstr(e.msg, path), "%s", e.msg);
}

Test(file, map_and_read_agree)
{
	struct ob_file *f = open_file(make_file(100000));
	uint8_t buf[1000];
	ob_err e = { 0 };

	cr_assert_eq(f->stamp.size, 100000);
	cr_assert_eq(ob_file_read(f, buf, sizeof(buf), 4321, &e), 0);
	cr_assert_arr_eq(buf, f->map + 4321, sizeof(buf));
	cr_assert_eq(buf[0], 4321 % 251);
	cr_assert_eq(ob_file_check(f, &e), 0, "%s", e.msg);
	ob_file_will_need(f, 5000, 20000);
	ob_file_drop(f, 5000, 20000);
	ob_file_drop(f, 0, 100001); /* outside: ignored */
	cr_assert_eq(f->map[5001], 5001 % 251);
	cr_assert_eq(fcntl(f->handle->fd, F_GETFL) & O_NONBLOCK, 0);
	ob_file_close(f);
	ob_file_close(NULL);
}

Test(file, an_empty_file_has_no_map)
{
	struct ob_file *f = open_file(make_file(0));

	cr_assert_null(f->map);
	cr_assert_not(ob_file_cached(f, 0, 0));
	ob_file_will_need(f, 0, 0);
	ob_file_close(f);
}

Test(file, only_regular_files)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	refuse(in_scratch("absent"), OB_IO);
	refuse(scratch_dir, OB_CORRUPT);
	refuse("/dev/null", OB_CORRUPT);
	mkfifo(in_scratch("fifo"), 0600);
	refuse(in_scratch("fifo"), OB_CORRUPT); /* nobody writes to it: a plain open would hang */
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", in_scratch("socket"));
	cr_assert_eq(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
	refuse(in_scratch("socket"), OB_CORRUPT);
	close(s);
	make_file(10);
	cr_assert_eq(symlink("f", in_scratch("link")), 0);
	ob_file_close(open_file(in_scratch("link")));
}

Test(file, reading_past_the_end_names_the_file)
{
	struct ob_file *f = open_file(make_file(1000));
	char buf[100];
	ob_err e = { 0 };

	cr_assert_eq(truncate(f->path, 950), 0);
	cr_assert_eq(ob_file_read(f, buf, 100, 900, &e), -1);
	cr_assert_eq(e.code, OB_CHANGED);
	cr_assert(strstr(e.msg, f->path) && strstr(e.msg, "1000"));
	ob_file_close(f);
}

Test(file, slurp)
{
	const char *path = make_file(5000);
	char *text;
	size_t len;
	ob_err e = { 0 };

	cr_assert_eq(ob_file_slurp(path, 5000, &text, &len, &e), 0, "%s", e.msg);
	cr_assert_eq(len, 5000);
	cr_assert_eq(text[5000], '\0');
	cr_assert_eq((uint8_t)text[4999], 4999 % 251);
	ob_free(text);
	cr_assert_eq(ob_file_slurp(path, 4999, &text, &len, &e), -1);
	cr_assert_eq(e.code, OB_LIMIT);
	cr_assert_eq(ob_file_slurp(make_file(0), 10, &text, &len, &(ob_err){ 0 }), 0);
	cr_assert_eq(len, 0);
	ob_free(text);
}

/* ---- changes ------------------------------------------------------------------------------- */

static void expect_changed(const struct ob_file *f)
{
	ob_err e = { 0 };

	cr_assert_eq(ob_file_check(f, &e), -1);
	cr_assert_eq(e.code, OB_CHANGED, "%s", e.msg);
	cr_assert(strstr(e.msg, f->path), "%s", e.msg);
}

Test(file, changes_are_seen)
{
	const struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	struct ob_file *f = open_file(make_file(1000));

	cr_assert_eq(truncate(f->path, 1001), 0);
	expect_changed(f);
	ob_file_close(f);

	f = open_file(make_file(1000)); /* written to, or touched */
	utimensat(AT_FDCWD, f->path, times, 0);
	expect_changed(f);
	ob_file_close(f);

	f = open_file(make_file(1000)); /* replaced by a twin */
	put_file(in_scratch("twin"), "", 0);
	cr_assert_eq(truncate(in_scratch("twin"), 1000), 0);
	rename(in_scratch("twin"), f->path);
	expect_changed(f);
	ob_file_close(f);

	f = open_file(make_file(1000));
	unlink(f->path);
	expect_changed(f);
	ob_file_close(f);
}

static int read_cut_map(void *ctx)
{
	struct ob_file *f = ctx;
	unsigned sum = 0;

	for (size_t i = 10000; i < f->stamp.size; i++)
		sum += f->map[i];
	return sum == 0 ? 0 : 1;
}

static void *read_cut_map_thread(void *ctx)
{
	return (void *)(intptr_t)read_cut_map(ctx);
}

Test(file, a_file_cut_under_its_map_is_an_error_and_no_death)
{
	struct ob_file *other = open_file(make_file(100)), *f;
	pthread_t t;
	void *ret;

	rename(other->path, in_scratch("other"));
	f = open_file(make_file(100000));
	cr_assert_eq(truncate(f->path, 8192), 0);
	cr_assert_eq(f->shrunk, 0);
	pthread_create(&t, NULL, read_cut_map_thread, f);
	pthread_join(t, &ret);
	cr_assert_null(ret);
	cr_assert_eq(f->shrunk, 1);
	cr_assert_eq(f->map[8191], 8191 % 251); /* what is left stays readable */
	cr_assert_eq(truncate(f->path, 100000), 0);
	expect_changed(f);
	cr_assert_eq(other->shrunk, 0);
	ob_file_close(f);
	ob_file_close(other);
}

/* A fault in a mapping of somebody else. */
static volatile char *foreign_map(void)
{
	int fd = open(in_scratch("foreign"), O_RDWR | O_CREAT, 0600);

	return mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
}

static int fault_elsewhere(void *ctx)
{
	ob_file_close(open_file(make_file(10))); /* installs the handler */
	(void)ctx;
	return *foreign_map();
}

static volatile sig_atomic_t chained;

static void on_foreign_fault(int sig)
{
	chained = sig;
	_exit(42);
}

static void on_foreign_fault_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	_exit(sig == SIGBUS && info->si_addr ? 43 : 1);
}

static int fault_elsewhere_chained(void *ctx)
{
	struct sigaction act = { 0 };

	if (ctx) {
		act.sa_sigaction = on_foreign_fault_info;
		act.sa_flags = SA_SIGINFO;
	} else {
		act.sa_handler = on_foreign_fault;
	}
	sigaction(SIGBUS, &act, NULL);
	return fault_elsewhere(NULL);
}

static int default_handler(void *ctx)
{
	struct rlimit no_core = { 0, 0 };

	signal(SIGBUS, SIG_DFL); /* a sanitizer may have one */
	setrlimit(RLIMIT_CORE, &no_core);
	return fault_elsewhere(ctx);
}

static int sent_signal(void *ctx)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = SI_QUEUE };
	struct ob_file *f;

	(void)ctx;
	signal(SIGBUS, SIG_DFL);
	f = open_file(make_file(10));
	info.si_addr = (void *)(uintptr_t)f->map; /* no fault, whatever the sender writes here */
	syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info);
	return f->shrunk; /* not reached */
}

Test(file, other_faults_go_where_they_went_before)
{
	int status = in_child(default_handler, NULL);

	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%x", (unsigned)status);
	status = in_child(sent_signal, NULL);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%x", (unsigned)status);
	status = in_child(fault_elsewhere_chained, NULL);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 42, "%x", (unsigned)status);
	status = in_child(fault_elsewhere_chained, &status);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 43, "%x", (unsigned)status);
}

/* ---- direct and cached --------------------------------------------------------------------- */

Test(file, direct_descriptor)
{
	_Alignas(OB_IO_ALIGN) static uint8_t buf[OB_IO_ALIGN];
	struct ob_file *f = open_file(make_file(1000));

	ob_file_enable_direct(f);
	cr_assert_eq(f->handle->fd_direct, -1, "a small file");
	ob_file_close(f);

	f = open_file(make_file(200000));
	ob_file_enable_direct(f);
	if (f->handle->fd_direct >= 0) {
		cr_assert(fcntl(f->handle->fd_direct, F_GETFL) & O_DIRECT);
		cr_assert_eq(fcntl(f->handle->fd_direct, F_GETFL) & O_NONBLOCK, 0);
		cr_assert_eq(pread(f->handle->fd_direct, buf, sizeof(buf), OB_IO_ALIGN),
			     OB_IO_ALIGN);
		cr_assert_arr_eq(buf, f->map + OB_IO_ALIGN, sizeof(buf));
	} else {
		cr_log_info("no direct reads on %s", scratch_dir);
	}
	ob_file_close(f);

	f = open_file(make_file(200000)); /* another file gets the name of the one that is open */
	rename(f->path, in_scratch("moved"));
	make_file(200000);
	ob_file_enable_direct(f);
	cr_assert_eq(f->handle->fd_direct, -1);
	ob_file_close(f);
}

/* Leaves only the first and the last 2 MiB in the cache; false where a file system has no other
 * place for them. */
static bool evict_middle(const struct ob_file *f)
{
	static char buf[2u << 20];
	char byte;
	struct iovec v = { &byte, 1 };
	int tries = 0;

	posix_fadvise(f->handle->fd, 0, 0, POSIX_FADV_RANDOM); /* no read-ahead */
	do {
		if (tries++ == 100)
			return false;
		usleep(1000); /* pages just written may be busy for a moment */
		fdatasync(f->handle->fd);
		posix_fadvise(f->handle->fd, 0, 0, POSIX_FADV_DONTNEED);
	} while (preadv2(f->handle->fd, &v, 1, 3u << 20, RWF_NOWAIT) == 1 || errno != EAGAIN);
	return !ob_file_read(f, buf, sizeof(buf), 0, NULL) &&
	       !ob_file_read(f, buf, sizeof(buf), 6u << 20, NULL);
}

static int check_cached(void *ctx)
{
	struct ob_file *f = open_file(make_file(8u << 20));

	if (ctx) /* an old kernel */
		trap(451, -1, SECCOMP_RET_ERRNO | ENOSYS);
	EXPECT(ob_file_cached(f, 0, f->stamp.size));
	EXPECT(ob_file_cached(f, 12345, 1));
	EXPECT(ob_file_cached(f, 100, UINT64_MAX));
	EXPECT(!ob_file_cached(f, f->stamp.size, 1));
	EXPECT(!ob_file_cached(f, UINT64_MAX, UINT64_MAX));
	if (evict_middle(f)) {
		EXPECT(ob_file_cached(f, 0, 2u << 20));
		EXPECT(ob_file_cached(f, 6u << 20, 2u << 20));
		EXPECT(!ob_file_cached(f, 0, f->stamp.size));
		EXPECT(!ob_file_cached(f, 4u << 20, 1));
		EXPECT(!ob_file_cached(f, (6u << 20) - 4096, 2u << 20));
	} else {
		fprintf(stderr, "%s cannot leave the cache: half of this test is moot\n", f->path);
	}
	ob_file_close(f);
	return 0;
}

Test(file, cached_ranges)
{
	cr_assert_eq(in_child(check_cached, NULL), 0);
	cr_assert_eq(in_child(check_cached, scratch_dir), 0, "without cachestat");
}

/* The kernel calls every page resident for those who may not write the file. */
static int foreign_reader(void *ctx)
{
	struct ob_file *f;

	(void)ctx;
	EXPECT(!chmod(scratch_dir, 0755) && !chmod(make_file(100000), 0644));
	EXPECT(!setgid(65534) && !setuid(65534));
	f = open_file(in_scratch("f"));
	trap(451, -1, SECCOMP_RET_ERRNO | ENOSYS);
	EXPECT(!ob_file_cached(f, 0, 100000));
	ob_file_close(f);
	return 0;
}

Test(file, residency_is_unknown_to_strangers)
{
	if (geteuid() == 0)
		cr_assert_eq(in_child(foreign_reader, NULL), 0);
	else
		cr_log_info("only root can become a stranger to its own file");
}

/* ---- rest ---------------------------------------------------------------------------------- */

static int raise_limit(void *ctx)
{
	struct rlimit r;

	(void)ctx;
	EXPECT(!getrlimit(RLIMIT_NOFILE, &r));
	r.rlim_cur = 20;
	EXPECT(!setrlimit(RLIMIT_NOFILE, &r));
	ob_file_close(open_file(make_file(10)));
	EXPECT(!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur == r.rlim_max);
	return 0;
}

Test(file, the_limit_of_open_files_is_raised)
{
	cr_assert_eq(in_child(raise_limit, NULL), 0);
}

Test(file, names_are_plain)
{
	static const char *const bad[] = { "", ".", "..", "/", "a/b", "../a", "/etc/passwd", "a/" };
	static const char *const good[] = { "a", "...", "..a", "model-00001-of-00002.safetensors" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ob_err e = { 0 };

		cr_assert_eq(ob_name_check(bad[i], "index.json", &e), -1, "%s", bad[i]);
		cr_assert_eq(e.code, OB_UNSAFE);
		cr_assert(strstr(e.msg, "index.json"));
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert_eq(ob_name_check(good[i], "index.json", NULL), 0);
}

static int open_and_slurp(void *ctx, ob_err *e)
{
	struct ob_file *f;
	char *text;
	size_t len;

	if (ob_file_open(&f, ctx, e))
		return -1;
	ob_file_close(f);
	if (ob_file_slurp(ctx, 1000, &text, &len, e))
		return -1;
	ob_free(text);
	return 0;
}

Test(file, out_of_memory)
{
	cr_assert_eq(oom_sweep(open_and_slurp, (void *)(uintptr_t)make_file(100)), 5);
}
