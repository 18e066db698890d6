"""`cosine` by the model of the package, in the process of the api, as in the embedded stack."""

from __future__ import annotations

import pytest

from tests.unit.api.resources.graders.conftest import Graders
from tests.unit.api.resources.graders.test_cosine import COSINE

pytestmark = pytest.mark.torch

ITEM = {"answer": "The parcel arrives tomorrow."}


async def test_a_paraphrase_gets_a_higher_reward_than_an_unrelated_answer(graders: Graders) -> None:
    assert (await graders.post("validate", {"grader": COSINE})).status_code == 200
    paraphrase = await graders.run(COSINE, "Your package will be delivered the next day.", ITEM)
    unrelated = await graders.run(COSINE, "Bananas are rich in potassium.", ITEM)
    assert paraphrase["reward"] > 0.5 > 0.3 > unrelated["reward"] >= 0
    assert (await graders.run(COSINE, "", ITEM))["reward"] == 0
    odd = await graders.run(COSINE, "{{item.answer}} \ufdfa" * 1000, ITEM)
    assert 0 <= odd["reward"] <= 1
