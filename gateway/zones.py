"""The other zones as the gateway has them: where each one's gateway is, and what is said to it on whose behalf."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from certs.spiffe import SpiffeId
from certs.svid import Svid
from gateway.abroad import Errand
from gateway.asked import Asked
from gateway.words import MOST_WORDS, Listener, Speaker
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2, zone_pb2
from hutong.api.log.v1 import log_pb2
from services.kit import wire
from services.kit.client import Client
from services.kit.errors import DeadlineExceeded, HutongError, Reason, Unavailable
from services.kit.identity import Identity
from services.kit.log.checkpoint import origin_of

QUERY: Final = "/hutong.api.exchange.v1.ZoneService/QueryZone"

_SECTIONS: Final = zone_pb2.QueryZoneResponse.SECTIONS_FIELD_NUMBER
_LARGEST_PROVENANCE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ZoneAnswer:
    """What came of an errand."""

    sections: Sequence[bytes]
    """Serialized, as they came."""
    provenance: Sequence[bytes]
    """Who answered, serialized: the zone that was asked first, then whoever is beyond it."""
    word: bytes
    """The word of the gateway that answered, serialized."""


Outcome = ZoneAnswer | HutongError
"""The answer, or the error in its place."""


class Road:
    """The way to the gateway of one other zone, over which several zones may be asked."""

    def __init__(
        self,
        zone: str,
        gateway: SpiffeId,
        client: Client,
        identity: Identity,
        speaker: Speaker,
        listener: Listener,
    ) -> None:
        """`client` calls under that zone's roots; `identity` is this gateway's as it signs and calls."""
        self.zone = zone
        self.client = client
        self._gateway = str(gateway)
        self._origin = origin_of(zone, gateway.agency, gateway.system)
        self._identity = identity
        self._speaker = speaker
        self._listener = listener

    async def ask(
        self, errand: Errand, request: zone_pb2.QueryZoneRequest, wait: float, traceparent: str
    ) -> ZoneAnswer:
        """Ask for a caller of this zone; raises the error the zone answered with, or ZONE_UNREACHABLE and its like."""
        svid = self._identity.svid()
        self._speaker.ask(svid, request, errand.caller, errand.context, (errand.zone, self.zone))
        return await self._answer(svid, request, errand.zone, wait, traceparent)

    async def carry(self, request: zone_pb2.QueryZoneRequest, zone: str, wait: float, traceparent: str) -> ZoneAnswer:
        """Carry another zone's question on; raises as `ask`."""
        svid = self._identity.svid()
        self._speaker.carry(svid, request, (zone, self.zone))
        return await self._answer(svid, request, zone, wait, traceparent)

    async def _answer(
        self, svid: Svid, request: zone_pb2.QueryZoneRequest, zone: str, wait: float, traceparent: str
    ) -> ZoneAnswer:
        try:
            raw = await self.client.raw(QUERY, request, timeout=wait, traceparent=traceparent, svid=svid)
        except HutongError as error:
            raise _of_a_zone(error) from None
        try:
            answer = zone_pb2.SerializedZoneResponse.FromString(raw)
            receipt = log_pb2.Receipt.FromString(answer.receipt)
        except DecodeError:
            raise Unavailable(Reason.ZONE_FAILED, "the zone sent what is no answer") from None
        if len(answer.sections) != len(request.selections) or answer.query_id != request.query_id:
            raise Unavailable(Reason.ZONE_FAILED, "the zone answered another question")
        if receipt.origin != self._origin or not receipt.leaf_hash:
            raise Unavailable(Reason.ZONE_FAILED, "the zone sent no proof that it has logged its answer")
        check(self._listener, answer, request, self.zone)
        own = exchange_pb2.Provenance(
            zone=self.zone, gateway=self._gateway, answered_by=zone, receipt=receipt, word=answer.word
        )
        return ZoneAnswer(answer.sections, (own.SerializeToString(), *answer.provenance), answer.word)


class Errands:
    """Runs errands beside what departments are asked."""

    def __init__(self, roads: "dict[str, tuple[Road, float]]") -> None:
        """`roads` are by the zone that is to answer, each with the longest wait for it in seconds."""
        self._roads = roads
        failed = Unavailable(Reason.ZONE_FAILED, "the zone cannot be asked now")
        self._asked = {zone: Asked[ZoneAnswer](zone, failed) for zone in roads}

    def run(
        self, errand: Errand, rest: bytes, wait: float, traceparent: str, told: Callable[[Outcome], None]
    ) -> Callable[[], object]:
        """Ask, and have `told` called once, within `wait` seconds; `rest` is that of `gateway.plan.Plan`.

        Gives what is to be called where nobody waits any more: then `told` is not.
        """
        said = record_source_pb2.FetchSessionRequest.Ask.FromString(rest)
        request = errand.request()
        request.query_id = said.query_id
        if said.HasField("subject"):
            request.subject.CopyFrom(said.subject)
        if said.HasField("as_of"):
            request.as_of.CopyFrom(said.as_of)
        road, longest = self._roads[errand.zone]

        wait = min(wait, longest)
        return self._asked[errand.zone].ask(lambda: road.ask(errand, request, wait, traceparent), told)

    def waiting(self, zone: str) -> int:
        """How many questions a zone has not answered yet."""
        return len(self._asked[zone]) if zone in self._asked else 0

    def road(self, zone: str) -> tuple[Road, float] | None:
        """Get the way to a zone, and the longest wait for it; None where there is none."""
        return self._roads.get(zone)

    async def close(self) -> None:
        """End everything that is asked: whoever waits is told that there is no answer."""
        await asyncio.gather(*(asked.close() for asked in self._asked.values()))


def _of_a_zone(error: HutongError) -> HutongError:
    """Say of a zone what a client says of a node: that it was too slow, or is not there."""
    if isinstance(error, DeadlineExceeded):
        return DeadlineExceeded(Reason.ZONE_TIMEOUT, "the zone did not answer in time")
    if error.reason is Reason.DEPARTMENT_UNREACHABLE:
        return Unavailable(Reason.ZONE_UNREACHABLE, "the zone's gateway cannot be reached")
    return error


def joined_sections(sections: Iterable[bytes]) -> bytes:
    """Write sections as they stand in a `QueryZoneResponse`: what its gateway's word is on."""
    return b"".join(wire.embedded(_SECTIONS, each) for each in sections)


def check(
    listener: Listener, answer: zone_pb2.SerializedZoneResponse, request: zone_pb2.QueryZoneRequest, way: str
) -> None:
    """Check that the zone that was asked said so, and whom the answer says to have come through.

    `way` is the zone that brought it. Raises `Unavailable` ZONE_FAILED.
    """
    zone = zone_pb2.ZoneContext.FromString(request.words[0].payload).zone
    try:
        listener.check_answer(zone, request, joined_sections(answer.sections), answer.word)
        beyond = [exchange_pb2.Provenance.FromString(each) for each in answer.provenance]
    except (HutongError, DecodeError):
        raise Unavailable(Reason.ZONE_FAILED, "the zone did not give this answer") from None
    # Whoever was asked itself has nobody beyond it; else the last of them, and no other, is who answered.
    expected = [] if way == zone else [*[False] * (len(beyond) - 1), True]
    if (
        [each.zone == zone for each in beyond] != expected
        or len(beyond) >= MOST_WORDS
        or sum(map(len, answer.provenance)) > _LARGEST_PROVENANCE
        or any(each.answered_by != zone or each.word != answer.word for each in beyond)
    ):
        raise Unavailable(Reason.ZONE_FAILED, "the zone says of others what cannot be")
