# SPDX-License-Identifier: Apache-2.0
"""What the tests of the program share: running it, under limits, and looking at what it left.

OOCBAKE names the program. Needs nothing beyond Python."""
import ctypes
from errno import EINVAL
import hashlib
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import toys

PROGRAM = os.environ.get("OOCBAKE", "./oocbake")
MIB = 1 << 20

with open(PROGRAM, "rb") as program:
    code = program.read()
    SANITIZED = b"__asan_init" in code or b"__tsan_init" in code
    del code


def run(*args, **kw):
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([PROGRAM, *args], timeout=120, **kw)


def tree(folder):
    """Names and hashes of everything below a folder."""
    found = {}
    for where, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(where, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, folder)] = hashlib.sha1(f.read()).hexdigest()
    return found


# ---- for preexec_fn -----------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)
IO_URING_SETUP = 425  # on every machine


def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def limited(**limits):
    """Sets resource limits."""
    def set_limits():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    return set_limits


def filtered(lines):
    """A filter of system calls as containers have them."""
    code = b"".join(struct.pack("HBBI", *line) for line in lines)

    def set_filter():
        lines = ctypes.create_string_buffer(code, len(code))
        program = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(lines)))
        check(libc.prctl(38, 1, 0, 0, 0))      # no new privileges
        check(libc.prctl(22, 2, program, 0, 0))  # filter
    return set_filter


def denied(syscall, error):
    return filtered([
        (0x20, 0, 0, 0),                 # load the number
        (0x15, 0, 1, syscall),           # equal?
        (0x06, 0, 0, 0x50000 | error),   # fail
        (0x06, 0, 0, 0x7fff0000)])       # allow


def without_direct():
    """Opening with O_DIRECT fails, as on file systems that do not have it."""
    openat = {"x86_64": 257}.get(os.uname().machine, 56)
    return filtered([
        (0x20, 0, 0, 0),                 # load the number
        (0x15, 0, 3, openat),
        (0x20, 0, 0, 32),                # load the flags
        (0x45, 0, 1, os.O_DIRECT),       # any of them?
        (0x06, 0, 0, 0x50000 | EINVAL),
        (0x06, 0, 0, 0x7fff0000)])


class Cgroup:
    """A memory cgroup below that of this process, version 1 or 2; OSError where none can be made."""

    def __init__(self, limit):
        with open("/proc/self/cgroup") as f:
            lines = [line.rstrip("\n").split(":", 2) for line in f]
        v1 = [path for _, names, path in lines if "memory" in names.split(",")]
        self.is_v1 = bool(v1)
        root = "/sys/fs/cgroup/memory" + v1[0] if v1 else "/sys/fs/cgroup" + lines[-1][2]
        self.path = f"{root.rstrip('/')}/oocbake-{os.getpid()}"
        os.mkdir(self.path)
        try:
            self.write("memory.limit_in_bytes" if self.is_v1 else "memory.max", limit)
        except OSError:
            self.remove()
            raise

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w") as f:
            f.write(str(value))

    def enter(self):
        self.write("cgroup.procs", os.getpid())

    def kills(self):
        with open(f"{self.path}/{'memory.oom_control' if self.is_v1 else 'memory.events'}") as f:
            return dict(line.split() for line in f)["oom_kill"]

    def remove(self):
        os.rmdir(self.path)


def unprivileged():
    """Root may do what others may not; nobody may not."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def may_mount():
    """A namespace of mounts for this process alone: as root, or as root of a user namespace."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(0x00020000):
        check(libc.unshare(0x10020000))
        for name, text in [("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")]:
            with open(f"/proc/self/{name}", "w") as f:
                f.write(text)
    check(libc.mount(b"none", b"/", None, 0x44000, None))  # nothing of it is seen outside


def mounted(kind, where, options):
    def mount():
        may_mount()
        check(libc.mount(b"none", where.encode(), kind.encode(), 0, options.encode()))
    return mount


class Case(unittest.TestCase):
    in_memory = False  # small outputs, where syncing takes no time; unless TMPDIR says where

    @classmethod
    def setUpClass(cls):
        memory = "/dev/shm" if cls.in_memory and "TMPDIR" not in os.environ and os.path.isdir("/dev/shm") else None
        cls.dir = tempfile.mkdtemp(prefix="oocbake-cli-", dir=memory)
        toys.model(f"{cls.dir}/small", 4, 256, 320, shards=2)
        toys.lora(f"{cls.dir}/lora", 4, 256, 320, 4)
        cls.small = ["-m", f"{cls.dir}/small", "--lora", f"{cls.dir}/lora"]

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def setUp(self):
        self.place = tempfile.mkdtemp(dir=self.dir)
        self.out = f"{self.place}/out"

    def tearDown(self):
        shutil.rmtree(self.place)

    def expect(self, status, result):
        self.assertEqual(result.returncode, status, result.stderr)
        return result

    def left(self):
        """What lies in the folder of the output."""
        return sorted(os.listdir(self.place))

    def bake(self, *args, **kw):
        return run("bake", *self.small, "-o", self.out, *args, **kw)
