"""Signing keys of an agency: kept in private, published, replaced without losing what they signed.

A key signs from a moment on until its successor takes over; what it signed in that time stays verifiable. A revoked
key verifies nothing any more, whatever a token says of its own time, and its private half is destroyed.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_IRWXO
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from certs.files import PUBLIC, locked, make_folder, write_atomically
from services.kit.credentials import strict
from services.kit.credentials.published import (
    SKEW,
    SUFFIX,
    KeyState,
    PublishedKey,
    PublishedKeys,
    agency_of,
    moment,
    read_set,
    seconds,
    write_set,
)
from services.kit.credentials.signed import Key
from services.kit.errors import FailedPrecondition, NotFound, Reason

__all__ = ["KeyState", "PublishedKey", "PublishedKeys", "SigningKey", "SigningKeys"]

_REGISTER: Final = "published.jwks.json"
_LOCK: Final = ".lock"
_NO_TIME: Final = dt.timedelta()

_Keys = tuple[PublishedKey, ...]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key to sign with now."""

    issuer: str
    kid: str
    key: Key = field(repr=False)


class SigningKeys:
    """One agency's signing keys in a folder of their own; several processes may use it at once."""

    def __init__(self, folder: Path, issuer: str) -> None:
        """See `create` and `open`."""
        self._folder = folder
        self.issuer = issuer
        """The agency's URI, `spiffe://ZONE/AGENCY`."""
        self.agency = agency_of(issuer)

    @classmethod
    def create(cls, folder: Path, issuer: str, now: dt.datetime) -> Self:
        """Make the folder with a first key; raises `FailedPrecondition` where it holds keys already."""
        if not agency_of(issuer):
            raise FailedPrecondition(Reason.KEY_INVALID, "an issuer is written spiffe://ZONE/AGENCY")
        make_folder(folder)
        folder.chmod(0o700)
        made = cls(folder, issuer)
        with locked(folder / _LOCK):
            if made._register.exists():
                raise FailedPrecondition(Reason.FOLDER_NOT_EMPTY, f"{folder} holds signing keys already")
            made._write((made._generate(now),))
        return made

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Use the keys of a folder; raises `FailedPrecondition` CONFIG_FILE_MISSING or KEY_INVALID."""
        register = folder / _REGISTER
        if not register.is_file():
            raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"{folder} holds no signing keys")
        return cls(folder, read_set(register.read_bytes(), str(register))[0])

    @property
    def _register(self) -> Path:
        return self._folder / _REGISTER

    def listed(self) -> tuple[PublishedKey, ...]:
        """List all keys there ever were, the oldest first."""
        return read_set(self._register.read_bytes(), self.agency)[1]

    def active(self, now: dt.datetime) -> SigningKey:
        """Give the key to sign with; raises `FailedPrecondition` KEY_EXPIRED where there is none, or KEY_INVALID.

        Around a rotation the clocks of two machines may disagree on whose turn it is: within what verifiers forgive,
        the key that is there is used.
        """
        standing = [key for key in self.listed() if key.revoked_at is None]
        active = [key for key in standing if key.state(now) is KeyState.ACTIVE]
        near = [key for key in standing if key not in active and key.state(now + SKEW) is KeyState.ACTIVE]
        newest_first = (sorted(some, key=lambda key: key.active_from, reverse=True) for some in (active, near))
        candidates = [key for some in newest_first for key in some]
        if not candidates:
            raise FailedPrecondition(Reason.KEY_EXPIRED, f"{self.agency} has no active signing key")
        chosen = next((key for key in candidates if self._file(key.kid).exists()), candidates[0])
        return SigningKey(self.issuer, chosen.kid, self._private(chosen))

    def rotate(self, now: dt.datetime, lead: dt.timedelta = _NO_TIME) -> str:
        """Make a successor that takes over after `lead`, in which everyone can learn of it; gives its id.

        What the present keys signed stays verifiable. Private keys that sign no more are destroyed.
        """
        start = moment(seconds(now + lead))

        def change(keys: _Keys) -> _Keys:
            ending = (KeyState.ACTIVE, KeyState.PLANNED)
            return (
                *(_ended(key, start) if key.state(now) in ending else key for key in keys),
                self._generate(start),
            )

        return self._change(now, change)[-1].kid

    def retire(self, kid: str, now: dt.datetime) -> None:
        """Let a key sign no more, without a successor; raises `NotFound` KEY_UNKNOWN."""
        self._replace(kid, now, lambda key: _ended(key, moment(seconds(now))))

    def revoke(self, kid: str, now: dt.datetime, reason: str) -> None:
        """Let nothing that a key signed be believed any more; raises `NotFound` KEY_UNKNOWN.

        `reason` is a machine code, and published. It stays revoked: a second call changes nothing.
        """
        self._replace(
            kid,
            now,
            lambda key: key if key.revoked_at else replace(key, revoked_at=moment(seconds(now)), revoked_reason=reason),
        )

    def published(self) -> str:
        """Write the JWK set for publication."""
        return self._register.read_text(encoding="utf-8")

    def publish(self, folder: Path) -> Path:
        """Put the JWK set into a folder of published keys; gives the file."""
        make_folder(folder)
        path = folder / f"{self.agency}{SUFFIX}"
        with locked(self._folder / _LOCK):
            write_atomically(path, self._register.read_bytes(), PUBLIC)
        return path

    def _replace(self, kid: str, now: dt.datetime, change: Callable[[PublishedKey], PublishedKey]) -> None:
        def changed(keys: _Keys) -> _Keys:
            if kid not in {key.kid for key in keys}:
                raise NotFound(Reason.KEY_UNKNOWN, f"{self.agency} has no key of that id", kid=kid)
            return tuple(change(key) if key.kid == kid else key for key in keys)

        self._change(now, changed)

    def _change(self, now: dt.datetime, change: Callable[[_Keys], _Keys]) -> _Keys:
        with locked(self._folder / _LOCK):
            keys = change(self.listed())
            self._write(keys)
            for key in keys:
                if key.state(now) in {KeyState.RETIRED, KeyState.REVOKED}:
                    self._file(key.kid).unlink(missing_ok=True)
        return keys

    def _write(self, keys: _Keys) -> None:
        write_atomically(self._register, write_set(self.issuer, keys), PUBLIC)

    def _file(self, kid: str) -> Path:
        return self._folder / f"{kid}.private.jwk.json"

    def _generate(self, start: dt.datetime) -> PublishedKey:
        key = OKPKey.generate_key("Ed25519")
        while not (kid := key.thumbprint())[0].isalnum():
            # A name that begins with a hyphen would be an option on every command line.
            key = OKPKey.generate_key("Ed25519")
        raw = key.as_dict(private=True)
        # Before the register: a crash between the two leaves a key that nobody uses, not one that cannot sign.
        write_atomically(self._file(kid), strict.dumps({**raw, "kid": kid}))
        return PublishedKey(kid, str(raw["x"]), moment(seconds(start)))

    def _private(self, published: PublishedKey) -> Key:
        file = self._file(published.kid)
        try:
            exposed = file.stat().st_mode & S_IRWXO
            raw = strict.loads(file.read_bytes())
            public = Ed25519PrivateKey.from_private_bytes(strict.decode(raw["d"])).public_key()
            # With another's private key nothing would be signed that anyone could verify.
            if strict.encode(public.public_bytes_raw()) != published.x:
                raise ValueError
            key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": published.x, "d": raw["d"]})
        except (OSError, JoseError, ValueError, KeyError, TypeError, AttributeError):
            raise FailedPrecondition(
                Reason.KEY_INVALID, f"the private key of {self.agency} cannot be used", kid=published.kid
            ) from None
        if exposed:
            message = f"the private key of {self.agency} is open to every user of this machine; chmod 600 its file"
            raise FailedPrecondition(Reason.KEY_INVALID, message, kid=published.kid)
        return key


def _ended(key: PublishedKey, end: dt.datetime) -> PublishedKey:
    return replace(key, active_until=end if key.active_until is None else min(end, key.active_until))
