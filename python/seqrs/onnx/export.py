"""A layer or model of seqrs as an ONNX file.

What is written: one RNN, LSTM or GRU node for each layer and the nodes around them, with the batch
and time axes left open.

    streaming=False   x, lengths (B,) int32 -> y
    streaming=True    x, h_in_0, c_in_0, ... -> y, h_out_0, c_out_0, ...

x and y have the form that the model has them in, (B, T, .), or (T, B, .) unless it is batch-first;
ids are int64. The states of recurrent layer k, counted from 0 among the recurrent ones, are h_in_k
and, of an LSTM, c_in_k, (L, B, H): zeros to begin with, then what came out under h_out_k and
c_out_k. Any number of steps can be given at a time.

y is zero at steps that are not live, and their x has no influence, as in the model itself. What is
for training alone is left out: dropout, padding_idx, seeds. `clip` and the numbers of functions are
float32 there, which changes nothing of a model in float32.
"""

from __future__ import annotations

import contextlib
import os
import threading

from ..errors import ModelFileError
from ..layers import Layer, checked_path
from ..models import Sequential
from ..options import flag, shown
from .writer import Writer

__all__ = ["export"]


def export(
    model: Sequential | Layer, path: str | os.PathLike[str], streaming: bool = False
) -> None:
    """Writes an ONNX file of opset 17, which ONNX Runtime and others run.

    The file is there whole or not at all. `seqrs.onnx.load` reads it.

    Args:
        model: a Sequential, or a layer.
        path: the file to write, over one that is there.
        streaming: whether the states are inputs and outputs, in place of lengths.

    Raises:
        ModelFileError: a layer cannot be carried (a projection, and when streaming what needs the
            whole sequence); says which. Or the file cannot be written.
        TypeError: it is no model, or an option is none.
        ModuleNotFoundError: the package onnx is not installed.
    """
    streaming = flag("streaming", streaming)
    name = checked_path(path)
    if not isinstance(model, (Sequential, Layer)):
        raise TypeError(f"model: expected a Sequential or a layer, got {shown(model)}")
    _write(name, Writer(model, streaming).serialized())


def _write(name: str, data: bytes) -> None:
    """The whole file under its name, or nothing."""
    folder, base = os.path.split(os.path.abspath(name))
    temporary = os.path.join(folder, f".{base}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{shown(name)}: expected to write a file, got {error}") from None
