"""The parts of the survey, each by itself over all cores, beside the whole, and against named rivals.

A part reads the rows from their bytes and does all that the survey does for it, in the survey's own processes, whose
start counts, too. The rivals are what people would use in a loop, shared among as many processes.
"""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
import threading
from array import array
from collections.abc import Callable
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

from benchmarks.validate.ways import Way
from services.validate.domain.survey.said import said
from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.survey.about import About
from services.validate.survey.chunks import chunks
from services.validate.survey.look import BATCH, decoded
from services.validate.survey.part import Options
from services.validate.survey.pool import looked_at
from services.validate.survey.survey import survey
from services.validate.survey.texts.hashed import words_in
from services.validate.survey.texts.signatures import HALF
from services.validate.survey.texts.words import words_of
from services.validate.survey.worker import read
from shared.events import JobSpec
from shared.settings import ValidationSettings

FEWER = 20
"""The rivals get so many times fewer rows, because some take minutes for all."""
_LIMIT = 2**24
_PARTS = ("personal", "secrets", "near", "about")
_REGIONS = ("US", "GB", "DE", "FR")

Texts = list[tuple[str, str]]


def ways_of_survey() -> list[Way]:
    """The first way of each group is the rival."""
    cores = os.cpu_count() or 1

    def rival(name: str, run: Callable[[Texts], None]) -> Way:
        return Way(name, run.__doc__ or "", lambda path: _among_processes(run, path, cores), cores, fewer=FEWER)

    def ours(name: str, part: str) -> Way:
        return Way(name, "ours", lambda path: _part(path, part), cores)

    return [
        rival("personal data (all cores)", by_phonenumbers),
        ours("personal data (all cores)", "personal"),
        rival("secrets (all cores)", by_detect_secrets),
        ours("secrets (all cores)", "secrets"),
        rival("languages (all cores)", by_lingua),
        Way("languages (all cores)", "ours, of whole texts", lambda path: _languages(path, cores), cores),
        ours("languages with task, refusals, lengths and flaws (all cores)", "about"),
        rival("signatures of near-duplicates (all cores)", by_datasketch),
        ours("signatures of near-duplicates (all cores)", "near"),
        Way("the whole survey (all cores)", "ours, all of these and the clusters of near-duplicates", _whole, cores),
    ]


def _part(path: Path, part: str) -> int:
    options = Options(str(path), _LIMIT)
    for each in _PARTS:
        setattr(options, each, each == part)
    pieces = looked_at(chunks(path, _LIMIT), options, path.stat().st_size, threading.Event())
    return sum(found.rows for _, found in pieces)


def _languages(path: Path, cores: int) -> int:
    with get_context("spawn").Pool(cores) as pool:
        pieces = [(path, piece.start, piece.end) for piece in chunks(path, _LIMIT, size=BATCH)]
        found = sum(pool.starmap(_languages_of, pieces, chunksize=8))
        pool.close()
        pool.join()  # so that its time is counted
    return found


def _languages_of(path: Path, start: int, end: int) -> int:
    """What the survey does for the languages of a piece, and nothing else."""
    options = Options(str(path), _LIMIT, personal=False, secrets=False, near=False, about=False)
    values = [value for line in read(str(path), start, end).splitlines() if (value := decoded(line)) is not None]
    rows = [texts for value in values if (texts := said(value)) is not None]
    words = words_in([text for row in rows for text in (row.prompt, row.answer)])
    return len(About(options, array("I")).languages(rows, words))


def _whole(path: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="tunestream-survey-") as folder:
        found = survey(
            Source(path, path.name),
            None,
            spec=JobSpec(),
            limits=ValidationSettings(),
            control=ScanControl(),
            folder=Path(folder),
        )
    assert found.training is not None
    return found.training.facts.rows


# --- rivals ------------------------------------------------------------------------------------------------------


def _among_processes(run: Callable[[Texts], None], path: Path, cores: int) -> int:
    """Give each process a share of the first rows."""
    lines = path.read_bytes().splitlines()
    rows = [json.loads(line)["messages"] for line in lines[: len(lines) // FEWER]]
    texts = [(row[-2]["content"], row[-1]["content"]) for row in rows]
    with get_context("spawn").Pool(cores) as pool:
        pool.map(run, [texts[start::cores] for start in range(cores)], chunksize=1)
        pool.close()
        pool.join()  # so that its time is counted
    return len(texts)


def by_phonenumbers(texts: Texts) -> None:
    """phonenumbers' matcher for four regions, and stdnum's Luhn and IBAN for every word with a digit"""
    from phonenumbers import PhoneNumberMatcher  # noqa: PLC0415
    from stdnum import iban, luhn  # noqa: PLC0415

    for row in texts:
        for text in row:
            for region in _REGIONS:
                list(PhoneNumberMatcher(text, region))
            for word in text.split():
                if any(each.isdigit() for each in word):
                    luhn.is_valid(word)
                    iban.is_valid(word)


def by_detect_secrets(texts: Texts) -> None:
    """detect-secrets, all plugins with their settings"""
    from detect_secrets.core.scan import scan_line  # noqa: PLC0415
    from detect_secrets.settings import default_settings  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    with default_settings():
        for row in texts:
            for text in row:
                for line in text.split("\n"):
                    list(scan_line(line))


def by_lingua(texts: Texts) -> None:
    """lingua's quick model, of the first 120 characters of question and answer"""
    from lingua import LanguageDetectorBuilder  # noqa: PLC0415

    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
    for row in texts:
        for text in row:
            detector.detect_language_of(text[:120])


def by_datasketch(texts: Texts) -> None:
    """datasketch's MinHash of the same words and pairs, with as many values"""
    from datasketch import MinHash  # noqa: PLC0415

    for row in texts:
        for text in row:
            words = words_of(text)
            made = MinHash(num_perm=HALF)
            made.update_batch([each.encode() for each in {*words, *map(" ".join, pairwise(words))}])


def with_private(rows: list[bytes], share: float = 0.1, seed: int = 3) -> list[bytes]:
    """The rows, some with an order number, a date, a phone number, an address or a key in their question, as logs have
    them: rows without any would only show how quickly nothing is found."""
    chance = random.Random(seed)
    values: tuple[str, ...] = (
        "Order 2024-118-993021",
        "on 2024-05-17 at 14:30",
        "call 212-555-0147",
        "jane.doe@mail.example.org",
    )
    values += ("password: hunter%d!", "version 3.12.4", "https://shop.example.org/account/orders/3991?page=2")

    def changed(row: bytes) -> bytes:
        value = chance.choice(values).replace("%d", str(chance.randint(10, 99)))
        return row.replace(b" Ticket ", f" {value} Ticket ".encode(), 1)

    return [changed(row) if chance.random() < share else row for row in rows]
