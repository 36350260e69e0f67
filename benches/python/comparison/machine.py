"""What it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import seqrs

#: Distributions whose versions a record has.
LIBRARIES = ("seqrs", "torch", "onnxruntime", "openvino", "tract", "numpy")


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "processors": os.cpu_count(),
        "system": platform.system(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "level": seqrs.info()["level"],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
