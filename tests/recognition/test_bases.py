"""What a decision rests on, looked at in the moment in which it is made."""

from pathlib import Path

import pytest

from services.kit.errors import FailedPrecondition, Reason
from services.recognition.events import Kind, ResultCode
from services.recognition.tables import RESTS_ON, TASK
from tests.recognition.desk import Bed, desk

CHAIN = """\
# One after the other: what the first proves ends soon, and the last but one demands it once more.
code: CHAIN
version: 1.0.0
title: Chain
local_title: 链
lead: commerce
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: forbidden
questions:
  check: {title: "Is it checked?", local_title: 是否核查, default: false}

stages:
  A:
    title: Name
    local_title: 名称
    agency: publicsecurity
    limit: 1 working day
    proves: {fact: name_free, assurance: AUTO, valid_for: P10D}
    recognised_by: [commerce, publicsecurity]
  B:
    title: Check
    local_title: 核查
    agency: quality
    after: [A]
    when: {check: true}
    limit: 1 working day
  C:
    title: Look
    local_title: 查看
    agency: customs
    after: [B]
    limit: 1 working day
    supplement: true
  D:
    title: Decision
    local_title: 决定
    agency: commerce
    after: [C]
    limit: 1 working day
  E:
    title: Delivery
    local_title: 送达
    agency: commerce
    after: [D]
    limit: 1 working day
    reaches: DELIVERED
"""

RECENT = CHAIN.replace("after: [C]\n", "after: [C]\n    requires: [{fact: name_free, max_age: P9D}]\n").replace(
    "P10D", "P90D"
)
"""The decision demands that the name was looked at in the last nine days."""

DEMANDED = CHAIN.replace("after: [C]\n", "after: [C]\n    requires: [{fact: name_free}]\n")


async def begun(bed: Bed, *stages: tuple[str, str], **answers: str) -> str:
    """A case in which some stages are done, each a day after the one before."""
    case = await bed.submit("CHAIN", answers=answers)
    for stage in stages:
        await bed.through(case.case_id, stage)
        bed.clock.move(days=1)
    return case.case_id


async def decision(bed: Bed, case_id: str, stage: str, agency: str) -> FailedPrecondition | None:
    """Try to decide; gives why it was refused."""
    await bed.act(case_id, Kind.START, stage, agency)
    try:
        await bed.result(case_id, stage, agency)
    except FailedPrecondition as refused:
        return refused
    return None


NAME, LOOK, DECIDED = ("A", "publicsecurity"), ("C", "customs"), ("D", "commerce")


async def test_what_has_done_its_work_may_end(sqlite_url: str, tmp_path: Path) -> None:
    """The name was free when somebody built on it; that this was for ten days only matters no more."""
    async with desk(sqlite_url, tmp_path, procedures=(CHAIN,)) as bed:
        case_id = await begun(bed, NAME, LOOK)
        bed.clock.move(days=20)
        assert await decision(bed, case_id, *DECIDED) is None
        rests = {r["rests_on"] for r in await bed.rows(RESTS_ON)}
        assert rests == set()  # the decision proves nothing, and so issues nothing that could rest on it
        assert await bed.rows(TASK) == []


async def test_what_is_built_on_directly_must_still_hold(any_url: str, tmp_path: Path) -> None:
    """Through a stage that was left out, too."""
    async with desk(any_url, tmp_path, procedures=(CHAIN,)) as bed:
        case_id = await begun(bed, NAME)
        bed.clock.move(days=20)
        refused = await decision(bed, case_id, *LOOK)
        assert refused is not None
        assert (refused.reason, refused.metadata["cause"]) == (Reason.RECOGNISED_RESULT_INVALID, "RESULT_EXPIRED")
        # Nobody recognised it: whoever wanted to decide is asked.
        assert [(t["owner_agency"], t["stage"]) for t in await bed.rows(TASK)] == [("customs", "C")]


async def test_what_is_demanded_must_still_hold(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path, procedures=(DEMANDED,)) as bed:
        case_id = await begun(bed, NAME, LOOK)
        bed.clock.move(days=20)
        refused = await decision(bed, case_id, *DECIDED)
        assert refused is not None
        assert refused.metadata["cause"] == "RESULT_EXPIRED"


async def test_what_was_revoked_stops_every_decision_behind_it(any_url: str, tmp_path: Path) -> None:
    async with desk(any_url, tmp_path, procedures=(CHAIN,)) as bed:
        case_id = await begun(bed, NAME, ("B", "quality"), LOOK, check="true")
        await bed.act(case_id, Kind.REVOKE, "A", "publicsecurity", reason="ISSUED_IN_ERROR")
        refused = await decision(bed, case_id, *DECIDED)
        assert refused is not None
        assert refused.metadata["cause"] == "RESULT_REVOKED"
        # To refuse needs no basis.
        await bed.result(case_id, "D", "commerce", ResultCode.FAIL, reason="CONDITIONS_NOT_MET")


async def test_what_is_demanded_must_be_as_recent_as_demanded(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path, procedures=(RECENT,)) as bed:
        case_id = await begun(bed, NAME, LOOK)
        bed.clock.move(days=20)
        refused = await decision(bed, case_id, *DECIDED)
        assert refused is not None
        assert (refused.reason, refused.metadata["fact"]) == (Reason.FACT_NOT_PROVEN, "name_free")
        assert await bed.rows(TASK) == []


@pytest.mark.parametrize(("days", "stands"), [(6, True), (7, False)])
async def test_a_result_that_was_recognised_grows_old_too(
    sqlite_url: str, tmp_path: Path, days: int, *, stands: bool
) -> None:
    """It is recognised while it is recent enough, and decided on later."""
    async with desk(sqlite_url, tmp_path, procedures=(RECENT,)) as bed:
        await begun(bed, NAME)
        case = await bed.submit("CHAIN")
        assert case.state.stages["A"].status == "RECOGNISED"
        bed.clock.move(days=days + 1)
        await bed.through(case.case_id, LOOK)
        bed.clock.move(days=1)
        refused = await decision(bed, case.case_id, *DECIDED)
        assert (refused is None) is stands
        assert refused is None or refused.reason is Reason.FACT_NOT_PROVEN
