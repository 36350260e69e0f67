"""GPUs, through wgpu: Vulkan, Metal or DX12.

`model.to("gpu")` takes a model there: calling it, `forward` and `backward`, and a `Trainer` of it
then compute on the device, in float32, with the results of the CPU within the rounding of float32.
Parameters come back when they are asked for (`state_dict`, `save`, `to("cpu")`). Ctrl-C is heard
when the device is done with a call. There is never a silent fallback: without an adapter `to`
raises NoDeviceError.
"""

from __future__ import annotations

from typing import Any

from . import _seqrs

__all__ = ["adapters"]


def adapters() -> list[dict[str, Any]]:
    """The adapters of this machine, in the order of their numbers: GPUs of their own first.

    Keys: `name`, `driver`, `api` (vulkan, metal, dx12); `software`, whether it is made of software,
    which `to` refuses unless `SEQRS_GPU_ALLOW_CPU=1`, as it is slower than the CPU; and
    `largest_buffer`, bytes of the largest buffer. There are none in a build without GPU support.
    """
    return _seqrs.gpu_adapters()
