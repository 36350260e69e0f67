"""Models of ONNX as models of seqrs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..layers import Layer
from ..models import Sequential
from .chain import NotAChainError, chain
from .graph import read
from .interpreter import OnnxModel

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["load"]


def load(
    path_or_bytes: str | os.PathLike[str] | bytes | ModelProto,
) -> Sequential | Layer | OnnxModel:
    """A model of ONNX, ready to compute.

    A plain chain of layers comes as a `Sequential`, or as the layer if it is one: it trains, saves
    and streams as any other. Nodes of the same kind and size that follow one another are one layer
    of several (`num_layers`). Its call is that of seqrs: `lengths` and `state` are its arguments,
    y is (B, T, .), or (T, B, .) where the graph reads (T, B, I), also where the graph has an axis
    for directions, and zero past a row's length, whatever the graph gives there.

    Any other graph comes as an `OnnxModel`, which computes it node by node and whose recurrent
    nodes are layers; `.reason` says why it is no chain.

    The file is data: nothing in it is run, and no other file is opened. A row of length 0 keeps its
    initial state, where ONNX Runtime sets it to zero.

    Args:
        path_or_bytes: an ONNX file, its bytes, or an `onnx.ModelProto`; opset 7 to 28, below 2 GiB,
            at most 10 000 nodes, float32 or float64.

    Raises:
        ModelFileNotFoundError: there is no file of that name.
        ModelFileError: it is no such file, or a node, attribute, input or type in it is not
            carried (subgraphs, external data, clipping, ...); says which.
        ShapeError, DTypeError: weights do not fit their node; says which.
        ModuleNotFoundError: the package onnx is not installed.
        TypeError: it is neither a path nor bytes nor a model.
    """
    graph = read(path_or_bytes)
    try:
        return chain(graph)
    except NotAChainError as reason:
        return OnnxModel(graph, str(reason))
