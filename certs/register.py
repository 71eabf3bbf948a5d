"""The authority's register: every certificate issued and every revocation, one JSON object a line.

The register is the truth from which the revocation list is made. A line is appended and synced before what it tells of
is seen by anybody. Where a crash leaves part of a line, it is passed over, and cut when the next one is written.

So that no command has to read all that ever was, what ended long ago is moved to the archive of the year in which it
was issued, `issued-2026.jsonl` beside `issued.jsonl`. The last certificate of each system stays, whatever became of it:
who was revoked years ago is not renewed today.
"""

import contextlib
import dataclasses
import datetime as dt
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from certs.errors import CertificateError, RevocationRefused, SvidUnknown, ZoneDamaged
from certs.files import append_at, write_atomically
from certs.spiffe import SpiffeId
from certs.standing import FIRST, Name

MIN_PREFIX = 8
"""Hex digits of a serial that name it on the command line, when no other begins with them."""

KEPT: Final = dt.timedelta(days=30)
"""How long what ended is kept in the register itself, for those who ask what was of late."""

_TOGETHER: Final = dt.timedelta(days=1)
"""What is archived is archived in batches of this length, since the register is rewritten for it."""
_BEGINNING: Final = b'{"event":"'
"""Of every line."""
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


_State = tuple[int, int, int]
"""Inode, time of the last change and size of a file: whatever changes it changes one of these."""


@dataclass(slots=True)
class _Read:
    """What was read of a file of the register, as of its `state`."""

    state: _State
    end: int
    """Bytes up to the end of its last line that is whole."""
    gap: bytes
    """What that line lacks at its end."""
    entries: dict[int, Issued] = field(default_factory=dict[int, Issued])
    latest: dict[SpiffeId, int] = field(default_factory=dict[SpiffeId, int])

    def take(self, line: _IssuedLine | _RevokedLine) -> None:
        """Enter what a line says; raises `CertificateError` where it cannot be so."""
        serial = int(line.serial, 16)
        match line:
            case _IssuedLine():
                spiffe_id = SpiffeId.parse(line.spiffe_id)
                if (before := self.latest.get(spiffe_id)) is not None:
                    self.entries[before] = dataclasses.replace(self.entries[before], replaced=True)
                self.entries[serial] = Issued(
                    serial, spiffe_id, line.not_before, line.not_after, line.issued_at, line.authority
                )
                self.latest[spiffe_id] = serial
            case _RevokedLine():
                if serial not in self.entries:
                    raise ZoneDamaged("it revokes a serial that was never issued")
                self.entries[serial] = dataclasses.replace(
                    self.entries[serial], revoked_at=line.at, revocation_reason=line.reason
                )


class Register:
    """The register file at `path` and its archives beside it; the authority holds its lock while it writes.

    It is read when it is first asked, and again only where somebody else has written since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: _Read | None = None

    @property
    def archives(self) -> tuple[Path, ...]:
        """The archives that there are, one for each year of issue, oldest first."""
        return tuple(sorted(self.path.parent.glob(f"{self.path.stem}-[0-9][0-9][0-9][0-9]{self.path.suffix}")))

    def entries(self) -> tuple[Issued, ...]:
        """Give every certificate that is not archived, oldest first; the last one of each system is among them.

        Raises `ZoneDamaged` naming the line that cannot be read.
        """
        return tuple(self._read().entries.values())

    def everything(self) -> tuple[Issued, ...]:
        """Give every certificate there ever was, oldest first, reading the archives too; raises as `entries`."""
        # The register before its archives: what is moved meanwhile is met twice, and not missed.
        current = {entry.serial: entry for entry in self.entries()}
        archived: dict[int, Issued] = {}
        for path in self.archives:
            archived |= _read(path).entries
        archived = {serial: dataclasses.replace(entry, replaced=True) for serial, entry in archived.items()}
        return tuple((archived | current).values())

    def find(self, wanted: str) -> tuple[Issued, ...]:
        """Find what a person means: a SPIFFE ID (all its certificates), or a serial or the beginning of one.

        Raises `SvidUnknown` when nothing fits, `RevocationRefused` when a beginning fits several, or one that is
        archived.
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
            if not found and len(digits) >= MIN_PREFIX:
                self._refuse_archived(digits)
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
        """Append revocations; where a power cut leaves some of them, revoking again adds the others."""
        self._append(*(_RevokedLine(serial=serial_text(serial), at=at, reason=reason) for serial in serials))

    def archive(self, now: dt.datetime) -> None:
        """Move what ended more than `KEPT` ago to the archive of its year, once a day's worth has come together.

        The archive is written before the register: whatever stops it, each line is in one of them, and one that is in
        both is moved, not copied, the next time. Raises `ZoneDamaged` where either cannot be read.
        """
        known = self._read()
        years = {entry.serial: entry.issued_at.astimezone(dt.UTC).year for entry in _long_over(self.entries(), now)}
        if not years:
            return
        kept: list[bytes] = []
        moved: dict[int, list[bytes]] = {}
        for line in (self.path.read_bytes()[: known.end] + known.gap).splitlines(keepends=True):
            year = years.get(int(json.loads(line)["serial"], 16))
            (kept if year is None else moved.setdefault(year, [])).append(line)
        for year, lines in moved.items():
            _add_missing(self.path.with_name(f"{self.path.stem}-{year:04}{self.path.suffix}"), lines)
        self._known = None
        whole = b"".join(kept)
        write_atomically(self.path, whole)
        entries = {serial: entry for serial, entry in known.entries.items() if serial not in years}
        self._known = _Read(_state(self.path), len(whole), b"", entries, known.latest)

    def _refuse_archived(self, digits: str) -> None:
        wanted = f'"serial":"{digits}'.encode(errors="replace")
        for path in self.archives:
            with path.open("rb") as lines:
                if any(wanted in line for line in lines):
                    raise RevocationRefused(
                        f"certificate {digits} ended more than {KEPT.days} days ago, says {path}",
                        "nobody accepts it any more: there is nothing to revoke; see `hutong certs list --all`",
                    )

    def _append(self, *lines: _IssuedLine | _RevokedLine) -> None:
        known = self._read()
        data = known.gap + b"".join(line.model_dump_json().encode() + b"\n" for line in lines)
        self._known = None
        append_at(self.path, known.end, data)
        for line in lines:
            known.take(line)
        known.state, known.end, known.gap = _state(self.path), known.end + len(data), b""
        self._known = known

    def _read(self) -> _Read:
        try:
            if self._known is None or self._known.state != _state(self.path):
                self._known = _read(self.path)
        except OSError as error:
            # Starting an empty one here would forget every revocation.
            raise ZoneDamaged(f"register {self.path} cannot be read: {error.strerror}", _RESTORE) from error
        return self._known


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_ino, status.st_ctime_ns, status.st_size


def _read(path: Path) -> _Read:
    """Read a file of the register; raises `ZoneDamaged` naming the line that cannot be read, `OSError`."""
    # The state before the bytes: what comes between is read again the next time, and not passed over.
    state, data = _state(path), path.read_bytes()
    end, gap = _whole(path, data)
    found = _Read(state, end, gap)
    for number, text in enumerate(data[:end].splitlines(), start=1):
        try:
            found.take(_LINE.validate_json(text))
        except ValidationError as error:
            raise ZoneDamaged(f"{path} line {number} cannot be read: {error.errors()[0]['msg']}", _RESTORE) from error
        except CertificateError as error:
            raise ZoneDamaged(f"{path} line {number}: {error}", _RESTORE) from error
    return found


def _whole(path: Path, data: bytes) -> tuple[int, bytes]:
    """Tell how many bytes are whole lines, and what the last of them lacks at its end.

    A line whose writer was stopped in the middle does not count: nobody was told that it was written. Raises
    `ZoneDamaged` where the end of the file is no beginning of a line.
    """
    end = data.rfind(b"\n") + 1
    # What was not written before a power cut may read as zeros.
    rest = data[end:].rstrip(b"\0")
    if not rest:
        return end, b""
    with contextlib.suppress(ValidationError):
        _LINE.validate_json(rest)
        return end + len(rest), b"\n"
    if not rest.startswith(_BEGINNING[: len(rest)]):
        raise ZoneDamaged(f"{path} does not end with a line that can be read", _RESTORE)
    return end, b""


def _add_missing(path: Path, lines: list[bytes]) -> None:
    """Add those lines to an archive that are not in it, from a time when moving them was stopped half way."""
    if not path.exists():
        write_atomically(path, b"".join(lines))
        return
    missing = dict.fromkeys(lines)
    end, last = 0, b""
    with path.open("rb") as there:
        for last in there:
            missing.pop(last, None)
            end += len(last)
    whole, gap = _whole(path, last)
    missing.pop(last[:whole] + gap, None)
    if missing or gap:
        append_at(path, end - len(last) + whole, gap + b"".join(missing))


def _long_over(entries: tuple[Issued, ...], now: dt.datetime) -> tuple[Issued, ...]:
    """Choose what is to be archived: all that was replaced and ended long ago, where that is more than a day's worth.

    Its end is not only what the clock says: a certificate that was issued after it must itself have ended `KEPT` ago.
    So a clock that is wrong for less than that moves nothing that could be used, or revoked, when it is right again.
    """
    proof = max((entry.issued_at for entry in entries if entry.not_after < now - KEPT), default=None)
    if proof is None:
        return ()
    over = tuple(entry for entry in entries if entry.replaced and entry.not_after < proof)
    return over if any(entry.not_after < proof - _TOGETHER for entry in over) else ()


def serial_text(serial: int) -> str:
    """Write a serial as people and registers do: hexadecimal, whole octets, lower case."""
    digits = f"{serial:x}"
    return digits.zfill(len(digits) + len(digits) % 2)
