"""Rules that neither ruff nor the import linter can check: reading files never runs code, no test is skipped, and
packages stay small and say what they are for."""

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
PACKAGES = ("shared", "services", "cli", "deploy", "benchmarks", "examples", "docs", "tests/support")
FOLDERS = sorted({path.parent for name in PACKAGES for path in (ROOT / name).rglob("*.py")})
MOST_MODULES = 14
MOST_LINES = 350
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
def test_code_that_reading_a_file_could_run_is_found(source: str) -> None:
    assert list(violations(source))


def silent(source: str) -> Iterator[str]:
    """Statements by which a test module would drop tests that the summary then does not count."""
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


# --- rooms --------------------------------------------------------------------------------------------------------


def misfits(folder: Path) -> Iterator[str]:
    """What breaks the rules for packages in a folder: too many files, too long files, no sentence about its purpose."""
    modules = sorted(folder.glob("*.py"))
    if len(modules) > MOST_MODULES:
        yield f"holds {len(modules)} modules, more than {MOST_MODULES}: make rooms"
    for path in modules:
        lines = len(path.read_text().splitlines())
        if lines > MOST_LINES:
            yield f"{path.name} has {lines} lines, more than {MOST_LINES}: it holds more than one idea"
    init = folder / "__init__.py"
    purpose = ast.get_docstring(ast.parse(init.read_text())) if init.exists() else None
    if not purpose or not purpose.split("\n\n")[0].endswith("."):
        yield "__init__.py does not say in a sentence what the package is for"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_package_is_small_and_says_what_it_is_for(folder: Path) -> None:
    assert list(misfits(folder)) == []


def test_a_package_that_breaks_the_limits_is_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('"""What this is for."""')
    assert list(misfits(tmp_path)) == []
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "long.py").write_text("\n" * (MOST_LINES + 1))
    for number in range(MOST_MODULES):
        (tmp_path / f"m{number}.py").touch()
    assert len(list(misfits(tmp_path))) == 3
