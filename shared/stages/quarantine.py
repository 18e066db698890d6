"""The quarantine: what cannot become a job, or what no service can read, in the ledger for `tunestream quarantine`.
What was mended is marked as solved, and only that is deleted, later, by the janitor."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from shared.errors import AlreadyExists, Conflict
from shared.events import Quarantined
from shared.stages.ledger import QUARANTINE, Ledger

MOST_CHARS = 2000
"""Of each text in a document. A key has at most 1,024; messages of others may be longer."""


def key_of(kind: str, name: str) -> str:
    """The key of one document; `name` is unique among those of its kind."""
    return f"{QUARANTINE}{kind}/{name}.json"


def short(text: str) -> str:
    """A text of others as it may be stored: UTF-8, and not too long."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= MOST_CHARS else plain[: MOST_CHARS - 1] + "…"


async def hold(ledger: Ledger, name: str, about: Quarantined) -> bool:
    """Put something into quarantine. Whether it was not there before.

    What is there keeps its reason and its time, unless it was tried again until now and `about` is final.
    """
    key = key_of(about.kind, name)
    try:
        await ledger.create(key, about.model_dump_json().encode())
        return True
    except AlreadyExists:
        await _change(ledger, key, about.model_dump() if about.final else {}, unless="final")
        return False


async def solve(ledger: Ledger, kind: str, name: str) -> None:
    """Mark something as solved: there is a job of it now."""
    await _change(ledger, key_of(kind, name), {"solved_at": ledger.now()}, unless="solved_at")


async def read_all(ledger: Ledger, *, kind: str = "") -> dict[str, Quarantined]:
    """What is in quarantine, by `{kind}/{name}`, oldest first. A document that cannot be read is named, too."""
    found: dict[str, Quarantined] = {}
    for entry in await ledger.list(f"{QUARANTINE}{kind}/" if kind else QUARANTINE):
        name = entry.key.removeprefix(QUARANTINE).removesuffix(".json")
        held = await ledger.get(entry.key)
        if held is None:
            continue
        try:
            found[name] = Quarantined.model_validate_json(held[0])
        except ValidationError:
            lost = "this version of Tunestream cannot read the document"
            found[name] = Quarantined(kind=name.split("/")[0], place=entry.key, reason=lost, at=entry.modified)
    return dict(sorted(found.items(), key=lambda item: item[1].at))


async def _change(ledger: Ledger, key: str, changes: Mapping[str, object], *, unless: str) -> None:
    """Change a document, unless its field `unless` is set. If another process changes it at the same time, that is
    left as it is."""
    found = await ledger.get(key)
    if found is None or not changes:
        return
    try:
        about = Quarantined.model_validate_json(found[0])
        if not getattr(about, unless):
            await ledger.replace(key, about.model_copy(update=dict(changes)).model_dump_json().encode(), found[1])
    except (ValidationError, Conflict):
        return
