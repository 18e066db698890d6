"""The answers of a model, and the variants whose answers are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from services.evaluator.domain.replies import Reply, reply_of
from services.evaluator.domain.tool_calls import ToolCall
from shared.conversation.thoughts import parted
from shared.events import FrozenModel

Variant = Literal["base", "few_shot", "tuned", "champion"]
VARIANTS: tuple[Variant, ...] = ("base", "few_shot", "tuned", "champion")
"""What is compared on the test rows. The champion is the model that the alias names now."""
Part = str
"""What is asked, as its answers are kept: a `Variant` the test rows, `general_base` and `general_tuned` the general
questions, `rival-{number}-{name}` the test rows, `timed` some of them again."""


class Answer(FrozenModel):
    """One answer. `error` says why there is no text; `finish_reason` comes from the server (`stop`, `length`, ...)."""

    text: str = ""
    """As it came, with thoughts that the server left in it, and a line per tool call that the server parsed."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls that the server parsed."""
    finish_reason: str | None = None
    error: str | None = None
    cut_in_thoughts: bool = False
    """It was cut before its thoughts ended, so there is no answer."""
    fallback: int = 0
    """How many longer prompts were refused before the one that was answered (few-shot: examples left out)."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_seconds: float = 0.0
    first_token_seconds: float | None = None
    """Of an answer that was streamed."""

    def reply(self) -> Reply:
        """What is scored: the answer as a client sees it."""
        return Reply() if self.cut_in_thoughts else reply_of(self.text, self.tool_calls)


def cuts_found(answers: Mapping[Variant, Sequence[Answer]]) -> dict[Variant, list[Answer]]:
    """The answers, with those marked that were cut inside thoughts which the prompt had opened. Such an answer bears no
    mark itself; but another answer of the same base tells, which closes thoughts that it did not open."""
    told = any(not parted(answer.text).opened for given in answers.values() for answer in given)
    return {variant: [_marked(answer) if told else answer for answer in given] for variant, given in answers.items()}


def _marked(answer: Answer) -> Answer:
    if answer.finish_reason != "length" or parted(answer.text).thoughts is not None:
        return answer
    return answer.model_copy(update={"cut_in_thoughts": True})


class Usage(FrozenModel):
    """What the answers of one variant cost. Latencies are in seconds per request, without retries."""

    requests: int
    refused: int
    shortened: int
    cut_in_thoughts: int
    prompt_tokens: int
    completion_tokens: int
    latency_median: float
    latency_p95: float


def usage(answers: Sequence[Answer]) -> Usage:
    """Sum up what answers cost; all zeros where there are none."""
    latencies = [answer.latency_seconds for answer in answers] or [0.0]
    return Usage(
        requests=len(answers),
        refused=sum(answer.error is not None for answer in answers),
        shortened=sum(answer.fallback > 0 for answer in answers),
        cut_in_thoughts=sum(answer.cut_in_thoughts for answer in answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        latency_median=quantile(latencies, 0.5),
        latency_p95=quantile(latencies, 0.95),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of `values`, interpolated linearly. `share` is between 0 and 1."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
