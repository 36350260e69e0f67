"""Times seqrs while others want the processors too.

    python benches/python/neighbours.py                                     every case, some minutes
    python benches/python/neighbours.py --quick --cases 'busy/*/lstm/*'
    python benches/python/neighbours.py --json new.json

Everything runs on two processors, and asks two questions:

    busy       another process computes on one of them without a pause. Are two threads of seqrs
               slower than one? They may be, by at most a tenth.
    callers    eight Python threads call one model at once. Do they get as much done as one does?

Before a case is timed, its results are compared, bit by bit, with those of one thread that has the
machine to itself: on two threads, beside the neighbour, and from eight callers at once. Then the
situations take turns. A turn's value is the time of all its calls over their number, so that a
pause in a single call counts. In a round each situation has one turn, right after each other, and
ratios are those of a round: a slow moment of the machine is in both. Worst is the worst round.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import seqrs

Array = Any
#: The arrays that a call gives, by name.
Results = dict[str, Array]

STEPS = 100
CALLERS = 8
#: What two threads may cost beside a neighbour, times what one costs.
GOAL_BUSY = 1.1
#: What eight callers get done, times what one does.
GOAL_CALLERS = 1.0

#: Seconds before a turn: threads go to sleep, and the system moves those that have to share.
SETTLE = 0.01
#: A turn first runs for at least so long without being timed.
WARM_UP = 0.01


@dataclass(frozen=True)
class Case:
    name: str
    #: Makes a call, which any number of threads may make at once.
    build: Callable[[], Callable[[], Results]]


@dataclass(frozen=True)
class Turn:
    #: Seconds of the clock, and of all threads of this process on a processor, for each call.
    wall: float
    cpu: float


# --- the neighbour

#: Computes between the first byte and the second, the third and the fourth, and so on. It ends when
#: its parent does, however that ends: what it waits for can then be read, and is nothing.
COMPUTE = """
import os, select, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
while os.read(0, 1):
    while not select.select([0], [], [], 0)[0]:
        for _ in range(10_000):
            pass
    os.read(0, 1)
"""


class Neighbour:
    """A process that keeps one processor busy from `begin` to `end`."""

    def __init__(self, processor: int) -> None:
        command = [sys.executable, "-I", "-S", "-c", COMPUTE, str(processor)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
        self._since = (0.0, 0.0)
        #: Of the processor that it wants it has had so many seconds, of so many.
        self.had, self.wanted = 0.0, 0.0

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def begin(self) -> None:
        self._process.stdin.write(b"b")
        self._since = (time.perf_counter(), self._on_processor())

    def end(self) -> None:
        now, had = time.perf_counter(), self._on_processor()
        self.wanted += now - self._since[0]
        self.had += had - self._since[1]
        self._process.stdin.write(b"e")

    def _on_processor(self) -> float:
        if self._process.poll() is not None:
            sys.exit(f"the neighbour ended with status {self._process.returncode}")
        with open(f"/proc/{self._process.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) * 1e-9


def two_processors(wanted: str | None) -> tuple[int, int]:
    """The two that everything runs on; the neighbour gets the second."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("expected a system where processes can be bound to processors (Linux)")
    allowed = sorted(os.sched_getaffinity(0))
    try:
        chosen = [int(n) for n in wanted.split(",")] if wanted else allowed[:2]
    except ValueError:
        chosen = []
    if len(set(chosen)) != 2 or not set(chosen) <= set(allowed):
        sys.exit(f"--processors: expected two of {allowed}, got {wanted or allowed}")
    os.sched_setaffinity(0, chosen)
    return chosen[0], chosen[1]


# --- cases


def layer_of(cell: str, hidden: int) -> seqrs.Layer:
    if cell == "lstm":
        return seqrs.LSTM(hidden, hidden, batch_first=False)
    return seqrs.GRU(hidden, hidden, reset_after=True, batch_first=False)


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def arrays(name: str, value: Any) -> Results:
    """A state, h or (h, c), as arrays."""
    parts = value if isinstance(value, tuple) else (value,)
    return {f"{name} {k}": part for k, part in enumerate(parts)}


def step(cell: str, batch: int, hidden: int) -> Callable[[], Results]:
    """One step from a given state."""
    layer, x = layer_of(cell, hidden), numbers(1, batch, hidden)
    _, state = layer.step(x)

    def call() -> Results:
        y, after = layer.step(x, state)
        return {"y": y, **arrays("state", after)}

    return call


def infer(cell: str, batch: int, hidden: int) -> Callable[[], Results]:
    """A batch of sequences."""
    layer, x = layer_of(cell, hidden), numbers(1, STEPS, batch, hidden)

    def call() -> Results:
        y, state = layer(x)
        return {"y": y, **arrays("state", state)}

    return call


def train(cell: str, batch: int, hidden: int) -> Callable[[], Results]:
    """Forward and backward: the gradients of the input and of every parameter."""
    layer = layer_of(cell, hidden)
    x, dy = numbers(1, STEPS, batch, hidden), numbers(2, STEPS, batch, hidden)

    def call() -> Results:
        y, _, tape = layer.forward(x)
        gradients = layer.backward(tape, dy)
        return {"y": y, "x": gradients.x, **gradients.params}

    return call


KINDS = {"step": step, "infer": infer, "train": train}


def busy_cases() -> Iterable[Case]:
    for kind in ("infer", "train"):
        for cell in ("lstm", "gru"):
            for batch in (1, 4, 8, 32):
                for hidden in (64, 128, 256, 512):
                    yield case("busy", kind, cell, batch, hidden)


def callers_cases() -> Iterable[Case]:
    for cell in ("lstm", "gru"):
        for hidden in (64, 256):
            yield case("callers", "step", cell, 1, hidden)
    for kind in ("infer", "train"):
        for cell in ("lstm", "gru"):
            for batch in (1, 8, 32):
                for hidden in (64, 256):
                    yield case("callers", kind, cell, batch, hidden)


def case(question: str, kind: str, cell: str, batch: int, hidden: int) -> Case:
    name = f"{question}/{kind}/{cell}/b{batch}/h{hidden}"
    return Case(name, lambda: KINDS[kind](cell, batch, hidden))


# --- measuring


def assert_same(name: str, situation: str, got: Results, expected: Results) -> None:
    for key, array in expected.items():
        if not np.isfinite(array).all() or not array.any():
            sys.exit(f"{name}: {key} is no result")
        if np.asarray(got[key]).tobytes() != np.asarray(array).tobytes():
            sys.exit(f"{name}: {key} has other bits {situation} than on one thread alone")


def at_once(callers: int, job: Callable[[], object]) -> float:
    """Seconds until as many Python threads have all done the job, which they begin together."""
    begin = threading.Barrier(callers + 1)
    problems: list[BaseException] = []

    def caller() -> None:
        begin.wait()
        try:
            job()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    if problems:
        raise problems[0]
    return elapsed


def turn(run: Callable[[], object], seconds: float) -> Turn:
    """Calls for so many seconds."""
    time.sleep(SETTLE)
    end, warm = time.perf_counter() + WARM_UP, False
    while not warm:
        run()
        warm = time.perf_counter() >= end
    calls, elapsed = 0, 0.0
    cpu, start = time.process_time(), time.perf_counter()
    while elapsed < seconds:
        run()
        calls += 1
        elapsed = time.perf_counter() - start
    return Turn(elapsed / calls, (time.process_time() - cpu) / calls)


def shared_turn(run: Callable[[], object], calls: int, callers: int) -> Turn:
    """So many calls, made by as many Python threads as are free to make the next."""
    time.sleep(SETTLE)
    at_once(callers, run)
    left = iter(range(calls))
    cpu = time.process_time()
    elapsed = at_once(callers, lambda: [run() for _ in left])
    return Turn(elapsed / calls, (time.process_time() - cpu) / calls)


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    walls = [turn.wall for turn in turns]
    return {
        "seconds": statistics.median(walls),
        "spread": [min(walls), max(walls)],
        "processor": statistics.median(turn.cpu for turn in turns),
    }


def ratios(above: Sequence[Turn], below: Sequence[Turn]) -> list[float]:
    """Of the times of the same rounds."""
    return [a.wall / b.wall for a, b in zip(above, below, strict=True)]


def measure_busy(case: Case, neighbour: Neighbour, options: argparse.Namespace) -> dict[str, Any]:
    run = case.build()
    with seqrs.num_threads(1):
        expected = run()
    situations = [(threads, busy) for busy in (False, True) for threads in (1, 2)]
    turns: dict[tuple[int, bool], list[Turn]] = {situation: [] for situation in situations}
    for round_ in range(-1, options.rounds):
        for threads, busy in situations:
            if busy:
                neighbour.begin()
            with seqrs.num_threads(threads):
                if round_ < 0:
                    words = f"on {threads} threads {'beside a neighbour' if busy else 'alone'}"
                    assert_same(case.name, words, run(), expected)
                else:
                    turns[threads, busy].append(turn(run, options.seconds / options.rounds))
            if busy:
                neighbour.end()
    alone = ratios(turns[2, False], turns[1, False])
    beside = ratios(turns[2, True], turns[1, True])
    return {
        "case": case.name,
        "alone": {threads: summary(turns[threads, False]) for threads in (1, 2)},
        "beside": {threads: summary(turns[threads, True]) for threads in (1, 2)},
        "ratio alone": statistics.median(alone),
        "ratio": statistics.median(beside),
        "worst": max(beside),
        "met": statistics.median(beside) <= GOAL_BUSY,
    }


def measure_callers(case: Case, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    run = case.build()
    with seqrs.num_threads(1):
        expected = run()
    with seqrs.num_threads(threads):
        words = f"from {CALLERS} callers on {threads} threads"
        at_once(CALLERS, lambda: assert_same(case.name, words, run(), expected))
        for _ in range(3):
            start = time.perf_counter()
            run()
            took = time.perf_counter() - start
        seconds = options.seconds / options.rounds
        # A few for each caller, so that no caller's last call is a large part.
        calls = max(round(seconds / took), 3 * CALLERS)
        turns: dict[int, list[Turn]] = {1: [], CALLERS: []}
        for _ in range(options.rounds):
            for callers, found in turns.items():
                found.append(shared_turn(run, calls, callers))
    gains = ratios(turns[1], turns[CALLERS])
    return {
        "case": case.name,
        "threads": threads,
        "calls": calls,
        "one": summary(turns[1]),
        "eight": summary(turns[CALLERS]),
        "throughput": statistics.median(gains),
        "worst": min(gains),
        "met": statistics.median(gains) >= GOAL_CALLERS,
    }


# --- what is said


def machine(processors: tuple[int, int]) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return {
        "processor": name,
        "processors": os.cpu_count(),
        "used": list(processors),
        "system": platform.system(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "level": seqrs.info()["level"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seqrs": seqrs.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def duration(seconds: float) -> str:
    value, unit = (seconds * 1e3, "ms") if seconds >= 1e-2 else (seconds * 1e6, "us")
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def mark(value: float, met: bool) -> str:
    return f"{value:.2f}" if met else f"**{value:.2f}**"


def busy_table(records: Sequence[dict[str, Any]]) -> str:
    heads = ["case", "1 thread", "2 threads", "ratio", "beside: 1 thread", "2 threads"]
    heads += ["ratio", "worst"]
    rows = []
    for record in records:
        times = [record[where][n]["seconds"] for where in ("alone", "beside") for n in (1, 2)]
        words = [duration(seconds) for seconds in times]
        alone = f"{record['ratio alone']:.2f}"
        ends = [mark(record["ratio"], record["met"]), f"{record['worst']:.2f}"]
        rows.append([record["case"], *words[:2], alone, *words[2:], *ends])
    return table(heads, rows)


def callers_table(records: Sequence[dict[str, Any]]) -> str:
    heads = ["case", "threads", "a call, 1 caller", f"{CALLERS} callers", "throughput", "worst"]
    rows = []
    for record in records:
        words = [duration(record[who]["seconds"]) for who in ("one", "eight")]
        ends = [mark(record["throughput"], record["met"]), f"{record['worst']:.2f}"]
        rows.append([record["case"], str(record["threads"]), *words, *ends])
    return table(heads, rows)


def verdict(what: str, records: Sequence[dict[str, Any]]) -> str:
    missed = [record for record in records if not record["met"]]
    names = [r["case"] + (f" ({r['threads']} threads)" if "threads" in r else "") for r in missed]
    words = f"{what}: {len(records) - len(missed)} of {len(records)}"
    return words + (f"; not: {', '.join(names)}" if names else "")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="*", metavar="GLOB", help="such as 'busy/infer/lstm/*'")
    parser.add_argument("--seconds", type=float, default=0.5, help="per case and situation")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each situation gets")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 0.1 seconds")
    parser.add_argument("--processors", metavar="A,B", help="which two; the neighbour gets B")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 3, 0.1
    return options


def main() -> None:
    options = parse()

    def chosen(cases: Iterable[Case]) -> list[Case]:
        return [case for case in cases if fnmatch.fnmatch(case.name, options.cases)]

    busy, callers = chosen(busy_cases()), chosen(callers_cases())
    if not busy and not callers:
        sys.exit(f"--cases: expected a pattern that matches a case, got {options.cases!r}")
    if options.list:
        print("\n".join(case.name for case in busy + callers))
        return
    processors = two_processors(options.processors)
    about = machine(processors)
    if about["load"][0] > 0.5:
        print(f"note: the machine is busy (load {about['load'][0]})", file=sys.stderr)

    beside: list[dict[str, Any]] = []
    with Neighbour(processors[1]) as neighbour:
        for case in busy:
            beside.append(measure_busy(case, neighbour, options))
            print(f"{case.name}: {beside[-1]['ratio']:.2f}", file=sys.stderr)
    at_the_same_time = []
    for case in callers:
        for threads in (1, 2):
            at_the_same_time.append(measure_callers(case, threads, options))
            words = f"{at_the_same_time[-1]['throughput']:.2f}"
            print(f"{case.name}, {threads} thread(s): {words}", file=sys.stderr)

    if beside:
        share = neighbour.had / neighbour.wanted
        print(busy_table(beside))
        print(f"\nThe neighbour had {share:.0%} of the processor that it wanted.")
        print(verdict(f"beside it, two threads take at most {GOAL_BUSY} x one's time", beside))
    if at_the_same_time:
        print("\n" * bool(beside) + callers_table(at_the_same_time) + "\n")
        words = f"{CALLERS} callers get done at least {GOAL_CALLERS} x what one does"
        print(verdict(words, at_the_same_time))
    if options.json:
        record = {
            "machine": about,
            "settings": {"rounds": options.rounds, "seconds": options.seconds},
            "busy": beside,
            "callers": at_the_same_time,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
        print(f"\nrecord: {options.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
