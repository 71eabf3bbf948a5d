"""What the tests of recording work with: answers as bytes, what a node's log says of them, and broken logs."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import sqlalchemy as sa
from google.protobuf.message import Message

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.client import Client
from services.kit.host import Host
from services.kit.log import keys, receipts
from services.kit.log.nodelog import NodeLog
from services.kit.log.notes import VerifierKey
from services.kit.records.database import engine

PROOF = "/hutong.api.log.v1.LogService/GetInclusionProof"


async def raw(client: Client, method: str, request: Message | bytes) -> bytes:
    """Call, and give the answer as it came."""
    return await client.raw(method, request, timeout=10)


def log_of(host: Host) -> NodeLog:
    assert host.log is not None
    return host.log


async def everything(host: Host) -> list[log_pb2.LogEntry]:
    """Read a whole log, without the texts of masks."""
    found = await log_of(host).entries(0, 4096)
    return [each.entry for each in found if not each.entry.HasField("mask")]


async def newest(host: Host) -> log_pb2.LogEntry:
    return (await everything(host))[-1]


def key_of(host: Host) -> VerifierKey:
    assert host.config.log is not None
    return keys.find(host.config.log.keys, log_of(host).origin)


async def included(client: Client, host: Host, receipt: log_pb2.Receipt) -> receipts.Included:
    """Turn a receipt into a proof, as whoever got it does."""
    asked = log_service_pb2.GetInclusionProofRequest(index=receipt.index)
    proof = await client.unary(PROOF, asked, log_service_pb2.GetInclusionProofResponse, timeout=10)
    return receipts.verify_inclusion(receipt, proof, key_of(host))


@contextlib.asynccontextmanager
async def broken(host: Host) -> AsyncGenerator[None]:
    """Have a log that cannot be written: its table of entries is gone for a while."""
    assert host.config.log is not None
    made = engine(host.config.log.read_url(Path()), writer=True)

    def rename(old: str, new: str) -> None:
        with made.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename("log_entry", "log_gone")
    try:
        yield
    finally:
        rename("log_gone", "log_entry")
        made.dispose()
