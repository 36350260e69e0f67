"""Writes golden/onnx: recurrent models of PyTorch as both of its exporters write them.

    python tests/golden/generate_onnx.py [where]

It needs PyTorch and onnx (requirements/peers.txt), and onnxscript 0.7.2. Each model is written as

    {model}-{exporter}.onnx     exporter is script (TorchScript) or dynamo (torch.export)
    {model}.npz                 what goes in under the names of the inputs, and y0, y1, ...

Notes on where a node comes from, which hold paths of the machine, are taken out of the files.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

WORDS, WIDTH, HIDDEN, CLASSES = 12, 4, 5, 3
ROWS, STEPS = 3, 6


class Tagger(nn.Module):
    """A class for each step."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.recurrent = getattr(nn, kind)(WIDTH, HIDDEN, **options)
        self.linear = nn.Linear(HIDDEN * (1 + bool(options.get("bidirectional"))), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.recurrent(self.embedding(x))[0])


class LastStep(Tagger):
    """A class for the last output."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.recurrent(self.embedding(x))[0][:, -1])
        return torch.softmax(self.linear(y), -1)


class FinalState(Tagger):
    """A class for the final state of the last layer, of both directions if there are two."""

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.recurrent(self.embedding(x))
        both = self.recurrent.bidirectional
        return self.linear(torch.cat([h[-2], h[-1]], 1) if both else h[-1])


class Mean(Tagger):
    """A class for the mean of all outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(torch.tanh(self.recurrent(self.embedding(x))[0].mean(1))))


class States(nn.Module):
    """States in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(WIDTH, HIDDEN, 2, bidirectional=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.recurrent(x, (h, c))
        return y, h, c


class Residual(nn.Module):
    """No chain: what the layer reads is added to what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.recurrent(x)[0]


class Packed(nn.Module):
    """Rows of different lengths; the TorchScript exporter alone can write it."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(WIDTH, HIDDEN, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0]


def models() -> dict[str, tuple[nn.Module, dict[str, Tensor], bool]]:
    """Models, what they are called with, and whether batch and time are left open."""
    ids = {"x": torch.randint(0, WORDS, (ROWS, STEPS))}
    numbers = {"x": torch.randn(ROWS, STEPS, WIDTH)}
    first = {"batch_first": True}
    states = {name: torch.randn(4, ROWS, HIDDEN) for name in "hc"}
    lengths = {"lengths": torch.tensor([6, 4, 1])}
    return {
        "lstm-2": (Tagger("LSTM", num_layers=2, **first), ids, True),
        "lstm-2-fixed-shape": (Tagger("LSTM", num_layers=2, **first), ids, False),
        "gru-2-bidirectional": (
            Tagger("GRU", num_layers=2, bidirectional=True, **first),
            ids,
            True,
        ),
        "rnn-tanh": (Tagger("RNN", **first), ids, True),
        "rnn-relu-time-first": (Tagger("RNN", nonlinearity="relu"), ids, True),
        "lstm-no-bias": (Tagger("LSTM", bias=False, **first), ids, True),
        "lstm-last-step": (LastStep("LSTM", num_layers=2, **first), ids, True),
        "lstm-final-state": (FinalState("LSTM", num_layers=2, **first), ids, True),
        "lstm-both-final-states": (FinalState("LSTM", bidirectional=True, **first), ids, True),
        "gru-mean": (Mean("GRU", **first), ids, True),
        "lstm-states": (States(), {"x": numbers["x"].transpose(0, 1), **states}, True),
        "gru-residual": (Residual(), numbers, True),
        "lstm-packed": (Packed(), numbers | lengths, True),
    }


def open_axes(name: str, inputs: dict[str, Tensor]) -> dict[str, dict[int, str]]:
    """The axes whose sizes are not fixed."""
    time_first = name.endswith(("time-first", "states"))
    x = {0: "T", 1: "B"} if time_first else {0: "B", 1: "T"}
    return (
        {"x": x}
        | {n: {1: "B"} for n in inputs if n in "hc"}
        | ({"lengths": {0: "B"}} if "lengths" in inputs else {})
    )


def exported(name: str, exporter: str) -> onnx.ModelProto:
    model, inputs, dynamic = MODELS[name]
    axes = open_axes(name, inputs) if dynamic else None
    arguments = tuple(inputs.values())
    if exporter == "dynamo":
        dims = {each: torch.export.Dim(each, min=2) for each in "BT"}
        shapes = axes and {n: {k: dims[each] for k, each in one.items()} for n, one in axes.items()}
        program = torch.onnx.export(
            model, arguments, dynamo=True, input_names=list(inputs), dynamic_shapes=shapes
        )
        return program.model_proto
    data = io.BytesIO()
    torch.onnx.export(
        model, arguments, data, dynamo=False, input_names=list(inputs), dynamic_axes=axes
    )
    return onnx.load_from_string(data.getvalue())


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    for each in [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info]:
        each.ClearField("doc_string")
        each.ClearField("metadata_props")
    graph.ClearField("value_info")
    return model


torch.manual_seed(1)
MODELS = models()

if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "onnx")
    where.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name, (model, inputs, _) in MODELS.items():
        model.eval()
        with torch.no_grad():
            found = model(*inputs.values())
        outputs = found if isinstance(found, tuple) else (found,)
        arrays = {k: v.numpy() for k, v in inputs.items()}
        arrays |= {f"y{k}": y.numpy() for k, y in enumerate(outputs)}
        np.savez_compressed(where / f"{name}.npz", **arrays)
        for exporter in ("script",) if name == "lstm-packed" else ("script", "dynamo"):
            proto = without_notes(exported(name, exporter))
            (where / f"{name}-{exporter}.onnx").write_bytes(proto.SerializeToString())
