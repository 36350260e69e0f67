"""How much faster a PyTorch module is in training when its import is changed to `seqrs.torch`.

    python benches/python/torch_modules.py [--threads 2] [--json torch.json]

For each size `torch.nn.LSTM` and `seqrs.torch.LSTM` with the same weights run forward and backward
(a gradient for the input too) in turns, so that both meet the same machine. Their outputs and
gradients are compared first; a difference ends the program. The figure is the ratio of the shortest
times, which a busy machine disturbs least; the medians stand beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import seqrs
import seqrs.torch
import torch

ROWS, STEPS = 32, 100
SIZES = (64, 256)
#: Of the largest value: float32, another order of sums, and gradients through 100 steps.
CLOSE = 3e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each size")
    parser.add_argument("--json", help="a file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seqrs.set_num_threads(args.threads)
    found = []
    for size in SIZES:
        torch.manual_seed(0)
        theirs = torch.nn.LSTM(size, size, batch_first=True)
        ours = seqrs.torch.LSTM(size, size, batch_first=True)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(ROWS, STEPS, size, requires_grad=True)
        dy = torch.randn(ROWS, STEPS, size)
        require_close(train(theirs, x, dy), train(ours, x, dy))
        times: dict[str, list[float]] = {"torch.nn": [], "seqrs.torch": []}
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end or len(times["torch.nn"]) < 5:
            for name, module in (("torch.nn", theirs), ("seqrs.torch", ours)):
                start = time.perf_counter()
                train(module, x, dy)
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(each) * 1e3 for name, each in times.items()}
        best = {name: min(each) * 1e3 for name, each in times.items()}
        ratio = best["torch.nn"] / best["seqrs.torch"]
        case = {"units": size, "threads": args.threads, "best_ms": best, "median_ms": medians}
        found.append({**case, "ratio": ratio})
        print(
            f"LSTM {size}, B={ROWS}, T={STEPS}, forward and backward, threads={args.threads}: "
            f"torch.nn {best['torch.nn']:.2f} ms (median {medians['torch.nn']:.2f}), seqrs.torch "
            f"{best['seqrs.torch']:.2f} ms (median {medians['seqrs.torch']:.2f}), "
            f"{ratio:.2f} times as fast ({len(times['torch.nn'])} turns)"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(
                {"torch": torch.__version__, "seqrs": seqrs.__version__, "cases": found}, file
            )
    return 0


def train(module: Any, x: Any, dy: Any) -> dict[str, Any]:
    """Outputs and gradients of one step of training, without the optimiser."""
    module.zero_grad()
    x.grad = None
    y, _ = module(x)
    y.backward(dy)
    return {"y": y.detach(), "x": x.grad} | {k: p.grad for k, p in module.named_parameters()}


def require_close(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name, expected in theirs.items():
        off = ((ours[name] - expected).abs().max() / expected.abs().max()).item()
        if not off <= CLOSE:
            sys.exit(f"{name}: expected what torch.nn computes, got a difference of {off:.3g}")


if __name__ == "__main__":
    sys.exit(main())
