"""An inbox keeps every event once, with how far it has got, and nothing that is not sound."""

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.kit.errors import Unavailable
from services.kit.events.inbox import Inbox
from services.kit.events.seam import MAX_NAME, MAX_PAYLOAD, Batch, Event
from services.kit.records.database import Database
from tests.databases import Postgres
from tests.events.bed import create_inbox, everything, numbers

RECORDED = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
ONE, OTHER = "recognition/node", "courts/node"


def received(number: int, *, source: str = ONE, kind: str = "result.issued", key: str = "case-1") -> Event:
    return Event(f"id-{number}", number, "customs", kind, key, RECORDED, f'{{"number": {number}}}', source)


def batch(*events: Event, until: int = 0) -> Batch:
    return Batch(events, until or max((e.sequence for e in events), default=0))


@pytest.fixture
async def inbox(any_url: str) -> AsyncIterator[Inbox]:
    create_inbox(any_url)
    database = Database(any_url)
    yield Inbox(database, "customs")
    await asyncio.to_thread(database.close)


async def test_what_comes_again_is_known(inbox: Inbox) -> None:
    assert numbers(await inbox.keep(ONE, batch(received(1), received(2)))) == [1, 2]
    assert numbers(await inbox.keep(ONE, batch(received(2), received(3), received(3)))) == [3]
    assert await inbox.keep(ONE, batch(received(1))) == ()
    assert await everything(inbox) == [received(1), received(2), received(3)]
    assert await inbox.position(ONE) == 3


async def test_every_source_has_its_own_position_and_ids(inbox: Inbox) -> None:
    assert await inbox.position(ONE) == 0
    await inbox.keep(ONE, batch(received(5), until=9))
    assert (await inbox.position(ONE), await inbox.position(OTHER)) == (9, 0)
    assert numbers(await inbox.keep(OTHER, batch(received(5, source=OTHER)))) == [5]
    assert await inbox.position(OTHER) == 5
    await inbox.rewind(ONE)
    assert (await inbox.position(ONE), await inbox.position(OTHER)) == (0, 5)
    assert await inbox.keep(ONE, batch(received(5))) == ()
    assert [e.source for e in await everything(inbox)] == [ONE, OTHER]


async def test_a_heartbeat_moves_the_position_on_and_never_back(inbox: Inbox) -> None:
    for until, expected in ((4, 4), (7, 7), (5, 7)):
        await inbox.keep(ONE, batch(until=until))
        assert await inbox.position(ONE) == expected


GOOD = received(2)
BAD = [
    replace(GOOD, audience="taxation"),
    replace(GOOD, audience=""),
    replace(GOOD, event_id=""),
    replace(GOOD, event_id="a\nb"),
    replace(GOOD, kind=""),
    replace(GOOD, kind="\x1b[2J"),
    replace(GOOD, kind="x" * (MAX_NAME + 1)),
    replace(GOOD, key="a\x00"),
    replace(GOOD, payload=""),
    replace(GOOD, payload="[]"),
    replace(GOOD, payload="{"),
    replace(GOOD, payload='{"a": "\x00"}'),
    replace(GOOD, payload="[" * MAX_PAYLOAD),
    replace(GOOD, payload='{"a": "' + "x" * MAX_PAYLOAD + '"}'),
]


@pytest.mark.parametrize("bad", BAD)
async def test_an_unsound_event_is_told_and_holds_up_nobody(
    inbox: Inbox, bad: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert numbers(await inbox.keep(ONE, batch(received(1), bad, received(3)))) == [1, 3]
    assert await inbox.position(ONE) == 3
    (logged,) = caplog.records
    assert getattr(logged, "fields")["sequence"] == 2  # noqa: B009 - no attribute that types know
    assert bad.payload not in caplog.text or not bad.payload


async def test_what_was_received_is_listed_in_order(inbox: Inbox) -> None:
    kinds = ["result.issued", "result.revoked", "task.raised"]
    events = [received(n, kind=kinds[n % 3], key=f"case-{n % 2}") for n in range(1, 13)]
    for start in range(0, 12, 5):
        await inbox.keep(ONE, batch(*events[start : start + 5]))
    assert (await inbox.list(limit=12)).events == tuple(events)
    page = await inbox.list(limit=5)
    assert (numbers(page.events), page.next_after) == ([1, 2, 3, 4, 5], 5)
    assert numbers((await inbox.list(page.next_after, 100)).events) == list(range(6, 13))
    assert numbers((await inbox.list(kind="task.raised")).events) == [2, 5, 8, 11]
    assert numbers((await inbox.list(key="case-1", kind="result.revoked")).events) == [1, 7]
    assert numbers((await inbox.list(4, 2, key="case-0")).events) == [6, 8]
    assert await inbox.list(12) == await inbox.list(12, kind="none")
    assert (await inbox.list(12)).next_after == 12


async def test_many_keep_the_same_at_once(any_url: str) -> None:
    """Replicas of one node that follow the same sources: every event once, in each source's order."""
    create_inbox(any_url)
    databases = [Database(any_url) for _ in range(4)]
    inboxes = [Inbox(database, "customs") for database in databases]

    async def run(inbox: Inbox, source: str) -> list[int]:
        fresh: list[int] = []
        for start in range(1, 61, 3):
            fresh += numbers(await inbox.keep(source, batch(*(received(start + i, source=source) for i in range(3)))))
        return fresh

    fresh = await asyncio.gather(*(run(inbox, source) for inbox in inboxes for source in (ONE, OTHER)))
    found = await everything(inboxes[0])
    for source in (ONE, OTHER):
        assert numbers(e for e in found if e.source == source) == list(range(1, 61))
    assert sorted(n for each in fresh for n in each) == sorted([*range(1, 61), *range(1, 61)])
    for database in databases:
        await asyncio.to_thread(database.close)


async def test_a_source_that_sends_very_much_at_once(inbox: Inbox) -> None:
    events = [received(n) for n in range(1, 40_001)]
    assert len(await inbox.keep(ONE, batch(*events))) == len(events)
    assert await inbox.keep(ONE, batch(*events)) == ()
    assert await inbox.position(ONE) == 40_000


async def test_neither_is_kept_where_both_cannot_be(postgres_url: str, postgres_server: Postgres) -> None:
    create_inbox(postgres_url)
    database = Database(postgres_url)
    inbox = Inbox(database, "customs")
    await inbox.keep(ONE, batch(received(1)))
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    raising = "BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END"
    postgres_server.execute(
        f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ {raising} $$",
        "CREATE TRIGGER no BEFORE UPDATE ON inbox_position EXECUTE FUNCTION no()",
        database=name,
    )
    with pytest.raises(Unavailable):
        await inbox.keep(ONE, batch(received(2)))
    assert numbers((await inbox.list()).events) == [1]
    postgres_server.execute("DROP TRIGGER no ON inbox_position", database=name)
    assert numbers(await inbox.keep(ONE, batch(received(2)))) == [2]
    await asyncio.to_thread(database.close)
