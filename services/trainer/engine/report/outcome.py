"""What a run leaves behind: the result, the adapter with its card, the curves."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from pydantic import JsonValue

from services.trainer.domain.overfitting import judge
from services.trainer.domain.plan import Plan
from services.trainer.domain.speeds import Speed
from services.trainer.engine.loop import Loop
from services.trainer.engine.messages import TrainingResult
from services.trainer.engine.model import adapter
from services.trainer.engine.report.card import model_card
from services.trainer.engine.report.curves import draw
from services.trainer.engine.report.prepared import Prepared
from services.trainer.engine.report.usage import memory_in_use


def result_of(plan: Plan, prepared: Prepared, loop: Loop) -> TrainingResult:
    """Of a run that has come to its end."""
    state, price = loop.state, plan.price_per_gpu_hour
    measured = [row.train_loss for row in loop.reporter.rows() if row.train_loss is not None]
    last = measured[-loop.steps.per_epoch :]
    return TrainingResult(
        model=plan.model,
        base=plan.base.id,
        method=plan.method,
        rank=prepared.chosen.lora_r.value,
        steps=state.step,
        total_steps=loop.steps.total,
        epochs=loop.steps.epochs_done(state.step),
        trained_tokens=state.trained_tokens,
        train_loss=sum(last) / len(last),
        valid_loss=state.best.loss,
        saved_step=state.best.step or state.step,
        stopped_early=loop.stopped_early,
        overfitting=judge(state.points),
        hyperparameters=prepared.chosen.values(),
        checkpoints=tuple(state.checkpoints),
        train_examples=len(prepared.train.rows),
        valid_examples=len(prepared.validation.rows) if prepared.validation else 0,
        dropped_examples=prepared.train.dropped,
        truncated_examples=prepared.train.truncated,
        seconds=round(state.seconds, 3),
        skipped_steps=state.skipped,
        diverged_at=loop.diverged_at,
        served=plan.served,
        attention=_attention(prepared.document),
        not_tuned=prepared.base.layers.not_tuned,
        estimated_memory_bytes=loop.estimated.memory_bytes if loop.estimated else None,
        peak_memory_bytes=memory_in_use(loop.memory.device)[1],
        estimated_seconds=loop.estimated.seconds if loop.estimated else None,
        lowered=tuple(state.lowered),
        device=prepared.known.device,
        processes=prepared.known.processes,
        tokens=state.tokens,
        money=None if price is None else round(state.seconds / 3600 * prepared.known.processes * price, 6),
    )


def speed_of(prepared: Prepared, result: TrainingResult, loop: Loop, seconds: float) -> Speed | None:
    """What the run took, for the estimates of later ones. `seconds`: of the whole run. None: nothing was planned, or it
    did not compute as planned."""
    planned = prepared.planner.estimate(prepared.recipe, loop.memory.fit, linear_head=prepared.linear_head)
    share = result.steps / result.total_steps
    if not planned.seconds or not result.seconds or result.lowered or result.diverged_at is not None:
        return None
    return Speed(
        device=prepared.known.device,
        processes=prepared.known.processes,
        base=prepared.known.base,
        parameters=prepared.known.parameters,
        quantization=prepared.recipe.quantization.value,
        seconds=round(result.seconds / (planned.seconds * share), 4),
        memory=round((result.peak_memory_bytes or planned.memory_bytes) / planned.memory_bytes, 4),
        tokens_per_second=round(prepared.planner.data.tokens * share / result.seconds, 1),
        other_seconds=round(max(0.0, seconds - loop.here), 1),
        at=time.time(),
    )


def _attention(document: dict[str, JsonValue]) -> str:
    attention, packing = document["attention"], document["packing"]
    assert isinstance(attention, dict) and isinstance(packing, dict)
    return f"{attention['value']}: {attention['reason']}; {packing['reason']}"


def save(plan: Plan, prepared: Prepared, loop: Loop, result: TrainingResult, out: Path) -> None:
    """Write it all below `out`."""
    loop.reporter.write_results()
    draw(loop.reporter.rows(), result.saved_step if prepared.validation else None, out / "curves.png")
    folder = out / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    adapter.save_adapter(loop.model, folder, plan, prepared.base)
    (folder / "README.md").write_text(model_card(result))
    if (graphs := loop.stepper.graphs) is not None:
        prepared = prepared.saying(cuda_graphs=(graphs.refused is None, graphs.outcome))
    if (offload := loop.memory.offload) is not None and offload.refused is not None:
        prepared = prepared.saying(offload=(False, f"given up, and kept on the GPU: {offload.refused}"))
    prepared.with_outcome(result).write(out)
    (out / "result.json").write_text(json.dumps(result.model_dump(mode="json"), indent=2) + "\n")
