"""The body of `POST /v1/fine_tuning/jobs`, and the settings of a job that it means."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shared.errors import InputError
from shared.events import DatasetPointer, JobSpec, Reference
from shared.events.checks import Checks
from shared.events.integrations import Integration
from shared.events.limits import INTEGRATIONS, Name
from shared.events.models import StrictModel
from shared.events.spec import (
    Alias,
    Evaluation,
    Gate,
    Hyperparameters,
    Lora,
    Metadata,
    Method,
    Splits,
    metric_without_grader,
)

Promote = Literal["if_better", "always", "never"]


def _without_nulls(value: Any) -> Any:
    """A client sends `null` for what it leaves out."""
    if isinstance(value, dict):
        return {
            key: inner if key == "metadata" else _without_nulls(inner)
            for key, inner in value.items()
            if inner is not None
        }
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


class ChosenMethod(StrictModel):
    """The settings of one method: its `hyperparameters`."""

    hyperparameters: Hyperparameters = Hyperparameters()


class MethodBody(StrictModel):
    """`method`: its type, and beside it the settings of this method."""

    type: Method
    supervised: ChosenMethod | None = None
    dpo: ChosenMethod | None = None


class CreateJob(StrictModel):
    """What a client sends to fine-tune a model. `null` counts as absent."""

    model: Annotated[Name, Field(min_length=1)]
    """The base, a tuned model (`ft:…`) or a checkpoint of it, or a foreign name that stands for a base."""
    training_file: Annotated[Name, Field(min_length=1)]
    validation_file: Annotated[Name, Field(min_length=1)] | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    metadata: Metadata | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    """OpenAI's three, and ours: `max_length`, `over_length`, `learning_rate` and others."""
    method: MethodBody | None = None
    integrations: Annotated[tuple[Integration, ...], Field(max_length=INTEGRATIONS)] = ()
    lora: Lora = Lora()
    splits: Splits = Splits()
    checks: Checks = Checks()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    alias: Alias | None = None
    deploy: bool | Promote | None = None
    """Another way to write `gate.promote`: false is `never`, true is `if_better`."""

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, given: Any) -> Any:
        if problem := _refused(given):
            raise problem
        return _without_nulls(given)

    def notes(self, tracked: Collection[str]) -> tuple[str, ...]:
        """What is accepted, but not served: one line each. `tracked`: the integrations that this deployment serves."""
        return tuple(
            f"The integration {each.type} is not served here: nothing is sent to it; the metrics are in the job's "
            f"events and in its result file. TUNESTREAM_TRACKING__{each.type.upper()} switches it on."
            for each in self.integrations
            if each.type not in tracked
        )

    def spec(self, validation: Reference | None) -> JobSpec:
        """The settings of the job. `validation`: the content of the validation file.

        Raises:
            InputError: two fields of the body contradict each other.
        """
        if problem := metric_without_grader(self.gate, self.evaluation):
            raise InputError("invalid_value", f"{problem}.", "gate.metric")
        return JobSpec(
            model=self.model,
            method=self.method.type if self.method else None,
            suffix=self.suffix,
            alias=self.alias,
            seed=self.seed or 0,
            hyperparameters=self._hyperparameters(),
            lora=self.lora,
            splits=self.splits,
            checks=self.checks,
            evaluation=self.evaluation,
            gate=self._gate(),
            validation_file=DatasetPointer.model_validate(validation.model_dump()) if validation else None,
            metadata=self.metadata or {},
            integrations=self.integrations,
        )

    def _hyperparameters(self) -> Hyperparameters:
        """Those of the method, and the top-level ones that it does not name."""
        above = self.hyperparameters.model_dump(exclude_unset=True)
        if self.method is None:
            return self.hyperparameters
        chosen = self.method.type
        other: Method = "dpo" if chosen == "supervised" else "supervised"
        if getattr(self.method, other) is not None:
            message = f"'method.{other}' belongs to another method than the type '{chosen}'; leave it out."
            raise InputError("invalid_value", message, f"method.{other}")
        below = getattr(self.method, chosen) or ChosenMethod()
        named = below.hyperparameters.model_dump(exclude_unset=True)
        for name in _different(above, named):
            where = f"method.{chosen}.hyperparameters.{name}"
            message = f"'hyperparameters.{name}' and '{where}' differ; give one of them."
            raise InputError("invalid_value", message, f"hyperparameters.{name}")
        both = Hyperparameters.model_validate(above | named)
        if chosen == "supervised" and both.beta != "auto":
            at = "method.supervised.hyperparameters.beta" if "beta" in named else "hyperparameters.beta"
            raise InputError("invalid_value", f"'{at}' is a setting of the method 'dpo'; leave it out.", at)
        return both

    def _gate(self) -> Gate:
        if self.deploy is None:
            return self.gate
        names: dict[bool | str, Promote] = {False: "never", True: "if_better"}
        wanted = names[self.deploy] if isinstance(self.deploy, bool) else self.deploy
        if "promote" in self.gate.model_fields_set and self.gate.promote != wanted:
            message = (
                f"'deploy' means gate.promote = {wanted}, but 'gate.promote' is {self.gate.promote}; give one of them."
            )
            raise InputError("invalid_value", message, "deploy")
        return self.gate.model_copy(update={"promote": wanted})


def _refused(body: Any) -> InputError | None:
    """Why a body is refused whatever else it holds; None: it may be read."""
    method = body.get("method") if isinstance(body, Mapping) else None
    kind = method.get("type") if isinstance(method, Mapping) else None
    if kind == "reinforcement":
        message = "'method.type' is 'reinforcement', which is not served here; use 'supervised' or 'dpo'."
        return InputError("unsupported_value", message, "method.type")
    return None


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in one if name in other and one[name] != other[name])
