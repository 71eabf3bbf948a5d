"""What an entry commits to, and the salt it does so with: kept beside the log, so that it can be forgotten.

A commitment is a SHA-256 of the entry's salt and the text. Who has the opening can check it; who has not, learns
nothing from it, not even by trying every value there could be, since the salt is 128 bits of chance. Dropping the salt
is what erases.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.tables import TEXT_LIMIT

SALT_BYTES: Final = 16
"""Size of a salt: 128 bits."""

MAX_SUBJECTS: Final = 256
"""Most subjects an entry commits to."""

Subject = tuple[str, str]
"""Scheme and value of whom something is about, for example `("uscc", "91350200…")`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Something to be logged: an entry without time and commitments, and what it is to commit to."""

    entry: log_pb2.LogEntry
    """The log fills in the rest and keeps the message: whoever made it leaves it alone from then on."""
    subjects: tuple[Subject, ...] = ()
    """Whom it is about, the most important first. The first 256 are committed to; all of them can find the entry."""
    case_ref: str = ""
    on_behalf_of: str = ""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A draft whose commitments stand: what is left to fill in is known when it is written."""

    entry: log_pb2.LogEntry
    opening: bytes
    """A serialized `Opening`; empty where there is nothing to open."""
    subjects: tuple[Subject, ...]
    """By whom the entry can be found."""


def seal(draft: Draft) -> Sealed:
    """Make the commitments of a draft, with a new salt."""
    entry = draft.entry
    subjects = tuple(dict.fromkeys(draft.subjects))
    if not (subjects or draft.case_ref or draft.on_behalf_of):
        return Sealed(entry, b"", ())
    opening = log_pb2.Opening(
        salt=secrets.token_bytes(SALT_BYTES),
        subjects=[f"{scheme}:{value}" for scheme, value in subjects[:MAX_SUBJECTS]],
        case_ref=draft.case_ref,
        on_behalf_of=draft.on_behalf_of,
    )
    entry.ClearField("subject_commitments")
    entry.subject_commitments.extend(commitments_to_subjects(opening))
    entry.case_commitment, entry.behalf_commitment = case_commitment(opening), behalf_commitment(opening)
    return Sealed(entry, opening.SerializeToString(), tuple(filter(_findable, subjects)))


def _findable(subject: Subject) -> bool:
    # What no index can hold names nobody: it is the garbage of a question that was refused, and committed to as it is.
    return all(0 < len(part.encode()) <= TEXT_LIMIT and "\0" not in part for part in subject)


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
