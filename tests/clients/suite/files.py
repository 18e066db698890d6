"""Files and uploads."""

from __future__ import annotations

import hashlib
import inspect
import io

import openai
from calls import Calls, rows

SIZE = 3 * 2**20
PARTS = 4


class Files(Calls):
    async def files(self) -> None:
        """With a name, as bytes without one, and from an open file."""
        files, content = self.client.files, rows(12, "files")
        handle = io.BytesIO(content)
        handle.name = "b.jsonl"
        made = [
            await self.now(files.create(file=file, purpose="fine-tune"))
            for file in (("a.jsonl", content), content, handle)
        ]
        named, _, opened = made
        assert [file.bytes for file in made] == [len(content)] * 3
        assert (named.filename, opened.filename) == ("a.jsonl", "b.jsonl"), made
        assert all(file.object == "file" and file.id.startswith("file-") and file.filename for file in made)
        done = await self.now(files.wait_for_processing(named.id, poll_interval=0.1))
        assert done.status == "processed"
        again = await self.now(files.retrieve(named.id))
        assert (again.id, again.purpose, again.created_at) == (named.id, "fine-tune", named.created_at)
        assert (await self.now(files.content(named.id))).read() == content
        assert {file.id for file in made} <= {file.id for file in await self.all(files.list())}
        for file in made:
            deleted = await self.now(files.delete(file.id))
            assert deleted.deleted and deleted.id == file.id
        await self.refused(openai.NotFoundError, lambda: files.retrieve(named.id))
        await self.refused(openai.NotFoundError, lambda: files.delete(named.id))
        assert not {file.id for file in made} & {file.id for file in await self.all(files.list())}

    async def file_pages(self) -> None:
        """Pages of one file, to the end, while other runs make and delete such files."""
        files = self.client.files
        made = [(await self.now(files.create(file=rows(10, f"page {n}"), purpose="batch"))).id for n in range(3)]
        for order in ("desc", "asc"):
            found = await self.file_ids(purpose="batch", limit=1, order=order)
            assert [file for file in found if file in made] == (made if order == "asc" else made[::-1]), found
        for file in made:
            await self.now(files.delete(file))

    async def file_ids(self, **query) -> list[str]:
        """1.40 has no pages of files: there the cursor is followed by hand."""
        if "after" in inspect.signature(self.client.files.list).parameters:
            return [file.id for file in await self.all(self.client.files.list(**query))]
        found = []
        while True:
            page = await self.now(self.client.files.list(extra_query=query))
            found += [file.id for file in page.data]
            if not page.has_more:
                return found
            query["after"] = found[-1]

    async def bad_files(self) -> None:
        files = self.client.files
        error = await self.refused(openai.BadRequestError, lambda: files.create(file=b"{}", purpose="no-purpose"))
        assert error.param == "purpose", error.body
        await self.refused(openai.BadRequestError, lambda: files.create(file=b"", purpose="fine-tune"))
        await self.refused(openai.NotFoundError, lambda: files.content("file-nowhere"))

    async def uploads(self) -> None:
        """Three megabytes in parts that are sent at once. Their order is that of `part_ids`, and md5 proves it."""
        uploads, content = self.client.uploads, large("upload")
        digest = hashlib.md5(content).hexdigest()
        upload = await self.now(
            uploads.create(bytes=len(content), filename="big.jsonl", mime_type="text/jsonl", purpose="fine-tune")
        )
        assert upload.status == "pending" and upload.id.startswith("upload_")
        size = -(-len(content) // PARTS)
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        parts = await self.together(
            *(lambda piece=piece: uploads.parts.create(upload_id=upload.id, data=piece) for piece in reversed(pieces))
        )
        ids = [part.id for part in reversed(parts)]
        wrong = await self.refused(
            openai.BadRequestError, lambda: uploads.complete(upload_id=upload.id, part_ids=ids[::-1], md5=digest)
        )
        assert wrong.param == "md5", wrong.body
        done = await self.now(uploads.complete(upload_id=upload.id, part_ids=ids, md5=digest))
        assert done.status == "completed" and done.file and done.file.bytes == len(content)
        assert (await self.now(self.client.files.content(done.file.id))).read() == content
        other = await self.now(uploads.create(bytes=3, filename="c", mime_type="text/plain", purpose="fine-tune"))
        assert (await self.now(uploads.cancel(other.id))).status == "cancelled"
        await self.refused(openai.BadRequestError, lambda: uploads.parts.create(upload_id=other.id, data=b"abc"))
        await self.now(self.client.files.delete(done.file.id))

    async def chunked(self) -> None:
        """The client cuts the file itself."""
        send, content = self.has("uploads.upload_file_chunked"), large("chunks")
        about = {"filename": "chunks.jsonl", "bytes": len(content), "mime_type": "text/jsonl", "purpose": "fine-tune"}
        done = await self.now(send(file=content, part_size=2**20, **about))
        assert done.file and done.file.bytes == len(content)
        await self.now(self.client.files.delete(done.file.id))


def large(salt: str) -> bytes:
    """A file of three megabytes, or a little more."""
    piece = rows(10, salt + "x" * 1000)
    return piece * -(-SIZE // len(piece))
