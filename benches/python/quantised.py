"""How much faster weights of 8-bit integers and bf16 are, beside the libraries that have such.

    taskset -c 1 python benches/python/quantised.py [--turns 60] [--json quantised.json]

For each size one row of 100 steps goes through a layer of I = H, on one thread: seqrs in float32,
int8 and bf16, PyTorch's `quantize_dynamic` and ONNX Runtime's (DynamicQuantizeLSTM; it has none for
a GRU) with the same weights. All outputs are compared with those of seqrs in float32 first; a
difference ends the program. Then they run in turns, so that all meet the same machine; the figure
is the shortest time, which a busy machine disturbs least, and the median stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import seqrs
import torch
from comparison.libraries.onnx_model import onnx_model
from comparison.work import Work
from onnxruntime.quantization import QuantType, quantize_dynamic

SIZES = (64, 128, 256, 512)
CELLS = ("lstm", "gru")
#: Of the largest output: float32 in another order; small weights through 100 steps.
CLOSE, CLOSE_SMALL = 1e-4, 0.05

Run = Callable[[], np.ndarray]


def ours(work: Work) -> dict[str, Run]:
    """The three forms of a model of one layer."""
    kind = seqrs.LSTM if work.cell == "lstm" else seqrs.GRU
    options: dict[str, Any] = {} if work.cell == "lstm" else {"reset_after": True}
    layer = kind(work.hidden, work.hidden, batch_first=False, **options)
    layer.load_state_dict(work.weights())
    model, x = seqrs.Sequential([layer]), work.x()
    runs: dict[str, Run] = {"seqrs float32": lambda: layer(x)[0]}
    for name in ("int8", "bf16"):
        small = model.quantize(name)
        runs[f"seqrs {name}"] = lambda small=small: small(x)[0]  # type: ignore[misc]
    return runs


def of_torch(work: Work) -> dict[str, Run]:
    kind = torch.nn.LSTM if work.cell == "lstm" else torch.nn.GRU
    module = kind(work.hidden, work.hidden)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in work.weights().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(module, {kind}, dtype=torch.qint8)
    x = torch.from_numpy(work.x())

    def run() -> np.ndarray:
        with torch.inference_mode():
            y: np.ndarray = small(x)[0].numpy()
            return y

    return {"PyTorch int8": run}


def of_onnx_runtime(work: Work) -> dict[str, Run]:
    model = onnx_model(work)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if work.cell != "lstm":
        return {}
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder, "plain.onnx"), Path(folder, "small.onnx")
        plain.write_bytes(model.serialized)
        quantize_dynamic(plain, small, per_channel=True, weight_type=QuantType.QInt8)
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(small.read_bytes(), options, providers=providers)

    def run() -> np.ndarray:
        y: np.ndarray = session.run(None, model.feed)[0][:, 0]
        return y

    return {"ONNX Runtime int8": run}


def timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(work: Work, turns: int) -> dict[str, Any]:
    runs = ours(work) | of_torch(work) | of_onnx_runtime(work)
    expected = runs["seqrs float32"]()
    differences = {}
    for name, run in runs.items():
        error = float(np.abs(run() - expected).max() / np.abs(expected).max())
        differences[name] = error
        if not error <= (CLOSE if name.endswith("float32") else CLOSE_SMALL):
            sys.exit(f"{work.cell} {work.hidden}: {name} is off by {error:.2g}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            # The first call finds another's weights in the caches.
            run()
            times[name].append(min(timed(run) for _ in range(3)))
    best = {name: min(each) * 1e6 for name, each in times.items()}
    return {
        "cell": work.cell,
        "units": work.hidden,
        "best_us": best,
        "median_us": {name: statistics.median(each) * 1e6 for name, each in times.items()},
        "times_as_fast_as_float32": {n: best["seqrs float32"] / t for n, t in best.items()},
        "off_by": differences,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--json", help="a file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seqrs.set_num_threads(1)
    found = []
    print(f"seqrs {seqrs.info()['level']}, load {os.getloadavg()[0]:.1f}; us, one thread")
    for cell in CELLS:
        for size in SIZES:
            record = measure(Work(cell, hidden=size, batch=1, time=100), args.turns)
            found.append(record)
            words = [
                f"{name} {best:.0f} (median {record['median_us'][name]:.0f}, "
                f"{record['times_as_fast_as_float32'][name]:.2f} x)"
                for name, best in record["best_us"].items()
            ]
            print(f"{cell} {size}: " + ", ".join(words), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
