"""Lets a server compile its kernels for adapters before its first tuned model answers anybody.

vLLM compiles them (Triton) when they are first used with a kind of shape: a single token, a multiple of 16, a batch of
more than 128. On a GPU that took seconds of the first request for a tuned model, and again of the first long one.
"""

from __future__ import annotations

import asyncio
import logging

import httpx

from services.inference.vllm.probe import COMPLETE
from services.inference.vllm.server import Vllm

log = logging.getLogger(__name__)

SIZES = (1, 7, 16, 144, 250)
"""Tokens of the prompts; together they are less than one prompt of a few-shot evaluation."""
STEPS = 2
LONGEST = 60.0
"""Seconds. A server that needs longer is used as it is."""


class WarmUp:
    """Asks a server about the first adapter that it holds in its life; further ones find everything compiled."""

    def __init__(self, client: httpx.AsyncClient, vllm: Vllm) -> None:
        self._client = client
        self._vllm = vllm
        self._warm: int | None = None
        """The life of the server (`Vllm.generation`) in which that was done."""

    async def __call__(self, model: str) -> None:
        """Return when the kernels are compiled. The server must hold `model`. Whatever goes wrong is only logged: the
        next request will meet it, and say it to its client."""
        generation = self._vllm.generation
        if self._warm == generation:
            return
        try:
            async with asyncio.timeout(LONGEST):
                for size in SIZES:
                    answer = await self._client.post(self._vllm.url + COMPLETE, json=_body(model, size))
                    answer.raise_for_status()
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("the server was not warmed up", extra={"model": model, "reason": type(error).__name__})
        self._warm = generation


def _body(model: str, size: int) -> dict[str, object]:
    # no two prompts begin alike, else the prefix cache would leave less than `size` tokens to compute
    return {
        "model": model,
        "prompt": [1 + (size + position) % 200 for position in range(size)],
        "max_tokens": STEPS,
        "temperature": 0,
        "ignore_eos": True,
    }
