"""A gate by the meaning of answers, with the model of the package."""

from __future__ import annotations

import pytest

from shared.settings import EmbeddingsSettings
from tests.support.fakes.language_model import FakeModel
from tests.unit.evaluator.test_embeddings import evaluated
from tests.unit.evaluator.test_work import models, question

pytestmark = pytest.mark.torch


async def test_a_model_that_says_the_same_in_other_words_passes() -> None:
    def paraphrase(text: str) -> str:
        return f"Hello! In two days, your package will reach {question(text)}. Best wishes."

    event = await evaluated(EmbeddingsSettings(), FakeModel(models(tuned=paraphrase)))
    assert (event.metric, event.passed) == ("grader:meaning", True)
    assert event.scores["tuned"]["grader:meaning"] > 0.6 > event.scores["base"]["grader:meaning"]
    assert event.scores["tuned"]["rouge_l"] < 0.5
