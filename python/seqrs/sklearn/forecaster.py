"""The next steps of a time series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import r2_score
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from ..data import Windows
from ..errors import ShapeError
from ..losses import MSE
from ..options import flag, integer
from .estimator import SequenceEstimator, Task, all_or_nothing
from .sequences import Array

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..schedules import Schedule

__all__ = ["SequenceForecaster"]


class SequenceForecaster(SequenceEstimator):
    """Tells how a time series goes on, from the last `history` steps of it.

    What scikit-learn calls X is one series here, (n_steps,) or (n_steps, n_features), each row a
    step; there is no y. `model_` is `Sequential([LSTM(...), Last(), Linear(..., horizon *
    n_features)])`, trained with `MSE` on all windows of the series (`seqrs.data.Windows`): it gives
    all `horizon` steps at once, of every feature. Steps beyond the horizon are forecast from what
    was forecast before.

    What is held out for `validation_fraction` is the end of the series. A cross-validation needs
    folds of consecutive steps, such as `sklearn.model_selection.TimeSeriesSplit`.
    """

    #: What `standardize` takes off each feature, and divides it by: (n_features,), else 0 and 1.
    mean_: Array
    scale_: Array
    #: The end of the series, from which `predict` goes on: (history, n_features).
    last_window_: Array
    #: Steps that the model looks at, and that it forecasts.
    _history: int
    _horizon: int
    #: Whether the series came without an axis for features.
    _flat: bool

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        *,
        history: int = 24,
        horizon: int = 1,
        standardize: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float | Schedule = 2e-3,
        optimizer: str = "adam",
        clip_norm: float | None = 1.0,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
        device: str = "cpu",
        validation_fraction: float = 0.0,
        patience: int | None = None,
    ) -> None:
        """Keeps the parameters, which `fit` looks at. Those not named here are as for all.

        Args:
            history: steps that are looked at.
            horizon: steps that are forecast at once.
            standardize: whether the network sees each feature with its mean in the series taken off
                and divided by its standard deviation; forecasts are in the units of the series
                either way.
        """
        super().__init__(
            cell,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer=optimizer,
            clip_norm=clip_norm,
            random_state=random_state,
            verbose=verbose,
            device=device,
            validation_fraction=validation_fraction,
            patience=patience,
        )
        self.history = history
        self.horizon = horizon
        self.standardize = standardize

    def fit(self, X: Any, y: None = None) -> Self:
        """Trains from the beginning.

        Args:
            X: the series, (n_steps,) or (n_steps, n_features), at least history + horizon steps.
            y: None; it is there because a `Pipeline` passes it.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: X or a parameter is at fault, or there is a y; says which. The
                estimator is then what it was.
            NoDeviceError: there is no such device.
            NumericalError: a loss or gradient is NaN or infinite.
        """
        with all_or_nothing(self):
            series = self._series(X, y, reset=True)
            self._seed = self._draw_seed()
            share = self._held_out_share()
            here = len(series) - round(share * len(series))
            self._set_window()
            self._measure(series[:here])
            data = self._windows(series[:here], shuffle=True)
            # The steps before the cut are only looked at, so each forecast is of held-out steps.
            begin = max(here - self._history, 0)
            held_out = self._windows(series[begin:], shuffle=False) if share else None
            self._train(self._task(series), data, held_out)
            self.last_window_ = series[-self._history :].copy()
        return self

    def partial_fit(self, X: Any, y: None = None) -> Self:
        """Trains on for one epoch over X, with the optimiser of the calls before.

        The scale stays that of the first call, or of `fit`, and `predict` goes on from the end of
        X. After `fit` it trains that model on, with a new optimiser. Only an interrupt or a
        `NumericalError` in the middle of the epoch leaves the updates before it done.

        Args:
            X: as for `fit`; with as many features.
            y: None.

        Returns:
            The estimator.

        Raises:
            ValueError: as `fit`; a parameter was changed that made model or optimiser;
                `validation_fraction` is not 0.
        """
        self._check_partial()
        with all_or_nothing(self):
            first = not hasattr(self, "model_")
            series = self._series(X, y, reset=first)
            if first:
                self._seed = self._draw_seed()
                self._set_window()
                self._measure(series)
            self._train_on(self._task(series), self._windows(series, shuffle=True))
            self.last_window_ = series[-self._history :].copy()
        return self

    def predict(self, steps: int | None = None, X: Any = None) -> Array:
        """How the series goes on.

        Args:
            steps: how many steps ahead; `horizon` if None. Beyond `horizon` each forecast is made
                from those before.
            X: a series of which the last `history` steps are looked at; None for the one of `fit`.

        Returns:
            (steps,) or (steps, n_features), as the series was that it was trained on; float64.

        Raises:
            ShapeError: X has less than `history` steps.
        """
        self._check_fitted()
        history, horizon = self._history, self._horizon
        steps = horizon if steps is None else integer("steps", steps)
        past = self.last_window_ if X is None else self._series(X, None, reset=False)
        if len(past) < history:
            raise ShapeError(f"X: expected at least history = {history} steps, got {len(past)}")
        known = self._scaled(past[-history:])
        while len(known) < history + steps:
            ahead = self._outputs([known[-history:]])[0].reshape(horizon, -1)
            known = np.concatenate([known, ahead])
        found = known[history : history + steps] * self.scale_ + self.mean_
        return found[:, 0] if self._flat else found

    def score(self, X: Any, y: None = None) -> float:
        """R^2 of what is forecast from every window of X, the mean over all outputs.

        Args:
            X: a series of at least history + horizon steps.
            y: None.
        """
        self._check_fitted()
        windows = self._windows(self._series(X, y, reset=False), shuffle=False)
        expected, found = [], []
        for x, ahead in windows:
            expected.append(ahead)
            found.extend(self._outputs(x))
        return float(r2_score(np.concatenate(expected), np.stack(found)))

    def _series(self, X: Any, y: object, *, reset: bool) -> Array:
        """X as (n_steps, n_features) in float64.

        Raises:
            ValueError, TypeError: it is none, has a number that is not finite, or there is a y.
        """
        if y is not None:
            raise ValueError("y: expected None, the series in X being its own target, got one")
        flat = not hasattr(X, "columns") and np.ndim(X) == 1
        if flat:
            X = check_array(X, ensure_2d=False, dtype=np.float64, input_name="X")[:, None]
        series: Array = validate_data(self, X, reset=reset, dtype=np.float64)
        if reset:
            self._flat = flat
        return series

    def _set_window(self) -> None:
        """What the model is made for stays, whatever the parameters become."""
        self._history = integer("history", self.history)
        self._horizon = integer("horizon", self.horizon)

    def _measure(self, series: Array) -> None:
        """Mean and scale of each feature; a feature that is always the same is not divided."""
        self.mean_ = np.zeros(series.shape[1])
        self.scale_ = np.ones(series.shape[1])
        if flag("standardize", self.standardize):
            self.mean_ = series.mean(axis=0)
            deviation = series.std(axis=0)
            self.scale_ = np.where(deviation > 0.0, deviation, 1.0)

    def _scaled(self, series: Array) -> Array:
        return ((series - self.mean_) / self.scale_).astype(np.float32)

    def _windows(self, series: Array, *, shuffle: bool) -> Windows:
        return Windows(
            self._scaled(series),
            self._history,
            self._horizon,
            self.batch_size,
            shuffle=shuffle,
            seed=self._seed,
        )

    def _task(self, series: Array) -> Task:
        features = series.shape[1]
        return Task(features, self._horizon * features, False, MSE())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        return tags
