#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program as users meet it: words, exit statuses, signals, limits, and what it leaves behind.

OOCBAKE names the program. Needs nothing beyond Python."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
import unittest

from harness import MIB, PROGRAM, SANITIZED, Case, run, toys, tree

COMMANDS = ["bake", "plan", "verify", "inspect", "formats"]


class Words(Case):
    def test_help_of_every_command(self):
        for command in COMMANDS:
            for word in ["--help", "-h"]:
                shown = self.expect(0, run(command, word))
                self.assertIn(f"Usage: oocbake {command}".encode(), shown.stdout)
                self.assertEqual(shown.stderr, b"")
                self.assertLessEqual(max(map(len, shown.stdout.split(b"\n"))), 100)

    def test_usage_names_the_commands(self):
        for word in ["--help", "-h", "help"]:
            shown = self.expect(0, run(word)).stdout.decode()
            for command in COMMANDS:
                self.assertIn(f"oocbake {command} ", shown)
        self.assertIn("oocbake bake", self.expect(2, run()).stderr.decode())

    def test_version_and_formats(self):
        self.assertRegex(self.expect(0, run("--version")).stdout, rb"^oocbake \d+\.\d+\.\d+\n")
        self.assertIn(b"mlx", self.expect(0, run("formats")).stdout)
        self.assertIn("number_formats", json.loads(self.expect(0, run("formats", "--json")).stdout))


class Statuses(Case):
    def test_usage_is_2_and_one_line(self):
        m, out = f"{self.dir}/small", self.out
        for args in [["unbake"], ["bake"], ["bake", "-m", m], ["bake", "-o", out], ["bake", "-m"], ["bake", "--nope"],
                     ["bake", "-Z"], ["bake", "-m", m, "-o", out, "stray"], ["verify"], ["verify", out], ["inspect"],
                     ["inspect", m, m], ["formats", "x"], ["bake", "-m", m, "-o", out, "-q", "7"],
                     ["bake", "-m", m, "-o", out, "-q", "four"], ["bake", "-m", m, "-o", out, "-q", "4", "--quant", "mlx"],
                     ["bake", "-m", m, "-o", out, "--quant", "Q9_X"], ["bake", "-m", m, "-o", out, "--memory", "lots"],
                     ["bake", "-m", m, "-o", out, "--progress", "loud"], ["bake", "-m", m, "-o", out, "--report", "x.pdf"],
                     ["bake", "-m", m, "-o", out, "--skip", "("], ["bake", "-m", m, "-o", f"{m}/inside"],
                     ["bake", "-m", m, "-o", out, "--force=1"], ["plan", "-m", m, "-o", out, "--progress", "none"],
                     ["bake", "-m", m, "-o", ""], ["bake", "-m", m, "-o", out, "\x1b[31m"]]:
            with self.subTest(args=args):
                got = self.expect(2, run(*args))
                self.assertEqual(got.stdout, b"")
                self.assertTrue(got.stderr.startswith(b"oocbake: ") and got.stderr.endswith(b"\n"))
                self.assertEqual(got.stderr.count(b"\n"), 1, got.stderr)
                self.assertNotIn(b"\x1b", got.stderr)
                self.assertEqual(self.left(), [])

    def test_the_others(self):
        self.expect(1, run("bake", "-m", f"{self.dir}/missing", "-o", self.out))
        self.expect(3, run("bake", "-m", f"{self.dir}/small/config.json", "-o", self.out))
        got = self.expect(4, self.bake("--memory", "1MiB"))
        minimum = int(re.search(rb"\((\d+) bytes", got.stderr).group(1))
        self.assertEqual(self.left(), [])
        self.expect(0, self.bake("--memory", str(minimum + MIB)))
        before = tree(self.place)
        self.expect(6, self.bake())
        self.assertEqual(tree(self.place), before)
        self.expect(0, run("verify", self.out, *self.small))
        with open(f"{self.out}/model.safetensors", "r+b") as f:
            f.seek(-77, os.SEEK_END)
            byte = f.read(1)
            f.seek(-77, os.SEEK_END)
            f.write(bytes([byte[0] ^ 4]))
        got = self.expect(5, run("verify", self.out, *self.small))
        self.assertRegex(got.stderr, rb"model\.safetensors.*q_proj")
        self.expect(5, run("verify", f"{self.place}/missing", *self.small))

    def test_errors_as_json(self):
        # A name that is no UTF-8 must not make the JSON invalid.
        for args, kind in [(["inspect", b"/missing/\xff\"\n", "--json"], "io"),
                           (["bake", "--json", "-m", "x", "-o", self.out, "--dtype", "f1"], "usage")]:
            got = run(*args)
            self.assertNotEqual(got.returncode, 0)
            self.assertEqual(json.loads(got.stdout.decode())["error"]["kind"], kind)
            self.assertEqual(got.stderr.count(b"\n"), 1)

    def test_a_dry_run_writes_nothing(self):
        shown = [self.expect(0, got).stdout.splitlines() for got in
                 (run("plan", *self.small, "-o", self.out), self.bake("--dry-run"))]
        # What the process holds is part of the memory that is shown.
        self.assertEqual(*[[line for line in lines if not line.startswith(b"memory")] for lines in shown])
        self.assertEqual(self.left(), [])

    def test_a_plan_reads_no_weights(self):
        toys.model(f"{self.place}/huge", 4, 1 << 20, 1 << 14, sparse=True)  # 137 GB of holes
        begin = time.monotonic()
        plan = json.loads(self.expect(0, run("plan", "-m", f"{self.place}/huge", "-o", self.out, "-q", "4", "--json")).stdout)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(plan["size"]["parameters"], 4 << 34)
        self.assertLess(plan["memory"]["minimum"], 64 * MIB)
        self.assertNotIn("result", plan)


class Streams(Case):
    def test_reports_in_files(self):
        for name in ["r.json", "r.html", "x.html.d/r.json"]:
            os.makedirs(os.path.dirname(f"{self.place}/{name}"), exist_ok=True)
            self.expect(0, self.bake("--force", "--report", f"{self.place}/{name}"))
            with open(f"{self.place}/{name}") as f:
                text = f.read()
            if name.endswith("html"):
                self.assertTrue(text.startswith("<!DOCTYPE html>"))
            else:
                self.assertEqual(json.loads(text)["tensors"]["edited"], 4)
        got = self.expect(1, self.bake("--force", "--report", f"{self.place}/missing/r.json"))
        self.assertRegex(got.stderr, rb"missing/r\.json.*No such file")
        self.expect(0, run("verify", self.out, *self.small))

    def test_quiet_where_nothing_is_to_say(self):
        for mode in ["none", "plain", "auto"]:
            self.assertEqual(self.expect(0, self.bake("--force", "--progress", mode)).stderr, b"")


class Slow(Case):
    """Runs that last long enough to be disturbed: products of a high rank on one worker."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        toys.model(f"{cls.dir}/big", 4, 4096, 4096, shards=4)
        toys.lora(f"{cls.dir}/heavy", 4, 4096, 4096, 256 if SANITIZED else 768)

    def start(self, *args, inputs=None, **kw):
        """Returns when the first bytes have moved."""
        inputs = inputs or self.dir
        memory = "3GiB" if SANITIZED else "120MiB"
        child = subprocess.Popen([PROGRAM, "bake", "-m", f"{inputs}/big", "--lora", f"{inputs}/heavy", "-o", self.out,
                                  "--progress", "json", "-t", "1", "--memory", memory, *args],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
        self.lines = []
        while not self.lines or self.lines[-1]["done"] == 0:
            line = child.stderr.readline()
            self.assertTrue(line.startswith(b"{"), line)
            self.lines.append(json.loads(line))
        return child

    def finish(self, child):
        """Returns what is no progress on stderr."""
        _, errors = child.communicate(timeout=120)
        lines = errors.decode().splitlines()
        self.lines += [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in lines if not line.startswith("{")]

    def test_progress(self):
        child = self.start()
        self.assertEqual(self.finish(child), [])
        self.assertEqual(child.returncode, 0)
        self.assertGreaterEqual(len(self.lines), 3)
        for a, b in zip(self.lines, self.lines[1:]):
            self.assertLessEqual(a["done"], b["done"])
            self.assertLess(a["seconds"], b["seconds"])
        for line in self.lines:
            self.assertEqual(line["phase"], "bake")
            self.assertLessEqual(line["done"], line["total"])
            self.assertIn(line["bound"], ["cpu", "disk"])
            self.assertTrue(line["tensor"].endswith("q_proj.weight"))
            self.assertTrue(1 <= line["shard"] <= line["shards"])

    def test_signals(self):
        for sig, io in [(signal.SIGINT, "auto"), (signal.SIGTERM, "threads"), (signal.SIGHUP, "sync"), (signal.SIGTERM, "uring")]:
            child = self.start("--io", io)
            begin = time.monotonic()
            child.send_signal(sig)
            errors = self.finish(child)
            self.assertEqual(child.returncode, -sig)
            self.assertLess(time.monotonic() - begin, 20 if SANITIZED else 5)
            # Depending on whether a part was written by then, it is announced or nothing is left.
            self.assertEqual(self.left(), [".out.oocbake"] if "--resume" in errors[0] else [])
        child = self.start("--resume")
        self.finish(child)
        self.assertEqual(child.returncode, 0)
        self.assertEqual(self.left(), ["out"])
        self.expect(0, run("verify", self.out, "-m", f"{self.dir}/big", "--lora", f"{self.dir}/heavy", "--depth", "headers"))
        self.expect(0, run("verify", self.out, "-m", f"{self.dir}/big", "--lora", f"{self.dir}/heavy", "--depth", "sample"))

    def test_a_second_signal_does_not_wait(self):
        child = self.start()
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        self.finish(child)
        self.assertIn(child.returncode, [-signal.SIGTERM, -signal.SIGINT])
        self.assertNotIn("out", self.left())
        # What it may have left does not hinder the next run.
        self.expect(0, self.bake())
        self.assertEqual(self.left(), ["out"])

    def test_ignored_signals_stay_ignored(self):
        child = self.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        child.send_signal(signal.SIGHUP)
        self.finish(child)
        self.assertEqual(child.returncode, 0)

    def test_killed(self):
        child = self.start()
        child.kill()
        self.finish(child)
        self.assertNotIn("out", self.left())
        self.expect(0, self.bake())
        self.assertEqual(self.left(), ["out"])

    def test_lock(self):
        child = self.start()
        child.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        got = self.expect(6, self.bake())
        self.assertLess(time.monotonic() - begin, 5)
        self.assertIn(b"another run", got.stderr)
        self.expect(6, run("plan", *self.small, "-o", self.out))
        child.send_signal(signal.SIGCONT)
        self.finish(child)
        self.assertEqual(child.returncode, 0)
        self.assertEqual(self.left(), ["out"])

    def disturb(self, change, victim, io="auto"):
        """Changes an input in the middle of a run: an error with its name, and nothing dies of a fault."""
        inputs = f"{self.place}/inputs"
        shutil.copytree(self.dir, inputs, copy_function=os.link,
                        ignore=lambda where, names: [n for n in names if where == self.dir and n not in ("big", "heavy")])
        path = f"{inputs}/{victim}"
        os.unlink(path)
        shutil.copy2(f"{self.dir}/{victim}", path)
        child = self.start("--io", io, inputs=inputs)
        child.send_signal(signal.SIGSTOP)
        change(path)
        child.send_signal(signal.SIGCONT)
        errors = self.finish(child)
        self.assertEqual(child.returncode, 1, errors)
        self.assertEqual(len(errors), 1, errors)
        self.assertIn(victim, errors[0])
        shutil.rmtree(inputs)
        self.assertEqual(self.left(), [])

    LAST = "big/model-00004-of-00004.safetensors"
    FACTORS = "heavy/adapter_model.safetensors"

    def test_input_that_shrinks(self):
        for io in ["auto", "threads", "sync"]:
            self.disturb(lambda path: os.truncate(path, os.path.getsize(path) // 2), self.LAST, io)

    def test_mapped_input_that_shrinks(self):
        self.disturb(lambda path: os.truncate(path, os.path.getsize(path) // 2), self.FACTORS)
        self.disturb(lambda path: os.truncate(path, 0), self.FACTORS)

    def test_input_that_is_written_to(self):
        def write(path):
            with open(path, "r+b") as f:
                f.seek(-4, os.SEEK_END)
                f.write(b"\0\0\0\0")
        self.disturb(write, self.LAST)

    def test_input_that_grows(self):
        def grow(path):
            with open(path, "ab") as f:
                f.write(b"more")
        self.disturb(grow, self.LAST)
        self.disturb(grow, self.FACTORS)

    def test_input_that_is_replaced(self):
        def replace(path):
            shutil.copy2(path, path + ".new")
            os.rename(path + ".new", path)
        self.disturb(replace, self.LAST)
        self.disturb(replace, self.FACTORS, "sync")

    def test_input_that_is_removed(self):
        self.disturb(os.unlink, self.LAST)


if __name__ == "__main__":
    unittest.main()
