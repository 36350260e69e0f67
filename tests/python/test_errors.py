"""Wrong inputs: the exact type of the error, what it names, and that nothing has changed."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import seqrs
from adapter import CPU, GPU, gpu
from cases import Array, assert_same

B, T, I, H = 3, 4, 2, 5  # noqa: E741 (the letters of the design)
X = np.zeros((B, T, I))
IDS = np.zeros((B, T), np.int64)
V = 7

#: The layers, models and trainers of the case that runs, and what they were before it went wrong.
MADE: list[tuple[Any, Any]] = []
#: Where that case makes them.
PLACE = {"device": CPU}

#: (what is tried, the exact type, a pattern for the message).
Case = tuple[str, Callable[[], Any], type[Exception], str]


def snapshot(value: Any) -> Any:
    """All of a layer, model or trainer that a call could change."""
    if isinstance(value, seqrs.Trainer):
        return value.steps_done, value.lr
    return (
        value.device,
        value.fingerprint,
        repr(value),
        {k: p.tobytes() for k, p in value.state_dict().items()},
    )


def made(value: Any) -> Any:
    """`value`, on the device of the case, which has to stay as it is from now on."""
    if not isinstance(value, seqrs.Trainer):
        value.to(PLACE["device"])
    MADE.append((value, snapshot(value)))
    return value


def lstm(**options: Any) -> Any:
    return made(seqrs.LSTM(I, H, **options))


def gru(**options: Any) -> Any:
    return made(seqrs.GRU(I, H, **options))


def words(**options: Any) -> Any:
    layers = [seqrs.Embedding(V, I), seqrs.LSTM(I, H, **options), seqrs.Linear(H, V)]
    return made(seqrs.Sequential(layers, seed=0))


ShapeError, DTypeError, StateError = seqrs.ShapeError, seqrs.DTypeError, seqrs.StateError

OPTIONS: list[Case] = [
    ("input_size 0", lambda: seqrs.LSTM(0, H), ShapeError, "input_size: .*at least 1, got 0"),
    ("hidden_size -1", lambda: seqrs.GRU(I, -1), ShapeError, "hidden_size: .*got -1"),
    ("num_layers 0", lambda: seqrs.RNN(I, H, 0), ShapeError, "num_layers: .*got 0"),
    ("size 1.5", lambda: seqrs.GRU(I, 1.5), TypeError, "hidden_size: .*integer, got 1.5"),  # type: ignore[arg-type]
    ("size 2.0", lambda: seqrs.GRU(I, 2.0), TypeError, "hidden_size: .*integer, got 2.0"),  # type: ignore[arg-type]
    ("size '64'", lambda: seqrs.LSTM("64", H), TypeError, "input_size: .*integer, got '64'"),  # type: ignore[arg-type]
    ("a billion layers", lambda: seqrs.RNN(1, 1, 10**9), ShapeError, "num_layers: .*1000000000"),
    ("size True", lambda: seqrs.LSTM(I, H, True), TypeError, "num_layers: .*got True"),
    ("size None", lambda: seqrs.LSTM(None, H), TypeError, "input_size: .*got None"),  # type: ignore[arg-type]
    ("nonlinearity", lambda: seqrs.RNN(I, H, nonlinearity="gelu"), ValueError,
     "nonlinearity: expected 'relu' or 'tanh' or .* or 'softplus', got 'gelu'"),
    ("nonlinearity 3", lambda: seqrs.RNN(I, H, nonlinearity=3), TypeError,  # type: ignore[arg-type]
     "nonlinearity: expected .*, or a tuple of one and its numbers, got 3"),
    ("a list", lambda: gru(gate_activation=["elu", 1.0]), TypeError,
     r"gate_activation: .*got \['elu', 1.0\]"),
    ("no name", lambda: gru(gate_activation=()), TypeError, r"gate_activation: .*got \(\)"),
    ("a number too many", lambda: lstm(gate_activation=("elu", 1.0, 2.0)), ValueError,
     r"gate_activation: expected \('elu', alpha\), got \('elu', 1.0, 2.0\)"),
    ("a number of a function that has none", lambda: gru(candidate_activation=("relu", 1.0)),
     ValueError, r"candidate_activation: expected 'relu', got \('relu', 1.0\)"),
    ("a number of text", lambda: lstm(output_activation=("affine", 1.0, "b")), TypeError,
     "beta of output_activation: expected a real number, got 'b'"),
    ("a number that is nan", lambda: lstm(candidate_activation=("elu", np.nan)), ValueError,
     "alpha of candidate_activation: .*got nan"),
    ("coupled 1", lambda: lstm(coupled=1), TypeError, "coupled: .*True or False, got 1"),
    ("clip 0", lambda: gru(clip=0.0), ValueError, r"clip: .*\(0, inf\), got 0"),
    ("clip inf", lambda: lstm(clip=np.inf), ValueError, "clip: .*got inf"),
    ("clip text", lambda: seqrs.RNN(I, H, clip="1"), TypeError, "clip: .*real number, got '1'"),  # type: ignore[arg-type]
    ("dropout 1", lambda: lstm(dropout=1.0), ValueError, r"dropout: .*\[0, 1\), got 1"),
    ("dropout -0.1", lambda: lstm(dropout=-0.1), ValueError, "dropout: .*got -0.1"),
    ("dropout nan", lambda: lstm(dropout=np.nan), ValueError, "dropout: .*got nan"),
    ("dropout text", lambda: lstm(dropout="half"), TypeError, "dropout: .*got 'half'"),
    ("proj_size H", lambda: lstm(proj_size=H), ShapeError, "proj_size: .*got 5"),
    ("proj_size -1", lambda: lstm(proj_size=-1), ShapeError, "proj_size: .*got -1"),
    ("bias 1", lambda: gru(bias=1), TypeError, "bias: .*True or False, got 1"),
    ("bidirectional text", lambda: gru(bidirectional="no"), TypeError, "bidirectional: .*'no'"),
    ("dtype int32", lambda: gru(dtype="int32"), DTypeError, "dtype: .*float64.*got 'int32'"),
    ("dtype float16", lambda: gru(dtype="float16"), DTypeError, "dtype: .*got 'float16'"),
    ("seed -1", lambda: gru(seed=-1), ValueError, "seed: .*got -1"),
    ("seed 0.5", lambda: gru(seed=0.5), TypeError, "seed: .*got 0.5"),
    ("peepholes 1", lambda: lstm(peepholes=1), TypeError, "peepholes: .*got 1"),
    ("forget_bias nan", lambda: lstm(forget_bias=np.nan), ValueError, "forget_bias: .*nan"),
    ("padding_idx", lambda: seqrs.Embedding(V, I, padding_idx=V), ShapeError, "padding_idx: .*7"),
    ("activation", lambda: seqrs.Activation("gelu"), ValueError, "function: .*'gelu'"),
    ("p 1", lambda: seqrs.Dropout(1.0), ValueError, r"p: .*\[0, 1\), got 1"),
    ("eps 0", lambda: seqrs.LayerNorm(3, eps=0.0), ValueError, r"eps: .*\(0, inf\), got 0"),
]  # fmt: skip

ARGUMENTS: list[Case] = [
    ("x of 2 axes", lambda: lstm()(X[0]), ShapeError, r"x: expected .*2.*got .*\(4, 2\)"),
    ("x of 4 axes", lambda: lstm()(X[None]), ShapeError, r"x: expected .*got .*\(1, 3, 4, 2\)"),
    ("x too wide", lambda: lstm()(np.zeros((B, T, 3))), ShapeError, r"x: expected .*2.*got .*3"),
    ("x complex", lambda: lstm()(X.astype(complex)), DTypeError, "x: .*got complex128"),
    ("x bool", lambda: lstm()(X.astype(bool)), DTypeError, "x: .*got bool"),
    ("x object", lambda: lstm()(X.astype(object)), DTypeError, "x: .*got object"),
    ("x text", lambda: lstm()(X.astype(str)), DTypeError, "x: .*got (<U|str)"),
    ("x dates", lambda: lstm()(X.astype("M8[s]")), DTypeError, "x: .*got datetime64"),
    ("x None", lambda: lstm()(None), DTypeError, "x: .*real numbers, got object"),
    ("x ragged", lambda: lstm()([[[1.0, 2.0]], [[1.0]]]), ShapeError, "x: .*lengths"),
    ("lengths too few", lambda: lstm()(X, lengths=[1, 2]), ShapeError, "lengths: .*3.*got .*2"),
    ("lengths > T", lambda: lstm()(X, lengths=[1, 2, 5]), ShapeError, "lengths.*: .*4.*got .*5"),
    ("lengths < 0", lambda: lstm()(X, lengths=[1, 2, -1]), ShapeError, "lengths.*: .*got .*-1"),
    ("lengths float", lambda: lstm()(X, lengths=[1.0, 2.0, 3.0]), DTypeError,
     "lengths: .*integers, got float64"),
    ("lengths bool", lambda: lstm()(X, lengths=[True] * B), DTypeError, "lengths: .*got bool"),
    ("lengths of 2 axes", lambda: lstm()(X, lengths=[[1, 2, 3]]), ShapeError,
     r"lengths: .*\(3,\).*got \(1, 3\)"),
    ("lengths scalar", lambda: lstm()(X, lengths=3), ShapeError, r"lengths: .*\(3,\).*got \(\)"),
    ("lengths uint64", lambda: lstm()(X, lengths=np.array([2**64 - 1] * 3, np.uint64)),
     ShapeError, "lengths.*: .*18446744073709551615"),
    ("mask turned", lambda: lstm()(X, mask=np.ones((T, B), bool)), ShapeError,
     r"mask: .*\(3, 4\).*got .*\(4, 3\)"),
    ("mask of 2", lambda: lstm()(X, mask=np.full((B, T), 2)), ShapeError,
     "mask.*: .*got .*2"),
    ("mask float", lambda: lstm()(X, mask=np.ones((B, T))), DTypeError, "mask: .*got float64"),
    ("both", lambda: lstm()(X, lengths=[1] * B, mask=np.ones((B, T), bool)), ShapeError,
     "lengths.*mask.*at most one"),
    ("state of h alone", lambda: lstm()(X, np.zeros((1, B, H))),
     ShapeError,
     r"state: .*\(h, c\)"),
    ("state of three", lambda: lstm()(X, (np.zeros((1, B, H)),) * 3), ShapeError,
     "state: .*got .*3"),
    ("state of another batch", lambda: gru()(X, np.zeros((1, B + 1, H))), ShapeError,
     r"state.*\(1, 3, 5\).*got .*\(1, 4, 5\)"),
    ("state of another size", lambda: gru()(X, np.zeros((1, B, H + 1))), ShapeError,
     r"state.*got .*\(1, 3, 6\)"),
    ("state c", lambda: lstm()(X, (np.zeros((1, B, H)), np.zeros((1, B, 1)))), ShapeError,
     r"state.* c.*got .*\(1, 3, 1\)"),
    ("state complex", lambda: gru()(X, np.zeros((1, B, H), complex)), DTypeError,
     "state.*got complex128"),
    ("state of two directions", lambda: gru()(X, np.zeros((2, B, H))), ShapeError,
     r"state.*got .*\(2, 3, 5\)"),
    ("step of 3 axes", lambda: gru().step(X), ShapeError, r"x_t: .*got .*\(3, 4, 2\)"),
    ("step of two directions", lambda: gru(bidirectional=True).step(X[:, 0]), StateError,
     "GRU.*: .*got a bidirectional one"),
    ("batch_size -1", lambda: gru().initial_state(-1), ShapeError, "batch_size: .*got -1"),
    ("batch_size 2.5", lambda: gru().initial_state(2.5), TypeError, "batch_size: .*got 2.5"),
    ("training 1", lambda: gru().forward(X, training=1), TypeError, "training: .*got 1"),
]  # fmt: skip


def backward(dy: Any = None, dstate: Any = None, layer: Any = None) -> Any:
    layer = layer or lstm()
    _, _, tape = layer.forward(X)
    return layer.backward(tape, dy, dstate)


def foreign_tape() -> Any:
    _, _, tape = lstm().forward(X)
    return lstm().backward(tape, np.zeros((B, T, H)))


def stale_tape(layer: Any) -> Any:
    x = X if isinstance(layer, seqrs.Layer) else IDS
    y, _, tape = layer.forward(x)
    layer.load_state_dict(layer.state_dict())
    return layer.backward(tape, y)


def trained_tape() -> Any:
    model = words()
    y, _, tape = model.forward(IDS)
    seqrs.Trainer(model).step(IDS, IDS)
    MADE.clear()
    made(model)
    return model.backward(tape, y)


def tape_of_a_layer_in_a_model() -> Any:
    model = words()
    _, _, tape = model[1].forward(X)
    return model.backward(tape, np.zeros((B, T, V)))


BACKWARD: list[Case] = [
    ("nothing given", lambda: backward(), ShapeError, "dy and dstate: .*got neither"),
    ("dy turned", lambda: backward(np.zeros((T, B, H))), ShapeError,
     r"dy: .*\(3, 4, 5\).*got .*\(4, 3, 5\)"),
    ("dy complex", lambda: backward(np.zeros((B, T, H), complex)), DTypeError, "dy: .*complex128"),
    ("dstate of h alone", lambda: backward(dstate=np.zeros((1, B, H))),
     ShapeError, r"dstate: .*\(h, c\)"),
    ("dstate of another batch", lambda: backward(dstate=(np.zeros((1, 2, H)),) * 2), ShapeError,
     r"dstate.*got .*\(1, 2, 5\)"),
    ("tape of another layer", foreign_tape, StateError, "tape: .*this layer.*another one's"),
    ("tape of other weights", lambda: stale_tape(lstm()), StateError,
     "tape: .*present parameters.*from before .*changed"),
    ("tape of other weights of a model", lambda: stale_tape(words()), StateError,
     "tape: .*present parameters.*from before .*changed"),
    ("tape from before training", trained_tape, StateError,
     "tape: .*present parameters.*from before .*changed"),
    ("tape of a layer in a model", tape_of_a_layer_in_a_model, StateError,
     "tape: .*this model.*another one's"),
    ("no tape", lambda: lstm().backward(None, X), TypeError, "tape: .*got None"),
]  # fmt: skip

WEIGHTS = lstm().state_dict()
MAPPINGS: list[Case] = [
    ("missing", lambda: lstm().load_state_dict({k: WEIGHTS[k] for k in list(WEIGHTS)[1:]}),
     ShapeError, "weight_ih_l0"),
    ("peepholes missing", lambda: lstm(peepholes=True).load_state_dict(WEIGHTS), ShapeError,
     "weight_ci_l0"),
    ("coupled of four gates", lambda: lstm(coupled=True).load_state_dict(WEIGHTS), ShapeError,
     r"weight_ih_l0: .*got .*20"),
    ("peepholes unexpected", lambda: lstm().load_state_dict(lstm(peepholes=True).state_dict()),
     ShapeError, "weight_ci_l0"),
    ("unexpected", lambda: lstm().load_state_dict({**WEIGHTS, "weight_xx": 1.0}), ShapeError,
     "weight_xx"),
    ("shape", lambda: lstm().load_state_dict({**WEIGHTS, "bias_hh_l0": np.zeros(3)}), ShapeError,
     r"bias_hh_l0: .*\(?20.*got .*\(?3"),
    ("transposed", lambda: lstm().load_state_dict(
        {**WEIGHTS, "weight_ih_l0": WEIGHTS["weight_ih_l0"].T}), ShapeError,
     r"weight_ih_l0: .*\(20, 2\).*got .*\(2, 20\)"),
    ("dtype", lambda: lstm().load_state_dict({**WEIGHTS, "bias_hh_l0": ["a"] * 20}), DTypeError,
     "bias_hh_l0: .*real numbers, got <U1"),
    ("complex", lambda: lstm().load_state_dict({**WEIGHTS, "bias_hh_l0": np.zeros(20, complex)}),
     DTypeError, "bias_hh_l0: .*complex128"),
    ("PyTorch's GRU in reset-before", lambda: gru().load_state_dict(
        gru(reset_after=True).state_dict()), ShapeError, "bias_hh_l0"),
    ("no mapping", lambda: lstm().load_state_dict([1, 2]), TypeError, "mapping: .*list"),
    ("names", lambda: lstm().load_state_dict({1: np.zeros(3)}), TypeError, "mapping: .*1"),
    ("names of a model", lambda: words().load_state_dict(WEIGHTS), ShapeError,
     "state_dict: .*this model.*got (also|none)"),
]  # fmt: skip

MODELS: list[Case] = [
    ("no layers", lambda: seqrs.Sequential([]), ValueError, "layers: .*at least one"),
    ("no layer", lambda: seqrs.Sequential([lstm(), "Linear"]), TypeError,  # type: ignore[list-item]
     r"layers\[1\]: .*'Linear'"),
    ("a layer alone", lambda: seqrs.Sequential(lstm()), TypeError, "layers: .*LSTM"),
    ("widths", lambda: seqrs.Sequential([lstm(), seqrs.Linear(H + 1, 2)]), ShapeError,
     r"(?s)(LSTM.*Linear|Linear.*LSTM)"),
    ("two dtypes", lambda: seqrs.Sequential([lstm(), seqrs.Linear(H, 2, dtype="float64")]),
     DTypeError, r"layer 1 \(Linear\): .*float32.*got float64"),
    ("ids late", lambda: seqrs.Sequential([lstm(), seqrs.Embedding(V, I)]), ValueError,
     r"layer 1 \(Embedding\): .*layer 0 \(LSTM\)"),
    ("recurrent after pooling", lambda: seqrs.Sequential([lstm(), seqrs.Last(), seqrs.GRU(H, H)]),
     ValueError, r"layer 2 \(GRU\): .*layer 1 \(Last\)"),
    ("ids float", lambda: words()(IDS.astype(float)), DTypeError, "x: .*integer.*float64"),
    ("ids bool", lambda: words()(IDS.astype(bool)), DTypeError, "x: .*bool"),
    ("id too large", lambda: words()(IDS + V), ShapeError, r"x\[0, 0\]: .*got 7"),
    ("id negative", lambda: words()(IDS - 1), ShapeError, r"x\[0, 0\]: .*got -1"),
    ("ids of 3 axes", lambda: words()(IDS[..., None]), ShapeError, r"x: .*got .*\(3, 4, 1\)"),
    ("state of a layer", lambda: words()(IDS, lstm().initial_state(B)), ShapeError,
     "state: .*each recurrent layer.*got 2 entries"),
    ("state of too many", lambda: words()(IDS, (None, None)), ShapeError,
     "state: .*each recurrent layer.*got 2 entries"),
    ("step of MeanPool", lambda: made(
        seqrs.Sequential([lstm(), seqrs.MeanPool()])).step(X[:, 0]),
     StateError, "MeanPool.*step by step"),
    ("step of MaxPool", lambda: made(
        seqrs.Sequential([lstm(), seqrs.MaxPool()])).step(X[:, 0]),
     StateError, "MaxPool.*step by step"),
    ("step of a bidirectional layer", lambda: seqrs.Sequential([gru(bidirectional=True)]).step(
        X[:, 0]), StateError, "GRU|bidirectional|direction"),
]  # fmt: skip


def trainer(**options: Any) -> Any:
    return made(seqrs.Trainer(words(), **options))


TRAINING: list[Case] = [
    ("model", lambda: seqrs.Trainer("model"), TypeError, "model: .*'model'"),  # type: ignore[arg-type]
    ("loss", lambda: trainer(loss="mse"), TypeError, "loss: .*'mse'"),
    ("optimizer", lambda: trainer(optimizer=0.1), TypeError, "optimizer: .*0.1"),
    ("clip_norm 0", lambda: trainer(clip_norm=0.0), ValueError, "clip_norm: .*got 0"),
    ("clip_value -1", lambda: trainer(clip_value=-1.0), ValueError, "clip_value: .*got -1"),
    ("bptt 0", lambda: trainer(bptt=0), ShapeError, "bptt: .*got 0"),
    ("bptt 1.5", lambda: trainer(bptt=1.5), TypeError, "bptt: .*got 1.5"),
    ("lr -1", lambda: seqrs.Adam(lr=-1.0), ValueError, "lr: .*got -1"),
    ("lr nan", lambda: seqrs.Adam(lr=np.nan), ValueError, "lr: .*got nan"),
    ("lr text", lambda: seqrs.SGD(lr="fast"), TypeError, "lr: .*got 'fast'"),  # type: ignore[arg-type]
    ("betas", lambda: seqrs.Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\]: .*got 1"),
    ("one beta", lambda: seqrs.Adam(betas=(0.9,)), TypeError, "betas: .*two"),
    ("nesterov", lambda: seqrs.SGD(0.1, nesterov=True), ValueError,
     "nesterov: .*momentum, got True"),
    ("reduction", lambda: seqrs.MSE("median"), ValueError, "reduction: .*'median'"),
    ("delta 0", lambda: seqrs.Huber(0.0), ValueError, "delta: .*got 0"),
    ("target too large", lambda: trainer().step(IDS, IDS + V), ShapeError,
     r"\[0, 0\]: .*class.*got 7"),
    ("target negative", lambda: trainer().step(IDS, IDS - 1), ShapeError,
     r"\[0, 0\]: .*class.*got -1"),
    ("target float", lambda: trainer().step(IDS, X[..., 0]), DTypeError, "y: .*float64"),
    ("target shape", lambda: trainer().step(IDS, IDS[:, :-1]), ShapeError,
     r"y: .*\(3, 4\).*got .*\(3, 3\)"),
    ("target of numbers", lambda: trainer(loss=seqrs.MSE()).step(IDS, IDS), ShapeError,
     r"y: .*\(3, 4, 7\).*got .*\(3, 4\)"),
    ("bptt over Last", lambda: seqrs.Trainer(
        made(seqrs.Sequential([lstm(), seqrs.Last()])), loss=seqrs.MSE(), bptt=2
    ).step(X, np.zeros((B, H))), ValueError, r"bptt: .*Last.*got 2"),
    ("no batch", lambda: trainer().fit([], 1, progress=False), ValueError, "data: .*at least one"),
    ("a batch of one", lambda: trainer().fit([(IDS,)], 1, progress=False), ValueError,
     r"data: batch 0: .*\(x, y\)"),
    ("an iterator twice", lambda: trainer().fit(iter([(IDS, IDS)]), 2, progress=False), ValueError,
     "data: .*iterator"),
    ("no callback", lambda: trainer().fit([(IDS, IDS)], 1, callbacks=[3]), TypeError,
     r"callbacks\[0\]: .*3"),
    ("epochs -1", lambda: trainer().fit([(IDS, IDS)], -1), ShapeError, "epochs: .*-1"),
    ("evaluate nothing", lambda: trainer().evaluate([]), ValueError,
     "data: .*at least one batch, got none"),
    ("plateau factor", lambda: seqrs.schedules.plateau(0.1, factor=2.0), ValueError, "factor: .*2"),
    ("cosine warmup", lambda: seqrs.schedules.cosine(0.1, 10, warmup=11), ShapeError,
     "warmup: .*11"),
]  # fmt: skip

LOSSES: list[Case] = [
    ("y_pred of 1 axis", lambda: seqrs.MSE()([1.0], [1.0]), ShapeError, r"y_pred: .*got \(1,\)"),
    ("shapes", lambda: seqrs.MSE()(X, X[:2]), ShapeError, r"y: .*\(3, 4, 2\), got \(2, 4, 2\)"),
    ("classes", lambda: seqrs.CrossEntropy()(X, IDS + 2), ShapeError, r"y\[0, 0\]: .*class.*got 2"),
    ("float classes", lambda: seqrs.CrossEntropy()(X, X[..., 0]), DTypeError, "y: .*float64"),
    ("lengths", lambda: seqrs.MSE()(X, X, lengths=[5, 1, 1]), ShapeError,
     r"lengths\[0\]: .*4.*got 5"),
    ("target of 2", lambda: seqrs.BinaryCrossEntropy()(X, 2.0 * np.ones_like(X)), ShapeError,
     r"y\[0, 0, 0\]: .*\[0, 1\], got 2"),
    ("both", lambda: seqrs.MSE()(X, X, [1] * B, np.ones((B, T), bool)), ShapeError, "at most one"),
]  # fmt: skip

WIDE = seqrs.Sequential([seqrs.Embedding(V, I), seqrs.Linear(I, V + 2)])

REST: list[Case] = [
    ("threads 0", lambda: seqrs.set_num_threads(0), ShapeError, "n: .*got 0"),
    ("threads 1.5", lambda: seqrs.set_num_threads(1.5), TypeError, "n: .*got 1.5"),  # type: ignore[arg-type]
    ("prompt empty", lambda: seqrs.generate(words(), [], 3), ShapeError,
     r"prompt: .*at least one id.*got shape \(0,\)"),
    ("prompt float", lambda: seqrs.generate(words(), [0.5], 3), DTypeError, "prompt: .*float64"),
    ("logits beyond the ids", lambda: seqrs.generate(WIDE, [1], 1), ShapeError,
     r"logits of the model: .*at most 7.*got 9"),
    ("prompt id", lambda: seqrs.generate(words(), [V], 3), ShapeError,
     r"prompt\[0\]: .*got 7"),
    ("steps -1", lambda: seqrs.generate(words(), [1], -1), ShapeError, "steps: .*-1"),
    ("temperature", lambda: seqrs.generate(words(), [1], 1, temperature=-1.0), ValueError,
     "temperature: .*-1"),
    ("top_k 0", lambda: seqrs.generate(words(), [1], 1, top_k=0), ShapeError, "top_k: .*0"),
    ("top_p 0", lambda: seqrs.generate(words(), [1], 1, top_p=0.0), ValueError, "top_p: .*0"),
    ("no file", lambda: seqrs.load("/nowhere/model"), seqrs.ModelFileNotFoundError,
     "/nowhere/model"),
    ("path 3", lambda: seqrs.load(3), TypeError, "path|PathLike"),  # type: ignore[arg-type]
    ("attribute", lambda: seqrs.LSMT, AttributeError, "LSMT"),
    ("option is fixed", lambda: setattr(lstm(), "hidden_size", 3), AttributeError, "hidden_size"),
    ("vocab", lambda: seqrs.data.TextCorpus("abcabc", 1, 2, vocab="ab"), ValueError, "'c'"),
    ("short text", lambda: seqrs.data.TextCorpus("abc", 2, 5), ValueError, "text: .*11.*got 3"),
    ("windows", lambda: seqrs.data.Windows(np.zeros(5), 4, 2, 1), ShapeError, "series: .*6.*got 5"),
    ("padded", lambda: seqrs.data.Padded([[1, 2]], [1, 2], 1), ShapeError, "targets: .*1.*got 2"),
]  # fmt: skip

EVERY = {
    "options": OPTIONS,
    "arguments": ARGUMENTS,
    "backward": BACKWARD,
    "state-dicts": MAPPINGS,
    "models": MODELS,
    "training": TRAINING,
    "losses": LOSSES,
    "rest": REST,
}
#: The groups in which something computes, or would have: they go wrong on a GPU as well.
COMPUTING = ("arguments", "backward", "state-dicts", "models", "training")


def named(group: str, case: Case, *end: str) -> str:
    return re.sub(r"\W+", "-", "-".join([group, case[0], *end])).strip("-")


CASES = [pytest.param(*case[1:], id=named(group, case)) for group in EVERY for case in EVERY[group]]
CASES_AND_DEVICES = [
    pytest.param(*case[1:], device, id=named(group, case, device), marks=marks)
    for device, marks in ((CPU, ()), (GPU, gpu))
    for group in EVERY
    for case in EVERY[group]
    if device == CPU or group in COMPUTING
]


@pytest.mark.parametrize(("attempt", "error", "pattern", "device"), CASES_AND_DEVICES)
def test_the_error_has_the_type_and_message_and_nothing_has_changed(
    attempt: Callable[[], Any],
    error: type[Exception],
    pattern: str,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    MADE.clear()
    monkeypatch.setitem(PLACE, "device", device)
    threads = seqrs.get_num_threads()
    with pytest.raises(error) as caught:
        attempt()
    for value, before in MADE:
        assert snapshot(value) == before
    assert not X.any()
    assert not IDS.any()
    assert seqrs.get_num_threads() == threads
    message = str(caught.value)
    # No subclass either: a plain ValueError is not a ShapeError.
    assert type(caught.value) is error, repr(caught.value)
    assert re.search(pattern, message), message
    assert pattern
    assert len(message) < 2000
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert str(again) == message


MESSAGE = re.compile(r".+: expected .+, got .+", re.DOTALL)
OURS = [
    pytest.param(*case.values, id=case.id)
    for case in CASES
    # What Python itself says, and the path of a file that is missing.
    if case.id not in ("rest-path-3", "rest-attribute", "rest-option-is-fixed", "rest-no-file")
]


@pytest.mark.parametrize(("attempt", "error", "pattern"), OURS)
def test_every_message_of_ours_says_what_was_expected_and_what_came(
    attempt: Callable[[], Any], error: type[Exception], pattern: str
) -> None:
    with pytest.raises(error) as caught:
        attempt()
    assert MESSAGE.search(str(caught.value)), str(caught.value)


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 150
    assert len(OURS) == len(CASES) - 4
    assert len({case.id for case in CASES}) == len(CASES)


class TestKinds:
    def test_the_tree_of_errors(self) -> None:
        for name, others in {
            "ShapeError": (ValueError,),
            "DTypeError": (TypeError,),
            "StateError": (),
            "ModelFileError": (),
            "NumericalError": (),
            "NoDeviceError": (),
            "QueueFullError": (),
            "VerificationError": (),
            "InternalError": (),
        }.items():
            error = getattr(seqrs, name)
            assert issubclass(error, (seqrs.SeqrsError, *others))
            assert all(issubclass(error, other) for other in others)
            assert error.__name__ == name
            again = pickle.loads(pickle.dumps(error("what: expected this, got that")))
            assert (type(again), str(again)) == (error, "what: expected this, got that")
        assert issubclass(seqrs.SeqrsError, Exception)

    def test_sizes_that_cannot_be_had(self) -> None:
        for attempt in (
            lambda: seqrs.LSTM(2**40, 2**40),
            lambda: seqrs.LSTM(2**62, 4),
            lambda: seqrs.LSTM(4, 2**31),
            lambda: seqrs.GRU(4, 4, 2**62),
            lambda: seqrs.GRU(4, 10**30),
            lambda: seqrs.Embedding(2**50, 2**20),
            lambda: seqrs.Linear(2**33, 2**33),
            lambda: seqrs.LSTM(1, 4).initial_state(2**61),
        ):
            with pytest.raises((MemoryError, seqrs.ShapeError)) as caught:
                attempt()
            assert MESSAGE.search(str(caught.value)), str(caught.value)

    def test_outputs_that_cannot_be_had(self) -> None:
        # Memory for the input there is: it is the output that no address space could hold.
        layer = seqrs.Linear(1, 2**22)
        x = np.zeros((1, 2**24, 1), np.float32)
        with pytest.raises(MemoryError, match="output of a linear layer: expected room for"):
            layer(x)
        assert layer(x[:, :2])[0].shape == (1, 2, 2**22)


class TestNothingHasChanged:
    def test_after_every_wrong_call_of_a_layer(self, device: str) -> None:
        layer = lstm(num_layers=2).to(device)
        before, fingerprint = layer.state_dict(), layer.fingerprint
        y_before: Array = layer(X + 0.5)[0]
        attempts: tuple[Callable[[], Any], ...] = (
            lambda: layer(X[0]),
            lambda: layer(X, lengths=[9] * B),
            lambda: layer(X, np.zeros(3)),
            lambda: layer.step(X),
            lambda: layer.load_state_dict({**before, "bias_hh_l1": np.zeros(2)}),
            lambda: layer.load_state_dict({"bias_hh_l1": np.zeros(2)}, strict=False),
            lambda: layer.load_state_dict({}),
        )
        for bad in attempts:
            with pytest.raises(seqrs.SeqrsError):
                bad()
        assert_same(layer.state_dict(), before)
        assert layer.fingerprint == fingerprint
        assert np.array_equal(layer(X + 0.5)[0], y_before)

    def test_after_wrong_steps_of_training(self, device: str) -> None:
        model = words().to(device)
        before = model.state_dict()
        learner = seqrs.Trainer(model)
        attempts: tuple[Callable[[], Any], ...] = (
            lambda: learner.step(IDS, IDS + V),
            lambda: learner.step(IDS - 1, IDS),
            lambda: learner.step(IDS, IDS[0]),
            lambda: learner.step(IDS, IDS, lengths=[9] * B),
            lambda: learner.step(IDS, IDS, state=model.initial_state(B + 1)),
        )
        for bad in attempts:
            with pytest.raises(seqrs.SeqrsError):
                bad()
        assert_same(model.state_dict(), before)
        assert learner.steps_done == 0

    def test_a_tape_that_was_refused_still_serves_its_own_layer(self, device: str) -> None:
        layer, other = lstm().to(device), lstm().to(device)
        y, _, tape = layer.forward(X)
        with pytest.raises(seqrs.StateError):
            other.backward(tape, y)
        layer.backward(tape, y)
