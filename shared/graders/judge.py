"""Asks a model for a score or a label. The API asks one of the inference endpoint as the client who runs the grader:
with its key, in its project."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, TypeAlias

import httpx

from shared.graders.domain.graders import LabelModel, ScoreModel
from shared.graders.domain.outcome import Errors, Outcome, Usage
from shared.graders.domain.scores import LABELS, SCHEMA, label_in, score_in

TIMEOUT = 120.0
"""Seconds for one answer. A client waits 600 by default."""
DEFAULT_TOKENS = 2048
"""A model that is held to a form may fill its whole context with spaces."""
MAX_ANSWER = 2**20
"""Bytes of an answer that are read."""
DETAILS = 500
NOT_OPENAI = "the endpoint's answer is not that of an OpenAI server"

Asking: TypeAlias = ScoreModel | LabelModel
"""The graders that ask a model."""


class Judge:
    """A client of the endpoint at `url`, which is without `/v1` unless `version` is empty."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, version: str = "/v1") -> None:
        self._url = f"{url.rstrip('/')}{version}/chat/completions"
        self._timeout = timeout
        # made once: it reads all certificates that the system trusts
        self._tls: ssl.SSLContext | bool = ssl.create_default_context() if url.startswith("https:") else False

    async def ask(self, grader: Asking, messages: list[str | list[str]], headers: Mapping[str, bytes]) -> Outcome:
        """The outcome of a grader whose templates are filled: `messages` has one text, or the texts of its parts, for
        each of its messages. `headers` are those of the client that say who it is."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx.AsyncClient(verify=self._tls, timeout=self._timeout, trust_env=False) as http,
            ):
                for body in _bodies(grader, messages):
                    status, answer = await self._post(http, body, headers)
                    if status not in (400, 422):
                        break
        except (TimeoutError, httpx.TimeoutException):
            details = f"no answer within {self._timeout:g} seconds"
            return Outcome(errors=Errors(unresponsive_reward_error=True, **_server_error(details)))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            details = f"the inference endpoint does not answer: {type(error).__name__}"
            return Outcome(errors=Errors(**_server_error(details)))
        except _TooLarge:
            return Outcome(errors=Errors(**_server_error(f"the answer has more than {MAX_ANSWER} bytes")))
        return _outcome(grader, status, answer)

    async def _post(
        self, http: httpx.AsyncClient, body: Mapping[str, Any], headers: Mapping[str, bytes]
    ) -> tuple[int, httpx.Response]:
        async with http.stream(
            "POST", self._url, json=body, headers=[(name.encode(), value) for name, value in headers.items()]
        ) as streamed:
            content = bytearray()
            async for chunk in streamed.aiter_bytes(2**16):
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise _TooLarge
            return streamed.status_code, httpx.Response(streamed.status_code, content=bytes(content))


class _TooLarge(Exception):
    pass


def _server_error(details: str) -> dict[str, Any]:
    return {"model_grader_server_error": True, "model_grader_server_error_details": details[:DETAILS]}


def _bodies(grader: Asking, messages: list[str | list[str]]) -> list[dict[str, Any]]:
    """What the endpoint is asked, until it takes one: it may have a smaller context, or know no structured output."""
    sampling = grader.sampling_params if isinstance(grader, ScoreModel) else None
    given = sampling.model_dump(exclude_none=True) if sampling else {}
    tokens = given.pop("max_completions_tokens", None)
    limit = {} if tokens is None else {"max_completion_tokens": tokens}
    plain = {
        "model": grader.model,
        "messages": [
            {
                # the templates of open models know no developer
                "role": "system" if message.role == "developer" else message.role,
                "content": texts if isinstance(texts, str) else [{"type": "text", "text": text} for text in texts],
            }
            for message, texts in zip(grader.input, messages, strict=True)
        ],
        **given,
        **limit,
    }
    in_form = {**plain, "response_format": _form(grader)}
    return [*([] if limit else [{**in_form, "max_completion_tokens": DEFAULT_TOKENS}]), in_form, plain]


def _outcome(grader: Asking, status: int, answer: httpx.Response) -> Outcome:
    try:
        body = answer.json()
        if status != 200:
            return Outcome(errors=Errors(**_server_error(f"{status}: {body['error']['message']}")))
        choice = body["choices"][0]
        message, model = choice["message"], body.get("model")
        content, refusal = message.get("content") or "", message.get("refusal")
        if not isinstance(content, str):
            raise TypeError
        model = model if isinstance(model, str) and model else grader.model
        usage = {model: _usage(body.get("usage"))}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        details = f"{status}: {answer.text[:DETAILS]}" if status != 200 else NOT_OPENAI
        return Outcome(errors=Errors(**_server_error(details)))
    if refusal:
        return Outcome(errors=Errors(model_grader_refusal_error=True), usage=usage, sampled_model=model)
    label = label_in(content, grader.labels) if isinstance(grader, LabelModel) else None
    if isinstance(grader, LabelModel):
        score = None if label is None else float(label in grader.passing_labels)
        lowest, highest = 0.0, 1.0
    else:
        score = score_in(content)
        lowest, highest = grader.limits
    if score is None or not lowest <= score <= highest:
        cut = score is None and choice.get("finish_reason") == "length"
        errors = Errors(model_grader_parse_error=True, truncated_observation_error=cut)
        return Outcome(errors=errors, usage=usage, sampled_model=model)
    return Outcome(score, usage=usage, sampled_model=model, label=label)


def _form(grader: Asking) -> dict[str, Any]:
    """What the answer should look like."""
    if isinstance(grader, ScoreModel):
        return {"type": "json_schema", "json_schema": {"name": "score", "strict": True, "schema": SCHEMA}}
    name = LABELS[0]
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "enum": grader.labels}},
        "required": [name],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}


def _usage(used: Any) -> Usage:
    used = used if isinstance(used, dict) else {}
    details = used.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, completion, total = (used.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    sum_of_both = _count(prompt) + _count(completion)
    return Usage(_count(prompt), _count(completion), _count(total) or sum_of_both, _count(cached))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
