"""Serves for a long time under load, and looks for what goes wrong slowly.

    python benches/python/soak.py                     10 minutes
    python benches/python/soak.py --minutes 60 --json soak.json

One process has a `Batcher` and a `StreamPool`, with models that are large enough for the library to
be the load, and not the interpreter of those that ask. First both are kept busy, which tells what
100 % is; then requests arrive at random, at rates that take 80 % of the processor time that 100 %
did. (At 80 % of its rates it would be 95 %: fewer requests wait, so batches are smaller, and each
costs more.) The rates follow the machine: they are set anew every second, so that a processor that
its host makes slower is as busy as before, and no queue grows for that. The batcher and who steps
the pool compute on a thread each, so that two of them share two processors (`--threads` takes
another number):

    batcher    sequences of random lengths, from coroutines: some are cancelled while they wait,
               some have a deadline that is too short. The model is swapped every other second
               between two, and each answer has to be that of one of them.
    pool       steps of random subsets of the open streams. Streams come and go all the time, by
               open, close, reset, and by export and import of a state.

Every answer is compared, bit for bit, with what a direct call gave for that sequence alone. A
latency counts from when the request was due, so that it has what the clients are late by (also
shown alone); a request that is refused counts as the longest latency of all.

At the end it fails by name if there was a wrong answer, an error other than those asked for, memory
that grew (by more than 1 MB an hour, as the trend after the warm-up says), a thread or a descriptor
that was left, or if what follows is more than a tenth larger in the second half than in the first
(of each half the median of its windows):

    p99         the 99th percentile of latencies
    cost        processor time for a request, at the mix of requests that there is

`machine_watch.py` looks at the machine, and at nothing else, meanwhile. Both are told in units of a
fixed piece of work, not of seqrs, that it does ten times a second: a machine that is slower for a
while makes everything longer. A window is left out of this comparison, and of nothing else, if
other processes had more than 0.1 processors, or the host took more than 0.02 of them. Latency has
no say in it. Each window that is left out is printed with its latencies and the reason, and so is
the comparison of all windows. If less than half of the windows of a half are left, drift cannot be
judged, and the run fails for that.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import seqrs
from machine_watch import Moment, Watch

Array = Any

INPUTS, HIDDEN, CLASSES = 16, 256, 5
#: Lengths of sequences, and steps of the longest stream.
LENGTHS = range(1, 401)
STREAM_STEPS = 200
SEQUENCES = 400
TEMPLATES = 64
#: Streams that are open, and that a step takes.
STREAMS = 2000
CALLED = 64
#: That ask as fast as they get answers, to keep the batcher busy.
CALLERS = 64
LOAD = 0.8
#: Seconds until the rates are set anew.
FOLLOW = 1.0
#: How often 100 % is measured at most until nobody else wants the machine.
TRIES = 6
#: Shares of the requests.
CANCELLED, TOO_SHORT = 0.03, 0.02
SWAP_SECONDS = 2.0
#: Of a window, over which a percentile is taken.
WINDOW = 15.0
#: What is allowed.
BYTES_AN_HOUR = 1 << 20
DRIFT = 1.1
#: The share of a half's windows that have to be left for drift to be judged.
LEFT = 0.5

#: Bounds of a histogram of latencies, in seconds: 1 us to 10 s, 1 % apart.
BOUNDS = 1e-6 * 1.01 ** np.arange(1621)


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


def drift(values: list[float], compared: list[bool]) -> float:
    """The median of the second half over that of the first, of the windows that may be compared."""
    middle = len(values) // 2
    halves = []
    for half in (slice(None, middle), slice(middle, None)):
        kept = [value for value, free in zip(values[half], compared[half], strict=True) if free]
        if len(kept) < LEFT * len(values[half]):
            return float("nan")
        halves.append(float(np.median(kept)))
    return halves[1] / halves[0]


class Load:
    """Rates at which requests arrive: those that keep processors busy for a given share."""

    def __init__(self, capacity: dict[str, float], busy: float) -> None:
        self.capacity, self.target, self.share = capacity, LOAD * busy, LOAD
        self.begin()

    def begin(self) -> None:
        """From now on."""
        self._at, self._used = time.monotonic(), time.process_time()

    def rate(self, name: str) -> float:
        return self.share * self.capacity[name]

    def follow(self) -> None:
        """Sets the rates, if a second has passed, by what that second has taken."""
        now, used = time.monotonic(), time.process_time()
        if now - self._at < FOLLOW:
            return
        busy = (used - self._used) / (now - self._at)
        self._at, self._used = now, used
        # Half of the way, as a second is short.
        self.share *= float(np.clip(self.target / busy, 0.8, 1.25)) ** 0.5


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

    def step(self) -> float:
        """One step of a random subset, then a little coming and going; gives when the step was
        done.
        """
        draw, pool, tagger = self.draw, self.pool, self.tagger
        places = draw.sample(range(STREAMS), CALLED)
        streams = [self.open[place] for place in places]
        templates = [template for _, template, _ in streams]
        at = [t for _, _, t in streams]
        y = pool.step([sid for sid, _, _ in streams], tagger.x[templates, at])
        done = time.monotonic()
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
        return done

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
        #: How late requests of the batcher are made.
        self.lateness = Latency()

    async def request(self, draw: random.Random, due: float) -> None:
        """One request, which may be given up."""
        k, fate = draw.randrange(SEQUENCES), draw.random()
        timeout = 1e-6 if fate < TOO_SHORT else None
        task = asyncio.ensure_future(
            self.batcher.predict_async(self.classifier.sequences[k], timeout=timeout)
        )
        self.lateness.add(time.monotonic() - due)
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
            self.latencies["batcher"].add(float("inf"))
        except Exception as error:
            self.tally[f"batcher: WRONG, {type(error).__name__}: {error}"] += 1
        else:
            self.latencies["batcher"].add(time.monotonic() - due)
            right = self.classifier.is_right(k, y)
            self.tally["batcher: right" if right else "batcher: WRONG"] += 1

    async def flood(self) -> None:
        """All sequences at once, those of one length together: batches as large as any will be."""
        by_length = sorted(range(SEQUENCES), key=lambda k: len(self.classifier.sequences[k]))
        for _ in range(3):
            asked = [self.batcher.predict_async(self.classifier.sequences[k]) for k in by_length]
            for k, y in zip(by_length, await asyncio.gather(*asked), strict=True):
                right = self.classifier.is_right(k, y)
                self.tally["batcher: right" if right else "batcher: WRONG"] += 1

    async def requests(self, until: float, load: Load | None) -> int:
        """At its rate, or as many at a time as keep it busy; gives how many there were."""
        draw, asked = random.Random(4), 0
        if load is None:

            async def caller() -> int:
                count = 0
                while (now := time.monotonic()) < until:
                    await self.request(draw, now)
                    count += 1
                return count

            return sum(await asyncio.gather(*(caller() for _ in range(CALLERS))))
        tasks, due, swapped = set[asyncio.Task[None]](), time.monotonic(), 0.0
        while (now := time.monotonic()) < until:
            if now - swapped > SWAP_SECONDS:
                swapped = now
                self.batcher.swap(draw.choice(self.classifier.models))
            while due <= now:
                task = asyncio.create_task(self.request(draw, due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += draw.expovariate(load.rate("batcher"))
                asked += 1
            load.follow()
            await asyncio.sleep(max(0.0, min(due - time.monotonic(), 0.05)))
        await asyncio.gather(*tasks)
        return asked

    def steps(self, until: float, load: Load | None) -> int:
        draw, due, done = random.Random(5), time.monotonic(), 0
        while (now := time.monotonic()) < until:
            if load is None:
                due = now
            elif due > now:
                time.sleep(min(due - now, 0.05))
                continue
            try:
                self.latencies["pool"].add(self.streams.step() - due)
            except Exception as error:
                self.tally[f"pool: WRONG, {type(error).__name__}: {error}"] += 1
            if load is not None:
                due += draw.expovariate(load.rate("pool"))
            done += 1
        return done

    def run(self, seconds: float, load: Load | None) -> dict[str, float]:
        """For so long; gives what was done in a second."""
        if load:
            load.begin()
        start, done = time.monotonic(), dict[str, float]()
        until = start + seconds

        def step() -> None:
            count = self.steps(until, load)
            done["pool"] = count / (time.monotonic() - start)

        thread = threading.Thread(target=step)
        thread.start()
        count = asyncio.run(self.requests(until, load))
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
    parser.add_argument("--threads", type=int, default=1, help="of a batch and of a step, 1")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    args = parser.parse_args()

    seqrs.set_num_threads(args.threads)
    service, watch = Service(), Watch()
    service.run(3.0, None)
    for _ in range(TRIES):
        watch.moment()
        capacity = service.run(5.0, None)
        at_first = watch.moment()
        if at_first.is_free():
            break
    print("at 100 %:", ", ".join(f"{name} {rate:.0f}/s" for name, rate in capacity.items()))
    print(f"at 100 %: {at_first}", "" if at_first.is_free() else "NOT ALONE", flush=True)
    # What comes at random fills other rooms of memory than what is asked in turn, and once in many
    # minutes a batch is larger than all before.
    asyncio.run(service.flood())
    load = Load(capacity, at_first.own)
    service.run(15.0, load)
    for latency in (*service.latencies.values(), service.lateness):
        latency.close_window()
        latency.windows.clear()

    start = time.monotonic()
    windows = max(4, round(60 * args.minutes / WINDOW))
    length = 60 * args.minutes / windows
    warm = round(args.warm_up * windows)
    times, memory, before = list[float](), list[int](), left_open()
    moments, costs = list[Moment](), list[float]()
    for window in range(windows):
        watch.moment()
        done = service.run(length, load)
        moments.append(watch.moment())
        shares = [done[name] / rate for name, rate in capacity.items()]
        costs.append(moments[-1].own / float(np.mean(shares)))
        gc.collect()
        for latency in (*service.latencies.values(), service.lateness):
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
        print(f"{time.monotonic() - start:6.0f} s  {resident() / 2**20:.1f} MB  {told}")
        late = service.lateness.windows[-1]["p99"]
        print(f"          clients late, p99 {late:.2f} ms; {moments[-1]}", flush=True)
    after = left_open()
    service.batcher.close()
    watch.close()

    reasons = [moment.disturbed() for moment in moments]
    compared = [not reason for reason in reasons]
    told_of = {
        f"p99 of the {name}": [window["p99"] for window in latency.windows]
        for name, latency in service.latencies.items()
    } | {"cost": costs}
    in_paces = {
        name: [value / moment.pace for value, moment in zip(values, moments, strict=True)]
        for name, values in told_of.items()
    }
    drifts = {name: drift(values, compared) for name, values in in_paces.items()}
    of_all = {name: drift(values, [True] * windows) for name, values in in_paces.items()}
    in_seconds = {name: drift(values, [True] * windows) for name, values in told_of.items()}
    tally = dict(sorted(service.tally.items()))
    growth = slope(times, memory)
    if args.json:
        found = {
            "tally": tally,
            "bytes an hour": growth,
            "drift": drifts,
            "drift of all windows": of_all,
            "drift in seconds": in_seconds,
            "costs": costs,
            "before": before,
            "after": after,
            "windows": {name: latency.windows for name, latency in service.latencies.items()},
            "lateness": service.lateness.windows,
            "machine": [asdict(moment) for moment in moments],
            "left out": reasons,
            "capacity": capacity,
            "machine at capacity": asdict(at_first),
        }
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    for name, count in tally.items():
        print(f"{count:12d}  {name}")
    print(f"memory: {growth / 2**20:+.2f} MB an hour")
    for window, reason in enumerate(reasons):
        if reason:
            p99 = ", ".join(
                f"p99 {name} {latency.windows[window]['p99']:.2f} ms"
                for name, latency in service.latencies.items()
            )
            print(f"left out: window {window + 1}, {p99}: {reason}")
    print(f"windows compared: {sum(compared)} of {windows}")
    for what, ratios in (("drift", drifts), ("of all windows", of_all), ("in seconds", in_seconds)):
        print(f"{what}:", ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))
    print(f"left: {before} -> {after}")

    failed = [name for name in tally if "WRONG" in name]
    if not growth <= BYTES_AN_HOUR:
        failed.append("memory grew")
    for name, ratio in drifts.items():
        if ratio > DRIFT:
            failed.append(f"{name} drifted")
        elif not ratio <= DRIFT:
            failed.append(f"{name} cannot be judged, others had the machine too often")
    failed += [f"{what} were left" for what in before if after[what] > before[what]]
    print("FAILED: " + "; ".join(failed) if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
