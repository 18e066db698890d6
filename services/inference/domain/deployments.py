"""Decides which version an alias names. Each function makes the next document of a deployment; `Aliases` writes it.

`history` holds every version that was ever current, newest first, the current one included.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared import ids
from shared.events import Deployed, Deployment, Job
from shared.events.limits import DEFAULT_PROJECT

# A promotion was done if its job is in the history. No job is still under way after so many later deployments.
HISTORY = 1000


class NoPrevious(ValueError):
    """There is nothing to roll back to."""


class NeverNamed(ValueError):
    """The alias never named the model that it is to be rolled back to."""


class RolledBack(ValueError):
    """The alias was rolled back already. Who asks again without saying from which version may mean the same rollback,
    whose answer was lost."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment.alias)
        self.deployment = deployment


class VersionChanged(ValueError):
    """The alias does not name the version that the caller expects; `current` is the model that it names, if any."""

    def __init__(self, alias: str, current: str | None) -> None:
        super().__init__(alias)
        self.alias = alias
        self.current = current


class AliasTaken(Exception):
    """The alias belongs to another dataset, that of the job `owner`."""

    def __init__(self, alias: str, owner: Job) -> None:
        super().__init__(alias)
        self.alias = alias
        self.owner = owner


def deploy(
    before: Deployment | None,
    version: Deployed,
    alias: str,
    expected: str | None = None,
    project: str = DEFAULT_PROJECT,
) -> Deployment:
    """Make `version` the current one, and the current one the previous. Nothing changes if it is current already: a
    call whose answer was lost may be repeated. `expected`: the model that is to be current before. `project`: to which
    a new alias belongs.

    Raises:
        VersionChanged: another model is current.
    """
    if before is not None and before.current.model == version.model:
        return before
    if expected is not None and (before is None or before.current.model != expected):
        raise VersionChanged(alias, before.current.model if before else None)
    if before is None:
        return Deployment(alias=alias, project=project, current=version, history=(version,))
    return Deployment(
        alias=alias,
        project=before.project,
        current=version,
        previous=before.current,
        history=(version, *before.history)[:HISTORY],
    )


def promote(before: Deployment | None, version: Deployed, alias: str, project: str = DEFAULT_PROJECT) -> Deployment:
    """Like `deploy`, but once per job: a resumed attempt must not undo later deployments."""
    if before is not None and was_promoted(before, version.job_id):
        return before
    return deploy(before, version, alias, project=project)


def was_promoted(deployment: Deployment, job_id: str) -> bool:
    """Whether the alias has named the model of this job."""
    return any(version.job_id == job_id for version in deployment.history)


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


def rollback_target(before: Deployment, to: str | None, expected: str | None) -> Deployed | None:
    """The version that a rollback leads to; None: the alias is there already, by this call or one like it.

    `to`: its model; None: the version that was in use before the current one came. A version that was rolled back is
    never that one, so rolling back again leads further back. `expected`: the model from which the caller rolls back.

    Raises:
        VersionChanged: the current model is another than `expected`.
        RolledBack: neither is given, and the alias was rolled back already.
        NeverNamed: the alias never named `to`.
        NoPrevious: there is no earlier version.
    """
    current = before.current
    if to is not None and current.model == to:
        return None
    if expected is not None and current.model != expected:
        if to is None and rolled_back_from(before) == expected:
            return None
        raise VersionChanged(before.alias, current.model)
    if to is not None:
        named = [version for version in (*before.history, before.previous) if version and version.model == to]
        if not named:
            raise NeverNamed(before.alias)
        return named[0]
    if expected is None and current.rolled_back:
        raise RolledBack(before)
    earlier = [version for version in _in_use(before) if version.model != current.model]
    if not earlier:
        raise NoPrevious(before.alias)
    return earlier[-1]


def roll_back(before: Deployment, target: Deployed, expected: str, at: float) -> Deployment:
    """Make `target` current again, if `expected` is.

    Raises:
        VersionChanged: another model is current.
    """
    return deploy(before, target.model_copy(update={"at": at, "rolled_back": True}), before.alias, expected)


def rolled_back_from(deployment: Deployment) -> str | None:
    """The model from which the alias was rolled back to its current one; None if it came there in another way."""
    return deployment.previous.model if deployment.current.rolled_back and deployment.previous else None


def _in_use(deployment: Deployment) -> list[Deployed]:
    """The versions that would be current if those after them had not come, oldest first. A rollback takes away all that
    came after its target."""
    versions: list[Deployed] = []
    for version in reversed(deployment.history or (deployment.current, *filter(None, [deployment.previous]))):
        if version.rolled_back:
            models = [earlier.model for earlier in versions]
            if version.model in models:
                del versions[len(models) - models[::-1].index(version.model) - 1 :]
        versions.append(version)
    return versions


def replaced_by(deployment: Deployment, job_id: str) -> str | None:
    """The model that the promotion of `job_id` replaced, even if other models were deployed since."""
    jobs = [version.job_id for version in reversed(deployment.history)]
    if job_id not in jobs[1:] or job_id == jobs[0]:
        return None
    return deployment.history[-jobs.index(job_id)].model  # what was current before the job's first version
