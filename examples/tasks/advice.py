"""Five small datasets for `tunestream advise`, each with another right answer: `python -m examples.tasks.advice NAME`
prints one. All are made from the same seed.

`fine_tune`: tickets become records of one form. `too_few`: twelve of these. `changing_facts`: prices and dates that no
prompt holds; `changing_facts_before` is an earlier version of it. `few_shot_enough`: each question is much like another
with the same answer. `contradictory`: labels that two people gave differently.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from examples.support import ask, chat, jsonl
from examples.support_topics import TOPICS
from examples.tasks import labels

SEED = 11
Rows = Iterator[dict[str, Any]]
RECORD = 'Make a record of the ticket: {"department", "urgent", "order"}.'
PRODUCTS = ("kettle", "lamp", "desk", "chair", "mirror", "carpet", "shelf", "toaster", "fan", "heater")
OPENINGS = (
    *("It costs", "We ask", "You pay", "That is", "Right now it is", "The shop asks", "Our price is", "As of today,"),
    *("The tag says", "At present", "They sell it for", "One is", "I see", "My list says", "For you it is", "Just"),
    *("Only", "This week it is", "Since Friday it has been", "The last price was", "Price:", "Still", "Sure:", "Hm,"),
)
ENDINGS = (
    *(
        ".",
        " today.",
        ", I think.",
        " at noon.",
        " so far.",
        " as I write.",
        " for now.",
        " this morning.",
        ", all new.",
    ),
    *(" in blue.", " in red.", ", none reserved.", " at the door.", " upstairs.", " (both kinds).", ", more to come."),
    *(
        " until Monday.",
        ", counted twice.",
        " by our list.",
        ", some boxed.",
        " left.",
        ", hurry.",
        " indeed.",
        ", yes.",
    ),
)
"""No two agents write alike."""
SHOPS = ("Leeds", "Porto", "Ghent", "Turin", "Graz", "Lund", "Brno", "Nantes", "Malmo", "Basel")


def fine_tune(count: int = 240) -> Rows:
    rng = random.Random(SEED)
    asked: set[str] = set()
    while len(asked) < count:
        topic = rng.choice(TOPICS)
        question, _ = ask(topic, rng)
        order, urgent = f"{rng.choice('KLMN')}{rng.randrange(1000, 9999)}", rng.random() < 0.3
        text = f"{question} My order is {order}.{' It is urgent.' if urgent else ''}"
        if text not in asked:
            asked.add(text)
            yield chat(RECORD, text, json.dumps({"department": topic.department, "urgent": urgent, "order": order}))


def too_few() -> Rows:
    return fine_tune(12)


def changing_facts(count: int = 200, version: int = 2) -> Rows:
    """The prices, days and counts of each `version` are others."""
    for number in range(count):
        rng = random.Random(f"{SEED} {version} {number}")
        product, shop = PRODUCTS[number % 10], SHOPS[number // 10 % 10]
        kind = ("small", "large")[number // 100 % 2]
        price, stock = f"${rng.randrange(20, 400)}.{rng.randrange(10, 99)}", rng.randrange(10, 900)
        opening, ending = OPENINGS[number % len(OPENINGS)], ENDINGS[number * 7 % len(ENDINGS)]
        answer = f"{opening} {price}, with {stock} in the store{ending}"
        yield chat("Answer the customer.", f"What is the price of a {kind} {product} in {shop}?", answer)


def changing_facts_before() -> Rows:
    return changing_facts(version=1)


def few_shot_enough() -> Rows:
    return labels.rows(per_label=120)


def contradictory(share: float = 0.4) -> Rows:
    """A share of the tickets comes a second time, with another department."""
    rng = random.Random(SEED)
    for row in labels.rows():
        yield row
        if rng.random() < share:
            question, label = (message["content"] for message in row["messages"][1:])
            yield chat(labels.SYSTEM, question, rng.choice([each for each in labels.LABELS if each != label]))


DATASETS: dict[str, Callable[[], Rows]] = {
    "fine_tune": fine_tune,
    "too_few": too_few,
    "changing_facts": changing_facts,
    "changing_facts_before": changing_facts_before,
    "few_shot_enough": few_shot_enough,
    "contradictory": contradictory,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in DATASETS:
        sys.exit(f"usage: python -m examples.tasks.advice {'|'.join(DATASETS)}")
    sys.stdout.write(jsonl(DATASETS[sys.argv[1]]()))
