"""Chooses how a run computes, and gives the user a reason for each choice: the quantization of the base, fused
layers, recorded launches, and where the search for what fits into memory begins. It knows only facts, so it can be
tried for any GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from services.trainer.domain import memory_plan
from services.trainer.domain.auto import Choice
from services.trainer.domain.fits import Fit
from services.trainer.domain.memory_plan import GIB, Amount, Load, Need, Shape, Way
from services.trainer.domain.packing import MASKED_GPU_ROW
from services.trainer.domain.plan import Switches
from services.trainer.domain.speeds import Estimate
from services.trainer.domain.utilization import Cost
from shared.errors import InputError

FP8_CAPABILITY = (8, 9)
"""The first compute capability with products of 8-bit floats: NVIDIA's Ada generation."""
SPARE = 0.05
"""The share of the free memory that bf16 must leave, to be chosen where nobody asked for it."""
USUAL_ROW = 2048
"""bf16 must have room for micro-batches of so many tokens."""
HOST_SHARE = 0.5
"""Of the host's memory that is free, the share that may be pinned for the inputs of recomputed layers."""
GRAPH_SECONDS = 2.0
"""What capturing CUDA graphs costs: 0.27 s for each shape of a micro-batch on an H100, of which a run had six."""
ALL = Switches()


@dataclass(frozen=True)
class Device:
    """`total`, `free`: bytes of its memory, and those that the training may use. `capability`: CUDA's compute
    capability; (0, 0) on a CPU. `host_free`: of the memory of the host; None: it is not known."""

    cuda: bool
    name: str
    total: int
    free: int
    capability: tuple[int, int] = (0, 0)
    host_free: int | None = None


@dataclass(frozen=True)
class Base:
    """`attention`: the implementation that was chosen for it. `lacks`: what it has that fast paths do not know, for
    people: soft-capped logits, sinks, sliding windows, experts. `silu`: the function in its MLP is that one, so that it
    is one operation with its adapters on a GPU. `cost`: of a token; None: it is not known."""

    shape: Shape
    attention: str = "varlen"
    shares_keys: bool = True
    experts: bool = False
    silu: bool = True
    lacks: tuple[str, ...] = ()
    cost: Cost | None = None


@dataclass(frozen=True)
class Data:
    """`tokens`: of all epochs. `longest`: the tokens of the longest item; a preference pair has two sequences. `most`:
    the most tokens in a step. `validated`: tokens of all validations."""

    tokens: int
    longest: int
    most: int
    steps: int
    validated: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How a run computes. `begin`: the fit to try first."""

    quantization: Choice[str]
    fused_lora: Choice[bool]
    cuda_graphs: Choice[bool]
    begin: Choice[Fit]
    automatic: bool
    """Nobody asked for the quantization."""
    sharded: Choice[bool]
    """Whether the processes divide the base among them."""
    offload: Choice[bool]
    """Whether the inputs of layers wait in the memory of the host where all layers are recomputed."""

    def document(self) -> dict[str, JsonValue]:
        """In the form of `Chosen.document`. The quantization is in that."""
        switches = {
            "fused_lora": self.fused_lora,
            "cuda_graphs": self.cuda_graphs,
            "sharded": self.sharded,
            "offload": self.offload,
        }
        found: dict[str, JsonValue] = {
            name: {"value": choice.value, "reason": choice.reason} for name, choice in switches.items()
        }
        reason = self.begin.reason
        found["micro_tokens"] = {"value": self.begin.value.micro_tokens, "reason": reason}
        found["recompute"] = {"value": self.begin.value.recomputed, "reason": reason}
        if self.quantization.value == "nf4":
            found["restored"] = {"value": self.begin.value.restored, "reason": reason}
        return found


@dataclass(frozen=True)
class Planner:
    """Plans a run from what is known of it. `adapter`: parameters of the adapter. `tuned_mlp`: see `Way`. `repeats`:
    what a micro-batch launches depends on the shape of its rows only: no pairs, no dropout. `processes`: so many train
    together, each on a GPU like `device`. `width`: bytes of a number that is computed with."""

    device: Device
    base: Base
    data: Data
    adapter: int
    tuned_mlp: bool = True
    repeats: bool = True
    switches: Switches = ALL
    processes: int = 1
    width: int = 2

    def plan(self, asked: str, fits: Sequence[Fit], *, kept: str | None = None) -> Recipe:
        """Choose. `asked`: `lora.quantization`. `fits`: what may be tried, the fastest first. `kept`: the quantization
        of the checkpoint that the run continues from.

        Raises:
            InputError: fp8 was asked for, and cannot be computed here; or the base does not fit on all GPUs together.
        """
        return self.with_quantization(self._quantization(asked, kept), fits, automatic=asked == "auto")

    def with_quantization(self, quantization: Choice[str], fits: Sequence[Fit], *, automatic: bool) -> Recipe:
        """The rest of the recipe for a quantization."""
        fused = self._fused()
        sharded = self._sharded(quantization.value, fits[-1])
        offload = self._offload(fits)
        way = self._way(quantization.value, fused=fused.value, sharded=sharded.value, offload=offload.value)
        begin = self._begin(way, fits)
        graphs = self._graphs(way, begin.value)
        return Recipe(quantization, fused, graphs, begin, automatic, sharded, offload)

    def estimate(self, recipe: Recipe, fit: Fit, *, linear_head: bool = True) -> Estimate:
        """Memory and time of the run with this recipe, if `fit` is what it computes with."""
        way = replace(
            self._way(recipe.quantization.value, fused=recipe.fused_lora.value, sharded=recipe.sharded.value),
            offload=recipe.offload.value,
            graphs=recipe.cuda_graphs.value,
            linear_head=linear_head,
        )
        speed = seconds = None
        if (cost := self.base.cost) is not None:
            amount, shape = self._amount(fit), self.base.shape
            each = amount.tokens / max(1, amount.micro_batches)
            speed = memory_plan.tokens_per_second(cost, shape, way, each, recompute=fit.again)
            seconds = memory_plan.seconds(cost, shape, way, amount, recompute=fit.again)
        return Estimate(self._need(way, fit), speed, seconds)

    # --- choices --------------------------------------------------------------------------------------------------

    def _quantization(self, asked: str, kept: str | None) -> Choice[str]:
        if asked == "fp8":
            check_fp8(self.device)
        if asked != "auto":
            return Choice(asked, "as set")
        continued = "that of the checkpoint that the run continues from"
        if kept == "nf4":
            return Choice(kept, continued)
        if not self.device.cuda:
            return Choice("nf4", "on a CPU, where it takes the least memory")
        bf16 = self._way("none", fused=self._fused().value)
        row = max(USUAL_ROW, self.data.longest)
        wanted = self._need(bf16, Fit(micro_tokens=row, recompute=True)).total
        room = f"{_gib(wanted)} of the {_gib(self.device.free)} GiB that are free"
        if kept == "none" and wanted <= self.device.free:
            return Choice(kept, continued)
        if wanted > self.device.free * (1 - SPARE):
            return Choice("nf4", f"bf16, which is what is served, would take {room}")
        return Choice("none", f"bf16, which is what is served, fits: at least {room}")

    def _fused(self) -> Choice[bool]:
        if self.switches.fused_lora is False:
            return Choice(False, "switched off")
        return Choice(True, "base and adapter in one product, with a backward pass of its own")

    def _sharded(self, quantization: str, leanest: Fit) -> Choice[bool]:
        if self.processes == 1:
            return Choice(False, "there is one process")
        if self.switches.sharded is not None:
            return Choice(self.switches.sharded, "as set")
        if not self.device.cuda:
            return Choice(False, "on a CPU all processes have the same memory")
        whole, divided = (self._way(quantization, fused=self._fused().value, sharded=on) for on in (False, True))
        wanted, free = self._need(whole, leanest).total, self.device.free
        room = f"{_gib(wanted)} of the {_gib(free)} GiB that are free"
        if wanted <= free:
            return Choice(False, f"one GPU holds the base: at least {room}")
        least = self._need(divided, leanest)
        if (part := least.weights + least.adapter) > free:
            smaller = "" if quantization == "nf4" else " or lora.quantization 'nf4'"
            raise InputError(
                "out_of_memory",
                f"the base model does not fit on {self.processes} GPUs: divided among them, it takes, with the "
                f"adapter, {_gib(part)} GiB of each, of which {_gib(free)} are free. Use more GPUs "
                f"(TUNESTREAM_TRAINER__GPUS), choose a smaller base model{smaller}, or leave training more of the "
                "GPUs, if others are on them too",
                "model",
            )
        return Choice(True, f"one GPU does not hold the base: it would take at least {room}")

    def _offload(self, fits: Sequence[Fit]) -> Choice[bool]:
        if self.switches.offload is not None:
            return Choice(self.switches.offload, "as set" if self.switches.offload else "switched off")
        if not self.device.cuda:
            return Choice(False, "on a CPU there is no other memory")
        largest = max((self._micro(fit) for fit in fits if fit.again == 1.0), default=0)
        way = self._way("none", fused=True)
        wanted = self.processes * memory_plan.host_bytes(self.base.shape, way, Load(largest, largest))
        host_free = self.device.host_free
        room = f"where all layers are recomputed, their inputs, up to {_gib(wanted)}"
        if host_free is None:
            return Choice(True, f"{room} GiB, wait in the memory of the host")
        room = f"{room} of the {_gib(host_free)} GiB of the host's memory that are free"
        if wanted > HOST_SHARE * host_free:
            return Choice(False, f"{room}, stay on the GPU: they would be more than half")
        return Choice(True, f"{room}, wait there")

    def _begin(self, way: Way, fits: Sequence[Fit]) -> Choice[Fit]:
        if len(fits) == 1:
            return Choice(fits[0], "the only one on this device")
        needs = [self._need(way, fit) for fit in fits]
        at = memory_plan.begin(needs, self.device.free)
        room = f"estimated {_gib(needs[at].total)} of the {_gib(self.device.free)} GiB that are free"
        return Choice(fits[at], f"{room}; where the search begins, before the first step")

    def _graphs(self, way: Way, fit: Fit) -> Choice[bool]:
        if refused := self._not_recordable(way, fit):
            return Choice(False, refused)
        if self.switches.cuda_graphs:
            return Choice(True, "as set")
        cost, amount = self.base.cost, self._amount(fit)
        if cost is None or not self.data.tokens:
            return Choice(False, "how long the run takes is not known")
        each = amount.tokens / max(1, amount.micro_batches)
        if not memory_plan.launch_bound(cost, self.base.shape, way, each, recompute=fit.again):
            return Choice(False, "the arithmetic takes longer than launching its kernels")
        saved = self._seconds(way, fit) - self._seconds(replace(way, graphs=True), fit)
        price = f"launches take longer than the arithmetic; recording takes {GRAPH_SECONDS:.0f} s, saves {saved:.0f} s"
        return Choice(saved > GRAPH_SECONDS, price)

    def _not_recordable(self, way: Way, fit: Fit) -> str | None:
        """Why what a micro-batch launches cannot be recorded; None: it can."""
        if not self.device.cuda:
            return "on a CPU, the layers run as they are"
        if self.switches.cuda_graphs is False:
            return "switched off"
        if self.base.experts:
            return "the base has experts, and how many tokens each gets differs"
        if self.base.attention != "varlen":
            return f"the base does not attend with the kernel for packed rows{self._because()}"
        if way.shards > 1:
            return "the weights of the base come from other GPUs meanwhile"
        if not self.repeats:
            return "dropout and preference pairs differ from micro-batch to micro-batch"
        if fit.recompute:
            return "activations are computed again"
        return None

    def _because(self) -> str:
        return f" ({', '.join(self.base.lacks)})" if self.base.lacks else ""

    # --- figures --------------------------------------------------------------------------------------------------

    def _way(self, quantization: str, *, fused: bool, sharded: bool = False, offload: bool = False) -> Way:
        return Way(
            quantization,
            cuda=self.device.cuda,
            fused=fused,
            attention=self.base.attention,
            shares_keys=self.base.shares_keys,
            tuned_mlp=self.tuned_mlp,
            whole_mlp=self.device.cuda and fused and self.tuned_mlp and self.base.silu and not self.base.experts,
            shards=self.processes if sharded else 1,
            width=self.width,
            offload=offload,
        )

    def _need(self, way: Way, fit: Fit) -> Need:
        tokens = self._micro(fit)
        row = tokens
        if way.attention != "varlen":  # a row of a CPU is as long as the longest sequence
            row = min(tokens, max(MASKED_GPU_ROW if way.cuda else 0, self.data.longest))
        load = Load(tokens, row)
        return memory_plan.need(
            self.base.shape, self.adapter, load, way, recompute=fit.recompute, part=fit.part, restored=fit.restored
        )

    def _micro(self, fit: Fit) -> int:
        """The tokens of the largest micro-batch."""
        return max(min(fit.micro_tokens, self.data.most), self.data.longest)

    def _amount(self, fit: Fit) -> Amount:
        per_step = self.data.tokens / max(1, self.data.steps)
        micro = max(1, -(-int(per_step) // max(fit.micro_tokens, self.data.longest, 1)))
        return Amount(self.data.tokens, self.data.validated, self.data.steps * micro)

    def _seconds(self, way: Way, fit: Fit) -> float:
        cost = self.base.cost
        assert cost is not None
        return memory_plan.seconds(cost, self.base.shape, way, self._amount(fit), recompute=fit.again)


def check_fp8(device: Device) -> None:
    """Raises:
    InputError: `unsupported_quantization`: this device does not compute in fp8.
    """
    if not device.cuda:
        where = "training runs on a CPU here"
    elif device.capability < FP8_CAPABILITY:
        has = ".".join(map(str, device.capability))
        where = f"{device.name} has compute capability {has}, and fp8 needs {'.'.join(map(str, FP8_CAPABILITY))}"
    else:
        return
    raise InputError(
        "unsupported_quantization",
        f"lora.quantization is 'fp8', but {where}: use 'auto', 'none' (bf16) or 'nf4'",
        "lora.quantization",
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
