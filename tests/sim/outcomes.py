"""What must hold at the end of a simulation: how each job ended, and which events were published."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from shared.events import Claim, Deployment, JobFailed, JobProgress, StageName, StageResult
from shared.stages.ledger import PENDING, deployment_key
from shared.stages.stage import STAGES
from tests.sim.processes import MAX_BUGS, MAX_DEATHS

if TYPE_CHECKING:
    from tests.sim.jobs import Plan
    from tests.sim.world import World


class Outcomes:
    """Compares the ledger and the topics of a world whose history is over with what happened in it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ends: dict[tuple[str, StageName], Counter[str]] = {}
        for work in world.watch.works:
            how = "killed" if work.ended is None else work.how
            self._ends.setdefault(work.about, Counter())[how] += 1

    def check(self) -> None:
        for plan in self._world.plans:
            self._check_job(plan)
        self._check_alias()

    def _wrong(self, invariant: str, detail: str) -> None:
        self._world.watch.violated(invariant, detail)

    def _check_job(self, plan: Plan) -> None:
        world, job_id = self._world, plan.job.job_id
        if not world.ended(job_id):
            self._wrong("every job ends", job_id)
            return
        for stage in STAGES:
            if result := world.result(job_id, stage):
                self._check_outcome(plan, stage, result)
                if not world.faults.bus_gone:
                    self._check_published(result)
            self._check_attempts(plan, stage)
        if not world.faults.bus_gone and (left := [key for key in world.disk.keys(PENDING) if key.endswith(job_id)]):
            self._wrong("the index forgets what has ended", ", ".join(left))
        failures = {ce_id for ce_id, event in world.published["job.failed"] if event.job_id == job_id}
        if len(failures) > 1:
            self._wrong("a job fails once", job_id)

    def _check_outcome(self, plan: Plan, stage: StageName, result: StageResult) -> None:
        """A job ends well, or for a reason that it really had."""
        event = result.event.event()
        if not isinstance(event, JobFailed):
            if plan.stage == stage and plan.trouble in ("bad_data", "buggy", "killer"):
                self._wrong("a job that cannot succeed fails", f"{result.job_id} at {stage}")
            return
        ends = self._ends.get((result.job_id, stage), Counter())
        # a service that was paused, or that could not give its claim back, counts as dead, too
        deaths = self._world.watch.claims(result.job_id, stage) - ends["done"] - ends["input"]
        reasons = {
            "cancelled": plan.cancelled_after is not None,
            "invalid_training_file": plan.trouble == "bad_data",
            "internal_error": ends["bug"] >= MAX_BUGS,
            "too_many_attempts": deaths >= MAX_DEATHS,
        }
        if not reasons.get(event.code, False):
            self._wrong("a job fails for a reason", f"{event.code} of {result.job_id} at {stage} after {dict(ends)}")

    def _check_attempts(self, plan: Plan, stage: StageName) -> None:
        faults, ends = self._world.faults, self._ends.get((plan.job.job_id, stage), Counter())
        held = self._world.disk.data(f"jobs/{plan.job.job_id}/{stage}/claim.json")
        if held and not faults.owners_vanish and (deaths := Claim.model_validate_json(held).deaths):
            self._wrong("only the dead count as dead", f"{deaths} at {stage} of {plan.job.job_id}")
        if held and not faults.owners_vanish:
            claim = Claim.model_validate_json(held)
            if claim.bugs > ends["bug"] or claim.failures > ends["waits"]:
                self._wrong("only failures count as failures", f"{claim} at {stage} of {plan.job.job_id}")
        tries = sum(ends.values()) - len(plan.pauses)  # each may stop an attempt
        if plan.stage == stage and plan.trouble in ("flaky", "buggy", "broken_cause", "killer"):
            return
        if faults.orderly and tries > 1:
            self._wrong("one attempt where nothing fails", f"{dict(ends)} at {stage} of {plan.job.job_id}")
        elif faults.only_outages and tries > 1:
            self._wrong("an outage repeats no work", f"{dict(ends)} at {stage} of {plan.job.job_id}")

    def _check_published(self, result: StageResult) -> None:
        wanted = (result.event.id, result.event.event())
        said = [
            (ce_id, event)
            for ce_id, event in self._world.published[result.event.topic]
            if getattr(event, "job_id", None) == result.job_id and not isinstance(event, JobProgress)
        ]
        if wanted not in said:
            self._wrong("what is decided is published", f"{result.stage} of {result.job_id}")
        if not isinstance(wanted[1], JobFailed) and any(pair != wanted for pair in said):
            self._wrong("events say what was decided", f"{result.stage} of {result.job_id}")

    def _check_alias(self) -> None:
        """The history of the alias holds every deployment: none was overwritten."""
        held = self._world.disk.data(deployment_key("alias"))
        history = {version.job_id for version in Deployment.model_validate_json(held).history} if held else set()
        for plan in self._world.plans:
            result = self._world.result(plan.job.job_id, "inference")
            if result and result.outcome == "completed" and plan.job.job_id not in history:
                self._wrong("the alias forgets no deployment", plan.job.job_id)
            if result and result.outcome == "cancelled" and plan.job.job_id in history:
                self._wrong("the alias answers for no cancelled job", plan.job.job_id)
