"""Reads the settings of a job that a user writes as YAML beside the dataset. Whatever the text holds, the answer is the
settings, or an error that names what to correct."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from shared.errors import InputError
from shared.events import JobSpec
from shared.jobs.explain import Wrong, explained

Lines = dict[tuple[str, ...], int]
Spec = TypeVar("Spec", bound=BaseModel)

CODE = "invalid_job_settings"
MAX_BYTES = 64 * 2**10
MAX_DEPTH = 16  # settings are two levels deep
MOST_PROBLEMS = 5  # in one message: it has to fit into an event
MOST_CHARS = 200  # of one problem


def parse_spec(text: bytes, where: str) -> JobSpec:
    """Parse the settings of a job. JSON is YAML, too; an empty text means all defaults.

    `where` is the name of the text in an error.

    Raises:
        InputError: names the field and what is wrong with it. Nothing else is raised, whatever the text holds.
    """
    return parse(JobSpec, text, where, CODE, "`suffix: support`")


def parse(model: type[Spec], text: bytes, where: str, code: str, example: str) -> Spec:
    """Parse the YAML of any settings. `example`: lines that would be right, for an error.

    Raises:
        InputError: as `parse_spec`, with the code `code`.
    """
    try:
        return _parsed(model, text, where, example)
    except InputError as error:
        raise InputError(code, error.message, error.param) from None


def _parsed(model: type[Spec], text: bytes, where: str, example: str) -> Spec:
    if len(text) > MAX_BYTES:
        raise too_large(where)
    data, lines = _read(text, where)
    if not isinstance(data, dict):
        raise InputError(CODE, f"{where}: write `field: value` lines, for example {example}.")
    try:
        spec = model.model_validate(data)
        # what cannot be read back from the ledger must not get into it
        model.model_validate_json(spec.model_dump_json())
    except ValidationError as error:
        problems = explained(error, model)
        told = [_told(problem, lines) for problem in problems]
        more = f"; and {len(told) - MOST_PROBLEMS} more" if len(told) > MOST_PROBLEMS else ""
        field = _short(problems[0].field) or None
        message = f"{where}: {'; '.join(told[:MOST_PROBLEMS])}{more}"
        raise InputError(CODE, message if message.endswith("?") else f"{message}.", field) from None
    except Exception:  # half of a surrogate pair, a number that JSON does not know, …
        raise InputError(CODE, f"{where}: a value cannot be stored; write plain text and numbers.") from None
    return spec


def _told(problem: Wrong, lines: Lines) -> str:
    """`line 3, seed: must be a whole number`: a field that is not there has the line of what should have it."""
    places = (problem.path[:length] for length in range(len(problem.path), 0, -1))
    line = next((lines[place] for place in places if place in lines), None)
    place = ", ".join(filter(None, (f"line {line}" if line else "", _short(problem.field))))
    return f"{place}: {_short(problem.reason)}" if place else _short(problem.reason)


def too_large(where: str) -> InputError:
    """The error of settings that are not even read."""
    return InputError(CODE, f"{where}: settings may have {MAX_BYTES // 2**10} KiB; leave out what is no setting.")


def _read(text: bytes, where: str) -> tuple[Any, Lines]:
    """The values of a YAML text, {} if it has none; and the line of each field."""
    try:
        loader = _Loader(text.decode("utf-8"))
        try:
            root = loader.get_single_node()
            if root is None:
                return {}, {}
            _check_values(loader, root, where)
            lines = dict(_lines(root, ()))
            return loader.construct_document(root), lines
        finally:
            loader.dispose()
    except InputError:
        raise
    except _Refused as error:
        raise InputError(CODE, f"{where}{_line(error)}: {error}.") from None
    except Exception as error:  # YAMLError, UnicodeDecodeError, and what PyYAML does not translate
        raise InputError(CODE, f"{where}{_line(error)}: not YAML; correct it and drop it again.") from None


class _Refused(Exception):
    """The text is YAML, but may cost more than settings are worth, or says two things at once."""

    def __init__(self, problem: str, place: yaml.Event | Node) -> None:
        super().__init__(problem)
        self.problem_mark = place.start_mark


class _Loader(yaml.SafeLoader):
    """A safe loader that stops at deep nesting, and at aliases: a few lines of them can stand for gigabytes."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("aliases are not allowed; write the value out", event)
        if self.depth >= MAX_DEPTH:
            raise _Refused(f"nested more than {MAX_DEPTH} levels deep; settings are fields and values", event)
        self.depth += 1
        try:
            node: Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node


def _check_values(loader: _Loader, root: Node, where: str) -> None:
    """Construct every value alone, so that an error can name the field and the line.

    YAML gives a meaning to plain words such as `2024-31-12`, and PyYAML raises what it meets on the way.
    """
    for field, node in _scalars(root, ()):
        try:
            loader.construct_object(node)
        except Exception:
            name = _short(".".join(field)) or None
            about = f"{name}: " if name else ""
            line = f" line {node.start_mark.line + 1}"
            raise InputError(
                CODE, f"{where}{line}: {about}the value cannot be read; put it in quotes if it is text.", name
            ) from None


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
        _Refused: a field is there twice, of which YAML would take the last without a word.
    """
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*path, str(index)))
    elif isinstance(node, MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                field = _short(".".join((*path, key.value)))
                raise _Refused(f"{field} is set in line {seen[key.value]} already; set it once", key)
            seen[key.value] = line
            yield (*path, key.value), line
            yield from _lines(value, (*path, key.value))


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" line {mark.line + 1}" if mark else ""


def _short(text: str) -> str:
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= MOST_CHARS else plain[: MOST_CHARS - 1] + "…"
