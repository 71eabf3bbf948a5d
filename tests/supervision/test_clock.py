"""A clock that is set back: events never go backwards, what has ended stays so, and nothing new is opened."""

import datetime as dt

import pytest

from services.kit.errors import HutongError, Reason
from services.supervision.board import Board
from services.supervision.moments import SKEW, Moments
from services.supervision.state import State
from services.supervision.tables import EVENT
from tests.supervision.desk import DAY, HOUR, START, Clock, Desk
from tests.supervision.test_acts import refusal


async def test_what_has_expired_stays_expired(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(lasts=HOUR)
    desk.clock.move(2 * HOUR)
    assert await desk.state(found) is State.EXPIRED
    desk.clock.move(-2 * HOUR)
    assert await desk.state(found) is State.EXPIRED
    assert await refusal(desk.use(found)) is Reason.CLOCK_SET_BACK
    assert await refusal(desk.reserve(found, 1)) is Reason.CLOCK_SET_BACK


async def test_nor_does_a_restart_help(any_desk: Desk) -> None:
    """What the service has seen of time is kept with what it noticed then."""
    desk = any_desk
    found = await desk.active(lasts=HOUR)
    board = Board(desk.database, desk.books, desk.moments, poll=60)
    await board.open()
    try:
        desk.clock.move(2 * HOUR)
        board.ring()
        while not board.since(board.number - 1) or board.active:
            await board.news(1)
    finally:
        await board.stop()
    desk.clock.move(-2 * HOUR)
    again = await desk.other(Clock(desk.clock()))
    assert await again.state(found) is State.EXPIRED
    assert await refusal(again.use(found)) is Reason.CLOCK_SET_BACK
    assert await refusal(again.approve(await desk.get(found), "customs", "other")) is Reason.CLOCK_SET_BACK


async def test_events_never_go_backwards(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.request()
    desk.clock.move(HOUR)
    await desk.approve(found, "supervision", "chief")
    desk.clock.move(-SKEW)
    # Within what clocks differ it goes on, at the latest moment known.
    await desk.approve(found, "customs", "owner")
    desk.clock.move(-2 * HOUR)
    assert await refusal(desk.use(found)) is Reason.CLOCK_SET_BACK
    assert await refusal(desk.request()) is Reason.CLOCK_SET_BACK
    # To close is always allowed.
    await desk.revoke(found)
    moments = [row["at"] for row in await desk.rows(EVENT)]
    assert moments == sorted(moments)
    assert moments[-1] == START + HOUR


async def test_another_processs_time_counts(any_desk: Desk) -> None:
    desk = any_desk
    late = await desk.other(Clock(START + HOUR))
    found = await late.active(lasts=DAY)
    assert await refusal(desk.use(found)) is Reason.CLOCK_SET_BACK
    assert desk.moments.now() == START + HOUR
    assert desk.moments.behind() == HOUR.total_seconds()


def test_moments() -> None:
    clock = Clock()
    moments = Moments(clock)
    assert moments.require() == START
    clock.move(dt.timedelta(seconds=-60))
    assert moments.require() == START
    clock.move(dt.timedelta(microseconds=-1))
    with pytest.raises(HutongError) as caught:
        moments.require()
    assert caught.value.reason is Reason.CLOCK_SET_BACK
    assert moments.now() == START
    clock.move(HOUR)
    assert moments.require() == START + HOUR - dt.timedelta(seconds=60, microseconds=1)
    assert moments.observe(START) > START
