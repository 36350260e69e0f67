"""tract: one thread, whatever the number asked for; it has no other way to run one layer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tract

from comparison.contender import Contender, outputs
from comparison.libraries.onnx_model import onnx_model
from comparison.work import Work

NAME = "tract"


def infer(work: Work, *, state: bool = False) -> Contender:
    """It refuses lengths, so there is none at ragged rows."""
    model = onnx_model(work, state=state)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.serialized)
        loaded = tract.onnx().load(file)
    for number, array in enumerate(model.feed.values()):
        loaded.set_input_fact(number, ",".join(map(str, array.shape)) + ",f32")
    # `into_model` declutters, `into_runnable` optimises for the processor.
    runnable = loaded.into_model().into_runnable()
    inputs = list(model.feed.values())

    def run() -> list[Any]:
        return [tensor.to_numpy() for tensor in runnable.run(inputs)]

    return Contender(NAME, run, lambda value: outputs(work, value[0], value[1:]))
