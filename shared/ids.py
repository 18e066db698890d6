"""Derived ids: the same request always has the same id, so that a repeated delivery does not repeat the work."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared.events import Alias, JobSpec
from shared.events.limits import FileId, JobId, KeyId, ProjectId

ID_CHARS = 24  # 24 base32 characters are 120 bits: a collision becomes likely at about 2**60 jobs


def canonical(value: Any) -> bytes:
    """`value` as JSON with sorted keys and no spaces. Equal values give equal bytes, so the result can be hashed.

    Raises:
        ValueError: it holds a number that is not finite, or half a surrogate pair.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def derive(*parts: Any, chars: int = ID_CHARS) -> str:
    """Lower-case base32 of the SHA-256 over `parts`, cut to `chars` characters."""
    digest = hashlib.sha256(canonical(list(parts))).digest()
    return base64.b32encode(digest).decode().lower()[:chars]


def chosen_settings(spec: JobSpec) -> dict[str, Any]:
    """The settings that differ from the defaults. A sidecar holds them, and the job id is derived from them."""
    return spec.model_dump(mode="json", exclude_defaults=True)


def job_id(bucket: str, key: str, sha256: str, spec: JobSpec, *, unreadable: str | None = None) -> str:
    """`ftjob-…`: one job per dataset content, place and settings (the `rerun` counter is one of the settings).

    `unreadable`: a digest of settings that could not be read, so that each such attempt is a job of its own.
    """
    settings = chosen_settings(spec) | ({"unreadable": unreadable} if unreadable else {})
    return f"ftjob-{derive('job', bucket, key, sha256, settings)}"


EARLIER_QUANTIZATION, EARLIER_CONCURRENCY = "nf4", 16
"""The defaults of `lora.quantization` and `evaluation.concurrency` before they could be `auto`."""


def as_derived(job: str, bucket: str, key: str, sha256: str, spec: JobSpec) -> JobSpec:
    """The settings of an existing job as its id was derived from them.

    A manifest of an earlier version holds each default in full, also those that are `auto` now; no id counts them as
    set.
    """
    lora, evaluation = spec.lora, spec.evaluation
    if lora.quantization == EARLIER_QUANTIZATION:
        lora = lora.model_copy(update={"quantization": "auto"})
    if evaluation.concurrency == EARLIER_CONCURRENCY:
        evaluation = evaluation.model_copy(update={"concurrency": "auto"})
    candidates = (
        spec,
        spec.model_copy(update={"lora": lora}),
        spec.model_copy(update={"evaluation": evaluation}),
        spec.model_copy(update={"lora": lora, "evaluation": evaluation}),
    )
    return next((each for each in candidates if job_id(bucket, key, sha256, each) == job), candidates[-1])


def event_id(job: str, topic: str, *parts: Any) -> str:
    """The CloudEvents id of an event: the same on every delivery and every re-publication."""
    return f"ftevent-{derive('event', job, topic, *parts)}"


def model_id(job: str, base: str, organization: str, suffix: str | None) -> str:
    """`ft:{base}:{org}:{suffix}:{8 chars}`, the immutable id of the model that job `job` trained.

    The 8 characters are the first 8 of the job id, so the ledger finds the job of a model by prefix
    (`jobs/ftjob-{8 chars}…`) without an index. The hub namespace of `base` is left out, because
    an id has no slash.
    """
    return f"ft:{slug(base.rsplit('/', 1)[-1])}:{slug(organization)}:{slug(suffix or '')}:{job_prefix_of(job)}"


def job_prefix_of(job: str) -> str:
    """The first 8 characters of the job id, after `ftjob-`."""
    return job.removeprefix("ftjob-")[:8]


_TUNED_NAME = re.compile(
    r"ft:[A-Za-z0-9._-]+:[A-Za-z0-9._-]*:[A-Za-z0-9._-]*:(?P<job>[a-z2-7]{8})(?::ckpt-step-(?P<step>[0-9]{1,9}))?"
)


@dataclass(frozen=True)
class TunedName:
    """A tuned model, or its checkpoint at `step`. `model`: the id without the checkpoint; `job_prefix`: the first 8
    characters of the job id after `ftjob-`."""

    model: str
    job_prefix: str
    step: int | None = None


def tuned_name(model: str) -> TunedName | None:
    """Read what `model_id` makes, with or without `:ckpt-step-{n}`; None if `model` has another form."""
    match = _TUNED_NAME.fullmatch(model)
    if match is None:
        return None
    step = match["step"]
    return TunedName(model.partition(":ckpt-step-")[0], match["job"], int(step) if step else None)


def slug(text: str, limit: int = 64) -> str:
    """`text` with only letters, digits, dots, dashes and underscores: any other run of characters becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:limit]


ALIAS_CHARS = 64
_ALIAS: TypeAdapter[str] = TypeAdapter(Alias)
_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
_KEY_ID: TypeAdapter[str] = TypeAdapter(KeyId)
_PROJECT: TypeAdapter[str] = TypeAdapter(ProjectId)
_FILE_ID: TypeAdapter[str] = TypeAdapter(FileId)


def alias_of(text: str) -> str:
    """`text` as an alias: NFKC, lower case, with letters, marks and digits of every script, dots, dashes and
    underscores; any other run of characters becomes a dash. Empty if `text` has no letter or digit.

    What is too long keeps its beginning, and ends in a hash of the whole.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    name = "-".join("".join(char if is_alias(f"a{char}") else " " for char in plain).split()).strip("-")
    while name and not is_alias(name[0]):
        name = name[1:]
    return name if len(name) <= ALIAS_CHARS else f"{name[: ALIAS_CHARS - 9]}-{derive('alias', name, chars=8)}"


def is_job_id(text: str) -> bool:
    """Whether a job may have this id. Any other text could lead elsewhere when it becomes part of a key."""
    return _fits(text, _JOB_ID)


def is_key_id(text: str) -> bool:
    """Whether an API key may have this id."""
    return _fits(text, _KEY_ID)


def is_project(text: str) -> bool:
    """Whether a project may have this id."""
    return _fits(text, _PROJECT)


def is_file_id(text: str) -> bool:
    """Whether a file may have this id. It becomes a part of keys, too."""
    return _fits(text, _FILE_ID)


def is_alias(name: str) -> bool:
    """Whether `name` may be an alias. Those of older versions, and those that users write, may have upper-case
    letters."""
    return _fits(name, _ALIAS)


def _fits(text: str, rule: TypeAdapter[str]) -> bool:
    try:
        rule.validate_python(text)
    except ValidationError:
        return False
    return True
