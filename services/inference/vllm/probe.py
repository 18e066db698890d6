"""Asks the model server about a model under its own name: which tokens it makes of a fixed conversation, and which
probabilities it gives to the next ones. No text of a user is sent."""

from __future__ import annotations

from typing import Any

import httpx

from services.inference.errors import VllmUnavailable
from services.inference.vllm.server import Vllm
from shared.conversation import PROBE

RENDER, TOKENIZE, COMPLETE = "/v1/chat/completions/render", "/tokenize", "/v1/completions"
TEXT = "Name a town by the sea:"
"""The prompt for a base that takes no conversations."""
STEPS = 4
"""Tokens whose probabilities are compared."""
TOP = 5


class Unasked(Exception):
    """The server cannot be asked this. The text says why."""


class Probe:
    """vLLM 0.26 and 0.32 have all of these routes. `/tokenize` goes through the same template as `/render`, which not
    every server allows."""

    def __init__(self, client: httpx.AsyncClient, vllm: Vllm) -> None:
        self._client = client
        self._vllm = vllm

    async def tokens(self, model: str) -> list[int]:
        """The token ids of the prompt that the server makes of the fixed conversation.

        Raises:
            Unasked: it has no route that tells, or refuses the conversation.
            VllmUnavailable: it does not answer.
        """
        body = {"model": model, "messages": list(PROBE)}
        response = await self._post(RENDER, body)
        name = "token_ids"
        if response.is_error:  # 403 from vLLM 0.32 that was started without --enable-scale-out
            response, name = await self._post(TOKENIZE, {**body, "add_generation_prompt": True}), "tokens"
        try:
            return [int(i) for i in _json(response)[name]]
        except (LookupError, TypeError, ValueError):
            raise Unasked(f"the model server does not say its tokens (status {response.status_code})") from None

    async def probabilities(self, model: str | None, prompt: list[int] | str) -> list[Any]:
        """The log probabilities of the likeliest next tokens, for some steps. `model` None: of the base.

        Raises:
            Unasked: it does not tell them.
            VllmUnavailable: it does not answer.
        """
        body = {
            "model": model or self._vllm.base_name,
            "prompt": prompt,
            "max_tokens": STEPS,
            "temperature": 0,
            "logprobs": TOP,
        }
        response = await self._post(COMPLETE, body)
        try:
            told = _json(response)["choices"][0]["logprobs"]["top_logprobs"]
        except (LookupError, TypeError, ValueError):
            told = None
        if not told:
            raise Unasked(f"the model server does not say its probabilities (status {response.status_code})")
        return list(told)

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return await self._client.post(self._vllm.url + path, json=body)
        except httpx.RequestError as error:
            self._vllm.suspect()
            raise VllmUnavailable(f"The model server does not answer ({type(error).__name__})") from error


def _json(response: httpx.Response) -> Any:
    if response.is_error:
        raise ValueError
    return response.json()
