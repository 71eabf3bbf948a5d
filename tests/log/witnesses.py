"""What the tests of witnesses work with: a zone with published log keys, witnesses that really serve, histories."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from hutong.api.log.v1 import log_service_pb2
from services.kit.client import Client
from services.kit.clock import Clock
from services.kit.config import NodeConfig
from services.kit.host import Host
from services.kit.log import keys
from services.kit.log.checkpoint import Checkpoint, origin_of
from services.kit.log.merkle import Frontier, consistency_proof, leaf_hash
from services.kit.log.nodelog import MIGRATIONS
from services.kit.log.notes import Signer
from services.kit.log.tables import EVIDENCE, WITNESSED
from services.kit.log.witness import ACCESS, Witness
from services.kit.records import migrations
from services.kit.records.database import Database
from services.kit.rpc import Call
from tests.log.bed import connected
from tests.zone import ZONE, Zone, now

ADD: Final = "/hutong.api.log.v1.WitnessService/AddCheckpoint"
OWNER: Final = "customs/node"
WITNESS: Final = "taxation/node"


class Keys:
    """The keys of the logs of a zone."""

    def __init__(self, folder: Path) -> None:
        self.private = folder / "private"
        self.folder = folder / "logs"

    def signer(self, path: str) -> Signer:
        """Get what a node signs with, published the first time."""
        agency, _, system = path.partition("/")
        return keys.create(self.private / f"{agency}.{system}.pem", self.folder, origin_of(ZONE, agency, system))


@dataclass(frozen=True)
class History:
    """A history that a log may sign, whether or not it is the one it has."""

    signer: Signer
    leaves: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, signer: Signer, *entries: str) -> "History":
        return cls(signer, tuple(leaf_hash(entry.encode()) for entry in entries))

    def grown(self, count: int, what: str = "entry") -> "History":
        more = (leaf_hash(f"{what} {len(self.leaves) + number}".encode()) for number in range(count))
        return replace(self, leaves=(*self.leaves, *more))

    def head(self, size: int | None = None) -> Checkpoint:
        frontier = Frontier()
        for leaf in self.leaves[:size]:
            frontier.append(leaf)
        return Checkpoint(self.signer.name, frontier.size, frontier.root())

    def note(self, size: int | None = None) -> str:
        return str(self.head(size).sign(self.signer))

    def proof(self, old: int, size: int | None = None) -> list[bytes]:
        def hashes(level: int, start: int, count: int) -> tuple[bytes, ...]:
            assert level == 0, "no history here fills a tile"
            return self.leaves[start : start + count]

        return consistency_proof(old, len(self.leaves) if size is None else size, hashes)

    def request(self, old: int, size: int | None = None) -> log_service_pb2.AddCheckpointRequest:
        """Ask for what an honest log asks for."""
        return log_service_pb2.AddCheckpointRequest(
            old_size=old, proof=self.proof(old, size), checkpoint=self.note(size)
        )


class Counted(Witness):
    """A witness that tells when it was asked."""

    asked = 0
    news: asyncio.Condition

    async def add_checkpoint(
        self, request: log_service_pb2.AddCheckpointRequest, call: Call
    ) -> log_service_pb2.AddCheckpointResponse:
        async with self.news:
            self.asked += 1
            self.news.notify_all()
        return await super().add_checkpoint(request, call)

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(30), self.news:
            await self.news.wait_for(lambda: self.asked >= times)


@dataclass
class Serving:
    """A witness that serves."""

    witness: Counted
    host: Host
    url: str

    def witnessed(self, origin: str) -> tuple[int, bytes, str]:
        with connected(self.url) as connection:
            row = connection.execute(sa.select(WITNESSED).where(WITNESSED.c.origin == origin)).one()
            return row.size, bytes(row.root), row.checkpoint

    def evidence(self) -> list[sa.RowMapping]:
        with connected(self.url) as connection:
            rows = connection.execute(sa.select(EVIDENCE).order_by(EVIDENCE.c.size, EVIDENCE.c.time))
            return list(rows.mappings())


@contextlib.asynccontextmanager
async def serving(
    zone: Zone, keyring: Keys, url: str, path: str = WITNESS, listen: str = "127.0.0.1:0", clock: Clock = now
) -> AsyncGenerator[Serving]:
    """Serve a witness over mTLS, with its memory in that database."""
    migrations.upgrade(url, MIGRATIONS)
    database = Database(url)
    node = zone.node(path).model_copy(update={"listen": listen})
    host = zone.frame(NodeConfig(node=node, tls=zone.tls(path)))
    witness = Counted(database, keyring.signer(path), keyring.folder, clock, host.telemetry)
    witness.news = asyncio.Condition()
    await witness.open()
    await host.start(witness.rpcs(), [ACCESS])
    try:
        yield Serving(witness, host, url)
    finally:
        await host.stop()
        database.close()


async def add(client: Client, request: log_service_pb2.AddCheckpointRequest) -> log_service_pb2.AddCheckpointResponse:
    return await client.unary(ADD, request, log_service_pb2.AddCheckpointResponse, timeout=30)
