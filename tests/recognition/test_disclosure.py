"""Who sees what of cases, events, results and tasks: over the wire, in every answer there is."""

import datetime as dt
import json
from typing import Any

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.recognition.v1 import case_pb2, result_service_pb2, stage_result_pb2
from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit.errors import HutongError, NotFound, PermissionDenied, Reason
from services.kit.events import outbox
from services.kit.events.outbox import NewEvent
from services.recognition import tasks
from services.recognition.tasks import NewTask, TaskKind
from tests.recognition.mesh import (
    APPROVAL,
    CUSTOMS,
    POLICE,
    QUALITY,
    REGISTRY,
    RESULTS,
    SELF,
    TASKS,
    TAX,
    Mesh,
    coming,
    context_of,
    enterprise,
    firm,
    fresh,
)
from tests.zone import now

OFFICER = "W-7"
"""The officer who accepted the case (`Mesh.accepted`)."""


async def get_result(mesh: Mesh, who: str, ref: str) -> stage_result_pb2.StageResult:
    request = result_service_pb2.GetResultRequest(result_ref=ref, context=context_of(who))
    client = mesh.client(who)
    answer = await client.unary(f"{RESULTS}GetResult", request, result_service_pb2.GetResultResponse, timeout=10)
    return answer.result


async def list_results(mesh: Mesh, who: str, subject: str, **more: Any) -> result_service_pb2.ListResultsResponse:
    about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)
    request = result_service_pb2.ListResultsRequest(subject=about, context=context_of(who), **more)
    client = mesh.client(who)
    return await client.unary(f"{RESULTS}ListResults", request, result_service_pb2.ListResultsResponse, timeout=10)


async def list_tasks(mesh: Mesh, who: str, **more: Any) -> list[stage_result_pb2.Task]:
    request = result_service_pb2.ListTasksRequest(**more)
    client = mesh.client(who)
    answer = await client.unary(f"{TASKS}ListTasks", request, result_service_pb2.ListTasksResponse, timeout=10)
    return list(answer.tasks)


async def revoke(mesh: Mesh, who: str, ref: str) -> result_service_pb2.RevokeResultResponse:
    request = result_service_pb2.RevokeResultRequest(
        request_id=fresh(), result_ref=ref, reason_code="ISSUED_IN_ERROR", officer="P-1"
    )
    client = mesh.client(who)
    return await client.unary(f"{RESULTS}RevokeResult", request, result_service_pb2.RevokeResultResponse, timeout=10)


def officers(view: pb.CaseView) -> tuple[set[str], set[str]]:
    """List the officers that stand in a case's events, plain and as pseudonyms."""
    return {e.officer for e in view.events} - {""}, {e.officer_pseud for e in view.events} - {""}


async def test_officers_are_their_own_agencys_and_pseudonyms_elsewhere(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(POLICE, case_id, "E2", "START", officer="P-1")
    plain: dict[str, set[str]] = {}
    stand_ins: dict[str, set[str]] = {}
    for who in (REGISTRY, "commerce/other", POLICE, TAX, "bank/core"):
        plain[who], stand_ins[who] = officers(await mesh.get(who, case_id))
    assert plain == {REGISTRY: {OFFICER}, "commerce/other": {OFFICER}, POLICE: {"P-1"}, TAX: set(), "bank/core": set()}
    for names in stand_ins.values():
        assert len(names) == 2
        assert not names & {OFFICER, "P-1"}
    # The same for everybody of one agency, and other ones for another: nobody can compare.
    assert stand_ins[REGISTRY] == stand_ins["commerce/other"]
    assert not stand_ins[REGISTRY] & stand_ins[TAX]
    assert not stand_ins[TAX] & stand_ins["bank/core"]


async def test_an_enterprise_learns_of_no_officer_in_any_answer(mesh: Mesh) -> None:
    subject = firm()
    who = enterprise(subject)
    case_id = await mesh.accepted(subject)
    answers = [str(await mesh.get(who, case_id)), str(await mesh.progress(who, case_id)), str(await mesh.list(who))]
    event = await mesh.event(who, case_id, "", "WITHDRAW", reason_code="APPLICANT_WITHDREW", officer="me")
    answers.append(str(event))
    answers += [str(response) async for response in mesh.watch(who, case_id)]
    assert len(answers) == 9
    assert not any("officer" in answer or "addressee" in answer for answer in answers)


async def test_answers_to_writers_are_cut_as_everything_is(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    answer = await mesh.event(POLICE, case_id, "E2", "START", officer="P-1")
    assert answer.event.officer == "P-1"
    assert answer.event.officer_pseud
    assert answer.event.officer_pseud != "P-1"
    async for response in mesh.watch(TAX, case_id, after=2):
        assert not response.event.officer
        assert response.event.officer_pseud != OFFICER
        if response.version == 5:
            break


async def test_what_an_enterprise_sees_of_its_own_case(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    view = await mesh.get(enterprise(subject), case_id)
    assert view.case.subject_uscc == subject
    assert [stage.code for stage in view.stages][:3] == ["E0", "E1", "E2"]
    assert [e.sequence for e in view.events] == [1, 2, 3, 4]
    assert view.events[3].agency == "commerce"
    (stage,) = [s for s in view.stages if s.code == "E1"]
    assert stage.result_ref


async def test_to_everybody_else_there_is_no_such_case(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    for who in (QUALITY, "laboratory/lims", enterprise(firm())):
        for one in (case_id, "FTZ-EST-20200101-00000000"):
            with pytest.raises(NotFound) as caught:
                await mesh.get(who, one)
            assert caught.value.reason is Reason.CASE_NOT_FOUND
            assert caught.value.metadata == {}
            with pytest.raises(NotFound):
                await mesh.progress(who, one)


async def test_terms_are_the_callers_own(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    for who, context in ((enterprise(subject), APPROVAL), (POLICE, SELF)):
        with pytest.raises(PermissionDenied) as caught:
            await mesh.get(who, case_id, purpose=context.purpose, legal_basis=context.legal_basis)
        assert caught.value.reason is Reason.NO_PERMIT


async def test_a_task_opens_its_stage_and_no_more(mesh: Mesh) -> None:
    """An agency that takes no part, and to which something of the case was given."""
    assert mesh.node is not None
    case_id = await mesh.accepted(firm())
    who = "logistics/desk"
    with pytest.raises(NotFound):
        await mesh.get(who, case_id)
    desk = mesh.node.cases.rulebook.desk
    raised = NewTask(TaskKind.LATE_OPINION, "logistics", case_id, "E2", cause=fresh())
    moment = now()

    def work(connection: Any) -> None:
        post: list[NewEvent] = []
        tasks.raise_(connection, desk, [raised], moment, post=post)
        outbox.put(connection, post, moment)

    await mesh.node.database.write(work)
    view = await mesh.get(who, case_id)
    assert [stage.code for stage in view.stages] == ["E2"]
    assert [e.sequence for e in view.events] == [1]
    assert [v.case.case_id for v in (await mesh.list(who)).cases] == [case_id]
    await mesh.event(POLICE, case_id, "E2", "START")
    assert [e.stage_code for e in (await mesh.get(who, case_id)).events] == ["", "E2"]
    assert [r.event.sequence for r in [await anext(mesh.watch(who, case_id, after=2))]] == [5]
    # Seeing is not doing.
    with pytest.raises(HutongError) as caught:
        await mesh.event(who, case_id, "E2", "SUPPLEMENT_REQUEST", reason_code="MATERIAL_MISSING")
    assert caught.value.reason is Reason.EVENT_WRONG_AGENCY


async def test_a_result_is_its_issuers_its_subjects_and_those_who_may_recognise_it(mesh: Mesh) -> None:
    subject = firm()
    result = await mesh.register(POLICE, "person_verified", subject=subject)
    assert (await get_result(mesh, POLICE, result.result_ref)).credential
    assert (await get_result(mesh, enterprise(subject), result.result_ref)).credential
    # Customs may recognise it; that it is there is what the arrangement says, what is in it waits for a case.
    outline = await get_result(mesh, CUSTOMS, result.result_ref)
    assert (outline.fact_code, outline.credential) == ("person_verified", "")
    await mesh.submit(who=CUSTOMS, subject=subject, procedure="AEO-CERT")
    assert (await get_result(mesh, CUSTOMS, result.result_ref)).credential
    for who in ("laboratory/lims", QUALITY, enterprise(firm())):
        for ref in (result.result_ref, fresh()):
            with pytest.raises(NotFound) as caught:
                await get_result(mesh, who, ref)
            assert caught.value.reason is Reason.RESULT_NOT_FOUND


async def test_a_result_of_a_case_is_known_to_who_takes_part(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.passed(POLICE, case_id, "E2", "person_verified", subject=subject)
    (ref,) = [
        e.result_ref for e in (await mesh.get(POLICE, case_id)).events if e.agency == "publicsecurity" and e.result_ref
    ]
    outline = await get_result(mesh, "social-insurance/desk", ref)
    assert (outline.result_state, outline.credential) == (stage_result_pb2.RESULT_STATE_VALID, "")
    # The bank recognises it by the procedure, and has a stage in this case.
    assert (await get_result(mesh, "bank/core", ref)).credential


async def test_results_are_listed_for_whom_they_are(mesh: Mesh) -> None:
    subject = firm()
    refs = [(await mesh.register(POLICE, "person_verified", subject=subject)).result_ref for _ in range(3)]
    listed = await list_results(mesh, enterprise(subject), subject)
    assert {r.result_ref for r in listed.results} == set(refs)
    assert not (await list_results(mesh, enterprise(firm()), subject)).results
    assert not (await list_results(mesh, "laboratory/lims", subject)).results
    assert not (await list_results(mesh, POLICE, subject, fact_code="registered")).results
    states = [r.result_state for r in (await list_results(mesh, POLICE, subject)).results]
    assert states.count(stage_result_pb2.RESULT_STATE_VALID) == 1
    one = await list_results(mesh, POLICE, subject, page_size=2)
    two = await list_results(mesh, POLICE, subject, page_size=2, page_token=one.next_page_token)
    assert len(one.results) == 2
    assert [r.result_ref for r in (*one.results, *two.results)] == [r.result_ref for r in listed.results]
    assert not two.next_page_token


async def test_a_result_is_revoked_by_its_issuer_alone(mesh: Mesh) -> None:
    result = await mesh.register(POLICE, "person_verified", subject=firm())
    for who in (CUSTOMS, REGISTRY):
        with pytest.raises(NotFound):
            await revoke(mesh, who, result.result_ref)
    answer = await revoke(mesh, POLICE, result.result_ref)
    assert answer.result.result_state == stage_result_pb2.RESULT_STATE_REVOKED
    assert answer.tasks == 0


async def test_tasks_are_their_owners(mesh: Mesh) -> None:
    subject = firm()
    result = await mesh.register(POLICE, "person_verified", subject=subject)
    case_id = await mesh.accepted(subject)
    answer = await revoke(mesh, POLICE, result.result_ref)
    assert answer.tasks > 0
    mine = await list_tasks(mesh, POLICE, case_id=case_id)
    assert [(t.owner_agency, t.kind, t.stage_code) for t in mine] == [
        ("publicsecurity", stage_result_pb2.TASK_KIND_RESULT_REVOKED, "E2")
    ]
    for who in (TAX, "bank/core"):
        assert await list_tasks(mesh, who, case_id=case_id) == []
        request = result_service_pb2.DisposeTaskRequest(
            task_id=mine[0].task_id, disposition=stage_result_pb2.DISPOSITION_NOT_AFFECTED, reason_code="x"
        )
        with pytest.raises(NotFound) as caught:
            await mesh.client(who).unary(
                f"{TASKS}DisposeTask", request, result_service_pb2.DisposeTaskResponse, timeout=10
            )
        assert caught.value.reason is Reason.TASK_NOT_FOUND


async def test_keys_and_status_lists_are_for_everybody(mesh: Mesh) -> None:
    result = await mesh.register(POLICE, "person_verified", subject=firm())
    client = mesh.client("visitor/app")
    keys = await client.unary(
        f"{RESULTS}GetKeys",
        result_service_pb2.GetKeysRequest(agency="publicsecurity"),
        result_service_pb2.GetKeysResponse,
        timeout=10,
    )
    published = json.loads(keys.jwks)
    assert published["keys"][0]["crv"] == "Ed25519"
    assert "d" not in published["keys"][0]
    assert result.result_ref
    reserve = result_service_pb2.ReserveStatusRequest(result_ref=fresh())
    entry = await mesh.client(POLICE).unary(
        f"{RESULTS}ReserveStatus", reserve, result_service_pb2.ReserveStatusResponse, timeout=10
    )
    token = await client.unary(
        f"{RESULTS}GetStatusList",
        result_service_pb2.GetStatusListRequest(uri=entry.uri),
        result_service_pb2.GetStatusListResponse,
        timeout=10,
    )
    assert token.token.count(".") == 2


async def test_what_the_policy_takes_back_is_gone_from_every_answer(own: Mesh) -> None:
    """A data officer closes fields while the node runs: records, stages and what was running are cut accordingly."""
    assert own.node is not None
    subject = firm()
    case_id = await own.accepted(subject)
    watch = own.watch(TAX, case_id, after=4)
    assert (await anext(watch)).version == 4
    forbid = """
@id("closed-for-now")
@title("What happened is nobody's business")
forbid (principal, action == Hutong::Action::"read", resource)
when {{ {test} }};
"""
    whole = own.policy.read_text(encoding="utf-8")
    test = 'resource.record_type == "recognition.StageEvent" && ["stage_event", "result_ref"].contains(resource.name)'
    own.policy.write_text(whole + forbid.format(test=test), encoding="utf-8")
    await own.node.policy_files.poll(own.node.engine)
    view = await own.get(TAX, case_id)
    assert [s.code for s in view.stages][:2] == ["E0", "E1"]
    for stage in view.stages:
        assert stage.agency
        assert {field.name for field, _ in stage.ListFields()} <= {"code", "title", "local_title", "agency"}
    assert {(e.stage_event, e.result_ref) for e in view.events} == {(0, "")}
    test = 'resource.record_type == "recognition.StageEvent" || resource.name == "case_status"'
    own.policy.write_text(whole + forbid.format(test=test), encoding="utf-8")
    await own.node.policy_files.poll(own.node.engine)
    view = await own.get(TAX, case_id)
    assert view.case.case_id == case_id
    assert not view.stages
    assert not view.events
    assert (view.light, view.version, view.HasField("expected_by"), view.HasField("clock")) == (0, 0, False, False)
    assert not (await own.progress(TAX, case_id)).held_by
    with pytest.raises(PermissionDenied) as caught:
        await coming(watch)
    assert caught.value.reason is Reason.FORBIDDEN
    # What was done is done, though its writer is shown nothing of it.
    answer = await own.event(POLICE, case_id, "E2", "START")
    assert answer.version == 5
    assert answer.event == case_pb2.StageEvent()


async def test_what_a_row_condition_gives_is_given_of_those_stages(own: Mesh) -> None:
    """A permit under a condition on the agency opens the stages of that agency, and no others."""
    assert own.node is not None
    case_id = await own.accepted(firm())
    text = own.policy.read_text(encoding="utf-8")
    permit = text.index('@id("R29-events")')
    narrowed = text[permit:].replace('@retain("P10Y")', '@retain("P10Y")\n@rows("agency = \'publicsecurity\'")', 1)
    own.policy.write_text(text[:permit] + narrowed, encoding="utf-8")
    await own.node.policy_files.poll(own.node.engine)
    view = await own.get(TAX, case_id)
    assert {stage.agency for stage in view.stages} == {"publicsecurity"}
    assert not [e for e in view.events if e.stage_code]


async def test_long_and_strange_words_are_refused(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    for context in (
        exchange_pb2.RequestContext(purpose="P" * 65, legal_basis="CN-ADMIN-LICENSING"),
        exchange_pb2.RequestContext(purpose="P-APPROVAL", legal_basis="CN-ADMIN-LICENSING", case_ref="\n"),
    ):
        with pytest.raises(HutongError) as caught:
            await mesh.get(
                POLICE, case_id, purpose=context.purpose, legal_basis=context.legal_basis, case_ref=context.case_ref
            )
        assert caught.value.reason is Reason.MALFORMED_REQUEST
    assert dt.UTC
