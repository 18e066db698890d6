"""Drives every endpoint with the `openai` package of the Python that runs it: `python tests/clients/suite --mode sync`.

It needs only that package, in any version from 1.40 on, so it imports nothing of ours. Where this version has no method
for a route, the client's plain `post`, `get` and `delete` ask for it; what that cannot do is left out and named. Prints
a line for each check, and exits with 1 if one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback

import openai
from calls import Calls, Left
from files import Files
from graders import Graders
from jobs import CREATE, Jobs
from models import Models
from webhooks import Receiver, Webhooks

WITH_BODIES = (
    *("/files", "/uploads", CREATE, "/fine_tuning/alpha/graders/run", "/fine_tuning/alpha/graders/validate"),
    *("/webhook_endpoints", "/chat/completions", "/completions"),
)
"""Routes that cannot do without a body."""


class Refusals(Calls):
    async def wrong_keys(self) -> None:
        stranger = self.connect(api_key="sk-nobody", max_retries=0)
        messages = [{"role": "user", "content": "Hello"}]
        calls = (
            stranger.models.list,
            stranger.files.list,
            stranger.fine_tuning.jobs.list,
            lambda: stranger.files.create(file=b"{}\n", purpose="fine-tune"),
            lambda: stranger.uploads.create(bytes=3, filename="a", mime_type="text/jsonl", purpose="fine-tune"),
            lambda: stranger.fine_tuning.jobs.create(model=self.base, training_file="file-nowhere"),
            lambda: stranger.chat.completions.create(model=self.base, messages=messages),
            lambda: self.send("GET", "/webhook_endpoints", client=stranger),
        )
        for call in calls:
            error = await self.refused(openai.AuthenticationError, call)
            assert error.code == "invalid_api_key", error.body

    async def empty_bodies(self) -> None:
        """Without a body: an error in the envelope. Cancel, pause, resume and rotate_secret, which need none, have none
        in the other checks."""
        for path in WITH_BODIES:
            error = await self.refused(openai.APIStatusError, lambda path=path: self.send("POST", path))
            assert error.status_code in (400, 422), (path, error)
            assert {"message", "type", "param", "code"} <= set(error.body), (path, error.body)


class Suite(Files, Webhooks, Jobs, Models, Graders, Refusals):
    async def run(self) -> int:
        checks = [
            self.webhook_endpoints, self.webhook_signatures, self.own_job,
            # while it trains
            self.files, self.file_pages, self.bad_files, self.uploads, self.chunked, self.wrong_keys,
            self.empty_bodies, self.graders, self.bad_jobs, self.too_few_examples, self.cancel, self.timeouts,
            self.own_job_ends, self.a_webhook_of_the_job, self.job_pages, self.chat, self.models,
            self.a_job_from_a_tuned_model, self.permissions, self.ended_jobs_cannot_be_cancelled, self.delete_model,
        ]  # fmt: skip
        failed = left = 0
        for check in checks:
            began = time.monotonic()
            try:
                await check()
                said = "ok"
            except Left as what:
                left += 1
                said = f"left out: this client has no {what}"
            except Exception:
                failed += 1
                said = "FAILED\n" + traceback.format_exc()
            say(f"{check.__name__:32} {time.monotonic() - began:6.1f} s  {said}")
        how = "async" if self.asynchronous else "sync"
        about = f"openai {openai.__version__} {how}, Python {sys.version.split()[0]}"
        say(f"{about}: {len(checks)} checks, {left} left out, {failed} failed")
        return 1 if failed else 0


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["sync", "async"], required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--api-url", required=True, help="of the api service, for API keys")
    parser.add_argument("--lossy-url", required=True, help="the same as --base-url, but some first answers are lost")
    parser.add_argument("--base", required=True, help="the id of the base")
    options = parser.parse_args()
    suite = Suite(options.mode, options.base_url, options.api_key, options.lossy_url)
    suite.api_url, suite.base, suite.receiver = options.api_url, options.base, Receiver()
    with suite.receiver.running():
        return asyncio.run(suite.run())


if __name__ == "__main__":
    sys.exit(main())
