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
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials import signed, strict
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SKEW, NumericDate, PublishedKeys, moment, seconds
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
    try:
        token = signed.read(text, typ=TYPE, limit=LIMIT)
        claims = _Claims.model_validate(token.payload)
        issued_at, expires_at = moment(claims.iat), moment(claims.exp)
        signed.check(token, published.find(agency, token.key_id, issued_at))
        digest = strict.decode(claims.sco)
    except (ValidationError, ValueError):
        raise _invalid() from None
    except HutongError as error:
        if error.reason is Reason.KEY_INVALID:
            raise
        raise _invalid() from None
    if claims.iss != published.issuer(agency) or len(digest) != _DIGEST:
        raise _invalid()
    if not dt.timedelta() < expires_at - issued_at <= LIFETIME or issued_at > now + SKEW:
        raise _invalid()
    if expires_at <= now:
        raise PermissionDenied(Reason.TICKET_EXPIRED, "the ticket has expired; use the authorization again")
    return Ticket(
        ticket_id=claims.jti,
        issuer=claims.iss,
        authorization_id=claims.aut,
        scope_digest=digest,
        caller=claims.cal,
        officer=claims.off,
        issued_at=issued_at,
        expires_at=expires_at,
    )


def _invalid() -> PermissionDenied:
    # Which of it does not stand is for nobody to learn who may have made it up.
    return PermissionDenied(Reason.TICKET_INVALID, "the ticket does not stand")
