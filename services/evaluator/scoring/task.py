"""What kind of task the examples are."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain.examples import Example
from services.evaluator.domain.kinds import Task
from services.evaluator.domain.kinds.structure import document_of, inferred
from services.evaluator.scoring.sql import is_statement


def task_of(examples: Sequence[Example], labels: tuple[str, ...] | None) -> Task:
    """The task behind the examples. `labels`: those of the dataset, if its answers are labels."""
    replies = [example.reply() for example in examples]
    texts = [reply.text for reply in replies if not reply.calls]
    documents = [document for text in texts if (document := document_of(text)) is not None]
    count = max(len(replies), 1)
    return Task(
        labels=labels,
        calls=(len(replies) - len(texts)) / count,
        structured=len(documents) / count,
        sql=0.0 if labels is not None else sum(map(is_statement, texts)) / count,
        inferred=inferred(documents) if documents else None,
    )
