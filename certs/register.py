"""The authority's register: every certificate issued and every revocation, one JSON object a line, never rewritten.

The register is the truth from which the revocation list is made. It is read whole (a zone issues tens of certificates
a day) and replaced whole on each append, so that a crash leaves either the old or the new one.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from certs.errors import CertificateError, RevocationRefused, SvidUnknown, ZoneDamaged
from certs.files import write_atomically
from certs.spiffe import SpiffeId
from certs.standing import FIRST, Name

MIN_PREFIX = 8
"""Hex digits of a serial that name it on the command line, when no other begins with them."""

_RESTORE = "restore the register from its last backup: revocations are kept in it"


class State(StrEnum):
    """What has become of a certificate."""

    VALID = "valid"
    EXPIRED = "expired"
    REPLACED = "replaced"
    REVOKED = "revoked"


class RevocationReason(StrEnum):
    """Why a certificate was revoked: the names of RFC 5280 §5.3.1 that make sense for a system."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"
    PRIVILEGE_WITHDRAWN = "privilege-withdrawn"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate of the register."""

    serial: int
    spiffe_id: SpiffeId
    not_before: dt.datetime
    not_after: dt.datetime
    issued_at: dt.datetime
    authority: str = FIRST
    """Which of the zone's authorities issued it."""
    replaced: bool = False
    revoked_at: dt.datetime | None = None
    revocation_reason: RevocationReason | None = None

    @property
    def ttl(self) -> dt.timedelta:
        """The lifetime that was asked for."""
        return self.not_after - self.issued_at

    @property
    def serial_text(self) -> str:
        """The serial as openssl prints it, in lower case."""
        return serial_text(self.serial)

    def state(self, now: dt.datetime) -> State:
        """Say what has become of the certificate at `now`."""
        if self.revoked_at is not None:
            return State.REVOKED
        if now > self.not_after:
            return State.EXPIRED
        if self.replaced:
            return State.REPLACED
        return State.VALID


class _IssuedLine(BaseModel):
    """A line that tells of an issue."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["issued"] = "issued"
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    spiffe_id: str
    not_before: AwareDatetime
    not_after: AwareDatetime
    issued_at: AwareDatetime
    authority: Name = FIRST


class _RevokedLine(BaseModel):
    """A line that tells of a revocation."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["revoked"] = "revoked"
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    at: AwareDatetime
    reason: RevocationReason


_LINE: TypeAdapter[_IssuedLine | _RevokedLine] = TypeAdapter(
    Annotated[_IssuedLine | _RevokedLine, Field(discriminator="event")]
)


@dataclass(frozen=True, slots=True)
class Register:
    """The register file at `path`; the authority holds its lock while it appends."""

    path: Path

    def entries(self) -> tuple[Issued, ...]:
        """Read every certificate, oldest first. Raises `ZoneDamaged` naming the line that cannot be read."""
        entries: dict[int, Issued] = {}
        latest: dict[SpiffeId, int] = {}
        for number, line in self._lines():
            match line:
                case _IssuedLine():
                    issued = self._issued(number, line)
                    if (before := latest.get(issued.spiffe_id)) is not None:
                        entries[before] = dataclasses.replace(entries[before], replaced=True)
                    entries[issued.serial] = issued
                    latest[issued.spiffe_id] = issued.serial
                case _RevokedLine():
                    serial = int(line.serial, 16)
                    if serial not in entries:
                        raise ZoneDamaged(f"{self.path} line {number} revokes a serial that was never issued")
                    entries[serial] = dataclasses.replace(
                        entries[serial], revoked_at=line.at, revocation_reason=line.reason
                    )
        return tuple(entries.values())

    def find(self, wanted: str) -> tuple[Issued, ...]:
        """Find what a person means: a SPIFFE ID (all its certificates), or a serial or the beginning of one.

        Raises `SvidUnknown` when nothing fits, `RevocationRefused` when a beginning fits several.
        """
        entries = self.entries()
        if wanted.startswith("spiffe:"):
            found = tuple(entry for entry in entries if str(entry.spiffe_id) == wanted)
        else:
            digits = wanted.lower().replace(":", "")
            found = tuple(
                entry
                for entry in entries
                if entry.serial_text == digits or (len(digits) >= MIN_PREFIX and entry.serial_text.startswith(digits))
            )
            if len(found) > 1:
                raise RevocationRefused(f"{len(found)} serials begin with {digits}", "give more digits of the serial")
        if not found:
            raise SvidUnknown(
                f"no certificate {wanted[:100]!a} was issued by this zone",
                f"`hutong certs list` shows what was; a serial needs at least its first {MIN_PREFIX} digits",
            )
        return found

    def add_issued(self, entry: Issued) -> None:
        """Append an issue."""
        self._append(
            _IssuedLine(
                serial=entry.serial_text,
                spiffe_id=str(entry.spiffe_id),
                not_before=entry.not_before,
                not_after=entry.not_after,
                issued_at=entry.issued_at,
                authority=entry.authority,
            )
        )

    def add_revoked(self, serials: tuple[int, ...], at: dt.datetime, reason: RevocationReason) -> None:
        """Append revocations, all or none."""
        self._append(*(_RevokedLine(serial=serial_text(serial), at=at, reason=reason) for serial in serials))

    def _append(self, *lines: BaseModel) -> None:
        write_atomically(self.path, self._bytes() + b"".join(line.model_dump_json().encode() + b"\n" for line in lines))

    def _lines(self) -> Iterator[tuple[int, _IssuedLine | _RevokedLine]]:
        for number, text in enumerate(self._bytes().splitlines(), start=1):
            try:
                yield number, _LINE.validate_json(text)
            except ValidationError as error:
                raise ZoneDamaged(
                    f"{self.path} line {number} cannot be read: {error.errors()[0]['msg']}",
                    _RESTORE,
                ) from error

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            # Starting an empty one here would forget every revocation.
            raise ZoneDamaged(f"register {self.path} cannot be read: {error.strerror}", _RESTORE) from error

    def _issued(self, number: int, line: _IssuedLine) -> Issued:
        try:
            spiffe_id = SpiffeId.parse(line.spiffe_id)
        except CertificateError as error:
            raise ZoneDamaged(f"{self.path} line {number}: {error}") from error
        return Issued(int(line.serial, 16), spiffe_id, line.not_before, line.not_after, line.issued_at, line.authority)


def serial_text(serial: int) -> str:
    """Write a serial as people and registers do: hexadecimal, whole octets, lower case."""
    digits = f"{serial:x}"
    return digits.zfill(len(digits) + len(digits) % 2)
