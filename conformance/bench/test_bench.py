"""The benchmark runs to its end with the runtime under test, its table has every row, and its figures make sense.

No speed is required here: machines that run tests are noisy. RUNTIME is the runtime under test.
"""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS, HELD = 2, 3
OPERATIONS = ("run true", "create+start+delete -f", "exec true", "state")
COLUMNS = ("runc", "crun", "arca", "arca cold")


class Benchmark(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            done = subprocess.run([HERE / "run", "--runtime", os.environ["RUNTIME"], "--runs", str(RUNS), "--held",
                                   str(HELD), "--json", file.name], capture_output=True, text=True, timeout=900)
            if done.returncode:
                raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
            cls.table = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if "|" in line]
            cls.figures = json.loads(Path(file.name).read_text())

    def test_table_has_every_row_and_column(self):
        header, rows = self.table[0], self.table[2:]
        self.assertEqual(header[3:7], list(COLUMNS))
        expected = [(o, c, f) for c in ("spec", "docker") for o in OPERATIONS for f in ("cpu ms", "wall ms")]
        expected += [("--version", "-", "cpu ms"), ("--version", "-", "wall ms")]
        expected += [(f"{HELD} held, {state}", c, "PSS KiB") for c in ("spec", "docker")
                     for state in ("with agent", "agent gone")]
        self.assertLessEqual(set(expected), {tuple(row[:3]) for row in rows})
        for row in rows:
            for cell in row[3:6]:
                self.assertRegex(cell, r"^\d+(\.\d)? \(.+\)$", row)
            self.assertRegex(row[7], r"^\d+\.\d\d$", row)

    def test_every_run_is_in_the_figures(self):
        seen = {(f["operation"], f["configuration"], f["column"]) for f in self.figures["operations"]}
        self.assertEqual(len(seen), (len(OPERATIONS) * 2 + 1) * len(COLUMNS))
        for entry in self.figures["operations"]:
            for kind in ("cpu", "wall"):
                self.assertEqual(len(entry[kind]), RUNS)
                self.assertGreater(min(entry[kind]), 0.1, entry)

    def test_two_ways_to_count_cpu_agree(self):
        # The cgroup's counter against rusage and schedstat: a helper that one of them misses shows here.
        for entry in self.figures["operations"]:
            for cgroup, process in zip(entry["cpu"], entry["by_process"]):
                self.assertLess(abs(cgroup - process), 5 + 0.25 * cgroup, entry)

    def test_held_containers_need_no_helper(self):
        for entry in self.figures["held"]:
            if entry["state"] == "agent gone":
                self.assertEqual(entry["processes"], HELD, f"one process a container and nothing else: {entry}")
            self.assertGreater(entry["pss"], HELD * 10, entry)


if __name__ == "__main__":
    unittest.main()
