"""What policy tests share: a clock that is set, an engine over the specimen types, and random policies.

A random policy is kept as a `Rule`, which knows two things: its Cedar text, and, worked out without Cedar, whether it
matches a question. The second is what properties compare the engine with.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from hutong.api.schema.v1 import options_pb2
from services.kit import jurisdiction
from services.kit.caller import Caller
from services.kit.policy import loader
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.policies import PolicySet
from services.kit.policy.transforms import Transform
from services.kit.records import values
from services.kit.records.catalogue import Field, RecordType
from services.kit.records.values import Kind
from tests.policy.specimen import catalogue, specimen_type

TYPE = specimen_type()
LAW = jurisdiction.load("cn")
SECRET = bytes(range(32))
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
SOON, LATER, PAST = (NOW + dt.timedelta(days=d) for d in (10, 100, -10))

TAX = Caller("spiffe://zone.test/taxation/refund", "taxation", "refund")
CUS = Caller("spiffe://zone.test/customs/risk", "customs", "risk")
PURPOSES = ("P-REBATE", "P-RISK")
BASES = ("CN-VAT-REBATE", "CN-CUSTOMS-RISK")


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self, now: dt.datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now


def parse(*texts: str) -> PolicySet:
    """Load texts as the museum's only file."""
    return loader.parse({"museum.cedar": "\n".join(texts)}, catalogue(), LAW)


def engine(*texts: str, clock: SetClock | None = None) -> PolicyEngine:
    return PolicyEngine(parse(*texts), catalogue(), LAW, SECRET, clock or SetClock())


def context(purpose: str = "P-REBATE", basis: str = "CN-VAT-REBATE", **more: str) -> RequestContext:
    return RequestContext(purpose=purpose, legal_basis=basis, **more)


def permit(
    name: str,
    fields: Iterable[str] = ("code",),
    when: str = 'context.purpose == "P-REBATE"',
    scope: str = 'resource in Hutong::RecordType::"museum.Specimen"',
    effect: str = "permit",
    **notes: str,
) -> str:
    """Write a policy; `notes` replace or, where empty, remove its annotations."""
    given = (
        {"id": name, "basis": "CN-VAT-REBATE", "until": "2027-12-31T00:00:00Z"} if effect == "permit" else {"id": name}
    )
    written = " ".join(f'@{key.rstrip("_")}("{value}")' for key, value in (given | notes).items() if value)
    listed = ", ".join(f'Hutong::Field::"museum.Specimen.{path}"' for path in fields)
    inside = f" && resource in [{listed}]" if listed else ""
    return f'{written} {effect} (principal, action == Hutong::Action::"read", {scope}) when {{ {when}{inside} }};'


def forbid(name: str, fields: Iterable[str], when: str = "true", **notes: str) -> str:
    return permit(name, fields, when, effect="forbid", **notes)


@dataclass(frozen=True)
class Rule:
    """One random policy."""

    name: str
    permits: bool
    agency: str
    scope: tuple[str, str]
    """Kind and id of the entity the resource must be in."""
    only: tuple[str, ...]
    """Fields or parts it is limited to; empty limits nothing."""
    purpose: str
    basis: str
    transform: str
    rows: str
    since: dt.datetime | None
    until: dt.datetime

    @property
    def text(self) -> str:
        notes = {"id": self.name, "until": self.until.isoformat()}
        if self.since:
            notes["from"] = self.since.isoformat()
        if self.permits:
            notes |= {"basis": self.basis}
            notes |= {key: value for key, value in (("transform", self.transform), ("rows", self.rows)) if value}
        principal = f'principal in Hutong::Agency::"{self.agency}"' if self.agency else "principal"
        tests = [f'context.purpose == "{self.purpose}"'] if self.purpose else ["true"]
        if self.only:
            tests.append("resource in [" + ", ".join(f'Hutong::Field::"{TYPE.name}.{p}"' for p in self.only) + "]")
        annotations = " ".join(f'@{key}("{value}")' for key, value in notes.items())
        where = f'resource in Hutong::{self.scope[0]}::"{self.scope[1]}"'
        effect = "permit" if self.permits else "forbid"
        unless = ' unless { resource.share == "withheld" }' if self.permits and self.transform != "pseudonym" else ""
        return f"{annotations} {effect} ({principal}, action, {where}) when {{ {' && '.join(tests)} }}{unless};"

    def matches(self, caller: Caller, purpose: str, leaf: Field) -> bool:
        """Whether the policy is about this question, worked out without Cedar."""
        withheld = leaf.share == options_pb2.SHARE_CLASS_WITHHELD
        return (
            self.agency in {"", caller.agency}
            and self.purpose in {"", purpose}
            and _inside(leaf, self.scope)
            and (not self.only or any(_below(leaf.path, path) for path in self.only))
            and not (self.permits and withheld and self.transform != "pseudonym")
            and (self.since is None or self.since <= NOW)
            and self.until > NOW
        )


def _below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}.")


def _inside(leaf: Field, scope: tuple[str, str]) -> bool:
    kind, name = scope
    match kind:
        case "RecordType":
            return True
        case "Field":
            return _below(leaf.path, name.removeprefix(f"{TYPE.name}."))
        case "FieldGroup":
            group = name.removeprefix(f"{TYPE.name}.")
            return any(group in f.groups for f in TYPE.fields.values() if _below(leaf.path, f.path))
        case _:
            return {"open": 1, "conditional": 2, "withheld": 3}[name] == leaf.share


def reached(rule: Rule) -> list[Field]:
    """The fields a rule may be about, whoever asks."""
    return [
        leaf
        for leaf in TYPE.leaves
        if _inside(leaf, rule.scope) and (not rule.only or any(_below(leaf.path, p) for p in rule.only))
    ]


_PATHS = tuple(TYPE.fields)
_OFTEN = tuple(TYPE.field(path) for path in ("code", "found_at", "phone", "id_number"))
"""Fields that several policies are about more often than chance would have it."""
_FIT = {
    Kind.STRING: ("pseudonym", "last4", "initials"),
    Kind.BYTES: ("pseudonym",),
    Kind.INT: ("bucket:0,3,100",),
    Kind.DECIMAL: ("bucket:0,100,1000", "bucket:log10/4"),
    Kind.MONEY: ("bucket:0,100,1000", "bucket:log10/2"),
    Kind.QUANTITY: ("bucket:0,50", "bucket:log10/4"),
    Kind.ENUM: ("bucket:RED,BLUE", "bucket:GREEN"),
    Kind.DATE: ("year", "month"),
    Kind.TIMESTAMP: ("year", "month"),
    Kind.PERIOD: ("year", "month"),
}
_SCOPES = st.sampled_from(
    [
        ("RecordType", TYPE.name),
        ("FieldGroup", f"{TYPE.name}.party"),
        ("FieldGroup", f"{TYPE.name}.money"),
        ("ShareClass", "open"),
        ("ShareClass", "conditional"),
        ("Field", f"{TYPE.name}.lines"),
        ("Field", f"{TYPE.name}.place.street"),
    ]
)
_ROWS = st.sampled_from(
    [
        "",
        "",
        "colour = 'RED'",
        "count > 2",
        "dangerous = true OR weight < 100",
        "code IS NOT NULL",
        "holder = :caller_agency",
    ]
)


@st.composite
def rules(draw: st.DrawFn, name: str = "rule", permits: bool | None = None) -> Rule:
    """One random policy that passes the checks of the loader."""
    permitting = draw(st.booleans()) if permits is None else permits
    leaf = draw(st.sampled_from(_OFTEN) | st.sampled_from(TYPE.leaves))
    single = draw(st.booleans()) or leaf.share == options_pb2.SHARE_CLASS_WITHHELD
    scope = ("Field", f"{TYPE.name}.{leaf.path}") if single else draw(_SCOPES)
    transform = ""
    if permitting and single:
        fits = _FIT.get(leaf.kind, ())
        always = leaf.share == options_pb2.SHARE_CLASS_WITHHELD
        transform = "pseudonym" if always else draw(st.sampled_from(["", *fits]))
    since, until = draw(st.sampled_from([(None, LATER), (PAST, LATER), (SOON, LATER), (PAST, NOW), (None, NOW)]))
    rule = Rule(
        name=name,
        permits=permitting,
        agency=draw(st.sampled_from(["", "", "taxation", "customs"])),
        scope=scope,
        only=() if single else tuple(draw(st.lists(st.sampled_from(_PATHS), max_size=3))),
        purpose=draw(st.sampled_from(PURPOSES if permitting else ("", *PURPOSES))),
        basis=draw(st.sampled_from((*BASES, BASES[0]))),
        transform=transform,
        rows=draw(_ROWS) if permitting else "",
        since=since,
        until=until,
    )
    open_fields = [f for f in reached(rule) if f.share != options_pb2.SHARE_CLASS_WITHHELD or transform]
    if permitting and not open_fields:
        # A permit that reaches nothing does not load: take the whole type instead.
        return replace(rule, only=(), scope=("RecordType", TYPE.name), transform="")
    return rule


@st.composite
def _twins(draw: st.DrawFn) -> list[Rule]:
    """Rules that are about the same field, and differ in what they ask for."""
    one = draw(rules(permits=True))
    leaf = TYPE.fields.get(one.scope[1].removeprefix(f"{TYPE.name}."))
    fits = ("", *_FIT.get(leaf.kind, ())) if leaf else ("",)
    if leaf and leaf.share == options_pb2.SHARE_CLASS_WITHHELD:
        fits = ("pseudonym",)
    return [one, replace(one, transform=draw(st.sampled_from(fits)), rows=draw(_ROWS))]


def _named(found: Iterable[Rule]) -> list[Rule]:
    return [replace(rule, name=f"rule-{number}") for number, rule in enumerate(found)]


rule_sets = st.tuples(st.lists(rules(), max_size=4), _twins() | st.just(list[Rule]())).map(
    lambda both: _named([*both[0], *both[1]])
)
callers = st.sampled_from([TAX, CUS])
questions = st.builds(context, st.sampled_from(PURPOSES), st.sampled_from(BASES))


@dataclass
class Expected:
    """What becomes of one field, worked out without Cedar."""

    given: bool
    forbidden: bool = False
    transforms: list[str] = field(default_factory=list[str])
    rows: set[str] = field(default_factory=set[str])


def expect(found: Iterable[Rule], caller: Caller, asked: RequestContext, leaf: Field) -> Expected:
    matching = [rule for rule in found if rule.matches(caller, asked.purpose, leaf)]
    if any(not rule.permits for rule in matching):
        return Expected(given=False, forbidden=True)
    applying = [rule for rule in matching if rule.basis == asked.legal_basis]
    return Expected(
        given=bool(applying),
        transforms=[rule.transform for rule in applying if rule.transform],
        rows={rule.rows for rule in applying if rule.rows},
    )


def rank(text: str) -> tuple[Any, ...]:
    """How much a decision reveals; a clear value reveals most."""
    transform = Transform.parse(text) if text else None
    return transform.rank if transform else (99,)


def present(record_type: RecordType, record: Message) -> Iterator[tuple[str, Any]]:
    """Every leaf value in a record, with its path."""
    yield from _present(record_type, record, "")


def _present(record_type: RecordType, message: Message, prefix: str) -> Iterator[tuple[str, Any]]:
    for found in record_type.fields.values():
        if found.path != f"{prefix}{found.name}":
            continue
        if found.descriptor.is_repeated:
            items = list(getattr(message, found.name))
        else:
            items = [getattr(message, found.name)] if values.is_set(found.descriptor, message) else []
        for item in items:
            if found.kind is Kind.PART:
                yield from _present(record_type, item, f"{found.path}.")
            else:
                yield found.path, item
