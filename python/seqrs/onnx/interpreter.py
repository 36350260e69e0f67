"""A graph of any form, computed node by node.

Recurrent nodes are layers of seqrs, everything around them is NumPy. What depends on no input is
computed once, when the model is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DTypeError, ShapeError
from ..options import shown
from .graph import Array, Graph, Node, Value
from .operators import LARGEST_RESULT, OPERATORS, Call, Folding, checked, computed
from .recurrent import COMPUTED, RecurrentNode
from .work import Work

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..recurrent import Recurrent

__all__ = ["OnnxModel", "Step", "prepared"]


class Step:
    """One node, ready to be computed."""

    def __init__(
        self, node: Node, opset: int, constants: Mapping[str, Array], folding: Folding
    ) -> None:
        self.node = node
        self.opset = opset
        self.recurrent: RecurrentNode | None = None
        #: The layers of a recurrent node whose weights are constants.
        self.layers: tuple[Recurrent, ...] = ()
        if node.operator not in COMPUTED:
            checked(node, opset)
            return
        self.recurrent = RecurrentNode(node)
        names = [*node.inputs[1:4], node.input(7)]
        if all(name in constants for name in names if name):
            W, R, B, P = (constants.get(name) for name in (*names[:2], node.input(3), names[-1]))
            assert W is not None
            assert R is not None
            weights = self.recurrent.weights(W, R, B, P)
            folding.take(node, weights.nbytes)
            self.layers = self.recurrent.layers(weights)
        if node.input(4) in constants:
            self.recurrent.check_lengths(constants[node.input(4)])

    def __call__(self, values: Mapping[str, Array], work: Work | None = None) -> list[Array]:
        """What the node gives, for each of its outputs.

        Args:
            values: what is there, by name.
            work: where to take what it costs from; None: it may cost anything.

        Raises:
            ShapeError, DTypeError: what it is given does not fit; or it costs too much.
        """
        given = [values[name] if name else None for name in self.node.inputs]
        largest = LARGEST_RESULT
        if work is not None:
            largest = work.before(self.node, given)
        found = self._found(given, largest)
        if work is not None:
            work.after(self.node, found)
        return found

    def _found(self, given: list[Array | None], largest: int) -> list[Array]:
        if self.recurrent is None:
            operator = OPERATORS[self.node.operator]
            return [computed(operator, Call(self.node, self.opset, given, largest))]
        given += [None] * (8 - len(given))
        x, W, R, B = given[:4]
        assert x is not None
        assert W is not None
        assert R is not None
        layers = self.layers or self.recurrent.layers(self.recurrent.weights(W, R, B, given[7]))
        states = given[5 : 5 + (2 if self.node.operator == "LSTM" else 1)]
        found = self.recurrent.run(layers, x, given[4], states)
        return list(found[: len(self.node.outputs)])


def prepared(graph: Graph) -> tuple[list[Step], dict[str, Array]]:
    """The nodes that depend on an input, and all constants, those computed from others too.

    Raises:
        ModelFileError: a node is not carried; says which.
        ShapeError, DTypeError: constants do not fit a node.
    """
    constants = dict(graph.constants)
    folding = Folding(constants.values())
    steps = []
    for node in graph.nodes:
        step = Step(node, graph.opset, constants, folding)
        if not step.recurrent and all(name in constants for name in node.inputs if name):
            given = [constants[name] if name else None for name in node.inputs]
            operator = OPERATORS[node.operator]
            constants[node.outputs[0]] = folding(operator, node, graph.opset, given)
        else:
            steps.append(step)
    return steps, constants


class OnnxModel:
    """An ONNX graph that is no plain chain of layers: for inference.

    Its recurrent nodes are layers of seqrs, which `layers` has by the names of their first outputs;
    what is loaded into them counts. It does not train, save or stream as a `Sequential` does.

    Args:
        graph: what `seqrs.onnx.load` has read.
        reason: why it is no chain.

    Raises:
        ModelFileError: a node is not carried; says which.
        ShapeError, DTypeError: constants do not fit a node.
    """

    def __init__(self, graph: Graph, reason: str = "") -> None:
        self._graph = graph
        self._reason = reason
        self._steps, self._constants = prepared(graph)
        # What is not read any more is let go.
        last = {name: k for k, step in enumerate(self._steps) for name in step.node.inputs}
        kept = {output.name for output in graph.outputs} | set(self._constants)
        self._released: list[list[str]] = [[] for _ in self._steps]
        for name, k in last.items():
            if name and name not in kept:
                self._released[k].append(name)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """What it is called with: name, dtype and shape of each."""
        return self._graph.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What it gives: name, dtype and shape of each."""
        return self._graph.outputs

    @property
    def layers(self) -> dict[str, Recurrent]:
        """The recurrent layers.

        A node whose two directions have different functions has two, the second of them under the
        name with "_reverse" after it. One whose weights are inputs has none.
        """
        found: dict[str, Recurrent] = {}
        for step in self._steps:
            name = next(name for name in step.node.outputs if name)
            for layer, suffix in zip(step.layers, ("", "_reverse"), strict=False):
                found[name + suffix] = layer
        return found

    @property
    def reason(self) -> str:
        """Why the graph is no chain of layers."""
        return self._reason

    def __call__(self, *inputs: npt.ArrayLike, **named: npt.ArrayLike) -> dict[str, Array]:
        """What the graph gives, by the names of its outputs.

        Args:
            inputs: one array for each of the first inputs, in order.
            named: the others, by name.

        Raises:
            TypeError: an input is missing, or one is given that is not there.
            ShapeError, DTypeError: one does not fit; says which.
        """
        return self._computed(self._given(inputs, named), None)

    def within(self, work: Work, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The same, if it does not cost too much.

        Args:
            work: where to take what it costs from.
            inputs: the arrays by name.

        Raises:
            ShapeError, DTypeError: an input does not fit, or it costs more than there is.
        """
        return self._computed(self._given((), inputs), work)

    def _computed(self, given: dict[str, Array], work: Work | None) -> dict[str, Array]:
        values = self._constants | given
        for step, released in zip(self._steps, self._released, strict=True):
            for name, array in zip(step.node.outputs, step(values, work), strict=False):
                if name:
                    values[name] = array
            for name in released:
                values.pop(name, None)
        return {each.name: np.array(values[each.name], order="C") for each in self._graph.outputs}

    def _given(
        self, inputs: tuple[npt.ArrayLike, ...], named: Mapping[str, npt.ArrayLike]
    ) -> dict[str, Array]:
        names = [value.name for value in self.inputs]
        if len(inputs) > len(names):
            raise TypeError(f"inputs: expected {len(names)} at most, got {len(inputs)}")
        given = dict(zip(names, inputs, strict=False))
        for name, array in named.items():
            if name not in names or name in given:
                raise TypeError(f"inputs: expected each of {names} once, got {shown(name)}")
            given[name] = array
        sizes: dict[str, int] = {}
        found = {}
        for value in self.inputs:
            if value.name not in given:
                raise TypeError(f"inputs: expected {shown(value.name)}, got {list(given)}")
            found[value.name] = _fitting(value, np.asarray(given[value.name]), sizes)
        return found

    def __repr__(self) -> str:
        def words(values: tuple[Value, ...]) -> str:
            return ", ".join(f"{value.name} {value.dtype}{value.shape or ''}" for value in values)

        return f"OnnxModel({words(self.inputs)} -> {words(self.outputs)}; {self._reason})"


def _fitting(value: Value, array: Array, sizes: dict[str, int]) -> Array:
    """An input in the dtype and shape that the graph declares; sizes of one name are equal."""
    name = f"input {shown(value.name)}"
    if not np.can_cast(array.dtype, value.dtype, "same_kind"):
        raise DTypeError(f"{name}: expected {value.dtype}, got {array.dtype}")
    if array.dtype.kind in "iu" and array.size:
        # An integer that does not fit would come out as another.
        limits = np.iinfo(value.dtype) if value.dtype.kind == "i" else None
        if limits and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise ShapeError(f"{name}: expected integers that fit {value.dtype}, got larger ones")
    if value.shape is None:
        return array.astype(value.dtype)
    fits = len(value.shape) == array.ndim
    for expected, size in zip(value.shape, array.shape, strict=False):
        if isinstance(expected, str):
            expected = sizes.setdefault(expected, size)
        fits = fits and expected in (None, size)
    if not fits:
        known = {name: size for name, size in sizes.items() if name in value.shape}
        where = f" with {known}" if known else ""
        raise ShapeError(f"{name}: expected shape {value.shape}{where}, got {array.shape}")
    return array.astype(value.dtype)
