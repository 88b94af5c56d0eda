"""The small language of a back end's `filter_function` and `goodness_function`, evaluated without Python's eval.

Numbers, quoted texts, names (`stats.x`, `capabilities.x`, `volume.size`, `extra.x`, `qos.x`), `+ - * / ^`, comparisons
(also chained), `and or not` (or `&& || !`), `a ? b : c`, `abs(x)`, `min(x, y, …)`, `max(x, y, …)`. Division gives a
fraction, `^` binds to the right. What can not be evaluated raises BadExpression and does nothing else.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from coordinator.scheduler.errors import BadExpression

Value = float | bool | str
Scope = Mapping[str, Mapping[str, Any]]
Node = Callable[[Scope], Value]

_MAX_LENGTH, _MAX_DEPTH = 4096, 64
_LARGEST_POWER = 1024
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
    |'(?P<single>[^']*)'|"(?P<double>[^"]*)"
    |(?P<sign><=|>=|==|!=|<>|&&|\|\||[-+*/^<>!?:(),])
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne, "<>": operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
_WORDS = {"and": "&&", "or": "||", "not": "!"}
_FUNCTIONS: dict[str, Callable[..., float]] = {"abs": abs, "min": min, "max": max}


def evaluate(text: str, scope: Scope) -> Value:
    """The value of an expression; BadExpression says what is wrong with it."""
    try:
        return _parsed(text)(scope)
    except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
        raise BadExpression(expression=text[:200], reason=str(error) or type(error).__name__) from error


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Node:
    if len(text) > _MAX_LENGTH:
        raise BadExpression(expression=text[:60] + "…", reason=f"it is longer than {_MAX_LENGTH} characters")
    parser = _Parser(text)
    node = parser.choice()
    parser.expect_end()
    return node


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, whole = 0, text.rstrip()
    while place < len(whole):
        match = _TOKEN.match(whole, place)
        if match is None:
            raise BadExpression(expression=text[:200], reason=f"{whole[place : place + 20]!r} is not understood")
        kind = match.lastgroup or ""
        value = match[kind]
        word = _WORDS.get(value.lower()) if kind == "name" else None
        yield ("sign", word) if word else (kind, value)
        place = match.end()
    yield "end", ""


class _Parser:
    """Recursive descent; each method reads one level of binding and returns what computes it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._place = 0
        self._depth = 0

    def choice(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._bad(f"it is nested deeper than {_MAX_DEPTH}")
        condition = self._either()
        if self._take("?"):
            yes = self.choice()
            self._need(":")
            no = self.choice()
            self._depth -= 1
            return lambda scope: yes(scope) if condition(scope) else no(scope)
        self._depth -= 1
        return condition

    def expect_end(self) -> None:
        kind, value = self._tokens[self._place]
        if kind != "end":
            raise self._bad(f"{value!r} is not expected there")

    def _either(self) -> Node:
        parts = self._several(self._both, "||")
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def _both(self) -> Node:
        parts = self._several(self._negated, "&&")
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def _several(self, inner: Callable[[], Node], sign: str) -> list[Node]:
        parts = [inner()]
        while self._take(sign):
            parts.append(inner())
        return parts

    def _negated(self) -> Node:
        turns = 0
        while self._take("!"):
            turns += 1
        inner = self._compared()
        if not turns:
            return inner
        return lambda scope: bool(inner(scope)) == (turns % 2 == 0)

    def _compared(self) -> Node:
        first = self._sum()
        pairs: list[tuple[Callable[[Any, Any], bool], Node]] = []
        while sign := self._take(*_COMPARE):
            pairs.append((_COMPARE[sign], self._sum()))
        if not pairs:
            return first

        def compare(scope: Scope) -> Value:
            left = first(scope)
            for holds, node in pairs:
                right = node(scope)
                if not _comparable(holds, left, right):
                    return False
                left = right
            return True

        return compare

    def _sum(self) -> Node:
        return self._chain(self._product, "+", "-")

    def _product(self) -> Node:
        return self._chain(self._signed, "*", "/")

    def _chain(self, inner: Callable[[], Node], *signs: str) -> Node:
        node = inner()
        while sign := self._take(*signs):
            node = _binary(_ARITHMETIC[sign], node, inner())
        return node

    def _signed(self) -> Node:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        inner = self._power()
        return (lambda scope: -_number(inner(scope))) if negative else inner

    def _power(self) -> Node:
        parts = [self._atom()]
        while self._take("^"):
            sign = -1.0 if self._take("-") else 1.0
            parts.append(_scaled(self._atom(), sign))
        node = parts.pop()
        while parts:
            node = _binary(_raised, parts.pop(), node)
        return node

    def _atom(self) -> Node:
        kind, value = self._tokens[self._place]
        self._place += 1
        if kind == "number":
            number = float(value)
            return lambda scope: number
        if kind in {"single", "double"}:
            return lambda scope: value
        if kind == "name":
            return self._call(value) if value in _FUNCTIONS and self._take("(") else _variable(value)
        if value == "(":
            inner = self.choice()
            self._need(")")
            return inner
        self._place -= 1
        raise self._bad("it ends too early" if kind == "end" else f"{value!r} is not expected there")

    def _call(self, name: str) -> Node:
        arguments = self._several(self.choice, ",")
        self._need(")")
        function = _FUNCTIONS[name]
        return lambda scope: function(*(_number(argument(scope)) for argument in arguments))

    def _take(self, *signs: str) -> str:
        kind, value = self._tokens[self._place]
        if kind != "sign" or value not in signs:
            return ""
        self._place += 1
        return value

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise self._bad(f"{sign!r} is missing")

    def _bad(self, reason: str) -> BadExpression:
        return BadExpression(expression=self._text[:200], reason=reason)


def _variable(name: str) -> Node:
    space, _, key = name.partition(".")
    if not key:
        if space.lower() in {"true", "false"}:
            truth = space.lower() == "true"
            return lambda scope: truth
        raise BadExpression(expression=name[:200], reason=f"{name!r} is not a name like volume.size")

    def look(scope: Scope) -> Value:
        try:
            return _plain(scope[space][key])
        except KeyError:
            raise BadExpression(expression=name[:200], reason=f"{name!r} is not known") from None

    return look


def _plain(value: Any) -> Value:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, bool | int | float):
        return value
    raise ValueError(f"{value!r} is neither number nor text")


def _binary(compute: Callable[[float, float], float], left: Node, right: Node) -> Node:
    return lambda scope: compute(_number(left(scope)), _number(right(scope)))


def _scaled(node: Node, sign: float) -> Node:
    return node if sign > 0 else lambda scope: sign * _number(node(scope))


def _raised(base: float, exponent: float) -> float:
    if abs(exponent) > _LARGEST_POWER:
        raise ValueError(f"the power {exponent:g} is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("the root of a negative number")
    return float(result)


def _number(value: Value) -> float:
    if isinstance(value, str):
        raise ValueError(f"{value[:40]!r} is no number")
    return float(value)


def _comparable(holds: Callable[[Any, Any], bool], left: Value, right: Value) -> bool:
    """A text and a number are never equal, and have no order."""
    if isinstance(left, str) != isinstance(right, str):
        if holds in {operator.eq, operator.ne}:
            return holds is operator.ne
        raise ValueError(f"{left!r} and {right!r} have no order")
    return holds(left, right)
