"""The settings of a synthesis, which a user writes as YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared import ids
from shared.events import StrictModel

MAX_COUNT = 100_000
"""Rows of one synthesis. The replies of a run are kept in memory."""
Text = Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"\S")]
Word = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=1000)]


class Scenario(StrictModel):
    """A situation in which the assistant is asked."""

    name: Word
    facts: Text | None = None
    """What an answer may rely on. The model that writes answers is told to invent no others."""


def _scenario(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Vary(StrictModel):
    """What queries differ in. A value of each list is drawn for every query."""

    persona: Words = (
        "somebody who does this for the first time",
        "somebody who knows the matter well and is in a hurry",
        "somebody who is annoyed because it went wrong before",
        "somebody polite who explains more than is needed",
        "somebody who writes carelessly, with small mistakes",
    )
    difficulty: Words = ("easy", "ordinary", "hard: several things at once, or something that is missing")
    length: Words = ("one short sentence", "two or three sentences", "a paragraph")
    language: Words = ("English",)


class Endpoint(StrictModel):
    """An OpenAI-compatible server."""

    base_url: Annotated[str, Field(max_length=1000, pattern=r"^https?://[^\s/?#@]+[^\s?#@]*$")]
    """Such as `https://api.openai.com/v1`."""
    key: Annotated[str, Field(max_length=200)] | None = None
    """The name of the environment variable that holds the API key; None: the server wants none."""

    @field_validator("base_url", mode="before")
    @classmethod
    def _url(cls, url: Any) -> Any:
        if isinstance(url, str):
            if not url.startswith(("http://", "https://")):
                raise PydanticCustomError("base_url", "write the whole address, such as https://api.openai.com/v1")
            if "@" in url or "?" in url:
                raise PydanticCustomError("base_url", "write the address alone: no user, no password, no parameters")
            return url.rstrip("/").removesuffix("/chat/completions")
        return url

    @field_validator("key")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        # what is no name of a variable may be the key itself, which must not get into a file that is handed around
        if name is not None and not (name.isascii() and name.isidentifier()):
            raise PydanticCustomError(
                "key",
                "write the name of the environment variable that holds the key, such as OPENAI_API_KEY; never the key",
            )
        return name


class Prices(StrictModel):
    """In any currency, per million tokens."""

    input: Annotated[float, Field(ge=0, le=1e9)]
    output: Annotated[float, Field(ge=0, le=1e9)]


class Budget(StrictModel):
    """What all requests together may cost, at most. One of both is enough."""

    money: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """In the currency of the prices."""
    tokens: Annotated[int, Field(gt=0, le=10**13)] | None = None
    """Of prompts and replies."""


class MaxTokens(StrictModel):
    """The longest replies."""

    query: Annotated[int, Field(ge=1, le=32_768)] = 300
    answer: Annotated[int, Field(ge=1, le=131_072)] = 1000
    judge: Annotated[int, Field(ge=1, le=32_768)] = 300


class Temperature(StrictModel):
    """0 repeats itself, 1 varies. Queries shall vary, answers shall be right."""

    query: Annotated[float, Field(ge=0, le=2)] = 1.0
    answer: Annotated[float, Field(ge=0, le=2)] = 0.3


class Judge(StrictModel):
    """A model that scores every example from 1 to 5."""

    min_score: Annotated[int, Field(ge=1, le=5)] = 4
    """Examples with a lower score are refused."""
    model: Word | None = None
    """None: the model that wrote the example."""
    endpoint: Endpoint | None = None
    """None: that of the synthesis."""
    prices: Prices | None = None
    """None: those of the synthesis."""


class SynthesisSpec(StrictModel):
    """Everything that a user may set for a synthesis."""

    task: Text
    """What the assistant does that shall learn from the examples."""
    system: Text | None = None
    """The system prompt of every row."""
    scenarios: Annotated[
        tuple[Annotated[Scenario, BeforeValidator(_scenario)], ...], Field(min_length=1, max_length=10_000)
    ]
    """Names, or `{name, facts}`. Each comes up equally often."""
    seeds: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A file beside this one: a few rows, one JSON object per line, that show the style."""
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    """How many rows are wanted."""
    vary: Vary = Vary()
    model: Word
    """The model that writes queries and answers, as its server calls it."""
    endpoint: Endpoint
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """How many requests are under way at a time."""
    requests_per_minute: Annotated[int, Field(ge=1, le=10**7)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**10)] | None = None
    timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = 300.0
    """The longest that one reply may take."""
    prices: Prices | None = None
    budget: Budget
    max_tokens: MaxTokens = MaxTokens()
    temperature: Temperature = Temperature()
    judge: Judge | None = Judge()
    """null: every example is taken."""
    near_duplicates: Annotated[float, Field(ge=0.5, le=1)] | None = 0.8
    """A query that resembles an earlier one that much is refused (Jaccard similarity of their 5-character pieces);
    null: none is."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """How often a row is tried, each time with another variation, before it is given up."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Draws other variations."""

    @field_validator("seeds")
    @classmethod
    def _beside(cls, seeds: str | None) -> str | None:
        if seeds is not None and (seeds.startswith(("/", "~")) or ".." in seeds.split("/") or "\\" in seeds):
            raise PydanticCustomError("seeds", "name a file beside the spec, or in a folder below it")
        return seeds

    @model_validator(mode="after")
    def _whole(self) -> SynthesisSpec:
        names = [scenario.name for scenario in self.scenarios]
        if len(names) > len(set(names)):
            twice = next(name for name in names if names.count(name) > 1)
            message = "scenarios: {name} is there twice; give one another name"
            raise PydanticCustomError("twice", message, {"name": twice})
        if self.budget.money is None and self.budget.tokens is None:
            raise PydanticCustomError(
                "no_budget", "budget: set money, tokens or both, so that it is known when to stop"
            )
        if self.budget.money is not None and self.prices is None:
            raise PydanticCustomError(
                "no_prices", "prices: give input and output per million tokens, or a budget in money cannot be kept"
            )
        judge = self.judge
        if judge and judge.prices and self.prices is None:
            raise PydanticCustomError("no_prices", "prices: the judge has prices, so give those of the model, too")
        if self.prices and judge and judge.prices is None and (judge.model or judge.endpoint):
            raise PydanticCustomError(
                "no_prices", "judge.prices: another model has other prices; give input and output per million tokens"
            )
        return self

    def digest(self, seeds: Any) -> str:
        """It changes with everything that the requests and the decisions about their replies depend on: with others,
        what was made so far would not belong to what is still to be made. `count`, budget, prices, limits, address,
        attempts, `max_tokens` and `temperature` may change between two runs."""
        what = ("task", "system", "scenarios", "vary", "model", "near_duplicates", "seed")
        asked = self.model_dump(mode="json", include=set(what))
        judged = self.judge.model_dump(mode="json", include={"model", "min_score"}) if self.judge else None
        return ids.derive("synthesis", asked, judged, seeds)


Step = Literal["query", "answer", "judge"]
