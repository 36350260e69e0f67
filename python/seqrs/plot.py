"""Pictures, by Matplotlib: a training run, gates over time, and how gradients flow back.

>>> history = {"epoch": [1, 2], "loss": [2.3, 1.9]}            # as `Trainer.fit` gives it
>>> ax = seqrs.plot.history(history)
>>> lstm = seqrs.LSTM(8, 16)
>>> ax = seqrs.plot.gates(lstm, x, row=0)                      # x (2, 5, 8)
>>> ax = seqrs.plot.gradient_flow(lstm, x)
>>> ax.figure.savefig("flow.png")

Each function draws into the Axes it is given, or into those of a new figure, and gives them back.
Nothing is shown or saved: that is `matplotlib.pyplot.show()` and `ax.figure.savefig`. It needs the
package: `pip install 'seqrs[plot]'`. The numbers are those of `seqrs.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import diagnosis
from .errors import ShapeError
from .options import integer, shown, text
from .recurrent import RNN, Recurrent

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    Array = npt.NDArray[np.float64]

__all__ = ["gates", "gradient_flow", "history"]

#: The textbook's letters for the gates of each kind of layer.
LETTERS = {
    "rnn": {"a": "a<t>"},
    "lstm": {"i": "Γi", "f": "Γf", "g": "c~ (g)", "o": "Γo", "c": "c<t>"},
    "gru": {"r": "Γr", "z": "Γu (z)", "n": "c~ (n)"},
}
#: The band around a mean: what most units are between.
BAND = (0.1, 0.9)


def history(
    history: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    *,
    metrics: Sequence[str] | None = None,
) -> Axes:
    """Metrics of a training run over its epochs.

    Args:
        history: what `Trainer.fit` gives: a list for each metric, with a number for each epoch.
        ax: Axes to draw into; None makes a figure.
        metrics: which, by name. None: the losses, `loss` and `val_loss`, as far as they are there.

    Returns:
        The Axes: a line for each metric, labelled with its name.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed.
        TypeError: history is no mapping, or ax are no Axes.
        ValueError: there is no such metric; says which there are.
        ShapeError: a metric has more or fewer numbers than there are epochs.
    """
    if not isinstance(history, Mapping):
        raise TypeError(f"history: expected what Trainer.fit gives, got {shown(history)}")
    if isinstance(metrics, str):
        raise TypeError(f"metrics: expected a list of names, got {metrics!r}")
    there = [name for name in history if name != "epoch"]
    wanted = [name for name in ("loss", "val_loss") if name in history]
    names = wanted if metrics is None else [text("metrics", name) for name in metrics]
    if not names or not set(names) <= set(there):
        expected = f"some of {', '.join(there)}" if there else "a metric in history"
        got = ", ".join(names) if names else "none"
        raise ValueError(f"metrics: expected {expected}, got {got}")
    epochs = history.get("epoch", range(1, len(history[names[0]]) + 1))
    for name in names:
        count = len(history[name])
        if count != len(epochs):
            raise ShapeError(f"history[{name!r}]: expected {len(epochs)} numbers, got {count}")
    ax = _axes(ax)
    for name in names:
        # A single epoch is a point, which a line alone would not show.
        ax.plot(epochs, history[name], label=name, marker="o" if len(epochs) == 1 else None)
    return _labelled(ax, "epoch", names[0] if len(names) == 1 else "")


def gates(
    layer: Recurrent,
    x: npt.ArrayLike,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    *,
    name: str = "l0",
    row: int | None = None,
    unit: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The activations of a layer's gates over time.

    Of an RNN a<t> itself; of an LSTM Γi, Γf, Γo, the candidate c~<t> and, dashed, c<t>; of a GRU
    Γr, Γu and the candidate c~<t>. A line is the mean over units and live rows; its band holds the
    middle 80 % of them. Of a single unit of a single row there is the line alone.

    Args:
        layer, x, state, lengths, mask: as for `seqrs.diagnosis.gates`, which gives the numbers.
        name: of a deep or bidirectional layer, which of its layers and directions: "l0",
            "l0_reverse", "l1" ...
        row: a row of the batch; None for all.
        unit: a hidden unit; None for all.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The Axes: a line for each gate, labelled with the textbook's letter, over t = 1 .. T.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed.
        TypeError: the layer is no RNN, LSTM or GRU, or ax are no Axes.
        ValueError: the layer has no layer and direction of that name.
        ShapeError, DTypeError: an argument does not fit; says which.
    """
    found = diagnosis.gates(layer, x, state, lengths, mask)
    if text("name", name) not in found:
        raise ValueError(f"name: expected one of {', '.join(found)}, got {name!r}")
    ax = _axes(ax)
    for gate, array in found[name].items():
        values = array if layer.batch_first else array.swapaxes(0, 1)
        values = _one_of("row", values, row, 0)
        values = _one_of("unit", values, unit, 2)
        # (T, .), where a row that is not live is NaN in every unit.
        by_step = values.swapaxes(0, 1).reshape(values.shape[1], -1)
        live = [step[~np.isnan(step)] for step in by_step]
        t = np.arange(1, len(live) + 1)
        mean = [step.mean() if step.size else np.nan for step in live]
        style = "--" if gate == "c" else "-"
        (line,) = ax.plot(t, mean, style, label=LETTERS[layer.kind][gate])
        if by_step.shape[1] > 1:
            ends = np.full((2, len(live)), np.nan)
            for each, step in zip(ends.T, live, strict=True):
                each[:] = np.quantile(step, BAND) if step.size else np.nan
            ax.fill_between(t, *ends, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set_title(_title(layer, name))
    return _labelled(ax, "t", "activation")


def gradient_flow(
    layer: Recurrent,
    x: npt.ArrayLike,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    *,
    dy: npt.ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The norm of dL/da<t> over time: vanishing and exploding gradients.

    Back through time, from the last step to the first, dL/da<t> takes on a Jacobian da<t+1>/da<t> a
    step, each with a factor W_aa (`weight_hh`). The labels have its spectral radius, for an LSTM or
    GRU that of each gate. Of an RNN the dotted line shows what that factor alone would make of the
    gradient at the last step: the norm there times radius^k, k steps before. Of an LSTM, dL/dc<t>
    is dashed: along c a step's factor is Γf, no matrix.

    Args:
        layer, x, state, lengths, mask, dy: as for `seqrs.diagnosis.gradient_flow`, which gives the
            gradients. L is the sum of each row's last live output unless `dy` is given.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The Axes, logarithmic in y: for each layer and direction the norm over all rows and units at
        t = 1 .. T. Where it is 0 there is no line.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed.
        TypeError: the layer is no RNN, LSTM or GRU, or ax are no Axes.
        ShapeError, DTypeError: an argument does not fit; says which.
    """
    found = diagnosis.gradient_flow(layer, x, state, lengths, mask, dy=dy)
    radii = diagnosis.spectral_radii(layer)
    ax = _axes(ax)
    # Before anything is drawn, so that a norm of 0 is left out and not clipped.
    ax.set_yscale("log", nonpositive="mask")
    for name, arrays in found.items():
        norms = {letter: _norms(layer, array) for letter, array in arrays.items()}
        t = np.arange(1, len(norms["a"]) + 1)
        label = f"{name}: dL/da<t>, ρ(W_hh) {_words(radii[name])}"
        (line,) = ax.plot(t, norms["a"], label=label)
        color = line.get_color()
        if "c" in norms:
            ax.plot(t, norms["c"], "--", color=color, label=f"{name}: dL/dc<t>")
        if isinstance(layer, RNN):
            away = t - 1 if name.endswith("_reverse") else len(t) - t
            at_the_last = norms["a"][away == 0]
            alone = at_the_last * radii[name]["a"] ** away
            ax.plot(t, alone, ":", color=color, label=f"{name}: ρ^k, k steps before the last")
    ax.set_title(_title(layer))
    return _labelled(ax, "t", "norm of the gradient")


def _axes(ax: Axes | None) -> Axes:
    """The Axes, or those of a new figure."""
    try:
        from matplotlib import axes, pyplot
    except ModuleNotFoundError as error:
        message = "matplotlib: expected the package (pip install 'seqrs[plot]'), got none"
        raise ModuleNotFoundError(message, name="matplotlib") from error
    if ax is None:
        return pyplot.subplots()[1]
    if not isinstance(ax, axes.Axes):
        raise TypeError(f"ax: expected the Axes of Matplotlib, got {shown(ax)}")
    return ax


def _labelled(ax: Axes, x: str, y: str) -> Axes:
    """The Axes with their words, and whole numbers for steps and epochs."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend()
    return ax


def _one_of(name: str, values: Array, index: int | None, axis: int) -> Array:
    """The values at one index of an axis, which stays; all of them if it is None."""
    if index is None:
        return values
    return values.take([integer(name, index, 0, values.shape[axis] - 1)], axis)


def _norms(layer: Recurrent, gradient: Array) -> Array:
    """At each step, over rows and units."""
    by_step = gradient.swapaxes(0, 1) if layer.batch_first else gradient
    norms: Array = np.sqrt((by_step**2).sum(axis=(1, 2)))
    return norms


def _words(radii: Mapping[str, float]) -> str:
    if list(radii) == ["a"]:
        return f"= {radii['a']:.3g}"
    return ", ".join(f"{gate} {radius:.3g}" for gate, radius in radii.items())


def _title(layer: Recurrent, name: str = "") -> str:
    sizes = f"{type(layer).__name__}({layer.input_size}, {layer.hidden_size})"
    return f"{sizes} {name}".strip()
