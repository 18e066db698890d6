"""The section of synthesis as a stage."""

from __future__ import annotations

from pydantic import Field, SecretStr

from shared.settings.sections import Section


class SynthesisSettings(Section):
    """Which endpoints a spec in the bucket may ask."""

    keys: dict[str, SecretStr | None] = Field(default_factory=dict)
    """The API key of each endpoint, by its `base_url`; null: it wants none. Specs that name others are refused."""
