"""Recognises files that are not JSONL by their first bytes, so that they get one problem and not thousands."""

from __future__ import annotations

from services.validate.domain.findings import Finding

HEAD_BYTES = 8192  # a NUL byte among them marks a binary file, much as in git

# First bytes -> what it is, and what to do about it.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", "unpack it (gunzip) and upload the .jsonl file"),
    (b"PK\x03\x04", "a zip archive or an Excel file", "unpack it, or export it as JSONL"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it (zstd -d) and upload the .jsonl file"),
    (b"PAR1", "a Parquet file", "convert it to JSONL"),
    (b"ARROW1", "an Arrow file", "convert it to JSONL"),
    (b"%PDF", "a PDF document", "upload a JSONL file"),
    (b"\xff\xfe", "UTF-16 text", "save the file as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save the file as UTF-8"),
)


def sniff(head: bytes) -> Finding | None:
    """Why the file should not be read at all, or None. `head` is its first `HEAD_BYTES` bytes."""
    if not head:
        return Finding("empty_file", "", "The file is empty", "upload a JSONL file with at least 10 examples")
    for signature, what, remedy in _SIGNATURES:
        if head.startswith(signature):
            return Finding("binary_file", "", f"The file is {what}, not JSONL", remedy)
    if (offset := head.find(b"\0")) >= 0:
        message = f"The file is binary (a NUL byte at offset {offset}), not JSONL"
        return Finding("binary_file", "", message, "upload a UTF-8 text file with one JSON object per line")
    return None
