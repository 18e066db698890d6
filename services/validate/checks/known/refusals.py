"""Answers that refuse, by the policy `checks.refusals`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from services.validate.checks.known import KnownLines
from services.validate.domain.findings import Finding, Severity
from services.validate.domain.survey.surveyed import Surveyed


class Refusals(KnownLines):
    """Rows whose answer begins with a refusal. A few may be meant; many teach the model to refuse everything."""

    name = "refusals"
    drops: ClassVar = {"refusal": "refuse to answer"}

    def lines(self, surveyed: Surveyed) -> Sequence[int]:
        return surveyed.refusing

    def line(self, line: int, surveyed: Surveyed) -> Finding:
        policy = self.context.spec.checks.refusals
        text = "the answer refuses, and the model learns to"
        remedy = "write an answer, keep it if the refusal is meant, or set checks.refusals to drop"
        severity: Severity = "error" if policy == "fail" else "warning"
        return Finding("refusal", "", text, remedy, severity, policy == "drop")
