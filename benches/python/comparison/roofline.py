"""The machine's limits, and the least time in which it can do a work.

`benches/rust/src/bin/roofline.rs` measures the limits: how many multiply-adds there can be in a
second, and how many bytes read from buffers of many sizes. What a layer needs at least:

    X W         2 G H I operations for each live row and step; no step waits for another
    h R         one product for each step, which waits for the one before: the longer of
                2 G H H operations for each live row, and one read of R's 4 G H H bytes from where
                it lives (with one step alone, together with W)
    backward    as much again for dh = dgates R^T, in time; and dX, dW, dR, 2 G H H operations each
                for each live row and step

Everything else (the gates' functions, reading inputs, writing outputs) counts as nothing, so the
share of it that is reached can come close to 1 and not get there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comparison.work import Work

ROOT = Path(__file__).resolve().parents[3]
COMMAND = ["cargo", "run", "--release", "--locked", "--package", "seqrs-benches"]
FLOAT = 4


@dataclass(frozen=True)
class Limits:
    #: Floating-point operations a second, by the number of threads.
    flops: dict[int, float]
    #: Bytes a second of all threads together, by their number and the bytes that each reads again
    #: and again.
    bytes: dict[int, dict[int, float]]

    def bandwidth(self, threads: int, size: int) -> float:
        """Of reading `size` bytes again and again, an equal part of them on each thread."""
        known = sorted(self.bytes[threads].items())
        sizes = np.log([size for size, _ in known])
        rates = np.log([rate for _, rate in known])
        return float(np.exp(np.interp(np.log(size / threads), sizes, rates)))

    def record(self) -> dict[str, Any]:
        return {"flops": self.flops, "bytes": self.bytes}

    @classmethod
    def of_record(cls, found: dict[str, Any]) -> Limits:
        """JSON has names where there were numbers."""
        return cls(
            {int(n): rate for n, rate in found["flops"].items()},
            {int(n): {int(k): v for k, v in of.items()} for n, of in found["bytes"].items()},
        )


def measured_limits(threads: list[int], level: str) -> Limits | str:
    """The limits at so many threads, or why there are none."""
    if shutil.which("cargo") is None:
        return "no cargo on the PATH"
    command = [*COMMAND, "--bin", "roofline", "--", *map(str, threads)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return f"{' '.join(command)} failed"
    found = json.loads(done.stdout)[level]
    return Limits(
        {n: found[str(n)]["flops"]["float32"] for n in threads},
        {n: {int(k): v for k, v in found[str(n)]["bytes"].items()} for n in threads},
    )


def least_seconds(work: Work, limits: Limits, threads: int, *, training: bool) -> float:
    """No processor with these limits can be faster."""
    peak = limits.flops[threads]
    matrix = work.gates * work.hidden * work.hidden
    # One step alone reads both matrices, several keep only R and share each read of W.
    lives = FLOAT * matrix * (2 if work.time == 1 else 1)
    read = FLOAT * matrix / limits.bandwidth(threads, lives)
    anytime = 2 * matrix * sum(work.rows) / peak
    if work.time == 1:
        anytime = max(anytime, read)
    in_time = sum(max(2 * matrix * rows / peak, read) for rows in work.rows if rows)
    return 2 * in_time + 4 * anytime if training else in_time + anytime
