"""The estimate of one job: the rows are encoded and the run is planned as the training process does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from services.trainer.domain.budget import Limits
from services.trainer.domain.fits import ON_CPU, ON_GPU
from services.trainer.domain.memory_plan import GIB
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Device
from services.trainer.domain.schedule import Steps
from services.trainer.domain.speeds import Correction, Known, Speed
from services.trainer.engine.data.dataset import Dataset, Encoder
from services.trainer.engine.report.choices import choices, planner
from services.trainer.estimate import prices as priced
from services.trainer.estimate.devices import GPUS, gpu, peak_of, short_name
from services.trainer.estimate.prices import Cost, Prices
from services.trainer.estimate.sizes import attention_of, is_known, sizes_of
from shared.base import stop_ids
from shared.base.reading import SmallFiles
from shared.errors import InputError
from shared.events import FrozenModel, JobSpec, Method

USUAL_OTHER_SECONDS = 30.0
"""To encode the rows, load the base and save, where that was not measured yet."""


class Rows(FrozenModel):
    """Of one split. `tokens` of one epoch; `trained_tokens`: those in the loss."""

    examples: int
    tokens: int
    trained_tokens: int
    longest: int


class Estimate(FrozenModel):
    """What a job will need, before it is one."""

    base: str
    parameters: int
    device: str
    rows: dict[str, Rows]
    dropped: int
    """Rows that are too long, or have nothing to train on."""
    steps: int
    tokens: int
    """Of all epochs, without padding: what hosted training is billed by."""
    validated_tokens: int
    hyperparameters: dict[str, JsonValue]
    """As in `hyperparameters.json`: each with a value and a reason."""
    memory_bytes: int
    free_bytes: int
    fits: bool
    holds: tuple[str, ...]
    """The GPUs of the list that hold it."""
    tokens_per_second: float | None
    training_seconds: float | None
    other_seconds: float
    """To encode the rows, load the base and save."""
    speed: str
    """Where the speed comes from."""
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        return None if self.training_seconds is None else self.training_seconds + self.other_seconds


def estimate(
    train: Path,
    validation: Path | None,
    *,
    files: SmallFiles,
    base: str,
    spec: JobSpec,
    method: Method,
    form: Literal["chat", "completion", "preference"],
    max_length: int | None,
    device: Device,
    speeds: Sequence[Speed] = (),
    prices: Prices,
    hosted: Sequence[str] | None = None,
    template_kwargs: dict[str, Any] | None = None,
    max_lora_rank: int = 64,
) -> Estimate:
    """Estimate a job whose splits are in these files. `files`: of the base, which users call `base`. `max_length`: as
    the validation decided. `speeds`: what was measured on this machine. `hosted`: models of the price file; None: all.

    Raises:
        InputError: a row or the base is wrong.
    """
    plan = Plan.model_validate(
        {
            "job_id": "estimate",
            "model": "estimate",
            "base": {"id": base, "location": str(files.folder)},
            "method": method,
            "format": form,
            "train": str(train),
            "hyperparameters": spec.hyperparameters,
            "lora": spec.lora,
            "seed": spec.seed,
            "max_length": max_length,
            "max_lora_rank": max_lora_rank,
        }
    )
    sizes = sizes_of(files.config)
    encoder = Encoder(files.tokenizer, stop_ids(files.tokenizer, files.generation), form, template_kwargs)
    read = encoder.read(train, "training_file")
    checked = encoder.read(validation, "validation_file") if validation else None
    made = choices(plan, sizes, read, checked)
    known = Known(tuple(speeds), device.name, base, sizes.parameters)
    fits = ON_GPU if device.cuda else ON_CPU

    def planned(where: Device) -> tuple[Any, Any, Any]:
        found = planner(
            plan,
            sizes,
            made,
            where,
            order_of_rows,
            peak=peak_of(where),
            attention=attention_of(files.config, cuda=where.cuda),
            shares_keys=where.cuda,
        )
        recipe = found.plan(plan.lora.quantization, ON_GPU if where.cuda else ON_CPU)
        return found, recipe, found.estimate(recipe, recipe.begin.value)

    found, recipe, plain = planned(device)
    correction = known.correction(recipe.quantization.value)
    expected = plain.corrected(seconds=correction.seconds, memory=correction.memory)
    tried = fits[fits.index(recipe.begin.value) :]
    fit = next((each for each in tried if found.estimate(recipe, each).memory_bytes <= device.free), fits[-1])
    if fit != recipe.begin.value:  # the search begins optimistically, and ends here
        expected = found.estimate(recipe, fit).corrected(seconds=correction.seconds, memory=correction.memory)
    other = USUAL_OTHER_SECONDS if correction.other_seconds is None else correction.other_seconds
    training = expected.seconds
    chosen = made.chosen
    steps = Steps(len(made.train.rows), chosen.batch_size.value, chosen.n_epochs.value)
    prompt, answer = _means(made.train)
    total = None if training is None else training + other
    models = sorted(prices.hosted) if hosted is None else hosted
    costs = [priced.local(prices, short_name(device), total)]
    costs += [priced.hosted(prices, model, found.data.tokens, prompt, answer) for model in models]
    document = {**chosen.document(), **recipe.document(), "quantization": _said(recipe.quantization)}
    splits = {"train": made.train, **({"validation": made.validation} if made.validation else {})}
    return Estimate(
        base=base,
        parameters=sizes.parameters,
        device=device.name,
        rows={name: _rows(split) for name, split in splits.items()},
        dropped=sum(split.dropped for split in splits.values()),
        steps=steps.total,
        tokens=found.data.tokens,
        validated_tokens=round(found.data.validated),
        hyperparameters=document,
        memory_bytes=expected.memory_bytes,
        free_bytes=device.free,
        fits=expected.memory_bytes <= device.free,
        holds=tuple(_holding(planned)),
        tokens_per_second=expected.tokens_per_second,
        training_seconds=training,
        other_seconds=other,
        speed=correction.reason,
        costs=tuple(costs),
        notes=(
            *_notes(files, correction, device, training),
            *_over_budget(spec, prices, device, total, found.data.tokens),
        ),
    )


@lru_cache(maxsize=4)
def order_of_rows(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """An order like that of the training, whose own needs torch. Only the size of the largest batch depends on it."""
    return tuple(np.random.default_rng((seed, epoch)).permutation(count).tolist())


def _holding(planned: Any) -> list[str]:
    """The GPUs on which some fit of the run fits."""
    found = []
    for name in GPUS:
        device = gpu(name)
        if device.capability < (8, 0):
            continue
        try:
            plan, recipe, _ = planned(device)
        except Exception:
            continue
        if any(plan.estimate(recipe, fit).memory_bytes <= device.free for fit in ON_GPU):
            found.append(name)
    return found


def _means(train: Dataset) -> tuple[float, float]:
    """Mean tokens of the prompt and of the answers of a row."""
    rows = max(1, len(train.rows))
    return (train.tokens - train.trained_tokens) / rows, train.trained_tokens / rows


def _rows(split: Dataset) -> Rows:
    return Rows(
        examples=len(split.rows),
        tokens=split.tokens,
        trained_tokens=split.trained_tokens,
        longest=split.longest,
    )


def _said(choice: Any) -> dict[str, JsonValue]:
    return {"value": choice.value, "reason": choice.reason}


def _over_budget(spec: JobSpec, prices: Prices, device: Device, seconds: float | None, tokens: int) -> Iterator[str]:
    """Why the trainer would refuse the job for its budget."""
    if spec.budget is None:
        return
    price = prices.gpus.get(short_name(device))
    try:
        Limits(spec.budget, price.per_hour if price else None).check(seconds, tokens)
    except InputError as error:
        yield error.message


def _notes(files: SmallFiles, correction: Correction, device: Device, training: float | None) -> list[str]:
    found = []
    if not is_known(files.config):
        kind = getattr(files.config.get_text_config(), "model_type", "unknown")
        found.append(f"the layers of {kind!r} are taken for those of a Llama of its widths: memory and time are rough")
    if training is None:
        found.append("there is no time for a base with experts: how many a token meets differs")
    if correction.other_seconds is None:
        found.append(f"{USUAL_OTHER_SECONDS:.0f} s to load and save are assumed")
    if device.cuda:
        found.append(f"planned for one GPU with {device.free / GIB:.0f} GiB free")
    return found
