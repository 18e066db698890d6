"""What is trained of a conversation: for each turn the server's own prompt, then what the template adds to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shared.conversation.prefixes import Texts
from shared.conversation.presence import Probe, missing_in_answer, missing_in_prompt
from shared.conversation.sent import text_of
from shared.conversation.template import ChatTemplate, Unfit
from shared.conversation.thoughts import MARKS, NO_THOUGHTS, thoughts_of, without_inline_thoughts
from shared.conversation.tokens import Tokens

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None

_LIST = re.compile(r"""\{\\?['"]type\\?['"]: ?\\?['"]text\\?['"]""")
"""Content parts as Python or JSON writes them."""

_RENDERED = 2**25  # so many characters are rendered ahead; a conversation of more is rendered turn by turn

_ELSEWHERE = "\u241f"  # a character that no answer begins with


@dataclass(frozen=True)
class Turns:
    """One sequence: token ids, and for each whether it is trained on. It ends with a stop token that is trained."""

    ids: list[int]
    trained: list[bool]


@dataclass
class _Rendered:
    """What is known of a conversation while its turns are encoded. `there`: so many of its messages are in the text
    `prompt`."""

    messages: Messages
    tools: Tools
    texts: Texts
    there: int = 0
    prompt: str = ""

    def missing(self, before: Messages, tools: Tools, asked: str) -> str | None:
        """See `missing_in_prompt`."""
        lost = missing_in_prompt(before, tools, asked, self.there if asked.startswith(self.prompt) else 0)
        if lost is None:
            self.there, self.prompt = len(before), asked
        return lost


class TurnEncoder:
    """Encodes conversations for one base, and refuses those that cannot keep four promises.

    The tokens before a trained answer are the server's prompt. The answer (its text, its thoughts, its calls) is in
    what is trained. Every earlier message and every tool is in the prompt. There is one stop token, at the end of the
    answer.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], kwargs: Mapping[str, Any] | None = None) -> None:
        """`stop_ids`: the tokens at which the server stops, the tokenizer's own EOS first. `kwargs`: see
        `ChatTemplate`."""
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, kwargs)
        template = tokenizer.chat_template or ""
        self._tokens = Tokens(tokenizer, template if isinstance(template, str) else "".join(template.values()))
        self._stops = frozenset(stop_ids)
        self._end = stop_ids[0] if stop_ids else None
        self._added = frozenset(tokenizer.added_tokens_decoder)
        self._probe = Probe(self._template)
        self._prepared: dict[int, _Rendered] = {}
        self._prepared_before: dict[int, _Rendered] = {}
        self._rendered: _Rendered | None = None
        """Of the conversation that is being encoded."""

    def encode(self, messages: Messages, tools: Tools, turns: Sequence[int]) -> list[Turns]:
        """Encode the turns with these indexes, in ascending order. A turn whose prompt begins with the sequence of the
        turn before it continues that sequence; where a template rewrites earlier turns, it begins one of its own.

        `messages` and `tools` are in the form in which they are sent: see `sent_messages`.

        Raises:
            Unfit: the base cannot be trained on this conversation.
        """
        prepared = self._prepared.pop(id(messages), None) or self._prepared_before.pop(id(messages), None)
        same = prepared is not None and prepared.tools is tools
        self._rendered = prepared if same else self._render(messages, tools, turns)
        try:
            return self._sequences(messages, tools, turns)
        finally:
            self._rendered = None

    def prepare(self, conversations: Iterable[tuple[Messages, Tools, Sequence[int]]]) -> None:
        """Render and tokenize conversations at once, for calls of `encode` with the same objects. That makes the calls
        quick, and changes nothing of what they return or raise. It ends early where that needs much memory."""
        self.render(conversations)()

    def render(self, conversations: Iterable[tuple[Messages, Tools, Sequence[int]]]) -> Callable[[], None]:
        """The same in two steps: render, and give the call that tokenizes. Another thread may make it while this one
        encodes what was prepared just before, unless `is_full`."""
        self._forget()
        texts: list[str] = []
        room = _RENDERED
        for messages, tools, turns in conversations:
            made = self._prepared[id(messages)] = self._render(messages, tools, turns)
            texts += made.texts.values()
            room -= sum(map(len, made.texts.values()))
            if room < 0:
                break
        return self._tokens.learning(texts)

    def prepare_completions(self, pairs: Iterable[tuple[str, str]]) -> None:
        """The same as `prepare` for calls of `complete`."""
        self.render_completions(pairs)()

    def render_completions(self, pairs: Iterable[tuple[str, str]]) -> Callable[[], None]:
        """The same as `render` for calls of `complete`."""
        self._forget()
        return self._tokens.learning([text for one, other in pairs for text in (one, one + other)], special=True)

    @property
    def is_full(self) -> bool:
        """Whether the next call that prepares something forgets all that was prepared."""
        return self._tokens.is_full

    def _forget(self) -> None:
        self._prepared, self._prepared_before = {}, self._prepared
        self._tokens.forget()

    def _render(self, messages: Messages, tools: Tools, turns: Sequence[int]) -> _Rendered:
        ends = [end for turn in turns for end in ((turn, True), (turn + 1, False))]
        return _Rendered(messages, tools, self._template.prefixes(messages, tools, ends, _RENDERED) if ends else {})

    def _sequences(self, messages: Messages, tools: Tools, turns: Sequence[int]) -> list[Turns]:
        sequences: list[Turns] = []
        for turn in turns:
            prompt, answer = self.turn(messages, tools, turn)
            known = sequences.pop().trained if sequences and _begins(prompt, sequences[-1].ids) else []
            known += [False] * (len(prompt) - len(known))
            known += [True] * len(answer)
            sequences.append(Turns(prompt + answer, known))
        return sequences

    def complete(self, prompt: str, completion: str) -> Turns:
        """Encode a text and what follows it, with what the tokenizer puts around every text: BOS, and sometimes EOS,
        after which the server answers all the same."""
        served = self._raw(prompt, special=True)
        before = self._ids(prompt, special=True)
        added = self._what_is_added(prompt, before, prompt + completion, special=True)
        if added is None:
            raise Unfit("its tokenizer does not write prompt and completion apart as it writes them together")
        answer = added if self._end is None else [*added, self._end]
        return Turns([*served, *answer], [False] * len(served) + [True] * len(answer))

    def prompt(self, messages: Messages, tools: Tools) -> list[int]:
        """The server's prompt for an answer to these messages. Raises like `turn`."""
        return self._ids(self._asked(messages, tools))

    def turn(self, messages: Messages, tools: Tools, turn: int) -> tuple[list[int], list[int]]:
        """The server's prompt for one turn, and the tokens that are trained after it.

        Raises:
            Unfit: the base cannot be trained on this turn.
        """
        before, message = messages[:turn], messages[turn]
        rendered = (
            self._rendered if self._rendered and self._rendered.messages is messages else _Rendered(messages, tools, {})
        )
        asked = rendered.texts.get((turn, True)) or self._asked(before, tools)
        if lost := rendered.missing(before, tools, asked) or self._probe.missing(before, tools):
            raise Unfit(f"it leaves out {lost}, so the server's model would not see it")
        prompt = self._ids(asked)
        whole = rendered.texts.get((turn + 1, False))
        answer = self._answer(asked, prompt, before, message, tools, turn, whole)
        text = self._decode(answer)
        if (apart := without_inline_thoughts(message, text)) is not None:
            answer = self._answer(asked, prompt, before, apart, tools, turn)
            text = self._decode(answer)
        if lost := missing_in_answer(message, text, self._spelled):
            raise Unfit(f"messages[{turn}]: it leaves out {lost}, so there is nothing to learn it from")
        own = [text_of(message.get("content")), message.get("reasoning_content"), message.get("tool_calls")]
        if _LIST.search(text) and not _LIST.search(json.dumps(own)):
            raise Unfit(f"messages[{turn}]: it writes content as a list of parts, and a client would read that")
        if self._header and text.lstrip().startswith(self._header):
            why = "which opens a turn; the server's prompt opens none after these messages"
            raise Unfit(f"messages[{turn}]: the answer begins with {self._header!r}, {why}")
        return prompt, answer

    def _answer(
        self,
        asked: str,
        prompt: list[int],
        before: Messages,
        message: Mapping[str, Any],
        tools: Tools,
        turn: int,
        whole: str | None = None,
    ) -> list[int]:
        if whole is None:
            whole = self._template.text([*before, message], tools, prompt=False)
        added = self._what_is_added(asked, prompt, whole)
        if added is None:
            added = self._after_thoughts(asked, prompt, before, message, tools)
        if added is None:
            added = self._after_rewriting(prompt, self._ids(whole), before, tools)
        if added is None:
            raise Unfit(f"messages[{turn}]: {self._difference(prompt, self._ids(whole))}")
        return self._ended(added)

    @cached_property
    def _header(self) -> str:
        """What a prompt ends with to open the assistant's turn, up to its line end; empty: nothing, or not known."""
        asked = [{"role": "user", "content": "a"}]
        try:
            prompt, without = (self._template.text(asked, None, prompt=prompt) for prompt in (True, False))
        except Unfit:
            return ""
        return prompt.removeprefix(without).strip().partition("\n")[0] if prompt.startswith(without) else ""

    def _asked(self, before: Messages, tools: Tools) -> str:
        try:
            return self._template.text(before, tools, prompt=True)
        except Unfit:
            if before:
                raise
            remedy = "begin with a user message, or set weight to 0 on the first answer"
            raise Unfit(f"no server can be asked for an answer that nothing comes before: {remedy}") from None

    def _what_is_added(self, asked: str, prompt: list[int], whole: str, *, special: bool = False) -> list[int] | None:
        """The tokens after the prompt; None: the whole does not begin with it."""
        ids = self._ids(whole, special=special)
        rest = whole[len(asked) :] if whole.startswith(asked) else ""
        added = ids[len(prompt) :] if _begins(ids, prompt) else None
        indented = rest[: len(rest) - len(rest.lstrip()) + 1]
        if added is not None and (not rest[:1].isspace() or self._says(prompt, added).startswith(indented)):
            return added
        if not rest:
            return None
        # A token crosses the border, or the prompt's last token swallows the white space after it (Phi 3). The server
        # never sees the two together, so the answer is tokenized apart. Some tokenizers put a space before every text,
        # but not after another character.
        wanted = self._decode(ids)
        for before in ("", "\n", ".", "a"):
            known, both = self._ids(before), self._ids(before + rest)
            apart = both[len(known) :]
            if _begins(both, known) and (
                self._says(prompt, apart).startswith(indented)
                if added is not None
                else self._decode(prompt + apart) == wanted
            ):
                return apart
        return added

    def _says(self, prompt: list[int], answer: list[int]) -> str:
        """The text of an answer as a client sees it: it is decoded together with the end of the prompt."""
        context = prompt[-8:]
        return self._decode(context + answer).removeprefix(self._decode(context))

    def _after_thoughts(
        self, asked: str, prompt: list[int], before: Messages, message: Mapping[str, Any], tools: Tools
    ) -> list[int] | None:
        """The answer after a prompt that opens thoughts, for a template that drops them from answers (R1, QwQ).

        The thoughts are those of the row, or none, as such models are served without thinking: opened and closed.
        """
        bare = asked.rstrip()
        whole = self._template.text([*before, message], tools, prompt=False)
        if closed := NO_THOUGHTS.search(asked):  # the prompt says already that there are none
            start = asked[: closed.start()]
            rest = whole.removeprefix(start)
            if not whole.startswith(start) or any(one in rest for one in MARKS):  # or thoughts after their end
                return None
            return self._what_is_added(asked, prompt, asked + rest)
        opening = next((one for one in MARKS if bare.endswith(one)), None)
        if opening is None:
            return None
        closing, start = MARKS[opening], bare.removesuffix(opening)
        if whole.startswith(start + opening):  # it does write thoughts, but with other white space
            return self._what_is_added(asked, prompt, asked + whole.removeprefix(start + opening))
        thoughts, said = thoughts_of(message, opening, closing)
        whole = self._template.text([*before, said], tools, prompt=False)
        rest = whole[len(start) :]
        if not whole.startswith(start) or opening in rest:
            return None
        if rest.startswith(closing) and not thoughts:  # the template's own way to have none
            return self._what_is_added(asked, prompt, asked + rest)
        if closing in rest:
            return None
        opened = asked if asked.endswith("\n") else asked + "\n"
        return self._what_is_added(asked, prompt, f"{opened}{thoughts}\n{closing}\n\n{rest}")

    def _after_rewriting(self, prompt: list[int], whole: list[int], before: Messages, tools: Tools) -> list[int] | None:
        """The answer, for a template that writes earlier messages differently once there is an answer (Mistral Nemo
        moves the system text into the last user turn). It begins where another answer would begin, and only if prompt
        and answer meet at the same added token."""
        other = self._ids(
            self._template.text([*before, {"role": "assistant", "content": _ELSEWHERE}], tools, prompt=False)
        )
        shared = next((i for i, (a, b) in enumerate(zip(whole, other, strict=False)) if a != b), 0)
        begin = next((i + 1 for i in reversed(range(shared)) if whole[i] in self._added), 0)
        if not begin or not prompt or whole[begin - 1] != prompt[-1] or self._decode(whole[begin:shared]).strip():
            return None
        return whole[begin:]

    def _ended(self, added: list[int]) -> list[int]:
        """The answer up to its first stop token, or with one where the template writes none."""
        if found := [added.index(stop) for stop in self._stops if stop in added]:
            return added[: min(found) + 1]
        last = next((i + 1 for i in reversed(range(len(added))) if added[i] in self._added), 0)
        if last and not self._decode(added[last:]).strip():
            added = added[:last]
        return added if self._end is None else [*added, self._end]

    def _difference(self, prompt: list[int], whole: list[int]) -> str:
        place = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
        served, written = (self._named(ids[place : place + 1]) for ids in (prompt, whole))
        return (
            f"with the answer it writes {written} where the server's prompt has {served} (token {place}), "
            "so the answer cannot be trained after the prompt that is served"
        )

    def _named(self, ids: list[int]) -> str:
        if not ids:
            return "nothing"
        return repr(self._decode(ids)) if ids[0] in self._added else "other text"

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        ids = self._raw(text, special=special)
        if special and ids and ids[-1] in self._stops and self._raw(text)[-1:] != ids[-1:]:
            ids.pop()  # this tokenizer appends EOS to every text; the text itself may go on
        return ids

    def _raw(self, text: str, *, special: bool = False) -> list[int]:
        return self._tokens.ids(text, special=special)

    def _spelled(self, text: str) -> str:
        return self._decode(self._ids(text))

    def _decode(self, ids: list[int]) -> str:
        return self._tokens.decode(ids)


def _begins(ids: list[int], start: list[int]) -> bool:
    return ids[: len(start)] == start
