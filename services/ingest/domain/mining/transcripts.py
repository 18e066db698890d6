"""A conversation written as one text: with who speaks at the beginning of a line, as in `Customer: …`,
`[10:32] Agent: …`, `### Human: …`, or as a chat template writes it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Protocol

from services.ingest.domain.mining.rendered import Said, turns_of
from shared.events.source import Role

_LABEL = re.compile(
    r"""^\s*
    (?:\[[^\]\n]{1,40}\]\s*|\d[\d:.,/\-T ]{2,24}(?:[AaPp][Mm])?\s*[-–|]?\s*)?   # when
    [\#*>]{0,6}\s*                                                              # a heading, bold, or a quotation
    (?P<who>[^\W\d_][\w.'’\- ]{0,39}?)
    (?:\s*[(\[][^)\]\n]{1,40}[)\]])?                                            # when, or from where
    \s*\*{0,2}:(?!//)\*{0,2}\s*
    """,
    re.VERBOSE,
)
_HEADING = re.compile(r"(?<=[^\s#])(?=\#{2,6}\s*[^\W\d_]\w*\s*:)")
"""Where such a heading stands within a line, as in `### Human: Hi### Assistant: Hello`."""
TWICE = 2
"""A label that nobody knows is taken for a speaker if so many lines begin with it, and not for words of a turn."""


class Known(Protocol):
    def role(self, word: str) -> Role: ...

    def knows(self, word: str) -> bool: ...


def is_transcript(text: object, known: Known) -> bool:
    """Whether a text begins with a known speaker, and has another one with another role."""
    if not isinstance(text, str):
        return False
    if turns := turns_of(text):
        return len({known.role(turn.who) for turn in turns if known.knows(turn.who)}) > 1
    lines = [line for line in _lines(text) if line.strip()]
    if not lines or _speaker(lines[0], known) is None:
        return False
    return len({known.role(who) for line in lines if (who := _speaker(line, known)) is not None}) > 1


def said(text: object, known: Known) -> list[Said]:
    """The turns of a transcript, in which a line without a speaker goes on with the turn before it; of any other value,
    none.

    Raises:
        LeftOut: `unknown_role`: someone speaks whom nobody knows.
    """
    if not isinstance(text, str) or not is_transcript(text, known):
        return []
    if turns := turns_of(text):
        return turns
    labels = Counter(found["who"].strip() for line in _lines(text) if (found := _LABEL.match(line)))
    for who, times in labels.items():
        if times >= TWICE and not known.knows(who):
            known.role(who)  # says how to name it
    spoken: list[tuple[str, list[str]]] = []
    for line in _lines(text):
        if (speaker := _speaker(line, known)) is not None:
            spoken.append((speaker, [_LABEL.sub("", line, count=1)]))
        elif spoken:  # before the first speaker there are empty lines only
            spoken[-1][1].append(line)
    return [Said(who, "\n".join(lines).strip()) for who, lines in spoken]


def _lines(text: str) -> list[str]:
    return _HEADING.sub("\n", text).splitlines()


def _speaker(line: str, known: Known) -> str | None:
    """Who begins to speak in a line; None: nobody who is known."""
    found = _LABEL.match(line)
    who = found["who"].strip() if found else ""
    return who if who and known.knows(who) else None
