"""Whether enough examples are left to train on."""

from __future__ import annotations

from collections.abc import Iterator

from services.validate.checks.base import Check, Tally
from services.validate.domain.findings import Finding
from services.validate.domain.report import MIN_EXAMPLES, TOO_FEW


class Enough(Check):
    """A training file needs `MIN_EXAMPLES` usable rows, a validation file one."""

    name = "enough"

    def file(self, tally: Tally) -> Iterator[Finding]:
        needed = MIN_EXAMPLES if self.context.role == "training" else 1
        if tally.usable >= needed:
            return
        name, plural = self.context.role.capitalize(), "s" if needed > 1 else ""
        text = f"{name} file has {tally.usable} example(s), but must have at least {needed} example{plural}"
        if reasons := [str(dropped) for dropped in tally.dropped if dropped.rows]:
            text += f" (of its {tally.rows} rows, {', '.join(reasons)})"
        yield Finding(TOO_FEW, "", text, f"add {needed - tally.usable} or more different examples")
