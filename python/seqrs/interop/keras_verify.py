"""Runs a Keras layer or model and what it became here on the same random input."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers import Embedding, Layer, LayerNorm, Linear
from ..models import Sequential
from ..recurrent import LSTM, Recurrent
from .keras_layers import Conversion
from .verify import require_equal

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["verify_conversion"]

#: Rows, steps and features where the model leaves them open.
_SHAPE = (4, 7, 3)


def verify_conversion(
    keras: Any, theirs: Any, ours: Layer | Sequential, conversion: Conversion
) -> None:
    """Compares outputs and, where Keras gives them, states.

    With a recurrent layer it does so twice: with all steps live, and with holes, at the first and
    the last step too. Only live steps are compared: at others outputs are zero here, and in Keras
    those of the step before.

    Raises:
        VerificationError: they differ; says in what, and by how much.
    """
    random = np.random.default_rng(0)
    layers = conversion.layers
    shape = _input_shape(keras, theirs, layers)
    made = conversion.made if conversion.skips_steps else None
    for holes in (False, True) if conversion.skips_steps else (False,):
        x = _drawn(random, shape, layers)
        mask: npt.NDArray[np.bool_] | None = None
        if holes:
            mask = random.random(shape[:2]) < 0.6
            # One row is whole, one begins with a hole and one ends with one.
            mask[0], mask[1 % len(mask), 0], mask[2 % len(mask), -1] = True, False, False
        if made is not None:
            if mask is not None:
                x[~mask] = made.value
            mask = made.of(x)
        elif isinstance(layers[0], Embedding):
            # Keras's takes no mask and passes none on.
            mask = None
        words = {} if mask is None or made else {"mask": keras.ops.convert_to_tensor(mask)}
        with warnings.catch_warnings():
            # That the model gives no mask on to a layer after it, which there is not.
            warnings.filterwarnings("ignore", ".* was passed an input with a mask", UserWarning)
            found = theirs(keras.ops.convert_to_tensor(x), training=False, **words)
        with_states = isinstance(found, (list, tuple))
        y, *states = [
            keras.ops.convert_to_numpy(each) for each in (found if with_states else [found])
        ]
        what = f"{theirs.name}{' with a mask' * holes}"
        got, state = ours(x, mask=mask)
        live = mask if mask is not None and y.ndim == 3 else ...
        require_equal(f"{what}: outputs", got[live], y[live])
        if with_states:
            (cell,) = (layer for layer in layers if isinstance(layer, Recurrent))
            state = state if isinstance(ours, Layer) else state[0]
            for number, pair in enumerate(zip(_in_kerass_order(cell, state), states, strict=True)):
                require_equal(f"{what}: state {number}", *pair)


def _input_shape(keras: Any, theirs: Any, layers: list[Layer]) -> tuple[int, ...]:
    rows, steps, features = _SHAPE
    if isinstance(theirs, keras.Model):
        asked = tuple(theirs.inputs[0].shape)
    elif isinstance(layers[0], Embedding):
        asked = (None, None)
    else:
        asked = (None, None, None)
    sizes = [given or size for given, size in zip(asked, (rows, steps), strict=False)]
    if len(asked) == 2 and not isinstance(layers[0], Embedding):
        # A model of rows without steps.
        return (sizes[0], asked[1])
    return (*sizes, *(given or _features(layers) or features for given in asked[2:]))


def _features(layers: list[Layer]) -> int | None:
    """What the first layer that minds takes."""
    for layer in layers:
        if isinstance(layer, Recurrent):
            return layer.input_size
        if isinstance(layer, Linear):
            return layer.in_features
        if isinstance(layer, LayerNorm):
            return layer.size
    return None


def _drawn(random: np.random.Generator, shape: tuple[int, ...], layers: list[Layer]) -> Array:
    first = layers[0]
    if isinstance(first, Embedding):
        return random.integers(0, first.num_embeddings, shape)
    dtype = next((layer.dtype for layer in layers if layer.num_parameters), "float32")
    return random.normal(size=shape).astype(dtype)


def _in_kerass_order(cell: Recurrent, state: Any) -> list[Array]:
    """h, c of each direction, one after the other."""
    parts = state if isinstance(cell, LSTM) else (state,)
    return [part[slot] for slot in range(len(parts[0])) for part in parts]
