"""A GPU beside the CPU: the same numbers drawn, moves there and back, and nothing silent.

What holds on any device is in the other files, in tests that take `device`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import GPU, gpu
from cases import Given, character_model, everything, python
from seqrs import characters as characters_plan
from seqrs.demo import LEARNING_RATE
from tolerances import assert_close, assert_same_bits


def models() -> dict[str, seqrs.Sequential]:
    """One of every layer, between them."""
    return {
        "tagger": seqrs.Sequential(
            [
                seqrs.Linear(6, 70),
                seqrs.LayerNorm(70),
                seqrs.Activation("tanh"),
                seqrs.GRU(70, 4, 2, bidirectional=True, dropout=0.3),
                seqrs.Activation("relu"),
                seqrs.Linear(8, 6, bias=False),
                seqrs.Activation("softmax"),
            ],
            seed=1,
        ),
        "last": seqrs.Sequential(
            [seqrs.LSTM(6, 5, bidirectional=True), seqrs.Last(), seqrs.Dropout(0.2)], seed=2
        ),
        "mean": seqrs.Sequential(
            [seqrs.RNN(6, 5), seqrs.MeanPool(), seqrs.Activation("sigmoid")], seed=3
        ),
        "max": seqrs.Sequential([seqrs.GRU(6, 5), seqrs.MaxPool(), seqrs.Linear(5, 3)], seed=4),
    }


LENGTHS = [7, 3, 0, 5]


def feed(seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).uniform(-1, 1, (4, 7, 6)).astype(np.float32)


def letters(seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, 11, (4, 7))


def close(got: seqrs.Sequential, want: seqrs.Sequential) -> None:
    expected = want.state_dict()
    for name, array in got.state_dict().items():
        assert_close(array, expected[name], tolerances.TRAINING_TO_PYTORCH, name)


@gpu
class TestModels:
    def test_dropout_between_layers_is_that_of_the_cpu(self) -> None:
        layers = [seqrs.LSTM(5, 7, 3, dropout=0.5, seed=3) for _ in range(2)]
        layers[1].to(GPU)
        given = Given(layers[0])
        want, got = (everything(layer, given) for layer in layers)
        for name, array in want.items():
            assert_close(got[name], array, tolerances.PACKAGE_TO_REFERENCE_F32, name)

    @pytest.mark.parametrize("name", models())
    def test_inference_and_gradients_are_those_of_the_cpu(self, name: str) -> None:
        here, there = models()[name], models()[name].to(GPU)
        assert (here.device, there.device) == ("cpu", "gpu:0")
        assert all(layer.device == "gpu:0" for layer in there)
        tolerance = tolerances.PACKAGE_TO_REFERENCE_F32
        assert_close(there(feed(), lengths=LENGTHS)[0], here(feed(), lengths=LENGTHS)[0], tolerance)
        (y, _, tape), (z, _, other) = (m.forward(feed(), lengths=LENGTHS) for m in (here, there))
        assert_close(z, y, tolerance)
        want, got = here.backward(tape, y), there.backward(other, y)
        assert_close(got.x, want.x, tolerance)
        for key, array in want.params.items():
            assert_close(got.params[key], array, tolerance, key)

    def test_it_moves_there_and_back(self) -> None:
        model = models()["max"]
        before = model(feed())[0]
        model.to("gpu:0")(feed())
        assert model.to("cpu").device == "cpu"
        assert_same_bits(model(feed())[0], before)

    def test_layers_on_different_devices_are_refused(self) -> None:
        model = character_model()
        model[1].to(GPU)
        with pytest.raises(seqrs.StateError, match="device of layer 1"):
            model(letters())
        assert model.to("cpu").device == "cpu"


@gpu
class TestTraining:
    @pytest.mark.parametrize("name", models())
    def test_models(self, name: str) -> None:
        here, there = models()[name], models()[name].to(GPU)
        trainers = [seqrs.Trainer(model, loss=seqrs.MSE()) for model in (here, there)]
        for k in range(4):
            target = np.full_like(here(feed())[0], 0.5)
            want, got = (t.step(feed(k), target, lengths=LENGTHS).loss for t in trainers)
            assert_close([got], [want], tolerances.TRAINING_TO_PYTORCH)
            want, got = (t.evaluate([(feed(k), target)])["loss"] for t in trainers)
            assert_close([got], [want], tolerances.TRAINING_TO_PYTORCH)
        close(there, here)

    def test_what_is_learnt_shows_wherever_one_looks(self) -> None:
        model = character_model().to(GPU)
        trainer = seqrs.Trainer(model)
        seen = [model.fingerprint]
        for k in range(3):
            trainer.step(letters(k), letters(k + 1))
            seen.append(model[1].fingerprint)
            assert_close(
                model(letters())[0],
                model.to("cpu")(letters())[0],
                tolerances.PACKAGE_TO_REFERENCE_F32,
            )
            model.to(GPU)
        assert len(set(seen)) == 4

    def test_a_trainer_follows_its_model(self) -> None:
        here, there = character_model(), character_model()
        trainers = [seqrs.Trainer(model) for model in (here, there)]
        for k, device in enumerate(["gpu", "gpu", "cpu", "gpu", "cpu"]):
            there.to(device)
            want, got = (trainer.step(letters(k), letters(k + 1)) for trainer in trainers)
            assert_close([got.loss], [want.loss], tolerances.TRAINING_TO_PYTORCH)
        assert trainers[1].steps_done == 5
        close(there, here)

    def test_the_demo_s_model_learns_as_on_the_cpu(self) -> None:
        text = b"".join(b"def f%d(x):\n    return x + %d\n" % (k, 7 * k) for k in range(300))
        plan = characters_plan.Plan(
            updates=50, embedding=16, hidden=24, layers=2, batch=8, seq=16, lr=LEARNING_RATE, seed=1
        )
        losses: dict[str, list[float]] = {}
        for device in ("cpu", GPU):
            run = characters_plan.Run(characters_plan.Texts(text, text[:600]), plan, device=device)
            bits: list[float] = []
            run.train(lambda report: None, bits.append)
            losses[device] = bits
        assert len(losses["cpu"]) == 50
        assert losses["cpu"][-1] < 0.6 * losses["cpu"][0]
        for got, want in zip(losses[GPU], losses["cpu"], strict=True):
            assert_close([got], [want], tolerances.DEMO_ON_A_GPU)


class TestDevices:
    def test_names(self) -> None:
        layer = seqrs.GRU(2, 3)
        assert layer.device == "cpu"
        assert layer.to("cpu") is layer
        for name in ("cuda", "gpu:", "gpu:-1", "gpu:x", "CPU", ""):
            with pytest.raises(ValueError, match="device"):
                layer.to(name)
        with pytest.raises(TypeError, match="device: expected a string"):
            layer.to(0)  # type: ignore[arg-type]

    def test_an_adapter_that_is_not_there(self) -> None:
        model = character_model()
        with pytest.raises(seqrs.NoDeviceError, match="adapter 99"):
            model.to("gpu:99")
        assert model.device == "cpu"

    @gpu
    def test_float64_is_refused(self) -> None:
        for thing in (
            seqrs.LSTM(2, 3, dtype="float64"),
            seqrs.Sequential([seqrs.LSTM(2, 3, dtype="float64")]),
        ):
            with pytest.raises(seqrs.DTypeError, match="float32 on a GPU"):
                thing.to(GPU)
            assert thing.device == "cpu"
        layer = seqrs.Activation("tanh").to(GPU)
        assert layer(np.ones((2, 3), np.float32))[0].dtype == np.float32
        with pytest.raises(seqrs.DTypeError, match="float32 on a GPU"):
            layer(np.ones((2, 3)))

    @gpu
    def test_adapters_are_told(self) -> None:
        found = seqrs.gpu.adapters()
        assert found
        assert found == seqrs.info(gpu=True)["gpus"]
        assert set(found[0]) == {"name", "driver", "api", "software", "largest_buffer"}
        assert found[0]["largest_buffer"] >= 128 << 20
        assert "gpus" not in seqrs.info()

    @pytest.mark.parametrize(
        "env",
        [
            {"VK_DRIVER_FILES": "/nonexistent.json", "VK_ICD_FILENAMES": "/nonexistent.json"},
            {"SEQRS_GPU_ALLOW_CPU": None},
        ],
        ids=["no-driver", "software"],
    )
    def test_there_is_no_silent_fallback(self, env: dict[str, str | None]) -> None:
        code = """
import seqrs
if any(not adapter["software"] for adapter in seqrs.gpu.adapters()):
    print("refused, had it been software")
else:
    layer = seqrs.LSTM(2, 3)
    try:
        layer.to("gpu")
    except seqrs.NoDeviceError as error:
        assert layer.device == "cpu", layer.device
        print("refused", error)
"""
        found = python(code, env=env)
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("refused")

    @gpu
    def test_a_forked_child_is_told(self) -> None:
        code = """
import numpy as np, os, seqrs
model = seqrs.Sequential([seqrs.GRU(2, 3)]).to("gpu")
x = np.zeros((1, 2, 2), np.float32)
model(x)
child = os.fork()
if child == 0:
    try:
        model(x)
    except seqrs.StateError as error:
        assert "forked" in str(error), error
        y, _ = model.to("cpu")(x)
        os._exit(int(y.shape != (1, 2, 3)))
    os._exit(2)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
        found = python(code)
        assert found.returncode == 0, found.stderr
        assert found.stdout.strip() == "0", found.stderr

    def test_nothing_of_it_is_touched_before_it_is_asked_for(self) -> None:
        code = """
import seqrs, numpy as np
seqrs.LSTM(2, 3)(np.zeros((1, 2, 2), np.float32))
print([line for line in open("/proc/self/maps") if "vulkan" in line or "lvp" in line])
"""
        found = python(code)
        assert found.returncode == 0, found.stderr
        assert found.stdout.strip() == "[]"
