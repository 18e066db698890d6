"""Files of chat rows, seeded: a system text, a question and an answer of ordinary words, about 750 bytes a row."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

_WORDS = """
a about account address after again all also an and any are as at back be been before best billing but by call
can cancel card change charge check customer date day delivery did different do does email error every find
first for from get go good had has have help here how if in invoice is it item just know last let like link
made make many may me month more my name need new next no not now number of on one open or order other our out
over page pay please problem product question refund report request return right see send service set she
should so some still support sure system take thank that the their them then there these they this time to two
up update use used user want was we week well were what when where which who will with work would you your
"""
_RARE = "“quote” café — naïve"
_HALVES = 4000
SYSTEM = "You are the support of a shop. Be kind and brief."


def chat_rows(count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` different rows, each a line without its end."""
    chance = random.Random(seed)
    # every third row holds a letter outside ASCII, which json.dumps escapes
    words = _WORDS.split() * 100 + _RARE.split() * 10

    def text(length: int) -> str:
        made = " ".join(chance.choices(words, k=length // 5))
        return made[:1].upper() + made[1:] + "."

    for number in range(count):
        asked, said = text(230), f"{text(180)}\n\n- {text(80)}\n- {text(60)}"
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{asked} Ticket {number}."},
            {"role": "assistant", "content": said},
        ]
        yield json.dumps({"messages": messages}).encode()


def write_rows(path: Path, count: int) -> Path:
    """A file of `count` different rows."""
    with path.open("wb") as file:
        for row in chat_rows(count):
            file.write(row + b"\n")
    return path


def write_size(path: Path, size: int) -> Path:
    """A file of about `size` bytes, no two of whose rows are nearly the same. Questions and answers are each put
    together of two halves out of some thousands, because making gigabytes of words takes longer than checking them."""
    halves: list[list[bytes]] = [[] for _ in range(4)]
    for row in chat_rows(_HALVES):
        messages = json.loads(row)["messages"]
        for number, message in enumerate(messages[1:]):
            text, middle = message["content"], len(message["content"]) // 2
            for half, part in enumerate((text[:middle], text[middle:])):
                halves[2 * number + half].append(json.dumps(part)[1:-1].encode())
    chance = random.Random(2)
    system = json.dumps({"role": "system", "content": SYSTEM}).encode()
    written = number = 0
    with path.open("wb") as file:
        while written < size:
            number += 1
            one, two, three, four = (some[chance.randrange(_HALVES)] for some in halves)
            written += file.write(
                b'{"messages": [%b, {"role": "user", "content": "%b%b Number %d."}, '
                b'{"role": "assistant", "content": "%b%b"}]}\n' % (system, one, two, number, three, four)
            )
    return path
