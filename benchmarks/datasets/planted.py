"""Plants problems among clean rows and counts what the checks find: near-duplicates, leaks, secrets, personal data,
contradictions.

    python -m benchmarks.datasets.planted                   # 200 of each in 20,000 rows
    python -m benchmarks.datasets.planted --rows 5000 --each 50 --seed 3

Clean rows hold what only looks like a problem: order numbers, dates, versions, prices, UUIDs, hashes, code. The command
ends with 1 if recall or precision of a kind is below 0.95. Further kinds register in `KINDS`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.validate.check import examine
from services.validate.checks.contradictions import CONTRADICTION
from services.validate.domain.findings import Finding
from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.survey.survey import survey
from shared.events import JobSpec
from shared.settings import ValidationSettings

WANTED = 0.95
Row = dict[str, Any]


# --- clean rows -----------------------------------------------------------------------------------------------------


def vocabulary(dice: random.Random, size: int = 4000) -> list[str]:
    """Made-up words, the first ones the most frequent."""
    syllables = [consonant + vowel for consonant in "bcdfglmnprstv" for vowel in "aeio"]
    return ["".join(dice.choices(syllables, k=dice.randint(2, 4))) for _ in range(size)]


class Clean:
    """Rows that have nothing to find."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self._words = vocabulary(self.dice)
        # as in texts of people, the n-th word is n times rarer than the first (Zipf)
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]

    def sentence(self, words: int) -> str:
        return " ".join(self.dice.choices(self._words, self._weights, k=words)).capitalize() + "."

    def harmless(self) -> str:
        """What looks like private data, and is none."""
        dice = self.dice

        def digits(count: int) -> str:
            return _letters(dice, count, string.digits)

        def hexadecimal(count: int) -> str:
            return _letters(dice, count, "0123456789abcdef")

        day = f"{dice.randint(2019, 2026)}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
        return dice.choice(
            (
                f"Order number {digits(dice.choice((8, 10, 12, 16)))}.",
                f"Delivered on {day} at {dice.randint(0, 23)}:15.",
                f"Version {dice.randint(1, 9)}.{dice.randint(0, 20)}.{dice.randint(0, 9)}.{dice.randint(0, 9)} is out.",
                f"It costs ${dice.randint(1, 9)},{digits(3)},{digits(3)}.{digits(2)}.",
                f"See {hexadecimal(40)}.",
                f"Request {hexadecimal(8)}-4a1b-4c2d-8e3f-{hexadecimal(12)}.",
                f"Call f({digits(7)}, {dice.randint(1, 99)}) and keep token_count={digits(6)}.",
                "Set api_key = os.environ['API_KEY'] and git@example.org:team/repo.git there.",
                f"ISBN 978-3-16-{digits(6)}-0.",
                "The password must have twelve characters, and 127.0.0.1 is this machine.",
            )
        )

    def row(self) -> Row:
        question = " ".join(self.sentence(self.dice.randint(6, 16)) for _ in range(self.dice.randint(2, 5)))
        answer = " ".join(self.sentence(self.dice.randint(6, 16)) for _ in range(self.dice.randint(2, 5)))
        if self.dice.random() < 0.3:
            question += " " + self.harmless()
        return chat(question, answer)


def chat(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def contents(row: Row) -> tuple[str, str]:
    question, answer = (message["content"] for message in row["messages"])
    return question, answer


# --- problems -------------------------------------------------------------------------------------------------------


def nearly(row: Row, clean: Clean) -> Row:
    """The same row with one word in twenty changed, added or left out, as people and logs make it."""

    def edited(text: str) -> str:
        words = text.split()
        for _ in range(max(1, len(words) // 20)):
            at = clean.dice.randrange(len(words))
            way = clean.dice.choice(("change", "add", "remove", "case"))
            if way == "change":
                words[at] = clean.sentence(1).rstrip(".")
            elif way == "add":
                words.insert(at, clean.sentence(1).lower().rstrip("."))
            elif way == "remove" and len(words) > 8:
                del words[at]
            else:
                words[at] = words[at].upper()
        return " ".join(words)

    question, answer = contents(row)
    return chat(edited(question), edited(answer) if clean.dice.random() < 0.7 else answer)


def _letters(dice: random.Random, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(dice.choices(alphabet, k=count))


def secret(dice: random.Random) -> str:
    """One of the secrets that people paste."""
    capitals = string.ascii_uppercase + string.digits
    return dice.choice(
        (
            f"AKIA{_letters(dice, 16, capitals)}",
            f"sk-proj-{_letters(dice, 48)}",
            f"sk-{_letters(dice, 48)}",
            f"ghp_{_letters(dice, 36)}",
            f"xoxb-{_letters(dice, 12, string.digits)}-{_letters(dice, 24)}",
            f'api_key = "{_letters(dice, 32)}"',
            f"password: {_letters(dice, 6, string.ascii_letters)}{dice.randint(10, 99)}!",
            f"-----BEGIN PRIVATE KEY-----\n{_letters(dice, 64)}\n-----END PRIVATE KEY-----",
            f"postgres://shop:{_letters(dice, 12)}7@db.internal/orders",
        )
    )


def personal(dice: random.Random) -> str:
    """One of the things that belong to a person."""
    name = dice.choice(("jane.doe", "k.meier", "ana_lopez", "li-wei", "o.smith"))
    area, last = dice.randint(201, 989), f"{dice.randint(0, 9999):04}"
    return dice.choice(
        (
            f"{name}{dice.randint(1, 999)}@{dice.choice(('mail.org', 'firma.de', 'post.co.uk'))}",
            f"+1 {area} 555 {last}",
            f"({area}) {dice.randint(200, 999)}-{last}",
            f"+49 30 {dice.randint(1000000, 9999999)}",
            f"phone {dice.randint(2000000000, 9899999999)}",
            _card(dice),
            f"{dice.randint(80, 99)}.{dice.randint(10, 250)}.{dice.randint(1, 250)}.{dice.randint(1, 250)}",
            _iban(dice),
        )
    )


def _card(dice: random.Random) -> str:
    digits = "4" + _letters(dice, 14, string.digits)
    total = sum(int(each) if place % 2 else sum(divmod(2 * int(each), 10)) for place, each in enumerate(digits))
    digits += str(-total % 10)
    return dice.choice((digits, " ".join(digits[at : at + 4] for at in range(0, 16, 4))))


def _iban(dice: random.Random) -> str:
    account = _letters(dice, 18, string.digits)
    check = 98 - int(account + "131400") % 97
    whole = f"DE{check:02}{account}"
    return dice.choice((whole, " ".join(whole[at : at + 4] for at in range(0, 22, 4))))


@dataclass
class Planted:
    """The files, and the lines of each kind of problem in them."""

    training: list[Row]
    validation: list[Row]
    truth: dict[str, set[tuple[str, int]]] = field(default_factory=dict)


Plant = Callable[[Planted, Clean, int], None]


def _put(planted: Planted, kind: str, rows: list[Row], clean: Clean) -> None:
    """Put rows behind the others, where the lines of earlier ones stay as they are."""
    planted.training += rows
    last = len(planted.training)
    planted.truth[kind] = {("training", line) for line in range(last - len(rows) + 1, last + 1)}


def _near_duplicates(planted: Planted, clean: Clean, each: int) -> None:
    copied = clean.dice.sample(planted.training[: len(planted.training) // 2], each)
    _put(planted, "near_duplicate", [nearly(row, clean) for row in copied], clean)


def _leaks(planted: Planted, clean: Clean, each: int) -> None:
    copied = clean.dice.sample(planted.training[: len(planted.training) // 2], each)
    begin = len(planted.validation)
    planted.validation += [nearly(row, clean) for row in copied]
    planted.truth["leak"] = {("validation", begin + at + 1) for at in range(each)}


def _within(row: Row, value: str, clean: Clean) -> Row:
    texts = list(contents(row))
    side = clean.dice.randrange(2)
    words = texts[side].split(" ")
    words.insert(clean.dice.randrange(len(words)), value)
    texts[side] = " ".join(words)
    return chat(*texts)


def _secrets(planted: Planted, clean: Clean, each: int) -> None:
    _put(planted, "secrets", [_within(clean.row(), secret(clean.dice), clean) for _ in range(each)], clean)


def _personal(planted: Planted, clean: Clean, each: int) -> None:
    _put(planted, "personal_data", [_within(clean.row(), personal(clean.dice), clean) for _ in range(each)], clean)


def _contradictions(planted: Planted, clean: Clean, each: int) -> None:
    """Questions of clean rows with another answer. As many questions come again with the same answer in capitals, which
    is nearly a duplicate and no contradiction."""
    half = len(planted.training) // 2
    chosen = clean.dice.sample(range(half), 2 * each)
    repeated, asked = chosen[:each], chosen[each:]
    rows = [contents(planted.training[place]) for place in repeated]
    duplicates = planted.truth.get("near_duplicate", set())
    _put(planted, "near_duplicate", [chat(question, answer.upper()) for question, answer in rows], clean)
    planted.truth["near_duplicate"] |= duplicates
    rows = [contents(planted.training[place]) for place in asked]
    _put(planted, CONTRADICTION, [chat(question, contents(clean.row())[1]) for question, _ in rows], clean)
    planted.truth[CONTRADICTION] |= {("training", place + 1) for place in asked}


KINDS: dict[str, Plant] = {
    "near_duplicate": _near_duplicates,
    "leak": _leaks,
    "secrets": _secrets,
    "personal_data": _personal,
    CONTRADICTION: _contradictions,
}
"""By the code of the finding."""


# --- counting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """What was found of one kind."""

    planted: int
    found: int
    right: int

    @property
    def recall(self) -> float:
        return self.right / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0


def plant(rows: int, each: int, seed: int) -> Planted:
    """Clean rows, a tenth of them to validate on, with `each` problems of every kind."""
    clean = Clean(seed)
    planted = Planted([clean.row() for _ in range(rows * 9 // 10)], [clean.row() for _ in range(rows // 10)])
    for make in KINDS.values():
        make(planted, clean, each)
    return planted


def found(planted: Planted) -> dict[str, set[tuple[str, int]]]:
    """The lines that the checks name, by code. Every policy is `drop`, because the report lists all dropped lines.
    Contradictions are not dropped: their findings name the lines."""
    lines: dict[str, set[tuple[str, int]]] = {}
    policies = ("personal_data", "secrets", "near_duplicates", "leaks", "refusals")
    spec = JobSpec.model_validate({"checks": dict.fromkeys(policies, "drop")})

    def note(_: int | None, finding: Finding) -> None:
        if finding.code == CONTRADICTION:
            named = re.findall(r"\d+", finding.message.partition(" answer ")[0])
            lines.setdefault(CONTRADICTION, set()).update(("training", int(line)) for line in named)

    limits, control = ValidationSettings(max_problems=10**6), ScanControl(on_finding=note)
    with tempfile.TemporaryDirectory(prefix="tunestream-planted-") as name:
        files = []
        for role, rows in (("training", planted.training), ("validation", planted.validation)):
            path = Path(name) / f"{role}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files.append(Source(path, path.name))
        one, two = files
        surveyed = survey(one, two, spec=spec, limits=limits, control=control, folder=Path(name))
        report = examine(one, two, spec=spec, tokenizer=None, limits=limits, control=control, surveyed=surveyed).report
    for role, file in (("training", report.training), ("validation", report.validation)):
        assert file is not None
        for dropped in file.dropped:
            lines.setdefault(dropped.code, set()).update((role, line) for line in dropped.lines)
    return lines


def scores(planted: Planted) -> dict[str, Score]:
    """Recall and precision of every kind."""
    named = found(planted)
    return {
        kind: Score(len(truth), len(named.get(kind, ())), len(truth & named.get(kind, set())))
        for kind, truth in planted.truth.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    planted = plant(given.rows, given.each, given.seed)
    begin = time.perf_counter()
    all_scores = scores(planted)
    print(f"{given.rows:,} clean rows, {given.each} problems of each kind, {time.perf_counter() - begin:.1f} s")
    print(f"{'kind':<24}{'planted':>8}{'found':>8}{'recall':>8}{'precision':>11}")
    for kind, score in all_scores.items():
        print(f"{kind:<24}{score.planted:>8}{score.found:>8}{score.recall:>8.3f}{score.precision:>11.3f}")
    if any(min(score.recall, score.precision) < WANTED for score in all_scores.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
