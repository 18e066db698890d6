"""Personal data and secrets in the rows of a piece."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import msgspec
import numpy as np

from services.validate.domain.parse import parse
from services.validate.survey.part import Options, Part, PrivateRow
from services.validate.survey.texts.suspects import Suspects, suspects
from shared.privacy import PERSONAL, Span, Spotted, find_personal, find_secrets, redacted, spot, strings

DETAILS = 200
"""Rows of one piece whose private places are described; of all, the lines are noted."""
SHOWN = 5
"""Places of a row that are described."""
REPEATED, REPEATED_CHARS = 64, 20_000
"""So many texts are kept with what was found in them, as a system prompt stands in every row; longer ones are not."""


class Private:
    """Collects what is private, batch by batch."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._redact = _redacted_by(options)
        self._personal, self._secret = array("I"), array("I")
        self._rows: list[PrivateRow] = []
        self._kinds: Counter[str] = Counter()
        self._replaced: list[tuple[int, int, bytes]] = []

    def look(
        self, lines: Sequence[int], raws: Sequence[bytes], values: list[dict[str, Any]], places: list[tuple[int, int]]
    ) -> None:
        """Look at the rows of a batch; see there. Where the job redacts, a value with something private is replaced."""
        texts = [strings(value) for value in values]
        ends = list(accumulate(map(len, texts)))
        found = suspects(list(chain.from_iterable(texts)))
        if not self._options.personal:
            found.personal[:] = False
        if not self._options.secrets:
            found.secret[:] = False
        rows = np.unique(np.searchsorted(ends, np.flatnonzero(found.personal | found.secret), side="right"))
        for row in rows.tolist():
            begin = ends[row] - len(texts[row])
            if not (spotted := spot(values[row], _Finder(found, begin))):
                continue
            self._note(spotted, lines[row])
            if self._redact and isinstance(strict := parse(raws[row]), dict):
                clean = redacted(strict, self._redact)
                if clean != strict:
                    self._replaced.append((*places[row], msgspec.json.encode(clean)))
                    values[row] = clean

    def _note(self, spotted: list[Spotted], line: int) -> None:
        self._kinds.update(each.kind for each in spotted)
        if any(each.kind in PERSONAL for each in spotted):
            self._personal.append(line)
        if any(each.kind not in PERSONAL for each in spotted):
            self._secret.append(line)
        if len(self._rows) < DETAILS:
            self._rows.append(PrivateRow(line, [(each.field, each.kind, each.shown) for each in spotted[:SHOWN]]))

    def fill(self, part: Part, data: bytes) -> None:
        """Write what was found into the answer. `data`: the piece."""
        part.personal, part.secret = self._personal.tobytes(), self._secret.tobytes()
        part.kinds, part.private = dict(self._kinds), self._rows
        if self._replaced:
            part.redacted = _replaced(data, self._replaced)


class _Finder:
    """Looks at the strings of a row one after another, and only at those that may hold something. `begin`: the number
    of the first one."""

    def __init__(self, among: Suspects, begin: int) -> None:
        self._among = among
        self._next = begin

    def __call__(self, text: str) -> list[Span]:
        number, (personal, secret, long) = self._next, self._among
        self._next += 1
        if not personal[number] and not secret[number]:
            return []
        find = _known if len(text) <= REPEATED_CHARS else _found
        return find(text, bool(personal[number]), bool(secret[number]), bool(long[number]))


def _found(text: str, personal: bool, secrets: bool, long: bool) -> list[Span]:
    """What is looked for; of two that overlap, the secret is meant."""
    found = find_secrets(text, long=long) if secrets else []
    also = find_personal(text) if personal else []
    if not found or not also:
        return found or also
    apart = [span for span in also if all(span.end <= each.start or each.end <= span.start for each in found)]
    return sorted([*found, *apart])


_known = lru_cache(REPEATED)(_found)


def _redacted_by(options: Options) -> Callable[[str], list[Span]] | None:
    personal, secrets = options.redact_personal, options.redact_secrets
    return (lambda text: _found(text, personal, secrets, True)) if personal or secrets else None


def _replaced(data: bytes, replaced: list[tuple[int, int, bytes]]) -> bytes:
    pieces, end = [], 0
    for start, stop, line in replaced:
        pieces += [data[end:start], line]
        end = stop
    return b"".join(pieces) + data[end:]
