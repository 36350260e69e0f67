"""OpenVINO: the CPU plugin, in f32, set for latency."""

from __future__ import annotations

import openvino

from comparison.contender import Contender, outputs
from comparison.libraries.onnx_model import onnx_model
from comparison.work import Work

NAME = "OpenVINO"


def infer(work: Work, threads: int, *, state: bool = False) -> Contender:
    """On padded rows where there are lengths: given these, it leaves its fused loop and is slower.

    Inputs are read where they lie and results stay in the request's own memory until its next call,
    which a user may choose; both spare OpenVINO a copy.
    """
    model = onnx_model(work, state=state)
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Else it computes in bf16 on a processor that has it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(model.serialized, b""), "CPU", settings)
    request = compiled.create_infer_request()
    return Contender(
        NAME if work.lengths is None else f"{NAME}, padded",
        lambda: request.infer(model.feed, share_inputs=True, share_outputs=True),
        lambda value: outputs(work, value[0], [value[k] for k in range(1, len(value))]),
    )
