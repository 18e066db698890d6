"""The body of `POST /sweeps`, and a sweep as the JSON object that `GET /sweeps/{id}` answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args

from pydantic import Field, model_validator

from services.api.domain.sweeps.decide import best_of
from services.api.domain.sweeps.documents import SWEEP, TRIAL, Documents, Pruning
from services.api.domain.sweeps.space import SearchSpace, check_space, usual_space
from services.api.domain.sweeps.standing import Standing, TrialStatus
from services.api.resources.lists import whole_seconds
from shared.errors import InputError
from shared.events import Budget, JobSpec, StrictModel
from shared.events.limits import METADATA_ENTRIES, Name
from shared.events.spec import metric_without_grader

MOST_TRIALS, MOST_PARALLEL = 500, 64


class CreateSweep(StrictModel):
    """What a client sends to search for settings."""

    training_file: Annotated[Name, Field(min_length=1)]
    """A file of the Files API."""
    validation_file: Annotated[Name, Field(min_length=1)] | None = None
    """Trials are compared on it; None: on the same share of the dataset, `spec.splits.validation`."""
    spec: JobSpec = JobSpec()
    """The settings that all trials share. The best one is evaluated and gated as they say."""
    space: SearchSpace | None = None
    """What is searched; None: epochs, learning rate multiplier, rank, dropout and batch size, but for what `spec`
    sets."""
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 8
    parallel: Annotated[int, Field(ge=1, le=MOST_PARALLEL)] = 1
    """How many trials train at a time, if there are as many trainers."""
    pruning: Pruning = "median"
    """`median`: a trial ends early when its validation loss is above the median of the others at the same share of
    their trainings."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Of the draws; `spec.seed` is that of the trainings."""
    budget: Budget | None = None
    """What the trainings of all trials may spend together. Each trial gets a share of what is left."""

    @model_validator(mode="after")
    def _together(self) -> CreateSweep:
        if problem := self._problem():
            raise problem
        return self

    def searched(self, largest_rank: int, *, tuned: bool) -> SearchSpace:
        """The space. `largest_rank`: of what is served. `tuned`: trainings start from a tuned model.

        Raises:
            InputError: a parameter cannot be searched so.
        """
        space = self.space if self.space is not None else usual_space(self.spec, largest_rank, tuned=tuned)
        check_space(space, self.spec, self.trials, largest_rank, tuned=tuned)
        return space

    def _problem(self) -> InputError | None:
        spec = self.spec
        if self.parallel > self.trials:
            message = f"'parallel' is {self.parallel}, more than 'trials' ({self.trials}); lower it, or raise 'trials'."
            return InputError("invalid_value", message, "parallel")
        if spec.validation_file is not None:
            message = "A sweep takes the validation file of the Files API: name it in 'validation_file'."
            return InputError("invalid_value", message, "spec.validation_file")
        if spec.splits.validation == 0 and self.validation_file is None:
            message = (
                "Trials are compared by their validation loss: give 'validation_file', or a share of the rows in "
                "'spec.splits.validation'."
            )
            return InputError("invalid_value", message, "spec.splits.validation")
        if spec.rerun:
            message = "A sweep has no 'rerun': every request makes a new one. Leave it out."
            return InputError("invalid_value", message, "spec.rerun")
        if self.budget is not None and not self.budget.model_dump(exclude_none=True):
            message = f"'budget' limits nothing; give one of {', '.join(Budget.model_fields)}, or leave it out."
            return InputError("invalid_value", message, "budget")
        taken = sorted({SWEEP, TRIAL} & spec.metadata.keys())
        if taken:
            message = f"'spec.metadata.{taken[0]}' is what a sweep marks its trials with; give it another name."
            return InputError("invalid_value", message, f"spec.metadata.{taken[0]}")
        if len(spec.metadata) > METADATA_ENTRIES - 2:
            message = f"'spec.metadata' may have {METADATA_ENTRIES - 2} entries: a sweep adds '{SWEEP}' and '{TRIAL}'."
            return InputError("invalid_value", message, "spec.metadata")
        if problem := metric_without_grader(spec.gate, spec.evaluation):
            return InputError("invalid_value", f"{problem}.", "spec.gate.metric")
        return None


def sweep_view(
    documents: Documents, standings: Sequence[Standing], *, url: str, now: float, notes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The JSON object of a sweep. `url`: its own. Times are in whole seconds since the epoch, by the clock of the
    object store."""
    sweep, result = documents.sweep, documents.result
    best = _best(documents, standings)
    return {
        "id": sweep.sweep_id,
        "object": "sweep",
        "created_at": whole_seconds(sweep.created_at),
        "finished_at": whole_seconds(result.finished_at) if result else None,
        "status": status_of(documents),
        "filename": sweep.filename,
        "model": sweep.base,
        "trials": sweep.trials,
        "parallel": sweep.parallel,
        "pruning": sweep.pruning,
        "seed": sweep.seed,
        "space": sweep.space.model_dump(mode="json", exclude_none=True),
        "spec": sweep.spec.model_dump(mode="json", exclude_defaults=True),
        "budget": sweep.budget.model_dump(exclude_none=True) if sweep.budget else None,
        "spent": spent(standings),
        "counts": counts(standings),
        "data": [trial_view(standing) for standing in standings],
        "best": trial_view(best) if best else None,
        "evaluated_by": result.job_id if result else documents.best.job_id if documents.best else None,
        "fine_tuned_model": result.model if result and result.outcome == "succeeded" else None,
        "promoted": bool(result and result.promoted),
        "error": result.error.model_dump() if result and result.error else None,
        "report": f"{url}/report",
        "as_of": now,
        "notes": list(notes),
    }


def status_of(documents: Documents) -> str:
    """`running`, `evaluating`, `cancelling`, or how it ended."""
    if documents.result:
        return documents.result.outcome
    if documents.cancelled:
        return "cancelling"
    return "evaluating" if documents.best else "running"


def trial_view(standing: Standing) -> dict[str, Any]:
    """The JSON object of a trial."""
    return {
        "number": standing.number,
        "job_id": standing.job_id,
        "status": standing.status,
        "parameters": standing.parameters,
        "valid_loss": standing.valid_loss,
        "curve": [[round(point.fraction, 4), point.valid_loss] for point in standing.points],
        "seconds": round(standing.spent.seconds, 1),
        "fine_tuned_model": standing.model if standing.status == "succeeded" else None,
        "error": {"code": standing.code, "message": standing.reason} if standing.status == "failed" else None,
        "pruned": standing.reason if standing.status == "pruned" else None,
    }


def spent(standings: Sequence[Standing]) -> dict[str, float | None]:
    """What the trainings that are over have taken together. Money is null where nobody knows the price."""
    over = [standing.spent for standing in standings if not standing.training]
    money = [each.money for each in over if each.money is not None]
    return {
        "seconds": round(sum(each.seconds for each in over), 1),
        "gpu_hours": round(sum(each.gpu_hours for each in over), 4),
        "tokens": round(sum(each.tokens for each in over)),
        "money": round(sum(money), 6) if money else None,
    }


def counts(standings: Sequence[Standing]) -> dict[str, int]:
    """How many trials there are of each status."""
    found = Counter(standing.status for standing in standings)
    return {status: found[status] for status in get_args(TrialStatus)}


def _best(documents: Documents, standings: Sequence[Standing]) -> Standing | None:
    """The best trial so far, or the one that was chosen."""
    chosen = documents.result.best if documents.result else documents.best.number if documents.best else None
    if chosen is None:
        return None if documents.result else best_of(standings)
    return next((standing for standing in standings if standing.number == chosen), None)
