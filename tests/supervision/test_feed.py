"""The feed: what is in force and every change, to whom it concerns, and heartbeats only while somebody looks."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
import sqlalchemy as sa

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.authorizations.registry import Registry
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.errors import HutongError, Reason
from services.supervision.board import Board
from services.supervision.feed import STREAMS, Feed
from services.supervision.tables import EVENT, RESERVATION, TOKEN
from tests.databases import Postgres
from tests.supervision import desk as desks
from tests.supervision.desk import CUSTOMS, DAY, HOUR, TAXATION, Clock, Desk
from tests.supervision.mesh import AML, Mesh, State, refusal
from tests.zone import ZONE

HEARTBEAT = 0.1
GATEWAY = Caller(f"spiffe://{ZONE}/gateway/main", "gateway", "main")
Stream = AsyncGenerator[pb.FollowAuthorizationsResponse]


async def told(stream: Stream, authorization_id: str) -> pb.Authorization:
    """Wait until an authorization is told of."""
    async with asyncio.timeout(10):
        async for response in stream:
            for found in response.authorizations:
                if found.authorization_id == authorization_id:
                    return found
    raise AssertionError("the stream ended")


async def quiet(stream: Stream, heartbeats: int = 2) -> None:
    """Wait for heartbeats, between which nothing is told."""
    async with asyncio.timeout(10):
        for _ in range(heartbeats):
            assert not (await anext(stream)).authorizations


async def test_a_snapshot_then_every_change(own: Mesh) -> None:
    mesh = own
    before = await mesh.active()
    waiting = await mesh.request()
    async with aclosing(mesh.follow("customs/node")) as stream:
        first = await anext(stream)
        assert first.snapshot
        assert [found.authorization_id for found in first.authorizations] == [before.authorization_id]
        (found,) = first.authorizations
        assert (found.scope, found.scope_digest) == (before.scope, before.scope_digest)
        assert found.state == State.AUTHORIZATION_STATE_ACTIVE
        assert not found.events
        await mesh.approve(waiting, AML, "chief")
        await mesh.approve(waiting)
        assert (await told(stream, waiting.authorization_id)).state == State.AUTHORIZATION_STATE_ACTIVE
        await mesh.revoke(before)
        assert (await told(stream, before.authorization_id)).state == State.AUTHORIZATION_STATE_REVOKED
    # Whoever comes later hears of what is in force only.
    async with aclosing(mesh.follow("customs/node")) as stream:
        names = [found.authorization_id for found in (await anext(stream)).authorizations]
        assert names == [waiting.authorization_id]


async def test_heartbeats_say_when(mesh: Mesh) -> None:
    async with aclosing(mesh.follow("taxation/node")) as stream:
        first = await anext(stream)
        assert first.snapshot
        moments = [first.as_of.ToDatetime(dt.UTC)]
        for _ in range(3):
            beat = await anext(stream)
            assert not beat.snapshot
            moments.append(beat.as_of.ToDatetime(dt.UTC))
        assert moments == sorted(set(moments))


async def test_only_owners_and_gateways_hear(own: Mesh) -> None:
    mesh = own
    async with aclosing(mesh.follow("gateway/main")) as gateway, aclosing(mesh.follow("taxation/node")) as taxation:
        await anext(gateway)
        await anext(taxation)
        found = await mesh.active()
        await told(gateway, found.authorization_id)
        await quiet(taxation)
        await mesh.revoke(found)
        await told(gateway, found.authorization_id)
        await quiet(taxation)
    async with aclosing(mesh.follow(AML)) as stream:
        with pytest.raises(HutongError) as caught:
            await anext(stream)
    assert caught.value.reason is Reason.CALLER_NOT_LISTED


async def test_exhaustion_is_told(own: Mesh) -> None:
    mesh = own
    found = await mesh.active(row_quota=5)
    ticket = (await mesh.use(found)).ticket
    async with aclosing(mesh.follow("customs/node")) as stream:
        await anext(stream)
        assert await mesh.reserve(ticket, 5) == 0
        assert (await mesh.get(found)).state == State.AUTHORIZATION_STATE_EXHAUSTED
        assert (await refusal(mesh.reserve(ticket, 1))).reason is Reason.AUTHORIZATION_EXHAUSTED
        exhausted = await told(stream, found.authorization_id)
        assert (exhausted.state, exhausted.rows_used) == (State.AUTHORIZATION_STATE_EXHAUSTED, 5)


async def test_two_replicas_hear_each_other(tmp_path: Path, postgres_url: str) -> None:
    mesh = Mesh(tmp_path)
    mesh.url = postgres_url
    try:
        await mesh.start()
        await mesh.start()
        async with aclosing(mesh.follow("customs/node", 0)) as one, aclosing(mesh.follow("gateway/main", 1)) as two:
            await anext(one)
            await anext(two)
            found = await mesh.request()
            await mesh.approve(found, AML, "chief", replica=1)
            await mesh.approve(found, replica=0)
            for stream in (one, two):
                assert (await told(stream, found.authorization_id)).state == State.AUTHORIZATION_STATE_ACTIVE
            ticket = (await mesh.use(found)).ticket
            assert await mesh.reserve(ticket, 60, "a", replica=1) == 40
            assert await mesh.reserve(ticket, 60, "a", replica=0) == 40
            assert (await refusal(mesh.reserve(ticket, 41, replica=0))).metadata["left"] == "40"
            await mesh.revoke(found, replica=1)
            for stream in (one, two):
                assert (await told(stream, found.authorization_id)).state == State.AUTHORIZATION_STATE_REVOKED
            refused = await refusal(mesh.reserve(ticket, 1, replica=0))
            assert refused.reason is Reason.AUTHORIZATION_REVOKED
            # A token that was used at one is used at the other.
            again = await mesh.active()
            request = pb.UseAuthorizationRequest(authorization_id=again.authorization_id)
            request.officer_token = mesh.token(AML, "req", "UseAuthorization", request)
            await mesh.call(AML, "UseAuthorization", request, 0)
            replayed = await refusal(mesh.call(AML, "UseAuthorization", request, 1))
            assert replayed.reason is Reason.OFFICER_TOKEN_REPLAYED
    finally:
        await mesh.stop()


async def test_streams_end_with_the_node(own: Mesh) -> None:
    # A drain would wait for calls that do not end, longer than this test does.
    await own.stop()
    own.changes["limits"] = LimitsSection(drain=dt.timedelta(hours=1))
    await own.start()
    async with aclosing(own.follow("customs/node")) as stream:
        await anext(stream)
        async with asyncio.timeout(60):
            await own.nodes.pop().stop()
        with pytest.raises((StopAsyncIteration, HutongError)):
            while True:
                await anext(stream)


async def test_a_caller_has_only_so_many_streams(own: Mesh) -> None:
    streams = [own.follow("customs/node") for _ in range(STREAMS + 1)]
    try:
        for stream in streams[:-1]:
            await anext(stream)
        with pytest.raises(HutongError) as caught:
            await anext(streams[-1])
        assert caught.value.reason is Reason.STREAMS_TOO_MANY
    finally:
        for stream in streams:
            await stream.aclose()


# What follows has no wire between.


async def following(desk: Desk, poll: float = 0.02) -> tuple[Board, Feed]:
    board = Board(desk.database, desk.books, desk.moments, poll=poll)
    desk.authorizations.listeners.append(board.ring)
    await board.open()
    return board, Feed(board, ["gateway/main"], HEARTBEAT)


async def test_time_alone_is_told(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(lasts=HOUR)
    board, feed = await following(desk)
    try:
        async with aclosing(feed.follow(CUSTOMS)) as stream:
            assert (await anext(stream)).authorizations[0].state == State.AUTHORIZATION_STATE_ACTIVE
            desk.clock.move(HOUR)
            assert (await told(stream, found.id)).state == State.AUTHORIZATION_STATE_EXPIRED
            # It stays so.
            desk.clock.move(-2 * HOUR)
            await quiet(stream)
        assert not board.active
    finally:
        await board.stop()


async def test_what_does_not_verify_any_more_is_not_known_any_more(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active()
    board, feed = await following(desk)
    try:
        async with aclosing(feed.follow(GATEWAY)) as stream:
            await anext(stream)
            other = await desk.other()
            await desk.execute(EVENT.update().where(EVENT.c.sequence == 2).values(agency="taxation"))
            await desk.execute(sa.text("UPDATE authorization_head SET change = 99"))
            await desk.execute(sa.text("UPDATE authorization_clock SET change = 99"))
            gone = await told(stream, found.id)
            assert gone == pb.Authorization(authorization_id=found.id)
            assert other.authorizations is not desk.authorizations
        assert not board.active
        # Nor to a service that starts now.
        fresh, feed = await following(await desk.other())
        try:
            async with aclosing(feed.follow(GATEWAY)) as stream:
                assert not (await anext(stream)).authorizations
        finally:
            await fresh.stop()
    finally:
        await board.stop()


async def test_no_heartbeat_while_the_store_cannot_be_looked_at(postgres_server: Postgres, tmp_path: Path) -> None:
    """Silence is what nodes refuse by: nobody is told that nothing is new by one who cannot know."""
    with postgres_server.fresh() as url:
        async with desks.desk(url, tmp_path) as desk:
            await desk.active()
            board, feed = await following(desk)
            try:
                async with aclosing(feed.follow(CUSTOMS)) as stream:
                    await anext(stream)
                    await quiet(stream)
                    await desk.execute(sa.text("ALTER TABLE authorization_clock RENAME TO gone"))
                    # One that was under way may still come; then there is silence.
                    with pytest.raises(TimeoutError):
                        for _ in range(4):
                            async with asyncio.timeout(4 * HEARTBEAT):
                                await anext(stream)
            finally:
                await board.stop()


async def test_whoever_is_too_far_behind_begins_anew(desk: Desk) -> None:
    board, feed = await following(desk)
    try:
        number = board.number
        found = await desk.active()
        while board.since(number) == ():
            await board.news(1)
        assert [change.authorization_id for change in board.since(number) or ()] == [found.id]
        board._changes.clear()  # pyright: ignore[reportPrivateUsage]
        assert board.since(number) is None
        async with aclosing(feed.follow(CUSTOMS)) as stream:
            assert (await anext(stream)).snapshot
    finally:
        await board.stop()


async def test_a_large_snapshot_comes_in_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.supervision.feed._BYTES", 500)
    names = {(await desk.active(by=f"req-{n}")).id for n in range(5)}
    board, feed = await following(desk)
    try:
        async with aclosing(feed.follow(CUSTOMS)) as stream:
            first = await anext(stream)
            assert first.snapshot
            assert 1 <= len(first.authorizations) < 5
            assert first.more
            seen = [found.authorization_id for found in first.authorizations]
            part, known = first, Registry(dt.timedelta(minutes=1))
            known.apply(first)
            while part.more:
                # As nodes take it: nothing of it before all of it is there.
                assert not [name for name in names if known.find(name)]
                part = await anext(stream)
                known.apply(part)
                assert not part.snapshot
                assert part.authorizations
                seen += [found.authorization_id for found in part.authorizations]
            assert all(known.find(name) for name in names)
            # All of them, each once, and nothing is said to come that does not.
            assert sorted(seen) == sorted(names)
            await quiet(stream)
    finally:
        await board.stop()


async def test_what_was_never_in_force_is_nobodys_news(desk: Desk) -> None:
    board, feed = await following(desk)
    try:
        async with aclosing(feed.follow(CUSTOMS)) as stream, aclosing(feed.follow(TAXATION)) as other:
            await anext(stream)
            await anext(other)
            await desk.revoke(await desk.request())
            await desk.reject(await desk.request())
            await quiet(stream)
            await quiet(other)
    finally:
        await board.stop()


async def test_what_may_be_forgotten_is(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active(lasts=10 * DAY)
    await desk.reserve(found, 5, "old")
    desk.clock.move(2 * DAY)
    await desk.reserve(found, 5, "new")
    late = await desk.other(Clock(desk.clock()))
    board, _ = await following(late)
    try:
        while len(await desk.rows(RESERVATION)) > 1 or await desk.rows(TOKEN):
            await board.news(1)
        assert (await desk.get(found)).head.rows_used == 10
    finally:
        await board.stop()
