"""One pass over one file: every row goes through the checks, and the rows that pass all of them go into the splits."""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.validate.checks import Check, Context, checks_for
from services.validate.checks.base import Tally
from services.validate.checks.duplicates import DUPLICATE
from services.validate.checks.length import OVER_LENGTH
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, Problems
from services.validate.domain.formats import Format, detect, mixed_formats, unknown_format
from services.validate.domain.links import Links
from services.validate.domain.parse import parse
from services.validate.domain.report import BLANK, FileReport, FileRole
from services.validate.domain.split import rank
from services.validate.domain.statistics import distribution, doublings
from services.validate.reader import Reader, Source
from services.validate.tokenizer import Tokenizer
from shared.errors import Cancelled
from shared.settings import ValidationSettings

# The tokenizer works on many rows at once, on all cores. A batch is bounded in bytes too: rows may be megabytes long.
BATCH_ROWS = 512
BATCH_BYTES = 4 * 2**20

OnProgress = Callable[[FileRole, int, float], None]


@dataclass
class ScanControl:
    """The way to observe and stop a scan. `on_progress(role of the file, rows, share of its bytes)` is called for every
    line, so it should be quick. The scan ends with `Cancelled` once `stop` is set."""

    on_progress: OnProgress = lambda role, rows, share: None
    stop: threading.Event = field(default_factory=threading.Event)

    def advance(self, role: FileRole, rows: int, share: float) -> None:
        """Report the progress.

        Raises:
            Cancelled: `stop` was set.
        """
        if self.stop.is_set():
            raise Cancelled
        self.on_progress(role, rows, share)


@dataclass
class Scan:
    """What a scan found. `usable` has a byte per line of the file: whether its row goes into the splits. `ranks` and
    `tokens` have an entry per usable row, in the order of the lines; rows of one rank stay in one split. `longest` is
    the longest usable sequence. Of a row that is cut, `tokens` and `longest` count only what is left."""

    report: FileReport
    usable: bytearray
    ranks: array[int]
    tokens: array[int]
    longest: int


@dataclass
class _State:
    problems: Problems
    tally: Tally
    format: Format | None = None
    format_line: int | None = None
    blank: int = 0
    usable: bytearray = field(default_factory=bytearray)
    ranks: array[int] = field(default_factory=lambda: array("Q"))
    links: Links = field(default_factory=Links)
    tokens: array[int] = field(default_factory=lambda: array("L"))
    histogram: Counter[int] = field(default_factory=Counter)
    longest: int = 0


def scan(
    source: Source, context: Context, *, tokenizer: Tokenizer | None, limits: ValidationSettings, control: ScanControl
) -> Scan:
    """Read the file once. Memory: one batch of rows, and about 350 bytes per usable row (digests, rank, tokens).

    Raises:
        Cancelled: `control.stop` was set.
        InputError: the base cannot read rows of this format at all.
    """
    reader = Reader(source.path, limits.max_line_bytes)
    checks = checks_for(context)
    state = _State(Problems(limits.max_problems), Tally(checks, limits.max_problems), context.format)
    before, after = ([check for check in checks if check.needs_tokens is late] for late in (False, True))
    if finding := reader.sniff():
        state.problems.add(None, finding)
    else:

        def advance() -> None:
            control.advance(context.role, state.tally.rows, reader.position / reader.size)

        for batch in _batches(_rows(reader, state, advance), before, state):
            measured = _measured(batch, tokenizer, state) if tokenizer else batch
            for row in measured:
                if _passes(row, after, state):
                    _keep(row, context, state)
        advance()
        if not state.problems.errors:
            for check in checks:
                for finding in check.file(state.tally):
                    state.problems.add(None, finding)
    report = _report(reader, source.name, state)
    return Scan(report, state.usable, state.links.ranks(state.ranks), state.tokens, state.longest)


def _rows(reader: Reader, state: _State, advance: Callable[[], None]) -> Iterator[Row]:
    """The rows that are JSON objects in the format of the file; all others are recorded as problems."""
    for line, raw in reader:
        advance()
        state.usable.append(0)
        if isinstance(raw, Finding):
            state.tally.rows += 1
            state.problems.add(line, raw)
            continue
        if not raw.strip():
            state.blank += 1
            state.problems.add(line, _BLANK)
            continue
        state.tally.rows += 1
        value = parse(raw)
        if isinstance(value, list):
            for finding in value:
                state.problems.add(line, finding)
            continue
        found = detect(value)
        if state.format is None and found is not None:
            state.format, state.format_line = found, line
        if found is None or state.format is None:
            state.problems.add(line, unknown_format(value, state.format))
        elif found != state.format:
            state.problems.add(line, mixed_formats(found, state.format, state.format_line))
        else:
            yield Row(line, value, state.format, len(raw))


_BLANK = Finding(BLANK, "", "the line is blank", "remove it", "warning")


def _batches(rows: Iterator[Row], checks: list[Check], state: _State) -> Iterator[list[Row]]:
    """Rows that pass `checks`, in batches; the last batch may be empty."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if _passes(row, checks, state):
            batch.append(row)
            size += row.size
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _measured(rows: list[Row], tokenizer: Tokenizer, state: _State) -> Iterator[Row]:
    for row, measured in zip(rows, tokenizer.measure(rows), strict=True):
        if isinstance(measured, Finding):
            state.problems.add(row.line, measured)
            continue
        row.sequences = measured
        state.histogram[sum(measured)] += 1
        yield row


def _passes(row: Row, checks: list[Check], state: _State) -> bool:
    for check in checks:
        usable = True
        for finding in check.row(row):
            state.problems.add(row.line, finding)
            if finding.severity == "error":
                usable = False
            elif finding.drops:
                usable = False
                state.tally.drop(check, finding.code, row.line)
        if not usable:
            return False
    return True


def _keep(row: Row, context: Context, state: _State) -> None:
    limit = context.max_length
    state.tally.usable += 1
    state.usable[row.line - 1] = 1
    state.ranks.append(rank(context.spec.seed, row.group))
    state.links.add(row.turns)
    cut = [min(tokens, limit or tokens) for tokens in row.sequences]
    state.tokens.append(sum(cut))
    state.longest = max([state.longest, *cut])


def _report(reader: Reader, name: str, state: _State) -> FileReport:
    problems, tally = state.problems, state.tally
    duplicates = next((dropped for dropped in tally.dropped if dropped.code == DUPLICATE), None)
    return FileReport(
        name=name,
        size=reader.size,
        lines=len(state.usable),
        blank_lines=state.blank,
        rows=tally.rows,
        usable=tally.usable,
        format=state.format,
        duplicates=duplicates.rows if duplicates else 0,
        duplicate_lines=duplicates.lines if duplicates else (),
        over_length=problems.warning_counts[OVER_LENGTH] + problems.error_counts[OVER_LENGTH],
        dropped=tally.dropped,
        tokens=distribution(state.histogram),
        token_sizes=doublings(state.histogram),
        errors=problems.error_counts.total(),
        warnings=problems.warning_counts.total(),
        error_counts=dict(problems.error_counts),
        warning_counts=dict(problems.warning_counts),
        problems=(*problems.errors, *problems.warnings),
    )
