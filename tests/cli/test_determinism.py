#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Threads, memory, the way of I/O and the instruction set do not change a byte of the output. (Nor does
the point at which a run was killed and resumed: tests/lib/kill.c.)

OOCBAKE names the program. Needs nothing beyond Python."""
import itertools
import os
import re
import shutil
import unittest

from harness import MIB, SANITIZED, Case, run, toys, tree

THREADS = ["1", "2", "4"]
IO = ["uring", "threads", "sync"]
SCENARIOS = {
    "lora": ["--dtype", "f16"],
    "quantize": ["-q", "4", "--q-group-size", "32", "--max-shard-size", "1MB"],
}


class Determinism(Case):
    in_memory = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Some tiles a tensor, and bytes that begin anywhere.
        toys.model(f"{cls.dir}/model", 2, 600, 4160, shards=2)
        toys.lora(f"{cls.dir}/factors", 2, 600, 4160, 12)
        cls.args = ["-m", f"{cls.dir}/model", "--lora", f"{cls.dir}/factors"]

    def isas(self):
        """The widest instruction set, and those that it can be lowered to."""
        shown = run("--version").stdout.decode()
        widest = re.search(r"instruction set: (\S+)", shown).group(1)
        ladder = ["ref", "avx2", "avx512"]
        return ladder[:ladder.index(widest) + 1] if widest in ladder else ["ref", widest]

    def minimum(self, args):
        got = self.expect(4, run("bake", *self.args, *args, "-o", self.out, "--memory", "1MiB"))
        return int(re.search(rb"\((\d+) bytes", got.stderr).group(1))

    def test_matrix(self):
        cells = 0
        for name, args in SCENARIOS.items():
            least = str(self.minimum(args) + (64 * MIB if SANITIZED else MIB))
            matrix = itertools.product(self.isas(), THREADS, IO, [["--memory", least], []])
            want = None
            for isa, threads, io, memory in matrix:
                cell = ["-t", threads, "--io", io, *memory]
                got = run("bake", *self.args, *args, "-o", self.out, *cell, env=dict(os.environ, OOCBAKE_ISA=isa))
                self.expect(0, got)
                have = tree(self.out)
                want = want or have
                self.assertEqual(have, want, f"{name}: OOCBAKE_ISA={isa} {' '.join(cell)}")
                shutil.rmtree(self.out)
                cells += 1
        print(f"{cells} runs, {len(SCENARIOS)} outputs")


if __name__ == "__main__":
    unittest.main()
