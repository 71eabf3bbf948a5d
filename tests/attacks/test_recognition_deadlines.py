"""Deadlines: dated back, dated forward, stretched afterwards, by clocks set back; nothing makes a late one punctual."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from services.kit.credentials.published import seconds
from services.kit.errors import HutongError, Reason
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, Pause, ResultCode
from services.recognition.scheduler import Scheduler
from services.recognition.tables import REMINDER, TASK
from services.recognition.view import Light
from tests.attacks.handing_in import resigned
from tests.recognition.desk import START, SUBJECT, Bed, desk, fresh
from tests.recognition.mesh import enterprise

APPLICANT = enterprise(SUBJECT)


@pytest.fixture
async def bed(sqlite_url: str, tmp_path: Path) -> Any:
    async with desk(sqlite_url, tmp_path) as made:
        yield made


async def why(asking: Any) -> Reason:
    with pytest.raises(HutongError) as caught:
        await asking
    return Reason(caught.value.reason)


async def at(bed: Bed, case_id: str, *stages: tuple[str, str]) -> Snapshot:
    await bed.through(case_id, *stages)
    return await bed.cases.get(case_id)


async def light(bed: Bed, case_id: str, stage: str) -> Light | None:
    clock = (await bed.cases.get(case_id)).reckoning.stages[stage].clock
    return clock.light if clock is not None else None


def ago(bed: Bed, **span: float) -> dt.datetime:
    return bed.clock() - dt.timedelta(**span)


# What applicants could gain.


async def test_an_applicant_does_not_apply_days_ago(bed: Bed) -> None:
    """Acceptance counts as given after five working days: dated back, two of them would be left to the agency."""
    for span in ({"days": 2, "hours": 23}, {"hours": 1}, {"minutes": 2}):
        assert await why(bed.submit(submitter=APPLICANT, applied_at=ago(bed, **span))) is Reason.EVENT_TOO_OLD
    # What agencies received on paper they may hand in later, and clocks differ by some seconds.
    assert (await bed.submit(applied_at=ago(bed, days=2))).head.applied_at == ago(bed, days=2)
    assert (await bed.submit(submitter=APPLICANT, applied_at=ago(bed, seconds=50))).case_id


async def test_an_application_sent_again_much_later_is_the_same_one(bed: Bed) -> None:
    said: dict[str, Any] = {"submitter": APPLICANT, "request_id": fresh(), "applied_at": bed.clock()}
    case_id = (await bed.submit(**said)).case_id
    bed.clock.move(days=2)
    assert (await bed.submit(**said)).case_id == case_id


async def test_an_applicant_does_not_hand_in_days_ago_to_have_silence_count(bed: Bed) -> None:
    """A supplement dated back starts the agency's clock in the past: the stage would count as passed at once."""
    case_id = (await bed.submit()).case_id
    await bed.act(case_id, Kind.START, "A", "commerce")
    bed.clock.move(days=3)
    await bed.act(case_id, Kind.SUPPLEMENT_REQUEST, "A", "commerce", reason="MATERIAL_MISSING")
    bed.clock.move(days=2, hours=23)
    for span in ({"days": 2, "hours": 20}, {"hours": 1}):
        received = bed.act(case_id, Kind.SUPPLEMENT_RECEIVED, "A", "applicant", enterprise=True, at=ago(bed, **span))
        assert await why(received) is Reason.EVENT_TOO_OLD
    await bed.act(case_id, Kind.SUPPLEMENT_RECEIVED, "A", "applicant", enterprise=True)
    assert await bed.cases.tick() <= 1
    assert "DEEMED:A" not in await bed.kinds(case_id)


async def test_an_applicant_does_not_withdraw_into_the_past(bed: Bed) -> None:
    """To be gone before a refusal that has been given meanwhile."""
    case_id = (await bed.submit()).case_id
    await at(bed, case_id, ("A", "commerce"))
    bed.clock.move(hours=2)
    withdrawing = bed.act(case_id, Kind.WITHDRAW, "", "applicant", enterprise=True, at=ago(bed, hours=1))
    assert await why(withdrawing) is Reason.EVENT_TOO_OLD


# What agencies could.


@pytest.mark.parametrize("span", [{"days": 3, "seconds": 1}, {"days": 30}, {"days": 700_000}])
async def test_nothing_is_dated_back_further_than_is_allowed(bed: Bed, span: dict[str, float]) -> None:
    case_id = (await bed.submit()).case_id
    bed.clock.move(days=3, hours=1)
    assert await why(bed.act(case_id, Kind.START, "A", "commerce", at=ago(bed, **span))) is Reason.EVENT_TOO_OLD


@pytest.mark.parametrize("span", [{"seconds": 61}, {"days": 400}, {"days": 2_900_000}])
async def test_nothing_has_happened_tomorrow(bed: Bed, span: dict[str, float]) -> None:
    case_id = (await bed.submit()).case_id
    later = bed.clock() + dt.timedelta(**span)
    assert await why(bed.act(case_id, Kind.START, "A", "commerce", at=later)) is Reason.EVENT_IN_FUTURE
    assert await why(bed.submit(applied_at=later)) is Reason.EVENT_IN_FUTURE


async def test_nothing_happened_before_what_it_follows_on(bed: Bed) -> None:
    case_id = (await bed.submit()).case_id
    bed.clock.move(hours=5)
    await at(bed, case_id, ("A", "commerce"))
    bed.clock.move(hours=1)
    assert (
        await why(bed.act(case_id, Kind.START, "B", "publicsecurity", at=ago(bed, hours=2)))
        is Reason.EVENT_OUT_OF_ORDER
    )


async def test_a_stage_deemed_passed_is_not_decided_the_day_before(bed: Bed) -> None:
    """Dated back to when the limit still ran: once silence has counted, an answer is a late opinion."""
    case_id = (await bed.submit()).case_id
    await bed.act(case_id, Kind.START, "A", "commerce")
    bed.clock.move(days=10)
    await bed.cases.tick()
    assert "DEEMED:A" in await bed.kinds(case_id)
    refusing: dict[str, Any] = {"result": ResultCode.FAIL, "reason": "CONDITIONS_NOT_MET"}
    early = bed.act(case_id, Kind.RESULT, "A", "commerce", at=ago(bed, days=2, hours=23), **refusing)
    assert await why(early) is Reason.EVENT_OUT_OF_ORDER
    await bed.act(case_id, Kind.RESULT, "A", "commerce", **refusing)
    snapshot = await bed.cases.get(case_id)
    assert snapshot.state.stages["A"].status == "DEEMED"
    assert snapshot.state.closed_at is None


async def overdue(bed: Bed) -> str:
    """Bring a case to where taxation has let its two working days go by, and has been told."""
    case_id = (await bed.submit()).case_id
    await at(bed, case_id, ("A", "commerce"))
    await bed.act(case_id, Kind.START, "C", "taxation")
    bed.clock.move(days=2, hours=20)
    await bed.cases.tick()
    assert await light(bed, case_id, "C") is Light.RED
    return case_id


async def test_a_clock_that_ran_out_did_not_stand_after_all(bed: Bed) -> None:
    case_id = await overdue(bed)
    said: dict[str, Any] = {"pause": Pause.INQUIRY, "reason": "THIRD_PARTY_NEEDED"}
    stopping = bed.act(case_id, Kind.SUSPEND, "C", "taxation", at=ago(bed, days=1), **said)
    assert await why(stopping) is Reason.EVENT_TOO_OLD
    assert await light(bed, case_id, "C") is Light.RED
    # From now on it may stand; late it stays.
    await bed.act(case_id, Kind.SUSPEND, "C", "taxation", **said)
    bed.clock.move(days=5)
    await bed.act(case_id, Kind.RESUME, "C", "taxation")
    assert await light(bed, case_id, "C") is Light.RED


async def test_a_limit_that_is_used_up_is_not_made_longer(bed: Bed) -> None:
    case_id = (await bed.submit()).case_id
    await at(bed, case_id, ("A", "commerce"), ("B", "publicsecurity"), ("C", "taxation"))
    await bed.act(case_id, Kind.START, "D", "commerce")
    bed.clock.move(days=8, hours=20)
    await bed.cases.tick()
    assert await light(bed, case_id, "D") is Light.RED
    said: dict[str, Any] = {"extension": 5, "approval_ref": "a paper", "reason": "COMPLEX_CASE"}
    for moment in (None, ago(bed, days=2)):
        extending = bed.act(case_id, Kind.EXTEND, "D", "commerce", at=moment, **said)
        assert await why(extending) is Reason.EXTENSION_NOT_ALLOWED
    assert await light(bed, case_id, "D") is Light.RED


async def test_a_result_that_is_dated_back_stands_beside_the_reminder_that_it_was_late(bed: Bed) -> None:
    """Agencies may send in what they did some days ago. Whoever looks sees when it came, and that it was asked for."""
    case_id = await overdue(bed)
    await bed.result(case_id, "C", "taxation", at=ago(bed, days=1))
    events = await bed.cases.events(case_id)
    result = next(e for e in events if (e.kind, e.stage) == (Kind.RESULT, "C"))
    red = next(e for e in events if (e.kind, e.stage, e.threshold) == (Kind.REMIND, "C", "red"))
    assert result.at < red.at <= result.recorded_at


# Clocks that are set back.


async def test_a_scheduler_whose_clock_is_set_back_does_nothing_twice(any_url: str, tmp_path: Path) -> None:
    async with desk(any_url, tmp_path) as bed:
        case_id = await overdue(bed)
        reminders, tasks = await bed.rows(REMINDER), await bed.rows(TASK)
        story = await bed.kinds(case_id)
        for _ in range(3):
            bed.clock.move(days=-60)
            assert await bed.cases.tick() == 0
            await bed.cases.recompute()
            bed.clock.move(days=60)
            assert await bed.cases.tick() == 0
        assert await bed.rows(REMINDER) == reminders
        assert await bed.rows(TASK) == tasks
        assert await bed.kinds(case_id) == story


async def test_a_loop_whose_clock_is_set_back_goes_on(bed: Bed) -> None:
    case_id = (await bed.submit()).case_id
    scheduler = Scheduler(bed.cases, bed.clock, dt.timedelta(milliseconds=10))
    rung = asyncio.Event()
    bed.cases.listeners.append(lambda _case_id, _version: rung.set())
    bed.clock.move(days=-300)
    async with scheduler.running(), asyncio.timeout(10):
        bed.clock.move(days=320)
        scheduler.wake()
        await rung.wait()
    assert scheduler.failures == 0
    assert (await bed.kinds(case_id)).count("DEEMED:A") == 1


async def test_a_clock_set_back_lets_nothing_happen_before_what_has(bed: Bed) -> None:
    case_id = (await bed.submit()).case_id
    await at(bed, case_id, ("A", "commerce"))
    bed.clock.move(hours=-5)
    assert await why(bed.act(case_id, Kind.START, "B", "publicsecurity")) is Reason.EVENT_OUT_OF_ORDER
    assert await why(bed.act(case_id, Kind.START, "B", "publicsecurity", at=START)) is Reason.EVENT_IN_FUTURE
    # What is read meanwhile is read; nothing breaks.
    assert (await bed.cases.get(case_id)).state.stages["B"].status == "READY"


async def test_a_result_is_not_valid_before_it_was_issued_and_not_after_it_has_lapsed(bed: Bed) -> None:
    case_id = (await bed.submit()).case_id
    snapshot = await at(bed, case_id, ("A", "commerce"))
    await bed.act(case_id, Kind.START, "B", "publicsecurity")
    of = snapshot.procedure.stage("B")
    for said in (
        {"issued_at": bed.clock() + dt.timedelta(minutes=2)},
        {"valid_from": bed.clock() + dt.timedelta(minutes=2)},
        {"issued_at": bed.clock() + dt.timedelta(days=36_500)},
        {"valid_until": bed.clock()},
        {"valid_until": bed.clock() - dt.timedelta(days=1)},
    ):
        signed = await bed.sign(snapshot, of, **said)
        handing_in = bed.result(case_id, "B", "publicsecurity", credential=signed)
        assert await why(handing_in) in {Reason.RESULT_NOT_YET_VALID, Reason.RESULT_EXPIRED, Reason.RESULT_FACT}


async def test_a_key_signs_in_its_own_time_only(bed: Bed) -> None:
    """A successor's key does not reach back into the time of the one before, to say what that one never said."""
    case_id = (await bed.submit()).case_id
    snapshot = await at(bed, case_id, ("A", "commerce"))
    await bed.act(case_id, Kind.START, "B", "publicsecurity")
    bed.clock.move(hours=1)
    keys = bed.keys("publicsecurity")
    signed = await bed.sign(snapshot, snapshot.procedure.stage("B"))
    keys.rotate(bed.clock())
    keys.publish(bed.folder / "keys")
    early = seconds(ago(bed, hours=1))
    backdated = resigned(signed, keys, at=bed.clock(), iat=early, nbf=early)
    handing_in = bed.result(case_id, "B", "publicsecurity", credential=backdated)
    assert await why(handing_in) is Reason.KEY_NOT_YET_VALID


async def test_a_key_that_was_taken_back_signs_nothing_of_the_time_before(bed: Bed) -> None:
    case_id = (await bed.submit()).case_id
    snapshot = await at(bed, case_id, ("A", "commerce"))
    await bed.act(case_id, Kind.START, "B", "publicsecurity")
    of = snapshot.procedure.stage("B")
    signed = await bed.sign(snapshot, of, issued_at=ago(bed, days=1), valid_from=ago(bed, days=1))
    keys = bed.keys("publicsecurity")
    keys.revoke(keys.listed()[-1].kid, bed.clock(), "KEY_COMPROMISED")
    keys.publish(bed.folder / "keys")
    handing_in = bed.result(case_id, "B", "publicsecurity", credential=signed)
    assert await why(handing_in) is Reason.KEY_REVOKED
