"""The nodes of an ONNX graph, as the layers of a model come up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ModelFileError
from ..layers import Layer
from ..models import Sequential
from ..options import shown
from ..recurrent import Recurrent
from .graph import Array
from .package import onnx_package
from .recurrent import COMPUTED, COUPLED, NUMBERS, Cell, functions_as_attributes
from .wire import LARGEST_FILE

__all__ = ["Writer"]

#: The first with LayerNormalization; ONNX Runtime has it since 1.12, of 2022.
OPSET = 17
#: The version of the format of that time.
IR_VERSION = 8

_RECURRENT = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
#: Options of recurrent layers that are written, or that say nothing of what is computed.
_OPTIONS = {
    "kind",
    "input_size",
    "hidden_size",
    "num_layers",
    "nonlinearity",
    "reset_after",
    "bias",
    "bidirectional",
    "dropout",
    "recurrent_dropout",
    "forget_bias",
    "peepholes",
    "coupled",
    "gate_activation",
    "candidate_activation",
    "output_activation",
    "clip",
    "batch_first",
    "seed",
}
_FUNCTIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softmax": "Softmax"}


class Writer:
    """The nodes and constants of a model, as they come up.

    `y` is the name of what the last layer gave. It has the axes (B, T, F) or, with `time_first`,
    (T, B, F), and (B, F) after a pool.
    """

    def __init__(self, model: Sequential | Layer, streaming: bool) -> None:
        self.onnx = onnx_package()
        self.streaming = streaming
        layers: Sequence[Layer] = model.layers if isinstance(model, Sequential) else [model]
        batch_first = model._batch_first
        self.dtype = np.dtype(model.dtype)
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.shared: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

        self.time_first = not batch_first
        self.axes_of_x = ["batch", "time"] if batch_first else ["time", "batch"]
        ids = layers[0].kind == "embedding"
        #: Features of y, None if no layer says how many.
        self.width = None if ids else _width(layers)
        #: Whether y is zero where no step is live.
        self.clean = False
        #: Whether its features are those of two directions.
        self.both_ways = False
        #: Whether its steps have become one.
        self.pooled = False
        #: The final h (D, B, H) of the layer that gave y, if it was a recurrent one.
        self.end = ""
        self.recurrent_count = 0
        #: The integers 0..T, and the mask for each order of the axes, once they are needed.
        self.steps = ""
        self.live: dict[bool, str] = {}

        self.y = "x"
        features = [] if ids else [self.width or "features"]
        self._input("x", np.int64 if ids else self.dtype, [*self.axes_of_x, *features])
        if not streaming:
            self._input("lengths", np.int32, ["batch"])
        for k, layer in enumerate(layers):
            self.place = f"layers[{k}] ({type(layer).__name__})"
            self._layer(layer)
            self.width = layer.output_size or self.width
        self._finish(batch_first)

    def serialized(self) -> bytes:
        """The bytes of the file."""
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        size = sum(array.nbytes for array in self.constants.values())
        if size > LARGEST_FILE - 2**20:
            raise ModelFileError(f"model: expected weights below 2 GiB, got {size} bytes")
        graph = helper.make_graph(
            self.nodes,
            "seqrs",
            self.inputs,
            self.outputs,
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        model = helper.make_model(
            graph,
            producer_name="seqrs",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        data: bytes = model.SerializeToString()
        return data

    # Pieces of a graph.

    def _input(self, name: str, dtype: Any, shape: list[Any]) -> None:
        self.inputs.append(self._value(name, dtype, shape))

    def _value(self, name: str, dtype: Any, shape: list[Any]) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def _constant(self, value: Any, dtype: Any = np.int64, name: str = "") -> str:
        """The name of a constant; those that are given no name are shared."""
        array = np.ascontiguousarray(value, dtype)
        array = array.reshape(np.shape(value))
        if not name:
            key = (array.dtype.str, array.tobytes(), array.shape)
            name = self.shared.get(key) or f"constant_{len(self.constants)}"
            self.shared[key] = name
        self.constants[name] = array
        return name

    def _node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node of one output; gives the name of it."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(operator, list(inputs), [output], **attributes)
        )
        return output

    def _cast(self, array: str, dtype: Any) -> str:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._node("Cast", array, to=kind)

    def _axes(self, *axes: int) -> str:
        return self._constant(list(axes))

    # Which steps are live.

    def _steps(self) -> str:
        """The integers 0..T, int32."""
        if not self.steps:
            axis = self.axes_of_x.index("time")
            count = self._node("Squeeze", self._node("Shape", "x", start=axis, end=axis + 1))
            zero, one = self._constant(0, np.int32), self._constant(1, np.int32)
            self.steps = self._node("Range", zero, self._cast(count, np.int32), one)
        return self.steps

    def _beside(self, numbers: str) -> tuple[str, str]:
        """The steps and a number of each row, in axes that together are the first two of y."""
        steps = self._node("Unsqueeze", self._steps(), self._axes(1 - self._time))
        return steps, self._node("Unsqueeze", numbers, self._axes(self._time))

    def _live(self) -> str:
        """Whether each step is live, in the axes of y without features."""
        if self.time_first not in self.live:
            self.live[self.time_first] = self._node("Less", *self._beside("lengths"))
        return self.live[self.time_first]

    def _masked(self, otherwise: float = 0.0) -> str:
        """y where a step is live, and another number where it is not."""
        live = self._node("Unsqueeze", self._live(), self._axes(2))
        return self._node("Where", live, self.y, self._constant(otherwise, self.dtype))

    def _clear(self) -> None:
        if not (self.clean or self.streaming or self.pooled):
            self.y = self._masked()
            self.clean = True

    # Layers.

    def _layer(self, layer: Layer) -> None:
        if layer.kind in _RECURRENT:
            assert isinstance(layer, Recurrent)
            self._recurrent(layer)
            return
        write = _LAYERS.get(layer.kind)
        if write is None:
            raise ModelFileError(f"{self.place}: expected a layer that ONNX has, got {layer!r}")
        write(self, layer)

    def _order(self, time_first: bool) -> None:
        if self.time_first != time_first:
            self.y = self._node("Transpose", self.y, perm=[1, 0, 2])
            self.time_first = time_first

    def _recurrent(self, layer: Recurrent) -> None:
        self._refuse(layer)
        self._order(time_first=True)
        number = self.recurrent_count
        self.recurrent_count += 1
        cell = _cell(layer)
        letters = "hc" if layer.kind == "lstm" else "h"
        arrays = layer.state_dict()
        if self.streaming:
            for letter in letters:
                self._input(f"{letter}_in_{number}", self.dtype, self._shape_of_state(layer))
        ends: list[list[str]] = []
        for k in range(layer.num_layers):
            name = f"{layer.kind}_{number}_l{k}"
            given = [self.y, *self._weights(layer, arrays, k, name)]
            given += [""] * (4 - len(given))
            if self.streaming:
                starts = [self._start(f"{c}_in_{number}", k, layer.num_layers) for c in letters]
                given += ["", *starts]
            else:
                given.append("lengths")
            if cell.peepholes and layer._options()["peepholes"]:
                given += [""] * (7 - len(given))
                given.append(self._peepholes(layer, arrays, k, name))
            ends.append([f"{name}_{letter}" for letter in letters])
            attributes = self._attributes(layer)
            operator, found = _RECURRENT[layer.kind], [name, *ends[-1]]
            self.nodes.append(
                self.onnx.helper.make_node(operator, given, found, name=name, **attributes)
            )
            self.y = self._without_directions(layer, name)
        self.clean = True
        self.both_ways = layer.bidirectional
        self.end = ends[-1][0]
        if self.streaming:
            for letter, parts in zip(letters, zip(*ends, strict=True), strict=True):
                output = f"{letter}_out_{number}"
                self._node("Concat", *parts, axis=0, output=output)
                self.outputs.append(self._value(output, self.dtype, self._shape_of_state(layer)))

    def _without_directions(self, layer: Recurrent, y: str) -> str:
        """(T, D, B, H) as (T, B, D*H)."""
        if not layer.bidirectional:
            return self._node("Squeeze", y, self._axes(1))
        beside = self._node("Transpose", y, perm=[0, 2, 1, 3])
        return self._node("Reshape", beside, self._constant([0, 0, 2 * layer.hidden_size]))

    def _shape_of_state(self, layer: Recurrent) -> list[Any]:
        return [layer.num_layers, "batch", layer.hidden_size]

    def _refuse(self, layer: Recurrent) -> None:
        options = layer._options()
        if options.get("proj_size"):
            raise ModelFileError(
                f"{self.place}: proj_size: expected 0 (ONNX has no projection), "
                f"got {options['proj_size']}"
            )
        others = {name: options[name] for name in options if name not in _OPTIONS}
        for name, value in others.items():
            # An option that is off says nothing.
            if value not in (None, False, 0, "", []):
                message = f"expected none (its export is not supported yet), got {shown(value)}"
                raise ModelFileError(f"{self.place}: {name}: {message}")
        if layer.bidirectional:
            self._needs_all_if_streaming("bidirectional: ")

    def _needs_all_if_streaming(self, what: str = "") -> None:
        if self.streaming:
            raise ModelFileError(
                f"{self.place}: {what}expected a layer that goes step by step when streaming, "
                "got one that needs the whole sequence"
            )

    def _attributes(self, layer: Recurrent) -> dict[str, Any]:
        found: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if layer.bidirectional:
            found["direction"] = "bidirectional"
        if layer.kind == "gru":
            found["linear_before_reset"] = int(layer._options()["reset_after"])
        if layer._options().get("coupled"):
            found["input_forget"] = 1
        if layer._options()["clip"] is not None:
            found["clip"] = layer._options()["clip"]
        found |= functions_as_attributes(layer, _cell(layer))
        for name in ("clip", *NUMBERS):
            for number in np.atleast_1d(found.get(name, [])):
                # A bound of 0 is none that a node may have.
                nothing = name == "clip" and np.float32(number) == 0
                if nothing or abs(number) > np.finfo(np.float32).max:
                    raise ModelFileError(
                        f"{self.place}: {name}: expected a number of float32, got {number}"
                    )
        return found

    def _weights(self, layer: Recurrent, arrays: dict[str, Array], k: int, name: str) -> list[str]:
        """W, R and B of one layer, in the order of ONNX."""
        cell = _cell(layer)

        def ordered(parameter: str, suffix: str) -> Array:
            parts = np.split(arrays[f"{parameter}_l{k}{suffix}"], len(cell.gates))
            by_gate = dict(zip(cell.gates, parts, strict=True))
            # The forget gate of an LSTM that has none is there and without effect.
            nothing = np.zeros_like(parts[0])
            return np.concatenate([by_gate.get(gate, nothing) for gate in range(cell.count)])

        suffixes = ("", "_reverse") if layer.bidirectional else ("",)
        named = {
            "W": [ordered("weight_ih", suffix) for suffix in suffixes],
            "R": [ordered("weight_hh", suffix) for suffix in suffixes],
        }
        if layer.bias:
            named["B"] = []
            for suffix in suffixes:
                first = ordered("bias_ih", suffix)
                # The textbook's GRU has one bias for each gate.
                alone = f"bias_hh_l{k}{suffix}" not in arrays
                second = np.zeros_like(first) if alone else ordered("bias_hh", suffix)
                named["B"].append(np.concatenate([first, second]))
        return [
            self._constant(np.stack(parts), self.dtype, f"{name}_{letter}")
            for letter, parts in named.items()
        ]

    def _peepholes(self, layer: Recurrent, arrays: dict[str, Array], k: int, name: str) -> str:
        """P of one layer, in the order of ONNX."""
        nothing = np.zeros(layer.hidden_size)
        suffixes = ("", "_reverse") if layer.bidirectional else ("",)
        parts = [
            np.concatenate(
                [
                    arrays[f"{each}_l{k}{suffix}"] if each else nothing
                    for each in _cell(layer).peepholes
                ]
            )
            for suffix in suffixes
        ]
        return self._constant(np.stack(parts), self.dtype, f"{name}_P")

    def _start(self, name: str, k: int, count: int) -> str:
        if count == 1:
            return name
        bounds = (self._axes(k), self._axes(k + 1), self._axes(0))
        return self._node("Slice", name, *bounds)

    def _embedding(self, layer: Layer) -> None:
        if not self.streaming:
            # An id at a step that is not live may be any number.
            self.y = self._node("Where", self._live(), self.y, self._constant(0))
        table = self._constant(layer.state_dict()["weight"], self.dtype, self._unused("embedding"))
        self.y = self._node("Gather", table, self.y, axis=0)
        self._rows(clean=False)
        self.both_ways = False

    def _linear(self, layer: Layer) -> None:
        arrays = layer.state_dict()
        name = self._unused("linear")
        self.y = self._node("MatMul", self.y, self._constant(arrays["weight"].T, self.dtype, name))
        if "bias" in arrays:
            bias = self._constant(arrays["bias"], self.dtype, f"{name}_bias")
            self.y = self._node("Add", self.y, bias)
        self._rows(clean=self.clean and "bias" not in arrays)
        self.both_ways = False

    def _layer_norm(self, layer: Layer) -> None:
        arrays = layer.state_dict()
        name = self._unused("layer_norm")
        weights = [
            self._constant(arrays[part], self.dtype, f"{name}_{part}")
            for part in ("weight", "bias")
        ]
        epsilon = float(layer._options()["eps"])
        self.y = self._node("LayerNormalization", self.y, *weights, axis=-1, epsilon=epsilon)
        self._rows(clean=False)

    def _activation(self, layer: Layer) -> None:
        function = layer._options()["function"]
        axis: dict[str, Any] = {"axis": -1} if function == "softmax" else {}
        self.y = self._node(_FUNCTIONS[function], self.y, **axis)
        self._rows(clean=self.clean and function in ("tanh", "relu"))

    def _dropout(self, layer: Layer) -> None:
        """Nothing, at inference."""

    def _rows(self, clean: bool) -> None:
        """A layer of single steps has been written."""
        self.clean = clean
        self.end = ""

    def _unused(self, word: str) -> str:
        count = sum(name.startswith(word) for name in self.constants)
        return f"{word}_{count}"

    # Pools.

    @property
    def _time(self) -> int:
        return 0 if self.time_first else 1

    def _sum_over_time(self, array: str) -> str:
        return self._node("ReduceSum", array, self._axes(self._time), keepdims=0)

    def _last(self, layer: Layer) -> None:
        self._needs_all_if_streaming()
        if self.end:
            # What a recurrent layer ends with is its last live output.
            rows = self._node("Transpose", self.end, perm=[1, 0, 2])
            self.y = self._node("Reshape", rows, self._constant([0, self.width]))
        elif not self.both_ways:
            self.y = self._at_end(self.y)
        else:
            half = (self.width or 0) // 2
            first, second = (
                self._node("Slice", self.y, self._axes(a), self._axes(a + half), self._axes(2))
                for a in (0, half)
            )
            # The other direction ends at the first step.
            self.y = self._node("Concat", self._at_end(first), self._at_start(second), axis=1)
        self._pooled()

    def _at_end(self, array: str) -> str:
        before = self._node("Add", "lengths", self._constant([-1], np.int32))
        return self._picked(array, self._node("Equal", *self._beside(before)))

    def _at_start(self, array: str) -> str:
        zero = self._node("Mul", "lengths", self._constant([0], np.int32))
        first = self._node("Equal", *self._beside(zero))
        return self._picked(array, self._node("And", first, self._live()))

    def _picked(self, array: str, where: str) -> str:
        """The step of each row where a mask is set, or zeros where it never is."""
        where = self._node("Unsqueeze", where, self._axes(2))
        zero = self._constant(0.0, self.dtype)
        return self._sum_over_time(self._node("Where", where, array, zero))

    def _mean_pool(self, layer: Layer) -> None:
        self._needs_all_if_streaming()
        self._clear()
        one = self._constant(1.0, self.dtype)
        counts = self._node("Max", self._cast("lengths", self.dtype), one)
        counts = self._node("Unsqueeze", counts, self._axes(1))
        self.y = self._node("Div", self._sum_over_time(self.y), counts)
        self._pooled()

    def _max_pool(self, layer: Layer) -> None:
        self._needs_all_if_streaming()
        largest = self._node("ReduceMax", self._masked(-np.inf), axes=[self._time], keepdims=0)
        some = self._node("Less", self._constant(0, np.int32), "lengths")
        some = self._node("Unsqueeze", some, self._axes(1))
        self.y = self._node("Where", some, largest, self._constant(0.0, self.dtype))
        self._pooled()

    def _pooled(self) -> None:
        self._rows(clean=False)
        self.pooled = True

    def _finish(self, batch_first: bool) -> None:
        self._clear()
        axes = ["batch"]
        if not self.pooled:
            self._order(time_first=not batch_first)
            axes = self.axes_of_x
        self._node("Identity", self.y, output="y")
        self.outputs.insert(0, self._value("y", self.dtype, [*axes, self.width or "features"]))


#: What writes each kind of layer that is not recurrent.
_LAYERS: dict[str, Callable[[Writer, Layer], None]] = {
    "embedding": Writer._embedding,
    "linear": Writer._linear,
    "layer_norm": Writer._layer_norm,
    "activation": Writer._activation,
    "dropout": Writer._dropout,
    "last": Writer._last,
    "mean_pool": Writer._mean_pool,
    "max_pool": Writer._max_pool,
}


def _cell(layer: Recurrent) -> Cell:
    """What of its operator a layer has."""
    coupled = layer._options().get("coupled", False)
    return COUPLED if coupled else COMPUTED[_RECURRENT[layer.kind]]


def _width(layers: Sequence[Layer]) -> int | None:
    """The features of x, which the first layer that has an opinion takes."""
    for layer in layers:
        for name in ("input_size", "in_features", "size"):
            if name in layer._options():
                return int(layer._options()[name])
    return None
