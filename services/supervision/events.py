"""Events of an authorization: what happened, signed by the service, each chained to the one before.

header  {"alg": "Ed25519", "typ": "hutong-authorization-event+jwt", "kid": …}
claims  iss  the service, spiffe://ZONE/supervision
        aut  the authorization's id
        seq  number, from 1
        kind what happened
        at   when, in microseconds since 1970
        agn, off, rsn  the officer's agency, the officer's pseudonym, the reason's code
        sco  SHA-256 of the scope, base64url; empty where the event is not about it
        unt  a moment that was settled with it: when a request lapses, by when an emergency is reviewed; or 0
        prv  SHA-256 of the event before, as it was signed, base64url; empty for the first
"""

import datetime as dt
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials import signed, strict
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import PublishedKeys
from services.kit.errors import HutongError

TYPE: Final = "hutong-authorization-event+jwt"
LIMIT: Final = 4096
"""Most characters of an event as it is signed."""

_KEPT: Final = 65_536
"""Signatures that were found good and are remembered."""

_EPOCH: Final = dt.datetime.fromtimestamp(0, dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_LAST: Final = 253_402_300_799_000_000


class Kind(StrEnum):
    """What happens to an authorization."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"
    USED = "used"
    EXHAUSTED = "exhausted"
    REVIEWED = "reviewed"


@dataclass(frozen=True, slots=True, order=True)
class Person:
    """An officer, as events know one: the same pseudonym is the same person, whatever the role."""

    agency: str
    pseudonym: str
    """Empty for what the service did by itself."""

    def __str__(self) -> str:
        return f"{self.agency}:{self.pseudonym}"


@dataclass(frozen=True, slots=True)
class Event:
    """One step in the history of an authorization."""

    authorization_id: str
    sequence: int
    kind: Kind
    at: dt.datetime
    by: Person
    reason: str = ""
    scope_digest: bytes = b""
    """The scope as it was requested, or seen by who approved it."""
    until: dt.datetime | None = None
    """When a request lapses; by when an emergency is to be reviewed."""


class HistoryBroken(Exception):
    """A history is not what the service wrote; the message is for the log, and names no person."""


Text = Annotated[str, Field(strict=True, max_length=200)]
Micros = Annotated[int, Field(strict=True, ge=0, le=_LAST)]


class _Claims(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    iss: Text
    aut: Text
    seq: Annotated[int, Field(strict=True, ge=1)]
    kind: Kind
    at: Micros
    agn: Text
    off: Text
    rsn: Text
    sco: Text
    unt: Micros
    prv: Text


def digest(text: str) -> bytes:
    """Digest an event as it is signed: what the next one is chained to."""
    return hashlib.sha256(text.encode()).digest()


class Signatures:
    """Signs events and reads them back; for any thread."""

    def __init__(self, keys: SigningKeys, published: PublishedKeys) -> None:
        self.keys = keys
        self.published = published
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._lock = Lock()

    def sign(self, event: Event, previous: bytes) -> str:
        """Sign an event; `previous` is the digest of the one before, empty for the first.

        Raises `FailedPrecondition` or `PermissionDenied` with a KEY reason where the key cannot be used, or is not
        published: what nobody could verify is not written.
        """
        key = self.keys.active(event.at)
        claims = _Claims(
            iss=self.keys.issuer,
            aut=event.authorization_id,
            seq=event.sequence,
            kind=event.kind,
            at=_micros(event.at),
            agn=event.by.agency,
            off=event.by.pseudonym,
            rsn=event.reason,
            sco=strict.encode(event.scope_digest),
            unt=_micros(event.until) if event.until else 0,
            prv=strict.encode(previous),
        )
        text = signed.sign({"typ": TYPE, "kid": key.kid}, claims.model_dump(mode="json"), key.key)
        self.published.find(self.keys.agency, key.kid, event.at)
        return text

    def read(self, text: str) -> tuple[Event, bytes]:
        """Read an event; gives it with the digest of the one before. Raises `HistoryBroken`.

        Whether its key still stands is asked every time; a signature that was found good is not computed again.
        """
        try:
            token = signed.read(text, typ=TYPE, limit=LIMIT)
            claims = _Claims.model_validate(token.payload)
            event = _event(claims)
            key = self.published.find(self.keys.agency, token.key_id, event.at)
            if not self._known(mark := digest(text)):
                signed.check(token, key)
                self._remember(mark)
            previous = strict.decode(claims.prv)
        except HutongError as error:
            raise HistoryBroken(f"an event's signature does not stand: {error.reason}") from None
        except (ValidationError, ValueError):
            raise HistoryBroken("an event is none") from None
        if claims.iss != self.keys.issuer:
            raise HistoryBroken("an event is another issuer's")
        return event, previous

    def _known(self, mark: bytes) -> bool:
        with self._lock:
            if mark not in self._good:
                return False
            self._good.move_to_end(mark)
            return True

    def _remember(self, mark: bytes) -> None:
        with self._lock:
            self._good[mark] = None
            if len(self._good) > _KEPT:
                self._good.popitem(last=False)


def _event(claims: _Claims) -> Event:
    return Event(
        authorization_id=claims.aut,
        sequence=claims.seq,
        kind=claims.kind,
        at=_moment(claims.at),
        by=Person(claims.agn, claims.off),
        reason=claims.rsn,
        scope_digest=strict.decode(claims.sco),
        until=_moment(claims.unt) if claims.unt else None,
    )


def _micros(at: dt.datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> dt.datetime:
    return _EPOCH + micros * _MICROSECOND
