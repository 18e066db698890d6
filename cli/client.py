"""A client of the HTTP interfaces of api and inference."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from cli.target import Target
from cli.terminal import NO_STACK, CliError

Json = dict[str, Any]

TIMEOUT = httpx.Timeout(30.0, connect=3.0)
TRIAL_TIMEOUT = httpx.Timeout(120.0, connect=3.0)
"""Of a call that loads a model and asks the live server about it first."""
UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=3.0)
"""Of a call that sends a file, between two pieces of it, and until it is stored."""


class Unreachable(CliError):
    """There is no server, or it failed, or the connection broke during the answer. The same call may succeed later."""


class Waiting(Unreachable):
    """There is a server, and it waits for something that is away, such as the object store."""


class NotFound(CliError):
    """The server knows no such job, model or alias."""


class Client:
    """Calls the api and the inference service; a context manager. Every method may raise `Unreachable`, `NotFound` or
    `CliError`."""

    def __init__(self, target: Target, transport: httpx.BaseTransport | None = None) -> None:
        self.target = target
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {target.api_key}"} if target.api_key else {},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # --- jobs: api --------------------------------------------------------------------------------------------

    def job(self, job: str) -> Json:
        """One job by its id."""
        return self._call("GET", f"{self.target.api_url}/jobs/{quote(job, safe='')}")

    def jobs(self, limit: int) -> list[Json]:
        """At most `limit` jobs, newest first."""
        return _data(self._call("GET", f"{self.target.api_url}/jobs", params={"limit": limit}))

    def events(self, job: str, after: str | None, limit: int = 100) -> list[Json]:
        """At most `limit` events of a job, oldest first, beginning after the event `after` or with the first one."""
        params: dict[str, str | int] = {"limit": limit, "order": "asc"}
        if after:
            params["after"] = after
        return _data(self._call("GET", f"{self.target.api_url}/jobs/{quote(job, safe='')}/events", params=params))

    def cancel(self, job: str) -> Json:
        """Ask for the cancellation of a job. Returns the job as it is now."""
        return self._call("POST", f"{self.target.api_url}/jobs/{quote(job, safe='')}/cancel")

    def pause(self, job: str) -> Json:
        """Let a job rest until it is resumed. Returns the job as it is now."""
        return self._call("POST", f"{self.target.api_url}/jobs/{quote(job, safe='')}/pause")

    def resume(self, job: str) -> Json:
        """Let a paused job go on. Returns the job as it is now."""
        return self._call("POST", f"{self.target.api_url}/jobs/{quote(job, safe='')}/resume")

    def retry(self, job: str, stage: str | None) -> Json:
        """Ask for a new job that begins from `stage` (None: where `job` failed or was cancelled), and return it."""
        url = f"{self.target.api_url}/jobs/{quote(job, safe='')}/retry"
        return self._call("POST", url, json={"from": stage} if stage else {})

    # --- sweeps: api ------------------------------------------------------------------------------------------

    def upload(self, path: Path) -> Json:
        """Store a dataset. Returns the file of the Files API."""
        with path.open("rb") as content:
            return self._call(
                "POST",
                f"{self.target.api_url}/v1/files",
                data={"purpose": "fine-tune"},
                files={"file": (path.name, content)},
                timeout=UPLOAD_TIMEOUT,
            )

    def create_sweep(self, body: Json, key: str) -> Json:
        """Ask for a sweep. Requests with the same `key` make one; a lost answer is asked for again."""
        url, headers = f"{self.target.api_url}/sweeps", {"idempotency-key": key}
        try:
            return self._call("POST", url, json=body, headers=headers)
        except Unreachable:
            return self._call("POST", url, json=body, headers=headers)

    def sweep(self, sweep: str) -> Json:
        """One sweep by its id, with its trials."""
        return self._call("GET", self._sweep(sweep))

    def sweeps(self, limit: int) -> list[Json]:
        """At most `limit` sweeps, newest first, without their trials."""
        return _data(self._call("GET", f"{self.target.api_url}/sweeps", params={"limit": limit}))

    def cancel_sweep(self, sweep: str) -> Json:
        """Ask for the end of a sweep. Returns the sweep as it is now."""
        return self._call("POST", self._sweep(sweep) + "/cancel")

    def sweep_report(self, sweep: str) -> str:
        """The page of a sweep as HTML."""
        return self._answer("GET", self._sweep(sweep) + "/report").text

    def _sweep(self, sweep: str) -> str:
        return f"{self.target.api_url}/sweeps/{quote(sweep, safe='')}"

    # --- keys: api --------------------------------------------------------------------------------------------

    def create_key(self, body: Json) -> Json:
        """Make an API key. The answer alone has its `secret`."""
        return self._call("POST", f"{self.target.api_url}/keys", json=body)

    def api_keys(self) -> list[Json]:
        """Every API key, newest first, also those that are revoked."""
        found: list[Json] = []
        while True:
            params: dict[str, str | int] = {"limit": 100}
            if found:
                params["after"] = str(found[-1].get("id"))
            page = self._call("GET", f"{self.target.api_url}/keys", params=params)
            found += (data := _data(page))
            if not data or not page.get("has_more"):
                return found

    def revoke_key(self, key: str) -> Json:
        """Revoke an API key."""
        return self._call("DELETE", f"{self.target.api_url}/keys/{quote(key, safe='')}")

    # --- models: inference ------------------------------------------------------------------------------------

    def models(self) -> list[Json]:
        """The models that can be called."""
        return _data(self._call("GET", f"{self.target.inference_url}/v1/models"))

    def deployments(self) -> list[Json]:
        """The aliases, each with its current and previous model."""
        return _data(self._call("GET", f"{self.target.inference_url}/deployments"))

    def deployment(self, alias: str) -> Json | None:
        """One alias; None: there is none of that name."""
        try:
            return self._call("GET", self._deployment(alias))
        except NotFound:
            return None

    def deploy(self, model: str, alias: str, expected: str | None = None) -> Json:
        """Point an alias at a model, if it names the model `expected` before. Returns the alias as it is now."""
        body = {"model": model, "expected": expected}
        return self._call("POST", self._deployment(alias), json=_given(body), timeout=TRIAL_TIMEOUT)

    def rollback(self, alias: str, to: str | None = None, expected: str | None = None) -> Json:
        """Point an alias back at the model `to` (None: the one before the current one), if it names the model
        `expected` before. Returns the alias as it is now."""
        body = {"to": to, "expected": expected}
        return self._call("POST", self._deployment(alias) + "/rollback", json=_given(body), timeout=TRIAL_TIMEOUT)

    def _deployment(self, alias: str) -> str:
        return f"{self.target.inference_url}/deployments/{quote(alias, safe='')}"

    def _call(self, method: str, url: str, **sent: Any) -> Json:
        body = _object(self._answer(method, url, **sent))
        if body is None:
            raise CliError(f"{url} answered something that is not a JSON object", "does another program use its port?")
        return body

    def _answer(self, method: str, url: str, *, timeout: httpx.Timeout = TIMEOUT, **sent: Any) -> httpx.Response:
        """The answer, which is no error. `sent`: `params`, `json` and so on, as httpx takes them."""
        try:
            answer = self._http.request(method, url, timeout=timeout, **sent)
        except httpx.TransportError as error:
            raise Unreachable(f"nothing answers at {url} ({type(error).__name__})", NO_STACK) from None
        if answer.is_success:
            return answer
        message = _message(answer)
        if answer.status_code in (401, 403):
            raise CliError(
                f"the key was refused: {message}",
                "set TUNESTREAM_INFERENCE__API_KEYS to a key of that stack, or give its --state directory",
            )
        if answer.status_code == 404:
            raise NotFound(message)
        if answer.is_server_error:
            kind = Waiting if answer.status_code in (502, 503, 504) else Unreachable
            raise kind(f"{url} answered {answer.status_code}: {message}", "`tunestream status` and `logs` say more")
        raise CliError(message)


def _given(body: Json) -> Json:
    return {name: value for name, value in body.items() if value is not None}


def _object(answer: httpx.Response) -> Json | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _message(answer: httpx.Response) -> str:
    """The message of OpenAI's error envelope, or the beginning of the body if it is something else."""
    error = (_object(answer) or {}).get("error")
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])
    return answer.text.strip()[:200] or answer.reason_phrase


def _data(body: Json) -> list[Json]:
    data = body.get("data")
    if not isinstance(data, list):
        raise CliError("the answer has no list in `data`", "does another program use its port?")
    return data
