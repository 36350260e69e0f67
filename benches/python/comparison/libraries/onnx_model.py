"""The ONNX model that ONNX Runtime, OpenVINO and tract are all given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from comparison.work import Array, Work

OPSET = 14

#: PyTorch's gates in ONNX's order: i f g o -> i o f c, r z n -> z r h.
ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "gru-before": (1, 0, 2), "rnn": (0,)}
OPERATOR = {"lstm": "LSTM", "gru": "GRU", "gru-before": "GRU", "rnn": "RNN"}
ATTRIBUTES = {"gru": {"linear_before_reset": 1}, "gru-before": {"linear_before_reset": 0}}


@dataclass(frozen=True)
class OnnxModel:
    """One node, its weights as initialisers so that they can be prepared, all shapes static."""

    serialized: bytes
    #: The inputs, in the order of the model.
    feed: dict[str, Array]


def onnx_model(work: Work, *, lengths: bool = False, state: bool = False) -> OnnxModel:
    """With the rows' lengths as an input, and with a state to go on from."""
    hidden, batch, time = work.hidden, work.batch, work.time
    weights = work.weights()

    def gates(name: str) -> Array:
        parts = np.split(weights[name], work.gates)
        return np.concatenate([parts[gate] for gate in ORDER[work.cell]])[None]

    constants = {
        "W": gates("weight_ih_l0"),
        "R": gates("weight_hh_l0"),
        "B": np.concatenate([gates("bias_ih_l0"), gates("bias_hh_l0")], axis=1),
    }
    feed = {"X": work.x()}
    if lengths:
        feed["lengths"] = np.array(work.lengths, np.int32)
    names = ("h", "c") if work.cell == "lstm" else ("h",)
    starts = [f"{name}0" for name in names]
    if state:
        feed.update(zip(starts, work.state(), strict=True))
    else:
        # Zero is what a missing state means; tract takes that for one of a single row.
        constants.update({name: np.zeros((1, batch, hidden), np.float32) for name in starts})
    value = onnx.helper.make_tensor_value_info
    floats = onnx.TensorProto.FLOAT
    node = onnx.helper.make_node(
        OPERATOR[work.cell],
        ["X", "W", "R", "B", "lengths" if lengths else "", *starts],
        ["Y", *(f"{name}n" for name in names)],
        hidden_size=hidden,
        **ATTRIBUTES.get(work.cell, {}),
    )
    graph = onnx.helper.make_graph(
        [node],
        work.cell,
        [
            value(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feed.items()
        ],
        [value("Y", floats, [time, 1, batch, hidden])]
        + [value(f"{name}n", floats, [1, batch, hidden]) for name in names],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8
    )
    onnx.checker.check_model(model)
    return OnnxModel(model.SerializeToString(), feed)
