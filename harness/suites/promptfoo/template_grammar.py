"""Which Nunjucks templates are evaluated: those for which Jinja2 is certain to give the text that Nunjucks gives.

Both languages look alike and differ in silence: in what counts as true, in how values become text, in their operators
and filters. So a template is parsed by Jinja2, every part of it must be on the lists of this module, and every
operation is replaced by a filter of `template_filters`, which follows JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from jinja2 import Environment, nodes
from jinja2.meta import find_undeclared_variables

from harness.suites.promptfoo.template_filters import ARGUMENTS, PREFIX

NUMBER = re.compile(r"0|[1-9]\d{0,14}(\.\d{1,15})?|0\.\d{1,15}")
OTHER_SPACE = re.compile("[\x1c-\x1f\x85\ufeff\r]")
"""Characters that only one of the languages counts as white space, and carriage returns, which Jinja2 changes."""
OTHER_WORDS = frozenset({"True", "False", "None", "null", "undefined", "self", "super", "caller", "varargs", "kwargs"})
_NO_VARIABLE = "the name {}, which is no variable"
GLOBALS = {
    **{name: _NO_VARIABLE.format(name) for name in ("range", "cycler", "joiner", "_conversation")},
    "env": "env (variables of the environment are not read: they would change what is asked on another machine)",
}
"""Names that mean something in promptfoo without being variables of the case, and why they are refused."""
OPERATORS = frozenset({"eq", "ne", "lt", "lteq", "gt", "gteq", "in", "notin"})
UNCERTAIN_OPERANDS = (nodes.Compare, nodes.Test, nodes.Not)
"""What a comparison may not compare, because the languages bind these differently without brackets."""
ARITHMETIC: dict[type[nodes.BinExpr], str] = {nodes.Add: "add", nodes.Sub: "sub", nodes.Mul: "mul"}


class NotCertainError(Exception):
    """A template has a part that Nunjucks might evaluate differently. The text names the part."""


@dataclass(frozen=True)
class Names:
    """The names of variables in a template."""

    used: frozenset[str]
    optional: frozenset[str]
    """Names that the template tests, as in `{% if name %}` and `name | default("")`, so that they may be missing.

    Of any other, a missing variable is a mistake, although Nunjucks writes nothing in its place.
    """


def checked(environment: Environment, source: str) -> tuple[nodes.Template, Names]:
    """Parse a template, and return its tree with every operation replaced by one that follows JavaScript.

    Raises:
        NotCertainError: a part of the template is not on the lists of this module.
        jinja2.TemplateError: it is no template of Jinja2.
    """
    _check_tokens(environment, source)
    tree = environment.parse(source)
    optional = frozenset(name.name for part in _tested(tree) for name in _names(part))
    tree.body = [_statement(node, in_loop=False) for node in tree.body]
    tree = tree.set_environment(environment)  # type: ignore[assignment]
    return tree, Names(frozenset(find_undeclared_variables(tree)), optional)


def _tested(tree: nodes.Template) -> Iterator[nodes.Node]:
    """Yield the expressions of a template that are tested for being true, being there, or holding anything."""
    for node in tree.find_all(nodes.Node):
        if (tested := _test_of(node)) is not None:
            yield tested


def _test_of(node: nodes.Node) -> nodes.Node | None:
    """Return the expression that a part of a template tests; None if it tests none."""
    if isinstance(node, nodes.If | nodes.CondExpr):
        return node.test
    if isinstance(node, nodes.And | nodes.Or):
        return node.left
    if isinstance(node, nodes.For):
        return node.iter if node.else_ else None
    if isinstance(node, nodes.Filter):
        return node.node if node.name in ("default", "d") else None
    return node.node if isinstance(node, nodes.Not | nodes.Test) else None


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    yield from [node] if isinstance(node, nodes.Name) else node.find_all(nodes.Name)


MARKS = frozenset({"block_begin", "block_end", "variable_begin", "variable_end"})
PLAIN_MARKS = frozenset({"comment_begin", "comment_end", "raw_begin", "raw_end"})


def _check_tokens(environment: Environment, source: str) -> None:
    if OTHER_SPACE.search(source):
        raise NotCertainError("unusual white space")
    tokens = [(kind, value) for _, kind, value in environment.lex(source) if kind != "whitespace"]
    for kind, value in tokens:
        if what := _uncertain(kind, value):
            raise NotCertainError(what)
    for (first, value), (second, _) in pairwise(tokens):
        if (first, second) == ("string", "string") or (first == "operator" and value == "." and second == "integer"):
            raise NotCertainError("two texts in a row, or a number after a dot")
    kinds = [kind for kind, _ in tokens]
    if kinds.count("raw_begin") != kinds.count("raw_end"):
        raise NotCertainError("a raw block that does not end")
    _check_raw([value for kind, value in tokens if kind in ("raw_begin", "data", "raw_end")])


def _uncertain(kind: str, value: str) -> str:
    """Name what is uncertain about a token, or return an empty text."""
    if (kind in PLAIN_MARKS and ("-" in value or "+" in value)) or (kind in MARKS and "+" in value):
        return "white space control that Nunjucks does not have"
    if kind == "string" and "\\" in value:
        return "a text with a backslash"
    if kind in ("integer", "float") and not NUMBER.fullmatch(value):
        return f"the number {value}"
    return f"the word {value}" if kind == "name" and value in OTHER_WORDS else ""


def _check_raw(parts: list[str]) -> None:
    for before, inside in pairwise(parts):
        if re.fullmatch(r"\{%\s*raw\s*%\}", before) and re.search(r"\{%-?\s*raw", inside):
            raise NotCertainError("nested raw blocks")


# --- statements --------------------------------------------------------------------------------------------------


def _statement(node: nodes.Node, *, in_loop: bool) -> nodes.Node:
    if isinstance(node, nodes.Output):
        node.nodes = [part if isinstance(part, nodes.TemplateData) else _written(part) for part in node.nodes]
    elif isinstance(node, nodes.If):
        node.test = _truth(node.test)
        node.body = [_statement(part, in_loop=in_loop) for part in node.body]
        node.elif_ = [cast(nodes.If, _statement(part, in_loop=in_loop)) for part in node.elif_]
        node.else_ = [_statement(part, in_loop=in_loop) for part in node.else_]
    elif isinstance(node, nodes.For):
        _loop(node)
    elif isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name) and not in_loop:
        node.node = _value(node.node)
    else:
        raise NotCertainError(f"the tag {type(node).__name__.lower()}")
    return node


def _loop(node: nodes.For) -> None:
    if node.recursive or node.test is not None:
        raise NotCertainError("a for loop with a condition")
    if isinstance(node.target, nodes.Name):
        node.iter = _call("each", _value(node.iter))
    elif isinstance(node.target, nodes.Tuple) and [type(name) for name in node.target.items] == [nodes.Name] * 2:
        node.iter = _call("pairs", _value(node.iter))
    else:
        raise NotCertainError("a for loop with several names")
    node.body = [_statement(part, in_loop=True) for part in node.body]
    node.else_ = [_statement(part, in_loop=True) for part in node.else_]


def _written(node: nodes.Node) -> nodes.Expr:
    """Return the expression whose text is written. `| safe` changes nothing there, since nothing is escaped."""
    is_safe = isinstance(node, nodes.Filter) and node.name == "safe" and not node.args
    return _value(node.node if is_safe and isinstance(node, nodes.Filter) and node.node is not None else node)


# --- expressions -------------------------------------------------------------------------------------------------


def _call(name: str, value: nodes.Expr, *arguments: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(value, PREFIX + name, list(arguments), [], None, None, lineno=value.lineno)


def _value(node: nodes.Node) -> nodes.Expr:
    """Return an expression that has the value which the given one has in Nunjucks."""
    if isinstance(node, nodes.Const | nodes.Name):
        return node
    if isinstance(node, nodes.List):
        node.items = [_value(item) for item in node.items]
        return node
    if isinstance(node, nodes.Getattr):
        node.node = _value(node.node)
        return node
    if isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice):
        node.node, node.arg = _value(node.node), _value(node.arg)
        return node
    if isinstance(node, nodes.Filter):
        return _filter(node)
    if isinstance(node, nodes.CondExpr):
        if any(isinstance(part, nodes.CondExpr) for part in (node.test, node.expr1, node.expr2)):
            raise NotCertainError("an inline if within another")
        node.test, node.expr1 = _truth(node.test), _value(node.expr1)
        node.expr2 = None if node.expr2 is None else _value(node.expr2)
        return node
    if isinstance(node, nodes.Or):
        return nodes.CondExpr(_truth(node.left), _value(node.left), _value(node.right), lineno=node.lineno)
    if isinstance(node, nodes.And):
        return nodes.CondExpr(_truth(node.left), _value(node.right), _value(node.left), lineno=node.lineno)
    return _operation(node)


def _operation(node: nodes.Node) -> nodes.Expr:
    if isinstance(node, nodes.Not | nodes.Compare | nodes.Test):
        return _truth(node)
    operands = node.nodes if isinstance(node, nodes.Concat) else [*node.iter_child_nodes()]
    if any(isinstance(part, nodes.Test | nodes.Not) for part in operands):
        raise NotCertainError("is, or not, before an operator")
    if isinstance(node, nodes.Concat) and not any(isinstance(part, nodes.BinExpr) for part in node.nodes):
        first, *rest = [_value(part) for part in node.nodes]
        for part in rest:
            first = _call("concat", first, part)
        return first
    if type(node) in ARITHMETIC:
        assert isinstance(node, nodes.BinExpr)
        return _call(ARITHMETIC[type(node)], _value(node.left), _value(node.right))
    raise NotCertainError(f"the expression {type(node).__name__.lower()}")


def _filter(node: nodes.Filter) -> nodes.Expr:
    least, most = ARGUMENTS.get(node.name, (0, -1))
    if node.node is None or node.kwargs or node.dyn_args or node.dyn_kwargs or not least <= len(node.args) <= most:
        raise NotCertainError(f"the filter {node.name}")
    return _call(node.name, _value(node.node), *(_value(argument) for argument in node.args))


def _truth(node: nodes.Node) -> nodes.Expr:
    """Return an expression that is true where the given one counts as true in JavaScript."""
    if isinstance(node, nodes.And | nodes.Or):
        node.left, node.right = _truth(node.left), _truth(node.right)
        return node
    if isinstance(node, nodes.Not):
        # Nunjucks negates only the first operand of `not a == b`.
        if isinstance(node.node, nodes.BinExpr | nodes.Compare | nodes.Concat | nodes.CondExpr):
            raise NotCertainError("not before an operator")
        node.node = _truth(node.node)
        return node
    if isinstance(node, nodes.Test):
        is_plain = node.name in ("defined", "undefined") and not node.args and not node.kwargs
        if not is_plain or not isinstance(node.node, nodes.Name):
            raise NotCertainError(f"the test {node.name}")
        return node
    if isinstance(node, nodes.Compare):
        return _comparison(node)
    return _call("true", _value(node))


def _comparison(node: nodes.Compare) -> nodes.Expr:
    (operand, *more) = node.ops
    if more or operand.op not in OPERATORS or isinstance(operand.expr, UNCERTAIN_OPERANDS):
        raise NotCertainError("several comparisons in a row")
    if isinstance(node.expr, UNCERTAIN_OPERANDS):
        raise NotCertainError("several comparisons in a row")
    left, right = _value(node.expr), _value(operand.expr)
    if operand.op in ("ne", "notin"):
        return nodes.Not(_call("eq" if operand.op == "ne" else "in", left, right), lineno=node.lineno)
    return _call(operand.op, left, right)
