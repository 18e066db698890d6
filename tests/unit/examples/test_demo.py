"""What the demo asks for on which base."""

from __future__ import annotations

from examples import demo
from shared.events import JobSpec


def test_the_tiny_base_and_a_gpu_get_the_whole_demo() -> None:
    assert demo.chosen("tiny-base", gpu=False) == []
    assert demo.chosen("smollm2", gpu=True) == []


def test_a_real_base_without_a_gpu_gets_a_shorter_one() -> None:
    words = demo.chosen("smollm2", gpu=False)
    assert words[::2] == ["--set"] * (len(words) // 2)
    given: dict[str, dict[str, int]] = {}
    for assignment in words[1::2]:
        name, _, value = assignment.partition("=")
        section, _, field = name.partition(".")
        given.setdefault(section, {})[field] = int(value)
    spec = JobSpec.model_validate(given)
    assert spec.hyperparameters.n_epochs == 1
    assert (spec.evaluation.max_tokens, spec.evaluation.max_examples) == (80, 32)


def test_the_demo_ends_with_the_command_that_starts_the_same_base_again() -> None:
    assert demo.restart(".cache/tiny-base") == "make up"
    assert demo.restart(".cache/smollm2") == "make up BASE=smollm2"
    assert demo.restart("org/model") == "tunestream up --base org/model"
