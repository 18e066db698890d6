"""Rules that neither ruff nor the import linter can check: what is read cannot run code, and no test is skipped."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import needs_torch

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for name in ("shared", "services", "cli", "examples") for path in (ROOT / name).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
SKIPS = {"pytest.importorskip", "pytest.skip", "pytest.mark.skip", "pytest.mark.skipif"}
TORCH_LIBRARIES = {"torch", "peft", "bitsandbytes", "accelerate"}
UNPICKLERS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}


def violations(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            yield from (f"line {node.lineno}: imports {name}" for name in names & UNPICKLERS)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            yield f"line {node.lineno}: imports {node.module}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False":
            yield f"line {node.value.lineno}: trust_remote_code={ast.unparse(node.value)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pickle_and_no_remote_code(path: Path) -> None:
    assert list(violations(path.read_text())) == []


@pytest.mark.parametrize(
    "source", ["import pickle", "from joblib import load", "torch.load('x')", "f(trust_remote_code=True)"]
)
def test_the_rules_catch_what_they_are_for(source: str) -> None:
    assert list(violations(source))


def silent(source: str) -> Iterator[str]:
    """Ways in which a test module would drop tests without a count of them in the summary."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in SKIPS:
            yield f"line {node.lineno}: {ast.unparse(node)}"
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    for name in sorted(imported):
        needs_it = name.split(".")[0] in TORCH_LIBRARIES or name == "safetensors.torch"
        if needs_it and not needs_torch(source):
            yield f"imports {name} without `pytestmark = pytest.mark.torch`"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_skipped_and_those_that_need_torch_say_so(path: Path) -> None:
    assert list(silent(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch = pytest.importorskip('torch')",
        "@pytest.mark.skipif(True, reason='')\ndef test(): ...",
        "def test(): pytest.skip()",
        "import torch",
        "from safetensors.torch import load_file\npytestmark = pytest.mark.e2e",
    ],
)
def test_the_rule_finds_every_way_to_skip(source: str) -> None:
    assert list(silent(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\npytestmark = pytest.mark.torch",
        "import peft\npytestmark = [\n    pytest.mark.torch,\n    pytest.mark.e2e,\n]",
        "from transformers import AutoTokenizer",
    ],
)
def test_a_marked_module_may_import_torch(source: str) -> None:
    assert list(silent(source)) == []
