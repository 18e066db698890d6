"""Finds what fits into the memory of the device: how many tokens it computes at a time, and whether activations are
kept or recomputed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import torch

from services.trainer.domain.fits import LEAN_ON_CPU, LEAN_ON_GPU, ON_CPU, ON_GPU, Fit
from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Tensors
from services.trainer.engine.fast.frozen import stay_restored
from services.trainer.engine.model.offload import Offload
from services.trainer.engine.model.recompute import recompute_activations
from services.trainer.engine.parallel.group import ALONE, Group
from services.trainer.engine.parallel.shards import Shards
from shared.errors import InputError, TransientError

T = TypeVar("T")
Item = TypeVar("Item")


def fits_of(device: Any, *, lean: bool = False) -> tuple[Fit, ...]:
    """What may be tried on a device, in this order. `lean`: only those that recompute all activations."""
    if lean:
        return LEAN_ON_CPU if device.type == "cpu" else LEAN_ON_GPU
    return ON_CPU if device.type == "cpu" else ON_GPU


FREE_GPU_MEMORY = (
    "leave training more of the GPU: lower TUNESTREAM_VLLM__GPU_MEMORY_UTILIZATION, or set "
    "TUNESTREAM_GPU__SHARE=alternate, if vLLM is on it too"
)


SLACK = 0.1
"""The share of the memory that drivers and a desktop may have, and a vLLM beside the share that it was given."""
_TAKEN = (
    "CUDA error: out of memory",
    "CUDA error: all CUDA-capable devices are busy or unavailable",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
)
"""What CUDA says before anything is allocated: there is no room even for its own context."""


def others(device: Any) -> int:
    """Bytes of the GPU's memory that other processes hold."""
    free, total = torch.cuda.mem_get_info(device)
    return max(0, int(total - free - torch.cuda.memory_reserved(device)))


def taken_by_others(held: int, total: int, served: float) -> TransientError | None:
    """The error to raise instead of one about the user's settings, if other processes hold more of the memory than they
    should: `held` of `total` bytes. `served`: the share of it that a model server may have."""
    if held <= (served + SLACK) * total:
        return None
    return TransientError(
        f"other processes hold {held / 2**30:.0f} of the {total / 2**30:.0f} GiB of the GPU's memory, and training "
        f"does not fit beside them: end them, or {FREE_GPU_MEMORY}"
    )


@contextmanager
def gpu_in_use() -> Iterator[None]:
    """Explain that the GPU is full, or taken, before the training has any of it.

    Raises:
        TransientError: other processes have it.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise  # the training's own, of which more is known where it happens
    except RuntimeError as error:
        if not str(error).startswith(_TAKEN):
            raise
        raise TransientError(f"other processes have the whole GPU: end them, or {FREE_GPU_MEMORY}") from error


def load_onto_device(load: Callable[[], T], device: Any, served: float = 1.0) -> T:
    """Call `load`, which puts the base model on `device`, and return what it returns. `served`: the share of the memory
    that a model server may have.

    Raises:
        InputError: `out_of_memory`: it does not fit.
        TransientError: it does not fit because other processes hold more than `served`.
    """
    if device.type == "cpu":
        return load()
    # Read before loading, because the memory of a failed try is not freed at once.
    free, total = torch.cuda.mem_get_info(device)
    held = others(device)
    try:
        return load()
    except torch.cuda.OutOfMemoryError:
        if error := taken_by_others(held, total, served):
            raise error from None
        raise InputError(
            "out_of_memory",
            f"the base model does not fit on the GPU, where {free / 2**30:.1f} of {total / 2**30:.1f} GiB were free: "
            f"choose a smaller base model or lora.quantization 'nf4', let several GPUs hold it together "
            f"(TUNESTREAM_TRAINER__GPUS), or {FREE_GPU_MEMORY}",
            "model",
        ) from None


def forget_failed_try() -> None:
    """Give back what a try that ran out of memory had, once nothing refers to it; its peak does not count."""
    gc.collect()
    torch.cuda.empty_cache()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def garbage_apart() -> Iterator[None]:
    """Within the block, Python's garbage collector leaves alone what is there at its begin: libraries and the model are
    millions of objects, and each time that it went through them, a GPU waited for up to 13 ms."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # a failed try gives its memory back


class Memory:
    """The fit of one model on one device, or on that of each process of a group. It shrinks when memory runs out."""

    def __init__(
        self,
        model: Any,
        device: Any,
        longest: int,
        served: float = 1.0,
        group: Group = ALONE,
        *,
        lean: bool = False,
        shards: Shards | None = None,
        offload: Offload | None = None,
    ) -> None:
        """`longest`: tokens of the longest sequence, for the message if not even that one fits. `served`: the share of
        the device's memory that a model server may have. `lean`: activations are recomputed from the start.
        `shards`: of the base, if it is divided among the group. `offload`: see `recompute_activations`."""
        self.shards = shards
        self.offload = offload
        self.group = group
        self.model = model
        self.device = device
        self.longest = longest
        self.served = served
        self.lowered: Callable[[Fit], None] = lambda _fit: None
        """Is called with the smaller fit when memory has run out."""
        self._fits = fits_of(device, lean=lean)
        self.fit = self._fits[0]
        if lean:
            recompute_activations(model, "all", offload)

    def use(self, fit: Fit) -> None:
        """Use a fit: where the search begins, once the model is as it will be; or what was found before, so that a
        resumed run computes in the same way as the interrupted one. A fit for another kind of device is ignored."""
        if fit in self._fits:
            self.fit = fit
            recompute_activations(self.model, fit.recomputed, self.offload)
            stay_restored(self.model, fit.restored)

    def within(self, work: Callable[[int], T], random_before: Tensors | None = None) -> T:
        """Call `work(micro_tokens)`, again with the next smaller fit each time memory runs out.

        Each call starts with the same random state. `random_before`: that of all but the first, which goes on with what
        was begun from there. All processes of a group do this together, and where memory runs out in one of them, all
        begin anew; so `work` must not wait for another process, except by `each`.

        Raises:
            InputError: `out_of_memory`, when not even one row fits.
            TransientError: the same, while other processes hold more of the memory than they should.
        """
        random_before = random_before or checkpoints.capture_random()
        while True:
            rounds = 0 if self.shards is None else self.shards.rounds
            done: list[T] = []
            # The exception holds the tensors of the failed try: only after this block can they be freed.
            with suppress(torch.cuda.OutOfMemoryError):
                done.append(work(self.fit.micro_tokens))
            if not done and self.shards is not None and self.shards.rounds == rounds:
                raise self.exhausted(others(self.device))  # the others wait for this process within their passes
            if not self.group.any(not done):
                return done[0]
            done.clear()
            self._shrink()
            checkpoints.restore_random(random_before)

    def each(self, items: Sequence[Item], work: Callable[[Item], bool], *, returns: bool = False) -> bool:
        """Call `work` with each of `items`, which sends it through the model once (`returns`: and its gradient back),
        until it returns False instead. Returns whether it did all. Where the base is divided, all processes of a group
        do this together."""
        if self.shards is None:
            return all(work(item) for item in items)
        return self.shards.each(items, work, returns=returns)

    def _shrink(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None
        forget_failed_try()
        smaller = self._fits[self._fits.index(self.fit) + 1 :]
        if not smaller:
            raise self.exhausted(self.group.most(others(self.device)))
        self.use(smaller[0])
        self.lowered(smaller[0])

    def exhausted(self, held: int) -> InputError | TransientError:
        """The error to raise when nothing fits any more. `held`: the bytes of the memory that others have."""
        _, total = torch.cuda.mem_get_info(self.device)
        if error := taken_by_others(held, total, self.served):
            return error
        return InputError(
            "out_of_memory",
            f"the GPU's memory does not hold even one row of {self.longest} tokens: lower "
            "hyperparameters.max_length, hyperparameters.batch_size or lora.r, choose a smaller base model, "
            f"or {FREE_GPU_MEMORY}",
            "hyperparameters.max_length",
        )

    @property
    def dtype(self) -> Any:
        """What layers compute in."""
        return self.model.get_base_model().dtype if self.device.type == "cpu" else torch.bfloat16

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast on a GPU: the adapter's float32 weights compute in bfloat16, as the base does."""
        if self.device.type == "cpu":
            return nullcontext()
        autocast: AbstractContextManager[Any] = torch.autocast("cuda", dtype=self.dtype)
        return autocast
