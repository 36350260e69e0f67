"""What pytest is told about these tests, and the fixtures that they share."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from adapter import DEVICES
from seqrs import _seqrs, layers

# Pictures are drawn in memory, also where there is a screen.
os.environ["MPLBACKEND"] = "Agg"


def pytest_configure(config: pytest.Config) -> None:
    reason = "needs PyTorch or Keras, which `make test` does not install"
    config.addinivalue_line("markers", f"interop: {reason}")
    reason = "starts real servers, for which `make test-servers` has an environment of its own"
    config.addinivalue_line("markers", f"servers: {reason}")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A test that takes it runs on the CPU and on a GPU, and is named after the device."""
    return str(request.param)


@pytest.fixture
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose parameters are drawn is refused."""

    def build(described: str, dtype: str) -> Any:
        layer = _seqrs.Layer(described, dtype)
        assert layer.num_parameters == 0, f"parameters were drawn for {described}"
        return layer

    for name in ("with_parameters", "from_bytes"):
        setattr(build, name, getattr(_seqrs.Layer, name))
    monkeypatch.setattr(layers, "_seqrs", SimpleNamespace(Layer=build))
