"""Texts that nobody would write on purpose: damaged, empty of sense, or left over from a tool. A model learns them all
the same, so each is named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

from services.validate.domain.survey.said import Said, text_of_message


class Flaw(NamedTuple):
    """What is wrong with a row, and what to do. `style`: where a good part of all rows has it, it is their style, and
    nothing is said."""

    code: str
    text: str
    remedy: str
    style: bool = False


FLAWS = (
    Flaw("nothing_asked", "has no message of a user, so nothing is asked", "add the question"),
    Flaw("role_order", "has two messages of one role in a row, which templates of some models refuse",
         "join them into one, or add what was said between them"),
    Flaw("late_system", "has a system message after the first question, which templates of some models refuse or move",
         "put it first"),
    Flaw("answer_first", "begins with an answer to nothing", "remove it, or add the question before it"),
    Flaw("blank_message", "a message has nothing but spaces, or characters that nobody sees", "write its text"),
    Flaw("wrong_encoding", "holds text that was read in a wrong encoding, such as 'Ã©' for 'é'",
         "export the data as UTF-8 again"),
    Flaw("lost_characters", "holds '\N{REPLACEMENT CHARACTER}', which stands for a character that was lost",
         "export the data as UTF-8 again"),
    Flaw("invisible_characters", "holds control characters, or ones that hide or reorder text", "remove them"),
    Flaw("template_tokens", "holds control tokens of a chat template, such as <|im_end|> or [INST]",
         "give the messages alone; the template is added in training and in serving"),
    Flaw("unclosed_thinking", "a thought is opened or closed, but not both", "complete it: <think>…</think>"),
    Flaw("no_words", "the answer has no letter and no number", "write an answer"),
    Flaw("empty_value", "the answer is what a table writes where it has none", "write an answer, or remove the row"),
    Flaw("placeholder", "the answer has a place that was never filled in, such as {{name}} or [insert date]",
         "fill it in"),
    Flaw("echo", "the answer repeats its question", "write an answer, unless repeating is the task"),
    Flaw("other_turns", "the answer goes on as the user, so the model learns to speak for both",
         "split the text into messages"),
    Flaw("speaker_name", "the answer begins with the name of a speaker, such as 'Assistant:'",
         "remove it: the role of the message says who speaks"),
    Flaw("repetition", "the answer says the same over and over", "cut it, or write another one"),
    Flaw("escaped_lines", r"the answer has '\n' as two characters where lines should end",
         "decode the text one more time"),
    Flaw("markup", "the answer holds HTML, though nobody asks for it", "convert it to plain text or Markdown"),
    Flaw("entities", "holds HTML entities such as &amp; or &nbsp;", "decode them"),
    Flaw("encoded_data", "holds a long run of encoded data, which costs tokens and teaches nothing", "remove it"),
    Flaw("broken_json", "the answer begins as JSON and is none", "complete it"),
    Flaw("cut_off", "the answer ends in the middle of a sentence", "complete it, or remove the row", style=True),
)  # fmt: skip
BITS = {flaw.code: 1 << number for number, flaw in enumerate(FLAWS)}
OF_LABELS = BITS["no_words"] | BITS["empty_value"] | BITS["echo"]
"""A label may be `none` or `+`, and a question may be a single word of it."""

_NOT_SEEN = "\u200b\u2060\ufeff"
_MOJIBAKE = re.compile(
    "Ã[\u0080-\u00bf\u0192\u2018-\u203a\u20ac\u2122]|â(?:€[\u0080-\u00bf\u0153\u02dc\u2018-\u2122]|\u0080[\u0080-\u00bf])|Â[\u00a0-\u00bf]|ï»¿"
)
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
_TOKENS = re.compile(
    r"<\|[a-z][a-z0-9_]*\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos)>"
    r"|<｜[^<>｜]{1,40}｜>|^### ?(?:Instruction|Response|Human|Assistant):", re.MULTILINE,
)  # fmt: skip
_EMPTY = frozenset({"nan", "null", "none", "undefined", "n/a", "#n/a", "<na>", "na", "nat", "nil", "todo", "tbd"})
_LONGEST_EMPTY = 12
_UNFILLED = re.compile(
    r"\{\{ ?[a-z_][\w. ]{0,40}\}\}|\[(?:insert|your|enter|add|customer|client|company|agent|user)[ _-][^\]\n]{1,40}\]"
    r"|\[(?:name|date|company)\]|<(?:insert|your)[ _-][^>\n]{1,40}>|lorem ipsum|\bTODO:|\bXXXX+\b",
    re.IGNORECASE,
)  # fmt: skip
_HINTS = ("{{", "[", "<", "orem", "TODO:", "todo:", "XXX", "xxx")
"""One of these is in every such place; they are found many times as fast."""
_ASKS_TO_FILL = re.compile(r"template|placeholder|variable|\{\{|\[(?:name|insert|your)|lorem", re.IGNORECASE)
_SPEAKER = re.compile(r"(?:assistant|ai|a\.i\.|bot|chatbot|chatgpt|gpt|agent|model) ?: ", re.IGNORECASE)
_TURN = re.compile(r"\n(?:#+ ?|\*\*)?(?:user|human|customer|client) ?:", re.IGNORECASE)
_ASKED_TURN = re.compile(r"(?:user|human|customer|client) ?:|dialog|conversation|transcript|role.?play", re.IGNORECASE)
_TAG = re.compile(r"</?(?:p|br|div|span|li|ul|ol|strong|font|td|tr|table|h[1-6])(?: [^<>]*)? ?/?>", re.IGNORECASE)
_ASKS_FOR_TAGS = re.compile(r"html|</?[a-z]|markup|web ?page|css|xml|svg", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-f]{2,4});", re.IGNORECASE)
_LONG_RUN = 240
_ENCODED = re.compile(rf"[A-Za-z0-9+/]{{{_LONG_RUN},}}")
_JSON_BEGINS = re.compile(r'\{\s*"|\[\s*[{"]')
_CODE = "```"
_SENTENCE_CHARS = 200
"""A shorter answer may well be no sentence."""
_REPEATED_WORDS, _DIFFERENT = 60, 0.12
"""From so many words on, of which only this share is different, an answer is a loop."""

USUAL, LEAST_ROWS = 0.5, 20
"""What more than this share of so many rows has is told once, of the file."""
STYLE = 0.2
"""What is a matter of style is told where at most this share of the rows has it."""


def is_usual(having: int, rows: int) -> bool:
    """Whether so many rows of all are most of them."""
    return rows >= LEAST_ROWS and having > USUAL * rows


def is_style(flaw: Flaw, having: int, rows: int) -> bool:
    """Whether it is the style of the dataset, of which nothing is said."""
    return flaw.style and having > STYLE * rows


def flaws(value: dict[str, Any], texts: Said, words: int, different: int, *, is_json: bool) -> int:
    """The flaws of a row, as `BITS`. `words`, `different`: how many words its answer has, and how many different ones.
    `is_json`: the answer is JSON."""
    codes = {*_of_messages(value), *_of_text(texts)}
    if not texts.calls and texts.answer:
        codes.update(_of_answer(texts, words, different, is_json))
    return sum(BITS[code] for code in codes)


def _of_messages(value: dict[str, Any]) -> Iterator[str]:
    asked = value.get("input")
    messages = asked.get("messages") if isinstance(asked, dict) else value.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return
    before = ""
    spoken: list[Any] = []
    for message in messages:
        role = message.get("role")
        if role == before and role in ("user", "assistant") and not message.get("tool_calls"):
            yield "role_order"
        if role in ("system", "developer"):
            if spoken:
                yield "late_system"
        else:
            spoken.append(role)
        if role in ("user", "assistant", "system", "developer") and _is_blank(message):
            yield "blank_message"
        before = role
    if "user" not in spoken:
        yield "nothing_asked"
    elif spoken[0] == "assistant":
        yield "answer_first"


def _is_blank(message: dict[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, str) and content[:1].isalnum():
        return False  # most messages
    text = text_of_message(message)
    return bool(text) and not text.strip().strip(_NOT_SEEN).strip()


def _of_text(texts: Said) -> Iterator[str]:
    for text in (texts.prompt, texts.answer):
        if not text.isascii():
            if _MOJIBAKE.search(text):
                yield "wrong_encoding"
            if "\N{REPLACEMENT CHARACTER}" in text:
                yield "lost_characters"
        if not text.isprintable() and _HIDDEN.search(text):
            yield "invisible_characters"
        if ("<" in text or "[" in text or "###" in text) and _TOKENS.search(text):
            yield "template_tokens"
        if "&" in text and _CODE not in text and _ENTITY.search(text) and not _TAG.search(text):
            yield "entities"
        if len(text) >= _LONG_RUN and _may_be_encoded(text) and _ENCODED.search(text):
            yield "encoded_data"


def _may_be_encoded(text: str) -> bool:
    """Whether a block without a space is as long as the half of an encoded run: each run covers one of these blocks."""
    half = _LONG_RUN // 2
    return any(" " not in text[at : at + half] for at in range(0, len(text) - half + 1, half))


def _of_answer(texts: Said, words: int, different: int, is_json: bool) -> Iterator[str]:
    answer, question = texts.answer.strip(), texts.question.strip()
    if not words and not any(_means(char) for char in answer):
        yield "no_words"
    if len(answer) <= _LONGEST_EMPTY and answer.casefold().rstrip(".") in _EMPTY:
        yield "empty_value"
    if ("<think>" in answer) != ("</think>" in answer):
        yield "unclosed_thinking"
    if len(question) >= 20 and (answer == question or answer.startswith(question + "\n")):
        yield "echo"
    if _SPEAKER.match(answer):
        yield "speaker_name"
    if ":" in answer and _TURN.search(answer) and not _ASKED_TURN.search(texts.prompt):
        yield "other_turns"
    if words >= _REPEATED_WORDS and different < _DIFFERENT * words:
        yield "repetition"
    if _CODE in answer or is_json:
        return  # what follows is the usual form of code and of JSON
    if any(map(answer.__contains__, _HINTS)) and _UNFILLED.search(answer) and not _ASKS_TO_FILL.search(texts.prompt):
        yield "placeholder"
    if answer.count("\\n") >= 2 and "\n" not in answer:
        yield "escaped_lines"
    if "<" in answer and _TAG.search(answer) and not _ASKS_FOR_TAGS.search(texts.prompt):
        yield "markup"
    if answer[:1] in ("{", "[") and _JSON_BEGINS.match(answer):
        yield "broken_json"
    elif len(answer) >= _SENTENCE_CHARS and (answer[-1].isalnum() or answer[-1] in ",;-"):
        yield "cut_off"


def _means(char: str) -> bool:
    """Whether a character says something by itself: a letter, a number, a sign or an emoji."""
    return char.isalnum() or unicodedata.category(char) in ("So", "Sc", "Sm")
