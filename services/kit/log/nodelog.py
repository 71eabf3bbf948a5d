"""A node's log: append, and read what was appended.

`append` returns when the entry is on disk, and only then may the answer leave. Where the log cannot be written it
raises `Unavailable` LOG_UNAVAILABLE, has acknowledged nothing, and goes on by itself once it can.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self, TypeVar

import sqlalchemy as sa

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.clock import Clock
from services.kit.config import LogSection, NodeSection
from services.kit.errors import FailedPrecondition, HutongError, Reason, ResourceExhausted, Unavailable
from services.kit.log import cosigned, edge, keys, openings, reading, subjects, tables, texts
from services.kit.log.batching import MOST_WAITING, Batcher, unavailable
from services.kit.log.checkpoint import origin_of
from services.kit.log.notes import Signer
from services.kit.log.openings import Draft, Sealed, Subject
from services.kit.log.reading import Logged, Proof
from services.kit.log.texts import Kind, Text
from services.kit.log.tiles import MAX_ENTRY, Tile
from services.kit.log.writer import Erased, Head, Writer, read_head
from services.kit.records import migrations
from services.kit.records.database import Database

__all__ = ["Draft", "Erased", "Logged", "NodeLog", "Proof", "Subject"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ERASURE: Final = "/hutong.log/Erase"
"""What stands as `rpc` in the entry of an erasure, which is no rpc."""

_STAMP: Final = 16
"""Bytes that the time of an entry takes, at most."""
_log = logging.getLogger(__name__)

T = TypeVar("T")


class NodeLog:
    """The log of one node, open. Everything is to be called in the event loop that opened it."""

    def __init__(
        self, url: str, signer: Signer, clock: Clock, *, migrate: bool = False, most_waiting: int = MOST_WAITING
    ) -> None:
        """`url` is of a database of its own; `signer` has the log's origin as its name."""
        self.origin = signer.name
        self._url = url
        self._signer = signer
        self._clock = clock
        self._migrate = migrate
        self._texts = texts.Waiting()
        self._writer = Writer(url, signer, clock)
        self._batcher = Batcher(self._write, most_waiting)
        self._database: Database | None = None

    @classmethod
    def of(cls, section: LogSection, node: NodeSection, url: str, clock: Clock) -> Self:
        """Make the log that a node's config describes; `url` is what `section.read_url` gave.

        Raises `FailedPrecondition` where the log's key cannot be used, or is not the one published.
        """
        signer = keys.read(section.key, origin_of(node.zone, node.agency, node.system))
        published = keys.published_file(section.keys, signer.name)
        if published.exists() and keys.read_published(published) != signer.verifier:
            raise FailedPrecondition(Reason.KEY_INVALID, f"another key is published for the log {signer.name}")
        return cls(url, signer, clock, migrate=section.migrate)

    async def open(self) -> None:
        """Check what is there, and begin to write.

        Raises `FailedPrecondition`: STORE_NOT_MIGRATED, LOG_TAMPERED where the end of the log does not hold together,
        LOG_KEY_UNKNOWN where another key signed it; `Unavailable` where the database cannot be reached.
        """
        try:
            await asyncio.to_thread(self._check_schema)
            self._database = Database(self._url)
            head = await self._read(lambda connection: edge.check(connection, self._signer))
        except BaseException:
            await self._release()
            raise
        await asyncio.to_thread(self._writer.tidy)
        self._writer.seen = head.frontier
        self._batcher.start()
        _log.info("Log opened", extra={"fields": {"origin": self.origin, "size": head.size}})

    async def close(self) -> None:
        """Take nothing more, write what waits, let go of the database."""
        await self._batcher.close()
        await self._release()

    async def append(self, draft: Draft) -> log_pb2.Receipt:
        """Log something durably; gives the receipt. Whoever stops waiting changes nothing: it is logged all the same.

        Raises `Unavailable` LOG_UNAVAILABLE where it is not logged, or nobody knows whether it was;
        `ResourceExhausted` ANSWER_TOO_LARGE where an entry would have more than 65,535 bytes.
        """
        return log_pb2.Receipt.FromString(await self.record(openings.seal(draft)))

    def record(self, sealed: Sealed) -> "asyncio.Future[bytes]":
        """Log an entry durably, as `append` does; gives the receipt serialized."""
        if len(sealed.entry) > MAX_ENTRY - _STAMP:
            raise ResourceExhausted(Reason.ANSWER_TOO_LARGE, f"an entry of the log has at most {MAX_ENTRY} bytes")
        return self._batcher.submit(sealed)

    def text(self, kind: Kind, name: str, text: bytes) -> None:
        """Have a text archived, once, before whatever is appended from now on.

        `name` is what entries call it: a digest, or a policy version. A mask's text is a serialized `MaskText`, and
        becomes an entry of its own. Raises as `texts.Waiting.put` does.
        """
        self._texts.put(Text(kind, name, text))

    async def erase(self, scheme: str, value: str, entry: log_pb2.LogEntry | None = None) -> Erased:
        """Drop the salt and opening of every entry about a subject, and every archived scope that names it, for good.

        Entries and proofs stay as they are. What others were committed to by the same entries can be opened no more
        either, but the entries can still be found by them. Whoever else such a scope names is named by it no more, and
        decisions under it cannot be recomputed. The erasure is an entry itself: `entry` may say who asked, and names no
        subject. Raises `Unavailable` LOG_UNAVAILABLE.
        """
        logged = entry or log_pb2.LogEntry(outcome=log_pb2.OUTCOME_ANSWERED)
        logged.rpc = logged.rpc or ERASURE

        def work() -> Erased:
            erased = self._writer.erase(scheme, value, logged)
            if not erased.freed:
                _log.warning(
                    "What was erased still lies in the database's files: a reader or PostgreSQL holds it; tried again"
                )
            return erased

        return await self._batcher.call(work)

    @property
    def size(self) -> int:
        """How many entries there are, as far as this process knows; replicas of the node may have added some."""
        return self._writer.seen.size

    @property
    def waiting(self) -> int:
        """How many entries wait to be written."""
        return self._batcher.waiting

    @property
    def failing(self) -> bool:
        """The last write failed: answers are being refused."""
        return self._batcher.failing

    async def checkpoint(self) -> str:
        """Get the newest checkpoint, a signed note, with the cosignatures there are; empty before the first entry."""
        return await self._read(lambda connection: cosigned.complete(connection, read_head(connection).checkpoint))

    async def cosigned(self) -> str:
        """Get the newest checkpoint that witnesses have co-signed; empty where there is none."""
        return await self._read(cosigned.newest)

    async def head(self) -> Head:
        """Get the present end of the log, replicas included."""
        return await self._read(read_head, short=True)

    async def entries(self, start: int, count: int) -> list[Logged]:
        """Get entries in order, at most 4,096 of them; fewer where the log ends."""
        return await self._read(lambda connection: reading.entries(connection, start, count))

    async def entry(self, index: int) -> Logged:
        """Get an entry; raises `NotFound` LOG_ENTRY_UNKNOWN."""
        return await self._read(lambda connection: reading.entry(connection, index), short=True)

    async def opening(self, index: int) -> log_pb2.Opening | None:
        """Get what an entry commits to; none where that is nothing, or was erased."""
        return await self._read(lambda connection: reading.opening(connection, index), short=True)

    async def find_subject(self, scheme: str, value: str, before: int | None = None, limit: int = 200) -> list[int]:
        """Get the indexes of entries about a subject, the newest first, those below `before`."""
        subject = scheme, value
        return await self._read(lambda connection: subjects.find(connection, subject, before, limit), short=True)

    async def first_since(self, moment: dt.datetime) -> int:
        """Get the index of the first entry logged at that moment or later; the size where there is none."""
        return await self._read(lambda connection: reading.first_since(connection, moment))

    async def texts(self, names: Iterable[str]) -> list[log_service_pb2.ArchivedText]:
        """Get archived texts by name; what is not there is left out."""
        wanted = tuple(names)
        return await self._read(lambda connection: texts.find(connection, wanted))

    async def inclusion(self, index: int, size: int = 0) -> Proof:
        """Prove that a leaf is in the tree of that size, 0 for the newest; see `reading.inclusion`."""
        return await self._read(lambda connection: reading.inclusion(connection, self._signer, index, size))

    async def consistency(self, old: int, size: int = 0) -> Proof:
        """Prove that a tree is the beginning of another, 0 for the newest; see `reading.consistency`."""
        return await self._read(lambda connection: reading.consistency(connection, self._signer, old, size))

    async def tile(self, wanted: Tile) -> bytes:
        """Get a tile's bytes; raises `NotFound` LOG_ENTRY_UNKNOWN where the log ends before it does."""
        return await self._read(lambda connection: reading.tile(connection, wanted))

    @property
    def database(self) -> Database:
        """Where the log lies, for what is kept beside it; raises `Unavailable` LOG_UNAVAILABLE while it is closed."""
        if self._database is None:
            raise unavailable()
        return self._database

    def _write(self, sealed: list[Sealed]) -> list[bytes]:
        """Write a batch, in the writer's thread, with the texts that wait: its entries may name them."""
        waiting = self._texts.snapshot()
        receipts = self._writer.write(sealed, waiting)
        self._texts.written(waiting)
        return receipts

    def _check_schema(self) -> None:
        try:
            if self._migrate:
                migrations.upgrade(self._url, MIGRATIONS)
            migrations.check(self._url, MIGRATIONS, tables.METADATA.tables.keys())
        except HutongError as error:
            if error.reason is Reason.STORE_NOT_MIGRATED:
                message = "the log's tables are not of this version: set `migrate = true` under [log] in the config"
                raise FailedPrecondition(Reason.STORE_NOT_MIGRATED, message) from None
            raise

    async def _release(self) -> None:
        if self._database is not None:
            await asyncio.to_thread(self._database.close)
            self._database = None
        await asyncio.to_thread(self._writer.close)

    async def _read(self, work: Callable[[sa.Connection], T], *, short: bool = False) -> T:
        try:
            return await self.database.read(work, short=short)
        except Unavailable:
            raise unavailable() from None
