"""The validator as a function: files and settings in, a report out. The stage and `tunestream check` call it."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from services.validate.advising import advice_on
from services.validate.checks import Context
from services.validate.columns import KEEP, assign
from services.validate.domain.findings import problem
from services.validate.domain.formats import METHOD_OF
from services.validate.domain.report import NO_TEST, FileReport, FileRole, Report, SplitSize, failure, wrong_method
from services.validate.domain.split import SPLITS, TRAIN, VALIDATION, sizes
from services.validate.domain.statistics import estimate, max_length
from services.validate.domain.strata import stratified
from services.validate.domain.survey.surveyed import Surveyed
from services.validate.intake import REPAIRED, read_again
from services.validate.reader import Reader, Source
from services.validate.scan import Scan, ScanControl, scan
from services.validate.served import File, ask, not_asked
from services.validate.survey.survey import Survey, survey
from services.validate.tokenizer import Tokenizer, load
from shared.base import ProfileOverride
from shared.events import JobSpec
from shared.settings import RenderSettings, ValidationSettings


@dataclass(frozen=True)
class Examined:
    """The report, and what is needed to write the splits. If the report is not ok, the other fields are empty.

    `assignment` has a byte per usable row of the training file: the index of its split in `SPLITS`.
    """

    report: Report
    training: Scan | None = None
    validation: Scan | None = None
    assignment: bytes = b""


def check(
    path: Path,
    *,
    spec: JobSpec,
    base_location: str | None,
    limits: ValidationSettings,
    override: ProfileOverride | None = None,
    render: RenderSettings | None = None,
    base: str | None = None,
    html: Path | None = None,
) -> Report:
    """Check one training file.

    `base_location`: a folder or hub id of the base, whose tokenizer counts; None: nothing is tokenized. `override`:
    what is set of the base's profile. `html`: where the report is written as a page. `base`: the name by which users
    and servers know it. `render`: the render server that good rows are compared with.

    Raises:
        InputError: the settings or the base are wrong. What is wrong with the file is in the report.
        TransientError: the model hub does not answer.
        OSError: the file cannot be read.
    """
    tokenizer = load(base_location, base or base_location, override) if base_location else None
    control = ScanControl()
    with tempfile.TemporaryDirectory(prefix="tunestream-check-") as folder:
        given = Source(path, path.name)
        surveyed = survey(given, None, spec=spec, limits=limits, control=control, folder=Path(folder))
        source = surveyed.training_file
        examined = examine(
            source, None, spec=spec, tokenizer=tokenizer, limits=limits, control=control, surveyed=surveyed
        )
        if examined.report.ok and tokenizer is not None and render is not None:
            examined = with_served(
                examined, source, None, tokenizer=tokenizer, render=render, seed=spec.seed, control=control
            )
        if html is not None:
            from services.validate.page.page import page  # noqa: PLC0415  # it shows rows that this module reads

            html.write_text(page(examined, source, surveyed, tokenizer), encoding="utf-8")
        return examined.report


def examine(
    training: Source,
    validation: Source | None,
    *,
    spec: JobSpec,
    tokenizer: Tokenizer | None,
    limits: ValidationSettings,
    control: ScanControl,
    surveyed: Survey | None = None,
) -> Examined:
    """Check a training file and the validation file of the job, if it has one; decide the split. `surveyed`: what the
    survey found in them; the files are those that it names."""
    wanted = spec.hyperparameters.max_length
    length = max_length(wanted, tokenizer.context, tokenizer.base) if tokenizer else None
    prompt_tokens = tokenizer.prompt_tokens if tokenizer else None
    context = Context("training", spec, length, prompt_tokens, surveyed=surveyed.training if surveyed else None)
    trained = scan(training, context, tokenizer=tokenizer, limits=limits, control=control)
    validated = None
    if validation is not None:
        known = surveyed.validation if surveyed else None
        own = Context("validation", spec, length, prompt_tokens, context, known, trained.report.format)
        validated = scan(validation, own, tokenizer=tokenizer, limits=limits, control=control)
    report = Report(
        ok=True,
        base=tokenizer.base if tokenizer else None,
        profile=tokenizer.profile if tokenizer else None,
        format=trained.report.format,
        method=METHOD_OF[trained.report.format] if trained.report.format else None,
        max_length=length,
        over_length=spec.hyperparameters.over_length,
        seed=spec.seed,
        training=_with_facts(trained.report, context.surveyed),
        validation=_with_facts(validated.report, surveyed.validation if surveyed else None) if validated else None,
    )
    failed = (
        # the method is checked first: in a file for another method every row looks wrong
        wrong_method(trained.report, spec.method)
        or failure(trained.report, "training")
        or (failure(validated.report, "validation") if validated else None)
    )
    if failed:
        return Examined(report.model_copy(update={"ok": False, "failure": failed}))
    wanted_sizes = sizes(trained.report.usable, spec.splits, own_validation=validated is not None)
    if surveyed and surveyed.training and surveyed.training.labels:
        strata = array("I", compress(surveyed.training.labels, trained.usable))
        assignment = stratified(trained.ranks, strata, wanted_sizes, KEEP)
    else:
        assignment = assign(trained.ranks, wanted_sizes)
    splits = _split_sizes(trained, validated, assignment)
    found: dict[str, object] = {
        "splits": splits,
        "advice": advice_on(training, trained, control),
        "estimate": estimate(splits["train"].tokens, spec.hyperparameters) if tokenizer else None,
    }
    if spec.splits.test > 0 and "test" not in splits:
        found["training"] = report.training.with_warning(problem(None, NO_TEST))
    return Examined(report.model_copy(update=found), trained, validated, bytes(assignment))


def _with_facts(report: FileReport, surveyed: Surveyed | None) -> FileReport:
    return report.model_copy(update={"facts": surveyed.facts}) if surveyed else report


def with_served(
    examined: Examined,
    training: Source,
    validation: Source | None,
    *,
    tokenizer: Tokenizer,
    render: RenderSettings,
    seed: int,
    control: ScanControl,
    silent: str | None = None,
) -> Examined:
    """The same with what the render server said of the usable rows. The rows must have been examined without errors.
    `silent`: why it is not asked.

    Raises:
        Cancelled: `control.stop` was set.
    """
    assert examined.training is not None, "a file with errors is not compared"
    files: list[File] = [(training, "training", examined.training)]
    if validation is not None and examined.validation is not None:
        files.append((validation, "validation", examined.validation))
    served = not_asked(tokenizer, silent) if silent else ask(files, tokenizer, render, seed, control)
    return replace(examined, report=examined.report.with_served(served, render.policy))


def write_splits(
    examined: Examined, training: Source, validation: Source | None, folder: Path, control: ScanControl
) -> None:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl` into `folder`: the rows byte for byte, one per line, but
    for those that are repaired."""
    assert examined.training is not None, "a file with errors has no splits"
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f"{split}.jsonl").open("wb")) for split in SPLITS]
        for row, (_, raw) in enumerate(usable_rows(training, "training", examined.training, control)):
            files[examined.assignment[row]].write(raw + b"\n")
        if validation is not None and examined.validation is not None:
            for _, raw in usable_rows(validation, "validation", examined.validation, control):
                files[VALIDATION].write(raw + b"\n")


def usable_rows(source: Source, role: FileRole, scanned: Scan, control: ScanControl) -> Iterator[tuple[int, bytes]]:
    """Lines and bytes of the rows that passed all checks, in order."""
    reader = Reader(source.path, scanned.report.size)  # the scan has limited their length
    for index, (line, raw) in enumerate(reader.rows()):
        control.advance(role, line, reader.position / reader.size)
        if use := scanned.usable[index]:
            assert isinstance(raw, bytes)
            yield line, raw if use != REPAIRED else _repaired(line, raw, scanned)


def _repaired(line: int, raw: bytes, scanned: Scan) -> bytes:
    form = scanned.report.format
    assert form is not None, "a file with usable rows has a format"
    row = read_again(line, raw, form)
    return json.dumps(row.value, ensure_ascii=False).encode()


def _split_sizes(training: Scan, validation: Scan | None, assignment: Sequence[int]) -> dict[str, SplitSize]:
    examples, tokens = [0, 0, 0], [0, 0, 0]
    for split, count in zip(assignment, training.tokens, strict=True):
        examples[split] += 1
        tokens[split] += count
    if validation is not None:
        examples[VALIDATION], tokens[VALIDATION] = len(validation.tokens), sum(validation.tokens)
    return {
        name: SplitSize(examples=examples[index], tokens=tokens[index])
        for index, name in enumerate(SPLITS)
        if examples[index] or index == TRAIN
    }
