"""What the tests of a node's log work with: a log in a real database, a clock that is set, entries as nodes make."""

import asyncio
import contextlib
import datetime as dt
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from hutong.api.log.v1 import log_pb2
from services.kit.log.nodelog import Draft, NodeLog
from services.kit.log.notes import Signer
from services.kit.log.openings import Subject
from services.kit.log.verifying import Whole, verify_all
from services.kit.records.database import engine

ORIGIN: Final = "zone.example/customs/node"
SIGNER: Final = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
KEY: Final = SIGNER.verifier
START: Final = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
RPC: Final = "/hutong.api.customs.v1.CustomsService/GetDeclaration"


@dataclass
class Clock:
    moment: dt.datetime = START

    def __call__(self) -> dt.datetime:
        return self.moment

    def move(self, **by: float) -> None:
        self.moment += dt.timedelta(**by)


def company(number: int) -> Subject:
    return "uscc", f"91350200{number:010}"


def draft(number: int = 0, subjects: Iterable[Subject] | None = None, **more: Any) -> Draft:
    entry = log_pb2.LogEntry(
        rpc=RPC,
        caller="spiffe://zone.example/taxation/node",
        purpose="P-REBATE",
        legal_basis="VAT-REFUND",
        outcome=log_pb2.OUTCOME_ANSWERED,
        answer_digest=number.to_bytes(32, "big"),
    )
    entry.disclosures.add(record_type="customs.Declaration", mask_digest=b"m" * 32, rows=1)
    return Draft(entry, (company(number),) if subjects is None else tuple(subjects), **more)


def mask(number: int) -> bytes:
    """Make the text of a mask."""
    text = log_pb2.MaskText(digest=number.to_bytes(32, "big"), record_type="customs.Declaration", decisions=b"...")
    return text.SerializeToString()


def node_log(url: str, clock: Callable[[], dt.datetime] | None = None, **more: Any) -> NodeLog:
    return NodeLog(url, more.pop("signer", SIGNER), clock or Clock(), migrate=True, **more)


@contextlib.asynccontextmanager
async def opened(url: str, clock: Callable[[], dt.datetime] | None = None, **more: Any) -> AsyncGenerator[NodeLog]:
    log = node_log(url, clock, **more)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def fill(log: NodeLog, count: int) -> None:
    """Append entries, all at once."""
    await asyncio.gather(*(log.append(draft(number)) for number in range(count)))


@contextlib.contextmanager
def connected(url: str, *, writer: bool = False) -> Generator[sa.Connection]:
    """Go to the database behind the log's back."""
    made = engine(url, writer=writer)
    try:
        with made.begin() as connection:
            yield connection
    finally:
        made.dispose()


def change(url: str, statement: sa.Executable) -> None:
    with connected(url, writer=True) as connection:
        connection.execute(statement)


def whole(url: str) -> Whole:
    """Verify everything."""
    with connected(url) as connection:
        return verify_all(connection, KEY)


def writing(log: NodeLog) -> sa.Engine:
    """The engine that a log is written with."""
    return log._writer.engine  # pyright: ignore[reportPrivateUsage]


@contextlib.asynccontextmanager
async def held(log: NodeLog) -> AsyncGenerator[None]:
    """Hold up the writer's thread: what comes meanwhile has to wait."""
    go, began = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        go.wait()

    done = log._batcher.call(hold)  # pyright: ignore[reportPrivateUsage]
    await asyncio.to_thread(began.wait)
    try:
        yield
    finally:
        go.set()
        await done


@contextlib.contextmanager
def on_connect(log: NodeLog, statement: Callable[[], str]) -> Generator[None]:
    """Run a statement on every connection that the log is written with, from now on."""

    def connect(connection: DBAPIConnection, _entry: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement())
        cursor.close()

    engine = writing(log)
    event.listen(engine, "connect", connect)
    let_go(log)
    try:
        yield
    finally:
        event.remove(engine, "connect", connect)
        let_go(log)


def let_go(log: NodeLog) -> None:
    """Close the connections that a log is written with: the next write makes new ones."""
    log._writer.close()  # pyright: ignore[reportPrivateUsage]
