"""Reads the arrays of a safetensors file of any library: names and numbers, nothing else.

The header is read, and refused, as that of the model files of seqrs, which are safetensors files
that also say how the model is built: no key may be there twice and the arrays cover the rest of the
file exactly. Nothing larger than the file is ever allocated.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _seqrs
from ..errors import DTypeError, ModelFileError, ModelFileNotFoundError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["SafetensorsFile"]

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    # The upper half of a float32.
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


class _Entry(NamedTuple):
    dtype: str
    shape: list[int]
    begin: int
    end: int


class SafetensorsFile(Mapping[str, "Array"]):
    """The arrays of a file by name, each read when it is asked for.

    BF16 comes as float32, exactly.

    Raises:
        ModelFileNotFoundError: there is no file of that name; a FileNotFoundError too.
        ModelFileError: it cannot be read or is no safetensors file; says what was found.
        DTypeError: an array that is asked for holds numbers that NumPy does not have.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            found = _seqrs.foreign_tensors(path)
        except ModelFileError as error:
            if "\0" not in path and not os.path.lexists(path):
                raise ModelFileNotFoundError(f"{path}: expected a file, found none") from error
            raise
        self._entries = {each[0]: _Entry(*each[1:]) for each in found}
        for name, entry in self._entries.items():
            if entry.dtype in _DTYPES:
                expected = math.prod(entry.shape) * np.dtype(_DTYPES[entry.dtype]).itemsize
                if entry.end - entry.begin != expected:
                    raise self._wrong(
                        f"entry {name!r} of the header",
                        f"{expected} bytes for {entry.dtype} {entry.shape}",
                        entry.end - entry.begin,
                    )

    def _wrong(self, what: str, expected: str, got: object) -> ModelFileError:
        return ModelFileError(f"{self._path}: {what}: expected {expected}, got {got}")

    def __getitem__(self, name: str) -> Array:
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            expected = " or ".join(("F64", "F32", "F16", "BF16"))
            raise DTypeError(f"{self._path}: {name}: expected {expected}, got {entry.dtype}")
        with open(self._path, "rb") as file:
            file.seek(entry.begin)
            data = file.read(entry.end - entry.begin)
        if len(data) != entry.end - entry.begin:
            raise self._wrong(f"data of {name!r}", "a file that stays as it is", "its end")
        array: Array = np.frombuffer(data, _DTYPES[entry.dtype]).reshape(entry.shape)
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
