"""Editing a row: as YAML in the user's editor, because there an answer of several lines is several lines."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from cli.terminal import CliError

HINT = "# Change what you like, save, and leave the editor. An empty file changes nothing.\n"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # a block cannot hold white space at the end of a line
    block = "\n" in text and all(line == line.rstrip() for line in text.split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _text)


def to_text(value: dict[str, Any]) -> str:
    """A row as YAML."""
    return HINT + yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)


def from_text(text: str) -> dict[str, Any] | None:
    """The row of an edited text; None if nothing is left of it.

    Raises:
        CliError: it is no YAML, or no object.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise CliError(
            f"the edited row is not YAML{where}", "keep the indentation, and quote text with colons"
        ) from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise CliError("the edited row is no object", "keep its keys, such as `messages:`")
    return value


def open_editor(text: str) -> str:
    """Let the user edit a text in `$VISUAL`, `$EDITOR` or vi.

    Raises:
        CliError: there is no such program, or it fails.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="tunestream-curate-") as folder:
        path = Path(folder) / "row.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise CliError(f"the editor {editor!r} fails: {error}", "name another by EDITOR") from None
        return path.read_text(encoding="utf-8", errors="replace")
