/* SPDX-License-Identifier: Apache-2.0 */
/* A folder for one test, and system calls that fail or kill on demand (in forked children). */
#ifndef OB_TESTS_IO_SCRATCH_H
#define OB_TESTS_IO_SCRATCH_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch_dir[256];

/* For a Criterion .init. */
static inline void scratch_make(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(scratch_dir, sizeof(scratch_dir), "%s/oocbake-io-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(scratch_dir))
		abort();
}

static inline int scratch_unlink(const char *path, const struct stat *st, int flag, struct FTW *w)
{
	(void)st, (void)flag, (void)w;
	return remove(path);
}

static inline void scratch_remove(void)
{
	nftw(scratch_dir, scratch_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

/* scratch_dir/name; the last 64 results live. */
static inline const char *in_scratch(const char *name)
{
	static char text[64][sizeof(scratch_dir) + 256];
	static unsigned turn;
	char *s = text[turn++ % 64];

	snprintf(s, sizeof(text[0]), "%s/%s", scratch_dir, name);
	return s;
}

static inline void put_file(const char *path, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, n) != (ssize_t)n || close(fd))
		abort();
}

/* From now on system call `nr` does `action` (SECCOMP_RET_ERRNO | errno, or
 * SECCOMP_RET_KILL_PROCESS) in this process; with arg >= 0 only where that argument is not 0. */
static inline void trap(long nr, int arg, uint32_t action)
{
	const unsigned i = arg < 0 ? 0 : (unsigned)arg;
	const unsigned at = offsetof(struct seccomp_data, args) + 8u * i;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at), /* the low half: little-endian machines */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, arg < 0 ? 0 : 1, 0),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		abort();
}

/* A child that does not outlive a test that fails. */
static inline pid_t fork_child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		abort();
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* Runs body in a child; returns the status of waitpid. The child's result is its exit status. */
static inline int in_child(int (*body)(void *), void *ctx)
{
	pid_t pid = fork_child();
	int status;

	if (pid == 0)
		_exit(body(ctx));
	if (waitpid(pid, &status, 0) != pid)
		abort();
	return status;
}

#endif
