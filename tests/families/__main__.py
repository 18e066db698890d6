"""Prints a table, families x kinds of conversation: right, or refused with its reason. Exits with 1 if a cell is wrong.

`python -m tests.families`; it downloads 78 MB the first time, and takes two minutes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from shared.conversation import Unfit
from tests.families.kinds import KINDS
from tests.families.render_server import render_server
from tests.families.served import Base
from tests.families.templates import make_tokenizer, templates
from tests.families.tiny import write_base

RIGHT, REFUSED, WRONG = "right", "refused", "WRONG"


async def row(name: str, template: str) -> dict[str, tuple[str, str]]:
    """What becomes of each kind of conversation with one template, and why."""
    tokenizer, stops = make_tokenizer(template, name)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder), tokenizer, stops)
        # without a parser it refuses requests with tools; which one it is does not matter for prompts
        async with render_server(Path(folder), tool_call_parser="pythonic") as server:
            base = Base(server, tokenizer, stops, reads=False)
            for kind, (messages, tools) in KINDS.items():
                try:
                    wrong = await base.wrong(messages, tools)
                except Unfit as error:
                    results[kind] = (REFUSED, re.sub(r" \(token \d+\)", "", str(error)))
                else:
                    results[kind] = (WRONG, wrong[0]) if wrong else (RIGHT, "")
    return results


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> int:
    logging.disable(logging.WARNING)  # vLLM tells of every conversation that a template refuses
    count: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    say(f"| template | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 1)}")
    for name, template in templates():
        cells = asyncio.run(row(name, template))
        for kind, (result, why) in cells.items():
            count[result] += 1
            if why:
                reasons[f"| {kind} | {result} | {why} |"] += 1
        say(f"| {name} | {' | '.join(result for result, _ in cells.values())} |")
    say("\n| kind | result | reason | templates |\n|---|---|---|---|")
    for reason, templates_with_it in sorted(reasons.items()):
        say(f"{reason} {templates_with_it} |")
    say(f"\n{count[RIGHT]} right, {count[REFUSED]} refused, {count[WRONG]} wrong")
    return 1 if count[WRONG] else 0


if __name__ == "__main__":
    sys.exit(main())
