"""Published signing keys: what everyone may know, and all that is needed to verify what an agency signed.

One JWK set (RFC 7517) for each agency, in a file `AGENCY.jwks.json`. Beside the keys it names the agency's URI as
`issuer`; each key says from when (`nbf`) until when (`exp`) it signs, and whether it was revoked (`revoked`).
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials import strict
from services.kit.credentials.signed import Key
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason
from services.kit.followed import Followed
from services.kit.jurisdiction.pack import describe

SKEW: Final = dt.timedelta(seconds=60)
"""How far clocks may differ."""

LIMIT: Final = 1024 * 1024
"""Most bytes of a set of keys."""

SUFFIX: Final = ".jwks.json"

_ALGORITHM: Final = "Ed25519"
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ISSUER: Final = re.compile(r"spiffe://[a-z0-9._-]{1,64}/(?P<agency>[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)")
_LATEST: Final = 253_402_300_799
"""The last second of the year 9999: what lies behind is no moment."""


class KeyState(StrEnum):
    """What a key is good for at a moment."""

    PLANNED = "planned"
    """Published, but it does not sign yet."""
    ACTIVE = "active"
    RETIRED = "retired"
    """It signs no more; what it signed stands."""
    REVOKED = "revoked"
    """Nothing it signed is believed."""


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public key and its time."""

    kid: str
    x: str
    """The Ed25519 public key, base64url."""
    active_from: dt.datetime
    active_until: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    revoked_reason: str = ""

    def state(self, now: dt.datetime) -> KeyState:
        """Say what it is good for."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if now < self.active_from:
            return KeyState.PLANNED
        return KeyState.RETIRED if self.active_until is not None and self.active_until <= now else KeyState.ACTIVE


NumericDate = Annotated[int, Field(strict=True, ge=0, le=_LATEST)]


class _Revoked(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    revoked_at: NumericDate
    reason: str = Field(default="", max_length=100)


class _Jwk(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str = Field(min_length=43, max_length=43)
    kid: str = Field(min_length=1, max_length=200)
    alg: Literal["Ed25519"] = _ALGORITHM
    use: Literal["sig"] = "sig"
    nbf: NumericDate
    exp: NumericDate | None = None
    revoked: _Revoked | None = None
    d: None = None
    """A private key has no place among published ones."""


class _Set(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    issuer: str = Field(pattern=_ISSUER.pattern)
    keys: tuple[_Jwk, ...] = Field(max_length=1000)


def agency_of(issuer: str) -> str:
    """Give the agency an issuer URI names; empty where it is no such URI."""
    found = _ISSUER.fullmatch(issuer)
    return found["agency"] if found else ""


def issuer_uri(zone: str, agency: str) -> str:
    """Write the URI of an agency as an issuer; raises `FailedPrecondition` KEY_INVALID."""
    uri = f"spiffe://{zone}/{agency}"
    if not agency_of(uri):
        raise FailedPrecondition(Reason.KEY_INVALID, "zone and agency do not make an issuer's URI")
    return uri


def read_set(data: bytes, name: str) -> tuple[str, tuple[PublishedKey, ...]]:
    """Read a published set: its issuer and keys; raises `FailedPrecondition` KEY_INVALID. `name` is for people."""
    try:
        if len(data) > LIMIT:
            raise ValueError("too large")
        raw = _Set.model_validate(strict.loads(data))
        for jwk in raw.keys:
            strict.decode(jwk.x)
    except ValidationError as error:
        raise _invalid(name, describe(error)) from None
    except ValueError as error:
        raise _invalid(name, str(error)) from None
    keys = tuple(_key(jwk) for jwk in raw.keys)
    if len({key.kid for key in keys}) != len(keys):
        raise _invalid(name, "a key id stands twice")
    return raw.issuer, keys


def write_set(issuer: str, keys: Iterable[PublishedKey]) -> bytes:
    """Write a set for publication."""
    raw = _Set(issuer=issuer, keys=tuple(_jwk(key) for key in keys))
    return raw.model_dump_json(exclude_none=True, indent=2).encode() + b"\n"


def _key(jwk: _Jwk) -> PublishedKey:
    return PublishedKey(
        kid=jwk.kid,
        x=jwk.x,
        active_from=moment(jwk.nbf),
        active_until=None if jwk.exp is None else moment(jwk.exp),
        revoked_at=moment(jwk.revoked.revoked_at) if jwk.revoked else None,
        revoked_reason=jwk.revoked.reason if jwk.revoked else "",
    )


def _jwk(key: PublishedKey) -> _Jwk:
    return _Jwk(
        kty="OKP",
        crv="Ed25519",
        x=key.x,
        kid=key.kid,
        nbf=seconds(key.active_from),
        exp=None if key.active_until is None else seconds(key.active_until),
        revoked=_Revoked(revoked_at=seconds(key.revoked_at), reason=key.revoked_reason) if key.revoked_at else None,
    )


def moment(numeric: int) -> dt.datetime:
    """Read a NumericDate (RFC 7519 section 2) that was checked to lie in range."""
    return dt.datetime.fromtimestamp(numeric, dt.UTC)


def seconds(at: dt.datetime) -> int:
    """Write a NumericDate, in whole seconds."""
    return int(at.timestamp())


def _invalid(name: str, what: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.KEY_INVALID, f"the published keys of {name} cannot be used:\n  {what}")


@dataclass(frozen=True, slots=True)
class _Agency:
    issuer: str
    keys: Mapping[str, PublishedKey]
    imported: dict[str, Key]


class PublishedKeys:
    """The published keys of agencies, from a folder that is read again whenever a file in it changes."""

    def __init__(self, folder: Path | None, texts: Mapping[str, bytes]) -> None:
        """See `load` and `of`."""
        self._folder = folder
        self._agencies = {agency: _parse(agency, data) for agency, data in texts.items()}
        self._files: dict[str, Followed[_Agency]] = {}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Use a folder of `AGENCY.jwks.json` files; raises `FailedPrecondition` where there is none, or one is bad."""
        if not folder.is_dir():
            raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"there is no folder of published keys {folder}")
        made = cls(folder, {})
        for agency in made.agencies():
            made.issuer(agency)
        return made

    @classmethod
    def of(cls, *sets: bytes) -> Self:
        """Use sets that are at hand; raises `FailedPrecondition` KEY_INVALID."""
        return cls(None, {agency_of(read_set(data, "a file")[0]): data for data in sets})

    def agencies(self) -> tuple[str, ...]:
        """Name the agencies that have published keys."""
        if self._folder is None:
            return tuple(sorted(self._agencies))
        names = (path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}"))
        return tuple(sorted(name for name in names if _LABEL.fullmatch(name)))

    def issuer(self, agency: str) -> str:
        """Give an agency's URI; empty for one without published keys. Raises `FailedPrecondition` KEY_INVALID."""
        found = self._agency(agency)
        return found.issuer if found else ""

    def keys(self, agency: str) -> tuple[PublishedKey, ...]:
        """Give all keys of an agency; none for a stranger. Raises `FailedPrecondition` KEY_INVALID."""
        found = self._agency(agency)
        return tuple(found.keys.values()) if found else ()

    def text(self, agency: str) -> str:
        """Write the published set of an agency; empty for a stranger. Raises `FailedPrecondition` KEY_INVALID."""
        found = self._agency(agency)
        return write_set(found.issuer, found.keys.values()).decode() if found else ""

    def find(self, agency: str, kid: str, at: dt.datetime) -> Key:
        """Find the key that verifies what an agency says it signed at a moment.

        Raises `PermissionDenied` KEY_UNKNOWN, KEY_REVOKED, KEY_NOT_YET_VALID or KEY_EXPIRED (not active at that
        moment), `FailedPrecondition` KEY_INVALID where what is published cannot be read.
        """
        found = self._agency(agency)
        key = found.keys.get(kid) if found else None
        if found is None or key is None:
            raise PermissionDenied(Reason.KEY_UNKNOWN, "its issuer has published no such key")
        if key.revoked_at is not None:
            raise PermissionDenied(Reason.KEY_REVOKED, "the key it was signed with was revoked", kid=kid)
        if at < key.active_from - SKEW:
            raise PermissionDenied(Reason.KEY_NOT_YET_VALID, "its key was not in use yet when it was signed", kid=kid)
        if key.active_until is not None and at > key.active_until + SKEW:
            raise PermissionDenied(Reason.KEY_EXPIRED, "its key was not in use any more when it was signed", kid=kid)
        return found.imported[kid]

    def _agency(self, agency: str) -> _Agency | None:
        if self._folder is None or not _LABEL.fullmatch(agency):
            return self._agencies.get(agency)
        file = self._files.get(agency)
        if file is None:
            file = Followed(self._folder / f"{agency}{SUFFIX}", LIMIT, partial(_parse, agency))
        try:
            found = file.read()
        except FileNotFoundError:
            self._files.pop(agency, None)
            return None
        except ValueError as error:
            raise _invalid(agency, str(error)) from None
        except OSError:
            raise _invalid(agency, "the file cannot be read") from None
        self._files[agency] = file
        return found


def _parse(agency: str, data: bytes) -> _Agency:
    issuer, keys = read_set(data, agency)
    if agency_of(issuer) != agency:
        raise _invalid(agency, "they name another issuer")
    try:
        imported: dict[str, Key] = {
            key.kid: OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": key.x}) for key in keys
        }
    except (JoseError, ValueError):
        raise _invalid(agency, "a key is none") from None
    return _Agency(issuer, {key.kid: key for key in keys}, imported)
