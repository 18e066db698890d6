"""Recognises files that are not JSONL by their first bytes, so that they get one problem and not thousands."""

from __future__ import annotations

from services.validate.domain.findings import Finding
from shared.files.signatures import WORDS, Sort, sort_of

HEAD_BYTES = 8192  # a NUL byte among them marks a binary file, much as in git

_REMEDIES: dict[Sort, str] = {
    "gzip": "unpack it (gunzip) and upload the .jsonl file",
    "zip": "unpack it, or export it as JSONL",
    "zstd": "unpack it (zstd -d) and upload the .jsonl file",
    "bzip2": "unpack it (bunzip2) and upload the .jsonl file",
    "xz": "unpack it (unxz) and upload the .jsonl file",
    "parquet": "convert it to JSONL",
    "arrow": "convert it to JSONL",
    "pdf": "upload a JSONL file",
    "ole": "export it as JSONL",
    "utf-16": "save the file as UTF-8",
}


def sniff(head: bytes) -> Finding | None:
    """Why the file should not be read at all, or None. `head` is its first `HEAD_BYTES` bytes."""
    if not head:
        return Finding("empty_file", "", "The file is empty", "upload a JSONL file with at least 10 examples")
    if (sort := sort_of(head)) is not None:
        return Finding("binary_file", "", f"The file is {WORDS[sort]}, not JSONL", _REMEDIES[sort])
    if (offset := head.find(b"\0")) >= 0:
        message = f"The file is binary (a NUL byte at offset {offset}), not JSONL"
        return Finding("binary_file", "", message, "upload a UTF-8 text file with one JSON object per line")
    return None
