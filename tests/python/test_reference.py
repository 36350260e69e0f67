"""The NumPy reference against PyTorch's golden files, finite differences, and its own laws."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import tolerances
from seqrs import functions, reference
from seqrs.reference.functions import FUNCTIONS, Function
from tolerances import assert_close, assert_same_bits

TESTS = Path(__file__).resolve().parents[1]
GOLDENS = sorted((TESTS / "golden" / "layers").glob("*.npz"))

B, T, I, H, P = 3, 4, 2, 3, 2  # noqa: E741 (the letters of the design)

Array = npt.NDArray[np.float64]

#: An assortment of functions and a bound, for the gates, for the candidate, for all of an LSTM.
OF_GATES: dict[str, Any] = {"gate_activation": ("hard_sigmoid", 0.25, 0.5), "clip": 1.5}
OF_ALL_GATES: dict[str, Any] = OF_GATES | {"candidate_activation": ("leaky_relu", 0.125)}
OF_AN_LSTM: dict[str, Any] = OF_ALL_GATES | {"output_activation": "softsign"}

CELLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "rnn-tanh": (reference.RNN, {}),
    "rnn-relu": (reference.RNN, {"nonlinearity": "relu"}),
    "lstm": (reference.LSTM, {}),
    "lstm-projected": (reference.LSTM, {"proj_size": P}),
    "lstm-peephole": (reference.LSTM, {"peepholes": True}),
    "lstm-peephole-projected": (reference.LSTM, {"peepholes": True, "proj_size": P}),
    "lstm-coupled": (reference.LSTM, {"coupled": True}),
    "gru-reset-before": (reference.GRU, {}),
    "gru-reset-after": (reference.GRU, {"reset_after": True}),
    "rnn-chosen": (reference.RNN, {"nonlinearity": ("leaky_relu", 0.125), "clip": 1.5}),
    "lstm-chosen": (reference.LSTM, OF_AN_LSTM),
    "lstm-peephole-chosen": (reference.LSTM, OF_AN_LSTM | {"peepholes": True}),
    "lstm-coupled-chosen-projected": (
        reference.LSTM,
        OF_AN_LSTM | {"coupled": True, "proj_size": P},
    ),
    "lstm-coupled-peephole-chosen": (
        reference.LSTM,
        OF_AN_LSTM | {"coupled": True, "peepholes": True},
    ),
    "gru-reset-before-chosen": (reference.GRU, OF_ALL_GATES),
    "gru-reset-after-chosen": (reference.GRU, OF_ALL_GATES | {"reset_after": True}),
}
#: Cells that are walked as others are; they are tried in fewer structures.
ALIKE = [cell for cell in CELLS if "coupled" in cell or "chosen" in cell]
STRUCTURES: dict[str, dict[str, Any]] = {
    "one": {},
    "no-bias": {"bias": False},
    "time-first": {"batch_first": False},
    "bidirectional": {"bidirectional": True},
    "two-layers": {"num_layers": 2},
    "two-layers-bidirectional": {"num_layers": 2, "bidirectional": True},
}
LIVE: dict[str, dict[str, Any]] = {
    "all-live": {},
    "lengths": {"lengths": [2, T, 0]},
    "mask-with-holes": {"mask": np.array([[0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]])},
}


#: Structure and live steps for these.
OF_THOSE_ALIKE = [
    ("bidirectional", "mask-with-holes"),
    ("no-bias", "lengths"),
    ("time-first", "all-live"),
]


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=STRUCTURES)
def structure(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LIVE)
def live(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(cell: str, **options: Any) -> Any:
    """A layer with random parameters: biases other than 0 as well."""
    build, cell_options = CELLS[cell]
    layer = build(I, H, **cell_options, **options, dtype="float64")
    random = np.random.default_rng(1)
    layer.load_state_dict(
        {name: random.uniform(-1, 1, p.shape) for name, p in layer.state_dict().items()}
    )
    return layer


class Given:
    """Random x, state, dy and dstate in the form that the layer takes."""

    def __init__(self, layer: Any, seed: int = 2, batch: int = B, steps: int = T) -> None:
        random = np.random.default_rng(seed)
        leading = (batch, steps) if layer.batch_first else (steps, batch)
        self.x = random.uniform(-1, 1, (*leading, I))
        self.dy = random.uniform(-1, 1, (*leading, layer.output_size))
        zeros = parts(layer.initial_state(batch))
        self.state = like(
            layer.initial_state(batch), [random.uniform(-1, 1, z.shape) for z in zeros]
        )
        self.dstate = like(self.state, [random.uniform(-1, 1, z.shape) for z in zeros])


def parts(state: Any) -> list[Array]:
    return list(state) if isinstance(state, tuple) else [state]


def like(state: Any, arrays: list[Array]) -> Any:
    return tuple(arrays) if isinstance(state, tuple) else arrays[0]


def live_for(layer: Any, live: str) -> dict[str, Any]:
    given = LIVE[live]
    if "mask" in given and not layer.batch_first:
        return {"mask": given["mask"].T}
    return given


def named(gradients: Any) -> Iterator[tuple[str, Array]]:
    yield "d_x", gradients.x
    for letter, array in zip("hc", parts(gradients.state), strict=False):
        yield f"d_{letter}0", array
    for name, array in gradients.params.items():
        yield f"d_{name}", array


class TestGolden:
    """Every golden file: outputs, final states, and all gradients."""

    @pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
    def test_golden(self, path: Path) -> None:
        golden = np.load(path)
        config = json.loads(str(golden["config"]))
        layer = getattr(reference, config["layer"])(*config["sizes"], **config["options"])
        weights = {k.removeprefix("param."): golden[k] for k in golden if k.startswith("param.")}
        assert list(layer.state_dict()) == list(weights)
        layer.load_state_dict(weights)

        letters = "hc" if config["layer"] == "LSTM" else "h"
        form = layer.initial_state(1)
        state = like(form, [golden[f"{k}0"] for k in letters]) if "h0" in golden else None
        y, final, tape = layer.forward(golden["x"], state, lengths=config["lengths"])
        dstate = like(form, [golden[f"d{k}"] for k in letters])
        gradients = layer.backward(tape, golden["dy"], dstate)

        assert_close(y, golden["y"], tolerances.REFERENCE_TO_PYTORCH, "y")
        for letter, array in zip(letters, parts(final), strict=True):
            assert_close(array, golden[letter], tolerances.REFERENCE_TO_PYTORCH, letter)
        for name, array in named(gradients):
            if name in ("d_h0", "d_c0") and name not in golden:
                continue
            expected = golden[name if name in golden else f"d_param.{name.removeprefix('d_')}"]
            assert_close(array, expected, tolerances.REFERENCE_TO_PYTORCH, name)

    def test_there_are_golden_files(self) -> None:
        assert len(GOLDENS) == 24


class TestFiniteDifferences:
    """dL of L = sum(dy * y) + sum(dstate * state), entry by entry, of everything L depends on."""

    @pytest.mark.parametrize(
        ("cell", "structure", "live"),
        [
            (cell, structure, live)
            for cell, structure, live in itertools.product(CELLS, STRUCTURES, LIVE)
            if cell not in ALIKE or (structure, live) in OF_THOSE_ALIKE
        ],
    )
    def test_gradients(self, cell: str, structure: str, live: str) -> None:
        layer = make(cell, **STRUCTURES[structure])
        check_gradients(layer, Given(layer), live_for(layer, live))

    @pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in ALIKE])
    def test_dropout_masks(self, cell: str) -> None:
        layer = make(cell, num_layers=3, dropout=0.5)
        random = np.random.default_rng(3)
        masks = [2.0 * random.integers(0, 2, (B, T, layer.output_size)) for _ in range(2)]
        check_gradients(layer, Given(layer), {"dropout_masks": masks})

    def test_all_padding_has_no_gradient_but_the_state(self, cell: str) -> None:
        layer = make(cell, bidirectional=True)
        given = Given(layer)
        check_gradients(layer, given, {"lengths": [0] * B})
        _, _, tape = layer.forward(given.x, given.state, lengths=[0] * B)
        passed = layer.backward(tape, given.dy, given.dstate).state
        for got, expected in zip(parts(passed), parts(given.dstate), strict=True):
            assert_same_bits(got, expected)


class TestFunctions:
    """Each function in each place, and what a bound does."""

    #: What each is at -2, -0.5, 0, 0.5 and 2.
    VALUES: ClassVar[dict[Any, list[float]]] = {
        "relu": [0, 0, 0, 0.5, 2],
        "tanh": [math.tanh(x) for x in (-2, -0.5, 0, 0.5, 2)],
        "sigmoid": [1 / (1 + math.exp(-x)) for x in (-2, -0.5, 0, 0.5, 2)],
        "affine": [-2, -0.5, 0, 0.5, 2],
        ("affine", 3.0, 1.0): [-5, -0.5, 1, 2.5, 7],
        "leaky_relu": [-0.02, -0.005, 0, 0.5, 2],
        ("leaky_relu", 0.5): [-1, -0.25, 0, 0.5, 2],
        "thresholded_relu": [0, 0, 0, 0, 2],
        ("thresholded_relu", 0.5): [0, 0, 0, 0.5, 2],
        ("thresholded_relu", -1.0): [0, -0.5, 0, 0.5, 2],
        "scaled_tanh": [math.tanh(x) for x in (-2, -0.5, 0, 0.5, 2)],
        ("scaled_tanh", 3.0, 4.0): [3 * math.tanh(4 * x) for x in (-2, -0.5, 0, 0.5, 2)],
        "hard_sigmoid": [0.1, 0.4, 0.5, 0.6, 0.9],
        ("hard_sigmoid", 1.0, 0.25): [0, 0, 0.25, 0.75, 1],
        "elu": [math.exp(-2) - 1, math.exp(-0.5) - 1, 0, 0.5, 2],
        ("elu", 2.0): [2 * math.exp(-2) - 2, 2 * math.exp(-0.5) - 2, 0, 0.5, 2],
        "softsign": [-2 / 3, -1 / 3, 0, 1 / 3, 2 / 3],
        "softplus": [math.log(1 + math.exp(x)) for x in (-2, -0.5, 0, 0.5, 2)],
    }

    @pytest.mark.parametrize("function", VALUES, ids=str)
    def test_values_and_slopes(self, function: Any) -> None:
        x = np.array([-2.0, -0.5, 0.0, 0.5, 2.0])
        f = Function(function)
        assert_close(f(x), self.VALUES[function], tolerances.REFERENCE_TO_ITSELF)
        # Nowhere at a kink.
        x = np.array([-2.1, -0.7, 0.1, 0.3, 1.9])
        above, below = f(x + 1e-5), f(x - 1e-5)
        assert_close(f.slope(x), (above - below) / 2e-5, tolerances.REFERENCE_TO_DIFFERENCES)

    def test_all_are_tried(self) -> None:
        assert {key[0] if isinstance(key, tuple) else key for key in self.VALUES} == set(FUNCTIONS)

    def test_numbers_by_default_are_those_of_the_package(self) -> None:
        x = np.linspace(-3, 3, 13)
        assert list(FUNCTIONS) == list(functions.FUNCTIONS)
        for name, numbers in functions.FUNCTIONS.items():
            assert_same_bits(Function((name, *numbers))(x), Function(name)(x), name)

    @pytest.mark.parametrize("function", VALUES, ids=str)
    def test_gradients_in_every_place(self, function: Any) -> None:
        """Of one step of a cell with the function in all places, by differences."""
        everywhere = {"gate_activation": function, "candidate_activation": function}
        for build, options in [
            (reference.RNN, {"nonlinearity": function}),
            (reference.LSTM, everywhere | {"output_activation": function}),
            (reference.GRU, everywhere),
        ]:
            layer = build(I, H, **options, dtype="float64")
            random = np.random.default_rng(1)
            weights = {k: random.uniform(-1, 1, p.shape) for k, p in layer.state_dict().items()}
            layer.load_state_dict(weights)
            check_gradients(layer, Given(layer, batch=1, steps=2), {})

    def test_a_bound(self) -> None:
        f = Function("affine", clip=1.5)
        assert f(np.array([-9.0, -1.5, 1.0, 1.6])).tolist() == [-1.5, -1.5, 1.0, 1.5]
        assert f.slope(np.array([-9.0, -1.5, 1.0, 1.6])).tolist() == [0.0, 1.0, 1.0, 0.0]

    def test_the_bound_is_of_the_whole_sum(self) -> None:
        """Of biases, peepholes and, with the reset after the product, of what it left."""
        one = {"weight_ih_l0": 0.0, "weight_hh_l0": 0.0, "bias_ih_l0": 0.0, "bias_hh_l0": 0.0}

        def h(build: Any, state: Any, weights: dict[str, Any], **options: Any) -> float:
            layer = build(1, 1, clip=2.0, **options)
            shapes = {name: p.shape for name, p in layer.state_dict().items()}
            layer.load_state_dict(
                {k: np.broadcast_to(weights.get(k, 0.0), shapes[k]) for k in shapes}
            )
            y, _ = layer(np.ones((1, 1, 1)), state)
            return float(y[0, 0, 0])

        line = {"candidate_activation": "affine"}
        ones = np.ones((1, 1, 1))
        assert (
            h(
                reference.RNN,
                None,
                one | {"bias_ih_l0": 3.0, "bias_hh_l0": -1.5},
                nonlinearity="affine",
            )
            == 1.5
        )
        # z is 1/2, and r of a bias of 9 is s(2): n = min(1 + 3 r, 2), h = h'/2 + n/2.
        after = one | {"bias_ih_l0": [9.0, 0.0, 1.0], "bias_hh_l0": [0.0, 0.0, 3.0]}
        assert h(reference.GRU, ones, after, reset_after=True, **line) == 0.5 + 2.0 / 2
        # f is 1, so that c = c'; o is 5 c cut to 2, and 1 more; c is not cut.
        gates = {"gate_activation": ("affine", 1.0, 1.0), "output_activation": "affine"}
        cell = {"weight_co_l0": 5.0}
        assert h(reference.LSTM, (ones, 7 * ones), cell, peepholes=True, **gates) == (2.0 + 1) * 7


def check_gradients(layer: Any, given: Given, options: dict[str, Any]) -> None:
    weights = layer.state_dict()
    _, _, tape = layer.forward(given.x, given.state, **options)
    gradients = layer.backward(tape, given.dy, given.dstate)

    def loss() -> float:
        layer.load_state_dict(weights)
        y, final, _ = layer.forward(given.x, given.state, **options)
        ends = zip(parts(given.dstate), parts(final), strict=True)
        return float((given.dy * y).sum() + sum((d * s).sum() for d, s in ends))

    varied = [given.x, *parts(given.state), *weights.values()]
    for (name, got), a in zip(named(gradients), varied, strict=True):
        assert_close(got, differences(loss, a), tolerances.REFERENCE_TO_DIFFERENCES, name)


def differences(loss: Callable[[], float], a: Array, step: float = 1e-5) -> Array:
    """The gradient of `loss` at `a` by central differences, moving each entry in place."""
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        value = a[index]
        a[index] = value + step
        above = loss()
        a[index] = value - step
        below = loss()
        a[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def run(layer: Any, given: Given, **options: Any) -> dict[str, Array]:
    """Outputs, states and gradients by name."""
    y, final, tape = layer.forward(given.x, given.state, **options)
    everything = {"y": y} | dict(zip("hc", parts(final), strict=False))
    return everything | dict(named(layer.backward(tape, given.dy, given.dstate)))


class TestLaws:
    def test_the_content_of_padding_has_no_influence(
        self, cell: str, structure: str, live: str
    ) -> None:
        layer = make(cell, **STRUCTURES[structure])
        options = live_for(layer, live)
        given, poisoned = Given(layer), Given(layer)
        dead = ~live_steps(layer, options)
        poisoned.x[dead] = np.nan
        poisoned.dy[dead] = np.nan
        expected, got = run(layer, given, **options), run(layer, poisoned, **options)
        for name, array in expected.items():
            assert_same_bits(got[name], array, name)
        assert_same_bits(got["y"][dead], np.zeros_like(got["y"][dead]), "y of the padding")
        assert_same_bits(got["d_x"][dead], np.zeros_like(got["d_x"][dead]), "d_x of the padding")

    def test_lengths_are_a_prefix_mask(self, cell: str, structure: str) -> None:
        layer = make(cell, **STRUCTURES[structure])
        given, lengths = Given(layer), {"lengths": [2, T, 0]}
        by_mask = run(layer, given, mask=live_steps(layer, lengths))
        for name, array in run(layer, given, **lengths).items():
            assert_same_bits(by_mask[name], array, name)

    def test_length_zero_leaves_the_state(self, cell: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True)
        given = Given(layer)
        _, final = layer(given.x, given.state, lengths=[1, 0, 2])
        for got, before in zip(parts(final), parts(given.state), strict=True):
            assert_same_bits(got[:, 1], before[:, 1])

    def test_a_row_is_the_same_alone_and_cut_to_its_length(self, cell: str, structure: str) -> None:
        layer = make(cell, **STRUCTURES[structure] | {"batch_first": True})
        given, lengths = Given(layer), [2, T, 3]
        y, final = layer(given.x, given.state, lengths=lengths)
        for b, n in enumerate(lengths):
            row = like(given.state, [s[:, b : b + 1] for s in parts(given.state)])
            y_b, final_b = layer(given.x[b : b + 1, :n], row)
            assert_close(y[b : b + 1, :n], y_b, tolerances.REFERENCE_TO_ITSELF)
            for all_rows, alone in zip(parts(final), parts(final_b), strict=True):
                assert_close(all_rows[:, b : b + 1], alone, tolerances.REFERENCE_TO_ITSELF)

    def test_holes_are_as_if_the_steps_were_not_there(self, cell: str) -> None:
        layer = make(cell, bidirectional=True)
        given, mask = Given(layer), LIVE["mask-with-holes"]["mask"].astype(bool)
        y, final = layer(given.x, given.state, mask=mask)
        for b in range(B):
            row = like(given.state, [s[:, b : b + 1] for s in parts(given.state)])
            y_b, final_b = layer(given.x[b : b + 1, mask[b]], row)
            assert_close(y[b : b + 1, mask[b]], y_b, tolerances.REFERENCE_TO_ITSELF)
            for all_rows, alone in zip(parts(final), parts(final_b), strict=True):
                assert_close(all_rows[:, b : b + 1], alone, tolerances.REFERENCE_TO_ITSELF)

    def test_the_reverse_direction_is_the_forward_one_of_each_row_reversed(self, cell: str) -> None:
        both = make(cell, bidirectional=True)
        given, lengths = Given(both), [2, T, 1]
        y, final = both(given.x, given.state, lengths=lengths)
        one = make(cell)
        weights = both.state_dict()
        one.load_state_dict({name: weights[f"{name}_reverse"] for name in one.state_dict()})
        half = both.output_size // 2
        for b, n in enumerate(lengths):
            row = like(given.state, [s[1:, b : b + 1] for s in parts(given.state)])
            y_b, final_b = one(given.x[b : b + 1, :n][:, ::-1], row)
            assert_close(y[b : b + 1, :n, half:], y_b[:, ::-1], tolerances.REFERENCE_TO_ITSELF)
            for got, alone in zip(parts(final), parts(final_b), strict=True):
                assert_close(got[1:, b : b + 1], alone, tolerances.REFERENCE_TO_ITSELF)

    @pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
    def test_steps_make_the_sequence(self, cell: str, batch_first: bool) -> None:
        layer = make(cell, num_layers=2, batch_first=batch_first)
        given = Given(layer)
        y, final = layer(given.x, given.state)
        state, time = given.state, 1 if batch_first else 0
        for t in range(T):
            y_t, state = layer.step(given.x.take(t, axis=time), state)
            assert_same_bits(y_t, y.take(t, axis=time), f"y_t, step {t}")
        for got, expected in zip(parts(state), parts(final), strict=True):
            assert_same_bits(got, expected)

    @pytest.mark.parametrize(("batch", "steps"), [(0, T), (B, 0), (0, 0)])
    def test_nothing_to_do(self, cell: str, batch: int, steps: int) -> None:
        layer = make(cell, num_layers=2, bidirectional=True)
        given = Given(layer, batch=batch, steps=steps)
        y, final, tape = layer.forward(given.x, given.state)
        assert y.shape == (batch, steps, layer.output_size)
        gradients = layer.backward(tape, given.dy, given.dstate)
        assert gradients.x.shape == given.x.shape
        for kept, before in zip(parts(final), parts(given.state), strict=True):
            assert_same_bits(kept, before)
        for passed, d in zip(parts(gradients.state), parts(given.dstate), strict=True):
            assert_same_bits(passed, d)
        assert not any(d.any() for d in gradients.params.values())

    def test_time_first_is_the_same_with_axes_swapped(self, cell: str) -> None:
        options = {"num_layers": 2, "bidirectional": True}
        layer, turned = make(cell, **options), make(cell, **options, batch_first=False)
        given = Given(layer)
        y, _ = layer(given.x, given.state)
        y_turned, _ = turned(given.x.swapaxes(0, 1), given.state)
        assert y_turned.flags.c_contiguous
        assert_same_bits(y_turned.swapaxes(0, 1), y)

    def test_a_tape_may_be_used_twice_and_arguments_are_left_alone(self, cell: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True)
        given, untouched = Given(layer), Given(layer)
        _, _, tape = layer.forward(given.x, given.state, lengths=[2, T, 0])
        first = dict(named(layer.backward(tape, given.dy, given.dstate)))
        for name, again in named(layer.backward(tape, given.dy, given.dstate)):
            assert_same_bits(again, first[name], name)
        assert_same_bits(given.x, untouched.x)
        assert_same_bits(given.dy, untouched.dy)
        for name in ("state", "dstate"):
            pairs = zip(parts(getattr(given, name)), parts(getattr(untouched, name)), strict=True)
            for now, before in pairs:
                assert_same_bits(now, before, name)

    def test_dy_and_dstate_add_up(self, cell: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True)
        given = Given(layer)
        _, _, tape = layer.forward(given.x, given.state)
        by_y = dict(named(layer.backward(tape, given.dy)))
        by_state = dict(named(layer.backward(tape, dstate=given.dstate)))
        for name, both in named(layer.backward(tape, given.dy, given.dstate)):
            assert_close(by_y[name] + by_state[name], both, tolerances.REFERENCE_TO_ITSELF, name)

    def test_no_state_means_zeros(self, cell: str) -> None:
        layer = make(cell, bidirectional=True)
        given = Given(layer)
        y, final = layer(given.x)
        y_zero, final_zero = layer(given.x, layer.initial_state(B))
        assert_same_bits(y, y_zero)
        for got, expected in zip(parts(final), parts(final_zero), strict=True):
            assert_same_bits(got, expected)


def live_steps(layer: Any, options: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """(B, T), or (T, B) for a layer with time first."""
    if "mask" in options:
        return np.asarray(options["mask"]).astype(bool)
    lengths = np.asarray(options.get("lengths", [T] * B))
    live = np.arange(T) < lengths[:, None]
    return live if layer.batch_first else live.T


class TestDropout:
    def test_inference_has_none(self, cell: str) -> None:
        dropped, whole = make(cell, num_layers=2, dropout=0.5), make(cell, num_layers=2)
        given = Given(whole)
        expected, _ = whole(given.x)
        assert_same_bits(dropped(given.x)[0], expected)
        assert_same_bits(dropped.forward(given.x, training=False)[0], expected)
        assert not np.array_equal(dropped.forward(given.x)[0], expected)

    def test_factors_are_zero_or_scaled_and_fresh_each_time(self) -> None:
        layer = make("lstm", num_layers=3, bidirectional=True, dropout=0.25)
        given = Given(layer, batch=20, steps=20)
        _, _, tape = layer.forward(given.x)
        _, _, again = layer.forward(given.x)
        assert len(tape.dropout_masks) == 2
        for factors, others in zip(tape.dropout_masks, again.dropout_masks, strict=True):
            assert set(np.unique(factors)) == {0.0, 1 / 0.75}
            assert abs(factors.mean() - 1) < 0.05
            assert not np.array_equal(factors, others)

    def test_the_seed_decides(self) -> None:
        given = Given(make("gru-reset-before"))
        runs = [make("gru-reset-before", num_layers=2, dropout=0.5, seed=s) for s in (0, 0, 1)]
        y, same, other = (layer.forward(given.x)[0] for layer in runs)
        assert_same_bits(same, y)
        assert not np.array_equal(other, y)


class TestParameters:
    @pytest.mark.parametrize(
        ("layer", "shapes"),
        [
            (
                reference.RNN(2, 3, bidirectional=True),
                {
                    "weight_ih_l0": (3, 2),
                    "weight_hh_l0": (3, 3),
                    "bias_ih_l0": (3,),
                    "bias_hh_l0": (3,),
                    "weight_ih_l0_reverse": (3, 2),
                    "weight_hh_l0_reverse": (3, 3),
                    "bias_ih_l0_reverse": (3,),
                    "bias_hh_l0_reverse": (3,),
                },
            ),
            (
                reference.LSTM(4, 3, 2, proj_size=2),
                {
                    "weight_ih_l0": (12, 4),
                    "weight_hh_l0": (12, 2),
                    "bias_ih_l0": (12,),
                    "bias_hh_l0": (12,),
                    "weight_hr_l0": (2, 3),
                    "weight_ih_l1": (12, 2),
                    "weight_hh_l1": (12, 2),
                    "bias_ih_l1": (12,),
                    "bias_hh_l1": (12,),
                    "weight_hr_l1": (2, 3),
                },
            ),
            (
                reference.GRU(2, 3),
                {"weight_ih_l0": (9, 2), "weight_hh_l0": (9, 3), "bias_ih_l0": (9,)},
            ),
            (
                reference.GRU(2, 3, reset_after=True, bias=False),
                {"weight_ih_l0": (9, 2), "weight_hh_l0": (9, 3)},
            ),
            (
                reference.LSTM(2, 3, coupled=True, peepholes=True, bias=False),
                {
                    "weight_ih_l0": (9, 2),
                    "weight_hh_l0": (9, 3),
                    "weight_ci_l0": (3,),
                    "weight_co_l0": (3,),
                },
            ),
        ],
        ids=["rnn", "lstm-projected", "gru-reset-before", "gru-reset-after-no-bias", "coupled"],
    )
    def test_names_order_and_shapes(self, layer: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        assert list(shapes.items()) == [(k, p.shape) for k, p in layer.state_dict().items()]
        assert layer.num_parameters == sum(int(np.prod(shape)) for shape in shapes.values())

    def test_initial_values(self) -> None:
        layer = reference.LSTM(5, 4, forget_bias=2.0)
        p = layer.state_dict()
        bound = np.sqrt(6 / (5 + 4))
        assert bound / 2 < np.abs(p["weight_ih_l0"]).max() <= bound
        for gate in np.split(p["weight_hh_l0"], 4):
            assert_close(gate.T @ gate, np.eye(4), tolerances.ORTHOGONAL_F64)
        assert p["bias_ih_l0"].tolist() == [0.0] * 4 + [2.0] * 4 + [0.0] * 8
        coupled = reference.LSTM(5, 4, coupled=True, forget_bias=2.0).state_dict()
        assert coupled["bias_ih_l0"].tolist() == [-2.0] * 4 + [0.0] * 8
        assert not p["bias_hh_l0"].any()
        assert_same_bits(
            reference.LSTM(5, 4, seed=3).state_dict()["weight_hh_l0"],
            reference.LSTM(5, 4, seed=3).state_dict()["weight_hh_l0"],
        )
        other = reference.LSTM(5, 4, seed=1).state_dict()["weight_ih_l0"]
        assert not np.array_equal(p["weight_ih_l0"], other)

    def test_the_two_grus_are_different_functions(self) -> None:
        before, after = make("gru-reset-before"), make("gru-reset-after")
        weights = after.state_dict()
        weights["bias_hh_l0"][:] = 0
        after.load_state_dict(weights)
        del weights["bias_hh_l0"]
        before.load_state_dict(weights)
        given = Given(before)
        assert np.abs(before(given.x)[0] - after(given.x)[0]).max() > 1e-3

    def test_weights_of_pytorchs_gru_are_refused_by_reset_before(self) -> None:
        with pytest.raises(ValueError, match=r"unexpected.*bias_hh_l0"):
            make("gru-reset-before").load_state_dict(make("gru-reset-after").state_dict())

    def test_a_failed_load_changes_nothing(self) -> None:
        layer = make("lstm")
        before = layer.state_dict()
        for broken in (
            before | {"bias_hh_l0": np.zeros(3)},
            before | {"weight": np.zeros(3)},
            {"weight_ih_l0": before["weight_ih_l0"]},
        ):
            with pytest.raises(ValueError, match=r"bias_hh_l0|weight"):
                layer.load_state_dict(broken)
        for name, parameter in layer.state_dict().items():
            assert_same_bits(parameter, before[name], name)
        layer.load_state_dict({"bias_hh_l0": np.ones(4 * H), "weight": 1}, strict=False)
        assert layer.state_dict()["bias_hh_l0"].all()

    def test_a_tape_of_other_weights_is_refused(self) -> None:
        layer, other = make("lstm"), make("lstm")
        given = Given(layer)
        _, _, tape = layer.forward(given.x)
        with pytest.raises(ValueError, match="tape"):
            other.backward(tape, given.dy)
        layer.load_state_dict(layer.state_dict())
        with pytest.raises(ValueError, match="tape"):
            layer.backward(tape, given.dy)


BAD_OPTIONS: list[tuple[str, type[Exception], Callable[..., Any]]] = [
    ("function", ValueError, lambda: reference.RNN(2, 3, nonlinearity="gelu")),
    ("clip", ValueError, lambda: reference.RNN(2, 3, clip=0.0)),
    ("proj_size", ValueError, lambda: reference.LSTM(2, 3, proj_size=3)),
    ("dropout", ValueError, lambda: reference.GRU(2, 3, dropout=1.0)),
    ("input_size", ValueError, lambda: reference.GRU(0, 3)),
    ("input_size", TypeError, lambda: reference.GRU("2", 3)),  # type: ignore[arg-type]
    ("hidden_size", TypeError, lambda: reference.GRU(2, 1.5)),  # type: ignore[arg-type]
    ("num_layers", TypeError, lambda: reference.GRU(2, 3, True)),
    ("dtype", TypeError, lambda: reference.GRU(2, 3, dtype="int32")),
]
BAD_ARGUMENTS: list[tuple[str, type[Exception], dict[str, Any]]] = [
    ("x: .* last 2", ValueError, {"x": np.zeros((B, T, I + 1))}),
    ("x: .* 3 axes", ValueError, {"x": np.zeros((T, I))}),
    ("x: .* complex", TypeError, {"x": np.zeros((B, T, I), complex)}),
    ("x: .* bool", TypeError, {"x": np.zeros((B, T, I), bool)}),
    ("state: .* \\(h, c\\)", ValueError, {"state": np.zeros((1, B, H))}),
    ("state c: .* shape", ValueError, {"state": (np.zeros((1, B, H)), np.zeros((1, B, 1)))}),
    ("lengths: expected 3 ", ValueError, {"lengths": [1, 2]}),
    ("lengths: .* 5", ValueError, {"lengths": [1, 2, T + 1]}),
    ("lengths: .* -1", ValueError, {"lengths": [1, 2, -1]}),
    ("lengths: .* float", TypeError, {"lengths": [1.0, 2.0, 3.0]}),
    ("lengths: .* bool", TypeError, {"lengths": [True, True, True]}),
    ("mask: .* each row", ValueError, {"mask": np.ones((T, B), bool)}),
    ("mask: .* 2", ValueError, {"mask": np.full((B, T), 2)}),
    ("mask: .* float", TypeError, {"mask": np.ones((B, T))}),
    ("at most one", ValueError, {"lengths": [1, 1, 1], "mask": np.ones((B, T), bool)}),
]


class TestErrors:
    @pytest.mark.parametrize(
        ("match", "error", "build"),
        BAD_OPTIONS,
        ids=[f"{match}-{error.__name__}" for match, error, _ in BAD_OPTIONS],
    )
    def test_options(self, match: str, error: type[Exception], build: Callable[[], Any]) -> None:
        with pytest.raises(error, match=match):
            build()

    @pytest.mark.parametrize(
        ("match", "error", "arguments"),
        BAD_ARGUMENTS,
        ids=[re.sub(r"\W+", "-", match).strip("-") for match, _, _ in BAD_ARGUMENTS],
    )
    def test_arguments(self, match: str, error: type[Exception], arguments: dict[str, Any]) -> None:
        with pytest.raises(error, match=match):
            make("lstm")(**{"x": np.zeros((B, T, I))} | arguments)

    def test_backward_wants_something_to_start_from(self) -> None:
        layer = make("lstm")
        _, _, tape = layer.forward(np.zeros((B, T, I)))
        with pytest.raises(ValueError, match="dy, dstate"):
            layer.backward(tape)
        with pytest.raises(ValueError, match=re.escape(f"dy: expected shape {(B, T, H)}")):
            layer.backward(tape, np.zeros((T, B, H)))

    def test_step_refuses_two_directions(self) -> None:
        with pytest.raises(ValueError, match="reverse"):
            make("lstm", bidirectional=True).step(np.zeros((B, I)))
