"""The graders that a client may describe, in OpenAI's form, and what is wrong with one that cannot be used.

Every error names the field (`grader.graders.style.reference`) and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from shared.errors import InputError
from shared.events.models import StrictModel
from shared.graders.domain import formula, templates
from shared.graders.domain.formula import BadFormula
from shared.graders.domain.templates import BadTemplate

MAX_NAME = 256
MAX_TEMPLATE = 2**18
MAX_MESSAGES = 64
MAX_PARTS = 64
MAX_LABELS = 256
MAX_GRADERS = 16

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Template = Annotated[str, Field(max_length=MAX_TEMPLATE)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Integer = Annotated[int, Field(strict=True)]


class _Grader(StrictModel):
    name: Name
    pass_threshold: Number | None = None
    """The least score that passes, of a criterion of an evaluation. It has no effect here."""


class StringCheck(_Grader):
    """1.0 or 0.0: the texts are equal (`eq`), or not (`ne`); the input contains the reference, with the same case
    (`like`), or with any (`ilike`)."""

    type: Literal["string_check"]
    input: Template
    reference: Template
    operation: Literal["eq", "ne", "like", "ilike"]


Similarity = Literal[
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class TextSimilarity(_Grader):
    """How alike two texts are, from 0 to 1."""

    type: Literal["text_similarity"]
    input: Template
    reference: Template
    evaluation_metric: Similarity

    @field_validator("evaluation_metric")
    @classmethod
    def _there(cls, metric: Similarity) -> Similarity:
        if metric == "meteor":
            raise ValueError(
                "meteor needs a dictionary of synonyms, which this stack does not have: use cosine, fuzzy_match, bleu, "
                "gleu, rouge_1 to rouge_5 or rouge_l"
            )
        return metric

    @property
    def embedded(self) -> bool:
        """Whether it compares embeddings, and so needs a model for them."""
        return self.evaluation_metric == "cosine"


class TextPart(StrictModel):
    """A piece of a message."""

    type: Literal["input_text", "output_text", "text"]
    text: Template


class Message(StrictModel):
    """A message to the model that grades."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Template | TextPart | Annotated[list[Template | TextPart], Field(min_length=1, max_length=MAX_PARTS)]
    type: Literal["message"] | None = None

    @property
    def texts(self) -> list[str]:
        """The templates of its text."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return [part if isinstance(part, str) else part.text for part in parts]


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]


class SamplingParams(StrictModel):
    """How the model that grades samples its answer; None: as the endpoint does by default."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    seed: Annotated[Integer, Field(ge=-(2**63), lt=2**63)] | None = None
    max_completions_tokens: Annotated[Integer, Field(ge=1, le=2**20)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ScoreModel(_Grader):
    """The number that a model answers."""

    type: Literal["score_model"]
    model: Name
    input: Messages
    range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    """The lowest and the highest score; None: 0 and 1."""
    sampling_params: SamplingParams | None = None

    @field_validator("range")
    @classmethod
    def _rises(cls, limits: list[float] | None) -> list[float] | None:
        if limits and not limits[0] < limits[1]:
            raise ValueError("its first number must be less than its second")
        return limits

    @property
    def limits(self) -> tuple[float, float]:
        return (self.range[0], self.range[1]) if self.range else (0.0, 1.0)


class LabelModel(_Grader):
    """The label that a model answers. Only evaluations use it."""

    type: Literal["label_model"]
    model: Name
    input: Messages
    labels: Annotated[list[Name], Field(min_length=1, max_length=MAX_LABELS)]
    passing_labels: Annotated[list[Name], Field(min_length=1, max_length=MAX_LABELS)]

    @field_validator("passing_labels")
    @classmethod
    def _among_labels(cls, passing: list[str], info: ValidationInfo) -> list[str]:
        labels = info.data.get("labels", passing)
        if unknown := [label for label in passing if label not in labels]:
            raise ValueError(f"{unknown[0][:80]!r} is not one of the labels: add it to them, or correct it")
        return passing


Single: TypeAlias = StringCheck | TextSimilarity | ScoreModel | LabelModel
SINGLE: Mapping[str, type[Single]] = {
    "string_check": StringCheck,
    "text_similarity": TextSimilarity,
    "score_model": ScoreModel,
    "label_model": LabelModel,
}
TYPES = (*SINGLE, "multi")


class Multi(_Grader):
    """A formula of the scores of other graders."""

    type: Literal["multi"]
    graders: dict[str, Single]
    calculate_output: str

    @property
    def formula(self) -> formula.Formula:
        return formula.read(self.calculate_output, self.graders)


Grader: TypeAlias = Single | Multi


def parse(value: Any, *, strictly: bool = False, where: str = "grader") -> Grader:
    """The grader that a client describes. `strictly`: a template that no item could fill is an error, too; else it is
    one when the grader runs.

    Raises:
        InputError: `invalid_grader` or `unsupported_grader`; `param` is the path of the field below `where`.
    """
    grader = _multi(value, where) if _type(value, where) == "multi" else _single(value, where)
    if strictly:
        for path, template in _templates(grader, where):
            try:
                templates.check(template)
            except BadTemplate as error:
                raise _invalid(path, str(error)) from None
    return grader


def _type(value: Any, where: str) -> str:
    if not isinstance(value, dict):
        raise _invalid(where, f"it must be an object with the fields type and name; type is one of {', '.join(TYPES)}")
    kind = value.get("type")
    if kind == "python":
        raise InputError(
            "unsupported_grader",
            f"{where}.type: python graders do not run here, because there is no sandbox for foreign code; use "
            "string_check, text_similarity, score_model, or a formula of them (multi).",
            f"{where}.type",
        )
    if kind not in TYPES:
        raise _invalid(f"{where}.type", f"it must be one of {', '.join(TYPES)}")
    return str(kind)


def _single(value: dict[str, Any], where: str) -> Single:
    try:
        return SINGLE[value["type"]].model_validate(value)
    except ValidationError as error:
        raise _translated(error, where) from None


def _multi(value: dict[str, Any], where: str) -> Multi:
    given = value.get("graders")
    if isinstance(given, dict) and isinstance(given.get("type"), str):  # one grader, as the client's type has it
        given = {name: given} if isinstance(name := given.get("name"), str) else given
    graders: dict[str, Single] = {}
    below = f"{where}.graders"
    if not isinstance(given, dict) or not 1 <= len(given) <= MAX_GRADERS:
        raise _invalid(below, f"it must be an object of 1 to {MAX_GRADERS} graders by the names that the formula uses")
    for name, grader in given.items():
        if not formula.NAME.fullmatch(name) or name in formula.FUNCTIONS or len(name) > MAX_NAME:
            functions = ", ".join(formula.FUNCTIONS)
            raise _invalid(
                below,
                f"{name[:80]!r} cannot stand in a formula: a name has letters, digits and _, begins with no digit, and "
                f"is none of {functions}",
            )
        if _type(grader, f"{below}.{name}") == "multi":
            raise _invalid(f"{below}.{name}.type", "a multi grader cannot hold another one: put its graders here")
        graders[name] = _single(grader, f"{below}.{name}")
    plain = {field: held for field, held in value.items() if field != "graders"}
    try:
        multi = Multi.model_validate(plain | {"graders": graders})
    except ValidationError as error:
        raise _translated(error, where) from None
    try:
        formula.read(multi.calculate_output, graders)
    except BadFormula as error:
        raise _invalid(f"{where}.calculate_output", str(error)) from None
    return multi


def embedded_in(grader: Grader, where: str = "grader") -> str | None:
    """The field by which a grader needs a model for embeddings; None: it needs none."""
    if isinstance(grader, Multi):
        parts = (embedded_in(part, f"{where}.graders.{name}") for name, part in grader.graders.items())
        return next((field for field in parts if field), None)
    return f"{where}.evaluation_metric" if isinstance(grader, TextSimilarity) and grader.embedded else None


def _templates(grader: Grader, where: str) -> list[tuple[str, str]]:
    """All templates with their paths."""
    match grader:
        case Multi():
            parts = [_templates(part, f"{where}.graders.{name}") for name, part in grader.graders.items()]
            return [found for part in parts for found in part]
        case StringCheck() | TextSimilarity():
            return [(f"{where}.input", grader.input), (f"{where}.reference", grader.reference)]
        case _:
            messages = enumerate(cast(ScoreModel, grader).input)
            return [(f"{where}.input[{at}].content", text) for at, message in messages for text in message.texts]


def _invalid(param: str, reason: str) -> InputError:
    shown = param if len(param) <= 200 else param[:199] + "…"
    return InputError("invalid_grader", f"{shown}: {reason}.", shown)


def _translated(error: ValidationError, where: str) -> InputError:
    """What pydantic finds first, in our words."""
    problem = error.errors(include_url=False, include_input=False)[0]
    loc, reason = problem["loc"], _reason(problem)
    if "content" in loc[:-1]:  # pydantic lists a problem for each form that the content of a message could have
        loc = loc[: loc.index("content") + 1]
        reason = _CONTENT
    path = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return _invalid(path, reason)


_CONTENT = (
    f"it must be a text of at most {MAX_TEMPLATE:,} characters, an object "
    f'{{"type": "input_text", "text": …}}, or a list of 1 to {MAX_PARTS} of both; models here read no images and '
    "no audio"
)


def _reason(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    match problem["type"]:
        case "missing":
            return "it is missing: add it"
        case "extra_forbidden":
            return "there is no such field: remove it, or correct its name"
        case "value_error":
            return str(context["error"])
        case _:
            message = problem["msg"]
            return message[:1].lower() + message[1:]
