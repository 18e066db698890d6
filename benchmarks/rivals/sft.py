"""TRL's SFTTrainer on packed rows, which Unsloth uses, too: what both are told, and how their steps are counted."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.work import LONGEST, MEAN, RATE, Work

FULL = 0.97
"""Packed rows that are less full are left out: the last ones, which hold what no other row had room for."""


def row_tokens() -> int:
    """Of a packed row. On a CPU, where only the calls are tried, rows are as short as can be."""
    return 8192 if torch.cuda.is_available() else LONGEST


def arguments(work: Work, **more: Any) -> Any:
    """An SFTConfig that packs documents best-fit-decreasing, without padding, into rows of 8,192 tokens, and takes as
    many rows a step as have about the tokens of the batch. All tokens are trained on."""
    from trl import SFTConfig  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(work.folder / "sft"), max_length=row_tokens(), packing=True, packing_strategy="bfd",
        padding_free=True, per_device_train_batch_size=max(1, round(work.batch * MEAN / row_tokens())),
        gradient_accumulation_steps=1, max_steps=work.warm_up + work.steps, learning_rate=RATE, bf16=True,
        use_cpu=not cuda, report_to="none", save_strategy="no", logging_steps=1000, disable_tqdm=True,
        **{"optim": "adamw_torch_fused" if cuda else "adamw_torch", **more},
    )  # fmt: skip


def dataset(work: Work, tokenizer: Any) -> Any:
    from datasets import Dataset  # noqa: PLC0415

    return Dataset.from_dict({"input_ids": work.documents(tokenizer)})


def timed(trainer: Any, work: Work, **more: Any) -> dict[str, Any]:
    """Train, and return the figures."""
    from transformers import TrainerCallback  # noqa: PLC0415

    clock, seen = Clock(work.warm_up, work.steps), [0]

    class Ends(TrainerCallback):  # type: ignore[misc]  # a class of a library without types
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(seen[0])
            seen[0] = 0

    packed = trainer.train_dataset
    full = [number for number, ids in enumerate(packed["input_ids"]) if len(ids) > FULL * row_tokens()]
    trainer.train_dataset = packed.select(full)
    trainer.add_callback(Ends())
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        mask = inputs.get("attention_mask")
        seen[0] += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        return step(model, inputs, *rest, **named)

    trainer.training_step = counted
    done = trainer.train()
    return clock.figures(last_loss=done.training_loss, **more)
