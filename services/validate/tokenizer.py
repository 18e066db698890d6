"""The base's own tokenizer and chat template, through transformers but without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from services.validate.domain.content import Row, conversations, input_of, prompt_of
from services.validate.domain.findings import Finding, short
from shared.conversation import ChatTemplate, Unfit, sent_tools
from shared.errors import InputError, TransientError

# A tokenizer without a limit states one of 10**30.
_NO_LIMIT = 10**9


class Tokenizer(Protocol):
    """What validation needs to know of a base: how many tokens it makes of rows, and how many it can read."""

    base: str
    context: int | None
    """How many tokens the base can read; None: it states no limit."""

    def measure(self, rows: Sequence[Row]) -> list[tuple[int, ...] | Finding]:
        """For each row the tokens of its sequences (two for a preference pair), or why the base cannot read the row.

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

    Raises:
        InputError: there is no such model, or no tokenizer that can be loaded without running foreign code.
        TransientError: the hub does not answer.
    """
    import transformers  # noqa: PLC0415  takes seconds, and a check without a base does not need it

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(location, trust_remote_code=False)
        config = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if _is_outage(error):
            raise TransientError(f"the model hub does not answer while loading {base}") from error
        raise InputError(
            "model_not_found",
            f"The base model {base} cannot be loaded: there is no usable tokenizer or config.json at {location!r}. "
            "Name a folder or a hub id that transformers can load without remote code.",
            "model",
        ) from error
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT]
    return BaseTokenizer(tokenizer, base, min(known, default=None))


def _is_outage(error: BaseException) -> bool:
    """Whether the hub was out of reach and there is no cached copy. Offline mode is no outage: the user chose it."""
    from huggingface_hub import is_offline_mode  # noqa: PLC0415  comes with transformers, see load
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LocalEntryNotFoundError):
        cause = cause.__cause__
    return cause is not None and not is_offline_mode()


class BaseTokenizer:
    """A transformers tokenizer; `context` in tokens."""

    def __init__(self, tokenizer: Any, base: str, context: int | None) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self.base = base
        self.context = context

    def measure(self, rows: Sequence[Row]) -> list[tuple[int, ...] | Finding]:
        texts: list[str] = []
        spans: list[range | Finding] = []
        for row in rows:
            try:
                found = self._texts(row)
            except Unfit as error:
                spans.append(_refused(row, self.base, error))
                continue
            spans.append(range(len(texts), len(texts) + len(found)))
            texts.extend(found)
        lengths = self._lengths(texts, special=any(row.format == "completion" for row in rows))
        return [span if isinstance(span, Finding) else tuple(lengths[index] for index in span) for span in spans]

    def prompt_tokens(self, row: Row) -> int:
        if row.format == "completion":
            return self._lengths([row.value["prompt"]], special=True)[0]
        messages = prompt_of(row)
        if not messages:
            return 0
        return self._lengths([self._render(messages, sent_tools(input_of(row)), answer=True)], special=False)[0]

    def _texts(self, row: Row) -> list[str]:
        if row.format == "completion":
            return [row.value["prompt"] + row.value["completion"] + (self._tokenizer.eos_token or "")]
        tools = sent_tools(input_of(row))
        return [self._render(messages, tools) for messages in conversations(row)]

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, answer: bool = False) -> str:
        if not self._tokenizer.chat_template:
            raise InputError(
                "base_has_no_chat_template",
                f"The base model {self.base} has no chat template, so chat rows cannot become its text. Choose an "
                "instruction-tuned base, add a chat_template.jinja to its folder, or use prompt/completion rows.",
                "model",
            )
        return self._template.text(messages, tools, prompt=answer)

    def _lengths(self, texts: list[str], *, special: bool) -> list[int]:
        """Tokens of each text. `special`: count also what the tokenizer adds; a chat template writes such tokens
        itself."""
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]


def _refused(row: Row, base: str, error: Unfit) -> Finding:
    place = {"chat": "messages", "preference": "input.messages", "completion": ""}[row.format]
    remedy = "change the order of the roles as it asks, or choose another base"
    return Finding(
        "chat_template",
        place,
        f"the chat template of {base} refuses this conversation: {short(str(error), 120)}",
        remedy,
    )
