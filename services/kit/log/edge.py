"""What is checked of a log before a node goes on with it: its right edge, which is what appending builds on.

A few hundred hashes, whatever the log's size. That everything to the left of it is unchanged is for `verifying`, and
for witnesses.
"""

import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, Reason
from services.kit.log import merkle, reading
from services.kit.log.merkle import TILE_WIDTH, Frontier, leaf_hash
from services.kit.log.notes import Signer
from services.kit.log.tables import ENTRY
from services.kit.log.writer import Head, check_signed, read_head


def check(connection: sa.Connection, signer: Signer) -> Head:
    """Check that head, stored hashes and last entries agree, and that we signed the checkpoint; gives the head.

    Raises `FailedPrecondition`: LOG_TAMPERED, or LOG_KEY_UNKNOWN where another key signed it.
    """
    # A replica of the node may be appending.
    with reading.snapshot(connection):
        return _check(connection, signer)


def _check(connection: sa.Connection, signer: Signer) -> Head:
    head = read_head(connection)
    check_signed(head, signer)
    size = head.size
    last = connection.execute(sa.select(sa.func.max(ENTRY.c.index))).scalar()
    if (-1 if last is None else last) != size - 1:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's last entry is not where its head says")
    hashes = reading.stored_hashes(connection)
    if Frontier.read(size, hashes) != head.frontier:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's hashes do not give its root")
    start = max(0, size - TILE_WIDTH)
    latest = reading.entries(connection, start, size - start)
    if len(latest) != size - start or any(leaf_hash(one.data) != one.leaf_hash for one in latest):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "an entry of the log is not what was hashed")
    _check_last_tile(size, hashes)
    return head


def _check_last_tile(size: int, hashes: merkle.Hashes) -> None:
    """Check that of each level the newest stored root is that of the hashes below it."""
    level = 1
    while count := size >> merkle.TILE_HEIGHT * level:
        below = Frontier()
        for one in hashes(level - 1, (count - 1) * TILE_WIDTH, TILE_WIDTH):
            below.append(one)
        if list(hashes(level, count - 1, 1)) != [below.root()]:
            raise FailedPrecondition(Reason.LOG_TAMPERED, "the log's hashes contradict each other")
        level += 1
