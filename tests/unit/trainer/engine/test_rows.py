"""A row is the unit of a training, also where a template rewrites earlier turns, so that it is several sequences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.domain.packing import RowShape
from services.trainer.domain.plan import Plan
from services.trainer.engine.data.batches import Packer
from services.trainer.engine.data.dataset import Dataset, Encoder
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.loss import Supervised
from services.trainer.engine.messages import parse_message
from services.trainer.engine.model import memory
from services.trainer.engine.model.adapter import load, set_training, trainable
from services.trainer.engine.model.base import inspect_base
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Validator
from tests.support.data.micro_base import chat_row, make_base, make_tokenizer, write_rows
from tests.unit.trainer.engine.test_training import losses, packed, reads, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}* {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The last answer is written unlike earlier ones, as by Qwen 3's template, which drops earlier thoughts."""


def talks(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Conversations of one to three answers."""
    rows = []
    for n in range(start, start + count):
        turns = [chat_row(f"Where is order {n}{place}?", f"On its way {n}")["messages"] for place in "abc"[: 1 + n % 3]]
        rows.append({"messages": [message for turn in turns for message in turn]})
    return rows


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("rewriting") / "base", REWRITES)


@pytest.fixture
def plan(make_plan: MakePlan, rewriting: Path, tmp_path: Path) -> MakePlan:
    def make(**changes: Any) -> Plan:
        data = {
            "base": {"id": "micro", "location": str(rewriting)},
            "train": str(write_rows(tmp_path / "talks.jsonl", talks(12))),
            "validation": str(write_rows(tmp_path / "unseen.jsonl", talks(3, start=12))),
            "lora": {"r": 8, "dropout": 0.3},
        }
        return make_plan(**{**data, **changes})

    return make


def encoded(rows: list[dict[str, Any]], tmp_path: Path) -> Dataset:
    tokenizer = make_tokenizer(REWRITES)
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    return encoder.read(write_rows(tmp_path / "rows.jsonl", rows), "training_file")


def test_epochs_batches_and_examples_count_rows(plan: MakePlan, tmp_path: Path):
    result = train(plan(), tmp_path / "out")
    rows = losses(tmp_path / "out")
    assert (result.steps, result.total_steps, result.epochs) == (6, 6, 2.0)  # 12 rows in batches of 4, twice
    assert (result.train_examples, result.valid_examples, result.dropped_examples) == (12, 3, 0)
    whole = encoded(talks(12), tmp_path)
    assert len(whole.items) == 24
    assert sum(row["tokens"] for row in rows) == 2 * whole.tokens
    assert result.trained_tokens == 2 * whole.trained_tokens
    reason = json.loads((tmp_path / "out" / "hyperparameters.json").read_text())["early_stopping_patience"]["reason"]
    assert "3 validation rows" in reason


def test_progress_says_how_many_rows_and_sequences_there_are(
    plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(plan(), tmp_path / "out")
    [loading] = [m for line in capsys.readouterr().out.splitlines() if '"load"' in line and (m := parse_message(line))]
    assert loading.fields() == {"phase": "load", "rows": 12, "sequences": 24}


def test_progress_says_which_hyperparameters_were_chosen(
    plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    result = train(plan(hyperparameters={"n_epochs": 1}), tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    [chosen] = [m for line in lines if '"hyperparameters"' in line and (m := parse_message(line))]
    names = ("n_epochs", "batch_size", "learning_rate_multiplier")
    assert chosen.fields() == {name: result.hyperparameters[name] for name in names}


def test_what_is_automatic_follows_from_rows(plan: MakePlan, tmp_path: Path):
    train(plan(hyperparameters={"learning_rate": 0.01}), tmp_path / "out")
    chosen = json.loads((tmp_path / "out" / "hyperparameters.json").read_text())
    assert chosen["n_epochs"]["reason"].startswith("12 examples are few")
    assert "for 12 examples" in chosen["batch_size"]["reason"]


def test_all_sequences_of_a_row_are_in_one_step(plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steppers: list[Stepper] = []
    monkeypatch.setattr("services.trainer.engine.loop.Loop.run", lambda loop: steppers.append(loop.stepper))
    monkeypatch.setattr("services.trainer.engine.run.result_of", lambda *_: object())
    monkeypatch.setattr("services.trainer.engine.run.save", lambda *_: None)
    train(plan(), tmp_path / "out")
    [stepper] = steppers
    of_row = {item: row for row in range(12) for item in stepper.train.items_of([row])}
    for epoch in (range(3), range(3, 6)):
        batches = [stepper.items(step) for step in epoch]
        assert [len({of_row[item] for item in batch}) for batch in batches] == [4, 4, 4]
        assert sorted(item for batch in batches for item in batch) == list(range(24))


def test_a_row_may_be_split_between_micro_batches_of_its_step(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    without_dropout = {"lora": {"r": 8}}
    whole = train(plan(**without_dropout), tmp_path / "whole")
    monkeypatch.setattr(memory, "ON_CPU", (memory.Fit(micro_tokens=0, recompute=False),))  # one sequence at a time
    pieces = train(plan(**without_dropout), tmp_path / "pieces")
    assert pieces.trained_tokens == whole.trained_tokens
    for one, other in zip(losses(tmp_path / "pieces"), losses(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_the_gradient_of_a_row_is_that_of_all_its_trained_tokens(model: Any, tmp_path: Path):
    [row] = encoded(talks(3)[2:], tmp_path).rows
    assert len(row) == 3
    set_training(model, False)
    with torch.no_grad():
        alone = [Supervised().sums(reads(model), packed([item])).loss for item in row]
    validator = Validator(
        reads(model),
        Supervised(),
        Dataset((row,)),
        Packer(row, 0, RowShape()),
        memory=memory.Memory(model, torch.device("cpu"), longest=64),
        seed=0,
    )
    measured, _ = validator.measure(ends_epoch=False)
    trained = sum(sequence.trained_tokens for item in row for sequence in item)
    assert len(measured.losses) == len(validator.sample_weights) == 1
    assert measured.loss == pytest.approx(float(sum(alone)) / trained, rel=1e-5)
    assert trainable(model)


@pytest.fixture
def model(plan: MakePlan) -> Any:
    from services.trainer.domain.auto import Choice, Facts, choose  # noqa: PLC0415

    facts = Facts(examples=40, trained_tokens=100, parameters=10**6, parameters_per_rank=1000)
    made = plan(lora={"quantization": "none"})
    return load(made, inspect_base(made), choose(made, facts, Choice(64, "")), torch.device("cpu"))


def test_a_continued_run_has_the_losses_of_an_unbroken_one(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "ON_CPU", (memory.Fit(micro_tokens=0, recompute=False),))  # one sequence at a time
    train(plan(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(plan(), tmp_path / "first", stop=stop_after(25))  # between the sequences of a step of the second epoch
    assert len(losses(tmp_path / "first")) == 3
    train(plan(resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("policy", "rows", "sequences", "dropped", "truncated"), [("drop", 1, 1, 1, 0), ("truncate", 2, 3, 0, 1)]
)
def test_a_row_that_is_too_long_is_dropped_whole_or_cut_by_sequence(
    tmp_path: Path, policy: Any, rows: int, sequences: int, dropped: int, truncated: int
):
    dataset = encoded([talks(1)[0], talks(3)[2]], tmp_path)
    lengths = [len(item[0]) for item in dataset.rows[1]]
    assert lengths == sorted(lengths)
    limit = lengths[1] - 1  # the third sequence is all prompt within it
    got = dataset.limited(limit, policy, "training_file")
    assert (len(got.rows), len(got.items), got.dropped, got.truncated) == (rows, sequences, dropped, truncated)
    with pytest.raises(Exception, match=rf"1 rows have more than {limit} tokens \(the longest has {lengths[2]}\)"):
        dataset.limited(limit, "fail", "training_file")


def test_the_preview_shows_a_row_with_all_its_sequences(tmp_path: Path):
    tokenizer = make_tokenizer(REWRITES)
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    shown = encoder.preview(encoded([talks(1)[0], talks(2)[1]], tmp_path))
    heads = [line.split(":")[0] for line in shown.splitlines() if line.startswith("---")]
    assert heads == ["--- row 1", "--- row 2 (sequence 1 of 2)", "--- row 2 (sequence 2 of 2)"]
