"""Reads the settings of a job that a user writes as YAML beside the dataset."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from shared.errors import InputError
from shared.events import JobSpec

CODE = "invalid_job_settings"


def parse_spec(text: bytes, where: str) -> JobSpec:
    """Parse the settings of a job. JSON is YAML, too; an empty text means all defaults.

    `where` is the name of the text in an error.

    Raises:
        InputError: names the field and what is wrong with it.
    """
    try:
        data: Any = yaml.safe_load(text.decode("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(CODE, f"{where}{line}: not YAML; correct it and drop it again.") from None
    if not isinstance(data, dict):
        raise InputError(CODE, f"{where}: write `field: value` lines, for example `suffix: support`.")
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        fields = [".".join(str(part) for part in problem["loc"]) for problem in problems]
        details = "; ".join(f"{field}: {problem['msg']}" for field, problem in zip(fields, problems, strict=True))
        raise InputError(CODE, f"{where}: {details}.", fields[0]) from None
