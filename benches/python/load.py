"""Latency of independent requests at 50 % and 80 % load, beside ONNX Runtime and PyTorch.

    python benches/python/load.py                         some minutes
    python benches/python/load.py --quick
    python benches/python/load.py --json load.json --plot load.png

A request is one sequence of a random length for a classifier (an LSTM, its last output, a linear
layer), and the machine has two processors. Each contender has a process of its own, and does it the
way that serves it best here:

    seqrs           `seqrs.Batcher`, asked by tasks of one event loop
    seqrs int8      the same with `model.quantize("int8")`
    ONNX Runtime    two threads that take requests from a queue, a session with one thread
    PyTorch         the same, in inference mode

Weights are the same (but for int8's), and the answers are compared with seqrs's before anything is
timed. Requests arrive at random (a Poisson process), from a thread of their own, and a request's
latency counts from when it was due. They arrive at shares of what the contender does with a
backlog, measured right before, and at shares of what the slowest one does so. Contenders take
turns, and each percentile is the median over the turns, as the machine has moods. Memory is what
the process has grown by since it had its libraries loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

Array = Any

CONTENDERS = ("seqrs", "seqrs int8", "ONNX Runtime", "PyTorch")
SHARES = (0.2, 0.5, 0.65, 0.8, 0.9)
TOLD = (0.5, 0.8)
INPUTS, HIDDEN, CLASSES = 64, 128, 10
REQUESTS = 256
LENGTHS = (5, 100)
PROCESSORS = 2
#: How a contender is asked, and of whose rate that is a share.
KINDS = {"share": "its own", "rate": "the slowest's"}
#: Runs of each contender at each point, and seconds of one.
TURNS, SECONDS = 3, 2.0
#: Requests that are there at once when 100 % is measured.
BACKLOG = 2000
#: Of the largest answer: other orders of sums, and the rounding of weights and operands.
CLOSE = {"seqrs": 0.0, "seqrs int8": 0.1, "ONNX Runtime": 3e-5, "PyTorch": 3e-5}


def model() -> seqrs.Sequential:
    layers = [seqrs.LSTM(INPUTS, HIDDEN), seqrs.Last(), seqrs.Linear(HIDDEN, CLASSES)]
    return seqrs.Sequential(layers, seed=0)


def sequences() -> list[Array]:
    draw = np.random.default_rng(0)
    lengths = draw.integers(LENGTHS[0], LENGTHS[1] + 1, REQUESTS)
    return [draw.normal(size=(n, INPUTS)).astype(np.float32) for n in lengths]


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def send(due: Array, one: Callable[[int, float], object]) -> None:
    """Sends each request when it is due."""
    for k, at in enumerate(time.perf_counter() + due):
        while (wait := at - time.perf_counter()) > 0:
            time.sleep(0 if wait < 1e-4 else wait - 5e-5)
        one(k, at)


class Tasks:
    """Requests as tasks of an event loop."""

    def __init__(self, served: Any) -> None:
        self.batcher = seqrs.Batcher(served, max_queue=1 << 16)

    def answer(self, x: Array) -> Array:
        return self.batcher.predict(x)

    def run(self, xs: list[Array], due: Array) -> Array:
        """Latencies of requests that are due at these times from now on."""
        latencies = np.empty(len(due))

        async def one(k: int, at: float) -> None:
            await self.batcher.predict_async(xs[k % len(xs)])
            latencies[k] = time.perf_counter() - at

        async def all_of_them() -> None:
            loop, tasks = asyncio.get_running_loop(), list[asyncio.Task[None]]()

            def begin(k: int, at: float) -> None:
                tasks.append(loop.create_task(one(k, at)))

            # From another thread, as from a network: the loop has nothing to do until they come.
            await asyncio.to_thread(
                send, due, lambda k, at: loop.call_soon_threadsafe(begin, k, at)
            )
            await asyncio.gather(*tasks)

        asyncio.run(all_of_them())
        return latencies


class Threads:
    """Requests from a queue that threads empty."""

    def __init__(self, answer: Callable[[Array], Array]) -> None:
        self.answer = answer

    def run(self, xs: list[Array], due: Array) -> Array:
        latencies, waiting = np.empty(len(due)), queue.SimpleQueue[Any]()

        def work() -> None:
            while (job := waiting.get()) is not None:
                k, at = job
                self.answer(xs[k % len(xs)])
                latencies[k] = time.perf_counter() - at

        threads = [threading.Thread(target=work) for _ in range(PROCESSORS)]
        for thread in threads:
            thread.start()
        send(due, lambda k, at: waiting.put((k, at)))
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
        return latencies


def contender(name: str) -> Tasks | Threads:
    if name == "seqrs":
        return Tasks(model())
    if name == "seqrs int8":
        return Tasks(model().quantize("int8"))
    if name == "ONNX Runtime":
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            seqrs.onnx.export(model(), path)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        inputs, outputs = session.get_inputs(), [session.get_outputs()[0].name]
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}

        def run(x: Array) -> Array:
            feed: dict[str, Array] = {inputs[0].name: x[None]}
            for given in inputs[1:]:
                if given.type in kinds:
                    feed[given.name] = np.array([len(x)], kinds[given.type])
                else:
                    feed[given.name] = np.zeros((1, 1, HIDDEN), np.float32)
            return session.run(outputs, feed)[0][0]

        return Threads(run)
    import torch

    torch.set_num_threads(1)
    lstm, _, linear = model()
    parts = [seqrs.to_torch(lstm), seqrs.to_torch(linear)]

    def call(x: Array) -> Array:
        with torch.inference_mode():
            y, _ = parts[0](torch.from_numpy(x[None]))
            return parts[1](y[0, -1]).numpy()

    return Threads(call)


def arrivals(rate: float, seconds: float) -> Array:
    draw = random.Random(1)
    times, at = list[float](), 0.0
    while at < seconds:
        times.append(at)
        at += draw.expovariate(rate)
    return np.array(times)


def serve(name: str, seconds: float) -> None:
    """What the process of a contender does: reads shares and rates, writes percentiles."""
    xs, before = sequences(), resident()
    served, reference = contender(name), model()
    far = 0.0
    for x in xs[:32]:
        want = reference(x[None])[0][0]
        far = max(far, float(np.abs(served.answer(x) - want).max() / np.abs(want).max()))
    assert far <= CLOSE[name], f"{name}: off by {far}"
    served.run(xs, np.zeros(BACKLOG))
    print(json.dumps({"memory": resident() - before}), flush=True)
    for line in sys.stdin:
        kind, value = line.split()
        rate = float(value)
        own = float("nan")
        if kind == "share":
            start = time.perf_counter()
            served.run(xs, np.zeros(BACKLOG))
            own = BACKLOG / (time.perf_counter() - start)
            rate *= own
        latencies = served.run(xs, arrivals(rate, seconds))
        percentiles = np.percentile(1e3 * latencies, [50, 95, 99]).tolist()
        print(json.dumps([own, percentiles]), flush=True)


def main() -> int:
    summary, _, description = (__doc__ or "").partition("\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=description, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="half a second for each run, not 2")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--plot", type=Path, help="file for latency over load")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    seconds = 0.5 if args.quick else SECONDS
    if args.contender:
        serve(args.contender, seconds)
        return 0

    found: dict[str, dict[str, Any]] = {}
    processes: dict[str, Any] = {}
    for name in CONTENDERS:
        command = [sys.executable, __file__, "--contender", name]
        command += ["--quick"] if args.quick else []
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        first = process.stdout.readline() if process.stdout else ""
        if not first:
            print(f"{name}: not here, or not right", file=sys.stderr)
            process.kill()
            continue
        found[name], processes[name] = json.loads(first), process

    def ask(name: str, question: str) -> tuple[float, list[float]]:
        process = processes[name]
        process.stdin.write(f"{question}\n")
        process.stdin.flush()
        own, percentiles = json.loads(process.stdout.readline())
        return own, percentiles

    def points(kind: str, value: Callable[[float], float]) -> dict[str, list[float]]:
        """Percentiles of each contender at each share; gives what it did with a backlog before."""
        own: dict[str, list[float]] = {name: [] for name in found}
        for share in SHARES:
            turns: dict[str, list[list[float]]] = {name: [] for name in found}
            for _ in range(TURNS):
                for name in found:
                    rate, percentiles = ask(name, f"{kind} {value(share)}")
                    own[name].append(rate)
                    turns[name].append(percentiles)
            for name, one in found.items():
                one.setdefault(kind, {})[str(share)] = np.median(turns[name], axis=0).tolist()
        return own

    for name, rates in points("share", lambda share: share).items():
        found[name]["capacity"] = float(np.median(rates))
    slowest = min(one["capacity"] for one in found.values())
    points("rate", lambda share: share * slowest)
    for process in processes.values():
        process.stdin.close()
        process.wait()

    head = f"{'':14} {'requests/s':>10} {'memory':>9}"
    head += "".join(
        f"   {f'{whose} {s:.0%}: p50 p95 p99 ms':>30}" for whose in KINDS.values() for s in TOLD
    )
    print(head)
    for name, one in found.items():
        row = f"{name:14} {one['capacity']:10.0f} {one['memory'] / 2**20:6.1f} MB"
        for kind in KINDS:
            for share in TOLD:
                row += "   " + " ".join(f"{v:9.2f}" for v in one[kind][str(share)]).rjust(30)
        print(row)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    if args.plot:
        draw(found, args.plot)
    return 0


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for side, (kind, whose) in zip(axes, KINDS.items(), strict=True):
        for name, one in found.items():
            p99 = [one[kind][str(share)][2] for share in SHARES]
            side.plot(SHARES, p99, marker="o", label=name)
        side.set(xlabel=f"share of {whose} rate", yscale="log")
        side.grid(alpha=0.3)
    axes[0].set_ylabel("99th percentile of the latency, ms")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
