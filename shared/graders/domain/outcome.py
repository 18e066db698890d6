"""What a grader found, as the JSON object that `graders/run` answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from shared.graders.domain import formula
from shared.graders.domain.formula import NoResult
from shared.graders.domain.graders import Grader, Multi


@dataclass(frozen=True)
class Errors:
    """Why a sample could not be graded. Its fields are those of the API; those of python graders are never set."""

    formula_parse_error: bool = False
    """The formula has no value for these scores, such as a division by zero."""
    sample_parse_error: bool = False
    """A template names `sample.output_json`, and the sample is no JSON."""
    truncated_observation_error: bool = False
    """The model that grades was cut before it had answered."""
    unresponsive_reward_error: bool = False
    """The model that grades did not answer in time."""
    invalid_variable_error: bool = False
    """The item or the sample lacks what a template names."""
    other_error: bool = False
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    """The endpoint did not answer the model's question."""
    model_grader_refusal_error: bool = False
    """The model refused to answer."""
    model_grader_parse_error: bool = False
    """The model's answer holds no score, or one out of its range."""
    model_grader_server_error_details: str | None = None

    @property
    def any(self) -> bool:
        return self != Errors()

    def view(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __or__(self, other: Errors) -> Errors:
        return replace(self, **{name: told for name, told in other.view().items() if told})


@dataclass(frozen=True)
class Usage:
    """Tokens that a model used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def view(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class Outcome:
    """The score of one sample; 0 if there are errors."""

    reward: float = 0.0
    errors: Errors = Errors()
    sub_rewards: Mapping[str, float] = field(default_factory=dict)
    """Of a multi grader, the score of each of its graders."""
    usage: Mapping[str, Usage] = field(default_factory=dict)
    """By model, of those that were asked."""
    sampled_model: str | None = None
    """The model that was asked, if it was one."""
    label: str | None = None
    """Of a label model, the label that it gave."""


def combined(grader: Multi, parts: Mapping[str, Outcome]) -> Outcome:
    """The outcome of a multi grader. It is 0 if one of its graders has failed, because then the formula means
    nothing."""
    errors, usage = Errors(), dict[str, Usage]()
    for part in parts.values():
        errors |= part.errors
        for model, used in part.usage.items():
            usage[model] = usage.get(model, Usage()) + used
    rewards = {name: part.reward for name, part in parts.items()}
    reward = 0.0
    if not errors.any:
        try:
            reward = formula.read(grader.calculate_output, grader.graders).value(rewards)
        except NoResult:
            errors = Errors(formula_parse_error=True)
    return Outcome(reward, errors, rewards, usage, next(iter(usage)) if len(usage) == 1 else None)


def view(grader: Grader, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """The answer of `graders/run`; `seconds`: how long the grader ran."""
    total = sum(used.total_tokens for used in outcome.usage.values())
    return {
        "reward": outcome.reward,
        "sub_rewards": dict(outcome.sub_rewards),
        "model_grader_token_usage_per_model": {model: used.view() for model, used in outcome.usage.items()},
        "metadata": {
            "name": grader.name,
            "type": grader.type,
            "scores": dict(outcome.sub_rewards),
            "execution_time": seconds,
            "token_usage": total if outcome.usage else None,
            "sampled_model_name": outcome.sampled_model,
            "errors": outcome.errors.view(),
        },
    }
