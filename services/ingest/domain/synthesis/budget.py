"""What requests may cost, and that a budget is never passed.

A token is at least one byte of text, so the bytes of a prompt bound its tokens, whatever the tokenizer is. Before a
request is sent, the most that it may cost is written to the journal. What is really used replaces it. What nobody
knows, because a reply was lost, counts in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from services.ingest.domain.synthesis.prompts import Prompt
from services.ingest.domain.synthesis.spec import Budget, Prices

TEMPLATE_TOKENS = 256
"""What a chat template may add to a prompt, such as a date and a system text of its own."""
MESSAGE_TOKENS = 16
"""The marks around one message."""


class Cost(BaseModel):
    """Tokens, and what they cost in the currency of the prices."""

    model_config = ConfigDict(frozen=True)

    input: int = 0
    output: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def __add__(self, other: Cost) -> Cost:
        return Cost(input=self.input + other.input, output=self.output + other.output, money=self.money + other.money)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum."""
    whole = Cost()
    for cost in costs:
        whole += cost
    return whole


def cost(input_tokens: int, output_tokens: int, prices: Prices | None) -> Cost:
    """What so many tokens cost."""
    money = (input_tokens * prices.input + output_tokens * prices.output) / 1e6 if prices else 0.0
    return Cost(input=input_tokens, output=output_tokens, money=money)


def most(prompt: Prompt, prices: Prices | None) -> Cost:
    """The most that a request may cost."""
    text = sum(len(message["content"].encode("utf-8", "replace")) for message in prompt.messages)
    return cost(text + TEMPLATE_TOKENS + MESSAGE_TOKENS * len(prompt.messages), prompt.max_tokens, prices)


@dataclass(frozen=True)
class Left:
    """A budget, and what is spent or promised of it."""

    budget: Budget
    used: Cost

    def has(self, more: Cost) -> bool:
        """Whether `more` may be spent, too."""
        money, tokens = self.budget.money, self.budget.tokens
        after = self.used + more
        # sums of money differ in their last digits by the order of their parts
        return (money is None or after.money <= money * (1 - 1e-12)) and (tokens is None or after.tokens <= tokens)
