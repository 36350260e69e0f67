"""Weights of PyTorch without PyTorch: arrays by name, safetensors files, and pickles refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from cases import GOLDEN, Array, parts
from seqrs.interop.safetensors import SafetensorsFile
from seqrs.interop.verify import TOLERANCE, require_equal
from tolerances import assert_close, assert_same_bits

LAYERS = sorted((GOLDEN / "layers").glob("*.npz"))
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16"}


def write(path: Path, arrays: dict[str, Array], dtypes: dict[str, str] | None = None) -> Path:
    """A safetensors file, as other libraries write them."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in arrays.items():
        dtype = (dtypes or {}).get(name) or DTYPES[array.dtype.name]
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    return write_raw(path, header, data)


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def lstm(inputs: int = 3, hidden: int = 4, seed: int = 0, **options: Any) -> dict[str, Array]:
    """Random weights of an LSTM."""
    random = np.random.default_rng(seed)
    layer = seqrs.LSTM(inputs, hidden, **options)
    return {
        name: random.normal(size=p.shape).astype(p.dtype) for name, p in layer.state_dict().items()
    }


class TestGolden:
    """PyTorch's own weights and outputs: every option is found, every number the same."""

    @pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.stem)
    @pytest.mark.parametrize("form", ["arrays", "file"])
    def test_layers(self, path: Path, form: str, tmp_path: Path) -> None:
        golden = np.load(path)
        config = json.loads(str(golden["config"]))
        weights = {n.removeprefix("param."): golden[n] for n in golden if n.startswith("param.")}
        options = config["options"]
        told = {k: options[k] for k in ("nonlinearity", "batch_first") if k in options}
        source: Any = weights
        if form == "file":
            source = write(tmp_path / "model.safetensors", weights)
        layer = seqrs.from_torch_state_dict(source, config["layer"], **told)

        assert type(layer).__name__ == config["layer"]
        assert [layer.input_size, layer.hidden_size] == config["sizes"]  # type: ignore[attr-defined]
        for name, value in options.items():
            assert getattr(layer, name) == value, name
        assert layer.dtype == "float64"
        found = layer.state_dict()
        assert list(found) == list(weights)
        for name, array in weights.items():
            assert_same_bits(found[name], array, name)
        state: Any = None
        if "h0" in golden:
            state = (golden["h0"], golden["c0"]) if "c0" in golden else golden["h0"]
        y, final = layer(golden["x"], state, config["lengths"])
        tolerance = tolerances.PACKAGE_TO_PYTORCH_F64
        assert_close(y, golden["y"], tolerance, "y")
        for letter, part in zip("hc", parts(final), strict=False):
            assert_close(part, golden[letter], tolerance, letter)


class TestKinds:
    def test_a_gru_is_the_one_that_resets_after(self) -> None:
        weights = seqrs.GRU(3, 4, reset_after=True).state_dict()
        layer = seqrs.from_torch_state_dict(weights, "gru")
        assert isinstance(layer, seqrs.GRU)
        assert layer.reset_after

    def test_weights_of_the_other_gru(self) -> None:
        with pytest.raises(seqrs.ShapeError, match="none named 'bias_hh_l0'"):
            seqrs.from_torch_state_dict(seqrs.GRU(3, 4).state_dict(), "GRU")

    @pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
    @pytest.mark.parametrize("bias", [True, False])
    def test_cells(self, kind: str, bias: bool) -> None:
        own = {"GRU": {"reset_after": True}, "RNN": {"nonlinearity": "relu"}}.get(kind, {})
        layer = getattr(seqrs, kind)(3, 4, bias=bias, **own, seed=3)
        cell = {name.removesuffix("_l0"): p for name, p in layer.state_dict().items()}
        given = {"nonlinearity": "relu"} if kind == "RNN" else {}
        assert seqrs.from_torch_state_dict(cell, f"{kind}Cell", **given) == layer

    @pytest.mark.parametrize(
        ("layer", "options"),
        [
            (seqrs.Embedding(7, 3, 2, seed=1), {"padding_idx": 2}),
            (seqrs.Linear(3, 4, seed=1), {}),
            (seqrs.Linear(3, 4, bias=False, seed=1, dtype="float64"), {}),
            (seqrs.LayerNorm(5, eps=1e-3), {"eps": 1e-3}),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_other_layers(self, layer: Any, options: dict[str, Any]) -> None:
        weights = layer.state_dict()
        assert seqrs.from_torch_state_dict(weights, type(layer).__name__, **options) == layer

    @pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "Embedding", "Linear", "LayerNorm"])
    def test_nothing_is_drawn(self, kind: str, request: Any) -> None:
        own = {"GRU": {"reset_after": True}}.get(kind, {})
        sizes = (5,) if kind == "LayerNorm" else (5, 4)
        layer = getattr(seqrs, kind)(*sizes, **own)
        request.getfixturevalue("nothing_drawn")
        assert seqrs.from_torch_state_dict(layer.state_dict(), kind) == layer

    @pytest.mark.parametrize("word", ["LayerNorm", "layer_norm", "layernorm"])
    def test_words(self, word: str) -> None:
        weights = seqrs.LayerNorm(5).state_dict()
        assert seqrs.from_torch_state_dict(weights, word) == seqrs.LayerNorm(5)

    def test_options_that_weights_do_not_tell(self) -> None:
        layer = seqrs.from_torch_state_dict(
            lstm(num_layers=2), "LSTM", batch_first=False, dropout=0.5
        )
        assert isinstance(layer, seqrs.LSTM)
        assert (layer.batch_first, layer.dropout) == (False, 0.5)

    def test_a_part_of_a_model(self) -> None:
        weights = lstm()
        model = {f"encoder.rnn.{name}": p for name, p in weights.items()}
        model |= {"head.weight": np.zeros((2, 4), np.float32), "ids": np.arange(3)}
        layer = seqrs.from_torch_state_dict(model, "LSTM", prefix="encoder.rnn.")
        assert_same_bits(layer.state_dict()["weight_hh_l0"], weights["weight_hh_l0"])


class TestDtypes:
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_of_the_arrays(self, dtype: str) -> None:
        weights = {name: p.astype(dtype) for name, p in lstm().items()}
        layer = seqrs.from_torch_state_dict(weights, "LSTM")
        assert layer.dtype == ("float64" if dtype == "float64" else "float32")
        for name, p in layer.state_dict().items():
            assert_same_bits(p, weights[name].astype(layer.dtype), name)

    def test_asked_for(self) -> None:
        weights = {name: p.astype("float64") / 3 for name, p in lstm().items()}
        layer = seqrs.from_torch_state_dict(weights, "LSTM", dtype="float32")
        assert layer.dtype == "float32"
        name = "weight_ih_l0"
        assert_same_bits(layer.state_dict()[name], weights[name].astype("float32"))

    def test_two_of_them(self) -> None:
        weights = lstm()
        weights["bias_hh_l0"] = weights["bias_hh_l0"].astype("float64")
        with pytest.raises(
            seqrs.DTypeError, match="float32 for 'weight_ih_l0' and float64 for 'bias"
        ):
            seqrs.from_torch_state_dict(weights, "LSTM")

    @pytest.mark.parametrize("dtype", ["int8", "bool", "complex64", "object"])
    def test_no_real_numbers(self, dtype: str) -> None:
        weights = lstm() | {"weight_ih_l0": np.zeros((16, 3), dtype)}
        with pytest.raises(seqrs.DTypeError, match=f"weight_ih_l0: expected float16.*got {dtype}"):
            seqrs.from_torch_state_dict(weights, "LSTM")


def changed(**new: Any) -> dict[str, Any]:
    """The weights of an LSTM with some others, or without those that are None."""
    weights: dict[str, Any] = lstm(num_layers=2) | new
    return {name: p for name, p in weights.items() if p is not None}


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    # kind, weights, message
    "another-kind": ("GRU", lstm(), r"weight_ih_l0: .*3 \* 4 rows.*got 16, as an nn.LSTM has"),
    "no-names": ("LSTM", {}, "expected names that begin with ''"),
    "nothing-of-it": ("LSTM", {"weight": np.zeros((2, 2))}, "got also 'weight'; prefix="),
    "a-name-more": ("LSTM", changed(foo=np.zeros(3, np.float32)), "got also 'foo'"),
    "a-name-less": ("LSTM", changed(weight_hh_l1=None), "none named 'weight_hh_l1'"),
    "without-the-first": ("LSTM", changed(weight_ih_l0=None), "expected 'weight_ih_l0'"),
    "half-a-bias": ("LSTM", changed(bias_hh_l1=None), "none named 'bias_hh_l1'"),
    "half-a-direction": (
        "LSTM",
        changed(weight_ih_l0_reverse=np.zeros((16, 3), np.float32)),
        "none named 'weight_hh_l0_reverse'",
    ),
    "a-layer-left-out": (
        "LSTM",
        lstm() | {"weight_ih_l900000": np.zeros((16, 4), np.float32)},
        "none named 'weight_ih_l1'",
    ),
    "a-shape": (
        "LSTM",
        changed(weight_ih_l1=np.zeros((16, 5), np.float32)),
        r"weight_ih_l1: expected shape \(16, 4\), got \(16, 5\)",
    ),
    "a-rank": ("LSTM", changed(weight_ih_l0=np.zeros(16, np.float32)), "expected two sizes"),
    "projection-of-a-gru": (
        "GRU",
        seqrs.GRU(3, 4, reset_after=True).state_dict()
        | {"weight_hr_l0": np.zeros((2, 4), np.float32)},
        "also 'weight_hr_l0'",
    ),
    "a-cell": ("LSTM", {"weight_ih": np.zeros((16, 3))}, "also 'weight_ih'"),
    "no-cell": ("LSTMCell", lstm(), "of an nn.LSTMCell"),
    "linear-bias": (
        "Linear",
        {"weight": np.zeros((2, 3)), "bias": np.zeros(3)},
        r"bias: expected shape \(2,\), got \(3,\)",
    ),
    "norm-bias": ("LayerNorm", {"weight": np.zeros(3)}, "none named 'bias'"),
    "norm-of-two": ("LayerNorm", {"weight": np.zeros((2, 2)), "bias": np.zeros(4)}, "weight: .*4,"),
    "embedding": ("Embedding", {"weight": np.zeros((2, 2)), "bias": np.zeros(2)}, "also 'bias'"),
}


class TestRefused:
    @pytest.mark.parametrize("name", WRONG)
    def test_weights(self, name: str) -> None:
        kind, weights, message = WRONG[name]
        with pytest.raises(seqrs.ShapeError, match=message):
            seqrs.from_torch_state_dict(weights, kind)

    @pytest.mark.parametrize("names", [("ih",), ("ih", "hh", "bias")])
    def test_nothing_large_is_built_for_small_arrays(
        self, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Names of many layers, of one number each, behind a first one that is large."""
        monkeypatch.setattr("seqrs.interop.pytorch.LSTM", None)
        weights = lstm(8, 64)
        tiny = np.zeros((1, 1), np.float32)
        for first in list(weights):
            if any(word in first for word in names):
                weights |= {first.replace("l0", f"l{k}"): tiny for k in range(1, 2000)}
        with pytest.raises(seqrs.ShapeError, match=r"none named|expected shape \(256, 64\)"):
            seqrs.from_torch_state_dict(weights, "LSTM")

    def test_kind(self) -> None:
        with pytest.raises(ValueError, match=r"kind: expected 'RNN' or .* got 'Conv1d'"):
            seqrs.from_torch_state_dict(lstm(), "Conv1d")
        with pytest.raises(TypeError, match="kind"):
            seqrs.from_torch_state_dict(lstm(), 3)  # type: ignore[arg-type]

    def test_mapping(self) -> None:
        with pytest.raises(TypeError, match="mapping: expected a mapping"):
            seqrs.from_torch_state_dict([1, 2], "LSTM")  # type: ignore[arg-type]

    def test_prefix(self) -> None:
        with pytest.raises(seqrs.ShapeError, match=r"begin with 'rnn\.', got 'weight_ih_l0'"):
            seqrs.from_torch_state_dict(lstm(), "LSTM", prefix="rnn.")

    @pytest.mark.parametrize("name", ["model.pt", "model.PTH", "pytorch_model.bin", "a.ckpt"])
    def test_pickles_by_their_names(self, name: str, tmp_path: Path) -> None:
        """Whether the file is there or not: it is not even looked for."""
        with pytest.raises(seqrs.ModelFileError, match=r"never is.*weights_only=True.*safetensors"):
            seqrs.from_torch_state_dict(tmp_path / name, "LSTM")

    @pytest.mark.parametrize(
        ("start", "words"), [(b"PK\x03\x04", "zip archive"), (b"\x80\x02", "Python pickle")]
    )
    def test_pickles_by_their_content(self, start: bytes, words: str, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(start + b"\xff" * 100)
        with pytest.raises(seqrs.ModelFileError, match=words):
            seqrs.from_torch_state_dict(path, "LSTM")


class TestSafetensors:
    def test_bfloat16(self, tmp_path: Path) -> None:
        weights = {name: p.view(np.uint32) >> 16 for name, p in lstm().items()}
        halves = {name: bits.astype(np.uint16) for name, bits in weights.items()}
        path = write(tmp_path / "m.safetensors", halves, dict.fromkeys(halves, "BF16"))
        layer = seqrs.from_torch_state_dict(path, "LSTM")
        for name, p in layer.state_dict().items():
            assert_same_bits(p, (weights[name] << 16).view(np.float32), name)

    def test_only_what_is_asked_for_is_read(self, tmp_path: Path) -> None:
        """A type that NumPy lacks does no harm to the others."""
        arrays = {f"0.{name}": p for name, p in lstm().items()}
        path = write(
            tmp_path / "m.safetensors",
            arrays | {"1.scale": np.zeros(2, np.uint16)},
            {"1.scale": "F8_E4M3"},
        )
        assert seqrs.from_torch_state_dict(path, "LSTM", prefix="0.").num_parameters == 144
        with pytest.raises(seqrs.DTypeError, match=r"scale: expected F64 .* got F8_E4M3"):
            seqrs.from_torch_state_dict(path, "Linear", prefix="1.")

    def test_our_own_files(self, tmp_path: Path) -> None:
        layer = seqrs.LSTM(3, 4, seed=2)
        layer.save(tmp_path / "m.safetensors")
        assert seqrs.from_torch_state_dict(os.fspath(tmp_path / "m.safetensors"), "LSTM") == layer

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="found none"):
            seqrs.from_torch_state_dict(tmp_path / "none.safetensors", "LSTM")

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path, tmp_path / "fifo"):
            with pytest.raises(seqrs.ModelFileError, match="expected a file to read"):
                seqrs.from_torch_state_dict(path, "LSTM")
        with pytest.raises(seqrs.ModelFileError, match="expected a file to read"):
            seqrs.from_torch_state_dict("m\0.safetensors", "LSTM")

    def test_truncated_at_every_byte(self, tmp_path: Path) -> None:
        path = write(tmp_path / "m.safetensors", {"weight": np.ones((2, 1), np.float32)})
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(seqrs.ModelFileError):
                seqrs.from_torch_state_dict(path, "Linear")

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (b"[]", "JSON object"),
            (b"\xff\xfe", "UTF-8"),
            (b"[" * 100_000, "JSON object"),
            (b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "a": 1}', "twice"),
            ({"a": 1}, "invalid type: integer `1`"),
            ({"a": {"dtype": "F32", "shape": [1]}}, "missing field `data_offsets`"),
            ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "integer `-1`"),
            ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "boolean `true`"),
            ({"a": {"dtype": "F32", "shape": [1] * 33, "data_offsets": [0, 4]}}, "32 sizes"),
            ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, "4398046511104"),
            ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "data_offsets"),
            (
                {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
                "no overlap and no gap",
            ),
            ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, "12 bytes, as the"),
            ({"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}}, "string"),
        ],
    )
    def test_headers(self, header: Any, message: str, tmp_path: Path) -> None:
        path = write_raw(tmp_path / "m.safetensors", header, b"\0" * 8)
        with pytest.raises(seqrs.ModelFileError, match=message):
            SafetensorsFile(os.fspath(path))

    def test_more_than_our_own_files_hold(self, tmp_path: Path) -> None:
        """Up to 50 000 arrays and 16 MB of names."""
        entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        names = [f"{'a' * 100}.{k}" for k in range(50_001)]
        path = write_raw(tmp_path / "m.safetensors", dict.fromkeys(names[:-1], entry))
        found = SafetensorsFile(os.fspath(path))
        assert len(found) == 50_000
        assert found[names[0]].shape == (0,)
        write_raw(path, dict.fromkeys(names, entry))
        with pytest.raises(seqrs.ModelFileError, match="more than 50000 tensors"):
            SafetensorsFile(os.fspath(path))
        write_raw(path, b" " * (2**24 + 1))
        with pytest.raises(seqrs.ModelFileError, match=r"length of the header: .* 16777216"):
            SafetensorsFile(os.fspath(path))

    def test_names_are_escaped(self, tmp_path: Path) -> None:
        entry = {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}
        path = write_raw(tmp_path / "m.safetensors", {"a\x1b[31m": entry}, b"\0" * 8)
        with pytest.raises(seqrs.ModelFileError) as caught:
            SafetensorsFile(os.fspath(path))
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        ("dtype", "kind"),
        [
            *(("F64", "f8"), ("F32", "f4"), ("F16", "f2"), ("I64", "i8"), ("I32", "i4")),
            *(("I16", "i2"), ("I8", "i1"), ("U64", "u8"), ("U32", "u4"), ("U16", "u2")),
            *(("U8", "u1"), ("BOOL", "?")),
        ],
    )
    def test_types_of_numbers(self, dtype: str, kind: str, tmp_path: Path) -> None:
        arrays = {"first": np.ones(3, np.float32), "a": np.array([[0, 1, 1], [1, 0, 1]], kind)}
        path = write(tmp_path / "m.safetensors", arrays, {"a": dtype})
        found = SafetensorsFile(os.fspath(path))
        assert list(found) == ["first", "a"]
        assert_same_bits(found["a"], arrays["a"])

    def test_a_header_that_says_it_is_huge(self, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
        with pytest.raises(seqrs.ModelFileError, match="length of the header: expected at most 2"):
            SafetensorsFile(os.fspath(path))


class TestVerify:
    """The comparison with which importers end."""

    def test_equal(self) -> None:
        a = np.array([1.0, -2.0, np.nan, np.inf])
        require_equal("y", a, a)
        require_equal("y", a * (1 + 0.9 * TOLERANCE), a)
        require_equal("y", np.zeros((0, 3)), np.zeros((0, 3)))

    @pytest.mark.parametrize(
        ("ours", "message"),
        [
            ([1.0, 2.0, 3.0], "shape"),
            ([1.0, 2.0 + 2.1 * TOLERANCE], "largest difference of 2.1e-05"),
            ([1.0, np.nan], "NaN"),
            ([np.inf, 2.0], "NaN and infinities"),
        ],
    )
    def test_different(self, ours: list[float], message: str) -> None:
        with pytest.raises(seqrs.VerificationError, match=message):
            require_equal("y", ours, [1.0, 2.0])


class TestWithoutPyTorch:
    """In a process that has no module of that name."""

    def test_weights_are_read_and_the_rest_says_what_is_missing(self, tmp_path: Path) -> None:
        path = write(tmp_path / "m.safetensors", lstm())
        code = f"""
import sys
sys.modules["torch"] = None
import seqrs
assert seqrs.from_torch_state_dict({os.fspath(path)!r}, "LSTM").hidden_size == 4
for attempt in (lambda: seqrs.from_torch(3), lambda: seqrs.to_torch(seqrs.LSTM(1, 1)),
                lambda: seqrs.torch):
    try:
        attempt()
    except ModuleNotFoundError as error:
        assert error.name == "torch" and "pip install 'seqrs[torch]'" in str(error), error
    else:
        raise AssertionError("it is there")
"""
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr

    def test_who_looks_at_every_name_is_not_stopped(self) -> None:
        code = """
import importlib.util, inspect
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
import seqrs
assert "from_torch" in dir(seqrs) and "torch" not in dir(seqrs)
inspect.getmembers(seqrs)
"""
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr

    def test_the_package_does_not_import_it(self) -> None:
        code = "import sys, seqrs; seqrs.from_torch_state_dict; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)
