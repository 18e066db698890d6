"""Which parsers a base's profile names for a template, and whether vLLM's own parsers read what the template writes.

`python -m tests.families.parsers` prints the table. It gives the same answers with vLLM 0.26 and 0.32.
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

from shared.base.probes import Found, probe
from shared.conversation import TurnEncoder, Unfit, sent_messages, sent_tools
from tests.families.kinds import THOUGHT, TOOLS, Messages, answer, call, calls, user
from tests.families.templates import make_tokenizer, templates

ANSWERS: dict[str, Messages] = {
    "plain": [user(), answer()],
    "thought": [user(), answer(reasoning_content=THOUGHT)],
    "call": [user(), calls(call(1, order=7731, city="Zürich 東京", fast=True))],
    "calls": [user(), calls(call(1, order=7731), call(2, order=8842))],
    "text and call": [user(), calls(call(1, order=7731), text="I will look it up.")],
}
_TOKENS_OF = {"<|eot_id|>": "<|python_tag|>"}  # in every tokenizer of the family, but not in every template
_ALSO_ENDS = ("[e~[", "</assistant>")  # stop tokens of families for which `make_tokenizer` knows none


def found_for(template: str) -> tuple[Any, tuple[int, ...], Found]:
    """Tokenizer, stop tokens and what the profile says of the template."""
    tokenizer, stops = make_tokenizer(template)
    ends = [end for end in _ALSO_ENDS if end in template]
    tokenizer.add_tokens(
        [*ends, *(token for seen, token in _TOKENS_OF.items() if seen in template)], special_tokens=True
    )
    stops = (*stops, *tokenizer.convert_tokens_to_ids(ends))
    return tokenizer, stops, probe(tokenizer, stops, "", {})


def read(tokenizer: Any, stops: tuple[int, ...], found: Found) -> dict[str, str | None]:
    """For each kind of answer that can be trained: what vLLM reads wrongly in it; None: nothing."""
    results: dict[str, str | None] = {}
    for kind, messages in ANSWERS.items():
        with_call = "call" in kind
        if (with_call and found.tool_call_parser is None) or (not with_call and found.reasoning_parser is None):
            continue
        tools = TOOLS if with_call else None
        try:
            [made] = TurnEncoder(tokenizer, stops).encode(
                sent_messages(messages), sent_tools({"tools": tools}), [len(messages) - 1]
            )
        except Unfit:
            continue
        begin = made.trained.index(True)
        results[kind] = _difference(_parsed(tokenizer, stops, found, made.ids, begin, tools), messages[-1])
    return results


def _parsed(
    tokenizer: Any, stops: tuple[int, ...], found: Found, ids: list[int], begin: int, tools: Any
) -> tuple[str | None, str | None, list[Any]]:
    takes = inspect.signature(ParserManager.get_parser).parameters
    made = ParserManager.get_parser(
        tool_parser_name=found.tool_call_parser,
        reasoning_parser_name=found.reasoning_parser,
        enable_auto_tools=found.tool_call_parser is not None,
        model_name="m",
        is_harmony=found.reasoning_parser == "openai_gptoss",
        **({"tokenizer": tokenizer} if "tokenizer" in takes else {}),
    )
    assert made is not None
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **({"tools": tools} if tools else {})}
    request = ChatCompletionRequest.model_validate(body)
    parser = made(tokenizer, request.tools, chat_template_kwargs={}, model_config=None)
    if hasattr(parser, "set_prompt_token_ids"):
        parser.set_prompt_token_ids(ids[:begin])
    written = ids[begin:-1] if ids[-1] in stops else ids[begin:]
    text = tokenizer.decode(written, skip_special_tokens=False)
    thoughts, content, called = parser.parse(
        text, request, enable_auto_tools=found.tool_call_parser is not None, model_output_token_ids=ids[begin:]
    )
    return thoughts, content, called or []


def _difference(parsed: tuple[str | None, str | None, list[Any]], message: dict[str, Any]) -> str | None:
    thoughts, content, called = parsed
    asked = [one["function"] for one in message.get("tool_calls", ())]
    if [(one.name, json.loads(one.arguments)) for one in called] != [
        (one["name"], json.loads(one["arguments"])) for one in asked
    ]:
        return "calls"
    if (thoughts or "").strip() != message.get("reasoning_content", ""):
        return "thoughts"
    return None if (content or "").strip() == (message["content"] or "") else "text"


def row(name: str, template: str) -> tuple[str, bool]:
    """A row of the table, and whether answers are read as they were meant. Text beside a call may get lost."""
    tokenizer, stops, found = found_for(template)
    cells = [name, found.reasoning, found.reasoning_parser or "", found.tool_call_parser or ""]
    if found.reasoning_parser == "openai_gptoss":
        return f"| {' | '.join(cells)} | not asked: Harmony reads the tokens of its own tokenizer |", True
    results = read(tokenizer, stops, found)
    wrong = {kind: lost for kind, lost in results.items() if lost is not None}
    said = ", ".join(f"{kind}: {lost} differs" for kind, lost in wrong.items()) or ("all" if results else "")
    return f"| {' | '.join(cells)} | {said} |", all(lost == "text" and "call" in kind for kind, lost in wrong.items())


def main() -> int:
    logging.disable(logging.WARNING)
    right = True
    sys.stdout.write(
        "| template | thoughts | reasoning parser | tool-call parser | read by vLLM |\n|---|---|---|---|---|\n"
    )
    for name, template in templates():
        line, read_right = row(name, template)
        right = right and read_right
        sys.stdout.write(line + "\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
