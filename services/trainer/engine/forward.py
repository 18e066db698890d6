"""Packed rows through the model: from tokens to the loss of each predicted token."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from services.trainer.engine.data.batches import Batch
from services.trainer.engine.fast import varlen
from services.trainer.engine.fast.head import TokenLosses, plain_losses, token_losses


class Forward:
    """A model that reads packed rows. `linear_head`: its logits are a plain linear product, so that they need not be
    held (`model/measured.py` finds out).

    Logits are computed only at predicted positions: these are picked out right before the model's own head, wherever
    its class has it.
    """

    def __init__(self, model: Any, *, linear_head: bool) -> None:
        self.model = model
        self.linear_head = linear_head
        self._head = model.get_base_model().get_output_embeddings()
        self._takes = inspect.signature(model.get_base_model().forward).parameters

    def losses(self, batch: Batch) -> TokenLosses:
        """The loss of each of the batch's targets."""
        if self.linear_head:
            return token_losses(self.hidden(batch), self._head, batch.targets)
        return plain_losses(self.logits(batch), batch.targets)

    def hidden(self, batch: Batch) -> Any:
        """What the head is given at the predicted positions: (kept, width)."""
        picked: list[Any] = []

        def keep(hidden: Any) -> Any:
            picked.append(hidden)
            return hidden[:1].detach()  # the head has nothing else to do here

        with self._head_given(batch, keep):
            self.model(**self._inputs(batch))
        return picked[0]

    def logits(self, batch: Batch, change: Callable[[Any], Any] = lambda hidden: hidden) -> Any:
        """What the model itself makes of that, after `change`: (kept, vocabulary)."""
        if self._head is None:
            return self.model(**self._inputs(batch)).logits.flatten(0, 1)[batch.predicted]
        with self._head_given(batch, change):
            return self.model(**self._inputs(batch)).logits[0]

    @property
    def takes_positions(self) -> bool:
        return "position_ids" in self._takes

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        inputs = {"input_ids": batch.tokens, "use_cache": False}
        if batch.positions is not None:
            inputs["position_ids"] = batch.positions
        if self.model.config._attn_implementation == varlen.NAME:
            inputs |= {"cu_seq_lens_q": batch.cu_seqlens, "cu_seq_lens_k": batch.cu_seqlens}
            inputs |= {"max_length_q": batch.longest, "max_length_k": batch.longest}
        return inputs

    @contextmanager
    def _head_given(self, batch: Batch, change: Callable[[Any], Any]) -> Iterator[None]:
        """Let the head see only the hidden states at the predicted positions, after `change`."""

        def pick(_head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = arguments[0].flatten(0, 1).index_select(0, batch.predicted)
            return (change(hidden)[None], *arguments[1:])

        hook = self._head.register_forward_pre_hook(pick)
        try:
            yield
        finally:
            hook.remove()
