"""Models with weights of small numbers: by NumPy, by the laws, in files, and how much they lose."""

from __future__ import annotations

import argparse
import copy
import inspect
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from cases import Array, flat, numbers, python
from test_files import assert_refused, joined, signed, split
from test_interrupts import PROMISED, SLACK, interrupted
from tolerances import assert_close, assert_same_bits

KINDS = ("int8", "bf16")
#: Name -> (class, options); more units than a register has lanes, and no multiple of them.
PLAIN: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn-tanh": (seqrs.RNN, {}),
    "rnn-relu": (seqrs.RNN, {"nonlinearity": "relu"}),
    "lstm": (seqrs.LSTM, {}),
    "lstm-projected": (seqrs.LSTM, {"proj_size": 9}),
    "lstm-no-bias": (seqrs.LSTM, {"bias": False}),
    "gru-reset-before": (seqrs.GRU, {}),
    "gru-reset-after": (seqrs.GRU, {"reset_after": True}),
}
CELLS = PLAIN | {
    "rnn-function": (seqrs.RNN, {"nonlinearity": "softsign", "clip": 0.7}),
    "lstm-peepholes": (seqrs.LSTM, {"peepholes": True}),
    "lstm-coupled": (seqrs.LSTM, {"coupled": True}),
    "lstm-functions": (seqrs.LSTM, {"gate_activation": "hard_sigmoid", "clip": 1.0}),
    "lstm-zoneout": (seqrs.LSTM, {"zoneout": 0.2, "zoneout_cell": 0.3}),
    "lstm-normalised": (seqrs.LSTM, {"layer_norm": True}),
    "gru-functions": (seqrs.GRU, {"candidate_activation": "relu"}),
    "gru-zoneout": (seqrs.GRU, {"zoneout": 0.2}),
    "gru-normalised": (seqrs.GRU, {"reset_after": True, "layer_norm": True}),
}
I, H, O = 13, 37, 5  # noqa: E741 (the letters of the design)
F = np.float32


def one_cell(cell: str, inputs: int = I, hidden: int = H, **more: Any) -> seqrs.Sequential:
    """A model of one layer, with biases other than 0."""
    kind, options = CELLS[cell]
    model = seqrs.Sequential([kind(inputs, hidden, **options, **more)])
    random = np.random.default_rng(5)
    model.load_state_dict(
        {name: numbers(random, a.shape, "float32", 0.4) for name, a in model.state_dict().items()}
    )
    return model


def deep() -> seqrs.Sequential:
    """Every kind of layer that a model of ids may have."""
    return seqrs.Sequential(
        [
            seqrs.Embedding(30, 19),
            seqrs.LSTM(19, 24, num_layers=2, bidirectional=True, dropout=0.2),
            seqrs.LayerNorm(48),
            seqrs.Dropout(0.1),
            seqrs.Linear(48, 20),
            seqrs.Activation("tanh"),
            seqrs.GRU(20, 17),
            seqrs.Last(),
            seqrs.Linear(17, O, bias=False),
        ],
        seed=3,
    )


def same(got: Any, expected: Any) -> None:
    """Outputs and states, in every bit."""
    for a, b in zip(flat(got), flat(expected), strict=True):
        assert_same_bits(a, b)


# The equations, in NumPy.


def rounded(rows: Array) -> tuple[Array, Array]:
    """Rows of integers, and the scale of each."""
    largest = np.abs(rows).max(-1, keepdims=True)
    integers = np.rint(rows * (F(127) / largest)).astype(np.int64)
    return integers, largest / F(127)


def product(x: Array, weights: Array, bias: Array | float) -> Array:
    """x W^T + b of integers, in float32 from the exact sums on."""
    (x, x_scale), (w, w_scale) = rounded(x), rounded(weights)
    sums = (x @ w.T).astype(F)
    assert x_scale.dtype == w_scale.dtype == F
    result: Array = sums * x_scale * w_scale[:, 0] + bias
    return result


def sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


def transition(cell: str, p: dict[str, Array], x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """One step: h, and c of an LSTM, from the textbook."""
    w_ih, w_hh = p["weight_ih_l0"], p["weight_hh_l0"]
    b_ih = p.get("bias_ih_l0", F(0))
    b_hh = p.get("bias_hh_l0", F(0))
    gx = product(x, w_ih, b_ih)
    if cell == "gru-reset-before":
        early = 2 * H
        gh = product(h, w_hh[:early], F(0))
        r, z = np.split(sigmoid(np.float64(gx[:, :early]) + gh), 2, axis=-1)
        operand = (r * h).astype(F)
        n = np.tanh(gx[:, early:] + np.float64(product(operand, w_hh[early:], F(0))))
        return (z * h + (1 - z) * n,)
    gh = product(h, w_hh, b_hh)
    if cell.startswith("rnn"):
        s = np.float64(gx) + gh
        return (np.tanh(s) if cell == "rnn-tanh" else np.maximum(s, 0),)
    if cell == "gru-reset-after":
        xr, xz, xn = np.split(np.float64(gx), 3, axis=-1)
        hr, hz, hn = np.split(np.float64(gh), 3, axis=-1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        return (z * h + (1 - z) * np.tanh(xn + r * hn),)
    i, f, g, o = np.split(np.float64(gx) + gh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    if "weight_hr_l0" in p:
        h = product(h.astype(F), p["weight_hr_l0"], F(0))
    return h, c


class TestEquations:
    @pytest.mark.parametrize("cell", PLAIN)
    def test_a_step_of_int8_is_that_of_numpy(self, cell: str) -> None:
        """From states of the package, so that no rounding of a step before counts."""
        model = one_cell(cell)
        fast = model.quantize("int8")
        p = {name.removeprefix("0."): array for name, array in model.state_dict().items()}
        random = np.random.default_rng(1)
        state = tuple(numbers(random, a.shape, "float32") for a in flat(fast.initial_state(6)))
        for _ in range(5):
            x = numbers(random, (6, I), "float32")
            h, c = state[0][0], state[-1][0]
            expected = transition(cell, p, x, h, c)
            y, (after,) = fast.step(x, (state if len(state) > 1 else state[0],))
            state = tuple(flat(after))
            # An operand of the second product may round to another integer than NumPy's.
            bound = tolerances.PACKAGE_TO_REFERENCE_F32
            if cell in ("gru-reset-before", "lstm-projected"):
                bound = tolerances.ONE_INTEGER_OFF
            assert_close(y, expected[0], bound, "y")
            for got, want in zip(state, expected, strict=True):
                assert_close(got[0], want, bound, "state")

    @pytest.mark.parametrize("shape", [(1, 7, 3), (5, 64, 64), (9, 130, 67)])
    def test_a_linear_layer_of_int8_is_that_of_numpy(self, shape: tuple[int, int, int]) -> None:
        rows, inputs, outputs = shape
        model = seqrs.Sequential([seqrs.Linear(inputs, outputs, seed=4)])
        x = numbers(np.random.default_rng(0), (rows, inputs), "float32")
        p = model.state_dict()
        y, _ = model.quantize("int8")(x)
        assert_same_bits(y, product(x, p["0.weight"], p["0.bias"]))

    @pytest.mark.parametrize("cell", CELLS)
    def test_bf16_is_the_model_with_rounded_weights(self, cell: str) -> None:
        for batch, steps, hidden in ((5, 4, 23), (1, 30, 90)):
            model = one_cell(cell, 50, hidden, bidirectional=True)
            fast = model.quantize("bf16")
            weights = model.state_dict()
            model.load_state_dict({k: to_bf16(a) if a.ndim == 2 else a for k, a in weights.items()})
            x = numbers(np.random.default_rng(1), (batch, steps, 50), "float32")
            same(fast(x), model(x))

    def test_a_row_that_is_not_finite_is_nan_and_the_others_are_not(self) -> None:
        fast = one_cell("lstm").quantize("int8")
        x = numbers(np.random.default_rng(1), (4, 3, I), "float32")
        good, _ = fast(x)
        x[1, 1, 2], x[2, 0, 0] = np.nan, np.inf
        y, _ = fast(x)
        assert_same_bits(y[[0, 3]], good[[0, 3]])
        assert_same_bits(y[1, :1], good[1, :1])
        assert np.isnan(y[1, 1:]).all()
        assert np.isnan(y[2]).all()


def to_bf16(array: Array) -> Array:
    """To the nearest bfloat16, to the even of two."""
    bits = array.view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(F)


@pytest.mark.parametrize("kind", KINDS)
class TestLaws:
    """Those of every model; `tests/README.md` numbers them."""

    @pytest.fixture
    def fast(self, kind: str) -> Any:
        return deep().quantize(kind)

    @pytest.fixture
    def ids(self) -> Array:
        return np.random.default_rng(0).integers(0, 30, (6, 9))

    def test_2_padding_has_no_influence(self, fast: Any, ids: Array) -> None:
        lengths = [9, 0, 4, 1, 9, 6]
        expected = fast(ids, lengths=lengths)
        for b, length in enumerate(lengths):
            ids[b, length:] = 29
        same(fast(ids, lengths=lengths), expected)

    def test_3_a_mask_of_a_prefix_is_the_length(self, fast: Any, ids: Array) -> None:
        lengths = np.array([9, 0, 4, 1, 9, 6])
        mask = np.arange(9) < lengths[:, None]
        same(fast(ids, mask=mask), fast(ids, lengths=lengths))

    def test_4_rows_do_not_know_of_each_other(self, fast: Any, ids: Array) -> None:
        y, _ = fast(ids)
        for b in range(6):
            assert_same_bits(fast(ids[b : b + 1])[0], y[b : b + 1])

    @pytest.mark.parametrize("cell", CELLS)
    def test_4_rows_of_a_wide_layer(self, kind: str, cell: str) -> None:
        """A row alone is computed in another way than in a batch."""
        fast = one_cell(cell, 40, 100).quantize(kind)
        x = numbers(np.random.default_rng(2), (7, 33, 40), "float32")
        y, _ = fast(x)
        for b in range(7):
            assert_same_bits(fast(x[b : b + 1])[0], y[b : b + 1])

    @pytest.mark.parametrize("cell", CELLS)
    def test_5_steps_make_the_sequence(self, kind: str, cell: str) -> None:
        fast = one_cell(cell, 40, 100, num_layers=2).quantize(kind)
        x = numbers(np.random.default_rng(2), (2, 30, 40), "float32")
        y, final = fast(x)
        state = None
        for t in range(30):
            y_t, state = fast.step(x[:, t], state)
            assert_same_bits(y_t, y[:, t])
        same(state, final)
        head, middle = fast(x[:, :11])
        tail, last = fast(x[:, 11:], middle)
        assert_same_bits(np.concatenate([head, tail], 1), y)
        same(last, final)

    def test_6_any_number_of_threads(self, fast: Any, kind: str) -> None:
        wide = one_cell("lstm", 64, 96).quantize(kind)
        x = numbers(np.random.default_rng(2), (40, 8, 64), "float32")
        found = []
        for threads in (1, 2, 5):
            with seqrs.num_threads(threads):
                found.append((wide(x), fast(np.arange(30).reshape(3, 10))))
        same(found[1], found[0])
        same(found[2], found[0])

    def test_7_any_vector_instruction_set(self, kind: str) -> None:
        vector = [level for level in seqrs.info()["levels"] if level != "scalar"]
        if len(vector) < 2:
            pytest.skip(f"this processor has {', '.join(vector)}: nothing to compare")
        code = """
import sys
import numpy as np, seqrs, test_quantized as tests
kind = sys.argv[1]
for cell in tests.CELLS:
    x = tests.numbers(np.random.default_rng(2), (1, 30, 40), "float32")
    y, state = tests.one_cell(cell, 40, 100).quantize(kind)(x)
    print(cell, [hash(array.tobytes()) for array in (y, *tests.flat(state))])
print(hash(tests.deep().quantize(kind)(np.arange(30).reshape(3, 10))[0].tobytes()))
"""
        found = []
        for level in vector:
            done = python(code, kind, env={"SEQRS_LEVEL": level, "PYTHONHASHSEED": "0"})
            assert done.returncode == 0, done.stderr
            found.append(done.stdout)
        assert len(set(found)) == 1

    def test_many_threads_call_one_model(self, fast: Any, ids: Array) -> None:
        expected = fast(ids)
        wrong: list[Any] = []

        def call() -> None:
            for _ in range(20):
                try:
                    same(fast(ids), expected)
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_empty_batches(self, fast: Any) -> None:
        y, _ = fast(np.zeros((0, 4), np.int64))
        assert y.shape == (0, O)
        y, state = fast(np.zeros((3, 0), np.int64))
        assert y.shape == (3, O)
        same(state, fast.initial_state(3))


@pytest.mark.parametrize("kind", KINDS)
class TestLikeAnyModel:
    """What takes a model takes one with small weights."""

    @pytest.mark.parametrize("cell", CELLS)
    def test_a_step_into_arrays_of_the_caller(self, kind: str, cell: str) -> None:
        fast = one_cell(cell).quantize(kind)
        x = numbers(np.random.default_rng(2), (4, 3, I), "float32")
        expected, state = None, fast.initial_state(3)
        y = np.empty((3, fast.output_size), F)
        for x_t in x:
            expected = fast.step(x_t, None if expected is None else expected[1])
            assert fast.step(x_t, state, out=(y, state)) == (y, state)
            same((y, state), expected)

    def test_streams(self, kind: str) -> None:
        layers = [seqrs.Embedding(30, 19), seqrs.LSTM(19, 70, num_layers=2), seqrs.Linear(70, O)]
        fast = seqrs.Sequential(layers, seed=3).quantize(kind)
        ids = np.random.default_rng(0).integers(0, 30, (9, 12))
        y, _ = fast(ids)
        pool = seqrs.StreamPool(fast, capacity=9)
        sids = [pool.open() for _ in range(9)]
        for t in range(6):
            for some in (range(0, 9, 2), range(7, 0, -2)):
                y_t = pool.step([sids[b] for b in some], ids[list(some), t])
                assert_same_bits(y_t, y[list(some), t])
        blob = pool.export_state(sids[4])
        elsewhere = seqrs.StreamPool(pickle.loads(pickle.dumps(fast)))
        sid = elsewhere.import_state(blob)
        for t in range(6, 12):
            assert_same_bits(elsewhere.step([sid], ids[4:5, t]), y[4:5, t])
        other = {"int8": "bf16", "bf16": "int8"}[kind]
        with pytest.raises(seqrs.StateError, match="fingerprint"):
            seqrs.StreamPool(seqrs.Sequential(layers, seed=3).quantize(other)).import_state(blob)

    def test_streams_of_what_cannot_be_stepped(self, kind: str) -> None:
        with pytest.raises(seqrs.StateError, match="bidirectional"):
            seqrs.StreamPool(deep().quantize(kind))

    def test_sampling(self, kind: str) -> None:
        layers = [seqrs.Embedding(30, 19), seqrs.GRU(19, 40), seqrs.Linear(40, 30)]
        fast = seqrs.Sequential(layers, seed=3).quantize(kind)
        ids = seqrs.generate(fast, [1, 2, 3], 20, temperature=0.0)
        expected = [1, 2, 3]
        for _ in range(20):
            y, _ = fast(np.array([expected]))
            expected.append(int(y[0, -1].argmax()))
        assert ids.tolist() == expected[3:]

    def test_warmup_changes_nothing(self, kind: str) -> None:
        fast = deep().quantize(kind)
        expected = fast(np.arange(30).reshape(3, 10))
        fast.warmup(2, 5)
        same(fast(np.arange(30).reshape(3, 10)), expected)
        with pytest.raises(ValueError, match="batch_size"):
            fast.warmup(-1)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("kind", KINDS)
class TestInterrupts:
    """Ctrl-C is heard in time, and the state is as it was."""

    def heard(self, job: Callable[[], object]) -> None:
        with seqrs.num_threads(1):
            tries = []
            for _ in range(3):
                done, seconds = interrupted(job, 0.25)
                assert not done
                tries.append(seconds)
                if seconds < PROMISED:
                    break
            assert min(tries) < PROMISED + SLACK

    def test_in_a_long_sequence(self, kind: str) -> None:
        fast = seqrs.Sequential([seqrs.LSTM(1, 700)]).quantize(kind)
        x = np.zeros((1, 75_000, 1), np.float32)
        state = fast.initial_state(1)
        self.heard(lambda: fast(x, state))
        same(state, fast.initial_state(1))

    def test_in_many_rows(self, kind: str) -> None:
        fast = seqrs.Sequential([seqrs.Linear(4000, 8000)]).quantize(kind)
        x = np.zeros((8000, 4000), np.float32)
        self.heard(lambda: fast(x))


@pytest.mark.parametrize("kind", KINDS)
class TestLoss:
    """How much is lost."""

    @pytest.mark.parametrize("cell", CELLS)
    def test_outputs_stay_close(self, kind: str, cell: str) -> None:
        kind_of_layer, options = CELLS[cell]
        model = seqrs.Sequential([kind_of_layer(64, 64, **options)], seed=0)
        x = numbers(np.random.default_rng(3), (8, 20, 64), "float32")
        report = model.quantize(kind).quantization_report(x)
        bound = {"int8": tolerances.INT8_TO_FLOAT, "bf16": tolerances.BF16_TO_FLOAT}[kind]
        if "layer_norm" in options:
            bound = {
                "int8": tolerances.INT8_NORMALISED_TO_FLOAT,
                "bf16": tolerances.BF16_NORMALISED_TO_FLOAT,
            }[kind]
        assert 0 < report["output"]["relative"] < bound

    def test_the_report_is_what_it_says(self, kind: str) -> None:
        model = deep()
        fast = model.quantize(kind)
        ids = np.random.default_rng(0).integers(0, 30, (6, 9))
        lengths = [9, 3, 4, 1, 9, 6]
        report = fast.quantization_report(ids, lengths=lengths)
        y, exact = fast(ids, lengths=lengths)[0], model(ids, lengths=lengths)[0]
        error = np.float64(y) - exact
        assert report["kind"] == kind
        found = report["output"]
        assert found["max"] == np.abs(error).max()
        rms = np.sqrt((error**2).mean())
        relative = rms / np.sqrt((np.float64(exact) ** 2).mean())
        assert_close([found["rms"], found["relative"]], [rms, relative], tolerances.FORMULA_F64)
        names = [(layer["layer"], layer["name"]) for layer in report["layers"]]
        assert names == [(1, "LSTM"), (4, "Linear"), (6, "GRU"), (8, "Linear")]
        assert all(layer["max"] > 0 for layer in report["layers"])
        assert report["float32_bytes"] == 4 * model.num_parameters
        assert report["bytes"] == fast.nbytes < report["float32_bytes"]
        assert fast.num_parameters == model.num_parameters
        # A layer by itself is given what the float32 model gives it.
        alone = seqrs.Sequential(list(model)[:2]).quantize(kind)
        y = alone(ids, lengths=lengths)[0]
        exact = seqrs.Sequential(list(model)[:2])(ids, lengths=lengths)[0]
        assert report["layers"][0]["max"] == np.abs(np.float64(y) - exact).max()

    def test_a_character_model_predicts_as_well(self, kind: str) -> None:
        text = np.frombuffer(inspect.getsource(argparse).encode(), np.uint8).astype(np.int64)
        model = seqrs.Sequential(
            [seqrs.Embedding(256, 24), seqrs.LSTM(24, 96), seqrs.Linear(96, 256)], seed=0
        )
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(lr=5e-3), clip_norm=1.0)
        rows = text[: 16 * 5000].reshape(16, -1)
        for start in range(0, 4000, 25):
            trainer.step(rows[:, start : start + 25], rows[:, start + 1 : start + 26])
        held = text[80_000:90_000].reshape(10, -1)
        loss = seqrs.CrossEntropy()
        before = loss(model(held[:, :-1])[0], held[:, 1:])
        after = loss(model.quantize(kind)(held[:, :-1])[0], held[:, 1:])
        assert before < 3.0, "it has learnt something"
        bound = {"int8": tolerances.INT8_LOSS, "bf16": tolerances.BF16_LOSS}[kind]
        assert after < before * (1 + bound)


@pytest.mark.parametrize("kind", KINDS)
class TestValues:
    def test_files(self, kind: str, tmp_path: Path) -> None:
        model = deep()
        fast = model.quantize(kind)
        path = tmp_path / "model"
        fast.save(path)
        found = seqrs.load(path)
        assert isinstance(found, seqrs.QuantizedSequential)
        assert found == fast
        assert found.kind == kind
        assert (found.fingerprint, repr(found)) == (fast.fingerprint, repr(fast))
        assert found.fingerprint != model.fingerprint
        ids = np.arange(30).reshape(3, 10)
        same(found(ids), fast(ids))
        again = tmp_path / "again"
        found.save(again)
        assert again.read_bytes() == path.read_bytes()
        with pytest.raises(seqrs.StateError, match="quantization_report: expected a model that"):
            found.quantization_report(ids)

    def test_a_file_is_smaller_and_of_plain_tensors(self, kind: str, tmp_path: Path) -> None:
        model = one_cell("lstm", 64, 128)
        model.save(tmp_path / "float32")
        model.quantize(kind).save(tmp_path / "small")
        header, body = split((tmp_path / "small").read_bytes())
        metadata = header.pop("__metadata__")
        assert (metadata["quantisation"], metadata["min_reader"]) == (kind, "2")
        types = {name: entry["dtype"] for name, entry in header.items()}
        expected = {"0.bias_ih_l0": "F32", "0.bias_hh_l0": "F32"}
        for name in ("0.weight_ih_l0", "0.weight_hh_l0"):
            expected |= {name: "BF16"} if kind == "bf16" else {name: "I8", f"{name}.scale": "F32"}
        assert types == expected
        width = {"F32": 4, "BF16": 2, "I8": 1}
        assert all(e["data_offsets"][0] % width[e["dtype"]] == 0 for e in header.values())
        share = len(body) / (tmp_path / "float32").stat().st_size
        assert share < (0.3 if kind == "int8" else 0.55)

    def test_copies_and_pickles(self, kind: str) -> None:
        fast = deep().quantize(kind)
        for other in (copy.copy(fast), copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert other == fast
            assert hash(other) == hash(fast)
        assert fast != one_cell("lstm").quantize(kind)
        assert fast != deep()

    def test_the_model_may_change_and_go(self, kind: str) -> None:
        model = deep()
        fast = model.quantize(kind)
        ids = np.arange(30).reshape(3, 10)
        expected, report = fast(ids), fast.quantization_report(ids)
        trainer = seqrs.Trainer(model)
        trainer.step(ids, np.zeros(3, np.int64))
        same(fast(ids), expected)
        assert fast.quantization_report(ids) == report

    def test_it_tells_what_it_is(self, kind: str) -> None:
        fast = seqrs.Sequential(
            [seqrs.LSTM(3, 8, batch_first=False), seqrs.Linear(8, 2)], seed=0
        ).quantize(kind)
        assert repr(fast).startswith(f"QuantizedSequential('{kind}', [\n    LSTM(3, 8, ")
        assert (fast.dtype, fast.device, fast.output_size) == ("float32", "cpu", 2)
        assert not fast.batch_first
        assert fast(np.zeros((5, 1, 3)))[0].shape == (5, 1, 2)


class TestRefused:
    @pytest.mark.parametrize("kind", ["int4", "", "INT8"])
    def test_other_kinds(self, kind: str) -> None:
        with pytest.raises(ValueError, match='kind: expected "bf16" or "int8"'):
            deep().quantize(kind)
        with pytest.raises(TypeError):
            deep().quantize(8)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("layer", "words"),
        [
            (lambda: seqrs.LayerNorm(3), "layers: expected a recurrent or linear layer"),
        ],
    )
    def test_layers_without_kernels(self, layer: Callable[[], seqrs.Layer], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            seqrs.Sequential([layer()]).quantize("int8")

    def test_float64(self) -> None:
        model = seqrs.Sequential([seqrs.Linear(3, 4, dtype="float64")])
        with pytest.raises(seqrs.DTypeError, match="quantize: expected a float32 model"):
            model.quantize("int8")

    def test_weights_that_are_not_finite(self) -> None:
        model = one_cell("lstm")
        weights = model.state_dict()
        weights["0.weight_hh_l0"][3, 4] = np.inf
        model.load_state_dict(weights)
        for kind in KINDS:
            with pytest.raises(seqrs.NumericalError, match=r"weight_hh_l0 of layer 0 \(LSTM\)"):
                model.quantize(kind)

    @pytest.mark.parametrize("kind", KINDS)
    def test_training(self, kind: str) -> None:
        fast = deep().quantize(kind)
        with pytest.raises(seqrs.StateError, match=f"model: expected .* got {kind} ones"):
            seqrs.Trainer(fast)  # type: ignore[arg-type]
        for method in (fast.forward, fast.backward):
            with pytest.raises(seqrs.StateError, match="expected a float32 or float64 model"):
                method(np.zeros((1, 2), np.int64))

    def test_inputs_and_states(self) -> None:
        fast = one_cell("lstm").quantize("int8")
        for x, error in (
            (np.zeros((2, 3, I + 1)), seqrs.ShapeError),
            (np.zeros((2, I)), seqrs.ShapeError),
            (np.array([[["a"] * I]]), seqrs.DTypeError),
        ):
            with pytest.raises(error):
                fast(x)
        with pytest.raises(seqrs.ShapeError):
            fast(np.zeros((2, 3, I)), fast.initial_state(3))
        with pytest.raises(seqrs.ShapeError):
            fast.step(np.zeros((2, 3, I)))
        with pytest.raises(seqrs.StateError, match="bidirectional"):
            deep().quantize("int8").step(np.zeros(3, np.int64))


def changed(**values: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"].update(values)

    return change


def entry(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[name].update(values)

    return change


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[new] = header.pop(old)

    return change


def alone(header: dict[str, Any]) -> None:
    """A single layer and no list."""
    text = header["__metadata__"]["structure"]
    header["__metadata__"]["structure"] = text[1:-1]


def replaced(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        text = header["__metadata__"]["structure"]
        assert old in text
        header["__metadata__"]["structure"] = text.replace(old, new)

    return change


SCALE = "0.weight_hh_l0.scale"
HOSTILE: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "another kind": ("quantisation: expected int8 or bf16", changed(quantisation="int4")),
    "the other kind": ("data of the file", changed(quantisation="bf16")),
    "float64": ("dtype: expected float32", changed(dtype="float64")),
    "version 1": ("metadata: expected the keys", changed(format_version="1", min_reader="1")),
    "version 3": ("min_reader: expected at most 2", changed(format_version="3", min_reader="3")),
    "float32 by its metadata": (
        "data of the file",
        lambda header: header["__metadata__"].pop("quantisation"),
    ),
    "no scales": ("those of the structure only", renamed(SCALE, "0.weight_hh_l0.scales")),
    "scales of a vector": ("structure only", renamed(SCALE, "0.bias_hh_l0.scale")),
    "integers as bytes without a sign": ("dtype of", entry("0.weight_hh_l0", dtype="U8")),
    "floats as scales of another type": ("dtype of", entry(SCALE, dtype="I32")),
    "too many scales": ("shape of", entry(SCALE, shape=[4 * H, 1])),
    "integers transposed": ("shape of", entry("0.weight_ih_l0", shape=[I, 4 * H])),
    "a single layer": ("structure: expected a list of layers", alone),
    "peepholes without their vectors": (
        'tensors of the file: expected "0.weight_c',
        replaced('"proj_size":0', '"proj_size":0,"peepholes":true'),
    ),
    "zoneout of all": ("zoneout", replaced('"proj_size":0', '"zoneout":1.0,"proj_size":0')),
    "huge": ("data of the file", replaced(f'"hidden_size":{H}', '"hidden_size":1000000')),
    "many layers": ("num_layers", replaced('"num_layers":1', '"num_layers":9')),
}


class TestHostileFiles:
    @pytest.fixture
    def data(self, tmp_path: Path) -> bytes:
        one_cell("lstm").quantize("int8").save(tmp_path / "good")
        return (tmp_path / "good").read_bytes()

    @pytest.mark.parametrize("name", HOSTILE)
    def test_contents_that_do_not_follow(self, name: str, data: bytes, tmp_path: Path) -> None:
        words, change = HOSTILE[name]
        header, body = split(data)
        change(header)
        path = tmp_path / "bad"
        path.write_bytes(joined(signed(header), body))
        assert words in assert_refused(path)

    @pytest.mark.parametrize(
        ("kind", "name", "number", "words"),
        [
            ("int8", "0.weight_hh_l0", b"\x80", "expected an integer in -127..=127, got -128"),
            ("int8", SCALE, np.float32(np.nan).tobytes(), "expected a finite number"),
            ("int8", "0.bias_ih_l0", np.float32(np.inf).tobytes(), "expected a finite number"),
            ("bf16", "0.weight_ih_l0", b"\x80\x7f", "expected a finite number"),
        ],
    )
    def test_numbers(self, kind: str, name: str, number: bytes, words: str, tmp_path: Path) -> None:
        path = tmp_path / "model"
        one_cell("lstm").quantize(kind).save(path)
        header, body = split(path.read_bytes())
        at = header[name]["data_offsets"][0] + 8 * len(number)
        bad = body[:at] + number + body[at + len(number) :]
        path.write_bytes(joined(header, bad))
        message = assert_refused(path)
        assert f'number 8 of "{name}"' in message
        assert words in message
        if number != b"\x80":
            assert isinstance(seqrs.load(path, allow_nonfinite=True), seqrs.QuantizedSequential)

    def test_truncated_anywhere(self, data: bytes, tmp_path: Path) -> None:
        path = tmp_path / "short"
        for end in [*range(0, 700, 7), *range(700, len(data), 97), len(data) - 1]:
            path.write_bytes(data[:end])
            with pytest.raises(seqrs.ModelFileError):
                seqrs.load(path)

    def test_hostile_bytes_of_a_pickle(self, data: bytes) -> None:
        for bad in (b"", data[:-1], deep_bytes()):
            with pytest.raises(seqrs.ModelFileError):
                seqrs._seqrs.QuantizedModel.from_bytes(bad)


def deep_bytes() -> bytes:
    """A file of another kind."""
    handle: Any = seqrs.LSTM(2, 3)._handle
    data: bytes = handle.to_bytes()
    return data
