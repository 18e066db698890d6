"""The YAML of settings that a user wrote: values and the line of each field. A text that is no YAML, that costs more
than settings are worth, or that says two things at once is refused with its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_DEPTH = 16
"""Settings are two levels deep."""
Lines = dict[tuple[str, ...], int]
"""The line of each field, from 1, by the names that lead to it."""


class Unreadable(Exception):
    """A text that cannot be read as settings. `line`: from 1, if it is known. `path`: the names that lead to the field
    that is meant, if it is one."""

    def __init__(self, problem: str, line: int | None = None, path: tuple[str, ...] = ()) -> None:
        super().__init__(problem)
        self.line = line
        self.path = path


def read(text: str) -> tuple[Any, Lines]:
    """The value of a YAML text, {} if it has none; and the line of each field.

    Raises:
        Unreadable: nothing else is raised, whatever the text holds.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return {}, {}
            _check_values(loader, root)
            lines = dict(_lines(root, ()))
            return loader.construct_document(root), lines
        finally:
            loader.dispose()
    except Unreadable:
        raise
    except Exception as error:  # YAMLError, and what PyYAML does not translate
        mark = getattr(error, "problem_mark", None)
        raise Unreadable("not YAML; correct it", mark.line + 1 if mark else None) from None


class _Loader(yaml.SafeLoader):
    """A safe loader that stops at deep nesting, and at aliases: a few lines of them can stand for gigabytes."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable("aliases are not allowed; write the value out", _line(event))
        if self.depth >= MAX_DEPTH:
            raise Unreadable(f"nested more than {MAX_DEPTH} levels deep; settings are fields and values", _line(event))
        self.depth += 1
        try:
            node: Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node


def _check_values(loader: _Loader, root: Node) -> None:
    """Construct every value alone, so that an error can name the field and the line.

    YAML gives a meaning to plain words such as `2024-31-12`, and PyYAML raises what it meets on the way.
    """
    for path, node in _scalars(root, ()):
        try:
            loader.construct_object(node)
        except Exception:
            problem = "the value cannot be read; put it in quotes if it is text"
            raise Unreadable(problem, _line(node), path) from None


def _scalars(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ScalarNode]]:
    """Every scalar, keys included, with the names of the fields that lead to it. No node is its own descendant, because
    there are no aliases."""
    if isinstance(node, ScalarNode):
        yield path, node
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _scalars(item, (*path, str(index)))
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield from _scalars(key, path)
            yield from _scalars(value, (*path, str(key.value) if isinstance(key, ScalarNode) else "?"))


def _lines(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The line of every field, by the names that lead to it.

    Raises:
        Unreadable: a field is there twice, of which YAML would take the last without a word.
    """
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*path, str(index)))
    elif isinstance(node, MappingNode):
        seen: dict[str, int | None] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                continue
            line = _line(key)
            if key.value in seen:
                raise Unreadable(f"is set in line {seen[key.value]} already; set it once", line, (*path, key.value))
            seen[key.value] = line
            if line is not None:
                yield (*path, key.value), line
            yield from _lines(value, (*path, key.value))


def _line(place: yaml.Event | Node) -> int | None:
    mark: Any = place.start_mark
    return mark.line + 1 if mark else None
