"""What is known of a run before its first step, and `hyperparameters.json`, which says all of it with reasons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from services.trainer.domain.auto import Chosen
from services.trainer.domain.fits import Fit
from services.trainer.domain.layers import targets_of
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Planner, Recipe
from services.trainer.domain.speeds import Known
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.fast.dress import Dressed
from services.trainer.engine.messages import TrainingResult
from services.trainer.engine.model.attention import AttentionChoice
from services.trainer.engine.model.base import BaseFacts
from services.trainer.engine.model.compute import Compute
from services.trainer.engine.model.measured import Reading
from services.trainer.engine.model.start import Start
from services.trainer.engine.report.card import compared
from services.trainer.engine.report.forecast import Forecast, as_read, computing


@dataclass(frozen=True)
class Prepared:
    """What is known of a run. `known`: what earlier ones took on this machine. `linear_head`: see `Reading`; it is
    assumed until it is measured."""

    base: BaseFacts
    start: Start | None
    train: Dataset
    validation: Dataset | None
    chosen: Chosen
    planner: Planner
    recipe: Recipe
    document: dict[str, JsonValue]
    """What `hyperparameters.json` holds."""
    encoded: dict[str, Dataset]
    """Both splits as they were read, by the field of the job that names them."""
    known: Known
    linear_head: bool = True

    @property
    def forecast(self) -> Forecast:
        correction = self.known.correction(self.recipe.quantization.value)
        return Forecast(self.planner, self.recipe, self.linear_head, correction)

    def write(self, out: Path) -> None:
        """Write `hyperparameters.json`."""
        (out / "hyperparameters.json").write_text(json.dumps(self.document, indent=2) + "\n")

    def on(self, processes: int) -> Prepared:
        """The same in so many processes."""
        return replace(self, known=replace(self.known, processes=processes)).with_recipe(self.planner, self.recipe)

    def saying(self, **entries: tuple[JsonValue, str]) -> Prepared:
        """The same with these in the document: each a value and its reason."""
        said: dict[str, JsonValue] = {name: {"value": value, "reason": why} for name, (value, why) in entries.items()}
        return replace(self, document={**self.document, **said})

    def with_recipe(self, planner: Planner, recipe: Recipe) -> Prepared:
        """The same, planned in another way."""
        chosen = replace(self.chosen, quantization=recipe.quantization)
        found = replace(self, planner=planner, recipe=recipe, chosen=chosen)
        estimate = found.forecast.document(recipe.begin.value)
        return replace(found, document={**self.document, **chosen.document(), **recipe.document(), **estimate})

    def computing(self, compute: Compute, attention: AttentionChoice) -> Prepared:
        """The same with the type that the base computes in, and the attention that suits it and the rows."""
        planner = computing(self.planner, compute.dtype, attention.implementation)
        found = replace(self, base=replace(self.base, attention=attention), planner=planner)
        return found.saying(
            compute=(compute.name, compute.reason), attention=(attention.implementation, attention.reason)
        )

    def as_read(self, model: Any, reading: Reading, fits: Sequence[Fit]) -> Prepared:
        """The same with what was measured of the loaded model. The quantization does not change any more."""
        found, planner, recipe = replace(self, linear_head=reading.linear_head), self.planner, self.recipe
        if reading.unsuitable:
            reason = f"the kernel for packed rows did not suit the base: {reading.unsuitable}"
            implementation = model.config._attn_implementation
            planner = as_read(planner, implementation)
            recipe = planner.with_quantization(recipe.quantization, fits, automatic=recipe.automatic)
            found = found.saying(attention=(implementation, reason))
        head = "logits are made and dropped chunk by chunk"
        if not reading.linear_head:
            head = "the base's own does more than that"
        found = found.saying(packing=(reading.packed, reading.reason), linear_head=(reading.linear_head, head))
        return found.with_recipe(planner, recipe)

    def dressed(self, dressed: Dressed) -> Prepared:
        """The same with the pieces that the loaded model got."""
        return self.saying(**vars(dressed))

    def with_outcome(self, result: TrainingResult) -> Prepared:
        """The same with what became of the estimate."""
        estimate = self.document["estimate"]
        outcome = compared(result)
        if not outcome or not isinstance(estimate, dict):
            return self
        return replace(self, document={**self.document, "estimate": {**estimate, "reason": outcome}})


def of_the_base(plan: Plan, facts: BaseFacts) -> dict[str, JsonValue]:
    """What follows from the base alone, in the form of `Chosen.document`."""
    changed = sorted({name.rsplit(".", 1)[-1] for name in targets_of(plan.lora, facts.linears)})
    reason = "all linear layers of the text decoder" if plan.lora.target_modules == "all-linear" else "as set"
    not_tuned = f"; not tuned: {'; '.join(facts.layers.not_tuned)}" if facts.layers.not_tuned else ""
    return {
        "attention": {"value": facts.attention.implementation, "reason": facts.attention.reason},
        "target_modules": {"value": list[JsonValue](changed), "reason": f"{reason}{not_tuned}"},
    }
