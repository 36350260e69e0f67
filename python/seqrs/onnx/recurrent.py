"""RNN, LSTM and GRU of ONNX as layers of seqrs.

All that these operators can say is carried: the eleven functions of the specification in each
place, `clip`, `input_forget`, peepholes. An attribute, an input or a function that they do not have
is refused by its name, and nothing is ignored.

Letters: T steps, B rows, I inputs, H hidden units, D directions, G gates. ONNX has W (D, G*H, I),
R (D, G*H, H) and B (D, 2*G*H), which is [Wb, Rb], with the gates i o f c of an LSTM and z r h of a
GRU; seqrs has i f g o and r z n. An LSTM's peepholes P (D, 3*H) are those of i, o and f, of which
i and f see the cell state before the step and o the new one, in ONNX as in seqrs. With
`input_forget` the parts of f are there in ONNX and without effect; the coupled LSTM of seqrs has
none, and zeros are written for them.

A function takes its numbers off the lists `activation_alpha` and `activation_beta`, in the order of
the functions, those of the second direction after those of the first; functions that have no such
number take none. A number that is not there is that of ONNX's operator of the same name. (ONNX
Runtime says 0 instead for both numbers of Affine and ScaledTanh, and for that of ThresholdedRelu;
what is written here has all numbers.) The numbers and `clip` are float32 in a file.

A row of length 0 keeps its initial state here, as every step that is not live does; ONNX Runtime
sets its final state to zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ModelFileError, ShapeError
from ..functions import FUNCTIONS, Function, parts_of, shortest
from ..options import shown
from ..recurrent import GRU, LSTM, RNN, Recurrent
from .graph import Array, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMPUTED", "COUPLED", "Cell", "RecurrentNode", "Weights", "functions_as_attributes"]


@dataclass(frozen=True)
class Cell:
    """What is carried of an operator."""

    #: For each gate of seqrs, in its order, the gate of ONNX.
    gates: tuple[int, ...]
    #: The functions of one direction in the order of ONNX: the options of seqrs, and what they are
    #: by default.
    functions: dict[str, str]
    #: Its inputs, in order; those after the first three may be left out.
    inputs: tuple[str, ...]
    outputs: int
    #: The parameters of seqrs that lie in P, in the order of ONNX; "" for what has no effect.
    peepholes: tuple[str, ...] = ()
    #: How many gates ONNX has.
    count: int = 1


COMPUTED = {
    "RNN": Cell(
        gates=(0,),
        functions={"nonlinearity": "tanh"},
        inputs=("X", "W", "R", "B", "sequence_lens", "initial_h"),
        outputs=2,
    ),
    "LSTM": Cell(
        gates=(0, 2, 3, 1),
        functions={
            "gate_activation": "sigmoid",
            "candidate_activation": "tanh",
            "output_activation": "tanh",
        },
        inputs=("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
        outputs=3,
        peepholes=("weight_ci", "weight_co", "weight_cf"),
        count=4,
    ),
    "GRU": Cell(
        gates=(1, 0, 2),
        functions={"gate_activation": "sigmoid", "candidate_activation": "tanh"},
        inputs=("X", "W", "R", "B", "sequence_lens", "initial_h"),
        outputs=2,
        count=3,
    ),
}

#: An LSTM with `input_forget`.
COUPLED = replace(COMPUTED["LSTM"], gates=(0, 3, 1), peepholes=("weight_ci", "weight_co", ""))

#: For each attribute the operators that have it.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "activations": ("RNN", "LSTM", "GRU"),
    "activation_alpha": ("RNN", "LSTM", "GRU"),
    "activation_beta": ("RNN", "LSTM", "GRU"),
    "clip": ("RNN", "LSTM", "GRU"),
    "direction": ("RNN", "LSTM", "GRU"),
    "hidden_size": ("RNN", "LSTM", "GRU"),
    "layout": ("RNN", "LSTM", "GRU"),
    "linear_before_reset": ("GRU",),
    "input_forget": ("LSTM",),
}

#: The names of functions in ONNX, which may be in any case.
NAMES = {name: "".join(part.title() for part in name.split("_")) for name in FUNCTIONS}
BY_NAME = {theirs.lower(): name for name, theirs in NAMES.items()}

#: The attributes with the numbers of functions: alpha, beta.
NUMBERS = ("activation_alpha", "activation_beta")

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@dataclass(frozen=True)
class Weights:
    """The weights of a node, in the order of seqrs: per direction, those of one layer."""

    arrays: tuple[dict[str, Array], ...]
    inputs: int
    hidden: int
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(array.nbytes for arrays in self.arrays for array in arrays.values())

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return "bias_ih" in self.arrays[0]

    @property
    def peepholes(self) -> bool:
        """Whether the gates see the cell state."""
        return "weight_ci" in self.arrays[0]


class RecurrentNode:
    """An RNN, LSTM or GRU, its attributes read.

    Raises:
        ModelFileError: it is malformed, or asks for what the cells cannot compute.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        _refuse_attributes(node)
        self.coupled = bool(self._flag("input_forget"))
        self.cell = COUPLED if self.coupled else COMPUTED[node.operator]
        self._refuse_names()
        direction = node.text("direction", "forward")
        if direction not in DIRECTIONS:
            expected = " or ".join(DIRECTIONS)
            raise ModelFileError(f"{node}: direction: expected {expected}, got {shown(direction)}")
        self.direction = direction
        self.directions = DIRECTIONS[direction]
        self.layout = self._flag("layout")
        self.reset_after = bool(self._flag("linear_before_reset"))
        self.clip = self._clip()
        #: The functions of which a number other than 0 is left out, by the names of ONNX.
        self.by_default: set[str] = set()
        self.functions = self._functions()

    def _flag(self, name: str) -> int:
        value = self.node.integer(name, 0)
        if value not in (0, 1):
            raise ModelFileError(f"{self.node}: {name}: expected 0 or 1, got {value}")
        return value

    def _clip(self) -> float | None:
        if "clip" not in self.node.attributes:
            return None
        clip = _as_meant(self.node.real("clip", 0.0))
        if not 0.0 < clip < np.inf:
            expected = "a finite number above 0"
            raise ModelFileError(f"{self.node}: clip: expected {expected}, got {clip}")
        return clip

    def _refuse_names(self) -> None:
        node, cell = self.node, self.cell
        if not 3 <= len(node.inputs) <= len(cell.inputs) or not all(node.inputs[:3]):
            expected = f"X, W, R and at most {len(cell.inputs)}"
            raise ModelFileError(f"{node}: inputs: expected {expected}, got {node.inputs}")
        if len(node.outputs) > cell.outputs or not any(node.outputs):
            expected = f"1 to {cell.outputs}"
            raise ModelFileError(f"{node}: outputs: expected {expected}, got {node.outputs}")

    def _functions(self) -> tuple[tuple[Function, ...], ...]:
        """For each direction its functions, in the order of ONNX."""
        names = self._names()
        # Each takes the next number, if it has such a one and there is one left.
        lists = [self._finite(attribute) for attribute in NUMBERS]
        each = []
        for name in names:
            defaults = FUNCTIONS[name]
            if any(default and not lists[place] for place, default in enumerate(defaults)):
                self.by_default.add(NAMES[name])
            numbers = [
                lists[place].pop(0) if lists[place] else default
                for place, default in enumerate(defaults)
            ]
            each.append(shortest(name, tuple(numbers)))
        for attribute, left in zip(NUMBERS, lists, strict=True):
            if left:
                expected = f"as many as {', '.join(NAMES[name] for name in names)} have"
                raise ModelFileError(
                    f"{self.node}: {attribute}: expected {expected}, got {len(left)} more"
                )
        size = len(self.cell.functions)
        return tuple(tuple(each[k : k + size]) for k in range(0, len(each), size))

    def _names(self) -> list[str]:
        """The functions of all directions, by the names of seqrs."""
        defaults = list(self.cell.functions.values())
        given = self.node.several("activations", str)
        if given is None:
            return defaults * self.directions
        if len(given) != len(defaults) * self.directions:
            expected = f"{len(defaults)} for each of {self.directions} directions"
            got = shown(list(given))
            raise ModelFileError(f"{self.node}: activations: expected {expected}, got {got}")
        for k, name in enumerate(given):
            if name.lower() not in BY_NAME:
                expected = f"one of {', '.join(NAMES.values())}"
                raise ModelFileError(
                    f"{self.node}: activations[{k}]: expected {expected}, got {shown(name)}"
                )
        return [BY_NAME[name.lower()] for name in given]

    def _finite(self, attribute: str) -> list[float]:
        found = [_as_meant(number) for number in self.node.several(attribute, float) or ()]
        for number in found:
            if not np.isfinite(number):
                expected = "finite numbers"
                raise ModelFileError(f"{self.node}: {attribute}: expected {expected}, got {number}")
        return found

    def weights(self, W: Array, R: Array, B: Array | None, P: Array | None = None) -> Weights:
        """The weights in the order of seqrs.

        Raises:
            ShapeError: a shape does not fit the others, the direction or `hidden_size`.
            DTypeError: they are not all float32 or all float64.
        """
        node, D, G = self.node, self.directions, self.cell.count
        given = {"W": W, "R": R, "B": B, "P": P}
        named = {name: array for name, array in given.items() if array is not None}
        for name, array in named.items():
            if array.dtype not in (np.float32, np.float64) or array.dtype != W.dtype:
                expected = "float32 or float64, all weights alike"
                raise DTypeError(f"{node}: {name}: expected {expected}, got {array.dtype}")
        if W.ndim != 3 or R.ndim != 3:
            raise ShapeError(
                f"{node}: expected W (D, {G}*H, I) and R (D, {G}*H, H), got {W.shape} and {R.shape}"
            )
        H, I = R.shape[2], W.shape[2]  # noqa: E741
        stated = node.integer("hidden_size", H)
        if stated != H or stated < 1 or I < 1:
            raise ShapeError(
                f"{node}: hidden_size: expected that of R {R.shape}, at least 1, got {stated}"
            )
        shapes = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
        for name, array in named.items():
            if array.shape != shapes[name]:
                expected = f"{shapes[name]} for {D} directions of {H} units"
                raise ShapeError(f"{node}: {name}: expected shape {expected}, got {array.shape}")
        arrays = tuple(
            self._direction(**{name: array[d] for name, array in named.items()}) for d in range(D)
        )
        return Weights(arrays, I, H, str(W.dtype))

    def _direction(
        self, W: Array, R: Array, B: Array | None = None, P: Array | None = None
    ) -> dict[str, Array]:
        def ordered(array: Array) -> Array:
            gates = np.split(array, self.cell.count)
            return np.concatenate([gates[gate] for gate in self.cell.gates])

        found = {"weight_ih": ordered(W), "weight_hh": ordered(R)}
        if P is not None:
            names = self.cell.peepholes
            parts = zip(names, np.split(P, len(names)), strict=True)
            found |= {name: part for name, part in parts if name}
        if B is None:
            return found
        Wb, Rb = np.split(B, 2)
        if self.node.operator == "GRU" and not self.reset_after:
            # With the reset before the product all of a gate's biases are added to one sum.
            return found | {"bias_ih": ordered(Wb + Rb)}
        return found | {"bias_ih": ordered(Wb), "bias_hh": ordered(Rb)}

    def layer(
        self, stack: Sequence[Weights], batch_first: bool = False, direction: int = 0
    ) -> Recurrent:
        """A layer of these weights, one after the other; all nodes have the options of this one.

        Args:
            stack: those of each node.
            batch_first: whether the layer is.
            direction: the one of this node whose functions the layer has.
        """
        first = stack[0]
        options: dict[str, Any] = {
            "num_layers": len(stack),
            "bias": first.bias,
            "bidirectional": len(first.arrays) == 2,
            "batch_first": batch_first,
            "dtype": first.dtype,
            "clip": self.clip,
            **dict(zip(self.cell.functions, self.functions[direction], strict=True)),
        }
        cls: type[Recurrent] = RNN
        if self.node.operator == "GRU":
            cls, options["reset_after"] = GRU, self.reset_after
        elif self.node.operator == "LSTM":
            cls = LSTM
            options |= {"peepholes": first.peepholes, "coupled": self.coupled}
        mapping = {
            f"{name}_l{k}{suffix}": array
            for k, weights in enumerate(stack)
            for suffix, arrays in zip(("", "_reverse"), weights.arrays, strict=False)
            for name, array in arrays.items()
        }
        return cls._with_parameters(mapping, first.inputs, first.hidden, **options)

    def layers(self, weights: Weights) -> tuple[Recurrent, ...]:
        """The layers that compute the node: one, or one for each direction if they differ."""
        if len(set(self.functions)) == 1:
            return (self.layer([weights]),)
        return tuple(
            self.layer([replace(weights, arrays=(arrays,))], direction=d)
            for d, arrays in enumerate(weights.arrays)
        )

    def run(
        self,
        layers: tuple[Recurrent, ...],
        x: Array,
        lengths: Array | None,
        states: Sequence[Array | None],
    ) -> tuple[Array, ...]:
        """What the node gives: Y, Y_h and, of an LSTM, Y_c.

        Args:
            layers: what `layers` gave.
            x: (T, B, I), or (B, T, I) with layout 1.
            lengths: B integers in 0..=T, or None.
            states: initial_h and, of an LSTM, initial_c: (D, B, H), or (B, D, H) with layout 1;
                None for zeros.

        Raises:
            ShapeError, DTypeError: an input does not fit; says which.
        """
        x, states = self._checked(layers[0], x, lengths, states)
        B, H, D = x.shape[1], layers[0].hidden_size, self.directions
        given = [np.zeros((D, B, H), x.dtype) if state is None else state for state in states]
        ys, finals = [], []
        for k, layer in enumerate(layers):
            # A layer of seqrs reads forwards or both ways; what reads backwards alone is given its
            # rows turned round, each inside its own length.
            turned = self.direction == "reverse" or k == 1
            own = [state[k : k + 1] for state in given] if len(layers) == 2 else given
            y, final = layer(
                _turned(x, lengths) if turned else x,
                tuple(own) if len(own) == 2 else own[0],
                lengths,
            )
            ys.append(_turned(y, lengths) if turned else y)
            finals.append(final if isinstance(final, tuple) else (final,))
        y = np.concatenate(ys, 2).reshape(x.shape[0], B, D, H)
        ends = [np.concatenate(each, 0) for each in zip(*finals, strict=True)]
        if self.layout:
            return (y.transpose(1, 0, 2, 3), *(end.transpose(1, 0, 2) for end in ends))
        return (y.transpose(0, 2, 1, 3), *ends)

    def check_lengths(self, lengths: Array, steps: int | None = None) -> None:
        """Refuses what are no lengths, or lengths above the number of steps."""
        name = f"{self.node}: sequence_lens"
        if lengths.dtype.kind != "i":
            raise DTypeError(f"{name}: expected integers, got {lengths.dtype}")
        largest = np.iinfo(np.int64).max if steps is None else steps
        if lengths.size and not 0 <= lengths.min() <= lengths.max() <= largest:
            message = f"expected integers in 0..={'T' if steps is None else steps}"
            raise ShapeError(f"{name}: {message}, got {shown(lengths.tolist())}")

    def _checked(
        self, layer: Recurrent, x: Array, lengths: Array | None, states: Sequence[Array | None]
    ) -> tuple[Array, list[Array | None]]:
        """x as (T, B, I) and the states as (D, B, H)."""
        node, D, H = self.node, self.directions, layer.hidden_size
        arrays = {"X": x, **{f"initial_{n}": s for n, s in zip("hc", states, strict=False)}}
        for name, array in arrays.items():
            if array is not None and array.dtype != layer.dtype:
                raise DTypeError(f"{node}: {name}: expected {layer.dtype}, got {array.dtype}")
        if x.ndim != 3 or x.shape[2] != layer.input_size:
            form = "(B, T, I)" if self.layout else "(T, B, I)"
            expected = f"{form} with I = {layer.input_size}"
            raise ShapeError(f"{node}: X: expected {expected}, got shape {x.shape}")
        if self.layout:
            x = x.transpose(1, 0, 2)
        T, B = x.shape[:2]
        if lengths is not None:
            self.check_lengths(lengths, T)
            if lengths.shape != (B,):
                message = f"expected one for each of {B} rows, got shape {lengths.shape}"
                raise ShapeError(f"{node}: sequence_lens: {message}")
        found: list[Array | None] = []
        for name, state in zip("hc", states, strict=False):
            shape = (B, D, H) if self.layout else (D, B, H)
            if state is not None and state.shape != shape:
                raise ShapeError(f"{node}: initial_{name}: expected {shape}, got {state.shape}")
            found.append(state.transpose(1, 0, 2) if state is not None and self.layout else state)
        return x, found


def _as_meant(number: float) -> float:
    """A float32 of a file: the shortest number that reads as it."""
    return float(str(np.float32(number)))


def functions_as_attributes(layer: Recurrent, cell: Cell) -> dict[str, Any]:
    """The attributes that say the functions of a layer; none where they are those by default."""
    options = layer._options()
    functions = [parts_of(options[name]) for name in cell.functions]
    if functions == [parts_of(name) for name in cell.functions.values()]:
        return {}
    functions *= 2 if layer.bidirectional else 1
    found: dict[str, Any] = {"activations": [NAMES[name] for name, _ in functions]}
    for place, attribute in enumerate(NUMBERS):
        numbers = [each[place] for _, each in functions if len(each) > place]
        if numbers:
            found[attribute] = numbers
    return found


def _refuse_attributes(node: Node) -> None:
    """Refuses by name what the operator does not have."""
    for name in node.attributes:
        if node.operator not in ATTRIBUTES.get(name, ()):
            raise ModelFileError(f"{node}: {shown(name)}: expected no such attribute, got one")


def _turned(x: Array, lengths: Array | None) -> Array:
    """x (T, B, .) with the live steps of each row in reverse."""
    if lengths is None:
        return x[::-1]
    steps = np.arange(x.shape[0])[:, None]
    source = np.where(steps < lengths, lengths - 1 - steps, steps)
    return np.take_along_axis(x, source[:, :, None], 0)
