"""What a run records while it goes on, and what it finds at the end. The oracle reads nothing else. All times are in
seconds since the epoch, by the clock of this machine, which is also that of the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# --- what was sent, and what was acknowledged ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A dataset that was dropped or announced. `word`: what a model that was trained on it says."""

    key: str
    how: str
    alias: str
    word: str
    acknowledged: bool
    at: float


@dataclass(frozen=True)
class Asked:
    """A request to the api service or to the administrative routes. `about`: the job or the alias; `given`: what the
    answer named (a new job, or the model that an alias now names); `expected`: of a rollback, the model to leave."""

    what: str
    about: str
    began: float
    ended: float
    status: int | None
    code: str | None = None
    given: str | None = None
    expected: str | None = None

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and self.status < 300


@dataclass(frozen=True)
class Answer:
    """A chat completion. `status` None: the connection failed. `header` and `named`: the model by the header
    `x-tunestream-model` and by the answer itself. `whole`: it came to its end."""

    asked: str
    stream: bool
    began: float
    ended: float
    status: int | None
    code: str | None = None
    envelope: bool = True
    header: str | None = None
    named: str | None = None
    text: str = ""
    whole: bool = False
    error: str = ""


@dataclass(frozen=True)
class Hit:
    """A fault that was injected. `missed`: there was nothing to hit."""

    fault: str
    began: float
    ended: float
    missed: bool = False


# --- what is there at the end ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """`result.json` of a stage. `at`: when the store took it. `passed`: of an evaluation, the verdict of the gate."""

    stage: str
    outcome: str
    topic: str
    ce_id: str
    attempt: int
    at: float = 0.0
    passed: bool | None = None
    code: str = ""


@dataclass(frozen=True)
class JobFound:
    """A job of the ledger. `shown`: its status by the api service; None: the api does not know it."""

    id: str
    key: str
    model: str
    alias: str
    parent: str | None
    results: tuple[Result, ...]
    shown: str | None


@dataclass(frozen=True)
class Version:
    """A version that an alias named from `at` on."""

    model: str
    job_id: str
    at: float


@dataclass(frozen=True)
class Record:
    """A record of a topic, as far as the oracle needs it."""

    topic: str
    job_id: str
    ce_id: str


@dataclass
class Facts:
    sent: list[Sent] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    base: str = ""
    deadline_met: bool = True
    """Whether everything had ended within the time that the run waits for it."""

    jobs: list[JobFound] = field(default_factory=list)
    aliases: dict[str, list[Version]] = field(default_factory=dict)
    """The history of each alias, oldest first."""
    records: list[Record] = field(default_factory=list)
    seen: dict[str, set[str]] = field(default_factory=dict)
    """The ETags that each `result.json` was ever seen with."""
    quarantine: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    """Dead letters, by topic and place."""
    bugs: list[str] = field(default_factory=list)
    """Lines of logs that say that something is wrong with the program."""
    not_ready: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Processes that are there after the stack was stopped."""
    exact: list[Answer] = field(default_factory=list)
    """What each model of a job answered at the end, under its exact id; and each alias."""

    def word_of(self, model: str) -> str | None:
        """What a tuned model was trained to say."""
        key = next((job.key for job in self.jobs if job.model == model), None)
        return next((sent.word for sent in self.sent if sent.key == key), None)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, default=_plain))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def bugs_of(lines: Iterable[str], allowed: Iterable[str] = ()) -> list[str]:
    """The lines of a service's log that are of level `error`, and those with a Python traceback, but for those that
    hold an `allowed` text."""
    found = []
    allowed = tuple(allowed)
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            bad = str(entry.get("level")) in ("error", "critical")
        else:
            bad = line.startswith("Traceback (most recent call last)")
        if bad and not any(text in line for text in allowed):
            found.append(line.rstrip()[:600])
    return found
