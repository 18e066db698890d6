"""How the models were asked, in plain words: what the server adds to a request that sets only its temperature."""

from __future__ import annotations

from collections.abc import Mapping

from shared.base import BaseProfile

UNKNOWN = (
    "All variants were asked alike, at temperature 0. What the server adds by itself is unknown, because there is no "
    "profile of the base."
)
IDLE = ("top_p", "top_k", "min_p")
"""Without effect at temperature 0."""


def how_asked(profile: BaseProfile | None) -> tuple[str, ...]:
    """Sentences for the report. `profile`: of the base, which base and tuned model have in common."""
    if profile is None:
        return (UNKNOWN,)
    defaults = {name: value for name, value in profile.sampling.items() if name != "temperature"}
    said = [
        "All variants were asked alike, at temperature 0: the most likely token at each step."
        + (
            f" To that the server adds what generation_config.json of the base says: {_named(defaults)}."
            if defaults
            else ""
        )
    ]
    if idle := [name for name in IDLE if name in defaults]:
        said.append(f"At temperature 0 {_listed(idle)} {'has' if len(idle) == 1 else 'have'} no effect.")
    if profile.sampling.get("repetition_penalty", 1.0) != 1.0:
        said.append(
            "The repetition penalty does have one, at temperature 0, too: a token that stands already in the prompt or "
            "in the answer becomes less likely, a label that the prompt lists as well. It is a part of what users get, "
            "unless their requests set repetition_penalty to 1; training knows nothing of it."
        )
    if profile.reasoning == "switchable" and profile.chat_template_kwargs:
        said.append(
            "The base can think or not; its chat template was given "
            f"{_named(profile.chat_template_kwargs)}, in training and at the server."
        )
    elif profile.chat_template_kwargs:
        said.append(f"The chat template was given {_named(profile.chat_template_kwargs)}.")
    elif profile.reasoning == "switchable":
        said.append("The base can think or not; its chat template was left at its own default.")
    return tuple(said)


def _named(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_written(value)}" for name, value in sorted(values.items()))


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
