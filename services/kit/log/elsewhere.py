"""The answers of other zones inside an answer, put together again as their gateways logged them.

A zone's gateway gives a receipt for a `QueryZoneResponse`. Its sections stand in the answer that the caller gets, byte
for byte, and so does what came from beyond it; so whoever keeps the answer has theirs as well, and that zone's auditors
can compare it with their log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from hutong.api.exchange.v1 import exchange_pb2, zone_pb2
from services.kit import wire
from services.kit.errors import InvalidArgument, Reason

_RECEIPT: Final = zone_pb2.QueryZoneResponse.RECEIPT_FIELD_NUMBER
_PARTS: Final = zone_pb2.SerializedZoneResponse


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One zone's answer."""

    provenance: exchange_pb2.Provenance
    answer: bytes
    """A `QueryZoneResponse` with its receipt, as that zone's gateway sent it."""


def answers(raw: bytes) -> Iterator[Elsewhere]:
    """Put the answers of other zones together from the bytes of a `QueryResponse`, which has the same fields.

    Raises `InvalidArgument` MALFORMED_REQUEST for what is none.
    """
    try:
        parts = _PARTS.FromString(raw)
        sections = [(exchange_pb2.Section.FromString(each).zone, each) for each in parts.sections]
        chains = list(_chains([(exchange_pb2.Provenance.FromString(each), each) for each in parts.provenance]))
    except DecodeError:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "this is no answer as a gateway sent it") from None
    for chain in chains:
        about = chain[-1][0].answered_by
        body = wire.embedded(_PARTS.QUERY_ID_FIELD_NUMBER, parts.query_id.encode())
        body += b"".join(wire.embedded(_PARTS.SECTIONS_FIELD_NUMBER, each) for zone, each in sections if zone == about)
        for number, (provenance, _) in enumerate(chain, 1):
            beyond = b"".join(wire.embedded(_PARTS.PROVENANCE_FIELD_NUMBER, each) for _, each in chain[number:])
            word = wire.embedded(_PARTS.WORD_FIELD_NUMBER, provenance.word)
            receipt = wire.embedded(_RECEIPT, provenance.receipt.SerializeToString())
            yield Elsewhere(provenance, body + beyond + word + receipt)


_Told = tuple[exchange_pb2.Provenance, bytes]


def _chains(told: list[_Told]) -> Iterator[list[_Told]]:
    """Part who answered by the zone that was asked: each chain ends with that one."""
    chain: list[_Told] = []
    for one in told:
        chain.append(one)
        if one[0].zone == one[0].answered_by:
            yield chain
            chain = []
