"""Where tests compute: on the CPU, and on a GPU where there is one, of software too.

Without one the tests that need it are skipped, and say why; with SEQRS_REQUIRE_GPU=1 nothing runs
at all.
"""

from __future__ import annotations

import os

import pytest
import seqrs

CPU = "cpu"
GPU = "gpu"


def _missing() -> str:
    """Why nothing can run on a GPU here; empty if it can."""
    try:
        seqrs.GRU(1, 1).to(GPU)
    except seqrs.NoDeviceError as error:
        if os.environ.get("SEQRS_REQUIRE_GPU") == "1":
            raise
        return str(error)
    return ""


MISSING = _missing()
gpu = pytest.mark.skipif(bool(MISSING), reason=f"no GPU: {MISSING}")

#: What the fixture `device` goes through, for every test that takes it.
DEVICES = [pytest.param(CPU, id=CPU), pytest.param(GPU, id=GPU, marks=gpu)]
#: Number type and device, for the tests that take both: a GPU computes in float32 alone.
PLACES = [
    pytest.param("float32", CPU, id="float32-cpu"),
    pytest.param("float64", CPU, id="float64-cpu"),
    pytest.param("float32", GPU, id="float32-gpu", marks=gpu),
]
