"""What the source says through a broker, signed: "after one sequence and up to another, this is what there is for you".

It is true for ever, so a broker that brings it twice, late or out of order can do no harm; it joins what it follows,
so one that is withheld is missed; and it is signed with the key of the source's log, which every node of the zone
knows, so none can be made up. A beat is a statement about the time since the last event: it says that there is none.
"""

import base64
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from hutong.api.exchange.v1 import event_pb2
from services.kit.errors import PermissionDenied, Reason
from services.kit.events.jetstream.way import Way
from services.kit.log.notes import Signer, VerifierKey

AFTER: Final = "Hutong-After"
AT: Final = "Hutong-At"
SIGNATURE: Final = "Hutong-Signature"

_MOST: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, verified."""

    after: int
    """It begins after this sequence."""
    until: int
    """Whatever there is up to here, it has."""
    events: tuple[event_pb2.Event, ...]
    at: dt.datetime
    """When it was made, by the source's clock, to the second."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One statement as it goes through the broker."""

    headers: dict[str, str]
    data: bytes
    """A serialized `FollowResponse`, with its receipt, as it would leave over gRPC."""


def seal(way: Way, after: int, answer: bytes, now: dt.datetime, signer: Signer) -> Sealed:
    """Sign what there is for an agency after a sequence; `signer` is the source's log's."""
    at = int(now.timestamp())
    signature = signer.key.sign(_text(way, after, at, answer))
    return Sealed({AFTER: str(after), AT: str(at), SIGNATURE: base64.b64encode(signature).decode()}, answer)


def unseal(way: Way, headers: Mapping[str, str] | None, data: bytes, key: VerifierKey) -> Statement:
    """Verify a statement; raises `PermissionDenied` EVENT_INVALID for what the source did not say to this agency."""
    try:
        headers = headers or {}
        after, at = _number(headers[AFTER]), _number(headers[AT])
        signature = base64.b64decode(headers[SIGNATURE], validate=True)
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, _text(way, after, at, data))
        said = event_pb2.FollowResponse.FromString(data)
        moment = dt.datetime.fromtimestamp(at, dt.UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError, InvalidSignature, DecodeError):
        raise PermissionDenied(Reason.EVENT_INVALID, "the broker has something that the source did not say") from None
    return Statement(after, said.until, tuple(said.events), moment)


def _text(way: Way, after: int, at: int, data: bytes) -> bytes:
    """Write what is signed. The key signs checkpoints and receipts too, none of which begin like this."""
    digest = base64.b64encode(sha256(data).digest()).decode()
    return f"hutong events\n{way.origin}\n{way.audience}\n{after}\n{at}\n{digest}\n".encode()


def _number(text: object) -> int:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or int(text) >= _MOST:
        raise ValueError("no number")
    return int(text)
