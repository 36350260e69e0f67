"""Batcher: the bits of direct calls under any load, whose failure is whose, and what happens to who
waits: bounds, deadlines, cancellation, swaps, closing, forks and the end of the interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import Array, in_child, pool_threads, python
from tolerances import FORMULA_F64, assert_close, assert_same_bits

#: Longer than any test here takes, unless it hangs.
SECONDS = 60.0

#: As cases.SECONDS of a child: one that hangs is killed.
forking = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 warns of forks in a process with threads, which are the point here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """A test that hangs ends the run, with what every thread is doing."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def tagger(seed: int = 0, dtype: str = "float32") -> seqrs.Sequential:
    return seqrs.Sequential(
        [seqrs.LSTM(3, 20, 2, dtype=dtype), seqrs.Linear(20, 4, dtype=dtype)], seed
    )


def classifier(seed: int = 0) -> seqrs.Sequential:
    layers = [seqrs.Embedding(11, 8), seqrs.GRU(8, 12, bidirectional=True), seqrs.Last()]
    return seqrs.Sequential([*layers, seqrs.Linear(24, 5)], seed)


MODELS: dict[str, Callable[[], Any]] = {
    "tagger": tagger,
    "classifier": classifier,
    "time-first": lambda: seqrs.Sequential([seqrs.GRU(3, 9, batch_first=False), seqrs.MeanPool()]),
    "a layer": lambda: seqrs.LSTM(3, 17, bidirectional=True),
    "no recurrence": lambda: seqrs.Sequential([seqrs.Linear(3, 2), seqrs.Activation("softmax")]),
}


def draw(model: Any, length: int, seed: int) -> Array:
    """A sequence that the model reads."""
    drawn = np.random.default_rng([length, seed])
    layers = model if isinstance(model, seqrs.Sequential) else [model]
    if isinstance(layers[0], seqrs.Embedding):
        return drawn.integers(0, 11, length)
    return drawn.standard_normal((length, 3)).astype(np.float32)


def directly(model: Any, x: Array) -> Array:
    y: Array
    if model.batch_first:
        y = model(x[None])[0][0]
    else:
        y = model(x[:, None])[0]
        y = y[:, 0] if y.ndim == 3 else y[0]
    return y


def lengths(count: int, most: int = 40, seed: int = 0) -> list[int]:
    return [int(n) for n in np.random.default_rng(seed).integers(0, most, count)]


def runs(batcher: seqrs.Batcher, count: int = 1) -> None:
    """Waits until so many requests are being computed."""
    while batcher.stats()["running"] < count:
        time.sleep(0.001)


SLOW = seqrs.Sequential([seqrs.LSTM(1, 256), seqrs.Last()], seed=0)
#: Some seconds of work.
LONG = np.zeros((300_000, 1), np.float32)


@contextlib.contextmanager
def busy(batcher: seqrs.Batcher, seconds: float = 0.5) -> Iterator[None]:
    """Has a thread compute for so long; what is asked in the block by then waits."""
    ended: list[BaseException] = []

    def compute() -> None:
        try:
            batcher.predict(LONG, timeout=seconds)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=compute)
    thread.start()
    runs(batcher)
    yield
    thread.join()
    assert [type(error) for error in ended] == [TimeoutError]


def small(length: int = 3, value: float = 1.0) -> Array:
    return np.full((length, 1), value, np.float32)


class TestBits:
    """Each answer is that of `model(x)` for its sequence alone, whatever was computed beside."""

    @pytest.mark.parametrize("name", MODELS)
    def test_alone_and_beside_others(self, name: str, device: str) -> None:
        model = MODELS[name]().to(device)
        xs = [draw(model, length, k) for k, length in enumerate([0, 1, 7, 30, *lengths(40)])]
        expected = [directly(model, x) for x in xs]
        with seqrs.Batcher(model) as batcher:
            for x, y in zip(xs[:6], expected, strict=False):
                assert_same_bits(batcher.predict(x), y)

            async def ask() -> list[Array]:
                return list(await asyncio.gather(*map(batcher.predict_async, xs)))

            for got, y in zip(asyncio.run(ask()), expected, strict=True):
                assert_same_bits(got, y)
            assert max(batcher.stats()["batch_sizes"]) > 1

    @pytest.mark.parametrize("kind", ["int8", "bf16"])
    def test_small_weights(self, kind: str) -> None:
        models = [tagger(seed).quantize(kind) for seed in (1, 2)]
        xs = [draw(tagger(), length, k) for k, length in enumerate([0, 1, 7, *lengths(40)])]
        with seqrs.Batcher(models[0], max_wait=0.001) as batcher:
            for model in models:
                batcher.model = model
                assert batcher.model is model
                with ThreadPoolExecutor(8) as pool:
                    for x, y in zip(xs, pool.map(batcher.predict, xs), strict=True):
                        assert_same_bits(y, directly(model, x))
            assert max(batcher.stats()["batch_sizes"]) > 1
        with (
            seqrs.Batcher(tagger(dtype="float64")) as batcher,
            pytest.raises(seqrs.DTypeError, match="float64"),
        ):
            batcher.swap(models[0])

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_random_load_from_threads(self, dtype: str, threads: int) -> None:
        model = tagger(dtype=dtype)
        with (
            seqrs.num_threads(threads),
            seqrs.Batcher(model, max_batch=5, max_wait=0.001) as batcher,
        ):

            def ask(k: int) -> None:
                for n in lengths(40, seed=k):
                    x = draw(model, n, k)
                    assert_same_bits(batcher.predict(x), directly(model, x))

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(ask, range(8)))
            found = batcher.stats()
        assert found["done"] == found["submitted"] == 320
        assert 1 < max(found["batch_sizes"]) <= 5
        assert sum(size * n for size, n in found["batch_sizes"].items()) == 320
        assert found["padding_cost"] <= 0.2

    def test_random_load_from_threads_and_loops_at_once(self) -> None:
        model = classifier()
        batcher = seqrs.Batcher(model)

        def thread(k: int) -> None:
            for n in lengths(50, seed=k):
                x = draw(model, n, k)
                assert_same_bits(batcher.predict(x, timeout=SECONDS), directly(model, x))

        async def task(k: int) -> None:
            for n in lengths(10, seed=k):
                x = draw(model, n, k)
                assert_same_bits(await batcher.predict_async(x), directly(model, x))

        async def tasks(k: int) -> None:
            await asyncio.gather(*(task(100 * k + j) for j in range(20)))

        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(thread, k) for k in range(3)]
            asked += [pool.submit(asyncio.run, tasks(k)) for k in range(2)]
            for future in asked:
                future.result()
        assert batcher.stats()["done"] == 3 * 50 + 2 * 20 * 10

    def test_any_array_like(self) -> None:
        model = tagger()
        batcher = seqrs.Batcher(model)
        x = draw(model, 6, 0)
        y = directly(model, x)
        for like in (x.tolist(), np.asfortranarray(x), x.astype(">f4"), x[::-1][::-1]):
            assert_same_bits(batcher.predict(like), y)
        assert batcher.predict(x).flags.c_contiguous
        assert_same_bits(seqrs.Batcher(classifier()).predict([]), classifier()([[]])[0][0])

    def test_the_caller_may_change_its_array_at_once(self) -> None:
        batcher = seqrs.Batcher(SLOW)

        async def ask() -> Array:
            x = small()
            task = asyncio.ensure_future(batcher.predict_async(x))
            await asyncio.sleep(0)
            x[:] = np.nan
            return await task

        with busy(batcher):
            y = asyncio.run(ask())
        assert_same_bits(y, directly(SLOW, small()))


async def all_of(*asked: Coroutine[Any, Any, Array]) -> list[Any]:
    """Answers or errors."""
    return list(await asyncio.gather(*asked, return_exceptions=True))


#: What SLOW does not read.
BAD: dict[str, Any] = {
    "too wide": np.zeros((4, 2), np.float32),
    "a batch": np.zeros((1, 4, 1), np.float32),
    "a row": np.zeros(4, np.float32),
    "complex": np.zeros((4, 1), complex),
    "words": "words",
    "ragged": [[1.0], [1.0, 2.0]],
}


class TestFailures:
    """One that does not fit fails alone, with the error of a direct call."""

    def test_beside_others(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        with busy(batcher):
            good = [small(n) for n in (2, 3, 4)]
            asked = [*good, *BAD.values()]
            got = asyncio.run(all_of(*map(batcher.predict_async, asked)))
        for y, x in zip(got, good, strict=False):
            assert_same_bits(y, directly(SLOW, x))
        for error, (name, x) in zip(got[3:], BAD.items(), strict=True):
            with pytest.raises(seqrs.SeqrsError) as direct:
                SLOW(x if name == "words" else [x])
            if name not in ("a batch", "a row"):
                assert type(error) is direct.type, name
            assert isinstance(error, seqrs.SeqrsError), name
            with pytest.raises(type(error), match=r"^x: expected .*, got "):
                batcher.predict(x)
        found = batcher.stats()
        assert (found["done"], found["failed"]) == (3, 2 * len(BAD))
        assert found["batch_sizes"] == {3: 1}

    @pytest.mark.parametrize("ids", [[1, 11, 2], [1, -1, 2], [1.5], [True], ["a"], [[1]], [2**70]])
    def test_ids(self, ids: Any) -> None:
        model = classifier()
        batcher = seqrs.Batcher(model)
        with pytest.raises(seqrs.SeqrsError) as direct:
            model([ids])
        with pytest.raises(direct.type, match=r"^x"):
            batcher.predict(ids)
        assert_same_bits(batcher.predict([1]), directly(model, np.array([1])))

    def test_nan_stays_in_its_row(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        xs = [small(3), small(3, np.nan), small(4), small(3, np.inf)]
        with busy(batcher):
            got = asyncio.run(all_of(*map(batcher.predict_async, xs)))
        for y, x in zip(got, xs, strict=True):
            assert_same_bits(y, directly(SLOW, x))
        assert np.isnan(got[1]).all()
        assert np.isfinite(got[0]).all()
        assert batcher.stats()["batch_sizes"] == {4: 1}

    def test_a_panic_is_an_internal_error_and_the_batcher_goes_on(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        panic_in = seqrs._seqrs._panic_in
        with pytest.raises(seqrs.InternalError, match="report it: on this thread"):
            panic_in(batcher._handle, "on this thread")
        # The batcher's own thread, with others before and after.
        with busy(batcher), ThreadPoolExecutor(3) as pool:
            first = pool.submit(batcher.predict, small())
            panic = pool.submit(panic_in, batcher._handle, "on its own")
            last = pool.submit(batcher.predict, small())
            with pytest.raises(seqrs.InternalError, match="report it: on its own"):
                panic.result()
            for future in (first, last):
                assert_same_bits(future.result(), directly(SLOW, small()))
        assert_same_bits(batcher.predict(small()), directly(SLOW, small()))
        assert batcher.stats()["failed"] == 2

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"max_batch": 0}, seqrs.ShapeError, "max_batch: expected an integer of at least 1"),
            ({"max_queue": 0}, seqrs.ShapeError, "max_queue: expected an integer of at least 1"),
            ({"max_batch": 1.5}, TypeError, "max_batch: expected an integer"),
            ({"max_wait": -1}, ValueError, "max_wait: expected a number"),
            ({"max_wait": "1"}, TypeError, "max_wait: expected a real number"),
            ({"model": 1}, TypeError, "model: expected a Sequential, quantised or not, or a layer"),
        ],
    )
    def test_options(self, options: dict[str, Any], error: type, words: str) -> None:
        with pytest.raises(error, match=words):
            seqrs.Batcher(**({"model": SLOW} | options))

    @pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1"])
    def test_timeouts(self, timeout: Any) -> None:
        batcher = seqrs.Batcher(SLOW)
        with pytest.raises((ValueError, TypeError), match="timeout: expected"):
            batcher.predict(small(), timeout=timeout)
        with pytest.raises((ValueError, TypeError), match="timeout: expected"):
            asyncio.run(batcher.predict_async(small(), timeout=timeout))


def ask(batcher: seqrs.Batcher, way: str, x: Array, timeout: float) -> Array:
    if way == "predict":
        return batcher.predict(x, timeout)
    return asyncio.run(batcher.predict_async(x, timeout))


class TestQueue:
    def test_a_full_queue_refuses_at_once(self) -> None:
        batcher = seqrs.Batcher(SLOW, max_queue=3)
        with busy(batcher):
            start = time.perf_counter()
            got = asyncio.run(all_of(*(batcher.predict_async(small()) for _ in range(5))))
            took = time.perf_counter() - start
        assert [type(y) for y in got[3:]] == [seqrs.QueueFullError] * 2
        assert str(got[3]) == "queue: expected fewer than 3 requests that wait, got 3"
        for y in got[:3]:
            assert_same_bits(y, directly(SLOW, small()))
        with busy(batcher), ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(batcher.predict, small()) for _ in range(3)]
            while batcher.stats()["waiting"] < 3:
                time.sleep(0.001)
            start = time.perf_counter()
            with pytest.raises(seqrs.QueueFullError):
                batcher.predict(small())
            took = time.perf_counter() - start
            assert took < 0.1
            for future in waiting:
                future.result()
        found = batcher.stats()
        assert (found["refused"], found["done"], found["expired"]) == (3, 6, 2)

    @pytest.mark.parametrize("way", ["predict", "predict_async"])
    def test_a_deadline(self, way: str) -> None:
        """A request whose time is over while it waits is not computed."""
        batcher = seqrs.Batcher(SLOW)
        with busy(batcher, 0.6):
            start = time.perf_counter()
            with pytest.raises(TimeoutError, match="request: expected an answer in time"):
                ask(batcher, way, small(), 0.1)
            took = time.perf_counter() - start
            found = batcher.stats()
            assert (found["waiting"], found["running"], found["expired"]) == (0, 1, 1)
        assert 0.1 <= took < 0.4
        assert batcher.stats()["batches"] == 0
        assert_same_bits(batcher.predict(small(), timeout=9), directly(SLOW, small()))

    def test_a_deadline_of_what_the_thread_computes(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        with pytest.raises(TimeoutError):
            asyncio.run(batcher.predict_async(LONG[:100_000], timeout=0.1))
        assert batcher.stats()["expired"] == 1
        batcher.close(drain=False)

    @pytest.mark.parametrize("way", ["predict", "predict_async"])
    def test_no_time_at_all(self, way: str) -> None:
        batcher = seqrs.Batcher(SLOW)
        with pytest.raises(TimeoutError):
            ask(batcher, way, LONG, 0)
        batcher.close(drain=False)
        assert batcher.stats()["expired"] == 1

    def test_a_task_that_is_cancelled_leaves_the_queue(self) -> None:
        batcher = seqrs.Batcher(SLOW, max_queue=2)

        async def ask() -> Array:
            one, two = (asyncio.ensure_future(batcher.predict_async(small())) for _ in range(2))
            await asyncio.sleep(0)
            assert batcher.stats()["waiting"] == 2
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one
            # Its place is free.
            assert batcher.stats()["waiting"] == 1
            y, z = await asyncio.gather(two, batcher.predict_async(small()))
            assert_same_bits(y, z)
            return z

        with busy(batcher):
            assert_same_bits(asyncio.run(ask()), directly(SLOW, small()))
        found = batcher.stats()
        assert (found["cancelled"], found["done"]) == (1, 2)
        assert found["batch_sizes"] == {2: 1}

    def test_wait_for_cancels(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        with busy(batcher), pytest.raises((asyncio.TimeoutError, TimeoutError)):
            asyncio.run(asyncio.wait_for(batcher.predict_async(small()), 0.05))
        assert batcher.stats()["cancelled"] == 1

    def test_cancellation_storms(self) -> None:
        """Tasks that are cancelled at any moment harm nobody else, and everything is counted."""
        model = tagger()
        batcher = seqrs.Batcher(model, max_batch=8)
        xs = [draw(model, n, n) for n in range(40)]
        expected = [directly(model, x) for x in xs]
        chance = random.Random(0)
        answered = 0

        async def storm() -> None:
            nonlocal answered
            for _ in range(12):
                chosen = [chance.randrange(40) for _ in range(200)]
                tasks = [asyncio.ensure_future(batcher.predict_async(xs[k])) for k in chosen]
                doomed = chance.sample(tasks, 150)
                for k, task in enumerate(doomed):
                    if k % 10 == 0:
                        await asyncio.sleep(chance.choice([0, 0.0001]))
                    task.cancel()
                for k, y in zip(chosen, await all_of(*tasks), strict=True):
                    if isinstance(y, asyncio.CancelledError):
                        continue
                    assert_same_bits(y, expected[k])
                    answered += 1

        asyncio.run(storm())
        batcher.close()
        found = batcher.stats()
        assert answered >= 12 * 50
        assert (found["waiting"], found["running"]) == (0, 0)
        assert found["failed"] == found["expired"] == found["refused"] == 0
        assert found["submitted"] == found["done"] + found["cancelled"]
        # An answer may come in the moment in which its task is cancelled.
        assert found["done"] >= answered
        assert found["cancelled"] > 0

    def test_it_waits_for_company_as_long_as_it_may(self) -> None:
        batcher = seqrs.Batcher(SLOW, max_batch=4, max_wait=SECONDS)
        ask = batcher.predict_async
        asyncio.run(all_of(*(ask(small()) for _ in range(4))))
        assert batcher.stats()["batch_sizes"] == {4: 1}
        # Half of the time of who has little.
        batcher.predict(small(), timeout=1.0)
        start = time.perf_counter()
        seqrs.Batcher(SLOW, max_wait=0.1).predict(small())
        assert time.perf_counter() - start >= 0.1


class TestStats:
    def test_everything_is_counted(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        with busy(batcher):
            asyncio.run(all_of(*(batcher.predict_async(small(n)) for n in (10, 10, 9, 9, 400))))
        batcher.predict(small())
        found = batcher.stats()
        assert found["batch_sizes"] == {1: 2, 4: 1}
        assert found["batches"] == 3
        # 10, 10, 9 and 9 of 10 steps; each step takes 2 rows' worth beside its rows.
        assert_close(found["padding_share"], 1 - 441 / 443, FORMULA_F64)
        cost = 2 * 0.5 / ((2 * 10 + 38) + (2 * 400 + 400) + (2 * 3 + 3))
        assert_close(found["padding_cost"], cost, FORMULA_F64)
        for name in ("queue_seconds", "latency_seconds"):
            histogram = found[name]
            assert len(histogram["counts"]) == len(histogram["bounds"]) + 1
            assert sum(histogram["counts"]) == found["done"] == 6
            assert histogram["bounds"] == sorted(histogram["bounds"])
        # Five waited for most of half a second, and one not at all.
        assert 0.5 < found["queue_seconds"]["sum"] <= found["latency_seconds"]["sum"]
        assert found["queue_seconds"]["counts"][0] >= 1

    def test_of_an_idle_one(self) -> None:
        found = seqrs.Batcher(SLOW).stats()
        assert found["padding_share"] == found["padding_cost"] == 0
        assert found["batch_sizes"] == {}


class TestSwap:
    def test_under_load_each_request_sees_one_model(self) -> None:
        models = [tagger(seed) for seed in range(3)]
        xs = [draw(models[0], n, n) for n in range(30)]
        expected = [[directly(model, x).tobytes() for model in models] for x in xs]
        batcher = seqrs.Batcher(models[0])
        done = threading.Event()
        seen: set[int] = set()

        def ask(k: int) -> None:
            chance = random.Random(k)
            while not done.is_set():
                n = chance.randrange(30)
                seen.add(expected[n].index(batcher.predict(xs[n]).tobytes()))

        async def ask_too() -> None:
            while not done.is_set():
                got = await all_of(*map(batcher.predict_async, xs))
                for y, answers in zip(got, expected, strict=True):
                    seen.add(answers.index(y.tobytes()))

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, k) for k in range(3)]
            asked.append(pool.submit(lambda: asyncio.run(ask_too())))
            for k in range(300):
                batcher.model = models[k % 3]
                time.sleep(0.003)
            done.set()
            for future in asked:
                future.result()
        assert seen == {0, 1, 2}
        assert batcher.stats()["failed"] == 0

    def test_what_waits_keeps_its_model(self) -> None:
        other = seqrs.Sequential([seqrs.LSTM(1, 4), seqrs.Last()], seed=1)
        batcher = seqrs.Batcher(SLOW)

        async def ask() -> list[Array]:
            before = asyncio.ensure_future(batcher.predict_async(small()))
            await asyncio.sleep(0)
            assert batcher.swap(other) is SLOW
            assert batcher.model is other
            return [await batcher.predict_async(small()), await before]

        with busy(batcher):
            after, before = asyncio.run(ask())
        assert_same_bits(before, directly(SLOW, small()))
        assert_same_bits(after, directly(other, small()))

    def test_a_model_that_is_trained_meanwhile(self) -> None:
        """A request sees the parameters of the moment in which it is asked."""
        model = tagger()
        batcher = seqrs.Batcher(model)
        x = draw(model, 5, 0)
        before = batcher.predict(x)
        seqrs.Trainer(model, loss=seqrs.MSE()).step(x[None], np.ones((1, 5, 4)))
        after = batcher.predict(x)
        assert_same_bits(after, directly(model, x))
        assert after.tobytes() != before.tobytes()

    def test_another_dtype_is_refused(self) -> None:
        batcher = seqrs.Batcher(tagger())
        with pytest.raises(seqrs.DTypeError, match="model: expected float32"):
            batcher.model = tagger(dtype="float64")
        with pytest.raises(
            TypeError, match="model: expected a Sequential, quantised or not, or a layer"
        ):
            batcher.swap("other")  # type: ignore[arg-type]
        assert batcher.model == tagger()


class TestClose:
    @pytest.mark.parametrize("drain", [True, False])
    def test_while_requests_wait(self, drain: bool) -> None:
        batcher = seqrs.Batcher(SLOW)
        with busy(batcher) if drain else contextlib.nullcontext(), ThreadPoolExecutor(5) as pool:
            if not drain:
                long = pool.submit(batcher.predict, LONG)
                runs(batcher)
            asked = [pool.submit(batcher.predict, small()) for _ in range(2)]
            tasks = pool.submit(lambda: asyncio.run(all_of(batcher.predict_async(small()))))
            while batcher.stats()["waiting"] < 3:
                time.sleep(0.001)
            start = time.perf_counter()
            batcher.close(drain=drain)
            took = time.perf_counter() - start
            found = batcher.stats()
            assert (found["waiting"], found["running"]) == (0, 0)
            (last,) = tasks.result()
            if drain:
                for y in [*(future.result() for future in asked), last]:
                    assert_same_bits(y, directly(SLOW, small()))
            else:
                assert took < 1
                assert type(last) is seqrs.StateError
                for future in [*asked, long]:
                    with pytest.raises(seqrs.StateError, match="got one that is closed"):
                        future.result()

    def test_after_it(self) -> None:
        with seqrs.Batcher(SLOW) as batcher:
            batcher.predict(small())
            assert not batcher.closed
        assert batcher.closed
        with pytest.raises(seqrs.StateError, match="batcher: expected an open one"):
            batcher.predict(small())
        with pytest.raises(seqrs.StateError, match="batcher: expected an open one"):
            asyncio.run(batcher.predict_async(small()))
        batcher.close()
        assert batcher.stats()["refused"] == 2

    def test_from_a_loop(self) -> None:
        async def use() -> list[Array]:
            async with seqrs.Batcher(SLOW) as batcher:
                asked = [asyncio.ensure_future(batcher.predict_async(small())) for _ in range(9)]
                await asyncio.sleep(0)
            return list(await asyncio.gather(*asked))

        for y in asyncio.run(use()):
            assert_same_bits(y, directly(SLOW, small()))

    def test_threads_are_started_late_and_end(self) -> None:
        def batchers() -> int:
            return pool_threads().count("seqrs-batcher")

        gc.collect()
        assert batchers() == 0
        batcher = seqrs.Batcher(SLOW)
        batcher.predict(small())
        assert batchers() == 0
        asyncio.run(batcher.predict_async(small()))
        assert batchers() == 1
        batcher.close()
        assert batchers() == 0
        # One that is dropped ends as well.
        batcher = seqrs.Batcher(SLOW)
        asyncio.run(batcher.predict_async(small()))
        assert batchers() == 1
        del batcher
        gc.collect()
        assert batchers() == 0

    def test_an_idle_one_does_nothing(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        asyncio.run(batcher.predict_async(small()))
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05

    @pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
    def test_threads_that_wait_do_nothing(self) -> None:
        """Nobody but the main thread, which hears signals, wakes up before there is an answer."""
        batcher = seqrs.Batcher(SLOW)

        def switches(thread: threading.Thread) -> int:
            with open(f"/proc/self/task/{thread.native_id}/status", encoding="ascii") as lines:
                return sum(int(line.split()[1]) for line in lines if "_ctxt_switches" in line)

        with busy(batcher, 1.2):
            threads = [threading.Thread(target=batcher.predict, args=(small(),)) for _ in range(20)]
            for thread in threads:
                thread.start()
            while batcher.stats()["waiting"] < 20:
                time.sleep(0.001)
            time.sleep(0.2)
            before = [switches(thread) for thread in threads]
            time.sleep(0.4)
            assert [switches(thread) for thread in threads] == before
        for thread in threads:
            thread.join()


class TestLoops:
    def test_the_loop_is_never_blocked(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        gaps = []

        async def tick(task: asyncio.Future[Any]) -> None:
            while not task.done():
                start = time.perf_counter()
                await asyncio.sleep(0.001)
                gaps.append(time.perf_counter() - start)

        async def ask() -> None:
            asked = all_of(*(batcher.predict_async(LONG[:20_000]) for _ in range(3)))
            task = asyncio.ensure_future(asked)
            await tick(task)
            for y in await task:
                assert y.shape == (256,)

        asyncio.run(ask())
        assert len(gaps) > 20
        assert sorted(gaps)[len(gaps) // 2] < 0.05

    def test_a_loop_that_is_closed_meanwhile_does_no_harm(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        with busy(batcher):
            loop = asyncio.new_event_loop()
            task = loop.create_task(batcher.predict_async(small()))
            loop.run_until_complete(asyncio.sleep(0))
            other = threading.Thread(target=lambda: batcher.predict(small()))
            other.start()
            loop.close()
        other.join()
        assert_same_bits(asyncio.run(batcher.predict_async(small())), directly(SLOW, small()))
        # What was asked by a loop that is gone.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task

    def test_uvloop(self) -> None:
        uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
        model = tagger()
        batcher = seqrs.Batcher(model)
        xs = [draw(model, n, n) for n in range(60)]

        async def ask() -> list[Any]:
            with pytest.raises(TimeoutError):
                await batcher.predict_async(xs[0], timeout=0)
            return await all_of(*map(batcher.predict_async, xs))

        loop = uvloop.new_event_loop()
        try:
            got = loop.run_until_complete(ask())
        finally:
            loop.close()
        for y, x in zip(got, xs, strict=True):
            assert_same_bits(y, directly(model, x))


class TestSignals:
    pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")

    @pytest.mark.parametrize("way", ["waits", "runs"])
    def test_ctrl_c(self, way: str) -> None:
        batcher = seqrs.Batcher(SLOW)
        sent = 0.0

        def send() -> None:
            nonlocal sent
            time.sleep(0.3)
            sent = time.perf_counter()
            os.kill(os.getpid(), signal.SIGINT)

        with busy(batcher, 1.5) if way == "waits" else contextlib.nullcontext():
            sender = threading.Thread(target=send)
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                batcher.predict(LONG if way == "runs" else small())
            took = time.perf_counter() - sent
            sender.join()
            assert took < 0.5
            found = batcher.stats()
            assert (found["waiting"], found["cancelled"]) == (0, 1)
        assert_same_bits(batcher.predict(small()), directly(SLOW, small()))


class TestFork:
    pytestmark = forking

    @pytest.mark.parametrize("way", ["idle", "busy", "waiting"])
    def test_a_child_starts_with_an_empty_one(self, way: str) -> None:
        batcher = seqrs.Batcher(SLOW)
        expected = directly(SLOW, small())
        asyncio.run(batcher.predict_async(small()))

        async def both() -> list[Any]:
            return await all_of(*(batcher.predict_async(small()) for _ in range(3)))

        def child() -> tuple[Any, ...]:
            before = batcher.stats()
            y = batcher.predict(small())
            ys = asyncio.run(both())
            names = pool_threads().count("seqrs-batcher")
            batcher.close()
            return before["submitted"], y, ys, names, pool_threads().count("seqrs-batcher")

        with ThreadPoolExecutor(1) as pool:
            with busy(batcher, 1.0) if way != "idle" else contextlib.nullcontext():
                if way == "waiting":
                    waiting = pool.submit(batcher.predict, small())
                    while batcher.stats()["waiting"] < 1:
                        time.sleep(0.001)
                submitted, y, ys, threads, after = in_child(child)
            if way == "waiting":
                assert_same_bits(waiting.result(), expected)
        assert (submitted, threads, after) == (0, 1, 0)
        for got in [y, *ys]:
            assert_same_bits(got, expected)
        # The parent's is not closed, and has its own count.
        assert_same_bits(batcher.predict(small()), expected)
        assert batcher.stats()["done"] == (3 if way == "waiting" else 2)

    def test_many_forks_under_load(self) -> None:
        model = tagger()
        batcher = seqrs.Batcher(model)
        x = draw(model, 9, 0)
        expected = directly(model, x)
        done = threading.Event()
        problems: list[str] = []

        def ask() -> None:
            try:
                while not done.is_set():
                    assert_same_bits(batcher.predict(x), expected)
            except BaseException as error:
                problems.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(15):
                # A child of a child too.
                job = lambda: (batcher.predict(x), in_child(lambda: batcher.predict(x), 10))  # noqa: E731
                for y in in_child(job):
                    assert_same_bits(y, expected)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not problems

    def test_a_closed_one_stays_closed(self) -> None:
        batcher = seqrs.Batcher(SLOW)
        batcher.close()
        assert in_child(lambda: batcher.closed) is True


WITHOUT_THREADS = """
import asyncio, os, resource, sys, threading, time, numpy as np, seqrs
from concurrent.futures import ThreadPoolExecutor
from cases import pool_threads
seqrs.set_num_threads(1)
model = seqrs.Sequential([seqrs.LSTM(1, 256), seqrs.Last()], seed=0)
batcher = seqrs.Batcher(model)
callers = ThreadPoolExecutor(4)
all_there = threading.Barrier(4)
list(callers.map(lambda _: all_there.wait(), range(4)))
if os.geteuid() == 0:               # whom the limit does not apply to
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=int).start()
    sys.exit("a thread was started, so the limit limits nothing")
except RuntimeError:
    pass
small = np.ones((3, 1), np.float32)
long = callers.submit(batcher.predict, np.ones((20_000, 1), np.float32))
while not batcher.stats()["running"]:
    time.sleep(0.001)
asked = [callers.submit(batcher.predict, small) for _ in range(3)]
try:
    asyncio.run(batcher.predict_async(small))
except RuntimeError as error:
    print(error)
y = model(small[None])[0][0]
for future in asked:
    assert future.result().tobytes() == y.tobytes()
assert long.result().shape == (256,)
batcher.close()
found = batcher.stats()
print(found["done"], found["cancelled"], found["waiting"], "seqrs-batcher" in pool_threads())
"""


def test_where_no_thread_can_be_had_threads_that_wait_do_the_work() -> None:
    pytest.importorskip("resource", reason="this system has no limits")
    found = python(WITHOUT_THREADS, timeout=30)
    assert (found.returncode, found.stderr) == (0, "")
    told, counts = found.stdout.splitlines()
    assert told == "batcher: expected a thread of the system, got none"
    assert counts == "4 1 0 False"


ENDS: dict[str, str] = {
    "threads that wait and one that computes": """
for x in [LONG, SMALL, SMALL]:
    threading.Thread(target=quietly, args=(x,), daemon=True).start()
    time.sleep(0.05)
""",
    "its own thread computes": """
loop = asyncio.new_event_loop()
tasks = [loop.create_task(batcher.predict_async(x)) for x in (LONG, SMALL)]
loop.run_until_complete(asyncio.sleep(0.1))
assert batcher.stats()["running"] == 1, batcher.stats()
for task in tasks:
    task._log_destroy_pending = False
""",
    "threads that go on": """
def forever():
    while True:
        quietly(SMALL)
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.1)
""",
    "threads that are waited for": """
threading.Thread(target=batcher.predict, args=(LONG[:30_000],)).start()
threading.Thread(target=batcher.predict, args=(SMALL,)).start()
""",
    "a child": """
import os
asyncio.run(batcher.predict_async(SMALL))
pid = os.fork()
asyncio.run(batcher.predict_async(SMALL))
if pid:
    assert os.waitpid(pid, 0)[1] == 0
""",
}


@pytest.mark.parametrize("name", ENDS)
def test_the_interpreter_ends(name: str) -> None:
    """Also while a batcher is busy: soon, quietly and well."""
    code = """
import asyncio, atexit, os, sys, threading, time, warnings
def tell():                     # comes after what seqrs does at the end
    found = batcher.stats()
    print(batcher.closed, found["waiting"], found["running"])
atexit.register(tell)
import numpy as np, seqrs
warnings.simplefilter("ignore")
batcher = seqrs.Batcher(seqrs.Sequential([seqrs.LSTM(1, 256), seqrs.Last()], seed=0))
LONG, SMALL = np.zeros((600_000, 1), np.float32), np.ones((3, 1), np.float32)
def quietly(x):
    try:
        batcher.predict(x)
    except seqrs.StateError:
        pass
"""
    start = time.perf_counter()
    found = python(code + ENDS[name], timeout=30)
    took = time.perf_counter() - start
    assert (found.returncode, found.stderr) == (0, "")
    assert set(found.stdout.splitlines()) == {"True 0 0"}
    assert took < 8
