"""A process that looks at pieces of a file: a request on its standard input, the answer on its standard output.

It is a plain program and no fork of the service: the service has threads, and a fork would copy their locks. Nor does
it import the caller's main module again, as the processes of `multiprocessing` do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import msgspec

from services.validate.survey.look import look
from services.validate.survey.part import Options

_LENGTH = 8


class Order(msgspec.Struct):
    """A piece to look at. The first order of a process carries the options."""

    start: int
    end: int
    options: Options | None = None


def send(stream: IO[bytes], message: bytes) -> None:
    """Write a message with its length before it."""
    stream.write(len(message).to_bytes(_LENGTH, "little"))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(_LENGTH)
    return stream.read(int.from_bytes(head, "little")) if len(head) == _LENGTH else None


def main() -> None:
    """Answer until the input ends."""
    decode, encode = msgspec.msgpack.Decoder(Order).decode, msgspec.msgpack.Encoder().encode
    options = Options("", 0)
    while (message := receive(sys.stdin.buffer)) is not None:
        order = decode(message)
        options = order.options or options
        send(
            sys.stdout.buffer, encode(look(read(options.path, order.start, order.end), options, first=order.start == 0))
        )


def read(path: str, start: int, end: int) -> bytes:
    """Bytes of a file."""
    with Path(path).open("rb") as file:
        file.seek(start)
        return file.read(end - start)


if __name__ == "__main__":
    main()
