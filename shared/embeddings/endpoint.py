"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import math
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from shared.embeddings.embedder import Vector
from shared.embeddings.pieces import mean
from shared.errors import ConfigError, InputError, TransientError
from shared.settings.embeddings import EmbeddingsSettings

DEFAULT_MODEL = "all-MiniLM-L6-v2"
"""The name that is sent if none is set; a server with one model takes any."""
SETTING = "TUNESTREAM_EMBEDDINGS__URL"


class EndpointModel:
    """The model of the endpoint at `url`."""

    def __init__(self, url: str, settings: EmbeddingsSettings) -> None:
        self._url = f"{url.rstrip('/')}/embeddings"
        self._model = settings.model or DEFAULT_MODEL
        self._timeout = settings.timeout_seconds
        key = settings.api_key
        self._headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        # made once: it reads all certificates that the system trusts
        self._tls: ssl.SSLContext | bool = ssl.create_default_context() if url.startswith("https:") else False

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text.

        Raises:
            InputError: the endpoint refuses one of the texts.
            TransientError: it does not answer.
            ConfigError: it refuses us, or it is none for embeddings.
        """
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        try:
            async with httpx.AsyncClient(verify=self._tls, timeout=self._timeout, trust_env=False) as http:
                answer = await http.post(self._url, json=body, headers=self._headers)
        except httpx.TimeoutException:
            raise TransientError(f"{self._url} has not answered within {self._timeout:g} seconds") from None
        except httpx.HTTPError as error:
            raise TransientError(f"{self._url} does not answer ({type(error).__name__})") from None
        if answer.status_code != 200:
            raise self._refusal(answer)
        try:
            found = sorted(answer.json()["data"], key=lambda each: each["index"])
            vectors = [mean([[float(value) for value in each["embedding"]]], [1]) for each in found]
        except (ValueError, LookupError, TypeError):
            raise ConfigError(f"{SETTING}: {self._url} does not answer as OpenAI's /v1/embeddings does") from None
        if len(vectors) != len(texts) or not all(math.isfinite(value) for vector in vectors for value in vector):
            raise ConfigError(f"{SETTING}: {self._url} answers with no vector for some texts")
        return vectors

    def _refusal(self, answer: httpx.Response) -> Exception:
        status, said = answer.status_code, _said(answer)
        if status in (400, 413, 422):
            message = f"the model for embeddings refuses these texts ({status}: {said}); shorten them"
            return InputError("text_too_long", message)
        if status in (401, 403, 404, 405):
            return ConfigError(
                f"{SETTING}: {self._url} refuses the request ({status}: {said}); mend it, or "
                "TUNESTREAM_EMBEDDINGS__MODEL or __API_KEY"
            )
        return TransientError(f"{self._url} answers {status}: {said}")


def _said(answer: httpx.Response) -> str:
    try:
        body: Any = answer.json()
        return str(body["error"]["message"])[:300]
    except (ValueError, LookupError, TypeError):
        return answer.text[:300]
