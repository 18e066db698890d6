"""Personal data and secrets, by the policies `checks.personal_data` and `checks.secrets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from services.validate.checks.known import KnownLines
from services.validate.domain.findings import Finding
from services.validate.domain.survey.surveyed import Surveyed
from shared.events import PrivacyPolicy
from shared.privacy import NAMES, PERSONAL, SECRET, Kind, Spotted


class _Private(KnownLines):
    """What both checks have in common. The survey has looked for it in every row, and has replaced it where the job
    says so."""

    kinds: ClassVar[frozenset[Kind]]
    setting: ClassVar[str]
    words: ClassVar[str]
    danger: ClassVar[str]

    def line(self, line: int, surveyed: Surveyed) -> Finding:
        places = [each for each in surveyed.private.get(line, ()) if each.kind in self.kinds]
        policy: PrivacyPolicy = getattr(self.context.spec.checks, self.setting)
        field = places[0].field if places else ""
        told = _told(places) or self.words
        if policy == "redact":
            text, remedy = f"{told} was replaced by a placeholder", "nothing is to be done"
            return Finding(self.name, field, text, remedy, "warning")
        text = f"holds {told}, {self.danger}"
        if policy == "report":
            remedy = f"remove it, or set checks.{self.setting} to redact or drop"
            return Finding(self.name, field, text, remedy, "warning")
        if policy == "drop":
            return Finding(self.name, field, text, "remove it to train on the row", "warning", drops=True)
        return Finding(self.name, field, text, f"remove it, or set checks.{self.setting} to redact or drop")


class PersonalData(_Private):
    """E-mail addresses, phone numbers and the like."""

    name = "personal_data"
    drops: ClassVar = {"personal_data": "hold personal data"}
    kinds = PERSONAL
    setting = "personal_data"
    words = "personal data"
    danger = "which the model may repeat to anyone"

    def lines(self, surveyed: Surveyed) -> Sequence[int]:
        return surveyed.personal


class Secrets(_Private):
    """Keys, tokens and passwords."""

    name = "secrets"
    drops: ClassVar = {"secrets": "hold secrets"}
    kinds = SECRET
    setting = "secrets"
    words = "a secret"
    danger = "which the model may repeat to anyone; if it is in use, renew it"

    def lines(self, surveyed: Surveyed) -> Sequence[int]:
        return surveyed.secret


def _told(places: Sequence[Spotted]) -> str:
    """`an e-mail address (j…@….org) and a card number (…11 (16 characters))`"""
    first = {place.kind: place for place in reversed(places)}
    return " and ".join(f"{NAMES[kind]} ({place.shown})" for kind, place in reversed(first.items()))
