"""Tickets: an officer's leave to use an authorization for a few minutes, signed by the service that keeps it.

A ticket names the authorization, the scope as it was approved, the one system that may ask under it and the officer,
as a pseudonym. It is no authorization: whoever takes one still asks whether that one is in force.

    header  {"alg": "Ed25519", "typ": "hutong-ticket+jwt", "kid": …}
    claims  iss  the service, spiffe://ZONE/supervision
            aut  the authorization's id
            sco  SHA-256 of its scope, base64url
            cal  SPIFFE id of the system that may ask
            off  pseudonym of the officer
            iat, exp  at most five minutes apart
            jti  the ticket's own id
"""

import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials import signed, strict
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SKEW, NumericDate, PublishedKeys, moment, seconds
from services.kit.credentials.signed import Key
from services.kit.errors import HutongError, PermissionDenied, Reason

TYPE: Final = "hutong-ticket+jwt"
"""`typ` of a ticket's header."""

LIFETIME: Final = dt.timedelta(minutes=5)
"""The longest a ticket lasts; also the longest that is taken."""

LIMIT: Final = 4096
"""Most characters of a ticket."""

AGENCY: Final = "supervision"
"""Whose keys sign tickets, unless a zone has the service under another name."""

_DIGEST: Final = 32

_MOST_KEPT: Final = 1024
"""Most tickets whose signature a node remembers to have checked."""

Text = Annotated[str, Field(strict=True, min_length=1, max_length=300)]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket, its signature checked by `read`."""

    ticket_id: str
    issuer: str
    """The service that signed it, `spiffe://ZONE/AGENCY`."""
    authorization_id: str
    scope_digest: bytes
    """Digest of the scope that approvers signed off."""
    caller: str
    """SPIFFE id of the one system that may ask under it."""
    officer: str
    """Pseudonym of the officer who uses it."""
    issued_at: dt.datetime
    expires_at: dt.datetime


class _Claims(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    iss: Text
    aut: Text
    sco: Annotated[str, Field(strict=True, min_length=43, max_length=43)]
    cal: Text
    off: Text
    iat: NumericDate
    exp: NumericDate
    jti: Text


def sign(keys: SigningKeys, ticket: Ticket) -> str:
    """Sign a ticket with the key that is active when it is issued; moments are cut to whole seconds.

    Raises `FailedPrecondition` KEY_EXPIRED or KEY_INVALID where there is no such key.
    """
    key = keys.active(ticket.issued_at)
    claims = _Claims(
        iss=ticket.issuer,
        aut=ticket.authorization_id,
        sco=strict.encode(ticket.scope_digest),
        cal=ticket.caller,
        off=ticket.officer,
        iat=seconds(ticket.issued_at),
        exp=seconds(ticket.expires_at),
        jti=ticket.ticket_id,
    )
    return signed.sign({"typ": TYPE, "kid": key.kid}, claims.model_dump(), key.key)


def read(text: str, published: PublishedKeys, now: dt.datetime, agency: str = AGENCY) -> Ticket:
    """Read a ticket that `agency` signed, with its published keys.

    Raises `PermissionDenied`: TICKET_EXPIRED, or TICKET_INVALID for everything else that is wrong with it;
    `FailedPrecondition` KEY_INVALID where the published keys cannot be read.
    """
    ticket = _verified(text, published, agency).ticket
    _check_time(ticket, now)
    return ticket


@dataclass(frozen=True, slots=True)
class _Verified:
    """A ticket with the key that its signature was checked with."""

    ticket: Ticket
    key_id: str
    key: Key


class Tickets:
    """Reads tickets as `read` does, and checks each signature once for as long as its key stands."""

    def __init__(self, published: PublishedKeys, agency: str = AGENCY) -> None:
        """`agency` is whose tickets count."""
        self._published = published
        self._agency = agency
        self._kept: OrderedDict[str, _Verified] = OrderedDict()

    def read(self, text: str, now: dt.datetime) -> Ticket:
        """Read a ticket; raises as the function of that name does."""
        kept = self._kept.get(text)
        if kept is None or not self._stands(kept):
            self._kept.pop(text, None)
            kept = self._kept[text] = _verified(text, self._published, self._agency)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(text)
        _check_time(kept.ticket, now)
        return kept.ticket

    def _stands(self, kept: _Verified) -> bool:
        """Tell whether the very key is still published, and not revoked: as soon as it is not, nothing was checked."""
        try:
            return self._published.find(self._agency, kept.key_id, kept.ticket.issued_at) is kept.key
        except HutongError:
            return False


def _verified(text: str, published: PublishedKeys, agency: str) -> _Verified:
    """Check everything about a ticket but whether it is its time."""
    try:
        token = signed.read(text, typ=TYPE, limit=LIMIT)
        claims = _Claims.model_validate(token.payload)
        issued_at, expires_at = moment(claims.iat), moment(claims.exp)
        key = published.find(agency, token.key_id, issued_at)
        signed.check(token, key)
        digest = strict.decode(claims.sco)
    except (ValidationError, ValueError):
        raise _invalid() from None
    except HutongError as error:
        if error.reason is Reason.KEY_INVALID:
            raise
        raise _invalid() from None
    if claims.iss != published.issuer(agency) or len(digest) != _DIGEST:
        raise _invalid()
    if not dt.timedelta() < expires_at - issued_at <= LIFETIME:
        raise _invalid()
    ticket = Ticket(
        ticket_id=claims.jti,
        issuer=claims.iss,
        authorization_id=claims.aut,
        scope_digest=digest,
        caller=claims.cal,
        officer=claims.off,
        issued_at=issued_at,
        expires_at=expires_at,
    )
    return _Verified(ticket, token.key_id, key)


def _check_time(ticket: Ticket, now: dt.datetime) -> None:
    if ticket.issued_at > now + SKEW:
        raise _invalid()
    if ticket.expires_at <= now:
        raise PermissionDenied(Reason.TICKET_EXPIRED, "the ticket has expired; use the authorization again")


def _invalid() -> PermissionDenied:
    # Which of it does not stand is for nobody to learn who may have made it up.
    return PermissionDenied(Reason.TICKET_INVALID, "the ticket does not stand")
