"""Sampling: what is drawn, how likely, and that it is what the model's own steps say.

All of it is computed on the CPU, wherever the model is.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import seqrs
from adapter import PLACES
from cases import Array, character_model, id_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SHARE_OF_DRAWS, assert_same_bits

VOCAB = 11


def biased(logits: Array) -> seqrs.Sequential:
    """A model that expects the same next id whatever it has read."""
    size = len(logits)
    model = seqrs.Sequential(
        [seqrs.Embedding(size, 2), seqrs.RNN(2, 2), seqrs.Linear(2, size)], seed=0
    )
    weights = model.state_dict()
    model.load_state_dict({**weights, "2.weight": np.zeros((size, 2)), "2.bias": logits})
    return model


def shares(model: Any, count: int = 20_000, **options: Any) -> Array:
    drawn = seqrs.generate(model, [0], count, **options)
    return np.bincount(drawn, minlength=model.output_size) / count


class TestWhatIsDrawn:
    def test_ids_of_the_asked_number(self) -> None:
        ids = seqrs.generate(character_model(), [1, 2, 3], 25)
        assert ids.shape == (25,)
        assert ids.dtype == np.int64
        assert ((ids >= 0) & (ids < VOCAB)).all()
        assert seqrs.generate(character_model(), [1], 0).shape == (0,)

    @pytest.mark.parametrize(("dtype", "device"), PLACES)
    def test_temperature_zero_takes_the_likeliest_at_every_step(
        self, dtype: str, device: str
    ) -> None:
        model = character_model(num_layers=2, dtype=dtype, device=device)
        prompt = [3, 1, 4]
        drawn = seqrs.generate(model, prompt, 30, temperature=0)
        y, state = model([prompt])
        logits, expected = y[0, -1], []
        for _ in range(30):
            expected.append(int(logits.argmax()))
            y_t, state = model.step([expected[-1]], state)
            logits = y_t[0]
        assert drawn.tolist() == expected
        for seed in (1, 2):
            again = seqrs.generate(model, prompt, 30, temperature=0, seed=seed)
            assert_same_bits(again, drawn)

    def test_the_lowest_id_of_equals(self) -> None:
        model = biased(np.array([0.0, 1.0, 1.0, 0.5]))
        assert seqrs.generate(model, [0], 5, temperature=0).tolist() == [1] * 5

    def test_the_prompt_is_read(self) -> None:
        model = character_model()
        first = [seqrs.generate(model, [k], 20, temperature=0.1).tolist() for k in range(VOCAB)]
        assert len({tuple(ids) for ids in first}) > 1

    def test_prompts_of_any_integer_type(self) -> None:
        model = character_model()
        expected = seqrs.generate(model, [1, 2, 3], 10)
        for kind in ("int8", "uint16", ">i4", "uint64"):
            assert_same_bits(seqrs.generate(model, np.array([1, 2, 3], kind), 10), expected)
        assert_same_bits(seqrs.generate(model, (1, 2, 3), 10), expected)
        assert_same_bits(seqrs.generate(model, np.array([3, 0, 2, 0, 1])[::-2], 10), expected)

    def test_what_was_learnt_is_drawn_wherever_it_was_learnt(self, device: str) -> None:
        model = character_model(device=device)
        first = seqrs.generate(model, [1], 40)
        trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.1))
        for x, y in id_batches(3):
            trainer.step(x, y)
        drawn = seqrs.generate(model, [1], 40)
        assert not np.array_equal(drawn, first)
        assert_same_bits(seqrs.generate(model.to("cpu"), [1], 40), drawn)


class TestHowLikely:
    LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1]))

    def test_probabilities_are_the_softmax(self) -> None:
        assert shares(biased(self.LOGITS)) == pytest.approx(
            [0.5, 0.25, 0.15, 0.1], abs=SHARE_OF_DRAWS
        )

    @pytest.mark.parametrize("temperature", [0.5, 2.0])
    def test_temperature(self, temperature: float) -> None:
        p = np.exp(self.LOGITS / temperature)
        found = shares(biased(self.LOGITS), temperature=temperature)
        assert found == pytest.approx(p / p.sum(), abs=SHARE_OF_DRAWS)

    def test_top_k(self) -> None:
        found = shares(biased(self.LOGITS), top_k=2)
        assert found == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=SHARE_OF_DRAWS)
        assert (found[2:] == 0).all()
        assert shares(biased(self.LOGITS), 100, top_k=1).tolist() == [1, 0, 0, 0]
        assert_same_bits(
            seqrs.generate(biased(self.LOGITS), [0], 50, top_k=4),
            seqrs.generate(biased(self.LOGITS), [0], 50),
        )

    def test_top_p(self) -> None:
        found = shares(biased(self.LOGITS), top_p=0.7)
        assert found == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=SHARE_OF_DRAWS)
        assert (found[2:] == 0).all()
        assert shares(biased(self.LOGITS), 100, top_p=0.01).tolist() == [1, 0, 0, 0]
        whole = shares(biased(self.LOGITS), top_p=1.0)
        assert whole == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=SHARE_OF_DRAWS)

    def test_top_k_before_top_p(self) -> None:
        # Of the two likeliest, 2/3 and 1/3, the first alone makes 0.6.
        found = shares(biased(self.LOGITS), 100, top_k=2, top_p=0.6)
        assert found.tolist() == [1, 0, 0, 0]

    def test_ids_that_cannot_be_are_never_drawn(self) -> None:
        found = shares(biased(np.array([0.0, -200.0, 0.0, -np.float32(3e38)])))
        assert (found[[1, 3]] == 0).all()

    def test_draws_do_not_depend_on_each_other(self) -> None:
        drawn = seqrs.generate(biased(np.zeros(2)), [0], 20_000)
        pairs = np.bincount(drawn[:-1] * 2 + drawn[1:], minlength=4) / 19_999
        assert pairs == pytest.approx([0.25] * 4, abs=SHARE_OF_DRAWS)


class TestSeeds:
    def test_the_seed_decides(self) -> None:
        model = character_model()
        one, same, other = (seqrs.generate(model, [1], 40, seed=s) for s in (1, 1, 2))
        assert_same_bits(same, one)
        assert not np.array_equal(other, one)

    def test_a_longer_run_begins_like_a_shorter_one(self) -> None:
        model = character_model()
        longer = seqrs.generate(model, [1], 40, seed=1)
        assert_same_bits(seqrs.generate(model, [1], 15, seed=1), longer[:15])

    def test_any_number_of_threads(self) -> None:
        model = character_model(hidden=200, num_layers=2)
        expected = seqrs.generate(model, [1, 2], 30)
        for n in (1, 2, 3):
            with seqrs.num_threads(n):
                assert_same_bits(seqrs.generate(model, [1, 2], 30), expected)
        found: list[Array] = []
        callers = [
            threading.Thread(target=lambda: found.append(seqrs.generate(model, [1, 2], 30)))
            for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert len(found) == 4
        for ids in found:
            assert_same_bits(ids, expected)

    def test_dropout_takes_no_part(self) -> None:
        plain, dropped = character_model(num_layers=2), character_model(num_layers=2, dropout=0.9)
        assert_same_bits(seqrs.generate(dropped, [1], 30), seqrs.generate(plain, [1], 30))


class TestModels:
    @pytest.mark.parametrize(
        ("layers", "error"),
        [
            ([seqrs.LSTM(2, 3)], seqrs.DTypeError),
            (
                [seqrs.Embedding(5, 2), seqrs.GRU(2, 3, bidirectional=True), seqrs.Linear(6, 5)],
                seqrs.StateError,
            ),
            ([seqrs.Embedding(5, 2), seqrs.LSTM(2, 3), seqrs.MeanPool()], seqrs.StateError),
        ],
        ids=["numbers", "bidirectional", "pooled"],
    )
    def test_models_that_cannot_are_refused(self, layers: list[Any], error: Any) -> None:
        with pytest.raises(error, match=r"expected .*, got") as caught:
            seqrs.generate(seqrs.Sequential(layers), [1], 3)
        assert caught.type is error

    def test_a_model_with_fewer_ids_in_than_out(self) -> None:
        model = seqrs.Sequential([seqrs.Embedding(3, 2), seqrs.LSTM(2, 3), seqrs.Linear(3, 9)])
        with pytest.raises(seqrs.ShapeError, match=r"logits of the model: .* at most 3 .*, got 9"):
            seqrs.generate(model, [1], 50)

    def test_nan_in_the_logits_is_told(self) -> None:
        model = biased(np.array([0.0, np.nan, 1.0]))
        with pytest.raises(seqrs.NumericalError):
            seqrs.generate(model, [0], 3)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        temperature=st.floats(0, 50),
        top_k=st.none() | st.integers(1, 30),
        top_p=st.none() | st.floats(1e-6, 1.0),
        seed=st.integers(0, 2**64 - 1),
    )
    def test_any_options(
        self, temperature: float, top_k: int | None, top_p: float | None, seed: int
    ) -> None:
        ids = seqrs.generate(
            character_model(), [0], 12, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        assert ((ids >= 0) & (ids < VOCAB)).all()
