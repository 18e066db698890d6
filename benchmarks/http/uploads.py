"""Proves that the size of an upload costs no memory: `python -m benchmarks.http.uploads --gb 2`.

The official client sends a file through the Uploads API, in parallel parts, to the api service as a process of its own
over the real embedded store. Then it reads the file back, and compares the digests. The most resident memory that the
process of the api ever had is told, and must be below `--bound` MB; otherwise the program ends with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from openai import AsyncOpenAI

from tests.support.embedded import ApiProcess, api_process, embedded

MB = 2**20
PART = 64 * MB


@dataclass(frozen=True)
class Outcome:
    """Bytes and seconds of one upload and download, and the memory of the api service in bytes."""

    size: int
    upload_seconds: float
    complete_seconds: float
    download_seconds: float
    memory_before: int
    memory_peak: int
    equal: bool


def rows(size: int) -> bytes:
    """JSONL of exactly `size` bytes."""
    row = {"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine. " * 30}]}
    line = (json.dumps(row) + "\n").encode()
    return (line * (size // len(line) + 1))[: size - 1] + b"\n"


def part(number: int, size: int) -> bytes:
    """Part `number` of the file, `size` bytes that begin with a row of its own."""
    first = f'{{"part": {number}}}\n'.encode()
    return first + rows(size - len(first))


async def measure(api: ApiProcess, size: int, *, part_size: int = PART, parallel: int = 4) -> Outcome:
    """Send a file of `size` bytes through the Uploads API, and read it back."""
    sizes = [min(part_size, size - start) for start in range(0, size, part_size)]
    before, digest = api.memory("VmRSS"), hashlib.sha256()
    free = asyncio.Semaphore(parallel)
    async with AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        upload = await client.uploads.create(
            bytes=size, filename="large.jsonl", mime_type="application/jsonl", purpose="fine-tune"
        )

        async def send(number: int) -> str:
            async with free:
                data = await asyncio.to_thread(part, number, sizes[number])
                return (await client.uploads.parts.create(upload.id, data=data)).id

        began = time.monotonic()
        part_ids = await asyncio.gather(*(send(number) for number in range(len(sizes))))
        sent = time.monotonic()
        done = await client.uploads.complete(upload.id, part_ids=list(part_ids))
        completed = time.monotonic()
        assert done.file is not None
        async for chunk in _content(client, done.file.id):
            digest.update(chunk)
        read = time.monotonic()
        await client.files.delete(done.file.id)
    wanted = hashlib.sha256()
    for number, each in enumerate(sizes):
        wanted.update(part(number, each))
    return Outcome(
        size=size,
        upload_seconds=sent - began,
        complete_seconds=completed - sent,
        download_seconds=read - completed,
        memory_before=before,
        memory_peak=api.memory(),
        equal=wanted.digest() == digest.digest() and done.file.bytes == size,
    )


async def _content(client: AsyncOpenAI, file_id: str) -> AsyncIterator[bytes]:
    async with client.files.with_streaming_response.content(file_id) as answer:
        async for chunk in answer.iter_bytes(MB):
            yield chunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the file")
    parser.add_argument("--parallel", type=int, default=4, help="parts of 64 MB that are under way at a time")
    parser.add_argument("--bound", type=int, default=300, help="MB of memory that the api service may have")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunestream-uploads-") as name, embedded(Path(name)) as parts:

        async def run() -> Outcome:
            async with api_process(parts, Path(name) / "api") as api:
                return await measure(api, int(options.gb * 2**30), parallel=options.parallel)

        outcome = asyncio.run(run())
    print(f"file             {outcome.size / MB:8.0f} MB in parts of 64 MB, {options.parallel} at a time")
    for name, seconds in (
        ("parts", outcome.upload_seconds),
        ("complete", outcome.complete_seconds),
        ("download", outcome.download_seconds),
    ):
        print(f"{name:16} {seconds:8.1f} s  {outcome.size / MB / seconds:8.0f} MB/s")
    print(f"memory of api    {outcome.memory_before / MB:8.0f} MB before")
    print(f"                 {outcome.memory_peak / MB:8.0f} MB at most (bound: {options.bound} MB)")
    print(f"digest           {'equal' if outcome.equal else 'DIFFERS'}")
    sys.exit(0 if outcome.equal and outcome.memory_peak < options.bound * MB else 1)


if __name__ == "__main__":
    main()
