"""Pools of streams: each stream has the bits that it has alone, and no handle reaches another's."""

from __future__ import annotations

import copy
import os
import pickle
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import Array, character_model, in_child, numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_same_bits

I = 5  # noqa: E741 (the letters of the design)


def model_of(dtype: str = "float32") -> seqrs.Sequential:
    layers = [
        seqrs.LSTM(I, 9, 2, proj_size=4, dtype=dtype),
        seqrs.LayerNorm(4, dtype=dtype),
        seqrs.GRU(4, 7, dtype=dtype),
        seqrs.Linear(7, 3, dtype=dtype),
    ]
    return seqrs.Sequential(layers, seed=2)


MODELS = {dtype: model_of(dtype) for dtype in ("float32", "float64")}
#: Worth two threads from some dozens of streams on.
WIDE = seqrs.Sequential([seqrs.LSTM(I, 64, 2), seqrs.Linear(64, 3)], seed=3)


def x_of(seed: int, rows: int, dtype: str = "float32") -> Array:
    return numbers(np.random.default_rng(seed), (rows, I), dtype)


DEEDS = st.lists(
    st.one_of(
        st.just(("open",)),
        st.tuples(st.just("close"), st.integers(0, 7)),
        st.tuples(st.just("reset"), st.integers(0, 7)),
        st.tuples(st.just("move"), st.integers(0, 7)),
        st.tuples(st.just("step"), st.permutations(range(8)), st.integers(0, 8)),
        st.tuples(st.just("evict")),
    ),
    max_size=40,
)


class TestBits:
    @pytest.mark.parametrize("dtype", MODELS)
    @settings(max_examples=60, deadline=None)
    @given(deeds=DEEDS)
    def test_of_each_stream_alone(self, dtype: str, deeds: list[Any]) -> None:
        model = MODELS[dtype]
        # Evicted by hand, so that no clock has a say in it.
        left: list[seqrs.Stream] = []
        pool = seqrs.StreamPool(model, capacity=6)
        alone: dict[seqrs.Stream, Any] = {}
        gone: list[seqrs.Stream] = []
        for k, (deed, *arguments) in enumerate(deeds):
            streams = list(alone)
            at = arguments[0] if deed in ("close", "reset", "move") else 0
            if deed == "open" and len(alone) < 6:
                alone[pool.open()] = None
            elif deed == "open":
                with pytest.raises(seqrs.QueueFullError, match="fewer than 6 open streams"):
                    pool.open()
            elif deed == "step":
                order, count = arguments
                chosen = [streams[n] for n in order[:count] if n < len(streams)]
                x = x_of(k, len(chosen), dtype)
                y = pool.step(chosen, x)
                assert y.shape == (len(chosen), 3)
                for b, sid in enumerate(chosen):
                    own, alone[sid] = model.step(x[b : b + 1], alone[sid])
                    assert_same_bits(y[b : b + 1], own)
            elif deed == "evict":
                left.clear()
                assert pool._handle.evict_idle(0.0, left.append) == len(alone)
                assert sorted(map(str, left)) == sorted(map(str, alone))
                gone += left
                alone.clear()
            elif at < len(streams):
                sid = streams[at]
                if deed == "close":
                    pool.close(sid)
                    gone.append(sid)
                    del alone[sid]
                elif deed == "reset":
                    pool.reset(sid)
                    alone[sid] = None
                else:
                    blob = pool.export_state(sid)
                    pool.close(sid)
                    gone.append(sid)
                    alone[pool.import_state(blob)] = alone.pop(sid)
            assert len(pool) == len(alone)
        for sid in gone:
            with pytest.raises(seqrs.StateError, match="closed"):
                pool.step([sid], x_of(0, 1, dtype))

    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_of_many_streams_on_threads(self, threads: int) -> None:
        pool = seqrs.StreamPool(WIDE, capacity=1000)
        sids = [pool.open() for _ in range(1000)]
        with seqrs.num_threads(threads):
            first = pool.step(sids, x_of(1, 1000))
            second = pool.step(sids[::-1], x_of(2, 1000)[::-1])[::-1]
        y, state = WIDE.step(x_of(1, 1000))
        assert_same_bits(first, y)
        assert_same_bits(second, WIDE.step(x_of(2, 1000), state)[0])

    def test_of_ids(self) -> None:
        model = character_model()
        pool = seqrs.StreamPool(model, capacity=3)
        sids = [pool.open() for _ in range(3)]
        y = pool.step(sids, [4, 0, 10])
        assert_same_bits(y, model.step([4, 0, 10])[0])
        with pytest.raises(seqrs.ShapeError, match=r"x\[1\]"):
            pool.step(sids, [4, 11, 10])

    def test_of_a_layer(self) -> None:
        layer = seqrs.GRU(I, 4)
        pool = seqrs.StreamPool(layer, capacity=2)
        assert_same_bits(pool.step([pool.open()], x_of(1, 1)), layer.step(x_of(1, 1))[0])

    def test_of_a_model_without_a_state(self) -> None:
        model = seqrs.Sequential([seqrs.Linear(I, 2)])
        pool = seqrs.StreamPool(model, capacity=2)
        sid = pool.open()
        assert_same_bits(pool.step([sid], x_of(1, 1)), model.step(x_of(1, 1))[0])
        assert pool.import_state(pool.export_state(sid)) != sid

    def test_in_an_array_of_the_caller(self) -> None:
        pool = seqrs.StreamPool(MODELS["float32"])
        a, b = pool.open(), pool.open()
        out = np.empty((2, 3), np.float32)
        assert pool.step((b, a), x_of(1, 2), out=out) is out
        pool.reset(a)
        pool.reset(b)
        assert_same_bits(pool.step(np.array([b, a]), x_of(1, 2)), out)
        before = pool.export_state(a)
        for wrong in (np.empty((2, 4), np.float32), np.empty((2, 3)), [[0.0] * 3] * 2):
            with pytest.raises((seqrs.ShapeError, seqrs.DTypeError), match="out"):
                pool.step([a, b], x_of(1, 2), out=wrong)
        assert pool.export_state(a) == before

    def test_are_those_of_the_model_when_the_pool_was_made(self) -> None:
        model, other = model_of(), seqrs.Sequential(model_of().layers, seed=9)
        pool = seqrs.StreamPool(model)
        expected, _ = model.step(x_of(1, 1))
        model.load_state_dict(other.state_dict())
        assert_same_bits(pool.step([pool.open()], x_of(1, 1)), expected)

    def test_nan_stays_in_its_own_stream(self) -> None:
        pool = seqrs.StreamPool(WIDE)
        sids = [pool.open() for _ in range(300)]
        x = x_of(1, 300)
        x[7] = np.nan
        y = pool.step(sids, x)
        x[7] = 0.0
        expected, _ = WIDE.step(x)
        assert np.isnan(y[7]).all()
        for rows in (slice(0, 7), slice(8, None)):
            assert_same_bits(y[rows], expected[rows])


class TestHandles:
    def test_are_values(self) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=2)
        a, b = pool.open(), pool.open()
        assert (a == a, a == b, len({a, b})) == (True, False, 2)
        assert isinstance(a, seqrs.Stream)
        assert repr(a).startswith("<stream 0.0 of pool ")
        with pytest.raises(TypeError):
            pickle.dumps(a)
        with pytest.raises(TypeError):
            seqrs.Stream()

    @pytest.mark.parametrize("deed", ["step", "reset", "close", "export_state"])
    def test_that_are_not_good_are_refused(self, deed: str) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=3)
        foreign = seqrs.StreamPool(MODELS["float32"], capacity=3).open()
        stale, mine = pool.open(), pool.open()
        pool.close(stale)
        again = pool.open()
        saved = [pool.export_state(sid) for sid in (mine, again)]
        bad = [(stale, "closed"), (foreign, "another pool"), (3, "got 3"), (None, "got None")]
        for sid, words in bad:
            arguments = ([mine, sid], x_of(1, 2)) if deed == "step" else (sid,)
            with pytest.raises(seqrs.StateError, match=words):
                getattr(pool, deed)(*arguments)
        assert [pool.export_state(sid) for sid in (mine, again)] == saved
        assert len(pool) == 2

    def test_that_come_twice_are_refused(self) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=3)
        a, b = pool.open(), pool.open()
        before = pool.export_state(a)
        with pytest.raises(seqrs.StateError, match=r"sids\[2\]: .* got the one that is sids\[0\]"):
            pool.step([a, b, a], x_of(1, 3))
        assert pool.export_state(a) == before
        pool.step([a, b], x_of(1, 2))

    @pytest.mark.parametrize("kind", [list, tuple, deque, iter, dict.fromkeys, np.array])
    def test_in_any_sequence(self, kind: Any) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=9)
        sids = [pool.open() for _ in range(9)]
        x = x_of(1, 9)
        assert_same_bits(pool.step(kind(sids), x), MODELS["float32"].step(x)[0])
        with pytest.raises(seqrs.StateError, match=r"sids\[7\]: .* got 'wrong'"):
            pool.step(kind([*sids[:7], "wrong", sids[8]]), x)
        assert pool.stats()["stepping"] == 0

    @pytest.mark.parametrize("sids", [3, None, "ab", {"a": 1}])
    def test_what_holds_none(self, sids: Any) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=3)
        with pytest.raises((seqrs.DTypeError, seqrs.StateError), match="sids"):
            pool.step(sids, x_of(1, 2))
        with pytest.raises(seqrs.DTypeError, match="sequence of handles, got a Stream"):
            pool.step(pool.open(), x_of(1, 1))

    @pytest.mark.parametrize(
        ("x", "error"),
        [
            (np.zeros((1, I), np.float32), seqrs.ShapeError),
            (np.zeros((2, I + 1), np.float32), seqrs.ShapeError),
            (np.zeros((2, 1, I), np.float32), seqrs.ShapeError),
            (np.zeros((2, I), complex), seqrs.DTypeError),
            (["a", "b"], seqrs.DTypeError),
            (None, seqrs.DTypeError),
        ],
    )
    def test_inputs_that_do_not_fit_change_nothing(self, x: Any, error: type[Exception]) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=3)
        sids = [pool.open(), pool.open()]
        before = [pool.export_state(sid) for sid in sids]
        with pytest.raises(error):
            pool.step(sids, x)
        assert [pool.export_state(sid) for sid in sids] == before
        pool.step(sids, x_of(1, 2))

    def test_a_million_that_are_opened(self) -> None:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=1000)
        opened = refused = 0
        for k in range(1_000_000):
            try:
                sid = pool.open()
                opened += 1
            except seqrs.QueueFullError:
                refused += 1
                if k > 20_000:
                    break
        assert (opened, len(pool)) == (1000, 1000)
        pool.step([sid], x_of(1, 1))
        for _ in range(20_000):
            pool.close(sid)
            sid = pool.open()
        assert len(pool) == 1000


class TestEviction:
    def test_of_what_is_idle(self) -> None:
        left: list[seqrs.Stream] = []
        pool = seqrs.StreamPool(WIDE, capacity=3, idle_ttl=0.05, on_evict=left.append)
        a, b = pool.open(), pool.open()
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            pool.step([b], x_of(1, 1))
        assert left == [a]
        with pytest.raises(seqrs.StateError, match="closed"):
            pool.step([a], x_of(1, 1))
        assert len(pool) == 1
        time.sleep(0.1)
        with pytest.raises(seqrs.StateError):
            pool.step([b], x_of(1, 1))
        assert left == [a, b]
        assert (pool.stats()["evicted"], len(pool)) == (2, 0)

    def test_makes_room(self) -> None:
        pool = seqrs.StreamPool(WIDE, capacity=2, idle_ttl=0.05)
        pool.open()
        pool.open()
        with pytest.raises(seqrs.QueueFullError):
            pool.open()
        time.sleep(0.1)
        pool.open()

    def test_lets_the_state_be_saved(self) -> None:
        saved: dict[seqrs.Stream, bytes] = {}

        def save(sid: seqrs.Stream) -> None:
            saved[sid] = pool.export_state(sid)
            for deed in (pool.close, pool.reset, lambda sid: pool.step([sid], x_of(1, 1))):
                with pytest.raises(seqrs.StateError, match="being evicted"):
                    deed(sid)

        pool = seqrs.StreamPool(WIDE, capacity=2, idle_ttl=0.05, on_evict=save)
        sid = pool.open()
        pool.step([sid], x_of(1, 1))
        _, state = WIDE.step(x_of(1, 1))
        time.sleep(0.1)
        again = pool.import_state((len(pool), saved[sid])[1])
        assert_same_bits(pool.step([again], x_of(2, 1)), WIDE.step(x_of(2, 1), state)[0])

    def test_goes_on_when_who_is_told_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reported: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", reported.append)

        def fail(sid: seqrs.Stream) -> None:
            raise RuntimeError("as this test wants it")

        pool = seqrs.StreamPool(WIDE, capacity=3, idle_ttl=0.05, on_evict=fail)
        pool.open()
        pool.open()
        time.sleep(0.1)
        sid = pool.open()
        assert len(pool) == 1
        assert [str(each.exc_value) for each in reported] == ["as this test wants it"] * 2
        pool.step([sid], x_of(1, 1))

    def test_passes_ctrl_c_on(self) -> None:
        def interrupt(sid: seqrs.Stream) -> None:
            raise KeyboardInterrupt

        pool = seqrs.StreamPool(WIDE, capacity=3, idle_ttl=0.05, on_evict=interrupt)
        pool.open()
        pool.open()
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            pool.open()
        assert len(pool) == 0

    def test_may_use_the_pool(self) -> None:
        pool: seqrs.StreamPool

        def replace(sid: seqrs.Stream) -> None:
            pool.open()

        pool = seqrs.StreamPool(WIDE, capacity=4, idle_ttl=0.05, on_evict=replace)
        pool.open()
        pool.open()
        time.sleep(0.1)
        assert len(pool) == 2

    @pytest.mark.parametrize("idle_ttl", [0, -1.0, float("nan"), float("inf")])
    def test_after_no_time_is_refused(self, idle_ttl: float) -> None:
        with pytest.raises(ValueError, match="idle_ttl"):
            seqrs.StreamPool(WIDE, idle_ttl=idle_ttl)

    def test_by_what_is_no_function_is_refused(self) -> None:
        with pytest.raises(TypeError, match="on_evict"):
            seqrs.StreamPool(WIDE, on_evict=3)  # type: ignore[arg-type]


class TestStates:
    def exported(self) -> tuple[seqrs.StreamPool, bytes]:
        pool = seqrs.StreamPool(MODELS["float32"], capacity=4)
        sid = pool.open()
        pool.step([sid], x_of(1, 1))
        return pool, pool.export_state(sid)

    def test_go_on_in_another_process(self) -> None:
        pool, blob = self.exported()

        def go_on() -> bytes:
            other = seqrs.StreamPool(model_of(), capacity=1)
            return other.step([other.import_state(blob)], x_of(2, 1)).tobytes()

        assert in_child(go_on) == pool.step([pool.import_state(blob)], x_of(2, 1)).tobytes()

    def test_name_the_model(self) -> None:
        _, blob = self.exported()
        assert struct.unpack_from("<Q", blob, 16)[0] == int(MODELS["float32"].fingerprint, 16)
        others = [seqrs.Sequential(model_of().layers, seed=9), MODELS["float64"], WIDE]
        for other in others:
            with pytest.raises(seqrs.StateError, match=r"state: (fingerprint|dtype)"):
                seqrs.StreamPool(other).import_state(blob)

    def test_that_are_damaged_are_refused(self) -> None:
        pool, blob = self.exported()
        open_before = len(pool)
        damaged = [blob[:n] for n in range(len(blob))] + [blob + b"\0", b"", b"seqrs.st" * 100]
        for byte in range(len(blob)):
            damaged.append(blob[:byte] + bytes([blob[byte] ^ 0x40]) + blob[byte + 1 :])
        for each in damaged:
            with pytest.raises(seqrs.StateError, match="state: "):
                pool.import_state(each)
        assert len(pool) == open_before

    @pytest.mark.parametrize("blob", [None, "text", 3, [1, 2]])
    def test_that_are_no_bytes_are_refused(self, blob: Any) -> None:
        pool, _ = self.exported()
        with pytest.raises(TypeError, match="blob: expected bytes"):
            pool.import_state(blob)

    def test_with_nan_are_refused_unless_allowed(self) -> None:
        pool, _ = self.exported()
        sid = pool.open()
        pool.step([sid], np.full((1, I), np.nan))
        blob = pool.export_state(sid)
        with pytest.raises(seqrs.StateError, match="number 0: expected a finite number, got NaN"):
            pool.import_state(blob)
        again = pool.import_state(bytearray(blob), allow_nonfinite=True)
        assert pool.export_state(again) == blob


class TestThreads:
    def test_that_step_different_streams(self) -> None:
        pool = seqrs.StreamPool(WIDE, capacity=64)
        failures: list[BaseException] = []

        def run(k: int) -> None:
            try:
                sids = [pool.open() for _ in range(8)]
                state: Any = None
                for t in range(50):
                    x = x_of(100 * k + t, 8)
                    y = pool.step(sids, x)
                    own, state = WIDE.step(x, state)
                    assert_same_bits(y, own)
                for sid in sids:
                    pool.close(sid)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(pool) == 0

    def test_that_step_one_stream_never_do_it_at_once(self) -> None:
        """Of all steps that are done, each moves the stream on by one; the others raise."""
        pool = seqrs.StreamPool(WIDE, capacity=400)
        sids = [pool.open() for _ in range(400)]
        x = x_of(1, 400)
        refused: list[str] = []

        def run() -> None:
            for _ in range(60):
                try:
                    pool.step(sids, x)
                except seqrs.StateError as error:
                    refused.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = pool.stats()["steps"]
        assert done + len(refused) == 240
        assert refused
        assert all("being stepped" in words for words in refused)
        state: Any = None
        for _ in range(done):
            _, state = WIDE.step(x, state)
        assert_same_bits(pool.step(sids, x), WIDE.step(x, state)[0])


LARGE = seqrs.Sequential([seqrs.LSTM(I, 512, 3)], seed=1)


def test_other_threads_go_on_during_a_step() -> None:
    pool = seqrs.StreamPool(LARGE, capacity=2000)
    sids = [pool.open() for _ in range(2000)]
    stepping = threading.Thread(target=pool.step, args=(sids, x_of(1, 2000)))
    turns = 0
    with seqrs.num_threads(1):
        stepping.start()
        while stepping.is_alive():
            time.sleep(0.001)
            turns += 1
    # It takes some hundred milliseconds.
    assert turns > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestFork:
    def test_a_child_has_the_streams_as_they_were(self) -> None:
        pool = seqrs.StreamPool(WIDE, capacity=300)
        sids = [pool.open() for _ in range(300)]
        pool.step(sids, x_of(1, 300))

        def step() -> bytes:
            return pool.step(sids, x_of(2, 300)).tobytes()

        assert in_child(step) == step()

    def test_while_another_thread_steps(self) -> None:
        pool = seqrs.StreamPool(LARGE, capacity=200)
        sids = [pool.open() for _ in range(200)]
        x = x_of(1, 200)
        expected, state = LARGE.step(x)
        after, _ = LARGE.step(x, state)
        for _ in range(3):
            for sid in sids:
                pool.reset(sid)
            stepping = threading.Thread(target=pool.step, args=(sids, x))
            stepping.start()
            while pool.stats()["stepping"] == 0 and stepping.is_alive():
                time.sleep(0.0005)

            def step() -> bytes:
                return pool.step(sids, x).tobytes()

            # The thread has finished its step before the fork, or not at all.
            assert in_child(step) in (expected.tobytes(), after.tobytes())
            stepping.join()
            assert_same_bits(pool.step(sids, x), after)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_ctrl_c_leaves_all_streams_as_they_were() -> None:
    import signal

    pool = seqrs.StreamPool(LARGE, capacity=4000)
    sids = [pool.open() for _ in range(4000)]
    # All streams do the same, so that they are equal as long as no step is done for some of them.
    x = np.ones((4000, I), np.float32)

    def step() -> None:
        start = time.monotonic()
        while time.monotonic() < start + 10:
            pool.step(sids, x)

    with seqrs.num_threads(1):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            step()
        timer.join()
    assert len({pool.export_state(sid) for sid in sids[::7]}) == 1
    stats = pool.stats()
    assert (stats["stepping"], stats["failed_steps"]) == (0, 1)
    pool.step(sids[:3], x[:3])


class TestPools:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: seqrs.LSTM(3, 4, bidirectional=True),
            lambda: seqrs.Sequential([seqrs.LSTM(3, 4), seqrs.MeanPool()]),
            lambda: seqrs.Sequential([seqrs.GRU(3, 4), seqrs.MaxPool(), seqrs.Linear(4, 2)]),
        ],
        ids=["bidirectional", "mean", "max"],
    )
    def test_of_what_needs_the_whole_sequence_are_refused(self, make: Callable[[], Any]) -> None:
        with pytest.raises(seqrs.StateError, match="layer"):
            seqrs.StreamPool(make())

    def test_compute_on_the_cpu(self, device: str) -> None:
        model = model_of().to(device)
        if device == "cpu":
            assert len(seqrs.StreamPool(model)) == 0
            return
        with pytest.raises(seqrs.StateError, match="device of the model: expected cpu, got gpu:0"):
            seqrs.StreamPool(model)

    @pytest.mark.parametrize("capacity", [0, -1, 2**32, 1.5, "3", None, True])
    def test_of_no_size_are_refused(self, capacity: Any) -> None:
        with pytest.raises((seqrs.ShapeError, TypeError), match="capacity"):
            seqrs.StreamPool(WIDE, capacity=capacity)

    @pytest.mark.parametrize("model", [None, 3, "model", seqrs.LSTM])
    def test_of_no_model_are_refused(self, model: Any) -> None:
        with pytest.raises(
            TypeError, match="model: expected a Sequential, quantised or not, or a layer"
        ):
            seqrs.StreamPool(model)

    def test_do_not_pickle_or_copy(self) -> None:
        pool = seqrs.StreamPool(WIDE)
        for deed in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                deed(pool)

    def test_say_what_they_are(self) -> None:
        pool = seqrs.StreamPool(seqrs.GRU(2, 3), capacity=7)
        assert repr(pool).endswith("0 of 7 open)")
        assert bool(pool)
        assert len(pool) == 0

    def test_take_the_memory_that_the_formula_says(self) -> None:
        pool = seqrs.StreamPool(WIDE, capacity=100)
        numbers = 2 * 64 + 2 * 64
        assert pool.stats()["bytes"] == 100 * (2 * numbers * 4 + 48)

    def test_take_no_more_however_long_they_are_used(self) -> None:
        from allocated import allocated, mallinfo2

        if mallinfo2 is None:
            pytest.skip("this system does not tell what is allocated")
        pool = seqrs.StreamPool(WIDE, capacity=200)
        with seqrs.num_threads(1):

            def use() -> None:
                for k in range(200):
                    sids = [pool.open() for _ in range(k % 7)]
                    pool.step(sids, x_of(k, len(sids)))
                    for sid in sids:
                        pool.close(sid)

            use()
            before = allocated()
            use()
            use()
            assert allocated() - before < 64 << 10

    def test_count_what_they_do(self) -> None:
        pool = seqrs.StreamPool(WIDE, capacity=3)
        sids = [pool.open() for _ in range(3)]
        pool.step(sids, x_of(1, 3))
        pool.step(sids[:1], x_of(1, 1))
        with pytest.raises(seqrs.QueueFullError):
            pool.open()
        pool.close(sids[2])
        stats = pool.stats()
        seconds = stats.pop("seconds")
        assert 0 < seconds < 1
        assert sum(stats.pop("microseconds").values()) == 2
        assert stats == {
            "open": 2,
            "capacity": 3,
            "stepping": 0,
            "opened": 3,
            "closed": 1,
            "evicted": 0,
            "refused": 1,
            "steps": 2,
            "failed_steps": 0,
            "stream_steps": 4,
            "batch_sizes": {1: 1, 4: 1},
            "bytes": 3 * (2 * 256 * 4 + 48),
        }
