"""Estimators for scikit-learn: sequences in, classes, tags, numbers or forecasts out.

They train with `seqrs.Trainer`, and are what scikit-learn expects of an estimator: they clone, have
`get_params` and `set_params`, go into `Pipeline`, `GridSearchCV` and `cross_val_score`, and pickle.

>>> from seqrs.sklearn import SequenceClassifier
>>> x = [np.sin(0.7 * np.arange(n)) for n in (5, 9, 7, 12)]     # rows of any lengths
>>> x += [np.full(n, 0.5) for n in (6, 8, 11, 4)]
>>> classifier = SequenceClassifier("gru", hidden_size=8, learning_rate=0.02, random_state=0)
>>> classifier.fit(x, ["wave"] * 4 + ["flat"] * 4).predict([np.sin(0.7 * np.arange(6))])
array(['wave'], dtype='<U4')

X is one of

- an array (n_samples, n_steps, n_features);
- a list of sequences of any lengths, (T_i, n_features) each, or (T_i,) for one feature; an array of
  objects or a pandas Series that holds such sequences is taken as a list;
- an array or a DataFrame (n_samples, n_steps): one feature, whose steps are the columns. As of any
  table in scikit-learn, `n_features_in_` is then the number of columns, and other tables have to
  have as many. (Lists of numbers are lists of sequences, but if all those that are fitted have one
  length, then tables have to have that.) Lists, and arrays (n_samples, n_steps, 1), may have any
  number of steps all the same.

Numbers are finite and computed with in float32. `random_state` decides everything that is drawn:
one number gives the same bits again, for any number of threads, on one kind of machine.

It needs the package: `pip install 'seqrs[sklearn]'`.
"""

from __future__ import annotations

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    _message = "sklearn: expected the package (pip install 'seqrs[sklearn]'), got none"
    raise ModuleNotFoundError(_message, name="sklearn") from error

from .classifier import SequenceClassifier
from .forecaster import SequenceForecaster
from .regressor import SequenceRegressor
from .tagger import SequenceTagger

__all__ = ["SequenceClassifier", "SequenceForecaster", "SequenceRegressor", "SequenceTagger"]
