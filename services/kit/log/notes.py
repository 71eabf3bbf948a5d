"""Signed notes: a text with lines of signatures under it (C2SP signed-note, C2SP tlog-cosignature).

Two kinds of signatures are made and taken: Ed25519 over the text, and a witness's Ed25519 over the text and the time.
"""

import base64
import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Reason

MAX_BYTES: Final = 256 * 1024
"""Most bytes of a note."""

MAX_SIGNATURES: Final = 100
"""Most signatures of a note."""

MAX_NAME: Final = 255
"""Most characters of a key's name."""

_DASH: Final = "— "
_ID: Final = 4
_TIME: Final = 8
_ED25519: Final = 64
_PUBLIC: Final = 32
_SPACE: Final = re.compile(r"[\s+\x00-\x1f]")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_HEX: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)


class KeyType(IntEnum):
    """What a key signs, as it stands in key ids and verifier keys."""

    ED25519 = 0x01
    """The text."""
    COSIGNATURE = 0x04
    """That a witness saw the text at a time."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key as it is published."""

    name: str
    """Whose it is; of a log its origin."""
    type: KeyType
    public: bytes
    """The Ed25519 public key, 32 bytes."""

    @property
    def id(self) -> bytes:
        """Its short id, four bytes: with the name it tells which key a signature is of."""
        return sha256(f"{self.name}\n".encode() + bytes([self.type]) + self.public).digest()[:_ID]

    def __str__(self) -> str:
        """Write it for publication: `NAME+ID+BASE64`."""
        return f"{self.name}+{self.id.hex()}+{_encode(bytes([self.type]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a published key, without white space around it; raises `FailedPrecondition` KEY_INVALID."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _decode(encoded)
        if not _named(name) or not _HEX.fullmatch(key_id) or not data or len(data) != 1 + _PUBLIC:
            raise FailedPrecondition(Reason.KEY_INVALID, "not a verifier key: NAME+ID+BASE64")
        if data[0] not in set(KeyType):
            raise FailedPrecondition(Reason.KEY_INVALID, "a verifier key of a kind that is not taken here")
        made = cls(name, KeyType(data[0]), data[1:])
        if made.id.hex() != key_id:
            raise FailedPrecondition(Reason.KEY_INVALID, "the id of a verifier key does not fit")
        return made

    def cosigning(self) -> "VerifierKey":
        """Give the key by which the same private key co-signs."""
        return VerifierKey(self.name, KeyType.COSIGNATURE, self.public)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    """Of the key."""
    id: bytes
    """Of the key."""
    data: bytes
    """The signature; of a cosignature its time before it."""

    @property
    def line(self) -> str:
        """Its line, with the newline."""
        return f"{_DASH}{self.name} {_encode(self.id + self.data)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with signatures, none of which were verified yet."""

    text: str
    """Ends in a newline."""
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        """Write the whole note."""
        return f"{self.text}\n{''.join(one.line for one in self.signatures)}"

    def signed(self, *more: Signature) -> "Note":
        """Add signatures; one replaces an earlier one of the same key."""
        keys = {(one.name, one.id) for one in more}
        kept = (one for one in self.signatures if (one.name, one.id) not in keys)
        return Note(self.text, (*kept, *more))


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that is right, of a known key."""

    key: VerifierKey
    signature: Signature
    time: dt.datetime | None
    """When it was signed, of a cosignature."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs in a name, with one private key for both kinds of signatures."""

    name: str
    key: Ed25519PrivateKey = field(repr=False)
    verifier: VerifierKey = field(init=False, repr=False, compare=False)
    """The key that verifies what `sign` makes."""

    def __post_init__(self) -> None:
        """Raise `FailedPrecondition` KEY_INVALID for a name that no key can have."""
        if not _named(self.name):
            raise FailedPrecondition(Reason.KEY_INVALID, "a key's name has no spaces and no plus")
        verifier = VerifierKey(self.name, KeyType.ED25519, self.key.public_key().public_bytes_raw())
        object.__setattr__(self, "verifier", verifier)

    def sign(self, text: str) -> Signature:
        """Sign a text; raises `InvalidArgument` MALFORMED_REQUEST where no note can have it."""
        _check_text(text)
        return Signature(self.name, self.verifier.id, self.key.sign(text.encode()))

    def cosign(self, text: str, at: dt.datetime) -> Signature:
        """Sign that a checkpoint was seen, in whole seconds; raises as `sign` does."""
        _check_text(text)
        seconds = int(at.timestamp())
        signed = self.key.sign(_cosigned(text, seconds))
        return Signature(self.name, self.verifier.cosigning().id, seconds.to_bytes(_TIME, "big") + signed)


def parse(text: str) -> Note:
    """Read a note, trusting none of it; raises `InvalidArgument` MALFORMED_REQUEST."""
    # The text may have empty lines of its own: the last one parts it from the signatures.
    body, found, lines = text.rpartition("\n\n")
    if not found or not lines.endswith("\n"):
        raise _malformed("a text, an empty line, lines of signatures")
    body += "\n"
    _check_text(text)
    signatures = lines.removesuffix("\n").split("\n")
    if len(signatures) > MAX_SIGNATURES:
        raise _malformed("too many signatures")
    return Note(body, tuple(_signature(line) for line in signatures))


def parse_signature(line: str) -> Signature:
    """Read one line of a signature, with its newline; raises `InvalidArgument` MALFORMED_REQUEST."""
    if len(line) > MAX_BYTES or not line.endswith("\n"):
        raise _malformed("a signature is one line")
    return _signature(line.removesuffix("\n"))


def verify(note: Note, keys: Iterable[VerifierKey]) -> tuple[Verified, ...]:
    """Verify the signatures of known keys, at most one each; signatures of unknown keys mean nothing.

    Raises `PermissionDenied` LOG_TAMPERED where one of a known key is wrong, even beside a right one, and
    LOG_KEY_UNKNOWN where there is none of a known key at all.
    """
    known = {(key.name, key.id): key for key in keys}
    found: dict[VerifierKey, Verified] = {}
    for one in note.signatures:
        key = known.get((one.name, one.id))
        if key:
            time = _verify(note.text, one, key)
            found.setdefault(key, Verified(key, one, time))
    if not found:
        raise PermissionDenied(Reason.LOG_KEY_UNKNOWN, "the note has no signature of a known key")
    return tuple(found.values())


def _verify(text: str, one: Signature, key: VerifierKey) -> dt.datetime | None:
    """Verify one signature; gives the time of a cosignature."""
    time, data, message = None, one.data, text.encode()
    try:
        if key.type is KeyType.COSIGNATURE:
            seconds, data = int.from_bytes(data[:_TIME], "big"), data[_TIME:]
            time = _moment(seconds)
            message = _cosigned(text, seconds)
        if len(data) != _ED25519:
            raise ValueError
        Ed25519PublicKey.from_public_bytes(key.public).verify(data, message)
    except (InvalidSignature, ValueError):
        raise PermissionDenied(Reason.LOG_TAMPERED, "a signature of a known key does not fit the note") from None
    return time


def _moment(seconds: int) -> dt.datetime:
    """Read POSIX seconds; raises `ValueError` where no moment has them."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, OSError):
        raise ValueError from None


def _cosigned(text: str, seconds: int) -> bytes:
    """Write what a cosignature signs (C2SP tlog-cosignature)."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _signature(line: str) -> Signature:
    name, found, encoded = line.removeprefix(_DASH).partition(" ")
    data = _decode(encoded)
    if not line.startswith(_DASH) or not found or not _named(name) or not data or len(data) <= _ID:
        raise _malformed("a signature is a dash, a name and base64")
    return Signature(name, data[:_ID], data[_ID:])


def _named(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and not _SPACE.search(name)


def _check_text(text: str) -> None:
    if len(text) > MAX_BYTES or not text.endswith("\n") or _CONTROL.search(text):
        raise _malformed("text of bounded length, in lines, without control characters")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _malformed("it is no UTF-8") from None
    if size > MAX_BYTES:
        raise _malformed("too large")


def _malformed(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, f"not a signed note: {what}")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes | None:
    """Read base64 in the one way it can be written."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if _encode(data) == text else None
