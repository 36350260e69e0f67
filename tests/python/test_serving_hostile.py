"""What a service is sent by mistake or on purpose: a typed error, and nobody else notices.

Every attack is made on a pool with streams under way, or a batcher with requests before and after
it; whatever it does, the neighbours get the bits that they would have got without it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import Array, in_child
from tolerances import assert_same_bits

I, N, STEPS = 6, 5, 8  # noqa: E741 (the letters of the design)

TAGGER = seqrs.Sequential([seqrs.LSTM(I, 16), seqrs.GRU(16, 12), seqrs.Linear(12, 3)], seed=1)
READER = seqrs.Sequential([seqrs.Embedding(11, 4), seqrs.GRU(4, 8), seqrs.Linear(8, 11)], seed=2)
#: So large that a request is under way for some time.
SLOW = seqrs.Sequential([seqrs.LSTM(I, 256, 2), seqrs.Last()], seed=3)
LONG = np.random.default_rng(1).normal(size=(4000, I)).astype(np.float32)
#: For whatever should be over at once.
SECONDS = 30.0


class Streams:
    """A pool whose streams are all at the same step of sequences of their own."""

    def __init__(self, model: seqrs.Sequential = TAGGER, **options: Any) -> None:
        draw = np.random.default_rng(0)
        ids = isinstance(model[0], seqrs.Embedding)
        self.x: Array = (
            draw.integers(11, size=(N, STEPS))
            if ids
            else draw.normal(size=(N, STEPS, I)).astype(np.float32)
        )
        self.want = model(self.x)[0]
        self.pool = seqrs.StreamPool(model, **({"capacity": 100} | options))
        self.sids = [self.pool.open() for _ in range(N)]
        self.at = 0
        self.go_on()

    def go_on(self, but: int | None = None) -> None:
        """One step of all, or of all but one, with the right bits."""
        places = [k for k in range(N) if k != but]
        y = self.pool.step([self.sids[k] for k in places], self.x[places, self.at])
        assert_same_bits(y, np.ascontiguousarray(self.want[places, self.at]), "a neighbour")
        self.at += 1


class Requests:
    """A batcher, and what a direct call gives for what it is asked."""

    def __init__(self, model: seqrs.Sequential = TAGGER, **options: Any) -> None:
        draw = np.random.default_rng(0)
        self.model, self.batcher = model, seqrs.Batcher(model, **options)
        self.xs = [draw.normal(size=(n, I)).astype(np.float32) for n in (3, 1, 7, 7, 2)]

    def ask(self, attack: Callable[[], Any], others: int = 20) -> Any:
        """Requests from other threads, and the attack between them."""

        def one(k: int) -> None:
            x = self.xs[k % len(self.xs)]
            y = self.batcher.predict(x, timeout=SECONDS)
            assert_same_bits(y, self.model(x[None])[0][0], "a neighbour")

        with ThreadPoolExecutor(8) as threads:
            jobs = [threads.submit(one, k) for k in range(others)]
            try:
                return attack()
            finally:
                for job in jobs:
                    job.result(SECONDS)


@contextmanager
def reported() -> Iterator[list[BaseException | None]]:
    """What nobody could raise."""
    errors, hook = list[BaseException | None](), sys.unraisablehook
    sys.unraisablehook = lambda told: errors.append(told.exc_value)
    try:
        yield errors
    finally:
        sys.unraisablehook = hook


ATTACKS: dict[str, Callable[[], None]] = {}


def attack(test: Callable[[], None]) -> Callable[[], None]:
    ATTACKS[test.__name__] = test
    return test


# On a pool.


@attack
def nan_in_one_stream() -> None:
    streams = Streams()
    x = streams.x[:, streams.at].copy()
    x[2] = np.nan
    y = streams.pool.step(streams.sids, x)
    assert np.isnan(y[2]).all()
    rest = [0, 1, 3, 4]
    assert_same_bits(y[rest], np.ascontiguousarray(streams.want[rest, streams.at]), "y")
    streams.at += 1
    streams.go_on(but=2)
    streams.pool.reset(streams.sids[2])
    again = streams.pool.step([streams.sids[2]], streams.x[[2], 0])
    assert_same_bits(again, np.ascontiguousarray(streams.want[[2], 0]), "after reset")


@attack
def rows_of_another_width() -> None:
    streams = Streams()
    for shape in [(N, I + 1), (N, I - 1), (N,), (N, 1, I), (N, 0)]:
        with pytest.raises(seqrs.ShapeError):
            streams.pool.step(streams.sids, np.ones(shape, np.float32))
    streams.go_on()


@attack
def more_rows_than_streams() -> None:
    streams = Streams()
    for rows in (0, N - 1, N + 1):
        with pytest.raises(seqrs.ShapeError):
            streams.pool.step(streams.sids, np.ones((rows, I), np.float32))
    streams.go_on()


@attack
def numbers_that_are_none() -> None:
    streams = Streams()
    for x in (np.full((N, I), "a"), np.full((N, I), 1j), np.full((N, I), None), object()):
        with pytest.raises(seqrs.DTypeError):
            streams.pool.step(streams.sids, x)
    streams.go_on()


@attack
def ids_out_of_range() -> None:
    streams = Streams(READER)
    for wrong in (11, -1, 2**62, -(2**63)):
        x = streams.x[:, streams.at].copy()
        x[3] = wrong
        with pytest.raises(seqrs.ShapeError, match=r"expected an id in 0\.\.11"):
            streams.pool.step(streams.sids, x)
    streams.go_on()


@attack
def a_result_that_does_not_fit() -> None:
    streams = Streams()
    x = streams.x[:, streams.at]
    frozen = np.empty((N, 3), np.float32)
    frozen.flags.writeable = False
    for out, error in (
        (np.empty((N, 4), np.float32), seqrs.ShapeError),
        (np.empty((N, 3)), seqrs.DTypeError),
        (np.empty((3, N), np.float32).T, seqrs.ShapeError),
        (frozen, seqrs.ShapeError),
    ):
        with pytest.raises(error, match="out: expected"):
            streams.pool.step(streams.sids, x, out=out)
    streams.go_on()


@attack
def one_stream_twice() -> None:
    streams = Streams()
    sids = [*streams.sids, streams.sids[0]]
    with pytest.raises(seqrs.StateError):
        streams.pool.step(sids, np.ones((N + 1, I), np.float32))
    streams.go_on()


@attack
def a_closed_handle() -> None:
    streams = Streams()
    sid = streams.pool.open()
    streams.pool.close(sid)
    for use in (
        lambda: streams.pool.step([*streams.sids, sid], np.ones((N + 1, I), np.float32)),
        lambda: streams.pool.close(sid),
        lambda: streams.pool.reset(sid),
        lambda: streams.pool.export_state(sid),
    ):
        with pytest.raises(seqrs.StateError):
            use()
    streams.go_on()


@attack
def a_handle_whose_place_another_has() -> None:
    streams = Streams(capacity=N + 1)
    stale = streams.pool.open()
    for _ in range(1000):
        streams.pool.close(stale)
        fresh = streams.pool.open()
        with pytest.raises(seqrs.StateError):
            streams.pool.step([stale], np.ones((1, I), np.float32))
        stale = fresh
    streams.go_on()


@attack
def a_handle_of_another_pool() -> None:
    streams, others = Streams(), Streams()
    with pytest.raises(seqrs.StateError):
        streams.pool.step([others.sids[0]], np.ones((1, I), np.float32))
    streams.go_on()
    others.go_on()


@attack
def handles_that_are_none() -> None:
    streams = Streams()
    for wrong in (0, -1, "0", None, 2**70, object(), [streams.sids[0]]):
        with pytest.raises(seqrs.StateError):
            streams.pool.step([wrong], np.ones((1, I), np.float32))  # type: ignore[list-item]
    streams.go_on()


@attack
def forged_state_bytes() -> None:
    streams = Streams()
    blob = streams.pool.export_state(streams.sids[0])
    before = len(streams.pool)
    for k in range(len(blob)):
        forged = bytearray(blob)
        forged[k] ^= 1 << (k % 8)
        with pytest.raises(seqrs.StateError):
            streams.pool.import_state(bytes(forged))
    assert len(streams.pool) == before
    streams.go_on()


@attack
def state_bytes_that_end_early_or_late() -> None:
    streams = Streams()
    blob = streams.pool.export_state(streams.sids[0])
    for forged in (*(blob[:n] for n in range(len(blob))), blob + b"\0", blob * 2):
        with pytest.raises(seqrs.StateError):
            streams.pool.import_state(forged)
    streams.go_on()


@attack
def the_state_of_another_model() -> None:
    streams, others = Streams(), Streams(seqrs.Sequential([*TAGGER][:2], seed=9))
    with pytest.raises(seqrs.StateError, match="model"):
        streams.pool.import_state(others.pool.export_state(others.sids[0]))
    streams.go_on()


@attack
def a_state_of_nan() -> None:
    streams = Streams()
    sid = streams.pool.open()
    streams.pool.step([sid], np.full((1, I), np.nan, np.float32))
    blob = streams.pool.export_state(sid)
    with pytest.raises(seqrs.StateError):
        streams.pool.import_state(blob)
    streams.pool.import_state(blob, allow_nonfinite=True)
    streams.go_on()


@attack
def a_million_streams() -> None:
    small = seqrs.Sequential([seqrs.RNN(1, 1)], seed=0)
    pool = seqrs.StreamPool(small, capacity=1_000_000)
    sids = [pool.open() for _ in range(1_000_000)]
    with pytest.raises(seqrs.QueueFullError):
        pool.open()
    assert len(pool) == 1_000_000
    few = sids[:: len(sids) // 7]
    x = np.arange(len(few), dtype=np.float32)[:, None]
    assert_same_bits(pool.step(few, x), small.step(x)[0], "y")
    for sid in sids:
        pool.close(sid)
    assert len(pool) == 0


@attack
def one_stream_from_two_threads() -> None:
    model = seqrs.Sequential([seqrs.LSTM(64, 512, 4)], seed=0)
    pool = seqrs.StreamPool(model, capacity=300)
    sids = [pool.open() for _ in range(256)]
    x = np.ones((256, 64), np.float32)
    barrier, outcomes = threading.Barrier(2), list[str]()

    def step() -> None:
        barrier.wait(SECONDS)
        try:
            pool.step(sids, x)
            outcomes.append("done")
        except seqrs.StateError as error:
            outcomes.append("refused" if "being stepped" in str(error) else str(error))

    # A step takes long enough for both to meet, unless one of them is kept from running.
    while "refused" not in outcomes:
        assert len(outcomes) < 20, "both were done, again and again"
        threads = [threading.Thread(target=step) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    assert set(outcomes) <= {"done", "refused"}
    want, state = model.step(x)
    for _ in range(outcomes.count("done")):
        want, state = model.step(x, state)
    assert_same_bits(pool.step(sids, x), want, "y")


@attack
def an_eviction_whose_callback_raises() -> None:
    told = list[Any]()

    def refuse(sid: Any) -> None:
        told.append(sid)
        raise RuntimeError("the callback's own")

    pool = seqrs.StreamPool(TAGGER, capacity=10, idle_ttl=0.05, on_evict=refuse)
    idle = pool.open()
    time.sleep(0.2)
    with reported() as errors:
        busy = pool.open()
    assert told == [idle]
    assert [type(error) for error in errors] == [RuntimeError]
    with pytest.raises(seqrs.StateError):
        pool.step([idle], np.ones((1, I), np.float32))
    x = np.ones((1, I), np.float32)
    assert_same_bits(pool.step([busy], x), TAGGER.step(x)[0], "y")


@attack
def a_fork_during_a_step() -> None:
    model = seqrs.Sequential([seqrs.LSTM(32, 256, 2)], seed=0)
    pool = seqrs.StreamPool(model, capacity=200)
    busy, still = [pool.open() for _ in range(128)], pool.open()
    stop = threading.Event()

    def step() -> None:
        while not stop.is_set():
            pool.step(busy, np.ones((128, 32), np.float32))

    x = np.ones((1, 32), np.float32)
    want = model.step(x)[0]
    thread = threading.Thread(target=step)
    thread.start()
    try:
        for _ in range(5):
            assert in_child(lambda: pool.step([still], x).tobytes()) == want.tobytes()
    finally:
        stop.set()
        thread.join(SECONDS)
    assert_same_bits(pool.step([still], x), want, "in the parent")


# On a batcher.


@attack
def nan_in_one_request() -> None:
    requests = Requests()
    x = np.full((4, I), np.nan, np.float32)
    assert np.isnan(requests.ask(lambda: requests.batcher.predict(x))).all()


@attack
def requests_of_the_wrong_form() -> None:
    requests = Requests()
    for x, error in (
        (np.ones((4, I + 1), np.float32), seqrs.ShapeError),
        (np.ones(I, np.float32), seqrs.ShapeError),
        (np.ones((2, 4, I), np.float32), seqrs.ShapeError),
        (np.full((4, I), "a"), seqrs.DTypeError),
        (None, seqrs.DTypeError),
    ):

        def ask(x: Any = x, error: Any = error) -> None:
            with pytest.raises(error, match="x: expected"):
                requests.batcher.predict(x)

        requests.ask(ask)
    assert requests.batcher.stats()["done"] == 5 * 20


@attack
def more_than_the_queue_holds() -> None:
    batcher = seqrs.Batcher(SLOW, max_batch=1, max_queue=2)
    want = SLOW(LONG[None])[0][0]

    async def all_at_once() -> list[Any]:
        asked = (batcher.predict_async(LONG) for _ in range(12))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(all_at_once())
    full = [a for a in answers if isinstance(a, seqrs.QueueFullError)]
    right = [a for a in answers if isinstance(a, np.ndarray)]
    assert len(full) + len(right) == 12
    assert len(full) >= 8
    for answer in right:
        assert_same_bits(answer, want, "y")
    assert_same_bits(batcher.predict(LONG), want, "afterwards")


@attack
def a_deadline_that_is_over() -> None:
    requests = Requests(SLOW)

    def ask() -> None:
        for timeout in (0.0, 1e-9):
            with pytest.raises(TimeoutError):
                requests.batcher.predict(LONG, timeout=timeout)

    requests.ask(ask)
    for wrong in (-1.0, float("nan"), "soon"):
        with pytest.raises((ValueError, TypeError)):
            requests.batcher.predict(LONG, timeout=wrong)  # type: ignore[arg-type]


@attack
def tasks_cancelled_in_the_middle_of_a_batch() -> None:
    batcher = seqrs.Batcher(SLOW, max_batch=8)
    short = LONG[:300]
    want = SLOW(short[None])[0][0]

    async def storm() -> None:
        tasks = [asyncio.ensure_future(batcher.predict_async(short)) for _ in range(40)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for k, answer in enumerate(answers):
            if k % 2 == 0 and isinstance(answer, asyncio.CancelledError):
                continue
            assert isinstance(answer, np.ndarray), answer
            assert_same_bits(answer, want, "y")

    asyncio.run(asyncio.wait_for(storm(), SECONDS))
    stats = batcher.stats()
    assert stats["waiting"] == stats["running"] == 0


@attack
def a_loop_that_is_gone() -> None:
    requests = Requests(SLOW)

    async def ask_and_leave() -> None:
        task = asyncio.ensure_future(requests.batcher.predict_async(LONG))
        await asyncio.sleep(0)
        assert not task.done()

    requests.ask(lambda: asyncio.run(ask_and_leave()), others=4)


@attack
def a_batcher_that_closes() -> None:
    batcher = seqrs.Batcher(SLOW, max_batch=1)
    outcomes = list[str]()

    def ask() -> None:
        try:
            batcher.predict(LONG)
            outcomes.append("done")
        except seqrs.StateError:
            outcomes.append("closed")

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    batcher.close(drain=False)
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert len(outcomes) == 6
    with pytest.raises(seqrs.StateError):
        batcher.predict(LONG)


@attack
def a_fork_of_a_busy_batcher() -> None:
    requests = Requests()
    x = requests.xs[0]
    want = TAGGER(x[None])[0][0].tobytes()

    def fork() -> None:
        for _ in range(3):
            assert in_child(lambda: requests.batcher.predict(x).tobytes()) == want

    requests.ask(fork, others=200)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ATTACKS)
def test_has_its_error_and_harms_nobody(name: str) -> None:
    if "fork" in name and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    ATTACKS[name]()


def test_there_are_as_many_as_promised() -> None:
    assert len(ATTACKS) >= 24
