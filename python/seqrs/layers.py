"""The layers: what all of them share, and those that are not recurrent.

A layer is a handle on compiled weights with the signatures, checks and words around it. Arrays in
any real or integer dtype and any layout come in; new C-contiguous ones of the layer's dtype go out.

Letters: B rows, T steps, F features of a step.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, overload

from . import _seqrs
from .options import as_json, choice, dtype_name, flag, integer, real, text
from .options import seed as checked_seed

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self

    Array = npt.NDArray[np.floating[Any]]

__all__ = [
    "Activation",
    "Dropout",
    "Embedding",
    "Gradients",
    "IncompatibleKeys",
    "Last",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "MeanPool",
    "Tape",
]

Tape = _seqrs.Tape

T = TypeVar("T")


class Gradients(NamedTuple):
    """What `backward` gives: the gradients of the loss.

    `x` has the shape of x, and is None where x are ids. `state` is that of the initial state, in
    the form of the state. `params` has one array for each parameter, by its name.
    """

    x: Array | None
    state: Any
    params: dict[str, Array]


class IncompatibleKeys(NamedTuple):
    """The names that `load_state_dict(mapping, strict=False)` had no use for."""

    #: Parameters without an array in the mapping; they stay as they were.
    missing_keys: list[str]
    #: Names in the mapping of no parameter.
    unexpected_keys: list[str]


class Option(Generic[T]):
    """A read-only attribute: an option that the layer was built with."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, layer: Layer, owner: type) -> T: ...
    def __get__(self, layer: Layer | None, owner: type) -> Self | T:
        if layer is None:
            return self
        value: T = layer._options()[self.name]
        return value

    def __set__(self, layer: Layer, value: T) -> None:
        raise AttributeError(
            f"{type(layer).__name__}.{self.name}: options are fixed when a layer is built"
        )


class Layer:
    """What every layer can do.

    Layers pickle, copy and compare equal by value: options but for the seed, and parameters bit by
    bit. Any number of threads may call one layer at once.
    """

    #: The word for this layer in model files.
    kind: ClassVar[str]
    #: Options in the order of the constructor.
    shown: ClassVar[tuple[str, ...]] = ()

    __slots__ = ("__weakref__", "_batch_first", "_given", "_handle")

    _handle: _seqrs.Layer
    _batch_first: bool
    #: The parameters that a layer which is being built is to have, if they are known.
    _given: dict[str, Any] | None

    # Layers compare by value and can change, so they cannot be keys.
    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def _with_parameters(
        cls, mapping: Mapping[str, npt.ArrayLike], *arguments: Any, **options: Any
    ) -> Self:
        """A layer of these arguments and exactly these parameters.

        The same as building it and `load_state_dict`, but for what that throws away: parameters
        that are drawn, which takes a second for 1000 units.

        Raises:
            As building the layer, and as `load_state_dict`.
        """
        layer = cls.__new__(cls)
        layer._given = checked_mapping(mapping)
        layer.__init__(*arguments, **options)  # type: ignore[misc]
        return layer

    def _build(self, options: dict[str, Any], dtype: str) -> None:
        described, given = as_json(self.kind, options), getattr(self, "_given", None)
        if given is None:
            self._attach(_seqrs.Layer(described, dtype))
        else:
            self._given = None
            self._attach(_seqrs.Layer.with_parameters(described, dtype, given))

    def _attach(self, handle: _seqrs.Layer) -> None:
        self._handle = handle
        self._batch_first = bool(json.loads(handle.spec_json).get("batch_first", True))

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = json.loads(self._handle.spec_json)
        return options

    # What it computes.

    def __call__(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> tuple[Array, Any]:
        """Inference: the outputs and the final state; keeps nothing, applies no dropout.

        Args:
            x: (B, T, F), or (T, B, F) with `batch_first=False`; ids (B, T) for an Embedding.
            state: the initial state, None for zeros.
            lengths: B integers in 0..=T, the live steps of each row.
            mask: booleans or 0 and 1 of shape (B, T), (T, B) with `batch_first=False`: the live
                steps. At most one of `lengths` and `mask` is given; None means all.

        Returns:
            y, zero at steps that are not live, and the final state (None for a layer without).

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
    ) -> tuple[Array, Any, Tape]:
        """As calling the layer, and keeps on a tape what `backward` needs.

        Args:
            training: whether to apply dropout, drawn anew at each call from the layer's seed.

        Returns:
            y, the final state, and the tape, which may be used any number of times. It holds
            `tape.nbytes` bytes; for recurrent layers `seqrs.recurrent` has the formula.
        """
        return self._handle.forward(
            x, state, lengths, mask, self._batch_first, flag("training", training)
        )

    def backward(
        self, tape: Tape, dy: npt.ArrayLike | None = None, dstate: Any = None
    ) -> Gradients:
        """Back-propagation through time.

        Args:
            tape: what `forward` of this layer gave, its weights unchanged since.
            dy: the gradient of the loss at y; None for zero. Steps that are not live are ignored.
            dstate: that at the final state, in its form; None for zero. One of both is given.

        Raises:
            StateError: the tape is another layer's or from before the weights changed.
        """
        return Gradients(*self._handle.backward(checked_tape(tape), dy, dstate))

    def step(self, x_t: npt.ArrayLike, state: Any = None, *, out: Any = None) -> tuple[Array, Any]:
        """One step of every row: x_t (B, F) -> y_t (B, output_size) and the state after it.

        The same bits as the sequence of which it is a step.

        Args:
            x_t: (B, F); ids (B,) for an Embedding.
            state: the state before the step, None for zeros.
            out: None for new results, an array for y_t, or (y_t, state) with arrays for both, in
                the form in which they come back: C-contiguous NumPy arrays of the layer's dtype.
                They may be those of `state`, so that the state moves on in place. They are written
                to at the end, when nothing can fail any more.

        Returns:
            y_t and the state after the step (None for a layer without); those of `out`, if given.

        Raises:
            StateError: the layer also reads from the end, which is not known yet.
        """
        return self._handle.step(x_t, state, out)

    def warmup(self, batch_size: int = 1, steps: int = 1) -> None:
        """Runs zeros through the layer, so that the first call that counts does not wait.

        Weights are packed then, threads begun, and buffers there for calls of that size.

        Args:
            batch_size: rows, B.
            steps: steps, T.
        """
        self._handle.warm_up(integer("batch_size", batch_size), integer("steps", steps))

    def initial_state(self, batch_size: int) -> Any:
        """The zero state of `batch_size` rows; None for a layer without a state."""
        return self._handle.initial_state(integer("batch_size", batch_size, 0))

    # What it is made of.

    @property
    def dtype(self) -> str:
        """ "float32" or "float64".

        A layer without parameters says "float32", and computes float32 and float16 in float32 and
        everything else in float64.
        """
        return self._handle.dtype

    @property
    def device(self) -> str:
        """ "cpu", or "gpu:0" and so on: where it computes."""
        return self._handle.device

    def to(self, device: str) -> Self:
        """Takes the layer to a device, where it computes from now on; gives the layer.

        Args:
            device: "cpu", "gpu" (adapter 0), or "gpu:1" and so on (`seqrs.gpu.adapters`).

        Raises:
            NoDeviceError: there is no such adapter, or it is made of software.
            DTypeError: the layer is float64; a GPU computes in float32.
            ValueError: no device has that name.
            StateError: the process was forked from one that had opened the GPU.
        """
        self._handle.to(text("device", device))
        return self

    @property
    def num_parameters(self) -> int:
        """How many numbers its parameters have."""
        return self._handle.num_parameters

    @property
    def output_size(self) -> int | None:
        """Features of a step of y; None for a layer that leaves their number as it is."""
        return self._handle.output_size

    @property
    def fingerprint(self) -> str:
        """A hash of structure and parameters, seed left out: equal for layers that are equal."""
        return self._handle.fingerprint

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters, with PyTorch's names, shapes and order."""
        return self._handle.state_dict()

    def load_state_dict(
        self, mapping: Mapping[str, npt.ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Takes over parameters by name; either all of them or, if one does not fit, none.

        Args:
            mapping: arrays by name, such as a `state_dict()`, also one of PyTorch.
            strict: whether the names must be exactly this layer's. If not, those of other names
                are left out, and parameters without an array stay.

        Returns:
            Both kinds of names, none of either when strict.

        Raises:
            ShapeError: a name or shape does not fit; says which.
            DTypeError: an array does not hold real numbers.
        """
        names = self._handle.load_state_dict(checked_mapping(mapping), flag("strict", strict))
        return IncompatibleKeys(*names)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, which `seqrs.load` gives back as a layer.

        The file is there whole or not at all, also after a crash.
        """
        self._handle.save(checked_path(path))

    # Values.

    def __repr__(self) -> str:
        options = self._options()
        options["dtype"] = self.dtype
        words = [f"{name}={options[name]!r}" for name in self.shown]
        return f"{type(self).__name__}({', '.join(words)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layer):
            return NotImplemented
        return type(self) is type(other) and self._handle.equals(other._handle)

    def __copy__(self) -> Self:
        layer = _wrap(type(self), self._handle.clone())
        take_attributes(layer, own_attributes(self))
        return layer

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        layer = _wrap(type(self), self._handle.clone())
        # Before the attributes, which may lead back to the layer.
        memo[id(self)] = layer
        take_attributes(layer, copy.deepcopy(own_attributes(self), memo))
        return layer

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(_from_bytes, (type(self), self._handle.to_bytes()), self)


LayerT = TypeVar("LayerT", bound=Layer)


def _wrap(cls: type[LayerT], handle: _seqrs.Layer) -> LayerT:
    layer = cls.__new__(cls)
    layer._attach(handle)
    return layer


def _from_bytes(cls: type[LayerT], data: bytes) -> LayerT:
    return _wrap(cls, _seqrs.Layer.from_bytes(data))


def own_attributes(value: object) -> dict[str, Any] | None:
    """What a user's subclass of a layer or model has added to it; None if nothing."""
    # Ours have slots alone; a subclass that says nothing of slots has a dictionary.
    return getattr(value, "__dict__", None) or None


def reduced(
    build: Callable[..., Any], arguments: tuple[Any, ...], value: object
) -> tuple[Any, ...]:
    """How to pickle `value`: what builds it, and what a subclass has added to it."""
    attributes = own_attributes(value)
    return (build, arguments) if attributes is None else (build, arguments, attributes)


def take_attributes(value: object, attributes: dict[str, Any] | None) -> None:
    """Gives a copy what `own_attributes` found."""
    if attributes is not None:
        vars(value).update(attributes)


def wrapped(handle: _seqrs.Layer) -> Layer:
    """The layer around a handle, of the class that its kind names."""
    kind = json.loads(handle.spec_json)["kind"]
    return _wrap(_classes()[kind], handle)


def _classes() -> dict[str, type[Layer]]:
    found: dict[str, type[Layer]] = {}
    todo: list[type[Layer]] = [Layer]
    while todo:
        cls = todo.pop()
        # A user's subclass inherits its parent's word, and is not what a file means by it.
        if "kind" in vars(cls):
            found.setdefault(cls.kind, cls)
        todo.extend(cls.__subclasses__())
    return found


def checked_mapping(mapping: object) -> dict[str, Any]:
    """The arrays by name.

    Raises:
        TypeError: it is no mapping, or a name is no string.
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping: expected a mapping from names to arrays, got {type(mapping)!r}")
    for name in mapping:
        if not isinstance(name, str):
            raise TypeError(f"mapping: expected names that are strings, got {name!r}")
    return dict(mapping)


def checked_tape(tape: object) -> Tape:
    """A tape.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected what forward gives, got {tape!r}")
    return tape


def checked_path(path: str | os.PathLike[str]) -> str:
    """A path as a string.

    Raises:
        TypeError: it is no path.
    """
    import os

    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path: expected a string or os.PathLike, got {path!r}")
    return name


class Embedding(Layer):
    """Looks ids up in a table: integers (B, T) -> (B, T, embedding_dim).

    The table `weight` (num_embeddings, embedding_dim) starts as N(0, 1); the row `padding_idx` is
    zero and gets no gradient.

    Raises:
        ShapeError: an id of a live step is not in 0..num_embeddings.
    """

    kind = "embedding"
    shown = ("num_embeddings", "embedding_dim", "padding_idx", "dtype", "seed")
    __slots__ = ()

    num_embeddings = Option[int]("Rows of the table.")
    embedding_dim = Option[int]("Features of a row.")
    padding_idx = Option["int | None"]("The id whose row is zero, or None.")
    seed = Option[int]("The seed of the initial table.")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
    ) -> None:
        rows = integer("num_embeddings", num_embeddings)
        self._build(
            {
                "num_embeddings": rows,
                "embedding_dim": integer("embedding_dim", embedding_dim),
                "padding_idx": None
                if padding_idx is None
                else integer("padding_idx", padding_idx, 0, rows - 1),
                "seed": checked_seed(seed),
            },
            dtype_name(dtype),
        )


class Linear(Layer):
    """y = x W^T + b on the last axis: (B, T, in_features) -> (B, T, out_features).

    `weight` (out, in) starts Glorot uniform (Glorot & Bengio 2010), `bias` (out) as zero. Also
    takes x (B, in_features).
    """

    kind = "linear"
    shown = ("in_features", "out_features", "bias", "dtype", "seed")
    __slots__ = ()

    in_features = Option[int]("Features of x.")
    out_features = Option[int]("Features of y.")
    bias = Option[bool]("Whether b is added.")
    seed = Option[int]("The seed of the initial weights.")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
    ) -> None:
        self._build(
            {
                "in_features": integer("in_features", in_features),
                "out_features": integer("out_features", out_features),
                "bias": flag("bias", bias),
                "seed": checked_seed(seed),
            },
            dtype_name(dtype),
        )


class LayerNorm(Layer):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis (Ba et al. 2016).

    `weight` (size) starts as 1, `bias` (size) as 0. Also takes x (B, size).
    """

    kind = "layer_norm"
    shown = ("size", "eps", "dtype")
    __slots__ = ()

    size = Option[int]("Features of x and y.")
    eps = Option[float]("Added to the variance.")

    def __init__(
        self, size: int, *, eps: float = 1e-5, dtype: npt.DTypeLike = "float32", seed: int = 0
    ) -> None:
        checked_seed(seed)  # nothing is drawn; taken as by every layer with parameters
        self._build(
            {"size": integer("size", size), "eps": real("eps", eps, above=0.0)}, dtype_name(dtype)
        )


class Dropout(Layer):
    """In training sets each feature to zero with probability p, and scales the rest by 1/(1-p).

    At inference, and when a layer is called, it does nothing (Srivastava et al. 2014).
    """

    kind = "dropout"
    shown = ("p", "seed")
    __slots__ = ()

    p = Option[float]("The probability, in [0, 1).")
    seed = Option[int]("The seed of its draws when it is used alone.")

    def __init__(self, p: float = 0.5, *, seed: int = 0) -> None:
        self._build({"p": real("p", p, 0.0, 1.0), "seed": checked_seed(seed)}, "float32")


class Last(Layer):
    """The output of each row's last live step: (B, T, F) -> (B, F).

    Over a bidirectional layer: the last live forward output and the first live backward output,
    concatenated, which are where each direction has read the whole row. Zeros for a row with no
    live step.
    """

    kind = "last"
    __slots__ = ()

    def __init__(self) -> None:
        self._build({}, "float32")


class MeanPool(Layer):
    """The mean over the live steps of each row: (B, T, F) -> (B, F); zeros where there is none."""

    kind = "mean_pool"
    __slots__ = ()

    def __init__(self) -> None:
        self._build({}, "float32")


class MaxPool(Layer):
    """The maximum over the live steps of each row: (B, T, F) -> (B, F); zeros where there is none.

    The gradient goes to the first step that has it.
    """

    kind = "max_pool"
    __slots__ = ()

    def __init__(self) -> None:
        self._build({}, "float32")


class Activation(Layer):
    """A function of each feature ("tanh", "relu", "sigmoid"), or of the last axis ("softmax")."""

    kind = "activation"
    shown = ("function",)
    __slots__ = ()

    function = Option[str]("Its name.")

    def __init__(self, function: str) -> None:
        allowed = ("tanh", "relu", "sigmoid", "softmax")
        self._build({"function": choice("function", function, allowed)}, "float32")
