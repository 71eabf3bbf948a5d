"""What witnesses have co-signed of a node's own log, kept beside it and given out with its checkpoints."""

from dataclasses import dataclass

import sqlalchemy as sa

from services.kit.log import notes
from services.kit.log.checkpoint import Checkpoint
from services.kit.log.tables import COSIGNED
from services.kit.records import locks

_ALL = sa.select(COSIGNED).order_by(COSIGNED.c.witness)


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint, and one witness's signature under it."""

    witness: str
    """Origin of the witness's own log, which is also the name it co-signs in."""
    size: int
    checkpoint: str
    """The note as the log signed it."""
    cosignature: str
    """The signature line."""


def keep(connection: sa.Connection, one: Cosigned) -> None:
    """Keep what a witness has co-signed, in place of what it had before, unless that is newer.

    Replicas of a node show its log each by itself, and may come back with answers at once, and in any order.
    """
    locks.alone(connection, locks.key("cosigned", one.witness))
    if sizes(connection).get(one.witness, 0) > one.size:
        return
    connection.execute(sa.delete(COSIGNED).where(COSIGNED.c.witness == one.witness))
    connection.execute(
        sa.insert(COSIGNED).values(
            witness=one.witness, size=one.size, checkpoint=one.checkpoint, cosignature=one.cosignature
        )
    )


def sizes(connection: sa.Connection) -> dict[str, int]:
    """Get the size that each witness is at, as far as is known."""
    return {one.witness: one.size for one in _kept(connection)}


def complete(connection: sa.Connection, checkpoint: str) -> str:
    """Add to a checkpoint, signed by its log, the cosignatures there are of it; an empty one stays empty."""
    return _with(checkpoint, _kept(connection)) if checkpoint else ""


def newest(connection: sa.Connection) -> str:
    """Get the newest checkpoint that has cosignatures, with all of them; empty where there is none."""
    kept = _kept(connection)
    latest = max(kept, key=lambda one: one.size, default=None)
    return _with(latest.checkpoint, kept) if latest else ""


def _kept(connection: sa.Connection) -> list[Cosigned]:
    rows = connection.execute(_ALL)
    return [Cosigned(row.witness, row.size, row.checkpoint, row.cosignature) for row in rows]


def _with(checkpoint: str, kept: list[Cosigned]) -> str:
    note = notes.parse(checkpoint)
    size = Checkpoint.parse(note.text).size
    # The text must be the very same: another root of that size would be another history.
    fitting = (one for one in kept if one.size == size and notes.parse(one.checkpoint).text == note.text)
    return str(note.signed(*(notes.parse_signature(one.cosignature) for one in fitting)))
