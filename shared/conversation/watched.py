"""A chat template with filters that tell which of its loops goes through the messages, and when it looks whether an
answer is asked for. What they do is in `prefixes.py`."""

from __future__ import annotations

from collections.abc import Iterable

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

LOOP, FLAG = "_tunestream_loop", "_tunestream_flag"
"""Filters that are put into the template."""
PROMPT = "add_generation_prompt"
_REFUSED = (nodes.Block, nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
_CONVERSATION = ("messages", "tools", "documents")
_MEMORY = frozenset({"cycler", "joiner", "lipsum"})
# what they return is used up by whoever reads it
_LAZY = frozenset({"map", "select", "reject", "selectattr", "rejectattr", "batch", "slice", "unique", "reverse"})


def watched_template(root: nodes.Template, functions: Iterable[str]) -> nodes.Template | None:
    """The same with the filters; None: it has memory, or is built in a way that is not looked at. `functions`: the
    names of those that it can call."""
    if _has_memory(root):
        return None
    _Ends(root, functions).watch(root.body, [])
    watched: nodes.Template = _Watch().visit(root)
    return watched


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


class _Ends:
    """Puts a filter around what is gone through by loops whose text is written at once; what macros and set blocks
    write is kept back. It numbers the loops after which nothing of a conversation is read: no variable or macro of the
    template, and no function."""

    def __init__(self, root: nodes.Template, functions: Iterable[str]) -> None:
        changing = [name.name for name in root.find_all(nodes.Name) if name.ctx != "load"]
        self._changing = {*changing, *(macro.name for macro in root.find_all(nodes.Macro)), *functions, *_CONVERSATION}
        self._found = 0

    def watch(self, body: list[nodes.Node], after: list[nodes.Node] | None) -> None:
        """`after`: the nodes that come after the body; None: the body is that of a loop, and may come again."""
        for place, node in enumerate(body, start=1):
            rest = None if after is None else [*body[place:], *after]
            if isinstance(node, nodes.If):
                self.watch(node.body, rest)
                for other in node.elif_:
                    self.watch(other.body, rest)
                self.watch(node.else_, rest)
            elif isinstance(node, nodes.With):
                self.watch(node.body, rest)
            elif isinstance(node, nodes.For):
                number = nodes.Const(self._number(rest), lineno=node.lineno)
                node.iter = _filtered(node.iter, LOOP, number)
                self.watch(node.body, None)

    def _number(self, rest: list[nodes.Node] | None) -> int | None:
        if rest is None or any(self._changes(node) for node in rest):
            return None
        self._found += 1
        return self._found

    def _changes(self, node: nodes.Node) -> bool:
        around = nodes.Scope([node])  # `find_all` looks at what is within a node, and not at the node
        read = {name.name for name in around.find_all(nodes.Name)}
        return not read.isdisjoint(self._changing) or any(one.name == "random" for one in around.find_all(nodes.Filter))


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


class _Watch(NodeTransformer):
    """Puts a filter around each look at whether an answer is asked for."""

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        if node.name in ("defined", "undefined") and isinstance(node.node, nodes.Name):
            return node
        return self.generic_visit(node)

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.name != PROMPT or node.ctx != "load":
            return node
        return _filtered(node, FLAG)
