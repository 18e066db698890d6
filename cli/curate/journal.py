"""What was decided of each row: a file that only grows, written before the next row is shown, so that a kill loses
nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cli.terminal import CliError

Verdict = Literal["accepted", "edited", "rejected"]


class Decision(BaseModel):
    """What was decided of the row `key` (see `rows.Place`). `value` is the row as it was edited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    verdict: Verdict
    value: dict[str, Any] | None = None


class Journal:
    """The decisions so far, by the key of the row. The last decision on a row counts."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            CliError: a line is no decision. A last line without an end, of a process that was killed, is left out.
        """
        self.path = path
        self.decisions: dict[str, Decision] = {}
        content = path.read_bytes() if path.exists() else b""
        *lines, torn = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                decision = Decision.model_validate_json(line)
            except ValidationError:
                remedy = f"delete the line, or the file to begin anew: {path}"
                raise CliError(f"line {number} of {path.name} is no decision", remedy) from None
            self.decisions[decision.key] = decision
        if torn:
            os.truncate(path, len(content) - len(torn))

    def record(self, *decisions: Decision) -> None:
        """Keep decisions; they are on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(decision.model_dump(exclude_none=True)) + "\n" for decision in decisions)
            file.flush()
            os.fsync(file.fileno())
        self.decisions.update((decision.key, decision) for decision in decisions)
