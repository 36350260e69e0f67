"""Results compared, then turns, rounds and medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from comparison.cases import Case
from comparison.contender import Contender
from comparison.quiet import processors
from comparison.roofline import Limits

#: Seconds between two turns. Threads of PyTorch (OpenMP), ONNX Runtime and OpenVINO (TBB) go on
#: spinning after their work and would take a core from whoever comes next.
SETTLE = 0.02
#: A turn first runs for at least so long without being timed.
WARM_UP = 0.01
#: A turn waits until the processors are free, looking so many times, and is repeated so many times
#: where they were not after it. Then it counts as it is.
LOOKS, REPEATS = 10, 3
#: Calls are timed in groups of at least so long, so that reading the clock costs nothing.
GROUP = 100e-6


class ResultsDifferError(Exception):
    """A peer computes something else than seqrs: the case says nothing about speed."""


def measure(
    case: Case, threads: int, limits: Limits | None, *, rounds: int, seconds: float, only: list[str]
) -> dict[str, Any]:
    """The record of one case."""
    contenders = case.contenders(threads)
    differences = compare(case, contenders)
    timed = [c for c in contenders if c.timed and (not only or c.name in only)]
    turns: dict[str, list[float]] = {contender.name: [] for contender in timed}
    repeated = 0
    for k in range(rounds):
        # Each is the first of a round, and each follows every other.
        shift = k % max(len(timed), 1)
        for contender in timed[shift:] + timed[:shift]:
            value, times = undisturbed(contender, case.effort * seconds / rounds, threads)
            turns[contender.name].append(value)
            repeated += times
    record: dict[str, Any] = {
        "case": case.name,
        "threads": threads,
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "seconds": {name: statistics.median(values) for name, values in turns.items()},
        "spread": {name: [min(values), max(values)] for name, values in turns.items()},
        "ratio": ratios(turns),
        "difference": differences,
        "repeated": repeated,
    }
    if limits is not None:
        record["least"] = case.least(limits, threads)
        if "seqrs" in turns:
            record["share"] = record["least"] / record["seconds"]["seqrs"]
    return record


def compare(case: Case, contenders: list[Contender]) -> dict[str, float]:
    """The largest difference from seqrs of each peer."""
    ours, *others = contenders
    ours.prepare()
    expected = [ours.results(ours.run()) for _ in range(case.compared)]
    differences: dict[str, float] = {}
    for contender in filter(lambda other: other.is_peer, others):
        contender.prepare()
        worst = 0.0
        for want in expected:
            got = contender.results(contender.run())
            if got.keys() != want.keys():
                raise ResultsDifferError(
                    f"{case.name}: {contender.name} gives {sorted(got)}, seqrs {sorted(want)}"
                )
            for name in want:
                a, b = np.asarray(want[name], np.float64), np.asarray(got[name], np.float64)
                difference = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
                # So that what is not a number differs too.
                if not difference <= case.tolerance:
                    raise ResultsDifferError(
                        f"{case.name}: {name} of seqrs and of {contender.name} differ by "
                        f"{difference:.1e} of the largest value, above {case.tolerance:.0e}"
                    )
                worst = max(worst, difference)
        differences[contender.name] = worst
    return differences


def undisturbed(contender: Contender, seconds: float, threads: int) -> tuple[float, int]:
    """A turn with the processors free before and after it, and how often it was repeated.

    What decides is not how the turn went, so no contender is favoured.
    """
    free = processors(threads).are_free
    repeats = 0
    while True:
        for _ in range(LOOKS):
            contender.prepare()
            time.sleep(SETTLE)
            if free():
                break
        value = turn(contender, seconds)
        if free() or repeats == REPEATS:
            return value, repeats
        repeats += 1


def turn(contender: Contender, seconds: float) -> float:
    """Median seconds of one call."""
    run: Callable[[], Any] = contender.run
    calls = 0
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < WARM_UP or calls == 0:
        run()
        calls += 1
    group = max(1, round(GROUP * calls / elapsed))
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(group):
            run()
        samples.append((time.perf_counter() - start) / group)
    return statistics.median(samples)


def ratios(turns: dict[str, list[float]]) -> dict[str, float]:
    """Of seqrs to each other one: the median of the ratios of single rounds, so that a slow moment
    of the machine is in both."""
    ours = turns.get("seqrs", [])
    return {
        name: statistics.median(a / b for a, b in zip(ours, values, strict=True))
        for name, values in turns.items()
        if ours and name != "seqrs"
    }
