#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole runs inside the sandbox: every way to an output, and the same bytes as without it.

OOCBAKE names the program. Needs nothing beyond Python."""
import json
import os
import re
import shutil
import signal
import subprocess
import unittest

from harness import PROGRAM, SANITIZED, Case, limited, run, toys, tree


@unittest.skipIf(SANITIZED, "sanitizers start a process at the end")
class Sandbox(Case):
    # Where the kernel does not offer all of it, the runs have what there is.
    WHOLE = re.search(rb"sandbox: Landlock ([2-9]|\d\d+), seccomp", run("--version").stdout)
    MODE = ["--sandbox", "on" if WHOLE else "auto"]

    def inside(self, *args):
        got = self.expect(0, run(*args, *self.MODE, "--json"))
        self.assertIn("Landlock" if self.WHOLE else "", json.loads(got.stdout)["result"]["sandbox"])
        return got

    def test_modes(self):
        for mode, word in [("off", None), ("auto", "seccomp")]:
            got = self.expect(0, self.bake("--force", "--sandbox", mode, "--json"))
            self.assertEqual(got.stderr, b"")
            name = json.loads(got.stdout)["result"]["sandbox"]
            self.assertTrue(word in name if word else name is None, name)
        if not self.WHOLE:
            self.assertIn(b"no sandbox", self.expect(1, self.bake("--force", "--sandbox", "on")).stderr)
        self.expect(2, self.bake("--force", "--sandbox", "yes"))

    def test_outputs(self):
        for name in ["out", "out.safetensors"]:
            place = f"{self.place}/{name}.d"
            os.mkdir(place)
            self.expect(0, run("bake", *self.small, "-o", f"{place}/{name}", "--sandbox", "off"))
            want = tree(place)
            for io in ["auto", "threads", "sync"]:
                self.inside("bake", *self.small, "-o", f"{place}/{name}", "--force", "--io", io, "--verify", "full")
                self.assertEqual(tree(place), want)
                self.inside("verify", f"{place}/{name}", *self.small, "--io", io)
            self.inside("bake", *self.small, "-o", f"{place}/new-{name}")
            self.assertEqual(sorted(os.listdir(place)), ["new-" + name, name])

    def test_download_cache(self):
        cache = f"{self.place}/hub/models--org--name"
        shutil.copytree(f"{self.dir}/small", f"{cache}/snapshots/abc")
        os.mkdir(f"{cache}/blobs")
        for i, name in enumerate(os.listdir(f"{cache}/snapshots/abc")):
            os.rename(f"{cache}/snapshots/abc/{name}", f"{cache}/blobs/{i}")
            os.symlink(f"../../blobs/{i}", f"{cache}/snapshots/abc/{name}")
        self.inside("bake", "-m", f"{cache}/snapshots/abc", "--lora", f"{self.dir}/lora", "-o", self.out)
        self.inside("verify", self.out, *self.small)

    def test_reports(self):
        path = f"{self.place}/r.json"
        self.inside("bake", *self.small, "-o", self.out, "--report", path)
        with open(path) as f:
            self.assertIn("peak_rss", json.load(f)["result"])
        # One in the folder that is replaced would go with it.
        got = self.expect(1, self.bake("--force", "--report", f"{self.out}/r.json"))
        self.assertIn(b"was replaced", got.stderr)
        # What cannot be written is known before the work.
        before = os.stat(self.out).st_ino
        self.expect(1, self.bake("--force", "--report", f"{self.place}/missing/r.json"))
        self.assertEqual(os.stat(self.out).st_ino, before)

    def test_resume(self):
        toys.model(f"{self.place}/big", 4, 4096, 4096, shards=4)
        toys.lora(f"{self.place}/heavy", 4, 4096, 4096, 768)
        args = ["bake", "-m", f"{self.place}/big", "--lora", f"{self.place}/heavy", "-o", self.out, "-t", "1",
                "--memory", "120MiB"]
        child = subprocess.Popen([PROGRAM, *args, *self.MODE, "--progress", "json"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        for line in child.stderr:
            now = json.loads(line)
            if now["done"] > now["total"] / 2:
                break
        child.send_signal(signal.SIGTERM)
        self.assertIn(b"--resume goes on", child.communicate()[1])
        self.inside(*args, "--resume", "--verify", "sample", "--progress", "none")
        self.assertEqual(sorted(os.listdir(self.place)), ["big", "heavy", "out"])
        self.inside("verify", self.out, *args[1:5], "--progress", "none")

    def test_more_files_than_descriptors(self):
        toys.model(f"{self.place}/many", 60, 64, 64, shards=60)
        args = ["-m", f"{self.place}/many", "-o", self.out, "--max-shard-size", "10kB"]
        got = self.expect(0, run("bake", *args, *self.MODE, "--json", preexec_fn=limited(NOFILE=40)))
        self.assertIn("Landlock" if self.WHOLE else "", json.loads(got.stdout)["result"]["sandbox"])


if __name__ == "__main__":
    unittest.main()
