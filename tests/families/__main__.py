"""Prints a table, families x kinds of conversation: right, or refused with its reason. Exits with 1 if a cell is wrong.

`python -m tests.families`; it downloads 78 MB the first time, and takes about a minute.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter

from services.trainer.engine.data.chat import ChatEncoder
from shared.conversation import sent_tools
from shared.errors import InputError
from tests.families.judge import wrong
from tests.families.kinds import KINDS
from tests.families.templates import templates, tokenizer_of

RIGHT, REFUSED, WRONG = "right", "refused", "WRONG"


def cell(name: str, template: str, kind: str) -> tuple[str, str]:
    """What becomes of one kind of conversation with one template, and why."""
    messages, tools = KINDS[kind]
    tokenizer, stops = tokenizer_of(name, template)
    try:
        made = ChatEncoder(tokenizer, stops).encode(messages, sent_tools({"tools": tools}), where="line 1")
    except InputError as error:
        return REFUSED, re.sub(r" \(token \d+\)", "", str(error).partition("this conversation: ")[2])
    found = wrong(tokenizer, stops, messages, tools, made)
    return (WRONG, found) if found else (RIGHT, "")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> int:
    logging.disable(logging.WARNING)  # vLLM tells of every conversation that a template refuses
    count: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    say(f"| template | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 1)}")
    for name, template in templates():
        row = []
        for kind in KINDS:
            result, why = cell(name, template, kind)
            count[result] += 1
            row.append(result)
            if why:
                reasons[f"| {kind} | {result} | {why} |"] += 1
        say(f"| {name} | {' | '.join(row)} |")
    say("\n| kind | result | reason | templates |\n|---|---|---|---|")
    for reason, templates_with_it in sorted(reasons.items()):
        say(f"{reason} {templates_with_it} |")
    say(f"\n{count[RIGHT]} right, {count[REFUSED]} refused, {count[WRONG]} wrong")
    return 1 if count[WRONG] else 0


if __name__ == "__main__":
    sys.exit(main())
