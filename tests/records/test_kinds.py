"""Every kind of value a record may hold, in a store of the specimen types: columns, limits, and conditions in SQL."""

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from services.kit.records import conditions, migrations, writer
from services.kit.records.ingest import RunInfo, ingest
from services.kit.records.source import RecordQuery
from services.kit.records.store import Draft, RecordStore
from tests.policy import specimen
from tests.records.bed import Good, Hand

INFO = RunInfo("specimens", "museum.Specimen", "s", "museum")
TEXTS = (
    "weight >= 99.5",
    "value < 0",
    "value IN (0, 100)",
    "mass != 1000",
    "found_at > '2022-02-03T04:05:06.789+08:00'",
    "found_at <= :now",
    "bought_on < '2023-01-01'",
    "bought_on = :today",
    "period >= '2024-03'",
    "dangerous = true",
    "colour IN (RED, GREEN)",
    "NOT (count > 3)",
    "limit = 0",
    "limit IS NULL OR count IS NOT NULL",
    "holder = 'John Smith' OR code >= '王'",
)
GIVEN: dict[str, Any] = {"now": dt.datetime(2021, 5, 1, tzinfo=dt.UTC), "today": "2024-02-29"}


@pytest.fixture
async def museum(any_url: str, tmp_path: Path, clock: Hand) -> AsyncIterator[RecordStore]:
    """A store whose migrations were written a moment ago."""
    migrations.revise(any_url, tmp_path / "migrations", specimen.catalogue())
    migrations.upgrade(any_url, tmp_path / "migrations")
    async with RecordStore(any_url, specimen.catalogue(), clock) as store:
        await store.check_migrated(tmp_path / "migrations")
        yield store


async def test_every_kind_has_its_column(any_url: str, museum: RecordStore) -> None:
    assert migrations.differences(any_url, museum.catalogue) == []


@pytest.mark.parametrize("amount", ["10000000000000", "-9223372036854.775808", "1e30", "NaN", "x", ""])
async def test_numbers_that_no_column_holds(museum: RecordStore, amount: str) -> None:
    def item(code: str, number: str) -> Good:
        value = {"currency_code": "CNY", "amount": {"value": number}}
        return Good(code, code.encode(), specimen.message_class("Specimen")(code=code, value=value))  # pyright: ignore[reportCallIssue]

    report = await ingest(museum, [item("a", "9223372036854.775807"), item("b", amount)], INFO)
    assert (report.loaded, report.reasons) == (1, {"VALUE_INVALID": 1})


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=specimen.records(specimen.specimen_type()), code=st.text("abc王", min_size=1, max_size=3))
async def test_conditions_answer_as_they_do_in_hand(museum: RecordStore, record: Any, code: str) -> None:
    kind = specimen.specimen_type()
    record.code = code
    draft = Draft(kind, record, "museum")
    try:
        writer.encode(museum.tables.of(kind), draft)
    except writer.Unstorable:
        assume(False)
    await museum.append([draft])
    parsed = [conditions.parse(t, kind, frozenset(GIVEN)) for t in TEXTS]
    groups = (*((c,) for c in parsed), ())
    page = await museum.fetch(RecordQuery(kind, key=code, groups=groups, params=GIVEN))
    held = [c.evaluate(record, GIVEN) is True for c in parsed]
    assert [r.truth for r in page.records] == [(*held, True)]
    assert page.records[0].body == writer.canonical(record)
