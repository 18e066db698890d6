"""Whether an answer repeats its prompt instead of answering it."""

from __future__ import annotations

from services.evaluator.domain.examples import Example
from services.evaluator.domain.messages import message_text
from shared.scoring.words import words

SHORTEST = 4
"""In words. Shorter prompts and answers are alike by chance."""
PIECE = 6
"""An answer that is a piece of its prompt is an echo from so many words on."""


def question_of(example: Example) -> str:
    """What was asked last: the last message, or the whole text that is to be continued."""
    if example.prompt is not None:
        return example.prompt
    return message_text(example.messages[-1]) if example.messages else ""


def echoes(question: str, answer: str) -> bool:
    """Whether the answer holds the whole question, or is nothing but a piece of it. Case, punctuation and white space
    do not matter."""
    asked, said = words(question), words(answer)
    if len(asked) >= SHORTEST and _within(asked, said):
        return True
    return len(said) >= PIECE and _within(said, asked)


def _within(part: list[str], whole: list[str]) -> bool:
    return f" {' '.join(part)} " in f" {' '.join(whole)} "
