"""Cases over the wire: begun, worked on by several at once, listed, watched, reminded of."""

import asyncio
import datetime as dt
from typing import Any

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.recognition.v1 import case_pb2
from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit.errors import (
    Aborted,
    FailedPrecondition,
    HutongError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
)
from services.kit.waiting import within
from services.recognition.watching import WATCHES
from tests.recognition.mesh import (
    CASES,
    CUSTOMS,
    PASS,
    POLICE,
    QUALITY,
    REGISTRY,
    TAX,
    Mesh,
    coming,
    enterprise,
    firm,
    fresh,
)


async def reason_of(call: Any) -> Reason:
    with pytest.raises(HutongError) as caught:
        await call
    return caught.value.reason


async def test_the_same_request_gives_the_same_case_and_another_one_is_refused(mesh: Mesh) -> None:
    request_id, subject = fresh(), firm()
    first = await mesh.submit(subject=subject, request_id=request_id)
    assert first.case.subject_uscc == subject
    assert first.case.case_status == case_pb2.CASE_STATUS_APPLIED
    assert (await mesh.submit(subject=subject, request_id=request_id)).case.case_id == first.case.case_id
    assert await reason_of(mesh.submit(subject=firm(), request_id=request_id)) is Reason.REQUEST_ID_REUSED
    # Another submitter's request is another one, whatever its id.
    other = await mesh.submit(who=TAX, subject=subject, request_id=request_id)
    assert other.case.case_id != first.case.case_id


async def test_an_enterprise_applies_for_itself_only(mesh: Mesh) -> None:
    subject = firm()
    view = await mesh.submit(who=enterprise(subject), subject=subject, procedure="AEO-CERT")
    assert view.case.procedure_code == "AEO-CERT"
    with pytest.raises(PermissionDenied) as caught:
        await mesh.submit(who=enterprise(subject), subject=firm(), procedure="AEO-CERT")
    assert caught.value.reason is Reason.SUBJECT_NOT_OWN


async def test_an_agency_applies_for_others_only_where_it_takes_part(mesh: Mesh) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await mesh.submit(who=QUALITY)
    assert caught.value.reason is Reason.EVENT_WRONG_AGENCY


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"procedure_code": "FTZ-ETS"}, Reason.PROCEDURE_UNKNOWN),
        ({"procedure_code": "x" * 300}, Reason.MALFORMED_REQUEST),
        ({"request_id": "1"}, Reason.REQUEST_ID_INVALID),
        ({"subject": common_pb2.SubjectId()}, Reason.SUBJECT_MISSING),
        ({"subject": common_pb2.SubjectId(scheme="cn.uscc", value="1")}, Reason.SUBJECT_INVALID),
        (
            {"subject": common_pb2.SubjectId(scheme="lei", value="5493001KJTIIGC8Y1R12")},
            Reason.SUBJECT_SCHEME_UNSUPPORTED,
        ),
        ({"answers": {"forein": "true"}}, Reason.ANSWER_UNKNOWN),
        ({"answers": {str(n): "x" for n in range(65)}}, Reason.MALFORMED_REQUEST),
        ({"mode": 99}, Reason.MALFORMED_REQUEST),
        ({"mode": case_pb2.CASE_MODE_COMMITMENT}, Reason.COMMITMENT_MISSING),
        ({"commitment_id": "a\x00b"}, Reason.MALFORMED_REQUEST),
    ],
)
async def test_applications_that_are_refused(mesh: Mesh, changes: dict[str, Any], expected: Reason) -> None:
    whole: dict[str, Any] = {
        "request_id": fresh(),
        "procedure_code": "FTZ-EST",
        "subject": common_pb2.SubjectId(scheme="cn.uscc", value=firm()),
    }
    request = pb.SubmitCaseRequest(**(whole | changes))
    client = mesh.client(REGISTRY)
    assert await reason_of(client.unary(f"{CASES}SubmitCase", request, pb.SubmitCaseResponse, timeout=10)) is expected


async def test_a_moment_that_no_clock_shows_is_refused(mesh: Mesh) -> None:
    request = pb.SubmitCaseRequest(
        request_id=fresh(),
        procedure_code="FTZ-EST",
        subject=common_pb2.SubjectId(scheme="cn.uscc", value=firm()),
    )
    request.applied_at.seconds = -(10**15)
    client = mesh.client(REGISTRY)
    call = client.unary(f"{CASES}SubmitCase", request, pb.SubmitCaseResponse, timeout=10)
    assert await reason_of(call) is Reason.MALFORMED_REQUEST


async def test_an_event_sent_again_changes_nothing_and_a_stale_writer_is_told(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    version = (await mesh.get(POLICE, case_id)).version
    event_id = fresh()
    first = await mesh.event(POLICE, case_id, "E2", "START", stage_event_id=event_id, expected_version=version)
    assert (first.version, first.duplicate) == (version + 1, False)
    again = await mesh.event(POLICE, case_id, "E2", "START", stage_event_id=event_id, expected_version=version)
    assert (again.version, again.duplicate) == (version + 1, True)
    assert again.event == first.event
    with pytest.raises(Aborted) as caught:
        await mesh.event(POLICE, case_id, "E2", "SUPPLEMENT_REQUEST", expected_version=version)
    assert caught.value.reason is Reason.VERSION_CONFLICT
    assert caught.value.metadata["version"] == str(version + 1)


async def test_agencies_at_once_lose_nothing(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.passed(POLICE, case_id, "E2", "person_verified", subject=subject)
    await mesh.passed(REGISTRY, case_id, "E4", "registered", subject=subject)
    before = (await mesh.get(REGISTRY, case_id)).version
    sides = [(POLICE, "E5a"), (TAX, "E5b"), (CUSTOMS, "E5c"), ("social-insurance/desk", "E5d"), ("bank/core", "E5e")]
    came = await asyncio.gather(*(mesh.event(who, case_id, stage, "START") for who, stage in sides))
    assert sorted(answer.event.sequence for answer in came) == list(range(before + 1, before + 6))
    view = await mesh.get(REGISTRY, case_id)
    assert {s.code for s in view.stages if s.status == pb.STAGE_STATUS_OPEN} == {stage for _, stage in sides}


async def test_events_of_the_wrong_agency_and_of_strangers(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    # One that takes part is told that it is not its stage; one that does not, that there is no such case.
    assert await reason_of(mesh.event(TAX, case_id, "E2", "START")) is Reason.EVENT_WRONG_AGENCY
    for stranger in (QUALITY, "laboratory/lims", enterprise(firm())):
        absent = await reason_of(mesh.event(stranger, "FTZ-EST-20200101-00000000", "E2", "START"))
        assert await reason_of(mesh.event(stranger, case_id, "E2", "START")) is absent is Reason.CASE_NOT_FOUND


async def test_what_an_agency_may_not_say(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    refused = {Reason.EVENT_NOT_ALLOWED, Reason.EVENT_WRONG_AGENCY}
    for kind in ("SUBMIT", "RECOGNISE", "DEEMED", "REMIND", "RECOMPUTE"):
        assert await reason_of(mesh.event(POLICE, case_id, "E2", kind)) in refused
    assert await reason_of(mesh.event(POLICE, case_id, "E2", "UNSPECIFIED")) is Reason.MALFORMED_REQUEST
    assert await reason_of(mesh.event(POLICE, case_id, "E9", "START")) is Reason.STAGE_UNKNOWN
    assert await reason_of(mesh.event(POLICE, case_id, "E5a", "START")) is Reason.STAGE_NOT_READY
    assert await reason_of(mesh.event(POLICE, case_id, "E2", "START", result_code=99)) is Reason.MALFORMED_REQUEST
    assert await reason_of(mesh.event(POLICE, "", "E2", "START")) is Reason.CASE_NOT_FOUND
    assert await reason_of(mesh.event(POLICE, "\x00", "E2", "START")) is Reason.CASE_NOT_FOUND


async def test_an_enterprise_withdraws_and_supplements_and_decides_nothing(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    who = enterprise(subject)
    assert await reason_of(mesh.event(who, case_id, "E2", "START")) in {
        Reason.EVENT_WRONG_AGENCY,
        Reason.EVENT_NOT_ALLOWED,
    }
    await mesh.event(POLICE, case_id, "E2", "START")
    await mesh.event(POLICE, case_id, "E2", "SUPPLEMENT_REQUEST", reason_code="MATERIAL_MISSING")
    held = await mesh.progress(who, case_id)
    assert "applicant" in held.held_by
    await mesh.event(who, case_id, "E2", "SUPPLEMENT_RECEIVED", officer="somebody")
    (came,) = [e for e in (await mesh.get(POLICE, case_id)).events if e.stage_event == 4]
    assert came.agency == "applicant"
    assert not came.officer_pseud
    await mesh.event(who, case_id, "", "WITHDRAW", reason_code="APPLICANT_WITHDREW")
    assert (await mesh.get(who, case_id)).case.case_status == case_pb2.CASE_STATUS_WITHDRAWN
    assert await reason_of(mesh.event(POLICE, case_id, "E2", "SUPPLEMENT_REQUEST")) is Reason.CASE_CLOSED


async def test_a_recognised_result_satisfies_a_stage_at_once_and_says_from_where(mesh: Mesh) -> None:
    subject = firm()
    result = await mesh.register(POLICE, "person_verified", subject=subject)
    case_id = await mesh.accepted(subject)
    (stage,) = [s for s in (await mesh.progress(enterprise(subject), case_id)).view.stages if s.code == "E2"]
    assert stage.status == pb.STAGE_STATUS_RECOGNISED
    assert (stage.source_agency, stage.result_ref) == ("publicsecurity", result.result_ref)
    assert stage.arrangement == "PERSON-VERIFIED@1.0.0"


async def test_terms_that_do_not_stand_and_terms_that_give_nothing(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    for context, expected in (
        ({"purpose": "", "legal_basis": "CN-ADMIN-LICENSING"}, Reason.PURPOSE_MISSING),
        ({"purpose": "P-NONE", "legal_basis": "CN-ADMIN-LICENSING"}, Reason.PURPOSE_UNKNOWN),
        ({"purpose": "P-APPROVAL", "legal_basis": ""}, Reason.BASIS_MISSING),
        ({"purpose": "P-APPROVAL", "legal_basis": "CN-AUDIT"}, Reason.BASIS_MISMATCH),
        ({"purpose": "P-RISK", "legal_basis": "CN-ADMIN-LICENSING"}, Reason.NO_PERMIT),
    ):
        assert await reason_of(mesh.get(POLICE, case_id, **context)) is expected
        # Whether the case is there or not, and whoever asks.
        assert await reason_of(mesh.get(QUALITY, "nothing", **context)) is expected


async def test_lists_hold_what_the_caller_takes_part_in(mesh: Mesh) -> None:
    subject = firm()
    ids = [(await mesh.submit(subject=subject)).case.case_id for _ in range(3)]
    about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)
    for who in (REGISTRY, POLICE, "bank/core", enterprise(subject)):
        listed = await mesh.list(who, subject=about)
        assert [view.case.case_id for view in listed.cases] == ids[::-1]
        assert not any(view.events for view in listed.cases)
    for who in (QUALITY, enterprise(firm())):
        assert not (await mesh.list(who, subject=about)).cases
    mine = [view.case.case_id for view in (await mesh.list(enterprise(subject))).cases]
    assert mine == ids[::-1]


async def test_lists_go_on_where_they_ended_and_nowhere_else(mesh: Mesh) -> None:
    subject = firm()
    ids = [(await mesh.submit(subject=subject)).case.case_id for _ in range(5)]
    about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)
    found: list[str] = []
    last = ""
    page = await mesh.list(REGISTRY, subject=about, page_size=2)
    while True:
        assert len(page.cases) <= 2
        found += [view.case.case_id for view in page.cases]
        if not page.next_page_token:
            break
        last = page.next_page_token
        page = await mesh.list(REGISTRY, subject=about, page_size=2, page_token=last)
    assert found == ids[::-1]
    assert await reason_of(mesh.list(POLICE, subject=about, page_token=last)) is Reason.PAGE_TOKEN_MISMATCH
    assert await reason_of(mesh.list(REGISTRY, page_token=last)) is Reason.PAGE_TOKEN_MISMATCH
    assert await reason_of(mesh.list(REGISTRY, page_token="x")) is Reason.PAGE_TOKEN_INVALID
    assert await reason_of(mesh.list(REGISTRY, page_size=-1)) is Reason.PAGE_SIZE_INVALID


async def test_lists_are_narrowed_down(mesh: Mesh) -> None:
    subject = firm()
    await mesh.submit(subject=subject)
    aeo = (await mesh.submit(who=CUSTOMS, subject=subject, procedure="AEO-CERT")).case.case_id
    accepted = await mesh.accepted(subject)
    about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)

    async def ids(**more: Any) -> list[str]:
        return [view.case.case_id for view in (await mesh.list(CUSTOMS, subject=about, **more)).cases]

    assert len(await ids()) == 3
    assert await ids(procedure_code="AEO-CERT") == [aeo]
    assert accepted in await ids(case_status=case_pb2.CASE_STATUS_ACCEPTED)
    assert len(await ids(light=pb.LIGHT_GREEN)) == 3
    assert await ids(light=pb.LIGHT_RED) == []
    assert await reason_of(ids(light=9)) is Reason.MALFORMED_REQUEST


async def test_a_watch_gives_what_was_what_comes_and_ends_with_the_case(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    seen: list[pb.WatchCaseResponse] = []
    four = asyncio.Event()

    async def follow() -> None:
        async for response in mesh.events(enterprise(subject), case_id):
            seen.append(response)
            if len(seen) == 4:
                four.set()

    watching = asyncio.create_task(follow())
    assert await within(four, 10)
    assert [r.event.sequence for r in seen] == [1, 2, 3, 4] == [r.version for r in seen]
    await mesh.event(enterprise(subject), case_id, "", "WITHDRAW", reason_code="APPLICANT_WITHDREW")
    async with asyncio.timeout(10):
        await watching
    assert [r.event.sequence for r in seen] == [1, 2, 3, 4, 5]
    assert seen[-1].case_status == case_pb2.CASE_STATUS_WITHDRAWN
    # The stages are those of that moment, not of now.
    (acceptance,) = [s for s in seen[2].stages if s.code == "E1"]
    assert acceptance.status == pb.STAGE_STATUS_OPEN


async def test_a_watch_goes_on_after_where_it_was_left(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(enterprise(subject), case_id, "", "WITHDRAW", reason_code="APPLICANT_WITHDREW")
    assert [r.event.sequence async for r in mesh.watch(POLICE, case_id, after=3)] == [4, 5]
    assert [r async for r in mesh.watch(POLICE, case_id, after=5)] == []
    for after in (6, -1):
        with pytest.raises(InvalidArgument):
            await anext(mesh.watch(POLICE, case_id, after=after))


async def test_a_watch_wakes_at_once_and_says_first_that_it_lives(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    watch = mesh.watch(POLICE, case_id, after=4)
    async with asyncio.timeout(10):
        alive = await anext(watch)
    assert (alive.HasField("event"), alive.version) == (False, 4)
    woken = asyncio.ensure_future(coming(watch))
    await mesh.event(POLICE, case_id, "E2", "START")
    async with asyncio.timeout(10):
        assert (await woken).event.sequence == 5
    await watch.aclose()


async def test_strangers_watch_nothing_and_nobody_watches_without_end(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    for stranger in (QUALITY, enterprise(firm())):
        with pytest.raises(NotFound) as caught:
            await anext(mesh.watch(stranger, case_id))
        assert caught.value.reason is Reason.CASE_NOT_FOUND
    who = "bank/watcher"
    watches = [mesh.watch(who, case_id, after=4) for _ in range(WATCHES)]
    await asyncio.gather(*(anext(watch) for watch in watches))
    with pytest.raises(ResourceExhausted) as refused:
        await anext(mesh.watch(who, case_id))
    assert refused.value.reason is Reason.STREAMS_TOO_MANY
    await asyncio.gather(*(watch.aclose() for watch in watches))


async def test_a_reminder_goes_once_a_day_for_each_stage_and_caller(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)

    async def remind(who: str, stage: str = "E2", case: str = case_id) -> pb.RemindStageResponse:
        request = pb.RemindStageRequest(request_id=fresh(), case_id=case, stage_code=stage)
        return await mesh.client(who).unary(f"{CASES}RemindStage", request, pb.RemindStageResponse, timeout=10)

    answer = await remind(enterprise(subject))
    assert [(e.stage_code, e.threshold) for e in answer.events] == [("E2", "manual")]
    assert not answer.events[0].addressee  # which office that is is the agency's own business
    with pytest.raises(FailedPrecondition) as caught:
        await remind(enterprise(subject))
    assert caught.value.reason is Reason.REMINDED_ALREADY
    assert (await remind(REGISTRY)).events[0].addressee == "publicsecurity-window"
    assert await reason_of(remind(enterprise(firm()))) is Reason.CASE_NOT_FOUND
    assert await reason_of(remind(QUALITY)) is Reason.CASE_NOT_FOUND
    progress = await mesh.progress(enterprise(subject), case_id)
    assert progress.reminders == 2
    assert not [e for e in progress.view.events if e.stage_event == case_pb2.STAGE_EVENT_KIND_REMIND]


async def test_progress_is_what_the_applicant_follows(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    progress = await mesh.progress(enterprise(subject), case_id)
    assert list(progress.held_by) == ["publicsecurity"]
    stages = {stage.code: stage for stage in progress.view.stages}
    assert stages["E2"].clock.left == 1
    assert stages["E3"].status == pb.STAGE_STATUS_NOT_APPLICABLE
    assert list(stages["E6"].waits_for) == ["E5a", "E5b", "E5c", "E5d", "E5e"]
    assert progress.view.title
    assert progress.view.local_title == "自贸区企业设立"
    assert progress.view.expected_by.ToDatetime(dt.UTC) > dt.datetime.now(dt.UTC)


async def test_a_whole_establishment(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.closed(case_id, subject)
    view = await mesh.get(enterprise(subject), case_id)
    assert view.case.case_status == case_pb2.CASE_STATUS_DELIVERED
    assert view.case.HasField("closed_at")
    assert all(e.result_code == PASS for e in view.events if e.stage_event == case_pb2.STAGE_EVENT_KIND_RESULT)
