"""A record in Markdown."""

from __future__ import annotations

from typing import Any

from comparison.roofline import Limits

#: Rows of the README's table: what, and the case.
README = (
    ("one step of an LSTM, 64 units", "step/lstm/h64"),
    ("one step of an LSTM, 256 units", "step/lstm/h256"),
    ("LSTM 128, one row of 100 steps", "infer/lstm/b1/h128"),
    ("LSTM 512, one row of 100 steps", "infer/lstm/b1/h512"),
    ("LSTM 256, 32 rows of 100 steps", "infer/lstm/b32/h256"),
    ("GRU 256, 32 rows of 100 steps", "infer/gru/b32/h256"),
    ("training LSTM 256, forward and backward", "train/lstm/b32/h256"),
    ("training GRU 256, forward and backward", "train/gru/b32/h256"),
    ("training LSTM 256, lengths from 1 to 100", "ragged/train/lstm/b32/h256"),
    ("training step of a character model", "train/characters"),
)
#: The README's columns: a library, and its contenders, of which the fastest is shown.
COLUMNS = {
    "PyTorch": ("PyTorch", "PyTorch, cell", "PyTorch, packed", "PyTorch, padded"),
    "ONNX Runtime": ("ONNX Runtime",),
    "OpenVINO": ("OpenVINO",),
    "tract": ("tract",),
}
DISTRIBUTIONS = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def duration(seconds: float) -> str:
    value, unit = (seconds * 1e3, "ms") if seconds >= 1e-2 else (seconds * 1e6, "us")
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def rows_of(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def times(records: list[dict[str, Any]], before: dict[tuple[str, int], Any]) -> str:
    """A table for each set of contenders; each number of threads after the other."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record["seconds"]), []).append(record)
    return "\n\n".join(
        times_of_group(names, sorted(group, key=lambda record: record["threads"]), before)
        for names, group in groups.items()
        if names
    )


def times_of_group(
    names: tuple[str, ...],
    group: list[dict[str, Any]],
    before: dict[tuple[str, int], Any],
) -> str:
    first, *others = names
    heads = ["case", "threads", first]
    shares = any("share" in record for record in group)
    if shares:
        heads.append("of the roofline")
    for name in others:
        heads += [name, "ratio"]
    if before:
        heads.append("seqrs before")
    rows = []
    for record in group:
        seconds, ratio = record["seconds"], record["ratio"]
        cells = [record["case"], str(record["threads"]), duration(seconds[first])]
        if shares:
            cells.append(percent(record.get("share")))
        for name in others:
            cells += [duration(seconds[name]), f"{ratio[name]:.2f}" if ratio else ""]
        if before:
            old = before.get((record["case"], record["threads"]), {}).get("seconds", {})
            if "seqrs" in old and first == "seqrs":
                change = seconds[first] / old["seqrs"]
                cells.append(f"{duration(old['seqrs'])} ({change:.2f} x)")
            else:
                cells.append("")
        rows.append(cells)
    return rows_of(heads, rows)


def goals(outcomes: list[dict[str, Any]]) -> str:
    """What is not met first."""
    rows = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome["met"]):
        bound, measured = outcome["bound"], outcome["measured"]
        against = outcome["against"]
        texts = {
            "RATIO": (f"<= {bound:.2f} x {against}", f"{measured:.2f}"),
            "TIME": (f"<= {duration(bound)}", duration(measured)),
            "SHARE": (f">= {bound:.0%} of the roofline", f"{measured:.0%}"),
            "THREADS": (f">= {bound:.1f} x one thread's speed", f"{measured:.2f}"),
            "ROWS": (f"<= {bound:.1f} x half the rows", f"{measured:.2f}"),
        }
        rows.append(
            [
                outcome["goal"],
                outcome["case"],
                str(outcome["threads"]),
                *texts[outcome["measure"]],
                "yes" if outcome["met"] else "**no**",
                percent(outcome["share"]),
            ]
        )
    heads = ["about", "case", "threads", "goal", "measured", "met", "of the roofline"]
    met = sum(outcome["met"] for outcome in outcomes)
    return f"{rows_of(heads, rows)}\n\n{met} of {len(outcomes)} goals are met."


def readme(record: dict[str, Any]) -> str:
    """The README's table."""
    known = {(each["case"], each["threads"]): each for each in record["records"]}
    # An older record may lack a library.
    versions = {
        name: ".".join(version.split(".")[:2])
        for name in COLUMNS
        if (version := record["machine"].get(DISTRIBUTIONS.get(name, name)))
    }
    rows = []
    for what, case in README:
        for threads in sorted({threads for name, threads in known if name == case}):
            each = known[case, threads]
            cells = [what, str(threads), duration(each["seconds"]["seqrs"])]
            for library in versions:
                found = [name for name in COLUMNS[library] if name in each["seconds"]]
                best = min(found, key=each["seconds"].__getitem__, default=None)
                cells.append(
                    f"{duration(each['seconds'][best])} ({each['ratio'][best]:.2f})" if best else ""
                )
            rows.append(cells)
    heads = ["what", "threads", "seqrs", *(f"{k} {v}" for k, v in versions.items())]
    return rows_of(heads, rows)


def everything(record: dict[str, Any], before: dict[tuple[str, int], Any]) -> str:
    about = record["machine"]
    libraries = ", ".join(
        f"{name} {about[name]}"
        for name in ("numpy", "torch", "onnxruntime", "openvino", "tract")
        if name in about
    )
    parts = [
        f"{about['date']}: {about['processors']} processors, {about['processor']} "
        f"(level {about['level']}), {about['system']}, Python {about['python']}, {libraries}.",
    ]
    if record.get("limits"):
        parts.append(limits(Limits.of_record(record["limits"])))
    parts.append(times(record["records"], before))
    if record.get("goals"):
        parts.append(goals(record["goals"]))
    return "\n\n".join(parts)


def limits(found: Limits) -> str:
    sizes = (16 << 10, 256 << 10, 4 << 20, 128 << 20)
    heads = ["threads", "f32 multiply-adds", "16 KiB", "256 KiB", "4 MiB", "128 MiB"]
    rows = []
    for threads, flops in found.flops.items():
        cells = [f"{found.bytes[threads][size] / 1e9:.0f} GB/s" for size in sizes]
        rows.append([str(threads), f"{flops / 1e9:.0f} GFLOP/s", *cells])
    return rows_of(heads, rows)
