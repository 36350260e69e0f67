"""Models with weights of small numbers, for inference: `model.quantize("int8")` or `"bf16"`.

A step of one row takes as long as its weights take to come from memory, so weights of a quarter of
the size are several times as fast. The matrices of recurrent and linear layers become small;
biases, states and all other layers stay float32.

- `"int8"`: weights are 8-bit integers with a scale for each row of a matrix. Operands become 8-bit
  integers when they come, with a scale for each row of the batch; sums are of integers, and exact.
  A row that holds a NaN or an infinity gives NaN.
- `"bf16"`: weights are bfloat16, all else is float32. The outputs are, bit for bit, those of the
  model whose weights were rounded to bfloat16.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from . import _seqrs
from .errors import StateError
from .layers import checked_path
from .options import integer

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    from .layers import Array

__all__ = ["QuantizedSequential"]


class QuantizedSequential:
    """A model with weights of small numbers. It computes, and never changes.

    What `Sequential.quantize` gives, and `seqrs.load` where that was saved. Outputs and states are
    float32 arrays of the same form as the model's. Any number of threads may call one at once.
    """

    __slots__ = ("__weakref__", "_handle")

    _handle: _seqrs.QuantizedModel

    def __init__(self) -> None:
        raise TypeError(
            "QuantizedSequential: expected Sequential.quantize or seqrs.load to make it"
        )

    # What it computes.

    def __call__(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> tuple[Array, tuple[Any, ...]]:
        """Inference, as calling the model: the outputs and the final state."""
        return self._handle.call(x, state, lengths, mask)

    def step(
        self, x_t: npt.ArrayLike, state: Any = None, *, out: Any = None
    ) -> tuple[Array, tuple[Any, ...]]:
        """One step of every row, as `Sequential.step`.

        Raises:
            StateError: a layer needs the whole sequence; says which.
        """
        return self._handle.step(x_t, state, out)

    def warmup(self, batch_size: int = 1, steps: int = 1) -> None:
        """Runs zeros through the model, so that the first call that counts does not wait."""
        self._handle.warm_up(integer("batch_size", batch_size), integer("steps", steps))

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        """The zero state of `batch_size` rows."""
        state: tuple[Any, ...] = self._handle.initial_state(integer("batch_size", batch_size, 0))
        return state

    def quantization_report(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> dict[str, Any]:
        """How far the outputs are from those of the float32 model, on this input.

        Returns:
            `kind`; `output`, a dict with the largest error (`max`), the root of the mean of its
            square (`rms`) and that over the root mean square of the float32 model's outputs
            (`relative`); `layers`, one such dict for each layer with small weights, with its index
            (`layer`) and kind (`name`): its errors where it is given what the float32 model gives
            it; `bytes` and `float32_bytes` of all parameters.

        Raises:
            StateError: it came from a file or a pickle, so the float32 model is not known.
        """
        return self._handle.report(x, state, lengths, mask)

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """There is no training with small weights.

        Raises:
            StateError: always.
        """
        raise StateError(
            f"forward: expected a float32 or float64 model to train, got one of {self.kind} weights"
        )

    def backward(self, *_: Any, **__: Any) -> NoReturn:
        """There is no training with small weights.

        Raises:
            StateError: always.
        """
        raise StateError(
            f"backward: expected a float32 or float64 model to train, got one of {self.kind} "
            "weights"
        )

    # What it is made of.

    @property
    def kind(self) -> Literal["bf16", "int8"]:
        """ "bf16" or "int8": what the weights became."""
        return self._handle.kind

    @property
    def dtype(self) -> str:
        """ "float32": that of inputs, outputs and states."""
        return "float32"

    @property
    def device(self) -> str:
        """ "cpu"."""
        return "cpu"

    @property
    def batch_first(self) -> bool:
        """Whether x is (B, T, ...) rather than (T, B, ...)."""
        return self._handle.batch_first

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters of all layers have, scales not counted."""
        return self._handle.num_parameters

    @property
    def nbytes(self) -> int:
        """How many bytes they take, scales included."""
        return self._handle.parameter_bytes

    @property
    def output_size(self) -> int | None:
        """Features of y; None if no layer changes their number."""
        return self._handle.output_size

    @property
    def fingerprint(self) -> str:
        """A hash of structure and parameters, seeds left out: equal for models that are equal."""
        return self._handle.fingerprint

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, which `seqrs.load` gives back as such a model.

        The file is there whole or not at all, also after a crash.
        """
        self._handle.save(checked_path(path))

    # Values.

    def __repr__(self) -> str:
        layers = "".join(f"    {_brief(json.loads(layer))},\n" for layer in self._handle.layers)
        return f"QuantizedSequential({self.kind!r}, [\n{layers}])"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedSequential):
            return NotImplemented
        return self._handle.to_bytes() == other._handle.to_bytes()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __copy__(self) -> QuantizedSequential:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizedSequential:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_bytes, (self._handle.to_bytes(),)


def wrapped(handle: _seqrs.QuantizedModel) -> QuantizedSequential:
    """The model around a handle."""
    model = QuantizedSequential.__new__(QuantizedSequential)
    model._handle = handle
    return model


def _of_bytes(data: bytes) -> QuantizedSequential:
    return wrapped(_seqrs.QuantizedModel.from_bytes(data))


#: The names of the kinds in files, as their classes are called.
_NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "layer_norm": "LayerNorm"}


def _brief(options: dict[str, Any]) -> str:
    """The name of a layer, its sizes, and the flags that are set."""
    kind = options.pop("kind")
    options.pop("seed", None)
    name = _NAMES.get(kind, kind.title().replace("_", ""))
    words = [str(value) for value in options.values() if type(value) in (int, str)]
    words += [key for key, value in options.items() if value is True and key != "bias"]
    return f"{name}({', '.join(words)})"
