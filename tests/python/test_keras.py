"""Keras's layers become layers of the package, and go back, by golden files: without Keras."""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from cases import CELLS, DTYPES, GOLDEN, Array, Given, make, parts
from seqrs.interop.keras_chain import functional_chain
from seqrs.interop.keras_layers import Conversion, KerasLayer, MaskOfInput, convert
from tolerances import assert_close, assert_same_bits

FILES = sorted(path.stem for path in (GOLDEN / "keras").glob("*.npz"))


class Golden:
    """A golden file: the layers, as they say of themselves, and what they compute."""

    def __init__(self, name: str, dtype: str = "float32") -> None:
        with np.load(GOLDEN / "keras" / f"{name}.npz") as file:
            self.arrays: dict[str, Array] = dict(file)
        self.chain = [
            KerasLayer(**each, weights=self.several(f"weights.{k}", dtype))
            for k, each in enumerate(json.loads(str(self.arrays["chain"])))
        ]
        self.mask = self.arrays["mask"]
        self.x = self.arrays["x"]

    def several(self, name: str, dtype: str = "float32") -> list[Array]:
        found = [array for key, array in self.arrays.items() if key.rpartition(".")[0] == name]
        return [array.astype(dtype) for array in found]

    def changed(self, **options: Any) -> list[KerasLayer]:
        """The layer alone with other options. An option a.b is option b of the layer a inside."""
        (layer,) = self.chain
        config = copy.deepcopy(layer.config)
        for option, value in options.items():
            place, _, inner = option.rpartition("__")
            (config[place]["config"] if place else config)[inner] = value
        return [layer._replace(config=config)]


def test_there_are_golden_files() -> None:
    assert len(FILES) == 52


class TestGolden:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", FILES)
    def test_outputs_and_states(self, name: str, dtype: str) -> None:
        golden = Golden(name, dtype)
        conversion = convert(golden.chain)
        model = seqrs.Sequential(conversion.layers)
        assert model.dtype == dtype
        masks = {"_masked": golden.mask} if conversion.made else {"": None, "_masked": golden.mask}
        for suffix, mask in masks.items():
            expected = golden.arrays[f"y{suffix}"]
            y, states = model(golden.x, mask=mask)
            if mask is not None and y.ndim == 3:
                # Keras repeats the step before there.
                assert not y[~mask].any()
                y, expected = y[mask], expected[mask]
            assert_close(y, expected, tolerances.PACKAGE_TO_KERAS, f"y{suffix}")
            for n, state in enumerate(golden.several(f"state{suffix}")):
                h_and_c = [
                    p[slot] for slot in range(len(parts(states[0])[0])) for p in parts(states[0])
                ]
                assert_close(h_and_c[n], state, tolerances.PACKAGE_TO_KERAS, f"state {n}{suffix}")

    @pytest.mark.parametrize("name", FILES)
    def test_what_it_is_here(self, name: str) -> None:
        found = [type(layer).__name__ for layer in convert(Golden(name).chain).layers]
        if name.startswith("model"):
            return
        kind = next(k for k in ("RNN", "LSTM", "GRU") if k.lower() in name)
        after = {"last": ["Last"], "backwards": ["Last", "Linear"]}
        after |= {"sum": ["Linear"], "ave": ["Last", "Linear"]}
        assert found == [kind, *after.get(name.rpartition("-")[2], [])]

    @pytest.mark.parametrize(
        ("name", "functions"),
        [
            ("simple-rnn-leaky_relu", {"nonlinearity": ("leaky_relu", 0.2)}),
            ("simple-rnn-linear", {"nonlinearity": "affine"}),
            (
                "lstm-functions",
                {
                    "gate_activation": ("hard_sigmoid", 1 / 6, 0.5),
                    "candidate_activation": "softsign",
                    "output_activation": "softsign",
                },
            ),
            (
                "gru-reset-after-functions",
                {
                    "gate_activation": ("hard_sigmoid", 1 / 6, 0.5),
                    "candidate_activation": "softsign",
                },
            ),
        ],
    )
    def test_functions(self, name: str, functions: dict[str, Any]) -> None:
        (layer,) = convert(Golden(name).chain).layers
        assert {option: getattr(layer, option) for option in functions} == functions

    @pytest.mark.parametrize("name", ["gru-reset-after", "gru-reset-before"])
    def test_the_form_of_a_gru_is_carried(self, name: str) -> None:
        (layer,) = convert(Golden(name).chain).layers
        assert isinstance(layer, seqrs.GRU)
        assert layer.reset_after is name.endswith("after")

    def test_backwards_trains_nothing_in_the_other_direction(self) -> None:
        """Its zeros have no gradient, so that it stays what it was."""
        golden = Golden("lstm-backwards")
        model = seqrs.Sequential(convert(golden.chain).layers)
        y, _, tape = model.forward(golden.x, mask=golden.mask)
        gradients = model.backward(tape, np.ones_like(y)).params
        for name, gradient in gradients.items():
            if name.startswith("0."):
                assert gradient.any() == name.endswith("_reverse"), name


class TestWeights:
    @pytest.mark.parametrize("name", [n for n in FILES if not n.startswith("model")])
    def test_there_and_back_has_the_same_bits(self, name: str) -> None:
        golden = Golden(name)
        back = seqrs.to_keras_weights(convert(golden.chain).layers[0])
        # The other direction of one that goes backwards.
        back = back[len(back) // 2 :] if name.endswith("backwards") else back
        for got, expected in zip(back, golden.chain[0].weights, strict=True):
            assert_same_bits(got, expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize(
        "cell", [name for name in CELLS if CELLS[name][1].keys() <= {"nonlinearity", "reset_after"}]
    )
    def test_back_and_there_computes_the_same(
        self, cell: str, bidirectional: bool, dtype: str
    ) -> None:
        """Two biases become one, but for the reset-after GRU; all else has the same bits."""
        own = {"num_layers": 2, "bidirectional": bidirectional}
        layer = make(cell, dtype, **own)
        weights = seqrs.to_keras_weights(layer)
        assert [array.dtype.name for array in weights] == [dtype] * (12 if bidirectional else 6)
        options = own | ({"activation": "relu"} if cell == "rnn-relu" else {})
        found: Any = seqrs.from_keras_weights(weights, layer.kind, **options)
        before, after = layer.state_dict(), found.state_dict()
        assert list(before) == list(after)
        for name in before:
            if cell.startswith("gru") or not name.startswith("bias"):
                assert_same_bits(after[name], before[name], name)
            elif name.startswith("bias_ih"):
                total = before[name] + before[name.replace("ih", "hh")]
                assert_same_bits(after[name], total, name)
            else:
                assert not after[name].any()
        given = Given(layer)
        formula = {"float32": tolerances.FORMULA_F32, "float64": tolerances.FORMULA_F64}
        assert_close(found(given.x)[0], layer(given.x)[0], formula[dtype])

    def test_a_stack_is_its_layers(self) -> None:
        first = make("lstm", bidirectional=True)
        second = make("lstm", inputs=first.output_size, weights=2, bidirectional=True)
        model = seqrs.Sequential([first, seqrs.Dropout(0.5), second, seqrs.Last()])
        weights = seqrs.to_keras_weights(model)
        both = seqrs.to_keras_weights(first) + seqrs.to_keras_weights(second)
        for got, expected in zip(weights, both, strict=True):
            assert_same_bits(got, expected)
        stack = seqrs.from_keras_weights(weights, "LSTM", num_layers=2, bidirectional=True)
        apart = seqrs.Sequential(
            [
                seqrs.from_keras_weights(weights[:6], "LSTM", bidirectional=True),
                seqrs.from_keras_weights(weights[6:], "LSTM", bidirectional=True),
            ]
        )
        x = Given(first).x
        assert_same_bits(stack(x)[0], apart(x)[0])

    def test_layers_without_recurrence(self) -> None:
        table, kernel = np.eye(5, 3), np.arange(6.0).reshape(3, 2)
        x = np.array([[2.0, -1.0, 0.5]])
        embedding = seqrs.from_keras_weights([table], "Embedding")
        assert_same_bits(embedding([[2]])[0], table[[[2]]])
        linear = seqrs.from_keras_weights([kernel, [1.0, 2.0]], "Dense")
        assert_close(linear(x)[0], x @ kernel + [1.0, 2.0], tolerances.FORMULA_F64)
        bare = seqrs.from_keras_weights([kernel], "Dense")
        assert_close(bare(x)[0], x @ kernel, tolerances.FORMULA_F64)
        norm: Any = seqrs.from_keras_weights([[1.0, 2.0], [3.0, 4.0]], "LayerNormalization")
        assert norm.eps == 1e-3
        model = seqrs.Sequential([embedding, seqrs.Dropout(), bare])
        for got, expected in zip(seqrs.to_keras_weights(model), [table, kernel], strict=True):
            assert_same_bits(got, expected)
        back = seqrs.to_keras_weights(linear) + seqrs.to_keras_weights(norm)
        for got, expected in zip(
            back,
            [kernel, np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0])],
            strict=True,
        ):
            assert_same_bits(got, expected)

    @pytest.mark.parametrize(
        ("given", "asked", "expected"),
        [
            ("float64", None, "float64"),
            ("float32", None, "float32"),
            ("float16", None, "float32"),
            ("int64", None, "float32"),
            ("float64", "float32", "float32"),
            ("float32", "float64", "float64"),
        ],
    )
    def test_dtype(self, given: str, asked: Any, expected: str) -> None:
        layer = seqrs.from_keras_weights([np.ones((2, 3), given)], "Dense", dtype=asked)
        assert layer.dtype == expected

    def test_a_class_derived_from_one_of_ours(self) -> None:
        class Mine(seqrs.GRU):
            pass

        layer = Mine(2, 3)
        assert len(seqrs.to_keras_weights(layer)) == 3

    def test_what_keras_lacks_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"proj_size: expected 0, .* no counterpart, got 2"):
            seqrs.to_keras_weights(seqrs.LSTM(3, 4, proj_size=2))
        with pytest.raises(ValueError, match=r"peepholes: expected .* got True"):
            seqrs.to_keras_weights(seqrs.LSTM(3, 4, peepholes=True))
        for options, message in (
            ({"coupled": True}, "coupled: expected False, as Keras has no counterpart, got True"),
            ({"clip": 1.5}, "clip: expected None, .* got 1.5"),
            ({"gate_activation": "hard_sigmoid"}, r"gate_activation: expected .*\('hard_sigm.*'$"),
            ({"candidate_activation": "softsign"}, "output_activation: expected 'softsign', that"),
        ):
            with pytest.raises(ValueError, match=message):
                seqrs.to_keras_weights(seqrs.LSTM(3, 4, **options))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"nonlinearity: .* for others, got 'leaky_relu'"):
            seqrs.to_keras_weights(seqrs.RNN(3, 4, nonlinearity="leaky_relu"))
        with pytest.raises(TypeError, match="layer: expected a layer or a Sequential, got 3"):
            seqrs.to_keras_weights(3)  # type: ignore[arg-type]


def arrays(*shapes: tuple[int, ...]) -> list[Array]:
    return [np.zeros(shape, np.float32) for shape in shapes]


LSTM = arrays((2, 12), (3, 12), (12,))
REFUSED: list[tuple[type[Exception], str, list[Any], str, dict[str, Any]]] = [
    (ValueError, "kind: expected 'SimpleRNN' or 'LSTM'", LSTM, "Conv1D", {}),
    (TypeError, "weights: expected a list of arrays", np.zeros(3), "LSTM", {}),  # type: ignore[list-item]
    (seqrs.DTypeError, r"weights\[2\]: expected real", [*LSTM[:2], np.array(["a"])], "LSTM", {}),
    (seqrs.ShapeError, r"\(2 or 3 arrays\), got 1", LSTM[:1], "LSTM", {}),
    (seqrs.ShapeError, r"\(8 or 12 arrays\), got 3", LSTM, "LSTM", {"num_layers": 4}),
    (seqrs.ShapeError, r"kernel: expected a matrix", arrays((12,), (3, 12)), "LSTM", {}),
    (seqrs.ShapeError, r"kernel: expected a matrix", arrays((0, 12), (3, 12)), "LSTM", {}),
    (seqrs.ShapeError, r"recurrent_kernel: expected shape \(4, 16\)", arrays((2, 12), (4, 12)),
     "LSTM", {}),
    (seqrs.ShapeError, r"kernel: expected shape \(2, 12\), got \(2, 9\)",
     arrays((2, 9), (3, 12), (12,)), "LSTM", {}),
    (seqrs.ShapeError, r"bias: expected shape \(12,\), got \(2, 12\)",
     arrays((2, 12), (3, 12), (2, 12)), "LSTM", {}),
    (seqrs.ShapeError, r"kernel of layer 1: expected shape \(3, 12\)", LSTM * 2, "LSTM",
     {"num_layers": 2}),
    (seqrs.ShapeError, r"kernel of layer 0, backward: expected shape \(2, 12\), got \(5, 12\)",
     [*LSTM, *arrays((5, 12), (3, 12), (12,))], "LSTM", {"bidirectional": True}),
    (seqrs.ShapeError, r"bias: expected shape \(9,\) \(reset_after=False\) or \(2, 9\)",
     arrays((2, 9), (3, 9), (18,)), "GRU", {}),
    (seqrs.ShapeError, r"bias \(reset_after=True\): expected shape \(2, 9\), got \(9,\)",
     arrays((2, 9), (3, 9), (9,)), "GRU", {"reset_after": True}),
    (TypeError, "reset_after: expected True or False for a GRU without bias",
     arrays((2, 9), (3, 9)), "GRU", {}),
    (TypeError, "reset_after: expected it for a GRU alone", LSTM, "LSTM", {"reset_after": True}),
    (TypeError, "activation: expected it for recurrent kinds alone", arrays((2, 3)), "Dense",
     {"activation": "tanh"}),
    (TypeError, "recurrent_activation: expected it for an LSTM or GRU alone",
     arrays((2, 3), (3, 3)), "SimpleRNN", {"recurrent_activation": "tanh"}),
    (ValueError, "activation: expected 'tanh' or 'relu'", arrays((2, 3), (3, 3)), "SimpleRNN",
     {"activation": "selu"}),
    (ValueError, "recurrent_activation: expected 'tanh' or", LSTM, "LSTM",
     {"recurrent_activation": "affine"}),
    (TypeError, "recurrent_dropout: expected it for a SimpleRNN alone", LSTM, "LSTM",
     {"recurrent_dropout": 0.5}),
    (TypeError, "epsilon: expected it for a LayerNormalization alone", LSTM, "LSTM",
     {"epsilon": 1e-3}),
    (TypeError, "num_layers: expected it for recurrent kinds", arrays((2, 3)), "Dense",
     {"num_layers": 2}),
    (TypeError, "bidirectional: expected it for recurrent kinds", arrays((2, 3)), "Dense",
     {"bidirectional": True}),
    (seqrs.ShapeError, "weights: expected kernel, and bias if there is one, got 0 arrays", [],
     "Dense", {}),
    (seqrs.ShapeError, r"bias: expected shape \(3,\), got \(2,\)", arrays((2, 3), (2,)), "Dense",
     {}),
    (seqrs.ShapeError, "kernel: expected a matrix", arrays((3,)), "Dense", {}),
    (seqrs.ShapeError, "embeddings: expected a matrix", arrays((3,)), "Embedding", {}),
    (seqrs.ShapeError, "weights: expected gamma and beta, got 1 arrays", arrays((3,)),
     "LayerNormalization", {}),
    (seqrs.ShapeError, "gamma: expected a vector", arrays((3, 3), (3,)), "LayerNormalization", {}),
    (seqrs.ShapeError, r"beta: expected shape \(3,\)", arrays((3,), (2,)), "LayerNormalization",
     {}),
    (ValueError, "epsilon: expected a number", arrays((3,), (3,)), "LayerNormalization",
     {"epsilon": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "weights", "kind", "options"), REFUSED)
def test_weights_that_do_not_fit(
    error: type[Exception], message: str, weights: list[Any], kind: str, options: dict[str, Any]
) -> None:
    with pytest.raises(error, match=message) as found:
        seqrs.from_keras_weights(weights, kind, **options)
    assert type(found.value) is error


#: Golden file, options that are changed, what the refusal says.
OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("lstm", {"activation": "gelu"}, "lstm: activation: expected 'tanh' or .*, got 'gelu'"),
    ("lstm", {"activation": {"class_name": "function"}}, "activation: expected 'tanh' or .* got {"),
    ("lstm", {"recurrent_activation": "silu"}, "recurrent_activation: expected 'tanh' or .*'silu'"),
    ("gru-reset-after", {"recurrent_activation": "softmax"}, "recurrent_activation: expected"),
    ("simple-rnn", {"activation": "selu"}, "activation: expected 'tanh' or .*, got 'selu'"),
    ("lstm-sum", {"backward_layer__recurrent_activation": "tanh"}, "recurrent_activation: expec"),
    ("lstm", {"stateful": True}, "lstm: stateful: expected False .*, got True"),
    ("lstm", {"dropout": 0.5}, "lstm: dropout: expected 0.0 .*for_inference=True.*, got 0.5"),
    ("lstm", {"recurrent_dropout": 0.5}, "lstm: recurrent_dropout: expected 0.0 .*, got 0.5"),
    ("lstm", {"go_backwards": True}, "go_backwards: expected False with return_sequences=True"),
    ("lstm-backwards", {"return_state": True}, "return_state: expected False with go_backwards"),
    ("lstm-last", {"zero_output_for_mask": True}, "zero_output_for_mask: expected False with"),
    ("lstm", {"dtype": "mixed_float16"}, "dtype: expected 'float32' or 'float64', got 'mixed"),
    ("lstm-sum", {"merge_mode": "mul"}, "merge_mode: expected 'concat', 'sum' or 'ave'.*'mul'"),
    ("lstm-sum", {"merge_mode": None}, "merge_mode: expected 'concat', .* or gives both.*None"),
    ("lstm-sum", {"layer__stateful": True}, ": layer: stateful: expected False"),
    ("lstm-sum", {"layer__go_backwards": True}, ": layer: go_backwards: expected False"),
    ("lstm-sum", {"backward_layer__go_backwards": False}, "backward_layer: go_backwards: expected"),
    ("lstm-sum", {"backward_layer__dropout": 0.5}, "backward_layer: dropout: expected 0.0"),
    ("lstm-sum", {"backward_layer__units": 5}, "backward_layer: units: expected 4 as the forward"),
    ("lstm-sum", {"backward_layer__use_bias": False}, "backward_layer: use_bias: expected True"),
    ("gru-reset-after-sum", {"backward_layer__reset_after": False}, "backward_layer: reset_after"),
    ("simple-rnn-sum", {"backward_layer__activation": "relu"}, "backward_layer: activation"),
]  # fmt: skip


class TestOptions:
    @pytest.mark.parametrize(("name", "options", "message"), OPTIONS)
    def test_what_no_layer_here_does_is_refused_by_name(
        self, name: str, options: dict[str, Any], message: str
    ) -> None:
        golden = Golden(name)
        convert(golden.chain)
        with pytest.raises(ValueError, match=message):
            convert(golden.changed(**options))

    @pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
    @pytest.mark.parametrize("name", ["lstm", "lstm-sum"])
    def test_what_acts_in_training_alone_can_be_left_out(self, name: str, option: str) -> None:
        golden = Golden(name)
        places = ("layer__", "backward_layer__") if name == "lstm-sum" else ("",)
        chain = golden.changed(**{place + option: 0.5 for place in places})
        assert convert(chain, for_inference=True).layers == convert(golden.chain).layers

    def test_how_it_is_computed_is_no_matter(self) -> None:
        golden = Golden("lstm")
        assert convert(golden.changed(unroll=True)).layers == convert(golden.chain).layers

    def test_directions_of_two_kinds(self) -> None:
        golden = Golden("lstm-sum")
        (layer,) = golden.chain
        config = copy.deepcopy(layer.config)
        config["backward_layer"]["class_name"] = "GRU"
        with pytest.raises(ValueError, match="expected LSTM as its layer, got GRU"):
            convert([layer._replace(config=config)])
        config["layer"]["class_name"] = "ConvLSTM1D"
        with pytest.raises(ValueError, match="layer: expected SimpleRNN, LSTM or GRU, got Conv"):
            convert([layer._replace(config=config)])

    @pytest.mark.parametrize(
        ("place", "options", "message"),
        [
            (0, {"lora_rank": 4}, "embedding.*: lora_rank: expected None, got 4"),
            (2, {"axis": [1]}, r"layer_norm.*: axis: expected -1, the last one, got \[1\]"),
            (2, {"axis": [1, 2]}, r"axis: expected -1, the last one, got \[1, 2\]"),
            (2, {"rms_scaling": True}, "rms_scaling: expected False, got True"),
            (2, {"scale": False, "center": False}, "scale: expected True where center is False"),
            (3, {"rate": 1.0}, r"dropout.*: rate: expected a number in \[0, 1\), got 1"),
            (3, {"noise_shape": [1]}, r"dropout.*: noise_shape: expected None .* got \[1\]"),
            (5, {"activation": "gelu"}, "dense.*: activation: expected 'tanh' or .*, got 'gelu'"),
            (5, {"quantization_config": {}}, "dense.*: quantization_config: expected None"),
        ],
    )
    def test_layers_without_recurrence(
        self, place: int, options: dict[str, Any], message: str
    ) -> None:
        chain = Golden("model-of-ids").chain
        chain[place] = chain[place]._replace(config=chain[place].config | options)
        with pytest.raises(ValueError, match=message):
            convert(chain)

    def test_other_layers_are_refused_by_name(self) -> None:
        with pytest.raises(TypeError, match=r"my_conv: expected a layer .*Dense.*, got Conv1D"):
            convert([KerasLayer("my_conv", "Conv1D", {})])
        inner = {"layer": {"class_name": "Conv1D", "config": {}}}
        with pytest.raises(ValueError, match="steps: layer: expected Dense, got Conv1D"):
            convert([KerasLayer("steps", "TimeDistributed", inner)])
        noise = [*Golden("lstm").chain, KerasLayer("noise", "GaussianNoise", {})]
        with pytest.raises(ValueError, match=r"noise: expected Dropout .*, got GaussianNoise"):
            convert(noise)
        assert len(convert(noise, for_inference=True).layers) == 1


class TestMasks:
    def test_the_mask_of_ids(self) -> None:
        conversion = convert(Golden("model-of-ids").chain)
        assert conversion.made == MaskOfInput(0, ids=True)
        assert str(conversion.made) == "x != 0"
        assert conversion.skips_steps
        np.testing.assert_array_equal(conversion.made.of(np.array([[3, 0, 1]])), [[1, 0, 1]])

    def test_the_mask_of_values(self) -> None:
        conversion = convert(Golden("model-of-values").chain)
        assert conversion.made == MaskOfInput(-1.0, ids=False)
        assert str(conversion.made) == "np.any(x != -1, axis=-1)"
        x = np.array([[[-1.0, -1.0], [-1.0, 0.0], [2.0, 2.0]]])
        np.testing.assert_array_equal(conversion.made.of(x), [[0, 1, 1]])

    @pytest.mark.parametrize("name", ["model-of-ids", "model-of-values"])
    def test_golden_masks_are_those_that_keras_made(self, name: str) -> None:
        golden = Golden(name)
        made = convert(golden.chain).made
        assert made is not None
        np.testing.assert_array_equal(made.of(golden.x), golden.mask)

    def test_where_nothing_skips_steps(self) -> None:
        chain = Golden("model-of-ids").chain
        assert not convert([chain[0], chain[3]]).skips_steps

    @pytest.mark.parametrize("name", ["model-of-ids", "model-of-values"])
    def test_one_that_is_made_later_is_refused(self, name: str) -> None:
        chain = Golden(name).chain
        with pytest.raises(ValueError, match=r"as the first layer, as a mask here is given with"):
            convert([KerasLayer("before", "Dropout", {"rate": 0.5, "noise_shape": None}), *chain])

    def test_values_that_are_no_number(self) -> None:
        with pytest.raises(TypeError, match="skip: mask_value: expected a real number"):
            convert([KerasLayer("skip", "Masking", {"mask_value": {}})])


def tensor(source: str, number: int = 0) -> dict[str, Any]:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, None], "keras_history": [source, 0, number]},
    }


def node(name: str, class_name: str, *args: Any, **words: Any) -> dict[str, Any]:
    calls = [{"args": list(args), "kwargs": words}] if args else []
    return {"name": name, "class_name": class_name, "inbound_nodes": calls}


def functional(*nodes: dict[str, Any], output: Any = ("dense", 0, 0)) -> dict[str, Any]:
    """The configuration of a functional model, as Keras 3.15 gives it."""
    first = node("x", "InputLayer")
    return {"layers": [first, *nodes], "input_layers": ["x", 0, 0], "output_layers": output}


LSTM_NODE = node("lstm", "LSTM", tensor("x"), training=False, mask=None)
DENSE_NODE = node("dense", "Dense", tensor("lstm"))
NOT_EQUAL = node("not_equal", "NotEqual", tensor("x"), 0)
ANY = node("any", "Any", tensor("not_equal"))


class TestFunctional:
    def test_a_chain(self) -> None:
        # The order in which layers stand says nothing.
        found = functional_chain(functional(DENSE_NODE, LSTM_NODE))
        assert found == (["lstm", "dense"], [])

    def test_inputs_and_outputs_in_lists(self) -> None:
        config = functional(LSTM_NODE, DENSE_NODE, output=[["dense", 0, 0]])
        assert functional_chain(config | {"input_layers": [["x", 0, 0]]}).names[-1] == "dense"

    @pytest.mark.parametrize("ids", [True, False])
    def test_masks_that_keras_makes(self, ids: bool) -> None:
        masked = node("lstm", "LSTM", tensor("x"), mask=tensor("not_equal" if ids else "any"))
        found = functional_chain(functional(NOT_EQUAL, *([] if ids else [ANY]), masked, DENSE_NODE))
        assert found == (["lstm", "dense"], [MaskOfInput(0, ids)])

    @pytest.mark.parametrize(
        ("nodes", "message"),
        [
            ([LSTM_NODE, DENSE_NODE, node("b", "Dense", tensor("x"))], "plain chain .* got b bes"),
            (
                [LSTM_NODE, node("dense", "Add", tensor("lstm"), tensor("x"))],
                "dense: expected one input, got 2",
            ),
            (
                [LSTM_NODE, node("dense", "Add", [tensor("lstm"), tensor("x")])],
                "dense: expected one tensor as its input, got list",
            ),
            (
                [LSTM_NODE, node("dense", "Dense", tensor("lstm", 1))],
                "dense: expected the output of lstm as its input, got a state of it",
            ),
            (
                [LSTM_NODE, node("dense", "Dropout", tensor("lstm"), training=True)],
                "dense: expected to be called with its input alone, got training",
            ),
            (
                [node("lstm", "LSTM", tensor("x"), initial_state=[tensor("x")]), DENSE_NODE],
                "lstm: expected to be called with its input alone, got initial_state",
            ),
            (
                [node("lstm", "LSTM", tensor("x"), mask=tensor("x")), DENSE_NODE],
                "x: expected a mask that Embedding or Masking makes",
            ),
            (
                [
                    node("not_equal", "NotEqual", tensor("lstm"), 0),
                    LSTM_NODE,
                    node("dense", "GRU", tensor("lstm"), mask=tensor("not_equal")),
                ],
                "not_equal: expected a mask that Embedding or Masking makes",
            ),
        ],
    )
    def test_what_is_no_chain_is_refused(self, nodes: list[Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            functional_chain(functional(*nodes))

    def test_a_layer_that_is_used_twice(self) -> None:
        twice = node("lstm", "LSTM", tensor("x"))
        twice["inbound_nodes"] *= 2
        with pytest.raises(ValueError, match="lstm: expected a layer that is used once, got 2"):
            functional_chain(functional(twice, DENSE_NODE))

    @pytest.mark.parametrize(
        ("ends", "message"),
        [
            ({"input_layers": [["x", 0, 0], ["z", 0, 0]]}, "model: expected one input, got 2"),
            ({"output_layers": {"a": ["x", 0, 0]}}, "model: expected one output, got 1"),
            ({"output_layers": ["lstm", 0, 1]}, "lstm: expected its output as the model's, got"),
        ],
    )
    def test_ends(self, ends: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            functional_chain(functional(LSTM_NODE, DENSE_NODE) | ends)


def test_without_keras_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrs\[keras\]'"):
        seqrs.from_keras(object())


def test_a_conversion_is_of_layers_that_fit() -> None:
    """The chain of a model becomes a model whose parameters are as many."""
    for name in ("model-of-ids", "model-of-values"):
        golden = Golden(name)
        conversion: Conversion = convert(golden.chain)
        given = sum(array.size for layer in golden.chain for array in layer.weights)
        assert seqrs.Sequential(conversion.layers).num_parameters >= given
