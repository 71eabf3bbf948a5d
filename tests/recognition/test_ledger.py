"""Cases in the store, by themselves."""

import datetime as dt
from dataclasses import replace

import pytest
import sqlalchemy as sa

from services.kit.errors import Aborted
from services.recognition import codec, ledger
from services.recognition.events import Event, Kind
from services.recognition.ledger import Head, NewCase, Selection
from services.recognition.tables import CASE_AGENCY, EVENT
from tests.recognition.desk import START, Bed


def head(case_id: str, number: int = 0) -> Head:
    return Head(
        case_id,
        1,
        f"r-{case_id}",
        "commerce/window",
        "DEMO",
        "1.0.0",
        "cn.uscc",
        "S",
        "commerce",
        "APPLIED",
        START + dt.timedelta(seconds=number),
        None,
        None,
        "CN@1",
    )


def event(number: int, kind: Kind = Kind.START) -> Event:
    return Event(f"e-{number}", kind, "A", "commerce", START, START)


async def test_created_loaded_and_added_to(any_bed: Bed) -> None:
    first = head("a")
    made = await any_bed.database.write(
        lambda c: ledger.create(c, NewCase(first, ["taxation", "commerce"], [event(1)]))
    )
    assert made == ledger.Stored(first, (event(1),))
    stored = await any_bed.database.read(lambda c: ledger.load(c, "a"))
    assert stored == made

    def add(connection: sa.Connection) -> ledger.Stored:
        found = ledger.load(connection, "a", lock=True)
        assert found is not None
        return ledger.append(
            connection, found, [event(2), event(3)], replace(found.head, version=3, status="ACCEPTED", next_at=START)
        )

    added = await any_bed.database.write(add)
    assert await any_bed.database.read(lambda c: ledger.load(c, "a")) == added
    assert await any_bed.database.read(lambda c: ledger.load_events(c, "a", 1)) == (event(2), event(3))
    rows = [(r["agency"], r["case_id"]) for r in await any_bed.rows(CASE_AGENCY)]
    assert sorted(rows) == [("commerce", "a"), ("taxation", "a")]
    assert await any_bed.database.read(lambda c: ledger.load(c, "b")) is None


async def test_a_request_is_used_once(any_bed: Bed) -> None:
    assert await any_bed.database.write(lambda c: ledger.create(c, NewCase(head("a"), [], [event(1)])))
    twin = replace(head("b"), request_id="r-a")
    assert await any_bed.database.write(lambda c: ledger.create(c, NewCase(twin, [], [event(1)]))) is None
    assert await any_bed.database.read(lambda c: ledger.find_request(c, "commerce/window", "r-a")) == "a"
    assert await any_bed.database.read(lambda c: ledger.find_request(c, "taxation/window", "r-a")) is None


async def test_many_at_once(any_bed: Bed) -> None:
    cases = [NewCase(head(f"c-{n:03}", n), ["taxation"], [event(i) for i in range(1, 4)]) for n in range(120)]
    assert await any_bed.database.write(lambda c: ledger.bulk_create(c, cases)) == 360
    assert await any_bed.database.write(lambda c: ledger.bulk_create(c, [])) == 0
    found = await any_bed.database.read(
        lambda c: ledger.load_many(c, ledger.list_heads(c, Selection(agency="taxation"), limit=200))
    )
    assert [s.head.case_id for s in found] == [f"c-{n:03}" for n in reversed(range(120))]
    assert {len(s.events) for s in found} == {3}
    assert await any_bed.database.read(lambda c: ledger.known(c, ["c-001", "x"])) == {"c-001"}
    with pytest.raises(Aborted):
        await any_bed.database.write(lambda c: ledger.bulk_create(c, [NewCase(head("new"), [], []), cases[0]]))
    assert await any_bed.database.read(lambda c: ledger.known(c, ["new"])) == set()


async def test_an_event_id_is_used_once_per_case(any_bed: Bed) -> None:
    await any_bed.database.write(lambda c: ledger.bulk_create(c, [NewCase(head("a"), [], [event(1)])]))
    row = {"case_id": "a", "sequence": 2, "event_id": "e-1", "body": codec.encode(event(1))}
    with pytest.raises(Aborted):
        await any_bed.database.write(lambda c: c.execute(sa.insert(EVENT).values(**row)).rowcount)


async def test_what_is_due(any_bed: Bed) -> None:
    hour = dt.timedelta(hours=1)
    cases = [
        NewCase(replace(head(name), next_at=at), [], [event(1)])
        for name, at in (("late", START + hour), ("soon", START), ("never", None), ("past", START - hour))
    ]
    await any_bed.database.write(lambda c: ledger.bulk_create(c, cases))
    assert await any_bed.database.read(lambda c: ledger.due(c, START, 10)) == ["past", "soon"]
    assert await any_bed.database.read(lambda c: ledger.due(c, START, 1)) == ["past"]
    assert await any_bed.database.read(ledger.next_due) == START - hour
