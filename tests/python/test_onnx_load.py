"""Models of ONNX in: nodes by the specification and ONNX Runtime, graphs, chains, refusals."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import seqrs
import tolerances
from cases import GOLDEN, Array, differences, numbers, python
from onnx_nodes import RecurrentCase, model_of, run_in_onnx_runtime, specified
from seqrs.onnx import OnnxModel, backend
from seqrs.onnx.graph import read
from seqrs.onnx.operators import OPERATORS
from tolerances import assert_close, assert_same_bits

make_node = onnx.helper.make_node

TOLERANCE = {
    "float32": tolerances.PACKAGE_TO_ONNX_RUNTIME,
    "float64": tolerances.PACKAGE_TO_REFERENCE_F64,
}


#: ONNX's own tests of these operators.
OFFICIAL = (
    "test_gru_defaults",
    "test_gru_with_initial_bias",
    "test_gru_seq_length",
    "test_gru_batchwise",
    "test_gru_reverse",
    "test_gru_bidirectional",
    "test_lstm_defaults",
    "test_lstm_with_initial_bias",
    "test_lstm_with_peepholes",
    "test_lstm_batchwise",
    "test_lstm_reverse",
    "test_lstm_bidirectional",
    "test_simple_rnn_defaults",
    "test_simple_rnn_with_initial_bias",
    "test_simple_rnn_batchwise",
    "test_simple_rnn_reverse",
    "test_simple_rnn_bidirectional",
    "test_rnn_seq_length",
)


@pytest.fixture(scope="module")
def official() -> Any:
    """ONNX's own tests of nodes, for the backend of seqrs: a class with a method for each."""
    with warnings.catch_warnings():
        # To make the tests of all other operators ONNX divides by zero and more.
        warnings.simplefilter("ignore")
        from onnx.backend.test import BackendTest

        return BackendTest(backend, __name__).test_cases["OnnxBackendNodeModelTest"]


class TestOfficial:
    """The tests of ONNX itself for RNN, LSTM and GRU, as they are."""

    @pytest.mark.parametrize("name", OFFICIAL)
    def test_node(self, official: Any, name: str) -> None:
        test: unittest.TestCase = official(f"{name}_cpu")
        test.debug()

    def test_these_are_all(self, official: Any) -> None:
        operators = ("test_gru_", "test_lstm_", "test_simple_rnn_", "test_rnn_")
        found = {name for name in dir(official) if name.startswith(operators)}
        assert {name for name in found if name.endswith("_cpu")} == {f"{n}_cpu" for n in OFFICIAL}


def recurrent_cases() -> dict[str, RecurrentCase]:
    """Every operator, direction and layout, with and without lengths, states and biases."""
    of_an_lstm = {
        "activations": ["HardSigmoid", "leakyrelu", "SOFTSIGN"],
        "activation_alpha": [0.25, 0.125],
        "activation_beta": [0.375],
        "clip": 1.5,
    }
    of_a_gru = {
        "activations": ["HardSigmoid", "Elu"],
        "activation_alpha": [0.25, 0.5],
        "clip": 1.25,
    }
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "rnn": ("RNN", {}),
        "rnn-relu": ("RNN", {"activations": ["Relu"]}),
        "rnn-chosen": (
            "RNN",
            {"activations": ["ScaledTanh"], "activation_alpha": [1.5], "activation_beta": [0.5]},
        ),
        "rnn-clip": ("RNN", {"clip": 0.5}),
        "lstm": ("LSTM", {}),
        "lstm-chosen": ("LSTM", of_an_lstm),
        "lstm-peepholes": ("LSTM", {}),
        "lstm-coupled": ("LSTM", {"input_forget": 1}),
        "lstm-coupled-peepholes": ("LSTM", {"input_forget": 1, "clip": 1.5}),
        "lstm-coupled-chosen-peepholes": ("LSTM", of_an_lstm | {"input_forget": 1}),
        "gru-0": ("GRU", {"linear_before_reset": 0}),
        "gru-0-chosen": ("GRU", of_a_gru),
        "gru-1": ("GRU", {"linear_before_reset": 1}),
        "gru-1-chosen": ("GRU", of_a_gru | {"linear_before_reset": 1}),
    }
    found = {}
    for (form, (operator, attributes)), direction, layout, lengths in itertools.product(
        forms.items(), ("forward", "reverse", "bidirectional"), (0, 1), (None, [3, 5, 0])
    ):
        name = f"{form}-{direction}-layout-{layout}{'-lengths' if lengths else ''}"
        own = dict(attributes)
        if direction == "bidirectional":
            both = {name: value * 2 for name, value in own.items() if name.startswith("activ")}
            own |= both
        options: dict[str, Any] = {"attributes": own, "peepholes": form.endswith("peepholes")}
        found[name] = RecurrentCase(operator, direction, layout, lengths, **options)
        if layout == 0:
            bare = {"bias": False, "state": False, **options}
            found[f"{name}-bare"] = RecurrentCase(operator, direction, layout, lengths, **bare)
    two = {"activations": ["HardSigmoid", "Elu", "Sigmoid", "LeakyRelu"], "clip": 2.0}
    two["activation_alpha"] = [0.25, 0.5, 0.125]
    found["gru-two-directions"] = RecurrentCase(
        "GRU", "bidirectional", 0, [3, 5, 0], attributes=two
    )
    four = ["HardSigmoid", "Tanh", "LeakyRelu", "Sigmoid", "Elu", "Tanh"]
    fewer = {"activations": four, "activation_alpha": [0.25, 0.5], "input_forget": 1}
    found["lstm-two-directions"] = RecurrentCase(
        "LSTM", "bidirectional", 1, [3, 5, 0], peepholes=True, attributes=fewer
    )
    found["lstm-fewer-numbers"] = RecurrentCase("LSTM", "bidirectional", attributes=fewer)
    both = {"activations": ["Tanh", "Relu"]}
    found["rnn-tanh-relu"] = RecurrentCase("RNN", "bidirectional", 0, [3, 5, 0], attributes=both)
    found["lstm-f64"] = RecurrentCase("LSTM", "bidirectional", 0, [3, 5, 0], dtype="float64")
    found["gru-f64"] = RecurrentCase("GRU", "reverse", 1, dtype="float64")
    found["one-step-one-row"] = RecurrentCase("LSTM", T=1, B=1)
    return found


CASES = recurrent_cases()
#: Those that ONNX Runtime computes.
IN_ONNX_RUNTIME = [n for n, case in CASES.items() if (case.layout, case.dtype) == (0, "float32")]


class TestNodes:
    """One recurrent node, in every form.

    Against the specification in NumPy always, and against ONNX Runtime where that is right. It does
    not compute layout 1, nor float64 LSTMs, and makes the final states of a row of length 0 zeros
    where the specification has no step that changes the initial ones. It is right about every
    function in every place, `clip` and `input_forget`, where all numbers of functions are given.
    (ONNX's own evaluator, onnx.reference, is no oracle: it takes no notice of lengths, `clip`,
    `input_forget` and the functions of LSTM and GRU.)
    """

    @pytest.mark.parametrize("name", CASES)
    def test_as_specified(self, name: str) -> None:
        case = CASES[name]
        found = backend.run_model(case.model(), self.inputs(case))
        for got, expected, what in zip(found, specified(case), ("Y", "Y_h", "Y_c"), strict=False):
            assert got.dtype == case.dtype
            assert_close(got, expected, TOLERANCE[case.dtype], what)

    @pytest.mark.parametrize("name", IN_ONNX_RUNTIME)
    def test_as_onnx_runtime(self, name: str) -> None:
        case = CASES[name]
        found = backend.run_model(case.model(), self.inputs(case))
        theirs = run_in_onnx_runtime(case.model(), case.feed())
        live = [True] * case.B if case.lengths is None else np.array(case.lengths) > 0
        for got, expected, what in zip(found, theirs, ("Y", "Y_h", "Y_c"), strict=False):
            assert_close(got[..., live, :], expected[..., live, :], TOLERANCE["float32"], what)

    @staticmethod
    def inputs(case: RecurrentCase) -> list[Array]:
        feed = case.feed()
        return [feed[each.name] for each in case.model().graph.input]

    def test_what_onnx_runtime_does_otherwise(self) -> None:
        case = CASES["lstm-forward-layout-0-lengths"]
        _, h, c = run_in_onnx_runtime(case.model(), case.feed())
        assert not h[:, 2].any()
        assert not c[:, 2].any()
        with pytest.raises(Exception, match="layout"):
            run_in_onnx_runtime(CASES["lstm-forward-layout-1"].model(), case.feed())

    def test_a_row_of_length_0_keeps_its_state(self) -> None:
        case = CASES["lstm-forward-layout-0-lengths"]
        y, h, c = backend.run_model(case.model(), self.inputs(case))
        assert not y[:, :, 2].any()
        assert_same_bits(h[:, 2], case.feed()["initial_h"][:, 2])
        assert_same_bits(c[:, 2], case.feed()["initial_c"][:, 2])

    def test_padding_has_no_influence(self) -> None:
        case = CASES["lstm-reverse-layout-0-lengths"]
        inputs = self.inputs(case)
        clean = backend.run_model(case.model(), inputs)
        inputs[0][3:, 0] = np.nan
        inputs[0][:, 2] = np.inf
        for got, expected in zip(backend.run_model(case.model(), inputs), clean, strict=True):
            assert_same_bits(got, expected)

    @pytest.mark.parametrize("kept", [["Y"], ["", "Y_h"], ["", "", "Y_c"], ["Y", "", "Y_c"]])
    def test_outputs_that_are_left_out(self, kept: list[str]) -> None:
        case = RecurrentCase("LSTM")
        node = case.node()
        del node.output[:]
        node.output.extend(kept)
        model = model_of([node], case.feed(), ("W", "R", "B"), kept)
        found = backend.run_model(model, self.inputs(case))
        everything = dict(zip(("Y", "Y_h", "Y_c"), specified(case), strict=True))
        for got, name in zip(found, filter(None, kept), strict=True):
            assert_close(got, everything[name], TOLERANCE["float32"], name)

    def test_weights_that_are_inputs(self) -> None:
        case = CASES["gru-1-bidirectional-layout-0"]
        model = backend.prepare(case.model(constants=()))
        for got, expected in zip(model.run(case.feed()), specified(case), strict=True):
            assert_close(got, expected, TOLERANCE["float32"])

    def test_hidden_size_follows_from_the_weights(self) -> None:
        case = RecurrentCase("GRU")
        model = case.model()
        kept = [each for each in model.graph.node[0].attribute if each.name != "hidden_size"]
        del model.graph.node[0].attribute[:]
        model.graph.node[0].attribute.extend(kept)
        found = backend.run_model(model, self.inputs(case))
        assert_close(found[0], specified(case)[0], TOLERANCE["float32"])


#: In each node all places have one of them.
FUNCTIONS = (
    *("Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh"),
    *("HardSigmoid", "Elu", "Softsign", "Softplus"),
)
#: Those to whose numbers ONNX Runtime gives 0 where the specification says: as the operators.
NOT_IN_ONNX_RUNTIME = ("Affine", "ScaledTanh", "ThresholdedRelu")
OPERATORS_AND_FORMS = {"RNN": ("RNN", {}), "LSTM": ("LSTM", {}), "GRU-0": ("GRU", {}),
                       "GRU-1": ("GRU", {"linear_before_reset": 1})}  # fmt: skip
PLACES = {"RNN": 1, "LSTM": 3, "GRU": 2}
#: The gates of ONNX in the order of seqrs.
ORDER = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}


class TestFunctions:
    """Each function in every place, and its gradient.

    By default numbers too. Against the specification in NumPy, and for the values against ONNX
    Runtime. For gradients there is no other oracle than differences: of the specification, whose
    loss is moved by each number of X and of the weights.
    """

    @pytest.mark.parametrize("form", OPERATORS_AND_FORMS)
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_values(self, name: str, form: str) -> None:
        operator, attributes = OPERATORS_AND_FORMS[form]
        own = attributes | {"activations": [name] * PLACES[operator]}
        case = RecurrentCase(operator, attributes=own, T=3)
        found = backend.run_model(case.model(), TestNodes.inputs(case))
        for got, expected in zip(found, specified(case), strict=True):
            assert_close(got, expected, TOLERANCE["float32"])
        if name not in NOT_IN_ONNX_RUNTIME:
            for got, expected in zip(
                found, run_in_onnx_runtime(case.model(), case.feed()), strict=True
            ):
                assert_close(got, expected, TOLERANCE["float32"])

    @pytest.mark.parametrize("name", NOT_IN_ONNX_RUNTIME)
    def test_numbers_that_onnx_runtime_takes_for_0(self, name: str) -> None:
        def theirs(**numbers: list[float]) -> list[Array]:
            case = RecurrentCase("RNN", attributes={"activations": [name], **numbers})
            return run_in_onnx_runtime(case.model(), case.feed())

        zeros = {"activation_alpha": [0.0]}
        if name != "ThresholdedRelu":
            zeros["activation_beta"] = [0.0]
        for got, expected in zip(theirs(), theirs(**zeros), strict=True):
            assert_same_bits(got, expected)
        # With all numbers it is right.
        as_operator = {"activation_alpha": [1.0]}
        if name != "ThresholdedRelu":
            as_operator["activation_beta"] = [1.0 if name == "ScaledTanh" else 0.0]
        case = RecurrentCase("RNN", attributes={"activations": [name]})
        for got, expected in zip(theirs(**as_operator), specified(case), strict=True):
            assert_close(got, expected, TOLERANCE["float32"])

    @pytest.mark.parametrize("form", OPERATORS_AND_FORMS)
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_gradients(self, name: str, form: str) -> None:
        operator, attributes = OPERATORS_AND_FORMS[form]
        own = attributes | {"activations": [name] * PLACES[operator], "clip": 3.0}
        self.check(operator, own, peepholes=False)

    @pytest.mark.parametrize("clip", [None, 0.5])
    def test_gradients_of_coupled_peepholes(self, clip: float | None) -> None:
        own = {"input_forget": 1} | ({} if clip is None else {"clip": clip})
        self.check("LSTM", own, peepholes=True)

    def check(self, operator: str, attributes: dict[str, Any], peepholes: bool) -> None:
        sizes: dict[str, Any] = {"T": 3, "B": 2, "I": 2, "H": 2}
        case = RecurrentCase(
            operator,
            state=False,
            dtype="float64",
            attributes=attributes,
            peepholes=peepholes,
            **sizes,
        )
        feed = case.feed()
        # ONNX Runtime has no float64 to compare with.
        layer: Any = seqrs.onnx.load(case.model(), verify=False)
        dy = numbers(np.random.default_rng(3), (3, 2, 2), "float64")
        _, _, tape = layer.forward(feed["X"])
        found = layer.backward(tape, dy)

        def loss() -> float:
            return float((specified(case, feed)[0][:, 0] * dy).sum())

        moved = {each: differences(loss, feed[each]) for each in feed}
        order = ORDER[operator]
        if "input_forget" in attributes:
            # The forget gate has no effect.
            assert not any(np.split(moved[each][0], 4)[2].any() for each in "WR")
            order = [0, 3, 1]
        gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[operator]

        def ordered(array: Array) -> Array:
            parts = np.split(array, gates)
            return np.concatenate([parts[gate] for gate in order])

        expected = {"weight_ih_l0": ordered(moved["W"][0]), "weight_hh_l0": ordered(moved["R"][0])}
        Wb, Rb = np.split(moved["B"][0], 2)
        expected |= {"bias_ih_l0": ordered(Wb), "bias_hh_l0": ordered(Rb)}
        if peepholes:
            i, o, _ = np.split(moved["P"][0], 3)
            expected |= {"weight_ci_l0": i, "weight_co_l0": o}
        if operator == "GRU" and not attributes.get("linear_before_reset"):
            del expected["bias_hh_l0"]
        assert found.params.keys() == expected.keys()
        for each, array in expected.items():
            assert_close(found.params[each], array, tolerances.REFERENCE_TO_DIFFERENCES, each)
        assert_close(found.x, moved["X"], tolerances.REFERENCE_TO_DIFFERENCES, "X")


#: Operator, attributes, and the beginning of what is said of them.
REFUSED_ATTRIBUTES: dict[str, tuple[str, dict[str, Any], str]] = {
    "clip-0": ("LSTM", {"clip": 0.0}, r"clip: expected a finite number above 0, got 0\.0"),
    "clip-below-0": ("GRU", {"clip": -1.0}, r"clip: expected a finite number above 0, got -1"),
    "clip-nan": ("RNN", {"clip": float("nan")}, "clip: expected a finite number above 0, got nan"),
    "clip-whole": ("RNN", {"clip": 3}, "clip: expected a number, got 3"),
    "input-forget": ("LSTM", {"input_forget": 2}, "input_forget: expected 0 or 1, got 2"),
    "input-forget-gru": ("GRU", {"input_forget": 1}, "'input_forget': expected no such attribute"),
    "activations-lstm": (
        "LSTM",
        {"activations": ["Sigmoid", "Tanh", "Gelu"]},
        r"activations\[2\]: expected one of Relu, .*, Softplus, got 'Gelu'",
    ),
    "activations-gru": (
        "GRU",
        {"activations": ["Sigmoid", "Tanh", "Tanh"]},
        "activations: expected 2 for each of 1 directions, got",
    ),
    "activations-rnn": ("RNN", {"activations": ["Tanh"] * 2}, "activations: expected 1 for each"),
    "underscore": ("RNN", {"activations": ["leaky_relu"]}, r"activations\[0\]: expected one of"),
    # ONNX Runtime passes over what no function takes.
    "alpha": (
        "RNN",
        {"activation_alpha": [0.5]},
        "activation_alpha: expected as many as Tanh have",
    ),
    "beta": (
        "GRU",
        {"activations": ["HardSigmoid", "Elu"], "activation_beta": [0.5, 0.25]},
        "activation_beta: expected as many as HardSigmoid, Elu have, got 1 more",
    ),
    "alpha-inf": (
        "RNN",
        {"activations": ["Elu"], "activation_alpha": [float("inf")]},
        "activation_alpha: expected finite numbers, got inf",
    ),
    "unknown": ("LSTM", {"zoneout": 1}, "'zoneout': expected no such attribute"),
    "linear-before-reset": ("LSTM", {"linear_before_reset": 1}, "'linear_before_reset': expected"),
}


class TestRefused:
    """What cannot be computed is refused by its name."""

    @pytest.mark.parametrize("name", REFUSED_ATTRIBUTES)
    @pytest.mark.parametrize("read", [seqrs.onnx.load, backend.prepare])
    def test_attributes(self, name: str, read: Any) -> None:
        operator, attributes, message = REFUSED_ATTRIBUTES[name]
        case = RecurrentCase(operator, attributes=attributes)
        expected = rf"node 0 'it' \({operator}\): {message}"
        with pytest.raises(seqrs.ModelFileError, match=expected):
            read(case.model())

    def test_values_by_default_are_taken(self) -> None:
        own = {"activations": ["sigmoid", "TANH", "Tanh"], "input_forget": 0}
        case = RecurrentCase("LSTM", attributes=own)
        assert_close(
            backend.run_model(case.model(), TestNodes.inputs(case))[0],
            specified(case)[0],
            TOLERANCE["float32"],
        )

    def test_peepholes_of_another_shape(self) -> None:
        case = RecurrentCase("LSTM", peepholes=True)
        feed = case.feed() | {"P": np.zeros((1, 12), np.float32)}
        node = case.node()
        expected = r"P: expected shape \(1, 18\) .* got \(1, 12\)"
        with pytest.raises(seqrs.ShapeError, match=expected):
            seqrs.onnx.load(model_of([node], feed, ("W", "R", "B", "P"), node.output))

    @pytest.mark.parametrize("read", [seqrs.onnx.load, backend.prepare])
    def test_operators(self, read: Any) -> None:
        node = make_node("Conv", ["X", "W"], ["y"], name="a conv")
        with pytest.raises(
            seqrs.ModelFileError, match=r"node 0 'a conv' \(Conv\): expected one of"
        ):
            read(model_of([node], RecurrentCase("RNN").feed(), ("W",)))

    def test_attributes_of_other_operators(self) -> None:
        node = make_node("Relu", ["X"], ["y"], slope=1.0)
        with pytest.raises(seqrs.ModelFileError, match=r"\(Relu\): attributes: .* got 'slope'"):
            seqrs.onnx.load(model_of([node], {"X": np.zeros((1, 2, 3), np.float32)}))

    def test_operators_of_other_domains(self) -> None:
        node = make_node("Relu", ["X"], ["y"], domain="com.microsoft")
        with pytest.raises(seqrs.ModelFileError, match=r"got one of 'com\.microsoft'"):
            seqrs.onnx.load(model_of([node], {"X": np.zeros((1, 2, 3), np.float32)}))

    @pytest.mark.parametrize("opset", [1, 6, 29, 1000])
    def test_opsets(self, opset: int) -> None:
        node = make_node("Relu", ["X"], ["y"])
        with pytest.raises(seqrs.ModelFileError, match=r"opset: expected one in 7\.\.=28"):
            seqrs.onnx.load(model_of([node], {"X": np.zeros((1, 2), np.float32)}, opset=opset))

    def test_float16(self) -> None:
        model = model_of([make_node("Relu", ["X"], ["y"])], {"X": np.zeros((1, 2, 3), np.float16)})
        with pytest.raises(seqrs.ModelFileError, match=r"input 'X': expected a type of float32"):
            seqrs.onnx.load(model)


def goldens() -> list[str]:
    return sorted(path.stem for path in (GOLDEN / "onnx").glob("*.onnx"))


#: Which of them are no chain, and the node that is why. The dynamo exporter writes an nn.RNN as its
#: single steps.
NO_CHAIN = {
    "gru-residual-dynamo": "(Add)",
    "gru-residual-script": "(Add)",
    "rnn-tanh-dynamo": "(Slice)",
    "rnn-relu-time-first-dynamo": "(Slice)",
}


class TestPyTorch:
    """Models that PyTorch exported, by both of its exporters (golden/generate_onnx.py)."""

    def test_there_are_some_of_both(self) -> None:
        names = goldens()
        assert {name.rpartition("-")[2] for name in names} == {"script", "dynamo"}
        assert len(names) == 25

    @pytest.mark.parametrize("name", goldens())
    def test_as_pytorch(self, name: str) -> None:
        arrays = self.arrays(name)
        model: Any = seqrs.onnx.load(GOLDEN / "onnx" / f"{name}.onnx")
        if name in NO_CHAIN:
            assert isinstance(model, OnnxModel)
            found = list(model(arrays["x"]).values())
        else:
            assert isinstance(model, (seqrs.Sequential, seqrs.Layer)), model
            state = (arrays["h"], arrays["c"]) if "h" in arrays else None
            y, state = model(arrays["x"], state, lengths=arrays.get("lengths"))
            found = [y, *state] if "h" in arrays else [y]
        for k, got in enumerate(found):
            assert_close(got, arrays[f"y{k}"], TOLERANCE["float32"], f"y{k}")

    @pytest.mark.parametrize("name", goldens())
    def test_node_by_node(self, name: str) -> None:
        arrays = self.arrays(name)
        data = (GOLDEN / "onnx" / f"{name}.onnx").read_bytes()
        prepared = backend.prepare(onnx.load_from_string(data))
        inputs = {each.name: arrays[each.name] for each in onnx.load_from_string(data).graph.input}
        for k, got in enumerate(prepared.run(inputs)):
            assert_close(got, arrays[f"y{k}"], TOLERANCE["float32"], f"y{k}")

    @staticmethod
    def arrays(name: str) -> dict[str, Array]:
        with np.load(GOLDEN / "onnx" / f"{name.rpartition('-')[0]}.npz") as file:
            return dict(file)

    @pytest.mark.parametrize("name", NO_CHAIN)
    def test_why_it_is_no_chain(self, name: str) -> None:
        model = seqrs.onnx.load(GOLDEN / "onnx" / f"{name}.onnx")
        assert isinstance(model, OnnxModel)
        assert NO_CHAIN[name] in model.reason

    def test_layers_are_stacked(self) -> None:
        model = seqrs.onnx.load(GOLDEN / "onnx" / "gru-2-bidirectional-script.onnx")
        assert isinstance(model, seqrs.Sequential)
        kinds = [type(layer).__name__ for layer in model]
        assert kinds == ["Embedding", "GRU", "Linear"]
        gru: Any = model[1]
        assert (gru.num_layers, gru.bidirectional, gru.reset_after) == (2, True, True)
        assert gru.batch_first

    def test_a_chain_trains_saves_and_serves(self, tmp_path: Path) -> None:
        model = seqrs.onnx.load(GOLDEN / "onnx" / "lstm-2-dynamo.onnx")
        assert isinstance(model, seqrs.Sequential)
        random = np.random.default_rng(0)
        x, y = random.integers(0, 12, (4, 6)), random.integers(0, 3, (4, 6))
        trainer = seqrs.Trainer(model, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=3e-2))
        losses = [trainer.step(x, y).loss for _ in range(40)]
        assert losses[-1] < losses[0] / 2
        model.save(tmp_path / "it.safetensors")
        assert seqrs.load(tmp_path / "it.safetensors") == model
        whole, _ = model(x)
        first, state = model.step(x[:, 0])
        second, _ = model.step(x[:, 1], state)
        assert_same_bits(np.stack([first, second], 1), whole[:, :2])


class TestLayers:
    """What a node becomes."""

    def test_options(self) -> None:
        own = {
            "activations": ["HardSigmoid", "Tanh", "Affine"],
            "activation_alpha": [0.2, 3.0],
            "activation_beta": [0.5],
            "clip": 0.1,
            "input_forget": 1,
        }
        case = RecurrentCase("LSTM", state=False, peepholes=True, attributes=own)
        layer: Any = seqrs.onnx.load(case.model())
        assert (layer.coupled, layer.peepholes, layer.clip) == (True, True, 0.1)
        assert layer.gate_activation == "hard_sigmoid"
        assert layer.candidate_activation == "tanh"
        assert layer.output_activation == ("affine", 3.0, 0.0)
        assert list(layer.state_dict()) == [
            *("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
            *("weight_ci_l0", "weight_co_l0"),
        ]

    @pytest.mark.parametrize(
        "other", [{"clip": 1.0}, {"activations": ["Relu"]}, {"activations": ["Affine"]}]
    )
    def test_only_what_is_alike_is_one_stack(self, other: dict[str, Any]) -> None:
        first = RecurrentCase("RNN", state=False, I=6)
        for above, count in ((first, 1), (RecurrentCase("RNN", attributes=other), 2)):
            nodes = [first.node(), make_node("Squeeze", ["Y", "one"], ["s"])]
            nodes += [above.node(), make_node("Squeeze", ["Z", "one"], ["y"])]
            names = ["s", "W", "R", "B"]
            del nodes[2].input[:], nodes[2].output[:]
            nodes[2].input.extend(names)
            nodes[2].output.extend(["Z"])
            for k, node in enumerate(nodes):
                node.name = f"node {k}"
            feed = first.feed() | {"one": np.array([1])}
            # ONNX Runtime takes other numbers where an Affine has none.
            verify = False if other.get("activations") == ["Affine"] else None
            model: Any = seqrs.onnx.load(
                model_of(nodes, feed, ("W", "R", "B", "one")), verify=verify
            )
            layers = model.layers if isinstance(model, seqrs.Sequential) else [model]
            assert len(layers) == count


def lstm(**options: Any) -> tuple[Any, dict[str, Array]]:
    case = RecurrentCase("LSTM", state=False, **options)
    return case, case.feed()


def no_chains() -> dict[str, tuple[list[Any], dict[str, Array], tuple[str, ...], str]]:
    """Nodes, what they are given, their outputs, and what is said of them."""
    found = {}
    reverse = RecurrentCase("LSTM", "reverse", state=False)
    found["reverse"] = ([reverse.node()], reverse.feed(), ("Y",), "reads backwards alone")

    mixed = CASES["rnn-tanh-relu"]
    found["functions"] = ([mixed.node()], mixed.feed(), ("Y",), "different functions")

    case, feed = lstm()
    two = [
        case.node(),
        make_node("Squeeze", ["Y", "one"], ["s"]),
        make_node("Relu", ["s"], ["a"]),
        make_node("Tanh", ["s"], ["b"]),
        make_node("Add", ["a", "b"], ["y"]),
    ]
    feed = feed | {"one": np.array([1])}
    found["branches"] = (two, feed, ("y",), "(Tanh) reads what another layer has read")

    biased = [
        case.node(),
        make_node("Squeeze", ["Y", "one"], ["s"]),
        make_node("MatMul", ["s", "weight"], ["product"]),
        make_node("Add", ["product", "bias"], ["sum"]),
        make_node("Relu", ["product"], ["y"]),
    ]
    weight = {"weight": np.ones((6, 2), np.float32), "bias": np.ones(2, np.float32)}
    found["branch-before-a-bias"] = (biased, feed | weight, ("y",), "has read too")

    found["constant-lengths"] = (
        [RecurrentCase("GRU", lengths=[3, 5, 1], state=False).node()],
        RecurrentCase("GRU", lengths=[3, 5, 1], state=False).feed(),
        ("Y",),
        "has lengths that are no input",
    )

    given = RecurrentCase("LSTM")
    shifted = given.feed() | {"shift": np.ones(1, np.float32)}
    start = [make_node("Add", ["initial_h", "shift"], ["h0"]), given.node()]
    start[1].input[5] = "h0"
    found["computed-state"] = (start, shifted, ("Y",), "inputs besides lengths and states")

    constant = RecurrentCase("GRU")
    found["constant-state"] = (
        [constant.node()],
        constant.feed(),
        ("Y",),
        "starts from something else than zeros",
    )

    batch_last = [case.node(), make_node("Squeeze", ["Y", "one"], ["s"])]
    batch_last.append(make_node("Transpose", ["s"], ["y"], perm=[1, 0, 2]))
    found["order"] = (batch_last, feed, ("y",), "axes in another order")

    stepped = [case.node(), make_node("Squeeze", ["Y", "one"], ["s"])]
    stepped.append(make_node("Gather", ["s", "first"], ["y"], axis=0))
    found["first-step"] = (stepped, feed | {"first": np.array(0)}, ("y",), "(Gather)")

    lengths = RecurrentCase("LSTM", lengths=[3, 5, 1], state=False)
    last = [lengths.node(), make_node("Squeeze", ["Y", "one"], ["s"])]
    last.append(make_node("Gather", ["s", "last"], ["y"], axis=0))
    with_last = lengths.feed() | {"one": np.array([1]), "last": np.array(-1)}
    found["last-of-padded"] = (last, with_last, ("y",), "(Gather)")

    bounds = {"from": np.array([-1]), "to": np.array([2**31 - 1]), "zero": np.array([0])}
    sliced = [
        make_node("Slice", ["s", "from", "to", "zero"], ["l"]),
        make_node("Squeeze", ["l", "zero"], ["y"]),
    ]
    with_bounds = lengths.feed() | bounds | {"one": np.array([1])}
    found["last-of-padded-sliced"] = ([*last[:2], *sliced], with_bounds, ("y",), "(Slice)")

    both = RecurrentCase("LSTM", "bidirectional", state=False)
    parts = [both.node(), make_node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3])]
    parts.append(make_node("Reshape", ["t", "shape"], ["s"]))
    parts.append(make_node("Gather", ["s", "last"], ["y"], axis=0))
    with_shape = both.feed() | {"shape": np.array([0, 0, -1]), "last": np.array(-1)}
    found["last-of-both-sliced"] = ([*parts[:3], *sliced], with_shape | bounds, ("y",), "(Squeeze)")
    found["last-of-both-ways"] = (parts, with_shape, ("y",), "(Gather)")

    wrong = [both.node(), make_node("Reshape", ["Y", "shape"], ["y"])]
    found["directions-apart"] = (
        wrong,
        both.feed() | {"shape": np.array([0, 0, -1])},
        ("y",),
        "(Reshape)",
    )

    softmax = [case.node(), make_node("Squeeze", ["Y", "one"], ["s"])]
    softmax.append(make_node("Softmax", ["s"], ["y"], axis=0))
    found["softmax-of-steps"] = (softmax, feed, ("y",), "(Softmax)")

    found["no-recurrent-node"] = (
        [make_node("Relu", ["X"], ["y"])],
        {"X": feed["X"]},
        ("y",),
        "no recurrent node",
    )
    return found


NO_CHAINS = no_chains()


#: What tf2onnx makes a loop of.
LOOPS = ("gru-after", "gru-before", "masked", "rnn")


class TestTf2onnx:
    """Models of Keras that tf2onnx exported (golden/generate_tf2onnx.py)."""

    CHAINS: ClassVar[dict[str, list[str]]] = {
        "lstm": ["LSTM", "Last"],
        "lstm-sequences": ["LSTM"],
        "lstm-2": ["LSTM", "Last"],
        "bidirectional": ["LSTM", "Last"],
        "bidirectional-sequences": ["LSTM"],
        "classifier": ["Embedding", "LSTM", "Last", "Linear", "Activation"],
        "tagger": ["Embedding", "LSTM", "Linear"],
        "fixed-steps": ["LSTM", "Linear", "Activation"],
    }

    @pytest.mark.parametrize("name", CHAINS)
    def test_as_keras(self, name: str) -> None:
        with np.load(GOLDEN / "tf2onnx" / f"{name}.npz") as file:
            x, y = file["x"], file["y"]
        model: Any = seqrs.onnx.load(GOLDEN / "tf2onnx" / f"{name}.onnx", verify=True)
        layers = list(model) if isinstance(model, seqrs.Sequential) else [model]
        assert [type(layer).__name__ for layer in layers] == self.CHAINS[name]
        assert_close(model(x)[0], y, TOLERANCE["float32"])
        assert model._batch_first

    def test_these_are_all(self) -> None:
        names = {path.stem for path in (GOLDEN / "tf2onnx").glob("*.onnx")}
        assert names == {*self.CHAINS, *LOOPS}

    @pytest.mark.parametrize("name", CHAINS)
    def test_node_by_node(self, name: str) -> None:
        with np.load(GOLDEN / "tf2onnx" / f"{name}.npz") as file:
            x, y = file["x"], file["y"]
        model = OnnxModel(read(GOLDEN / "tf2onnx" / f"{name}.onnx"))
        (found,) = model(x).values()
        assert_close(found, y, TOLERANCE["float32"])

    @pytest.mark.parametrize(
        "change", ["halves", "last-of-backward", "first-of-forward", "ids", "ids-twice"]
    )
    def test_what_is_nearly_a_chain(self, change: str) -> None:
        """One thing is another one: it is computed as it stands."""
        model = onnx.load(GOLDEN / "tf2onnx" / "classifier.onnx")
        graph = model.graph
        constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}

        def start(node: Any) -> int:
            return int(constants.get(node.input[1], np.array([9]))[0])

        # The last two slices are those of the steps.
        slices = {start(node): node for node in graph.node if node.op_type == "Slice"}
        (halves,) = [node for node in graph.node if node.op_type == "Concat"][-1:]
        casts = [node for node in graph.node if node.op_type == "Cast"]
        if change == "halves":
            halves.input[:] = halves.input[::-1]
        elif change == "ids":
            positive, negative = (
                next(node for node in casts if node.input[0] == of.output[0])
                for of in graph.node
                if of.op_type in ("Not", "Less")
            )
            positive.input[0], negative.input[0] = negative.input[0], positive.input[0]
        elif change == "ids-twice":
            (add,) = [node for node in graph.node if node.op_type == "Add"][1:2]
            add.input[0] = add.input[1]
        else:
            first = [n for n in graph.node if n.op_type == "Slice" and start(n) == 0][-1]
            if change == "last-of-backward":
                first.input[1:3] = slices[-1].input[1:3]
            else:
                slices[-1].input[1:3] = first.input[1:3]
        # With these ids nothing is found in the table.
        loaded = seqrs.onnx.load(model, verify="ids" not in change)
        assert isinstance(loaded, OnnxModel)

    @pytest.mark.parametrize("name", LOOPS)
    def test_loops_are_refused(self, name: str) -> None:
        expected = r"node \d+ '.*while_loop' \(Loop\): 'body': expected no subgraph, got one"
        with pytest.raises(seqrs.ModelFileError, match=expected):
            seqrs.onnx.load(GOLDEN / "tf2onnx" / f"{name}.onnx")


class TestChains:
    """What is a chain, what is none, and that what is none is computed all the same."""

    def test_a_node_alone_is_a_layer(self) -> None:
        case = CASES["gru-1-bidirectional-layout-0-lengths"]
        layer: Any = seqrs.onnx.load(case.model())
        assert isinstance(layer, seqrs.GRU)
        assert not layer.batch_first
        feed = case.feed()
        y, h = layer(feed["X"], feed["initial_h"], lengths=case.lengths)
        Y, Y_h = specified(case)
        assert_close(y, Y.transpose(0, 2, 1, 3).reshape(y.shape), TOLERANCE["float32"])
        assert_close(h, Y_h, TOLERANCE["float32"])

    def test_layout_1_is_batch_first(self) -> None:
        case = RecurrentCase("RNN", layout=1, state=False)
        layer: Any = seqrs.onnx.load(case.model(), verify=False)
        assert layer.batch_first
        Y = specified(case)[0]
        assert_close(layer(case.feed()["X"])[0], Y[:, :, 0], TOLERANCE["float32"])

    def test_nodes_of_different_kinds_are_layers_of_their_own(self) -> None:
        model = seqrs.Sequential([seqrs.LSTM(4, 6), seqrs.LSTM(6, 5), seqrs.GRU(5, 5)])
        data = exported(model)
        loaded: Any = seqrs.onnx.load(data)
        assert loaded == model

    @pytest.mark.parametrize("name", NO_CHAINS)
    def test_no_chain(self, name: str) -> None:
        nodes, feed, outputs, reason = NO_CHAINS[name]
        inputs = {"X", *(["sequence_lens"] if "last-of-padded" in name else [])} | (
            {"initial_h"} if name == "computed-state" else set()
        )
        constants = tuple(each for each in feed if each not in inputs)
        data = model_of(nodes, feed, constants, outputs)
        model = seqrs.onnx.load(data)
        assert isinstance(model, OnnxModel), model
        assert reason in model.reason
        found = model(**{each.name: feed[each.name] for each in model.inputs})
        for got, expected in zip(found.values(), run_in_onnx_runtime(data, feed), strict=True):
            if "last-of-padded" in name:
                got, expected = got[1:2], expected[1:2]
            assert_close(got, expected, TOLERANCE["float32"])

    def test_states_in_another_order_are_no_chain(self) -> None:
        model = onnx.load(GOLDEN / "onnx" / "lstm-states-script.onnx")
        first, second = (node for node in model.graph.node if node.op_type == "LSTM")
        first.input[5], second.input[5] = second.input[5], first.input[5]
        # A node reads what stands before it.
        first_ones = {"Constant": 0, "Slice": 1}
        nodes = sorted(model.graph.node, key=lambda node: first_ones.get(node.op_type, 2))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        loaded = seqrs.onnx.load(model)
        assert isinstance(loaded, OnnxModel)
        assert "starts from something else" in loaded.reason

    def test_old_opsets(self) -> None:
        # Axes as attributes, and a Softmax over all axes from the given one.
        case, feed = lstm()
        nodes = [
            case.node(),
            make_node("Squeeze", ["Y"], ["s"], axes=[1]),
            make_node("Slice", ["s"], ["p"], starts=[1], ends=[9], axes=[0]),
            make_node("Softmax", ["p"], ["y"], axis=1),
        ]
        model = model_of(nodes, feed, ("W", "R", "B"), opset=9)
        (expected,) = run_in_onnx_runtime(model, feed)
        loaded = seqrs.onnx.load(model)
        assert isinstance(loaded, OnnxModel)
        assert_close(loaded(feed["X"])["y"], expected, TOLERANCE["float32"])


def exported(model: Any) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.onnx"
        seqrs.onnx.export(model, path)
        return path.read_bytes()


def operator_cases() -> dict[str, tuple[Any, dict[str, Array], int]]:
    """One node or more of each operator: the node, its inputs, the opset."""
    random = np.random.default_rng(3)
    x = numbers(random, (2, 3, 4), "float32", 3.0)
    row, ids = x[0, 0], np.array([[0, 2], [1, -1]])
    mask = np.array([True, False, True])[:, None]
    i64 = np.array

    def case(
        name: str, *arrays: Array, opset: int = 17, **attributes: Any
    ) -> tuple[Any, dict[str, Array], int]:
        feed = {f"i{k}": np.asarray(array) for k, array in enumerate(arrays)}
        return make_node(name, list(feed), ["y"], **attributes), feed, opset

    tensor = onnx.numpy_helper.from_array
    nothing = np.zeros(0, np.int64)
    return {
        "Add": case("Add", x, row),
        "Add-integers": case("Add", ids, i64([1])),
        "And": case("And", mask, ~mask),
        "Cast": case("Cast", x, to=7),
        "Cast-bool": case("Cast", mask, to=1),
        "Concat": case("Concat", x, x[:, :1], axis=1),
        "Constant": case("Constant", value=tensor(x)),
        "Constant-float": case("Constant", value_float=0.5),
        "Constant-ints": case("Constant", value_ints=[1, 2]),
        "ConstantOfShape": case("ConstantOfShape", i64([2, 3]), value=tensor(i64([7]))),
        "ConstantOfShape-zeros": case("ConstantOfShape", i64([2])),
        "Div": case("Div", x, x + 5),
        "Equal": case("Equal", ids, i64([2])),
        "Expand": case("Expand", x[:, :1], i64([1, 3, 1])),
        "Gather": case("Gather", x[0], ids, axis=0),
        "Gather-axis": case("Gather", x, i64(-1), axis=2),
        "Gemm": case("Gemm", x[0], x[1], row[:3], transB=1, alpha=0.5, beta=2.0),
        "Gemm-transA": case("Gemm", x[0], x[1], transA=1),
        "Identity": case("Identity", x),
        "LayerNormalization": case("LayerNormalization", x, row, row + 1, epsilon=1e-3),
        "Less": case("Less", ids, i64([1])),
        "MatMul": case("MatMul", x, x[0].T),
        "Max": case("Max", x, row),
        "Mul": case("Mul", x, row),
        "Not": case("Not", mask),
        "Range": case("Range", i64(1), i64(10), i64(3)),
        "Range-down": case("Range", i64(9), i64(0), i64(-2)),
        "ReduceMax": case("ReduceMax", x, axes=[1], keepdims=0),
        "ReduceMax-18": case("ReduceMax", x, i64([0, -1]), opset=18),
        "ReduceMean": case("ReduceMean", x, axes=[-2]),
        "ReduceSum": case("ReduceSum", x, i64([0]), keepdims=0),
        "ReduceSum-all": case("ReduceSum", x),
        "ReduceSum-no-axes": case("ReduceSum", x, nothing, keepdims=0),
        "Relu": case("Relu", x),
        "Reshape": case("Reshape", x, i64([0, -1, 2])),
        "Shape": case("Shape", x),
        "Shape-part": case("Shape", x, start=1, end=-1),
        "Sigmoid": case("Sigmoid", x * 30),
        "Slice": case("Slice", x, i64([1, -3]), i64([9, -1]), i64([1, 2])),
        "Slice-backwards": case("Slice", x, i64([9]), i64([-9]), i64([1]), i64([-2])),
        "Slice-attributes": case("Slice", x, opset=9, starts=[0, 1], ends=[2, 3]),
        "Softmax": case("Softmax", x * 30),
        "Softmax-axis": case("Softmax", x, axis=1),
        "Softmax-old": case("Softmax", x, opset=11),
        "Squeeze": case("Squeeze", x[:, :1], i64([1])),
        "Squeeze-all": case("Squeeze", x[:, :1]),
        "Squeeze-no-axes": case("Squeeze", x[:, :1], nothing),
        "Squeeze-attribute": case("Squeeze", x[:1], opset=11, axes=[0]),
        "Tanh": case("Tanh", x),
        "Transpose": case("Transpose", x, perm=[2, 0, 1]),
        "Transpose-all": case("Transpose", x),
        "Unsqueeze": case("Unsqueeze", x, i64([0, -1])),
        "Unsqueeze-attribute": case("Unsqueeze", x, opset=11, axes=[1]),
        "Where": case("Where", mask, x, row),
    }


OPERATOR_CASES = operator_cases()


class TestOperators:
    """The operators around the recurrent ones are ONNX Runtime's."""

    @pytest.mark.parametrize("name", OPERATOR_CASES)
    def test_as_onnx_runtime(self, name: str) -> None:
        node, feed, opset = OPERATOR_CASES[name]
        (got,) = backend.run_node(node, list(feed.values()), opset_version=opset)
        value = onnx.helper.make_tensor_value_info
        kind = onnx.helper.np_dtype_to_tensor_dtype
        graph = onnx.helper.make_graph(
            [node],
            "graph",
            [value(n, kind(a.dtype), a.shape) for n, a in feed.items()],
            [value("y", kind(got.dtype), None)],
        )
        opsets = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
        (expected,) = run_in_onnx_runtime(model, feed)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        if got.dtype.kind == "f":
            assert_close(got, expected, tolerances.FORMULA_F32)
        else:
            assert_same_bits(got, expected)

    def test_every_operator_has_a_case(self) -> None:
        assert {name.partition("-")[0] for name in OPERATOR_CASES} == set(OPERATORS)

    @pytest.mark.parametrize(
        ("node", "arrays", "error", "message"),
        [
            (make_node("Add", ["a", "b"], ["y"]), [(2, 3), (4,)], seqrs.ShapeError, "that fit"),
            (make_node("MatMul", ["a", "b"], ["y"]), [(2, 3), (4, 2)], seqrs.ShapeError, "fit"),
            (make_node("Transpose", ["a"], ["y"], perm=[0, 0]), [(2, 3)], seqrs.ShapeError, "fit"),
            (make_node("Softmax", ["a"], ["y"], axis=7), [(2, 3)], seqrs.ShapeError, "fit"),
            (
                make_node("ReduceMax", ["a"], ["y"], keepdims=2),
                [(2,)],
                seqrs.ShapeError,
                "keepdims",
            ),
            (make_node("Not", ["a"], ["y"]), [(2, 3)], seqrs.DTypeError, "expected bool"),
            (make_node("Concat", ["a", "b"], ["y"]), [(2, 3), (2, 3)], None, ""),
        ],
    )
    def test_what_does_not_fit(
        self, node: Any, arrays: list[tuple[int, ...]], error: Any, message: str
    ) -> None:
        given = [np.zeros(shape, np.float32) for shape in arrays]
        if error is None:
            assert backend.run_node(node, given)[0].shape == (4, 3)
            return
        with pytest.raises(error, match=message):
            backend.run_node(node, given)

    def test_element_types_that_differ(self) -> None:
        node = make_node("Add", ["a", "b"], ["y"])
        given = [np.zeros(2, np.float32), np.zeros(2, np.float64)]
        with pytest.raises(seqrs.DTypeError, match="of one element type"):
            backend.run_node(node, given)

    def test_an_index_out_of_range(self) -> None:
        node = make_node("Gather", ["a", "b"], ["y"])
        with pytest.raises(seqrs.ShapeError, match=r"expected ones in -3\.\.3, got 3"):
            backend.run_node(node, [np.zeros((3, 2), np.float32), np.array([0, 3])])


class TestOnnxModel:
    """A model that is no chain."""

    def model(self) -> tuple[OnnxModel, RecurrentCase]:
        case = CASES["lstm-reverse-layout-0"]
        model = seqrs.onnx.load(case.model())
        assert isinstance(model, OnnxModel)
        return model, case

    def test_its_inputs_and_outputs(self) -> None:
        model, _ = self.model()
        assert [value.name for value in model.inputs] == ["X", "initial_h", "initial_c"]
        assert model.inputs[0].shape == ("X0", "X1", 4)
        assert [value.name for value in model.outputs] == ["Y", "Y_h", "Y_c"]
        assert "X float32('X0', 'X1', 4)" in repr(model)
        assert "reads backwards alone" in repr(model)

    def test_inputs_by_name_and_in_order(self) -> None:
        model, case = self.model()
        feed = case.feed()
        by_name = model(**{each.name: feed[each.name] for each in model.inputs})
        in_order = model(feed["X"], feed["initial_h"], initial_c=feed["initial_c"])
        for name in by_name:
            assert_same_bits(by_name[name], in_order[name])
        assert [array.flags.c_contiguous for array in by_name.values()] == [True] * 3

    def test_what_is_loaded_into_its_layers_counts(self) -> None:
        model, case = self.model()
        feed = case.feed()
        given = {each.name: feed[each.name] for each in model.inputs}
        (name,) = model.layers
        assert name == "Y"
        before = model(**given)["Y"]
        weights = model.layers[name].state_dict()
        model.layers[name].load_state_dict({k: 0 * v for k, v in weights.items()})
        assert not np.array_equal(model(**given)["Y"], before)

    def test_it_pickles_and_copies(self) -> None:
        model, case = self.model()
        layer = next(iter(model.layers.values()))
        layer.load_state_dict({k: v + 0.25 for k, v in layer.state_dict().items()})
        feed = case.feed()
        given = {each.name: feed[each.name] for each in model.inputs}
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            for name, array in model(**given).items():
                assert_same_bits(other(**given)[name], array)

    def test_both_directions_of_different_functions(self) -> None:
        model: Any = seqrs.onnx.load(CASES["rnn-tanh-relu"].model())
        assert {k: v.nonlinearity for k, v in model.layers.items()} == {
            "Y": "tanh",
            "Y_reverse": "relu",
        }

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({}, TypeError, "expected 'X'"),
            ({"x": np.zeros(1)}, TypeError, "got 'x'"),
            ({"X": np.zeros((5, 3, 7))}, seqrs.ShapeError, "input 'X': expected shape"),
            ({"X": np.zeros((5, 3))}, seqrs.ShapeError, "input 'X': expected shape"),
            ({"X": np.zeros((5, 3, 4), complex)}, seqrs.DTypeError, "expected float32"),
            (
                {"X": np.zeros((5, 2, 4)), "initial_h": 0, "initial_c": 0},
                seqrs.ShapeError,
                "input 'initial_h'",
            ),
        ],
    )
    def test_inputs_that_do_not_fit(self, given: Any, error: Any, message: str) -> None:
        model, _ = self.model()
        with pytest.raises(error, match=message):
            model(**given)


class TestBackend:
    """The interface, besides what the official tests use."""

    def test_devices(self) -> None:
        assert backend.supports_device("CPU")
        assert backend.supports_device("CPU:0")
        assert not backend.supports_device("CUDA")
        with pytest.raises(seqrs.NoDeviceError, match="expected 'CPU', got 'CUDA'"):
            backend.prepare(RecurrentCase("RNN").model(), "CUDA")

    def test_what_it_takes(self) -> None:
        assert backend.is_compatible(RecurrentCase("RNN").model())
        assert not backend.is_compatible(RecurrentCase("RNN", attributes={"clip": -1.0}).model())
        with pytest.raises(TypeError, match="options: expected none"):
            backend.prepare(RecurrentCase("RNN").model(), strict=True)

    def test_a_node_alone(self) -> None:
        case = CASES["lstm-bidirectional-layout-1-lengths"]
        feed = case.feed()
        names = [name for name in case.node().input if name]
        for given in ([feed[name] for name in names], feed):
            found = backend.run_node(case.node(), given)
            for got, expected in zip(found, specified(case), strict=True):
                assert_close(got, expected, TOLERANCE["float32"])

    def test_one_array_for_one_input(self) -> None:
        (y,) = backend.run_node(make_node("Relu", ["x"], ["y"]), np.array([-1.0, 1.0]))
        assert_same_bits(y, np.array([0.0, 1.0]))


class TestPackage:
    """What is imported when."""

    def test_nothing_is_imported_before_it_is_used(self) -> None:
        code = "import sys, seqrs; assert 'onnx' not in sys.modules; seqrs.onnx; "
        code += "assert 'onnx' not in sys.modules and 'seqrs.onnx' in sys.modules"
        found = python(code)
        assert found.returncode == 0, found.stderr

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = RecurrentCase("RNN").model().SerializeToString()
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrs\[onnx\]'"):
            seqrs.onnx.load(data)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrs\[onnx\]'"):
            seqrs.onnx.export(seqrs.LSTM(2, 3), "never.onnx")
