"""Keras and the package side by side: layers and models at random, and what is refused."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from cases import CELLS, Array, Given, make, parts
from seqrs.interop import keras_layers
from seqrs.interop.keras_weights import FUNCTIONS
from tolerances import assert_close, assert_same_bits

os.environ.setdefault("KERAS_BACKEND", "torch")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
layers = keras.layers

pytestmark = [
    pytest.mark.interop,
    # Of Keras's own `get_weights`, with PyTorch as its backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "simple-rnn": ("SimpleRNN", {}),
    "simple-rnn-relu": ("SimpleRNN", {"activation": "relu"}),
    "lstm": ("LSTM", {}),
    "gru-reset-after": ("GRU", {}),
    "gru-reset-before": ("GRU", {"reset_after": False}),
}


def with_random_weights(layer: Any, random: np.random.Generator) -> Any:
    weights = [np.asarray(w) for w in layer.get_weights()]
    layer.set_weights([random.normal(size=w.shape) / np.sqrt(len(w) + 1) for w in weights])
    return layer


def built(layer: Any, *shape: int | None) -> Any:
    layer.build(shape or (None, None, 3))
    return with_random_weights(layer, np.random.default_rng(0))


def output_of(layer: Any, x: Array, mask: Array | None = None) -> list[Array]:
    words = {} if mask is None else {"mask": keras.ops.convert_to_tensor(mask)}
    found = layer(keras.ops.convert_to_tensor(x), training=False, **words)
    found = found if isinstance(found, (list, tuple)) else [found]
    return [keras.ops.convert_to_numpy(each) for each in found]


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("name", CLASSES)
def test_layers_at_random(name: str, number: int) -> None:
    random = np.random.default_rng([number, len(name)])
    cls, options = CLASSES[name]
    inputs, units = int(random.integers(1, 40)), int(random.integers(1, 60))
    rows, steps = int(random.integers(1, 20)), int(random.integers(1, 16))
    options = options | {
        "use_bias": bool(random.integers(4)),
        "return_sequences": bool(random.integers(2)),
        "return_state": bool(random.integers(2)),
    }
    form = int(random.integers(3))
    if form == 1:
        options |= {"go_backwards": True, "return_sequences": False, "return_state": False}
    # Going backwards, Keras on PyTorch cannot be unrolled with a mask.
    options["unroll"] = form == 0 and bool(random.integers(2))
    layer = getattr(layers, cls)(units, **options)
    if form == 2:
        layer = layers.Bidirectional(layer, ("concat", "sum", "ave")[int(random.integers(3))])
    layer.build((None, None, inputs))
    with_random_weights(layer, random)
    found = seqrs.from_keras(layer)
    alone = isinstance(found, seqrs.Layer)

    x = random.normal(size=(rows, steps, inputs)).astype(np.float32)
    holes = random.random((rows, steps)) < 0.5
    for mask in (None, holes):
        y, *states = output_of(layer, x, mask)
        got, state = found(x, mask=mask)
        live = mask if mask is not None and options["return_sequences"] else ...
        what = f"{options}{form} {'masked' * (mask is not None)}"
        if y[live].any():
            assert_close(got[live], y[live], tolerances.PACKAGE_TO_KERAS, what)
        for n, expected in enumerate(states):
            ours = parts(state if alone else state[0])
            slot, letter = divmod(n, len(ours))
            if expected.any():
                assert_close(ours[letter][slot], expected, tolerances.PACKAGE_TO_KERAS, what)


@pytest.mark.parametrize("name", ["simple-rnn", "lstm", "gru-reset-after", "gru-reset-before"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions(name: str, function: str) -> None:
    """Each as `activation`, and in the gates; verified, and with the weights back in Keras."""
    cls, options = CLASSES[name]
    bounded = function in ("tanh", "sigmoid", "hard_sigmoid", "softsign")
    forms: list[dict[str, Any]] = [{"activation": function}]
    if cls != "SimpleRNN":
        forms += [{"recurrent_activation": function}]
        forms += [{"recurrent_activation": function, "activation": "softsign"}] if bounded else []
    for form in forms:
        theirs = built(getattr(layers, cls)(5, **options, **form, return_sequences=True))
        # Gates without a bound grow at each step.
        theirs.set_weights([np.asarray(w) / 4 for w in theirs.get_weights()])
        found: Any = seqrs.from_keras(theirs)
        x = np.random.default_rng(1).normal(size=(3, 6, 3)).astype(np.float32)
        assert_close(found(x)[0], output_of(theirs, x)[0], tolerances.PACKAGE_TO_KERAS, f"{form}")
        for got, expected in zip(seqrs.to_keras_weights(found), theirs.get_weights(), strict=True):
            assert_same_bits(got, np.asarray(expected))
        words = {"reset_after": options.get("reset_after", True)} if cls == "GRU" else {}
        assert seqrs.from_keras_weights(theirs.get_weights(), cls, **form, **words) == found


def model_of_ids() -> list[Any]:
    return [
        layers.Embedding(30, 8, mask_zero=True),
        layers.Bidirectional(layers.LSTM(6, return_sequences=True), "ave"),
        layers.Dropout(0.5),
        layers.GRU(5, reset_after=False),
        layers.Dense(4, activation="softmax"),
    ]


def model_of_values() -> list[Any]:
    return [
        layers.Masking(2.0),
        layers.TimeDistributed(layers.Dense(7, activation="relu")),
        layers.LayerNormalization(),
        layers.SimpleRNN(6, return_sequences=True),
        layers.Activation("sigmoid"),
        layers.Dense(2),
    ]


MODELS = {
    # layers, shape of the input, the mask that the warning names
    "ids": (model_of_ids, (None,), "x != 0"),
    "values": (model_of_values, (None, 3), "np.any(x != 2, axis=-1)"),
    "fixed-sizes": (model_of_values, (5, 3), "np.any(x != 2, axis=-1)"),
    "without-a-mask": (lambda: model_of_values()[1:], (None, 3), None),
    "ids-without-a-mask": (lambda: [layers.Embedding(9, 4), layers.GRU(3)], (None,), None),
    "rows": (lambda: [layers.Dense(4, "tanh"), layers.Dense(2)], (3,), None),
    "a-mask-that-changes-nothing": (
        lambda: [layers.Embedding(9, 4, mask_zero=True), layers.TimeDistributed(layers.Dense(2))],
        (None,),
        None,
    ),
}


def model(name: str, *, functional: bool) -> Any:
    make_layers, shape, _ = MODELS[name]
    first = keras.Input(shape)
    if not functional:
        return with_random_weights(
            keras.Sequential([first, *make_layers()]), np.random.default_rng(0)
        )
    tensor = first
    for layer in make_layers():
        tensor = layer(tensor)
    return with_random_weights(keras.Model(first, tensor), np.random.default_rng(0))


class TestModels:
    @pytest.mark.parametrize("functional", [False, True])
    @pytest.mark.parametrize("name", MODELS)
    def test_a_chain_becomes_a_model(self, name: str, functional: bool) -> None:
        theirs = model(name, functional=functional)
        _, shape, expected_mask = MODELS[name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            ours = seqrs.from_keras(theirs)
        assert isinstance(ours, seqrs.Sequential)
        said = [str(w.message) for w in caught if w.category is UserWarning]
        assert len(said) == (expected_mask is not None), said
        assert all(f"model(x, mask={expected_mask})" in each for each in said)

        random = np.random.default_rng(1)
        x: Array
        if "ids" in name or name == "a-mask-that-changes-nothing":
            x = random.integers(0, 9, (6, 5))
        else:
            x = random.normal(size=(6, *(size or 5 for size in shape))).astype(np.float32)
        if name in ("values", "fixed-sizes"):
            x[random.random((6, 5)) < 0.4] = 2.0
        # The very words of the warning are what has to be given.
        mask = eval(expected_mask, {"x": x, "np": np}) if expected_mask else None
        (y,) = output_of(theirs, x)
        got, _ = ours(x, mask=mask)
        live = mask if mask is not None and y.ndim == 3 else ...
        assert_close(got[live], y[live], tolerances.PACKAGE_TO_KERAS)

    def test_a_model_that_was_saved_by_keras(self, tmp_path: Path) -> None:
        theirs = model("without-a-mask", functional=True)
        theirs.save(tmp_path / "model.keras")
        with pytest.raises(TypeError, match=r"expected a layer or model of Keras 3, got '"):
            seqrs.from_keras(str(tmp_path / "model.keras"))
        read = keras.saving.load_model(tmp_path / "model.keras")
        assert seqrs.from_keras(read) == seqrs.from_keras(theirs)

    def test_weights_go_back(self) -> None:
        theirs = model("without-a-mask", functional=False)
        ours = seqrs.from_keras(theirs)
        for got, expected in zip(seqrs.to_keras_weights(ours), theirs.get_weights(), strict=True):
            assert_same_bits(got, expected)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "cell", [name for name in CELLS if CELLS[name][1].keys() <= {"nonlinearity", "reset_after"}]
)
def test_what_was_trained_here_computes_the_same_in_keras(cell: str, bidirectional: bool) -> None:
    layer = make(cell, bidirectional=bidirectional)
    name = {"rnn-tanh": "simple-rnn", "rnn-relu": "simple-rnn-relu"}.get(cell, cell)
    cls, options = CLASSES[name]
    theirs = getattr(layers, cls)(layer.hidden_size, return_sequences=True, **options)
    theirs = layers.Bidirectional(theirs) if bidirectional else theirs
    theirs.build((None, None, layer.input_size))
    theirs.set_weights(seqrs.to_keras_weights(layer))
    x = Given(layer).x
    assert_close(layer(x)[0], output_of(theirs, x)[0], tolerances.PACKAGE_TO_KERAS)


class TestVerification:
    """A conversion that is wrong does not pass, and the error says by how much."""

    @pytest.fixture
    def wrong(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Makes layers go wrong after they are converted: change(parameters) does it."""

        def install(change: Any) -> None:
            convert = keras_layers._CONVERSIONS["LSTM"]

            def converted(layer: Any, for_inference: bool) -> Any:
                found = convert(layer, for_inference)
                weights = found[0].state_dict()
                change(weights)
                found[0].load_state_dict(weights)
                return found

            monkeypatch.setitem(keras_layers._CONVERSIONS, "LSTM", converted)

        return install

    @pytest.mark.parametrize("every", [False, True])
    def test_a_wrong_gate_order(self, wrong: Any, every: bool) -> None:
        def swap(weights: dict[str, Array]) -> None:
            weights["weight_ih_l0"] = np.roll(weights["weight_ih_l0"], 4, axis=0)

        layer = built(layers.LSTM(4, return_sequences=every))
        wrong(swap)
        with pytest.raises(
            seqrs.VerificationError, match=r"lstm\w*: outputs: .*difference of 0\.\d"
        ):
            seqrs.from_keras(layer)
        seqrs.from_keras(layer, verify=False)

    def test_a_difference_just_above_the_bound(self, wrong: Any) -> None:
        """One in a thousand in one weight of many."""

        def nudge(weights: dict[str, Array]) -> None:
            weights["weight_hh_l0"][0] *= 1.001

        layer = built(layers.LSTM(4))
        wrong(nudge)
        with pytest.raises(seqrs.VerificationError, match="got a largest difference of"):
            seqrs.from_keras(layer)

    def test_masks_are_compared_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A conversion that takes no notice of a mask differs with holes alone."""

        class Deaf(seqrs.LSTM):
            def __call__(
                self, x: Any, state: Any = None, lengths: Any = None, mask: Any = None
            ) -> Any:
                return super().__call__(x, state, lengths)

        def deaf(layer: Any, for_inference: bool) -> list[Any]:
            found = Deaf(3, 4)
            found.load_state_dict(seqrs.from_keras_weights(layer.weights, "LSTM").state_dict())
            return [found]

        monkeypatch.setitem(keras_layers._CONVERSIONS, "LSTM", deaf)
        with pytest.raises(seqrs.VerificationError, match=r"lstm\w* with a mask: outputs"):
            seqrs.from_keras(built(layers.LSTM(4, return_sequences=True)))

    def test_states_are_compared_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Forgetful(seqrs.LSTM):
            def __call__(self, *arguments: Any, **words: Any) -> Any:
                y, (h, c) = super().__call__(*arguments, **words)
                return y, (h, 0 * c)

        def forgetful(layer: Any, for_inference: bool) -> list[Any]:
            found = Forgetful(3, 4)
            found.load_state_dict(seqrs.from_keras_weights(layer.weights, "LSTM").state_dict())
            return [found]

        monkeypatch.setitem(keras_layers._CONVERSIONS, "LSTM", forgetful)
        layer = built(layers.LSTM(4, return_sequences=True, return_state=True))
        with pytest.raises(seqrs.VerificationError, match="state 1"):
            seqrs.from_keras(layer)


@keras.saving.register_keras_serializable()
class Derived(layers.LSTM):
    """A user's own class."""


class DerivedModel(keras.Model):
    """A user's own model."""

    def call(self, x: Any) -> Any:
        return x


def branches() -> Any:
    x = keras.Input((None, 3))
    return keras.Model(x, layers.Add()([layers.Dense(2)(x), layers.Dense(2)(x)]))


def state_as_output() -> Any:
    x = keras.Input((None, 3))
    _, h, _ = layers.LSTM(2, return_state=True)(x)
    return keras.Model(x, h)


def always_in_training() -> Any:
    x = keras.Input((None, 3))
    return keras.Model(x, layers.Dropout(0.5)(layers.Dense(2)(x), training=True))


def a_mask_of_its_own() -> Any:
    x, mask = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
    return keras.Model([x, mask], layers.LSTM(2)(x, mask=mask))


def in_itself() -> Any:
    inner = keras.Sequential([keras.Input((None, 3)), layers.LSTM(2)])
    return keras.Sequential([keras.Input((None, 3)), inner, layers.Dense(2)])


def half() -> Any:
    return built(layers.LSTM(2, dtype="mixed_bfloat16"))


def with_lora() -> Any:
    layer = built(layers.Dense(4), None, 3)
    layer.enable_lora(2)
    return layer


def two_kinds() -> Any:
    return layers.Bidirectional(layers.LSTM(2), backward_layer=layers.GRU(2, go_backwards=True))


REFUSED: dict[str, tuple[type[Exception], str, Any]] = {
    "not-keras": (TypeError, "layer_or_model: expected a layer or model of Keras 3", lambda: 3),
    "not-built": (ValueError, "expected a layer that is built", lambda: layers.LSTM(3)),
    "model-not-built": (
        ValueError,
        "expected a model that is built",
        lambda: keras.Sequential([layers.LSTM(3)]),
    ),
    "derived": (TypeError, "layers of Keras's own, got Derived", lambda: built(Derived(3))),
    "derived-inside": (
        TypeError,
        "layers of Keras's own, got Derived",
        lambda: built(layers.Bidirectional(Derived(3))),
    ),
    "derived-model": (TypeError, "a class of its own", lambda: built(DerivedModel())),
    "conv": (TypeError, "got Conv1D", lambda: built(layers.Conv1D(2, 3))),
    "cell": (TypeError, "got RNN", lambda: built(layers.RNN(layers.LSTMCell(2)))),
    "stateful": (
        ValueError,
        "stateful: expected False",
        lambda: built(layers.LSTM(2, stateful=True), 2, 3, 3),
    ),
    "backwards": (
        ValueError,
        "go_backwards: expected False with return_sequences=True",
        lambda: built(layers.LSTM(2, go_backwards=True, return_sequences=True)),
    ),
    "mul": (
        ValueError,
        "merge_mode: expected .*got 'mul'",
        lambda: built(layers.Bidirectional(layers.LSTM(2), "mul")),
    ),
    "apart": (
        ValueError,
        "merge_mode: expected .*got None",
        lambda: built(layers.Bidirectional(layers.LSTM(2), None)),
    ),
    "two-kinds": (ValueError, "expected LSTM as its layer, got GRU", lambda: built(two_kinds())),
    "activation": (
        ValueError,
        "activation: expected 'tanh' or 'relu' or .*, got 'gelu'",
        lambda: built(layers.LSTM(2, activation="gelu")),
    ),
    "activation-that-is-a-layer": (
        ValueError,
        "activation: expected 'tanh' or 'relu' or .*, got {",
        lambda: built(layers.LSTM(2, activation=layers.LeakyReLU(0.3))),
    ),
    "activation-of-ones-own": (
        ValueError,
        "activation: expected 'tanh' or .*, got",
        lambda: built(layers.GRU(2, activation=half)),
    ),
    "recurrent-activation": (
        ValueError,
        "recurrent_activation: expected 'tanh' or .*, got 'silu'",
        lambda: built(layers.GRU(2, recurrent_activation="silu")),
    ),
    "recurrent-dropout": (
        ValueError,
        "recurrent_dropout: expected 0.0",
        lambda: built(layers.LSTM(2, recurrent_dropout=0.5)),
    ),
    "half": (ValueError, "dtype: expected .* got 'mixed_bfloat16'", half),
    "lora": (ValueError, "lora_rank: expected None, got 2", with_lora),
    "norm-of-other-axes": (
        ValueError,
        "axis: expected -1",
        lambda: built(layers.LayerNormalization(axis=(1, 2)), 2, 3, 3),
    ),
    "branches": (ValueError, "expected one tensor as its input", branches),
    "state-as-output": (ValueError, "expected its output as the model's, got", state_as_output),
    "always-in-training": (ValueError, "with its input alone, got training", always_in_training),
    "a-mask-of-its-own": (ValueError, "expected one input, got 2", a_mask_of_its_own),
    "in-itself": (TypeError, "got Sequential", in_itself),
    "masking-alone": (
        ValueError,
        "expected a layer that computes something",
        lambda: layers.Masking(0.0),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    error, message, make_it = REFUSED[name]
    with pytest.raises(error, match=message):
        seqrs.from_keras(make_it())


def test_what_acts_in_training_alone_can_be_left_out() -> None:
    chain = [
        keras.Input((None, 3)),
        layers.GaussianNoise(0.5),
        layers.LSTM(4, dropout=0.2, recurrent_dropout=0.3, return_sequences=True),
        layers.SpatialDropout1D(0.5),
        layers.Dense(2),
    ]
    theirs = keras.Sequential(chain)
    with pytest.raises(ValueError, match=re.escape("(for_inference=True leaves it out)")):
        seqrs.from_keras(theirs)
    found = seqrs.from_keras(theirs, for_inference=True)
    assert isinstance(found, seqrs.Sequential)
    assert [type(layer) for layer in found] == [seqrs.LSTM, seqrs.Linear]
