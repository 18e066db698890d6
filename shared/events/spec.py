"""The settings of a job, which a user gives in a sidecar file, an event or a request; and the origin of a job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.events import limits
from shared.events.limits import JobId, Name, ShownName
from shared.events.models import FrozenModel, StrictModel
from shared.events.references import DatasetPointer

Auto = Literal["auto"]
Method = Literal["supervised", "dpo"]
Alias = Annotated[str, Field(max_length=64, pattern=r"^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]{0,63}$")]
"""Letters, marks and digits of every script, dots, dashes and underscores; the first is a letter or a digit."""

Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=limits.METADATA_KEY_CHARS)],
        Annotated[str, Field(max_length=limits.METADATA_VALUE_CHARS)],
    ],
    Field(max_length=limits.METADATA_ENTRIES),
]


class Hyperparameters(StrictModel):
    """The trainer chooses the `auto` values by the size of the dataset and records its reasons."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] = "auto"
    learning_rate: Auto | Annotated[float, Field(gt=0, le=1)] = "auto"
    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"
    max_length: Auto | Annotated[int, Field(ge=8, le=limits.MAX_TOKENS)] = "auto"
    over_length: Literal["drop", "truncate", "fail"] = "drop"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """With the default, the trainer chooses: at least five steps, or a tenth of all for preference pairs."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, le=1e12)] = 1.0
    """A large number, such as 1e9, cuts no gradient."""
    early_stopping_patience: Annotated[int, Field(ge=0, le=1_000_000)] = 3
    """Validations without improvement before training stops, if the last is worse than the best by more than noise; 0
    never stops early. With the default, only if there are 30 validation rows or more."""


class Lora(StrictModel):
    """The adapter: its rank `r`, its scaling `alpha`, the layers that it changes, and the quantization of the base."""

    r: Auto | Literal[1, 8, 16, 32, 64, 128, 256] = "auto"
    alpha: Auto | Annotated[int, Field(ge=1, le=65_536)] = "auto"
    use_rslora: Auto | bool = Field(default="auto", exclude_if=lambda value: value == "auto")
    """Rank-stabilized LoRA (arXiv 2312.03732): the adapter is scaled by alpha / sqrt(r) instead of alpha / r, so that
    high ranks learn as much as low ones. `auto`: no, or as the model that training starts from. `auto` is not written,
    because older services do not know the field."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: (
        Literal["all-linear"]
        | Annotated[
            tuple[Annotated[str, Field(max_length=limits.MODULE_CHARS)], ...],
            Field(max_length=limits.TARGET_MODULES),
        ]
    ) = "all-linear"
    quantization: Auto | Literal["nf4", "fp8", "none"] = Field(default="auto", exclude_if=lambda value: value == "auto")
    """Of the base while it trains. `none` is bf16, as it is served (on a CPU maybe float32; results say which).
    `auto`: `none` on a GPU that has the memory for it, else `nf4`; results say which. `fp8` needs compute capability
    8.9. `auto` is not written, because older services do not know it; they train in `nf4`, as ever."""


class Splits(StrictModel):
    """Shares of the dataset; the rest is trained on. A validation file replaces the validation share."""

    validation: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(ge=0, lt=0.5)] = 0.1


class Evaluation(StrictModel):
    """How many test examples are asked of base, few-shot and tuned model, and how."""

    max_examples: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    few_shot: Annotated[int, Field(ge=0, le=20)] = 3
    max_tokens: Auto | Annotated[int, Field(ge=1, le=limits.MAX_TOKENS)] = "auto"
    """The most tokens of an answer; `auto`: what the longest reference of the test split needs, with head room."""
    concurrency: Auto | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto", exclude_if=lambda value: value == "auto"
    )
    """How many answers are asked for at a time; `auto`: as many as the endpoint has room for beside its users. `auto`
    is not written, because older services do not know it; they ask for 16."""


class Gate(StrictModel):
    """The tuned model is promoted when the lower end of the interval of (tuned - base) is above `min_delta`."""

    metric: (
        Auto
        | Literal[
            "rouge_1",
            "rouge_2",
            "rouge_l",
            "exact_match",
            "accuracy",
            "macro_f1",
            "tool_call_valid",
            "tool_call_name",
            "tool_call_arguments",
        ]
    ) = "auto"
    """`auto`: right tool calls, accuracy or ROUGE-L, by what the references of the test split are."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_delta: float = 0.0
    require_better_than_few_shot: bool = False
    promote: Literal["if_better", "always", "never"] = "if_better"


class Budget(StrictModel):
    """What the training of a job may spend, all attempts together. It is refused before its first step if it is
    estimated to take more, and ends with a checkpoint when it has taken as much. A retry may spend as much again."""

    seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    gpu_hours: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Hours times the number of GPUs (on a CPU: of processes)."""
    tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Of all epochs, without padding."""
    money: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """In the currency of `TUNESTREAM_TRAINER__PRICE_PER_GPU_HOUR`, without which the job is refused."""


class Wandb(StrictModel):
    """A run in Weights & Biases: its project, and what it is called there."""

    project: Annotated[str, Field(max_length=limits.INTEGRATION_CHARS)]
    name: Annotated[str, Field(max_length=limits.INTEGRATION_CHARS)] | None = None
    """None: the id of the job."""
    entity: Annotated[str, Field(max_length=limits.INTEGRATION_CHARS)] | None = None
    """A team or a user; None: that of the key."""
    tags: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=50)] = ()


class Integration(StrictModel):
    """Another system that is told of the training."""

    type: Literal["wandb"]
    wandb: Wandb


class JobSpec(StrictModel):
    """Everything that a user may set for a job. Every field has a default."""

    model: Name | None = None
    """The base model to tune, or the id of a tuned model (`ft:…`), from whose adapter the training then starts; None:
    the default base of the deployment."""
    method: Method | None = None
    """None: decided by the rows (preference pairs are `dpo`, everything else is `supervised`)."""
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    alias: Alias | None = None
    """The name behind which a promoted model answers, in lower case; default: suffix, else folders and name of the
    dataset's file."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    hyperparameters: Hyperparameters = Hyperparameters()
    lora: Lora = Lora()
    splits: Splits = Splits()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    validation_file: DatasetPointer | None = None
    metadata: Metadata = {}
    """Keys of at most 64 characters and values of at most 512, as in the OpenAI API."""
    integrations: Annotated[tuple[Integration, ...], Field(max_length=limits.INTEGRATIONS)] = ()
    """As in the OpenAI API; served if the deployment has a tracker of that kind."""
    budget: Budget | None = Field(default=None, exclude_if=lambda value: value is None)
    """None is not written, because older services do not know the field."""
    rerun: Annotated[int, Field(ge=0, le=limits.MAX_RERUN)] = 0
    """Raise it to run the same dataset with the same settings again."""


class Origin(FrozenModel):
    """How the job came to be, and its lineage."""

    kind: Literal["drop", "event", "api", "retrain"] = "drop"
    source: ShownName = ""
    """Where it came from, such as the `ce_source` of an event; what is longer is cut."""
    parent_job: JobId | None = None
    """The job that this one is a retry of."""
    parent_version: Name | None = None
    from_stage: Name | None = None
    """The stage that a retry begins from: the results of the stages before it are those of `parent_job`."""
