"""The sections of the settings: one class per concern."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from shared.base.override import ProfileOverride
from shared.errors import InputError
from shared.settings.endpoints import ForeignEndpoint
from shared.settings.values import ApiKeys, ReadableFile, json_object


class Section(BaseModel):
    """The base class of sections: frozen, and an unknown field is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=(), allow_inf_nan=False
    )


class BusSettings(Section):
    """Kafka, or anything that speaks its protocol."""

    bootstrap: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ca_file: ReadableFile | None = None
    """A PEM file of the CAs that verify the certificates of the brokers; None: those that the system trusts."""
    cert_file: ReadableFile | None = None
    """Our own certificate (PEM), if the brokers ask for one; `key_file` holds its key."""
    key_file: ReadableFile | None = None
    idempotent: bool = True
    """Switch it off only for a broker that refuses `InitProducerId`, as Tansu does."""
    partitions: int = 6
    fetch_max_wait_ms: int = 500
    """How long the broker holds a fetch that finds no messages. Tansu holds it
    for half of this time even if messages arrive: set 250 there."""
    session_timeout_ms: int = 10_000
    """How long a dead consumer keeps its partitions. Tansu also holds each join of a group for half of it."""
    publish_seconds: float = Field(10.0, gt=0)
    """Publishing an event ends after this time, whatever becomes of the broker. Whoever publishes tries again later."""
    retry_pause_seconds: float = 5.0
    """After an outage in its handler, a message is delivered again when this pause is over."""
    redelivery_hours: float = Field(24.0, gt=0)
    """A message that could not be handled for so long, because something is away, becomes a dead letter, so that the
    messages behind it are read. The time counts from when this process first saw the message."""

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @model_validator(mode="after")
    def _consistent(self) -> BusSettings:
        """Refuse a setting that would have no effect, because its user believes that it protects the connection."""
        protocol = f"TUNESTREAM_BUS__SECURITY_PROTOCOL is {self.security_protocol}"
        user, password = self.sasl_username, self.sasl_password and self.sasl_password.get_secret_value()
        if self.uses_sasl and not (user and password):
            missing = "TUNESTREAM_BUS__SASL_PASSWORD" if user else "TUNESTREAM_BUS__SASL_USERNAME"
            raise ValueError(f"{protocol}, so {missing} is needed")
        if not self.uses_sasl and (user or password):
            name = "TUNESTREAM_BUS__SASL_USERNAME" if user else "TUNESTREAM_BUS__SASL_PASSWORD"
            raise ValueError(f"{name} is set, but {protocol}: set it to SASL_SSL (or SASL_PLAINTEXT)")
        for name, file in (("CA_FILE", self.ca_file), ("CERT_FILE", self.cert_file), ("KEY_FILE", self.key_file)):
            if file and not self.uses_tls:
                raise ValueError(f"TUNESTREAM_BUS__{name} is set, but {protocol}: set it to SASL_SSL or SSL")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("TUNESTREAM_BUS__CERT_FILE and TUNESTREAM_BUS__KEY_FILE belong together: set both")
        return self


class StoreSettings(Section):
    """MinIO, or any S3 with conditional writes."""

    endpoint: str = "http://127.0.0.1:9000"
    access_key: str = "tunestream"
    secret_key: SecretStr = SecretStr("tunestream-secret")
    region: str = "us-east-1"
    datasets_bucket: str = "datasets"
    system_bucket: str = "tunestream"
    ca_file: ReadableFile | None = None
    """A PEM file of the CAs that verify the certificate of the store; None: those that the system trusts."""

    @model_validator(mode="after")
    def _consistent(self) -> StoreSettings:
        if self.ca_file and not self.endpoint.startswith("https://"):
            raise ValueError(
                "TUNESTREAM_STORE__CA_FILE is set, but TUNESTREAM_STORE__ENDPOINT is no https:// address: give one"
            )
        return self


class ModelSettings(Section):
    """The base model that is served and tuned."""

    id: str = "Qwen/Qwen2.5-0.5B-Instruct"
    """The id of the base, by which users and vLLM know it."""
    path: str | None = None
    """A local folder to load the base from; None: load it from the hub by its id."""
    allowed: tuple[str, ...] = ()
    """Further bases that jobs could name if they were served. The inference service serves one base, also with
    `vllm.url`, so a job for any of them is refused, with a message that names this setting."""
    profile: Annotated[ProfileOverride, NoDecode, BeforeValidator(json_object)] = ProfileOverride()
    """What is set of the base's profile, as a JSON object: `{"reasoning_parser": "qwen3"}`. All services and vLLM need
    the same."""
    aliases: Annotated[dict[str, str], NoDecode, BeforeValidator(json_object)] = {}
    """Names of other systems and the base that each stands for, as a JSON object:
    `{"gpt-4o-mini-2024-07-18": "Qwen/Qwen2.5-0.5B-Instruct"}`."""
    organization: str = "tunestream"
    """The `{org}` of `ft:{base}:{org}:{suffix}:{8 chars}`."""

    @property
    def location(self) -> str:
        return self.path or self.id

    def base_of(self, asked: str | None) -> str:
        """The base of a job that names the model `asked`, or none.

        Only the base that the inference service serves can be tuned: another could be trained, but neither evaluated
        nor served, and the job would fail when all GPU time is spent.

        Raises:
            InputError: `model_not_found`: this model may not be tuned here.
        """
        if not asked or asked == self.id:
            return self.id
        allowed = " TUNESTREAM_MODEL__ALLOWED names it, but that has no effect yet." if asked in self.allowed else ""
        raise InputError(
            "model_not_found",
            f"The model {asked} cannot be fine-tuned here: only {self.id} is served, so no other could be evaluated."
            f"{allowed} Leave `model` out, or start a stack with TUNESTREAM_MODEL__ID={asked}.",
            "model",
        )

    def location_of(self, base: str) -> str:
        """Where the base of a job is loaded from: a local folder, or a name on a hub.

        Raises:
            InputError: `model_not_found`: this model may not be tuned here.
        """
        self.base_of(base)
        return self.location


class StageSettings(Section):
    """The stage protocol: leases and retries."""

    lease_seconds: float = 15.0
    poll_seconds: float = 2.0
    discover_seconds: float = 30.0
    """How often the index of open work is listed for what no event announced. While work is open, or the bus is away,
    it is listed every `poll_seconds`."""
    concurrency: int = 1
    max_bugs: int = 3
    """Attempts that may end in an unexpected exception before the job fails."""
    max_deaths: int = 10
    """Attempts whose process may die before the job fails, because a job that kills its worker must not do so
    forever."""
    max_backoff_seconds: float = 60.0


class ValidationSettings(Section):
    """The limits of the validator."""

    max_line_bytes: int = 16 * 2**20
    max_problems: int = 1000


class TrainerSettings(Section):
    """The training process."""

    gpu: str | None = None
    """`CUDA_VISIBLE_DEVICES` of the training process; None: leave it as it is; `cpu`: train without a GPU."""
    gpus: Literal["auto"] | Annotated[int, Field(ge=1)] = 1
    """Of the GPUs that the training process sees, how many one training uses; `auto`: all. Without a GPU it has no
    meaning."""
    threads: int | None = None
    """CPU threads of the training process; None: torch decides."""
    work_dir: Path = Path(".tunestream/trainer")
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of one GPU of this machine costs, or of the machine if it has none, for budgets of money; None: not
    known."""
    keep_checkpoints: int = 1
    """Of the checkpoints to continue from, how many stay in the store; the listed ones all stay."""
    process_ahead: bool = True
    """Keep a process that has imported its libraries before a job comes: it holds about 0.5 GB of memory, and nothing
    of a GPU."""


class GpuSettings(Section):
    """A GPU that training and vLLM share. With a GPU for each, nothing needs to be set here."""

    share: Literal["split", "alternate"] = "split"
    """`split`: both at once, vLLM within `vllm.gpu_memory_utilization` and the trainer within the free memory.
    `alternate`: one at a time; during a training vLLM sleeps or is stopped, and requests get 503 with `retry-after`."""
    name: str = Field(default="0", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The GPU of `alternate`: a name that is unique in the object store and the same for trainer and inference."""
    serve_seconds: float = 300.0
    """The shortest time, in seconds, that vLLM serves between two trainings (`alternate`)."""


class VllmSettings(Section):
    """The vLLM server behind the inference service."""

    url: str | None = None
    """A vLLM server that shares `adapter_dir`; None: the inference service starts and supervises one itself."""
    host: str = "127.0.0.1"
    """The address on which `python -m services.inference.vllm` listens. A supervised server listens on loopback."""
    port: int = 0
    """The port of the server; 0: a free port if it is supervised, else 8000."""
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 64
    max_loras: int = 4
    max_model_len: int | None = None
    max_num_seqs: int | None = Field(default=None, ge=1)
    """How many requests the server computes at a time; the others wait. None: 256 on a GPU, and vLLM's own default on a
    CPU. Of a server behind `url` it is not known unless it is set, and evaluations then ask 16 at a time."""
    dtype: str = "bfloat16"
    gpu_memory_utilization: float = 0.6
    """vLLM's share of the GPU's memory (`gpu.share = split`)."""
    cpu_kv_cache_gib: int = 1
    extra_args: tuple[str, ...] = ()


class RenderSettings(Section):
    """The render server: vLLM's handling of requests without a model. It tells which tokens the server makes of a
    request, and which message it makes of tokens."""

    url: str | None = None
    """Where validate finds it; None: no server is asked, and the report says so."""
    host: str = "127.0.0.1"
    """The address on which `python -m services.inference.vllm.render` listens."""
    port: int = 8001
    policy: Literal["fail", "warn"] = "fail"
    """What a difference between our tokens and the server's does: it ends the job, or the report names it."""
    rows: int = Field(default=2000, ge=1)
    """How many rows are asked for; of a larger dataset, a sample of so many."""
    start_timeout_seconds: float = 120.0
    """How long validate waits for a render server that does not answer yet: it may be starting."""


class InferenceSettings(Section):
    """The inference service: the HTTP endpoint for models."""

    host: str = "127.0.0.1"
    port: int = 8000
    url: str = "http://127.0.0.1:8000"
    """The URL at which others reach this service, without `/v1`."""
    api_keys: ApiKeys = Field(default=(), repr=False)
    """The accepted bearer tokens; empty: requests need none."""
    adapter_dir: Path = Path(".tunestream/adapters")
    start_timeout_seconds: float = 600.0
    max_generations: int = Field(default=4096, ge=1)
    """Generations under way at a time, also those that wait in vLLM's own queue. The next one is answered at once with
    429 and `retry-after`. Each needs two open files."""


class EvaluatorSettings(Section):
    """The evaluator as a client of the endpoint."""

    api_key: SecretStr | None = None
    timeout_seconds: float = 300.0
    endpoints: Annotated[dict[str, ForeignEndpoint], NoDecode, BeforeValidator(json_object)] = {}
    """By name, the endpoints of others that jobs may name as rivals: `{"name": {"base_url": …, "api_key": …}}`."""


class ApiSettings(Section):
    """The api service: files and jobs over HTTP."""

    host: str = "127.0.0.1"
    port: int = 8080
    url: str = "http://127.0.0.1:8080"
    database: Path = Path(".tunestream/api.sqlite3")
    largest_file: int = Field(default=8 * 2**30, ge=1, le=64 * 2**30)
    """Bytes that a file of the Files API may have; a larger one is answered with 413."""


class RetentionSettings(Section):
    """For how long is kept what nobody needs any more. What is deployed, under an alias, or listed as a checkpoint
    stays, whatever its age."""

    attempt_days: float = Field(default=7.0, ge=0)
    """Folders of attempts that decided nothing, after their job has ended."""
    report_days: float | None = Field(default=None, ge=0)
    """Evaluation reports and answers of models that no alias names; None: as long as their job."""
    inbox_days: float = Field(default=7.0, ge=0)
    """What ingest keeps of announcements that it has handled."""
    adapters: int = Field(default=50, ge=1)
    """Adapters on the disk of inference, besides those that are loaded or under an alias. The least recently used go
    first."""
    adapter_days: float = Field(default=30.0, ge=0)
    """Adapters on the disk of inference that nobody has asked for so long."""


class JanitorSettings(Section):
    """The janitor, a role of the api service: it alone deletes."""

    access_key: str | None = None
    """Its own user of the object store; None: that of the api service, which may not delete in the full stack."""
    secret_key: SecretStr | None = None
    tombstones_seconds: float = Field(default=60.0, gt=0)
    """How often it looks for tombstones."""
    sweep_seconds: float = Field(default=21_600.0, gt=0)
    """How often it walks through all jobs: for what the retention policy gives up, and for open work that the index
    lacks."""


class WebhookSettings(Section):
    """Webhooks, which the api service sends when jobs end."""

    private_addresses: bool = True
    """Whether they may be sent to loopback and to private networks, where receivers of one's own are. False: only to
    the internet, for a service whose users must not reach its network. Link-local addresses are always refused."""


class HealthSettings(Section):
    """The private address at which each service answers /health and /metrics, without a key."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: a free port."""


class TelemetrySettings(Section):
    """Where traces go, and how much is logged."""

    otlp_endpoint: str | None = None
    """OTLP over gRPC, for example http://127.0.0.1:4317; None: no traces are exported."""
    jaeger_url: str | None = None
    """The Jaeger that `tunestream trace` reads and links to, for example http://127.0.0.1:16686."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
