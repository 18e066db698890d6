"""One training run from plan to result, phase by phase."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import JsonValue

from services.trainer.domain.auto import Chosen, Facts, choose, choose_max_length, choose_processes
from services.trainer.domain.overfitting import judge
from services.trainer.domain.packing import RowShape, row_shape
from services.trainer.domain.plan import Plan
from services.trainer.engine import checkpoints
from services.trainer.engine.data import kept
from services.trainer.engine.data.batches import SLOTS, Packer
from services.trainer.engine.data.dataset import Dataset, Encoder
from services.trainer.engine.forward import Forward
from services.trainer.engine.loop import Loop
from services.trainer.engine.loss import Dpo, Objective, Supervised, preferences
from services.trainer.engine.messages import HyperparametersChosen, PhaseBegan, Resumed, Started, TrainingResult
from services.trainer.engine.model import adapter, base, varlen
from services.trainer.engine.model.attention import heads_of
from services.trainer.engine.model.measured import Reading, measure
from services.trainer.engine.model.memory import Memory, gpu_in_use, load_onto_device
from services.trainer.engine.model.start import Start, read_start
from services.trainer.engine.model.targets import check_servable, targets_of
from services.trainer.engine.parallel.group import ALONE, Several
from services.trainer.engine.parallel.peers import Peers, Place
from services.trainer.engine.report.card import model_card
from services.trainer.engine.report.curves import draw
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.report.usage import cost_of, memory_in_use
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Validator
from shared.errors import InputError


@dataclass(frozen=True)
class Prepared:
    """What is known before the weights are loaded."""

    base: base.BaseFacts
    start: Start | None
    train: Dataset
    validation: Dataset | None
    chosen: Chosen
    document: dict[str, JsonValue]
    """What `hyperparameters.json` holds."""
    encoded: dict[str, Dataset]
    """Both splits as they were read, by the field of the job that names them."""


def run(
    plan: Plan, out: Path, reporter: Reporter, stop: Callable[[], bool], place: Place | None = None
) -> TrainingResult:
    """Train as `plan` says; everything is written below `out`, the result also as `result.json`. `place`: of a peer;
    None: of the process that was asked to train, which starts as many peers as the plan says.

    Raises:
        InputError: the data, the settings or the base are wrong.
        TransientError: the hub does not answer, and there is no local copy of the base; or others fill the GPU.
        ConfigError: there are fewer GPUs than the settings say.
        Interrupted: asked to stop; the newest checkpoint holds what was reached.
        ProcessLost: one of several processes has crashed.
    """
    with gpu_in_use():
        device = _device(plan, place.number if place else 0)
        with reporter.speaking(lambda: memory_in_use(device)):
            return _run(plan, out, reporter, stop, device, place)


def _run(
    plan: Plan, out: Path, reporter: Reporter, stop: Callable[[], bool], device: Any, place: Place | None
) -> TrainingResult:
    _configure_torch(plan, device)
    reporter.send(Started(at=time.time(), device=str(device), model=plan.model, base=plan.base.id, method=plan.method))
    resumed = _checkpoint(plan)

    reporter.phase("tokenize")
    handed = place.folder if place else None
    prepared = _prepare(plan, out, reporter, kernel=device.type == "cuda" and varlen.available(), handed=handed)

    reporter.send(HyperparametersChosen.model_validate({"at": time.time(), **_named(prepared.chosen)}))

    place = place or Place(0, _processes(plan, prepared, device), out / ".peers")
    with Peers(place, plan, partial(kept.hand_over, prepared.encoded), reporter) as peers:
        loop = _train(plan, prepared, out, reporter, peers.stopping(stop), device, place, resumed)
        reporter.phase("save")
        result = _result(plan, prepared, loop)
        if place.number == 0:
            _save(plan, prepared, loop, result, out)
    return result


def _train(
    plan: Plan,
    prepared: Prepared,
    out: Path,
    reporter: Reporter,
    stop: Callable[[], bool],
    device: Any,
    place: Place,
    resumed: Path | None,
) -> Loop:
    """Train to the end, in each process of the group alike. Returns the loop, with the trained model."""
    rows, sequences = len(prepared.train.rows), prepared.train.sequences
    reporter.send(PhaseBegan(at=time.time(), phase="load", rows=rows, sequences=sequences))
    tuned = load_onto_device(
        lambda: adapter.load(plan, prepared.base, prepared.chosen, device), device, plan.served_memory
    )

    reporter.phase("prepare")
    reporter.start_rows(b"")
    with Several(place, device) if place.of > 1 else ALONE as group:
        if prepared.start is not None:
            prepared.start.load_into(tuned)
        memory = Memory(tuned, device, prepared.train.longest, plan.served_memory, group)
        sequences_tried = [sequence for item in prepared.train.items[:2] for sequence in item]
        reading = memory.within(lambda _: measure(tuned, sequences_tried, memory.precision))
        _say_how_it_is_read(prepared, tuned, reading, out)
        group.copy(adapter.trainable(tuned).values())
        loop = _loop(plan, prepared, Forward(tuned, linear_head=reading.linear_head), reading, memory, reporter, stop)
        torch.manual_seed(plan.seed + 1)  # for dropout; the seed itself was used for the initial weights of the adapter
        if resumed is not None:
            loop.resume(resumed)
        group.same(loop.state.model_dump_json(), str(reading), tuned.config._attn_implementation)
        if resumed is not None:  # and read by all: whoever hears of it may remove it
            reporter.send(Resumed(at=time.time(), step=loop.state.step))
        loop.run()
    return loop


def _processes(plan: Plan, prepared: Prepared, device: Any) -> int:
    visible = torch.cuda.device_count() if device.type == "cuda" else None
    processes = choose_processes(plan.gpus, prepared.chosen.batch_size.value, visible)
    if plan.gpus != 1:
        prepared.document["gpus"] = {"value": processes.value, "reason": processes.reason}
    return processes.value


def _device(plan: Plan, number: int) -> Any:
    if plan.device == "cpu" or (plan.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("no_gpu", "device is 'cuda', but no GPU is visible: use 'auto', or check the driver", "device")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(
            "unsupported_gpu",
            f"the GPU ({torch.cuda.get_device_name(0)}) cannot compute in bfloat16, which training needs there: use "
            "one of NVIDIA's Ampere generation (compute capability 8.0) or newer, or set TUNESTREAM_TRAINER__GPU=cpu",
            "device",
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _named(chosen: Chosen) -> dict[str, Any]:
    """Those of the hyperparameters that OpenAI's API has."""
    return {name: value for name, value in chosen.values().items() if name in HyperparametersChosen.model_fields}


def _configure_torch(plan: Plan, device: Any) -> None:
    if plan.threads:
        torch.set_num_threads(plan.threads)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _checkpoint(plan: Plan) -> Path | None:
    if plan.resume_from is None:
        return None
    found = checkpoints.newest_complete(Path(plan.resume_from))
    if found is None:
        message = (
            f"{plan.resume_from!r} holds no complete checkpoint to continue from: name the folder `resume` of a run, "
            "or a step-N in it, or leave resume_from out"
        )
        raise InputError("no_checkpoint", message, "resume_from")
    return found


def _prepare(plan: Plan, out: Path, reporter: Reporter, *, kernel: bool, handed: Path | None = None) -> Prepared:
    """Encode the rows and choose the hyperparameters; write `preview.txt` and `hyperparameters.json`. `kernel`: see
    `choose_attention`. `handed`: the folder in which a peer finds the rows, encoded."""
    facts = base.inspect_base(plan, kernel=kernel)
    start = read_start(plan, facts.linears)
    encoder = Encoder(facts.tokenizer, facts.stop_ids, plan.format, plan.chat_template_kwargs)
    count_train = partial(reporter.count, total=plan.train_examples)
    train = kept.encoded(plan, facts, encoder, "training_file", Path(plan.train), count_train, handed)
    encoded = {"training_file": train}
    (out / "preview.txt").write_text(encoder.preview(train))
    validation = None
    if plan.validation:
        validation = kept.encoded(
            plan, facts, encoder, "validation_file", Path(plan.validation), reporter.count, handed
        )
        encoded["validation_file"] = validation
    longest = max(train.longest, validation.longest if validation else 0)
    max_length = choose_max_length(plan, facts.context, longest)
    policy = plan.hyperparameters.over_length
    train = train.limited(max_length.value, policy, "training_file")
    if validation is not None:
        validation = validation.limited(max_length.value, policy, "validation_file")
    measured = Facts(
        examples=len(train.rows),
        trained_tokens=train.trained_tokens,
        parameters=facts.parameters,
        parameters_per_rank=sum(facts.linears[name] for name in targets_of(plan.lora, facts.linears)),
        validation_examples=len(validation.rows) if validation else 0,
        start_rank=start.rank if start else None,
        start_alpha=start.alpha if start else None,
    )
    chosen = choose(plan, measured, max_length)
    check_servable(plan.lora, chosen.lora_r.value, plan.max_lora_rank, facts.linears, plan.served_linears)
    document = {**chosen.document(), **_of_the_base(plan, facts)}
    _write(out, document)
    return Prepared(facts, start, train, validation, chosen, document, encoded)


def _write(out: Path, document: dict[str, JsonValue]) -> None:
    (out / "hyperparameters.json").write_text(json.dumps(document, indent=2) + "\n")


def _of_the_base(plan: Plan, facts: base.BaseFacts) -> dict[str, JsonValue]:
    """What follows from the base alone, in the form of `Chosen.document`."""
    changed = sorted({name.rsplit(".", 1)[-1] for name in targets_of(plan.lora, facts.linears)})
    reason = "all linear layers of the text decoder" if plan.lora.target_modules == "all-linear" else "as set"
    not_tuned = f"; not tuned: {'; '.join(facts.layers.not_tuned)}" if facts.layers.not_tuned else ""
    return {
        "attention": {"value": facts.attention.implementation, "reason": facts.attention.reason},
        "target_modules": {"value": list[JsonValue](changed), "reason": f"{reason}{not_tuned}"},
    }


def _say_how_it_is_read(prepared: Prepared, tuned: Any, reading: Reading, out: Path) -> None:
    """Add what was found once the weights were there."""
    if reading.unsuitable:
        reason = f"the kernel for packed rows did not suit the base: {reading.unsuitable}"
        prepared.document["attention"] = {"value": tuned.config._attn_implementation, "reason": reason}
    prepared.document["packing"] = {"value": reading.packed, "reason": reading.reason}
    head = "logits are made and dropped chunk by chunk" if reading.linear_head else "the base's own does more than that"
    prepared.document["linear_head"] = {"value": reading.linear_head, "reason": head}
    _write(out, prepared.document)


def _loop(
    plan: Plan,
    prepared: Prepared,
    forward: Forward,
    reading: Reading,
    memory: Memory,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> Loop:
    chosen = prepared.chosen
    objective: Objective = Supervised() if chosen.beta is None else Dpo(chosen.beta.value)
    shape = _row_shape(forward.model, reading, memory)

    def packer(data: Dataset) -> Packer:
        made = Packer(data.items, prepared.base.pad_id, shape)
        if chosen.beta is not None:
            made.references = preferences(forward, made, memory)
        return made

    train, validation = prepared.train, prepared.validation
    stepper = Stepper(forward, objective, train, packer(train), chosen, memory=memory, stop=stop)
    validator = None
    if validation is not None:
        validator = Validator(forward, objective, validation, packer(validation), memory=memory, seed=plan.seed)
    cost = cost_of(prepared.base, train, memory.device, memory.group.size)
    return Loop(plan, stepper, validator, reporter, prepared.start.sha256 if prepared.start else None, cost)


def _row_shape(model: Any, reading: Reading, memory: Memory) -> RowShape:
    gpu = memory.device.type == "cuda"
    if model.config._attn_implementation != varlen.NAME:
        return row_shape(gpu=gpu, varlen=False, packed=reading.packed)
    most_tokens = max(memory.fit.micro_tokens, 2 * memory.longest)  # the sequences of a pair may need two rows
    most_documents = varlen.most_documents(most_tokens, *heads_of(model.config.get_text_config())) - SLOTS
    return row_shape(gpu=gpu, varlen=True, packed=reading.packed, most_documents=most_documents)


def _result(plan: Plan, prepared: Prepared, loop: Loop) -> TrainingResult:
    state = loop.state
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
    )


def _attention(document: dict[str, JsonValue]) -> str:
    attention, packing = document["attention"], document["packing"]
    assert isinstance(attention, dict) and isinstance(packing, dict)
    return f"{attention['value']}: {attention['reason']}; {packing['reason']}"


def _save(plan: Plan, prepared: Prepared, loop: Loop, result: TrainingResult, out: Path) -> None:
    loop.reporter.write_results()
    draw(loop.reporter.rows(), result.saved_step if prepared.validation else None, out / "curves.png")
    folder = out / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    adapter.save_adapter(loop.model, folder, plan, prepared.base)
    (folder / "README.md").write_text(model_card(result))
    (out / "result.json").write_text(json.dumps(result.model_dump(mode="json"), indent=2) + "\n")
