"""Times seqrs on a GPU beside PyTorch with cuDNN and its own CPU backend.

    python benches/python/gpu.py                            every case, some minutes
    python benches/python/gpu.py --cases 'layer/lstm/*' --device gpu:1
    python benches/python/gpu.py --json gpu.json
    python benches/python/gpu.py --trial                    tiny sizes: does it run? (no speeds)

It needs the wheel and NumPy; PyTorch takes part where it is installed and finds CUDA, with TF32 off
and on (cuDNN then rounds products to 10 bits). Everything is f32 and goes from NumPy arrays to
NumPy arrays, for everyone: x goes to the device and what is asked for comes back in the time.

    dispatch    a step of an RNN of one unit: what a step costs before it computes anything
    product     multiply-adds of a Linear layer of 2048 x 2048 on 4096 rows, in GFLOP/s
    layer       forward, and forward and backward, of one layer on T steps of B rows, I = H
    characters  a training step: Embedding 64, two LSTM of 256, Linear 256; 32 rows of 128 steps;
                cross-entropy, clipping, Adam

Results come first: before a case is timed, those of every contender are compared with the CPU's
(within 1e-4 of the largest value; with TF32 within 2e-2). A case that differs is not timed and the
run fails. Contenders take turns; a time is the median of its calls.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

try:
    import torch
except ImportError:
    torch = None

Array = Any
Call = Callable[[], "list[Array]"]

CPU, TF32_OFF, TF32_ON = "seqrs CPU", "PyTorch", "PyTorch, TF32"
#: How far from the CPU's, of the largest value: sums of a thousand terms in f32, in another order.
NEAR = 1e-4
#: Products with 10 bits.
NEAR_TF32 = 2e-2

#: (case, what it is compared with, at most so many times its time) or seconds.
GOALS_IN_SECONDS = {
    "layer/lstm/b16/h768/t1024/infer": 7e-3,
    "layer/lstm/b16/h768/t1024/train": 20e-3,
}
GOAL_TO_CUDNN = 1.5
#: From this B H^2 on the GPU is to be faster than one core.
WORTH_A_GPU = 2_000_000


@dataclass
class Case:
    name: str
    #: Contender -> makes a call, which gives the arrays that are compared.
    build: dict[str, Callable[[], Call]]
    #: B H^2, where the goals ask for it.
    size: int = 0


@dataclass
class Found:
    case: str
    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    size: int = 0


def has_cuda() -> bool:
    return torch is not None and torch.cuda.is_available()


# --- the cases


def layer_case(cell: str, batch: int, hidden: int, steps: int, train: bool, device: str) -> Case:
    random = np.random.default_rng(1)
    x = random.uniform(-1, 1, (steps, batch, hidden)).astype(np.float32)
    d_y = random.uniform(-1, 1, (steps, batch, hidden)).astype(np.float32)

    def ours(where: str) -> Call:
        options = {"reset_after": True} if cell == "gru" else {}
        layer = getattr(seqrs, cell.upper())(hidden, hidden, batch_first=False, seed=1, **options)
        layer.to(where)
        if not train:
            return lambda: [layer(x)[0]]

        def call() -> list[Array]:
            y, _, tape = layer.forward(x)
            gradients = layer.backward(tape, d_y)
            return [y, gradients.x, *gradients.params.values()]

        return call

    def theirs(tf32: bool) -> Call:
        weights = getattr(seqrs, cell.upper())(
            hidden, hidden, seed=1, **({"reset_after": True} if cell == "gru" else {})
        ).state_dict()
        layer = getattr(torch.nn, cell.upper())(hidden, hidden)
        layer.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        layer.cuda()

        def call() -> list[Array]:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            given = torch.from_numpy(x).cuda()
            if not train:
                with torch.inference_mode():
                    return [layer(given)[0].cpu().numpy()]
            given.requires_grad_(True)
            layer.zero_grad()
            y, _ = layer(given)
            y.backward(torch.from_numpy(d_y).cuda())
            parameters = [p.grad.cpu().numpy() for p in layer.parameters()]
            return [y.detach().cpu().numpy(), given.grad.cpu().numpy(), *parameters]

        return call

    name = f"layer/{cell}/b{batch}/h{hidden}/t{steps}/{'train' if train else 'infer'}"
    return Case(name, contenders(ours, theirs, device), batch * hidden * hidden)


def contenders(
    ours: Callable[[str], Call], theirs: Callable[[bool], Call] | None, device: str
) -> dict[str, Callable[[], Call]]:
    found: dict[str, Callable[[], Call]] = {
        CPU: lambda: ours("cpu"),
        "seqrs": lambda: ours(device),
    }
    if theirs is not None and has_cuda():
        found |= {TF32_OFF: lambda: theirs(False), TF32_ON: lambda: theirs(True)}
    return found


def characters_case(batch: int, steps: int, hidden: int, device: str) -> Case:
    random = np.random.default_rng(2)
    ids = random.integers(0, 256, (batch, steps + 1))
    x, y = ids[:, :-1], ids[:, 1:]

    def ours(where: str) -> Call:
        layers = [seqrs.Embedding(256, 64), seqrs.LSTM(64, hidden, 2), seqrs.Linear(hidden, 256)]
        model = seqrs.Sequential(layers, seed=3).to(where)
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(1e-3), clip_norm=1.0)

        def call() -> list[Array]:
            done = trainer.step(x, y)
            return [np.array([done.loss]), np.array([done.grad_norm])]

        return call

    def theirs(tf32: bool) -> Call:
        layers = [seqrs.Embedding(256, 64), seqrs.LSTM(64, hidden, 2), seqrs.Linear(hidden, 256)]
        model = seqrs.Sequential(layers, seed=3)
        table = torch.nn.Embedding(256, 64)
        lstm = torch.nn.LSTM(64, hidden, 2, batch_first=True)
        head = torch.nn.Linear(hidden, 256)
        for mine, other in zip(model, (table, lstm, head), strict=True):
            weights = {k: torch.from_numpy(v) for k, v in mine.state_dict().items()}
            other.load_state_dict(weights)
            other.cuda()
        parameters = [*table.parameters(), *lstm.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)

        def call() -> list[Array]:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            given, classes = torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda()
            optimizer.zero_grad()
            logits = head(lstm(table(given))[0])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten())
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            return [np.array([loss.item()]), np.array([norm.item()])]

        return call

    return Case(f"characters/b{batch}/t{steps}/h{hidden}", contenders(ours, theirs, device))


def stacked(layers: int, width: int, rows: int, device: str) -> Call:
    """`layers` products one after the other; the difference of two stacks is free of transfers."""
    x = np.random.default_rng(4).uniform(-1, 1, (rows, width)).astype(np.float32)
    model = seqrs.Sequential([seqrs.Linear(width, width) for _ in range(layers)], seed=4)
    model.to(device)
    return lambda: [model(x)[0]]


def cases(device: str, trial: bool) -> Iterator[Case]:
    sizes = [
        (1, 128),
        (1, 512),
        (32, 128),
        (32, 256),
        (32, 512),
        (128, 256),
        (128, 512),
        (32, 1024),
    ]
    for cell in ("lstm", "gru", "rnn"):
        for batch, hidden in [(2, 16)] if trial else sizes:
            for train in (False, True):
                yield layer_case(cell, batch, hidden, 10 if trial else 100, train, device)
    if not trial:
        for train in (False, True):
            yield layer_case("lstm", 16, 768, 1024, train, device)
    yield characters_case(*((2, 8, 16) if trial else (32, 128, 256)), device)


# --- measuring


def difference(got: list[Array], want: list[Array]) -> float:
    pairs = zip(got, want, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def measure(case: Case, seconds: float) -> tuple[Found, list[str]]:
    found, wrong = Found(case.name, size=case.size), []
    calls = {name: build() for name, build in case.build.items()}
    want = calls[CPU]()
    for name, call in list(calls.items()):
        if name == CPU:
            continue
        found.difference[name] = difference(call(), want)
        if not found.difference[name] <= (NEAR_TF32 if name == TF32_ON else NEAR):
            wrong.append(f"{case.name}: {name} is off by {found.difference[name]:.2g}")
            del calls[name]
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(5):
        for name, call in calls.items():
            call()
            until = time.perf_counter() + seconds / 5
            while True:
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
                if time.perf_counter() > until:
                    break
    for name, of_name in times.items():
        found.seconds[name] = statistics.median(of_name)
        found.spread[name] = (min(of_name), max(of_name))
    return found, wrong


def median(call: Call, seconds: float) -> float:
    call()
    times, until = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def machine(device: str, seconds: float, trial: bool) -> dict[str, float]:
    """Seconds of a step that computes nothing, and GFLOP/s of large products."""
    layer = seqrs.RNN(1, 1).to(device)
    steps = (20, 40) if trial else (512, 1024)
    inputs = [np.zeros((1, t, 1), np.float32) for t in steps]
    short, long = (median(lambda x=x: [layer(x)[0]], seconds) for x in inputs)
    width, rows = (32, 64) if trial else (2048, 4096)
    few, many = (median(stacked(n, width, rows, device), seconds) for n in (4, 12))
    return {
        "dispatch": (long - short) / (steps[1] - steps[0]),
        "gflops": 8 * 2 * width * width * rows / (many - few) / 1e9,
    }


# --- what is printed


def time_of(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def table(records: list[Found]) -> str:
    others = [name for name in (CPU, TF32_OFF, TF32_ON) if any(name in r.seconds for r in records)]
    lines = [
        "| case | seqrs | " + " | ".join(others) + " |",
        "| --- | --- |" + " --- |" * len(others),
    ]
    for record in records:
        if "seqrs" not in record.seconds:
            continue
        ours = record.seconds["seqrs"]
        cells = [
            f"{time_of(record.seconds[name])} ({ours / record.seconds[name]:.2f})"
            if name in record.seconds
            else ""
            for name in others
        ]
        lines.append(f"| {record.case} | {time_of(ours)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(records: list[Found]) -> Iterator[str]:
    for record in records:
        ours = record.seconds.get("seqrs")
        if ours is None:
            continue
        if record.case in GOALS_IN_SECONDS:
            most = GOALS_IN_SECONDS[record.case]
            met = "met" if ours <= most else "not met"
            yield f"{record.case}: {time_of(ours)}, goal {time_of(most)}: {met}"
        if TF32_OFF in record.seconds and record.size >= 256 * 256:
            ratio = ours / record.seconds[TF32_OFF]
            met = "met" if ratio <= GOAL_TO_CUDNN else "not met"
            yield f"{record.case}: {ratio:.2f} x PyTorch, goal {GOAL_TO_CUDNN}: {met}"
        if record.size >= WORTH_A_GPU:
            ratio = ours / record.seconds[CPU]
            met = "met" if ratio < 1 else "not met"
            yield f"{record.case}: {ratio:.2f} x one core, goal below 1: {met}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Times seqrs on a GPU.")
    parser.add_argument("--device", default="gpu", help="such as gpu:1 (gpu)")
    parser.add_argument("--cases", default="*", help="such as 'layer/lstm/*'")
    parser.add_argument("--seconds", type=float, default=0.5, help="per contender and case")
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--trial", action="store_true", help="tiny sizes, and no speeds")
    options = parser.parse_args()
    seqrs.set_num_threads(1)
    number = int(options.device.partition(":")[2] or 0)
    adapters = seqrs.gpu.adapters()
    if number >= len(adapters):
        sys.exit(f"--device: expected one of {len(adapters)} adapters, got {options.device}")
    adapter = adapters[number]
    print(f"{adapter['name']} ({adapter['driver']}, {adapter['api']})")
    if adapter["software"] and not options.trial:
        sys.exit("expected a GPU, got one made of software: its speed says nothing (--trial)")
    seconds = 0.02 if options.trial else options.seconds
    limits = machine(options.device, seconds, options.trial)
    records, failures = [], []
    for case in cases(options.device, options.trial):
        if fnmatch.fnmatch(case.name, options.cases):
            record, wrong = measure(case, seconds)
            records.append(record)
            failures += wrong
            print(f"{case.name}: {record.difference}", file=sys.stderr)
    if options.trial:
        print(f"{len(records)} cases ran")
    else:
        print(f"a step that computes nothing: {time_of(limits['dispatch'])}")
        print(f"large products: {limits['gflops']:.0f} GFLOP/s")
        print(table(records))
        print("\n".join(goals(records)))
    if options.json:
        record = {
            "adapter": adapter,
            "machine": platform.processor() or platform.machine(),
            "seqrs": seqrs.__version__,
            "torch": torch.__version__ if torch is not None else None,
            "limits": limits,
            "records": [vars(record) for record in records],
            "failures": failures,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit("\n".join(failures) or None)


if __name__ == "__main__":
    main()
