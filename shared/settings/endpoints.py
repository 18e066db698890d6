"""Endpoints of others that jobs may use."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class ForeignEndpoint(BaseModel):
    """An OpenAI-compatible endpoint that jobs may ask, with the key for it. The key is sent to this address only."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    base_url: str = Field(pattern=re.compile(r"^https?://[^\s/?#]+[^\s?#]*$"), max_length=2048)
    """With its `/v1`, as an OpenAI client takes it."""
    api_key: SecretStr | None = None
