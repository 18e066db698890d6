"""What users do while a stack is broken: they drop and announce datasets, chat, cancel, pause, resume, roll back and
try again. They record what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import boto3
import httpx
import openai
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from services.api.domain.state import FINAL
from tests.chaos import datasets
from tests.chaos.facts import Answer, Asked, Facts, Sent
from tests.chaos.stack import Stack

ALIASES = ("chaos-one", "chaos-two")
USERS = 3
AT_ONCE = 3
"""How many jobs are under way at once."""
ASK_SECONDS = 150.0
"""A user waits longer than the gateway waits for vLLM."""
CALL_SECONDS = 20.0
HAND_EVERY = (4.0, 12.0)
"""Seconds between two things that somebody does by hand."""
REST = (5.0, 40.0)
"""Seconds that a paused job rests."""
STORE_ERRORS = (BotoCoreError, ClientError, Boto3Error, OSError)


class Workload:
    """Threads of users. `known` are the jobs as the api service last showed them."""

    def __init__(self, stack: Stack, facts: Facts, seed: str) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self._stack = stack
        self._user = stack.user
        self._facts = facts
        self._seed = seed
        env = self._user.env
        self._s3 = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
            verify=env.get("AWS_CA_BUNDLE"),
            config=Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 1}),
        )
        self._http = httpx.Client(
            timeout=CALL_SECONDS, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._enough = threading.Event()
        self._over = threading.Event()
        self._submitting = threading.Thread(target=self._guarded, args=(self._submit,), daemon=True)
        self._others = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (
                self._watch,
                self._by_hand,
                *(lambda number=number: self._chat(number) for number in range(USERS)),
            )
        ]
        self._broken: list[BaseException] = []

    def start(self) -> None:
        for thread in (self._submitting, *self._others):
            thread.start()

    def enough(self) -> None:
        """Send no more datasets, and nothing by hand. Returns when what was begun is sent."""
        self._enough.set()
        self._submitting.join(300)

    def stop(self) -> None:
        """End all users. An error of the workload itself is raised here."""
        self.enough()
        self._over.set()
        for thread in self._others:
            thread.join(ASK_SECONDS + 30)
        self.check()

    def check(self) -> None:
        """Raise the error that ended a user, if one did: that is a bug of the workload."""
        if self._broken:
            raise self._broken[0]

    def open(self) -> list[str]:
        """What was accepted and has not ended, as the api shows it."""
        ended = {job["dataset"]["key"] for job in self.known.values() if job["status"] in FINAL}
        retried = [asked.given for asked in self._facts.asked if asked.what == "retry" and asked.acknowledged]
        jobs = [job["id"] for job in self.known.values() if job["status"] not in FINAL]
        missing = [job_id for job_id in retried if job_id not in self.known]
        return [sent.key for sent in self._facts.sent if sent.key not in ended] + jobs + [str(each) for each in missing]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._broken.append(error)
            raise

    # --- datasets ---------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        random, number = Random(f"{self._seed}/datasets"), 0
        while not self._enough.is_set():
            if len(self.open()) < AT_ONCE:
                number += 1
                self._send(random, number)
            self._enough.wait(random.uniform(1.0, 4.0))

    def _send(self, random: Random, number: int) -> None:
        word, alias = datasets.word(self._seed, number), random.choice(ALIASES)
        promote = random.choices(("always", "if_better", "never"), (6, 2, 1))[0]
        epochs = random.choice((3, 3, 8))
        how = random.choice(("drop", "event"))
        rows, spec = datasets.rows(word), datasets.spec(word, alias, promote, epochs)
        if how == "drop":
            key = f"{number:03}-{word}.jsonl"
            sidecar = key.replace(".jsonl", ".job.yaml")
            accepted = self._put(sidecar, json.dumps(spec).encode()) and self._put(key, rows)
        else:
            key = f"_announced/{number:03}-{word}.jsonl"  # the `_` keeps ingest from taking the file as a drop, too
            event = {"dataset": {"bucket": "datasets", "key": key}, "spec": spec}
            accepted = self._put(key, rows) and self._publish("dataset.uploaded", event)
        self._facts.sent.append(Sent(key, how, alias, word, accepted, time.time()))

    def _put(self, key: str, body: bytes) -> bool:
        """Upload until the store has taken it, as an S3 client does; whether it has."""

        def put() -> None:
            self._s3.put_object(Bucket="datasets", Key=key, Body=body)

        return self._until_taken(put, STORE_ERRORS)

    def _publish(self, topic: str, event: dict[str, Any]) -> bool:
        async def publish() -> None:
            producer = AIOKafkaProducer(**self._stack.kafka, acks="all", request_timeout_ms=10_000)
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await producer.start()
                    await producer.send_and_wait(topic, json.dumps(event).encode())
            finally:
                try:
                    async with asyncio.timeout(CALL_SECONDS):
                        await producer.stop()
                except (KafkaError, OSError, TimeoutError):
                    pass

        return self._until_taken(lambda: asyncio.run(publish()), (KafkaError, OSError, TimeoutError))

    def _until_taken(self, call: Callable[[], None], errors: tuple[type[Exception], ...]) -> bool:
        while True:
            try:
                call()
                return True
            except errors:
                if self._over.is_set():
                    return False
                self._over.wait(1.0)

    # --- the api service, and what people do by hand -----------------------------------------------------------

    def _watch(self) -> None:
        while not self._over.is_set():
            status, body = self._request("GET", f"{self._user.env['TUNESTREAM_API_URL']}/jobs?limit=100")
            if status == 200:
                self.known |= {job["id"]: job for job in body["data"]}
            elif status is not None and status != 503:
                self._facts.asked.append(Asked("list", "jobs", time.time(), time.time(), status))
            self._over.wait(1.0)

    def _by_hand(self) -> None:
        random = Random(f"{self._seed}/hands")
        cancels = retries = 0
        resting: dict[str, float] = {}  # job -> when it is resumed, by the monotonic clock
        while not self._enough.wait(random.uniform(*HAND_EVERY)):
            self._resume(resting, time.monotonic())
            jobs = sorted(self.known.values(), key=lambda job: str(job["id"]))
            under_way = [job for job in jobs if job["status"] not in FINAL]
            ended = [job for job in jobs if job["status"] in ("succeeded", "cancelled")]
            choice = random.choice(("cancel", "retry", "rollback", "rollback", "pause", "pause"))
            if choice == "cancel" and under_way and cancels < len(jobs) / 5:
                cancels += 1
                self._ask("cancel", random.choice(under_way)["id"])
            elif choice == "retry" and ended and retries < len(jobs) / 5:
                job = random.choice(ended)
                retries += 1
                self._ask("retry", job["id"], {"from": "evaluator"} if job["status"] == "succeeded" else {})
            elif choice == "rollback" and (deployed := self._deployed()):
                self._roll_back(random.choice(sorted(deployed)))
            elif choice == "pause" and (awake := [job["id"] for job in under_way if job["id"] not in resting]):
                job_id = random.choice(awake)
                self._ask("pause", job_id)  # it may be paused whatever the answer says, or though none came
                resting[job_id] = time.monotonic() + random.uniform(*REST)
        while resting and not self._over.wait(1.0):
            self._resume(resting, float("inf"))

    def _resume(self, resting: dict[str, float], until: float) -> None:
        """Resume the jobs whose rest is over by `until`. Those without an answer stay in `resting`."""
        for job_id in [job_id for job_id, over in resting.items() if over <= until]:
            status = self._ask("resume", job_id).status
            if status is not None and status < 500:
                del resting[job_id]

    def _roll_back(self, alias: str) -> None:
        """Leave the version that the alias has. Who gets no answer asks again, as a person does."""
        status, deployment = self._request("GET", f"{self._gateway}/deployments/{alias}")
        if status != 200:
            return
        expected = deployment["current"]["model"]
        while not self._enough.is_set():
            asked = self._ask("rollback", alias, {"expected": expected}, expected)
            if asked.status is not None and asked.status < 500:
                return
            self._enough.wait(1.0)

    @property
    def _gateway(self) -> str:
        return self._user.env["OPENAI_BASE_URL"].removesuffix("/v1")

    def _ask(self, what: str, about: str, body: dict[str, Any] | None = None, expected: str | None = None) -> Asked:
        api = self._user.env["TUNESTREAM_API_URL"]
        url = f"{self._gateway}/deployments/{about}/rollback" if what == "rollback" else f"{api}/jobs/{about}/{what}"
        began = time.time()
        status, answer = self._request("POST", url, body)
        given = code = None
        if status is not None and status < 300:
            given = answer["current"]["model"] if what == "rollback" else answer["id"]
        elif isinstance(answer, dict):
            code = answer.get("error", {}).get("code")
        asked = Asked(what, about, began, time.time(), status, code, given, expected)
        self._facts.asked.append(asked)
        return asked

    def _request(self, method: str, url: str, body: dict[str, Any] | None = None) -> tuple[int | None, Any]:
        headers = {"Authorization": f"Bearer {self._user.env['OPENAI_API_KEY']}"}
        try:
            answer = self._http.request(method, url, headers=headers, json=body)
            return answer.status_code, answer.json()
        except (httpx.HTTPError, ValueError):
            return None, None

    def _deployed(self) -> set[str]:
        """The aliases that exist for sure."""
        deployments = (job.get("deployment") for job in self.known.values() if job["status"] == "succeeded")
        return {deployment["alias"] for deployment in deployments if deployment and deployment.get("alias")}

    # --- chat -------------------------------------------------------------------------------------------------

    def _chat(self, number: int) -> None:
        random, client = Random(f"{self._seed}/chat/{number}"), client_of(self._user)
        base = self._user.env["TUNESTREAM_BASE"]
        while not self._over.is_set():
            tuned = sorted(job["fine_tuned_model"] for job in self.known.values() if job["status"] == "succeeded")
            names = [[base], sorted(self._deployed()), tuned]
            group = random.choices(names, (1, 3, 2))[0] or [base]
            # the last user is in a hurry
            wait = {"prefer": "wait=5"} if number == USERS - 1 else {}
            self._facts.answers.append(ask(client, random.choice(group), stream=random.random() < 0.5, headers=wait))
            self._over.wait(random.uniform(0.2, 1.2))


def client_of(user: Any) -> openai.OpenAI:
    """The official client. It does not try again by itself, so that every answer is seen."""
    env = user.env
    return openai.OpenAI(
        base_url=env["OPENAI_BASE_URL"], api_key=env["OPENAI_API_KEY"], max_retries=0, timeout=ASK_SECONDS
    )


def ask(
    client: openai.OpenAI, model: str, number: int = 0, *, stream: bool = False, headers: dict[str, str] | None = None
) -> Answer:
    """Ask for a word, and record what came. Different numbers make different requests: who sends the same one again and
    again, while others kill the server, may be taken for the one that kills it."""
    began = time.time()
    found: dict[str, Any] = {"status": None}
    try:
        raw: Any = client.chat.completions.with_raw_response.create(
            model=model,
            messages=datasets.question(number),  # type: ignore[arg-type]
            max_tokens=12,
            temperature=0,
            stream=stream,
            extra_headers=headers or {},
        )
        found |= {"status": raw.http_response.status_code, "header": raw.headers.get("x-tunestream-model")}
        if stream:
            _read_stream(raw.parse(), found)
        else:
            completion = raw.parse()
            [choice] = completion.choices
            found |= {"named": completion.model, "text": choice.message.content or ""}
            found["whole"] = choice.finish_reason is not None and completion.usage.completion_tokens > 0
    except openai.APIStatusError as error:
        found |= {"status": error.status_code, "code": error.code, "envelope": has_envelope(error.response)}
        found["error"] = error.message[:200]
    except (openai.APIError, httpx.HTTPError) as error:  # the connection failed, or the stream says that it broke
        found["error"] = f"{type(error).__name__}: {error}"[:200]
    return Answer(model, stream, began, time.time(), **found)


def _read_stream(chunks: Any, found: dict[str, Any]) -> None:
    found["text"], ended = "", False
    with chunks:
        for chunk in chunks:
            found["named"] = chunk.model
            for choice in chunk.choices:
                found["text"] += choice.delta.content or ""
                ended = ended or choice.finish_reason is not None
    found["whole"] = ended


def has_envelope(response: httpx.Response) -> bool:
    """Whether an error has the form that the official client knows."""
    try:
        error = response.json()["error"]
        return {"message", "type", "param", "code"} <= error.keys()
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
