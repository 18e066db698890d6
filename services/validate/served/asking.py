"""From the files of a job to the outcome of the comparison: which rows are asked about, and what is said where the
render server cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.validate.domain.report import FileRole, ServedCheck
from services.validate.domain.served import sample
from services.validate.intake import read_again
from services.validate.reader import Reader, Source
from services.validate.scan import Scan, ScanControl
from services.validate.served.client import RenderServer, Silent, Unasked
from services.validate.served.compare import Asked, compare
from services.validate.tokenizer import Tokenizer
from shared.settings import RenderSettings

File = tuple[Source, FileRole, Scan]

NOT_CONFIGURED = "no render server is configured (TUNESTREAM_RENDER__URL)"


def not_asked(tokenizer: Tokenizer, reason: str) -> ServedCheck:
    """The outcome where no server is asked."""
    return ServedCheck(template=tokenizer.template, probe=tokenizer.probe, not_asked=reason)


def ask(
    files: Sequence[File], tokenizer: Tokenizer, render: RenderSettings, seed: int, control: ScanControl
) -> ServedCheck:
    """Compare the usable rows of `files` with what the render server makes of them, or a sample of `render.rows`.

    Raises:
        Cancelled: `control.stop` was set.
    """
    if render.url is None:
        return not_asked(tokenizer, NOT_CONFIGURED)
    server = RenderServer(render.url, tokenizer.base, control.stop)
    try:
        try:
            version = server.version(render.start_timeout_seconds)
        except Silent:
            reason = f"the render server did not answer within {render.start_timeout_seconds:g} s"
            return not_asked(tokenizer, reason)
        except Unasked as error:
            return not_asked(tokenizer, str(error))
        usable = sum(scanned.report.usable for _, _, scanned in files)
        due = min(usable, render.rows)
        return compare(
            _rows(files, sample(usable, render.rows, seed)),
            tokenizer,
            server,
            version=version,
            stop_at_first=render.policy == "fail",
            advance=lambda role, rows: control.advance(role, rows, rows / due),
        )
    finally:
        server.close()


def _rows(files: Sequence[File], chosen: frozenset[int] | None) -> Iterator[Asked]:
    index = -1
    for source, role, scanned in files:
        form = scanned.report.format
        assert form is not None, "a file with usable rows has a format"
        for place, (line, raw) in enumerate(Reader(source.path, scanned.report.size).rows()):
            if not scanned.usable[place]:
                continue
            index += 1
            if chosen is not None and index not in chosen:
                continue
            assert isinstance(raw, bytes)
            yield Asked(role, read_again(line, raw, form))
