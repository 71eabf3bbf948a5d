"""Tables: read by watermark without losing a row that ties, and read live without copying one."""

import datetime as dt
import decimal
import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import mapping, reading, sql
from adapters.document import SqlSpec
from adapters.mapping import Mapping
from adapters.reading import LiveTable
from adapters.rows import Cause, Mapped, Unmapped
from adapters.sql import SqlTable
from services.kit.errors import InvalidArgument, Reason
from tests.adapters.specimens import cells, outcomes, uscc

TEXT = """
mapping: commerce.legacy
version: 1
record: commerce.Enterprise
source_system: legacy
source: {kind: sql, table: firms, key: [id], watermark: changed, batch: 3, null_words: ["-"]}
fields:
  uscc: {column: code, required: true}
  name: title
  establish_date: founded
  reg_capital_amt: capital
  entity_type: {column: kind, parse: upper}
"""


def spec(**changed: object) -> SqlSpec:
    return SqlSpec.model_validate({"kind": "sql", "table": "firms", "key": ["id"], "watermark": "changed"} | changed)


def firms(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "firms",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("code", sa.String(20)),
        sa.Column("title", sa.String(100)),
        sa.Column("kind", sa.String(20)),
        sa.Column("founded", sa.Date),
        sa.Column("capital", sa.Numeric(18, 2)),
        sa.Column("changed", sa.DateTime(timezone=True)),
    )


@pytest.fixture
def engine(any_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(any_url.replace("sqlite+aiosqlite", "sqlite"))
    firms(metadata := sa.MetaData())
    metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def legacy() -> Mapping:
    return mapping.loads(TEXT, "legacy")


def at(minute: int) -> dt.datetime:
    return dt.datetime(2026, 3, 1, 12, minute, tzinfo=dt.UTC)


def put(engine: sa.Engine, *rows: dict[str, object]) -> None:
    table = firms(sa.MetaData())
    with engine.begin() as connection:
        for row in rows:
            connection.execute(table.insert().values(row))


def firm(number: int, minute: int | None, **more: object) -> dict[str, object]:
    changed = at(minute) if minute is not None else None
    return {"id": number, "code": uscc(number), "title": f"Firm {number}", "changed": changed} | more


def ids(rows: SqlTable) -> list[str]:
    return [row.position for row in rows]


def test_a_table_is_read_whole_in_the_order_of_its_watermark(engine: sa.Engine, legacy: Mapping) -> None:
    put(engine, *(firm(n, minute=n % 4) for n in range(1, 12)), firm(50, None), firm(51, None))
    read = reading.read(legacy, engine)
    mapped, unmapped = outcomes(read)
    assert unmapped == []
    assert sorted(int(m.position) for m in mapped) == [*range(1, 12), 50, 51]
    assert [m.position for m in mapped[2:]] == ["4", "8", "1", "5", "9", "2", "6", "10", "3", "7", "11"]
    assert (read.done, read.total) == (13, 13)


def test_a_resume_reads_ties_again_and_misses_nothing(engine: sa.Engine) -> None:
    put(engine, *(firm(n, minute=n // 3) for n in range(9)))
    first = SqlTable(engine, spec(batch=2))
    assert ids(first) == [str(n) for n in range(9)]
    # A transaction that began earlier commits late: same watermark as the last row read, smaller key.
    put(engine, firm(100, minute=2) | {"id": -1}, firm(101, minute=3))
    again = SqlTable(engine, spec(batch=2), since=first.resume)
    assert ids(again) == ["-1", "6", "7", "8", "101"]
    assert again.total == 5
    assert SqlTable(engine, spec(), since=again.resume).total == 1


def test_a_reading_that_stops_half_way_goes_on_from_its_resume(engine: sa.Engine, legacy: Mapping) -> None:
    put(engine, *(firm(n, minute=n) for n in range(10)))
    read = reading.read(legacy, engine)
    taken = [outcome.position for outcome, _ in zip(read, range(5), strict=False)]
    rest = [outcome.position for outcome in reading.read(legacy, engine, since=read.resume)]
    assert set(taken) | set(rest) == {str(n) for n in range(10)}
    assert rest[0] == taken[-1] or rest[0] == "5"


def test_a_table_without_watermark_is_read_whole_every_time(engine: sa.Engine) -> None:
    put(engine, *(firm(n, minute=0) for n in range(5)))
    table = SqlTable(engine, spec(watermark=None, batch=2))
    assert ids(table) == ["0", "1", "2", "3", "4"]
    assert table.resume is None
    assert ids(SqlTable(engine, spec(watermark=None), since="datetime:2030-01-01")) == ["0", "1", "2", "3", "4"]


def test_rows_whose_key_is_null_are_read_too(engine: sa.Engine) -> None:
    put(engine, firm(1, 1, kind="a"), firm(2, 2), firm(3, 3, kind="b"))
    assert ids(SqlTable(engine, spec(key=["kind"], batch=1))) == ["", "a", "b"]


def test_values_become_text_and_null_words_nulls(engine: sa.Engine, legacy: Mapping) -> None:
    put(
        engine,
        firm(1, 1, title=" Tea ", kind="llc", founded=dt.date(2020, 2, 29), capital=decimal.Decimal("1250.50")),
        firm(2, 2, title="-", code=None),
    )
    (first, second) = SqlTable(engine, spec(null_words=["-"]))
    assert cells(first) | {"changed": ""} == {
        "id": "1", "code": uscc(1), "title": "Tea", "kind": "llc", "founded": "2020-02-29", "capital": "1250.50",
        "changed": "",
    }  # fmt: skip
    assert cells(second)["title"] is None
    mapped, unmapped = outcomes(reading.read(legacy, engine))
    assert 'value: "1250.50"' in str(mapped[0].message)
    assert [(u.position, u.reason) for u in unmapped] == [("2", Cause.KEY_MISSING)]
    again = reading.retry(legacy, unmapped[0].position, unmapped[0].original)
    assert again == unmapped[0]
    repaired = json.loads(unmapped[0].original) | {"code": uscc(2)}
    assert isinstance(reading.retry(legacy, "2", json.dumps(repaired).encode()), Mapped)
    broken = reading.retry(legacy, "2", b"[1]")
    assert isinstance(broken, Unmapped)
    assert broken.reason is Cause.NOT_DECODABLE


def test_what_the_database_lacks_is_told(engine: sa.Engine, legacy: Mapping) -> None:
    with pytest.raises(InvalidArgument, match="no table 'frims'"):
        SqlTable(engine, spec(table="frims"))
    for changed in ({"key": ["idd"]}, {"watermark": "chanegd"}):
        with pytest.raises(InvalidArgument, match=r"did you mean '(id|changed)'") as caught:
            SqlTable(engine, spec(**changed))
        assert caught.value.reason is Reason.MAPPING_COLUMN_MISSING
    with pytest.raises(InvalidArgument, match="did you mean 'title'"):
        SqlTable(engine, spec(), needs=["titel"])
    for token in ("yesterday", "datetime:soon", "int:x"):
        with pytest.raises(InvalidArgument) as refused:
            reading.read(legacy, engine, since=token)
        assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


def test_locations_are_urls_or_files_and_errors_hold_no_password() -> None:
    for location in ("nowhere.db", "klingon://u:pass@h/d", "postgresql+psycopg://u:pass@127.0.0.1:1/d"):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the text is what matters
            sql.reflected(sql.engine_for(location), spec())
        assert "pass" not in str(caught.value)


MARKS = st.one_of(
    st.datetimes(timezones=st.sampled_from([dt.UTC, None])), st.dates(), st.integers(), st.text(max_size=8),
    st.decimals(allow_nan=False, allow_infinity=False), st.binary(max_size=8),
)  # fmt: skip


@given(mark=MARKS)
def test_any_watermark_is_read_back_from_its_text(mark: object) -> None:
    assert sql.from_text(sql.to_text(mark)) == mark


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(minutes=st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=12), batch=st.integers(1, 5))
def test_every_row_is_read_once_whatever_the_ties(minutes: list[int | None], batch: int) -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    firms(metadata := sa.MetaData())
    metadata.create_all(engine)
    put(engine, *(firm(n, minute) for n, minute in enumerate(minutes)))
    assert sorted(ids(SqlTable(engine, spec(batch=batch))), key=int) == [str(n) for n in range(len(minutes))]
    engine.dispose()


def test_a_table_answers_live_by_field(engine: sa.Engine, legacy: Mapping) -> None:
    put(engine, *(firm(n, 0, title="Same") for n in range(1, 4)), firm(9, 0, title="Other"), firm(10, 0, code="bad"))
    live = LiveTable(legacy, engine)
    (found,) = live.fetch(uscc=uscc(2))
    assert isinstance(found, Mapped)
    assert found.position == "2"
    assert [o.position for o in live.fetch(name="Same")] == ["1", "2", "3"]
    assert [o.position for o in live.fetch(2, name="Same")] == ["1", "2"]
    assert [o.position for o in live.fetch(name="Same", uscc=uscc(9))] == []
    assert [type(o).__name__ for o in live.fetch(name="Firm 10")] == ["Unmapped"]
    assert list(live.fetch(name="' OR 1=1 --")) == []
    put(engine, firm(11, 0, title="New"))
    assert [o.position for o in live.fetch(name="New")] == ["11"]


def test_a_date_or_number_can_be_asked_for_live(engine: sa.Engine, legacy: Mapping) -> None:
    put(engine, firm(1, 0, founded=dt.date(2020, 2, 29)), firm(2, 0, founded=dt.date(2021, 1, 1)))
    assert [o.position for o in LiveTable(legacy, engine).fetch(establish_date="2020-02-29")] == ["1"]


def test_what_is_computed_cannot_be_searched_live(engine: sa.Engine, legacy: Mapping) -> None:
    live = LiveTable(legacy, engine)
    for path in ("entity_type", "address"):
        with pytest.raises(InvalidArgument, match=f"{path} is no plain column"):
            list(live.fetch(**{path: "x"}))
    with pytest.raises(InvalidArgument, match="has no field 'nmae'"):
        list(live.fetch(nmae="x"))
