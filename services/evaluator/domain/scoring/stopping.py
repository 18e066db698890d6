"""How often the model ends its answers by itself. A model that did not learn its end-of-turn token runs on to the
limit."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain.answers import Answer


def stop_share(answers: Sequence[Answer]) -> float:
    """The share of answers that ended by themselves, from 0 to 1."""
    return sum(_stopped(answer) for answer in answers) / len(answers) if answers else 0.0


def fair_stop_share(references: Sequence[str], answers: Sequence[Answer]) -> float | None:
    """Of the answers that had room to end, the share that ended by themselves.

    Thoughts apart, an answer that was cut at `max_tokens` before it was as long as its reference says nothing about the
    model, and neither does a refused one. None: there is no answer to judge by.
    """
    judged = [
        _stopped(answer)
        for reference, answer in zip(references, answers, strict=True)
        if answer.error is None and (_stopped(answer) or len(answer.reply().text) >= len(reference))
    ]
    return sum(judged) / len(judged) if judged else None


def _stopped(answer: Answer) -> bool:
    return answer.error is None and answer.finish_reason not in (None, "length")
