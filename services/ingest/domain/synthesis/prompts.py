"""What a strong model is asked for: a query, the ideal answer to it, and a judgement of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.ingest.domain.synthesis.plan import Seed, Take
from services.ingest.domain.synthesis.spec import Step, SynthesisSpec


@dataclass(frozen=True)
class Prompt:
    """One request: a step of an attempt."""

    id: str
    step: Step
    messages: tuple[dict[str, str], ...]
    max_tokens: int
    temperature: float

    def body(self, model: str) -> dict[str, Any]:
        """The request as the chat completions API takes it."""
        return {
            "model": model,
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }


def query(spec: SynthesisSpec, take: Take) -> Prompt:
    """Asks for the message of a user."""
    system = (
        "You write messages that people send to an assistant. They become training data, so each one must read as "
        "if a real person had written it, and differ from the others in its situation, its details and its words. "
        "Reply with the message alone: no quotes, no label, no explanation."
    )
    parts = [
        f"What the assistant does: {spec.task}",
        f"The situation: {take.scenario.name}",
        *([f"Known in this situation:\n{take.scenario.facts}"] if take.scenario.facts else []),
        f"Who writes: {take.persona}",
        f"How difficult it is to answer: {take.difficulty}",
        f"How long the message is: {take.length}",
        f"Its language: {take.language}",
        *_shown("Messages of this kind, for their style and not their content:", [seed.query for seed in take.seeds]),
        # no two requests are the same, so no cache gives one message twice
        f"Write message number {take.slot + 1}{f', version {take.attempt + 1}' if take.attempt else ''}.",
    ]
    return _prompt(spec, take, "query", system, "\n\n".join(parts), spec.temperature.query)


def answer(spec: SynthesisSpec, take: Take, asked: str) -> Prompt:
    """Asks for the ideal answer to the query `asked`."""
    parts = [
        *([spec.system] if spec.system else []),
        f"You are this assistant: {spec.task}\nWrite the answer that an expert would be proud of: correct, complete, "
        f"and no longer than it needs to be, in the language of the message ({take.language}). Reply with the answer "
        "alone.",
        *(
            [f"Known in this situation; rely on nothing else, and invent no facts:\n{take.scenario.facts}"]
            if take.scenario.facts
            else []
        ),
        *_shown("Answers in the style that is wanted:", [_pair(seed) for seed in take.seeds]),
    ]
    return _prompt(spec, take, "answer", "\n\n".join(parts), asked, spec.temperature.answer)


def judge(spec: SynthesisSpec, take: Take, asked: str, answered: str) -> Prompt:
    """Asks how good an example is."""
    system = (
        "You judge examples from which an assistant shall learn. Be strict: a wrong example does more harm than a "
        'missing one. Reply with JSON alone: {"score": 1 to 5, "reason": "one sentence"}.\n'
        "5: message and answer are natural, the answer is correct, complete, and in the wanted style and language.\n"
        "4: good, with a blemish that does no harm.\n3: usable, but something is missing or clumsy.\n"
        "2: partly wrong, evasive, or not in the wanted style or language.\n"
        "1: wrong, harmful, empty, or not an answer to the message."
    )
    parts = [
        f"What the assistant does: {spec.task}",
        *([f"Its instructions:\n{spec.system}"] if spec.system else []),
        f"The situation: {take.scenario.name}",
        *([f"Known in this situation:\n{take.scenario.facts}"] if take.scenario.facts else []),
        f"The wanted language: {take.language}",
        # what a model wrote is data: it stands between marks, and the instructions are elsewhere
        f"<message>\n{asked}\n</message>",
        f"<answer>\n{answered}\n</answer>",
    ]
    return _prompt(spec, take, "judge", system, "\n\n".join(parts), 0.0)


def expected(spec: SynthesisSpec, take: Take) -> tuple[Prompt, ...]:
    """The requests of an attempt, before its replies are known. In their place are texts of a character for each token
    that they may have: replies are mostly shorter than they may be, and tokens longer than a character."""
    asked, answered = "x" * spec.max_tokens.query, "x" * spec.max_tokens.answer
    steps = (query(spec, take), answer(spec, take, asked))
    return (*steps, judge(spec, take, asked, answered)) if spec.judge else steps


def _prompt(spec: SynthesisSpec, take: Take, step: Step, system: str, user: str, temperature: float) -> Prompt:
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return Prompt(take.id_of(step), step, messages, getattr(spec.max_tokens, step), temperature)


def _shown(title: str, texts: Sequence[str]) -> list[str]:
    return [title + "\n\n" + "\n---\n".join(texts)] if texts else []


def _pair(seed: Seed) -> str:
    return f"Message: {seed.query}\nAnswer: {seed.answer}"
