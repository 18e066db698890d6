"""Every route of both services, and how a request to it names what belongs to a project.

`{file}` stands for the id of a thing: of the sender's own, of another project's, or of one that does not exist.
`{my.file}` is always the sender's own. The words are those of `tests/support/data/project_things.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tests.support.data.project_things import ROWS, Things
from tests.support.data.trained_models import BASE

_NAME = re.compile(r"\{(my\.)?(\w+)\}")


@dataclass(frozen=True)
class Ask:
    """One request. `sent`: its body, as httpx takes it. `works`: the status, or the code of the error, that the owner
    of the thing gets. `shows`: what the owner's answer holds. `anybodys`: why an admin key of another project may do
    this, too."""

    method: str
    path: str
    sent: dict[str, Any] = field(default_factory=dict)
    works: int | str = 200
    shows: str = ""
    anybodys: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.sent or ''}".rstrip()

    def named(self) -> set[str]:
        """The words of the things that it names, but for the sender's own."""
        return {word for my, word in _NAME.findall(f"{self.path} {self.sent}") if not my}

    def filled(self, things: Things, my: Things) -> tuple[str, dict[str, Any]]:
        """Path and body for these things."""
        words = {**things, "my": SimpleNamespace(**my)}
        return self.path.format(**words), _filled(self.sent, words)


def _filled(value: Any, words: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, words) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, words) for inner in value]
    return value.format(**words) if isinstance(value, str) else value


def json(**body: Any) -> dict[str, Any]:
    return {"json": body}


def job(**fields: Any) -> dict[str, Any]:
    """The body of a new job."""
    return json(**{"model": BASE, "training_file": "{my.file}", **fields})


HELLO = [{"role": "user", "content": "hi"}]
JUDGE = {"type": "score_model", "name": "judge", "model": "{model}", "input": HELLO, "range": [0, 1]}
EVERY_PROJECT = "keys are for the administrator, who has all projects"
JOBS = ("job", "spare_job", "running", "failed", "asked")
"""A job in each state."""
FILES = ("file", "result_file")
MODELS = ("model", "checkpoint_model", "alias")

NATIVE = [
    *(Ask("GET", f"/jobs/{{{each}}}") for each in JOBS),
    Ask("GET", "/jobs", shows="job"),
    Ask("GET", "/jobs?status=succeeded", shows="job"),
    Ask("GET", "/jobs?after={asked}", shows="job"),
    *(Ask("GET", f"/jobs/{{{each}}}/events") for each in JOBS),
    Ask("GET", "/jobs/{my.job}/events?after={event}&order=asc"),
    Ask("GET", "/jobs/{job}/report"),
    *(Ask("GET", f"/jobs/{{job}}/files/{each}") for each in ("report.json", "results.csv", "curves.png")),
    Ask("GET", "/jobs/{job}/files/nothing", works="file_not_found"),
    Ask("POST", "/jobs/{job}/pause", works="job_finished"),
    Ask("POST", "/jobs/{running}/pause"),
    Ask("POST", "/jobs/{running}/resume"),
    Ask("POST", "/jobs/{job}/resume", works="job_finished"),
    Ask("POST", "/jobs/{asked}/cancel"),
    Ask("POST", "/jobs/{job}/cancel", works="job_finished"),
    Ask("POST", "/jobs/{failed}/retry"),
    Ask("POST", "/jobs/{job}/retry", json(**{"from": "trainer"})),
]

SWEEPS = [
    Ask("GET", "/sweeps", shows="sweep"),
    Ask("GET", "/sweeps?after={sweep}"),
    Ask("GET", "/sweeps/{sweep}"),
    Ask("GET", "/sweeps/{sweep}/report"),
    Ask("POST", "/sweeps", json(training_file="{file}")),
    Ask("POST", "/sweeps", json(training_file="{my.file}", validation_file="{validation}")),
    Ask("POST", "/sweeps", json(training_file="{my.file}", spec={"model": "{model}"})),
    Ask("POST", "/sweeps/{sweep}/cancel"),
]

FINE_TUNING = [
    *(Ask("GET", f"/v1/fine_tuning/jobs/{{{each}}}") for each in JOBS),
    Ask("GET", "/v1/fine_tuning/jobs", shows="job"),
    Ask("GET", "/v1/fine_tuning/jobs?after={asked}", shows="job"),
    Ask("GET", "/v1/fine_tuning/jobs?metadata[team]={team}", shows="job"),
    *(Ask("GET", f"/v1/fine_tuning/jobs/{{{each}}}/events") for each in JOBS),
    Ask("GET", "/v1/fine_tuning/jobs/{my.job}/events?after={event}"),
    Ask("GET", "/v1/fine_tuning/jobs/{job}/checkpoints", shows="checkpoint_model"),
    Ask("GET", "/v1/fine_tuning/jobs/{my.job}/checkpoints?after={checkpoint}"),
    Ask("POST", "/v1/fine_tuning/jobs", job(training_file="{file}")),
    Ask("POST", "/v1/fine_tuning/jobs", job(validation_file="{validation}")),
    Ask("POST", "/v1/fine_tuning/jobs", job(model="{model}")),
    Ask("POST", "/v1/fine_tuning/jobs", job(model="{checkpoint_model}")),
    Ask("POST", "/v1/fine_tuning/jobs/{running}/pause"),
    Ask("POST", "/v1/fine_tuning/jobs/{running}/resume"),
    Ask("POST", "/v1/fine_tuning/jobs/{running}/cancel"),
    Ask("POST", "/v1/fine_tuning/jobs/{failed}/cancel", works="job_finished"),
    Ask("POST", "/v1/fine_tuning/jobs/{failed}/pause", works="job_finished"),
    Ask("POST", "/v1/fine_tuning/jobs/{failed}/resume", works="job_finished"),
]

GRADERS = [
    Ask(
        "POST",
        "/v1/fine_tuning/alpha/graders/run",
        json(grader=JUDGE, model_sample="hello"),
        shows='"model_grader_parse_error":true',
    ),
]

STORED_FILES = [
    *(Ask("GET", f"/v1/files/{{{each}}}") for each in FILES),
    *(Ask("GET", f"/v1/files/{{{each}}}/content") for each in FILES),
    Ask("GET", "/v1/files/{result_file}/content?encoding=base64"),
    Ask("GET", "/v1/files", shows="file"),
    Ask("GET", "/v1/files?purpose=fine-tune-results", shows="result_file"),
    Ask("GET", "/v1/files?after={file}&order=desc", shows="result_file"),
    Ask("GET", "/v1/files?after={result_file}&order=asc", shows="file"),
    Ask("POST", "/v1/uploads/{other_upload}/parts", {"files": {"data": ROWS}}),
    Ask("POST", "/v1/uploads/{upload}/complete", json(part_ids=["{my.part}"], md5="0" * 32), works="wrong_md5"),
    Ask("POST", "/v1/uploads/{my.upload}/complete", json(part_ids=["{part}"])),
    Ask("POST", "/v1/uploads/{upload}/complete", json(part_ids=["{part}"])),
    Ask("POST", "/v1/uploads/{other_upload}/cancel"),
    *(Ask("DELETE", f"/v1/files/{{{each}}}") for each in ("other_file", "result_file")),
]

PERMISSIONS = [
    *(Ask("GET", f"/v1/fine_tuning/checkpoints/{{{each}}}/permissions") for each in ("model", "checkpoint_model")),
    Ask("GET", "/v1/fine_tuning/checkpoints/{model}/permissions?project_id=guests", shows="permission"),
    Ask("GET", "/v1/fine_tuning/checkpoints/{my.model}/permissions?after={permission}"),
    Ask("POST", "/v1/fine_tuning/checkpoints/{model}/permissions", json(project_ids=["second"])),
    Ask("POST", "/v1/fine_tuning/checkpoints/{checkpoint_model}/permissions", json(project_ids=["second"])),
    Ask("DELETE", "/v1/fine_tuning/checkpoints/{my.model}/permissions/{permission}"),
    Ask("DELETE", "/v1/fine_tuning/checkpoints/{model}/permissions/{my.permission}", works="permission_not_found"),
]

WEBHOOKS = [
    Ask("GET", "/v1/webhook_endpoints", shows="endpoint"),
    Ask("GET", "/v1/webhook_endpoints?after={endpoint}"),
    Ask("GET", "/v1/webhook_endpoints/{endpoint}"),
    Ask("POST", "/v1/webhook_endpoints/{endpoint}", json(name="renamed")),
    Ask("POST", "/v1/webhook_endpoints/{endpoint}/rotate_secret"),
    Ask(
        "POST",
        "/v1/webhook_endpoints/{endpoint}/test",
        json(event_type="fine_tuning.job.failed"),
        works="webhook_endpoint_unreachable",
    ),
    Ask("DELETE", "/v1/webhook_endpoints/{endpoint}"),
]

MODELS_SERVED = [
    Ask("GET", "/v1/models", shows="model"),
    *(Ask("GET", f"/v1/models/{{{each}}}") for each in MODELS),
    *(Ask("POST", "/v1/chat/completions", json(model=f"{{{each}}}", messages=HELLO)) for each in MODELS),
    *(Ask("POST", "/v1/chat/completions", json(model=f"{{{each}}}", messages=HELLO, stream=True)) for each in MODELS),
    *(Ask("POST", "/v1/completions", json(model=f"{{{each}}}", prompt="hi")) for each in MODELS),
    *(Ask("POST", "/v1/embeddings", json(model=f"{{{each}}}", input="hi"), "unsupported_endpoint") for each in MODELS),
    Ask("DELETE", "/v1/models/{alias}", works="not_a_tuned_model"),
    Ask("DELETE", "/v1/models/{model}", works="model_deployed"),
    *(Ask("DELETE", f"/v1/models/{{{each}}}") for each in ("checkpoint_model", "spare_model")),
]

DEPLOYMENTS = [
    Ask("GET", "/deployments", shows="alias"),
    Ask("GET", "/deployments/{alias}"),
    *(Ask("POST", "/deployments/{my.alias}", json(model=f"{{{each}}}")) for each in MODELS),
    Ask("POST", "/deployments/{my.alias}", json(model="{my.spare_model}", expected="{checkpoint_model}")),
    Ask("POST", "/deployments/{my.alias}/rollback", json(to="{checkpoint_model}")),
    Ask("POST", "/deployments/{alias}/rollback", json(to="{my.model}")),
]

KEYS = [
    Ask("GET", "/keys", shows="key", anybodys=EVERY_PROJECT),
    Ask("GET", "/keys?after={key}", anybodys=EVERY_PROJECT),
    Ask("GET", "/keys/{key}", anybodys=EVERY_PROJECT),
    Ask("DELETE", "/keys/{key}", anybodys=EVERY_PROJECT),
]

SAME_NAMES = [
    # another project may have an alias of the same name, so from here on there is one
    Ask("POST", "/deployments/{alias}", json(model=BASE)),
]

MATRIX = [
    *(
        *NATIVE,
        *SWEEPS,
        *FINE_TUNING,
        *GRADERS,
        *STORED_FILES,
        *PERMISSIONS,
        *WEBHOOKS,
        *DEPLOYMENTS,
        *MODELS_SERVED,
        *SAME_NAMES,
        *KEYS,
    ),
]
"""What reads comes before what changes something, and what deletes comes last: the owner asks in this order."""

NAMES_NOTHING = {
    "POST /v1/files": "makes a file, in the project of the key",
    "POST /v1/uploads": "begins an upload, in the project of the key",
    "POST /v1/webhook_endpoints": "makes an endpoint, in the project of the key",
    "GET /v1/webhook_event_types": "tells what every project is told",
    "POST /v1/fine_tuning/alpha/graders/validate": "looks at the form of a grader, and at nothing that it names",
    "POST /keys": "makes a key; only an administrator may",
}
"""The routes whose requests can name nothing that exists, and why."""
