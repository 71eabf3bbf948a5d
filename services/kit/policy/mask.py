"""A read mask: which fields of a record type one caller gets, and the function that cuts records down to them.

The engine compiles a mask once for a caller, a context and a record type; the department cuts every record with it
before the record leaves, and the gateway clears again what arrives. An authorization narrows a mask to its scope and
never widens it. Row conditions decide per record: whoever cuts says
which of the mask's conditions hold for the record at hand, and gets the function for records like that, compiled once.
Cutting

1. discards unknown fields first, so that nothing a newer node added gets through unseen;
2. clears every leaf that is not granted, and parts in which nothing is;
3. transforms what is granted through a transform;
4. cuts the envelope: its key stays only where every key field is given in clear, its fact time only where the field it
   comes from is, and its digest is always computed anew over the body as disclosed.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

from google.protobuf.message import Message

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import Reason
from services.kit.policy.projection import projected, with_parts
from services.kit.policy.transforms import Transform
from services.kit.records.catalogue import ENVELOPE, RecordType
from services.kit.records.conditions import Condition
from services.kit.records.values import Column, Kind

Cut = Callable[[Message], None]
"""Cuts a message in place."""
Conditions = tuple[Condition, ...]
"""Conditions that must all hold."""


class Disclosing(NamedTuple):
    """How records of one truth leave: as bytes, serialized once."""

    read: Callable[[bytes], Message]
    """Reads what is given of a record, and whom it names."""
    body: Callable[[Message], bytes]
    """Cuts what was read in place and gives it serialized, canonically and without its envelope."""
    key: bool
    """The envelope shows the key."""
    fact_time: bool
    """The envelope shows the fact time."""


K = TypeVar("K")
V = TypeVar("V")

_MAX_MADE = 256
_MAX_RESTRICTED = 32
"""Selections of fields kept for each mask: each is a mask of its own, and a system asks for a few."""
_TELLING = (
    Reason.DECISION_FAILED,
    Reason.SCOPE_INVALID,
    Reason.FILTER_FIELD_NOT_READABLE,
    Reason.BASIS_MISMATCH,
    Reason.FORBIDDEN,
    Reason.NO_PERMIT,
    Reason.AUTHORIZATION_SCOPE,
)


@dataclass(frozen=True, slots=True)
class FieldGrant:
    """What is given of one leaf field."""

    path: str
    transform: Transform | None
    """None gives the value itself."""
    conditions: Conditions
    """The row conditions under which it is given; all must hold."""


@dataclass(frozen=True, slots=True)
class ReadMask:
    """The fields of one record type that one caller gets in one context."""

    record_type: RecordType
    grants: Mapping[str, FieldGrant]
    """What is given, by leaf path; what is not here is not given."""
    decisions: tuple[exchange_pb2.FieldDecision, ...]
    """One for every leaf asked for, in order of declaration."""
    expires_at: dt.datetime | None
    """When a policy begins or ends next: the mask is not to be used from then on."""
    version: str
    """Version of the owner's policies."""
    conditions: tuple[Conditions, ...] = field(init=False)
    """The distinct row conditions of the grants, in order of first use; those of fields that are given of every record
    are the empty group, which always holds. A record of which no group holds must not be told of at all."""
    _key: bytes = field(repr=False, default=b"")
    """Pseudonym key of the caller's agency and purpose."""
    scope: Conditions = ()
    """What an authorization demands of every row; rows for which it does not hold are not for this caller."""
    _whole: "ReadMask | None" = field(repr=False, compare=False, default=None)
    _policy: "ReadMask | None" = field(repr=False, compare=False, default=None)
    _made: "_Made" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = tuple(dict.fromkeys(g.conditions for g in self.grants.values()))
        object.__setattr__(self, "conditions", found)
        object.__setattr__(self, "_made", _Made())

    @property
    def whole(self) -> "ReadMask":
        """The mask over every field, before it was restricted to those asked for."""
        return self._whole or self

    @property
    def policy(self) -> "ReadMask":
        """The whole mask as the policy has it, before an authorization narrowed it."""
        return self._policy or self.whole

    @property
    def reason(self) -> Reason:
        """The reason that tells most of why fields are refused; PERMITTED where none is."""
        found = {d.reason for d in self.decisions if d.verdict == exchange_pb2.VERDICT_REFUSED}
        return next((reason for reason in _TELLING if reason in found), Reason.PERMITTED)

    @property
    def kept_back(self) -> frozenset[str]:
        """The fields that policy keeps from the caller: forbidden, given in another form only, or not decided."""
        made = self.policy._made
        if not made.kept_back:
            made.kept_back.append(frozenset(d.field for d in self.policy.decisions if _is_kept_back(d)))
        return made.kept_back[0]

    @property
    def status(self) -> exchange_pb2.SectionStatus.ValueType:
        """What the status of an answer can be at best: OK, PARTIAL or DENIED."""
        if not self._made.status:
            self._made.status.append(self._template().status)
        return self._made.status[0]

    def section(self) -> exchange_pb2.Section:
        """Begin a section of an answer: what was decided, without any record."""
        section = exchange_pb2.Section()
        section.CopyFrom(self._template())
        return section

    def head(self, status: exchange_pb2.SectionStatus.ValueType, reason: str = "", *, decisions: bool = True) -> bytes:
        """Begin a section as `section` does, serialized, with another status and reason; with its decisions or not."""
        made = self._made.heads
        which = status, reason, decisions
        if which not in made:
            section = self.section()
            section.status, section.reason = status, reason
            if not decisions:
                del section.decisions[:]
            _remember(made, which, section.SerializeToString())
        return made[which]

    @property
    def decided(self) -> bytes:
        """The decisions, serialized as they stand in a section."""
        if not self._made.decided:
            self._made.decided.append(exchange_pb2.Section(decisions=self.decisions).SerializeToString())
        return self._made.decided[0]

    def _template(self) -> exchange_pb2.Section:
        if not self._made.section:
            self._made.section.append(self._section())
        return self._made.section[0]

    def _section(self) -> exchange_pb2.Section:
        plain = all(d.verdict == exchange_pb2.VERDICT_CLEAR for d in self.decisions)
        given = exchange_pb2.SECTION_STATUS_OK if plain else exchange_pb2.SECTION_STATUS_PARTIAL
        return exchange_pb2.Section(
            record_type=self.record_type.name,
            agency=self.record_type.owner,
            status=given if self.grants else exchange_pb2.SECTION_STATUS_DENIED,
            reason="" if self.grants else self.reason,
            decisions=self.decisions,
            policy_version=self.version,
        )

    def truth(self, record: Message, values: Mapping[str, Column]) -> tuple[bool, ...]:
        """Ask the mask's conditions of an uncut record; what is not known does not hold."""
        return tuple(all(c.evaluate(record, values) is True for c in several) for several in self.conditions)

    def restrict(self, paths: Iterable[str]) -> "ReadMask":
        """Give the mask for a selection of the fields; no path means all.

        Raises `InvalidArgument` for a field that does not exist.
        """
        asked = tuple(dict.fromkeys(paths))
        made = self._made.restricted
        if asked not in made:
            kept = frozenset(self.record_type.expand(asked))
            found = ReadMask(
                self.record_type,
                {path: grant for path, grant in self.grants.items() if path in kept},
                tuple(d for d in self.decisions if d.field in kept),
                self.expires_at,
                self.version,
                self._key,
                self.scope,
                self.whole,
                self._policy,
            )
            _remember(made, asked, found, _MAX_RESTRICTED)
        return made[asked]

    def narrowed(self, digest: bytes, make: Callable[["ReadMask"], "ReadMask"]) -> "ReadMask":
        """Get what is left of the whole mask under the scope of that digest; `make` makes it, once for each scope."""
        made = self.policy._made.narrowed
        if digest not in made:
            _remember(made, digest, make(self.policy), _MAX_RESTRICTED)
        return made[digest]

    def cutter(self, truth: Sequence[bool] | None = None) -> Cut:
        """Give the function that cuts, in place, records for which the mask's conditions came out as `truth`.

        Without `truth`, only what is given of every record is kept. Raises `ValueError` where there are not as many
        truths as conditions.
        """
        key = tuple(not c for c in self.conditions) if truth is None else tuple(truth)
        made = self._made.cutters
        if key not in made:
            _remember(made, key, _compile(self.record_type, self._holding(key), self._key, transform=True))
        return made[key]

    def disclosing(self, truth: tuple[bool, ...]) -> Disclosing:
        """Say how records leave for which the mask's conditions came out as `truth`; raises as `cutter` does."""
        made = self._made.disclosing
        if truth not in made:
            _remember(made, truth, _disclosing(self.record_type, self._holding(truth), self._key))
        return made[truth]

    def _holding(self, truth: tuple[bool, ...]) -> dict[str, FieldGrant]:
        """Give the grants whose conditions hold."""
        if len(truth) != len(self.conditions):
            raise ValueError(f"the mask has {len(self.conditions)} conditions, and {len(truth)} truths were given")
        holding = {c for c, holds in zip(self.conditions, truth, strict=True) if holds}
        return {path: grant for path, grant in self.grants.items() if grant.conditions in holding}

    def clearer(self, paths: Iterable[str] | None = None) -> Cut:
        """Give the function that clears, in place, what is not granted, or not in `paths`, and changes nothing else.

        This is the gateway's cut: the department has already applied row conditions and transforms, with keys that
        only it has.
        """
        key = frozenset(self.grants if paths is None else paths)
        made = self._made.clearers
        if key not in made:
            granted = {path: grant for path, grant in self.grants.items() if path in key}
            _remember(made, key, _compile(self.record_type, granted, self._key, transform=False))
        return made[key]

    def trimmer(self, paths: frozenset[str] | None = None) -> Callable[[bytes], bytes]:
        """Give the function that clears a serialized record as `clearer` does.

        A record in which there was nothing to clear comes back as the very bytes that went in: its digest stands.
        """
        if paths not in self._made.trimmers:
            granted = self.grants if paths is None else {p: g for p, g in self.grants.items() if p in paths}
            message, kept = _reading((ENVELOPE, *granted), self.record_type)
            trim = _trim(message, _clear(self.record_type, granted, self._key, transform=False, kept=kept))
            _remember(self._made.trimmers, paths, trim)
        return self._made.trimmers[paths]


@dataclass(slots=True)
class _Made:
    """What a mask has compiled so far."""

    cutters: dict[tuple[bool, ...], Cut] = field(default_factory=dict[tuple[bool, ...], Cut])
    disclosing: dict[tuple[bool, ...], Disclosing] = field(default_factory=dict[tuple[bool, ...], Disclosing])
    heads: dict[tuple[int, str, bool], bytes] = field(default_factory=dict[tuple[int, str, bool], bytes])
    clearers: dict[frozenset[str], Cut] = field(default_factory=dict[frozenset[str], Cut])
    trimmers: dict[frozenset[str] | None, Callable[[bytes], bytes]] = field(
        default_factory=dict[frozenset[str] | None, Callable[[bytes], bytes]]
    )
    restricted: dict[tuple[str, ...], ReadMask] = field(default_factory=dict[tuple[str, ...], ReadMask])
    narrowed: dict[bytes, ReadMask] = field(default_factory=dict[bytes, ReadMask])
    decided: list[bytes] = field(default_factory=list[bytes])
    status: list[exchange_pb2.SectionStatus.ValueType] = field(
        default_factory=list[exchange_pb2.SectionStatus.ValueType]
    )
    section: list[exchange_pb2.Section] = field(default_factory=list[exchange_pb2.Section])
    kept_back: list[frozenset[str]] = field(default_factory=list[frozenset[str]])


def _is_kept_back(decision: exchange_pb2.FieldDecision) -> bool:
    transformed = decision.verdict == exchange_pb2.VERDICT_TRANSFORMED
    return transformed or decision.reason in {Reason.FORBIDDEN, Reason.DECISION_FAILED}


def _remember(made: dict[K, V], key: K, value: V, most: int = _MAX_MADE) -> None:
    # Callers choose the keys, so there must be an end to them.
    if len(made) >= most:
        made.clear()
    made[key] = value


def _compile(record_type: RecordType, granted: Mapping[str, FieldGrant], key: bytes, *, transform: bool) -> Cut:
    clear = _clear(record_type, granted, key, transform=transform)

    def cut(record: Message) -> None:
        clear(record)
        _digest(record)

    return cut


def _disclosing(record_type: RecordType, granted: Mapping[str, FieldGrant], key: bytes) -> Disclosing:
    subjects = (field.path for fields in record_type.subjects.values() for field in fields)
    message, kept = _reading((*granted, *subjects), record_type)
    cleared, steps = _plan(record_type, granted, key, "", transform=True, kept=kept)
    if kept is None:
        # Stored bodies have no envelope; one that does was not written by us.
        cleared = (ENVELOPE, *cleared)

    def body(record: Any) -> bytes:
        record.DiscardUnknownFields()
        for name in cleared:
            record.ClearField(name)
        for step in steps:
            step(record)
        # Canonical: records hold no maps, and nothing else is written in one order or another.
        written: bytes = record.SerializeToString()
        return written

    return Disclosing(message.FromString, body, *_shown(record_type, granted))


def _reading(paths: Iterable[str], record_type: RecordType) -> tuple[type[Message], frozenset[str] | None]:
    """Give the type to read records by of which only these fields are wanted, and the fields that it has.

    Where that cannot be had it is the record type's own, with None for all its fields.
    """
    kept = with_parts(paths)
    message = projected(record_type, kept)
    return (record_type.message, None) if message is None else (message, kept)


def _shown(record_type: RecordType, granted: Mapping[str, FieldGrant]) -> tuple[bool, bool]:
    """Say whether the envelope shows the key and the fact time."""
    clear = frozenset(path for path, grant in granted.items() if grant.transform is None)
    # A fact time that was cut to the year must not come back through the envelope.
    return all(f.path in clear for f in record_type.key_fields), record_type.fact_time in clear


def _trim(message: type[Message], clear: Cut) -> Callable[[bytes], bytes]:
    def trim(value: bytes) -> bytes:
        record = message.FromString(value)
        clear(record)
        if record.SerializeToString() == value:
            return value
        _digest(record)
        return record.SerializeToString()

    return trim


def _clear(
    record_type: RecordType,
    granted: Mapping[str, FieldGrant],
    key: bytes,
    *,
    transform: bool,
    kept: frozenset[str] | None = None,
) -> Cut:
    """Compile everything of a cut but the digest, which is stale afterwards; `kept` as in `_plan`."""
    cleared, steps = _plan(record_type, granted, key, "", transform=transform, kept=kept)
    body = _together(cleared, steps) if cleared or steps else None
    keep_key, keep_fact_time = _shown(record_type, granted)
    hidden = tuple(name for name, shown in (("key", keep_key), ("fact_time", keep_fact_time)) if not shown)

    def cut(record: Message) -> None:
        record.DiscardUnknownFields()
        if body is not None:
            body(record)
        if hidden and record.HasField(ENVELOPE):
            envelope: Any = getattr(record, ENVELOPE)
            for name in hidden:
                envelope.ClearField(name)

    return cut


def _digest(record: Message) -> None:
    if not record.HasField(ENVELOPE):
        return
    envelope: Any = getattr(record, ENVELOPE)
    held = envelope.SerializeToString()
    record.ClearField(ENVELOPE)
    digest = hashlib.sha256(record.SerializeToString(deterministic=True)).digest()
    envelope = getattr(record, ENVELOPE)
    envelope.MergeFromString(held)
    envelope.digest = digest


def _plan(
    record_type: RecordType,
    granted: Mapping[str, FieldGrant],
    key: bytes,
    prefix: str,
    *,
    transform: bool,
    kept: frozenset[str] | None = None,
) -> tuple[tuple[str, ...], tuple[Cut, ...]]:
    """Say which fields of a message are cleared, and what is done to others.

    The message is the record, or a part of it whose fields' paths begin with `prefix`; `kept` are the fields that its
    type has, None where it is the record type itself.
    """
    cleared: list[str] = []
    steps: list[Cut] = []
    for found in record_type.fields.values():
        if found.path != f"{prefix}{found.name}" or not (kept is None or found.path in kept):
            continue
        below = f"{found.path}."
        if found.kind is Kind.PART and any(path.startswith(below) for path in granted):
            plan = _plan(record_type, granted, key, below, transform=transform, kept=kept)
            if any(plan):
                wrap = _in_parts if found.descriptor.is_repeated else _in_part
                steps.append(wrap(found.name, _together(*plan)))
        elif found.path not in granted:
            cleared.append(found.name)
        elif transform and (change := granted[found.path].transform) is not None:
            steps.append(change.bind(found, key))
    return tuple(cleared), tuple(steps)


def _together(cleared: tuple[str, ...], steps: tuple[Cut, ...]) -> Cut:
    def cut(message: Message) -> None:
        clear = message.ClearField
        for name in cleared:
            clear(name)
        for step in steps:
            step(message)

    return cut


def _in_part(name: str, cut: Cut) -> Cut:
    def in_part(message: Message) -> None:
        if message.HasField(name):
            cut(getattr(message, name))

    return in_part


def _in_parts(name: str, cut: Cut) -> Cut:
    def in_parts(message: Message) -> None:
        for part in cast("Iterable[Message]", getattr(message, name)):
            cut(part)

    return in_parts
