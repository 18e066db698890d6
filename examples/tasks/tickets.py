"""The bundled help-desk export: `python -m examples.tasks.tickets` writes `examples/tickets.csv` again, byte for byte.

It is what a help desk of Larkfield would export: a ticket in each row, some with a second message, some without an
answer, some with a bad one and a low score, cells with quotes and line breaks. `tickets.job.yaml` beside it says what
is taken of it.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from examples.support import ask
from examples.support_topics import TOPICS

TICKETS = 400
SEED = 31
PATH = Path(__file__).parents[1] / "tickets.csv"
HEADER = ("Ticket ID", "Created At", "Channel", "Customer Message", "Agent Response", "Satisfaction Score")
CURT = ("Please read the manual.", "We cannot help with that.", "See our website.")
POSTSCRIPT = ' P.S. The label says "this side up".'

Row = tuple[str, str, str, str, str, str]


def rows(tickets: int = TICKETS, seed: int = SEED) -> Iterator[Row]:
    """The rows of a table, with its header. Tickets are in the order in which they came, their messages are not."""
    rng = random.Random(seed)
    at = datetime(2024, 3, 1, 8)
    yield HEADER
    for number in range(1, tickets + 1):
        at += timedelta(minutes=rng.randrange(5, 60))
        messages = [_message(rng) for _ in range(2 if rng.random() < 0.05 else 1)]
        channel, kind = rng.choice(("e-mail", "chat", "web form")), rng.random()
        made = []
        for turn, (question, answer) in enumerate(messages):
            came = (at + timedelta(minutes=2 * turn)).strftime("%Y-%m-%d %H:%M")
            if kind < 0.05:
                made.append((f"L-{number:04}", came, channel, question, "", ""))
            elif kind < 0.15:
                made.append((f"L-{number:04}", came, channel, question, rng.choice(CURT), str(rng.randrange(1, 4))))
            else:
                made.append((f"L-{number:04}", came, channel, question, answer, str(rng.randrange(4, 6))))
        yield from reversed(made)  # the newest message first, as many help desks export them


def _message(rng: random.Random) -> tuple[str, str]:
    question, answer = ask(rng.choice(TOPICS), rng)
    if rng.random() < 0.06:
        question = question.replace(". ", ".\n", 1)
    if rng.random() < 0.04:
        question += POSTSCRIPT
    return question, answer


def table(found: Iterator[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(found)
    return text.getvalue()


if __name__ == "__main__":
    PATH.write_text(table(rows()), encoding="utf-8")
    print(f"{PATH.name}: {TICKETS} tickets")
