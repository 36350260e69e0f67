"""Times seqrs beside PyTorch and ONNX Runtime, on the same weights and inputs.

    python benches/python/compare.py                       every case, one and two threads
    python benches/python/compare.py --quick --cases 'step/*' --threads 1
    python benches/python/compare.py --json new.json --against old.json

Before a case is timed, every contender's results are compared with those of seqrs. Then the
contenders take turns in one process: each turn waits until the threads of the one before have gone
to sleep, warms up, and is timed for a while. benches/README.md says what each case is.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import seqrs
import torch

Array = Any
Results = dict[str, Array]

#: Largest difference from seqrs, of the largest value in the array: outputs and states; gradients,
#: which are sums over up to 3200 items in f32; losses and gradient norms of a model in training.
OUTPUTS, GRADIENTS, TRAINING = 3e-5, 1e-4, 1e-3

#: Seconds between two turns. The OpenMP threads of PyTorch and the pool of ONNX Runtime spin for
#: some milliseconds after their work and would take a core from whoever comes next.
SETTLE = 0.02
#: A turn first runs for at least so long without being timed.
WARM_UP = 0.01
#: Calls are timed in groups of at least so long, so that reading the clock costs nothing.
GROUP = 100e-6


@dataclass
class Contender:
    """One library at one case. The first of a case is seqrs."""

    name: str
    run: Callable[[], Any]
    #: From what `run` gives to arrays that are compared.
    results: Callable[[Any], Results]


@dataclass(frozen=True)
class Case:
    name: str
    #: Makes the contenders for a number of threads.
    build: Callable[[int], list[Contender]]
    tolerance: float


# --- layers in each library, with the same weights


def torch_layer(cell: str, sizes: tuple[int, int]) -> torch.nn.RNNBase:
    torch.manual_seed(0)
    return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](*sizes)


def seqrs_layer(cell: str, peer: torch.nn.RNNBase) -> seqrs.Layer:
    sizes = (peer.input_size, peer.hidden_size)
    layer = {
        "lstm": lambda: seqrs.LSTM(*sizes, batch_first=False),
        "gru": lambda: seqrs.GRU(*sizes, reset_after=True, batch_first=False),
        "rnn": lambda: seqrs.RNN(*sizes, batch_first=False),
    }[cell]()
    layer.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    return layer


#: PyTorch's gates in ONNX's order: i f g o -> i o f c, r z n -> z r h.
ONNX_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def onnx_session(
    cell: str, peer: torch.nn.RNNBase, threads: int, with_lengths: bool, with_state: bool
) -> onnxruntime.InferenceSession:
    """A model of one LSTM or GRU node."""
    inputs, hidden = peer.input_size, peer.hidden_size

    def gates(name: str) -> Array:
        values = getattr(peer, name).detach().numpy()
        parts = values.reshape(-1, hidden, *values.shape[1:])
        return np.concatenate([parts[gate] for gate in ONNX_GATES[cell]])[None]

    weights = {
        "W": gates("weight_ih_l0"),
        "R": gates("weight_hh_l0"),
        "B": np.concatenate([gates("bias_ih_l0"), gates("bias_hh_l0")], axis=1),
    }
    states = ["h", "c"] if cell == "lstm" else ["h"]
    floats = onnx.TensorProto.FLOAT
    value = onnx.helper.make_tensor_value_info
    given = [value("X", floats, ["T", "B", inputs])]
    names = ["X", "W", "R", "B", ""]
    if with_lengths:
        given.append(value("lengths", onnx.TensorProto.INT32, ["B"]))
        names[4] = "lengths"
    if with_state:
        given += [value(f"{s}0", floats, [1, "B", hidden]) for s in states]
        names += [f"{s}0" for s in states]
    outputs = ["Y", *(f"{s}n" for s in states)]
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    node = onnx.helper.make_node(cell.upper(), names, outputs, hidden_size=hidden, **options)
    graph = onnx.helper.make_graph(
        [node],
        cell,
        given,
        [value("Y", floats, ["T", 1, "B", hidden])]
        + [value(f"{s}n", floats, [1, "B", hidden]) for s in states],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8
    )
    onnx.checker.check_model(model)
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    session.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session, providers=["CPUExecutionProvider"]
    )


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def states(value: Any) -> list[Array]:
    """The arrays of a state: h, or h and c."""
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


def ragged_lengths(batch: int, time: int) -> Array:
    """Every row another length, half of all steps live."""
    lengths = np.linspace(1, time, batch).round().astype(np.int64)
    return np.random.default_rng(3).permutation(lengths)


# --- cases


def step(cell: str, hidden: int, threads: int) -> list[Contender]:
    """One step of one row, from one state."""
    peer = torch_layer(cell, (hidden, hidden))
    ours = seqrs_layer(cell, peer)
    session = onnx_session(cell, peer, threads, with_lengths=False, with_state=True)
    x = numbers(1, 1, hidden)
    count = 2 if cell == "lstm" else 1
    start = [numbers(5 + k, 1, 1, hidden) for k in range(count)]
    ours_state = tuple(start) if count == 2 else start[0]
    x_torch = torch.from_numpy(x[None])
    parts = [torch.from_numpy(part) for part in start]
    peer_state = tuple(parts) if count == 2 else parts[0]
    feed = {"X": x[None], **dict(zip(("h0", "c0"), start, strict=False))}

    def run_torch() -> Any:
        with torch.inference_mode():
            return peer(x_torch, peer_state)

    def results(value: Any) -> Results:
        y, state = value
        named = {f"state {k}": part.ravel() for k, part in enumerate(states(state))}
        return {"y": np.asarray(y).ravel(), **named}

    return [
        Contender("seqrs", lambda: ours.step(x, ours_state), results),
        Contender("PyTorch", run_torch, results),
        Contender(
            "ONNX Runtime",
            lambda: session.run(None, feed),
            lambda value: results((value[0], tuple(value[1:]))),
        ),
    ]


def infer(cell: str, batch: int, time: int, hidden: int, threads: int) -> list[Contender]:
    """A batch of sequences, no lengths."""
    peer = torch_layer(cell, (hidden, hidden))
    ours = seqrs_layer(cell, peer)
    session = onnx_session(cell, peer, threads, with_lengths=False, with_state=False)
    x = numbers(1, time, batch, hidden)
    x_torch = torch.from_numpy(x)

    def run_torch() -> Any:
        with torch.inference_mode():
            return peer(x_torch)

    def results(value: Any) -> Results:
        y, state = value
        named = {f"state {k}": part.ravel() for k, part in enumerate(states(state))}
        return {"y": np.asarray(y).ravel(), **named}

    return [
        Contender("seqrs", lambda: ours(x), results),
        Contender("PyTorch", run_torch, results),
        Contender(
            "ONNX Runtime",
            lambda: session.run(None, {"X": x}),
            lambda value: results((value[0], tuple(value[1:]))),
        ),
    ]


def train(cell: str, batch: int, time: int, hidden: int) -> list[Contender]:
    """Forward and backward: the gradients of the input and of every parameter."""
    peer = torch_layer(cell, (hidden, hidden))
    ours = seqrs_layer(cell, peer)
    x, dy = numbers(1, time, batch, hidden), numbers(2, time, batch, hidden)

    def run_ours() -> Results:
        y, _, tape = ours.forward(x)
        gradients = ours.backward(tape, dy)
        return {"y": y, "x": gradients.x, **gradients.params}

    x_torch, dy_torch = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

    def run_torch() -> Results:
        peer.zero_grad(set_to_none=True)
        x_torch.grad = None
        y, _ = peer(x_torch)
        y.backward(dy_torch)
        grads = {name: p.grad for name, p in peer.named_parameters()}
        return {"y": y.detach(), "x": x_torch.grad, **grads}

    return [
        Contender("seqrs", run_ours, lambda value: value),
        Contender("PyTorch", run_torch, lambda value: value),
    ]


def infer_ragged(cell: str, batch: int, time: int, hidden: int, threads: int) -> list[Contender]:
    """As `infer`, with lengths: half of the steps are live."""
    peer = torch_layer(cell, (hidden, hidden))
    ours = seqrs_layer(cell, peer)
    session = onnx_session(cell, peer, threads, with_lengths=True, with_state=False)
    lengths = ragged_lengths(batch, time)
    live = (np.arange(time)[:, None] < lengths)[..., None]
    x = numbers(1, time, batch, hidden) * live
    x_torch, lengths_torch = torch.from_numpy(x), torch.from_numpy(lengths)
    feed = {"X": x, "lengths": lengths.astype(np.int32)}

    def run_packed() -> Any:
        with torch.inference_mode():
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x_torch, lengths_torch, enforce_sorted=False
            )
            y, state = peer(packed)
            return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=time)[0], state

    def run_padded() -> Any:
        with torch.inference_mode():
            return peer(x_torch)

    def results(value: Any) -> Results:
        y = np.asarray(value[0])
        return {"y": y.reshape(time, batch, hidden) * live}

    return [
        Contender("seqrs", lambda: ours(x, lengths=lengths), results),
        Contender("seqrs, every step live", lambda: ours(x), results),
        Contender("PyTorch, packed", run_packed, results),
        Contender("PyTorch, padded", run_padded, results),
        Contender("ONNX Runtime", lambda: session.run(None, feed), results),
    ]


def train_ragged(cell: str, batch: int, time: int, hidden: int) -> list[Contender]:
    """As `train`, with lengths: half of the steps are live."""
    peer = torch_layer(cell, (hidden, hidden))
    ours = seqrs_layer(cell, peer)
    lengths = ragged_lengths(batch, time)
    live = (np.arange(time)[:, None] < lengths)[..., None]
    x, dy = numbers(1, time, batch, hidden) * live, numbers(2, time, batch, hidden) * live

    def run_ours(lengths: Array | None) -> Results:
        y, _, tape = ours.forward(x, lengths=lengths)
        gradients = ours.backward(tape, dy)
        return {"y": y, "x": gradients.x, **gradients.params}

    x_torch, dy_torch = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
    lengths_torch = torch.from_numpy(lengths)

    def run_torch(packed: bool) -> Results:
        peer.zero_grad(set_to_none=True)
        x_torch.grad = None
        if packed:
            sequence = torch.nn.utils.rnn.pack_padded_sequence(
                x_torch, lengths_torch, enforce_sorted=False
            )
            y = torch.nn.utils.rnn.pad_packed_sequence(peer(sequence)[0], total_length=time)[0]
        else:
            y, _ = peer(x_torch)
        y.backward(dy_torch)
        grads = {name: p.grad for name, p in peer.named_parameters()}
        return {"y": y.detach(), "x": x_torch.grad, **grads}

    def results(value: Results) -> Results:
        return {**value, "y": np.asarray(value["y"]) * live}

    return [
        Contender("seqrs", lambda: run_ours(lengths), results),
        Contender("seqrs, every step live", lambda: run_ours(None), results),
        Contender("PyTorch, packed", lambda: run_torch(True), results),
        Contender("PyTorch, padded", lambda: run_torch(False), results),
    ]


def characters(batch: int = 32, time: int = 128) -> list[Contender]:
    """A whole training step: forward, loss, backward, clipping, update."""
    vocabulary, hidden = 256, 256
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(vocabulary, 64)
    lstm = torch.nn.LSTM(64, hidden, num_layers=2, batch_first=True)
    linear = torch.nn.Linear(hidden, vocabulary)
    peer = torch.nn.ModuleList([embedding, lstm, linear])
    # The fused form is PyTorch's fastest on a CPU.
    adam = torch.optim.Adam(peer.parameters(), lr=2e-3, fused=True)
    ours = seqrs.Sequential(
        [
            seqrs.Embedding(vocabulary, 64),
            seqrs.LSTM(64, hidden, num_layers=2),
            seqrs.Linear(hidden, vocabulary),
        ]
    )
    ours.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    trainer = seqrs.Trainer(
        ours, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=2e-3), clip_norm=1.0
    )
    ids = np.random.default_rng(4).integers(0, vocabulary, (batch, time + 1))
    x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
    x_torch, y_torch = torch.from_numpy(x), torch.from_numpy(y)

    def run_torch() -> tuple[float, float]:
        adam.zero_grad(set_to_none=True)
        logits = linear(lstm(embedding(x_torch))[0])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_torch.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        adam.step()
        return loss.item(), norm.item()

    def run_ours() -> tuple[float, float]:
        result = trainer.step(x, y)
        return result.loss, result.grad_norm

    def results(value: tuple[float, float]) -> Results:
        return {"loss": np.array([value[0]]), "gradient norm": np.array([value[1]])}

    return [
        Contender("seqrs", run_ours, results),
        Contender("PyTorch", run_torch, results),
    ]


def every_case() -> Iterable[Case]:
    for cell in ("lstm", "gru"):
        for h in (64, 128, 256):
            yield Case(f"step/{cell}/h{h}", lambda n, c=cell, h=h: step(c, h, n), OUTPUTS)
    for batch in (1, 32):
        for cell in ("lstm", "gru"):
            for h in (64, 128, 256, 512):
                yield Case(
                    f"infer/{cell}/b{batch}/h{h}",
                    lambda n, c=cell, b=batch, h=h: infer(c, b, 100, h, n),
                    OUTPUTS,
                )
    for cell in ("lstm", "gru", "rnn"):
        for h in (64, 128, 256, 512):
            yield Case(
                f"train/{cell}/b32/h{h}", lambda n, c=cell, h=h: train(c, 32, 100, h), GRADIENTS
            )
    yield Case("train/characters", lambda n: characters(), TRAINING)
    for cell in ("lstm", "gru"):
        yield Case(
            f"ragged/infer/{cell}/b32/h256",
            lambda n, c=cell: infer_ragged(c, 32, 100, 256, n),
            OUTPUTS,
        )
    for cell in ("lstm", "gru"):
        yield Case(
            f"ragged/train/{cell}/b32/h256",
            lambda n, c=cell: train_ragged(c, 32, 100, 256),
            GRADIENTS,
        )


# --- running them


def check(case: Case, contenders: list[Contender]) -> dict[str, float]:
    """The largest difference from seqrs of each contender; fails where it is too large."""
    ours, *others = contenders
    # A model in training moves on: the first three steps of each are compared.
    rounds = 3 if case.name == "train/characters" else 1
    expected = [ours.results(ours.run()) for _ in range(rounds)]
    differences: dict[str, float] = {}
    for contender in others:
        if contender.name.startswith("seqrs"):
            continue
        worst = 0.0
        for want in expected:
            got = contender.results(contender.run())
            if got.keys() != want.keys():
                sys.exit(f"{case.name}: {contender.name} gives {sorted(got)}, seqrs {sorted(want)}")
            for name in want:
                a, b = np.asarray(want[name], np.float64), np.asarray(got[name], np.float64)
                difference = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
                if not difference <= case.tolerance:
                    sys.exit(
                        f"{case.name}: {name} of seqrs and of {contender.name} differ by "
                        f"{difference:.1e} of the largest value, above {case.tolerance:.0e}"
                    )
                worst = max(worst, difference)
        differences[contender.name] = worst
    return differences


def turn(run: Callable[[], Any], seconds: float) -> float:
    """Median seconds of one call over a turn."""
    time.sleep(SETTLE)
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


def measure(case: Case, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    seqrs.set_num_threads(threads)
    torch.set_num_threads(threads)
    contenders = case.build(threads)
    differences = check(case, contenders)
    if options.only:
        contenders = [c for c in contenders if c.name in options.only]
    rounds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for k in range(options.rounds):
        shift = k % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            rounds[contender.name].append(turn(contender.run, options.seconds / options.rounds))
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    ours = rounds.get("seqrs")
    return {
        "case": case.name,
        "threads": threads,
        "seconds": medians,
        "spread": {name: [min(values), max(values)] for name, values in rounds.items()},
        # Of the same round, so that a slow moment of the machine is in both.
        "ratio": {
            name: statistics.median(a / b for a, b in zip(ours, values, strict=True))
            for name, values in rounds.items()
            if ours and name != "seqrs"
        },
        "difference": differences,
    }


def machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return {
        "processor": name,
        "processors": os.cpu_count(),
        "system": platform.system(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "level": seqrs.info()["level"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seqrs": seqrs.__version__,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def duration(seconds: float) -> str:
    value, unit = (seconds * 1e3, "ms") if seconds >= 1e-2 else (seconds * 1e6, "us")
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def table(records: list[dict[str, Any]], before: dict[tuple[str, int], Any]) -> str:
    """Markdown: a table for each set of contenders."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record["seconds"]), []).append(record)
    lines: list[str] = []
    for names, group in groups.items():
        ours, *others = names
        heads = ["case", "threads", ours]
        for name in others:
            heads += [name, "ratio"]
        if before:
            heads.append("seqrs before")
        lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for record in group:
            seconds, ratio = record["seconds"], record["ratio"]
            cells = [record["case"], str(record["threads"]), duration(seconds[ours])]
            for name in others:
                cells += [duration(seconds[name]), f"{ratio[name]:.2f}" if ratio else ""]
            if before:
                old = before.get((record["case"], record["threads"]))
                cells.append(
                    f"{duration(old['seconds']['seqrs'])} "
                    f"({seconds[ours] / old['seconds']['seqrs']:.2f} x)"
                    if old and ours == "seqrs"
                    else ""
                )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines[1:])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="*", metavar="GLOB", help="such as 'train/lstm/*'")
    parser.add_argument("--threads", default="1,2", help="such as 1 or 1,2 (the default)")
    parser.add_argument("--seconds", type=float, default=1.0, help="per contender and case")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each contender gets")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 0.15 seconds")
    parser.add_argument("--only", action="append", metavar="NAME", help="time this contender alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier record")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print a record's tables")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 3, 0.15
    return options


def main() -> None:
    options = parse()
    if options.show:
        print(table(json.loads(options.show.read_text())["records"], {}))
        return
    cases = [case for case in every_case() if fnmatch.fnmatch(case.name, options.cases)]
    if not cases:
        sys.exit(f"--cases: expected a pattern that matches a case, got {options.cases!r}")
    if options.list:
        print("\n".join(case.name for case in cases))
        return
    before = {}
    if options.against:
        old = json.loads(options.against.read_text())["records"]
        before = {(record["case"], record["threads"]): record for record in old}
    about = machine()
    if about["load"][0] > 0.5:
        print(f"note: the machine is busy (load {about['load'][0]})", file=sys.stderr)
    records = []
    for threads in map(int, options.threads.split(",")):
        for case in cases:
            records.append(measure(case, threads, options))
            times = ", ".join(f"{k} {duration(v)}" for k, v in records[-1]["seconds"].items())
            print(f"{case.name}, {threads} thread(s): {times}", file=sys.stderr)
    print(table(records, before))
    if options.json:
        settings = {"rounds": options.rounds, "seconds": options.seconds}
        record = {"machine": about, "settings": settings, "records": records}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
        print(f"\nrecord: {options.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
