"""Which fields a policy may reach, found by reading it: needed to check transforms and row conditions at load.

The answer is worked out from what can be known of a policy's scope and conditions without a request: tests on the
resource and its attributes are computed for a given field, tests on the purpose for a given purpose, and everything
else (who asks, the case) may turn out either way. It is never used to decide a request; Cedar alone does that.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from services.kit.policy.schema import CONTEXT, NAMESPACE, ancestors, attributes, field_id
from services.kit.records.catalogue import Field, RecordType

Ast = Mapping[str, Any]
"""A policy, or a part of one, in Cedar's JSON form."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether a condition may come out true, and false, and whether that is all there is to know before a request."""

    true: bool
    false: bool
    exact: bool = True

    @property
    def sure(self) -> bool:
        """The field may be reached, and no test on the field itself was left out in finding that."""
        return self.true and self.exact


_FREE: Final = Reach(True, True)
_UNCLEAR: Final = Reach(True, True, exact=False)


def _known(value: bool) -> Reach:
    return Reach(value, not value)


def _both(left: Reach, right: Reach) -> Reach:
    true, false = left.true and right.true, left.false or right.false
    return Reach(true, false, exact=(left.exact and right.exact) or true != false)


def _negated(reach: Reach) -> Reach:
    return Reach(reach.false, reach.true, reach.exact)


class _Unknown:
    """Stands for a value that depends on the request."""


_UNKNOWN: Final = _Unknown()


def mentioned(policy: Ast) -> Iterator[tuple[str, str]]:
    """List every entity a policy names, as (type, id)."""
    for tree in _walk(policy):
        if set(tree) == {"type", "id"} and isinstance(tree["type"], str) and isinstance(tree["id"], str):
            yield tree["type"], tree["id"]


def purposes(policy: Ast) -> Iterator[str]:
    """List every text that a policy compares the purpose with."""
    for tree in _walk(policy):
        for operator in ("==", "!=", "contains", "containsAny"):
            sides = tree.get(operator)
            if isinstance(sides, Mapping) and _PURPOSE in (both := list(cast("Ast", sides).values())):
                yield from _texts(both)


def names_principal(policy: Ast) -> bool:
    """Tell whether a policy's conditions look at who asks."""
    return any(tree.get("Var") == "principal" for tree in _walk(policy["conditions"]))


def principal_zone(policy: Ast) -> str:
    """Name the zone whose callers a policy's scope is about; empty where it is about this one's, or about anybody."""
    scope = policy["principal"]
    within = scope.get("entity") or cast("Ast", scope.get("in", {})).get("entity")
    if within is None:
        return ""
    kind, name = _entity(within)
    return name if kind == "Zone" else name.partition("/")[0].partition(".")[2]


def context_read(policy: Ast) -> frozenset[str]:
    """List the parts of the context that a policy looks at; all of them where it takes the context as a whole."""
    named: list[str] = []
    whole = 0
    for tree in _walk(policy):
        whole += tree.get("Var") == "context"
        for operator in (".", "has"):
            sides = tree.get(operator)
            if isinstance(sides, Mapping) and cast("Ast", sides).get("left") == {"Var": "context"}:
                named.append(cast("Ast", sides)["attr"])
    return frozenset(named if len(named) == whole else CONTEXT)


_PURPOSE: Final = {".": {"left": {"Var": "context"}, "attr": "purpose"}}


def _walk(tree: Any) -> Iterator[Ast]:
    """Give every object in a policy, outermost first."""
    if isinstance(tree, Mapping):
        found = cast("Ast", tree)
        yield found
        for below in found.values():
            yield from _walk(below)
    elif isinstance(tree, list):
        for below in _listed(tree):
            yield from _walk(below)


def _texts(trees: Iterable[Ast]) -> Iterator[str]:
    for tree in trees:
        if isinstance(tree.get("Value"), str):
            yield tree["Value"]
        yield from _texts(tree.get("Set", ()))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]


def _names_resource(tree: Ast) -> bool:
    return any(below.get("Var") == "resource" for below in _walk(tree))


class FieldReader:
    """Reads policies with one field in mind."""

    def __init__(self, record_type: RecordType, field: Field) -> None:
        self.record_type = record_type
        self.field = field
        self._uid = ("Field", field_id(record_type, field.path))
        self._above = ancestors(record_type, field)
        self._attributes = attributes(record_type, field)
        self._purpose: str | None = None

    def reach(self, policy: Ast, purpose: str | None = None) -> Reach:
        """Tell whether a policy may reach the field, for one purpose or for any."""
        self._purpose = purpose
        found = self._scope(policy["resource"])
        for condition in policy["conditions"]:
            if not found.true:
                break
            body = self._truth(condition["body"])
            found = _both(found, body if condition["kind"] == "when" else _negated(body))
        return found

    def _scope(self, scope: Ast) -> Reach:
        match scope["op"]:
            case "All":
                return _known(True)
            case "==":
                return _known(_entity(scope["entity"]) == self._uid)
            case "in":
                return _known(_entity(scope["entity"]) in self._above)
            case "is":
                inside = "in" not in scope or _entity(scope["in"]["entity"]) in self._above
                return _known(scope["entity_type"] == f"{NAMESPACE}Field" and inside)
            case _:
                return _UNCLEAR

    def _truth(self, tree: Ast) -> Reach:
        operator, sides = next(iter(tree.items()))
        match operator:
            case "&&":
                return _both(self._truth(sides["left"]), self._truth(sides["right"]))
            case "||":
                left, right = self._truth(sides["left"]), self._truth(sides["right"])
                return _negated(_both(_negated(left), _negated(right)))
            case "!":
                return _negated(self._truth(sides["arg"]))
            case "if-then-else":
                return self._branch(sides)
            case _:
                value = self._test(operator, sides)
                if isinstance(value, bool):
                    return _known(value)
                return _UNCLEAR if _names_resource(tree) else _FREE

    def _branch(self, sides: Ast) -> Reach:
        test = self._truth(sides["if"])
        met = _both(test, self._truth(sides["then"]))
        unmet = _both(_negated(test), self._truth(sides["else"]))
        return _negated(_both(_negated(met), _negated(unmet)))

    def _test(self, operator: str, sides: Any) -> object:
        # The value of a test where both sides are known, otherwise _UNKNOWN.
        if operator == "Value":
            return sides
        if operator == "is":
            return self._is(sides)
        if not isinstance(sides, Mapping) or set(cast("Ast", sides)) != {"left", "right"}:
            return _UNKNOWN
        left, right = (self._value(cast("Ast", sides)[side]) for side in ("left", "right"))
        if isinstance(left, _Unknown) or isinstance(right, _Unknown):
            return _UNKNOWN
        return self._compared(operator, left, right)

    def _compared(self, operator: str, left: Any, right: Any) -> object:
        match operator:
            case "==":
                return left == right
            case "!=":
                return left != right
            case "in" if left == self._uid:
                return any(entity in self._above for entity in _listed(right))
            case "contains" if isinstance(left, list):
                return right in left
            case "<" | "<=" | ">" | ">=" if isinstance(left, int) and isinstance(right, int):
                return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]
            case _:
                return _UNKNOWN

    def _is(self, sides: Ast) -> object:
        if self._value(sides["left"]) != self._uid:
            return _UNKNOWN
        if sides["entity_type"] != f"{NAMESPACE}Field":
            return False
        if "in" not in sides:
            return True
        inside = self._value(sides["in"])
        return _UNKNOWN if isinstance(inside, _Unknown) else inside in self._above

    def _value(self, tree: Ast) -> Any:
        match dict(tree):
            case {"Var": "resource"}:
                return self._uid
            case {"Value": {"__entity": entity}}:
                return _entity(entity)
            case {"Value": value}:
                return value
            case {"Set": items}:
                found = [self._value(item) for item in items]
                return _UNKNOWN if _UNKNOWN in found else found
            case {".": {"left": {"Var": "resource"}, "attr": name}}:
                return self._attributes.get(name, _UNKNOWN)
            case _:
                return self._purpose if tree == _PURPOSE and self._purpose is not None else _UNKNOWN


def _entity(entity: Ast) -> tuple[str, str]:
    return str(entity["type"]).removeprefix(NAMESPACE), str(entity["id"])
