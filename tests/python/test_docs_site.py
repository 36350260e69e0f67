"""The documentation site in docs/: what a page shows runs, what it quotes is there, nothing lacks.

The blocks of Python of a page run in order in one namespace, in a process of its own. `make docs`
builds the site itself, and is as strict about its links.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cases import python
from seqrs import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "pages"
NAMES = sorted(page.relative_to(PAGES).as_posix() for page in PAGES.rglob("*.md"))
CONFIG = (ROOT / "docs" / "mkdocs.yml").read_text("utf-8")

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?P<title>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
#: The title of a block that needs a package which `make test` does not install.
NEEDS = {' title="needs PyTorch"': "torch", ' title="needs Keras"': "keras"}
#: The title of a block of text that is what the block before prints.
GIVES = ' title="gives"'
#: What pages use that a user need not have, and how it is told from the code.
OPTIONAL = {
    "matplotlib": "seqrs.plot",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "sklearn": "sklearn",
}


def load_hooks() -> Any:
    """The module by which pages quote the sources."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load_hooks()


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    #: That of its first line of code, from 1.
    line: int
    language: str
    title: str
    code: str

    @property
    def quoted(self) -> bool:
        """Whether it is text of the sources, and nothing else."""
        lines = [line.strip() for line in self.code.splitlines() if line.strip()]
        return bool(lines) and all(line.startswith("%include ") for line in lines)

    @property
    def runs(self) -> bool:
        return self.language == "python" and not self.quoted

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    return (PAGES / page).read_text("utf-8")


def blocks_of(page: str) -> list[Block]:
    text = text_of(page)
    return [
        Block(
            page,
            text.count("\n", 0, match.start("code")) + 1,
            match["language"],
            match["title"],
            textwrap.dedent(match["code"]),
        )
        for match in FENCE.finditer(text)
    ]


BLOCKS = {page: blocks_of(page) for page in NAMES}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
WITH_PYTHON = [page for page in NAMES if any(block.runs for block in BLOCKS[page])]
WITH_OTHERS = [page for page in NAMES if any(block.title in NEEDS for block in BLOCKS[page])]

# Blocks.


def test_there_is_something_to_run() -> None:
    assert {"index.md", "start.md", "laws.md", "training.md"} <= set(WITH_PYTHON)
    assert set(WITH_OTHERS) == {"from-pytorch.md", "from-keras.md"}


def test_every_fence_is_one_of_a_block() -> None:
    for page in NAMES:
        fences = len(re.findall(r"^ *```", text_of(page), re.MULTILINE))
        assert fences == 2 * len(BLOCKS[page]), page


def rust_pages() -> set[str]:
    """The pages that the crate has compiled and run with its own examples."""
    source = (ROOT / "crates" / "seqrs" / "src" / "lib.rs").read_text("utf-8")
    return set(re.findall(r'include_str!\("\.\./\.\./\.\./docs/pages/([\w./-]+)"\)', source))


@pytest.mark.parametrize("page", NAMES)
def test_every_block_is_checked(page: str) -> None:
    checked = {"python", "sh", "text"} | ({"rust"} if page in rust_pages() else set())
    for block in BLOCKS[page]:
        if not block.quoted:
            assert "%include" not in block.code, f"{block}: expected a quotation alone"
            language = block.language or "no language"
            assert block.language in checked, f"{block}: nothing checks {language}"


def test_what_is_given_follows_what_gives_it() -> None:
    for blocks in BLOCKS.values():
        for before, block in zip([None, *blocks], blocks, strict=False):
            if block.title == GIVES:
                assert block.language == "text", block
                assert before is not None, block
                assert before.runs, block


#: Runs blocks, [line, code, what it should print or None] each, as if they were one file.
RUN = """
import contextlib, doctest, io, json, os, sys, warnings

page, folder, blocks, strict = json.loads(sys.argv[1])
os.chdir(folder)
if strict:
    warnings.simplefilter("error")
names = {"__name__": "__main__"}
for line, code, expected in blocks:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\\n" * (line - 1) + code, page, "exec"), names)
    got = printed.getvalue()
    if expected is not None:
        assert got == expected, f"{page}:{line}: expected it to print {expected!r}, got {got!r}"
"""


def run(page: str, blocks: list[Block], folder: Path, *, strict: bool) -> None:
    following = dict(zip(BLOCKS[page], BLOCKS[page][1:], strict=False))
    given: list[tuple[int, str, str | None]] = []
    for block in blocks:
        after = following.get(block)
        expected = after.code if after is not None and after.title == GIVES else None
        given.append((block.line, block.code, expected))
    words = json.dumps([f"docs/pages/{page}", str(folder), given, strict])
    done = python(RUN, words, env={"KERAS_BACKEND": "torch"}, timeout=300)
    assert done.returncode == 0, done.stderr


def skip_without(name: str) -> None:
    # It is looked for, not imported: Keras has to be told its backend, which `run` does.
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_pages_run(page: str, tmp_path: Path) -> None:
    blocks = [each for each in BLOCKS[page] if each.runs and each.title not in NEEDS]
    for name, sign in OPTIONAL.items():
        if any(re.search(rf"\b{sign}\b", block.code) for block in blocks):
            skip_without(name)
    run(page, blocks, tmp_path, strict=True)


@pytest.mark.interop
@pytest.mark.parametrize("page", WITH_OTHERS)
def test_pages_run_with_other_libraries(page: str, tmp_path: Path) -> None:
    blocks = [each for each in BLOCKS[page] if each.runs]
    for name in sorted({NEEDS[block.title] for block in blocks if block.title in NEEDS}):
        skip_without(name)
    run(page, blocks, tmp_path, strict=False)


# Quotations.

LANGUAGES = {".py": "python", ".rs": "rust", ".wgsl": "wgsl"}
INCLUDES = [
    pytest.param(page, match["what"], id=f"{page}: {match['what']}")
    for page in NAMES
    for match in hooks.INCLUDE.finditer(text_of(page))
]


@pytest.mark.parametrize(("page", "what"), INCLUDES)
def test_what_is_quoted_is_there(page: str, what: str) -> None:
    assert hooks.included(what).strip()


def test_code_is_quoted_in_its_language() -> None:
    for block in filter(lambda block: block.quoted, ALL):
        for found in hooks.INCLUDE.finditer(block.code):
            path = found["what"].split(" > ")[0]
            assert LANGUAGES[Path(path).suffix] == block.language, block


def test_parts_of_files() -> None:
    lstm = "crates/seqrs-core/src/cell/lstm.rs"
    assert hooks.included(f"{lstm} > fn forward").startswith("fn forward<V: Lanes>(\n    self,\n")
    assert hooks.included(f"{lstm} > fn forward").endswith("\n}")
    reference = "python/seqrs/reference/lstm.py"
    cell = hooks.included(f"{reference} > class LstmCell")
    assert cell.startswith("class LstmCell(")
    assert "PeepholeCell" not in cell
    assert hooks.included("README.md > <!-- speed -->").startswith("Medians from Python")
    assert "](" not in hooks.included("README.md > <!-- speed -->")
    assert hooks.included("crates/README.md > ## To add a cell").startswith("1. ")
    for wrong in (f"{lstm} > fn nothing", "no/file.rs", "README.md > ## Nothing"):
        with pytest.raises(ValueError, match="%include"):
            hooks.included(wrong)


# Commands.

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(MAKEFILE.replace("\\\n", "").split(".PHONY:")[1].split("\n")[0].split())
EXTRAS = set(
    re.findall(
        r"^(\w+) = \[",
        (ROOT / "pyproject.toml")
        .read_text("utf-8")
        .split("[project.optional-dependencies]\n")[1]
        .split("\n[")[0],
        re.MULTILINE,
    )
)
#: What a process may be told by its environment.
VARIABLES = {
    name
    for folder, ending in (("crates", "rs"), ("python", "py"))
    for source in (ROOT / folder).rglob(f"*.{ending}")
    for name in re.findall(r"\bSEQRS_\w+", source.read_text("utf-8"))
}


def checked_make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    assert targets
    assert set(targets) <= TARGETS


def checked_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        extras = re.fullmatch(r"seqrs\[([\w,]+)\]", word)
        assert word == "dist/seqrs-*.whl" or (extras and set(extras[1].split(",")) <= EXTRAS), word


def checked_seqrs(words: list[str]) -> None:
    # It exits where it does not know the words, and after --version and --help.
    try:
        cli._parser().parse_args(words)
        code: Any = 0
    except SystemExit as exit_:
        code = exit_.code
    assert not code, words


def checked_cargo(words: list[str]) -> None:
    assert words[0] in ("run", "test", "doc")
    name = words[words.index("--package") + 1]
    package = ROOT / "examples" if name == "seqrs-examples" else ROOT / "crates" / name
    assert f'name = "{name}"' in (package / "Cargo.toml").read_text("utf-8")
    if "--example" in words:
        assert (package / "examples" / f"{words[words.index('--example') + 1]}.rs").exists()
    if "--bin" in words:
        assert (package / f"{words[words.index('--bin') + 1]}.rs").exists()


CHECKS = {
    "cargo": checked_cargo,
    "make": checked_make,
    "pip": checked_pip,
    "seqrs": checked_seqrs,
}


@pytest.mark.parametrize("page", NAMES)
def test_commands_are_there(page: str) -> None:
    for block in filter(lambda block: block.language == "sh", BLOCKS[page]):
        for line in filter(str.strip, block.code.splitlines()):
            command, *words = shlex.split(line, comments=True)
            assert command in CHECKS, f"{block}: nothing checks {command}"
            CHECKS[command](words)


def test_commands_that_are_not_there_are_seen() -> None:
    for command, words in (
        ("make", ["dosc"]),
        ("pip", ["install", "seqrs[tensorflow]"]),
        ("seqrs", ["train", "--txet", "book.txt"]),
        ("cargo", ["run", "--package", "seqrs", "--example", "none"]),
        ("cargo", ["run", "--package", "seqrs-examples", "--bin", "none"]),
    ):
        with pytest.raises(AssertionError):
            CHECKS[command](words)


@pytest.mark.parametrize("page", NAMES)
def test_commands_within_text_are_there(page: str) -> None:
    text = text_of(page)
    assert set(re.findall(r"`make ([\w-]+)", text)) <= TARGETS
    assert set(re.findall(r"seqrs\[(\w+)\]", text)) <= EXTRAS
    assert set(re.findall(r"\bSEQRS_\w+", text)) <= VARIABLES


def test_every_extra_is_told_of() -> None:
    assert set(re.findall(r"seqrs\[(\w+)\]", text_of("start.md"))) == EXTRAS


def test_the_page_of_the_command_has_every_option() -> None:
    sections = re.split(r"^## seqrs (\w+)$", text_of("reference/cli.md"), flags=re.MULTILINE)
    written = {
        command: set(re.findall(r"^\| `(--[\w-]+)` \|", section, re.MULTILINE))
        for command, section in zip(sections[1::2], sections[2::2], strict=True)
    }
    (commands,) = (
        action.choices
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    found = {
        command: {name for each in parser._actions for name in each.option_strings}
        - {"-h", "--help"}
        for command, parser in commands.items()
    }
    assert written == found


# The site.


def test_the_navigation_has_every_page() -> None:
    in_navigation = re.findall(r"^ +- [^:\n]+: ([\w./-]+\.md)$", CONFIG, re.MULTILINE)
    assert sorted(in_navigation) == NAMES


def test_links_between_pages_lead_somewhere() -> None:
    for page in NAMES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
            # The documentation of the crates is there once it is built, which `make docs` checks.
            if "://" not in target and not target.startswith("rust/"):
                assert ((PAGES / page).parent / target).exists(), f"{page}: {target}"


def test_the_laws_name_their_tests() -> None:
    table = re.findall(
        r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$",
        (ROOT / "tests" / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    sections = re.split(r"^## (\d+)\. .*$", text_of("laws.md"), flags=re.MULTILINE)
    nodes = re.compile(r"`(test_\w+\.py::[\w:]+)`")
    named = {
        number: nodes.findall(section)
        for number, section in zip(sections[1::2], sections[2::2], strict=True)
    }
    assert named == {number: nodes.findall(tests) for number, tests in table}


# The reference.

#: Where public names are, besides in `seqrs` itself.
MODULES = (
    "callbacks",
    "data",
    "diagnosis",
    "errors",
    "gpu",
    "losses",
    "onnx",
    "onnx.backend",
    "optimizers",
    "plot",
    "prometheus",
    "reference",
    "schedules",
    "sklearn",
    "threads",
    "torch",
    "wgpu",
)
ENTRY = re.compile(
    r"^::: ([\w.]+)$(?:\n    options:)?(?:\n      heading: (seqrs[\w.]+))?", re.MULTILINE
)
#: What is documented, by the name that a reader sees; and what is read for it.
DOCUMENTED = {
    heading or identifier: identifier
    for page in NAMES
    for identifier, heading in ENTRY.findall(text_of(page))
}


def public_names(module: str) -> list[str]:
    """`__all__` of a module, without importing it, as some need packages."""
    path = ROOT / "python" / "seqrs" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for item in ast.parse(file.read_text("utf-8")).body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(item.value)
            return [name for name in names if not name.startswith("__")]
    raise AssertionError(module)


@pytest.mark.parametrize("module", ["", *MODULES])
def test_the_reference_has_every_public_name(module: str) -> None:
    place = f"seqrs.{module}" if module else "seqrs"
    names = public_names(module)
    lacking = [n for n in names if not {f"{place}.{n}", f"seqrs.{n}"} & set(DOCUMENTED)]
    assert not lacking, f"{place}: docs/pages/reference has no `::: {place}.{lacking[0]}`"


def test_the_modules_with_public_names_are_all_of_them() -> None:
    folder = ROOT / "python" / "seqrs"
    found = {n for n in public_names("") if (folder / n).is_dir() or (folder / f"{n}.py").exists()}
    # Of checkpoints a user has one class; the rest is what `fit` is made of.
    assert "seqrs.checkpoints.Checkpoints" in DOCUMENTED
    assert found <= {*MODULES, "checkpoints"}


def test_what_the_reference_names_is_there() -> None:
    for identifier in DOCUMENTED.values():
        first, *rest = identifier.split(".")
        if rest[0] in ("torch", "sklearn") and importlib.util.find_spec(rest[0]) is None:
            continue  # They are subclasses of what is not there; `make docs` reads the sources.
        value: Any = importlib.import_module(first)
        for depth, part in enumerate(rest, 1):
            # A function may have the name of the module that it is in.
            try:
                value = importlib.import_module(".".join([first, *rest[:depth]]))
            except ModuleNotFoundError:
                value = getattr(value, part)
