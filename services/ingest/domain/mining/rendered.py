"""A conversation written as one text the way a chat template writes it: ChatML, Llama, Mistral, Gemma, Phi, Zephyr."""

from __future__ import annotations

import re
from typing import NamedTuple

_TURN = re.compile(
    r"""
      <\|im_start\|>[ ]*(?P<chatml>[\w-]+)[ \t]*\n?                                               # ChatML, Qwen
    | <\|(?:start_header_id|header_start)\|>[ ]*(?P<llama>[\w-]+)[ ]*
      <\|(?:end_header_id|header_end)\|>\s*                                                       # Llama 3 and 4
    | <start_of_turn>[ ]*(?P<gemma>[\w-]+)[ \t]*\n?                                               # Gemma
    | <\|(?P<phi>system|user|assistant|tool)\|>[ \t]*\n?                                          # Phi, Zephyr
    | (?P<asked>\[INST\])                                                                         # Llama 2, Mistral
    | (?P<answered>\[/INST\])
    """,
    re.VERBOSE,
)
_BEGIN = re.compile(r"^\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)*\s*")
_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>",
    "</s>", "<s>", "<eos>",
)  # fmt: skip
_SYSTEM = re.compile(r"^\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
"""Where Llama 2 has its system prompt: in the first question."""


class Said(NamedTuple):
    """One turn. `who`: as it is written."""

    who: str
    text: str


def turns_of(text: str) -> list[Said]:
    """The turns of a text that begins as a template does; of any other one, none. A turn without a text, as a prompt
    for generation ends with, is none."""
    begin = _BEGIN.match(text)
    assert begin is not None  # it may be empty
    found = list(_TURN.finditer(text, begin.end()))
    if not found or found[0].start() != begin.end():
        return []
    ends = [each.start() for each in found[1:]] + [len(text)]
    turns = [Said(_who(each), _without_end(text[each.end() : end])) for each, end in zip(found, ends, strict=True)]
    if found[0]["asked"] and (system := _SYSTEM.match(turns[0].text)):
        turns[:1] = [Said("system", system[1].strip()), Said("user", turns[0].text[system.end() :].strip())]
    return [turn for turn in turns if turn.text]


def _who(found: re.Match[str]) -> str:
    if found["asked"] or found["answered"]:
        return "user" if found["asked"] else "assistant"
    return str(found[found.lastgroup or 0])


def _without_end(text: str) -> str:
    """The text of a turn without the marks after it."""
    text = text.strip()
    while text.endswith(_ENDS):
        text = next(text.removesuffix(mark) for mark in _ENDS if text.endswith(mark)).rstrip()
    return text
