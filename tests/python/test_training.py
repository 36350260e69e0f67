"""Trainer and fit: single steps, epochs, data, callbacks, and runs that are interrupted."""

from __future__ import annotations

import csv
import functools
import math
import os
import random as stdlib_random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
from adapter import PLACES
from cases import (
    HERE,
    Array,
    assert_same,
    assert_same_state,
    character_model,
    id_batches,
    make,
    python,
    without_privileges,
)
from seqrs.checkpoints import Checkpoints
from tolerances import FORMULA_F32, FORMULA_F64, assert_close, assert_same_bits

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
FORMULA = {"float32": FORMULA_F32, "float64": FORMULA_F64}


def regression_model(dtype: str = "float32", device: str = "cpu") -> seqrs.Sequential:
    layers = [seqrs.GRU(3, 8, dtype=dtype), seqrs.Last(), seqrs.Linear(8, 2, dtype=dtype)]
    return seqrs.Sequential(layers, seed=0).to(device)


def sums(count: int = 20, dtype: str = "float32") -> list[tuple[Array, Array]]:
    """Batches in which y is the sum of x over time, of two features."""
    random = np.random.default_rng(0)
    xs = [random.uniform(-1, 1, (8, 5, 3)).astype(dtype) for _ in range(count)]
    return [(x, x[..., :2].sum(axis=1)) for x in xs]


class TestStep:
    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize(
        "optimizer",
        [seqrs.SGD(0.3, momentum=0.9), seqrs.RMSprop(), seqrs.Adam(0.01), seqrs.AdamW(0.01)],
        ids=lambda optimizer: type(optimizer).__name__,
    )
    def test_the_loss_falls(self, optimizer: Any, dtype: str, device: str) -> None:
        model = regression_model(dtype, device)
        trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=optimizer)
        losses = [trainer.step(x, y).loss for _ in range(6) for x, y in sums(dtype=dtype)]
        assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])
        assert trainer.steps_done == 120

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize(
        ("loss", "y"),
        [
            (seqrs.CrossEntropy(), np.array([[0, 1, 2, 0]] * 2)),
            (seqrs.BinaryCrossEntropy(), np.array([[[1.0, 0.0, 1.0]] * 4] * 2)),
            (seqrs.MSE(), np.full((2, 4, 3), 0.3)),
            (seqrs.MAE(), np.full((2, 4, 3), 0.3)),
            (seqrs.Huber(), np.full((2, 4, 3), 0.3)),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("cell", ["lstm", "lstm-peephole"])
    def test_the_result_is_the_loss_and_norm_before_the_update(
        self, cell: str, loss: Any, y: Array, dtype: str, device: str
    ) -> None:
        layers = [make(cell, dtype, 5, 6), seqrs.Linear(6, 3, dtype=dtype)]
        model = seqrs.Sequential(layers).to(device)
        x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(dtype)
        out, state, tape = model.forward(x, lengths=[3, 4])
        gradients = model.backward(tape, loss.gradient(out, y, lengths=[3, 4]))
        norm = math.sqrt(sum((g**2).sum() for g in gradients.params.values()))
        before = model.state_dict()
        result = seqrs.Trainer(model, loss=loss, optimizer=seqrs.SGD(0.1), clip_norm=None).step(
            x, y, lengths=[3, 4]
        )
        assert_close(result.loss, loss(out, y, lengths=[3, 4]), FORMULA[dtype])
        assert_close(result.grad_norm, norm, FORMULA[dtype])
        assert_same_state(result.state, state)
        for name, p in model.state_dict().items():
            assert_close(p, before[name] - 0.1 * gradients.params[name], FORMULA[dtype], name)

    def test_targets_for_rows(self, device: str) -> None:
        layers = [seqrs.Embedding(9, 4), seqrs.LSTM(4, 6), seqrs.MeanPool(), seqrs.Linear(6, 3)]
        model = seqrs.Sequential(layers, seed=0).to(device)
        ids = np.random.default_rng(0).integers(0, 9, (4, 5))
        y, lengths = np.array([0, 1, 2, 1]), [5, 2, 0, 3]
        out, _ = model(ids, lengths=lengths)
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.05))
        result = trainer.step(ids, y, lengths=lengths)
        # A row without a live step takes no part.
        expected = seqrs.CrossEntropy()(out[[0, 1, 3]], y[[0, 1, 3]])
        assert_close(result.loss, expected, FORMULA_F32)
        for _ in range(60):
            result = trainer.step(ids, y, lengths=lengths)
        assert result.loss < 0.1

    def test_a_single_layer_is_trained_too(self, device: str) -> None:
        layer = seqrs.LSTM(3, 2).to(device)
        trainer = seqrs.Trainer(layer, loss=seqrs.MSE(), optimizer=seqrs.Adam(0.05))
        x, y = np.ones((2, 4, 3)), np.full((2, 4, 2), 0.5)
        first = trainer.step(x, y)
        assert [s.shape for s in first.state] == [(1, 2, 2)] * 2
        for _ in range(50):
            last = trainer.step(x, y, state=None)
        assert last.loss < 0.5 * first.loss
        assert trainer.evaluate([(x, y)])["loss"] < first.loss

    def test_time_first(self, device: str) -> None:
        def run(batch_first: bool) -> dict[str, Array]:
            layers = [make("lstm", batch_first=batch_first), seqrs.Linear(7, 2, seed=3)]
            model = seqrs.Sequential(layers).to(device)
            trainer = seqrs.Trainer(model, loss=seqrs.MSE())
            for seed in range(3):
                random = np.random.default_rng(seed)
                x, y = random.normal(size=(4, 6, 5)), random.normal(size=(4, 6, 2))
                mask = random.integers(0, 2, (4, 6)).astype(bool)
                if not batch_first:
                    x, y, mask = x.swapaxes(0, 1), y.swapaxes(0, 1), mask.T
                trainer.step(x, y, mask=mask)
            return model.state_dict()

        assert_same(run(False), run(True))

    def test_the_state_is_carried(self, device: str) -> None:
        model = character_model(device=device)
        (x, y), *_ = id_batches(1)
        trainer = seqrs.Trainer(model)
        _, expected = model(x)
        result = trainer.step(x, y)
        assert_same_state(result.state, expected)
        _, expected = model(x, result.state)
        assert_same_state(trainer.step(x, y, state=result.state).state, expected)

    @pytest.mark.parametrize("live", [{"lengths": [0] * 4}, {"mask": np.zeros((4, 6), bool)}])
    @pytest.mark.parametrize(
        "optimizer", [seqrs.AdamW(0.1), seqrs.SGD(0.1, momentum=0.9, weight_decay=1)]
    )
    def test_no_live_step_changes_nothing(
        self, live: dict[str, Any], optimizer: Any, device: str
    ) -> None:
        def run(empty: bool) -> dict[str, Array]:
            model = character_model(device=device)
            trainer = seqrs.Trainer(model, optimizer=optimizer)
            for x, y in id_batches(3):
                trainer.step(x, y)
                if empty:
                    before, done = model.state_dict(), trainer.steps_done
                    result = trainer.step(x, y, **live)
                    assert (result.loss, result.grad_norm) == (0.0, 0.0)
                    assert_same_state(result.state, model.initial_state(4))
                    assert_same(model.state_dict(), before)
                    assert trainer.steps_done == done
            return model.state_dict()

        assert_same(run(True), run(False))

    def test_empty_batches_change_nothing(self, device: str) -> None:
        model = character_model(device=device)
        before = model.state_dict()
        trainer = seqrs.Trainer(model)
        for shape in ((0, 5), (3, 0), (0, 0)):
            assert trainer.step(np.zeros(shape, int), np.zeros(shape, int)).loss == 0.0
        assert_same(model.state_dict(), before)

    def test_tapes_of_before_are_refused(self, device: str) -> None:
        model = character_model(device=device)
        (x, y), *_ = id_batches(1)
        out, _, tape = model.forward(x)
        seqrs.Trainer(model).step(x, y)
        with pytest.raises(seqrs.StateError, match="tape"):
            model.backward(tape, out)

    def test_weights_loaded_into_a_layer_are_the_ones_that_train(self, device: str) -> None:
        model, other = (character_model(seed=seed, device=device) for seed in (1, 2))
        trainer = seqrs.Trainer(model, optimizer=seqrs.SGD(0.1))
        (x, y), *_ = id_batches(1)
        trainer.step(x, y)
        model.load_state_dict(other.state_dict())
        trainer.step(x, y)
        seqrs.Trainer(other, optimizer=seqrs.SGD(0.1)).step(x, y)
        assert_same(model.state_dict(), other.state_dict())


class TestTruncated:
    def test_one_update_for_each_chunk_with_the_state_carried(self, device: str) -> None:
        """As if the chunks were given one by one."""
        x, y = np.random.default_rng(0).integers(0, 11, (2, 4, 10))
        lengths = np.array([10, 3, 0, 7])
        whole, pieces = (character_model(num_layers=2, device=device) for _ in range(2))
        options: dict[str, Any] = {"optimizer": seqrs.Adam(0.01), "clip_norm": 0.1}
        truncated = seqrs.Trainer(whole, bptt=4, **options)
        result = truncated.step(x, y, lengths=lengths)
        trainer = seqrs.Trainer(pieces, **options)
        state, losses, norms, live = None, [], [], []
        for a in (0, 4, 8):
            b = min(a + 4, 10)
            n = np.clip(lengths - a, 0, b - a)
            part = trainer.step(x[:, a:b], y[:, a:b], lengths=n, state=state)
            state = part.state
            losses.append(part.loss)
            norms.append(part.grad_norm)
            live.append(n.sum())
        assert_same(whole.state_dict(), pieces.state_dict())
        assert_same_state(result.state, state)
        assert truncated.steps_done == trainer.steps_done == 3
        assert_close(result.loss, np.average(losses, weights=live), FORMULA_F32)
        assert result.grad_norm == max(norms)

    def test_chunks_without_a_live_step_are_no_updates(self, device: str) -> None:
        (x, y), *_ = id_batches(1, steps=12)
        trainer = seqrs.Trainer(character_model(device=device), bptt=4)
        trainer.step(x, y, lengths=[4, 1, 2, 3])
        assert trainer.steps_done == 1

    def test_a_chunk_as_long_as_the_sequence_is_no_truncation(self, device: str) -> None:
        (x, y), *_ = id_batches(1)
        weights = []
        for bptt in (None, 6, 100):
            model = character_model(dropout=0.5, num_layers=2, device=device)
            seqrs.Trainer(model, bptt=bptt, seed=3).step(x, y)
            weights.append(model.state_dict())
        assert_same(weights[1], weights[0])
        assert_same(weights[2], weights[0])

    def test_masks_are_cut_as_well(self, device: str) -> None:
        (x, y), *_ = id_batches(1)
        weights = []
        for live in ({"lengths": [5, 6, 1, 0]}, {"mask": np.arange(6) < [[5], [6], [1], [0]]}):
            model = character_model(device=device)
            seqrs.Trainer(model, bptt=2).step(x, y, **live)
            weights.append(model.state_dict())
        assert_same(weights[1], weights[0])


class TestNumericalErrors:
    def test_nan_in_the_data_names_the_step_and_changes_nothing(self, device: str) -> None:
        model = regression_model(device=device)
        trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.Adam(0.01))
        (x, y), (x2, y2), *_ = sums()
        trainer.step(x, y)
        before = model.state_dict()
        bad = x.copy()
        bad[0, 2, 1] = np.nan
        for arguments in ((bad, y), (x, np.full_like(y, np.nan)), (x, np.full_like(y, np.inf))):
            with pytest.raises(seqrs.NumericalError, match=r"step 2"):
                trainer.step(*arguments)
            assert_same(model.state_dict(), before)
        assert trainer.steps_done == 1
        trainer.step(x2, y2)

        same = regression_model(device=device)
        other = seqrs.Trainer(same, loss=seqrs.MSE(), optimizer=seqrs.Adam(0.01))
        other.step(x, y)
        other.step(x2, y2)
        assert_same(model.state_dict(), same.state_dict())

    def test_an_infinite_gradient_names_the_parameter(self, device: str) -> None:
        # In float32: |y| is 4 * 3e18, its gradient 4 * 3e38.
        model = seqrs.Sequential([seqrs.Linear(1, 1, bias=False)]).to(device)
        model.load_state_dict({"0.weight": [[1e-20]]})
        before = model.state_dict()
        trainer = seqrs.Trainer(model, loss=seqrs.MAE("sum"))
        with pytest.raises(seqrs.NumericalError, match=r"0\.weight.*step 1"):
            trainer.step(np.full((4, 1, 1), 3e38), np.zeros((4, 1, 1)))
        assert_same(model.state_dict(), before)

    def test_with_truncation_the_whole_call_is_undone(self, device: str) -> None:
        model = seqrs.Sequential([seqrs.GRU(3, 4), seqrs.Linear(4, 2)], seed=0).to(device)
        trainer = seqrs.Trainer(model, loss=seqrs.MSE(), bptt=2)
        x, y = np.ones((2, 6, 3)), np.ones((2, 6, 2))
        x[0, 5, 0] = np.nan
        before = model.state_dict()
        with pytest.raises(seqrs.NumericalError):
            trainer.step(x, y)
        assert_same(model.state_dict(), before)
        assert trainer.steps_done == 0

    def test_fit_raises_it(self, device: str) -> None:
        (x, y), *_ = sums(1)
        trainer = seqrs.Trainer(regression_model(device=device), loss=seqrs.MSE())
        with pytest.raises(seqrs.NumericalError):
            trainer.fit([(x, y), (x * np.nan, y)], epochs=1, progress=False)
        assert trainer.steps_done == 1


class TestEvaluate:
    def test_it_is_the_mean_over_all_targets_without_training_or_dropout(self, device: str) -> None:
        model = character_model(dropout=0.5, num_layers=2, device=device)
        batches = [(x, y, [6, 1, 0, 3]) for x, y in id_batches(3)]
        before = model.state_dict()
        metrics = seqrs.Trainer(model).evaluate(batches)
        assert_same(model.state_dict(), before)
        outs = [model(x, lengths=n)[0] for x, _, n in batches]
        live = np.arange(6) < np.array([[6], [1], [0], [3]])
        logits = np.concatenate([out[live] for out in outs])
        classes = np.concatenate([y[live] for _, y, _ in batches])
        expected = seqrs.CrossEntropy()(logits, classes)
        assert_close(metrics["loss"], expected, FORMULA_F32)
        assert_close(metrics["bits"], expected / math.log(2), FORMULA_F32)
        assert_close(metrics["accuracy"], (logits.argmax(axis=1) == classes).mean(), FORMULA_F64)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_regression(self, reduction: str, dtype: str, device: str) -> None:
        model, loss = regression_model(dtype, device), seqrs.MSE(reduction)
        batches = [(x[:k], y[:k]) for k, (x, y) in enumerate(sums(4, dtype), 3)]
        outs = np.concatenate([model(x)[0] for x, _ in batches])
        expected = loss(outs, np.concatenate([y for _, y in batches]))
        metrics = seqrs.Trainer(model, loss=loss).evaluate(batches)
        assert_close(metrics["loss"], expected, FORMULA[dtype])

    def test_a_text_is_read_with_the_state_carried(self, device: str) -> None:
        corpus = seqrs.data.TextCorpus(TEXT[:450], 2, 10)
        model = character_model(vocab=corpus.vocab_size, device=device)
        xs, ys = zip(*corpus, strict=True)
        out, _ = model(np.concatenate(xs, axis=1))
        expected = seqrs.CrossEntropy()(out, np.concatenate(ys, axis=1))
        assert_close(seqrs.Trainer(model).evaluate(corpus)["loss"], expected, FORMULA_F32)


class TestFit:
    def test_history_is_a_dict_of_lists(self, device: str) -> None:
        trainer = seqrs.Trainer(character_model(device=device), optimizer=seqrs.Adam(0.02))
        history = trainer.fit(id_batches(5), epochs=4, validation=id_batches(1), progress=False)
        assert {"epoch", "loss", "grad_norm", "lr", "val_loss"} <= history.keys()
        assert all(len(values) == 4 for values in history.values())
        assert history["epoch"] == [1, 2, 3, 4]
        assert history["loss"][-1] < history["loss"][0]
        assert history["val_loss"][-1] < history["val_loss"][0]
        assert history["lr"] == [0.02] * 4

    def test_it_is_the_same_as_single_steps(self, device: str) -> None:
        fitted, stepped = (character_model(device=device) for _ in range(2))
        seqrs.Trainer(fitted).fit(id_batches(3), epochs=2, progress=False)
        trainer = seqrs.Trainer(stepped)
        for _ in range(2):
            for x, y in id_batches(3):
                trainer.step(x, y)
        assert_same(fitted.state_dict(), stepped.state_dict())

    def test_it_learns_a_text(self, device: str) -> None:
        corpus = seqrs.data.TextCorpus(TEXT, 12, 10)
        model = character_model(vocab=corpus.vocab_size, hidden=32, device=device)
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.04))
        part = [next(iter(corpus))]
        history = trainer.fit(corpus, epochs=8, validation=part, progress=False)
        assert history["val_bits"][-1] < 0.5
        ids = seqrs.generate(model, corpus.encode("the quick "), 20, temperature=0)
        assert corpus.decode(ids) == "brown fox jumps over"

    def test_text_carries_the_state_within_an_epoch(self, device: str) -> None:
        corpus = seqrs.data.TextCorpus(TEXT[:450], 2, 10)
        fitted, stepped = (
            character_model(vocab=corpus.vocab_size, device=device) for _ in range(2)
        )
        seqrs.Trainer(fitted).fit(corpus, epochs=2, progress=False)
        trainer = seqrs.Trainer(stepped)
        for _ in range(2):
            state = None
            for x, y in corpus:
                state = trainer.step(x, y, state=state).state
        assert_same(fitted.state_dict(), stepped.state_dict())

    def test_it_learns_to_classify_sequences_of_any_length(self, device: str) -> None:
        random = np.random.default_rng(0)
        sequences = [random.integers(0, 6, random.integers(1, 15)) for _ in range(120)]
        targets = [int(np.isin(5, s)) for s in sequences]
        data = seqrs.data.Padded(sequences, targets, batch_size=16, seed=1)
        layers = [seqrs.Embedding(6, 8), seqrs.GRU(8, 16), seqrs.MaxPool(), seqrs.Linear(16, 2)]
        model = seqrs.Sequential(layers, seed=0).to(device)
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.02))
        trainer.fit(data, epochs=15, progress=False)
        assert trainer.evaluate(data)["accuracy"] > 0.95

    def test_it_learns_a_time_series(self, device: str) -> None:
        series = np.sin(np.arange(300) * 0.3)
        data = seqrs.data.Windows(series, history=12, horizon=3, batch_size=32)
        layers = [seqrs.LSTM(1, 16), seqrs.Last(), seqrs.Linear(16, 3)]
        model = seqrs.Sequential(layers, seed=0).to(device)
        trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.Adam(0.02))
        history = trainer.fit(data, epochs=15, progress=False)
        assert history["loss"][-1] < 0.02

    def test_any_iterable_of_batches(self, device: str) -> None:
        class Again:
            def __iter__(self) -> Any:
                return iter(id_batches(2))

        weights = []
        for data in (
            id_batches(2),
            tuple(id_batches(2)),
            Again(),
            [list(b) for b in id_batches(2)],
        ):
            model = character_model(device=device)
            seqrs.Trainer(model).fit(data, epochs=2, progress=False)
            weights.append(model.state_dict())
        for other in weights[1:]:
            assert_same(other, weights[0])
        model = character_model(device=device)
        seqrs.Trainer(model).fit(iter(id_batches(2)), epochs=1, progress=False)
        lengths = [(x, y, [6] * 4) for x, y in id_batches(2)]
        model = character_model(device=device)
        seqrs.Trainer(model).fit(lengths, epochs=2, progress=False)
        assert_same(model.state_dict(), weights[0])

    def test_progress_is_shown_where_it_can_be_seen(self) -> None:
        code = """
import pty, os, sys
pid, fd = pty.fork()
if pid == 0:
    import fcntl, struct, termios
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    import seqrs
    from cases import character_model, id_batches
    seqrs.Trainer(character_model()).fit(id_batches(3), epochs=2)
    os._exit(0)
shown = b""
while True:
    try:
        part = os.read(fd, 4096)
    except OSError:
        break
    if not part: break
    shown += part
os.waitpid(pid, 0)
print(b"epoch 2/2" in shown, b"3/3" in shown, b"loss" in shown)
"""
        found = python(code)
        assert found.stdout.split() == ["True"] * 3, found.stdout + found.stderr
        quiet = "import seqrs; from cases import character_model as c, id_batches as b; "
        found = python(quiet + "seqrs.Trainer(c()).fit(b(3), epochs=2)")
        assert (found.stdout, found.stderr) == ("", "")


class TestData:
    def test_the_batches_of_a_text_follow_on_each_other(self) -> None:
        corpus = seqrs.data.TextCorpus(TEXT, batch_size=3, steps=7)
        xs, ys = (np.concatenate(parts, axis=1) for parts in zip(*corpus, strict=True))
        assert len(corpus) == xs.shape[1] // 7
        for row in range(3):
            text = corpus.decode(xs[row])
            assert text in TEXT
            assert corpus.decode(ys[row])[:-1] == text[1:]
        assert corpus.vocab == "".join(sorted(set(TEXT)))
        assert corpus.decode(corpus.encode("lazy dog")) == "lazy dog"

    def test_a_text_of_bytes(self) -> None:
        corpus = seqrs.data.TextCorpus("Größe und Maß".encode(), 1, 4)
        assert corpus.vocab_size == 256
        assert corpus.decode(corpus.encode("Größe")) == "Größe"

    def test_padded_gives_every_sequence_once_an_epoch(self) -> None:
        random = np.random.default_rng(0)
        sequences = [np.full(n, k + 1) for k, n in enumerate(random.integers(0, 20, 50))]
        data = seqrs.data.Padded(sequences, list(range(50)), batch_size=8, seed=3)
        orders = []
        for epoch in (0, 1, 0):
            data.set_epoch(epoch)
            seen: list[int] = []
            for x, y, lengths in data:
                assert x.shape == (len(y), lengths.max())
                for row, target, n in zip(x, y, lengths, strict=True):
                    assert (row[:n] == target + 1).all()
                    assert not row[n:].any()
                seen += y.tolist()
            assert sorted(seen) == list(range(50))
            orders.append(seen)
        assert orders[0] == orders[2] != orders[1]

    def test_padded_pads_little(self) -> None:
        random = np.random.default_rng(0)
        sequences = [np.ones(n, int) for n in random.integers(1, 100, 400)]
        data = seqrs.data.Padded(sequences, [0] * 400, batch_size=16)
        padded = sum(x.size for x, _, _ in data)
        assert padded < 1.2 * sum(map(len, sequences))

    def test_padded_with_a_target_for_every_step(self) -> None:
        sequences = [np.ones((n, 2)) * n for n in (3, 1, 2)]
        data = seqrs.data.Padded(sequences, [s.sum(axis=1) for s in sequences], 2, shuffle=False)
        x, y, lengths = next(iter(data))
        assert (x.shape, y.shape, lengths.tolist()) == ((2, 3, 2), (2, 3), [3, 1])
        assert y.tolist() == [[6, 6, 6], [2, 0, 0]]

    def test_windows(self) -> None:
        data = seqrs.data.Windows(np.arange(10.0), 3, 2, batch_size=4, shuffle=False)
        batches = list(data)
        assert [x.shape for x, _ in batches] == [(4, 3, 1), (2, 3, 1)]
        x, y = batches[0]
        assert x[..., 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
        assert y.tolist() == [[3, 4], [4, 5], [5, 6], [6, 7]]
        wide = seqrs.data.Windows(np.arange(20.0).reshape(10, 2), 3, 2, 1, columns=[1], stride=5)
        assert [y.ravel().tolist() for _, y in wide] in ([[7, 9], [17, 19]], [[17, 19], [7, 9]])

    def test_shuffling_depends_on_the_seed_and_epoch_alone(self) -> None:
        def order(seed: int, epoch: int) -> list[float]:
            np.random.seed(stdlib_random.randrange(1000))  # noqa: NPY002 (must not matter)
            data = seqrs.data.Windows(np.arange(50.0), 3, 1, batch_size=1, seed=seed)
            data.set_epoch(epoch)
            return [float(y[0, 0]) for _, y in data]

        assert order(1, 2) == order(1, 2)
        assert len({tuple(order(s, e)) for s in (1, 2) for e in (1, 2)}) == 4


class TestCallbacks:
    def test_objects_and_functions(self, device: str) -> None:
        class Listener:
            def __init__(self) -> None:
                self.seen: list[float] = []

            def on_epoch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
                self.seen.append(metrics["loss"])

        listener, called = Listener(), []
        trainer = seqrs.Trainer(character_model(device=device))

        def function(its: seqrs.Trainer, metrics: Any) -> None:
            assert its is trainer
            called.append(metrics["epoch"])

        history = trainer.fit(
            id_batches(2), epochs=3, callbacks=[listener, function], progress=False
        )
        assert called == [1, 2, 3]
        assert listener.seen == history["loss"]

    def test_a_callback_that_raises_ends_the_run(self) -> None:
        def fail(trainer: seqrs.Trainer, metrics: Any) -> None:
            raise RuntimeError("mine")

        trainer = seqrs.Trainer(character_model())
        with pytest.raises(RuntimeError, match="mine"):
            trainer.fit(id_batches(2), epochs=3, callbacks=[fail], progress=False)
        assert trainer.steps_done == 2

    def test_early_stopping_puts_the_best_weights_back(self, device: str) -> None:
        model = character_model(device=device)
        trainer = seqrs.Trainer(model, optimizer=seqrs.SGD(0.1))
        values, weights = iter([3.0, 1.0, 2.0, 1.0, 5.0]), []

        def metric(its: seqrs.Trainer, metrics: Any) -> None:
            model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
            weights.append(model.state_dict())
            metrics["own"] = next(values)

        class Own:
            def __init__(self) -> None:
                self.inner = seqrs.EarlyStopping("own", patience=2)

            def on_epoch_end(self, its: seqrs.Trainer, metrics: Any) -> None:
                metrics = dict(metrics)
                metric(its, metrics)
                self.inner.on_epoch_end(its, metrics)

        own = Own()
        history = trainer.fit(id_batches(1), epochs=9, callbacks=[own], progress=False)
        assert len(history["loss"]) == 4
        assert (own.inner.best, own.inner.best_epoch) == (1.0, 2)
        assert_same(model.state_dict(), weights[1])

    def test_early_stopping_wants_its_metric(self) -> None:
        trainer = seqrs.Trainer(character_model())
        with pytest.raises(ValueError, match=r"val_loss.*validation"):
            trainer.fit(id_batches(1), 1, callbacks=[seqrs.EarlyStopping()], progress=False)

    def test_model_checkpoint_saves_the_best(self, device: str, tmp_path: Path) -> None:
        model = character_model(device=device)
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.05))
        saver = seqrs.ModelCheckpoint(tmp_path / "best.safetensors", monitor="loss")
        every = seqrs.ModelCheckpoint(
            str(tmp_path / "{epoch:02d}-{loss:.1f}"), monitor="loss", best_only=False
        )
        history = trainer.fit(id_batches(2), 3, callbacks=[saver, every], progress=False)
        names = [f"{k + 1:02d}-{loss:.1f}" for k, loss in enumerate(history["loss"])]
        assert sorted(os.listdir(tmp_path)) == sorted([*names, "best.safetensors"])
        best = names[int(np.argmin(history["loss"]))]
        assert seqrs.load(tmp_path / "best.safetensors") == seqrs.load(tmp_path / best)

    def test_csv_logger(self, tmp_path: Path) -> None:
        path = tmp_path / "log.csv"
        path.write_text("an old run\n")
        trainer = seqrs.Trainer(character_model())
        history = trainer.fit(id_batches(2), 3, callbacks=[seqrs.CSVLogger(path)], progress=False)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
        assert [float(row["loss"]) for row in rows] == history["loss"]


class Noisy:
    """A run with everything that has a state: dropout, momentum, schedule, shuffle, callbacks."""

    EPOCHS = 4

    def __init__(self, folder: Path, log: Path, device: str = "cpu") -> None:
        random = np.random.default_rng(0)
        sequences = [random.integers(0, 11, random.integers(2, 9)) for _ in range(24)]
        self.data = seqrs.data.Padded(sequences, [s % 3 for s in sequences], 4, seed=5)
        layers = [
            seqrs.Embedding(11, 6),
            seqrs.LSTM(6, 8, 2, dropout=0.4),
            seqrs.Dropout(0.2),
            seqrs.Linear(8, 3),
        ]
        self.model = seqrs.Sequential(layers, seed=1).to(device)
        lr = seqrs.schedules.cosine(0.02, steps=self.EPOCHS * len(self.data), warmup=3)
        self.trainer = seqrs.Trainer(
            self.model, optimizer=seqrs.AdamW(lr=lr), clip_norm=0.5, seed=2
        )
        self.store = Checkpoints(folder, every_batches=2)
        self.stopping = seqrs.EarlyStopping("loss", patience=100)
        self.log = log

    def fit(self, resume: bool, *callbacks: Any) -> dict[str, list[float]]:
        return self.trainer.fit(
            self.data,
            epochs=self.EPOCHS,
            validation=[next(iter(self.data))],
            callbacks=[self.stopping, seqrs.CSVLogger(self.log), *callbacks],
            progress=False,
            checkpoint=self.store,
            resume=resume,
        )


class CrashError(Exception):
    """Ends a run as a crash would."""


class StopAfter:
    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_epoch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
        pass

    def on_batch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise CrashError


@functools.cache
def uninterrupted(device: str) -> tuple[Noisy, dict[str, list[float]], str]:
    """Such a run to its end, its history, and its log."""
    with tempfile.TemporaryDirectory() as name:
        whole = Noisy(Path(name) / "whole", Path(name) / "whole.csv", device)
        history = whole.fit(False)
        return whole, history, (Path(name) / "whole.csv").read_text()


class TestResume:
    @pytest.mark.parametrize("after", [1, 2, 5, 6, 7, 13])
    def test_a_resumed_run_ends_with_the_same_bits(
        self, after: int, device: str, tmp_path: Path
    ) -> None:
        whole, expected, log = uninterrupted(device)
        first = Noisy(tmp_path / "run", tmp_path / "run.csv", device)
        with pytest.raises(CrashError):
            first.fit(False, StopAfter(after))
        again = Noisy(tmp_path / "run", tmp_path / "run.csv", device)
        history = again.fit(True)
        assert_same(again.model.state_dict(), whole.model.state_dict())
        assert history == expected
        assert again.trainer.steps_done == whole.trainer.steps_done
        assert (tmp_path / "run.csv").read_text() == log
        assert again.stopping.best == whole.stopping.best

    def test_a_run_of_a_text_goes_on_with_its_hidden_state(
        self, device: str, tmp_path: Path
    ) -> None:
        corpus = seqrs.data.TextCorpus(TEXT[:450], 2, 10)

        def run(folder: str, resume: bool, *callbacks: Any) -> dict[str, Array]:
            model = character_model(vocab=corpus.vocab_size, device=device)
            seqrs.Trainer(model).fit(
                corpus,
                epochs=2,
                callbacks=callbacks,
                progress=False,
                checkpoint=Checkpoints(tmp_path / folder, every_batches=7),
                resume=resume,
            )
            return model.state_dict()

        expected = run("whole", False)
        with pytest.raises(CrashError):
            run("cut", False, StopAfter(30))
        assert_same(run("cut", True), expected)

    def test_ctrl_c_writes_a_checkpoint(self, device: str, tmp_path: Path) -> None:
        expected, _, _ = uninterrupted(device)
        run = Noisy(tmp_path / "run", tmp_path / "run.csv", device)
        run.store = Checkpoints(tmp_path / "run")

        class Interrupt(StopAfter):
            def on_batch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run.fit(False, Interrupt(3))
        assert len(run.store.files()) == 1
        again = Noisy(tmp_path / "run", tmp_path / "run.csv", device)
        again.fit(True)
        assert_same(again.model.state_dict(), expected.model.state_dict())

    def test_resuming_a_finished_run_gives_its_result(self, device: str, tmp_path: Path) -> None:
        run = Noisy(tmp_path / "run", tmp_path / "run.csv", device)
        expected = run.fit(False)
        again = Noisy(tmp_path / "run", tmp_path / "run.csv", device)
        assert again.fit(True) == expected
        assert_same(again.model.state_dict(), run.model.state_dict())

    def test_resume_without_a_checkpoint_begins_at_the_beginning(self, tmp_path: Path) -> None:
        (x, y), *_ = id_batches(1)
        trainer = seqrs.Trainer(character_model())
        trainer.fit([(x, y)], 1, progress=False, checkpoint=tmp_path / "new", resume=True)
        assert trainer.steps_done == 1

    def test_a_new_run_does_not_mix_with_another(self, tmp_path: Path) -> None:
        trainer = seqrs.Trainer(character_model())
        trainer.fit(id_batches(1), 1, progress=False, checkpoint=tmp_path)
        with pytest.raises(FileExistsError, match="resume=True"):
            trainer.fit(id_batches(1), 1, progress=False, checkpoint=tmp_path)

    def test_a_few_checkpoints_are_kept_and_nothing_else(self, tmp_path: Path) -> None:
        seqrs.Trainer(character_model()).fit(id_batches(2), 6, progress=False, checkpoint=tmp_path)
        names = sorted(os.listdir(tmp_path))
        assert len(names) == 3
        assert names == sorted(path.name for path in Checkpoints(tmp_path).files())

    @pytest.mark.parametrize("damage", ["truncated", "empty", "bit", "text", "arrays", "no-arrays"])
    def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
        self, damage: str, tmp_path: Path
    ) -> None:
        whole, _, _ = uninterrupted("cpu")
        with pytest.raises(CrashError):
            Noisy(tmp_path / "run", tmp_path / "run.csv").fit(False, StopAfter(9))
        newest = Checkpoints(tmp_path / "run").files()[0]
        beside = newest.with_suffix(".arrays")
        damaged = beside if damage == "arrays" else newest
        data = bytearray(damaged.read_bytes())
        if damage == "truncated":
            del data[len(data) // 2 :]
        elif damage == "empty":
            data.clear()
        elif damage == "text":
            data[:] = b"not a checkpoint"
        else:
            data[-5] ^= 1
        if damage == "no-arrays":
            beside.unlink()
        else:
            damaged.write_bytes(data)
        again = Noisy(tmp_path / "run", tmp_path / "run.csv")
        with pytest.warns(UserWarning, match=newest.name):
            again.fit(True)
        assert_same(again.model.state_dict(), whole.model.state_dict())

    def test_truncations_and_flipped_bits_all_over_are_noticed(self, tmp_path: Path) -> None:
        """Some of them; those of every byte are a test of `crates/seqrs/src/checkpoint.rs`."""
        trainer = seqrs.Trainer(
            seqrs.Sequential([seqrs.RNN(1, 2), seqrs.Linear(2, 1)]), loss=seqrs.MSE()
        )
        x = np.ones((1, 2, 1))
        trainer.fit([(x, x)], 1, progress=False, checkpoint=tmp_path)
        path = Checkpoints(tmp_path).files()[0]
        data = path.read_bytes()
        before = trainer.model.state_dict()

        def refused(content: bytes) -> None:
            path.write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with pytest.raises(seqrs.ModelFileError):
                    trainer.fit([(x, x)], 2, progress=False, checkpoint=tmp_path, resume=True)

        for n in range(0, len(data), 7):
            refused(data[:n])
        for n in range(0, len(data), 11):
            changed = bytearray(data)
            changed[n] ^= 1 << n % 8
            refused(bytes(changed))
        assert_same(trainer.model.state_dict(), before)
        path.write_bytes(data)
        trainer.fit([(x, x)], 2, progress=False, checkpoint=tmp_path, resume=True)

    @pytest.mark.parametrize(
        ("other", "error", "says"),
        [
            ("model", seqrs.ModelFileError, r"structure: expected .*, got "),
            ("optimiser", seqrs.ModelFileError, r"optimizer: expected sgd.*, got adam"),
            (
                "data",
                ValueError,
                r"data: expected that of .*, got .* \(batches: 2, now 3\)",
            ),
            ("dtype", seqrs.ModelFileError, r"0\.weight: expected F64.*, got F32"),
        ],
    )
    def test_a_checkpoint_of_something_else_is_refused_and_changes_nothing(
        self, other: str, error: type[Exception], says: str, device: str, tmp_path: Path
    ) -> None:
        first = character_model(device=device)
        seqrs.Trainer(first).fit(id_batches(2), 1, progress=False, checkpoint=tmp_path)
        model = character_model(
            hidden=9 if other == "model" else 12,
            dtype="float64" if other == "dtype" else "float32",
            device="cpu" if other == "dtype" else device,
        )
        optimizer = seqrs.SGD(0.1) if other == "optimiser" else seqrs.Adam(lr=2e-3)
        trainer = seqrs.Trainer(model, optimizer=optimizer)
        before = model.state_dict()
        data = id_batches(3 if other == "data" else 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(error, match=says):
                trainer.fit(data, 2, progress=False, checkpoint=tmp_path, resume=True)
        assert_same(model.state_dict(), before)
        assert trainer.steps_done == 0


KILLED = """
import sys, time, numpy as np
from pathlib import Path
import test_training
folder, out = Path(sys.argv[1]), sys.argv[2]
run = test_training.Noisy(folder, folder.with_suffix(".csv"), sys.argv[3])
run.EPOCHS = 4

class Slow:
    def on_epoch_end(self, trainer, metrics):
        pass
    def on_batch_end(self, trainer, metrics):
        time.sleep(0.02)

run.fit(True, Slow())
np.savez(out, **run.model.state_dict())
"""


class TestCrash:
    def test_killed_at_any_moment_it_ends_with_the_same_bits(
        self, device: str, tmp_path: Path
    ) -> None:
        whole, _, _ = uninterrupted(device)
        paths = (str(tmp_path / "run"), str(tmp_path / "out.npz"))
        arguments = [sys.executable, "-c", KILLED, *paths, device]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        }
        random = stdlib_random.Random(0)
        kills = 0
        for _ in range(6):
            with subprocess.Popen(arguments, env=env) as process:
                # Once it has begun to write, so that the kills fall into the run.
                end = time.monotonic() + 20
                known = set(os.listdir(tmp_path / "run")) if (tmp_path / "run").is_dir() else set()
                while time.monotonic() < end and process.poll() is None:
                    if (tmp_path / "run").is_dir() and set(os.listdir(tmp_path / "run")) - known:
                        break
                    time.sleep(0.002)
                time.sleep(random.uniform(0.0, 0.12))
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
        assert kills >= 3
        done = subprocess.run(
            arguments, env=env, timeout=60, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "passed over" not in done.stderr
        with np.load(tmp_path / "out.npz") as found:
            assert_same(dict(found), whole.model.state_dict())
        # What killed processes left half written is gone.
        names = os.listdir(tmp_path / "run")
        assert not [name for name in names if name.endswith(".tmp")]
        checkpoints = {Path(name).stem for name in names if name.endswith(".seqrs")}
        assert {Path(name).stem for name in names} == checkpoints
        assert len(checkpoints) <= 3

    def test_a_full_disk_is_an_error_and_leaves_the_older_checkpoints(self, tmp_path: Path) -> None:
        """A limit on the size of files fails a write half way, as a full disk does."""
        code = """
import resource, signal, sys, seqrs
from cases import character_model, id_batches
from seqrs.checkpoints import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = sys.argv[1]
trainer = seqrs.Trainer(character_model())
trainer.fit(id_batches(2), 1, progress=False, checkpoint=folder)
before = Checkpoints(folder).files()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    trainer.fit(id_batches(2), 3, progress=False, checkpoint=folder, resume=True)
except (OSError, seqrs.ModelFileError) as error:
    print("refused", error)
try:
    character_model().save(folder + "/model")
except (OSError, seqrs.ModelFileError) as error:
    print("refused", error)
import os
assert sorted(os.listdir(folder)) == [path.name for path in before], os.listdir(folder)
trainer = seqrs.Trainer(character_model())
trainer.fit(id_batches(2), 1, progress=False, checkpoint=folder, resume=True)
print(trainer.steps_done)
"""
        found = python(code, str(tmp_path))
        lines = found.stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["refused", "refused", "2"], found

    def test_a_read_only_directory(self, tmp_path: Path) -> None:
        trainer, model, data = seqrs.Trainer(character_model()), character_model(), id_batches(1)
        # The child may not be able to read modules that it is the first to import.
        seqrs.Trainer(character_model()).fit(data, 1, progress=False, checkpoint=tmp_path)

        def refused() -> list[str]:
            messages = []
            for attempt in (
                lambda: trainer.fit(data, 1, progress=False, checkpoint=folder),
                lambda: model.save(folder / "model"),
            ):
                with pytest.raises((OSError, seqrs.ModelFileError)) as caught:
                    attempt()
                messages.append(str(caught.value))
            return messages

        # Not below tmp_path, which is its owner's alone.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o555)
            for message in without_privileges(refused):
                assert "ermission denied" in message
                assert name in message
            assert os.listdir(folder) == []

    def test_a_directory_that_is_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("kept")
        trainer = seqrs.Trainer(character_model())
        with pytest.raises(OSError, match="file"):
            trainer.fit(id_batches(1), 1, progress=False, checkpoint=path)
        assert trainer.steps_done == 0
        assert path.read_text() == "kept"


class TestConcurrency:
    def test_trainers_in_threads_of_their_own(self, device: str) -> None:
        def run(out: list[dict[str, Array]]) -> None:
            model = character_model(hidden=24, dropout=0.2, num_layers=2, device=device)
            trainer = seqrs.Trainer(model, seed=1)
            for x, y in id_batches(10):
                trainer.step(x, y)
            out.append(model.state_dict())

        alone: list[dict[str, Array]] = []
        run(alone)
        found: list[dict[str, Array]] = []
        threads = [threading.Thread(target=run, args=(found,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 4
        for weights in found:
            assert_same(weights, alone[0])

    def test_a_copied_model_trains_on_its_own(self, device: str) -> None:
        import copy

        model = character_model(device=device)
        other = copy.deepcopy(model)
        (x, y), *_ = id_batches(1)
        before = model.state_dict()
        seqrs.Trainer(other).step(x, y)
        assert_same(model.state_dict(), before)
        assert other != model
        assert_same_bits(model(x)[0], character_model(device=device)(x)[0])
