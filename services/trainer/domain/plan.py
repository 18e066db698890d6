"""The plan: one JSON file with all that the training process needs to know, so that a person can start it by hand,
too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from shared.errors import InputError
from shared.events import Auto, Budget, Hyperparameters, Lora, Method, Served, StrictModel


class Base(StrictModel):
    """The base of the run. `id` is its public name; `location` a local folder, or a name on a hub."""

    id: str
    location: str


class Switches(StrictModel):
    """Pieces of the engine to try with or without; None: the recipe decides."""

    fused_lora: bool | None = None
    cuda_graphs: bool | None = None
    liger: bool | None = None
    sharded: bool | None = None
    """Whether the processes of a training divide the base among them."""
    offload: bool | None = None
    """Whether the inputs of recomputed layers are kept in the memory of the host."""


class Plan(StrictModel):
    """One training run. Paths are relative to the working directory of the process."""

    job_id: str
    model: str
    """The id of the tuned model."""
    base: Base
    method: Method = "supervised"
    format: Literal["chat", "completion", "preference"] = "chat"
    train: str
    validation: str | None = None
    rows: str | None = None
    """A digest of both files. A checkpoint of another job with the same rows may be continued; None: only one of the
    same job."""
    hyperparameters: Hyperparameters = Hyperparameters()
    lora: Lora = Lora()
    budget: Budget | None = None
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """For a budget of money."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """What the chat template is given beside messages and tools; the server is started with the same."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """How many tokens a row may have, as the validate stage decided; None: the process decides."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    train_examples: int | None = None
    """Rows and tokens that the validate stage counted, for readers of the plan; the process counts them itself."""
    train_tokens: int | None = None
    served: Served | None = None
    """How the rows compare with what the server makes of them, for the model card."""
    max_lora_rank: Annotated[int, Field(ge=1)] = 64
    """The highest rank that the server accepts."""
    served_linears: tuple[str, ...] | None = None
    """The last names of the layers that the server can change by an adapter (`q_proj`); None: it was not asked."""
    served_memory: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of the GPU's memory that a model server may have; what others hold beyond it is an outage."""
    resume_from: str | None = None
    """A checkpoint, or a folder of `step-N` checkpoints, of which the newest complete one is used."""
    start_from: str | None = None
    """A folder with the adapter of an earlier run on the same base, in PEFT's format; None: a fresh adapter."""
    encoded: str | None = None
    """A folder that keeps the tokens of both files for other runs on the same rows; None: they are not kept."""
    speeds: str | None = None
    """A file that keeps what trainings took on this machine, for the estimates of others; None: it is not kept."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: Auto | Annotated[int, Field(ge=1)] = 1
    """On how many GPUs the run computes, with one process for each (on a CPU: how many processes). `auto`: all that are
    visible, but no more than a batch has rows."""
    threads: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Auto | Annotated[int, Field(ge=1)] = "auto"
    eval_every: Auto | Annotated[int, Field(ge=1)] = "auto"
    switches: Switches = Switches()
    lean: bool = False
    """Whether activations are recomputed also where they would fit. For measurements: no job asks for it."""
    packed: bool = True
    """Whether a row may have several documents where the base allows it. For measurements, too."""

    compute: Literal["float32", "bfloat16"] | None = None
    """What the base computes in, as the leader of several processes has chosen; None: the process chooses."""

    def as_chosen(self, quantization: str, compute: str, *, sharded: bool) -> Plan:
        """The plan of the processes that train beside the one that has chosen these."""
        lora = self.lora.model_copy(update={"quantization": quantization})
        switches = self.switches.model_copy(update={"sharded": sharded})
        return self.model_copy(update={"lora": lora, "compute": compute, "switches": switches})

    def identity(self) -> dict[str, Any]:
        """What two plans must have in common for one to continue from a checkpoint of the other. Paths, the device and
        how often checkpoints are written may differ."""
        may_differ = {
            "base",
            "train",
            "validation",
            "train_examples",
            "train_tokens",
            "served",
            "max_lora_rank",
            "served_memory",
            "served_linears",  # a checkpoint is compared with the adapter itself
            "resume_from",
            "start_from",
            "encoded",
            "speeds",
            "budget",
            "price_per_gpu_hour",
            "device",
            "gpus",
            "threads",
            "checkpoint_every",
            "switches",
            "compute",  # a checkpoint has the type that it was made with
            "lean",  # a checkpoint has the fit that it was made with
        }
        # checkpoints of older versions do not name these
        if not self.chat_template_kwargs:
            may_differ.add("chat_template_kwargs")
        if self.packed:
            may_differ.add("packed")
        identity: dict[str, Any] = self.model_dump(mode="json", exclude=may_differ)
        return {**identity, "base": self.base.id}


def parse_plan(text: str | bytes) -> Plan:
    """Read a plan.

    Raises:
        InputError: `invalid_plan`, naming each field that is wrong.
    """
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        wrong = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'plan'}: {problem['msg']}" for problem in problems)
        first = ".".join(map(str, problems[0]["loc"])) or None
        raise InputError("invalid_plan", f"the training plan is wrong: {wrong}", first) from None
