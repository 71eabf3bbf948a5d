"""Cases: what is handed in, what follows from it, and what is refused with nothing of it kept."""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest

from services.kit.errors import Aborted, FailedPrecondition, HutongError, InvalidArgument, NotFound, Reason
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, Mode, Pause, ResultCode
from services.recognition.ledger import Selection
from services.recognition.tables import CASE, EVENT, EXAMINATION, PROCEDURE, RECOGNITION, RESULT, TASK
from tests.recognition.desk import DEMO, EXPRESS, START, SUBJECT, Bed, Hand, build, desk, execute, fresh

OTHER = "91110000600037341L"
"""Another enterprise."""

ACCEPTED = ("A", "commerce")


async def accepted(bed: Bed, procedure: str = "DEMO", **said: Any) -> Snapshot:
    """Submit an application, and accept it."""
    case = await bed.submit(procedure, **said)
    await bed.through(case.case_id, ACCEPTED)
    return await bed.cases.get(case.case_id)


async def content(bed: Bed) -> list[Any]:
    """Everything in the store that an event could leave behind."""
    tables = (CASE, EVENT, EXAMINATION, RESULT, RECOGNITION, TASK)
    return [[dict(row) for row in await bed.rows(table)] for table in tables] + [await bed.outbox()]


async def refused(bed: Bed, case_id: str, kind: Kind, stage: str, agency: str, **said: Any) -> HutongError:
    """Append what has to be refused, with nothing of it kept."""
    before = await content(bed)
    with pytest.raises(HutongError) as caught:
        await bed.act(case_id, kind, stage, agency, **said)
    assert await content(bed) == before
    return caught.value


# Beginning.


async def test_a_case_begins_with_its_application(any_bed: Bed) -> None:
    case = await any_bed.submit(answers={"foreign": "true"}, explicit_request_id="r-1")
    assert re.fullmatch(r"DEMO-20260921-[0-9A-HJKMNP-TV-Z]{8}", case.case_id)
    (event,) = case.events
    assert event.submission is not None
    assert event.submission.procedure == "DEMO@1.0.0"
    assert event.submission.answers == (("foreign", "true"),)
    assert (case.version, case.head.status, case.head.lead_agency) == (1, "APPLIED", "commerce")
    assert case.head.next_at is not None
    assert await any_bed.cases.takes_part("taxation", case.case_id)
    assert not await any_bed.cases.takes_part("customs", case.case_id)
    assert [row["digest"] for row in await any_bed.rows(PROCEDURE)] == [case.procedure.digest]


async def test_a_request_sent_again_gives_the_same_case(any_bed: Bed) -> None:
    request = fresh()
    first = await any_bed.submit(request_id=request)
    any_bed.clock.move(hours=2)
    again = await any_bed.submit(request_id=request)
    assert again.case_id == first.case_id
    assert len(again.events) == 1
    other = await any_bed.submit(request_id=request, submitter="taxation/window")
    assert other.case_id != first.case_id


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": OTHER},
        {"procedure": "EXPRESS"},
        {"answers": {"foreign": "true"}},
        {"mode": Mode.PARALLEL},
        {"explicit_request_id": "x"},
        {"applied_at": START - dt.timedelta(hours=1)},
    ],
    ids=lambda c: next(iter(c)),
)
async def test_a_request_id_stands_for_one_application(bed: Bed, changed: dict[str, Any]) -> None:
    request = fresh()
    await bed.submit(request_id=request)
    with pytest.raises(InvalidArgument) as caught:
        await bed.submit(**{"request_id": request, **changed})
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"request_id": "1"}, Reason.REQUEST_ID_INVALID),
        ({"request_id": fresh().upper()}, Reason.REQUEST_ID_INVALID),
        ({"procedure": "NONE"}, Reason.PROCEDURE_UNKNOWN),
        ({"scheme": "hutong.token"}, Reason.SUBJECT_SCHEME_UNSUPPORTED),
        ({"subject": "ÄÖ"}, Reason.SUBJECT_INVALID),
        ({"answers": {"foreigner": "true"}}, Reason.ANSWER_UNKNOWN),
        ({"mode": Mode.COMMITMENT}, Reason.COMMITMENT_MISSING),
        ({"applied_at": START + dt.timedelta(minutes=2)}, Reason.EVENT_IN_FUTURE),
        ({"applied_at": START - dt.timedelta(days=4)}, Reason.EVENT_TOO_OLD),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
async def test_an_application_that_is_none(bed: Bed, said: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await bed.submit(**said)
    assert caught.value.reason is reason
    assert await bed.rows(CASE) == []


async def test_the_day_in_a_case_id_is_the_procedures_own(sqlite_url: str, tmp_path: Path) -> None:
    evening = Hand(dt.datetime(2026, 9, 21, 17, tzinfo=dt.UTC))  # one in the morning of the 22nd in Beijing
    async with desk(sqlite_url, tmp_path, evening) as bed:
        assert (await bed.submit()).case_id.startswith("DEMO-20260922-")


async def test_case_ids_are_all_different(bed: Bed) -> None:
    ids = {(await bed.submit()).case_id for _ in range(50)}
    assert len(ids) == 50
    assert len({i[-8:-4] for i in ids}) > 40


# Events.


async def test_a_case_from_end_to_end(any_bed: Bed) -> None:
    case = await any_bed.submit()
    steps = (ACCEPTED, ("C", "taxation"), ("B", "publicsecurity"), ("D", "commerce"), ("E", "commerce"))
    await any_bed.through(case.case_id, *steps)
    done = await any_bed.cases.get(case.case_id)
    assert (done.head.status, done.version) == ("DELIVERED", len(done.events))
    assert done.head.closed_at == START
    (row,) = await any_bed.rows(CASE)
    assert (row["status"], row["version"], row["next_at"]) == ("DELIVERED", done.version, None)
    assert [r["closed_at"] is not None for r in await any_bed.rows(EXAMINATION)] == [True, True]
    assert sorted(r["fact"] for r in await any_bed.rows(RESULT)) == ["demo_decided", "person_verified", "tax_clear"]


async def test_an_event_sent_again_is_the_same_event(any_bed: Bed) -> None:
    case = await accepted(any_bed)
    said: dict[str, Any] = {"id": fresh(), "officer": "o-1"}
    first = await any_bed.act(case.case_id, Kind.START, "B", "publicsecurity", **said)
    any_bed.clock.move(minutes=5)
    again = await any_bed.act(case.case_id, Kind.START, "B", "publicsecurity", expected_version=1, **said)
    assert again.duplicate
    assert (again.event, again.sequence, again.version) == (first.event, first.sequence, first.version)


async def test_a_result_sent_again_is_the_same_result(any_bed: Bed) -> None:
    case = await accepted(any_bed)
    await any_bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    credential = await any_bed.sign(case, case.procedure.stage("B"))
    said: dict[str, Any] = {"id": fresh(), "credential": credential}
    first = await any_bed.result(case.case_id, "B", "publicsecurity", **said)
    again = await any_bed.result(case.case_id, "B", "publicsecurity", **said)
    assert (again.duplicate, again.event) == (True, first.event)
    assert len(await any_bed.outbox("result.issued")) == len({r["audience"] for r in await any_bed.outbox()})


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": Kind.EXTEND},
        {"stage": "C"},
        {"agency": "taxation"},
        {"officer": "o-2"},
        {"reason": "RISK_SIGNAL"},
        {"at": START - dt.timedelta(minutes=1)},
        {"result": ResultCode.PASS},
        {"pause": Pause.INQUIRY},
        {"extension": 1},
    ],
    ids=lambda c: next(iter(c)),
)
async def test_an_event_id_stands_for_one_event(bed: Bed, changed: dict[str, Any]) -> None:
    case = await accepted(bed)
    said: dict[str, Any] = {"id": fresh(), "kind": Kind.START, "stage": "B", "agency": "publicsecurity"}
    await bed.act(case.case_id, **said, officer="o-1")
    whole: dict[str, Any] = {"officer": "o-1", **said, **changed}
    error = await refused(bed, case.case_id, **whole)
    assert error.reason is Reason.EVENT_ID_REUSED


async def test_a_result_with_another_credential_is_another_event(bed: Bed) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    said: dict[str, Any] = {"id": fresh(), "result": ResultCode.PASS}
    of = case.procedure.stage("B")
    await bed.act(case.case_id, Kind.RESULT, "B", "publicsecurity", credential=await bed.sign(case, of), **said)
    other = await bed.sign(case, of)
    for credential in (other, ""):
        error = await refused(bed, case.case_id, Kind.RESULT, "B", "publicsecurity", credential=credential, **said)
        assert error.reason is Reason.EVENT_ID_REUSED


async def test_the_version_that_was_seen(any_bed: Bed) -> None:
    case = await accepted(any_bed)
    await any_bed.act(case.case_id, Kind.START, "B", "publicsecurity", expected_version=case.version)
    with pytest.raises(Aborted) as caught:
        await any_bed.act(case.case_id, Kind.START, "C", "taxation", expected_version=case.version)
    assert caught.value.reason is Reason.VERSION_CONFLICT
    assert caught.value.metadata["version"] == str(case.version + 1)


@pytest.mark.parametrize(
    ("kind", "stage", "agency", "said", "reason"),
    [
        (Kind.START, "Z", "commerce", {}, Reason.STAGE_UNKNOWN),
        (Kind.START, "X", "foreign-investment", {}, Reason.STAGE_NOT_APPLICABLE),
        (Kind.START, "D", "commerce", {}, Reason.STAGE_NOT_READY),
        (Kind.START, "B", "taxation", {}, Reason.EVENT_WRONG_AGENCY),
        (Kind.START, "B", "publicsecurity", {"at": START + dt.timedelta(minutes=2)}, Reason.EVENT_IN_FUTURE),
        (Kind.START, "B", "publicsecurity", {"at": START - dt.timedelta(days=4)}, Reason.EVENT_TOO_OLD),
        (Kind.START, "B", "publicsecurity", {"at": START - dt.timedelta(hours=1)}, Reason.EVENT_OUT_OF_ORDER),
        (Kind.START, "B", "publicsecurity", {"id": "1"}, Reason.EVENT_ID_INVALID),
        (Kind.RESULT, "B", "publicsecurity", {"result": ResultCode.PASS}, Reason.EVENT_NOT_ALLOWED),
        (Kind.RESUME, "B", "publicsecurity", {}, Reason.EVENT_NOT_ALLOWED),
        (Kind.RECOGNISE, "B", "publicsecurity", {}, Reason.EVENT_WRONG_AGENCY),
        (Kind.DEEMED, "B", "recognition", {}, None),
        (Kind.WITHDRAW, "", "taxation", {"reason": "OPENED_IN_ERROR"}, Reason.EVENT_WRONG_AGENCY),
        (Kind.WITHDRAW, "", "commerce", {}, Reason.REASON_MISSING),
        (Kind.WITHDRAW, "", "commerce", {"reason": "WHY_NOT"}, Reason.REASON_UNKNOWN),
    ],
)
async def test_events_that_are_refused(
    bed: Bed, kind: Kind, stage: str, agency: str, said: dict[str, Any], reason: Reason | None
) -> None:
    case = await accepted(bed)
    error = await refused(bed, case.case_id, kind, stage, agency, **said)
    assert reason is None or error.reason is reason


async def test_events_of_a_case_that_is_none(bed: Bed) -> None:
    with pytest.raises(NotFound) as caught:
        await bed.act("DEMO-20260921-00000000", Kind.START, "A", "commerce")
    assert caught.value.reason is Reason.CASE_NOT_FOUND
    with pytest.raises(NotFound):
        await bed.cases.get("DEMO-20260921-00000000")


async def test_events_after_the_end(bed: Bed) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    await bed.act(case.case_id, Kind.WITHDRAW, "", "commerce", reason="APPLICANT_WITHDREW")
    assert [row["closed_at"] is not None for row in await bed.rows(EXAMINATION)] == [True]
    error = await refused(bed, case.case_id, Kind.START, "C", "taxation")
    assert error.reason is Reason.CASE_CLOSED


async def test_an_applicant(bed: Bed) -> None:
    case = await bed.submit()
    await bed.act(case.case_id, Kind.START, "A", "commerce")
    await bed.act(case.case_id, Kind.SUPPLEMENT_REQUEST, "A", "commerce", reason="MATERIAL_MISSING")
    received = await bed.act(case.case_id, Kind.SUPPLEMENT_RECEIVED, "A", "applicant", enterprise=True)
    assert received.event.agency == "applicant"
    with pytest.raises(HutongError) as caught:
        await bed.act(case.case_id, Kind.START, "B", "applicant", enterprise=True)
    assert caught.value.reason is Reason.EVENT_WRONG_AGENCY
    gone = await bed.act(case.case_id, Kind.WITHDRAW, "", "applicant", enterprise=True, reason="APPLICANT_WITHDREW")
    assert gone.version == 5
    assert (await bed.cases.get(case.case_id)).head.status == "WITHDRAWN"


# Whole or not at all.


async def test_everything_is_one_transaction(bed: Bed) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    credential = await bed.sign(case, case.procedure.stage("B"))
    execute(bed.url, "ALTER TABLE outbox RENAME TO away")
    before = [await bed.rows(table) for table in (CASE, EVENT, RESULT, EXAMINATION)]
    with pytest.raises(HutongError):
        await bed.result(case.case_id, "B", "publicsecurity", credential=credential)
    assert [await bed.rows(table) for table in (CASE, EVENT, RESULT, EXAMINATION)] == before
    execute(bed.url, "ALTER TABLE away RENAME TO outbox")
    await bed.result(case.case_id, "B", "publicsecurity", credential=credential)


# Seeing.


async def test_cases_are_listed_the_newest_first(any_bed: Bed) -> None:
    ids: list[str] = []
    for number in range(7):
        any_bed.clock.move(seconds=number % 2)
        ids.append((await any_bed.submit(subject=OTHER if number % 3 else SUBJECT)).case_id)
    seen: list[str] = []
    after: tuple[dt.datetime, str] | None = None
    while page := await any_bed.cases.list(Selection(agency="taxation"), limit=2, after=after):
        seen += [snapshot.case_id for snapshot in page]
        after = (page[-1].head.applied_at, page[-1].case_id)
    assert len(seen) == 7
    assert sorted(seen) == sorted(ids)
    applied = {row["case_id"]: row["applied_at"] for row in await any_bed.rows(CASE)}
    assert [applied[i] for i in seen] == sorted(applied.values(), reverse=True)


async def test_cases_are_selected(any_bed: Bed) -> None:
    one = (await accepted(any_bed)).case_id
    two = (await any_bed.submit("EXPRESS", subject=OTHER, submitter=f"enterprise/{OTHER.lower()}")).case_id
    await any_bed.act(one, Kind.WITHDRAW, "", "commerce", reason="APPLICANT_WITHDREW")

    async def found(**wanted: Any) -> list[str]:
        return [s.case_id for s in await any_bed.cases.list(Selection(**wanted), limit=20)]

    assert await found() == sorted([one, two], reverse=True)
    assert await found(agency="commerce") == [one]
    assert await found(agency="customs") == []
    assert await found(agency="customs", case_ids=(two,)) == [two]
    assert await found(scheme="cn.uscc", subject=OTHER) == [two]
    assert await found(procedure_code="EXPRESS") == [two]
    assert await found(status="WITHDRAWN") == [one]
    assert await found(open_only=True) == [two]
    assert await found(submitter=f"enterprise/{OTHER.lower()}") == [two]


async def test_events_from_a_number_on(bed: Bed) -> None:
    case = await accepted(bed)
    assert [e.kind for e in await bed.cases.events(case.case_id, 1)] == [Kind.START, Kind.RESULT]
    assert await bed.cases.events(case.case_id, 3) == ()


async def test_who_listens_is_told_after_the_commit(bed: Bed) -> None:
    heard: list[tuple[str, int]] = []
    bed.cases.listeners.append(lambda case_id, version: heard.append((case_id, version)))
    case = await bed.submit()
    started = fresh()
    await bed.act(case.case_id, Kind.START, "A", "commerce", id=started)
    await bed.act(case.case_id, Kind.START, "A", "commerce", id=started)
    assert heard == [(case.case_id, 1), (case.case_id, 2)]


# Procedures of running cases.


async def test_a_case_stays_on_its_version(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path) as bed:
        old = await bed.submit()
    longer = DEMO.replace("version: 1.0.0", "version: 1.1.0").replace("limit: 3 working days", "limit: 9 working days")
    async with desk(sqlite_url, tmp_path / "later", procedures=[longer, EXPRESS]) as bed:
        new = await bed.submit()
        assert new.procedure.label == "DEMO@1.1.0"
        kept = await bed.cases.get(old.case_id)
        assert (kept.procedure.label, kept.procedure.text) == ("DEMO@1.0.0", DEMO)
        await bed.through(old.case_id, ACCEPTED)
        assert await bed.ready(old.case_id) == ["B", "C"]


async def test_a_version_is_never_changed(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path) as bed:
        await bed.submit()
    changed = DEMO.replace("limit: 3 working days", "limit: 9 working days")
    with pytest.raises(FailedPrecondition) as caught:
        async with desk(sqlite_url, tmp_path / "later", procedures=[changed, EXPRESS]):
            pass
    assert caught.value.reason is Reason.PROCEDURE_CHANGED
    # Two replicas of which one has the other text already: no case begins on it.
    bed = build(sqlite_url, tmp_path, Hand(), procedures=[changed, EXPRESS])
    with pytest.raises(FailedPrecondition) as caught:
        await bed.submit()
    assert caught.value.reason is Reason.PROCEDURE_CHANGED
    bed.database.close()
