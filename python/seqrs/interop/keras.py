"""Layers and models of Keras 3 as layers and models here."""

from __future__ import annotations

import warnings
from typing import Any

from ..layers import Layer
from ..models import Sequential
from ..options import flag, shown
from .keras_chain import functional_chain
from .keras_layers import Conversion, KerasLayer, MaskOfInput, convert
from .keras_verify import verify_conversion
from .keras_weights import from_keras_weights, to_keras_weights

__all__ = ["from_keras", "from_keras_weights", "to_keras_weights"]


def from_keras(
    layer_or_model: Any, *, verify: bool = True, for_inference: bool = False
) -> Layer | Sequential:
    """A layer or model of Keras 3, with its weights, as one of seqrs.

        model = seqrs.from_keras(keras_model)
        y, state = model(x)                                     # x (B, T, F), or ids (B, T)

        SimpleRNN, LSTM, GRU                       RNN, LSTM, GRU of the same form (`reset_after`)
        their activation, recurrent_activation:    the functions of the cells; "linear" is "affine"
        tanh, relu, sigmoid, hard_sigmoid, linear,
        leaky_relu, elu, softsign, softplus
        return_sequences=False                     Last after it
        go_backwards=True, return_sequences=False  both directions, Last, and a Linear that takes
                                                   the backward one; the forward one has weights 0
        Bidirectional, merge_mode "concat"         bidirectional=True
        "sum" and "ave"                            and a Linear of ones or halves after it
        Embedding, Dropout, Activation             Embedding, Dropout, Activation
        Dense                                      Linear, and the Activation after it
        LayerNormalization of the last axis        LayerNorm
        TimeDistributed(Dense)                     Linear
        Sequential, functional models that are one Sequential
        chain of these
        Masking, Embedding(mask_zero=True)         the argument `mask`, see below

    Refused by name is what would not be the same: go_backwards with return_sequences=True (there
    Keras gives outputs in the order in which it read), merge_mode "mul" and None, stateful (a state
    is an argument here), other activations, `zero_output_for_mask=True` with
    return_sequences=False, half precision, other layers. `unroll` and `use_cudnn` say how and not
    what. What belongs to `compile` and `fit` (losses, optimisers, regularisers, constraints,
    initialisers) stays behind.

    Masks: a mask is an argument here, `model(x, mask=...)`, with holes or without, and never made
    of x. For a model that begins with Masking or Embedding(mask_zero=True), and has a recurrent
    layer to skip steps, a UserWarning says which mask to give. At masked steps outputs are zero,
    where Keras repeats the output before (or has what later layers make of that); all others, and
    states, are the same.

    Args:
        layer_or_model: a built `keras.Layer`, `keras.Sequential` or functional `keras.Model`. A
            path is refused: read the file with `keras.saving.load_model` first.
        verify: whether to run both, on random input and again with a mask that has holes, where
            there is a recurrent layer. (On a GPU that rounds products to TF32, Keras itself may be
            off by more than is allowed: verify on the CPU.)
        for_inference: whether to leave out what Keras does in training alone and no layer here
            does: `dropout` of recurrent layers, `recurrent_dropout` of LSTM and GRU (of a SimpleRNN
            it is the one of RNN), `noise_shape` of Dropout,
            SpatialDropout1D, GaussianNoise and its like. They are refused otherwise.

    Returns:
        A layer for a layer that is one here (an LSTM with return_sequences=True, a Dense without
        activation), else a Sequential. A state has the form of the layers here: h (D, B, H), and
        (h, c) of an LSTM, for Keras's [h, c] or [hf, cf, hb, cb]. Weights go back by
        `to_keras_weights`, in which the Linear of go_backwards and merge_mode is a Dense.

    Raises:
        ValueError: an option cannot be carried; names the layer, the option and what is expected.
        TypeError: it is none of the above, or a layer is of another class.
        VerificationError: the outputs or states differ by more than 1e-5 of the largest value;
            gives the largest difference.
        ModuleNotFoundError: Keras is not installed.
    """
    keras = _keras()
    verify, for_inference = flag("verify", verify), flag("for_inference", for_inference)
    chain, masks = _chain(keras, layer_or_model)
    conversion = convert([_read(keras, layer) for layer in chain], for_inference=for_inference)
    for mask in masks:
        if mask != conversion.made:
            raise ValueError(f"model: expected the mask that its first layer makes, got {mask}")
    found = _built(conversion, isinstance(layer_or_model, keras.Model))
    if verify:
        verify_conversion(keras, layer_or_model, found, conversion)
    if conversion.made is not None and conversion.skips_steps:
        warnings.warn(
            f"{layer_or_model.name}: Keras makes a mask of the input by itself; "
            f"give it here: model(x, mask={conversion.made})",
            stacklevel=2,
        )
    return found


def _keras() -> Any:
    """The package, which only those have who asked for it."""
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name != "keras":
            # Keras is there, and lacks its backend.
            raise
        message = "keras: expected the package (pip install 'seqrs[keras]'), got none"
        raise ModuleNotFoundError(message, name="keras") from error
    return keras


def _chain(keras: Any, given: Any) -> tuple[list[Any], list[MaskOfInput]]:
    """The layers of a layer or model, in order, and the masks that they are called with."""
    if not isinstance(given, keras.Layer):
        raise TypeError(f"layer_or_model: expected a layer or model of Keras 3, got {shown(given)}")
    if not isinstance(given, keras.Model):
        return [given], []
    if not given.built:
        raise ValueError(f"{given.name}: expected a model that is built, got one without weights")
    if type(given) is keras.Sequential:
        return list(given.layers), []
    if not (type(given).__name__ == "Functional" and _is_kerass_own(given)):
        raise TypeError(
            f"{given.name}: expected Sequential or a functional Model, "
            f"got {type(given).__name__}, a class of its own"
        )
    names, masks = functional_chain(given.get_config())
    return [given.get_layer(name) for name in names], masks


def _read(keras: Any, layer: Any) -> KerasLayer:
    """What a layer says of itself."""
    inner = (getattr(layer, name, None) for name in ("layer", "forward_layer", "backward_layer"))
    for each in (layer, *inner):
        if each is not None and not _is_kerass_own(each):
            raise TypeError(
                f"{layer.name}: expected layers of Keras's own, got {type(each).__name__}"
            )
    weights = layer.get_weights()
    if not layer.built and not weights and type(layer).__name__ not in _WITHOUT_WEIGHTS:
        raise ValueError(f"{layer.name}: expected a layer that is built, got one without weights")
    return KerasLayer(layer.name, type(layer).__name__, layer.get_config(), weights)


#: They may be asked for before they have seen an input.
_WITHOUT_WEIGHTS = ("Activation", "Dropout", "Masking")


def _is_kerass_own(value: Any) -> bool:
    """Whether a layer is of one of Keras's classes, and not of one derived from it."""
    return type(value).__module__.startswith("keras.")


def _built(conversion: Conversion, is_model: bool) -> Layer | Sequential:
    layers = conversion.layers
    if not layers:
        raise ValueError("layer_or_model: expected a layer that computes something, got none")
    return layers[0] if len(layers) == 1 and not is_model else Sequential(layers)
