"""The plain way to encode, which the quick one is compared with: each text rendered and tokenized on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.conversation import TurnEncoder, Turns, Unfit, sent_messages
from tests.families.templates import OURS
from tests.support.data.micro_base import CHATML
from tests.unit.shared.conversation import test_turns
from tests.unit.shared.conversation.rows import ANSWER, CONVERSATIONS, DUMP, DUMP_PARTS, PARTS, TOOL, USER
from tests.unit.shared.conversation.test_content_format import TEMPLATES as FORMATS

LOOP, HEADER = test_turns.LOOP, test_turns.HEADER
EACH = "{% for m in messages %}{{ m.content }}"
SYSTEM = {"role": "system", "content": "Be short."}
LONG = [{"role": role, "content": f"{role} says {n}"} for n in range(6) for role in ("user", "assistant")]

# templates that do what could mislead a reader of their first run
TRICKY = {
    "the last is different": EACH + "{{ '!' if loop.last }}<|im_end|>{% endfor %}" + HEADER,
    "the next is looked at": EACH + "{% if loop.nextitem %}<|pad|>{% endif %}{% endfor %}" + HEADER,
    "only users look ahead": EACH + "{% if m.role == 'user' %}{{ loop.length }}{% endif %}"
    "<|im_end|>{% endfor %}" + HEADER,
    "the loop is printed": EACH + "{{ loop }}{% endfor %}" + HEADER,
    "the first is written at last": "{% set first = messages[0].content %}" + LOOP + "{{ first }}" + HEADER,
    "a macro reads them at last": "{% macro first() %}{{ messages[0].content }}{% endmacro %}"
    + LOOP
    + "{{ first() }}"
    + HEADER,
    "a block reads them at last": LOOP + "{% with said = messages[0].content %}{{ said }}{% endwith %}" + HEADER,
    "tools at last": LOOP + "{% if tools %}{{ tools | length }}<|pad|>{% endif %}" + HEADER,
    "one of two ends": "{% if messages[0].role == 'system' %}"
    + LOOP
    + "<|pad|>{% else %}"
    + LOOP
    + "{% endif %}"
    + HEADER,
    "the second loop decides": LOOP + "{% for m in messages if loop.first %}{{ m.role }}{% endfor %}" + HEADER,
    "counted at first": "{{ messages | length }}" + LOOP + HEADER,
    "counted at last": LOOP + "{{ messages | length }}" + HEADER,
    "the end is looked at": LOOP + "{% if messages[-1].role == 'user' %}<|im_start|>{% endif %}" + HEADER,
    "the end, then the loop": "{{ messages[-1].content }}" + LOOP + HEADER,
    "the third": "{{ messages[2].content if messages[2] }}" + LOOP + HEADER,
    "all but the first": "{{ messages[0].content }}{% set messages = messages[1:] %}" + LOOP + HEADER,
    "all but the last": "{% for m in messages[:-1] %}{{ m.content }}{% endfor %}<|pad|>" + HEADER,
    "reversed": "{% for m in messages | reverse %}{{ m.content }}{% endfor %}" + HEADER,
    "backwards": "{% for m in messages[::-1] %}{{ m.content }}{% endfor %}" + HEADER,
    "two loops": LOOP + LOOP + HEADER,
    "a loop in a loop": EACH + "{% for n in messages %}{{ n.role }}{% endfor %}{% endfor %}" + HEADER,
    "some are filtered": LOOP.replace("in messages", "in messages if m.role != 'user'") + HEADER,
    "selected before": "{% set all = messages | selectattr('role', 'ne', 'system') %}"
    + LOOP.replace("in messages", "in all")
    + HEADER,
    "one is taken of a stream": "{% set all = messages | map(attribute='content') %}{% for m in messages %}"
    "{{ all | first }}{{ m.role }}<|im_end|>{% endfor %}" + HEADER,
    "a memory": "{% set s = namespace(n=0) %}{% for m in messages %}{% set s.n = s.n + 1 %}{{ m.content }}{% endfor %}"
    "{{ s.n }}" + HEADER,
    "a memory in a macro": "{% set s = namespace(n=0) %}{% macro add() %}{% set s.n = s.n + 1 %}{% endmacro %}"
    "{% for m in messages %}{{ add() }}{{ m.content }}{% endfor %}{{ s.n }}" + HEADER,
    "a joiner": "{% set j = joiner(', ') %}{% for m in messages %}{{ j() }}{{ m.content }}{% endfor %}{{ j() }}"
    + HEADER,
    "a cycle": "{% for m in messages %}{{ loop.cycle('a', 'b') }}{{ m.content }}{% endfor %}" + HEADER,
    "a macro goes through them": "{% macro all() %}" + LOOP + "{% endmacro %}{{ all() }}" + HEADER,
    "a block is set": "{% set text %}a" + LOOP + "b{% endset %}{{ text }}" + HEADER,
    "the loop stops": "{% for m in messages %}{% if loop.index == 4 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    + HEADER,
    "there is an else": "{% for m in messages if m.role == 'tool' %}{{ m.content }}{% else %}none{% endfor %}"
    + LOOP
    + HEADER,
    "the header is in the loop": EACH + "<|im_end|>"
    "{% if loop.last and add_generation_prompt %}<|im_start|>assistant\n{% endif %}{% endfor %}",
    "asked at first": "{% if add_generation_prompt %}<|pad|>{% endif %}" + LOOP + HEADER,
    "asked in another way": "{% if add_generation_prompt is true %}<|pad|>{% endif %}" + LOOP + HEADER,
    "asked if it is known": "{% if add_generation_prompt is not defined %}"
    "{% set add_generation_prompt = true %}{% endif %}" + LOOP + HEADER,
    "written": DUMP + LOOP + HEADER,
    "as a text": "{{ messages }}" + LOOP + HEADER,
    "compared": "{% if messages == [] or 5 in messages %}{% endif %}" + LOOP + HEADER,
    "a list?": "{% if messages is sequence and messages is not string and messages is iterable %}<|pad|>{% endif %}"
    + LOOP
    + HEADER,
    "roles must alternate": "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('alternate') }}{% endif %}{{ m.content }}<|im_end|>{% endfor %}" + HEADER,
    "marked": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}" + HEADER,
    "no marks at all": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "spaces between": "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}",
    "rewritten": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}(thinking) {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    + HEADER,
}
TEMPLATES = {
    **{f"ours: {path.stem}": path.read_text() for path in sorted(OURS.glob("*.jinja"))},
    **{f"format {number}": template for number, template in enumerate(FORMATS)},
    **TRICKY,
    "ChatML": CHATML,
    "plain": LOOP + HEADER,
    "thinks": test_turns.THINKS,
    "moves": test_turns.MOVES,
    "a tail": test_turns.TAIL,
    "all": DUMP,
    "all, parts": DUMP_PARTS,
}
ROWS: dict[str, tuple[list[dict[str, Any]], Any]] = {
    **{name: (messages, None) for name, messages in CONVERSATIONS.items()},
    **{f"{name}, tools": (messages, [TOOL]) for name, messages in CONVERSATIONS.items()},
    "long": (LONG, None),
    "long, system": ([SYSTEM, *LONG], None),
    "long, tools": ([SYSTEM, *LONG], [TOOL]),
    "long, calls": ([*LONG, *CONVERSATIONS["tools and result"], *LONG], None),
    "marks in texts": ([{**USER, "content": "<|im_start|>user\n<|im_"}, {**ANSWER, "content": "end|>"}, *LONG], None),
    "the same again": ([USER, ANSWER] * 4, None),
    "empty texts": ([{"role": "user", "content": ""}, {"role": "assistant", "content": ""}, *LONG], None),
    "spaces": ([{"role": role, "content": f" {n} \n"} for n in range(3) for role in ("user", "assistant")], None),
    "thoughts": ([*LONG, *CONVERSATIONS["inline thoughts"], *CONVERSATIONS["reasoning"]], None),
    "parts later": ([*LONG, {"role": "user", "content": PARTS}, {"role": "assistant", "content": PARTS}], None),
    "nobody answers": ([USER], None),
}


class PlainTokens:
    """As `Tokens`, by the tokenizer itself."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def plain_encoder(tokenizer: Any, stops: Sequence[int]) -> TurnEncoder:
    encoder = TurnEncoder(tokenizer, stops)
    encoder._tokens = PlainTokens(tokenizer)  # type: ignore[assignment]
    encoder._template.prefixes = lambda *_: {}  # type: ignore[method-assign]
    return encoder


def conversations() -> dict[str, tuple[list[dict[str, Any]], Any, list[int]]]:
    """What `TurnEncoder` is given for each of the rows."""
    found = {}
    for name, (messages, tools) in ROWS.items():
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]
        found[name] = sent_messages(messages), tools, turns
    return found


def outcome(encoder: TurnEncoder, conversation: tuple[Any, Any, Any]) -> list[Turns] | str:
    try:
        return encoder.encode(*conversation)
    except Unfit as error:
        return str(error)
