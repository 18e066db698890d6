"""The texts of many beginnings of one conversation, from one run of its chat template.

A template that has not looked yet whether there is a message `n` has written the same text for every conversation that
begins with the same `n` messages. So the template is given messages that note when each of them is first looked at.
What it has written until then is the beginning of the text of the first `n` messages. What follows is found by a short
run in which the loop that asked for message `n` does nothing: loops leave nothing behind but text.

Whatever is not proven so is left out, and is to be rendered on its own. Templates with memory (namespaces that are
changed in loops) are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Template, nodes
from jinja2.ext import loopcontrols
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from shared.conversation.content_format import GenerationTag

Texts = dict[tuple[int, bool], str]
"""By how many messages, and whether an answer is asked for: what the template writes."""

_LOOP, _FLAG = "_tunestream_loop", "_tunestream_flag"  # filters that are put into the template
_PROMPT = "add_generation_prompt"
_PEEKS = frozenset({"last", "nextitem", "length", "revindex", "revindex0"})
_REFUSED = (nodes.Block, nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
_MEMORY = frozenset({"cycler", "joiner", "lipsum"})
# what they return is used up by whoever reads it
_LAZY = frozenset({"map", "select", "reject", "selectattr", "rejectattr", "batch", "slice", "unique", "reverse"})


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
    loops: int = 0
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

    def __init__(self, run: _Run, messages: _Messages) -> None:
        self._run = run
        self._messages = messages
        self._number = run.loops
        run.loops += 1

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

    def _loop(self, over: Any) -> Any:
        return _Loop(self.run, over) if type(over) is _Messages else over

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


class _Watch(NodeTransformer):
    """Puts a filter around each look at whether an answer is asked for."""

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        if node.name in ("defined", "undefined") and isinstance(node.node, nodes.Name):
            return node
        return self.generic_visit(node)

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.name != _PROMPT or node.ctx != "load":
            return node
        return _filtered(node, _FLAG)


class Prefixes:
    """Renders beginnings of conversations with one template."""

    def __init__(self, environment: _Environment, compiled: Template) -> None:
        self._environment = environment
        self._compiled = compiled

    def texts(
        self, messages: Sequence[Mapping[str, Any]], ends: Sequence[tuple[int, bool]], values: Mapping[str, Any]
    ) -> Texts:
        """What the template writes for the first `n` messages, for each of `ends` (`n`, and whether an answer is asked
        for); those that are not proven are left out. `values`: what else it is given.

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
                tail = tails.get((seen.loop, prompt))
                if tail is None:
                    short = _Run(messages[:end], prompt, skip=seen.loop)
                    written = self._text(short, values)
                    if short.skipped_at is None:
                        continue
                    tail = written[short.skipped_at :]
                    if not short.looked_after:
                        tails[seen.loop, prompt] = tail
                found[end, prompt] = text[: seen.position] + tail
        return found

    def _text(self, run: _Run, values: Mapping[str, Any]) -> str:
        self._environment.run = run
        given = {**values, "messages": _Messages(run), _PROMPT: run.prompt}
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
    environment.filters |= {_LOOP: environment._loop, _FLAG: environment._flag}
    root = environment.parse(template)
    if _has_memory(root):
        return None
    _watch_loops(root.body)
    root = _Watch().visit(root)
    code = environment.compile(root)
    return Prefixes(environment, Template.from_code(environment, code, environment.make_globals(None)))


def _environment_of_transformers(template: str) -> Any:
    try:
        from transformers.utils import chat_template_utils  # noqa: PLC0415  slow to load

        return chat_template_utils._compile_jinja_template(template).environment
    except (ImportError, AttributeError):  # another version: then nothing is proven
        return None


def _has_memory(root: nodes.Template) -> bool:
    """Whether a loop may leave behind more than text."""
    if any(True for _ in root.find_all(_REFUSED)):
        return True
    if any(name.name in _MEMORY for name in root.find_all(nodes.Name)):
        return True
    if any(loop.else_ or loop.recursive for loop in root.find_all(nodes.For)):
        return True
    if any(isinstance(one.node, nodes.Filter) and one.node.name in _LAZY for one in root.find_all(nodes.Assign)):
        return True
    of_loops = [
        *(one.node for one in root.find_all(nodes.Getattr)),
        *(one.node for one in root.find_all(nodes.Getitem)),
    ]
    looked_at = sum(isinstance(one, nodes.Name) and one.name == "loop" for one in of_loops)
    if looked_at != sum(name.name == "loop" for name in root.find_all(nodes.Name)):
        return True  # what is done with the loop itself is not seen
    places = (nodes.For, nodes.Macro, nodes.CallBlock)
    return any(True for place in root.find_all(places) for _ in place.find_all(nodes.NSRef))


def _watch_loops(body: list[nodes.Node]) -> None:
    """Put a filter around what is gone through by loops whose text is written at once; what macros and set blocks
    write is kept back."""
    for node in body:
        if isinstance(node, nodes.If):
            _watch_loops(node.body)
            for other in node.elif_:
                _watch_loops(other.body)
            _watch_loops(node.else_)
        elif isinstance(node, nodes.With):
            _watch_loops(node.body)
        elif isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, _LOOP)
            _watch_loops(node.body)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _is_index(key: Any) -> bool:
    return isinstance(key, int) and key >= 0
