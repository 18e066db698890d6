"""A store in memory in which single calls fail, as a policy, an archive or a broken disk makes them fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.fakes.store import Disk, FakeStore


@dataclass
class Faults(Disk):
    """What all clients share: `faults` maps the name of a call and a key to the error that it raises."""

    faults: dict[tuple[str, str], Exception] = field(default_factory=dict)


class FaultyStore(FakeStore):
    """A store whose calls raise the errors in `faults`."""

    disk: Faults

    def __init__(
        self, bucket: str = "tunestream", clock: Callable[[], float] = lambda: 1e6, disk: Faults | None = None
    ) -> None:
        super().__init__(bucket, clock, disk or Faults())

    def at(self, bucket: str) -> FaultyStore:
        return FaultyStore(bucket, self._clock, self.disk)

    @property
    def faults(self) -> dict[tuple[str, str], Exception]:
        return self.disk.faults

    async def before(self, operation: str, key: str) -> None:
        await super().before(operation, key)
        if error := self.faults.get((operation, key)):
            raise error
