"""Reads a JSON document piece by piece, one item of a list in memory at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from services.ingest.sources.limits import CELL_BYTES, refused

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_DEPTH = 4
"""How deep in a large document a list is looked for."""


class Scanner:
    """A cursor in a JSON text that comes in pieces."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self._buffer = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The next value.

        Raises:
            InputError: it is not valid JSON, or too large.
        """
        found = self.value_within(CELL_BYTES)
        if found is None:
            raise refused(f"An item of the JSON document is larger than {CELL_BYTES // 2**20} MiB.")
        return found[0]

    def value_within(self, most: int) -> tuple[Any] | None:
        """The next value, in a tuple; None if it is longer than `most` characters, and then nothing is read."""
        wanted = 2**16
        while True:
            self.peek()
            complete = self._fill(wanted)
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise refused("The JSON document is nested too deeply.") from None
            except ValueError as error:
                if complete:
                    raise refused(f"The JSON document is not valid: {error}.") from None
            else:
                # a number at the end of what is read may go on
                if complete or end < len(self._buffer):
                    self._at = end
                    return (found,)
            if wanted > most:
                return None
            wanted *= 4

    def items(self) -> Iterator[Any]:
        """The items of the list that comes next."""
        self._expect("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._next_of("]"):
                return

    def find_list(self, path: tuple[str, ...] | None, depth: int = _DEPTH) -> Iterator[Any]:
        """The items of a list in the object that comes next: the one that `path` names, else the first list of objects.

        Raises:
            InputError: there is none.
        """
        found = self._list_in(path, depth)
        if found is None:
            where = f"source.records names {'.'.join(path)!r}, but" if path else "The document is large, and"
            raise refused(f"{where} there is no list of objects there; name it: `source: {{records: data.items}}`.")
        yield from found

    def _list_in(self, path: tuple[str, ...] | None, depth: int) -> Iterator[Any] | None:
        self._expect("{")
        if self.peek() == "}":
            self._at += 1
            return None
        while True:
            name = self.value()
            self._expect(":")
            begins = self.peek()
            wanted = path is None or name == path[0]
            if wanted and begins == "[" and (path is None or len(path) == 1) and (path or self._of_objects()):
                return self.items()
            if wanted and begins == "{" and depth > 1 and (path is None or len(path) > 1):
                found = self._list_in(path[1:] if path else None, depth - 1)
                if found is not None:
                    return found
            else:
                self.value()
            if self._next_of("}"):
                return None

    def _of_objects(self) -> bool:
        """Whether the list that comes next begins with an object."""
        self._fill(2**10)
        return self._buffer[self._at + 1 : self._at + 2**10].lstrip()[:1] == "{"

    def _next_of(self, closing: str) -> bool:
        """Go on to the next item; True: there is none."""
        mark = self.peek()
        if mark not in (",", closing):
            raise refused(f"The JSON document ends too early or is damaged: {closing!r} or a comma is missing.")
        self._at += 1
        return mark == closing

    def _expect(self, mark: str) -> None:
        if self.peek() != mark:
            raise refused(f"The JSON document is damaged: {mark!r} is missing.")
        self._at += 1

    def _fill(self, wanted: int) -> bool:
        """Have `wanted` characters in the buffer; True: there are no more than those that are there."""
        while len(self._buffer) - self._at < wanted:
            if not self._more():
                return True
        return False

    def _more(self) -> bool:
        if self._ended:
            return False
        piece = next(self._chunks, None)
        if piece is None:
            self._ended = True
            return False
        # what was read is cut off here, once for each piece and not once for each item
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        return True
