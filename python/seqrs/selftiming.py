"""The shapes that `seqrs bench` times, and how.

A machine's own numbers, to see at a glance whether it does what it should. The comparison with
other libraries, with all that makes one fair, is in `benches`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .layers import Linear
from .losses import MSE
from .models import Sequential
from .optimizers import Adam
from .recurrent import GRU, LSTM
from .training import Trainer

__all__ = ["CASES", "Case", "timed"]


@dataclass(frozen=True)
class Case:
    """What is computed: `mode` is "step" (one step with its state), "infer" or "train"."""

    mode: str
    cell: type[LSTM | GRU]
    batch: int
    steps: int
    hidden: int

    @property
    def name(self) -> str:
        size = f"B={self.batch} T={self.steps} H={self.hidden}"
        return f"{self.mode:<6}{self.cell.__name__:<5} {size}"

    @property
    def flops(self) -> float:
        """Two for each multiply-add of the gates' products; backward has twice those of forward."""
        gates = 4 if self.cell is LSTM else 3
        forward = 2.0 * self.batch * self.steps * gates * self.hidden * 2 * self.hidden
        return forward * (3.0 if self.mode == "train" else 1.0)


CASES = tuple(
    Case(mode, cell, batch, steps, hidden)
    for mode, batch, steps, hidden in (
        ("step", 1, 1, 128),
        ("step", 64, 1, 256),
        ("infer", 1, 100, 256),
        ("infer", 32, 64, 256),
        ("train", 32, 64, 256),
    )
    for cell in (LSTM, GRU)
)


def timed(case: Case, seconds: float) -> dict[str, Any]:
    """The median time of a call over about so many seconds; `steps_per_second` counts B * T."""
    call = _call(case)
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    return {
        "name": case.name,
        "mode": case.mode,
        "cell": case.cell.__name__,
        "batch": case.batch,
        "steps": case.steps,
        "hidden": case.hidden,
        "calls": len(times),
        "seconds": median,
        "steps_per_second": case.batch * case.steps / median,
        "gflops": case.flops / median / 1e9,
    }


def _call(case: Case) -> Callable[[], object]:
    random = np.random.Generator(np.random.Philox(0))
    shape = (case.batch, case.steps, case.hidden)
    x = random.standard_normal(shape, dtype=np.float32)
    layer = case.cell(case.hidden, case.hidden)
    if case.mode == "infer":
        return lambda: layer(x)
    if case.mode == "step":
        state = layer.initial_state(case.batch)
        row = np.ascontiguousarray(x[:, 0])
        return lambda: layer.step(row, state)
    trainer = Trainer(Sequential([layer, Linear(case.hidden, 1)]), MSE(), Adam(lr=1e-3))
    y = random.standard_normal((case.batch, case.steps, 1), dtype=np.float32)
    return lambda: trainer.step(x, y)
