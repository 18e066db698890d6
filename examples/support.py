"""The bundled support dataset: `python -m examples.support` writes `examples/support.jsonl` again, byte for byte.

Larkfield, its customers and its policies are made up. Every answer follows the house style: a greeting that repeats
the customer's name, the matter and the order number, the policy, and the signature of the department.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.support_topics import ITEMS, TOPICS, Topic

ROWS = 560
SEED = 20240611
PATH = Path(__file__).with_name("support.jsonl")
SYSTEM = "You are the support desk of Larkfield. Answer in the house style."

NAMES = (
    "Maya", "Jonas", "Priya", "Oscar", "Elena", "Tariq", "Ingrid", "Samuel", "Yuki", "Hannah", "Diego", "Amara",
    "Felix", "Noor", "Clara", "Victor", "Leila", "Bruno", "Wanda", "Ravi", "Astrid", "Marco", "Zoe", "Peter",
    "Freya", "Hassan", "Judith", "Colin", "Mira", "Stefan", "Agnes", "Theo", "Carmen", "Nils", "Rosa", "Kemal",
    "Lydia", "Arthur", "Selma", "Dennis", "Paula", "Igor", "Nadia", "Simon", "Greta", "Luca", "Olive", "Martin",
)  # fmt: skip
OPENERS = ("Hello. ", "Hi there. ", "Good morning. ", "Good evening. ", "Dear team. ", "A quick question. ", "", "", "")
SIGNED = ("This is {name}. ", "{name} here. ", "My name is {name}. ", "I am {name}. ")
NUMBERED = ("My order is {order}. ", "It is about order {order}. ", "Order number {order}. ", "Regarding {order}: ")
ENDINGS = ("", "", "", " Thank you!", " Thanks in advance.", " Please help.", " Many thanks, {name}")


def rows(count: int = ROWS, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Chat rows, no two of them with the same question; topics take turns in a shuffled order."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        for topic in rng.sample(TOPICS, len(TOPICS)):
            question, answer = ask(topic, rng)
            if question not in seen and len(seen) < count:
                seen.add(question)
                yield chat(SYSTEM, question, answer)


def ask(topic: Topic, rng: random.Random) -> tuple[str, str]:
    """A customer's question and the shop's answer."""
    slots = {"item": rng.choice(ITEMS), **rng.choice(topic.facets)}
    name = rng.choice(NAMES) if rng.random() < 0.7 else None
    order = str(rng.randrange(10_000, 100_000)) if rng.random() < 0.6 else None
    ending = rng.choice(ENDINGS)
    if "{name}" in ending and name is None:
        ending = ""
    parts = [rng.choice(OPENERS)]
    if name and "{name}" not in ending:
        parts.append(rng.choice(SIGNED))
    if order:
        parts.append(rng.choice(NUMBERED))
    parts += [rng.choice(topic.questions), ending]
    question = sentence("".join(parts).format(name=name, order=order, **slots))
    hello = f"Hello {name}" if name else "Hello"
    within = f" in order {order}" if order else ""
    policy = topic.policy.format(**slots)
    signature = f"Kind regards, your {topic.department} team"
    return question, f"{hello}, thank you for asking about {topic.subject}{within}. {policy} {signature}"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def chat(system: str, question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def jsonl(examples: Iterator[dict[str, Any]]) -> str:
    return "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples)


if __name__ == "__main__":
    PATH.write_text(jsonl(rows()), encoding="utf-8")
    print(f"{PATH.name}: {ROWS} rows")
