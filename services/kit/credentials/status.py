"""Status lists: what has become of statements since they were signed (Token Status List).

One list tells of very many statements in a few bits each, so that looking one up does not tell which. Entries of two
bits: valid, invalid (revoked), suspended, and superseded, which the draft leaves to applications.
"""

import datetime as dt
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials import signed, strict
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SKEW, NumericDate, PublishedKeys, agency_of, moment, seconds
from services.kit.errors import HutongError, InvalidArgument, Reason

TYPE: Final = "statuslist+jwt"
BITS: Final = 2
"""Bits of an entry in the lists of this product."""

MAX_BYTES: Final = 1024 * 1024
"""Most bytes of a list, uncompressed: four million entries of two bits."""

LIMIT: Final = 2 * MAX_BYTES
"""Most characters of a token; a list that does not compress is about that long."""


class Status(IntEnum):
    """What has become of a statement."""

    VALID = 0
    INVALID = 1
    SUSPENDED = 2
    SUPERSEDED = 3
    """Application specific: a newer statement has taken its place."""


def _divides(bits: int) -> int:
    if 8 % bits:
        raise ValueError("entries have 1, 2, 4 or 8 bits")
    return bits


class _List(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    bits: Annotated[int, Field(strict=True, gt=0), AfterValidator(_divides)]
    lst: Annotated[str, Field(strict=True)]


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    sub: Annotated[str, Field(strict=True, min_length=1, max_length=1000)]
    iss: Annotated[str, Field(strict=True)]
    iat: NumericDate
    exp: NumericDate | None = None
    ttl: Annotated[int, Field(strict=True, gt=0)] | None = None
    status_list: _List


@dataclass(frozen=True, slots=True)
class StatusList:
    """A list of statuses, packed; `uri` is the name by which statements refer to it."""

    uri: str
    bits: int
    packed: bytes = field(repr=False)
    issued_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    ttl: dt.timedelta | None = None
    """How long it may be kept before it is looked up again."""

    @classmethod
    def of(cls, uri: str, values: Iterable[int], bits: int = BITS) -> Self:
        """Pack values, the first in the lowest bits of the first byte."""
        per_byte = 8 // bits
        packed = bytearray()
        for index, value in enumerate(values):
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{value} does not fit {bits} bits")
            if index % per_byte == 0:
                packed.append(0)
            packed[-1] |= value << bits * (index % per_byte)
        return cls(uri, bits, bytes(packed))

    def __len__(self) -> int:
        return len(self.packed) * 8 // self.bits

    def __getitem__(self, index: int) -> int:
        """Give the status at an index; raises `IndexError`."""
        if index < 0:
            raise IndexError(index)
        byte, place = divmod(index * self.bits, 8)
        return self.packed[byte] >> place & (1 << self.bits) - 1


def compress(packed: bytes) -> str:
    """Write `lst`: zlib (RFC 1950), base64url."""
    return strict.encode(zlib.compress(packed, 9))


def decompress(text: str, limit: int = MAX_BYTES) -> bytes:
    """Read `lst`; raises `ValueError`, also where it would grow beyond `limit`."""
    reader = zlib.decompressobj()
    try:
        # One byte more than is taken: so much shows that it is too long, and no more is ever made of it.
        data = reader.decompress(strict.decode(text), limit + 1)
    except zlib.error:
        raise ValueError("not zlib") from None
    if len(data) > limit or not reader.eof or reader.unused_data:
        raise ValueError("too long, cut off, or followed by something else")
    return data


def issue(status: StatusList, keys: SigningKeys, now: dt.datetime, lifetime: dt.timedelta, ttl: dt.timedelta) -> str:
    """Sign a list as it is now; it lapses after `lifetime`, and may be kept for `ttl`. Raises as `active` does."""
    signing = keys.active(now)
    payload: dict[str, Any] = {
        "sub": status.uri,
        "iss": keys.issuer,
        "iat": seconds(now),
        "exp": seconds(now + lifetime),
        "ttl": int(ttl.total_seconds()),
        "status_list": {"bits": status.bits, "lst": compress(status.packed)},
    }
    return signed.sign({"typ": TYPE, "kid": signing.kid}, payload, signing.key)


def verify(text: str, published: PublishedKeys, *, at: dt.datetime, issuer: str, uri: str = "") -> StatusList:
    """Verify a list that has to be `issuer`'s (its agency), and the one named `uri` where that is given.

    Raises `InvalidArgument` STATUS_LIST_INVALID for everything wrong with it, and what `PublishedKeys.find` raises.
    """
    try:
        token = signed.read(text, typ=TYPE, limit=LIMIT)
    except HutongError as error:
        raise _invalid(error.message) from None
    try:
        claims = _Claims.model_validate(token.payload)
    except ValidationError:
        raise _invalid("a claim is missing, or not what it should be") from None
    if agency_of(claims.iss) != issuer or published.issuer(issuer) != claims.iss:
        raise _invalid("it is from another issuer")
    key = published.find(issuer, token.key_id, moment(claims.iat))
    try:
        signed.check(token, key)
        packed = decompress(claims.status_list.lst)
    except HutongError as error:
        raise _invalid(error.message) from None
    except ValueError as error:
        raise _invalid(f"its list is {error}") from None
    _check_claims(claims, at, uri)
    return StatusList(
        uri=claims.sub,
        bits=claims.status_list.bits,
        packed=packed,
        issued_at=moment(claims.iat),
        expires_at=None if claims.exp is None else moment(claims.exp),
        ttl=None if claims.ttl is None else dt.timedelta(seconds=claims.ttl),
    )


def _check_claims(claims: _Claims, at: dt.datetime, uri: str) -> None:
    if uri and claims.sub != uri:
        raise _invalid("it is another list")
    if moment(claims.iat) > at + SKEW:
        raise _invalid("it is from the future")
    if claims.exp is not None and moment(claims.exp) <= at:
        raise _invalid("it has lapsed")


def _invalid(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.STATUS_LIST_INVALID, f"the status list cannot be used: {what}")
