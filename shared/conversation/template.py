"""A base's chat template, given exactly what vLLM gives to it. It needs a tokenizer of transformers, but not torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from shared.conversation.content_format import content_format
from shared.conversation.given import given_messages, given_tools, without_developer
from shared.conversation.prefixes import Prefixes, Texts, prefixes_of
from shared.conversation.sent import text_of

# A chat template is a program: a conversation that it does not expect may raise any of these.
_ERRORS = (TypeError, ValueError, KeyError, IndexError, AttributeError)

_COMPARED = 4  # so many conversations are rendered both ways


class Unfit(Exception):
    """The base cannot be given this conversation. The text says why; it quotes the template, but never the row."""


class ChatTemplate:
    """Renders messages and tools in the form in which they are sent: see `sent_messages`."""

    def __init__(self, tokenizer: Any, kwargs: Mapping[str, Any] | None = None) -> None:
        """`tokenizer`: one of transformers, with a chat template. `kwargs`: what the template is given beside messages
        and tools, such as `enable_thinking`; the server must be given the same."""
        self._tokenizer = tokenizer
        self._kwargs = dict(kwargs or {})
        self._prefixes: dict[str, Prefixes | None] = {}
        self._compared = 0
        self._trusted = True

    def given(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Messages and tools as vLLM gives them to the template."""
        offered = given_tools(tools)
        template: str = self._tokenizer.get_chat_template(None, tools=offered)
        made = given_messages(messages, content_format(template))
        knows = '"developer"' in template or "'developer'" in template  # vLLM's own test
        return (made if knows else without_developer(made)), offered

    def text(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None, *, prompt: bool
    ) -> str:
        """The conversation as the template writes it. `prompt`: with the beginning of an answer, as the server asks.

        Raises:
            Unfit: the template refuses the conversation.
        """
        try:
            given, offered = self.given(messages, tools)
            text: str = self._tokenizer.apply_chat_template(
                given, tools=offered, tokenize=False, add_generation_prompt=prompt, **self._kwargs
            )
        except TemplateError as error:
            raise Unfit(" ".join(str(error).split())[:120] or type(error).__name__) from None
        except _ERRORS as error:  # their text may quote the row
            raise Unfit(f"{type(error).__name__} while rendering") from None
        return text

    def prefixes(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        ends: Sequence[tuple[int, bool]],
        most: int,
    ) -> Texts:
        """What `text` returns for the first `n` messages, for those of `ends` (`n`, and `prompt`) that are found in one
        run of the template: see `prefixes.py`. The others are left out; they may be refused. `most`: of conversations
        whose texts may have more characters all are left out."""
        try:
            last = max(end for end, _ in ends)
            if len(ends) * sum(len(text_of(message.get("content"))) for message in messages[:last]) > most:
                return {}
            given, offered = self.given(messages[:last], tools)
            template: str = self._tokenizer.get_chat_template(None, tools=offered)
            if template not in self._prefixes:
                self._prefixes[template] = prefixes_of(template)
            quick = self._prefixes[template]
            # what vLLM makes of `developer` depends on all messages
            if quick is None or any(message["role"] == "developer" for message in messages[:last]):
                return {}
            values = {"tools": offered, "documents": None, **self._tokenizer.special_tokens_map, **self._kwargs}
            found = quick.texts(given, ends, values)
        except Exception:  # a template may raise anything; `text` says what
            return {}
        if self._compared < _COMPARED:  # the rules are proven, but another version of transformers may have others
            self._compared += 1
            self._trusted &= all(
                self._writes(messages[:end], tools, prompt, text) for (end, prompt), text in found.items()
            )
        return found if self._trusted else {}

    def _writes(self, messages: Sequence[Mapping[str, Any]], tools: Any, prompt: bool, text: str) -> bool:
        try:
            return text == self.text(messages, tools, prompt=prompt)
        except Unfit:
            return False
