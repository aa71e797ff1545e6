#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bakes that are killed at random moments, fail at random points, or lose their disk, and are resumed: always the same bytes.

Takes minutes to hours; `./bootstrap soak [SIZE [KILLS [FAULTS]]]` runs it on a fresh build. The power losses need root, loop
devices and mkfs.ext4, and are left out, with a line that says so, where these are missing."""
import argparse
import errno
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

BACKENDS = ["uring", "threads", "sync"]
EXT4_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2

# Name, errno, bytes less, how many in a row when it is not to last.
NOTHING = 0xffffffff
FAULTS = [(name, getattr(errno, name), 0, 1) for name in ["EIO", "ENOSPC", "EDQUOT", "EROFS"]]
FAULTS += [(name, getattr(errno, name), 0, 3) for name in ["EINTR", "EAGAIN", "ECANCELED"]]
FAULTS += [("one byte less", 0, 1, 1), ("half", 0, 2 << 20, 1), ("nothing", 0, NOTHING, 1)]
FOR_EVER = 1 << 62


def sha1(path):
    return subprocess.run(["sha1sum", path], check=True, stdout=subprocess.PIPE).stdout.split()[0]


def unmount(mount):
    """The kernel holds files of a killed process until its transfers end."""
    for _ in range(600):
        if subprocess.run(["umount", mount], stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{mount} stays busy")


def tree(folder):
    return {name: sha1(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}


class Soak:
    def __init__(self, args, place):
        self.program = os.path.abspath(args.baker)
        self.inputs = f"{place}/in"
        self.random = random.Random(args.seed)
        subprocess.run([args.mkmodel, "--size", args.size, "--lora", "16", "--shard-size", "200MB", self.inputs],
                       check=True, stdout=subprocess.DEVNULL)

    def command(self, out, *more):
        return [self.program, f"model={self.inputs}/model", f"lora={self.inputs}/lora", "bits=8", "max-shard-size=150MB",
                f"output={out}", "memory=100MiB", *more]

    def bake(self, out, *more):
        begin = time.monotonic()
        done = subprocess.run(self.command(out, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done, time.monotonic() - begin

    def killed(self, out, delay, sig, *more):
        """True when the run was still under way."""
        child = subprocess.Popen(self.command(out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        child.send_signal(sig)
        status = child.wait()
        stopped = 1 if sig == signal.SIGTERM else -sig
        assert status in (0, stopped), status
        return status != 0

    def finish(self, out, good, what):
        """Ends what was killed; True when something of it was there."""
        if not os.path.exists(out):  # else the kill came after the publication
            done, _ = self.bake(out, "resume")
            assert done.returncode == 0, f"{what}: {done.stderr.decode()}"
            assert b"damaged" not in done.stderr, f"{what}: {done.stderr.decode()}"
            resumed = b"from the earlier run" in done.stderr
        else:
            resumed = False
        assert tree(out) == good, f"{what}: the output is another"
        shutil.rmtree(out)
        shutil.rmtree(os.path.join(os.path.dirname(out), ".out.oocbake"), ignore_errors=True)
        return resumed

    def undisturbed(self, out):
        """Hashes, seconds, and how many there are of what can fail."""
        done, seconds = self.bake(out)
        assert done.returncode == 0, done.stderr.decode()
        words = done.stdout.decode().split()
        good = tree(out)
        shutil.rmtree(out)
        return good, seconds, dict(zip(words[::2], map(int, words[1::2])))

    def faults(self, out, n, good, counts):
        failed = survived = resumed = 0
        for i in range(n):
            what = self.random.choice(["operation", "operation", "call", "call", "allocation"])
            name, error, less, row = self.random.choice(FAULTS) if what != "allocation" else ("no memory", 0, 0, 1)
            nth, lasts = self.random.randint(1, counts[what]), self.random.random() < 0.5
            done, _ = self.bake(out, f"fault={what}:{nth}:{FOR_EVER if lasts else row}:{error}:{less}", f"io={BACKENDS[i % 3]}")
            said = done.stderr.decode()
            it = f"fault {i}, {what} {nth}{' and all after it' if lasts else ''}: {name}: {said}"
            assert done.returncode in (0, 1), it
            if done.returncode:
                assert said.strip(), it
                failed += 1
                assert not os.path.exists(out) or "is complete" in said, it
            else:
                survived += 1
            resumed += self.finish(out, good, it)
        print(f"{n} faults, {failed} ended the run and {survived} did not; {resumed} runs went on from something; all the same bytes",
              flush=True)

    def kills(self, out, n, good, seconds):
        kills = late = resumed = 0
        for i in range(n):
            # One in five in the last twentieth of the run and a little beyond.
            share = self.random.uniform(0.95, 1.05) if i % 5 == 0 else self.random.uniform(0, 1)
            sig = self.random.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
            backend = [f"io={BACKENDS[i % 3]}"]
            what = f"kill {i} by {sig} at {share:.3f}"
            hit = self.killed(out, share * seconds, sig, *backend)
            kills += hit
            late += hit and share > 0.95
            while hit and not os.path.exists(out) and self.random.random() < 0.3:
                hit = self.killed(out, self.random.uniform(0, 1) * seconds, signal.SIGKILL, "resume", *backend)
                kills += hit
            resumed += self.finish(out, good, what)
        print(f"{kills} kills, {late} in the last twentieth; {resumed} runs went on from something; all the same bytes", flush=True)

    def power_losses(self, place, n, good, seconds):
        """On an ext4 of its own, which is shut down without its log."""
        image, mount = f"{place}/disk", f"{place}/mnt"
        os.mkdir(mount)
        with open(image, "wb") as f:
            f.truncate(4 * sum(os.path.getsize(f"{self.inputs}/model/{x}") for x in os.listdir(f"{self.inputs}/model")))
        attach = ["mount", "-o", "loop", image, mount]
        for command in [["mkfs.ext4", "-q", image], attach]:
            if not shutil.which(command[0]) or subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
                print(f"power losses are left out: {' '.join(command)} does not work here")
                return
        resumed = 0
        try:
            for i in range(n):
                share = self.random.uniform(0, 1.1)
                child = subprocess.Popen(self.command(f"{mount}/out", f"io={BACKENDS[i % 3]}"), stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
                time.sleep(share * seconds)
                fd = os.open(mount, os.O_RDONLY)
                fcntl.ioctl(fd, EXT4_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
                os.close(fd)
                child.kill()
                child.wait()
                unmount(mount)
                subprocess.run(attach, check=True)
                resumed += self.finish(f"{mount}/out", good, f"power loss {i} at {share:.3f}")
        finally:
            unmount(mount)
        print(f"{n} power losses; {resumed} runs went on from something; all the same bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baker", default="build/tests/long/baker")
    parser.add_argument("--mkmodel", default="build/benchmarks/mkmodel")
    parser.add_argument("--size", default="1GB")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=2000)
    parser.add_argument("--losses", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", default=".")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oocbake-soak-", dir=args.dir) as place:
        place = os.path.abspath(place)
        soak = Soak(args, place)
        inputs = [tree(f"{soak.inputs}/{name}") for name in ["model", "lora"]]
        good, seconds, counts = soak.undisturbed(f"{place}/out")
        soak.kills(f"{place}/out", args.kills, good, seconds)
        soak.power_losses(place, args.losses, good, seconds)
        soak.faults(f"{place}/out", args.faults, good, counts)
        assert inputs == [tree(f"{soak.inputs}/{name}") for name in ["model", "lora"]], "an input changed"


if __name__ == "__main__":
    sys.exit(main())
