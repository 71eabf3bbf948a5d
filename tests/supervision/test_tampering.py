"""Whoever can write to the store, and has neither key nor secret, makes authorizations unknown, and never others."""

import datetime as dt
import logging
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.credentials import signed, strict
from services.kit.credentials.keys import SigningKeys
from services.kit.errors import HutongError, NotFound, Reason
from services.supervision import store
from services.supervision.books import Authorization
from services.supervision.events import Event, HistoryBroken, Kind, Person, digest
from services.supervision.state import State, standing
from services.supervision.tables import EVENT, HEAD, REACH
from tests.supervision.desk import DAY, HOUR, START, TERMS, Desk, scope

Change = Callable[[Desk, Authorization], Any]


async def unknown(desk: Desk, found: Authorization) -> None:
    """It is unknown to this process, and to one that never saw it before."""
    fresh = await desk.other()
    for each in (desk, fresh):
        with pytest.raises(NotFound) as caught:
            await each.get(found)
        assert caught.value.reason is Reason.AUTHORIZATION_UNKNOWN
        for act in (each.use(found), each.reserve(found, 1), each.revoke(found)):
            with pytest.raises(HutongError) as refused:
                await act
            assert refused.value.reason is Reason.AUTHORIZATION_UNKNOWN
        assert each.broken


def event(found: Authorization, sequence: int) -> Any:
    return sa.and_(EVENT.c.authorization_id == found.id, EVENT.c.sequence == sequence)


def edited(**values: Any) -> Change:
    return lambda _, found: EVENT.update().where(event(found, 2)).values(**values)


def altered(part: int) -> Change:
    """Change one letter of a part of what was signed."""

    def change(_: Desk, found: Authorization) -> Any:
        parts = found.signatures[1].split(".")
        letter = "A" if parts[part][5] != "A" else "B"
        parts[part] = parts[part][:5] + letter + parts[part][6:]
        return EVENT.update().where(event(found, 2)).values(signature=".".join(parts))

    return change


def removed(number: int) -> Change:
    return lambda _, found: EVENT.delete().where(event(found, number))


def renumbered(old: int, new: int) -> Change:
    return lambda _, found: EVENT.update().where(event(found, old)).values(sequence=new)


def emptied(_: Desk, found: Authorization) -> Any:
    return EVENT.delete().where(EVENT.c.authorization_id == found.id)


def headed(**values: Any) -> Change:
    """Change its row; a value may be made of the authorization."""

    def change(_: Desk, found: Authorization) -> Any:
        made = {name: value(found) if callable(value) else value for name, value in values.items()}
        return HEAD.update().where(HEAD.c.authorization_id == found.id).values(**made)

    return change


def wider(found: Authorization) -> bytes:
    made = pb.Scope.FromString(found.head.scope)
    made.row_quota = 10**9
    return made.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "change",
    [
        edited(agency="taxation"),
        edited(officer="officer-0000000000000000"),
        edited(kind="revoked"),
        edited(at=START + HOUR),
        edited(reason_code="BECAUSE"),
        edited(signature=""),
        edited(signature="a.b.c"),
        altered(0),
        altered(1),
        altered(2),
        removed(1),
        removed(2),
        removed(3),
        emptied,
        renumbered(2, 7),
        headed(sequence=2),
        headed(tip=bytes(32)),
        headed(seal=bytes(32)),
        headed(scope=wider),
        headed(scope=b"\xff"),
        headed(system="customs/release"),
        headed(requester="customs:officer-1"),
        headed(emergency=True),
    ],
)
async def test_a_row_that_was_changed(desk: Desk, change: Change, caplog: pytest.LogCaptureFixture) -> None:
    found, other = await desk.active(), await desk.active()
    with caplog.at_level(logging.ERROR):
        await desk.execute(change(desk, found))
        await unknown(desk, found)
    assert any("does not verify" in record.message for record in caplog.records)
    # The one beside it is what it was.
    assert await desk.state(other) is State.ACTIVE


async def test_events_in_another_order(desk: Desk) -> None:
    found = await desk.active()
    for old, new in ((2, 9), (3, 2), (9, 3)):
        await desk.execute(EVENT.update().where(event(found, old)).values(sequence=new))
    await unknown(desk, found)


async def test_another_ones_whole_history(desk: Desk) -> None:
    """The approvals of one authorization are none of another, also where the whole row is swapped."""
    harmless, wanted = await desk.active(row_quota=1), await desk.request(row_quota=10**6)
    rows = [row for row in await desk.rows(EVENT) if row["authorization_id"] == harmless.id]
    (head,) = [row for row in await desk.rows(HEAD) if row["authorization_id"] == harmless.id]
    await desk.execute(EVENT.delete().where(EVENT.c.authorization_id == wanted.id))
    await desk.execute(EVENT.insert().values([row | {"authorization_id": wanted.id} for row in rows]))
    await unknown(desk, wanted)
    taken = {name: head[name] for name in ("sequence", "tip", "seal", "rows_used", "scope")}
    await desk.execute(HEAD.update().where(HEAD.c.authorization_id == wanted.id).values(**taken))
    await unknown(desk, wanted)


async def test_a_revocation_cut_off_the_end(any_desk: Desk) -> None:
    desk = any_desk
    found = await desk.active()
    (before,) = await desk.rows(HEAD)
    await desk.revoke(found)
    await desk.execute(EVENT.delete().where(event(found, 4)))
    last = found.signatures[-1]
    await desk.execute(HEAD.update().values(sequence=3, tip=digest(last), over=False))
    await unknown(desk, found)
    # With the row of that time, seal and all, only whoever saw the end can tell.
    await desk.execute(HEAD.update().values(**before))
    with pytest.raises(NotFound):
        await desk.get(found)


async def test_an_event_that_somebody_else_signed(desk: Desk) -> None:
    """Another agency's key, and a key of the service's own that nobody has published."""
    found = await desk.approve(await desk.request(), "supervision", "chief")
    forged = Event(found.id, 3, Kind.APPROVED, desk.clock(), Person("customs", "officer-1"), "", found.digest)
    for issuer in ("customs", "supervision"):
        folder = desk.folder / f"{issuer}-own"
        keys = SigningKeys.create(folder, f"spiffe://zone.example/{issuer}", START - DAY)
        if issuer == "customs":
            keys.publish(desk.folder / "keys")
        key = keys.active(desk.clock())
        claims = strict.loads(strict.decode(found.signatures[-1].split(".")[1]))
        claims |= {"seq": 3, "agn": "customs", "off": "officer-1", "prv": strict.encode(found.head.tip)}
        text = signed.sign({"typ": "hutong-authorization-event+jwt", "kid": key.kid}, claims, key.key)
        with pytest.raises(HistoryBroken):
            desk.signatures.read(text)
        await desk.database.write(partial(store.append, event=forged, signature=text))
        seal = desk.books.seal(found.id, 3, digest(text), 0)
        await desk.execute(HEAD.update().values(sequence=3, tip=digest(text), seal=seal))
        await unknown(desk, found)
        await desk.execute(EVENT.delete().where(event(found, 3)))
        shutil.rmtree(folder)


async def test_an_event_signed_with_another_key_under_the_services_key_id(desk: Desk) -> None:
    """Whoever has the secret can seal what the store then says; the events are still the service's own alone."""
    found = await desk.approve(await desk.request(), "supervision", "chief")
    keys = SigningKeys.create(desk.folder / "forger", "spiffe://zone.example/supervision", START - DAY)
    own = desk.signing.active(desk.clock())
    claims = strict.loads(strict.decode(found.signatures[-1].split(".")[1]))
    claims |= {"seq": 3, "agn": "customs", "off": "officer-1", "prv": strict.encode(found.head.tip)}
    header = {"typ": "hutong-authorization-event+jwt", "kid": own.kid}
    await added(desk, found, signed.sign(header, claims, keys.active(desk.clock()).key))
    await unknown(desk, found)
    await desk.execute(EVENT.delete().where(event(found, 3)))
    # It is the key that makes the difference: the very same words of the service itself would count.
    await added(desk, found, signed.sign(header, claims, own.key))
    assert await (await desk.other()).state(found) is State.ACTIVE


async def test_an_event_that_was_signed_to_follow_another(desk: Desk) -> None:
    """What the service signs in a transaction that comes to nothing fits nowhere else."""
    found = await desk.approve(await desk.request(), "supervision", "chief")
    made = Event(found.id, 3, Kind.APPROVED, desk.clock(), Person("customs", "officer-1"), "", found.digest)
    await added(desk, found, desk.signatures.sign(made, digest("another history")))
    await unknown(desk, found)


async def added(desk: Desk, found: Authorization, text: str) -> None:
    """Put a third event into the store, and seal it as the last."""
    made = Event(found.id, 3, Kind.APPROVED, desk.clock(), Person("customs", "officer-1"), "", found.digest)
    await desk.database.write(partial(store.append, event=made, signature=text))
    seal = desk.books.seal(found.id, 3, digest(text), 0)
    await desk.execute(HEAD.update().values(sequence=3, tip=digest(text), seal=seal))


async def test_a_revoked_signing_key_takes_with_it_what_it_signed(desk: Desk) -> None:
    found = await desk.active()
    old = desk.signing.active(desk.clock()).kid
    desk.signing.rotate(desk.clock())
    desk.signing.publish(desk.folder / "keys")
    # Replaced, it goes on to stand for what it signed.
    desk.clock.move(HOUR)
    await desk.use(found)
    later = await desk.active()
    desk.signing.revoke(old, desk.clock(), "KEY_COMPROMISED")
    desk.signing.publish(desk.folder / "keys")
    await unknown(desk, found)
    assert await desk.state(later) is State.ACTIVE


async def test_nothing_is_signed_that_nobody_could_verify(desk: Desk) -> None:
    found = await desk.active()
    desk.signing.rotate(desk.clock())
    desk.clock.move(HOUR)
    with pytest.raises(HutongError) as caught:
        await desk.use(found)
    assert caught.value.reason is Reason.KEY_UNKNOWN
    desk.signing.publish(desk.folder / "keys")
    await desk.use(found)


async def test_an_index_that_was_changed_shows_nobody_more(desk: Desk) -> None:
    found = await desk.active()
    await desk.execute(REACH.insert().values(agency="taxation", authorization_id=found.id))
    with pytest.raises(NotFound):
        await desk.get(found, "taxation")


ASKED = scope()
BY = Person("supervision", "officer-1")
OTHER, THIRD = Person("customs", "officer-2"), Person("customs", "officer-3")
MARK = b"\1" * 32


def said(*kinds: tuple[Kind, Person], **more: Any) -> State:
    events = [
        Event("a", n, kind, START, by, "", MARK, START + 3 * DAY if kind is Kind.REQUESTED else None)
        for n, (kind, by) in enumerate(kinds, 1)
    ]
    return standing(more.get("asked", ASKED), more.get("mark", MARK), events).state(START)


def test_histories_that_the_rules_do_not_allow_are_none_however_well_they_are_signed() -> None:
    asked, once, twice = (Kind.REQUESTED, BY), (Kind.APPROVED, OTHER), (Kind.APPROVED, THIRD)
    assert said(asked, once, twice) is State.ACTIVE
    for history in (
        (),
        (once,),
        (asked, asked),
        (asked, (Kind.APPROVED, BY)),
        (asked, once, once),
        (asked, once, twice, (Kind.APPROVED, Person("customs", "officer-4"))),
        (asked, (Kind.USED, BY)),
        (asked, (Kind.EXHAUSTED, BY)),
        (asked, (Kind.REVIEWED, OTHER)),
        (asked, once, twice, (Kind.REVIEWED, OTHER)),
        (asked, once, twice, (Kind.REJECTED, OTHER)),
        (asked, once, twice, (Kind.REVOKED, OTHER), (Kind.USED, BY)),
        (asked, (Kind.REJECTED, OTHER), once),
    ):
        with pytest.raises(HistoryBroken):
            said(*history)
    with pytest.raises(HistoryBroken):
        said(asked, once, mark=b"\2" * 32)


def test_time_alone_ends_it() -> None:
    assert TERMS.owner_approval
    begin = standing(
        ASKED,
        MARK,
        [
            Event("a", 1, Kind.REQUESTED, START, BY, "", MARK, START + DAY),
            Event("a", 2, Kind.APPROVED, START, OTHER, "", MARK),
        ],
    )
    assert begin.state(START) is State.APPROVED_ONCE
    assert begin.state(START + DAY) is State.LAPSED
    assert begin.state(START + DAY - dt.timedelta(microseconds=1)) is State.APPROVED_ONCE
