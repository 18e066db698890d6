"""Drives every endpoint with the `openai` package of the Python that runs it: `python suite.py --mode async`.

It needs only that package, in any version from 1.40 on, so it imports nothing of ours. A call that this version of the
package does not have is left out and named. Prints a line for each check, and exits with 1 if one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import inspect
import io
import json
import sys
import time
import traceback
import uuid

import openai
import openai._base_client

PARTS = 3
JOB_SECONDS = 300.0
SHORT = {"evaluation": {"max_examples": 4, "few_shot": 1, "max_tokens": 8}}
RUNNING = ("validating_files", "queued", "running")
UNIQUE = uuid.uuid4().hex[:8]


class Left(Exception):
    """This version of the client does not have the call."""


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def rows(count: int, salt: str = "") -> bytes:
    """A training file of `count` chats, different for each `salt`."""
    lines = [
        {
            "messages": [
                {"role": "system", "content": "You answer briefly."},
                {"role": "user", "content": f"{UNIQUE} {salt}: what is {number} plus {number}?"},
                {"role": "assistant", "content": f"It is {number + number}."},
            ]
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Suite:
    """The checks. A sync and an async client are called alike: `now` awaits what has to be awaited."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.asynchronous = options.mode == "async"
        self.url, self.key, self.flaky = options.base_url, options.api_key, options.flaky_url
        self.client = self.connect()
        self.job = None

    def connect(self, url=None, key=None, **options):
        kind = openai.AsyncOpenAI if self.asynchronous else openai.OpenAI
        return kind(base_url=url or self.url, api_key=key or self.key, **options)

    async def now(self, value):
        return await value if inspect.isawaitable(value) else value

    async def all(self, page):
        """Every item of a list, page by page to the end."""
        if self.asynchronous:
            return [item async for item in page]
        return list(page)

    async def refused(self, kind, call):
        """The error that `call` must raise."""
        try:
            await self.now(call())
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}")

    def has(self, root, path: str):
        """The member `path` of a client."""
        for name in path.split("."):
            root = getattr(root, name, None)
            if root is None:
                raise Left(path)
        return root

    # --- files and uploads ------------------------------------------------------------------------------------

    async def files(self) -> None:
        files = self.client.files
        content = rows(12, "files")
        named = await self.now(files.create(file=("a.jsonl", content), purpose="fine-tune"))
        unnamed = await self.now(files.create(file=content, purpose="fine-tune"))
        handle = io.BytesIO(content)
        handle.name = "b.jsonl"
        opened = await self.now(files.create(file=handle, purpose="fine-tune"))
        made = [named, unnamed, opened]
        assert [file.bytes for file in made] == [len(content)] * 3
        assert (named.filename, opened.filename) == ("a.jsonl", "b.jsonl"), made
        assert all(file.object == "file" and file.id.startswith("file-") and file.status for file in made)
        done = await self.now(files.wait_for_processing(named.id, poll_interval=0.1))
        assert done.status == "processed"
        again = await self.now(files.retrieve(named.id))
        assert (again.id, again.purpose, again.created_at) == (named.id, "fine-tune", named.created_at)
        read = await self.now(files.content(named.id))
        assert read.read() == content
        listed = [file.id for file in await self.all(files.list())]
        assert {file.id for file in made} <= set(listed)
        for file in made:
            deleted = await self.now(files.delete(file.id))
            assert deleted.deleted and deleted.id == file.id
        error = await self.refused(openai.NotFoundError, lambda: files.retrieve(named.id))
        assert error.body and error.request_id if hasattr(error, "request_id") else True
        await self.refused(openai.NotFoundError, lambda: files.delete(named.id))
        left = [file.id for file in await self.all(files.list())]
        assert not {file.id for file in made} & set(left)

    async def file_pages(self) -> None:
        """Pages of one file, to the end."""
        files = self.client.files
        if "after" not in inspect.signature(files.list).parameters:
            raise Left("pages of files")
        made = [(await self.now(files.create(file=rows(10, f"page {n}"), purpose="batch"))).id for n in range(3)]
        page = files.list(purpose="batch", limit=1)
        found = [file.id for file in await self.all(page)]
        assert [file for file in found if file in made] == made[::-1], found
        assert len(found) == len(set(found))
        for file in made:
            await self.now(files.delete(file))

    async def bad_files(self) -> None:
        files = self.client.files
        error = await self.refused(openai.BadRequestError, lambda: files.create(file=b"{}", purpose="no-purpose"))
        assert error.param == "purpose", error.body
        await self.refused(openai.BadRequestError, lambda: files.create(file=b"", purpose="fine-tune"))
        await self.refused(openai.NotFoundError, lambda: files.content("file-nowhere"))

    async def uploads(self) -> None:
        """Three megabytes in parts, sent at once, and put in order by the end."""
        uploads = self.has(self.client, "uploads")
        content = (rows(12, "upload") + b"\n") * 1
        content += rows(10, "x" * 1000) * (3 * 2**20 // len(rows(10, "x" * 1000)))
        size = -(-len(content) // PARTS)
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        upload = await self.now(
            uploads.create(bytes=len(content), filename="big.jsonl", mime_type="text/jsonl", purpose="fine-tune")
        )
        assert upload.status == "pending" and upload.id.startswith("upload_")

        async def send(piece: bytes):
            return await self.now(uploads.parts.create(upload_id=upload.id, data=piece))

        if self.asynchronous:
            parts = await asyncio.gather(*map(send, reversed(pieces)))
        else:
            parts = [await send(piece) for piece in reversed(pieces)]
        ids = [part.id for part in reversed(parts)]
        digest = hashlib.md5(content).hexdigest()
        done = await self.now(uploads.complete(upload_id=upload.id, part_ids=ids, md5=digest))
        assert done.status == "completed" and done.file and done.file.bytes == len(content)
        read = await self.now(self.client.files.content(done.file.id))
        assert hashlib.md5(read.read()).hexdigest() == digest
        other = await self.now(uploads.create(bytes=3, filename="c", mime_type="text/plain", purpose="fine-tune"))
        assert (await self.now(uploads.cancel(other.id))).status == "cancelled"
        await self.refused(openai.BadRequestError, lambda: uploads.parts.create(upload_id=other.id, data=b"abc"))
        await self.now(self.client.files.delete(done.file.id))

    async def chunked(self) -> None:
        send = self.has(self.client, "uploads.upload_file_chunked")
        content = rows(10, "y" * 1000) * 60
        done = await self.now(
            send(
                file=content,
                filename="chunks.jsonl",
                bytes=len(content),
                mime_type="text/jsonl",
                purpose="fine-tune",
                part_size=100_000,
            )
        )
        assert done.file and done.file.bytes == len(content)

    # --- jobs -------------------------------------------------------------------------------------------------

    async def a_job(self) -> None:
        """One job to its end, and all that can be asked of it."""
        client, jobs = self.client, self.client.fine_tuning.jobs
        train = await self.now(client.files.create(file=("train.jsonl", rows(24, "job")), purpose="fine-tune"))
        valid = await self.now(client.files.create(file=("valid.jsonl", rows(10, "valid")), purpose="fine-tune"))
        job = await self.now(
            jobs.create(
                model="gpt-4o-mini-2024-07-18",
                training_file=train.id,
                validation_file=valid.id,
                suffix="client-suite",
                seed=7,
                hyperparameters={"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.0},
                extra_body=SHORT,
            )
        )
        assert job.object == "fine_tuning.job" and job.id.startswith("ftjob-")
        assert job.training_file == train.id and job.validation_file == valid.id
        assert job.status in RUNNING and job.fine_tuned_model is None and job.organization_id and job.seed == 7
        listed = await self.all(jobs.list(limit=1))
        assert job.id in [each.id for each in listed]
        assert len(listed) == len({each.id for each in listed})
        ended = await self.end(job.id)
        assert ended.status == "succeeded", ended.error
        assert ended.fine_tuned_model and ended.fine_tuned_model.startswith("ft:")
        assert ended.trained_tokens and ended.finished_at and ended.hyperparameters.n_epochs == 2
        self.job = ended
        events = await self.all(jobs.list_events(job.id, limit=2))
        messages = [event.message for event in reversed(events)]
        assert messages[0] == f"Created fine-tuning job: {job.id}" and len({e.id for e in events}) == len(events)
        assert any("gpt-4o-mini" in message for message in messages[:3]), messages[:3]
        assert "The job has successfully completed" in messages
        metrics = [event for event in events if getattr(event, "type", None) == "metrics"]
        assert metrics and {"step", "train_loss"} <= set(metrics[0].data), metrics[:1]
        (result,) = ended.result_files
        content = (await self.now(client.files.content(result))).read().decode()
        table = list(csv.DictReader(io.StringIO(content)))
        assert content.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"), content[:90]
        assert [int(line["step"]) for line in table] == list(range(1, len(table) + 1))
        about = await self.now(client.files.retrieve(result))
        assert about.purpose == "fine-tune-results" and about.bytes == len(content.encode())

    async def end(self, job_id: str):
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            job = await self.now(self.client.fine_tuning.jobs.retrieve(job_id))
            if job.status not in RUNNING:
                return job
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.5)

    async def chat(self) -> None:
        client, model = self.client, self.job.fine_tuned_model
        messages = [{"role": "user", "content": "What is 2 plus 2?"}]
        answer = await self.now(client.chat.completions.create(model=model, messages=messages, max_tokens=4))
        assert answer.model == model and answer.choices[0].message.content is not None
        stream = await self.now(
            client.chat.completions.create(model=model, messages=messages, max_tokens=4, stream=True)
        )
        assert [chunk async for chunk in stream] if self.asynchronous else list(stream)
        checkpoints = await self.all(client.fine_tuning.jobs.checkpoints.list(self.job.id, limit=1))
        assert checkpoints and all(each.id.startswith("ftckpt_") for each in checkpoints)
        for each in checkpoints:
            name = each.fine_tuned_model_checkpoint
            answer = await self.now(client.chat.completions.create(model=name, messages=messages, max_tokens=4))
            assert answer.model == name

    async def models(self) -> None:
        models, model = self.client.models, self.job.fine_tuned_model
        listed = [each.id for each in await self.all(models.list())]
        assert model in listed
        assert (await self.now(models.retrieve(model))).id == model
        await self.refused(openai.NotFoundError, lambda: models.retrieve("nobody/has-this"))
        await self.refused(openai.NotFoundError, lambda: models.retrieve("ft:base:org:x:aaaaaaaa"))

    async def delete_model(self) -> None:
        """The model of the suite's own job: at the end of its alias, which is moved away by the next job."""
        train = await self.now(self.client.files.create(file=rows(16, "gone"), purpose="fine-tune"))
        job = await self.now(
            self.client.fine_tuning.jobs.create(
                model="gpt-4o-mini",
                training_file=train.id,
                suffix=f"gone-{UNIQUE}",
                hyperparameters={"n_epochs": 1},
                extra_body={**SHORT, "gate": {"promote": "never"}},
            )
        )
        ended = await self.end(job.id)
        assert ended.status == "succeeded", ended.error
        deleted = await self.now(self.client.models.delete(ended.fine_tuned_model))
        assert deleted.deleted and deleted.id == ended.fine_tuned_model
        await self.refused(openai.NotFoundError, lambda: self.client.models.retrieve(ended.fine_tuned_model))

    async def ended_jobs_cannot_be_cancelled(self) -> None:
        began = time.monotonic()
        await self.refused(openai.BadRequestError, lambda: self.client.fine_tuning.jobs.cancel(self.job.id))
        assert time.monotonic() - began < 5, "it was not tried again"

    async def cancel(self) -> None:
        job = await self.another("cancel", n_epochs=50)
        answer = await self.now(self.client.fine_tuning.jobs.cancel(job.id))
        assert answer.id == job.id
        assert (await self.end(job.id)).status == "cancelled"

    async def pause_and_resume(self) -> None:
        jobs = self.client.fine_tuning.jobs
        pause, resume = self.has(jobs, "pause"), self.has(jobs, "resume")
        job = await self.another("pause", n_epochs=2)
        await self.now(pause(job.id))
        await self.until(job.id, "paused")
        resumed = await self.now(resume(job.id))
        assert resumed.status in RUNNING, resumed.status
        assert (await self.end(job.id)).status == "succeeded"

    async def until(self, job_id: str, status: str) -> None:
        deadline = time.monotonic() + 60
        while (found := await self.now(self.client.fine_tuning.jobs.retrieve(job_id))).status != status:
            assert time.monotonic() < deadline and found.status in RUNNING, found
            await asyncio.sleep(0.2)

    async def another(self, salt: str, client=None, **hyperparameters):
        client = client or self.client
        train = await self.now(self.client.files.create(file=rows(24, salt), purpose="fine-tune"))
        return await self.now(
            client.fine_tuning.jobs.create(
                model="gpt-4o-mini-2024-07-18",
                training_file=train.id,
                hyperparameters=hyperparameters,
                extra_body={**SHORT, "gate": {"promote": "never"}},
            )
        )

    async def method_and_metadata(self) -> None:
        jobs = self.client.fine_tuning.jobs
        if "method" not in inspect.signature(jobs.create).parameters:
            raise Left("fine_tuning.jobs.create(method=…)")
        train = await self.now(self.client.files.create(file=rows(20, "method"), purpose="fine-tune"))
        job = await self.now(
            jobs.create(
                model="gpt-4o-mini-2024-07-18",
                training_file=train.id,
                method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
                metadata={"suite": UNIQUE},
                extra_body=SHORT,
            )
        )
        assert job.method and job.method.type == "supervised" and job.metadata == {"suite": UNIQUE}
        found = [each.id for each in await self.all(jobs.list(extra_query={"metadata[suite]": UNIQUE}))]
        assert found == [job.id], found
        none = [each.id for each in await self.all(jobs.list(extra_query={"metadata": "null"}))]
        assert job.id not in none
        await self.now(jobs.cancel(job.id))

    async def bad_jobs(self) -> None:
        jobs = self.client.fine_tuning.jobs
        error = await self.refused(
            openai.BadRequestError, lambda: jobs.create(model="gpt-4o-mini", training_file="file-nowhere")
        )
        assert error.param == "training_file", error.body
        train = await self.now(self.client.files.create(file=rows(20, "bad"), purpose="fine-tune"))
        error = await self.refused(
            openai.BadRequestError,
            lambda: jobs.create(model="gpt-4o-mini", training_file=train.id, hyperparameters={"n_epochs": 5000}),
        )
        assert "n_epochs" in (error.param or ""), error.body
        await self.refused(openai.NotFoundError, lambda: jobs.create(model="no/such-base", training_file=train.id))
        for call in (jobs.retrieve, jobs.cancel, jobs.list_events):
            await self.refused(openai.NotFoundError, lambda call=call: call("ftjob-nowhere"))

    async def too_few_examples(self) -> None:
        few = await self.now(self.client.files.create(file=rows(7, "few"), purpose="fine-tune"))
        job = await self.now(self.client.fine_tuning.jobs.create(model="gpt-4o-mini-2024-07-18", training_file=few.id))
        ended = await self.end(job.id)
        assert ended.status == "failed" and ended.error, ended
        assert "7 example(s)" in ended.error.message and "at least 10" in ended.error.message, ended.error

    async def wrong_keys(self) -> None:
        stranger = self.connect(key="sk-nobody", max_retries=0)
        calls = (stranger.models.list, stranger.files.list, stranger.fine_tuning.jobs.list)
        for call in calls:
            error = await self.refused(openai.AuthenticationError, call)
            assert error.code == "invalid_api_key", error.body

    async def a_lost_answer(self) -> None:
        """The first answer is lost, and the client asks again: there is one job."""
        if "x-stainless-retry-count" not in inspect.getsource(openai._base_client):
            raise Left("word for it that it tries again")  # then nobody can tell a second job from a second try
        client = self.connect(url=self.flaky, timeout=3.0, max_retries=2)
        job = await self.another("lost", client=client, n_epochs=50)
        same = [
            each
            for each in await self.all(self.client.fine_tuning.jobs.list())
            if each.training_file == job.training_file
        ]
        assert [each.id for each in same] == [job.id], same
        await self.now(self.client.fine_tuning.jobs.cancel(job.id))

    async def run(self) -> int:
        checks = [
            self.files, self.file_pages, self.bad_files, self.uploads, self.chunked, self.wrong_keys, self.bad_jobs,
            self.a_job, self.chat, self.models, self.ended_jobs_cannot_be_cancelled, self.too_few_examples,
            self.method_and_metadata, self.cancel, self.a_lost_answer, self.pause_and_resume, self.delete_model,
        ]  # fmt: skip
        failed = 0
        for check in checks:
            began = time.monotonic()
            try:
                await check()
                said = "ok"
            except Left as left:
                said = f"left out: this client has no {left}"
            except Exception:
                failed += 1
                said = "FAILED\n" + traceback.format_exc()
            say(f"{check.__name__:32} {time.monotonic() - began:6.1f} s  {said}")
        say(f"openai {openai.__version__}, Python {sys.version.split()[0]}: {len(checks)} checks, {failed} failed")
        return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["sync", "async"], required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--flaky-url", required=True, help="the same, but the first answer to a new job is lost")
    return asyncio.run(Suite(parser.parse_args()).run())


if __name__ == "__main__":
    sys.exit(main())
