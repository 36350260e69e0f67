"""Keras's lists of weights, in and out, without Keras.

What `layer.get_weights()` gives and `layer.set_weights` takes, for G gates (1, 4 or 3):

    SimpleRNN, LSTM, GRU   kernel (I, G*H), recurrent_kernel (H, G*H), bias
    Bidirectional          those of the forward layer, then those of the backward layer
    Embedding              embeddings (rows, features)
    Dense                  kernel (in, out), bias (out)
    LayerNormalization     gamma (F), beta (F)

    gates                  LSTM i f c o, which is i f g o here; GRU z r h, which is r z n here
    bias                   SimpleRNN (H), LSTM (4H); GRU (3H) with `reset_after=False`, and (2, 3H),
                           that of the input above that of the state, with `reset_after=True`

A matrix here is the transpose of Keras's. Where Keras has one bias for two of ours, they are added
on the way out, and the second is zero on the way in.

>>> gru = seqrs.GRU(8, 16, reset_after=True)
>>> weights = seqrs.to_keras_weights(gru)
>>> [array.shape for array in weights]
[(8, 48), (16, 48), (2, 48)]
>>> seqrs.from_keras_weights(weights, "GRU") == gru
True
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..functions import Function
from ..layers import Embedding, Layer, LayerNorm, Linear
from ..models import Sequential
from ..options import choice, dtype_name, flag, integer, real, shown
from ..recurrent import GRU, LSTM, RNN, Recurrent

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["FUNCTIONS", "from_keras_weights", "to_keras_weights"]

#: The classes of Keras whose weights a layer here takes.
_COUNTERPARTS: dict[str, type[Layer]] = {
    "SimpleRNN": RNN,
    "LSTM": LSTM,
    "GRU": GRU,
    "Embedding": Embedding,
    "Dense": Linear,
    "LayerNormalization": LayerNorm,
}
#: What Keras's `activation` is here.
_ACTIVATION: dict[type[Layer], tuple[str, ...]] = {
    RNN: ("nonlinearity",),
    LSTM: ("candidate_activation", "output_activation"),
    GRU: ("candidate_activation",),
}
#: They go by the words of model files too.
_KINDS = _COUNTERPARTS | {cls.kind: cls for cls in _COUNTERPARTS.values()}
_GATES: dict[type[Layer], int] = {RNN: 1, LSTM: 4, GRU: 3}
#: Keras's functions by name, as far as a cell here has them.
FUNCTIONS: dict[str, Function] = {
    "tanh": "tanh",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
    "linear": "affine",
    "leaky_relu": ("leaky_relu", 0.2),
    "elu": "elu",
    "softsign": "softsign",
    "softplus": "softplus",
}
_CELLS: dict[type[Layer], type[RNN | LSTM | GRU]] = {RNN: RNN, LSTM: LSTM, GRU: GRU}


def from_keras_weights(
    weights: Sequence[npt.ArrayLike],
    kind: str,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reset_after: bool | None = None,
    activation: str | None = None,
    recurrent_activation: str | None = None,
    recurrent_dropout: float | None = None,
    epsilon: float | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Layer:
    """A layer with the weights of a Keras layer, from arrays alone: Keras need not be installed.

        weights = keras_layer.get_weights()                     # where Keras is; np.savez stores it
        layer = seqrs.from_keras_weights(weights, "LSTM")

    The layer gives its output at every step, as `return_sequences=True` does in Keras; what
    `return_sequences=False` gives comes from a `Last` after it. At masked steps it gives zeros,
    where Keras repeats the output before. For whole layers and models see `from_keras`.

    Args:
        weights: the arrays of `get_weights()`, in its order: kernel, recurrent_kernel and, with
            biases, bias; kernel and bias of a Dense; embeddings; gamma and beta.
        kind: "SimpleRNN", "LSTM", "GRU", "Embedding", "Dense" or "LayerNormalization" (or "rnn",
            "lstm", "gru", "embedding", "linear", "layer_norm").
        num_layers: of a stack: its layers' arrays one after the other, for a recurrent kind.
        bidirectional: whether there are two directions: the arrays of the forward layer, then
            those of the backward layer (of each layer of a stack), as Bidirectional has them. The
            outputs are concatenated.
        reset_after: the form of a GRU. Its bias tells, (2, 3H) or (3H); it has to be said where
            there is no bias, and is checked where there is.
        activation: of a recurrent kind, Keras's word for a function that a cell here has: "tanh",
            which None means, "relu", "sigmoid", "hard_sigmoid", "linear", "leaky_relu", "elu",
            "softsign" or "softplus". Of an LSTM it is that of the candidate and of the cell state.
        recurrent_activation: that of the gates of an LSTM or GRU; None means "sigmoid".
        recurrent_dropout: of a SimpleRNN, what training drops of the state; None means 0. (That of
            Keras's LSTM and GRU differs from the one here: it drops other units for each gate.)
        epsilon: of a LayerNormalization; None means 1e-3, as in Keras.
        dtype: "float32" or "float64"; None means float64 if an array is, else float32.

    Returns:
        RNN, LSTM, GRU, Embedding, Linear or LayerNorm.

    Raises:
        ShapeError: the number of arrays or a shape does not fit; says which by Keras's name.
        DTypeError: an array does not hold real numbers.
        TypeError, ValueError: an option is none, or is not one of that kind.
    """
    cls = _KINDS[choice("kind", kind, tuple(_KINDS))]
    arrays = _real_arrays(weights)
    wide = any(array.dtype == np.float64 for array in arrays)
    chosen = dtype_name(("float64" if wide else "float32") if dtype is None else dtype)
    layers = integer("num_layers", num_layers)
    both = flag("bidirectional", bidirectional)
    _only("reset_after", reset_after, cls, GRU, "a GRU")
    _only("activation", activation, cls, Recurrent, "recurrent kinds")
    _only("recurrent_activation", recurrent_activation, cls, (LSTM, GRU), "an LSTM or GRU")
    _only("recurrent_dropout", recurrent_dropout, cls, RNN, "a SimpleRNN")
    _only("epsilon", epsilon, cls, LayerNorm, "a LayerNormalization")
    _only("num_layers", None if layers == 1 else layers, cls, Recurrent, "recurrent kinds")
    _only("bidirectional", both or None, cls, Recurrent, "recurrent kinds")
    if cls is Embedding:
        return _embedding(arrays, chosen)
    if cls is Linear:
        return _linear(arrays, chosen)
    if cls is LayerNorm:
        return _layer_norm(arrays, 1e-3 if epsilon is None else epsilon, chosen)
    options: dict[str, Any] = {"num_layers": layers, "bidirectional": both}
    if activation is not None:
        function = FUNCTIONS[choice("activation", activation, tuple(FUNCTIONS))]
        options |= dict.fromkeys(_ACTIVATION[cls], function)
    if recurrent_activation is not None:
        word = choice("recurrent_activation", recurrent_activation, tuple(FUNCTIONS))
        options["gate_activation"] = FUNCTIONS[word]
    if reset_after is not None:
        options["reset_after"] = flag("reset_after", reset_after)
    if recurrent_dropout is not None:
        options["recurrent_dropout"] = recurrent_dropout
    return _recurrent(_CELLS[cls], arrays, options, chosen)


def to_keras_weights(layer: Layer | Sequential) -> list[npt.NDArray[np.floating[Any]]]:
    """The weights of a layer or model as the list that `set_weights` of Keras takes.

        keras_layer.set_weights(seqrs.to_keras_weights(layer))

    A layer of several layers, and a model, give the arrays of one after the other, as a Keras model
    of the same layers has them; a bidirectional one gives those of both directions, as
    Bidirectional does. Layers without weights give none.

    What Keras computes with them is the same but for rounding: the two biases of an RNN or LSTM are
    added into Keras's one. Back by `from_keras_weights` all else has the same bits. An
    Embedding's `padding_idx` and what acts in training alone (dropout) are no weights; the options
    of the Keras layer have to be the same ones: `reset_after` of a GRU (False is the default here,
    True there), `activation` and `recurrent_activation`, `epsilon` of a LayerNormalization. A
    function here is Keras's of the same name, but for "affine", which is "linear" there, and for
    those whose numbers differ by default: Keras's "leaky_relu" is ("leaky_relu", 0.2) here, and
    its "hard_sigmoid" ("hard_sigmoid", 1 / 6, 0.5).

    Args:
        layer: RNN, LSTM, GRU, Embedding, Linear, LayerNorm, any layer without parameters, or a
            Sequential of these.

    Raises:
        ValueError: an option has no counterpart in Keras (`proj_size`, `peepholes` or `coupled` of
            an LSTM, `clip`, a function that Keras has no name for, two functions in an LSTM for
            the candidate and the cell state); names it.
        TypeError: it is no layer.
    """
    if isinstance(layer, Sequential):
        return [array for each in layer for array in to_keras_weights(each)]
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a layer or a Sequential, got {shown(layer)}")
    own = layer.state_dict()
    if isinstance(layer, Recurrent):
        return list(_recurrent_weights(layer, own))
    if isinstance(layer, Linear):
        # `weight` and, if there is one, `bias`.
        kernel, *bias = own.values()
        return [np.ascontiguousarray(kernel.T), *bias]
    if isinstance(layer, (Embedding, LayerNorm)) or not own:
        return list(own.values())
    raise TypeError(f"layer: expected one that Keras has too, got {shown(layer)}")


def _recurrent(
    cls: type[RNN | LSTM | GRU], arrays: list[Array], options: dict[str, Any], dtype: str
) -> Layer:
    names = ["kernel", "recurrent_kernel", "bias"]
    cells = options["num_layers"] * (2 if options["bidirectional"] else 1)
    if len(arrays) not in (2 * cells, 3 * cells):
        raise ShapeError(
            f"weights: expected {' and '.join(names[:2])}, and bias if there is one, for "
            f"each of {cells} layers and directions ({2 * cells} or {3 * cells} arrays), "
            f"got {len(arrays)}"
        )
    each = len(arrays) // cells
    options["bias"] = each == 3
    parts = [arrays[k : k + each] for k in range(0, len(arrays), each)]
    inputs, units = _sizes(cls, *parts[0][:2])
    if cls is GRU:
        options["reset_after"] = _form(options.get("reset_after"), parts[0][2:], units)

    gates, after = _GATES[cls], options.get("reset_after")
    features = inputs
    mapping: dict[str, Array] = {}
    for number, part in enumerate(parts):
        layer, reverse = divmod(number, 2) if options["bidirectional"] else (number, 0)
        if layer > 0:
            features = units * (2 if options["bidirectional"] else 1)
        expected = [
            (features, gates * units),
            (units, gates * units),
            (2, gates * units) if after else (gates * units,),
        ]
        where = f" of layer {layer}{', backward' * reverse}" if cells > 1 else ""
        for name, array, shape in zip(names, part, expected, strict=False):
            _expect(name + where, array, shape)
        suffix = f"_l{layer}{'_reverse' * reverse}"
        kernel, recurrent, *bias = (_other_order(cls, array) for array in part)
        mapping[f"weight_ih{suffix}"] = kernel.T
        mapping[f"weight_hh{suffix}"] = recurrent.T
        for array in bias:
            if after:
                mapping[f"bias_ih{suffix}"], mapping[f"bias_hh{suffix}"] = array
            else:
                mapping[f"bias_ih{suffix}"] = array
                # The reset-before GRU has one bias.
                if cls is not GRU:
                    mapping[f"bias_hh{suffix}"] = np.zeros_like(array)
    return cls._with_parameters(mapping, inputs, units, dtype=dtype, **options)


def _sizes(cls: type[Layer], kernel: Array, recurrent: Array) -> tuple[int, int]:
    """I and H, from the first two arrays."""
    gates = _GATES[cls]
    for name, array in (("kernel", kernel), ("recurrent_kernel", recurrent)):
        if array.ndim != 2 or 0 in array.shape:
            raise ShapeError(f"{name}: expected a matrix, got shape {array.shape}")
    inputs, units = kernel.shape[0], recurrent.shape[0]
    _expect("recurrent_kernel", recurrent, (units, gates * units))
    return inputs, units


def _form(said: bool | None, bias: list[Array], units: int) -> bool:
    """Whether a GRU's reset gate acts after the product, as its bias says."""
    before, after = (3 * units,), (2, 3 * units)
    if not bias:
        if said is None:
            raise TypeError(
                "reset_after: expected True or False for a GRU without bias, whose arrays are the "
                "same for both forms, got None"
            )
        return said
    shape = bias[0].shape
    if said is not None:
        _expect(f"bias (reset_after={said})", bias[0], after if said else before)
    elif shape not in (before, after):
        raise ShapeError(
            f"bias: expected shape {before} (reset_after=False) or {after} (reset_after=True), "
            f"got {shape}"
        )
    return shape == after


def _other_order(cls: type[Layer], array: Array) -> Array:
    """z r h as r z n along the last axis, and back again, which is the same."""
    if cls is not GRU:
        return array
    first, second, candidate = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, candidate], axis=-1)


def _embedding(arrays: list[Array], dtype: str) -> Layer:
    _expect_number(arrays, ("embeddings",), 1)
    (table,) = arrays
    if table.ndim != 2:
        raise ShapeError(f"embeddings: expected a matrix, got shape {table.shape}")
    return Embedding._with_parameters({"weight": table}, *table.shape, dtype=dtype)


def _linear(arrays: list[Array], dtype: str) -> Layer:
    _expect_number(arrays, ("kernel", "bias"), 1)
    kernel, *bias = arrays
    if kernel.ndim != 2:
        raise ShapeError(f"kernel: expected a matrix, got shape {kernel.shape}")
    for array in bias:
        _expect("bias", array, (kernel.shape[1],))
    inputs, outputs = kernel.shape
    mapping = dict(zip(("weight", "bias"), (kernel.T, *bias), strict=False))
    return Linear._with_parameters(mapping, inputs, outputs, bias=bool(bias), dtype=dtype)


def _layer_norm(arrays: list[Array], epsilon: float, dtype: str) -> Layer:
    _expect_number(arrays, ("gamma", "beta"), 2)
    gamma, beta = arrays
    if gamma.ndim != 1:
        raise ShapeError(f"gamma: expected a vector, got shape {gamma.shape}")
    _expect("beta", beta, gamma.shape)
    mapping, eps = {"weight": gamma, "bias": beta}, real("epsilon", epsilon, above=0.0)
    return LayerNorm._with_parameters(mapping, gamma.size, eps=eps, dtype=dtype)


def _recurrent_weights(layer: Recurrent, own: dict[str, Any]) -> Iterator[Array]:
    _refuse_what_keras_lacks(layer)
    _refuse_two_activations(layer)
    for k in range(layer.num_layers):
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: 2 if layer.bidirectional else 1]:
            arrays = [own[f"weight_ih{suffix}"].T, own[f"weight_hh{suffix}"].T]
            if layer.bias:
                first, second = own[f"bias_ih{suffix}"], own.get(f"bias_hh{suffix}")
                if second is None:
                    arrays.append(first)
                elif isinstance(layer, GRU):
                    arrays.append(np.stack([first, second]))
                else:
                    arrays.append(first + second)
            for array in arrays:
                yield np.ascontiguousarray(_other_order(_base(layer), array))


def _base(layer: Recurrent) -> type[RNN | LSTM | GRU]:
    """RNN, LSTM or GRU, also for a class of the user's that is derived from one."""
    return next(cls for cls in (RNN, LSTM, GRU) if isinstance(layer, cls))


#: Options that say nothing of what the layer computes with its weights, or that Keras has too.
_CARRIED = {
    *("kind", "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "dropout"),
    *("recurrent_dropout", "batch_first", "seed", "forget_bias", "reset_after"),
}
#: Those that say a function.
_OF_FUNCTIONS = ("nonlinearity", "gate_activation", "candidate_activation", "output_activation")


def _refuse_what_keras_lacks(layer: Recurrent) -> None:
    """Functions have to be Keras's, and any other option what it is by default.

    Raises:
        ValueError: one is not.
    """
    plain = _base(layer)(1, 1)._options()
    options = layer._options()
    for name, value in options.items():
        if name in _OF_FUNCTIONS:
            if value not in FUNCTIONS.values():
                expected = " or ".join(map(repr, FUNCTIONS.values()))
                raise ValueError(
                    f"{name}: expected {expected}, as Keras has no name for others, got {value!r}"
                )
        elif name not in _CARRIED and value != plain.get(name):
            raise ValueError(
                f"{name}: expected {plain.get(name)!r}, as Keras has no counterpart, got {value!r}"
            )


def _refuse_two_activations(layer: Recurrent) -> None:
    if isinstance(layer, LSTM) and layer.output_activation != layer.candidate_activation:
        raise ValueError(
            f"output_activation: expected {layer.candidate_activation!r}, that of the candidate, "
            f"as Keras has one for both, got {layer.output_activation!r}"
        )


def _real_arrays(weights: object) -> list[Array]:
    if isinstance(weights, (str, bytes, np.ndarray)) or not isinstance(weights, Sequence):
        raise TypeError(f"weights: expected a list of arrays, got {shown(weights)}")
    arrays = [np.asarray(each) for each in weights]
    for k, array in enumerate(arrays):
        if array.dtype.kind not in "fiu":
            raise DTypeError(f"weights[{k}]: expected real numbers, got {array.dtype}")
    return arrays


def _expect(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ShapeError(f"{name}: expected shape {shape}, got {array.shape}")


def _expect_number(arrays: list[Array], names: tuple[str, ...], at_least: int) -> None:
    if not at_least <= len(arrays) <= len(names):
        needed = " and ".join(names[:at_least])
        more = "".join(f", and {name} if there is one" for name in names[at_least:])
        raise ShapeError(f"weights: expected {needed}{more}, got {len(arrays)} arrays")


def _only(
    name: str,
    value: object,
    cls: type[Layer],
    owner: type[Layer] | tuple[type[Layer], ...],
    words: str,
) -> None:
    """An option that some kinds alone have is left out for the others."""
    if value is not None and not issubclass(cls, owner):
        raise TypeError(f"{name}: expected it for {words} alone, got it for {cls.kind!r}")
