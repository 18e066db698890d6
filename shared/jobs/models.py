"""Which base, and which adapter, a job trains from that names a model: ours, a tuned one, or one of another system."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.events import FolderReference
from shared.jobs.trained import find_trained, is_tuned
from shared.settings import ModelSettings
from shared.store.objects import ObjectStore

_FOREIGN = re.compile(r"gpt-.+", re.IGNORECASE)
"""Names of OpenAI's models."""


@dataclass(frozen=True)
class Resolved:
    """What a job is trained from. `notes`: what its user should know of how the name was understood."""

    base: str
    start_from: FolderReference | None = None
    notes: tuple[str, ...] = ()


async def resolve(objects: ObjectStore, settings: ModelSettings, asked: str | None, project: str) -> Resolved:
    """What a job of `project` that names the model `asked`, or none, is trained from.

    A name in `TUNESTREAM_MODEL__ALIASES` stands for its base. Any other `gpt-…` stands for the default base, so that
    code written for OpenAI's models runs; a note says so.

    Raises:
        InputError: `model_not_found`: this model may not be tuned here.
        StoreUnavailable: the ledger cannot be read.
    """
    if asked is not None and is_tuned(asked):
        start = await find_trained(objects, asked, project)
        return Resolved(settings.base_of(start.base), start.adapter)
    if asked is not None and asked in settings.aliases:
        return Resolved(settings.base_of(settings.aliases[asked]))
    if asked is not None and asked != settings.id and _FOREIGN.fullmatch(asked):
        return Resolved(settings.base_of(None), notes=(_stands_for_default(asked, settings.id),))
    return Resolved(settings.base_of(asked))


def _stands_for_default(asked: str, base: str) -> str:
    return (
        f"The model {asked} is not served here; the job fine-tunes the default base, {base}. "
        "TUNESTREAM_MODEL__ALIASES says which base a foreign name stands for."
    )
