"""What goes wrong in a simulated history, and how often. Each history has some kinds of trouble and lacks the others:
where everything fails at once, little of it is ever seen."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Faults:
    """Shares are probabilities. All of them are 0 after `calm_after` seconds, so that every job must end."""

    # per call that leaves a process
    kill: float = 0.0
    """The process dies, before the effect of the call or after it."""
    pause: float = 0.0
    """The whole process stops for up to four leases, before the effect of the call or after it."""
    refused: float = 0.0
    """The call has no effect, and the caller learns it at once."""
    reply_lost: float = 0.0
    """The call has its effect, but the caller learns at once that the connection broke."""
    never_ends: float = 0.0
    """The caller gives up at its deadline. The call has no effect, or has it then, or even later."""
    slow: float = 0.0
    """The call takes up to five seconds."""

    # per second and process
    killed: float = 0.0
    paused: float = 0.0
    stopped: float = 0.0
    """SIGTERM: the service stops in order, and is started again."""

    # per event
    event_lost: float = 0.0
    event_twice: float = 0.0

    # per history
    store_outages: int = 0
    """The store answers nobody for 5 to 120 s."""
    cut_off: int = 0
    """The store answers one process nothing for 5 to 120 s, and all others as ever."""
    bus_outages: int = 0
    bus_gone: bool = False
    """There is no bus at all, from the beginning to the end."""
    denied: int = 0
    """A rotated key: the store refuses one process, or everybody, for up to a minute."""
    skew: float = 0.0
    """By how many seconds `now()` of a process may differ from the store's clock, in both directions."""
    janitor: bool = False
    """Attempt folders of finished jobs are deleted."""

    # per job
    bad_data: float = 0.0
    cancelled: float = 0.0
    rested: float = 0.0
    """Its user pauses the job up to three times, and resumes or cancels it."""
    flaky: float = 0.0
    """The work of one stage fails with this and that for some attempts."""
    buggy: float = 0.0
    """The work of one stage never succeeds, because of a bug."""
    broken_cause: float = 0.0
    """The work of one stage meets a wrong setting, or something that is away, until the calm."""
    killer: float = 0.0
    """The work of one stage kills its process, always."""

    calm_after: float = 150.0
    kill_at_call: int | None = None
    """Kill the process that makes the call with this number, and no other."""

    @property
    def calls_fail(self) -> bool:
        return bool(
            self.refused
            or self.reply_lost
            or self.never_ends
            or self.slow
            or self.store_outages
            or self.cut_off
            or self.denied
        )

    @property
    def owners_vanish(self) -> bool:
        """Whether a claim can be held by somebody who does not work."""
        dying = self.kill or self.pause or self.killed or self.paused or self.killer or self.kill_at_call
        return bool(dying or self.calls_fail)

    @property
    def orderly(self) -> bool:
        """Whether processes and store are in order, whatever jobs, users and bus do."""
        return not self.owners_vanish and not self.stopped

    @property
    def only_outages(self) -> bool:
        """Whether every process lives, and is answered by the store whenever the store answers anybody."""
        dying = self.kill or self.pause or self.killed or self.paused or self.killer or self.stopped
        losing = self.refused or self.reply_lost or self.never_ends or self.slow or self.denied or self.cut_off
        return bool(self.store_outages) and not dying and not losing


QUIET = Faults()

KINDS: tuple[Faults, ...] = (
    Faults(kill=0.01),
    Faults(killed=0.02),
    Faults(pause=0.01),
    Faults(paused=0.04),
    Faults(refused=0.03, reply_lost=0.03),
    Faults(never_ends=0.01),
    Faults(slow=0.1),
    Faults(store_outages=1),
    Faults(store_outages=2),
    Faults(cut_off=5),
    Faults(cut_off=5),
    Faults(denied=3),
    Faults(stopped=0.03),
    Faults(event_lost=0.2, event_twice=0.2),
    Faults(event_lost=1.0),
    Faults(bus_outages=2),
    Faults(bus_gone=True),
    Faults(skew=1.5),
    Faults(skew=1.5),
    Faults(janitor=True),
    Faults(cancelled=0.5),
    Faults(cancelled=0.5),
    Faults(rested=0.7),
    Faults(rested=0.7),
    Faults(rested=0.7, cancelled=0.5),
    Faults(flaky=0.5),
    Faults(bad_data=0.2, flaky=0.3),
    Faults(buggy=0.4),
    Faults(broken_cause=0.6),
    Faults(broken_cause=0.6),
    Faults(killer=0.3),
)


def draw(rng: random.Random) -> Faults:
    """The faults of one history: up to five kinds. In one history of four all processes live and are answered, because
    there much more can be asked of them; some of these are quiet."""
    if rng.random() < 0.25:
        return mixed(rng.sample([kind for kind in KINDS if kind.orderly], rng.randint(0, 3)))
    return mixed(rng.sample(KINDS, rng.randint(1, 5)))


def mixed(kinds: list[Faults]) -> Faults:
    """All of these faults in one history."""
    worst = {
        field.name: max((getattr(kind, field.name) for kind in kinds), default=field.default)
        for field in fields(Faults)
        if field.name != "kill_at_call"
    }
    return replace(QUIET, **worst)
