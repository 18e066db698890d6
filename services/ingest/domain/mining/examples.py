"""Rows as turns, and turns as examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from services.ingest.domain.mining import pairs
from services.ingest.domain.mining.forms import Form, is_verdict
from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.logged import answer_in
from services.ingest.domain.mining.records import Record, getter, text_of
from services.ingest.domain.mining.turns import (
    BETWEEN,
    Cut,
    Message,
    Speakers,
    chat,
    content_of,
    is_messages,
    messages_of,
)
from shared.events import Source, Target

BESIDE = ("tools", "functions", "parallel_tool_calls")
"""What a chat row may have beside its messages."""
METADATA_CHARS = 512


class Examples:
    """Makes the examples of one file."""

    def __init__(self, form: Form, source: Source) -> None:
        self.form = form
        self.cut = Cut()
        """What was cut off of the conversation that became the last example."""
        self._source = source
        self._speakers = Speakers(source.roles)
        self._read = {target: [getter(name) for name in names] for target, names in form.columns.items()}
        self._metadata = [(name, getter(name)) for name in form.metadata]
        place = form.columns.get("messages", ("",))[0].rpartition(".")[0]
        self._beside = [(key, getter(f"{place}.{key}" if place else key)) for key in BESIDE]
        self._group = getter(form.group_by) if form.group_by else None
        self._order = getter(form.order_by) if form.order_by else None

    def example(self, record: Record) -> dict[str, Any]:
        """The example of a row that is one for itself.

        Raises:
            LeftOut: it is none.
        """
        self.cut = Cut()
        match self.form.name:
            case "native":
                return self._native(record)
            case "conversations":
                said = self._value("messages", record)
                messages, self.cut = messages_of(said, self._speakers, self._source.answers)
                return self._chat(messages, record)
            case "logged":
                asked = pairs.prompt_of(self._value("messages", record), self._speakers)
                answer = answer_in(self._value("assistant", record))
                messages, self.cut = chat([*asked, answer], self._source.answers)
                return self._chat(messages, record)
            case "preference":
                return self._preference(record, self._value("chosen", record), self._value("rejected", record))
            case "ab":
                answers = self._value("answer_a", record), self._value("answer_b", record)
                first = pairs.first_is_better(self._value("preferred", record))
                return self._preference(record, *(answers if first else reversed(answers)))
            case "judged":
                self._check_verdict(self._value("preferred", record))
                return self.conversation([self.turns(record)])
            case _:
                return self.conversation([self.turns(record)])

    # --- rows that are a part of a conversation

    def group(self, record: Record) -> str:
        """Which conversation a row belongs to.

        Raises:
            LeftOut: it does not say.
        """
        assert self._group is not None, "only a form that is grouped has groups"
        text = text_of(self._group(record))
        if not text:
            raise LeftOut("no_group", f"{self.form.group_by} is empty")
        return text

    def order(self, record: Record) -> Any:
        """What orders the rows of a conversation; None: the order of the file."""
        return self._order(record) if self._order else None

    def turns(self, record: Record) -> list[Message]:
        """What a row says. It may be nothing.

        Raises:
            LeftOut: nobody knows who says it.
        """
        if self.form.name == "messages":
            text = self._text("content", record)
            return [{"role": self._speakers.role(self._value("role", record)), "content": text}] if text else []
        asked, answered = self._value("user", record), self._value("assistant", record)
        if is_messages(asked) or is_messages(answered):  # both are parts of a conversation
            said_so_far = [*pairs.prompt_of(asked, self._speakers), *pairs.answer_of(answered, self._speakers)]
            return (
                [{"role": "system", "content": text}, *said_so_far] if (text := self._system(record)) else said_so_far
            )
        said = {
            "system": self._system(record),
            "user": BETWEEN.join(filter(None, (self._text("user", record), self._text("context", record)))),
            "assistant": self._text("assistant", record),
        }
        return [{"role": role, "content": text} for role, text in said.items() if text]

    def about(self, record: Record) -> dict[str, str]:
        """The metadata of a row."""
        return {name: text[:METADATA_CHARS] for name, read in self._metadata if (text := text_of(read(record)))}

    def conversation(self, rows: Iterable[list[Message]]) -> dict[str, Any]:
        """The example of the rows of a conversation, in order.

        Raises:
            LeftOut: nothing is asked, or nothing is answered.
        """
        said = list[Message]()
        asked = None
        for turns in rows:
            # an export with several answers repeats the question beside each
            again = [message for message in turns if message["role"] == "user"] == asked
            said += [message for message in turns if message["role"] != "user"] if asked and again else turns
            asked = [message for message in turns if message["role"] == "user"] or asked
        system, *others = dict.fromkeys(message["content"] for message in said if message["role"] == "system") or [""]
        spoken = [message for message in said if message["role"] != "system"]
        if any(message["role"] == "tool" for message in spoken):
            raise LeftOut("tool_calls", "a result comes without a call before it")
        messages, cut = chat(spoken, self._source.answers)
        self.cut = cut._replace(systems=len(others))
        return {"messages": self._with_system(messages, system)}

    # --- helpers

    def _chat(self, messages: list[Message], record: Record) -> dict[str, Any]:
        beside = {key: value for key, read in self._beside if (value := read(record) or record.get(key))}
        return {"messages": self._with_system(messages, self._system(record)), **beside}

    def _native(self, record: Record) -> dict[str, Any]:
        made = dict(record)
        if self._source.system and isinstance(made.get("messages"), list):
            made["messages"] = self._with_system(made["messages"], "")
        return made

    def _preference(self, record: Record, chosen: Any, rejected: Any) -> dict[str, Any]:
        prompt = pairs.prompt_of(self._value("user", record) or self._value("messages", record), self._speakers)
        if (context := self._text("context", record)) and prompt:
            prompt[-1] = {**prompt[-1], "content": BETWEEN.join((text_of(prompt[-1].get("content")), context))}
        system = self._system(record) or self._source.system
        return pairs.preference(prompt, chosen, rejected, self._speakers, system)

    @staticmethod
    def _check_verdict(value: Any) -> None:
        if not is_verdict(value):
            raise LeftOut("no_verdict")
        if text_of(value).lower() == "false":
            raise LeftOut("bad_answer")

    def _with_system(self, messages: list[Message], system: str) -> list[Message]:
        system = system or self._source.system or ""
        if not system or (messages and messages[0].get("role") in ("system", "developer")):
            return messages
        return [{"role": "system", "content": system}, *messages]

    def _value(self, target: Target, record: Record) -> Any:
        """What a row has for a target; several columns are joined."""
        readers: list[Callable[[Record], Any]] = self._read.get(target, [])
        return readers[0](record) if len(readers) == 1 else self._text(target, record)

    def _system(self, record: Record) -> str:
        return BETWEEN.join(filter(None, (content_of(read(record)) for read in self._read.get("system", ()))))

    def _text(self, target: Target, record: Record) -> str:
        return BETWEEN.join(filter(None, (text_of(read(record)) for read in self._read.get(target, ()))))
