"""What mkdocstrings reads of the sources, besides docstrings as Google's style has them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Docstring, Extension

_RETURNS = re.compile(r"^(Returns:\n +)", re.MULTILINE)


class Docstrings(Extension):
    """Comments that begin with `#:` above an attribute, and sections Returns that are sentences."""

    def on_attribute_instance(self, *, attr: Any, **_: Any) -> None:
        """Takes the comment above an attribute as its docstring."""
        if attr.docstring or not attr.lineno:
            return
        lines, end = _lines(attr.filepath), attr.lineno - 1
        begin = end
        while begin and lines[begin - 1].lstrip().startswith("#:"):
            begin -= 1
        if begin < end:
            comment = "\n".join(
                line.lstrip().removeprefix("#:").strip() for line in lines[begin:end]
            )
            attr.docstring = Docstring(comment, parent=attr)

    def on_function_instance(self, *, func: Any, **_: Any) -> None:
        """Says that what stands before a colon in Returns is no type: the signature has it."""
        if func.docstring:
            func.docstring.value = _RETURNS.sub(r"\1: ", func.docstring.value)


@cache
def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()
