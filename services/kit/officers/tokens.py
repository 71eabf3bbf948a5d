"""Officer tokens: OpenID Connect ID tokens, and what has to stand in one.

They live for minutes, for one act (`nonce`) at one node (`aud`) through one system (`cnf`), and say which roles the
officer has.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials.published import SKEW, NumericDate, moment
from services.kit.errors import HutongError, Reason, Unauthenticated

TYPE: Final = "JWT"
LIMIT: Final = 8 * 1024
"""Most characters of a token."""

MAX_LIFE: Final = dt.timedelta(minutes=10)
"""The longest a token may live."""


class Role(StrEnum):
    """What an officer may be: a closed list."""

    REQUESTER = "requester"
    APPROVER = "approver"
    AUDITOR = "auditor"
    DATA_OFFICER = "data-officer"


@dataclass(frozen=True, slots=True)
class Officer:
    """A person, as a token says: by their agency's own reference, never by name."""

    agency: str
    subject: str = field(repr=False)
    roles: frozenset[Role]
    issued_at: dt.datetime
    expires_at: dt.datetime
    jti: str = field(repr=False)
    """Id of the token that said so; one of its agency's has it once."""

    @property
    def reference(self) -> str:
        """Name the officer among all agencies'."""
        return f"{self.agency}:{self.subject}"

    @property
    def remembered_until(self) -> dt.datetime:
        """Say until when it must be remembered that the token was used: after that nobody takes it."""
        return self.expires_at + SKEW


# OpenID Connect Core section 2: at most 255 ASCII characters. None of them may be blank: two texts that look the same
# would be two officers.
_ID: Final = re.compile(r"[!-~]{1,255}")
_Id = Annotated[str, Field(pattern=f"^{_ID.pattern}$")]


def is_reference(subject: str) -> bool:
    """Tell whether a text can be an officer's reference: 1 to 255 printable ASCII characters, none of them blank."""
    return _ID.fullmatch(subject) is not None


class _Confirmation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    thumbprint: str = Field(alias="x5t#S256")


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    sub: _Id
    aud: str
    """One audience: a token for several would be taken by the others too."""
    iat: NumericDate
    nbf: NumericDate | None = None
    exp: NumericDate
    jti: _Id
    nonce: str
    roles: tuple[Role, ...] = Field(min_length=1, max_length=len(Role))
    cnf: _Confirmation


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token has to be made for."""

    audience: str
    nonce: str
    thumbprint: str


def invalid(what: str) -> Unauthenticated:
    """Make the error for a token that does not stand; `what` is a constant, never part of the token."""
    return Unauthenticated(Reason.OFFICER_TOKEN_INVALID, f"the officer token does not stand: {what}")


def read_claims(agency: str, payload: Mapping[str, Any], expected: Expected, now: dt.datetime) -> Officer:
    """Read the claims of a token whose signature was checked before.

    Raises `Unauthenticated` OFFICER_TOKEN_INVALID or OFFICER_TOKEN_EXPIRED.
    """
    try:
        claims = _Claims.model_validate(payload)
    except ValidationError as error:
        names = sorted({str(item["loc"][0]) for item in error.errors(include_url=False, include_input=False)})
        raise invalid(f"claims missing or not as they should be: {', '.join(names)}") from None
    if len(set(claims.roles)) != len(claims.roles):
        raise invalid("a role stands twice")
    if claims.aud != expected.audience:
        raise invalid("it is for another audience")
    if claims.cnf.thumbprint != expected.thumbprint:
        raise invalid("it is bound to another system's certificate")
    if claims.nonce != expected.nonce:
        raise invalid("it is made for another act")
    _check_time(claims, now)
    return Officer(agency, claims.sub, frozenset(claims.roles), moment(claims.iat), moment(claims.exp), claims.jti)


def _check_time(claims: _Claims, now: dt.datetime) -> None:
    issued, expires = moment(claims.iat), moment(claims.exp)
    begins = issued if claims.nbf is None else moment(claims.nbf)
    if not issued < expires or not begins < expires or expires - issued > MAX_LIFE:
        raise invalid("its times do not fit each other, or it lives too long")
    # The other way round it could leave the range of moments.
    if now < max(issued, begins) - SKEW:
        raise invalid("it is not valid yet")
    if expires <= now - SKEW:
        raise expired("it has expired")


def expired(what: str) -> HutongError:
    """Make the error for a token that came too late."""
    return Unauthenticated(Reason.OFFICER_TOKEN_EXPIRED, f"the officer token came too late: {what}")
