"""Judges what is trained by vLLM's own functions: nothing here comes from `shared.conversation`."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from itertools import groupby
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.renderers.hf import _detect_content_format, safe_apply_chat_template

_CONFIG: Any = SimpleNamespace(
    multimodal_config=None,
    enable_prompt_embeds=False,
    hf_config=SimpleNamespace(model_type="llama"),
    allowed_local_media_path="",
    allowed_media_domains=None,
)


def wrong(tokenizer: Any, stops: tuple[int, ...], messages: Any, tools: Any, examples: Any) -> str | None:
    """What is wrong with the encoded conversation; None: nothing."""
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]
    spans = [span for example in examples for span in _spans(example)]
    if len(spans) != len(turns):
        return f"{len(spans)} answers are trained, {len(turns)} are there"
    for turn, (before, trained) in zip(turns, spans, strict=True):
        if before != served(tokenizer, messages[:turn], tools):
            return f"messages[{turn}]: it does not follow the served prompt"
        if trained[-1] not in stops or sum(token in stops for token in trained) != 1:
            return f"messages[{turn}]: not one stop at the end"
        text, prompt = tokenizer.decode(trained), tokenizer.decode(before)
        if lost := [part for part in _parts(messages[turn], thoughts=True) if not _has(text, part)]:
            return f"messages[{turn}]: {lost[0]!r} is not trained"
        asked = [part for message in messages[:turn] for part in _parts(message, thoughts=False)]
        asked += [tool["function"]["name"] for tool in tools or ()]
        if lost := [part for part in asked if not _has(prompt, part)]:
            return f"messages[{turn}]: {lost[0]!r} is not in the prompt"
    return None


def served(tokenizer: Any, messages: Any, tools: Any) -> list[int]:
    """The ids of the prompt that vLLM makes of a request."""
    sent = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    body = copy.deepcopy({"model": "m", "messages": sent, **({"tools": tools} if tools else {})})
    request = ChatCompletionRequest.model_validate(body)
    template = tokenizer.chat_template
    form = _detect_content_format(template, default="string")
    conversation, _, _ = parse_chat_messages(request.messages, _CONFIG, form)
    offered = None if request.tools is None else [tool.model_dump() for tool in request.tools]
    params = request.build_chat_params(template, "auto").get_apply_chat_template_kwargs()
    return list(safe_apply_chat_template(_CONFIG, tokenizer, conversation, **{**params, "tools": offered}))


def _spans(example: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Each trained answer, and all tokens before it."""
    ids, place = example.tokens.tolist(), 0
    for trained, run in groupby(example.trained.tolist()):
        end = place + len(list(run))
        if trained:
            yield ids[:place], ids[place:end]
        place = end


def _parts(message: Any, *, thoughts: bool) -> Iterator[str]:
    content = message.get("content") or ""
    said = [content] if isinstance(content, str) else [part["text"] for part in content]
    for text in said:
        pieces = re.split("</?think>", text)
        yield from pieces if thoughts else pieces[-1:]
    if thoughts:
        yield message.get("reasoning_content") or ""
    for called in message.get("tool_calls") or ():
        yield called["function"]["name"]
        for key, value in json.loads(called["function"]["arguments"]).items():
            yield key
            yield value if isinstance(value, str) else json.dumps(value)


def _has(text: str, part: str) -> bool:
    wanted = part.strip()
    forms = [wanted, json.dumps(wanted)[1:-1], json.dumps(wanted, ensure_ascii=False)[1:-1]]
    return any(form in text for form in [*forms, *([wanted.title()] if wanted in ("true", "false") else [])])
