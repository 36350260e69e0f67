"""Serves for a long time under load, and looks for what goes wrong slowly.

    python benches/python/soak.py                     10 minutes
    python benches/python/soak.py --minutes 60 --json soak.json

One process has a `Batcher` and a `StreamPool`. First requests come faster than both can answer
them, which tells what 100 % is; then they arrive at random at 80 % of that:

    batcher    sequences of random lengths, from coroutines: some are cancelled while they wait,
               some have a deadline that is too short. The model is swapped every other second
               between two, and each answer has to be that of one of them.
    pool       steps of random subsets of the open streams. Streams come and go all the time, by
               open, close, reset, and by export and import of a state.

Every answer is compared, bit for bit, with what a direct call gave for that sequence alone. At the
end it fails by name if there was a wrong answer, an error other than those asked for, memory that
grew (by more than 1 MB an hour, as the trend after the warm-up says), latency that drifted (the
99th percentile of the second half above that of the first by more than a tenth), or a thread or a
descriptor that was left.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

Array = Any

INPUTS, HIDDEN, CLASSES = 16, 64, 5
#: Lengths of sequences, and steps of the longest stream.
LENGTHS = range(1, 121)
STREAM_STEPS = 200
SEQUENCES = 400
TEMPLATES = 64
#: Streams that are open, and that a step takes.
STREAMS = 2000
CALLED = 64
LOAD = 0.8
#: Shares of the requests.
CANCELLED, TOO_SHORT = 0.03, 0.02
SWAP_SECONDS = 2.0
#: Of a window, over which a percentile is taken.
WINDOW = 15.0
#: What is allowed.
BYTES_AN_HOUR = 1 << 20
DRIFT = 1.1

#: Bounds of a histogram of latencies, in seconds: 1 us to 10 s, 5 % apart.
BOUNDS = 1e-6 * 1.05 ** np.arange(331)


@dataclass
class Latency:
    """Latencies of the current window, in room that does not grow."""

    counts: Array = field(default_factory=lambda: np.zeros(len(BOUNDS) + 1, np.int64))
    windows: list[dict[str, float]] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        self.counts[np.searchsorted(BOUNDS, seconds)] += 1

    def close_window(self) -> None:
        total = int(self.counts.sum())
        if total:
            below = np.cumsum(self.counts)
            at = {q: int(np.searchsorted(below, q * total)) for q in (0.5, 0.99)}
            milliseconds = {q: 1e3 * float(BOUNDS[min(k, len(BOUNDS) - 1)]) for q, k in at.items()}
            self.windows.append({"p50": milliseconds[0.5], "p99": milliseconds[0.99], "n": total})
        self.counts[:] = 0

    def drift(self) -> float:
        """The median of the windows' 99th percentiles, of the second half over the first."""
        p99 = [window["p99"] for window in self.windows]
        half = len(p99) // 2
        return float(np.median(p99[half:]) / np.median(p99[:half])) if half else float("nan")


class Classifier:
    """Two models that take turns, and what each says of every sequence."""

    def __init__(self) -> None:
        self.models = [
            seqrs.Sequential(
                [seqrs.LSTM(INPUTS, HIDDEN), seqrs.Last(), seqrs.Linear(HIDDEN, CLASSES)], seed=seed
            )
            for seed in (1, 2)
        ]
        draw = np.random.default_rng(0)
        lengths = draw.choice(LENGTHS, SEQUENCES)
        self.sequences = [draw.normal(size=(n, INPUTS)).astype(np.float32) for n in lengths]
        self.answers = [
            [model(x[None])[0][0].tobytes() for x in self.sequences] for model in self.models
        ]

    def is_right(self, k: int, y: Array) -> bool:
        return y.tobytes() in (self.answers[0][k], self.answers[1][k])


class Tagger:
    """A model of streams, and what it says at every step of some of them."""

    def __init__(self) -> None:
        layers = [seqrs.GRU(INPUTS, HIDDEN), seqrs.Linear(HIDDEN, CLASSES)]
        self.model = seqrs.Sequential(layers, seed=3)
        draw = np.random.default_rng(1)
        self.x = draw.normal(size=(TEMPLATES, STREAM_STEPS, INPUTS)).astype(np.float32)
        self.y = self.model(self.x)[0]


class Streams:
    """Open streams, each at a step of a template."""

    def __init__(self, tagger: Tagger, tally: Counter[str]) -> None:
        self.tagger, self.tally = tagger, tally
        self.pool = seqrs.StreamPool(tagger.model, capacity=STREAMS + CALLED)
        self.draw = random.Random(2)
        self.open = [(self.pool.open(), self.draw.randrange(TEMPLATES), 0) for _ in range(STREAMS)]

    def step(self) -> None:
        """One step of a random subset, then a little coming and going."""
        draw, pool, tagger = self.draw, self.pool, self.tagger
        places = draw.sample(range(STREAMS), CALLED)
        streams = [self.open[place] for place in places]
        templates = [template for _, template, _ in streams]
        at = [t for _, _, t in streams]
        y = pool.step([sid for sid, _, _ in streams], tagger.x[templates, at])
        self.tally["pool: right"] += CALLED
        if not np.array_equal(y, tagger.y[templates, at]):
            self.tally["pool: WRONG"] += 1
        for place, (sid, template, t) in zip(places, streams, strict=True):
            if t + 1 < STREAM_STEPS and draw.random() > 0.01:
                self.open[place] = (sid, template, t + 1)
                continue
            fresh = (draw.randrange(TEMPLATES), 0)
            match draw.randrange(3):
                case 0:
                    pool.close(sid)
                    self.open[place] = (pool.open(), *fresh)
                case 1:
                    pool.reset(sid)
                    self.open[place] = (sid, *fresh)
                case _ if t + 1 < STREAM_STEPS:
                    blob = pool.export_state(sid)
                    pool.close(sid)
                    self.open[place] = (pool.import_state(blob), template, t + 1)
                    self._is_refused(sid)
                case _:
                    pool.close(sid)
                    self.open[place] = (pool.open(), *fresh)

    def _is_refused(self, stale: Any) -> None:
        try:
            self.pool.step([stale], self.tagger.x[:1, 0])
            self.tally["pool: WRONG, a closed stream was stepped"] += 1
        except seqrs.StateError:
            self.tally["pool: stale handles refused"] += 1


class Service:
    """Both under load, in two threads."""

    def __init__(self) -> None:
        self.tally: Counter[str] = Counter()
        self.classifier = Classifier()
        self.batcher = seqrs.Batcher(self.classifier.models[0], max_batch=64, max_queue=1024)
        self.streams = Streams(Tagger(), self.tally)
        self.latencies = {"batcher": Latency(), "pool": Latency()}

    async def request(self, draw: random.Random) -> None:
        """One request, which may be given up."""
        k, fate = draw.randrange(SEQUENCES), draw.random()
        timeout = 1e-6 if fate < TOO_SHORT else None
        task = asyncio.ensure_future(
            self.batcher.predict_async(self.classifier.sequences[k], timeout=timeout)
        )
        start = time.perf_counter()
        if TOO_SHORT <= fate < TOO_SHORT + CANCELLED:
            await asyncio.sleep(0)
            task.cancel()
        try:
            y = await task
        except asyncio.CancelledError:
            self.tally["batcher: cancelled"] += 1
        except TimeoutError:
            self.tally["batcher: too late"] += 1
            if timeout is None:
                self.tally["batcher: WRONG, too late without a deadline"] += 1
        except seqrs.QueueFullError:
            self.tally["batcher: queue full"] += 1
        except Exception as error:
            self.tally[f"batcher: WRONG, {type(error).__name__}: {error}"] += 1
        else:
            self.latencies["batcher"].add(time.perf_counter() - start)
            right = self.classifier.is_right(k, y)
            self.tally["batcher: right" if right else "batcher: WRONG"] += 1

    async def requests(self, until: float, rate: float | None) -> int:
        """At this rate, or as many at a time as keep it busy; gives how many."""
        draw, done = random.Random(4), 0
        if rate is None:

            async def caller() -> int:
                count = 0
                while time.monotonic() < until:
                    await self.request(draw)
                    count += 1
                return count

            return sum(await asyncio.gather(*(caller() for _ in range(64))))
        tasks, due, swapped = set[asyncio.Task[None]](), time.monotonic(), 0.0
        while (now := time.monotonic()) < until:
            if now - swapped > SWAP_SECONDS:
                swapped = now
                self.batcher.swap(draw.choice(self.classifier.models))
            while due <= now:
                task = asyncio.create_task(self.request(draw))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += draw.expovariate(rate)
                done += 1
            await asyncio.sleep(max(0.0, min(due - time.monotonic(), 0.05)))
        await asyncio.gather(*tasks)
        return done

    def steps(self, until: float, rate: float | None) -> int:
        draw, due, done = random.Random(5), time.monotonic(), 0
        while (now := time.monotonic()) < until:
            if rate is not None and due > now:
                time.sleep(min(due - now, 0.05))
                continue
            arrived = time.perf_counter() - (now - due if rate is not None else 0.0)
            try:
                self.streams.step()
            except Exception as error:
                self.tally[f"pool: WRONG, {type(error).__name__}: {error}"] += 1
            self.latencies["pool"].add(time.perf_counter() - arrived)
            if rate is not None:
                due += draw.expovariate(rate)
            done += 1
        return done

    def run(self, seconds: float, rates: dict[str, float] | None) -> dict[str, float]:
        """For so long; gives what was done in a second."""
        rates = rates or {}
        start, done = time.monotonic(), dict[str, float]()
        until = start + seconds

        def step() -> None:
            count = self.steps(until, rates.get("pool"))
            done["pool"] = count / (time.monotonic() - start)

        thread = threading.Thread(target=step)
        thread.start()
        count = asyncio.run(self.requests(until, rates.get("batcher")))
        done["batcher"] = count / (time.monotonic() - start)
        thread.join()
        return done


def resident() -> int:
    """Bytes of memory that the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def left_open() -> dict[str, int]:
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def slope(times: list[float], values: list[int]) -> float:
    """Bytes an hour, of the straight line that fits best."""
    return 3600 * float(np.polyfit(times, values, 1)[0]) if len(times) > 2 else float("nan")


def main() -> int:
    summary, _, description = (__doc__ or "").partition("\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=description, formatter_class=form)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the time, 0.2")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    args = parser.parse_args()

    service = Service()
    service.run(3.0, None)
    capacity = service.run(5.0, None)
    # To let requests arrive takes time too, of the same interpreter.
    for _ in range(4):
        capacity = {n: min(capacity[n], rate) for n, rate in service.run(4.0, capacity).items()}
    rates = {name: LOAD * rate for name, rate in capacity.items()}
    print("at 100 %:", ", ".join(f"{name} {rate:.0f}/s" for name, rate in capacity.items()))
    for latency in service.latencies.values():
        latency.close_window()
        latency.windows.clear()

    start = time.monotonic()
    windows = max(4, round(60 * args.minutes / WINDOW))
    length = 60 * args.minutes / windows
    warm = round(args.warm_up * windows)
    times, memory, before = list[float](), list[int](), left_open()
    for window in range(windows):
        done = service.run(length, rates)
        gc.collect()
        for latency in service.latencies.values():
            latency.close_window()
        if window == warm:
            before = left_open()
        if window >= warm:
            times.append(time.monotonic() - start)
            memory.append(resident())
        told = ", ".join(
            f"{name} {done[name]:.0f}/s p50 {last['p50']:.2f} ms p99 {last['p99']:.2f} ms"
            for name, latency in service.latencies.items()
            for last in latency.windows[-1:]
        )
        print(f"{time.monotonic() - start:6.0f} s  {resident() / 2**20:.1f} MB  {told}", flush=True)
    after = left_open()
    service.batcher.close()

    found = {
        "tally": dict(sorted(service.tally.items())),
        "bytes an hour": slope(times, memory),
        "drift": {name: latency.drift() for name, latency in service.latencies.items()},
        "before": before,
        "after": after,
        "windows": {name: latency.windows for name, latency in service.latencies.items()},
        "capacity": capacity,
    }
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    for name, count in found["tally"].items():
        print(f"{count:12d}  {name}")
    print(f"memory: {found['bytes an hour'] / 2**20:+.2f} MB an hour")
    print("drift of p99:", ", ".join(f"{n} {d:.3f}" for n, d in found["drift"].items()))
    print(f"left: {before} -> {after}")

    failed = [name for name in found["tally"] if "WRONG" in name]
    if not found["bytes an hour"] <= BYTES_AN_HOUR:
        failed.append("memory grew")
    failed += [f"p99 of the {name} drifted" for name, d in found["drift"].items() if not d <= DRIFT]
    failed += [f"{what} were left" for what in before if after[what] > before[what]]
    print("FAILED: " + "; ".join(failed) if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
