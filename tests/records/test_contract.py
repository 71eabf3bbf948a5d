"""What every record source promises. Exceptions, by category:

* history, watch: `LiveSource` has neither, because a legacy system knows only its present; it says so
  (`test_a_source_that_cannot_says_so`), and the tests of both stand in test_history.py and test_watch.py.
"""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.records import catalogue
from services.kit.records.source import RecordQuery, RecordSource, State
from services.kit.records.store import RecordStore
from tests.records.bed import ENTERPRISE, START, condition, enterprise, everything, keys, names, read, whole
from tests.records.conftest import Bed

A, B, C = "91350211M0000XUF47", "91350212M0000XUF48", "91350213M0000XUF49"


async def test_a_record_comes_back_as_it_was(bed: Bed) -> None:
    sent = enterprise(A, "厦门某某有限公司")
    sent.envelope.key = "never stored"
    await bed.put(sent)
    (record,) = (await bed.source.fetch(RecordQuery(ENTERPRISE, subject=("cn.uscc", A)))).records
    sent.ClearField("envelope")
    assert read(record) == sent
    assert (record.key, record.version, record.state) == (A, 1, State.ACTIVE)
    assert (record.recorded_at, record.fact_time) == (START, dt.datetime(2019, 1, 2, tzinfo=dt.UTC))
    assert record.truth == (True,)


async def test_only_the_subject_asked_for(bed: Bed) -> None:
    await bed.put(enterprise(A), enterprise(B))
    assert await whole(bed.source, subject=("cn.uscc", B)) == [B]
    assert await whole(bed.source, subject=("cn.uscc", C)) == []


async def test_only_the_key_asked_for(bed: Bed) -> None:
    await bed.put(enterprise(A), enterprise(B))
    assert await whole(bed.source, key=B) == [B]
    assert await whole(bed.source, key=C) == []
    assert await whole(bed.source, key=f"{A}~1") == []
    assert await whole(bed.source, key=A, subject=("cn.uscc", B)) == []


async def test_a_scheme_the_type_does_not_know(bed: Bed) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await bed.source.fetch(RecordQuery(ENTERPRISE, subject=("lei", "x")))
    assert caught.value.reason is Reason.SUBJECT_SCHEME_UNSUPPORTED


async def test_a_type_that_lies_elsewhere(bed: Bed) -> None:
    declaration = catalogue.load().get("customs.Declaration")
    with pytest.raises(FailedPrecondition) as caught:
        await bed.source.fetch(RecordQuery(declaration))
    assert caught.value.reason is Reason.RECORD_TYPE_NOT_OWNED


async def test_pages_in_the_order_of_code_points(bed: Bed) -> None:
    odd = ["Z", "a", "B", "é", "厦", "𐌰", "-", "_", "1"]
    await bed.put(*(enterprise(o) for o in odd))
    for limit in (1, 2, 4, 100):
        assert await whole(bed.source, limit=limit) == sorted(odd)


async def test_a_last_page_has_no_next(bed: Bed) -> None:
    await bed.put(enterprise(A), enterprise(B))
    first = await bed.source.fetch(RecordQuery(ENTERPRISE, limit=1))
    assert (keys(first), first.next_key) == ([A], A)
    full = await bed.source.fetch(RecordQuery(ENTERPRISE, limit=2))
    assert (keys(full), full.next_key) == ([A, B], None)


async def test_filters_all_have_to_hold(bed: Bed) -> None:
    await bed.put(
        enterprise(A, region="350203"),
        enterprise(B, region="350203", status="REVOKED"),
        enterprise(C, region="320100", approved="2018-05-06"),
    )
    region, active = condition("region_code = '350203'"), condition("reg_status = ACTIVE")
    assert await whole(bed.source, filters=(region,)) == [A, B]
    assert await whole(bed.source, filters=(region, active)) == [A]
    assert await whole(bed.source, filters=(condition("approved_date < '2019-01-01'"),)) == [C]
    assert await whole(bed.source, filters=(condition("NOT (region_code = '350203')"),)) == [C]
    assert await whole(bed.source, filters=(condition("industry_code = 'C'"),)) == []
    assert await whole(bed.source, filters=(condition("industry_code IS NULL"),), limit=1) == [A, B, C]


async def test_groups_decide_which_records_show_and_tell_which_held(bed: Bed) -> None:
    await bed.put(enterprise(A, region="1"), enterprise(B, region="2"), enterprise(C, region="1", status="SUSPENDED"))
    one, active = condition("region_code = '1'"), condition("reg_status = ACTIVE")

    async def truths(*groups: tuple[object, ...]) -> dict[str, tuple[bool, ...]]:
        query = RecordQuery(ENTERPRISE, groups=groups)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return {r.key: r.truth for r in (await bed.source.fetch(query)).records}

    assert await truths((one,)) == {A: (True,), C: (True,)}
    assert await truths((one, active)) == {A: (True,)}
    assert await truths((one,), (active,)) == {A: (True, True), B: (False, True), C: (True, False)}
    assert await truths((one, active), ()) == {A: (True, True), B: (False, True), C: (False, True)}
    assert await truths() == {}


async def test_a_condition_on_what_is_not_known_opens_nothing(bed: Bed) -> None:
    await bed.put(enterprise(A))
    unknown = condition("registrar != 'x'")
    assert await whole(bed.source, groups=((unknown,),)) == []
    (record,) = await everything(bed.source, RecordQuery(ENTERPRISE, groups=((unknown,), ())))
    assert record.truth == (False, True)


async def test_parameters_of_conditions(bed: Bed) -> None:
    await bed.put(enterprise(A, approved="2020-01-01"), enterprise(B, approved="2026-01-01"))
    past = condition("approved_date <= :today", "today")
    query = RecordQuery(ENTERPRISE, groups=((past,),), params={"today": "2021-01-01"})
    assert keys(await bed.source.fetch(query)) == [A]
    assert keys(await bed.source.fetch(replace(query, params={"today": "2026-01-01"}))) == [A, B]
    assert keys(await bed.source.fetch(replace(query, params={"today": None}))) == []


async def test_values_are_bound_never_text(bed: Bed) -> None:
    nasty = "x'; DROP TABLE enterprise; -- %s :a ?"
    await bed.put(enterprise(A, region=nasty))
    assert await whole(bed.source, subject=("cn.uscc", nasty)) == []
    assert await whole(bed.source, filters=(condition("region_code = 'x''; DROP TABLE enterprise; -- %s :a ?'"),)) == [
        A
    ]


async def test_a_source_that_cannot_says_so(bed: Bed) -> None:
    if not bed.source.history:
        with pytest.raises(FailedPrecondition) as caught:
            await bed.source.fetch(RecordQuery(ENTERPRISE, as_of=START))
        assert caught.value.reason is Reason.HISTORY_UNAVAILABLE
    else:
        await bed.source.fetch(RecordQuery(ENTERPRISE, as_of=START))
    if not bed.source.watch:
        with pytest.raises(FailedPrecondition) as caught:
            await bed.source.changes(ENTERPRISE, 0)
        assert caught.value.reason is Reason.HISTORY_UNAVAILABLE
    else:
        assert (await bed.source.changes(ENTERPRISE, 0)).records == ()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    regions=st.lists(st.sampled_from(["1", "2", "3", ""]), min_size=1, max_size=8),
    limit=st.integers(1, 9),
    texts=st.lists(
        st.sampled_from(
            ["region_code = '1'", "region_code != '2'", "region_code IS NULL", "reg_status = ACTIVE", "name >= 'n3'"]
        ),
        max_size=3,
        unique=True,
    ),
)
async def test_any_paging_gives_what_python_would(bed: Bed, regions: list[str], limit: int, texts: list[str]) -> None:
    sent = [
        enterprise(f"k{n}", f"n{n}", region=r, status="ACTIVE" if n % 2 else "SUSPENDED") for n, r in enumerate(regions)
    ]
    await bed.put(*sent)
    filters = (condition(f"uscc <= 'k{len(sent) - 1}'"),)
    groups = tuple((condition(t),) for t in texts) or ((),)
    expected = {
        m.uscc: truth
        for m in sent
        if any(truth := tuple(all(c.evaluate(m) is True for c in group) for group in groups))
    }
    found = await everything(bed.source, RecordQuery(ENTERPRISE, filters=filters, groups=groups, limit=limit))
    assert [(r.key, r.truth) for r in found] == sorted(expected.items())


def test_both_satisfy_the_seam(store: RecordStore) -> None:
    source: RecordSource = store
    assert source.history
    assert names([]) == []
