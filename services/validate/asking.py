"""Asks a model, behind any endpoint of the OpenAI API, for answers to rows of a dataset, with and without examples."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from services.validate.domain.advice import Facts, Measured, Sample
from services.validate.domain.advice.answers import METRICS, interval, score
from services.validate.domain.advice.nearest import Nearest
from shared.errors import InputError, TransientError

CONCURRENCY, TRIES, SECONDS, PAUSE_SECONDS = 8, 3, 120.0, 1.0
CHARS_A_TOKEN, HEADROOM, LEAST_TOKENS, MOST_TOKENS = 2, 1.5, 32, 4096
TRANSIENT = (408, 409, 429, 500, 502, 503, 504)


def measure(
    samples: Sequence[Sample],
    facts: Facts,
    *,
    endpoint: str,
    model: str,
    key: str | None = None,
    examples: int = 40,
    shots: int = 5,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Measured:
    """Ask for `examples` rows, drawn with `seed`, each without examples and with the `shots` nearest other rows in the
    prompt. `told` is called with how many answers there are, and how many there will be.

    Raises:
        InputError: `endpoint`: it refuses the question.
        TransientError: it does not answer.
    """
    asked = random.Random(seed).sample(list(samples), min(examples, len(samples)))
    index = Nearest(samples)
    most = max(len(sample.answer) for sample in samples)
    tokens = min(MOST_TOKENS, max(LEAST_TOKENS, int(most / CHARS_A_TOKEN * HEADROOM)))
    bodies = [_body(sample, sample.messages) for sample in asked]
    bodies += [_body(sample, _with_examples(sample, index.to(sample, shots))) for sample in asked if shots]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{endpoint.rstrip('/')}/chat/completions"
    with httpx.Client(headers=headers, timeout=SECONDS) as client, ThreadPoolExecutor(CONCURRENCY) as pool:
        common = {"model": model, "temperature": 0, "max_tokens": tokens}
        futures = [pool.submit(_ask, client, url, {**common, **body}, pause) for body in bodies]
        answers = []
        try:
            for future in futures:
                answers.append(future.result())
                told(len(answers), len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    pairs = zip([*asked, *asked], answers, strict=False)  # half as many answers without examples
    scores = [score(facts.kind, sample.answer, answer) for sample, answer in pairs]
    return Measured(
        model=model,
        metric=METRICS[facts.kind],
        examples=len(asked),
        zero_shot=interval(scores[: len(asked)]),
        few_shot=interval(scores[len(asked) :]) if shots else None,
        shots=shots,
    )


def _body(sample: Sample, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"messages": list(messages), **({"tools": list(sample.tools)} if sample.tools else {})}


def _with_examples(sample: Sample, examples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """The prompt with examples after its system messages, each as a question and an answer."""
    messages = list(sample.messages)
    at = next((n for n, each in enumerate(messages) if each.get("role") not in ("system", "developer")), 0)
    shown = [
        message
        for example in examples
        for message in (
            {"role": "user", "content": example.question},
            {"role": "assistant", "content": example.answer},
        )
    ]
    return [*messages[:at], *shown, *messages[at:]]


def _ask(client: httpx.Client, url: str, body: dict[str, Any], pause: Callable[[float], None]) -> str:
    why = ""
    for number in range(TRIES):
        try:
            answer = client.post(url, json=body)
        except httpx.InvalidURL:
            message = f"{url} is no address: give the base URL, as http://host/v1"
            raise InputError("endpoint", message, "endpoint") from None
        except httpx.HTTPError as error:
            why = type(error).__name__
        else:
            if answer.is_success:
                return _text(answer, url)
            why = f"status {answer.status_code}"
            if answer.status_code not in TRANSIENT:
                said = answer.text[:200]
                remedy = "check --endpoint (the base URL, as http://host/v1), --model and the key in OPENAI_API_KEY"
                raise InputError("endpoint", f"{url} refuses the question ({why}: {said}); {remedy}", "endpoint")
        if number + 1 < TRIES:
            pause(PAUSE_SECONDS * 2**number)
    raise TransientError(f"{url} does not answer ({why}, {TRIES} times)")


def _text(answer: httpx.Response, url: str) -> str:
    try:
        message = answer.json()["choices"][0]["message"]
        if calls := message.get("tool_calls"):
            return json.dumps([call["function"] for call in calls], sort_keys=True)
        return message.get("content") or ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise InputError("endpoint", f"{url} does not answer as the OpenAI API does", "endpoint") from None
