"""Logs into the store of cases: checked by the same rules as what comes in today, whole or not at all, once."""

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters import eventlog
from services.kit.errors import FailedPrecondition, Internal, InvalidArgument, Reason
from services.kit.records.database import Database, engine
from services.recognition import ledger, log_profiles
from services.recognition.case import fold
from services.recognition.events import WHOLE_CASE, Event, Kind, ResultCode
from services.recognition.importing import Importer
from services.recognition.log_profiles import LogProfile
from services.recognition.procedure_file import parse
from services.recognition.stages import StageStatus, Status
from tests.adapters.logs import Case, event, hours, table, xes
from tests.recognition.logged import LOGGED, NEWER, NOW, PROFILE, TEXT, Store, rulebook, shipped, store

END = {"closed": hours(9).isoformat()}
GOOD = Case("1", [event("Look", hours(1), group="Unit 1", resource="R7"), event("Think", hours(3))], END)
OPEN = Case("2", [event("Look", hours(2), group="Unit 2")])


@pytest.fixture
async def bed(any_url: str, tmp_path: Path) -> AsyncGenerator[Store]:
    async with store(any_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def lite(sqlite_url: str, tmp_path: Path) -> AsyncGenerator[Store]:
    async with store(sqlite_url, tmp_path) as opened:
        yield opened


async def test_a_logged_case_becomes_a_case(bed: Store) -> None:
    said = {"applied": hours(0).isoformat(), "deadline": hours(8).isoformat(), **END}
    done = await bed.bring([Case("1", GOOD.events, said), OPEN])
    assert (done.procedure, done.form, done.loaded, done.events, done.moved) == ("LOGGED@1.0.0", "XES", 2, 6, 0)
    stored = await bed.case("LOGGED-1")
    first, look, think, end = stored.events
    assert (first.kind, first.stage, first.agency, first.at) == (Kind.SUBMIT, WHOLE_CASE, "recognition", hours(0))
    assert first.submission is not None
    assert (first.submission.procedure, first.submission.scheme) == ("LOGGED@1.0.0", "hutong.token")
    assert first.submission.deadline == hours(8)
    assert (look.kind, look.stage, look.agency, look.officer, look.result) == (
        Kind.RESULT,
        "A",
        "unit-1",
        "R7",
        ResultCode.PASS,
    )
    assert (think.stage, think.agency, think.at) == ("B", "unit-2", hours(3))
    assert (end.stage, end.agency, end.at) == ("Z", "office", hours(9))
    assert {event.recorded_at for event in stored.events} == {NOW}
    head = stored.head
    assert (head.version, head.status, head.closed_at, head.next_at) == (4, "DELIVERED", hours(9), None)
    assert (head.lead_agency, head.submitter, head.applied_at) == ("office", "office/import", hours(0))


async def test_an_open_case_goes_on_here(bed: Store) -> None:
    await bed.bring([OPEN])
    stored = await bed.case("LOGGED-2")
    state = fold(LOGGED, stored.events)
    assert (stored.head.status, state.closed_at) == (Status.IN_REVIEW, None)
    assert state.stages["W"].status is StageStatus.READY
    assert stored.head.next_at is not None
    assert stored.head.calendar.startswith("CN@")
    assert "W" in stored.head.dues


async def test_who_takes_part_is_who_did_something_or_may_have_to(bed: Store) -> None:
    await bed.bring([GOOD, OPEN])

    def who(connection: sa.Connection) -> dict[str, set[str]]:
        agencies = ("office", "unit-1", "unit-2", "recognition")
        ids = ("LOGGED-1", "LOGGED-2")
        return {i: {a for a in agencies if ledger.takes_part(connection, a, i)} for i in ids}

    assert await bed.database.read(who) == {
        "LOGGED-1": {"office", "unit-1", "unit-2"},
        "LOGGED-2": {"office", "unit-1", "unit-2"},
    }
    await bed.bring([Case("3", [event("Look", hours(1))], END)])
    assert not await bed.database.read(lambda c: ledger.takes_part(c, "unit-2", "LOGGED-3"))


async def test_replaying_what_is_stored_gives_what_the_log_tells(bed: Store) -> None:
    await bed.bring([GOOD])
    stored = await bed.case("LOGGED-1")
    state = fold(LOGGED, stored.events)
    assert (state.status, state.closed_at, state.version) == (Status.DELIVERED, hours(9), 4)
    assert [code for code, stage in state.stages.items() if stage.satisfied] == ["A", "B", "Z"]


async def test_importing_again_changes_nothing_whatever_the_form(bed: Store) -> None:
    await bed.bring([GOOD, OPEN])
    before = await bed.case("LOGGED-1")
    later = NOW + dt.timedelta(days=3)
    again = await bed.bring([GOOD, OPEN], now=later)
    assert (again.loaded, again.unchanged, again.events) == (0, 2, 0)
    told = [Case(c.name, c.events, {"applied": "", "deadline": "", "closed": "", **c.said}) for c in (GOOD, OPEN)]
    csv = await bed.importer(now=later).run(bed.log(table(told)))
    assert (csv.form, csv.unchanged) == ("CSV", 2)
    assert await bed.case("LOGGED-1") == before


async def test_a_log_that_has_grown_adds_what_is_new(bed: Store) -> None:
    await bed.bring([GOOD, OPEN])
    grown = Case("2", [*OPEN.events, event("Think", hours(4)), event("Look", hours(5))], END)
    done = await bed.bring([GOOD, grown], now=NOW + dt.timedelta(days=1))
    assert (done.loaded, done.grown, done.unchanged, done.events) == (1, 1, 1, 3)
    stored = await bed.case("LOGGED-2")
    assert [e.recorded_at - NOW for e in stored.events] == [dt.timedelta()] * 2 + [dt.timedelta(days=1)] * 3
    assert (stored.head.version, stored.head.status, stored.head.next_at) == (5, "DELIVERED", None)
    assert fold(LOGGED, stored.events).closed_at == hours(9)


@pytest.mark.parametrize(
    "other",
    [
        Case("1", [event("Look", hours(1), group="Unit 1", resource="R8"), *GOOD.events[1:]], END),
        Case("1", GOOD.events, {"closed": hours(10).isoformat()}),
        Case("1", GOOD.events, {**END, "deadline": hours(8).isoformat()}),
        Case("1", [*GOOD.events, event("Look", hours(5))], END),
        Case("1", GOOD.events),
    ],
    ids=["officer", "end", "deadline", "before-the-end", "open"],
)
async def test_a_case_that_is_there_with_another_content_is_left_alone(bed: Store, other: Case) -> None:
    await bed.bring([GOOD])
    before = await bed.case("LOGGED-1")
    done = await bed.bring([other, OPEN])
    if not other.said:  # the log tells less than it did, and nothing that is not so
        assert (done.loaded, done.unchanged) == (1, 1)
    else:
        ((refused),) = done.refused
        assert (refused.case_id, refused.reason, done.loaded) == ("1", Reason.CASE_EXISTS, 1)
    assert await bed.case("LOGGED-1") == before


async def test_what_happened_here_since_is_no_contradiction(bed: Store) -> None:
    await bed.bring([OPEN])
    await _append(bed, "LOGGED-2", Event(_uuid("x"), Kind.REMIND, "W", "recognition", NOW, NOW, threshold="red"))
    assert (await bed.bring([OPEN])).unchanged == 1
    grown = Case("2", [*OPEN.events, event("Think", hours(4))])
    done = await bed.bring([grown])
    assert [(r.reason, r.event) for r in done.refused] == [(Reason.CASE_EXISTS, 2)]
    assert len((await bed.case("LOGGED-2")).events) == 3


async def _append(bed: Store, case_id: str, event: Event) -> None:
    def work(connection: sa.Connection) -> None:
        stored = ledger.load(connection, case_id, lock=True)
        assert stored is not None
        ledger.append(connection, stored, [event], stored.head)

    await bed.database.write(work)


def _uuid(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


async def test_a_case_stays_on_the_version_it_began_with(bed: Store) -> None:
    await bed.bring([GOOD, OPEN])
    assert (await bed.bring([GOOD, OPEN], procedure=NEWER)).unchanged == 2
    done = await bed.bring([Case("2", [*OPEN.events, event("Think", hours(4))])], procedure=NEWER)
    assert "LOGGED@1.0.0" in done.refused[0].message
    assert (await bed.case("LOGGED-2")).head.procedure == "LOGGED@1.0.0"


async def test_a_changed_text_of_a_version_in_use_is_refused(bed: Store) -> None:
    await bed.bring([GOOD])
    other = parse(TEXT.replace("Look", "See"))
    with pytest.raises(FailedPrecondition) as caught:
        await bed.importer(other).run(bed.log(xes([Case("9", [event("See", hours(1))])])))
    assert caught.value.reason is Reason.PROCEDURE_CHANGED
    assert await bed.ids() == {"LOGGED-1"}


async def test_sources_keep_cases_of_the_same_number_apart(bed: Store) -> None:
    await bed.bring([GOOD])
    other = Case("1", [event("Think", hours(7))])
    assert (await bed.bring([other], source="utrecht")).loaded == 1
    assert await bed.ids() == {"LOGGED-1", "LOGGED-utrecht-1"}
    for source in ("two words", "x" * 33, "a\n"):
        with pytest.raises(InvalidArgument, match="a source is one word"):
            bed.importer(source=source)


# What is wrong with one case.

LATE = event("Look", NOW + dt.timedelta(hours=1))


@pytest.mark.parametrize(
    ("case", "reason", "number", "said"),
    [
        (Case("9", [event("Lok", hours(1))]), Reason.STAGE_UNKNOWN, 1, "did you mean 'Look'"),
        (Case("9", [event("Look", hours(1), group="Unit 3")]), Reason.AGENCY_UNKNOWN, 1, "no agency goes by 'Unit 3'"),
        (Case("9", [GOOD.events[0], LATE]), Reason.EVENT_IN_FUTURE, 2, "has not happened yet"),
        (Case("9", [event("Work", hours(1))]), Reason.EVENT_NOT_ALLOWED, 1, "start it first"),
        (Case("9", [event("Look", hours(1), transition="reassign")]), Reason.LOG_INVALID, 1, "'reassign'"),
        (Case("9", [event("End", hours(1)), event("Look", hours(2))]), Reason.CASE_CLOSED, 2, "DELIVERED"),
        (Case("9", [event("End", hours(1))], END), Reason.CASE_CLOSED, 0, "DELIVERED"),
        (Case("9", []), Reason.LOG_INVALID, 0, "knows no moment"),
        (Case("9", [event("Look", hours(2)), event("Look", hours(1))]), Reason.LOG_INVALID, 0, "event 2 is earlier"),
        (Case("", [event("Look", hours(2))]), Reason.LOG_INVALID, 0, "without a name"),
        (Case("9", [event("Look", hours(2), resource="x" * 201)]), Reason.LOG_INVALID, 1, "200 printable"),
    ],
)
async def test_a_case_that_breaks_a_rule_is_refused_whole_and_the_rest_is_loaded(
    lite: Store, case: Case, reason: Reason, number: int, said: str
) -> None:
    done = await lite.bring([GOOD, case, OPEN])
    ((refused),) = done.refused
    assert (refused.case_id, refused.reason, refused.event) == (case.name, reason, number)
    assert said in refused.message
    assert refused.line > 0
    assert (done.loaded, done.reasons) == (2, {reason.value: 1})
    assert await lite.ids() == {"LOGGED-1", "LOGGED-2"}


async def test_units_of_one_body_may_do_each_others_work_and_others_may_not(lite: Store) -> None:
    """Units that the procedure declares for itself stand in for each other; agencies of the zone do not."""
    done = await lite.bring([Case("9", [event("Look", hours(1), group="Unit 2"), event("Think", hours(2), group="?")])])
    assert done.loaded == 1
    led = TEXT.replace("code: LOGGED", "code: LED").replace("  office: {title: The office, local_title: 办公室}\n", "")
    own = parse(led.replace("office", "commerce"))
    profile = LogProfile(procedure="LED", groups={"Someone": "commerce"})
    bad = await lite.bring([Case("8", [event("Look", hours(1), group="Someone")])], own, profile)
    assert bad.reasons == {"EVENT_WRONG_AGENCY": 1}


async def test_a_case_begins_with_what_came_first(lite: Store) -> None:
    late = {"applied": hours(5).isoformat()}
    done = await lite.bring(
        [
            Case("1", [event("Look", hours(1))], late),
            Case("2", [event("Look", hours(7))], {**late, "closed": hours(3).isoformat()}),
            Case("3", [event("Look", hours(7))], late),
        ]
    )
    assert (done.loaded, done.moved) == (3, 2)
    assert [(await lite.case(f"LOGGED-{n}")).head.applied_at for n in (1, 2, 3)] == [hours(1), hours(3), hours(5)]
    assert (await lite.case("LOGGED-2")).head.closed_at == hours(3)


async def test_transitions_are_what_the_profile_says(lite: Store) -> None:
    events = [
        event("Work", hours(1), transition="schedule"),
        event("Work", hours(2), transition="START"),
        event("Work", hours(4), transition="complete"),
    ]
    profile = PROFILE.model_copy(update={"transitions": {**PROFILE.transitions, "schedule": "IGNORE"}})
    await lite.bring([Case("1", events)], profile=profile)
    state = fold(LOGGED, (await lite.case("LOGGED-1")).events)
    work = state.stages["W"]
    assert (work.opened_at, work.ended_at, state.version) == (hours(2), hours(4), 3)


async def test_a_subject_may_stand_in_the_log(lite: Store) -> None:
    profile = LogProfile.model_validate({"procedure": "LOGGED", "subject": {"scheme": "cn.uscc", "attribute": "code"}})
    cases = [Case("1", OPEN.events, {"code": "91350200m0000xuf4x"}), Case("2", OPEN.events, {"code": "nobody"}), OPEN]
    done = await lite.bring([cases[0], cases[1]], profile=profile)
    assert [(r.case_id, r.reason) for r in done.refused] == [("2", Reason.SUBJECT_INVALID)]
    assert "nobody" not in done.refused[0].message
    head = (await lite.case("LOGGED-1")).head
    assert (head.scheme, head.subject) == ("cn.uscc", "91350200M0000XUF4X")


async def test_a_procedure_with_facts_takes_no_results_without_credentials(lite: Store) -> None:
    procedure = rulebook().procedures.versions("FTZ-EST")[0]
    profile = log_profiles.load(procedure)
    done = await lite.bring([Case("1", [event("E0", hours(1))])], procedure, profile)
    assert done.reasons == {"RESULT_MISSING": 1}


# Profiles.


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"procedure": "OTHER"}, "the profile is for OTHER"),
        ({"end": {"attribute": "x", "stage": "ZZ"}}, "names a stage 'ZZ'"),
        ({"activities": {"Look": "AA"}}, "names a stage 'AA'"),
        ({"groups": {"?": "ofice"}}, "did you mean 'office'"),
        ({"subject": {"scheme": "lei", "attribute": "x"}}, "is about subjects by hutong.token, cn.uscc"),
        ({"columns": {"zone": "Mars"}}, "no time zone of this name"),
        ({"colums": {}}, "colums"),
        ({"transitions": {"x": "END"}}, "transitions"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(str({"procedure": "LOGGED", **said}).replace("'", '"'))
    with pytest.raises(FailedPrecondition, match=message) as caught:
        log_profiles.load(LOGGED, path)
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("text", [b"a: [", b"\xff", b"procedure: 2026-02-30", b"procedure: LOGGED\nprocedure: LOGGED"])
def test_a_profile_that_is_no_yaml_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "profile.yaml"
    path.write_bytes(text)
    with pytest.raises(FailedPrecondition, match=r"profile\.yaml"):
        log_profiles.load(LOGGED, path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        log_profiles.load(LOGGED, tmp_path / "none.yaml")


def test_every_shipped_profile_fits_its_procedure() -> None:
    folder = Path(log_profiles.__file__).with_name("logs")
    for path in folder.glob("*.yaml"):
        for procedure in rulebook().procedures.versions(path.stem.upper()):
            assert log_profiles.load(procedure).procedure == procedure.code
    assert log_profiles.load(LOGGED) == LogProfile(procedure="LOGGED")


# Batches, and the store under them.


async def test_large_logs_go_in_batches_and_progress_is_told(lite: Store) -> None:
    cases = [Case(f"{n:04}", [event("Look", hours(n))]) for n in range(1200)]
    cases[700] = Case("0700", [event("Nothing", hours(1))])
    shown: list[tuple[int, int]] = []
    done = await lite.importer().run(lite.log(xes(cases)), lambda done, all_: shown.append((done, all_)))
    assert shown == [(1000, 1200), (1200, 1200)]
    assert (done.read, done.loaded, len(done.refused)) == (1200, 1199, 1)


async def test_two_imports_at_the_same_time_give_every_case_once(any_url: str, tmp_path: Path) -> None:
    cases = [Case(f"{n:04}", [event("Look", hours(n)), event("Think", hours(n + 1))]) for n in range(1500)]
    async with store(any_url, tmp_path) as one:
        log = one.log(xes(cases))
        other = Database(any_url)
        try:
            second = Importer(other, rulebook(), LOGGED, PROFILE, NOW)
            results = await asyncio.gather(one.importer().run(log), second.run(log))
        finally:
            other.close()
        assert sum(done.loaded for done in results) == 1500
        assert sum(done.unchanged for done in results) == 1500
        assert len(await one.ids()) == 1500


async def test_a_store_that_fails_half_way_keeps_whole_cases_and_the_rest_follows(
    sqlite_url: str, tmp_path: Path
) -> None:
    cases = [Case(f"{n:04}", [event("Look", hours(n))], END) for n in range(2100)]
    async with store(sqlite_url, tmp_path) as opened:
        log = opened.log(xes(cases))
        hand = engine(sqlite_url, writer=True)
        with hand.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON stage_event WHEN NEW.case_id = 'LOGGED-1200' "
                "BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
            )
        with pytest.raises(Internal, match="1000 cases are kept, import the log again"):
            await opened.importer().run(log)
        kept = await opened.ids()
        assert kept == {f"LOGGED-{n:04}" for n in range(1000)}
        assert len((await opened.case("LOGGED-0999")).events) == 3
        with hand.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        hand.dispose()
        done = await opened.importer().run(log)
        assert (done.loaded, done.unchanged) == (1100, 1000)


# The real log.


@pytest.mark.parametrize("form", ["xes", "csv"])
async def test_the_real_log_loads_whole_and_once(any_url: str, tmp_path: Path, shared_data: Path, form: str) -> None:
    procedure, profile, folder = shipped(shared_data)
    other = {"xes": "csv", "csv": "xes"}[form]
    first, second = (eventlog.read(folder / f"coselog_receipt.{f}.gz", profile.layout) for f in (form, other))
    async with store(any_url, tmp_path) as opened:
        importer = opened.importer(procedure, profile)
        done = await importer.run(first)
        assert (done.read, done.loaded, done.refused) == (1434, 1434, [])
        assert done.events == 8577 + 1434 + 1434 - 105
        assert done.moved == 4
        again = await importer.run(second)
        assert (again.read, again.unchanged, again.events) == (1434, 1434, 0)
