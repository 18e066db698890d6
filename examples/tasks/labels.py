"""The bundled ticket labels: `python -m examples.tasks.labels` writes `examples/labels.jsonl` again, byte for byte.

Each row is a question of the support dataset and the department that answers it. The task is a classification with five
balanced labels, scored by exact match, accuracy and macro F1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.support import ask, chat, jsonl
from examples.support_topics import TOPICS

PER_LABEL = 40
SEED = 7
PATH = Path(__file__).parents[1] / "labels.jsonl"
LABELS = tuple(sorted({topic.department for topic in TOPICS}))
SYSTEM = f"Sort the ticket. Answer with one word: {', '.join(LABELS)}."


def rows(per_label: int = PER_LABEL, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Chat rows with every label `per_label` times, no two of them with the same ticket."""
    rng = random.Random(seed)
    tickets: dict[str, str] = {}
    for label in LABELS:
        topics = [topic for topic in TOPICS if topic.department == label]
        target = len(tickets) + per_label
        while len(tickets) < target:
            question, _ = ask(rng.choice(topics), rng)
            tickets.setdefault(question, label)
    for question, label in rng.sample(list(tickets.items()), len(tickets)):
        yield chat(SYSTEM, question, label)


if __name__ == "__main__":
    PATH.write_text(jsonl(rows()), encoding="utf-8")
    print(f"{PATH.name}: {PER_LABEL * len(LABELS)} rows")
