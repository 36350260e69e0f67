"""ONNX Runtime: the CPU provider, all options but the number of threads as they are."""

from __future__ import annotations

import onnxruntime

from comparison.contender import Contender, outputs
from comparison.libraries.onnx_model import onnx_model
from comparison.work import Work

NAME = "ONNX Runtime"


def infer(work: Work, threads: int, *, state: bool = False) -> Contender:
    """With the rows' lengths where there are any."""
    model = onnx_model(work, lengths=work.lengths is not None, state=state)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.serialized, options, providers=["CPUExecutionProvider"]
    )
    return Contender(
        NAME,
        lambda: session.run(None, model.feed),
        lambda value: outputs(work, value[0], value[1:]),
    )
