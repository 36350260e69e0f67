"""Keras's layers as layers here, from what they say of themselves: names, options and arrays.

Nothing here needs Keras: `seqrs.interop.keras` reads a `KerasLayer` off each layer of a model. What
a layer here computes otherwise, or not at all, is refused with a ValueError that names the layer
and its option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..layers import Activation, Dropout, Last, Layer, Linear
from ..options import real, shown
from ..recurrent import Recurrent
from .keras_weights import FUNCTIONS, from_keras_weights

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["CLASSES", "Conversion", "KerasLayer", "MaskOfInput", "convert"]


class KerasLayer(NamedTuple):
    """A layer of Keras, without Keras."""

    name: str
    class_name: str
    #: What its `get_config` gives.
    config: dict[str, Any]
    #: What its `get_weights` gives.
    weights: Sequence[Array] = ()


class MaskOfInput(NamedTuple):
    """The mask that Keras makes of a model's input by itself."""

    #: The id or value that means a step is not there.
    value: float
    #: Whether the input are ids (B, T) and not (B, T, F), where all features have that value.
    ids: bool

    def of(self, x: Array) -> npt.NDArray[np.bool_]:
        """The live steps (B, T) of an input."""
        different = np.asarray(x) != self.value
        return different if self.ids else np.asarray(np.any(different, axis=-1))

    def __str__(self) -> str:
        different = f"x != {self.value:g}"
        return different if self.ids else f"np.any({different}, axis=-1)"


class Conversion(NamedTuple):
    """What a chain of Keras's layers is here."""

    layers: list[Layer]
    #: The mask that Keras makes of the input, if it does.
    made: MaskOfInput | None

    @property
    def skips_steps(self) -> bool:
        """Whether a mask changes anything: a recurrent layer keeps its state over masked steps."""
        return any(isinstance(layer, Recurrent) for layer in self.layers)


def convert(chain: Sequence[KerasLayer], *, for_inference: bool = False) -> Conversion:
    """The layers that compute what a chain of Keras's layers does at inference.

    Args:
        chain: each reads what the one before gives.
        for_inference: whether to leave out what acts in training alone and has no counterpart.

    Raises:
        ValueError: an option cannot be carried; names the layer and the option.
        TypeError: a layer is of a class without a counterpart.
        ShapeError, DTypeError: weights that do not fit the options.
    """
    layers: list[Layer] = []
    made: MaskOfInput | None = None
    for number, layer in enumerate(chain):
        made = made or _mask_made_by(layer, first=number == 0)
        layers += _converted(layer, for_inference)
    return Conversion(layers, made)


def _converted(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    if layer.class_name in _IN_TRAINING_ALONE:
        if for_inference:
            return []
        raise _refused(
            layer,
            "expected Dropout or no such layer, as no layer here does that in training "
            f"(for_inference=True leaves it out), got {layer.class_name}",
        )
    if layer.class_name not in _CONVERSIONS:
        known = ", ".join(CLASSES)
        raise TypeError(
            f"{layer.name}: expected a layer of Keras that has a counterpart ({known}), "
            f"got {layer.class_name}"
        )
    return _CONVERSIONS[layer.class_name](layer, for_inference)


def _mask_made_by(layer: KerasLayer, *, first: bool) -> MaskOfInput | None:
    if layer.class_name == "Embedding" and layer.config["mask_zero"]:
        mask = MaskOfInput(0, ids=True)
    elif layer.class_name == "Masking":
        mask = MaskOfInput(real(f"{layer.name}: mask_value", layer.config["mask_value"]), ids=False)
    else:
        return None
    if not first:
        what = "Masking" if layer.class_name == "Masking" else "Embedding with mask_zero=True"
        raise _refused(
            layer,
            f"expected {what} as the first layer, as a mask here is given with the input, "
            "got one after others",
        )
    return mask


# One function for each class.


def _recurrent(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    _check_recurrent(layer, for_inference)
    config = layer.config
    every, backwards = config["return_sequences"], config["go_backwards"]
    if not every:
        _check(layer, "zero_output_for_mask", False, "with return_sequences=False")
    if not backwards:
        return [_cell(layer, list(layer.weights)), *([] if every else [Last()])]
    if every:
        raise _refused(
            layer,
            "go_backwards: expected False with return_sequences=True, as outputs here are in the "
            "order of the input and not in that in which it was read, got True",
        )
    if config["return_state"]:
        raise _refused(layer, "return_state: expected False with go_backwards=True, got True")
    # Both directions, of which the first has zero weights and is left out of the result.
    unread: list[Array] = [np.zeros_like(array) for array in layer.weights]
    both = _cell(layer, [*unread, *layer.weights], bidirectional=True)
    return [both, Last(), _merge(config["units"], 0.0, 1.0, both.dtype)]


def _bidirectional(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    forward, backward = (
        KerasLayer(f"{layer.name}: {role}", each["class_name"], each["config"])
        for role, each in (
            ("layer", layer.config["layer"]),
            ("backward_layer", layer.config["backward_layer"]),
        )
    )
    for each in (forward, backward):
        if each.class_name not in _RECURRENT:
            raise _refused(each, f"expected SimpleRNN, LSTM or GRU, got {each.class_name}")
        _check_recurrent(each, for_inference)
    if backward.class_name != forward.class_name:
        raise _refused(
            backward, f"expected {forward.class_name} as its layer, got {backward.class_name}"
        )
    _check(forward, "go_backwards", False)
    _check(backward, "go_backwards", True)
    for option in ("units", "activation", "recurrent_activation", "use_bias", "reset_after"):
        if option in forward.config:
            _check(backward, option, forward.config[option], "as the forward layer has")
    weights: dict[str, tuple[float, float] | None] = {
        "concat": None,
        "sum": (1.0, 1.0),
        "ave": (0.5, 0.5),
    }
    mode = layer.config["merge_mode"]
    if mode not in weights:
        raise _refused(
            layer,
            "merge_mode: expected 'concat', 'sum' or 'ave', as no layer here multiplies two "
            f"outputs or gives both apart, got {mode!r}",
        )
    both = _cell(forward, list(layer.weights), bidirectional=True)
    found = [both] if forward.config["return_sequences"] else [both, Last()]
    if (merge := weights[mode]) is not None:
        found.append(_merge(forward.config["units"], *merge, both.dtype))
    return found


def _merge(units: int, forward: float, backward: float, dtype: str) -> Layer:
    """The sum of both directions' outputs, each times a number: exact for 0, 1/2 and 1."""
    one = np.eye(units)
    mapping = {"weight": np.concatenate([forward * one, backward * one], axis=1)}
    return Linear._with_parameters(mapping, 2 * units, units, bias=False, dtype=dtype)


def _cell(layer: KerasLayer, weights: list[Array], *, bidirectional: bool = False) -> Layer:
    options: dict[str, Any] = {"bidirectional": bidirectional}
    if layer.class_name == "GRU":
        options["reset_after"] = layer.config["reset_after"]
    for name in ("activation", "recurrent_activation"):
        if name in layer.config:
            options[name] = layer.config[name]
    if layer.class_name == "SimpleRNN":
        options["recurrent_dropout"] = layer.config["recurrent_dropout"]
    return from_keras_weights(weights, layer.class_name, **options)


def _check_recurrent(layer: KerasLayer, for_inference: bool) -> None:
    """Refuses what no layer here computes. `unroll` is how, not what, and is no matter."""
    _check_dtype(layer)
    for name in ("activation", "recurrent_activation"):
        # A function of the user's is no string, and may be no key either.
        got = layer.config.get(name, "sigmoid")
        if not isinstance(got, str) or got not in FUNCTIONS:
            expected = " or ".join(map(repr, FUNCTIONS))
            raise _refused(layer, f"{name}: expected {expected}, got {shown(got)}")
    _check(layer, "stateful", False, "as a state here is given with each call: y, state = m(x, s)")
    reasons = {"dropout": "as no layer here drops the same inputs at all steps"}
    if layer.class_name != "SimpleRNN":
        reasons["recurrent_dropout"] = (
            "as Keras drops units for each gate, and a layer here for all gates together"
        )
    for option, reason in reasons.items():
        if not for_inference:
            _check(layer, option, 0.0, f"{reason} (for_inference=True leaves it out)")


def _dense(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    _check_dtype(layer)
    return [from_keras_weights(layer.weights, "Dense"), *_activation(layer, for_inference)]


def _activation(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    name = layer.config["activation"]
    if name == "linear":
        return []
    if name not in _ACTIVATIONS:
        expected = " or ".join(map(repr, (*_ACTIVATIONS, "linear")))
        raise _refused(layer, f"activation: expected {expected}, got {shown(name)}")
    return [Activation(name)]


def _time_distributed(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    inner = layer.config["layer"]
    if inner["class_name"] != "Dense":
        raise _refused(layer, f"layer: expected Dense, got {inner['class_name']}")
    name = f"{layer.name}: layer"
    return _dense(KerasLayer(name, "Dense", inner["config"], layer.weights), for_inference)


def _embedding(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    _check_dtype(layer)
    return [from_keras_weights(layer.weights, "Embedding")]


def _layer_norm(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    _check_dtype(layer)
    config = layer.config
    if config["axis"] not in (-1, [-1]):
        raise _refused(layer, f"axis: expected -1, the last one, got {config['axis']}")
    _check(layer, "rms_scaling", False)
    if not (config["scale"] or config["center"]):
        raise _refused(layer, "scale: expected True where center is False, got both False")
    arrays = list(layer.weights)
    gamma = arrays.pop(0) if config["scale"] else np.ones_like(arrays[0])
    beta = arrays.pop(0) if config["center"] else np.zeros_like(gamma)
    return [from_keras_weights([gamma, beta], "LayerNormalization", epsilon=config["epsilon"])]


def _dropout(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    if layer.config["noise_shape"] is not None and not for_inference:
        raise _refused(
            layer,
            "noise_shape: expected None (for_inference=True leaves it out), "
            f"got {shown(layer.config['noise_shape'])}",
        )
    return [Dropout(real(f"{layer.name}: rate", layer.config["rate"], 0.0, 1.0))]


def _nothing(layer: KerasLayer, for_inference: bool) -> list[Layer]:
    return []


_CONVERSIONS: dict[str, Callable[[KerasLayer, bool], list[Layer]]] = {
    "SimpleRNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "Bidirectional": _bidirectional,
    "Embedding": _embedding,
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "LayerNormalization": _layer_norm,
    "Dropout": _dropout,
    "Activation": _activation,
    "InputLayer": _nothing,
    # It is the mask that says which steps are live.
    "Masking": _nothing,
}
#: The classes that have a counterpart.
CLASSES = tuple(name for name in _CONVERSIONS if name != "InputLayer")
_RECURRENT = ("SimpleRNN", "LSTM", "GRU")
_ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax")
#: They give their input as it is when nothing is trained.
_IN_TRAINING_ALONE = (
    "ActivityRegularization",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
)


def _check(layer: KerasLayer, option: str, expected: object, why: str = "") -> None:
    got = layer.config[option]
    if got != expected:
        reason = f" {why}" if why else ""
        raise _refused(layer, f"{option}: expected {expected!r}{reason}, got {shown(got)}")


def _check_dtype(layer: KerasLayer) -> None:
    """Refuses arithmetic in half precision and weights that are stored as integers or in parts."""
    policy = layer.config["dtype"]
    name = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
    if name not in ("float32", "float64"):
        raise _refused(layer, f"dtype: expected 'float32' or 'float64', got {shown(name)}")
    for option in ("lora_rank", "quantization_config"):
        if layer.config.get(option) is not None:
            raise _refused(layer, f"{option}: expected None, got {shown(layer.config[option])}")


def _refused(layer: KerasLayer, message: str) -> ValueError:
    return ValueError(f"{layer.name}: {message}")
