"""One step: where its results go, and that it sees every change of the weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import CELLS, DTYPES, Array, assert_same_state, flat, make, numbers, python
from tolerances import PACKAGE_TO_REFERENCE_F32, assert_close, assert_same_bits

B, I, H = 3, 5, 7  # noqa: E741 (the letters of the design)


def x_of(seed: int, dtype: str = "float32", rows: int = B, width: int = I) -> Array:
    return numbers(np.random.default_rng(seed), (rows, width), dtype)


def model_of(dtype: str = "float32") -> seqrs.Sequential:
    layers = [
        seqrs.LayerNorm(I, dtype=dtype),
        seqrs.LSTM(I, H, 2, dtype=dtype),
        seqrs.Activation("tanh"),
        seqrs.GRU(H, H, dtype=dtype),
        seqrs.Linear(H, 4, dtype=dtype),
        seqrs.Activation("softmax"),
    ]
    return seqrs.Sequential(layers, seed=2)


def like_arrays(result: Any) -> Any:
    """Arrays of the form of a result, full of something else."""
    if isinstance(result, tuple):
        return tuple(like_arrays(part) for part in result)
    return np.full_like(result, 77)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
class TestOut:
    def test_results_are_written_there_and_given_back(self, cell: str, dtype: str) -> None:
        layer = make(cell, dtype)
        _, state = layer.step(x_of(1, dtype))
        y, after = layer.step(x_of(2, dtype), state)
        out = like_arrays((y, after))
        got_y, got_state = layer.step(x_of(2, dtype), state, out=out)
        assert got_y is out[0]
        assert got_state is out[1]
        assert_same_bits(got_y, y)
        assert_same_state(got_state, after)

    def test_the_state_moves_on_in_place(self, cell: str, dtype: str) -> None:
        layer = make(cell, dtype)
        state = layer.initial_state(B)
        own = layer.initial_state(B)
        out = np.empty((B, layer.output_size), dtype)
        for k in range(4):
            y, state = layer.step(x_of(k, dtype), state)
            layer.step(x_of(k, dtype), own, out=(out, own))
            assert_same_bits(out, y)
            assert_same_state(own, state)


class TestOutOfModels:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_state_moves_on_in_place(self, dtype: str) -> None:
        model = model_of(dtype)
        state: Any = None
        own = model.initial_state(B)
        out = np.empty((B, 4), dtype)
        for k in range(4):
            y, state = model.step(x_of(k, dtype), state)
            got = model.step(x_of(k, dtype), own, out=(out, own))
            assert got[0] is out
            assert got[1] is own
            assert_same_bits(out, y)
            assert_same_state(own, state)

    def test_an_array_alone_is_for_y(self) -> None:
        model = model_of()
        y, state = model.step(x_of(1))
        out = np.empty_like(y)
        got, got_state = model.step(x_of(1), out=out)
        assert got is out
        assert_same_bits(out, y)
        assert_same_state(got_state, state)

    def test_of_ids(self) -> None:
        model = seqrs.Sequential([seqrs.Embedding(9, 4), seqrs.RNN(4, 3)], seed=1)
        y, state = model.step([1, 8])
        out = (np.empty((2, 3), np.float32), (np.empty((1, 2, 3), np.float32),))
        model.step([1, 8], out=out)
        assert_same_bits(out[0], y)
        assert_same_bits(out[1][0], state[0])

    def test_results_too_large_to_be_copied(self) -> None:
        layer = seqrs.LSTM(8, 64)
        x = x_of(1, rows=200, width=8)
        y, state = layer.step(x)
        out = like_arrays((y, state))
        layer.step(x, out=out)
        assert_same_bits(out[0], y)
        assert_same_state(out[1], state)
        alone, _ = layer.step(x[150:151])
        assert_same_bits(y[150:151], alone)


def test_on_each_device(device: str) -> None:
    model = seqrs.Sequential([seqrs.GRU(I, H), seqrs.Linear(H, 2)], seed=1).to(device)
    y, state = model.step(x_of(1))
    out = like_arrays((y, state))
    if device == "cpu":
        model.step(x_of(1), out=out)
        assert_same_bits(out[0], y)
        return
    with pytest.raises(seqrs.StateError, match="out: expected None, got a model on a GPU"):
        model.step(x_of(1), out=out)
    model.warmup(2, 3)
    model.to("cpu").step(x_of(1), out=out)
    assert_close(y, out[0], PACKAGE_TO_REFERENCE_F32)


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


H_SHAPE = (1, B, H)
STATE = (np.zeros(H_SHAPE, np.float32), np.zeros(H_SHAPE, np.float32))
Y = np.zeros((B, H), np.float32)
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a list": ([[0.0] * H] * B, seqrs.ShapeError, "out: expected an array, or (y, state), got 3"),
    "a number": (3.0, seqrs.DTypeError, "out: y: expected an array of float32"),
    "another shape": (np.zeros((B, H + 1), np.float32), seqrs.ShapeError, "out: y: expected shape"),
    "another dtype": (np.zeros((B, H)), seqrs.DTypeError, "out: y: expected an array of float32"),
    "another byte order": (Y.astype(">f4"), seqrs.DTypeError, "out: y: expected an array"),
    "column by column": (np.zeros((H, B), np.float32).T, seqrs.ShapeError, "lies otherwise"),
    "read-only": (read_only(Y.copy()), seqrs.ShapeError, "a read-only one"),
    "a triple": ((Y, *STATE), seqrs.ShapeError, "out: expected an array, or (y, state), got 3"),
    "no state": ((Y, None), seqrs.ShapeError, "out: state"),
    "h alone": ((Y, STATE[0]), seqrs.ShapeError, "out: state: expected (h, c)"),
    "a state of another batch": (
        (Y, (STATE[0], np.zeros((1, B + 1, H), np.float32))),
        seqrs.ShapeError,
        "out: state: c: expected shape (1, 3, 7)",
    ),
    "one array twice": ((Y, (STATE[0], STATE[0])), seqrs.ShapeError, "two that overlap"),
    "overlapping": ((STATE[0][0], STATE), seqrs.ShapeError, "two that overlap"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written_to_is_refused_and_nothing_is_written(name: str) -> None:
    out, kind, message = WRONG[name]
    before = [array.copy() for array in (Y, *STATE)]
    with pytest.raises(kind) as caught:
        seqrs.LSTM(I, H).step(x_of(1), out=out)
    assert message in str(caught.value)
    for array, was in zip((Y, *STATE), before, strict=True):
        assert_same_bits(array, was)


def test_a_failed_step_writes_nothing() -> None:
    model = seqrs.Sequential([seqrs.Embedding(9, 4), seqrs.RNN(4, 3)])
    state = model.step([1, 2])[1]
    before = [array.copy() for array in flat(state)]
    y = np.full((2, 3), 7, np.float32)
    with pytest.raises(seqrs.ShapeError, match="9"):
        model.step([1, 9], state, out=(y, state))
    with pytest.raises(seqrs.ShapeError):
        model.step([1, 2], (np.zeros((1, 3, 3)),), out=(y, state))
    assert (y == 7).all()
    for array, was in zip(flat(state), before, strict=True):
        assert_same_bits(array, was)


class TestChanges:
    """A step is made ready once, and again when something has changed."""

    def test_of_a_layer(self) -> None:
        layer, other = seqrs.GRU(I, H, seed=1), seqrs.GRU(I, H, seed=2)
        before = layer.step(x_of(1))[0]
        layer.load_state_dict(other.state_dict())
        assert_same_bits(layer.step(x_of(1))[0], other.step(x_of(1))[0])
        assert (layer.step(x_of(1))[0] != before).any()

    def test_of_a_layer_within_a_model(self) -> None:
        layer, other = seqrs.GRU(I, H, seed=1), seqrs.GRU(I, H, seed=2)
        model = seqrs.Sequential([layer, seqrs.Activation("tanh")])
        model.step(x_of(1))
        layer.load_state_dict(other.state_dict())
        expected = seqrs.Sequential([other, seqrs.Activation("tanh")]).step(x_of(1))[0]
        assert_same_bits(model.step(x_of(1))[0], expected)

    def test_of_a_model_that_is_trained(self) -> None:
        model = model_of()
        trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.SGD(lr=0.1))
        for k in range(3):
            trainer.step(x_of(k)[:, None], np.ones((B, 1, 4), np.float32))
            y, _ = model.step(x_of(9))
            assert_same_bits(y, model(x_of(9)[:, None])[0][:, 0])

    def test_a_layer_without_parameters_computes_in_the_type_that_it_is_given(self) -> None:
        layer = seqrs.Activation("tanh")
        for dtype in ("float32", "float64", "float32"):
            y, state = layer.step(x_of(1, dtype))
            assert (y.dtype, state) == (dtype, None)
            assert_same_bits(y, layer(x_of(1, dtype)[:, None])[0][:, 0])

    def test_the_parameters_from_before_are_not_kept(self) -> None:
        found = python(
            """
            import numpy as np, seqrs
            from allocated import allocated
            layer = seqrs.LSTM(500, 500)
            weights = layer.state_dict()
            x = np.zeros((1, 500), np.float32)
            layer.step(x)
            before = allocated()
            for _ in range(4):
                layer.load_state_dict(weights)
                layer.step(x)
            assert allocated() - before < 1 << 20, allocated() - before
            """.replace("\n            ", "\n")
        )
        assert found.returncode == 0, found.stderr


def test_threads_step_one_layer_at_once() -> None:
    layer = seqrs.LSTM(I, H)
    expected = [layer.step(x_of(k)) for k in range(8)]
    failures: list[BaseException] = []

    def run(k: int) -> None:
        try:
            for _ in range(200):
                y, state = layer.step(x_of(k))
                assert_same_bits(y, expected[k][0])
                assert_same_state(state, expected[k][1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


class TestWarmup:
    @pytest.mark.parametrize(
        "make_one",
        [
            model_of,
            lambda: seqrs.Sequential([seqrs.Embedding(5, 2), seqrs.RNN(2, 3, bidirectional=True)]),
            lambda: seqrs.Activation("relu"),
            lambda: seqrs.Sequential([seqrs.LSTM(2, 3), seqrs.MeanPool(), seqrs.Linear(3, 1)]),
        ],
        ids=["stepwise", "bidirectional ids", "any width", "pooled"],
    )
    def test_of_any_model(self, make_one: Callable[[], Any]) -> None:
        make_one().warmup()
        make_one().warmup(batch_size=3, steps=4)

    @pytest.mark.parametrize("argument", ["batch_size", "steps"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
    def test_what_is_no_size_is_refused(self, argument: str, value: Any) -> None:
        with pytest.raises((seqrs.ShapeError, TypeError), match=argument):
            model_of().warmup(**{argument: value})

    def test_the_first_step_is_like_any_other(self) -> None:
        layer = seqrs.LSTM(512, 512)
        layer.warmup()
        x = np.zeros((1, 512), np.float32)
        start = time.perf_counter()
        layer.step(x)
        first = time.perf_counter() - start
        # Packing the weights takes some 5 ms.
        assert first < 0.003


def test_self_test_finds_this_installation_well() -> None:
    found = seqrs.self_test()
    assert found["info"]["version"] == seqrs.__version__
    assert len(found["errors"]) == 8
    assert all(0 <= error < 3e-5 for error in found["errors"].values())


def test_self_test_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from seqrs import reference

    forward = reference.GRU.forward

    def wrong(self: Any, *arguments: Any, **options: Any) -> Any:
        y, state, tape = forward(self, *arguments, **options)
        return y + 1e-3, state, tape

    monkeypatch.setattr(reference.GRU, "forward", wrong)
    with pytest.raises(seqrs.InternalError, match="GRU, float32: y: expected the reference's"):
        seqrs.self_test()
