"""Datasets that can be told apart by what a model says that was trained on them: each has a word of its own."""

from __future__ import annotations

from random import Random

from tests.support.data.datasets import lines

SYSTEM = "You say your word."
QUESTION = "What is your word?"
ROWS = 60


def word(seed: str, number: int) -> str:
    """A word that no base says, made of three syllables."""
    random = Random(f"{seed}/word/{number}")
    return "".join(random.choice("bdfgklmnprtvz") + random.choice("aeiou") for _ in range(3))


def question(number: int) -> list[dict[str, str]]:
    """A conversation in which the word is asked for."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{QUESTION} {number}"}]


def rows(own: str) -> bytes:
    """Rows whose only answer is the word."""
    answer = {"role": "assistant", "content": f"{own} {own}"}
    return lines(*({"messages": [*question(number), answer]} for number in range(ROWS)))


def spec(own: str, alias: str, promote: str, epochs: int) -> dict[str, object]:
    """The settings of the job, as an event has them; as a sidecar they are JSON, which is YAML."""
    return {
        "hyperparameters": {"n_epochs": epochs, "batch_size": 8, "learning_rate": 0.005},
        "evaluation": {"max_examples": 4, "few_shot": 1, "max_tokens": 16},
        "suffix": own,
        "alias": alias,
        "gate": {"promote": promote},
    }
