"""ONNX: models of other libraries in, models of seqrs out.

>>> model = seqrs.Sequential([seqrs.LSTM(8, 16, bidirectional=True), seqrs.Linear(32, 4)])
>>> seqrs.onnx.export(model, "model.onnx")                    # for ONNX Runtime and others
>>> seqrs.onnx.load("model.onnx") == model                    # and models of others
True

`load` gives a `Sequential` (or a layer) for a plain chain of layers, else an `OnnxModel`, which is
for inference; where the package onnxruntime is there, it is compared with the graph.
`export(..., streaming=True)` writes a model with its states as inputs and outputs.
`seqrs.onnx.backend` is the interface that ONNX asks of a backend.

What is carried of RNN, LSTM and GRU is in `seqrs.onnx.recurrent`, of other operators in
`seqrs.onnx.operators`; anything else is refused, naming the node. It needs the package onnx:
`pip install 'seqrs[onnx]'`.
"""

from __future__ import annotations

from . import backend
from .export import export
from .interpreter import OnnxModel
from .loading import load

__all__ = ["OnnxModel", "backend", "export", "load"]
