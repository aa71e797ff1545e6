/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock and the seccomp filter, by their system calls.
 *
 * The filter lists what is denied. A list of what is allowed would have to hold what the C
 * library, BLIS and liburing of every system call, this year and next: an update of theirs would make
 * hours of work fail. What such a list is better at, calls that nobody has thought of, is mostly new
 * calls; they do not exist here (ENOSYS), with which every library can deal.
 */
#include "io/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Landlock ------------------------------------------------------------------------------ */

/* As in <linux/landlock.h>, which many systems have without the newer half. */
enum {
	EXECUTE = 1 << 0,
	WRITE_FILE = 1 << 1,
	READ_FILE = 1 << 2,
	READ_DIR = 1 << 3,
	REMOVE_DIR = 1 << 4,
	REMOVE_FILE = 1 << 5,
	MAKE_DIR = 1 << 7,
	MAKE_REG = 1 << 8,
	REFER = 1 << 13,    /* ABI 2: renames between folders, which ABI 1 forbids */
	TRUNCATE = 1 << 14, /* ABI 3 */
	IOCTL_DEV = 1 << 15 /* ABI 5 */
};

#define OF_FILES (EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV)
#define TCP (1 << 0 | 1 << 1)	/* ABI 4: bind, connect */
#define SCOPE (1 << 0 | 1 << 1) /* ABI 6: abstract sockets and signals to processes outside */

#define VERSION (1u << 0)
#define PATH_BENEATH 1

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

struct path_beneath_attr {
	uint64_t allowed;
	int32_t fd;
} __attribute__((packed));

static const uint64_t rights[] = {
	[OB_MAY_READ] = READ_FILE | READ_DIR,
	[OB_MAY_CHANGE] = 0xffff & ~(EXECUTE | IOCTL_DEV),
	[OB_MAY_RECEIVE_FILE] = REFER | MAKE_REG | REMOVE_DIR,
	[OB_MAY_RECEIVE_FOLDER] = REFER | MAKE_DIR | REMOVE_DIR,
	[OB_MAY_LOSE_FILE] = REMOVE_FILE,
};

/* Goes on without Landlock. */
static void give_up(struct ob_sandbox *s, const char *what, int error)
{
	if (s->ruleset >= 0)
		close(s->ruleset);
	s->ruleset = -1;
	s->landlock = 0;
	snprintf(s->why, sizeof(s->why), "%s%s%s", what, error ? ": " : "",
		 error ? strerror(error) : "");
}

static void add_rule(struct ob_sandbox *s, const char *path, int fd, enum ob_may may)
{
	struct path_beneath_attr rule = { .allowed = rights[may] & s->fs, .fd = fd };
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && !S_ISDIR(st.st_mode))
		rule.allowed &= OF_FILES;
	if (fd < 0 || syscall(SYS_landlock_add_rule, s->ruleset, PATH_BENEATH, &rule, 0))
		give_up(s, path, errno);
}

void ob_sandbox_begin(struct ob_sandbox *s)
{
	static const uint64_t known[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff };
	static int self = -1;
	struct ruleset_attr attr = { 0 };

	ob_sandbox_offer(s);
	if (!s->landlock) {
		give_up(s, "this kernel offers no Landlock", 0);
		return;
	}
	attr.fs = s->fs = known[s->landlock < 5 ? s->landlock : 5];
	attr.net = s->landlock >= 4 ? TCP : 0;
	attr.scoped = s->landlock >= 6 ? SCOPE : 0;
	s->ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (s->ruleset < 0) {
		give_up(s, "Landlock", errno);
		return;
	}
	/* Reports read there what memory was used. It is never closed: the kernel forgets an entry
	 * that nobody holds when memory is short, and its rule with it. */
	if (self < 0)
		self = open("/proc/self", O_PATH | O_CLOEXEC);
	if (self >= 0)
		add_rule(s, "/proc/self", self, OB_MAY_READ);
}

void ob_sandbox_allow(struct ob_sandbox *s, int dir, const char *path, enum ob_may may)
{
	const int nofollow = may == OB_MAY_CHANGE ? O_NOFOLLOW : 0;
	int fd;

	if (s->ruleset < 0)
		return;
	if (rights[may] & REFER & ~s->fs) {
		give_up(s, "Landlock before Linux 5.19 forbids the rename of an output into place",
			0);
		return;
	}
	fd = openat(dir, path, O_PATH | O_CLOEXEC | nofollow);
	add_rule(s, path, fd, may);
	if (fd >= 0)
		close(fd);
}

/* ---- the filter ---------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH

/* cachestat, Linux 6.5: the newest call that io/file.c makes. Also above it: all of the x32 ABI. */
#define NEWEST 451

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(test, value, yes, no) BPF_JUMP(BPF_JMP | (test) | BPF_K, value, yes, no)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)
#define FAIL(error) RETURN(SECCOMP_RET_ERRNO | (error))
#define DENY(nr) IF(BPF_JEQ, nr, 0, 1), FAIL(EPERM)

static const struct sock_filter filter[] = {
	LOAD(arch),
	IF(BPF_JEQ, ARCH, 1, 0),
	FAIL(EPERM),
	LOAD(nr),
	IF(BPF_JGT, NEWEST, 0, 1),
	FAIL(ENOSYS),

	/* Programs. Processes: clone3 hides its flags, without it libraries use clone (below). */
	DENY(SYS_execve),
	DENY(SYS_execveat),
	IF(BPF_JEQ, SYS_clone3, 0, 1),
	FAIL(ENOSYS),
	DENY(SYS_unshare),
	DENY(SYS_setns),
	DENY(SYS_personality),

	/* Sockets. */
	DENY(SYS_socket),
	DENY(SYS_socketpair),
	DENY(SYS_connect),
	DENY(SYS_bind),
	DENY(SYS_listen),
	DENY(SYS_accept),
	DENY(SYS_accept4),
	DENY(SYS_sendto),
	DENY(SYS_sendmsg),
	DENY(SYS_sendmmsg),
	DENY(SYS_recvfrom),
	DENY(SYS_recvmsg),
	DENY(SYS_recvmmsg),

	/* Other processes. tgkill stays, of which raise and abort are made. */
	DENY(SYS_ptrace),
	DENY(SYS_process_vm_readv),
	DENY(SYS_process_vm_writev),
	DENY(SYS_process_madvise),
	DENY(SYS_kcmp),
	DENY(SYS_pidfd_open),
	DENY(SYS_pidfd_getfd),
	DENY(SYS_pidfd_send_signal),
	DENY(SYS_kill),
	DENY(SYS_tkill),
	DENY(SYS_rt_sigqueueinfo),
	DENY(SYS_shmget),
	DENY(SYS_shmat),

	/* What a file is, beside its content: Landlock does not look at that. */
	DENY(SYS_fchmod),
	DENY(SYS_fchmodat),
	DENY(SYS_fchown),
	DENY(SYS_fchownat),
	DENY(SYS_utimensat),
	DENY(SYS_setxattr),
	DENY(SYS_lsetxattr),
	DENY(SYS_fsetxattr),
	DENY(SYS_removexattr),
	DENY(SYS_lremovexattr),
	DENY(SYS_fremovexattr),
	DENY(SYS_truncate),
	DENY(SYS_mknodat),
	DENY(SYS_name_to_handle_at),
	DENY(SYS_open_by_handle_at),

	/* Other users. */
	DENY(SYS_setuid),
	DENY(SYS_setgid),
	DENY(SYS_setreuid),
	DENY(SYS_setregid),
	DENY(SYS_setresuid),
	DENY(SYS_setresgid),
	DENY(SYS_setgroups),
	DENY(SYS_setfsuid),
	DENY(SYS_setfsgid),
	DENY(SYS_capset),

	/* The system. */
	DENY(SYS_mount),
	DENY(SYS_umount2),
	DENY(SYS_pivot_root),
	DENY(SYS_chroot),
	DENY(SYS_move_mount),
	DENY(SYS_open_tree),
	DENY(SYS_mount_setattr),
	DENY(SYS_fsopen),
	DENY(SYS_fsconfig),
	DENY(SYS_fsmount),
	DENY(SYS_fspick),
	DENY(SYS_swapon),
	DENY(SYS_swapoff),
	DENY(SYS_quotactl),
	DENY(SYS_quotactl_fd),
	DENY(SYS_acct),
	DENY(SYS_init_module),
	DENY(SYS_finit_module),
	DENY(SYS_delete_module),
	DENY(SYS_kexec_load),
	DENY(SYS_kexec_file_load),
	DENY(SYS_reboot),
	DENY(SYS_sethostname),
	DENY(SYS_setdomainname),
	DENY(SYS_settimeofday),
	DENY(SYS_clock_settime),
	DENY(SYS_clock_adjtime),
	DENY(SYS_adjtimex),
	DENY(SYS_syslog),
	DENY(SYS_vhangup),
	DENY(SYS_bpf),
	DENY(SYS_perf_event_open),
	DENY(SYS_userfaultfd),
	DENY(SYS_fanotify_init),
	DENY(SYS_add_key),
	DENY(SYS_request_key),
	DENY(SYS_keyctl),

#ifdef __x86_64__
	/* Older forms of the above. */
	DENY(SYS_fork),
	DENY(SYS_vfork),
	DENY(SYS_chmod),
	DENY(SYS_chown),
	DENY(SYS_lchown),
	DENY(SYS_utime),
	DENY(SYS_utimes),
	DENY(SYS_futimesat),
	DENY(SYS_mknod),
	DENY(SYS_iopl),
	DENY(SYS_ioperm),
	DENY(SYS_modify_ldt),
#endif

	/* Threads, no processes. */
	IF(BPF_JEQ, SYS_clone, 0, 4),
	LOAD(args[0]), /* the low half: little-endian machines */
	IF(BPF_JSET, CLONE_THREAD, 1, 0),
	FAIL(EPERM),
	RETURN(SECCOMP_RET_ALLOW),
	/* Nothing is typed into the terminal that the program was started from. */
	IF(BPF_JEQ, SYS_ioctl, 0, 4),
	LOAD(args[1]),
	IF(BPF_JEQ, TIOCSTI, 1, 0),
	IF(BPF_JEQ, TIOCLINUX, 0, 1),
	FAIL(EPERM),
	RETURN(SECCOMP_RET_ALLOW),
};

static const struct sock_filter no_ring[] = {
	LOAD(nr),
	DENY(SYS_io_uring_setup),
	RETURN(SECCOMP_RET_ALLOW),
};

static bool has_filter(void)
{
	const uint32_t action = SECCOMP_RET_ERRNO;

	return !syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
}

/* For all threads of the process, or none. */
static bool install(const struct sock_filter *code, size_t n)
{
	struct sock_fprog prog = { (unsigned short)n, (struct sock_filter *)(uintptr_t)code };

	return !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
}

#define INSTALL(code) install(code, sizeof(code) / sizeof((code)[0]))

#else

#define INSTALL(code) false

static bool has_filter(void)
{
	return false;
}

#endif

/* ---- both ---------------------------------------------------------------------------------- */

static unsigned rings_left; /* under the filter */

void ob_sandbox_offer(struct ob_sandbox *s)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION);

	*s = (struct ob_sandbox){ .landlock = abi > 0 ? (int)abi : 0,
				  .filter = has_filter(),
				  .ruleset = -1 };
}

int ob_sandbox_enter(struct ob_sandbox *s, bool required, unsigned rings, ob_err *e)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    (s->ruleset >= 0 && syscall(SYS_landlock_restrict_self, s->ruleset, 0)))
		give_up(s, "Landlock", errno);
	if (s->ruleset >= 0)
		close(s->ruleset);
	s->ruleset = -1;
	s->filter = s->filter && INSTALL(filter);
	rings_left = s->filter ? rings : 0;
	if (required && !s->landlock)
		return ob_fail(e, OB_IO, "there is no sandbox: %s", s->why);
	if (required && !s->filter)
		return ob_fail(
			e, OB_IO,
			"there is no sandbox: a seccomp filter cannot be had on this system");
	return 0;
}

int ob_sandbox_io_opened(ob_err *e)
{
	if (rings_left && !--rings_left && !INSTALL(no_ring))
		return ob_fail_sys(e, OB_IO, errno, "cannot complete the sandbox");
	return 0;
}

void ob_sandbox_text(const struct ob_sandbox *s, char *text, size_t size)
{
	char landlock[32] = "";

	if (s->landlock)
		snprintf(landlock, sizeof(landlock), "Landlock %d", s->landlock);
	snprintf(text, size, "%s%s%s", landlock, s->landlock && s->filter ? ", " : "",
		 s->filter     ? "seccomp"
		 : s->landlock ? ""
			       : "none");
}
