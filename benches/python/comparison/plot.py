"""A record as a picture: one panel for each family of cases, logarithmic.

Over sizes and numbers of rows, times are drawn over the least that the machine needs, so that 1 is
its limit and the distance between two lines is their ratio wherever they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from comparison import tables

mpl.use("Agg")

Record = dict[str, Any]

#: Distinguishable without colours too.
STYLES = {
    "seqrs": {"color": "#c1121f", "marker": "o", "linewidth": 2.4, "zorder": 5},
    "PyTorch": {"color": "#e07a1f", "marker": "s"},
    "PyTorch, cell": {"color": "#e07a1f", "marker": "D", "linestyle": "--"},
    "PyTorch, step by step": {"color": "#e07a1f", "marker": "D", "linestyle": "--"},
    "PyTorch, packed": {"color": "#e07a1f", "marker": "s"},
    "PyTorch, padded": {"color": "#b5651d", "marker": "D"},
    "ONNX Runtime": {"color": "#2a6fb0", "marker": "^"},
    "OpenVINO": {"color": "#6a4c93", "marker": "v"},
    "OpenVINO, padded": {"color": "#6a4c93", "marker": "v"},
    "tract": {"color": "#4a8c5c", "marker": "x"},
    "seqrs, every step live": {"color": "#e5989b", "marker": "o"},
    "seqrs, next multiple of 16": {"color": "#e5989b", "marker": "o"},
}

#: Title, pattern of the case names with the x value in it, and what x is.
CURVES = (
    ("one step of one row", r"step/CELL/h(\d+)", "units"),
    ("one row", r"infer/CELL/b1/h(\d+)(?:/t\d+)?", "units"),
    ("32 rows", r"infer/CELL/b32/h(\d+)(?:/t\d+)?", "units"),
    ("128 units, over rows", r"infer/CELL/b(\d+)/h128", "rows"),
    ("256 units, over rows", r"infer/CELL/b(\d+)/h256", "rows"),
    ("training, one row", r"train/CELL/b1/h(\d+)(?:/t\d+)?", "units"),
    ("training, 32 rows", r"train/CELL/b32/h(\d+)(?:/t\d+)?", "units"),
    ("training, 128 units, over rows", r"train/CELL/b(\d+)/h128", "rows"),
    ("training, 256 units, over rows", r"train/CELL/b(\d+)/h256", "rows"),
)
CELLS = {"lstm": "LSTM", "gru": "GRU"}
#: Cases that are no point of a curve, as bars.
BARS = r"ragged/.*|half/.*|train/characters|.*/rnn/.*|.*/gru-before/.*"
ODD = r"odd/(infer|train)/(lstm|gru)/b(\d+)/h(\d+)"


def plot(record: Record, file: Path) -> None:
    records = [each for each in record["records"] if "seqrs" in each["seconds"]]
    threads = sorted({each["threads"] for each in records})
    panels = [
        (f"{CELLS[cell]}: {title}", found, unit, count)
        for title, pattern, unit in CURVES
        for cell in CELLS
        for count in threads
        if (found := points(records, re.compile(pattern.replace("CELL", cell)), count))
    ]
    columns = len(CELLS) * len(threads)
    rows = -(-len(panels) // columns) if columns else 0
    odd = [each for each in records if re.fullmatch(ODD, each["case"])]
    others = [each for each in records if re.fullmatch(BARS, each["case"])]
    # The three parts have margins of their own: the names of cases are long.
    heights = {
        "curves": 2.3 * rows,
        "odd": 3.0 if odd else 0.0,
        "others": 0.15 * (len(others) / len(threads) + 5) if others else 0.0,
    }
    heights = {part: height for part, height in heights.items() if height}
    if not heights:
        return
    figure = Figure(figsize=(4.4 * columns, sum(heights.values()) + 1.2), layout="constrained")
    about = record["machine"]
    figure.suptitle(
        "time of a call over the least that the machine needs; at 1 is its limit\n"
        f"{about['processor']}, {about['level']}, {about['date']}",
        fontsize=12,
    )
    parts = figure.subfigures(
        len(heights), 1, height_ratios=list(heights.values()), squeeze=False
    ).flat
    for part, space in zip(heights, parts, strict=True):
        if part == "curves":
            grid = space.add_gridspec(rows, columns)
            for number, (title, found, unit, count) in enumerate(panels):
                axes = space.add_subplot(grid[number // columns, number % columns])
                curve(axes, found)
                axes.set_title(f"{title}, {on(count)}", fontsize=9)
                axes.set_xlabel(unit, fontsize=8)
            continue
        draw, title, chosen = {
            "odd": (odd_sizes, "odd sizes", odd),
            "others": (other_cases, "other cases", others),
        }[part]
        for axes, count in zip(
            space.subplots(1, len(threads), squeeze=False).flat, threads, strict=True
        ):
            draw(axes, [each for each in chosen if each["threads"] == count])
            axes.set_title(f"{title}, {on(count)}", fontsize=9)
    legend(figure)
    figure.savefig(file, dpi=100)


def on(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def points(records: list[Record], pattern: re.Pattern[str], threads: int) -> list[Any]:
    """(x, record), in the order of x."""
    found = []
    for each in records:
        matched = pattern.fullmatch(each["case"])
        if matched and each["threads"] == threads:
            found.append((int(matched[1]), each))
    return sorted(found, key=lambda point: point[0])


def over_least(each: Record) -> Callable[[float], float]:
    """Times over the least; in microseconds where the limits are not known."""
    least = each.get("least")
    return lambda seconds: seconds / least if least else seconds * 1e6


def curve(axes: Axes, found: list[tuple[int, Record]]) -> None:
    xs = [x for x, _ in found]
    names = dict.fromkeys(name for _, each in found for name in each["seconds"])
    for name in names:
        known = [(x, each) for x, each in found if name in each["seconds"]]
        ys = [over_least(each)(each["seconds"][name]) for _, each in known]
        style = dict(STYLES.get(name, {}))
        if len(known) < len(xs):
            # Between its points it was not measured.
            style |= {"linestyle": ":", "linewidth": 0.8}
        axes.plot([x for x, _ in known], ys, label=name, markersize=4, **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.xaxis.set_minor_locator(NullLocator())
    logarithmic(axes)
    axes.tick_params(axis="x", labelsize=6)


def logarithmic(axes: Axes, of: str = "y") -> None:
    axis = axes.yaxis if of == "y" else axes.xaxis
    (axes.set_yscale if of == "y" else axes.set_xscale)("log")
    low, high = axes.get_ylim() if of == "y" else axes.get_xlim()
    low = min(low, 0.93)
    (axes.set_ylim if of == "y" else axes.set_xlim)(low, high)
    # So many that some are in sight, and so few that they do not touch.
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    if high / low < 6:
        ticks += [0.5, 0.6, 0.7, 0.8, 1.2, 1.5, 3, 4]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.35)
    line = axes.axhline if of == "y" else axes.axvline
    line(1, color="black", linestyle="--", linewidth=1)


def odd_sizes(axes: Axes, found: list[Record]) -> None:
    """Over the time of the next multiple of 16."""
    series: dict[str, list[tuple[int, float]]] = {}
    for each in found:
        matched = re.fullmatch(ODD, each["case"])
        ratio = each["ratio"].get("seqrs, next multiple of 16")
        if matched and ratio:
            form, cell, rows, hidden = matched.groups()
            name = f"{form} {CELLS[cell]}, {rows} row{'s' * (rows != '1')}"
            series.setdefault(name, []).append((int(hidden), ratio))
    for name, known in series.items():
        axes.plot(*zip(*sorted(known), strict=True), marker="o", markersize=4, label=name)
    axes.axhline(1.15, color="grey", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    sizes = sorted({hidden for known in series.values() for hidden, _ in known})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("time / next multiple of 16's", fontsize=8)
    logarithmic(axes)
    axes.legend(fontsize=7, ncols=2)


def other_cases(axes: Axes, found: list[Record]) -> None:
    """A line for each, with the seconds of seqrs."""
    found = sorted(found, key=lambda each: natural(each["case"]))
    for y, each in enumerate(reversed(found)):
        scaled = over_least(each)
        for name, seconds in each["seconds"].items():
            style = STYLES.get(name, {})
            axes.plot(
                scaled(seconds),
                y,
                marker=style.get("marker", "o"),
                color=style.get("color"),
                ls="",
                markersize=4.5,
                label=name,
            )
        xs = [scaled(seconds) for seconds in each["seconds"].values()]
        axes.hlines(y, min(xs), max(xs), color="#cccccc", zorder=0)
    labels = [f"{each['case']}  {tables.duration(each['seconds']['seqrs'])}" for each in found]
    axes.set_yticks(range(len(found)), labels[::-1])
    logarithmic(axes, of="x")


def natural(name: str) -> list[Any]:
    """So that h64 stands before h128."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def legend(figure: Figure) -> None:
    """One for all panels."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label in STYLES:
                found.setdefault(label, handle)
    figure.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=len(found), fontsize=9
    )
