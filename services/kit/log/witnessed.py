"""What a witness remembers of each log, and how it judges what it is shown: one transaction, under that log's lock.

Three things convict a log of two histories. Two heads of one size with different roots do, and so does a consistency
proof that leads to the new root and gives another old one than was signed: whoever shows these, they cannot be made
without the log's key. A proof that is simply wrong convicts the log only where its own node shows it; anybody else may
have made it up.
"""

import datetime as dt
from dataclasses import dataclass
from enum import Enum
from typing import Final

import sqlalchemy as sa

from services.kit.errors import FailedPrecondition
from services.kit.log import merkle
from services.kit.log.checkpoint import Checkpoint
from services.kit.log.merkle import EMPTY_ROOT
from services.kit.log.tables import EVIDENCE, WITNESSED
from services.kit.records.inserts import insert_or_ignore

MAX_EVIDENCE: Final = 100
"""Most pieces of evidence that are kept against one log: the first convicts it, and the rest must not fill the disk."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint that its log has signed, as somebody shows it."""

    checkpoint: Checkpoint
    note: str
    """The note, with the log's signature and no other."""
    old_size: int
    """What the witness is at, as the caller believes."""
    proof: tuple[bytes, ...]
    caller: str
    """SPIFFE id of who shows it."""
    own: bool
    """The caller is the log's own node."""
    time: dt.datetime


class Verdict(Enum):
    """How what was shown is judged."""

    CONTINUES = "continues"
    """It continues what was witnessed; from now on it is what was witnessed."""
    ELSEWHERE = "elsewhere"
    """The witness is at another size than the caller believes."""
    UNPROVEN = "unproven"
    """The proof is wrong, which says nothing of the log."""
    FORKED = "forked"
    """The log has signed two histories; both heads are kept."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and what it rests on."""

    verdict: Verdict
    size: int
    """What the witness is at, afterwards."""
    witnessed: str = ""
    """The signed checkpoint that was known before; empty for the first one."""
    new: bool = False
    """The evidence was not known before."""
    proven: bool = False
    """The evidence convicts the log by itself."""


def judge(connection: sa.Connection, shown: Shown) -> Judged:
    """Compare with what is known of the log, and remember; the verdict counts once the transaction is committed."""
    known, witnessed = _locked(connection, shown)
    head = shown.checkpoint
    if known.size and head.size == known.size and head.root != known.root:
        return _convict(connection, shown, known, witnessed, proven=True)
    if shown.old_size != known.size:
        return Judged(Verdict.ELSEWHERE, known.size, witnessed)
    try:
        merkle.verify_consistency(known.size, known.root, head.size, head.root, shown.proof)
    except FailedPrecondition:
        prefix = merkle.prefix_root(known.size, head.size, head.root, shown.proof)
        proven = prefix is not None and prefix != known.root
        # From nothing, and from a tree to itself, a proof that is not empty is a mistake and says nothing of either.
        if proven or (shown.own and 0 < known.size < head.size):
            return _convict(connection, shown, known, witnessed, proven=proven)
        return Judged(Verdict.UNPROVEN, known.size, witnessed)
    if head.size > known.size:
        new = {"size": head.size, "root": head.root, "checkpoint": shown.note, "time": shown.time}
        connection.execute(sa.update(WITNESSED).where(WITNESSED.c.origin == head.origin).values(new))
    return Judged(Verdict.CONTINUES, head.size, witnessed)


def accused(connection: sa.Connection) -> frozenset[str]:
    """List the logs that there is evidence against, by origin."""
    return frozenset(connection.execute(sa.select(EVIDENCE.c.origin).distinct()).scalars())


def _locked(connection: sa.Connection, shown: Shown) -> tuple[Checkpoint, str]:
    """Get what is known of a log, with its row locked: of two callers the second sees what the first has left."""
    origin = shown.checkpoint.origin
    empty = {"origin": origin, "size": 0, "root": EMPTY_ROOT, "checkpoint": "", "time": shown.time}
    connection.execute(insert_or_ignore(connection, WITNESSED).values(empty))
    row = connection.execute(sa.select(WITNESSED).where(WITNESSED.c.origin == origin).with_for_update()).one()
    return Checkpoint(origin, row.size, bytes(row.root)), row.checkpoint


def _convict(connection: sa.Connection, shown: Shown, known: Checkpoint, witnessed: str, *, proven: bool) -> Judged:
    head = shown.checkpoint
    same = (EVIDENCE.c.origin == head.origin) & (EVIDENCE.c.size == head.size) & (EVIDENCE.c.root == head.root)
    # What is proven takes the place of what was not.
    weaker = sa.delete(EVIDENCE).where(same, ~EVIDENCE.c.proven) if proven else None
    if weaker is not None:
        connection.execute(weaker)
    count = sa.select(sa.func.count()).select_from(EVIDENCE).where(EVIDENCE.c.origin == head.origin)
    new = connection.execute(count).scalar_one() < MAX_EVIDENCE
    if new:
        row = {
            "origin": head.origin,
            "size": head.size,
            "root": head.root,
            "proven": proven,
            "witnessed": witnessed,
            "shown": shown.note,
            "proof": b"".join(shown.proof),
            "caller": shown.caller,
            "time": shown.time,
        }
        new = connection.execute(insert_or_ignore(connection, EVIDENCE).values(row)).rowcount == 1
    return Judged(Verdict.FORKED, known.size, witnessed, new, proven)
