"""What is chosen before the weights are loaded: the rows that are trained on, the hyperparameters, and the planner.
The training process and `tunestream estimate` call the same functions, so they cannot differ. Nothing here needs
torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.trainer.domain.auto import Chosen, Facts, choose, choose_max_length
from services.trainer.domain.layers import Layers, cost_of_token, shape_of, targets_of
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Base, Data, Device, Planner
from services.trainer.domain.schedule import QUICK_ROWS, Steps, validation_steps
from services.trainer.engine.data.dataset import Dataset

MLP = ("up", "gate", "down", "fc", "mlp", "feed_forward", "ffn", "w1", "w2", "w3")
"""What the names of an MLP's layers hold."""
Order = Callable[[int, int, int], Sequence[int]]
"""The order of so many rows in an epoch, by seed and epoch."""


@dataclass(frozen=True)
class Sizes:
    """What the choices need to know of a base: the `config` of its text decoder, its `parameters`, and its layers.
    `context`: how many tokens it can read; None: it states no limit."""

    config: Any
    parameters: int
    layers: Layers
    context: int | None


@dataclass(frozen=True)
class Choices:
    """The rows that are left by the limit on their length, and the hyperparameters."""

    train: Dataset
    validation: Dataset | None
    chosen: Chosen


def choices(
    plan: Plan,
    sizes: Sizes,
    train: Dataset,
    validation: Dataset | None,
    start: tuple[int | None, int | None, bool | None] = (None, None, None),
) -> Choices:
    """Choose what is `auto`. `train`, `validation`: as they were read. `start`: rank, alpha and rsLoRA of the adapter
    that the run starts from.

    Raises:
        InputError: `over_length`: rows are too long, and the settings say that this ends the job.
    """
    longest = max(train.longest, validation.longest if validation else 0)
    max_length = choose_max_length(plan, sizes.context, longest)
    policy = plan.hyperparameters.over_length
    train = train.limited(max_length.value, policy, "training_file")
    if validation is not None:
        validation = validation.limited(max_length.value, policy, "validation_file")
    linears = sizes.layers.linears
    rank, alpha, rslora = start
    facts = Facts(
        examples=len(train.rows),
        trained_tokens=train.trained_tokens,
        parameters=sizes.parameters,
        parameters_per_rank=sum(linears[name] for name in targets_of(plan.lora, linears)),
        validation_examples=len(validation.rows) if validation else 0,
        start_rank=rank,
        start_alpha=alpha,
        start_rslora=rslora,
    )
    return Choices(train, validation, choose(plan, facts, max_length))


def planner(
    plan: Plan,
    sizes: Sizes,
    made: Choices,
    device: Device,
    order: Order,
    *,
    peak: float,
    attention: str,
    shares_keys: bool,
    lacks: tuple[str, ...] = (),
    processes: int = 1,
) -> Planner:
    """What is known of a run before its weights are loaded. `peak`: FLOP/s of the device; `attention`, `shares_keys`,
    `lacks`: see `Base` and `Way`; `processes`: how many train together."""
    linears, train = sizes.layers.linears, made.train
    targets = targets_of(plan.lora, linears)
    cost = cost_of_token(
        sizes.config,
        sizes.layers,
        squares=train.squares,
        tokens=train.tokens,
        trained_tokens=train.trained_tokens,
        peak=peak,
    )
    return Planner(
        device,
        Base(
            shape=shape_of(sizes.config, sizes.parameters, sizes.layers),
            attention=attention,
            shares_keys=shares_keys,
            experts=sizes.layers.experts,
            silu=getattr(sizes.config.get_text_config(), "hidden_act", None) in ("silu", "swish"),
            lacks=lacks,
            cost=cost,
        ),
        data_facts(plan, made.chosen, train, made.validation, order),
        adapter=made.chosen.lora_r.value * sum(linears[name] for name in targets),
        tuned_mlp=any(part in name.rsplit(".", 1)[-1] for name in targets for part in MLP),
        repeats=made.chosen.beta is None and not made.chosen.lora_dropout.value,
        switches=plan.switches,
        processes=processes,
    )


def data_facts(plan: Plan, chosen: Chosen, train: Dataset, validation: Dataset | None, order: Order) -> Data:
    """What all steps read."""
    steps = Steps(len(train.rows), chosen.batch_size.value, chosen.n_epochs.value)
    lengths = [sum(len(sequence) for item in row for sequence in item) for row in train.rows]
    most = 0
    for step in range(steps.total):
        epoch, begin = steps.position(step)
        rows = order(len(train.rows), chosen.seed.value, epoch)
        most = max(most, sum(lengths[row] for row in rows[begin : begin + steps.batch_size]))
    validated = 0.0
    if validation is not None:
        quick = validation.tokens * min(1.0, QUICK_ROWS / len(validation.rows))
        more = validation.tokens * steps.epochs if len(validation.rows) > QUICK_ROWS else 0
        validated = len(validation_steps(steps, plan.eval_every)) * quick + more
    return Data(
        tokens=sum(lengths) * steps.epochs,
        longest=max(sum(map(len, item)) for item in train.items),
        most=most,
        steps=steps.total,
        validated=validated,
    )
