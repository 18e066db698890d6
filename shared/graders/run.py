"""Runs a grader on one sample. What takes time is done off the event loop, in one thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeAlias

from shared.embeddings.embedder import Vector
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
    check_length,
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
from shared.scoring.cosine import cosine, without_vectors
from shared.tasks import gather_or_cancel

_scoring = ThreadPoolExecutor(1, "graders")
"""One at a time: a comparison holds the memory of its texts many times over."""


Texts: TypeAlias = list[str | list[str]]
"""The filled texts of the messages to a model."""


class Pair(NamedTuple):
    """Two texts whose embeddings are to be compared."""

    given: str
    reference: str
    where: str
    """The field of their grader."""


class Asks(Protocol):
    """Asks a model that grades: `Judge`, or one that chooses between several."""

    async def ask(self, grader: Asking, messages: Texts, headers: Mapping[str, bytes]) -> Outcome:
        """The outcome of a grader whose templates are filled."""
        ...


class Embeds(Protocol):
    """Has vectors for texts: an `Embedder`."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text."""
        ...


async def run(
    grader: Grader,
    sample: str,
    item: Mapping[str, Any],
    judge: Asks,
    embedder: Embeds,
    headers: Mapping[str, bytes],
    *,
    labels: bool = False,
) -> Outcome:
    """The score of `sample`, which a model answered to `item` of a dataset. `headers`: who asks, for models that grade.
    `labels`: label models run, too; in the API they do not.

    Raises:
        InputError: `text_too_long`, `unsupported_grader`.
        TransientError, ConfigError: there are no embeddings for `cosine`, now or by these settings.
    """
    loop = asyncio.get_running_loop()
    values = await loop.run_in_executor(_scoring, variables, item, sample)
    if not isinstance(grader, Multi):
        return await _finished(grader, await _begun(grader, values, "grader", labels), judge, embedder, headers)
    # first all that may refuse the request, so that no model is asked for nothing
    begun = {
        name: await _begun(part, values, f"grader.graders.{name}", labels) for name, part in grader.graders.items()
    }
    outcomes = await gather_or_cancel(
        [_finished(part, begun[name], judge, embedder, headers) for name, part in grader.graders.items()]
    )
    return combined(grader, dict(zip(grader.graders, outcomes, strict=True)))


async def _begun(grader: Single, values: Mapping[str, Any], where: str, labels: bool) -> Outcome | Texts | Pair:
    """The outcome, or what a model has still to be asked."""
    return await asyncio.get_running_loop().run_in_executor(_scoring, _guarded, grader, values, where, labels)


async def _finished(
    grader: Single, begun: Outcome | Texts | Pair, judge: Asks, embedder: Embeds, headers: Mapping[str, bytes]
) -> Outcome:
    if isinstance(begun, Outcome):
        return begun
    if isinstance(begun, Pair):
        return await _embedded(begun, embedder)
    assert isinstance(grader, ScoreModel | LabelModel), "no other grader asks a model"
    return await judge.ask(grader, begun, headers)


async def _embedded(pair: Pair, embedder: Embeds) -> Outcome:
    try:
        given, reference = await embedder.embed([pair.given, pair.reference])
    except InputError as error:
        raise InputError(error.code, f"{pair.where}: {error.message}.", pair.where) from None
    return Outcome(cosine(reference, given))


def _guarded(grader: Single, values: Mapping[str, Any], where: str, labels: bool) -> Outcome | Texts | Pair:
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


def _scored(grader: StringCheck | TextSimilarity | LabelModel, values: Mapping[str, Any], where: str) -> Outcome | Pair:
    if isinstance(grader, LabelModel):
        message = f"{where}.type: a label_model grades in evaluations only; use score_model to get a reward."
        raise InputError("unsupported_grader", message, f"{where}.type")
    given, reference = fill(grader.input, values), fill(grader.reference, values)
    if isinstance(grader, StringCheck):
        return Outcome(string_check(grader, given, reference))
    return _compared(grader, given, reference, where)


def _compared(grader: TextSimilarity, given: str, reference: str, where: str) -> Outcome | Pair:
    try:
        if not grader.embedded:
            return Outcome(text_similarity(grader, given, reference))
        check_length(given, reference)
        score = without_vectors(reference, given)
        # half a surrogate pair has no UTF-8, and no tokenizer takes it
        given, reference = (text.encode("utf-8", "replace").decode() for text in (given, reference))
        return Pair(given, reference, where) if score is None else Outcome(score)
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
