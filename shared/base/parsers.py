"""Which of vLLM's parsers read what a template writes: the calls in an answer, and the thoughts before it.

Every name here exists in vLLM 0.26 and in 0.32. `make families` gives what real templates write to vLLM's own parsers.
A parser that reads an answer wrongly is worse than none (many take all of an answer for thoughts if it holds no mark),
so one is only named for marks that a probe was seen to write.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class _Calls:
    """How calls are written: all of `marks`, and none of `without`."""

    parser: str
    marks: tuple[str, ...]
    without: tuple[str, ...] = ()
    begins: str = ""
    """What the answer begins with, where the marks alone say too little."""
    tokens: tuple[str, ...] = ()
    """Tokens without which vLLM does not start with this parser, or refuses every request."""
    types: tuple[str, ...] = ()
    """The rule is for these `model_type`s only, because other families use the same marks otherwise."""


# The first rule that fits decides, so the special come before the general.
RULES = (
    _Calls("openai", ("<|channel|>commentary", "to=functions.")),
    _Calls("deepseek_v32", ("<｜DSML｜function_calls>",)),
    _Calls("deepseek_v4", ("<｜DSML｜tool_calls>",)),
    _Calls(
        "deepseek_v3",
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "```json"),
        tokens=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    _Calls(
        "deepseek_v31",
        ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
        without=("```json",),
        tokens=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    _Calls("mistral", ("[TOOL_CALLS]",), without=("[CALL_ID]",), tokens=("[TOOL_CALLS]",)),
    _Calls("kimi_k2", ("<|tool_calls_section_begin|>", "functions.")),
    _Calls("seed_oss", ("<seed:tool_call>", "<function=")),
    _Calls("minimax_m2", ("<minimax:tool_call>", "<invoke name=")),
    _Calls("minimax_m3", ("]<]minimax[>[<tool_call>",)),
    _Calls("step3p5", ("<tool_call>", "<function="), types=("step3p5", "step3_5")),
    _Calls("qwen3_coder", ("<tool_call>", "<function=", "<parameter=")),
    _Calls("poolside_v1", ("<tool_call>", "<arg_key>"), types=("laguna",)),
    _Calls("glm47", ("<tool_call>", "<arg_key>")),
    _Calls("ernie45", ("<tool_call>", '"name"'), types=("ernie4_5", "ernie4_5_moe")),
    _Calls("hermes", ("<tool_call>", '"name"', '"arguments"')),
    _Calls("lfm2", ("<|tool_call_start|>[",), tokens=("<|tool_call_start|>", "<|tool_call_end|>")),
    _Calls("gemma4", ("<|tool_call>call:", "<tool_call|>")),
    _Calls("functiongemma", ("<start_function_call>call:",)),
    _Calls("apertus", ("<|tools_prefix|>[",)),
    _Calls("minicpm5", ('<function name="', '<param name="')),
    _Calls("granite", ("<|tool_call|>",), types=("granite", "granitemoe")),
    _Calls("llama4_pythonic", ("<|python_start|>[",), types=("llama4", "llama4_text")),
    # bare JSON has no mark; the parser looks for this token, and for a brace at the start
    _Calls("llama3_json", ('"name"', '"parameters"'), begins="{", tokens=("<|python_tag|>",)),
)


def tool_call_parser(written: str, model_type: str, vocabulary: Container[str]) -> str | None:
    """The parser for calls that a template writes so. `written`: an answer that holds a call."""
    for rule in RULES:
        if (
            all(mark in written for mark in rule.marks)
            and not any(mark in written for mark in rule.without)
            and written.lstrip().startswith(rule.begins)
            and (not rule.types or model_type in rule.types)
        ):
            return rule.parser if all(token in vocabulary for token in rule.tokens) else None
    return None


@dataclass(frozen=True)
class Marks:
    """What opens and what closes a thought."""

    opening: str
    closing: str


HARMONY = Marks("<|channel|>analysis", "<|end|>")
GEMMA = Marks("<|channel>thought", "<channel|>")
MARKS = (
    Marks("<think>", "</think>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<mm:think>", "</mm:think>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    GEMMA,
)


@dataclass(frozen=True)
class Thinking:
    """What probes have shown of a base's thoughts.

    `closed`: the prompt ends with a thought that is closed, so answers hold none. `opened`: it opens one, or tells the
    model to. `marked`: an answer without thoughts is written with the mark that closes them, as a tuned model will
    write it. `switchable`: a request can switch thoughts on or off.
    """

    marks: Marks
    closed: bool
    opened: bool
    marked: bool
    switchable: bool


_OTHERS = {"<seed:think>": "seed_oss", "<mm:think>": "minimax_m3"}
REASONING = ("openai_gptoss", "gemma4", "deepseek_v3", "deepseek_r1", "qwen3", "minimax_m2", "glm47", *_OTHERS.values())
"""Every name that `reasoning_parser` may give."""


def reasoning_parser(thinking: Thinking, calls: str | None, vocabulary: Container[str]) -> str | None:
    """The parser for the thoughts. `calls`: the parser for the calls of the same base."""
    marks = thinking.marks
    if marks == HARMONY:
        return "openai_gptoss"  # vLLM reads answers of this family as Harmony in any case
    if marks == GEMMA:
        return "gemma4"  # which leaves answers without marks alone
    if marks.opening not in vocabulary or marks.closing not in vocabulary:
        return None  # most parsers look for tokens, and vLLM does not start without them
    if marks.opening != "<think>":
        return _OTHERS.get(marks.opening) if thinking.marked else None
    if thinking.closed:
        # it reads thoughts only where a request or a setting switches them on, and leaves a second closing mark in
        return None if thinking.marked else "deepseek_v3"
    if not thinking.marked:
        return None
    if calls in ("minimax_m2", "glm47"):
        return calls
    return "qwen3" if thinking.switchable else "deepseek_r1"
