"""A row as one question and its answer, whatever its format, and the facts that stand in an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUMBER = re.compile(r"(?<![\w.])[$€£]?\d[\d.,:/-]*\d%?(?!\w)|[$€£]\d")
"""Prices, dates, times, versions, counts of two digits and more. A single digit is in every list of steps."""
CODE = re.compile(r"\b(?=[\w-]{0,40}\d)(?=[\w-]{0,40}[A-Za-z])[A-Za-z0-9][A-Za-z0-9-]{3,40}\b")
"""Order numbers and names of products, such as `X200` and `AB-1234`."""
LINK = re.compile(r"https?://\S+|\b[\w.+-]{1,64}@[\w-]{1,64}\.\w{2,10}\b")
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")
"""Capitals within a sentence. Where every noun has one, as in German, no names are looked for."""
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)


MOST_CHARS = 10_000
"""So much of an answer is searched for facts."""


@dataclass(frozen=True)
class Sample:
    """`messages`: the prompt; `answer`: the first call of a tool that is trained on, as JSON, else the last answer;
    `called`: it is a call; `tools`: what may be called."""

    messages: tuple[Mapping[str, Any], ...]
    answer: str
    called: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def prompt(self) -> str:
        """All that the model is told."""
        return "\n".join(text_of(message.get("content")) for message in self.messages)

    @property
    def question(self) -> str:
        """What the user said last."""
        said = [text_of(each.get("content")) for each in self.messages if each.get("role") == "user"]
        return said[-1] if said else self.prompt


def sample_of(row: Mapping[str, Any]) -> Sample | None:
    """The question and answer of a checked row; None: it has none that is trained on."""
    if "messages" in row:
        messages = row["messages"]
        trained = [n for n, each in enumerate(messages) if each["role"] == "assistant" and each.get("weight") != 0]
        if not trained:
            return None
        at = next((n for n in trained if messages[n].get("tool_calls")), trained[-1])
        return _sample(messages[:at], messages[at], row.get("tools"))
    if "preferred_completion" in row:
        return _sample(row["input"]["messages"], row["preferred_completion"][0], row["input"].get("tools"))
    return Sample(({"role": "user", "content": row["prompt"]},), row["completion"])


def _sample(messages: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], tools: Any) -> Sample:
    if calls := answer.get("tool_calls"):
        functions = [call.get("function", {}) for call in calls]
        return Sample(tuple(messages), json.dumps(functions, sort_keys=True), True, tuple(tools or ()))
    return Sample(tuple(messages), text_of(answer.get("content")))


def text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def folded(text: str) -> str:
    """Without differences of case and white space."""
    return " ".join(text.lower().split())


def pattern(text: str) -> str:
    """The same for texts that differ in numbers only."""
    return re.sub(r"\d+", "0", folded(text))


def facts_in(text: str, *, names: bool = True) -> set[str]:
    """What of a text somebody has to know: numbers, prices, dates, codes, links and, where they can be told by their
    capitals, `names`."""
    text = text[:MOST_CHARS]
    found = {match.strip(".,:/-") for match in NUMBER.findall(text)}
    found |= set(CODE.findall(text)) | {match.rstrip(".,)") for match in LINK.findall(text)}
    if names:
        found |= {match for match in NAME.findall(text) if match.lower() not in (*DAYS, *MONTHS)}
    return {each for each in found if each}


def capitals_everywhere(text: str) -> bool:
    """Whether a language writes so many words with a capital that names cannot be told by it."""
    words = re.findall(r"[A-Za-z]{3,}", text)
    return sum(1 for word in words if word[0].isupper()) > 0.25 * len(words)
