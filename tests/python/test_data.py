"""Datasets: what they refuse, and targets of one number each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import seqrs
from cases import assert_same
from tolerances import FORMULA_F32, assert_close

SEQUENCES = [np.arange(n * 2.0).reshape(n, 2) for n in (3, 1, 4, 2)]


def datasets() -> list[seqrs.data.Dataset]:
    return [
        seqrs.data.TextCorpus("abcdefghij" * 4, 2, 5),
        seqrs.data.Padded(SEQUENCES, [0.0, 1.0, 2.0, 3.0], 2),
        seqrs.data.Windows(np.arange(20.0), 3, 1, 4),
    ]


@pytest.mark.parametrize("data", datasets(), ids=lambda data: type(data).__name__)
def test_batches_outside_the_epoch_are_refused(data: seqrs.data.Dataset) -> None:
    """A negative index neither counts from the end nor gives an empty batch."""
    data.batch(len(data) - 1)
    for index in (len(data), -1, -len(data), 10**30):
        with pytest.raises(IndexError, match=rf"index: .*0 <= index < {len(data)}, got {index}"):
            data.batch(index)
    with pytest.raises(TypeError, match=r"index: .*1\.5"):
        data.batch(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [1, "01", None, [[0]]])
def test_columns_are_a_sequence_of_numbers(columns: Any) -> None:
    series = np.zeros((10, 2))
    if columns is None:
        assert next(iter(seqrs.data.Windows(series, 2, 1, 4)))[1].shape == (4, 2)
        return
    with pytest.raises(TypeError, match="columns: expected a sequence of column numbers"):
        seqrs.data.Windows(series, 2, 1, 4, columns=columns)


def test_ids_that_int64_cannot_hold_are_refused() -> None:
    large = np.array([1, 2**63], np.uint64)
    with pytest.raises(seqrs.ShapeError, match=r"sequences\[1\]: .*below 2\*\*63, got 92233"):
        seqrs.data.Padded([[1], large], [0, 1], 1)
    with pytest.raises(seqrs.ShapeError, match=r"targets\[0\]: .*below 2\*\*63, got 92233"):
        seqrs.data.Padded([[1]], [large[1]], 1)
    x, _, _ = seqrs.data.Padded([large - np.uint64(1)], [0], 1).batch(0)[:3]
    assert (x.dtype, x.tolist()) == (np.int64, [[0, 2**63 - 1]])


#: Of a model with one feature: for each row, and for each step.
ROWS = [seqrs.LSTM(2, 4), seqrs.Last(), seqrs.Linear(4, 1)]
STEPS = [seqrs.LSTM(2, 4), seqrs.Linear(4, 1)]
LOSSES = [seqrs.MSE(), seqrs.MAE(), seqrs.Huber(), seqrs.BinaryCrossEntropy(), seqrs.MSE("sum")]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("layers", [ROWS, STEPS], ids=["rows", "steps"])
def test_targets_of_one_number_need_no_last_axis(layers: Any, loss: Any) -> None:
    random = np.random.default_rng(0)
    x, lengths = random.normal(size=(3, 5, 2)), [5, 2, 3]
    y = random.uniform(size=(3,) if layers is ROWS else (3, 5))
    models = [seqrs.Sequential(layers, seed=1)]
    before = models[0].state_dict()
    found = []
    for targets in (y[..., None], y, y.tolist()):
        model = seqrs.Sequential(layers, seed=1)
        assert_same(model.state_dict(), before)
        trainer = seqrs.Trainer(model, loss=loss)
        live = {"lengths": lengths}
        step = trainer.step(x, targets, **live)
        evaluated = trainer.evaluate([(x, targets, lengths)])["loss"]
        y_pred, _ = model(x, lengths=lengths)
        given = {} if layers is ROWS else live
        alone = loss(y_pred, targets, **given)
        gradient = loss.gradient(y_pred, targets, **given)
        assert gradient.shape == y_pred.shape
        history = trainer.fit([(x, targets, lengths), (x, targets)], 1, progress=False)
        found.append(
            [step.loss, step.grad_norm, evaluated, alone, gradient.tolist(), history["loss"]]
        )
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_an_epoch_weighs_batches_by_their_targets_whatever_their_shape() -> None:
    """Without the last axis (B, T) must not be taken for B rows of T features."""
    xs = [np.ones((2, 3, 1)), np.ones((2, 9, 1))]
    model = seqrs.Sequential([seqrs.Linear(1, 1)], seed=0)
    trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.SGD(0.0))
    ys = [np.zeros((2, 3)), np.full((2, 9), 5.0)]
    losses = [trainer.step(x, y).loss for x, y in zip(xs, ys, strict=True)]
    history = trainer.fit(list(zip(xs, ys, strict=True)), 1, progress=False)
    assert_close(history["loss"][0], np.average(losses, weights=[6, 18]), FORMULA_F32)


def test_padded_serves_a_model_with_one_feature() -> None:
    data = seqrs.data.Padded(SEQUENCES, [0.0, 1.0, 2.0, 3.0], 2)
    model = seqrs.Sequential(ROWS, seed=0)
    seqrs.Trainer(model, loss=seqrs.MSE()).fit(data, 2, validation=data, progress=False)


@pytest.mark.parametrize("layers", [ROWS, STEPS], ids=["rows", "steps"])
def test_a_wrong_shape_is_told_both_right_ones(layers: Any) -> None:
    model = seqrs.Sequential(layers, seed=0)
    x = np.ones((3, 5, 2))
    shape = (3,) if layers is ROWS else (3, 5)
    words = f"y: expected shape {(*shape, 1)} or {shape}, got {(3, 4)}"
    y_pred, _ = model(x)
    trainer = seqrs.Trainer(model, loss=seqrs.MSE())
    for attempt in (
        lambda: trainer.step(x, np.ones((3, 4))),
        lambda: seqrs.MSE()(y_pred, np.ones((3, 4))),
        lambda: seqrs.MSE().gradient(y_pred, np.ones((3, 4))),
    ):
        with pytest.raises(seqrs.ShapeError) as caught:
            attempt()
        assert str(caught.value).replace(".", "") == words


def test_targets_are_called_y_and_found_where_the_caller_has_them() -> None:
    def refused(batch_first: bool, y: Any, **options: Any) -> str:
        layers = [seqrs.LSTM(2, 3, batch_first=batch_first), seqrs.Linear(3, 4)]
        trainer = seqrs.Trainer(seqrs.Sequential(layers, seed=0), **options)
        x = np.ones((*y.shape[:2], 2))
        with pytest.raises(seqrs.ShapeError) as caught:
            trainer.step(x, y)
        return str(caught.value)

    y = np.zeros((3, 5), int)
    y[1, 4] = 9
    for options in ({}, {"bptt": 2}):
        for batch_first in (True, False):
            message = refused(batch_first, y, **options)
            assert message.startswith("y[1, 4]: expected a class in 0..4, got 9"), message
    y = np.full((3, 5, 4), 2.0)
    found = refused(True, y, loss=seqrs.BinaryCrossEntropy())
    assert found.startswith("y[0, 0, 0]: expected a number in [0, 1], got 2")
    with pytest.raises(seqrs.ShapeError, match=r"^y\[0, 0, 0\]: expected a number in"):
        seqrs.BinaryCrossEntropy()(y, y)
    with pytest.raises(seqrs.ShapeError, match=r"^y\[0, 0, 0\]: expected a number in"):
        seqrs.BinaryCrossEntropy().gradient(y, y)
