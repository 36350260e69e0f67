"""Models of ONNX as models of seqrs."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING

from ..errors import VerificationError
from ..layers import Layer
from ..models import Sequential
from ..options import flag
from .chain import Chain, NotAChainError, chain
from .graph import contents, read
from .interpreter import OnnxModel
from .verify import NotComparableError, onnx_runtime, verify_against_onnx_runtime

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["load"]


def load(
    path_or_bytes: str | os.PathLike[str] | bytes | ModelProto, *, verify: bool | None = None
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
    initial state, where ONNX Runtime sets it to zero. An Embedding refuses ids below 0, which count
    from the end in ONNX.

    Args:
        path_or_bytes: an ONNX file, its bytes, or an `onnx.ModelProto`; opset 7 to 28, below 2 GiB,
            at most 10 000 nodes, float32 or float64.
        verify: whether to run both, the graph in ONNX Runtime, on random inputs of several sizes,
            and raise where outputs or final states differ by more than 1e-5 of the largest value.
            None: if the package onnxruntime is there; where there is nothing to compare with, as
            ONNX Runtime does not compute the graph (layout 1, an LSTM in float64) or it is too much
            to compute, there is a warning. `seqrs.onnx.verify` says where ONNX Runtime is not
            right: no lengths of 0 are compared, nor outputs past a row's length.

    Raises:
        ModelFileNotFoundError: there is no file of that name.
        ModelFileError: it is no such file, or a node, attribute, input or type in it is not
            carried (subgraphs, external data, clipping, ...); says which.
        ShapeError, DTypeError: weights do not fit their node; says which.
        VerificationError: with `verify`, the two differ, or with `verify=True` there is nothing to
            compare with; says why.
        ModuleNotFoundError: the package onnx is not installed, or with `verify=True` onnxruntime.
        TypeError: it is neither a path nor bytes nor a model.
    """
    wanted = None if verify is None else flag("verify", verify)
    runtime = onnx_runtime() if wanted else None
    data = contents(path_or_bytes)
    graph = read(data)
    loaded: Chain | OnnxModel
    try:
        loaded = chain(graph)
    except NotAChainError as reason:
        loaded = OnnxModel(graph, str(reason))
    if wanted is None:
        with contextlib.suppress(ModuleNotFoundError):
            runtime = onnx_runtime()
    if runtime is not None:
        try:
            file = data if isinstance(data, bytes) else data.SerializeToString()
            verify_against_onnx_runtime(runtime, file, graph, loaded)
        except NotComparableError as reason:
            if wanted:
                message = f"expected a model to compare with ONNX Runtime, got one where {reason}"
                raise VerificationError(f"verify: {message}") from None
            warnings.warn(
                f"the model was not compared with ONNX Runtime: {reason} "
                "(verify=False does not try to)",
                stacklevel=2,
            )
    return loaded.model if isinstance(loaded, Chain) else loaded
