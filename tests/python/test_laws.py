"""The laws: what the package promises whatever the numbers are."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import CPU, PLACES
from cases import (
    CELLS,
    DTYPES,
    HERE,
    LIVE,
    Array,
    B,
    Given,
    T,
    assert_same,
    assert_same_state,
    character_model,
    everything,
    flat,
    id_batches,
    like,
    live_for,
    live_steps,
    make,
    parts,
    python,
    row_of,
)
from tolerances import assert_close, assert_same_bits

STRUCTURES: dict[str, dict[str, Any]] = {
    "one": {},
    "time-first": {"batch_first": False},
    "two-layers-bidirectional": {"num_layers": 2, "bidirectional": True},
}


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=STRUCTURES)
def structure(request: pytest.FixtureRequest) -> dict[str, Any]:
    return STRUCTURES[request.param]


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _threads_are_put_back() -> Iterator[None]:
    before = seqrs.get_num_threads()
    yield
    seqrs.set_num_threads(before)


class TestLengths:
    @pytest.mark.parametrize("live", [live for live in LIVE if live != "all-live"])
    def test_steps_that_are_not_live_are_plus_zero(
        self, cell: str, structure: dict[str, Any], live: str, device: str
    ) -> None:
        layer = make(cell, device=device, **structure)
        options = live_for(layer, live)
        found = everything(layer, Given(layer), **options)
        dead = ~live_steps(layer, options)
        for name in ("y", "d_x"):
            assert not found[name][dead].any(), name
            assert not np.signbit(found[name][dead]).any(), name

    @pytest.mark.parametrize("live", [live for live in LIVE if live != "all-live"])
    def test_the_content_of_padding_has_no_influence(
        self, cell: str, structure: dict[str, Any], live: str, device: str
    ) -> None:
        layer = make(cell, device=device, **structure)
        options = live_for(layer, live)
        dead = ~live_steps(layer, options)
        expected = everything(layer, Given(layer), **options)
        for poison in (np.nan, np.inf, -np.inf, 1e38):
            poisoned = Given(layer)
            poisoned.x[dead] = poison
            poisoned.dy[dead] = poison
            assert_same(everything(layer, poisoned, **options), expected)

    def test_ids_of_padding_have_no_influence(self, device: str) -> None:
        model = character_model(device=device)
        ids = np.ones((2, 5), np.int64)
        expected, _ = model(ids, lengths=[2, 5])
        for outside in (-1, 10**9, np.iinfo(np.int64).min):
            ids[0, 2:] = outside
            assert_same_bits(model(ids, lengths=[2, 5])[0], expected)

    def test_padding_has_no_influence_on_training(self, device: str) -> None:
        runs = []
        for poison in (0.0, np.nan):
            model = seqrs.Sequential([seqrs.LSTM(3, 4), seqrs.Linear(4, 2)], seed=0).to(device)
            trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.Adam(lr=0.1))
            x, y = np.ones((2, 4, 3)), np.ones((2, 4, 2))
            x[0, 1:], y[0, 1:] = poison, poison
            result = trainer.step(x, y, lengths=[1, 4])
            runs.append({**model.state_dict(), "loss": np.array([result.loss, result.grad_norm])})
        assert_same(runs[1], runs[0])

    def test_length_zero_leaves_the_initial_state(self, cell: str, device: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True, device=device)
        given = Given(layer)
        y, final, tape = layer.forward(given.x, given.state, lengths=[1, 0, 2, 0])
        gradients = layer.backward(tape, given.dy, given.dstate)
        for b in (1, 3):
            assert_same_state(row_of(final, b), row_of(given.state, b))
            assert_same_state(row_of(gradients.state, b), row_of(given.dstate, b))
            assert not y[b].any()
            assert not gradients.x[b].any()

    def test_the_state_stays_after_a_rows_last_step(self, cell: str, device: str) -> None:
        layer = make(cell, device=device)
        given = Given(layer)
        _, final = layer(given.x, given.state, lengths=[2, 2, 2, 2])
        _, cut = layer(given.x[:, :2], given.state)
        assert_same_state(final, cut)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize(("batch", "steps"), [(0, T), (B, 0), (0, 0)])
    def test_nothing_to_do(
        self, cell: str, dtype: str, device: str, batch: int, steps: int
    ) -> None:
        layer = make(cell, dtype, num_layers=2, bidirectional=True, device=device)
        given = Given(layer, batch, steps)
        for live in ({}, {"lengths": [0] * batch}, {"mask": np.zeros((batch, steps), bool)}):
            y, final, tape = layer.forward(given.x, given.state, **live)
            assert y.shape == (batch, steps, layer.output_size)
            gradients = layer.backward(tape, given.dy, given.dstate)
            assert gradients.x.shape == given.x.shape
            assert_same_state(final, given.state)
            assert_same_state(gradients.state, given.dstate)
            assert not any(d.any() for d in gradients.params.values())

    def test_a_model_without_rows_or_steps(self, device: str) -> None:
        model = character_model(device=device)
        for batch, steps in ((0, 5), (3, 0), (0, 0)):
            y, state = model(np.zeros((batch, steps), np.int64))
            assert y.shape == (batch, steps, 11)
            assert_same_state(state, model.initial_state(batch))
        y, _ = model.step(np.zeros(0, np.int64))
        assert y.shape == (0, 11)

    def test_each_row_is_reversed_inside_its_own_length(self, cell: str, device: str) -> None:
        both, one = make(cell, bidirectional=True, device=device), make(cell, device=device)
        weights = both.state_dict()
        one.load_state_dict({name: weights[f"{name}_reverse"] for name in one.state_dict()})
        given, lengths = Given(both), [2, T, 1, 0]
        y, final = both(given.x, given.state, lengths=lengths)
        half = both.output_size // 2
        for b, n in enumerate(lengths):
            row = like(given.state, [s[1:, b : b + 1] for s in parts(given.state)])
            y_b, final_b = one(given.x[b : b + 1, :n][:, ::-1], row)
            assert_same_bits(y[b : b + 1, :n, half:], y_b[:, ::-1])
            for got, alone in zip(parts(final), parts(final_b), strict=True):
                assert_same_bits(got[1:, b : b + 1], alone)


class TestMasks:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_lengths_and_a_prefix_mask_give_the_same_bits(
        self, cell: str, structure: dict[str, Any], dtype: str, device: str
    ) -> None:
        layer = make(cell, dtype, device=device, **structure)
        given, lengths = Given(layer), {"lengths": [2, T, 0, 3]}
        mask = {"mask": live_steps(layer, lengths)}
        assert_same(everything(layer, given, **mask), everything(layer, given, **lengths))

    def test_all_live_in_every_way_gives_the_same_bits(
        self, cell: str, structure: dict[str, Any], device: str
    ) -> None:
        layer = make(cell, device=device, **structure)
        given = Given(layer)
        expected = everything(layer, given)
        shape = (B, T) if layer.batch_first else (T, B)
        assert_same(everything(layer, given, lengths=[T] * B), expected)
        assert_same(everything(layer, given, mask=np.ones(shape, bool)), expected)

    def test_lengths_and_a_prefix_mask_train_alike(self, device: str) -> None:
        weights = []
        for live in ({"lengths": [1, 6, 0, 4]}, {"mask": np.arange(6) < [[1], [6], [0], [4]]}):
            model = character_model(dropout=0.3, num_layers=2, device=device)
            trainer = seqrs.Trainer(model, seed=1)
            for x, y in id_batches(3):
                trainer.step(x, y, **live)
            weights.append(model.state_dict())
        assert_same(weights[1], weights[0])

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_holes_are_as_if_the_steps_were_not_there(
        self, cell: str, dtype: str, device: str
    ) -> None:
        layer = make(cell, dtype, bidirectional=True, device=device)
        given, mask = Given(layer), LIVE["mask-with-holes"]["mask"]
        y, final = layer(given.x, given.state, mask=mask)
        for b in range(B):
            y_b, final_b = layer(given.x[b : b + 1, mask[b]], row_of(given.state, b))
            assert_same_bits(y[b : b + 1, mask[b]], y_b)
            assert_same_state(row_of(final, b), final_b)

    def test_left_padding_is_right_padding_moved(self, cell: str, device: str) -> None:
        layer = make(cell, bidirectional=True, device=device)
        given = Given(layer)
        left = np.arange(T) >= T - 3
        x = given.x.copy()
        x[:, T - 3 :] = given.x[:, :3]
        y, final = layer(x, given.state, mask=np.broadcast_to(left, (B, T)))
        y_r, final_r = layer(given.x, given.state, lengths=[3] * B)
        assert_same_bits(y[:, T - 3 :], y_r[:, :3])
        assert_same_state(final, final_r)


class TestRowIndependence:
    """y, states, d_x and d_state of a row; gradients of parameters sum over rows."""

    NAMES = ("y", "h", "c", "d_x", "d_h0", "d_c0")

    def rows_of(self, found: dict[str, Array], b: int, steps: int) -> dict[str, Array]:
        cut = {"y", "d_x"}
        return {
            name: array[b, :steps] if name in cut else array[:, b]
            for name, array in found.items()
            if name in self.NAMES
        }

    def subset(self, given: Given, rows: list[int], steps: int, padding: float) -> Given:
        chosen = object.__new__(Given)
        for name in ("x", "dy"):
            array = getattr(given, name)[rows]
            wide = np.full((len(rows), steps, array.shape[2]), padding, array.dtype)
            wide[:, : min(steps, array.shape[1])] = array[:, :steps]
            setattr(chosen, name, wide)
        for name in ("state", "dstate"):
            arrays = [np.ascontiguousarray(s[:, rows]) for s in parts(getattr(given, name))]
            setattr(chosen, name, like(getattr(given, name), arrays))
        return chosen

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("hidden", [7, 32, 50])
    def test_alone_in_any_batch_at_any_place_with_any_padding(
        self, cell: str, dtype: str, device: str, hidden: int
    ) -> None:
        batch, steps = 19, 6
        layer = make(cell, dtype, 5, hidden, num_layers=2, bidirectional=True, device=device)
        given = Given(layer, batch, steps)
        lengths = np.arange(batch) * 5 % (steps + 1)
        whole = everything(layer, given, lengths=lengths)
        random = np.random.default_rng(0)
        # Of software a GPU is slow: there fewer rows, and padding for all.
        chosen = [[b] for b in range(0, batch, 1 if device == CPU else 9)]
        chosen += [list(random.permutation(batch)), [3, 3, 3], list(range(0, batch, 2))]
        for rows in chosen:
            longest = int(lengths[rows].max())
            for width in (longest, longest + 3) if device == CPU else (longest + 3,):
                part = self.subset(given, rows, width, np.nan)
                found = everything(layer, part, lengths=lengths[rows])
                for place, b in enumerate(rows):
                    n = int(lengths[b])
                    assert_same(self.rows_of(found, place, n), self.rows_of(whole, b, n))

    def test_nan_in_one_row_never_reaches_another(self, cell: str, device: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True, device=device)
        given, poisoned = Given(layer), Given(layer)
        poisoned.x[1] = np.nan
        expected, got = everything(layer, given), everything(layer, poisoned)
        for b in (0, 2, 3):
            assert_same(self.rows_of(got, b, T), self.rows_of(expected, b, T))
        assert np.isnan(got["y"][1]).all()

    def test_in_a_model_of_every_layer(self, device: str) -> None:
        layers = [
            seqrs.Embedding(20, 9),
            seqrs.LSTM(9, 17, bidirectional=True),
            seqrs.LayerNorm(34),
            seqrs.Activation("softmax"),
            seqrs.MeanPool(),
            seqrs.Linear(34, 5),
        ]
        model = seqrs.Sequential(layers, seed=0).to(device)
        ids = np.random.default_rng(0).integers(0, 20, (13, 8))
        lengths = np.arange(13) % 9
        whole, _ = model(ids, lengths=lengths)
        for b, n in enumerate(lengths):
            alone, _ = model(ids[b : b + 1, :n], lengths=[n])
            assert_same_bits(alone[0], whole[b])


class TestStepIsSequence:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
    def test_steps_make_the_sequence(
        self, cell: str, dtype: str, device: str, batch_first: bool
    ) -> None:
        layer = make(cell, dtype, num_layers=2, batch_first=batch_first, device=device)
        given = Given(layer)
        y, final = layer(given.x, given.state)
        state, time_axis = given.state, 1 if batch_first else 0
        for t in range(T):
            y_t, state = layer.step(given.x.take(t, axis=time_axis), state)
            assert_same_bits(y_t, y.take(t, axis=time_axis), f"y_t, step {t}")
        assert_same_state(state, final)

    @pytest.mark.parametrize("hidden", [8, 33, 100])
    @pytest.mark.parametrize("batch", [1, 2, 9])
    def test_any_chunks_make_the_sequence(
        self, cell: str, batch: int, hidden: int, device: str
    ) -> None:
        steps = 12
        layer = make(cell, "float32", 6, hidden, num_layers=2, device=device)
        given = Given(layer, batch, steps)
        lengths = np.arange(batch) * 5 % (steps + 1) if batch > 1 else np.array([steps])
        y, final = layer(given.x, given.state, lengths=lengths)
        every_cut = ([4, 4, 8], [1, 2, 3, 11], [], [1], [5])
        for cuts in every_cut if device == CPU else every_cut[:2]:
            state, pieces = given.state, []
            for a, b in zip([0, *cuts], [*cuts, steps], strict=True):
                piece, state = layer(given.x[:, a:b], state, lengths=np.clip(lengths - a, 0, b - a))
                pieces.append(piece)
            assert_same_bits(np.concatenate(pieces, axis=1), y)
            assert_same_state(state, final)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_forward_with_a_tape_is_inference(self, cell: str, dtype: str, device: str) -> None:
        layer = make(cell, dtype, 9, 40, num_layers=2, device=device)
        given = Given(layer, 5, 7)
        y, final = layer(given.x, given.state)
        y_f, final_f, _ = layer.forward(given.x, given.state)
        assert_same_bits(y_f, y)
        assert_same_state(final_f, final)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_steps_of_a_model(self, dtype: str, device: str) -> None:
        layers = [
            seqrs.Embedding(20, 9, dtype=dtype),
            seqrs.LSTM(9, 17, 2, proj_size=5, dtype=dtype),
            seqrs.LayerNorm(5, dtype=dtype),
            seqrs.GRU(5, 11, dtype=dtype),
            seqrs.Activation("tanh"),
            seqrs.Dropout(0.5),
            seqrs.Linear(11, 20, dtype=dtype),
            seqrs.Activation("softmax"),
        ]
        model = seqrs.Sequential(layers, seed=0).to(device)
        ids = np.random.default_rng(0).integers(0, 20, (3, 8))
        y, final = model(ids)
        state: Any = None
        for t in range(8):
            y_t, state = model.step(ids[:, t], state)
            assert_same_bits(y_t, y[:, t])
        assert_same_state(state, final)


def with_threads(n: int, job: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    with seqrs.num_threads(n):
        assert seqrs.get_num_threads() == n
        return job()


class TestThreads:
    """Shapes with enough work for the pool to be used."""

    @pytest.mark.parametrize("what", ["layer(given.x)", "layer.backward(tape, given.dy)"])
    def test_the_pool_is_used(self, what: str) -> None:
        """Without it the others would compare one thread with itself."""
        code = f"""
import seqrs
from cases import Given, make, pool_threads
seqrs.set_num_threads(1)
layer = make("lstm", "float32", 48, 96, num_layers=2)
given = Given(layer, 64, 6)
_, _, tape = layer.forward(given.x)
print(bool(pool_threads()))
seqrs.set_num_threads(3)
{what}
print(bool(pool_threads()))
"""
        found = python(code)
        assert found.stdout.split() == ["False", "True"], found.stderr

    def test_the_pool_is_used_in_training(self) -> None:
        code = """
import seqrs
from cases import pool_threads
from digests import trained
seqrs.set_num_threads(1)
trained("float32")
print(bool(pool_threads()))
seqrs.set_num_threads(3)
trained("float32")
print(bool(pool_threads()))
"""
        found = python(code)
        assert found.stdout.split() == ["False", "True"], found.stderr

    def test_one_thread_is_the_callers(self) -> None:
        code = """
import seqrs
from cases import Given, everything, make, pool_threads
seqrs.set_num_threads(1)
layer = make("lstm", "float32", 48, 96, num_layers=2, bidirectional=True)
everything(layer, Given(layer, 64, 6))
print(pool_threads())
"""
        found = python(code)
        assert found.stdout.strip() == "[]", found.stderr

    @pytest.mark.parametrize("batch", [1, 5, 64])
    def test_forward_and_backward(self, cell: str, dtype: str, batch: int) -> None:
        layer = make(cell, dtype, 48, 96, num_layers=2, bidirectional=True)
        given = Given(layer, batch, 6)
        lengths = 6 - np.arange(batch) % 4
        expected = with_threads(1, lambda: everything(layer, given, lengths=lengths))
        for n in (2, 3):
            assert_same(
                with_threads(n, lambda: everything(layer, given, lengths=lengths)), expected
            )

    def test_training(self, dtype: str) -> None:
        from digests import trained

        expected = with_threads(1, lambda: trained(dtype))
        for n in (2, 3):
            assert_same(with_threads(n, lambda: trained(dtype)), expected)

    def test_everything_in_other_processes(self, tmp_path: Path) -> None:
        one, three = (
            digest(tmp_path, f"threads-{n}", {"SEQRS_NUM_THREADS": str(n)}) for n in (1, 3)
        )
        assert_same(three, one)

    def test_num_threads_puts_the_number_back(self) -> None:
        seqrs.set_num_threads(2)
        with seqrs.num_threads(3):
            assert seqrs.get_num_threads() == 3
        assert seqrs.get_num_threads() == 2
        broken = seqrs.num_threads(3)
        broken.__enter__()
        assert not broken.__exit__(KeyError, KeyError("inside"), None)
        assert seqrs.get_num_threads() == 2
        assert seqrs.info()["threads"] == 2


class TestThreadCount:
    ASK = "import seqrs; print(seqrs.get_num_threads())"
    UNSET: ClassVar[dict[str, str | None]] = {"OMP_NUM_THREADS": None, "SEQRS_NUM_THREADS": None}

    def ask(self, before: str = "", **env: str) -> str:
        found = python(before + self.ASK, env={**self.UNSET, **env})
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    def test_follows_affinity_and_cgroup(self) -> None:
        allowed = sorted(os.sched_getaffinity(0))
        # Read from the cgroup's files by the package's Python, not by what counts the threads.
        limit = int(seqrs.info()["cgroup_limit"] or len(allowed))
        for count in range(1, min(len(allowed), 4) + 1):
            before = f"import os; os.sched_setaffinity(0, {allowed[:count]}); "
            assert self.ask(before) == str(max(1, min(count, limit)))
        assert self.ask() == str(max(1, min(len(allowed), limit)))

    def test_a_forked_child_follows_its_own_affinity(self) -> None:
        one = min(os.sched_getaffinity(0))
        before = f"""
import os, seqrs
seqrs.get_num_threads()
pid = os.fork()
if pid:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.sched_setaffinity(0, [{one}])
"""
        assert self.ask(before) == "1"

    def test_each_setting_is_above_the_one_before(self) -> None:
        assert self.ask(OMP_NUM_THREADS="3") == "3"
        assert self.ask(OMP_NUM_THREADS="3", SEQRS_NUM_THREADS="5") == "5"
        asked = "import seqrs; seqrs.set_num_threads(4); "
        assert self.ask(asked, OMP_NUM_THREADS="3", SEQRS_NUM_THREADS="5") == "4"

    @pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "", " ", "99999999999999999999"])
    def test_a_malformed_number_is_an_error_that_names_it(self, value: str) -> None:
        code = """
import seqrs                                       # at first use, not here
try:
    seqrs.get_num_threads()
except ValueError as error:
    print("refused", error)
"""
        found = python(code, env={"SEQRS_NUM_THREADS": value})
        assert found.stdout.startswith("refused"), found.stderr
        assert "SEQRS_NUM_THREADS" in found.stdout

    def test_a_computation_refuses_a_malformed_number_too(self) -> None:
        code = """
import seqrs
layer = seqrs.LSTM(2, 3)
try:
    layer([[[1.0, 2.0]]])
except ValueError as error:
    print("refused", error)
"""
        found = python(code, env={"SEQRS_NUM_THREADS": "many"})
        assert found.stdout.startswith("refused"), (found.stdout, found.stderr)
        assert "SEQRS_NUM_THREADS" in found.stdout


def digest(folder: Path, name: str, env: dict[str, str]) -> dict[str, Array]:
    """What `digests.py` computes in a process of its own."""
    path = folder / f"{name}.npz"
    done = subprocess.run(
        [sys.executable, str(HERE / "digests.py"), str(path)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as found:
        return dict(found)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Array]]:
    folder = tmp_path_factory.mktemp("levels")
    return {
        level: digest(folder, level, {"SEQRS_LEVEL": level}) for level in seqrs.info()["levels"]
    }


class TestInstructionSets:
    def test_vector_levels_give_the_same_bits(self, levels: dict[str, dict[str, Array]]) -> None:
        vector = [level for level in levels if level != "scalar"]
        if len(vector) < 2:
            pytest.skip(f"this processor has {', '.join(levels)}: nothing to compare")
        for level in vector[1:]:
            assert_same(levels[level], levels[vector[0]])

    def test_the_scalar_level_is_close(self, levels: dict[str, dict[str, Array]]) -> None:
        vector = [level for level in levels if level != "scalar"]
        if not vector:
            pytest.skip("this processor has the scalar level alone: nothing to compare")
        tolerance = {
            "float32": tolerances.SCALAR_TO_VECTOR_F32,
            "float64": tolerances.SCALAR_TO_VECTOR_F64,
        }
        for name, array in levels[vector[0]].items():
            if "trained/" in name:
                continue
            assert_close(levels["scalar"][name], array, tolerance[name.split("/")[0]], name)

    def test_scalar_trains_as_well(self, levels: dict[str, dict[str, Array]]) -> None:
        vector = [level for level in levels if level != "scalar"]
        if not vector:
            pytest.skip("this processor has the scalar level alone: nothing to compare")
        for dtype in DTYPES:
            name = f"{dtype}/trained/losses"
            assert_close(
                levels["scalar"][name], levels[vector[0]][name], tolerances.TRAINING_TO_PYTORCH
            )

    def test_the_level_in_use_is_told(self) -> None:
        for level in seqrs.info()["levels"]:
            code = "import seqrs; print(seqrs.info()['level'])"
            found = python(code, env={"SEQRS_LEVEL": level})
            assert found.stdout.strip() == level, found.stderr

    @pytest.mark.parametrize("level", ["neon", "avx1024", ""])
    def test_a_level_that_is_not_there_is_an_error(self, level: str) -> None:
        if level in seqrs.info()["levels"]:
            pytest.skip(f"this processor has {level}")
        code = """
import seqrs
try:
    seqrs.LSTM(2, 3)([[[1.0, 2.0]]])
except ValueError as error:
    print("refused", error)
"""
        found = python(code, env={"SEQRS_LEVEL": level})
        assert found.stdout.startswith("refused"), (found.stdout, found.stderr)
        assert "SEQRS_LEVEL" in found.stdout
        assert f'"{level}"' in found.stdout


class TestSeeds:
    def test_the_seed_decides_the_weights(self, cell: str, dtype: str) -> None:
        kind, options = CELLS[cell]
        build = getattr(seqrs, kind)
        one, same, other = (build(3, 5, **options, dtype=dtype, seed=s) for s in (1, 1, 2))
        assert_same(same.state_dict(), one.state_dict())
        assert not np.array_equal(
            one.state_dict()["weight_ih_l0"], other.state_dict()["weight_ih_l0"]
        )

    def test_both_precisions_draw_the_same_numbers(self, cell: str) -> None:
        kind, options = CELLS[cell]
        build = getattr(seqrs, kind)
        wide = build(3, 5, **options, dtype="float64", seed=1).state_dict()
        for name, p in build(3, 5, **options, dtype="float32", seed=1).state_dict().items():
            assert_same_bits(p, wide[name].astype(np.float32), name)

    def test_a_model_seeds_each_layer_from_its_seed_and_index(self) -> None:
        def build(seed: int) -> seqrs.Sequential:
            return seqrs.Sequential([seqrs.Linear(4, 4), seqrs.Linear(4, 4)], seed=seed)

        one, same, other = build(1), build(1), build(2)
        assert_same(same.state_dict(), one.state_dict())
        weights = one.state_dict()
        assert not np.array_equal(weights["0.weight"], weights["1.weight"])
        assert not np.array_equal(weights["0.weight"], other.state_dict()["0.weight"])

    def test_dropout_is_seeded_and_fresh_at_each_call(self, device: str) -> None:
        def build(seed: int) -> Any:
            return make("lstm", num_layers=2, dropout=0.5, seed=seed, device=device)

        given = Given(build(0))
        one, same, other = build(0), build(0), build(1)
        first, _, _ = one.forward(given.x)
        assert_same_bits(same.forward(given.x)[0], first)
        assert not np.array_equal(other.forward(given.x)[0], first)
        second, _, _ = one.forward(given.x)
        assert not np.array_equal(second, first)
        assert_same_bits(same.forward(given.x)[0], second)

    def test_dropout_does_not_depend_on_threads_lengths_or_padding(self, device: str) -> None:
        def run(n: int, **live: Any) -> Array:
            layer = make("lstm", "float32", 5, 80, num_layers=2, dropout=0.5, device=device)
            given = Given(layer, 40, 7)
            with seqrs.num_threads(n):
                y: Array = layer.forward(given.x, **live)[0]
            return y

        whole = run(1)
        assert_same_bits(run(3), whole)
        lengths = np.arange(40) % 8
        cut = run(2, lengths=lengths)
        for b, n in enumerate(lengths):
            assert_same_bits(cut[b, :n], whole[b, :n])

    def test_training_twice_gives_the_same_bits(self, device: str) -> None:
        def run(seed: int) -> dict[str, Array]:
            model = character_model(num_layers=2, dropout=0.3, device=device)
            trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(lr=1e-2), seed=seed)
            losses = [trainer.step(x, y).loss for x, y in id_batches(5)]
            return {**model.state_dict(), "losses": np.array(losses)}

        one, same, other = run(1), run(1), run(2)
        assert_same(same, one)
        assert not np.array_equal(one["losses"], other["losses"])

    def test_another_process_gives_the_same_bits(self, device: str) -> None:
        code = """
import sys, seqrs
from cases import character_model, id_batches
model = character_model(dropout=0.3, num_layers=2, device=sys.argv[1])
trainer = seqrs.Trainer(model, bptt=5, seed=2)
print([trainer.step(x, y).loss.hex() for x, y in id_batches(3)])
print([p.tobytes().hex() for p in model.state_dict().values()])
"""
        first, second = (python(code, device) for _ in range(2))
        assert first.returncode == 0, first.stderr
        assert first.stdout == second.stdout


class TestImport:
    def test_takes_at_most_30_ms_over_numpy(self) -> None:
        code = """
import time, numpy
began = time.perf_counter()
import seqrs
print(time.perf_counter() - began)
"""
        python(code)  # compiles the bytecode
        best = 1.0
        for _ in range(12):
            best = min(best, float(python(code).stdout))
            if best <= 0.030:
                break
        assert best <= 0.030

    def test_starts_no_thread(self) -> None:
        code = """
import os, numpy
before = len(os.listdir("/proc/self/task"))
import seqrs
print(before, len(os.listdir("/proc/self/task")))
"""
        before, after = python(code).stdout.split()
        assert before == after

    def test_needs_numpy_alone(self) -> None:
        code = """
import sys, json, numpy
before = set(sys.modules)
import seqrs
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - set(sys.stdlib_module_names) - {"numpy", "seqrs"})))
"""
        assert json.loads(python(code).stdout) == []

    def test_works_where_tqdm_cannot_be_imported(self) -> None:
        code = """
import sys
for name in ("tqdm", "tqdm.auto"):
    sys.modules[name] = None
import numpy as np, seqrs
model = seqrs.Sequential([seqrs.LSTM(2, 3), seqrs.Linear(3, 1)])
x, y = np.ones((2, 4, 2)), np.ones((2, 4, 1))
print(len(seqrs.Trainer(model, loss=seqrs.MSE()).fit([(x, y)], epochs=2)["loss"]))
"""
        found = python(code)
        assert found.stdout.strip() == "2", found.stderr

    def test_opens_no_file_but_modules(self) -> None:
        code = """
import sys, json, numpy
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import seqrs
print(json.dumps([path for path in opened if not path.endswith((".py", ".pyc", ".so"))]))
"""
        found = python(code)
        assert json.loads(found.stdout) == [], found.stderr

    def test_ignores_settings_until_they_are_used(self) -> None:
        found = python("import seqrs", env={"SEQRS_NUM_THREADS": "x", "SEQRS_LEVEL": "y"})
        assert found.returncode == 0, found.stderr


class Heavy:
    """A layer, and an input that keeps it busy for about so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.layer = seqrs.LSTM(128, 128, 4)
        batch = 32
        x = np.zeros((batch, 20, 128), np.float32)
        self.layer(x)
        began = time.perf_counter()
        self.layer(x)
        took = time.perf_counter() - began
        # No more than 400 MB of outputs.
        steps = max(20, min(int(20 * seconds / took), 400_000_000 // (4 * 128 * batch)))
        self.x = np.zeros((batch, steps, 128), np.float32)
        self.expected = took * steps / 20


@pytest.fixture(scope="module")
def heavy() -> Heavy:
    return Heavy(2.0)


class Interrupt:
    """Raises KeyboardInterrupt, as Ctrl-C does, so many seconds from now; notes when."""

    def __init__(self, seconds: float) -> None:
        self.at = time.perf_counter() + seconds
        self.before = signal.signal(signal.SIGALRM, self.raised)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def raised(self, *_: object) -> None:
        raise KeyboardInterrupt

    def off(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


#: Seconds within which Ctrl-C has to be answered.
AT_ONCE = 0.2
#: A machine that does other things too may be late, but not so often in a row.
TRIES = 8


def interrupted(job: Callable[[], object]) -> None:
    """`job` ends at once with KeyboardInterrupt, as it does at Ctrl-C."""
    late = []
    for _ in range(TRIES):
        timer = Interrupt(0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                job()
            late.append(time.perf_counter() - timer.at)
        finally:
            timer.off()
        if late[-1] <= AT_ONCE:
            return
    raise AssertionError(f"answered after {late} s, expected {AT_ONCE} s")


def attentive(job: Callable[[], object]) -> None:
    """Whenever Ctrl-C comes during `job`, it is answered at once.

    A handler that only takes the time is run all along: the longest pause between two runs is
    the longest that a signal would have had to wait. So a signal that happens to come just before
    it is looked for proves nothing. The time is the one that the calling thread has computed,
    alone, whatever else the machine does.
    """
    longest = []
    for _ in range(TRIES):
        times: list[float] = []
        before = signal.signal(signal.SIGALRM, lambda *_, to=times: to.append(time.thread_time()))
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            began = time.thread_time()
            with seqrs.num_threads(1):
                job()
            ended = time.thread_time()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        inside = [began, *(at for at in times if began < at < ended), ended]
        longest.append(float(np.diff(inside).max()))
        if longest[-1] <= AT_ONCE:
            return
    raise AssertionError(f"deaf for {longest} s, expected at most {AT_ONCE} s")


class TestGoodGuest:
    def test_the_gil_is_released_during_a_long_call(self, heavy: Heavy) -> None:
        ticks: list[float] = []
        done = threading.Event()

        def tick() -> None:
            while not done.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.005)

        other = threading.Thread(target=tick)
        other.start()
        began = time.perf_counter()
        heavy.layer(heavy.x)
        ended = time.perf_counter()
        done.set()
        other.join()
        # In the middle of the call: converting the arrays before and after needs the GIL.
        a, b = began + 0.25 * (ended - began), began + 0.75 * (ended - began)
        inside = sum(a < tick < b for tick in ticks)
        assert inside >= 0.1 * (b - a) / 0.005

    def test_many_threads_may_call_one_model(self, device: str) -> None:
        hidden, batch = (64, 16) if device == CPU else (8, 2)
        model = character_model(hidden=hidden, num_layers=2, device=device)
        ids = np.random.default_rng(0).integers(0, 11, (batch, 20))
        expected, expected_state = model(ids)
        problems: list[str] = []
        start = threading.Barrier(8)

        def call() -> None:
            try:
                start.wait()
                for _ in range(10):
                    y, state = model(ids)
                    assert_same_bits(y, expected)
                    assert_same_state(state, expected_state)
                    y, _, tape = model.forward(ids)
                    model.backward(tape, np.ones_like(y))
            except BaseException as error:
                problems.append(repr(error))

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not problems
        assert not any(thread.is_alive() for thread in threads)

    def test_many_callers_make_no_more_than_one_pool(self) -> None:
        code = """
import threading, time, numpy as np, seqrs
from cases import pool_threads
seqrs.set_num_threads(3)
layer = seqrs.LSTM(64, 128)
x = np.zeros((64, 20, 64), np.float32)
threads = [threading.Thread(target=lambda: [layer(x) for _ in range(5)]) for _ in range(10)]
for t in threads: t.start()
for t in threads: t.join()
end = time.monotonic() + 10             # a pool that lost a race takes its time to end
while len(pool_threads()) > 2 and time.monotonic() < end:
    time.sleep(0.01)
print(len(pool_threads()))
"""
        # Each caller is the third.
        assert python(code).stdout.strip() == "2"

    def test_models_may_be_called_while_they_train(self, device: str) -> None:
        model = character_model(hidden=32, device=device)
        trainer = seqrs.Trainer(model)
        batches = id_batches(20, batch=8, steps=16)
        problems: list[str] = []
        seen: set[str] = set()
        done = threading.Event()

        def call() -> None:
            try:
                while not done.is_set():
                    y, _ = model(batches[0][0])
                    assert np.isfinite(y).all()
                    seen.add(model.fingerprint)
            except BaseException as error:
                problems.append(repr(error))

        readers = [threading.Thread(target=call) for _ in range(3)]
        for reader in readers:
            reader.start()
        for x, y in batches:
            trainer.step(x, y)
        done.set()
        for reader in readers:
            reader.join(30)
        assert not problems
        assert not any(reader.is_alive() for reader in readers)
        assert seen
        assert trainer.steps_done == 20

    def test_an_array_that_changes_during_a_call_does_no_harm(self, heavy: Heavy) -> None:
        x = np.zeros((32, max(20, heavy.x.shape[1] // 8), 128), np.float32)
        done = threading.Event()
        scribbled: list[float] = []

        def scribble() -> None:
            random = np.random.default_rng(0)
            while not done.is_set():
                x[:, ::7] = random.random()
                scribbled.append(time.perf_counter())

        other = threading.Thread(target=scribble)
        other.start()
        began = time.perf_counter()
        y, _ = heavy.layer(x)
        ended = time.perf_counter()
        done.set()
        other.join()
        assert sum(began < at < ended for at in scribbled) > 1
        assert np.isfinite(y).all()

    def test_threads_do_not_spin_while_idle(self, heavy: Heavy) -> None:
        spent = []
        with seqrs.num_threads(2):
            for _ in range(3):
                heavy.layer(heavy.x[:, :40])
                # What a worker does right after a call is not idling yet.
                time.sleep(0.05)
                before = time.process_time()
                time.sleep(1.0)
                spent.append(time.process_time() - before)
                if spent[-1] < 0.005:
                    break
        assert min(spent) < 0.005

    def test_signals_are_looked_for_all_along(self, heavy: Heavy) -> None:
        model = seqrs.Sequential([copy.copy(heavy.layer), seqrs.Linear(128, 4)])
        trainer = seqrs.Trainer(model, loss=seqrs.MSE())
        x = heavy.x[:, : min(1500, heavy.x.shape[1])]  # whose tape takes 600 MB
        y = np.zeros((*x.shape[:2], 4), np.float32)
        characters = character_model(hidden=256, num_layers=2)
        attentive(lambda: heavy.layer(heavy.x[:, : heavy.x.shape[1] // 2]))
        attentive(lambda: heavy.layer.forward(x))
        out, _, kept = heavy.layer.forward(x)
        attentive(lambda: heavy.layer.backward(kept, out))
        attentive(lambda: trainer.step(x, y))
        attentive(lambda: trainer.evaluate([(x, y)]))
        attentive(lambda: seqrs.generate(characters, [1], 20_000))

    def test_ctrl_c_interrupts_inference(self, heavy: Heavy) -> None:
        expected, _ = heavy.layer(heavy.x[:, :5])
        interrupted(lambda: heavy.layer(heavy.x))
        assert_same_bits(heavy.layer(heavy.x[:, :5])[0], expected)

    def test_ctrl_c_interrupts_forward_and_backward(self, heavy: Heavy) -> None:
        x = heavy.x[:, :2500]
        interrupted(lambda: heavy.layer.forward(x))
        y, _, tape = heavy.layer.forward(x)
        interrupted(lambda: heavy.layer.backward(tape, y))
        assert_same_bits(heavy.layer(x)[0], y)

    def test_ctrl_c_interrupts_a_training_step_and_changes_nothing(self, heavy: Heavy) -> None:
        model = seqrs.Sequential([copy.copy(heavy.layer), seqrs.Linear(128, 4)])
        trainer = seqrs.Trainer(model, loss=seqrs.MSE())
        x = heavy.x[:, :2500]
        y = np.zeros((*x.shape[:2], 4), np.float32)
        before = model.state_dict()
        interrupted(lambda: trainer.step(x, y))
        assert_same(model.state_dict(), before)
        assert trainer.steps_done == 0
        trainer.step(x[:2, :5], y[:2, :5])
        assert trainer.steps_done == 1

    def test_ctrl_c_interrupts_generation(self) -> None:
        model = character_model(hidden=256, num_layers=2)
        interrupted(lambda: seqrs.generate(model, [1], 10_000_000))
        assert len(seqrs.generate(model, [1], 5)) == 5

    def test_a_process_ends_cleanly_with_a_busy_pool(self) -> None:
        code = """
import threading, numpy as np, seqrs
seqrs.set_num_threads(2)
layer = seqrs.LSTM(64, 256)
x = np.zeros((64, 40, 64), np.float32)
begun = threading.Event()

def keep_busy():
    while True:
        layer(x)
        begun.set()

threading.Thread(target=keep_busy, daemon=True).start()
begun.wait()
print("end")
"""
        found = python(code, timeout=30)
        assert found.returncode == 0, found.stderr
        assert (found.stdout.strip(), found.stderr) == ("end", "")


class TestBoundedMemory:
    def test_memory_does_not_grow_with_the_number_of_shapes(self) -> None:
        code = """
import gc, os, numpy as np, seqrs

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

layer = seqrs.LSTM(16, 64, 2)
trainer = seqrs.Trainer(
    seqrs.Sequential([seqrs.GRU(16, 32), seqrs.Linear(32, 4)]), loss=seqrs.MSE())

def use(batch, steps):
    x = np.zeros((batch, steps, 16), np.float32)
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
    layer(x)
    trainer.step(x, np.zeros((batch, steps, 4), np.float32))

for _ in range(3):
    use(64, 64)
before = resident()
for batch in range(1, 20):
    for steps in range(1, 20):
        use(3 * batch + 1, 3 * steps + 1)
print(resident() - before)
"""
        found = python(code, timeout=120)
        assert found.returncode == 0, found.stderr
        assert float(found.stdout) < 48, "MB more after 361 shapes, none the largest"

    def test_tapes_are_released(self) -> None:
        code = """
import gc, os, numpy as np, seqrs

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

layer = seqrs.LSTM(16, 128)
x = np.zeros((32, 50, 16), np.float32)
y, _, tape = layer.forward(x)
assert tape.nbytes > y.nbytes
for _ in range(3):
    tape = layer.forward(x)[2]
before = resident()
for _ in range(100):
    tape = layer.forward(x)[2]
print(resident() - before)
"""
        found = python(code, timeout=120)
        assert found.returncode == 0, found.stderr
        assert float(found.stdout) < 32


class TestLoud:
    def test_a_failed_call_leaves_layer_and_state_as_they_were(
        self, cell: str, device: str
    ) -> None:
        layer = make(cell, device=device)
        given, untouched = Given(layer), Given(layer)
        before = layer.state_dict()
        failures: list[Callable[[], object]] = [
            lambda: layer(given.x[:, :, :-1], given.state),
            lambda: layer(given.x, given.state, lengths=[T + 1] * B),
            lambda: layer(given.x[:2], given.state),
            lambda: layer.step(given.x[:, 0, :-1], given.state),
            lambda: layer.load_state_dict({**before, "weight_hh_l0": np.zeros(3)}),
            lambda: layer.forward(given.x, given.state, mask=np.full((B, T), 2)),
        ]
        for failure in failures:
            with pytest.raises(seqrs.SeqrsError):
                failure()
        assert_same(layer.state_dict(), before)
        assert_same_state(given.state, untouched.state)

    def test_a_failed_step_leaves_model_optimiser_and_state_as_they_were(self, device: str) -> None:
        def run(fail: bool) -> tuple[dict[str, Array], list[Array]]:
            model = character_model(num_layers=2, dropout=0.2, device=device)
            trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(lr=0.05), bptt=3, seed=1)
            state: Any = None
            for x, y in id_batches(4):
                if fail:
                    bad = x.copy()
                    bad[-1, -1] = 11
                    with pytest.raises(seqrs.ShapeError):
                        trainer.step(bad, y, state=state)
                    bad = y.copy()
                    bad[-1, -1] = 11
                    with pytest.raises(seqrs.ShapeError):
                        trainer.step(x, bad, state=state)
                state = trainer.step(x, y, state=state).state
            return model.state_dict(), flat(state)

        weights, state = run(False)
        weights_f, state_f = run(True)
        assert_same(weights_f, weights)
        for got, expected in zip(state_f, state, strict=True):
            assert_same_bits(got, expected)
