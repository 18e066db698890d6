"""Encodes conversations with the base's own chat template, with the loss on assistant turns only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.trainer.engine.data.tokens import Example, Span, example, tokenize
from shared.conversation import ChatTemplate, Unfit, sent_messages
from shared.errors import InputError

Turn = Mapping[str, Any]


class ChatEncoder:
    """Encodes conversations for one base.

    The conversation is rendered twice to find the text of an assistant turn: once up to the turn with the generation
    prompt, which is the prompt that the server will send, and once with the turn. What the turn adds is what the model
    has to produce. The end-of-turn token is part of it, so the model learns to end its answers.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        """`stop_ids`: the tokens at which the server stops, the tokenizer's own EOS first.

        Raises:
            InputError: `base_has_no_chat_template`.
        """
        if not tokenizer.chat_template:
            raise InputError(
                "base_has_no_chat_template",
                "the base model has no chat template, so conversations cannot be written in its format: "
                "choose an instruction-tuned base, or send prompt/completion rows",
                "model",
            )
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        self.stops = tuple(tokenizer.convert_ids_to_tokens(list(stop_ids)))
        self.specials = tuple({*self.stops, *tokenizer.all_special_tokens})
        self.end = stop_ids[0] if stop_ids else None

    def encode(self, messages: Sequence[Turn], tools: Any, *, where: str, answers_from: int = 0) -> list[Example]:
        """Encode a conversation as one example, or as one per assistant turn if the template rewrites earlier turns.

        Turns before index `answers_from` and turns with `weight: 0` are not in the loss.

        Raises:
            InputError: the template refuses the conversation; the message begins with `where`.
        """
        conversation = sent_messages(messages)
        turns = [
            index
            for index, message in enumerate(messages)
            if index >= answers_from and message["role"] == "assistant" and message.get("weight") != 0
        ]
        if not turns:
            return []
        last = turns[-1] + 1
        text = self._render(conversation[:last], tools, where)
        spans = [self._span(conversation, tools, index, text, where) for index in turns]
        if all(span is not None for span in spans):
            return [self._example(text, [span for span in spans if span is not None])]
        # Some templates, such as that of Qwen3, drop the reasoning of earlier turns, so every turn has a prompt of its
        # own.
        examples = []
        for index in turns:
            alone = self._render(conversation[: index + 1], tools, where)
            span = self._span(conversation, tools, index, alone, where)
            if span is None:
                raise _refused(where, "it renders the same conversation in two ways")
            examples.append(self._example(alone, [span]))
        return examples

    def _span(self, conversation: list[dict[str, Any]], tools: Any, turn: int, text: str, where: str) -> Span | None:
        """The part of `text` that the model has to produce in turn `turn`. None: `text` does not contain that turn."""
        until = self._render(conversation[: turn + 1], tools, where)
        if not text.startswith(until):
            return None
        prompt = self._render(conversation[:turn], tools, where, prompt=True) if turn else ""
        begin = _shared_length(prompt, until)
        stripped = until.rstrip()
        end = len(stripped) if stripped.endswith(self.specials) else len(until)
        return (begin, end) if begin < end else None

    def _example(self, text: str, spans: list[Span]) -> Example:
        end = spans[-1][1]
        text = text[:end]
        closed = bool(self.stops) and text.endswith(self.stops)
        ids, trained = tokenize(self.tokenizer, text, spans, special=False, end=None if closed else self.end)
        return example(ids, trained)

    def _render(self, messages: list[dict[str, Any]], tools: Any, where: str, *, prompt: bool = False) -> str:
        try:
            return self.template.text(messages, tools, prompt=prompt)
        except Unfit as error:
            raise _refused(where, str(error)) from None


def _shared_length(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    if other.startswith(one):
        return len(one)
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _refused(where: str, why: str) -> InputError:
    message = f"{where}: the chat template of the base model refuses this conversation: {why}"
    return InputError("invalid_training_file", message, "training_file")
