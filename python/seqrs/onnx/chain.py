"""A graph that is a plain chain, as the layers of which it is one.

The graph is gone through node by node, as when it is computed, but what goes along is not numbers:
it is what is known of them. `Stream` is what goes from layer to layer, whatever the order of its
axes; constants are themselves; a shape is an array in which a size that is not known is a `Size`.
A node that moves constants or sizes about is computed by `operators`. A node that a layer stands
for, such as a product with constants, adds that layer. Whatever else a node does with a stream
makes the graph no chain, and `NotAChainError` says which node and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..layers import Activation, Embedding, Last, Layer, LayerNorm, Linear, MaxPool, MeanPool
from ..models import Sequential
from .graph import Array, Graph, Node
from .operators import Folding, checked
from .recurrent import COMPUTED, RecurrentNode, Weights

__all__ = ["Chain", "End", "NotAChainError", "Start", "Stream", "chain", "lengths_and_states"]


class NotAChainError(Exception):
    """The graph is no chain of layers; says why."""


@dataclass(frozen=True)
class Size:
    """The size of an axis that is not known."""

    axis: str


@dataclass(frozen=True)
class Stream:
    """What goes from layer to layer."""

    #: "0" and "1" for the first two axes of the input, one of them the steps and one the rows;
    #: "D" for directions, "F" for features; "last" and "first" for one step alone, and "0*1" for
    #: the first two in one.
    axes: tuple[str, ...]
    #: Directions, if "D" is among the axes, and features; None for ids.
    directions: int
    features: int | None
    #: How often the layers had been added to when it was made.
    stage: int
    #: Whether features are those of two directions.
    both_ways: bool = False
    #: What stands at steps that are not live: "zero", "-inf"; or "not last", "not first" where all
    #: steps but one are zeros.
    filled: str = ""
    #: What was made of its steps: "sum" or "max"; it is a layer with what comes next.
    pooled: str = ""
    #: Where only half of its features are left: "forward" or "backward".
    half: str = ""


@dataclass(frozen=True)
class Ids:
    """Ids on their way to a table in which those below 0 count from the end.

    They are "negative", where that is so, or "not negative"; "counted" from the end; and of these
    numbers "the negative" or "the others", zero elsewhere.
    """

    what: str
    stream: Stream


@dataclass(frozen=True)
class Zeros:
    """Zeros of a shape that is of no concern."""


@dataclass(frozen=True)
class State:
    """Some rows of a graph's input that is an initial state."""

    name: str
    start: int
    stop: int
    #: Units of a row, None if the graph does not say how many.
    hidden: int | None


@dataclass(frozen=True)
class End:
    """Final states: for each row the layer and the direction of it."""

    letter: str
    rows: tuple[tuple[int, int], ...]
    #: "D", "B" and "H" in their order; no "D" for one row alone.
    axes: tuple[str, ...] = ("D", "B", "H")


@dataclass(frozen=True)
class Numbers:
    """Numbers that follow from the lengths, or the steps themselves.

    They are "steps", "lengths", "lengths - 1", "zeros", or "counts", which are lengths of at least
    1; or booleans: "live", "last", "first", "first live", and "some" for rows with a live step.
    """

    what: str
    #: "T", "B", or "1" for an axis of size 1.
    axes: tuple[str, ...]


@dataclass
class _Recurrent:
    node: RecurrentNode
    weights: Weights


@dataclass
class _Linear:
    weight: Array
    bias: Array | None = None


#: In a list of layers.
Item = Layer | _Recurrent | _Linear


@dataclass(frozen=True)
class Start:
    """An initial state: rows of an input of the graph, and the units of each."""

    name: str
    rows: slice
    hidden: int


@dataclass(frozen=True)
class Chain:
    """The layers of which a graph is a chain, and what its inputs and outputs are to them."""

    #: The layer itself if there is one.
    model: Sequential | Layer
    batch_first: bool
    #: The inputs that are x and the lengths; empty if there are no lengths.
    x: str
    lengths: str
    #: For each recurrent node, in their order, where "h" and "c" start if not from zeros.
    starts: tuple[dict[str, Start], ...]
    #: For each output what it is: y, or final states, whose rows name recurrent nodes by the order.
    outputs: tuple[Stream | End, ...]


def chain(graph: Graph) -> Chain:
    """The layers of which a graph is a chain.

    Raises:
        NotAChainError: it is none; says why.
        ModelFileError: a node is not carried; says which.
        ShapeError, DTypeError: constants do not fit a node.
    """
    return _Walk(graph).found()


def lengths_and_states(graph: Graph) -> tuple[set[str], set[str]]:
    """The names of what lengths and initial states are made of.

    They are told by the inputs of the recurrent nodes that they reach.
    """
    source = {name: node for node in graph.nodes for name in node.outputs}

    def origin(name: str) -> str:
        while name in source and source[name].operator in _PASSING:
            name = source[name].input(0)
        return name

    lengths, states = set(), set()
    for node in graph.nodes:
        if node.operator in COMPUTED:
            lengths.add(origin(node.input(4)))
            states |= {origin(node.input(5)), origin(node.input(6))}
    return lengths, states


class _Walk:
    """The graph, gone through."""

    def __init__(self, graph: Graph) -> None:
        self.opset = graph.opset
        self.folding = Folding(graph.constants.values())
        self.items: list[Item] = []
        #: Goes up whenever a layer is added or changed, so that what branched off before is known.
        self.stage = 0
        #: Which axis of the input has the steps, once a recurrent node has said so.
        self.time = ""
        self.has_lengths: bool | None = None
        #: For each input that is an initial state, how many of its rows are in use.
        self.taken: dict[str, int] = {}
        #: For each recurrent node where it starts.
        self.starts: list[dict[str, Start]] = []
        self.values: dict[str, Any] = dict(graph.constants)
        self._inputs(graph)
        for node in graph.nodes:
            given = [self.values[name] if name else None for name in node.inputs]
            if node.operator in COMPUTED:
                found = self._recurrent(node, given)
            else:
                found = (self._other(node, given),)
            for name, value in zip(node.outputs, found, strict=False):
                if name:
                    self.values[name] = value
        self.outputs = self._outputs(graph)

    # What goes in.

    def _inputs(self, graph: Graph) -> None:
        """What is known of each input."""
        lengths, states = lengths_and_states(graph)
        names = {value.name for value in graph.inputs}
        streams = [v for v in graph.inputs if v.name not in lengths | states]
        if len(streams) != 1 or len(lengths & names) > 1:
            raise NotAChainError(
                f"it has {len(streams)} inputs besides lengths and states, not one"
            )
        x = streams[0]
        features: int | None = None
        rank = 2
        if x.dtype.kind == "f":
            rank = 3
            last = x.shape[-1] if x.shape else None
            features = last if isinstance(last, int) else None
        if x.shape is None or len(x.shape) != rank or x.dtype == np.bool_:
            raise NotAChainError(
                f"input {x.name!r} is not (batch, time, features) or ids (batch, time)"
            )
        self.sizes: dict[str, Any] = {
            str(k): size if isinstance(size, int) else Size(str(k))
            for k, size in enumerate(x.shape[:2])
        }
        self.x, self.lengths = x.name, next(iter(lengths & names), "")
        axes = ("0", "1", "F")[:rank]
        self.values[x.name] = Stream(axes, 1, features, 0)
        for value in graph.inputs:
            if value.name in lengths:
                self.values[value.name] = Numbers("lengths", ("B",))
            elif value.name in states:
                rows = value.shape[0] if value.shape and len(value.shape) == 3 else None
                if not isinstance(rows, int):
                    raise NotAChainError(f"input {value.name!r} has no fixed number of states")
                hidden = value.shape[2] if value.shape else None
                known = hidden if isinstance(hidden, int) else None
                self.values[value.name] = State(value.name, 0, rows, known)

    # Recurrent nodes.

    def _recurrent(self, node: Node, given: list[Any]) -> tuple[Any, ...]:
        recurrent = RecurrentNode(node)
        given = given + [None] * (8 - len(given))
        x = self._latest(node, given[0])
        W, R, B, P = *given[1:4], given[7]
        if not all(each is None or isinstance(each, np.ndarray) for each in (W, R, B, P)):
            raise NotAChainError(f"{node} has weights that are not constant")
        weights = recurrent.weights(W, R, B, P)
        self.folding.take(node, weights.nbytes)
        if recurrent.direction == "reverse":
            raise NotAChainError(f"{node} reads backwards alone")
        if len(set(recurrent.functions)) > 1:
            raise NotAChainError(f"{node} has directions with different functions")
        self._lengths(node, given[4])
        time = x.axes[1 if recurrent.layout else 0]
        if len(x.axes) != 3 or x.axes[2] != "F" or x.half or self.time not in ("", time):
            raise NotAChainError(f"{node} reads something else than steps, rows and features")
        self.time = time
        rows = x.axes[0 if recurrent.layout else 1]
        if x.features not in (None, weights.inputs):
            raise ShapeError(f"{node}: expected X of {weights.inputs} features, got {x.features}")
        starts = {
            letter: self._start(node, recurrent, state, weights.hidden)
            for letter, state in zip("hc", given[5:7], strict=True)
        }
        self.starts.append({letter: start for letter, start in starts.items() if start})
        self._append(_Recurrent(recurrent, weights))
        axes = (rows, time, "D", "F") if recurrent.layout else (time, "D", rows, "F")
        y = Stream(
            axes,
            recurrent.directions,
            weights.hidden,
            self.stage,
            both_ways=recurrent.directions == 2,
            filled="zero",
        )
        place = len(self.items) - 1
        ends = tuple((place, d) for d in range(recurrent.directions))
        order = ("B", "D", "H") if recurrent.layout else ("D", "B", "H")
        return (y, *(End(letter, ends, order) for letter in "hc"))

    def _lengths(self, node: Node, lengths: Any) -> None:
        given = lengths is not None
        if given and not _are(lengths, "lengths", "B"):
            raise NotAChainError(f"{node} has lengths that are no input")
        if self.has_lengths not in (None, given):
            raise NotAChainError(f"{node} is one of several nodes of which some have lengths")
        self.has_lengths = given

    def _start(self, node: Node, recurrent: RecurrentNode, state: Any, hidden: int) -> Start | None:
        """An initial state may be zeros, which are None, or the next rows of an input."""
        if state is None or isinstance(state, Zeros):
            return None
        if isinstance(state, np.ndarray) and not state.any() and state.ndim == 3:
            order = (1, 0, 2) if recurrent.layout else (0, 1, 2)
            rows, _, units = (state.shape[axis] for axis in order)
            if (rows, units) == (recurrent.directions, hidden):
                return None
        if isinstance(state, State) and not recurrent.layout:
            if state.hidden not in (None, hidden):
                raise ShapeError(f"{node}: expected states of {hidden}, got {state.hidden}")
            place = (state.start, state.stop - state.start)
            if place == (self.taken.get(state.name, 0), recurrent.directions):
                self.taken[state.name] = state.stop
                return Start(state.name, slice(state.start, state.stop), hidden)
        raise NotAChainError(f"{node} starts from something else than zeros or an input of its own")

    # All other nodes.

    def _other(self, node: Node, given: list[Any]) -> Any:
        operator = checked(node, self.opset)
        plain = [each is None or isinstance(each, np.ndarray) for each in given]
        if all(plain):
            sizes = any(each is not None and each.dtype == object for each in given)
            if not sizes or node.operator in _OF_SIZES:
                try:
                    return self.folding(operator, node, self.opset, given)
                except (ShapeError, DTypeError):
                    if not sizes:
                        raise
                    raise NotAChainError(f"{node} computes with sizes that are not known") from None
        read = _READERS.get(node.operator)
        try:
            found = None if read is None else read(self, node, given)
        except (IndexError, TypeError, ValueError) as error:
            if isinstance(error, (ShapeError, DTypeError)):
                raise
            raise NotAChainError(f"{node} has an axis or a shape that does not fit") from None
        if found is None:
            raise NotAChainError(f"{node} is no layer, nor does it move axes alone")
        return found

    def _latest(self, node: Node, value: Any) -> Stream:
        """A stream that has gone through all layers so far."""
        if isinstance(value, End):
            value = self._ended(node, value)
        if not isinstance(value, Stream):
            raise NotAChainError(f"{node} does not read what the layer before it gives")
        if value.stage != self.stage:
            raise NotAChainError(f"{node} reads what another layer has read too")
        if value.pooled or value.filled not in ("", "zero"):
            raise NotAChainError(
                f"{node} reads a sum or maximum over something else than live steps"
            )
        return value

    def _ended(self, node: Node, end: End) -> Stream:
        """The final h of the last layer is its last live output."""
        last = len(self.items) - 1
        item = self.items[-1] if self.items else None
        if not isinstance(item, _Recurrent) or end.letter != "h" or end.axes != ("B", "H"):
            raise NotAChainError(f"{node} reads the final state of an earlier layer")
        if end.rows != tuple((last, d) for d in range(item.node.directions)):
            raise NotAChainError(f"{node} reads some final states and not others")
        return self._pool(Last(), item.node.directions * item.weights.hidden)

    def _append(self, item: Item) -> None:
        self.items.append(item)
        self.stage += 1

    def _pool(self, layer: Layer, features: int | None) -> Stream:
        self._append(layer)
        rows = "1" if self.time == "0" else "0"
        return Stream((rows, "F"), 1, features, self.stage)

    def _through(self, node: Node, x: Stream, item: Item, features: int | None) -> Stream:
        """The stream after a layer of single steps."""
        if x.axes[-1] != "F" or "D" in x.axes or x.half:
            raise NotAChainError(f"{node} reads something else than features on the last axis")
        self._append(item)
        keeps = isinstance(item, _Linear) or (
            isinstance(item, Activation) and item.function in ("tanh", "relu")
        )
        return replace(
            x,
            features=features,
            stage=self.stage,
            both_ways=x.both_ways and not isinstance(item, (_Linear, Embedding)),
            filled=x.filled if keeps else "",
        )

    # What comes out.

    def _outputs(self, graph: Graph) -> tuple[Stream | End, ...]:
        found = [self.values[output.name] for output in graph.outputs]
        streams = [value for value in found if isinstance(value, Stream)]
        ends = [value for value in found if isinstance(value, End)]
        if len(streams) == 0 and len(ends) == 1 and len(ends[0].axes) == 2:
            found = streams = [self._ended(graph.nodes[-1], ends.pop())]
        if len(streams) != 1 or len(streams) + len(ends) != len(found):
            raise NotAChainError(f"it has {len(found)} outputs, and not one besides final states")
        last = self._latest(graph.nodes[-1], streams[0])
        if not self.time:
            raise NotAChainError("it has no recurrent node")
        order = tuple(axis for axis in last.axes if axis != "D")
        rows = "1" if self.time == "0" else "0"
        if last.half or order not in (("0", "1", "F"), (rows, "F")):
            raise NotAChainError("its output has its axes in another order than its input")
        places = [k for k, item in enumerate(self.items) if isinstance(item, _Recurrent)]
        return tuple(
            replace(each, rows=tuple((places.index(place), d) for place, d in each.rows))
            if isinstance(each, End)
            else each
            for each in found
        )

    def found(self) -> Chain:
        """What has come out."""
        batch_first = self.time == "1"
        return Chain(
            self._model(batch_first),
            batch_first,
            self.x,
            self.lengths,
            tuple(self.starts),
            self.outputs,
        )

    def _model(self, batch_first: bool) -> Sequential | Layer:
        """The layers, those of equal recurrent nodes as one."""
        layers: list[Layer] = []
        k = 0
        while k < len(self.items):
            item = self.items[k]
            k += 1
            if isinstance(item, _Recurrent):
                stack = [item.weights]
                while k < len(self.items) and _stacks(item, self.items[k]):
                    above = self.items[k]
                    assert isinstance(above, _Recurrent)
                    stack.append(above.weights)
                    k += 1
                layers.append(item.node.layer(stack, batch_first))
            elif isinstance(item, _Linear):
                layers.append(_linear(item))
            else:
                layers.append(item)
        return layers[0] if len(layers) == 1 else Sequential(layers)


def _stacks(below: _Recurrent, above: Item) -> bool:
    """Whether the second is one more layer of the first."""
    if not isinstance(above, _Recurrent):
        return False
    alike = all(
        getattr(below.node, name) == getattr(above.node, name)
        for name in ("cell", "directions", "reset_after", "functions", "clip")
    )
    a, b = below.weights, above.weights
    return (
        alike
        and (a.hidden, a.dtype, a.bias, a.peepholes) == (b.hidden, b.dtype, b.bias, b.peepholes)
        and b.inputs == a.hidden * below.node.directions
    )


def _linear(item: _Linear) -> Linear:
    inputs, outputs = item.weight.shape
    arrays = {"weight": item.weight.T}
    if item.bias is not None:
        arrays["bias"] = item.bias
    return Linear._with_parameters(
        arrays, inputs, outputs, item.bias is not None, dtype=item.weight.dtype
    )


# What is made of each operator. Each gives None for what is no chain.

Reader = Callable[[_Walk, Node, list[Any]], Any]

#: Operators that move entries of their first input about, and of zeros leave zeros.
_PASSING = {
    "Identity",
    "Cast",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Gather",
    "Transpose",
    "Reshape",
    "Expand",
}

#: Operators that are computed of sizes as of numbers, some of them not known.
_OF_SIZES = _PASSING - {"Expand"} | {"Concat", "Mul"}


def _numbers(array: Any) -> list[int] | None:
    """A constant as a list of integers."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "i" and array.ndim < 2:
        return [int(each) for each in array.reshape(-1)]
    return None


def _axes_of(chain: _Walk, node: Node, given: list[Any], rank: int) -> tuple[int, ...] | None:
    """Axes, an attribute up to opset 12 and an input since."""
    axes = node.several("axes", int)
    if axes is None and len(given) > 1:
        found = _numbers(given[1])
        axes = None if found is None else tuple(found)
    if axes is None or not all(-rank <= axis < rank for axis in axes):
        return None
    return tuple(axis % rank for axis in axes)


def _are(value: Any, what: str, *axes: str) -> bool:
    # An array is never equal to anything, it is an array of answers.
    return isinstance(value, Numbers) and value == Numbers(what, axes)


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, np.ndarray) and value.size == 1 and bool(value == number)


def _identity(chain: _Walk, node: Node, given: list[Any]) -> Any:
    return given[0]


def _cast(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    if isinstance(value, Stream) and value.features is not None:
        return None  # to another precision, maybe
    return value


def _transpose(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    if isinstance(value, Zeros):
        return value
    if not isinstance(value, (Stream, End)):
        return None
    order = node.several("perm", int) or tuple(range(len(value.axes)))[::-1]
    if sorted(order) != list(range(len(value.axes))):
        return None
    return replace(value, axes=tuple(value.axes[k] for k in order))


def _squeeze(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    if isinstance(value, Zeros):
        return value
    if not isinstance(value, (Stream, End)):
        return None
    axes = _axes_of(chain, node, given, len(value.axes))
    names = None if axes is None else [value.axes[k] for k in axes]
    if isinstance(value, Stream) and names in (["last"], ["first"]):
        return _one_step(chain, node, value, names[0])
    one = value.directions == 1 if isinstance(value, Stream) else len(value.rows) == 1
    if names != ["D"] or not one:
        return None
    return replace(value, axes=tuple(axis for axis in value.axes if axis != "D"))


def _one_step(chain: _Walk, node: Node, value: Stream, which: str) -> Any:
    """What is left of the steps is one of them, all steps being live."""
    if value.half:
        # As a sum of all steps of which all but this one are zeros.
        axes = tuple(axis for axis in value.axes if axis != which)
        return replace(value, axes=axes, filled=f"not {which}", pooled="sum")
    x = chain._latest(node, value)
    # The last step is the last live one where there are no lengths, and read forwards.
    if which == "last" and not (chain.has_lengths or x.both_ways) and len(x.axes) == 3:
        return chain._pool(Last(), x.features)
    return None


def _unsqueeze(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    if isinstance(value, Zeros):
        return value
    if not isinstance(value, Numbers):
        return None
    axes = _axes_of(chain, node, given, len(value.axes) + 1)
    if axes is None or len(axes) != 1:
        return None
    return replace(value, axes=(*value.axes[: axes[0]], "1", *value.axes[axes[0] :]))


def _reshape(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value, shape = given
    if isinstance(value, Zeros):
        return value
    if not isinstance(shape, np.ndarray) or shape.ndim != 1:
        return None
    wanted = list(shape)
    if isinstance(value, End):
        item = chain.items[value.rows[0][0]]
        assert isinstance(item, _Recurrent)
        width = len(value.rows) * item.weights.hidden
        if value.axes == ("B", "D", "H") and wanted in ([0, width], [0, -1]):
            return replace(value, axes=("B", "H"))
        return None
    if not isinstance(value, Stream) or value.features is None or value.half:
        return None
    sizes = chain.sizes | {"D": value.directions, "F": value.features}
    if value.axes[0] == "0*1":
        whole = ("0", "1", "F")
        fits = wanted in ([sizes[axis] for axis in whole], [sizes["0"], sizes["1"], -1])
        return replace(value, axes=whole) if fits else None
    if value.axes == ("0", "1", "F") and wanted in ([-1, value.features],):
        return replace(value, axes=("0*1", "F"))
    if not sizes.keys() >= set(value.axes):
        return None
    before = [sizes[axis] for axis in value.axes]
    axes, after = list(value.axes), list(before)
    if "D" in axes:
        # Beside the features it becomes part of them; elsewhere it goes if it is 1.
        at = axes.index("D")
        if value.directions > 1 and axes[at + 1] != "F":
            return None
        del axes[at], after[at]
        after[axes.index("F")] = value.directions * value.features
    if len(wanted) != len(after) or wanted.count(-1) > 1:
        return None
    copied = not node.integer("allowzero", 0)
    for k, (want, have) in enumerate(zip(wanted, after, strict=True)):
        if want == 0 and copied and k < len(before):
            want = before[k]
        if want not in (-1, have):
            return None
    features = value.directions * value.features if "D" in value.axes else value.features
    return replace(value, axes=tuple(axes), directions=1, features=features)


def _shape(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    if not isinstance(value, Stream) or value.half:
        return None
    features = Size("F") if value.features is None else value.features
    sizes = chain.sizes | {"D": value.directions, "F": features}
    if not sizes.keys() >= set(value.axes):
        return None
    found = [sizes[axis] for axis in value.axes]
    found = found[node.integer("start", 0) : node.integer("end", len(found))]
    array = np.empty(len(found), object)
    array[:] = found
    known = all(isinstance(size, int) for size in found)
    return array.astype(np.int64) if known else array


def _of_shape(chain: _Walk, node: Node, given: list[Any]) -> Any:
    """ConstantOfShape, of a shape that is not known."""
    value = node.attributes.get("value")
    return Zeros() if value is None or not np.any(value) else None


def _expand(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    zeros = isinstance(value, np.ndarray) and value.dtype != object and not value.any()
    return Zeros() if isinstance(value, Zeros) or zeros else None


def _slice(chain: _Walk, node: Node, given: list[Any]) -> Any:
    value = given[0]
    if isinstance(value, Zeros):
        return value
    if chain.opset < 10:
        lists = [list(node.several(name, int) or ()) for name in ("starts", "ends", "axes")]
        starts, ends, axes = lists
        steps = [1]
    else:
        if len(given) < 4 or any(_numbers(each) is None for each in given[1:]):
            return None
        starts, ends, axes, *more = [_numbers(each) or [] for each in given[1:]]
        steps = more[0] if more else [1]
    if not len(starts) == len(ends) == len(axes) == 1 or steps != [1]:
        return None
    part = slice(starts[0], ends[0])
    if isinstance(value, State) and axes == [0]:
        start, stop, _ = part.indices(value.stop - value.start)
        stop = max(start, stop)
        return replace(value, start=value.start + start, stop=value.start + stop)
    if isinstance(value, End) and axes == [0] and value.axes[0] == "D":
        return replace(value, rows=value.rows[part]) if value.rows[part] else None
    if isinstance(value, Stream) and value.both_ways and value.axes[axes[0]] == "F":
        width = value.features or 0
        bounds = part.indices(width)[:2]
        halves = {(0, width // 2): "forward", (width // 2, width): "backward"}
        return replace(value, half=halves[bounds]) if bounds in halves else None
    if isinstance(value, Stream) and value.axes[axes[0]] == "D" and value.directions == 2:
        half = {(0, 1): "forward", (1, 2): "backward"}.get((starts[0], ends[0]))
        whole = 2 * (value.features or 0)
        return half and replace(value, directions=1, features=whole, half=half)
    if isinstance(value, Stream) and value.axes[axes[0]] == chain.time and not chain.has_lengths:
        to_the_end = ends[0] >= 2**31 - 1
        which = "last" if starts[0] == -1 and to_the_end else ""
        which = "first" if (starts[0], ends[0]) == (0, 1) else which
        names = [which if axis == chain.time else axis for axis in value.axes]
        return replace(value, axes=tuple(names)) if which else None
    return None


def _gather(chain: _Walk, node: Node, given: list[Any]) -> Any:
    table, index = given
    axis = node.integer("axis", 0)
    if isinstance(index, Stream):
        x = chain._latest(node, index)
        matrix = isinstance(table, np.ndarray) and table.ndim == 2 and table.dtype.kind == "f"
        if not matrix or axis != 0 or x.features is not None or len(x.axes) != 2:
            return None
        chain.folding.take(node, table.nbytes)
        layer = Embedding._with_parameters({"weight": table}, *table.shape, dtype=table.dtype)
        with_features = replace(x, axes=(*x.axes, "F"))
        return chain._through(node, with_features, layer, table.shape[1])
    if isinstance(table, Zeros):
        return table
    if not isinstance(index, np.ndarray) or index.ndim or index.dtype.kind != "i":
        return None
    if isinstance(table, End) and table.axes == ("D", "B", "H") and axis == 0:
        if not -len(table.rows) <= index < len(table.rows):
            return None
        return replace(table, rows=(table.rows[int(index)],), axes=("B", "H"))
    if isinstance(table, Stream) and table.axes[axis] == chain.time and index == -1:
        # The last step is the last live one where there are no lengths, and read forwards.
        x = chain._latest(node, table)
        if not (chain.has_lengths or x.both_ways) and len(x.axes) == 3:
            return chain._pool(Last(), x.features)
    return None


def _concat(chain: _Walk, node: Node, given: list[Any]) -> Any:
    axis = node.integer("axis", 0)
    if all(isinstance(each, Zeros) for each in given):
        return Zeros()
    if all(isinstance(each, End) for each in given):
        if len({each.letter for each in given}) > 1 or len({each.axes for each in given}) > 1:
            return None
        rows = tuple(row for each in given for row in each.rows)
        rank = len(given[0].axes)
        # Of single rows those of the units are put side by side.
        if given[0].axes[axis] == ("D" if rank == 3 else "H"):
            return replace(given[0], rows=rows)
    if [getattr(each, "half", "") for each in given] == ["forward", "backward"]:
        one, other = given
        if replace(other, half="forward") == one and one.axes[axis] == "F":
            return replace(one, half="")
    # The last of one direction and the first of the other.
    both = (("forward", "not last", "sum"), ("backward", "not first", "sum"))
    if (
        all(isinstance(each, Stream) for each in given)
        and tuple((each.half, each.filled, each.pooled) for each in given) == both
        and all(each.stage == chain.stage for each in given)
        and axis in (1, -1)
    ):
        return chain._pool(Last(), given[0].features)
    return None


def _matmul(chain: _Walk, node: Node, given: list[Any]) -> Any:
    x, weight = chain._latest(node, given[0]), given[1]
    if not isinstance(weight, np.ndarray) or weight.ndim != 2 or weight.dtype.kind != "f":
        return None
    if x.features not in (None, weight.shape[0]) or len(x.axes) < 2:
        raise ShapeError(f"{node}: expected {weight.shape[0]} features, got {x.features}")
    chain.folding.take(node, weight.nbytes)
    return chain._through(node, x, _Linear(weight), weight.shape[1])


def _gemm(chain: _Walk, node: Node, given: list[Any]) -> Any:
    plain = (node.real("alpha", 1.0), node.real("beta", 1.0), node.integer("transA", 0))
    if plain != (1.0, 1.0, 0) or not isinstance(given[1], np.ndarray) or given[1].ndim != 2:
        return None
    weight = given[1].T if node.integer("transB", 0) else given[1]
    x = _matmul(chain, node, [given[0], weight])
    if x is None or len(x.axes) != 2:
        return None
    return x if len(given) < 3 or given[2] is None else _add(chain, node, [x, given[2]])


def _add(chain: _Walk, node: Node, given: list[Any]) -> Any:
    a, b = given
    if isinstance(a, Ids) and isinstance(b, Ids):
        both = {a.what, b.what} == {"the negative", "the others"} and a.stream == b.stream
        return a.stream if both else None
    if isinstance(a, Stream) and a.features is None:
        return Ids("counted", a) if _numbers(b) and np.size(b) == 1 else None
    if isinstance(a, Numbers) and _is_number(b, -1) and a.what == "lengths":
        return replace(a, what="lengths - 1")
    if isinstance(b, Stream):
        a, b = b, a
    x = chain._latest(node, a)
    item = chain.items[-1] if chain.items else None
    if not isinstance(item, _Linear) or item.bias is not None or not isinstance(b, np.ndarray):
        return None
    if b.shape[:-1] != (1,) * (b.ndim - 1) or b.shape[-1:] != (x.features,) or b.ndim > 3:
        return None
    if b.dtype != item.weight.dtype or b.ndim > len(x.axes):
        return None
    item.bias = b.reshape(-1)
    chain.stage += 1
    return replace(x, filled="", stage=chain.stage)


def _activation(function: str) -> Reader:
    def read(chain: _Walk, node: Node, given: list[Any]) -> Any:
        x = chain._latest(node, given[0])
        if function == "softmax":
            rank = len(x.axes)
            axis = node.integer("axis", -1 if chain.opset >= 13 else 1)
            if axis not in (-1, rank - 1):
                return None
        return chain._through(node, x, Activation(function), x.features)

    return read


def _layer_norm(chain: _Walk, node: Node, given: list[Any]) -> Any:
    x, scale = chain._latest(node, given[0]), given[1]
    bias = given[2] if len(given) > 2 else None
    if not isinstance(scale, np.ndarray) or scale.ndim != 1:
        return None
    if node.integer("axis", -1) not in (-1, len(x.axes) - 1):
        return None
    bias = np.zeros_like(scale) if bias is None else bias
    if not isinstance(bias, np.ndarray) or bias.shape != scale.shape:
        return None
    # The number is a float32 in the file; the shortest one that reads as it was meant.
    eps = float(str(np.float32(node.real("epsilon", 1e-5))))
    arrays = {"weight": scale, "bias": bias}
    layer = LayerNorm._with_parameters(arrays, scale.size, eps=eps, dtype=scale.dtype)
    return chain._through(node, x, layer, x.features)


# Lengths and masks.


def _range(chain: _Walk, node: Node, given: list[Any]) -> Any:
    start, limit, delta = given
    counts = isinstance(limit, np.ndarray) and limit.ndim == 0 and isinstance(limit[()], Size)
    if not counts or not _is_number(start, 0) or not _is_number(delta, 1):
        return None
    axis = limit[()].axis
    # The time axis is known once a recurrent node has been met.
    return Numbers(f"steps {axis}", ("T",))


def _compared(chain: _Walk, node: Node, given: list[Any]) -> Any:
    a, b = given
    if node.operator == "Less" and _is_number(a, 0) and _are(b, "lengths", "B"):
        return Numbers("some", b.axes)
    if node.operator == "Less" and isinstance(a, Stream) and _is_number(b, 0):
        return Ids("negative", a) if a.features is None else None
    if not isinstance(a, Numbers) or not isinstance(b, Numbers) or "1" not in a.axes:
        return None
    axes = tuple(y if x == "1" else x for x, y in zip(a.axes, b.axes, strict=False))
    steps = a.what.partition(" ")
    if sorted(axes) != ["B", "T"] or sorted(a.axes) != ["1", "T"] or steps[0] != "steps":
        return None
    # x (0, 1): the steps are those of the axis whose size was asked for.
    if chain.time not in ("", steps[2]):
        return None
    chain.time = steps[2]
    made = {
        ("Less", "lengths"): "live",
        ("Equal", "lengths - 1"): "last",
        ("Equal", "zeros"): "first",
    }
    what = made.get((node.operator, b.what))
    return None if what is None else Numbers(what, axes)


def _and(chain: _Walk, node: Node, given: list[Any]) -> Any:
    a, b = given
    if not isinstance(a, Numbers) or not isinstance(b, Numbers) or a.axes != b.axes:
        return None
    return replace(a, what="first live") if {a.what, b.what} == {"first", "live"} else None


def _not(chain: _Walk, node: Node, given: list[Any]) -> Any:
    negative = isinstance(given[0], Ids) and given[0].what == "negative"
    return replace(given[0], what="not negative") if negative else None


def _max(chain: _Walk, node: Node, given: list[Any]) -> Any:
    a, b = given
    counts = isinstance(a, Numbers) and a.what == "lengths" and _is_number(b, 1)
    return replace(a, what="counts") if counts else None


def _mul(chain: _Walk, node: Node, given: list[Any]) -> Any:
    a, b = given
    if isinstance(a, Ids) or isinstance(b, Ids):
        found = {each.what if isinstance(each, Ids) else "ids" for each in given}
        streams = [each.stream if isinstance(each, Ids) else each for each in given]
        made = {("counted", "negative"): "the negative", ("ids", "not negative"): "the others"}
        what = made.get((min(found), max(found)))
        return Ids(what, streams[0]) if what and streams[0] == streams[1] else None
    zeros = isinstance(a, Numbers) and a.what == "lengths" and _is_number(b, 0)
    return replace(a, what="zeros") if zeros else None


def _where(chain: _Walk, node: Node, given: list[Any]) -> Any:
    mask, x, otherwise = given
    if not isinstance(mask, Numbers) or not isinstance(x, Stream):
        return None
    rows = "1" if chain.time == "0" else "0"
    names = {"T": chain.time, "B": rows, "1": "F"}
    if tuple(names[axis] for axis in mask.axes) != x.axes or x.stage != chain.stage:
        return None
    if mask.what == "some" and x.pooled == "max" and _is_number(otherwise, 0):
        return chain._pool(MaxPool(), x.features)
    if x.pooled or x.filled not in ("", "zero"):
        return None
    if mask.what == "live" and not x.half:
        if _is_number(otherwise, 0):
            return replace(x, filled="zero")
        return replace(x, filled="-inf") if _is_number(otherwise, -np.inf) else None
    filled = {"last": "not last", "first live": "not first"}.get(mask.what)
    return replace(x, filled=filled) if filled and _is_number(otherwise, 0) else None


def _reduced(chain: _Walk, node: Node, given: list[Any]) -> Any:
    x = given[0]
    if not isinstance(x, Stream) or x.stage != chain.stage or len(x.axes) != 3:
        return None
    axes = _axes_of(chain, node, given, 3)
    if axes is None or [x.axes[k] for k in axes] != [chain.time] or node.integer("keepdims", 1):
        return None
    if x.pooled or x.axes[-1] != "F":
        return None
    after = replace(x, axes=tuple(axis for axis in x.axes if axis != chain.time))
    if node.operator == "ReduceMax":
        if x.filled == "-inf":
            return replace(after, pooled="max")
        whole = chain.has_lengths is False and x.filled != "not last" and not x.half
        return chain._pool(MaxPool(), x.features) if whole else None
    if node.operator == "ReduceMean":
        whole = chain.has_lengths is False and x.filled in ("", "zero") and not x.half
        return chain._pool(MeanPool(), x.features) if whole else None
    if x.filled == "not last" and not x.both_ways:
        return chain._pool(Last(), x.features)
    return replace(after, pooled="sum") if x.filled and x.filled != "-inf" else None


def _div(chain: _Walk, node: Node, given: list[Any]) -> Any:
    x, counts = given
    if not isinstance(x, Stream) or not _are(counts, "counts", "B", "1"):
        return None
    if (x.pooled, x.filled, x.half) != ("sum", "zero", "") or x.stage != chain.stage:
        return None
    return chain._pool(MeanPool(), x.features)


_READERS: dict[str, Reader] = {
    "Add": _add,
    "And": _and,
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _of_shape,
    "Div": _div,
    "Equal": _compared,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "Less": _compared,
    "MatMul": _matmul,
    "Max": _max,
    "Mul": _mul,
    "Not": _not,
    "Range": _range,
    "ReduceMax": _reduced,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "Relu": _activation("relu"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _activation("sigmoid"),
    "Slice": _slice,
    "Softmax": _activation("softmax"),
    "Squeeze": _squeeze,
    "Tanh": _activation("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
