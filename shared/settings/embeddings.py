"""The section of the embeddings."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr

from shared.settings.sections import Section


class EmbeddingsSettings(Section):
    """What turns texts into vectors, for graders that compare meanings (`cosine`). All services need the same: api and
    validate refuse a grader that the evaluator could not run. Without `url` the model runs in the process, on the CPU,
    which needs `pip install 'tunestream[embeddings]'`."""

    model: str | None = None
    """A folder with a model of sentence-transformers, or its id on the Hugging Face hub, from where it is downloaded at
    its first use; with `url`, the name by which that endpoint knows it. None: all-MiniLM-L6-v2, which a package of the
    extra `embeddings` carries, so that nothing is downloaded."""
    url: str | None = Field(default=None, pattern=re.compile(r"^https?://[^\s/?#]+[^\s?#]*$"), max_length=2048)
    """An OpenAI-compatible endpoint with `/embeddings` below it, so with its `/v1`. It gets the texts that are
    compared."""
    api_key: SecretStr | None = None
    """The bearer token of `url`."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Of one request to `url`, which may have to load its model first."""
    host: str = "127.0.0.1"
    """The address on which `python -m shared.embeddings` serves the model to the other services."""
    port: int = 8002
