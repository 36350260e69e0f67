"""What the site's pages are made with, besides MkDocs: text of other files, and plain brackets.

A line `%include PATH` stands for the text of a file of the repository, and `%include PATH > ITEM >
ITEM` for a part of it, so that no page holds a copy that could grow old. An item is one of

    words           in code: the first line that has these words in this order, to the end of its
                    block; the next item is looked for inside it
    ## Heading      in Markdown: what stands below the heading, to the next one of its rank
    <!-- name -->   in Markdown: what stands between <!-- name:begin --> and <!-- name:end -->

`included` is used by the tests too, which need no MkDocs.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: What a page would load, and not only lead to.
_LOADED_FROM_ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
)
INCLUDE = re.compile(r"^(?P<indent> *)%include (?P<what>\S.*)$", re.MULTILINE)
#: A link of Markdown to a place in the repository, which is none of the site.
_LOCAL_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)[^)]+\)")


def included(what: str) -> str:
    """The text that `%include WHAT` stands for.

    Raises:
        ValueError: there is no such file, or no such item in it; says which.
    """
    path, *items = (part.strip() for part in what.split(" > "))
    if not (ROOT / path).is_file():
        raise ValueError(f"%include {what}: expected a file of the repository, got {path}")
    text = (ROOT / path).read_text("utf-8")
    for item in items:
        found = _part(text, item)
        if not found.strip():
            raise ValueError(f"%include {what}: expected {item!r} in {path}, got nothing")
        text = found
    if path.endswith(".md"):
        text = _LOCAL_LINK.sub(r"\1", text)
    return textwrap.dedent(text).strip("\n")


def _part(text: str, item: str) -> str:
    """An item of a text; empty if it is not there."""
    if name := re.fullmatch(r"<!-- (\w+) -->", item):
        between = f"<!-- {name[1]}:begin -->\n(.*?)<!-- {name[1]}:end -->"
        found = re.search(between, text, re.DOTALL)
        return found[1] if found else ""
    if item.startswith("#"):
        marks = item.split()[0]
        below = rf"^{re.escape(item)}\n(.*?)(?=^#{{1,{len(marks)}}} |\Z)"
        found = re.search(below, text, re.DOTALL | re.MULTILINE)
        return found[1] if found else ""
    words = (rf"(?<!\w){re.escape(word)}(?!\w)" for word in item.split())
    return _block(text.splitlines(), re.compile(".*".join(words)))


def _block(lines: list[str], words: re.Pattern[str]) -> str:
    """The first line with the words, and what belongs to it: what is indented, what closes it."""
    start = next((k for k, line in enumerate(lines) if words.search(line)), None)
    if start is None:
        return ""
    indent = _indent(lines[start])
    end = start + 1
    while end < len(lines):
        line = lines[end]
        if line.strip() and _indent(line) <= indent and line.lstrip()[0] not in ")]}":
            break
        end += 1
    return "\n".join(lines[start:end]).rstrip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


# What MkDocs calls.


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts texts in the place of the lines that stand for them."""
    return INCLUDE.sub(lambda m: textwrap.indent(included(m["what"]), m["indent"]), markdown)


def on_config(config: Any, **_: Any) -> Any:
    """Has pages and docstrings read by the rules below too."""
    from markdown import Extension
    from markdown.preprocessors import Preprocessor

    class Examples(Preprocessor):
        """Examples of docstrings as code: from a line that begins with >>> to a blank one."""

        def run(self, lines: list[str]) -> list[str]:
            found: list[str] = []
            fenced = example = False
            for line in [*lines, ""]:
                fenced ^= line.lstrip().startswith("```")
                if line.startswith(">>> ") and not fenced and not example:
                    found.append("```pycon")
                    example = True
                elif example and not line.strip():
                    found.append("```")
                    example = False
                found.append(line)
            return found

    class Plain(Extension):
        """`a<t>` is the state at step t, and no HTML."""

        def extendMarkdown(self, md: Any) -> None:  # noqa: N802
            md.preprocessors.deregister("html_block")
            md.inlinePatterns.deregister("html")
            # Before code in fences is looked for, at 25.
            md.preprocessors.register(Examples(md), "examples", 29)

    config.markdown_extensions.append(Plain())
    return config


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Lets pages link to the documentation of the crates, in `rust/`."""
    from mkdocs.structure.files import File

    folder = _rustdoc()
    for path in sorted(folder.glob("*/index.html")) if folder else ():
        uri = f"rust/{path.parent.name}/index.html"
        files.append(File.generated(config, uri, abs_src_path=os.fspath(path)))
    return files


def on_post_build(config: Any, **_: Any) -> None:
    """Takes it into the site."""
    if folder := _rustdoc():
        shutil.copytree(folder, Path(config.site_dir) / "rust", dirs_exist_ok=True)


def _rustdoc() -> Path | None:
    """Where cargo has left the documentation of the crates."""
    folder = os.environ.get("SEQRS_RUSTDOC")
    return Path(folder).resolve() if folder else None


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuses a page that would load something from elsewhere.

    Raises:
        ValueError: it would; says what.
    """
    if found := _LOADED_FROM_ELSEWHERE.search(output):
        raise ValueError(f"{page.file.src_uri}: expected nothing from elsewhere, got {found[0]}")
    return output
