"""Rows off a quota: exactly as many as there are, however many nodes ask at once, and each reservation once."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.errors import HutongError, Reason, ResourceExhausted
from services.supervision.board import Board
from services.supervision.quota import MINUTE, Wanted
from services.supervision.state import State
from services.supervision.tables import EVENT, HEAD, RESERVATION
from tests.supervision.desk import CUSTOMS, SECOND, TAXATION, TYPE, Desk, desk

CALLS = 1000


async def refusal(done: Awaitable[object]) -> HutongError:
    with pytest.raises(HutongError) as caught:
        await done
    return caught.value


async def tried(desk: Desk, *arguments: object) -> int | Reason:
    try:
        return await desk.reserve(*arguments)  # type: ignore[arg-type]
    except HutongError as error:
        return error.reason


async def test_a_thousand_calls_at_once_never_get_more_than_there_is(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(row_quota=700)
    replicas = [desk, await desk.other(), await desk.other()]
    calls = [tried(replicas[number % 3], found, number % 3 + 1) for number in range(CALLS)]
    outcomes = await asyncio.gather(*calls)
    granted = [number % 3 + 1 for number, left in enumerate(outcomes) if isinstance(left, int)]
    (head,) = await desk.rows(HEAD)
    assert sum(granted) == head["rows_used"] == sum(row["rows"] for row in await desk.rows(RESERVATION)) <= 700
    # What was refused would not have fitted: at most one row is left over for a call for two.
    assert head["rows_used"] >= 698
    assert {o for o in outcomes if isinstance(o, Reason)} <= {Reason.AUTHORIZATION_EXHAUSTED}
    # No two were told the same rest.
    rests = [left for left in outcomes if isinstance(left, int)]
    assert len(set(rests)) == len(rests)


async def test_threads_with_loops_of_their_own_never_get_more_either(any_desk: Desk) -> None:
    """Every thread is a process of its own as far as anything in memory goes."""
    desk = any_desk
    found = await desk.active(row_quota=100)

    def process(desks: Desk) -> int:
        async def run() -> int:
            outcomes = await asyncio.gather(*(tried(desks, found, 1) for _ in range(50)))
            return sum(isinstance(left, int) for left in outcomes)

        return asyncio.run(run())

    others = [await desk.other() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        granted = await asyncio.gather(*(loop.run_in_executor(pool, process, other) for other in others))
    assert sum(granted) == 100
    assert await desk.state(found) is State.EXHAUSTED


async def test_the_last_row_exhausts_it(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(row_quota=10)
    assert await desk.reserve(found, 7) == 3
    refused = await refusal(desk.reserve(found, 4))
    assert isinstance(refused, ResourceExhausted)
    assert (refused.reason, refused.metadata) == (Reason.AUTHORIZATION_EXHAUSTED, {"left": "3"})
    assert await desk.state(found) is State.ACTIVE
    assert await desk.reserve(found, 0) == 3
    assert await desk.reserve(found, 3, "last") == 0
    done = await desk.get(found)
    assert done.state(desk.clock()) is State.EXHAUSTED
    assert (done.events[-1].by.agency, done.events[-1].by.pseudonym) == ("supervision", "")
    assert (await refusal(desk.reserve(found, 1))).reason is Reason.AUTHORIZATION_EXHAUSTED
    # The answer to the last one was lost: it comes again, and counts once.
    assert await desk.reserve(found, 3, "last") == 0


async def test_a_reservation_that_comes_again_counts_once(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(row_quota=10)
    name = str(uuid.uuid4())
    assert await asyncio.gather(*(desk.reserve(found, 4, name) for _ in range(5))) == [6] * 5
    for rows, record_type in ((5, TYPE),):
        refused = await refusal(desk.reserve(found, rows, name, CUSTOMS, record_type))
        assert refused.reason is Reason.MALFORMED_REQUEST
    # Nor after it was revoked: whether it was told or not, nothing leaves any more.
    await desk.revoke(found)
    assert (await refusal(desk.reserve(found, 4, name))).reason is Reason.AUTHORIZATION_REVOKED


async def test_the_rate_counts_over_the_last_minute(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(row_quota=1000, rows_per_minute=10)
    await desk.reserve(found, 6)
    desk.clock.move(30 * SECOND)
    await desk.reserve(found, 4)
    refused = await refusal(desk.reserve(found, 1))
    assert (refused.reason, refused.metadata) == (Reason.AUTHORIZATION_RATE, {"left": "0"})
    # The first six are a minute old; the other four are not.
    desk.clock.move(30 * SECOND)
    refused = await refusal(desk.reserve(found, 7))
    assert refused.metadata == {"left": "6"}
    assert await desk.reserve(found, 6) == 984


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=25))
def test_no_minute_has_more_than_the_rate(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, int]]
) -> None:
    async def run() -> None:
        folder = tmp_path_factory.mktemp("rate")
        async with desk(f"sqlite+aiosqlite:///{folder}/store.db", folder) as bed:
            found = await bed.active(row_quota=1000, rows_per_minute=10)
            given_at: list[tuple[dt.datetime, int]] = []
            for seconds, rows in asked:
                bed.clock.move(seconds * SECOND)
                lately = sum(n for at, n in given_at if at > bed.clock() - MINUTE)
                outcome = await tried(bed, found, rows)
                assert (outcome is Reason.AUTHORIZATION_RATE) == (lately + rows > 10)
                if isinstance(outcome, int):
                    given_at.append((bed.clock(), rows))

    asyncio.run(run())


async def test_rows_are_reserved_by_who_owns_them_within_the_scope(desk: Desk) -> None:
    found = await desk.active()
    assert (await refusal(desk.reserve(found, 1, node=TAXATION))).reason is Reason.RECORD_TYPE_NOT_OWNED
    for other in ("customs.Penalty", "customs.None"):
        assert (await refusal(desk.reserve(found, 1, record_type=other))).reason is Reason.AUTHORIZATION_SCOPE
    ticket = replace(desk.ticket(found), scope_digest=bytes(32))
    wanted = Wanted("r-1", 1, TYPE)
    assert (await refusal(desk.quota.reserve(ticket, wanted, CUSTOMS))).reason is Reason.TICKET_INVALID
    ticket = replace(desk.ticket(found), authorization_id="none")
    assert (await refusal(desk.quota.reserve(ticket, wanted, CUSTOMS))).reason is Reason.AUTHORIZATION_UNKNOWN


async def test_a_counter_set_back_in_the_store_opens_nothing(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(row_quota=10)
    await desk.reserve(found, 4)
    (before,) = await desk.rows(HEAD)
    await desk.reserve(found, 6 - 1)
    # Without the secret nobody can seal another number; and the row of an hour ago, seal and all, is noticed as well.
    for values in ({"rows_used": 0}, before):
        await desk.execute(HEAD.update().values(**values))
        assert (await refusal(desk.reserve(found, 1))).reason is Reason.AUTHORIZATION_UNKNOWN
        assert (await refusal(desk.use(found))).reason is Reason.AUTHORIZATION_UNKNOWN
    assert desk.broken


async def test_using_and_reserving_at_once_lose_nothing(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(row_quota=1000)
    second = await desk.other()
    calls = [call for _ in range(20) for call in (desk.reserve(found, 3), second.use(found), second.reserve(found, 2))]
    await asyncio.gather(*calls)
    done = await desk.get(found)
    assert (done.head.rows_used, len(done.events)) == (100, 23)
    assert not desk.broken
    assert not second.broken


async def test_a_write_that_comes_to_nothing_leaves_no_memory(desk: Desk) -> None:
    """What a transaction read of its own before it was rolled back is not held against the store afterwards."""
    found = await desk.active(row_quota=10)
    rows = len(await desk.rows(EVENT))
    board = Board(desk.database, desk.books, desk.moments, poll=1)
    assert board.number == 0

    def work(connection: object) -> None:
        desk.quota._reserve(connection, desk.ticket(found), Wanted("r", 10, TYPE), CUSTOMS)  # type: ignore[arg-type]  # pyright: ignore
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        await desk.database.write(partial(work))
    assert len(await desk.rows(EVENT)) == rows
    assert await desk.state(found) is State.ACTIVE
    assert await desk.reserve(found, 10) == 0
