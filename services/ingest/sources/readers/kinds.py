"""What kind of file this is, by its first bytes and its name, and whether it is in a training format already."""

from __future__ import annotations

import json
import posixpath
from typing import Any, Literal

from services.ingest.domain.mining.documents import wraps_rows
from services.ingest.domain.mining.forms import form_of, native
from services.ingest.domain.mining.records import columns_of
from services.ingest.sources.limits import SAMPLE_ROWS, refused
from services.ingest.sources.readers.encodings import WINDOWS, marked
from shared.errors import InputError
from shared.events import Source
from shared.files.signatures import WORDS, Sort, sort_of

Kind = Literal["delimited", "json", "jsonl", "parquet", "excel"]

TABLES = (".csv", ".tsv", ".parquet", ".xlsx")
"""Endings of files that are never in a training format."""

_REMEDIES: dict[Sort, str] = {
    "gzip": "it is inside of another one: pack it once",
    "zstd": "unpack it, or pack it with gzip",
    "bzip2": "unpack it, or pack it with gzip",
    "xz": "unpack it, or pack it with gzip",
    "arrow": "write it as Parquet",
    "pdf": "drop a table or JSON",
    "ole": "save it as .xlsx without a password",
}
"""What to do about files that cannot be read."""


def kind_of(head: bytes, name: str, source: Source) -> Kind:
    """The kind of a file; `head`: its first bytes, unpacked.

    Raises:
        InputError: it is empty, or of a kind that cannot be read.
    """
    if not head.strip():
        raise refused(f"{name} is empty.")
    sort = sort_of(head)
    if sort == "parquet":
        return "parquet"
    if sort == "zip":
        return "excel"
    if sort in _REMEDIES:
        raise refused(f"{name} is {WORDS[sort]}; {_REMEDIES[sort]}.")
    text = _text(head)
    if "\0" in text:
        raise refused(f"{name} is binary and none of the formats that are read: CSV, TSV, Parquet, Excel, JSON.")
    if _plain(name).endswith((".csv", ".tsv")):
        return "delimited"
    first = text.lstrip("\ufeff \t\r\n")
    if first.startswith("["):
        return "json"
    if first.startswith("{"):
        return "json" if _is_document(text, name, source) else "jsonl"
    return "delimited"


def in_training_format(head: bytes, name: str, source: Source | None) -> bool:
    """Whether a file is left to the validator as it is, by its first bytes as they are in the store.

    So is one that means to be in a training format, and one that nobody understands: the validator says best what is
    wrong with it.
    """
    if source is not None or sort_of(head) in ("gzip", "parquet", "zip") or _plain(name).endswith(TABLES):
        return False
    encoding = marked(head)
    if encoding is not None and encoding.name != "utf-8-sig":
        return False
    text = _text(head)
    first = text.lstrip("\ufeff \t\r\n")[:1]
    if first == "[":
        return False
    rows = _rows(text, SAMPLE_ROWS) if first == "{" else []
    if not rows:
        return not (first == "{" and _plain(name).endswith(".json"))
    if native(rows[:1]):
        return True
    if _is_document(text, name, Source()):
        return False
    try:
        form_of(columns_of(rows), rows, Source())
    except InputError:
        return True
    return False


def _is_document(text: str, name: str, source: Source) -> bool:
    """Whether a file that begins with an object is one document; `text`: its beginning."""
    rows, named = _rows(text, 1), _plain(name)
    if not rows:
        return not named.endswith((".jsonl", ".ndjson"))
    alone = "\n" not in text.strip()
    return alone and (named.endswith(".json") or wraps_rows(rows[0], source))


def _plain(name: str) -> str:
    name = posixpath.basename(name).lower()
    return name.removesuffix(".gz")


def _text(head: bytes) -> str:
    encoding = marked(head)
    try:
        return head.decode(encoding.name if encoding else "utf-8", "ignore")
    except UnicodeDecodeError:
        return head.decode(WINDOWS, "replace")


def _rows(text: str, most: int) -> list[dict[str, Any]]:
    """The objects on the first lines; none if the first line is not a whole one."""
    found: list[dict[str, Any]] = []
    for line in text.lstrip("\ufeff").split("\n"):
        if len(found) == most:
            break
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # the head ends within a line, or this is a document over many lines
            break
        if not isinstance(value, dict):
            break
        found.append(value)
    return found
