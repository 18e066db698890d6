"""A synthesis whose journal, dataset and report are files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.synthesize import figures
from cli.terminal import CliError, printable
from services.ingest.domain.synthesis import places, results
from services.ingest.domain.synthesis.history import History
from services.ingest.domain.synthesis.plan import Seed
from services.ingest.domain.synthesis.spec import Endpoint, SynthesisSpec
from services.ingest.synthesis.journal import FileJournal
from services.ingest.synthesis.run import Outcome, Synthesis
from services.ingest.synthesis.spec_file import parse_seeds, parse_spec
from shared import disk

SECONDS_A_LOOK = 0.2
"""Between two lines of progress: the figures of many thousand rows take a while to count."""


@dataclass(frozen=True)
class Files:
    """Where everything of a synthesis is."""

    spec: Path
    out: Path

    @classmethod
    def of(cls, spec: Path, out: Path | None) -> Files:
        """By default the dataset is `NAME.jsonl` beside `NAME.synthesis.yaml`."""
        return cls(spec, out or spec.with_name(places.dataset_key(spec.name)))

    @property
    def journal(self) -> Path:
        return self.out.with_name(f"{self.out.stem}.synthesis.journal")

    @property
    def report(self) -> Path:
        return self.out.with_name(f"{self.out.stem}.synthesis.report.json")

    def load(self) -> tuple[SynthesisSpec, tuple[Seed, ...]]:
        """The spec and its seeds.

        Raises:
            InputError, CliError: one of them is missing or wrong.
        """
        spec = parse_spec(_read(self.spec), self.spec.name)
        if spec.seeds is None:
            return spec, ()
        return spec, parse_seeds(_read(self.spec.parent / spec.seeds), spec.seeds)

    def check_out(self) -> None:
        """Refuse to write over what no synthesis has made.

        Raises:
            CliError: there is such a file, or no folder for it.
        """
        if not self.out.parent.is_dir():
            raise CliError(f"there is no folder {self.out.parent}", "make it, or name another file with --out")
        if self.out.exists() and not self.journal.exists():
            raise CliError(f"{self.out} is there, and no synthesis has made it", "name another file with --out")

    def write(self, spec: SynthesisSpec, history: History, outcome: Outcome) -> None:
        """Write the dataset and the report; each appears whole or not at all."""
        _write(self.out, b"".join(results.rows(spec, history)))
        error = str(outcome.error) if outcome.error else None
        report = results.report(spec, history, outcome.end, outcome.seconds, outcome.made, error)
        _write(self.report, json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n")


async def synthesize(files: Files, progress: Callable[[str, bool], None]) -> tuple[SynthesisSpec, History, Outcome]:
    """Make the rows that are missing. Ctrl-C and SIGTERM end the run when the requests under way are answered; a second
    one ends it at once. `progress` gets a line of figures, and whether it says that the endpoint is waited for.

    Raises:
        InputError, CliError: the spec or the journal is wrong, or another process works on it.
    """
    spec, seeds = files.load()
    files.check_out()
    began = time.monotonic()
    with FileJournal(files.journal) as journal:
        before = results.made(spec, journal.history)

        told = 0.0
        waited: str | None = None

        def tell(history: History) -> None:
            nonlocal told, waited
            now, waits = time.monotonic(), synthesis.waiting_for
            if now - told < SECONDS_A_LOOK and waits == waited:
                return
            told, waited = now, waits
            line = figures.line(spec, history, now - began, before)
            progress(f"{line}  waiting: {printable(waits)}" if waits else line, waits is not None)

        synthesis = Synthesis(spec, seeds, journal, key_of=key_of, progress=tell)
        with _stopping(synthesis.stop):
            outcome = await synthesis.run()
        files.write(spec, journal.history, outcome)
        return spec, journal.history, outcome


def key_of(endpoint: Endpoint) -> str | None:
    """The API key of an endpoint, from the environment.

    Raises:
        CliError: the variable is not set.
    """
    if endpoint.key is None:
        return None
    key = os.environ.get(endpoint.key, "").strip()
    if not key:
        raise CliError(f"{endpoint.key} is not set", f"export {endpoint.key}=…, the API key of {endpoint.base_url}")
    return key


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, a first signal calls `stop`, and a second one cancels the task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    acts: list[Callable[[], object]] = [task.cancel, stop] if task else [stop]
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: acts.pop()() if acts else None)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with disk.writing(path.parent, "--out"):
        partial.write_bytes(content)
        partial.replace(path)
