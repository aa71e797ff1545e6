/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox, in children that enter it: what a run needs works, all else is refused. On a kernel
 * without Landlock, real or pretended, what the filter alone promises.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "../support/check.h"
#include "base/util.h"
#include "io/io.h"
#include "io/sandbox.h"
#include "io/stage.h"
#include "kernels/gemm.h"
#include "scratch.h"

#define REFUSED(x, error) \
	CHECK((errno = 0, (x) == -1 && errno == (error)), "%s: %s", scenario, strerror(errno))
#define WORKS(x) CHECK((errno = 0, (x) != -1), "%s: %s", scenario, strerror(errno))

static const char *scenario;
static int pretended_abi; /* 0: the kernel's own */

/* In the place of the C library's; like it, it reads six arguments however many there are. */
__attribute__((no_sanitize("address"))) long syscall(long nr, ...)
{
	long (*real)(long, ...) = (long (*)(long, ...))(uintptr_t)dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list ap;

	va_start(ap, nr);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (nr == SYS_landlock_create_ruleset && a[2] == 1 && pretended_abi)
		return pretended_abi;
	return real(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- the scene ----------------------------------------------------------------------------- */

struct scene {
	struct ob_stage *st;
	struct ob_sandbox s;
	const char *output; /* path */
	bool is_file;
	int other; /* a descriptor from before */
};

/* A download cache, whose folders of models hold links; and a folder for the output. */
static void make_inputs(void)
{
	mkdir(in_scratch("blobs"), 0700);
	mkdir(in_scratch("snapshot"), 0700);
	mkdir(in_scratch("to"), 0700);
	put_file(in_scratch("blobs/1"), "one", 3);
	put_file(in_scratch("blobs/2"), "two", 3);
	put_file(in_scratch("snapshot/private"), "key", 3);
	WORKS(symlink("../blobs/1", in_scratch("snapshot/model")));
}

static int enter(struct scene *c, bool required, ob_err *e)
{
	ob_sandbox_begin(&c->s);
	ob_sandbox_allow(&c->s, AT_FDCWD, in_scratch("snapshot/model"), OB_MAY_READ);
	ob_stage_allow(c->st, &c->s);
	return ob_sandbox_enter(&c->s, required, 2, e);
}

static void check_published(struct scene *c)
{
	ob_err e = { 0 };
	struct stat st;

	if (!c->is_file)
		CHECK(!ob_stage_mkdir(c->st, "a/b", &e), "%s: %s", scenario, e.msg);
	CHECK(!ob_stage_copy(c->st, c->is_file ? "" : "a/b/x", in_scratch("snapshot/model"), &e),
	      "%s: %s", scenario, e.msg);
	CHECK(!ob_stage_publish(c->st, &e), "%s: %s", scenario, e.msg);
	ob_stage_close(c->st);
	CHECK(!lstat(c->output, &st) && (c->is_file ? S_ISREG(st.st_mode) : S_ISDIR(st.st_mode)),
	      "%s: no output", scenario);
	REFUSED(lstat(in_scratch(c->is_file ? "to/.x.safetensors.oocbake" : "to/.out.oocbake"),
		      &st),
		ENOENT);
}

/* ---- what works, and what is refused ------------------------------------------------------- */

static void check_files(void)
{
	const char *model = in_scratch("snapshot/model");
	char text[4] = "";
	int fd;

	WORKS(fd = open(model, O_RDONLY));
	CHECK(read(fd, text, 3) == 3 && !strcmp(text, "one"), "%s: %s", scenario, text);
	CHECK(ob_rss_peak() > 0, "%s: /proc/self cannot be read", scenario);

	REFUSED(open(model, O_RDWR), EACCES);
	REFUSED(open(in_scratch("snapshot/private"), O_RDONLY), EACCES);
	REFUSED(open(in_scratch("blobs/2"), O_RDONLY), EACCES);
	REFUSED(open(in_scratch("blobs"), O_RDONLY | O_DIRECTORY), EACCES);
	REFUSED(open("/etc/passwd", O_RDONLY), EACCES);
	REFUSED(open("/proc/version", O_RDONLY), EACCES);
	REFUSED(open("/", O_RDONLY | O_DIRECTORY), EACCES);
	REFUSED(open(in_scratch("to/new"), O_WRONLY | O_CREAT, 0600), EACCES);
	REFUSED(open("/tmp", O_TMPFILE | O_RDWR, 0600), EACCES);
	REFUSED(unlink(in_scratch("blobs/2")), EACCES);
	REFUSED(mkdir(in_scratch("new"), 0700), EACCES);
	REFUSED(rmdir(in_scratch("to")), EACCES);
	REFUSED(symlink("/etc/passwd", in_scratch("to/link")), EACCES);
	REFUSED(rename(in_scratch("blobs/2"), in_scratch("to/2")), EACCES);
}

static void *do_nothing(void *arg)
{
	return arg;
}

static void check_calls(const struct scene *c)
{
	char *const argv[] = { (char *)(uintptr_t) "true", NULL };
	const char *model = in_scratch("snapshot/model");
	pthread_t thread;

	REFUSED(execv("/bin/true", argv), EPERM);
	REFUSED(fork(), EPERM);
	REFUSED(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0L, 0L, 0L, 0L), EPERM);
	REFUSED(syscall(SYS_clone3, 0L, 0L), ENOSYS);
	CHECK(!pthread_create(&thread, NULL, do_nothing, NULL) && !pthread_join(thread, NULL),
	      "%s: no thread", scenario);
	REFUSED(unshare(CLONE_NEWNS), EPERM);
	REFUSED(socket(AF_INET, SOCK_DGRAM, 0), EPERM);
	REFUSED(socket(AF_UNIX, SOCK_STREAM, 0), EPERM);
	REFUSED(syscall(SYS_ptrace, 0L, 0L, 0L, 0L), EPERM);
	REFUSED(syscall(SYS_process_vm_readv, (long)getppid(), 0L, 0L, 0L, 0L, 0L), EPERM);
	REFUSED(kill(getppid(), 0), EPERM);
	REFUSED(syscall(SYS_bpf, 0L, 0L, 0L), EPERM);
	REFUSED(syscall(SYS_keyctl, 0L), EPERM);
	REFUSED(setuid(getuid()), EPERM);
	REFUSED(chmod(model, 0777), EPERM);
	REFUSED(fchmod(c->other, 0777), EPERM);
	REFUSED(truncate(in_scratch("snapshot/private"), 0), EPERM);
	REFUSED(utimes(model, NULL), EPERM);
	REFUSED(ioctl(c->other, TIOCSTI, "x"), EPERM);
	REFUSED(ioctl(c->other, TCGETS, (char[256]){ 0 }), ENOTTY);
	REFUSED(syscall(452, 0L, 0L, 0L, 0L), ENOSYS); /* fchmodat2 */
#ifdef __x86_64__
	REFUSED(syscall(0x40000000 | SYS_getpid), ENOSYS);
#endif
}

/* The descriptor of the one ring there is. */
static int find_ring(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *ent;
	int found = -1;

	CHECK(d, "/proc");
	while ((ent = readdir(d))) {
		char path[300], to[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%s", ent->d_name);
		if (readlink(path, to, sizeof(to) - 1) > 0 && strstr(to, "[io_uring]"))
			found = atoi(ent->d_name);
	}
	closedir(d);
	return found;
}

static void transfer(struct ob_io *io, enum ob_io_op op, int fd, char *buf)
{
	struct ob_io_req r = { .op = op, .fd = fd, .len = 3, .buf = buf };
	struct ob_io_req *done;

	io->ops->submit(io, &r);
	do
		done = io->ops->reap(io, -1);
	while (!done);
	CHECK(!r.error, "%s: %s", scenario, strerror(r.error));
}

static void check_ring(const struct scene *c)
{
	char notice[256], got[4] = "";
	ob_err e = { 0 };
	struct ob_io *io, *more;

	for (unsigned i = 0; i < 2; i++) {
		if (i)
			io->ops->close(io);
		CHECK(!ob_io_open(&io, OB_IO_URING, 4, notice, sizeof(notice), &e), "%s: %s",
		      scenario, e.msg);
	}
	transfer(io, OB_IO_WRITE, c->other, (char[]){ "new" });
	transfer(io, OB_IO_SYNC, c->other, NULL);
	transfer(io, OB_IO_READ, c->other, got);
	CHECK(!strcmp(got, "new"), "%s: read %s", scenario, got);
	/* The ring is restricted, and the last one. */
	REFUSED(syscall(SYS_io_uring_register, (long)find_ring(), 4L, &c->other, 1L), EACCES);
	CHECK(ob_io_open(&more, OB_IO_URING, 4, notice, sizeof(notice), &e), "%s: three rings",
	      scenario);
	io->ops->close(io);
}

/* ---- scenarios ----------------------------------------------------------------------------- */

static const struct scenario {
	const char *name;
	const char *old;  /* in the place of the output, a folder "out" or a file "x.safetensors" */
	int abi;	  /* of Landlock, pretended; 0: the kernel's own */
	int refused;	  /* a system call that the kernel does not have */
	const char *text; /* how the sandbox describes itself */
	const char *why;  /* what is missing */
} all[] = {
	{ .name = "folder" },
	{ .name = "file" },
	{ .name = "folder", .old = "folder" },
	{ .name = "folder", .old = "file" },
	{ .name = "folder", .old = "link" },
	{ .name = "file", .old = "file" },
	{ .name = "file", .old = "folder" },
	{ .name = "file", .old = "link" },
	{ .name = "folder", .abi = 2, .text = "Landlock 2, seccomp" },
	{ .name = "folder", .abi = 3, .text = "Landlock 3, seccomp" },
	{ .name = "folder", .abi = 4, .text = "Landlock 4, seccomp" },
	{ .name = "folder", .abi = 5, .text = "Landlock 5, seccomp" },
	{ .name = "folder", .abi = 1, .text = "seccomp", .why = "before Linux 5.19" },
	{ .name = "folder",
	  .refused = SYS_landlock_create_ruleset,
	  .text = "seccomp",
	  .why = "offers no Landlock" },
	{ .name = "folder", .refused = SYS_seccomp, .why = "seccomp filter" },
};

static void make_old(const char *kind, const char *path)
{
	if (!strcmp(kind, "file"))
		put_file(path, "old", 3);
	else if (!strcmp(kind, "link"))
		WORKS(symlink("../blobs", path));
	else
		WORKS(mkdir(path, 0700));
}

static void set_up(struct scene *c, const struct scenario *s)
{
	ob_err e = { 0 };

	c->is_file = !strcmp(s->name, "file");
	c->output = in_scratch(c->is_file ? "to/x.safetensors" : "to/out");
	c->other = open(in_scratch("snapshot/private"), O_RDWR);
	if (s->old)
		make_old(s->old, c->output);
	CHECK(!ob_stage_open(&c->st, c->output, c->is_file, s->old, &e), "%s: %s", scenario, e.msg);
	pretended_abi = s->abi;
	if (s->refused)
		trap(s->refused, -1, SECCOMP_RET_ERRNO | ENOSYS);
}

static int run_inside(void *ctx)
{
	const struct scenario *s = ctx;
	struct scene c = { 0 };
	ob_err e = { 0 };
	char text[64];
	struct ob_io *io;
	const bool has_uring = !ob_io_open_uring(&io, 4, NULL);

	if (has_uring)
		io->ops->close(io);
	set_up(&c, s);
	CHECK(!enter(&c, !s->why, &e), "%s: %s", scenario, e.msg);
	ob_sandbox_text(&c.s, text, sizeof(text));
	CHECK(!s->text || !strcmp(text, s->text), "%s: %s", scenario, text);
	if (c.s.landlock)
		check_files();
	else
		WORKS(open("/etc/passwd", O_RDONLY));
	if (c.s.filter) {
		check_calls(&c);
		if (has_uring)
			check_ring(&c);
	}
	check_published(&c);
	return 0;
}

static int require_it(void *ctx)
{
	const struct scenario *s = ctx;
	struct scene c = { 0 };
	ob_err e = { 0 };

	set_up(&c, s);
	CHECK(enter(&c, true, &e) && e.code == OB_IO && strstr(e.msg, s->why), "%s: %s", scenario,
	      e.msg);
	return 0;
}

static void run(int (*body)(void *), const struct scenario *s)
{
	char name[128];

	snprintf(name, sizeof(name), "%s over %s, ABI %d, without call %d", s->name,
		 s->old ? s->old : "nothing", s->abi, s->refused);
	scenario = name;
	scratch_make();
	make_inputs();
	CHECK(!in_child(body, (void *)(uintptr_t)s), "%s", name);
	scratch_remove();
}

/* A thread from before is under the filter, too. */
static void *wait_and_connect(void *arg)
{
	pthread_mutex_lock(arg);
	errno = 0;
	return (void *)(uintptr_t)(socket(AF_INET, SOCK_DGRAM, 0) == -1 && errno == EPERM);
}

static int older_thread(void *ctx)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct ob_sandbox s;
	pthread_t thread;
	ob_err e = { 0 };
	void *refused;

	(void)ctx;
	pthread_mutex_lock(&lock);
	if (pthread_create(&thread, NULL, wait_and_connect, &lock))
		return 1;
	ob_sandbox_begin(&s);
	if (ob_sandbox_enter(&s, false, 1, &e))
		return 1;
	pthread_mutex_unlock(&lock);
	return pthread_join(thread, &refused) || !refused;
}

/* Landlock does not reach threads from before: there must be none. */
static int blis_starts_none(void *ctx)
{
	struct stat before, after;
	ob_err e = { 0 };

	(void)ctx;
	/* Each thread is a link of this folder. */
	if (stat("/proc/self/task", &before) || ob_gemm_init(&e) || stat("/proc/self/task", &after))
		return 1;
	return before.st_nlink != after.st_nlink;
}

int main(void)
{
	struct ob_sandbox offer;
	unsigned n = 0;

	ob_sandbox_offer(&offer);
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct scenario s = all[i];

		/* A kernel without Landlock, or a container that hides it: the filter alone. */
		if (offer.landlock < 2 || offer.landlock < s.abi) {
			if (s.abi)
				continue;
			s.why = s.refused == SYS_seccomp ? NULL : "Landlock";
			s.text = s.refused == SYS_seccomp ? "none" : "seccomp";
		}
		run(run_inside, &s);
		if (s.why)
			run(require_it, &s);
		n++;
	}
	CHECK(!in_child(older_thread, NULL), "a thread from before is free");
	CHECK(!in_child(blis_starts_none, NULL), "BLIS has started threads");
	printf("%u scenarios, Landlock ABI %d\n", n, offer.landlock);
	return 0;
}
