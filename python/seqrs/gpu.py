"""GPUs, through wgpu: Vulkan, Metal or DX12.

`model.to("gpu")` takes a model there: calling it, `forward` and `backward`, and a `Trainer` of it
then compute on the device, in float32, with the results of the CPU within the rounding of float32.
Parameters come back when they are asked for (`state_dict`, `save`, `to("cpu")`). There is never a
silent fallback: without an adapter `to` raises NoDeviceError.

Ctrl-C is heard within 200 ms, or when the device is done with the one dispatch that it is at, if
that takes longer on a device that computes while it takes work in, as those made of software do. An
update of the parameters that has begun is done to its end. What is too large for the device or its
memory is refused before anything is computed: NoDeviceError names the limit, MemoryError the bytes.
A device that is lost raises NoDeviceError at every call; `to("gpu")` opens it again, and what a
`Trainer` had there and nobody had asked for is lost with it.
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
