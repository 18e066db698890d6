"""The base's own tokenizer and chat template, through transformers but without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from services.validate.domain.content import Row, conversations, input_of
from services.validate.domain.findings import Finding
from shared.base import hub, stop_ids
from shared.conversation import TurnEncoder, Turns, Unfit, sent_tools
from shared.errors import InputError, TransientError

# A tokenizer without a limit states one of 10**30.
_NO_LIMIT = 10**9


class Tokenizer(Protocol):
    """What validation needs to know of a base: how many tokens it makes of rows, and how many it can read."""

    base: str
    context: int | None
    """How many tokens the base can read; None: it states no limit."""

    def measure(self, rows: Sequence[Row]) -> list[tuple[int, ...] | Finding]:
        """For each row the tokens of the sequences that it is trained as (two for a preference pair; a chat may be
        several, where a template rewrites earlier turns), or why the base cannot be trained on the row.

        Raises:
            InputError: the base has no chat template, but the rows are chats.
        """
        ...

    def prompt_tokens(self, row: Row) -> int:
        """Tokens of a row before the first that is trained on."""
        ...


def without_torch() -> None:
    """Keep torch out of this process; call it before anything imports transformers.

    transformers imports torch wherever it is installed, which costs several seconds and hundreds of megabytes that
    tokenizing does not need. After this call `import torch` fails, so it is for processes that only tokenize.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"


def load(location: str, base: str) -> BaseTokenizer:
    """Load from a local folder or a hub id. `base` is what users call the model.

    Where the hub does not answer within seconds, the copy of an earlier download is taken.

    Raises:
        InputError: there is no such model, or no tokenizer that can be loaded without running foreign code.
        TransientError: the hub does not answer, and there is no copy.
    """
    import transformers  # noqa: PLC0415  takes seconds, and a check without a base does not need it

    silent = hub.is_silent(location)
    options = {"trust_remote_code": False, "local_files_only": silent}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(location, **options)
        config = transformers.AutoConfig.from_pretrained(location, **options)
    except (OSError, ValueError, KeyError) as error:
        if silent or hub.is_outage(error):
            raise TransientError(
                f"the model hub does not answer while loading {base}, and there is no local copy"
            ) from error
        raise InputError(
            "model_not_found",
            f"The base model {base} cannot be loaded: there is no usable tokenizer or config.json at {location!r}. "
            "Name a folder or a hub id that transformers can load without remote code.",
            "model",
        ) from error
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT]
    try:
        generation = transformers.GenerationConfig.from_pretrained(location)
    except OSError:  # it has no generation_config.json
        generation = transformers.GenerationConfig()
    return BaseTokenizer(tokenizer, base, min(known, default=None), stop_ids(tokenizer, generation))


class BaseTokenizer:
    """A transformers tokenizer; `context` in tokens, `stops` are the ids at which the server stops."""

    def __init__(self, tokenizer: Any, base: str, context: int | None, stops: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._turns = TurnEncoder(tokenizer, stops)
        self.base = base
        self.context = context

    def measure(self, rows: Sequence[Row]) -> list[tuple[int, ...] | Finding]:
        return [self._measured(row) for row in rows]

    def prompt_tokens(self, row: Row) -> int:
        return self._sequences(row)[0].trained.index(True)

    def _measured(self, row: Row) -> tuple[int, ...] | Finding:
        try:
            return tuple(len(sequence.ids) for sequence in self._sequences(row))
        except Unfit as error:
            return _refused(row, self.base, error)

    def _sequences(self, row: Row) -> list[Turns]:
        """What the trainer makes of the row."""
        if row.format == "completion":
            return [self._turns.complete(row.value["prompt"], row.value["completion"])]
        if not self._tokenizer.chat_template:
            raise InputError(
                "base_has_no_chat_template",
                f"The base model {self.base} has no chat template, so chat rows cannot become its text. Choose an "
                "instruction-tuned base, add a chat_template.jinja to its folder, or use prompt/completion rows.",
                "model",
            )
        tools = sent_tools(input_of(row))
        return [made for messages, turns in conversations(row) for made in self._turns.encode(messages, tools, turns)]


def _refused(row: Row, base: str, error: Unfit) -> Finding:
    place = {"chat": "messages", "preference": "input.messages", "completion": ""}[row.format]
    remedy = "change the row as it asks, or choose another base"
    return Finding(
        "chat_template",
        place,
        f"the chat template of {base} refuses this conversation: {error}",
        remedy,
    )
