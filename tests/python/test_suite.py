"""The tests themselves: what tests/README.md says of them is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import tolerances
from cases import HERE

README = (HERE.parent / "README.md").read_text("utf-8")
FILES = sorted(HERE.glob("*.py"))
LAW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
LAWS = [
    (int(number), node)
    for number, _, nodes in LAW.findall(README)
    for node in re.findall(r"`([^`]+)`", nodes)
]


def nodes_of(path: Path) -> set[str]:
    """The classes and functions of a file that pytest collects, as Class, Class::test or test."""
    found = set()
    for item in ast.parse(path.read_text("utf-8")).body:
        if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
            found.add(item.name)
        if isinstance(item, ast.ClassDef) and item.name.startswith("Test"):
            own = {
                f"{item.name}::{each.name}"
                for each in item.body
                if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")
            }
            found |= own | {item.name} if own else set()
    return found


def test_every_law_has_its_tests() -> None:
    assert sorted({number for number, _ in LAWS}) == list(range(1, 13))


@pytest.mark.parametrize(("number", "node"), LAWS)
def test_the_tests_of_a_law_are_there(number: int, node: str) -> None:
    file, _, name = node.partition("::")
    assert name in nodes_of(HERE / file)


def test_every_file_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+\.py)` \|", README, re.MULTILINE))
    assert described == {path.name for path in FILES}


def test_no_test_is_hidden_by_another_of_its_name() -> None:
    for path in FILES:
        for scope in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(scope, (ast.Module, ast.ClassDef)):
                kinds = (ast.FunctionDef, ast.ClassDef)
                names = [each.name for each in scope.body if isinstance(each, kinds)]
                assert len(names) == len(set(names)), path.name


def test_the_table_of_tolerances_is_the_one_in_use() -> None:
    rows = re.findall(r"\| `([A-Z0-9_]+)` \| ([0-9.e-]+) \|", README)
    written = {name: float(number) for name, number in rows}
    assert written == {name: n for name, n in vars(tolerances).items() if name.isupper()}
    texts = [path.read_text("utf-8") for path in FILES if path.name != "tolerances.py"]
    unused = {name for name in written if not any(name in text for text in texts)}
    assert unused <= {"SAME_BITS"}, "which is what assert_same_bits is"


TOLERANT = {"rel", "abs", "atol", "rtol", "tolerance"}


def tolerances_of(call: ast.Call) -> list[ast.expr]:
    """What a call takes as its tolerance; a call that has one by default gives itself."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    function = call.func.id if isinstance(call.func, ast.Name) else function
    given = [word.value for word in call.keywords if word.arg in TOLERANT]
    if function == "assert_close":
        return given + call.args[2:3]
    if function in ("approx", "assert_allclose", "allclose", "isclose"):
        return given or [call]
    return []


def test_no_test_has_a_tolerance_of_its_own() -> None:
    for path in FILES:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            for tolerance in tolerances_of(call):
                numbers = [each for each in ast.walk(tolerance) if is_real(each)]
                assert tolerance is not call, f"{path.name}:{call.lineno}: the default of a library"
                assert not numbers, f"{path.name}:{call.lineno}: {ast.unparse(tolerance)}"


def is_real(each: ast.AST) -> bool:
    return isinstance(each, ast.Constant) and isinstance(each.value, float)
