"""Two replicas of a room on one PostgreSQL: one log, every record, every event and reminder once; also over a failure.

What each part does by itself is tested beside it (`tests/log`, `tests/events`, `tests/recognition`,
`tests/supervision`); here are whole nodes, a server that ends their connections, and processes that are killed.
"""

import asyncio
import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Iterable
from pathlib import Path

from services.cli.rooms import GATEWAY, RECOGNITION
from services.cli.zone import Zone
from services.kit import config
from services.kit.config import DepartmentConfig
from services.kit.department import DepartmentNode
from services.kit.errors import Unavailable
from services.kit.events.inbox import Inbox
from services.kit.events.seam import Batch, Event
from services.kit.log import verifying
from services.kit.records import migrations
from services.kit.records.database import T
from services.kit.records.store import RecordStore
from services.recognition.scheduler import Scheduler
from tests.chaos.proving import kept
from tests.databases import Postgres
from tests.exchange.mesh import ROOMS
from tests.exchange.records import EXPORTER, RECORDS, declaration
from tests.exchange.test_doors import CLEARED_STATUS
from tests.recognition.desk import Bed as Desk
from tests.recognition.desk import build, desk
from tests.recognition.test_cases import accepted
from tests.state.bed import Bed, ask, rows, two, value
from tests.state.twins import NODES, prepared, running
from tests.zone import now

OFTEN = dt.timedelta(milliseconds=5)
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hutong'"


async def test_departments_have_one_log_and_one_store(tmp_path: Path, postgres_server: Postgres) -> None:
    """Two nodes answer and are loaded at once, while the server ends every connection now and then."""
    with two(postgres_server) as (store, log):
        bed = Bed(tmp_path / "node", store, log)
        async with bed.serving(load=True) as mesh:
            settings = config.read(bed.file, DepartmentConfig)
            twin = DepartmentNode(ROOMS["customs"], settings, store, mesh.zone.frame(settings))
            await twin.start()
            first = mesh.departments["customs"]
            asked = 0
            try:
                for number in range(6):
                    # Whom the gateway asks takes turns.
                    mesh.departments["customs"] = twin if number % 2 else first
                    await mesh.replace_gateway()
                    loads = [
                        mesh.load("customs", [declaration(f"99992026900{n:03d}{number:04d}", EXPORTER, CLEARED_STATUS)])
                        for n in range(4)
                    ]
                    answers = await asyncio.gather(*(ask(mesh) for _ in range(5)), *loads)
                    assert all(answers[:5])
                    asked += 5
                    postgres_server.execute(CUT)
            finally:
                mesh.departments["customs"] = first
                await twin.stop()
        found = bed.told("verify")
        assert found["ok"], found
        assert found["compared"] >= asked
        assert found["records"] == len(RECORDS["customs"]) + 24
        assert value(store, "SELECT seq FROM change_clock") == found["records"]


async def test_reminders_are_sent_once(tmp_path: Path, postgres_server: Postgres) -> None:
    """Both look after what is due; each loses its connections in the middle of it."""
    with postgres_server.fresh() as url:
        async with desk(url, tmp_path) as bed:
            twin = build(url, bed.folder, bed.clock)
            cases = [await accepted(bed, subject=f"91350200M{number:09d}") for number in range(6)]
            async with (
                asyncio.timeout(60),
                Scheduler(bed.cases, bed.clock, OFTEN).running(),
                Scheduler(twin.cases, bed.clock, OFTEN).running(),
            ):
                for _ in range(10):
                    bed.clock.move(days=3)
                    postgres_server.execute(CUT)
                    await _nothing_due(bed)
            # Each told once to each agency, or this fails.
            sent = await bed.reminded()
            twin.database.close()
        assert len(sent) == 8 * len(cases)


async def _nothing_due(bed: Desk) -> None:
    """Wait until what is due by now was done, by asking the store."""
    due: dt.datetime | None = bed.clock()
    while due is not None and due <= bed.clock():
        with contextlib.suppress(Unavailable):
            due = await bed.cases.next_due()


async def test_events_are_kept_once(postgres_url: str) -> None:
    """Two receivers follow one source; the batches that one has not kept, the other does, in whatever order."""
    migrations.upgrade(postgres_url, ROOMS["customs"].migrations)
    stores = [RecordStore(postgres_url, ROOMS["customs"].catalogue(), now) for _ in range(2)]
    inboxes = [Inbox(store, "customs") for store in stores]
    events = [Event(f"e{n}", n, "customs", "result.revoked", "k", now(), "{}") for n in range(1, 301)]
    batches = [Batch(tuple(events[at : at + 10]), at + 10) for at in range(0, 300, 10)]
    try:
        kept = await asyncio.gather(*(inbox.keep("recognition/node", batch) for batch in batches for inbox in inboxes))
        assert sorted(event.sequence for some in kept for event in some) == list(range(1, 301))
        assert await inboxes[0].position("recognition/node") == 300
        listed = await inboxes[1].list(limit=1000)
        assert [event.event_id for event in listed.events] == sorted({e.event_id for e in listed.events}, key=_number)
    finally:
        for store in stores:
            await store.close()


def _number(name: str) -> int:
    return int(name[1:])


CASES, ROWS, KILLED_AT = 12, 40, 40


async def test_processes_share_everything(tmp_path: Path, postgres_server: Postgres) -> None:
    """Two processes of recognition, supervision, customs and the gateway each: one of each is killed amid its work."""
    with prepared(tmp_path, postgres_server) as (zone, copy):
        async with running(zone, copy) as both:
            authorization, ticket = await asyncio.to_thread(both.ticket, ROWS)
            async with asyncio.TaskGroup() as work:
                cases = [work.create_task(both.submit(number)) for number in range(CASES)]
                left = work.create_task(_each(both.reserve(ticket) for _ in range(ROWS)))
                work.create_task(_each(both.look(authorization) for _ in range(ROWS)))
                work.create_task(_each(both.query(number) for number in range(ROWS)))
                while not both.busy(KILLED_AT):  # noqa: ASYNC110 - the work is what is waited for
                    await asyncio.sleep(0.001)
                await both.kill()
                by_then = both.answered.total()
            # It was in the middle of it, and the other one has done the rest.
            assert by_then < CASES + 4 * ROWS == both.answered.total()
            assert all(both.answered[both.second, node] for node in NODES)
            assert sorted(left.result()) == list(range(ROWS))
            supervised = zone.supervision().store.read_url(tmp_path)
            used = f"SELECT rows_used FROM authorization_head WHERE authorization_id = '{authorization}'"
            assert value(supervised, used) == ROWS
            await _told_once(zone, {case.result() for case in cases})
        logs = kept(zone)
        for node, entries in (("customs", ROWS), ("supervision", ROWS), ("recognition", CASES), (GATEWAY, ROWS)):
            with logs[node].reading() as connection:
                assert verifying.verify_all(connection, logs[node].key).size >= entries, node


async def _each(work: Iterable[Awaitable[T]]) -> list[T]:
    return [await one for one in work]


async def _told_once(zone: Zone, cases: set[str]) -> None:
    """Wait until customs has heard all that it was told; each reminder is one, and each event was kept once."""
    assert len(cases) == CASES
    told, heard = zone.store_url(RECOGNITION), zone.store_url("customs")
    sent = "SELECT event_id FROM outbox WHERE audience = 'customs' ORDER BY 1"
    kept_ids = "SELECT event_id FROM inbox_event ORDER BY 1"
    listed = "SELECT case_id, stage, threshold FROM reminder ORDER BY 1, 2, 3"

    def settled() -> bool:
        # The survivor may still have some of the last cases' to send.
        return {case for case, *_ in rows(told, listed)} == cases and rows(told, sent) == rows(heard, kept_ids)

    async with asyncio.timeout(30):
        while not settled():  # noqa: ASYNC110 - processes have no event of ours
            await asyncio.sleep(0.05)
    reminders = rows(told, listed)
    by_case = Counter(case for case, *_ in reminders)
    assert by_case.keys() == cases
    assert len(set(by_case.values())) == 1
    said = ", ".join(f"payload::json->>'{name}'" for name in ("case_id", "stage_code", "threshold"))
    reminded = rows(told, f"SELECT {said}, audience FROM outbox WHERE kind = 'reminder' ORDER BY 1, 2, 3, 4")
    assert len(set(reminded)) == len(reminded)
    assert list(dict.fromkeys(tuple(of) for *of, _ in reminded)) == reminders
    assert len(rows(told, sent)) >= CASES
