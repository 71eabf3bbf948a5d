"""Every row that is read becomes a version, is found unchanged, or goes to quarantine; on every store."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hutong.api.common.v1 import common_pb2
from services.kit.errors import FailedPrecondition, Internal, Reason, Unavailable
from services.kit.records import ingest as ingests
from services.kit.records import quarantine, runs
from services.kit.records.ingest import Duplicates, Item, ingest, retry
from services.kit.records.quarantine import Entry, Quarantine, Standing
from services.kit.records.runs import Report, RunInfo, RunState
from services.kit.records.store import RecordStore
from tests.records.bed import ENTERPRISE, Bad, Good, Hand, enterprise, names, put, whole

INFO = RunInfo(
    mapping="registry-2019",
    record_type="commerce.Enterprise",
    source="fujian.csv",
    source_system="registry",
    mapping_version="1",
    layout=("uscc", "name"),
)


def row(line: int, text: str) -> Item:
    """Map `uscc,name` as a mapping would; what has no comma is no row."""
    uscc, comma, name = text.partition(",")
    if not comma:
        return Bad(str(line), text.encode(), "COLUMN_COUNT", "one column of two")
    return Good(str(line), text.encode(), enterprise(uscc, name))


def rows(*texts: str) -> list[Item]:
    return [row(n, t) for n, t in enumerate(texts, 2)]


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.read, report.loaded, report.unchanged, report.quarantined


async def entries(store: RecordStore, state: Standing | None = Standing.OPEN) -> list[Entry]:
    return sorted(await Quarantine(store).entries(state=state), key=lambda e: int(e.position))


async def stored_runs(store: RecordStore) -> list[tuple[str, int, int, int, int]]:
    t = store.tables.ingest_run
    select = sa.select(t.c.state, t.c.read, t.c.loaded, t.c.unchanged, t.c.quarantined).order_by(t.c.started_at, t.c.id)
    return [tuple(r) for r in await store.read(lambda c: c.execute(select).all())]


async def test_every_row_is_accounted_for(store: RecordStore, clock: Hand) -> None:
    seen: list[Report] = []
    report = await ingest(store, rows("a,1", "shifted", "b,2", "a,1", ",nobody"), INFO, progress=seen.append, batch=2)
    assert counts(report) == (5, 2, 1, 2)
    assert report.reasons == {"COLUMN_COUNT": 1, "KEY_MISSING": 1}
    assert [r.read for r in seen] == [2, 4, 5]
    assert seen[-1] == report
    assert await whole(store) == ["a", "b"]
    assert await stored_runs(store) == [("DONE", 5, 2, 1, 2)]
    shifted, nobody = await entries(store)
    assert (shifted.original, shifted.reason, shifted.detail) == (b"shifted", "COLUMN_COUNT", "one column of two")
    assert (shifted.position, shifted.source, shifted.mapping, shifted.layout) == (
        "3",
        "fujian.csv",
        "registry-2019",
        ("uscc", "name"),
    )
    assert (shifted.first_seen, shifted.last_seen, shifted.times_seen) == (clock.now, clock.now, 1)
    assert (nobody.original, nobody.run_id) == (b",nobody", report.run_id)


async def test_an_empty_source(store: RecordStore) -> None:
    assert counts(await ingest(store, [], INFO)) == (0, 0, 0, 0)
    assert await stored_runs(store) == [("DONE", 0, 0, 0, 0)]


async def test_where_a_version_came_from(store: RecordStore) -> None:
    report = await ingest(store, rows("a,1"), INFO)
    t = store.tables.of(ENTERPRISE).table
    select = sa.select(t.c["_run_id"], t.c["_position"], t.c["_source_system"])
    assert await store.read(lambda c: c.execute(select).all()) == [(report.run_id, "2", "registry")]


async def test_the_same_again_changes_nothing(store: RecordStore, clock: Hand) -> None:
    source = rows("a,1", "bad", "b,2", "bad", "a,other", "b,2", "bad")
    first = await ingest(store, source, INFO, batch=3)
    assert counts(first) == (7, 2, 1, 4)
    seq, before = await store.last_seq(), await entries(store)
    later = clock.move()
    again = await ingest(store, source, INFO, batch=2)
    assert counts(again) == (7, 0, 3, 4)
    assert await store.last_seq() == seq
    assert await entries(store) == [replace(e, run_id=again.run_id, last_seen=later, times_seen=2) for e in before]


async def test_a_source_that_grew_at_the_top(store: RecordStore) -> None:
    await ingest(store, rows("a,1", "bad", "bad"), INFO)
    grown = await ingest(store, rows("new,0", "a,1", "bad", "bad", "bad too"), INFO)
    assert counts(grown) == (5, 1, 1, 3)
    assert [(e.position, e.original, e.times_seen) for e in await entries(store)] == [
        ("4", b"bad", 2),
        ("5", b"bad", 2),
        ("6", b"bad too", 1),
    ]


async def test_a_newer_edition_corrects(store: RecordStore) -> None:
    await ingest(store, rows("a,1", "b,1"), INFO)
    report = await ingest(store, rows("a,2", "b,1"), INFO)
    assert counts(report) == (2, 1, 1, 0)
    assert names((await store.changes(ENTERPRISE, 2)).records) == ["2"]


async def test_duplicate_keys_go_to_quarantine(store: RecordStore) -> None:
    source = rows("a,1", "a,2", "a,1", "a,3")
    for times in (1, 2):
        report = await ingest(store, source, INFO, batch=times)
        assert counts(report) == (4, 2 - times, times, 2)
        assert report.reasons == {ingests.DUPLICATE_KEY: 2}
        found = await entries(store)
        assert [(e.original, e.reason, e.times_seen) for e in found] == [
            (b"a,2", "DUPLICATE_KEY", times),
            (b"a,3", "DUPLICATE_KEY", times),
        ]
    assert names((await store.changes(ENTERPRISE, 0)).records) == ["1"]


async def test_a_source_that_is_a_history(store: RecordStore) -> None:
    source = rows("a,1", "a,2", "a,1", "b,1", "a,1", "bad")
    report = await ingest(store, source, INFO, duplicates=Duplicates.VERSIONS, batch=4)
    assert counts(report) == (6, 4, 1, 1)
    assert names((await store.changes(ENTERPRISE, 0)).records) == ["1", "2", "1", "1"]
    again = await ingest(store, source, INFO, duplicates=Duplicates.VERSIONS)
    assert counts(again) == (6, 0, 5, 1)
    longer = await ingest(store, [*source, row(9, "a,3")], INFO, duplicates=Duplicates.VERSIONS)
    assert counts(longer) == (7, 1, 5, 1)
    assert (await store.changes(ENTERPRISE, 0)).records[-1].version == 4


async def test_a_source_that_breaks_half_way(store: RecordStore) -> None:
    def broken() -> Iterator[Item]:
        yield from rows("a,1", "bad", "b,2")
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "the encoding changed")

    with pytest.raises(UnicodeDecodeError):
        await ingest(store, broken(), INFO, batch=2)
    assert await stored_runs(store) == [("FAILED", 3, 2, 0, 1)]
    assert await whole(store) == ["a", "b"]


async def test_a_run_that_ended_without_a_word(store: RecordStore, clock: Hand) -> None:
    await store.write(lambda c: runs.begin(c, store.tables, clock(), INFO))
    clock.move()
    await ingest(store, rows("a,1"), INFO)
    assert await stored_runs(store) == [(RunState.ABANDONED, 0, 0, 0, 0), (RunState.DONE, 1, 1, 0, 0)]


async def test_the_database_refuses_a_run_whose_sum_is_wrong(store: RecordStore) -> None:
    report = await ingest(store, rows("a,1"), INFO)
    with pytest.raises(Internal):
        await store.write(lambda c: runs.advance(c, store.tables, replace(report, read=2)))


async def test_a_type_that_lies_elsewhere(store: RecordStore) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await ingest(store, [Good("1", b"", common_pb2.Money())], INFO)
    assert caught.value.reason is Reason.RECORD_TYPE_NOT_OWNED


@pytest.mark.parametrize(
    ("name", "reason"), [("a\x00b", "VALUE_INVALID"), ("x" * 1025, "VALUE_TOO_LONG"), ("厦" * 342, "VALUE_TOO_LONG")]
)
async def test_values_that_no_column_holds(store: RecordStore, name: str, reason: str) -> None:
    report = await ingest(store, [Good("1", b"a", enterprise("a", name)), Good("2", b"b", enterprise("b"))], INFO)
    assert (counts(report), report.reasons) == ((2, 1, 0, 1), {reason: 1})


async def test_a_date_that_no_calendar_has(store: RecordStore) -> None:
    wrong = enterprise("a")
    wrong.approved_date.month = 13
    report = await ingest(store, [Good("1", b"a", wrong)], INFO)
    assert report.reasons == {"VALUE_INVALID": 1}


async def test_watermarks_are_kept_with_their_batch(store: RecordStore) -> None:
    read: list[str] = []

    def growing() -> Iterator[Item]:
        for item in rows("a,1", "b,2", "c,3"):
            read.append(item.position)
            yield item
        raise Unavailable(Reason.STORE_UNAVAILABLE, "the legacy system went away")

    def mark() -> str | None:
        return read[-1] if read else None

    assert await ingests.watermark(store, INFO.mapping, INFO.source) is None
    with pytest.raises(Unavailable):
        await ingest(store, growing(), INFO, watermark=mark, batch=2)
    assert await ingests.watermark(store, INFO.mapping, INFO.source) == "4"
    assert await ingests.watermark(store, INFO.mapping, "another") is None
    read.append("99")
    await ingest(store, [], INFO, watermark=mark)
    assert await ingests.watermark(store, INFO.mapping, INFO.source) == "4"  # no batch, no mark


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(["a,1", "a,2", "b,1", "bad", "worse", ",x", "c,1", "c,\x00"]), max_size=14),
    batch=st.integers(1, 5),
    duplicates=st.sampled_from(Duplicates),
)
async def test_the_sum_always_comes_out(
    store: RecordStore, texts: list[str], batch: int, duplicates: Duplicates
) -> None:
    # A source of its own for each example: what other examples left in the store only makes more rows unchanged.
    info = replace(INFO, source=repr((texts, duplicates)))
    first = await ingest(store, rows(*texts), info, duplicates=duplicates, batch=batch)
    for report in (first, await ingest(store, rows(*texts), info, duplicates=duplicates)):
        assert report.read == len(texts) == report.loaded + report.unchanged + report.quarantined
        assert report.quarantined == sum(report.reasons.values()) == first.quarantined
    found = [e for e in await Quarantine(store).entries(state=None, limit=1000) if e.source == info.source]
    assert len(found) == first.quarantined
    if duplicates is Duplicates.VERSIONS:
        assert report.loaded == 0


# --- quarantine ---


def mapped_by(change: dict[bytes, str]) -> object:
    def mapper(entry: Entry) -> Item:
        assert entry.layout == ("uscc", "name")
        return row(int(entry.position), change.get(entry.original, entry.original.decode()))

    return mapper


async def drive(store: RecordStore, found: Iterable[Entry], change: dict[bytes, str], **more: object) -> Report:
    info = replace(INFO, source="quarantine", mapping_version="2")
    return await retry(store, found, mapped_by(change), info, **more)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_row_is_driven_again(store: RecordStore, clock: Hand) -> None:
    await ingest(store, rows("bad", "worse"), INFO)
    clock.move()
    report = await drive(store, await entries(store), {b"bad": "a,1"})
    assert (counts(report), report.reasons) == ((2, 1, 0, 1), {"COLUMN_COUNT": 1})
    assert await whole(store) == ["a"]
    resolved, still = await entries(store, None)
    assert (resolved.state, resolved.resolved_run_id, resolved.original) == (Standing.RESOLVED, report.run_id, b"bad")
    assert (still.state, still.resolved_run_id, still.times_seen) == (Standing.OPEN, None, 1)
    again = await drive(store, [resolved], {b"bad": "a,1"})
    assert counts(again) == (1, 0, 1, 0)


async def test_a_retry_replaces_nothing(store: RecordStore) -> None:
    await ingest(store, rows("bad", "worse"), INFO)
    await put(store, enterprise("a", "newer"))
    report = await drive(store, await entries(store), {b"bad": "a,1", b"worse": "a,newer"})
    assert (counts(report), report.reasons) == ((2, 0, 1, 1), {"DUPLICATE_KEY": 1})
    assert names((await store.changes(ENTERPRISE, 0)).records) == ["newer"]
    assert [(e.original, e.reason) for e in await entries(store)] == [(b"bad", "DUPLICATE_KEY")]


async def test_retried_rows_with_one_key(store: RecordStore) -> None:
    await ingest(store, rows("bad", "worse"), INFO)
    change = {b"bad": "a,1", b"worse": "a,2"}
    assert counts(await drive(store, await entries(store), change)) == (2, 1, 0, 1)
    versions = await drive(store, await entries(store), change, duplicates=Duplicates.VERSIONS)
    assert counts(versions) == (1, 1, 0, 0)
    assert names((await store.changes(ENTERPRISE, 0)).records) == ["1", "2"]


async def test_a_retried_row_of_a_history_is_applied_once(store: RecordStore) -> None:
    await ingest(store, rows("bad", "a,2"), INFO, duplicates=Duplicates.VERSIONS)
    await drive(store, await entries(store), {b"bad": "a,1"}, duplicates=Duplicates.VERSIONS)
    mapped = [Good("2", b"bad", enterprise("a", "1")), row(3, "a,2")]
    again = await ingest(store, mapped, INFO, duplicates=Duplicates.VERSIONS)
    assert counts(again) == (2, 0, 2, 0)


async def test_a_mapping_that_was_corrected_resolves_what_it_reads_again(store: RecordStore) -> None:
    await ingest(store, rows("bad", "bad", "worse"), INFO)
    fixed = [Good("2", b"bad", enterprise("a", "1")), Good("3", b"bad", enterprise("a", "1")), row(4, "worse")]
    report = await ingest(store, fixed, replace(INFO, mapping_version="2"))
    assert counts(report) == (3, 1, 1, 1)
    states = [(e.state, e.resolved_run_id) for e in await entries(store, None)]
    assert states == [(Standing.RESOLVED, report.run_id)] * 2 + [(Standing.OPEN, None)]
    # With the old mapping it fails again, and is open again.
    await ingest(store, rows("bad", "bad", "worse"), INFO)
    assert [e.state for e in await entries(store, None)] == [Standing.OPEN] * 3


async def test_dismissed_rows_stay_dismissed(store: RecordStore) -> None:
    await ingest(store, rows("bad"), INFO)
    (entry,) = await entries(store)
    kept = Quarantine(store)
    await kept.dismiss(entry.id)
    await ingest(store, rows("bad"), INFO)
    (found,) = await entries(store, Standing.DISMISSED)
    assert found.times_seen == 2
    assert counts(await drive(store, [found], {b"bad": "a,1"})) == (1, 0, 1, 0)
    with pytest.raises(Exception, match="no open quarantine entry"):
        await kept.dismiss(entry.id)


async def test_finding_entries(store: RecordStore) -> None:
    await ingest(store, rows(*(f"bad{n}" for n in range(5)), ",x"), INFO)
    await ingest(store, rows("bad"), replace(INFO, mapping="other"))
    kept = Quarantine(store)
    assert await kept.counts() == {(Standing.OPEN, "COLUMN_COUNT"): 6, (Standing.OPEN, "KEY_MISSING"): 1}
    assert len(await kept.entries(mapping="other")) == 1
    assert len(await kept.entries(reason="KEY_MISSING")) == 1
    first = await kept.entries(limit=4)
    rest = await kept.entries(limit=4, after=first[-1].id)
    assert len({e.id for e in first + rest}) == 7
    assert await kept.get(first[0].id) == await kept.get(first[0].id[:12]) == first[0]
    for wrong in ("", "zz", first[0].id + "0", "%"):
        with pytest.raises(Exception, match="no quarantine entry"):
            await kept.get(wrong)


async def test_an_ambiguous_beginning(store: RecordStore) -> None:
    await ingest(store, rows(*(f"bad{n}" for n in range(17))), INFO)
    beginnings = [e.id[0] for e in await Quarantine(store).entries()]
    twice = next(b for b in beginnings if beginnings.count(b) > 1)
    with pytest.raises(Exception, match="several"):
        await Quarantine(store).get(twice)


def test_identities_are_the_same_in_every_run() -> None:
    def ids(*originals: bytes, source: str = "s") -> list[str]:
        given = quarantine.Identities("m", source, "t")
        return [given.of(o) for o in originals]

    assert ids(b"a", b"b", b"a") == ids(b"a", b"b", b"a")
    assert len(set(ids(b"a", b"b", b"a"))) == 3
    assert ids(b"x", b"a") != ids(b"a", b"x")
    assert ids(b"x", b"a")[1] == ids(b"a", b"x")[0]
    assert ids(b"a") != ids(b"a", source="t")
