"""What an ONNX file holds, as plain data, checked.

Only this file touches the objects of the package onnx when a model is read; what comes after works
on `Graph`. The package's own checker accepts recurrent nodes with wrong shapes, so nothing is left
to it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelFileError, ModelFileNotFoundError
from ..options import shown
from .package import onnx_package
from .wire import LARGEST_FILE, check_size

__all__ = ["NEWEST_OPSET", "OLDEST_OPSET", "Array", "Graph", "Node", "Value", "contents", "read"]

Array = npt.NDArray[Any]

#: The versions of the operators that `operators` and `recurrent` were written after.
OLDEST_OPSET, NEWEST_OPSET = 7, 28
LARGEST_NODE_COUNT = 10_000
#: Inputs and outputs of a node, its attributes, and dimensions of a tensor.
LARGEST_LIST = 65_536
LARGEST_RANK = 16

#: The element types that are read, by their numbers in onnx.proto.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    11: np.dtype(np.float64),
}


@dataclass(frozen=True)
class Value:
    """An input or output of a graph."""

    name: str
    dtype: np.dtype[Any]
    #: A number for a dimension that is fixed, otherwise its name or None; None: any shape.
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Node:
    """One operation. An empty name stands for an input or output that is left out."""

    place: int
    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        name = f" {shown(self.name)}" if self.name else ""
        return f"node {self.place}{name} ({shown(self.operator)[1:-1]})"

    def input(self, k: int) -> str:
        """The name of input k; empty if it is left out."""
        return self.inputs[k] if k < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer.

        Raises:
            ModelFileError: it is something else.
        """
        value = self.attributes.get(name, default)
        if type(value) is not int:
            raise ModelFileError(f"{self}: {name}: expected an integer, got {shown(value)}")
        return value

    def real(self, name: str, default: float) -> float:
        """An attribute that is a number.

        Raises:
            ModelFileError: it is something else.
        """
        value = self.attributes.get(name, default)
        if type(value) is not float:
            raise ModelFileError(f"{self}: {name}: expected a number, got {shown(value)}")
        return value

    def text(self, name: str, default: str) -> str:
        """An attribute that is a string.

        Raises:
            ModelFileError: it is something else.
        """
        value = self.attributes.get(name, default)
        if type(value) is not str:
            raise ModelFileError(f"{self}: {name}: expected a string, got {shown(value)}")
        return value

    def several(self, name: str, kind: type) -> tuple[Any, ...] | None:
        """An attribute that is a list of integers, numbers or strings; None if it is not there.

        Raises:
            ModelFileError: it is something else.
        """
        value = self.attributes.get(name)
        if value is None:
            return None
        if type(value) is not tuple or any(type(each) is not kind for each in value):
            message = f"{self}: {name}: expected a list of {kind.__name__}, got {shown(value)}"
            raise ModelFileError(message)
        return value


@dataclass(frozen=True)
class Graph:
    """A model: nodes in an order in which each reads what is there already."""

    opset: int
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def contents(source: Any) -> Any:
    """A file's bytes; bytes and a `onnx.ModelProto` as they are.

    Raises:
        ModelFileNotFoundError: there is no file of that name.
        ModelFileError: it cannot be read.
        ModuleNotFoundError: the package onnx is not installed.
        TypeError: it is neither a path nor bytes nor a model.
    """
    if isinstance(source, onnx_package().ModelProto):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    return _contents(source)


def read(source: Any) -> Graph:
    """The graph of a file, of its bytes, or of a `onnx.ModelProto`.

    Raises:
        ModelFileError: it holds what is not carried; says what and where.
        ModelFileNotFoundError, ModuleNotFoundError, TypeError: as `contents`.
    """
    onnx = onnx_package()
    data = contents(source)
    if isinstance(data, onnx.ModelProto):
        return _graph(data)
    check_size(data)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # the parsers of protobuf have no error in common
        raise ModelFileError(f"file: expected an ONNX model, got {shown(str(error))}") from None
    return _graph(model)


def _contents(source: Any) -> bytes:
    try:
        path = os.fspath(source)
    except TypeError:
        message = f"path_or_bytes: expected a path, bytes or a ModelProto, got {shown(source)}"
        raise TypeError(message) from None
    try:
        # Without waiting for someone who writes into a FIFO.
        number = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with open(number, "rb") as file:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode):
                raise ModelFileError(f"{shown(path)}: expected a file, got something else")
            if found.st_size > LARGEST_FILE:
                message = f"expected at most {LARGEST_FILE} bytes, got {found.st_size}"
                raise ModelFileError(f"{shown(path)}: {message}")
            return file.read(LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ModelFileNotFoundError(f"{shown(path)}: expected a file, got {error}") from None
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        raise ModelFileError(f"{shown(path)}: expected a file, got {error}") from None


def _graph(model: Any) -> Graph:
    opset = _opset(model)
    if model.functions:
        name = model.functions[0].name
        raise ModelFileError(f"model: expected no functions of its own, got {shown(name)}")
    if not model.HasField("graph"):
        raise ModelFileError("model: expected a graph, got none")
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelFileError("graph: expected no sparse initialisers, got one")
    if len(graph.node) > LARGEST_NODE_COUNT:
        raise ModelFileError(
            f"graph: expected at most {LARGEST_NODE_COUNT} nodes, got {len(graph.node)}"
        )
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if not tensor.name:
            raise ModelFileError("initialiser: expected one with a name, got one without")
        if tensor.name in constants:
            raise ModelFileError(f"initialiser {shown(tensor.name)}: expected one, got two")
        constants[tensor.name] = _tensor(tensor, f"initialiser {shown(tensor.name)}")
    # Before version 4 of the format an initialiser is an input too, with a default.
    inputs = tuple(_value(each, "input") for each in graph.input if each.name not in constants)
    outputs = tuple(_value(each, "output") for each in graph.output)
    nodes = tuple(_node(each, place) for place, each in enumerate(graph.node))
    _check_order(nodes, [*constants, *(each.name for each in inputs)], outputs)
    return Graph(opset, nodes, constants, inputs, outputs)


def _opset(model: Any) -> int:
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        expected = f"one in {OLDEST_OPSET}..={NEWEST_OPSET}"
        raise ModelFileError(f"model: opset: expected {expected}, got {versions or 'none'}")
    return int(versions[0])


def _value(value: Any, what: str) -> Value:
    name = f"{what} {shown(value.name)}"
    if not value.name or value.type.WhichOneof("value") != "tensor_type":
        raise ModelFileError(f"{name}: expected a tensor with a name, got something else")
    tensor = value.type.tensor_type
    dtype = _dtype(tensor.elem_type, name)
    if not tensor.HasField("shape"):
        return Value(value.name, dtype, None)
    if len(tensor.shape.dim) > LARGEST_RANK:
        message = f"expected at most {LARGEST_RANK} dimensions, got {len(tensor.shape.dim)}"
        raise ModelFileError(f"{name}: {message}")
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            if dim.dim_value < 0:
                raise ModelFileError(f"{name}: expected sizes of 0 and more, got {dim.dim_value}")
            shape.append(int(dim.dim_value))
        else:
            shape.append(dim.dim_param or None)
    return Value(value.name, dtype, tuple(shape))


def _dtype(number: int, name: str) -> np.dtype[Any]:
    if number not in DTYPES:
        expected = ", ".join(str(dtype) for dtype in DTYPES.values())
        raise ModelFileError(f"{name}: expected a type of {expected}, got type {number} of ONNX")
    return DTYPES[number]


def _tensor(tensor: Any, name: str) -> Array:
    """The numbers of a tensor that are in the file itself."""
    onnx = onnx_package()
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        # Its location is a path of the file's choosing, which nothing here follows.
        found = {entry.key: entry.value for entry in tensor.external_data[:8]}
        raise ModelFileError(
            f"{name}: expected its numbers in the file, got external data in "
            f"{shown(found.get('location', ''))}"
        )
    if tensor.HasField("segment"):
        raise ModelFileError(f"{name}: expected a tensor in one piece, got a segment")
    dtype = _dtype(tensor.data_type, name)
    if len(tensor.dims) > LARGEST_RANK:
        message = f"expected at most {LARGEST_RANK} dimensions, got {len(tensor.dims)}"
        raise ModelFileError(f"{name}: {message}")
    shape = tuple(int(dim) for dim in tensor.dims)
    size = 1
    for dim in shape:
        if dim < 0:
            raise ModelFileError(f"{name}: expected sizes of 0 and more, got {shape}")
        size *= dim
    lists = {1: tensor.float_data, 7: tensor.int64_data, 11: tensor.double_data}
    if tensor.HasField("raw_data"):
        found_size, rest = divmod(len(tensor.raw_data), dtype.itemsize)
        found_size = -1 if rest else found_size
    else:
        found_size = len(lists.get(tensor.data_type, tensor.int32_data))
    if found_size != size:
        got = f"{found_size} numbers" if found_size >= 0 else f"{len(tensor.raw_data)} bytes"
        raise ModelFileError(f"{name}: expected {size} numbers for {shape}, got {got}")
    array: Array = onnx.numpy_helper.to_array(tensor)
    return array


def _node(node: Any, place: int) -> Node:
    counts = (len(node.input), len(node.output), len(node.attribute))
    bare = Node(place, node.name, node.op_type, (), (), {})
    if max(counts) > LARGEST_LIST:
        message = f"expected at most {LARGEST_LIST} inputs, outputs and attributes"
        raise ModelFileError(f"{bare}: {message}, got {max(counts)}")
    if node.domain not in ("", "ai.onnx"):
        message = f"expected an operator of ONNX itself, got one of {shown(node.domain)}"
        raise ModelFileError(f"{bare}: {message}")
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.name in attributes:
            raise ModelFileError(f"{bare}: {shown(attribute.name)}: expected it once, got it twice")
        attributes[attribute.name] = _attribute(attribute, bare)
    names = (tuple(node.input), tuple(node.output))
    return Node(place, node.name, node.op_type, *names, attributes)


def _attribute(attribute: Any, node: Node) -> Any:
    types = type(attribute)
    name = f"{node}: {shown(attribute.name)}"
    if attribute.type in (types.GRAPH, types.GRAPHS) or attribute.HasField("g") or attribute.graphs:
        raise ModelFileError(f"{name}: expected no subgraph, got one")
    if attribute.ref_attr_name:
        raise ModelFileError(f"{name}: expected a value, got a reference to another attribute")
    lists = (attribute.ints, attribute.floats, attribute.strings)
    if any(len(each) > LARGEST_LIST for each in lists):
        raise ModelFileError(f"{name}: expected at most {LARGEST_LIST} values, got more")
    if attribute.type == types.INT:
        return int(attribute.i)
    if attribute.type == types.FLOAT:
        return float(attribute.f)
    if attribute.type == types.STRING:
        return _text(attribute.s, name)
    if attribute.type == types.TENSOR:
        return _tensor(attribute.t, name)
    if attribute.type == types.INTS:
        return tuple(int(each) for each in attribute.ints)
    if attribute.type == types.FLOATS:
        return tuple(float(each) for each in attribute.floats)
    if attribute.type == types.STRINGS:
        return tuple(_text(each, name) for each in attribute.strings)
    raise ModelFileError(
        f"{name}: expected numbers, strings or a tensor, got type {attribute.type}"
    )


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelFileError(f"{name}: expected UTF-8, got {shown(value)}") from None


def _check_order(nodes: tuple[Node, ...], given: list[str], outputs: tuple[Value, ...]) -> None:
    """Each name has one source, and is there before it is read."""
    known = set(given)
    if len(known) != len(given):
        raise ModelFileError("graph: expected inputs of different names, got two of one name")
    later = {name: node for node in nodes for name in node.outputs if name}
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                source = later.get(name)
                where = f"{source} gives later (a cycle?)" if source else "nothing gives"
                raise ModelFileError(
                    f"{node}: expected inputs that are there already, got {shown(name)}, "
                    f"which {where}"
                )
        for name in node.outputs:
            if name in known:
                raise ModelFileError(f"{node}: expected outputs of new names, got {shown(name)}")
            if name:
                known.add(name)
    for output in outputs:
        if output.name not in known:
            raise ModelFileError(
                f"output {shown(output.name)}: expected something that gives it, got nothing"
            )
    if not outputs:
        raise ModelFileError("graph: expected at least one output, got none")
