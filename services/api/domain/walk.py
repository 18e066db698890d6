"""What a listing alone tells of a job."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from shared.events import STAGE_NAMES, StageName
from shared.stages.ledger import JOBS, Entry, job_key, published_key, result_key

_ATTEMPT = re.compile(r"(?P<stage>[^/]+)/attempt-(?P<number>[0-9]{1,9})/(?P<rest>.+)", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """One object that an attempt has written. `rest`: its key below the folder of the attempt."""

    stage: str
    attempt: int
    rest: str
    entry: Entry


@dataclass(frozen=True)
class JobListing:
    """The objects below `jobs/{job_id}/`."""

    job_id: str
    entries: Sequence[Entry]

    @cached_property
    def by_key(self) -> Mapping[str, Entry]:
        return {entry.key: entry for entry in self.entries}

    @property
    def has_manifest(self) -> bool:
        return job_key(self.job_id) in self.by_key

    @cached_property
    def results(self) -> Mapping[StageName, Entry]:
        """The stages that have a result, in order."""
        found = {stage: self.by_key.get(result_key(self.job_id, stage)) for stage in STAGE_NAMES}
        return {stage: entry for stage, entry in found.items() if entry is not None}

    @property
    def last(self) -> StageName | None:
        """The last stage that has a result."""
        return next(reversed(list(self.results)), None)

    @property
    def unpublished(self) -> list[StageName]:
        return [stage for stage in self.results if published_key(self.job_id, stage) not in self.by_key]

    @cached_property
    def written(self) -> Sequence[Written]:
        """What attempts have written."""
        prefix = f"{JOBS}{self.job_id}/"
        found = ((_ATTEMPT.fullmatch(entry.key.removeprefix(prefix)), entry) for entry in self.entries)
        return [Written(match["stage"], int(match["number"]), match["rest"], entry) for match, entry in found if match]

    @property
    def newest(self) -> float:
        """When anything was last written, in seconds since the epoch."""
        return max((entry.modified for entry in self.entries), default=0.0)

    @property
    def decided_at(self) -> float:
        """When the last result was written; 0: there is none."""
        return max((entry.modified for entry in self.results.values()), default=0.0)
