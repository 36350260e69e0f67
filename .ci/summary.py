"""The last lines of `make test`: what ran, how long it took, and what did not run."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

LOGS = Path("target/test")
LEVELS = ("scalar", "avx2", "avx512", "neon")


def rust() -> tuple[int, int]:
    """Rust tests that passed and that were ignored."""
    log = (LOGS / "rust.log").read_text(encoding="utf-8", errors="replace")
    results = re.findall(r"^test result: ok\. (\d+) passed; 0 failed; (\d+) ignored", log, re.M)
    return sum(int(passed) for passed, _ in results), sum(int(ignored) for _, ignored in results)


def python() -> tuple[int, Counter[str]]:
    """Python tests that passed, and the reasons of those that were skipped."""
    passed, skipped = 0, Counter[str]()
    for case in ElementTree.parse(LOGS / "python.xml").iter("testcase"):
        reason = case.find("skipped")
        if reason is None:
            passed += 1
        else:
            skipped[reason.get("message", "no reason given")] += 1
    return passed, skipped


def level_is_here(level: str) -> bool:
    code = "import seqrs; seqrs.LSTM(1, 1)([[[0.0]]])"
    environment = {**os.environ, "SEQRS_LEVEL": level}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    return run.returncode == 0


def deselected(marker: str) -> int:
    """Tests that another command runs."""
    command = ["-m", "pytest", "tests/python", "-m", marker, "--collect-only", "-q"]
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    return sum("::" in line for line in run.stdout.splitlines())


def main() -> None:
    (rust_passed, rust_ignored), (python_passed, python_skipped) = rust(), python()
    print("\n== Summary")
    for line in (LOGS / "times.tsv").read_text().splitlines():
        name, seconds = line.split("\t")
        print(f"  {int(seconds):5d} s  {name}")
    print(f"passed: {rust_passed} Rust tests, {python_passed} Python tests; formatting, lints,")
    print("        types, stubs and documentation without a warning")
    not_run: list[str] = []
    if (LOGS / "skipped.txt").exists():
        not_run += (LOGS / "skipped.txt").read_text().splitlines()
    if rust_ignored:
        not_run.append(f"{rust_ignored} Rust tests marked as ignored")
    not_run += [f"{n} Python tests: {reason}" for reason, n in sorted(python_skipped.items())]
    if count := deselected("interop"):
        not_run.append(f"{count} Python tests against other libraries (make test-interop)")
    if count := deselected("servers"):
        not_run.append(f"{count} Python tests with real servers (make test-servers)")
    if lacking := [level for level in LEVELS if not level_is_here(level)]:
        not_run.append(f"levels that this processor lacks: {', '.join(lacking)}")
    for line in not_run or ["nothing"]:
        print(f"did not run: {line}")


if __name__ == "__main__":
    main()
