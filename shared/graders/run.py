"""Runs a grader on one sample. What takes time is done off the event loop, in one thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

from shared.errors import InputError
from shared.graders.domain.graders import (
    Grader,
    LabelModel,
    Multi,
    ScoreModel,
    Single,
    StringCheck,
    TextSimilarity,
)
from shared.graders.domain.outcome import Errors, Outcome, combined
from shared.graders.domain.scores import (
    MAX_COMPARED,
    TooLongToCompare,
    string_check,
    text_similarity,
)
from shared.graders.domain.templates import (
    MAX_FILLED,
    MissingVariable,
    SampleIsNoJson,
    TooLong,
    fill,
    variables,
)
from shared.graders.judge import Asking

_scoring = ThreadPoolExecutor(1, "graders")
"""One at a time: a comparison holds the memory of its texts many times over."""


Texts: TypeAlias = list[str | list[str]]
"""The filled texts of the messages to a model."""


class Asks(Protocol):
    """Asks a model that grades: `Judge`, or one that chooses between several."""

    async def ask(self, grader: Asking, messages: Texts, headers: Mapping[str, bytes]) -> Outcome:
        """The outcome of a grader whose templates are filled."""
        ...


async def run(
    grader: Grader,
    sample: str,
    item: Mapping[str, Any],
    judge: Asks,
    headers: Mapping[str, bytes],
    *,
    labels: bool = False,
) -> Outcome:
    """The score of `sample`, which a model answered to `item` of a dataset. `headers`: who asks, for models that grade.
    `labels`: label models run, too; in the API they do not.

    Raises:
        InputError: `text_too_long`, `unsupported_grader`.
    """
    loop = asyncio.get_running_loop()
    values = await loop.run_in_executor(_scoring, variables, item, sample)
    if not isinstance(grader, Multi):
        return await _finished(grader, await _begun(grader, values, "grader", labels), judge, headers)
    # first all that may refuse the request, so that no model is asked for nothing
    begun = {
        name: await _begun(part, values, f"grader.graders.{name}", labels) for name, part in grader.graders.items()
    }
    async with asyncio.TaskGroup() as group:
        parts = {
            name: group.create_task(_finished(part, begun[name], judge, headers))
            for name, part in grader.graders.items()
        }
    return combined(grader, {name: part.result() for name, part in parts.items()})


async def _begun(grader: Single, values: Mapping[str, Any], where: str, labels: bool) -> Outcome | Texts:
    """The outcome, or what the model has still to be asked."""
    return await asyncio.get_running_loop().run_in_executor(_scoring, _guarded, grader, values, where, labels)


async def _finished(grader: Single, begun: Outcome | Texts, judge: Asks, headers: Mapping[str, bytes]) -> Outcome:
    if isinstance(begun, Outcome):
        return begun
    assert isinstance(grader, ScoreModel | LabelModel), "no other grader asks a model"
    return await judge.ask(grader, begun, headers)


def _guarded(grader: Single, values: Mapping[str, Any], where: str, labels: bool) -> Outcome | Texts:
    try:
        if isinstance(grader, ScoreModel) or (labels and isinstance(grader, LabelModel)):
            return _messages(grader, values)
        return _scored(grader, values, where)
    except MissingVariable:
        return Outcome(errors=Errors(invalid_variable_error=True))
    except SampleIsNoJson:
        return Outcome(errors=Errors(sample_parse_error=True))
    except TooLong:
        message = f"{where}: its texts have more than {MAX_FILLED:,} characters with their values; shorten them."
        raise InputError("text_too_long", message, where) from None


def _scored(grader: StringCheck | TextSimilarity | LabelModel, values: Mapping[str, Any], where: str) -> Outcome:
    if isinstance(grader, LabelModel):
        message = f"{where}.type: a label_model grades in evaluations only; use score_model to get a reward."
        raise InputError("unsupported_grader", message, f"{where}.type")
    given, reference = fill(grader.input, values), fill(grader.reference, values)
    if isinstance(grader, StringCheck):
        return Outcome(string_check(grader, given, reference))
    return Outcome(_compared(grader, given, reference, where))


def _compared(grader: TextSimilarity, given: str, reference: str, where: str) -> float:
    try:
        return text_similarity(grader, given, reference)
    except TooLongToCompare:
        message = (
            f"{where}: {grader.evaluation_metric} compares texts of at most {MAX_COMPARED:,} characters; shorten the "
            "input and the reference, or use string_check."
        )
        raise InputError("text_too_long", message, where) from None


def _messages(grader: Asking, values: Mapping[str, Any]) -> Texts:
    """The filled texts of all messages, which together are no longer than one text may be."""
    filled: Texts = []
    size = 0
    for message in grader.input:
        texts = []
        for template in message.texts:
            texts.append(fill(template, values))
            size += len(texts[-1])
            if size > MAX_FILLED:
                raise TooLong
        filled.append(texts if isinstance(message.content, list) else texts[0])
    return filled
