"""Break-glass: off by default; where a zone has it, one approver, hours, and a review that cannot be left undone."""

import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from services.kit.errors import Reason
from services.kit.officers.tokens import Role
from services.supervision.books import Authorization
from services.supervision.state import State
from services.supervision.tables import EVENT
from tests.supervision.desk import DAY, HOUR, MINUTE, TERMS, Desk, desk
from tests.supervision.test_acts import refusal


@pytest.fixture
async def glass(sqlite_url: str, tmp_path: Path) -> AsyncGenerator[Desk]:
    """A zone that provides for emergencies."""
    async with desk(sqlite_url, tmp_path, replace(TERMS, break_glass=True)) as made:
        yield made


async def emergency(bed: Desk, by: str = "req") -> Authorization:
    found = await bed.request(by=by, emergency=True, lasts=4 * HOUR)
    return await bed.approve(found, "customs", "owner")


async def test_it_is_off_by_default(desk: Desk) -> None:
    assert await refusal(desk.request(emergency=True, lasts=HOUR)) is Reason.EMERGENCY_NOT_ALLOWED


async def test_one_approver_of_the_owners_is_enough_and_it_is_short(glass: Desk) -> None:
    assert await refusal(glass.request(emergency=True, lasts=4 * HOUR + MINUTE)) is Reason.SCOPE_INVALID
    waiting = await glass.request(emergency=True, lasts=HOUR)
    assert await refusal(glass.approve(waiting, "supervision", "chief")) is Reason.OWNER_APPROVAL_MISSING
    assert await refusal(glass.approve(waiting, "supervision", "req")) is Reason.APPROVER_NOT_ALLOWED
    found = await emergency(glass)
    assert found.state(glass.clock()) is State.ACTIVE
    assert found.standing.review_due == glass.clock() + 3 * DAY
    await glass.use(found)
    glass.clock.move(4 * HOUR)
    assert await glass.state(found) is State.EXPIRED


async def test_who_had_a_part_in_it_does_not_review_it(glass: Desk) -> None:
    found = await emergency(glass)
    await glass.use(found, "colleague")
    for agency, by in (("supervision", "req"), ("customs", "owner"), ("supervision", "colleague")):
        assert await refusal(glass.review(found, agency, by)) is Reason.APPROVER_NOT_ALLOWED
        auditor = glass.review(found, agency, by, Role.AUDITOR)
        assert await refusal(auditor) is Reason.APPROVER_NOT_ALLOWED
    # An approver of an agency that it does not concern does not see it; an auditor of any does.
    assert await refusal(glass.review(found, "taxation", "x", Role.APPROVER)) is Reason.AUTHORIZATION_UNKNOWN
    done = await glass.review(found, "audit", "auditor", Role.AUDITOR)
    assert done.standing.reviewed
    assert done.state(glass.clock()) is State.ACTIVE
    assert await refusal(glass.review(found, "customs", "another")) is Reason.AUTHORIZATION_CHANGED


async def test_one_that_is_overdue_stands_in_the_way_of_the_next(glass: Desk) -> None:
    found = await emergency(glass)
    glass.clock.move(3 * DAY - MINUTE)
    await emergency(glass)
    glass.clock.move(MINUTE)
    assert await refusal(glass.request(emergency=True, lasts=HOUR)) is Reason.REVIEW_DUE
    # Others go on, and so does what is no emergency.
    await emergency(glass, "colleague")
    await glass.request()
    await glass.review(found, "customs", "another", Role.APPROVER)
    await emergency(glass)


async def test_one_that_was_never_approved_needs_no_review(glass: Desk) -> None:
    waiting = await glass.request(emergency=True, lasts=HOUR)
    assert await refusal(glass.review(waiting, "customs", "another")) is Reason.AUTHORIZATION_NOT_ACTIVE
    glass.clock.move(7 * DAY)
    await emergency(glass)


async def test_tampering_does_not_get_round_a_review(glass: Desk, caplog: pytest.LogCaptureFixture) -> None:
    found = await emergency(glass)
    glass.clock.move(4 * DAY)
    with caplog.at_level(logging.ERROR):
        await glass.execute(EVENT.update().where(EVENT.c.authorization_id == found.id).values(officer="nobody"))
        assert await refusal(glass.request(emergency=True, lasts=HOUR)) is Reason.REVIEW_DUE
