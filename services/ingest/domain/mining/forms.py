"""Which form a file is in, by its columns and its first rows, and which column holds what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from services.ingest.domain.mining.logged import is_choices
from services.ingest.domain.mining.names import GROUPS, LABELS, ORDERS, TARGETS, TEXTS
from services.ingest.domain.mining.records import Record, getter, key_of, listed, require
from services.ingest.domain.mining.transcripts import is_transcript
from services.ingest.domain.mining.turns import Speakers, is_messages
from shared.errors import InputError
from shared.events import Source, Target

FormName = Literal["native", "conversations", "messages", "pairs", "preference", "ab", "judged", "logged"]
FORMS: dict[FormName, str] = {
    "native": "rows of a training format",
    "conversations": "one conversation in each row",
    "messages": "one message in each row",
    "pairs": "a question and an answer in each row",
    "preference": "a better and a worse answer in each row",
    "ab": "two answers in each row, and which of them is better",
    "logged": "a request and its response in each row",
    "judged": "a question and an answer in each row, and whether it is a good one",
}
CODE, PARAM = "invalid_training_file", "training_file"

_NEEDS: dict[FormName, tuple[Target, ...]] = {
    "preference": ("chosen", "rejected"),
    "ab": ("answer_a", "answer_b", "preferred"),
    "judged": ("user", "assistant", "preferred"),
    "logged": ("messages", "assistant"),
    "conversations": ("messages",),
    "pairs": ("user", "assistant"),
    "messages": ("role", "content"),
}
_USES: dict[FormName, tuple[Target, ...]] = {
    "native": (),
    "preference": ("system", "user", "messages", "context", "chosen", "rejected"),
    "ab": ("system", "user", "messages", "context", "answer_a", "answer_b", "preferred"),
    "judged": ("system", "user", "context", "assistant", "preferred"),
    "logged": ("system", "messages", "assistant"),
    "conversations": ("system", "messages"),
    "pairs": ("system", "user", "context", "assistant"),
    "messages": ("role", "content"),
}


@dataclass(frozen=True)
class Form:
    """How the rows of a file are read. `columns`: the columns of each target, whose texts are joined."""

    name: FormName
    columns: Mapping[Target, tuple[str, ...]] = field(default_factory=dict)
    group_by: str | None = None
    order_by: str | None = None
    metadata: tuple[str, ...] = ()

    @property
    def grouped(self) -> bool:
        return self.group_by is not None and self.name in ("messages", "pairs")


def form_of(columns: list[str], sample: Iterable[Record], source: Source) -> Form:
    """Decide how rows with these columns are read.

    Raises:
        InputError: the settings name a column that there is not, or it cannot be decided. The message names the columns
            and says how to name theirs.
    """
    sample = list(sample)
    given = _given(columns, source)
    if not given and native(sample) and not (source.group_by or source.order_by):
        return Form("native", metadata=_metadata(columns, source))
    for name in _order(given):
        found = _found(name, columns, sample, given, source)
        if found is not None:
            return _form(name, found, columns, source)
    speakers = Speakers(source.roles)
    for column in [] if given else columns:  # whatever it is called, but only where nothing else is understood
        if _holds(column, sample, lambda value: is_transcript(value, speakers)):
            return _form("conversations", {"messages": (column,)}, columns, source)
    raise _unknown(columns, given)


def native(sample: Sequence[Record]) -> bool:
    """Whether the rows are in one of the training formats of the OpenAI API."""
    return bool(sample) and all(_is_native(record) for record in sample)


def _is_native(record: Record) -> bool:
    """A row that means to be in a training format counts, too: the validator says best what is wrong with it."""
    if "chosen" in record and "rejected" in record:
        return False
    if isinstance(messages := record.get("messages"), list):
        if _system_beside(record, messages) or is_choices(record.get("choices")):
            return False
        return not any(isinstance(one, dict) and "role" not in one and is_messages([one]) for one in messages)
    if "preferred_completion" in record and "non_preferred_completion" in record:
        return True
    both = "prompt" in record and "completion" in record and not is_verdict(record.get("label"))
    return both and not isinstance(record["prompt"], list) and not isinstance(record["completion"], list)


def _system_beside(record: Record, messages: list[Any]) -> bool:
    """Whether the system prompt is not in the messages, but beside them, as in Anthropic's format."""
    column = usual("system", list(record))
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    return column is not None and bool(record[column]) and first.get("role") not in ("system", "developer")


def _given(columns: list[str], source: Source) -> dict[Target, tuple[str, ...]]:
    given: dict[Target, tuple[str, ...]] = {}
    for target, wanted in source.columns.items():
        names = (wanted,) if isinstance(wanted, str) else wanted
        given[target] = tuple(require(name, columns, f"source.columns.{target}") for name in names)
    return given


def _order(given: Mapping[Target, tuple[str, ...]]) -> list[FormName]:
    """The forms to try: those that the settings' own columns belong to first."""
    return sorted(_NEEDS, key=lambda name: -len(given.keys() & set(_NEEDS[name])))


def _found(
    name: FormName, columns: list[str], sample: list[Record], given: Mapping[Target, tuple[str, ...]], source: Source
) -> dict[Target, tuple[str, ...]] | None:
    """The columns of a form; None: the file lacks one."""
    if not given.keys() <= set(_USES[name]):
        return None
    found: dict[Target, tuple[str, ...]] = {}
    for target in _USES[name]:
        taken = {column for names in (*found.values(), *given.values()) for column in names}
        free = [column for column in columns if column not in taken]
        if target in given:
            found[target] = given[target]
        elif (column := usual(target, free)) is not None:
            found[target] = (column,)
    if name in ("preference", "ab") and "user" in found and "messages" not in given:
        found.pop("messages", None)  # the same again, with one of the answers
    if name == "pairs" and "assistant" not in found:
        found |= _labelled(columns, found, given)
    if name == "logged" and "assistant" not in given:
        choices = _usual(("choices",), columns)
        found.pop("assistant", None)
        if choices is not None and _holds(choices, sample, is_choices):
            found["assistant"] = (choices,)
    if not set(_NEEDS[name]) <= found.keys():
        return None
    if name == "judged" and "preferred" not in given and not _holds(found["preferred"][0], sample, is_verdict):
        return None
    if name in ("conversations", "logged") and "messages" not in given:
        column = next((each for each in _candidates("messages", columns) if _holds(each, sample, is_messages)), None)
        return None if column is None else {**found, "messages": (column,)}
    if name == "messages" and "role" not in given:
        return found if _speaks(found["role"][0], sample, source) else None
    return found


def _labelled(
    columns: list[str], found: Mapping[Target, tuple[str, ...]], given: Mapping[Target, tuple[str, ...]]
) -> dict[Target, tuple[str, ...]]:
    """A text and its label, where nothing else is an answer."""
    label = _usual(LABELS, columns)
    text = found.get("user", (None,))[0] if "user" in given or "user" in found else _usual(TEXTS, columns)
    return {"user": (text,), "assistant": (label,)} if label and text and label != text else {}


def is_verdict(value: Any) -> bool:
    """Whether a value says that an answer is good or bad, as in TRL's KTO format."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _holds(column: str, sample: list[Record], kind: Callable[[Any], bool]) -> bool:
    """Whether more than half of the values of a column are of a kind."""
    values = [value for value in map(getter(column), sample) if value or value is False]
    return bool(values) and sum(map(kind, values)) * 2 > len(values)


def _speaks(column: str, sample: list[Record], source: Source) -> bool:
    speakers = Speakers(source.roles)
    values = [value for value in map(getter(column), sample) if value]
    return bool(values) and any(map(speakers.knows, values))


def usual(target: Target, columns: list[str]) -> str | None:
    """The column that a target usually has."""
    return next(iter(_candidates(target, columns)), None)


def _candidates(target: Target, columns: list[str]) -> list[str]:
    found = (_usual((name,), columns) for name in TARGETS[target])
    return list(dict.fromkeys(column for column in found if column is not None))


def _usual(names: tuple[str, ...], columns: list[str]) -> str | None:
    """The first of `names` that is a column, or else the last part of a nested one."""
    whole: dict[str, str] = {}
    last: dict[str, str] = {}
    for column in columns:
        whole.setdefault(key_of(column), column)
        last.setdefault(key_of(column.rpartition(".")[2]), column)
    return next((found for by in (whole, last) for name in names if (found := by.get(name))), None)


def _form(name: FormName, found: dict[Target, tuple[str, ...]], columns: list[str], source: Source) -> Form:
    taken = {column for names in found.values() for column in names}
    free = [column for column in columns if column not in taken]
    group = require(source.group_by, columns, "source.group_by") if source.group_by else None
    order = require(source.order_by, columns, "source.order_by") if source.order_by else None
    if name in ("messages", "pairs"):
        group = group or _usual(GROUPS, free)
        order = order or _usual(ORDERS, [column for column in free if column != group])
    if name == "messages" and group is None:
        raise InputError(
            CODE,
            f"Each row is one message ({found['role'][0]}, {found['content'][0]}), but no column says which rows "
            "are one conversation; name it in the settings: `source: {group_by: COLUMN}`. The file has "
            f"{listed(columns)}.",
            "source.group_by",
        )
    return Form(name, found, group, order if group else None, _metadata(columns, source))


def _metadata(columns: list[str], source: Source) -> tuple[str, ...]:
    return tuple(require(name, columns, "source.metadata") for name in source.metadata)


def _unknown(columns: list[str], given: Mapping[Target, tuple[str, ...]]) -> InputError:
    has = f"The file has {listed(columns)}."
    if given:
        wanted = " or ".join(f"{' and '.join(needs)}" for needs in _NEEDS.values())
        return InputError(
            CODE, f"source.columns names {', '.join(given)}; a file needs columns for {wanted}. {has}", "source.columns"
        )
    return InputError(
        CODE,
        f"Nothing says which columns are the question and the answer. {has} Name them in the settings beside the file, "
        "such as `source: {columns: {user: COLUMN, assistant: COLUMN}}`; `tunestream mine FILE --column user=COLUMN "
        "--column assistant=COLUMN` shows what comes of it.",
        "source.columns",
    )
