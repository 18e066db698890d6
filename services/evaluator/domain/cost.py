"""What answers cost, and how fast they come."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain.answers import Answer, quantile
from shared.events import FrozenModel, Price


class Speed(FrozenModel):
    """Seconds of one answer as a client sees them, from the request on."""

    answers: int
    first_token_median: float | None
    """Until the first token, be it of a thought; None: it was not streamed."""
    total_median: float
    total_p95: float


def speed_of(answers: Sequence[Answer]) -> Speed | None:
    """The speed of those that were answered; None if none was."""
    given = [answer for answer in answers if answer.error is None]
    if not given:
        return None
    first = [answer.first_token_seconds for answer in given if answer.first_token_seconds is not None]
    totals = [answer.latency_seconds for answer in given]
    return Speed(
        answers=len(given),
        first_token_median=quantile(first, 0.5) if first else None,
        total_median=quantile(totals, 0.5),
        total_p95=quantile(totals, 0.95),
    )


def per_thousand(price: Price | None, answers: Sequence[Answer], at_a_time: int) -> float | None:
    """The price of 1,000 such answers; None if no price is known, or nothing was answered. `at_a_time`: how many were
    under way together, which share the price of an hour."""
    given = [answer for answer in answers if answer.error is None]
    if price is None or not given:
        return None
    tokens = sum(
        answer.prompt_tokens * price.input_per_million + answer.completion_tokens * price.output_per_million
        for answer in given
    )
    hours = sum(answer.latency_seconds for answer in given) / 3600 / max(1, min(at_a_time, len(given)))
    return 1000 * (tokens / 1e6 + hours * price.per_hour) / len(given)
