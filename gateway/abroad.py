"""What of a question is other zones': who there is asked what, and what comes back, passed on as it came.

Nothing is decided here but whether the caller may ask that zone at all: its policies decide, and the sections it sends
go on byte for byte, since its receipt is of them. Only where a section has more in it than it says was given, it is cut
to that; then it goes on without that proof.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError

from gateway.config import ZoneSection
from hutong.api.exchange.v1 import exchange_pb2, zone_pb2
from services.kit.caller import Caller
from services.kit.errors import (
    DeadlineExceeded,
    HutongError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Reason,
    Unavailable,
)
from services.kit.log.facts import Facts
from services.kit.policy.mask import FieldGrant, ReadMask
from services.kit.reader import type_url
from services.kit.records.catalogue import RecordType, nearest
from services.kit.records.pages import MAX_SIZE

_DENIED: Final = exchange_pb2.SECTION_STATUS_DENIED
_REASONS: Final = frozenset(("", *Reason))
_STATUSES: Final = frozenset(exchange_pb2.SectionStatus.values()) - {exchange_pb2.SECTION_STATUS_UNSPECIFIED}


@dataclass(slots=True, eq=False)
class ForeignPart:
    """One selection of the question that is for another zone."""

    index: int
    selection: exchange_pb2.Selection
    """As that zone is asked: it names no zone."""
    zone: str
    record_type: RecordType
    reason: str = ""
    """Why that zone is not asked; empty where it is."""
    refused: bytes = field(init=False, repr=False)
    """Its section where it is not asked, serialized."""
    _all: ReadMask = field(init=False, repr=False)
    """Gives every field; the paths of its trimmer say what is left of that."""

    def __post_init__(self) -> None:
        grants = {leaf.path: FieldGrant(leaf.path, None, ()) for leaf in self.record_type.leaves}
        self._all = ReadMask(self.record_type, grants, (), None, "")
        self.refused = self.section().SerializeToString() if self.denied else b""

    @property
    def denied(self) -> bool:
        """That zone is not asked."""
        return bool(self.reason)

    @property
    def agency(self) -> str:
        """Who answers for it there."""
        return self.record_type.owner

    def section(self) -> exchange_pb2.Section:
        """Begin the part's section, with nothing in it."""
        name, status = self.record_type.name, _DENIED if self.reason else exchange_pb2.SECTION_STATUS_UNSPECIFIED
        return exchange_pb2.Section(
            record_type=name, agency=self.agency, zone=self.zone, status=status, reason=self.reason
        )

    def note(self, facts: Facts, rows: int) -> None:
        """Note for the log what is given; that zone decided, and has its own log."""
        facts.told(f"{self.zone}/{self.record_type.name}", rows)

    def cut(self, section: bytes) -> tuple[bytes, int]:
        """Check a section as it came; gives it back, and how many records are in it.

        What comes back is other bytes where there was more in it than what it says was given. Raises `Unavailable`
        ZONE_FAILED where it is no answer to what was asked.
        """
        try:
            read = exchange_pb2.Section.FromString(section)
        except DecodeError:
            raise _failed("a section that cannot be read") from None
        size = read.ByteSize()
        # Around the records as well as in them: what this version does not know, nobody has looked at.
        read.DiscardUnknownFields()
        changed = read.ByteSize() != size
        if read.reason not in _REASONS:
            raise _failed("a reason that there is not")
        records: Any = read.records
        if read.record_type != self.record_type.name or read.zone != self.zone or read.status not in _STATUSES:
            raise _failed("a section of something else")
        if len(records) > MAX_SIZE or (records and read.status == _DENIED):
            raise _failed(f"{len(records)} records where there should be fewer")
        given = frozenset(d.field for d in read.decisions if d.verdict != exchange_pb2.VERDICT_REFUSED)
        trim, url = self._all.trimmer(given), type_url(self.record_type)
        for record in records:
            if record.type_url != url:
                raise _failed("a record of another type")
            value = record.value
            try:
                cut = trim(value)
            except DecodeError:
                raise _failed("a record that cannot be read") from None
            if cut is not value:
                record.value, changed = cut, True
        return read.SerializeToString() if changed else section, len(records)

    def failed(self, error: HutongError) -> exchange_pb2.Section:
        """Make the section that says why there is no answer."""
        section = self.section()
        section.status, section.reason = exchange_pb2.SECTION_STATUS_UNAVAILABLE, error.reason
        if isinstance(error, DeadlineExceeded):
            section.status = exchange_pb2.SECTION_STATUS_TIMEOUT
        elif isinstance(error, PermissionDenied | InvalidArgument):
            section.status = _DENIED
        elif isinstance(error, Internal) or error.reason in _OWN_AFFAIRS:
            section.reason = Reason.ZONE_FAILED
        return section


_OWN_AFFAIRS: Final = frozenset({Reason.LOG_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.DEPARTMENT_FAILED})
"""What fails inside another zone is nothing that a caller of this one could see to."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What one other zone is asked."""

    zone: str
    parts: tuple[ForeignPart, ...]
    caller: Caller
    context: exchange_pb2.RequestContext
    explain: bool = False
    """Only what would be decided."""

    def request(self) -> zone_pb2.QueryZoneRequest:
        """Begin the request: what is asked for, not about whom."""
        return zone_pb2.QueryZoneRequest(selections=[part.selection for part in self.parts], explain=self.explain)


class Abroad:
    """The other zones, as far as it must be known before they are asked."""

    def __init__(self, zones: Mapping[str, ZoneSection]) -> None:
        self._zones = {name: zone for name, zone in zones.items() if zone.target or zone.via}

    def part(
        self,
        index: int,
        selection: exchange_pb2.Selection,
        record_type: RecordType,
        caller: Caller,
        context: exchange_pb2.RequestContext,
    ) -> ForeignPart:
        """Make the part of a selection that names a zone; raises `InvalidArgument` ZONE_UNKNOWN."""
        name = selection.zone
        zone = self._zones.get(name)
        if zone is None:
            known = f"there is no zone {name!r} to ask{nearest(name, self._zones)}"
            raise InvalidArgument(Reason.ZONE_UNKNOWN, known, zone=name)
        asked = exchange_pb2.Selection()
        asked.CopyFrom(selection)
        asked.ClearField("zone")
        return ForeignPart(index, asked, name, record_type, _why_not(zone, caller, context))


def errands(
    parts: Iterable[object], caller: Caller, context: exchange_pb2.RequestContext, *, explain: bool = False
) -> tuple[Errand, ...]:
    """Put the parts together that are for one zone, leaving out whatever is not to be asked."""
    by_zone: dict[str, list[ForeignPart]] = {}
    for part in parts:
        if isinstance(part, ForeignPart) and not part.denied:
            by_zone.setdefault(part.zone, []).append(part)
    return tuple(Errand(zone, tuple(several), caller, context, explain) for zone, several in by_zone.items())


def listed(caller: str, identities: Iterable[str]) -> bool:
    """Tell whether `agency/system` is among identities, of which some are `agency/*`."""
    return bool({caller, f"{caller.partition('/')[0]}/*"}.intersection(identities))


def _why_not(zone: ZoneSection, caller: Caller, context: exchange_pb2.RequestContext) -> str:
    if context.authorization_id or context.authorization_ticket:
        # What this zone's supervision allows is no word on another one's records.
        return Reason.AUTHORIZATION_UNSUPPORTED
    # A caller of yet another zone is not carried on by asking for it here.
    return "" if not caller.zone and listed(caller.path, zone.asked_by) else Reason.CALLER_NOT_LISTED


def _failed(why: str) -> Unavailable:
    return Unavailable(Reason.ZONE_FAILED, f"the zone sent {why}")
