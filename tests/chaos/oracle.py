"""Compares what was acknowledged with what is there. Each rule is a pure function of the facts: it counts what it has
looked at, and says what was expected and what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.facts import Answer, Facts, JobFound, Result

ENDED = ("succeeded", "failed", "cancelled")
STAGES = ("ingest", "validate", "trainer", "evaluator", "inference")
DOCUMENTED = {
    429: ("rate_limit_exceeded", "too_many_requests", "overloaded"),
    502: ("bad_gateway",),
    503: ("service_unavailable", "model_sleeping", "overloaded"),
    504: ("upstream_timeout",),
}
"""The statuses that a request may get while something is away, with their codes (services/inference/README.md)."""
RECOVERY = 180.0
"""Seconds after a fault within which a request may still get one of these: vLLM starts anew within two minutes where
two cores are busy."""
LATE = 30.0
"""Seconds by which a moved alias may be seen later: the gateway caches an alias for one second, and a store that is
cut off holds the write of the new one up."""


SECOND = 1.0
"""The store tells the time of an object in whole seconds."""


@dataclass(frozen=True)
class Verdict:
    """What came out of a rule: how many things it looked at, and what is wrong."""

    rule: str
    checked: int
    violations: tuple[str, ...]


Rule = Callable[[Facts], Iterator[str | None]]
"""Yields, for each thing that it looks at, None or what is wrong with it."""
RULES: dict[str, Rule] = {}


def rule(says: str) -> Callable[[Rule], Rule]:
    def add(check: Rule) -> Rule:
        RULES[says] = check
        return check

    return add


def judge(facts: Facts) -> list[Verdict]:
    """The verdict of every rule."""
    verdicts = []
    for says, check in RULES.items():
        found = list(check(facts))
        verdicts.append(Verdict(says, len(found), tuple(wrong for wrong in found if wrong is not None)))
    return verdicts


# --- jobs ------------------------------------------------------------------------------------------------------------


@rule("each dataset that was accepted is one job")
def one_job_each(facts: Facts) -> Iterator[str | None]:
    count = Counter(job.key for job in facts.jobs if job.parent is None)
    for sent in {sent.key: sent for sent in sorted(facts.sent, key=lambda sent: sent.acknowledged)}.values():
        found = count[sent.key]
        if found > 1 or (sent.acknowledged and not found):
            yield f"{sent.key} ({sent.how}, acknowledged: {sent.acknowledged}): expected 1 job, found {found}"
        else:
            yield None
    for key in count.keys() - {sent.key for sent in facts.sent}:
        yield f"{key}: there is a job of a dataset that nobody sent"


@rule("each retry that was accepted is one job")
def retries_are_jobs(facts: Facts) -> Iterator[str | None]:
    there = {job.id: job for job in facts.jobs}
    accepted = [asked for asked in facts.asked if asked.what == "retry" and asked.acknowledged]
    for asked in accepted:
        job = there.get(asked.given or "")
        if job is None or job.parent != asked.about:
            yield f"the retry of {asked.about} was accepted as {asked.given}, found {job}"
        else:
            yield None
    parents = Counter(job.parent for job in facts.jobs if job.parent)
    asked_for = {asked.about for asked in facts.asked if asked.what == "retry"}
    for parent, found in parents.items():
        if parent not in asked_for:
            yield f"{parent} was retried, but nobody asked for it"
        elif found > len({asked.given for asked in accepted if asked.about == parent}) + 1:
            yield f"{parent} was retried {found} times"


def terminal(job: JobFound) -> list[Result]:
    """The results that end the job."""
    return [result for result in job.results if result.outcome != "completed" or result.stage == "inference"]


@rule("each job has one end, and all show the same")
def one_end_each(facts: Facts) -> Iterator[str | None]:
    for job in facts.jobs:
        ends = terminal(job)
        stages = [result.stage for result in sorted(job.results, key=lambda result: STAGES.index(result.stage))]
        if len(ends) != 1:
            yield f"{job.id} ({job.key}): expected one end, found {[f'{end.stage} {end.outcome}' for end in ends]}"
            continue
        expected = "succeeded" if ends[0].outcome == "completed" else ends[0].outcome
        if job.shown != expected:
            yield f"{job.id} ({job.key}): the ledger says {expected}, the api says {job.shown}"
        elif stages != list(STAGES[: len(stages)]) or ends[0].stage != stages[-1]:
            yield f"{job.id} ({job.key}): has results of {stages}, and ended in {ends[0].stage}"
        else:
            yield None


@rule("no job fails, and only those end as cancelled that somebody cancelled")
def ends_well(facts: Facts) -> Iterator[str | None]:
    cancelled = {asked.about for asked in facts.asked if asked.what == "cancel"}
    for job in facts.jobs:
        for end in terminal(job):
            if end.outcome == "failed" or (end.outcome == "cancelled" and job.id not in cancelled):
                yield f"{job.id} ({job.key}): {end.outcome} in {end.stage} ({end.code})"
            else:
                yield None


@rule("a paused job rests until it is resumed")
def paused_jobs_rest(facts: Facts) -> Iterator[str | None]:
    """A stage that is past its point of no return ends all the same; the next one does not begin."""
    jobs = {job.id: job for job in facts.jobs}
    for pause in facts.asked:
        if pause.what == "pause" and pause.acknowledged and pause.about in jobs:
            resumes = [each.began for each in facts.asked if each.what == "resume" and each.about == pause.about]
            resumed = min((began for began in resumes if began > pause.ended), default=float("inf"))
            results = jobs[pause.about].results
            ended = [each.stage for each in results if pause.ended + SECOND < each.at < resumed - SECOND]
            cancelled = any(each.outcome == "cancelled" for each in results)
            allowed = 2 if cancelled else 1
            yield f"{pause.about} was paused, and {ended} ended while it rested" if len(ended) > allowed else None


@rule("a result is decided once")
def decided_once(facts: Facts) -> Iterator[str | None]:
    for key, etags in facts.seen.items():
        yield f"{key} was seen with {len(etags)} contents" if len(etags) > 1 else None


@rule("the event of each result is on its topic, under one id")
def events_arrive(facts: Facts) -> Iterator[str | None]:
    ids: dict[tuple[str, str], set[str]] = {}
    for record in facts.records:
        if record.ce_id:  # a stranger's event has none
            ids.setdefault((record.topic, record.job_id), set()).add(record.ce_id)
    for job in facts.jobs:
        for result in job.results:
            found = ids.get((result.topic, job.id), set())
            if result.ce_id not in found:
                yield f"{job.id}: {result.topic} of {result.stage} ({result.ce_id}) is not on its topic"
            elif result.topic != "job.progress" and len(found) > 1:
                yield f"{job.id}: {result.topic} is on its topic with {len(found)} ids"
            else:
                yield None


# --- aliases and models ----------------------------------------------------------------------------------------------


@rule("an alias is only on versions that passed their gate")
def aliases_passed(facts: Facts) -> Iterator[str | None]:
    jobs = {job.id: job for job in facts.jobs}
    for alias, history in facts.aliases.items():
        for version in history:
            job = jobs.get(version.job_id)
            gate = next((result.passed for result in job.results if result.stage == "evaluator"), None) if job else None
            yield None if gate else f"{alias} was on {version.model}, whose gate says {gate}"


@rule("no alias is on the model of a cancelled job")
def cancelled_serve_nothing(facts: Facts) -> Iterator[str | None]:
    cancelled = {job.id for job in facts.jobs if any(end.outcome == "cancelled" for end in terminal(job))}
    for alias, history in facts.aliases.items():
        for version in history:
            yield f"{alias} was on {version.model}, of a cancelled job" if version.job_id in cancelled else None


@rule("each deployment and each rollback that was accepted is in the history of its alias")
def moves_are_kept(facts: Facts) -> Iterator[str | None]:
    for job in facts.jobs:
        if any(result.topic == "model.deployed" for result in job.results):
            there = any(version.job_id == job.id for version in facts.aliases.get(job.alias, ()))
            yield None if there else f"{job.id} was deployed as {job.alias}, whose history does not have it"
    for asked in facts.asked:
        if asked.what == "rollback" and asked.acknowledged:
            history = facts.aliases.get(asked.about, ())
            there = any(version.model == asked.given and version.at <= asked.ended + LATE for version in history)
            yield None if there else f"{asked.about} was rolled back to {asked.given}, which its history does not have"


@rule("a rollback that is repeated because its answer was lost is done once")
def rollbacks_do_not_toggle(facts: Facts) -> Iterator[str | None]:
    for asked in facts.asked:
        if asked.what == "rollback" and asked.acknowledged and asked.expected:
            back = asked.given == asked.expected
            yield f"{asked.about} was rolled back from {asked.expected}, and is on it again" if back else None


@rule("every trained model answers under its exact id, and every alias answers")
def all_answer(facts: Facts) -> Iterator[str | None]:
    answered = {answer.asked: answer for answer in facts.exact}
    models = [job.model for job in facts.jobs if any(end.stage == "inference" and end.outcome == "completed" for end in terminal(job))]  # fmt: skip # noqa: E501
    for name in (*models, *facts.aliases, facts.base):
        answer = answered.get(name)
        if answer is None or answer.status != 200 or not answer.whole:
            yield f"{name}: expected an answer, got {describe(answer)}"
        elif name in facts.aliases and answer.named != facts.aliases[name][-1].model:
            yield f"{name} is on {facts.aliases[name][-1].model}, but {answer.named} answered"
        else:
            yield None


@rule("no request is answered by a wrong model")
def right_model(facts: Facts) -> Iterator[str | None]:
    words = {sent.word for sent in facts.sent}
    for answer in (*facts.answers, *facts.exact):
        if answer.status != 200:
            continue
        named = {name for name in (answer.header, answer.named) if name}
        allowed = may_answer(facts, answer)
        # a connection that breaks within a stream may break before the first chunk, which names the model
        if len(named) > 1 or not named <= allowed or (answer.whole and not (answer.header and answer.named)):
            yield f"{answer.asked}: expected {sorted(allowed)}, got {answer.header} (header), {answer.named} (body)"
            continue
        own, text = facts.word_of(answer.named or ""), answer.text.lower()
        others = [word for word in words if word != own and word in text]
        if others or (own and answer.whole and own not in text):
            yield f"{answer.asked}: {answer.named} was trained to say {own}, and says {answer.text!r}"
        else:
            yield None


def may_answer(facts: Facts, answer: Answer) -> set[str]:
    """The models that a request may be answered by: the one that it names, or those that its alias named meanwhile."""
    history = facts.aliases.get(answer.asked)
    if history is None:
        return {answer.asked}
    found = set()
    for version, later in zip(history, (*history[1:], None), strict=True):
        if version.at <= answer.ended + 1 and (later is None or later.at + LATE >= answer.began):
            found.add(version.model)
    return found


# --- answers ---------------------------------------------------------------------------------------------------------


def describe(answer: Answer | None) -> str:
    if answer is None:
        return "nothing (it was not asked)"
    return f"{answer.status} {answer.code or ''} {answer.error} (whole: {answer.whole})".replace("  ", " ")


@rule("an answer with 200 is complete, or says that it broke")
def whole_answers(facts: Facts) -> Iterator[str | None]:
    for answer in (*facts.answers, *facts.exact):
        if answer.status == 200:
            ok = answer.whole or (answer.stream and answer.error)
            yield None if ok else f"{answer.asked} ended without its end: {describe(answer)}"


@rule("what is refused is refused as documented, and only while something is away")
def documented(facts: Facts) -> Iterator[str | None]:
    for answer in facts.answers:
        if answer.status == 200 and answer.whole:
            continue
        codes = DOCUMENTED.get(answer.status or 0, ())
        if answer.status not in (None, 200) and (answer.code not in codes or not answer.envelope):
            yield f"{answer.asked}: {describe(answer)} is no documented answer"
            continue
        away = any(
            hit.began <= answer.ended and answer.began <= hit.ended + RECOVERY for hit in facts.hits if not hit.missed
        )
        yield None if away else f"{answer.asked}: {describe(answer)}, but nothing was away"
    for asked in facts.asked:
        expected = asked.acknowledged or asked.status in (None, 400, 409, 502, 503, 504)
        yield None if expected else f"{asked.what} {asked.about}: {asked.status} {asked.code} is no documented answer"


# --- what is left ----------------------------------------------------------------------------------------------------


@rule("everything ends in time after the last fault")
def in_time(facts: Facts) -> Iterator[str | None]:
    yield None if facts.deadline_met else "some jobs or events had not ended in time: see the rules above"


@rule("the quarantine is empty, and there is no dead letter")
def nothing_set_aside(facts: Facts) -> Iterator[str | None]:
    yield None
    yield from facts.quarantine
    yield from facts.letters


@rule("no log tells of a bug")
def no_bugs(facts: Facts) -> Iterator[str | None]:
    yield None
    yield from facts.bugs


@rule("every part is ready at the end, and no process is left after it")
def tidy(facts: Facts) -> Iterator[str | None]:
    yield None
    yield from (f"{name} is not ready" for name in facts.not_ready)
    yield from (f"{process} is left" for process in facts.left)
