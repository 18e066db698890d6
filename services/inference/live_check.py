"""Asks the live server about a model that it has just loaded: does it make the tokens of the training, and does the
adapter change its answers?"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Literal

from services.inference.domain.weights import changes_nothing
from services.inference.registry.adapters import Adapters
from services.inference.vllm.probe import TEXT, Probe, Unasked
from shared.conversation import digest_of
from shared.errors import InputError
from shared.events import Served

log = logging.getLogger(__name__)

AS_TRAINED = "the server makes the tokens of the training"
ANOTHER = (
    "The model server makes other tokens of a fixed conversation than the training did: its chat template or tokenizer "
    "is not that of this job's base. Start it from the same folder, without a --chat-template of its own, and try the "
    "job again (`tunestream retry`); TUNESTREAM_RENDER__POLICY=warn deploys all the same."
)
WORKS = "the adapter changes its answers"
WITHOUT_EFFECT = (
    "The model server loaded the adapter without an error, but gives the same probabilities with it as without it: its "
    "class of this model does not have the layers that the adapter changes. Train with other lora.target_modules, or "
    "serve the base with a version of vLLM that supports adapters for it; TUNESTREAM_RENDER__POLICY=warn deploys it "
    "all the same."
)
LEARNT_NOTHING = "the adapter learnt nothing: all that it would add to the base is zero"


class LiveCheck:
    """Checks one model. `policy` is that of the render server: what a difference does."""

    def __init__(self, probe: Probe, adapters: Adapters, policy: Literal["fail", "warn"]) -> None:
        self._probe = probe
        self._adapters = adapters
        self._policy = policy

    async def __call__(self, model: str, served: Served | None) -> str:
        """What came out, in words. vLLM must hold `model`. `served` is what validate found out.

        Raises:
            InputError: `served_differently` or `adapter_without_effect`, unless the policy is `warn`.
            VllmUnavailable: vLLM does not answer.
        """
        try:
            tokens = await self._probe.tokens(model)
        except Unasked as error:
            compared = f"not compared with the live server: {error}"
            effect = await self._effect(model, TEXT)
        else:
            compared = self._compared(tokens, served)
            effect = await self._effect(model, tokens)
        text = f"{compared}; {effect}"
        log.info("asked the live server", extra={"model": model, "reason": text})
        return text

    def _compared(self, tokens: list[int], served: Served | None) -> str:
        if served is None or served.probe is None:
            return "tokens not compared with the live server: validate has left no digest of a conversation"
        return AS_TRAINED if digest_of(tokens) == served.probe else self._wrong("served_differently", ANOTHER)

    async def _effect(self, model: str, prompt: list[int] | str) -> str:
        try:
            base = await self._probe.probabilities(None, prompt)
            tuned = await self._probe.probabilities(model, prompt)
        except Unasked as error:
            return f"the adapter's effect was not looked at: {error}"
        if base != tuned:
            return WORKS
        weights = await self._adapters.weights(model)
        if weights is not None and await asyncio.to_thread(_changes_nothing, weights):
            return LEARNT_NOTHING
        return self._wrong("adapter_without_effect", WITHOUT_EFFECT)

    def _wrong(self, code: str, message: str) -> str:
        if self._policy == "fail":
            raise InputError(code, message)
        log.warning("the live server differs", extra={"code": code})
        return message


def _changes_nothing(path: Path) -> bool:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return changes_nothing(read)
