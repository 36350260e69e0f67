"""Times serving: one step of one stream, and thousands of streams stepped as one batch.

    python benches/python/serving.py                                  both parts, a few minutes
    python benches/python/serving.py --parts step --cases 'lstm/*'
    python benches/python/serving.py --json new.json

ONNX Runtime and PyTorch do the same job where they are installed: the states are inputs and outputs
of a streaming model (`seqrs.onnx.export(..., streaming=True)`), or of the module. Weights are the
same, and results are compared before anything is timed.

    step       one row from a given state to the next one, from Python, all in
    pool       10 000 streams with their states somewhere; a call steps some of them, in random
               order. The others keep all states in one array each, gather the rows of the streams
               that are called, run the batch, and scatter the new states.

Contenders take turns. In a turn, calls are timed in runs of about a millisecond, or one by one
where they take longer. Columns are the median of all runs, the best one, and (pool) the time of all
threads on a processor: on a machine that is busy with other things the best run and that time say
more than the median.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

try:
    import onnxruntime
except ImportError:
    onnxruntime = None
try:
    import torch
except ImportError:
    torch = None

Array = Any

HIDDEN = (64, 128, 256)
STREAMS = 10_000
#: Streams that a call steps.
CALLED = (1, 16, 128, 1000, 10_000)
#: What a step of one row may take, in microseconds, and what two threads have to do in a second.
GOAL_STEP = {64: 3.0, 128: 6.0, 256: 30.0}
GOAL_POOL = 2e6
#: Of the largest value: other orders of sums, and other approximations of exp and tanh.
CLOSE = 3e-5

#: Seconds before a turn, for other libraries' threads to go to sleep, and of one without the clock.
SETTLE, WARM_UP = 0.02, 0.02
#: Seconds of a run.
RUN = 0.001


@dataclass(frozen=True)
class Contender:
    name: str
    call: Callable[[], Any]
    #: y and the states after the first call, to be compared.
    results: Callable[[], list[Array]]


@dataclass(frozen=True)
class Case:
    name: str
    #: Streams that a call steps.
    streams: int
    threads: int
    goal: str
    contenders: Callable[[], list[Contender]]


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def layer_of(cell: str, hidden: int) -> Any:
    if cell == "lstm":
        return seqrs.LSTM(hidden, hidden, seed=1)
    return seqrs.GRU(hidden, hidden, reset_after=True, seed=1)


def parts(state: Any) -> list[Array]:
    return list(state) if isinstance(state, tuple) else [state]


def session_of(layer: Any, threads: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "streaming.onnx"
        seqrs.onnx.export(layer, path, streaming=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )


def module_of(layer: Any, threads: int) -> Any:
    torch.set_num_threads(threads)
    kind = torch.nn.LSTM if layer.kind == "lstm" else torch.nn.GRU
    module = kind(layer.input_size, layer.hidden_size)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    return module


# --- one step


def step(cell: str, hidden: int) -> list[Contender]:
    layer = layer_of(cell, hidden)
    x = numbers(1, 1, hidden)
    _, state = layer.step(numbers(2, 1, hidden))

    def own() -> list[Array]:
        y, after = layer.step(x, state)
        return [y, *parts(after)]

    found = [Contender("seqrs", lambda: layer.step(x, state), own)]

    y, after = layer.step(x, state)
    out = (np.empty_like(y), tuple(map(np.empty_like, parts(after))))
    out = out if len(parts(after)) == 2 else (out[0], out[1][0])

    def written() -> list[Array]:
        y, after = layer.step(x, state, out=out)
        return [y, *parts(after)]

    found.append(Contender("seqrs, out=", lambda: layer.step(x, state, out=out), written))
    if onnxruntime is not None:
        session = session_of(layer, 1)
        names = [each.name for each in session.get_inputs()]
        feed = dict(zip(names, [x[:, None], *parts(state)], strict=True))

        def run() -> list[Array]:
            y, *after = session.run(None, feed)
            return [y[:, 0], *after]

        found.append(Contender("ONNX Runtime", lambda: session.run(None, feed), run))
    if torch is not None:
        module = module_of(layer, 1)
        x_t = torch.from_numpy(x[None])
        tensors = [torch.from_numpy(part) for part in parts(state)]
        given = tuple(tensors) if len(tensors) == 2 else tensors[0]

        def infer() -> Any:
            with torch.inference_mode():
                return module(x_t, given)

        def tensors_of() -> list[Array]:
            y, after = infer()
            return [y[0].numpy(), *(part.numpy() for part in parts(after))]

        found.append(Contender("PyTorch", infer, tensors_of))
    return found


# --- a pool


def pool(cell: str, hidden: int, count: int, threads: int) -> list[Contender]:
    layer = layer_of(cell, hidden)
    x = numbers(1, count, hidden)
    chosen = np.random.default_rng(3).permutation(STREAMS)[:count]
    #: Every stream has made a step before, so that no state is zero.
    first = numbers(2, STREAMS, hidden)

    streams = seqrs.StreamPool(layer, capacity=STREAMS)
    sids = [streams.open() for _ in range(STREAMS)]
    streams.step(sids, first)
    called = [sids[k] for k in chosen]

    def own() -> list[Array]:
        return [streams.step(called, x)]

    found = [Contender("seqrs", lambda: streams.step(called, x), own)]
    _, state = layer.step(first)
    if onnxruntime is not None:
        session = session_of(layer, threads)
        names = [each.name for each in session.get_inputs()]
        kept = [part.copy() for part in parts(state)]

        def run() -> Array:
            rows = [part[:, chosen] for part in kept]
            y, *after = session.run(None, dict(zip(names, [x[:, None], *rows], strict=True)))
            for part, new in zip(kept, after, strict=True):
                part[:, chosen] = new
            return y[:, 0]

        found.append(Contender("ONNX Runtime", run, lambda: [run()]))
    if torch is not None:
        module = module_of(layer, threads)
        index, x_t = torch.from_numpy(chosen), torch.from_numpy(x[None])
        tensors = [torch.from_numpy(part.copy()) for part in parts(state)]

        def infer() -> Array:
            with torch.inference_mode():
                rows = [part[:, index] for part in tensors]
                y, after = module(x_t, tuple(rows) if len(rows) == 2 else rows[0])
                for part, new in zip(tensors, parts(after), strict=True):
                    part[:, index] = new
                return y[0].numpy()

        found.append(Contender("PyTorch", infer, lambda: [infer()]))
    return found


# --- what there is


def cases() -> Iterable[Case]:
    for cell in ("lstm", "gru"):
        for hidden in HIDDEN:
            name = f"step/{cell}/h{hidden}"
            goal = f"<= {GOAL_STEP[hidden]:g} us"
            yield Case(name, 1, 1, goal, lambda cell=cell, hidden=hidden: step(cell, hidden))
    for threads in (1, 2):
        for cell in ("lstm", "gru"):
            for count in CALLED:
                goal = ""
                if (cell, count, threads) == ("lstm", STREAMS, 2):
                    goal = f">= {GOAL_POOL / 1e6:g} M/s"
                yield Case(
                    f"pool/{cell}/h64/n{count}/t{threads}",
                    count,
                    threads,
                    goal,
                    lambda cell=cell, count=count, threads=threads: pool(cell, 64, count, threads),
                )


def compare(name: str, contenders: list[Contender]) -> None:
    expected = contenders[0].results()
    for other in contenders[1:]:
        for got, array in zip(other.results(), expected, strict=True):
            scale = np.abs(array).max()
            distance = np.abs(got - array).max() / scale
            if got.shape != array.shape or not distance <= CLOSE:
                sys.exit(f"{name}: {other.name} gives something else than seqrs, by {distance:g}")


def turn(call: Callable[[], Any], seconds: float) -> tuple[list[float], float]:
    """Seconds of the clock for a call in each run, and of all threads on a processor for a call."""
    time.sleep(SETTLE)
    end = time.perf_counter() + WARM_UP
    count = 0
    while count == 0 or time.perf_counter() < end:
        call()
        count += 1
    together = max(1, int(count * RUN / WARM_UP))
    runs = []
    cpu, now = time.process_time(), time.perf_counter()
    end = now + seconds
    while now < end or not runs:
        begin = now
        for _ in range(together):
            call()
        now = time.perf_counter()
        runs.append((now - begin) / together)
    return runs, (time.process_time() - cpu) / (together * len(runs))


def measure(case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    with seqrs.num_threads(case.threads):
        contenders = case.contenders()
        compare(case.name, contenders)
        turns: dict[str, list[tuple[list[float], float]]] = {each.name: [] for each in contenders}
        for k in range(rounds):
            for at in range(len(contenders)):
                each = contenders[(k + at) % len(contenders)]
                turns[each.name].append(turn(each.call, seconds))
    found = {}
    for name, values in turns.items():
        runs = [run for runs, _ in values for run in runs]
        found[name] = {
            "seconds": statistics.median(runs),
            "best": min(runs),
            "processor": statistics.median(cpu for _, cpu in values),
        }
    return found


def show(case: Case, found: dict[str, Any]) -> None:
    print(f"\n{case.name}   {case.goal}")
    own = found["seqrs"]["seconds"]
    for name, values in found.items():
        words = f"  {name:14} {values['seconds'] * 1e6:10.2f} us  best {values['best'] * 1e6:10.2f}"
        if case.name.startswith("pool"):
            rate = case.streams / values["seconds"] * 1e-6
            best = case.streams / values["best"] * 1e-6
            share = case.streams / values["processor"] * 1e-6
            words += f"   {rate:6.3f} M/s  best {best:6.3f}  a second of processor {share:6.3f} M"
        print(f"{words}   {values['seconds'] / own:5.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="*", default=["step", "pool"], choices=["step", "pool"])
    parser.add_argument("--cases", default="*", help="those whose names match, such as 'gru/*'")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="of a turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record = {
        "machine": platform.processor() or platform.machine(),
        "seqrs": seqrs.info(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cases": {},
    }
    for case in cases():
        part, _, rest = case.name.partition("/")
        if part in options.parts and fnmatch.fnmatch(rest, options.cases):
            found = measure(case, options.rounds, options.seconds)
            record["cases"][case.name] = found
            show(case, found)
    if hasattr(os, "getloadavg"):
        print(f"\nload {record['load']:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
