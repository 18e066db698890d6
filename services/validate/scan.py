"""One pass over one file: every row goes through the checks, and the rows that pass all of them go into the splits."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.validate.checks import Check, Context, checks_for
from services.validate.checks.base import Tally
from services.validate.checks.duplicates import DUPLICATE
from services.validate.checks.length import OVER_LENGTH
from services.validate.columns import keep_large_arrays_mapped, ranks_of
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, OnFinding, Problems
from services.validate.domain.report import FileReport, FileRole
from services.validate.domain.statistics import distribution, doublings
from services.validate.intake import State, pieces
from services.validate.plain import PlainRows
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
    """The way to observe and stop a scan. `on_progress(role of the file, rows, share of its bytes)` is called about
    once for each megabyte. `on_finding(line, finding)` is called for every finding, also for those that the report
    only counts. The scan ends with `Cancelled` once `stop` is set."""

    on_progress: OnProgress = lambda role, rows, share: None
    on_finding: OnFinding = lambda line, finding: None
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
    """What a scan found.

    `usable` has a byte per row of the file (blank lines are none): whether it goes into the splits, 2 where it is
    repaired. `ranks` and `tokens` have an entry per usable row, in the order of the lines; rows of one rank stay in one
    split. `longest` is the longest usable sequence. Of a row that is cut, `tokens` and `longest` count only what is
    left.
    """

    report: FileReport
    usable: bytearray
    ranks: array[int]
    tokens: array[int]
    longest: int


def scan(
    source: Source, context: Context, *, tokenizer: Tokenizer | None, limits: ValidationSettings, control: ScanControl
) -> Scan:
    """Read the file once. Memory: one batch of rows, and about 80 bytes per row (`columns`, ranks and tokens).

    Raises:
        Cancelled: `control.stop` was set.
        InputError: the base cannot read rows of this format at all.
    """
    keep_large_arrays_mapped()
    reader = Reader(source.path, limits.max_line_bytes)
    checks = checks_for(context)
    problems = Problems(limits.max_problems, control.on_finding)
    state = State(problems, Tally(checks, limits.max_problems), context.format)
    of_rows = [check for check in checks if type(check).row is not Check.row]
    before, after = ([check for check in of_rows if check.needs_tokens is late] for late in (False, True))
    if tokenizer is None:
        before, after = of_rows, []
    if finding := reader.sniff():
        state.problems.add(None, finding)
    else:

        def advance() -> None:
            control.advance(context.role, state.tally.rows, reader.position / reader.size)

        read = pieces(reader, state, advance)
        if tokenizer is None:
            for piece in read:
                _keep_uncounted(_passed(piece, before, state), state)
        else:
            for measured in tokenizer.measure(_batches(read, before, state)):
                advance()
                for row in _fitting(measured, state):
                    if _passes(row, after, state.problems.add, state.tally):
                        state.keep(row, context.max_length)
        advance()
        if not state.problems.errors:
            for check in checks:
                for finding in check.file(state.tally):
                    state.problems.add(None, finding)
    report = _report(reader, source.name, state)
    ranks = state.links.ranks(ranks_of(context.spec.seed, state.groups))
    return Scan(report, state.usable, ranks, state.tokens, state.longest)


def _keep_uncounted(rows: PlainRows | list[Row], state: State) -> None:
    if isinstance(rows, PlainRows):
        state.keep_plain(rows)
        return
    for row in rows:
        state.keep(row, None)


def _batches(some: Iterator[Row | PlainRows], checks: list[Check], state: State) -> Iterator[list[Row]]:
    """Rows that pass `checks`, in batches; the last batch may be empty."""
    batch: list[Row] = []
    size = 0
    for piece in some:
        begin, count = 0, 1 if isinstance(piece, Row) else len(piece)
        while begin < count:
            part, begin = _first_part(piece, begin, BATCH_ROWS - len(batch), BATCH_BYTES - size)
            passed = _passed(part, checks, state)
            rows = list(passed.rows()) if isinstance(passed, PlainRows) else passed
            batch += rows
            size += sum(row.size for row in rows)
            if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    yield batch


def _first_part(piece: Row | PlainRows, begin: int, rows: int, size: int) -> tuple[Row | PlainRows, int]:
    """As many of the rows from `begin` on as a batch has room for, and where the next ones begin."""
    if isinstance(piece, Row):
        return piece, 1
    end = begin
    while end < len(piece) and end - begin < rows and size > 0:
        size -= len(piece.raw(end))
        end += 1
    return piece.part(begin, end), end


def _fitting(rows: list[tuple[Row, tuple[int, ...] | Finding]], state: State) -> Iterator[Row]:
    """The rows that the base can be trained on."""
    for row, measured in rows:
        if isinstance(measured, Finding):
            state.problems.add(row.line, measured)
            continue
        row.sequences = measured
        state.histogram[sum(measured)] += 1
        yield row


def _passed(piece: Row | PlainRows, checks: list[Check], state: State) -> list[Row] | PlainRows:
    """The rows that no check refuses or drops."""
    if isinstance(piece, Row):
        return [piece] if _passes(piece, checks, state.problems.add, state.tally) else []
    rows, found = piece, list[tuple[int, Finding]]()
    by_row = [check for check in checks if check.by_row]
    for check in checks:
        if check.by_row or not (findings := list(check.plain(rows))):
            continue
        found += [(rows.lines[place], finding) for place, finding in findings]
        refused = {place for place, finding in findings if _refuses(finding, check, rows.lines[place], state.tally)}
        rows = rows.chosen([place for place in range(len(rows)) if place not in refused])
    kept: list[Row] | PlainRows = rows
    if by_row:

        def note(line: int, finding: Finding) -> None:
            found.append((line, finding))

        kept = [row for row in rows.rows() if _passes(row, by_row, note, state.tally)]
        found.sort(key=lambda pair: pair[0])
    for line, finding in found:
        state.problems.add(line, finding)
    return kept


def _passes(row: Row, checks: list[Check], note: Callable[[int, Finding], None], tally: Tally) -> bool:
    for check in checks:
        usable = True
        for finding in check.row(row):
            note(row.line, finding)
            usable = not _refuses(finding, check, row.line, tally) and usable
        if not usable:
            return False
    return True


def _refuses(finding: Finding, check: Check, line: int, tally: Tally) -> bool:
    if finding.severity == "error":
        return True
    if finding.drops:
        tally.drop(check, finding.code, line)
    return finding.drops


def _report(reader: Reader, name: str, state: State) -> FileReport:
    problems, tally = state.problems, state.tally
    duplicates = next((dropped for dropped in tally.dropped if dropped.code == DUPLICATE), None)
    return FileReport(
        name=name,
        size=reader.size,
        lines=reader.lines,
        blank_lines=state.blank,
        rows=tally.rows,
        usable=tally.usable,
        format=state.format,
        duplicates=duplicates.rows if duplicates else 0,
        duplicate_lines=duplicates.lines if duplicates else (),
        over_length=problems.warning_counts[OVER_LENGTH] + problems.error_counts[OVER_LENGTH],
        dropped=tally.dropped,
        contradictions=tally.contradictions,
        tokens=distribution(state.histogram),
        token_sizes=doublings(state.histogram),
        errors=problems.error_counts.total(),
        warnings=problems.warning_counts.total(),
        error_counts=dict(problems.error_counts),
        warning_counts=dict(problems.warning_counts),
        problems=(*problems.errors, *problems.warnings),
    )
