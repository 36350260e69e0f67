"""Reads the arrays of a safetensors file of any library: names and numbers, nothing else.

    8 bytes: length n of the header, least significant byte first
    n bytes: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [begin, end]}}
    the rest: the arrays' bytes; offsets count from here

(`seqrs.load` reads the model files of seqrs, which are safetensors files that also say how the
model is built.) As there, no key may be there twice and the arrays cover the rest exactly. Nothing
larger than the file is ever allocated.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DTypeError, ModelFileError, ModelFileNotFoundError
from ..options import shown

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["SafetensorsFile"]

#: Longest header in bytes.
_MAX_HEADER = 16 << 20
#: Most arrays of a file.
_MAX_ARRAYS = 50_000
#: Most sizes of an array.
_MAX_RANK = 32
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
#: How files of other formats begin.
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (such as PyTorch's .pt)",
    b"PK\x05\x06": "a zip archive (such as PyTorch's .pt)",
    b"\x80\x02": "a Python pickle (such as PyTorch's old .pt)",
    b"\x80\x03": "a Python pickle (such as PyTorch's old .pt)",
    b"\x80\x04": "a Python pickle (such as PyTorch's old .pt)",
    b"\x80\x05": "a Python pickle (such as PyTorch's old .pt)",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
}


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
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
            # A fifo would wait for its writer.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ModelFileError(f"{path}: expected a file, got something else")
            with open(path, "rb") as file:
                self._read_header(file)
        except FileNotFoundError as error:
            raise ModelFileNotFoundError(f"{path}: expected a file, found none") from error
        except (OSError, ValueError) as error:
            # A path with a NUL is a ValueError.
            raise ModelFileError(f"{path}: cannot be read: {error}") from error

    def _wrong(self, what: str, expected: str, got: object) -> ModelFileError:
        return ModelFileError(f"{self._path}: {what}: expected {expected}, got {got}")

    def _read_header(self, file: Any) -> None:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if len(start) < 8:
            raise self._wrong("length", "a safetensors file, of at least 8 bytes", f"{size} bytes")
        length = int.from_bytes(start, "little")
        if length > min(_MAX_HEADER, size - 8):
            for magic, words in _FOREIGN.items():
                if start.startswith(magic):
                    raise self._wrong("format", "safetensors", words)
            raise self._wrong(
                "length of the header", f"at most {min(_MAX_HEADER, size - 8)}", length
            )
        try:
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise self._wrong("header", "a JSON object", error) from error
        if not isinstance(header, dict):
            raise self._wrong("header", "a JSON object", shown(header))
        header.pop("__metadata__", None)
        if len(header) > _MAX_ARRAYS:
            raise self._wrong("header", f"at most {_MAX_ARRAYS} arrays", len(header))
        self._base = 8 + length
        self._entries = {name: self._entry(name, entry) for name, entry in header.items()}
        end = 0
        for name, entry in sorted(self._entries.items(), key=lambda item: item[1][2:]):
            if entry.begin != end:
                raise self._wrong(f"data_offsets of {name!r}", f"a beginning at {end}", entry.begin)
            end = entry.end
        if end != size - self._base:
            got = f"{size - self._base} bytes"
            raise self._wrong("data", f"{end} bytes, as the header says", got)

    def _entry(self, name: str, entry: Any) -> _Entry:
        what = f"entry {name!r} of the header"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._wrong(what, "dtype, shape and data_offsets", shown(entry))
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str):
            raise self._wrong(what, "a dtype that is a string", shown(dtype))
        if not _sizes(shape) or len(shape) > _MAX_RANK:
            raise self._wrong(what, f"a shape of at most {_MAX_RANK} sizes", shown(shape))
        if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._wrong(what, "data_offsets [begin, end]", shown(offsets))
        begin, end = offsets
        if dtype in _DTYPES:
            expected = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
            if end - begin != expected:
                got = f"{end - begin}"
                raise self._wrong(what, f"{expected} bytes for {dtype} {shape}", got)
        return _Entry(dtype, tuple(shape), begin, end)

    def __getitem__(self, name: str) -> Array:
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            expected = " or ".join(("F64", "F32", "F16", "BF16"))
            raise DTypeError(f"{self._path}: {name}: expected {expected}, got {entry.dtype}")
        with open(self._path, "rb") as file:
            file.seek(self._base + entry.begin)
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


def _sizes(value: object) -> bool:
    """Whether it is a list of sizes, which True is none of."""
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < 2**63 for size in value
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no key is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that is there twice")
    return found
