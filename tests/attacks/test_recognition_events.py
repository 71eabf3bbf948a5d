"""Agencies that speak for others, applicants that decide, and everybody who says what only the service may say."""

from typing import Any

import pytest

from hutong.api.recognition.v1 import case_pb2
from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit.errors import Reason
from tests.attacks.handing_in import call, get_result, remind, revoke, told, why
from tests.recognition.mesh import CASES, CUSTOMS, PASS, POLICE, REGISTRY, TAX, Kind, Mesh, enterprise, firm, fresh

OWN = ("SUBMIT", "RECOGNISE", "DEEMED", "REMIND", "RECOMPUTE")
"""Kinds that the service alone appends."""

KINDS = tuple(name.removeprefix("STAGE_EVENT_KIND_") for name in case_pb2.StageEventKind.keys()[1:])

ESTABLISHMENT = {
    "E0": "commerce",
    "E1": "commerce",
    "E2": "publicsecurity",
    "E4": "commerce",
    "E5a": "publicsecurity",
    "E5b": "taxation",
    "E5c": "customs",
    "E5d": "social-insurance",
    "E5e": "bank",
    "E6": "commerce",
}
"""Whose each stage is."""


REFUSED = {Reason.EVENT_WRONG_AGENCY, Reason.EVENT_NOT_ALLOWED, Reason.STAGE_UNKNOWN, Reason.STAGE_NOT_READY}
"""Why it is not somebody's to say; a supplement is an applicant's to hand in, where it was asked for one."""


async def begun(mesh: Mesh) -> tuple[str, str]:
    """Bring an establishment to where the police may begin; gives subject and case."""
    subject = firm()
    return subject, await mesh.accepted(subject)


async def story(mesh: Mesh, case_id: str) -> list[tuple[str, int, str]]:
    return [(e.stage_code, e.stage_event, e.agency) for e in (await mesh.get(REGISTRY, case_id)).events]


@pytest.mark.parametrize("who", ["publicsecurity/permits", "taxation/refund", "customs/release", "bank/core"])
async def test_no_agency_speaks_for_another(approvals: Mesh, who: str) -> None:
    """Of every stage that is not its own, it says nothing of any kind, whatever the stage is at."""
    _, case_id = await begun(approvals)
    before = await story(approvals, case_id)
    agency = who.partition("/")[0]
    for stage, owner in ESTABLISHMENT.items():
        for kind in KINDS:
            if owner == agency:
                continue
            refused = await why(approvals.event(who, case_id, stage, kind, reason_code="ISSUED_IN_ERROR"))
            assert refused in {Reason.EVENT_WRONG_AGENCY, Reason.EVENT_NOT_ALLOWED}, (stage, kind)
            if kind not in OWN:
                assert refused is Reason.EVENT_WRONG_AGENCY, (stage, kind)
    assert await story(approvals, case_id) == before


@pytest.mark.parametrize("kind", OWN)
async def test_nobody_says_what_the_service_alone_may_say(approvals: Mesh, kind: str) -> None:
    subject, case_id = await begun(approvals)
    before = await story(approvals, case_id)
    for who in (POLICE, REGISTRY, CUSTOMS, enterprise(subject)):
        for stage in ("E2", "E1", ""):
            refused = await why(approvals.event(who, case_id, stage, kind))
            assert refused in {Reason.EVENT_WRONG_AGENCY, Reason.EVENT_NOT_ALLOWED, Reason.STAGE_UNKNOWN}
    assert await story(approvals, case_id) == before


async def test_an_applicant_hands_in_or_withdraws_and_that_is_all(approvals: Mesh) -> None:
    subject, case_id = await begun(approvals)
    before = await story(approvals, case_id)
    for kind in KINDS:
        for stage in ("E2", "E1", ""):
            if (kind, stage) == ("WITHDRAW", ""):
                continue
            refused = await why(approvals.event(enterprise(subject), case_id, stage, kind))
            # A supplement is an applicant's to hand in, where it was asked for one.
            allowed = {
                Reason.EVENT_WRONG_AGENCY,
                Reason.EVENT_NOT_ALLOWED,
                Reason.STAGE_UNKNOWN,
                Reason.STAGE_NOT_READY,
            }
            assert refused in allowed, (kind, stage)
    assert await story(approvals, case_id) == before


async def test_an_applicants_own_result_decides_nothing(approvals: Mesh) -> None:
    """Its hand-in carries a verdict and a credential: neither is so much as kept."""
    subject = firm()
    case_id = (await approvals.submit(subject=subject)).case.case_id
    await approvals.passed(REGISTRY, case_id, "E0", "name_reserved", start=False, subject=subject)
    await approvals.event(REGISTRY, case_id, "E1", "START")
    await approvals.event(REGISTRY, case_id, "E1", "SUPPLEMENT_REQUEST", reason_code="MATERIAL_MISSING")
    signed = await approvals.credential(REGISTRY, "case_accepted", subject=subject, case_id=case_id, stage="E1")
    handing_in: dict[str, dict[str, Any]] = {
        Reason.MALFORMED_REQUEST: {"result_code": PASS},
        Reason.RESULT_FACT: {"credential": signed},
    }
    for reason, more in handing_in.items():
        assert await why(approvals.event(enterprise(subject), case_id, "E1", "SUPPLEMENT_RECEIVED", **more)) == reason
    view = await approvals.get(REGISTRY, case_id)
    assert {s.code: s.status for s in view.stages}["E1"] == pb.STAGE_STATUS_SUSPENDED


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("START", {"result_code": PASS}),
        ("START", {"pause": case_pb2.PAUSE_KIND_INSPECTION}),
        ("START", {"extension": -5}),
        ("START", {"approval_ref": "of somebody"}),
        ("RESULT", {"result_code": PASS, "extension": 2**31 - 1}),
        ("RESULT", {"result_code": PASS, "despite": "something"}),
        ("SUPPLEMENT_REQUEST", {"result_code": PASS, "reason_code": "MATERIAL_MISSING"}),
        ("WITHDRAW", {"approval_ref": "of somebody", "reason_code": "OPENED_IN_ERROR"}),
    ],
)
async def test_an_event_says_nothing_that_its_kind_does_not_say(
    approvals: Mesh, kind: str, more: dict[str, Any]
) -> None:
    """It would stand in the case for good, and read as a verdict, a pause or an approval that never was."""
    _, case_id = await begun(approvals)
    before = await story(approvals, case_id)
    assert await why(approvals.event(POLICE, case_id, "E2", kind, **more)) is Reason.MALFORMED_REQUEST
    assert await story(approvals, case_id) == before


async def test_reasons_are_codes_of_the_lists_and_never_what_somebody_writes(approvals: Mesh) -> None:
    """Everybody who sees the event reads its reason: no room for a name, a number or a message."""
    subject, case_id = await begun(approvals)
    text = "Zhang San, 110101199003070000"
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("START", {}),
        ("START", {"despite": fresh()}),
        ("SUPPLEMENT_REQUEST", {}),
        ("RESULT", {"result_code": case_pb2.RESULT_CODE_FAIL}),
    )
    for kind, more in cases:
        refused = await told(approvals.event(POLICE, case_id, "E2", kind, reason_code=text, **more))
        assert refused[1] in {Reason.REASON_UNKNOWN, Reason.EVENT_NOT_ALLOWED}
    await approvals.event(POLICE, case_id, "E2", "START")
    signed = await approvals.credential(POLICE, "person_verified", subject=subject, case_id=case_id, stage="E2")
    passing: dict[str, Any] = {"result_code": PASS, "credential": signed}
    assert await why(approvals.event(POLICE, case_id, "E2", "RESULT", reason_code=text, **passing)) in {
        Reason.REASON_UNKNOWN
    }
    await approvals.event(POLICE, case_id, "E2", "SUPPLEMENT_REQUEST", reason_code="MATERIAL_MISSING")
    handing_in = approvals.event(enterprise(subject), case_id, "E2", "SUPPLEMENT_RECEIVED", reason_code=text)
    assert await why(handing_in) is Reason.REASON_UNKNOWN
    withdrawing = approvals.event(enterprise(subject), case_id, "", "WITHDRAW", reason_code=text)
    assert await why(withdrawing) is Reason.REASON_UNKNOWN
    assert text not in str(await approvals.get(REGISTRY, case_id))


async def test_nor_is_the_reason_that_a_result_stands_again(approvals: Mesh) -> None:
    result = await approvals.register(POLICE, "person_verified", subject=firm())
    ref = result.result_ref
    assert await why(revoke(approvals, POLICE, ref, suspend=True, reason_code="free text")) is Reason.REASON_UNKNOWN
    await revoke(approvals, POLICE, ref, suspend=True)
    again = await revoke(approvals, POLICE, ref, reinstate=True, reason_code="Zhang San said so")
    assert again.result.state_reason == ""
    assert (await get_result(approvals, POLICE, ref)).state_reason == ""


async def test_officers_that_an_applicant_makes_up_are_kept_nowhere(approvals: Mesh) -> None:
    subject, case_id = await begun(approvals)
    await approvals.event(enterprise(subject), case_id, "", "WITHDRAW", officer="W-7", reason_code="APPLICANT_WITHDREW")
    last = (await approvals.get(REGISTRY, case_id)).events[-1]
    assert (last.agency, last.officer, last.officer_pseud) == ("applicant", "", "")


async def test_an_id_that_somebody_else_used_gives_nothing_of_what_it_stands_for(approvals: Mesh) -> None:
    """Event ids are read by everyone in the case: sent again by another, one is neither repeated nor answered."""
    subject, case_id = await begun(approvals)
    events = (await approvals.get(REGISTRY, case_id)).events
    for event in events:
        kind = Kind.Name(event.stage_event).removeprefix("STAGE_EVENT_KIND_")
        for who in (TAX, enterprise(subject)):
            sent = approvals.event(who, case_id, event.stage_code, kind, stage_event_id=event.stage_event_id)
            refused = await told(sent)
            assert refused[1] == Reason.EVENT_ID_REUSED
            assert refused[3] == {}
    assert len((await approvals.get(REGISTRY, case_id)).events) == len(events)


async def test_a_request_id_of_anothers_application_gives_another_case(approvals: Mesh) -> None:
    subject, request_id = firm(), fresh()
    mine = (await approvals.submit(subject=subject, request_id=request_id)).case.case_id
    theirs = (await approvals.submit(who=enterprise(subject), subject=subject, request_id=request_id)).case.case_id
    assert theirs != mine


@pytest.mark.parametrize(
    "event_id",
    [
        "",
        "a",
        "\n" * 36,
        "x" * 200_000,
        "\x00" * 36,
        "00000000-0000-0000-0000-00000000000A",
        "{00000000-0000-0000-0000-000000000000}",
        "0" * 32,
        "00000000-0000-0000-0000-00000000000\u0660",
        " 0000000-0000-0000-0000-000000000000",
    ],
)
async def test_ids_are_uuids_and_nothing_else(approvals: Mesh, event_id: str) -> None:
    subject, case_id = await begun(approvals)
    appending = approvals.event(POLICE, case_id, "E2", "START", stage_event_id=event_id)
    assert await why(appending) is Reason.EVENT_ID_INVALID
    if event_id:
        submitting = approvals.submit(subject=subject, request_id=event_id)
        assert await why(submitting) is Reason.REQUEST_ID_INVALID
    assert await why(remind(approvals, REGISTRY, case_id, request_id=event_id)) is Reason.REQUEST_ID_INVALID


async def test_versions_that_never_were(approvals: Mesh) -> None:
    _, case_id = await begun(approvals)
    for version in (-1, 0, 3, 5, 2**62):
        appending = approvals.event(POLICE, case_id, "E2", "START", expected_version=version)
        assert await why(appending) is Reason.VERSION_CONFLICT


async def test_an_agency_that_takes_no_part_begins_no_case(approvals: Mesh) -> None:
    for who in ("quality/lab", "laboratory/lims", "courts/registry"):
        refused = await told(approvals.submit(who=who, subject=firm()))
        assert refused[1] == Reason.EVENT_WRONG_AGENCY


async def test_requests_that_are_no_messages(approvals: Mesh) -> None:
    client = approvals.client(enterprise(firm()))
    for raw in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f"):
        for method in ("SubmitCase", "AppendStageEvent", "GetCase"):
            asking = client.unary(f"{CASES}{method}", raw, pb.GetCaseResponse, timeout=10)
            assert await why(asking) is Reason.MALFORMED_REQUEST


async def test_answers_by_the_thousand(approvals: Mesh) -> None:
    subject = firm()
    who = enterprise(subject)
    for answers in ({f"a{n}": "x" for n in range(8000)}, {"partner_consent": "x" * 201}, {"x" * 201: "true"}):
        submitting = approvals.submit(who=who, subject=subject, procedure="AEO-CERT", answers=answers)
        assert await why(submitting) is Reason.MALFORMED_REQUEST
    for answers in ({"partner_consent": "true\x00"}, {"partner_consent": "true\n"}, {"": "true"}):
        submitting = approvals.submit(who=who, subject=subject, procedure="AEO-CERT", answers=answers)
        assert await why(submitting) in {Reason.MALFORMED_REQUEST, Reason.ANSWER_UNKNOWN}
    assert not (await approvals.list(who)).cases


@pytest.mark.parametrize("field", ["procedure_code", "commitment_id", "explicit_request_id", "subject", "scheme"])
async def test_fields_of_a_hundred_thousand_characters(approvals: Mesh, field: str) -> None:
    request = pb.SubmitCaseRequest(request_id=fresh(), procedure_code="FTZ-EST")
    request.subject.scheme, request.subject.value = "cn.uscc", firm()
    long = "x" * 100_000
    if field == "subject":
        request.subject.value = long
    elif field == "scheme":
        request.subject.scheme = long
    else:
        setattr(request, field, long)
    asking = call(approvals, REGISTRY, f"{CASES}SubmitCase", request, pb.SubmitCaseResponse)
    kind, reason, message, metadata = await told(asking)
    assert kind == "InvalidArgument"
    assert reason in {Reason.MALFORMED_REQUEST, Reason.SUBJECT_INVALID, Reason.SUBJECT_SCHEME_UNKNOWN}
    assert len(message) + sum(map(len, metadata.values())) < 2000
