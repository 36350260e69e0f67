"""What runs on a device of wgpu-py: layers, which are those of the CPU, in the caller's buffers and
between the caller's shaders; and all that seqrs has its own device do, again.

Without the package or an adapter these tests say so; with SEQRS_REQUIRE_GPU=1 they fail.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import GPU, gpu
from cases import (
    CELLS,
    LIVE,
    NORMALISED,
    Array,
    B,
    Given,
    H,
    I,
    P,
    T,
    assert_same,
    character_model,
    everything,
    live_for,
    make,
    parts,
    python,
    randomise,
)
from seqrs import _seqrs
from test_gpu import LENGTHS, feed, letters, models
from tolerances import assert_close, assert_same_bits


def device_or_skip() -> Any:
    """A device of wgpu-py. The drivers are looked for when it is first asked for."""
    try:
        import wgpu

        adapter = wgpu.gpu.request_adapter_sync(power_preference="high-performance")
    except (ImportError, RuntimeError) as error:
        if os.environ.get("SEQRS_REQUIRE_GPU") == "1":
            raise
        pytest.skip(f"no device of wgpu-py: {str(error).splitlines()[0]}")
    return adapter.request_device_sync()


@pytest.fixture(scope="module")
def executor() -> seqrs.wgpu.Executor:
    return seqrs.wgpu.Executor(device_or_skip())


def on_device(there: seqrs.wgpu.LayerOnDevice, given: Given) -> dict[str, Array]:
    """Outputs, final states and all gradients by name, as `everything` gives them for a layer."""
    there.write("x", given.x)
    there.write("d_y", given.dy)
    letters = "hc"[: len(parts(given.state))]
    for letter, state, gradient in zip(
        letters, parts(given.state), parts(given.dstate), strict=True
    ):
        there.write(letter, state)
        there.write(f"d_{letter}", gradient)
    there.forward()
    found = {name: there.read(name) for name in ("y", *letters)}
    there.backward()
    found["d_x"] = there.read("d_x")
    found |= {f"d_{letter}0": there.read(f"d_{letter}") for letter in letters}
    gradients = there.split(there.read("d_parameters"))
    return found | {f"d_{name}": array for name, array in gradients.items()}


def check(layer: Any, executor: seqrs.wgpu.Executor, options: dict[str, Any]) -> None:
    """Both programs, recorded and not, against the layer on the CPU."""
    given = Given(layer)
    there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, **options, gradients=True)
    want, got = everything(layer, given, **options), on_device(there, given)
    assert list(got) == list(want)
    for name, array in want.items():
        assert_close(got[name], array, tolerances.PACKAGE_TO_REFERENCE_F32, name)
    assert_same(on_device(there, given), got)
    plain = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, **options)
    plain.write("x", given.x)
    for letter, state in zip("hc", parts(given.state), strict=False):
        plain.write(letter, state)
    plain.forward()
    for name in ("y", *"hc"[: len(parts(given.state))]):
        assert_close(plain.read(name), want[name], tolerances.PACKAGE_TO_REFERENCE_F32, name)


@pytest.mark.parametrize("cell", CELLS | NORMALISED)
class TestLayers:
    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
    @pytest.mark.parametrize("num_layers", [1, 2])
    def test_they_are_those_of_the_cpu_twice_with_the_same_bits(
        self,
        executor: seqrs.wgpu.Executor,
        cell: str,
        num_layers: int,
        bidirectional: bool,
        live: str,
    ) -> None:
        layer = make(cell, num_layers=num_layers, bidirectional=bidirectional)
        check(layer, executor, live_for(layer, live))

    @pytest.mark.parametrize("live", LIVE)
    def test_time_first_without_biases(
        self, executor: seqrs.wgpu.Executor, cell: str, live: str
    ) -> None:
        layer = make(cell, batch_first=False, bias=False)
        check(layer, executor, live_for(layer, live))

    def test_the_state_goes_on(self, executor: seqrs.wgpu.Executor, cell: str) -> None:
        layer = make(cell)
        given = Given(layer, steps=2 * T)
        want, state = layer(given.x)
        there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T)
        for half in (slice(T), slice(T, None)):
            there.write("x", given.x[:, half])
            there.forward()
            assert_close(there.read("y"), want[:, half], tolerances.PACKAGE_TO_REFERENCE_F32)
        assert_close(there.read("h"), parts(state)[0], tolerances.PACKAGE_TO_REFERENCE_F32)


@pytest.mark.parametrize("live", LIVE)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm-projected", "normalised-lstm"])
def test_zoneout_mixes_and_nothing_is_drawn(
    executor: seqrs.wgpu.Executor, cell: str, live: str
) -> None:
    layer = make(cell, zoneout=0.25, recurrent_dropout=0.5, num_layers=2)
    given, options = Given(layer), live_for(layer, live)
    there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, **options, gradients=True)
    y, state, tape = layer.forward(given.x, given.state, **options, training=False)
    gradients = layer.backward(tape, given.dy, given.dstate)
    got = on_device(there, given)
    letters = "hc"[: len(parts(state))]
    want = {"y": y, **dict(zip(letters, parts(state), strict=True)), "d_x": gradients.x}
    want |= {f"d_{k}0": a for k, a in zip(letters, parts(gradients.state), strict=True)}
    want |= {f"d_{name}": array for name, array in gradients.params.items()}
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert_close(got[name], array, tolerances.PACKAGE_TO_REFERENCE_F32, name)
    assert_same(on_device(there, given), got)


def test_nothing_is_live(executor: seqrs.wgpu.Executor) -> None:
    layer = make("lstm")
    given = Given(layer)
    there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, lengths=[0] * B, gradients=True)
    want = everything(layer, given, lengths=[0] * B)
    for name, array in on_device(there, given).items():
        assert_same_bits(array, want[name], name)


def test_what_lies_in_the_padding_is_never_read(executor: seqrs.wgpu.Executor) -> None:
    layer = make("gru-reset-before")
    given = Given(layer)
    there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, lengths=[2] * B, gradients=True)
    want = on_device(there, given)
    given.x[:, 2:] = given.dy[:, 2:] = np.nan
    assert_same(on_device(there, given), want)


@pytest.mark.parametrize("cell", ["lstm", "normalised-lstm"])
def test_buffers_as_large_as_the_device_has_are_cut_with_the_same_bits(
    executor: seqrs.wgpu.Executor, cell: str
) -> None:
    class Small(seqrs.wgpu.Executor):
        # Two steps fit, and the parameters.
        _largest_buffer = 4 * 12 * H * 2 * B

    layer = make(cell)
    given = Given(layer)
    whole = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, gradients=True)
    cut = seqrs.wgpu.LayerOnDevice(layer, Small(executor.device), B, T, gradients=True)
    assert len(cut._forward.dispatches) > len(whole._forward.dispatches)
    assert_same(on_device(cut, given), on_device(whole, given))


#: Each cell by itself, whatever is projected: the class, and the options that choose it.
PLAIN = {
    cell.removesuffix("-projected"): (kind, {n: o for n, o in own.items() if n != "proj_size"})
    for cell, (kind, own) in (CELLS | NORMALISED).items()
}


def layer_of(cell: str, hidden: int = H, **more: Any) -> Callable[[], Any]:
    """What a layer does in inference, forward and backward."""

    def work() -> None:
        kind, own = PLAIN[cell]
        options = {"num_layers": 2, "bidirectional": True, "dropout": 0.3, **own, **more}
        layer = getattr(seqrs, kind)(I, hidden, **options)
        randomise(layer)
        layer.to(GPU)
        given, lengths = Given(layer), LIVE["lengths"]["lengths"]
        layer(given.x, given.state, lengths=lengths)
        everything(layer, given, lengths=lengths)

    return work


ADAM = seqrs.Adam(0.01)
MASKS = {"recurrent_dropout": 0.3, "zoneout": 0.3}


def training_of(
    model: seqrs.Sequential,
    loss: Any,
    optimizer: Any = ADAM,
    **options: Any,
) -> Callable[[], Any]:
    """What a model does in inference, forward and backward, and in two steps of a trainer."""
    reads_ids = isinstance(model[0], seqrs.Embedding)

    def work() -> None:
        model.to(GPU)
        x, random = (letters() if reads_ids else feed()), np.random.default_rng(1)
        model(x, lengths=LENGTHS)
        y, _, tape = model.forward(x, lengths=LENGTHS)
        model.backward(tape, random.uniform(-1, 1, y.shape))
        trainer = seqrs.Trainer(model, loss=loss, optimizer=optimizer, **options)
        for _ in range(2):
            classes = isinstance(loss, seqrs.CrossEntropy)
            last = y.shape[-1]
            target = random.integers(last, size=y.shape[:-1]) if classes else random.random(y.shape)
            trainer.step(x, target, lengths=LENGTHS)
        model.state_dict()

    return work


#: What seqrs has a device of its own do, so that every shader runs.
WORK: dict[str, Callable[[], Any]] = {
    **{cell: layer_of(cell) for cell in PLAIN},
    # Too large for a workgroup to go through all steps.
    **{f"{cell}-by-steps": layer_of(cell, 130) for cell in PLAIN},
    **{
        f"{cell}-projected": layer_of(cell, proj_size=P)
        for cell, (kind, _) in PLAIN.items()
        if kind == "LSTM"
    },
    **{
        f"{cell}-masked": layer_of(
            cell, **MASKS, **({"zoneout_cell": 0.2} if "lstm" in cell else {})
        )
        for cell in PLAIN
    },
    **{
        f"{cell}-projected-masked": layer_of(cell, proj_size=P, **MASKS)
        for cell, (kind, _) in PLAIN.items()
        if kind == "LSTM"
    },
    **{name: training_of(model, seqrs.MSE()) for name, model in models().items()},
    **{
        f"loss-{loss!r}": training_of(models()["max"], loss, clip_value=0.1)
        for loss in (
            seqrs.CrossEntropy(),
            seqrs.BinaryCrossEntropy(),
            seqrs.MSE(reduction="sum"),
            seqrs.MAE(),
            seqrs.Huber(0.3),
        )
    },
    **{
        f"optimizer-{optimizer!r}": training_of(
            character_model(), seqrs.CrossEntropy(), optimizer, clip_norm=0.1
        )
        for optimizer in (
            seqrs.SGD(0.1),
            seqrs.SGD(0.1, momentum=0.9),
            seqrs.SGD(0.1, momentum=0.9, nesterov=True),
            seqrs.RMSprop(0.01),
            seqrs.RMSprop(0.01, momentum=0.9),
            seqrs.Adam(0.01, weight_decay=0.1),
            seqrs.AdamW(0.01),
        )
    },
}

#: Label, source and bindings of every shader by its name.
SHADERS = _seqrs._shaders()


@functools.cache
def traced(name: str) -> list[Any]:
    """What the device of seqrs does at that work: programs, and the numbers that it gives."""
    return _seqrs._traced(0, WORK[name])


def do_again(executor: seqrs.wgpu.Executor, events: list[Any]) -> None:
    """Runs the same programs; the same numbers have to come back."""
    queue, bindings = executor.device.queue, dict[int, dict[str, Any]]()
    for event in events:
        if isinstance(event, dict):
            sizes = dict(event["buffers"])
            # What may hold anything holds NaN.
            for number in event["blank"]:
                buffer, size = executor._buffer(sizes[number]), sizes[number]
                queue.write_buffer(buffer, 0, b"\xff" * size)
                bindings[number] = {"buffer": buffer, "offset": 0, "size": size}
            executor._run(executor._prepare(event, bindings, set()))
            for number in event["released"]:
                bindings.pop(number, None)
            continue
        number, data = event
        want = np.frombuffer(data, np.float32)
        got = queue.read_buffer(bindings[number]["buffer"], 0, len(data)) if data else data
        assert_close(np.frombuffer(got, np.float32), want, tolerances.PACKAGE_TO_REFERENCE_F32)


class TestShaders:
    @pytest.mark.parametrize("name", SHADERS)
    def test_it_is_valid(self, executor: seqrs.wgpu.Executor, name: str) -> None:
        executor._compile(*SHADERS[name])

    @gpu
    @pytest.mark.parametrize("name", WORK)
    def test_what_it_computes_is_what_the_device_of_seqrs_does(
        self, executor: seqrs.wgpu.Executor, name: str
    ) -> None:
        events = traced(name)
        assert sum(isinstance(event, tuple) for event in events) >= 4
        do_again(executor, events)

    @gpu
    def test_each_runs(self) -> None:
        def without_sizes(source: str) -> str:
            # Of the tile, which follows from the sizes of a layer and its batch.
            return re.sub(r"const (ROWS|SHARE|PARTS|GROUPS|UNITS|THREADS) = .*\n", "", source)

        programs = [event for name in WORK for event in traced(name) if isinstance(event, dict)]
        sources = {source for program in programs for _, source, _ in program["pipelines"]}
        ran = {without_sizes(source) for source in sources}
        listed = {without_sizes(source): name for name, (_, source, _) in SHADERS.items()}
        assert [name for source, name in listed.items() if source not in ran] == []
        assert ran <= {*listed}


@gpu
def test_inference_needs_the_same_buffers_for_any_number_of_layers() -> None:
    rows, steps, width = 8, 64, 16
    x = np.ones((rows, steps, width), np.float32)

    def bytes_of(count: int) -> int:
        layers: list[seqrs.Layer] = []
        for _ in range(count):
            layers += [seqrs.Linear(width, width), seqrs.LayerNorm(width), seqrs.LSTM(width, width)]
        model = seqrs.Sequential(layers).to(GPU)
        *_, program = (e for e in _seqrs._traced(0, lambda: model(x)) if isinstance(e, dict))
        # Of each LSTM h and c, and h before and after a step.
        states = 4 * 4 * rows * width * count
        return sum(size for _, size in program["buffers"]) - states

    few = bytes_of(2)
    assert bytes_of(8) == few
    # x; what LayerNorm reads, writes and keeps for the way back; gx of four gates; a table, what
    # LayerNorm keeps of every row, and the recurrent weights in the order of a step.
    packed = 4 * 4 * width * (width + 1)
    assert few <= (1 + 3 + 4) * x.nbytes + 2 * 4 * rows * steps + packed


FILL = """
@group(0) @binding(0) var<storage, read_write> to: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&to)) { to[id.x] = f32(id.x % 17u) / 16.0 - 0.5; }
}
"""
DOUBLE = """
@group(0) @binding(0) var<storage, read> from_: array<f32>;
@group(0) @binding(1) var<storage, read_write> to: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&to)) { to[id.x] = 2.0 * from_[id.x]; }
}
"""


def shader(device: Any, encoder: Any, code: str, *buffers: Any) -> None:
    """Runs a shader of the caller's over buffers of equal size."""
    pipeline = device.create_compute_pipeline(
        layout="auto", compute={"module": device.create_shader_module(code=code)}
    )
    entries = [{"binding": k, "resource": {"buffer": each}} for k, each in enumerate(buffers)]
    group = device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, group)
    compute.dispatch_workgroups(-(-buffers[0].size // 256))
    compute.end()


def storage(device: Any, count: int, *more: str) -> Any:
    """A buffer of the caller's for so many numbers."""
    import wgpu

    usage = wgpu.BufferUsage.STORAGE
    for name in more:
        usage |= wgpu.BufferUsage[name]
    return device.create_buffer(size=4 * count, usage=usage)


class TestTheCallersOwn:
    def test_shaders_before_and_after_in_one_submission(
        self, executor: seqrs.wgpu.Executor
    ) -> None:
        device, layer = executor.device, make("lstm")
        x = storage(device, B * T * I)
        there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, buffers={"x": x})
        assert there.x is x
        twice = storage(device, B * T * H, "COPY_SRC")
        encoder = device.create_command_encoder()
        shader(device, encoder, FILL, x)
        there.forward(encoder)
        shader(device, encoder, DOUBLE, there.y, twice)
        device.queue.submit([encoder.finish()])
        numbers = (np.arange(B * T * I) % 17 / 16 - 0.5).astype(np.float32)
        want, _ = layer(numbers.reshape(B, T, I))
        got = np.frombuffer(device.queue.read_buffer(twice), np.float32).reshape(want.shape)
        assert_same_bits(got, 2 * there.read("y"))
        assert_close(got, 2 * want, tolerances.PACKAGE_TO_REFERENCE_F32)

    def test_every_buffer(self, executor: seqrs.wgpu.Executor) -> None:
        layer = make("lstm", num_layers=2, bidirectional=True)
        given, lengths = Given(layer), LIVE["lengths"]["lengths"]
        options: dict[str, Any] = {"lengths": lengths, "gradients": True}
        own = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, **options)
        # Larger than needed, and full of what was there before.
        mine = {}
        for name, shape in own.shapes.items():
            count = int(np.prod(shape)) + 5
            mine[name] = storage(executor.device, count, "COPY_SRC", "COPY_DST")
            executor.device.queue.write_buffer(mine[name], 0, np.full(count, np.nan, np.float32))
        there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T, **options, buffers=mine)
        assert all(getattr(there, name) is buffer for name, buffer in mine.items())
        there.write("parameters", own.read("parameters"))
        assert_same(on_device(there, given), on_device(own, given))
        for buffer in mine.values():
            tail = executor.device.queue.read_buffer(buffer, buffer.size - 20)
            assert np.isnan(np.frombuffer(tail, np.float32)).all()

    def test_parameters_serve_several_shapes(self, executor: seqrs.wgpu.Executor) -> None:
        layer = make("gru-reset-after")
        given = Given(layer)
        first = seqrs.wgpu.LayerOnDevice(layer, executor, B, T)
        shared = {"parameters": first.parameters}
        step = seqrs.wgpu.LayerOnDevice(layer, executor, B, 1, buffers=shared | {"h": first.h})
        first.write("x", given.x)
        first.forward()
        step.write("x", given.x[:, :1])
        step.forward()
        want, _ = layer(np.concatenate([given.x, given.x[:, :1]], axis=1))
        assert_close(step.read("y"), want[:, -1:], tolerances.PACKAGE_TO_REFERENCE_F32)

    def test_parameters_go_back_into_a_layer(self, executor: seqrs.wgpu.Executor) -> None:
        layer, other = make("lstm-projected", num_layers=2), make("lstm-projected", num_layers=2)
        there = seqrs.wgpu.LayerOnDevice(layer, executor, B, T)
        there.write("parameters", 2 * there.read("parameters"))
        other.load_state_dict(there.split(there.read("parameters")))
        for name, array in layer.state_dict().items():
            assert_same_bits(other.state_dict()[name], 2 * array, name)


class TestErrors:
    def test_what_is_no_layer_or_device(self, executor: seqrs.wgpu.Executor) -> None:
        with pytest.raises(seqrs.DTypeError, match="float32 on a GPU"):
            seqrs.wgpu.LayerOnDevice(seqrs.LSTM(2, 3, dtype="float64"), executor, 1, 1)
        with pytest.raises(TypeError, match="layer: expected an RNN, LSTM or GRU"):
            seqrs.wgpu.LayerOnDevice(seqrs.Linear(2, 3), executor, 1, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="executor: expected an Executor"):
            seqrs.wgpu.LayerOnDevice(seqrs.LSTM(2, 3), executor.device, 1, 1)
        with pytest.raises(TypeError, match=r"device: expected a wgpu.GPUDevice, got 'gpu'"):
            seqrs.wgpu.Executor("gpu")

    def test_batches(self, executor: seqrs.wgpu.Executor) -> None:
        layer = make("lstm")
        for batch, steps in [(0, 1), (1, 0)]:
            with pytest.raises(seqrs.ShapeError, match="at least 1, got 0"):
                seqrs.wgpu.LayerOnDevice(layer, executor, batch, steps)
        with pytest.raises(seqrs.ShapeError, match=r"lengths\[1\]: expected an integer in 0..=3"):
            seqrs.wgpu.LayerOnDevice(layer, executor, 2, 3, lengths=[1, 4])
        with pytest.raises(seqrs.ShapeError, match=r"mask: expected shape \(2, 3\)"):
            seqrs.wgpu.LayerOnDevice(layer, executor, 2, 3, mask=np.ones((3, 2), bool))
        with pytest.raises(seqrs.ShapeError, match="x: expected at most"):
            seqrs.wgpu.LayerOnDevice(layer, executor, 1 << 20, 1 << 12)

    def test_buffers(self, executor: seqrs.wgpu.Executor) -> None:
        device, layer = executor.device, make("lstm")
        y = storage(device, B * T * H)

        def given(**buffers: Any) -> None:
            seqrs.wgpu.LayerOnDevice(layer, executor, B, T, buffers=buffers)

        small = storage(device, B * T * I - 1)
        with pytest.raises(seqrs.ShapeError, match=r"buffers\['x'\]: expected at least 480 bytes"):
            given(x=small)
        with pytest.raises(seqrs.ShapeError, match="buffers: expected names of x, y"):
            given(d_x=y)
        with pytest.raises(TypeError, match=r"buffers\['x'\]: expected a wgpu.GPUBuffer"):
            given(x=np.zeros(B * T * I, np.float32))
        with pytest.raises(ValueError, match=r"buffers\['y'\]: expected usage 0x88, got 0x80"):
            given(y=y)
        both = storage(device, B * T * H, "COPY_DST")
        with pytest.raises(ValueError, match=r"buffers\['y'\]: .* of its own, got that of 'x'"):
            given(x=both, y=both)

    def test_reading_and_writing(self, executor: seqrs.wgpu.Executor) -> None:
        there = seqrs.wgpu.LayerOnDevice(make("gru-reset-before"), executor, B, T)
        assert (there.c, there.d_x, there.d_parameters) == (None, None, None)
        with pytest.raises(seqrs.ShapeError, match="name: expected one of x, y, parameters, h"):
            there.read("c")
        with pytest.raises(seqrs.ShapeError, match=r"x: expected shape \(4, 6, 5\), got \(4, 6\)"):
            there.write("x", np.zeros((B, T)))
        with pytest.raises(seqrs.ShapeError, match="flat: expected shape"):
            there.split(np.zeros(3, np.float32))
        with pytest.raises(seqrs.StateError, match="expected gradients=True"):
            there.backward()

    def test_without_the_package(self) -> None:
        code = """
import sys
sys.modules["wgpu"] = None
import seqrs
try:
    seqrs.wgpu.Executor(None)
except ModuleNotFoundError as error:
    assert error.name == "wgpu"
    print(error)
"""
        found = python(code)
        assert found.returncode == 0, found.stderr
        assert "pip install 'seqrs[wgpu]'" in found.stdout

    def test_its_name_is_left_to_the_package(self) -> None:
        code = "from seqrs import *; print('wgpu' in globals(), 'LSTM' in globals())"
        found = python(code)
        assert (found.returncode, found.stdout.split()) == (0, ["False", "True"]), found.stderr

    def test_the_package_is_loaded_by_what_needs_it_alone(self) -> None:
        code = "import sys, seqrs; seqrs.wgpu; print('wgpu' in sys.modules)"
        found = python(code)
        assert (found.returncode, found.stdout.strip()) == (0, "False"), found.stderr
