"""What officers may do to an authorization, and what not, whatever roles their tokens give."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.kit.authorizations.scope import scope_digest
from services.kit.errors import HutongError, Reason
from services.kit.officers.tokens import Role
from services.supervision import rules
from services.supervision.books import Authorization
from services.supervision.scope import NONCE_BYTES, with_nonce
from services.supervision.state import State
from services.supervision.tables import EVENT, HEAD, TOKEN
from tests.supervision.desk import DAY, HOUR, MINUTE, SYSTEM, TERMS, Desk, desk, officer, scope


async def refusal(done: Awaitable[object]) -> Reason:
    with pytest.raises(HutongError) as caught:
        await done
    return caught.value.reason


async def test_one_is_asked_for_approved_by_two_and_used(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.request()
    assert await desk.state(found) is State.REQUESTED
    assert found.reach == {"supervision", "customs"}
    once = await desk.approve(found, "supervision", "chief")
    assert once.state(desk.clock()) is State.APPROVED_ONCE
    twice = await desk.approve(found, "customs", "owner")
    assert twice.state(desk.clock()) is State.ACTIVE
    used = await desk.use(found)
    assert [event.kind.value for event in used.events] == ["requested", "approved", "approved", "used"]
    assert [event.sequence for event in used.events] == [1, 2, 3, 4]
    assert len({event.by for event in used.events}) == 3
    assert await desk.state(found) is State.ACTIVE
    # Officers go by pseudonyms, everywhere.
    stored = str(await desk.rows(EVENT)) + str(await desk.rows(HEAD))
    assert not any(f"{name}'" in stored or f":{name}" in stored for name in ("req", "chief", "owner"))


async def test_nobody_approves_their_own_request(desk: Desk) -> None:
    found = await desk.request(by="eve")
    assert await refusal(desk.approve(found, "supervision", "eve")) is Reason.APPROVER_NOT_ALLOWED
    # The same person, with a token that knows them as an approver only.
    act = desk.authorizations.act(found.id, officer("supervision", "eve", Role.APPROVER))
    assert await refusal(desk.authorizations.approve(act, found.digest)) is Reason.APPROVER_NOT_ALLOWED
    # Somebody of another agency who goes by the same reference is somebody else.
    assert (await desk.approve(found, "customs", "eve")).state(desk.clock()) is State.APPROVED_ONCE


async def test_nobody_approves_twice(desk: Desk) -> None:
    found = await desk.request()
    await desk.approve(found, "customs", "owner")
    assert await refusal(desk.approve(found, "customs", "owner")) is Reason.APPROVER_NOT_ALLOWED
    act = desk.authorizations.act(found.id, officer("customs", "owner", Role.APPROVER, Role.AUDITOR))
    assert await refusal(desk.authorizations.approve(act, found.digest)) is Reason.APPROVER_NOT_ALLOWED
    assert await desk.state(found) is State.APPROVED_ONCE


async def test_an_owner_has_to_be_among_the_approvers(sqlite_url: str, tmp_path: Path) -> None:
    async with desk(sqlite_url, tmp_path) as strict:
        found = await strict.request()
        await strict.approve(found, "supervision", "chief")
        assert await refusal(strict.approve(found, "supervision", "deputy")) is Reason.OWNER_APPROVAL_MISSING
        assert await strict.state(found) is State.APPROVED_ONCE
        assert (await strict.approve(found, "customs", "owner")).state(strict.clock()) is State.ACTIVE


async def test_an_owner_need_not_be_where_the_zone_says_so(sqlite_url: str, tmp_path: Path) -> None:
    terms = replace(TERMS, owner_approval=False)
    async with desk(sqlite_url, tmp_path, terms) as loose:
        found = await loose.request()
        await loose.approve(found, "supervision", "chief")
        assert (await loose.approve(found, "supervision", "deputy")).state(loose.clock()) is State.ACTIVE


async def test_what_one_may_not_see_one_cannot_act_on(desk: Desk) -> None:
    found = await desk.request()
    for done in (
        desk.approve(found, "taxation", "owner"),
        desk.reject(found, "taxation"),
        desk.revoke(found, "taxation"),
        desk.get(found, "taxation"),
        desk.use(found, "req", "taxation/refund"),
    ):
        assert await refusal(done) is Reason.AUTHORIZATION_UNKNOWN
    act = desk.authorizations.act("there-is-none", officer("customs", "owner"))
    assert await refusal(desk.authorizations.approve(act, found.digest)) is Reason.AUTHORIZATION_UNKNOWN


async def test_another_systems_authorization_is_not_ones_own(desk: Desk) -> None:
    found = await desk.active()
    assert await refusal(desk.use(found, "req", "supervision/other")) is Reason.AUTHORIZATION_NOT_YOURS
    assert await refusal(desk.use(found, "owner", "customs/release")) is Reason.AUTHORIZATION_NOT_YOURS


async def test_approvers_sign_off_what_they_have_seen(desk: Desk) -> None:
    found = await desk.request()
    wider = scope(begin=desk.clock(), row_quota=10**6)
    act = desk.authorizations.act(found.id, officer("customs", "owner"))
    for seen in (b"", found.digest[:-1], (await desk.request(asked=wider)).digest):
        assert await refusal(desk.authorizations.approve(act, seen)) is Reason.AUTHORIZATION_CHANGED
    assert await desk.state(found) is State.REQUESTED


async def test_a_token_is_good_for_one_act(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active()
    act = desk.authorizations.act(found.id, officer("supervision", "req", jti="once"))
    await desk.authorizations.use(act, SYSTEM)
    assert await refusal(desk.authorizations.use(act, SYSTEM)) is Reason.OFFICER_TOKEN_REPLAYED
    # Nor after a restart.
    again = await desk.other()
    assert await refusal(again.authorizations.use(act, SYSTEM)) is Reason.OFFICER_TOKEN_REPLAYED
    # Another agency's issuer may use the same id.
    other = desk.authorizations.act(found.id, officer("customs", "owner", jti="once"))
    await desk.authorizations.revoke(other)


async def test_a_token_whose_act_was_refused_is_not_used_up(desk: Desk) -> None:
    found = await desk.request()
    act = desk.authorizations.act(found.id, officer("supervision", "req", jti="again"))
    assert await refusal(desk.authorizations.use(act, SYSTEM)) is Reason.AUTHORIZATION_NOT_ACTIVE
    assert "again" not in {row["jti"] for row in await desk.rows(TOKEN)}


async def test_a_request_that_comes_again_is_one(any_desk: Desk) -> None:
    desk = any_desk
    name, asked = str(uuid.uuid4()), scope()
    who = officer("supervision", "req")
    first = await desk.authorizations.request(name, SYSTEM, asked, who)
    # With the same token, as a client sends it that lost the answer; and with a fresh one.
    for token in (who, officer("supervision", "req")):
        assert (await desk.authorizations.request(name, SYSTEM, asked, token)).id == first.id
    assert len(await desk.rows(HEAD)) == 1
    assert len(first.scope.nonce) == NONCE_BYTES
    for system, other, by in (
        (SYSTEM, scope(row_quota=5), "req"),
        (SYSTEM, asked, "somebody"),
    ):
        done = desk.authorizations.request(name, system, other, officer("supervision", by))
        assert await refusal(done) is Reason.REQUEST_ID_REUSED
    # Request ids are each system's own.
    elsewhere = scope("customs/release")
    their = await desk.authorizations.request(name, "customs/release", elsewhere, officer("customs", "req"))
    assert their.id != first.id
    # Of one scope there are as many digests as there were requests: nobody finds out which it is by trying.
    twin = await desk.authorizations.request(str(uuid.uuid4()), SYSTEM, asked, officer("supervision", "req"))
    assert twin.digest != first.digest
    assert twin.digest == scope_digest(with_nonce(asked, twin.scope.nonce)) != scope_digest(asked)


async def test_the_same_request_many_times_at_once_is_one(any_desk: Desk) -> None:
    desk = any_desk
    name, asked, who = str(uuid.uuid4()), scope(), officer("supervision", "req")
    second = await desk.other()
    both = (desk, second, desk, second, desk, second)
    made = await asyncio.gather(*(d.authorizations.request(name, SYSTEM, asked, who) for d in both))
    assert len({found.id for found in made}) == 1
    assert len(await desk.rows(HEAD)) == 1


async def in_state(desk: Desk, state: State) -> Authorization:
    """Bring one to where a test wants it."""
    if state in {State.REQUESTED, State.REJECTED, State.LAPSED}:
        found = await desk.request()
    elif state is State.APPROVED_ONCE:
        found = await desk.approve(await desk.request(), "supervision", "chief")
    else:
        found = await desk.active(lasts=DAY)
    if state is State.REJECTED:
        found = await desk.reject(found)
    elif state is State.REVOKED:
        found = await desk.revoke(found)
    elif state is State.EXHAUSTED:
        await desk.reserve(found, 100)
    elif state in {State.LAPSED, State.EXPIRED}:
        desk.clock.move(4 * DAY)
    assert await desk.state(found) is state
    return await desk.get(found)


CHANGED, EXPIRED = Reason.AUTHORIZATION_CHANGED, Reason.AUTHORIZATION_EXPIRED
REVOKED, EXHAUSTED = Reason.AUTHORIZATION_REVOKED, Reason.AUTHORIZATION_EXHAUSTED
NOT_ACTIVE = Reason.AUTHORIZATION_NOT_ACTIVE

MATRIX: dict[State, dict[str, State | Reason]] = {
    State.REQUESTED: {
        "approve": State.APPROVED_ONCE,
        "reject": State.REJECTED,
        "revoke": State.REVOKED,
        "use": NOT_ACTIVE,
        "reserve": NOT_ACTIVE,
    },
    State.APPROVED_ONCE: {
        "approve": State.ACTIVE,
        "reject": State.REJECTED,
        "revoke": State.REVOKED,
        "use": NOT_ACTIVE,
        "reserve": NOT_ACTIVE,
    },
    State.ACTIVE: {
        "approve": CHANGED,
        "reject": CHANGED,
        "revoke": State.REVOKED,
        "use": State.ACTIVE,
        "reserve": State.ACTIVE,
    },
    State.REJECTED: {
        "approve": CHANGED,
        "reject": CHANGED,
        "revoke": CHANGED,
        "use": NOT_ACTIVE,
        "reserve": NOT_ACTIVE,
    },
    State.REVOKED: dict.fromkeys(("approve", "reject", "revoke", "use", "reserve"), REVOKED),
    State.EXPIRED: dict.fromkeys(("approve", "reject", "revoke", "use", "reserve"), EXPIRED),
    State.LAPSED: dict.fromkeys(("approve", "reject", "revoke", "use", "reserve"), EXPIRED),
    State.EXHAUSTED: dict.fromkeys(("approve", "reject", "revoke", "use", "reserve"), EXHAUSTED),
}


@pytest.mark.parametrize("act", ["approve", "reject", "revoke", "use", "reserve", "review"])
@pytest.mark.parametrize("state", list(State))
async def test_every_act_in_every_state(desk: Desk, state: State, act: str) -> None:
    found = await in_state(desk, state)
    expected = MATRIX[state].get(act, NOT_ACTIVE)
    doing: dict[str, Callable[[], Awaitable[object]]] = {
        "approve": lambda: desk.approve(found, "customs", "second"),
        "reject": lambda: desk.reject(found),
        "revoke": lambda: desk.revoke(found),
        "use": lambda: desk.use(found),
        "reserve": lambda: desk.reserve(found, 1),
        "review": lambda: desk.review(found, "customs", "second"),
    }
    if isinstance(expected, State):
        await doing[act]()
        assert await desk.state(found) is expected
        return
    before = await desk.rows(EVENT)
    assert await refusal(doing[act]()) is expected
    assert await desk.rows(EVENT) == before
    assert await desk.state(found) is state


async def test_only_approvers_and_the_requester_revoke(desk: Desk) -> None:
    found = await desk.active()
    colleague = desk.revoke(found, "supervision", "colleague", Role.REQUESTER)
    assert await refusal(colleague) is Reason.APPROVER_NOT_ALLOWED
    await desk.revoke(found, "supervision", "req", Role.REQUESTER)
    waiting = await desk.request(by="req")
    assert await refusal(desk.reject(waiting, "supervision", "req")) is Reason.APPROVER_NOT_ALLOWED
    await desk.revoke(waiting, "supervision", "req", Role.REQUESTER)
    assert await desk.state(waiting) is State.REVOKED


async def test_two_approvers_at_once_lose_nothing(any_desk: Desk) -> None:
    desk = any_desk
    second = await desk.other()
    for number in range(8):
        found = await desk.request(by=f"req-{number}")
        await asyncio.gather(desk.approve(found, "supervision", "chief"), second.approve(found, "customs", "owner"))
        done = await desk.get(found)
        assert done.state(desk.clock()) is State.ACTIVE
        assert {person.agency for person in done.standing.approvers} == {"supervision", "customs"}


async def test_a_revocation_and_an_approval_at_once_stand_one_after_the_other(any_desk: Desk) -> None:
    desk = any_desk
    second = await desk.other()
    for number in range(8):
        found = await desk.request(by=f"req-{number}")
        await desk.approve(found, "supervision", "chief")
        approved, revoked = await asyncio.gather(
            desk.approve(found, "customs", "owner"), second.revoke(found), return_exceptions=True
        )
        assert not isinstance(revoked, BaseException)
        if isinstance(approved, BaseException):
            assert isinstance(approved, HutongError)
            assert approved.reason is Reason.AUTHORIZATION_REVOKED
        assert await desk.state(found) is State.REVOKED


async def test_it_is_not_used_before_its_time_nor_after(desk: Desk) -> None:
    begin = desk.clock() + HOUR
    found = await desk.request(asked=scope(begin=begin, lasts=DAY))
    await desk.approve(found, "supervision", "chief")
    await desk.approve(found, "customs", "owner")
    assert await refusal(desk.use(found)) is Reason.AUTHORIZATION_NOT_YET
    assert await refusal(desk.reserve(found, 1)) is Reason.AUTHORIZATION_NOT_YET
    desk.clock.move(HOUR)
    await desk.use(found)
    desk.clock.move(DAY - dt.timedelta(microseconds=1))
    await desk.use(found)
    desk.clock.move(dt.timedelta(microseconds=1))
    assert await refusal(desk.use(found)) is Reason.AUTHORIZATION_EXPIRED


async def test_it_is_used_only_so_often(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST_USES", 5)
    found = await desk.active()
    for _ in range(2):
        await desk.use(found)
    assert await refusal(desk.use(found)) is Reason.AUTHORIZATION_EXHAUSTED
    assert await desk.state(found) is State.ACTIVE


async def test_a_ticket_would_end_before_it_began(desk: Desk) -> None:
    found = await desk.active(lasts=HOUR + dt.timedelta(microseconds=500_000))
    desk.clock.move(HOUR)
    assert await desk.state(found) is State.ACTIVE
    assert await refusal(desk.use(found)) is Reason.AUTHORIZATION_EXPIRED


async def test_a_request_lapses(desk: Desk) -> None:
    found = await desk.request()
    await desk.approve(found, "supervision", "chief")
    desk.clock.move(3 * DAY - MINUTE)
    assert await desk.state(found) is State.APPROVED_ONCE
    desk.clock.move(MINUTE)
    assert await desk.state(found) is State.LAPSED
    assert await refusal(desk.approve(found, "customs", "owner")) is Reason.AUTHORIZATION_EXPIRED
    # One whose time is over sooner lapses with it.
    brief = await desk.request(lasts=HOUR)
    desk.clock.move(HOUR)
    assert await desk.state(brief) is State.LAPSED
