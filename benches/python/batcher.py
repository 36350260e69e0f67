"""Times `seqrs.Batcher` beside direct calls of the same model.

    python benches/python/batcher.py                  every case, about a minute
    python benches/python/batcher.py --quick
    python benches/python/batcher.py --json new.json

It asks three questions:

    lone       what does a request take when nobody else asks: a direct call, `predict`, `predict`
               with a timeout (these take turns, call by call), and `predict_async`?
    load       what do eight threads get done, and how long does each wait, by direct calls and by
               `predict`; and what does a loop with 256 tasks get done?
    padding    what do unequal lengths cost: the time of a step of sequences with lengths from 1 to
               99, over that with 50 each, where n requests wait together again and again.
               `cost` is what `stats()` estimates from the lengths. It may be a fifth.

Before anything is timed, every answer is compared with that of a direct call, bit by bit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

Array = Any

THREADS = 8
TASKS = 256
#: What padding may cost.
GOAL_PADDING = 0.2


def model_of(units: int) -> seqrs.Sequential:
    layers = [seqrs.LSTM(units, units), seqrs.Last(), seqrs.Linear(units, 10)]
    return seqrs.Sequential(layers, seed=0)


def sequences(units: int, lengths: list[int]) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.standard_normal((n, units), np.float32) for n in lengths]


def unequal(count: int) -> list[int]:
    """Lengths from 1 to 99, of 50 steps each on average."""
    half = np.random.default_rng(1).integers(1, 100, count // 2)
    both = np.concatenate([half, 100 - half])
    return [int(n) for n in np.random.default_rng(2).permutation(both)]


def check(model: seqrs.Sequential, xs: list[Array]) -> None:
    async def ask(batcher: seqrs.Batcher) -> list[Array]:
        return list(await asyncio.gather(*map(batcher.predict_async, xs)))

    with seqrs.Batcher(model) as batcher:
        for x, y in zip(xs, asyncio.run(ask(batcher)), strict=True):
            direct = model(x[None])[0][0].tobytes()
            assert y.tobytes() == direct
            assert batcher.predict(x).tobytes() == direct


def quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"p{percent}_us": 1e6 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
        for percent in (50, 99)
    }


def lone(units: int, steps: int, rounds: int) -> dict[str, Any]:
    model, (x,) = model_of(units), sequences(units, [steps])
    check(model, [x])
    batch = x[None]
    with seqrs.Batcher(model) as batcher:
        ways: dict[str, Callable[[], Any]] = {
            "direct": lambda: model(batch),
            "predict": lambda: batcher.predict(x),
            "with a timeout": lambda: batcher.predict(x, 1.0),
        }
        times: dict[str, list[float]] = {way: [] for way in [*ways, "async"]}

        async def run() -> None:
            for _ in range(rounds):
                start = time.perf_counter()
                await batcher.predict_async(x)
                times["async"].append(time.perf_counter() - start)

        for _ in range(rounds):
            for way, call in ways.items():
                start = time.perf_counter()
                call()
                times[way].append(time.perf_counter() - start)
        asyncio.run(run())
    return {way: quantiles(seconds) for way, seconds in times.items()}


def by_threads(call: Callable[[Array], Any], xs: list[Array]) -> tuple[float, list[float]]:
    """Seconds for all, and for each."""
    rest, lock, times = iter(xs), threading.Lock(), []

    def work() -> None:
        while True:
            with lock:
                x = next(rest, None)
            if x is None:
                return
            start = time.perf_counter()
            call(x)
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, times


def by_tasks(batcher: seqrs.Batcher, xs: list[Array]) -> float:
    async def run() -> None:
        room = asyncio.Semaphore(TASKS)

        async def one(x: Array) -> None:
            async with room:
                await batcher.predict_async(x)

        await asyncio.gather(*map(one, xs))

    start = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - start


def load(units: int, lengths: list[int], turns: int) -> dict[str, Any]:
    model, xs = model_of(units), sequences(units, lengths)
    check(model, xs[:50])
    rates: dict[str, list[float]] = {"direct": [], "predict": [], "async": []}
    waits: dict[str, list[float]] = {"direct": [], "predict": []}
    for _ in range(turns):
        with seqrs.Batcher(model) as batcher, seqrs.Batcher(model) as asked_by_tasks:
            for way, call in (("direct", lambda x: model(x[None])), ("predict", batcher.predict)):
                seconds, times = by_threads(call, xs)
                rates[way].append(len(xs) / seconds)
                waits[way] += times
            rates["async"].append(len(xs) / by_tasks(asked_by_tasks, xs))
    found: dict[str, Any] = {}
    for way, each in rates.items():
        found[way] = {"per_second": statistics.median(each)}
        if way in waits:
            found[way] |= quantiles(waits[way])
    return found


def padding(units: int, together: int, rounds: int, turns: int) -> dict[str, float]:
    model = model_of(units)
    kinds = {
        "unequal": sequences(units, unequal(together * rounds)),
        "equal": sequences(units, [50] * (together * rounds)),
    }
    check(model, kinds["unequal"][:50])
    ratios, cost = [], 0.0
    for _ in range(turns):
        seconds = {}
        for kind, xs in kinds.items():
            with seqrs.Batcher(model, max_batch=together) as batcher:

                async def run(batcher: seqrs.Batcher, xs: list[Array]) -> None:
                    for k in range(0, len(xs), together):
                        part = xs[k : k + together]
                        await asyncio.gather(*map(batcher.predict_async, part))

                start = time.perf_counter()
                asyncio.run(run(batcher, xs))
                seconds[kind] = time.perf_counter() - start
                if kind == "unequal":
                    cost = batcher.stats()["padding_cost"]
        ratios.append(seconds["unequal"] / seconds["equal"])
    return {"lost": 1 - 1 / statistics.median(ratios), "cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all numbers there")
    options = parser.parse_args()
    scale = 1 if options.quick else 5
    found: dict[str, Any] = {"info": seqrs.info(), "lone": {}, "load": {}, "padding": {}}

    print(f"{'lone: us, p50 / p99':24}", *(f"{way:>18}" for way in ("direct", "predict")), end="")
    print(f"{'with a timeout':>19}{'async':>19}")
    for units, steps in ((16, 1), (64, 20), (128, 50), (256, 100)):
        name = f"{units} units, {steps} steps"
        found["lone"][name] = each = lone(units, steps, 200 * scale)
        cells = (f"{way['p50_us']:.1f} / {way['p99_us']:.1f}" for way in each.values())
        print(f"{name:24}", *(f"{cell:>18}" for cell in cells), flush=True)

    print(f"\n{'load: requests per second (p50 / p99 in ms)':44}")
    for units in (64, 128, 256):
        for kind, lengths in (("50 steps", [50] * 600), ("1 to 99 steps", unequal(600))):
            name = f"{units} units, {kind}"
            found["load"][name] = each = load(units, lengths, scale)
            cells = []
            for way, numbers in each.items():
                cell = f"{way} {numbers['per_second']:.0f}"
                if "p50_us" in numbers:
                    p50, p99 = numbers["p50_us"] / 1e3, numbers["p99_us"] / 1e3
                    cell += f" ({p50:.2f} / {p99:.1f})"
                cells.append(cell)
            print(f"{name:26}", *(f"{cell:>30}" for cell in cells), flush=True)

    print("\npadding: share of the time lost to unequal lengths, measured / estimated")
    for units in (64, 128, 256):
        for together in (2, 8, 64):
            name = f"{units} units, {together} together"
            each = padding(units, together, max(10, 150 * scale // together), scale + 2)
            found["padding"][name] = each
            verdict = "" if each["lost"] <= GOAL_PADDING else "   more than it may"
            print(f"{name:26} {each['lost']:6.3f} / {each['cost']:.3f}{verdict}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
