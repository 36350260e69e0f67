"""What pytest is told about these tests, and the device on which they compute."""

from __future__ import annotations

import os

import pytest
from adapter import DEVICES

# Pictures are drawn in memory, also where there is a screen.
os.environ["MPLBACKEND"] = "Agg"


def pytest_configure(config: pytest.Config) -> None:
    reason = "needs PyTorch or Keras, which `make test` does not install"
    config.addinivalue_line("markers", f"interop: {reason}")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A test that takes it runs on the CPU and on a GPU, and is named after the device."""
    return str(request.param)
