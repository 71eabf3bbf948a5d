"""Whoever has no part in a case, a result, a task or an event: finds nothing, changes nothing, and is told nothing.

What is another's and what is not there are one answer, word for word, whatever is asked and by whom.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.event import listen, remove

from hutong.api.common.v1 import common_pb2
from hutong.api.recognition.v1 import case_service_pb2
from services.kit import check_digits, identifiers
from services.kit.errors import HutongError, Reason
from tests.attacks.handing_in import (
    call,
    dispose,
    followed,
    get_result,
    list_results,
    list_tasks,
    register,
    remind,
    reserve,
    revoke,
    told,
    watched,
    why,
)
from tests.recognition.mesh import (
    CASES,
    CUSTOMS,
    POLICE,
    QUALITY,
    REGISTRY,
    TAX,
    Mesh,
    enterprise,
    firm,
    fresh,
)
from tests.recognition.test_node import received

NO_CASE = "FTZ-EST-20200101-00000000"

Asking = Callable[[Mesh, str, str], Awaitable[Any]]
"""Asks something of a case, as somebody."""

OF_A_CASE: dict[str, Asking] = {
    "get": lambda mesh, who, case: mesh.get(who, case),
    "progress": lambda mesh, who, case: mesh.progress(who, case),
    "watch": watched,
    "watch further": lambda mesh, who, case: watched(mesh, who, case, after=99),
    "remind": remind,
    "remind a stage": lambda mesh, who, case: remind(mesh, who, case, "E2"),
    "remind none": lambda mesh, who, case: remind(mesh, who, case, "NONE"),
    "start": lambda mesh, who, case: mesh.event(who, case, "E2", "START"),
    "start none": lambda mesh, who, case: mesh.event(who, case, "NONE", "START"),
    "withdraw": lambda mesh, who, case: mesh.event(who, case, "", "WITHDRAW", reason_code="APPLICANT_WITHDREW"),
    "supplement": lambda mesh, who, case: mesh.event(who, case, "E1", "SUPPLEMENT_RECEIVED"),
    "at a version": lambda mesh, who, case: mesh.event(who, case, "E2", "START", expected_version=1),
    "nonsense": lambda mesh, who, case: mesh.event(who, case, "\x00", "START", stage_event_id="x", pause=99),
    "deemed": lambda mesh, who, case: mesh.event(who, case, "E2", "DEEMED"),
    "revoke": lambda mesh, who, case: mesh.event(who, case, "E1", "REVOKE", reason_code="ISSUED_IN_ERROR"),
}


@pytest.mark.parametrize("asking", OF_A_CASE.values(), ids=OF_A_CASE)
async def test_of_anothers_case_one_learns_what_one_learns_of_none(approvals: Mesh, asking: Asking) -> None:
    subject = firm()
    case_id = await approvals.accepted(subject)
    before = (await approvals.get(REGISTRY, case_id)).SerializeToString()
    for who in (enterprise(firm()), QUALITY, "laboratory/lims", "courts/registry"):
        absent = await told(asking(approvals, who, NO_CASE))
        assert absent[1] == Reason.CASE_NOT_FOUND
        assert await told(asking(approvals, who, case_id)) == absent
    assert (await approvals.get(REGISTRY, case_id)).SerializeToString() == before


@pytest.mark.parametrize(
    "case_id", ["", "\x00", "%", "_" * 26, "' OR 1=1 --", "*", "a" * 201, "x" * 200_000, "\u202e", "\u0416" * 200]
)
async def test_ids_that_are_none(approvals: Mesh, case_id: str) -> None:
    await approvals.submit(subject=firm())
    for who in (enterprise(firm()), REGISTRY):
        expected = await told(approvals.get(who, NO_CASE))
        for asking in (OF_A_CASE["get"], OF_A_CASE["progress"], OF_A_CASE["watch"], OF_A_CASE["remind"]):
            assert await told(asking(approvals, who, case_id)) == expected


async def test_case_ids_cannot_be_guessed_from_ones_own(approvals: Mesh) -> None:
    """Forty random bits each: an applicant's own cases, filed one after the other, say nothing of what lies between."""
    subject = firm()
    ids = [(await approvals.submit(subject=subject)).case.case_id for _ in range(32)]
    ends = [case_id.rpartition("-")[2] for case_id in ids]
    assert all(len(end) == 8 for end in ends)
    assert ends != sorted(ends)
    # Every place of the random part takes many values: none is a counter or a clock.
    assert all(len({end[place] for end in ends}) > 8 for place in range(8))


def full_width(code: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) for sign in code)


LOOK_ALIKES: dict[str, Callable[[str], str]] = {
    "full width": full_width,
    "lower case": str.lower,
    "spaced": " ".join,
    "hyphens": "-".join,
}


async def test_an_enterprise_is_the_code_in_its_certificate_however_it_is_written(approvals: Mesh) -> None:
    """Ways to write the same code are the same code; that lets its owner in, and nobody else."""
    subject, other = firm(), firm()
    case_id = (await approvals.submit(subject=subject)).case.case_id
    for write in LOOK_ALIKES.values():
        about = common_pb2.SubjectId(scheme="cn.uscc", value=write(subject))
        listed = await approvals.list(enterprise(subject), subject=about)
        assert case_id in {view.case.case_id for view in listed.cases}
        assert not (await approvals.list(enterprise(other), subject=about)).cases
        view = await approvals.submit(who=enterprise(subject), subject=write(subject), procedure="AEO-CERT")
        assert view.case.subject_uscc == subject
        refused = approvals.submit(who=enterprise(other), subject=write(subject), procedure="AEO-CERT")
        assert await why(refused) is Reason.SUBJECT_NOT_OWN


def neighbours(code: str) -> list[str]:
    """Codes that differ from one in the last place: what a slip, or somebody who hopes for one, would write."""
    return [code[:-1] + sign for sign in check_digits.USCC_ALPHABET if sign != code[-1]]


async def test_a_code_with_a_wrong_check_digit_is_another_enterprise(approvals: Mesh) -> None:
    """A certificate may carry it, since real registers hold such codes; it opens nothing of the one it looks like."""
    subject = firm()
    case_id = await approvals.accepted(subject)
    alike = neighbours(subject)[7]
    assert identifiers.check("cn.uscc", alike).verdict is identifiers.Verdict.SUSPECT
    who = enterprise(alike)
    assert await why(approvals.get(who, case_id)) is Reason.CASE_NOT_FOUND
    assert not (await approvals.list(who)).cases
    assert await why(approvals.submit(who=who, subject=subject, procedure="AEO-CERT")) is Reason.SUBJECT_NOT_OWN
    # Its own code is refused as mistyped unless it says that it means it.
    assert await why(approvals.submit(who=who, subject=alike, procedure="AEO-CERT")) is Reason.SUBJECT_INVALID


@pytest.mark.parametrize("name", ["o0oo", "91110000600037341", "node", "91110000600037341l-2", "1"])
async def test_a_certificate_of_no_enterprise_at_all_reaches_nothing(approvals: Mesh, name: str) -> None:
    case_id = await approvals.accepted(firm())
    who = f"enterprise/{name}"
    assert await why(approvals.get(who, case_id)) is Reason.CASE_NOT_FOUND
    assert not (await approvals.list(who)).cases
    assert await why(approvals.submit(who=who, procedure="AEO-CERT")) is Reason.SUBJECT_NOT_OWN
    for value in (name, name.upper()):
        assert await why(approvals.submit(who=who, subject=value, procedure="AEO-CERT")) is Reason.SUBJECT_INVALID


@pytest.mark.parametrize("who", ["enterprises/91110000600037341l", "applicant/any", "recognition/other", "all/any"])
async def test_names_that_mean_something_inside_open_no_door(approvals: Mesh, who: str) -> None:
    case_id = await approvals.accepted(firm())
    for asking in (
        approvals.get(who, case_id),
        approvals.submit(who=who),
        approvals.event(who, case_id, "E2", "DEEMED"),
        get_result(approvals, who, fresh()),
        list_tasks(approvals, who),
        reserve(approvals, who, fresh()),
        followed(approvals, who),
    ):
        assert await why(asking) is Reason.CALLER_NOT_LISTED


async def test_an_enterprise_does_nothing_that_agencies_do(approvals: Mesh) -> None:
    who = enterprise()
    result = await approvals.register(POLICE, "person_verified", subject=firm())
    for asking in (
        reserve(approvals, who, fresh()),
        register(approvals, who, result.credential),
        revoke(approvals, who, result.result_ref),
        list_tasks(approvals, who),
        dispose(approvals, who, fresh()),
        followed(approvals, who),
    ):
        assert await why(asking) is Reason.CALLER_NOT_LISTED


# Results.


async def test_of_a_result_that_is_not_ones_own_one_learns_what_one_learns_of_none(approvals: Mesh) -> None:
    subject = firm()
    result = await approvals.register(POLICE, "person_verified", subject=subject)
    for who in (enterprise(firm()), QUALITY):
        absent = await told(get_result(approvals, who, fresh()))
        assert absent == ("NotFound", "RESULT_NOT_FOUND", "there is no such result", {})
        assert await told(get_result(approvals, who, result.result_ref)) == absent
        for nonsense in ("", "\x00", "x" * 200_000, "' OR 1=1 --", "%"):
            assert await told(get_result(approvals, who, nonsense)) == absent
        assert not (await list_results(approvals, who, subject)).results
        assert (await list_results(approvals, who, subject)) == (await list_results(approvals, who, firm()))


async def test_results_are_their_issuers_to_revoke(approvals: Mesh) -> None:
    subject = firm()
    result = await approvals.register(POLICE, "person_verified", subject=subject)
    case_id = await approvals.accepted(subject)
    for who in (REGISTRY, CUSTOMS, QUALITY, TAX):
        absent = await told(revoke(approvals, who, fresh()))
        for how in ({}, {"suspend": True}, {"reinstate": True}, {"reason_code": "", "suspend": True}):
            assert await told(revoke(approvals, who, result.result_ref, **how)) == absent
    # Nor by way of the case: its recogniser has a stage there, and the result is not its own.
    for who in (REGISTRY, CUSTOMS):
        revoking = approvals.event(who, case_id, "E2", "REVOKE", reason_code="ISSUED_IN_ERROR")
        assert await why(revoking) is Reason.EVENT_WRONG_AGENCY
    found = await get_result(approvals, POLICE, result.result_ref)
    assert found.result_state == result.result_state


async def test_what_an_outline_keeps_back(approvals: Mesh) -> None:
    """Who could recognise a result, and has no case about its subject, is not shown what is in it."""
    result = await approvals.register(POLICE, "person_verified", subject=firm())
    found = await get_result(approvals, CUSTOMS, result.result_ref)
    assert (found.fact_code, found.credential) == ("person_verified", "")


async def test_a_case_that_is_over_opens_nothing_of_what_comes_later(approvals: Mesh) -> None:
    """Who once dealt with somebody does not read on for ever; nor does who opens a case and closes it again."""
    subject = firm()
    case_id = (await approvals.submit(subject=subject)).case.case_id
    result = await approvals.register(POLICE, "person_verified", subject=subject)
    assert (await get_result(approvals, CUSTOMS, result.result_ref)).credential
    await approvals.event(enterprise(subject), case_id, "", "WITHDRAW")
    found = await get_result(approvals, CUSTOMS, result.result_ref)
    assert (found.fact_code, found.credential) == ("person_verified", "")


# How long it takes.


@contextmanager
def asked_of_the_store(folder: Path) -> Generator[list[str]]:
    """Collect the statements that the store in a folder is asked while this lasts; other nodes run beside it."""
    statements: list[str] = []

    def heard(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        if str(folder) in str(connection.engine.url):
            statements.append(statement)

    listen(sa.Engine, "before_cursor_execute", heard)
    try:
        yield statements
    finally:
        remove(sa.Engine, "before_cursor_execute", heard)


@pytest.mark.parametrize("who", [enterprise(firm()), QUALITY], ids=["enterprise", "agency"])
async def test_what_is_anothers_takes_as_long_as_what_is_not_there(tmp_path: Path, who: str) -> None:
    """The store is asked the same in the same order: what is not done for the one is not done for the other."""
    mesh = Mesh(tmp_path)
    mesh.changes = {"tick": dt.timedelta(hours=1)}
    try:
        await mesh.start()
        subject = firm()
        result = await mesh.register(POLICE, "person_verified", subject=subject)
        case_id = await mesh.accepted(subject)
        await why(mesh.get(who, NO_CASE))
        for ask, there, absent in (
            (mesh.get, case_id, NO_CASE),
            (mesh.progress, case_id, NO_CASE),
            (partial(watched, mesh), case_id, NO_CASE),
            (partial(remind, mesh), case_id, NO_CASE),
            (partial(get_result, mesh), result.result_ref, fresh()),
        ):
            told_: list[list[str]] = []
            for name in (there, absent):
                with asked_of_the_store(tmp_path) as statements:
                    await why(ask(who, name))
                told_.append(statements)
            assert told_[0] == told_[1]
            assert told_[0]
    finally:
        await mesh.stop()


# Tasks and events.


async def revoked_in_a_case(mesh: Mesh) -> tuple[str, str]:
    """Bring about a task at the police, of a case it takes part in; gives the case's id and the result's."""
    subject = firm()
    result = await mesh.register(POLICE, "person_verified", subject=subject)
    case_id = await mesh.accepted(subject)
    await revoke(mesh, POLICE, result.result_ref)
    return case_id, result.result_ref


async def test_tasks_are_their_owners(approvals: Mesh) -> None:
    case_id, _ = await revoked_in_a_case(approvals)
    (task,) = (await list_tasks(approvals, POLICE, case_id=case_id)).tasks
    for who in (REGISTRY, CUSTOMS, QUALITY):
        assert not (await list_tasks(approvals, who, case_id=case_id, disposed=True)).tasks
        absent = await told(dispose(approvals, who, fresh()))
        assert absent[1] == Reason.TASK_NOT_FOUND
        assert await told(dispose(approvals, who, task.task_id)) == absent
        assert await told(dispose(approvals, who, task.task_id, reason_code="NONE", officer="X")) == absent
        for nonsense in ("", "\x00", "x" * 200_000, "%"):
            assert await told(dispose(approvals, who, nonsense)) == absent
    (still,) = (await list_tasks(approvals, POLICE, case_id=case_id)).tasks
    assert still == task


async def test_pages_are_theirs_who_asked_for_them(approvals: Mesh) -> None:
    subject = firm()
    for _ in range(3):
        await approvals.submit(subject=subject)
        await approvals.register(POLICE, "person_verified", subject=subject, stage=f"S{fresh()[:8]}")
        await revoked_in_a_case(approvals)
    about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)
    cases = (await approvals.list(REGISTRY, subject=about, page_size=1)).next_page_token
    results = (await list_results(approvals, POLICE, subject, page_size=1)).next_page_token
    tasks = (await list_tasks(approvals, POLICE, page_size=1)).next_page_token
    assert cases
    assert results
    assert tasks
    for token in (cases, results, tasks):
        for asking in (
            approvals.list(POLICE, subject=about, page_token=token),
            approvals.list("commerce/other", subject=about, page_token=token),
            approvals.list(enterprise(subject), page_token=token),
            approvals.list(REGISTRY, page_token=token),
            list_results(approvals, REGISTRY, subject, page_token=token),
            list_results(approvals, POLICE, firm(), page_token=token),
            list_tasks(approvals, CUSTOMS, page_token=token),
            list_tasks(approvals, POLICE, disposed=True, page_token=token),
        ):
            assert await why(asking) is Reason.PAGE_TOKEN_MISMATCH
    for token in ("x", "A" * 5000, cases[:-1] + ("A" if cases[-1] != "A" else "B"), "\u00e9"):
        assert await why(approvals.list(REGISTRY, subject=about, page_token=token)) is Reason.PAGE_TOKEN_INVALID


async def test_nobody_follows_anothers_events(approvals: Mesh) -> None:
    await revoked_in_a_case(approvals)
    for who in ("quality/node", "customs/node", "bank/core", POLICE):
        batch = await followed(approvals, who)
        assert {event.audience for event in batch.events} <= {who.partition("/")[0]}
    assert await why(followed(approvals, POLICE, after=-1)) is Reason.MALFORMED_REQUEST
    assert await why(followed(approvals, POLICE, after=2**62)) is Reason.EVENTS_AHEAD


async def test_an_inbox_is_its_own_agencys(own_approvals: Mesh) -> None:
    await own_approvals.start_department("publicsecurity")
    case_id, _ = await revoked_in_a_case(own_approvals)
    async with asyncio.timeout(10):
        await received(own_approvals, "publicsecurity", POLICE, "task.raised", case_id)
        for who in (REGISTRY, "customs/node", enterprise(), "recognition/node", "gateway/main", "operator/admin"):
            with pytest.raises(HutongError) as caught:
                await received(own_approvals, "publicsecurity", who, "task.raised", case_id)
            assert caught.value.reason is Reason.CALLER_NOT_LISTED


# What one has a part in, and no more.


async def test_a_subject_by_another_scheme_is_nobodys_own(approvals: Mesh) -> None:
    subject = firm()
    await approvals.submit(subject=subject)
    about = common_pb2.SubjectId(scheme="hutong.token", value=subject)
    assert not (await approvals.list(enterprise(subject), subject=about)).cases
    request = case_service_pb2.SubmitCaseRequest(request_id=fresh(), procedure_code="AEO-CERT", subject=about)
    submitting = call(
        approvals, enterprise(subject), f"{CASES}SubmitCase", request, case_service_pb2.SubmitCaseResponse
    )
    assert await why(submitting) is Reason.SUBJECT_NOT_OWN
