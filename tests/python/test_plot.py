"""What a layer does inside and how its gradients flow: the numbers, and their pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import seqrs
from cases import (
    CELLS,
    DTYPES,
    GOLDEN,
    LIVE,
    OWN,
    TO_REFERENCE,
    B,
    Given,
    H,
    I,
    T,
    character_model,
    id_batches,
    like,
    live_for,
    live_steps,
    make,
    numbers,
    parts,
    python,
    randomise,
)
from diagnosed import diagnosed
from matplotlib import pyplot
from seqrs import diagnosis
from tolerances import (
    FORMULA_F64,
    ORTHOGONAL_F64,
    PACKAGE_TO_REFERENCE_F64,
    REFERENCE_TO_DIFFERENCES,
    REFERENCE_TO_ITSELF,
    assert_close,
)

Array = npt.NDArray[Any]

#: Every form of a layer that changes how its steps are walked.
FORMS: dict[str, dict[str, Any]] = {
    "one": {},
    "deep": {"num_layers": 2},
    "both-ways": {"bidirectional": True},
    "deep-both-ways": {"num_layers": 2, "bidirectional": True},
    "time-first": {"num_layers": 2, "bidirectional": True, "batch_first": False},
}


#: The functions of the cells that are drawn here.
WRITTEN: dict[Any, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda v: np.maximum(v, 0),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "softsign": lambda v: v / (1 + abs(v)),
    ("hard_sigmoid", 0.25, 0.5): lambda v: np.clip(v / 4 + 1 / 2, 0, 1),
    ("leaky_relu", 0.125): lambda v: np.maximum(v, v / 8),
}


def written(layer: Any, option: str) -> Callable[[Array], Array]:
    """The function that an option says, of the sum that was cut."""
    function, clip = WRITTEN[getattr(layer, option)], getattr(layer, "clip", None)
    if clip is None or option == "output_activation":
        return function
    return lambda v: function(np.clip(v, -clip, clip))


def directions_of(layer: Any) -> list[tuple[str, Any]]:
    """Each layer and direction as a layer of its own in float64, batch first, one way."""
    found = []
    weights = layer.state_dict()
    options = {"batch_first": True, "bias": layer.bias, "dtype": "float64"}
    options |= {name: getattr(layer, name) for name in OWN[type(layer).__name__]}
    for name in diagnosis.names_of_directions(layer):
        end = f"_{name}"
        own_weights = {
            key.removesuffix(end) + "_l0": w for key, w in weights.items() if key.endswith(end)
        }
        inputs = own_weights["weight_ih_l0"].shape[1]
        alone = type(layer)(inputs, layer.hidden_size, **options)
        alone.load_state_dict(own_weights)
        found.append((name, alone))
    return found


def batch_first(layer: Any, a: Array) -> Array:
    return a if layer.batch_first else a.swapaxes(0, 1)


class Walk:
    """The layer's forward by its directions, a step at a time, with a state moved on the way."""

    def __init__(self, layer: Any, given: Given, live: Array) -> None:
        self.directions = directions_of(layer)
        self.ways = 2 if layer.bidirectional else 1
        self.x = batch_first(layer, given.x).astype(np.float64)
        self.states = [np.asarray(part, np.float64) for part in parts(given.state)]
        self.form = given.state
        self.live = batch_first(layer, live)

    def y(self, moved: tuple[int, int, str, tuple[int, int], float] | None = None) -> Array:
        """The output, (B, T, .); `moved` is slot, step, letter, (row, unit), and by how much."""
        x = self.x
        for first in range(0, len(self.directions), self.ways):
            outputs = []
            for slot in range(first, first + self.ways):
                name, alone = self.directions[slot]
                s = like(self.form, [part[slot : slot + 1] for part in self.states])
                y = np.zeros((*self.live.shape, alone.output_size))
                order = range(self.live.shape[1])
                for t in reversed(order) if name.endswith("_reverse") else order:
                    at, now = x[:, t : t + 1], self.live[:, t : t + 1]
                    y[:, t : t + 1], s = alone(at, s, mask=now)
                    if moved is not None and moved[:2] == (slot, t):
                        _, _, letter, (row, unit), by = moved
                        parts(s)["ac".index(letter)][0, row, unit] += by
                        y[row, t] += by * (np.arange(y.shape[2]) == unit) * (letter == "a")
                outputs.append(y)
            x = np.concatenate(outputs, axis=2)
        return x


class TestGates:
    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_they_are_those_of_the_equations(self, cell: str, form: str, live: str) -> None:
        """Each from its inputs, and together they give the outputs that the layer gives."""
        layer = make(cell, "float64", **FORMS[form])
        given, options = Given(layer), live_for(layer, live)
        is_live = batch_first(layer, live_steps(layer, options))
        found = diagnosis.gates(layer, given.x, given.state, **options)
        assert list(found) == diagnosis.names_of_directions(layer)

        x, ways = batch_first(layer, given.x), 2 if layer.bidirectional else 1
        outputs: list[Array] = []
        for slot, (name, alone) in enumerate(directions_of(layer)):
            got = {gate: batch_first(layer, array) for gate, array in found[name].items()}
            reverse = name.endswith("_reverse")
            order = slice(None, None, -1 if reverse else 1)
            s = like(given.state, [part[slot : slot + 1] for part in parts(given.state)])
            y, _ = alone(x[:, order], s, mask=is_live[:, order])
            before = self.states_before(y, parts(s)[0][0], is_live[:, order])[:, order]
            c0 = parts(s)[1][0] if "c" in got else None
            self.check(alone, got, x, before, c0, y[:, order], is_live, reverse)
            outputs.append(y[:, order])
            if len(outputs) == ways:
                x, outputs = np.concatenate(outputs, axis=2), []

    def states_before(self, y: Array, h: Array, is_live: Array) -> Array:
        """a<t-1> of each step, from the outputs."""
        before = []
        for t in range(y.shape[1]):
            before.append(h)
            h = np.where(is_live[:, t, None], y[:, t], h)
        return np.stack(before, axis=1)

    def check(
        self,
        alone: Any,
        got: dict[str, Array],
        x: Array,
        h: Array,
        c0: Array | None,
        y: Array,
        is_live: Array,
        reverse: bool,
    ) -> None:
        w = alone.state_dict()
        order = [gate for gate in got if gate != "c"]
        gx = np.split(x @ w["weight_ih_l0"].T + w["bias_ih_l0"], len(order), axis=2)
        bias = w.get("bias_hh_l0", 0.0)
        gh = np.split(h @ w["weight_hh_l0"].T + bias, len(order), axis=2)
        W_n = w["weight_hh_l0"][2 * H :]
        expected = {}
        if c0 is not None:
            sums = {gate: a + b for gate, a, b in zip(order, gx, gh, strict=True)}
            p = {gate: w.get(f"weight_c{gate}_l0", np.zeros(H)) for gate in "ifo"}
            expected = self.lstm(alone, sums, p, c0, is_live, reverse)
        for gate, from_x, from_h in zip(order, gx, gh, strict=True) if c0 is None else ():
            if gate == "a":
                expected["a"] = written(alone, "nonlinearity")(from_x + from_h)
            elif gate == "n":
                r = expected["r"]
                inner = r * from_h if alone.reset_after else (r * h) @ W_n.T
                expected["n"] = written(alone, "candidate_activation")(from_x + inner)
            else:
                expected[gate] = written(alone, "gate_activation")(from_x + from_h)
        if c0 is not None:
            hidden = expected["o"] * written(alone, "output_activation")(expected["c"])
            out = hidden @ w["weight_hr_l0"].T if alone.proj_size else hidden
        elif "z" in expected:
            out = expected["z"] * h + (1 - expected["z"]) * expected["n"]
        else:
            out = expected["a"]
        assert_close(out[is_live], y[is_live], PACKAGE_TO_REFERENCE_F64, "y")
        assert list(got) == list(expected)
        for gate, array in expected.items():
            assert_close(got[gate][is_live], array[is_live], PACKAGE_TO_REFERENCE_F64, gate)
            assert np.isnan(got[gate][~is_live]).all()

    def lstm(
        self,
        alone: Any,
        sums: dict[str, Array],
        p: dict[str, Array],
        c: Array,
        is_live: Array,
        reverse: bool,
    ) -> dict[str, Array]:
        """The gates and the cell state of each step, from the sums without the peepholes."""
        sigma, g1 = written(alone, "gate_activation"), written(alone, "candidate_activation")
        found = {gate: np.zeros_like(sums["i"]) for gate in [*sums, "c"]}
        order = range(is_live.shape[1])
        for t in reversed(order) if reverse else order:
            s = {gate: array[:, t] for gate, array in sums.items()}
            i, g = sigma(s["i"] + p["i"] * c), g1(s["g"])
            f = 1 - i if alone.coupled else sigma(s["f"] + p["f"] * c)
            c = np.where(is_live[:, t, None], f * c + i * g, c)
            o = sigma(s["o"] + p["o"] * c)
            values = {"i": i, "f": f, "g": g, "o": o, "c": c}
            for gate, array in found.items():
                array[:, t] = values[gate]
        return found

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_they_are_of_the_numbers_that_the_layer_computes_with(self, dtype: str) -> None:
        """An input that float32 rounds is rounded for a layer in float32."""
        layer = make("rnn-tanh", dtype)
        layer.load_state_dict({k: w * 40 for k, w in layer.state_dict().items()})
        x = np.full((1, 1, I), 1 / 3)
        expected = diagnosis.gates(layer, x.astype(dtype))["l0"]["a"]
        assert np.array_equal(diagnosis.gates(layer, x)["l0"]["a"], expected)
        assert_close(layer(x)[0], expected, TO_REFERENCE[dtype])

    def test_wrong_arguments(self) -> None:
        layer = make("lstm")
        with pytest.raises(TypeError, match=r"layer: expected an RNN, LSTM or GRU .*, got Seq"):
            diagnosis.gates(seqrs.Sequential([layer]), np.zeros((1, 2, I)))  # type: ignore[arg-type]
        with pytest.raises(seqrs.ShapeError, match="x: "):
            diagnosis.gates(layer, np.zeros((1, 2, I + 1)))
        with pytest.raises(seqrs.DTypeError):
            diagnosis.gates(layer, np.full((1, 2, I), "a"))
        with pytest.raises(seqrs.ShapeError, match="lengths"):
            diagnosis.gates(layer, np.zeros((1, 2, I)), lengths=[3])
        weights = layer.state_dict()
        weights["weight_hh_l0"][0, 0] = np.inf
        layer.load_state_dict(weights)
        with pytest.raises(seqrs.NumericalError, match=r"weight_hh_l0: expected finite .* got inf"):
            diagnosis.gates(layer, np.zeros((1, 2, I)))

    def test_no_steps_and_no_rows(self) -> None:
        layer = make("gru-reset-before")
        for shape in ((2, 0, I), (0, 3, I)):
            for array in diagnosis.gates(layer, np.zeros(shape))["l0"].values():
                assert array.shape == (*shape[:2], H)


class TestGradientFlow:
    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_it_is_the_derivative_of_the_loss(self, cell: str, form: str, live: str) -> None:
        """By differences: the state of one unit after one step moved, all that follows anew."""
        layer = make(cell, "float64", **FORMS[form])
        given, options = Given(layer), live_for(layer, live)
        found = diagnosis.gradient_flow(layer, given.x, given.state, **options, dy=given.dy)
        walk = Walk(layer, given, live_steps(layer, options))
        dy = batch_first(layer, given.dy) * walk.live[..., None]
        assert_close(walk.y()[walk.live], self.y(layer, given, options)[walk.live], FORMULA_F64)

        random = np.random.default_rng(5)
        names = diagnosis.names_of_directions(layer)
        assert list(found) == names
        for slot, name in enumerate(names):
            letters = ["a", "c"] if len(parts(given.state)) == 2 else ["a"]
            assert list(found[name]) == letters
            for letter in letters:
                got = batch_first(layer, found[name][letter])
                expected, at = np.zeros_like(got), np.zeros(got.shape, bool)
                # All steps of all rows, a unit each.
                for row, t in np.argwhere(walk.live):
                    unit = int(random.integers(got.shape[2]))
                    at[row, t, unit] = True
                    place = (slot, int(t), letter, (int(row), unit))
                    step = 1e-5
                    above = (walk.y((*place, step)) * dy).sum()
                    below = (walk.y((*place, -step)) * dy).sum()
                    expected[row, t, unit] = (above - below) / (2 * step)
                assert_close(got[at], expected[at], REFERENCE_TO_DIFFERENCES, f"{name} {letter}")
                assert not got[~walk.live].any()

    def y(self, layer: Any, given: Given, options: dict[str, Any]) -> Array:
        return batch_first(layer, layer(given.x, given.state, **options)[0])

    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("form", FORMS)
    def test_without_dy_the_loss_is_the_sum_of_the_last_outputs(self, form: str, live: str) -> None:
        """As the layer `Last` takes them."""
        layer = make("gru-reset-after", "float64", **FORMS[form])
        given, options = Given(layer), live_for(layer, live)
        model = seqrs.Sequential([layer, seqrs.Last()])
        before = seqrs.Sequential([layer])
        y, _, tape = model.forward(given.x, None, **options, training=False)
        expected = model.backward(tape, np.ones_like(y))
        _, _, tape = before.forward(given.x, None, **options, training=False)
        is_live = live_steps(layer, options)
        dy = diagnosis._swapped(
            layer, diagnosis._ones_at_the_last(layer, batch_first(layer, is_live).T)
        )
        assert_close(before.backward(tape, dy).x, expected.x, FORMULA_F64)
        by_default = diagnosis.gradient_flow(layer, given.x, **options)
        for name, arrays in diagnosis.gradient_flow(layer, given.x, **options, dy=dy).items():
            assert np.array_equal(by_default[name]["a"], arrays["a"])

    def test_vanishing_and_exploding(self) -> None:
        """With a<t> = 0 throughout, each step multiplies by W_aa, here by a rotation times s."""
        steps = 20
        for s in (0.5, 1.0, 1.5):
            layer = seqrs.RNN(I, H, dtype="float64")
            weights = layer.state_dict()
            weights["weight_hh_l0"] *= s  # orthogonal at first
            layer.load_state_dict(weights)
            flow = diagnosis.gradient_flow(layer, np.zeros((1, steps, I)))["l0"]["a"]
            norms = np.linalg.norm(flow[0], axis=1)
            expected = np.sqrt(H) * s ** np.arange(steps - 1, -1, -1)
            assert_close(norms / expected, np.ones(steps), PACKAGE_TO_REFERENCE_F64)
            radius = diagnosis.spectral_radii(layer)["l0"]["a"]
            assert_close(radius, s, ORTHOGONAL_F64)

    def test_a_wrong_dy(self) -> None:
        layer = make("lstm")
        with pytest.raises(seqrs.ShapeError, match=r"dy: expected the shape of y, \(1, 2, 7\)"):
            diagnosis.gradient_flow(layer, np.zeros((1, 2, I)), dy=np.zeros((1, 2, H + 1)))


class TestSpectralRadii:
    def of(self, layer: Any, w: Array, suffix: str = "l0") -> dict[str, float]:
        weights = layer.state_dict()
        weights[f"weight_hh_{suffix}"][:] = w
        layer.load_state_dict(weights)
        return diagnosis.spectral_radii(layer)[suffix]

    def test_known_matrices(self) -> None:
        layer = seqrs.RNN(1, 2, dtype="float64")
        rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
        assert_close(self.of(layer, 3 * rotation)["a"], 3.0, FORMULA_F64)
        # Of norm 5, but nothing comes back of it.
        assert self.of(layer, np.array([[0.0, 5.0], [0.0, 0.0]]))["a"] == 0.0
        assert self.of(layer, np.diag([0.5, -2.0]))["a"] == 2.0

    def test_each_gate_and_direction_has_its_own(self) -> None:
        layer = seqrs.LSTM(1, 2, bidirectional=True, dtype="float64")
        w = np.concatenate([k * np.eye(2) for k in (1, 2, 3, 4)])
        assert self.of(layer, w, "l0_reverse") == {"i": 1.0, "f": 2.0, "g": 3.0, "o": 4.0}
        assert_close(diagnosis.spectral_radii(layer)["l0"]["i"], 1.0, FORMULA_F64)

    def test_with_a_projection_it_is_that_of_both_matrices(self) -> None:
        layer = make("lstm-projected", "float64")
        w = layer.state_dict()
        part = w["weight_hh_l0"][H : 2 * H]
        expected = np.abs(np.linalg.eigvals(part @ w["weight_hr_l0"])).max()
        found = diagnosis.spectral_radii(layer)["l0"]["f"]
        assert_close(found, expected, REFERENCE_TO_ITSELF)


def models(dtype: str) -> Iterator[tuple[str, Any, Any, Any, Any, dict[str, Any]]]:
    """Name, model, x, y, loss, options of the batch."""
    random = np.random.default_rng(3)
    x = numbers(random, (B, T, I), dtype)
    classes = random.integers(0, 3, (B, T))
    lengths = {"lengths": [2, T, 0, T - 1]}

    def model(*layers: Any) -> Any:
        made = seqrs.Sequential(list(layers))
        randomise(made)
        return made

    d: Any = {"dtype": dtype}
    (ids, targets), *_ = id_batches(1, batch=B, steps=T)
    yield "ids", character_model(dtype=dtype, num_layers=2, dropout=0.5), ids, targets, None, {}
    both = seqrs.LSTM(I, H, 2, bidirectional=True, proj_size=3, **d)
    last = model(
        both, seqrs.LayerNorm(6, **d), seqrs.Dropout(0.5), seqrs.Last(), seqrs.Linear(6, 3, **d)
    )
    yield "last of both", last, x, classes[:, 0], None, lengths
    both = seqrs.GRU(I, H, bidirectional=True, **d)
    mixed = model(both, seqrs.Linear(2 * H, 4, **d), seqrs.Activation("tanh"), seqrs.Last())
    mask = LIVE["mask-with-holes"]
    yield "last of mixed columns", mixed, x, classes[:, 0], None, mask
    pooled = model(
        seqrs.RNN(I, H, nonlinearity="relu", **d), seqrs.MaxPool(), seqrs.Activation("tanh")
    )
    yield "pooled", pooled, x, numbers(random, (B, H), dtype), seqrs.MSE(), lengths
    first = model(seqrs.GRU(I, H, reset_after=True, batch_first=False, **d), seqrs.LSTM(H, 1, **d))
    y = numbers(random, (T, B), dtype)
    yield "time first", first, x.swapaxes(0, 1), y, seqrs.Huber(reduction="sum"), lengths
    layer = make("lstm", dtype, num_layers=2, bidirectional=True)
    yield "a layer", layer, x, numbers(random, (B, T, 2 * H), dtype), seqrs.MSE(), lengths


CASES = [pytest.param(case, id=f"{case[0]}-{dtype}") for dtype in DTYPES for case in models(dtype)]


class TestDiagnose:
    @pytest.mark.parametrize("case", CASES)
    def test_it_is_what_the_reference_finds(self, case: Any) -> None:
        _, model, x, y, loss, options = case
        found = seqrs.diagnose(model, x, y, loss, **options)
        loss = loss or seqrs.CrossEntropy()
        check(found, diagnosed(model, x, y, loss, **options), "")

    @pytest.mark.parametrize("case", CASES)
    def test_loss_and_gradients_are_those_of_the_model(self, case: Any) -> None:
        _, model, x, y, loss, options = case
        found = seqrs.diagnose(model, x, y, loss, **options)
        loss = loss or seqrs.CrossEntropy()
        dtype = model.dtype

        # A step of plain descent without dropout moves each parameter by its gradient.
        before = model.state_dict()
        still = self.without_dropout(model)
        trainer = seqrs.Trainer(still, loss, seqrs.SGD(lr=1.0), clip_norm=None)
        result = trainer.step(x, y, **options)
        assert_close(found["loss"], result.loss, TO_REFERENCE[dtype])
        assert list(found["parameters"]) == list(before)
        after = dict(zip(before, still.state_dict().values(), strict=True))
        got = [norms["gradient_norm"] for norms in found["parameters"].values()]
        expected = [np.linalg.norm(before[name] - after[name]) for name in before]
        assert_close(got, expected, TO_REFERENCE[dtype], "gradients")
        assert_close(np.linalg.norm(got), result.grad_norm, TO_REFERENCE[dtype], "gradients")
        got = [norms["norm"] for norms in found["parameters"].values()]
        assert_close(
            got, [np.linalg.norm(w) for w in before.values()], TO_REFERENCE[dtype], "norms"
        )

    def without_dropout(self, model: Any) -> Any:
        if isinstance(model, seqrs.Layer):
            model = seqrs.Sequential([model])
        layers = []
        for layer in model:
            if isinstance(layer, seqrs.Dropout):
                layer = seqrs.Dropout(0.0)
            elif getattr(layer, "dropout", 0.0):
                copy = type(layer)(
                    layer.input_size, layer.hidden_size, layer.num_layers, dtype=layer.dtype
                )
                copy.load_state_dict(layer.state_dict())
                layer = copy
            layers.append(layer)
        import copy as copies

        return copies.deepcopy(seqrs.Sequential(layers))

    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("form", FORMS)
    def test_a_layer_is_described_by_its_arrays(self, cell: str, form: str) -> None:
        layer = make(cell, "float64", **FORMS[form])
        given, options = Given(layer), live_for(layer, "lengths")
        loss = seqrs.MSE()
        is_live = live_steps(layer, options)
        found = seqrs.diagnose(layer, given.x, given.dy, loss, state=given.state, **options)

        y, _ = layer(given.x, given.state, **options)
        first = {"mask": batch_first(layer, is_live)}
        dy = loss.gradient(batch_first(layer, y), batch_first(layer, given.dy), **first)
        arrays = diagnosis.gates(layer, given.x, given.state, **options)
        flow = diagnosis.gradient_flow(
            layer, given.x, given.state, **options, dy=batch_first(layer, dy)
        )
        ways = 2 if layer.bidirectional else 1
        units = layer.output_size // ways
        assert list(found["layers"]) == diagnosis.names_of_directions(layer)
        for slot, (name, about) in enumerate(found["layers"].items()):
            by_gate = {k: a[is_live] for k, a in arrays[name].items()}
            states = {k: by_gate.pop(k) for k in ("c",) if k in by_gate}
            assert list(about["gates"]) == list(by_gate)
            for gate, values in by_gate.items():
                at = about["gates"][gate]
                low, high = (0.1, 0.9) if gate in "iforz" else (-0.8, 0.8)
                if cell == "rnn-relu":
                    low, high = 0.0, np.inf
                elif "chosen" in cell and gate not in "iforz":
                    low, high = -np.inf, np.inf  # a leaky ReLU is flat nowhere
                assert_close(at["minimum"], values.min(), REFERENCE_TO_ITSELF)
                assert_close(at["maximum"], values.max(), REFERENCE_TO_ITSELF)
                assert at["saturated_low"] == np.mean(values <= low)
                assert at["saturated_high"] == np.mean(values >= high)
                radius = diagnosis.spectral_radii(layer)[name][gate]
                assert_close(at["spectral_radius"], radius, REFERENCE_TO_ITSELF)
            if slot >= len(found["layers"]) - ways:
                columns = slice((slot % ways) * units, (slot % ways + 1) * units)
                states["a"] = y[is_live][:, columns]
            for letter, values in states.items():
                at = about["states"][letter]
                assert_close(at["minimum"], values.min(), PACKAGE_TO_REFERENCE_F64)
                assert_close(at["maximum"], values.max(), PACKAGE_TO_REFERENCE_F64)
            assert list(about["states"]) == (["a", "c"] if "c" in states else ["a"])

            norms = np.linalg.norm(batch_first(layer, flow[name]["a"]), axis=(0, 2))
            assert_close(about["gradient_norm"], norms, PACKAGE_TO_REFERENCE_F64)
            ends = norms[::-1] if name.endswith("_reverse") else norms
            assert_close(about["gradient_first"], ends[0], PACKAGE_TO_REFERENCE_F64)
            assert_close(about["gradient_last"], ends[-1], PACKAGE_TO_REFERENCE_F64)
            assert_close(about["gradient_ratio"], ends[0] / ends[-1], PACKAGE_TO_REFERENCE_F64)
            assert (about["dead_units"] is None) == (cell != "rnn-relu")

    def test_the_norm_of_a_gate_is_its_largest_singular_value(self) -> None:
        layer = seqrs.RNN(1, 2, dtype="float64")
        weights = layer.state_dict()
        weights["weight_hh_l0"][:] = [[0.0, 5.0], [0.0, 0.0]]
        layer.load_state_dict(weights)
        found = seqrs.diagnose(layer, np.ones((1, 2, 1)), np.zeros((1, 2), int))
        gate = found["layers"]["l0"]["gates"]["a"]
        assert gate["spectral_radius"] == 0.0
        assert_close(gate["spectral_norm"], 5.0, FORMULA_F64)

    def test_saturated_gates(self) -> None:
        """Biases that hold every gate at one end, by the end."""
        layer = seqrs.LSTM(I, H)
        weights = {name: np.zeros_like(w) for name, w in layer.state_dict().items()}
        weights["bias_ih_l0"] = np.repeat([-50.0, 50.0, -50.0, 0.0], H)  # i f g o
        layer.load_state_dict(weights)
        found = seqrs.diagnose(layer, np.zeros((2, 3, I)), np.zeros((2, 3), int))
        ends = {
            gate: (at["saturated_low"], at["saturated_high"])
            for gate, at in found["layers"]["l0"]["gates"].items()
        }
        assert ends == {"i": (1.0, 0.0), "f": (0.0, 1.0), "g": (1.0, 0.0), "o": (0.0, 0.0)}

    def test_dead_units(self) -> None:
        layer = seqrs.RNN(I, H, nonlinearity="relu")
        weights = {name: np.zeros_like(w) for name, w in layer.state_dict().items()}
        weights["bias_ih_l0"][:] = [1, 1, -1, 1, -1, 1, 0]
        layer.load_state_dict(weights)
        about = seqrs.diagnose(layer, np.zeros((2, 3, I)), np.zeros((2, 3), int))["layers"]["l0"]
        assert about["dead_units"] == 3
        assert about["gates"]["a"]["saturated_low"] == 3 / H

    def test_where_nothing_comes_back_there_is_no_ratio(self) -> None:
        layer = seqrs.RNN(I, H, nonlinearity="relu")
        weights = {name: np.zeros_like(w) for name, w in layer.state_dict().items()}
        layer.load_state_dict(weights)
        y = np.zeros((2, 3, H))
        about = seqrs.diagnose(layer, np.zeros((2, 3, I)), y, seqrs.MSE())["layers"]["l0"]
        assert about["gradient_norm"] == [0.0] * 3
        assert about["gradient_ratio"] is None

    def test_steps_that_no_row_has(self) -> None:
        """The last step of a batch is the last that a row has."""
        layer = make("gru-reset-before", "float64")
        given = Given(layer)
        found = seqrs.diagnose(layer, given.x, given.dy, seqrs.MSE(), lengths=[2, 3, 0, 1])
        about = found["layers"]["l0"]
        assert about["gradient_norm"][3:] == [0.0] * 3
        assert about["gradient_last"] == about["gradient_norm"][2] > 0

    def test_it_is_json_and_changes_nothing(self) -> None:
        model = character_model(dropout=0.5, num_layers=2)
        (x, y), *_ = id_batches(1)
        before, pristine = model.fingerprint, model.forward(x)[0]
        found = seqrs.diagnose(model, x, y)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert list(found["layers"]) == ["1.l0", "1.l1"]
        assert model.fingerprint == before
        assert pristine.shape == (*x.shape, 11)

    def test_wherever_the_model_is(self, device: str) -> None:
        (x, y), *_ = id_batches(1)
        model = seqrs.Sequential([*character_model(), seqrs.Activation("tanh"), seqrs.Last()])
        expected = seqrs.diagnose(model, x, y[:, 0])
        ids = np.eye(6)[x % 6]
        gates = diagnosis.gates(model[1], ids)["l0"]
        model.to(device)
        assert seqrs.diagnose(model, x, y[:, 0]) == expected
        for gate, array in diagnosis.gates(model[1], ids)["l0"].items():
            assert np.array_equal(array, gates[gate])

    def test_a_state_that_is_carried(self) -> None:
        """Of each recurrent layer by its place, None for zeros."""
        layers = [seqrs.RNN(I, H, dtype="float64"), seqrs.LSTM(H, 3, dtype="float64")]
        model = seqrs.Sequential(layers, seed=1)
        given = Given(layers[0])
        classes = np.zeros((B, T), int)
        _, state = model(given.x)
        for carried in (state, (None, state[1])):
            found = seqrs.diagnose(model, given.x, classes, state=carried)
            expected = seqrs.CrossEntropy()(model(given.x, carried)[0], classes)
            assert_close(found["loss"], expected, PACKAGE_TO_REFERENCE_F64)

    def test_wrong_arguments(self) -> None:
        model = character_model()
        (x, y), *_ = id_batches(1)
        with pytest.raises(TypeError, match="model: expected a Sequential or a layer, got 'm'"):
            seqrs.diagnose("m", x, y)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="loss: expected one of seqrs"):
            seqrs.diagnose(model, x, y, "mse")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="model: expected an RNN, LSTM or GRU in it"):
            seqrs.diagnose(seqrs.Linear(2, 2), np.zeros((1, 2, 2)), np.zeros((1, 2), int))
        with pytest.raises(seqrs.ShapeError, match="x: expected at least one live step"):
            seqrs.diagnose(model, x, y, lengths=[0] * len(x))
        with pytest.raises(seqrs.ShapeError, match="at most one"):
            seqrs.diagnose(model, x, y, lengths=[6] * len(x), mask=np.ones(x.shape, bool))
        with pytest.raises(seqrs.ShapeError):
            seqrs.diagnose(model, x, y[:, :-1])
        pooled = seqrs.Sequential([seqrs.RNN(2, 3), seqrs.Last()])
        with pytest.raises(seqrs.ShapeError):
            seqrs.diagnose(pooled, np.zeros((2, 4, 2)), [0, 1, 2])
        weights = model.state_dict()
        weights["2.bias"][0] = np.nan
        model.load_state_dict(weights)
        with pytest.raises(
            seqrs.NumericalError, match=r"2\.bias: expected finite numbers, got nan"
        ):
            seqrs.diagnose(model, x, y)


def check(got: Any, expected: Any, name: str) -> None:
    """The same names in the same order, and the same numbers."""
    if isinstance(expected, dict):
        assert list(got) == list(expected), name
        for key, value in expected.items():
            check(got[key], value, f"{name}.{key}")
    elif isinstance(expected, (float, list)):
        assert type(got) is type(expected)
        assert_close(got, expected, PACKAGE_TO_REFERENCE_F64, name)
    else:
        assert got == expected, name


CASES_OF_BOTH = json.loads((GOLDEN / "diagnosis" / "cases.json").read_text("utf-8"))


class TestGolden:
    """What `diagnose` from Rust is held against too."""

    @pytest.mark.parametrize("case", CASES_OF_BOTH, ids=lambda case: case["name"])
    def test_diagnose_finds_what_the_files_say(self, case: dict[str, Any]) -> None:
        model = seqrs.load(GOLDEN / "diagnosis" / f"{case['name']}.safetensors")
        x, y = (np.reshape(case[k]["numbers"], case[k]["shape"]) for k in "xy")
        losses = {each.kind: each for each in (seqrs.CrossEntropy, seqrs.Huber, seqrs.MSE)}
        options = dict(case["loss"])
        loss = losses[options.pop("kind")](**options)
        live = {key: case[key] for key in ("lengths", "mask") if key in case}
        check(seqrs.diagnose(model, x, y, loss, **live), case["found"], case["name"])


@pytest.fixture(autouse=True)
def no_figure() -> None:
    """What the documentation's examples drew is gone."""
    pyplot.close("all")


@pytest.fixture
def ax() -> Iterator[Any]:
    """Axes of a figure of the caller's; there is no other afterwards."""
    figure, own = pyplot.subplots()
    yield own
    assert pyplot.get_fignums() == [figure.number]
    pyplot.close(figure)


def lines_of(axes: Any) -> dict[str, Array]:
    return {str(line.get_label()): line.get_ydata() for line in axes.get_lines()}


class TestPictures:
    HISTORY = {"epoch": [1, 2], "loss": [2.0, 1.0], "lr": [0.1, 0.2], "val_loss": [3.0, 2.0]}  # noqa: RUF012

    def test_axes_are_given_or_made_and_nothing_is_shown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(*_: Any, **__: Any) -> None:
            raise AssertionError("nothing is shown or saved")

        monkeypatch.setattr(pyplot, "show", forbidden)
        monkeypatch.setattr(pyplot.Figure, "savefig", forbidden)
        layer, x = make("lstm"), np.ones((1, 3, I))
        others = pyplot.figure().number
        for draw in (
            lambda **to: seqrs.plot.history(self.HISTORY, **to),
            lambda **to: seqrs.plot.gates(layer, x, **to),
            lambda **to: seqrs.plot.gradient_flow(layer, x, **to),
        ):
            made = draw()
            assert isinstance(made, pyplot.Axes)
            assert pyplot.get_fignums() == [others, made.figure.number]
            assert draw(ax=made) is made
            assert pyplot.get_fignums() == [others, made.figure.number]
            pyplot.close(made.figure)
            with pytest.raises(TypeError, match="ax: expected the Axes of Matplotlib, got 3"):
                draw(ax=3)
        pyplot.close(others)

    def test_history(self, ax: Any) -> None:
        seqrs.plot.history(self.HISTORY, ax)
        assert {k: list(v) for k, v in lines_of(ax).items()} == {
            "loss": [2.0, 1.0],
            "val_loss": [3.0, 2.0],
        }
        assert [list(line.get_xdata()) for line in ax.get_lines()] == [[1, 2]] * 2
        assert ax.get_xlabel() == "epoch"

    def test_history_of_a_training_run(self, ax: Any) -> None:
        trainer = seqrs.Trainer(character_model())
        found = trainer.fit(id_batches(2), epochs=2, progress=False)
        seqrs.plot.history(found, ax, metrics=["grad_norm", "lr"])
        lines = lines_of(ax)
        assert list(lines) == ["grad_norm", "lr"]
        assert list(lines["grad_norm"]) == found["grad_norm"]

    def test_wrong_histories(self) -> None:
        with pytest.raises(TypeError, match=r"history: expected what Trainer\.fit gives"):
            seqrs.plot.history([1.0])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="metrics: expected a list of names"):
            seqrs.plot.history(self.HISTORY, metrics="loss")
        with pytest.raises(
            ValueError, match="metrics: expected some of loss, lr, val_loss, got f1"
        ):
            seqrs.plot.history(self.HISTORY, metrics=["f1"])
        with pytest.raises(ValueError, match="expected a metric in history, got none"):
            seqrs.plot.history({})
        with pytest.raises(seqrs.ShapeError, match=r"history\['loss'\]: expected 2 numbers, got 1"):
            seqrs.plot.history({"epoch": [1, 2], "loss": [1.0]})

    @pytest.mark.parametrize(
        ("cell", "labels"),
        [
            ("rnn-tanh", ["a<t>"]),
            ("lstm", ["Γi", "Γf", "c~ (g)", "Γo", "c<t>"]),
            ("gru-reset-before", ["Γr", "Γu (z)", "c~ (n)"]),
        ],
    )
    def test_gates(self, ax: Any, cell: str, labels: list[str]) -> None:
        layer = make(cell, num_layers=2, bidirectional=True, batch_first=False)
        given, options = Given(layer), live_for(layer, "mask-with-holes")
        seqrs.plot.gates(layer, given.x, given.state, **options, name="l1_reverse", ax=ax)
        arrays = diagnosis.gates(layer, given.x, given.state, **options)["l1_reverse"]
        lines = lines_of(ax)
        assert list(lines) == labels
        assert [text.get_text() for text in ax.get_legend().get_texts()] == labels
        for label, array in zip(labels, arrays.values(), strict=True):
            assert_close(lines[label], np.nanmean(array, axis=(1, 2)), REFERENCE_TO_ITSELF)
        assert len(ax.collections) == len(labels)  # a band each

    def test_gates_of_one_row_and_unit(self, ax: Any) -> None:
        layer = make("lstm")
        x = Given(layer).x
        seqrs.plot.gates(layer, x, lengths=[2, T, 0, T - 1], row=3, unit=4, ax=ax)
        arrays = diagnosis.gates(layer, x, lengths=[2, T, 0, T - 1])["l0"]
        for line, array in zip(ax.get_lines(), arrays.values(), strict=True):
            assert np.array_equal(line.get_ydata(), array[3, :, 4], equal_nan=True)
            assert list(line.get_xdata()) == list(range(1, T + 1))
        assert not ax.collections

    def test_wrong_names_rows_and_units(self) -> None:
        layer, x = make("gru-reset-after"), np.zeros((2, 3, I))
        with pytest.raises(ValueError, match="name: expected one of l0, got 'l1'"):
            seqrs.plot.gates(layer, x, name="l1")
        with pytest.raises(seqrs.ShapeError, match="row: expected an integer of at most 1, got 2"):
            seqrs.plot.gates(layer, x, row=2)
        with pytest.raises(TypeError, match=r"unit: expected an integer, got 1\.5"):
            seqrs.plot.gates(layer, x, unit=1.5)  # type: ignore[arg-type]
        pyplot.close("all")

    @pytest.mark.parametrize("cell", CELLS)
    def test_gradient_flow(self, ax: Any, cell: str) -> None:
        layer = make(cell, num_layers=2, bidirectional=True, batch_first=False)
        given, options = Given(layer), live_for(layer, "lengths")
        seqrs.plot.gradient_flow(layer, given.x, given.state, **options, dy=given.dy, ax=ax)
        flow = diagnosis.gradient_flow(layer, given.x, given.state, **options, dy=given.dy)
        radii = diagnosis.spectral_radii(layer)
        lines = lines_of(ax)
        assert ax.get_yscale() == "log"
        for name, arrays in flow.items():
            label = next(each for each in lines if each.startswith(f"{name}: dL/da<t>"))
            for radius in radii[name].values():
                assert f"{radius:.3g}" in label
            norms = np.linalg.norm(arrays["a"], axis=(1, 2))
            assert_close(lines.pop(label), norms, REFERENCE_TO_ITSELF)
            if "c" in arrays:
                norms = np.linalg.norm(arrays["c"], axis=(1, 2))
                assert_close(lines.pop(f"{name}: dL/dc<t>"), norms, REFERENCE_TO_ITSELF)
            if cell.startswith("rnn"):
                k = np.arange(T) if name.endswith("_reverse") else np.arange(T)[::-1]
                expected = norms[k == 0] * radii[name]["a"] ** k
                got = lines.pop(f"{name}: ρ^k, k steps before the last")
                assert_close(got, expected, REFERENCE_TO_ITSELF)
        assert not lines


class TestWithoutMatplotlib:
    def test_it_is_imported_when_something_is_drawn(self) -> None:
        code = (
            "import sys, seqrs, numpy as np\n"
            "seqrs.plot, seqrs.diagnose(seqrs.RNN(1, 2), np.ones((1, 2, 1)), [[0, 1]])\n"
            "assert 'matplotlib' not in sys.modules\n"
            "seqrs.plot.history({'loss': [1.0]})\n"
            "assert 'matplotlib' in sys.modules\n"
        )
        found = python(code)
        assert found.returncode == 0, found.stderr

    def test_without_it_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrs\[plot\]'") as caught:
            seqrs.plot.history({"loss": [1.0]})
        assert caught.value.name == "matplotlib"
