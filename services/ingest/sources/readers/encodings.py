"""In which encoding a text is: decided by its own bytes, and said in the report."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from services.ingest.sources.limits import Limits, refused
from services.ingest.sources.readers.streams import BUFFER, opened
from shared.events import Source

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8, with a byte order mark"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
WINDOWS = "windows-1252"


@dataclass(frozen=True)
class Encoding:
    """`name` is Python's; `words` say what was decided."""

    name: str
    words: str
    guessed: bool = False


def marked(head: bytes) -> Encoding | None:
    """The encoding that the first bytes of a text show; None: they show none."""
    for mark, name, words in _MARKS:
        if head.startswith(mark):
            return Encoding(name, words)
    sample = head[:2048]
    if len(sample) >= 4 and b"\0" in sample:
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if odd > len(sample) // 4 and even == 0:
            return Encoding("utf-16-le", "UTF-16 without a byte order mark")
        if even > len(sample) // 4 and odd == 0:
            return Encoding("utf-16-be", "UTF-16 without a byte order mark")
    return None


def encoding_of(path: Path, limits: Limits, source: Source) -> Encoding:
    """The encoding of a file: that of the settings; else the one that its first bytes show; else by the first bytes
    that are not ASCII, which are UTF-8 or else taken for Windows-1252.

    Raises:
        InputError: the settings name an encoding that there is not.
    """
    if source.encoding:
        try:
            b"any".decode(source.encoding)
        except UnicodeError:
            pass  # there is such an encoding
        except LookupError:
            raise refused(
                f"source.encoding: there is no encoding {source.encoding!r}; utf-8, utf-16 and windows-1252 are usual",
                "source.encoding",
            ) from None
        return Encoding(source.encoding, f"{source.encoding}, as the settings say")
    _, buffer = opened(path, limits)
    with buffer:
        chunk = buffer.read(BUFFER)
        if found := marked(chunk):
            return found
        while chunk:
            if not chunk.isascii():
                chunk += buffer.read(4)  # a character may go on behind the chunk
                return _decided(chunk)
            chunk = buffer.read(BUFFER)
    return Encoding("utf-8", "ASCII")


def _decided(chunk: bytes) -> Encoding:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(chunk)
    except UnicodeDecodeError as error:
        if chunk[: error.start].isascii():
            return Encoding(WINDOWS, "Windows-1252, because it is not UTF-8", guessed=True)
    return Encoding("utf-8", "UTF-8")
