"""Reports of evaluations, for tests of the page that shows them."""

from __future__ import annotations

from services.evaluator.domain.answer_length import Limit
from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.examples import Example
from services.evaluator.domain.questions.edge_prompts import EDGE_PROMPTS, EdgeResult
from services.evaluator.evaluate import evaluate
from services.evaluator.report import Report
from shared.events import Evaluation, Gate
from tests.support.data.jobs import make_training

HOSTILE = (
    '</pre><script>window.pwned = 1; alert(1)</script><img src=x onerror="window.pwned = 2; alert(2)">"\'&{{ 7*7 }}'
)
"""A text that does something to the page which does not escape it: then `window.pwned` is there."""


def make_report(text: str = HOSTILE, rows: int = 6) -> Report:
    """A report that has the text everywhere. The tuned model repeats it on the first row and fails on the others."""
    examples = [
        Example(line=line, messages=({"role": text, "content": text},), reference=text) for line in range(1, rows + 1)
    ]
    answers: dict[Variant, list[Answer]] = {
        "base": [Answer(text="no", finish_reason="stop")] * rows,
        "tuned": [Answer(text=text, finish_reason="stop"), *[Answer(error=text)] * (rows - 1)][:rows],
    }
    return Report(
        job_id=text,
        alias=text,
        training=make_training(model=text[:1024], base=text[:1024], overfitting={"verdict": "unknown", "reason": text}),
        settings=Evaluation(),
        gate=Gate(promote="always"),
        seed=0,
        few_shot_lines=(),
        tools_unparsed=False,
        max_tokens=Limit(tokens=1_234, reason=text),
        how_asked=(text,),
        evaluation=evaluate(examples, answers, labels=None, gate=Gate(promote="always"), seed=0),
        edges=(EdgeResult(prompt=EDGE_PROMPTS[0], base=Answer(error=text), tuned=Answer(text=text)),),
    )
