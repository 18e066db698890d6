"""Encodes conversations with the base's own chat template, with the loss on assistant turns only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.trainer.engine.data.tokens import Example, example
from shared.conversation import TurnEncoder, Unfit, sent_messages
from shared.errors import InputError

Turn = Mapping[str, Any]
Conversation = tuple[Sequence[Turn], Any, Sequence[int]]
"""The messages as they are sent, the tools, and the turns that are trained on."""


class ChatEncoder:
    """Encodes conversations for one base; `TurnEncoder` says how, and the validator asks it, too."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], kwargs: Mapping[str, Any] | None = None) -> None:
        """`stop_ids`: the tokens at which the server stops, the tokenizer's own EOS first. `kwargs`: what the template
        is given beside messages and tools.

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
        self.turns = TurnEncoder(tokenizer, stop_ids, kwargs)

    def conversation(self, messages: Sequence[Turn], tools: Any, *, answers_from: int = 0) -> Conversation:
        """What is encoded of a conversation: turns before index `answers_from` and turns with `weight: 0` are not in
        the loss."""
        turns = [
            index
            for index, message in enumerate(messages)
            if index >= answers_from and message["role"] == "assistant" and message.get("weight") != 0
        ]
        return sent_messages(messages), tools, turns

    def encode(self, conversation: Conversation, *, where: str) -> list[Example]:
        """Encode a conversation as one example, or as several if the template rewrites earlier turns.

        Raises:
            InputError: the base cannot be trained on the conversation; the message begins with `where`.
        """
        try:
            return [example(made.ids, made.trained) for made in self.turns.encode(*conversation)]
        except Unfit as error:
            message = f"{where}: the chat template of the base model refuses this conversation: {error}"
            raise InputError("invalid_training_file", message, "training_file") from None
