"""Refuses graders that need embeddings where this deployment has none."""

from __future__ import annotations

from shared.embeddings.source import trouble
from shared.errors import InputError
from shared.events.spec import Evaluation
from shared.graders.domain.graders import Grader, embedded_in, parse
from shared.settings.embeddings import EmbeddingsSettings


def check_grader(grader: Grader, settings: EmbeddingsSettings, where: str = "grader") -> None:
    """Make sure that a grader can be run. `where` is its field.

    Raises:
        InputError: `unsupported_grader`; the message has the remedy.
    """
    field = embedded_in(grader, where)
    if field and (why := trouble(settings)):
        message = f"{field}: cosine needs a model for embeddings, and {why}. fuzzy_match, gleu or rouge_l need none."
        raise InputError("unsupported_grader", message, field)


def check_graders(evaluation: Evaluation, settings: EmbeddingsSettings, where: str = "evaluation") -> None:
    """Make sure that all graders of a job can be run.

    Raises:
        InputError: as `check_grader`.
    """
    for at, grader in enumerate(evaluation.graders):
        place = f"{where}.graders[{at}]"
        check_grader(parse(grader, where=place), settings, place)
