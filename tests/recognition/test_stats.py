"""What is counted of cases: spans by stage and agency, deadlines, the bottleneck; the same as by another way."""

import csv
import datetime as dt
import gzip
import statistics
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import eventlog
from services.recognition import stats
from services.recognition.events import Event, Kind, Pause, ResultCode, Submission
from services.recognition.procedure import Procedure
from services.recognition.stats import Counting, Spread, Stats, Times, quantile
from tests.adapters.logs import Case, event, hours
from tests.recognition.logged import LOGGED, NEWER, Store, rulebook, shipped, store

HOUR = dt.timedelta(hours=1)
NONE = dt.timedelta()


def happened(kind: Kind, stage: str, agency: str, at: float, **more: object) -> Event:
    return Event(f"{kind}{stage}{at}", kind, stage, agency, hours(at), hours(at), **more)  # type: ignore[arg-type]


def case(*events: Event, deadline: float | None = None, procedure: Procedure = LOGGED) -> list[Event]:
    said = Submission(procedure.label, "hutong.token", "x" * 16, deadline=None if deadline is None else hours(deadline))
    return [happened(Kind.SUBMIT, "", "recognition", 0, submission=said), *events]


def result(stage: str, agency: str, at: float) -> Event:
    return happened(Kind.RESULT, stage, agency, at, result=ResultCode.PASS)


def count(*cases: Sequence[Event], procedure: Procedure = LOGGED) -> Stats:
    counting = Counting(procedure, rulebook().agencies_of(procedure).title)
    for each in cases:
        counting.add(procedure, each)
    return counting.done()


def of(found: Sequence[Times], code: str) -> Times:
    return next(times for times in found if times.code == code)


def test_a_repeatable_stage_takes_from_what_happened_last() -> None:
    found = count(case(result("A", "unit-1", 2), result("B", "unit-2", 5), result("A", "unit-2", 6)))
    look = of(found.stages, "A")
    assert (look.cases, look.took.count, look.took.total, look.took.median) == (1, 2, 3 * HOUR, 1.5 * HOUR)
    assert of(found.stages, "B").took.total == 3 * HOUR
    assert (look.waited, look.stood, look.worked) == (None, None, None)
    assert (found.cases, found.events, found.ended, found.without_end) == (1, 3, 0, 1)
    assert found.throughput is None


def test_what_is_opened_is_split_into_waiting_standing_and_working() -> None:
    events = [
        happened(Kind.START, "W", "unit-2", 3),
        happened(Kind.SUSPEND, "W", "unit-2", 5, pause=Pause.TEST),
        happened(Kind.RESUME, "W", "unit-2", 9),
        result("A", "unit-1", 10),
        result("W", "unit-2", 11),
    ]
    work = of(count(case(*events)).stages, "W")
    assert work.took.total == 11 * HOUR
    assert (work.waited, work.stood, work.worked) == (spread(3), spread(4), spread(4))
    assert work.agency == "unit-2"


def spread(number: float) -> Spread:
    found = Spread.of([number * HOUR])
    assert found is not None
    return found


def test_times_are_those_of_who_ended_a_passage() -> None:
    found = count(
        case(result("A", "unit-1", 2), result("A", "unit-2", 12)),
        case(result("A", "unit-1", 1), result("Z", "office", 4)),
    )
    assert {times.code: times.took.total / HOUR for times in found.agencies} == {"unit-2": 10, "unit-1": 3}
    assert of(found.agencies, "unit-1").title == "Unit 1"
    assert (of(found.stages, "A").agency, of(found.stages, "A").share) == ("unit-2", 1.0)


def test_the_end_of_a_case_on_the_spot_is_no_stages_time() -> None:
    found = count(case(result("A", "unit-1", 2), result("Z", "office", 9)), case(result("Z", "office", 1)))
    assert [times.code for times in found.stages] == ["A"]
    assert (found.ended, found.events) == (2, 1)
    assert found.rest == Spread.of([7 * HOUR, 1 * HOUR])
    assert found.throughput == Spread.of([9 * HOUR, 1 * HOUR])


def test_an_end_before_what_was_recorded_takes_nothing() -> None:
    found = count(case(result("A", "unit-1", 5), result("Z", "office", 3), deadline=4))
    assert found.rest == Spread.of([NONE])
    assert found.deadlines == stats.Deadlines(1, 0, 0, 1)


def test_the_bottleneck_is_where_most_of_the_time_went() -> None:
    found = count(
        case(result("A", "unit-1", 1), result("B", "unit-2", 50)),
        *(case(result("A", "unit-1", 10)) for _ in range(4)),
    )
    assert found.bottleneck is not None
    assert (found.bottleneck.code, round(found.bottleneck.share, 3)) == ("B", round(49 / 90, 3))
    assert [times.code for times in found.stages] == ["B", "A"]
    assert count(case()).bottleneck is None
    assert count(case(result("A", "unit-1", 0))).bottleneck is None


def test_deadlines_count_what_ended_or_happened_after_them() -> None:
    found = count(
        case(result("A", "unit-1", 1), result("Z", "office", 5), deadline=4),
        case(result("A", "unit-1", 4), result("Z", "office", 4), deadline=4),
        case(result("A", "unit-1", 6), deadline=4),
        case(result("A", "unit-1", 6), result("Z", "office", 9)),
        case(deadline=4),
    )
    assert found.deadlines == stats.Deadlines(
        stated=4, ended_after_deadline=1, ended_after_planned_end=0, last_event_after_deadline=1
    )
    assert found.without_end == 2


def test_reminders_are_nothing_that_happened() -> None:
    reminder = happened(Kind.REMIND, "W", "recognition", 8, threshold="red")
    found = count(case(result("A", "unit-1", 1), reminder, result("B", "unit-2", 9), deadline=5))
    assert found.events == 2
    assert of(found.stages, "B").took.total == 8 * HOUR


def test_silence_and_recognition() -> None:
    """A deemed stage took its whole time; a recognised one is counted by itself; a late opinion is none of both."""
    procedure = rulebook().procedures.versions("FTZ-EST")[0]
    said = case(
        result("E0", "commerce", 0),
        happened(Kind.DEEMED, "E1", "recognition", 100),
        result("E1", "commerce", 120),
        happened(Kind.RECOGNISE, "E2", "recognition", 100, ref="r", source_agency="commerce", arrangement="x@1.0.0"),
        procedure=procedure,
    )
    found = count(said, procedure=procedure)
    acceptance = of(found.stages, "E1")
    assert (acceptance.took.count, acceptance.took.total, acceptance.agency) == (1, 100 * HOUR, "commerce")
    assert [times.code for times in found.stages] == ["E1"]
    assert found.recognised == {"E2": 1}


spans = st.lists(st.integers(0, 10**9).map(lambda n: dt.timedelta(seconds=n)), min_size=1, max_size=50)


@given(spans)
def test_quantiles_are_those_of_the_standard_library(found: list[dt.timedelta]) -> None:
    measured = Spread.of(found)
    assert measured is not None
    seconds = sorted(span.total_seconds() for span in found)
    near = pytest.approx(measured.median.total_seconds(), abs=1e-3)
    assert near == statistics.median(seconds)
    if len(seconds) > 1:
        tenths = statistics.quantiles(seconds, n=10, method="inclusive")
        assert pytest.approx(tenths[8], abs=1e-3) == measured.p90.total_seconds()
    assert measured.median <= measured.p90 <= max(found)
    assert quantile(sorted(found), 1.0) == max(found)


# Of a store.


@pytest.fixture
async def bed(any_url: str, tmp_path: Path) -> AsyncGenerator[Store]:
    async with store(any_url, tmp_path) as opened:
        yield opened


async def test_a_store_is_counted_by_procedure_over_all_versions(bed: Store) -> None:
    await bed.bring([Case(f"{n}", [event("Look", hours(n))]) for n in range(700)])
    await bed.bring([Case("new", [event("Look", hours(1)), event("Think", hours(3))])], NEWER)
    shown: list[int] = []
    (found,) = await stats.measure(bed.database, rulebook(), show=shown.append)
    assert (found.procedure, found.cases, found.events) == ("LOGGED", 701, 702)
    assert shown == [500, 701]
    assert await stats.measure(bed.database, rulebook(), "LOGGED") == (found,)
    assert await stats.measure(bed.database, rulebook(), "FTZ-EST") == ()


async def test_the_real_log_gives_the_figures_counted_by_hand(
    sqlite_url: str, tmp_path: Path, shared_data: Path
) -> None:
    procedure, profile, folder = shipped(shared_data)
    async with store(sqlite_url, tmp_path) as opened:
        log = eventlog.read(folder / "coselog_receipt.xes.gz", profile.layout)
        await opened.importer(procedure, profile).run(log)
        (found,) = await stats.measure(opened.database, rulebook())
    assert (found.cases, found.events, found.without_end) == (1434, 8577, 105)
    assert found.deadlines == stats.Deadlines(
        stated=1434, ended_after_deadline=377, ended_after_planned_end=389, last_event_after_deadline=92
    )
    assert (len(found.stages), len(found.agencies)) == (27, 10)
    assert sum(times.took.count for times in found.stages) == 8577
    assert found.bottleneck is not None
    assert (found.bottleneck.code, found.bottleneck.agency) == ("T01", "municipality-no-group")
    assert found.throughput is not None
    days = sorted(_lengths(folder / "coselog_receipt.csv.gz"))
    assert pytest.approx(statistics.median(days), abs=0.01) == found.throughput.median / dt.timedelta(days=1)
    assert pytest.approx(statistics.quantiles(days, n=10, method="inclusive")[8], abs=0.01) == (
        found.throughput.p90 / dt.timedelta(days=1)
    )


def _lengths(path: Path) -> list[float]:
    """Tell how long each case took in days, read from the table in the plainest way."""
    begins: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            begins.setdefault(row["case:concept:name"], row["time:timestamp"])
            rows[row["case:concept:name"]] = row
    found: list[float] = []
    for name, row in rows.items():
        if row["case:enddate"]:
            end = dt.datetime.fromisoformat(row["case:enddate"])
            told = [dt.datetime.fromisoformat(text) for text in (begins[name], row["case:startdate"])]
            found.append((end - min(*told, end)) / dt.timedelta(days=1))
    return found
