"""The interface that ONNX asks of a backend, so that its own tests run against seqrs.

    tests = onnx.backend.test.BackendTest(seqrs.onnx.backend, __name__)
    globals().update(tests.include("test_(simple_rnn|rnn|lstm|gru)_.*_cpu").test_cases)

A model is computed node by node, whatever its form; `seqrs.onnx.load` makes a chain of layers a
model that trains. Models of operators that are not carried are refused by `prepare`, naming the
node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NoDeviceError, SeqrsError
from ..options import shown, text
from .graph import NEWEST_OPSET, read
from .interpreter import OnnxModel
from .package import onnx_package

if TYPE_CHECKING:
    from .graph import Array

__all__ = ["Prepared", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class Prepared:
    """A model that is ready to run."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    def run(self, inputs: Any, **options: Any) -> tuple[Array, ...]:
        """The outputs of the model, in order.

        Args:
            inputs: one array for each input, in order, or a mapping by name; a single array for a
                model of one input.
            options: none is known.

        Raises:
            TypeError: an input is missing, or there is one too many, or an option is given.
            ShapeError, DTypeError: an input does not fit; says which.
        """
        _no_options(options)
        if isinstance(inputs, dict):
            return tuple(self._model(**inputs).values())
        arrays = [inputs] if isinstance(inputs, np.ndarray) else inputs
        return tuple(self._model(*arrays).values())


def prepare(model: Any, device: str = "CPU", **options: Any) -> Prepared:
    """Makes an `onnx.ModelProto` ready to run.

    Raises:
        ModelFileError: a node is malformed or not carried; says which.
        ShapeError, DTypeError: constants do not fit a node.
        NoDeviceError: the device is not "CPU".
        TypeError: an option is given; none is known.
    """
    _no_options(options)
    if not supports_device(device):
        raise NoDeviceError(f"device: expected 'CPU', got {shown(device)}")
    return Prepared(OnnxModel(read(model)))


def run_model(model: Any, inputs: Any, device: str = "CPU", **options: Any) -> tuple[Array, ...]:
    """The outputs of an `onnx.ModelProto`, as `prepare(model).run(inputs)` gives them."""
    return prepare(model, device, **options).run(inputs)


def run_node(
    node: Any,
    inputs: Any,
    device: str = "CPU",
    outputs_info: Any = None,
    *,
    opset_version: int = NEWEST_OPSET,
    **options: Any,
) -> tuple[Array, ...]:
    """The outputs of an `onnx.NodeProto` alone.

    Args:
        node: the node.
        inputs: one array for each input that is not left out, in order, or a mapping by name.
        device: "CPU".
        outputs_info: of no use here: types and shapes follow from the node.
        opset_version: the version of its operator.
        options: none is known.
    """
    onnx = onnx_package()
    names = [name for name in dict.fromkeys(node.input) if name]
    if isinstance(inputs, dict):
        inputs = [inputs[name] for name in names]
    arrays = [np.asarray(each) for each in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
    if len(arrays) != len(names):
        raise TypeError(f"inputs: expected {len(names)}, got {len(arrays)}")
    value = onnx.helper.make_tensor_value_info
    kind = onnx.helper.np_dtype_to_tensor_dtype
    # The types of the outputs are what comes out; a graph has to say something.
    graph = onnx.helper.make_graph(
        [node],
        "node",
        [
            value(name, kind(array.dtype), array.shape)
            for name, array in zip(names, arrays, strict=True)
        ],
        [value(name, onnx.TensorProto.FLOAT, None) for name in node.output if name],
    )
    opsets = [onnx.helper.make_opsetid("", opset_version)]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    return run_model(model, arrays, device, **options)


def supports_device(device: str) -> bool:
    """Whether models run there: on the CPU alone."""
    return text("device", device).split(":")[0] == "CPU"


def is_compatible(model: Any, device: str = "CPU", **options: Any) -> bool:
    """Whether `prepare` takes the model."""
    try:
        prepare(model, device, **options)
    except SeqrsError:
        return False
    return True


def _no_options(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"options: expected none, got {sorted(options)}")
