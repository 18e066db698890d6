"""Answers that refuse, by the policy `checks.refusals`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, Severity
from services.validate.domain.survey.surveyed import holds


class Refusals(Check):
    """Rows whose answer begins with a refusal. A few may be meant; many teach the model to refuse everything."""

    name = "refusals"
    drops: ClassVar = {"refusal": "refuse to answer"}

    def row(self, row: Row) -> Iterable[Finding]:
        surveyed = self.context.surveyed
        if surveyed is None or not holds(surveyed.refusing, row.line):
            return ()
        policy = self.context.spec.checks.refusals
        text = "the answer refuses, and the model learns to"
        remedy = "write an answer, keep it if the refusal is meant, or set checks.refusals to drop"
        severity: Severity = "error" if policy == "fail" else "warning"
        return (Finding("refusal", "", text, remedy, severity, policy == "drop"),)
