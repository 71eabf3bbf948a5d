"""When things count as having happened that are heard of later, or come from a clock that is ahead."""

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.kit.errors import HutongError, Reason
from services.recognition.case import fold
from services.recognition.events import Event, Kind, Pause
from services.recognition.registry import Change
from services.recognition.view import Light
from tests.recognition.desk import DEMO, EXPRESS, START, SUBJECT, Bed, desk
from tests.recognition.test_cases import accepted
from tests.recognition.test_fourteen import RIVAL
from tests.recognition.test_results import Office, office_on

QUICK = DEMO.replace("limit: 3 working days\n    supplement: true\n    proves", "limit: 2 hours\n    proves").replace(
    "pauses: {SUPPLEMENT: 15 working days}", "pauses: {SUPPLEMENT: 15 working days, TEST: 5 working days}"
)
"""An identity is found within two hours, and an acceptance may wait for a test."""

SILENT = QUICK.replace("deemed: acceptance", "deemed: allowed").replace(
    "limit: 2 hours\n", "limit: 2 hours\n    overdue: deemed\n"
)
"""There, too, silence counts as a pass."""


@pytest.fixture
async def office(any_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with office_on(any_url, tmp_path, procedures=(QUICK, EXPRESS, RIVAL)) as made:
        yield made


async def taken(bed: Bed, case_id: str, stage: str = "B") -> Event:
    (found,) = [e for e in await bed.cases.events(case_id) if e.kind is Kind.RECOGNISE and e.stage == stage]
    return found


async def accepted_late(office: Office, **ago: float) -> str:
    """A case whose acceptance of some time ago is sent in now; gives its id."""
    bed = office.bed
    case = await bed.submit(applied_at=bed.clock() - dt.timedelta(days=2, hours=1))
    moment = bed.clock() - dt.timedelta(**ago)
    await bed.act(case.case_id, Kind.START, "A", "commerce", at=moment)
    await bed.result(case.case_id, "A", "commerce", at=moment)
    return case.case_id


# What results take the place of.


async def test_a_result_that_stood_takes_a_stages_place_at_once_however_late_one_hears_of_it(office: Office) -> None:
    bed = office.bed
    await office.register()
    bed.clock.move(days=2, hours=10)
    case_id = await accepted_late(office, days=1, hours=3)
    event = await taken(bed, case_id)
    assert (event.at, event.recorded_at) == (bed.clock() - dt.timedelta(days=1, hours=3), bed.clock())
    snapshot = await bed.cases.get(case_id)
    found = snapshot.reckoning.stages["B"]
    assert (found.late, found.light) == (False, Light.GREEN)
    assert fold(snapshot.procedure, snapshot.events) == snapshot.state
    moments = [e.at for e in snapshot.events if e.kind is not Kind.REMIND]
    assert moments == sorted(moments)


async def test_not_before_it_was_there(office: Office) -> None:
    """Nor is whoever was late before it came any less late for it."""
    bed = office.bed
    bed.clock.move(days=2)
    await office.register()
    registered = bed.clock()
    bed.clock.move(hours=1)
    case_id = await accepted_late(office, days=1)
    assert (await taken(bed, case_id)).at == registered
    assert (await bed.cases.get(case_id)).reckoning.stages["B"].late


async def test_not_before_it_stood_again(office: Office) -> None:
    bed = office.bed
    ref = await office.register()
    await office.revoke(ref, change=Change.SUSPEND)
    bed.clock.move(days=2)
    await office.revoke(ref, change=Change.REINSTATE)
    again = bed.clock()
    bed.clock.move(hours=1)
    assert (await taken(bed, await accepted_late(office, days=1))).at == again


async def test_not_while_another_agency_said_something_else(office: Office) -> None:
    bed = office.bed
    await office.register(value={"name": "one"})
    other = await office.register("customs", value={"name": "another"})
    bed.clock.move(days=2)
    case_id = await accepted_late(office, days=1)
    assert await office.stage(case_id, "B") == "READY"
    bed.clock.move(minutes=1)
    settled = bed.clock()
    await office.revoke(other, "customs")
    bed.clock.move(minutes=1)
    await bed.cases.offer("cn.uscc", SUBJECT, "person_verified")
    assert (await taken(bed, case_id)).at == settled


@pytest.mark.parametrize(("registered", "kinds"), [(1, ["RECOGNISE:B"]), (30, ["DEEMED:B"])])
async def test_silence_and_results_come_in_their_order(
    sqlite_url: str, tmp_path: Path, registered: int, kinds: list[str]
) -> None:
    """The limit was used up before anybody heard that it ran: a result of before that counts, one of after does not."""
    async with office_on(sqlite_url, tmp_path, procedures=(SILENT, EXPRESS)) as office:
        bed = office.bed
        bed.clock.move(hours=registered)
        await office.register()
        bed.clock.move(hours=50 - registered)
        case_id = await accepted_late(office, days=1)
        found = [kind for kind in await bed.kinds(case_id) if kind.endswith(":B")]
        assert found == kinds


# What an agency said in time.


async def due(bed: Bed) -> tuple[str, dt.datetime]:
    """A case whose acceptance is being examined, and when silence will count."""
    case = await bed.submit()
    await bed.act(case.case_id, Kind.START, "A", "commerce")
    clock = case.reckoning.stages["A"].clock
    assert clock is not None
    assert clock.due_at is not None
    return case.case_id, clock.due_at


SAID: dict[Kind, dict[str, Any]] = {
    Kind.SUPPLEMENT_REQUEST: {"reason": "MATERIAL_MISSING"},
    Kind.SUSPEND: {"reason": "THIRD_PARTY_NEEDED", "pause": Pause.TEST},
}


@pytest.mark.parametrize("kind", SAID)
async def test_who_stopped_the_clock_in_time_was_not_silent(office: Office, kind: Kind) -> None:
    bed = office.bed
    case_id, due_at = await due(bed)
    bed.clock.now = due_at + dt.timedelta(hours=1)
    early = due_at - dt.timedelta(hours=1)
    await bed.act(case_id, kind, "A", "commerce", at=early, **SAID[kind])
    assert await office.stage(case_id, "A") == "SUSPENDED"
    bed.clock.move(days=3)
    await bed.cases.tick()
    assert "DEEMED:A" not in await bed.kinds(case_id)


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("late", [None, 0])
async def test_who_did_not_was(office: Office, kind: Kind, late: int | None) -> None:
    bed = office.bed
    case_id, due_at = await due(bed)
    bed.clock.now = due_at + dt.timedelta(hours=1)
    moment = None if late is None else due_at + dt.timedelta(seconds=late)
    with pytest.raises(HutongError) as caught:
        await bed.act(case_id, kind, "A", "commerce", at=moment, **SAID[kind])
    assert caught.value.reason is Reason.EVENT_NOT_ALLOWED


@pytest.mark.parametrize("kind", SAID)
async def test_once_silence_has_counted_it_has(office: Office, kind: Kind) -> None:
    bed = office.bed
    case_id, due_at = await due(bed)
    bed.clock.now = due_at + dt.timedelta(hours=1)
    await bed.cases.tick()
    with pytest.raises(HutongError) as caught:
        await bed.act(case_id, kind, "A", "commerce", at=due_at - dt.timedelta(hours=1), **SAID[kind])
    assert caught.value.reason is Reason.EVENT_NOT_ALLOWED


# Clocks that differ.


async def test_what_has_no_moment_follows_on_what_a_clock_ahead_has_dated(any_bed: Bed) -> None:
    ahead = START + dt.timedelta(seconds=50)
    case = await any_bed.submit()
    await any_bed.act(case.case_id, Kind.START, "A", "commerce", at=ahead)
    await any_bed.result(case.case_id, "A", "commerce", at=ahead)
    any_bed.clock.move(seconds=5)
    begun = await any_bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    assert (begun.event.at, begun.event.recorded_at) == (ahead, any_bed.clock())
    any_bed.clock.move(seconds=60)
    other = await any_bed.act(case.case_id, Kind.START, "C", "taxation")
    assert other.event.at == any_bed.clock()


async def test_a_moment_that_is_stated_is_taken_at_its_word(bed: Bed) -> None:
    case = await accepted(bed)
    with pytest.raises(HutongError) as caught:
        await bed.act(case.case_id, Kind.START, "B", "publicsecurity", at=START - dt.timedelta(seconds=1))
    assert caught.value.reason is Reason.EVENT_OUT_OF_ORDER


async def test_clocks_that_differ_by_more_are_told(sqlite_url: str, tmp_path: Path) -> None:
    """Another replica's clock, far ahead: what this one appends now would be dated into the future."""
    async with desk(sqlite_url, tmp_path) as bed:
        case = await accepted(bed)
        bed.clock.move(seconds=-61)
        with pytest.raises(HutongError) as caught:
            await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
        assert caught.value.reason is Reason.EVENT_OUT_OF_ORDER
        bed.clock.move(seconds=1)
        assert (await bed.act(case.case_id, Kind.START, "B", "publicsecurity")).event.at == START
