"""What a synthesis would ask, and the most that it can cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.synthesize.figures import money
from cli.terminal import columns, printable
from services.ingest.domain.synthesis import plan, prompts
from services.ingest.domain.synthesis.budget import Cost, most, total
from services.ingest.domain.synthesis.history import History
from services.ingest.domain.synthesis.plan import Seed
from services.ingest.domain.synthesis.prompts import Prompt
from services.ingest.domain.synthesis.spec import Prices, SynthesisSpec

SHOWN_ROWS, SHOWN_PROMPTS = 10, 2


def rows(spec: SynthesisSpec) -> Table:
    """The first rows, and what each is about."""
    table = columns("row", "scenario", "persona", "difficulty", "length", "language")
    for slot in range(min(spec.count, SHOWN_ROWS)):
        take = plan.take(spec, (), slot, 0)
        texts = (take.scenario.name, take.persona, take.difficulty, take.length, take.language)
        table.add_row(str(slot + 1), *(Text(printable(text)) for text in texts))
    return table


def first_prompts(spec: SynthesisSpec, seeds: Sequence[Seed]) -> Iterator[Panel]:
    """The first queries as they would be asked for, and the answer to one."""
    for slot in range(min(spec.count, SHOWN_PROMPTS)):
        yield _panel(prompts.query(spec, plan.take(spec, seeds, slot, 0)))
    yield _panel(prompts.answer(spec, plan.take(spec, seeds, 0, 0), "(the message)"))
    if spec.judge:
        yield _panel(prompts.judge(spec, plan.take(spec, seeds, 0, 0), "(the message)", "(the answer)"))


def costs(spec: SynthesisSpec, seeds: Sequence[Seed], history: History) -> Iterator[str]:
    """What the rest of a synthesis may cost, and the budget, which is the most."""
    open_slots = [slot for slot in range(spec.count) if slot not in history.kept]
    once = total(_most(spec, seeds, slot) for slot in open_slots)
    yield f"about {_cost(once, spec)} if every reply is as long as it may be and no row is tried again; mostly less"
    limits = [f"{money(spec.budget.money)}"] if spec.budget.money is not None else []
    limits += [f"{spec.budget.tokens:,} tokens"] if spec.budget.tokens is not None else []
    yield f"at most the budget: {' and '.join(limits)}"
    if history.requests:
        yield f"so far {len(history.kept):,} rows, and at most {_cost(history.used, spec)}"


def _most(spec: SynthesisSpec, seeds: Sequence[Seed], slot: int) -> Cost:
    steps = prompts.expected(spec, plan.take(spec, seeds, slot, 0))
    return total(most(prompt, _prices(spec, prompt)) for prompt in steps)


def _prices(spec: SynthesisSpec, prompt: Prompt) -> Prices | None:
    return (spec.judge.prices if spec.judge and prompt.step == "judge" else None) or spec.prices


def _cost(cost: Cost, spec: SynthesisSpec) -> str:
    tokens = f"{cost.tokens:,} tokens"
    return f"{money(cost.money)} ({tokens})" if spec.prices else tokens


def _panel(prompt: Prompt) -> Panel:
    said = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in prompt.messages)
    return Panel(Text(printable(said)), title=Text(f"row {int(prompt.id.split('.')[0]) + 1}, {prompt.step}"))
