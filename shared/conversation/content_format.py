"""Whether a chat template takes a message's content as a text or as a list of parts: vLLM's rule.

The template is parsed, not run. It takes parts if it has a loop over the content of a message, found through
assignments (`set text = message.content`), filters, slices and macro arguments as in vLLM 0.32
(`vllm/renderers/hf.py`, `_detect_content_format`). Where vLLM's own rule gives up, the answer is `string`, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

ContentFormat = Literal["string", "openai"]


class GenerationTag(Extension):
    """`{% generation %}` marks what the model writes; transformers knows the tag, jinja2 does not."""

    tags = {"generation"}  # noqa: RUF012  the attribute of the base class

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _GivesUp(Exception):
    """The template does what vLLM's rule does not expect, such as unpacking in a loop."""


@lru_cache(maxsize=32)
def content_format(template: str) -> ContentFormat:
    """`openai`: a list of parts, also for a plain text. `string`: a text; parts are joined by line ends."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    try:
        root = environment.parse(template)
        return "openai" if any(True for _ in _loops_over_content(root)) else "string"
    except (TemplateError, _GivesUp):
        return "string"


def _loops_over_content(root: nodes.Template) -> Iterator[nodes.For]:
    messages = list(_message_names(root))
    in_macros: dict[int, set[str]] = {}
    for macro in root.find_all(nodes.Macro):
        names = _content_parameters(root, macro, messages)
        for loop in macro.find_all(nodes.For):
            # a macro inside another one overrides only if it is given content itself
            in_macros[id(loop)] = names or in_macros.get(id(loop), set())
    for loop in root.find_all(nodes.For):
        over = loop.iter
        name = over.name if isinstance(over, nodes.Name) else None
        if any(_refers(over, message, "content") for message in messages) or (
            name is not None and (name in in_macros[id(loop)] if id(loop) in in_macros else name == "content")
        ):
            _name(loop.target)
            yield loop


def _content_parameters(root: nodes.Template, macro: nodes.Macro, messages: list[str]) -> set[str]:
    """The parameters of a macro to which some call passes the content of a message."""
    parameters = [parameter.name for parameter in macro.args]
    found = set()
    for call in root.find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name != macro.name:
            continue
        passed = [*zip(parameters, call.args, strict=False)]
        passed += [(keyword.key, keyword.value) for keyword in call.kwargs if keyword.key in parameters]
        found |= {name for name, value in passed if any(_refers(value, message, "content") for message in messages)}
    return found


def _message_names(root: nodes.Template) -> Iterator[str]:
    """The names of loop variables that hold a message."""
    lists = list(_aliases(root, "messages"))
    for loop in root.find_all(nodes.For):
        if any(_refers(loop.iter, name) for name in lists):
            yield _name(loop.target)


def _aliases(root: nodes.Template, name: str) -> Iterator[str]:
    yield name
    waiting = [name]
    seen = {name}
    while waiting:
        one = waiting.pop(0)
        for assigned in root.find_all(nodes.Assign):
            if _refers(assigned.node, one):
                alias = _name(assigned.target)
                if alias not in seen:
                    seen.add(alias)
                    waiting.append(alias)
                    yield alias


def _refers(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    """Whether an expression is the variable `name`, or its item `key`, perhaps filtered, tested or sliced."""
    while isinstance(node, nodes.Filter | nodes.Test) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    if key is None:
        return _is(node, name)
    if isinstance(node, nodes.Getitem):
        return _is(node.node, name) and isinstance(node.arg, nodes.Const) and node.arg.value == key
    return isinstance(node, nodes.Getattr) and _is(node.node, name) and node.attr == key


def _is(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name


def _name(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _GivesUp
    return target.name
