"""Models: layers one after the other, and model files."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from . import _seqrs
from .errors import ModelFileError, ModelFileNotFoundError
from .layers import (
    Embedding,
    Gradients,
    IncompatibleKeys,
    Layer,
    Tape,
    checked_mapping,
    checked_path,
    checked_tape,
    own_attributes,
    reduced,
    take_attributes,
    wrapped,
)
from .options import flag, integer, text
from .options import seed as checked_seed
from .recurrent import LSTM, Recurrent

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Self

    from .layers import Array
    from .quantized import QuantizedSequential

__all__ = ["Sequential", "load"]


class Sequential:
    """Layers one after the other; each reads what the one before gives.

    The model works on the very layers it is given: training it trains them. It is batch-first
    unless its first recurrent layer says otherwise. Its state is a tuple with the state of each
    recurrent layer, in order. Models pickle, copy and compare equal by value, and any number of
    threads may call one at once, also while it trains.

    Args:
        layers: at least one; all with parameters have one dtype.
        seed: None leaves the layers as they are; an integer initialises layer k anew from
            (seed, k), its dropout included; `seed` of each layer says what it was given.

    Raises:
        TypeError: something is no layer.
        ShapeError: a layer does not fit the one before it; names both.
        DTypeError: two layers have different dtypes.
        ValueError: there is no layer, or one is there twice.
    """

    __slots__ = ("__weakref__", "_batch_first", "_handle", "_layers")

    # Models compare by value and can change, so they cannot be keys.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, layers: Sequence[Layer], seed: int | None = None) -> None:
        if isinstance(layers, (str, bytes, Mapping)) or not hasattr(layers, "__iter__"):
            raise TypeError(f"layers: expected a sequence of layers, got {layers!r}")
        given = tuple(layers)
        places: dict[int, int] = {}
        for k, layer in enumerate(given):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{k}]: expected a layer, got {layer!r}")
            if id(layer) in places:
                raise ValueError(
                    f"layers[{k}]: expected a layer of its own, "
                    f"got the one that is layers[{places[id(layer)]}] already"
                )
            places[id(layer)] = k
        if seed is not None:
            seed = checked_seed(seed)
        self._attach(_seqrs.Model([layer._handle for layer in given], seed), given)

    def _attach(self, handle: _seqrs.Model, layers: tuple[Layer, ...]) -> None:
        self._handle = handle
        self._layers = layers
        recurrent = next((layer for layer in layers if isinstance(layer, Recurrent)), None)
        self._batch_first = recurrent is None or recurrent.batch_first

    # What it computes.

    def __call__(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> tuple[Array, tuple[Any, ...]]:
        """Inference: the outputs and the final state; keeps nothing, applies no dropout.

        Args:
            x: (B, T, F), or ids (B, T) where the first layer is an Embedding; (T, B, ...) unless
                batch-first.
            state: what an earlier call gave, or None for zeros; None also stands for zeros in the
                place of one layer's state.
            lengths: B integers in 0..=T, the live steps of each row.
            mask: booleans or 0 and 1 of shape (B, T), or (T, B) unless batch-first. At most one of
                `lengths` and `mask` is given; None means all steps are live.

        Returns:
            y, zero at steps that are not live, (B, T, .) or, after Last and the pools, (B, .); and
            the final state.

        Raises:
            ShapeError, DTypeError: an argument does not fit; says which.
        """
        return self._handle.call(x, state, lengths, mask, self._batch_first)

    def forward(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        training: bool = True,
    ) -> tuple[Array, tuple[Any, ...], Tape]:
        """As calling the model, and keeps on a tape what `backward` needs.

        Args:
            training: whether to apply dropout, drawn anew at each call from the layers' seeds.

        Returns:
            y, the final state, and the tape, which may be used any number of times. It holds
            `tape.nbytes` bytes, most of them for recurrent layers (`seqrs.recurrent` has the
            formula).
        """
        return self._handle.forward(
            x, state, lengths, mask, self._batch_first, flag("training", training)
        )

    def backward(
        self, tape: Tape, dy: npt.ArrayLike | None = None, dstate: Any = None
    ) -> Gradients:
        """Back-propagation through time.

        Args:
            tape: what `forward` of this model gave, its weights unchanged since.
            dy: the gradient of the loss at y; None for zero. Steps that are not live are ignored.
            dstate: that at the final state, in its form; None for zero. One of both is given.

        Returns:
            The gradients; `.params` by the names of `state_dict`.

        Raises:
            StateError: the tape is another model's or from before the weights changed.
        """
        return Gradients(*self._handle.backward(checked_tape(tape), dy, dstate))

    def step(
        self, x_t: npt.ArrayLike, state: Any = None, *, out: Any = None
    ) -> tuple[Array, tuple[Any, ...]]:
        """One step of every row: x_t (B, F) or ids (B,) -> y_t (B, .) and the state after it.

        The same bits as the sequence of which it is a step.

        Args:
            x_t: (B, F), or ids (B,) where the first layer is an Embedding.
            state: what an earlier step or call gave, or None for zeros.
            out: None for new results, an array for y_t, or (y_t, state) with arrays for both, in
                the form in which they come back: C-contiguous NumPy arrays of the model's dtype.
                They may be those of `state`, so that the state moves on in place. They are written
                to at the end, when nothing can fail any more.

        Returns:
            y_t and the state after the step; those of `out`, if given.

        Raises:
            StateError: a layer needs the whole sequence; says which.
        """
        return self._handle.step(x_t, state, out)

    def warmup(self, batch_size: int = 1, steps: int = 1) -> None:
        """Runs zeros through the model, so that the first call that counts does not wait.

        Weights are packed then, threads begun, and buffers there for calls of that size.

        Args:
            batch_size: rows, B.
            steps: steps, T.
        """
        self._handle.warm_up(integer("batch_size", batch_size), integer("steps", steps))

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        """The zero state of `batch_size` rows."""
        return self._handle.initial_state(integer("batch_size", batch_size, 0))

    # What it is made of.

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order."""
        return self._layers

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Layer, ...]: ...
    def __getitem__(self, index: int | slice) -> Layer | tuple[Layer, ...]:
        return self._layers[index]

    @property
    def dtype(self) -> str:
        """ "float32" or "float64": that of all its layers."""
        return self._handle.dtype

    @property
    def device(self) -> str:
        """ "cpu", or "gpu:0" and so on: where all its layers compute.

        Raises:
            StateError: its layers are on different devices.
        """
        return self._handle.device

    def to(self, device: str) -> Self:
        """Takes the model and its layers to a device, where they compute from now on.

        A Trainer of the model follows at its next step, with all that its optimiser keeps.

        Args:
            device: "cpu", "gpu" (adapter 0), or "gpu:1" and so on (`seqrs.gpu.adapters`).

        Returns:
            The model.

        Raises:
            NoDeviceError: there is no such adapter, or it is made of software.
            DTypeError: the model is float64; a GPU computes in float32.
            ValueError: no device has that name.
            StateError: the process was forked from one that had opened the GPU.
        """
        self._handle.to(text("device", device))
        return self

    @property
    def batch_first(self) -> bool:
        """Whether x is (B, T, ...) rather than (T, B, ...)."""
        return self._batch_first

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters of all layers have."""
        return self._handle.num_parameters

    @property
    def output_size(self) -> int | None:
        """Features of y; None if no layer changes their number."""
        return self._handle.output_size

    @property
    def fingerprint(self) -> str:
        """A hash of structure and parameters, seeds left out: equal for models that are equal."""
        return self._handle.fingerprint

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters, named `{index of the layer}.{parameter}`."""
        return self._handle.state_dict()

    def load_state_dict(
        self, mapping: Mapping[str, npt.ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Takes over parameters by name; either all of them or, if one does not fit, none.

        Args:
            mapping: arrays by name, such as a `state_dict()`.
            strict: whether the names must be exactly this model's. If not, those of other names
                are left out, and parameters without an array stay.

        Returns:
            Both kinds of names, none of either when strict.

        Raises:
            ShapeError: a name or shape does not fit; says which.
            DTypeError: an array does not hold real numbers.
        """
        names = self._handle.load_state_dict(checked_mapping(mapping), flag("strict", strict))
        return IncompatibleKeys(*names)

    def quantize(self, kind: str) -> QuantizedSequential:
        """The same model with weights of small numbers, for inference on the CPU.

        It shares what stays float32, and keeps the float32 weights for its
        `quantization_report`; one that was saved and loaded does without them.

        Args:
            kind: "int8": 8-bit integers, and operands too; "bf16": bfloat16
                (`seqrs.quantized` says more).

        Raises:
            ValueError: there is no such kind, no layer has a matrix, or the rows of one are too
                long for exact sums of 8-bit integers; names it.
            DTypeError: the model is float64.
            NumericalError: a parameter is NaN or infinite; names it.
        """
        from .quantized import wrapped as wrapped_small

        return wrapped_small(self._handle.quantize(text("kind", kind)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, which `seqrs.load` gives back as a model.

        The file is there whole or not at all, also after a crash.
        """
        self._handle.save(checked_path(path))

    def summary(self) -> str:
        """A table: each layer's parameters, multiply-adds per step of a row, bytes of its state."""
        itemsize = np.dtype(self.dtype).itemsize
        lines = [["", "layer", "output", "parameters", "multiply-adds/step", "state bytes/row"]]
        total = [0, 0, 0]
        size: int | None = None
        for k, layer in enumerate(self._layers):
            counts = [layer.num_parameters, _multiply_adds(layer), _state_size(layer) * itemsize]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            # A layer that has no size of its own gives what it is given.
            size = layer.output_size or size
            output = "" if size is None else str(size)
            lines.append([str(k), _brief(layer), output, *(f"{n:,}" for n in counts)])
        lines.append(["", "total", "", *(f"{n:,}" for n in total)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        rows = [
            "  ".join(
                word.ljust(width) if column < 2 else word.rjust(width)
                for column, (word, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, rows))
        return "\n".join([rows[0], rule, *rows[1:-1], rule, rows[-1], f"dtype {self.dtype}"])

    # Values.

    def __repr__(self) -> str:
        layers = "".join(f"    {layer!r},\n" for layer in self._layers)
        return f"Sequential([\n{layers}])"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequential):
            return NotImplemented
        return type(self) is type(other) and self._layers == other._layers

    def __copy__(self) -> Self:
        model = self._of(tuple(copy.copy(layer) for layer in self._layers))
        take_attributes(model, own_attributes(self))
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A layer that is copied beside the model is, there too, the model's own.
        model = self._of(tuple(copy.deepcopy(layer, memo) for layer in self._layers))
        memo[id(self)] = model
        take_attributes(model, copy.deepcopy(own_attributes(self), memo))
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(_rebuilt, (type(self), self._layers), self)

    @classmethod
    def _of(cls, layers: tuple[Layer, ...]) -> Self:
        """A model of layers as they are: nothing is drawn."""
        model = cls.__new__(cls)
        model._attach(_seqrs.Model([layer._handle for layer in layers], None), layers)
        return model


def _rebuilt(cls: type[Sequential], layers: tuple[Layer, ...]) -> Sequential:
    return cls._of(layers)


def load(
    path: str | os.PathLike[str], *, allow_nonfinite: bool = False
) -> Sequential | Layer | QuantizedSequential:
    """What `save` wrote: a model as a model, a layer as a layer, small weights as small weights.

    The file is data: nothing in it is run, imported or fetched.

    Args:
        path: a file written by `save`, of Python or of Rust.
        allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
        ModelFileNotFoundError: there is no file of that name; a FileNotFoundError too.
        ModelFileError: it cannot be read or is no model file; says what was found.
    """
    name = checked_path(path)
    try:
        found = _seqrs.load(name, flag("allow_nonfinite", allow_nonfinite))
    except ModelFileError as error:
        if os.path.lexists(name):
            raise
        raise ModelFileNotFoundError(str(error)) from None
    if isinstance(found, _seqrs.Layer):
        return wrapped(found)
    if isinstance(found, _seqrs.QuantizedModel):
        from .quantized import wrapped as wrapped_small

        return wrapped_small(found)
    layers = tuple(wrapped(handle) for handle in found.layers)
    model = Sequential.__new__(Sequential)
    model._attach(found, layers)
    return model


def _multiply_adds(layer: Layer) -> int:
    """Every matrix is multiplied with one vector a step; an Embedding is looked up."""
    if isinstance(layer, Embedding):
        return 0
    return sum(array.size for array in layer.state_dict().values() if array.ndim == 2)


def _state_size(layer: Layer) -> int:
    """Numbers in the state of one row."""
    if not isinstance(layer, Recurrent):
        return 0
    slots = layer.num_layers * (2 if layer.bidirectional else 1)
    if isinstance(layer, LSTM):
        return slots * ((layer.proj_size or layer.hidden_size) + layer.hidden_size)
    return slots * layer.hidden_size


#: What the functions of cells are, and their bound, where nobody says.
_FUNCTIONS: dict[str, Any] = {
    "nonlinearity": "tanh",
    "gate_activation": "sigmoid",
    "candidate_activation": "tanh",
    "output_activation": "tanh",
    "clip": None,
}


def _brief(layer: Layer) -> str:
    """The options that are sizes or differ from most."""
    options = layer._options()
    sizes = [name for name in layer.shown if type(options.get(name)) is int and name != "seed"]
    words = [str(options[name]) for name in sizes if name != "proj_size"]
    words += [f"proj_size={options['proj_size']}"] if options.get("proj_size") else []
    flags = ("bidirectional", "reset_after", "peepholes", "coupled", "layer_norm")
    words += [name for name in flags if options.get(name) is True]
    words += [
        f"{name}={options[name]!r}"
        for name, usual in _FUNCTIONS.items()
        if options.get(name, usual) != usual
    ]
    words += [str(options["function"])] if "function" in options else []
    words += [f"p={options['p']:g}"] if "p" in options else []
    return f"{type(layer).__name__}({', '.join(words)})"
