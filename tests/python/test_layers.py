"""The layers besides the recurrent ones, models of layers, and both as values and files."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import PLACES
from cases import (
    CELLS,
    DTYPES,
    OWN,
    TO_REFERENCE,
    Array,
    assert_same,
    assert_same_state,
    character_model,
    differences,
    flat,
    make,
    numbers,
    randomise,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import REFERENCE_TO_DIFFERENCES, assert_close, assert_exact, assert_same_bits

B, T, F = 3, 4, 5
LENGTHS = [2, 4, 0]
LIVE = np.arange(T) < np.array(LENGTHS)[:, None]
FORMULA = {"float32": tolerances.FORMULA_F32, "float64": tolerances.FORMULA_F64}
FAR_FROM_ZERO = {
    "float32": tolerances.NORM_FAR_FROM_ZERO_F32,
    "float64": tolerances.NORM_FAR_FROM_ZERO_F64,
}


def some(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Array:
    return numbers(np.random.default_rng(seed), shape, dtype)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softmax": softmax,
}


@pytest.mark.parametrize(("dtype", "device"), PLACES)
class TestValues:
    def test_embedding_looks_up(self, dtype: str, device: str) -> None:
        layer = seqrs.Embedding(7, F, dtype=dtype).to(device)
        ids = np.random.default_rng(0).integers(0, 7, (B, T))
        y, state = layer(ids)
        assert state is None
        assert_same_bits(y, layer.state_dict()["weight"][ids])
        for kind in ("int8", "uint16", "int32", ">i8", "uint64"):
            assert_same_bits(layer(ids.astype(kind))[0], y)
        assert_same_bits(layer.step(ids[:, 0])[0], y[:, 0])

    def test_embedding_of_padding_is_zero(self, dtype: str, device: str) -> None:
        layer = seqrs.Embedding(7, F, padding_idx=2, dtype=dtype).to(device)
        weight = layer.state_dict()["weight"]
        assert not weight[2].any()
        assert np.delete(weight, 2, axis=0).all()
        assert not layer([[2, 2]])[0].any()

    def test_linear(self, dtype: str, device: str) -> None:
        layer = seqrs.Linear(F, 6, dtype=dtype).to(device)
        randomise(layer)
        x, w = some((B, T, F), dtype), layer.state_dict()
        expected = x @ w["weight"].T + w["bias"]
        assert_close(layer(x)[0], expected, FORMULA[dtype])
        assert_close(layer(x[:, 0])[0], expected[:, 0], FORMULA[dtype])
        bare = seqrs.Linear(F, 6, bias=False, dtype=dtype).to(device)
        assert list(bare.state_dict()) == ["weight"]
        bare.load_state_dict({"weight": w["weight"]})
        assert_close(bare(x)[0], x @ w["weight"].T, FORMULA[dtype])

    def test_layer_norm(self, dtype: str, device: str) -> None:
        layer = seqrs.LayerNorm(F, eps=1e-3, dtype=dtype).to(device)
        assert layer.state_dict()["weight"].tolist() == [1.0] * F
        assert layer.state_dict()["bias"].tolist() == [0.0] * F
        randomise(layer)
        x, w = some((B, T, F), dtype) * 3 + 1, layer.state_dict()
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-3)
        assert_close(layer(x)[0], centred / scale * w["weight"] + w["bias"], FORMULA[dtype])

    def test_layer_norm_far_from_zero_keeps_its_digits(self, dtype: str, device: str) -> None:
        layer = seqrs.LayerNorm(64, dtype=dtype).to(device)
        # 4096 + k/1024 is exact in float32.
        x = np.round(some((2, 3, 64), dtype) * 1024) / 1024
        expected, _ = layer(x)
        assert_close(layer(x + 4096)[0], expected, FAR_FROM_ZERO[dtype])

    @pytest.mark.parametrize("function", ACTIVATIONS)
    def test_activation(self, dtype: str, device: str, function: str) -> None:
        x = some((B, T, F), dtype) * 8
        y, state = seqrs.Activation(function).to(device)(x)
        assert state is None
        assert y.dtype == dtype
        assert_close(y, ACTIVATIONS[function](x.astype(np.float64)), FORMULA[dtype])

    def test_activations_of_large_numbers_do_not_overflow(self, dtype: str, device: str) -> None:
        x = np.array([[[-1e4, 1e4, 0.0], [3e4, 3e4, -3e4]]], dtype)
        for function, expected in {
            "softmax": [[[0, 1, 0], [0.5, 0.5, 0]]],
            "sigmoid": [[[0, 1, 0.5], [1, 1, 0]]],
            "tanh": [[[-1, 1, 0], [1, 1, -1]]],
        }.items():
            assert_exact(seqrs.Activation(function).to(device)(x)[0], expected, device)

    def test_dropout_does_nothing_at_inference(self, dtype: str, device: str) -> None:
        x = some((B, T, F), dtype)
        layer = seqrs.Dropout(0.5).to(device)
        assert_same_bits(layer(x)[0], x)
        assert_same_bits(layer.forward(x, training=False)[0], x)

    def test_dropout_keeps_and_scales_in_training(self, dtype: str, device: str) -> None:
        x = np.ones((40, 25, 10), dtype)
        layer = seqrs.Dropout(0.25, seed=1).to(device)
        y, _, tape = layer.forward(x)
        assert set(np.unique(y).tolist()) == {0.0, np.dtype(dtype).type(1 / 0.75).item()}
        assert abs((y == 0).mean() - 0.25) < tolerances.SHARE_OF_DRAWS
        assert not np.array_equal(layer.forward(x)[0], y)
        # On any device.
        assert_same_bits(seqrs.Dropout(0.25, seed=1).forward(x)[0], y)
        assert not np.array_equal(seqrs.Dropout(0.25, seed=2).forward(x)[0], y)
        # The gradient takes the same factors.
        assert_same_bits(np.asarray(layer.backward(tape, x).x), y)

    def test_pooling(self, dtype: str, device: str) -> None:
        x = some((B, T, F), dtype)
        last, _ = seqrs.Last().to(device)(x, lengths=LENGTHS)
        assert_same_bits(last, np.stack([x[0, 1], x[1, 3], np.zeros(F, dtype)]))
        mean, _ = seqrs.MeanPool().to(device)(x, lengths=LENGTHS)
        expected = [x[0, :2].mean(axis=0), x[1].mean(axis=0), np.zeros(F)]
        assert_close(mean, np.stack(expected), FORMULA[dtype])
        highest, _ = seqrs.MaxPool().to(device)(x, lengths=LENGTHS)
        expected = [x[0, :2].max(axis=0), x[1].max(axis=0), np.zeros(F, dtype)]
        assert_same_bits(highest, np.stack(expected))

    def test_pooling_over_a_mask_with_holes(self, dtype: str, device: str) -> None:
        x, mask = some((1, T, F), dtype), np.array([[False, True, False, True]])
        x[0, ::2] = np.nan
        last, highest, mean = (
            kind().to(device)(x, mask=mask)[0][0]
            for kind in (seqrs.Last, seqrs.MaxPool, seqrs.MeanPool)
        )
        assert_same_bits(last, x[0, 3])
        assert_same_bits(highest, x[0, 1::2].max(axis=0))
        assert_close(mean, x[0, 1::2].mean(axis=0), FORMULA[dtype])

    def test_last_over_two_directions(self, dtype: str, device: str) -> None:
        """Where each direction has read the whole row: that is its final state."""
        gru = make("gru-reset-before", dtype, F, 6, bidirectional=True)
        model = seqrs.Sequential([gru, seqrs.Last()]).to(device)
        x = some((B, T, F), dtype)
        y, (h,) = model(x, lengths=LENGTHS)
        expected = np.concatenate([h[0], h[1]], axis=1)
        assert_same_bits(y[:2], expected[:2])
        assert not y[2].any()
        mask = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]], bool)
        y, (h,) = model(x, mask=mask)
        assert_same_bits(y, np.concatenate([h[0], h[1]], axis=1))

    def test_time_first_models(self, dtype: str, device: str) -> None:
        def build(batch_first: bool) -> seqrs.Sequential:
            layers = [
                seqrs.Linear(F, F, dtype=dtype, seed=2),
                make("lstm", dtype, F, 6, batch_first=batch_first),
                seqrs.Linear(6, 2, dtype=dtype, seed=1),
            ]
            return seqrs.Sequential(layers).to(device)

        x = some((B, T, F), dtype)
        y, state = build(True)(x, lengths=LENGTHS)
        turned, turned_state = build(False)(x.swapaxes(0, 1), lengths=LENGTHS)
        assert_same_bits(turned.swapaxes(0, 1), y)
        assert_same_state(turned_state, state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_below_the_normal_ones_are_numbers(dtype: str) -> None:
    """IEEE: nothing is flushed to zero, here or in the arithmetic that comes after.

    Of the CPU alone: WGSL lets a GPU take such a number for zero.
    """
    tiny = np.finfo(dtype).tiny
    x = np.array([[[tiny / 4, -tiny / 8, tiny * 2]]], dtype)
    layer = seqrs.Linear(3, 3, bias=False, dtype=dtype)
    layer.load_state_dict({"weight": np.eye(3) / 2})
    assert_same_bits(layer(x)[0], x / 2)
    lstm = make("lstm", dtype, 3, 40)
    lstm.load_state_dict({k: 0 * v for k, v in lstm.state_dict().items()})
    c = np.full((1, 4, 40), tiny, dtype)
    _, (_, c_last) = lstm(np.zeros((4, 2, 3), dtype), (0 * c, c))
    assert_same_bits(c_last, c / 4)  # the forget gate is 1/2, at both steps
    assert (x / 4 != 0).all()


#: Models whose every gradient is compared with finite differences: (layers, input is ids).
GRADIENTS: dict[str, tuple[Callable[[str], list[Any]], bool]] = {
    "embedding": (lambda dtype: [seqrs.Embedding(6, F, dtype=dtype)], True),
    "linear": (lambda dtype: [seqrs.Linear(F, 3, dtype=dtype)], False),
    "linear-no-bias": (lambda dtype: [seqrs.Linear(F, 3, bias=False, dtype=dtype)], False),
    "layer-norm": (lambda dtype: [seqrs.LayerNorm(F, dtype=dtype)], False),
    "last": (lambda dtype: [make("lstm", dtype, F, 4), seqrs.Last()], False),
    "last-bidirectional": (
        lambda dtype: [make("rnn-tanh", dtype, F, 4, bidirectional=True), seqrs.Last()],
        False,
    ),
    "mean-pool": (lambda dtype: [make("lstm", dtype, F, 4), seqrs.MeanPool()], False),
    "max-pool": (lambda dtype: [make("lstm", dtype, F, 4), seqrs.MaxPool()], False),
    **{
        name: (
            lambda dtype, name=name: [  # type: ignore[misc]
                seqrs.Linear(F, 4, dtype=dtype),
                seqrs.Activation(name),
                seqrs.Linear(4, 2, dtype=dtype),
            ],
            False,
        )
        for name in ACTIVATIONS
    },
    "everything": (
        lambda dtype: [
            seqrs.Embedding(6, 4, dtype=dtype),
            make("lstm-projected", dtype, 4, 5, num_layers=2),
            seqrs.LayerNorm(3, dtype=dtype),
            make("gru-reset-before", dtype, 3, 4, bidirectional=True),
            seqrs.Activation("tanh"),
            seqrs.MeanPool(),
            seqrs.Linear(8, 3, dtype=dtype),
            seqrs.Activation("softmax"),
        ],
        True,
    ),
}


class OfModel:
    """A model of GRADIENTS with a scalar loss, the same numbers in any precision and place."""

    CHOICES: ClassVar[dict[str, dict[str, Any]]] = {
        "all-live": {},
        "lengths": {"lengths": LENGTHS},
        "mask": {"mask": np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]])},
    }

    def __init__(self, name: str, live: str, dtype: str = "float64", device: str = "cpu") -> None:
        build, of_ids = GRADIENTS[name]
        self.model = seqrs.Sequential(build(dtype)).to(device)
        randomise(self.model)
        self.options = self.CHOICES[live]
        ids = np.random.default_rng(0).integers(0, 6, (B, T))
        self.x: Array = ids if of_ids else some((B, T, F), dtype)
        self.y, self.final, tape = self.model.forward(self.x, **self.options)
        self.dy = some(self.y.shape, dtype, seed=1)
        self.d_final = [some(s.shape, dtype, seed=2) for s in flat(self.final)]
        d_final = rebuilt(self.final, list(self.d_final))
        self.gradients = self.model.backward(tape, self.dy, d_final)

    def loss(self) -> float:
        y, final = self.model(self.x, **self.options)
        of_state = sum((d * s).sum() for d, s in zip(self.d_final, flat(final), strict=True))
        return float((self.dy * y).sum() + of_state)


@pytest.mark.parametrize("live", OfModel.CHOICES)
@pytest.mark.parametrize("name", GRADIENTS)
class TestGradients:
    def test_against_finite_differences(self, name: str, live: str) -> None:
        """In float64, hence on the CPU: the one judge of what the others are compared with."""
        run = OfModel(name, live)
        weights = run.model.state_dict()

        def loss() -> float:
            run.model.load_state_dict(weights)
            return run.loss()

        assert list(run.gradients.params) == list(weights)
        for key, array in weights.items():
            expected = differences(loss, array)
            assert_close(run.gradients.params[key], expected, REFERENCE_TO_DIFFERENCES, key)
        if GRADIENTS[name][1]:
            assert run.gradients.x is None
        else:
            expected = differences(loss, run.x)
            assert_close(np.asarray(run.gradients.x), expected, REFERENCE_TO_DIFFERENCES, "x")

    def test_in_float32_they_are_those_of_float64(self, name: str, live: str, device: str) -> None:
        want, got = OfModel(name, live), OfModel(name, live, "float32", device)
        tolerance = TO_REFERENCE["float32"]
        assert_close(got.y, want.y, tolerance, "y")
        for a, b in zip(flat(got.final), flat(want.final), strict=True):
            assert_close(a, b, tolerance, "state")
        for a, b in zip(flat(got.gradients.state), flat(want.gradients.state), strict=True):
            assert_close(a, b, tolerance, "d_state")
        assert list(got.gradients.params) == list(want.gradients.params)
        for key, array in want.gradients.params.items():
            assert_close(got.gradients.params[key], array, tolerance, key)
        if GRADIENTS[name][1]:
            assert got.gradients.x is None
        else:
            assert_close(np.asarray(got.gradients.x), np.asarray(want.gradients.x), tolerance, "x")


@pytest.mark.parametrize(("dtype", "device"), PLACES)
class TestExactGradients:
    def test_the_padding_row_of_an_embedding_has_none(self, dtype: str, device: str) -> None:
        layer = seqrs.Embedding(5, F, padding_idx=1, dtype=dtype).to(device)
        y, _, tape = layer.forward([[0, 1, 1, 4]])
        d = layer.backward(tape, np.ones_like(y)).params["weight"]
        assert d.sum(axis=1).tolist() == [F, 0, 0, 0, F]

    def test_an_id_that_comes_often_adds_up(self, dtype: str, device: str) -> None:
        layer = seqrs.Embedding(3, 2, dtype=dtype).to(device)
        y, _, tape = layer.forward([[0, 0, 2], [2, 2, 2]], lengths=[3, 2])
        d = layer.backward(tape, np.ones_like(y)).params["weight"]
        assert d.tolist() == [[2, 2], [0, 0], [3, 3]]

    def test_the_highest_of_equals_gets_it_once(self, dtype: str, device: str) -> None:
        layer = seqrs.MaxPool().to(device)
        x = np.array([[[1.0], [3.0], [3.0]]], dtype)
        _, _, tape = layer.forward(x)
        assert np.asarray(layer.backward(tape, [[1.0]]).x).ravel().tolist() == [0, 1, 0]


def test_the_state_of_a_model_has_its_gradient() -> None:
    model = character_model(dtype="float64")
    ids = [[1, 2, 3]]
    state = ((some((1, 1, 12)), some((1, 1, 12), seed=1)),)
    y, final, tape = model.forward(ids, state)
    gradients = model.backward(tape, np.ones_like(y))
    for part, got in zip(flat(state), flat(gradients.state), strict=True):
        expected = differences(lambda: float(model(ids, state)[0].sum()), part)
        assert_close(got, expected, REFERENCE_TO_DIFFERENCES)
    assert len(final) == 1


def rebuilt(form: Any, arrays: list[Array]) -> Any:
    """Arrays in the form of a model's state, used up from the front."""
    if form is None:
        return None
    if isinstance(form, tuple):
        return tuple(rebuilt(part, arrays) for part in form)
    return arrays.pop(0)


class TestParameters:
    def test_names_and_shapes_of_a_model(self) -> None:
        model = character_model(vocab=11, hidden=12)
        assert {name: p.shape for name, p in model.state_dict().items()} == {
            "0.weight": (11, 6),
            "1.weight_ih_l0": (48, 6),
            "1.weight_hh_l0": (48, 12),
            "1.bias_ih_l0": (48,),
            "1.bias_hh_l0": (48,),
            "2.weight": (11, 12),
            "2.bias": (11,),
        }
        assert model.num_parameters == sum(p.size for p in model.state_dict().values())
        assert model.output_size == 11

    def test_initial_values_of_a_recurrent_layer(self) -> None:
        layer = seqrs.LSTM(50, 40, forget_bias=2.0, dtype="float64", seed=1)
        p = layer.state_dict()
        bound = np.sqrt(6 / 90)
        for gate in np.split(p["weight_ih_l0"], 4):
            assert 0.95 * bound < np.abs(gate).max() <= bound
            assert abs(gate.var() - bound**2 / 3) < 0.05 * bound**2
        for gate in np.split(p["weight_hh_l0"], 4):
            assert_close(gate.T @ gate, np.eye(40), tolerances.ORTHOGONAL_F64)
        assert p["bias_ih_l0"].tolist() == [0.0] * 40 + [2.0] * 40 + [0.0] * 80
        coupled = seqrs.LSTM(50, 40, coupled=True, forget_bias=2.0).state_dict()
        assert coupled["bias_ih_l0"].tolist() == [-2.0] * 40 + [0.0] * 80
        assert not p["bias_hh_l0"].any()
        assert not seqrs.GRU(3, 4).state_dict()["bias_ih_l0"].any()

    def test_initial_values_of_the_others(self) -> None:
        p = seqrs.Linear(50, 40, dtype="float64").state_dict()
        bound = np.sqrt(6 / 90)
        assert 0.95 * bound < np.abs(p["weight"]).max() <= bound
        assert not p["bias"].any()
        weight = seqrs.Embedding(100, 50, dtype="float64").state_dict()["weight"]
        assert abs(weight.mean()) < 0.05
        assert abs(weight.std() - 1) < 0.05

    @pytest.mark.parametrize("cell", CELLS)
    def test_a_state_dict_is_a_copy(self, cell: str, device: str) -> None:
        layer = make(cell, device=device)
        before = layer.state_dict()
        for array in layer.state_dict().values():
            array[...] = np.nan
        assert_same(layer.state_dict(), before)
        layer.load_state_dict(before)
        for array in before.values():
            array[...] = 0
        assert all(p.any() for p in layer.state_dict().values())

    def test_loading_takes_any_real_dtype_and_order(self, device: str) -> None:
        layer, other = make("lstm", device=device), make("lstm", weights=2)
        weights = other.state_dict()
        layer.load_state_dict(
            {k: np.asfortranarray(weights[k].astype(">f8")) for k in reversed(list(weights))}
        )
        assert layer == other
        layer.load_state_dict({k: v.tolist() for k, v in weights.items()})
        assert layer == other

    def test_not_strict_takes_what_fits_and_leaves_the_rest(self, device: str) -> None:
        layer = make("lstm", device=device)
        before = layer.state_dict()
        layer.load_state_dict({"bias_hh_l0": np.ones(28), "elsewhere": 1}, strict=False)
        after = layer.state_dict()
        assert (after.pop("bias_hh_l0") == 1).all()
        assert_same(after, {k: v for k, v in before.items() if k != "bias_hh_l0"})

    def test_the_two_grus_are_different_functions(self, device: str) -> None:
        before, after = (make(f"gru-reset-{when}", device=device) for when in ("before", "after"))
        weights = after.state_dict()
        after.load_state_dict({**weights, "bias_hh_l0": np.zeros(21)})
        before.load_state_dict({k: v for k, v in weights.items() if k != "bias_hh_l0"})
        x = some((2, 3, 5), "float32")
        assert np.abs(before(x)[0] - after(x)[0]).max() > 1e-3


class TestWithParameters:
    """A layer built from its parameters is what building and loading gives, without drawing."""

    LAYERS: ClassVar[dict[str, Any]] = {
        "rnn": lambda: seqrs.RNN(F, 3, 2, nonlinearity="relu", seed=5),
        "lstm": lambda: seqrs.LSTM(F, 4, bidirectional=True, proj_size=2, dtype="float64"),
        "lstm-peepholes": lambda: seqrs.LSTM(F, 3, peepholes=True, forget_bias=2.0),
        "gru": lambda: seqrs.GRU(F, 3, batch_first=False, dropout=0.5),
        "embedding": lambda: seqrs.Embedding(6, 3, 2, seed=1),
        "linear": lambda: seqrs.Linear(F, 3, dtype="float64"),
        "layer-norm": lambda: seqrs.LayerNorm(F, eps=1e-3),
        "tanh": lambda: seqrs.Activation("tanh"),
    }

    @staticmethod
    def options(layer: Any) -> dict[str, Any]:
        options = layer._options()
        return {name: options.get(name, layer.dtype) for name in layer.shown}

    @pytest.mark.parametrize("name", LAYERS)
    def test_it_is_the_layer_that_loaded_them(self, name: str, request: Any) -> None:
        layer = self.LAYERS[name]()
        weights = {k: some(w.shape, str(w.dtype), 3) for k, w in layer.state_dict().items()}
        layer.load_state_dict(weights)
        request.getfixturevalue("nothing_drawn")
        built = type(layer)._with_parameters(weights, **self.options(layer))
        assert built == layer
        assert repr(built) == repr(layer)  # with the seed
        assert built.fingerprint == layer.fingerprint

    def test_arrays_of_another_dtype_are_converted(self) -> None:
        weights = {"weight": some((3, F)), "bias": [1, 2, 3]}
        layer = seqrs.Linear._with_parameters(weights, F, 3)
        assert layer.dtype == "float32"
        assert_same_bits(layer.state_dict()["weight"], np.float32(weights["weight"]))
        layer.load_state_dict(seqrs.Linear(F, 3).state_dict())

    def test_what_does_not_fit(self) -> None:
        build = seqrs.GRU._with_parameters
        weights = seqrs.GRU(F, 3).state_dict()
        with pytest.raises(seqrs.ShapeError, match="exactly the parameters of this GRU"):
            build({k: w for k, w in weights.items() if k != "weight_hh_l0"}, F, 3)
        with pytest.raises(seqrs.ShapeError, match="also 'more'"):
            build(weights | {"more": [1.0]}, F, 3)
        with pytest.raises(seqrs.ShapeError, match="weight_ih_l0: expected shape"):
            build(weights, F + 1, 3)
        with pytest.raises(seqrs.ShapeError, match="another function"):
            build(weights, F, 3, reset_after=True)
        with pytest.raises(seqrs.DTypeError, match="weight_ih_l0"):
            build(weights | {"weight_ih_l0": np.zeros((9, F), complex)}, F, 3)
        with pytest.raises(TypeError, match="mapping: expected a mapping"):
            build(3, F, 3)
        with pytest.raises(seqrs.ShapeError, match="hidden_size"):
            build(weights, F, 0)
        with pytest.raises(seqrs.ShapeError, match="also 'w'"):
            seqrs.Dropout._with_parameters({"w": [1.0]}, 0.5)

    def test_values_and_files_draw_nothing(self, tmp_path: Path, request: Any) -> None:
        layer = seqrs.LSTM(F, 3)
        layer.save(tmp_path / "layer")
        pickled = pickle.dumps(layer)
        request.getfixturevalue("nothing_drawn")
        for other in (pickle.loads(pickled), copy.deepcopy(layer), seqrs.load(tmp_path / "layer")):
            assert other == layer


class TestValueSemantics:
    LAYERS: ClassVar[dict[str, Callable[[], Any]]] = {
        **{cell: (lambda cell=cell: make(cell, num_layers=2)) for cell in CELLS},  # type: ignore[misc]
        "embedding": lambda: seqrs.Embedding(5, 3, padding_idx=1),
        "linear": lambda: seqrs.Linear(5, 3, seed=4),
        "layer-norm": lambda: seqrs.LayerNorm(5, eps=1e-3),
        "dropout": lambda: seqrs.Dropout(0.3, seed=1),
        "last": seqrs.Last,
        "mean-pool": seqrs.MeanPool,
        "max-pool": seqrs.MaxPool,
        "activation": lambda: seqrs.Activation("relu"),
        "model": lambda: character_model(num_layers=2, dropout=0.3),
    }

    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize(
        ("copied", "stays"),
        [
            *[
                pytest.param(
                    lambda v, p=p: pickle.loads(pickle.dumps(v, p)),
                    False,
                    id=f"pickle-{p}",
                )
                for p in (2, 5)
            ],
            pytest.param(copy.deepcopy, True, id="deepcopy"),
            pytest.param(copy.copy, True, id="copy"),
        ],
    )
    def test_a_copy_is_equal_and_its_own(
        self, name: str, copied: Callable[[Any], Any], stays: bool, device: str
    ) -> None:
        value = self.LAYERS[name]().to(device)
        other = copied(value)
        # What another process or machine may read is of the CPU.
        assert other.device == (value.device if stays else "cpu")
        assert type(other) is type(value)
        assert other == value
        assert repr(other) == repr(value)
        assert other.fingerprint == value.fingerprint
        assert_same(other.state_dict(), value.state_dict())
        if value.num_parameters:
            before = value.state_dict()
            other.load_state_dict({k: v + 1 for k, v in before.items()})
            assert other != value
            assert other.fingerprint != value.fingerprint
            assert_same(value.state_dict(), before)

    @pytest.mark.parametrize("name", LAYERS)
    def test_repr_shows_every_option_and_builds_it_again(self, name: str) -> None:
        value = self.LAYERS[name]()
        again = eval(repr(value), vars(seqrs))
        assert repr(again) == repr(value)
        assert type(again) is type(value)

    def test_repr_of_a_fresh_model_builds_an_equal_one(self) -> None:
        model = character_model(num_layers=2, dropout=0.3)
        assert eval(repr(model), vars(seqrs)) == model

    def test_repr(self) -> None:
        assert repr(seqrs.GRU(2, 3, reset_after=True)) == (
            "GRU(input_size=2, hidden_size=3, num_layers=1, reset_after=True, "
            "gate_activation='sigmoid', candidate_activation='tanh', clip=None, layer_norm=False, "
            "bias=True, bidirectional=False, dropout=0.0, recurrent_dropout=0.0, zoneout=0.0, "
            "batch_first=True, dtype='float32', seed=0)"
        )

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("elu", "elu"),
            (("elu",), "elu"),
            (("elu", 1), "elu"),
            (("elu", 2), ("elu", 2.0)),
            (("hard_sigmoid", 0.25), ("hard_sigmoid", 0.25, 0.5)),
            (("hard_sigmoid", 0.2, np.float32(0.5)), "hard_sigmoid"),
            (("scaled_tanh", 1 / 3, 1e-300), ("scaled_tanh", 1 / 3, 1e-300)),
            (("affine", 1.0, -0.0), ("affine", 1.0, -0.0)),
        ],
    )
    def test_a_function_has_one_form(self, given: Any, shown: Any) -> None:
        """It is compared and shown as its name where its numbers are those by default."""
        layer: Any = seqrs.GRU(2, 3, gate_activation=given)
        assert repr(layer.gate_activation) == repr(shown)
        assert layer == seqrs.GRU(2, 3, gate_activation=shown)
        assert eval(repr(layer), vars(seqrs)) == layer

    @pytest.mark.parametrize("cell", CELLS)
    def test_options_are_those_that_were_given(self, cell: str) -> None:
        kind, options = CELLS[cell]
        layer = getattr(seqrs, kind)(2, 8, **options)
        plain = getattr(seqrs, kind)(2, 8)
        for name in OWN[kind]:
            assert getattr(layer, name) == options.get(name, getattr(plain, name)), name

    @pytest.mark.parametrize("kind", [seqrs.RNN, seqrs.LSTM, seqrs.GRU])
    def test_a_file_says_nothing_of_what_is_as_by_default(self, kind: Any) -> None:
        said = json.loads(kind(2, 3)._handle.spec_json)
        new = ("peepholes", "coupled", "clip", "gate_activation", "candidate_activation")
        assert not {*new, "output_activation"} & said.keys()
        assert {"kind", "input_size", "dropout", "seed"} <= said.keys()

    def test_equality(self) -> None:
        assert seqrs.LSTM(2, 3) == seqrs.LSTM(2, 3)
        assert seqrs.LSTM(2, 3) != seqrs.LSTM(2, 3, seed=1)  # other weights
        assert seqrs.LSTM(2, 3) != seqrs.LSTM(2, 3, dropout=0.5)
        assert seqrs.LSTM(2, 3) != seqrs.LSTM(2, 3, clip=3.0)
        assert seqrs.LSTM(2, 3) != seqrs.LSTM(2, 3, output_activation="relu")
        assert seqrs.LSTM(2, 3, gate_activation=("elu", 2.0)) != seqrs.LSTM(
            2, 3, gate_activation=("elu", 3.0)
        )
        assert seqrs.LSTM(2, 3) != seqrs.LSTM(2, 3, dtype="float64")
        assert seqrs.LSTM(2, 3) != seqrs.GRU(2, 3)
        assert seqrs.LSTM(2, 3) != 3
        assert character_model() == character_model()
        assert character_model() != character_model(seed=4)

    def test_a_seed_that_has_done_its_work_tells_no_models_apart(self, device: str) -> None:
        model, other = character_model(seed=1, device=device), character_model(seed=2)
        other.load_state_dict(model.state_dict())
        assert other == model
        assert other.fingerprint == model.fingerprint
        assert other.layers[1] == model.layers[1]
        assert other.layers[1].fingerprint == model.layers[1].fingerprint

    def test_negative_zero_is_not_zero(self, device: str) -> None:
        layer, other = make("lstm", device=device), make("lstm", device=device)
        weights = layer.state_dict()
        layer.load_state_dict({**weights, "bias_hh_l0": np.zeros(28)})
        other.load_state_dict({**weights, "bias_hh_l0": -np.zeros(28)})
        assert layer.fingerprint != other.fingerprint

    def test_a_copy_of_a_layer_with_dropout_draws_what_a_new_one_would(self, device: str) -> None:
        layer = make("lstm", num_layers=2, dropout=0.5, device=device)
        x = some((2, 3, 5), "float32")
        first = layer.forward(x)[0]
        assert not np.array_equal(layer.forward(x)[0], first)
        assert_same_bits(copy.copy(layer).forward(x)[0], first)


class TestSequential:
    def test_it_works_on_the_very_layers_it_is_given(self, device: str) -> None:
        lstm, linear = seqrs.LSTM(2, 3), seqrs.Linear(3, 1)
        model = seqrs.Sequential([lstm, linear]).to(device)
        assert lstm.device == linear.device == model.device
        assert model.layers == (lstm, linear)
        assert model.layers[0] is lstm
        assert (len(model), model[1], list(model)) == (2, linear, [lstm, linear])
        linear.load_state_dict({"weight": np.ones((1, 3)), "bias": [2.0]})
        assert model.state_dict()["1.bias"].tolist() == [2.0]
        seqrs.Trainer(model, loss=seqrs.MSE()).step(np.ones((1, 2, 2)), np.zeros((1, 2, 1)))
        assert linear.state_dict()["bias"].tolist() == model.state_dict()["1.bias"].tolist() != [2]
        x = some((1, 2, 2), "float32")
        assert_same_bits(linear(lstm(x)[0])[0], model(x)[0])

    def test_a_layer_in_two_models_is_trained_by_either(self, device: str) -> None:
        shared = seqrs.LSTM(2, 3)
        one, two = (seqrs.Sequential([shared, seqrs.Linear(3, n)]).to(device) for n in (1, 2))
        before = two.state_dict()
        seqrs.Trainer(one, loss=seqrs.MSE()).step(np.ones((1, 2, 2)), np.zeros((1, 2, 1)))
        after = two.state_dict()
        assert not np.array_equal(after["0.weight_ih_l0"], before["0.weight_ih_l0"])
        assert_same_bits(after["0.weight_ih_l0"], shared.state_dict()["weight_ih_l0"])
        assert_same_bits(after["1.weight"], before["1.weight"])

    def test_no_seed_leaves_the_layers_as_they_are(self) -> None:
        layers = [seqrs.LSTM(2, 3, seed=5), seqrs.Linear(3, 1, seed=6)]
        before = [layer.state_dict() for layer in layers]
        seqrs.Sequential(layers)
        for layer, weights in zip(layers, before, strict=True):
            assert_same(layer.state_dict(), weights)

    def test_state_is_a_tuple_of_the_recurrent_layers_states(self, device: str) -> None:
        layers = [seqrs.GRU(2, 3), seqrs.Linear(3, 4), seqrs.LSTM(4, 5, 2, proj_size=2)]
        model = seqrs.Sequential(layers).to(device)
        gru, lstm = model.initial_state(6)
        assert gru.shape == (1, 6, 3)
        assert [s.shape for s in lstm] == [(2, 6, 2), (2, 6, 5)]
        x = some((6, 3, 2), "float32")
        y, state = model(x)
        assert_same_state(state, model(x, model.initial_state(6))[1])
        assert_same_state(state, model(x, (None, None))[1])
        assert_same_state(state, model(x, (gru, None))[1])
        assert y.shape == (6, 3, 2)
        assert seqrs.Sequential([seqrs.Linear(2, 3)]).to(device).initial_state(2) == ()

    def test_a_model_is_its_layers_one_after_the_other(self, device: str) -> None:
        model = character_model(num_layers=2, device=device)
        ids = np.random.default_rng(0).integers(0, 11, (B, T))
        y, state = model(ids, lengths=LENGTHS)
        hidden, _ = model[0](ids, lengths=LENGTHS)
        hidden, own_state = model[1](hidden, lengths=LENGTHS)
        hidden, _ = model[2](hidden, lengths=LENGTHS)
        assert_same_bits(y, hidden)
        assert_same_state(state, own_state)
        assert not y[~LIVE].any()
        assert not np.signbit(y[~LIVE]).any()

    def test_summary(self) -> None:
        model = seqrs.Sequential(
            [seqrs.Embedding(100, 64), seqrs.LSTM(64, 256, 2), seqrs.Linear(256, 100)]
        )
        text = model.summary()
        assert f"{model.num_parameters:,}" in text
        multiply_adds = 4 * 256 * (64 + 256) + 4 * 256 * (256 + 256) + 256 * 100
        assert f"{multiply_adds:,}" in text
        assert f"{2 * 2 * 256 * 4:,}" in text
        for name in ("Embedding", "LSTM", "Linear", "float32"):
            assert name in text

    def test_tapes_tell_their_size(self, device: str) -> None:
        model = character_model(device=device)
        sizes = []
        for steps in (5, 50):
            _, _, tape = model.forward(np.zeros((4, steps), np.int64))
            sizes.append(tape.nbytes)
        assert 0 < sizes[0] < sizes[1]
        assert sizes[1] > 4 * 50 * 12 * 4


class TestFiles:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_a_layer_comes_back_as_a_layer(
        self, cell: str, dtype: str, device: str, tmp_path: Path
    ) -> None:
        options = {"num_layers": 2, "bidirectional": True, "batch_first": False, "dropout": 0.1}
        layer = make(cell, dtype, device=device, **options)
        layer.save(tmp_path / "layer")
        again = seqrs.load(tmp_path / "layer")
        assert again.device == "cpu"
        assert type(again) is type(layer)
        assert again == layer
        assert repr(again) == repr(layer)
        x = some((T, B, 5), dtype)
        assert_same_bits(again.to(device)(x)[0], layer(x)[0])

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_a_model_comes_back_as_a_model(self, dtype: str, device: str, tmp_path: Path) -> None:
        layers = [
            seqrs.Embedding(7, 4, padding_idx=0, dtype=dtype),
            seqrs.RNN(4, 5, nonlinearity="relu", bias=False, dtype=dtype),
            seqrs.LSTM(5, 6, 2, proj_size=3, dropout=0.25, forget_bias=0.5, dtype=dtype),
            seqrs.GRU(3, 4, reset_after=True, bidirectional=True, dtype=dtype),
            seqrs.LayerNorm(8, eps=1e-4, dtype=dtype),
            seqrs.Dropout(0.5),
            seqrs.Activation("relu"),
            seqrs.MaxPool(),
            seqrs.Linear(8, 2, bias=False, dtype=dtype),
        ]
        model = seqrs.Sequential(layers, seed=9).to(device)
        model.save(str(tmp_path / "model.safetensors"))
        again = seqrs.load(str(tmp_path / "model.safetensors"))
        assert isinstance(again, seqrs.Sequential)
        assert again == model
        assert repr(again) == repr(model)
        assert again.fingerprint == model.fingerprint
        ids = np.random.default_rng(0).integers(0, 7, (B, T))
        y, _ = again.to(device)(ids, lengths=[1, 4, 2])
        assert_same_bits(y, model(ids, lengths=[1, 4, 2])[0])
        again.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "model.safetensors").read_bytes()

    def test_a_model_that_was_trained(self, device: str, tmp_path: Path) -> None:
        model = character_model(device=device)
        ids = np.random.default_rng(0).integers(0, 11, (B, T))
        seqrs.Trainer(model).step(ids, ids)
        model.save(tmp_path / "model")
        again = seqrs.load(tmp_path / "model").to(device)
        assert_same(again.state_dict(), model.state_dict())
        # And goes on training as the original does.
        for each in (model, again):
            seqrs.Trainer(each).step(ids, ids)
        assert_same(again.state_dict(), model.state_dict())

    def test_saving_replaces_the_file_as_a_whole_and_leaves_nothing_else(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "model"
        path.write_bytes(b"something else" * 1000)
        character_model(seed=1).save(path)
        character_model(seed=2).save(path)
        assert seqrs.load(path) == character_model(seed=2)
        assert os.listdir(tmp_path) == ["model"]

    def test_a_failed_save_leaves_the_file_that_was_there(self, tmp_path: Path) -> None:
        model = character_model()
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_bytes(b"kept")
        for path in ("folder", "missing/model", "file/model"):
            with pytest.raises((OSError, seqrs.ModelFileError), match=re.escape(path)):
                model.save(tmp_path / path)
        assert (tmp_path / "file").read_bytes() == b"kept"
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]

    def test_files_have_the_permissions_of_new_files(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            character_model().save(tmp_path / "model")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o640

    def test_names_of_any_script(self, tmp_path: Path) -> None:
        path = tmp_path / "модель ✓ 模型"
        character_model().save(path)
        assert seqrs.load(path) == character_model()

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(
        cell=st.sampled_from(list(CELLS)),
        sizes=st.tuples(st.integers(1, 9), st.integers(4, 9), st.integers(1, 3)),
        bias=st.booleans(),
        bidirectional=st.booleans(),
        dtype=st.sampled_from(DTYPES),
        seed=st.integers(0, 2**64 - 1),
    )
    def test_any_layer_comes_back(
        self,
        cell: str,
        sizes: tuple[int, int, int],
        bias: bool,
        bidirectional: bool,
        dtype: str,
        seed: int,
    ) -> None:
        kind, options = CELLS[cell]
        layer = getattr(seqrs, kind)(
            *sizes, **options, bias=bias, bidirectional=bidirectional, dtype=dtype, seed=seed
        )
        again = pickle.loads(pickle.dumps(layer))
        assert again == layer
        assert repr(again) == repr(layer)
