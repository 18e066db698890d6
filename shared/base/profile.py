"""The profile of a base: what the services must agree on to train it, serve it and read its answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.events.models import FrozenModel

Reasoning = Literal["none", "always", "switchable"]


class Knows(FrozenModel):
    """Which kinds of messages the chat template writes, found by rendering probes."""

    system: bool = False
    developer: bool = False
    """The template has this role itself; else the server makes system messages of them."""
    tools: bool = False
    tool_calls: bool = False
    several_calls: bool = False
    tool_results: bool = False


class Attention(FrozenModel):
    """What the attention kernel of training has to support."""

    soft_cap: bool = False
    sinks: bool = False
    sliding_window: int | None = None


class ServerFacts(FrozenModel):
    """What only vLLM's own code can tell, for one version of it."""

    version: str
    linears: tuple[str, ...] | None = None
    """The last names of the layers of vLLM's class that an adapter can change, as PEFT names them (`q_proj`);
    None: vLLM could not be asked."""
    problem: str | None = None
    """Why vLLM cannot serve this base, or cannot serve adapters on it."""


class BaseProfile(FrozenModel):
    """`bases/{digest}.json`. It is read from the base's small files, and checked by rendering probes."""

    digest: str
    """Over the config, the tokenizer and the template, but not over the weights."""
    architecture: str
    template_digest: str | None
    """None: the base has no chat template."""
    content_format: Literal["string", "openai"] | None
    knows: Knows = Knows()
    reasoning: Reasoning = "none"
    reasoning_parser: str | None = None
    """For vLLM's `--reasoning-parser`; None: answers hold no thoughts, or no parser is known for them."""
    tool_call_parser: str | None = None
    """For vLLM's `--tool-call-parser`; None: the template has no tools, or no parser is known for its calls."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """What the template is given beside messages and tools, in training and in serving."""
    tokenizer_mode: str = "auto"
    stop_ids: tuple[int, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    context: int | None = None
    """In tokens; None: the base states no limit."""
    sampling: dict[str, float] = Field(default_factory=dict)
    """The defaults of `generation_config.json` that vLLM applies to a request that does not set them: `temperature`,
    `top_p`, `top_k`, `min_p`, `repetition_penalty`."""
    attention: Attention = Attention()
    server: ServerFacts | None = None
