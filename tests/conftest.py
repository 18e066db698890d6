"""In an environment without torch (`make check`), or without the client of an experiment tracker, the tests that need
it are left out, counted and named."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("tunestream", max_examples=40)  # each run draws others
settings.load_profile("tunestream")

TORCH_IS_MISSING = importlib.util.find_spec("torch") is None
MISSING = {name for name in ("torch", "tensorboard", "mlflow", "wandb") if importlib.util.find_spec(name) is None}
"""Each is also the mark of the tests that need it."""
MODULE_MARKS = re.compile(r"^pytestmark = (\[[^\]]*\]|.*)", re.MULTILINE)
LEFT_OUT = pytest.StashKey[dict[str, set[str]]]()


def needs_torch(source: str) -> bool:
    """Whether a test module's `pytestmark` names `pytest.mark.torch`. Read as text: importing it would need torch."""
    found = MODULE_MARKS.search(source)
    return found is not None and "mark.torch" in found[1]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = {"modules": set[str](), "tests": set[str]()}


class LeftOut(pytest.Module):
    """A test module that is not imported."""

    def collect(self) -> Iterable[pytest.Item]:
        return []


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if not TORCH_IS_MISSING or not needs_torch(module_path.read_text()):
        return None
    parent.config.stash[LEFT_OUT]["modules"].add(str(module_path.relative_to(parent.config.rootpath)))
    left_out: LeftOut = LeftOut.from_parent(parent, path=module_path)
    return left_out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(map(item.get_closest_marker, MISSING))]
    if not left_out:
        return
    config.stash[LEFT_OUT]["tests"].update(item.nodeid for item in left_out)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist collects; the process that started it prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = {kind: sorted(names) for kind, names in session.config.stash[LEFT_OUT].items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for kind, names in getattr(node, "workeroutput", {}).get("left_out", {}).items():
        node.config.stash[LEFT_OUT][kind].update(names)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out, missing = config.stash[LEFT_OUT], " or ".join(sorted(MISSING))
    for kind, names in (("test module(s)", left_out["modules"]), ("single test(s)", left_out["tests"])):
        if names:
            terminalreporter.write_line(f"{len(names)} {kind} left out because {missing} is not installed:")
            for name in sorted(names):
                terminalreporter.write_line(f"  {name}")
