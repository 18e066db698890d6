"""Reads the settings of a job that a user writes as YAML beside the dataset. Whatever the text holds, the answer is the
settings, or an error that names what to correct."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import InputError
from shared.events import JobSpec
from shared.jobs.explain import Wrong, explained
from shared.jobs.settings_text import Lines, Unreadable, read

Spec = TypeVar("Spec", bound=BaseModel)

CODE = "invalid_job_settings"
MAX_BYTES = 64 * 2**10
MOST_PROBLEMS = 5  # in one message: it has to fit into an event
MOST_CHARS = 200  # of one problem


def parse_spec(text: bytes, where: str) -> JobSpec:
    """Parse the settings of a job. JSON is YAML, too; an empty text means all defaults.

    `where` is the name of the text in an error.

    Raises:
        InputError: names the field and what is wrong with it. Nothing else is raised, whatever the text holds.
    """
    return parse(JobSpec, text, where, CODE, "`suffix: support`")


def parse(model: type[Spec], text: bytes, where: str, code: str, example: str) -> Spec:
    """Parse the YAML of any settings. `example`: lines that would be right, for an error.

    Raises:
        InputError: as `parse_spec`, with the code `code`.
    """
    try:
        return _parsed(model, text, where, example)
    except InputError as error:
        raise InputError(code, error.message, error.param) from None


def _parsed(model: type[Spec], text: bytes, where: str, example: str) -> Spec:
    if len(text) > MAX_BYTES:
        raise too_large(where)
    data, lines = _read(text, where)
    if not isinstance(data, dict):
        raise InputError(CODE, f"{where}: write `field: value` lines, for example {example}.")
    try:
        spec = model.model_validate(data)
        # what cannot be read back from the ledger must not get into it
        model.model_validate_json(spec.model_dump_json())
    except ValidationError as error:
        problems = explained(error, model)
        told = [_told(problem, lines) for problem in problems]
        more = f"; and {len(told) - MOST_PROBLEMS} more" if len(told) > MOST_PROBLEMS else ""
        field = _short(problems[0].field) or None
        message = f"{where}: {'; '.join(told[:MOST_PROBLEMS])}{more}"
        raise InputError(CODE, message if message.endswith("?") else f"{message}.", field) from None
    except Exception:  # half of a surrogate pair, a number that JSON does not know, …
        raise InputError(CODE, f"{where}: a value cannot be stored; write plain text and numbers.") from None
    return spec


def _told(problem: Wrong, lines: Lines) -> str:
    """`line 3, seed: must be a whole number`: a field that is not there has the line of what should have it."""
    places = (problem.path[:length] for length in range(len(problem.path), 0, -1))
    line = next((lines[place] for place in places if place in lines), None)
    place = ", ".join(filter(None, (f"line {line}" if line else "", _short(problem.field))))
    return f"{place}: {_short(problem.reason)}" if place else _short(problem.reason)


def too_large(where: str) -> InputError:
    """The error of settings that are not even read."""
    return InputError(CODE, f"{where}: settings may have {MAX_BYTES // 2**10} KiB; leave out what is no setting.")


def _read(text: bytes, where: str) -> tuple[Any, Lines]:
    """The values of a YAML text, and the line of each field."""
    try:
        return read(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(
            CODE, f"{where}: not YAML, which is text in UTF-8; save it as that and drop it again."
        ) from None
    except Unreadable as error:
        field = _short(".".join(error.path)) or None
        about = f"{field}: " if field else ""
        line = f" line {error.line}" if error.line else ""
        raise InputError(CODE, f"{where}{line}: {about}{error}.", field) from None


def _short(text: str) -> str:
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= MOST_CHARS else plain[: MOST_CHARS - 1] + "…"
