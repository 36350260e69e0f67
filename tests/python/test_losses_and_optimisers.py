"""Losses, optimisers and clipping: against PyTorch's golden files, differences, and a NumPy run."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import PLACES
from cases import DTYPES, GOLDEN, Array, assert_same, differences, numbers
from seqrs import reference
from tolerances import (
    FORMULA_F64,
    REFERENCE_TO_DIFFERENCES,
    assert_close,
    assert_exact,
    assert_same_bits,
)

LOSS_GOLDENS = np.load(GOLDEN / "losses.npz")
OPTIMISER_GOLDENS = np.load(GOLDEN / "optimisers.npz")

LOSSES: dict[str, type[Any]] = {
    "cross_entropy": seqrs.CrossEntropy,
    "binary_cross_entropy": seqrs.BinaryCrossEntropy,
    "mse": seqrs.MSE,
    "mae": seqrs.MAE,
    "huber": seqrs.Huber,
}
TO_PYTORCH = {
    "float32": tolerances.PACKAGE_TO_PYTORCH_F32,
    "float64": tolerances.PACKAGE_TO_PYTORCH_F64,
}
FORMULA = {"float32": tolerances.FORMULA_F32, "float64": tolerances.FORMULA_F64}


def golden_target(name: str, case: str) -> Array:
    y: Array = LOSS_GOLDENS[f"{name}/{case}/y"]
    return y.astype(np.int64) if name == "cross_entropy" else y


class TestLosses:
    """Losses as they are called, which is on the CPU."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("case", ["steps", "masked", "rows"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_golden(self, name: str, case: str, reduction: str, dtype: str) -> None:
        y_pred = LOSS_GOLDENS[f"{name}/{case}/y_pred"].astype(dtype)
        y = golden_target(name, case)
        mask = LOSS_GOLDENS[f"{name}/{case}/mask"] if case == "masked" else None
        loss = LOSSES[name](reduction=reduction)
        value = loss(y_pred, y, mask=mask)
        assert isinstance(value, float)
        assert_close(value, LOSS_GOLDENS[f"{name}/{case}/{reduction}"], TO_PYTORCH[dtype])
        gradient = loss.gradient(y_pred, y, mask=mask)
        assert gradient.dtype == dtype
        assert_close(gradient, LOSS_GOLDENS[f"{name}/{case}/d_{reduction}"], TO_PYTORCH[dtype])

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_gradients_are_those_of_the_value(self, name: str, reduction: str) -> None:
        # MAE has a kink where y_pred is y, and the golden numbers are multiples of 1/64.
        y_pred = LOSS_GOLDENS[f"{name}/steps/y_pred"] + 1 / 128
        y = golden_target(name, "steps")
        loss = LOSSES[name](reduction=reduction)
        for live in ({}, {"lengths": [2, 0, 5]}, {"mask": LOSS_GOLDENS[f"{name}/masked/mask"]}):
            expected = differences(lambda live=live: loss(y_pred, y, **live), y_pred)  # type: ignore[misc]
            got = loss.gradient(y_pred, y, **live)
            assert_close(got, expected, REFERENCE_TO_DIFFERENCES)

    @pytest.mark.parametrize("name", LOSSES)
    def test_lengths_are_a_prefix_mask_and_padding_has_no_influence(self, name: str) -> None:
        y_pred, y = LOSS_GOLDENS[f"{name}/steps/y_pred"].copy(), golden_target(name, "steps")
        lengths = np.array([2, 0, 5])
        mask = np.arange(5) < lengths[:, None]
        loss = LOSSES[name]()
        value, gradient = loss(y_pred, y, lengths=lengths), loss.gradient(y_pred, y, lengths)
        assert loss(y_pred, y, mask=mask) == value
        assert_same_bits(loss.gradient(y_pred, y, mask=mask), gradient)
        y = y.copy()
        y_pred[~mask] = np.nan
        y[~mask] = -100 if name == "cross_entropy" else np.nan
        assert loss(y_pred, y, lengths=lengths) == value
        assert_same_bits(loss.gradient(y_pred, y, lengths), gradient)
        assert not gradient[~mask].any()

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_without_a_live_step_a_loss_is_zero(self, name: str, reduction: str) -> None:
        y_pred, y = LOSS_GOLDENS[f"{name}/steps/y_pred"], golden_target(name, "steps")
        loss = LOSSES[name](reduction=reduction)
        assert loss(y_pred, y, lengths=[0, 0, 0]) == 0.0
        assert not loss.gradient(y_pred, y, lengths=[0, 0, 0]).any()
        assert loss(y_pred[:0], y[:0]) == 0.0
        assert loss.gradient(y_pred[:, :0], y[:, :0]).shape == (3, 0, 4)

    def test_sum_is_the_textbooks_sum_over_time_and_rows(self) -> None:
        y_pred, y = (
            LOSS_GOLDENS["cross_entropy/steps/y_pred"],
            golden_target("cross_entropy", "steps"),
        )
        expected = 0.0
        for row, targets in zip(y_pred, y, strict=True):
            for z, k in zip(row, targets, strict=True):
                expected += math.log(np.exp(z).sum()) - z[k]
        assert_close(seqrs.CrossEntropy("sum")(y_pred, y), expected, FORMULA_F64)

    def test_large_logits_do_not_overflow(self) -> None:
        logits = np.array([[1e4, -1e4, 0.0]])
        assert seqrs.CrossEntropy()(logits, [0]) == 0.0
        assert seqrs.CrossEntropy()(logits, [1]) == 2e4
        mean = seqrs.BinaryCrossEntropy()(logits, [[1.0, 0.0, 1.0]])
        assert_close(mean, math.log(2) / 3, FORMULA_F64)
        gradient = seqrs.BinaryCrossEntropy("sum").gradient(logits, [[0.0, 0.0, 1.0]])
        assert gradient.tolist() == [[1.0, 0.0, -0.5]]

    def test_huber_with_another_delta(self) -> None:
        loss = seqrs.Huber(delta=0.5, reduction="sum")
        assert loss([[0.25, 2.0]], [[0.0, 0.0]]) == 0.25**2 / 2 + 0.5 * (2.0 - 0.25)
        assert loss.gradient(np.array([[0.25, 2.0]]), [[0.0, 0.0]]).tolist() == [[0.25, 0.5]]

    def test_nan_stays_nan(self) -> None:
        assert math.isnan(seqrs.MSE()([[np.nan]], [[0.0]]))
        assert math.isnan(seqrs.CrossEntropy()([[np.nan, 0.0]], [0]))

    @pytest.mark.parametrize("name", LOSSES)
    def test_losses_are_values(self, name: str) -> None:
        loss = LOSSES[name](reduction="sum")
        assert pickle.loads(pickle.dumps(loss)) == loss == eval(repr(loss), vars(seqrs))
        assert loss != LOSSES[name]()
        assert loss.reduction == "sum"


def in_training(
    loss: Any, y_pred: Array, y: Any, dtype: str, device: str, **live: Any
) -> tuple[float, Array]:
    """The value and gradient of a loss as a training step takes them, on a device.

    Row k of an embedding is what is expected at step k, so that its gradient is the loss's; at a
    rate of 2^20 the weight after the step is that gradient and nothing else, but for its rounding.
    """
    count, width = math.prod(y_pred.shape[:-1]), y_pred.shape[-1]
    ids = np.arange(count).reshape(y_pred.shape[:-1])
    layers: list[Any] = [seqrs.Embedding(count, width, dtype=dtype)]
    if y_pred.ndim == 2:
        ids, layers = ids[:, None], [*layers, seqrs.Last()]
    model = seqrs.Sequential(layers).to(device)
    model.load_state_dict({"0.weight": y_pred.reshape(count, width)})
    before = model.state_dict()["0.weight"].astype(np.float64)
    trainer = seqrs.Trainer(model, loss=loss, optimizer=seqrs.SGD(2.0**20), clip_norm=None)
    value = trainer.step(ids, y, **live).loss
    gradient = (before - model.state_dict()["0.weight"]) / 2**20
    return value, gradient.reshape(y_pred.shape)


@pytest.mark.parametrize(("dtype", "device"), PLACES)
class TestLossesInTraining:
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("case", ["steps", "masked", "rows"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_golden(self, name: str, case: str, reduction: str, dtype: str, device: str) -> None:
        y_pred, y = LOSS_GOLDENS[f"{name}/{case}/y_pred"], golden_target(name, case)
        live = {"mask": LOSS_GOLDENS[f"{name}/{case}/mask"]} if case == "masked" else {}
        loss = LOSSES[name](reduction=reduction)
        value, gradient = in_training(loss, y_pred, y, dtype, device, **live)
        assert_close(value, LOSS_GOLDENS[f"{name}/{case}/{reduction}"], TO_PYTORCH[dtype])
        assert_close(gradient, LOSS_GOLDENS[f"{name}/{case}/d_{reduction}"], TO_PYTORCH[dtype])

    def test_large_logits_do_not_overflow(self, dtype: str, device: str) -> None:
        logits = np.array([[1e4, -1e4, 0.0]])
        loss: Any = seqrs.CrossEntropy()
        values = [in_training(loss, logits, [k], dtype, device)[0] for k in (0, 1)]
        assert_exact(values, [0.0, 2e4], device)
        loss = seqrs.BinaryCrossEntropy("sum")
        value, gradient = in_training(loss, logits, [[1.0, 0.0, 1.0]], dtype, device)
        assert_close(value, math.log(2), FORMULA[dtype])
        assert_close(gradient, [[0.0, 0.0, -0.5]], FORMULA[dtype])

    def test_huber_with_another_delta(self, dtype: str, device: str) -> None:
        loss, y_pred = seqrs.Huber(delta=0.5, reduction="sum"), np.array([[0.25, 2.0]])
        value, gradient = in_training(loss, y_pred, [[0.0, 0.0]], dtype, device)
        assert_exact(value, 0.25**2 / 2 + 0.5 * (2.0 - 0.25), device)
        assert_close(gradient, [[0.25, 0.5]], FORMULA[dtype])


def optimiser_of(config: dict[str, Any], **changes: Any) -> Any:
    options = {**config, **changes}
    return getattr(seqrs, options.pop("optimiser"))(**options)


class Prescribed:
    """A model of one weight row whose gradient in each step is what one likes.

    y = w . x is far above its target, so the gradient of |y - target| is x.
    """

    def __init__(self, p0: Array, optimiser: Any, dtype: str, device: str, **options: Any) -> None:
        layers = [seqrs.Linear(len(p0), 1, bias=False, dtype=dtype)]
        self.model = seqrs.Sequential(layers).to(device)
        self.put(p0)
        options = {"clip_norm": None, **options}
        self.trainer = seqrs.Trainer(
            self.model, loss=seqrs.MAE("sum"), optimizer=optimiser, **options
        )

    def step(self, gradient: Array) -> Any:
        return self.trainer.step(gradient[None, None], [[[-1e6]]])

    def put(self, p: Array) -> None:
        self.model.load_state_dict({"0.weight": p[None]})

    @property
    def parameters(self) -> Array:
        found: Array = self.model.state_dict()["0.weight"][0]
        return found


CONFIGS = json.loads(str(OPTIMISER_GOLDENS["config"]))


class TestOptimisers:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("name", CONFIGS)
    def test_golden(self, name: str, dtype: str, device: str) -> None:
        run = Prescribed(OPTIMISER_GOLDENS["p0"], optimiser_of(CONFIGS[name]), dtype, device)
        pairs = zip(OPTIMISER_GOLDENS["gradients"], OPTIMISER_GOLDENS[name], strict=True)
        for gradient, expected in pairs:
            result = run.step(gradient)
            assert_close(result.grad_norm, np.linalg.norm(gradient), TO_PYTORCH[dtype])
            assert_close(run.parameters, expected, TO_PYTORCH[dtype])

    @pytest.mark.parametrize("name", CONFIGS)
    def test_optimisers_are_values(self, name: str) -> None:
        optimiser = optimiser_of(CONFIGS[name])
        again = pickle.loads(pickle.dumps(optimiser))
        assert again == optimiser == eval(repr(optimiser), vars(seqrs))
        assert optimiser != optimiser_of(CONFIGS[name], lr=0.5)
        assert optimiser.lr == CONFIGS[name]["lr"]

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("kind", [seqrs.SGD, seqrs.RMSprop, seqrs.Adam, seqrs.AdamW])
    def test_a_rate_of_zero_is_pytorchs_and_changes_nothing(
        self, kind: type[Any], dtype: str, device: str
    ) -> None:
        run = Prescribed(np.ones(3), kind(lr=0.0), dtype, device)
        run.step(np.array([1.0, 2.0, 3.0]))
        assert run.parameters.tolist() == [1.0, 1.0, 1.0]

    def test_defaults_are_pytorchs(self) -> None:
        assert seqrs.Adam() == seqrs.Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
        assert seqrs.AdamW() == seqrs.AdamW(lr=1e-3, weight_decay=0.01)
        assert seqrs.RMSprop() == seqrs.RMSprop(lr=1e-2, alpha=0.99, eps=1e-8)
        assert seqrs.SGD(0.1) == seqrs.SGD(lr=0.1, momentum=0, nesterov=False, weight_decay=0)


@pytest.mark.parametrize(("dtype", "device"), PLACES)
class TestClipping:
    P0, G = np.zeros(4), np.array([3.0, -4.0, 0.0, 12.0])  # of norm 13

    def change(self, dtype: str, device: str, **options: Any) -> tuple[Array, float]:
        run = Prescribed(self.P0, seqrs.SGD(lr=1.0), dtype, device, **options)
        result = run.step(self.G)
        return -run.parameters, result.grad_norm

    def test_a_larger_norm_is_scaled_exactly_and_told_as_it_was(
        self, dtype: str, device: str
    ) -> None:
        clipped, norm = self.change(dtype, device, clip_norm=6.5)
        assert_exact(norm, 13.0, device)
        assert_exact(clipped, self.G * (6.5 / 13.0), device)

    def test_a_smaller_norm_is_left_alone(self, dtype: str, device: str) -> None:
        for limit in (13.0, 20.0, None):
            clipped, norm = self.change(dtype, device, clip_norm=limit)
            assert_exact(norm, 13.0, device)
            assert_exact(clipped, self.G, device)

    def test_values_are_clipped_after_the_norm(self, dtype: str, device: str) -> None:
        clipped, _ = self.change(dtype, device, clip_value=3.5)
        assert_exact(clipped, [3.0, -3.5, 0.0, 3.5], device)
        clipped, _ = self.change(dtype, device, clip_norm=6.5, clip_value=1.75)
        assert_exact(clipped, [1.5, -1.75, 0.0, 1.75], device)

    def test_the_norm_is_over_all_parameters(self, dtype: str, device: str) -> None:
        layers = [seqrs.LSTM(3, 4, dtype=dtype), seqrs.Linear(4, 2, dtype=dtype)]
        model = seqrs.Sequential(layers, seed=0).to(device)
        random = np.random.default_rng(0)
        x, y = (random.normal(size=(2, 5, n)).astype(dtype) for n in (3, 2))
        out, _, tape = model.forward(x)
        params = model.backward(tape, seqrs.MSE().gradient(out, y)).params
        expected = math.sqrt(sum(float((d**2).sum()) for d in params.values()))
        result = seqrs.Trainer(model, loss=seqrs.MSE(), clip_norm=1e-3).step(x, y)
        assert_close(result.grad_norm, expected, FORMULA[dtype])
        assert_close(result.loss, seqrs.MSE()(out, y), FORMULA[dtype])


class NumpyTrainer:
    """An LSTM and a Linear trained by Adam with clipping, in NumPy and the reference alone."""

    def __init__(self, lstm: Any, linear: dict[str, Array], lr: float, clip: float) -> None:
        self.lstm, self.linear, self.lr, self.clip = lstm, linear, lr, clip
        self.m: dict[str, Array] = {}
        self.v: dict[str, Array] = {}
        self.t = 0

    def step(self, x: Array, y: Array, lengths: Array) -> tuple[float, float]:
        h, _, tape = self.lstm.forward(x, lengths=lengths)
        live = np.arange(x.shape[1]) < lengths[:, None]
        logits = h @ self.linear["weight"].T + self.linear["bias"]
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        chosen = np.take_along_axis(p, y[..., None], axis=-1)[..., 0]
        loss = -np.log(chosen[live]).mean()
        d = p.copy()
        np.put_along_axis(d, y[..., None], chosen[..., None] - 1, axis=-1)
        d *= live[..., None] / live.sum()
        gradients = {
            f"0.{k}": g
            for k, g in self.lstm.backward(tape, d @ self.linear["weight"]).params.items()
        }
        gradients["1.weight"] = np.einsum("bto,bth->oh", d, h)
        gradients["1.bias"] = d.sum(axis=(0, 1))
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
        self.update(gradients, min(1.0, self.clip / norm))
        return float(loss), norm

    def update(self, gradients: dict[str, Array], scale: float) -> None:
        self.t += 1
        weights = {f"0.{k}": p for k, p in self.lstm.state_dict().items()}
        weights |= {f"1.{k}": p for k, p in self.linear.items()}
        for name, gradient in gradients.items():
            g = gradient * scale
            self.m[name] = 0.9 * self.m.get(name, 0.0) + 0.1 * g
            self.v[name] = 0.999 * self.v.get(name, 0.0) + 0.001 * g**2
            m = self.m[name] / (1 - 0.9**self.t)
            v = self.v[name] / (1 - 0.999**self.t)
            weights[name] = weights[name] - self.lr * m / (np.sqrt(v) + 1e-8)
        self.lstm.load_state_dict({k[2:]: p for k, p in weights.items() if k.startswith("0.")})
        self.linear = {k[2:]: p for k, p in weights.items() if k.startswith("1.")}


class TestAgainstNumpy:
    TOLERANCE: ClassVar[dict[str, float]] = {
        "float32": tolerances.TRAINING_TO_PYTORCH,
        "float64": tolerances.TRAINING_TO_PYTORCH_F64,
    }

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_sixty_steps_of_training(self, dtype: str, device: str) -> None:
        tolerance = self.TOLERANCE[dtype]
        layers = [seqrs.LSTM(4, 10, dtype=dtype), seqrs.Linear(10, 3, dtype=dtype)]
        model = seqrs.Sequential(layers, seed=1).to(device)
        lstm = reference.LSTM(4, 10)
        weights = model.state_dict()
        lstm.load_state_dict({k[2:]: p for k, p in weights.items() if k.startswith("0.")})
        linear = {k[2:]: p.astype(np.float64) for k, p in weights.items() if k.startswith("1.")}
        clip = 0.2
        theirs = NumpyTrainer(lstm, linear, lr=2e-2, clip=clip)
        ours = seqrs.Trainer(
            model, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=2e-2), clip_norm=clip
        )
        random = np.random.default_rng(0)
        losses, clipped = [], 0
        for step in range(60):
            x = numbers(random, (6, 7, 4))
            # Whether the running sum rises above or below a band: memory is needed.
            y = np.digitize(x[..., 0].cumsum(axis=1), [-0.5, 0.5])
            lengths = random.integers(0, 8, 6)
            lengths[0] = 7
            expected = theirs.step(x, y, lengths)
            result = ours.step(x, y, lengths=lengths)
            assert_close(result.loss, expected[0], tolerance, f"loss, step {step}")
            assert_close(result.grad_norm, expected[1], tolerance, f"norm, step {step}")
            losses.append(result.loss)
            clipped += expected[1] > clip
        assert np.mean(losses[-10:]) < np.mean(losses[:10])
        assert clipped > 0
        final = {f"0.{k}": p for k, p in theirs.lstm.state_dict().items()}
        final |= {f"1.{k}": p for k, p in theirs.linear.items()}
        for name, p in model.state_dict().items():
            assert_close(p, final[name], tolerance, name)


@pytest.mark.parametrize(("dtype", "device"), PLACES)
@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (lambda: seqrs.schedules.constant(0.1), lambda s: 0.1),
        (lambda: seqrs.schedules.step(0.1, 3, factor=0.5), lambda s: 0.1 * 0.5 ** (s // 3)),
        (
            lambda: seqrs.schedules.cosine(0.1, 8, warmup=2, final_factor=0.1),
            lambda s: (
                0.1 * (s + 1) / 2
                if s < 2
                else 0.01 + 0.09 * (1 + math.cos(math.pi * min((s - 2) / 6, 1))) / 2
            ),
        ),
        (lambda: seqrs.schedules.one_cycle(0.1, 10), lambda s: one_cycle(s, 0.1, 10)),
    ],
    ids=["constant", "step", "cosine", "one-cycle"],
)
def test_schedules(
    schedule: Callable[[], Any], formula: Callable[[int], float], dtype: str, device: str
) -> None:
    run = Prescribed(np.zeros(1), seqrs.SGD(lr=schedule()), dtype, device)
    for s in range(14):
        assert_close(run.trainer.lr, formula(s), FORMULA_F64, f"step {s}")
        # From 0 the weight changes to the rate, with the gradient -1.
        run.put(np.zeros(1))
        run.step(-np.ones(1))
        assert_close(run.parameters[0], formula(s), FORMULA[dtype], f"step {s}")
    made = schedule()
    assert pickle.loads(pickle.dumps(made)) == made == eval(repr(made), vars(seqrs.schedules))


def one_cycle(s: int, top: float, steps: int) -> float:
    """PyTorch's OneCycleLR with its defaults."""
    first, last = top / 25, top / 25 / 1e4
    peak, end = 0.3 * steps - 1, steps - 1

    def half_cosine(a: float, b: float, share: float) -> float:
        return b + (a - b) * (1 + math.cos(math.pi * share)) / 2

    if s <= peak:
        return half_cosine(first, top, s / peak)
    return half_cosine(top, last, min((s - peak) / (end - peak), 1.0))


class TestPlateau:
    def losses_to_rates(self, device: str, losses: list[float], **options: Any) -> list[float]:
        """Rates after each epoch of `fit` in which the loss is as prescribed."""
        optimiser = seqrs.SGD(lr=seqrs.schedules.plateau(0.1, **options))
        run = Prescribed(np.zeros(1), optimiser, "float32", device)
        rates = []
        for loss in losses:
            x, y = np.zeros((1, 1, 1)), np.full((1, 1, 1), loss)
            run.trainer.fit([(x, y)], epochs=1, progress=False)
            rates.append(run.trainer.lr)
        return rates

    def test_the_rate_falls_after_patience(self, device: str) -> None:
        rates = self.losses_to_rates(device, [3, 2, 2, 2, 2, 1, 1, 1], factor=0.5, patience=1)
        assert_close(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025], FORMULA_F64)

    def test_the_rate_has_a_floor(self, device: str) -> None:
        rates = self.losses_to_rates(device, [1.0] * 5, factor=0.1, patience=0, min_lr=0.004)
        assert_close(rates, [0.1, 0.01, 0.004, 0.004, 0.004], FORMULA_F64)


def test_the_state_of_the_optimiser_is_the_trainers(device: str) -> None:
    """Two trainers with one optimiser object do not share its averages."""
    optimiser = seqrs.Adam(lr=0.1)
    one, two = (Prescribed(np.zeros(3), optimiser, "float32", device) for _ in range(2))
    one.step(np.array([1.0, 2.0, 3.0]))
    two.step(np.array([1.0, 2.0, 3.0]))
    assert_same(one.model.state_dict(), two.model.state_dict())
    one.step(np.array([-1.0, 0.0, 1.0]))
    two.step(np.array([-1.0, 0.0, 1.0]))
    assert_same(one.model.state_dict(), two.model.state_dict())
