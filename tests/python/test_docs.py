"""What the documentation shows runs: Python in README.md, and examples of docstrings."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import character_model, id_batches, python
from test_wgpu import device_or_skip

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"^```python[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SNIPPETS = [
    pytest.param(snippet, id=f"README.md-{number}")
    for number, snippet in enumerate(FENCE.findall(README.read_text("utf-8")), 1)
]
#: Packages that README.md may use and that need not be installed.
OPTIONAL = ("torch", "onnx", "onnxruntime", "gradio", "matplotlib", "prometheus_client")


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(snippet: str, tmp_path: Path) -> None:
    for name in OPTIONAL:
        if re.search(rf"^\s*(import|from) {name}\b", snippet, re.MULTILINE):
            pytest.importorskip(name, reason=f"{name} is not installed")
    code = f"import os; os.chdir({os.fspath(tmp_path)!r})\n{snippet}"
    found = python(code, timeout=120)
    assert found.returncode == 0, f"{snippet}\n{found.stderr}"


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 1


def test_links_between_pages_lead_somewhere() -> None:
    for page in (README, ROOT / "tests" / "README.md", ROOT / "crates" / "README.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def modules() -> list[str]:
    found = ["seqrs"]
    for each in pkgutil.walk_packages(seqrs.__path__, "seqrs."):
        if not each.name.endswith(("__main__", "_seqrs")):
            found.append(each.name)
    return found


class AnyOutputWhereNoneIsShown(doctest.OutputChecker):
    """An example that shows no output is run; one that shows it is compared."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return want == "" or super().check_output(want, got, optionflags)


def names_of_examples(module: str) -> dict[str, Any]:
    """What the examples of a module take for granted."""
    random = np.random.default_rng(0)
    inputs = 4 if module == "seqrs.reference" else 8
    width = 16 if module == "seqrs.reference" else 32
    names: dict[str, Any] = {
        "seqrs": seqrs,
        "np": np,
        "x": random.normal(size=(2, 5, inputs)),
        "dy": np.ones((2, 5, width)),
    }
    if module == "seqrs.training":
        (x, y), *_ = id_batches(1)
        names |= {"x": x, "y": y, "model": character_model()}
        names |= {"train": id_batches(2), "held_out": id_batches(1)}
    if module == "seqrs.streams":
        names |= {"model": seqrs.LSTM(8, 4), "x": names["x"][:, 0]}
    if module == "seqrs.prometheus":
        names["prometheus_client"] = pytest.importorskip("prometheus_client")
        model = seqrs.Sequential([seqrs.LSTM(8, 16)])
        names |= {"batcher": seqrs.Batcher(model), "pool": seqrs.StreamPool(model)}
    if module == "seqrs.wgpu":
        names["device"] = device_or_skip()
    return names


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(AnyOutputWhereNoneIsShown(), optionflags=flags)
    report: list[str] = []
    for test in doctest.DocTestFinder().find(module, name, extraglobs=names_of_examples(name)):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_everything_public_has_a_docstring() -> None:
    for name in seqrs.__all__:
        value = getattr(seqrs, name)
        if name.startswith("__"):
            continue
        assert value.__doc__, name
        if isinstance(value, type):
            for member, item in vars(value).items():
                if not member.startswith("_") and (callable(item) or isinstance(item, property)):
                    assert item.__doc__, f"{name}.{member}"


def test_everything_public_can_be_had() -> None:
    for name in seqrs.__all__:
        assert getattr(seqrs, name) is not None
        assert name in dir(seqrs)
