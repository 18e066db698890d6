"""The section of synthesis as a stage."""

from __future__ import annotations

from pydantic import Field, SecretStr

from shared.settings.sections import Section


class SynthesisSettings(Section):
    """Which endpoints a spec in the bucket may ask."""

    keys: dict[str, SecretStr | None] = Field(default_factory=dict)
    """The API key of each endpoint, by its `base_url`; null: it wants none. Specs that name others are refused."""
    max_tokens: int | None = Field(default=None, gt=0)
    """The largest budget of tokens that a spec may have. Specs with a larger one, or without one, are refused."""
    max_money: float | None = Field(default=None, gt=0)
    """The same of money, in the currency of the spec. A spec states its prices itself: `max_tokens` holds whatever they
    are."""
