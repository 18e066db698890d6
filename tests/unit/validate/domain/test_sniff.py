"""Files that are no JSONL are known by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from services.validate.domain.sniff import sniff


@pytest.mark.parametrize(
    ("data", "what", "remedy"),
    [
        (gzip.compress(b"{}\n", mtime=0), "a gzip archive", "gunzip"),
        (bz2.compress(b"{}\n"), "a bzip2 archive", "bunzip2"),
        (lzma.compress(b"{}\n"), "an xz archive", "unxz"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "a zstd archive", "zstd -d"),
        (b"PK\x03\x04\x14\x00", "a zip archive or an Excel file", "JSONL"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel file", "JSONL"),
        (b"PAR1\x15\x04", "a Parquet file", "JSONL"),
        (b"ARROW1\x00\x00", "an Arrow file", "JSONL"),
        (b"%PDF-1.7\n", "a PDF document", "JSONL"),
        ("{}\n".encode("utf-16"), "UTF-16 text", "UTF-8"),
    ],
)
def test_other_files_are_named_with_the_remedy(data: bytes, what: str, remedy: str) -> None:
    found = sniff(data)
    assert found is not None and what in found.message and remedy in found.remedy


def test_jsonl_is_read() -> None:
    assert sniff(b'{"prompt": "a", "completion": "b"}\n') is None
