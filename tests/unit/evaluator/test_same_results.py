"""A job whose spec asks for nothing new is judged as by earlier versions: the same examples, intervals and verdict. The
figures were computed by the version before gate.checks, BLEU and the others came."""

from __future__ import annotations

import json

from services.evaluator.dataset import choose
from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.examples import Example
from services.evaluator.evaluate import evaluate
from shared.events import Gate, JobSpec

WORDS = ["the", "parcel", "comes", "to", "you", "in", "two", "days", "or", "three"]


def test_the_intervals_and_the_verdict_are_those_of_earlier_versions() -> None:
    examples = [Example(line=n, prompt=f"{n} ->", reference=" ".join(WORDS[: 3 + n % 7])) for n in range(1, 25)]
    every: dict[Variant, int] = {"base": 2, "few_shot": 5, "tuned": 7}
    answers: dict[Variant, list[Answer]] = {
        variant: [Answer(text=" ".join(WORDS[:: 1 + n * k % 3]), finish_reason="stop") for n in range(1, 25)]
        for variant, k in every.items()
    }
    made = evaluate(examples, answers, labels=None, gate=Gate(), seed=7)
    gain = made.over_base["rouge_l"]
    assert (made.metric, gain.low, gain.high) == ("rouge_l", -0.064743589744, 0.046890609391)
    assert abs(gain.mean + 0.008796296296296297) < 1e-15
    assert made.verdict.reasons[0].startswith("Not shown to be better than the base: ROUGE-L 0.591 → 0.582")
    assert choose(100, 7, 3) == [8, 17, 22, 76, 79, 86, 97]


def test_a_spec_without_new_settings_is_written_as_older_services_read_it() -> None:
    written = json.loads(JobSpec().model_dump_json())
    assert set(written["evaluation"]) == {"max_examples", "few_shot", "max_tokens"}
    assert set(written["gate"]) == {"metric", "confidence", "min_delta", "require_better_than_few_shot", "promote"}
    asked = JobSpec.model_validate({"gate": {"checks": {"echo": 0.2}}, "evaluation": {"prompts": ["Hi"]}})
    assert JobSpec.model_validate_json(asked.model_dump_json()) == asked
