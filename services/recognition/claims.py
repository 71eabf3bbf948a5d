"""Conditions on what a result says: the extra conditions of arrangements, as data.

    credit_grade IN ('A', 'B') AND arrears = false

The language is that of policies and filters (`services.kit.records.conditions`), asked of the disclosed values of a
fact: names of claims on the left (`a.b` for one inside another), a text, number, true or false on the right. Logic has
three values: of a claim that is not disclosed, or is of another type, nothing is known, and what is not known is not
fulfilled. `IS NULL` is refused for the same reason: what is kept back cannot be told from what is not there.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from sqlglot import exp

from services.kit.records.condition_syntax import read as read_syntax

_Test = Callable[[Mapping[str, Any]], bool | None]
_Literal = str | Decimal | bool

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,7}")
_NUMBER: Final = re.compile(r"\d{1,18}(\.\d{1,18})?")
_COMPARE: Final[Mapping[type[exp.Expr], Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        exp.EQ: operator.eq,
        exp.NEQ: operator.ne,
        exp.LT: operator.lt,
        exp.LTE: operator.le,
        exp.GT: operator.gt,
        exp.GTE: operator.ge,
    }
)
_UNORDERED: Final = frozenset({exp.EQ, exp.NEQ})


@dataclass(frozen=True, slots=True)
class ClaimCondition:
    """A checked condition; equal where the texts are."""

    text: str
    claims: frozenset[str]
    """The claims it asks for, by their path."""
    _test: _Test = field(repr=False, compare=False)

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Tell whether the disclosed value fulfils it; what is not known fulfils nothing."""
        return self._test(value) is True


def read(text: str) -> ClaimCondition:
    """Read a condition; raises `ValueError` saying what is wrong with it, in words for its author."""
    claims: set[str] = set()
    test = _build(read_syntax(text), claims)
    return ClaimCondition(text, frozenset(claims), test)


def _build(tree: exp.Expr, claims: set[str]) -> _Test:
    match tree:
        case exp.Paren():
            return _build(tree.this, claims)
        case exp.Not():
            return _negated(_build(tree.this, claims))
        case exp.And() | exp.Or():
            return _joined(tree, claims)
        case exp.Is():
            raise ValueError("IS NULL asks nothing: what is kept back cannot be told from what is not there")
        case exp.In() if tree.expressions:
            return _compared(tree.this, exp.EQ, tree.expressions, claims)
        case _ if type(tree) in _COMPARE:
            return _compared(tree.this, type(tree), [tree.args["expression"]], claims)
        case _:
            raise ValueError("every term is a comparison: a claim, an operator and a value")


def _negated(test: _Test) -> _Test:
    def negated(value: Mapping[str, Any]) -> bool | None:
        found = test(value)
        return None if found is None else not found

    return negated


def _joined(tree: exp.And | exp.Or, claims: set[str]) -> _Test:
    decisive = isinstance(tree, exp.Or)
    other = exp.And if decisive else exp.Or
    sides = (tree.this, tree.args["expression"])
    if any(isinstance(side, other) for side in sides):
        raise ValueError("it mixes AND and OR: put parentheses around one of them")
    tests = tuple(_build(side, claims) for side in sides)

    def joined(value: Mapping[str, Any]) -> bool | None:
        return _settled((test(value) for test in tests), decisive)

    return joined


def _settled(found: Iterable[bool | None], decisive: bool) -> bool | None:
    """Combine: one `decisive` settles it, one unknown leaves it open."""
    answer: bool | None = not decisive
    for one in found:
        if one is decisive:
            return decisive
        if one is None:
            answer = None
    return answer


def _compared(left: exp.Expr, kind: type[exp.Expr], rights: list[exp.Expr], claims: set[str]) -> _Test:
    path = ".".join(part.name for part in left.parts) if isinstance(left, exp.Column) else ""
    if not _NAME.fullmatch(path):
        raise ValueError("a claim's name must stand left of every operator")
    literals = tuple(_literal(path, right) for right in rights)
    if kind not in _UNORDERED and any(isinstance(literal, bool) for literal in literals):
        raise ValueError(f"{path}: true and false have no order")
    compare, names = _COMPARE[kind], tuple(path.split("."))
    claims.add(path)

    def compared(value: Mapping[str, Any]) -> bool | None:
        known = _claim(value, names)
        return _settled((_compare(compare, known, literal) for literal in literals), decisive=True)

    return compared


def _literal(path: str, tree: exp.Expr) -> _Literal:
    match tree:
        case exp.Boolean():
            return bool(tree.this)
        case exp.Neg() if isinstance(tree.this, exp.Literal) and not tree.this.is_string:
            return -_number(path, str(tree.this.this))
        case exp.Literal():
            return str(tree.this) if tree.is_string else _number(path, str(tree.this))
        case _:
            raise ValueError(f"{path} is compared with something that is no value; texts need quotes")


def _number(path: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{path} is compared with {text[:40]!r}: numbers have at most 18 digits on either side")
    return Decimal(text)


def _claim(value: Mapping[str, Any], names: tuple[str, ...]) -> _Literal | None:
    found: Any = value
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(found, bool | str):
        return found
    # Through its text: 0.1 is meant as it is written.
    return Decimal(str(found)) if isinstance(found, int | float) else None


def _compare(compare: Callable[[Any, Any], Any], known: _Literal | None, literal: _Literal) -> bool | None:
    return bool(compare(known, literal)) if type(known) is type(literal) else None
