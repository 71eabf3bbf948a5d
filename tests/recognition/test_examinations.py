"""Nobody examines what another one examines, or has examined, without being told."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, Reason
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, ResultCode
from services.recognition.tables import EXAMINATION
from tests.recognition.desk import DEMO, START, Bed, desk, fresh
from tests.recognition.test_cases import OTHER, accepted

# Tax offices of two cases of one subject: their fact is not taken from one case into the other by any arrangement, so
# that one is told of the other, and nothing more.


async def start(bed: Bed, case: Snapshot, **said: Any) -> str:
    return (await bed.act(case.case_id, Kind.START, "C", "taxation", **said)).event.id


async def told(bed: Bed, case: Snapshot, **said: Any) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        await start(bed, case, **said)
    assert (await bed.cases.get(case.case_id)).state.stages["C"].status == "READY"
    return caught.value


async def slots(bed: Bed) -> list[tuple[str, int, bool]]:
    return [(r["case_id"], r["slot"], r["closed_at"] is None) for r in await bed.rows(EXAMINATION)]


async def test_an_open_examination_is_told_of(any_bed: Bed) -> None:
    one, two = await accepted(any_bed), await accepted(any_bed)
    await start(any_bed, one)
    error = await told(any_bed, two)
    assert error.reason is Reason.EXAMINATION_OPEN
    assert {k: error.metadata[k] for k in ("agency", "case_id", "stage", "fact", "result_ref")} == {
        "agency": "taxation",
        "case_id": one.case_id,
        "stage": "C",
        "fact": "tax_clear",
        "result_ref": "",
    }
    assert await slots(any_bed) == [(one.case_id, 0, True)]


async def test_who_goes_on_has_been_told_and_says_why(any_bed: Bed) -> None:
    one, two, three = [await accepted(any_bed) for _ in range(3)]
    await start(any_bed, one)
    named = (await told(any_bed, two)).metadata["despite"]
    with pytest.raises(InvalidArgument) as caught:
        await start(any_bed, two, despite=named)
    assert caught.value.reason is Reason.REASON_MISSING
    with pytest.raises(InvalidArgument) as caught:
        await start(any_bed, two, despite=named, reason="CURIOSITY")
    assert caught.value.reason is Reason.REASON_UNKNOWN
    assert (await told(any_bed, two, despite=fresh(), reason="RISK_SIGNAL")).reason is Reason.EXAMINATION_OPEN
    await start(any_bed, two, despite=named, reason="RISK_SIGNAL")
    assert (await told(any_bed, three)).metadata["despite"] == named
    await start(any_bed, three, despite=named, reason="LEGAL_DUTY")
    found = [(r["slot"], r["despite"], r["reason"]) for r in await any_bed.rows(EXAMINATION)]
    assert sorted(found) == [(0, "", ""), (1, named, "RISK_SIGNAL"), (2, named, "LEGAL_DUTY")]


async def test_a_result_that_stands_is_told_of(any_bed: Bed) -> None:
    one, two = await accepted(any_bed), await accepted(any_bed)
    await any_bed.through(one.case_id, ("C", "taxation"))
    ref = (await any_bed.cases.get(one.case_id)).state.stages["C"].ref
    error = await told(any_bed, two)
    assert (error.reason, error.metadata["result_ref"]) == (Reason.EXAMINATION_VALID, ref)
    assert (await told(any_bed, two, despite=fresh(), reason="LEGAL_DUTY")).reason is Reason.EXAMINATION_VALID
    await start(any_bed, two, despite=ref, reason="DIFFERENT_PERIOD")
    assert await slots(any_bed) == [(one.case_id, 0, False), (two.case_id, 0, True)]


@pytest.mark.parametrize("how", ["failed", "withdrawn", "revoked", "lapsed", "other subject", "other key"])
async def test_what_does_not_stand_is_nobodys_business(bed: Bed, how: str) -> None:
    one = await accepted(bed)
    await start(bed, one)
    if how == "failed":
        await bed.result(one.case_id, "C", "taxation", ResultCode.FAIL, reason="ARREARS")
    elif how == "withdrawn":
        await bed.act(one.case_id, Kind.WITHDRAW, "", "commerce", reason="OPENED_IN_ERROR")
    else:
        await bed.result(one.case_id, "C", "taxation")
    if how == "revoked":
        await bed.act(one.case_id, Kind.REVOKE, "C", "taxation", reason="ISSUED_IN_ERROR")
    if how == "lapsed":
        bed.clock.now = START + dt.timedelta(days=91)
    if how == "other key":
        keys = bed.keys("taxation")
        keys.revoke(keys.active(bed.clock()).kid, bed.clock(), "KEY_COMPROMISED")
        keys.publish(bed.folder / "keys")
    two = await accepted(bed, **({"subject": OTHER} if how == "other subject" else {}))
    await start(bed, two)
    assert (await slots(bed))[-1] == (two.case_id, 0, True)


async def test_the_agency_itself_is_told_too(bed: Bed) -> None:
    """It is one examination whoever does it: public security in one case, and in the other."""
    one, two = await accepted(bed), await bed.submit("EXPRESS")
    await bed.act(one.case_id, Kind.START, "B", "publicsecurity")
    with pytest.raises(HutongError) as caught:
        await bed.act(two.case_id, Kind.START, "P", "publicsecurity")
    assert caught.value.reason is Reason.EXAMINATION_OPEN


async def test_what_is_about_one_application_only_is_examined_for_each(bed: Bed) -> None:
    one = await accepted(bed)
    await bed.through(one.case_id, ("B", "publicsecurity"), ("C", "taxation"), ("D", "commerce"))
    two = await accepted(bed)
    assert await bed.ready(two.case_id) == ["C"]
    named = (await told(bed, two)).metadata["despite"]
    await start(bed, two, despite=named, reason="DIFFERENT_PERIOD")
    await bed.result(two.case_id, "C", "taxation")
    await bed.act(two.case_id, Kind.START, "D", "commerce")
    assert {r["fact"] for r in await bed.rows(EXAMINATION)} == {"person_verified", "tax_clear"}


ENDS_BY_SILENCE = (
    DEMO.replace("deemed: acceptance", "deemed: allowed")
    .replace("    optional: true\n", "    optional: true\n    proves: {fact: invested, assurance: SUBSTANTIVE}\n")
    .replace("after: [B, C, X]", "after: [B, C]")
    .replace("    instant: true\n", "    limit: 1 working day\n    overdue: deemed\n")
)
"""A branch may be left out, and the delivery counts as made when its time is up."""


async def test_a_case_that_ends_by_itself_leaves_no_examination_open(sqlite_url: str, tmp_path: Path) -> None:
    """Nobody is told for ever of an examination in a case that is closed."""
    async with desk(sqlite_url, tmp_path, procedures=(ENDS_BY_SILENCE,)) as bed:
        case = await bed.submit(answers={"foreign": "true"})
        await bed.through(case.case_id, ("A", "commerce"), ("B", "publicsecurity"), ("C", "taxation"))
        await bed.act(case.case_id, Kind.START, "X", "foreign-investment")
        await bed.through(case.case_id, ("D", "commerce"))
        bed.clock.move(days=10)
        await bed.cases.tick()
        assert (await bed.cases.get(case.case_id)).head.status == "DELIVERED"
        assert [row["fact"] for row in await bed.rows(EXAMINATION) if row["closed_at"] is None] == []
