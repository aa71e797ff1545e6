#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program on machines that refuse, limit, or are set up in odd ways: the same bytes, or one clear
sentence, the right exit status and nothing left behind.

OOCBAKE names the program. Needs nothing beyond Python; what needs root does less without."""
import json
import os
import shutil
import signal
import stat
import subprocess
import unittest

from errno import EIO, ENOSYS, EPERM

from harness import (IO_URING_SETUP, MIB, PROGRAM, SANITIZED, Case, Cgroup, denied, limited, mounted, run, toys, tree,
                     unprivileged, without_direct)


class Machine(Case):
    """The good output is known; every test bakes it again."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.good = f"{cls.dir}/good"
        subprocess.run([PROGRAM, "bake", *cls.small, "-o", cls.good], check=True, stdout=subprocess.DEVNULL)
        cls.want = tree(cls.good)
        cls.inputs = {name: tree(f"{cls.dir}/{name}") for name in ["small", "lora"]}

    def tearDown(self):
        for name, want in self.inputs.items():
            self.assertEqual(tree(f"{self.dir}/{name}"), want, "an input changed")
        super().tearDown()

    def same(self, *args, **kw):
        """Bakes and removes the good output; returns what was said."""
        got = self.expect(0, self.bake(*args, **kw))
        self.assertEqual(tree(self.out), self.want)
        shutil.rmtree(self.out)
        self.assertEqual([name for name in self.left() if name.startswith(".")], [])
        return got

    def refused(self, status, got, *words):
        """One sentence with these words, no output, nothing left of the attempt."""
        self.expect(status, got)
        self.assertEqual(got.stderr.count(b"\n"), 1, got.stderr)
        for word in words:
            self.assertIn(word, got.stderr.decode())
        self.assertEqual([name for name in self.left() if "out" in name], [])


class Limits(Machine):
    def test_io_uring_denied(self):
        for error, word in [(EPERM, "EPERM"), (ENOSYS, "ENOSYS")]:
            got = self.same(preexec_fn=denied(IO_URING_SETUP, error))
            self.assertIn(word, got.stderr.decode())
            self.assertIn("threads", got.stderr.decode())
            self.refused(1, self.bake("--io", "uring", preexec_fn=denied(IO_URING_SETUP, error)), "io_uring", word)
            for io in ["threads", "sync"]:
                self.assertEqual(self.same("--io", io, preexec_fn=denied(IO_URING_SETUP, error)).stderr, b"")

    def test_few_descriptors(self):
        self.same(preexec_fn=limited(NOFILE=32))
        for n in range(4, 24):
            got = self.bake(preexec_fn=limited(NOFILE=n))
            if got.returncode == 0:
                shutil.rmtree(self.out)
            # Below a handful not even the libraries can be opened.
            elif got.stderr.startswith(b"oocbake: "):
                self.refused(1, got, "ulimit -n")
            self.assertEqual(self.left(), [])

    def test_more_shards_than_descriptors(self):
        toys.model(f"{self.place}/many", 200, 64, 160, shards=200)
        toys.lora(f"{self.place}/lora", 200, 64, 160, 4)
        args = ["-m", f"{self.place}/many", "--lora", f"{self.place}/lora", "--dtype", "f16", "--max-shard-size", "20kB"]
        want = None
        for limit, io in [(4096, "auto"), (64, "auto"), (24, "sync")]:
            self.expect(0, run("bake", *args, "-o", self.out, "--io", io, preexec_fn=limited(NOFILE=limit)))
            want = want or tree(self.out)
            self.assertEqual(len([name for name in want if name.endswith(".safetensors")]), 200)
            self.assertEqual(tree(self.out), want)
            if limit == 64:
                self.expect(0, run("verify", self.out, *args, preexec_fn=limited(NOFILE=limit)))
            shutil.rmtree(self.out)

    @unittest.skipIf(SANITIZED, "shadow memory")
    def test_little_locked_memory_and_address_space(self):
        self.same(preexec_fn=limited(MEMLOCK=64 << 10))
        for mib in [600, 150, 90, 60, 40]:
            got = self.bake(preexec_fn=limited(AS=mib * MIB))
            if got.returncode == 0:
                shutil.rmtree(self.out)
            elif got.stderr.startswith(b"oocbake: "):
                self.assertIn(got.returncode, [1, 4], got.stderr)
            self.assertEqual(self.left(), [], f"with {mib} MiB of address space: {got.stderr}")

    def test_one_processor(self):
        one = lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        for io in ["auto", "threads", "sync"]:
            self.same("--io", io, preexec_fn=one)
            self.same("--io", io, "-t", "4", preexec_fn=one)

    def test_file_size_limit(self):
        largest = max(os.path.getsize(f"{self.good}/{name}") for name in self.want)
        self.refused(1, self.bake(preexec_fn=limited(FSIZE=largest - 1)), "ulimit -f")
        self.same(preexec_fn=limited(FSIZE=largest))
        self.refused(1, self.bake(preexec_fn=limited(FSIZE=10)), "File too large")


@unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
class Memory(Case):
    def test_resident_set(self):
        toys.model(f"{self.place}/wide", 1, 2, 64 * 1500000, dtype="F32", sparse=True)
        toys.model(f"{self.place}/tall", 2, 12288, 4096)
        for i in range(6):
            toys.lora(f"{self.place}/l{i}", 2, 12288, 4096, 96)
        many = [word for i in range(6) for word in ["--lora", f"{self.place}/l{i}"]]
        for limit, args in [(64, ["-m", f"{self.place}/wide", "-q", "2"]),
                            (64, ["-m", f"{self.place}/tall", "--dtype", "f16", "-t", "2"]),
                            (64, ["-m", f"{self.place}/tall", "-q", "4", *many[:2]]),
                            (80, ["-m", f"{self.place}/tall", "-q", "4", *many]),
                            (200, ["-m", f"{self.place}/tall", *many, "-t", "4"])]:
            got = self.expect(0, run("bake", *args, "-o", self.out, "--memory", f"{limit}MiB", "--json"))
            report = json.loads(got.stdout)
            self.assertLessEqual(report["result"]["peak_rss"], limit * MIB, f"{args}")
            self.assertLessEqual(report["result"]["peak_rss"], report["memory"]["need"], f"{args}")
            shutil.rmtree(self.out)

    def cgroup(self, limit):
        try:
            group = Cgroup(limit)
        except OSError as e:
            self.skipTest(f"no memory cgroup can be made here: {e}")
        self.addCleanup(group.remove)
        return group

    def test_cgroup_that_counts_the_cache(self):
        """300 MB through 64 MiB in a group of 96 MiB: the pages of what was read and written count, too."""
        toys.model(f"{self.place}/model", 6, 4096, 6400, shards=3, sparse=True)
        toys.lora(f"{self.place}/lora", 6, 4096, 6400, 16)
        args = ["-m", f"{self.place}/model", "--lora", f"{self.place}/lora", "--memory", "64MiB", "--json"]
        group, want = self.cgroup(96 * MIB), None
        for before in [lambda: None, without_direct()]:
            def enter():
                group.enter()
                before()
            for io in ["uring", "sync"]:
                got = self.expect(0, run("bake", *args, "-o", self.out, "--io", io, preexec_fn=enter))
                self.assertEqual(group.kills(), "0")
                want = want or tree(self.out)
                self.assertEqual(tree(self.out), want)
                report = json.loads(got.stdout)
                peak, need = report["result"]["peak_rss"], report["memory"]["need"]
                self.assertTrue(0.9 * need <= peak <= need, report)
                shutil.rmtree(self.out)

    def test_a_share_is_one_of_the_group(self):
        toys.model(f"{self.place}/model", 6, 4096, 6400, sparse=True)
        group = self.cgroup(200 * MIB)
        def need(share, **kw):
            args = ["-m", f"{self.place}/model", "--dtype", "f16", "-o", self.out, "-t", "1", "--memory", share, "--json"]
            return json.loads(self.expect(0, run("plan", *args, **kw)).stdout)["memory"]["need"]
        self.assertGreater(need("200MiB"), need("0.4", preexec_fn=group.enter))
        for share in ["40%", "0.4"]:
            self.assertLessEqual(need(share, preexec_fn=group.enter), 80 * MIB)
            self.assertGreater(need(share, preexec_fn=group.enter), 72 * MIB)


class Streams(Machine):
    def test_closed_descriptors(self):
        missing = ["bake", "-m", f"{self.dir}/missing", "-o", self.out]
        for closed in [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]:
            def close_them():
                for fd in closed:
                    os.close(fd)
            quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=close_them)
            self.same(**quiet)
            self.same("--progress", "json", "--json", "-v", **quiet)
            self.expect(1, run(*missing, **quiet))
        self.assertEqual(self.left(), [])

    def test_closed_descriptors_without_dev_null(self):
        def close_them():
            mounted("tmpfs", "/dev", "size=1m")()
            os.closerange(0, 3)
        try:
            got = self.bake("--progress", "json", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=close_them)
        except subprocess.SubprocessError:
            self.skipTest("nobody may mount anything here")
        self.expect(1, got)  # the report has nowhere to go
        self.assertEqual(tree(self.out), self.want)

    def test_full_stdout(self):
        for args in [["formats"], ["--version"], ["--help"], ["bake", "--help"], ["inspect", f"{self.dir}/small"],
                     ["plan", *self.small, "-o", self.out]]:
            with open("/dev/full", "wb") as full:
                got = self.expect(1, run(*args, stdout=full))
            self.assertEqual(got.stderr, b"oocbake: standard output cannot be written: No space left on device\n")

    def unheard(self, stream, word):
        """Nobody can read the report of a bake: the output is there all the same, the status is 1, because
        whoever waits for the report must not take the half of one for the whole."""
        got = self.expect(1, self.bake(stdout=stream))
        self.assertEqual(got.stderr.decode(), f"oocbake: the output is complete, but standard output cannot be written: {word}\n")
        self.assertEqual(tree(self.out), self.want)
        got = self.expect(1, run("verify", self.out, *self.small, "--json", stdout=stream))
        self.assertIn(b"verified, but standard output", got.stderr)
        shutil.rmtree(self.out)

    def test_a_report_that_cannot_be_printed(self):
        with open("/dev/full", "wb") as full:
            self.unheard(full, "No space left on device")
        read, write = os.pipe()
        os.close(read)
        self.unheard(write, "Broken pipe")
        os.close(write)
        self.assertEqual(self.left(), [])

    def test_progress_and_errors_that_nobody_reads(self):
        read, write = os.pipe()
        os.close(read)
        with open("/dev/full", "wb") as full:
            for stream in [full, write]:
                for mode in ["bar", "json", "plain"]:
                    self.same("--progress", mode, "-v", stderr=stream)
                self.expect(1, run("bake", "-m", f"{self.dir}/missing", "-o", self.out, stderr=stream))
        os.close(write)

    def test_reports_in_files_that_cannot_be_written(self):
        os.symlink("/dev/full", f"{self.place}/full.json")
        got = self.expect(1, self.bake("--report", f"{self.place}/full.json"))
        self.assertRegex(got.stderr, rb"the output is complete, but the report .*full.json .*: No space left")
        self.assertEqual(tree(self.out), self.want)
        shutil.rmtree(self.out)
        # What is known before the run does not cost it.
        self.refused(1, self.bake("--report", f"{self.place}/no/r.json"), "the report", "no/r.json", "No such file")


class Settings(Machine):
    def test_empty_environment(self):
        self.same(env={})
        self.refused(1, run("bake", "-m", "org/name", "-o", self.out, env={}), "org/name")

    def test_home_that_cannot_be_used(self):
        home = f"{self.place}/home"
        os.mkdir(home, 0o500)
        for where in [home, "/nonexistent", ""]:
            env = dict(os.environ, HOME=where)
            env.pop("HF_HOME", None)
            env.pop("HF_HUB_CACHE", None)
            self.same(env=env)
            self.refused(1, run("bake", "-m", "org/name", "-o", self.out, env=env), "org/name")
        self.assertEqual(os.listdir(home), [])

    def test_languages(self):
        for locale in ["C", "POSIX", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "ja_JP.eucJP", "nonsense", "/etc/passwd"]:
            env = dict(os.environ, LC_ALL=locale, LANG=locale, LANGUAGE=locale)
            got = self.same("--memory", "0.25", "--json", "--progress", "json", env=env)
            json.loads(got.stdout)
            for line in got.stderr.splitlines():
                json.loads(line)

    def test_modes_follow_umask(self):
        for mask in [0o077, 0o022, 0o000]:
            self.expect(0, self.bake("--report", f"{self.place}/r.json", preexec_fn=lambda: os.umask(mask)))
            modes = [stat.S_IMODE(os.stat(path).st_mode) for path in
                     [self.out, f"{self.place}/r.json", *(f"{self.out}/{name}" for name in self.want)]]
            self.assertEqual(modes, [0o777 & ~mask] + [0o666 & ~mask] * (1 + len(self.want)))
            shutil.rmtree(self.out)
            os.unlink(f"{self.place}/r.json")


class Strangers(Machine):
    """Root may write everywhere: these run as nobody."""

    def setUp(self):
        super().setUp()
        os.chmod(self.dir, 0o755)
        os.chmod(self.place, 0o777)
        self.program = f"{self.place}/program"
        shutil.copy(PROGRAM, self.program)

    def bake(self, *args, out=None, **kw):
        return subprocess.run([self.program, "bake", *self.small, "-o", out or self.out, *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120, preexec_fn=unprivileged, **kw)

    def lock_inputs(self, how):
        for name in ["small", "lora"]:
            for where, _, files in os.walk(f"{self.dir}/{name}"):
                os.chmod(where, 0o755 if how == "open" else 0o555)
                for file in files:
                    os.chmod(f"{where}/{file}", 0o644 if how == "open" else 0o444)

    def test_inputs_that_are_read_only(self):
        self.lock_inputs("shut")
        self.same()
        self.same("--io", "sync", "-q", "8", "--skip", ".")
        self.lock_inputs("open")

    def test_a_shard_that_may_not_be_read(self):
        for victim in ["small/model-00002-of-00002.safetensors", "lora/adapter_model.safetensors", "small/config.json"]:
            os.chmod(f"{self.dir}/{victim}", 0)
            self.refused(1, self.bake(), victim, "Permission denied")
            os.chmod(f"{self.dir}/{victim}", 0o644)

    def test_a_parent_that_may_not_be_written(self):
        os.mkdir(f"{self.place}/shut", 0o555)
        for name in ["shut/x", "shut/x.safetensors"]:
            self.refused(1, self.bake(out=f"{self.place}/{name}"), f"{self.place}/shut", "Permission denied")
        # Whoever may not even look into it.
        os.chmod(f"{self.place}/shut", 0)
        self.refused(1, self.bake(out=f"{self.place}/shut/x"), f"{self.place}/shut", "Permission denied")
        os.chmod(f"{self.place}/shut", 0o755)
        self.assertEqual(os.listdir(f"{self.place}/shut"), [])

    def test_little_locked_memory(self):
        self.expect(0, subprocess.run([self.program, "bake", *self.small, "-o", self.out, "--io", "uring"],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      preexec_fn=lambda: (limited(MEMLOCK=64 << 10)(), unprivileged())))
        self.assertEqual(tree(self.out), self.want)


class Places(Machine):
    def test_a_folder_where_nothing_can_be_made(self):
        # Not even root makes folders there.
        self.refused(1, run("bake", *self.small, "-o", "/proc/oocbake-out"), "/proc")

    def in_namespace(self, size, *args):
        """Bakes onto a small disk; returns the result, whose stdout tells what lies on the disk in the end."""
        disk = f"{self.place}/disk"
        os.makedirs(disk, exist_ok=True)
        script = '"$@" >/dev/null; status=$?; cd "$0" && find . -type f | sort; exit $status'
        try:
            return subprocess.run(["sh", "-c", script, disk, os.path.abspath(PROGRAM), "bake", *args, "-o", f"{disk}/out"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                                  preexec_fn=mounted("tmpfs", disk, f"size={size}"))
        except subprocess.SubprocessError:
            self.skipTest("nobody may mount a disk here")

    def test_another_file_system(self):
        got = self.expect(0, self.in_namespace("64m", *self.small))
        self.assertEqual(got.stdout.decode().split(), sorted(f"./out/{name}" for name in self.want))

    def test_a_full_disk(self):
        page = os.sysconf("SC_PAGE_SIZE")
        need = sum(-(-os.path.getsize(f"{self.good}/{name}") // page) for name in self.want)
        # The least that works, a few pages for the lock and a journal on top: one page less must not.
        while self.in_namespace(need * page, *self.small).returncode:
            need += 1
            self.assertLess(need, 1000)
        got = self.in_namespace((need - 1) * page, *self.small)
        self.assertEqual((got.returncode, got.stdout), (1, b""), got.stderr)
        for size in [0, 8, need // 2]:
            got = self.in_namespace(max(size, 1) * page, *self.small)
            self.assertEqual((got.returncode, got.stdout), (1, b""), got.stderr)
            self.assertEqual(got.stderr.count(b"\n"), 1)
        self.assertRegex(got.stderr.decode(), r"out.* needs .*free on .*/disk")

    def test_output_inside_an_input(self):
        for name in ["small", "lora"]:
            os.symlink(f"{self.dir}/{name}", f"{self.place}/link-{name}")
            for where in [f"{self.dir}/{name}/x", f"{self.dir}/{name}", f"{self.place}/link-{name}/x", f"{self.place}/link-{name}",
                          f"{self.dir}/{name}/../{name}/x.safetensors"]:
                for force in [[], ["--force"]]:
                    got = run("bake", *self.small, "-o", where, *force)
                    self.assertIn(got.returncode, [2, 6], got.stderr)
        self.assertEqual(tree(f"{self.dir}/small"), self.inputs["small"])

    def test_output_that_shares_bytes_with_an_input(self):
        """What is in the place of the output may be the inputs themselves under other names."""
        def hard(a, b):
            os.link(a, b)

        def soft(a, b):
            os.symlink(a, b)

        def reflink(a, b):
            subprocess.run(["cp", "--reflink=auto", a, b], check=True)
        for share in [hard, soft, reflink]:
            os.mkdir(self.out)
            for name in os.listdir(f"{self.dir}/small"):
                share(f"{self.dir}/small/{name}", f"{self.out}/{name}")
            self.expect(6, self.bake())
            got = self.bake("--force")
            self.assertIn(got.returncode, [0, 2], got.stderr)
            if got.returncode == 0:
                self.assertEqual(tree(self.out), self.want)
            self.assertEqual(tree(f"{self.dir}/small"), self.inputs["small"])
            shutil.rmtree(self.out)

    def test_an_output_file_that_is_an_input(self):
        toys.model(f"{self.place}/one", 1, 64, 64)
        source, out = f"{self.place}/one/model.safetensors", f"{self.place}/x.safetensors"
        want = tree(f"{self.place}/one")
        for share in [os.link, os.symlink]:
            share(source, out)
            for model in [source, f"{self.place}/one"]:
                self.expect(6, run("bake", "-m", model, "-o", out))
                self.expect(2, run("bake", "-m", model, "-o", out, "--force"))
            os.unlink(out)
        self.expect(2, run("bake", "-m", source, "-o", source, "--force"))
        self.assertEqual(tree(f"{self.place}/one"), want)

    def test_traps_in_the_place_of_the_staging_folder(self):
        hidden = f"{self.place}/.out.oocbake"
        os.symlink(f"{self.dir}/small", hidden)
        got = self.expect(3, self.bake())
        self.assertIn(b"remove it", got.stderr)
        os.unlink(hidden)
        with open(hidden, "w"):
            pass
        self.expect(3, self.bake())
        os.unlink(hidden)
        # Inside it, from a run that died: a link for a file and for the folder.
        for name in ["out", "lock", "journal"]:
            os.mkdir(hidden, 0o700)
            os.symlink(f"{self.dir}/small/config.json" if name != "out" else f"{self.dir}/small", f"{hidden}/{name}")
            got = self.bake()
            self.assertEqual(tree(f"{self.dir}/small"), self.inputs["small"])
            if got.returncode == 0:
                self.assertEqual(tree(self.out), self.want)
                shutil.rmtree(self.out)
            shutil.rmtree(hidden, ignore_errors=True)


class Terminals(Case):
    """Names come from strangers."""
    NAMES = ["model.layers.0.\x1b[31mred\x1b]0;title\x07.weight", "model.a\nb\r\tc.weight", "model.\u202etxt.\u2066x\u200f.weight",
             "model.\x7f\x85\x9b31m.weight", "model.\u2028\u2029\ufeff.weight"]

    def setUp(self):
        super().setUp()
        toys.config(f"{self.place}/odd")
        toys.safetensors(f"{self.place}/odd/model.safetensors",
                         {name: ("BF16", [64, 64], b"\x12\x3d") for name in self.NAMES})

    def harmless(self, text):
        text = text.decode()
        for c in text.replace("\n", ""):
            self.assertFalse(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u061c\u200e\u200f\u2028\u2029\ufeff"
                             or 0x202a <= ord(c) <= 0x202e or 0x2066 <= ord(c) <= 0x2069, repr(text))

    def test_names_of_tensors(self):
        odd = ["-m", f"{self.place}/odd"]
        for args in [["inspect", f"{self.place}/odd"], ["inspect", f"{self.place}/odd", "--json"],
                     ["plan", *odd, "-o", self.out, "-q", "4"], ["plan", *odd, "-o", self.out, "-q", "4", "--json"],
                     ["bake", *odd, "-o", self.out, "-q", "4", "--progress", "json", "--report", f"{self.place}/r.html"],
                     ["verify", self.out, *odd, "-q", "4", "--json"]]:
            got = self.expect(0, run(*args))
            self.harmless(got.stdout)
            self.harmless(got.stderr)
        with open(f"{self.place}/r.html", "rb") as f:
            self.harmless(f.read())

    def test_names_in_errors(self):
        odd = ["-m", f"{self.place}/odd"]
        self.expect(0, run("bake", *odd, "-o", self.out))
        with open(f"{self.out}/model.safetensors", "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"\xff")
        toys.safetensors(f"{self.place}/odd/model.safetensors", {name: ("BF16", [64, 64], b"\x80\x7f") for name in self.NAMES})
        for args in [["verify", self.out, *odd], ["bake", *odd, "-o", f"{self.place}/x", "--dtype", "f16"],
                     ["bake", *odd, "-o", f"{self.place}/y", "--dtype", "f16", "--nonfinite", "warn"],
                     ["bake", "-m", f"{self.place}/\x1b[31m\u202e\n", "-o", self.out],
                     ["bake", b"-m", os.fsencode(self.place) + b"/\xff\xfe\x9b", "-o", self.out],
                     ["inspect", b"\xc0\x1b"], ["bake", "\x1b]0;x\x07"], ["bake", "--\u202e"]]:
            for json_too in [[], ["--json"]]:
                got = run(*args, *json_too)
                self.assertTrue(got.returncode or "warn" in args, args)
                self.harmless(got.stdout)
                self.harmless(got.stderr)
            shutil.rmtree(f"{self.place}/y", ignore_errors=True)

    def test_the_bar(self):
        main, side = os.openpty()
        child = subprocess.Popen([PROGRAM, "bake", "-m", f"{self.place}/odd", "-o", self.out, "-q", "4", "--progress", "bar"],
                                 stdout=subprocess.DEVNULL, stderr=side, env=dict(os.environ, TERM="xterm"))
        self.assertEqual(child.wait(120), 0)
        os.close(side)
        shown = b""
        try:
            while True:
                shown += os.read(main, 4096)
        except OSError as e:
            self.assertEqual(e.errno, EIO)
        os.close(main)
        self.harmless(shown.replace(b"\x1b[K", b"").replace(b"\r", b""))


if __name__ == "__main__":
    unittest.main()
