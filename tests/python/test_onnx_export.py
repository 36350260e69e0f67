"""Models out to ONNX: they give in ONNX Runtime what they give here, and come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import seqrs
from cases import Array, flat, numbers, randomise
from onnx_nodes import run_in_onnx_runtime
from seqrs.onnx import OnnxModel
from seqrs.onnx.graph import read
from tolerances import (
    PACKAGE_TO_ONNX_RUNTIME,
    PACKAGE_TO_REFERENCE_F64,
    assert_close,
    assert_same_bits,
)

B, T, I, H, WORDS = 4, 6, 3, 5, 11  # noqa: E741 (the letters of the design)
#: A whole row, one that ends early, one without a live step, one with a single one.
LENGTHS = np.array([T, 4, 0, 1], np.int32)

S = seqrs

#: What is exported: every recurrent layer, stacked, both ways, without biases, time first, and
#: models with every other layer.
MODELS: dict[str, Callable[[], Any]] = {
    "rnn": lambda: S.RNN(I, H),
    "rnn-relu-2": lambda: S.RNN(I, H, 2, nonlinearity="relu"),
    "rnn-bidirectional": lambda: S.RNN(I, H, bidirectional=True),
    "rnn-relu-bidirectional-2": lambda: S.RNN(I, H, 2, nonlinearity="relu", bidirectional=True),
    "rnn-no-bias-time-first": lambda: S.RNN(I, H, bias=False, batch_first=False),
    "lstm": lambda: S.LSTM(I, H),
    "lstm-3": lambda: S.LSTM(I, H, 3, dropout=0.5),
    "lstm-no-bias": lambda: S.LSTM(I, H, bias=False),
    "lstm-bidirectional": lambda: S.LSTM(I, H, bidirectional=True),
    "lstm-bidirectional-2-time-first": lambda: S.LSTM(
        I, H, 2, bidirectional=True, batch_first=False
    ),
    "lstm-one-unit": lambda: S.LSTM(1, 1),
    "lstm-peepholes": lambda: S.LSTM(I, H, peepholes=True),
    "lstm-peepholes-2-no-bias": lambda: S.LSTM(I, H, 2, peepholes=True, bias=False),
    "lstm-peepholes-bidirectional": lambda: S.LSTM(I, H, peepholes=True, bidirectional=True),
    "lstm-coupled": lambda: S.LSTM(I, H, coupled=True),
    "lstm-coupled-peepholes-bidirectional-2": lambda: S.LSTM(
        I, H, 2, coupled=True, peepholes=True, bidirectional=True
    ),
    "rnn-chosen": lambda: S.RNN(I, H, nonlinearity=("affine", 0.5, -0.25), clip=0.75),
    "rnn-chosen-by-default-numbers": lambda: S.RNN(I, H, nonlinearity="scaled_tanh"),
    "lstm-chosen-2": lambda: S.LSTM(
        I,
        H,
        2,
        gate_activation=("hard_sigmoid", 0.3, 0.5),
        output_activation=("elu", 0.5),
        clip=1.5,
    ),
    "lstm-coupled-chosen-bidirectional": lambda: S.LSTM(
        I,
        H,
        coupled=True,
        peepholes=True,
        bidirectional=True,
        gate_activation="hard_sigmoid",
        candidate_activation="thresholded_relu",
        output_activation="leaky_relu",
    ),
    "gru-before-chosen": lambda: S.GRU(I, H, candidate_activation="softsign", clip=1.0),
    "gru-after-chosen-bidirectional": lambda: S.GRU(
        I,
        H,
        reset_after=True,
        bidirectional=True,
        gate_activation=("scaled_tanh", 0.5, 0.75),
        candidate_activation="softplus",
    ),
    "gru-before": lambda: S.GRU(I, H),
    "gru-before-2-no-bias": lambda: S.GRU(I, H, 2, bias=False),
    "gru-before-bidirectional": lambda: S.GRU(I, H, bidirectional=True),
    "gru-after": lambda: S.GRU(I, H, reset_after=True),
    "gru-after-2-time-first": lambda: S.GRU(I, H, 2, reset_after=True, batch_first=False),
    "gru-after-no-bias": lambda: S.GRU(I, H, reset_after=True, bias=False),
    "gru-after-bidirectional-2": lambda: S.GRU(I, H, 2, reset_after=True, bidirectional=True),
    "tagger": lambda: S.Sequential(
        [S.Embedding(WORDS, I), S.LSTM(I, H, 2, dropout=0.2), S.Dropout(0.3), S.Linear(H, 4)]
    ),
    "tagger-time-first": lambda: S.Sequential(
        [S.Embedding(WORDS, I), S.GRU(I, H, batch_first=False), S.Linear(H, 4, bias=False)]
    ),
    "tagger-softmax": lambda: S.Sequential(
        [S.Embedding(WORDS, I, padding_idx=0), S.RNN(I, H), S.Linear(H, 4), S.Activation("softmax")]
    ),
    "linear-first": lambda: S.Sequential(
        [S.Linear(I, H), S.Activation("relu"), S.LSTM(H, H), S.Activation("sigmoid")]
    ),
    "three-layers": lambda: S.Sequential(
        [S.LSTM(I, H), S.GRU(H, I, reset_after=True), S.RNN(I, 2, bidirectional=True)]
    ),
    "layer-norms": lambda: S.Sequential(
        [S.LayerNorm(I, eps=1e-3), S.LSTM(I, H), S.LayerNorm(H), S.Linear(H, 2)]
    ),
    "last": lambda: S.Sequential([S.LSTM(I, H, 2), S.Last(), S.Linear(H, 2)]),
    "last-bidirectional": lambda: S.Sequential(
        [S.GRU(I, H, bidirectional=True), S.Dropout(0.1), S.Last(), S.Linear(2 * H, 2)]
    ),
    "last-time-first": lambda: S.Sequential([S.RNN(I, H, batch_first=False), S.Last()]),
    "last-of-linear": lambda: S.Sequential([S.LSTM(I, H), S.Linear(H, 2), S.Last()]),
    "last-of-both-ways-and-a-norm": lambda: S.Sequential(
        [S.LSTM(I, H, bidirectional=True), S.Activation("tanh"), S.LayerNorm(2 * H), S.Last()]
    ),
    "last-of-both-ways-time-first": lambda: S.Sequential(
        [S.GRU(I, H, bidirectional=True, batch_first=False), S.Activation("sigmoid"), S.Last()]
    ),
    "mean-pool": lambda: S.Sequential([S.GRU(I, H), S.MeanPool(), S.Linear(H, 2)]),
    "mean-pool-of-linear": lambda: S.Sequential(
        [S.LSTM(I, H), S.Linear(H, 2), S.Activation("sigmoid"), S.MeanPool()]
    ),
    "max-pool": lambda: S.Sequential([S.LSTM(I, H, bidirectional=True), S.MaxPool()]),
    "max-pool-time-first": lambda: S.Sequential(
        [S.LSTM(I, H, batch_first=False), S.Linear(H, 3), S.MaxPool(), S.Activation("softmax")]
    ),
}
#: Those that go step by step.
STREAMING = (
    "rnn",
    "rnn-relu-2",
    "rnn-no-bias-time-first",
    "lstm",
    "lstm-3",
    "lstm-no-bias",
    "lstm-peepholes",
    "lstm-peepholes-2-no-bias",
    "lstm-coupled",
    "lstm-chosen-2",
    "gru-before",
    "gru-before-2-no-bias",
    "gru-after",
    "gru-after-2-time-first",
    "tagger",
    "tagger-time-first",
    "tagger-softmax",
    "linear-first",
    "layer-norms",
)


def built(name: str) -> Any:
    model = MODELS[name]()
    randomise(model)
    return model


def inputs(model: Any, batch: int = B, steps: int = T) -> Array:
    """Random x, batch first."""
    random = np.random.default_rng(5)
    layers = model.layers if isinstance(model, seqrs.Sequential) else (model,)
    if isinstance(layers[0], seqrs.Embedding):
        return random.integers(0, WORDS, (batch, steps))
    options = layers[0]._options()
    width = options.get("input_size") or options.get("in_features") or options.get("size")
    return numbers(random, (batch, steps, int(width)), model.dtype)


def in_order(model: Any, x: Array) -> Array:
    """x (B, T, ...) with its axes as the model has them."""
    return x if model._batch_first else np.ascontiguousarray(x.swapaxes(0, 1))


def exported(model: Any, folder: Path, streaming: bool = False) -> bytes:
    path = folder / "model.onnx"
    seqrs.onnx.export(model, path, streaming=streaming)
    onnx.checker.check_model(path, full_check=True)
    return path.read_bytes()


class TestWhole:
    """Sequences with their lengths."""

    def test_there_are_enough(self) -> None:
        assert len(MODELS) >= 30

    @pytest.mark.parametrize("name", MODELS)
    def test_as_in_onnx_runtime(self, name: str, tmp_path: Path) -> None:
        model = built(name)
        data = exported(model, tmp_path)
        x = inputs(model)
        # What is not live has no influence, in ONNX Runtime neither.
        for row, length in zip(x, LENGTHS, strict=True):
            row[length:] = 10**6 if x.dtype.kind == "i" else np.nan
        given = in_order(model, x)
        expected, _ = model(given, lengths=LENGTHS)
        (found,) = run_in_onnx_runtime(data, {"x": given, "lengths": LENGTHS})
        assert_close(found, expected, PACKAGE_TO_ONNX_RUNTIME)
        if found.ndim == 3:
            # Zero past a row's length, exactly.
            rows = found if model._batch_first else found.swapaxes(0, 1)
            assert not any(row[n:].any() for row, n in zip(rows, LENGTHS, strict=True))

    @pytest.mark.parametrize("name", MODELS)
    def test_node_by_node(self, name: str, tmp_path: Path) -> None:
        model = built(name)
        graph = OnnxModel(read(exported(model, tmp_path)))
        given = in_order(model, inputs(model))
        expected, _ = model(given, lengths=LENGTHS)
        assert_close(graph(given, LENGTHS)["y"], expected, PACKAGE_TO_ONNX_RUNTIME)

    @pytest.mark.parametrize("name", MODELS)
    def test_it_comes_back(self, name: str, tmp_path: Path) -> None:
        model = built(name)
        loaded: Any = seqrs.onnx.load(exported(model, tmp_path))
        assert not isinstance(loaded, OnnxModel), loaded.reason
        assert loaded == without_dropout(model)
        given = in_order(model, inputs(model))
        (y, state), (again, end) = (each(given, lengths=LENGTHS) for each in (model, loaded))
        for a, b in zip([y, *flat(state)], [again, *flat(end)], strict=True):
            assert_same_bits(b, a)

    def test_the_forget_gate_of_a_coupled_lstm_is_zeros(self, tmp_path: Path) -> None:
        layer = built("lstm-coupled-peepholes-bidirectional-2")
        graph = onnx.load_from_string(exported(layer, tmp_path)).graph
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        for k in range(2):
            W, R, B, P = (arrays[f"lstm_0_l{k}_{letter}"] for letter in "WRBP")
            assert W.shape[:2] == R.shape[:2] == (2, 4 * H)
            assert not any(a[:, 2 * H : 3 * H].any() for a in (W, R, P))
            assert not B[:, 2 * H : 3 * H].any()
            assert not B[:, 6 * H : 7 * H].any()
            assert_same_bits(P[0, :H], layer.state_dict()[f"weight_ci_l{k}"])

    def test_numbers_are_float32_in_a_file(self, tmp_path: Path) -> None:
        """A third comes back as the shortest number that is the same float32."""
        layer = S.RNN(I, H, nonlinearity=("elu", 1 / 3), clip=2 / 3)
        loaded: Any = seqrs.onnx.load(exported(layer, tmp_path))
        assert (loaded.nonlinearity, loaded.clip) == (("elu", 0.33333334), 0.6666667)
        x = inputs(layer)
        assert_same_bits(loaded(x)[0], layer(x)[0])

    @pytest.mark.parametrize(("batch", "steps"), [(1, 1), (2, 9), (7, 3)])
    def test_batch_and_time_are_open(self, batch: int, steps: int, tmp_path: Path) -> None:
        for name in ("tagger", "last-of-both-ways-and-a-norm", "gru-after-bidirectional-2"):
            model = built(name)
            x = inputs(model, batch, steps)
            lengths = np.full(batch, steps, np.int32)
            (found,) = run_in_onnx_runtime(exported(model, tmp_path), {"x": x, "lengths": lengths})
            assert_close(found, model(x)[0], PACKAGE_TO_ONNX_RUNTIME)

    def test_float64(self, tmp_path: Path) -> None:
        model = S.Sequential([S.LSTM(I, H, dtype="float64"), S.Linear(H, 2, dtype="float64")])
        data = exported(model, tmp_path)
        assert seqrs.onnx.load(data, verify=False) == model
        x = inputs(model)
        y = OnnxModel(read(data))(x, LENGTHS)["y"]
        assert y.dtype == np.float64
        assert_close(y, model(x, lengths=LENGTHS)[0], PACKAGE_TO_REFERENCE_F64)


class TestStreaming:
    """States in and states out."""

    @pytest.mark.parametrize("name", STREAMING)
    @pytest.mark.parametrize("chunk", [1, 4])
    def test_chunks_make_the_sequence(self, name: str, chunk: int, tmp_path: Path) -> None:
        model = built(name)
        data = exported(model, tmp_path, streaming=True)
        x = inputs(model)
        expected, end = model(in_order(model, x))
        names = [each.name for each in onnx.load_from_string(data).graph.input][1:]
        state = dict(zip(names, flat(model.initial_state(B)), strict=True))
        found = []
        for t in range(0, T, chunk):
            given = in_order(model, x[:, t : t + chunk])
            y, *after = run_in_onnx_runtime(data, {"x": given, **state})
            found.append(y)
            state = dict(zip(names, after, strict=True))
        whole = np.concatenate(found, 1 if model._batch_first else 0)
        assert_close(whole, expected, PACKAGE_TO_ONNX_RUNTIME)
        for got, want in zip(state.values(), flat(end), strict=True):
            assert_close(got, want, PACKAGE_TO_ONNX_RUNTIME, "state")

    @pytest.mark.parametrize("name", STREAMING)
    def test_it_comes_back(self, name: str, tmp_path: Path) -> None:
        model = built(name)
        assert seqrs.onnx.load(exported(model, tmp_path, streaming=True)) == without_dropout(model)

    def test_the_names_of_states(self, tmp_path: Path) -> None:
        model = S.Sequential([S.LSTM(I, H, 2), S.Linear(H, I), S.GRU(I, H)])
        graph = onnx.load_from_string(exported(model, tmp_path, streaming=True)).graph
        assert [each.name for each in graph.input] == ["x", "h_in_0", "c_in_0", "h_in_1"]
        assert [each.name for each in graph.output] == ["y", "h_out_0", "c_out_0", "h_out_1"]
        shape = graph.input[1].type.tensor_type.shape.dim
        assert [dim.dim_value or dim.dim_param for dim in shape] == [2, "batch", H]

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (lambda: S.LSTM(I, H, bidirectional=True), r"\(LSTM\): bidirectional: expected"),
            (lambda: S.Sequential([S.LSTM(I, H), S.Last()]), r"layers\[1\] \(Last\): expected"),
            (lambda: S.Sequential([S.GRU(I, H), S.MeanPool()]), r"layers\[1\] \(MeanPool\)"),
            (lambda: S.Sequential([S.GRU(I, H), S.MaxPool()]), r"layers\[1\] \(MaxPool\)"),
        ],
    )
    def test_what_needs_the_whole_sequence(
        self, model: Callable[[], Any], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(seqrs.ModelFileError, match=message):
            seqrs.onnx.export(model(), tmp_path / "never.onnx", streaming=True)
        assert list(tmp_path.iterdir()) == []


def without_dropout(model: Any) -> Any:
    """What is left of a model in a file for inference."""
    if not isinstance(model, seqrs.Sequential):
        return same_without_dropout(model)
    kept = [each for each in model if not isinstance(each, seqrs.Dropout)]
    return seqrs.Sequential([same_without_dropout(layer) for layer in kept])


def same_without_dropout(layer: Any) -> Any:
    """A layer with the options that a file has: no dropout, no padding id."""
    dropped = {"dropout": 0.0, "padding_idx": None}
    shown = {name: getattr(layer, name) for name in layer.shown}
    if not dropped.keys() & shown.keys():
        return layer
    twin = type(layer)(**shown | {k: v for k, v in dropped.items() if k in shown})
    twin.load_state_dict(layer.state_dict())
    return twin


class TestRefused:
    """What has no counterpart, and files that cannot be written."""

    def test_a_projection(self, tmp_path: Path) -> None:
        model = S.Sequential([S.Linear(I, I), S.LSTM(I, H, proj_size=2)])
        expected = r"layers\[1\] \(LSTM\): proj_size: expected 0 \(ONNX has no projection\), got 2"
        with pytest.raises(seqrs.ModelFileError, match=expected):
            seqrs.onnx.export(model, tmp_path / "never.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_options_of_other_kinds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = S.LSTM(I, H)
        options = {**layer._options(), "attention": 3.0}
        monkeypatch.setattr(S.LSTM, "_options", lambda self: options)
        with pytest.raises(seqrs.ModelFileError, match=r"attention: expected none .* got 3\.0"):
            seqrs.onnx.export(layer, tmp_path / "never.onnx")

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (S.RNN(I, H, clip=1e-60, dtype="float64"), r"\(RNN\): clip: .* of float32, got 1e-60"),
            (S.GRU(I, H, gate_activation=("elu", 1e60)), "activation_alpha: .*, got 1e"),
            (S.GRU(I, H, gate_activation=("affine", 1.0, -1e60)), "activation_beta: .*, got -1e"),
        ],
    )
    def test_numbers_that_a_file_cannot_have(
        self, layer: Any, message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(seqrs.ModelFileError, match=message):
            seqrs.onnx.export(layer, tmp_path / "never.onnx")

    def test_layers_of_other_kinds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = S.Sequential([S.LSTM(I, H), S.MeanPool()])
        monkeypatch.setattr(S.MeanPool, "kind", "median_pool")
        with pytest.raises(
            seqrs.ModelFileError, match=r"layers\[1\] \(MeanPool\): expected a layer"
        ):
            seqrs.onnx.export(model, tmp_path / "never.onnx")

    @pytest.mark.parametrize("model", [None, "model", {}, np.zeros(3)])
    def test_what_is_no_model(self, model: Any, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="model: expected a Sequential or a layer"):
            seqrs.onnx.export(model, tmp_path / "never.onnx")

    def test_options(self, tmp_path: Path) -> None:
        streaming: Any = 1
        with pytest.raises(TypeError, match="streaming: expected True or False"):
            seqrs.onnx.export(S.LSTM(I, H), tmp_path / "never.onnx", streaming=streaming)

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(seqrs.ModelFileError, match="expected to write a file"):
            seqrs.onnx.export(S.LSTM(I, H), tmp_path / "no" / "model.onnx")

    def test_a_file_that_is_there_stays_until_the_new_one_is_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "model.onnx"
        seqrs.onnx.export(S.LSTM(I, H), path)
        before = path.read_bytes()
        monkeypatch.setattr("os.replace", raising)
        with pytest.raises(seqrs.ModelFileError, match="no room"):
            seqrs.onnx.export(S.GRU(I, H), path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def raising(*_: Any) -> None:
    raise OSError("no room")
