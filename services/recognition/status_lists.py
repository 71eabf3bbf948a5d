"""The status lists of the register: one row of lists for each issuer, an entry for each credential.

An entry is reserved before its credential is signed. Its place in the list is random, so that neighbours say nothing
of when, or for whom, they were issued; once a list has become crowded, the next one is begun.
"""

import datetime as dt
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from services.kit.credentials.results import Statement
from services.kit.credentials.status import Status
from services.kit.errors import InvalidArgument, NotFound, Reason, ResourceExhausted
from services.kit.records.inserts import insert_or_ignore
from services.recognition.tables import STATUS

SIZE: Final = 2**16
"""Entries of a list."""

_PREFIX: Final = "urn:hutong:status:"
_URI: Final = re.compile(
    re.escape(_PREFIX) + r"(?P<issuer>[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?):(?P<number>[1-9]\d{0,8})"
)
_REF: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{7,127}")
OPEN: Final = 1000
"""Most entries that an issuer may have reserved, within `OPEN_FOR`, and entered no result for: places that are lost."""
OPEN_FOR: Final = dt.timedelta(days=7)
"""How long an entry counts among those: what was not signed by then will not be, and whoever signs it still may."""

_TRIES: Final = 8
"""A list in which this many random places are taken is crowded: one that is half full in one of 256 reservations, one
of which nine tenths are taken in two of five."""


class State(StrEnum):
    """Whether a result stands."""

    VALID = "VALID"
    SUSPENDED = "SUSPENDED"
    REVOKED = "REVOKED"
    SUPERSEDED = "SUPERSEDED"


_STATUS: Final = {
    State.VALID: Status.VALID,
    State.REVOKED: Status.INVALID,
    State.SUSPENDED: Status.SUSPENDED,
    State.SUPERSEDED: Status.SUPERSEDED,
}


@dataclass(frozen=True, slots=True)
class Reserved:
    """An entry, as a credential names it."""

    uri: str
    index: int


def uri_of(issuer: str, number: int) -> str:
    """Write the URI of a list."""
    return f"{_PREFIX}{issuer}:{number}"


def read_uri(uri: str) -> tuple[str, int]:
    """Read the URI of a list: its issuer and number; raises `NotFound` with STATUS_LIST_INVALID."""
    found = _URI.fullmatch(uri)
    if not found:
        raise NotFound(Reason.STATUS_LIST_INVALID, "there is no such status list")
    return found["issuer"], int(found["number"])


def reserve(connection: sa.Connection, issuer: str, ref: str, now: dt.datetime) -> Reserved:
    """Reserve the entry of a result that will be signed; asked again for the same one, it gives the same entry.

    Raises `InvalidArgument`: RESULT_MALFORMED for what is no reference, RESULT_ID_REUSED for one of another issuer; and
    `ResourceExhausted` RESERVATIONS_TOO_MANY where the issuer reserves and enters nothing.
    """
    if not _REF.fullmatch(ref):
        raise InvalidArgument(Reason.RESULT_MALFORMED, "the reference of a result is a UUID of its own")
    if (known := entry(connection, ref)) is not None:
        return _own(known, issuer, ref)
    _check_open(connection, issuer, now)
    newest = sa.select(sa.func.max(STATUS.c.list)).where(STATUS.c.issuer == issuer)
    number = connection.execute(newest).scalar() or 1
    while True:
        for _ in range(_TRIES):
            index = secrets.randbelow(SIZE)
            if inserted(connection, STATUS, _row(issuer, number, index, ref, now)):
                return Reserved(uri_of(issuer, number), index)
            # The place is taken; or another asks for the same reference at this very moment.
            if (known := entry(connection, ref)) is not None:
                return _own(known, issuer, ref)
        number += 1


def _check_open(connection: sa.Connection, issuer: str, now: dt.datetime) -> None:
    still = sa.and_(STATUS.c.issuer == issuer, STATUS.c.entered_at.is_(None), STATUS.c.reserved_at > now - OPEN_FOR)
    some = sa.select(STATUS.c.index).where(still).limit(OPEN).subquery()
    if connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one() >= OPEN:
        raise ResourceExhausted(
            Reason.RESERVATIONS_TOO_MANY, f"{OPEN} entries are reserved already for results that were never handed in"
        )


def _row(issuer: str, number: int, index: int, ref: str, now: dt.datetime) -> dict[str, Any]:
    place = {"issuer": issuer, "list": number, "index": index}
    return place | {"result_ref": ref, "value": 0, "reserved_at": now, "entered_at": None}


def inserted(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Put a row in unless a unique index has it already; tells whether it was put in."""
    return bool(connection.execute(insert_or_ignore(connection, table).values(**row)).rowcount)


def _own(known: tuple[str, Reserved], issuer: str, ref: str) -> Reserved:
    if known[0] != issuer:
        raise InvalidArgument(Reason.RESULT_ID_REUSED, "this reference is another's already", result_ref=ref)
    return known[1]


def entry(connection: sa.Connection, ref: str) -> tuple[str, Reserved] | None:
    """Find the entry of a result, and whose it is."""
    select = sa.select(STATUS.c.issuer, STATUS.c.list, STATUS.c.index).where(STATUS.c.result_ref == ref)
    row = connection.execute(select).one_or_none()
    return None if row is None else (row[0], Reserved(uri_of(row[0], row[1]), row[2]))


def check(connection: sa.Connection, statement: Statement) -> None:
    """See that a credential names the entry that was reserved for it; raises `InvalidArgument` STATUS_LIST_INVALID."""
    named = (statement.issuer, Reserved(statement.status_uri, statement.status_index))
    if entry(connection, statement.ref) != named:
        message = "the credential does not name the entry of the status list that was reserved for it"
        raise InvalidArgument(Reason.STATUS_LIST_INVALID, message, result_ref=statement.ref)


def fill(connection: sa.Connection, ref: str, now: dt.datetime) -> None:
    """Note that the result that an entry was reserved for has been entered."""
    connection.execute(sa.update(STATUS).where(STATUS.c.result_ref == ref).values(entered_at=now))


def mark(connection: sa.Connection, ref: str, state: State) -> None:
    """Write a result's state into its entry."""
    update = sa.update(STATUS).where(STATUS.c.result_ref == ref)
    connection.execute(update.values(value=int(_STATUS[state])))


def values(connection: sa.Connection, uri: str) -> dict[int, int]:
    """Give the entries of a list that are not VALID, by index; raises `NotFound` where there is no such list."""
    issuer, number = read_uri(uri)
    here = sa.and_(STATUS.c.issuer == issuer, STATUS.c.list == number)
    select = sa.select(STATUS.c.index, STATUS.c.value).where(here, STATUS.c.value != 0)
    found = {row[0]: row[1] for row in connection.execute(select)}
    if not found and connection.execute(sa.select(STATUS.c.index).where(here).limit(1)).first() is None:
        raise NotFound(Reason.STATUS_LIST_INVALID, "there is no such status list")
    return found
