"""The commands chat, models, deploy and rollback: the models that are served."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.client import Client, NotFound
from cli.target import Target, TargetOption, resolve
from cli.terminal import NO_STACK, CliError, columns, err, out, say

if TYPE_CHECKING:
    from openai import OpenAI

ALIAS_HELP = "The name that users call."
Expected = Annotated[
    str | None,
    typer.Option(help="The model that the alias names before; by default the one that it names right now."),
]


def chat(
    model: Annotated[str, typer.Argument(help="A model id, an alias, or the base.")],
    prompt: Annotated[str | None, typer.Argument(help="One question; without it, a conversation starts.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 always takes the most likely next token.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    folder: TargetOption = None,
) -> None:
    """Talk to a model; its answer appears word by word."""
    options = {"temperature": temperature, "max_tokens": max_tokens}
    conversation = Conversation(
        _openai(resolve(folder)), model, system, {name: value for name, value in options.items() if value is not None}
    )
    if prompt is not None:
        conversation.ask(prompt)
        return
    err.print("an empty line or Ctrl-D ends the conversation", style="dim")
    while (line := _question()) is not None:
        try:
            conversation.ask(line)
        except CliError as error:  # the conversation goes on: the next question may succeed
            say(error.message, error.remedy)


class Conversation:
    """The turns of a chat so far, without questions that failed."""

    def __init__(self, client: OpenAI, model: str, system: str | None, options: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._options = options
        self._messages: list[Any] = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str) -> str:
        """Ask a question, stream the answer to stdout and return it.

        Raises:
            CliError: the request failed; the message is that of the server.
        """
        import openai  # noqa: PLC0415  # takes a second, which the other commands need not pay

        messages = [*self._messages, {"role": "user", "content": question}]
        answer = ""
        try:
            chunks = self._client.chat.completions.create(
                model=self._model, messages=messages, stream=True, **self._options
            )
            for chunk in chunks:
                words = (chunk.choices[0].delta.content if chunk.choices else None) or ""
                answer += words
                typer.echo(words, nl=False)
                sys.stdout.flush()
        except openai.NotFoundError as error:
            raise CliError(_words(error), "`tunestream models` lists what can be called") from None
        except openai.APIStatusError as error:
            raise CliError(_words(error)) from None
        except openai.APIConnectionError:
            raise CliError(f"nothing answers at {self._client.base_url}", NO_STACK) from None
        except openai.APIError as error:  # in the middle of a stream
            raise CliError(f"the answer broke off: {error.message}") from None
        finally:
            typer.echo()
        self._messages = [*messages, {"role": "assistant", "content": answer}]
        return answer


def models(folder: TargetOption = None) -> None:
    """List aliases and models."""
    with Client(resolve(folder)) as client:
        deployments, served = client.deployments(), client.models()
    if deployments:
        table = columns("alias", "model", "before")
        for deployment in deployments:
            table.add_row(
                Text(str(deployment["alias"])),
                Text(_model(deployment.get("current"))),
                Text(_model(deployment.get("previous"))),
            )
        out.print(table)
        out.print()
    for model in served:
        out.print(Text(model["id"]), soft_wrap=True)


def deploy(
    model: Annotated[str, typer.Argument(help="The id of a trained model.")],
    alias: Annotated[str, typer.Argument(help=ALIAS_HELP)],
    expected: Expected = None,
    folder: TargetOption = None,
) -> None:
    """Point an alias at a model, whatever the evaluation said. It is loaded and asked first."""
    with Client(resolve(folder)) as client:
        before = client.deployment(alias) or {}
        answer = client.deploy(model, alias, expected or _model(before.get("current")) or None)
    _tell(alias, before, answer)


def rollback(
    alias: Annotated[str, typer.Argument(help=ALIAS_HELP)],
    to: Annotated[str | None, typer.Option(help="The model to go back to, by default the one before.")] = None,
    expected: Expected = None,
    folder: TargetOption = None,
) -> None:
    """Point an alias back at an earlier model. To go back more than once, name the model."""
    with Client(resolve(folder)) as client:
        before = client.deployment(alias)
        if before is None:
            raise NotFound(f"there is no alias {alias}", "`tunestream models` lists them")
        current = before.get("current")
        if to is None and expected is None and isinstance(current, dict) and current.get("rolled_back"):
            # whoever repeats the command, because its answer was lost, must not get an older version without a word
            raise CliError(
                f"{alias} was rolled back already, from {_model(before.get('previous'))} to {_model(current)}",
                f"`tunestream rollback {alias} --to MODEL` goes to another model, "
                f"`--expected {_model(current)}` further back",
            )
        answer = client.rollback(alias, to, expected or _model(current) or None)
    _tell(alias, before, answer)


def _tell(alias: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    was, now = _model(before.get("current")), _model(after.get("current"))
    came = " already" if was == now else f", it was {was}" if was else ""
    err.print(Text(f"{alias} is {now}{' now' if was != now else ''}{came}"), soft_wrap=True)


def _openai(target: Target) -> OpenAI:
    import openai  # noqa: PLC0415

    return openai.OpenAI(
        base_url=f"{target.inference_url}/v1",
        api_key=target.api_key or "none",
        http_client=openai.DefaultHttpxClient(trust_env=False, timeout=openai.Timeout(600.0, connect=3.0)),
    )


def _question() -> str | None:
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return line.strip() or None


def _words(error: Any) -> str:
    """The message of the error envelope, without the words that the OpenAI client adds."""
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and body.get("message") else str(error.message)


def _model(version: Any) -> str:
    return str(version.get("model", "")) if isinstance(version, dict) else str(version or "")
