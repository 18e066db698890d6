"""How many tokens an answer may have, from the references of the dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable

from services.evaluator.domain.examples import Example
from services.evaluator.domain.messages import message_text
from shared.events import Auto, FrozenModel

HEAD_ROOM = 1.5
EXTRA = 32
"""Room for the end of the turn, for the marks of tool calls, and for an empty thought."""
FEWEST = 64
WITHOUT_REFERENCES = 256
THINKING = 2_048
"""Room for thoughts that the references do not have: a base may think before it answers, and is compared, too."""
TOKENS_PER_BYTE = (0.25, 1.0)
"""The bounds of what is believed: English has about 0.25, and no tokenizer needs more than one token per byte."""


class Limit(FrozenModel):
    """The most tokens of an answer, and why."""

    tokens: int
    reason: str
    thinking: int = 0
    """How many more an answer gets that was cut in the middle of its thoughts."""


class Lengths(FrozenModel):
    """Lengths of a split in bytes of UTF-8, and its tokens as the base counts them."""

    longest: int = 0
    """Of the longest reference, with its thoughts."""
    text: int = 0
    """Of all rows together."""
    tokens: int = 0


def lengths_of(examples: Iterable[Example], tokens: int) -> Lengths:
    """Measure the rows of a split. `tokens` is the number of their tokens, as the validator counted them."""
    longest = text = 0
    for example in examples:
        answer = _size(example.reference) + _size(example.thoughts)
        longest = max(longest, answer)
        text += answer + _size(example.prompt or "") + sum(_size(message_text(turn)) for turn in example.messages)
    return Lengths(longest=longest, text=text, tokens=tokens)


def answer_limit(wanted: Auto | int, lengths: Lengths) -> Limit:
    """The limit that is `wanted`, or one that the longest reference fits into with head room."""
    if wanted != "auto":
        return Limit(tokens=wanted, reason="evaluation.max_tokens names it")
    if not lengths.longest:
        return Limit(tokens=WITHOUT_REFERENCES, reason="there are no references to go by", thinking=THINKING)
    fewest, most = TOKENS_PER_BYTE
    density = min(max(lengths.tokens / lengths.text, fewest), most)
    longest = math.ceil(lengths.longest * density)
    tokens = max(FEWEST, math.ceil(longest * HEAD_ROOM) + EXTRA)
    return Limit(
        tokens=tokens,
        reason=f"the longest reference of the test split has about {longest:,} tokens, to which head room was added",
        thinking=THINKING,
    )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
