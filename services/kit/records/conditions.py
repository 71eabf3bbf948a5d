"""One small boolean language, for row conditions in policies (`@rows`) and for filters in requests (AIP-160 style).

    ie_flag = "E" AND (decl_status = CLEARED OR declared_at >= "2026-01-01") AND trader_uscc IS NOT NULL

What there is: `AND OR NOT`, `= != < <= > >=`, `IN (…)`, `IS [NOT] NULL`, strings in either quotes, numbers, true and
false, enum values by name, the record's own indexed fields on the left and named parameters (`:caller_agency`) on the
right. The text is split and parsed by sqlglot and then rebuilt, node by node, as a tree of our own; what the tree has
no node for is refused. Only that tree is ever turned into SQL, and every value in it is bound.

Logic is SQL's, with three values: a comparison with a field that is not known is neither true nor false. The same tree
can be asked of a store (`Condition.to_sql`) and of a record in hand (`Condition.evaluate`), with the same answer.
SQL lets AND bind tighter than OR and AIP-160 the other way round, so a text that mixes them without parentheses is
refused.
"""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlglot import exp

from services.kit.errors import InvalidArgument, Reason
from services.kit.records import values as record_values
from services.kit.records.catalogue import Field, RecordType, nearest
from services.kit.records.condition_syntax import MAX_COMPARISONS, MAX_DEPTH, MAX_TEXT, read
from services.kit.records.values import Column, Kind

PARAMS: Mapping[str, Kind] = MappingProxyType(
    {
        "caller_agency": Kind.STRING,
        "case_ref": Kind.STRING,
        "subject": Kind.STRING,
        "today": Kind.DATE,
        "now": Kind.TIMESTAMP,
    }
)
"""Every parameter there is, with what it holds; where a condition stands decides which of them it may use."""

__all__ = ["MAX_COMPARISONS", "MAX_DEPTH", "MAX_TEXT", "PARAMS", "Condition", "parse"]

Values = Mapping[str, Column]
Columns = Mapping[str, sa.ColumnElement[Any]]

_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?")
_PERIOD = re.compile(r"\d{4}(-(0[1-9]|1[0-2]))?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_NUMERIC = frozenset({Kind.INT, Kind.DECIMAL, Kind.MONEY, Kind.QUANTITY})
_UNORDERED = frozenset({Kind.ENUM, Kind.BOOL})
_INT64 = 2**63

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class _Operand:
    """What a field is compared with: a value, or the parameter that will hold it."""

    value: Column
    param: str
    text: str

    def of(self, values: Values) -> Column:
        return values[self.param] if self.param else self.value


class _Node(Protocol):
    """One node of the checked tree."""

    def sql(self, columns: Columns, values: Values) -> sa.ColumnElement[bool]: ...

    def test(self, message: Message, values: Values) -> bool | None: ...

    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Compare:
    field: Field
    op: str
    operands: tuple[_Operand, ...]
    """Never empty; more than one for IN only, which is the operator `=` over several."""

    def sql(self, columns: Columns, values: Values) -> sa.ColumnElement[bool]:
        column, known = columns[self.field.path], [o.of(values) for o in self.operands]
        if len(known) > 1 and None not in known:
            return column.in_([sa.literal(v, column.type) for v in known])
        return sa.or_(*(_compare_sql(column, self.op, v) for v in known))

    def test(self, message: Message, values: Values) -> bool | None:
        left = _column(self.field, message)
        rights = [o.of(values) for o in self.operands]
        compare = _COMPARE[self.op]
        return _any(None if left is None or r is None else bool(compare(left, r)) for r in rights)

    def text(self) -> str:
        texts = ", ".join(o.text for o in self.operands)
        return f"{self.field.path} IN ({texts})" if len(self.operands) > 1 else f"{self.field.path} {self.op} {texts}"


@dataclass(frozen=True, slots=True)
class _IsNull:
    field: Field

    def sql(self, columns: Columns, values: Values) -> sa.ColumnElement[bool]:
        return columns[self.field.path].is_(sa.null())

    def test(self, message: Message, values: Values) -> bool | None:
        return _column(self.field, message) is None

    def text(self) -> str:
        return f"{self.field.path} IS NULL"


@dataclass(frozen=True, slots=True)
class _Not:
    node: _Node

    def sql(self, columns: Columns, values: Values) -> sa.ColumnElement[bool]:
        return sa.not_(self.node.sql(columns, values))

    def test(self, message: Message, values: Values) -> bool | None:
        result = self.node.test(message, values)
        return None if result is None else not result

    def text(self) -> str:
        match self.node:
            case _IsNull():
                return f"{self.node.field.path} IS NOT NULL"
            case _Compare(operands=operands) if len(operands) > 1:
                return self.node.text().replace(" IN (", " NOT IN (", 1)
            case _:
                return f"NOT ({self.node.text()})"


@dataclass(frozen=True, slots=True)
class _All:
    nodes: tuple[_Node, ...]

    def sql(self, columns: Columns, values: Values) -> sa.ColumnElement[bool]:
        return sa.and_(*(n.sql(columns, values) for n in self.nodes))

    def test(self, message: Message, values: Values) -> bool | None:
        return _all(n.test(message, values) for n in self.nodes)

    def text(self) -> str:
        return " AND ".join(f"({n.text()})" if isinstance(n, _Any) else n.text() for n in self.nodes)


@dataclass(frozen=True, slots=True)
class _Any:
    nodes: tuple[_Node, ...]

    def sql(self, columns: Columns, values: Values) -> sa.ColumnElement[bool]:
        return sa.or_(*(n.sql(columns, values) for n in self.nodes))

    def test(self, message: Message, values: Values) -> bool | None:
        return _any(n.test(message, values) for n in self.nodes)

    def text(self) -> str:
        return " OR ".join(f"({n.text()})" if isinstance(n, _All) else n.text() for n in self.nodes)


def _column(field: Field, message: Message) -> Column:
    try:
        return record_values.column_of(field.descriptor, message)
    except ValueError:
        # No store could hold such a value, so nothing is known of it.
        return None


def _compare_sql(column: sa.ColumnElement[Any], op: str, value: Column) -> sa.ColumnElement[bool]:
    if value is None:
        # `column == None` would become IS NULL; a comparison with an unknown value is unknown.
        return sa.cast(sa.null(), sa.Boolean())
    result: sa.ColumnElement[bool] = _COMPARE[op](column, sa.literal(value, column.type))
    return result


def _all(results: Iterable[bool | None]) -> bool | None:
    answer: bool | None = True
    for result in results:
        if result is False:
            return False
        if result is None:
            answer = None
    return answer


def _any(results: Iterable[bool | None]) -> bool | None:
    answer: bool | None = False
    for result in results:
        if result is True:
            return True
        if result is None:
            answer = None
    return answer


@dataclass(frozen=True)
class Condition:
    """A checked condition on one record type; equal where record type and normalised text are."""

    record_type: str
    text: str
    """The condition written in one way: parsing it again gives an equal condition."""
    fields: frozenset[str]
    params: frozenset[str]
    _root: _Node = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and (self.record_type, self.text) == (other.record_type, other.text)

    def __hash__(self) -> int:
        return hash((self.record_type, self.text))

    def __str__(self) -> str:
        return self.text

    def to_sql(self, columns: Columns, values: Values = MappingProxyType({})) -> sa.ColumnElement[bool]:
        """Turn the condition into SQL over `columns` (by field path), every value bound.

        `values` holds the parameters' values; None in it is unknown. Raises `KeyError` where one is missing: that is
        a mistake of the calling code.
        """
        return self._root.sql(columns, values)

    def evaluate(self, message: Message, values: Values = MappingProxyType({})) -> bool | None:
        """Ask the condition of a record in hand: true, false, or None where what it needs is not known."""
        return self._root.test(message, values)


_OPERATORS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}


def parse(text: str, record_type: RecordType, params: Iterable[str] = frozenset()) -> Condition:
    """Parse a condition on `record_type` that may use the parameters named in `params`.

    Raises `InvalidArgument`: `FILTER_INVALID` for text that is not of the language or goes past a limit,
    `FIELD_UNKNOWN`, or `FILTER_FIELD_NOT_INDEXED`.
    """
    return _Parser(record_type, frozenset(params)).parse(text)


class _Parser:
    """Turns text into a condition; one for each text."""

    def __init__(self, record_type: RecordType, params: frozenset[str]) -> None:
        if unknown := params - PARAMS.keys():
            raise ValueError(f"no such parameters: {sorted(unknown)}")
        self._type = record_type
        self._allowed = params
        self._fields: set[str] = set()
        self._params: set[str] = set()

    def parse(self, text: str) -> Condition:
        try:
            tree = read(text)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        root = self._node(tree)
        return Condition(self._type.name, root.text(), frozenset(self._fields), frozenset(self._params), root)

    def _node(self, tree: exp.Expr, depth: int = 0) -> _Node:
        if depth > 2 * MAX_DEPTH:
            raise self._wrong(f"it nests deeper than {MAX_DEPTH}")
        match tree:
            case exp.Paren():
                return self._node(tree.this, depth + 1)
            case exp.Not():
                return _Not(self._node(tree.this, depth + 1))
            case exp.And() | exp.Or():
                return self._joined(tree, depth)
            case exp.Is() if isinstance(tree.expression, exp.Null):
                return _IsNull(self._field(tree.this))
            case exp.In() if tree.expressions:
                return self._compare(tree.this, "=", tree.expressions)
            case _ if type(tree) in _OPERATORS:
                return self._compare(tree.this, _OPERATORS[type(tree)], [tree.args["expression"]])
            case _:
                raise self._wrong("every term is a comparison: a field, an operator and a value")

    def _joined(self, tree: exp.Expr, depth: int) -> _Node:
        kind, other = (exp.And, exp.Or) if isinstance(tree, exp.And) else (exp.Or, exp.And)
        operands = list(_flatten(tree, kind))
        if any(isinstance(o, other) for o in operands):
            raise self._wrong("it mixes AND and OR: put parentheses around one of them")
        nodes = tuple(self._node(o, depth + 1) for o in operands)
        return _All(nodes) if kind is exp.And else _Any(nodes)

    def _field(self, tree: exp.Expr) -> Field:
        field = self._type.field(_path(tree) or self._no_field())
        if not field.indexed:
            known = ", ".join(f.path for f in self._type.indexed)
            raise InvalidArgument(
                Reason.FILTER_FIELD_NOT_INDEXED,
                f"{self._type.name}: {field.path!r} is not indexed; conditions may use {known}",
                record_type=self._type.name,
                field=field.path,
            )
        self._fields.add(field.path)
        return field

    def _compare(self, left: exp.Expr, op: str, rights: list[exp.Expr]) -> _Node:
        field = self._field(left)
        if op not in {"=", "!="} and field.kind in _UNORDERED:
            raise self._wrong(f"{field.path} is {field.type_text}: it has no order, use =, != or IN")
        return _Compare(field, op, tuple(self._operand(field, r) for r in rights))

    def _operand(self, field: Field, tree: exp.Expr) -> _Operand:
        match tree:
            case exp.Placeholder() if tree.this:
                return self._param(field, str(tree.this))
            case exp.Null():
                raise self._wrong(f"nothing equals NULL: write {field.path} IS NULL")
            case exp.Boolean():
                return self._literal(field, "true" if tree.this else "false", quoted=False)
            case exp.Neg() if isinstance(tree.this, exp.Literal) and not tree.this.is_string:
                return self._literal(field, f"-{tree.this.this}", quoted=False)
            case exp.Literal():
                return self._literal(field, str(tree.this), quoted=bool(tree.is_string))
            case exp.Column() if field.kind is Kind.ENUM and not tree.args.get("table"):
                return self._literal(field, tree.name, quoted=False)
            case _:
                raise self._wrong(f"{field.path} is compared with something that is no value; texts need quotes")

    def _param(self, field: Field, name: str) -> _Operand:
        if name not in self._allowed:
            known = ", ".join(f":{p}" for p in sorted(self._allowed)) or "none"
            raise self._wrong(f"there is no parameter :{name} here{nearest(name, self._allowed)}; there is {known}")
        if PARAMS[name] is not field.kind:
            raise self._wrong(f":{name} is a {PARAMS[name]} and {field.path} is {field.type_text}")
        self._params.add(name)
        return _Operand(None, name, f":{name}")

    def _literal(self, field: Field, text: str, *, quoted: bool) -> _Operand:
        kind = field.kind
        if kind is Kind.STRING and not quoted:
            raise self._wrong(f"{field.path} is text: write {text} in quotes")
        if kind in _NUMERIC and not _NUMBER.fullmatch(text):
            raise self._wrong(f"{field.path} is a number of at most 18 digits, and {text[:40]!r} is none")
        if kind is Kind.PERIOD and not _PERIOD.fullmatch(text):
            raise self._wrong(f"{field.path} is a period, written 2026-03 or 2026")
        try:
            value = record_values.column_from_text(field.descriptor, text)
        except (ValueError, ArithmeticError) as error:
            raise self._wrong(f"{field.path} cannot be compared with {text[:40]!r}: {error}") from None
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise self._wrong(f"{field.path}: {text[:40]} is too large")
        return _Operand(value, "", text if kind in _NUMERIC or kind is Kind.BOOL else _quote(text))

    def _no_field(self) -> str:
        raise self._wrong("a field's name must stand left of every operator")

    def _wrong(self, why: str) -> InvalidArgument:
        return InvalidArgument(
            Reason.FILTER_INVALID, f"condition on {self._type.name}: {why}", record_type=self._type.name
        )


def _flatten(tree: exp.Expr, kind: type[exp.Expr]) -> Iterator[exp.Expr]:
    # sqlglot leans chains to the left; without recursion, so that their length does not matter.
    rights: list[exp.Expr] = []
    while isinstance(tree, kind):
        rights.append(tree.args["expression"])
        tree = tree.this
    yield tree
    yield from reversed(rights)


def _path(tree: exp.Expr) -> str:
    if not isinstance(tree, exp.Column):
        return ""
    path = ".".join(part.name for part in tree.parts)
    return path if _NAME.fullmatch(path) else ""


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
