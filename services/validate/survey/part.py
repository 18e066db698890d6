"""What one piece of a file holds. It is a pure function of the bytes and the options, so any process can call it."""

from __future__ import annotations

import re
import zlib
from array import array
from collections import Counter
from functools import lru_cache
from typing import Any

import msgspec

from services.validate.domain.parse import parse
from services.validate.domain.statistics import doubling
from services.validate.domain.survey.flaws import flaws
from services.validate.domain.survey.languages import language_of
from services.validate.domain.survey.refusals import refuses
from services.validate.domain.survey.said import Said, said
from services.validate.survey.features import BANDS, SIGNATURE, features, own, signatures, words_of
from shared.privacy import PERSONAL, Kind, Span, find_personal, find_secrets, redacted, spot
from shared.scoring.labels import MAX_LABELS, short_label_of

DETAILS = 200
"""Rows of one piece whose private places are described; of all, the lines are noted."""
EXTREMES = 4
UNDECIDED = 40
"""Texts of one piece that are kept for a model of languages."""
MIN_WORDS = 4
"""Rows of fewer words are too short to be nearly the same as others: they are the same, or not."""
REPEATED, REPEATED_CHARS = 64, 20_000
"""So many texts are kept with what was found in them, as a system prompt stands in every row; longer ones are not."""
_LINE = re.compile(rb"[^\r\n][^\n]*")
_BOM = b"\xef\xbb\xbf"


class Options(msgspec.Struct):
    """What is looked for. `sample`: rows whose checksum is below it are returned whole, as a sample. `common`: features
    that belong to the form of the dataset."""

    path: str
    max_line_bytes: int
    personal: bool = True
    secrets: bool = True
    redact_personal: bool = False
    redact_secrets: bool = False
    near: bool = True
    about: bool = True
    """Languages, labels, lengths, refusals and flaws."""
    sample: int = 0
    common: frozenset[str] = frozenset()


class Private(msgspec.Struct):
    """The private places of a row: path, kind and masked form of each."""

    line: int
    places: list[tuple[str, Kind, str]]


class Part(msgspec.Struct):
    """What a piece of a file holds. Lines count from 0 within the piece. Arrays of C `unsigned int` are given as
    bytes."""

    lines: int = 0
    rows: int = 0
    row_labels: bytes = b""
    """The checksum of the answer of each row as a label; 0: it is none. Every line that is not blank is a row."""
    near_lines: bytes = b""
    bands: bytes = b""
    signatures: bytes = b""
    personal: bytes = b""
    secret: bytes = b""
    refusing: bytes = b""
    flawed: bytes = b""
    flaws: bytes = b""
    """Lines of rows with flaws, and these, as bits."""
    mixed: bytes = b""
    """Lines of rows whose answer is in another language than the question."""
    private: list[Private] = []
    kinds: dict[str, int] = {}
    answers: dict[str, int] = {}
    labels: dict[str, int] | None = {}
    languages: dict[str, int] = {}
    prompt_sizes: dict[int, int] = {}
    answer_sizes: dict[int, int] = {}
    """Bins of characters (`statistics.doubling`) -> rows."""
    longest: list[tuple[int, int]] = []
    shortest: list[tuple[int, int]] = []
    """Characters and line of the rows with the longest and shortest answers."""
    sampled: list[tuple[int, str, str]] = []
    """Line, question and answer."""
    undecided: list[tuple[int, str]] = []
    """Texts whose language is not clear, of the sample."""
    redacted: bytes | None = None
    """The whole piece with placeholders; None: nothing was replaced."""


class _Found:
    """What is collected row by row."""

    def __init__(self) -> None:
        self.part = Part(private=[], sampled=[], undecided=[])
        self.rows = 0
        self.label_ids, self.near_lines = array("I"), array("I")
        self.personal, self.secret, self.refusing, self.mixed = (array("I") for _ in range(4))
        self.flawed, self.flaws = array("I"), array("I")
        self.prompts: list[list[str]] = []
        self.answers: list[list[str]] = []
        self.kinds: Counter[str] = Counter()
        self.answer_kinds: Counter[str] = Counter()
        self.labels: Counter[str] | None = Counter()
        self.languages: Counter[str] = Counter()
        self.sizes: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        self.lengths: list[tuple[int, int]] = []
        self.replaced: list[tuple[int, int, bytes]] = []


def look(data: bytes, options: Options, *, first: bool = False) -> Part:
    """Look at whole lines. `first`: the piece is the beginning of its file. It never raises, whatever the bytes."""
    found = _Found()
    line, at = 0, 0
    for match in _LINE.finditer(data):
        start, end = match.span()
        line += data.count(b"\n", at, start)
        at = start
        raw = data[start:end].rstrip(b"\r")
        if first and start == 0:
            raw = raw.removeprefix(_BOM)
        if not raw.strip():
            continue
        found.label_ids.append(0)
        if len(raw) > options.max_line_bytes:
            continue
        value = decoded(raw)
        if value is not None:
            _row(found, value, raw, line, options, (start, end))
    part = found.part
    part.lines = data.count(b"\n") + (not data.endswith(b"\n"))
    part.rows = found.rows
    part.row_labels = found.label_ids.tobytes()
    part.personal, part.secret = found.personal.tobytes(), found.secret.tobytes()
    part.refusing, part.mixed = found.refusing.tobytes(), found.mixed.tobytes()
    part.flawed, part.flaws = found.flawed.tobytes(), found.flaws.tobytes()
    part.kinds, part.answers, part.languages = dict(found.kinds), dict(found.answer_kinds), dict(found.languages)
    part.labels = None if found.labels is None else dict(found.labels)
    part.prompt_sizes, part.answer_sizes = dict(found.sizes[0]), dict(found.sizes[1])
    found.lengths.sort()
    part.shortest, part.longest = found.lengths[:EXTREMES], found.lengths[-EXTREMES:]
    if found.prompts:
        bands, kept = signatures(found.prompts, found.answers)
        assert bands.shape[1] == BANDS and kept.shape[1] == SIGNATURE
        part.near_lines, part.bands, part.signatures = found.near_lines.tobytes(), bands.tobytes(), kept.tobytes()
    if found.replaced:
        part.redacted = _replaced(data, found.replaced)
    return part


def decoded(raw: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or None. The scan says what is wrong with it."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _row(found: _Found, value: dict[str, Any], raw: bytes, line: int, options: Options, place: tuple[int, int]) -> None:
    found.rows += 1
    if (options.personal or options.secrets) and (private := _private(value, options)):
        _note(found, private, line)
        if (options.redact_personal or options.redact_secrets) and isinstance(strict := parse(raw), dict):
            find = finder(options.redact_personal, options.redact_secrets)
            clean = redacted(strict, find)
            if clean != strict:
                found.replaced.append((*place, msgspec.json.encode(clean)))
                value = clean
    texts = said(value)
    if texts is None:
        return
    if options.near or options.about:
        prompt, answer = words_of(texts.prompt), words_of(texts.answer)
        if options.near and len(prompt) + len(answer) >= MIN_WORDS:
            found.near_lines.append(line)
            found.prompts.append(own(features(prompt), options.common))
            found.answers.append(own(features(answer), options.common))
        if options.about:
            kind = _about(found, texts, (prompt, answer), line)
            if bits := flaws(value, texts, answer, is_json=kind == "structured"):
                found.flawed.append(line)
                found.flaws.append(bits)
            if zlib.crc32(raw) < options.sample:
                found.part.sampled.append((line, texts.question[:1000], texts.answer[:1000]))


def _private(value: dict[str, Any], options: Options) -> list[tuple[str, Kind, str]]:
    spotted = spot(value, finder(options.personal, options.secrets))
    return [(each.field, each.kind, each.shown) for each in spotted]


@lru_cache
def finder(personal: bool, secrets: bool) -> Any:
    """What looks for personal data, secrets, or both; of two that overlap, the secret is meant."""

    def both(text: str) -> list[Span]:
        found = find_secrets(text)
        if not found:
            return find_personal(text)
        rest = [span for span in find_personal(text) if all(span.end <= s.start or s.end <= span.start for s in found)]
        return sorted([*found, *rest])

    find = both if personal and secrets else find_personal if personal else find_secrets
    known = lru_cache(REPEATED)(find)
    return lambda text: known(text) if len(text) <= REPEATED_CHARS else find(text)


def _note(found: _Found, private: list[tuple[str, Kind, str]], line: int) -> None:
    found.kinds.update(kind for _, kind, _ in private)
    if any(kind in PERSONAL for _, kind, _ in private):
        found.personal.append(line)
    if any(kind not in PERSONAL for _, kind, _ in private):
        found.secret.append(line)
    if len(found.part.private) < DETAILS:
        found.part.private.append(Private(line, private[:5]))


def _about(found: _Found, texts: Said, words: tuple[list[str], list[str]], line: int) -> str:
    """Note what a row is about. Returns what its answer is."""
    answer = texts.answer
    label = None if texts.calls else short_label_of(answer)
    kind = "tool_calls" if texts.calls else "structured" if _is_json(answer) else "labels" if label else "text"
    found.answer_kinds[kind] += 1
    if kind == "labels" and label:
        found.label_ids[-1] = zlib.crc32(label.encode())
        if found.labels is not None:
            found.labels[label] += 1
            if len(found.labels) > MAX_LABELS:
                found.labels = None
    for sizes, text in zip(found.sizes, (texts.prompt, answer), strict=True):
        sizes[doubling(len(text))] += 1
    found.lengths.append((len(answer), line))
    if len(found.lengths) > 4096:
        found.lengths.sort()
        found.lengths = found.lengths[:EXTREMES] + found.lengths[-EXTREMES:]
    if not texts.calls and refuses(answer):
        found.refusing.append(line)
    one = len(texts.question) == len(texts.prompt)
    asked = language_of(texts.question, words[0] if one else words_of(texts.question[:200]))
    told = language_of(answer, words[1]) if kind == "text" else None
    found.languages[asked or told or ""] += 1
    if asked is None and told is None and len(found.part.undecided) < UNDECIDED and texts.question.strip():
        found.part.undecided.append((line, texts.question[:200]))
    if asked and told and asked != told:
        found.mixed.append(line)
    return kind


def _is_json(answer: str) -> bool:
    head = answer.lstrip()[:1]
    if head not in ("{", "["):
        return False
    try:
        msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
    return True


def _replaced(data: bytes, replaced: list[tuple[int, int, bytes]]) -> bytes:
    pieces, end = [], 0
    for start, stop, line in replaced:
        pieces += [data[end:start], line]
        end = stop
    return b"".join(pieces) + data[end:]
