"""Whether enough examples are left to train on."""

from __future__ import annotations

from collections.abc import Iterator

from services.validate.checks.base import Check, Tally
from services.validate.domain.findings import Finding
from services.validate.domain.report import MIN_EXAMPLES, TOO_FEW

_LEFT_OUT = {
    "duplicate": "are exact duplicates",
    "over_length": "are longer than max_length",
    "nothing_left_to_learn": "are all prompt within max_length",
    "in_training_file": "are in the training file too",
}


class Enough(Check):
    def file(self, tally: Tally) -> Iterator[Finding]:
        needed = MIN_EXAMPLES if self.context.role == "training" else 1
        if tally.usable >= needed:
            return
        name, plural = self.context.role.capitalize(), "s" if needed > 1 else ""
        text = f"{name} file has {tally.usable} example(s), but must have at least {needed} example{plural}"
        if tally.dropped:
            reasons = (f"{count} {_LEFT_OUT.get(code, code)}" for code, count in tally.dropped.items())
            text += f" (of its {tally.rows} rows, {', '.join(reasons)})"
        yield Finding(TOO_FEW, "", text, f"add {needed - tally.usable} or more different examples")
