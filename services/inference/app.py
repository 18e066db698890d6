"""Puts the parts of the service together: vLLM, the gateway in front of it, and the stage that deploys. No decision is
made here."""

from __future__ import annotations

from services.inference.domain.background import background_requests
from services.inference.errors import ERRORS
from services.inference.gateway import admin, model_routes
from services.inference.gateway.admission import Admission
from services.inference.gateway.asked import BODY_LIMIT
from services.inference.gateway.exchange import GENERATION
from services.inference.gateway.gateway import Gateway
from services.inference.gateway.upstream import GenerationClient
from services.inference.live_check import LiveCheck
from services.inference.registry.adapter_files import AdapterFiles
from services.inference.registry.adapters import Adapters
from services.inference.registry.aliases import Aliases
from services.inference.registry.deletion import Deletion
from services.inference.registry.first_requests import FirstRequests
from services.inference.registry.models import Bases, Models
from services.inference.registry.trained import TrainedModels
from services.inference.registry.watched import DeletedModels, Permissions
from services.inference.trial import Trial
from services.inference.vllm.child import supervised
from services.inference.vllm.clients import make_client
from services.inference.vllm.command import cpu_build, held_adapters, sequences
from services.inference.vllm.gpu_turn import SleepController
from services.inference.vllm.probe import Probe
from services.inference.vllm.server import Vllm
from services.inference.vllm.warm import WarmUp
from services.inference.work import DeployWork
from shared.access.keyring import Keyring
from shared.access.rights import ANY, OPENAI, Line, RightsTable
from shared.http import forward
from shared.http.app import make_http_app
from shared.http.forward import Forwarder, Other
from shared.process import allow_open_files, collect_rarely
from shared.service import Context, Parts, run
from shared.settings import Settings
from shared.stages.gpu_turns import GpuTurns

RIGHTS = RightsTable(
    (
        *OPENAI,
        Line("GET", "/deployments*", ("train",)),
        Line(ANY, "/deployments*", ("admin",)),
    )
)


ABOUT = (
    "OpenAI's chat, completions, embeddings and models, and the aliases of tuned models. What the project of the key "
    "does not have is 404, and so is an unknown path; another method is 405; all in OpenAI's envelope. Files, uploads, "
    "fine-tuning jobs and webhooks are forwarded to the api service, whose document describes them."
)
TAGS = [
    {"name": "generations", "description": "Ask the base, a tuned model, a checkpoint or an alias."},
    {"name": "models", "description": "OpenAI's Models API."},
    {"name": "deployments", "description": "Which model each alias names. To change it, an admin key is needed."},
]


def main() -> None:
    collect_rarely()
    run("inference", build, uvloop=True)


def build(context: Context) -> Parts:
    settings, objects = context.settings, context.objects
    base = settings.model.id
    bases = Bases(base, settings.model.aliases)
    generations = GenerationClient(tls=(settings.vllm.url or "").startswith("https:"))
    control, probes = make_client(100), make_client(4, keep=False)
    forwarder = Forwarder(Other("api", settings.api.url, "TUNESTREAM_API__URL"), forward.CONTROL_PLANE)
    alternate = settings.gpu.share == "alternate"
    start_timeout = settings.inference.start_timeout_seconds
    vllm = (
        Vllm(control, settings.vllm.url, base, start_timeout=start_timeout, awake=not alternate, probes=probes)
        if settings.vllm.url
        else supervised(control, settings, probes)
    )
    turns = GpuTurns(objects.for_leases(), settings.gpu.name, lease_seconds=settings.stage.lease_seconds)
    controller = SleepController(
        vllm,
        turns,
        serve_seconds=settings.gpu.serve_seconds,
        start_timeout=start_timeout,
        poll_seconds=settings.stage.poll_seconds,
    )
    aliases = Aliases(objects)
    deleted = DeletedModels(objects)
    trained = TrainedModels(objects, deleted)
    first_requests = FirstRequests(trained)
    known = Models(
        trained,
        aliases,
        Permissions(objects),
        bases,
        organization=settings.model.organization,
        background=_background(settings),
    )
    files = AdapterFiles(
        objects,
        folder=settings.inference.adapter_dir,
        base=base,
        max_rank=settings.vllm.max_lora_rank,
        retention=settings.retention,
    )
    adapters = Adapters(
        trained,
        vllm,
        files,
        limit=held_adapters(settings),
        named=aliases.models,
        # a CPU compiles nothing
        warm=WarmUp(control, vllm) if settings.vllm.url or not cpu_build() else None,
    )
    trial = Trial(vllm, adapters, LiveCheck(Probe(control, vllm), adapters, settings.render.policy))

    admission = Admission.within(settings.inference.max_generations, allow_open_files)
    app = make_http_app(
        "Tunestream: models and generations",
        Keyring(objects, settings.inference.api_keys),
        rights=RIGHTS,
        organization=settings.model.organization,
        errors=ERRORS,
        # the api service has limits of its own for what is forwarded to it
        limits=dict.fromkeys(GENERATION, BODY_LIMIT) | dict.fromkeys(forward.CONTROL_PLANE),
        own_spans=GENERATION,
        description=ABOUT,
        openapi_tags=TAGS,
        handed_on=forward.CONTROL_PLANE,
    )
    app.include_router(Gateway(generations, vllm, adapters, known, first_requests, admission).router())
    deletion = Deletion(objects, trained, deleted, aliases, adapters, bases)
    app.include_router(model_routes.router(known, deletion))
    app.include_router(admin.router(aliases, known, trial, bases=bases, now=objects.now))
    app.include_router(forwarder.router())

    async def close() -> None:
        await controller.close()
        await vllm.close()
        await generations.close()
        await forwarder.close()
        for used in (control, probes):
            await used.aclose()

    return Parts(
        work=DeployWork(trial, adapters, aliases, first_requests, url=settings.inference.url, now=objects.now),
        app=app,
        address=(settings.inference.host, settings.inference.port),
        background=(vllm.run, adapters.tidy, *((controller.run,) if alternate else ())),
        checks={"vllm": vllm.problem},
        close=close,
    )


def _background(settings: Settings) -> int | None:
    """How many requests that can wait the server should have at a time; None: that is not known."""
    if settings.vllm.url:
        return background_requests(settings.vllm.max_num_seqs, cpu=False)
    cpu = cpu_build()
    return background_requests(sequences(settings, cpu=cpu), cpu=cpu)
