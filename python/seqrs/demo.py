"""The text of `seqrs demo`: the sources of Python's own standard library, which every machine has.

The same Python gives the same text: whole files, in an order drawn from their names, a few of them
held out.
"""

from __future__ import annotations

import os
import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path

from .characters import Texts

__all__ = ["LEARNING_RATE", "PROMPT", "Library", "standard_library"]

#: What the samples begin with: the top of a function.
PROMPT = "def "

#: The largest one of the schedule. Measured for this model and text after 1000 updates, bits per
#: character held out: 2.07 with 4e-3, 1.94 with 8e-3.
LEARNING_RATE = 8e-3

#: Packages that are no good example: tests, tables, generated or third-party text.
LEFT_OUT = frozenset(
    {"__pycache__", "dist-packages", "encodings", "ensurepip", "idle_test", "lib2to3", "msilib",
     "pydoc_data", "site-packages", "test", "tests", "turtledemo"}
)  # fmt: skip
#: One file in so many is held out.
HELD_OUT_ONE_IN = 20
#: More than a few minutes of training read; and what a final look at takes about a second.
MOST_TRAIN, MOST_HELD_OUT = 8_000_000, 200_000


@dataclass(frozen=True)
class Library:
    """The text, and what it is made of."""

    texts: Texts
    train_files: int
    held_out_files: int
    directory: str


def standard_library(directory: str | None = None) -> Library:
    """Read the sources.

    Raises:
        FileNotFoundError: this Python has none, as where it is packed into one file.
    """
    root = Path(sysconfig.get_paths()["stdlib"] if directory is None else directory)
    train: list[bytes] = []
    held_out: list[bytes] = []
    for _, path in sorted(_ranked(root)):
        text = _source(path)
        if text is None:
            continue
        name = path.relative_to(root).as_posix()
        chosen, most = (
            (held_out, MOST_HELD_OUT)
            if zlib.crc32(b"held out " + name.encode()) % HELD_OUT_ONE_IN == 0
            else (train, MOST_TRAIN)
        )
        if sum(map(len, chosen)) + len(text) <= most:
            chosen.append(text)
    if not train or not held_out:
        raise FileNotFoundError(
            f"demo: expected the sources of Python's standard library in {root}, got "
            f"{len(train) + len(held_out)} files; use: seqrs train --text FILE"
        )
    return Library(
        Texts(b"\n".join(train), b"\n".join(held_out)), len(train), len(held_out), str(root)
    )


def _ranked(root: Path) -> list[tuple[int, Path]]:
    """Every source below `root`, with a number that follows from its name."""
    found: list[tuple[int, Path]] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                rank = zlib.crc32(path.relative_to(root).as_posix().encode("utf-8", "replace"))
                found.append((rank, path))
    return found


def _source(path: Path) -> bytes | None:
    """The file's text with \\n at the ends of lines, where it is readable ASCII."""
    try:
        text = path.read_bytes()
    except OSError:
        return None
    return text.replace(b"\r\n", b"\n") if text.isascii() else None
