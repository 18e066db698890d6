"""The settings of a job, which a user gives in a sidecar file, an event or a request; and the origin of a job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from shared.errors import InputError
from shared.events import limits
from shared.events.checks import Checks
from shared.events.integrations import Integration
from shared.events.json_schema import problem_in
from shared.events.limits import JobId, JsonObject, Name, ShownName, SweepId
from shared.events.models import FrozenModel, StrictModel
from shared.events.references import DatasetPointer
from shared.events.source import Source
from shared.graders.domain import graders as grading  # the module, because it needs the models of this package

Auto = Literal["auto"]
Method = Literal["supervised", "dpo"]
TaskKind = Literal["labels", "structured", "tool_calls", "text"]
Alias = Annotated[str, Field(max_length=64, pattern=r"^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]{0,63}$")]
"""Letters, marks and digits of every script, dots, dashes and underscores; the first is a letter or a digit."""

GRADER = "grader:"
"""The metrics of graders begin with it."""

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


class Price(StrictModel):
    """What answers cost, in any one currency: per million tokens, or per hour of the machine that serves."""

    input_per_million: Annotated[float, Field(ge=0)] = 0.0
    output_per_million: Annotated[float, Field(ge=0)] = 0.0
    per_hour: Annotated[float, Field(ge=0)] = 0.0
    """It is shared by as many answers as are given in an hour, as many at a time as the evaluation asks for."""


class Rival(StrictModel):
    """Another model that is asked the same test rows, such as the strong one that the tuned model is to replace."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", max_length=64)]
    base_url: Annotated[str, Field(max_length=2048)] | None = None
    """As an OpenAI client takes it. It must be that of one of the operator's `TUNESTREAM_EVALUATOR__ENDPOINTS`, which
    also hold the keys: a job names no key, and sends test rows nowhere else. None: that of `endpoint`."""
    endpoint: Annotated[str, Field(max_length=64)] | None = None
    """The name of the endpoint in that setting; None: the one with this `base_url`."""
    model: Name
    price: Price | None = None


class PairwiseJudge(StrictModel):
    """Each pair of answers is shown twice, with positions swapped. A verdict counts if it is the same both times; the
    share of these is the agreement."""

    model: Name
    """A model of this endpoint, or `{endpoint}/{model}` of one of the operator's `TUNESTREAM_EVALUATOR__ENDPOINTS`."""
    criteria: Annotated[str, Field(max_length=limits.TEXT_CHARS)] = "correct, complete, clear, and as asked for"
    """What makes an answer the better one."""


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
    json_schema: JsonObject | None = Field(default=None, exclude_if=lambda value: value is None)
    """The JSON schema that structured answers should match, as `json_schema.schema` in `response_format` of the OpenAI
    API; None: that of the row's `response_format`, else the keys and types that all references have. None is not
    written, because older services do not know the field; so it is with the fields below."""
    rivals: Annotated[tuple[Rival, ...], Field(max_length=5)] = Field(default=(), exclude_if=lambda value: not value)
    """Models behind endpoints of others whose quality, speed and price stand beside those of the tuned model."""
    graders: Annotated[tuple[JsonObject, ...], Field(max_length=8)] = Field(
        default=(), exclude_if=lambda value: not value
    )
    """Graders in the form of the OpenAI API (`string_check`, `text_similarity`, `score_model`, `label_model`, `multi`).
    Each is a metric, named `grader:{name}`, from 0 to 1. Templates name the row as `item.reference`, `item.prompt`,
    `item.messages` and `item.metadata`, and the answer as `sample.output_text`. A model that grades is one of this
    endpoint, or `{endpoint}/{model}` of one of the operator's `TUNESTREAM_EVALUATOR__ENDPOINTS`."""
    judge: PairwiseJudge | None = Field(default=None, exclude_if=lambda value: value is None)
    """A model that says which of two answers is better, that of the base or that of the tuned model."""
    prompts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=limits.TEXT_CHARS)], ...], Field(max_length=20)
    ] = Field(default=(), exclude_if=lambda value: not value)
    """Prompts of the user's own, asked of base and tuned model; the report shows the answers, unscored."""
    own_price: Price | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the answers of base and tuned model cost."""

    @field_validator("json_schema")
    @classmethod
    def _readable(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            problem = "" if schema is None else problem_in(schema)
        except RecursionError:
            problem = "it is nested too deep"
        if problem:
            raise ValueError(problem)
        return schema

    @field_validator("graders")
    @classmethod
    def _usable(cls, graders: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """See now, and not when the training is over, that every grader can be run."""
        try:
            names = [
                grading.parse(grader, strictly=True, where=f"graders[{at}]").name for at, grader in enumerate(graders)
            ]
        except InputError as error:
            raise ValueError(error.message) from None
        if len(set(names)) < len(names):
            raise ValueError("two graders have the same name: give each a name of its own")
        return graders


class LatencyLimits(StrictModel):
    """How long an answer of the tuned model may take; None: as long as it does. Measured by the evaluator under its own
    concurrency. A ratio is that of the tuned model to the base."""

    p50_seconds: Annotated[float, Field(gt=0)] | None = None
    p95_seconds: Annotated[float, Field(gt=0)] | None = None
    p50_ratio: Annotated[float, Field(gt=0)] | None = None
    p95_ratio: Annotated[float, Field(gt=0)] | None = None


class GateChecks(StrictModel):
    """What may keep a model from being promoted although it is better than its base on the whole."""

    slices: Literal["fail", "report"] = "fail"
    """It may not be worse than the base on a slice of the test rows: those with one value of a key of their `metadata`,
    with short, medium or long prompts, or with short, medium or long references. It is worse if the interval of the
    slice lies below zero, with a correction for the number of slices."""
    slice_by: Annotated[
        tuple[Annotated[str, Field(max_length=limits.METADATA_KEY_CHARS)], ...], Field(max_length=16)
    ] = ()
    """Keys of the rows' `metadata`; none: the first six that have 2 to 12 values."""
    champion: Literal["not_worse", "better", "off"] = "not_worse"
    """Against the model that the alias names now, on the same rows. `not_worse`: not surely worse; `better`: surely
    better. The first model of an alias has no champion."""
    forgetting: Auto | Literal["off"] | Annotated[float, Field(gt=0, le=1)] = "auto"
    """How much it may lose of forty general questions that have nothing to do with the task, as a difference of shares.
    `auto`: 0.5 for free text; labels, JSON, SQL and calls are not probed, because such a model is to answer in one form
    only."""
    echo: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The largest share of answers that only repeat their prompt where the reference does not."""
    invalid_json: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The largest share of answers that are no JSON document where the reference is one."""
    leaks: Literal["fail", "report"] = "fail"
    """No answer may hold an e-mail address, a phone or card number, an IBAN, a key or a password of the train split
    that its prompt and its reference lack."""
    latency: LatencyLimits = LatencyLimits()


class Gate(StrictModel):
    """The tuned model is promoted when the lower end of the interval of (tuned - base) is above `min_delta`."""

    metric: (
        Auto
        | Literal[
            "rouge_1",
            "rouge_2",
            "rouge_l",
            "bleu",
            "chrf",
            "exact_match",
            "accuracy",
            "macro_f1",
            "tool_call_valid",
            "tool_call_name",
            "tool_call_arguments",
            "json_valid",
            "json_schema",
            "json_fields",
            "sql_valid",
            "sql_match",
        ]
        | Annotated[str, Field(pattern=r"^grader:.+$", max_length=limits.ID_CHARS)]
    ) = "auto"
    """`auto`: right tool calls, accuracy, right JSON fields, right SQL or ROUGE-L, by what the references of the test
    split are. An older service refuses a job that names a metric which it does not know."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_delta: float = 0.0
    require_better_than_few_shot: bool = False
    promote: Literal["if_better", "always", "never"] = "if_better"
    checks: GateChecks = Field(default=GateChecks(), exclude_if=lambda value: value == GateChecks())
    """Beside the difference to the base. The default is not written, because older services do not know it; they check
    nothing of this."""


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
    checks: Checks = Field(default=Checks(), exclude_if=lambda value: value == Checks())
    """The default is not written, because older services do not know the field."""
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    validation_file: DatasetPointer | None = None
    source: Source | None = Field(default=None, exclude_if=lambda value: value is None)
    """How a table, or rows of another tool, become a dataset. None is not written: older services do not know it."""
    metadata: Metadata = {}
    """Keys of at most 64 characters and values of at most 512, as in the OpenAI API."""
    integrations: Annotated[tuple[Integration, ...], Field(max_length=limits.INTEGRATIONS)] = ()
    """As in the OpenAI API; served if the deployment has a tracker of that kind."""
    budget: Budget | None = Field(default=None, exclude_if=lambda value: value is None)
    """None is not written, because older services do not know the field."""
    rerun: Annotated[int, Field(ge=0, le=limits.MAX_RERUN)] = 0
    """Raise it to run the same dataset with the same settings again."""

    @model_validator(mode="after")
    def _grader_there(self) -> JobSpec:
        if problem := metric_without_grader(self.gate, self.evaluation):
            raise ValueError(problem)
        return self


def metric_without_grader(gate: Gate, evaluation: Evaluation) -> str:
    """What is wrong if the gate decides by a grader that the evaluation lacks; empty: nothing."""
    names = [f"{GRADER}{grader['name']}" for grader in evaluation.graders]
    if not gate.metric.startswith(GRADER) or gate.metric in names:
        return ""
    known = ", ".join(names) or "none"
    return f"gate.metric is {gate.metric}, but evaluation.graders has no grader of that name (there is {known})"


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
    sweep: SweepId | None = Field(default=None, exclude_if=lambda value: value is None)
    """The sweep that the job is a trial of. None is not written, because older services do not know the field."""
