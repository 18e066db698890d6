"""What is asked of one piece of a file, and what is answered: the messages between the survey and its processes."""

from __future__ import annotations

import msgspec

from shared.privacy import Kind


class Options(msgspec.Struct):
    """What is looked for. `sample`: rows whose checksum is below it are returned whole, as a sample. `common`: the
    hashes of features that belong to the form of the dataset (uint64, sorted)."""

    path: str
    max_line_bytes: int
    personal: bool = True
    secrets: bool = True
    redact_personal: bool = False
    redact_secrets: bool = False
    near: bool = True
    about: bool = True
    """Languages, labels, lengths, refusals and flaws."""
    sample: int = 0
    common: bytes = b""


class PrivateRow(msgspec.Struct):
    """The private places of a row: path, kind and masked form of each."""

    line: int
    places: list[tuple[str, Kind, str]]


class Part(msgspec.Struct):
    """What a piece of a file holds. Lines count from 0 within the piece. Arrays of C `unsigned int` are given as
    bytes."""

    lines: int = 0
    rows: int = 0
    row_labels: bytes = b""
    """The checksum of the answer of each row as a label; 0: it is none. Every line that is not blank is a row."""
    near_lines: bytes = b""
    bands: bytes = b""
    signatures: bytes = b""
    personal: bytes = b""
    secret: bytes = b""
    refusing: bytes = b""
    flawed: bytes = b""
    flaws: bytes = b""
    """Lines of rows with flaws, and these, as bits."""
    mixed: bytes = b""
    """Lines of rows whose answer is in another language than the question."""
    private: list[PrivateRow] = []
    kinds: dict[str, int] = {}
    answers: dict[str, int] = {}
    labels: dict[str, int] | None = {}
    languages: dict[str, int] = {}
    prompt_sizes: dict[int, int] = {}
    answer_sizes: dict[int, int] = {}
    """Bins of characters (`statistics.doubling`) -> rows."""
    longest: list[tuple[int, int]] = []
    shortest: list[tuple[int, int]] = []
    """Characters and line of the rows with the longest and shortest answers."""
    sampled: list[tuple[int, str, str]] = []
    """Line, question and answer."""
    undecided: list[tuple[int, str]] = []
    """Texts whose language is not clear, of the sample."""
    redacted: bytes | None = None
    """The whole piece with placeholders; None: nothing was replaced."""
