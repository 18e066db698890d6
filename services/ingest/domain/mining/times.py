"""Times and numbers as keys that order the rows of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from services.ingest.domain.mining.records import text_of

_CLOCK = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S")
_DAY_FIRST = ("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%y", "%d %b %Y", "%d %B %Y")
_MONTH_FIRST = ("%d.%m.%Y", "%m/%d/%Y", "%m-%d-%Y", "%d.%m.%y", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y")
_SLASHES = re.compile(r"\s*(\d{1,2})[/-](\d{1,2})[/-]\d{4}")


class Order:
    """Reads one column. `sample`: its first values, which show whether the day comes before the month."""

    def __init__(self, sample: Iterable[Any]) -> None:
        slashed = [match for value in sample if (match := _SLASHES.match(text_of(value)))]
        day_first = any(int(match[1]) > 12 for match in slashed)
        self.guessed = bool(slashed) and not day_first and not any(int(match[2]) > 12 for match in slashed)
        """Both readings are possible; the month is taken to come first."""
        dates = _DAY_FIRST if day_first else _MONTH_FIRST
        self._formats = [date + clock for date in dates for clock in _CLOCK]
        self.unread = 0
        """Values that are neither a time nor a number."""

    def key(self, value: Any) -> float | str | None:
        """Numbers as they are, times in seconds; any other text as itself, which comes after all of them."""
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, float):
            return value
        text = text_of(value)
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            pass
        found = self._time(text)
        if found is None:
            self.unread += 1
            return text
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

    def _time(self, text: str) -> datetime | None:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
        for position, form in enumerate(self._formats):
            try:
                found = datetime.strptime(text, form)
            except ValueError:
                continue
            self._formats.insert(0, self._formats.pop(position))  # a column has one form
            return found
        return None
