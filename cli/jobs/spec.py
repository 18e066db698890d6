"""The settings of a job from flags and a file. An error names the field and the values that it may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cli.terminal import CliError
from shared import ids
from shared.events import JobSpec
from shared.jobs.explain import explained
from shared.jobs.settings_text import Unreadable, read

_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError for a date such as 2024-31-12 and for a number of 5,000 digits."""


def build(document: str | None, assignments: Sequence[str], flags: Mapping[str, Any]) -> JobSpec:
    """Merge a YAML document, `dotted.name=value` assignments and flags (None: not given); later ones win.

    Raises:
        CliError: names every field that is wrong.
    """
    values = _mapping(document) if document is not None else {}
    for assignment in assignments:
        _assign(values, assignment)
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{each.field}: {each.reason}" for each in explained(error, JobSpec))
        raise CliError(wrong, "`tunestream submit --help` and docs list the settings") from None


def read_file(path: Path | None) -> str | None:
    """The text of a settings file; None: there is none to read."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CliError(f"--spec {path}: {reason}") from None


def to_yaml(spec: JobSpec) -> bytes:
    """The sidecar document of a spec; parsing it gives the same spec again."""
    return yaml.safe_dump(ids.chosen_settings(spec), sort_keys=False, allow_unicode=True).encode()


def _mapping(document: str) -> dict[str, Any]:
    try:
        values, _ = read(document)
    except Unreadable as error:
        where = f" in line {error.line}" if error.line else ""
        about = f"{'.'.join(error.path)}: " if error.path else ""
        raise CliError(f"the job settings cannot be read{where}: {about}{error}") from None
    if not isinstance(values, dict):
        raise CliError("the job settings must be `name: value` lines", "for example `suffix: support`")
    return values


def _assign(values: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise CliError(f"--set {assignment}: write name=value", "for example --set hyperparameters.n_epochs=3")
    try:
        value = yaml.safe_load(text)
    except _UNREADABLE:
        raise CliError(f"--set {name}: {text!r} is no YAML value", "put the value in quotes") from None
    *parents, last = name.strip().split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise CliError(f"--set {name}: {parent} is a single value, it has no fields")
    values[last] = value
