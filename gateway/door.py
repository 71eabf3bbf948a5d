"""The door to other zones: `ZoneService`, where their gateways ask, and no one of this zone does.

A question for this zone is answered as one of its own callers' would be, but for somebody of another zone: this zone's
policies decide, those of the departments again. A question for a zone beyond is carried on, where the config says so,
and the answer comes back byte for byte. Either is logged before it leaves.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from gateway.abroad import listed
from gateway.config import ZoneSection
from gateway.plan import Planner
from gateway.service import FederationService, inner_deadline
from gateway.words import Listener, Speaker, Spoken
from gateway.zones import Errands, joined_sections
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, zone_pb2
from services.kit import reader, wire
from services.kit.doors import check_selections
from services.kit.errors import InvalidArgument, PermissionDenied, Reason, Unavailable
from services.kit.identity import Identity
from services.kit.rpc import Call, Reply

SERVICE: Final = "hutong.api.exchange.v1.ZoneService"

_ID: Final = re.compile("[0-9a-f]{32}")
_QUERY_ID: Final = zone_pb2.QueryZoneResponse.QUERY_ID_FIELD_NUMBER
_WORD: Final = zone_pb2.QueryZoneResponse.WORD_FIELD_NUMBER
_PROVENANCE: Final = zone_pb2.QueryZoneResponse.PROVENANCE_FIELD_NUMBER


class ZoneService:
    """What gateways of other zones may ask."""

    def __init__(
        self,
        own: str,
        federation: FederationService,
        planner: Planner,
        listener: Listener,
        speaker: Speaker,
        errands: Errands,
        zones: Mapping[str, ZoneSection],
        identity: Identity,
        revoked: Callable[[], bytes],
    ) -> None:
        """`own` is this zone's name; `revoked` gives the revocation lists that count in it."""
        self._federation = federation
        self._planner = planner
        self._listener = listener
        self._speaker = speaker
        self._errands = errands
        self._zones = zones
        self._identity = identity
        self._revoked = revoked
        # What every section says whose decision it is.
        self._own = exchange_pb2.Section(zone=own).SerializeToString()
        self._name = own

    async def query_zone(self, request: zone_pb2.QueryZoneRequest, call: Call) -> Reply:
        """Answer, or carry on; raises as `Listener.hear`, and `PermissionDenied` for who or what is not let in."""
        if not _ID.fullmatch(request.query_id):
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "the query's id is 32 hexadecimal digits", field="query_id")
        spoken = self._listener.hear(request, call.certificate)
        call.facts.asked(spoken.caller, spoken.context, None, request.query_id)
        check_selections(request.selections)
        if any(selection.zone for selection in request.selections):
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "between zones, no selection names one")
        if spoken.zone != self._name:
            return await self._carried(request, spoken, call)
        return await self._answered(request, spoken, call)

    async def get_trust(self, _request: zone_pb2.GetTrustRequest, _call: Call) -> zone_pb2.GetTrustResponse:
        """Give this zone's roots and revocation lists, as they count here."""
        return zone_pb2.GetTrustResponse(bundle=self._identity.svid().bundle, revoked=self._revoked())

    async def _answered(self, request: zone_pb2.QueryZoneRequest, spoken: Spoken, call: Call) -> bytes:
        zone, caller = self._zones[spoken.path[0]], spoken.caller
        if not listed(f"{caller.agency.partition('.')[0]}/{caller.system}", zone.may_ask):
            raise PermissionDenied(Reason.CALLER_NOT_LISTED, "this caller may not ask this zone")
        if spoken.context.authorization_id or spoken.context.authorization_ticket:
            raise PermissionDenied(
                Reason.AUTHORIZATION_UNSUPPORTED, "an authorization opens records of the zone that gave it"
            )
        question = federation_pb2.QueryRequest(selections=request.selections, context=spoken.context)
        if request.HasField("subject"):
            question.subject.CopyFrom(request.subject)
        if request.HasField("as_of"):
            question.as_of.CopyFrom(request.as_of)
        if request.explain:
            parts = self._planner.decide(question, caller)
            for part in parts:
                part.note(call.facts, 0)
            sections = [part.section().SerializeToString() for part in parts]
        else:
            plan = self._planner.plan(question, caller, self._identity.svid(), request.query_id)
            sections = (await self._federation.gather(plan, call)).sections
        joined = joined_sections([section + self._own for section in sections])
        word = self._speaker.answer(self._identity.svid(), request, joined)
        return _written(request.query_id, joined, word)

    async def _carried(self, request: zone_pb2.QueryZoneRequest, spoken: Spoken, call: Call) -> bytes:
        zone, road = self._zones.get(spoken.zone), self._errands.road(spoken.zone)
        if zone is None or road is None or spoken.path[0] not in zone.carried_for:
            raise PermissionDenied(Reason.ZONE_UNKNOWN, "questions to that zone are not carried on here")
        way, longest = road
        if way.zone in spoken.path:
            raise InvalidArgument(Reason.ZONE_LOOP, "the way to that zone leads back")
        subject = request.subject
        about = reader.subject_of(subject.scheme, subject.value, subject.as_written)
        call.facts.about(about)
        wait = min(inner_deadline(call), longest)
        parent = call.trace.parent if call.trace is not None and call.trace.told else ""
        answer = await way.carry(request, spoken.zone, wait, parent)
        for selection, section in zip(request.selections, answer.sections, strict=True):
            kind = self._planner.record_type(selection.record_type)
            call.facts.told(f"{spoken.zone}/{kind.name}", _rows(kind.name, section))
        return _written(request.query_id, joined_sections(answer.sections), answer.word, answer.provenance)


def _rows(record_type: str, section: bytes) -> int:
    """Say how many records are in a section that is carried; raises `Unavailable` ZONE_FAILED where it is another's."""
    try:
        read = exchange_pb2.Section.FromString(section)
    except DecodeError:
        raise Unavailable(Reason.ZONE_FAILED, "the zone sent a section that cannot be read") from None
    if read.record_type != record_type:
        raise Unavailable(Reason.ZONE_FAILED, "the zone sent a section of something else")
    return len(read.records)


def _written(query_id: str, sections: bytes, word: bytes, provenance: Sequence[bytes] = ()) -> bytes:
    """Write a `QueryZoneResponse`: in the order in which whoever has its parts puts it together again."""
    return b"".join(
        (
            wire.embedded(_QUERY_ID, query_id.encode()),
            sections,
            *(wire.embedded(_PROVENANCE, each) for each in provenance),
            wire.embedded(_WORD, word),
        )
    )
