"""Files that are no plain text, by their first bytes. What to do about one depends on who reads it, so the remedies are
with the readers."""

from __future__ import annotations

from typing import Literal

Sort = Literal["gzip", "zip", "zstd", "bzip2", "xz", "parquet", "arrow", "pdf", "ole", "utf-16"]

WORDS: dict[Sort, str] = {
    "gzip": "a gzip archive",
    "zip": "a zip archive or an Excel file",
    "zstd": "a zstd archive",
    "bzip2": "a bzip2 archive",
    "xz": "an xz archive",
    "parquet": "a Parquet file",
    "arrow": "an Arrow file",
    "pdf": "a PDF document",
    "ole": "an old Excel file, or one with a password",
    "utf-16": "UTF-16 text",
}
"""What follows `The file is`."""

_SIGNATURES: dict[bytes, Sort] = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"%PDF": "pdf",
    b"\xd0\xcf\x11\xe0": "ole",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def sort_of(head: bytes) -> Sort | None:
    """What a file is that begins with `head`; None: none of these. Text in UTF-16 is known by its byte order mark."""
    return next((sort for signature, sort in _SIGNATURES.items() if head.startswith(signature)), None)
