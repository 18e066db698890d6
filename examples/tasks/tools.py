"""The bundled tool calls: `python -m examples.tasks.tools` writes `examples/tools.jsonl` again, byte for byte.

Larkfield's support desk has three tools. Most questions are answered by one call, some by two, some by none, and some
conversations go on after the result of a call. Every argument is an integer of the question: in JSON as in a question a
space comes before it, so both are the same tokens, and the tiny base can copy it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.support import ENDINGS, NAMES, OPENERS, SIGNED, jsonl, sentence

ROWS = 420
SEED = 11
PATH = Path(__file__).parents[1] / "tools.jsonl"
SYSTEM = "You are the support desk of Larkfield."

STATUS = (
    "Where is order {order}?",
    "Where is my order {order}?",
    "Has order {order} left yet?",
    "What is the status of order {order}?",
    "When does order {order} arrive?",
    "I am still waiting for order {order}.",
    "Can you track order {order} for me?",
)
REFUND = (
    "Please refund order {order}.",
    "I want my money back for order {order}.",
    "Can I get a refund for order {order}?",
    "Order {order} is broken. I would like my money back.",
    "Order {order} came too late, please pay it back.",
    "I do not want order {order} any more. Can I have a refund?",
)
CARD = (
    "How much is left on gift card {card}?",
    "What is my gift card {card} worth?",
    "Is there any money on gift card {card}?",
    "Please check gift card {card}.",
    "Can I still use gift card {card}?",
)
BOTH = (
    "Where are my orders {order} and {other}?",
    "Have orders {order} and {other} left yet?",
    "When do orders {order} and {other} arrive?",
)
WITHOUT_NUMBER = (
    "Where is my order?",
    "I am still waiting for my order.",
    "When does my order arrive?",
    "I want my money back.",
    "Can I get a refund?",
)
SMALL_TALK = ("Is anybody there?", "I have a question.", "I need some help.")

Message = dict[str, Any]
Maker = Callable[[random.Random], list[Message]]


def tool(name: str, description: str, *integers: str) -> dict[str, Any]:
    """What a client offers; `required` is left out, because every token of it is read again in every row."""
    parameters = {"type": "object", "properties": {argument: {"type": "integer"} for argument in integers}}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = (
    tool("order_status", "Find an order.", "order"),
    tool("refund", "Pay an order back.", "order"),
    tool("gift_card", "Check a gift card.", "card"),
)


def rows(
    count: int = ROWS, seed: int = SEED, kinds: Sequence[Maker] = (), tools: Sequence[dict[str, Any]] = TOOLS
) -> Iterator[dict[str, Any]]:
    """Chat rows with tools, no two of them with the same question; the kinds take turns in a shuffled order."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        for make in rng.sample(kinds or KINDS, len(kinds or KINDS)):
            messages = make(rng)
            question = messages[0]["content"]
            if question not in seen and len(seen) < count:
                seen.add(question)
                yield {"messages": [{"role": "system", "content": SYSTEM}, *messages], "tools": list(tools)}


def asks(rng: random.Random, texts: tuple[str, ...], **slots: int) -> Message:
    """A customer's question, sometimes with a greeting, a name or thanks."""
    name = rng.choice(NAMES) if rng.random() < 0.4 else None
    ending = rng.choice(ENDINGS)
    if "{name}" in ending and name is None:
        ending = ""
    signed = rng.choice(SIGNED) if name and "{name}" not in ending else ""
    text = f"{rng.choice(OPENERS)}{signed}{rng.choice(texts)}{ending}"
    return {"role": "user", "content": sentence(text.format(name=name, **slots))}


def calls(*called: tuple[str, dict[str, int]]) -> Message:
    return {
        "role": "assistant",
        "tool_calls": [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for number, (name, arguments) in enumerate(called, 1)
        ],
    }


def says(text: str) -> Message:
    return {"role": "assistant", "content": text}


def finds(**found: int) -> Message:
    """The result of the first call."""
    return {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(found)}


def an_order(rng: random.Random) -> int:
    return rng.randrange(10_000, 100_000)


def a_card(rng: random.Random) -> int:
    return rng.randrange(100_000, 1_000_000)


# --- kinds of conversation --------------------------------------------------------------------------------------------


def status(rng: random.Random) -> list[Message]:
    order = an_order(rng)
    return [asks(rng, STATUS, order=order), calls(("order_status", {"order": order}))]


def refund(rng: random.Random) -> list[Message]:
    order = an_order(rng)
    return [asks(rng, REFUND, order=order), calls(("refund", {"order": order}))]


def gift_card(rng: random.Random) -> list[Message]:
    card = a_card(rng)
    return [asks(rng, CARD, card=card), calls(("gift_card", {"card": card}))]


def two_orders(rng: random.Random) -> list[Message]:
    order, other = an_order(rng), an_order(rng)
    question = asks(rng, BOTH, order=order, other=other)
    return [question, calls(("order_status", {"order": order}), ("order_status", {"order": other}))]


def status_told(rng: random.Random) -> list[Message]:
    order, days = an_order(rng), rng.randrange(2, 10)
    called = calls(("order_status", {"order": order}))
    return [asks(rng, STATUS, order=order), called, finds(days=days), says(f"Order {order} arrives in {days} days.")]


def worth_told(rng: random.Random) -> list[Message]:
    card, euros = a_card(rng), rng.randrange(10, 100)
    called, told = calls(("gift_card", {"card": card})), f"Gift card {card} is worth {euros} euros."
    return [asks(rng, CARD, card=card), called, finds(euros=euros), says(told)]


def without_number(rng: random.Random) -> list[Message]:
    return [asks(rng, WITHOUT_NUMBER), says("Which order is it? Please tell me its number.")]


def small_talk(rng: random.Random) -> list[Message]:
    return [asks(rng, SMALL_TALK), says("Yes, how can I help you?")]


KINDS: tuple[Maker, ...] = (
    *(status, refund, gift_card) * 4,
    *(two_orders, status_told, worth_told, without_number, without_number, small_talk),
)
"""How often each kind comes: two questions in three are answered by one call."""


if __name__ == "__main__":
    PATH.write_text(jsonl(rows()), encoding="utf-8")
    print(f"{PATH.name}: {ROWS} rows")
