"""What the processes of a training share: sums over all of them, and decisions that all take alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from services.trainer.domain.packing import shares
from services.trainer.engine.messages import ProcessLost
from services.trainer.engine.parallel.peers import Place

PATIENCE = timedelta(minutes=10)
"""So long one process waits for another. They do the same work beside each other, so this is a hang."""
ONE_MACHINE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""The processes talk over the loopback interface, which is there in every container."""

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its name before torch 2.13


class Group:
    """A process by itself. Nothing here does anything; a group of `Several` has the same methods."""

    number = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reports and writes."""
        return self.number == 0

    def split(self, items: Sequence[int], lengths: Sequence[tuple[int, ...]]) -> Sequence[int]:
        """Those of `items` that this process computes. `lengths`: the tokens of the sequences of each."""
        return shares(items, lengths, self.size)[self.number]

    def seed(self, seed: int, step: int) -> None:
        """Let the peers draw other random numbers than the leader in a step, and the same whenever it is repeated."""

    def any(self, here: bool) -> bool:
        """Whether something is so in any process. All must ask the same questions in the same order."""
        return here

    def most(self, here: int) -> int:
        """The largest of a number in each process."""
        return here

    def same(self, *what: str) -> None:
        """Check that all processes say the same.

        Raises:
            ProcessLost: they do not.
        """

    def sum(self, tensor: Any) -> None:
        """Add up a tensor of all processes, in each of them. A group of one leaves it as it is."""

    def copy(self, tensors: Iterable[Any]) -> None:
        """Copy the tensors of the leader into those of its peers."""

    def gather(self, whole: Any, part: Any) -> Callable[[], None]:
        """Begin to put the parts of all processes behind each other into `whole`. It holds them for what is launched
        after a call of what this returns."""
        whole.copy_(part)
        return lambda: None

    def gradients(self, parameters: Sequence[Any]) -> Any:
        """The gradients of this process in one tensor, so that `sum_gradients` needs no memory; None: alone."""

    def sum_gradients(self, gradients: Any, parameters: Sequence[Any]) -> None:
        """Give `parameters` the sums of what `gradients` has returned in each process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the group: after the last step all do at the same time."""


ALONE = Group()


class Several(Group):
    """A group of several processes on one machine, each with a device of its own: over NCCL on GPUs, over gloo on CPUs.

    What is agreed on goes over gloo from the CPU, so that no GPU is waited for. Whoever has to wait for longer than
    `PATIENCE` raises; within a kernel of NCCL the process is ended, instead.

    Raises:
        ProcessLost: another process has ended, or hangs. So do all methods.
    """

    def __init__(self, place: Place, device: Any) -> None:
        self.number, self.size = place.number, place.of
        for name, value in ONE_MACHINE.items():
            os.environ.setdefault(name, value)
        self._on_gpu = device.type == "cuda"

        def join() -> None:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self._on_gpu else "gloo",
                store=dist.FileStore(str(place.folder / "store"), place.of),
                rank=place.number,
                world_size=place.of,
                timeout=PATIENCE,
            )
            # NCCL takes its memory with the first sum: before what fits beside it is measured.
            dist.all_reduce(torch.zeros(1, device=device))

        self._call(join)

    def seed(self, seed: int, step: int) -> None:
        if not self.leads:
            torch.manual_seed((seed * 1_000_003 + step) * 1009 + self.number)

    def any(self, here: bool) -> bool:
        return self.most(int(here)) > 0

    def most(self, here: int) -> int:
        return int(self._agreed([here])[0])

    def same(self, *what: str) -> None:
        digest = int.from_bytes(sha256("\n".join(what).encode()).digest()[:7], "big")
        most, least = self._agreed([digest, -digest])
        if most != -least:
            raise ProcessLost("the processes that train together have not read the same data, settings or base")

    def sum(self, tensor: Any) -> None:
        self._call(lambda: dist.all_reduce(tensor))

    def copy(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            self._call(partial(dist.broadcast, tensor.detach(), 0))

    def gather(self, whole: Any, part: Any) -> Callable[[], None]:
        begun: list[Any] = []
        self._call(lambda: begun.append(_all_gather(whole, part, async_op=True)))
        return lambda: self._call(begun[0].wait)

    def gradients(self, parameters: Sequence[Any]) -> Any:
        # A process may have had none of the rows of a small batch.
        each = (p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters)
        return torch.cat([gradient.flatten() for gradient in each])

    def sum_gradients(self, gradients: Any, parameters: Sequence[Any]) -> None:
        self.sum(gradients)
        for parameter, sums in zip(parameters, gradients.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = sums.view_as(parameter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # NCCL may wait for the others here, and after an error they may be gone. Then the process ends soon, too.
        if error is None or not self._on_gpu:
            self._call(dist.destroy_process_group)

    def _agreed(self, numbers: list[int]) -> list[int]:
        asked = torch.tensor(numbers, dtype=torch.int64)
        self._call(lambda: dist.all_reduce(asked, dist.ReduceOp.MAX))
        return [int(number) for number in asked]

    def _call(self, collective: Callable[[], Any]) -> None:
        try:
            collective()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ProcessLost("the processes that train together have lost each other, or one of them hangs") from error
