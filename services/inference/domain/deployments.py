"""Decides which version an alias names. Each function makes the next document of a deployment; `Aliases` writes it.

`history` holds every version that was ever current, newest first, the current one included.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared import ids
from shared.events import Deployed, Deployment, Job

# A promotion was done if its job is in the history. No job is still under way after so many later deployments.
HISTORY = 1000


class NoPrevious(ValueError):
    """There is nothing to roll back to."""


class AliasTaken(Exception):
    """The alias belongs to another dataset, that of the job `owner`."""

    def __init__(self, alias: str, owner: Job) -> None:
        super().__init__(alias)
        self.alias = alias
        self.owner = owner


def deploy(before: Deployment | None, version: Deployed, alias: str) -> Deployment:
    """Make `version` the current one, and the current one the previous."""
    if before is None:
        return Deployment(alias=alias, current=version, history=(version,))
    if before.current.model == version.model:
        return before
    return Deployment(
        alias=alias, current=version, previous=before.current, history=(version, *before.history)[:HISTORY]
    )


def promote(before: Deployment | None, version: Deployed, alias: str) -> Deployment:
    """Like `deploy`, but once per job: a resumed attempt must not undo later deployments."""
    if before is not None and any(earlier.job_id == version.job_id for earlier in before.history):
        return before
    return deploy(before, version, alias)


def makers(deployment: Deployment) -> Iterator[str]:
    """The jobs whose models the alias named, newest first: the first that is known owns the alias."""
    return iter(dict.fromkeys(version.job_id for version in deployment.history if version.job_id))


def may_take(job: Job, owner: Job) -> bool:
    """Whether an alias of `owner` may move to the model of `job` without anybody's say: both have the same dataset, or
    the user of `job` has named the alias, and did not leave it to the name of the file."""
    if (job.dataset.bucket, job.dataset.key) == (owner.dataset.bucket, owner.dataset.key):
        return True
    named = job.spec.alias or job.spec.suffix
    return named is not None and ids.alias_of(named) == ids.alias_of(job.alias)


def roll_back(before: Deployment, at: float) -> Deployment:
    """Swap current and previous, so that a second call undoes the first.

    Raises:
        NoPrevious: the alias has only had one version.
    """
    if before.previous is None:
        raise NoPrevious(before.alias)
    return deploy(before, before.previous.model_copy(update={"at": at}), before.alias)


def replaced_by(deployment: Deployment, job_id: str) -> str | None:
    """The model that the promotion of `job_id` replaced, even if other models were deployed since."""
    for index, version in enumerate(deployment.history):
        if version.job_id == job_id and index + 1 < len(deployment.history):
            return deployment.history[index + 1].model
    return None
