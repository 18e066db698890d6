"""What is wrong with settings that a user wrote: which field, and what it may be, in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError

_WORDS = (
    (re.compile(r"an? valid integer.*"), "a whole number"),
    (re.compile(r"a valid number.*"), "a number"),
    (re.compile(r"a valid string$"), "text"),
    (re.compile(r"a valid boolean.*"), "true or false"),
    (re.compile(r"a valid (?:tuple|list).*"), "a list"),
    (re.compile(r"a valid dictionary.*"), "fields with values, each `name: value`"),
    (re.compile(r"greater than or equal to "), "at least "),
    (re.compile(r"less than or equal to "), "at most "),
)
"""What pydantic says, and what it means to people who do not write Python."""
_SHOULD = re.compile(r"\w+ should (be |have )")


class Wrong(NamedTuple):
    """A field, as the names that lead to it (empty: the settings as a whole), and what is wrong with it."""

    path: tuple[str, ...]
    reason: str

    @property
    def field(self) -> str:
        return ".".join(self.path)


def explained(error: ValidationError, model: type[BaseModel]) -> list[Wrong]:
    """Each wrong field of `model` once: what pydantic says of the branches of a union (`auto` or a number) is one
    reason."""
    reasons: dict[tuple[str, ...], list[str]] = {}
    for problem in error.errors(include_input=False, include_url=False):
        path, parent = _field(problem["loc"], model)
        unknown = problem["type"] == "extra_forbidden"
        reasons.setdefault(path, []).append(_unknown(path[-1], parent, model) if unknown else _reason(problem["msg"]))
    return [
        Wrong(path, " or ".join(dict.fromkeys(said)).replace(" or must be ", " or ")) for path, said in reasons.items()
    ]


def _reason(message: str) -> str:
    if message == "Field required":
        return "is missing"
    said = _SHOULD.sub(r"must \1", message.removeprefix("Value error, ").removesuffix("."), count=1)
    for pattern, words in _WORDS:
        said = pattern.sub(words, said)
    return said


def _unknown(name: str, parent: type[BaseModel], model: type[BaseModel]) -> str:
    """What to write instead of a field that there is not: a similar one, or the same one where it belongs."""
    close = difflib.get_close_matches(name, list(parent.model_fields), n=1, cutoff=0.7)
    if close:
        return f"there is no such setting; did you mean {close[0]}?"
    for place, field in model.model_fields.items():
        inside = _model(field.annotation)
        if inside is not None and inside is not parent and name in inside.model_fields:
            return f"there is no such setting here; it belongs into {place}: `{place}: {{{name}: …}}`"
    if name in model.model_fields and parent is not model:
        return "there is no such setting here; it belongs to the outermost fields"
    return f"there is no such setting; there are {', '.join(parent.model_fields)}"


def _field(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[tuple[str, ...], type[BaseModel]]:
    """The names that lead to a field, without pydantic's names of union branches, and the model that should have the
    field."""
    inside: Any = model
    parent = model
    path: list[str] = []
    for part in location:
        found = _model(inside)
        if found is not None:
            parent = found
            field = found.model_fields.get(str(part))
            inside = field.annotation if field else None
        elif get_origin(inside := _plain(inside)) in (tuple, list) and isinstance(part, int):
            inside = get_args(inside)[0]
        elif get_origin(inside) in (dict, Mapping):
            inside = get_args(inside)[1]
        else:
            break
        path.append(str(part))
    return tuple(path), parent


def _model(annotation: Any) -> type[BaseModel] | None:
    plain = _plain(annotation)
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None


def _plain(annotation: Any) -> Any:
    """`X` for `X | None` and for `Annotated[X, …]`; of other unions the only one that is a list, if there is one."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if isinstance(annotation, UnionType):
        others = [branch for branch in get_args(annotation) if branch is not type(None)]
        lists = [branch for branch in others if get_origin(branch) in (tuple, list)]
        only = lists if len(lists) == 1 else others
        return _plain(only[0]) if len(only) == 1 else annotation
    return annotation
