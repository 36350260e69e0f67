"""Whether there is a GPU for the tests that need one, of software too.

Without one they are skipped, and say why; with SEQRS_REQUIRE_GPU=1 nothing runs at all.
"""

from __future__ import annotations

import os

import pytest
import seqrs

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

#: Number type and device of a layer: every test that takes them is named after both.
PLACES = [
    pytest.param("float32", "cpu", id="float32"),
    pytest.param("float64", "cpu", id="float64"),
    pytest.param("float32", GPU, id="float32-gpu", marks=gpu),
]
