"""The operators around the recurrent ones, in NumPy.

`OPERATORS` is the list of what is carried: for each operator its inputs and attributes, and what
computes it. Whatever is not in it is refused when a model is loaded.

The functions that move entries about work on any kind of entry; `chain` uses them on shapes in
which some sizes are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..errors import DTypeError, ModelFileError, ShapeError
from ..options import shown
from .graph import DTYPES, Array, Node

__all__ = ["LARGEST_RESULT", "OPERATORS", "Call", "Folding", "Operator", "checked", "computed"]

#: Elements of what one node gives.
LARGEST_RESULT = 2**31


@dataclass(frozen=True)
class Call:
    """A node that is computed: what it is given, and what it may make."""

    node: Node
    opset: int
    inputs: list[Array | None]
    largest: int = LARGEST_RESULT

    def required(self, k: int) -> Array:
        """Input k, which may not be left out."""
        array = self.optional(k)
        if array is None:
            raise ShapeError(f"{self.node}: input {k}: expected one, got none")
        return array

    def optional(self, k: int) -> Array | None:
        """Input k, or None where it is left out."""
        return self.inputs[k] if k < len(self.inputs) else None

    def integers(self, k: int) -> list[Any]:
        """Input k as a list of integers."""
        array = self.required(k)
        if array.ndim > 1 or array.dtype.kind not in "iO":
            raise ShapeError(
                f"{self.node}: input {k}: expected integers in one row, "
                f"got {array.dtype} of shape {array.shape}"
            )
        return list(array.reshape(-1).tolist())

    def size(self, *shape: int) -> None:
        """Refuses a result of a shape that is too large."""
        if prod(shape) > self.largest:
            raise ShapeError(
                f"{self.node}: expected a result of at most {self.largest} numbers, got {shape}"
            )


@dataclass(frozen=True)
class Operator:
    """What is carried of an operator."""

    compute: Callable[[Call], Any]
    #: The fewest and the most inputs.
    inputs: tuple[int, int]
    attributes: tuple[str, ...] = ()
    #: The first version of the operator that is read.
    since: int = 1


def checked(node: Node, opset: int) -> Operator:
    """The operator of a node.

    Raises:
        ModelFileError: it, or an attribute of the node, is not carried.
    """
    operator = OPERATORS.get(node.operator)
    if operator is None:
        names = ", ".join(["RNN", "LSTM", "GRU", *sorted(OPERATORS)])
        raise ModelFileError(f"{node}: expected one of {names}, got another operator")
    if opset < operator.since:
        raise ModelFileError(f"{node}: expected opset {operator.since} or later, got {opset}")
    for name in node.attributes:
        if name not in operator.attributes:
            expected = " or ".join(operator.attributes) or "none"
            raise ModelFileError(f"{node}: attributes: expected {expected}, got {shown(name)}")
    fewest, most = operator.inputs
    count = len(node.inputs)
    if not fewest <= count <= most or not all(node.inputs[:fewest]):
        raise ModelFileError(f"{node}: expected {fewest} to {most} inputs, got {node.inputs}")
    if len(node.outputs) != 1 or not node.outputs[0]:
        raise ModelFileError(f"{node}: expected one output, got {node.outputs}")
    return operator


def computed(operator: Operator, call: Call) -> Array:
    """What a node gives.

    Raises:
        ShapeError: its inputs do not fit one another.
        DTypeError: they are of different kinds.
    """
    try:
        # NaN and infinity go their way, as everywhere.
        with np.errstate(all="ignore"):
            return np.asarray(operator.compute(call))
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        if isinstance(error, (ShapeError, DTypeError)):
            raise
        shapes = [None if each is None else each.shape for each in call.inputs]
        raise ShapeError(
            f"{call.node}: expected inputs that fit, got shapes {shapes}: {error}"
        ) from error


class Folding:
    """Computes what depends on constants alone, which may not take much more room than they do.

    A few bytes of a file can ask for gigabytes: ConstantOfShape, or an Add of a row and a column.
    """

    def __init__(self, constants: Iterable[Array]) -> None:
        arrays = list(constants)
        self.room = 2**26 + 4 * sum(array.nbytes for array in arrays)
        self.largest = max([2**20, *(array.size for array in arrays)])

    def __call__(self, operator: Operator, node: Node, opset: int, given: list[Any]) -> Array:
        """What a node gives.

        Raises:
            ModelFileError: all nodes together take too much room.
            ShapeError, DTypeError: the constants do not fit, or the result is too large.
        """
        array = computed(operator, Call(node, opset, given, self.largest))
        self.take(node, array.nbytes)
        return array

    def take(self, node: Node, size: int) -> None:
        """Room for what a node keeps, such as the weights of a layer.

        Raises:
            ModelFileError: there is none left.
        """
        self.room -= size
        if self.room < 0:
            raise ModelFileError(f"{node}: expected less that follows from constants, got too much")


# Moving entries about.


def _identity(call: Call) -> Array:
    return call.required(0)


def _transpose(call: Call) -> Array:
    return np.transpose(call.required(0), call.node.several("perm", int))


def _axes(call: Call, k: int = 1) -> tuple[int, ...] | None:
    """Axes, an attribute up to opset 12 and an input since."""
    given = call.node.several("axes", int)
    if given is None and call.optional(k) is not None:
        given = tuple(call.integers(k))
    return given


def _squeeze(call: Call) -> Array:
    # No axes are all of size 1, an empty list too.
    return np.squeeze(call.required(0), _axes(call) or None)


def _unsqueeze(call: Call) -> Array:
    axes = _axes(call)
    if axes is None:
        raise ShapeError(f"{call.node}: axes: expected some, got none")
    return np.expand_dims(call.required(0), axes)


def _reshape(call: Call) -> Array:
    x = call.required(0)
    shape = call.integers(1)
    if not call.node.integer("allowzero", 0):
        shape = [x.shape[k] if size == 0 else size for k, size in enumerate(shape)]
    return np.reshape(x, shape)


def _concat(call: Call) -> Array:
    arrays = [call.required(k) for k in range(len(call.inputs))]
    _alike(call, *arrays)
    return np.concatenate(arrays, call.node.integer("axis", 0))


def _gather(call: Call) -> Array:
    x, indices = call.required(0), call.required(1)
    axis = call.node.integer("axis", 0)
    rows = x.shape[axis]
    if indices.dtype.kind != "i":
        raise DTypeError(f"{call.node}: indices: expected integers, got {indices.dtype}")
    outside = (indices < -rows) | (indices >= rows)
    if outside.any():
        got = indices[outside].flat[0]
        raise ShapeError(f"{call.node}: indices: expected ones in {-rows}..{rows}, got {got}")
    call.size(indices.size, x.size // max(rows, 1))
    return np.take(x, indices, axis)


def _slice(call: Call) -> Array:
    x = call.required(0)
    if call.opset < 10:
        starts = list(call.node.several("starts", int) or ())
        ends = list(call.node.several("ends", int) or ())
        axes = call.node.several("axes", int)
        steps = None
    else:
        if len(call.inputs) < 3:
            raise ShapeError(
                f"{call.node}: expected starts and ends, got {len(call.inputs)} inputs"
            )
        starts, ends = call.integers(1), call.integers(2)
        axes = None if call.optional(3) is None else tuple(call.integers(3))
        steps = None if call.optional(4) is None else call.integers(4)
    if axes is None:
        axes = tuple(range(len(starts)))
    steps = [1] * len(starts) if steps is None else steps
    parts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Going backwards, an end before the first entry includes it.
        below = step < 0 and end < -x.shape[axis]
        parts[axis] = slice(start, None if below else end, step)
    return x[tuple(parts)]


def _cast(call: Call) -> Array:
    number = call.node.integer("to", 0)
    if number not in DTYPES:
        raise ShapeError(f"{call.node}: to: expected one of {list(DTYPES)}, got {number}")
    x = call.required(0)
    # A shape stays one.
    return x if x.dtype == object else x.astype(DTYPES[number])


def _shape(call: Call) -> Array:
    shape = call.required(0).shape
    start = call.node.integer("start", 0)
    return np.array(shape[start : call.node.integer("end", len(shape))], np.int64)


def _constant(call: Call) -> Array:
    node = call.node
    if len(node.attributes) != 1:
        raise ShapeError(f"{node}: expected one value, got {len(node.attributes)}")
    if "value_float" in node.attributes:
        return np.array(node.real("value_float", 0.0), np.float32)
    if "value_int" in node.attributes:
        return np.array(node.integer("value_int", 0), np.int64)
    if "value_floats" in node.attributes:
        return np.array(node.several("value_floats", float), np.float32)
    if "value_ints" in node.attributes:
        return np.array(node.several("value_ints", int), np.int64)
    return _tensor(call, "value")


def _tensor(call: Call, name: str) -> Array:
    value = call.node.attributes.get(name)
    if not isinstance(value, np.ndarray):
        raise ShapeError(f"{call.node}: {name}: expected a tensor, got {shown(value)}")
    return value


def _constant_of_shape(call: Call) -> Array:
    value = np.zeros(1, np.float32)
    if "value" in call.node.attributes:
        value = _tensor(call, "value")
    shape = call.integers(0)
    call.size(*shape)
    # Of one number in memory, however large the shape.
    return np.broadcast_to(value.reshape(()), shape)


def _expand(call: Call) -> Array:
    x = call.required(0)
    shape = np.broadcast_shapes(x.shape, tuple(call.integers(1)))
    call.size(*shape)
    return np.broadcast_to(x, shape)


def _range(call: Call) -> Array:
    start, limit, delta = (call.required(k) for k in range(3))
    _alike(call, start, limit, delta)
    if start.dtype.kind != "i" or delta == 0:
        raise ShapeError(
            f"{call.node}: expected integers and a step, got {start}, {limit}, {delta}"
        )
    call.size(max(0, int((limit - start) // delta)))
    return np.arange(int(start), int(limit), int(delta)).astype(start.dtype)


# Arithmetic.


def _alike(call: Call, *arrays: Array) -> None:
    """All of one element type, as the operators of ONNX ask for."""
    dtypes = {array.dtype for array in arrays if array.dtype != object}
    mixed = any(array.dtype == object for array in arrays)
    if len(dtypes) > 1 or (mixed and any(dtype.kind != "i" for dtype in dtypes)):
        names = sorted(map(str, dtypes))
        raise DTypeError(f"{call.node}: expected inputs of one element type, got {names}")


def _floats(call: Call, *arrays: Array) -> None:
    _alike(call, *arrays)
    if arrays[0].dtype.kind != "f":
        raise DTypeError(f"{call.node}: expected float32 or float64, got {arrays[0].dtype}")


def _both(compute: Callable[[Array, Array], Any], floats: bool = False) -> Callable[[Call], Array]:
    def of_both(call: Call) -> Array:
        a, b = call.required(0), call.required(1)
        (_floats if floats else _alike)(call, a, b)
        call.size(*np.broadcast_shapes(a.shape, b.shape))
        return np.asarray(compute(a, b))

    return of_both


def _matmul(call: Call) -> Array:
    a, b = call.required(0), call.required(1)
    _floats(call, a, b)
    outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    call.size(*outer, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))
    return np.asarray(a @ b)


def _gemm(call: Call) -> Array:
    a, b, c = call.required(0), call.required(1), call.optional(2)
    _floats(call, a, b, *([] if c is None else [c]))
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError(f"{call.node}: expected two matrices, got {a.shape} and {b.shape}")
    a = a.T if call.node.integer("transA", 0) else a
    b = b.T if call.node.integer("transB", 0) else b
    call.size(a.shape[0], b.shape[1])
    y = a @ b
    alpha, beta = call.node.real("alpha", 1.0), call.node.real("beta", 1.0)
    if alpha != 1.0:
        y = y * y.dtype.type(alpha)
    if c is not None:
        y = y + (c if beta == 1.0 else c * c.dtype.type(beta))
    return np.asarray(y)


def _of_floats(compute: Callable[[Array], Array]) -> Callable[[Call], Array]:
    def of_one(call: Call) -> Array:
        x = call.required(0)
        _floats(call, x)
        return compute(x)

    return of_one


def _sigmoid(x: Array) -> Array:
    # By tanh, which does not overflow.
    half = x.dtype.type(0.5)
    return np.asarray(half * (1 + np.tanh(half * x)))


def _softmax(call: Call) -> Array:
    x = call.required(0)
    _floats(call, x)
    if call.opset >= 13:
        return _exponentials(x, call.node.integer("axis", -1))
    # The axis and all after it as one.
    axis = call.node.integer("axis", 1)
    axis += x.ndim if axis < 0 else 0
    flat = x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))
    return _exponentials(flat, 1).reshape(x.shape)


def _exponentials(x: Array, axis: int) -> Array:
    if x.size == 0:
        return x
    powers = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


def _not(call: Call) -> Array:
    x = call.required(0)
    if x.dtype != np.bool_:
        raise DTypeError(f"{call.node}: expected bool, got {x.dtype}")
    return np.logical_not(x)


def _where(call: Call) -> Array:
    condition, a, b = (call.required(k) for k in range(3))
    _alike(call, a, b)
    if condition.dtype != np.bool_:
        raise DTypeError(f"{call.node}: condition: expected bool, got {condition.dtype}")
    call.size(*np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


def _reduced(compute: Callable[..., Any]) -> Callable[[Call], Array]:
    def of_axes(call: Call) -> Array:
        x = call.required(0)
        _floats(call, x)
        if call.node.integer("noop_with_empty_axes", 0):
            raise ShapeError(f"{call.node}: noop_with_empty_axes: expected 0, got 1")
        keep = call.node.integer("keepdims", 1)
        if keep not in (0, 1):
            raise ShapeError(f"{call.node}: keepdims: expected 0 or 1, got {keep}")
        # No axes are all of them, an empty list too.
        return np.asarray(compute(x, axis=_axes(call) or None, keepdims=bool(keep)))

    return of_axes


def _mean(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Any:
    # NaN for a mean of nothing, without a warning.
    sums = np.sum(x, axis=axis, keepdims=keepdims)
    return sums / x.dtype.type(x.size / sums.size if sums.size else 1)


def _largest(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Any:
    return np.max(x, axis=axis, keepdims=keepdims, initial=-np.inf)


def _layer_norm(call: Call) -> Array:
    x, scale, bias = call.required(0), call.required(1), call.optional(2)
    _floats(call, x, scale, *([] if bias is None else [bias]))
    axis = call.node.integer("axis", -1)
    if call.node.integer("stash_type", 1) != 1:
        raise ShapeError(f"{call.node}: stash_type: expected 1, got another")
    axes = tuple(range(axis % x.ndim, x.ndim))
    centred = x - _mean(x, axes, True)
    epsilon = x.dtype.type(call.node.real("epsilon", 1e-5))
    variance = _mean(np.square(centred), axes, True)
    y = centred / np.sqrt(variance + epsilon) * scale
    return np.asarray(y if bias is None else y + bias)


#: Everything but RNN, LSTM and GRU, which are in `recurrent`.
OPERATORS: dict[str, Operator] = {
    "Add": Operator(_both(np.add), (2, 2), since=7),
    "And": Operator(_both(np.logical_and), (2, 2), since=7),
    "Cast": Operator(_cast, (1, 1), ("to", "saturate", "round_mode"), since=6),
    "Concat": Operator(_concat, (1, 65_536), ("axis",)),
    "Constant": Operator(
        _constant, (0, 0), ("value", "value_float", "value_floats", "value_int", "value_ints")
    ),
    "ConstantOfShape": Operator(_constant_of_shape, (1, 1), ("value",)),
    "Div": Operator(_both(np.divide, floats=True), (2, 2), since=7),
    "Equal": Operator(_both(np.equal), (2, 2), since=7),
    "Expand": Operator(_expand, (2, 2)),
    "Gather": Operator(_gather, (2, 2), ("axis",)),
    "Gemm": Operator(_gemm, (2, 3), ("alpha", "beta", "transA", "transB"), since=7),
    "Identity": Operator(_identity, (1, 1)),
    "LayerNormalization": Operator(
        _layer_norm, (2, 3), ("axis", "epsilon", "stash_type"), since=17
    ),
    "Less": Operator(_both(np.less), (2, 2), since=7),
    "MatMul": Operator(_matmul, (2, 2)),
    "Max": Operator(_both(np.maximum), (2, 2), since=8),
    "Mul": Operator(_both(np.multiply), (2, 2), since=7),
    "Not": Operator(_not, (1, 1)),
    "Range": Operator(_range, (3, 3), since=11),
    "ReduceMax": Operator(_reduced(_largest), (1, 2), ("axes", "keepdims", "noop_with_empty_axes")),
    "ReduceMean": Operator(_reduced(_mean), (1, 2), ("axes", "keepdims", "noop_with_empty_axes")),
    "ReduceSum": Operator(_reduced(np.sum), (1, 2), ("axes", "keepdims", "noop_with_empty_axes")),
    "Relu": Operator(_of_floats(lambda x: np.maximum(x, x.dtype.type(0))), (1, 1)),
    "Reshape": Operator(_reshape, (2, 2), ("allowzero",), since=5),
    "Shape": Operator(_shape, (1, 1), ("start", "end")),
    "Sigmoid": Operator(_of_floats(_sigmoid), (1, 1)),
    "Slice": Operator(_slice, (1, 5), ("starts", "ends", "axes")),
    "Softmax": Operator(_softmax, (1, 1), ("axis",)),
    "Squeeze": Operator(_squeeze, (1, 2), ("axes",)),
    "Tanh": Operator(_of_floats(np.tanh), (1, 1)),
    "Transpose": Operator(_transpose, (1, 1), ("perm",)),
    "Unsqueeze": Operator(_unsqueeze, (1, 2), ("axes",)),
    "Where": Operator(_where, (3, 3), since=9),
}
