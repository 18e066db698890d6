"""What a synthesis has made: its rows, each with where it comes from, and a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from services.ingest.domain.synthesis import plan
from services.ingest.domain.synthesis.budget import Cost
from services.ingest.domain.synthesis.history import History, Kept
from services.ingest.domain.synthesis.spec import SynthesisSpec


def rows(spec: SynthesisSpec, history: History) -> Iterator[bytes]:
    """The lines of the dataset, in the order of their slots."""
    for slot in range(spec.count):
        if kept := history.kept.get(slot):
            yield json.dumps(_row(spec, kept), ensure_ascii=False).encode() + b"\n"


def _row(spec: SynthesisSpec, kept: Kept) -> dict[str, Any]:
    take = plan.take(spec, (), kept.slot, kept.attempt)
    messages = [
        *([{"role": "system", "content": spec.system}] if spec.system else []),
        {"role": "user", "content": kept.query},
        {"role": "assistant", "content": kept.answer},
    ]
    # texts, as the metadata of the OpenAI API are
    metadata = {
        "source": "synthesis",
        "model": spec.model,
        "scenario": take.scenario.name,
        "persona": take.persona,
        "difficulty": take.difficulty,
        "length": take.length,
        "language": take.language,
        "slot": str(kept.slot),
        "attempt": str(kept.attempt),
    }
    if kept.score is not None and spec.judge:
        metadata |= {"judge": spec.judge.model or spec.model, "judge_score": str(kept.score)}
    return {"messages": messages, "metadata": metadata}


def made(spec: SynthesisSpec, history: History) -> int:
    """How many rows there are, of those that are wanted."""
    return sum(1 for slot in history.kept if slot < spec.count)


def given_up(spec: SynthesisSpec, history: History) -> int:
    """How many rows were tried as often as they may be."""
    return sum(
        1
        for slot, dropped in history.dropped.items()
        if slot < spec.count and slot not in history.kept and len(dropped) >= spec.attempts
    )


def rest(spec: SynthesisSpec, history: History) -> Cost | None:
    """What the missing rows would cost, by what those that are made have cost; None: there are none to judge by."""
    have = made(spec, history)
    missing = spec.count - have - given_up(spec, history)
    if not have:
        return None if missing else Cost()
    used, share = history.used, missing / have
    return Cost(input=round(used.input * share), output=round(used.output * share), money=used.money * share)


def report(
    spec: SynthesisSpec, history: History, end: str, seconds: float, made_now: int, error: str | None
) -> dict[str, Any]:
    """What the run came to. `seconds` and `made_now` are of the last run, everything else is of all."""
    used, more = history.used, rest(spec, history)
    scores = [kept.score for kept in history.kept.values() if kept.score is not None]
    return {
        "end": end,
        "error": error,
        "wanted": spec.count,
        "made": made(spec, history),
        "given_up": given_up(spec, history),
        "refused": dict(sorted(history.reasons().items())),
        "requests": history.requests,
        "requests_without_reply": history.lost,
        "tokens": {"input": used.input, "output": used.output},
        "money": round(used.money, 6) if spec.prices else None,
        "budget": spec.budget.model_dump(exclude_none=True),
        "rest": {"tokens": more.tokens, "money": round(more.money, 6) if spec.prices else None} if more else None,
        "judge_scores": {str(score): scores.count(score) for score in sorted(set(scores))},
        "seconds": round(seconds, 1),
        "seconds_per_row": round(seconds / made_now, 2) if made_now else None,
        "request_seconds": round(sum(answer.seconds for answer in history.answers.values()), 1),
    }
