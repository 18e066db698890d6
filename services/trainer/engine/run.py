"""One training run from plan to result, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from services.trainer.domain.auto import Choice, Chosen, choose_processes
from services.trainer.domain.budget import Limits
from services.trainer.domain.fits import Fit
from services.trainer.domain.layers import heads_of
from services.trainer.domain.packing import RowShape, row_shape
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import check_fp8
from services.trainer.domain.speeds import Known
from services.trainer.engine import checkpoints
from services.trainer.engine.data import kept
from services.trainer.engine.data.batches import SLOTS, Packer
from services.trainer.engine.data.dataset import Dataset, Encoder
from services.trainer.engine.fast import varlen
from services.trainer.engine.fast.dress import Pieces, dress
from services.trainer.engine.forward import Forward
from services.trainer.engine.loop import Loop
from services.trainer.engine.loss import Dpo, Objective, Supervised, preferences
from services.trainer.engine.messages import HyperparametersChosen, PhaseBegan, Resumed, Started, TrainingResult
from services.trainer.engine.model import adapter, base
from services.trainer.engine.model.attention import for_short_rows
from services.trainer.engine.model.compute import BFLOAT16, Compute, choose_compute
from services.trainer.engine.model.measured import Reading, hidden_of, measure
from services.trainer.engine.model.memory import (
    Memory,
    fits_of,
    forget_failed_try,
    garbage_apart,
    gpu_in_use,
    load_onto_device,
)
from services.trainer.engine.model.offload import Offload
from services.trainer.engine.model.start import read_start
from services.trainer.engine.model.targets import check_servable
from services.trainer.engine.parallel.group import ALONE, Several
from services.trainer.engine.parallel.loading import shards_of
from services.trainer.engine.parallel.peers import Peers, Place
from services.trainer.engine.report import speeds
from services.trainer.engine.report.choices import choices
from services.trainer.engine.report.forecast import device_facts, planner_of
from services.trainer.engine.report.outcome import result_of, save, speed_of
from services.trainer.engine.report.prepared import Prepared, of_the_base
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.report.spending import Spending
from services.trainer.engine.report.usage import cost_of, memory_in_use
from services.trainer.engine.state import compute_of, quantization_of
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Validator
from shared.errors import InputError


@dataclass(frozen=True)
class Task:
    """What a process is to train, once it is planned. `place`: in its group. `resumed`: the checkpoint that it
    continues from."""

    plan: Plan
    out: Path
    reporter: Reporter
    stop: Callable[[], bool]
    device: Any
    place: Place
    resumed: Path | None
    began: float
    """By the monotonic clock."""

    @property
    def fits(self) -> tuple[Fit, ...]:
        return fits_of(self.device, lean=self.plan.lean)


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
    began = time.monotonic()
    _configure_torch(plan, device)
    reporter.send(Started(at=time.time(), device=str(device), model=plan.model, base=plan.base.id, method=plan.method))
    if plan.lora.quantization == "fp8":
        check_fp8(device_facts(device))
    resumed = _checkpoint(plan)

    reporter.phase("tokenize")
    handed = place.folder if place else None
    prepared = _prepare(plan, out, reporter, device, resumed, handed)

    reporter.send(HyperparametersChosen.model_validate({"at": time.time(), **_named(prepared.chosen)}))

    if place is None:
        place = Place(0, prepared.planner.processes, out / ".peers")
    if place.of > 1:
        prepared = prepared.on(place.of)
    task = Task(plan, out, reporter, stop, device, place, resumed, began)
    result = None
    try:
        result = _attempt(task, prepared)
    except InputError as error:
        if not _fits_in_four_bits(error, prepared, resumed, reporter):
            raise
    if result is None:  # only here the failed try is gone from the GPU's memory
        forget_failed_try()
        reason = "bf16, which is what is served, did not fit into the GPU's memory, though it should have"
        recipe = prepared.planner.with_quantization(Choice("nf4", reason), task.fits, automatic=False)
        prepared = prepared.with_recipe(prepared.planner, recipe)
        prepared.write(out)
        result = _attempt(replace(task, resumed=None), prepared)
    return result


def _attempt(task: Task, prepared: Prepared) -> TrainingResult:
    """Train in all processes of the group, with the quantization and the type that the leader has chosen."""
    plan, device = task.plan, task.device
    kept_type = plan.compute or (compute_of(task.resumed) if task.resumed is not None else None)
    compute = choose_compute(prepared.base.stored, device, kept_type)
    bfloat16_on_cpu = device.type == "cpu" and compute.name == BFLOAT16
    attention = for_short_rows(prepared.base.attention, prepared.train.longest, bfloat16_on_cpu=bfloat16_on_cpu)
    prepared = prepared.computing(compute, attention)
    recipe = prepared.recipe
    alike = plan.as_chosen(recipe.quantization.value, compute.name, sharded=recipe.sharded.value)
    with Peers(task.place, alike, partial(kept.hand_over, prepared.encoded), task.reporter) as peers:
        prepared, loop = _trained(replace(task, plan=alike, stop=peers.stopping(task.stop)), prepared, compute)
        task.reporter.phase("save")
        result = result_of(plan, prepared, loop)
        if task.place.number == 0:
            save(plan, prepared, loop, result, task.out)
            if plan.speeds and (speed := speed_of(prepared, result, loop, time.monotonic() - task.began)) is not None:
                speeds.add(plan.speeds, speed)
    return result


def _trained(task: Task, prepared: Prepared, compute: Compute) -> tuple[Prepared, Loop]:
    """Load the base and train to the end, in each process of the group alike."""
    plan, device, reporter, place = task.plan, task.device, task.reporter, task.place
    rows, sequences = len(prepared.train.rows), prepared.train.sequences
    reporter.send(PhaseBegan(at=time.time(), phase="load", rows=rows, sequences=sequences))
    load = partial(adapter.load, divided=place) if prepared.recipe.sharded.value else adapter.load
    tuned = load_onto_device(
        lambda: load(plan, prepared.base, prepared.chosen, device, compute), device, plan.served_memory
    )

    reporter.phase("prepare")
    reporter.start_rows(b"")
    with Several(place, device) if place.of > 1 else ALONE as group:
        if prepared.start is not None:
            prepared.start.load_into(tuned)
        if (shards := shards_of(tuned)) is not None:
            shards.join(group, tuned)
        longest = prepared.train.longest
        offload = Offload(device) if prepared.recipe.offload.value else None
        memory = Memory(
            tuned, device, longest, plan.served_memory, group, lean=plan.lean, shards=shards, offload=offload
        )
        sequences_tried = [sequence for item in prepared.train.items[:2] for sequence in item]
        reading = memory.within(lambda _: measure(tuned, sequences_tried, memory.precision))
        if not plan.packed:
            reading = replace(reading, packed=False, reason="one document a row: as set")
        pieces = Pieces.of(prepared.recipe, plan.switches)
        hidden = partial(hidden_of, tuned, sequences_tried, memory.precision)
        dressed = memory.within(lambda _: dress(tuned, pieces, hidden))
        prepared = prepared.as_read(tuned, reading, task.fits).dressed(dressed)
        prepared.write(task.out)
        memory.use(task.fits[group.most(task.fits.index(prepared.recipe.begin.value))])
        group.copy(adapter.trainable(tuned).values())
        loop = _loop(task, prepared, Forward(tuned, linear_head=reading.linear_head), reading, memory)
        loop.state.compute = compute.name if device.type == "cpu" else None
        torch.manual_seed(plan.seed + 1)  # for dropout; the seed itself was used for the initial weights of the adapter
        if task.resumed is not None:
            loop.resume(task.resumed)
        group.same(loop.state.model_dump_json(), str(reading), tuned.config._attn_implementation)
        if task.resumed is not None:  # and read by all: whoever hears of it may remove it
            reporter.send(Resumed(at=time.time(), step=loop.state.step))
        with garbage_apart():
            loop.run()
    return prepared, loop


def _fits_in_four_bits(error: InputError, prepared: Prepared, resumed: Path | None, reporter: Reporter) -> bool:
    """Whether to try again with a quantized base: nobody asked for bf16, which took too much memory before this process
    took a step. What others hold of the GPU may have grown since the plan was made."""
    before = checkpoints.step_of(resumed.name) or 0 if resumed is not None else 0
    taken = len(reporter.rows()) - before if reporter.rows_file.is_file() else 0
    recipe = prepared.recipe
    return error.code == "out_of_memory" and recipe.automatic and recipe.quantization.value == "none" and taken <= 0


def _processes(plan: Plan, chosen: Chosen, device: Any) -> Choice[int]:
    visible = torch.cuda.device_count() if device.type == "cuda" else None
    return choose_processes(plan.gpus, chosen.batch_size.value, visible)


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


def _prepare(
    plan: Plan, out: Path, reporter: Reporter, device: Any, resumed: Path | None, handed: Path | None = None
) -> Prepared:
    """Encode the rows and choose hyperparameters and recipe; write `preview.txt` and `hyperparameters.json`. `handed`:
    the folder in which a peer finds the rows, encoded."""
    facts = base.inspect_base(plan, kernel=device.type == "cuda" and varlen.available())
    start = read_start(plan, facts.linears)
    encoder = Encoder(facts.tokenizer, facts.stop_ids, plan.format, plan.chat_template_kwargs)
    count_train = partial(reporter.count, total=plan.train_examples)
    read = partial(kept.encoded, plan.encoded, encoder)
    train = read(Path(plan.train), "training_file", count_train, handed)
    encoded = {"training_file": train}
    (out / "preview.txt").write_text(encoder.preview(train))
    validation = None
    if plan.validation:
        validation = read(Path(plan.validation), "validation_file", reporter.count, handed)
        encoded["validation_file"] = validation
    begun = (start.rank, start.alpha, start.rslora) if start else (None, None, None)
    made = choices(plan, facts.sizes, train, validation, begun)
    chosen = made.chosen
    check_servable(plan.lora, chosen.lora_r.value, plan.max_lora_rank, facts.linears, plan.served_linears)
    processes = _processes(plan, chosen, device)
    planner = planner_of(plan, facts, made, device, processes.value)
    recipe = planner.plan(
        plan.lora.quantization, fits_of(device, lean=plan.lean), kept=quantization_of(resumed) if resumed else None
    )
    known = Known(tuple(speeds.read(plan.speeds)), planner.device.name, plan.base.id, facts.parameters)
    found = Prepared(
        facts, start, made.train, made.validation, chosen, planner, recipe, of_the_base(plan, facts), encoded, known
    )
    found = found.with_recipe(planner, recipe)
    if plan.gpus != 1:
        found = found.saying(gpus=(processes.value, processes.reason))
    found.write(out)
    return found


def _loop(task: Task, prepared: Prepared, forward: Forward, reading: Reading, memory: Memory) -> Loop:
    plan, stop, chosen = task.plan, task.stop, prepared.chosen
    objective: Objective = Supervised() if chosen.beta is None else Dpo(chosen.beta.value)
    graphs = prepared.recipe.cuda_graphs.value
    shape = _row_shape(forward.model, reading, memory, recorded=_recorded_multiple(prepared) if graphs else None)

    def packer(data: Dataset) -> Packer:
        made = Packer(data.items, prepared.base.pad_id, shape)
        if chosen.beta is not None:
            made.references = preferences(forward, made, memory)
        return made

    train, validation = prepared.train, prepared.validation
    stepper = Stepper(forward, objective, train, packer(train), chosen, memory=memory, stop=stop, graphs=graphs)
    validator = None
    if validation is not None:
        validator = Validator(forward, objective, validation, packer(validation), memory=memory, seed=plan.seed)
    start = prepared.start.sha256 if prepared.start else None
    cost = cost_of(prepared.base, train, memory.device, memory.group.size)
    spending = None
    if plan.budget is not None:
        limits = Limits(plan.budget, plan.price_per_gpu_hour, memory.group.size)
        spending = Spending(limits, time.monotonic() - task.began)
    return Loop(plan, stepper, validator, task.reporter, start, cost, prepared.forecast, spending)


def _recorded_multiple(prepared: Prepared) -> int:
    """Padding costs a small base nothing but a large one time."""
    return 1024 if prepared.base.parameters < 2e9 else 512


def _row_shape(model: Any, reading: Reading, memory: Memory, *, recorded: int | None) -> RowShape:
    gpu = memory.device.type == "cuda"
    if model.config._attn_implementation != varlen.NAME:
        return row_shape(gpu=gpu, varlen=False, packed=reading.packed)
    most_tokens = max(memory.fit.micro_tokens, 2 * memory.longest)  # the sequences of a pair may need two rows
    most_documents = varlen.most_documents(most_tokens, *heads_of(model.config.get_text_config())) - SLOTS
    return row_shape(gpu=gpu, varlen=True, packed=reading.packed, most_documents=most_documents, recorded=recorded)
