"""Officer tokens that were used for a look into the log, remembered beside it: for every replica of the node."""

import datetime as dt
from hashlib import sha256

import sqlalchemy as sa

from services.kit.clock import Clock, Forward
from services.kit.log.nodelog import NodeLog
from services.kit.log.tables import TOKEN
from services.kit.records.inserts import insert_or_ignore


class StoredSeen:
    """Remembers in the log's database (`services.kit.officers.seen.SeenTokens`)."""

    def __init__(self, log: NodeLog, clock: Clock) -> None:
        """`log` is open before the first token is taken."""
        self._log = log
        self._clock = Forward(clock)

    async def take(self, agency: str, jti: str, until: dt.datetime) -> bool:
        """Take a token; tells whether it was the first time. Raises `Unavailable` where the database is away."""
        row = {"agency": agency, "digest": sha256(jti.encode()).digest(), "until": until}
        now = self._clock()

        def work(connection: sa.Connection) -> bool:
            connection.execute(sa.delete(TOKEN).where(TOKEN.c.until < now))
            return bool(connection.execute(insert_or_ignore(connection, TOKEN).values(**row)).rowcount)

        return await self._log.database.write(work)
