"""RNN, LSTM and GRU of the package against the NumPy reference and PyTorch's golden files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import PLACES
from cases import (
    CELLS,
    DTYPES,
    GOLDEN,
    LIVE,
    TO_REFERENCE,
    Array,
    B,
    Given,
    H,
    I,
    T,
    assert_same,
    everything,
    like,
    live_for,
    make,
    named,
    numbers,
    parts,
    randomise,
    twin,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import assert_close, assert_same_bits

GOLDENS = sorted((GOLDEN / "layers").glob("*.npz"))
SATURATED = {"float32": tolerances.SATURATED_F32, "float64": tolerances.SATURATED_F64}


#: Cells that are walked as others are; they are tried in fewer structures.
ALIKE = [cell for cell in CELLS if "coupled" in cell or "chosen" in cell]
#: Cell, layers, whether both directions, whether biases.
CONFIGURATIONS = [
    (cell, num_layers, bidirectional, bias)
    for cell in CELLS
    for num_layers in (1, 2, 3)
    for bidirectional in (False, True)
    for bias in (True, False)
    if cell not in ALIKE
    or (num_layers, bidirectional, bias) in ((1, False, False), (2, True, True))
]


@pytest.mark.parametrize(("dtype", "device"), PLACES)
@pytest.mark.parametrize("live", LIVE)
@pytest.mark.parametrize(
    ("cell", "num_layers", "bidirectional", "bias"),
    CONFIGURATIONS,
    ids=[
        f"{cell}-{num_layers}-{'bidirectional' if bidirectional else 'forward'}"
        f"-{'bias' if bias else 'no-bias'}"
        for cell, num_layers, bidirectional, bias in CONFIGURATIONS
    ],
)
class TestEveryConfiguration:
    def test_outputs_states_and_gradients(
        self,
        cell: str,
        num_layers: int,
        bidirectional: bool,
        bias: bool,
        live: str,
        dtype: str,
        device: str,
    ) -> None:
        options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias}
        layer = make(cell, dtype, device=device, **options)
        check(layer, Given(layer), live_for(layer, live))


#: Each in every place that a cell has for one.
FUNCTIONS = [
    *("relu", "tanh", "sigmoid", "affine", "leaky_relu", "thresholded_relu", "scaled_tanh"),
    *("hard_sigmoid", "elu", "softsign", "softplus"),
    *(("affine", 0.5, -0.25), ("leaky_relu", 0.25), ("thresholded_relu", -0.5), ("elu", 0.5)),
    *(("scaled_tanh", 1.5, 0.75), ("hard_sigmoid", 0.125, 0.25)),
]


@pytest.mark.parametrize(("dtype", "device"), PLACES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
class TestFunctions:
    def test_in_every_place(self, function: Any, dtype: str, device: str) -> None:
        # Sums stay small, as an LSTM whose gates are above 1 grows at each step.
        everywhere = {"gate_activation": function, "candidate_activation": function}
        for kind, options in {
            "RNN": {"nonlinearity": function},
            "LSTM": everywhere | {"output_activation": function},
            "GRU": everywhere,
        }.items():
            layer = getattr(seqrs, kind)(I, 19, **options, bidirectional=True, dtype=dtype)
            randomise(layer)
            layer.load_state_dict({k: w / 4 for k, w in layer.state_dict().items()})
            check(layer.to(device), Given(layer), {"lengths": [2, T, 0, T - 1]})

    def test_names_and_numbers(self, function: Any, dtype: str, device: str) -> None:
        """As an option, in a file, and through pickling."""
        layer: Any = seqrs.LSTM(2, 3, gate_activation=function, dtype=dtype).to(device)
        assert layer.gate_activation == function
        assert pickle.loads(pickle.dumps(layer)).gate_activation == function
        assert f"gate_activation={function!r}" in repr(layer)
        assert (layer == seqrs.LSTM(2, 3, dtype=dtype)) == (function == "sigmoid")


#: (B, T, I, H): one of everything, and sizes below, at and above the width of a vector or a panel.
SIZES = [
    (1, 1, 1, 1),
    (1, 9, 3, 16),
    (2, 3, 16, 15),
    (3, 5, 17, 33),
    (7, 4, 8, 64),
    (16, 3, 65, 48),
    (33, 8, 12, 40),
    (5, 60, 4, 24),
    (9, 2, 130, 130),
]


@pytest.mark.parametrize(("dtype", "device"), PLACES)
@pytest.mark.parametrize("size", SIZES, ids=["x".join(map(str, size)) for size in SIZES])
@pytest.mark.parametrize("cell", CELLS)
class TestSizes:
    def test_outputs_states_and_gradients(
        self, cell: str, size: tuple[int, int, int, int], dtype: str, device: str
    ) -> None:
        batch, steps, inputs, hidden = size
        if cell.endswith("projected") and hidden <= 3:
            hidden = 4
        layer = make(cell, dtype, inputs, hidden, bidirectional=True, device=device)
        check(layer, Given(layer, batch, steps), {})
        lengths = np.arange(batch) * 7 % (steps + 1)
        check(layer, Given(layer, batch, steps), {"lengths": lengths})


class TestForms:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("cell", CELLS)
    def test_time_first(self, cell: str, live: str, dtype: str, device: str) -> None:
        options = {"num_layers": 2, "bidirectional": True, "batch_first": False}
        layer = make(cell, dtype, device=device, **options)
        check(layer, Given(layer), live_for(layer, live))

    @pytest.mark.parametrize("cell", CELLS)
    def test_no_state_is_a_state_of_zeros(self, cell: str, device: str) -> None:
        layer = make(cell, bidirectional=True, device=device)
        feed = Given(layer)
        feed.state = layer.initial_state(B)
        expected = everything(layer, feed)
        feed.state = None
        assert_same(everything(layer, feed), expected)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_only_dy_or_only_dstate(self, cell: str, dtype: str, device: str) -> None:
        layer = make(cell, dtype, num_layers=2, bidirectional=True, device=device)
        feed, other = Given(layer), twin(layer)
        _, _, tape = layer.forward(feed.x, feed.state)
        _, _, other_tape = other.forward(feed.x, feed.state)
        for arguments in ({"dy": feed.dy}, {"dstate": feed.dstate}):
            expected = dict(named(other.backward(other_tape, **arguments)))
            for name, got in named(layer.backward(tape, **arguments)):
                assert_close(got, expected[name], TO_REFERENCE[dtype], name)

    @pytest.mark.parametrize("cell", CELLS)
    def test_inference_is_forward_without_a_tape(self, cell: str, device: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True, device=device)
        feed = Given(layer)
        y, final = layer(feed.x, feed.state, lengths=[1, 2, 3, 0])
        y_f, final_f, _ = layer.forward(feed.x, feed.state, lengths=[1, 2, 3, 0])
        assert_same_bits(y, y_f)
        for got, expected in zip(parts(final), parts(final_f), strict=True):
            assert_same_bits(got, expected)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_a_step_is_the_references_step(self, cell: str, dtype: str, device: str) -> None:
        layer = make(cell, dtype, num_layers=2, device=device)
        feed, other = Given(layer), twin(layer)
        y, after = layer.step(feed.x[:, 0], feed.state)
        y_r, after_r = other.step(feed.x[:, 0], feed.state)
        assert_close(y, y_r, TO_REFERENCE[dtype])
        for got, expected in zip(parts(after), parts(after_r), strict=True):
            assert_close(got, expected, TO_REFERENCE[dtype])

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_results_are_new_c_contiguous_arrays_of_the_layers_dtype(
        self, dtype: str, device: str
    ) -> None:
        layer = make("lstm", dtype, batch_first=False, device=device)
        feed = Given(layer)
        found = everything(layer, feed)
        for name, array in found.items():
            assert array.dtype == dtype, name
            assert array.flags.c_contiguous, name
            assert array.flags.writeable, name
            assert not any(np.shares_memory(array, s) for s in (feed.x, *feed.state)), name

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_parameters_far_from_zero_saturate_without_nan(self, dtype: str, device: str) -> None:
        for cell in CELLS:
            if cell == "rnn-relu":
                continue
            layer = make(cell, dtype, device=device)
            layer.load_state_dict({k: 400.0 * v for k, v in layer.state_dict().items()})
            feed = Given(layer)
            got, expected = everything(layer, feed), everything(twin(layer), feed)
            # 1 - tanh^2 has lost its digits where tanh is 1: gradients are only of one size.
            for name, array in expected.items():
                size = max(1.0, np.abs(array).max())
                assert np.abs(got[name] - array).max() <= SATURATED[dtype] * size, (cell, name)

    @pytest.mark.parametrize("cell", CELLS)
    def test_names_order_and_shapes_of_parameters(self, cell: str) -> None:
        for options in ({}, {"bias": False}, {"num_layers": 2, "bidirectional": True}):
            layer = make(cell, **options)
            expected = [(name, p.shape) for name, p in twin(layer).state_dict().items()]
            assert [(name, p.shape) for name, p in layer.state_dict().items()] == expected
            assert layer.num_parameters == sum(int(np.prod(shape)) for _, shape in expected)


class TestGolden:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
    def test_outputs_states_and_gradients_are_pytorchs(
        self, path: Path, dtype: str, device: str
    ) -> None:
        golden = np.load(path)
        config = json.loads(str(golden["config"]))
        layer = getattr(seqrs, config["layer"])(*config["sizes"], **config["options"], dtype=dtype)
        weights = {k.removeprefix("param."): golden[k] for k in golden if k.startswith("param.")}
        assert list(layer.state_dict()) == list(weights)
        layer.to(device).load_state_dict(weights)

        letters = "hc" if config["layer"] == "LSTM" else "h"
        form = layer.initial_state(1)
        state = like(form, [golden[f"{k}0"] for k in letters]) if "h0" in golden else None
        y, final, tape = layer.forward(golden["x"], state, lengths=config["lengths"])
        gradients = layer.backward(
            tape, golden["dy"], like(form, [golden[f"d{k}"] for k in letters])
        )

        tolerance = tolerances.PACKAGE_TO_PYTORCH_F64 if dtype == "float64" else TO_REFERENCE[dtype]
        assert_close(y, golden["y"], tolerance, "y")
        for letter, array in zip(letters, parts(final), strict=True):
            assert_close(array, golden[letter], tolerance, letter)
        for name, array in named(gradients):
            if name in ("d_h0", "d_c0") and name not in golden:
                continue
            expected = golden[name if name in golden else f"d_param.{name.removeprefix('d_')}"]
            assert_close(array, expected, tolerance, name)

    def test_there_are_golden_files(self) -> None:
        assert len(GOLDENS) == 24


def check(layer: Any, feed: Given, live: dict[str, Any]) -> None:
    """All that comes out of the layer against its twin in the reference."""
    expected = everything(twin(layer), feed, **live)
    got = everything(layer, feed, **live)
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert_close(got[name], array, TO_REFERENCE[layer.dtype], name)


LAYER = make("lstm", "float64", bidirectional=True)
QUIET = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def strided(array: Array, form: str) -> Array:
    """The numbers of `array` in another layout."""
    if form == "fortran":
        return np.asfortranarray(array)
    if form == "reversed":
        return np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    if form == "every-other":
        wide = np.full(tuple(2 * n for n in array.shape), np.nan, array.dtype)
        wide[::2, ::2, ::2] = array
        return wide[::2, ::2, ::2]
    if form == "transposed":
        return np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0)
    if form == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype) if array.size == 0 else raw[1 : 1 + array.nbytes]
        shifted = np.frombuffer(view.data, dtype=array.dtype).reshape(array.shape)
        shifted[...] = array
        return shifted
    if form == "read-only":
        copy = array.copy()
        copy.flags.writeable = False
        return copy
    if form == "big-endian":
        return array.astype(array.dtype.newbyteorder(">"))
    return array


FORMS = [
    "fortran",
    "reversed",
    "every-other",
    "transposed",
    "unaligned",
    "read-only",
    "big-endian",
]


class TestArraysOfAnyKind:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_layout_has_no_influence(self, form: str, dtype: str) -> None:
        layer = make("lstm", dtype, bidirectional=True)
        feed = Given(layer)
        expected = everything(layer, feed, lengths=[1, 2, T, 3])
        feed.x, feed.dy = strided(feed.x, form), strided(feed.dy, form)
        feed.state = tuple(strided(s, form) for s in feed.state)
        feed.dstate = tuple(strided(s, form) for s in feed.dstate)
        assert_same(everything(layer, feed, lengths=[1, 2, T, 3]), expected)

    def test_broadcast_arrays_with_zero_strides(self) -> None:
        x = np.broadcast_to(np.array([0.5, -0.25, 1.0, 2.0, 0.0]), (B, T, I))
        assert 0 in x.strides
        expected, _ = LAYER(np.ascontiguousarray(x))
        assert_same_bits(LAYER(x)[0], expected)

    @pytest.mark.parametrize(
        "dtype",
        ["int8", "uint8", "int16", ">i2", "int32", "uint32", "int64", ">i8", "uint64"],
    )
    def test_integers_are_numbers(self, dtype: str) -> None:
        x = np.random.default_rng(0).integers(0, 5, (B, T, I)).astype(dtype)
        expected, _ = LAYER(x.astype("float64"))
        assert_same_bits(LAYER(x)[0], expected)

    @pytest.mark.parametrize("dtype", ["float16", ">f2", "float32", ">f4", "float64", ">f8"])
    def test_every_real_dtype(self, dtype: str) -> None:
        x = np.random.default_rng(0).integers(-64, 64, (B, T, I)) / 64
        expected, _ = LAYER(x)
        assert_same_bits(LAYER(x.astype(dtype))[0], expected)

    def test_longdouble(self) -> None:
        x = np.random.default_rng(0).integers(-64, 64, (B, T, I)) / 64
        assert_same_bits(LAYER(x.astype(np.longdouble))[0], LAYER(x)[0])

    def test_lists_and_tuples(self) -> None:
        feed = Given(LAYER)
        expected, _ = LAYER(feed.x, feed.state, lengths=[1, 2, 3, 4])
        state = tuple(s.tolist() for s in feed.state)
        got, _ = LAYER(feed.x.tolist(), state, lengths=(1, 2, 3, 4))
        assert_same_bits(got, expected)
        assert_same_bits(LAYER(feed.x, feed.state, lengths=np.array([1, 2, 3, 4], ">u2"))[0], got)

    def test_objects_with_array(self) -> None:
        class Wrapped:
            def __init__(self, array: Array) -> None:
                self.array = array

            def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
                return self.array.astype(dtype or self.array.dtype)

        feed = Given(LAYER)
        assert_same_bits(LAYER(Wrapped(feed.x))[0], LAYER(feed.x)[0])

    def test_objects_with_dlpack(self) -> None:
        class OnlyDlpack:
            def __init__(self, array: Array) -> None:
                self.array = array

            def __dlpack__(self, **options: Any) -> Any:
                return self.array.__dlpack__(**options)

            def __dlpack_device__(self) -> Any:
                return self.array.__dlpack_device__()

        feed = Given(LAYER)
        assert_same_bits(LAYER(OnlyDlpack(feed.x))[0], LAYER(feed.x)[0])

    @pytest.mark.parametrize("mask_dtype", ["bool", "int8", "uint8", "int64", ">i4"])
    def test_masks_are_booleans_or_integers(self, mask_dtype: str) -> None:
        mask = LIVE["mask-with-holes"]["mask"]
        feed = Given(LAYER)
        expected, _ = LAYER(feed.x, mask=mask)
        assert_same_bits(LAYER(feed.x, mask=mask.astype(mask_dtype))[0], expected)
        assert_same_bits(LAYER(feed.x, mask=np.asfortranarray(mask))[0], expected)
        assert_same_bits(LAYER(feed.x, mask=mask.astype(int).tolist())[0], expected)

    def test_arguments_are_left_alone(self) -> None:
        feed, untouched = Given(LAYER), Given(LAYER)
        everything(LAYER, feed, lengths=[1, 2, T, 0])
        for a, b in zip(
            (feed.x, feed.dy, *feed.state, *feed.dstate),
            (untouched.x, untouched.dy, *untouched.state, *untouched.dstate),
            strict=True,
        ):
            assert_same_bits(a, b)


class TestProperties:
    @QUIET
    @given(
        cell=st.sampled_from(list(CELLS)),
        batch=st.integers(0, 5),
        steps=st.integers(0, 6),
        inputs=st.integers(1, 9),
        hidden=st.integers(4, 19),
        num_layers=st.integers(1, 2),
        bidirectional=st.booleans(),
        dtype=st.sampled_from(DTYPES),
        data=st.data(),
    )
    def test_any_shape_with_any_lengths_or_mask(
        self,
        cell: str,
        batch: int,
        steps: int,
        inputs: int,
        hidden: int,
        num_layers: int,
        bidirectional: bool,
        dtype: str,
        data: st.DataObject,
    ) -> None:
        layer = make(
            cell, dtype, inputs, hidden, num_layers=num_layers, bidirectional=bidirectional
        )
        kind = data.draw(st.sampled_from(["all", "lengths", "mask"]))
        live: dict[str, Any] = {}
        if kind == "lengths":
            row = st.integers(0, steps)
            live["lengths"] = data.draw(st.lists(row, min_size=batch, max_size=batch))
        elif kind == "mask":
            bits = data.draw(
                st.lists(st.booleans(), min_size=batch * steps, max_size=batch * steps)
            )
            live["mask"] = np.array(bits, bool).reshape(batch, steps)
        check(layer, Given(layer, batch, steps), live)

    @QUIET
    @given(
        forms=st.tuples(*[st.sampled_from(["as-is", *FORMS])] * 4),
        seed=st.integers(0, 100),
        starts=st.tuples(*[st.integers(0, 2)] * 3),
        steps=st.tuples(*[st.sampled_from([-3, -2, -1, 1, 2, 3])] * 3),
    )
    def test_any_view_is_its_copy(
        self,
        forms: tuple[str, ...],
        seed: int,
        starts: tuple[int, ...],
        steps: tuple[int, ...],
    ) -> None:
        random = np.random.default_rng(seed)
        big = numbers(random, (3 * B + 3, 3 * T + 3, 3 * I + 3))
        wanted = (B, T, I)
        x = big[tuple(slice(a, None, k) for a, k in zip(starts, map(abs, steps), strict=True))]
        x = x[tuple(slice(0, n) for n in wanted)]
        x = x[tuple(slice(None, None, 1 if k > 0 else -1) for k in steps)]
        feed = Given(LAYER, seed=seed)
        feed.x = np.ascontiguousarray(x)
        expected = everything(LAYER, feed)
        feed.x = x
        feed.dy = strided(feed.dy, forms[0])
        feed.state = (strided(feed.state[0], forms[1]), strided(feed.state[1], forms[2]))
        feed.dstate = (strided(feed.dstate[0], forms[3]), feed.dstate[1])
        assert_same(everything(LAYER, feed), expected)


def test_hidden_sizes_are_those_of_the_cases() -> None:
    assert (LAYER.input_size, LAYER.hidden_size, LAYER.output_size) == (I, H, 2 * H)
