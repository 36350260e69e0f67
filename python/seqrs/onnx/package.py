"""The package onnx, which only those have who asked for it."""

from __future__ import annotations

from typing import Any

__all__ = ["onnx_package"]


def onnx_package() -> Any:
    """The package onnx.

    Raises:
        ModuleNotFoundError: it is not installed; names the extra.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        message = "onnx: expected the package (pip install 'seqrs[onnx]'), got none"
        raise ModuleNotFoundError(message, name="onnx") from error
    return onnx
