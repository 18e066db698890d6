"""The texts of many beginnings of one conversation, from one run of its chat template.

A template that has not looked yet whether there is a message `n` has written the same text for every conversation that
begins with the same `n` messages. So the template is given messages that note when each of them is first looked at.
What it has written until then is the beginning of the text of the first `n` messages. What follows is found by a short
run in which the loop that asked for message `n` does nothing: loops leave nothing behind but text. Where the template
reads nothing of a conversation after that loop, as most do, it writes the same for all, and runs once.

Whatever is not proven so is left out, and is to be rendered on its own. Templates with memory (namespaces that are
changed in loops) are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Template
from jinja2.ext import loopcontrols
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.conversation.content_format import GenerationTag
from shared.conversation.watched import FLAG, LOOP, PROMPT, watched_template

Texts = dict[tuple[int, bool], str]
"""By how many messages, and whether an answer is asked for: what the template writes."""

_PEEKS = frozenset({"last", "nextitem", "length", "revindex", "revindex0"})


@dataclass
class _Seen:
    """When something was first looked at. `position`: how much was written then. `loop`: the number of the loop that
    asked for its next message; None: it was looked at in another way. `asked`: whether the template had looked
    already whether an answer is asked for."""

    position: int
    loop: int | None
    asked: bool


@dataclass
class _Run:
    """One run of a template over `items`. `skip`: the number of the loop that does nothing."""

    items: Sequence[Any]
    prompt: bool
    skip: int | None = None
    written: int = 0
    loops: list[int | None] = field(default_factory=list)
    """By the number of a loop: that of the end which it has in all conversations (`watched.py`); None: it has none."""
    peeking: bool = False
    asked: bool = False
    seen: dict[int, _Seen] = field(default_factory=dict)
    skipped_at: int | None = None
    looked_after: bool = False
    """Whether the template looked at a message after the loop that did nothing."""

    def look(self, index: int, loop: int | None = None) -> None:
        """The template learns whether there is a message with this index, and so that there are all before it."""
        if self.skipped_at is not None:
            self.looked_after = True
        for one in range(len(self.seen), index + 1):
            self.seen[one] = _Seen(self.written, None if self.peeking else loop, self.asked)


class _Messages:
    """The messages as the template sees them: like a list, but it notes what is looked at. It is no list, so that
    nothing reads it by another way."""

    __slots__ = ("_run", "_start")

    def __init__(self, run: _Run, start: int = 0) -> None:
        self._run = run
        self._start = start

    def __len__(self) -> int:
        self._run.look(len(self._run.items))
        return max(0, len(self._run.items) - self._start)

    def __bool__(self) -> bool:
        self._run.look(self._start)
        return self._start < len(self._run.items)

    def __getitem__(self, key: Any) -> Any:
        run, start = self._run, self._start
        if isinstance(key, slice):
            if key.stop is None and key.step is None and (key.start is None or _is_index(key.start)):
                return _Messages(run, start + (key.start or 0))
            if key.step is None and _is_index(key.stop) and (key.start is None or _is_index(key.start)):
                run.look(start + key.stop)
            else:
                run.look(len(run.items))
            return list(run.items[start:])[key]
        if _is_index(key):
            run.look(start + key)
            return run.items[start + key]
        run.look(len(run.items))
        return list(run.items[start:])[key]

    def __iter__(self) -> Iterator[Any]:
        for index in range(self._start, len(self._run.items) + 1):
            self._run.look(index)
            if index < len(self._run.items):
                yield self._run.items[index]

    def __reversed__(self) -> Iterator[Any]:
        self._run.look(len(self._run.items))
        return iter(list(self._run.items[self._start :])[::-1])

    def __eq__(self, other: object) -> bool:
        raise NotImplementedError

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        raise NotImplementedError


class _Loop:
    """What a `for` over the messages goes through."""

    __slots__ = ("_messages", "_number", "_run")

    def __init__(self, run: _Run, messages: _Messages, end: int | None) -> None:
        self._run = run
        self._messages = messages
        self._number = len(run.loops)
        run.loops.append(end)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Any]:
        run, items = self._run, self._run.items
        if run.skip == self._number:
            run.skipped_at = run.written
            return
        for index in range(self._messages._start, len(items)):
            run.look(index, self._number)
            yield items[index]
        run.look(len(items), self._number)


class _Environment(ImmutableSandboxedEnvironment):
    """As that of transformers, with the filters that watch."""

    run: _Run

    def _loop(self, over: Any, end: int | None) -> Any:
        return _Loop(self.run, over, end) if type(over) is _Messages else over

    def _flag(self, value: Any) -> Any:
        self.run.asked = True
        return value

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is not LoopContext or attribute not in _PEEKS:
            return super().getattr(obj, attribute)
        self.run.peeking = True
        found = super().getattr(obj, attribute)
        self.run.peeking = False
        return found

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(obj) is LoopContext:
            return self.getattr(obj, str(argument))
        return super().getitem(obj, argument)


class Prefixes:
    """Renders beginnings of conversations with one template."""

    def __init__(self, environment: _Environment, compiled: Template) -> None:
        self._environment = environment
        self._compiled = compiled
        self._ends: dict[tuple[int, bool], str] = {}
        """What is written after loops that all conversations end alike with, by the loop and `prompt`."""

    def texts(
        self, messages: Sequence[Mapping[str, Any]], ends: Sequence[tuple[int, bool]], values: Mapping[str, Any]
    ) -> Texts:
        """What the template writes for the first `n` messages, for each of `ends` (`n`, and whether an answer is asked
        for); those that are not proven are left out. `values`: what else it is given; but for tools and documents it
        must be the same in every call.

        Raises:
            Exception: whatever the template raises.
        """
        found: Texts = {}
        runs: dict[bool, tuple[_Run, str]] = {}
        tails: dict[tuple[int, bool], str] = {}
        last = max(end for end, _ in ends)

        def whole(prompt: bool) -> tuple[_Run, str]:
            if prompt not in runs:
                run = _Run(messages[:last], prompt)
                runs[prompt] = run, self._text(run, values)
            return runs[prompt]

        first = (last, False) not in ends
        for end, prompt in ends:
            run, text = whole(first)
            seen = run.seen.get(end)
            if prompt != first and (seen is None or seen.asked):
                run, text = whole(prompt)
                seen = run.seen.get(end)
            if end == last and run.prompt == prompt:
                found[end, prompt] = text
            elif end and seen is not None and seen.loop is not None:
                of_all = run.loops[seen.loop]
                known, key = (tails, (seen.loop, prompt)) if of_all is None else (self._ends, (of_all, prompt))
                tail = known.get(key)
                if tail is None:
                    short = _Run(messages[:end], prompt, skip=seen.loop)
                    written = self._text(short, values)
                    if short.skipped_at is None:
                        continue
                    tail = written[short.skipped_at :]
                    if of_all is not None or not short.looked_after:
                        known[key] = tail
                found[end, prompt] = text[: seen.position] + tail
        return found

    def _text(self, run: _Run, values: Mapping[str, Any]) -> str:
        self._environment.run = run
        given = {**values, "messages": _Messages(run), PROMPT: run.prompt}
        parts = []
        for part in self._compiled.root_render_func(self._compiled.new_context(given)):
            parts.append(part)
            run.written += len(part)
        return "".join(parts)


def prefixes_of(template: str) -> Prefixes | None:
    """A new one, for one thread at a time. None: the template has memory, or is built in a way that is not looked at.

    Raises:
        TemplateError: it is no template.
    """
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
    theirs = _environment_of_transformers(template)
    if theirs is None:
        return None
    environment.filters.update(theirs.filters)
    environment.globals.update(theirs.globals)
    environment.filters |= {LOOP: environment._loop, FLAG: environment._flag}
    root = environment.parse(template)
    watched = watched_template(root, environment.globals)
    if watched is None:
        return None
    code = environment.compile(watched)
    return Prefixes(environment, Template.from_code(environment, code, environment.make_globals(None)))


def _environment_of_transformers(template: str) -> Any:
    try:
        from transformers.utils import chat_template_utils  # noqa: PLC0415  slow to load

        return chat_template_utils._compile_jinja_template(template).environment
    except (ImportError, AttributeError):  # another version: then nothing is proven
        return None


def _is_index(key: Any) -> bool:
    return isinstance(key, int) and key >= 0
