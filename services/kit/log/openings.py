"""What an entry commits to, and the salt it does so with: kept beside the log, so that it can be forgotten.

A commitment is a SHA-256 of the entry's salt and the text. Who has the opening can check it; who has not, learns
nothing from it, not even by trying every value there could be, since the salt is 128 bits of chance. Dropping the salt
is what erases.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2
from services.kit import wire
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.tables import TEXT_LIMIT

SALT_BYTES: Final = 16
"""Size of a salt: 128 bits."""

MAX_SUBJECTS: Final = 256
"""Most subjects an entry commits to."""

_DRAWN: Final = 128
"""Salts drawn from the system at once: asking it costs more than what it gives."""
_drawn: Final[list[bytes]] = []
# A salt is used once: a process that was forked off does not go on with those of its parent.
os.register_at_fork(after_in_child=_drawn.clear)

_SALT: Final = bytes((log_pb2.Opening.SALT_FIELD_NUMBER << 3 | 2, SALT_BYTES))
"""What stands before the salt in a serialized opening."""
_CASE, _BEHALF, _SUBJECT = (
    bytes((number << 3 | 2, sha256().digest_size))
    for number in (
        log_pb2.LogEntry.CASE_COMMITMENT_FIELD_NUMBER,
        log_pb2.LogEntry.BEHALF_COMMITMENT_FIELD_NUMBER,
        log_pb2.LogEntry.SUBJECT_COMMITMENTS_FIELD_NUMBER,
    )
)
"""What stands before each commitment in a serialized entry."""

Subject = tuple[str, str]
"""Scheme and value of whom something is about, for example `("uscc", "91350200…")`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Something to be logged: an entry without time and commitments, and what it is to commit to."""

    entry: log_pb2.LogEntry
    """`seal` fills in the commitments: whoever made it leaves it alone from then on."""
    subjects: tuple[Subject, ...] = ()
    """Whom it is about, the most important first. The first 256 are committed to; all of them can find the entry."""
    case_ref: str = ""
    on_behalf_of: str = ""


class Sealed(NamedTuple):
    """An entry whose commitments stand: what is left to fill in is known when it is written."""

    entry: bytes
    """Serialized, each field once and in their order, without the time, which is the first."""
    opening: bytes = b""
    """A serialized `Opening`; empty where there is nothing to open."""
    subjects: tuple[Subject, ...] = ()
    """By whom the entry can be found."""
    answer_salt: bytes = b""
    """For the receipt: salt of the answer's digest. It is kept nowhere."""


class Committed(NamedTuple):
    """What is committed to under one salt."""

    opening: bytes = b""
    """A serialized `Opening`."""
    stated: bytes = b""
    """The entry's commitments to what was stated, the case and on whose behalf: fields 7 and 8, serialized."""
    subjects: bytes = b""
    """Its commitments to subjects: field 13, serialized."""


_NOTHING: Final = Committed()


def new_salt() -> bytes:
    """Draw a salt; usable from several threads."""
    try:
        return _drawn.pop()
    except IndexError:
        drawn = os.urandom(_DRAWN * SALT_BYTES)
        _drawn.extend(drawn[at : at + SALT_BYTES] for at in range(SALT_BYTES, len(drawn), SALT_BYTES))
        return drawn[:SALT_BYTES]


def commit(subjects: Sequence[Subject], case_ref: str = "", on_behalf_of: str = "") -> Committed:
    """Commit to whom an entry is about and to what was stated, with a new salt; no subject is named twice."""
    if not (subjects or case_ref or on_behalf_of):
        return _NOTHING
    salt = new_salt()
    opening, commitments = _SALT + salt, b""
    for scheme, value in subjects[:MAX_SUBJECTS]:
        text = f"{scheme}:{value}".encode()
        opening += wire.embedded(2, text)
        commitments += _SUBJECT + sha256(salt + text).digest()
    stated = b""
    if case_ref:
        opening += wire.embedded(3, case_ref.encode())
        stated = _CASE + commitment(salt, f"case:{case_ref}")
    if on_behalf_of:
        opening += wire.embedded(4, on_behalf_of.encode())
        stated += _BEHALF + commitment(salt, f"behalf:{on_behalf_of}")
    return Committed(opening, stated, commitments)


def seal(draft: Draft) -> Sealed:
    """Make the commitments of a draft."""
    entry, subjects = draft.entry, tuple(dict.fromkeys(draft.subjects))
    committed = commit(subjects, draft.case_ref, draft.on_behalf_of)
    for name in ("time", "case_commitment", "behalf_commitment", "subject_commitments"):
        entry.ClearField(name)
    entry.MergeFromString(committed.stated + committed.subjects)
    return Sealed(entry.SerializeToString(deterministic=True), committed.opening, findable(subjects))


def findable(subjects: tuple[Subject, ...]) -> tuple[Subject, ...]:
    """Leave out whom no index can hold.

    That names nobody: it is the garbage of a question that was refused, and committed to as it is.
    """
    return tuple([(scheme, value) for scheme, value in subjects if _fits(scheme) and _fits(value)])


def _fits(text: str) -> bool:
    return 0 < len(text.encode()) <= TEXT_LIMIT and "\0" not in text


def commitment(salt: bytes, text: str) -> bytes:
    """Commit to a text: `scheme:value` of a subject, or one with a prefix of its own."""
    return sha256(salt + text.encode()).digest()


def commitments_to_subjects(opening: log_pb2.Opening) -> list[bytes]:
    """Compute what an entry must have as `subject_commitments`."""
    return [commitment(opening.salt, subject) for subject in opening.subjects]


def case_commitment(opening: log_pb2.Opening) -> bytes:
    """Compute what an entry must have as `case_commitment`; empty where no case was stated."""
    return commitment(opening.salt, f"case:{opening.case_ref}") if opening.case_ref else b""


def behalf_commitment(opening: log_pb2.Opening) -> bytes:
    """Compute what an entry must have as `behalf_commitment`; empty where nothing was stated."""
    return commitment(opening.salt, f"behalf:{opening.on_behalf_of}") if opening.on_behalf_of else b""


def check_opening(entry: log_pb2.LogEntry, opening: log_pb2.Opening) -> None:
    """Check that an opening is what an entry commits to; raises `FailedPrecondition` LOG_TAMPERED where it is not."""
    claimed = [*commitments_to_subjects(opening), case_commitment(opening), behalf_commitment(opening)]
    logged = [*entry.subject_commitments, entry.case_commitment, entry.behalf_commitment]
    if len(opening.salt) != SALT_BYTES or claimed != logged:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the entry commits to something else")


def read_opening(data: bytes) -> log_pb2.Opening:
    """Read a stored opening; raises `FailedPrecondition` LOG_TAMPERED where it is none."""
    try:
        return log_pb2.Opening.FromString(data)
    except DecodeError:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "a stored opening is none") from None
