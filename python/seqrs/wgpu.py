"""Recurrent layers on a GPU device of your own, through the package wgpu (wgpu-py). Experimental.

A device that renders or computes already has its arrays in `wgpu.GPUBuffer`s. Here a layer reads
and writes them where they are: nothing is copied to the CPU, and what your own shaders write is
what the layer reads. (`model.to("gpu")` of `seqrs.gpu` opens a device of its own instead.)

>>> executor = seqrs.wgpu.Executor(device)                       # a wgpu.GPUDevice
>>> lstm = seqrs.LSTM(8, 16, bidirectional=True)
>>> there = seqrs.wgpu.LayerOnDevice(lstm, executor, batch=2, steps=5, gradients=True)
>>> device.queue.write_buffer(there.x, 0, np.float32(x))         # or by a shader of yours
>>> there.forward()
>>> there.read("y").shape                                        # or by a shader, from there.y
(2, 5, 32)
>>> there.write("d_y", dy)
>>> there.backward()
>>> sorted(there.split(there.read("d_parameters"))) == sorted(lstm.state_dict())
True

It needs the package: `pip install 'seqrs[wgpu]'`. Any adapter of WebGPU will do, with the limits
that a device has by default; nothing is drawn: there is no dropout, and zoneout mixes states as at
inference. Two runs give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import ShapeError, StateError
from .options import flag, integer, shown
from .recurrent import Recurrent

if TYPE_CHECKING:
    import numpy.typing as npt
    from wgpu import GPUBuffer, GPUCommandEncoder, GPUDevice

    Array = npt.NDArray[np.float32]

__all__ = ["Executor", "LayerOnDevice"]

#: Where the parameters of a dispatch may begin in a uniform buffer of any device, and more than any
#: of them needs.
_ALIGNMENT = 256


def _wgpu() -> Any:
    """The package, which only those have who asked for it."""
    try:
        import wgpu
    except ModuleNotFoundError as error:
        message = "wgpu: expected the package (pip install 'seqrs[wgpu]'), got none"
        raise ModuleNotFoundError(message, name="wgpu") from error
    return wgpu


class _Prepared(NamedTuple):
    """A program whose buffers are made, whose tables are written and whose shaders are compiled."""

    #: Bindings to be zero at the start.
    cleared: list[dict[str, Any]]
    #: Pipeline, bind group, where its parameters begin, and workgroups.
    dispatches: list[tuple[Any, Any, int, tuple[int, int, int]]]


class Executor:
    """Runs programs on a device. Layers that share one share its compiled shaders.

    Args:
        device: a `wgpu.GPUDevice`.

    Raises:
        ModuleNotFoundError: the package wgpu is not installed.
        TypeError: it is no device.
    """

    def __init__(self, device: GPUDevice) -> None:
        wgpu = _wgpu()
        if not isinstance(device, wgpu.GPUDevice):
            raise TypeError(f"device: expected a wgpu.GPUDevice, got {shown(device)}")
        #: The device.
        self.device = device
        self._usage = wgpu.BufferUsage
        # By the text of the shader.
        self._compiled: dict[str, tuple[Any, Any]] = {}

    @property
    def _largest_buffer(self) -> int:
        """Bytes of the largest buffer that a shader of the device sees."""
        limits = self.device.limits
        return int(min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"]))

    def _buffer(self, size: int) -> GPUBuffer:
        """A buffer of `size` bytes, zero, that shaders and copies may read and write."""
        usage = self._usage.STORAGE | self._usage.COPY_SRC | self._usage.COPY_DST
        return self.device.create_buffer(size=size, usage=usage)

    def _prepare(
        self, program: dict[str, Any], bindings: dict[int, dict[str, Any]], kept: set[int]
    ) -> _Prepared:
        """Makes the buffers of a program that `bindings` lacks, which has them afterwards.

        Args:
            program: as `plan` of a layer's handle gives it, or `_traced` of a device.
            bindings: of each buffer by its number.
            kept: those that stay as they are from run to run.
        """
        for number, size in program["buffers"]:
            if number not in bindings:
                bindings[number] = {"buffer": self._buffer(size), "offset": 0, "size": size}
        for number, data in program["writes"]:
            self.device.queue.write_buffer(bindings[number]["buffer"], 0, data)
        # What is written is never changed, and what is blank is written before it is read.
        kept = kept | {number for number, _ in program["writes"]} | {*program["blank"]}
        cleared = [bindings[number] for number, _ in program["buffers"] if number not in kept]
        compiled = [self._compile(*pipeline) for pipeline in program["pipelines"]]
        params = self._params([params for _, _, params, _ in program["dispatches"]])
        groups: dict[tuple[int, ...], Any] = {}
        dispatches = []
        for k, (pipeline, numbers, _, workgroups) in enumerate(program["dispatches"]):
            key = (pipeline, *numbers)
            if key not in groups:
                bound = [params, *(bindings[number] for number in numbers)]
                groups[key] = self.device.create_bind_group(
                    layout=compiled[pipeline][1],
                    entries=[{"binding": n, "resource": each} for n, each in enumerate(bound)],
                )
            dispatches.append((compiled[pipeline][0], groups[key], k * _ALIGNMENT, workgroups))
        return _Prepared(cleared, dispatches)

    def _run(self, prepared: _Prepared, encoder: GPUCommandEncoder | None = None) -> None:
        """Submits a program, or records it into an encoder of the caller's, who submits it."""
        own = self.device.create_command_encoder() if encoder is None else encoder
        for binding in prepared.cleared:
            own.clear_buffer(**binding)
        compute = own.begin_compute_pass()
        for pipeline, group, params, workgroups in prepared.dispatches:
            compute.set_pipeline(pipeline)
            compute.set_bind_group(0, group, [params])
            compute.dispatch_workgroups(*workgroups)
        compute.end()
        if encoder is None:
            self.device.queue.submit([own.finish()])

    def _compile(self, label: str, source: str, read: list[bool]) -> tuple[Any, Any]:
        """The pipeline of a shader and the layout of what it is bound to."""
        if source not in self._compiled:
            words = {"type": "uniform", "has_dynamic_offset": True}
            storage = [{"type": "read-only-storage" if each else "storage"} for each in read]
            visibility = _wgpu().ShaderStage.COMPUTE
            entries = [
                {"binding": k, "visibility": visibility, "buffer": buffer}
                for k, buffer in enumerate([words, *storage])
            ]
            layout = self.device.create_bind_group_layout(label=label, entries=entries)
            module = self.device.create_shader_module(label=label, code=source)
            pipeline = self.device.create_compute_pipeline(
                label=label,
                layout=self.device.create_pipeline_layout(bind_group_layouts=[layout]),
                compute={"module": module, "entry_point": "main"},
            )
            self._compiled[source] = (pipeline, layout)
        return self._compiled[source]

    def _params(self, all_words: list[bytes]) -> dict[str, Any]:
        """The parameters of all dispatches in one buffer, bound as those of the first."""
        # A program may have no dispatch, but no buffer is empty.
        data = b"".join(words.ljust(_ALIGNMENT, b"\0") for words in all_words or [b""])
        usage = self._usage.UNIFORM | self._usage.COPY_DST
        buffer = self.device.create_buffer(label="params", size=len(data), usage=usage)
        self.device.queue.write_buffer(buffer, 0, data)
        return {"buffer": buffer, "offset": 0, "size": _ALIGNMENT}


class LayerOnDevice:
    """A recurrent layer on a device, for batches of one shape.

    It has a copy of the layer's parameters and does not follow the layer. All buffers hold float32
    in C order; those of a layer in batches of another shape, or of another layer, can be given as
    its own. With `batch_first=False` x and y are (T, B, I) and (T, B, O).

    Args:
        layer: an RNN, LSTM or GRU in float32.
        executor: of the device.
        batch: rows, B.
        steps: steps, T.
        lengths: B integers in 0..=T, the live steps of each row.
        mask: booleans of shape (B, T), (T, B) with `batch_first=False`: the live steps. At most one
            of `lengths` and `mask` is given; None means all.
        gradients: whether `backward` is wanted, for which `forward` keeps a record.
        buffers: buffers of yours by name, which take the place of the layer's own with what is in
            them: usage STORAGE, and COPY_DST too for `y`, `d_x` and `d_parameters`. They may be
            larger than needed.

    Raises:
        TypeError: layer, executor or a buffer is none.
        DTypeError: the layer is float64.
        ShapeError: a buffer is too small or has a name that is none; the batch needs larger buffers
            than the device has; lengths or mask do not fit.
        ValueError: a buffer lacks a usage or has two names.
    """

    #: The input (B, T, I). What is not live is never read.
    x: GPUBuffer
    #: The output (B, T, O), 0 where it is not live.
    y: GPUBuffer
    #: All parameters, one after the other in the order of `state_dict()`.
    parameters: GPUBuffer
    #: The state (L*D, B, P or H), at first 0: `forward` takes it from the initial to the final one,
    #: so that the next call goes on where the last one ended.
    h: GPUBuffer
    #: The cell state of an LSTM (L*D, B, H), likewise; None for others.
    c: GPUBuffer | None
    #: The gradient of the loss at x, which `backward` writes. This and what follows is None without
    #: `gradients`.
    d_x: GPUBuffer | None
    #: That at y, which `backward` reads. What is not live is never read.
    d_y: GPUBuffer | None
    #: That at the parameters, which `backward` writes (it does not add to it).
    d_parameters: GPUBuffer | None
    #: That at h: `backward` takes it from the final to the initial state.
    d_h: GPUBuffer | None
    #: That at c, likewise.
    d_c: GPUBuffer | None

    def __init__(
        self,
        layer: Recurrent,
        executor: Executor,
        batch: int,
        steps: int,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        *,
        gradients: bool = False,
        buffers: Mapping[str, GPUBuffer] | None = None,
    ) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN, LSTM or GRU, got {shown(layer)}")
        if not isinstance(executor, Executor):
            raise TypeError(f"executor: expected an Executor, got {shown(executor)}")
        batch, steps = integer("batch", batch), integer("steps", steps)
        plan = layer._handle.plan(
            batch,
            steps,
            lengths,
            mask,
            layer.batch_first,
            flag("gradients", gradients),
            executor._largest_buffer,
        )
        #: The device and its shaders.
        self.executor = executor
        #: The shape of what is in each buffer, by name.
        self.shapes = _shapes(layer, batch, steps, list(plan["buffers"]))
        parameters = layer.state_dict()
        self._parameters = {name: array.shape for name, array in parameters.items()}
        given = _checked(buffers or {}, plan["buffers"], executor)
        self._buffers: dict[str, GPUBuffer] = {}
        bindings = {}
        for name, (number, count) in plan["buffers"].items():
            # A buffer has room for one number at least.
            size = 4 * max(count, 1)
            buffer = given[name] if name in given else executor._buffer(size)
            bindings[number] = {"buffer": buffer, "offset": 0, "size": size}
            self._buffers[name] = buffer
        for name in ("x", "y", "parameters", "h", "c"):
            setattr(self, name, self._buffers.get(name))
            setattr(self, f"d_{name}", self._buffers.get(f"d_{name}"))
        if "parameters" not in given:
            self.write("parameters", np.concatenate([a.ravel() for a in parameters.values()]))
        # What is computed anew starts as 0: gradients are sums, and y stays 0 where it is not live.
        anew = ("y", "d_x", "d_parameters")
        kept = {number for name, (number, _) in plan["buffers"].items() if name not in anew}
        self._forward = executor._prepare(plan["forward"], bindings, kept)
        self._backward = (
            executor._prepare(plan["backward"], bindings, kept) if plan["backward"] else None
        )

    def forward(self, encoder: GPUCommandEncoder | None = None) -> None:
        """Reads x, h, c and parameters; writes y, and the final state to h and c.

        Args:
            encoder: records it there instead of submitting it, between what else the encoder does.
                It must not be in a pass.
        """
        self.executor._run(self._forward, encoder)

    def backward(self, encoder: GPUCommandEncoder | None = None) -> None:
        """Back-propagation through time, for the last `forward`.

        Reads d_y, d_h, d_c and parameters, which must be those of forward; writes d_x and
        d_parameters, and the gradient of the initial state to d_h and d_c.

        Args:
            encoder: as in `forward`.

        Raises:
            StateError: the layer was put there without `gradients`.
        """
        if self._backward is None:
            raise StateError("backward: expected gradients=True, got a layer without")
        self.executor._run(self._backward, encoder)

    def read(self, name: str) -> Array:
        """What is in a buffer, as a new array of its shape. Waits for the device.

        Args:
            name: "x", "y", "parameters", "h", "c", "d_x", ...

        Raises:
            ShapeError: there is no buffer of that name.
        """
        shape = self._shape(name)
        array = np.zeros(shape, np.float32)
        if array.size:
            queue = self.executor.device.queue
            data = queue.read_buffer(self._buffers[name], 0, array.nbytes)
            array[...] = np.frombuffer(data, np.float32).reshape(shape)
        return array

    def write(self, name: str, array: npt.ArrayLike) -> None:
        """Puts an array into a buffer.

        Raises:
            ShapeError: there is no buffer of that name, or its shape is another.
        """
        shape = self._shape(name)
        numbers = np.ascontiguousarray(array, np.float32)
        if numbers.shape != shape:
            raise ShapeError(f"{name}: expected shape {shape}, got {numbers.shape}")
        if numbers.size:
            self.executor.device.queue.write_buffer(self._buffers[name], 0, numbers)

    def split(self, flat: Array) -> dict[str, Array]:
        """Parameters by name, from an array such as `read("parameters")` or `read("d_parameters")`.

        Returns:
            Views of it, which `load_state_dict` of the layer takes.

        Raises:
            ShapeError: it has another length.
        """
        if flat.shape != self.shapes["parameters"]:
            raise ShapeError(f"flat: expected shape {self.shapes['parameters']}, got {flat.shape}")
        ends = np.cumsum([math.prod(shape) for shape in self._parameters.values()])
        pieces = np.split(flat, ends[:-1])
        named = zip(self._parameters.items(), pieces, strict=True)
        return {name: piece.reshape(shape) for (name, shape), piece in named}

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise ShapeError(f"name: expected one of {', '.join(self.shapes)}, got {shown(name)}")
        return self.shapes[name]


def _shapes(
    layer: Recurrent, batch: int, steps: int, names: list[str]
) -> dict[str, tuple[int, ...]]:
    rows = (batch, steps) if layer.batch_first else (steps, batch)
    state = layer.initial_state(batch)
    h, c = state if isinstance(state, tuple) else (state, None)
    shapes = {
        "x": (*rows, layer.input_size),
        "y": (*rows, layer.output_size),
        "parameters": (layer.num_parameters,),
        "h": h.shape,
    }
    if c is not None:
        shapes["c"] = c.shape
    return {name: shapes[name.removeprefix("d_")] for name in names}


def _checked(
    buffers: Mapping[str, GPUBuffer], named: dict[str, tuple[int, int]], executor: Executor
) -> dict[str, GPUBuffer]:
    """The caller's buffers, once each is found to be one for its name."""
    wgpu = _wgpu()
    names: dict[int, str] = {}
    for name, buffer in buffers.items():
        if name not in named:
            raise ShapeError(f"buffers: expected names of {', '.join(named)}, got {shown(name)}")
        what = f"buffers[{name!r}]"
        if not isinstance(buffer, wgpu.GPUBuffer):
            raise TypeError(f"{what}: expected a wgpu.GPUBuffer, got {shown(buffer)}")
        size = 4 * max(named[name][1], 1)
        if buffer.size < size:
            raise ShapeError(f"{what}: expected at least {size} bytes, got {buffer.size}")
        usage = wgpu.BufferUsage.STORAGE
        if name in ("y", "d_x", "d_parameters"):
            usage |= wgpu.BufferUsage.COPY_DST
        if buffer.usage & usage != usage:
            raise ValueError(f"{what}: expected usage {usage:#x}, got {buffer.usage:#x}")
        if id(buffer) in names:
            other = names[id(buffer)]
            raise ValueError(f"{what}: expected a buffer of its own, got that of {other!r}")
        names[id(buffer)] = name
    return dict(buffers)
