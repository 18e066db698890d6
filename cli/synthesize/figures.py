"""The figures of a synthesis in one line."""

from __future__ import annotations

from cli.jobs.figures import duration
from services.ingest.domain.synthesis import results
from services.ingest.domain.synthesis.history import History
from services.ingest.domain.synthesis.spec import SynthesisSpec


def money(amount: float) -> str:
    """An amount in the currency of the prices, with as many digits as it takes to see it."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.4g}"


def line(spec: SynthesisSpec, history: History, seconds: float, made_before: int) -> str:
    """`37/200 rows  12 refused  0.0123 of 5.00  41,200 tokens  2 min 05 s left`. `seconds` have passed since there were
    `made_before` rows."""
    made, used = results.made(spec, history), history.used
    parts = [f"{made:,}/{spec.count:,} rows"]
    if refused := sum(history.reasons().values()):
        parts.append(f"{refused:,} refused")
    if spec.prices:
        parts.append(money(used.money) + (f" of {money(spec.budget.money)}" if spec.budget.money is not None else ""))
    parts.append(f"{used.tokens:,}{f' of {spec.budget.tokens:,}' if spec.budget.tokens is not None else ''} tokens")
    missing = spec.count - made - results.given_up(spec, history)
    if missing and made > made_before:
        parts.append(f"{duration(seconds / (made - made_before) * missing)} left")
    return "  ".join(parts)
