"""The rows of a dataset with what the checks say of each. Only places and findings are kept in memory; a row is read
when it is shown."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.terminal import CliError
from services.validate.checks import Context
from services.validate.domain.findings import Finding
from services.validate.domain.parse import parse
from services.validate.reader import Source
from services.validate.scan import ScanControl, scan
from shared.events import JobSpec
from shared.settings import ValidationSettings

KEY_CHARS = 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Place:
    """Where a row is: its line from 1, and its bytes. `key` is the same wherever the row is moved to: a digest of its
    bytes, and its number among equal rows."""

    key: str
    line: int
    start: int
    size: int


@dataclass(frozen=True)
class Row:
    """A row as it is in the file. `value` is None if it is not a JSON object."""

    line: int
    raw: bytes
    value: dict[str, Any] | None
    findings: Sequence[Finding] = ()

    @property
    def refused(self) -> bool:
        """It has an error, with which no job could train on the file."""
        return any(finding.severity == "error" for finding in self.findings)


@dataclass
class Rows:
    """The rows of a file. Blank lines are none."""

    path: Path
    places: Sequence[Place]
    findings: Mapping[int, Sequence[Finding]] = field(default_factory=dict)
    """By line; a line without findings has no entry."""

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Row:
        """The row at `index`, from 0."""
        place = self.places[index]
        with self.path.open("rb") as file:
            file.seek(place.start)
            raw = file.read(place.size)
        return row_of(raw, place.line, self.findings.get(place.line, ()))


def row_of(raw: bytes, line: int, findings: Sequence[Finding]) -> Row:
    value = parse(raw)
    return Row(line, raw, value if isinstance(value, dict) else None, findings)


def load(path: Path, limits: ValidationSettings) -> Rows:
    """Find and check all rows of a file.

    Raises:
        CliError: it is no JSONL file.
        OSError: it cannot be read.
    """
    findings, whole = _check(path, limits)
    if whole:
        raise CliError(f"{path.name}: {whole[0].message}", whole[0].remedy)
    return Rows(path, _places(path), findings)


def check_value(value: Mapping[str, Any], limits: ValidationSettings) -> list[Finding]:
    """What the checks say of one row alone."""
    with tempfile.TemporaryDirectory(prefix="tunestream-curate-") as folder:
        path = Path(folder) / "row.jsonl"
        path.write_bytes(encode(value) + b"\n")
        findings, whole = _check(path, limits)
    return [*whole, *findings.get(1, ())]


def encode(value: Mapping[str, Any]) -> bytes:
    """A row as a line, without its end."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _check(path: Path, limits: ValidationSettings) -> tuple[dict[int, list[Finding]], list[Finding]]:
    """The findings of each line, and those because of which the file cannot be read at all."""
    by_line: dict[int, list[Finding]] = {}
    whole: list[Finding] = []

    def keep(line: int | None, finding: Finding) -> None:
        if line is not None:
            by_line.setdefault(line, []).append(finding)
        elif finding.code in {"empty_file", "binary_file"}:
            whole.append(finding)

    control = ScanControl(on_finding=keep)
    scan(Source(path, path.name), Context("training", JobSpec()), tokenizer=None, limits=limits, control=control)
    return by_line, whole


def _places(path: Path) -> list[Place]:
    places: list[Place] = []
    equal: Counter[str] = Counter()
    start = 0
    with path.open("rb") as file:
        for line, whole in enumerate(file, 1):
            mark = len(_BOM) if line == 1 and whole.startswith(_BOM) else 0
            raw = whole[mark:].rstrip(b"\r\n")
            if raw.strip():
                digest = hashlib.sha256(raw).hexdigest()[:KEY_CHARS]
                equal[digest] += 1
                places.append(Place(f"{digest}-{equal[digest]}", line, start + mark, len(raw)))
            start += len(whole)
    return places
