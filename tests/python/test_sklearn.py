"""`seqrs.sklearn`: the estimators are what scikit-learn expects, and train as `Trainer` does."""

from __future__ import annotations

import os

# Read when SciPy is imported: without it scikit-learn leaves one of its checks out.
os.environ["SCIPY_ARRAY_API"] = "1"

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import seqrs
from cases import python
from numpy.typing import NDArray
from seqrs.sklearn import (
    SequenceClassifier,
    SequenceForecaster,
    SequenceRegressor,
    SequenceTagger,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tolerances import FORMULA_F64, PACKAGE_TO_REFERENCE_F32, assert_close, assert_same_bits

Array = NDArray[Any]
SMALL: dict[str, Any] = {"hidden_size": 8, "epochs": 3, "random_state": 3}


# scikit-learn's own checks.


class TagsOfOneLabel(SequenceTagger):
    """For checks that have one label for each row of a table: every step has it."""

    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(X, self._at_each_step(X, y))

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        # The checks name the classes to what is a classifier alone.
        given = np.unique(y) if classes is None else classes
        return super().partial_fit(X, self._at_each_step(X, y), given)

    def score(self, X: Any, y: Any) -> float:
        return super().score(X, self._at_each_step(X, y))

    @staticmethod
    def _at_each_step(X: Any, y: Any) -> Any:
        shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        if y is None or len(shape) != 2:
            return y
        return np.repeat(np.reshape(np.asarray(y), (-1, 1)), shape[1], axis=1)


class GoesOnFromTable(SequenceForecaster):
    """For checks that call predict(X), have a y, and tables alone: X is a series, y nothing."""

    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(X)

    def partial_fit(self, X: Any, y: Any = None) -> Any:
        return super().partial_fit(X)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)

    def predict(self, X: Any) -> Any:
        return super().predict(X=X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = False
        return tags


#: What fails, and why it has to: of the forecaster alone, whose X is one series.
EXPECTED = {
    "check_methods_sample_order_invariance": "rows are the steps of a series, whose order counts",
    "check_methods_subset_invariance": "rows are the steps of a series, which needs all of them",
    "check_fit2d_1sample": "a row is a step: the error counts steps, where the check wants samples",
    "check_fit1d": "a series may have one axis",
    "check_fit2d_predict1d": "a series may have one axis: the error is of the features it lacks",
}


CHECKS = parametrize_with_checks(
    [
        SequenceClassifier(epochs=25),
        SequenceRegressor(hidden_size=32, learning_rate=0.01, epochs=25),
        TagsOfOneLabel(hidden_size=8, epochs=5),
        GoesOnFromTable(hidden_size=8, epochs=5, history=2),
    ],
    expected_failed_checks=lambda each: EXPECTED if isinstance(each, SequenceForecaster) else {},
)


# A list of them: scikit-learn 1.7, for Python 3.10, has a generator, which pytest is to refuse.
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# Data.


def series(count: int, seed: int = 0, features: int = 1, steps: int | None = None) -> list[Array]:
    """Noise with features, (T, F), T in 3..10 where it is not said."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 10, size=count) if steps is None else [steps] * count
    return [random.normal(size=(length, features)).astype(np.float32) for length in lengths]


def signs(x: list[Array]) -> Array:
    """A label of each, as words: the sign of what it ends with."""
    return np.array(["up" if row[-1, 0] > 0 else "down" for row in x])


def tags(x: list[Array]) -> list[Array]:
    """A label of each step: the sign of the step before, 0 at the first."""
    return [np.sign(np.concatenate([[0], row[:-1, 0]])).astype(int) for row in x]


def wave(steps: int, begin: int = 0) -> Array:
    """Far from 0 and far from 1."""
    return 100.0 + 5.0 * np.sin(0.5 * np.arange(begin, begin + steps))


def bits_of(model: seqrs.Sequential) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def hand_made(
    layers: list[Any],
    loss: Any,
    data: Any,
    epochs: int,
    validation: Any = None,
    optimizer: Any = None,
    seed: int = 3,
) -> tuple[seqrs.Sequential, dict[str, list[float]]]:
    """What an estimator should have done, by the library's own interface."""
    model = seqrs.Sequential(layers, seed=seed)
    trainer = seqrs.Trainer(model, loss, optimizer or seqrs.Adam(lr=2e-3), seed=seed)
    return model, trainer.fit(data, epochs=epochs, validation=validation, progress=False)


class TestTrainsAsTheTrainer:
    """Each estimator ends with the bits of a model that is made and trained by hand."""

    def test_classifier(self) -> None:
        x = series(30, features=2)
        y = signs(x)
        found = SequenceClassifier(**SMALL).fit(x, y)
        data = seqrs.data.Padded(x, list((y == "up").astype(int)), 32, seed=3)
        layers = [seqrs.LSTM(2, 8), seqrs.Last(), seqrs.Linear(8, 2)]
        model, history = hand_made(layers, seqrs.CrossEntropy(), data, 3)
        assert bits_of(found.model_) == bits_of(model)
        assert found.history_ == history
        assert found.classes_.tolist() == ["down", "up"]

    def test_every_option(self) -> None:
        x = series(24)
        y = [0, 1, 2] * 8
        found = SequenceClassifier(
            "gru",
            6,
            2,
            bidirectional=True,
            dropout=0.25,
            epochs=2,
            batch_size=5,
            learning_rate=0.01,
            optimizer="rmsprop",
            clip_norm=0.1,
            random_state=7,
        ).fit(x, y)
        model = seqrs.Sequential(
            [
                seqrs.GRU(1, 6, 2, bidirectional=True, dropout=0.25),
                seqrs.Last(),
                seqrs.Dropout(0.25),
                seqrs.Linear(12, 3),
            ],
            seed=7,
        )
        trainer = seqrs.Trainer(model, optimizer=seqrs.RMSprop(lr=0.01), clip_norm=0.1, seed=7)
        trainer.fit(seqrs.data.Padded(x, y, 5, seed=7), epochs=2, progress=False)
        assert bits_of(found.model_) == bits_of(model)

    @pytest.mark.parametrize(("word", "cell"), [("lstm", "LSTM"), ("gru", "GRU"), ("rnn", "RNN")])
    def test_cells(self, word: str, cell: str) -> None:
        x = series(8)
        found = SequenceRegressor(word, **SMALL).fit(x, [0.5] * 8)
        assert type(found.model_.layers[0]) is getattr(seqrs, cell)

    @pytest.mark.parametrize(
        ("word", "kind"),
        [("adam", "Adam"), ("adamw", "AdamW"), ("rmsprop", "RMSprop"), ("sgd", "SGD")],
    )
    def test_optimisers(self, word: str, kind: str) -> None:
        x, y = series(10), np.arange(10.0)
        rate = seqrs.schedules.cosine(0.01, steps=3)
        found = SequenceRegressor(optimizer=word, learning_rate=rate, **SMALL).fit(x, y)
        data = seqrs.data.Padded(x, list(y[:, None]), 32, per_step=False, seed=3)
        layers = [seqrs.LSTM(1, 8), seqrs.Last(), seqrs.Linear(8, 1)]
        optimizer = getattr(seqrs, kind)(lr=rate)
        model, _ = hand_made(layers, seqrs.MSE(), data, 3, optimizer=optimizer)
        assert bits_of(found.model_) == bits_of(model)

    def test_regressor_with_as_many_outputs_as_steps(self) -> None:
        # They are no targets of the steps.
        x, y = series(12, steps=4), np.arange(48.0).reshape(12, 4) / 16
        found = SequenceRegressor(**SMALL).fit(x, y)
        data = seqrs.data.Padded(x, list(y), 32, per_step=False, seed=3)
        layers = [seqrs.LSTM(1, 8), seqrs.Last(), seqrs.Linear(8, 4)]
        model, _ = hand_made(layers, seqrs.MSE(), data, 3)
        assert bits_of(found.model_) == bits_of(model)
        assert found.predict(x).shape == (12, 4)

    def test_tagger(self) -> None:
        x = series(20, features=2)
        y = tags(x)
        found = SequenceTagger(**SMALL).fit(x, y)
        data = seqrs.data.Padded(x, [each + 1 for each in y], 32, per_step=True, seed=3)
        layers = [seqrs.LSTM(2, 8), seqrs.Linear(8, 3)]
        model, history = hand_made(layers, seqrs.CrossEntropy(), data, 3)
        assert bits_of(found.model_) == bits_of(model)
        assert found.history_ == history
        assert found.classes_.tolist() == [-1, 0, 1]

    def test_forecaster(self) -> None:
        x = np.stack([wave(60), 0.1 * np.arange(60.0)], axis=1)
        found = SequenceForecaster(history=7, horizon=3, **SMALL).fit(x)
        scaled = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
        data = seqrs.data.Windows(scaled, 7, 3, 32, seed=3)
        layers = [seqrs.LSTM(2, 8), seqrs.Last(), seqrs.Linear(8, 6)]
        model, history = hand_made(layers, seqrs.MSE(), data, 3)
        assert bits_of(found.model_) == bits_of(model)
        assert found.history_ == history

    def test_forecaster_of_the_series_as_it_is(self) -> None:
        x = np.sin(np.arange(40.0))
        found = SequenceForecaster(history=5, standardize=False, **SMALL).fit(x)
        data = seqrs.data.Windows(x.astype(np.float32), 5, 1, 32, seed=3)
        layers = [seqrs.LSTM(1, 8), seqrs.Last(), seqrs.Linear(8, 1)]
        assert bits_of(found.model_) == bits_of(hand_made(layers, seqrs.MSE(), data, 3)[0])

    def test_held_out_samples(self) -> None:
        x = series(40)
        y = np.array([0, 1, 1, 1] * 10)
        found = SequenceClassifier(validation_fraction=0.2, **SMALL).fit(x, y)
        parts = train_test_split(np.arange(40), test_size=0.2, random_state=3, stratify=y)
        here, out = (
            seqrs.data.Padded([x[k] for k in part], list(y[part]), 32, seed=3) for part in parts
        )
        layers = [seqrs.LSTM(1, 8), seqrs.Last(), seqrs.Linear(8, 2)]
        model, history = hand_made(layers, seqrs.CrossEntropy(), here, 3, validation=out)
        assert bits_of(found.model_) == bits_of(model)
        assert found.history_ == history
        assert len(found.history_["val_loss"]) == 3

    def test_held_out_end_of_a_series(self) -> None:
        x = wave(50)
        found = SequenceForecaster(history=6, validation_fraction=0.2, **SMALL).fit(x)
        mean, scale = x[:40].mean(), x[:40].std()
        scaled = ((x - mean) / scale).astype(np.float32)
        here = seqrs.data.Windows(scaled[:40], 6, 1, 32, seed=3)
        out = seqrs.data.Windows(scaled[34:], 6, 1, 32, shuffle=False)
        layers = [seqrs.LSTM(1, 8), seqrs.Last(), seqrs.Linear(8, 1)]
        model, history = hand_made(layers, seqrs.MSE(), here, 3, validation=out)
        assert bits_of(found.model_) == bits_of(model)
        assert found.history_ == history
        # It goes on from the end of all, held out or not.
        assert_same_bits(found.last_window_[:, 0], x[-6:])


class TestFormsOfX:
    #: The same twelve series of five steps.
    X = series(12, steps=5)
    Y = signs(X)

    @pytest.mark.parametrize(
        "form",
        [
            pytest.param(lambda x: np.stack(x), id="array"),
            pytest.param(lambda x: np.stack(x).astype(np.float64), id="array-float64"),
            pytest.param(lambda x: np.asfortranarray(np.stack(x)), id="array-fortran"),
            pytest.param(lambda x: np.stack(x)[:, :, 0], id="table"),
            pytest.param(lambda x: pd.DataFrame(np.stack(x)[:, :, 0]), id="frame"),
            pytest.param(lambda x: np.stack(x)[:, :, 0].tolist(), id="nested-lists"),
            pytest.param(lambda x: [row[:, 0] for row in x], id="list-of-one-axis"),
            pytest.param(lambda x: tuple(x), id="tuple"),
            pytest.param(lambda x: pd.Series([row[:, 0] for row in x]), id="series-of-arrays"),
            pytest.param(lambda x: [pd.DataFrame(row) for row in x], id="list-of-frames"),
        ],
    )
    def test_forms_that_mean_the_same(self, form: Callable[[list[Array]], Any]) -> None:
        expected = SequenceClassifier(**SMALL).fit(self.X, self.Y)
        found = SequenceClassifier(**SMALL).fit(form(self.X), self.Y)
        assert bits_of(found.model_) == bits_of(expected.model_)
        assert_same_bits(
            found.predict_proba(form(self.X)), expected.predict_proba(np.stack(self.X))
        )

    def test_array_of_objects(self) -> None:
        x = series(12)
        objects = np.empty(12, dtype=object)
        objects[:] = [row[:, 0] for row in x]
        expected = SequenceRegressor(**SMALL).fit(x, np.arange(12.0))
        found = SequenceRegressor(**SMALL).fit(objects, np.arange(12.0))
        assert_same_bits(found.predict(objects), expected.predict(x))

    def test_number_of_features(self) -> None:
        x = series(6, features=3, steps=4)
        assert SequenceClassifier(**SMALL).fit(x, [0, 1] * 3).n_features_in_ == 3
        assert SequenceClassifier(**SMALL).fit(np.stack(x), [0, 1] * 3).n_features_in_ == 3
        table = np.stack(x)[:, :, 0]
        assert SequenceClassifier(**SMALL).fit(table, [0, 1] * 3).n_features_in_ == 4
        assert SequenceClassifier(**SMALL).fit(table.tolist(), [0, 1] * 3).n_features_in_ == 4

    def test_fitted_to_a_table_it_takes_lists_of_any_length(self) -> None:
        table = np.stack(self.X)[:, :, 0]
        model = SequenceClassifier(**SMALL).fit(table, self.Y)
        other = series(7)
        expected = model.model_(other[0][None])[0].argmax() == 1
        assert (model.predict(other)[0] == "up") == expected
        assert model.predict(np.stack(series(3, steps=20))).shape == (3,)
        with pytest.raises(ValueError, match="expecting 5 features"):
            model.predict(table[:, :4])

    def test_fitted_to_lists_it_takes_tables_of_any_width(self) -> None:
        model = SequenceClassifier(**SMALL).fit(series(12), self.Y)
        assert model.n_features_in_ == 1
        assert model.predict(np.zeros((4, 3))).shape == (4,)
        assert model.predict(np.zeros((4, 9))).shape == (4,)

    def test_names_of_columns(self) -> None:
        frame = pd.DataFrame(np.stack(self.X)[:, :, 0], columns=list("abcde"))
        model = SequenceClassifier(**SMALL).fit(frame, self.Y)
        assert model.feature_names_in_.tolist() == list("abcde")
        with pytest.raises(ValueError, match="same order"):
            model.predict(frame[list("edcba")])
        model.fit(self.X, self.Y)
        assert not hasattr(model, "feature_names_in_")


class TestPredictions:
    def test_classifier(self) -> None:
        x = series(70)
        model = SequenceClassifier(batch_size=8, **SMALL).fit(x, signs(x))
        # One by one, in the order given, without padding.
        logits = np.concatenate([model.model_(row[None])[0] for row in x]).astype(np.float64)
        assert model.predict(x).tolist() == model.classes_[logits.argmax(axis=1)].tolist()
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert_close(model.predict_proba(x), expected, FORMULA_F64)
        assert model.score(x, signs(x)) == np.mean(model.predict(x) == signs(x))

    def test_probabilities_of_large_logits(self) -> None:
        x = series(4)
        model = SequenceClassifier(**SMALL).fit(x, [0, 1, 2, 0])
        weights = model.model_.state_dict()
        weights["2.bias"] = np.array([2000.0, 0.0, -2000.0], np.float32)
        model.model_.load_state_dict(weights)
        assert model.predict_proba(x).tolist() == [[1.0, 0.0, 0.0]] * 4

    def test_regressor(self) -> None:
        x = series(20)
        y = np.array([row.mean() for row in x])
        model = SequenceRegressor(batch_size=8, **SMALL).fit(x, y)
        expected = np.concatenate([model.model_(row[None])[0] for row in x])
        assert_same_bits(model.predict(x), expected[:, 0].astype(np.float64))
        model.fit(x, y[:, None])
        assert_same_bits(model.predict(x), expected.astype(np.float64))

    def test_tagger(self) -> None:
        x = series(20)
        model = SequenceTagger(batch_size=8, **SMALL).fit(x, tags(x))
        found, shares = model.predict(x), model.predict_proba(x)
        assert isinstance(found, list)
        right = 0
        for row, y, got, share in zip(x, tags(x), found, shares, strict=True):
            logits = model.model_(row[None])[0][0].astype(np.float64)
            assert got.tolist() == model.classes_[logits.argmax(axis=1)].tolist()
            assert_close(
                share, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), FORMULA_F64
            )
            right += int((got == y).sum())
        assert model.score(x, tags(x)) == right / sum(map(len, x))

    def test_tags_of_an_array_are_one(self) -> None:
        x = series(9, steps=6)
        y = np.stack(tags(x))
        model = SequenceTagger(**SMALL).fit(np.stack(x), y)
        assert_same_bits(model.predict(np.stack(x)), np.stack(model.predict(x)))
        assert model.predict_proba(np.stack(x)).shape == (9, 6, 3)
        assert model.predict(np.stack(x)[:, :, 0]).shape == (9, 6)
        frame = SequenceTagger(**SMALL).fit(np.stack(x), pd.DataFrame(y))
        assert bits_of(frame.model_) == bits_of(model.model_)

    def test_forecast(self) -> None:
        x = wave(60)
        model = SequenceForecaster(history=7, horizon=3, **SMALL).fit(x)
        mean, scale = x.mean(), x.std()
        known = ((x[-7:] - mean) / scale).astype(np.float32)[:, None]
        # Beyond the horizon it goes on from its own forecasts, in float32.
        first, _ = model.model_(known[None])
        second, _ = model.model_(np.concatenate([known[3:], first.T])[None])
        expected = np.concatenate([first, second], axis=1)[0] * scale + mean
        assert_same_bits(model.predict(5), expected[:5])
        assert_same_bits(model.predict(2), expected[:2])
        assert_same_bits(model.predict(), expected[:3])
        assert_same_bits(model.predict(5, X=x), expected[:5])
        assert_same_bits(model.predict(5, X=x[-7:]), expected[:5])
        assert model.predict(1, X=x[:30])[0] != expected[0]

    def test_forecast_of_many_features(self) -> None:
        x = np.stack([wave(60), -wave(60, 3)], axis=1)
        model = SequenceForecaster(history=7, horizon=2, **SMALL).fit(x)
        assert model.predict(5).shape == (5, 2)
        assert_same_bits(model.mean_, x.mean(axis=0))
        assert_same_bits(model.scale_, x.std(axis=0))

    def test_a_feature_that_never_changes(self) -> None:
        x = np.stack([wave(40), np.full(40, 7.0)], axis=1)
        model = SequenceForecaster(history=5, **SMALL).fit(x)
        assert model.scale_[1] == 1.0
        assert np.isfinite(model.predict(3)).all()

    def test_score_of_a_forecaster(self) -> None:
        x, other = wave(60), wave(30, 11)
        model = SequenceForecaster(history=7, horizon=2, **SMALL).fit(x)
        expected = np.stack([other[k + 7 : k + 9] for k in range(22)])
        found = np.stack([model.predict(X=other[: k + 7]) for k in range(22)])
        off = ((expected - found) ** 2).sum(axis=0)
        spread = ((expected - expected.mean(axis=0)) ** 2).sum(axis=0)
        assert_close(model.score(other), (1 - off / spread).mean(), PACKAGE_TO_REFERENCE_F32)


class TestLearns:
    """Each learns what it can learn alone, for which a row or step needs what came before."""

    def test_classifier(self) -> None:
        x = series(300)
        y = ["rises" if row[-1, 0] > row[0, 0] else "falls" for row in x]
        model = SequenceClassifier(
            hidden_size=16, learning_rate=0.02, epochs=40, random_state=0
        ).fit(x[:200], y[:200])
        assert model.score(x[200:], y[200:]) > 0.9

    def test_regressor(self) -> None:
        x = series(200)
        y = [float(row.sum()) for row in x]
        model = SequenceRegressor(
            "gru", hidden_size=16, learning_rate=0.02, epochs=40, random_state=0
        ).fit(x[:150], y[:150])
        assert model.score(x[150:], y[150:]) > 0.9

    def test_tagger(self) -> None:
        x = series(100)
        model = SequenceTagger(hidden_size=16, learning_rate=0.02, epochs=40, random_state=0)
        model.fit(x[:75], tags(x)[:75])
        assert model.score(x[75:], tags(x)[75:]) > 0.95

    def test_forecaster(self) -> None:
        model = SequenceForecaster(
            hidden_size=16, history=12, horizon=2, learning_rate=0.01, epochs=40, random_state=0
        ).fit(wave(200))
        assert np.abs(model.predict(20) - wave(20, 200)).max() < 0.5
        assert model.score(wave(60, 37)) > 0.99


ALL: list[tuple[Any, tuple[Any, ...]]] = [
    (SequenceClassifier(**SMALL), (series(12), signs(series(12)))),
    (SequenceRegressor(**SMALL), (series(12), np.arange(12.0))),
    (SequenceTagger(**SMALL), (series(12), tags(series(12)))),
    (SequenceForecaster(history=5, **SMALL), (wave(50),)),
]
EACH = [pytest.param(*each, id=type(each[0]).__name__) for each in ALL]


def forecast(estimator: Any, data: tuple[Any, ...]) -> Array:
    if isinstance(estimator, SequenceForecaster):
        return estimator.predict(4)
    found = getattr(estimator, "predict_proba", estimator.predict)(data[0])
    return np.concatenate(found) if isinstance(found, list) else found


def first_part(estimator: Any, data: tuple[Any, ...]) -> Any:
    """One call of partial_fit."""
    if isinstance(estimator, (SequenceClassifier, SequenceTagger)):
        labels = data[1] if isinstance(data[1], np.ndarray) else np.concatenate(data[1])
        return estimator.partial_fit(*data, classes=np.unique(labels))
    return estimator.partial_fit(*data)


class TestRandomState:
    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_the_same_bits_again_and_for_any_threads(
        self, estimator: Any, data: tuple[Any, ...]
    ) -> None:
        options = {"dropout": 0.3, "batch_size": 5}
        if not isinstance(estimator, SequenceForecaster):
            options["validation_fraction"] = 0.25
            if isinstance(estimator, SequenceClassifier):
                data = (data[0], [0, 1] * 6)
        found = [clone(estimator).set_params(**options).fit(*data) for _ in range(2)]
        with seqrs.num_threads(1):
            found.append(clone(estimator).set_params(**options).fit(*data))
        # Twice by one estimator.
        found.append(found[0])
        found[0] = copy.deepcopy(found[0])
        found[-1].fit(*data)
        for each in found[1:]:
            assert bits_of(each.model_) == bits_of(found[0].model_)
            assert each.history_ == found[0].history_
            assert_same_bits(forecast(each, data), forecast(found[0], data))

    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_others_draw_others(self, estimator: Any, data: tuple[Any, ...]) -> None:
        random = np.random.RandomState(5)
        states = [3, 4, None, None, random, random]
        found = [
            str(bits_of(clone(estimator).set_params(random_state=None).fit(*data).model_))
            if state is None
            else str(bits_of(copy.copy(estimator).set_params(random_state=state).fit(*data).model_))
            for state in states
        ]
        assert len(set(found)) == len(states)

    def test_a_generator_that_begins_at_the_same_place(self) -> None:
        x, y = series(8), np.arange(8.0)
        made = SequenceRegressor(hidden_size=4, epochs=1)
        found = [
            clone(made).set_params(random_state=np.random.RandomState(9)).fit(x, y)
            for _ in range(2)
        ]
        assert bits_of(found[0].model_) == bits_of(found[1].model_)


class TestPartialFit:
    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_as_many_calls_as_epochs_give_what_fit_gives(
        self, estimator: Any, data: tuple[Any, ...]
    ) -> None:
        options = {"dropout": 0.3, "batch_size": 5, "num_layers": 2}
        whole = clone(estimator).set_params(**options).fit(*data)
        parts = clone(estimator).set_params(**options)
        for _ in range(3):
            assert first_part(parts, data) is parts
        assert bits_of(parts.model_) == bits_of(whole.model_)
        assert parts.history_ == whole.history_
        assert_same_bits(forecast(parts, data), forecast(whole, data))

    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_through_a_pickle(self, estimator: Any, data: tuple[Any, ...]) -> None:
        expected = clone(estimator).set_params(dropout=0.3, batch_size=5)
        for _ in range(4):
            first_part(expected, data)
        found = clone(estimator).set_params(dropout=0.3, batch_size=5)
        for _ in range(2):
            first_part(found, data)
        # A second pickle of what has not trained in between, and a copy.
        found = copy.deepcopy(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(found)))))
        for _ in range(2):
            found.partial_fit(*data)
        assert bits_of(found.model_) == bits_of(expected.model_)
        assert found.history_ == expected.history_

    def test_weights_that_were_put_in_place_after_a_pickle_are_trained(self) -> None:
        x, y = series(8), np.arange(8.0)
        found = [clone(ALL[1][0]).partial_fit(x, y) for _ in range(2)]
        zeros = {name: 0 * value for name, value in found[0].model_.state_dict().items()}
        found[1] = pickle.loads(pickle.dumps(found[1]))
        for each in found:
            each.model_.load_state_dict(zeros)
            each.partial_fit(x, y)
        assert bits_of(found[0].model_) == bits_of(found[1].model_)

    def test_after_fit_it_trains_that_model_on(self) -> None:
        x, y = series(12), np.arange(12.0)
        model = SequenceRegressor(validation_fraction=0.25, **SMALL).fit(x, y)
        expected = copy.deepcopy(model.model_)
        trainer = seqrs.Trainer(expected, seqrs.MSE(), seqrs.Adam(lr=2e-3), seed=3)
        data = seqrs.data.Padded(x, list(y[:, None]), 32, per_step=False, seed=3)
        trainer.fit(data, epochs=1, progress=False)
        model.set_params(validation_fraction=0.0).partial_fit(x, y)
        assert bits_of(model.model_) == bits_of(expected)
        assert model.history_["epoch"] == [1, 2, 3, 4]
        assert len(model.history_["loss"]) == 4
        assert len(model.history_["val_loss"]) == 3

    def test_fit_begins_anew(self) -> None:
        x, y = series(12), np.arange(12.0)
        expected = clone(ALL[1][0]).fit(x, y)
        before = clone(ALL[1][0]).partial_fit(x + x, np.arange(24.0))
        found = [before, pickle.loads(pickle.dumps(before))]
        for each in found:
            assert bits_of(each.fit(x, y).model_) == bits_of(expected.model_)
            assert each.history_ == expected.history_
        # The optimiser of before is forgotten too.
        expected.partial_fit(x, y)
        for each in found:
            assert bits_of(each.partial_fit(x, y).model_) == bits_of(expected.model_)

    def test_classes_that_come_later(self) -> None:
        x = series(6)
        model = SequenceClassifier(**SMALL).partial_fit(x, ["a"] * 6, classes=["c", "a", "b"])
        assert model.classes_.tolist() == ["a", "b", "c"]
        model.partial_fit(x, ["b"] * 6)
        model.partial_fit(x, ["c"] * 6, classes=["a", "b", "c"])
        assert model.predict_proba(x).shape == (6, 3)

    def test_a_series_that_goes_on(self) -> None:
        model = SequenceForecaster(history=5, **SMALL).partial_fit(wave(50))
        mean = model.mean_
        model.partial_fit(wave(50, 50) + 40.0)
        assert_same_bits(model.mean_, mean)
        assert_same_bits(model.last_window_[:, 0], (wave(50, 50) + 40.0)[-5:])


class TestEarlyStopping:
    def test_ends_with_the_weights_of_the_best_epoch(self) -> None:
        # Nothing to be learnt, so that what is held out gets worse.
        x = series(40)
        y = np.random.default_rng(1).integers(2, size=40)
        options = {"hidden_size": 16, "learning_rate": 0.03, "random_state": 3}
        model = SequenceClassifier(epochs=100, validation_fraction=0.25, patience=4, **options).fit(
            x, y
        )
        losses = model.history_["val_loss"]
        best = int(np.argmin(losses))
        assert len(losses) == best + 5 < 100
        shorter = SequenceClassifier(epochs=best + 1, validation_fraction=0.25, **options)
        assert bits_of(shorter.fit(x, y).model_) == bits_of(model.model_)

    def test_without_patience_it_trains_to_the_end(self) -> None:
        x = series(12)
        model = SequenceRegressor(validation_fraction=0.25, **SMALL).fit(x, np.arange(12.0))
        assert len(model.history_["val_loss"]) == 3


class TestBesideScikitLearn:
    def test_grid_search_over_ragged_rows(self) -> None:
        x = series(60)
        search = GridSearchCV(
            SequenceClassifier(epochs=15, learning_rate=0.03, random_state=0),
            {"cell": ["gru", "rnn"], "hidden_size": [1, 12]},
            cv=3,
            error_score="raise",
        ).fit(x, signs(x))
        assert search.best_score_ > 0.8
        assert search.best_params_["hidden_size"] == 12
        assert search.predict(x).shape == (60,)

    def test_processes_of_joblib_give_the_same_bits(self) -> None:
        x, y = series(12), np.arange(12.0)
        made = [clone(ALL[1][0]).set_params(cell=cell) for cell in ("gru", "rnn")]
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(each.fit)(x, y) for each in made)
        for each, there in zip(made, found, strict=True):
            assert each.fit(x, y).model_ == there.model_
            assert_same_bits(there.predict(x), each.predict(x))
        # Workers that wait for more would be there while other tests fork.
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)

    def test_cross_validation(self) -> None:
        x = series(30)
        assert cross_val_score(SequenceClassifier(**SMALL), x, signs(x), cv=3).shape == (3,)
        assert cross_val_score(SequenceRegressor(**SMALL), x, np.arange(30.0), cv=3).shape == (3,)
        assert cross_val_predict(SequenceClassifier(**SMALL), x, signs(x), cv=3).shape == (30,)
        model = SequenceTagger(learning_rate=0.03, epochs=20, hidden_size=8, random_state=0)
        assert cross_val_score(model, x, tags(x), cv=3, error_score="raise").min() > 0.6
        found = cross_val_score(
            SequenceForecaster(history=6, epochs=40, random_state=0),
            wave(200),
            cv=TimeSeriesSplit(3),
            error_score="raise",
        )
        assert found.max() > 0.9

    def test_pipelines(self) -> None:
        x, y = series(30, steps=6), signs(series(30, steps=6))
        table = np.stack(x)[:, :, 0] * 1000
        model = make_pipeline(StandardScaler(), SequenceClassifier(**SMALL)).fit(table, y)
        expected = SequenceClassifier(**SMALL).fit(StandardScaler().fit_transform(table), y)
        assert bits_of(model[-1].model_) == bits_of(expected.model_)
        assert (
            model.predict(table).tolist()
            == expected.predict(StandardScaler().fit_transform(table)).tolist()
        )
        halved = make_pipeline(
            FunctionTransformer(lambda rows: [row / 2 for row in rows]), SequenceTagger(**SMALL)
        )
        ragged = series(30)
        expected = SequenceTagger(**SMALL).fit([row / 2 for row in ragged], tags(ragged))
        assert bits_of(halved.fit(ragged, tags(ragged))[-1].model_) == bits_of(expected.model_)
        forecaster = make_pipeline(StandardScaler(), SequenceForecaster(history=5, **SMALL))
        assert isinstance(forecaster.fit(wave(50)[:, None]).score(wave(50)[:, None]), float)

    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_parameters_and_clones(self, estimator: Any, data: tuple[Any, ...]) -> None:
        params = estimator.get_params()
        assert params["hidden_size"] == 8
        assert set(params) >= {
            *("cell", "hidden_size", "num_layers", "bidirectional", "dropout", "epochs"),
            *("batch_size", "learning_rate", "optimizer", "clip_norm", "random_state", "verbose"),
            *("device", "validation_fraction", "patience"),
        }
        fitted = clone(estimator).fit(*data)
        copied = clone(fitted)
        assert copied.get_params() == params
        assert not hasattr(copied, "model_")
        with pytest.raises(NotFittedError):
            forecast(copied, data)
        assert type(estimator)(**params).get_params() == params

    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_pickles(self, estimator: Any, data: tuple[Any, ...]) -> None:
        fitted = clone(estimator).fit(*data)
        file = io.BytesIO()
        joblib.dump(fitted, file)
        file.seek(0)
        for found in (pickle.loads(pickle.dumps(fitted)), joblib.load(file)):
            assert found.model_ == fitted.model_
            assert found.history_ == fitted.history_
            assert_same_bits(forecast(found, data), forecast(fitted, data))

    def test_the_model_is_one_like_any(self, tmp_path: Path) -> None:
        x = series(12)
        model = SequenceClassifier(**SMALL).fit(x, signs(x))
        model.model_.save(tmp_path / "model.safetensors")
        assert seqrs.load(tmp_path / "model.safetensors") == model.model_

    def test_verbose(self, capsys: pytest.CaptureFixture[str]) -> None:
        from unittest import mock

        x = series(6)
        for verbose, bars in ((False, 0), (0, 0), (True, 3), (2, 3)):
            with mock.patch("tqdm.auto.tqdm") as bar:
                SequenceRegressor(verbose=verbose, **SMALL).fit(x, np.arange(6.0))
            assert bar.call_count == bars


class TestDevices:
    def test_trains_and_predicts_there(self, device: str) -> None:
        x = series(12)
        model = SequenceClassifier(device=device, **SMALL).fit(x, signs(x))
        assert model.model_.device.startswith(device)
        shares = model.predict_proba(x)
        # A pickle holds no device; the parameter says where to go on.
        found = pickle.loads(pickle.dumps(model))
        assert_same_bits(found.predict_proba(x), shares)
        assert found.model_.device.startswith(device)
        there = found.set_params(device="cpu").predict_proba(x)
        assert found.model_.device == "cpu"
        assert_close(there, shares, PACKAGE_TO_REFERENCE_F32)

    def test_partial_fit_through_a_pickle(self, device: str) -> None:
        x, y = series(12), np.arange(12.0)
        found = [SequenceRegressor(device=device, dropout=0.3, **SMALL) for _ in range(2)]
        for each in found:
            each.partial_fit(x, y).partial_fit(x, y)
        found[1] = pickle.loads(pickle.dumps(found[1])).partial_fit(x, y)
        found[0].partial_fit(x, y)
        assert found[1].model_.device.startswith(device)
        assert bits_of(found[0].model_) == bits_of(found[1].model_)

    def test_none_of_that_name(self) -> None:
        with pytest.raises(ValueError, match="device"):
            SequenceRegressor(device="tpu", **SMALL).fit(series(4), np.arange(4.0))
        with pytest.raises(seqrs.NoDeviceError):
            SequenceRegressor(device="gpu:77", **SMALL).fit(series(4), np.arange(4.0))


X, Y = series(6), [0, 1] * 3
NAN = [*X[:3], np.array([[1.0], [np.nan]]), *X[4:]]
REFUSED: dict[str, tuple[Any, tuple[Any, ...], type[Exception], str]] = {
    # Parameters.
    "cell": (SequenceClassifier("transformer"), (X, Y), ValueError, "cell: .*'lstm' or 'gru'"),
    "hidden_size": (SequenceClassifier(hidden_size=0), (X, Y), ValueError, "hidden_size: .*0"),
    "num_layers": (SequenceClassifier(num_layers=1.5), (X, Y), TypeError, "num_layers: .*1.5"),
    "bidirectional": (SequenceClassifier(bidirectional="no"), (X, Y), TypeError, "bidirectional"),
    "dropout": (SequenceClassifier(dropout=1.0), (X, Y), ValueError, "dropout: .*1"),
    "epochs": (SequenceClassifier(epochs=0), (X, Y), ValueError, "epochs: .*at least 1, got 0"),
    "batch_size": (SequenceClassifier(batch_size=0), (X, Y), ValueError, "batch_size: .*0"),
    "learning_rate": (SequenceClassifier(learning_rate="fast"), (X, Y), TypeError, "learning_rate"),
    "optimizer": (SequenceClassifier(optimizer="lbfgs"), (X, Y), ValueError, "optimizer: .*'adam'"),
    "clip_norm": (SequenceClassifier(clip_norm=0.0), (X, Y), ValueError, "clip_norm"),
    "random_state": (SequenceClassifier(random_state=-1), (X, Y), ValueError, "between 0 and"),
    "random_state-word": (
        SequenceClassifier(random_state="a"),
        (X, Y),
        ValueError,
        "cannot be used",
    ),
    "verbose": (SequenceClassifier(verbose="yes"), (X, Y), TypeError, "verbose: .*'yes'"),
    "device": (SequenceClassifier(device=0), (X, Y), TypeError, "device: .*0"),
    "share": (
        SequenceClassifier(validation_fraction=1.0),
        (X, Y),
        ValueError,
        "validation_fraction",
    ),
    "patience": (SequenceClassifier(patience=3), (X, Y), ValueError, "patience: .*without"),
    "patience-0": (
        SequenceClassifier(patience=0, validation_fraction=0.5),
        (X, Y),
        ValueError,
        "patience: .*at least 1, got 0",
    ),
    "held-out-class": (
        SequenceClassifier(validation_fraction=0.5),
        (X, [0, 1, 1, 1, 1, 1]),
        ValueError,
        "least populated class",
    ),
    "history": (SequenceForecaster(history=0), (wave(50),), ValueError, "history: .*0"),
    "horizon": (SequenceForecaster(horizon=2.0), (wave(50),), TypeError, "horizon: .*2.0"),
    "standardize": (SequenceForecaster(standardize=1), (wave(50),), TypeError, "standardize: .*1"),
    # X.
    "no-rows": (SequenceClassifier(), ([], []), ValueError, "0 sample"),
    "no-steps": (
        SequenceClassifier(),
        ([*X[:5], np.zeros((0, 1))], Y),
        ValueError,
        r"X\[5\]: .*one step",
    ),
    "no-features": (SequenceClassifier(), (np.zeros((6, 3, 0)), Y), ValueError, "one feature"),
    "no-columns": (SequenceClassifier(), (np.zeros((6, 0)), Y), ValueError, "0 feature"),
    "one-axis": (SequenceClassifier(), (np.zeros(6), Y), ValueError, "Expected 2D array"),
    "numbers": (
        SequenceClassifier(),
        ([1.0, 2.0], [0, 1]),
        ValueError,
        r"X\[0\]: .*one sequence alone",
    ),
    "four-axes": (SequenceClassifier(), (np.zeros((6, 1, 1, 1)), Y), ValueError, "dim 4"),
    "nan": (SequenceClassifier(), (NAN, Y), ValueError, r"X\[3\]: .*NaN"),
    "nan-array": (SequenceClassifier(), (np.full((6, 2, 1), np.nan), Y), ValueError, "NaN"),
    "too-large": (
        SequenceClassifier(),
        ([np.full((3, 1), 1e300)] * 6, Y),
        ValueError,
        r"X\[0\]: .*large",
    ),
    "too-large-array": (SequenceClassifier(), (np.full((6, 2), 1e300), Y), ValueError, "too large"),
    "words": (SequenceClassifier(), ([["a", "b"]] * 6, Y), TypeError, r"X\[0\]: .*real numbers"),
    "ragged-inside": (SequenceClassifier(), ([[[1.0], [1.0, 2.0]]] * 6, Y), ValueError, r"X\[0\]"),
    "features": (
        SequenceClassifier(),
        ([*X[:5], np.zeros((3, 2))], Y),
        ValueError,
        r"X\[5\]: .*X\[0\]",
    ),
    "axes": (SequenceClassifier(), ([*X[:5], np.zeros(3)], Y), ValueError, r"X\[5\]: .*X\[0\]"),
    "short-series": (
        SequenceForecaster(history=9),
        (wave(9),),
        ValueError,
        "history . horizon = 10",
    ),
    "series-nan": (SequenceForecaster(), (np.full(50, np.nan),), ValueError, "NaN"),
    "series-axes": (SequenceForecaster(), (np.zeros((50, 2, 2)),), ValueError, "dim 3"),
    # y.
    "no-y": (SequenceClassifier(), (X, None), ValueError, "requires y to be passed"),
    "fewer": (SequenceClassifier(), (X, Y[:5]), ValueError, "inconsistent numbers of samples"),
    "no-classes": (SequenceClassifier(), (X, np.arange(6) / 4), ValueError, "Unknown label type"),
    "y-infinite": (SequenceClassifier(), (X, [np.inf] * 6), ValueError, "y contains infinity"),
    "labels-of-steps": (SequenceClassifier(), (X, tags(X)), ValueError, "inhomogeneous"),
    "y-nan": (SequenceRegressor(), (X, [np.nan] * 6), ValueError, "y contains NaN"),
    "y-words": (SequenceRegressor(), (X, ["a"] * 6), ValueError, "convert"),
    "tags-too-few": (
        SequenceTagger(),
        (X, [each[:-1] for each in tags(X)]),
        ValueError,
        r"y\[0\]: .*steps of X",
    ),
    "tags-of-rows": (SequenceTagger(), (X, Y), ValueError, r"y\[0\]: .*steps of X"),
    "tags-no-classes": (
        SequenceTagger(),
        (X, [row[:, 0] for row in X]),
        ValueError,
        "Unknown label",
    ),
    "tags-fewer": (SequenceTagger(), (X, tags(X)[:5]), ValueError, "inconsistent numbers"),
    "y-of-series": (SequenceForecaster(), (wave(50), wave(50)), ValueError, "y: expected None"),
}


class TestRefused:
    @pytest.mark.parametrize(
        ("estimator", "data", "kind", "words"), REFUSED.values(), ids=REFUSED.keys()
    )
    def test_by_fit_which_changes_nothing(
        self, estimator: Any, data: tuple[Any, ...], kind: type[Exception], words: str
    ) -> None:
        made = clone(estimator)
        with pytest.raises(kind, match=words):
            made.fit(*data)
        assert set(vars(made)) == set(estimator.get_params())
        # And one that was trained is as it was.
        _, good = next(each for each in ALL if type(each[0]) is type(estimator))
        params = made.get_params()
        usual = type(made)(**SMALL).get_params()
        made.set_params(**usual).fit(*good)
        before, bits = dict(vars(made)), bits_of(made.model_)
        made.set_params(**params)
        with pytest.raises(kind, match=words):
            made.fit(*data)
        made.set_params(**usual)
        assert vars(made) == before
        assert bits_of(made.model_) == bits

    def test_a_changed_parameter_by_partial_fit(self) -> None:
        x, y = series(6), np.arange(6.0)
        changed = {
            **{"cell": "gru", "hidden_size": 4, "num_layers": 2, "bidirectional": True},
            **{"dropout": 0.5, "learning_rate": 0.1, "optimizer": "sgd", "clip_norm": None},
            "random_state": 4,
        }
        for name, value in changed.items():
            model = clone(ALL[1][0]).partial_fit(x, y).set_params(**{name: value})
            with pytest.raises(ValueError, match=f"{name}: expected"):
                model.partial_fit(x, y)
        free = {"batch_size": 2, "epochs": 7, "verbose": 0}
        clone(ALL[1][0]).partial_fit(x, y).set_params(**free).partial_fit(x, y)
        forecaster = SequenceForecaster(history=5, **SMALL).partial_fit(wave(50))
        for name, value in {"history": 4, "horizon": 2, "standardize": False}.items():
            with pytest.raises(ValueError, match=f"{name}: expected"):
                copy.deepcopy(forecaster).set_params(**{name: value}).partial_fit(wave(50))

    def test_what_partial_fit_cannot_do(self) -> None:
        with pytest.raises(ValueError, match="classes: expected all classes"):
            SequenceClassifier(**SMALL).partial_fit(X, Y)
        with pytest.raises(ValueError, match="validation_fraction: expected 0"):
            SequenceRegressor(validation_fraction=0.5, **SMALL).partial_fit(X, Y)
        model = SequenceClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1])
        bits = bits_of(model.model_)
        with pytest.raises(ValueError, match=r"y: expected the classes \[0, 1\], got 7"):
            model.partial_fit(X, [0, 1, 7] * 2)
        with pytest.raises(ValueError, match=r"classes: expected \[0, 1\].*got \[0, 1, 2\]"):
            model.partial_fit(X, Y, classes=[0, 1, 2])
        with pytest.raises(ValueError, match="expected 1 features a step"):
            model.partial_fit([np.zeros((3, 2))] * 6, Y)
        assert bits_of(model.model_) == bits
        regressor = SequenceRegressor(**SMALL).partial_fit(X, np.zeros((6, 2)))
        with pytest.raises(ValueError, match="y: expected 2 outputs"):
            regressor.partial_fit(X, np.zeros((6, 3)))

    @pytest.mark.parametrize(("estimator", "data"), EACH)
    def test_before_it_is_fitted(self, estimator: Any, data: tuple[Any, ...]) -> None:
        for name in ("predict", "predict_proba", "score"):
            if hasattr(estimator, name):
                arguments = (data[0], data[-1]) if name == "score" else (data[0],)
                with pytest.raises(NotFittedError):
                    getattr(estimator, name)(*arguments)

    def test_features_that_it_was_not_trained_on(self) -> None:
        model = SequenceRegressor(**SMALL).fit(series(6, features=2), np.arange(6.0))
        for x in (series(6), np.zeros((6, 4, 3)), np.zeros((6, 4))):
            with pytest.raises(seqrs.ShapeError, match="expected 2 features a step"):
                model.predict(x)

    def test_forecasts(self) -> None:
        model = SequenceForecaster(history=5, **SMALL).fit(wave(50))
        for steps in (0, -1):
            with pytest.raises(seqrs.ShapeError, match=r"steps: .*at least 1"):
                model.predict(steps)
        with pytest.raises(TypeError, match=r"steps: .*2\.5"):
            model.predict(2.5)
        with pytest.raises(seqrs.ShapeError, match="at least history = 5 steps, got 4"):
            model.predict(1, X=wave(4))
        with pytest.raises(ValueError, match="2 features"):
            model.predict(1, X=np.zeros((9, 2)))
        with pytest.raises(ValueError, match="y: expected None"):
            model.score(wave(50), wave(50))
        # What is changed after fit is of the next fit.
        expected = model.predict(3)
        assert_same_bits(model.set_params(history=3, horizon=2).predict(3), expected)

    def test_weights_for_samples_are_no_argument(self) -> None:
        with pytest.raises(TypeError, match="sample_weight"):
            SequenceClassifier(**SMALL).fit(X, Y, sample_weight=[1.0] * 6)


class TestImport:
    def test_without_the_package(self) -> None:
        code = """
import sys
sys.modules["sklearn"] = None
import seqrs
try:
    seqrs.sklearn
except ModuleNotFoundError as error:
    assert error.name == "sklearn"
    print(error)
"""
        found = python(code)
        assert found.returncode == 0, found.stderr
        assert "pip install 'seqrs[sklearn]'" in found.stdout

    def test_its_name_is_left_to_the_package(self) -> None:
        code = "from seqrs import *; print('sklearn' in globals(), 'LSTM' in globals())"
        found = python(code)
        assert (found.returncode, found.stdout.split()) == (0, ["False", "True"]), found.stderr

    def test_the_package_is_loaded_by_what_needs_it_alone(self) -> None:
        code = """
import sys, seqrs
seqrs.Trainer, seqrs.data, seqrs.callbacks
before = "sklearn" in sys.modules
seqrs.sklearn.SequenceClassifier
print(before, "sklearn" in sys.modules)
"""
        found = python(code)
        assert (found.returncode, found.stdout.split()) == (0, ["False", "True"]), found.stderr
