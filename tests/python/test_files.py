"""Hostile and damaged model files: each is refused by name, at once, and with bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import character_model, python, without_privileges
from tolerances import assert_same_bits

#: Seconds in which any file has to be refused.
AT_ONCE = 0.1
#: A machine that does other things too may be late, but not so often in a row.
TRIES = 8
#: Bytes that refusing one may take beyond twice what the file has.
MEMORY = 32_000_000


def saved(tmp_path: Path, model: Any) -> bytes:
    path = tmp_path / "whole.safetensors"
    model.save(path)
    return path.read_bytes()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header as a dict, and what follows it."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def lstm() -> seqrs.LSTM:
    return seqrs.LSTM(2, 3, seed=1)


def taken(job: Callable[[], object]) -> int:
    """How much more memory was resident during `job` than before it, at most."""
    # Linux forgets the highest value so far; elsewhere there is no telling.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    job()
    return resident() - before


def resident() -> int:
    """The highest value so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def test_memory_is_measured() -> None:
    """Also where more was taken before, so that the checks below can fail."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell")
    for size in (300_000_000, 100_000_000):
        more = taken(lambda size=size: np.ones(size, np.uint8))  # type: ignore[misc]
        assert 0.9 * size < more < 1.1 * size


def assert_refused(path: Path, error: Any = seqrs.ModelFileError) -> str:
    messages: list[str] = []

    def load() -> None:
        with pytest.raises(error) as caught:
            seqrs.load(path)
        messages.append(str(caught.value))

    took = []
    for _ in range(TRIES):
        began = time.perf_counter()
        load()
        took.append(time.perf_counter() - began)
        if took[-1] <= AT_ONCE:
            break
    assert min(took) <= AT_ONCE, took
    size = path.stat().st_size if path.is_file() else 0
    assert taken(load) <= 2 * size + MEMORY
    assert len(set(messages)) == 1
    assert len(messages[0]) < 3000
    assert messages[0].isprintable(), ascii(messages[0])
    return messages[0]


def xxh64(data: bytes, seed: int = 0) -> int:
    """XXH64 (Collet), so that a header can be changed and still have its right checksum."""
    p1, p2, p3, p4, p5 = (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
    m = 2**64 - 1

    def rotl(x: int, r: int) -> int:
        return ((x << r) | (x >> (64 - r))) & m

    def round_(acc: int, lane: int) -> int:
        return rotl((acc + lane * p2) & m, 31) * p1 & m

    n, i = len(data), 0
    if n >= 32:
        v = [(seed + p1 + p2) & m, (seed + p2) & m, seed, (seed - p1) & m]
        while i + 32 <= n:
            for k, lane in enumerate(struct.unpack_from("<4Q", data, i)):
                v[k] = round_(v[k], lane)
            i += 32
        h = (rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18)) & m
        for each in v:
            h = ((h ^ round_(0, each)) * p1 + p4) & m
    else:
        h = (seed + p5) & m
    h = (h + n) & m
    while i + 8 <= n:
        h = (rotl(h ^ round_(0, struct.unpack_from("<Q", data, i)[0]), 27) * p1 + p4) & m
        i += 8
    if i + 4 <= n:
        h = (rotl(h ^ (struct.unpack_from("<I", data, i)[0] * p1 & m), 23) * p2 + p3) & m
        i += 4
    while i < n:
        h = rotl(h ^ (data[i] * p5 & m), 11) * p1 & m
        i += 1
    h = (h ^ (h >> 33)) * p2 & m
    h = (h ^ (h >> 29)) * p3 & m
    return h ^ (h >> 32)


def signed(header: dict[str, Any]) -> dict[str, Any]:
    """The header with the checksum that belongs to its metadata."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != "checksum"}
    text = b"".join(f"{k}\0{metadata[k]}\0".encode() for k in sorted(metadata))
    form = header["__metadata__"]["checksum"]
    number = xxh64(text)
    value = f"{number:016x}" if len(form) == 16 else str(number)
    return {**header, "__metadata__": {**metadata, "checksum": value}}


def test_the_checksum_is_the_documented_one(tmp_path: Path) -> None:
    header, _ = split(saved(tmp_path, lstm()))
    assert signed(header)["__metadata__"] == header["__metadata__"]


def test_a_changed_structure_with_its_right_checksum_is_a_file(tmp_path: Path) -> None:
    """So the cases below are refused for what is wrong with them, not for the checksum."""
    header, body = split(saved(tmp_path, lstm()))
    structure = json.loads(header["__metadata__"]["structure"])
    structure["dropout"] = 0.5
    header["__metadata__"]["structure"] = json.dumps(structure)
    path = tmp_path / "changed"
    path.write_bytes(joined(signed(header), body))
    assert seqrs.load(path).dropout == 0.5  # type: ignore[union-attr]


#: Name -> (what the message says, the file made of a right one).
HEADERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty file": ("length of the file", lambda data: b""),
    "7 bytes": ("length of the file", lambda data: data[:7]),
    "8 bytes of zero": ("header: expected a JSON object", lambda data: bytes(8)),
    "header length 2^63": (
        "length of the header",
        lambda data: struct.pack("<Q", 2**63) + data[8:],
    ),
    "header length 2^64-1": (
        "length of the header",
        lambda data: struct.pack("<Q", 2**64 - 1) + data[8:],
    ),
    "header beyond the file": (
        "length of the header",
        lambda data: struct.pack("<Q", len(data) + 1) + data[8:],
    ),
    "100 MB header of spaces": (
        "length of the header",
        lambda data: joined(b" " * 100_000_000, b""),
    ),
    "100 MB header of a number": (
        "length of the header",
        lambda data: joined(b"1" * 100_000_000, b""),
    ),
    "header not UTF-8": (
        "header: expected UTF-8",
        lambda data: joined(b'{"\xff\xfe": 1}', b""),
    ),
    "header an array": ("a JSON object, got []", lambda data: joined([], b"")),
    "header a number": ("a JSON object, got 3", lambda data: joined(3, b"")),
    "header null": ("a JSON object, got null", lambda data: joined(b"null", b"")),
    "header a string": ('"tensors"', lambda data: joined("tensors", b"")),
    "no metadata": ("format in the metadata", lambda data: joined({}, b"")),
    "100 000 nested brackets": (
        '{"a":[[[[[[[[[[[[[[[',
        lambda data: joined(b'{"a":' + b"[" * 100_000, b""),
    ),
    "100 000 nested braces": ('{"a":{"a":{"a":{"a":', lambda data: joined(b'{"a":' * 100_000, b"")),
    "not JSON": ("key must be a string", lambda data: joined(b"{'a': 1}", b"")),
    "trailing comma": (
        "trailing comma",
        lambda data: joined(split_text(data)[:-1] + b",}", split(data)[1]),
    ),
    "text behind the header": (
        '{"__metadata__":{"ch',
        lambda data: joined(split_text(data) + b"x", split(data)[1]),
    ),
    "byte order mark": (
        '\\u{feff}{"__metadata__":{',
        lambda data: joined(b"\xef\xbb\xbf" + split_text(data), split(data)[1]),
    ),
    "duplicate key": (
        'the key "bias_hh_l0" twice',
        lambda data: joined(doubled(data, b'"bias_hh_l0"'), split(data)[1]),
    ),
    "duplicate key by an escape": (
        'the key "bias_hh_l0" twice',
        lambda data: joined(doubled(data, b'"bias_hh_l\\u0030"'), split(data)[1]),
    ),
    "two metadata": (
        'the key "__metadata__" twice',
        lambda data: joined(b'{"__metadata__":{},' + split_text(data)[1:], split(data)[1]),
    ),
    "trailing bytes": ("data of the file", lambda data: data + b"\0"),
    "many trailing bytes": ("data of the file", lambda data: data * 3),
    "cut short by a byte": ("data of the file", lambda data: data[:-1]),
}


def split_text(data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length].rstrip()


def doubled(data: bytes, name: bytes) -> bytes:
    header, _ = split(data)
    entry = json.dumps(header["bias_hh_l0"]).encode()
    return split_text(data)[:-1] + b"," + name + b":" + entry + b"}"


@pytest.mark.parametrize("name", HEADERS)
def test_broken_containers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    says, make = HEADERS[name]
    path.write_bytes(make(saved(tmp_path, lstm())))
    assert says in assert_refused(path)


def entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["bias_hh_l0"] = {**header["bias_hh_l0"], **changes}

    return change


def metadata(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"] = {**header["__metadata__"], **changes}

    return change


def structure(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        old = json.loads(header["__metadata__"]["structure"])
        new = {k: v for k, v in {**old, **changes}.items() if v is not ...}
        header["__metadata__"]["structure"] = json.dumps(new)

    return change


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[new] = header.pop(old)

    return change


def swapped(header: dict[str, Any]) -> None:
    header["bias_ih_l0"], header["weight_ih_l0"] = header["weight_ih_l0"], header["bias_ih_l0"]


def transposed(header: dict[str, Any]) -> None:
    header["weight_ih_l0"]["shape"].reverse()


def overlapping(header: dict[str, Any]) -> None:
    header["bias_hh_l0"]["data_offsets"] = header["bias_ih_l0"]["data_offsets"]


def shifted(by_begin: int, by_end: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        begin, end = header["bias_hh_l0"]["data_offsets"]
        header["bias_hh_l0"]["data_offsets"] = [begin + by_begin, end + by_end]

    return change


def without(name: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        del header[name]

    return change


def with_many_tensors(count: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for k in range(count):
            header[f"t{k}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}

    return change


def many_layers(count: int) -> str:
    return "[" + ",".join(['{"kind":"last"}'] * count) + "]"


def nested_structure(header: dict[str, Any]) -> None:
    header["__metadata__"]["structure"] = "[" * 100_000


#: Name -> (what the message says, how the header of a right file is changed).
CONTENTS: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "overlapping": ('data_offsets of "bias_ih_l0"', overlapping),
    "hole": ('data_offsets of "bias_hh_l0"', shifted(1, 1)),
    "begin > end": (
        'data_offsets of "bias_hh_l0"',
        lambda h: h["bias_hh_l0"]["data_offsets"].reverse(),
    ),
    "end beyond the file": ("data of the file", shifted(0, 4096)),
    "offsets 2^63": ('data_offsets of "bias_hh_l0"', entry(data_offsets=[2**63, 2**63 + 48])),
    "offsets negative": ("invalid value: integer `-48`", entry(data_offsets=[-48, 0])),
    "offsets float": ("invalid type: floating point `0.0`", entry(data_offsets=[0.0, 48.0])),
    "one offset": ("invalid length 1", entry(data_offsets=[0])),
    "shape of another size": ('shape of "bias_hh_l0"', entry(shape=[13])),
    "shape [2^32, 2^32]": ('shape of "bias_hh_l0"', entry(shape=[2**32, 2**32])),
    "shape [0, 2^62]": ('shape of "bias_hh_l0"', entry(shape=[0, 2**62])),
    "rank 1000": ("more than 32 sizes", entry(shape=[1] * 1000)),
    "dimension -1": ("invalid value: integer `-1`", entry(shape=[-1])),
    "dimension 4.0": ("invalid type: floating point `12.0`", entry(shape=[12.0])),
    "dimension '12'": ('invalid type: string "12"', entry(shape=["12"])),
    "dtype unknown": ('dtype of "bias_hh_l0"', entry(dtype="Q4")),
    "dtype F64": ('dtype of "bias_hh_l0"', entry(dtype="F64")),
    "dtype I32": ('dtype of "bias_hh_l0"', entry(dtype="I32")),
    "dtype F16": ('dtype of "bias_hh_l0"', entry(dtype="F16")),
    "unknown field of a tensor": ("unknown field `stride`", entry(stride=[1])),
    "no shape": ("missing field `shape`", lambda h: h["bias_hh_l0"].pop("shape")),
    "tensor null": ("invalid type: null", lambda h: h.update(bias_hh_l0=None)),
    "tensor missing": ("data of the file", without("bias_hh_l0")),
    "tensor too many": (
        '"extra"',
        lambda h: h.update(extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    ),
    "200 000 tensors": ("length of the header", with_many_tensors(200_000)),
    "as many tensors as a header holds": ("more than 10000 tensors", with_many_tensors(60_000)),
    "swapped": ('shape of "bias_ih_l0"', swapped),
    "transposed": ('shape of "weight_ih_l0"', transposed),
    "name with ../": ('"../../etc/passwd"', renamed("bias_hh_l0", "../../etc/passwd")),
    "name with NUL": ('"bias\\0"', renamed("bias_hh_l0", "bias\0")),
    "name with a newline": ('"bias\\nerror: none"', renamed("bias_hh_l0", "bias\nerror: none")),
    "name with ANSI escapes": (
        '"\\u{1b}[2J\\u{1b}[31mbias"',
        renamed("bias_hh_l0", "\x1b[2J\x1b[31mbias"),
    ),
    "name with bidi": ('"\\u{202e}bias\\u{2066}"', renamed("bias_hh_l0", "\u202ebias\u2066")),
    "name empty": ('""', renamed("bias_hh_l0", "")),
    "name of a megabyte": ('"bbbb', renamed("bias_hh_l0", "b" * 1_000_000)),
    "hidden_size 0": ("structure.hidden_size", structure(hidden_size=0)),
    "hidden_size -1": ("invalid value: integer `-1`", structure(hidden_size=-1)),
    "hidden_size 2^31": (
        "structure.input_size, hidden_size and num_layers",
        structure(hidden_size=2**31),
    ),
    "hidden_size 2^40": (
        "structure.input_size, hidden_size and num_layers",
        structure(hidden_size=2**40),
    ),
    "hidden_size 2^64": ("invalid type: floating point", structure(hidden_size=2**64)),
    "hidden_size '64'": ('invalid type: string "64"', structure(hidden_size="64")),
    "hidden_size 3.0": ("invalid type: floating point `3.0`", structure(hidden_size=3.0)),
    "hidden_size null": ("invalid type: null", structure(hidden_size=None)),
    "hidden_size missing": ("missing field `hidden_size`", structure(hidden_size=...)),
    "10^9 layers": ("structure.num_layers", structure(num_layers=10**9)),
    "another hidden_size": ("data of the file", structure(hidden_size=4)),
    "dropout 2": ("structure.dropout", structure(dropout=2.0)),
    "bidirectional 1": ("invalid type: integer `1`", structure(bidirectional=1)),
    "missing direction": ("data of the file", structure(bidirectional=True)),
    "kind unknown": ("unknown variant `transformer`", structure(kind="transformer")),
    "kind missing": ("missing field `kind`", structure(kind=...)),
    "kind a module": ("unknown variant `os.system`", structure(kind="os.system")),
    "GRU structure with LSTM weights": (
        "data of the file",
        structure(kind="gru", reset_after=True, proj_size=..., forget_bias=...),
    ),
    "forget_bias of a GRU": (
        "unknown field `forget_bias`",
        structure(kind="gru", reset_after=True, proj_size=...),
    ),
    "peepholes of a file without": ("data of the file", structure(peepholes=True)),
    "peepholes 1": ("invalid type: integer `1`", structure(peepholes=1)),
    "coupled of a file without": ("data of the file", structure(coupled=True)),
    "clip 0": ("structure.clip", structure(clip=0.0)),
    "clip text": ('invalid type: string "1"', structure(clip="1")),
    "a function unknown": ("data did not match any variant", structure(gate_activation="gelu")),
    "a number of a function that has none": (
        "structure.alpha of gate_activation",
        structure(gate_activation=["tanh", 1.0]),
    ),
    "a number too many": (
        "structure.beta of output_activation",
        structure(output_activation=["elu", 1.0, 2.0]),
    ),
    "three numbers": (
        "data did not match any variant",
        structure(output_activation=["affine", 1.0, 2.0, 3.0]),
    ),
    "unknown option": ("unknown field `exec`", structure(exec="import os")),
    "nested structure": ("recursion limit exceeded", nested_structure),
    "structure no JSON": ("a layer or a list of layers", metadata(structure="LSTM(2, 3)")),
    "structure a number": ("a layer or a list of layers, as JSON, got 3", metadata(structure="3")),
    "structure an empty list": ("at least one layer, got none", metadata(structure="[]")),
    "a million layers": ("length of the header", metadata(structure=many_layers(1_000_000))),
    "as many layers as a header holds": ("structure", metadata(structure=many_layers(190_000))),
    "dtype of the model": ("data of the file", metadata(dtype="float64")),
    "dtype of the model unknown": ("float64, got float16", metadata(dtype="float16")),
    "another format": ("format in the metadata", metadata(format="pt")),
    "a version from the future": ("min_reader", metadata(format_version="999", min_reader="999")),
    "version 0": ("format_version", metadata(format_version="0")),
    "version text": ("format_version", metadata(format_version="one")),
    "no version": ("format_version", lambda h: h["__metadata__"].pop("format_version")),
    "no structure": ('the key "structure", got none', lambda h: h["__metadata__"].pop("structure")),
    "unknown metadata": ("got hook", metadata(hook="evil")),
    "metadata a number": ("invalid type: integer `3`", metadata(format=3)),
    "metadata null": ("invalid type: null", lambda h: h.update(__metadata__=None)),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_that_do_not_follow(name: str, tmp_path: Path) -> None:
    header, body = split(saved(tmp_path, lstm()))
    says, change = CONTENTS[name]
    change(header)
    if isinstance(header["__metadata__"], dict) and "checksum" in header["__metadata__"]:
        header = signed(header)
    path = tmp_path / "hostile"
    path.write_bytes(joined(header, body))
    assert says in assert_refused(path)


def test_a_wrong_checksum(tmp_path: Path) -> None:
    header, body = split(saved(tmp_path, lstm()))
    header["__metadata__"]["checksum"] = "0" * len(header["__metadata__"]["checksum"])
    path = tmp_path / "hostile"
    path.write_bytes(joined(header, body))
    assert "checksum" in assert_refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_are_not_finite(value: float, dtype: str, tmp_path: Path) -> None:
    layer = seqrs.LSTM(2, 3, dtype=dtype)
    weights = layer.state_dict()
    weights["bias_ih_l0"][5] = value
    layer.load_state_dict(weights)
    path = tmp_path / "hostile"
    layer.save(path)
    assert "bias_ih_l0" in assert_refused(path)
    again = seqrs.load(path, allow_nonfinite=True)
    assert_same_bits(again.state_dict()["bias_ih_l0"], weights["bias_ih_l0"])


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    data = saved(tmp_path, seqrs.Sequential([seqrs.RNN(1, 2), seqrs.Linear(2, 1)]))
    path = tmp_path / "hostile"
    for n in range(len(data)):
        path.write_bytes(data[:n])
        assert_refused(path)


def test_each_bit_of_the_header_flipped(tmp_path: Path) -> None:
    data = saved(tmp_path, seqrs.RNN(1, 2))
    (length,) = struct.unpack("<Q", data[:8])
    path = tmp_path / "hostile"
    for bit in range(8 * (8 + length)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert_refused(path)


class TestPaths:
    REFUSED = (seqrs.ModelFileError, OSError)

    def test_a_fifo(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        refused = threading.Event()

        def load() -> None:
            with pytest.raises(self.REFUSED):
                seqrs.load(path)
            refused.set()

        caller = threading.Thread(target=load, daemon=True)
        caller.start()
        assert refused.wait(10), "load waits for a writer"

    def test_a_directory(self, tmp_path: Path) -> None:
        assert_refused(tmp_path, self.REFUSED)

    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
    def test_a_device(self, device: str) -> None:
        if not os.path.exists(device):
            pytest.skip(f"this system has no {device}")
        assert_refused(Path(device), self.REFUSED)

    def test_a_loop_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert_refused(tmp_path / "a", self.REFUSED)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "nothing-here" in assert_refused(tmp_path / "nothing-here", self.REFUSED)

    def test_a_path_with_nul(self) -> None:
        with pytest.raises((ValueError, *self.REFUSED)):
            seqrs.load("model\0.safetensors")

    def test_no_permission(self) -> None:
        # Not below tmp_path, which is its owner's alone.
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "secret")
            lstm().save(path)
            path.chmod(0)
            Path(name).chmod(0o755)
            assert "secret" in without_privileges(lambda: assert_refused(path, self.REFUSED))

    def test_a_link_to_a_model(self, tmp_path: Path) -> None:
        lstm().save(tmp_path / "model")
        (tmp_path / "link").symlink_to(tmp_path / "model")
        assert seqrs.load(tmp_path / "link") == lstm()


FOREIGN: dict[str, Callable[[Path], object]] = {
    "zip": lambda path: zipfile.ZipFile(path, "w").writestr("data.pkl", b"x" * 100),
    "pt": lambda path: zipfile.ZipFile(path, "w").writestr("archive/data.pkl", b"\x80\x02."),
    "pickle": lambda path: path.write_bytes(b"\x80\x04\x95" + b"\0" * 100),
    "keras": lambda path: zipfile.ZipFile(path, "w").writestr("config.json", "{}"),
    "hdf5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100),
    "onnx": lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch" + b"\0" * 100),
    "gguf": lambda path: path.write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 100),
    "npz": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
    "json": lambda path: path.write_bytes(b'{"layers": []}'),
    "text": lambda path: path.write_bytes(b"hello, world\n" * 10),
    "elf": lambda path: path.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 100),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_kinds_with_our_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    FOREIGN[kind](path)
    assert_refused(path)


def test_a_safetensors_file_of_another_library(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path.write_bytes(joined({"weight": tensor}, bytes(8)))
    assert_refused(path)
    path.write_bytes(joined({"__metadata__": {"format": "pt"}, "weight": tensor}, bytes(8)))
    assert_refused(path)


def test_a_refused_file_may_be_big(tmp_path: Path) -> None:
    """A sparse file of 1 GB is refused by its header, not read."""
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2) + b"{}")
        file.truncate(2**30)
    assert_refused(path)

    def load() -> None:
        with pytest.raises(seqrs.ModelFileError):
            seqrs.load(path)

    assert taken(load) < MEMORY


def test_hostile_bytes_of_a_pickled_layer() -> None:
    """A pickle of a layer holds the bytes of a model file, which are read as strictly."""
    rebuild, (cls, data) = lstm().__reduce__()
    assert rebuild(cls, data) == lstm()
    for broken in (b"", data[:-1], data + b"\0", b"x" * 100):
        with pytest.raises(seqrs.ModelFileError):
            rebuild(cls, broken)


def test_loading_imports_and_opens_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model"
    character_model().save(path)
    code = """
import sys, seqrs, numpy
warm = seqrs.load(sys.argv[1])
events = []
def hook(event, args):
    if event in ("open", "import", "exec", "compile", "os.system", "subprocess.Popen",
                 "socket.connect", "pickle.find_class"):
        events.append((event, str(args[0])))
sys.addaudithook(hook)
seqrs.load(sys.argv[1])
print([e for e in events if e[1] != sys.argv[1]])
"""
    found = python(code, str(path))
    assert found.stdout.strip() == "[]", found.stdout + found.stderr
