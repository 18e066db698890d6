"""What a job wants done with rows that can be trained on, but perhaps should not be."""

from __future__ import annotations

from typing import Literal

from shared.events.models import StrictModel

Policy = Literal["report", "drop", "fail"]
PrivacyPolicy = Literal["report", "redact", "drop", "fail"]


class Checks(StrictModel):
    """What happens to rows that can be trained on, but perhaps should not be. `report`: they are trained on, and the
    report names them. `drop`: they are left out. `fail`: the job fails. `redact`: placeholders, such as `[EMAIL]`, take
    the place of what is private, in all splits."""

    personal_data: PrivacyPolicy = "report"
    """E-mail addresses, phone, card and social security numbers, IBANs, IP addresses."""
    secrets: PrivacyPolicy = "report"
    """Keys, tokens, passwords, private keys."""
    near_duplicates: Policy = "report"
    """Rows that are nearly the same as an earlier one. They are always in one split."""
    leaks: Policy = "report"
    """Rows of the validation file that are nearly the same as one of the training file."""
    refusals: Policy = "report"
    """Answers such as "I'm sorry, but I can't help with that"."""
