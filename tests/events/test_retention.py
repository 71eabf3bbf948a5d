"""What everybody has goes in time, and nothing else does; who asks for what is gone is told, and can go on."""

import asyncio
import datetime as dt
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from services.kit.config import OutboxSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.events import inbox, outbox, retention
from services.kit.events.retention import Leaving, Retention
from services.kit.events.service import EventService
from services.kit.records.database import engine
from tests.attacks.clocked import Clock
from tests.cli.conftest import run
from tests.events.bed import SOURCE, Log, OverGrpc, Receiver, create, create_inbox, event, numbers, serving, take
from tests.events.jetfield import Field, field, until
from tests.kit.test_telemetry import logging_to
from tests.recognition.mesh import Mesh
from tests.zone import Zone

DAY = dt.timedelta(days=1)
KEEP = 90 * DAY
START = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)


class Store:
    """An outbox whose clock is the test's."""

    def __init__(self, made: sa.Engine) -> None:
        self.made = made
        self.now = START

    def put(self, *audiences: str) -> None:
        with self.made.begin() as connection:
            outbox.put(connection, [event(1, audience) for audience in audiences], self.now)

    def heard(self, node: str, after: int) -> None:
        with self.made.begin() as connection:
            retention.heard(connection, node, after, self.now)

    def forget(self, node: str) -> bool:
        with self.made.begin() as connection:
            return retention.forget(connection, node)

    def sweep(self, *required: str, leaving: Leaving | None = None, limit: int = 500) -> int:
        before = self.now - KEEP
        with self.made.begin() as connection:
            return retention.remove(connection, before, required=required, leaving=leaving, limit=limit)

    def there(self) -> list[int]:
        with self.made.begin() as connection:
            return list(connection.execute(sa.select(outbox.OUTBOX.c.sequence).order_by("sequence")).scalars())

    def gone(self, audience: str) -> int:
        with self.made.begin() as connection:
            return outbox.gone(connection, audience)


@pytest.fixture
def store(any_url: str) -> Iterator[Store]:
    create(any_url, outbox.METADATA)
    made = engine(any_url, writer=True)
    yield Store(made)
    made.dispose()


def test_only_what_is_old_and_everybody_has_goes(store: Store) -> None:
    store.put("customs", "taxation", "customs", "customs")
    store.heard("customs/node", 3)
    # However old it is: who else is there could not be heard yet.
    store.now += KEEP - DAY
    assert store.sweep() == 0
    store.put("customs")
    store.heard("customs/other", 1)
    store.now += 2 * DAY
    assert store.sweep("customs/silent") == 0
    # What the other has, too; nothing of taxation, which never asked.
    assert (store.sweep("customs/node"), store.sweep("customs/node")) == (1, 0)
    assert (store.there(), store.gone("customs"), store.gone("taxation")) == ([2, 3, 4, 5], 1, 0)
    assert store.forget("customs/other")
    assert not store.forget("customs/other")
    assert (store.sweep(), store.there()) == (1, [2, 4, 5])
    # It has more by now, but a backup of yesterday has not.
    store.heard("customs/node", 5)
    assert (store.sweep(), store.there(), store.gone("customs")) == (0, [2, 4, 5], 3)
    store.now += KEEP
    assert (store.sweep(), store.there(), store.gone("customs")) == (2, [2], 5)


def test_a_backup_that_is_younger_than_what_goes_can_go_on(store: Store) -> None:
    """Somebody was away for longer than events are kept, backed up while away, came back, and lost the disk."""
    store.put("customs", "customs", "customs")
    store.heard("customs/node", 0)
    assert store.sweep() == 0
    store.now += KEEP + DAY
    store.heard("customs/node", 3)
    assert store.sweep() == 0
    store.now += KEEP - DAY
    store.heard("customs/node", 3)
    assert store.sweep() == 0
    # Its backup of the day before it came back is younger still; from now on only what that one has may go.
    store.heard("customs/node", 1)
    store.heard("customs/node", 3)
    store.now += DAY
    assert (store.sweep(), store.there()) == (1, [2, 3])
    # The mark goes on, at the latest after as long again, though it is heard every ten days.
    for _ in range(2 * KEEP.days // 10):
        store.now += 10 * DAY
        store.heard("customs/node", 3)
        store.sweep()
    assert (store.there(), store.gone("customs")) == ([], 3)


def test_a_few_at_a_time_and_in_their_order(store: Store) -> None:
    """A clock that went back leaves nothing out in the middle."""
    store.put("customs", "customs")
    store.now += 200 * DAY
    store.put("customs")
    store.now -= 200 * DAY
    store.put("customs")
    store.heard("customs/node", 4)
    store.now += KEEP + DAY
    left: list[tuple[str, list[str]]] = []
    assert store.sweep(limit=1, leaving=lambda _, audience, ids: left.append((audience, list(ids)))) == 1
    assert [(audience, len(ids)) for audience, ids in left] == [("customs", 1)]
    assert (store.sweep(), store.sweep(), store.there()) == (1, 0, [3, 4])


def test_a_word_that_cannot_be_true_is_not_taken(store: Store) -> None:
    store.put("customs", "customs")
    store.heard("customs/node", 3)
    with store.made.begin() as connection:
        assert retention.readers(connection) == []
    store.heard("customs/node", 2)
    store.heard("customs/node", 1)
    store.now += KEEP + DAY
    assert (store.sweep(), store.there()) == (1, [2])
    # It would hold up what is gone.
    store.heard("customs/another", 0)
    with store.made.begin() as connection:
        (reader,) = retention.readers(connection)
    assert (reader.node, reader.sequence, reader.first_at) == ("customs/node", 1, START)


def test_who_asks_for_what_is_gone_is_told(store: Store) -> None:
    store.put("customs", "customs", "customs")
    store.heard("customs/node", 2)
    store.now += KEEP + DAY
    assert store.sweep() == 2
    with store.made.begin() as connection:
        for after in (0, 1):
            with pytest.raises(FailedPrecondition) as caught:
                outbox.waiting(connection, "customs", after)
            assert (caught.value.reason, caught.value.metadata) == (Reason.EVENTS_GONE, {"kept_after": "2"})
        assert [each.sequence for each in outbox.waiting(connection, "customs", 2).events] == [3]


def test_a_failure_in_between_leaves_everything(store: Store) -> None:
    store.put("customs")
    store.heard("customs/node", 1)
    store.now += KEEP + DAY

    def fails(*_: object) -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        store.sweep(leaving=fails)
    assert (store.there(), store.gone("customs")) == ([1], 0)


class Bed:
    """A source node whose clock is the test's, and those who follow it."""

    def __init__(self, log: Log, clock: Clock, kept: Retention, way: OverGrpc, url: str, folder: Path) -> None:
        self.log = log
        self.clock = clock
        self.retention = kept
        self.way = way
        self.url = url
        self._folder = folder

    async def receiver(self, name: str) -> Receiver:
        url = f"sqlite+aiosqlite:///{self._folder}/{name}.db"
        if not (self._folder / f"{name}.db").exists():
            create_inbox(url)
        return Receiver(url)

    async def followed(self, name: str, count: int) -> list[int]:
        """Follow with this inbox until so many more came; gives what it then holds."""
        receiver = await self.receiver(name)
        try:
            receiver.follow(self.way.source("customs"))
            await receiver.until(count)
            return await receiver.held()
        finally:
            await receiver.close()

    async def confirmed(self, after: int) -> None:
        """Have customs say that it has everything up to a sequence."""
        async with aclosing(self.way.source("customs").follow("customs", after)) as batches:
            await anext(batches)


@pytest.fixture
async def bed(any_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    create(any_url, outbox.METADATA)
    clock, zone = Clock(), Zone(tmp_path / "zone")
    log = Log(any_url, clock=clock)
    kept = Retention(log.database, KEEP, clock)
    service = EventService(log.outbox, SOURCE, heard=kept.heard)
    # Certificates are not as old as events: the node's own clock stays.
    async with serving(zone, service) as host, AsyncExitStack() as stack:
        yield Bed(log, clock, kept, OverGrpc(zone, host, stack), any_url, tmp_path)
        log.outbox.stop()
    await log.close()


async def test_a_follower_goes_on_and_a_new_one_is_told_until_it_gives_up_what_is_gone(bed: Bed) -> None:
    await bed.log.put(*(event(number) for number in range(600)))
    assert await bed.followed("one", 600) == list(range(600))
    await bed.confirmed(600)
    bed.clock.ahead += KEEP + DAY
    assert bed.retention.oldest() is None
    assert (await bed.retention.sweep(), bed.retention.removed) == (600, 600)
    assert bed.retention.oldest() is None
    await bed.log.put(event(600), event(601))
    assert await bed.retention.sweep() == 0
    bed.clock.ahead += DAY
    assert 0 <= (bed.retention.oldest() or -1) - DAY.total_seconds() < 60
    assert await bed.followed("one", 2) == list(range(602))
    two, said = await bed.receiver("two"), io.StringIO()
    with logging_to(said):
        follower = two.follow(bed.way.source("customs"))
        async with asyncio.timeout(20):
            while "no longer has" not in said.getvalue():
                await asyncio.to_thread(int)
        assert not follower.connected
        assert await two.held() == []
        # What `hutong events resume` does.
        assert await two.database.write(partial(inbox.resume, source=SOURCE, after=600)) == 600
        assert await two.until(2) == [600, 601]
    lines = [line for line in map(json.loads, said.getvalue().splitlines()) if "no longer has" in line["message"]]
    assert [(line["level"], line["source"], line["after"], line["kept_after"]) for line in lines] == [
        ("error", SOURCE, 0, 600)
    ]
    assert await two.database.write(partial(inbox.resume, source=SOURCE, after=5)) >= 600
    await two.close()


async def test_a_source_that_was_restored_gives_again_what_it_still_has(bed: Bed) -> None:
    """Its backup is of a moment when some events were gone, and others not yet there: none is lost or doubled."""
    await bed.log.put(*(event(number, event_id=f"e{number}") for number in range(4)))
    assert await bed.followed("one", 4) == [0, 1, 2, 3]
    await bed.confirmed(2)
    bed.clock.ahead += KEEP + DAY
    assert await bed.retention.sweep() == 2
    await bed.log.put(event(4, event_id="e4"))
    assert await bed.followed("one", 1) == [0, 1, 2, 3, 4]
    await bed.log.database.write(_restore)
    receiver = await bed.receiver("one")
    receiver.follow(bed.way.source("customs"))
    async with asyncio.timeout(20):
        while await receiver.inbox.position(SOURCE) != 4:
            await asyncio.to_thread(int)
    await bed.log.tell(event(5))
    await receiver.until(1)
    assert await receiver.held() == [0, 1, 2, 3, 4, 5]
    await receiver.close()


def _restore(connection: sa.Connection) -> None:
    """Have the log as it was when it had four events."""
    connection.execute(sa.delete(outbox.OUTBOX).where(outbox.OUTBOX.c.sequence > 4))
    connection.execute(sa.text("UPDATE outbox_clock SET sequence = 4"))


async def test_two_replicas_sweep_while_events_are_put_and_read(bed: Bed) -> None:
    await bed.log.put(*(event(number, "customs" if number % 2 else "taxation") for number in range(3000)))
    await bed.confirmed(2800)
    bed.clock.ahead += KEEP + DAY
    replica = Log(bed.url, clock=bed.clock)
    other = Retention(replica.database, KEEP, bed.clock)

    async def put() -> None:
        for number in range(3000, 3020):
            await replica.put(event(number, "customs"))

    gone = await asyncio.gather(bed.retention.sweep(), other.sweep(), put())
    assert (gone[0] or 0) + (gone[1] or 0) == 1400
    async with aclosing(replica.outbox.follow("customs", 2800)) as batches:
        assert numbers(await take(batches, 120)) == [*range(2801, 3000, 2), *range(3000, 3020)]
    async with aclosing(replica.outbox.follow("taxation", 0)) as batches:
        assert len(await take(batches, 1500)) == 1500
    await replica.close()


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Field]:
    async with field(tmp_path) as made:
        yield made


async def test_a_stream_that_ends_before_what_is_left_goes_on(made: Field) -> None:
    """The broker was away, everybody was told by the source itself, and what it lacks is gone."""
    first = await made.publish()
    await made.tell(event(0))
    await until(lambda: first.published == 1)
    await first.stop()
    await made.log.put(event(1), event(2))
    await made.log.database.write(lambda c: retention.heard(c, "customs/node", 3, made.clock()))
    assert await made.log.database.write(lambda c: retention.remove(c, made.clock() + DAY)) == 3
    second = await made.publish()
    receiver, carried = made.receiver(), made.carried(away=True)
    await receiver.database.write(partial(inbox.resume, source=SOURCE, after=3))
    receiver.follow(carried)
    await made.tell(event(3))
    assert await receiver.until(1) == [3]
    assert (second.published, carried.carried) == (1, 1)


async def test_a_stream_goes_on_where_what_is_left_begins(made: Field) -> None:
    """What the log still has is not passed over, though more came since than is gone."""
    first = await made.publish()
    await made.tell(event(0))
    await until(lambda: first.published == 1)
    await first.stop()
    await made.log.put(event(1), event(2), event(3))
    await made.log.database.write(lambda c: retention.heard(c, "customs/node", 2, made.clock()))
    assert await made.log.database.write(lambda c: retention.remove(c, made.clock() + DAY)) == 2
    await made.publish()
    receiver, carried = made.receiver(), made.carried(away=True)
    await receiver.database.write(partial(inbox.resume, source=SOURCE, after=2))
    receiver.follow(carried)
    assert await receiver.until(2) == [2, 3]
    assert carried.carried == 2


async def test_the_recognition_service_hears_and_a_config_says_how_long(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path / "zone")
    try:
        await mesh.start()
        await mesh.start_department("publicsecurity")
        assert mesh.node is not None
        async with asyncio.timeout(20):
            while not (known := await mesh.node.database.read(retention.readers)):
                pass
        assert [(reader.node, reader.sequence) for reader in known] == [("publicsecurity/node", 0)]
        assert "hutong_events_removed" in {name for name, _, _ in mesh.node.host.telemetry.readings()}
    finally:
        await mesh.stop()
    with pytest.raises(ValidationError):
        OutboxSection.model_validate({"keep": "23h"})


def config_of(mesh: Mesh, agency: str) -> Path:
    """Write the config of a node that is stopped."""
    node, tls, log = mesh.zone.node(f"{agency}/node"), mesh.zone.tls(f"{agency}/node"), mesh.zone.log(f"{agency}/node")
    own = {
        "recognition": f'keys = "{mesh.folder}/keys"\nsigning = "{mesh.folder}/recognition/signing"\n',
        "publicsecurity": "",
    }
    url = mesh.url if agency == "recognition" else f"sqlite+aiosqlite:///{mesh.folder}/{agency}.db"
    path = mesh.folder / f"{agency}.toml"
    path.write_text(f"""secret = "{mesh.secret}"
{own[agency]}[node]
zone = "{node.zone}"
agency = "{agency}"
listen = "127.0.0.1:0"
[tls]
certificate = "{tls.certificate}"
key = "{tls.key}"
bundle = "{tls.bundle}"
revoked = "{tls.revoked}"
[store]
url = "{url}"
[policy]
files = ["{mesh.policy}"]
[log]
url = "{log.url}"
key = "{log.key}"
keys = "{log.keys}"
""")
    return path


def command(config: Path, *arguments: str) -> Any:
    return json.loads(run("events", *arguments, "--config", config, "--json").stdout)


def test_commands(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path / "zone")
    source, department = config_of(mesh, "recognition"), config_of(mesh, "publicsecurity")
    assert command(source, "readers")["error"]["reason"] == Reason.STORE_NOT_MIGRATED
    for config in (source, department):
        assert run("db", "upgrade", "--config", config).exit_code == 0
    made = engine(mesh.url, writer=True)
    with made.begin() as connection:
        outbox.put(connection, [event(1, "publicsecurity"), event(2)], START)
        retention.heard(connection, "publicsecurity/node", 1, START)
        retention.heard(connection, "customs/node", 0, START)
        assert retention.remove(connection, START + KEEP) == 1
    made.dispose()
    told = command(source, "readers")
    assert told["end"] == 2
    assert [(one["node"], one["has"], one["gone"]) for one in told["readers"]] == [
        ("customs/node", 0, 0),
        ("publicsecurity/node", 1, 1),
    ]
    assert "publicsecurity/node" in run("events", "readers", "--config", source).stdout
    assert command(source, "forget", "customs/node") == {"forgotten": "customs/node"}
    assert command(source, "forget", "customs/node")["error"]["reason"] == Reason.READER_UNKNOWN
    for after, reached in ((7, 7), (3, 7), (9, 9)):
        told = command(department, "resume", SOURCE, "--after", str(after))
        assert told == {"source": SOURCE, "after": reached}
    for config, arguments in ((department, ("readers",)), (source, ("resume", SOURCE, "--after", "1"))):
        assert command(config, *arguments)["error"]["reason"] == Reason.CONFIG_INVALID
