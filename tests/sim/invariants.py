"""What must hold at every step of a simulation. The first thing that does not is kept, and ends the history."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import Cancelled, ConfigError, InputError, Paused, TransientError
from shared.events import Claim, Deployment, StageName, StageResult
from shared.retry import Backoff
from shared.stages.ledger import PENDING, control_prefix, decision_key
from shared.stages.stage import STAGES, Attempt
from tests.sim.loop import here
from tests.sim.network import NETWORK
from tests.sim.processes import DISCOVER, LEASE, MAX_BACKOFF, MAX_BUGS, MAX_DEATHS, POLL, Process

if TYPE_CHECKING:
    from tests.sim.jobs import Plan
    from tests.sim.world import World

LEARNS = LEASE / 3 + 2.0
"""Seconds of its own running time in which an owner learns what happened to its claim or its job, if nothing fails."""
CHECKPOINT = 41.0
"""Seconds that a training takes to keep what it has reached."""
LOOKS = 0.5
"""Seconds between a look at what the user wants and the write that follows, if nothing fails."""
STOPS = 1.0
"""Seconds in which work stops once its process knows that it must."""
FINDS = DISCOVER + POLL + 3.0
"""Seconds in which a free slot finds work whose event another process got, or nobody."""
STARTS = 3.0
"""Seconds in which a free slot begins work that its process knows."""
FAIR = 2.5
"""Seconds by which a job may be asked for later, and still begin earlier, in the only process of a stage."""


@dataclass(eq=False)
class Work:
    """One run of the work of a stage."""

    process: Process
    owner: str
    attempt: Attempt
    began: float
    ended: float | None = None
    stopped_by: str = ""
    how: str = "at work"
    """`at work`, `done`, `waits` (something outside is away), `bug`, `input`, `cancelled`, `killed`, or `paused`, which
    is said of one that met its pause at the point of no return."""

    @property
    def about(self) -> tuple[str, StageName]:
        return self.attempt.job.job_id, self.attempt.stage

    @property
    def active(self) -> bool:
        return self.ended is None and not self.process.dead

    def __str__(self) -> str:
        return f"{self.attempt.prefix} in {self.process.name}"


class Watch:
    """Sees every effect, and every beginning and end of work."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken: list[str] = []
        self.works: list[Work] = []
        self._works_on: defaultdict[tuple[str, str], list[Work]] = defaultdict(list)
        self._busy: Counter[StageName] = Counter()
        self._free_since: dict[StageName, float] = {}
        self._claimed: dict[tuple[str, int], float] = {}
        """When each claim was first written: its key and attempt."""
        self.seen: Counter[str] = Counter()
        """How often the protocol was put to the test, and how."""
        self._vain: Counter[tuple[str, float]] = Counter()
        """The claims on each stage since each pause."""
        self._decided: set[str] = set()
        self._alias_moves: list[str] = []

    def violated(self, invariant: str, detail: str) -> None:
        self.broken.append(f"{invariant}: {detail}")
        self._world.finished.set()

    def expect(
        self,
        process: Process,
        seconds: float,
        wrong: Callable[[], bool],
        invariant: str,
        what: str,
        *,
        calls: bool = True,
    ) -> None:
        """`wrong` must end within seconds in which the process runs and, if it has to make `calls`, these succeed."""
        began = here().now

        def look() -> None:
            if process.dead or self._world.over or not wrong():
                return
            if process.stopped or (process.trouble_at if calls else process.paused_at) >= began:
                self.expect(process, seconds, wrong, invariant, what, calls=calls)
            else:
                self.violated(invariant, what)

        here().call_later(seconds, look, context=NETWORK)

    # --- work -------------------------------------------------------------------------------------------------

    def begins(self, process: Process, owner: str, attempt: Attempt) -> Work:
        work = Work(process, owner, attempt, here().now)
        earlier = self._works_on[work.about]
        self._is_allowed(work, earlier)
        if self._world.faults.orderly and not earlier:
            self._is_its_turn(work)
        self.works.append(work)
        earlier.append(work)
        self._busy[attempt.stage] += 1
        return work

    def ends(self, work: Work, error: BaseException | None) -> None:
        if self._world.over:
            return
        work.ended = here().now
        match error:
            case None:
                work.how = "done"
            case InputError():
                work.how = "input"
            case Cancelled():
                work.how = "cancelled"
            case Paused():
                work.how = "paused"
            case TransientError() | ConfigError():
                work.how = "waits"
            case Exception():
                work.how = "bug"
            case _:
                work.how = "cancelled"
                self.seen[f"work stopped by {work.stopped_by or 'its user'}"] += 1
        if work.how in ("cancelled", "paused"):
            self._may_rest(work)
        if work.how == "done" and not _is_certain(work.attempt):
            self.seen["work done while in doubt"] += 1
        stage = work.attempt.stage
        if self._busy[stage] == self._world.shape.slots(stage):
            self._free_since[stage] = work.ended
        self._busy[stage] -= 1

    def _is_allowed(self, work: Work, earlier: list[Work]) -> None:
        job_id, stage = work.about
        faults = self._world.faults
        if any(one.attempt.number == work.attempt.number for one in earlier):
            self.violated("an attempt has one owner", f"{work}")
        decided = self._world.disk.documents.get(f"jobs/{job_id}/{stage}/result.json")
        claimed = self._claimed.get((f"jobs/{job_id}/{stage}/claim.json", work.attempt.number))
        if decided and claimed and decided.modified < claimed:
            self.violated("what is decided is not begun again", f"{work}")
        cancelled = self._world.disk.documents.get(f"{control_prefix(job_id)}cancel-1.json")
        if cancelled and claimed and cancelled.modified < claimed and not self._goes_on(work):
            self.violated("nobody begins a cancelled job", f"{work}")
        paused_at = self._paused_at(job_id)
        if paused_at is not None and claimed and paused_at < claimed and not self._goes_on(work):
            self.violated("nobody begins a paused job", f"{work}")
        ends = Counter(one.how for one in earlier)
        if ends["bug"] >= MAX_BUGS and not faults.owners_vanish:
            self.violated("bugs are bounded", f"{work} follows {ends['bug']} bugs")
        if self._deaths(earlier) > MAX_DEATHS or ends["bug"] > MAX_BUGS + 3:
            self.violated("a job that kills its workers ends", f"{work} follows {dict(ends)}")
        if earlier and not faults.owners_vanish and earlier[-1].how in ("waits", "bug"):
            self._has_waited(work, earlier)

    def _has_waited(self, work: Work, earlier: list[Work]) -> None:
        last = earlier[-1]
        failures = sum(one.how == last.how for one in earlier)
        pause = Backoff(1.0, MAX_BACKOFF).pause(failures) / 2
        assert last.ended is not None
        waited = work.began - last.ended
        if waited < pause - 2 * self._world.faults.skew - 0.1:
            self.violated("failures back off", f"{work} began {waited:.1f} s after failure {failures}")

    def _deaths(self, works: list[Work]) -> int:
        return sum(one.ended is None and one.process.dead for one in works)

    def _is_its_turn(self, work: Work) -> None:
        job_id, stage = work.about
        now, shape = here().now, self._world.shape
        upstream = self._world.disk.documents[f"jobs/{job_id}/{STAGES[stage].upstream}/result.json"]
        asked = self._asked_at(job_id, stage)
        alone = shape.runners(stage) == 1
        if self._plan(job_id).pauses:
            return
        if self._busy[stage] < shape.slots(stage):
            free = self._free_since.get(stage, 0.0)
            idle = now - max(upstream.modified, free)
            if idle > FINDS or (alone and now - max(asked, free) > STARTS):
                self.violated("no slot is idle while work waits", f"{work} waited {idle:.1f} s for nothing")
        slack = FAIR if alone else FINDS
        for plan in self._world.plans:
            other = plan.job.job_id
            if other == job_id or plan.cancelled_after is not None or plan.pauses or self._works_on[other, stage]:
                continue
            if self._asked_at(other, stage) < asked - slack and not self._world.result(other, stage):
                self.violated("first come, first served", f"{work} began before {other}")

    def _asked_at(self, job_id: str, stage: StageName) -> float:
        request = self._world.disk.documents.get(f"jobs/{job_id}/{stage}/request.json")
        return request.modified if request else float("inf")

    def is_working(self, process: Process) -> bool:
        return any(work.process is process and work.active for work in self.works)

    # --- claims -----------------------------------------------------------------------------------------------

    def active(self, job_id: str, stage: str | None = None) -> list[Work]:
        return [
            work
            for (other, its_stage), works in self._works_on.items()
            if other == job_id and stage in (None, its_stage)
            for work in works
            if work.active
        ]

    def claims(self, job_id: str, stage: str) -> int:
        """How often the stage was claimed."""
        return sum(key == f"jobs/{job_id}/{stage}/claim.json" for key, _ in self._claimed)

    def _claim_written(self, process: Process, key: str, data: bytes) -> None:
        claim = Claim.model_validate_json(data)
        if any(key == other and claim.attempt < attempt for other, attempt in self._claimed):
            self.violated("a claim never goes back", f"to attempt {claim.attempt}: {key} by {process.name}")
        if (key, claim.attempt) in self._claimed:
            return
        self._claimed[key, claim.attempt] = here().now
        _, job_id, stage, _ = key.split("/")
        if (paused_at := self._paused_at(job_id)) is not None and decision_key(
            job_id, stage
        ) not in self._world.disk.documents:
            # whoever had found it before the pause may still claim it, once
            self._vain[key, paused_at] += 1
            if self._vain[key, paused_at] > self._world.shape.runners(stage) and not self._world.faults.owners_vanish:
                self.violated("a paused job is not claimed", f"{key} by {process.name}")
        self.seen["claims of the dead"] += claim.deaths > 0
        for other in self.active(job_id, stage):
            if other.attempt.number >= claim.attempt:
                continue
            if not other.process.running:
                self.seen["claims beside a paused owner"] += 1
            elif _is_certain(other.attempt):
                self.violated(
                    "never two owners that are certain", f"attempt {claim.attempt} was claimed beside {other}"
                )
            else:
                self.seen["claims beside an owner in doubt"] += 1
            self.expect(
                other.process, LEARNS, lambda other=other: other.active, "a lost lease stops the work", f"{other}"
            )

    def knows(self, owner: str, key: str, found: tuple[bytes, str] | None) -> None:
        """The store told a runner about a claim."""
        if found is None or not key.startswith("jobs/"):
            return
        _, job_id, stage, _ = key.split("/")
        for work in self.active(job_id, stage):
            if work.owner == owner and work.attempt.number < Claim.model_validate_json(found[0]).attempt:
                self._must_stop(work, "a lost claim", "a known loss stops the work at once")

    def refused(self, owner: str, key: str) -> None:
        """The store refused a runner's write."""
        if key.endswith("/claim.json"):
            _, job_id, stage, _ = key.split("/")
            for work in self.active(job_id, stage):
                if work.owner == owner:
                    self._must_stop(work, "a refusal", "an owner that is refused stops at once")

    def _must_stop(self, work: Work, why: str, invariant: str) -> None:
        work.stopped_by = why
        self.expect(work.process, STOPS, lambda: work.active, invariant, f"{work}", calls=False)

    def acts(self, process: Process, attempt: Attempt) -> None:
        """The work is about to do something that others see."""
        held = self._world.disk.data(f"jobs/{attempt.job.job_id}/{attempt.stage}/claim.json")
        if held and Claim.model_validate_json(held).attempt != attempt.number:
            self.violated("who is in doubt does nothing visible", f"{attempt.prefix} in {process.name}")

    def cancelled(self, job_id: str) -> None:
        def look() -> None:
            if not self._world.over and not self._world.decided(job_id):
                self.violated("a cancelled job ends", job_id)

        if self._world.faults.orderly and not self._world.faults.event_lost:
            here().call_later(FINDS, look, context=NETWORK)
        for work in self.active(job_id):
            self.expect(
                work.process,
                LEARNS,
                lambda work=work: work.active and not self._goes_on(work),
                "cancel stops the work",
                f"{work}",
            )

    def _plan(self, job_id: str) -> Plan:
        return next(plan for plan in self._world.plans if plan.job.job_id == job_id)

    def _paused_at(self, job_id: str) -> float | None:
        """When the pause began that holds now; None: there is none."""
        prefix, documents = control_prefix(job_id), self._world.disk.documents
        names = {key.removeprefix(prefix).removesuffix(".json") for key in self._world.disk.keys(prefix)}
        last = max((int(name.removeprefix("pause-")) for name in names if name.startswith("pause-")), default=0)
        if not last or f"resume-{last}" in names or "cancel-1" in names:
            return None
        return documents[f"{prefix}pause-{last}.json"].modified

    def paused(self, job_id: str, number: int, asked_at: float) -> None:
        """A user was told that a job is paused, by the pause of this number."""
        prefix, documents = control_prefix(job_id), self._world.disk.documents
        over = documents.get(f"{prefix}resume-{number}.json")
        if f"{prefix}pause-{number}.json" not in documents or (over and over.modified < asked_at):
            self.violated("a pause that was answered holds", f"{number} of {job_id}")
        if (paused_at := self._paused_at(job_id)) is None:
            return  # another client was faster
        for work in self.active(job_id):
            if self._goes_on(work):
                continue
            work.stopped_by = work.stopped_by or "a pause"
            self.expect(
                work.process,
                LEARNS + (CHECKPOINT if work.attempt.stage == "trainer" else 0.0),
                lambda work=work: work.active and self._paused_at(job_id) == paused_at and not self._goes_on(work),
                "a pause stops the work",
                f"{work}",
            )

    def stopping(self, process: Process, attempt: Attempt) -> None:
        """A training is told to stop."""
        paused_at = self._paused_at(attempt.job.job_id)
        if paused_at is not None and attempt.abandoned and not self._world.faults.owners_vanish:
            self.violated("a pause keeps what was reached", f"{attempt.prefix} in {process.name}")

    def _may_rest(self, work: Work) -> None:
        """A stage that has passed its point of no return is not stopped for a pause."""
        job_id, stage = work.about
        decision = self._world.disk.documents.get(decision_key(job_id, stage))
        paused_at = self._paused_at(job_id)
        if decision and paused_at is not None and decision.modified < paused_at and work.stopped_by == "":
            self.violated("what cannot be undone is not paused", f"{work}")

    def resumed(self, job_id: str) -> None:
        """A user has resumed a job: it goes on, if there is a free slot all the time."""
        began, plan = here().now, self._plan(job_id)
        if not self._world.faults.orderly or plan.trouble != "none" or plan.cancelled_after is not None:
            return
        stage = next((stage for stage in STAGES if self._world.result(job_id, stage) is None), None)

        def look() -> None:
            if self._world.over or stage is None or self._paused_at(job_id) is not None:
                return
            full = self._busy[stage] >= self._world.shape.slots(stage) or self._free_since.get(stage, 0.0) > began
            idle = self._world.result(job_id, stage) is None and not self.active(job_id)
            began_since = any(work.began >= began for work in self._works_on[job_id, stage])
            if idle and not full and not began_since and self._resumes(job_id) == resumes:
                self.violated("a resumed job goes on", f"{stage} of {job_id}")

        resumes = self._resumes(job_id)
        seconds = FINDS + (CHECKPOINT if stage == "trainer" else 0.0)
        here().call_later(seconds, look, context=NETWORK)

    def _resumes(self, job_id: str) -> int:
        return len(self._world.disk.keys(control_prefix(job_id) + "resume-"))

    def _goes_on(self, work: Work) -> bool:
        """Whether an attempt has passed the point of no return before anybody has obeyed a cancel."""
        job_id, stage = work.about
        return self._world.disk.data(decision_key(job_id, stage)) == b'{"goes_on": true}'

    def ended(self, process: Process, task: asyncio.Future[None]) -> None:
        """A task that runs until it is cancelled has ended."""
        if not task.cancelled():
            self.violated("no exception ends a service", f"{task.exception()!r} in {process.name}")

    def stops(self, process: Process) -> None:
        for work in self.works:
            if work.process is process and work.active:
                work.stopped_by = "a stop of its service"

    def stopped(self, process: Process) -> None:
        """A process has ended in order."""
        for work in self.works:
            if work.process is not process:
                continue
            if work.ended is None:
                self.violated("a service that stops ends its work", f"{work}")
            held = self._world.disk.data(f"jobs/{work.about[0]}/{work.about[1]}/claim.json")
            claim = Claim.model_validate_json(held or b"{}")
            # one that was refused has given up its claim, and nobody takes it again while its user has paused the job
            mine = claim.attempt == work.attempt.number and not self._world.result(*work.about)
            mine = mine and claim.expires > here().now
            if mine and not claim.given_back and process.trouble_at < here().now - 30 and work.how == "cancelled":
                self.violated("a service that stops gives its claims back", f"{work}")

    # --- effects ----------------------------------------------------------------------------------------------

    def wrote(self, process: Process, key: str, data: bytes) -> None:
        """Every write of the store."""
        match key.rsplit("/", 1):
            case [_, "claim.json"]:
                self._claim_written(process, key, data)
            case [prefix, "published.json"]:
                _, job_id, stage = prefix.split("/")
                result = self._world.result(job_id, stage)
                if not result or result.event.id not in self._world.published_ids:
                    self.violated("published.json tells the truth", f"{key} by {process.name}")
            case [_, "result.json"]:
                if (claim := self._world.disk.data(key.replace("result", "claim"))) is not None:
                    mine = StageResult.model_validate_json(data).attempt
                    self.seen["results of lost owners"] += 0 < mine < Claim.model_validate_json(claim).attempt
                if key in self._decided:
                    self.violated("a stage is decided once", f"{key} by {process.name}")
                self._decided.add(key)
            case ["deployments", _]:
                self._moves(data)
            case [prefix, "decision.json"] if data == b'{"goes_on": true}' and self._world.faults.orderly:
                since = self._paused_at(prefix.split("/")[1])
                if since is not None and here().now - since > LOOKS:
                    self.violated("a paused job does nothing that cannot be undone", f"{key} by {process.name}")

    def deleted(self, key: str) -> None:
        """Every deletion of the store."""
        if not key.startswith(PENDING):
            return
        job_id = key.partition("-")[2]
        if not self._world.closed(job_id) and not any(
            other.endswith(job_id) for other in self._world.disk.keys(PENDING)
        ):
            self.violated("open work is in the index", key)

    def _moves(self, data: bytes) -> None:
        current = Deployment.model_validate_json(data).current.job_id
        if current in self._alias_moves:
            self.violated("the alias never goes back", f"to {current}")
        self.seen["moves of the alias"] += 1
        self._alias_moves.append(current)


def _is_certain(attempt: Attempt) -> bool:
    """Whether the attempt would be told at this moment that it may do what others see."""
    answer = attempt.certain()
    try:
        answer.send(None)
    except StopIteration:
        return True
    answer.close()
    return False
