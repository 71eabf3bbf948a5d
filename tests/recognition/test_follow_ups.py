"""What follows from events: recognition, doubt, and what decisions rest on."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.recognition import tasks
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, ResultCode
from services.recognition.tables import RECOGNITION, RESTS_ON, RESULT, TASK
from services.recognition.tasks import Disposition
from tests.recognition.desk import DEMO, EXPRESS, Bed, desk, execute
from tests.recognition.test_cases import OTHER, accepted


async def proven(bed: Bed) -> str:
    """Have public security prove an identity in a case; gives the result's reference."""
    case = await accepted(bed)
    await bed.through(case.case_id, ("B", "publicsecurity"))
    return (await bed.cases.get(case.case_id)).state.stages["B"].ref


async def stage(bed: Bed, case_id: str, code: str) -> Any:
    return (await bed.cases.get(case_id)).state.stages[code]


async def open_tasks(bed: Bed, *, kind: str = "") -> list[tuple[str, str, str]]:
    rows = await bed.rows(TASK)
    return sorted((r["owner_agency"], r["case_id"], r["stage"]) for r in rows if kind in {"", r["kind"]})


# Recognition.


async def test_a_stage_that_is_proven_is_satisfied_at_once(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    (_, recognised) = case.events
    assert (recognised.kind, recognised.ref) == (Kind.RECOGNISE, ref)
    assert (recognised.source_agency, recognised.agency) == ("publicsecurity", "recognition")
    assert recognised.arrangement
    assert case.state.stages["P"].status == "RECOGNISED"
    assert await any_bed.ready(case.case_id) == ["Q"]
    (row,) = await any_bed.rows(RECOGNITION)
    assert (row["case_id"], row["stage"], row["result_ref"]) == (case.case_id, "P", ref)


async def test_a_stage_that_waits_is_satisfied_once_it_is_proven(any_bed: Bed) -> None:
    waiting = await any_bed.submit("EXPRESS")
    assert await any_bed.ready(waiting.case_id) == ["P"]
    ref = await proven(any_bed)
    assert (await stage(any_bed, waiting.case_id, "P")).ref == ref


async def test_nobody_is_spared_what_is_proven_of_others(bed: Bed) -> None:
    await proven(bed)
    case = await bed.submit("EXPRESS", subject=OTHER)
    assert await bed.ready(case.case_id) == ["P"]


async def test_a_stage_that_is_begun_is_gone_on_with(bed: Bed) -> None:
    begun = await bed.submit("EXPRESS")
    await bed.act(begun.case_id, Kind.START, "P", "publicsecurity")
    case = await accepted(bed)
    with pytest.raises(FailedPrecondition) as caught:
        await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    assert caught.value.reason is Reason.EXAMINATION_OPEN
    assert caught.value.metadata["case_id"] == begun.case_id
    await bed.act(
        case.case_id, Kind.START, "B", "publicsecurity", despite=caught.value.metadata["despite"], reason="LEGAL_DUTY"
    )
    await bed.result(case.case_id, "B", "publicsecurity")
    assert (await stage(bed, begun.case_id, "P")).status == "OPEN"


async def test_who_is_about_to_examine_is_told_of_what_is_proven(bed: Bed) -> None:
    """The result came, but crashed before it was offered: the stage takes it when somebody asks."""
    waiting = await bed.submit("EXPRESS")
    ref = await proven(bed)
    execute(bed.url, f"DELETE FROM stage_event WHERE case_id = '{waiting.case_id}' AND sequence > 1")
    execute(bed.url, f"UPDATE case_head SET version = 1 WHERE case_id = '{waiting.case_id}'", "DELETE FROM recognition")
    with pytest.raises(FailedPrecondition) as caught:
        await bed.act(waiting.case_id, Kind.START, "P", "publicsecurity")
    assert (caught.value.reason, caught.value.metadata["result_ref"]) == (Reason.EXAMINATION_VALID, ref)
    assert (await stage(bed, waiting.case_id, "P")).ref == ref


async def test_a_recognition_that_is_refused(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    with pytest.raises(InvalidArgument) as caught:
        await any_bed.act(case.case_id, Kind.REFUSE_RECOGNITION, "P", "publicsecurity")
    assert caught.value.reason is Reason.REASON_MISSING
    done = await any_bed.act(case.case_id, Kind.REFUSE_RECOGNITION, "P", "publicsecurity", reason="RISK_SIGNAL")
    assert done.event.ref == ref
    assert (await stage(any_bed, case.case_id, "P")).status == "READY"
    assert await open_tasks(any_bed, kind="RECOGNITION_REFUSED") == [("taxation", case.case_id, "P")]
    # It has been told of the result, and is not told again.
    await any_bed.through(case.case_id, ("P", "publicsecurity"), ("Q", "taxation"))
    assert (await any_bed.cases.get(case.case_id)).head.status == "DELIVERED"


async def test_what_is_refused_is_not_recognised_there_again(bed: Bed) -> None:
    await proven(bed)
    case = await bed.submit("EXPRESS")
    await bed.act(case.case_id, Kind.REFUSE_RECOGNITION, "P", "publicsecurity", reason="RISK_SIGNAL")
    bed.clock.move(hours=1)
    execute(bed.url, "UPDATE case_head SET next_at = '2026-09-21 02:30:00.000000' WHERE closed_at IS NULL")
    await bed.cases.tick()
    assert await bed.ready(case.case_id) == ["P"]


# Revocation, and the moment of decision.


async def test_a_revocation_is_seen_everywhere_and_undoes_nothing(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    await any_bed.through(case.case_id, ("Q", "taxation"))
    (issued,) = [r["case_id"] for r in await any_bed.rows(RESULT) if r["result_ref"] == ref]
    await any_bed.act(issued, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL", ref=ref)
    for case_id, code in ((issued, "B"), (case.case_id, "P")):
        seen = await stage(any_bed, case_id, code)
        assert (seen.revoked, seen.doubtful) == (True, True)
    assert (await stage(any_bed, case.case_id, "P")).status == "RECOGNISED"
    assert (await any_bed.cases.get(case.case_id)).head.status == "DELIVERED"
    assert ("publicsecurity", case.case_id, "P") in await open_tasks(any_bed, kind="RESULT_REVOKED")
    assert kinds_of(await any_bed.cases.get(case.case_id)) == ["SUBMIT", "RECOGNISE", "START", "RESULT", "REVOKE"]


def kinds_of(case: Snapshot) -> list[str]:
    return [str(e.kind) for e in case.events]


async def test_a_result_revoked_between_recognition_and_decision(any_bed: Bed) -> None:
    ref = await proven(any_bed)
    case = await any_bed.submit("EXPRESS")
    await any_bed.act(case.case_id, Kind.START, "Q", "taxation")
    # Behind the service's back, as if both were at it in the same moment.
    execute(any_bed.url, "UPDATE stage_result SET state = 'REVOKED', state_reason = 'FALSE_MATERIAL'")
    before = (await any_bed.cases.get(case.case_id)).version
    with pytest.raises(FailedPrecondition) as caught:
        await any_bed.result(case.case_id, "Q", "taxation")
    assert (caught.value.reason, caught.value.metadata["result_ref"]) == (Reason.RECOGNISED_RESULT_INVALID, ref)
    assert caught.value.metadata["cause"] == "RESULT_REVOKED"
    after = await any_bed.cases.get(case.case_id)
    assert [str(e.kind) for e in after.events[before:]] == ["REVOKE"]  # seen in the case, but no result
    assert await open_tasks(any_bed, kind="RESULT_REVOKED") == [("publicsecurity", case.case_id, "P")]
    assert [r["audience"] for r in await any_bed.outbox("task.raised")] == ["publicsecurity"]


def _nobody(_connection: sa.Connection, _task: tasks.Task) -> None:
    """Give no stage back."""


async def test_a_decision_goes_on_once_its_basis_is_upheld(bed: Bed) -> None:
    ref = await proven(bed)
    case = await bed.submit("EXPRESS")
    await bed.act(case.case_id, Kind.START, "Q", "taxation")
    (issued,) = [r["case_id"] for r in await bed.rows(RESULT)]
    await bed.act(issued, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL", ref=ref)
    with pytest.raises(FailedPrecondition):
        await bed.result(case.case_id, "Q", "taxation")
    (task,) = [t for t in await bed.rows(TASK) if t["case_id"] == case.case_id]

    def uphold(connection: Any) -> None:
        tasks.dispose(
            connection,
            bed.cases.rulebook.desk,
            task["task_id"],
            owner="publicsecurity",
            disposition=Disposition.UPHELD,
            reason="DECISION_STANDS",
            officer="o-1",
            now=bed.clock(),
            reopen=_nobody,
        )

    await bed.database.write(uphold)
    await bed.result(case.case_id, "Q", "taxation")
    assert (await bed.cases.get(case.case_id)).head.status == "DELIVERED"


async def test_a_refusal_needs_no_standing_basis(bed: Bed) -> None:
    await proven(bed)
    case = await bed.submit("EXPRESS")
    await bed.act(case.case_id, Kind.START, "Q", "taxation")
    execute(bed.url, "UPDATE stage_result SET state = 'REVOKED', state_reason = 'FALSE_MATERIAL'")
    await bed.result(case.case_id, "Q", "taxation", ResultCode.FAIL, reason="ARREARS")
    assert (await bed.cases.get(case.case_id)).head.status == "REFUSED"


async def test_a_crash_between_a_revocation_and_its_cases(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path) as bed:
        await proven(bed)
        case = await bed.submit("EXPRESS")
    execute(sqlite_url, "UPDATE stage_result SET state = 'REVOKED', state_reason = 'FALSE_MATERIAL'")
    async with desk(sqlite_url, tmp_path) as bed:
        assert (await stage(bed, case.case_id, "P")).doubtful


OUTSIDE = """\
# Relies on what no stage of its own proves.
code: OUTSIDE
version: 1.0.0
title: Outside
local_title: 外部
lead: customs
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: forbidden

stages:
  Z:
    title: Decision
    local_title: 决定
    agency: customs
    limit: 3 working days
    requires: [{fact: tax_clear, assurance: FORM_REVIEW}]
    proves: {fact: outside_decided, assurance: SUBSTANTIVE}
    recognised_by: [commerce]
    accepts: false
    reaches: DELIVERED
"""


async def test_a_decision_that_rests_on_a_fact_from_outside(any_url: str, tmp_path: Path) -> None:
    async with desk(any_url, tmp_path, procedures=[DEMO, EXPRESS, OUTSIDE]) as bed:
        case = await bed.submit("OUTSIDE")
        await bed.act(case.case_id, Kind.START, "Z", "customs")
        with pytest.raises(FailedPrecondition) as caught:
            await bed.result(case.case_id, "Z", "customs")
        assert (caught.value.reason, caught.value.metadata["fact"]) == (Reason.FACT_NOT_PROVEN, "tax_clear")
        proof = await accepted(bed)
        await bed.through(proof.case_id, ("C", "taxation"))
        await bed.result(case.case_id, "Z", "customs")
        (noted,) = [r for r in await bed.rows(RECOGNITION) if r["case_id"] == case.case_id]
        assert (noted["stage"], noted["recogniser"]) == ("Z", "customs")
        (edge,) = await bed.rows(RESTS_ON)
        assert edge["rests_on"] == noted["result_ref"]
        assert edge["result_ref"] == (await stage(bed, case.case_id, "Z")).ref
        await bed.act(proof.case_id, Kind.REVOKE, "C", "taxation", reason="ISSUED_IN_ERROR")
        assert ("customs", case.case_id, "Z") in await open_tasks(bed, kind="RESULT_REVOKED")
